#!/usr/bin/env python3
"""Relative links of the documents lead to files of the tree, and paths in backquotes that look like
files of the tree exist."""
import os
import re
import sys

import tree

TOP = ("src/", "docs/", "tests/", "tools/", "examples/", "fuzz/", "bench/", "packaging/")


def main():
    bad = []
    for path in tree.files("*.md", "docs/*.md"):
        here = os.path.dirname(os.path.join(tree.ROOT, path))
        fenced = False
        for n, line in enumerate(tree.read(path).split("\n"), 1):
            if line.startswith("```"):
                fenced = not fenced
            if fenced:
                continue
            for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", line):
                if "://" not in target and not os.path.exists(os.path.join(here, target)):
                    bad.append("%s:%d: the link to %s leads nowhere" % (path, n, target))
            for name in re.findall(r"`([\w./-]+)`", line):
                if name.startswith(TOP) and "NAME" not in name and not os.path.exists(os.path.join(tree.ROOT, name)):
                    bad.append("%s:%d: there is no %s" % (path, n, name))
    print("\n".join(bad) if bad else "", end="\n" if bad else "")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
