"""What a target answers, and what COPY brings, in the record: `record: full | head | none` of a rule, `durability`, and what
replay shows of it."""
import hashlib
import os
import signal
import struct
import sys
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness
from base import GatewayCase
from pgwire import SYNC, bind, cstr, describe, execute, kinds, message, parse, query

HEAD = 65536
RULES = """
rules:
  - name: read
    who: { groups: [agents, engineers] }
    target: {}
    when: |
      sql.effects.all(e, e in ["session", "read"]) && !("numbers" in sql.functions)
    then: allow
  - name: quiet
    who: { groups: [silent] }
    target: {}
    then: allow
    record: none
    durability: async
  - name: whole
    who: { groups: [silent] }
    target: {}
    when: |
      sql.text.contains("all of it")
    then: allow
    record: full
  - name: strict
    who: { groups: [careful] }
    target: {}
    then: allow
    record: full
    durability: strict
  - name: hasty
    who: { groups: [hasty] }
    target: {}
    then: allow
    durability: async
  - name: change
    who: { groups: [agents, engineers] }
    target: {}
    when: |
      sql.effects.exists(e, !(e in ["session", "read"]))
    then: hold
    run_as: elevated
    record: full
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
"""


def raw(messages, kinds_):
    """The messages of these kinds as they came over the wire."""
    return b"".join(k.encode() + struct.pack("!I", len(b) + 4) + b for k, b in messages if k in kinds_)


