"""Attacks on the approval side: votes, grants, the API, what people may see, what lies about on disk.
Each test says what must not be possible, and tries it on a real gateway."""
import concurrent.futures
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))
import harness  # noqa: E402
from base import GatewayCase, fresh_name  # noqa: E402
from pgwire import TERMINATE, PgError, error_of, query  # noqa: E402

RULES = """
rules:
  - name: read
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: change
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, !(e in ["session", "read"])) && sql.verb != "DELETE"
    then: hold
    run_as: elevated
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
  - name: remove
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "DELETE"
    then: hold
    approvers: { groups: [owners], within: 15m, valid: 10m, attach: 10m }
"""


class Case(GatewayCase):
    RULES = RULES

    def digest(self, request, who="bob"):
        return self.gw.json("show", request, who=who)["digest"]

    def vote(self, request, what, who, digest=None, **more):
        return self.gw.api("POST", "/v1/requests/%s/%s" % (request, what),
                           {"digest": digest or self.digest(request), "reason": "said"}, who=who, **more)

    def ask(self, sql, who="bot"):
        """Something held in the background; it ends with the test."""
        b = self.gw.psql_start(who, self.name, sql)
        self.addCleanup(lambda: (b.kill(), b.finish()))
        b.wait_text("COUNTERSIGN held")
        return b

    def async_wire(self, who):
        return self.wire(who, options="-c countersign.mode=async")

    def rows(self, who, n, text):
        w = self.async_wire(who)
        for i in range(n):
            m = w.ask(query(text(i)))
            e = error_of(m)
            self.assertIsNotNone(e, m)
            if e["C"] != "CS001":
                break
        w.send(TERMINATE)
        w.close()


