"""Targets that are broken or hostile: whatever they do, the client is told clearly, no process of the gateway
dies, and a session to another target goes on."""
import struct
import threading
import time
import unittest

import fakepg
import harness
from base import GatewayCase
from fakepg import Gone, auth, columns, complete, error, notice, parameter, ready, row
from pgwire import Closed, PgError, Wire, bind, cstr, error_of, execute, kinds, message, parse, query, SYNC

RULES = harness.RULES.replace("&& !(sql.verb == \"INSERT\")", "&& !(sql.verb in [\"INSERT\", \"UPDATE\"])") + """
  - name: update
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "UPDATE"
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
"""


class UpstreamCase(GatewayCase):
    RULES = RULES

    @classmethod
    def setUpClass(cls):
        cls.pg = harness.shared_postgres()
        cls.name = harness_name()
        cls.roles = harness.make_database(cls.pg, cls.name)
        cls.fake = fakepg.FakePostgres("fake-password")
        cls.closed_port = harness.free_port()
        real = harness.target_of(cls.pg, cls.name, cls.roles)
        fake = dict(name="fake", address="127.0.0.1:%d" % cls.fake.port, database="any", user="fake_ro", password="fake-password",
                    owner="fake_owner", owner_password="fake-password", tls="off")
        targets = [real, fake, dict(fake, name="fake-tls", tls="verify-full", roots=cls.pg.root),
                   dict(fake, name="closed", address="127.0.0.1:%d" % cls.closed_port),
                   dict(fake, name="nowhere", address="no-such-host.invalid:5432"),
                   dict(real, name="plain", tls="off")]
        cls.gw = harness.Gateway(targets, rules=cls.RULES)
        try:
            wrong_root = cls.gw.ca  # the gateway's own certificate did not sign the server's
            cls.gw.configure(cls.RULES, targets + [dict(real, name="wrong-root", roots=wrong_root), dict(real, name="wrong-password", password="not it")])
            cls.gw.start().people()
        except Exception:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.fake.destroy()
        cls.gw.destroy()

    def setUp(self):
        self.before = self.roles_now()
        self.fake.script = lambda c: c.login().answer_all()
        self.fake.failures.clear()
        self.good = self.to(self.name)

    def tearDown(self):
        self.assertEqual(kinds(self.good.ask(query("select 'still here'"))), "TDCZ", "another target's session was disturbed")
        self.good.close()
        self.assertEqual(self.roles_now(), self.before, "a role was restarted:\n" + self.gw.log_text()[-2000:])
        self.assertEqual(self.fake.failures, [])

    def roles_now(self):
        return sorted((r["role"], r["index"], r["pid"], r["restarts"]) for r in self.gw.api("GET", "/v1/status")[1]["roles"])

    def to(self, target, who="bot"):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        return w.login(who, self.gw.tokens[who], target)

    def refused(self, script=None, *words, target="fake", sqlstates=("08001", "57P03")):
        """No session: a FATAL with these words, which never name the credential."""
        if script is not None:
            self.fake.script = script
        with self.assertRaises(PgError) as e:
            self.to(target)
        f = e.exception.fields
        self.assertEqual(f["S"], "FATAL")
        self.assertIn(f["C"], sqlstates, f)
        self.assertIn(target, f["M"])
        for word in words:
            self.assertIn(word, f["M"])
        self.assertNotIn("fake-password", str(f))
        return f

    def refused_together(self, scripts, *words):
        """Each script on a connection of its own, all at once: the limit of a login is waited for once."""
        left, failures = list(scripts), []

        def one():
            try:
                self.refused(None, *words)
            except Exception as e:
                failures.append(e)
        # probe looks at this target, too, whenever it likes: one more connection is left without an answer
        self.fake.script = lambda c: left.pop()(c) if left else c.hang()
        threads = [threading.Thread(target=one) for _ in scripts]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for e in failures:
            raise e
        self.assertEqual(left, [], "a script was not used")

    def session(self, script):
        """An open session; script(c) runs after the fake's login."""
        def whole(c):
            c.login()
            script(c)
        self.fake.script = whole
        return self.to("fake")

    def broken(self, script, *send, sqlstate="08P01", words="broke the protocol"):
        """The session ends with a FATAL when the target does this."""
        w = self.session(script)
        w.send(*(send or (query("select 1"),)))
        got = []
        with self.assertRaises((Closed, OSError)):
            while True:
                got.append(w.read())
        fatal = error_of([m for m in got if m[0] == "E"][-1:])
        self.assertIsNotNone(fatal, got)
        self.assertEqual((fatal["S"], fatal["C"]), ("FATAL", sqlstate), fatal)
        self.assertIn(words, fatal["M"])
        return got


