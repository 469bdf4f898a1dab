#!/usr/bin/env python3
"""Length and cyclomatic complexity of every function in src, by pmccabe. Over 70 lines or over 30: an
error; there is no list of exceptions. Over 20: named in the note."""
import subprocess
import sys

import tree

LINES, COMPLEX, WARN = 70, 30, 20


def main():
    bad, warn = [], []
    files = tree.files("src/*.c")
    out = subprocess.run(["pmccabe", *files], cwd=tree.ROOT, capture_output=True, text=True, check=True).stdout
    for line in out.strip().split("\n"):
        # modified complexity, traditional complexity, statements, first line, lines, file(line): name
        modified, _, _, _, lines, rest = line.split(None, 5)
        if int(lines) > LINES or int(modified) > COMPLEX:
            bad.append("%s: %s lines (at most %d), complexity %s (at most %d)" % (rest, lines, LINES, modified, COMPLEX))
        elif int(modified) > WARN:
            warn.append("%s %s" % (rest.split(": ")[-1], modified))
    print("\n".join(bad) if bad else "", end="\n" if bad else "")
    if warn:
        print("note: complexity over %d: %s" % (WARN, ", ".join(warn)))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
