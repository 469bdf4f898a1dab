"""What a running gateway leaves, checked by both verifiers from its files alone: while it runs, after it has stopped, and
after it was killed. tests/peer/test_verify.py changes evidence in every way; this shows that the real one is of that form."""
import contextlib
import io
import os
import shutil
import signal
import subprocess
import threading
import unittest

import harness
from base import GatewayCase
from pgwire import query
from test_verify import second


class Live(GatewayCase):
    def setUp(self):
        self.recordings = os.path.join(self.gw.home, "recordings")
        harness.wait_until("the log's first signature", lambda: os.path.exists(self.recordings + "/log/checkpoint"))
        self.copies = harness.scratch("evidence")
        self.addCleanup(shutil.rmtree, self.copies)

    def run_held(self, text, approve=True):
        """One session with a held statement; its id."""
        w = self.wire()
        w.send(query(text))
        request = self.held(text)
        if approve:
            self.gw.approve(request["id"])
        else:
            self.gw.deny(request["id"], "not today")
        w.until_ready()
        w.close()
        return self.gw.json("show", request["id"], who="bob")["session"]

    def first(self, path, *options):
        r = self.gw.cli("verify", path, *options, ok=False)
        self.assertEqual(r.stderr, "")
        return r.returncode, r.stdout

    def both(self, path, *options):
        status, text = self.first(path, *options)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            other = second().main([path, *options])
        if "Still in the journal" in text:
            # What is newer than the checkpoint and in no file yet, the second one, which reads no journal, does not see.
            self.assertLessEqual({status, other}, {0, 2}, text + "---\n" + out.getvalue())
        else:
            self.assertEqual(status, other, text + "---\n" + out.getvalue())
        return status, text

    def copy(self):
        """As docs/operations.md says: the checkpoint first; again, if a name was gone when cp came to it."""
        to = os.path.join(self.copies, "copy-%d" % len(os.listdir(self.copies)))
        subprocess.run(["bash", "-c", 'mkdir -p "$2/log" && cp "$1/log/checkpoint" "$1/log/log.pub" "$2/log" && until cp -rn "$1/." "$2"; do sleep 0.1; done',
                        "copy", self.recordings, to], check=True, timeout=harness.PATIENCE)
        return to

    def when(self, status):
        """A copy for which verify ends with this status, as soon as there is one."""
        def look():
            copy = self.copy()
            is_now, text = self.first(copy)
            self.assertIn(is_now, (0, 2), text)  # never tampered, never missing, at any moment
            return copy if is_now == status else None
        return harness.wait_until("verify to end with %d" % status, look)

    def test_while_it_runs_and_when_all_sessions_have_ended(self):
        approved = self.run_held("drop table " + self.table())
        denied = self.run_held("drop table " + self.table(), approve=False)
        w = self.wire()
        w.ask(query("select 1"))
        harness.wait_until("the open session to be seen", lambda: self.first(self.recordings)[0] == 2)
        w.close()
        copy = self.when(0)
        self.assertEqual(self.both(copy)[0], 0)
        for session in (approved, denied):
            self.assertEqual(self.first(copy, "--session", session)[0], 0)
            bundle = os.path.join(self.copies, session)
            self.gw.cli("export", "--bundle", session, "-o", bundle, "--directory", self.recordings)
            self.assertEqual(self.both(bundle, "--key", copy + "/log/log.pub")[0], 0)
            path = "%s/%s.csr" % (copy, session)
            with open(path, "rb") as f:
                data = bytearray(f.read())
            data[-40] ^= 1
            with open(path, "wb") as f:
                f.write(data)
            status, text = self.both(copy)
            self.assertEqual(status, 1)
            self.assertIn(session + ".csr, frame", text)

    def test_a_copy_that_is_made_while_sessions_come_and_go_is_never_called_tampered(self):
        stop = threading.Event()

        def clients():
            while not stop.is_set():
                w = self.wire()
                w.ask(query("select 1"))
                w.close()
        busy = [threading.Thread(target=clients) for _ in range(3)]
        for t in busy:
            t.start()
        try:
            for _ in range(8):
                status, text = self.both(self.copy())
                self.assertIn(status, (0, 2), text)
        finally:
            stop.set()
            for t in busy:
                t.join()
        self.assertEqual(self.both(self.when(0))[0], 0)

    def test_a_log_goes_on_from_its_older_checkpoint_and_not_back_to_it(self):
        self.wire().close()
        before = self.when(0)
        self.wire().close()
        harness.wait_until("the log to go on", lambda: open(self.recordings + "/log/checkpoint").read()
                           != open(before + "/log/checkpoint").read())
        after = self.when(0)
        self.assertEqual(self.both(after, "--since", before + "/log/checkpoint")[0], 0)
        self.assertEqual(self.both(before, "--since", after + "/log/checkpoint")[0], 1)

    def test_after_an_orderly_stop_and_after_it_was_killed(self):
        self.run_held("drop table " + self.table())
        w = self.wire()
        w.ask(query("select 1"))
        self.gw.stop()
        self.addCleanup(lambda: self.gw.process.poll() is None or self.gw.restart())
        w.close()
        self.assertEqual(self.both(self.recordings)[0], 0)
        self.gw.restart()
        w = self.wire()
        w.ask(query("select 2"))
        for pid in [self.gw.process.pid, *self.gw.pids("recorder")]:
            os.kill(pid, signal.SIGKILL)
        self.gw.process.wait(harness.PATIENCE)
        w.close()
        status, text = self.both(self.recordings)
        self.assertIn(status, (0, 2), text)
        self.gw.restart()
        self.assertEqual(self.both(self.when(0))[0], 0)

    def test_what_a_power_loss_takes_from_files_verify_reads_out_of_the_journal(self):
        session = self.run_held("drop table " + self.table())
        w = self.wire()
        w.ask(query("select 1"))
        harness.wait_until("the session's end to be signed", lambda: self.first(self.recordings, "--session", session)[0] == 0)
        for pid in [self.gw.process.pid, *self.gw.pids("recorder")]:
            os.kill(pid, signal.SIGKILL)
        self.gw.process.wait(harness.PATIENCE)
        self.addCleanup(lambda: self.gw.process.poll() is None or self.gw.restart())
        w.close()
        before = self.copy()
        kept = self.first(before)
        self.assertIn(kept[0], (0, 2))
        bundle = os.path.join(self.copies, "before")
        self.gw.cli("export", "--bundle", session, "-o", bundle, "--directory", before)
        # Everything that was written since the start is still in the journal's first file; no other file reached the disk.
        self.assertTrue(os.path.exists(before + "/journal-00000001.csj"), os.listdir(before))
        after = self.copy()
        for name in os.listdir(after):
            if name.endswith(".csr"):
                os.unlink(os.path.join(after, name)) if name.startswith(session) else os.truncate(os.path.join(after, name), 700)
        shutil.rmtree(after + "/log/tile")
        os.unlink(after + "/log/head")
        status, text = self.first(after)
        self.assertEqual(status, kept[0], text)
        self.assertRegex(text, "Still in the journal: [1-9][0-9]* frames of recordings, [1-9][0-9]* leaves")
        again = os.path.join(self.copies, "again")
        self.gw.cli("export", "--bundle", session, "-o", again, "--directory", after)
        with open(bundle, "rb") as a, open(again, "rb") as b:
            self.assertEqual(a.read(), b.read())
        # The second verifier reads no journal: it says so, and that something is missing.
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            self.assertIn(second().main([after]), (1, 3))
        self.assertIn("journal", out.getvalue())
        # Without the journal nothing tells this from files that somebody cut.
        os.unlink(after + "/journal-00000001.csj")
        self.assertIn(self.first(after)[0], (1, 3))
        self.gw.restart()
        self.assertEqual(self.both(self.when(0))[0], 0)


if __name__ == "__main__":
    unittest.main()
