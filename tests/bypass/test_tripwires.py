"""Settings under which a text is read, changed by whatever way: the server tells of it when it is next ready, and what
comes before that must not be read with the eyes of before. Each trick is first shown to work on the bare server."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peer"))

from base import ENDED, WireCase, fresh_name
from pgwire import SYNC, bind, error_of, execute, kinds, parse, query

RULES = """
rules:
  - name: anything
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read", "admin"])
    then: allow
  - name: rest
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, !(e in ["session", "read", "admin"])) && !(sql.text.startsWith("/* free */"))
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
  - name: free
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.text.startsWith("/* free */")
    then: allow
"""
WAYS = {
    "SET": "set standard_conforming_strings = off",
    "set_config": "select set_config('standard_conforming_strings', 'off', false)",
    "a function": "/* free */ select unsettle()",
    "a block": "/* free */ do $$ begin perform set_config('standard_conforming_strings', 'off', false); end $$",
}


class Tripwires(WireCase):
    RULES = RULES

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.pg.sql("create function public.unsettle() returns text language plpgsql as 'begin return set_config(''standard_conforming_strings'', ''off'', false); end'",
                   cls.name)

    def setUp(self):
        self.t = self.table()
        self.sql("create function public.smuggle_%s() returns int security definer language plpgsql as 'begin delete from public.%s; return 1; end'" % (self.t, self.t))
        # Two strings where a backslash is a character; a string and a call where it is not.
        self.smuggled = "select '\\' , ' , smuggle_%s() --'" % self.t

    def tearDown(self):
        for r in self.gw.pending():
            self.gw.deny(r["id"], "the test is over")

    def rows(self):
        return self.sql("select count(*) from " + self.t)[0][0]

    def attack(self, *parts, n=1):
        w = self.session(options="-c countersign.mode=async")
        try:
            got = w.ask(*parts, n=n)
        except ENDED:
            got = None
        self.assertEqual(self.rows(), 10, "it ran")
        return w, got

    def test_the_trick_works_on_the_bare_server(self):
        w = self.direct()
        w.ask(query(WAYS["SET"]), query(self.smuggled), n=2)
        self.assertEqual(self.rows(), 0)

    def test_without_the_setting_it_is_harmless(self):
        _, got = self.attack(query(self.smuggled))
        self.assertEqual(kinds(got), "TDCZ")

    def test_the_session_ends_when_it_is_told(self):
        for name, way in WAYS.items():
            w, got = self.attack(query(way))
            if got is not None:
                self.assertIn("E", kinds(got), name)
            with self.assertRaises(ENDED):
                w.ask(query("select 1"))

    def test_what_is_sent_behind_it_in_one_write_is_not_read_with_the_eyes_of_before(self):
        for name, way in WAYS.items():
            with self.subTest(name):
                self.attack(query(way), query(self.smuggled), n=2)

    def test_nor_in_one_group_of_the_extended_protocol(self):
        for name, way in WAYS.items():
            with self.subTest(name):
                self.attack(parse(way), bind(), execute(), parse(self.smuggled), bind(), execute(), SYNC)

    def test_nor_a_simple_query_behind_a_group_without_its_end(self):
        for name, way in WAYS.items():
            with self.subTest(name):
                self.attack(parse(way), bind(), execute(), query(self.smuggled), SYNC, n=2)

    def test_nor_a_statement_prepared_meanwhile_and_run_later(self):
        """Changed and changed back before the server says anything: what was parsed in between stays what it is."""
        back = "/* free */ select set_config('standard_conforming_strings', 'on', false)"
        for name, way in WAYS.items():
            with self.subTest(name):
                w, _ = self.attack(parse(way), bind(), execute(), parse(self.smuggled, "kept"),
                                   parse(back), bind(), execute(), SYNC)
                for run in ((bind(statement="kept"), execute(), SYNC), (query("execute kept"),)):
                    try:
                        w.ask(*run)
                    except ENDED:
                        pass
                    self.assertEqual(self.rows(), 10, run)

    def test_nor_one_that_a_simple_query_prepared_meanwhile(self):
        back = "/* free */ select set_config('standard_conforming_strings', 'on', false)"
        for name, way in WAYS.items():
            with self.subTest(name):
                w, _ = self.attack(parse(way), bind(), execute(), query("/* free */ prepare kept as " + self.smuggled), parse(back), bind(), execute(), SYNC, n=2)
                try:
                    w.ask(query("execute kept"))
                except ENDED:
                    pass
                self.assertEqual(self.rows(), 10)

    def test_nor_behind_one_that_was_approved(self):
        """The approver sees a harmless update; the agent has the rest ready in the same write."""
        w = self.session()
        w.send(query("update %s set note = 'x' where unsettle() <> ''" % self.t), query(self.smuggled))
        self.gw.approve(self.held("update " + self.t)["id"])
        try:
            w.until_ready(2)
        except ENDED:
            pass
        self.assertEqual(self.rows(), 10, "it ran")

    def test_settings_of_role_and_database_do_not_come_back_by_reset(self):
        evil = fresh_name("evil")
        self.sql("create schema %s" % evil)
        where = "role %s in database %s" % (self.roles["user"], self.name)
        for setting in ("search_path = %s" % evil, "client_encoding = 'LATIN1'", "standard_conforming_strings = off"):
            self.sql("alter %s set %s" % (where, setting))
        try:
            w = self.session()
            for reset in ("reset all", "discard all", "reset search_path", "reset client_encoding", "reset standard_conforming_strings",
                          "set search_path to default", "set client_encoding to default"):
                got = w.ask(query("/* free */ " + reset))
                self.assertIsNone(error_of(got), reset)
                got = w.ask(query("select current_setting('client_encoding') || current_setting('search_path') || current_setting('standard_conforming_strings')"))
                self.assertIn(b"UTF8publicon", got[1][1], reset)
        finally:
            self.sql("alter %s reset all" % where)

    def test_settings_of_the_server_do_not_reach_a_session_by_a_reload(self):
        w = self.session()
        self.pg.sql("alter system set standard_conforming_strings = off")
        try:
            self.pg.sql("select pg_reload_conf()")
            got = w.ask(query("select current_setting('standard_conforming_strings')"), query(self.smuggled), n=2)
            self.assertIn(b"on", got[1][1])
            self.assertEqual(self.rows(), 10)
            got = self.session().ask(query("select current_setting('standard_conforming_strings')"))
            self.assertIn(b"on", got[1][1])
        finally:
            self.pg.sql("alter system reset standard_conforming_strings")
            self.pg.sql("select pg_reload_conf()")

    def test_an_encoding_and_a_role_that_change_end_the_session(self):
        self.sql("create or replace function public.unsettle_more(n text, v text) returns text language sql as 'select set_config(n, v, false)'")
        for name, value in (("client_encoding", "SJIS"), ("client_encoding", "LATIN1")):
            w, _ = self.attack(query("/* free */ select unsettle_more('%s', '%s')" % (name, value)))
            with self.assertRaises(ENDED):
                w.ask(query("select 1"))


class Authorization(WireCase):
    """An everyday role that is a superuser may become anybody, which it never should be able to: each way ends the session."""
    RULES = RULES

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.other = cls.roles["owner"]
        cls.pg.sql("alter role %s superuser" % cls.roles["user"])
        cls.pg.sql("create function public.become(n text) returns text language plpgsql as 'begin return set_config(''session_authorization'', n, false); end';"
                 "create function public.become_too(n text) returns void language plpgsql as 'begin execute format(''set session authorization %I'', n); end'", cls.name)

    @classmethod
    def tearDownClass(cls):
        cls.pg.sql("alter role %s nosuperuser" % cls.roles["user"])
        super().tearDownClass()

    def ways(self):
        o = self.other
        return ["set session authorization %s" % o, "set session session authorization '%s'" % o, "set session_authorization = '%s'" % o,
                "select set_config('session_authorization', '%s', false)" % o, "/* free */ select become('%s')" % o, "/* free */ select become_too('%s')" % o,
                "/* free */ do $$ begin set session authorization %s; end $$" % o, "/* free */ do $$ begin perform become('%s'); end $$" % o]

    def test_the_ways_work_on_the_bare_server(self):
        for way in self.ways():
            w = self.direct()
            got = w.ask(query(way), query("select session_user"), n=2)
            self.assertIn(self.other.encode(), next(b for k, b in reversed(got) if k == "D"), way)
            w.close()

    def nobody_else(self, *parts, ends=True):
        """Nothing is answered as somebody else, and the session is over before it has all its answers, or is its own again."""
        w = self.session(options="-c countersign.mode=async")
        got = []
        try:
            w.send(*parts)
            while sum(1 for k, _ in got if k == "Z") < sum(1 for p in parts if p[:1] in (b"Q", b"S")):
                got.append(w.read())
            self.assertFalse(ends, "it goes on")
            got += w.ask(query(self.WHO))
        except ENDED:
            pass
        self.assertFalse([b for k, b in got if k == "D" and b.endswith(self.other.encode() + b"!")])
        w.close()

    WHO = "select session_user || '!'"

    def test_it_ends_the_session_and_nothing_is_run_behind_it(self):
        for way in self.ways():
            with self.subTest(way):
                self.nobody_else(query(way), query(self.WHO))

    def test_nor_in_the_extended_protocol(self):
        for way in self.ways():
            with self.subTest(way):
                self.nobody_else(parse(way), bind(), execute(), SYNC, parse(self.WHO), bind(), execute(), SYNC)
                self.nobody_else(parse(way, "w"), SYNC, bind(statement="w"), execute(), SYNC, query(self.WHO))

    def test_within_one_group(self):
        """Before its end the server tells nothing: what reads behind such a thing is not free, and with its refusal all of the group is undone."""
        for way in self.ways():
            with self.subTest(way):
                self.nobody_else(parse(way), bind(), execute(), parse(self.WHO), bind(), execute(), SYNC, ends=False)

    def test_in_a_transaction_and_in_one_message(self):
        o = self.other
        self.nobody_else(query("begin"), query("set local session authorization %s" % o), query(self.WHO))
        self.nobody_else(query("begin; set local session authorization %s; commit; set session authorization %s" % (o, o)), query(self.WHO))

    def test_not_by_the_start_nor_by_settings_of_role_and_database(self):
        for more in ({"session_authorization": self.other}, {"options": "-c session_authorization=" + self.other}):
            with self.assertRaises(Exception):
                self.session(**more)
        where = "alter role %s in database %s " % (self.roles["user"], self.name)
        for setting in ("session_authorization = '%s'" % self.other, "role = '%s'" % self.other):
            try:
                self.pg.sql(where + "set " + setting)
            except Exception:
                continue  # the server refuses that itself
            try:
                try:
                    w = self.session()
                    got = w.ask(query("select session_user || '/' || current_user || '!'"))
                except (ENDED, AssertionError):
                    continue
                row = next(b for k, b in got if k == "D")
                self.assertNotIn(self.other.encode(), row, setting)
            finally:
                self.pg.sql(where + "reset all")


if __name__ == "__main__":
    unittest.main()
