"""FunctionCall messages: by libpq's own PQfn and large objects, and by raw messages. Refused unless a rule names the
verb; and then only the functions of large objects, which have the same numbers on every server."""
import base64
import ctypes
import json
import os
import re
import struct
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness
from base import ENDED, GatewayCase
from pgwire import SYNC, bind, error_of, execute, kinds, message, parse, query

OPEN, CLOSE, READ, WRITE, LSEEK, CREAT, UNLINK = 952, 953, 954, 955, 956, 957, 964
INV_READ, INV_WRITE = 0x40000, 0x20000
RULES = """
rules:
  - name: read
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: everything
    who: { groups: [engineers] }
    target: { kind: postgres }
    then: allow
%s
"""
LARGE_OBJECTS = """
  - name: large-objects
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "FUNCTION CALL" && sql.functions.all(f, f in ["lo_creat", "lo_open", "lo_close", "loread", "lowrite", "lo_lseek"])
    then: allow
  - name: unlink
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "FUNCTION CALL" && sql.functions.exists(f, f == "lo_unlink")
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
  - name: truncate
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "FUNCTION CALL" && sql.functions.exists(f, f == "lo_truncate")
    then: hold
    run_as: elevated
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
"""


def call(number, *args, formats=(1,), result=1, count=None):
    out = struct.pack("!IH", number, len(formats)) + b"".join(struct.pack("!H", f) for f in formats)
    out += struct.pack("!H", len(args) if count is None else count)
    for a in args:
        a = struct.pack("!i", a) if isinstance(a, int) else a
        out += struct.pack("!i", -1) if a is None else struct.pack("!i", len(a)) + a
    return message("F", out + struct.pack("!H", result))


class Libpq:
    """The C library itself."""

    def __init__(self, gw, who, database):
        self.pq = ctypes.CDLL("libpq.so.5")
        for f in ("PQconnectdb", "PQfn", "PQexec"):
            getattr(self.pq, f).restype = ctypes.c_void_p
        for f in ("PQerrorMessage", "PQresultErrorMessage"):
            getattr(self.pq, f).restype = ctypes.c_char_p
            getattr(self.pq, f).argtypes = [ctypes.c_void_p]
        for f in ("PQfinish", "PQclear", "PQstatus", "PQresultStatus"):
            getattr(self.pq, f).argtypes = [ctypes.c_void_p]
        self.pq.PQexec.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for f in ("lo_open", "lo_creat", "lo_unlink", "lo_close"):
            getattr(self.pq, f).argtypes = [ctypes.c_void_p] + [ctypes.c_int] * (2 if f == "lo_open" else 1)
        for f in ("lo_read", "lo_write"):
            getattr(self.pq, f).argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
        self.pq.lo_lseek.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
        info = "host=localhost hostaddr=127.0.0.1 port=%d user=%s password=%s dbname=%s sslmode=verify-full sslrootcert=%s" % (
            gw.port, who, gw.tokens[who], database, gw.ca)
        self.conn = self.pq.PQconnectdb(info.encode())
        assert self.pq.PQstatus(self.conn) == 0, self.error()

    def error(self):
        return self.pq.PQerrorMessage(self.conn).decode()

    def exec(self, sql):
        r = self.pq.PQexec(self.conn, sql.encode())
        status = self.pq.PQresultStatus(r)
        self.pq.PQclear(r)
        return status

    def close(self):
        self.pq.PQfinish(self.conn)


class CallCase(GatewayCase):
    def session(self, who="bot"):
        w = self.wire(who)
        w.sock.settimeout(max(20, harness.PATIENCE))
        self.addCleanup(w.close)
        return w

    def large_object(self):
        """One that the everyday role owns."""
        c = self.pg.connect(self.name, self.roles["user"], self.roles["password"])
        with c.cursor() as cur:
            cur.execute("select lo_from_bytea(0, 'before')")
            oid = cur.fetchone()[0]
        c.commit()
        c.close()
        return oid

    def content(self, oid):
        rows = self.sql("select convert_from(lo_get(oid), 'UTF8') from pg_largeobject_metadata where oid = %d" % oid)
        return rows[0][0] if rows else None

    def tearDown(self):
        for r in self.gw.pending():
            self.gw.deny(r["id"], "the test is over")

    def unchanged(self, w, answers):
        self.assertEqual(error_of(answers)["C"], "42501", answers)
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")


