"""Texts that look harmless and are not, because of what the database has defined: each is first shown to
do its harm on the bare server, with the everyday role's rights, and then has to be held by the gateway."""
import os
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peer"))

import harness
from base import GatewayCase
from pgwire import SYNC, Wire, bind, error_of, execute, kinds, parse, query

RULES = """
rules:
  - name: read
    who:    { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: scratch
    who:    { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read", "write"]) && sql.writes.all(w, w in ["scratch", "parent", "typed"])
    then: allow
  - name: rest
    who:    { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      !(sql.effects.all(e, e in ["session", "read"]) ||
        (sql.effects.all(e, e in ["session", "read", "write"]) && sql.writes.all(w, w in ["scratch", "parent", "typed"])))
    then: hold
    approvers: { groups: [dba], quorum: 1, within: 15m, valid: 10m, attach: 10m }
"""

# One harmful function: it writes although its caller may only read.
BUMP = """
create table hits (n int);
create function public.bump() returns int language plpgsql security definer as
  'begin insert into public.hits values (1); return 1; end';
"""


class CatalogueCase(GatewayCase):
    RULES = RULES
    SETUP = ""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        try:
            cls.define(BUMP + cls.SETUP)
        except Exception:
            cls.tearDownClass()
            raise

    @classmethod
    def define(cls, sql):
        """As the superuser, straight at the server, and seen by the gates after that."""
        cls.pg.sql("set search_path = public; " + sql, cls.name)
        cls.pg.sql('grant usage on schema public to "%s"; grant select, insert, update, delete on all tables in schema public to "%s"; '
                   'revoke insert, update, delete on hits from "%s"' % ((cls.roles["user"],) * 3), cls.name)
        cls.pg.sql("create or replace view public.canary_%d as select public.bump() as b" % time.monotonic_ns(), cls.name)
        cls.refresh()

    @classmethod
    def refresh(cls):
        """Until the gates have a catalogue that was asked for after now: its newest canary is known to be harmful."""
        name = cls.pg.sql("select max(relname) from pg_class where relname like 'canary_%'", cls.name)[0][0]
        harness.wait_until("a catalogue that knows " + name, lambda: cls.outcome("select b from %s limit 0" % name) == "held")

    @classmethod
    def outcome(cls, sql):
        w = Wire(cls.gw.port, cls.gw.ca).login("bot", cls.gw.tokens["bot"], cls.name, options="-c countersign.mode=async")
        try:
            answers = w.ask(query(sql))
            e = error_of(answers)
            return "ran" if e is None else "held" if e["C"] == "CS001" else e["C"]
        finally:
            w.close()

    def hits(self):
        return self.sql("select count(*) from public.hits")[0][0]

    def bare(self, sql):
        """As the everyday role, straight at the server."""
        c = self.pg.connect(self.name, self.roles["user"], self.roles["password"])
        c.autocommit = True
        try:
            with c.cursor() as cur:
                cur.execute(sql)
        finally:
            c.close()

    def attack(self, sql):
        before = self.hits()
        self.bare(sql)
        self.assertGreater(self.hits(), before, "on the bare server this does nothing: no attack")
        before = self.hits()
        self.assertEqual(self.outcome(sql), "held", sql)
        self.assertEqual(self.hits(), before)

    def harmless(self, sql):
        self.assertEqual(self.outcome(sql), "ran", sql)


