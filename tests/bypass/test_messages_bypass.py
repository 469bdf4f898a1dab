"""More attacks on the bookkeeping between client and server, message by message: copies whose end is not where
it seems, counts that do not fit, portals that are closed, suspended or run by another door, settings that change
under the session. And sequences that nobody thought of: the real server says what each of them answers."""
import os
import random
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))
from base import ENDED, BypassCase, WireCase, fresh_name  # noqa: E402
from pgwire import (COPY_DONE, FLUSH, SYNC, bind, close, cstr, describe, error_of, execute, kinds, message, parse, query)  # noqa: E402

NONSENSE = "select nonsense from nowhere"
COPY_IN = "copy scratchpad from stdin"
COPY_OUT = "copy (select 1 union all select 2) to stdout"
DATA, FAIL = message("d", b"1\n"), message("f", cstr("no more"))
END = query("select 'the end'")


def up_to_the_end(w, *parts):
    """All answers up to those of a last query, which any bookkeeping that is right brings."""
    w.send(*parts, END)
    got = []
    while not (got and got[-1][0] == "Z" and any(k == "D" and b"the end" in b for k, b in got[-4:])):
        kind, body = w.read()
        if kind not in "NS":
            got.append((kind, body))
    return got


def shape(answers):
    """What must be equal through the gateway and without it: kinds, tags, transaction states."""
    return [(k, body if k in "CZ" else b"") for k, body in answers]


class Copies(BypassCase):
    """The server ignores Sync and Flush while it takes COPY data; one answer expected too many or too few, and
    each later one is counted for another question."""
    ENDS = {
        "a Sync with the Execute, as libpq sends it": [parse(COPY_IN), bind(), execute(), SYNC, DATA, COPY_DONE, SYNC],
        "Syncs and Flushes between the data": [query(COPY_IN), FLUSH, SYNC, DATA, SYNC, FLUSH, DATA, SYNC, COPY_DONE],
        "a Sync before CopyFail": [query(COPY_IN), SYNC, DATA, SYNC, FAIL],
        "CopyFail by the extended protocol": [parse(COPY_IN), bind(), execute(), DATA, FAIL, query("select 'skipped'"), SYNC],
        "CopyFail, its Sync swallowed": [parse(COPY_IN), bind(), execute(), SYNC, FAIL, SYNC],
        "bad data, then the rest": [query(COPY_IN), message("d", b"not a number\n"), DATA, COPY_DONE, SYNC, DATA],
        "bad data by the extended protocol": [parse(COPY_IN), bind(), execute(), message("d", b"not a number\n"), COPY_DONE, SYNC],
        "two copies in one group": [parse(COPY_IN), bind(), execute(), DATA, COPY_DONE, bind(), execute(), SYNC, DATA, FLUSH, COPY_DONE, SYNC],
        "two copies in one query, the second fails": [query(COPY_IN + ";" + COPY_IN), SYNC, DATA, COPY_DONE, SYNC, FAIL],
        "copy ends before it begins": [COPY_DONE, FAIL, DATA, query(COPY_IN), DATA, COPY_DONE, COPY_DONE, FAIL],
        "copy out with Syncs behind it": [parse(COPY_OUT), bind(), execute(), SYNC, SYNC, query(COPY_OUT), DATA, COPY_DONE],
        "out, in and out in one query": [query("%s; %s; %s" % (COPY_OUT, COPY_IN, COPY_OUT)), SYNC, DATA, SYNC, COPY_DONE],
        "data behind a group without a Sync": [parse("select 1"), DATA, bind(), COPY_DONE, execute(), FAIL, SYNC],
        "data behind a held-back answer": [parse("select 1"), bind(), execute(), DATA, query("select 2"), SYNC],
        "a copy that may not begin": [query("copy no_such_table from stdin"), DATA, COPY_DONE],
        "a copy behind an error of its group": [parse(NONSENSE), parse(COPY_IN), bind(), execute(), DATA, COPY_DONE, SYNC],
        "a copy in a transaction that failed": [query("begin"), query(NONSENSE), query(COPY_IN), DATA, COPY_DONE, query("rollback")],
        "one byte at a time, the last one missing": [query(COPY_IN), message("d", b"4"), message("d", b"2"), message("d"), SYNC, COPY_DONE],
    }

    def test_answers_are_the_servers_and_nothing_is_hidden_behind_them(self):
        for name, parts in self.ENDS.items():
            with self.subTest(name):
                straight = up_to_the_end(self.direct(), *parts)
                w = self.session()
                w.sock.settimeout(20)
                self.assertEqual(shape(up_to_the_end(w, *parts)), shape(straight))
                # were one answer counted wrongly, the name would be learnt from the Parse that fails
                self.said(w, parse(NONSENSE, "x"), SYNC)
                self.said(w, parse(self.attack, "x"), SYNC)
                self.said(w, parse(NONSENSE, "y"), SYNC)
                self.said(w, bind(statement="x"), execute(), SYNC)
                self.repelled()
        self.assertEqual(len(self.was_held), len(self.ENDS), "each time somebody was asked")

    def test_without_a_trick_the_last_bind_changes_the_table(self):
        """Otherwise the above would prove nothing."""
        w = self.direct()
        w.ask(parse(self.attack, "x"), SYNC)
        w.ask(bind(statement="x"), execute(), SYNC)
        self.assertEqual(self.changed(), 10)


