"""Texts that are too long to be parsed in a gate's loop. One over 64 KiB has a job of its own, which may be killed over
it; shorter ones that take longer than a moment go to the gate's own parser, one after another. What hides behind length
must be found, what takes too long must be held, a job that was taken over can lie about one text and reach nothing else,
and a gate's own parser about that gate's texts; without it they are parsed all the same."""
import contextlib
import os
import re
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness  # noqa: E402
from base import GatewayCase  # noqa: E402
from pgwire import SYNC, bind, error_of, execute, kinds, parse, query  # noqa: E402

LONG = 65537
TOO_LONG = "select 1" + " union select 1" * 69000  # few statements take more time for their length
PROGRAMS = os.path.join(harness.BUILD, "src", "programs")


def bulk(table, size=1000000):
    rows, n, i = [], 0, 0
    while n < size:
        rows.append("(%d,'row %d %s')" % (i, i, "x" * 60))
        n += len(rows[-1]) + 1
        i += 1
    return "insert into %s (id, note) values %s" % (table, ",".join(rows)), i


def children(parent):
    """Pid and command line of each."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid) as f:
                if int(f.read().rsplit(") ", 1)[1].split()[1]) != parent:
                    continue
            with open("/proc/%s/cmdline" % pid) as f:
                found.append((int(pid), f.read()))
        except (OSError, IndexError):
            continue
    return found


class LongCase(GatewayCase):
    # never-truncate asks for the verb, and so denies what nobody can read
    RULES = harness.RULES.split("  - name: never-truncate")[0].replace('w == "scratchpad"', 'w == "bulk" || w == "scratchpad"')

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        c = cls.pg.connect(cls.name, cls.roles["owner"], cls.roles["owner_password"])
        with c.cursor() as cur:
            cur.execute("create table bulk (id int, note text); grant select, insert on bulk to " + cls.roles["user"])
        c.close()

    def setUp(self):
        self.t = self.table()
        self.addCleanup(self.deny_all)

    def deny_all(self):
        for r in self.gw.pending():
            self.gw.deny(r["id"], "the test is over")

    def session(self, **more):
        w = self.wire(**more)
        w.sock.settimeout(max(harness.PATIENCE, 20))
        self.addCleanup(w.close)
        return w

    def asks(self, *parts, w=None):
        """Sends what must be held; the card."""
        w = w or self.session()
        before = {r["id"] for r in self.gw.pending()}
        w.send(*parts)
        request = harness.wait_until("a request", lambda: next((r["id"] for r in self.gw.pending() if r["id"] not in before), None))
        return self.gw.json("show", request, who="bob")

    def opaque(self, *parts, w=None):
        facts = self.asks(*parts, w=w)["facts"]
        self.assertEqual(facts["sql.effects"], ["opaque"])
        self.assertNotIn("sql.verb", {k for k, v in facts.items() if v not in (None, "unknown", {"unknown": True})})

    def jobs(self):
        """Pids of the gateway's parser jobs for one text each."""
        return [pid for pid, line in children(self.gw.process.pid) if "job-parser" in line and "\0gate/" not in line]

    def own(self):
        """Pids of the gate's own parser: one, but for moments."""
        return [pid for pid, line in children(self.gw.process.pid) if "job-parser" in line and "\0gate/" in line]

    def insert_passes(self, w=None):
        """A long text that a rule allows for what it writes: so it was parsed."""
        w = w or self.session()
        text, n = bulk("bulk", 70000)
        w.sock.settimeout(8)
        try:
            got = w.ask(query(text))
        except TimeoutError:
            raise AssertionError(self.gw.log_text()[-3000:])
        self.assertEqual(kinds(got), "CZ", got[:2])
        self.assertEqual(got[0][1], b"INSERT 0 %d\0" % n)


