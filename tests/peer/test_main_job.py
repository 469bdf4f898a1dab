"""The main job: an agent's psql reads, its DROP TABLE waits for a person, and runs exactly once."""
import json
import signal
import time
import unittest

import harness
from base import WAIT_LINE, GatewayCase
from pgwire import TERMINATE, query


class MainJob(GatewayCase):
    def test_select_passes_and_gives_the_servers_rows(self):
        r = self.gw.psql("bot", self.name, "select id, item from orders where id <= 2 order by id")
        self.assertEqual((r.returncode, r.stdout), (0, "1|item 1\n2|item 2\n"), r.stderr)

    def test_drop_waits_and_runs_after_approval_on_the_same_connection(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table %s; " % t)
        line = WAIT_LINE.search(b.wait_text(WAIT_LINE.pattern).group(0))
        self.assertEqual(line.group(2), "pending")
        self.assertEqual(line.group(6), "change-data")
        self.assertIn("WARNING", b.text)
        self.assertTrue(self.exists(t), "it ran before anybody signed")
        request = self.held(t)
        self.assertEqual(request["id"], line.group(1))
        card = self.gw.json("show", request["id"], who="bob")
        self.assertEqual(card["text"], "drop table %s; " % t)
        self.assertEqual([p["name"] for p in card["chain"]], ["alice", "bot"])
        self.assertEqual((card["target"], card["role"], card["elevated"]), (self.name, self.roles["owner"], True))
        self.gw.approve(request["id"])
        self.assertEqual(b.finish(), 0, b.text)
        self.assertIn("DROP TABLE", b.text)
        self.assertFalse(self.exists(t))
        self.gw.wait_state(request["id"], "done")

    def test_denial_carries_the_approvers_words_and_the_session_goes_on(self):
        t = self.table()
        c = self.gw.connect("bot", self.name)
        held = harness.threading.Thread(target=lambda: self.gw.deny(self.held(t)["id"], "use the archive job instead"))
        held.start()
        with c.cursor() as cur:
            with self.assertRaises(Exception) as e:
                cur.execute("drop table " + t)
            self.assertEqual(e.exception.pgcode, "42501")
            self.assertIn("use the archive job instead", str(e.exception))
            cur.execute("select count(*) from " + t)
            self.assertEqual(cur.fetchone()[0], 10)
        held.join()
        c.close()

    def test_explicit_cancel_withdraws_the_request(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        request = self.held(t)
        b.kill(signal.SIGINT)
        b.finish()
        self.assertIn("57014", b.text)
        self.gw.wait_state(request["id"], "cancelled")
        r = self.gw.approve(request["id"], ok=False)
        self.assertEqual(r.returncode, 1)
        self.assertTrue(self.exists(t))

    def test_lost_connection_detaches_and_a_repeat_attaches_to_the_same_request(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        first = self.held(t)
        b.kill()
        b.finish()
        self.assertEqual(self.gw.wait_state(first["id"], "pending")["state"], "pending")
        again = self.gw.psql_start("bot", self.name, "drop table " + t)
        self.assertEqual(WAIT_LINE.search(again.wait_text(WAIT_LINE.pattern).group(0)).group(1), first["id"])
        self.assertEqual(len([r for r in self.gw.pending() if t in r["text"]]), 1)
        self.gw.approve(first["id"])
        self.assertEqual(again.finish(), 0, again.text)
        self.assertFalse(self.exists(t))

    def test_approved_while_nobody_is_attached_does_not_run_until_the_client_is_back(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        request = self.held(t)
        b.kill()
        b.finish()
        self.gw.approve(request["id"])
        self.assertTrue(self.exists(t))
        r = self.gw.psql("bot", self.name, "drop table " + t)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertFalse(self.exists(t))
        self.gw.wait_state(request["id"], "done")

    def test_a_grant_is_used_once(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "insert into %s values (11, 'x') returning 1; select 1" % t)
        request = None
        text = "delete from %s where id = 1" % t
        b.kill()
        first = self.gw.psql_start("bot", self.name, text)
        request = self.held(text)
        self.gw.approve(request["id"])
        self.assertEqual(first.finish(), 0, first.text)
        second = self.gw.psql_start("bot", self.name, text)
        again = self.held(text)
        self.assertNotEqual(again["id"], request["id"])
        self.gw.deny(again["id"], "once is enough")
        second.finish()
        self.assertEqual(self.sql("select count(*) from " + t)[0][0], 9)

    def test_two_connections_wait_for_one_request_and_one_of_them_runs_it(self):
        t = self.table()
        text = "delete from %s where id = 2" % t
        a = self.gw.psql_start("bot", self.name, text)
        request = self.held(text)
        b = self.gw.psql_start("bot", self.name, text)
        self.assertEqual(WAIT_LINE.search(b.wait_text(WAIT_LINE.pattern).group(0)).group(1), request["id"])
        self.gw.approve(request["id"])
        a.finish(), b.finish()
        self.assertEqual(sorted([a.p.returncode, b.p.returncode])[0], 0, a.text + b.text)
        self.assertEqual((a.text + b.text).count("DELETE 1"), 1, a.text + b.text)
        self.assertIn("already executed as " + request["id"], a.text + b.text)

    def test_the_first_wait_line_comes_at_once(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        b.wait_text("COUNTERSIGN held")
        request = self.held(t)
        self.gw.deny(request["id"], "no")
        b.finish()
        frames = self.frames_of(request["id"])
        self.assertTrue(frames)

    def frames_of(self, request):
        session = self.gw.json("show", request, who="bob")["session"]
        return [f for f in self.gw.recording(session) if f.get("request") == request]

    def test_notice_comes_again_while_waiting(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        request = self.held(t)
        harness.wait_until("a second wait line", lambda: b.text.count("COUNTERSIGN held") >= 2)
        self.assertIn("NOTICE", b.text)
        self.gw.deny(request["id"], "no")
        b.finish()

    def test_the_session_is_recorded_and_replayed(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        request = self.held(t)
        session = self.gw.json("show", request["id"], who="bob")["session"]
        self.gw.approve(request["id"])
        b.finish()
        self.ended(session)
        kinds = [f["kind"] for f in self.gw.recording(session)]  # at once: a replay has everything up to now
        for kind in ("session_open", "action", "held", "decided", "execute", "result", "session_close"):
            self.assertIn(kind, kinds)
        self.assertLess(kinds.index("execute"), kinds.index("result"))
        text = self.gw.cli("replay", session).stdout
        self.assertIn("drop table " + t, text)
        self.assertIn("bob", text)

    def ended(self, session):
        harness.wait_until("control to know of the end", lambda: session not in [
            s["id"] for s in self.gw.json("sessions")["sessions"] if s["state"] == "live"])

    def test_a_replay_at_once_has_the_last_frame(self):
        for _ in range(5):
            w = self.wire("alice")
            session = next(s["id"] for s in self.gw.json("sessions")["sessions"] if s["state"] == "live" and s["application"] == "")
            w.send(query("select 7"))
            w.until_ready()
            w.send(TERMINATE)
            w.close()
            self.ended(session)
            self.assertEqual([f["kind"] for f in self.gw.recording(session)], ["session_open", "action", "result", "session_close"])

    def test_a_long_recording_arrives_whole_every_time(self):
        w = self.wire("alice")
        session = next(s["id"] for s in self.gw.json("sessions")["sessions"] if s["state"] == "live" and s["application"] == "")
        for _ in range(4):
            w.send(query("select 'a statement of some length, so that the answer exceeds a socket buffer'") * 250)
            w.until_ready(250)
        w.send(TERMINATE)
        harness.wait_until("the session's end in the record", lambda: [f["kind"] for f in self.gw.recording(session)[-1:]] == ["session_close"])
        for _ in range(12):
            self.assertEqual(sum(f["kind"] == "action" for f in self.gw.recording(session)), 1000)
            status, body = self.gw.api("GET", "/v1/sessions/%s/recording" % session)
            self.assertEqual((status, len(body["frames"])), (200, 2002))
        w.close()

    def test_client_never_sees_the_credential(self):
        r = self.gw.psql("bot", self.name, "select current_user, session_user")
        self.assertEqual(r.stdout.strip(), "%s|%s" % (self.roles["user"], self.roles["user"]))
        self.assertNotIn(self.roles["password"], self.gw.log_text())


class Voting(GatewayCase):
    """Only persons vote, with their own token; never the requester or anyone in its chain."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.gw.add_user("dan", "dba", "engineers")       # a DBA who also works
        cls.gw.add_agent("danbot", "dan", "agents", "dba")

    def setUp(self):
        self.t = self.table()

    def ask(self, who):
        self.b = self.gw.psql_start(who, self.name, "drop table " + self.t)
        self.request = self.held(self.t, who="carol")
        self.addCleanup(lambda: (self.b.kill(), self.b.finish()))
        return self.request["id"]

    def refused(self, r, *words):
        self.assertEqual(r.returncode, 1, r.stdout + r.stderr)
        for w in words:
            self.assertIn(w, r.stderr)
        self.assertEqual(self.gw.json("show", self.request["id"], who="carol")["state"], "pending")
        self.assertTrue(self.exists(self.t))

    def test_requester_may_not_vote_although_in_the_group(self):
        self.refused(self.gw.approve(self.ask("dan"), who="dan", ok=False))

    def test_owner_of_the_requesting_agent_may_not_vote(self):
        self.refused(self.gw.approve(self.ask("danbot"), who="dan", ok=False))

    def test_agent_may_not_vote_although_in_the_group(self):
        r = self.ask("bot")
        self.refused(self.gw.approve(r, who="danbot", ok=False))
        self.refused(self.gw.deny(r, "no", who="danbot", ok=False))

    def test_somebody_outside_the_group_may_not_vote(self):
        self.refused(self.gw.approve(self.ask("bot"), who="alice", ok=False))

    def test_the_local_socket_without_a_token_never_votes_even_as_root(self):
        request = self.ask("bot")
        for what in ("approve", "deny"):
            status, body = self.gw.api("POST", "/v1/requests/%s/%s" % (request, what),
                                       {"digest": self.gw.json("show", request, who="carol")["digest"], "reason": "x"})
            self.assertIn(status, (401, 403), body)
        self.assertEqual(self.gw.json("show", request, who="carol")["state"], "pending")

    def test_a_vote_for_another_digest_is_refused(self):
        request = self.ask("bot")
        status, body = self.gw.api("POST", "/v1/requests/%s/approve" % request, {"digest": "00" * 32, "reason": "x"}, who="bob")
        self.assertEqual(status, 409, body)
        self.assertEqual(self.gw.json("show", request, who="carol")["state"], "pending")

    def test_a_disabled_approver_may_not_vote(self):
        self.gw.add_user("eve", "dba")
        request = self.ask("bot")
        self.gw.cli("user", "disable", "eve")
        self.refused(self.gw.approve(request, who="eve", ok=False))

    def test_wrong_token_is_nobody(self):
        request = self.ask("bot")
        status, _ = self.gw.api("POST", "/v1/requests/%s/approve" % request, {"digest": "00" * 32, "reason": ""}, token="cs_p_" + "A" * 43)
        self.assertEqual(status, 401)


class Terms(GatewayCase):
    """Time: expiry, wait budgets, async; quorum; and holds that run by the everyday credential."""
    RULES = """
rules:
  - name: read
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: quick
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, e == "ddl")
    then: hold
    run_as: elevated
    approvers: { groups: [dba], within: 2s, valid: 1m, attach: 1m }
  - name: two-people
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "DELETE"
    then: hold
    run_as: elevated
    approvers: { groups: [dba], quorum: 2, within: 10m, valid: 1m, attach: 1m }
  - name: short-wait
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "UPDATE"
    then: hold
    approvers: { groups: [dba], within: 10m, valid: 1m, attach: 1m, wait: 2s }
  - name: patient
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "INSERT"
    then: hold
    approvers: { groups: [dba], within: 10m, valid: 1m, attach: 1m }
"""

    def test_expiry_gives_an_error_and_the_session_goes_on(self):
        t = self.table()
        r = self.gw.psql("bot", self.name, "drop table " + t, "select 'still here'")
        self.assertIn("CS002", r.stderr)
        self.assertIn("still here", r.stdout)
        self.assertTrue(self.exists(t))

    def test_quorum_needs_two_different_people(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "delete from " + t)
        request = self.held(t)
        self.gw.approve(request["id"], who="bob")
        again = self.gw.approve(request["id"], who="bob", ok=False)
        self.assertEqual(again.returncode, 1)
        self.assertEqual(self.sql("select count(*) from " + t)[0][0], 10)
        self.gw.approve(request["id"], who="carol")
        self.assertEqual(b.finish(), 0, b.text)
        self.assertEqual(self.sql("select count(*) from " + t)[0][0], 0)

    def test_the_end_of_the_wait_leaves_the_request_and_says_so(self):
        t = self.table()
        text = "update %s set note = 'changed' where id = 3" % t
        r = self.gw.psql("bot", self.name, text)
        self.assertIn("CS001", r.stderr)
        self.assertRegex(r.stderr, WAIT_LINE.pattern)
        request = self.held(t)
        self.gw.approve(request["id"])
        r = self.gw.psql("bot", self.name, text)
        self.assertEqual((r.returncode, r.stdout), (0, "UPDATE 1\n"), r.stderr)

    def test_async_is_refused_at_once_and_runs_when_repeated(self):
        t = self.table()
        text = "update %s set note = 'async' where id = 4" % t
        c = self.gw.connect("bot", self.name, options="-c countersign.mode=async")
        with c.cursor() as cur:
            began = time.monotonic()
            with self.assertRaises(Exception) as e:
                cur.execute(text)
            self.assertEqual(e.exception.pgcode, "CS001")
            request = self.held(t)
            self.assertIn(request["id"], e.exception.diag.message_detail)
            self.gw.approve(request["id"])
            cur.execute(text)
            self.assertEqual(cur.rowcount, 1)
        c.close()
        self.assertEqual(self.gw.wait_state(request["id"], "done")["votes"][0]["by"].split(":")[-1], "bob")
        del began

    def test_held_inside_a_transaction_runs_inside_it(self):
        t = self.table()
        c = self.gw.connect("bot", self.name)
        c.autocommit = False
        with c.cursor() as cur:
            cur.execute("select count(*) from " + t)
            approver = harness.threading.Thread(target=lambda: self.gw.approve(self.held(t)["id"]))
            approver.start()
            cur.execute("insert into %s values (77, 'in the transaction')" % t)
            approver.join()
            self.assertEqual(self.sql("select count(*) from %s where id = 77" % t)[0][0], 0)
            c.commit()
        self.assertEqual(self.sql("select count(*) from %s where id = 77" % t)[0][0], 1)
        c.close()

    def test_card_shows_what_already_ran_in_the_transaction(self):
        t = self.table()
        c = self.gw.connect("bot", self.name)
        c.autocommit = False
        seen = {}

        def decide():
            r = self.held("insert into " + t)
            seen.update(self.gw.json("show", r["id"], who="bob"))
            self.gw.deny(r["id"], "no")
        with c.cursor() as cur:
            cur.execute("select 42 as answer")
            th = harness.threading.Thread(target=decide)
            th.start()
            with self.assertRaises(Exception):
                cur.execute("insert into %s values (1, 'x')" % t)
            th.join()
        self.assertTrue(seen["in_transaction"])
        self.assertIn("select 42 as answer", json.dumps(seen["tx"]))
        c.rollback()
        c.close()

    def test_elevated_inside_a_transaction_is_denied_with_advice(self):
        t = self.table()
        c = self.gw.connect("bot", self.name)
        c.autocommit = False
        with c.cursor() as cur:
            cur.execute("select 1")
            with self.assertRaises(Exception) as e:
                cur.execute("drop table " + t)
            self.assertIn("outside the transaction", str(e.exception))
            c.rollback()
            cur.execute("select 1")
        c.close()


if __name__ == "__main__":
    unittest.main()
