"""Full disks. What cannot be recorded does not run; when there is room again, everything works again without a
restart; and nothing that was acknowledged is missing from the record."""
import os
import resource
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness
from auditlog import Log
from base import GatewayCase, fresh_name
from pgwire import Closed, PgError, Wire, bind, error_of, execute, kinds, message, parse, query

FLUSH = message("H")

MIB = 1 << 20


class Full:
    """A folder that can be made full and given room again: a tmpfs of its own whose size is changed where mounting
    is possible, otherwise a limit on the size of files of the process that writes there."""
    ROOM = 256 * MIB

    def __init__(self, path, process):
        self.path, self.process = path, process
        self.mounted = os.geteuid() == 0 and self.mount("size=%d,mode=0700" % self.ROOM)

    def mount(self, options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "countersign-test", self.path],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def limit(self, size):
        resource.prlimit(self.process(), resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def fill(self):
        if not self.mounted:
            self.limit(4096)
            return
        harness.wait_until("the file system to be as small as what is in it", self.shrink)

    def shrink(self):
        fs = os.statvfs(self.path)
        return self.mount("remount,size=%d" % ((fs.f_blocks - fs.f_bfree) * fs.f_frsize))

    def empty(self):
        if self.mounted:
            assert self.mount("remount,size=%d" % self.ROOM)
        else:
            self.limit(resource.RLIM_INFINITY)

    def destroy(self):
        if self.mounted:
            subprocess.run(["umount", "-l", self.path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class DiskCase(GatewayCase):
    FOLDER, ROLE = None, None

    @classmethod
    def setUpClass(cls):
        cls.pg = harness.shared_postgres()
        cls.name = fresh_name("db")
        cls.roles = harness.make_database(cls.pg, cls.name)
        cls.gw = harness.Gateway([harness.target_of(cls.pg, cls.name, cls.roles)])
        cls.disk = None
        try:
            where = os.path.join(cls.gw.home, cls.FOLDER)
            kept = where + ".before"
            shutil.copytree(where, kept)
            cls.disk = Full(where, lambda: cls.gw.pids(cls.ROLE)[0])
            if cls.disk.mounted:
                shutil.copytree(kept, where, dirs_exist_ok=True)
            cls.gw.start().people()
        except Exception:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.gw.stop()
        if cls.disk is not None:
            cls.disk.destroy()
        cls.gw.destroy()

    def setUp(self):
        harness.wait_until("the last test's full disk to be over", self.opens)
        self.before = self.gw.api("GET", "/v1/status")[1]["roles"]
        self.addCleanup(self.disk.empty)

    def tearDown(self):
        now = self.gw.api("GET", "/v1/status")[1]["roles"]
        self.assertEqual([(r["role"], r["pid"]) for r in now], [(r["role"], r["pid"]) for r in self.before], "a role was restarted")

    def opens(self):
        try:
            self.session().close()
            return True
        except PgError:
            return False

    def session(self, who="bot"):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        return w.login(who, self.gw.tokens[who], self.name)

    def count(self, n):
        return self.sql("select count(*) from scratchpad where n = %d" % n)[0][0]

    def number(self):
        return int(fresh_name("0").split("_")[2]) * 100000


class Recordings(DiskCase):
    FOLDER, ROLE = "recordings", "recorder"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.gw.add_user("filler", "engineers")

    def refused(self, w, sql):
        got = w.ask(query(sql))
        e = error_of(got)
        return e is not None and e["C"] == "53100"

    def fill_up(self):
        """Full, and the recorder has noticed. A session whose answer could not be recorded any more has ended."""
        w = self.session("filler")
        self.disk.fill()
        filler = "select '%s'" % ("f" * 60000)

        def noticed():
            try:
                return self.refused(w, filler)
            except (Closed, OSError):
                return True
        harness.wait_until("the first refusal", noticed)

    def room_again(self, w):
        self.disk.empty()
        harness.wait_until("recording to go on", lambda: kinds(w.ask(query("select 1"))) == "TDCZ")

    def test_nothing_runs_that_cannot_be_recorded_and_it_works_again_with_room(self):
        w, n = self.session(), self.number()
        session = self.my_session()
        self.assertEqual(kinds(w.ask(query("insert into scratchpad values (%d)" % n))), "CZ")
        self.fill_up()
        for _ in range(5):
            self.assertTrue(self.refused(w, "insert into scratchpad values (%d)" % (n + 1)))
            self.assertTrue(self.refused(w, "select 1"), "reading too")
        self.assertEqual((self.count(n), self.count(n + 1)), (1, 0))
        e = error_of(w.ask(query("select 1")))
        self.assertIn("cannot be recorded", e["M"])
        doctor = self.gw.cli("doctor", ok=False)
        self.assertEqual(doctor.returncode, 1)
        self.assertIn("record", doctor.stdout)
        self.room_again(w)
        self.assertEqual(kinds(w.ask(query("insert into scratchpad values (%d)" % (n + 2)))), "CZ")
        self.assertEqual(self.count(n + 2), 1)
        bad = [c for c in self.gw.json("doctor", ok=False)["checks"] if c["result"] == "BAD" and c["check"] != "target roles"]
        self.assertEqual(bad, [])
        w.send(b"X\0\0\0\4")
        texts = self.recorded(session)
        for k, times in ((n, 1), (n + 2, 1)):
            self.assertEqual(texts.count("insert into scratchpad values (%d)" % k), times, "acknowledged, so recorded")

    def my_session(self):
        return harness.wait_until("the session", lambda: [
            s["id"] for s in self.gw.json("sessions")["sessions"] if s["chain"][-1]["name"] == "bot"])[0]

    def recorded(self, session):
        frames = harness.wait_until("the end of the recording", lambda: (
            lambda fs: fs if fs and fs[-1]["kind"] == "session_close" else None)(self.gw.recording(session)))
        return [f.get("text") for f in frames if f["kind"] == "action"]

    def test_an_answer_that_cannot_be_recorded_is_not_released(self):
        """Rows of an action that was recorded, asked for when nothing can be recorded any more."""
        w = self.session()
        w.send(parse("select 'row ' || i from generate_series(1, 100) i"), bind(), execute(rows=10), FLUSH)
        got = [w.read()[0] for _ in range(13)]
        self.assertEqual("".join(got), "12" + "D" * 10 + "s")
        other = self.session("alice")
        self.fill_up()
        w.send(execute(rows=10), FLUSH)
        rest = b""
        try:
            while True:
                kind, body = w.read()
                rest += kind.encode() + body
        except (Closed, OSError):
            pass
        self.assertNotIn(b"row 11", rest)
        self.room_again(other)

    def test_no_new_session_while_it_is_full(self):
        w = self.session()
        self.fill_up()
        with self.assertRaises(PgError) as e:
            self.session()
        # The log-in itself has a leaf in the audit log, or there is none.
        self.assertEqual((e.exception.fields["S"], e.exception.fields["C"]), ("FATAL", "57P03"))
        self.room_again(w)
        self.assertEqual(kinds(self.session().ask(query("select 1"))), "TDCZ")

    def test_a_hold_is_refused_while_it_is_full_and_a_vote_counts_when_there_is_room(self):
        t = self.table()
        waiting = self.session()
        sql = "delete from %s where id = 1" % t
        waiting.send(query(sql))
        r = self.held(sql)
        other = self.session("alice")
        self.fill_up()
        # The vote is stored, but it is none before the audit log has it.
        refused = self.gw.approve(r["id"], ok=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("audit log cannot be written", refused.stderr)
        self.assertEqual(self.gw.json("show", r["id"], who="bob")["state"], "pending")
        self.assertEqual(self.sql("select count(*) from " + t)[0][0], 10)
        got = other.ask(query("drop table " + t))
        self.assertEqual(error_of(got)["C"], "53100")
        self.room_again(other)
        # Now the log has it, and what waits runs, once.
        self.assertEqual(kinds(waiting.until_ready()), "CZ")
        self.assertEqual(self.sql("select count(*) from " + t)[0][0], 9)
        self.assertEqual(len(Log(os.path.join(self.gw.home, "recordings")).wait("vote", request=r["id"])), 1)

    def test_many_changes_up_to_the_last_byte(self):
        """Every insert that was answered is at the server and in the record; every refused one is in neither."""
        w, n = self.session(), self.number()
        session = self.my_session()
        done, refused, cut_off = [], [], []
        for i in range(1000):
            if i == (5 if self.disk.mounted else 50):
                self.disk.fill()
            sql = "insert into scratchpad values (%d) /* %s */" % (n + i, "p" * 60000)
            try:
                (done if kinds(w.ask(query(sql))) == "CZ" else refused).append(n + i)
            except (Closed, OSError):  # the session ended, because a result could not be recorded: nobody was promised anything
                cut_off.append(n + i)
                break
            if len(refused) > 5:
                break
        self.assertLess(len(done), 1000, "the disk was never full")
        at_server = {r[0] for r in self.sql("select n from scratchpad where n between %d and %d" % (n, n + 1000))}
        self.assertEqual(at_server - set(cut_off), set(done))
        self.disk.empty()
        harness.wait_until("recording to go on", self.opens)
        # A session that was cut off has no session_close: there was no room for it either.
        texts = harness.wait_until("the recording", lambda: (
            lambda t: t if "(%d)" % done[-1] in t else None)(" ".join(f.get("text") or "" for f in self.gw.recording(session))))
        for k in done:
            self.assertEqual(texts.count("insert into scratchpad values (%d)" % k), 1, k)


class Store(DiskCase):
    FOLDER, ROLE = "state", "control"

    def test_a_hold_gets_a_clear_error_and_reading_goes_on(self):
        t = self.table()
        w = self.session()
        self.disk.fill()

        def refused(i=[0]):
            """Until SQLite has used up what it had reserved."""
            i[0] += 1
            w.send(query("drop table %s /* %d %s */" % (t, i[0], "w" * 30000)))
            while True:
                kind, body = w.read()
                if kind == "N":  # held after all: withdrawn
                    import pgwire
                    pgwire.cancel(self.gw.port, w.key, self.gw.ca)
                    w.until_ready()
                    return None
                if kind == "E":
                    got = error_of([(kind, body)])
                    w.until_ready()
                    return got
        e = harness.wait_until("a refused hold", refused)
        self.assertEqual(e["S"], "ERROR")
        self.assertIn("Countersign cannot hold this", e["M"])
        self.assertIn("space", e["M"])
        self.assertTrue(self.exists(t))
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ", "what needs no store goes on")
        r = self.gw.cli("user", "add", "too-late", ok=False)
        while r.returncode == 0:
            r = self.gw.cli("user", "add", fresh_name("more").replace("_", "-"), "--groups", ",".join("g%d" % i for i in range(200)), ok=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("space", r.stderr)
        self.disk.empty()
        self.gw.add_user(fresh_name("fits").replace("_", "-"), "engineers")
        w.send(query("drop table " + t))
        request = self.held("drop table " + t)
        self.gw.approve(request["id"])
        self.assertEqual(kinds(w.until_ready()), "CZ")
        self.assertFalse(self.exists(t))

    def test_a_vote_that_cannot_be_stored_is_not_given(self):
        t = self.table()
        w = self.session()
        sql = "drop table %s" % t
        w.send(query(sql))
        r = self.held(sql)
        self.disk.fill()
        voted = None
        for _ in range(2000):
            extra = self.gw.cli("user", "add", fresh_name("fill").replace("_", "-"), "--groups", ",".join("g%d" % i for i in range(200)), ok=False)
            if extra.returncode != 0:
                voted = self.gw.approve(r["id"], ok=False)
                break
        self.assertIsNotNone(voted, "the store was never full")
        if voted.returncode != 0:
            self.assertIn("space", voted.stderr)
            self.assertTrue(self.exists(t))
            self.assertEqual(self.gw.json("show", r["id"], who="bob")["state"], "pending")
            self.disk.empty()
            self.gw.approve(r["id"])
        self.disk.empty()
        got = w.until_ready()
        if kinds(got) == "EZ":  # approved, but the use could not be stored: it did not run, and says so
            self.assertTrue(self.exists(t))
            self.assertRegex(str(error_of(got)), "space|void|available")
        else:
            self.assertFalse(self.exists(t))


if __name__ == "__main__":
    unittest.main()
