#!/usr/bin/env python3
"""docs/threat-model.md, "What a taken-over process gives": every role and job has a section; every line in it is
"gives" or "does not give" and names tests that exist, or says why it is argued and not tested."""
import glob
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DOC = "docs/threat-model.md"


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def tests():
    """Names of all tests there are."""
    names = set()
    for path in glob.glob(os.path.join(ROOT, "tests", "**", "*.[cp]*"), recursive=True):
        text = read(path) if path.endswith((".c", ".py")) else ""
        names |= set(re.findall(r"^CS_TEST\((\w+)\)", text, re.M)) | set(re.findall(r"^    def (test_\w+)\(", text, re.M))
    return names


def programs():
    """The roles that the supervisor starts, and the jobs."""
    roles = re.findall(r'^CS_ROLE_ROW\(\w+,\s*"([\w-]+)"', read("src/roles/roles.def"), re.M)
    jobs = re.findall(r"^\s*\['(job-[\w-]+)'", read("src/programs/meson.build"), re.M)
    return {"supervisor", *roles, *jobs}


def main():
    text, there, mistakes, argued, shown = read(DOC), tests(), [], 0, 0
    m = re.search(r"^## What a taken-over process gives.*?$(.*?)^## ", text, re.S | re.M)
    if m is None:
        print("%s: there is no section on taken-over processes" % DOC)
        return 1
    described = {}
    for title, body in re.findall(r"^### (.+?)$(.*?)(?=^### |\Z)", m.group(1), re.S | re.M):
        lines = re.findall(r"^\| (gives|does not give) \| (.+?) \| (.+?) \|$", body, re.M)
        rows = [r for r in re.findall(r"^\|.*$", body, re.M) if not re.match(r"\| \||\|---", r)]
        if len(rows) != len(lines):
            mistakes.append("%s: a line is not \"| gives | … | … |\" or \"| does not give | … | … |\"" % title)
        for name in title.split(", "):
            described[name] = {kind for kind, _, _ in lines}
        for _, what, by in lines:
            if by.startswith("argued: "):
                argued += 1
                continue
            shown += 1
            for name in by.split():
                if name not in there:
                    mistakes.append("%s: \"%s\" names a test that does not exist: %s" % (title, what[:60], name))
    for name in sorted(programs()):
        if described.get(name) != {"gives", "does not give"}:
            mistakes.append("%s: what its takeover gives and does not give is not told" % name)
    for name in sorted(set(described) - programs()):
        mistakes.append("%s: there is no such role" % name)
    for line in mistakes:
        print("%s: %s" % (DOC, line))
    print("note: %d lines shown by tests, %d argued" % (shown, argued))
    return 1 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
