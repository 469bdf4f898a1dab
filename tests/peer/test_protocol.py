"""PostgreSQL's protocol, message by message: what a client may send and what comes back. Where the gateway
promises to be transparent, the same bytes go to the real server too and the answers must be equal."""
import contextlib
import os
import random
import socket
import struct
import threading
import unittest

import harness
import pgwire
from base import PROTOCOL_RULES, WireCase, fresh_name
from pgwire import (COPY_DONE, FLUSH, SYNC, Closed, PgError, Wire, bind, cancel, close, cstr, describe, error_fields,
                    error_of, execute, kinds, message, parse, query)

GSS_REQUEST = struct.pack("!II", 8, 80877104)
DENIED = "truncate scratchpad"          # a rule says no
BROKEN = "trun cate scratchpad"         # PostgreSQL says no: the same kind of failure, without us
LARGEST = 1048576                       # a held text and its parameters together
UNREADABLE = "/* " * 40 + "*/ " * 40  # comments deeper than the classifier follows; a server does
LONG = "select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b"
ROWS = "select id, item from orders where id <= 3 order by id"


def raw_startup(*pairs, version=196608, end=b"\0"):
    body = struct.pack("!I", version) + b"".join(cstr(p) for p in pairs) + end
    return struct.pack("!I", len(body) + 4) + body


def plain(messages):
    """Answers without what must differ between two sessions or where an error's words are ours."""
    return [(k, b"" if k == "E" else body) for k, body in messages]


def tags(messages):
    return [b.rstrip(b"\0").decode() for k, b in messages if k == "C"]


def states(messages):
    return "".join(b.decode() for k, b in messages if k == "Z")


class ProtocolCase(WireCase):

    def raw(self, tls=True):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        if tls:
            w.start_tls()
        return w

    def same(self, *parts, n=1, exact=True):
        """Both ways; the answers must be equal. Returns them."""
        through, straight = self.session().ask(*parts, n=n), self.direct().ask(*parts, n=n)
        if exact:
            self.assertEqual(through, straight)
        else:
            self.assertEqual(plain(through), plain(straight))
        return through

    def alive(self, w=None):
        """The session (or a new one) works, and every role still is the one that was started."""
        got = (w or self.session()).ask(query("select 'alive'"))
        self.assertEqual(kinds(got), "TDCZ", got)

    def pids(self):
        return sorted((r["role"], r["index"], r["pid"]) for r in self.gw.api("GET", "/v1/status")[1]["roles"])

    def scratch_rows(self, n):
        return self.sql("select count(*) from scratchpad where n = %d" % n)[0][0]

    def number(self):
        return int(fresh_name("0").split("_")[2]) * 1000 + os.getpid() % 1000


