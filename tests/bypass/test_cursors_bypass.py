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
  - name: rest
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, !(e in ["session", "read"])) && !(sql.text.startsWith("/* free */"))
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
        asked = []

        def approve(request):
            asked.append(request)
            self.gw.approve(request)
        got = self.said(self.w, *parts, held=approve)
        self.assertEqual(len(asked), 1, "it was not asked, or twice")
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
