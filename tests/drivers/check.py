#!/usr/bin/env python3
"""make check-drivers: the clients of the matrix that need a tool chain of their own. Fetches what can be fetched, says
what could not be, and runs the rest; a client that is not here is named in the last line and fails nothing."""
import argparse
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--build", default="build")
    build = os.path.abspath(a.parse_args().build)
    os.environ["COUNTERSIGN_BUILD"] = build
    os.environ["COUNTERSIGN_DRIVERS"] = "extra"
    from clients import CLIENTS
    absent = []
    for c in CLIENTS:
        why = c.fetch() if hasattr(c, "fetch") else None
        if c.extra and (why or c.missing()):
            absent.append("%s (%s)" % (c.name, why or "no " + ", ".join(c.missing())))
    status = 0
    if any(c.wanted() for c in CLIENTS):
        run = os.path.join(os.path.dirname(HERE), "run.py")
        status = subprocess.run([sys.executable, run, "--build", build, "test_drivers"]).returncode
    print("not tested, because not installed: " + ("; ".join(absent) or "none"))
    return status


if __name__ == "__main__":
    sys.exit(main())