class Counts(BypassCase):
    def test_a_bind_whose_counts_lie_ends_the_session(self):
        def body(formats, params, values, results):
            return message("B", b"\0\0" + struct.pack("!H", formats) + struct.pack("!H", params) + values + struct.pack("!H", results))
        value = struct.pack("!i", 1) + b"x"
        for bad in (body(0, 2, value, 0), body(0, 0, value, 0), body(2, 1, value, 0), body(0, 1, value, 3), body(65535, 1, value, 0),
                    body(0, 65535, value, 0), body(0, 1, struct.pack("!i", -2) + b"x", 0), body(0, 1, struct.pack("!i", 0x7fffffff) + b"x", 0),
                    body(0, 1, struct.pack("!i", 2) + b"x", 0), message("B", b"\0\0"), message("B", b"\0"), message("B")):
            w = self.session()
            w.sock.settimeout(20)
            got = self.said(w, parse("update %s set note = 'changed' where $1 = 'x'" % self.t), bad, execute(), SYNC)
            self.assertIsNone(got, bad)
            self.assertTrue(w.closed())
            self.repelled()
        self.assertEqual(self.was_held, [], "nobody is asked about what is no Bind")

    def test_counts_that_the_statement_does_not_have_are_the_servers_error(self):
        sql = "select id from orders where id = $1"
        for wrong in (bind(["1", "2"]), bind([]), bind(["1"], formats=[0, 0]), bind(["1", "2"], formats=[0, 0, 1]), bind(["1"], results=[0, 0]),
                      bind(["1"], formats=[7]), bind(["1"], results=[7]), bind(["not a number"]), bind(["1"], formats=[1]), bind([None], results=[1])):
            parts = [parse(sql), wrong, describe(), execute(), SYNC, parse(sql), bind(["1"]), execute(), SYNC]
            self.assertEqual(shape(up_to_the_end(self.session(), *parts)), shape(up_to_the_end(self.direct(), *parts)), wrong)

    def test_an_approval_is_used_up_by_a_bind_that_fails(self):
        sql = "update %s set note = 'changed' where id = $1" % self.t
        w = self.session()
        for wrong in (bind(["1", "2"]), bind(["not a number"]), bind(["1"], formats=[1])):
            before = len(self.was_held)
            got = self.said(w, parse(sql), wrong, execute(), SYNC, held=self.gw.approve)
            self.assertEqual(kinds(got), "1EZ", wrong)
            self.assertEqual(len(self.was_held), before + 1)
            self.repelled()
            got = self.said(w, wrong, execute(), SYNC)
            self.assertEqual(kinds(got), "EZ")
            self.assertEqual(len(self.was_held), before + 2, "the same again is asked again")
            self.repelled()

    def test_a_format_changes_what_is_asked(self):
        """The same bytes, text or binary: two different values."""
        sql = "update %s set note = 'changed' where id = $1" % self.t
        w = self.session(**{"countersign.mode": "async"})
        self.assertEqual(error_of(w.ask(parse(sql, types=[23]), bind([b"1234"], formats=[0]), execute(), SYNC))["C"], "CS001")
        card = self.held(sql)
        self.gw.approve(card["id"])
        got = w.ask(parse(sql, types=[23]), bind([b"1234"], formats=[1]), execute(), SYNC)
        self.assertEqual(error_of(got)["C"], "CS001")
        self.assertNotIn(card["id"], error_of(got)["M"], "another question, another request")
        self.repelled()


