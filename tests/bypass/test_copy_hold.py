"""COPY … FROM STDIN that needs approval: its data is collected first and is part of what is signed. Data that changes
afterwards, more of it, a second COPY, and everything that could have the target ask for data nobody has seen."""
import hashlib
import os
import struct
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peer"))

import harness
from base import WireCase
from pgwire import COPY_DONE, SYNC, bind, cancel, cstr, describe, error_of, execute, kinds, message, parse, query

RULES = """
rules:
  - name: read
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: everyday
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, !(e in ["session", "read"])) && sql.writes.all(w, w == "everyday_t")
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
  - name: uncovered
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, !(e in ["session", "read"])) && sql.writes.all(w, w == "uncovered_t")
    then: hold
    copy: uncovered
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
  - name: elevated
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, !(e in ["session", "read"])) && sql.writes.all(w, w == "elevated_t")
    then: hold
    run_as: elevated
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
"""
MIB = 1024 * 1024


def data(text):
    return message("d", text.encode() if isinstance(text, str) else text)


class CopyCase(WireCase):
    RULES = RULES

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        c = cls.pg.connect(cls.name, cls.roles["owner"], cls.roles["owner_password"])
        with c.cursor() as cur:
            for t in ("everyday_t", "uncovered_t", "elevated_t"):
                cur.execute("create table %s (id int, note text)" % t)
            cur.execute("grant select, insert on everyday_t, uncovered_t to " + cls.roles["user"])
        c.close()

    def setUp(self):
        self.sql("truncate everyday_t, uncovered_t, elevated_t")

    def tearDown(self):
        for r in self.gw.pending():
            self.gw.deny(r["id"], "the test is over")

    def rows(self, table="everyday_t"):
        return self.sql("select id, note from %s order by id" % table)

    def read_to(self, w, kind):
        """The kinds of the messages up to the first of this kind; notices are not counted."""
        got = ""
        while not got.endswith(kind):
            k, body = w.read()
            got += "" if k == "N" else k
            self.last = body
        return got

    def begun(self, w, sql="copy everyday_t from stdin", extended=False, answer=None):
        parts = (parse(sql), bind(), describe(), execute(), SYNC) if extended else (query(sql),)
        w.send(*parts)
        self.assertEqual(self.read_to(w, "G"), answer or ("12nG" if extended else "G"))
        return w

    def done(self, w, extended=False):
        w.send(COPY_DONE, *((SYNC,) if extended else ()))
        return self.gw.wait_pending()[0]["id"]

    def nobody_asked(self):
        self.assertEqual([r["text"] for r in self.gw.pending()], [])

    def goes_on(self, w):
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")


