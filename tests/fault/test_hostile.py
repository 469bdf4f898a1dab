"""A whole gateway whose control, or recorder, has been taken over: in place of the role a puppet of the test speaks on
its channels for one life, then the honest program comes back. What it may say the supervisor and keeper must answer
or refuse; for what it may not say it is killed; everybody else goes on, and the gateway serves afterwards."""
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

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = os.path.join(harness.BUILD, "src", "programs")

# The honest program, unless plans lie beside it: then its next life is the first of them, played on the channel.
PUPPET = """#!/usr/bin/python3
import os, sys
role, plans, program = %r, %r, %r
waiting = sorted(n for n in os.listdir(plans) if n.endswith(".plan"))
if not waiting:
    os.execv(program, [role] + sys.argv[1:])
os.rename(os.path.join(plans, waiting[0]), os.path.join(plans, "begun"))
sys.path[:0] = [%r, %r]
import hostile_puppet
hostile_puppet.play(role, plans)
"""


class HostileCase(GatewayCase):
    ROLE = None

    @classmethod
    def setUpClass(cls):
        cls.libexec, cls.plans = harness.scratch("hostile"), harness.scratch("plans")
        for name in os.listdir(PROGRAMS):
            path = os.path.join(PROGRAMS, name)
            if name != cls.ROLE and os.access(path, os.X_OK) and not os.path.isdir(path):
                os.symlink(path, os.path.join(cls.libexec, name))
        with open(os.path.join(cls.libexec, cls.ROLE), "w") as f:
            f.write(PUPPET % (cls.ROLE, cls.plans, os.path.join(PROGRAMS, cls.ROLE), os.path.join(HERE, "..", "lib"), HERE))
        os.chmod(f.name, 0o755)
        cls.GATEWAY = {"gates": 2, "env": {"COUNTERSIGN_LIBEXEC": cls.libexec}}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.libexec, ignore_errors=True)
        shutil.rmtree(cls.plans, ignore_errors=True)

    def processes(self):
        status, body = self.gw.api("GET", "/v1/status")
        return body["roles"] if status == 200 else []

    def all_ready(self):
        harness.wait_until("all roles to be ready", lambda: (lambda p: p and all(r["ready"] for r in p))(self.processes()))

    def others(self):
        return {(r["role"], r["index"], r["pid"]) for r in self.processes() if r["role"] != self.ROLE}

    def begin(self, plans):
        """The role's next lives are these, one after the other, and then its own."""
        self.all_ready()
        for i, plan in enumerate(plans):
            with open(os.path.join(self.plans, "%03d.plan" % i), "w") as f:
                json.dump(plan, f)
        os.kill(next(r["pid"] for r in self.processes() if r["role"] == self.ROLE), signal.SIGKILL)

    def play(self, **plan):
        """What the puppet wrote down of its life."""
        report = os.path.join(self.plans, "report")
        if os.path.exists(report):
            os.unlink(report)
        self.begin([plan])
        harness.wait_until("the puppet's report", lambda: os.path.exists(report))
        with open(report) as f:
            return json.load(f)

    def serves(self, live):
        """Who was connected before still is, and an approved statement runs."""
        self.all_ready()
        with live.cursor() as cur:
            cur.execute("select count(*) from orders")
            self.assertEqual(cur.fetchone()[0], 100)
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        self.gw.approve(self.held(t)["id"])
        self.assertEqual(b.finish(), 0, b.text)
        self.assertFalse(self.exists(t))

    def killed_for(self, attempts):
        """Each costs the role a life, with its name and the reason in the log."""
        attempts = list(attempts)
        live = self.gw.connect("bot", self.name)
        self.all_ready()
        others, at = self.others(), len(self.gw.log_text())

        def killed():
            return len(re.findall(r"ipc-broken role=%s pid=\d+ why=" % self.ROLE, self.gw.log_text()[at:]))
        self.begin([dict(send=[data.hex()], fds=fds, after=after, killed=True) for _, data, fds, after in attempts])
        try:
            harness.wait_until("every life to be ended for what it said", lambda: killed() >= len(attempts))
        except AssertionError:
            raise AssertionError("not killed for: %s" % attempts[killed()][0])
        self.all_ready()
        self.assertEqual(self.others(), others, "a role that broke nothing was restarted")
        self.serves(live)
        live.close()

    def worst(self, own):
        """One of each kind: what costs a life costs it by the same code for every message (test_messages_supervisor)."""
        sender = self.ROLE.upper()
        strange = list(forbidden("SUPERVISOR", sender))
        for row in strange[::max(1, len(strange) // 3)]:
            yield row.name + " well-formed", row.encode(5, text=b"x", u64=1), row.fds, True
        row = ROWS[own]
        seen = list(broken(row))
        for what, data, fds in seen[::max(1, len(seen) // 3)]:
            yield "%s with %s" % (row.name, what), data, fds, True
        yield "a message before READY", ROWS["status"].encode(5), 0, False
        yield "READY twice", ROWS["ready"].encode(), 0, True


class HostileRecorder(HostileCase):
    ROLE = "recorder"

    def test_a_recorder_that_breaks_the_table_is_killed_and_the_gateway_serves(self):
        self.killed_for(self.worst("ready"))


class HostileControl(HostileCase):
    ROLE = "control"

    def test_a_control_that_breaks_the_table_is_killed_and_the_gateway_serves(self):
        self.killed_for(self.worst("replay"))

    def test_whatever_a_control_may_say_the_supervisor_answers_and_goes_on(self):
        live = self.gw.connect("bot", self.name)
        self.all_ready()
        others = self.others()
        said = []
        for row in (r for r in ROWS.values() if r.sender == "CONTROL" and r.receiver == "SUPERVISOR"):
            for corr in (0, 7, 0xffffffff):
                for u64 in (0, 1, 2 ** 64 - 1):
                    for text in (b"", b"/../../etc/passwd", b"\xff" * 60):
                        for ids in (bytes(16), b"\xff" * 16):
                            data = row.encode(corr, u64=u64, text=text, ids=ids)
                            if len(data) <= row.max:
                                said.append(data.hex())
        self.assertGreater(len(said), 100)
        report = self.play(send=said * 3, fds=0, after=True)
        answers = report["answers"]
        self.assertTrue(answers.get("status_is") and answers.get("reloaded") and answers.get("replayed"), answers)
        self.assertEqual(report["replayed_ok"], 0, "a recording that does not exist was read")
        self.all_ready()
        self.assertEqual(self.others(), others)
        self.serves(live)
        live.close()

    def test_what_a_live_keeper_knows_better_than_control(self):
        """Control has the store: every box is in its hands. Keeper opens the right one for the right purpose, once."""
        live = self.gw.connect("bot", self.name)
        report = self.play(keeper=True, database=os.path.join(self.gw.home, "state", "state.db"), target=self.name)
        got = report["keeper"]
        refused = {k: v for k, v in got.items() if not k.startswith("+")}
        self.assertEqual({k: v[0] for k, v in refused.items() if v[0] == "ok"}, {}, "keeper proved what it must not")
        self.assertGreater(len(refused), 10)
        for what, words in (("elevated without a grant", "consumed grant"), ("elevated called everyday", "not that credential"),
                            ("the grant again", "had its proof"), ("a grant from before keeper's start", "before the keeper started"),
                            ("a target that is not configured", "not in the configuration")):
            self.assertIn(words, got[what][1], what)
        # What it cannot know: whether people gave the grant. docs/threat-model.md says so.
        self.assertEqual(got["+a grant that control invents"][0], "ok", got)
        self.assertEqual(got["+the everyday one"][0], "ok", got)
        self.serves(live)
        live.close()


if __name__ == "__main__":
    unittest.main()