class Widened(CatalogueCase):
    SETUP = """
    create table plain (id int, name varchar(20));
    insert into plain values (1, 'One');
    create view over_bump as select bump() as b;
    create view over_view as select b from over_bump;
    create view over_plain as select lower(name) as l from plain;
    create view over_builtin as select pg_try_advisory_lock(1), bump() as b;

    create function public.upper(varchar) returns text language plpgsql security definer as
      'begin insert into public.hits values (1); return $1; end';
    create function public.peek(plain) returns int language plpgsql security definer as
      'begin insert into public.hits values (1); return 1; end';

    create table guarded (id int); insert into guarded values (1);
    alter table guarded enable row level security;
    create policy p on guarded using (bump() = 1);
    create table parted (id int) partition by range (id);
    create table parted_1 partition of parted for values from (0) to (10);
    create table family (id int); create table child () inherits (family); insert into child values (1);

    create table scratch (id int primary key, note text default 'x');
    create function t() returns trigger language plpgsql security definer as 'begin insert into public.hits values (1); return new; end';
    create trigger tr after insert on scratch for each row execute function t();
    create table parent (id int primary key); insert into parent select generate_series(1, 100);
    create table dependant (id int references parent on delete cascade); insert into dependant select generate_series(1, 100);
    create table typed (id int default bump());
    """

    def test_a_view_over_a_function_that_writes(self):
        self.attack("select * from over_bump")

    def test_a_view_over_such_a_view(self):
        self.attack("select b from public.over_view")
        self.attack("with x as (select * from over_view) select count(b) from x")

    def test_a_function_with_a_built_in_one_s_name(self):
        self.attack("select upper(name) from plain")
        self.harmless("select lower(name) from plain")

    def test_a_function_written_as_a_column(self):
        self.attack("select p.peek from plain p")
        self.attack("select (p).peek from plain p")
        self.harmless("select p.name from plain p")

    def test_a_policy_that_calls_a_function(self):
        self.attack("select * from guarded")

    def test_a_trigger_behind_a_permitted_write(self):
        self.attack("insert into scratch select coalesce(max(id), 0) + 1 from scratch")

    def test_a_default_that_calls_a_function(self):
        self.attack("insert into typed default values")

    def test_a_cascade_behind_a_permitted_write(self):
        self.bare("delete from parent where id = 1")
        self.assertEqual(self.sql("select count(*) from public.dependant where id = 1")[0][0], 0)
        self.assertEqual(self.outcome("delete from parent where id = 2"), "held")
        self.assertEqual(self.sql("select count(*) from public.dependant where id = 2")[0][0], 1)

    def test_what_is_as_harmless_as_it_looks_runs(self):
        for sql in ("select * from plain", "select * from over_plain", "select * from parted", "select * from family",
                    "select relname from pg_class limit 1", "select * from information_schema.tables limit 1"):
            self.harmless(sql)

    def test_prepared_at_protocol_and_sql_level(self):
        w = Wire(self.gw.port, self.gw.ca).login("bot", self.gw.tokens["bot"], self.name, options="-c countersign.mode=async")
        before = self.hits()
        self.assertEqual(error_of(w.ask(query("prepare q as select * from over_bump")))["C"], "CS001")
        w.close()
        self.assertEqual(self.hits(), before)

    def test_a_killed_probe_takes_no_catalogue_with_it(self):
        import signal
        os.kill(self.gw.pids("probe")[0], signal.SIGKILL)
        self.assertEqual(self.outcome("select * from over_bump"), "held")


class Foreign(CatalogueCase):
    def test_a_foreign_table_runs_a_program(self):
        flag = os.path.join(self.pg.data, "ran-%d" % os.getpid())
        self.define("""create extension file_fdw; create server files foreign data wrapper file_fdw;
            create foreign table prog (t text) server files options (program 'touch %s');
            create table family (t text); create foreign table child () inherits (family) server files
              options (program 'touch %s');""" % (flag, flag))
        for sql in ("select * from prog", "select * from family"):
            self.bare(sql)
            self.assertTrue(os.path.exists(flag), sql)
            os.unlink(flag)
            self.assertEqual(self.outcome(sql), "held")
            self.assertFalse(os.path.exists(flag), sql)


class Operators(CatalogueCase):
    SETUP = """
    create table plain (id int, name varchar(20));
    insert into plain values (1, 'One');
    create function same(varchar, varchar) returns bool language plpgsql security definer as
      'begin insert into public.hits values (1); return true; end';
    create operator public.= (leftarg = varchar, rightarg = varchar, function = same);
    """

    def test_an_operator_behind_an_ordinary_one(self):
        self.attack("select * from plain p where p.name = p.name")

    def test_an_operator_that_no_token_shows(self):
        self.attack("select case name when name then 1 end from plain")


class Casts(CatalogueCase):
    SETUP = """
    create type mood as enum ('good', 'bad');
    create table plain (id int, m mood);
    insert into plain values (1, 'good');
    create function mood_int(mood) returns int language plpgsql security definer as
      'begin insert into public.hits values (1); return 1; end';
    create cast (mood as int) with function mood_int(mood) as implicit;
    """

    def test_a_cast_that_no_token_shows(self):
        self.attack("select abs(m) from plain")


