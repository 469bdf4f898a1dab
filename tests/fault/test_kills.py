"""kill -9 of every role in turn while clients write and people approve. COUNTERSIGN_KILLS says how many (24), COUNTERSIGN_SEED
which ones. Nothing that a client was told is missing at the server or in the record; nothing approved runs twice."""
import os
import random
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness
from pgwire import Closed, PgError, Wire, kinds, query
from test_roles import RULES, RolesCase

KILLS = int(os.environ.get("COUNTERSIGN_KILLS", "24"))
SEED = int(os.environ.get("COUNTERSIGN_SEED", "1"))
ROLES = ["recorder", "control", "keeper", "gate", "dialer", "front", "probe"]
MORE = 1000000


class Kills(RolesCase):
    def setUp(self):
        self.stop = threading.Event()
        self.written, self.updated, self.asked = [], [], []
        self.next, self.lock, self.threads, self.broken, self.gone = 0, threading.Lock(), [], [], set()

    def number(self):
        with self.lock:
            self.next += 1
            return self.next

    def connect(self, who):
        try:
            return Wire(self.gw.port, self.gw.ca, timeout=20).login(who, self.gw.tokens[who], self.name)
        except (PgError, Closed, OSError, EOFError):
            time.sleep(0.05)
            return None

    def writer(self):
        """Inserts numbers, each once; remembers those that it was told are there."""
        while not self.stop.is_set():
            w = self.connect("bot")
            for _ in range(30):
                if w is None or self.stop.is_set():
                    break
                n = self.number()
                try:
                    if kinds(w.ask(query("insert into scratchpad values (%d)" % n))) == "CZ":
                        self.written.append(n)
                except (Closed, OSError, EOFError):
                    break
            if w is not None:
                w.close()

    def asker(self):
        """Has a row changed by an approved statement, each row once."""
        for k in range(1, 101):
            if self.stop.is_set():
                return
            w = self.connect("alice")
            while w is None and not self.stop.is_set():
                w = self.connect("alice")
            if w is None:
                return
            try:
                w.send(query("update orders set amount = amount + %d where id = %d" % (MORE, k)))
                self.asked.append(k)
                if kinds(w.until_ready())[-2:] == "CZ":
                    self.updated.append(k)
            except (Closed, PgError, OSError, EOFError):
                pass
            w.close()

    def approver(self):
        while not self.stop.is_set():
            try:
                for r in self.gw.pending():
                    self.gw.approve(r["id"], ok=False)
            except (AssertionError, OSError, ValueError, KeyError, TypeError):
                pass  # front or control is away
            time.sleep(0.05)

    def work(self, fn):
        def run():
            try:
                fn()
            except Exception as e:  # a thread's own mistake must not look like peace
                self.broken.append(e)
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def alive(self):
        try:
            return {r["role"]: r["pid"] for r in self.processes() if r["ready"] and r["pid"] > 0}
        except (OSError, ValueError):
            return {}

    def all_back(self):
        """Each role's process, none of them one that was killed."""
        return harness.wait_until("every role to serve", lambda: (
            lambda a: a if set(ROLES) <= set(a) and not self.gone & set(a.values()) else None)(self.alive()))

    def recorded(self):
        """The texts of all recordings."""
        texts = []
        folder = os.path.join(self.gw.home, "recordings")
        for name in os.listdir(folder):
            if name.endswith(".csr") and "-" not in name:
                texts += [f.get("text") or "" for f in self.gw.recording(name[:-4]) if f["kind"] == "action"]
        return texts

    def test_kill_9_of_every_role_loses_nothing_and_runs_nothing_twice(self):
        chance = random.Random(SEED)
        print("# seed %d, %d kills" % (SEED, KILLS), flush=True)
        before = dict(self.sql("select id, amount from orders"))
        try:
            for fn in (self.writer, self.writer, self.asker, self.approver):
                self.work(fn)
            killed = {}
            for i in range(KILLS):
                role = ROLES[i % len(ROLES)] if i < len(ROLES) else chance.choice(ROLES)
                pids = self.all_back()
                time.sleep(chance.random() * 0.2)
                os.kill(pids[role], signal.SIGKILL)
                self.gone.add(pids[role])
                killed[role] = killed.get(role, 0) + 1
            self.all_back()
            n = len(self.written)
            harness.wait_until("writing to go on", lambda: len(self.written) > n + 3)
        finally:
            self.stop.set()
            for t in self.threads:
                t.join()
        self.assertEqual(self.broken, [])
        print("# %s; %d inserts, %d held updates done of %d" % (killed, len(self.written), len(self.updated), len(self.asked)), flush=True)
        there = [r[0] for r in self.sql("select n from scratchpad")]
        self.assertEqual(len(there), len(set(there)), "an insert ran twice")
        self.assertEqual(set(self.written) - set(there), set(), "a client was told of an insert that is not there")
        after = dict(self.sql("select id, amount from orders"))
        for k in after:
            self.assertIn(after[k] - before[k], (0, MORE), "row %d was changed twice" % k)
        for k in self.updated:
            self.assertEqual(after[k] - before[k], MORE, "row %d: the client was told that it was changed" % k)
        self.assertGreater(len(self.updated), 0)
        harness.wait_until("the recorder to have copied everything", lambda: self.recorded_all(there))

    def recorded_all(self, there):
        texts = self.recorded()
        counts = {}
        for t in texts:
            counts[t] = counts.get(t, 0) + 1
        lacking = [n for n in there if counts.get("insert into scratchpad values (%d)" % n, 0) != 1]
        self.assertEqual(lacking, [], "what ran is in the record, once")
        return True


del RolesCase  # its tests are elsewhere

if __name__ == "__main__":
    unittest.main()
