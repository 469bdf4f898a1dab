"""Cursors: what FETCH runs is the query that somebody declared, for each row, and again after going back. Who approved
a DECLARE has approved that query once."""
import os
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peer"))

from base import BypassCase
from pgwire import SYNC, bind, error_of, execute, kinds, parse, query

RULES = """
rules:
  - name: read
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: unsettle
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.text.startsWith("/* free */")
    then: allow
  - name: lock-own
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb in ["DECLARE CURSOR", "SELECT", "FETCH", "MOVE"] && sql.effects.all(e, e in ["read", "write"]) && sql.functions.all(f, f == "count") && sql.writes.all(w, w.startsWith("own_")) && sql.reads.all(r, r.startsWith("own_"))
    then: allow
  - name: rest
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, !(e in ["session", "read"])) && !(sql.text.startsWith("/* free */")) && !(sql.verb in ["DECLARE CURSOR", "SELECT", "FETCH", "MOVE"] && sql.effects.all(e, e in ["read", "write"]) && sql.functions.all(f, f == "count") && sql.writes.all(w, w.startsWith("own_")) && sql.reads.all(r, r.startsWith("own_")))
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
"""


class Cursors(BypassCase):
    RULES = RULES

    def setUp(self):
        super().setUp()
        self.bump = "bump_" + self.t
        self.sql("create function public.%s() returns int security definer language plpgsql as 'begin insert into public.%s values (0, ''ran''); return 1; end';"
                 "create function public.open_%s(text) returns refcursor language plpgsql as 'declare c refcursor := $1; begin open c for select public.%s(); return c; end';"
                 "create function public.show_%s() returns bigint language sql security definer as 'select count(*) from public.%s'"
                 % (self.bump, self.t, self.t, self.bump, self.t, self.t))
        self.sql("create sequence s_%s; grant usage on sequence s_%s to public" % (self.t, self.t))
        self.w = self.session()
        self.w.ask(query("begin"))

    def tearDown(self):
        self.w.close()

    def ran(self, w=None):
        """As the session sees it: in its transaction."""
        got = (w or self.w).ask(query("select count(*) from %s where note = 'ran'" % self.t))
        return int(next(b for k, b in got if k == "D")[6:])

    def approved(self, *parts):
        """Asked once, and it ran. What setUp has defined may become known to the gateway while it waits: then it is void, and asked anew."""
        for _ in range(3):
            asked = []

            def approve(request):
                asked.append(request)
                self.gw.approve(request)
            self.w.ask(query("savepoint there"))
            got = self.said(self.w, *parts, held=approve)
            self.assertEqual(len(asked), 1, "it was not asked, or twice")
            if (error_of(got) or {}).get("D") != "what the database has defined for its names changed while it waited":
                break
            self.w.ask(query("rollback to there"))
        self.assertIsNone(error_of(got))
        return got

    def asked(self, *parts):
        """Somebody is asked, says no, and nothing more has run. The transaction goes back to where it was."""
        before, n = self.ran(), len(self.was_held)
        self.w.ask(query("savepoint here"))
        got = self.said(self.w, *parts)
        self.assertEqual(error_of(got)["C"], "42501")
        self.assertEqual(len(self.was_held), n + 1, "nobody was asked")
        self.w.ask(query("rollback to here"))
        self.assertEqual(self.ran(), before)

    def declare(self, name="c"):
        self.approved(query("declare %s cursor for select %s() from %s" % (name, self.bump, self.t)))

    def test_the_trick_works_on_the_bare_server(self):
        w = self.direct()
        for text in ("begin", "declare c cursor for select %s() from %s" % (self.bump, self.t), "fetch c", "fetch first from c", "fetch first from c"):
            self.assertIsNone(error_of(w.ask(query(text))), text)
        self.assertEqual(self.ran(w), 3)
        w.ask(execute("c"), SYNC)
        self.assertEqual(self.ran(w), 12)
        w.close()

    def test_fetch_of_an_approved_cursor_is_asked_each_time(self):
        self.declare()
        self.asked(query("fetch c"))
        self.approved(query("fetch c"))
        self.assertEqual(self.ran(), 1)
        self.asked(query("fetch first from c"))
        self.asked(query("move first from c"))
        self.asked(query("fetch backward all in c"))
        self.asked(query("select 1; fetch first from c"))
        self.asked(parse("fetch first from c"), bind(), execute(), SYNC)
        self.assertEqual(self.ran(), 1)

    def test_one_that_was_prepared_before(self):
        self.w.ask(parse("fetch first from c", "f"), SYNC)
        self.w.ask(query("declare c scroll cursor for select 1"))
        for _ in range(2):
            self.assertIsNone(error_of(self.w.ask(bind(statement="f"), execute(), SYNC)))
        self.w.ask(query("close c"))
        self.declare()
        self.asked(bind(statement="f"), execute(), SYNC)

    def test_execute_of_a_cursor_as_a_portal(self):
        self.declare()
        got = self.said(self.w, execute("c"), SYNC)
        self.assertEqual(error_of(got)["C"], "42501")
        self.w.ask(query("rollback"))
        self.assertEqual(self.ran(), 0)

    def test_a_portal_as_a_cursor(self):
        self.approved(parse("select %s()" % self.bump), bind(portal="p"), SYNC)
        self.asked(query("fetch p"))

    def test_a_name_in_other_letters(self):
        self.declare('"Some ""c"""')
        self.asked(query('fetch "Some ""c"""'))
        self.declare("c" + "x" * 70)
        self.asked(query("fetch c%s" % ("x" * 62)))

    def test_a_cursor_that_code_opened(self):
        self.approved(query("select open_%s('mine')" % self.t))
        self.asked(query("fetch mine"))
        self.asked(query("move all in mine"))

    def test_a_sequence(self):
        self.approved(query("declare c cursor for select nextval('s_%s')" % self.t))
        self.asked(query("fetch c"))

    def own(self, *names):
        """Tables that the session may lock by rule, as long as it is known that it is only these."""
        for name in names:
            self.sql("create table own_%s_%s (id int); insert into own_%s_%s values (1), (2), (3); grant select, update on own_%s_%s to public" % ((name, self.t) * 3))
        return ["own_%s_%s" % (name, self.t) for name in names]

    def passes(self, *texts):
        for text in texts:
            n = len(self.was_held)
            self.assertIsNone(error_of(self.said(self.w, query(text))), text)
            self.assertEqual(len(self.was_held), n, text)

    def locking(self, name, table):
        return "declare %s cursor for select id from %s for update" % (name, table)

    def test_fetch_writes_what_its_cursor_locks(self):
        a, b = self.own("a", "b")
        self.passes(self.locking("c", a), "fetch c", "move c", "fetch all from c", self.locking("d", b), "fetch d", "fetch 2 from d")
        self.passes("savepoint x", "fetch c")
        self.assertIsNone(error_of(self.w.ask(parse("fetch c"), bind(), execute(), SYNC)))
        self.assertIsNone(error_of(self.w.ask(parse("select id from %s for update" % a), bind(portal="p"), SYNC)))
        self.passes("fetch p")

    def test_fetch_of_another_tables_cursor_is_asked_and_says_what_it_writes(self):
        self.sql("grant update on %s to public" % self.t)
        a, = self.own("a")
        self.passes(self.locking("d", a))
        cards = []
        self.approved(query(self.locking("c", self.t)))
        self.said(self.w, query("fetch c"), held=lambda request: (cards.append(self.gw.json("show", request, who="bob")), self.gw.deny(request, "no")))
        self.assertEqual(cards[0]["facts"]["sql.writes"], [self.t])
        self.assertEqual(cards[0]["facts"]["sql.reads"], [self.t])

    def test_a_sequence_is_asked_whatever_else_is_written(self):
        a, = self.own("a")
        self.sql("grant usage on sequence s_%s to public" % self.t)
        self.approved(query("declare c cursor for select nextval('s_%s') from %s for update" % (self.t, a)))
        self.asked(query("fetch c"))

    def test_nobody_says_what_a_name_of_several_cursors_locks(self):
        a, b = self.own("a", "b")
        self.passes(self.locking("c", a), "fetch c", "close c", self.locking("c", b))
        self.asked(query("fetch c"))

    def test_nor_what_one_locks_that_only_reads_since(self):
        a, = self.own("a")
        self.passes(self.locking("c", a), "fetch c", "close c", "declare c cursor for select id from %s" % self.t)
        self.asked(query("fetch c"))

    def test_nor_what_a_portal_of_a_fetch_locks(self):
        a, = self.own("a")
        self.sql("grant update on %s to public" % self.t)
        self.approved(query(self.locking("c", self.t)))
        self.approved(parse("fetch c"), bind(portal="p"), SYNC)
        self.asked(query("fetch p"))

    def test_nor_where_code_may_have_opened_one(self):
        a, = self.own("a")
        self.passes(self.locking("c", a), "fetch c")
        self.approved(query("select open_%s('mine')" % self.t))
        self.asked(query("fetch c"))

    def test_nor_of_two_in_one_text(self):
        a, b = self.own("a", "b")
        self.passes(self.locking("c", a), self.locking("d", b))
        self.asked(query("fetch c; fetch d"))
        self.passes(self.locking("e", a) + "; fetch e")  # one text, and all that it locks is in it

    def test_a_fetch_that_is_asked_when_its_transaction_has_ended_behind_it(self):
        """What is known of the cursor is told to somebody who is asked after the COMMIT before it in the pipeline."""
        self.sql("grant update on %s to public" % self.t)
        self.approved(query(self.locking("c", self.t)))
        got = self.said(self.w, query("commit"), parse("fetch c"), bind(), execute(), SYNC, n=2)
        self.assertIsNotNone(error_of(got))
        self.assertEqual(kinds(self.w.ask(query("select 1"))), "TDCZ")
        self.w.ask(query("begin"))

    def test_what_was_declared_while_its_reading_was_in_doubt(self):
        """Approved as two strings, read as one and a call: the call is asked for when it is to run."""
        text = "declare c cursor for select '\\' , ' , %s() --'" % self.bump
        self.said(self.w, parse("/* free */ do $$ begin perform set_config('standard_conforming_strings', 'off', false); end $$"), bind(), execute(), query(text), SYNC, n=2, held=self.gw.approve)
        self.said(self.w, query("fetch c"))
        self.assertEqual(self.sql("select count(*) from %s where note = 'ran'" % self.t)[0][0], 0)

    def test_reading_is_free(self):
        for text in ("declare c scroll cursor for select id from %s order by id" % self.t, "fetch 2 from c", "fetch first from c", "move last in c", "fetch backward 3 from c", "close c"):
            self.assertIsNone(error_of(self.w.ask(query(text))), text)
        self.w.ask(query("declare d cursor for select id from %s" % self.t))
        self.approved(query("declare c cursor for select nextval('s_%s')" % self.t))
        for text in ("fetch d", "move d", "declare e cursor for select 1", "fetch e"):  # others than the one that was asked for
            self.assertIsNone(error_of(self.w.ask(query(text))), text)
        self.assertIsNone(error_of(self.w.ask(execute("d"), SYNC)))

    def test_with_the_transaction_it_is_over(self):
        self.declare()
        self.w.ask(query("rollback"))
        self.w.ask(query("begin"))
        self.w.ask(query("declare c scroll cursor for select 1"))
        self.assertEqual(kinds(self.w.ask(query("fetch c"))), "TDCZ")

    def test_with_hold_it_runs_at_commit_once(self):
        self.approved(query("declare c cursor with hold for select %s() from %s" % (self.bump, self.t)))
        self.assertIsNone(error_of(self.w.ask(query("commit"))))
        self.assertEqual(self.ran(), 10)
        for text in ("fetch c", "fetch first from c", "fetch first from c"):
            self.assertIsNone(error_of(self.w.ask(query(text))), text)
        self.assertEqual(self.ran(), 10)


if __name__ == "__main__":
    unittest.main()
