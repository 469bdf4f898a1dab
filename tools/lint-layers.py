#!/usr/bin/env python3
"""Every include of src is one that the layer table of meson.build permits. The compiler refuses upward
includes already (each folder has only its own include paths); this also refuses what compiles: another
folder's internal header, an include without its folder."""
import os
import re
import sys

import tree

# Headers of a library that are written with quotes, and where.
OUTSIDE = {"src/sql/tree.h": ("postgres.h", "nodes/parsenodes.h", "storage/lockdefs.h")}
INTERNAL = re.compile(r"(^|[_/])internal\.h$")


def main():
    layers = tree.layers()
    folders = [l[0] for l in layers]
    sees = {f: [f] + list(s) for f, s, _ in layers}
    program_sees = {p: list(f) for p, f, _ in tree.programs()}
    bad = []
    for i, (folder, may, _) in enumerate(layers):
        for m in may:
            if m not in folders[:i]:
                bad.append("meson.build: %s may see %s, which is not above it" % (folder, m))
    for path in tree.files("src/*.c", "src/*.h", "src/*.def"):
        inside = path[len("src/"):]
        if inside.startswith("programs/"):
            me, may = "programs", program_sees.get(os.path.splitext(os.path.basename(path))[0])
        else:
            me = tree.folder_of(inside, folders)
            may = sees.get(me)
        if may is None:
            bad.append("%s: in no folder of the layer table" % path)
            continue
        for n, line in enumerate(tree.strip_comments(tree.read(path)).split("\n"), 1):
            m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if m is None:
                continue
            if m.group(1) in OUTSIDE.get(path, ()):
                continue
            target = tree.folder_of(m.group(1), folders)
            if target is None:
                bad.append("%s:%d: \"%s\" names no folder: write \"folder/header.h\"" % (path, n, m.group(1)))
            elif target not in may:
                bad.append("%s:%d: %s may not see %s (%s)" % (path, n, me, target, m.group(1)))
            elif target != me and INTERNAL.search(m.group(1)):
                bad.append("%s:%d: %s is internal to %s" % (path, n, m.group(1), target))
            elif not os.path.isfile(os.path.join(tree.ROOT, "src", m.group(1))):
                bad.append("%s:%d: there is no src/%s" % (path, n, m.group(1)))
    print("\n".join(bad) if bad else "", end="\n" if bad else "")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
