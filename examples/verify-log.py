#!/usr/bin/env python3
"""verify-log.py KEY DIRECTORY [--since CHECKPOINT]: checks an audit log from its files and its public key.
verify-log.py KEY --proof FILE: checks one offline proof and prints its leaf.

A second verifier, independent of Countersign's own: standard library only, written from docs/format.md.
Ends with 0 (intact), 1 (tampered), 3 (a file is missing) or 64 (usage).
"""
import base64
import hashlib
import os
import re
import sys

MOST = 1 << 62
# Per key: its type. Per kind: keys that must be there, keys that may be.
KEYS = {1: 16, 2: "text", 3: "uint", 4: 32, 5: "uint", 6: "uint", 7: 32, 8: 16, 9: "private", 10: "private", 11: "private",
        12: "text", 13: "text", 14: 32, 15: "uint", 16: "uint", 17: 32, 18: "text", 19: "uint", 20: 32}
KINDS = {1: ({13}, {19, 20}), 2: ({13, 19, 20}, {1}), 3: ({9, 5, 13}, {1, 12}), 4: ({1, 9, 12, 6}, {13}), 5: ({1, 14, 15, 13}, {3}),
         6: ({1, 3, 5, 6, 4}, {2, 13, 9}), 7: ({2, 4, 5, 9}, {11, 13}), 8: ({1, 3, 2, 8, 4}, {13}), 9: ({1, 3, 2, 8, 5}, {13}),
         10: ({9, 13}, {10, 11, 12}), 11: ({6, 7}, {9, 13}), 12: ({13, 17}, {9}), 13: ({1, 14, 15}, {16}), 14: ({1, 13}, {9, 17}),
         15: ({18, 19, 20}, set())}


class Bad(Exception):
    """Tampered with."""


def need(good, why):
    if not good:
        raise Bad(why)


def sha256(data):
    return hashlib.sha256(data).digest()


# ---- Ed25519 (RFC 8032, section 5.1.7), in affine-free extended coordinates ----
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(n, point):
    out = (0, 1, 1, 0)
    while n:
        if n & 1:
            out = add(out, point)
        point, n = add(point, point), n >> 1
    return out


def point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    need(y < P, "no point of the curve")
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    need(x * x % P == square and not (x == 0 and sign), "no point of the curve")
    x = P - x if x & 1 != sign else x
    return (x, y, 1, x * y % P)


def signed(public, text, signature):
    s = int.from_bytes(signature[32:], "little")
    if s >= L:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + text).digest(), "little") % L
    base = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))
    a, b = times(s, base), add(point(signature[:32]), times(k, point(public)))
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


# ---- notes ----
def base64_bytes(text):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Bad("not base 64") from None
    need(base64.b64encode(data).decode() == text, "another spelling of base 64")
    return data


def number(text):
    need(re.fullmatch(r"0|[1-9][0-9]{0,18}", text) is not None and int(text) < MOST, "not a number")
    return int(text)


def read_key(text):
    name, ident, material = text.split("+", 2)
    public = base64_bytes(material)
    need(len(public) == 33 and public[0] == 1, "not an Ed25519 key")
    need(sha256(name.encode() + b"\n" + public)[:4].hex() == ident, "the key's id is wrong")
    return name, bytes.fromhex(ident), public[1:]


def open_checkpoint(note, key):
    """Size and root, if this key signed them."""
    name, ident, public = key
    try:
        note = note.decode()
    except UnicodeDecodeError:
        raise Bad("a note that is no text") from None
    need(len(note.encode()) <= 16384 and not re.search(r"[\x00-\x09\x0b-\x1f]", note), "malformed note")
    need("\n\n" in note and note.endswith("\n"), "a note without signatures")
    text, lines = note.rsplit("\n\n", 1)
    text, good = text + "\n", 0
    for line in lines.split("\n")[:-1]:
        m = re.fullmatch(r"\u2014 ([^\s+]{1,128}) (\S{8,})", line)
        need(m is not None, "malformed signature line")
        if m.group(1) != name:
            continue
        data = base64_bytes(m.group(2))
        if data[:4] == ident and len(data) == 68:
            need(signed(public, text.encode(), data[4:]), "the checkpoint's signature is wrong")
            good += 1
    need(good == 1, "the checkpoint is not signed with this key")
    parts = text.split("\n")
    need(len(parts) == 4 and parts[3] == "" and parts[0] == name, "not a checkpoint of this log")
    root = base64_bytes(parts[2])
    need(len(root) == 32, "malformed root")
    return number(parts[1]), root


# ---- leaves: deterministic CBOR ----
class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        need(n <= len(self.data) - self.at, "malformed leaf")
        self.at += n
        return self.data[self.at - n:self.at]

    def head(self, major):
        first = self.take(1)[0]
        need(first >> 5 == major and first & 31 < 28, "malformed leaf")
        if first & 31 < 24:
            return first & 31
        n = 1 << ((first & 31) - 24)
        value = int.from_bytes(self.take(n), "big")
        need(value >= (24 if n == 1 else 1 << (4 * n)), "a longer head than needed")
        return value

    def bytes(self, least, most):
        n = self.head(2)
        need(least <= n <= most, "malformed leaf")
        return self.take(n)

    def value(self, kind):
        if kind == "uint":
            return self.head(0)
        if kind == "text":
            n = self.head(3)
            need(n <= 256, "malformed leaf")
            try:
                return self.take(n).decode()
            except UnicodeDecodeError:
                raise Bad("malformed leaf") from None
        if kind == "private":
            need(self.head(4) == 2, "malformed leaf")
            digest, n = self.bytes(32, 32), self.head(4)
            need(1 <= n <= 4, "malformed leaf")
            for _ in range(n):
                need(self.head(4) == 2, "malformed leaf")
                self.bytes(8, 8), self.bytes(92, 4188)
            return digest
        return self.bytes(kind, kind)


