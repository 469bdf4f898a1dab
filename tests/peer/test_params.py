"""Rules by the values of parameters (sql.params): each execution of a prepared statement is decided by its own."""
import os
import struct
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness
from base import GatewayCase
from pgwire import SYNC, bind, error_of, execute, kinds, parse, query

INT4, INT8, BOOL, UUID, NUMERIC, TEXT = 23, 20, 16, 2950, 1700, 25
RULES = """
rules:
  - name: settings
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e == "session")
    then: allow
  - name: own-customers
    who: { groups: [agents] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"]) && size(sql.params) == 1 && sql.params.all(p, p in ["1", "-2", "t", "00112233-4455-6677-8899-aabbccddeeff", ""])
    then: allow
  - name: read
    who: { groups: [engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: not-the-director
    who: { groups: [engineers] }
    target: { kind: postgres }
    when: |
      sql.params.exists(p, p == "director")
    then: deny
  - name: asked
    who: { groups: [engineers] }
    target: { kind: postgres }
    when: |
      sql.params.exists(p, p == "vip")
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
"""
MORE = """
  - name: nobody
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.params.exists(p, p == "fine")
    then: deny
"""


class Params(GatewayCase):
    RULES = RULES

    def run_one(self, w, value, formats=()):
        """The answer to one execution of the statement s: its first column, or the error's code."""
        got = w.ask(bind([value], "s", formats=formats), execute(), SYNC)
        if "E" in kinds(got):
            return error_of(got)["C"]
        (row,) = [b for k, b in got if k == "D"]
        n = struct.unpack("!i", row[2:6])[0]
        return row[6:6 + n] if n >= 0 else None

    def prepared(self, sql, *types, who="bot"):
        w = self.wire(who)
        self.assertNotIn("E", kinds(w.ask(parse(sql, "s", types), SYNC)))
        return w

    def test_each_execution_is_decided_by_its_own_value(self):
        w = self.prepared("select $1::text")
        for value, want in (("1", b"1"), ("3", "42501"), ("1", b"1"), ("-2", b"-2"), ("11", "42501"), ("", b""), (None, None)):
            self.assertEqual(self.run_one(w, value), want, value)

    def test_binary_values_are_put_into_words_by_the_declared_type(self):
        for kind, name, good, bad in ((INT4, "int", struct.pack("!i", 1), struct.pack("!i", 2)),
                                      (INT8, "bigint", struct.pack("!q", -2), struct.pack("!q", 254)),
                                      (BOOL, "bool", b"\1", b"\0"),
                                      (TEXT, "text", b"1", b"2"),
                                      (UUID, "uuid", bytes.fromhex("00112233445566778899aabbccddeeff"), bytes(16))):
            w = self.prepared("select $1::%s" % name, kind)
            self.assertNotEqual(self.run_one(w, good, (1,)), "42501", name)
            self.assertEqual(self.run_one(w, bad, (1,)), "42501", name)

    def test_what_has_no_certain_text_is_allowed_by_no_rule_that_asks_for_it(self):
        w = self.prepared("select $1::int")  # the type is the server's choice
        self.assertEqual(self.run_one(w, struct.pack("!i", 1), (1,)), "42501")
        w = self.prepared("select $1::numeric", NUMERIC)
        self.assertEqual(self.run_one(w, struct.pack("!HhHHH", 1, 0, 0, 0, 1), (1,)), "42501")
        w = self.prepared("select $1::text")
        self.assertEqual(self.run_one(w, b"1\xff"), "42501")
        self.assertEqual(self.run_one(w, "1"), b"1")

    def test_a_deny_by_values_refuses_no_statement_before_they_are_known(self):
        w = self.prepared("select $1::text", who="alice")
        for value, want in (("worker", b"worker"), ("director", "42501"), ("worker", b"worker")):
            self.assertEqual(self.run_one(w, value), want)
        w = self.prepared("select $1::numeric", NUMERIC, who="alice")  # may be anything
        self.assertEqual(self.run_one(w, struct.pack("!HhHHH", 1, 0, 0, 0, 1), (1,)), "42501")

    def test_a_hold_by_values_holds_those(self):
        w = self.prepared("select $1::text, 'asked for'", who="alice")
        self.assertEqual(self.run_one(w, "worker"), b"worker")
        w.send(bind(["vip"], "s"), execute(), SYNC)
        self.gw.approve(self.held("asked for")["id"])
        self.assertIn("D", kinds(w.until_ready()))

    def test_a_text_has_no_parameters(self):
        w = self.wire()
        self.assertEqual(error_of(w.ask(query("select '1'")))["C"], "42501")
        self.assertIn("D", kinds(self.wire("alice").ask(query("select 'director'"))))

    def test_new_rules_that_look_at_values_forget_what_was_remembered(self):
        w = self.prepared("select $1::text", who="alice")
        gw = self.gw
        for _ in range(3):
            self.assertEqual(self.run_one(w, "fine"), b"fine")
        gw.configure(RULES + MORE)
        self.addCleanup(lambda: (gw.configure(RULES), gw.cli("reload")))
        gw.cli("reload")
        harness.wait_until("the new rules to reach the gate", lambda: self.run_one(w, "fine") == "42501")
        self.assertEqual(self.run_one(w, "other"), b"other")


if __name__ == "__main__":
    unittest.main()
