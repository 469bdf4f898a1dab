"""Master keys and their rotation: where they come from, and that a kill at any moment loses no secret. What
keeper holds is locked, and cannot be looked at."""
import json
import os
import random
import re
import signal
import sys
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness
from auditlog import Log
from base import GatewayCase
from pgwire import Wire, kinds, query

SECRETS = 40


def new_key(path):
    with open(path, "wb") as f:
        f.write(os.urandom(32))
    os.chmod(path, 0o600)
    return os.path.basename(path)


class KeeperCase(GatewayCase):
    def keys(self, text):
        """Puts these lines in place of the master key's; the gateway must take them in."""
        self.gw.master_key = text
        self.gw.configure(self.RULES)

    def connects(self):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        try:
            w.login("bot", self.gw.tokens["bot"], self.name)
        except Exception as e:
            return str(e)
        return kinds(w.ask(query("select 1")))

    def pid(self, role):
        return next(r["pid"] for r in self.gw.api("GET", "/v1/status")[1]["roles"] if r["role"] == role)

    def rotate(self):
        """The audit log's key is one of the rows; it is made for the first signature."""
        harness.wait_until("the log's key", lambda: os.path.exists(os.path.join(self.gw.home, "recordings", "log", "log.pub")))
        return self.gw.json("secret", "rotate", ok=False)


