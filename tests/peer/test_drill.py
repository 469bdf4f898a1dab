"""The keys' drill of docs/operations.md. tests/docs runs its commands as they stand; here is what they alone do not show: that the
steps are there, what a backup holds while others write, who may make one, and what comes back when a lost key is found."""
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
import unittest

import harness
from harness import wait_until

# Each heading of the drill, and commands that its blocks must hold: a step without its command would be tested by nobody.
STEPS = [("### Backup", ["countersign backup", "cp gw/master.key escrow.pem safe"]),
         ("### Restore", ["backup/state.db gw/state", "after the restore", "countersign replay"]),
         ("### The master key is lost", ["rm gw/master.key", "head -c 32 /dev/urandom", "countersign secret set", "countersign verify"]),
         ("### Reading with the escrow key", ["job-replayer backup/recordings", "--key escrow.key"]),
         ("### A new month", ["record-key name=recording/"])]


class Drill(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pg = harness.shared_postgres()
        cls.roles = harness.make_database(cls.pg, "drilled")

    def setUp(self):
        self.gw = harness.Gateway([harness.target_of(self.pg, "drilled", self.roles)])
        self.addCleanup(self.gw.destroy)
        self.gw.start().people()

    def backup(self):
        path = self.gw.json("backup")["path"]
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        return path

    def rows(self, path, sql):
        c = sqlite3.connect("file:%s?immutable=1" % path, uri=True)
        try:
            self.assertEqual(c.execute("pragma integrity_check").fetchall(), [("ok",)])
            return c.execute(sql).fetchall()
        finally:
            c.close()

    def set_master_key(self, name, previous=None):
        self.gw.master_key = "master_key: %s" % name + ("\nprevious_master_key: %s" % previous if previous else "")
        self.gw.configure(harness.RULES)

    def a_session(self, text):
        self.assertEqual(self.gw.psql("alice", "drilled", "select '%s'" % text).returncode, 0)
        return self.gw.json("sessions", "--all")["sessions"][0]["id"]

    def test_each_step_of_the_document_has_its_commands(self):
        with open(os.path.join(harness.ROOT, "docs", "operations.md")) as f:
            text = f.read()
        for heading, commands in STEPS:
            start = text.index("\n" + heading)
            end = re.search(r"\n##", text[start + 4:])
            part = text[start:start + 4 + end.start()]
            blocks = "".join(re.findall(r"^```sh\n(.*?)^```$", part, re.M | re.S))
            for command in commands:
                self.assertIn(command, blocks, heading)

    def test_a_backup_holds_what_was_acknowledged_before_it_while_others_write(self):
        made, stop = [], threading.Event()

        def write():
            while not stop.is_set():
                name = "user%d" % len(made)
                self.gw.cli("user", "add", name, "--groups", "engineers")
                made.append(name)
        worker = threading.Thread(target=write)
        worker.start()
        try:
            for n in (3, 6, 9):
                wait_until("%d users" % n, lambda: len(made) >= n)
                before = list(made)
                have = {r[0] for r in self.rows(self.backup(), "select id from principal")}
                self.assertLessEqual({"local:" + name for name in before}, have)
        finally:
            stop.set()
            worker.join()

    def test_a_backup_is_made_by_those_who_may_set_up_and_holds_no_password_in_clear(self):
        r = self.gw.api("POST", "/v1/backup", who="alice", local=False)
        self.assertEqual(r[0], 403)
        self.assertFalse(os.path.exists(os.path.join(self.gw.home, "state", "state.db.backup")))
        with open(self.backup(), "rb") as f:
            content = f.read()
        for secret in [self.roles["password"], self.roles["owner_password"], *self.gw.tokens.values()]:
            self.assertNotIn(secret.encode(), content)
        self.assertRegex(self.gw.log_text(), r"admin .*did=backup result=ok")

    def test_a_restored_store_knows_who_did_what_and_opens_its_secrets(self):
        session = self.a_session("cornflower")
        self.assertIn("cornflower", str(self.gw.recording(session)))
        # A store from before the audit log had its key does not go on with a log that has one.
        harness.wait_until("the audit log to be signed",
                           lambda: os.path.exists(os.path.join(self.gw.home, "recordings", "log", "checkpoint")))
        copy = shutil.copy(self.backup(), os.path.join(self.gw.dir, "copy.db"))
        self.gw.add_user("late", "engineers")
        self.gw.stop(signal.SIGKILL)
        state = os.path.join(self.gw.home, "state")
        shutil.rmtree(state)
        os.mkdir(state, 0o700)
        shutil.copy(copy, os.path.join(state, "state.db"))
        os.chmod(os.path.join(state, "state.db"), 0o600)
        self.gw.restart()
        self.assertEqual(self.gw.psql("alice", "drilled", "select 1").returncode, 0)
        self.assertNotEqual(self.gw.psql("late", "drilled", "select 1").returncode, 0)  # since the backup
        self.assertIn("cornflower", str(self.gw.recording(session)))

    def test_a_lost_key_that_is_found_again_opens_what_it_sealed(self):
        key = os.path.join(self.gw.home, "master.key")
        before = self.a_session("before")
        self.gw.recording(before)
        self.gw.stop()
        os.rename(key, key + ".lost")
        r = subprocess.run([self.gw.program, "serve", "--config", self.gw.config_path], env=self.gw.env, capture_output=True, text=True,
                           timeout=harness.PATIENCE)
        self.assertNotEqual(r.returncode, 0)
        self.assertFalse(os.path.exists(key))  # none is made where there is a store
        with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as f:
            f.write(os.urandom(32))
        self.gw.restart()
        refused = self.gw.psql("alice", "drilled", "select 1")
        self.assertIn("sealed under a master key that is not configured", refused.stderr)
        self.gw.cli("secret", "set", "drilled-ro", stdin=self.roles["password"])
        after = self.a_session("after")
        self.assertIn("after", str(self.gw.recording(after)))
        self.assertNotIn("select 'before'", self.gw.recording(before, ok=False).stdout)
        # Found: both keys, and everything opens.
        self.set_master_key("master.key", previous="master.key.lost")
        self.gw.cli("reload")
        self.assertEqual(self.gw.cli("secret", "rotate").returncode, 0)
        self.set_master_key("master.key")
        self.gw.cli("reload")
        self.assertIn("select 'before'", str(self.gw.recording(before)))
        self.assertIn("after", str(self.gw.recording(after)))
        self.assertEqual(self.gw.psql("alice", "drilled", "select 1").returncode, 0)

    def test_with_the_master_key_the_logs_key_is_lost_and_another_one_signs_when_the_first_ones_name_was_taken_away(self):
        recordings = os.path.join(self.gw.home, "recordings")
        log, key = os.path.join(recordings, "log"), os.path.join(self.gw.home, "master.key")

        def content(name):
            with open(os.path.join(log, name), "rb") as f:
                return f.read()

        def verify(with_key):
            return self.gw.cli("verify", recordings, "--key", with_key, ok=False).returncode
        self.a_session("before")
        self.gw.stop()
        first, kept = content("log.pub").decode().strip(), content("checkpoint")
        self.assertIn(verify(first), (0, 2))
        os.unlink(key)
        with open(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as f:
            f.write(os.urandom(32))
        self.gw.restart()
        wait_until("the missing signature to be told", lambda: "log-unsigned" in self.gw.log_text())
        # SECURITY: who may change state and master key cannot have another key sign under the name that people know.
        self.assertEqual((content("log.pub").decode().strip(), content("checkpoint")), (first, kept))
        self.gw.stop(signal.SIGKILL)  # an orderly stop would wait for a signature
        os.rename(os.path.join(log, "log.pub"), os.path.join(self.gw.dir, "first.pub"))
        self.gw.restart()
        wait_until("another key", lambda: os.path.exists(os.path.join(log, "log.pub")))
        wait_until("its signature", lambda: content("checkpoint") != kept)
        second = content("log.pub").decode().strip()
        self.assertNotEqual(first, second)
        self.gw.stop()
        self.assertIn(verify(second), (0, 2))
        self.assertEqual(verify(first), 1)
        # What was signed before still verifies, with the first key and the checkpoint that was kept.
        with open(os.path.join(log, "checkpoint"), "wb") as f:
            f.write(kept)
        self.assertIn(verify(first), (0, 2))


if __name__ == "__main__":
    unittest.main()
