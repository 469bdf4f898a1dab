#!/usr/bin/env python3
"""Runs every test and counts it: unit tests and fuzz seeds (meson), then the Python tests against real
peers. The closing line is "N passed, N failed". Names on the command line select Python test files or
meson tests by substring."""
import argparse
import json
import os
import re
import subprocess
import sys
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)


def meson_tests(build, names):
    """Passed, failed; a TAP program counts with each of its tests."""
    listed = subprocess.run(["meson", "test", "-C", build, "--list"], capture_output=True, text=True, check=True).stdout.split("\n")
    listed = [t.split(" / ")[-1].strip() for t in listed if " / " in t]
    chosen = [t for t in listed if not names or any(n in t for n in names)]
    if not chosen:
        return 0, 0
    # Here each of the two crash tests takes its full 5,000 points; a bare `meson test` takes fewer.
    env = dict(os.environ, CS_CRASH_SEEDS=os.environ.get("CS_CRASH_SEEDS", "5000"))
    r = subprocess.run(["meson", "test", "-C", build, "--no-rebuild", "--print-errorlogs", *chosen], env=env)
    passed = failed = 0
    with open(os.path.join(build, "meson-logs", "testlog.json")) as f:
        for line in f:
            t = json.loads(line)
            out = t.get("stdout") or ""
            ok = len(re.findall(r"^ok \d+", out, re.M))
            bad = len(re.findall(r"^not ok \d+", out, re.M))
            if ok + bad == 0:
                ok, bad = (1, 0) if t["result"] == "OK" else (0, 1)
            elif t["result"] != "OK" and bad == 0:
                bad = 1
            passed, failed = passed + ok, failed + bad
    if r.returncode != 0 and failed == 0:
        failed = 1
    return passed, failed


class Result(unittest.TextTestResult):
    succeeded = 0

    def startTest(self, test):
        self.began = time.monotonic()
        super().startTest(test)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.succeeded += 1
        print("ok   %5.1f s  %s" % (time.monotonic() - self.began, test.id()), flush=True)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        print("FAIL          %s\n%s" % (test.id(), self.failures[-1][1]), flush=True)

    def addError(self, test, err):
        super().addError(test, err)
        print("ERROR         %s\n%s" % (test.id(), self.errors[-1][1]), flush=True)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            print("FAIL          %s\n%s" % (subtest.id(), (self.failures if issubclass(err[0], test.failureException) else self.errors)[-1][1]), flush=True)


def python_tests(names):
    sys.path.insert(0, os.path.join(HERE, "lib"))
    passed = failed = 0
    for folder in ("peer", "drivers", "bypass", "differential", "fault", "docs"):
        where = os.path.join(HERE, folder)
        if not os.path.isdir(where):
            continue
        for name in sorted(os.listdir(where)):
            if not (name.startswith("test_") and name.endswith(".py")):
                continue
            if names and not any(n in name or n == folder for n in names):
                continue
            print("---- %s/%s" % (folder, name), flush=True)
            sys.path.insert(0, where)
            suite = unittest.defaultTestLoader.loadTestsFromName(name[:-3])
            result = unittest.TextTestRunner(stream=open(os.devnull, "w"), resultclass=Result).run(suite)
            bad = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
            passed += result.succeeded
            failed += bad + len(result.skipped)  # a skipped test is not a passed one
            for test, why in result.skipped:
                print("SKIPPED, counts as failed: %s: %s" % (test.id(), why), flush=True)
            sys.path.remove(where)
    return passed, failed


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--build", default="build")
    a.add_argument("names", nargs="*")
    args = a.parse_args()
    os.environ["COUNTERSIGN_BUILD"] = os.path.abspath(args.build)
    began = time.monotonic()
    passed, failed = meson_tests(args.build, args.names)
    try:
        p, f = python_tests(args.names)
    finally:
        import harness
        harness.destroy_shared()
    passed, failed = passed + p, failed + f
    print("%.0f seconds" % (time.monotonic() - began))
    print("%d passed, %d failed" % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
