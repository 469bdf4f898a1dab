"""The judge of `make check-suites` (tests/suites): it sees a difference, says when one is gone, and takes nothing that was not run for the
same. The suites themselves are not run here: their source comes from elsewhere."""
import contextlib
import io
import os
import sys
import tempfile
import unittest

HERE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "suites")
sys.path.insert(0, HERE)

import check  # noqa: E402
import expected  # noqa: E402


class Suite:
    name = title = "fake"

    def __init__(self, *runs):
        self.runs, self.asked = list(runs), []

    def version(self):
        return "1"

    def run(self, place, only=()):
        self.asked.append((place, list(only)))
        return {t: (outcome, "") for t, outcome in self.runs.pop(0).items()}

    def again(self, tests):
        return tests


class Places:
    def place(self, gateway):
        return "gateway" if gateway else "server"


def report(suite, direct, found, known):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        return check.report(suite, direct, found, known), said.getvalue()


class Judge(unittest.TestCase):
    def test_what_ends_otherwise_twice_is_different(self):
        s = Suite({"a": "passed", "b": "passed"}, {"a": "passed", "b": "failed"}, {"b": "passed"}, {"b": "failed"})
        direct, found = check.compare(s, Places())
        self.assertEqual(list(found), ["b"])
        self.assertEqual(s.asked, [("server", []), ("gateway", []), ("server", ["b"]), ("gateway", ["b"])])
        good, said = report(s, direct, found, {})
        self.assertFalse(good)
        self.assertIn("1 the same, 1 different", said)
        self.assertIn("UNEXPECTED b: passed at the server, failed through the gateway", said)

    def test_what_ends_otherwise_once_is_not(self):
        s = Suite({"a": "passed"}, {"a": "failed"}, {"a": "passed"}, {"a": "passed"})
        self.assertEqual(check.compare(s, Places())[1], {})

    def test_what_was_not_run_again_stays_different(self):
        s = Suite({"a": "passed"}, {"a": "failed"}, {}, {})
        self.assertEqual(list(check.compare(s, Places())[1]), ["a"])

    def test_a_test_that_is_absent_on_one_side_is_different(self):
        s = Suite({"a": "passed", "b": "passed"}, {"a": "passed"}, {"b": "passed"}, {})
        self.assertEqual(list(check.compare(s, Places())[1]), ["b"])

    def test_an_expected_difference_is_well_and_its_absence_is_said(self):
        s = Suite()
        found = {"a": (("passed", ""), ("failed", ""))}
        self.assertTrue(report(s, {"a": ("passed", "")}, found, {"a": "because"})[0])
        good, said = report(s, {"a": ("passed", "")}, {}, {"a": "because"})
        self.assertFalse(good)
        self.assertIn("GONE       a", said)


class Expected(unittest.TestCase):
    def read(self, text):
        with tempfile.NamedTemporaryFile("w", suffix=".expected") as f:
            f.write(text)
            f.flush()
            return expected.read(f.name)

    def test_each_test_has_its_reason(self):
        self.assertEqual(self.read("# c\n= k: a reason: long\nt one\tk\n"), ({"k": "a reason: long"}, {"t one": "k"}))

    def test_refused_are_tests_without_reason_reasons_without_test_and_repeated_lines(self):
        for text in ("t\tk\n", "t\n", "= k: r\n", "= k: r\nt\tk\nt\tk\n", "= k\nt\tk\n"):
            with self.subTest(text), self.assertRaises(ValueError):
                self.read(text)

    def test_the_lists_can_be_read(self):
        for name in sorted(os.listdir(HERE)):
            if name.endswith(".expected"):
                with self.subTest(name):
                    self.assertGreater(len(expected.read(os.path.join(HERE, name))[1]), 0)