class Whole(CopyCase):
    """What is loaded is what was signed."""

    def loads(self, table, extended):
        w = self.session()
        self.begun(w, "copy %s from stdin" % table, extended)
        w.send(data("1\tone\n2\tt"))
        self.nobody_asked()
        w.send(data("wo\n"))
        request = self.done(w, extended)
        self.assertEqual(self.rows(table), [])
        card = self.gw.json("show", request, who="bob")
        digest = hashlib.sha256(b"1\tone\n2\ttwo\n").hexdigest()
        self.assertIn("copy-data=12 bytes, sha256:%s\n" % digest, card["settings"])
        self.assertIn("two", str(card["params"]))
        self.gw.approve(request)
        got = w.until_ready()
        self.assertEqual(kinds(got), "CZ")
        self.assertEqual(got[0][1], b"COPY 2\0")
        self.assertEqual(self.rows(table), [(1, "one"), (2, "two")])
        self.gw.wait_state(request, "done")
        self.goes_on(w)

    def test_simple(self):
        self.loads("everyday_t", False)

    def test_extended(self):
        self.loads("everyday_t", True)

    def test_elevated_simple(self):
        self.loads("elevated_t", False)

    def test_elevated_extended(self):
        self.loads("elevated_t", True)

    def test_columns_and_binary_are_told_as_the_server_would(self):
        for sql, told in (("copy everyday_t (id) from stdin", b"\0\0\1\0\0"), ("copy everyday_t (note, id) from stdin (format binary)", b"\1\0\2\0\1\0\1"),
                          ("copy everyday_t from stdin csv", b"\0\0\0")):
            w = self.session()
            self.begun(w, sql)
            self.assertEqual(self.last, told, sql)
            w.ask(message("f", cstr("enough")))

    def test_binary(self):
        w = self.session()
        self.begun(w, "copy everyday_t from stdin (format binary)")
        w.send(data(b"PGCOPY\n\xff\r\n\0" + struct.pack("!IIhiii", 0, 0, 2, 4, 7, 5) + b"seven" + struct.pack("!h", -1)))
        request = self.done(w)
        self.gw.approve(request)
        self.assertEqual(kinds(w.until_ready()), "CZ")
        self.assertEqual(self.rows(), [(7, "seven")])

    def test_inside_a_transaction(self):
        w = self.session()
        w.ask(query("begin"))
        self.begun(w)
        w.send(data("1\tone\n"))
        self.gw.approve(self.done(w))
        self.assertEqual(kinds(w.until_ready()), "CZ")
        self.assertEqual(self.rows(), [])
        self.assertEqual(kinds(w.ask(query("commit"))), "CZ")
        self.assertEqual(self.rows(), [(1, "one")])

    def test_megabytes(self):
        n = 8 * MIB // 16 - 1
        w = self.session()
        self.begun(w)
        text = b"".join(b"%08d\tsixteen\n" % i for i in range(n))[:8 * MIB]
        text = text[:text.rfind(b"\n") + 1]
        for at in range(0, len(text), 50000):
            w.send(data(text[at:at + 50000]))
        request = self.done(w)
        self.assertIn("copy-data=%d bytes, sha256:%s, the first 65536 shown" % (len(text), hashlib.sha256(text).hexdigest()),
                      self.gw.json("show", request, who="bob")["settings"])
        self.gw.approve(request)
        self.assertEqual(w.until_ready()[0][1], b"COPY %d\0" % text.count(b"\n"))

    def test_a_prepared_copy_is_asked_each_time(self):
        w = self.session()
        self.assertEqual(kinds(w.ask(parse("copy everyday_t from stdin", "c"), SYNC)), "1Z")
        for i in range(2):
            w.send(bind(statement="c"), execute(), SYNC)
            self.assertEqual(self.read_to(w, "G"), "2G")
            w.send(data("%d\tx\n" % i))
            self.gw.approve(self.done(w, True))
            self.assertEqual(kinds(w.until_ready()), "CZ")
        self.assertEqual([r[0] for r in self.rows()], [0, 1])

    def test_async_runs_once_and_only_for_the_same_data(self):
        w = self.session(options="-c countersign.mode=async")

        def ask(text):
            self.begun(w)
            return w.ask(data(text), COPY_DONE)
        self.assertEqual(error_of(ask("1\tone\n"))["C"], "CS001")
        request = self.held("copy ")["id"]
        self.gw.approve(request)
        self.assertEqual(error_of(ask("1\tother\n"))["C"], "CS001")
        self.assertEqual(self.rows(), [])
        self.assertEqual(kinds(ask("1\tone\n")), "CZ")
        self.assertEqual(self.rows(), [(1, "one")])
        self.assertEqual(error_of(ask("1\tone\n"))["C"], "CS001", "it ran a second time")


class Attacks(CopyCase):
    def approved_exactly(self, w, request):
        self.gw.approve(request)
        self.gw.wait_state(request, "done")
        self.assertEqual(self.rows(), [(1, "one")])

    def test_more_data_behind_what_is_asked(self):
        for extended in (False, True):
            self.sql("truncate everyday_t")
            w = self.session()
            self.begun(w, extended=extended)
            end = (SYNC,) if extended else ()
            w.send(data("1\tone\n"), COPY_DONE, data("2\tevil\n"), COPY_DONE, *end)
            request = self.held("copy ")["id"]
            w.send(data("3\tevil\n"), COPY_DONE)
            self.approved_exactly(w, request)
            w.send(data("4\tevil\n"), COPY_DONE)
            self.assertEqual(kinds(w.until_ready()), "CZ")
            self.goes_on(w)
            self.assertEqual(self.rows(), [(1, "one")])

    def test_another_copy_behind_what_is_asked_is_asked_by_itself(self):
        w = self.session()
        self.begun(w)
        w.send(data("1\tone\n"), COPY_DONE, query("copy everyday_t from stdin"), data("2\tevil\n"), COPY_DONE)
        first = self.held("copy ")["id"]
        self.approved_exactly(w, first)
        second = harness.wait_until("the second", lambda: next((r["id"] for r in self.gw.pending() if r["id"] != first), None))
        self.gw.deny(second, "no")
        self.assertEqual(kinds(w.until_ready(2)), "CZGEZ")
        self.assertEqual(self.rows(), [(1, "one")])

    def test_a_copy_among_other_statements_is_refused(self):
        w = self.session()
        for sql in ("copy everyday_t from stdin; copy everyday_t from stdin", "insert into everyday_t values (9, 'x'); copy everyday_t from stdin",
                    "copy everyday_t from stdin; select 1"):
            e = error_of(w.ask(query(sql)))
            self.assertEqual(e["C"], "42501", e)
            self.assertIn("alone", e["M"])
        self.nobody_asked()
        self.assertEqual(self.rows(), [])
        self.goes_on(w)

    def test_a_copy_that_the_classifier_cannot_read_gets_no_data(self):
        w = self.session()
        w.send(query("copy everyday_t from stdin " + "/* " * 40 + "*/ " * 40))  # deeper than it follows
        self.gw.approve(self.gw.wait_pending()[0]["id"])
        w.send(data("1\tevil\n"), COPY_DONE)
        e = error_of(w.until_ready())
        self.assertIn("not part of what was approved", e["M"])
        self.assertEqual(self.rows(), [])
        self.goes_on(w)

    def test_its_portal_runs_by_nothing_but_an_approved_execute(self):
        w = self.session()
        w.ask(query("begin"))
        self.assertEqual(kinds(w.ask(parse("copy everyday_t from stdin"), bind(portal="x"), SYNC)), "12Z")
        self.assertIsNotNone(error_of(w.ask(query("fetch all from x"))))
        self.assertEqual(self.rows(), [])
        w.ask(query("rollback"))
        self.nobody_asked()

    def test_its_portal_runs_once(self):
        w = self.session()
        w.ask(query("begin"))
        w.send(parse("copy everyday_t from stdin"), bind(portal="x"), execute("x"), SYNC)
        self.assertEqual(self.read_to(w, "G"), "12G")
        w.send(data("1\tone\n"))
        self.gw.approve(self.done(w, True))
        self.assertEqual(kinds(w.until_ready()), "CZ")
        self.assertIn("runs once", error_of(w.ask(execute("x"), SYNC))["M"])

    def test_other_requests_in_the_middle_end_the_session(self):
        for part in (query("select 1"), parse("select 1"), message("F", b"\0\0\0\1\0\0\0\0\0\0")):
            w = self.session()
            self.begun(w)
            w.send(data("1\tone\n"), part)
            self.assertTrue(w.closed())
        self.nobody_asked()

    def test_who_goes_away_asks_nothing(self):
        w = self.session()
        self.begun(w)
        w.send(data("1\tone\n"))
        w.close()
        w = self.session()
        self.goes_on(w)
        self.nobody_asked()


