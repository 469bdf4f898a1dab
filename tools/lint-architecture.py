#!/usr/bin/env python3
"""docs/architecture.md against the tree: its folder table names each folder under src, in the build's
order, with exactly the folders it may see; its role table names each program of src/programs/meson.build;
its table of messages between roles names each message of src/ipc/messages.def under its sender and
receiver. A protocol of src/proto/protocols.list has everything that a protocol needs. And each SQLSTATE
that src/proto/postgres sends is in docs/postgresql.md."""
import os
import re
import sys

import tree

DOC = "docs/architecture.md"


def rows(text, heading):
    """Cells of the table behind a heading, without its head."""
    m = re.search(r"^#+ %s.*?\n(.*?)(?=^#|\Z)" % heading, text, re.M | re.S)
    if m is None:
        return None
    table = [l for l in m.group(1).split("\n") if l.startswith("|")]
    return [[c.strip() for c in l.strip("|").split("|")] for l in table[2:]]


def words(cell):
    return re.findall(r"[a-z0-9/-]+", cell.replace("`", ""))


def protocols(layers):
    """docs/adding-a-protocol.md, as far as a script can ask for it."""
    bad = []
    listed = tree.read("src/proto/protocols.list").split()
    there = [l[0][len("proto/"):] for l in layers if l[0].startswith("proto/")]
    registry = re.findall(r"&cs_proto_(\w+)", tree.read("src/programs/gate.c"))
    for what, have in (("the layer table", there), ("src/programs/gate.c", registry)):
        if sorted(have) != sorted(listed):
            bad.append("protocols.list names %s, %s has %s" % (" ".join(listed), what, " ".join(have)))
    for name in listed:
        if not os.path.isdir(os.path.join(tree.ROOT, "tests/unit/proto", name)):
            bad.append("the protocol %s has no unit tests in tests/unit/proto/%s" % (name, name))
    return bad


def sqlstates():
    sent = set()
    for path in tree.files("src/proto/postgres/*.c"):
        sent.update(re.findall(r'"(CS\d{3}|\d[0-9A-Z]{4})"', tree.strip_comments(tree.read(path))))
    told = set(re.findall(r"\b(CS\d{3}|\d[0-9A-Z]{4})\b", tree.read("docs/postgresql.md")))
    return ["docs/postgresql.md: SQLSTATE %s is not in it" % s for s in sorted(sent - told)]


def main():
    bad = []
    text = tree.read(DOC)
    layers = tree.layers()
    folders = rows(text, "Folders")
    roles = rows(text, "Roles")
    if not folders or not roles:
        print("%s: no table under `Folders` or `Roles`" % DOC)
        return 1
    said = {words(r[0])[0].rstrip("/"): r for r in folders}
    if list(said) != [l[0] for l in layers]:
        bad.append("%s: the folders are %s, in meson.build %s" % (DOC, " ".join(said), " ".join(l[0] for l in layers)))
    for folder, may, _ in layers:
        if folder in said and set(words(said[folder][2])) != set(may or ["nothing"]):
            bad.append("%s: %s sees `%s`; in meson.build `%s`" % (DOC, folder, said[folder][2], " ".join(may)))
    for entry in sorted(os.listdir(os.path.join(tree.ROOT, "src"))):
        known = entry in said or entry == "programs" or any(f.startswith(entry + "/") for f in said)
        if os.path.isdir(os.path.join(tree.ROOT, "src", entry)) and not known:
            bad.append("%s: src/%s is not in the folder table" % (DOC, entry))
    named = [words(r[0])[0] for r in roles]
    for program, _, _ in tree.programs():
        if program not in named:
            bad.append("%s: the program %s is not in the role table" % (DOC, program))
    for n in named:
        if n not in [p for p, _, _ in tree.programs()]:
            bad.append("%s: the role table names %s, which is no program of src/programs/meson.build" % (DOC, n))
    messages = rows(text, "Messages between roles") or []
    pairs = {tuple(w.lower() for w in r[2:4]) for r in tree.table("src/ipc/messages.def", "CS_MSG")}
    told = {tuple(words(r[0])[:2]) for r in messages}
    for p in sorted(pairs - told):
        bad.append("%s: messages from %s to %s are not in its table" % (DOC, *p))
    for p in sorted(told - pairs):
        bad.append("%s: there are no messages from %s to %s" % (DOC, *p))
    for who, m in [(tuple(words(r[0])[:2]), r) for r in messages]:
        names = {r[1] for r in tree.table("src/ipc/messages.def", "CS_MSG") if (r[2].lower(), r[3].lower()) == who}
        said_names = set(re.findall(r"`([a-z_]+)`", m[1]))
        if who in pairs and names != said_names:
            bad.append("%s: %s to %s: %s; in messages.def %s" % (DOC, *who, " ".join(sorted(said_names)), " ".join(sorted(names))))
    bad += protocols(layers) + sqlstates()
    print("\n".join(bad) if bad else "", end="\n" if bad else "")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
