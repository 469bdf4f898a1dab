"""The audit log of a gateway under test, read as anybody would read it: from its files, with examples/verify.py,
which was written from docs/format.md."""
import os
import re
import subprocess
import sys

import harness

VERIFIER = os.path.join(harness.ROOT, "examples", "verify.py")
KEYS = {n: name for n, name in (
    (int(m.group(1)), m.group(2)) for m in re.finditer(
        r'CS_LEAF_KEY\(\w+,\s*(\d+),\s*"(\w+)"', open(os.path.join(harness.ROOT, "src", "audit", "leaf_keys.def")).read()))}
KINDS = {n: name for n, name in (
    (int(m.group(1)), m.group(2)) for m in re.finditer(
        r'CS_LEAF\(\w+,\s*(\d+),\s*"(\w+)"', open(os.path.join(harness.ROOT, "src", "audit", "leaves.def")).read()))}


def cbor(data, at=0):
    """One value and where it ends: integers, byte strings, text, arrays and maps."""
    major, n = data[at] >> 5, data[at] & 31
    at += 1
    if n >= 24:
        size = 1 << (n - 24)
        n = int.from_bytes(data[at:at + size], "big")
        at += size
    if major == 0:
        return n, at
    if major in (2, 3):
        return (data[at:at + n] if major == 2 else data[at:at + n].decode()), at + n
    out = []
    for _ in range(n if major == 4 else 2 * n):
        value, at = cbor(data, at)
        out.append(value)
    return (out if major == 4 else dict(zip(out[::2], out[1::2]))), at


def read_leaf(data):
    (version, kind, time, values), end = cbor(data)
    assert version == 1 and end == len(data)
    leaf = {"kind": KINDS[kind], "time": time}
    for k, v in values.items():
        v = v[0] if isinstance(v, list) else v  # of a private value its hash
        leaf[KEYS[k]] = v.hex() if isinstance(v, bytes) else v
    return leaf


class Log:
    def __init__(self, recordings):
        self.dir = os.path.join(recordings, "log")

    def path(self, name):
        return os.path.join(self.dir, name)

    def key(self):
        with open(self.path("log.pub")) as f:
            return f.read().strip()

    def size(self):
        """Leaves that are signed; 0 before the first signature."""
        try:
            with open(self.path("checkpoint")) as f:
                return int(f.read().split("\n")[1])
        except FileNotFoundError:
            return 0

    def leaves(self):
        """Those under the checkpoint: [{"kind": name, "time": ms, key: value, …}], ids and hashes as hex. A checkpoint
        may be replaced while its files are read: then again."""
        return harness.wait_until("a checkpoint whose files are there", self._leaves)

    def bundle(self, n, width):
        name = "%03d" % (n % 1000)
        while n >= 1000:
            n //= 1000
            name = "x%03d/%s" % (n % 1000, name)
        path = os.path.join(self.dir, "tile", "entries", *name.split("/"))
        part = path + ".p/%d" % width
        with open(part if width < 256 and os.path.exists(part) else path, "rb") as f:
            return f.read()

    def _leaves(self):
        out = []
        try:
            size = self.size()
            while len(out) < size:
                width = min(256, size - len(out))
                data = self.bundle(len(out) // 256, width)
                for _ in range(width):
                    n = int.from_bytes(data[:2], "big")
                    out.append(read_leaf(data[2:2 + n]))
                    data = data[2 + n:]
        except FileNotFoundError:
            return None
        return out or None

    def of(self, kind, **values):
        return [x for x in self.leaves() if x["kind"] == kind and all(x.get(k) == v for k, v in values.items())]

    def wait(self, kind, n=1, **values):
        return harness.wait_until("%d leaves %s %s" % (n, kind, values),
                                  lambda: (lambda found: found if len(found) >= n else None)(self.of(kind, **values)))

    def verify(self, *more):
        """(exit status, output) of the second verifier over log and recordings as they are: 0 intact, 2 a session is
        still open."""
        r = subprocess.run([sys.executable, VERIFIER, os.path.dirname(self.dir), "--key", self.key(), *more], capture_output=True, text=True)
        return r.returncode, r.stdout + r.stderr
