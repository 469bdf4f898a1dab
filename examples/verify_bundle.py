"""Bundles (docs/format.md), for verify.py: a container of which every byte is prescribed, and each leaf with its own proof
(RFC 6962, section 2.1.1). In a file of its own because a recordings directory with its log is checked without it."""
import re

import verify
from verify_note import Bad, base64_bytes, need, open_checkpoint, read_key, sha256


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
    all_members, history, last = members(data), verify.History(), -1
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
        verify.check_recording(data[a:b], session, None)
        raise Bad("no leaf about this recording", 3)
    verify.check_recording(data[a:b], session, history)
