"""New texts from a seed: statements over the scratch schema, put together by their types so that most of them run,
and disguised lexically so that a lexer that differs from the server's by a hair sees others than the server.

Nothing here knows what the classifier will say. What would change something stands in PAYLOADS, said plainly, inside
a literal or comment, or behind one that may or may not end where it seems to."""

PAYLOADS = ["insert into canary values (9, 'x')", "delete from canary", "update canary set v = 'z'", "select nextval('seq')", "select setval('seq', 5)",
            "select public.bump()", "create table made (a int)", "create temp table made (a int)", "select lo_create(0)", "select pg_advisory_lock(5)", "notify canary",
            "select pg_notify('canary', 'x')", "set role pg_monitor", "set array_nulls = off", "do $$begin perform nextval('seq'); end$$", "truncate canary",
            "copy canary to '{dir}/copied'", "select 1 into made", "create view made as select 1", "lock canary in share mode", "select * from canary for update",
            "with d as (delete from canary returning 1) select * from d", "explain analyze delete from canary", "select txid_current()", "vacuum canary", "analyze canary",
            "merge into canary using plain on k = id when matched then delete", "prepare x as delete from canary; execute x", "select pg_export_snapshot()",
            "begin; insert into canary values (8, 'y'); prepare transaction 'p'", "comment on table canary is 'x'", "grant select on canary to pg_monitor",
            "call nothing()", "refresh materialized view nothing", "reindex table canary", "cluster canary", "create role {db}_x", "alter table canary add w int",
            "drop table canary", "security label on table canary is 'x'", "checkpoint", "load 'plpgsql'", "discard all", "reset all", "set session authorization default",
            "create extension if not exists hstore", "select set_config('array_nulls', 'off', false)", "set local search_path = other", "declare c cursor for delete from canary"]

QUIET = ["select {L}", "select {L}, {L}", "select {L} as a, 1", "values ({L}), ({L})", "select 1 where {L} = {L}", "select * from plain where name = {L}", "begin", "commit", "rollback",
         "set application_name = {L}", "show all", "select {I}", "select 1 as {I}", "select id as {I} from plain", "explain select {L}", "copy (select {L}) to stdout",
         "select {L} like {L} escape {L}", "select {L} :: text", "select text {L}", "declare c cursor for select {L}", "select U&{U} uescape {L}", "select array[{L}]",
         "set timezone = {L}", "select {L} || {L}", "select 1 {O} 2", "select {O} 1", "prepare q as select {L}", "deallocate all", "select $1", "select 1 -- {C}\n",
         "select /* {C} */ 1", "/* {C} */", "-- {C}\n", "", "select 1 /* {C} */ + 1", "select json {L} -> {L}", "close all", "select {L} similar to {L}"]

INSIDE = ["'", "''", "\\'", "\\\\", "\\", "$$", "$a$", "$1$", "$é$", "$", "--", "/*", "*/", "\n", "\r", "\r\n", "\v", "\f", "\t", " ", "\u00a0", "\u2028", "\ufeff", "\u3000", ";", "\"", "\"\"",
          "a", "E", "U&", "é", "日本", "¥", "\u0301", "‘", "＇", "；", "＂", "＼", "\\047", "\\x27", "\\u0027", "\\U00000027", "\\0027", "!0027", "+000027", "uescape '!'", "'\n'", "' '", "'--\n'",
          "'/**/'", "'\r'", "'\v'", "1", "0x", ":=", "::", "%", "_", "\x01", "\x1f", "\x7f", "\U0001f600"]
SPACES = [" ", " ", " ", "\n", "\t", "\r", "\f", "\r\n", "  ", "/**/", "/* */", "/* ; */", "/* ' */", "/*/**/*/", "/* -- */", "--\n", "-- '\n", "-- /*\n", "-- $$\n", "--;\n", "--\r", "/*\n*/", "/* $a$ */", "/* \" */"]
OPERATORS = ["+", "-", "*", "/", "%", "^", "<", ">", "<=", "<>", "!=", "||", "@", "~", "&", "|", "#", "+-", "@-", "*-", "-- x\n+", "/* */ +", "+/**/", "@/*'*/", "<<", "=-", "!~~*", "operator(pg_catalog.+)", "OPERATOR (+)"]


