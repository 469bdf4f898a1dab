"""Public keys of logs and checkpoints that they signed: signed notes (c2sp.org/signed-note) with Ed25519, as docs/format.md says.
Part of verify.py, in a file of its own because nothing in it is about recordings; standard library only."""
import base64, hashlib, re  # noqa: E401


class Bad(ValueError):
    """Not as it must be: (why, status)."""


def need(good, why, status=1):
    if not good:
        raise Bad(why, status)


def sha256(*pieces):
    return hashlib.sha256(b"".join(pieces)).digest()


# ---- Ed25519 (RFC 8032, section 5.1.7) ----
P, Q = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


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
    y, sign = int.from_bytes(data, "little") & (2**255 - 1), data[31] >> 7
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    x = x if x * x % P == square else x * pow(2, (P - 1) // 4, P) % P
    need(y < P and x * x % P == square and not (x == 0 and sign), "no point of the curve")
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


def signed(public, text, signature):
    s = int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + text).digest(), "little") % Q
    a = times(s, point((4 * pow(5, -1, P) % P).to_bytes(32, "little")))
    b = add(point(signature[:32]), times(k, point(public)))
    return s < Q and (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


# ---- keys and checkpoints ----
def base64_bytes(text, n=None):
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text and n in (None, len(data)), "another spelling of base 64")
    return data


def read_key(text):
    name, number, key = text.decode().strip(" \t\r\n").split("+", 2)
    public = base64_bytes(key, 33)
    need(re.fullmatch(r"[^\s\x00-\x1f\x7f]{1,128}", name) and public[0] == 1 and
         sha256(name.encode(), b"\n", public)[:4].hex() == number, "not a public key")
    return name, bytes.fromhex(number), public[1:]


def open_checkpoint(note, key):
    """Size and root, if this key signed them."""
    need(len(note) <= 16384 and not re.search(rb"[\x00-\x09\x0b-\x1f]", note), "malformed note")
    text, lines = note.decode().rsplit("\n\n", 1)
    text, good = text + "\n", 0
    need(lines.endswith("\n"), "a note without signatures")
    for line in lines.split("\n")[:-1]:
        m = re.fullmatch(r"\u2014 ([^\s+]{1,128}) (\S{8,})", line)
        need(m, "malformed signature line")
        data = base64_bytes(m.group(2)) if m.group(1) == key[0] else b""
        if data[:4] == key[1] and len(data) == 68:
            need(signed(key[2], text.encode(), data[4:]), "the checkpoint's signature is wrong")
            good += 1
    name, size, root, end = text.split("\n")
    need(good == 1 and name == key[0] and not end, "the checkpoint is not signed with this key")
    need(re.fullmatch(r"0|[1-9][0-9]{0,18}", size) and int(size) < 1 << 62, "malformed size")
    return int(size), base64_bytes(root, 32)
