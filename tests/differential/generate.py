"""Texts out of traps, templates and lexical noise; everything from one seed."""

RELATION = ["select * from {}", "table {}", "select count(*) from {}", "select 1 from {} limit 0", "with x as (select * from {}) select * from x",
            "select exists (select 1 from {})", "explain select * from {}", "explain analyze select * from {}", "copy (select * from {}) to stdout",
            "begin; declare c cursor for select * from {}; fetch all from c; commit", "select (select count(*) from {})", "select * from plain, {} as y limit 1",
            "select r from {} as r", "select array(select 1 from {})", "values ((select count(*) from {}))", "select * from (select * from {}) s, lateral (select 1) l",
            "select * from plain where exists (select from {})", "with recursive r(n) as (select 1 union all select n + 1 from r where n < 2) select * from r, {} as z",
            "prepare p as select * from {}", "select 1 union all select count(*) from {}"]
EXPRESSION = ["select {}", "select {} from plain", "select * from plain where ({}) is not null", "select 1 from plain order by {}", "select 1 from plain group by {}",
              "values ({})", "select case when true then {} end from plain", "select coalesce({}, null) from plain", "select array[{}] from plain",
              "select row({}) from plain", "explain select {} from plain", "explain (analyze) select {} from plain", "select * from plain, lateral (select {}) x",
              "select count({}) from plain", "with x as (select {} from plain) select * from x", "select json_build_object('a', {}) from plain",
              "select (select {}) from plain", "select ({})::text from plain", "select 1 from plain limit (select count({}) from plain)",
              "prepare p as select {} from plain", "select * from plain p join plain q on ({}) is null", "copy (select {} from plain) to stdout",
              "select 1 from plain having count({}) > 0", "select sum(1) over (partition by {}) from plain", "begin; declare c cursor for select {} from plain; fetch 1 from c; commit"]


def all_of(trap):
    for t in trap.texts:
        if t.startswith("E:"):
            for c in EXPRESSION:
                yield c.replace("{}", t[2:])
        elif t.startswith("R:"):
            for c in RELATION:
                yield c.replace("{}", t[2:])
        else:
            yield t