class Votes(Case):
    """Nobody votes for themselves, twice, on something else, or after the end."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.gw.add_user("dan", "dba", "engineers")
        cls.gw.add_user("olga", "owners")

    def test_requester_cannot_vote_after_leaving_and_rejoining_groups(self):
        t = self.table()
        self.ask("drop table " + t, who="dan")
        r = self.held(t)["id"]
        self.gw.api("POST", "/v1/users/dan/groups", {"groups": ["dba"]})
        status, body = self.vote(r, "approve", "dan")
        self.gw.api("POST", "/v1/users/dan/groups", {"groups": ["dba", "engineers"]})
        self.assertEqual((status, self.exists(t)), (403, True), body)

    def test_an_approver_of_another_rule_cannot_vote(self):
        t = self.table()
        self.ask("drop table " + t)
        r = self.held(t)["id"]
        status, body = self.vote(r, "approve", "olga")
        self.assertEqual((status, self.exists(t)), (403, True), body)

    def test_a_vote_of_somebody_who_left_the_group_since_does_not_count(self):
        self.gw.add_user("eve", "dba")
        t = self.table()
        self.ask("drop table " + t)
        r = self.held(t)["id"]
        d = self.digest(r)
        self.gw.api("POST", "/v1/users/eve/groups", {"groups": []})
        status, body = self.vote(r, "approve", "eve", d)
        self.assertEqual((status, self.exists(t)), (403, True), body)

    def test_a_digest_of_another_request_of_the_same_text_is_refused(self):
        t = self.table()
        text = "update %s set note = 'x'" % t
        self.ask(text)
        self.ask(text, who="alice")
        both = harness.wait_until("two requests", lambda: (lambda x: x if len(x) == 2 else None)(
            [r for r in self.gw.pending() if text == r["text"]]))
        status, body = self.vote(both[0]["id"], "approve", "bob", self.digest(both[1]["id"]))
        self.assertEqual(status, 409, body)

    def test_votes_at_the_same_moment_decide_once(self):
        for _ in range(8):
            t = self.table()
            b = self.ask("insert into %s values (99, 'once')" % t)
            r = self.held(t)["id"]
            d = self.digest(r)
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                done = list(pool.map(lambda w: self.vote(r, w[0], w[1], d), [
                    ("approve", "bob"), ("deny", "carol"), ("approve", "carol"), ("deny", "bob")]))
            # Two approvals may both have been in time, before the audit log had the first: then both are told the same.
            ends = {body["state"] for s, body in done if s == 200}
            self.assertEqual(len(ends), 1, done)
            b.finish()
            rows = self.sql("select count(*) from %s where id = 99" % t)[0][0]
            self.assertEqual(rows, 1 if ends == {"approved"} else 0, done)

    def test_approval_and_withdrawal_at_the_same_moment_agree_with_what_ran(self):
        for _ in range(8):
            t = self.table()
            b = self.ask("insert into %s values (99, 'once')" % t)
            r = self.held(t)["id"]
            d = self.digest(r)
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                a = pool.submit(self.vote, r, "approve", "bob", d)
                c = pool.submit(self.gw.api, "POST", "/v1/requests/%s/cancel" % r, {}, "bot")
            b.finish()
            state = harness.wait_until("an end", lambda: (lambda s: s if s not in (
                "pending", "approved", "executing") else None)(self.gw.json("show", r, who="bob")["state"]))
            rows = self.sql("select count(*) from %s where id = 99" % t)[0][0]
            self.assertEqual(rows, 1 if state == "done" else 0, (state, a.result(), c.result(), b.text))

    def test_a_vote_after_the_end_is_refused(self):
        t = self.table()
        b = self.ask("drop table " + t)
        r = self.held(t)["id"]
        d = self.digest(r)
        self.assertEqual(self.vote(r, "deny", "bob", d)[0], 200)
        b.finish()
        for who in ("bob", "carol"):
            for what in ("approve", "deny"):
                self.assertEqual(self.vote(r, what, who, d)[0], 409)
        self.assertTrue(self.exists(t))

    def test_somebody_who_is_no_party_and_no_approver_cannot_withdraw(self):
        t = self.table()
        self.ask("drop table " + t)
        r = self.held(t)["id"]
        for who in ("dan", "olga", "carol"):
            self.assertIn(self.gw.api("POST", "/v1/requests/%s/cancel" % r, {}, who)[0], (403, 404))
        self.assertEqual(self.gw.json("show", r, who="bob")["state"], "pending")


class Bound(Case):
    """What was approved is what runs: also when the configuration changes in between."""

    def setUp(self):
        self.t = self.table()
        self.other = fresh_name("other")
        self.more = harness.make_database(self.pg, self.other)
        c = self.pg.connect(self.other, self.more["owner"], self.more["owner_password"])
        with c.cursor() as cur:
            cur.execute("create table %s (id int)" % self.t)
        c.close()
        self.addCleanup(self.put_back)

    def put_back(self):
        self.gw.configure(self.RULES, [harness.target_of(self.pg, self.name, self.roles)])
        self.gw.cli("reload")

    def in_other(self):
        return self.pg.sql("select to_regclass('public.%s') is not null" % self.t, self.other)[0][0]

    def run_after_change(self, **changes):
        b = self.ask("drop table " + self.t)
        r = self.held(self.t)["id"]
        card = self.gw.json("show", r, who="bob")
        self.gw.configure(self.RULES, [harness.target_of(self.pg, self.name, self.roles, **changes)])
        if "owner_password" in changes:
            self.gw.cli("secret", "set", self.name + "-owner", stdin=changes["owner_password"])
            self.addCleanup(lambda: self.gw.cli("secret", "set", self.name + "-owner", stdin=self.roles["owner_password"]))
        self.gw.cli("reload")
        self.gw.approve(r, ok=False)
        b.finish()
        return card, b.text

    def test_a_reload_that_moves_the_target_to_another_database_voids_what_was_held_for_the_old_one(self):
        # The approver read "database": the first one. CONNECT is granted to both owners to make the move possible.
        self.pg.sql("alter table public.%s owner to %s" % (self.t, self.roles["owner"]), self.other)
        self.pg.sql("grant all on schema public to " + self.roles["owner"], self.other)
        card, text = self.run_after_change(database=self.other)
        self.assertEqual(card["database"], self.name)
        self.assertTrue(self.in_other(), "approved for %s, it ran in %s:\n%s" % (self.name, self.other, text))

    def test_a_reload_that_changes_the_elevated_role_voids_what_was_held_for_the_old_one(self):
        card, text = self.run_after_change(owner=self.pg.superuser, owner_password=self.pg.password)
        self.assertEqual(card["role"], self.roles["owner"])
        self.assertTrue(self.exists(self.t), "approved to run as %s, it ran as %s:\n%s" % (card["role"], self.pg.superuser, text))

    def test_a_reload_that_moves_the_target_to_another_server_voids_what_was_held_for_the_old_one(self):
        """Without TLS towards the target, so that no certificate stops it."""
        self.gw.configure(self.RULES, [harness.target_of(self.pg, self.name, self.roles, tls="off")])
        self.gw.cli("reload")
        pg2 = harness.Postgres()
        self.addCleanup(pg2.destroy)
        pg2.sql("create role %(user)s login password '%(password)s'; create role %(owner)s login password '%(owner_password)s'" % self.roles)
        pg2.sql("create database %s owner %s" % (self.name, self.roles["owner"]))
        pg2.sql("create table public.%s (id int); alter table public.%s owner to %s" % (self.t, self.t, self.roles["owner"]), self.name)
        self.run_after_change(address="127.0.0.1:%d" % pg2.port, tls="off")
        there = pg2.sql("select to_regclass('public.%s') is not null" % self.t, self.name)[0][0]
        self.assertTrue(there, "approved for one server, it ran on another")

    def test_a_reload_that_changes_quorum_or_group_voids(self):
        for change in (("within: 15m", "quorum: 2, within: 15m"), ("[dba]", "[owners]")):
            b = self.ask("drop table " + self.t)
            r = self.held(self.t)["id"]
            self.gw.configure(self.RULES.replace(*change))
            self.gw.cli("reload")
            b.finish()
            self.assertIn("CS003", b.text)
            self.assertEqual(self.gw.json("show", r)["state"], "void")
            self.gw.configure(self.RULES)
            self.gw.cli("reload")
        self.assertTrue(self.exists(self.t))

    def test_approval_and_reload_at_the_same_moment(self):
        """A rule becomes deny while the vote comes: either it ran before, or not at all; afterwards nothing runs."""
        for _ in range(4):
            t = self.table()
            b = self.ask("drop table " + t)
            r = self.held(t)["id"]
            d = self.digest(r)
            self.gw.configure(self.RULES.replace("then: hold\n    run_as: elevated\n    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }", "then: deny"))
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                a = pool.submit(self.vote, r, "approve", "bob", d)
                z = pool.submit(self.gw.cli, "reload")
                a.result(), z.result()
            b.finish()
            state = self.gw.json("show", r)["state"]
            self.assertEqual(self.exists(t), state != "done", (state, b.text))
            self.gw.configure(self.RULES)
            self.gw.cli("reload")


class Crashes(Case):
    """At most once, whatever dies when."""
    GATEWAY = {"gates": 2}

    def role_pids(self, role):
        def look():
            try:
                return self.gw.pids(role)
            except Exception:
                return None
        return harness.wait_until("a status", look)

    def kill(self, role):
        before = self.role_pids(role)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        harness.wait_until("a new " + role, lambda: (lambda now: now and len(now) == len(before) and not set(now) & set(before))(self.role_pids(role)))
        harness.wait_until("health", lambda: self.healthy())

    def healthy(self):
        try:
            return self.gw.api("GET", "/v1/health")[0] == 200
        except OSError:
            return False

    def settled(self, r):
        def look():
            try:
                s = self.gw.json("show", r, who="bob")["state"]
            except Exception:
                return None
            return s if s not in ("pending", "approved", "executing") else None
        return harness.wait_until("an end of " + r, look, 25)

    def test_control_killed_around_the_approval_runs_at_most_once(self):
        for delay in (0, 0.002, 0.005, 0.01, 0.02, 0.05):
            t = self.table()
            b = self.ask("insert into %s values (99, 'once')" % t)
            r = self.held(t)["id"]
            d = self.digest(r)
            pid = self.role_pids("control")[0]
            voter = threading.Thread(target=lambda: self.try_vote(r, d))
            voter.start()
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
            voter.join()
            harness.wait_until("health", self.healthy)
            state = self.gw.json("show", r, who="bob")["state"]
            if state == "pending":
                self.vote(r, "approve", "bob", d)
            b.finish()
            rows = self.sql("select count(*) from %s where id = 99" % t)[0][0]
            self.assertLessEqual(rows, 1)
            self.assertEqual(b.text.count("INSERT 0 1"), rows, b.text)
            try:
                self.settled(r)
            except AssertionError:
                self.fail("the client is gone, %d row(s) were written, and the request still reads %s\n%s" % (
                    rows, self.gw.json("show", r, who="bob")["state"], b.text))

    def test_a_client_that_leaves_while_control_is_down_does_not_keep_the_grant(self):
        """The approval must go to a client that is there."""
        for _ in range(4):
            t = self.table()
            text = "drop table " + t
            gone = self.ask(text)
            r = self.held(t)["id"]
            os.kill(self.role_pids("control")[0], signal.SIGKILL)
            gone.kill()
            gone.finish()
            harness.wait_until("health", self.healthy)
            here = self.ask(text)
            self.assertEqual(self.vote(r, "approve", "bob")[0], 200)
            try:
                harness.wait_until("the approved statement to run", lambda: not self.exists(t), 25)
            except AssertionError:
                card = self.gw.json("show", r, who="bob")
                self.fail("approved, a client waits, and nothing runs: state %s, attached %d\n%s" % (card["state"], card["attached"], here.text))

    def test_a_hold_in_a_transaction_that_is_lost_with_control_is_not_left_for_signing(self):
        t = self.table()
        w = self.wire("bot")
        w.ask(query("begin"))
        w.send(query("delete from %s where id = 1" % t))
        r = harness.wait_until("the request", lambda: next((x for x in self.gw.json("requests", who="bot")["requests"] if t in x["text"]), None))["id"]
        self.kill("control")
        e = error_of(w.until_ready())
        self.assertIsNotNone(e)
        try:
            harness.wait_until("its end", lambda: self.gw.json("show", r, who="bot")["state"] not in ("pending", "approved"), 25)
        except AssertionError:
            self.fail("the client was told %r, but people are still asked to sign it" % e["M"])
        finally:
            w.close()

    def test_sessions_that_end_while_control_is_down_end(self):
        for _ in range(4):
            wires = [self.wire("bot") for _ in range(4)]
            os.kill(self.role_pids("control")[0], signal.SIGKILL)
            for w in wires:
                w.close()
            harness.wait_until("health", self.healthy)
        left = []

        def none():
            left[:] = [s for s in self.gw.json("sessions", who="bot")["sessions"] if s["state"] == "live"]
            return not left
        try:
            harness.wait_until("the end of all sessions", none, 25)
        except AssertionError:
            self.fail("%d sessions without a client read as live" % len(left))

    def try_vote(self, r, d, what="approve"):
        try:
            self.vote(r, what, "bob", d)
        except (OSError, AssertionError, ValueError, IndexError):
            pass

    def test_an_acknowledged_vote_survives_the_death_of_control(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        b.wait_text("COUNTERSIGN held")
        r = self.held(t)["id"]
        b.kill()
        b.finish()
        self.assertEqual(self.vote(r, "approve", "bob")[0], 200)
        self.kill("control")
        self.assertEqual(self.gw.json("show", r, who="bob")["state"], "approved")
        out = self.gw.psql("bot", self.name, "drop table " + t)
        self.assertEqual((out.returncode, self.exists(t)), (0, False), out.stderr)
        self.gw.wait_state(r, "done")

    def test_a_denial_survives_the_death_of_control_and_nothing_runs(self):
        t = self.table()
        b = self.ask("drop table " + t)
        r = self.held(t)["id"]
        self.assertEqual(self.vote(r, "deny", "bob")[0], 200)
        self.kill("control")
        b.finish()
        self.assertEqual((self.gw.json("show", r, who="bob")["state"], self.exists(t)), ("denied", True))

    def test_a_denial_is_not_asked_again_when_control_dies_with_it(self):
        for delay in (0.004, 0.007, 0.009, 0.011, 0.013, 0.016):
            t = self.table()
            text = "drop table " + t
            b = self.ask(text)
            r = self.held(t)["id"]
            d = self.digest(r)
            pid = self.role_pids("control")[0]
            voter = threading.Thread(target=lambda: self.try_vote(r, d, "deny"))
            voter.start()
            time.sleep(delay)
            os.kill(pid, signal.SIGKILL)
            voter.join()
            harness.wait_until("health", self.healthy)
            if self.gw.json("show", r, who="bob")["state"] == "pending":
                self.assertEqual(self.vote(r, "deny", "bob", d)[0], 200)
            harness.wait_until("the client's end or a second question",
                               lambda: b.p.poll() is not None or [x for x in self.gw.pending() if x["text"] == text])
            again = [x["id"] for x in self.gw.pending() if x["text"] == text]
            self.assertEqual(again, [], "%s was denied, and the same waiting client asks again as a new request" % r)
            self.assertTrue(self.exists(t))

    def test_a_held_action_goes_on_after_control_dies(self):
        t = self.table()
        b = self.ask("drop table " + t)
        r = self.held(t)["id"]
        self.kill("control")
        self.assertEqual([x["id"] for x in self.gw.pending() if t in x["text"]], [r])
        self.assertEqual(self.vote(r, "approve", "bob")[0], 200)
        self.assertEqual(b.finish(), 0, b.text)
        self.assertFalse(self.exists(t))

    def test_recorder_killed_while_held_nothing_unrecorded_runs(self):
        t = self.table()
        b = self.ask("drop table " + t)
        request = self.held(t)
        session = self.gw.json("show", request["id"], who="bob")["session"]
        self.kill("recorder")
        self.gw.approve(request["id"])
        b.finish()
        if not self.exists(t):
            frames = harness.wait_until("the record", lambda: (lambda f: f if f and f[-1]["kind"] == "session_close" else None)(self.gw.recording(session)))
            kinds = [f["kind"] for f in frames]
            self.assertEqual([kinds.count(k) for k in ("session_open", "held", "execute", "result")], [1, 1, 1, 1], kinds)

    def test_gates_killed_with_a_grant_in_their_hands(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "insert into %s select 99, pg_sleep(3)::text" % t)
        b.wait_text("COUNTERSIGN held")
        r = self.held(t)["id"]
        self.gw.approve(r)
        self.gw.wait_state(r, "executing")
        for pid in self.role_pids("gate"):
            os.kill(pid, signal.SIGKILL)
        b.finish()
        self.assertEqual(self.settled(r), "unknown")
        again = self.ask("insert into %s select 99, pg_sleep(3)::text" % t)
        self.assertNotEqual(self.held(t)["id"], r)
        again.kill()


class Flood(Case):
    """One requester must not be able to take the approvers' view away."""

    def test_requests_that_nobody_waits_for_are_limited_also_when_the_client_hangs_up(self):
        t = self.table()

        def one(i):
            w = self.wire("bot")
            w.send(query("drop table %s_%d" % (t, i)))
            while not w.notices:  # the wait line
                kind, body = w.read()
                if kind in "NE":
                    w.notices.append((kind, body))
            w.close()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(one, range(130)))
        status, body = self.gw.api("GET", "/v1/requests?state=pending", who="bob")
        self.assertEqual(status, 200)
        left = [r for r in body["requests"] if (r["text"] or "").startswith("drop table %s_" % t)]
        for r in left:
            self.gw.api("POST", "/v1/requests/%s/cancel" % r["id"], {}, who="bot")
        self.assertLessEqual(len(left), 100, "an agent that hangs up leaves as many requests as it likes")

    def test_an_approver_still_gets_the_list_when_an_agent_fills_it_with_escapes(self):
        noise = "\x01" * 7600
        for who in ("bot", "alice"):
            self.rows(who, 100, lambda i: "drop table t_%s_%d /*%s*/" % (who, i, noise))
        t = self.table()
        b = self.ask("drop table " + t)
        status, body = self.gw.api("GET", "/v1/requests?state=pending", who="bob")
        self.assertEqual(status, 200, str(body)[:300])
        self.assertTrue(any(t in (r["text"] or "") for r in body["requests"]))
        b.kill()

    def test_a_local_user_cannot_use_up_the_connections_of_everybody(self):
        """The socket is open to every user of the machine: their connections must not shut out the others."""
        code = ("import resource, socket, sys, time\n"
                "n = 4300; resource.setrlimit(resource.RLIMIT_NOFILE, (n + 50, n + 50)); all = []\n"
                "for _ in range(n):\n"
                "    s = socket.socket(socket.AF_UNIX); s.settimeout(5)\n"
                "    try: s.connect(sys.argv[1])\n"
                "    except OSError: break\n"
                "    all.append(s)\n"
                "print(len(all), flush=True); time.sleep(60)\n")
        os.chmod(self.gw.home, 0o711)
        p = subprocess.Popen([sys.executable, "-c", code, self.gw.socket], stdout=subprocess.PIPE, text=True, cwd="/", **harness.unprivileged())
        try:
            self.assertGreater(int(p.stdout.readline()), 1000)
            for local in (True, False):
                try:
                    status, body = self.gw.api("GET", "/v1/whoami", who="bob", local=local)
                except (OSError, ssl.SSLError) as e:
                    status, body = 0, str(e)
                self.assertEqual(status, 200, (local, body))
        finally:
            p.kill()
            p.communicate()

    def test_one_agents_long_polls_leave_room_for_an_approver(self):
        socks = []
        ctx = ssl.create_default_context(cafile=self.gw.ca)
        seq = self.gw.api("GET", "/v1/requests?state=denied", who="bob")[1]["seq"]
        try:
            for _ in range(270):
                s = ctx.wrap_socket(socket.create_connection(("127.0.0.1", self.gw.api_port)), server_hostname="localhost")
                s.sendall(("GET /v1/requests?state=denied&since=%d&wait=40 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n" % (
                    seq + 100000, self.gw.tokens["bot"])).encode())
                socks.append(s)
            harness.wait_until("the polls", lambda: self.gw.api("GET", "/v1/status")[1]["waiting_calls"] >= 16 or None)
            socks[-1].settimeout(30)
            self.assertRegex(socks[-1].recv(100), rb"HTTP/1.1 429 ")  # its share is used up
            self.assertEqual(self.gw.api("GET", "/v1/status")[1]["waiting_calls"], 16)
            status, body = self.gw.api("GET", "/v1/requests?state=denied&since=%d&wait=1" % (seq + 100000), who="bob")
            self.assertEqual(status, 200, body)
        finally:
            for s in socks:
                s.close()


