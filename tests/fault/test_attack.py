"""A gate, a front and a probe that have been taken over: the real supervisor starts hostile twins (tests/attack/) in
their place, beside honest roles. Whatever they try must be refused or cost them their life, and a session in
another gate goes on meanwhile, with everything that it needs from control and the record."""
import os
import re
import shutil
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peer"))

import harness  # noqa: E402
from base import GatewayCase  # noqa: E402

PROGRAMS = os.path.join(harness.BUILD, "src", "programs")
TWINS = os.path.join(harness.BUILD, "tests", "attack")
HOSTILE = 24  # gates; each attempt costs a life, and lives of one role come ever slower
SIGSYS = "signal %d" % signal.SIGSYS


class Attack(GatewayCase):
    @classmethod
    def setUpClass(cls):
        cls.libexec = harness.scratch("attack")
        for name in ("control", "keeper", "dialer", "recorder", "job-compile", "job-replayer"):
            os.symlink(os.path.join(PROGRAMS, name), os.path.join(cls.libexec, name))
        for name in ("gate", "front", "probe"):
            shutil.copy2(os.path.join(TWINS, "attack-" + name), os.path.join(cls.libexec, name))  # it looks beside itself
        cls.GATEWAY = {"gates": HOSTILE + 1, "env": {"COUNTERSIGN_LIBEXEC": cls.libexec}}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.libexec, ignore_errors=True)

    def plan(self, name, text=""):
        with open(os.path.join(self.libexec, name), "w") as f:
            f.write(text)

    def unplan(self):
        for name in os.listdir(self.libexec):
            if name.endswith((".calls", ".messages", ".calls-done")) or name in ("go", "session"):
                os.unlink(os.path.join(self.libexec, name))

    def role(self, role, index=0):
        return next(r for r in self.gw.api("GET", "/v1/status")[1]["roles"] if (r["role"], r["index"]) == (role, index))

    def all_ready(self):
        def look():
            status, answer = self.gw.api("GET", "/v1/status")
            return status == 200 and all(r["ready"] for r in answer.get("roles", [{"ready": False}]))
        harness.wait_until("all roles to be ready", look)

    def kill(self, role, index=0):
        os.kill(self.role(role, index)["pid"], signal.SIGKILL)

    def honest_life(self, c):
        """What a session needs: its gate, control, the record, the front."""
        t = self.table()
        with c.cursor() as cur:
            cur.execute("select count(*) from orders")
            self.assertEqual(cur.fetchone()[0], 100)
            worker = threading.Thread(target=lambda: self.gw.approve(self.held(t)["id"]))
            worker.start()
            cur.execute("drop table " + t)
            worker.join()
        self.assertFalse(self.exists(t))

    def calls_of(self, role, index, name):
        self.all_ready()
        at = len(self.gw.log_text())
        self.plan(name.replace("/", "-") + ".calls")
        self.plan("go")
        try:
            self.kill(role, index)
            harness.wait_until("all calls to be tried", lambda: "attack: %s calls done" % name in self.gw.log_text()[at:])
            self.all_ready()
        finally:
            self.unplan()
        ends = dict(re.findall(r"attack: %s call (.+): (signal \d+|status \d+)" % name, self.gw.log_text()[at:]))
        self.assertGreater(len(ends), 100)
        return {call: end for call, end in ends.items() if end != SIGSYS}

    def test_every_forbidden_system_call_kills_a_gate(self):
        if harness.sanitized():
            return  # its run-time library needs what the sandbox forbids: there is no sandbox to test
        c = self.gw.connect("bot", self.name)
        i = self.other_gate()
        self.assertEqual(self.calls_of("gate", i, "gate/%d" % i), {})
        self.honest_life(c)
        c.close()

    def test_every_forbidden_system_call_kills_a_front(self):
        if harness.sanitized():
            return
        self.assertEqual(self.calls_of("front", 0, "front"), {})

    def test_every_forbidden_system_call_kills_a_probe(self):
        if harness.sanitized():
            return
        self.assertEqual(self.calls_of("probe", 0, "probe"), {})

    def test_messages_of_a_hostile_probe_are_refused(self):
        self.all_ready()
        at = len(self.gw.log_text())
        c = self.gw.connect("bot", self.name)
        self.plan("session", self.gw.json("sessions")["sessions"][0]["id"])
        self.plan("go")
        self.plan("probe.messages", "0 1\n")
        try:
            self.kill("probe")
            harness.wait_until("all attempts to be made", lambda: "attack: probe messages done" in self.gw.log_text()[at:], 120)
            self.honest_life(c)
        finally:
            self.unplan()
        self.all_ready()
        log = self.gw.log_text()[at:]
        attempts = dict(re.findall(r"attack: probe attempt (\d+): (.+)", log))
        results = dict(re.findall(r"attack: probe result (\d+): (.+)", log))
        self.assertGreaterEqual(len(attempts), 8, attempts)
        self.assertEqual({w: results.get(k, "died") for k, w in attempts.items() if not self.refused(w, results.get(k, "died"))}, {})
        self.assertNotRegex(log, r"role-died role=(control|keeper|dialer|recorder|front|gate/\d+) ")
        self.honest_life(c)
        c.close()

    def other_gate(self):
        """A gate that does not carry the one session there is: by the sockets that it holds."""
        port = "%04X" % int(re.search(r":(\d+)$", self.gw.json("sessions")["sessions"][0]["address"]).group(1))
        with open("/proc/net/tcp") as f:
            inode = next(p[9] for p in (line.split() for line in f) if p[2].endswith(":" + port))
        for i in range(HOSTILE + 1):
            where = "/proc/%d/fd" % self.role("gate", i)["pid"]
            held = {os.readlink(os.path.join(where, fd)) for fd in os.listdir(where)}
            if "socket:[%s]" % inode not in held:
                return i
        raise AssertionError("every gate holds it")

    def test_messages_of_a_hostile_gate_are_refused_and_others_go_on(self):
        self.all_ready()
        at = len(self.gw.log_text())
        for i in range(1, HOSTILE + 1):
            self.plan("gate-%d.messages" % i, "%d %d\n" % (i - 1, HOSTILE))
        try:
            for i in range(1, HOSTILE + 1):
                self.kill("gate", i)
            harness.wait_until("the honest gates to be gone", lambda: len(re.findall(
                r"role-died role=gate/\d+ ", self.gw.log_text()[at:])) >= HOSTILE)
            c = self.gw.connect("bot", self.name)  # only gate/0 accepts now
            session = self.gw.json("sessions")["sessions"]
            self.assertEqual(len(session), 1)
            self.plan("session", session[0]["id"])
            self.plan("go")
            self.honest_life(c)
            harness.wait_until("all attempts to be made", lambda: len(set(re.findall(
                r"attack: (gate/\d+) messages done", self.gw.log_text()[at:]))) == HOSTILE, 120)
            self.honest_life(c)
            self.assertEqual([s["id"] for s in self.gw.json("sessions")["sessions"]], [session[0]["id"]])
            c.close()
            self.all_ready()
        finally:
            self.plan("go")
            time.sleep(0.1)
            self.unplan()
        log = self.gw.log_text()[at:]
        attempts = dict(re.findall(r"attack: \S+ attempt (\d+): (.+)", log))
        results = dict(re.findall(r"attack: \S+ result (\d+): (.+)", log))
        self.assertGreater(len(attempts), 90)
        self.assertEqual(sorted(map(int, attempts)), list(range(len(attempts))))
        wrong = {what: results.get(k, "died") for k, what in attempts.items() if not self.refused(what, results.get(k, "died"))}
        self.assertEqual(wrong, {})
        self.assertGreaterEqual(len(re.findall(r"recorder ipc-broken gate=", log)), 4, "rings of rubbish")
        self.assertNotRegex(log, r"role-died role=(control|keeper|dialer|recorder|front|gate/0) ")

    @staticmethod
    def refused(what, result):
        kind = what.split()[0]
        if kind == "to-supervisor":
            return result == "died"  # killed by the supervisor before it could say more
        if kind in ("foreign", "trailing", "truncated", "oversize", "more-fds"):
            return result == "cut"
        if kind == "answer":
            return result in ("cut", "ignored")
        if kind.startswith("ring-"):
            return result in ("cut", "ignored")
        if result in ("cut", "ignored"):
            return True
        if what.endswith(" session_live") and result.startswith("answered session_kill "):
            return True  # told to end what it claims to carry: nobody else hears of it
        said = re.match(r"answered (\S+) err=(\d+) fds=(\d+)$", result)
        return bool(said) and said.group(3) == "0" and (said.group(2) != "0")

    def test_messages_of_a_hostile_front_are_refused(self):
        self.all_ready()
        at = len(self.gw.log_text())
        c = self.gw.connect("bot", self.name)
        self.plan("go")
        self.plan("front.messages", "0 1\n")
        try:
            self.kill("front")
            harness.wait_until("all attempts to be made", lambda: "attack: front messages done" in self.gw.log_text()[at:])
            with c.cursor() as cur:
                cur.execute("select count(*) from orders")
            harness.wait_until("the front to be back", lambda: "front started" in self.gw.log_text()[at:].split("front messages done")[1])
        finally:
            self.unplan()
        self.all_ready()
        log = self.gw.log_text()[at:]
        attempts = dict(re.findall(r"attack: front attempt (\d+): (.+)", log))
        results = dict(re.findall(r"attack: front result (\d+): (.+)", log))
        self.assertGreaterEqual(len(attempts), 7)
        self.assertEqual({w: results.get(k, "died") for k, w in attempts.items() if not self.refused(w, results.get(k, "died"))}, {})
        self.honest_life(c)
        c.close()


if __name__ == "__main__":
    unittest.main()
