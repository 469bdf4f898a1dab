"""Each role killed while it is at work. What is promised: sessions that the dead role did not carry go on,
nothing that was acknowledged is lost, and what could not be finished is said, never guessed."""
import os
import resource
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness
from base import GatewayCase, fresh_name
from pgwire import Closed, Wire, error_of, kinds, query

RULES = harness.RULES.replace("&& !(sql.verb == \"INSERT\")", "&& !(sql.verb in [\"INSERT\", \"UPDATE\"])") + """
  - name: update
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "UPDATE"
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
"""


class RolesCase(GatewayCase):
    RULES = RULES

    def session(self, who="bot"):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        return w.login(who, self.gw.tokens[who], self.name)

    def works(self, w):
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")

    def processes(self):
        status, body = self.gw.api("GET", "/v1/status")
        return body["roles"] if status == 200 and "roles" in body else []

    def pid(self, role, index=0):
        return next(r["pid"] for r in self.processes() if (r["role"], r["index"]) == (role, index))

    def kill(self, role, index=0):
        """kill -9, and until another one serves in its place."""
        old = self.pid(role, index)
        os.kill(old, signal.SIGKILL)
        self.back(role, index, old)

    def back(self, role, index, old):
        def again():
            try:
                return [r for r in self.processes() if (r["role"], r["index"]) == (role, index) and r["pid"] not in (0, old) and r["ready"]]
            except (OSError, ValueError):
                return None
        harness.wait_until("%s/%d to be back" % (role, index), again)

    def update(self, mark):
        return "update orders set amount = amount + 1 where id = 70 /* %s */" % mark

    def amount(self):
        return self.sql("select amount from orders where id = 70")[0][0]

    def ask_held(self, w, sql):
        w.send(query(sql))
        return self.held(sql)

    def until_closed(self, w):
        got = []
        try:
            while True:
                got.append(w.read())
        except (Closed, OSError):
            return got