class Login(UpstreamCase):
    def test_a_working_fake_is_a_working_target(self):
        """Otherwise the tests below would prove nothing."""
        w = self.to("fake")
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        self.assertEqual(w.parameters["server_version"], "15.99")

    def test_the_startup_packet_is_pinned(self):
        seen = []

        def script(c):
            seen.append(c.startup())
            c.scram()
            c.greet()
            c.answer_all()
        self.fake.script = script
        self.to("fake")
        self.assertEqual({k: seen[0].get(k) for k in ("user", "database", "client_encoding", "standard_conforming_strings", "search_path")},
                         {"user": "fake_ro", "database": "any", "client_encoding": "UTF8", "standard_conforming_strings": "on", "search_path": "public"})

    def test_nobody_listens(self):
        self.refused(None, "refuses connections", target="closed")

    def test_a_name_that_does_not_resolve(self):
        self.refused(None, target="nowhere")

    def test_it_closes_at_every_step(self):
        def after_startup(c):
            c.startup()

        def after_challenge(c):
            c.startup()
            c.send(auth(10, b"SCRAM-SHA-256\0\0"))
            c.read()

        def after_scram(c):
            c.startup()
            c.scram()

        def in_the_greeting(c):
            c.startup()
            c.scram()
            c.send(auth(0), b"S\0\0\0\x20half")
        for script in (lambda c: None, after_startup, after_challenge, after_scram, in_the_greeting):
            self.refused(script, "closed the connection during login")

    def test_it_hangs_and_the_login_ends_in_time(self):
        def after_startup(c):
            c.startup()
            c.hang()

        def before_ready(c):
            c.startup()
            c.scram()
            c.send(auth(0))
            c.hang()

        def dribbles(c):
            c.startup()
            for byte in auth(10, b"SCRAM-SHA-256\0" + b"X" * 300 + b"\0\0"):
                c.send(bytes([byte]))
                time.sleep(0.3)
            c.hang()
        began = time.monotonic()
        self.refused_together((after_startup, before_ready, dribbles), "does not answer")
        self.assertGreater(time.monotonic() - began, 8)

    def test_it_talks_without_end_and_the_login_ends_in_time(self):
        def notices(c):
            c.startup()
            while True:
                c.send(notice("and another thing") * 500)

        def parameters(c):
            c.startup()
            c.scram()
            c.send(auth(0))
            while True:
                c.send(parameter("a_setting", "x" * 1000) * 50)
        done = threading.Event()
        slow = []

        def ping():
            while not done.is_set():
                began = time.monotonic()
                self.good.ask(query("select 1"))
                slow.append(time.monotonic() - began)
                done.wait(0.05)
        t = threading.Thread(target=ping)
        t.start()
        try:
            self.refused_together((notices, parameters))
        finally:
            done.set()
            t.join(harness.PATIENCE)
        self.assertTrue(slow and max(slow) < 5, "the other session stood still: %r" % slow)

    def test_garbage(self):
        for bytes_ in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 100, b"\xff" * 100, b"SSH-2.0-OpenSSH\r\n", b"R", b"R\0\0\0\4", b"R\0\0\0\0"):
            self.refused(lambda c: (c.startup(), c.send(bytes_)))

    def test_huge_and_negative_lengths(self):
        for kind in "RSEKNZ":
            for length in (0x7fffffff, 0xffffffff, 70000, 0, 3):
                def script(c):
                    c.startup()
                    c.send(kind.encode() + struct.pack("!I", length) + b"x" * 32)
                with self.subTest(kind=kind, length=length):
                    self.refused(script)

    def test_errors_at_login_are_told_without_the_credential(self):
        self.refused(lambda c: (c.startup(), c.send(error("too many connections", "53300", "FATAL"))), "too many connections", "53300")
        f = self.refused(lambda c: (c.startup(), c.send(error('password authentication failed for user "fake_ro"', "28P01", "FATAL"))), "credential")
        self.assertNotIn("fake_ro", str(f))

    def test_an_error_without_fields_or_without_sqlstate(self):
        for body in (b"\0", b"", b"M", b"Mno end", b"S\0C\0M\0\0", b"Ctoolongstate\0\0", b"\xff\xfe\0\0", b"M" + b"w" * 5000 + b"\0\0"):
            self.refused(lambda c: (c.startup(), c.send(message("E", body))))

    def test_other_authentication_methods_are_refused_with_words(self):
        for kind, data in ((3, b""), (5, b"salt"), (7, b""), (9, b""), (2, b""), (99, b"")):
            self.refused(lambda c: (c.startup(), c.send(auth(kind, data)), c.hang()), "SCRAM")
        self.refused(lambda c: (c.startup(), c.send(auth(0), ready()), c.hang()), "trust")
        self.refused(lambda c: (c.startup(), c.scram(offer=b"PLAIN\0\0"), c.hang()), "SCRAM-SHA-256")
        self.refused(lambda c: (c.startup(), c.scram(offer=b"\0"), c.hang()), "SCRAM-SHA-256")
        self.refused(lambda c: (c.startup(), c.scram(offer=b"SCRAM-SHA-256"), c.hang()), "SCRAM-SHA-256")

    def test_the_password_is_never_sent_in_clear(self):
        got = []

        def script(c):
            c.startup()
            c.send(auth(3))
            got.append(c.read())
        self.refused(script, "SCRAM")
        self.assertEqual(got, [])

    def test_scram_that_is_out_of_bounds_or_does_not_belong_to_us(self):
        for broken in (dict(iterations=1), dict(iterations=2**31), dict(iterations=0), dict(nonce=lambda n: "another" + n), dict(nonce=lambda n: n),
                       dict(nonce=lambda n: n[:-1] + "x" * 20), dict(nonce=lambda n: n + "x" * 4000), dict(salt=b""),
                       dict(first=lambda n: ""), dict(first=lambda n: "r=" + n + "x"), dict(first=lambda n: "r=%sx,s=!!!,i=4096" % n),
                       dict(first=lambda n: "r=%sx,s=%s,i=4096" % (n, "QUFB" * 500)), dict(first=lambda n: "r=%sx,s=QUFBQUFB,i=4096,m=x" % n),
                       dict(first=lambda n: "r=%sx,s=QUFBQUFB,i=99999999999999999999" % n), dict(first=lambda n: "r=%sx,s=QUFBQUFB,i=-1" % n),
                       dict(first=lambda n: "m=x,r=%sx,s=QUFBQUFB,i=4096" % n), dict(first=lambda n: "\xff" * 100)):
            with self.subTest(broken=broken):
                self.refused(lambda c: (c.startup(), c.scram(**broken), c.greet(), c.hang()))

    def test_a_server_that_does_not_know_the_credential_is_not_ours(self):
        self.refused(lambda c: (c.startup(), c.scram(signature=b"\0" * 32), c.greet(), c.hang()), "could not prove")
        for last in (b"", b"v=", b"v=AAAA", b"e=other-error", b"v=" + b"A" * 5000):
            self.refused(lambda c: (c.startup(), c.scram(last=last), c.greet(), c.hang()))

        def skips_its_proof(c):
            c.startup()
            c.send(auth(10, b"SCRAM-SHA-256\0\0"))
            c.read()
            c.greet()
            c.hang()
        self.refused(skips_its_proof)

    def test_scram_out_of_order(self):
        for script in (lambda c: c.send(auth(11, b"r=x,s=QUFB,i=4096")), lambda c: c.send(auth(12, b"v=" + b"A" * 43 + b"=")),
                       lambda c: (c.scram(), c.scram()), lambda c: c.send(auth(10, b"SCRAM-SHA-256\0\0") * 2)):
            self.refused(lambda c: (c.startup(), script(c), c.hang()))

    def test_messages_out_of_turn_during_login(self):
        for bytes_ in (ready(), columns("x"), row(b"1"), complete("SELECT 1"), message("G", b"\0\0\0"), message("1"), message("z"), message("Q", b"x\0")):
            self.refused(lambda c: (c.startup(), c.send(bytes_), c.hang()))
        self.refused(lambda c: (c.startup(), c.scram(), c.send(auth(0), ready("T")), c.hang()))
        self.refused(lambda c: (c.startup(), c.scram(), c.send(ready("Q")), c.hang()))

    def test_a_pin_that_does_not_take_ends_the_login(self):
        for setting in ({"client_encoding": "SJIS"}, {"standard_conforming_strings": "off"}, {"session_authorization": "somebody_else"}):
            self.refused(lambda c: c.login(**setting).hang(), "pinned")
        self.refused(lambda c: (c.startup(), c.scram(), c.send(auth(0), message("S", b"no end"), ready()), c.hang()))

    # ---- TLS ----

    def test_tls_is_declined_broken_or_injected_into(self):
        for answer in (b"N", b"S" + b"R\0\0\0\x08\0\0\0\0", b"E" + b"x" * 20, b"S\x15\x03\x01\0\x02\x02\x28", b"\0", b""):
            def script(c):
                c.packet()
                c.send(answer)
                if answer:
                    c.hang()
            with self.subTest(answer=answer):
                self.refused(script, target="fake-tls")

    def test_after_the_tls_handshake_has_begun_garbage_is_an_error(self):
        def script(c):
            c.packet()
            c.send(b"S")
            c.exactly(5)
            c.send(b"not a handshake at all")
            c.hang()
        self.refused(script, target="fake-tls")

    def test_a_certificate_of_another_root_is_refused(self):
        f = self.refused(None, target="wrong-root")
        self.assertRegex(f["M"].lower(), "certificate|verif")

    def test_a_target_without_tls_works_as_configured(self):
        self.assertEqual(kinds(self.to("plain").ask(query("select 1"))), "TDCZ")

    def test_a_wrong_credential_is_the_gateways_fault_not_the_clients(self):
        f = self.refused(None, "credential", target="wrong-password")
        self.assertNotIn(self.roles["user"], str(f))


