"""The same bytes to our classifier and to a server: a text of which the gateway would say "session and read only"
must change nothing there. Used by test_differential.py (some seconds of it) and by fuzz.py (for as long as one likes).

Facts is the classifier, with the catalogue that probe would make of that database; World a scratch database with
traps in it (world.py); Oracle runs texts and says whether anything moved."""
import os
import select
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "lib"))
import harness  # noqa: E402
from pgwire import Closed, Wire, bind, execute, message, parse, query, SYNC  # noqa: E402
from world import BASE, TRAPS  # noqa: E402

SESSION, READ, WRITE, DDL, ADMIN, OPAQUE = 1, 2, 4, 8, 16, 32
HARMLESS = SESSION | READ
EFFECTS = ("session", "read", "write", "ddl", "admin", "opaque")


def as_bytes(text):
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")


class Facts:
    """The program sql-facts."""

    def __init__(self):
        self.p = subprocess.Popen([os.path.join(harness.BUILD, "tests", "differential", "sql-facts")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        raw = self.ask("Q").split(b"\0")
        self.queries = [(raw[i].decode(), raw[i + 1].decode()) for i in range(0, len(raw) - 1, 2)]

    def tell(self, letter, body=b""):
        self.p.stdin.write(letter.encode() + struct.pack("<I", len(body)) + body)

    def ask(self, letter, body=b""):
        self.tell(letter, body)
        self.p.stdin.flush()
        return self.answer()

    def answer(self):
        head = self.p.stdout.read(4)
        if len(head) < 4:
            raise AssertionError("sql-facts ended with %r" % self.p.wait())
        return self.p.stdout.read(struct.unpack("<I", head)[0])

    def catalogue(self, connection):
        """Asks what probe asks, in the way that probe asks it."""
        with connection.cursor() as cur:
            cur.execute("begin transaction isolation level repeatable read, read only; set local search_path = pg_catalog, pg_temp")
            for name, sql in self.queries:
                cur.execute(sql)
                self.tell("T", name.encode() + b"\0" + str(len(cur.description)).encode())
                for row in cur.fetchall():
                    cells = [None if v is None else as_bytes("t" if v is True else "f" if v is False else str(v)) for v in row]
                    self.tell("R", b"".join(struct.pack("<I", 0xffffffff) if c is None else struct.pack("<I", len(c)) + c for c in cells))
                self.tell("E")
            cur.execute("rollback")
        said = self.ask("C").decode()
        if said != "ok":
            raise AssertionError("no catalogue: " + said)

    def of(self, text, types=(), **_):
        if types:
            return Class(self.ask("D", struct.pack("<I", len(types)) + b"".join(struct.pack("<I", t) for t in types) + as_bytes(text)))
        return Class(self.ask("S", as_bytes(text)))

    def may_set(self, name, value):
        return self.ask("G", name.encode() + b"\0" + value.encode()) == b"1"

    def close(self):
        self.p.stdin.close()
        self.p.stdout.close()
        self.p.wait()


class Class:
    def __init__(self, raw):
        alone, judged, flags, n, kinds, self.why, self.verb, names = raw.decode("utf-8", "replace").split("\t", 7)
        self.names = [x for x in names.split(",") if x]
        self.alone, self.effects, self.n = int(alone), int(judged), int(n)
        self.parsed, self.unknown, self.narrowed = "p" in flags, "u" in flags, "n" in flags
        self.kinds = [int(k) for k in kinds.split(",") if k]
        self.harmless = self.effects & ~HARMLESS == 0

    def __str__(self):
        return ",".join(e for i, e in enumerate(EFFECTS) if self.effects >> i & 1) + (" (%s)" % self.why if self.why else "")


# One row: what any change at the server would move. Locks and settings are asked for separately.
WATCH = """select concat_ws(E'\\n', 'xid=' || pg_snapshot_xmax(pg_current_snapshot()), 'wal=' || pg_current_wal_insert_lsn(),
 'hits=' || (select last_value || ',' || is_called from public.hits), 'seq=' || (select last_value || ',' || is_called from public.seq),
 'rows=' || (select count(*) || ',' || coalesce(sum(hashtext(v) + k), 0) from public.canary),
 'prepared=' || (select count(*) from pg_prepared_xacts), 'slots=' || (select count(*) from pg_replication_slots),
 'origins=' || (select count(*) from pg_replication_origin), 'objects=' || (select count(*) from pg_largeobject_metadata),
 'backends=' || (select string_agg(pid::text, ',' order by pid) from pg_stat_activity where datname = current_database()),
 'loaded=' || pg_conf_load_time(), 'reset=' || (select coalesce(max(stats_reset)::text, '') from pg_stat_database),
 'bgreset=' || (select stats_reset from pg_stat_bgwriter), 'recovery=' || pg_is_in_recovery())"""
LOCKS = """select coalesce(string_agg(locktype || ':' || mode, ',' order by 1), '') from (select distinct locktype, mode from pg_locks
 where pid = %d and not (locktype = 'virtualxid' or locktype = 'relation' and mode = 'AccessShareLock')) l (locktype, mode)"""
SETTINGS = "select name || '=' || setting from pg_settings where name not like '%.%' or setting is distinct from boot_val union all select 'user=' || current_user || '/' || session_user order by 1"
SETTINGS_SUM = "select md5(string_agg(x, '|')) from (" + SETTINGS + ") x (x)"


class World:
    """A database of its own with some of the traps; a session for the texts and one that watches."""

    def __init__(self, pg, facts, traps, name, encoding=None, alone=False):
        self.pg, self.facts, self.name, self.traps = pg, facts, name, traps
        self.folder = os.path.join(pg.dir, "out")
        if not os.path.isdir(self.folder):
            os.mkdir(self.folder)
            os.chmod(self.folder, 0o777)
        more = " encoding '%s' locale 'C' template template0" % encoding if encoding else ""
        pg.sql("create database %s%s" % (name, more))
        self.admin = pg.connect(name)
        self.admin.set_client_encoding("UTF8")
        self.define(BASE)
        for t in traps:
            if t.ddl:
                self.define(t.ddl)
        if not alone:
            facts.catalogue(self.admin)
        self.fuzz = self.watch = None
        self.open()

    def fill(self, text):
        return text.replace("{dir}", self.folder).replace("{db}", self.name).replace("{qq}", '"' * 6)

    def define(self, ddl):
        with self.admin.cursor() as cur:
            cur.execute("set search_path = public; " + self.fill(ddl))

    def wire(self):
        # What the gateway pins at login: src/proto/postgres/upstream.c.
        return Wire(self.pg.port).login(self.pg.superuser, self.pg.password, self.name, client_encoding="UTF8", search_path="public",
                                        standard_conforming_strings="on", application_name="differential", statement_timeout="5s")

    def open(self):
        self.close_wires()
        self.fuzz, self.watch = self.wire(), self.wire()
        self.pid = struct.unpack("!I", self.fuzz.key[:4])[0]
        harness.wait_until("the sessions before to be gone", lambda: self.value(
            self.watch, "select count(*) from pg_stat_activity where datname = current_database()") == "3")
        self.settings = self.value(self.fuzz, SETTINGS_SUM)
        self.all_settings = dict(s.split("=", 1) for s in self.column(self.fuzz, SETTINGS))

    def close_wires(self):
        for w in (self.fuzz, self.watch):
            if w is not None:
                w.close()
        self.fuzz = self.watch = None

    def column(self, wire, sql):
        got = []
        for kind, body in wire.ask(query(sql)):
            if kind == "D":
                got.append(body[6:].decode("utf-8", "replace"))
            elif kind == "E":
                raise AssertionError(sql + ": " + repr(body))
        return got

    def value(self, wire, sql):
        return self.column(wire, sql)[0]

    def drop(self):
        self.close_wires()
        self.admin.close()
        self.pg.sql("drop database %s with (force)" % self.name)
        for t in self.traps:
            if "create role" in t.ddl:
                self.pg.sql("drop role if exists %s_reader" % self.name)

    # ---- running ----
    def state(self):
        s = dict(x.split("=", 1) for x in self.value(self.watch, WATCH).split("\n"))
        for root, _, names in [x for d in ("pg_replslot", "pg_snapshots", "pg_twophase", "pg_tblspc", "pg_logical/snapshots") for x in os.walk(os.path.join(self.pg.data, d))] + list(os.walk(self.folder)):
            for n in names:
                s["file:" + os.path.join(root, n)] = "there"
        for n in ("postgresql.auto.conf", "postgresql.conf", "pg_hba.conf"):
            s["file:" + n] = str(os.stat(os.path.join(self.pg.data, n)).st_mtime_ns)
        return s

    def send(self, text, extended=False, types=(), params=()):
        """Runs it; returns the last transaction state and the error's SQLSTATE or None. Copies in are ended."""
        text = as_bytes(text)
        if b"\0" in text:
            text = text[:text.index(b"\0")]
        w = self.fuzz
        if extended:
            w.send(parse(text, types=types), bind(params), execute(), SYNC)
        else:
            w.send(query(text))
        error = None
        while True:
            kind, body = w.read()
            if kind == "G":
                w.send(message("f", b"no\0"))
            elif kind == "E":
                error = next((p[1:].decode() for p in body.split(b"\0") if p[:1] == b"C"), "?")
            elif kind == "Z":
                return body.decode(), error

    def run(self, text, **how):
        """SQLSTATE or None, and what moved in the open transaction that it may leave, which is rolled back."""
        tx, error = self.send(text, **how)
        moved = []
        if tx != "I":
            locks = self.value(self.watch, LOCKS % self.pid)
            moved = ["lock:" + x for x in locks.split(",") if x] + ["snapshot:" + x for x in os.listdir(os.path.join(self.pg.data, "pg_snapshots"))]
            self.send("rollback")
        return error, moved

    def settings_moved(self):
        """Settings that no client may make, made."""
        if self.value(self.fuzz, SETTINGS_SUM) == self.settings:
            return []
        now = dict(s.split("=", 1) for s in self.column(self.fuzz, SETTINGS))
        bad = [n for n, v in now.items() if self.all_settings.get(n) != v and not self.facts.may_set(n, v)]
        self.send("reset all")
        return ["setting:%s=%s" % (n, now[n]) for n in sorted(bad)]

    def session_moved(self):
        locks = self.value(self.watch, LOCKS % self.pid)
        return ["lock:" + x for x in locks.split(",") if x]

    def changed_by(self, texts):
        """What these texts moved, one after another in this session; [] is nothing. `texts`: (text, how) pairs."""
        before = self.state()
        moved, errors = [], []
        for text, how in texts:
            try:
                error, m = self.run(text, **how)
            except (Closed, OSError) as e:
                self.open()
                return ["session:ended (%s)" % e], errors
            errors.append(error)
            moved += m
        moved += self.session_moved() + self.settings_moved()
        after = self.state()
        moved += sorted("%s: %s -> %s" % (k, before.get(k), after.get(k)) for k in set(before) | set(after) if before.get(k) != after.get(k))
        for k in after:
            if k.startswith("file:" + self.folder) and before.get(k) is None:
                os.unlink(k[5:])
        if moved:
            self.open()  # no lock, cursor or setting stays for the next
        return moved, errors

    def search(self, texts, most=20):
        """Those of these (text, how) that move something, with what they moved: all at once first, then halves."""
        if not texts or most <= 0:
            return []
        moved = self.changed_by(texts)[0]
        if not moved:
            return []
        if len(texts) == 1:
            return [(texts[0][0], moved)]
        half = len(texts) // 2
        found = self.search(texts[:half], most)
        found += self.search(texts[half:], most - len(found))
        return found or [(b"; then ".join(as_bytes(t) for t, _ in texts), moved)]


def scratch_server():
    # Nothing of its own may move what is watched.
    return harness.Postgres(tls=False, settings=["wal_level = minimal", "max_wal_senders = 0", "checkpoint_timeout = 1h", "max_prepared_transactions = 5",
                                                 "log_min_messages = fatal", "max_locks_per_transaction = 256", "jit = off",
                                                 "xmloption = content", "track_functions = none"])


def minimal(world, text, how):
    """The shortest text found that is still called harmless and still changes something."""
    def bad(t):
        return world.facts.of(t, **how).harmless and world.changed_by([(t, how)])[0]
    best, size = as_bytes(text), max(1, len(as_bytes(text)) // 2)
    while size >= 1:
        at = 0
        while at < len(best):
            shorter = best[:at] + best[at + size:]
            if shorter and bad(shorter):
                best = shorter
            else:
                at += size
        size //= 2
    return best