class Hidden(CatalogueCase):
    """Found by comparing the classification with a server (tests/differential)."""
    SETUP = """
    create table plain (id int, name varchar(20), t text); insert into plain values (1, 'One', 'Two');
    create function public.lie(int) returns int language plpgsql immutable security definer as
      'begin perform public.bump(); return $1; end';
    create function step(text, varchar) returns text language plpgsql security definer as
      'begin insert into public.hits values (1); return $2; end';
    create aggregate public.max(varchar) (sfunc = step, stype = text);
    create domain public.length as text check (public.bump() = 1);
    create domain checked as int check (public.bump() = 1);
    create type calm as enum ('yes', 'no');
    create type pair as (a checked, b int);
    create table pairs (id int, p pair); insert into pairs values (1, null);
    create table stat (a int, b int); insert into stat values (1, 1);
    create statistics st on (public.lie(1) + a), b from stat;
    create statistics fine on a, b from plainstat;
    create domain drow as plain check (public.bump() = 1);
    """.replace("create statistics fine", "create table plainstat (a int, b int); create statistics fine")

    def test_an_aggregate_with_a_built_in_one_s_name(self):
        self.attack("select max(name) from plain")
        self.harmless("select min(t) from plain")

    def test_a_type_called_like_a_function(self):
        self.attack("select length('x')")
        self.attack("select p.drow from plain p")

    def test_a_literal_that_becomes_a_value_of_a_column_s_type(self):
        self.attack("select coalesce(p, '(5,1)') from pairs")

    def test_a_literal_in_a_prepared_statement(self):
        self.attack("prepare q as select '(5,1)'::pair")

    def test_a_parameter_whose_type_is_declared_by_number(self):
        kind = self.pg.sql("select 'public.checked'::regtype::oid::int, 'public.calm'::regtype::oid::int", self.name)[0]

        def ask(w, number, value):
            try:
                return error_of(w.ask(parse("select $1", types=[number]), bind([value]), execute(), SYNC))
            finally:
                w.close()

        def gate():
            return Wire(self.gw.port, self.gw.ca).login("bot", self.gw.tokens["bot"], self.name, options="-c countersign.mode=async")
        before = self.hits()
        self.assertIsNone(ask(Wire(self.pg.port).login(self.roles["user"], self.roles["password"], self.name), kind[0], "5"))
        self.assertGreater(self.hits(), before, "on the bare server this does nothing: no attack")
        before = self.hits()
        self.assertEqual(ask(gate(), kind[0], "5")["C"], "CS001")
        self.assertEqual(self.hits(), before)
        harness.wait_until("a type that is known to be harmless", lambda: ask(gate(), kind[1], "yes") is None)

    def test_executing_by_name_what_was_parsed_with_such_a_parameter(self):
        number = self.pg.sql("select 'public.checked'::regtype::oid::int", self.name)[0][0]
        w = Wire(self.gw.port, self.gw.ca).login("bot", self.gw.tokens["bot"], self.name, options="-c countersign.mode=async")
        self.assertIsNone(error_of(w.ask(parse("select $1", name="q", types=[number]), SYNC)))
        before = self.hits()
        self.assertEqual(error_of(w.ask(query("execute q('5')")))["C"], "CS001")
        self.assertEqual(self.hits(), before)
        w.close()

    def test_a_prepared_statement_is_what_its_names_lead_to_when_it_is_executed(self):
        self.define("create view turning as select 1 as b")
        w = Wire(self.gw.port, self.gw.ca).login("bot", self.gw.tokens["bot"], self.name, options="-c countersign.mode=async")
        self.assertIsNone(error_of(w.ask(query("prepare t as select b from public.turning"))))
        self.assertIsNone(error_of(w.ask(query("execute t"))))
        self.define("create or replace view turning as select public.bump() as b")
        before = self.hits()
        self.assertEqual(error_of(w.ask(query("execute t")))["C"], "CS001")
        self.assertEqual(error_of(w.ask(bind(statement="t"), execute(), SYNC))["C"], "CS001")
        self.assertEqual(self.hits(), before)
        w.close()

    def test_an_expression_of_statistics(self):
        self.attack("select * from stat where a = 1")
        self.harmless("select * from plainstat where a = 1 and b = 2")


class HiddenPartitions(CatalogueCase):
    SETUP = """
    create function public.lie(int) returns int language plpgsql immutable security definer as
      'begin perform public.bump(); return $1; end';
    create table parted (a int) partition by range ((public.lie(1) + a));
    create table parted_1 partition of parted for values from (0) to (10);
    """

    def test_a_key_that_whoever_asks_evaluates(self):
        self.attack("select * from parted")
        self.attack("select pg_get_partition_constraintdef('parted_1'::regclass)")


