"""What a server runs while it only prepares a statement: literals become values of their types, and with records,
arrays and ranges the checks of domains in them run. Nobody is asked at Parse, so nothing of that may reach the server
before the verdict. Each trick is first shown to work on the bare server."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peer"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from base import ENDED
from pgwire import SYNC, Wire, bind, describe, error_of, execute, kinds, parse, query
from test_catalogue_bypass import CatalogueCase

TYPES = """
create function public.bumpd(int) returns bool language plpgsql security definer as
  'begin insert into public.hits values (1); return true; end';
create domain public.dom as int check (public.bumpd(value));
create type public.pair as (a public.dom, b int);
create type public.spread as range (subtype = public.dom);
create table plain (id int, note text); insert into plain values (1, 'row');
create table typed_t (id int, c public.pair, a public.dom[]); insert into typed_t (id) values (1);
create table domains_t (x public.dom, b int);
create function public.pairs() returns public.pair language sql as 'select row(1, 2)::public.pair';
create function public.lower(varchar) returns public.pair language sql as 'select row(1, 2)::public.pair';
create function public.plain_f(text) returns text language plpgsql as 'begin return $1; end';
"""
# What is prepared, and nothing more.
TRICKS = ("select '(5,1)'::public.pair", "select '{5}'::public.dom[]", "select public._dom '{5}'", "select '[1,5)'::public.spread",
          "select '(5,1)'::public.domains_t", "select coalesce(c, '(5,1)') from typed_t", "select * from typed_t where a = '{5}'",
          "update typed_t set c = '(5,1)' where id = 1", "insert into typed_t values (2, '(5,1)')", "delete from typed_t where coalesce(c, $$(5,1)$$) is null",
          "select coalesce(public.pairs(), '(5,1)')", "select coalesce(lower('A'::varchar), E'(5,1)')", "explain select '(5,1)'::public.pair",
          "declare c cursor for select '(5,1)'::public.pair", "create table more as select '(5,1)'::public.pair", "select $1 = $x$(5,1)$x$::public.pair",
          "select U&'(5,1)'::public.pair")


class ParseBypass(CatalogueCase):
    SETUP = TYPES

    def session(self, **more):
        w = Wire(self.gw.port, self.gw.ca).login("bot", self.gw.tokens["bot"], self.name, **more)
        self.addCleanup(w.close)
        return w

    def direct(self):
        w = Wire(self.pg.port, self.pg.root).login(self.roles["user"], self.roles["password"], self.name)
        self.addCleanup(w.close)
        return w

    def ask(self, w, *parts, n=1):
        try:
            return w.ask(*parts, n=n)
        except ENDED:
            return []

    def test_the_tricks_work_on_the_bare_server(self):
        w = self.direct()
        for text in TRICKS:
            with self.subTest(text):
                before = self.hits()
                w.ask(parse(text), SYNC)
                self.assertGreater(self.hits(), before)

    def refused(self, *parts, n=1, text="", w=None):
        w = w or self.session(options="-c countersign.mode=async")
        before = self.hits()
        got = self.ask(w, *parts, n=n)
        self.assertEqual(self.hits(), before, "it ran: " + text)
        return w, got

    def test_parse_alone(self):
        w = self.session(options="-c countersign.mode=async")
        for text in TRICKS:
            with self.subTest(text):
                _, got = self.refused(parse(text), SYNC, text=text, w=w)
                self.assertEqual(kinds(got), "1Z")

    def test_parse_and_describe(self):
        """Whoever wants to know what it gives, without running it, is told to use parameters."""
        w = self.session(options="-c countersign.mode=async")
        for text in TRICKS:
            with self.subTest(text):
                _, got = self.refused(parse(text), describe("S"), SYNC, text=text, w=w)
                self.assertEqual(error_of(got)["C"], "42501")
                self.assertIn("parameter", error_of(got)["H"])

    def test_describe_later(self):
        w, _ = self.refused(parse(TRICKS[0], "s"), SYNC)
        before = self.hits()
        self.assertEqual(error_of(w.ask(describe("S", "s"), SYNC))["C"], "42501")
        self.assertEqual(error_of(w.ask(parse(TRICKS[0]), describe("S"), SYNC))["C"], "42501")
        self.assertEqual(self.hits(), before)

    def test_bind_is_held_before_anything_was_prepared(self):
        w = self.session(options="-c countersign.mode=async")
        for text in TRICKS:
            if "$1" not in text:
                with self.subTest(text):
                    _, got = self.refused(parse(text), bind(), execute(), SYNC, text=text, w=w)
                    self.assertEqual(error_of(got)["C"], "CS001")

    def test_nor_by_names(self):
        """EXECUTE and PREPARE, FETCH of a portal, a simple query in the middle of a group."""
        w, _ = self.refused(parse(TRICKS[0], "s"), SYNC)
        before = self.hits()
        for parts, n in (((query("execute s"),), 1), ((query("prepare s2 as " + TRICKS[0]),), 1), ((parse(TRICKS[0], "s3"), query("select 1"), SYNC), 2),
                         ((parse(TRICKS[0]), bind(portal="p"), SYNC, query("fetch p")), 2)):
            self.ask(w, *parts, n=n)
            self.assertEqual(self.hits(), before, parts)

    def test_approved_it_is_prepared_and_run(self):
        """One approval for Parse, Bind and Execute, whether they come together or one after another, named or not."""
        for name, apart in (("", False), ("", True), ("s", False), ("s", True)):
            with self.subTest((name, apart)):
                w = self.session()
                text = "update typed_t set c = '(5,%d)' where id = 1" % (len(name) * 2 + apart)
                if apart:
                    self.assertEqual(kinds(w.ask(parse(text, name), SYNC)), "1Z")
                before = self.hits()
                w.send(*([] if apart else [parse(text, name)]), bind(statement=name), execute(), SYNC)
                request = self.held(text)
                self.assertEqual(self.hits(), before)
                self.gw.approve(request["id"])
                got = w.until_ready()
                self.assertIsNone(error_of(got))
                self.assertEqual(kinds(got).replace("N", ""), ("" if apart else "1") + "2CZ")
                self.assertGreater(self.hits(), before)
                self.assertEqual(self.sql("select c::text from typed_t where id = 1")[0][0], "(5,%d)" % (len(name) * 2 + apart))
                # and from then on it is a prepared statement like any other
                if name:
                    w.send(bind(statement=name), execute(), SYNC)
                    self.gw.approve(self.held(text)["id"])
                    self.assertIsNone(error_of(w.until_ready()))

    def test_an_error_of_the_server_comes_after_the_approval(self):
        w = self.session()
        text = "select '(5,1)'::public.pair from nowhere_at_all"
        w.send(parse(text), bind(), execute(), SYNC)
        request = self.held(text)
        self.gw.approve(request["id"])
        self.assertEqual(error_of(w.until_ready())["C"], "42P01")
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")

    def test_in_a_failed_transaction_nobody_is_asked_at_parse(self):
        w = self.session()
        w.ask(query("begin"))
        w.ask(query("select 1/0"))
        self.assertEqual(error_of(w.ask(parse(TRICKS[0]), bind(), execute(), SYNC))["C"], "25P02")

    def test_what_has_no_literal_is_prepared_and_described_as_ever(self):
        w = self.session()
        for text in ("select public.plain_f($1)", "update typed_t set c = $1 where id = $2", "select public.pairs()"):
            got = w.ask(parse(text, "s"), describe("S", "s"), SYNC)
            self.assertIsNone(error_of(got), text)
            w.ask(query("deallocate s"))

    def test_what_is_not_analysed_at_parse_is_not_kept_back(self):
        w = self.session(options="-c countersign.mode=async")
        for text in ("do $$ begin perform 1; end $$", "create function public.late() returns int language sql as 'select 1'", "create view v as select '(5,1)'::public.pair"):
            before = self.hits()
            self.assertEqual(kinds(w.ask(parse(text, "s"), describe("S", "s"), SYNC)), "1tnZ", text)
            self.assertEqual(self.hits(), before)
            w.ask(query("deallocate s"))

    def test_a_statement_that_was_harmless_when_it_was_prepared(self):
        """Describe analyses again what was defined anew meanwhile."""
        self.define("create function public.later_ok(int) returns bool language sql immutable as 'select $1 > 0';"
                    "create domain public.later as int check (public.later_ok(value)); create type public.later_pair as (a public.later);"
                    "create table later_t (c public.later_pair);")
        w = self.session(options="-c countersign.mode=async")
        text = "select coalesce(c, '(5)') from later_t"
        self.assertEqual(kinds(w.ask(parse(text, "s"), describe("S", "s"), SYNC)), "1tTZ")
        self.define("create or replace function public.later_ok(int) returns bool language plpgsql security definer as 'begin return public.bumpd($1); end'")
        before = self.hits()
        d = self.direct()
        d.ask(parse(text, "s"), SYNC)
        self.assertGreater(self.hits(), before)
        before = self.hits()
        self.assertEqual(error_of(w.ask(describe("S", "s"), SYNC))["C"], "42501")
        self.assertEqual(error_of(w.ask(bind(statement="s"), execute(), SYNC))["C"], "CS001")
        self.assertEqual(self.hits(), before)


class NothingDangerous(CatalogueCase):
    """Where no type of the database runs anything that is not known, literals are no reason to keep back."""
    SETUP = """
    create domain public.positive as int check (value > 0);
    create table plain (id int, p public.positive, note text);
    create function public.plain_f(text) returns text language plpgsql as 'begin return $1; end';
    """

    def test_it_is_prepared_and_described_as_ever(self):
        w = Wire(self.gw.port, self.gw.ca).login("bot", self.gw.tokens["bot"], self.name, options="-c countersign.mode=async")
        self.addCleanup(w.close)
        for text, shape in (("select public.plain_f('x')", "1tTZ"), ("update plain set note = 'x' where p = '5'", "1tnZ"), ("select '5'::public.positive", "1tTZ")):
            self.assertEqual(kinds(w.ask(parse(text), describe("S"), SYNC)), shape, text)
        self.assertEqual(error_of(w.ask(parse("select public.plain_f('x')"), bind(), execute(), SYNC))["C"], "CS001")


if __name__ == "__main__":
    unittest.main()