def inner(rng, payload):
    parts = [rng.choice(INSIDE) for _ in range(rng.choice((0, 1, 1, 2, 3, 5)))]
    if rng.random() < 0.4:
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(("; ", ";", "'; ", "\\'; ", "*/ ", "\n", "$$; ")) + payload + rng.choice(("", ";", "; --", "; /*", " '", "; select '")))
    return "".join(parts)


def literal(rng, payload):
    s, how = inner(rng, payload), rng.randrange(9)
    if how == 0:
        return "'" + s.replace("'", "''") + "'"
    if how == 1:
        return rng.choice("Ee") + "'" + s + "'"
    if how == 2:
        tag = rng.choice(("", "a", "A", "_", "a1", "é", "日", "a_b", "1", "a-b", "e"))
        return "$%s$%s$%s$" % (tag, s, tag)
    if how == 3:
        return rng.choice(("U&", "u&")) + "'" + s.replace("'", "''") + "'"
    if how == 4:
        return "'" + s + "'" + rng.choice(("\n", " \n ", "\r", "--x\n", " -- '\n", "\n/* */", " ", "\v\n", "\f\n")) + "'" + inner(rng, payload) + "'"
    if how == 5:
        return rng.choice(("b", "B", "x", "X", "n", "N")) + "'" + s + "'"
    if how == 6:
        return rng.choice("Ee") + "'" + s.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "'" + s + "'"


def identifier(rng, payload):
    s = inner(rng, payload)
    return rng.choice(('"' + s.replace('"', '""') + '"', '"' + s + '"', 'U&"' + s + '"', 'u&"' + s.replace('"', '""') + '" uescape \'!\'', "a$" + s[:1], "é", "a" * 70, "é" * 40, "_$"))


def spaced(rng, text):
    """Other white space and comments where there was a space."""
    return "".join(rng.choice(SPACES) if c == " " and rng.random() < 0.5 else c for c in text)


def lexical(rng):
    parts = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        payload = rng.choice(PAYLOADS)
        t = spaced(rng, rng.choice(QUIET))
        while True:
            at = min((t.find(k), k) for k in ("{L}", "{I}", "{U}", "{O}", "{C}", "~") if t.find(k) >= 0 or k == "~")
            at = next(((t.find(k), k) for k in ("{L}", "{I}", "{U}", "{O}", "{C}") if t.find(k) >= 0), None)
            if at is None:
                break
            k = at[1]
            new = {"{L}": lambda: literal(rng, payload), "{I}": lambda: identifier(rng, payload), "{U}": lambda: "'" + inner(rng, payload) + "'",
                   "{O}": lambda: rng.choice(OPERATORS), "{C}": lambda: inner(rng, payload)}[k]()
            t = t.replace(k, new.replace("{", "").replace("}", ""), 1)
        parts.append(t)
        if rng.random() < 0.25:
            parts.append(spaced(rng, payload))
    text = rng.choice((";", "; ", " ; ", ";\n", ";;", "; --\n")).join(parts)
    if rng.random() < 0.3:  # a stray byte more or less
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(INSIDE + [""]) + text[at + rng.randrange(2):]
    return text


# ---- by types ----

