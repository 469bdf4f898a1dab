"""The PROXY protocol in front of the listeners: only who is named may say for whom it connects, and only in the one
form. Everything else is turned away before a byte of it reaches the protocol behind."""
import os
import socket
import ssl
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peer"))

import harness  # noqa: E402
from base import GatewayCase  # noqa: E402
from pgwire import Wire, kinds, query  # noqa: E402

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
SSL_REQUEST = struct.pack("!II", 8, 80877103)


def header(client="192.0.2.7", port=12345, command=0x21, tlvs=b""):
    family = socket.AF_INET6 if ":" in client else socket.AF_INET
    to = "fd00::1" if ":" in client else "10.0.0.1"
    body = socket.inet_pton(family, client) + socket.inet_pton(family, to) + struct.pack("!HH", port, 7432) + tlvs
    return SIGNATURE + bytes([command, 0x21 if ":" in client else 0x11]) + struct.pack("!H", len(body)) + body


LOCAL = SIGNATURE + b"\x20\0\0\0"


class ProxyCase(GatewayCase):
    def connect(self, first=b"", source="127.0.0.1", port=None):
        s = socket.create_connection(("127.0.0.1", port or self.gw.port), timeout=harness.PATIENCE, source_address=(source, 0))
        self.addCleanup(s.close)
        s.sendall(first)
        return s

    def closed(self, s):
        """It is closed, and not a byte came."""
        try:
            return s.recv(100) == b""
        except ConnectionResetError:
            return True

    def session(self, first, who="bot", source="127.0.0.1"):
        w = Wire.__new__(Wire)
        w.__dict__.update(self.template.__dict__)
        w.sock = self.connect(first, source)
        w.sock.settimeout(harness.PATIENCE)
        return w.login(who, self.gw.tokens[who], self.name)

    def address_of(self, w):
        """As control has it, which the record and the card show."""
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        return [s["address"] for s in self.gw.json("sessions")["sessions"]]