class Opening(ProtocolCase):
    """Up to the first ReadyForQuery."""

    def refused(self, sqlstate, *words, pairs=(), version=196608):
        w = self.raw()
        w.send(raw_startup("user", "bot", "database", self.name, *pairs, version=version))
        kind, body = w.read()
        self.assertEqual(kind, "E", (kind, body))
        f = error_fields(body)
        self.assertEqual((f["S"], f["C"]), ("FATAL", sqlstate), f)
        for word in words:
            self.assertIn(word, f["M"])
        self.assertTrue(w.closed())

    def shown(self, setting, **startup):
        w = self.session(**startup)
        return w.ask(query("show " + setting))[1][1][6:].decode()

    def test_tls_is_required_on_a_tls_listener(self):
        w = self.raw(tls=False)
        w.send(raw_startup("user", "bot", "database", self.name))
        kind, body = w.read()
        self.assertEqual((kind, error_fields(body)["C"]), ("E", "28000"))
        self.assertIn("TLS", error_fields(body)["M"])
        self.assertTrue(w.closed())

    def test_plaintext_behind_the_tls_request_closes(self):
        for extra in (b"\0", raw_startup("user", "bot", "database", self.name)):
            w = self.raw(tls=False)
            w.send(pgwire.SSL_REQUEST + extra)
            self.assertEqual(w.sock.recv(1), b"")
        self.alive()

    def test_gss_encryption_is_refused_and_tls_works_after_it(self):
        w = self.raw(tls=False)
        w.send(GSS_REQUEST)
        self.assertEqual(w.sock.recv(1), b"N")
        w.login("bot", self.gw.tokens["bot"], self.name)
        self.assertTrue(w.tls)
        self.alive(w)

    def test_the_same_negotiation_twice_closes(self):
        w = self.raw(tls=False)
        w.send(GSS_REQUEST)
        self.assertEqual(w.sock.recv(1), b"N")
        w.send(GSS_REQUEST)
        self.assertEqual(w.sock.recv(1), b"")
        w = self.raw()
        w.send(pgwire.SSL_REQUEST)
        self.assertTrue(w.closed())

    def test_direct_tls_without_a_request(self):
        w = self.raw(tls=False)
        ctx = pgwire.ssl.create_default_context(cafile=self.gw.ca)
        ctx.set_alpn_protocols(["postgresql"])
        w.sock = ctx.wrap_socket(w.sock, server_hostname="localhost")
        self.assertEqual(w.sock.selected_alpn_protocol(), "postgresql")
        w.tls = True
        w.login("bot", self.gw.tokens["bot"], self.name)
        self.alive(w)

    def test_tls_of_another_protocol_is_not_accepted(self):
        ctx = pgwire.ssl.create_default_context(cafile=self.gw.ca)
        ctx.set_alpn_protocols(["h2", "http/1.1"])
        w = self.raw(tls=False)
        with self.assertRaises((pgwire.ssl.SSLError, ConnectionError)):
            ctx.wrap_socket(w.sock, server_hostname="localhost").recv(1)

    def test_garbage_before_anything_closes(self):
        for bytes_ in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SSH-2.0-x\r\n", b"\0" * 64, b"\xff" * 64, b"\x16\x03\x01\xff\xff" + b"\xee" * 600):
            w = self.raw(tls=False)
            w.send(bytes_)
            self.assertTrue(w.closed(), bytes_[:10])
        self.alive()

    def test_an_unknown_startup_parameter_is_refused_by_name(self):
        self.refused("42501", "work_mem", "white-list", pairs=("work_mem", "1GB"))
        self.refused("42501", "session_preload_libraries", pairs=("session_preload_libraries", "x"))

    def test_a_startup_parameter_twice_is_refused(self):
        self.refused("08P01", pairs=("user", "boss"))
        self.refused("08P01", pairs=("DateStyle", "ISO", "DateStyle", "German"))

    def test_search_path_and_role_are_refused(self):
        self.refused("42501", "search_path", pairs=("search_path", "evil, public"))
        for path in ("", "Public", "public, evil", "$user", '"$user", public', "public\t", "pg_temp"):
            self.refused("42501", "search_path", pairs=("search_path", path))
        self.refused("42501", "role", pairs=("role", "boss"))
        self.refused("42501", "session_authorization", pairs=("session_authorization", "boss"))

    def test_replication_is_refused(self):
        for value in ("", "maybe", "TRUE"):
            self.refused("42501", "replication", pairs=("replication", value))
        for value in ("true", "on", "1", "database", "yes"):  # known when it is known who asks: no rule names a command of it
            with self.assertRaises(PgError) as e:
                self.session(replication=value)
            self.assertEqual(e.exception.fields["C"], "42501")
            self.assertIn("replication", e.exception.fields["M"])

    def test_encodings_other_than_utf8_are_refused(self):
        for value in ("SJIS", "LATIN1", "GBK", "sql_asci", "", "'sjis'", "UTF88", "UTF\xc38", "u-t-f-8-" + "-" * 300 + "x", "''", "---"):
            self.refused("42501", "client_encoding", pairs=("client_encoding", value))
        for value in ("UTF8", "utf-8", "'utf-8'", "Unicode"):  # as the server, which looks at letters and digits only
            self.assertEqual(self.shown("client_encoding", client_encoding=value), "UTF8")

    def test_options_are_judged_like_parameters_of_their_own(self):
        self.assertEqual(self.shown("statement_timeout", options="-c statement_timeout=4321"), "4321ms")
        self.assertEqual(self.shown("datestyle", options="-c DateStyle=German,DMY --timezone=UTC"), "German, DMY")
        for bad in ("-c search_path=evil", "-c user=boss", "-c options=x", "-d 5", "-c", "-csearch_path=x", "-c work_mem=1GB", "x", "--", "--role=boss"):
            self.refused("42501", pairs=("options", bad))
        self.refused("42501", pairs=("options", "-c " * 500))

    def test_white_listed_settings_reach_the_server(self):
        self.assertEqual(self.shown("timezone", TimeZone="Asia/Tokyo"), "Asia/Tokyo")
        self.assertEqual(self.shown("extra_float_digits", extra_float_digits="2"), "2")
        self.assertEqual(self.shown("application_name", application_name="my tool"), "my tool")
        self.assertEqual(self.shown("search_path"), "public")
        self.assertEqual(self.shown("search_path", search_path="public"), "public")
        self.assertEqual(self.shown("standard_conforming_strings", standard_conforming_strings="on"), "on")
        self.assertEqual(self.shown("idle_in_transaction_session_timeout", idle_in_transaction_session_timeout="90000"), "90s")
        self.assertEqual(self.shown("default_transaction_isolation", options="-c default_transaction_isolation=serializable"), "serializable")
        self.assertEqual(self.shown("jit", jit="off"), "off")
        self.assertEqual(self.shown("default_transaction_read_only", default_transaction_read_only="on"), "on")

    def test_what_protects_the_session_cannot_be_switched_off_at_its_start(self):
        self.refused("42501", "default_transaction_read_only", "only be on", pairs=("default_transaction_read_only", "off"))
        self.refused("42501", "standard_conforming_strings", "always on", pairs=("standard_conforming_strings", "off"))
        self.refused("42501", "search_path", "always public", pairs=("options", "-c search_path=evil"))

    def test_a_wrong_value_of_a_setting_is_the_servers_error(self):
        with self.assertRaises(PgError) as e:
            self.session(DateStyle="nonsense")
        self.assertIn("DateStyle", str(e.exception))

    def test_oversize_startup_closes_and_long_values_are_refused(self):
        w = self.raw()
        w.send(raw_startup("user", "bot", "application_name", "x" * 10000))
        self.assertTrue(w.closed())
        self.refused("42501", "DateStyle", pairs=("DateStyle", "x" * 5000))

    def test_malformed_startup_packets(self):
        good = raw_startup("user", "bot", "database", self.name)
        for bad in (raw_startup("user", "bot", end=b""), raw_startup("user", end=b"\0"), raw_startup("user", "bot", end=b"xx"),
                    raw_startup("user", "bot", end=b"\0\0"), raw_startup("user", "bot", "", "x"), raw_startup(),
                    struct.pack("!I", 4) + good[4:], struct.pack("!I", 0x7fffffff) + good[4:], struct.pack("!I", 0xffffffff) + good[4:]):
            w = self.raw()
            w.send(bad)
            try:
                kind, body = w.read()
                self.assertEqual(kind, "E", bad)
                self.assertIn(error_fields(body)["C"], ("08P01", "28000"))
            except (Closed, OSError):
                pass
            self.assertTrue(w.closed(), bad)
        self.alive()

    def test_protocol_3_2_is_negotiated_down(self):
        for version, more in ((196610, ()), (196608, ("_pq_.some_option", "1")), (0x3ffff, ())):
            w = self.raw()
            w.send(raw_startup("user", "bot", "database", self.name, *more, version=version))
            kind, body = w.read()
            self.assertEqual(kind, "v", (version, body))
            self.assertEqual(struct.unpack("!I", body[:4])[0], 196608)
            kind, body = w.read()
            self.assertEqual((kind, body[:4]), ("R", struct.pack("!I", 10)))
            w.scram(self.gw.tokens["bot"])
            self.assertEqual(w.until_ready()[-1], ("Z", b"I"))

    def test_protocol_2_and_unknown_majors_are_refused(self):
        for version in (131072, 262144, 1):
            self.refused("08P01", "protocol", version=version)

    def test_the_server_is_pinned_and_its_parameters_are_shown(self):
        w = self.session()
        self.assertEqual(w.parameters["client_encoding"], "UTF8")
        self.assertEqual(w.parameters["standard_conforming_strings"], "on")
        self.assertIn("server_version", w.parameters)

    # ---- authentication ----

    def first_of(self, user, token="x", database=None):
        """SCRAM up to the server's first message: its fields."""
        w = self.raw()
        w.startup(user, database or self.name)
        self.assertEqual(w.read()[1], struct.pack("!I", 10) + b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
        first = b"n,,n=,r=clientnonce"
        w.send(message("p", cstr("SCRAM-SHA-256") + struct.pack("!I", len(first)) + first))
        kind, body = w.read()
        self.assertEqual((kind, body[:4]), ("R", struct.pack("!I", 11)), body)
        return w, dict(x.split("=", 1) for x in body[4:].decode().split(","))

    def test_wrong_token_and_unknown_user_cannot_be_told_apart(self):
        errors, shapes = [], []
        for user in ("bot", "no-such-user"):
            with self.assertRaises(PgError) as e:
                self.session(who=user) if user not in self.gw.tokens else self.raw(tls=False).login(user, "cs_a_" + "A" * 43, self.name)
            f = dict(e.exception.fields)
            errors.append({k: v.replace(user, "USER") for k, v in f.items()})
            salts = set()
            for _ in range(3):
                w, first = self.first_of(user)
                salts.add(first["s"])
                w.close()
            self.assertEqual(len(salts), 1, "the salt of a name is stable")
            shapes.append((len(first["s"]), len(first["r"]), first["i"], sorted(first)))
        self.assertEqual(errors[0], errors[1])
        self.assertEqual(errors[0]["C"], "28P01")
        self.assertEqual(shapes[0], shapes[1])

    def test_salts_of_different_unknown_names_differ(self):
        self.assertNotEqual(self.first_of("nobody-a")[1]["s"], self.first_of("nobody-b")[1]["s"])

    def test_agents_and_persons_come_in_with_their_tokens(self):
        self.alive(self.session("bot"))
        self.alive(self.session("alice"))

    def test_an_unknown_target_is_told_only_after_authentication(self):
        w = self.raw(tls=False)
        with self.assertRaises(PgError) as e:
            w.login("bot", "wrong", "no-such-target")
        self.assertEqual(e.exception.fields["C"], "28P01")
        with self.assertRaises(PgError) as e:
            self.raw(tls=False).login("bot", self.gw.tokens["bot"], "no-such-target")
        self.assertEqual(e.exception.fields["C"], "3D000")
        self.assertIn("no-such-target", e.exception.fields["M"])

    def test_a_person_in_no_group_gets_no_session(self):
        self.gw.add_user("loner")
        with self.assertRaises(PgError) as e:
            self.session("loner")
        self.assertEqual((e.exception.fields["S"], e.exception.fields["C"]), ("FATAL", "28000"))
        self.assertIn("loner", e.exception.fields["M"])

    def test_an_agent_whose_person_may_not_gets_no_session(self):
        self.gw.add_user("outsider")
        self.gw.add_agent("outbot", "outsider", "agents")
        with self.assertRaises(PgError) as e:
            self.session("outbot")
        self.assertEqual(e.exception.fields["C"], "28000")

    def scram_refused(self, send, sqlstates=("08P01", "28P01")):
        w = self.raw()
        w.startup("bot", self.name)
        w.read()
        w.send(send)
        try:
            kind, body = w.read()
            self.assertEqual(kind, "E", (send, body))
            self.assertIn(error_fields(body)["C"], sqlstates)
        except (Closed, OSError):
            pass
        self.assertTrue(w.closed())

    def initial(self, first, mechanism="SCRAM-SHA-256", claim=None):
        return message("p", cstr(mechanism) + struct.pack("!I", (len(first) if claim is None else claim) & 0xffffffff) + first)

    def test_channel_binding_in_the_wrong_place_or_of_another_kind_is_refused(self):
        self.scram_refused(self.initial(b"p=tls-server-end-point,,n=,r=abcdefgh"))
        for header in (b"n,,", b"y,,", b"p=tls-unique,,", b"p=,,", b"p=tls-server-end-point", b"p=tls-server-end-points,,"):
            self.scram_refused(self.initial(header + b"n=,r=abcdefgh", "SCRAM-SHA-256-PLUS"))

    def test_malformed_first_scram_messages(self):
        first = b"n,,n=,r=abcdefghijkl"
        for bad in (self.initial(b""), self.initial(b"n,,n="), self.initial(b"n,,r=abc"), self.initial(b"x,,n=,r=abc"),
                    self.initial(b"n,a=boss,n=,r=abcdefgh"), self.initial(b"n,,m=ext,n=,r=abcdefgh"), self.initial(b"n,,n=,r="),
                    self.initial(b"n,,n=,r=a\0b"), self.initial(b"n,,n=,r=\xff\xfe\xfd\xfc"), self.initial(first, "PLAIN"), self.initial(first, ""),
                    self.initial(first, claim=3), self.initial(first, claim=-1), self.initial(first, claim=len(first) + 1),
                    self.initial(b"n,,n=,r=" + b"x" * 5000), message("p"), message("p", b"\0"), message("p", cstr("SCRAM-SHA-256")),
                    query("select 1"), b"p\0\0\0\0", b"p\0\0\0\3", b"p\xff\xff\xff\xff", b"p\x7f\xff\xff\xff", b"\0\0\0\0\0"):
            self.scram_refused(bad)
        self.alive()

    def test_malformed_final_scram_messages(self):
        proof = "A" * 43 + "="
        for bad in ("c=biws,r=NONCE", "c=biws,r=NONCE,p=", "c=biws,r=NONCE,p=AAAA", "c=biws,r=NONCE,p=" + proof[:-1],
                    "c=biws,r=NONCEx,p=" + proof, "c=biws,r=clientnonce,p=" + proof, "c=eSws,r=NONCE,p=" + proof, "c=,r=NONCE,p=" + proof,
                    "r=NONCE,p=" + proof, "p=" + proof, "", "c=biws,r=NONCE,p=" + proof, "c=biws,r=NONCE,m=x,p=" + proof,
                    "c=biws,r=NONCE,p=" + proof + ",x=y", "c=biws,r=" + "y" * 1900 + ",p=" + proof, "c=biws,r=NONCE,p=" + proof * 40):
            w, first = self.first_of("bot")
            w.send(message("p", bad.replace("NONCE", first["r"]).encode()))
            try:
                kind, body = w.read()
                self.assertEqual(kind, "E", (bad, body))
                self.assertIn(error_fields(body)["C"], ("08P01", "28P01"))
            except (Closed, OSError):
                pass
            self.assertTrue(w.closed(), bad)
        self.alive()

    def test_a_proof_cannot_be_used_again(self):
        """The nonce is the gateway's: what was sniffed in one exchange is worth nothing in another."""
        sent = []
        w = self.raw()
        w.startup("bot", self.name)
        w.read()
        real = w.send
        w.send = lambda *parts: (sent.append(b"".join(parts)), real(*parts))
        w.scram(self.gw.tokens["bot"])
        w2 = self.raw()
        w2.startup("bot", self.name)
        w2.read()
        w2.send(sent[0])
        w2.read()
        w2.send(sent[1])
        self.assertEqual(w2.read()[0], "E")
        self.assertTrue(w2.closed())

    def test_hanging_in_the_middle_of_opening_disturbs_nobody(self):
        idle = [self.raw(tls=False) for _ in range(20)]
        half = [self.raw() for _ in range(5)]
        for i, w in enumerate(idle):
            w.send(pgwire.SSL_REQUEST[:i % 8])
        for w in half:
            w.startup("bot", self.name)
        self.alive()


class Messages(ProtocolCase):
    """An open session: everything that is allowed looks as if the gateway were not there."""

    def test_simple_queries(self):
        for sql in ("select 1", "", ";", "select 1; select 'two', null; begin; commit", ROWS, "show standard_conforming_strings",
                    "set datestyle to 'German'; select date '2026-11-22'", "values (1,2),(3,4)", "select 1/0", "select nope from orders",
                    "begin; savepoint a; select 1/0", "rollback", "commit", "select 'ü€😀', e'\\n'", "select", "select 1; select 1/0; select 2"):
            with self.subTest(sql):
                self.same(query(sql))

    def test_extended_query_in_all_its_messages(self):
        self.same(parse("select $1::int + 1"), bind(["41"]), describe(), execute(), SYNC)
        self.same(parse("select id from orders where id = $1", "s1", (23,)), describe("S", "s1"), SYNC,
                  bind(["7"], "s1", "p1"), describe("P", "p1"), execute("p1"), close("P", "p1"), SYNC,
                  bind([None], "s1"), execute(), close("S", "s1"), SYNC, n=3)
        self.same(parse("select $1::int4", types=(23,)), bind([struct.pack("!i", 77)], formats=(1,), results=(1,)), describe(), execute(), SYNC)
        self.same(parse(""), bind(), describe(), execute(), SYNC)
        self.same(close("S", "never"), close("P", "never"), SYNC)
        self.same(parse("select 1"), parse("select 2"), bind(), execute(), SYNC)
        self.same(SYNC, SYNC, SYNC, n=3)

    def test_errors_of_the_server_pass_unchanged_and_skip_to_sync(self):
        self.same(parse("select 1/0"), bind(), execute(), parse("select 2"), bind(), execute(), SYNC, query("select 3"), n=2)
        self.same(parse("select 1", "dup"), parse("select 2", "dup"), SYNC, bind([], "dup"), execute(), SYNC, n=2)
        self.same(describe("S", "never"), SYNC, describe("P", "never"), SYNC, execute("never"), SYNC, n=3)
        self.same(parse("select $1::int"), bind(["x"]), execute(), SYNC)
        self.same(parse("select $1::int"), bind([]), execute(), SYNC)
        self.same(parse("select 1"), bind(["1", "2"]), execute(), SYNC, query("select 1"), n=2)

    def test_flush_gives_the_answers_without_a_sync(self):
        for w in (self.session(), self.direct()):
            w.send(parse("select 5"), bind(), FLUSH)
            self.assertEqual([w.read()[0], w.read()[0]], ["1", "2"])
            w.send(execute(), FLUSH)
            self.assertEqual([w.read()[0], w.read()[0]], ["D", "C"])
            self.assertEqual(kinds(w.ask(SYNC)), "Z")

    def test_portals_are_suspended_at_the_row_limit(self):
        got = self.same(query("begin"), parse("select id from orders order by id"), bind(portal="p"), execute("p", 2), execute("p", 3),
                        execute("p"), SYNC, query("commit"), n=3)
        self.assertEqual(kinds(got).count("s"), 2)
        self.same(parse("select id from orders order by id limit 3"), bind(), execute("", 3), execute("", 1), SYNC)

    def test_several_sync_groups_in_one_write(self):
        group = parse("select $1::text") + bind(["x"]) + execute() + SYNC
        broken = parse("select 1/0") + bind() + execute() + parse("select 2") + bind() + execute() + SYNC
        self.same(group, broken, group, query("select 1"), broken, query("select 1"), n=6)

    def test_a_simple_query_inside_a_group(self):
        self.same(parse("select 1"), bind(), execute(), query("select 2"), SYNC, n=2)

    def test_cursors_and_transactions(self):
        self.same(query("begin"), query("declare c cursor for select id from orders order by id"), query("fetch 2 from c"),
                  query("move 1 in c"), query("close c"), query("savepoint s"), query("select 1/0"), query("select 1"),
                  query("rollback to s"), query("select 1"), query("commit"), n=11)
        self.same(query("begin isolation level serializable read only"), query("rollback"), n=2)

    def test_a_thousand_simple_queries_in_one_write(self):
        w = self.session()
        got = w.ask(*[query("select %d" % i) for i in range(1000)], n=1000)
        self.assertEqual([b[6:].decode() for k, b in got if k == "D"], [str(i) for i in range(1000)])

    def test_a_thousand_sync_groups_in_one_write(self):
        w = self.session()
        w.ask(parse("select $1::int", "s"), SYNC)
        got = w.ask(*[bind([str(i)], "s") + execute() + SYNC for i in range(1000)], n=1000)
        self.assertEqual([b[6:].decode() for k, b in got if k == "D"], [str(i) for i in range(1000)])

    def test_a_thousand_executions_in_one_group(self):
        """More answers are owed than the gateway counts ahead, and the server sends none of them unasked."""
        w = self.session()
        got = w.ask(parse("select $1::int", "s"), *[bind([str(i)], "s") + execute() for i in range(1000)], SYNC)
        self.assertEqual([b[6:].decode() for k, b in got if k == "D"], [str(i) for i in range(1000)])

    def test_a_long_pipeline_with_an_error_in_the_middle(self):
        w = self.session()
        got = w.ask(parse("select 10 / $1::int", "s"), *[bind([str(500 - i)], "s") + execute() for i in range(1000)], SYNC, query("select 1"), n=2)
        self.assertEqual(kinds(got).count("D"), 501)
        self.assertEqual(error_of(got)["C"], "22012")

    def test_large_rows(self):
        got = self.same(query("select repeat('x', 1048576), i from generate_series(1, 3) i"))
        self.assertEqual([len(b) for k, b in got if k == "D"], [2 + 4 + 1048576 + 5] * 3)
        self.same(query("select repeat('y', 100000) from generate_series(1, 50)"))

    def test_many_rows(self):
        got = self.session().ask(query("select i, 'row ' || i from generate_series(1, 100000) i"))
        self.assertEqual(kinds(got).count("D"), 100000)

    def test_a_thousand_parameters(self):
        sql = "select " + ", ".join("$%d::text" % (i + 1) for i in range(1000))
        self.same(parse(sql), bind(["p%d" % i for i in range(1000)]), execute(), SYNC)
        self.same(parse("select $1::text"), bind(["x" * 600000]), execute(), SYNC)

    def test_forty_thousand_parameters(self):
        sql = "select count(*) from unnest(array[%s]) a where a = 'p'" % ", ".join("$%d::text" % (i + 1) for i in range(3000))
        self.same(parse(sql), bind(["p"] * 3000), execute(), SYNC)
        sql = "select 1 where 'p' in (%s)" % ",".join("$%d" % (i + 1) for i in range(40000))
        self.same(parse(sql), bind(["p"] * 40000), execute(), SYNC)

    def test_more_parameters_than_anybody_reads_are_not_held(self):
        sql = "update %s set note = 'p' where note in (%s)" % (self.table(), ", ".join("$%d" % (i + 1) for i in range(1025)))
        w = self.session()
        got = w.ask(parse(sql), bind(["p"] * 1025), execute(), SYNC)
        self.assertEqual(kinds(got), "1EZ")
        self.assertIn("larger than what can be held", error_of(got)["M"])
        self.alive(w)

    def test_settings_that_are_free(self):
        self.same(query("set timezone to 'Asia/Tokyo'"))
        self.same(query("set client_encoding to 'UTF8'"))
        w = self.session()
        w.ask(query("set statement_timeout to '30s'"))
        self.assertEqual(w.ask(query("show statement_timeout"))[1][1][6:], b"30s")

    def test_notifications_are_delivered_while_idle(self):
        w = self.session()
        self.assertEqual(kinds(w.ask(query("listen wake"))), "CZ")
        self.sql("notify wake, 'up'")
        kind, body = w.read()
        self.assertEqual((kind, body[4:]), ("A", b"wake\0up\0"))
        other = self.session()
        self.assertEqual(kinds(other.ask(query("notify wake, 'again'"))), "CZ")
        self.assertEqual(w.read()[1][4:], b"wake\0again\0")
        self.assertEqual(kinds(w.ask(query("unlisten *"))), "CZ")

    def test_a_clients_own_notifications_carry_the_process_id_that_it_was_told(self):
        w = self.session()
        w.ask(query("listen mine"))
        got = w.ask(query("notify mine, 'x'"))
        self.assertEqual(kinds(got), "CAZ")
        self.assertEqual(got[1][1], w.key[:4] + b"mine\0x\0")
        self.session().ask(query("notify mine, 'y'"))
        self.assertNotEqual(w.read()[1][:4], w.key[:4])

    # ---- COPY ----

    def test_copy_out(self):
        self.same(query("copy (select * from orders order by id) to stdout"))
        self.same(query("copy orders (id) to stdout with (format csv, header)"))
        self.same(parse("copy (select 1) to stdout"), bind(), execute(), SYNC)
        self.same(query("copy (select 1/0) to stdout"))
        got = self.session().ask(query("copy (select i, repeat('z', 1000) from generate_series(1, 20000) i) to stdout"))
        self.assertEqual(kinds(got).count("d"), 20000)

    def copy_data(self, *rows):
        return message("d", b"".join(b"%d\n" % r for r in rows))

    def started_copy(self, w, extended=False):
        w.send(*((parse("copy scratchpad from stdin"), bind(), execute(), SYNC) if extended else (query("copy scratchpad from stdin"),)))
        while True:
            kind, _ = w.read()
            if kind == "G":
                return w
            self.assertIn(kind, "12")

    def test_copy_in(self):
        n = self.number()
        w = self.started_copy(self.session())
        got = w.ask(self.copy_data(n, n), self.copy_data(n), COPY_DONE)
        self.assertEqual((tags(got), states(got)), (["COPY 3"], "I"))
        self.assertEqual(self.scratch_rows(n), 3)
        self.alive(w)

    def test_copy_in_of_many_megabytes_streams(self):
        n = self.number()
        w = self.started_copy(self.session())
        block = b"%d\n" % n * (1048576 // len(b"%d\n" % n))
        w.send(message("d", block * 3), message("d", block), message("d", b""), message("d", b"%d" % n), message("d", b"\n"))
        rows = block.count(b"\n") * 4 + 1
        self.assertEqual(tags(w.ask(COPY_DONE)), ["COPY %d" % rows])
        self.assertEqual(self.scratch_rows(n), rows)

    def test_copy_in_everything_in_one_write(self):
        n = self.number()
        w = self.session()
        got = w.ask(query("copy scratchpad from stdin"), self.copy_data(n), COPY_DONE, query("select 1"), n=2)
        self.assertEqual((kinds(got), tags(got)), ("GCZTDCZ", ["COPY 1", "SELECT 1"]))

    def test_copy_fail(self):
        n = self.number()
        w = self.started_copy(self.session())
        got = w.ask(self.copy_data(n), message("f", cstr("changed my mind")))
        self.assertEqual((kinds(got), error_of(got)["C"], states(got)), ("EZ", "57014", "I"))
        self.assertEqual(self.scratch_rows(n), 0)
        self.alive(w)

    def test_copy_with_bad_data_ends_at_the_server_and_the_rest_is_ignored(self):
        n = self.number()
        w = self.started_copy(self.session())
        w.send(self.copy_data(n), message("d", b"not a number\n"), *[self.copy_data(n) for _ in range(2000)], COPY_DONE)
        got = w.until_ready()
        self.assertEqual((kinds(got), error_of(got)["C"]), ("EZ", "22P02"))
        self.assertEqual(self.scratch_rows(n), 0)
        self.alive(w)

    def test_copy_in_by_extended_protocol(self):
        n = self.number()
        w = self.started_copy(self.session(), extended=True)
        got = w.ask(self.copy_data(n), COPY_DONE, SYNC)
        self.assertEqual((kinds(got), tags(got)), ("CZ", ["COPY 1"]))
        self.alive(w)
        w = self.started_copy(self.session(), extended=True)
        got = w.ask(self.copy_data(n), SYNC, FLUSH, message("f", cstr("no")), SYNC)
        self.assertEqual((kinds(got), error_of(got)["C"]), ("EZ", "57014"))
        self.alive(w)
        w = self.started_copy(self.session(), extended=True)
        got = w.ask(message("d", b"bad\n"), self.copy_data(n), COPY_DONE, SYNC)
        self.assertEqual((kinds(got), error_of(got)["C"]), ("EZ", "22P02"))
        self.alive(w)
        self.assertEqual(self.scratch_rows(n), 1)

    def test_copy_inside_a_transaction(self):
        n = self.number()
        w = self.session()
        w.ask(query("begin"))
        self.started_copy(w)
        self.assertEqual(states(w.ask(self.copy_data(n), COPY_DONE)), "T")
        self.assertEqual(tags(w.ask(query("rollback"))), ["ROLLBACK"])
        self.assertEqual(self.scratch_rows(n), 0)

    def test_commands_in_the_middle_of_copy_close_the_session(self):
        for bad in (query("select 1"), parse("select 1"), bind(), execute(), describe(), close("P"), message("F", b"\0" * 12)):
            w = self.started_copy(self.session())
            w.send(bad)
            self.assertTrue(w.closed(), bad)
        self.alive()

    def test_stray_copy_messages_are_ignored_as_the_server_does(self):
        self.same(self.copy_data(1), COPY_DONE, message("f", cstr("x")), query("select 1"))

    def test_copy_to_other_tables_and_files_does_not_pass(self):
        w = self.session()
        for sql in ("copy orders from stdin", "copy scratchpad from '/etc/passwd'", "copy scratchpad from program 'id'",
                    "copy orders to '/tmp/x'", "copy (select 1) to program 'cat'"):
            got = w.ask(query(sql))
            self.assertEqual((kinds(got), error_of(got)["C"]), ("EZ", "42501"), sql)
        self.alive(w)

    # ---- broken streams ----

    def violation(self, *parts):
        w = self.session()
        with contextlib.suppress(OSError):  # a large message is not read to its end
            w.send(*parts)
        kind, body = "", b""
        try:
            while kind != "E":
                kind, body = w.read()
            self.assertEqual((error_fields(body)["S"], error_fields(body)["C"]), ("FATAL", "08P01"), parts)
        except (Closed, OSError):
            self.fail("closed without a word: %r" % (parts,))
        self.assertTrue(w.closed())

    def test_unknown_and_misplaced_messages_close(self):
        for kind in ("\0", "z", "R", "Z", "T", "G", "W", "V", "N", "\x7f", "p", "v"):
            self.violation(message(kind, b"\0\0\0\0"))
        self.alive()

    def test_lying_lengths_close(self):
        for kind in "QPBDECSHXfcF":
            for length in (0, 3, 0x7fffffff, 0xffffffff):
                with self.subTest(kind=kind, length=length):
                    w = self.session()
                    w.send(kind.encode() + struct.pack("!I", length) + b"x" * 16)
                    self.assertTrue(w.closed())
        self.alive()

    def test_malformed_bodies_close(self):
        for bad in (message("Q", b"select 1"), message("Q", b""), message("Q", b"select 1\0select 2\0"), message("P", b"\0select 1\0"),
                    message("P", b"\0select 1\0\0\1"), message("P", b"\0select 1\0\0\0x"), message("P", b"name"), message("B", b"\0\0"),
                    message("B", b"\0\0\0\0\0\1\x7f\xff\xff\xff"), message("B", b"\0\0\0\0\0\1\xff\xff\xff\xfe\0\0"), message("B", b"\0\0\0\0\xff\xff\0\0"),
                    message("B", b"\0\0\0\0\0\0\0\0\0"), message("D", b""), message("D", b"X\0"), message("D", b"S"), message("D", b"Sname"),
                    message("C", b"Z\0"), message("E", b"\0"), message("E", b"\0\0\0\0"), message("E", b"portal")):
            with self.subTest(bad=bad):
                self.violation(bad)
        self.alive()

    def test_a_query_over_the_limit_closes_with_words(self):
        self.violation(query("select '" + "x" * 1048576 + "'"))
        self.violation(parse("select 1 /*" + "x" * 1048576 + "*/"))
        self.violation(bind(["x" * 1100000]))
        self.alive()

    def test_garbage_after_login_closes(self):
        rng = random.Random(7)
        for _ in range(20):
            w = self.session()
            w.send(b"\x01" + bytes(rng.randrange(256) for _ in range(200)))
            self.assertTrue(w.closed())
        self.alive()

    def test_truncated_messages_and_a_vanished_client(self):
        pids = self.pids()
        whole = parse("select $1::int") + bind(["1"]) + execute() + SYNC + query("select 2")
        for cut in range(1, len(whole), 3):
            w = self.session() if cut % 30 == 1 else w
            w.send(whole[:cut])
            w.sock.close()
            w = self.session()
        self.assertEqual(self.pids(), pids)
        self.alive()

    def test_any_split_gives_the_same_answers(self):
        script = [parse("select id, item from orders where id = $1", "s", (23,)), describe("S", "s"), bind(["3"], "s", "p"), describe("P", "p"),
                  execute("p"), SYNC, query("select 1; select 'x'"), parse(DENIED), bind(), execute(), SYNC, query(DENIED), close("S", "s"), SYNC,
                  query("copy scratchpad from stdin"), message("f", cstr("no")), query("begin"), query(DENIED), query("rollback")]
        whole, n = b"".join(script), 9
        w = self.session()
        w.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        want = plain(w.ask(whole, n=n))
        for i in range(len(whole)):
            w.send(whole[i:i + 1])
        self.assertEqual(plain(w.until_ready(n)), want)
        for i in range(1, len(whole), 3):
            w.send(whole[:i])
            w.send(whole[i:])
            self.assertEqual(plain(w.until_ready(n)), want, "split at %d" % i)
        rng = random.Random(11)
        for _ in range(40):
            cuts = sorted({0, len(whole), *(rng.randrange(len(whole)) for _ in range(rng.randrange(1, 12)))})
            for a, b in zip(cuts, cuts[1:]):
                w.send(whole[a:b])
            self.assertEqual(plain(w.until_ready(n)), want, cuts)

    def test_terminate_closes_without_a_word(self):
        w = self.session()
        w.send(pgwire.TERMINATE)
        self.assertEqual(w.sock.recv(10), b"")

    # ---- cancel ----

    def running(self, w, sql=LONG):
        w.send(query(sql))
        harness.wait_until("the query to run", lambda: self.sql(
            "select 1 from pg_stat_activity where state = 'active' and query = '%s'" % sql.replace("'", "''")))

    def cancelled(self, w):
        got = w.until_ready()
        self.assertEqual((kinds(got)[-2:], error_of(got)["C"]), ("EZ", "57014"))
        self.alive(w)

    def test_cancel_from_another_connection(self):
        w = self.session()
        self.running(w, LONG + " /* 1 */")
        cancel(self.gw.port, w.key, self.gw.ca)
        self.cancelled(w)

    def test_cancel_without_tls_as_old_libpq_does(self):
        w = self.session()
        self.running(w, LONG + " /* 2 */")
        cancel(self.gw.port, w.key)
        self.cancelled(w)

    def test_cancel_with_a_wrong_key_does_nothing(self):
        w, other = self.session(), self.session()
        sql = LONG + " /* 3 */"
        self.running(w, sql)
        for key in (w.key[:4] + bytes(4), bytes(8), b"\xff" * 8, other.key, w.key[:4] + other.key[4:], other.key[:4] + w.key[4:]):
            cancel(self.gw.port, key, self.gw.ca)
        self.alive(other)
        self.assertTrue(self.sql("select 1 from pg_stat_activity where state = 'active' and query = '%s'" % sql))
        cancel(self.gw.port, w.key, self.gw.ca)
        self.cancelled(w)

    def test_cancel_while_idle_does_nothing(self):
        w = self.session()
        cancel(self.gw.port, w.key, self.gw.ca)
        self.alive(w)
        self.alive(w)

    def test_the_servers_own_key_is_never_shown(self):
        w = self.session(application_name="key-" + str(self.number()))
        pid = struct.unpack("!I", w.key[:4])[0]
        self.assertNotIn(pid, [r[0] for r in self.sql("select pid from pg_stat_activity")])
        self.assertGreater(pid, 1 << 22)  # and no process ever has it: pg_terminate_backend of it hits nobody

    def test_malformed_cancels(self):
        for packet in (struct.pack("!II", 12, 80877102) + b"\0" * 4, struct.pack("!II", 300, 80877102) + b"\0" * 292,
                       struct.pack("!II", 16, 80877102) + b"\0" * 3):
            w = self.raw(tls=False)
            w.send(packet)
            w.sock.shutdown(socket.SHUT_WR)
            self.assertEqual(w.sock.recv(1), b"")
        self.alive()


class Refusals(ProtocolCase):
    """Denied and held actions: client and server stay in step, whatever the state."""

    BEFORE = {"idle": [], "in a transaction": [query("begin"), query("select 1")], "in a failed transaction": [query("begin"), query("select 1/0")]}
    AFTER = [query("select 1"), query("commit"), query("select 2"), parse("select 3"), bind(), execute(), SYNC]

    def compare(self, name, shape, before, after=None):
        """shape(text) → messages: with the denied text here, with one that does not parse there."""
        after = self.AFTER if after is None else after
        both = []
        for w, text in ((self.session(), DENIED), (self.direct(), BROKEN)):
            parts = b"".join(before) + b"".join(shape(text)) + b"".join(after)
            n = parts_ready(before) + parts_ready(shape(text)) + parts_ready(after)
            both.append(w.ask(parts, n=n))
        through, straight = both
        self.assertEqual(plain(through), plain(straight), name)
        self.assertTrue(any(k == "E" and error_fields(b)["C"] == "42501" for k, b in through), name)

    def test_a_denial_leaves_what_a_servers_error_leaves(self):
        shapes = {
            "simple": lambda t: [query(t)],
            "multi": lambda t: [query(t + "; select 1")],
            "extended": lambda t: [parse(t), bind(), describe(), execute(), SYNC],
            "parse only": lambda t: [parse(t, "named"), describe("S", "named"), SYNC],
            "pipeline": lambda t: [parse("select 'a'"), bind(), execute(), parse(t), bind(), execute(), parse("select 'b'"), bind(), execute(), SYNC],
            "groups": lambda t: [parse("select 'a'"), bind(), execute(), SYNC, parse(t), bind(), execute(), SYNC, parse("select 'b'"), bind(), execute(), SYNC],
            "simple behind extended": lambda t: [parse("select 'a'"), bind(), execute(), query(t), SYNC],
            "two": lambda t: [query(t), query(t)],
            "several in one group": lambda t: [parse(t), parse(t), bind(), execute(), SYNC],
            "named kept": lambda t: [parse("select 'kept'", "k"), SYNC, parse(t, "k2"), SYNC, bind([], "k"), execute(), SYNC],
        }
        for state, before in self.BEFORE.items():
            for shape_name, shape in shapes.items():
                if state == "in a failed transaction" and shape_name in ("simple behind extended", "pipeline"):
                    continue  # the group has failed before: the server skips the rest, and so do we
                with self.subTest(state=state, shape=shape_name):
                    self.compare("%s, %s" % (state, shape_name), shape, before)

    def test_a_denial_behind_queries_that_still_run(self):
        self.compare("busy", lambda t: [query("select count(*) from generate_series(1, 200000)"), query(t), query("select 1")], [])

    def test_a_denial_spoils_the_transaction_as_an_error_does(self):
        n = self.number()
        w = self.session()
        got = w.ask(query("begin"), query("insert into scratchpad values (%d)" % n), query(DENIED), query("commit"), n=4)
        self.assertEqual(states(got), "TTEI")
        self.assertEqual(tags(got)[-1], "ROLLBACK")
        self.assertEqual(self.scratch_rows(n), 0)
        self.alive(w)

    def test_a_denial_in_a_pipeline_undoes_its_group_only(self):
        n = self.number()
        insert = parse("insert into scratchpad values ($1)", types=(23,)) + bind([str(n)]) + execute()
        w = self.session()
        got = w.ask(insert, SYNC, insert, parse(DENIED), bind(), execute(), insert, SYNC, insert, SYNC, n=3)
        self.assertEqual((tags(got), states(got)), (["INSERT 0 1"] * 3, "III"))
        self.assertEqual(self.scratch_rows(n), 2)

    def test_of_a_message_that_is_denied_nothing_runs(self):
        n = self.number()
        w = self.session()
        for sql in ("insert into scratchpad values (%d); insert into orders values (%d, 'x')" % (n, 100000 + n),
                    "truncate scratchpad; insert into scratchpad values (%d)" % n):
            got = w.ask(query(sql))
            self.assertEqual((kinds(got), error_of(got)["C"]), ("EZ", "42501"))
        self.assertEqual(self.scratch_rows(n), 0)
        self.alive(w)

    def test_a_denial_names_the_rule_and_is_not_sent_to_the_server(self):
        w = self.session()
        e = error_of(w.ask(query(DENIED)))
        self.assertEqual((e["S"], e["C"]), ("ERROR", "42501"))
        self.assertIn("Countersign denied this", e["M"])
        self.assertIn("never-truncate", e["M"])
        e = error_of(w.ask(parse(DENIED), SYNC))
        self.assertIn("never-truncate", e["M"])

    def test_only_rollback_is_never_refused(self):
        w = self.session()
        got = w.ask(query("begin"), query(DENIED), query("rollback"), n=3)
        self.assertEqual((states(got), tags(got)), ("TEI", ["BEGIN", "ROLLBACK"]))

    def test_function_call_is_refused_and_the_session_goes_on(self):
        call = message("F", struct.pack("!IHHH", 1598, 0, 0, 0))
        w = self.session()
        got = w.ask(call, query("select 1"), n=2)
        self.assertEqual((kinds(got), states(got)), ("EZTDCZ", "II"))
        self.assertIn("FunctionCall", error_of(got)["M"])
        got = w.ask(query("begin"), call, query("commit"), n=3)
        self.assertEqual((states(got), tags(got)), ("TEI", ["BEGIN", "ROLLBACK"]))
        got = w.ask(parse("select 1"), bind(), execute(), call, SYNC, n=2)
        self.assertEqual(kinds(got), "12DCEZZ")
        self.alive(w)

    def test_names_longer_than_the_server_keeps_are_refused(self):
        w = self.session()
        for parts in ((parse("select 1", "n" * 64), SYNC), (parse("select 1"), bind(portal="p" * 64), execute("p" * 64), SYNC), (bind([], "n" * 64), SYNC)):
            got = w.ask(*parts)
            self.assertEqual(kinds(got)[-2:], "EZ")
            self.assertIn("63", error_of(got)["M"])
        self.same(parse("select 1", "n" * 63), bind([], "n" * 63, "p" * 63), execute("p" * 63), SYNC)
        self.alive(w)

    def test_a_statement_that_the_gateway_has_not_seen_cannot_be_bound(self):
        w = self.session()
        got = w.ask(bind([], "nowhere"), execute(), SYNC)
        self.assertEqual((kinds(got), error_of(got)["C"]), ("EZ", "42501"))
        self.alive(w)

    def test_a_changing_portal_runs_once(self):
        n = self.number()
        w = self.session()
        got = w.ask(query("begin"), parse("insert into scratchpad values (%d)" % n), bind(portal="p"), execute("p"), execute("p"), SYNC,
                    query("rollback"), n=3)
        self.assertEqual((kinds(got), states(got)), ("CZ12CEZCZ", "TEI"))
        self.assertIn("once", error_of(got)["M"])

    def test_sql_level_prepare_and_execute(self):
        for w in (self.session(), self.direct()):
            w.ask(query("prepare r as select id from orders where id = $1"))
            got = w.ask(query("execute r(5)"), bind(["6"], "r"), execute(), SYNC, query("deallocate r"), n=3)
            self.assertEqual(kinds(got), "TDCZ2DCZCZ")
            w.ask(query("begin"), query("prepare r2 as select 2"), query("rollback"), n=3)
            self.assertEqual(kinds(w.ask(query("execute r2"))), "TDCZ")

    def test_execute_behind_a_prepare_in_one_write_is_judged_by_what_was_prepared(self):
        n = self.number()
        w = self.session()
        answers = w.ask(query("prepare early as select 41 + 1"), query("execute early"), n=2)
        self.assertIn(b"42", dict(answers)["D"])
        w.send(query("prepare late as update orders set amount = 1 where id = 50"), query("execute late /* %d */" % n))
        self.gw.deny(self.held("execute late /* %d */" % n)["id"], "no")
        self.assertEqual(error_of(w.until_ready(2))["C"], "42501")

    def update_statement(self, amount):
        return "update orders set amount = %d where id = 50" % amount

    def amount(self):
        return self.sql("select amount from orders where id = 50")[0][0]

    def test_executing_a_prepared_write_is_held_with_its_text_on_the_card(self):
        n, before = self.number(), self.amount()
        w = self.session()
        w.ask(query("prepare u%d(int) as update orders set amount = $1 where id = 50" % n))
        w.send(query("execute u%d(%d)" % (n, n)))
        r = self.held("execute u%d" % n)
        card = self.gw.json("show", r["id"], who="bob")
        self.assertIn("update orders set amount = $1", str(card["settings"]))
        self.assertEqual(self.amount(), before)
        self.gw.approve(r["id"])
        self.assertEqual(tags(w.until_ready()), ["UPDATE 1"])
        self.assertEqual(self.amount(), n)

    def test_binding_a_prepared_write_by_protocol_is_held(self):
        n = self.number()
        w = self.session()
        w.ask(query("prepare ub%d(int) as update orders set amount = $1 where id = 50" % n))
        w.send(bind([str(n)], "ub%d" % n), execute(), SYNC)
        r = harness.wait_until("a request", lambda: next((r for r in self.gw.pending() if self.mine(r, str(n))), None))
        self.gw.deny(r["id"], "no")
        self.assertEqual(error_of(w.until_ready())["C"], "42501")

    def mine(self, r, value):
        return value in str(self.gw.json("show", r["id"], who="bob"))

    def test_names_follow_what_the_server_did(self):
        n = self.number()
        for forget in ("deallocate x", "deallocate all", "discard all"):
            with self.subTest(forget):
                w = self.session()
                w.ask(query("prepare x as select 1"), query(forget), query("prepare x as " + self.update_statement(n)), n=3)
                w.send(query("execute x /* %s %d */" % (forget, n)))
                r = self.held("/* %s %d */" % (forget, n))
                self.gw.deny(r["id"], "no")
                self.assertEqual(error_of(w.until_ready())["C"], "42501")
        # A failed second PREPARE changes nothing, neither there nor here.
        w = self.session()
        got = w.ask(query("prepare y as " + self.update_statement(n)), query("prepare y as select 1"), n=2)
        self.assertEqual(error_of(got)["C"], "42P05")
        w.send(query("execute y /* %d */" % n))
        self.gw.deny(self.held("execute y /* %d */" % n)["id"], "no")
        self.assertEqual(error_of(w.until_ready())["C"], "42501")
        # Nor does a DEALLOCATE that is skipped behind an error.
        w = self.session()
        w.ask(query("prepare z as " + self.update_statement(n)), parse("select 1/0"), bind(), execute(), parse("deallocate z"), bind(), execute(), SYNC, n=2)
        w.send(query("execute z /* %d */" % n))
        self.gw.deny(self.held("execute z /* %d */" % n)["id"], "no")
        self.assertEqual(error_of(w.until_ready())["C"], "42501")

    # ---- held ----

    def test_held_bind_runs_with_its_parameters_after_approval(self):
        n = self.number()
        w = self.session()
        w.send(parse("update orders set amount = $1 where id = $2 and item <> $3 /* %d */" % n, "", (23, 23, 25)),
               bind([struct.pack("!i", n), "50", None], formats=(1, 0, 0)), describe(), execute(), SYNC)
        r = self.held("/* %d */" % n)
        card = self.gw.json("show", r["id"], who="bob")
        self.assertEqual([p["null"] for p in card["params"]], [False, False, True])
        self.assertEqual(card["params"][1]["text"], "50")
        self.assertIn(str(n), card["params"][0]["text"] + card["text"])
        before = self.amount()
        self.assertNotEqual(before, n)
        self.gw.approve(r["id"])
        got = w.until_ready()
        self.assertEqual(kinds(got), "12nCZ")
        self.assertEqual(tags(got), ["UPDATE 0"], "item <> NULL is not true")
        w.send(parse("update orders set amount = $1 where id = $2"), bind([str(n), "50"]), execute(), SYNC)
        r = harness.wait_until("a request", lambda: next((r for r in self.gw.pending() if self.mine(r, str(n))), None))
        self.gw.approve(r["id"])
        self.assertEqual(tags(w.until_ready()), ["UPDATE 1"])
        self.assertEqual(self.amount(), n)

    def test_held_bind_denied_gives_words_and_the_session_goes_on(self):
        n = self.number()
        w = self.session()
        w.send(parse(self.update_statement(n)), bind(), execute(), SYNC, query("select 'next'"))
        self.gw.deny(self.held(self.update_statement(n))["id"], "not on a Sunday")
        got = w.until_ready(2)
        self.assertEqual(kinds(got), "1EZTDCZ")
        self.assertIn("not on a Sunday", str(error_of(got)))
        self.alive(w)

    def test_what_stands_before_a_held_bind_is_settled_first(self):
        n = self.number()
        w = self.session()
        w.send(parse("insert into scratchpad values (%d)" % n), bind(), execute(), parse(self.update_statement(n)), bind(), execute(), SYNC)
        kind, got = "", []
        while kind != "C":
            kind, body = w.read()
            got.append((kind, body))
        self.assertEqual(tags(got), ["INSERT 0 1"])
        r = self.held(self.update_statement(n))
        self.assertEqual(self.scratch_rows(n), 0, "the group is one transaction and still open")
        card = self.gw.json("show", r["id"], who="bob")
        self.assertTrue(card["in_transaction"])
        self.assertIn("insert into scratchpad", str(card["tx"]))
        self.gw.approve(r["id"])
        got = w.until_ready()
        self.assertEqual((tags(got), states(got)), (["UPDATE 1"], "I"))
        self.assertEqual((self.scratch_rows(n), self.amount()), (1, n))

    def test_a_held_bind_behind_an_error_is_skipped_and_nobody_is_asked(self):
        n = self.number()
        w = self.session()
        got = w.ask(parse("select 1/0"), bind(), execute(), parse(self.update_statement(n)), bind(), execute(), SYNC)
        self.assertEqual((kinds(got), error_of(got)["C"]), ("1EZ", "22012"))
        self.assertFalse([r for r in self.gw.pending() if self.update_statement(n) in r["text"]])
        self.alive(w)

    def test_elevated_by_extended_protocol(self):
        for shape in ("at once", "prepared first", "named", "described in the group"):
            with self.subTest(shape):
                t = self.table()
                sql = "delete from %s where id > $1" % t
                w = self.session()
                name = "d" if shape == "named" else ""
                if shape == "at once":
                    w.send(parse(sql), bind(["3"]), describe(), execute(), SYNC)
                elif shape == "described in the group":
                    w.send(parse(sql), describe("S"), bind(["3"]), execute(), SYNC)
                else:
                    self.assertEqual(kinds(w.ask(parse(sql, name), describe("S", name), SYNC)), "1tnZ")
                    w.send(bind(["3"], name, "p" if name else ""), execute("p" if name else ""), SYNC)
                r = self.held(sql)
                self.assertEqual((self.gw.json("show", r["id"], who="bob")["elevated"]), True)
                self.gw.approve(r["id"])
                got = w.until_ready()
                self.assertEqual(kinds(got), {"at once": "12nCZ", "described in the group": "1tn2CZ"}.get(shape, "2CZ"))
                self.assertEqual((tags(got), states(got)), (["DELETE 7"], "I"))
                self.assertEqual(self.sql("select count(*) from " + t)[0][0], 3)
                got = w.ask(query("select current_user"))
                self.assertIn(self.roles["user"].encode(), got[1][1], "the session is the everyday one again")
                self.gw.wait_state(r["id"], "done")

    def test_an_elevated_statement_that_fails_says_so_and_the_session_goes_on(self):
        t = self.table()
        w = self.session()
        w.send(query("drop table %s, no_such_table_at_all" % t))
        r = self.held("drop table %s," % t)
        self.gw.approve(r["id"])
        got = w.until_ready()
        self.assertEqual((kinds(got), error_of(got)["C"], states(got)), ("EZ", "42P01", "I"))
        self.alive(w)
        self.assertEqual(self.gw.wait_state(r["id"], "done")["state"], "done")

    def test_an_elevated_statement_runs_alone_in_its_group(self):
        n, t = self.number(), self.table()
        w = self.session()
        got = w.ask(parse("insert into scratchpad values (%d)" % n), bind(), execute(), parse("drop table " + t), bind(), execute(), SYNC)
        self.assertEqual((tags(got), states(got)), (["INSERT 0 1"], "I"))
        self.assertIn("outside the transaction", str(error_of(got)))
        self.assertEqual((self.scratch_rows(n), self.exists(t)), (0, True))
        self.alive(w)
        w.send(parse("drop table " + t), bind(), execute(), parse("select 1"), bind(), execute(), SYNC)
        self.gw.approve(self.held("drop table " + t)["id"])
        got = w.until_ready()
        self.assertEqual((tags(got), kinds(got)[-2:]), (["DROP TABLE"], "EZ"))
        self.assertIn("alone", error_of(got)["M"])
        self.alive(w)

    def test_the_wait_is_told_by_notices_and_the_notifications_still_come(self):
        n = self.number()
        w = self.session()
        w.ask(query("listen during_hold"))
        w.send(query(self.update_statement(n)))
        kind, body = w.read()
        self.assertEqual((kind, error_fields(body)["S"]), ("N", "WARNING"))
        self.assertIn("COUNTERSIGN held id=", error_fields(body)["M"])
        r = self.held(self.update_statement(n))
        self.sql("notify during_hold, 'still here'")
        kind, body = w.read()
        while kind == "N":
            kind, body = w.read()
        self.assertEqual((kind, body[4:]), ("A", b"during_hold\0still here\0"))
        cancel(self.gw.port, w.key, self.gw.ca)
        self.assertEqual(error_of(w.until_ready())["C"], "57014")
        self.gw.wait_state(r["id"], "cancelled")
        self.alive(w)

    def test_a_long_text_meets_a_rule_that_denies_what_cannot_be_established(self):
        w = self.session()
        got = w.ask(query("select '%s' %s" % ("q" * 900000, UNREADABLE)))
        self.assertEqual((kinds(got), error_of(got)["C"]), ("EZ", "42501"))
        got = w.ask(query("selec"), parse("selec"), bind(), execute(), SYNC, n=2)
        self.assertEqual(kinds(got), "EZEZ")
        self.alive(w)

    def test_settings_that_are_pinned_do_not_pass(self):
        w = self.session()
        n = self.number()
        for sql in ("set client_encoding to 'SJIS'", "set standard_conforming_strings to off", "set role boss", "set session authorization boss",
                    "set search_path to evil", "select set_config('search_path', 'evil', false)", "reset role; set role boss"):
            w.send(query("%s /* %d */" % (sql, n)))
            r = self.held("%s /* %d */" % (sql, n))
            self.gw.deny(r["id"], "no")
            self.assertEqual(error_of(w.until_ready())["C"], "42501", sql)
        self.alive(w)


class TwoGates(ProtocolCase):
    """Any gate takes a cancel request to the one that has the session. And without rules that deny: what
    the parser cannot see is held."""
    GATEWAY = {"gates": 2}
    RULES = PROTOCOL_RULES[:PROTOCOL_RULES.index("  - name: never-truncate")]

    def test_a_long_text_that_nobody_can_read_waits_for_somebody(self):
        n, long = self.number(), LARGEST - 40 - len(UNREADABLE)
        text = "select %d, '%s' %s" % (n, "q" * long, UNREADABLE)
        w = self.session()
        w.send(query(text))
        r = harness.wait_until("a request", lambda: next((r for r in self.gw.pending() if r["rule"] == "change"), None))
        card = self.gw.json("show", r["id"], who="bob")
        self.assertEqual(card["text"], text, "nothing is cut silently")
        self.gw.approve(r["id"])
        got = w.until_ready()
        self.assertEqual(kinds(got), "TDCZ", error_of(got))
        self.assertEqual(len(got[1][1]), 2 + 4 + len(str(n)) + 4 + long)
        self.alive(w)

    def test_a_statement_is_held_up_to_the_limit_with_its_parameters(self):
        """Text and parameters together: one byte more than the limit is denied, and says what to do."""
        n = self.number()
        w = self.session()
        text = "select %d, length($1), '%s' %s" % (n, "q" * (LARGEST // 2), UNREADABLE)
        room = LARGEST - len(text)
        got = w.ask(parse(text), bind(["p" * (room + 1)]), execute(), SYNC)
        self.assertEqual((kinds(got)[-2:], error_of(got)["C"]), ("EZ", "54000"), got[0][1][:200])
        self.assertIn("larger than what can be held", error_of(got)["M"])
        self.assertIn("smaller statements", error_of(got)["H"])
        self.assertEqual(self.gw.pending(), [], "nobody is asked")
        w.send(parse(text), bind(["p" * room]), execute(), SYNC)
        r = harness.wait_until("a request", lambda: next((r for r in self.gw.pending() if r["rule"] == "change"), None))
        card = self.gw.json("show", r["id"], who="bob")
        self.assertEqual((card["text"], card["params"][0]["text"]), (text, "p" * room), "nothing is cut silently")
        self.gw.approve(r["id"])
        got = w.until_ready()
        self.assertEqual(kinds(got), "12DCZ", error_of(got))
        self.assertIn(str(room).encode(), got[2][1][:40])
        self.alive(w)

    def test_what_cannot_be_recorded_is_denied_by_its_size(self):
        w = self.session()
        text = "select length($1), '%s' %s" % ("q" * 700000, UNREADABLE)
        got = w.ask(parse(text), bind(["p" * 700000]), execute(), SYNC)
        self.assertEqual((kinds(got)[-2:], error_of(got)["C"]), ("EZ", "54000"))
        self.assertIn("smaller statements", error_of(got)["H"])
        self.alive(w)

    def test_cancel_reaches_a_session_of_another_gate(self):
        sessions = {}

        def come():  # an idle machine gives every connection to the same gate: come in crowds
            while len(sessions) < 2:
                w = self.wire()
                if sessions.setdefault(w.gate, w) is not w:
                    w.close()
        crowd = [threading.Thread(target=come) for _ in range(6)]
        for t in crowd:
            t.start()
        for t in crowd:
            t.join(harness.PATIENCE)
        for w in sessions.values():
            self.addCleanup(w.close)
        self.assertEqual(sorted(sessions), [0, 1])
        for gate, w in sessions.items():
            for turn in range(6):  # the cancel connection lands on either gate
                sql = LONG + " /* gate %d turn %d */" % (gate, turn)
                w.send(query(sql))
                harness.wait_until("the query to run", lambda: self.sql(
                    "select 1 from pg_stat_activity where state = 'active' and query = '%s'" % sql))
                cancel(self.gw.port, w.key, self.gw.ca)
                got = w.until_ready()
                self.assertEqual((kinds(got)[-2:], error_of(got)["C"]), ("EZ", "57014"))

    def test_cancel_of_a_hold_reaches_another_gate(self):
        for turn in range(4):
            w = self.session()
            sql = "update orders set amount = %d where id = 51" % turn
            w.send(query(sql))
            r = self.held(sql)
            cancel(self.gw.port, w.key, self.gw.ca)
            self.assertEqual(error_of(w.until_ready())["C"], "57014")
            self.gw.wait_state(r["id"], "cancelled")


class Plain(ProtocolCase):
    """A listener with `tls: off`."""
    GATEWAY = {"tls": False}

    def test_tls_is_declined_and_plain_works(self):
        w = Wire(self.gw.port, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        w.send(pgwire.SSL_REQUEST)
        self.assertEqual(w.sock.recv(1), b"N")
        w.login("bot", self.gw.tokens["bot"], self.name)
        self.alive(w)

    def test_channel_binding_that_was_not_offered_is_refused(self):
        for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"):
            w = Wire(self.gw.port, timeout=harness.PATIENCE)
            self.addCleanup(w.close)
            w.startup("bot", self.name)
            self.assertEqual(w.read()[1], struct.pack("!I", 10) + b"SCRAM-SHA-256\0\0")
            first = b"p=tls-server-end-point,,n=,r=abcdefgh"
            w.send(message("p", cstr(mechanism) + struct.pack("!I", len(first)) + first))
            kind, body = w.read()
            self.assertEqual(kind, "E", body)
            self.assertIn(error_fields(body)["C"], ("08P01", "28P01"))
            self.assertTrue(w.closed())

    def test_direct_tls_closes(self):
        w = Wire(self.gw.port, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        w.send(b"\x16\x03\x01\0\x05hello")
        self.assertTrue(w.closed())

    def test_bytes_behind_a_declined_request_close(self):
        w = Wire(self.gw.port, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        w.send(pgwire.SSL_REQUEST + raw_startup("user", "bot", "database", self.name))
        self.assertTrue(w.closed())


def parts_ready(parts):
    """How many ReadyForQuery these messages get, errors or not."""
    data, n = b"".join(parts), 0
    while data:
        kind, length = data[:1], struct.unpack("!I", data[1:5])[0] + 1
        n += kind in (b"Q", b"S", b"F")
        data = data[length:]
    return n


if __name__ == "__main__":
    unittest.main()