CONSTANTS = {
    "int4": ["1", "0", "-5", "2147483647", "'7'", "id", "7::int"], "int8": ["1::bigint", "9223372036854775807", "'12'::int8", "k.k::int8"],
    "text": ["'x'", "t", "name", "''", "'a,b'", "E'\\n'", "'public.hits'", "'select public.bump()'", "$$y$$", "v"],
    "bool": ["true", "false", "id > 1", "t is null", "'t'::bool"], "numeric": ["1.5", "price", "0", "-2.25", "'NaN'::numeric"], "date": ["date '2020-02-29'", "d", "current_date"],
    "timestamptz": ["now()", "timestamptz '2020-01-01 00:00+00'", "clock_timestamp()"], "jsonb": ["j", "'{\"a\":[1,2]}'::jsonb", "'[]'::jsonb"], "_int4": ["a", "array[1,2]", "'{}'::int[]", "'{3,4}'"],
    "float8": ["1.5::float8", "'Infinity'::float8", "random()"], "varchar": ["name", "'v'::varchar"], "oid": ["'plain'::regclass::oid", "'bump'::regproc::oid", "1::oid", "0::oid"],
    "regclass": ["'plain'::regclass", "'seq'::regclass", "'pg_class'::regclass"], "bytea": ["'\\x00ff'::bytea", "'a'::bytea"], "name": ["'plain'::name", "current_user"], "interval": ["interval '1 day'"],
    "tsvector": ["'a b'::tsvector"], "tsquery": ["'a'::tsquery"], "inet": ["'::1'::inet"], "uuid": ["gen_random_uuid()"], "_text": ["array['a','b']", "'{x}'::text[]"], "xml": ["'<a/>'::xml"],
    "json": ["'{\"a\":1}'::json"], "int4range": ["'[1,5)'::int4range"], "timestamp": ["timestamp '2020-01-01'"], "regtype": ["'text'::regtype"], "regproc": ["'bump'::regproc"]}
RELATIONS = ["plain", "public.plain", "canary k", "pg_class", "pg_settings", "pg_locks", "generate_series(1, 3) g", "(values (1, 'x')) as vals (id, t)", "plain tablesample system (50)",
             "information_schema.tables", "unnest(array[1, 2]) with ordinality u", "seq", "pg_stat_activity", "lateral (select 1) l", "only plain", "jsonb_each('{\"a\":1}') e"]
BINARY = ["{int4} + {int4}", "{int4} * {numeric}", "{text} || {text}", "{jsonb} -> {text}", "{date} + {int4}", "{_int4} || {int4}"]
TESTS = ["{int4} = {int4}", "{text} like {text}", "{text} ~ {text}", "{int4} between {int4} and {int4}", "{text} in ({text}, {text})", "{int4} = any ({_int4})", "{bool} and {bool}", "not {bool}",
         "{text} is distinct from {text}", "exists ({query})", "{text} similar to {text}", "{jsonb} @> {jsonb}", "{int4} is null", "({int4}, {text}) < ({int4}, {text})", "{tsvector} @@ {tsquery}",
         "{text} = all (select {text} from plain)", "{int4} in ({query1})"]
QUERIES = ["select {any} from {rel}", "select {any}, {any} from {rel} where {bool}", "select {any}", "select count(*) from {rel} group by {any} having {bool}", "select distinct {any} from {rel} order by 1 limit {int4}",
           "with x as (select {any} as y from plain) select * from x", "select {any} from plain union all select {any} from plain", "values ({any}, {any})", "select * from {rel}, {rel} where {bool} limit 3",
           "select sum({int4}) over (partition by {any} order by {any}) from plain", "select case when {bool} then {any} end from plain", "select {any} from plain where {bool} offset {int4}",
           "with recursive r(n) as (select 1 union select n + 1 from r where n < 3) select {any} from plain, r", "select array({query1})", "select coalesce({text}, {text}), nullif({int4}, {int4}) from plain",
           "select cast({any} as text)", "select ({any})::varchar(3)", "table {rel0}", "select string_agg({text}, {text} order by {any}) filter (where {bool}) from plain", "select row({any}, {any})"]