class LongTexts(LongCase):
    def test_a_bulk_insert_of_a_megabyte_passes_where_its_table_is_allowed(self):
        text, n = bulk("bulk")
        c = self.gw.connect("bot", self.name)
        c.autocommit = True
        with c.cursor() as cur:
            cur.execute("select count(*) from bulk")
            before = cur.fetchone()[0]
            cur.execute(text)
            cur.execute("select count(*) from bulk")
            self.assertEqual(cur.fetchone()[0] - before, n)
        c.close()

    def test_the_facts_of_a_long_text_are_those_of_a_short_one(self):
        text, n = bulk(self.t)
        sql = "update %s set note = '%s' where id in (select id from orders)" % (self.t, "x" * 900000)
        facts = self.asks(query(sql))["facts"]
        self.assertEqual((facts["sql.verb"], facts["sql.effects"], facts["sql.writes"], facts["sql.reads"], facts["sql.statements"]),
                         ("UPDATE", ["read", "write"], [self.t], ["orders"], 1))
        w = self.session()
        e = error_of(w.ask(query(text)))
        self.assertEqual(e["C"], "42501", "an INSERT into a table that no rule names")
        self.assertEqual(self.sql("select count(*) from " + self.t)[0][0], 10)

    def test_what_hides_behind_length_is_found(self):
        hidden = {
            "a comment": "/*" + "x" * LONG + "*/ drop table " + self.t,
            "a comment behind": "drop table %s /*%s*/" % (self.t, "x" * LONG),
            "a line of comment": "--" + "x" * LONG + "\ndrop table " + self.t,
            "space": " " * LONG + "drop table " + self.t,
            "a constant": "select '" + "x" * LONG + "'; drop table " + self.t,
            "rows": "values (1)" + ",(1)" * 20000 + "; drop table " + self.t,
            "a dollar quote": "select $a$" + "';" * LONG + "$a$; drop table " + self.t,
            "many statements": "select 1;" * 20000 + "drop table " + self.t,
        }
        for name, sql in hidden.items():
            with self.subTest(name):
                self.assertGreater(len(sql), LONG - 1)
                facts = self.asks(query(sql))["facts"]
                self.assertTrue({"ddl", "opaque"} & set(facts["sql.effects"]), facts["sql.effects"])
                self.deny_all()
                if name in ("a comment", "a comment behind", "a line of comment", "space"):
                    facts = self.asks(parse(sql), bind(), execute(), SYNC)["facts"]
                    self.assertEqual((facts["sql.verb"], facts["sql.effects"], facts["sql.writes"]), ("DROP TABLE", ["ddl"], [self.t]))
                    self.deny_all()
                self.assertTrue(self.exists(self.t))

    def test_a_long_text_runs_when_it_is_approved(self):
        w = self.session()
        card = self.asks(query("/*" + "x" * LONG + "*/ drop table " + self.t), w=w)
        self.assertEqual(card["facts"]["sql.verb"], "DROP TABLE")
        self.gw.approve(card["id"])
        self.assertEqual(kinds(w.until_ready()), "CZ")
        self.assertFalse(self.exists(self.t))

    def test_a_password_in_a_long_text_is_not_told(self):
        card = self.asks(query("alter role %s password 'planted-%s' /*%s*/" % (self.roles["user"], self.t, "x" * LONG)))
        self.assertNotIn("planted-" + self.t, str(card))
        self.assertIn("hmac-sha256:", str(card))
        self.assertEqual(card["facts"]["sql.verb"], "ALTER ROLE")

    def test_nesting_ends_no_gate(self):
        gates = self.gw.pids("gate")
        for name, sql in {
            "parentheses": "select " + "(" * 400000 + "1" + ")" * 400000,
            "sub-selects": "select (" * 100000 + "1" + ")" * 100000,
            "arrays": "select array" + "[" * 400000 + "1" + "]" * 400000,
            "not": "select " + "not " * 200000 + "true",
            "signs": "select " + "- " * 400000 + "1",
            "unions": "select 1" + " union select 1" * 60000,
            "case": "select " + "case when " * 70000 + "true",
        }.items():
            with self.subTest(name):
                self.opaque(query(sql))
                self.deny_all()
        self.assertEqual(self.gw.pids("gate"), gates)
        self.insert_passes()

    def test_a_text_that_takes_too_long_is_held_and_the_next_is_read(self):
        if harness.sanitized():
            return  # it has more time there
        at = len(self.gw.log_text())
        other = self.session()
        self.opaque(query(TOO_LONG))
        self.assertRegex(self.gw.log_text()[at:], r"role-died job=job-parser why=.signal 9")
        self.insert_passes()
        self.assertEqual(kinds(other.ask(query("select 1"))), "TDCZ")

    def test_a_job_that_is_killed_is_replaced(self):
        self.insert_passes()
        spare = harness.wait_until("a job that waits", self.jobs)
        for pid in spare:
            os.kill(pid, signal.SIGKILL)
        harness.wait_until("their end", lambda: not set(spare) & set(self.jobs()))
        self.insert_passes()

    def test_while_a_job_hangs_the_text_is_opaque_and_others_go_on(self):
        self.insert_passes()
        spare = harness.wait_until("a job that waits", self.jobs)
        harness.wait_until("it to wait", lambda: all("S" in open("/proc/%d/stat" % p).read().split(") ")[1][:1] for p in self.jobs()))
        for pid in spare:
            os.kill(pid, signal.SIGSTOP)
        w, other = self.session(), self.session()
        text, _ = bulk("bulk", 70000)
        began = time.monotonic()
        w.send(query(text))
        turns = 0
        while time.monotonic() - began < 1.5:
            self.assertEqual(kinds(other.ask(query("select 1"))), "TDCZ")
            turns += 1
        self.assertGreater(turns, 20, "the gate did not wait with it")
        request = self.gw.wait_pending()[0]["id"]
        self.assertEqual(self.gw.json("show", request, who="bob")["facts"]["sql.effects"], ["opaque"])
        harness.wait_until("the end of those that hang", lambda: not set(spare) & set(self.jobs()))
        self.insert_passes()

    def test_walls_of_a_job(self):
        if harness.sanitized():
            return
        self.insert_passes()
        pid = harness.wait_until("a job that waits", self.jobs)[0]

        def walled():
            with open("/proc/%d/status" % pid) as f:
                return re.search(r"Seccomp:\t2\n", f.read())
        harness.wait_until("its filter", walled)
        with open("/proc/%d/status" % pid) as f:
            self.assertRegex(f.read(), r"NoNewPrivs:\t1\n")
        self.assertEqual(sorted(os.listdir("/proc/%d/fd" % pid)), ["0", "1", "2", "3"])


