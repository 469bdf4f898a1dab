"""What a database can have defined so that a text that looks harmless is not: each trap is its definitions, and
texts that may spring it. Harmful code calls nextval('hits'), which no rollback takes back.

A line of `texts` is a statement; `E:` before it says that it is an expression and `R:` that it is a relation, which
generate.py puts into all sorts of statements. Texts need not be harmful, and need not even be right: the server
says what happens. They must never be left out because the gateway is known to hold them."""

BASE = """
create sequence public.hits; create sequence public.seq;
create table public.canary (k int primary key, v text);
insert into public.canary values (1, 'a'), (2, 'b'), (3, 'c');
create table public.plain (id int primary key, name varchar(20), price numeric, d date, j jsonb, a int[], t text);
insert into public.plain select i, 'n' || i, i * 1.5, date '2020-01-01' + i, '{"a":1}', array[i, i + 1], 't' from generate_series(1, 5) i;
create function public.bump() returns int language plpgsql security definer as 'begin perform nextval(''public.hits''); return 1; end';
create function public.lie(int) returns int language plpgsql immutable as 'begin perform nextval(''public.hits''); return $1; end';
create function public.liet(text) returns text language plpgsql immutable as 'begin perform nextval(''public.hits''); return $1; end';
create function public.lieb(int) returns bool language plpgsql immutable as 'begin perform nextval(''public.hits''); return true; end';
"""


class Trap:
    def __init__(self, name, ddl, texts):
        self.name, self.ddl = name, ddl
        self.texts = [t.strip() for t in texts.strip().split("\n") if t.strip()]


