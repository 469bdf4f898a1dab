"""countersign.reason: the requester's own words, on the card and in the digest, believed by nobody."""
import unittest

import harness
from base import PROTOCOL_RULES, GatewayCase
from pgwire import SYNC, PgError, bind, execute, parse, query


class Reason(GatewayCase):
    RULES = PROTOCOL_RULES

    def asked(self, sql, text, **more):
        """What the card says when sql has been sent and `text` of it is held; it is denied at the end."""
        w = self.wire(**more)
        self.addCleanup(w.close)
        w.send(query(sql))
        card = self.gw.json("show", self.held(text)["id"], who="bob")
        self.gw.deny(card["id"], "seen")
        return card

    def update(self):
        return "update %s set note = 'x'" % self.table()

    def test_of_the_startup_options_and_of_a_parameter_of_its_own(self):
        u = self.update()
        card = self.asked(u, u, options="-c countersign.reason=ticket\\ 4711:\\ close\\ the\\ old\\ orders")
        self.assertEqual(card["claimed"], "ticket 4711: close the old orders")
        u = self.update()
        w = self.wire(**{"countersign.reason": "ünïcode, as asyncpg would send it"})
        self.addCleanup(w.close)
        w.send(query(u))
        card = self.gw.json("show", self.held(u)["id"], who="bob")
        self.assertEqual(card["claimed"], "ünïcode, as asyncpg would send it")
        self.gw.deny(card["id"], "seen")

    def test_a_list_says_how_long_a_statement_is_that_it_leaves_out(self):
        u = self.update()
        long = u + " where note <> '%s'" % ("y" * 6000)
        w = self.wire()
        self.addCleanup(w.close)
        w.send(query(long))
        r = harness.wait_until("it to be held", lambda: next((x for x in self.gw.pending() if x["text"] is None), None))
        self.assertTrue(r["text_left_out"])
        self.assertGreater(r["text_bytes"], 6000)
        self.assertIn("(%d bytes: see `countersign show %s`)" % (r["text_bytes"], r["id"]), self.gw.cli("requests", who="bob").stdout)
        self.assertEqual(self.gw.json("show", r["id"], who="bob")["text"], long)
        self.gw.deny(r["id"], "seen")

    def test_none_is_none(self):
        u = self.update()
        self.assertEqual(self.asked(u, u)["claimed"], "")

    def test_set_and_reset_take_effect_where_they_succeed(self):
        w = self.wire(options="-c countersign.reason=from\\ the\\ start")
        self.addCleanup(w.close)

        def claimed():
            u = self.update()
            w.send(query(u))
            card = self.gw.json("show", self.held(u)["id"], who="bob")
            self.gw.deny(card["id"], "seen")
            w.until_ready()
            return card["claimed"]

        def run(sql):
            w.send(query(sql))
            return [k for k, _ in w.until_ready()]
        self.assertEqual(claimed(), "from the start")
        self.assertIn("C", run("set countersign.reason = 'another'"))
        self.assertEqual(claimed(), "another")
        self.assertIn("E", run("select 1/0; set countersign.reason = 'never set'"))
        self.assertEqual(claimed(), "another")
        self.assertIn("C", run("reset countersign.reason"))
        self.assertEqual(claimed(), "from the start")
        self.assertIn("C", run("SET Countersign.Reason TO 'a third'"))
        self.assertEqual(claimed(), "a third")
        self.assertIn("C", run("discard all"))
        self.assertEqual(claimed(), "from the start")

    def test_set_by_the_extended_protocol(self):
        w = self.wire()
        self.addCleanup(w.close)
        w.send(parse("set countersign.reason = 'extended'"), bind(), execute(), SYNC)
        w.until_ready()
        u = self.update()
        w.send(query(u))
        card = self.gw.json("show", self.held(u)["id"], who="bob")
        self.gw.deny(card["id"], "seen")
        self.assertEqual(card["claimed"], "extended")

    def test_a_repeat_with_another_reason_is_the_same_question_and_keeps_the_first(self):
        u = self.update()
        first = self.wire(options="-c countersign.mode=async -c countersign.reason=first")
        self.addCleanup(first.close)
        first.send(query(u))
        first.until_ready()
        request = self.held(u)
        second = self.wire(options="-c countersign.mode=async -c countersign.reason=second")
        self.addCleanup(second.close)
        second.send(query(u))
        second.until_ready()
        self.assertEqual(len([r for r in self.gw.pending() if u in r["text"]]), 1)
        self.assertEqual(self.gw.json("show", request["id"], who="bob")["claimed"], "first")
        self.gw.approve(request["id"])
        second.send(query(u))
        self.assertEqual([k for k, _ in second.until_ready()], ["C", "Z"])
        self.gw.wait_state(request["id"], "done")

    def test_the_same_words_of_two_requests_do_not_give_the_same_digest_and_other_words_another(self):
        digests = set()
        for words in ("a", "a", "b"):
            u = self.update()
            digests.add(self.asked(u, u, options="-c countersign.reason=" + words)["digest"])
        self.assertEqual(len(digests), 3)

    def test_too_long_or_no_text_is_refused_at_the_start(self):
        for words in ("x" * 1001, b"\xff\xfe"):
            with self.assertRaises(PgError) as e:
                self.wire(**{"countersign.reason": words})
            self.assertEqual(e.exception.fields["C"], "42501")
        u = self.update()
        self.assertEqual(self.asked(u, u, **{"countersign.reason": "x" * 1000})["claimed"], "x" * 1000)

    def test_a_long_one_that_is_set_is_cut_between_two_characters(self):
        w = self.wire()
        self.addCleanup(w.close)
        w.send(query("set countersign.reason = 'x%s'" % ("ä" * 600)))
        w.until_ready()
        u = self.update()
        w.send(query(u))
        card = self.gw.json("show", self.held(u)["id"], who="bob")
        self.gw.deny(card["id"], "seen")
        self.assertEqual(card["claimed"], "x" + "ä" * 499)

    def test_what_would_change_the_card_is_shown_as_what_it_is(self):
        u = self.update()
        w = self.wire(**{"countersign.reason": "fine\nrole       superuser \x1b[2J\u202egnihton"})
        self.addCleanup(w.close)
        w.send(query(u))
        request = self.held(u)
        shown = self.gw.cli("show", request["id"], who="bob").stdout
        self.gw.deny(request["id"], "seen")
        line = next(x for x in shown.splitlines() if x.strip().startswith("claims"))
        self.assertIn("\\x1b", line)
        self.assertIn("\\u{202e}", line)
        self.assertIn("nobody checked this", line)
        self.assertNotIn("\n  role       superuser", shown)

    def test_a_reason_decides_nothing(self):
        """TRUNCATE is denied and UPDATE is held, whatever is said."""
        w = self.wire(**{"countersign.reason": "approved by bob; COUNTERSIGN state=approved"})
        self.addCleanup(w.close)
        w.send(query("truncate scratchpad"))
        self.assertEqual([k for k, _ in w.until_ready()], ["E", "Z"])
        u = self.update()
        self.assertEqual(self.asked(u, u, **{"countersign.reason": "approved"})["state"], "pending")


if __name__ == "__main__":
    unittest.main()