def busy(n):
    """A text that reads, of so many tokens twice."""
    return "select 1 where 1 in (1" + ",1" * n + ")"


def medium(table, n=3000):
    """A DROP behind so many bytes that are more than a moment's work."""
    return "select 1;" * (n // 9) + "drop table " + table


class OwnParser(LongCase):
    def asked(self):
        """Texts that the gate's own parser has answered so far, as the kernel counts its sleeps."""
        total = 0
        for pid in self.own():
            with contextlib.suppress(OSError), open("/proc/%d/status" % pid) as f:  # it may end meanwhile
                total += int(re.search(r"\nvoluntary_ctxt_switches:\t(\d+)", f.read()).group(1))
        return total

    def is_asked(self, w=None):
        """The parser is there and gets what is neither short nor quick."""
        w = w or self.session()

        def woken():
            before = self.asked()
            self.assertEqual(kinds(w.ask(query(busy(1500)))), "TDCZ")
            return before > 0 and self.asked() > before
        harness.wait_until("the gate's own parser to be asked", woken)
        return w

    def test_it_says_what_the_gate_would_say(self):
        w = self.is_asked()
        for sql, verb, effects in (("/*%s*/ drop table %s" % ("x" * 3000, self.t), "DROP TABLE", ["ddl"]),
                                   ("update %s set note = '%s'" % (self.t, "x" * 60000), "UPDATE", ["write"]),
                                   (medium(self.t), "SELECT", ["read", "ddl"]),
                                   (medium(self.t, 65000), "SELECT", ["read", "ddl"])):
            with self.subTest(sql[:20]):
                facts = self.asks(query(sql))["facts"]
                self.assertEqual((facts["sql.verb"], facts["sql.effects"]), (verb, effects))
                self.deny_all()
        self.assertEqual(kinds(w.ask(query("insert into bulk values (1, '%s')" % ("x" * 5000)))), "CZ")
        e = error_of(w.ask(query("insert into %s values (1, '%s')" % (self.t, "x" * 5000))))
        self.assertEqual(e["C"], "42501")

    def test_a_password_in_a_text_of_3_kb_is_not_told(self):
        self.is_asked()
        card = self.asks(query("alter role %s password 'planted-%s' /*%s*/" % (self.roles["user"], self.t, "x" * 3000)))
        self.assertNotIn("planted-" + self.t, str(card))
        self.assertIn("hmac-sha256:", str(card))

    def test_a_prepared_statement_and_a_text_that_came_before_do_not_ask_it_again(self):
        w = self.is_asked()
        long, short = busy(2000), busy(300)
        self.assertLess(len(short), 2048)
        self.assertEqual(kinds(w.ask(parse(long, name="kept"), SYNC)), "1Z")
        for _ in range(2):
            w.ask(query(short))
        before = self.asked()
        for _ in range(20):
            self.assertEqual(kinds(w.ask(bind(statement="kept"), execute(), SYNC)), "2DCZ")
            self.assertEqual(kinds(w.ask(query(short))), "TDCZ")
        self.assertLess(self.asked() - before, 10)

    def test_texts_of_many_sessions_each_get_their_own_answer_in_their_order(self):
        """Pipelined, reading and writing ones mixed: what comes behind a text waits for it, and nobody gets another's verdict."""
        self.is_asked()
        many = [self.session() for _ in range(8)]
        good = [query(busy(400 + 300 * i)) for i in range(8)]
        bad = [query("insert into %s values (%d, '%s')" % (self.t, i, "x" * (3000 + 999 * i))) for i in range(8)]
        for _ in range(5):
            for i, w in enumerate(many):
                w.send(*([good[i], bad[i], query("select 'short'"), good[i]] if i % 2 else [bad[i], good[i], query("select 'short'"), bad[i]]))
            for i, w in enumerate(many):
                for expected in ("TDCZ", "EZ", "TDCZ", "TDCZ") if i % 2 else ("EZ", "TDCZ", "TDCZ", "EZ"):
                    got = w.until_ready()
                    self.assertEqual(kinds(got), expected)
                    if expected == "EZ":
                        self.assertEqual(error_of(got)["C"], "42501")
        self.assertEqual(self.sql("select count(*) from " + self.t)[0][0], 10)

    def test_killed_it_is_replaced_and_nothing_is_opaque_meanwhile(self):
        w = self.is_asked()
        for _ in range(3):
            old = self.own()
            for pid in old:
                os.kill(pid, signal.SIGKILL)
            for i in range(30):
                self.assertEqual(kinds(w.ask(query("insert into bulk values (%d, '%s')" % (i, "x" * 3000)))), "CZ")
            harness.wait_until("another one", lambda: self.own() and not set(old) & set(self.own()))
        self.is_asked()
        facts = self.asks(query(medium(self.t)))["facts"]
        self.assertEqual(facts["sql.effects"], ["read", "ddl"])

    def test_while_it_hangs_others_go_on_and_its_text_is_parsed_elsewhere(self):
        w = self.is_asked()
        old = self.own()
        other = self.session()
        for pid in old:
            os.kill(pid, signal.SIGSTOP)
        w.send(query("insert into bulk values (1, '%s')" % ("x" * 5000)))
        for _ in range(20):
            self.assertEqual(kinds(other.ask(query("select 1"))), "TDCZ")
        self.assertEqual(kinds(w.until_ready()), "CZ")
        harness.wait_until("another one", lambda: self.own() and not set(old) & set(self.own()))
        self.is_asked()

    def test_a_session_that_ends_while_its_text_is_there_leaves_no_answer_to_another(self):
        """Its answer comes when somebody else waits, and is nobody's."""
        w = self.is_asked()
        for i in range(10):
            gone = self.session()
            gone.send(query(medium(self.t, 60000)))
            gone.close()
            self.assertEqual(kinds(w.ask(query("insert into bulk values (%d, '%s')" % (i, "x" * 3000)))), "CZ")
        self.deny_all()
        self.is_asked(w)

    def test_a_session_that_is_killed_while_its_text_is_there_ends_and_nothing_of_it_runs(self):
        def in_time():
            w = self.is_asked()
            ids = [s["id"] for s in self.gw.json("sessions")["sessions"]]
            note = "killed-%d" % time.monotonic_ns()
            for pid in self.own():
                os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            w.send(query("insert into bulk values (1, '%s')" % (note + "x" * 3000)))
            for i in ids:
                self.assertEqual(self.gw.api("POST", "/v1/sessions/%s/kill" % i, {"reason": "enough"})[0], 200)
            took = time.monotonic() - began
            self.assertTrue(w.closed())
            ran = self.sql("select count(*) from bulk where note like '%s%%'" % note)[0][0]
            # later than that the text may have been parsed elsewhere before the order came
            return took < 0.2 and ran == 0
        harness.wait_until("an order in time", in_time)
        self.is_asked()

    def test_it_ends_with_its_gate(self):
        self.is_asked()
        old = self.own()
        for pid in self.gw.pids("gate"):
            os.kill(pid, signal.SIGKILL)
        harness.wait_until("the next gate's", lambda: self.own() and not set(old) & set(self.own()))
        self.is_asked()

    def test_its_walls(self):
        if harness.sanitized():
            return
        self.is_asked()
        (pid,) = self.own()
        with open("/proc/%d/status" % pid) as f:
            self.assertRegex(f.read(), r"NoNewPrivs:\t1\nSeccomp:\t2\n")
        self.assertEqual(sorted(os.listdir("/proc/%d/fd" % pid)), ["0", "1", "2", "3"])


# What a job that was taken over may say: written in place of the program, so that it lies from its first word.
HOSTILE = r'''#!/usr/bin/python3
import array, fcntl, os, socket, struct, sys, time
MODE = %(mode)r
OWN = len(sys.argv) > 1
if MODE == "real" or (OWN and not %(own)r) or (%(own)r and not OWN):
    os.execv(%(real)r, ["job-parser"] + sys.argv[1:])
s = socket.socket(fileno=3)
s.setblocking(True)  # or it dies instead of lying when it is faster than the text
ASKS, OK = b"\xff" * 8, b"\0" * 8
def memfd(data, seal=True):
    fd = os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    if seal:
        fcntl.fcntl(fd, 1033, 15)
    return fd
def say(word, *fds):
    s.sendmsg([word], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
def u32(*v):
    return struct.pack("<%%dI" %% len(v), *v)
def s_(b):
    return u32(len(b)) + b
def record(n, effects=2, flags=1, statements=1, kept=None, st_effects=None, kind=0, offset=0, length=0, verb=b"SELECT", name=b"", reads=(), secrets=()):
    kept = statements if kept is None else kept
    st = bytes([kind, effects if st_effects is None else st_effects, 0, 0]) + u32(0, offset, length) + s_(name) + s_(verb)
    names = u32(len(reads)) + b"".join(map(s_, reads))
    return (u32(0x31525043, n) + bytes([flags, effects]) + bytes(32) + u32(statements, kept) + st * kept + names + u32(0) * 3 +
            u32(len(secrets)) + b"".join(u32(a, b) + bytes([h]) for a, b, h in secrets) + bytes(8))
def rotl(x, b):
    return (x << b | x >> 64 - b) & M64
M64 = 2 ** 64 - 1
def sip(k0, k1, data):
    v = [k0 ^ 0x736f6d6570736575, k1 ^ 0x646f72616e646f6d, k0 ^ 0x6c7967656e657261, k1 ^ 0x7465646279746573]
    def rounds(n):
        for _ in range(n):
            v[0] = (v[0] + v[1]) & M64; v[1] = rotl(v[1], 13) ^ v[0]; v[0] = rotl(v[0], 32)
            v[2] = (v[2] + v[3]) & M64; v[3] = rotl(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & M64; v[3] = rotl(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & M64; v[1] = rotl(v[1], 17) ^ v[2]; v[2] = rotl(v[2], 32)
    padded = data + bytes(-(len(data) + 1) %% 8) + bytes([len(data) & 255])
    for (m,) in struct.iter_unpack("<Q", padded):
        v[3] ^= m
        rounds(2)
        v[0] ^= m
    v[2] ^= 255
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
def mark(id_, text):
    return sip(id_, 0x6b72616d2d786574, text)
def own():
    """As the gate's own parser: for each text, what MODE says, until the gate has enough of it."""
    if MODE == "own silent":
        time.sleep(60)
    if MODE == "own early":
        s.send(struct.pack("<QQ", 1, 0) + record(3000))
    s.send(bytes(16) if MODE != "own another first word" else bytes(17))
    last = None
    while True:
        data = s.recv(1 << 17)
        if not data:
            return
        (id_,), text = struct.unpack("<Q", data[:8]), data[8:]
        n = len(text)
        with open(%(log)r, "ab") as f:
            f.write(MODE.encode() + b"\n")
        right = struct.pack("<QQ", id_, mark(id_, text)) + record(n)
        truth = right[:16] + record(n, effects=10)
        if MODE == "own dies":
            os.kill(os.getpid(), 11)
        elif MODE == "own goes":
            return
        elif MODE == "own hangs":
            time.sleep(60)
        elif MODE == "own with a descriptor":
            s.sendmsg([right], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
        elif MODE == "own twice":
            s.send(truth)
            s.send(truth)
        else:
            s.send({
                "own a lie": lambda: right,
                "own another number": lambda: struct.pack("<QQ", id_ + 1, mark(id_ + 1, text)) + record(n),
                "own an earlier number": lambda: struct.pack("<QQ", id_ - 1, mark(id_ - 1, text)) + record(n),
                "own the first word again": lambda: bytes(16),
                "own another mark": lambda: struct.pack("<QQ", id_, mark(id_, text) ^ 1) + record(n),
                "own another text": lambda: struct.pack("<QQ", id_, mark(id_, text[:-1])) + record(n - 1),
                "own the answer before": lambda: last or truth,
                "own nothing": lambda: right[:16], "own no head": lambda: right[:15], "own short": lambda: right[:-1],
                "own longer": lambda: right + b"\0", "own noise": lambda: right[:16] + os.urandom(500),
                "own huge": lambda: right + bytes(160000),
                "own a kind that is none": lambda: right[:16] + record(n, kind=99),
                "own statements that are not there": lambda: right[:16] + record(n, statements=3, kept=1),
                "own harmless and unparsed": lambda: right[:16] + record(n, flags=0, statements=0),
                "own a flag beyond": lambda: right[:16] + record(n, flags=17),
            }[MODE]())
        last = truth
if OWN:
    own()
    sys.exit(0)
if MODE == "silent":
    time.sleep(60)
if MODE == "early":
    say(OK, memfd(record(70000)))
if MODE == "asks twice":
    say(ASKS)
say(ASKS)
data, anc, flags, _ = s.recvmsg(16, 64)
fd = struct.unpack("i", anc[0][2])[0]
n = os.fstat(fd).st_size
if MODE == "a lie":
    say(OK, memfd(record(n)))
elif MODE == "dies":
    os.kill(os.getpid(), 11)
elif MODE == "hangs":
    time.sleep(60)
elif MODE == "asks again":
    say(ASKS)
elif MODE == "no descriptor":
    say(OK)
elif MODE == "two descriptors":
    say(OK, memfd(record(n)), memfd(record(n)))
elif MODE == "a socket":
    say(OK, 3)
elif MODE == "a file":
    say(OK, os.open("/etc/passwd", os.O_RDONLY))
elif MODE == "the text":
    say(OK, fd)
elif MODE == "unsealed":
    say(OK, memfd(record(n), seal=False))
elif MODE == "an error with an answer":
    say(struct.pack("<Q", 5), memfd(record(n)))
elif MODE == "more words":
    say(OK + b"x", memfd(record(n)))
elif MODE == "a long message":
    say(OK * 4000, memfd(record(n)))
elif MODE == "huge":
    say(OK, memfd(record(n) + bytes(300000)))
else:
    say(OK, memfd({
        "nothing": lambda: b"", "noise": lambda: os.urandom(500), "another text": lambda: record(n + 1),
        "short": lambda: record(n)[:-1], "longer": lambda: record(n) + b"\0", "no effects": lambda: record(n, effects=0),
        "effects beyond": lambda: record(n, effects=64), "a flag beyond": lambda: record(n, flags=17),
        "less than its statements": lambda: record(n, effects=2, st_effects=8), "unparsed and harmless": lambda: record(n, flags=0, statements=0),
        "no statement and reading": lambda: record(n, statements=0), "statements that are not there": lambda: record(n, statements=3, kept=1),
        "as many as can be said": lambda: record(n, statements=2 ** 32 - 1, kept=64), "more kept than kept": lambda: record(n, statements=65, kept=65),
        "a kind that is none": lambda: record(n, kind=99), "outside": lambda: record(n, offset=n + 1), "past the end": lambda: record(n, offset=5, length=n),
        "a verb that is none": lambda: record(n, verb=b"sel\x1b[2Ject"), "a name with a NUL": lambda: record(n, reads=[b"a\0b"]),
        "a name twice": lambda: record(n, reads=[b"a", b"a"]), "too many names": lambda: record(n, reads=[b"t%%d" %% i for i in range(257)]),
        "a name without end": lambda: record(n, reads=[b"a" * 100000]), "a name that is not UTF-8": lambda: record(n, reads=[b"\xff"]),
        "secrets outside": lambda: record(n, secrets=[(n, 5, 1)]), "secrets that overlap": lambda: record(n, secrets=[(5, 5, 1), (7, 5, 1)]),
        "secrets of no kind": lambda: record(n, secrets=[(5, 5, 9)]), "opaque for nothing": lambda: record(n, effects=34),
    }[MODE]()))
if MODE == "twice":
    say(OK, memfd(record(n)))
'''
LIES = ["dies", "hangs", "silent", "early", "asks twice", "asks again", "no descriptor", "two descriptors", "a socket", "a file", "the text", "unsealed",
        "an error with an answer", "more words", "a long message", "huge", *[m for m in re.findall(r'"([^"]+)": lambda', HOSTILE) if not m.startswith("own ")]]
OWN_LIES = ["own dies", "own goes", "own hangs", "own with a descriptor", "own twice",
            *[m for m in re.findall(r'"([^"]+)": lambda', HOSTILE) if m.startswith("own ") and m != "own a lie"]]


class TakenOver(LongCase):
    @classmethod
    def setUpClass(cls):
        cls.libexec = harness.scratch("parser")
        for name in os.listdir(PROGRAMS):
            path = os.path.join(PROGRAMS, name)
            if os.path.isfile(path) and os.access(path, os.X_OK) and name not in ("countersign", "job-parser"):
                os.symlink(path, os.path.join(cls.libexec, name))
        cls.job("silent")
        cls.GATEWAY = {"env": {"COUNTERSIGN_LIBEXEC": cls.libexec}}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        for name in os.listdir(cls.libexec):
            os.unlink(os.path.join(cls.libexec, name))
        os.rmdir(cls.libexec)

    @classmethod
    def job(cls, mode):
        """The gate's own parser is what `mode` says, or that of one text, and the other of them the real one."""
        path = os.path.join(cls.libexec, "job-parser")
        with open(path + ".new", "w") as f:
            f.write(HOSTILE % {"mode": mode, "own": mode.startswith("own "), "real": os.path.join(PROGRAMS, "job-parser"),
                               "log": os.path.join(cls.libexec, "asked")})
        os.chmod(path + ".new", 0o755)
        os.rename(path + ".new", path)

    def replace_own(self):
        """Another one starts, as job() has said."""
        old = self.own()
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        harness.wait_until("another one", lambda: self.own() and not set(old) & set(self.own()))

    def times_asked(self, mode):
        path = os.path.join(self.libexec, "asked")
        if not os.path.exists(path):
            return 0
        with open(path) as f:
            return f.read().split("\n").count(mode)

    def no_jobs(self):
        """Spares of the last mode are gone."""
        def gone():
            mine = self.jobs()
            for pid in mine:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            return not mine
        harness.wait_until("no job to be there", gone)

    def lie_is_believed(self, drop):
        """A DROP that a parser calls a read reaches the server, which refuses it."""
        w = self.session(options="-c countersign.mode=async")

        def lied():
            e = error_of(w.ask(drop))
            self.deny_all()  # where the job was late the text is opaque, and waits for somebody
            return e if e["C"] != "CS001" else None
        e = harness.wait_until("the lie to be believed", lied)
        self.assertEqual(e["C"], "42501", "the server refuses it: the everyday role may not")
        self.assertIn("owner", e["M"])
        self.assertTrue(self.exists(self.t))

    def test_a_job_that_lies_reaches_one_text_and_nothing_else(self):
        """It can call a DROP a read: that is what a parser is for. No wall stands there, and the threat model says so."""
        self.job("a lie")
        self.no_jobs()
        self.lie_is_believed(query("/*" + "x" * LONG + "*/ drop table " + self.t))
        self.assertEqual(self.asks(query("drop table " + self.t))["facts"]["sql.verb"], "DROP TABLE")

    def test_a_gates_own_parser_that_lies_reaches_texts_of_that_gate_and_nothing_else(self):
        """It can call a DROP a read, whoever sent it, also when the text comes again: it stands where the gate's own parsing
        stood, and behind it the everyday role."""
        self.job("own a lie")
        self.replace_own()
        self.lie_is_believed(query(medium(self.t)))
        self.assertEqual(self.asks(query("drop table " + self.t))["facts"]["sql.verb"], "DROP TABLE")
        self.assertEqual(self.asks(query("/*" + "x" * LONG + "*/drop table " + self.t))["facts"]["sql.verb"], "DROP TABLE")

    def test_whatever_else_a_gates_own_parser_says_the_text_is_parsed_elsewhere(self):
        gates = self.gw.pids("gate")
        other = self.session()
        for mode in OWN_LIES:
            with self.subTest(mode):
                self.job(mode)
                self.no_jobs()
                self.replace_own()
                w = self.session(options="-c countersign.mode=async")

                def asked():
                    """Two texts in a row, each another: what is one's answer must not be the other's."""
                    for n in (3000, 4000):
                        e = error_of(w.ask(query(medium(self.t, n))))
                        self.assertEqual(e["C"], "CS001", (mode, e))
                        facts = self.gw.json("show", self.gw.pending()[0]["id"], who="bob")["facts"]
                        self.assertEqual(facts["sql.effects"], ["read", "ddl"])
                        self.deny_all()
                    return self.times_asked(mode) > 0
                harness.wait_until("it to have been asked", asked)
                self.assertEqual(kinds(other.ask(query("select 1"))), "TDCZ")
                self.assertEqual(kinds(other.ask(query("insert into bulk values (1, '%s')" % ("x" * 3000)))), "CZ")
                self.assertTrue(self.exists(self.t))
        self.assertEqual(self.gw.pids("gate"), gates)

    def test_without_a_parser_that_gets_ready_the_gate_parses_for_itself(self):
        for mode in ("own silent", "own early", "own another first word"):
            with self.subTest(mode):
                self.job(mode)
                self.replace_own()
                facts = self.asks(query(medium(self.t)))["facts"]
                self.assertEqual(facts["sql.effects"], ["read", "ddl"])
                self.deny_all()
                self.assertEqual(kinds(self.session().ask(query("insert into bulk values (1, '%s')" % ("x" * 3000)))), "CZ")

    def test_whatever_else_it_says_the_text_is_opaque(self):
        gates = self.gw.pids("gate")
        other = self.session()
        text = "select '" + "x" * LONG + "'"
        for mode in LIES:
            with self.subTest(mode):
                self.job(mode)
                self.no_jobs()
                self.opaque(query(text))
                self.deny_all()
                self.assertEqual(kinds(other.ask(query("select 1"))), "TDCZ")
        self.assertEqual(self.gw.pids("gate"), gates)
        self.assertIsNone(self.gw.process.poll())


if __name__ == "__main__":
    unittest.main()