class Refused(CopyCase):
    def too_much(self, *pieces):
        w = self.session()
        self.begun(w)
        w.send(*pieces)
        got = w.until_ready()
        self.assertEqual(kinds(got), "EZ")
        e = error_of(got)
        self.assertEqual(e["C"], "54000", e)
        self.assertIn("copy: uncovered", e["H"])
        w.send(COPY_DONE)
        self.goes_on(w)
        self.nobody_asked()

    def test_more_than_eight_megabytes_in_pieces(self):
        self.too_much(*[data("x" * 65536)] * 129)

    def test_more_than_eight_megabytes_in_one_message(self):
        self.too_much(data("x" * (9 * MIB)))

    def failed(self, w, extended, in_tx):
        w.send(message("f", cstr("changed my mind")), *((SYNC,) if extended else ()))
        got = w.until_ready()
        e = error_of(got)
        self.assertEqual((kinds(got), e["C"], e["M"]), ("EZ", "57014", "COPY from stdin failed: changed my mind"))
        self.assertEqual(got[-1][1], b"E" if in_tx else b"I")
        self.nobody_asked()

    def test_copy_fail_is_what_it_is_at_the_server(self):
        for extended in (False, True):
            for in_tx in (False, True):
                w = self.session()
                w.ask(query("begin" if in_tx else "select 1"))
                self.begun(w, extended=extended)
                w.send(data("1\tone\n"))
                self.failed(w, extended, in_tx)
                w.ask(query("rollback"))
                self.goes_on(w)

    def test_a_person_says_no(self):
        for extended in (False, True):
            for in_tx in (False, True):
                w = self.session()
                w.ask(query("begin" if in_tx else "select 1"))
                self.begun(w, extended=extended)
                w.send(data("1\tone\n"))
                self.gw.deny(self.done(w, extended), "not this data")
                got = w.until_ready()
                e = error_of(got)
                self.assertEqual((kinds(got), e["C"], e["D"]), ("EZ", "42501", "not this data"))
                self.assertEqual(got[-1][1], b"E" if in_tx else b"I")
                w.ask(query("rollback"))
                self.goes_on(w)
        self.assertEqual(self.rows(), [])

    def test_cancel_while_it_collects(self):
        for extended in (False, True):
            w = self.session()
            self.begun(w, extended=extended)
            w.send(data("1\tone\n"))
            cancel(self.gw.port, w.key, self.gw.ca)
            self.assertEqual(self.read_to(w, "E"), "E")
            self.assertIn(b"57014", self.last)
            w.send(data("2\ttwo\n"), COPY_DONE, *((SYNC,) if extended else ()))
            self.assertEqual(self.read_to(w, "Z"), "Z")
            self.goes_on(w)
        self.nobody_asked()

    def test_the_target_refuses_what_was_approved(self):
        for table, extended in (("everyday_t", False), ("everyday_t", True), ("elevated_t", False), ("elevated_t", True)):
            w = self.session()
            self.begun(w, "copy %s from stdin" % table, extended)
            w.send(data("1\tone\n"), data("no number\tx\n" + "3\tthree\n" * 200000))
            request = self.done(w, extended)
            self.gw.approve(request)
            got = w.until_ready()
            self.assertEqual((kinds(got), error_of(got)["C"]), ("EZ", "22P02"))
            self.assertEqual(self.rows(table), [])
            self.assertEqual(self.gw.wait_state(request, "done")["state"], "done")
            self.goes_on(w)

    def test_the_table_is_gone_when_it_is_approved(self):
        w = self.session()
        self.begun(w)
        w.send(data("1\tone\n"))
        request = self.done(w)
        self.sql("alter table everyday_t rename to gone_t")
        self.addCleanup(self.sql, "alter table gone_t rename to everyday_t")
        self.gw.approve(request)
        e = error_of(w.until_ready())
        self.assertIn(e["C"], ("42P01", "CS003"))
        self.goes_on(w)