class Record(GatewayCase):
    RULES = RULES

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.gw.add_user("sam", "silent")
        cls.gw.add_user("cara", "careful")
        cls.gw.add_user("hal", "hasty")

    def begin(self, who="bot"):
        before = {s["id"] for s in self.gw.json("sessions")["sessions"]}
        w = self.wire(who)
        self.last = next(s["id"] for s in self.gw.json("sessions")["sessions"] if s["id"] not in before)
        return w

    def recorded(self, w):
        """The frames of the session that was begun last, after its end."""
        w.close()
        harness.wait_until("the session to end", lambda: any(
            s["id"] == self.last and s.get("closed") for s in self.gw.json("sessions", "--all")["sessions"]))
        harness.wait_until("the recording's end", lambda: self.gw.json("replay", self.last, "--find", "the client closed")["finished"])
        return self.gw.recording(self.last)

    @staticmethod
    def said(frames, n, key="row"):
        return [m[key] for f in frames if f["kind"] in ("data", "result") and f["n"] == n for m in f.get("said", ()) if key in m]

    @staticmethod
    def of(frames, kind, n):
        return [f for f in frames if f["kind"] == kind and f["n"] == n]

    def test_rows_are_recorded_and_shown(self):
        w = self.begin()
        w.ask(query("select 1 as one, 'a | b' as two, null as three; select E'x\\ny' as line"))
        w.ask(parse("select $1::int as i, 'p'::text as p"), bind(("7",)), describe("P"), execute(), SYNC)
        w.ask(parse("select 258::int", "named"), describe("S", "named"), bind((), "named", results=(1,)), execute(), SYNC)
        w.ask(query("select 1/0"))
        w.ask(query("copy (select * from generate_series(1, 3)) to stdout"))
        frames = self.recorded(w)
        self.assertEqual(self.said(frames, 1, "columns"), [["one", "two", "three"], ["line"]])
        self.assertEqual(self.said(frames, 1), [["1", "a | b", None], ["x\ny"]])
        self.assertEqual(self.said(frames, 2, "columns"), [["i", "p"]])
        self.assertEqual(self.said(frames, 2), [["7", "p"]])
        self.assertEqual(self.said(frames, 3), [[{"hex": "00000102", "bytes": 4}]])
        self.assertEqual(self.said(frames, 4), [])
        self.assertEqual("".join(self.said(frames, 5, "copy")), "1\n2\n3\n")
        self.assertEqual([f for f in frames if f["kind"] == "rest"], [])
        # Small data is in the result itself.
        self.assertEqual([f["kind"] for f in frames if f.get("n") == 2], ["action", "result"])
        shown = self.gw.cli("replay", self.last).stdout
        for line in ("one | two | three", "1 | a | b | NULL", "7 | p", "\\x00000102 (4 bytes)"):
            self.assertIn(line, shown)
        found = self.gw.json("replay", self.last, "--find", "a | B")["frames"]
        self.assertEqual({f["kind"] for f in found}, {"action", "data"})

    def big(self, w, more=""):
        return w.ask(query("select i, repeat('x', 1000) as %s from generate_series(1, 200) i" % (more or "x")))

    def test_head_is_the_first_bytes_and_a_hash_of_the_others(self):
        w = self.begin()
        stream = raw(self.big(w), "TD")
        frames = self.recorded(w)
        data = self.of(frames, "data", 1)
        # Data stands between its action and the action's result.
        order = [f["kind"] for f in frames if f.get("n") == 1]
        self.assertEqual((order[0], order[-1], set(order[1:-1])), ("action", "result", {"data", "rest"}))
        self.assertEqual(sum(f["bytes"] for f in data), HEAD)
        rest, = self.of(frames, "rest", 1)
        self.assertEqual((rest["at"], rest["bytes"], rest["from"]), (HEAD, len(stream) - HEAD, "target"))
        self.assertEqual(rest["hash"], hashlib.sha256(stream[HEAD:]).hexdigest())
        self.assertEqual([r[0] for r in self.said(frames, 1)], [str(i) for i in range(1, 1 + len(self.said(frames, 1)))])
        self.assertIn("rest", self.gw.cli("replay", self.last).stdout)

    def test_none_is_counts_alone_and_the_most_recording_rule_wins(self):
        w = self.begin("sam")
        self.big(w)
        self.big(w, '"all of it"')
        w.ask(query("copy scratchpad (n) from stdin"), message("d", b"5\n"), message("c"))
        frames = self.recorded(w)
        self.assertEqual(self.of(frames, "data", 1) + self.of(frames, "rest", 1), [])
        self.assertEqual(self.of(frames, "result", 1)[0]["rows"], 200)
        self.assertEqual(self.said(frames, 2), [[str(i), "x" * 1000] for i in range(1, 201)])
        self.assertEqual(self.of(frames, "rest", 2), [])
        rest, = self.of(frames, "rest", 3)
        self.assertEqual((rest["from"], rest["bytes"], rest["hash"]), ("client", 7, ""))

    def test_copy_both_ways_is_recorded(self):
        w = self.begin("cara")
        lines = b"".join(b"%d\n" % i for i in range(60000))
        parts = [message("d", lines[i:i + 5000]) for i in range(0, len(lines), 5000)]
        self.assertIn("C", kinds(w.ask(query("copy scratchpad (n) from stdin"), *parts, message("d", b"x" * 0), message("c"))))
        out = raw(w.ask(query("copy scratchpad (n) to stdout")), "d")
        frames = self.recorded(w)
        self.assertEqual("".join(self.said(frames, 1, "copy")).encode(), lines)
        self.assertEqual({f["from"] for f in self.of(frames, "data", 1)}, {"client"})
        self.assertEqual(sum(f["bytes"] for f in self.of(frames, "data", 2)), len(out))

    def test_what_an_approved_statement_gives_is_recorded(self):
        t = self.table()
        w = self.begin()
        sql = "delete from %s where id < 3 returning id, note" % t
        w.send(query(sql))
        self.gw.approve(self.held(sql)["id"])
        self.assertEqual(kinds(w.until_ready()), "TDDCZ")
        frames = self.recorded(w)
        self.assertEqual(self.said(frames, 1), [["1", "row"], ["2", "row"]])

    def test_a_recorder_that_does_not_come_along_stops_the_target(self):
        """A full ring: nothing is dropped, nothing is passed unrecorded, and it goes on."""
        w = self.begin("cara")
        pid = self.gw.pids("recorder")[0]
        got = []
        size = 40 << 20
        th = threading.Thread(target=lambda: got.extend(self.big_one(w, size)))
        w.ask(query("select 'before'"))
        os.kill(pid, signal.SIGSTOP)
        try:
            w.sock.settimeout(harness.PATIENCE)
            th.start()
            th.join(3)
            self.assertTrue(th.is_alive(), "40 MiB went by a recorder that stood still")
        finally:
            os.kill(pid, signal.SIGCONT)
        th.join(harness.PATIENCE)
        self.assertFalse(th.is_alive())
        frames = self.recorded(w)
        self.assertEqual(len(raw(got, "D")), size // 1000 * 1011)
        at = [(f["at"], f["bytes"]) for f in self.of(frames, "data", 2)]  # the beginning: the answer is capped
        self.assertGreater(len(at), 100)
        self.assertEqual([a for a, n in at[1:]], [a + n for a, n in at[:-1]])
        result, = self.of(self.gw.json("replay", self.last, "--actions")["frames"], "result", 2)
        self.assertEqual((result["rows"], result["ok"]), (size // 1000, True))
        path = os.path.join(self.gw.home, "recordings", self.last + ".csr")
        self.assertGreater(os.path.getsize(path), size // 1000)

    @staticmethod
    def big_one(w, size):
        return w.ask(query("select repeat('y', 1000) from generate_series(1, %d)" % (size // 1000)))

    def test_strict_has_the_answer_on_disk_before_its_end_is_released(self):
        for i in range(3):
            w = self.begin("cara")
            w.ask(query("select 'the answer %d'" % i))
            self.gw.restart(signal.SIGKILL)  # and the ring's memory is gone
            frames = self.gw.recording(self.last)
            self.assertEqual(self.said(frames, 1), [["the answer %d" % i]])
            self.assertTrue(self.of(frames, "result", 1)[0]["ok"])
            w.sock.close()

    def recorder(self):
        return next(r["pid"] for r in self.gw.api("GET", "/v1/status")[1]["roles"] if r["role"] == "recorder")

    def change(self, w, name):
        self.assertIn("C", kinds(w.ask(query("create temporary table %s (x int)" % name))))

    def test_async_does_not_wait_with_a_change_and_a_dead_recorder_loses_none(self):
        w, pid = self.begin("hal"), self.recorder()
        self.change(w, "before")
        os.kill(pid, signal.SIGSTOP)
        self.change(w, "meanwhile")  # nobody can write: it runs all the same
        os.kill(pid, signal.SIGKILL)
        # Not yet while there is no recorder: that a replay was asked for could not be logged.
        harness.wait_until("the change to be in the record", lambda: "table meanwhile" in self.gw.recording(self.last, ok=False).stdout)
        self.assertEqual(str(self.gw.recording(self.last)).count("table meanwhile"), 1)
        self.change(w, "afterwards")
        w.close()

    def test_async_may_lose_a_change_with_the_whole_gateway_and_the_record_is_whole_without_it(self):
        """What is not promised: it stood in memory only. What is: nothing in front of it is gone, nothing is called tampered."""
        w = self.begin("hal")
        self.change(w, "before")
        harness.wait_until("the first change to be in the record", lambda: "table before" in self.gw.recording(self.last, ok=False).stdout)
        os.kill(self.recorder(), signal.SIGSTOP)
        self.change(w, "lost")
        self.gw.restart(signal.SIGKILL)  # the ring's memory is gone
        frames = harness.wait_until("the record after the start", lambda: self.gw.recording(self.last, ok=False).stdout)
        self.assertIn("table before", frames)
        self.assertNotIn("table lost", frames)
        w.sock.close()

        def verified():
            status = self.gw.cli("verify", os.path.join(self.gw.home, "recordings"), ok=False).returncode
            self.assertNotEqual(status, 1)
            return status in (0, 2)  # 3 until the first signature, which comes a second after the start
        harness.wait_until("the evidence to be whole", verified)


if __name__ == "__main__":
    unittest.main()