class Portals(BypassCase):
    def setUp(self):
        super().setUp()
        self.longer = "update %s set note = note || '+' where id <= 3 returning id" % self.t

    def runs(self):
        return self.sql("select max(length(note)) - 3 from %s" % self.t)[0][0]

    def test_a_held_statement_with_a_row_limit_runs_once(self):
        w = self.session()
        w.ask(query("begin"))
        self.said(w, parse(self.longer), bind(portal="p"), execute("p", 1), SYNC, held=self.gw.approve)
        self.assertEqual(len(self.was_held), 1)
        tail = [kinds(self.said(w, execute("p", 1), SYNC)) for _ in range(3)]
        self.assertEqual(tail[:2], ["DsZ", "DsZ"])
        for _ in range(3):
            self.said(w, execute("p"), SYNC)
        self.said(w, query("commit"))
        self.assertLessEqual(self.runs(), 1)
        self.assertEqual(len(self.was_held), 1)

    def test_closed_behind_its_hold_it_does_not_run(self):
        w = self.session()
        got = self.said(w, parse(self.attack, "u"), bind(statement="u", portal="p"), close("S", "u"), close("P", "p"), parse("select 1", "u"),
                        execute("p"), SYNC, held=self.gw.approve)
        self.assertEqual(len(self.was_held), 1)
        self.assertEqual((kinds(got), error_of(got)["C"]), ("12331EZ", "34000"))
        self.repelled()
        self.assertEqual(kinds(self.said(w, bind(statement="u"), execute(), SYNC)), "2DCZ", "the name is the harmless one now")
        self.assertEqual(len(self.was_held), 1)

    def test_a_name_that_is_parsed_again_behind_its_hold(self):
        """What was approved is what was bound, not what the name means by then."""
        w = self.session()
        other = "update %s set note = 'small' where id = 1" % self.t
        got = self.said(w, parse(other, "u"), bind(statement="u"), close("S", "u"), parse(self.attack, "u"), execute(), bind(statement="u"), execute(), SYNC,
                        held=lambda request: self.gw.approve(request) if len(self.was_held) == 1 else self.gw.deny(request, "no"))
        self.assertEqual(len(self.was_held), 2)
        self.assertEqual(kinds(got), "1231CEZ")
        self.repelled()

    def test_fetch_runs_an_approved_portal_and_the_record_says_so(self):
        w = self.session()
        w.ask(query("begin"))
        self.said(w, parse(self.longer), bind(portal="p"), SYNC, held=self.gw.approve)
        self.said(w, query("fetch all from p"))
        self.said(w, execute("p"), SYNC)
        self.said(w, query("commit"))
        w.close()
        self.assertLessEqual(self.runs(), 1)
        shown = self.gw.json("show", self.was_held[0], who="bob")
        if self.runs():
            self.assertNotIn("never executed", str(shown))
            self.assertIn(shown["state"], ("done", "unknown", "executing"), shown)

    def test_a_cursor_and_a_portal_of_one_name(self):
        w = self.session()
        w.ask(query("begin"))
        w.ask(query("declare p cursor for select 1"))
        got = self.said(w, parse(self.attack), bind(portal="p"), execute("p"), SYNC)
        self.assertIn("E", kinds(got))
        self.said(w, query("rollback"))
        w.ask(query("begin"))
        w.ask(parse("select 1"), bind(portal="p"), SYNC)
        w.ask(query("close p"))
        self.said(w, query("declare p cursor for update %s set note = 'changed' returning id" % self.t))
        self.said(w, execute("p"), SYNC)
        self.said(w, query("commit"))
        self.repelled()

    def test_a_bind_that_fails_leaves_the_old_portal(self):
        w = self.session()
        w.ask(query("begin"))
        w.ask(query("savepoint s"))
        self.said(w, parse(self.attack), bind(portal="p"), SYNC)  # denied: no such portal
        self.said(w, query("rollback to s"))
        self.said(w, parse("select 1"), bind(portal="p"), SYNC)
        self.said(w, parse(self.attack), bind(portal="p"), SYNC)  # denied again: p is the read
        self.said(w, query("rollback to s"))
        self.said(w, execute("p"), SYNC)
        self.said(w, query("commit"))
        self.repelled()

    def test_the_nameless_statement_after_errors(self):
        w = self.session()
        self.said(w, parse(self.attack), SYNC)
        self.said(w, parse(NONSENSE, "n"), parse("select 1"), SYNC, bind(), execute(), SYNC, n=2)  # skipped: it still is the attack
        self.repelled()
        self.said(w, parse("select 1"), SYNC)
        self.said(w, parse(NONSENSE), SYNC, bind(), execute(), SYNC, n=2)  # a Parse that fails destroys it
        self.said(w, query(NONSENSE), bind(), execute(), SYNC, n=2)
        self.said(w, parse(self.attack), query("select 1"), bind(), execute(), SYNC, n=2)  # so does a simple query
        self.repelled()

    def test_unnamed_portals_end_with_a_simple_query(self):
        w = self.session()
        got = self.said(w, parse("select 1"), bind(), query("select 2"), execute(), SYNC, n=2)
        self.assertEqual(kinds(got), kinds(self.direct().ask(parse("select 1"), bind(), query("select 2"), execute(), SYNC, n=2)))
        self.said(w, parse(self.attack), bind(), query("select 2"), execute(), SYNC, n=2, held=self.gw.approve)
        self.repelled()


