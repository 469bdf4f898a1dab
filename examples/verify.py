#!/usr/bin/env python3
"""verify.py PATH [--key KEY|FILE] [--since CHECKPOINT]: checks a recordings directory with its log, a log, a recording or a bundle.

A second verifier, independent of Countersign's own: standard library only, written from docs/format.md.
Ends with 0 (intact), 1 (tampered), 3 (something is missing), 2 (unfinished) or 64 (usage).
"""
import base64, hashlib, mmap, os, re, stat, struct, sys  # noqa: E401

MOST, SLACK = 1 << 62, 10000
# Per key of a leaf: its type. Per kind: keys that must be there, keys that may be.
KEYS = {1: 16, 2: "text", 3: "uint", 4: 32, 5: "uint", 6: "uint", 7: 32, 8: 16, 9: "private", 10: "private", 11: "private",
        12: "text", 13: "text", 14: 32, 15: "uint", 16: "uint", 17: 32, 18: "text", 19: "uint", 20: 32, 21: 16}
KINDS = {1: ({13}, {19, 20}), 2: ({13, 19, 20}, {1}), 3: ({9, 5, 13}, {1, 12, 21}), 4: ({1, 9, 12, 6}, {13}), 5: ({1, 14, 15, 13}, {3}),
         6: ({1, 3, 5}, {2, 4, 6, 13, 9}), 7: ({2, 4, 5, 9}, {11, 13, 21}), 8: ({1, 3, 2, 8, 4}, {13}), 9: ({1, 3, 2, 8, 5}, {13}),
         10: ({9, 13}, {10, 11, 12, 1, 2, 5, 21}), 11: ({6, 7}, {9, 13, 21}), 12: ({13, 17}, {9, 21}), 13: ({1, 14, 15}, {16}),
         14: ({1, 13}, {9, 17, 21}), 15: ({18, 19, 20}, set()), 16: ({1, 3, 2, 5, 13}, set()), 17: ({1, 9}, {13, 21}), 18: ({9}, {13, 21})}


class Bad(Exception):
    """Not as it must be: (why, status)."""


def need(good, why, status=1):
    if not good:
        raise Bad(why, status)


def sha256(*pieces):
    return hashlib.sha256(b"".join(pieces)).digest()


# ---- Ed25519 (RFC 8032, section 5.1.7) ----
P, L = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]), (a[1] + a[0]) * (b[1] + b[0])
    g, h = 2 * a[3] * b[3] * D, 2 * a[2] * b[2]
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(n, point):
    out = (0, 1, 1, 0)
    while n:
        out, point, n = add(out, point) if n & 1 else out, add(point, point), n >> 1
    return out


