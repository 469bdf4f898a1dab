"""Channel binding towards targets (SCRAM-SHA-256-PLUS) with a real PostgreSQL over TLS, and what happens when
somebody in between, or a server, has less than the configuration demands."""
import os
import re
import subprocess
import unittest

import harness
from base import GatewayCase, fresh_name
from fakepg import FakePostgres
from pgwire import PgError, Wire, kinds, query


class ChannelBinding(GatewayCase):
    """One database behind several targets, each with another word."""

    @classmethod
    def setUpClass(cls):
        cls.pg = harness.shared_postgres()
        cls.name = fresh_name("db")
        cls.roles = harness.make_database(cls.pg, cls.name)
        cls.fake = FakePostgres("fake-password", tls=(cls.pg.data + "/server.crt", cls.pg.data + "/server.key"))
        real = harness.target_of(cls.pg, cls.name, cls.roles)
        fake = dict(name="fake", address="127.0.0.1:%d" % cls.fake.port, database="any", user="fake_ro",
                    password="fake-password", owner="fake_owner", owner_password="fake-password", tls="verify-full", roots=cls.pg.root)
        cls.gw = harness.Gateway([])
        other = os.path.join(cls.gw.home, "other.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                        "-subj", "/CN=localhost", "-keyout", "/dev/null", "-out", other], check=True, stderr=subprocess.DEVNULL)
        both = os.path.join(cls.gw.home, "both.pem")
        with open(both, "w") as f:
            for name in (other, cls.pg.root):
                with open(name) as g:
                    f.write(g.read())
        cls.gw.configure(harness.RULES, [
            real,
            dict(real, name="required", channel_binding="require"),
            dict(real, name="disabled", channel_binding="disable"),
            dict(real, name="pinned", certificate=cls.pg.root),
            dict(real, name="replaced", certificate=both),
            dict(real, name="wrong-pin", certificate=other),
            dict(real, name="unverified", tls="require", roots=None, certificate=cls.pg.root),
            fake,
            dict(fake, name="fake-required", channel_binding="require"),
        ])
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

    def to(self, target):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        w.login("bot", self.gw.tokens["bot"], target)
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        return w

    def refused(self, target, *words):
        with self.assertRaises(PgError) as e:
            self.to(target)
        for word in words:
            self.assertIn(word, e.exception.fields["M"])

    def bound(self, target):
        """What keeper's log says of its last proof for this target."""
        return re.findall(r'secret-\w+ .*for=proof target="%s" .*bound=(\w+) result=(\w+)' % re.escape(target), self.gw.log_text())[-1]

    def test_a_server_that_can_is_bound_to_without_a_word(self):
        self.to(self.name)
        self.assertEqual(self.bound(self.name), ("yes", "ok"))

    def test_the_elevated_connection_too(self):
        table = self.table()
        w = self.wire()
        sql = "drop table " + table
        w.send(query(sql))
        self.gw.approve(self.held(sql)["id"])
        harness.wait_until("the table to be gone", lambda: not self.exists(table))
        self.assertRegex(self.gw.log_text(), r'target="%s" connection=\d+ which=elevated .*bound=yes result=ok' % self.name)

    def test_required(self):
        self.to("required")
        self.assertEqual(self.bound("required"), ("yes", "ok"))

    def test_disabled(self):
        self.to("disabled")
        self.assertEqual(self.bound("disabled"), ("no", "ok"))

    def test_pinned_also_while_the_certificate_is_replaced(self):
        for target in ("pinned", "replaced"):
            self.to(target)
            self.assertEqual(self.bound(target), ("yes", "ok"))

    def test_another_certificate_gets_no_proof_though_its_chain_is_good(self):
        self.refused("wrong-pin", "not the one that the configuration names")
        self.assertEqual(self.bound("wrong-pin")[0], "yes")
        self.assertNotEqual(self.bound("wrong-pin")[1], "ok")

    def test_a_pin_makes_up_for_a_chain_that_nobody_checks(self):
        self.to("unverified")
        self.assertEqual(self.bound("unverified"), ("yes", "ok"))

    def test_a_server_without_plus_is_told_that_we_could(self):
        """SECURITY: 'y' is what lets a server that offered it notice that the offer was taken away."""
        self.to("fake")
        self.assertEqual(self.fake.gs2, b"y,,")
        self.assertEqual(self.bound("fake"), ("no", "ok"))

    def test_a_real_server_refuses_when_its_offer_was_taken_away(self):
        """A man in the middle who holds a trusted certificate strips -PLUS from the real server's list."""
        relay = StripPlus(self.pg.port, self.pg.data + "/server.crt", self.pg.data + "/server.key")
        self.addCleanup(relay.destroy)
        self.gw.configure(harness.RULES, self.gw.targets + [
            dict(harness.target_of(self.pg, self.name, self.roles), name="relayed", address="127.0.0.1:%d" % relay.port)])
        self.gw.cli("reload")
        for t, value in (("relayed-ro", self.roles["password"]), ("relayed-owner", self.roles["owner_password"])):
            self.gw.cli("secret", "set", t, stdin=value)
        self.refused("relayed")
        self.assertTrue(relay.stripped)

    def test_downgrade_is_refused_where_it_is_required(self):
        self.refused("fake-required", "SCRAM-SHA-256-PLUS")
        self.assertNotIn('for=proof target="fake-required"', self.gw.log_text())  # nothing was proved at all

        def with_plus(c):
            c.startup()
            if c.scram(offer=b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"):
                c.greet()
            c.answer_all()
        self.fake.script = with_plus
        self.to("fake-required")
        self.assertEqual(self.fake.gs2, b"p=tls-server-end-point,,")


class Clients(GatewayCase):
    """The other side: libpq binds its log-in to the gateway's certificate."""

    def test_libpq_requires_and_gets_it(self):
        for how in ("require", "prefer", "disable"):
            c = self.gw.connect("alice", self.name, channel_binding=how)
            with c.cursor() as cur:
                cur.execute("select 1")
                self.assertEqual(cur.fetchall(), [(1,)])
            c.close()

    def relayed(self, certificate, strip, **more):
        import psycopg2
        relay = StripPlus(self.gw.port, *certificate, strip=strip)
        self.addCleanup(relay.destroy)
        with self.assertRaises(psycopg2.OperationalError) as e:
            self.gw.connect("alice", self.name, port=relay.port, **more)
        return relay, str(e.exception)

    def test_a_client_that_checks_no_certificate_is_safe_from_somebody_in_between(self):
        """SECURITY: sslmode=require alone, and a relay with a certificate of its own."""
        own = (self.pg.data + "/server.crt", self.pg.data + "/server.key")
        before = self.gw.log_text().count("session-open")
        _, said = self.relayed(own, False, sslmode="require", sslrootcert="/nowhere", channel_binding="require")
        self.assertIn("SCRAM", said)
        self.assertEqual(self.gw.log_text().count("session-open"), before)

    def test_an_offer_that_was_taken_away_is_noticed_by_the_gateway(self):
        own = (self.pg.data + "/server.crt", self.pg.data + "/server.key")
        before = self.gw.log_text().count("session-open")
        relay, said = self.relayed(own, True, sslmode="require", sslrootcert="/nowhere", channel_binding="prefer")
        self.assertTrue(relay.stripped)
        self.assertIn("SCRAM", said)
        self.assertEqual(self.gw.log_text().count("session-open"), before)


class StripPlus:
    """TLS to the client with this key, TLS to the server; takes SCRAM-SHA-256-PLUS out of the offer."""

    def __init__(self, port, cert, key, strip=True):
        self.strip = strip
        import socket
        import ssl
        import threading
        self.server_port, self.stripped, self.ssl, self.socket, self.threading = port, False, ssl, socket, threading
        self.ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ctx.load_cert_chain(cert, key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            try:
                self.relay(c)
            except (OSError, self.ssl.SSLError):
                pass
            finally:
                c.close()

    def relay(self, c):
        c.settimeout(harness.PATIENCE)
        c.recv(8)
        c.sendall(b"S")
        c = self.ctx.wrap_socket(c, server_side=True)
        s = self.socket.create_connection(("127.0.0.1", self.server_port), timeout=harness.PATIENCE)
        s.sendall(b"\0\0\0\x08\x04\xd2\x16\x2f")
        s.recv(1)
        loose = self.ssl.SSLContext(self.ssl.PROTOCOL_TLS_CLIENT)
        loose.check_hostname, loose.verify_mode = False, self.ssl.CERT_NONE
        s = loose.wrap_socket(s)
        s.sendall(c.recv(10000))  # the startup packet
        offer = s.recv(10000)
        if self.strip and b"SCRAM-SHA-256-PLUS\0" in offer:
            self.stripped = True
            body = offer[5:].replace(b"SCRAM-SHA-256-PLUS\0", b"")
            offer = b"R" + (len(body) + 4).to_bytes(4, "big") + body
        c.sendall(offer)
        for _ in range(3):
            s.sendall(c.recv(10000))
            c.sendall(s.recv(10000))
        s.close()

    def destroy(self):
        self.listener.shutdown(self.socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(harness.PATIENCE)


if __name__ == "__main__":
    unittest.main()
