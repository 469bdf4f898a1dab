#!/usr/bin/env python3
"""`make check-regress`: PostgreSQL's own regression SQL as a corpus. psql runs each file of the schedule through a
relay that asks the classifier about every message first; where it is called session and read only, nothing may change.
Prints the share that fails closed (opaque), which is the figure to bring down, and every miss. The SQL comes from
Debian's source package (apt-get source, into the build directory) or from --sql; no copy of it is kept here."""
import argparse
import collections
import glob
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

WATCH = """select concat_ws(E'\\n', 'xid=' || pg_snapshot_xmax(pg_current_snapshot()), 'prepared=' || (select count(*) from pg_prepared_xacts),
 'slots=' || (select count(*) from pg_replication_slots), 'origins=' || (select count(*) from pg_replication_origin), 'objects=' || (select count(*) from pg_largeobject_metadata),
 'loaded=' || pg_conf_load_time(), 'reset=' || (select coalesce(max(stats_reset)::text, '') from pg_stat_database), 'bgreset=' || (select stats_reset from pg_stat_bgwriter))"""
LOCKS = """select coalesce(string_agg(distinct locktype || ':' || mode, ',' order by locktype || ':' || mode), '') from pg_locks where pid = %d
 and not (locktype = 'virtualxid' or locktype = 'relation' and mode = 'AccessShareLock')"""