def point(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    need(y < P and x * x % P == square and not (x == 0 and sign), "no point of the curve")
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


def signed(public, text, signature):
    s = int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + text).digest(), "little") % L
    a, b = times(s, point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))), add(point(signature[:32]), times(k, point(public)))
    return s < L and (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


# ---- keys and checkpoints ----
def base64_bytes(text, n=None):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Bad("not base 64", 1) from None
    need(base64.b64encode(data).decode() == text and n in (None, len(data)), "another spelling of base 64")
    return data


def read_key(text):
    try:
        part = text.decode().strip(" \t\r\n").split("+", 2)
    except UnicodeDecodeError:
        raise Bad("not a public key", 1) from None
    need(len(part) == 3, "not a public key")
    public = base64_bytes(part[2], 33)
    need(re.fullmatch(r"[^\s\x00-\x1f\x7f]{1,128}", part[0]) and public[0] == 1 and sha256(part[0].encode(), b"\n", public)[:4].hex() == part[1], "not a public key")
    return part[0], bytes.fromhex(part[1]), public[1:]


def open_checkpoint(note, key):
    """Size and root, if this key signed them."""
    try:
        text = note.decode()
    except UnicodeDecodeError:
        raise Bad("a note that is no text", 1) from None
    need(len(note) <= 16384 and not re.search(r"[\x00-\x09\x0b-\x1f]", text), "malformed note")
    need("\n\n" in text and text.endswith("\n"), "a note without signatures")
    text, lines = text.rsplit("\n\n", 1)
    text, good = text + "\n", 0
    for line in lines.split("\n")[:-1]:
        m = re.fullmatch(r"\u2014 ([^\s+]{1,128}) (\S{8,})", line)
        need(m, "malformed signature line")
        data = base64_bytes(m.group(2)) if m.group(1) == key[0] else b""
        if data[:4] == key[1] and len(data) == 68:
            need(signed(key[2], text.encode(), data[4:]), "the checkpoint's signature is wrong")
            good += 1
    part = text.split("\n")
    need(good == 1 and len(part) == 4 and part[0] == key[0], "the checkpoint is not signed with this key")
    need(re.fullmatch(r"0|[1-9][0-9]{0,18}", part[1]) and int(part[1]) < MOST, "malformed size")
    return int(part[1]), base64_bytes(part[2], 32)


# ---- deterministic CBOR ----
class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        need(n <= len(self.data) - self.at, "malformed CBOR")
        self.at += n
        return self.data[self.at - n:self.at]

    def head(self, major, want=None):
        first = self.take(1)[0]
        need(first >> 5 == major and first & 31 < 28, "malformed CBOR")
        n = 1 << (first & 31) - 24 if first & 31 > 23 else 0
        value = int.from_bytes(self.take(n), "big") if n else first & 31
        need(value >= (0, 24, 256, 0, 65536, 0, 0, 0, 1 << 32)[n] and want in (None, value), "malformed CBOR")
        return value

    def bytes(self, least, most, major=2):
        n = self.head(major)
        need(least <= n <= most, "malformed CBOR")
        return self.take(n)

    def text(self, least, most):
        try:
            return self.bytes(least, most, 3).decode()
        except UnicodeDecodeError:
            raise Bad("malformed CBOR", 1) from None

    def boxes(self, one):
        n = self.head(4)
        need(1 <= n <= 4, "malformed CBOR")
        for _ in range(n):
            one()

    def value(self, kind):
        if kind == "uint":
            return self.head(0)
        if kind == "text":
            return self.text(0, 256)
        if kind == "private":
            self.head(4, 2)
            digest = self.bytes(32, 32)
            self.boxes(lambda: (self.head(4, 2), self.bytes(8, 8), self.bytes(92, 4188)))
            return digest
        return self.bytes(kind, kind)

    def keys(self):
        self.head(4, 3), self.bytes(32, 32), self.bytes(32, 32)
        self.boxes(lambda: (self.head(4, 3), self.text(1, 31), self.bytes(32, 32), self.bytes(92, 92)))

    def end(self):
        need(self.at == len(self.data), "malformed CBOR")


# ---- the log ----
def read_leaf(data):
    r, last, out = Reader(data), 0, {}
    r.head(4, 4), r.head(0, 1)
    kind, time, n = r.head(0), r.head(0), r.head(5)
    for _ in range(n):
        key = r.head(0)
        need(key > last and key in KEYS, "malformed leaf")
        last, out[key] = key, r.value(KEYS[key])
    r.end()
    need(kind in KINDS and KINDS[kind][0] <= set(out) <= KINDS[kind][0] | KINDS[kind][1], "malformed leaf")
    return kind, time, out


class History:
    """What leaves say of sessions and requests, and that it can have been so."""

    def __init__(self):
        self.anchors, self.votes, self.held, self.used, self.requests, self.results, self.events = {}, {}, {}, {}, set(), set(), set()
        self.first = self.last = None

    def leaf(self, index, data):
        kind, time, f = read_leaf(data)
        self.first, self.last = time if self.first is None else self.first, max(time, self.last or 0)
        self.take(kind, f, lambda good, why: need(good, "leaf %d: %s" % (index, why)))

    def take(self, kind, f, ask):
        action = (f.get(1), f.get(3))
        ask(f.get(21) not in self.events, "an event is in the log twice")
        self.events |= {f[21]} if 21 in f else set()
        if kind in (4, 5, 13):
            a = self.anchors.setdefault(f[1], [])
            if kind != 4:
                ask(not a or a[-1][0] < f[15] and not a[-1][2] or a[-1][:2] == (f[15], f[14]), "it contradicts an earlier leaf")
                a.append((f[15], f[14], kind == 5 or f.get(16) == 1 or bool(a and a[-1][2])))
        elif kind == 6 and 2 in f and 4 in f and f[5] == 1:
            self.held[action] = f[4]
        elif kind == 7:
            digest, outcomes = self.votes.setdefault(f[2], (f[4], set()))
            ask(digest == f[4], "votes on one request about two digests")
            outcomes.add(f[5])
        elif kind == 8:
            digest, outcomes = self.votes.get(f[2], (None, set()))
            ask(2 in outcomes and 0 not in outcomes, "it ran without a vote, or against one")
            ask(digest == f[4] == self.held.get(action), "what ran is not what was held and approved")
            ask(f[8] not in self.used and f[2] not in self.requests, "a grant or request was used twice")
            self.used[f[8]] = action
            self.requests.add(f[2])
        elif kind == 9:
            ask(self.used.get(f[8]) == action and f[8] not in self.results, "a result without its use, or a second one")
            self.results.add(f[8])


def root_of(hashes):
    while len(hashes) > 1:
        hashes = [sha256(b"\1", *hashes[i:i + 2]) if i + 1 < len(hashes) else hashes[i] for i in range(0, len(hashes), 2)]
    return hashes[0] if hashes else sha256()


def get(directory, level, n, width):
    """A tile or bundle: the partial file of that width, or a wider one, or the complete one; and how wide it is."""
    name = "%03d" % (n % 1000)
    while n >= 1000:
        n //= 1000
        name = "x%03d/%s" % (n % 1000, name)
    path = os.path.join(directory, "tile", level, *name.split("/"))
    for w in range(width, 256):
        if os.path.exists(path + ".p/%d" % w):
            return open(path + ".p/%d" % w, "rb").read(), w
    return open(path, "rb").read(), 256


def check_log(directory, key, since):
    size, root = open_checkpoint(open(os.path.join(directory, "checkpoint"), "rb").read(), key)
    old = open_checkpoint(open(since, "rb").read(), key) if since else (0, sha256())
    need(old[0] <= size, "the log is shorter than at the older checkpoint")
    hashes, history = [], History()
    while len(hashes) < size:
        width = min(256, size - len(hashes))
        data, wide = get(directory, "entries", len(hashes) // 256, width)
        for _ in range(width):
            n = int.from_bytes(data[:2], "big")
            leaf, data = data[2:2 + n], data[2 + n:]
            need(len(leaf) == n and n, "leaf %d is not there" % len(hashes))
            history.leaf(len(hashes), leaf)
            hashes.append(sha256(b"\0", leaf))
        need(not data or wide > width, "bytes behind leaf %d" % (len(hashes) - 1))
    need(root_of(hashes[:old[0]]) == old[1], "the log is not the one of the older checkpoint")
    row, level = hashes, 0
    while row:
        for at in range(0, len(row), 256):
            part, (data, wide) = b"".join(row[at:at + 256]), get(directory, str(level), at // 256, min(256, len(row) - at))
            need(len(data) == 32 * wide and data.startswith(part), "tile %d/%d is wrong" % (level, at // 256))
        row, level = [root_of(row[at:at + 256]) for at in range(0, len(row) - 255, 256)], level + 1
    need(root_of(hashes) == root, "leaves and tiles do not give the root that was signed")
    return history


# ---- recordings ----
CRC = [0] * 256
for i in range(256):
    c = i
    for _ in range(8):
        c = c >> 1 ^ (0x82f63b78 if c & 1 else 0)
    CRC[i] = c


def crc32c(data):
    c = 0xffffffff
    for b in data:
        c = CRC[(c ^ b) & 255] ^ c >> 8
    return c ^ 0xffffffff


class Recording:
    """Frames one by one; `torn` where the file ends as after a crash."""

    def __init__(self, data):
        self.data, self.torn, self.end, self.seq, self.epoch, self.last = data, False, None, 0, 1, 0
        n = int.from_bytes(data[8:12], "little")
        need(data[:8] == b"CSR1\r\n\x1a\n" and n <= 4096 - 44 and len(data) >= 44 + n, "its header is damaged")
        r, self.at, self.chain = Reader(data[12:12 + n]), 44 + n, data[12 + n:44 + n]
        r.head(4, 8), r.head(0, 1), r.head(0, 1)
        self.session, self.began, self.gate = r.bytes(16, 16), r.head(0), r.head(0)
        r.head(0, 18), r.head(0, 262144), r.keys(), r.end()
        need(self.chain == sha256(b"\1", data[:12 + n]), "its header is damaged")
        self.new_epoch()

    def new_epoch(self):
        self.events = self.plain = self.index = self.reset = 0  # reset: the last RESET; resets: those no INDEX has yet
        self.resets = []

    def frames(self):
        while self.at < len(self.data):
            left = len(self.data) - self.at
            if left < 48:
                self.torn = True
                return
            head = self.data[self.at:self.at + 48]
            magic, kind, flags, epoch, seq, first, span, events, plain, n, back, crc = struct.unpack("<HBBIQQIIIIII", head)
            data = kind in (1, 2)
            need(magic == 0x4643 and 1 <= kind <= 5 and flags == (not data) and n <= 1123844 and plain <= 1114116 and seq and epoch and
                 (back > 0) == (kind == 1) and (0 < events <= plain // 5 if data else not events and plain == n and not span),
                 "frame %d: this is not the head of a frame" % (self.seq + 1))
            rest = self.data[self.at + 48:self.at + 96 + n]
            if len(rest) < n + 48 or (crc32c(head[:44] + rest) != crc and left == n + 96):
                self.torn = True
                return
            self.frame(kind, epoch, seq, first, span, events, plain, back, head[:44] + rest, crc)
            self.at += n + 96
            yield self.seq

    def frame(self, kind, epoch, seq, first, span, events, plain, back, body, crc):
        def ask(good, why):
            need(good, "frame %d: %s" % (self.seq + 1, why))
        chain = sha256(b"\2", self.chain, body[:-32])
        ask(crc32c(body) == crc and chain == body[-32:], "checksum or chain is wrong")
        ask(not self.end and seq == self.seq + 1 and epoch == self.epoch + (kind == 4) and first >= self.last, "it does not stand where it must")
        ask(kind != 1 or self.reset and back == self.at - self.reset, "it does not go on from the RESET before it")
        r = Reader(body[44:-48])
        if kind == 2:
            self.reset = self.at
            self.resets.append(self.at)
            ask(len(self.resets) <= 64, "an INDEX is missing")
        elif kind == 3:
            r.head(4, 2), r.head(0, self.index)
            n = r.head(4)
            offsets = [(r.head(4, 4), r.head(0), r.head(0), r.head(0), r.head(0))[1] for _ in range(n)]
            r.end(), ask(n and offsets == self.resets, "its INDEX is not that of the frames before it")
            self.index, self.resets = self.at, []
        elif kind == 4:
            r.head(4, 4), ask(1 <= r.head(0) <= 2, "malformed"), r.head(0), r.head(0), r.keys(), r.end()
            self.epoch = epoch
            self.new_epoch()
        elif kind == 5:
            r.head(4, 7)
            reason, self.end = r.head(0), r.head(0) + 1
            ask(1 <= reason <= 3 and not self.resets, "malformed END")
            r.head(0, seq), r.head(0, self.events), r.head(0), r.head(0, self.plain), r.head(0, self.index), r.end()
        self.seq, self.chain, self.last = seq, chain, first + span * 1000
        self.events, self.plain = self.events + events, self.plain + (plain if events else 0)


def check_recording(data, session, history, gate=None):
    """Raises what is wrong; returns None when it is complete."""
    anchors = history.anchors.get(session) if history and gate is None else None
    need(len(data) >= 44 or anchors is not None or not history, "the file ends inside its header", 2)
    x = Recording(data)
    need(x.session == session and gate in (None, x.gate), "it is the recording of another session")
    known = {}
    for frames, chain, _ in anchors or ():
        known[frames] = chain
    need(known.pop(0, x.chain) == x.chain, "the log has another header of it")
    for seq in x.frames():
        need(known.pop(seq, x.chain) == x.chain, "frame %d is not the one that the log knows" % seq)
    need(not (x.torn and x.end), "bytes behind END")
    need(not known, "the end is cut off: the log has frame %d" % max(known or [0]))
    if gate is not None:
        return
    if not history:
        need(x.end, "no end", 2)
        return
    by = history.last - SLACK if history.last is not None else -1
    if anchors is None:
        need(history.last is not None and x.began >= history.first, "it began before the log did", 3)
        need(x.began > by, "the log knows no such session")
        raise Bad("newer than the checkpoint", 2)
    closed = any(last for _, _, last in anchors)
    need(x.end or not closed, "the end is cut off")
    need(x.end and closed or not x.end or x.end - 1 > by, "an end that the log does not know")
    need(x.end and closed, "no end, or newer than the checkpoint", 2)


def map_file(path):
    """The file's bytes, not by way of a link, without reading them all at once."""
    need(stat.S_ISREG(os.lstat(path).st_mode), "it is no file")
    with open(path, "rb") as f:
        return mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if os.path.getsize(path) else b""


# ---- bundles ----
def member_head(name, size):
    number = b"%011o\0" % size if size < 1 << 33 else b"\x80" + size.to_bytes(11, "big")
    head = bytearray(name.ljust(100, b"\0") + b"0000444\0" + b"0000000\0" * 2 + number + b"0" * 11 + b"\0" + b" " * 8 + b"0")
    head = bytearray(bytes(head).ljust(257, b"\0") + b"ustar\0" + b"00").ljust(512, b"\0")
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def members(data):
    at = 0
    while data[at:at + 1024] != bytes(1024) or at + 1024 != len(data):
        head = data[at:at + 512]
        m = re.match(rb"([^\0]{1,99})\0", head)
        need(m and len(head) == 512 and re.fullmatch(rb"[0-7]{11}\0|\x80\0\0\0.{8}", head[124:136], re.S), "not a member's head")
        size = int.from_bytes(head[125:136], "big") if head[124] == 128 else int(head[124:135], 8)
        need(head == member_head(m.group(1), size) and at + 512 + size <= len(data), "not a member's head")
        end = at + 512 + size
        at = end + -size % 512
        need(at <= len(data) and not any(data[end:at]), "something stands behind %r" % m.group(1))
        yield m.group(1).decode("latin-1"), end - size, end
    yield None, at, at


def check_bundle(data, given):
    all_members, history, last = members(data), History(), -1
    name, a, b = next(all_members)
    m = re.fullmatch(rb"countersign-bundle/1\nsession ([0-9a-f]{32})\nkey ([^\n]+)\n", data[a:b])
    need(name == "manifest" and m and b - a <= 1024, "not the manifest of a bundle")
    session, key = bytes.fromhex(m.group(1).decode()), read_key(m.group(2))
    need(given in (None, key), "its key is not the one that was given")
    name, a, b = next(all_members)
    note = data[a:b]
    need(name == "checkpoint", "the checkpoint must stand here")
    size, root = open_checkpoint(note, key)
    for name, a, b in all_members:
        if name is None or not name.startswith("leaf-"):
            break
        above, _, below = data[a:b].partition(b"\n\n")
        lines = above.decode("latin-1").split("\n")
        m = re.fullmatch(r"c2sp.org/tlog-proof@v1\nextra (\S*)\nindex (0|[1-9][0-9]{0,18})", "\n".join(lines[:3]))
        need(m and below == note and len(lines) <= 66, "%s: malformed" % name)
        leaf, index = base64_bytes(m.group(1)), int(m.group(2))
        need(last < index < size and name == "leaf-%020d.tlog-proof" % index, "%s: another leaf" % name)
        h, i, j, last = sha256(b"\0", leaf), index, size - 1, index
        for line in lines[3:]:
            need(j > 0, "%s: malformed" % name)
            while i == j and not i & 1:
                i, j = i >> 1, j >> 1
            h = sha256(b"\1", base64_bytes(line, 32), h) if i & 1 else sha256(b"\1", h, base64_bytes(line, 32))
            i, j = i >> 1, j >> 1
        need(j == 0 and h == root, "%s: the leaf is not in the log" % name)
        history.leaf(index, leaf)
    need(name == session.hex() + ".csr", "the recording must stand here")
    need(next(all_members)[0] is None, "something stands behind the recording")
    if session not in history.anchors:
        check_recording(data[a:b], session, None)
        raise Bad("no leaf about this recording", 3)
    check_recording(data[a:b], session, history)


# ---- everything ----
def check_directory(directory, key, since, say):
    log, history, seen = os.path.join(directory, "log"), None, set()
    log = directory if not os.path.isdir(log) and os.path.exists(os.path.join(directory, "checkpoint")) else log
    with say(log):
        history = check_log(log, key or read_key(open(os.path.join(log, "log.pub"), "rb").read()), since)
    for name in sorted(os.listdir(directory)):
        m = re.fullmatch(r"([0-9a-f]{32})(-[0-9a-f]{16})?\.csr", name)
        with say(name):
            if m:
                seen |= set() if m.group(2) else {bytes.fromhex(m.group(1))}
                gate = int(m.group(2)[1:], 16) if m.group(2) else None
                check_recording(map_file(os.path.join(directory, name)), bytes.fromhex(m.group(1)), history, gate)
    for session in set(history.anchors if history else ()) - seen:
        with say(session.hex() + ".csr"):
            raise Bad("the recording is not there", 3)


class Saying:
    """Prints what goes wrong inside `with say(what)`, and remembers the worst."""
    status = 0

    def __call__(self, what):
        self.what = what
        return self

    def __enter__(self):
        return self

    def __exit__(self, kind, e, _):
        if kind is None or not issubclass(kind, (Bad, OSError)):
            return False
        why, status = e.args if kind is Bad else (str(e), 3)
        self.status = next(s for s in (1, 3, 2, 0) if s in (status, self.status))
        print("%s: %s: %s" % ({1: "tampered", 2: "unfinished", 3: "missing"}[status], self.what, why))
        return True


def main(args):
    options = dict(zip(args[1::2], args[2::2]))
    if not args or len(args) % 2 == 0 or set(options) - {"--key", "--since"}:
        print(__doc__, file=sys.stderr)
        return 64
    path, key, say = args[0], options.get("--key"), Saying()
    with say("key"):
        key = read_key(open(key, "rb").read() if os.path.exists(key) else key.encode()) if key else None
    with say(path):
        name = re.fullmatch(r"([0-9a-f]{32})\.csr", os.path.basename(path))
        if os.path.isdir(path):
            below = os.path.join(path, "recordings")
            check_directory(below if os.path.isdir(below) else path, key, options.get("--since"), say)
        elif name:
            check_recording(map_file(path), bytes.fromhex(name.group(1)), None)
            raise Bad("there is no log to check it against", 3)
        else:
            check_bundle(map_file(path), key)
    print("status %d" % say.status)
    return say.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