class Session(UpstreamCase):
    def test_it_closes(self):
        self.broken(lambda c: c.next_query(), sqlstate="57P01", words="target closed")

    def test_it_closes_in_the_middle_of_a_row_and_nothing_is_added_to_it(self):
        whole = row(b"a value of some length" * 20)
        w = self.session(lambda c: (c.next_query(), c.send(columns("x"), whole[:-9])))
        w.send(query("select 1"))
        self.assertEqual(w.read()[0], "T")
        with self.assertRaises((Closed, OSError)):
            w.read()
        self.assertEqual(w.buffer, whole[5:-9])

    def test_it_ends_the_session_with_words_of_its_own(self):
        w = self.session(lambda c: (c.next_query(), c.send(error("terminating connection due to administrator command", "57P01", "FATAL"))))
        w.send(query("select 1"))
        self.assertIn("administrator command", error_of([w.read()])["M"])
        self.assertTrue(w.closed())

    def test_it_closes_while_nothing_is_asked(self):
        w = self.session(lambda c: None)
        kind, body = w.read()
        self.assertEqual(error_of([(kind, body)])["C"], "57P01")
        self.assertTrue(w.closed())

    def test_answers_that_nobody_asked_for(self):
        for bytes_ in (ready(), columns("x"), row(b"1"), complete("SELECT 1"), message("1"), message("2"), message("3"), message("I"), message("s"),
                       message("n"), message("t", b"\0\0"), message("G", b"\0\0\0"), message("H", b"\0\0\0"), message("c"), message("d", b"x"),
                       error("who asked?"), auth(0), auth(3), message("K", b"\0" * 8), message("W", b"\0\0\0"), message("v", b"\0" * 8),
                       message("V", b"\xff\xff\xff\xff"), message("z"), message("\0"), message("Q", b"select 1\0")):
            def script(c):
                c.send(bytes_)
                c.hang()
            with self.subTest(bytes_=bytes_):
                w = self.session(script)
                fatal = error_of([w.read()])
                self.assertEqual((fatal["S"], fatal["C"]), ("FATAL", "08P01"))
                self.assertTrue(w.closed())

    def test_wrong_answers_to_a_query(self):
        for bytes_ in (message("1"), message("2"), message("3"), message("t", b"\0\0"), auth(3), ready("Q") + ready(), ready() + ready(),
                       message("Z", b""), message("Z", b"II"), columns("x") + complete("SELECT 1") + ready() + row(b"1"),
                       message("E", b"no end of fields"), message("S", b"x"), message("z"), b"D\0\0\0\3", b"C\xff\xff\xff\xff", b"E\0\1\0\0"):
            with self.subTest(bytes_=bytes_):
                self.broken(lambda c: (c.next_query(), c.send(bytes_), c.hang()))

    def test_wrong_answers_to_the_extended_protocol(self):
        for bytes_ in (ready(), message("2"), complete("SELECT 1"), columns("x"), message("1") * 2, message("1") + message("2") + message("2"),
                       message("1") + message("2") + complete("SELECT 1") + complete("SELECT 1"), message("1") + message("2") + row(b"1") + ready()):
            def script(c):
                while c.read()[0] != "S":
                    pass
                c.send(bytes_)
                c.hang()
            with self.subTest(bytes_=bytes_):
                self.broken(script, parse("select 1"), bind(), execute(), SYNC)

    def test_a_tripwire_ends_the_session(self):
        for name, value in (("client_encoding", "SJIS"), ("standard_conforming_strings", "off"), ("session_authorization", "boss")):
            def script(c):
                c.next_query()
                c.send(parameter(name, value), complete("SET"), ready())
                c.hang()
            got = self.broken(script, sqlstate="57P01", words="pins")
            self.assertNotIn("Z", kinds(got), "the client could go on")
        w = self.session(lambda c: (c.send(parameter("client_encoding", "GBK")), c.hang()))
        self.assertEqual(error_of([w.read()])["C"], "57P01")

    def test_an_error_without_fields_in_a_session_is_relayed_or_ends_it(self):
        for body in (b"\0", b"M\0\0", b"C\0M\0S\0\0"):
            w = self.session(lambda c: (c.next_query(), c.send(message("E", body), ready()), c.answer_all()))
            self.assertEqual(w.ask(query("select 1")), [("E", body), ("Z", b"I")])
            self.assertEqual(kinds(w.ask(query("select 2"))), "TDCZ")

    def test_endless_notices_disturb_nobody(self):
        for read_them in (True, False):
            stop = threading.Event()

            def script(c):
                while not stop.is_set():
                    c.send(notice("n" * 100) * 200)
            w = self.session(script)
            try:
                if read_them:
                    t = threading.Thread(target=self.swallow, args=(w, stop))
                    t.start()
                for _ in range(20):
                    self.assertEqual(kinds(self.good.ask(query("select 1"))), "TDCZ")
                self.to(self.name).close()
            finally:
                stop.set()
                w.sock.close()
                if read_them:
                    t.join(harness.PATIENCE)

    @staticmethod
    def swallow(w, stop):
        try:
            while not stop.is_set():
                w.sock.recv(65536)
        except (OSError, ValueError):
            pass

    def test_a_large_answer_that_nobody_reads_disturbs_nobody(self):
        sent = []

        def script(c):
            c.next_query()
            c.send(columns("x"))
            while True:
                c.send(row(b"y" * 60000))
                sent.append(60000)
        w = self.session(script)
        w.send(query("select 1"))
        for _ in range(20):
            self.assertEqual(kinds(self.good.ask(query("select 1"))), "TDCZ")

        def stalled():
            n = len(sent)
            time.sleep(0.3)
            return n > 0 and n == len(sent)
        harness.wait_until("the target to be stopped by back-pressure", stalled)
        self.assertLess(sum(sent), 64 << 20)

    def test_a_target_that_takes_nothing_stops_its_client_only(self):
        enough = threading.Event()
        w = self.session(lambda c: harness.wait_until("the end of the test", enough.is_set))
        w.sock.settimeout(2)
        try:
            with self.assertRaises(OSError):
                while True:
                    w.send(query("select '" + "x" * 60000 + "'"))
            self.assertEqual(kinds(self.good.ask(query("select 1"))), "TDCZ")
        finally:
            enough.set()

    # ---- holds ----

    def test_it_dies_during_a_hold(self):
        die = threading.Event()
        w = self.session(lambda c: harness.wait_until("the order to die", die.is_set))
        w.send(query("update fake set a = 1 /* dies in hold */"))
        r = self.held("/* dies in hold */")
        die.set()
        got = []
        with self.assertRaises((Closed, OSError)):
            while True:
                got.append(w.read())
        fatal = error_of([m for m in got if m[0] == "E"])
        self.assertEqual((fatal["S"], fatal["C"]), ("FATAL", "57P01"))
        self.assertEqual([q for q in self.fake.queries if "dies in hold" in q], [])
        # Outside a transaction nothing is lost with a connection: the request waits for its client to come back.
        self.gw.approve(r["id"])
        self.fake.script = lambda c: c.login().answer_all()
        again = self.to("fake")
        self.assertEqual(kinds(again.ask(query("update fake set a = 1 /* dies in hold */"))), "TDCZ")
        self.gw.wait_state(r["id"], "done")
        self.assertEqual(len([q for q in self.fake.queries if "dies in hold" in q]), 1)

    def test_it_dies_during_a_hold_in_a_transaction_and_the_request_is_void(self):
        die = threading.Event()

        def script(c):
            c.next_query()
            c.send(complete("BEGIN"), ready("T"))
            harness.wait_until("the order to die", die.is_set)
        w = self.session(script)
        self.assertEqual(kinds(w.ask(query("begin"))), "CZ")
        w.send(query("update fake set a = 1 /* dies in transaction */"))
        r = self.held("/* dies in transaction */")
        die.set()
        got = []
        with self.assertRaises((Closed, OSError)):
            while True:
                got.append(w.read())
        self.assertEqual(error_of([m for m in got if m[0] == "E"])["C"], "57P01")
        self.gw.wait_state(r["id"], "void")
        self.assertEqual(self.gw.approve(r["id"], ok=False).returncode, 1)
        self.assertEqual([q for q in self.fake.queries if "dies in transaction" in q], [])

    def test_it_dies_between_the_use_of_a_grant_and_its_result(self):
        w = self.session(lambda c: c.next_query())
        w.send(query("update fake set a = 2 /* dies in use */"))
        r = self.held("/* dies in use */")
        self.gw.approve(r["id"])
        got = []
        with self.assertRaises((Closed, OSError)):
            while True:
                got.append(w.read())
        self.assertEqual(error_of([m for m in got if m[0] == "E"])["C"], "57P01")
        self.assertEqual(self.gw.wait_state(r["id"], "unknown")["state"], "unknown")
        self.assertEqual(len([q for q in self.fake.queries if "dies in use" in q]), 1)

    def test_the_elevated_login_fails_and_nothing_ran(self):
        def script(c):
            c.startup()
            if c.user == "fake_owner":
                c.send(error("no more connections", "53300", "FATAL"))
                return
            c.scram()
            c.greet()
            c.answer_all()
        self.fake.script = script
        w = self.to("fake")
        w.send(query("drop table fake_elevated_1"))
        r = self.held("drop table fake_elevated_1")
        self.gw.approve(r["id"])
        got = w.until_ready()
        self.assertEqual(kinds(got), "EZ")
        self.assertIn("nothing ran", error_of(got)["M"])
        self.assertEqual(self.gw.wait_state(r["id"], "void")["state"], "void")
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        self.assertEqual([q for q in self.fake.queries if "fake_elevated_1" in q], [])

    def test_the_elevated_connection_dies_before_the_result(self):
        def script(c):
            c.login()
            if c.user == "fake_owner":
                c.next_query()
                return
            c.answer_all()
        self.fake.script = script
        w = self.to("fake")
        w.send(query("drop table fake_elevated_2"))
        r = self.held("drop table fake_elevated_2")
        self.gw.approve(r["id"])
        got = []
        try:
            while not got or got[-1][0] != "Z":
                got.append(w.read())
        except (Closed, OSError):
            pass
        self.assertIsNotNone(error_of(got))
        self.assertEqual(self.gw.wait_state(r["id"], "unknown")["state"], "unknown")

    def test_the_elevated_target_lies_about_who_it_is(self):
        def script(c):
            c.startup()
            right = c.scram(signature=b"\0" * 32 if c.user == "fake_owner" else None)
            if right:
                c.greet()
                c.answer_all()
        self.fake.script = script
        w = self.to("fake")
        w.send(query("drop table fake_elevated_3"))
        r = self.held("drop table fake_elevated_3")
        self.gw.approve(r["id"])
        got = w.until_ready()
        self.assertIn("nothing ran", error_of(got)["M"])
        self.assertEqual([q for q in self.fake.queries if "fake_elevated_3" in q], [])

    def test_a_hanging_elevated_login_ends_in_time(self):
        def script(c):
            c.startup()
            if c.user == "fake_owner":
                c.hang()
            c.scram()
            c.greet()
            c.answer_all()
        self.fake.script = script
        w = self.to("fake")
        w.send(query("drop table fake_elevated_4"))
        self.gw.approve(self.held("drop table fake_elevated_4")["id"])
        got = w.until_ready()
        self.assertIn("nothing ran", error_of(got)["M"])
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")

    def test_a_cancel_reaches_the_target_with_its_own_key(self):
        def script(c):
            c.login()
            while True:
                c.next_query()
                harness.wait_until("the cancel", lambda: c.server.cancels)
                c.send(error("canceling statement due to user request", "57014"), ready())
        self.fake.script = script
        self.fake.cancels.clear()
        w = self.to("fake")
        w.send(query("select 1"))
        harness.wait_until("the query", lambda: self.fake.queries)
        import pgwire
        pgwire.cancel(self.gw.port, w.key, self.gw.ca)
        self.assertEqual(error_of(w.until_ready())["C"], "57014")
        self.assertEqual(self.fake.cancels[0], struct.pack("!II", 4711, 815))
        self.assertNotEqual(w.key, struct.pack("!II", 4711, 815))


def harness_name():
    from base import fresh_name
    return fresh_name("db")


if __name__ == "__main__":
    unittest.main()
