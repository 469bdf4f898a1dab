"""Clocks that are set, months that end, disks that are slow: the whole gateway, from twins of its programs whose clock
and disk a test can play with (tests/fault/twins/twin.c)."""
import os
import re
import shutil
import struct
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness
from base import fresh_name
from pgwire import Wire, error_of, kinds, query

HOUR = 3600 * 1000
DAY = 24 * HOUR


class TwinCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pg = harness.shared_postgres()
        cls.name = fresh_name("db")
        cls.roles = harness.make_database(cls.pg, cls.name)
        cls.programs = harness.scratch("twins")
        twins = os.path.join(harness.BUILD, "tests", "fault", "twins")
        for name in os.listdir(twins):
            if os.path.isfile(os.path.join(twins, name)) and os.access(os.path.join(twins, name), os.X_OK):
                shutil.copy2(os.path.join(twins, name), cls.programs)
        cls.orders = open(os.path.join(cls.programs, "twin.ctl"), "w+b", buffering=0)
        cls.order()
        cls.gw = harness.Gateway([harness.target_of(cls.pg, cls.name, cls.roles)], programs=cls.programs)
        try:
            cls.gw.start().people()
        except Exception:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.order()
        cls.gw.stop()
        cls.gw.destroy()
        cls.orders.close()
        shutil.rmtree(cls.programs, ignore_errors=True)

    @classmethod
    def order(cls, wall_ms=0, sync_ms=0):
        os.pwrite(cls.orders.fileno(), struct.pack("<qQ", wall_ms, sync_ms), 0)

    def setUp(self):
        self.addCleanup(self.order)

    def session(self, who="bot"):
        before = {s["id"] for s in self.gw.json("sessions")["sessions"]}
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        w.login(who, self.gw.tokens[who], self.name)
        w.id = harness.wait_until("the session", lambda: [s["id"] for s in self.gw.json("sessions")["sessions"] if s["id"] not in before])[0]
        return w

    def insert(self, w, n):
        self.assertEqual(kinds(w.ask(query("insert into scratchpad values (%d)" % n))), "CZ")

    def numbers(self, w):
        """What the recording of an ended session says was inserted, in order."""
        w.send(b"X\0\0\0\4")
        frames = harness.wait_until("the end of the recording", lambda: (
            lambda fs: fs if fs and fs[-1]["kind"] == "session_close" else None)(self.gw.recording(w.id)))
        return [int(m.group(1)) for f in frames if f["kind"] == "action" for m in [re.search(r"values \((\d+)\)", f.get("text") or "")] if m]


class Clock(TwinCase):
    def test_a_clock_that_is_set_by_hours_loses_nothing_and_revives_nothing(self):
        w = self.session()
        waiting = self.session()
        sql = "delete from scratchpad where n = -1"
        waiting.send(query(sql))
        request = self.gw.wait_pending()[0]["id"]
        self.insert(w, 1)
        self.order(wall_ms=5 * HOUR)
        self.insert(w, 2)
        # Longer than `within`: it is over, and stays so when the clock is set back behind its beginning.
        self.assertEqual(kinds(waiting.until_ready())[-2:], "EZ")
        self.gw.wait_state(request, "expired")
        self.order(wall_ms=-5 * HOUR)
        self.insert(w, 3)
        refused = self.gw.approve(request, ok=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertEqual(self.gw.json("show", request, who="bob")["state"], "expired")
        # The store's own clock went on from where it was: what is asked now can be approved.
        waiting.send(query(sql))
        again = self.gw.wait_pending()[0]["id"]
        self.assertNotEqual(again, request)
        self.gw.approve(again)
        self.assertEqual(kinds(waiting.until_ready())[-2:], "CZ")
        self.assertEqual(self.numbers(w), [1, 2, 3])

    def test_a_new_month_has_a_key_of_its_own_and_what_is_open_goes_on(self):
        w = self.session()
        self.insert(w, 11)
        first = re.findall(r"record-key name=(\S+)", self.gw.log_text())[-1]
        self.order(wall_ms=32 * DAY)
        second = harness.wait_until("the key of the next month", lambda: [
            k for k in re.findall(r"record-key name=(\S+)", self.gw.log_text()) if k != first], patience=harness.PATIENCE + 90)[-1]
        self.assertRegex(second, r"^recording/\d{4}-\d\d$")
        self.insert(w, 12)
        late = self.session()
        self.insert(late, 21)
        # The recorder comes back: the old session goes on with a key that is sealed to the new month's.
        pid = self.gw.pids("recorder")[0]
        os.kill(pid, 9)
        harness.wait_until("another recorder", lambda: self.gw.pids("recorder")[0] != pid)
        self.insert(w, 13)
        self.insert(late, 22)
        # And back into the month before, whose key is known.
        self.order()
        self.insert(w, 14)
        self.assertEqual(self.numbers(w), [11, 12, 13, 14])
        self.assertEqual(self.numbers(late), [21, 22])


class SlowDisk(TwinCase):
    def test_what_changes_something_waits_for_the_disk_and_what_reads_does_not(self):
        reader, writers = self.session(), [self.session() for _ in range(4)]
        self.order(sync_ms=2000)
        order, threads = [], []

        def change(i):
            self.insert(writers[i], 100 + i)
            order.append("change")
        for i in range(len(writers)):
            threads.append(threading.Thread(target=change, args=(i,)))
            threads[-1].start()
        for _ in range(5):
            self.assertEqual(kinds(reader.ask(query("select 1"))), "TDCZ")
            order.append("read")
        for t in threads:
            t.join()
        self.assertEqual(order[:5], ["read"] * 5, "reading waited for a disk that takes two seconds")
        self.assertEqual(order.count("change"), len(writers))
        # A held action passes through the store and the record, both slow.
        writers[0].send(query("delete from scratchpad where n = -2"))
        self.gw.approve(self.gw.wait_pending()[0]["id"], timeout=harness.PATIENCE)
        self.assertEqual(kinds(writers[0].until_ready())[-2:], "CZ")
        self.order()
        for i, w in enumerate(writers):
            self.assertEqual(self.numbers(w), [100 + i])
        status = self.gw.api("GET", "/v1/status")[1]["roles"]
        self.assertTrue(all(r.get("restarts", 0) == 0 for r in status), "a role was restarted for being slow")


if __name__ == "__main__":
    unittest.main()