class Settings(BypassCase):
    """The session's settings are what was judged under, whoever changes them."""

    def test_settings_by_parameters_are_not_free(self):
        w = self.session()
        for name, value in (("client_encoding", "SJIS"), ("standard_conforming_strings", "off"), ("role", self.roles["owner"]),
                            ("session_authorization", self.roles["owner"]), ("search_path", "evil")):
            before = len(self.was_held)
            got = self.said(w, parse("select set_config($1, $2, false)"), bind([name, value]), execute(), SYNC)
            self.assertTrue(got is None or "E" in kinds(got), (name, got))
            self.assertGreater(len(self.was_held), before, name)
        got = w.ask(query("select current_setting('client_encoding') || current_setting('search_path') || current_user"))
        self.assertIn(("UTF8public" + self.roles["user"]).encode(), got[1][1])

    def test_an_approved_statement_that_changes_the_encoding_ends_the_session(self):
        """The approver saw no such thing in a function's body; whatever follows would be read with other eyes."""
        for name, value in (("client_encoding", "SJIS"), ("standard_conforming_strings", "off")):
            w = self.session()
            w.sock.settimeout(20)
            sql = "update %s set note = set_config('%s', '%s', false) where id = 1" % (self.t, name, value)
            self.said(w, query(sql), held=self.gw.approve)
            self.assertIsNone(self.said(w, query("select 1")), name)
        self.assertEqual(len(self.was_held), 2)

    def test_settings_of_the_role_and_the_database_do_not_reach_a_session(self):
        evil = fresh_name("evil")
        self.sql("create schema %s" % evil)
        for what in ("role %s in database %s" % (self.roles["user"], self.name), "database " + self.name):
            for setting in ("search_path = %s" % evil, "client_encoding = 'LATIN1'", "standard_conforming_strings = off"):
                self.sql("alter %s set %s" % (what, setting))
        try:
            got = self.session().ask(query(
                "select current_setting('client_encoding') || current_setting('search_path') || current_setting('standard_conforming_strings')"))
            self.assertIn(b"UTF8publicon", got[1][1])
        finally:
            for what in ("role %s in database %s" % (self.roles["user"], self.name), "database " + self.name):
                self.sql("alter %s reset all" % what)


class Sequences(WireCase):
    """Messages in random order, the same through the gateway and without it. Seeded: a failure repeats."""
    NAMES = ("", "a", "b")

    def message_of(self, r):
        name, portal = r.choice(self.NAMES), r.choice(self.NAMES)
        text = r.choice(["select 1", "select id from orders where id < 5", NONSENSE, "select 1/0", "", "selec", "insert into scratchpad values (-1)",
                         "savepoint s", "rollback to s", "begin", "commit", COPY_OUT, "deallocate a", "deallocate all", "prepare b as select 2"])
        return r.choice([
            lambda: [parse(text, name)], lambda: [parse(text, name), bind(statement=name, portal=portal)], lambda: [bind(statement=name, portal=portal)],
            lambda: [bind(statement=name, portal=portal), execute(portal, r.choice([0, 1, 2]))], lambda: [execute(portal, r.choice([0, 0, 1]))],
            lambda: [describe("S", name)], lambda: [describe("P", portal)], lambda: [close("S", name)], lambda: [close("P", portal)],
            lambda: [SYNC], lambda: [SYNC], lambda: [SYNC], lambda: [FLUSH], lambda: [query(text)], lambda: [query(text)],
            lambda: [query("select 1; " + (text if "insert" not in text else ""))], lambda: [query(COPY_IN), r.choice([SYNC, FLUSH, DATA]), DATA, r.choice([COPY_DONE, FAIL])],
            lambda: [parse(COPY_IN), bind(), execute(), r.choice([SYNC, FLUSH, DATA]), r.choice([COPY_DONE, FAIL]), SYNC],
            lambda: [r.choice([DATA, COPY_DONE, FAIL])],
        ])()

    def test_random_sequences_are_answered_as_by_the_server(self):
        compared = 0
        for seed in range(60):
            r = random.Random(seed)
            parts = [m for _ in range(30) for m in self.message_of(r)] + [SYNC, query("rollback")]
            with self.subTest(seed=seed):
                try:
                    straight = up_to_the_end(self.direct(), *parts)
                except ENDED:
                    straight = None  # a command where the server wants COPY data: it ends the session, and so do we
                w = self.session(**{"countersign.mode": "async"})  # what would be held is an error at once
                w.sock.settimeout(20)
                if straight is None:
                    with self.assertRaises(ENDED):
                        up_to_the_end(w, *parts)
                else:
                    self.assertEqual(shape(up_to_the_end(w, *parts)), shape(straight))
                    compared += 1
                w.close()
        self.assertGreater(compared, 40)


if __name__ == "__main__":
    unittest.main()
