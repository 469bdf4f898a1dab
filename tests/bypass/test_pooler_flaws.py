"""Flaws that poolers and servers of PostgreSQL had, tried on the gateway: one test for each, from both sides where there are
two. The peer is hostile, the gateway stays as it was: nothing is restarted, and everybody else is served."""
import base64
import os
import ssl
import struct
import unittest

import fakepg
import harness
import pgwire
from base import ENDED, GatewayCase, fresh_name
from certificates import Authority
from fakepg import auth, ready
from pgwire import PgError, Wire, cstr, error_fields, kinds, message, query


class Flaws(GatewayCase):
    @classmethod
    def setUpClass(cls):
        cls.pg = harness.shared_postgres()
        cls.name = fresh_name("db")
        cls.roles = harness.make_database(cls.pg, cls.name)
        cls.fake = fakepg.FakePostgres("fake-password", tls=(cls.pg.data + "/server.crt", cls.pg.data + "/server.key"))
        cls.pki = harness.scratch("pki")
        cls.ca = Authority(cls.pki, "clients")
        real = harness.target_of(cls.pg, cls.name, cls.roles)
        fake = dict(name="fake", address="127.0.0.1:%d" % cls.fake.port, database="any", user="fake_ro", password="fake-password",
                    owner="fake_owner", owner_password="fake-password", tls="verify-full", roots=cls.pg.root)
        cls.gw = harness.Gateway([real, fake], listen_postgres=', client_certificates: { authorities: %s, dns: "{name}.agents" }' % cls.ca.cert)
        try:
            cls.gw.start().people()
        except Exception:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.fake.destroy()
        cls.gw.destroy()

    def setUp(self):
        self.fake.script = lambda c: c.login().answer_all()
        self.before = self.roles_now()

    def tearDown(self):
        self.assertEqual(self.roles_now(), self.before, "a role was restarted:\n" + self.gw.log_text()[-2000:])
        w = self.wire()
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        w.close()

    def roles_now(self):
        return sorted((r["role"], r["index"], r["pid"], r["restarts"]) for r in self.gw.api("GET", "/v1/status")[1]["roles"])

    def raw(self, tls=True):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        if tls:
            w.start_tls()
        return w

    def ended(self, w):
        """What it still says, then the end."""
        got = []
        try:
            while True:
                got.append(w.read())
        except ENDED:
            return got

    def upstream(self, script):
        """A login at a target that does this fails, with words."""
        def whole(c):
            c.startup()
            script(c)
            c.hang()
        self.fake.script = whole
        with self.assertRaises(PgError) as e:
            self.raw(tls=False).login("bot", self.gw.tokens["bot"], "fake")
        self.assertEqual(e.exception.fields["S"], "FATAL")
        return e.exception.fields

    def test_cve_2026_6664_a_length_in_a_scram_message_that_overflows(self):
        for n in (0xffffffff, 0xfffffffe, 0x7fffffff, 0x80000000, 5000, 33, 31):
            w = self.raw()
            w.startup("bot", self.name)
            self.assertEqual(w.read()[0], "R")
            w.send(message("p", cstr("SCRAM-SHA-256") + struct.pack("!I", n) + b"n,,n=,r=" + b"x" * 24))
            got = self.ended(w)
            self.assertTrue(got == [] or error_fields(got[-1][1])["C"] == "08P01", (n, got))
        for n in (0xffffffff, 0x7fffffff, 3, 0, 4):
            w = self.raw()
            w.startup("bot", self.name)
            self.assertEqual(w.read()[0], "R")
            w.send(b"p" + struct.pack("!I", n) + b"x" * 32)
            got = self.ended(w)
            self.assertTrue(got == [] or error_fields(got[-1][1])["C"] == "08P01", (n, got))

    def test_cve_2026_6665_a_nonce_of_the_server_that_is_longer_than_anybodys_buffer(self):
        for n in (100, 255, 256, 257, 1000, 1900, 2048, 4096, 9000, 59000):
            self.upstream(lambda c: (c.scram(nonce=lambda theirs: theirs + "y" * n, signature=b"\0" * 32), c.greet()))
        for n in (256, 1000, 1900):  # and the client's
            w = self.raw()
            w.startup("bot", self.name)
            self.assertEqual(w.read()[0], "R")
            first = b"n,,n=,r=" + b"z" * n
            w.send(message("p", cstr("SCRAM-SHA-256") + struct.pack("!I", len(first)) + first))
            got = self.ended(w)
            self.assertIn(error_fields(got[-1][1])["C"], ("08P01", "28P01"))

    def test_cve_2026_6666_an_error_without_a_sqlstate_or_without_anything(self):
        errors = (b"\0", b"", b"SFATAL\0\0", b"SERROR\0MNo code\0\0", b"C\0\0", b"MNo end")
        for body in errors:
            self.upstream(lambda c: c.send(message("E", body)))

        for body in errors:
            def in_session(c):
                c.login()
                c.next_query()
                c.send(message("E", body), ready())
                c.answer_all()
            self.fake.script = in_session
            w = self.raw(tls=False).login("bot", self.gw.tokens["bot"], "fake")
            w.send(query("select 1"))
            try:
                w.until_ready()
            except ENDED + (PgError, AssertionError):
                pass

    def test_cve_2026_6667_there_is_no_console_that_a_name_opens(self):
        for database in ("pgbouncer", "admin", "countersign", "control", "postgres", "template1"):
            for command in ("show clients", "kill_client 1"):
                with self.assertRaises(PgError) as e:
                    self.raw(tls=False).login("bot", self.gw.tokens["bot"], database).ask(query(command))
                self.assertEqual(e.exception.fields["C"], "3D000")

    def test_cve_2025_12819_a_search_path_at_the_start(self):
        for pairs in (dict(search_path="evil"), dict(options="-c search_path=evil"), dict(options="--search_path=evil"), dict(options="-csearch_path=evil"),
                      dict(SEARCH_PATH="evil"), dict(options="-c Search_Path=evil"), dict(options="-c search-path=evil")):
            w = self.raw()
            w.startup("bot", self.name, **pairs)
            kind, body = w.read()
            self.assertEqual((kind, error_fields(body)["C"]), ("E", "42501"), pairs)

    def test_cve_2021_23214_bytes_of_the_client_before_its_handshake(self):
        """CVE-2021-3935 is the same with client certificates, which this listener asks for: what somebody in between puts in
        front would run as whom the certificate names."""
        startup = b"user\0bot\0database\0" + self.name.encode() + b"\0\0"
        injected = struct.pack("!II", len(startup) + 8, 196608) + startup + query("select 1")
        for extra in (b"\0", injected):
            w = self.raw(tls=False)
            w.send(pgwire.SSL_REQUEST + extra)
            self.assertEqual(self.closes(w), b"")

    @staticmethod
    def closes(w):
        try:
            return w.sock.recv(100)
        except ConnectionError:
            return b""

    def test_cve_2021_23222_bytes_of_the_server_before_its_handshake(self):
        def script(c):
            c.packet()
            c.send(b"S" + auth(0) + ready())
            c.hang()
        self.fake.script = script
        with self.assertRaises(PgError) as e:
            self.raw(tls=False).login("bot", self.gw.tokens["bot"], "fake")
        self.assertIn("does not speak TLS", e.exception.fields["M"])

    def test_cve_2025_2291_who_was_shut_out_stays_out_by_every_way(self):
        """There a password that had expired still opened a session, because one way did not look."""
        name = "shutout%d" % os.getpid()
        token = self.gw.add_user(name, "engineers")
        leaf = self.ca.leaf("DNS:%s.agents" % name)
        self.raw(tls=False).login(name, token, self.name)
        self.gw.cli("user", "disable", name)
        with self.assertRaises(PgError):
            self.raw(tls=False).login(name, token, self.name)
        w = self.raw()
        w.startup(name + "+token", self.name)
        self.assertEqual(w.read()[0], "R")
        w.send(message("p", cstr(token)))
        self.assertEqual(error_fields(self.ended(w)[-1][1])["C"], "28P01")
        w = self.raw(tls=False)
        w.client_certificate = leaf
        w.start_tls()
        w.startup(name, self.name)
        self.assertEqual(error_fields(self.ended(w)[-1][1])["C"], "28P01")

    def test_a_rounds_count_that_takes_for_ever(self):
        for n in (2**31, 2**31 - 1, 10**7, 1000001, 4095, 0, -1):
            self.upstream(lambda c: c.scram(iterations=n, first=lambda theirs: "r=%sx,s=%s,i=%d" % (theirs, base64.b64encode(b"salt" * 4).decode(), n)))

    def test_the_name_in_the_handshake_opens_nothing(self):
        """SNI: the database names the target, whatever server name a client gives."""
        for name in ("fake", "fake.example.com", self.name, "localhost", None):
            w = self.raw(tls=False)
            w.send(pgwire.SSL_REQUEST)
            self.assertEqual(w.sock.recv(1), b"S")
            ctx = ssl.create_default_context(cafile=self.gw.ca)
            ctx.check_hostname = False
            w.sock, w.tls = ctx.wrap_socket(w.sock, server_hostname=name), True
            w.login("bot", self.gw.tokens["bot"], self.name)
            w.send(query("select current_database()"))
            self.assertIn(self.name.encode(), dict(w.until_ready())["D"])


if __name__ == "__main__":
    unittest.main()
