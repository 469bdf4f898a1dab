"""The steps of the driver matrix for drivers in Python. Each d_NAME.py has a class with the calls below, written as
that driver's users write them, and gives it to run(). Programs in other languages have the same steps.

    PROGRAM STEP     exit status 0: it went as it would at a real server; a sentence on standard error otherwise

What to connect to stands in PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE, PGSSLROOTCERT and PGOPTIONS, in CS_TABLE a
table (id int, note text) with ten rows, in CS_NUMBER a number that is nobody else's."""
import os
import sys

TABLE, NUMBER = os.environ["CS_TABLE"], int(os.environ["CS_NUMBER"])
SELECT = "select note from %s where id = " % TABLE
UPDATE = "update %s set note = 'by driver' where id = " % TABLE
INSERT = "insert into scratchpad values "
COUNT = "select count(*) from scratchpad where n = %d" % NUMBER
TRUNCATE = "truncate table %s" % TABLE
COPY_IN = "copy scratchpad from stdin"
COPY_OUT = "copy (select n from scratchpad where n = %d) to stdout" % NUMBER
LONG = "select count(*) from generate_series(1, 100000000) a, generate_series(1, 100000) b"


def check(what, got, wanted):
    if got != wanted:
        sys.exit("%s: %r, not %r" % (what, got, wanted))


def fails(d, what, sqlstate, call, *words):
    """call must fail with that SQLSTATE and those words in its message, detail or hint."""
    try:
        call()
    except Exception as e:  # each driver has its own
        said = d.error(e)
        check(what, said[0], sqlstate)
        for w in words:
            if w not in said[1]:
                sys.exit("%s: %r is not in %r" % (what, w, said[1]))
        return
    sys.exit(what + " did not fail")


def tls(d):
    check("select 1", d.value("select 1"), 1)


def prepared(d):
    for i in range(1, 11):
        check("row %d" % i, d.prepared(SELECT, i), "row")


def transaction(d):
    d.begin()
    d.run(INSERT + "(%d)" % NUMBER)
    check("inside", d.value(COUNT), 1)
    d.rollback()
    check("after rollback", d.value(COUNT), 0)
    d.begin()
    d.run(INSERT + "(%d)" % NUMBER)
    d.commit()
    check("after commit", d.value(COUNT), 1)


def copy(d):
    d.copy_in(COPY_IN, [NUMBER] * 1000)
    check("rows out", d.copy_out(COPY_OUT), [str(NUMBER)] * 1000)
    check("count", d.value(COUNT), 1000)


def cancel(d):
    fails(d, "what is cancelled", "57014", lambda: d.cancelled(LONG))
    check("afterwards", d.value("select 1"), 1)


def hold(d):
    """Somebody approves meanwhile."""
    check("updated", d.update(UPDATE, 3), 1)
    check("note", d.value(SELECT + "3"), "by driver")


def denied(d):
    """Somebody refuses meanwhile, with these words."""
    fails(d, "a rule denies", "42501", lambda: d.run(TRUNCATE), "never-truncate")
    d.begin()
    d.run(INSERT + "(%d)" % NUMBER)
    fails(d, "a person denies", "42501", lambda: d.update(UPDATE, 4), "not on a Friday")
    fails(d, "afterwards", "25P02", lambda: d.value("select 1"))
    d.rollback()
    check("what stood before", d.value(COUNT), 0)
    check("the session", d.value("select 1"), 1)


def not_yet(d):
    """In async mode: told at once, and nothing ran."""
    fails(d, "async", "CS001", lambda: d.update(UPDATE, 5), "COUNTERSIGN held id=", "state=pending")
    check("note", d.value(SELECT + "5"), "row")


def again(d):
    """In async mode, another connection, after the approval."""
    check("updated", d.update(UPDATE, 5), 1)
    check("note", d.value(SELECT + "5"), "by driver")


STEPS = {f.__name__: f for f in (tls, prepared, transaction, copy, cancel, hold, denied, not_yet, again)}


def run(driver):
    d = driver()
    STEPS[sys.argv[1]](d)
    d.close()
