"""Targets that authenticate by less than SCRAM: only where the configuration says so, only to a server whose certificate
was checked, never with the elevated credential, and never for a server that wants something else or more than once."""
import hashlib
import os
import re
import struct
import unittest

import fakepg
import harness
from base import GatewayCase, fresh_name
from fakepg import FakePostgres, Gone, auth, error
from pgwire import PgError, Wire, error_of, kinds, query

SALT = b"\x01\x02\x03\x04"


def md5_answer(password, user, salt):
    inner = hashlib.md5((password + user).encode()).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt).hexdigest().encode() + b"\0"


class Case(GatewayCase):
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


class Real(Case):
    """A PostgreSQL whose everyday roles have MD5 passwords, or send theirs in clear, and whose owner has SCRAM."""

    @classmethod
    def setUpClass(cls):
        cls.pg = harness.Postgres(settings=["password_encryption = 'scram-sha-256'"])
        cls.name = fresh_name("db")
        cls.roles = harness.make_database(cls.pg, cls.name)
        cls.pg.sql("set password_encryption = 'md5'; create role hashed login password 'md5-password'; "
                   "create role looking login password 'looking-password'; set password_encryption = 'scram-sha-256'; "
                   "create role plain login password 'plain-password'; create role deprived login password 'x'")
        cls.pg.sql("grant select on all tables in schema public to hashed, plain, looking", cls.name)
        hba = os.path.join(cls.pg.data, "pg_hba.conf")
        with open(hba) as f:
            rest = f.read()
        with open(hba, "w") as f:
            f.write("hostssl all hashed,looking 127.0.0.1/32 md5\nhostssl all plain 127.0.0.1/32 password\n"
                    "hostssl all deprived 127.0.0.1/32 trust\n" + rest)
        cls.pg.sql("select pg_reload_conf()")
        real = harness.target_of(cls.pg, cls.name, cls.roles)
        hashed = dict(real, user="hashed", password="md5-password")
        plain = dict(real, user="plain", password="plain-password")
        cls.gw = harness.Gateway([
            dict(hashed, name="md5", authentication="md5"), dict(hashed, name="md5-unsaid"),
            dict(hashed, name="md5-wrong", authentication="md5", password="wrong"),
            dict(hashed, name="looked-at", authentication="md5", probe="looking", probe_password="looking-password"),
            dict(plain, name="clear", authentication="cleartext"), dict(plain, name="clear-unsaid"),
            dict(plain, name="clear-md5-said", authentication="md5"), dict(hashed, name="md5-clear-said", authentication="cleartext"),
            dict(real, name="scram-though-md5-said", authentication="md5"),
            dict(real, name="trusting", user="deprived", password="x", authentication="cleartext")])
        try:
            cls.gw.start().people()
        except Exception:
            cls.gw.destroy()
            raise

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.pg.destroy()

    def test_where_it_is_said(self):
        for target in ("md5", "clear", "md5-clear-said", "scram-though-md5-said", "looked-at"):
            self.to(target)

    def test_where_it_is_not_said_the_words_name_the_key(self):
        self.refused("md5-unsaid", "it asks for an MD5 password", '"authentication: md5"')
        self.refused("clear-unsaid", "it asks for the password in clear", '"authentication: cleartext"')
        self.refused("clear-md5-said", '"authentication: cleartext"')

    def test_a_wrong_password_is_the_gateways_fault(self):
        self.refused("md5-wrong", "it refused the gateway's credential")

    def test_a_server_that_asks_for_nothing_is_refused_all_the_same(self):
        self.refused("trusting", "trust")

    def test_the_elevated_credential_is_proved_by_scram(self):
        w = self.to("md5")
        t = self.table()
        w.send(query("delete from %s" % t))
        r = self.held(t)
        self.gw.approve(r["id"])
        self.assertEqual(kinds(w.until_ready()), "CZ")
        self.assertEqual(self.sql("select count(*) from %s" % t)[0][0], 0)
        self.assertRegex(self.gw.log_text(), r'target="md5" connection=\d+ which=elevated .*by=scram-sha-256 ')

    def test_probe_looks_with_it(self):
        harness.wait_until("a catalogue of every target that can be logged in at", lambda: all(re.search(
            r'secret-used .*for=proof target="%s" .*which=everyday .*by=%s bound=no result=ok' % t, self.gw.log_text())
            for t in (("md5", "md5"), ("clear", "cleartext"), ("looked-at", "md5"))))

    def test_no_password_is_in_the_log(self):
        for target in ("md5", "clear"):
            self.to(target)
        for password in ("md5-password", "plain-password"):
            self.assertNotIn(password, self.gw.log_text())


