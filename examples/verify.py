#!/usr/bin/env python3
"""verify.py PATH [--key KEY|FILE] [--since CHECKPOINT]: checks a recordings directory with its log, a log, a recording, or a bundle.

A second verifier, independent of Countersign's own: standard library only, written from docs/format.md. It does not read the
journal. Ends with 0 (intact), 1 (tampered), 3 (something is missing), 2 (unfinished) or 64 (usage). Bundles: verify_bundle.py.
"""
import contextlib, mmap, os, re, stat, struct, sys  # noqa: E401
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from verify_note import Bad, need, open_checkpoint, read_key, sha256  # noqa: E402

UINT = lambda v: type(v) is int  # noqa: E731 (what a value of a leaf, a header or a payload in clear must be)
SIZE = lambda least, most=0: lambda v: type(v) is bytes and least <= len(v) <= (most or least)  # noqa: E731
TEXT = lambda least, most: lambda v: type(v) is str and least <= len(v.encode()) <= most  # noqa: E731
ROW = lambda *shapes: lambda v: type(v) is list and len(v) == len(shapes) and all(f(x) for f, x in zip(shapes, v))  # noqa: E731
MANY = lambda shape, most=4: lambda v: type(v) is list and 1 <= len(v) <= most and all(map(shape, v))  # noqa: E731
ID, HASH, WORD, PRIVATE = SIZE(16), SIZE(32), TEXT(0, 256), ROW(SIZE(32), MANY(ROW(SIZE(8), SIZE(92, 4188))))
KEYS = ROW(HASH, HASH, MANY(ROW(TEXT(1, 31), HASH, SIZE(92))))
HEADER = ROW(UINT, UINT, ID, UINT, UINT, UINT, UINT, KEYS)
PAYLOAD = {3: ROW(UINT, MANY(ROW(UINT, UINT, UINT, UINT), 64)), 4: ROW(UINT, UINT, UINT, KEYS), 5: ROW(*[UINT] * 7)}
# Per key of a leaf: its type. Per kind: keys that must be there, keys that may be.
VALUE = dict(enumerate([ID, WORD, UINT, HASH, UINT, UINT, HASH, ID, PRIVATE, PRIVATE, PRIVATE, WORD, WORD, HASH, UINT, UINT, HASH, WORD, UINT,
                        HASH, ID], 1))
KINDS = {1: ({13}, {19, 20}), 2: ({13, 19, 20}, {1}), 3: ({9, 5, 13}, {1, 12, 21}), 4: ({1, 9, 12, 6}, {13}), 5: ({1, 14, 15, 13}, {3}),
         6: ({1, 3, 5}, {2, 4, 6, 13, 9}), 7: ({2, 4, 5, 9}, {11, 13, 21}), 8: ({1, 3, 2, 8, 4}, {13}), 9: ({1, 3, 2, 8, 5}, {13}),
         10: ({9, 13}, {10, 11, 12, 1, 2, 5, 21}), 11: ({6, 7}, {9, 13, 21}), 12: ({13, 17}, {9, 21}), 13: ({1, 14, 15}, {16}),
         14: ({1, 13}, {9, 17, 21}), 15: ({18, 19, 20}, set()), 16: ({1, 3, 2, 5, 13}, set()), 17: ({1, 9}, {13, 21}), 18: ({9}, {13, 21})}


# ---- deterministic CBOR ----
def item(data, at):
    """One item of deterministic CBOR, and where the next one begins."""
    major, n = data[at] >> 5, data[at] & 31
    width = 1 << n - 24 if n > 23 else 0
    n, at = int.from_bytes(data[at + 1:at + 1 + width], "big") if width else n, at + 1 + width
    need(major in (0, 2, 3, 4, 5) and width <= 8 and n >= {0: 0, 1: 24, 2: 256, 4: 1 << 16, 8: 1 << 32}[width], "malformed CBOR")
    if major in (2, 3):
        need(n <= len(data) - at, "malformed CBOR")
        return (data[at:at + n] if major == 2 else data[at:at + n].decode()), at + n
    out = []
    for _ in range(n * (major - 3) if major else 0):
        value, at = item(data, at)
        out.append(value)
    if major == 5:
        need(all(map(UINT, out[::2])) and all(a < b for a, b in zip(out[::2], out[2::2])), "malformed CBOR")
        out = dict(zip(out[::2], out[1::2]))
    return (out if major else n), at