class Rotation(KeeperCase):
    def test_a_new_key_without_a_restart(self):
        first, second = "master.key", new_key(os.path.join(self.gw.home, "second.key"))
        n = self.rotate()["secrets"]  # also the recordings' keys
        signed_by = Log(os.path.join(self.gw.home, "recordings")).key()
        self.assertEqual(self.connects(), "TDCZ")
        session = self.gw.json("sessions", "--all")["sessions"][0]["id"]
        self.assertEqual({k: v for k, v in self.rotate().items() if k != "secrets"}, {"rewrapped": 0, "unchanged": n, "failed": []})
        # The new key alone: nothing of old opens, and that is said; nothing is lost.
        self.keys("master_key: %s" % second)
        self.gw.cli("reload")
        harness.wait_until("the new key", lambda: "not configured" in self.connects())
        r = self.gw.cli("secret", "rotate", ok=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("master key that is not configured", r.stderr)
        # Both keys.
        self.keys("master_key: %s\nprevious_master_key: %s" % (second, first))
        self.gw.cli("reload")
        harness.wait_until("both keys", lambda: self.connects() == "TDCZ")
        self.gw.cli("secret", "set", "fresh", stdin="x")  # while it goes on: under the new key
        answer = self.rotate()
        # Each signature seals the audit log's key anew: it may have been under the new key by itself.
        self.assertEqual((answer["rewrapped"] + answer["unchanged"], answer["failed"]), (n + 1, []))
        self.assertIn(answer["unchanged"], (1, 2))
        self.assertRegex(self.gw.log_text(), r"admin .*did=secret-rotate rewrapped=%d unchanged=%d failed=0" % (
            answer["rewrapped"], answer["unchanged"]))
        # The old one goes.
        self.keys("master_key: %s" % second)
        self.gw.cli("reload")
        os.unlink(os.path.join(self.gw.home, first))
        harness.wait_until("the new key alone", lambda: self.connects() == "TDCZ")
        self.gw.restart()
        self.assertEqual(self.connects(), "TDCZ")
        self.assertEqual(self.rotate()["unchanged"], n + 1)
        # The audit log has the same key as before, and is signed with it.
        log = Log(os.path.join(self.gw.home, "recordings"))
        self.assertEqual(log.key(), signed_by)
        size = log.size()
        self.assertEqual(self.connects(), "TDCZ")
        harness.wait_until("the log to be signed again", lambda: log.size() > size)
        harness.wait_until("a moment without a new checkpoint", lambda: log.verify()[0] in (0, 2))
        # What was recorded before is replayed with its key, which was wrapped anew.
        self.assertIn("select 1", [f.get("text") for f in self.gw.recording(session)])

    def test_a_key_that_cannot_be_had_changes_nothing(self):
        before = self.gw.master_key
        for text, words in (("master_key: nowhere.key", "does not exist"),
                            ("master_key: { credential: absent }", "CREDENTIALS_DIRECTORY"),
                            ("master_key: { command: [/bin/false] }", "failed"),
                            ("master_key: { command: [/bin/echo, short] }", "no key's length"),
                            (before + "\nprevious_master_key: nowhere.key", "does not exist")):
            self.keys(text)
            r = self.gw.cli("reload", ok=False)
            self.assertEqual(r.returncode, 1, r.stdout)
            self.assertIn(words, r.stderr)
            self.assertEqual(self.connects(), "TDCZ")
        self.keys(before)
        self.gw.cli("reload")


class Killed(KeeperCase):
    """kill -9 of each role and of all, while keys are rotated back and forth."""

    def test_no_secret_is_lost(self):
        names = ["master.key", new_key(os.path.join(self.gw.home, "b.key"))]
        for i in range(SECRETS):
            self.gw.cli("secret", "set", "s%02d" % i, stdin="value %d" % i)
        total, halfway = self.rotate()["secrets"], set()
        self.assertGreaterEqual(total, SECRETS + 2)
        for round in range(45):
            role, delay = ("control", "keeper", "all")[round % 3], random.uniform(0.005, 0.06)
            if role in halfway:
                continue  # it has been killed in the middle of it
            names.reverse()
            self.keys("master_key: %s\nprevious_master_key: %s" % tuple(names))
            self.gw.cli("reload")
            victim = self.gw.process.pid if role == "all" else self.pid(role)
            killer = threading.Timer(delay, os.kill, (victim, signal.SIGKILL))
            killer.start()
            done = self.gw.cli("secret", "rotate", "--json", ok=False)
            killer.join()
            if role == "all":
                self.gw.process.wait(harness.PATIENCE)
                self.gw.restart()
            # Whatever was done: with both keys each one opens (rotate opens all), and the rest is made anew.
            answer = harness.wait_until("the rotation to end", self.whole, 20)
            self.assertEqual(answer["secrets"], total, done)
            self.assertEqual(answer["failed"], [], (round, role, delay))
            self.assertEqual(answer["rewrapped"] + answer["unchanged"], total)
            if 0 < answer["rewrapped"] < total:
                halfway.add(role)
            self.keys("master_key: %s" % names[0])  # and now they open with the new one alone
            self.gw.cli("reload")
            answer = harness.wait_until("the new key alone", self.whole, 20)
            self.assertEqual((answer["unchanged"], answer["failed"]), (total, []))
            harness.wait_until("a session", lambda: self.connects() == "TDCZ", 10)
        self.assertEqual(halfway, {"control", "keeper", "all"}, "no kill came in the middle: this test shows nothing")

    def whole(self):
        r = self.gw.cli("secret", "rotate", "--json", ok=False)
        if not r.stdout.startswith("{"):
            return None  # a role is starting
        answer = json.loads(r.stdout)
        return answer if "secrets" in answer else None


class Sources(KeeperCase):
    def restart_with(self, text):
        self.keys(text)
        self.gw.restart()

    def test_from_a_command_also_when_keeper_dies(self):
        with open(os.path.join(self.gw.home, "master.key"), "rb") as f:
            key = f.read()
        script = os.path.join(self.gw.home, "get-key")
        with open(script, "w") as f:
            f.write("#!/bin/sh\necho called >> %s/calls\nprintf '%%s\\n' %s\n" % (self.gw.home, key.hex()))
        os.chmod(script, 0o700)
        self.restart_with("master_key: { command: [%s] }" % script)
        self.assertEqual(self.connects(), "TDCZ")
        old = self.pid("keeper")
        os.kill(old, signal.SIGKILL)
        harness.wait_until("keeper to be back", lambda: self.connects() == "TDCZ", 10)
        with open(os.path.join(self.gw.home, "calls")) as f:
            self.assertEqual(len(f.readlines()), 2)
        # SECURITY: nowhere but there: not in an argument, an environment, the log.
        self.assertNotIn(key.hex(), self.gw.log_text())
        for role in self.gw.api("GET", "/v1/status")[1]["roles"]:
            for what in ("environ", "cmdline"):
                with open("/proc/%d/%s" % (role["pid"], what), "rb") as f:
                    self.assertNotIn(key.hex().encode(), f.read())
        os.unlink(script)
        self.restart_with("master_key: master.key")

    def test_from_a_credential_of_the_service_manager(self):
        directory = os.path.join(self.gw.dir, "credentials")
        os.makedirs(directory, exist_ok=True)
        with open(os.path.join(self.gw.home, "master.key"), "rb") as f, open(os.path.join(directory, "gate-key"), "wb") as g:
            g.write(f.read())
        os.chmod(os.path.join(directory, "gate-key"), 0o400)
        self.gw.env["CREDENTIALS_DIRECTORY"] = directory
        self.restart_with("master_key: { credential: gate-key }")
        self.assertEqual(self.connects(), "TDCZ")
        del self.gw.env["CREDENTIALS_DIRECTORY"]
        self.restart_with("master_key: master.key")

    def start_fails(self, words):
        with self.assertRaises(AssertionError) as e:
            self.gw.restart()
        self.assertIn(words, str(e.exception))
        self.gw.process.wait(harness.PATIENCE)

    def test_the_start_refuses_a_file_that_others_can_read(self):
        path = os.path.join(self.gw.home, "master.key")
        os.chmod(path, 0o644)
        try:
            self.start_fails("can be reached by others")
        finally:
            os.chmod(path, 0o600)
        self.gw.restart()
        self.assertEqual(self.connects(), "TDCZ")

    def test_a_lost_key_is_said_and_not_made_anew(self):
        path = os.path.join(self.gw.home, "master.key")
        os.rename(path, path + ".away")
        try:
            self.start_fails("put the key back from your backup")
            self.assertFalse(os.path.exists(path))
        finally:
            os.rename(path + ".away", path)
        self.gw.restart()
        self.assertEqual(self.connects(), "TDCZ")


class Memory(KeeperCase):
    def status(self, pid):
        with open("/proc/%d/status" % pid) as f:
            return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)

    def test_keepers_memory_is_locked_and_not_dumped(self):
        self.assertEqual(self.connects(), "TDCZ")
        pid = self.pid("keeper")
        locked = int(self.status(pid)["VmLck"].split()[0])
        self.assertGreaterEqual(locked, 12)  # keys, the room for one secret, salted passwords
        self.assertEqual(self.status(pid)["CoreDumping"].strip(), "0")
        with open("/proc/%d/limits" % pid) as f:
            self.assertRegex(f.read(), r"Max core file size +0 +0 ")
        dumped = [m for m in open("/proc/%d/smaps" % pid).read().split("VmFlags:")[1:] if " lo " in m.split("\n")[0] + " "]
        self.assertTrue(dumped)
        for flags in dumped:
            self.assertIn(" dd ", flags.split("\n")[0] + " ")  # in no core file

    def test_keeper_has_no_file_and_may_open_none(self):
        pid = self.pid("keeper")
        for fd in os.listdir("/proc/%d/fd" % pid):
            to = os.readlink("/proc/%d/fd/%s" % (pid, fd))
            self.assertTrue(to.startswith(("socket:", "anon_inode:", "/dev/null", "pipe:", "/memfd:")) or to == self.gw.log, to)


class Flood(KeeperCase):
    def test_many_logins_at_once_are_counted_whole(self):
        """More uses within a second than have a line each: lines and numbers together make all of them."""
        harness.wait_until("the look of probe, which uses a secret, too", lambda: re.search("probed .*result=ok", self.gw.log_text()))
        before = self.uses()
        done, lock = [], threading.Lock()

        def many():
            for _ in range(40):
                r = self.connects()
                with lock:
                    done.append(r)
        threads = [threading.Thread(target=many) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(set(done), {"TDCZ"})
        harness.wait_until("all uses to be told", lambda: self.uses() - before >= len(done), 10)
        self.assertEqual(self.uses() - before, len(done))

    def uses(self):
        log = self.gw.log_text()
        return len(re.findall(r"secret-used .*for=proof .*result=ok", log)) + sum(
            int(n) for n in re.findall(r"for=many used=(\d+)", log))


if __name__ == "__main__":
    unittest.main()