STATEMENTS = ["{query}", "explain {query}", "explain (analyze, verbose, buffers) {query}", "explain (analyze off) {query}", "copy ({query}) to stdout", "prepare p as {query}", "declare c cursor with hold for {query}",
              "begin; {query}; commit", "begin read only; {query}", "{query}; {query}", "copy {rel0} to stdout (format csv)", "create table made as {query}", "create temp view made as {query}",
              "explain create table made as {query}", "explain analyze create table made as {query}", "insert into canary select 9, {text} from plain limit 1", "explain insert into canary select 9, {text}",
              "select * into made from ({query}) s", "update canary set v = {text}", "explain update canary set v = {text}", "delete from canary where {bool}", "lock table {rel0} in access share mode",
              "create materialized view made as {query}", "do $$begin perform {any}; end$$", "set application_name = {text}", "select set_config('application_name', {text}, false)",
              "declare c cursor for {query}; fetch all from c; close c", "declare c cursor for {query}; move 1 in c", "with w as (insert into canary select 9, {text} returning *) {query}",
              "set constraints all immediate; {query}", "{query} for update", "{query} for share of plain", "create index on plain (({int4}))", "select pg_typeof({any}), pg_column_size({any})",
              "begin transaction isolation level serializable; {query}; rollback", "savepoint s; {query}", "start transaction; savepoint s; {query}; rollback to s; release s; end", "listen canary; {query}; unlisten *",
              "show search_path; {query}", "reset search_path; {query}", "set search_path = ''; {query}", "set search_path = pg_catalog; {query}", "{query}; {payload}", "{payload}", "explain (analyze) {payload}", "prepare p as {payload}"]


class Grammar:
    """Expressions of a type, from constants, columns and every function of the server of which arguments are known."""

    def __init__(self, rows, strangers=()):
        self.by_type = {}
        for name, result, args in rows:
            if result in CONSTANTS and all(a in CONSTANTS for a in args):
                self.by_type.setdefault(result, []).append((name, args))
        self.relations = RELATIONS + [s[2:] for s in strangers if s.startswith("R:")]
        self.expressions = [s[2:] for s in strangers if s.startswith("E:")]

    def value(self, rng, kind, depth):
        if depth <= 0 or rng.random() < 0.35 or kind not in self.by_type:
            return rng.choice(CONSTANTS[kind])
        if kind == "bool" and rng.random() < 0.6:
            return "(" + self.fill(rng, rng.choice(TESTS), depth - 1) + ")"
        if kind in ("int4", "text") and rng.random() < 0.1:
            return "(" + self.fill(rng, "select {%s} from plain limit 1" % kind, depth - 1) + ")"
        name, args = rng.choice(self.by_type[kind])
        return "%s(%s)" % (name, ", ".join(self.value(rng, a, depth - 1) for a in args))

    def fill(self, rng, text, depth):
        out, at = "", 0
        while True:
            i = text.find("{", at)
            j = text.find("}", i)
            word = text[i + 1:j] if i >= 0 and j > 0 else None
            if word is None:
                return out + text[at:]
            out += text[at:i]
            at = j + 1
            if word in CONSTANTS:
                out += self.value(rng, word, depth)
            elif word == "any":
                out += rng.choice(self.expressions) if self.expressions and rng.random() < 0.2 else self.value(rng, rng.choice(list(CONSTANTS)), depth)
            elif word == "rel":
                r = rng.choice(self.relations)
                out += r if "plain" in r and r[-1] == "n" else "plain, " + r if "canary" in r else "canary k, plain, " + r + " zz" if r.replace(".", "").replace("_", "").isalnum() else "plain, canary k, " + r
            elif word == "rel0":
                out += rng.choice(self.relations).split(" ")[0].split("(")[0] or "plain"
            elif word == "query":
                out += self.fill(rng, rng.choice(QUERIES), depth - 1)
            elif word == "query1":
                out += self.fill(rng, "select {int4} from plain", depth - 1)
            elif word == "payload":
                out += rng.choice(PAYLOADS)
            else:
                out += text[i:j + 1]

    def statement(self, rng):
        t = self.fill(rng, rng.choice(STATEMENTS), 3)
        return spaced(rng, t) if rng.random() < 0.2 else t


CALLABLE = """select quote_ident(n.nspname) || '.' || quote_ident(p.proname), r.typname, array(select t.typname from unnest(p.proargtypes) with ordinality a (o, i)
 join pg_type t on t.oid = a.o order by a.i)::text[] from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_type r on r.oid = p.prorettype
 where p.prokind = 'f' and not p.proretset and n.nspname = 'pg_catalog' order by p.oid"""