class Killed(RolesCase):
    GATEWAY = {"gates": 2}

    def both_gates(self):
        """Sessions by gate: an idle machine gives every connection to one gate, so come until it has changed."""
        found, extra = {}, []

        def come():
            ws = [Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE) for _ in range(8)]
            for w in ws:
                w.start_tls()
            for w in ws:
                w.login("bot", self.gw.tokens["bot"], self.name)
                extra.append(w) if w.gate in found else found.setdefault(w.gate, w)
            return len(found) == 2
        harness.wait_until("sessions on both gates", come)
        for w in extra:
            w.close()
        for w in found.values():
            self.addCleanup(w.close)
        return found[0], found[1]

    # ---- gate ----

    def test_a_killed_gate_takes_its_own_sessions_only(self):
        zero, one = self.both_gates()
        self.kill("gate", 0)
        self.assertTrue(zero.closed())
        self.works(one)
        self.works(self.session())
        self.works(one)

    def test_a_request_of_a_killed_gate_waits_for_its_client_to_come_back(self):
        w = self.session()
        sql, before = self.update("gate killed"), self.amount()
        r = self.ask_held(w, sql)
        self.kill("gate", w.gate)
        self.assertTrue(w.closed())
        harness.wait_until("control to know", lambda: self.gw.json("show", r["id"], who="bob")["attached"] in (0, False, None))
        self.assertEqual(self.gw.json("show", r["id"], who="bob")["state"], "pending")
        again = self.session()
        again.send(query(sql))
        harness.wait_until("the repeat to attach", lambda: self.gw.json("show", r["id"], who="bob")["attached"])
        self.assertEqual(len([p for p in self.gw.pending() if "gate killed" in p["text"]]), 1)
        self.gw.approve(r["id"])
        self.assertEqual(kinds(again.until_ready()), "CZ")
        self.assertEqual(self.amount(), before + 1)

    def test_a_gate_that_dies_between_use_and_result_leaves_the_state_unknown(self):
        """The server's row lock keeps the approved statement from finishing while its gate is killed."""
        lock = self.pg.connect(self.name)
        lock.autocommit = False
        with lock.cursor() as cur:
            cur.execute("select 1 from orders where id = 70 for update")
            w = self.session()
            sql = self.update("killed in use")
            r = self.ask_held(w, sql)
            self.gw.approve(r["id"])
            self.gw.wait_state(r["id"], "executing")
            harness.wait_until("it to run", lambda: self.sql("select 1 from pg_stat_activity where wait_event_type = 'Lock' and query = '%s'" % sql))
            self.kill("gate", w.gate)
            self.assertEqual(self.gw.wait_state(r["id"], "unknown")["state"], "unknown")
        lock.rollback()
        lock.close()
        # The same again is a new question, never a second use of the old answer.
        again = self.session()
        second = self.ask_held(again, sql)
        self.assertNotEqual(second["id"], r["id"])
        self.gw.deny(second["id"], "look first")
        self.assertEqual(error_of(again.until_ready())["C"], "42501")

    # ---- control ----

    def test_while_control_is_away_open_sessions_read_and_new_ones_are_told(self):
        w = self.session()
        pid = self.pid("control")
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(20):
                self.works(w)
        finally:
            os.kill(pid, signal.SIGKILL)
        self.works(w)
        self.back("control", 0, pid)
        self.works(w)
        self.works(self.session())

    def test_a_hold_survives_control_and_its_own_session_resumes(self):
        w = self.session()
        sql, before = self.update("control killed"), self.amount()
        r = self.ask_held(w, sql)
        self.kill("control")
        harness.wait_until("the gate to attach again", lambda: self.gw.json("show", r["id"], who="bob")["attached"])
        self.assertEqual(self.gw.json("show", r["id"], who="bob")["state"], "pending")
        self.assertEqual(self.amount(), before)
        self.gw.approve(r["id"])
        self.assertEqual(kinds(w.until_ready()), "CZ")
        self.assertEqual(self.amount(), before + 1)
        self.gw.wait_state(r["id"], "done")
        self.works(w)

    def test_a_vote_given_just_before_control_dies_is_kept(self):
        w = self.session()
        sql, before = self.update("voted, then killed"), self.amount()
        w.send(query(sql))
        r = self.held(sql)
        w.sock.close()
        harness.wait_until("the client to be gone", lambda: not self.gw.json("show", r["id"], who="bob")["attached"])
        self.gw.approve(r["id"])
        self.kill("control")
        self.assertEqual(self.gw.json("show", r["id"], who="bob")["state"], "approved")
        again = self.session()
        self.assertEqual(kinds(again.ask(query(sql))), "CZ")
        self.assertEqual(self.amount(), before + 1)

    def test_tokens_sessions_and_reloads_survive_control(self):
        w = self.session()
        self.kill("control")
        self.assertEqual(self.gw.api("GET", "/v1/whoami", who="bob")[1]["name"], "bob")
        harness.wait_until("the live session to be known again", lambda: [
            s for s in self.gw.json("sessions")["sessions"] if s["chain"][-1]["name"] == "bot"])
        self.gw.cli("reload")
        self.works(w)

    def test_control_dies_while_the_grant_is_used(self):
        lock = self.pg.connect(self.name)
        lock.autocommit = False
        with lock.cursor() as cur:
            cur.execute("select 1 from orders where id = 70 for update")
            w = self.session()
            sql, before = self.update("control dies in use"), self.amount()
            r = self.ask_held(w, sql)
            self.gw.approve(r["id"])
            self.gw.wait_state(r["id"], "executing")
            self.kill("control")
        lock.rollback()
        lock.close()
        self.assertEqual(kinds(w.until_ready()), "CZ", "the client's own connection was not concerned")
        self.assertEqual(self.amount(), before + 1)
        harness.wait_until("the end of it", lambda: self.gw.json("show", r["id"], who="bob")["state"] in ("done", "unknown"))

    # ---- front ----

    def test_a_killed_front_is_back_and_nobody_else_notices(self):
        w = self.session()
        r = self.ask_held(w, self.update("front killed"))
        self.kill("front")
        self.assertEqual(self.gw.api("GET", "/v1/health", local=False)[0], 200)
        self.gw.approve(r["id"])
        self.assertEqual(kinds(w.until_ready()), "CZ")

    # ---- recorder ----

    def test_a_killed_recorder_loses_nothing_that_was_acknowledged(self):
        w, number = self.session(), int(fresh_name("0").split("_")[2]) * 1000
        session = harness.wait_until("the session", lambda: [
            s["id"] for s in self.gw.json("sessions")["sessions"] if s["chain"][-1]["name"] == "bot"])[-1]
        done = []
        for turn in range(3):
            for i in range(10):
                n = number + turn * 10 + i
                self.assertEqual(kinds(w.ask(query("insert into scratchpad values (%d)" % n))), "CZ")
                done.append(n)
            self.kill("recorder")
        self.works(w)
        w.ask(query("select 'the last one'"))

        def texts():
            frames = self.gw.recording(session, ok=True)
            return frames if any("the last one" in str(f.get("text", "")) for f in frames) else None
        frames = harness.wait_until("the recording", texts)
        recorded = [f.get("text", "") for f in frames if f["kind"] == "action"]
        for n in done:
            self.assertEqual(len([t for t in recorded if t == "insert into scratchpad values (%d)" % n]), 1, n)

    def test_while_the_recorder_is_away_changes_wait_or_are_refused_never_unrecorded(self):
        w = self.session()
        n = int(fresh_name("0").split("_")[2]) * 1000 + 7
        pid = self.pid("recorder")
        os.kill(pid, signal.SIGSTOP)
        try:
            w.send(query("insert into scratchpad values (%d)" % n))
            end = time.monotonic() + 1
            while time.monotonic() < end:
                self.assertEqual(self.sql("select count(*) from scratchpad where n = %d" % n)[0][0], 0)
        finally:
            os.kill(pid, signal.SIGKILL)
        got = w.until_ready()
        ran = self.sql("select count(*) from scratchpad where n = %d" % n)[0][0]
        self.assertEqual((kinds(got), ran) in (("CZ", 1), ("EZ", 0)), True, got)
        self.back("recorder", 0, pid)
        self.works(w)
        self.assertEqual(kinds(w.ask(query("insert into scratchpad values (%d)" % (n + 1)))), "CZ")

    # ---- a limit on the size of files ----

    def test_a_file_size_limit_is_an_error_for_every_role_and_not_its_death(self):
        for role in self.processes():
            with open("/proc/%d/status" % role["pid"]) as f:
                ignored = next(int(line.split()[1], 16) for line in f if line.startswith("SigIgn:"))
            self.assertTrue(ignored >> (signal.SIGXFSZ - 1) & 1, role["role"])

    def test_a_file_size_limit_of_control_refuses_changes_until_it_is_lifted(self):
        old = self.pid("control")
        w = self.session()
        resource.prlimit(old, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        try:
            self.assertNotEqual(self.gw.cli("user", "add", "toomuch", ok=False).returncode, 0)
            self.works(w)
        finally:
            resource.prlimit(old, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        harness.wait_until("changes to be possible again", lambda: self.gw.cli("user", "add", fresh_name("u").replace("_", "-"), ok=False).returncode == 0)
        self.assertEqual(self.pid("control"), old)

    def test_again_and_again(self):
        """Back-off slows a role that keeps dying; the gateway stays."""
        w = self.session()
        for role in ("front", "control", "recorder", "front"):
            self.kill(role)
        self.works(w)
        self.works(self.session())


class Ended(RolesCase):
    """The supervisor's own end. Each test leaves the gateway running for the next."""

    def children(self):
        return [r["pid"] for r in self.processes()]

    def gone(self, pids):
        def alive(pid):
            try:
                with open("/proc/%d/stat" % pid) as f:
                    return f.read().rsplit(")", 1)[1].split()[0] != "Z"
            except OSError:
                return False
        harness.wait_until("every role to be gone", lambda: not [p for p in pids if alive(p)])

    def restart(self):
        with open(self.gw.log, "ab") as f:
            f.write(b"\x00restart\x00")
        self.gw.start(secrets=False)

    def test_sigterm_stops_in_order_with_status_0(self):
        w, pids = self.session(), self.children()
        self.assertEqual(self.gw.stop(signal.SIGTERM), 0)
        self.gone(pids)
        got = self.until_closed(w)
        self.assertEqual(error_of(got)["C"], "57P01", got)
        self.assertFalse(os.path.exists(self.gw.socket) and self.answers())
        self.restart()
        self.works(self.session())

    def answers(self):
        try:
            self.gw.api("GET", "/v1/health")
            return True
        except OSError:
            return False

    def test_sigint_stops_too(self):
        pids = self.children()
        self.assertEqual(self.gw.stop(signal.SIGINT), 0)
        self.gone(pids)
        self.restart()

    def test_requests_and_people_survive_an_ordinary_restart(self):
        w = self.session()
        sql, before = self.update("restarted"), self.amount()
        r = self.ask_held(w, sql)
        self.assertEqual(self.gw.stop(signal.SIGTERM), 0)
        self.restart()
        self.assertEqual(self.gw.json("show", r["id"], who="bob")["state"], "pending")
        again = self.session()
        again.send(query(sql))
        harness.wait_until("the repeat to attach", lambda: self.gw.json("show", r["id"], who="bob")["attached"])
        self.gw.approve(r["id"])
        self.assertEqual(kinds(again.until_ready()), "CZ")
        self.assertEqual(self.amount(), before + 1)

    def test_a_killed_supervisor_takes_everybody_with_it_and_a_restart_recovers(self):
        w, used = self.session(), self.session()
        pending = self.ask_held(w, self.update("supervisor killed"))
        lock = self.pg.connect(self.name)
        lock.autocommit = False
        with lock.cursor() as cur:
            cur.execute("select 1 from orders where id = 71 for update")
            sql = "update orders set amount = 5 where id = 71 /* supervisor killed in use */"
            r = self.ask_held(used, sql)
            self.gw.approve(r["id"])
            self.gw.wait_state(r["id"], "executing")
            pids = self.children()
            self.gw.process.kill()
            self.gw.process.wait(harness.PATIENCE)
            self.gone(pids)
        lock.rollback()
        lock.close()
        self.assertTrue(w.closed())
        self.restart()
        self.assertEqual(self.gw.json("show", pending["id"], who="bob")["state"], "pending")
        self.assertEqual(self.gw.wait_state(r["id"], "unknown")["state"], "unknown")
        again = self.session()
        before = self.amount()
        again.send(query(self.update("supervisor killed")))
        harness.wait_until("the repeat to attach", lambda: self.gw.json("show", pending["id"], who="bob")["attached"])
        self.gw.approve(pending["id"])
        self.assertEqual(kinds(again.until_ready()), "CZ")
        self.assertEqual(self.amount(), before + 1)


if __name__ == "__main__":
    unittest.main()
