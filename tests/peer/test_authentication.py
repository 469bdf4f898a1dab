"""Who comes in by what: a token as a password in TLS, and direct TLS. Attacks first."""
import os
import struct
import subprocess
import unittest

import harness
import pgwire
from base import ENDED, GatewayCase
from pgwire import PgError, Wire, error_fields, message, query


class Token(GatewayCase):
    """The user `token`, or one that ends in +token, is asked for its token itself."""

    def asked(self, user, tls=True, port=None, **more):
        """A connection that has been asked for a password; or raises what the gateway said."""
        w = Wire(port or self.gw.port, self.gw.ca if tls else None, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        if tls:
            w.start_tls()
        w.startup(user, more.pop("database", self.name), **more)
        kind, body = w.read()
        if kind == "E":
            raise PgError(body)
        self.assertEqual((kind, struct.unpack("!I", body[:4])[0]), ("R", 3))
        return w

    def answers(self, w, token):
        """SQLSTATE and words of a refusal, or the session's first ReadyForQuery."""
        w.send(message("p", (token if isinstance(token, bytes) else token.encode() + b"\0")))
        while True:
            try:
                kind, body = w.read()
            except ENDED:
                return None
            if kind == "E":
                return error_fields(body)["C"], error_fields(body)["M"]
            if kind == "Z":
                return "Z"

    def refused(self, user, token):
        return self.answers(self.asked(user), token)

    def test_the_name_and_token_open_a_session_of_that_principal(self):
        t = self.table()
        for user in ("bot+token", "token"):
            w = self.asked(user)
            self.assertEqual(self.answers(w, self.gw.tokens["bot"]), "Z")
            sql = "delete from %s /* %s */" % (t, user)
            w.send(query(sql))
            card = self.gw.json("show", self.held(sql)["id"], who="bob")
            self.gw.deny(card["id"], "seen")
            self.assertEqual([p["name"] for p in card["chain"]], ["alice", "bot"])

    def test_libpq(self):
        env = self.gw.pg_env("bot", PGUSER="bot+token")
        r = subprocess.run(["psql", "-XAtc", "select 1", self.name], env=env, capture_output=True, text=True, timeout=harness.PATIENCE)
        self.assertEqual((r.returncode, r.stdout), (0, "1\n"), r.stderr)

    def test_nobody_is_asked_without_tls(self):
        gw = harness.Gateway([harness.target_of(self.pg, self.name, self.roles)], tls=False)
        try:
            gw.start().people()
            for user in ("token", "bot+token"):
                with self.assertRaises(PgError) as e:
                    self.asked(user, tls=False, port=gw.port)
                self.assertEqual(e.exception.fields["C"], "28000")
            w = Wire(gw.port, None, timeout=harness.PATIENCE)
            self.addCleanup(w.close)
            w.startup("bot", self.name)
            kind, body = w.read()
            self.assertEqual((kind, struct.unpack("!I", body[:4])[0]), ("R", 10), "SCRAM goes on")
        finally:
            gw.destroy()

    def test_all_ways_of_being_wrong_are_told_alike(self):
        good = self.gw.tokens["bot"]
        said = set()
        for user, token in (("bot+token", "wrong"), ("bot+token", self.gw.tokens["bob"]), ("nobody+token", good), ("nobody+token", "x"),
                            ("Bot+token", good), (" bot+token", good), ("+token", good), ("token+token", good), ("token", "wrong"),
                            ("bot+token+token", good), ("bot+token", good + " "), ("bot+token", good[:-1]), ("bot+token", good.upper())):
            code, words = self.refused(user, token)
            said.add((code, words.replace('"%s"' % user, "USER")))
        self.assertEqual(said, {("28P01", "password authentication failed for user USER")})

    def test_other_names_are_asked_for_scram(self):
        for user in ("bot", "bot+tokens", "tokens", "mytoken", "bot-token", "TOKEN", "bot+TOKEN", "+"):
            w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
            self.addCleanup(w.close)
            w.start_tls()
            w.startup(user, self.name)
            kind, body = w.read()
            self.assertEqual((kind, struct.unpack("!I", body[:4])[0]), ("R", 10), user)

    def test_malformed_passwords_close(self):
        good = self.gw.tokens["bot"].encode()
        for body in (b"", b"\0", good, good + b"\0\0", b"\0" + good + b"\0", good + b"\0" + good + b"\0", b"SCRAM-SHA-256\0\0\0\0\x20n,,n=,r=abc",
                     b"x" * 4000 + b"\0"):
            got = self.refused("bot+token", body)
            self.assertIn(got and got[0], (None, "08P01"), body[:40])
        w = self.asked("bot+token")
        w.send(query("select 1"))
        with self.assertRaises(ENDED + (AssertionError,)):
            kind, body = w.read()
            self.assertEqual((kind, error_fields(body)["C"]), ("E", "none of this"))

    def test_an_unknown_target_is_told_only_to_whom_is_known(self):
        w = self.asked("bot+token", database="no_such_target")
        self.assertEqual(self.answers(w, "wrong")[0], "28P01")
        w = self.asked("bot+token", database="no_such_target")
        self.assertEqual(self.answers(w, self.gw.tokens["bot"])[0], "3D000")

    def test_an_old_token_and_a_disabled_principal_are_refused_and_their_sessions_end(self):
        name = "temp%d" % os.getpid()
        old = self.gw.add_user(name, "engineers")
        w = self.asked(name + "+token")
        self.assertEqual(self.answers(w, old), "Z")
        new = self.gw.json("user", "token", name)["token"]
        self.gw.tokens[name] = new

        def ended():
            try:
                w.send(query("select 1"))
                return any(k == "E" for k, _ in w.until_ready())
            except ENDED:
                return True
        harness.wait_until("the session of the old token to end", ended)
        self.assertEqual(self.refused(name + "+token", old)[0], "28P01")
        self.assertEqual(self.answers(self.asked(name + "+token"), new), "Z")
        self.gw.cli("user", "disable", name)
        self.assertEqual(self.refused(name + "+token", new)[0], "28P01")
        self.assertEqual(self.refused("token", new)[0], "28P01")

    def test_the_token_is_in_no_log_and_no_record(self):
        w = self.asked("bot+token")
        self.assertEqual(self.answers(w, self.gw.tokens["bot"]), "Z")
        self.assertNotIn(self.gw.tokens["bot"], self.gw.log_text())


class Direct(GatewayCase):
    def connect(self, alpn):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        ctx = pgwire.ssl.create_default_context(cafile=self.gw.ca)
        if alpn:
            ctx.set_alpn_protocols(alpn)
        w.sock = ctx.wrap_socket(w.sock, server_hostname="localhost")
        w.tls = True
        return w

    def test_direct_tls_says_what_it_speaks(self):
        """Without ALPN a client of another protocol could be sent here, and its bytes be taken for ours."""
        w = self.connect(["postgresql"])
        w.login("bot", self.gw.tokens["bot"], self.name)
        with self.assertRaises(ENDED):
            self.connect(None).login("bot", self.gw.tokens["bot"], self.name)

    def test_after_a_request_it_need_not(self):
        self.wire().close()


if __name__ == "__main__":
    unittest.main()
