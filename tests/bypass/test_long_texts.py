"""Texts that are too long to be parsed in a gate: a job of its own parses each, and may be killed over it. What hides
behind length must be found, what takes too long must be held, and a job that was taken over can lie about one text
and reach nothing else."""
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
        """Pids of the gateway's parser jobs."""
        return [pid for pid, line in children(self.gw.process.pid) if "job-parser" in line]

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


# What a job that was taken over may say: written in place of the program, so that it lies from its first word.
HOSTILE = r'''#!/usr/bin/python3
import array, fcntl, os, socket, struct, sys, time
MODE = %(mode)r
s = socket.socket(fileno=3)
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
        "an error with an answer", "more words", "a long message", "huge", *re.findall(r'"([^"]+)": lambda', HOSTILE)]


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
        path = os.path.join(cls.libexec, "job-parser")
        with open(path, "w") as f:
            f.write(HOSTILE % {"mode": mode})
        os.chmod(path, 0o755)

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

    def test_a_job_that_lies_reaches_one_text_and_nothing_else(self):
        """It can call a DROP a read: that is what a parser is for. No wall stands there, and the threat model says so."""
        self.job("a lie")
        self.no_jobs()
        w = self.session(options="-c countersign.mode=async")

        def lied():
            e = error_of(w.ask(query("/*" + "x" * LONG + "*/ drop table " + self.t)))
            self.deny_all()  # where the job was late the text is opaque, and waits for somebody
            return e if e["C"] != "CS001" else None
        e = harness.wait_until("the lie to be believed", lied)
        self.assertEqual(e["C"], "42501", "the server refuses it: the everyday role may not")
        self.assertIn("owner", e["M"])
        self.assertTrue(self.exists(self.t))
        self.assertEqual(self.asks(query("drop table " + self.t))["facts"]["sql.verb"], "DROP TABLE")

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