def cbor(data, shape, why):
    value, end = item(data, 0)
    need(end == len(data) and shape(value), why)
    return value


# ---- the log ----
class History:
    """What leaves say of sessions and requests, and that it can have been so."""

    def __init__(self):
        self.anchors, self.votes, self.held, self.used, self.requests, self.results, self.events = {}, {}, {}, {}, set(), set(), set()
        self.first = self.last = None

    def leaf(self, index, data):
        _, kind, time, f = cbor(data, ROW(lambda v: v == 1, lambda v: v in KINDS, UINT, lambda v: type(v) is dict), "malformed leaf")
        must, may = KINDS[kind]
        need(must <= set(f) <= must | may and all(VALUE[k](v) for k, v in f.items()), "malformed leaf")
        self.first, self.last = time if self.first is None else self.first, max(time, self.last or 0)
        wrong = self.wrong(kind, f, (f.get(1), f.get(3)))
        need(not wrong, "leaf %d: %s" % (index, wrong))

    def wrong(self, kind, f, action):
        """Takes a leaf in; says why it cannot be, or nothing."""
        if f.get(21) in self.events:
            return "an event is in the log twice"
        self.events |= {f[21]} if 21 in f else set()
        if kind in (4, 5, 13):
            a = self.anchors.setdefault(f[1], [])
            if kind != 4:
                if a and (a[-1][0] >= f[15] or a[-1][2]) and a[-1][:2] != (f[15], f[14]):
                    return "it contradicts an earlier leaf"
                a.append((f[15], f[14], kind == 5 or f.get(16) == 1 or bool(a and a[-1][2])))
        elif kind == 6 and 2 in f and 4 in f and f[5] == 1:
            self.held[action] = f[4]
        elif kind == 7:
            digest, outcomes = self.votes.setdefault(f[2], (f[4], set()))
            outcomes.add(f[5])
            return digest != f[4] and "votes on one request about two digests"
        elif kind == 8:
            digest, outcomes = self.votes.get(f[2], (None, set()))
            if 2 not in outcomes or 0 in outcomes:
                return "it ran without a vote, or against one"
            if not digest == f[4] == self.held.get(action):
                return "what ran is not what was held and approved"
            if f[8] in self.used or f[2] in self.requests:
                return "a grant or request was used twice"
            self.used[f[8]] = action
            self.requests.add(f[2])
        elif kind == 9:
            if self.used.get(f[8]) != action or f[8] in self.results:
                return "a result without its use, or a second one"
            self.results.add(f[8])


def root_of(hashes):
    while len(hashes) > 1:
        hashes = [sha256(b"\1", *hashes[i:i + 2]) if i + 1 < len(hashes) else hashes[i] for i in range(0, len(hashes), 2)]
    return hashes[0] if hashes else sha256()


def read(path):
    with open(path, "rb") as f:
        return f.read()