class Unnamed(CallCase):
    RULES = RULES % ""

    def test_a_rule_that_does_not_name_it_permits_none(self):
        oid = self.large_object()
        for who in ("bot", "alice"):
            for number, args in ((OPEN, (oid, INV_READ)), (UNLINK, (oid,)), (LSEEK, (0, 0, 0))):
                with self.subTest(who=who, number=number):
                    w = self.session(who)
                    self.unchanged(w, w.ask(call(number, *args)))
        self.assertEqual(self.content(oid), "before")
        self.assertEqual(self.gw.pending(), [])


class Named(CallCase):
    RULES = RULES % LARGE_OBJECTS

    def test_the_table_has_the_servers_own_numbers(self):
        with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src", "proto", "postgres", "calls.def")) as f:
            rows = re.findall(r'^PG_CALL\((\d+),\s*(\d+), "(\w+)"', f.read(), re.M)
        self.assertGreater(len(rows), 15)
        have = {(str(o), str(n), name) for o, n, name in self.sql("select oid, pronargs, proname::text from pg_proc where oid < 16384")}
        self.assertEqual(set(rows) - have, set())

    def test_large_objects_of_libpq(self):
        c = Libpq(self.gw, "bot", self.name)
        self.addCleanup(c.close)
        self.assertEqual(c.exec("begin"), 1, c.error())
        oid = c.pq.lo_creat(c.conn, INV_READ | INV_WRITE)
        self.assertGreater(oid, 0, c.error())
        fd = c.pq.lo_open(c.conn, oid, INV_READ | INV_WRITE)
        self.assertGreaterEqual(fd, 0, c.error())
        self.assertEqual(c.pq.lo_write(c.conn, fd, b"x" * 300000, 300000), 300000, c.error())
        self.assertEqual(c.pq.lo_lseek(c.conn, fd, 5, 0), 5, c.error())
        room = ctypes.create_string_buffer(300000)
        self.assertEqual(c.pq.lo_read(c.conn, fd, room, 300000), 299995, c.error())
        self.assertEqual(room.raw[:299995], b"x" * 299995)
        self.assertEqual(c.pq.lo_close(c.conn, fd), 0, c.error())
        self.assertEqual(c.exec("commit"), 1)
        self.assertEqual(self.content(oid), "x" * 300000)

    def test_it_is_held_with_its_arguments_and_runs_once(self):
        oid = self.large_object()
        w = self.session()
        w.send(call(UNLINK, oid))
        request = self.gw.wait_pending()[0]["id"]
        card = self.gw.json("show", request, who="bob")
        self.assertEqual(card["text"], "FUNCTION CALL lo_unlink($1)")
        self.assertEqual((card["facts"]["sql.verb"], card["facts"]["sql.functions"]), ("FUNCTION CALL", ["lo_unlink"]))
        self.assertEqual([(p["format"], p["text"]) for p in card["params"]], [("binary", "%08x" % oid)])
        self.assertEqual(self.content(oid), "before")
        self.gw.approve(request)
        self.assertEqual(kinds(w.until_ready()), "VZ")
        self.assertIsNone(self.content(oid))
        w.send(call(UNLINK, self.large_object()))
        self.gw.deny(self.gw.wait_pending()[0]["id"], "not that one")
        self.assertEqual(error_of(w.until_ready())["C"], "42501")

    def test_another_argument_is_another_question(self):
        a, b = self.large_object(), self.large_object()
        w, x = self.session(), self.session()
        w.send(call(UNLINK, a))
        x.send(call(UNLINK, b))
        self.gw.wait_pending(n=2)
        for r in self.gw.pending():
            if self.gw.json("show", r["id"], who="bob")["params"][0]["text"] == "%08x" % a:
                self.gw.approve(r["id"])
            else:
                self.gw.deny(r["id"], "no")
        self.assertEqual(kinds(w.until_ready()), "VZ")
        self.assertEqual(error_of(x.until_ready())["C"], "42501")
        self.assertEqual((self.content(a), self.content(b)), (None, "before"))

    def test_elevated_is_refused_and_says_so(self):
        w = self.session()
        answers = w.ask(call(1004, 0, 0))
        self.unchanged(w, answers)
        self.assertIn("everyday credential", error_of(answers)["M"])
        self.assertEqual(self.gw.pending(), [])

    def test_any_other_number_is_refused(self):
        w = self.session()
        mine = self.sql("select oid from pg_proc where proname = 'pg_terminate_backend'")[0][0]
        for number, args in ((mine, (1, b"\0" * 8)), (0, ()), (2 ** 32 - 1, ()), (764, (b"/etc/passwd",)), (765, (1, b"/tmp/x")), (1598, ()),
                             (UNLINK, ()), (UNLINK, (1, 2)), (CREAT, (1, 2, 3)), (LSEEK, (1,))):
            with self.subTest(number=number, args=args):
                answers = w.ask(call(number, *args))
                self.unchanged(w, answers)
                self.assertIn("by number", error_of(answers)["M"])

    def test_malformed_ones_end_the_session(self):
        good = call(CREAT, -1)
        for body in (b"", good[5:-1], good[5:] + b"\0", call(CREAT, -1, formats=(1, 1))[5:], call(CREAT, -1, count=2)[5:], call(CREAT, -1, count=65535)[5:],
                     struct.pack("!IHH", CREAT, 65535, 1), struct.pack("!IHHi", CREAT, 0, 1, 2 ** 31 - 1), struct.pack("!IHHiH", CREAT, 0, 1, -2, 0)):
            with self.subTest(body[:12]):
                w = self.session()
                try:
                    answers = w.ask(message("F", body))
                    self.assertEqual(error_of(answers)["C"], "08P01")
                except ENDED + (TimeoutError,):
                    pass
                self.assertTrue(w.closed())

    def test_order_with_other_messages(self):
        w = self.session()
        self.assertEqual(kinds(w.ask(query("begin"), call(CREAT, -1), query("select 1"), n=3)), "CZVZTDCZ")
        self.assertEqual(kinds(w.ask(call(OPEN, 1, INV_READ))), "EZ", "there is no such object")
        self.assertEqual(kinds(w.ask(call(CREAT, -1))), "EZ", "the transaction has failed")
        self.assertEqual(kinds(w.ask(query("rollback"))), "CZ")
        self.assertEqual(kinds(w.ask(parse("select 1"), bind(), execute(), SYNC, call(CREAT, -1), n=2)), "12DCZVZ")
        self.assertEqual(kinds(w.ask(parse("nonsense"), call(CREAT, -1), SYNC)), "EZ", "skipped, as at the server")

    def test_it_is_recorded_with_its_arguments(self):
        w = self.session()
        w.ask(call(CREAT, 0x12345678))
        session = self.gw.json("sessions")["sessions"][0]["id"]
        w.close()

        def frames():
            r = self.gw.cli("replay", session, "--json", ok=False)
            return [f for f in json.loads(r.stdout)["frames"] if f["kind"] == "action"] if r.returncode == 0 else []
        frame = harness.wait_until("its record", frames)[0]
        self.assertEqual(frame["text"], "FUNCTION CALL lo_creat($1)")
        self.assertIn(b"\x12\x34\x56\x78", base64.b64decode(frame["params"]["base64"]))


if __name__ == "__main__":
    unittest.main()
