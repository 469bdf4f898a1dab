"""Definitions that change behind a held statement: who signed it has not signed what stands behind its names now."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peer"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness
from base import fresh_name
from pgwire import SYNC, bind, error_of, execute, kinds, parse, query
from test_catalogue_bypass import CatalogueCase as _CatalogueCase


class Drift(_CatalogueCase):
    def setUp(self):
        self.t = fresh_name("drift")
        self.define("create table %s (id int, note text); insert into %s values (1, 'row'); create table %s_other (id int)" % ((self.t,) * 3))
        self.sql_text = "update %s set note = 'changed'" % self.t

    def held_by(self, *parts, **more):
        w = self.wire(**more)
        w.sock.settimeout(harness.PATIENCE)
        self.addCleanup(w.close)
        w.send(*parts)
        return w, self.held(self.t)["id"]

    def plant(self):
        """A trigger that writes elsewhere, with its owner's rights."""
        self.define("create function f_%s() returns trigger language plpgsql security definer as 'begin insert into public.hits values (1); return new; end'; "
                    "create trigger tr before update on %s for each row execute function f_%s()" % ((self.t,) * 3))

    def void(self, w, request):
        before = self.hits()
        self.gw.approve(request)
        got = w.until_ready()
        e = error_of(got)
        self.assertEqual(e["C"], "CS003", e)
        self.assertIn("changed while it waited", e["D"])
        self.assertEqual(self.hits(), before)
        self.assertEqual(self.sql("select note from " + self.t)[0][0], "row")
        self.assertEqual(self.gw.wait_state(request, "void")["state"], "void")
        w.send(query("select 1"))
        self.assertEqual(kinds(w.until_ready()), "TDCZ", "the session goes on")

    def test_a_trigger_that_appears_voids_a_simple_query(self):
        w, request = self.held_by(query(self.sql_text))
        self.plant()
        self.void(w, request)

    def test_a_trigger_that_appears_voids_a_bind(self):
        """Of a statement that was prepared before: what is parsed in the same group keeps its tables locked at the server."""
        w = self.wire()
        w.sock.settimeout(harness.PATIENCE)
        self.addCleanup(w.close)
        w.ask(parse(self.sql_text, "one"), SYNC)
        w.send(bind(statement="one"), execute(), SYNC)
        request = self.held(self.t)["id"]
        self.plant()
        self.void(w, request)

    def test_a_trigger_that_appears_voids_an_execute(self):
        w = self.wire()
        w.sock.settimeout(harness.PATIENCE)
        self.addCleanup(w.close)
        w.ask(query("prepare one as " + self.sql_text))
        w.send(query("execute one"))
        request = harness.wait_until("the request", lambda: next((r["id"] for r in self.gw.pending() if r["text"] == "execute one"), None))
        self.plant()
        self.void(w, request)

    def test_an_execute_of_what_was_prepared_before_is_judged_by_what_is_defined_now(self):
        """Reading a view is free, until its definition calls what writes."""
        self.define("create view v_%s as select 1 as b" % self.t)
        w = self.wire(options="-c countersign.mode=async")
        self.addCleanup(w.close)
        self.assertEqual(kinds(w.ask(query("prepare two as select b from v_%s" % self.t))), "CZ")
        self.assertEqual(kinds(w.ask(query("execute two"))), "TDCZ")
        self.define("create or replace view v_%s as select public.bump() as b" % self.t)
        before = self.hits()
        answer = error_of(w.ask(query("execute two")))
        self.assertEqual(self.hits(), before, "it ran")
        self.assertEqual(answer["C"], "CS001")

    def test_the_card_says_what_was_known(self):
        _, request = self.held_by(query(self.sql_text))
        self.assertIn("definitions=write,all named\n", self.gw.json("show", request, who="bob")["settings"])
        self.gw.deny(request, "seen")

    def test_a_repeat_after_the_change_is_another_question(self):
        """Approved while nobody waited: what has changed since is not covered."""
        first, request = self.held_by(query(self.sql_text), options="-c countersign.mode=async")
        first.until_ready()
        self.gw.approve(request)
        self.plant()
        before = self.hits()
        first.send(query(self.sql_text))
        self.assertEqual(error_of(first.until_ready())["C"], "CS001")
        self.assertEqual(self.hits(), before)
        new = next(r for r in self.gw.pending() if self.t in r["text"])
        self.assertNotEqual(new["id"], request)
        self.assertIn("opaque", str(self.gw.json("show", new["id"], who="bob")["facts"]["sql.effects"]))

    # ---- what nobody can look into ----

    FUNCTION = "create or replace function f_%s() returns int language plpgsql %s as 'begin %s return 1; end'"

    def call(self, sql=None, **more):
        """A call of a function that was looked at by whoever signs it, and is held."""
        self.define(self.FUNCTION % (self.t, "", ""))
        return self.held_by(query(sql or "select f_%s()" % self.t), **more)

    def other_body(self):
        self.define(self.FUNCTION % (self.t, "security definer", "insert into public.hits values (1);"))

    def test_another_body_of_a_function_voids_its_call(self):
        w, request = self.call()
        self.other_body()
        self.void(w, request)

    def test_another_body_voids_a_call_by_bind(self):
        self.define(self.FUNCTION % (self.t, "", ""))
        w, request = self.held_by(parse("select f_%s()" % self.t), bind(), execute(), SYNC)
        self.other_body()
        self.void(w, request)

    def test_another_body_of_what_it_calls_voids_it_too(self):
        self.define(self.FUNCTION % (self.t, "", ""))
        self.define("create function g_%s() returns int language plpgsql as 'begin return public.f_%s(); end'" % (self.t, self.t))
        w, request = self.held_by(query("select g_%s()" % self.t))
        self.other_body()
        self.void(w, request)

    def test_a_block_is_void_when_anything_is_defined_otherwise(self):
        w, request = self.call("do $$ begin perform f_%s(); end $$" % self.t)
        self.other_body()
        self.void(w, request)

    def test_another_body_of_a_trigger_that_was_there_voids_the_update(self):
        self.plant()
        w, request = self.held_by(query(self.sql_text))
        self.define("create or replace function f_%s() returns trigger language plpgsql as 'begin insert into public.hits values (2); return new; end'" % self.t)
        self.void(w, request)

    def test_settings_and_owner_of_a_function_void_its_call(self):
        for change in ("alter function f_%s() security definer", "alter function f_%s() set search_path = public",
                       "alter function f_%s() owner to " + self.roles["owner"]):
            with self.subTest(change):
                w, request = self.call()
                self.define(change % self.t)
                self.void(w, request)

    def test_a_view_made_otherwise_voids_what_may_read_it(self):
        self.define("create view v_%s as select 1 as b" % self.t)
        w, request = self.call()
        self.define("create or replace view v_%s as select public.bump() as b" % self.t)
        self.void(w, request)

    def test_an_async_approval_is_for_the_body_of_then(self):
        first, request = self.call(options="-c countersign.mode=async")
        first.until_ready()
        self.gw.approve(request)
        self.other_body()
        before = self.hits()
        first.send(query("select f_%s()" % self.t))
        self.assertEqual(error_of(first.until_ready())["C"], "CS001")
        self.assertEqual(self.hits(), before)

    def test_tables_rows_and_temporary_things_void_no_call(self):
        w, request = self.call()
        self.pg.sql("create table more_%s (id int primary key, note text default 'x'); insert into more_%s values (1); analyze more_%s"
                    % ((self.t,) * 3), self.name)
        own = self.pg.connect(self.name)
        self.addCleanup(own.close)
        own.cursor().execute("create temp view mine as select 1; create function pg_temp.mine() returns int language sql as 'select 1'; commit")
        self.wait_for_another_look()
        self.gw.approve(request)
        self.assertEqual(kinds(w.until_ready()), "TDCZ")

    def wait_for_another_look(self):
        """A catalogue that knows something that is defined now, and is no code: a column of a type of a user's."""
        name = fresh_name("seen")
        self.pg.sql("create type e_%s as enum ('a'); create table %s (a e_%s); grant select on %s to %s" % (name, name, name, name, self.roles["user"]), self.name)
        harness.wait_until("a newer catalogue", lambda: self.outcome("select 'a'::e_%s" % name) == "ran", max(harness.PATIENCE, 60))

    def test_what_changes_elsewhere_voids_nothing(self):
        w, request = self.held_by(query(self.sql_text))
        self.define("create function g_%s() returns trigger language plpgsql security definer as 'begin insert into public.hits values (1); return new; end'; "
                    "create trigger tr before update on %s_other for each row execute function g_%s()" % ((self.t,) * 3))
        self.gw.approve(request)
        self.assertEqual(kinds(w.until_ready()), "CZ")
        self.assertEqual(self.sql("select note from " + self.t)[0][0], "changed")


if __name__ == "__main__":
    unittest.main()
