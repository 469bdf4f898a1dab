"""Approved statements on their own elevated connection: what runs there, and what happens when any step on the way
fails. The second half is the table in docs/postgresql.md, "When something fails": a test for each row, against a
server that fails on order. Each looks at what the client, the approver and the record are told, that the statement
reached the server at most once, and that the same statement again is a new question."""
import os
import signal
import ssl
import struct
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import fakepg
import harness
import pgwire
from base import GatewayCase, fresh_name
from fakepg import Gone, columns, complete, error, parameter, ready, row
from pgwire import Closed, Wire, bind, cstr, describe, error_of, execute, kinds, message, parse, query, SYNC

RULES = harness.RULES + """
  - name: update
    who: { groups: [people] }
    target: { kind: postgres }
    when: |
      sql.verb == "UPDATE"
    then: hold
    run_as: elevated
    approvers: { groups: [dba], within: 15m, valid: 2s, attach: 10m }
"""


class Real(GatewayCase):
    """What the wait is for: a real server, real clients."""
    RULES = RULES

    def approved(self, part):
        """Approves the request about `part` from another thread; the request when it is done."""
        found = {}

        def run():
            found["r"] = self.held(part)
            self.gw.approve(found["r"]["id"])
        t = threading.Thread(target=run)
        t.start()
        self.addCleanup(t.join)
        return lambda: (t.join(), self.gw.wait_state(found["r"]["id"], "done"))[1]

    def test_drop_database_by_psql(self):
        db = fresh_name("doomed")
        self.pg.sql("alter role %s createdb" % self.roles["owner"])
        c = self.pg.connect(self.name, self.roles["owner"], self.roles["owner_password"])
        with c.cursor() as cur:
            cur.execute("create database " + db)
        c.close()
        done = self.approved("drop database " + db)
        out = self.gw.psql("bot", self.name, "drop database " + db)
        self.assertEqual((out.returncode, out.stdout.strip()), (0, "DROP DATABASE"), out.stderr)
        done()
        self.assertEqual(self.pg.sql("select count(*) from pg_database where datname = '%s'" % db), [(0,)])

    def test_create_index_concurrently_by_psql_and_psycopg2(self):
        t = self.table()
        done = self.approved("concurrently one_%s" % t)
        out = self.gw.psql("bot", self.name, "create index concurrently one_%s on %s (id)" % (t, t))
        self.assertEqual((out.returncode, out.stdout.strip()), (0, "CREATE INDEX"), out.stderr)
        done()
        done = self.approved("concurrently two_%s" % t)
        c = self.gw.connect("bot", self.name)
        with c.cursor() as cur:
            cur.execute("create index concurrently two_%s on %s (note)" % (t, t))
        c.close()
        done()
        self.assertEqual(self.sql("select count(*) from pg_indexes where tablename = '%s'" % t), [(2,)])

    def test_vacuum_by_psql_and_psycopg2(self):
        t = self.table()
        for client in ("psql", "psycopg2"):
            sql = "vacuum (analyze) %s /* %s */" % (t, client)
            done = self.approved(sql)
            if client == "psql":
                out = self.gw.psql("bot", self.name, sql)
                self.assertEqual((out.returncode, out.stdout.strip()), (0, "VACUUM"), out.stderr)
            else:
                c = self.gw.connect("bot", self.name)
                with c.cursor() as cur:
                    cur.execute(sql)
                    self.assertEqual(cur.statusmessage, "VACUUM")
                c.close()
            done()
        self.assertIsNotNone(self.sql("select last_vacuum from pg_stat_user_tables where relname = '%s'" % t))

    def test_an_update_of_many_rows_with_parameters_by_psycopg2(self):
        t = self.table()
        done = self.approved("update %s set note = 'five'" % t)
        c = self.gw.connect("bot", self.name)
        with c.cursor() as cur:
            cur.execute("update " + t + " set note = %s where id <= %s returning id, note", ("five", 5))
            self.assertEqual((cur.rowcount, sorted(cur.fetchall())), (5, [(i, "five") for i in range(1, 6)]))
        c.close()
        done()
        self.assertEqual(self.sql("select count(*) from %s where note = 'five'" % t), [(5,)])

    def test_an_update_of_many_rows_with_typed_parameters_by_the_prepared_path(self):
        """By psql's own statements (\\bind is younger than 15) and message by message: int8 as binary, text as text."""
        t = self.table()
        sql = "update %s set note = $2 where id <= $1 returning id, note" % t
        w = self.wire()
        self.assertEqual(kinds(w.ask(parse(sql, "u", (20, 25)), describe("S", "u"), SYNC)), "1tTZ")
        for n in (3, 5):
            w.send(bind([struct.pack("!q", n), "now %d" % n], "u", "", (1, 0), (1, 0)), execute(), SYNC)
            r = self.held("update %s set" % t)
            card = self.gw.json("show", r["id"], who="bob")
            self.assertEqual([p["type"] for p in card["params"]], [20, 25])
            self.gw.approve(r["id"])
            got = w.until_ready()
            self.assertEqual(kinds(got), "2" + "D" * n + "CZ")
            self.assertIn(struct.pack("!I", 4) + struct.pack("!I", n), b"".join(b for _, b in got), "the result's own formats")
            self.gw.wait_state(r["id"], "done")
            self.assertEqual(self.sql("select count(*) from %s where note = 'now %d'" % (t, n)), [(n,)])
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")

    def test_a_table_that_is_replaced_between_description_and_use(self):
        t = self.table()
        sql = "delete from %s where id = $1 returning id, note" % t
        w = self.wire()
        self.assertEqual(kinds(w.ask(parse(sql, "s"), describe("S", "s"), SYNC)), "1tTZ")
        c = self.pg.connect(self.name, self.roles["owner"], self.roles["owner_password"])
        with c.cursor() as cur:
            cur.execute("drop table %s" % t)
            cur.execute("create table %s (id int, note bytea)" % t)
            cur.execute("insert into %s values (1, 'x')" % t)
        c.close()
        w.send(bind(["1"], "s"), execute(), SYNC)
        r = self.held(sql)
        self.gw.approve(r["id"])
        got = w.until_ready()
        self.assertEqual((kinds(got), error_of(got)["C"]), ("EZ", "CS003"), got)
        self.gw.wait_state(r["id"], "void")
        self.assertEqual(self.sql("select count(*) from " + t), [(1,)])

    def test_what_only_the_session_has_is_refused_before_anybody_is_asked(self):
        """An elevated connection has no statement that SQL prepared here, and no cursor: an approval would be in vain."""
        t = self.table()
        w = self.wire()
        self.assertEqual(kinds(w.ask(query("prepare p(int) as delete from %s where id = $1" % t))), "CZ")
        for got in (w.ask(query("execute p(1)")), w.ask(query("select 1; execute p(1)")), w.ask(parse("execute p(1)"), bind(), execute(), SYNC)):
            e = error_of(got)
            self.assertEqual((e["C"], e["H"]), ("42501", "Send the statement itself instead."))
            self.assertIn("was prepared or declared in this session", e["M"])
        got = w.ask(bind([b"1"], "p"), execute(), SYNC)
        self.assertEqual((error_of(got)["C"], error_of(got)["H"]), ("42501", "Send the statement itself instead."))
        self.assertEqual(self.gw.pending(), [])
        self.assertEqual(self.sql("select count(*) from " + t), [(10,)])
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")

    def test_what_a_text_makes_for_itself_is_there(self):
        t = self.table()
        w = self.wire()
        for text in ("prepare p(int) as delete from %s where id = $1; execute p(1); execute p(2); deallocate p" % t,
                     "begin; delete from %s where id = 3; declare c cursor for select id from %s; fetch c; close all; commit" % (t, t)):
            w.send(query(text))
            r = self.held(text[:20])
            self.gw.approve(r["id"])
            got = w.until_ready()
            self.assertIsNone(error_of(got))
        self.assertEqual(self.sql("select count(*) from " + t), [(7,)])

    def test_settings_of_the_session_that_were_approved_are_those_that_it_runs_with(self):
        t = self.table()
        w = self.wire(TimeZone="Asia/Tokyo", DateStyle="German")
        sql = "update %s set note = (timestamptz '2026-01-01 00:00:00+00')::text || current_setting('lock_timeout') where id = 1" % t
        w.send(query(sql))
        r = self.held("update %s set note" % t)
        self.gw.approve(r["id"])
        self.assertEqual(kinds(w.until_ready()), "CZ")
        self.assertEqual(self.sql("select note from %s where id = 1" % t), [("01.01.2026 09:00:00 JST5s",)])

    def test_a_result_of_many_megabytes_is_streamed(self):
        t = self.table()
        w = self.wire()
        pids = [r["pid"] for r in self.gw.api("GET", "/v1/status")[1]["roles"] if r["role"] == "gate"]
        before = self.memory(pids[0])
        w.send(query("update %s set note = repeat('x', 4000000) returning note" % t))
        self.gw.approve(self.held("update %s set note" % t)["id"])
        got, most, kind = 0, 0, ""
        while kind != "Z":
            kind, body = w.read()
            got += len(body) if kind == "D" else 0
            most = max(most, self.memory(pids[0]))
        self.assertGreater(got, 40_000_000)
        self.assertLess(most - before, (8 + (256 if harness.sanitized() else 0)) << 20, "the gate kept the result")

    @staticmethod
    def memory(pid):
        with open("/proc/%d/statm" % pid) as f:
            return int(f.read().split()[1]) * 4096