TRAPS = [
    Trap("functions", """
create function public.twice(int) returns int language sql stable as 'select $1 * 2';
create function public.seen(int) returns bigint language sql stable as 'select count(*) from public.plain where id = $1';
create function public.hidden(int) returns int language sql stable as 'select public.bump()';
create function public.over(int) returns int language sql stable as 'select public.twice($1)';
create function public.over(text) returns int language plpgsql as 'begin return public.bump(); end';
create function public.rows() returns setof public.plain language sql stable as 'select * from public.plain where public.lie(1) = 1';
""", """
E:public.bump()
E:bump()
E:lie(1)
E:twice(2)
E:seen(2)
E:hidden(2)
E:over(1)
E:over('x')
E:twice(bump())
R:bump()
R:rows()
R:rows from (twice(1), bump())
"""),
    Trap("views", """
create view public.v_bump as select public.bump() as b;
create view public.v_over as select b from public.v_bump;
create view public.v_lie as select id, name from public.plain where public.lie(id) > 0;
create view public.v_plain as select id, name, t from public.plain;
create view public.v_cte as with x as (select public.bump() as b) select b from x;
create view public.v_set as select 1 as b union all select public.bump();
create materialized view public.m_bump as select public.bump() as b;
create view public."V Odd" as select public.bump() as b;
create view public.ünïcode as select public.bump() as b;
""", """
R:v_bump
R:public.v_over
R:v_lie
R:v_plain
R:v_cte
R:v_set
R:m_bump
R:"V Odd"
R:public."V Odd"
R:ünïcode
lock table v_bump in access share mode
"""),
    Trap("long-names", """
create view public.éééééééééééééééééééééééééééééééééééééééé as select public.bump() as b;
create view public.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa as select public.bump() as b;
create view public.aéééééééééééééééééééééééééééééééééééééé as select public.bump() as b;
""", """
R:éééééééééééééééééééééééééééééééééééééééé
R:"éééééééééééééééééééééééééééééééééééééééé"
R:ééééééééééééééééééééééééééééééé
R:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
R:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
R:aéééééééééééééééééééééééééééééééééééééé
R:aééééééééééééééééééééééééééééééé
R:U&"\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9\\00E9"
"""),
    # In a database with encoding LATIN1, where these names are not longer than 63 bytes.
    Trap("latin-names", """
create view public.éééééééééééééééééééééééééééééééééééééééé as select public.bump() as b;
create view public.ééééééééééééééééééééééééééééééé as select 1 as b;
create table public.long (a int);
create function public.üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü(public.long) returns int language plpgsql as 'begin return public.bump(); end';
insert into public.long values (1);
""", """
R:éééééééééééééééééééééééééééééééééééééééé
R:"éééééééééééééééééééééééééééééééééééééééé"
R:public.éééééééééééééééééééééééééééééééééééééééé
R:ééééééééééééééééééééééééééééééé
select l.üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü from long l
select (l).üüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüüü from long l
"""),
    Trap("clashes", """
create function public.upper(varchar) returns text language plpgsql as 'begin perform public.bump(); return $1; end';
create function public.abs(numeric, int default 1) returns numeric language plpgsql as 'begin perform public.bump(); return $1; end';
create function public.pg_advisory_unlock(int) returns bool language plpgsql as 'begin perform public.bump(); return true; end';
create function public.set_config(text, varchar, bool) returns text language plpgsql as 'begin perform public.bump(); return $1; end';
""", """
E:upper(name)
E:upper('a'::varchar)
E:upper(t)
E:abs(price)
E:abs(-1.5)
select pg_advisory_unlock(1)
select set_config('application_name', 'x', false)
"""),
    Trap("aggregates", """
create function public.agg_step(text, varchar) returns text language plpgsql immutable as 'begin perform public.bump(); return $2; end';
create aggregate public.max(varchar) (sfunc = public.agg_step, stype = text);
create function public.agg_n(bigint, varchar) returns bigint language plpgsql immutable as 'begin perform public.bump(); return $1 + 1; end';
create aggregate public.count(varchar) (sfunc = public.agg_n, stype = bigint, initcond = '0');
create function public.agg_final(bigint) returns bigint language plpgsql immutable as 'begin perform public.bump(); return $1; end';
create aggregate public.sum(varchar) (sfunc = pg_catalog.int8inc_any, stype = bigint, finalfunc = public.agg_final, initcond = '0');
""", """
E:max(name)
E:max('a'::varchar)
E:count(name)
E:sum(name)
E:max(name) over ()
E:count(name) filter (where true)
E:max(t)
"""),
    Trap("types-as-functions", """
create domain public.lower as text check (public.liet(value) = value);
create domain public.length as int check (public.lieb(value));
create domain public.positive as int check (value > 0);
create domain public.bumped as int check (public.bump() = 1);
create type public.pair as (a public.bumped, b int);
create type public.md5 as (a public.bumped);
""", """
E:lower('x')
E:length('5')
E:length(5)
E:length(id)
E:positive('5')
E:positive(5)
E:bumped(5)
E:pair('(1,2)')
E:md5('(1)')
E:'5'::bumped
E:bumped '5'
E:cast('5' as public.bumped)
E:'5'::public.bumped
E:'{5}'::bumped[]
E:'{5}'::_bumped
E:'(5,1)'::pair
E:null::pair
E:row(5, 1)::pair
R:jsonb_to_record('{"a":5}') as x(a bumped)
R:json_to_recordset('[{"a":5}]') as x(a public.bumped)
E:xmlserialize(content 'x' as lower)
E:'5'::positive
prepare q(bumped) as select $1
prepare q2 as select $1::bumped
"""),
    Trap("column-types", """
create domain public.cd as int check (public.bump() = 1);
create domain public.ct as text check (public.liet(value) = value);
create type public.comp as (a public.cd, b int);
create type public.cr as range (subtype = public.cd);
create table public.typed (id int, x public.cd, arr public.cd[], c public.comp, e public.ct);
create table public.plaincomp (id int, c public.comp);
create table public.arrays (id int, arr public.cd[]);
create table public.ranges (id int, r public.cr);
create table public.domained (id int, x public.cd);
create materialized view public.mcomp as select id, c from public.plaincomp;
create view public.vcomp as select id, c from public.plaincomp;
""", """
select * from plaincomp where c = '(5,1)'
select * from plaincomp where c <> '(5,1)'
select '(5,1)' = c from plaincomp
select * from plaincomp where c in ('(5,1)')
select coalesce(c, '(5,1)') from plaincomp
select nullif(c, '(5,1)') from plaincomp
select c from plaincomp union all select '(5,1)'
select greatest(c, '(5,1)') from plaincomp
select case when id = 1 then c else '(5,1)' end from plaincomp
select * from plaincomp p where p = '(5,"(5,1)")'
select * from mcomp where c = '(5,1)'
select * from vcomp where c = '(5,1)'
select * from arrays where arr = '{5}'
select arr || '5' from arrays
select array_append(arr, '5') from arrays
select array_append(arr, 5) from arrays
select array_position(arr, '5') from arrays
select * from arrays where '5' = any(arr)
select * from arrays where arr @> '{5}'
select * from ranges where r @> '5'
select * from ranges where r && '[1,5)'
select * from ranges where r = '[1,5)'
select * from domained where x = '5'
select coalesce(x, '5') from domained
select * from domained d where d = '(1,5)'
select nullif(d, '(1,5)') from domained d
select lag(x, 1, '5') over () from domained
select x from domained union select '5'
select * from typed where e = 'x'
select lag(e, 1, 'x') over () from typed
select array_agg(x) || '5' from domained
select array_append(array_agg(x), '5') from domained
select array_position(array_agg(x), '5') from domained
select (array_agg(d) || '(1,5)') from domained d
select array_replace(arr, '5', '6') from arrays
select array_fill(x, '{2}') from domained
select width_bucket('5', array_agg(x)) from domained
select percentile_disc(0.5) within group (order by x) from domained
select row(x) = row('5') from domained
select mode() within group (order by x) from domained
"""),
    Trap("dotted", """
create table public.plaind (id int);
insert into public.plaind values (1);
create function public.peek(public.plaind) returns int language plpgsql as 'begin return public.bump(); end';
create function public.anyone(anyelement) returns int language plpgsql as 'begin return public.bump(); end';
create function public.rec(record) returns int language plpgsql as 'begin return public.bump(); end';
create domain public.dcomp as public.plaind check (public.bump() = 1);
create function public.taketext(text) returns int language plpgsql as 'begin return public.bump(); end';
""", """
select p.peek from plaind p
select (p).peek from plaind p
select (p.*).peek from plaind p
select plaind.anyone from plaind
select (row(1, 2)).rec
select p.dcomp from plaind p
select (p).dcomp from plaind p
select dcomp(p) from plaind p
select p.taketext from plaind p
select * from plaind p where p.peek = 1
select p from plaind p order by p.peek
select x.peek from (select p from plaind p) x(p)
select (x.p).peek from (select p from plaind p) x
"""),
    Trap("inout-cast", """
create table public.plaini (id int);
insert into public.plaini values (1);
create cast (public.plaini as text) with inout as implicit;
create function public.showt(text) returns int language plpgsql as 'begin return public.bump(); end';
""", """
select p.showt from plaini p
select (p).showt from plaini p
"""),
    Trap("row-cast", """
create table public.plainj (id int);
insert into public.plainj values (1);
create cast (public.plainj as json) with function pg_catalog.row_to_json(record) as implicit;
create function public.showj(json) returns int language plpgsql as 'begin return public.bump(); end';
create function public.pairs() returns public.plainj language plpgsql as 'begin return row(1); end';
""", """
select p.showj from plainj p
select (p).showj from plainj p
E:showj(p)
"""),
    Trap("statistics", """
create table public.stat (a int, b int);
insert into public.stat select i, i from generate_series(1, 100) i;
create statistics public.st on (public.lie(1) + a), b from public.stat;
analyze public.stat;
""", """
R:stat
R:public.stat
select * from stat where a = 1 and b = 1
select a from stat group by a, b
"""),
    Trap("partition-keys", """
create table public.parted (a int, b int) partition by range ((public.lie(1) + a));
create table public.parted_1 partition of public.parted for values from (0) to (10);
create table public.parted_2 partition of public.parted for values from (10) to (20) partition by list ((public.lie(2) * b));
create table public.parted_2_1 partition of public.parted_2 default;
create table public.hashed (a int) partition by hash (a);
create table public.hashed_0 partition of public.hashed for values with (modulus 1, remainder 0);
""", """
R:parted
R:only parted
R:parted_1
R:parted_2
R:parted_2_1
R:hashed
select * from parted where a = 1
select satisfies_hash_partition('hashed'::regclass, 1, 0, 1)
select pg_get_partkeydef('parted'::regclass)
select pg_get_partition_constraintdef('parted_1'::regclass)
select * from pg_partition_tree('parted')
select pg_get_expr(relpartbound, oid) from pg_class where relname = 'parted_1'
"""),
    Trap("checks-and-indexes", """
create table public.checked (a int, constraint c check (public.lie(1) + a > 0));
create table public.indexed (a int, b int);
insert into public.indexed select i, i from generate_series(1, 100) i;
create index on public.indexed ((public.lie(1) + a));
create index on public.indexed (b) where public.lieb(1);
create table public.generated (a int, g int generated always as (public.lie(1) + a) stored);
create table public.defaulted (a int default public.bump(), b int);
create table public.excluded (a int, exclude using btree (a with =) where (public.lieb(2)));
""", """
R:checked
R:indexed
R:generated
R:defaulted
R:excluded
select * from checked where a > 5
select * from indexed where lie(1) + a = 3
select b from indexed where b = 1
"""),
    Trap("policies", """
create table public.guarded (a int); insert into public.guarded values (1);
alter table public.guarded enable row level security; alter table public.guarded force row level security;
create policy p on public.guarded using (public.bump() = 1);
create role {db}_reader;
create view public.v_guarded as select * from public.guarded;
alter view public.v_guarded owner to {db}_reader; grant select on public.guarded to {db}_reader;
create table public.family (a int); create table public.child () inherits (public.family);
alter table public.child enable row level security;
create policy p on public.child using (public.bump() = 1);
""", """
R:guarded
R:v_guarded
R:family
R:child
copy guarded to stdout
"""),
    Trap("rules-and-triggers", """
create table public.acted (a int);
create rule r as on insert to public.acted do also select public.bump();
create function public.tg() returns trigger language plpgsql as 'begin perform public.bump(); return new; end';
create trigger t before insert or update or delete on public.acted for each row execute function public.tg();
create view public.v_acted as select * from public.acted;
create trigger tv instead of insert on public.v_acted for each row execute function public.tg();
create constraint trigger ct after insert on public.canary deferrable initially deferred for each row execute function public.tg();
create function public.etg() returns event_trigger language plpgsql as 'begin perform public.bump(); end';
create event trigger {db}_et on ddl_command_start execute function public.etg();
""", """
R:acted
R:v_acted
set constraints all immediate
begin; set constraints all immediate; commit
with i as (insert into acted values (1) returning a) select a from i
insert into acted values (1)
create table more (a int)
insert into v_acted values (1)
"""),
    Trap("foreign", """
create extension file_fdw; create server files foreign data wrapper file_fdw;
create foreign table public.prog (t text) server files options (program 'touch {dir}/ran');
create table public.ffamily (t text); create foreign table public.fchild () inherits (public.ffamily) server files options (program 'touch {dir}/ran');
create view public.v_prog as select * from public.prog;
""", """
R:prog
R:ffamily
R:v_prog
R:only ffamily
analyze prog
"""),
    Trap("contrib", """
create extension dblink; create extension hstore; create extension citext; create extension pg_trgm; create extension tablefunc; create extension lo;
create extension intarray; create extension adminpack; create extension pgcrypto; create extension unaccent; create extension xml2;
create extension pg_prewarm; create extension pageinspect; create extension pg_buffercache; create extension sslinfo; create extension ltree; create extension cube;
create extension earthdistance; create extension btree_gist; create extension "uuid-ossp"; create extension autoinc; create extension pgrowlocks; create extension pgstattuple;
""", """
E:dblink('dbname={db}', 'select public.bump()')
E:crosstab('select public.bump()::text, 1::text, 1')
R:crosstab('select 1, 1, public.bump()') as x(a int, b int)
R:connectby('plain', 'id', 'id', '1', 0) as x(a int, b int, c int)
E:xpath_table('id', 't', 'plain', '/a', 'public.bump() = 1')
R:xpath_table('id', 't', 'plain', '/a', 'public.bump() = 1') as x(a int, b text)
E:set_limit(0.4)
E:pg_file_write('{dir}/x', 'y', false)
E:pg_prewarm('plain')
E:'a=>1'::hstore
E:'abc'::citext = 'ABC'
E:similarity('a', 'b')
E:max('a'::citext)
E:gen_salt('bf')
E:uuid_generate_v4()
E:unaccent('é')
E:sort(a)
E:lo_manage()
E:lo_oid(5)
E:pg_logdir_ls()
E:'top.sub'::ltree
E:earth_distance(ll_to_earth(1, 1), ll_to_earth(2, 2))
E:get_raw_page('plain', 0)
R:pgrowlocks('plain')
R:pgstattuple('plain')
"""),
    Trap("operators", """
create function public.opv(varchar, varchar) returns bool language plpgsql as 'begin perform public.bump(); return true; end';
create operator public.= (leftarg = varchar, rightarg = varchar, function = public.opv);
""", """
select * from plain where name = name
select * from plain p join plain q using (name)
select case name when name then 1 end from plain
select * from plain where name in (select name from plain)
select nullif(name, name) from plain
select set_config('application_name', 'x', false)
show all
"""),
    Trap("hidden-operators", """
create schema other;
create function other.opv(varchar, varchar) returns bool language plpgsql as 'begin perform public.bump(); return true; end';
create operator other.= (leftarg = varchar, rightarg = varchar, function = other.opv);
create function other.lower(varchar) returns text language plpgsql as 'begin perform public.bump(); return $1; end';
create view other.plain as select public.bump() as id, 'x'::varchar as name;
create schema {qq}; create view {qq}.plain as select public.bump() as id;
""", """
select * from plain where name operator(other.=) name
select * from plain order by name using operator(other.=)
select * from plain where name = any (select name from plain)
select 'a'::varchar operator(other.=) any (array['a'::varchar])
select * from plain where name operator(other.=) all (select name from plain)
E:other.lower(name)
R:other.plain
set search_path = ''; select * from plain
set search_path = '""'; select * from plain
set search_path to {qq}; select * from plain
select set_config('search_path', '""', false); select * from plain
set search_path = other; select * from plain
set schema 'other'; select * from plain
set search_path = pg_catalog, other; select lower(name) from public.plain
"""),
    Trap("shy-types", """
create type public.u;
create function public.u_in(cstring) returns public.u language internal immutable strict as 'int4in';
create function public.u_out(public.u) returns cstring language internal immutable strict as 'int4out';
create type public.u (input = public.u_in, output = public.u_out, like = int4);
create cast (int as public.u) without function;
create table public.us (id int, x public.u, xs public.u[]);
insert into public.us select i, i::public.u, array[i::public.u] from generate_series(1, 30) i;
create function public.u_lt(public.u, public.u) returns bool language plpgsql as 'begin perform public.bump(); return $1::text < $2::text; end';
create function public.u_eq(public.u, public.u) returns bool language plpgsql as 'begin perform public.bump(); return $1::text = $2::text; end';
create function public.u_cmp(public.u, public.u) returns int language plpgsql as 'begin perform public.bump(); return case when $1::text < $2::text then -1 when $1::text = $2::text then 0 else 1 end; end';
create function public.u_hash(public.u) returns int language plpgsql as 'begin perform public.bump(); return 1; end';
create operator public.< (leftarg = public.u, rightarg = public.u, function = public.u_lt);
create operator public.<= (leftarg = public.u, rightarg = public.u, function = public.u_lt);
create operator public.= (leftarg = public.u, rightarg = public.u, function = public.u_eq, hashes, merges);
create operator public.>= (leftarg = public.u, rightarg = public.u, function = public.u_lt);
create operator public.> (leftarg = public.u, rightarg = public.u, function = public.u_lt);
create operator class public.u_ops default for type public.u using btree as operator 1 <, operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 public.u_cmp(public.u, public.u);
create operator class public.u_hash_ops default for type public.u using hash as operator 1 =, function 1 public.u_hash(public.u);
create function public.u_big(public.u) returns bigint language plpgsql as 'begin return public.bump(); end';
create cast (public.u as bigint) with function public.u_big(public.u) as implicit;
create function public.numeric_u(numeric) returns public.u language plpgsql as 'begin perform public.bump(); return ''1''::public.u; end';
create cast (numeric as public.u) with function public.numeric_u(numeric) as assignment;
create function public.u_json(public.u) returns json language plpgsql as 'begin perform public.bump(); return ''1''; end';
create cast (public.u as json) with function public.u_json(public.u);
create view public.v_us as select id, x from public.us;
create view public.v_stats as select row_to_json(s) from pg_stats s;
create function public.some_us() returns setof public.us language sql stable as 'select * from public.us';
create function public.one_u() returns public.u language sql immutable as 'select null::public.u';
create type public.holds_u as (a int, b public.u);
create table public.held_us (id int, h public.holds_u);
insert into public.held_us select i, row(i, i::public.u)::public.holds_u from generate_series(1, 3) i;
analyze public.us;
""", """
R:us
R:v_us
R:held_us
R:some_us()
E:one_u()
E:1 = 2.5
E:id = 2.5
E:1.5
E:'5'::u
E:id::u
E:array['1'::u]
select * from us order by x
select distinct x from us
select x from us group by x
select x from us union select x from us
select * from us where x in (select x from us)
select a.id from us a join us b using (x)
select xs = xs from us
select max(xs) from us
select xs from us order by xs
select case x when x then 1 end from us
select abs(x) from us
select x + 1 from us
select x::bigint from us
select h = h from held_us
select (h).b = (h).b from held_us
select us = us from us
select distinct us from us
select most_common_vals from pg_stats where tablename = 'us'
select most_common_vals = most_common_vals from pg_stats where tablename = 'us'
select row_to_json(s) from pg_stats s where tablename = 'us'
select to_json(histogram_bounds) from pg_catalog.pg_stats where tablename = 'us'
select jsonb_agg(s) from pg_statistic s
R:v_stats
select max(histogram_bounds) from pg_stats where tablename = 'us'
select histogram_bounds from pg_stats where tablename = 'us' order by 1
select distinct stavalues1 from pg_statistic where starelid = 'us'::regclass
select s = s from pg_catalog.pg_statistic s where starelid = 'us'::regclass
select a = a from pg_attribute a where attrelid = 'us'::regclass
insert into us (x) values (2.5)
update us set x = 2.5 where id = 1
explain select * from us order by x
"""),
    Trap("shy-but-reached", """
create type public.w;
create function public.w_in(cstring) returns public.w language internal immutable strict as 'int4in';
create function public.w_out(public.w) returns cstring language internal immutable strict as 'int4out';
create type public.w (input = public.w_in, output = public.w_out, like = int4);
create function public.date_w(date) returns public.w language plpgsql as 'begin perform public.bump(); return ''1''::public.w; end';
create function public.inet_w(inet) returns public.w language plpgsql as 'begin perform public.bump(); return ''1''::public.w; end';
create cast (date as public.w) with function public.date_w(date) as implicit;
create cast (inet as public.w) with function public.inet_w(inet) as implicit;
create function public.w_eq(public.w, public.w) returns bool language internal immutable strict as 'int4eq';
create operator public.= (leftarg = public.w, rightarg = public.w, function = public.w_eq);
""", """
E:current_date = '1.2.3.4'::inet
E:date '2020-01-01' = inet '1.2.3.4'
E:date '2020-01-01' in (inet '1.2.3.4')
E:case date '2020-01-01' when inet '1.2.3.4' then 1 end
E:nullif(date '2020-01-01', inet '1.2.3.4')
"""),
    Trap("shy-among-literals", """
create type public.za as enum ('a', '5');
create function public.za_int(public.za, int) returns int language plpgsql as 'begin return public.bump(); end';
create operator public.<-> (leftarg = public.za, rightarg = int, function = public.za_int);
""", """
E:'5' <-> 3
E:'a' <-> id
select '5' <-> id from plain
E:'5' = '5'
"""),
    Trap("shy-of-another-kind", """
create type public.zk as enum ('a', '5');
create function public.zk_zk(public.zk, public.zk) returns int language plpgsql as 'begin return public.bump(); end';
create operator public.!! (leftarg = public.zk, rightarg = public.zk, function = public.zk_zk);
""", """
E:'5' !! 'a'
E:'a' !! null
E:!! 'a'
"""),
    Trap("shy-literals", """
create type public.zl as enum ('a', '5');
create function public.zl_zl(public.zl, public.zl) returns bool language plpgsql as 'begin return public.bump() = 1; end';
create function public.zl_1(public.zl) returns bool language plpgsql as 'begin return public.bump() = 1; end';
create operator public.@? (leftarg = public.zl, rightarg = public.zl, function = public.zl_zl);
create operator public.= (leftarg = public.zl, rightarg = public.zl, function = public.zl_zl);
create operator public.|| (leftarg = public.zl, rightarg = public.zl, function = public.zl_zl);
create operator public.-|- (leftarg = public.zl, rightarg = public.zl, function = public.zl_zl);
create operator public.@@@ (leftarg = public.zl, rightarg = public.zl, function = public.zl_zl);
create operator public.<< (leftarg = public.zl, rightarg = public.zl, function = public.zl_zl);
create operator public.~ (leftarg = public.zl, rightarg = public.zl, function = public.zl_zl);
create operator public.~ (rightarg = public.zl, function = public.zl_1);
create table public.zls (z public.zl); insert into public.zls values ('a');
""", """
E:'a' @? '5'
E:'a' = '5'
E:'a' = null
E:null = null
E:'a' || '5'
E:'a' -|- '5'
E:'a' @@@ '5'
E:'a' << '5'
E:'a' ~ '5'
E:~ 'a'
E:'a' in ('5')
E:nullif('a', '5')
E:case 'a' when '5' then 1 end
E:'a' = any ('{a}')
E:('a', '5') = ('5', 'a')
select z = 'a' from zls
select * from zls where z in ('a')
E:'a'::zl = '5'
"""),
    Trap("shy-by-name", """
create type public.y;
create function public.y_in(cstring) returns public.y language internal immutable strict as 'int4in';
create function public.y_out(public.y) returns cstring language internal immutable strict as 'int4out';
create type public.y (input = public.y_in, output = public.y_out, like = int4);
create function public.date_y(date) returns public.y language plpgsql as 'begin perform public.bump(); return ''1''::public.y; end';
create cast (date as public.y) with function public.date_y(date) as implicit;
create function public.sqrt(public.y) returns int language internal immutable strict as 'int4up';
""", """
E:sqrt(current_date)
E:sqrt(date '2020-01-01')
E:sqrt(4)
"""),
    Trap("casts", """
create type public.mood as enum ('good', 'bad');
create table public.moods (m public.mood); insert into public.moods values ('good');
create function public.mood_int(public.mood) returns int language plpgsql as 'begin return public.bump(); end';
create cast (public.mood as int) with function public.mood_int(public.mood) as implicit;
create function public.mood_json(public.mood) returns json language plpgsql as 'begin perform public.bump(); return ''1''; end';
create cast (public.mood as json) with function public.mood_json(public.mood);
""", """
select abs(m) from moods
select to_json(m) from moods
select row_to_json(x) from moods x
select m::int from moods
select m + 1 from moods
select sum(m) from moods
"""),
    Trap("in-pg-catalog", """
create function pg_catalog.helper(text) returns int language sql stable as 'select 1';
create function public.helper(varchar) returns int language plpgsql as 'begin return public.bump(); end';
create function pg_catalog.lower(int) returns text language sql stable as 'select ''1''';
create function public.lower(varchar) returns text language plpgsql as 'begin perform public.bump(); return $1; end';
""", """
E:helper(name)
E:lower(name)
E:helper(t)
"""),
    Trap("internal-aliases", """
create function public.lower(regclass) returns bigint language internal as 'nextval_oid';
create function public.length(bigint) returns bool language internal as 'pg_try_advisory_lock_int8';
create function public.note(text, text) returns void language internal as 'pg_notify';
""", """
select lower('public.hits'::regclass)
select length(77::bigint)
select note('a', 'b')
"""),
    Trap("encodings", "", """
select 'é\\'; select nextval('hits'); --'
select '\u00a5'; select 1
"""),
]