class Buried(Case):
    def test_an_older_request_is_still_found_behind_many_newer_ones(self):
        t = self.table()
        self.gw.add_agent("quiet", "carol", "agents", "engineers")
        self.gw.api("POST", "/v1/users/carol/groups", {"groups": ["dba", "engineers"]})
        b = self.ask("drop table " + t, who="quiet")
        for who in ("bot", "alice"):
            self.rows(who, 100, lambda i: "drop table t_%s_older_%d" % (who, i))
        status, body = self.gw.api("GET", "/v1/requests?state=pending", who="bob")
        self.assertEqual(status, 200, str(body)[:200])
        self.assertTrue(any(t in (r["text"] or "") for r in body["requests"]), "%d newer ones hide it" % len(body["requests"]))
        b.kill()


class Sight(Case):
    """What docs/api.md does not give, nobody sees."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.gw.add_user("olga", "owners")
        cls.gw.add_user("ursula", "countersign-auditors")
        cls.gw.add_user("mallory", "engineers")
        cls.gw.add_agent("bot2", "alice", "agents")

    def setUp(self):
        self.t = self.table()
        self.b = self.ask("drop table " + self.t)
        self.request = self.held(self.t)["id"]
        self.session = self.gw.json("show", self.request, who="bob")["session"]

    def test_card_and_list_only_for_those_concerned(self):
        for who, sees in (("bob", True), ("carol", True), ("alice", True), ("bot", True),
                          ("olga", False), ("mallory", False), ("bot2", False), ("ursula", False)):
            status, body = self.gw.api("GET", "/v1/requests/" + self.request, who=who, local=False)
            self.assertEqual(status, 200 if sees else 404, (who, body))
            status, body = self.gw.api("GET", "/v1/requests", who=who, local=False)
            self.assertEqual(any(r["id"] == self.request for r in body["requests"]), sees, who)
            self.assertEqual(self.t in json.dumps(body), sees, who)

    def test_sessions_and_recordings_only_for_those_concerned(self):
        for who, sees in (("bot", True), ("alice", True), ("ursula", True), ("bob", False), ("bot2", False), ("mallory", False)):
            for more in ("", "?all=1", "?all=1&limit=10000"):
                status, body = self.gw.api("GET", "/v1/sessions" + more, who=who, local=False)
                self.assertEqual((status, any(s["id"] == self.session for s in body["sessions"])), (200, sees), (who, more))
            status, _ = self.gw.api("GET", "/v1/sessions/%s/recording" % self.session, who=who, local=False)
            self.assertEqual(status, 200 if who == "ursula" else 403, who)
            status, _ = self.gw.api("POST", "/v1/sessions/%s/kill" % self.session, {}, who=who, local=False)
            self.assertEqual(status, 403, who)

    def test_what_one_may_not_see_does_not_exist_whatever_one_asks_of_it(self):
        """docs: "What they may not see does not exist for them"; a different answer to a vote or a
        withdrawal tells which ids exist."""
        for who in ("mallory", "olga"):
            for what, body in (("approve", {"digest": "00" * 32}), ("deny", {"digest": "00" * 32}), ("cancel", {})):
                real = self.gw.api("POST", "/v1/requests/%s/%s" % (self.request, what), body, who=who, local=False)
                none = self.gw.api("POST", "/v1/requests/%s/%s" % ("ZZZZZZZZ", what), body, who=who, local=False)
                self.assertEqual(real, none, (who, what))

    def test_the_page_shows_nothing_of_the_request(self):
        status, page = self.gw.api("GET", "/r/" + self.request, local=False)
        self.assertEqual(status, 200)
        for word in (self.t, "drop", "alice", self.name):
            self.assertNotIn(word, page)
        status, other = self.gw.api("GET", "/r/ZZZZZZZZ", local=False)
        self.assertEqual(page.replace(self.request, "ZZZZZZZZ"), other)

    def test_set_up_calls_need_the_right(self):
        calls = [("POST", "/v1/users", {"name": "x1", "groups": ["dba"]}), ("GET", "/v1/users", None), ("POST", "/v1/users/bob/token", {}),
                 ("POST", "/v1/users/alice/groups", {"groups": ["dba"]}), ("POST", "/v1/users/bob/disable", {}),
                 ("POST", "/v1/agents", {"name": "x2", "owner": "bob", "groups": ["agents"]}), ("PUT", "/v1/secrets/x", {"value": "y"}),
                 ("GET", "/v1/secrets", None), ("POST", "/v1/reload", {}), ("GET", "/v1/status", None)]
        for method, path, body in calls:
            for who in ("bot", "alice", "bob", "ursula"):
                self.assertEqual(self.gw.api(method, path, body, who=who, local=False)[0], 403, (path, who))
            self.assertEqual(self.gw.api(method, path, body, local=False)[0], 401, path)

    def test_an_agent_in_the_admin_group_has_no_right_by_it(self):
        self.gw.add_agent("rogue", "alice", "countersign-admins", "countersign-auditors", "dba")
        self.assertEqual(self.gw.api("GET", "/v1/users", who="rogue", local=False)[0], 403)
        self.assertEqual(self.gw.api("GET", "/v1/sessions/%s/recording" % self.session, who="rogue", local=False)[0], 403)
        self.assertEqual(self.gw.api("GET", "/v1/requests/" + self.request, who="rogue", local=False)[0], 404)


class Shut(Case):
    """Who is shut out is shut out everywhere."""

    def test_disabling_ends_live_sessions_and_tokens_at_once(self):
        self.gw.add_user("zoe", "engineers")
        self.gw.add_agent("zbot", "zoe", "agents")
        wires = [self.wire("zoe"), self.wire("zbot")]
        self.gw.cli("user", "disable", "zoe")
        for w in wires:
            self.assertTrue(w.closed())
        for who in ("zoe", "zbot"):
            self.assertEqual(self.gw.api("GET", "/v1/whoami", who=who, local=False)[0], 401)
            with self.assertRaises(PgError):
                self.wire(who)

    def test_what_a_disabled_agent_left_behind_never_runs(self):
        self.gw.add_agent("ybot", "alice", "agents")
        t = self.table()
        b = self.ask("drop table " + t, who="ybot")
        r = self.held(t)["id"]
        self.gw.cli("user", "disable", "ybot")
        b.finish()
        self.gw.approve(r, ok=False)
        self.assertTrue(self.exists(t))

    def test_a_new_token_ends_the_sessions_that_the_old_one_opened(self):
        """docs/api.md: "a new token; the old one is void at once"."""
        self.gw.add_user("yara", "engineers")
        w = self.wire("yara")
        self.gw.cli("user", "token", "yara")
        w.sock.settimeout(5)
        try:
            m = w.ask(query("select 'still in'"))
        except Exception:
            m = []
        self.assertNotIn(b"still in", b"".join(b for _, b in m), "a stolen token's session outlives the token")

    def test_somebody_taken_out_of_a_group_loses_what_the_group_allowed(self):
        self.gw.add_user("xena", "engineers")
        w = self.wire("xena")
        self.gw.api("POST", "/v1/users/xena/groups", {"groups": []})
        w.sock.settimeout(5)
        try:
            m = w.ask(query("select 'still in'"))
        except Exception:
            m = []
        self.assertNotIn(b"still in", b"".join(b for _, b in m), "the session keeps the groups of its log-in for ever")


class Http(Case):
    """One request is one request."""

    def raw(self, data, local=False, patience=30):
        if local:
            s = socket.socket(socket.AF_UNIX)
            s.connect(self.gw.socket)
        else:
            ctx = ssl.create_default_context(cafile=self.gw.ca)
            s = ctx.wrap_socket(socket.create_connection(("127.0.0.1", self.gw.api_port)), server_hostname="localhost")
        s.settimeout(patience)
        got = b""
        try:
            s.sendall(data)
            while True:
                part = s.recv(65536)
                if not part:
                    break
                got += part
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            pass
        s.close()
        return got

    def statuses(self, data, **more):
        return [int(x) for x in re.findall(rb"HTTP/1\.1 (\d{3}) ", self.raw(data, **more))]

    def test_two_readings_of_one_request_are_refused(self):
        body = b"GET /v1/users HTTP/1.1\r\nHost: x\r\n\r\n"
        heads = [b"Content-Length: 5\r\nContent-Length: 0\r\n", b"Content-Length: 5\r\nContent-Length: 5\r\n",
                 b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                 b"Transfer-Encoding : chunked\r\n", b"Content-Length : 5\r\n", b"Content-Length: +5\r\n", b"Content-Length: 5, 5\r\n",
                 b"Content-Length: 0x5\r\n", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999999\r\n", b"X: a\r\n b\r\n",
                 b"X: a\nContent-Length: 0\r\n", b"X: a\rY: b\r\n", b"X: a\x00b\r\n", b"Host: a\r\n", b" X: y\r\n", b": y\r\n",
                 b"Content-Encoding: gzip\r\n", b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"]
        for h in heads:
            got = self.statuses(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\n" + h + b"\r\n" + body)
            self.assertEqual(len(got), 1, (h, got))
            self.assertIn(got[0], (400, 413, 501), (h, got))

    def test_a_body_of_a_get_is_refused(self):
        got = self.statuses(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: 37\r\n\r\nGET /v1/users HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertEqual(got, [400])

    def test_paths_have_one_form(self):
        token = self.gw.tokens["bob"].encode()
        for path in (b"//v1/users", b"/v1//users", b"/v1/users/", b"/v1/./users", b"/v1/requests/../users", b"/v1/requests/%2e%2e/users",
                     b"/V1/users", b"/v1/users%00", b"/v1/users%2f", b"/v1/%75sers", b"/v1/users;a", b"/v1/users/bob%2ftoken",
                     b"/r/../v1/users", b"/v1/users\\", b"*", b"http://x/v1/users", b"/v1/requests/%ff%fe"):
            got = self.statuses(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " + token + b"\r\n\r\n")
            self.assertEqual(len(got), 1, path)
            self.assertIn(got[0], (400, 404), path)

    def test_queries_are_strict(self):
        for q in ("wait=1&wait=2", "state=pending&", "nosuch=1", "wait=46", "wait=-1", "since=99999999999999999999", "state=PENDING", "wait", "=1", "since=1%00"):
            self.assertEqual(self.gw.api("GET", "/v1/requests?" + q, who="bob", local=False)[0], 400, q)

    def test_pages_from_elsewhere_are_refused(self):
        for origin in ("http://evil.example", "null", "https://localhost", "https://localhost:%d.evil.example" % self.gw.api_port,
                       "https://localhost:%d/" % self.gw.api_port, ""):
            for local in (True, False):
                status, _ = self.gw.api("GET", "/v1/whoami", who="bob", local=local, headers={"Origin": origin})
                self.assertEqual(status, 403, origin)

    def test_bodies_are_strict(self):
        bad = [b"[]", b"null", b"1", b'"x"', b"{", b'{"digest":1}', b'{"digest":"' + b"0" * 64 + b'","digest":"' + b"1" * 64 + b'"}',
               b'{"digest":"' + b"0" * 64 + b'","x":1}', b'{"digest":"' + b"0" * 63 + b'"}', b'{"digest":"' + b"g" * 64 + b'"}',
               b'{"digest":"' + b"0" * 64 + b'","reason":"a\\u0000b"}', b'{"digest":"' + b"0" * 64 + b'","reason":"\\u001b[2J"}',
               b'{"digest":"' + b"0" * 64 + b'","reason":"\xff"}', b'{"digest":"' + b"0" * 64 + b'","reason":"\\ud800"}',
               b"[" * 30000, b'{"a":' * 8000 + b"1" + b"}" * 8000, b'{"digest":"' + b"0" * 64 + b'"}{}', b'{"reason":"x"}',
               b'{"digest":"' + b"0" * 64 + b'","reason":"' + b"x" * 1001 + b'"}', b'{"digest":"' + b"0" * 64 + b'","reason":["x"]}']
        for b in bad:
            status, text = self.gw.api("POST", "/v1/requests/ZZZZZZZZ/approve", b, who="bob", local=False)
            self.assertEqual(status, 400, (b[:90], text))
        self.assertEqual(self.gw.api("GET", "/v1/health")[0], 200)

    def test_oversize_is_refused(self):
        self.assertEqual(self.statuses(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 70000), [431])
        self.assertEqual(self.statuses(b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"), [431])
        self.assertEqual(self.statuses(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n" + b"a" * 65537), [413])
        self.assertEqual(self.statuses(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 3000 + b"\r\n"), [431])

    def test_nothing_of_a_request_comes_back_in_a_head(self):
        got = self.raw(b"GET /r/AAAAAAAA%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertNotIn(b"X-Evil", got.split(b"\r\n\r\n")[0])
        got = self.raw(b"GET /v1/users/%0d%0aX-Evil:%201/token HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertNotIn(b"X-Evil", got.split(b"\r\n\r\n")[0])

    def test_a_slow_head_is_cut_off_and_others_are_served(self):
        ctx = ssl.create_default_context(cafile=self.gw.ca)
        slow = []
        for _ in range(50):
            s = ctx.wrap_socket(socket.create_connection(("127.0.0.1", self.gw.api_port)), server_hostname="localhost")
            s.sendall(b"GET /v1/hea")
            slow.append(s)
        self.assertEqual(self.gw.api("GET", "/v1/health", local=False)[0], 200)
        slow[0].settimeout(40)
        self.assertRegex(slow[0].recv(100), b"408")
        for s in slow:
            s.close()

    def test_pipelined_requests_are_answered_in_order_each_by_its_own_right(self):
        one = b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n"
        got = self.raw(one % self.gw.tokens["bob"].encode() + b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n" +
                       (one % self.gw.tokens["bot"].encode()).replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n"))
        self.assertEqual(re.findall(rb"HTTP/1\.1 (\d{3})", got), [b"200", b"401", b"200"])
        self.assertLess(got.index(b"local:bob"), got.index(b"local:bot"))


class Traces(Case):
    """Secrets leave no traces; what holds data is for the service alone."""

    def everything(self):
        t = self.table()
        b = self.ask("insert into %s values (1, 'canary-%s')" % (t, t))
        r = self.held(t)["id"]
        self.gw.approve(r)
        b.finish()
        self.gw.psql("bot", self.name, "select 'canary-%s' from nosuch" % t)
        self.gw.api("PUT", "/v1/secrets/extra", {"value": "extra-secret-value"})
        self.gw.api("GET", "/v1/whoami", token="cs_p_" + "B" * 43)
        self.gw.api("PUT", "/v1/secrets/extra", b'{"value": "broken-secret-value"')
        return "canary-" + t

    def tree(self):
        pids, todo = [], [self.gw.process.pid]
        while todo:
            p = todo.pop()
            pids.append(p)
            for task in os.listdir("/proc/%d/task" % p):
                with open("/proc/%d/task/%s/children" % (p, task)) as f:
                    todo += [int(x) for x in f.read().split()]
        return pids

    def test_no_secret_in_log_arguments_environment_or_clear_on_disk(self):
        canary = self.everything()
        secrets = [self.roles["password"], self.roles["owner_password"], "extra-secret-value", "broken-secret-value", "B" * 43, *self.gw.tokens.values()]
        log = self.gw.log_text()
        for s in secrets + [canary]:
            self.assertNotIn(s, log)
        for pid in self.tree():
            for what in ("cmdline", "environ"):
                try:
                    with open("/proc/%d/%s" % (pid, what), "rb") as f:
                        data = f.read()
                except PermissionError:
                    continue
                for s in secrets:
                    self.assertNotIn(s.encode(), data, (pid, what))
        for folder, _, files in os.walk(self.gw.home):
            for name in files:
                path = os.path.join(folder, name)
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    continue
                with open(path, "rb") as f:
                    data = f.read()
                for s in secrets:
                    self.assertNotIn(s.encode(), data, path)

    def test_modes(self):
        self.everything()
        for folder, dirs, files in os.walk(self.gw.home):
            for name in dirs + files:
                path = os.path.join(folder, name)
                mode = os.lstat(path).st_mode
                rel = os.path.relpath(path, self.gw.home)
                if rel in ("tls.crt", "countersign.yaml") or stat.S_ISSOCK(mode) or rel == "run":
                    continue
                self.assertEqual(mode & 0o077, 0, rel + " " + oct(mode))

    def test_the_log_does_not_take_a_stranger_on_the_network_for_a_local_user(self):
        self.gw.api("GET", "/v1/users", local=False)
        lines = [x for x in self.gw.log_text().split("\n") if "/v1/users" in x]
        self.assertTrue(lines)
        self.assertNotIn("local socket", lines[-1])

    def test_the_log_says_why_a_reload_was_refused(self):
        self.gw.configure(self.RULES.replace("then: hold", "then: hald"))
        self.assertNotEqual(self.gw.cli("reload", ok=False).returncode, 0)
        self.gw.configure(self.RULES)
        lines = [x for x in self.gw.log_text().split("\n") if "api-refused" in x and "/v1/reload" in x]
        self.assertTrue(lines)
        self.assertIn("countersign.yaml", lines[-1])

    def test_core_files_and_tracing_are_off(self):
        for pid in self.tree()[1:]:
            with open("/proc/%d/limits" % pid) as f:
                self.assertRegex(f.read(), r"Max core file size +0 ")


class Meaning(Case):
    """product.md, Semantics, through a whole gateway."""
    RULES = """
