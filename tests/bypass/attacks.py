"""Attacks on the classification, by row of sql-rows.txt: each does something that only reading does not do.
`prepare` runs as the superuser before; `attack` is what the client sends (a list: messages in order, each a
simple query; `extended` sends it as Parse/Bind/Execute too); `happened` is a query that says whether it
worked. All names are in the scratch database; `{dir}` is a folder that the server may write to."""


class Attack:
    def __init__(self, row, name, attack, happened, prepare="", extended=True, connection=None):
        self.row, self.name, self.prepare, self.happened = row, name, prepare, happened
        self.attack = [attack] if isinstance(attack, str) else attack
        self.extended = extended and len(self.attack) == 1
        self.connection = connection or {}


GONE = "select to_regclass('public.canary') is null"
FEWER = "select count(*) < 3 from canary"
MORE = "select count(*) > 3 from canary"
ROLE = "select exists (select 1 from pg_roles where rolname = 'intruder')"
ADDS = "insert into canary values (9, 'x')"
FUNCTION = "create or replace function public.sneaky() returns int language plpgsql as 'begin insert into public.canary values (9, ''f''); return 1; end'; "

ATTACKS = [
    Attack("S01", "second statement", "select 1; drop table canary", GONE, extended=False),
    Attack("S01", "second statement behind a comment", "select 1 /* ; */; delete from canary --", FEWER, extended=False),
    Attack("S02", "nested comment", "/* /* select 1 */ */ delete from canary", FEWER),
    Attack("S02", "dollar quote hides nothing", "select $a$;$a$; delete from canary", FEWER, extended=False),
    Attack("S02", "escape string that ends earlier than it looks", "select E'\\\\'; delete from canary where v <> E'\\''", FEWER, extended=False),
    Attack("S02", "string continued on the next line", "select 'a'\n'b'; delete from canary", FEWER, extended=False),
    Attack("S02", "unicode escape", "select U&'!0041' uescape '!'; delete from canary", FEWER, extended=False),
    Attack("S03", "data-modifying CTE", "with d as (delete from canary returning *) select count(*) from d", FEWER),
    Attack("S03", "insert in a CTE", "with i as (insert into canary values (9, 'x') returning k) select k from i", MORE),
    Attack("S03", "merge", "merge into canary c using (select 1 as k) s on c.k = s.k when matched then delete", FEWER),
    Attack("S03", "insert on conflict", "insert into canary values (1, 'x') on conflict (k) do update set v = 'changed'",
           "select v = 'changed' from canary where k = 1"),
    Attack("S03", "select into", "select * into stolen from canary", "select to_regclass('public.stolen') is not null"),
    Attack("S03", "create table as", "create table stolen as select * from canary", "select to_regclass('public.stolen') is not null"),
    Attack("S04", "explain analyze", "explain analyze delete from canary", FEWER),
    Attack("S04", "explain with options", "explain (costs off, analyze) delete from canary", FEWER),
    Attack("S04", "explain analyze on", "EXPLAIN (ANALYZE on, TIMING off) delete from canary", FEWER),
    Attack("S04", "explain analyze 1", "explain (analyze 1) delete from canary", FEWER),
    Attack("S04", "explain analyze of execute", ["prepare p as delete from canary", "explain analyze execute p"], FEWER),
    Attack("S05", "prepare and execute", ["prepare p as delete from canary", "execute p"], FEWER),
    Attack("S05", "prepare and execute in one message", "prepare p as delete from canary; execute p", FEWER, extended=False),
    Attack("S05", "name reused", ["prepare p as select 1", "deallocate p", "prepare p as delete from canary", "execute p"], FEWER),
    Attack("S05", "create table as execute", ["prepare p as select 1", "create table stolen as execute p"],
           "select to_regclass('public.stolen') is not null"),
    Attack("S06", "do block", "do $$ begin delete from canary; end $$", FEWER),
    Attack("S06", "do block builds its text", "do $$ begin execute 'del' || 'ete from canary'; end $$", FEWER),
    Attack("S06", "call", "call wipe()", FEWER, prepare="create or replace procedure wipe() language sql as 'delete from canary'"),
    Attack("S06", "create function and use it", ["create function f() returns int language sql as 'delete from canary returning 1'", "select f()"], FEWER),
    Attack("S06", "rule", ["create rule r as on update to canary do instead delete from canary", "update canary set v = v"], FEWER),
    Attack("S06", "trigger function", ["create trigger t after insert on canary execute function wipe_trigger()", ADDS], "select count(*) = 0 from canary",
           prepare="create or replace function wipe_trigger() returns trigger language plpgsql as 'begin delete from canary; return null; end'"),
    Attack("S07", "user function", "select sneaky()", MORE, prepare=FUNCTION),
    Attack("S07", "user function with its schema", "select public.sneaky()", MORE, prepare=FUNCTION),
    Attack("S07", "user function in from", "select * from sneaky()", MORE, prepare=FUNCTION),
    Attack("S07", "user function in a default of VALUES", "values (sneaky())", MORE, prepare=FUNCTION),
    Attack("S07", "user function in limit", "select 1 limit sneaky()", MORE, prepare=FUNCTION),
    Attack("S07", "user function by a quoted name", 'select "public"."sneaky"()', MORE, prepare=FUNCTION),
    Attack("S07", "user function in a window", "select count(*) over (order by sneaky())", MORE, prepare=FUNCTION),
    Attack("S07", "user function in grouping", "select 1 group by sneaky()", MORE, prepare=FUNCTION),
    Attack("S07", "user function in show of explain", "explain analyze select sneaky()", MORE, prepare=FUNCTION),
    Attack("S07", "operator of a schema", "select 1 operator(public.#!#) 2", MORE,
           prepare=FUNCTION + "create or replace function two(int, int) returns int language plpgsql as 'begin return sneaky(); end'; "
           "drop operator if exists public.#!# (int, int); create operator public.#!# (leftarg = int, rightarg = int, function = two)"),
    Attack("S08", "query_to_xml runs text", "select query_to_xml('select public.sneaky()', true, true, '')", MORE, prepare=FUNCTION),
    Attack("S08", "setval", "select setval('seq', 1000)", "select last_value = 1000 from seq", prepare="drop sequence if exists seq; create sequence seq"),
    Attack("S08", "nextval", "select nextval('seq')", "select is_called from seq", prepare="drop sequence if exists seq; create sequence seq"),
    Attack("S08", "large object", "select lo_from_bytea(777, 'x')", "select exists (select 1 from pg_largeobject_metadata where oid = 777)",
           prepare="select lo_unlink(oid) from pg_largeobject_metadata where oid = 777"),
    Attack("S08", "file read", "insert into canary select 9, pg_read_file('PG_VERSION')", MORE),
    Attack("S08", "advisory lock stays", "select pg_advisory_lock(4711)", "select exists (select 1 from pg_locks where locktype = 'advisory' and objid = 4711)"),
    Attack("S08", "notification slips out", "select pg_notify('canary', 'x') from (select sneaky()) s", MORE, prepare=FUNCTION),
    Attack("S09", "function shadowed by search_path", ["set search_path = evil, pg_catalog", "select lower('X')"], MORE,
           prepare=FUNCTION + "create schema if not exists evil; create or replace function evil.lower(text) returns text language plpgsql as "
           "'begin perform public.sneaky(); return $1; end'"),
    Attack("S09", "search_path by set_config", ["select set_config('search_path', 'evil,pg_catalog', false)", "select lower('X')"], MORE,
           prepare=FUNCTION + "create schema if not exists evil; create or replace function evil.lower(text) returns text language plpgsql as "
           "'begin perform public.sneaky(); return $1; end'"),
    Attack("S11", "copy to program", "copy canary to program 'cat > {dir}/copied'", "select exists (select 1 from pg_ls_dir('{dir}') d where d = 'copied')"),
    Attack("S11", "copy to file", "copy canary to '{dir}/copied'", "select exists (select 1 from pg_ls_dir('{dir}') d where d = 'copied')"),
    Attack("S11", "copy a deleting query", "copy (delete from canary returning *) to stdout", FEWER),
    Attack("S11", "copy from program", "copy canary from program 'echo 9 > /dev/null; printf \"9\\tx\\n\"'", MORE),
    Attack("S12", "alter system", "alter system set work_mem = '9MB'", "select exists (select 1 from pg_file_settings where name = 'work_mem')",
           prepare="alter system reset work_mem", extended=True),
    Attack("S12", "alter role set", "alter role boss set search_path = evil", "select exists (select 1 from pg_db_role_setting s join pg_roles r on r.oid = s.setrole where rolname = 'boss')",
           prepare="alter role boss reset all"),
    Attack("S12", "alter database set", "alter database {db} set search_path = evil",
           "select exists (select 1 from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase where datname = '{db}')", prepare="alter database {db} reset all"),
    Attack("S13", "begin read write", ["begin read write", "delete from canary", "commit"], FEWER),
    Attack("S13", "set transaction", ["begin read only", "rollback", "start transaction read write", "delete from canary", "commit"], FEWER),
    Attack("S14", "truncate", "truncate canary", "select count(*) = 0 from canary"),
    Attack("S14", "grant", "grant all on canary to public", "select has_table_privilege('pg_monitor', 'canary', 'delete')"),
    Attack("S14", "create role", "create role intruder", ROLE, prepare="drop role if exists intruder"),
    Attack("S14", "comment", "comment on table canary is 'x'", "select obj_description('canary'::regclass) = 'x'"),
    Attack("S14", "lock table", ["begin", "lock table canary in access exclusive mode"],
           "select exists (select 1 from pg_locks where relation = 'canary'::regclass and mode = 'AccessExclusiveLock')"),
    Attack("S14", "select for update", ["begin", "select * from canary for update"],
           "select exists (select 1 from pg_locks where relation = 'canary'::regclass and mode = 'RowShareLock')"),
    Attack("S14", "create extension", "create extension pgcrypto", "select exists (select 1 from pg_extension where extname = 'pgcrypto')",
           prepare="drop extension if exists pgcrypto"),
    Attack("S14", "vacuum", "vacuum (freeze) canary", "select relfrozenxid <> '0'::xid and reltuples >= 0 from pg_class where oid = 'canary'::regclass"),
    Attack("S15", "standard_conforming_strings off", ["set standard_conforming_strings = off", "select '\\'' ; delete from canary; --'"], FEWER),
    Attack("S17", "deep parentheses", "select " + "(" * 3000 + "1" + ")" * 3000 + "; delete from canary", FEWER, extended=False),
    Attack("S17", "long comment in front", "/*" + "x" * 70000 + "*/ delete from canary", FEWER),
    Attack("S17", "text over the inline limit", "delete from canary where v <> '" + "y" * 66000 + "'", FEWER),
    Attack("S21", "temporary function", ["create function pg_temp.f() returns int language sql as 'delete from canary returning 1'", "select pg_temp.f()"], FEWER),
    Attack("S21", "temporary table in front of the real one", ["create temp table canary2 as select 1", "insert into canary select 9, 'x'"], MORE),
]