def read_leaf(data):
    r, last, out = Reader(data), 0, {}
    need(r.head(4) == 4 and r.head(0) == 1, "malformed leaf")
    kind, time, n = r.head(0), r.head(0), r.head(5)
    need(kind in KINDS, "malformed leaf")
    for _ in range(n):
        key = r.head(0)
        need(key > last and key in KEYS, "malformed leaf")
        last, out[key] = key, r.value(KEYS[key])
    must, may = KINDS[kind]
    need(r.at == len(data) and must <= set(out) <= must | may, "malformed leaf")
    return kind, time, out


# ---- the tree ----
def leaf_hash(data):
    return sha256(b"\0" + data)


def node_hash(left, right):
    return sha256(b"\1" + left + right)


def root_of(hashes):
    if not hashes:
        return sha256(b"")
    while len(hashes) > 1:
        hashes = [node_hash(*hashes[i:i + 2]) if i + 1 < len(hashes) else hashes[i] for i in range(0, len(hashes), 2)]
    return hashes[0]


def get(directory, level, n, width):
    """A tile or bundle: the partial file of that width, or else the complete one."""
    name = "%03d" % (n % 1000)
    while n >= 1000:
        n //= 1000
        name = "x%03d/%s" % (n % 1000, name)
    path = os.path.join(directory, "tile", level, *name.split("/"))
    if width < 256 and os.path.exists(path + ".p/%d" % width):
        return open(path + ".p/%d" % width, "rb").read(), False, path
    return open(path, "rb").read(), True, path


def check_log(directory, key, since):
    size, root = open_checkpoint(open(os.path.join(directory, "checkpoint"), "rb").read(), key)
    old = open_checkpoint(open(since, "rb").read(), key) if since else (0, sha256(b""))
    need(old[0] <= size, "the log is shorter than at the older checkpoint: %d leaves" % size)
    hashes = []
    while len(hashes) < size:
        width = min(256, size - len(hashes))
        data, complete, path = get(directory, "entries", len(hashes) // 256, width)
        for _ in range(width):
            need(len(data) >= 2, "%s: leaf %d is not there" % (path, len(hashes)))
            n = int.from_bytes(data[:2], "big")
            leaf, data = data[2:2 + n], data[2 + n:]
            need(len(leaf) == n, "%s: leaf %d is cut off" % (path, len(hashes)))
            read_leaf(leaf)
            hashes.append(leaf_hash(leaf))
        need(not data or (complete and width < 256), "%s: bytes behind the last leaf" % path)
    need(root_of(hashes[:old[0]]) == old[1], "the log is not the one of the older checkpoint")
    row, level = hashes, 0
    while row:
        for at in range(0, len(row), 256):
            part = row[at:at + 256]
            data, complete, path = get(directory, str(level), at // 256, len(part))
            need(len(data) == (8192 if complete else 32 * len(part)) and data.startswith(b"".join(part)),
                 "%s is not the tile of the leaves" % path)
        row, level = [root_of(row[at:at + 256]) for at in range(0, len(row) - 255, 256)], level + 1
    need(root_of(hashes) == root, "leaves and tiles do not give the root that was signed")
    print("intact: %d leaves" % size)


def check_proof(path, key):
    data = open(path, "rb").read()
    need(b"\n\n" in data, "malformed proof")
    above, note = data.split(b"\n\n", 1)
    lines = above.decode("ascii", "replace").split("\n")
    need(len(lines) >= 3 and lines[0] == "c2sp.org/tlog-proof@v1" and lines[1].startswith("extra ")
         and lines[2].startswith("index "), "malformed proof")
    size, root = open_checkpoint(note, key)
    leaf, index = base64_bytes(lines[1][6:]), number(lines[2][6:])
    need(index < size, "no such leaf")
    h, last = leaf_hash(leaf), size - 1
    for line in lines[3:]:
        p = base64_bytes(line)
        need(len(p) == 32 and last > 0, "malformed proof")
        while index == last and not index & 1:
            index, last = index >> 1, last >> 1
        h = node_hash(p, h) if index & 1 else node_hash(h, p)
        index, last = index >> 1, last >> 1
    need(last == 0 and h == root, "the leaf is not in the log")
    print(*read_leaf(leaf))


def main(args):
    if len(args) not in (2, 3, 4) or (len(args) == 4 and args[2] != "--since") or (len(args) == 3 and args[1] != "--proof"):
        print(__doc__, file=sys.stderr)
        return 64
    try:
        key = read_key(args[0])
        if args[1] == "--proof":
            check_proof(args[2], key)
        else:
            check_log(args[1], key, args[3] if len(args) == 4 else None)
    except Bad as e:
        print("tampered: %s" % e)
        return 1
    except (FileNotFoundError, NotADirectoryError) as e:
        print("missing: %s" % e.filename)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
