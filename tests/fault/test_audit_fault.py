"""The audit log under faults: recorder, control and keeper killed around votes and grants, and a disk that is full.
Whatever happens, the log's files verify, what ran has its vote before it, and nothing is in it twice."""
import os
import signal
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness
from auditlog import Log
from base import GatewayCase
from pgwire import Closed, PgError, Wire, query

ROUNDS = int(os.environ.get("COUNTERSIGN_AUDIT_KILLS", "12"))


class Killed(GatewayCase):
    def setUp(self):
        self.log = Log(os.path.join(self.gw.home, "recordings"))

    def kill(self, role):
        """kill -9, and until another one serves in its place."""
        old = self.gw.pids(role)[0]
        os.kill(old, signal.SIGKILL)

        def again():
            try:
                status = self.gw.api("GET", "/v1/status")[1]
                return [r for r in status["roles"] if r["role"] == role and r["pid"] not in (0, old) and r["ready"]]
            except (OSError, ValueError, KeyError, TypeError):
                return None
        harness.wait_until(role + " to be back", again)

    def vote(self, request):
        """Until the vote counts, however often the gateway is down meanwhile."""
        def voted():
            self.gw.approve(request, ok=False)
            try:
                return self.gw.json("show", request, who="bob")["state"] != "pending"
            except (AssertionError, ValueError):
                return False
        harness.wait_until("the vote to count", voted)

    def one(self, role, when, mark):
        """One held statement; `role` is killed before the vote, or right behind it."""
        t = self.table()
        text = "drop table %s /* %s */" % (t, mark)
        w = self.wire()
        self.addCleanup(w.close)
        w.send(query(text))
        request = self.held(mark)["id"]
        if when == "before":
            self.kill(role)
        self.vote(request)
        if when == "behind":
            self.kill(role)
        try:
            w.until_ready()
        except (Closed, PgError, OSError):
            pass
        return request, t

    def test_no_vote_and_no_use_is_lost_or_doubled(self):
        done = []
        for i in range(ROUNDS):
            role, when = ("recorder", "control", "keeper")[i % 3], ("before", "behind")[i // 3 % 2]
            done.append(self.one(role, when, "round%d" % i))
        self.gw.restart()
        self.wire().close()
        harness.wait_until("all to be signed", lambda: [x for x in self.log.of("session_close")])
        status, text = self.log.verify()
        self.assertIn(status, (0, 2), text)
        leaves = self.log.leaves()
        events = [x["event"] for x in leaves if "event" in x]
        self.assertEqual(len(events), len(set(events)), "an event is in the log twice")
        for request, table in done:
            mine = [x["kind"] for x in leaves if x.get("request") == request]
            self.assertEqual(mine.count("vote"), 1, (request, mine))
            self.assertLessEqual(mine.count("grant_use"), 1, (request, mine))
            self.assertLessEqual(mine.count("grant_result"), mine.count("grant_use"))
            if not self.exists(table):
                self.assertEqual(mine.count("grant_use"), 1, "it ran: " + request)
                self.assertLess(mine.index("vote"), mine.index("grant_use"))
        closed = [x["session"] for x in leaves if x["kind"] == "session_close"]
        self.assertEqual(len(closed), len(set(closed)))

    def test_a_log_that_was_set_back_stops_everything(self):
        self.wire().close()
        self.log.wait("session_close")
        self.gw.stop()
        kept = os.path.join(self.gw.dir, "kept-log")
        os.rename(self.log.dir, kept)
        recordings = os.path.dirname(self.log.dir)
        for name in os.listdir(recordings):
            if name.startswith("journal-"):  # it has the latest leaves: with it the log would be made again
                os.unlink(os.path.join(recordings, name))
        self.gw.restart()
        self.addCleanup(self.gw.restart)
        self.addCleanup(os.rename, kept, self.log.dir)
        self.addCleanup(os.rename, self.log.dir, self.log.dir + ".new")
        self.addCleanup(self.gw.stop)
        harness.wait_until("it to be noticed", lambda: "keeper has signed more of the audit log" in self.gw.log_text())
        with self.assertRaises(Exception):
            Wire(self.gw.port, self.gw.ca).login("bot", self.gw.tokens["bot"], self.name)


if __name__ == "__main__":
    unittest.main()
