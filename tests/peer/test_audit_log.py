"""The audit log that a running gateway writes: what is in it, whose word it is, and that it is signed. It is read from
its files alone, by the verifier that was written from docs/format.md."""
import hashlib
import json
import os
import unittest

import harness
from auditlog import Log
from base import GatewayCase
from pgwire import Wire, kinds, query


class AuditLog(GatewayCase):
    def setUp(self):
        self.log = Log(os.path.join(self.gw.home, "recordings"))

    def run_held(self, text):
        """One held statement, approved; its session and request."""
        w = self.wire()
        self.addCleanup(w.close)
        w.send(query(text))
        request = self.held(text)
        self.gw.approve(request["id"])
        w.until_ready()
        w.close()
        return request

    def test_a_held_action_from_the_question_to_its_result(self):
        t = self.table()
        request = self.run_held("drop table " + t)
        id = request["id"]
        held = self.log.wait("decision", request=id)
        decision = self.log.wait("decision", session=held[0]["session"], n=held[0]["n"])
        self.assertEqual([(d["outcome"], d.get("request")) for d in decision], [(1, None), (1, id)])
        use = self.log.wait("grant_use", request=id)
        result = self.log.wait("grant_result", request=id)
        self.assertEqual((len(held), len(use), len(result)), (1, 1, 1))
        self.assertEqual(held[0]["digest"], use[0]["digest"])
        self.assertEqual(use[0]["grant"], result[0]["grant"])
        self.assertEqual(result[0]["outcome"], 2)
        vote = self.log.wait("vote", request=id)
        self.assertEqual([(v["digest"], v["outcome"]) for v in vote], [(use[0]["digest"], 2)])
        order = [x["kind"] for x in self.log.leaves() if x.get("request") == id]
        self.assertEqual(order, ["decision", "vote", "decided", "grant_use", "grant_result"])
        self.assertFalse(self.exists(t))

    def test_whoever_comes_in_and_whatever_is_set_up_is_in_it_and_nobody_is_named(self):
        self.gw.add_user("zacharias", "engineers")
        self.assertEqual(len(self.log.wait("change", 4, what="user-add")), 4)  # the cast and this one
        w = self.wire()
        w.close()
        with self.assertRaises(Exception):
            Wire(self.gw.port, self.gw.ca).login("bot", "wrong-" + self.gw.tokens["bot"], self.name)
        failed = self.log.wait("login", outcome=0)
        self.assertIn("scram failed", failed[0]["what"])
        good = self.log.of("login", outcome=2)
        opened = self.log.of("session_open")
        self.assertTrue({x["session"] for x in opened} <= {x["session"] for x in good})
        self.gw.recording(good[0]["session"], ok=False)
        self.log.wait("replay", session=good[0]["session"])
        rules = self.log.wait("rules")
        self.assertEqual({x["policy"] for x in opened}, {x["policy"] for x in rules})
        self.gw.stop()
        self.addCleanup(self.gw.restart)
        for folder, _, files in os.walk(self.log.dir):
            for name in files:
                with open(os.path.join(folder, name), "rb") as f:
                    self.assertNotRegex(f.read(), b"zacharias|local:|alice|bob")

    def test_the_rules_in_force_are_named_by_the_hash_of_their_file(self):
        path = self.gw.config_path
        with open(path, "rb") as f:
            before = f.read()

        def back():
            with open(path, "wb") as f:
                f.write(before)
            self.gw.cli("reload")
        first = self.log.wait("rules", rules=hashlib.sha256(before).hexdigest())[0]
        self.addCleanup(back)
        with open(path, "ab") as f:
            f.write(b"# nobody's business\n")
        self.gw.cli("reload")
        other = self.log.wait("rules", rules=hashlib.sha256(before + b"# nobody's business\n").hexdigest())[0]
        self.assertEqual(first["policy"], other["policy"])  # a comment decides nothing

    def test_who_may_reads_names_and_reasons_and_the_log_says_so(self):
        self.gw.cli("user", "add", "ann", "--groups", "countersign-auditors")
        self.gw.cli("user", "disable", "ann")
        w = self.wire()
        w.close()
        self.log.wait("change", what="user-disable")
        self.log.wait("session_close")
        before = self.log.size()
        leaves = self.gw.json("log", "--from", "0", "--limit", "5000")["leaves"]
        self.assertEqual([x["leaf"] for x in leaves], list(range(len(leaves))))
        self.assertGreaterEqual(len(leaves), before)
        self.assertEqual({json.dumps(x) for x in leaves if any(isinstance(v, dict) for v in x.values())}, set())  # all opened
        added, = [x for x in leaves if x["kind"] == "change" and x.get("subject") == "ann" and x["what"] == "user-add"]
        self.assertRegex(added["who"], "^uid [0-9]+ \\(local socket\\)$")
        self.assertIn("countersign-auditors", added["words"])
        opened = [x["who"] for x in leaves if x["kind"] == "session_open"]
        self.assertIn("agent bot on behalf of person alice", opened)
        self.assertIn("agent bot on behalf of person alice", [x["who"] for x in leaves if x["kind"] == "login" and x["outcome"] == 2])
        read = self.log.wait("read")
        self.assertTrue(all("leaves" in x["what"] for x in read))
        self.assertEqual(len(self.gw.json("log", "--limit", "3")["leaves"]), 3)
        text = self.gw.cli("log", "--limit", "40").stdout
        self.assertIn("user-disable", text)
        for who in ("bot", "alice"):
            status, body = self.gw.api("GET", "/v1/log", who=who, local=False)  # root on the local socket may, whoever's the token
            self.assertEqual(status, 403)
            self.assertIn("countersign-auditors", body["message"])

    def test_leaves_are_selected_by_time_kind_session_and_name_and_what_is_left_out_is_said(self):
        w = self.wire()
        kinds(w.ask(query("select 1")))
        w.close()
        self.log.wait("session_close")
        harness.wait_until("it to be signed", lambda: any(x["kind"] == "session_close" for x in self.gw.json("log", "--from", "0", "--limit", "5000")["leaves"]))
        everything = self.gw.json("log", "--from", "0", "--limit", "5000")
        self.assertEqual((everything["passed_over"], everything["next"]), (0, None))
        leaves = everything["leaves"]

        def fits(want, *options):
            """The command gives the leaves that `want` says, of those that were there before."""
            got = self.gw.json("log", *options, "--limit", "5000")
            self.assertEqual([x["leaf"] for x in got["leaves"] if x["leaf"] < len(leaves)], [x["leaf"] for x in leaves if want(x)], options)
            self.assertGreaterEqual(got["passed_over"], sum(not want(x) for x in leaves))
            return got["leaves"]
        self.assertGreater(len(fits(lambda x: x["kind"] == "login", "--kind", "login")), 0)
        session = next(x["session"] for x in leaves if x["kind"] == "session_close")
        self.assertGreater(len(fits(lambda x: x.get("session") == session, "--session", session)), 1)
        alice = fits(lambda x: "alice" in x.get("who", "") or "alice" in x.get("subject", ""), "--who", "alice")
        self.assertGreater(len(alice), 1)
        fits(lambda x: x["kind"] == "login" and "alice" in x["who"], "--who", "alice", "--kind", "login")
        middle = leaves[len(leaves) // 2]["t"]
        # The milliseconds of the log, to the second of the option.
        fits(lambda x: x["t"] >= middle[:19], "--since", middle[:19] + "Z")
        fits(lambda x: x["t"] < middle[:19], "--until", middle[:19] + "Z")
        fits(lambda x: True, "--since", "30d")
        fits(lambda x: False, "--until", "1999-12-31")
        # A name that was looked for is in no public value of the log; a page says what it left out.
        self.assertFalse(any("alice" in x["what"] for x in self.gw.json("log", "--kind", "read", "--limit", "5000")["leaves"]))
        logins = sum(x["kind"] == "login" for x in leaves)
        text = self.gw.cli("log", "--kind", "login", "--limit", "1").stdout
        if logins > 1:
            self.assertRegex(text, r"1 shown, \d+ that do not fit passed over; leaves \d+ to \d+ were not looked at: go on with --from \d+")
        else:
            self.assertIn("1 shown", text)
        for wrong in (("--kind", "nonsense"), ("--session", "x"), ("--who", "x" * 41)):
            self.assertEqual(self.gw.cli("log", *wrong, ok=False).returncode, 1, wrong)
        for wrong in (("--since", "yesterday"), ("--until", "2026-13-01"), ("--since", "2026-11-23T25:00Z")):
            self.assertEqual(self.gw.cli("log", *wrong, ok=False).returncode, 2, wrong)

    def test_a_session_and_the_last_value_of_its_recording(self):
        w = self.wire()
        kinds(w.ask(query("select 1")))
        before = {x["session"] for x in self.log.of("session_close")} if self.log.size() else set()
        w.close()
        end = harness.wait_until("the end of it", lambda: [x for x in self.log.of("session_close") if x["session"] not in before])[0]
        self.assertEqual(end["what"], "closed")
        with open(os.path.join(self.gw.home, "recordings", end["session"] + ".csr"), "rb") as f:
            self.assertEqual(f.read()[-32:].hex(), end["chain"])
        self.assertEqual([x["target"] for x in self.log.of("session_open", session=end["session"])], [self.name])
        # A plain allowed read is the recording's business alone.
        self.assertEqual(self.log.of("decision", session=end["session"]), [])

    def test_it_verifies_while_it_grows_and_goes_on_from_any_older_checkpoint(self):
        self.wire().close()
        self.log.wait("session_close")
        kept = os.path.join(self.gw.dir, "kept")
        with open(self.log.path("checkpoint"), "rb") as f, open(kept, "wb") as to:
            to.write(f.read())
        size = self.log.size()
        self.wire().close()
        harness.wait_until("the log to grow", lambda: self.log.size() > size)
        harness.wait_until("a moment without a new checkpoint", lambda: self.log.verify("--since", kept)[0] in (0, 2))

    def test_after_an_orderly_stop_everything_is_signed(self):
        w = self.wire()
        kinds(w.ask(query("select 1")))
        self.gw.stop()
        self.addCleanup(self.gw.restart)
        size = self.log.size()
        with open(self.log.path("head")) as f:
            self.assertEqual(int(f.read().split("\n")[1]), size)
        status, text = self.log.verify()
        self.assertEqual(status, 0, text)
        self.assertEqual(self.log.leaves()[0]["kind"], "start")
        w.close()
        opened = {x["session"] for x in self.log.of("session_open")}
        self.assertEqual(opened - {x["session"] for x in self.log.of("session_close")}, set())


if __name__ == "__main__":
    unittest.main()
