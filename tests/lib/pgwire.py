"""A small PostgreSQL client that says exactly what it is told: for messages, orders and lengths that no
driver would send. SCRAM-SHA-256 from RFC 7677; no other authentication."""
import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import time

SSL_REQUEST = struct.pack("!II", 8, 80877103)


def message(kind, body=b""):
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def cstr(s):
    return (s if isinstance(s, bytes) else s.encode()) + b"\0"


def query(sql):
    return message("Q", cstr(sql))


def parse(sql, name="", types=()):
    return message("P", cstr(name) + cstr(sql) + struct.pack("!H", len(types)) + b"".join(struct.pack("!I", t) for t in types))


def bind(params=(), statement="", portal="", formats=(), results=()):
    body = cstr(portal) + cstr(statement) + struct.pack("!H", len(formats)) + b"".join(struct.pack("!H", f) for f in formats)
    body += struct.pack("!H", len(params))
    for p in params:
        p = p.encode() if isinstance(p, str) else p
        body += struct.pack("!i", -1) if p is None else struct.pack("!i", len(p)) + p
    return message("B", body + struct.pack("!H", len(results)) + b"".join(struct.pack("!H", r) for r in results))


def describe(what="P", name=""):
    return message("D", what.encode() + cstr(name))


def execute(portal="", rows=0):
    return message("E", cstr(portal) + struct.pack("!I", rows))


def close(what, name=""):
    return message("C", what.encode() + cstr(name))


SYNC, FLUSH, TERMINATE, COPY_DONE = message("S"), message("H"), message("X"), message("c")


class Closed(Exception):
    pass


class Wire:
    def __init__(self, port, ca=None, host="127.0.0.1", timeout=60):
        self.sock = socket.create_connection((host, port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as every driver does
        self.sock.settimeout(timeout)
        self.ca, self.tls, self.key, self.gate, self.parameters, self.notices = ca, False, None, None, {}, []
        self.buffer = b""
        self.client_certificate = self.tls_versions = None  # (certificate, key) as paths; (least, most)

    def start_tls(self):
        self.send(SSL_REQUEST)
        answer = self.sock.recv(1)
        if answer != b"S":
            raise Closed("TLS refused: %r" % answer)
        ctx = ssl.create_default_context(cafile=self.ca)
        if self.client_certificate:
            ctx.load_cert_chain(*self.client_certificate)
        if self.tls_versions:
            ctx.minimum_version, ctx.maximum_version = self.tls_versions
        self.sock = ctx.wrap_socket(self.sock, server_hostname="localhost")
        self.tls = True

    def send(self, *parts):
        self.sock.sendall(b"".join(parts))

    def startup(self, user, database, version=196608, **more):
        body = struct.pack("!I", version) + cstr("user") + cstr(user) + cstr("database") + cstr(database)
        for k, v in more.items():
            body += cstr(k) + cstr(v)
        body += b"\0"
        self.send(struct.pack("!I", len(body) + 4) + body)

    def exactly(self, n):
        while len(self.buffer) < n:
            part = self.sock.recv(65536)
            if not part:
                raise Closed("the peer closed")
            self.buffer += part
        got, self.buffer = self.buffer[:n], self.buffer[n:]
        return got

    def read(self):
        """(type, body) of the next message."""
        head = self.exactly(5)
        return head[:1].decode("latin1"), self.exactly(struct.unpack("!I", head[1:])[0] - 4)

    def login(self, user, password, database, **more):
        if self.ca and not self.tls:
            self.start_tls()
        self.startup(user, database, **more)
        kind, body = self.read()
        if kind == "E":
            raise PgError(body)
        assert kind == "R" and struct.unpack("!I", body[:4])[0] == 10, (kind, body)
        self.scram(password)
        while True:
            kind, body = self.read()
            if kind == "E":
                raise PgError(body)
            if kind == "S":
                k, v, _ = body.split(b"\0")
                self.parameters[k.decode()] = v.decode()
            if kind == "K":
                self.key, self.gate = body, body[0] & 63  # behind a gateway
            if kind == "Z":
                return self

    def scram(self, password):
        nonce = base64.b64encode(os.urandom(18)).decode()
        bare = "n=,r=" + nonce
        first = ("n,," + bare).encode()
        self.send(message("p", cstr("SCRAM-SHA-256") + struct.pack("!I", len(first)) + first))
        kind, body = self.read()
        if kind == "E":
            raise PgError(body)
        server_first = body[4:].decode()
        f = dict(x.split("=", 1) for x in server_first.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(f["s"]), int(f["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        final = "c=biws,r=" + f["r"]
        auth = (bare + "," + server_first + "," + final).encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), auth, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature))).decode()
        self.send(message("p", (final + ",p=" + proof).encode()))
        kind, body = self.read()
        if kind == "E":
            raise PgError(body)
        server = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), auth, "sha256")
        assert body[4:].decode() == "v=" + base64.b64encode(server).decode(), "the gateway's own proof is wrong"

    def until_ready(self, n=1):
        """Messages up to the n-th ReadyForQuery, notices aside, as (type, body)."""
        got, end = [], time.monotonic() + 2 * (self.sock.gettimeout() or 3600)
        while n > 0:
            if time.monotonic() > end:  # wait lines keep a connection busy for ever
                raise TimeoutError("no ReadyForQuery, but %r and the notices %r" % (got[-3:], self.notices[-3:]))
            kind, body = self.read()
            if kind == "N":
                self.notices.append(error_fields(body))
                continue
            got.append((kind, body))
            n -= kind == "Z"
        return got

    def ask(self, *parts, n=1):
        self.send(*parts)
        return self.until_ready(n)

    def closed(self):
        """True when the peer has closed (after whatever it still said)."""
        try:
            while True:
                if not self.sock.recv(65536):
                    return True
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            return True
        except socket.timeout:
            return False

    def close(self):
        self.sock.close()


def error_fields(body):
    return {part[:1].decode(): part[1:].decode("utf-8", "replace") for part in body.split(b"\0") if part}


class PgError(Exception):
    def __init__(self, body):
        self.fields = error_fields(body)
        super().__init__("%(C)s %(M)s" % self.fields)


def kinds(messages):
    return "".join(k for k, _ in messages)


def error_of(messages):
    for k, body in messages:
        if k == "E":
            return error_fields(body)
    return None


def cancel(port, key, ca=None):
    w = Wire(port, ca)
    if ca:
        w.start_tls()
    w.send(struct.pack("!II", 16, 80877102) + key)
    w.closed()
    w.close()
