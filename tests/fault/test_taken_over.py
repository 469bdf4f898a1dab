"""A keeper, a recorder, a control, a dialer, a probe that was taken over: the role's real program, in its real sandbox, tries
every system call that leads out of it, and every file that is somebody else's. Gate and front are tried under the
real supervisor (test_attack.py). Each attempt dies or is refused; what is permitted instead stands here by name."""
import os
import shutil
import signal
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness
import ipc
from ipc import Role

TWINS = os.path.join(harness.BUILD, "tests", "attack")
DONE, REFUSED = 77, 78

# Calls that a role may make, because it needs them for files of its own (Landlock says which: see the last test) or
# for its work, and what came of this attempt. Whether a file exists can be asked of any of them; the log, if it is a
# file, is open in each.
LOOK = {"newfstatat": DONE, "readlink": DONE, "lseek of the log": DONE}
FILES = {**LOOK, "openat": REFUSED, "openat own descriptor": REFUSED, "openat own memory": REFUSED}
LIBC = {"access": DONE, "stat": DONE, "statx": DONE, "unlink": REFUSED, "clone3": REFUSED}
PERMITTED = {
    "RECORDER": {**FILES, "mkdir": REFUSED, "ftruncate of the log": DONE, "clone thread": DONE, "clone3": REFUSED},
    "KEEPER": {**FILES, **LIBC},
    "CONTROL": {**FILES, **LIBC, "ftruncate of the log": DONE, "clone thread": DONE},
    "PROBE": {},  # as a gate: nothing has a name there
    "PARSER": {},
    "DIALER": {**FILES, **LIBC, "openat": DONE,  # /etc, for names
               "socket": DONE, "socket unix": DONE, "socket netlink": DONE, "connect": REFUSED, "bind": REFUSED, "sendmmsg": DONE,
               "mmap executable": DONE, "mmap executable memfd": DONE, "clone thread": DONE},
}


class TakenOver(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = harness.scratch("taken")
        cls.snapshot, cls.version = ipc.installation(cls.home)
        cls.calls = subprocess.run([os.path.join(TWINS, "alone-keeper")], env=dict(os.environ, COUNTERSIGN_ATTACK="list"),
                                   capture_output=True, text=True, check=True).stdout.splitlines()

    @classmethod
    def tearDownClass(cls):
        os.close(cls.snapshot)
        shutil.rmtree(cls.home, ignore_errors=True)

    def attempt(self, role, what):
        """How the twin's one attempt ended: killed (a signal, negative), DONE or REFUSED."""
        if role == "PARSER":
            return self.job("job-parser", what)
        r = Role(role, self.home, self.snapshot, self.version, os.path.join(TWINS, "alone-" + ipc.ROLES[role][0]),
                 {"COUNTERSIGN_ATTACK": what})
        try:
            r.start(wire=False)
            r.boot()
            return r.ends()
        finally:
            r.stop()

    def job(self, name, what):
        """A job gets nothing but a socket, and goes into its walls by itself."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        p = ipc.with_channel([os.path.join(TWINS, "alone-" + name), name], theirs, env=dict(os.environ, COUNTERSIGN_ATTACK=what))
        theirs.close()
        try:
            return p.wait(harness.PATIENCE)
        finally:
            ours.close()
            p.kill()
            p.wait()

    def calls_of(self, role):
        if harness.sanitized():
            return  # its run-time library needs what the sandbox forbids: there is no sandbox to test
        self.assertGreater(len(self.calls), 100)
        ends = {call: self.attempt(role, str(i)) for i, call in enumerate(self.calls)}
        if ends["clone thread"] == -signal.SIGSEGV:
            ends["clone thread"] = DONE  # the thread came to be, and fell over its stack before the other ended
        self.assertEqual({call: end for call, end in ends.items() if end != -signal.SIGSYS}, PERMITTED[role])

    def test_calls_of_a_keeper(self):
        self.calls_of("KEEPER")

    def test_calls_of_a_recorder(self):
        self.calls_of("RECORDER")

    def test_calls_of_a_control(self):
        self.calls_of("CONTROL")

    def test_calls_of_a_dialer(self):
        self.calls_of("DIALER")

    def test_calls_of_a_probe(self):
        self.calls_of("PROBE")

    def test_calls_of_a_job_parser(self):
        self.calls_of("PARSER")

    def test_files_of_others_are_closed_to_each_role(self):
        if harness.sanitized():
            return
        home = os.path.join(self.home, "home")
        os.makedirs(os.path.join(home, "recordings"), 0o700, exist_ok=True)
        os.makedirs(os.path.join(home, "state"), 0o700, exist_ok=True)
        for name in ("recordings/seen", "state/state.db", "state/beside"):
            open(os.path.join(home, name), "ab").close()
        files = {"the record": "recordings/seen", "the state": "state/beside", "the master key": "master.key", "the TLS key": "tls.key",
                 "the configuration": "countersign.yaml"}
        own = {"RECORDER": {"the record"}, "CONTROL": {"the state"}, "DIALER": set(), "PROBE": None, "PARSER": None, "KEEPER": set()}
        for role, mine in own.items():
            for what, name in files.items():
                for how in "rw":
                    expected = -signal.SIGSYS if mine is None else DONE if what in mine else REFUSED
                    with self.subTest(role=role, what=what, how=how):
                        self.assertEqual(self.attempt(role, "%s:%s" % (how, os.path.join(home, name))), expected)
            for path in ("/proc/%d/mem" % os.getpid(), "/proc/self/mem", os.path.expanduser("~/.ssh/id"), "/etc/shadow", "/dev/mem"):
                with self.subTest(role=role, path=path):
                    expected = (-signal.SIGSYS,) if mine is None else (REFUSED, DONE) if (role, path) == ("DIALER", "/etc/shadow") else (REFUSED,)
                    self.assertIn(self.attempt(role, "r:" + path), expected)
            for path in ("/tmp/attack-%d" % os.getpid(), os.path.join(home, "planted"), "/etc/attack", "/dev/shm/attack"):
                with self.subTest(role=role, path=path):
                    self.assertEqual(self.attempt(role, "c:" + path), -signal.SIGSYS if mine is None else REFUSED)
                    self.assertFalse(os.path.exists(path))


if __name__ == "__main__":
    unittest.main()