def tile(directory, level, n, width):
    """A tile or bundle: the partial file of that width, or a wider one, or the complete one; and how wide it is."""
    groups = [n // 1000**i % 1000 for i in range((len(str(n)) + 2) // 3)][::-1]
    path = os.path.join(directory, "tile", level, *["x%03d" % g for g in groups[:-1]], "%03d" % groups[-1])
    wide = next((w for w in range(width, 256) if os.path.exists(path + ".p/%d" % w)), 256)
    return read(path + ".p/%d" % wide if wide < 256 else path), wide


def check_log(directory, key, since):
    size, root = open_checkpoint(read(os.path.join(directory, "checkpoint")), key)
    old = open_checkpoint(read(since), key) if since else (0, sha256())
    need(old[0] <= size, "the log is shorter than at the older checkpoint")
    hashes, history = [], History()
    while len(hashes) < size:
        width = min(256, size - len(hashes))
        data, wide = tile(directory, "entries", len(hashes) // 256, width)
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
            part, (data, wide) = b"".join(row[at:at + 256]), tile(directory, str(level), at // 256, min(256, len(row) - at))
            need(len(data) == 32 * wide and data.startswith(part), "tile %d/%d is wrong" % (level, at // 256))
        row, level = [root_of(row[at:at + 256]) for at in range(0, len(row) - 255, 256)], level + 1
    need(root_of(hashes) == root, "leaves and tiles do not give the root that was signed")
    return history


# ---- recordings ----
CRC = list(range(256))
for _ in range(8):
    CRC = [c >> 1 ^ (0x82f63b78 if c & 1 else 0) for c in CRC]


def crc32c(data):
    c = 0xffffffff
    for b in data:
        c = CRC[(c ^ b) & 255] ^ c >> 8
    return c ^ 0xffffffff


class Recording:
    """Frames one by one; `torn` where the file ends as after a crash, `end` the time of its END and 1."""

    def __init__(self, data):
        self.data, self.torn, self.end, self.seq, self.epoch, self.last = data, False, None, 0, 1, 0
        n = int.from_bytes(data[8:12], "little")
        need(data[:8] == b"CSR1\r\n\x1a\n" and n <= 4096 - 44 and len(data) >= 44 + n, "its header is damaged")
        self.at, self.chain = 44 + n, data[12 + n:44 + n]
        version, suite, self.session, self.began, self.gate, window, reset, _ = cbor(data[12:12 + n], HEADER, "its header is damaged")
        need((version, suite, window, reset) == (1, 1, 18, 262144) and self.chain == sha256(b"\1", data[:12 + n]), "its header is damaged")
        self.new_epoch()

    def new_epoch(self):
        self.events = self.plain = self.index = self.reset = 0  # reset: the last RESET; resets: those no INDEX has yet
        self.resets = []

    def frames(self):
        while self.at < len(self.data) and not self.torn:
            left, head = len(self.data) - self.at, self.data[self.at:self.at + 48]
            if left >= 48:
                magic, kind, flags, epoch, seq, first, span, events, plain, n, back, crc = struct.unpack("<HBBIQQIIIIII", head)
                data = kind in (1, 2)
                need(magic == 0x4643 and 1 <= kind <= 5 and flags == (not data) and n <= 1123844 and plain <= 1114116 and seq and epoch and
                     (back > 0) == (kind == 1) and (0 < events <= plain // 5 if data else not events and plain == n and not span),
                     "frame %d: this is not the head of a frame" % (self.seq + 1))
                body = head[:44] + self.data[self.at + 48:self.at + 96 + n]
            self.torn = left < 48 or left < n + 96 or crc32c(body) != crc and left == n + 96
            if not self.torn:
                why = self.wrong(kind, epoch, seq, first, span, events, plain, back, body, crc)
                need(not why, "frame %d: %s" % (self.seq + 1, why))
                self.seq, self.chain, self.last, self.at = seq, body[-32:], first + span * 1000, self.at + n + 96
                self.events, self.plain = self.events + events, self.plain + (plain if events else 0)
                yield seq

    def wrong(self, kind, epoch, seq, first, span, events, plain, back, body, crc):
        if crc32c(body) != crc or sha256(b"\2", self.chain, body[:-32]) != body[-32:]:
            return "checksum or chain is wrong"
        if self.end or seq != self.seq + 1 or epoch != self.epoch + (kind == 4) or first < self.last:
            return "it does not stand where it must"
        if kind == 1 and not (self.reset and back == self.at - self.reset):
            return "it does not go on from the RESET before it"
        value = cbor(body[44:-48], PAYLOAD[kind], "frame %d: malformed" % seq) if kind in PAYLOAD else None
        if kind == 2:
            self.reset = self.at
            self.resets.append(self.at)
            return len(self.resets) > 64 and "an INDEX is missing"
        if kind == 3:
            if value[0] != self.index or [x[0] for x in value[1]] != self.resets:
                return "its INDEX is not that of the frames before it"
            self.index, self.resets = self.at, []
        elif kind == 4:
            self.epoch = epoch
            self.new_epoch()
            return value[0] not in (1, 2) and "malformed RECOVER"
        elif kind == 5:
            self.end = value[1] + 1
            return ((value[0] not in (1, 2, 3) or self.resets or [value[2], value[3], value[5], value[6]] !=
                     [seq, self.events, self.plain, self.index]) and "its END is not that of the frames before it")


def check_recording(data, session, history, gate=None):
    """Raises what is wrong; returns when it is complete."""
    anchors = history.anchors.get(session) if history and gate is None else None
    need(len(data) >= 44 or anchors is not None or not history, "the file ends inside its header", 2)
    x = Recording(data)
    need(x.session == session and gate in (None, x.gate), "it is the recording of another session")
    known = {frames: chain for frames, chain, _ in anchors or ()}
    need(known.pop(0, x.chain) == x.chain, "the log has another header of it")
    for seq in x.frames():
        need(known.pop(seq, x.chain) == x.chain, "frame %d is not the one that the log knows" % seq)
    need(not (x.torn and x.end), "bytes behind END")
    need(not known, "the end is cut off: the log has frame %d" % max(known or [0]))
    if gate is not None or not history:
        return need(x.end or gate is not None, "no end", 2)
    by = history.last - 10000 if history.last is not None else -1
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


# ---- everything ----
def check_directory(directory, key, since):
    log, history, seen = os.path.join(directory, "log"), None, set()
    log = directory if not os.path.isdir(log) and os.path.exists(os.path.join(directory, "checkpoint")) else log
    with say(log):
        history = check_log(log, key or read_key(read(os.path.join(log, "log.pub"))), since)
    for name in sorted(os.listdir(directory)):
        m = re.fullmatch(r"([0-9a-f]{32})(-[0-9a-f]{16})?\.csr", name)
        with say(name):
            if m:
                session, gate = bytes.fromhex(m.group(1)), int(m.group(2)[1:], 16) if m.group(2) else None
                seen |= {session} if gate is None else set()
                check_recording(map_file(os.path.join(directory, name)), session, history, gate)
    for session in set(history.anchors if history else ()) - seen:
        with say(session.hex() + ".csr"):
            raise Bad("the recording is not there", 3)
    if say.status in (1, 3) and any(name.endswith(".csj") for name in os.listdir(directory)):
        print("note: this program does not read the journal (docs/format.md), which may have what a power loss took from other files")


@contextlib.contextmanager
def say(what):
    """Prints what goes wrong inside, and remembers the worst. What cannot be taken apart is tampered with."""
    try:
        yield
    except (ValueError, IndexError, RecursionError, OSError) as e:
        why, status = e.args if type(e) is Bad else (str(e), 3 if isinstance(e, OSError) else 1)
        say.status = next(s for s in (1, 3, 2, 0) if s in (status, say.status))
        print("%s: %s: %s" % ({1: "tampered", 2: "unfinished", 3: "missing"}[status], what, why))


def main(args):
    options = dict(zip(args[1::2], args[2::2]))
    if not args or len(args) % 2 == 0 or set(options) - {"--key", "--since"}:
        print(__doc__, file=sys.stderr)
        return 64
    path, key, say.status = args[0], options.get("--key"), 0
    with say("key"):
        key = read_key(read(key) if os.path.exists(key) else key.encode()) if key else None
    with say(path):
        name = re.fullmatch(r"([0-9a-f]{32})\.csr", os.path.basename(path))
        if os.path.isdir(path):
            below = os.path.join(path, "recordings")
            check_directory(below if os.path.isdir(below) else path, key, options.get("--since"))
        elif name:
            check_recording(map_file(path), bytes.fromhex(name.group(1)), None)
            raise Bad("there is no log to check it against", 3)
        else:
            from verify_bundle import check_bundle
            check_bundle(map_file(path), key)
    print("status %d" % say.status)
    return say.status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