class Uncovered(CopyCase):
    def test_its_data_comes_after_the_approval_and_the_card_says_so(self):
        for extended in (False, True):
            self.sql("truncate uncovered_t")
            w = self.session()
            sql = "copy uncovered_t from stdin"
            w.send(*((parse(sql), bind(), describe(), execute(), SYNC) if extended else (query(sql),)))
            request = self.held("copy ")["id"]
            self.assertIn("copy-data=not covered", self.gw.json("show", request, who="bob")["settings"])
            self.gw.approve(request)
            self.assertEqual(self.read_to(w, "G"), "12nG" if extended else "G")
            for _ in range(9):
                w.send(data(("1\t" + "x" * 1021 + "\n") * 1024))
            w.send(COPY_DONE, *((SYNC,) if extended else ()))
            self.assertEqual(kinds(w.until_ready()), "CZ")
            self.assertEqual(self.sql("select count(*) from uncovered_t"), [(9 * 1024,)])


    def test_a_reload_that_covers_the_data_voids_what_was_asked_without_it(self):
        w = self.session()
        w.send(query("copy uncovered_t from stdin"))
        request = self.held("copy ")["id"]
        self.gw.configure(RULES.replace("    copy: uncovered\n", ""))
        try:
            self.gw.cli("reload")
            self.assertEqual(error_of(w.until_ready())["C"], "CS003")
            self.assertEqual(self.gw.wait_state(request, "void")["state"], "void")
        finally:
            self.gw.configure(RULES)
            self.gw.cli("reload")


class Clients(CopyCase):
    """The data comes from real clients, which see nothing but a COPY that takes its time."""

    def approving(self):
        def run():
            self.gw.approve(self.gw.wait_pending()[0]["id"])
        th = threading.Thread(target=run)
        th.start()
        self.addCleanup(th.join)

    def loaded(self):
        self.assertEqual(self.rows(), [(1, "one"), (2, "two")])

    def test_psql(self):
        path = os.path.join(self.gw.dir, "rows.txt")
        with open(path, "w") as f:
            f.write("1\tone\n2\ttwo\n")
        self.approving()
        out = self.gw.psql("bot", self.name, "\\copy everyday_t from '%s'" % path)
        self.assertEqual((out.returncode, out.stdout.strip()), (0, "COPY 2"), out.stderr)
        self.loaded()

    def test_psycopg2(self):
        import io
        c = self.gw.connect("bot", self.name)
        self.approving()
        with c.cursor() as cur:
            cur.copy_expert("copy everyday_t (id, note) from stdin", io.StringIO("1\tone\n2\ttwo\n"))
        c.commit()
        c.close()
        self.loaded()

    def dsn(self):
        return "host=localhost port=%d user=bot password=%s dbname=%s sslmode=verify-full sslrootcert=%s" % (self.gw.port, self.gw.tokens["bot"], self.name, self.gw.ca)

    def test_psycopg3(self):
        import psycopg
        with psycopg.connect(self.dsn(), autocommit=True) as c:
            self.approving()
            with c.cursor().copy("copy everyday_t (id, note) from stdin") as copy:
                copy.write_row((1, "one"))
                copy.write_row((2, "two"))
        self.loaded()

    def test_asyncpg(self):
        import asyncio
        import io
        import ssl

        import asyncpg

        async def run():
            c = await asyncpg.connect(host="localhost", port=self.gw.port, user="bot", password=self.gw.tokens["bot"], database=self.name,
                                      ssl=ssl.create_default_context(cafile=self.gw.ca))
            await c.copy_to_table("everyday_t", source=io.BytesIO(b"1\tone\n2\ttwo\n"))
            await c.close()
        self.approving()
        asyncio.run(run())
        self.loaded()


if __name__ == "__main__":
    unittest.main()