class StepsCase(GatewayCase):
    """The failure table. `fake` does as it is told once the owner logs in; `real` is PostgreSQL."""

    @classmethod
    def setUpClass(cls):
        cls.pg = harness.shared_postgres()
        cls.name = fresh_name("db")
        cls.roles = harness.make_database(cls.pg, cls.name)
        cls.fake = fakepg.FakePostgres("fake-password")
        real = harness.target_of(cls.pg, cls.name, cls.roles)
        fake = dict(name="fake", address="127.0.0.1:%d" % cls.fake.port, database="any", user="fake_ro", password="fake-password",
                    owner="fake_owner", owner_password="fake-password", tls="off")
        cls.gw = harness.Gateway([real, fake, dict(fake, name="fake-tls", tls="verify-full", roots=cls.pg.root)], rules=RULES)
        try:
            cls.gw.start().people()
            cls.gw.add_user("dora", "people", "engineers")
        except Exception:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.fake.destroy()
        cls.gw.destroy()

    def setUp(self):
        self.fake.script = lambda c: c.login().answer_all()
        self.fake.failures.clear()

    def tearDown(self):
        self.assertEqual(self.fake.failures, [])

    def to(self, target, who="bot"):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        return w.login(who, self.gw.tokens[who], target)

    def pid(self, role, index=0):
        return next(r["pid"] for r in self.gw.api("GET", "/v1/status")[1]["roles"] if (r["role"], r["index"]) == (role, index))

    def all_ready(self):
        def look():
            status, body = self.gw.api("GET", "/v1/status")
            return status == 200 and all(r["ready"] for r in body.get("roles", [{"ready": False}]))
        harness.wait_until("all roles to be ready", look)

    # ---- one run of the table ----

    def owner_does(self, script, login=True):
        """The everyday connections are ordinary; script(c) is what the elevated one meets."""
        def whole(c):
            c.startup()
            if c.user == "fake_owner":
                if login:
                    c.scram()
                    c.greet()
                script(c)
                return
            c.scram()
            c.greet()
            self.everyday(c)
        self.fake.script = whole

    def everyday(self, c):
        c.answer_all()

    def read_all(self, w):
        """Up to ReadyForQuery or the end of the connection; wait lines aside. (messages, whether it lives)"""
        got = []
        try:
            while not got or got[-1][0] != "Z":
                m = w.read()
                got += [m] if m[0] != "N" else []
            return got, True
        except (Closed, OSError):
            return got, False

    def ask(self, target="fake", who="bot"):
        """Sends a statement and returns (connection, text, request)."""
        w = self.to(target, who)
        sql = "drop table t_%s" % fresh_name("x")
        w.send(query(sql))
        return w, sql, self.held(sql)

    def outcome(self, w, sql, r, sqlstate, words, state, ran=0, lives=True, severity="ERROR"):
        """What everybody is told at the end of it."""
        got, alive = self.read_all(w)
        e = error_of([m for m in got if m[0] == "E"][-1:])
        self.assertIsNotNone(e, got)
        self.assertEqual((e["C"], e["S"], alive), (sqlstate, severity, lives), e)
        self.assertIn(words, e["M"] + " " + e.get("D", ""))
        self.assertNotIn("fake-password", str(e))
        self.after(r, sql, state, ran)
        self.recorded_as_failed(r)
        if lives:
            self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ", "the session goes on")
        return e

    def recorded_as_failed(self, r):
        def look():
            frames = [f for f in self.gw.recording(r["session"]) if f["kind"] in ("execute", "result")]
            return frames if len(frames) >= 2 else None
        frames = harness.wait_until("the result in the record", look)
        self.assertEqual([f["kind"] for f in frames], ["execute", "result"])
        self.assertEqual((frames[0]["request"], frames[1]["ok"]), (r["id"], False), frames)

    def after(self, r, sql, state, ran):
        card = self.gw.wait_state(r["id"], state)
        self.assertEqual(len([q for q in self.fake.queries if sql in q]), ran)
        # Never twice: the vote again is refused, the statement again is another question.
        self.assertEqual(self.gw.approve(r["id"], ok=False).returncode, 1)
        again = self.to(r["target"])
        again.send(query(sql))
        second = self.held(sql)
        self.assertNotEqual(second["id"], r["id"])
        self.gw.cli("deny", second["id"], "--reason", "once is enough", who="bob")
        self.assertEqual(error_of(again.until_ready())["C"], "42501")
        self.assertEqual(len([q for q in self.fake.queries if sql in q]), ran)
        return card

    def fails(self, *expected, script=None, login=True, target="fake", **more):
        if script is not None:
            self.owner_does(script, login)
        w, sql, r = self.ask(target)
        self.gw.approve(r["id"])
        self.outcome(w, sql, r, *expected, **more)

    def connects(self):
        try:
            self.to("fake").close()
            return True
        except (pgwire.PgError, Closed, OSError):
            return False