rules:
  - name: a-reads
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: b-not-ddl
    title: a mistake that must not let what is opaque pass
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      !sql.effects.exists(e, e in ["ddl", "admin", "write"])
    then: allow
  - name: c-people-insert
    who: { groups: [engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "INSERT"
    then: allow
  - name: d-agents-insert
    who: { groups: [agents] }
    target: { kind: postgres }
    when: |
      sql.verb == "INSERT"
    then: hold
    approvers: { groups: [dba], within: 10m, valid: 1m, attach: 1m }
  - name: e-update-one
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "UPDATE"
    then: hold
    run_as: elevated
    approvers: { groups: [dba], within: 10m, valid: 1m, attach: 1m }
  - name: f-update-two
    who: { groups: [agents] }
    target: { kind: postgres }
    when: |
      sql.verb == "UPDATE"
    then: hold
    approvers: { groups: [owners], within: 10m, valid: 1m, attach: 1m }
  - name: g-delete
    who: { groups: [agents, engineers], except: { groups: [trusted] } }
    target: { kind: postgres }
    when: |
      sql.verb == "DELETE"
    then: deny
  - name: h-trusted-delete
    who: { groups: [agents, engineers, trusted] }
    target: { kind: postgres }
    when: |
      sql.verb == "DELETE"
    then: allow
  - name: i-no-rollback
    who: { groups: [agents, engineers, trusted] }
    target: { kind: postgres }
    when: |
      sql.verb == "ROLLBACK"
    then: deny
"""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.gw.add_user("olga", "owners")
        cls.gw.add_user("tim", "engineers", "trusted")
        cls.gw.add_agent("tbot", "tim", "agents")
        cls.gw.add_agent("tbot2", "tim", "agents", "trusted")
        cls.gw.add_agent("plain", "alice")
        cls.gw.add_user("nobody")
        cls.gw.add_agent("orphan", "nobody", "agents")

    def test_an_agent_has_at_most_what_both_have(self):
        t = self.table()
        self.assertEqual(self.gw.psql("alice", self.name, "insert into %s values (1, 'a')" % t).returncode, 0)
        b = self.ask("insert into %s values (2, 'b')" % t)
        card = self.gw.json("show", self.held(t)["id"], who="bob")
        self.assertEqual((card["rules"], card["elevated"]), (["d-agents-insert"], False))
        b.kill()

    def test_every_member_needs_a_rule_to_open(self):
        for who in ("plain", "nobody", "orphan"):
            with self.assertRaises(PgError) as e:
                self.wire(who)
            self.assertIn("no rule", str(e.exception))

    def test_every_hold_that_matches_must_be_met_and_elevated_only_if_all_say_so(self):
        t = self.table()
        text = "update %s set note = 'both' where id = 1" % t
        b = self.ask(text)
        r = self.held(text)["id"]
        card = self.gw.json("show", r, who="bob")
        self.assertEqual((sorted(card["rules"]), card["elevated"], card["role"]), (["e-update-one", "f-update-two"], False, self.roles["user"]))
        self.assertEqual(self.vote(r, "approve", "bob")[1]["state"], "pending")
        self.assertEqual(self.vote(r, "approve", "carol")[1]["state"], "pending")
        self.assertEqual(self.sql("select count(*) from %s where note = 'both'" % t)[0][0], 0)
        self.assertEqual(self.vote(r, "approve", "olga")[1]["state"], "approved")
        self.assertEqual(b.finish(), 0, b.text)
        self.assertEqual(self.sql("select count(*) from %s where note = 'both'" % t)[0][0], 1)

    def test_an_exception_counts_only_when_every_member_has_it(self):
        t = self.table()
        self.sql("grant delete on %s to %s" % (t, self.roles["user"]))
        for who, runs in (("tim", True), ("tbot", False), ("tbot2", True), ("bot", False), ("alice", False)):
            out = self.gw.psql(who, self.name, "delete from %s where id = 1" % t)
            self.assertEqual(out.returncode == 0, runs, (who, out.stderr))

    def test_what_is_opaque_is_not_let_by_by_a_negation(self):
        for text in ("do $$ begin null; end $$", "select nosuch_function()", "call nosuch()", "selec 1"):
            out = self.gw.psql("alice", self.name, text)
            self.assertIn("Countersign denied this", out.stderr, text)

    def test_session_alone_needs_no_rule_and_rollback_is_never_refused(self):
        w = self.wire("alice")
        for text in ("begin", "savepoint a", "rollback to a", "rollback", "begin", "abort", "begin", "commit", ""):
            self.assertIsNone(error_of(w.ask(query(text))), text)
        w.close()


if __name__ == "__main__":
    unittest.main()
