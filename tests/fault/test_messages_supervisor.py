"""Every wrong message against the real supervisor: gates that are puppets of the test each send one and must be
killed for it, by name and reason, while everybody else goes on. Made from messages.def, see test_messages.py."""
import json
import os
import re
import shutil
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness
from base import GatewayCase
from ipc import ROWS
from test_messages import broken, forbidden

PROGRAMS = os.path.join(harness.BUILD, "src", "programs")
GATES = 32

# Says READY and waits for its end; or sends what lies beside it under its name, before READY or behind it.
PUPPET = """#!/usr/bin/python3
import array, json, os, socket, sys, time
s = socket.socket(fileno=3)
s.setblocking(True)
name = sys.argv[1].replace("/", "-")
path = os.path.join(%r, name)
ready = bytes.fromhex(%r)
plan = None
if os.path.exists(path):
    plan = json.load(open(path))
    os.unlink(path)
if plan is None or plan["after"]:
    s.send(ready)
if plan is not None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(plan["fds"])]
    anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    s.sendmsg([bytes.fromhex(plan["data"])], anc)
while s.recv(1 << 17):
    pass
"""


class SupervisorReceives(GatewayCase):
    @classmethod
    def setUpClass(cls):
        cls.libexec = harness.scratch("puppets")
        cls.plans = harness.scratch("plans")
        for name in os.listdir(PROGRAMS):
            if name != "gate" and os.access(os.path.join(PROGRAMS, name), os.X_OK) and not os.path.isdir(os.path.join(PROGRAMS, name)):
                os.symlink(os.path.join(PROGRAMS, name), os.path.join(cls.libexec, name))
        with open(os.path.join(cls.libexec, "gate"), "w") as f:
            f.write(PUPPET % (cls.plans, ROWS["ready"].encode().hex()))
        os.chmod(f.name, 0o755)
        cls.GATEWAY = {"gates": GATES, "env": {"COUNTERSIGN_LIBEXEC": cls.libexec}}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.libexec, ignore_errors=True)
        shutil.rmtree(cls.plans, ignore_errors=True)

    def gates(self):
        status, body = self.gw.api("GET", "/v1/status")
        return {r["index"]: r for r in body.get("roles", []) if r["role"] == "gate"} if status == 200 else {}

    def others(self):
        return sorted((r["role"], r["pid"], r["restarts"]) for r in self.gw.api("GET", "/v1/status")[1]["roles"] if r["role"] != "gate")

    def all_ready(self):
        harness.wait_until("all gates to be ready", lambda: (lambda g: len(g) == GATES and all(r["ready"] for r in g.values()))(self.gates()), 60)

    def attempts(self):
        """(what, bytes, descriptors, behind READY, whether the supervisor must kill for it)"""
        for row in forbidden("SUPERVISOR", "GATE"):
            yield row.name + " well-formed", row.encode(5, text=b"x", u64=1), row.fds, True
        for row in ROWS.values():
            if row.receiver == "SUPERVISOR":
                for what, data, fds in broken(row):
                    yield "%s with %s" % (row.name, what), data, fds, True
        for name in ("status", "reload", "boot", "shutdown", "hold"):
            yield name + " before READY", ROWS[name].encode(5), ROWS[name].fds, False
        yield "READY twice", ROWS["ready"].encode(), 0, True

    def test_whoever_breaks_the_table_is_killed_and_the_others_go_on(self):
        self.all_ready()
        before, waiting, made = self.others(), list(self.attempts()), 0
        self.assertGreater(len(waiting), 80)
        while waiting:
            batch, waiting = waiting[:GATES], waiting[GATES:]
            at, now = len(self.gw.log_text()), self.gates()
            for i, (what, data, fds, after) in enumerate(batch):
                with open(os.path.join(self.plans, "new"), "w") as f:
                    json.dump({"data": data.hex(), "fds": fds, "after": after}, f)
                os.rename(f.name, os.path.join(self.plans, "gate-%d" % i))
                os.kill(now[i]["pid"], signal.SIGKILL)

            def killed():
                return set(map(int, re.findall(r"ipc-broken role=gate/(\d+) pid=\d+ why=", self.gw.log_text()[at:])))
            try:
                harness.wait_until("every one to be killed for what it sent", lambda: killed() >= set(range(len(batch))), 60)
            except AssertionError:
                raise AssertionError("not killed for: %r" % [batch[i][0] for i in set(range(len(batch))) - killed()])
            made += len(batch)
            self.all_ready()
        self.assertEqual(self.others(), before, "a role that broke nothing was restarted")
        self.assertGreater(made, 80)


if __name__ == "__main__":
    unittest.main()