class Steps(StepsCase):
    # ---- before the connection ----

    def test_a_setting_that_changes_while_it_waits_voids_it(self):
        """What was signed names the session's settings; under others the same bytes may mean another day."""
        say = threading.Event()

        def everyday(c):
            say.wait(harness.PATIENCE)
            c.send(parameter("TimeZone", "Pacific/Auckland"), message("N", b"SNOTICE\0C00000\0Mmoved\0\0"))
            c.answer_all()
        self.everyday = everyday
        self.owner_does(lambda c: c.answer_all())
        w, sql, r = self.ask()
        say.set()
        moved = b""
        while b"moved" not in moved:  # then the change has been seen as well
            moved = w.read()[1]
        self.gw.approve(r["id"])
        del self.everyday
        self.outcome(w, sql, r, "CS003", "settings changed", "void")

    def test_the_everyday_connection_breaks_between_grant_and_use(self):
        def everyday(c):
            kind = None
            while kind != "S":
                kind, _ = c.read()
                if kind in "PB":
                    c.send(message("1" if kind == "P" else "2"))
        self.everyday = everyday
        self.owner_does(lambda c: c.answer_all())
        w = self.to("fake")
        sql = "copy t_%s from stdin" % fresh_name("x")
        w.send(parse(sql), bind([]), execute(), SYNC)
        while w.read()[0] != "G":
            pass
        w.send(message("d", b"1\n"), message("c"), SYNC)
        r = self.held(sql)
        self.gw.approve(r["id"])
        _, lives = self.read_all(w)
        del self.everyday
        self.assertFalse(lives)
        self.gw.wait_state(r["id"], "void")
        self.assertEqual(self.gw.approve(r["id"], ok=False).returncode, 1)
        self.assertEqual([q for q in self.fake.queries if sql in q], [])

    def test_the_grant_expires_before_it_is_used(self):
        w = self.to(self.name, "dora")
        sql = "update orders set amount = 1 /* %s */" % fresh_name("late")
        w.send(query(sql))
        r = self.held(sql)
        w.close()
        harness.wait_until("nobody to be attached", lambda: self.gw.json("show", r["id"], who="bob")["attached"] == 0)
        self.gw.approve(r["id"])
        self.gw.wait_state(r["id"], "expired")
        w = self.to(self.name, "dora")
        w.send(query(sql))
        second = self.held(sql)
        self.assertNotEqual(second["id"], r["id"])
        self.gw.deny(second["id"], "too late")
        self.assertEqual(error_of(w.until_ready())["C"], "42501")
        self.assertNotIn("execute", [f["kind"] for f in self.gw.recording(r["session"])])
        self.assertEqual(self.pg.sql("select count(*) from orders where amount = 1", self.name), [(0,)])

    def test_dial_refused(self):
        w, sql, r = self.ask()
        port = self.fake.port
        self.fake.end(self.fake.listener)
        try:
            self.gw.approve(r["id"])
            got = w.until_ready()
            self.assertEqual((error_of(got)["C"], kinds(got)), ("57P03", "EZ"))
            self.assertIn("refuses connections", error_of(got)["D"])
            self.gw.wait_state(r["id"], "void")
        finally:
            import socket
            self.fake.listener = socket.create_server(("127.0.0.1", port), backlog=64)
            threading.Thread(target=self.fake._accept, daemon=True).start()
        self.after(r, sql, "void", 0)

    def hung(self, role, words):
        """A helper that neither lives nor dies; killed in the end."""
        w, sql, r = self.ask()
        pid = self.pid(role)
        os.kill(pid, signal.SIGSTOP)
        try:
            self.gw.approve(r["id"])
            got = w.until_ready()
        finally:
            os.kill(pid, signal.SIGKILL)
        self.assertEqual((error_of(got)["C"], kinds(got)), ("57P03", "EZ"))
        self.assertRegex(error_of(got)["D"], words)
        self.all_ready()
        harness.wait_until("a new connection", lambda: self.connects())
        self.after(r, sql, "void", 0)
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")

    def test_dialer_hangs_and_dies(self):
        self.hung("dialer", "did not answer|not be dialled|starting")

    def test_keeper_hangs_and_dies(self):
        self.hung("keeper", "too long|starting|not available")

    def test_dialer_dies_with_the_question(self):
        self.dies_with_the_question("dialer")

    def test_keeper_dies_with_the_question(self):
        self.dies_with_the_question("keeper")

    def dies_with_the_question(self, role):
        w, sql, r = self.ask()
        pid = self.pid(role)
        os.kill(pid, signal.SIGSTOP)
        at = len(self.gw.log_text())
        self.gw.approve(r["id"])
        harness.wait_until("the grant to be used", lambda: "grant-used" in self.gw.log_text()[at:])
        os.kill(pid, signal.SIGKILL)
        got = w.until_ready()
        # Either it died with the question (nothing ran, void) or the question came to its successor.
        self.all_ready()
        harness.wait_until("a new connection", lambda: self.connects())
        if kinds(got) == "EZ":
            self.assertEqual(error_of(got)["C"], "57P03")
            self.after(r, sql, "void", 0)
        else:
            self.assertEqual(kinds(got), "TDCZ")
            self.after(r, sql, "done", 1)

    # ---- the login ----

    def test_tls_fails(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pg.data + "/server.crt", self.pg.data + "/server.key")
        elevated = threading.Event()  # set while no other connection matters; probe may come at any time

        def script(c):
            c.packet()
            if elevated.is_set():
                c.send(b"N")
                return
            c.send(b"S")
            c.sock = context.wrap_socket(c.sock, server_side=True)
            c.login().answer_all()
        self.fake.script = script
        w, sql, r = self.ask("fake-tls")
        elevated.set()
        self.gw.approve(r["id"])
        self.gw.wait_state(r["id"], "void")
        elevated.clear()
        self.outcome(w, sql, r, "57P03", "does not speak TLS", "void")

    def test_scram_fails(self):
        def script(c):
            c.scram(signature=b"\0" * 32)
            c.greet()
            c.answer_all()
        self.fails("57P03", "could not prove", "void", script=script, login=False)

    def test_the_credential_is_refused(self):
        def script(c):
            c.scram()
            c.send(error('password authentication failed for user "fake_owner"', "28P01", "FATAL"))
        self.fails("57P03", "refused the gateway's credential", "void", script=script, login=False)

    def test_the_role_differs(self):
        def script(c):
            c.scram()
            c.greet(session_authorization="somebody_else")
            c.answer_all()
        self.fails("57P03", "pinned", "void", script=script, login=False)

    def test_the_server_has_no_connection_left(self):
        self.fails("57P03", "too many clients", "void", script=lambda c: c.send(error("sorry, too many clients already", "53300", "FATAL")),
                   login=False)

    def test_the_login_hangs(self):
        self.fails("57P03", "does not answer", "void", script=lambda c: c.hang(), login=False)

    def test_the_connection_is_lost_in_the_login(self):
        def script(c):
            c.scram()
        self.fails("57P03", "closed the connection during login", "void", script=script, login=False)

    def in_the_login(self):
        """Its elevated login, proved and not yet ready: nothing of the action has left. `go` lets it become ready."""
        proved, go = threading.Event(), threading.Event()

        def script(c):
            c.scram()
            proved.set()
            harness.wait_until("the order to become ready", go.is_set)
            try:
                c.greet()
                c.answer_all()
            except (OSError, EOFError):
                pass  # it was closed: that is as good
        self.owner_does(script, login=False)
        w, sql, r = self.ask()
        self.gw.approve(r["id"])
        harness.wait_until("the credential to be proved", proved.is_set)
        return w, sql, r, go

    def test_the_session_is_killed_in_the_login(self):
        w, sql, r, go = self.in_the_login()
        self.gw.cli("sessions", "kill", r["session"])
        go.set()
        got, alive = self.read_all(w)
        self.assertEqual((error_of(got)["C"], alive), ("57P01", False))
        self.after(r, sql, "unknown", 0)

    def test_the_client_goes_away_in_the_login(self):
        w, sql, r, go = self.in_the_login()
        w.close()
        go.set()
        self.after(r, sql, "void", 0)

    def test_a_cancel_in_the_login(self):
        w, sql, r, go = self.in_the_login()
        pgwire.cancel(self.gw.port, w.key, self.gw.ca)
        go.set()
        self.outcome(w, sql, r, "57014", "nothing ran", "void")

    # ---- simple query: the bytes went ----

    def test_the_server_refuses_the_statement(self):
        def script(c):
            c.next_query()
            c.send(error("it is on fire", "58000"), ready())
        self.fails("58000", "it is on fire", "done", script=script, ran=1)

    def test_lock_timeout(self):
        lock = self.pg.connect(self.name)
        lock.autocommit = False
        with lock.cursor() as cur:
            cur.execute("lock table orders in access exclusive mode")
            w = self.to(self.name)
            sql = "delete from orders where id = 1 /* %s */" % fresh_name("lock")
            w.send(query(sql))
            r = self.held(sql)
            began = time.monotonic()
            self.gw.approve(r["id"])
            self.outcome(w, sql, r, "55P03", "lock timeout", "done")
            self.assertGreater(time.monotonic() - began, 4.5)
        lock.rollback()
        lock.close()

    def test_the_connection_is_lost_after_the_bytes_went(self):
        self.fails("57P01", "closed the connection", "unknown", script=lambda c: c.next_query(), ran=1, lives=False, severity="FATAL")

    def test_the_connection_is_lost_in_the_middle_of_the_result(self):
        def script(c):
            c.next_query()
            c.send(columns("x"), row(b"1"))
        self.fails("57P01", "closed the connection", "unknown", script=script, ran=1, lives=False, severity="FATAL")

    def test_the_server_ends_the_connection_with_words(self):
        def script(c):
            c.next_query()
            c.send(error("terminating connection due to administrator command", "57P01", "FATAL"))
        self.fails("57P01", "administrator", "unknown", script=script, ran=1, lives=False, severity="FATAL")

    def test_the_server_breaks_the_protocol(self):
        def script(c):
            c.next_query()
            c.send(message("1"))
            c.hang()
        self.fails("08P01", "broke the protocol", "unknown", script=script, ran=1, lives=False, severity="FATAL")

    def test_a_pinned_setting_changes_while_it_runs(self):
        def script(c):
            c.next_query()
            c.send(parameter("client_encoding", "SJIS"), complete("DROP TABLE"), ready())
            c.hang()
        self.fails("57P01", "pins", "unknown", script=script, ran=1, lives=False, severity="FATAL")

    def test_what_comes_behind_the_result_is_not_for_the_client(self):
        def script(c):
            c.next_query()
            c.send(complete("DROP TABLE"), ready(), columns("x"), row(b"not asked for"), complete("SELECT 1"), ready())
            c.hang()
        self.owner_does(script)
        w, sql, r = self.ask()
        self.gw.approve(r["id"])
        self.assertEqual(kinds(w.until_ready()), "CZ")
        got = w.ask(query("select 1"))
        self.assertEqual(kinds(got), "TDCZ")
        self.assertNotIn(b"not asked for", b"".join(b for _, b in got))
        self.after(r, sql, "done", 1)

    def test_a_cancel_while_it_runs_reaches_the_elevated_connection(self):
        def script(c):
            c.next_query()
            harness.wait_until("the cancel", lambda: c.server.cancels)
            c.send(error("canceling statement due to user request", "57014"), ready())
        self.owner_does(script)
        self.fake.cancels.clear()
        w, sql, r = self.ask()
        self.gw.approve(r["id"])
        harness.wait_until("it to run", lambda: sql in self.fake.queries)
        pgwire.cancel(self.gw.port, w.key, self.gw.ca)
        self.outcome(w, sql, r, "57014", "canceling", "done", ran=1)
        self.assertEqual(self.fake.cancels, [struct.pack("!II", 4711, 815)])

    def running(self, end):
        """A statement in the middle of its run; `end` lets it finish."""
        def script(c):
            c.next_query()
            harness.wait_until("the order to finish", end.is_set)
            c.send(complete("DROP TABLE"), ready())
            c.hang()
        self.owner_does(script)
        w, sql, r = self.ask()
        self.gw.approve(r["id"])
        harness.wait_until("it to run", lambda: sql in self.fake.queries)
        self.gw.wait_state(r["id"], "executing")
        return w, sql, r

    def test_the_client_goes_away_while_it_runs(self):
        end = threading.Event()
        w, sql, r = self.running(end)
        w.close()
        self.gw.wait_state(r["id"], "unknown")
        end.set()
        self.after(r, sql, "unknown", 1)

    def test_the_session_is_killed_while_it_runs(self):
        end = threading.Event()
        w, sql, r = self.running(end)
        self.gw.cli("sessions", "kill", r["session"])
        got, alive = self.read_all(w)
        end.set()
        self.assertEqual((error_of(got)["C"], alive), ("57P01", False))
        self.after(r, sql, "unknown", 1)

    def test_the_gate_dies_while_it_runs(self):
        end = threading.Event()
        w, sql, r = self.running(end)
        os.kill(self.pid("gate", w.gate), signal.SIGKILL)
        self.assertFalse(self.read_all(w)[1])
        self.gw.wait_state(r["id"], "unknown")
        end.set()
        self.all_ready()
        harness.wait_until("a new connection", lambda: self.connects())
        self.after(r, sql, "unknown", 1)

    def test_control_keeper_dialer_and_front_die_while_it_runs_and_the_result_arrives(self):
        for role in ("control", "keeper", "dialer", "front"):
            with self.subTest(role):
                end = threading.Event()
                w, sql, r = self.running(end)
                os.kill(self.pid(role), signal.SIGKILL)
                end.set()
                self.assertEqual(kinds(w.until_ready()), "CZ")
                harness.wait_until("the gateway to answer", lambda: self.gw.cli("show", r["id"], who="bob", ok=False).returncode == 0)
                self.all_ready()
                harness.wait_until("a new connection", lambda: self.connects())
                self.after(r, sql, "done", 1)

    def test_control_dies_with_the_question_for_the_grant(self):
        w, sql, r = self.ask()
        pid, gate = self.pid("control"), self.pid("gate", w.gate)
        os.kill(gate, signal.SIGSTOP)
        try:
            self.gw.approve(r["id"])
            os.kill(pid, signal.SIGSTOP)
        finally:
            os.kill(gate, signal.SIGCONT)
        at = self.gw.log_text().count("request-decided")
        harness.wait_until("the gate to hear of it", lambda: self.gw.log_text().count("request-decided") >= at)
        os.kill(pid, signal.SIGKILL)
        got = w.until_ready()  # the next control is asked how it stands: it runs, once
        harness.wait_until("control to be back", lambda: self.gw.cli("show", r["id"], who="bob", ok=False).returncode == 0)
        self.all_ready()
        harness.wait_until("a new connection", lambda: self.connects())
        if kinds(got) == "TDCZ":
            self.after(r, sql, "done", 1)
        else:
            self.assertIn(error_of(got)["C"], ("CS003", "57P03"))
            self.assertEqual(len([q for q in self.fake.queries if sql in q]), 0)


