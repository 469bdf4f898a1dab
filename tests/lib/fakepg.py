"""A PostgreSQL server that does what a test tells it: well-behaved by default, broken at exactly one place
otherwise. One thread per connection; every connection ends when the server is destroyed."""
import base64
import contextlib
import hashlib
import hmac
import os
import socket
import ssl
import struct
import threading

from pgwire import cstr, message

SETTINGS = {"server_version": "15.99", "client_encoding": "UTF8", "standard_conforming_strings": "on", "DateStyle": "ISO, MDY",
            "IntervalStyle": "postgres", "TimeZone": "UTC", "integer_datetimes": "on"}


class Gone(Exception):
    """The gateway has closed, or the test is over."""


def auth(kind, data=b""):
    return message("R", struct.pack("!I", kind) + data)


def parameter(name, value):
    return message("S", cstr(name) + cstr(value))


def error(text, sqlstate="XX000", severity="ERROR"):
    return message("E", b"S" + cstr(severity) + b"V" + cstr(severity) + b"C" + cstr(sqlstate) + b"M" + cstr(text) + b"\0")


def ready(state="I"):
    return message("Z", state.encode())


def complete(tag):
    return message("C", cstr(tag))


def notice(text):
    return message("N", b"SNOTICE\0VNOTICE\0C00000\0M" + cstr(text) + b"\0")


def row(*values):
    return message("D", struct.pack("!H", len(values)) + b"".join(struct.pack("!I", len(v)) + v for v in values))


def columns(*names):
    return message("T", struct.pack("!H", len(names)) + b"".join(cstr(n) + struct.pack("!IHIHIH", 0, 0, 25, 0xffff, 0xffffffff, 0) for n in names))


class Connection:
    def __init__(self, server, sock):
        self.server, self.sock, self.buffer = server, sock, b""
        self.user = None

    def send(self, *parts):
        try:
            self.sock.sendall(b"".join(parts))
        except OSError:
            raise Gone()

    def exactly(self, n):
        while len(self.buffer) < n:
            try:
                part = self.sock.recv(65536)
            except OSError:
                raise Gone()
            if not part:
                raise Gone()
            self.buffer += part
        got, self.buffer = self.buffer[:n], self.buffer[n:]
        return got

    def read(self):
        head = self.exactly(5)
        return head[:1].decode("latin1"), self.exactly(struct.unpack("!I", head[1:])[0] - 4)

    def packet(self):
        """One message of the time before the startup packet's answer, without its length."""
        return self.exactly(struct.unpack("!I", self.exactly(4))[0] - 4)

    def startup(self):
        """The startup packet's keys; cancel requests end the connection."""
        body = self.packet()
        if struct.unpack("!I", body[:4])[0] == 80877103 and self.server.tls:
            self.send(b"S")
            try:
                self.sock = self.server.tls.wrap_socket(self.sock, server_side=True)
            except (OSError, ssl.SSLError):
                raise Gone()
            body = self.packet()
        if struct.unpack("!I", body[:4])[0] == 80877102:
            self.server.cancels.append(body[4:])
            raise Gone()
        words = body[4:].split(b"\0")
        self.keys = dict(zip([w.decode() for w in words[0::2]], [w.decode() for w in words[1::2]]))
        self.user = self.keys.get("user")
        return self.keys

    def scram(self, iterations=4096, nonce=None, signature=None, salt=b"0123456789abcdef", first=None, last=None, offer=b"SCRAM-SHA-256\0\0"):
        """SCRAM as a server; each argument breaks one thing. Returns whether the client knew the password."""
        self.send(auth(10, offer))
        _, body = self.read()
        self.server.gs2 = body[body.index(b"\0") + 5:body.index(b",,") + 2]
        bare = body[body.index(b",,") + 2:].decode()
        theirs = bare.split("r=", 1)[1]
        both = nonce(theirs) if nonce else theirs + base64.b64encode(os.urandom(18)).decode()
        server_first = first(theirs) if first else "r=%s,s=%s,i=%d" % (both, base64.b64encode(salt).decode(), iterations)
        self.send(auth(11, server_first.encode()))
        _, body = self.read()
        final, _, proof = body.decode().rpartition(",p=")
        salted = hashlib.pbkdf2_hmac("sha256", self.server.password.encode(), salt, min(iterations, 4096))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        everything = (bare + "," + server_first + "," + final).encode()
        expected = hmac.digest(hashlib.sha256(client_key).digest(), everything, "sha256")
        right = bytes(a ^ b for a, b in zip(client_key, expected)) == base64.b64decode(proof)
        proof_of_ours = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), everything, "sha256")
        self.send(auth(12, last if last is not None else b"v=" + base64.b64encode(signature or proof_of_ours)))
        return right

    def greet(self, **settings):
        self.send(auth(0), *[parameter(k, v) for k, v in {**SETTINGS, "session_authorization": self.user, **settings}.items()],
                  message("K", struct.pack("!II", 4711, 815)), ready())

    def login(self, **settings):
        """Everything up to ReadyForQuery, as it should be."""
        self.startup()
        if not self.scram():
            self.send(error("wrong password", "28P01", "FATAL"))
            raise Gone()
        self.greet(**settings)
        return self

    def next_query(self):
        """The text of the next simple query; everything else is skipped, Terminate ends."""
        while True:
            kind, body = self.read()
            if kind == "Q":
                self.server.queries.append(body[:-1].decode())
                return self.server.queries[-1]
            if kind == "X":
                raise Gone()

    def answer_all(self):
        while True:
            self.next_query()
            self.send(columns("fake"), row(b"1"), complete("SELECT 1"), ready())

    def hang(self):
        """Says nothing until the gateway has closed."""
        while True:
            self.exactly(1)


class FakePostgres:
    """`script` gets each Connection; set it before the gateway comes."""

    def __init__(self, password, tls=None):
        self.password, self.cancels, self.queries, self.connections = password, [], [], []
        self.script = lambda c: c.login().answer_all()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.failures = []
        self.gs2 = None  # of the last SCRAM exchange: what it is bound to
        self.tls = None
        if tls:  # (certificate, key)
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*tls)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            self.script(Connection(self, sock))
        except Gone:
            pass
        except Exception as e:  # shown by the test that looks
            self.failures.append(repr(e))
        finally:
            self.end(sock)

    @staticmethod
    def end(sock):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()

    def destroy(self):
        self.end(self.listener)
        for s in self.connections:
            self.end(s)