class HiddenCasts(CatalogueCase):
    SETUP = """
    create table plain (id int); insert into plain values (1);
    create cast (plain as text) with inout as implicit;
    create function show_it(text) returns int language plpgsql security definer as 'begin return public.bump(); end';
    """

    def test_a_column_that_is_a_function_of_the_row_s_text(self):
        self.attack("select p.show_it from plain p")


class Narrowed(CatalogueCase):
    SETUP = """
    create table plain (id int, price int); insert into plain values (1, 10);
    create type mood as enum ('good', 'bad');
    create domain positive as int check (value > 0);
    create domain bumped as int check (bump() = value);
    create function net(int) returns int language sql stable as 'select price from public.plain where id = $1';
    create function twice(int) returns int language sql immutable as 'select public.net($1) * 2';
    create function loud(int) returns int language sql volatile as 'select $1';
    create function definer(int) returns int language sql stable security definer as 'select $1';
    create function pl(int) returns int language plpgsql immutable as 'begin return $1; end';
    create function hidden(int) returns int language sql stable as 'select public.bump()';
    create view bumpview as select bump() as b;
    create function viaview(int) returns int language sql stable as 'select b from public.bumpview';
    create function defaulted(int default 1) returns int language sql stable as 'select $1';
    create function pathed(int) returns int language sql stable set search_path = pg_temp as 'select $1';
    create function pg_read_file(text) returns text language sql stable as 'select $1';
    create function two(int) returns int language sql stable as 'select $1';
    create function two(text) returns text language plpgsql as 'begin perform public.bump(); return $1; end';
    """

    def setUp(self):
        """After a change of definitions nothing is narrowed for a moment."""
        harness.wait_until("a fresh catalogue", lambda: self.outcome("select net(1)") == "ran")

    def test_functions_whose_body_only_reads(self):
        self.harmless("select net(1)")
        self.harmless("select public.twice(1)")
        self.harmless("select id from plain where price = net(id)")

    def test_types_without_code(self):
        self.harmless("select 'good'::mood")
        self.harmless("select cast(5 as public.positive)")

    def test_what_is_not_known_to_be_harmless_is_still_held(self):
        for sql in ("select loud(1)", "select definer(1)", "select pl(1)", "select hidden(1)", "select viaview(1)",
                    "select defaulted(1)", "select pathed(1)", "select pg_read_file('PG_VERSION')", "select two(1)",
                    "select 1::bumped", "select nosuch(1)", "select other.net(1)", "select 'net'::regproc; select bump()",
                    "select net(1), bump()", "insert into plain select net(1)", "select net(1); drop table plain"):
            self.assertEqual(self.outcome(sql), "held", sql)

    def test_a_definition_that_changes_is_not_trusted(self):
        self.define("create function later(int) returns int language sql stable as 'select $1'")
        harness.wait_until("later() to be known", lambda: self.outcome("select later(1)") == "ran")
        w = Wire(self.gw.port, self.gw.ca).login("bot", self.gw.tokens["bot"], self.name)
        self.sql('alter function public.later(int) owner to "%s"; grant create on schema public to "%s"' % ((self.roles["user"],) * 2))
        w.send(query("create or replace function later(int) returns int language sql stable as 'select public.bump()'"))
        request = self.held("create or replace function later")
        self.gw.approve(request["id"])
        w.until_ready()
        before = self.hits()
        self.assertEqual(self.outcome("select later(1)"), "held")
        self.refresh()
        self.assertEqual(self.outcome("select later(1)"), "held")
        self.assertEqual(self.hits(), before)
        w.close()

    def test_a_session_that_defined_something_narrows_nothing(self):
        w = Wire(self.gw.port, self.gw.ca).login("bot", self.gw.tokens["bot"], self.name)
        self.assertNotIn("E", kinds(w.ask(query("select net(1)"))))
        w.send(query("set search_path = other, public"))
        request = self.held("set search_path = other")
        self.gw.approve(request["id"])
        w.until_ready()
        w.send(query("select net(1)"))
        request = self.held("select net(1)")
        self.gw.deny(request["id"], "no")
        w.until_ready()
        w.close()


if __name__ == "__main__":
    unittest.main()