class Prepared(StepsCase):
    """The extended protocol: the statement is prepared on the elevated connection before the approved Bind goes."""
    T_INT = message("T", struct.pack("!H", 1) + cstr("x") + struct.pack("!IHIHIH", 16384, 1, 23, 4, 0xffffffff, 0))
    T_TEXT = message("T", struct.pack("!H", 1) + cstr("x") + struct.pack("!IHIHIH", 16385, 1, 25, 0xffff, 0xffffffff, 0))
    P_INT = message("t", struct.pack("!HI", 1, 23))
    P_TEXT = message("t", struct.pack("!HI", 1, 25))

    def everyday(self, c):
        self.serve(c)

    def serve(self, c, params=P_INT, shape=T_INT, at_parse=None, at_describe=None, at_execute=None, at_sync=None):
        """The extended protocol, well-behaved but where told otherwise; returns when a step closes."""
        failed = False
        while True:
            kind, body = c.read()
            if kind == "X":
                return
            if kind == "Q":
                text = body[:-1].decode()
                if text.startswith("\x01"):
                    c.send(error("syntax error", "42601"), ready())
                    continue
                c.server.queries.append(text)
                c.send(columns("fake"), row(b"1"), complete("SELECT 1"), ready())
            elif kind == "S":
                failed = False
                if at_sync is not None:
                    at_sync()
                c.send(ready())
            elif failed:
                continue
            elif kind == "P":
                if b"\x01 countersign" in body:
                    failed = True
                    c.send(error("syntax error", "42601"))
                elif at_parse is not None:
                    failed = True
                    if at_parse(c) == "close":
                        return
                else:
                    c.send(message("1"))
            elif kind == "D" and body[:1] == b"S":
                if at_describe is not None and at_describe(c) == "close":
                    return
                c.send(params, shape)
            elif kind == "D":
                c.send(shape)
            elif kind == "B":
                c.server.queries.append("bound " + body.decode("latin1"))
                c.send(message("2"))
            elif kind == "E":
                if at_execute is not None and at_execute(c) == "close":
                    return
                c.send(row(b"7"), complete("DELETE 1"))

    def prepared(self, described=True):
        """A held Bind of a prepared statement: (connection, mark, request). The mark is its parameter."""
        w = self.to("fake")
        mark = fresh_name("m")
        sql = "delete from fake where a = $1 returning x /* %s */" % mark
        got = w.ask(parse(sql, "s", (23,)), *([describe("S", "s")] if described else []), SYNC)
        self.assertEqual(kinds(got), "1tTZ" if described else "1Z")
        w.send(bind([mark], "s"), execute(), SYNC)
        return w, mark, self.held(mark)

    def run_prepared(self, described=True, **steps):
        self.owner_does(lambda c: self.serve(c, **steps))
        w, mark, r = self.prepared(described)
        self.gw.approve(r["id"])
        return w, mark, r

    def told(self, w, mark, r, sqlstate, words, state, ran=0):
        got = w.until_ready()
        self.assertEqual(kinds(got), "EZ", got)
        e = error_of(got)
        self.assertEqual(e["C"], sqlstate, e)
        self.assertIn(words, e["M"] + " " + e.get("D", ""))
        self.gw.wait_state(r["id"], state)
        self.assertEqual(len([q for q in self.fake.queries if q.startswith("bound") and mark in q]), ran)
        self.recorded_as_failed(r)
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ", "the session goes on")
        # The same Bind again is another question.
        w.send(bind([mark], "s"), execute(), SYNC)
        second = self.held(mark)
        self.assertNotEqual(second["id"], r["id"])
        self.gw.deny(second["id"], "once is enough")
        self.assertEqual(error_of(w.until_ready())["C"], "42501")
        self.assertEqual(len([q for q in self.fake.queries if q.startswith("bound") and mark in q]), ran)

    def test_when_all_is_well_it_runs(self):
        """Otherwise the tests below would prove nothing."""
        for described in (True, False):
            w, mark, r = self.run_prepared(described)
            self.assertEqual(kinds(w.until_ready()), "2DCZ")
            self.gw.wait_state(r["id"], "done")
            self.assertEqual(len([q for q in self.fake.queries if q.startswith("bound") and mark in q]), 1)

    def test_the_row_description_differs(self):
        self.told(*self.run_prepared(shape=self.T_TEXT), "CS003", "not what the client was told", "void")
        self.told(*self.run_prepared(shape=message("n")), "CS003", "not what the client was told", "void")

    def test_the_parameters_differ(self):
        self.told(*self.run_prepared(params=self.P_TEXT), "CS003", "not what the client was told", "void")

    def test_who_was_told_nothing_has_nothing_to_compare(self):
        w, mark, r = self.run_prepared(described=False, shape=self.T_TEXT)
        self.assertEqual(kinds(w.until_ready()), "2DCZ")
        self.gw.wait_state(r["id"], "done")

    def test_the_statement_is_refused_there(self):
        self.told(*self.run_prepared(at_parse=lambda c: c.send(error('relation "fake" does not exist', "42P01"))),
                  "42P01", "does not exist", "done")

    def test_the_connection_is_lost_before_the_bytes_went(self):
        for step in ("at_parse", "at_describe"):
            with self.subTest(step):
                self.told(*self.run_prepared(**{step: lambda c: "close"}), "57P03", "connection broke", "void")

    def test_the_server_ends_the_connection_before_the_bytes_went(self):
        def dies(c):
            c.send(error("shutting down", "57P01", "FATAL"))
            return "close"
        self.told(*self.run_prepared(at_parse=dies), "57P03", "ended the connection", "void")

    def test_the_server_breaks_the_protocol_before_the_bytes_went(self):
        for wrong in (message("2"), complete("DELETE 1"), row(b"1"), ready(), message("1") + message("1"), self.T_INT, b"\0\0\0\0\0\0",
                      parameter("client_encoding", "SJIS"), message("1") + b"T\0\1\0\0"):
            with self.subTest(wrong=wrong[:12]):
                self.told(*self.run_prepared(at_parse=lambda c: c.send(wrong)), "57P03", "broke the protocol", "void")

    def test_the_server_says_nothing_when_asked_to_prepare(self):
        self.told(*self.run_prepared(at_parse=lambda c: None), "57P03", "did not answer", "void")

    def test_the_connection_is_lost_after_the_bytes_of_a_bind_went(self):
        w, mark, r = self.run_prepared(at_execute=lambda c: "close")
        got, alive = self.read_all(w)
        self.assertEqual((error_of(got)["C"], alive), ("57P01", False))
        self.gw.wait_state(r["id"], "unknown")
        self.assertEqual(len([q for q in self.fake.queries if q.startswith("bound") and mark in q]), 1)

    def test_an_error_of_the_bind_is_the_result(self):
        def at_execute(c):
            c.send(error("division by zero", "22012"))
            kind = None
            while kind != "S":
                kind, _ = c.read()
                if kind == "P":
                    c.send(message("1"))
            c.send(ready())
            c.hang()
        w, mark, r = self.run_prepared(at_execute=at_execute)
        got = w.until_ready()
        self.assertEqual((kinds(got), error_of(got)["C"]), ("2EZ", "22012"))
        self.gw.wait_state(r["id"], "done")
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")

    def test_a_description_in_the_same_group_counts_too(self):
        self.owner_does(lambda c: self.serve(c, shape=self.T_TEXT))
        w = self.to("fake")
        mark = fresh_name("m")
        w.send(parse("delete from fake where a = $1 returning x /* %s */" % mark, "", (23,)), describe("S"), bind([mark]), execute(), SYNC)
        r = self.held(mark)
        self.gw.approve(r["id"])
        got = w.until_ready()
        self.assertEqual((kinds(got), error_of(got)["C"]), ("1tTEZ", "CS003"))
        self.gw.wait_state(r["id"], "void")

    def test_a_cancel_between_the_grant_and_its_connection(self):
        """While the everyday connection still answers for the group that the statement came in."""
        asked, go = threading.Event(), threading.Event()

        def at_sync():
            asked.set()
            harness.wait_until("the order to answer", go.is_set)
        self.owner_does(lambda c: self.fail("nobody is to log in for what was cancelled"))
        self.everyday = lambda c: self.serve(c, at_sync=at_sync)
        try:
            w = self.to("fake")
            mark = fresh_name("m")
            # A COPY: its portal is open, and so its group, when it is held. Others are closed before that.
            w.send(parse("copy fake from stdin /* %s */" % mark), bind(), execute(), SYNC)
            while w.read()[0] != "G":
                pass
            w.send(message("d", b"1\n"), message("c"), SYNC)
            r = self.held(mark)
            self.gw.approve(r["id"])
            harness.wait_until("the group to be closed", asked.is_set)
            pgwire.cancel(self.gw.port, w.key, self.gw.ca)
            go.set()
            got = w.until_ready()
        finally:
            go.set()
            del self.everyday
        self.assertEqual((kinds(got), error_of(got)["C"]), ("EZ", "57014"))
        self.gw.wait_state(r["id"], "void")
        self.assertEqual(len([q for q in self.fake.queries if q.startswith("bound")]), 1, "only on the everyday connection")

    def test_a_description_too_large_to_be_compared_is_void_there(self):
        wide = message("T", struct.pack("!H", 1000) + (cstr("x" * 60) + struct.pack("!IHIHIH", 16384, 1, 23, 4, 0xffffffff, 0)) * 1000)
        self.everyday = lambda c: self.serve(c, shape=wide)
        try:
            w, mark, r = self.run_prepared(shape=wide)
            got = w.until_ready()
        finally:
            del self.everyday
        self.assertEqual(kinds(got), "EZ")
        self.assertIn(error_of(got)["C"], ("CS003", "57P03"))
        self.gw.wait_state(r["id"], "void")


if __name__ == "__main__":
    unittest.main()