def source(build):
    """The folder src/test/regress, or None with the reason said. Uses apt with lists of its own: no right is needed."""
    keep = os.path.join(build, "regress")
    found = glob.glob(os.path.join(keep, "postgresql-*", "src", "test", "regress"))
    if found:
        return found[0]
    for d in ("parts", "lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(keep, d), exist_ok=True)
    for name in glob.glob("/etc/apt/sources.list.d/*.sources"):
        with open(name) as f:
            text = re.sub(r"^Types:.*$", "Types: deb-src", f.read(), flags=re.M)
        with open(os.path.join(keep, "parts", os.path.basename(name)), "w") as f:
            f.write(text)
    for name in ["/etc/apt/sources.list"] + glob.glob("/etc/apt/sources.list.d/*.list"):
        if os.path.exists(name):
            with open(name) as f:
                lines = [re.sub(r"^deb ", "deb-src ", line) for line in f if line.startswith("deb ")]
            with open(os.path.join(keep, "parts", os.path.basename(name) if name.endswith("d.list") else "own-" + os.path.basename(name)), "w") as f:
                f.writelines(lines)
    apt = ["-o", "Dir::Etc::sourcelist=/dev/null", "-o", "Dir::Etc::sourceparts=" + keep + "/parts", "-o", "Dir::State::lists=" + keep + "/lists", "-o", "Dir::Cache=" + keep + "/cache",
           "-o", "APT::Sandbox::User=root"]
    r = subprocess.run(["apt-get", *apt, "update"], capture_output=True, text=True)
    versions = re.findall(r"^Version: (\S+)", subprocess.run(["apt-cache", *apt, "showsrc", "postgresql-15"], capture_output=True, text=True).stdout, re.M)
    why = (r.stderr or r.stdout).strip()[-300:]
    for v in reversed(versions):
        r = subprocess.run(["apt-get", *apt, "source", "--download-only", "postgresql-15=" + v], capture_output=True, text=True, cwd=keep)
        for tar in glob.glob(os.path.join(keep, "postgresql-15_*.orig.tar.*")):
            with tarfile.open(tar) as t:
                t.extractall(keep, [m for m in t.getmembers() if "/src/test/regress/" in m.name and m.isfile()])
            return source(build)
        why = r.stderr.strip()[-300:]
    print("could not get PostgreSQL's regression SQL (source package postgresql-15): %s" % (why or "no such source package"))
    return None


class Relay:
    """Between psql and the server; one connection at a time."""

    def __init__(self, pg, facts, database):
        import differential
        self.pg, self.facts, self.database, self.d = pg, facts, database, differential
        self.admin = pg.connect(database)
        self.watch = differential.Wire(pg.port).login(pg.superuser, pg.password, database, lock_timeout="200ms")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.count, self.why, self.misses, self.late = collections.Counter(), collections.Counter(), [], []
        self.what = collections.defaultdict(collections.Counter)
        self.pid, self.settled, self.file, self.refreshed, self.dirty = 0, 0, "", 0, False
        threading.Thread(target=self.serve, daemon=True).start()

    def one(self, sql):
        return next(b[6:].decode() for k, b in self.watch.ask(self.d.query(sql)) if k == "D")

    def state(self):
        return self.one(WATCH), set(x for x in self.one(LOCKS % self.pid).split(",") if x)

    def alone(self):
        """A session that was left (\\c) drops its temporary tables while it ends: that is not the next one's doing."""
        self.d.harness.wait_until("the session before to be gone", lambda: self.one(
            "select count(*) from pg_stat_activity where backend_type = 'client backend' and datname = current_database() and pid not in (%d, %d, pg_backend_pid())" %
            (self.pid, self.admin.info.backend_pid)) == "0")
        self.settled = self.pid

    def refresh(self):
        self.refreshed += 1
        self.dirty = False
        self.facts.catalogue(self.admin)

    def serve(self):
        """psql opens the next connection before it closes the last one (\\c): each has a thread, and only one is talked on."""
        while True:
            threading.Thread(target=self.one_client, args=(self.listener.accept()[0],), daemon=True).start()

    def one_client(self, client):
        try:
            self.session(client)
        except (OSError, ValueError, StopIteration, self.d.Closed) as e:
            self.count["broken"] += not isinstance(e, OSError)
        finally:
            client.close()

    def session(self, client):
        server = socket.create_connection(("127.0.0.1", self.pg.port))
        try:
            self.pump(client, server)
        finally:
            server.close()

    def pump(self, client, server):
        up, down, started, asked = b"", b"", False, None
        tx = "I"
        while True:
            ready = self.d.select.select([client, server], [], [])[0]
            if server in ready:
                part = server.recv(1 << 16)
                if not part:
                    return
                down += part
                out = 0
                while len(down) - out >= 5:
                    n = struct.unpack("!I", down[out + 1:out + 5])[0] + 1
                    if len(down) - out < n:
                        break
                    kind, body = down[out:out + 1], down[out + 5:out + n]
                    if kind == b"K":
                        self.pid = struct.unpack("!I", body[:4])[0]
                    if kind == b"E" and asked:
                        asked["error"] = True
                    if kind == b"Z":
                        tx = body.decode()
                        started = True
                        if asked:
                            self.judge(asked, tx)
                            asked = None
                    out += n
                client.sendall(down[:out])
                down = down[out:]
            if client in ready:
                part = client.recv(1 << 16)
                if not part:
                    return
                up += part
                if not started:
                    server.sendall(up)
                    up = b""
                    continue
                while len(up) >= 5:
                    n = struct.unpack("!I", up[1:5])[0] + 1
                    if len(up) < n:
                        break
                    if up[:1] == b"Q":
                        asked = self.before(up[5:n - 1], tx)
                    server.sendall(up[:n])
                    up = up[n:]

    def before(self, text, tx):
        if self.settled != self.pid:
            self.alone()
        c = self.facts.of(text)
        if tx == "I" and c.unknown and self.dirty:
            self.refresh()
            c = self.facts.of(text)
        self.dirty = self.dirty or not c.harmless
        self.count["messages"] += 1
        self.count["alone"] += c.alone & self.d.OPAQUE != 0
        self.count["statements"] += max(c.n, 1)
        if c.effects & self.d.OPAQUE:
            self.count["opaque"] += 1
            self.why[c.why] += 1
            self.what[c.why][c.names[0] if c.names else c.verb] += 1
        elif c.harmless:
            self.count["harmless"] += 1
        else:
            self.count["changing"] += 1
        return {"text": text, "class": c, "tx": tx, "error": False, "before": self.state() if c.harmless else None}

    def judge(self, asked, tx):
        if asked["before"] is None:
            return
        (rest, locks), (rest2, locks2) = asked["before"], self.state()
        moved = sorted(locks2 - locks) if tx == "T" else []
        # What ends a transaction settles what others of it did. DISCARD drops what is the session's alone, as its end would.
        if tx == "I" and re.fullmatch(rb"\s*discard\s+(temp|temporary|all)\s*;?\s*", asked["text"], re.I):
            rest2 = re.sub(r"^xid=.*", rest.split("\n")[0], rest2)
        if tx == "I" and asked["tx"] == "I" and rest != rest2:
            moved += [a + " -> " + b for a, b in zip(rest.split("\n"), rest2.split("\n")) if a != b]
        if not moved:
            return
        if asked["tx"] == "I":
            self.refresh()  # what was redefined since the last look is not the text's fault
            if not self.facts.of(asked["text"]).harmless:
                self.late.append((self.file, asked["text"], moved))
                return
        (self.misses if asked["tx"] == "I" else self.late).append((self.file, asked["text"], moved))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--build", default="build")
    a.add_argument("--sql", help="a folder like PostgreSQL's src/test/regress")
    a.add_argument("--files", default="", help="only these, by commas")
    args = a.parse_args()
    build = os.path.abspath(args.build)
    os.environ["COUNTERSIGN_BUILD"] = build
    folder = args.sql or source(build)
    if folder is None:
        return 2
    import differential
    pg = differential.scratch_server()
    try:
        return run(differential, pg, folder, [f for f in args.files.split(",") if f])
    finally:
        pg.destroy()


def run(differential, pg, folder, only):
    work = os.path.join(pg.dir, "regress")
    shutil.copytree(folder, work)
    os.makedirs(os.path.join(work, "results"), exist_ok=True)
    subprocess.run(["chmod", "-R", "a+rwX", work], check=True)
    pg.sql("create database regression template template0 encoding 'UTF8' locale 'C'")
    facts = differential.Facts()
    relay = Relay(pg, facts, "regression")
    relay.refresh()
    with open(os.path.join(work, "parallel_schedule")) as f:
        names = [n for line in f if line.startswith("test:") for n in line[5:].split()]
    env = dict(os.environ, PGHOST="127.0.0.1", PGPORT=str(relay.port), PGUSER=pg.superuser, PGPASSWORD=pg.password, PGDATABASE="regression", PGSSLMODE="disable", PGGSSENCMODE="disable",
               PG_ABS_SRCDIR=work, PG_ABS_BUILDDIR=work, PG_LIBDIR="/usr/lib/postgresql/15/lib", PG_DLSUFFIX=".so", PGTZ="PST8PDT", PGDATESTYLE="Postgres, MDY",
               PGOPTIONS="-c statement_timeout=20s -c search_path=public")
    for n, name in enumerate(names):
        path = os.path.join(work, "sql", name + ".sql")
        if (only and name not in only and name != "test_setup") or not os.path.exists(path):
            continue
        relay.file = name
        with open(path, "rb") as f:
            p = subprocess.Popen(["psql", "-X", "-a", "-q", "-v", "HIDE_TABLEAM=on"], env=env, stdin=f, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=work, **pg.user)
            try:
                p.wait(600)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
                print("%s: not over after 600 s" % name)
        print("%3d/%d %-24s %6d messages, %5d opaque, %d misses" % (n + 1, len(names), name, relay.count["messages"], relay.count["opaque"], len(relay.misses)), flush=True)
    return tell(relay)


def tell(relay):
    c = relay.count
    total = max(c["messages"], 1)
    for why, n in relay.why.most_common():
        print("%6d %5.1f %% opaque: %s (%s)" % (n, 100.0 * n / total, why, ", ".join("%s %d" % (w, k) for w, k in relay.what[why].most_common(6))))
    for file, text, moved in relay.late[:20]:
        print("a definition of that moment: %s: %r: %s" % (file, text[:120], "; ".join(moved)))
    for file, text, moved in relay.misses:
        print("MISS: %s: %r: %s" % (file, text[:300], "; ".join(moved)))
    print("%d messages (%d statements): %d called session and read only, %d changing, %d opaque; the catalogue was asked for %d times" %
          (c["messages"], c["statements"], c["harmless"], c["changing"], c["opaque"], relay.refreshed))
    print("figure: regress-opaque %.1f %% of messages" % (100.0 * c["opaque"] / total))
    print("figure: regress-opaque-without-catalogue %.1f %% of messages" % (100.0 * c["alone"] / total))
    print("%d misses, and %d by definitions made in the same transaction or since the last look" % (len(relay.misses), len(relay.late)))
    return 1 if relay.misses else 0


if __name__ == "__main__":
    sys.exit(main())
