"""What a held statement keeps locked at the server: outside a transaction nothing, inside one what ran before it, and the
card and the wait line say so."""
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness
from base import WAIT_LINE, WireCase
from pgwire import FLUSH, SYNC, bind, describe, error_of, execute, kinds, parse, query


class Locks(WireCase):
    def setUp(self):
        self.t = self.table()
        self.update = "update %s set note = 'changed' where id = 1" % self.t

    def locked(self):
        return [m[0] for m in self.sql("select mode from pg_locks where relation = 'public.%s'::regclass order by mode" % self.t)]

    def are_locked(self, modes):
        """These are what is left: the look at what it would touch (EXPLAIN) has locks of its own for a moment."""
        harness.wait_until("the locks on the table to be %r" % modes, lambda: self.locked() == modes)

    def changed(self):
        return self.sql("select count(*) from %s where note = 'changed'" % self.t)[0][0]

    def free_while_held(self, w, what, kinds_after, *parts):
        w.send(*parts)
        request = self.held(what)["id"]
        self.are_locked([])
        self.sql("set lock_timeout = '5s'; alter table %s add column more_%s int" % (self.t, request.lower()))
        self.gw.approve(request)
        got = w.until_ready()
        self.assertEqual(kinds(got), kinds_after, got)

    def test_a_simple_query_locks_nothing(self):
        self.free_while_held(self.session(), self.t, "CZ", query(self.update))
        self.assertEqual(self.changed(), 1)

    def test_what_is_parsed_in_the_same_group_locks_nothing(self):
        self.free_while_held(self.session(), self.t, "12CZ", parse(self.update), bind(), execute(), SYNC)
        self.assertEqual(self.changed(), 1)

    def test_named_described_and_flushed_neither(self):
        w = self.session()
        self.free_while_held(w, self.t, "1tn2nCZ", parse(self.update, "u"), describe("S", "u"), FLUSH, bind(statement="u"), describe(), execute(), SYNC)
        self.assertEqual(self.changed(), 1)
        self.free_while_held(w, self.t, "2CZ", bind(statement="u"), execute(), SYNC)  # it lives on

    def test_an_elevated_one_neither(self):
        self.free_while_held(self.session(), self.t, "12CZ", parse("delete from %s where id = 2" % self.t), bind(), execute(), SYNC)

    def test_a_denial_leaves_the_group_as_the_client_thinks_it_is(self):
        w = self.session()
        w.send(parse(self.update), bind(), execute(), parse("select 1"), bind(), execute(), SYNC)
        request = self.held(self.t)["id"]
        self.are_locked([])
        self.gw.deny(request, "no")
        got = w.until_ready()
        self.assertEqual((kinds(got), error_of(got)["C"]), ("1EZ", "42501"))
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")

    def test_what_ran_before_it_in_its_group_is_not_committed_by_that(self):
        """A group in which something ran is a transaction, and stays one: with its locks."""
        w = self.session()
        w.send(parse("insert into scratchpad values (4242)"), bind(), execute(), parse(self.update), bind(), execute(), SYNC)
        request = self.held(self.t)["id"]
        self.assertEqual(self.sql("select count(*) from scratchpad where n = 4242"), [(0,)])
        self.are_locked(["RowExclusiveLock"])
        self.gw.deny(request, "no")
        self.assertEqual(error_of(w.until_ready())["C"], "42501")
        self.assertEqual(self.sql("select count(*) from scratchpad where n = 4242"), [(0,)])
        self.are_locked([])

    def test_inside_a_transaction_the_card_says_for_how_long_and_the_wait_is_short(self):
        w = self.session()
        w.ask(query("begin"), query("select count(*) from %s" % self.t), n=2)
        self.sql("select pg_sleep(1.1)")
        w.send(query(self.update))
        request = self.held(self.t)["id"]
        self.are_locked(["AccessShareLock"])
        tx = self.gw.json("show", request, who="bob")["tx"]
        age = re.match(r"-- open for (\d+) s, with its locks\n", tx)
        self.assertGreaterEqual(int(age[1]), 1, tx)
        self.gw.approve(request)
        self.assertEqual(kinds(w.until_ready()), "CZ")
        line = next(m for m in (WAIT_LINE.search(n["D"] if "D" in n and "COUNTERSIGN" in n["D"] else n["M"]) for n in w.notices) if m)
        self.assertLessEqual(int(line[3]), 60)
        self.assertGreater(int(line[4]), 60)
        w.ask(query("rollback"))
        self.are_locked([])

    def test_a_denial_inside_a_transaction_frees_its_locks(self):
        w = self.session()
        w.ask(query("begin"), query("select count(*) from %s" % self.t), n=2)
        w.send(query(self.update))
        self.gw.deny(self.held(self.t)["id"], "no")
        self.assertEqual(w.until_ready()[-1][1], b"E")
        self.are_locked([])


if __name__ == "__main__":
    unittest.main()