class Behind(ProxyCase):
    GATEWAY = {"listen": ', proxy_from: ["127.0.0.1", "127.7.0.0/16"]'}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        listener = socket.create_server(("127.0.0.1", 0))
        cls.template = Wire(listener.getsockname()[1], cls.gw.ca)
        listener.close()

    @classmethod
    def tearDownClass(cls):
        cls.template.close()
        super().tearDownClass()

    def test_the_session_has_the_clients_address_in_the_list_the_record_and_the_log(self):
        for client, shown in (("192.0.2.7", "192.0.2.7:12345"), ("2001:db8::5", "[2001:db8::5]:12345")):
            w = self.session(header(client))
            self.assertIn(shown, self.address_of(w))
            session = next(s["id"] for s in self.gw.json("sessions")["sessions"] if s["address"] == shown)
            w.close()
            harness.wait_until("its end", lambda: session not in [s["id"] for s in self.gw.json("sessions")["sessions"]])
            harness.wait_until("the record to say so", lambda: shown in str(self.gw.recording(session)))
            self.assertIn("address=" + shown, self.gw.log_text())

    def test_tls_follows_the_header_in_one_piece_or_byte_by_byte(self):
        s = self.connect(header() + SSL_REQUEST)
        self.assertEqual(s.recv(1), b"S")
        s = self.connect()
        for b in header(tlvs=b"\4\0\3abc"):
            s.sendall(bytes([b]))
        s.sendall(SSL_REQUEST)
        self.assertEqual(s.recv(1), b"S")

    def test_a_network_may_be_named(self):
        self.assertEqual(self.connect(header() + SSL_REQUEST, source="127.7.3.3").recv(1), b"S")

    def test_a_balancers_own_connection_is_answered(self):
        self.assertEqual(self.connect(LOCAL + SSL_REQUEST).recv(1), b"S")

    def test_without_a_header_nothing_is_said(self):
        self.assertTrue(self.closed(self.connect(SSL_REQUEST)))
        self.assertTrue(self.closed(self.connect(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03")))

    def test_version_1_is_refused(self):
        self.assertTrue(self.closed(self.connect(b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 7432\r\n" + SSL_REQUEST)))

    def test_who_is_not_named_is_refused_with_a_header_and_without(self):
        for first in (header() + SSL_REQUEST, SSL_REQUEST, LOCAL + SSL_REQUEST, b""):
            self.assertTrue(self.closed(self.connect(first, source="127.0.0.2")))
        self.assertIn("not one of the listener's load balancers", self.gw.log_text())

    def test_a_second_header_is_no_header(self):
        s = self.connect(header("192.0.2.9") + header("10.9.9.9") + SSL_REQUEST)
        got = b""
        try:
            while part := s.recv(1000):
                got += part
        except ConnectionResetError:
            pass
        self.assertNotIn(b"S", got[:1])
        self.assertNotIn("10.9.9.9", self.gw.log_text())

    def test_headers_that_are_not_quite_right(self):
        good = header()
        for bad in (good[:12] + b"\x22" + good[13:], good[:12] + b"\x31" + good[13:], good[:13] + b"\x12" + good[14:],
                    good[:13] + b"\x00" + good[14:], good[:14] + b"\0\x0b" + good[16:], good[:14] + b"\xff\xff" + good[16:],
                    header(tlvs=b"\4\0\1"), header(tlvs=b"\4"), b"\r\n\r\n\0\r\nQUIX\n" + good[12:]):
            self.assertTrue(self.closed(self.connect(bad + SSL_REQUEST)), bad)

    def test_a_header_that_does_not_come_is_not_waited_for_long(self):
        self.assertTrue(self.closed(self.connect(header()[:20])))

    def test_the_cap_before_login_counts_clients_and_not_the_balancer(self):
        cap = 256
        many = []
        for _ in range(cap):
            s = self.connect(header("192.0.2.50") + SSL_REQUEST)
            self.assertEqual(s.recv(1), b"S")
            many.append(s)
        self.assertTrue(self.closed(self.connect(header("192.0.2.50") + SSL_REQUEST)))
        self.assertEqual(self.connect(header("192.0.2.51") + SSL_REQUEST).recv(1), b"S")
        for s in many:
            s.close()

    def test_the_cap_before_login_counts_an_ipv6_network_as_one(self):
        """Whoever has one has 2^64 addresses: each with a share of its own would be no cap."""
        many = []
        for i in range(256):
            s = self.connect(header("2001:db8:0:7::%x" % (i + 1)) + SSL_REQUEST)
            self.assertEqual(s.recv(1), b"S")
            many.append(s)
        self.assertTrue(self.closed(self.connect(header("2001:db8:0:7:ffff::1") + SSL_REQUEST)))
        self.assertEqual(self.connect(header("2001:db8:0:8::1") + SSL_REQUEST).recv(1), b"S")
        for s in many:
            s.close()

    def test_the_cap_before_login_knows_an_ipv4_address_in_ipv6_form(self):
        many = []
        for i in range(256):
            s = self.connect(header("192.0.2.60" if i % 2 else "::ffff:192.0.2.60") + SSL_REQUEST)
            self.assertEqual(s.recv(1), b"S")
            many.append(s)
        for client in ("192.0.2.60", "::ffff:192.0.2.60"):
            self.assertTrue(self.closed(self.connect(header(client) + SSL_REQUEST)))
        self.assertEqual(self.connect(header("::ffff:192.0.2.61") + SSL_REQUEST).recv(1), b"S")
        for s in many:
            s.close()

    def test_the_api_listener_counts_an_ipv6_network_as_one(self):
        ctx = ssl.create_default_context(cafile=self.gw.ca)

        def shaken(client):
            try:
                return ctx.wrap_socket(self.connect(header(client), port=self.gw.api_port), server_hostname="localhost")
            except (ssl.SSLError, ConnectionError):
                return None
        many = [shaken("2001:db8:0:7::%x" % (i + 1)) for i in range(512)]
        self.assertNotIn(None, many)
        self.assertIsNone(shaken("2001:db8:0:7:ffff::1"))
        self.assertIsNotNone(shaken("2001:db8:0:8::1"))
        for s in many:
            s.close()

    def test_the_api_listener_too(self):
        ctx = ssl.create_default_context(cafile=self.gw.ca)
        s = ctx.wrap_socket(self.connect(header("192.0.2.77"), port=self.gw.api_port), server_hostname="localhost")
        s.sendall(b"GET /v1/requests HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer wrong\r\n\r\n")
        self.assertIn(b" 401 ", s.recv(1000))
        hello = b"\x16\x03\x01\0\x05\1\0\0\1\0"
        self.assertTrue(self.closed(self.connect(hello, port=self.gw.api_port)))
        self.assertTrue(self.closed(self.connect(header() + hello, port=self.gw.api_port, source="127.0.0.2")))

    def test_a_reload_changes_who_may(self):
        self.assertTrue(self.closed(self.connect(header() + SSL_REQUEST, source="127.9.0.1")))
        self.gw.listen = ', proxy_from: ["127.0.0.1", "127.7.0.0/16", "127.9.0.1"]'
        self.gw.configure(self.RULES)
        self.gw.cli("reload")
        harness.wait_until("it to be let in", lambda: not self.closed(self.connect(header() + SSL_REQUEST, source="127.9.0.1")))


class Without(ProxyCase):
    def test_a_header_is_no_protocol_where_nobody_is_named(self):
        for first in (header(), LOCAL):
            s = self.connect(first + SSL_REQUEST)
            got = b""
            try:
                while part := s.recv(1000):
                    got += part
            except ConnectionResetError:
                pass
            self.assertNotEqual(got[:1], b"S")
        self.assertNotIn("192.0.2.7", self.gw.log_text())

    def test_mistakes_in_the_list_are_said(self):
        for wrong, words in (("[]", "is empty"), ('["10.0.0.1/8"]', "no bit set"), ('["10.0.0.0/33"]', "must be an IP"),
                             ('["balancer"]', "must be an IP"), ('["0x7f.1"]', "must be an IP"), ('["10.0.0"]', "must be an IP")):
            self.gw.listen = ", proxy_from: " + wrong
            self.gw.configure(self.RULES)
            r = self.gw.cli("reload", ok=False)
            self.assertNotEqual(r.returncode, 0)
            self.assertIn(words, r.stdout + r.stderr, wrong)
        self.gw.listen = ""
        self.gw.configure(self.RULES)
        self.gw.cli("reload")


if __name__ == "__main__":
    unittest.main()