class Hostile(Case):
    """A server with the right certificate that does something else than the configuration says."""

    @classmethod
    def setUpClass(cls):
        cls.pg = harness.shared_postgres()
        cls.name = "unused"
        certificate = (cls.pg.data + "/server.crt", cls.pg.data + "/server.key")
        cls.fake = FakePostgres("fake-password", tls=certificate)
        fake = dict(name="md5", address="127.0.0.1:%d" % cls.fake.port, database="any", user="fake_ro", password="fake-password",
                    owner="fake_owner", owner_password="fake-password", tls="verify-full", roots=cls.pg.root, authentication="md5")
        cls.gw = harness.Gateway([fake, dict(fake, name="cleartext", authentication="cleartext"), dict(fake, name="scram", authentication=None),
                                  dict(fake, name="wrong-root", authentication="cleartext", roots=None)])
        cls.gw.configure(harness.RULES, [dict(t, roots=cls.gw.ca) if t["name"] == "wrong-root" else t for t in cls.gw.targets])
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
        self.got = []  # what the gate sent as passwords; probe's connections are another matter

    def tearDown(self):
        self.assertEqual(self.fake.failures, [])
        self.fake.failures.clear()

    def run_script(self, script):
        def whole(c):
            if c.startup().get("application_name") == "countersign-probe":
                raise Gone()
            script(c)
        self.fake.script = whole

    def password(self, c, kind, data=b""):
        c.send(auth(kind, data))
        kind, body = c.read()
        self.got.append((kind, body))
        return body

    def hostile(self, target, script, *words):
        self.run_script(script)
        self.refused(target, *words)

    def test_as_it_should_be(self):
        def script(c):
            if self.password(c, 5, SALT) == md5_answer("fake-password", "fake_ro", SALT):
                c.greet()
                c.answer_all()
        self.run_script(script)
        self.to("md5")

        def clear(c):
            if self.password(c, 3) == b"fake-password\0":
                c.greet()
                c.answer_all()
        self.run_script(clear)
        self.to("cleartext")

    def test_it_asks_for_less_than_is_said(self):
        self.hostile("md5", lambda c: self.password(c, 3), '"authentication: cleartext"')
        self.hostile("scram", lambda c: self.password(c, 3), '"authentication: cleartext"')
        self.hostile("scram", lambda c: self.password(c, 5, SALT), '"authentication: md5"')
        self.assertEqual(self.got, [], "it was answered")

    def test_it_asks_twice(self):
        for second in ((3, b""), (5, b"\x09\x09\x09\x09"), (10, b"SCRAM-SHA-256\0\0")):
            def script(c):
                self.password(c, 5, SALT)
                self.password(c, *second)
            self.got.clear()
            self.hostile("cleartext", script, "it ")
            self.assertEqual(len(self.got), 1, self.got)

    def test_it_asks_after_scram_began(self):
        def after_first(c):
            c.send(auth(10, b"SCRAM-SHA-256\0\0"))
            c.read()
            self.password(c, 3)

        def after_proof(c):
            def again(theirs):
                return "r=%sx,s=%s,i=4096" % (theirs, "MDEyMzQ1Njc4OWFiY2RlZg==")
            c.send(auth(10, b"SCRAM-SHA-256\0\0"))
            _, body = c.read()
            theirs = body[body.index(b"r=") + 2:].decode()
            c.send(auth(11, again(theirs).encode()))
            c.read()
            self.password(c, 5, SALT)
        for script in (after_first, after_proof):
            self.hostile("cleartext", script, "a second time")
        self.assertEqual(self.got, [])

    def test_the_elevated_credential_is_not_for_such_a_server(self):
        """Not even where the everyday one is: what a weaker way shows could be used again without approval."""
        for kind, data in ((5, SALT), (3, b"")):
            def script(c):
                if c.user == "fake_owner":
                    self.password(c, kind, data)
                c.send(auth(3))
                c.read()
                c.greet()
                c.answer_all()
            self.run_script(script)
            w = self.to("cleartext")
            text = "drop table weak_%d" % kind
            w.send(query(text))
            self.gw.approve(self.held(text)["id"])
            e = error_of(w.until_ready())
            self.assertEqual(e["C"], "57P03")
            self.assertIn("nothing ran", e["M"])
            self.assertIn("proved by SCRAM-SHA-256 only", e["M"] + self.gw.log_text())
        self.assertEqual(self.got, [])

    def test_it_says_welcome_without_asking(self):
        for target in ("md5", "cleartext", "scram"):
            self.hostile(target, lambda c: c.greet(), "trust")

    def test_scram_is_checked_where_less_is_permitted(self):
        for target in ("md5", "cleartext"):
            self.hostile(target, lambda c: (c.scram(signature=b"\1" * 32), c.greet()), "could not prove that it knows")

            def skips(c):
                c.send(auth(10, b"SCRAM-SHA-256\0\0"))
                _, body = c.read()
                theirs = body[body.index(b"r=") + 2:].decode()
                c.send(auth(11, ("r=%sx,s=%s,i=4096" % (theirs, "MDEyMzQ1Njc4OWFiY2RlZg==")).encode()))
                c.read()
                c.greet()
            self.hostile(target, skips, "trust")

    def test_it_says_something_about_authentication_after_welcome(self):
        for more in (auth(0), auth(3), auth(5, SALT), auth(10, b"SCRAM-SHA-256\0\0"), auth(12, b"v=x")):
            def script(c):
                self.password(c, 3)
                c.send(auth(0), more)
                c.hang()
            self.hostile("cleartext", script, "out of turn")

    def test_salts_of_other_lengths(self):
        for salt in (b"", b"\1\2\3", b"\1\2\3\4\5", b"\1" * 1000):
            self.hostile("md5", lambda c: self.password(c, 5, salt), "malformed")
        self.assertEqual(self.got, [])

    def test_other_methods(self):
        for kind in (1, 2, 4, 6, 7, 8, 9, 11, 12, 13, 0xffffffff):
            self.hostile("cleartext", lambda c: self.password(c, kind, SALT))
        self.hostile("cleartext", lambda c: c.send(b"R\0\0\0\x04"), "out of turn")
        self.assertEqual(self.got, [])

    def test_a_refused_password_is_told_without_it(self):
        def script(c):
            self.password(c, 3)
            c.send(error("fake-password is wrong", "28P01", "FATAL"))
        self.hostile("cleartext", script, "it refused the gateway's credential")

    def test_another_certificate_gets_nothing(self):
        seen = []
        self.fake.script = lambda c: (c.startup(), seen.append(c), self.password(c, 3))
        self.refused("wrong-root", "certificate is not accepted")
        self.assertEqual((seen, self.got), ([], []))


if __name__ == "__main__":
    unittest.main()
