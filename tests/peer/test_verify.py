"""`countersign verify` and `export` on files, beside the second verifier (examples/verify.py), which was written from
docs/format.md: on good evidence, on every kind of change to it, and on logs that say what must never have been, the
two must end with the same status. tests/unit/verify changes every single byte."""
import contextlib
import importlib.util
import io
import json
import os
import random
import resource
import shutil
import subprocess
import unittest

import harness

ONE, TWO, THREE = (("%02x" % i) * 16 for i in (1, 2, 3))


def second():
    spec = importlib.util.spec_from_file_location("second_verifier", os.path.join(harness.ROOT, "examples", "verify.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


class Verify(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.second = second()
        cls.maker = os.path.join(harness.BUILD, "tests", "evidence", "make-evidence")
        cls.program = os.path.join(harness.BUILD, "src", "programs", "countersign")

    def setUp(self):
        self.dir = harness.scratch("verify")
        self.addCleanup(shutil.rmtree, self.dir)

    def make(self, what):
        path = os.path.join(self.dir, what)
        subprocess.run([self.maker, path, what], check=True)
        return path

    def run_first(self, *args, **more):
        return subprocess.run([self.program, *args], capture_output=True, text=True, timeout=harness.PATIENCE, cwd=self.dir, **more)

    def both(self, path, *options):
        """The status that both verifiers end with, and what the first one says."""
        r = self.run_first("verify", path, *options)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            status = self.second.main([path, *options])
        self.assertEqual(r.returncode, status, "%s\n%s%s---\n%s" % (path, r.stdout, r.stderr, out.getvalue()))
        return status, r.stdout

    def test_good_evidence_is_intact_and_an_open_session_unfinished(self):
        path = self.make("finished")
        self.assertEqual(self.both(path)[0], 0)
        self.assertEqual(self.both(path, "--since", path + "/older")[0], 0)
        self.assertEqual(self.both(path, "--key", path + "/log/log.pub")[0], 0)
        self.assertEqual(self.both(path, "--key", read(path + "/log/log.pub").decode().strip())[0], 0)
        self.assertEqual(self.both(path + "/log")[0], 3, "the recordings are not in the log's directory")
        os.makedirs(self.dir + "/installed")
        os.rename(path, self.dir + "/installed/recordings")
        self.assertEqual(self.both(self.dir + "/installed")[0], 0)
        self.assertEqual(self.both(self.make("indexed"))[0], 0)
        path = self.make("usual")
        status, text = self.both(path)
        self.assertEqual(status, 2)
        self.assertIn("no end yet", text)
        self.assertIn(THREE, text)

    def changes(self, path):
        """(what, file, new content or None) for the files of a directory, one at a time."""
        rnd = random.Random(7)
        for folder, _, names in sorted(os.walk(path)):
            for name in sorted(names):
                file = os.path.join(folder, name)
                data = read(file)
                if name == "older" or folder.endswith("000.p") and os.path.exists(folder[:-2]):
                    continue  # a partial tile that a complete one has taken the place of is not looked at
                for at in sorted(rnd.sample(range(len(data)), min(12, len(data)))):
                    yield "flip %d" % at, file, data[:at] + bytes([data[at] ^ 1 << rnd.randrange(8)]) + data[at + 1:]
                for n in (0, 1, len(data) // 2, len(data) - 2):
                    yield "cut to %d" % n, file, data[:n]
                yield "longer", file, data + b"\0"
                yield "twice", file, data + data
                yield "gone", file, None
                half = len(data) // 2
                yield "middle left out", file, data[:half - 20] + data[half:]
                yield "middle doubled", file, data[:half] + data[half - 20:]
                yield "halves exchanged", file, data[half:] + data[:half]

    def test_both_verifiers_agree_about_every_change(self):
        for what in ("finished", "indexed", "usual"):
            path, seen = self.make(what), set()
            for change, file, content in self.changes(path):
                before = read(file)
                if content is None:
                    os.unlink(file)
                else:
                    write(file, content)
                with self.subTest(what=what, change=change, file=file[len(path):]):
                    status, text = self.both(path)
                    seen.add(status)
                    self.assertNotEqual(status, 0, text)
                    if status != 2:  # by its name, or by that of the log that it belongs to
                        self.assertTrue(os.path.basename(file) in text or "log" in text, text)
                    if what != "usual" and file.endswith(".csr"):
                        self.assertEqual(status, 3 if content is None else 1, text)
                write(file, before)
            self.assertEqual(self.both(path)[0], 2 if what == "usual" else 0)
            self.assertTrue({1, 3} <= seen, seen)

    def test_what_must_never_have_been_is_tampering_though_it_is_signed(self):
        names = subprocess.run([self.maker, "--list"], check=True, capture_output=True, text=True).stdout.split()
        self.assertGreater(len(names), 12)
        for name in names:
            with self.subTest(name):
                status, text = self.both(self.make(name))
                self.assertEqual(status, 1, text)
                self.assertRegex(text, r"leaf \d+ of the log")

    def test_a_log_rolled_back_is_found_with_a_newer_checkpoint_only(self):
        path = self.make("usual")
        newest = read(path + "/log/checkpoint")
        write(self.dir + "/kept", newest)
        shutil.copy(path + "/older", path + "/log/checkpoint")
        status, text = self.both(path, "--since", self.dir + "/kept")
        self.assertEqual(status, 1)
        self.assertIn("shorter than at the older checkpoint", text)
        status, text = self.both(path)
        self.assertNotEqual(status, 0)
        # Rolled back as a whole, recordings too: nothing in the files tells, and verify says that.
        for name in (ONE, TWO, THREE):
            os.unlink("%s/%s.csr" % (path, name))
        self.assertEqual(self.both(path)[0], 3)
        self.assertIn("rolled back", self.both(path)[1])
        # Another log that the same key signed.
        os.unlink(path + "/log/checkpoint")
        other = self.make("finished")
        self.assertEqual(self.both(other, "--since", self.dir + "/kept")[0], 1)

    def test_bundles_verify_alone_and_with_nothing_changed(self):
        path = self.make("usual")
        r = self.run_first("export", "--bundle", ONE, "-o", "one", "--directory", path)
        self.assertEqual(r.returncode, 0, r.stderr)
        self.assertIn("countersign verify one", r.stdout)
        r = self.run_first("export", "--bundle", THREE, "--directory", path, "--json")
        self.assertEqual((r.returncode, json.loads(r.stdout)["finished"]), (0, False), r.stderr)
        shutil.rmtree(path)
        one, three = self.dir + "/one", "%s/%s.bundle" % (self.dir, THREE)
        self.assertEqual(os.stat(one).st_mode & 0o777, 0o600)
        self.assertEqual(self.both(one)[0], 0)
        self.assertEqual(self.both(three)[0], 2)
        listed = subprocess.run(["tar", "tf", one], capture_output=True, text=True, check=True).stdout.split()
        self.assertEqual((listed[:2], listed[-1]), (["manifest", "checkpoint"], ONE + ".csr"))
        data, rnd = read(one), random.Random(3)
        for at in sorted(rnd.sample(range(len(data)), 150)) + [len(data) - 1, 0]:
            write(one, data[:at] + bytes([data[at] ^ 1 << rnd.randrange(8)]) + data[at + 1:])
            with self.subTest(at=at):
                self.assertEqual(self.both(one)[0], 1)
        for n in (0, 1, 511, 512, 1024, len(data) // 2, len(data) - 512, len(data) - 1):
            write(one, data[:n])
            with self.subTest(cut=n):
                self.assertEqual(self.both(one)[0], 1)

    def test_nothing_is_exported_over_a_file_or_that_does_not_verify(self):
        path = self.make("usual")
        write(self.dir + "/there", b"mine")
        r = self.run_first("export", "--bundle", ONE, "-o", "there", "--directory", path)
        self.assertEqual((r.returncode, read(self.dir + "/there")), (1, b"mine"))
        data = bytearray(read("%s/%s.csr" % (path, ONE)))
        data[300] ^= 1
        write("%s/%s.csr" % (path, ONE), bytes(data))
        r = self.run_first("export", "--bundle", ONE, "-o", "new", "--directory", path)
        self.assertEqual(r.returncode, 1)
        self.assertIn("TAMPERED", r.stderr)
        self.assertFalse(os.path.exists(self.dir + "/new"))
        r = self.run_first("export", "--bundle", "f" * 32, "-o", "new", "--directory", path)
        self.assertEqual((r.returncode, os.path.exists(self.dir + "/new")), (1, False))

    def test_statuses_options_and_json(self):
        path = self.make("usual")
        for args in ([path, "more"], [path, "--nonsense"], [path, "--key"], [path, "--key", "nonsense"], [path, "--session", "x"],
                     [path, "--since", self.dir + "/none"]):
            self.assertEqual(self.run_first("verify", *args).returncode, 64, args)
        self.assertEqual(self.run_first("verify", self.dir + "/none").returncode, 3)
        self.assertEqual(self.run_first("verify", path, "--session", ONE).returncode, 0)
        self.assertEqual(self.run_first("verify", path, "--session", THREE).returncode, 2)
        self.assertEqual(self.run_first("verify", path, "--session", "f" * 32).returncode, 3)
        self.assertEqual(self.run_first("verify", "%s/%s.csr" % (path, ONE)).returncode, 0)
        r = self.run_first("verify", env=dict(os.environ, COUNTERSIGN_DIR=path))
        self.assertEqual(r.returncode, 2)
        with open("%s/%s.csr" % (path, TWO), "r+b") as f:
            f.seek(-200, os.SEEK_END)
            f.write(b"\xff" * 8)
        r = self.run_first("verify", path, "--json")
        answer = json.loads(r.stdout)
        self.assertEqual((r.returncode, answer["verdict"]), (1, "tampered"))
        f = next(f for f in answer["findings"] if f["verdict"] == "tampered")
        self.assertEqual((f["file"], f["session"]), (TWO + ".csr", TWO))
        self.assertGreater(f["frame"], 1)
        self.assertRegex(f["intact_until"], r"^20\d\d-")
        shutil.copy("%s/%s.csr" % (path, ONE), self.dir)
        status, text = self.both("%s/%s.csr" % (self.dir, ONE))
        self.assertEqual(status, 3)
        self.assertIn("no log", text)

    def test_hostile_files_neither_crash_nor_hang_nor_pass(self):
        rnd = random.Random(11)
        path = self.make("finished")
        good = read("%s/%s.csr" % (path, ONE))
        for i in range(40):
            size = rnd.randrange(0, 3000)
            data = rnd.choice([rnd.randbytes(size), good[:rnd.randrange(len(good))] + rnd.randbytes(size), b"\xff" * size,
                               b"manifest" + bytes(504) + rnd.randbytes(size)])
            write("%s/%s.csr" % (path, ONE), data)
            write(self.dir + "/thing", data)
            for what in (path, "%s/%s.csr" % (path, ONE), self.dir + "/thing"):
                self.assertIn(self.both(what)[0], (1, 3), what)

    def test_a_long_recording_needs_no_more_memory_than_a_short_one(self):
        path = os.path.join(self.dir, "long")
        subprocess.run([self.maker, path, "long"], check=True)
        self.assertGreater(os.path.getsize("%s/%s.csr" % (path, ONE)), 100 << 20)
        limit = (48 << 20) if "san" not in harness.BUILD else resource.RLIM_INFINITY
        r = self.run_first("verify", path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)))
        self.assertEqual(r.returncode, 0, r.stdout + r.stderr)


if __name__ == "__main__":
    unittest.main()
