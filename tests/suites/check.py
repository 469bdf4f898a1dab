#!/usr/bin/env python3
"""make check-suites: the test suites of real clients, against the server itself and through a target of the gateway where everything is
allowed. Prints for each how many tests end the same and which do not, and compares these with tests/suites/NAME.expected, which has
the reason of each. Sources come from elsewhere; what cannot be had is named and fails nothing.

Exit status 0: no difference that is not expected, no expected one that is gone."""
import argparse
import json
import os
import signal
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
sys.path.insert(0, HERE)

import harness  # noqa: E402
from expected import read  # noqa: E402

RULES = """
rules:
  - name: everything
    who: { groups: [engineers] }
    target: { kind: postgres }
    then: allow
  - name: large-objects
    who: { groups: [engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "FUNCTION CALL"
    then: allow
"""
WHO = "suite"


class Places:
    """A server with one superuser, whose name and password are the same as those of the gateway's user."""

    def __init__(self, suite):
        self.pg = harness.Postgres(settings=["max_prepared_transactions = 20", "wal_level = logical", *suite.settings])
        try:
            self.pg.sql("create role %s superuser login password 'replaced below'" % WHO)
            target = {"name": WHO, "address": "127.0.0.1:%d" % self.pg.port, "database": WHO, "user": WHO, "password": "everyday", "tls": "verify-full",
                      "roots": self.pg.root}
            self.gw = harness.Gateway([target], rules=RULES)
        except BaseException:
            self.pg.destroy()
            raise
        try:
            self.gw.start(secrets=False).add_user(WHO, "engineers")
            self.password = self.gw.tokens[WHO]
            self.pg.sql("alter role %s password '%s'" % (WHO, self.password))
            self.gw.cli("secret", "set", WHO + "-ro", stdin=self.password)
        except BaseException:
            self.end()
            raise

    def end(self):
        self.gw.destroy()
        self.pg.destroy()

    def place(self, gateway):
        """With an empty database."""
        self.pg.sql("drop database if exists %s with (force)" % WHO)
        self.pg.sql("create database %s owner %s" % (WHO, WHO))
        return {"label": "gateway" if gateway else "server", "port": self.gw.port if gateway else self.pg.port, "user": WHO, "password": self.password,
                "database": WHO, "root": self.gw.ca if gateway else self.pg.root}


def different(direct, through):
    return {t: (direct.get(t, ("absent", "")), through.get(t, ("absent", ""))) for t in set(direct) | set(through)
            if direct.get(t, ("absent",))[0] != through.get(t, ("absent",))[0]}


def keep(name, what):
    """COUNTERSIGN_SUITE_LOGS names a folder for what was seen, and the gateway's log."""
    if os.environ.get("COUNTERSIGN_SUITE_LOGS"):
        with open(os.path.join(os.environ["COUNTERSIGN_SUITE_LOGS"], name), "w") as f:
            f.write(what if isinstance(what, str) else json.dumps(what, indent=1, sort_keys=True))


def compare(suite, places):
    """Both runs; what differs is run once more, both ways, so that a test that fails now and then does not count. What has no outcome
    then counts as it did."""
    direct = suite.run(places.place(False))
    keep(suite.name + ".server.json", direct)
    through = suite.run(places.place(True))
    keep(suite.name + ".gateway.json", through)
    found = different(direct, through)
    if found:
        again = sorted(suite.again(found))
        d2, t2 = suite.run(places.place(False), again), suite.run(places.place(True), again)
        keep(suite.name + ".again.json", [d2, t2])
        found = {t: (d2[t], t2[t]) if t in d2 and t in t2 else both for t, both in found.items() if t not in d2 or t not in t2 or d2[t][0] != t2[t][0]}
    return direct, found


def expected(suite):
    """Test → reason."""
    reasons, tests = read(os.path.join(HERE, suite.name + ".expected"))
    return {t: reasons[key] for t, key in tests.items()}


def one(suite):
    places = Places(suite)
    try:
        direct, found = compare(suite, places)
    finally:
        keep(suite.name + ".log", places.gw.log_text())
        places.end()
    return report(suite, direct, found, expected(suite))


def report(suite, direct, found, known):
    """Prints; are the differences those that are known, no more and no fewer?"""
    counts = {k: sum(1 for v in direct.values() if v[0] == k) for k in ("passed", "failed", "skipped")}
    print("%s %s: %d the same, %d different (at the server: %d passed, %d failed, %d skipped)" % (
        suite.title, suite.version(), len(direct) - len(found), len(found), counts["passed"], counts["failed"], counts["skipped"]))
    new = sorted(t for t in found if t not in known)
    gone = sorted(t for t in known if t not in found)
    for t in sorted(found):
        (d, _), (g, why) = found[t]
        print("  %s %s: %s at the server, %s through the gateway: %s" % ("expected " if t in known else "UNEXPECTED", t, d, g, known.get(t) or why))
    for t in gone:
        print("  GONE       %s: the same now; take it from %s.expected" % (t, suite.name))
    return not new and not gone


def main():
    from suites import SUITES
    a = argparse.ArgumentParser()
    a.add_argument("--build", default="build")
    a.add_argument("suite", nargs="*")
    a = a.parse_args()
    harness.BUILD = os.path.abspath(a.build)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is stopped
    good, absent = True, []
    for suite in SUITES:
        if a.suite and suite.name not in a.suite:
            continue
        why = suite.fetch(os.path.join(harness.BUILD, "suites"))
        if why:
            absent.append("%s (%s)" % (suite.title, why))
        else:
            good = one(suite) and good
    print("not run, because it could not be got: " + ("; ".join(absent) or "none"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
