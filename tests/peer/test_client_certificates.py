"""Logging in with a TLS client certificate: who gets in as whom, and every way of being wrong."""
import os
import ssl
import struct
import subprocess
import unittest

import harness
from base import ENDED, GatewayCase
from certificates import Authority
from pgwire import TERMINATE, PgError, Wire, error_fields, query


class CertificateCase(GatewayCase):
    FORM = 'email: "{name}@example.com"'
    SAN = "email:%s@example.com"

    @classmethod
    def setUpClass(cls):
        cls.pki = harness.scratch("pki")
        cls.ca = Authority(cls.pki, "clients")
        cls.GATEWAY = dict(listen_postgres=", client_certificates: { authorities: %s, %s }" % (cls.ca.cert, cls.FORM))
        super().setUpClass()
        cls.bot = cls.ca.leaf(cls.SAN % "bot")

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        subprocess.run(["rm", "-r", cls.pki], check=True)

    def connection(self, certificate, versions=(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        w.client_certificate, w.tls_versions = certificate, versions
        return w

    def comes_in(self, certificate, user="bot", database=None, **more):
        """The first thing that the gateway says to the startup packet: "ok", "scram", the SQLSTATE of an error, "closed"."""
        w = self.connection(certificate, **more)
        self.last = w
        try:
            w.start_tls()
            w.startup(user, database or self.name)
            kind, body = w.read()
        except ENDED:
            return "closed"
        if kind == "E":
            self.words = error_fields(body)["M"]
            return error_fields(body)["C"]
        self.assertEqual(kind, "R")
        return {0: "ok", 10: "scram", 3: "password"}[int.from_bytes(body[:4], "big")]

    def refused(self, certificate, *log, **more):
        """It does not get in, neither by TLS 1.2 nor 1.3, and the log says why."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            before = len(self.gw.log_text())
            self.assertIn(self.comes_in(certificate, versions=(version, version), **more), ("closed", "28P01"))
            for part in log:
                harness.wait_until("the log to say " + part, lambda p=part, b=before: p in self.gw.log_text()[b:])


class Email(CertificateCase):
    def test_it_opens_a_session_of_the_principal_that_it_names(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            t = self.table()
            self.assertEqual(self.comes_in(self.bot, versions=(version, version)), "ok")
            self.last.until_ready()
            self.last.send(query("delete from %s" % t))
            card = self.gw.json("show", self.held(t)["id"], who="bob")
            self.gw.deny(card["id"], "seen")
            self.assertEqual([p["name"] for p in card["chain"]], ["alice", "bot"])

    def test_every_kind_of_key(self):
        for kind in ("ec384", "rsa", "ed25519"):
            leaf = self.ca.leaf(self.SAN % "bot", key=kind)
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                self.assertEqual(self.comes_in(leaf, versions=(version, version)), "ok", (kind, version))

    def test_an_intermediate_authority_that_the_client_sends_along(self):
        leaf = Authority(self.pki, "middle", parent=self.ca).leaf(self.SAN % "bot")
        self.assertEqual(self.comes_in(leaf), "ok")

    def test_who_has_none_is_asked_as_always(self):
        self.assertEqual(self.comes_in(None), "scram")
        self.assertEqual(self.comes_in(None, user="bot+token"), "password")
        self.wire().close()

    def test_with_a_certificate_nobody_is_somebody_else(self):
        """Not even with that one's password: it is not asked for. A certificate and a password do not add up."""
        for user in ("alice", "bob", "carol", "Bot", "bot ", "bot+token", "token", "local:bot", "bot@example.com", "nobody"):
            self.refused(self.bot, "it is another principal's", user=user)
            self.assertEqual(self.comes_in(self.bot, user=user), "28P01", user)
            self.assertEqual(self.words, 'password authentication failed for user "%s"' % user)

    def test_an_unknown_and_a_disabled_principal_are_refused(self):
        self.refused(self.ca.leaf(self.SAN % "nobody"), "there is no such principal", user="nobody")
        name = "certified%d" % os.getpid()
        self.gw.add_user(name, "engineers")
        leaf = self.ca.leaf(self.SAN % name)
        self.assertEqual(self.comes_in(leaf, user=name), "ok")
        live = self.last
        live.until_ready()
        self.gw.cli("user", "disable", name)
        self.refused(leaf, "there is no such principal, or it is disabled", user=name)

        def ended():
            try:
                live.send(query("select 1"))
                return any(k == "E" for k, _ in live.until_ready())
            except ENDED:
                return True
        harness.wait_until("its session to end", ended)

    def test_expired_and_not_valid_yet(self):
        self.refused(self.ca.leaf(self.SAN % "bot", days=(-20, -1)), "certificate has expired")
        self.refused(self.ca.leaf(self.SAN % "bot", days=(2, 20)), "certificate is not yet valid")

    def test_of_another_authority(self):
        other = Authority(self.pki, "others")
        self.refused(other.leaf(self.SAN % "bot"), "unable to get")
        os.mkdir(os.path.join(self.pki, "twin"))
        twin = Authority(os.path.join(self.pki, "twin"), "clients")  # the same name, another key
        self.refused(twin.leaf(self.SAN % "bot"), "tls=")

    def test_of_a_client_that_signs_as_an_authority(self):
        """bot's certificate is no authority: what it signs is nobody's."""
        class Self:
            directory, parent, leaves, name = self.pki, self.ca, 0, "usurper"
            cert, key = self.bot
            path = Authority.path
        self.refused(Authority.leaf(Self(), self.SAN % "alice"), "tls=", user="alice")

    def test_self_signed(self):
        class Nobody:
            directory, parent, leaves, name = self.pki, None, 0, "self"
            path = Authority.path
        nobody = Nobody()
        import certificates
        cert, key = nobody.path("self.crt"), nobody.path("self.key")
        certificates.make_key(key, "ec")
        certificates.sign(nobody, cert, key, "/CN=bot", "extendedKeyUsage=clientAuth\nsubjectAltName=%s\n" % (self.SAN % "bot"), by=None)
        self.refused((cert, key), "tls=")

    def test_for_another_use(self):
        for usage in ("serverAuth", "codeSigning", "emailProtection"):
            self.refused(self.ca.leaf(self.SAN % "bot", usage=usage), "certificate purpose")
        self.assertEqual(self.comes_in(self.ca.leaf(self.SAN % "bot", usage="serverAuth,clientAuth")), "ok")

    def test_its_name_is_the_one_name_of_the_configured_form(self):
        for san, why in (("", "it has no e-mail name"), ("DNS:bot.example.com", "it has no e-mail name"),
                         ("URI:spiffe://example.com/bot", "it has no e-mail name"),
                         ("email:bot@example.com,email:alice@example.com", "it has several e-mail names"),
                         ("email:bot@example.com,email:bot@example.com", "it has several e-mail names"),
                         ("email:bot@example.org", "its name is not of the configured form"),
                         ("email:bot@sub.example.com", "its name is not of the configured form"),
                         ("email:bot@example.com.evil.org", "its name is not of the configured form"),
                         ("email:bot@EXAMPLE.COM", "its name is not of the configured form"),
                         ("email:@example.com", "its name is not of the configured form"),
                         ("email:evil@x@example.com", "it is another principal's")):
            self.refused(self.ca.leaf(san), why)
        self.refused(self.ca.leaf("", subject="/CN=bot@example.com"), "it has no e-mail name")
        self.assertEqual(self.comes_in(self.ca.leaf("email:bot@example.com,DNS:x.example.com,URI:spiffe://example.com/alice")), "ok")

    def test_an_unknown_target_is_told_and_no_rule_is_no_session(self):
        self.assertEqual(self.comes_in(self.bot, database="no_such_target"), "3D000")

    def test_psql_and_psycopg(self):
        import psycopg2
        env = self.gw.pg_env("bot", PGUSER="bot", PGSSLCERT=self.bot[0], PGSSLKEY=self.bot[1])
        env.pop("PGPASSWORD", None)
        r = subprocess.run(["psql", "-wXAtc", "select 1", self.name], env=env, capture_output=True, text=True, timeout=harness.PATIENCE)
        self.assertEqual((r.returncode, r.stdout), (0, "1\n"), r.stderr)
        env["PGUSER"] = "alice"
        r = subprocess.run(["psql", "-wXAtc", "select 1", self.name], env=env, capture_output=True, text=True, timeout=harness.PATIENCE)
        self.assertEqual(r.returncode, 2)
        self.assertIn("authentication failed", r.stderr)
        c = psycopg2.connect(host="localhost", port=self.gw.port, user="bot", dbname=self.name, sslmode="verify-full",
                             sslrootcert=self.gw.ca, sslcert=self.bot[0], sslkey=self.bot[1])
        with c.cursor() as cur:
            cur.execute("select 1")
            self.assertEqual(cur.fetchall(), [(1,)])
        c.close()

    def client(self, *argv):
        return subprocess.Popen(["openssl", "s_client", "-connect", "localhost:%d" % self.gw.port, "-starttls", "postgres", "-CAfile", self.gw.ca,
                                 "-cert", self.bot[0], "-key", self.bot[1], *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def test_a_hello_retry_request(self):
        """The client's first guess at a group is wrong, and what it signs then covers a hash of its first message."""
        s = self.client("-tls1_3", "-groups", "P-521:P-256", "-quiet", "-msg")
        body = struct.pack("!I", 196608) + b"user\0bot\0database\0" + self.name.encode() + b"\0\0"
        out = s.communicate(struct.pack("!I", len(body) + 4) + body + TERMINATE, timeout=harness.PATIENCE)[0]
        self.assertEqual(out.count(b"], ClientHello"), 2, out)
        self.assertIn(b"R\0\0\0\x08\0\0\0\0S", out)

    def test_nobody_renegotiates(self):
        """A certificate that comes later than the handshake would be of another connection."""
        s = self.client("-tls1_2", "-msg")
        said = b""
        s.stdin.write(b"R\n")
        s.stdin.flush()
        while b"no_renegotiation" not in said:
            line = s.stdout.readline()
            self.assertTrue(line, said)
            said += line
        s.stdin.write(b"Q\n")
        said += s.communicate(timeout=harness.PATIENCE)[0]
        self.assertEqual((said.count(b"], ClientHello"), said.count(b"], ServerHelloDone")), (2, 1), said)

    def test_a_reload_takes_the_authority_away(self):
        other = Authority(self.pki, "next")
        config = self.gw.listen_postgres
        self.assertEqual(self.comes_in(self.bot), "ok")
        try:
            self.gw.listen_postgres = config.replace(self.ca.cert, other.cert)
            self.gw.configure(self.RULES)
            self.gw.cli("reload")
            harness.wait_until("the other authority to count", lambda: self.comes_in(self.bot) == "closed")
            self.assertEqual(self.comes_in(other.leaf(self.SAN % "bot")), "ok")
        finally:
            self.gw.listen_postgres = config
            self.gw.configure(self.RULES)
            self.gw.cli("reload")
        harness.wait_until("the first one to count again", lambda: self.comes_in(self.bot) == "ok")


class Uri(CertificateCase):
    FORM = 'uri: "spiffe://example.com/agents/{name}"'
    SAN = "URI:spiffe://example.com/agents/%s"

    def test_a_spiffe_identity(self):
        self.assertEqual(self.comes_in(self.bot), "ok")
        for uri, why in (("spiffe://example.com/agents/bot/x", "another principal's"), ("spiffe://example.com/agents/", "configured form"),
                         ("spiffe://example.org/agents/bot", "configured form"), ("spiffe://example.com/agents/bot,URI:x:y", "several URI")):
            self.refused(self.ca.leaf("URI:" + uri), why)


class Dns(CertificateCase):
    FORM = 'dns: "{name}.agents.example.com"'
    SAN = "DNS:%s.agents.example.com"

    def test_a_host_name(self):
        self.assertEqual(self.comes_in(self.bot), "ok")
        for dns, why in (("*.agents.example.com", "another principal's"), ("bot.agents.example.com.", "configured form"),
                         ("xagents.example.com", "configured form"), ("a.bot.agents.example.com", "another principal's")):
            self.refused(self.ca.leaf("DNS:" + dns), why)


class Without(GatewayCase):
    def test_a_listener_without_the_key_asks_for_none(self):
        directory = harness.scratch("pki")
        self.addCleanup(subprocess.run, ["rm", "-r", directory])
        leaf = Authority(directory, "clients").leaf("email:bot@example.com")
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        w.client_certificate = leaf
        w.login("bot", self.gw.tokens["bot"], self.name)
        w.close()
        with self.assertRaises(PgError):
            w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
            self.addCleanup(w.close)
            w.client_certificate = leaf
            w.login("bot", "wrong", self.name)


if __name__ == "__main__":
    unittest.main()
