"""Real peers for the tests: a scratch PostgreSQL, a gateway, their clients.

Everything lives in one temporary folder per object, listens on free loopback ports, runs unprivileged
where it must, and is stopped by pid. Waiting is always for a condition with a deadline that is far
beyond what a slow machine needs; nothing sleeps for a fixed time and hopes.
"""
import contextlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

PG_BIN = "/usr/lib/postgresql/15/bin"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PATIENCE = float(os.environ.get("COUNTERSIGN_TEST_PATIENCE", "60"))
BUILD = os.environ.get("COUNTERSIGN_BUILD", os.path.join(ROOT, "build"))


def wait_until(what, condition, patience=None):
    """Polls until condition() is true and returns its value."""
    end = time.monotonic() + (patience or PATIENCE)
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError("waited in vain for: " + what)
        time.sleep(0.01)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def unprivileged():
    """Keyword arguments for subprocess that make a child run as somebody who is not root."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def scratch(prefix):
    path = tempfile.mkdtemp(prefix="countersign-" + prefix + "-")
    os.chmod(path, 0o755)
    return path


class Postgres:
    """A scratch server with SCRAM for TCP, TLS with a certificate of its own, and a superuser."""

    def __init__(self, tls=True, settings=()):
        self.dir = scratch("pg")
        self.port = free_port()
        self.superuser, self.password = "boss", "boss-" + os.urandom(8).hex()
        self.user = unprivileged()
        if self.user:
            os.chown(self.dir, self.user["user"], self.user["group"])
        self.data = os.path.join(self.dir, "data")
        self.log = os.path.join(self.dir, "log")
        pwfile = os.path.join(self.dir, "pw")
        with open(pwfile, "w") as f:
            f.write(self.password + "\n")
        os.chmod(pwfile, 0o644)
        self._run([PG_BIN + "/initdb", "-D", self.data, "-U", self.superuser, "--pwfile", pwfile, "-E", "UTF8",
                   "--locale=C.UTF-8", "--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "-N"])
        os.unlink(pwfile)
        lines = ["port = %d" % self.port, "listen_addresses = '127.0.0.1'", "unix_socket_directories = ''",
                 "fsync = off", "shared_buffers = 32MB", "max_connections = 200", "autovacuum = off",
                 "log_min_messages = warning"]
        if tls:
            self._certificate()
            lines += ["ssl = on", "ssl_cert_file = 'server.crt'", "ssl_key_file = 'server.key'"]
        with open(os.path.join(self.data, "postgresql.conf"), "a") as f:
            f.write("\n".join(list(lines) + list(settings)) + "\n")
        self.process = None
        self.start()

    def _run(self, argv, **more):
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.dir, **self.user, **more)

    def _certificate(self):
        self._run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                   "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                   "-keyout", self.data + "/server.key", "-out", self.data + "/server.crt"])
        os.chmod(self.data + "/server.key", 0o600)
        self.root = os.path.join(self.dir, "root.crt")
        shutil.copy(self.data + "/server.crt", self.root)
        os.chmod(self.root, 0o644)

    def start(self):
        log = open(self.log, "ab")
        self.process = subprocess.Popen([PG_BIN + "/postgres", "-D", self.data], stdout=log, stderr=log,
                                        stdin=subprocess.DEVNULL, cwd=self.dir, start_new_session=True, **self.user)
        log.close()
        wait_until("PostgreSQL to answer", self._answers)

    def _answers(self):
        if self.process.poll() is not None:
            with open(self.log) as f:
                raise AssertionError("PostgreSQL ended: " + f.read()[-2000:])
        env = dict(os.environ, PGPASSWORD=self.password, PGCONNECT_TIMEOUT="5")
        return subprocess.run(["psql", "-XAtqc", "select 1", self.dsn("postgres")], env=env,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def dsn(self, database):
        return "host=127.0.0.1 port=%d user=%s dbname=%s" % (self.port, self.superuser, database)

    def connect(self, database="postgres", user=None, password=None):
        import psycopg2
        c = psycopg2.connect(host="127.0.0.1", port=self.port, user=user or self.superuser,
                             password=password or self.password, dbname=database)
        c.autocommit = True
        return c

    def sql(self, text, database="postgres"):
        """Runs text as the superuser; rows as a list of tuples, [] without a result."""
        c = self.connect(database)
        try:
            with c.cursor() as cur:
                cur.execute(text)
                return cur.fetchall() if cur.description else []
        finally:
            c.close()

    def stop(self, how=signal.SIGINT):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def destroy(self):
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.dir, ignore_errors=True)


_shared_postgres = None


def shared_postgres():
    """One server for all test files of a run that do not kill it."""
    global _shared_postgres
    if _shared_postgres is None:
        _shared_postgres = Postgres()
    return _shared_postgres


def destroy_shared():
    global _shared_postgres
    if _shared_postgres is not None:
        _shared_postgres.destroy()
        _shared_postgres = None


# What the tests' databases look like: a table, an everyday role that may read and insert, an owner.
SCHEMA = """
create table public.orders (id int primary key, item text not null, amount int not null default 0);
insert into public.orders select i, 'item ' || i, i * 10 from generate_series(1, 100) i;
create table public.scratchpad (n int);
create sequence public.numbers;
"""


def make_database(pg, name):
    """A database with two roles of its own; returns their names and passwords."""
    roles = {"user": name + "_ro", "password": "pw-" + os.urandom(6).hex(), "owner": name + "_owner",
             "owner_password": "pw-" + os.urandom(6).hex()}
    pg.sql("create role %(user)s login password '%(password)s'" % roles)
    pg.sql("create role %(owner)s login password '%(owner_password)s'" % roles)
    pg.sql("create database %s owner %s" % (name, roles["owner"]))
    pg.sql("grant create, usage on schema public to %s; grant usage on schema public to %s" % (roles["owner"], roles["user"]), name)
    c = pg.connect(name, roles["owner"], roles["owner_password"])
    with c.cursor() as cur:
        cur.execute(SCHEMA)
        cur.execute("grant select, insert, update on all tables in schema public to %s" % roles["user"])
        cur.execute("grant usage on sequence numbers to %s" % roles["user"])
    c.close()
    return roles


RULES = """
rules:
  - name: read
    title: People and agents may read
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: insert-scratch
    title: Anybody may write on the scratchpad
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "INSERT" && sql.writes.all(w, w == "scratchpad" || w == "public.scratchpad") && sql.effects.all(e, e in ["read", "write"])
    then: allow
  - name: change-data
    title: Changing data needs a countersign
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, !(e in ["session", "read"])) && !(sql.verb == "INSERT")
    then: hold
    run_as: elevated
    approvers: { groups: [dba], quorum: 1, within: 15m, valid: 10m, attach: 10m }
  - name: never-truncate
    title: Nobody truncates
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "TRUNCATE TABLE"
    then: deny
"""


def sanitized():
    """Is this a build with AddressSanitizer? It has no walls, and keeps freed memory for a while."""
    with open(os.path.join(BUILD, "src", "programs", "gate"), "rb") as f:
        return b"__asan_init" in f.read()


@contextlib.contextmanager
def homes_of(user):
    """Gateways that are started meanwhile find their directory owned by this user, as `serve --user` wants it."""
    start = Gateway.start

    def start_there(gw, secrets=True):
        for folder, folders, files in os.walk(gw.home):
            for name in [folder] + [os.path.join(folder, n) for n in folders + files]:
                shutil.chown(name, user)
        return start(gw, secrets)
    Gateway.start = start_there
    try:
        yield
    finally:
        Gateway.start = start


class Gateway:
    """`countersign serve` on free ports with a configuration of the test's own."""

    def __init__(self, targets, rules=RULES, tls=True, gates=1, user=None, env=None, more="", serve=(), listen="", listen_postgres="", programs=None, metrics=None):
        self.dir = scratch("gw")
        self.home = os.path.join(self.dir, "home")
        self.port, self.api_port = free_port(), free_port()
        self.socket = os.path.join(self.home, "run", "countersign.sock")
        self.log = os.path.join(self.dir, "log")
        self.program = os.path.join(programs or os.path.join(BUILD, "src", "programs"), "countersign")
        self.gates, self.tls, self.process = gates, tls, None
        self.serve = list(serve)
        self.listen = listen  # more for the network listeners
        self.listen_postgres = listen_postgres
        self.metrics = metrics  # what follows the address in listeners.metrics, such as ", tls: off"; None: no such listener
        self.metrics_port = free_port() if metrics is not None else None
        self.env = dict(os.environ, COUNTERSIGN_SOCKET=self.socket, **(env or {}))
        self.env.pop("COUNTERSIGN_TOKEN", None)
        self.tokens = {}
        self.cli("init", self.home)
        self.ca = os.path.join(self.home, "tls.crt")
        self.config_path = os.path.join(self.home, "countersign.yaml")
        self.targets, self.more = targets, more
        self.master_key = "master_key: master.key"
        self.configure(rules)

    def configure(self, rules, targets=None):
        """Writes the configuration; serve or reload takes it in."""
        if targets is not None:
            self.targets = targets
        lines = ["version: 1", "listeners:",
                 '  control: { address: "127.0.0.1:%d", url: "https://localhost:%d"%s }' % (self.api_port, self.api_port, self.listen),
                 '  local: { socket: "%s" }' % self.socket]
        lines.append('  postgres: { address: "127.0.0.1:%d"%s%s }' % (self.port, "" if self.tls else ", tls: off", self.listen + self.listen_postgres))
        if self.metrics is not None:
            lines.append('  metrics: { address: "127.0.0.1:%d"%s }' % (self.metrics_port, self.metrics))
        lines += ["tls: { certificate: tls.crt, key: tls.key }", "store: { sqlite: state/state.db }",
                  "recordings: { directory: recordings }", self.master_key]
        lines += ["identity:", "  - name: local", "targets:"]
        for t in self.targets:
            lines.append("  - name: %s" % t["name"])
            if t.get("labels"):
                lines.append("    labels: { %s }" % ", ".join("%s: %s" % kv for kv in t["labels"].items()))
            roots = "".join(", %s: %s" % (k, t[k]) for k in ("roots", "channel_binding", "certificate") if t.get(k))
            lines.append('    postgres: { address: "%s", database: %s, tls: %s%s }' % (
                t["address"], t["database"], t.get("tls", "off"), roots))
            way = ", authentication: " + t["authentication"] if t.get("authentication") else ""
            lines.append('    credential: { user: %s, password: "secret:%s"%s }' % (t["user"], t["name"] + "-ro", way))
            if t.get("owner"):
                lines.append('    elevated: { user: %s, password: "secret:%s" }' % (t["owner"], t["name"] + "-owner"))
            if t.get("probe"):
                lines.append('    probe: { user: %s, password: "secret:%s"%s }' % (t["probe"], t["name"] + "-probe", way))
        with open(self.config_path, "w") as f:
            f.write("\n".join(lines) + "\n" + self.more + rules)

    def start(self, secrets=True):
        log = open(self.log, "ab")
        self.process = subprocess.Popen(
            [self.program, "serve", "--config", self.config_path, "--gates", str(self.gates), *self.serve],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.env, cwd=self.dir, start_new_session=True)
        log.close()
        wait_until("the gateway to serve", self._serving)
        if secrets:
            for t in self.targets:
                self.cli("secret", "set", t["name"] + "-ro", stdin=t["password"])
                if t.get("owner"):
                    self.cli("secret", "set", t["name"] + "-owner", stdin=t["owner_password"])
                if t.get("probe"):
                    self.cli("secret", "set", t["name"] + "-probe", stdin=t["probe_password"])
        return self

    def _serving(self):
        if self.process.poll() is not None:
            raise AssertionError("the gateway ended:\n" + self.log_text()[-4000:])
        return "is serving" in self.log_text().rsplit("\x00restart\x00", 1)[-1]

    def log_text(self):
        with open(self.log, "rb") as f:
            return f.read().decode("utf-8", "replace")

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        return self.process.returncode if self.process else None

    def restart(self, how=signal.SIGTERM):
        self.stop(how)
        with open(self.log, "ab") as f:
            f.write(b"\x00restart\x00")
        self.start(secrets=False)

    def destroy(self):
        self.stop()
        if self.process and os.environ.get("COUNTERSIGN_TEST_KEEP"):
            return
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- the command line ----
    def cli(self, *args, who=None, stdin=None, ok=True, env=None, timeout=None):
        """Runs a command; returns CompletedProcess. Raises when `ok` and it fails."""
        full = dict(self.env, **(env or {}))
        if who:
            full["COUNTERSIGN_TOKEN"] = self.tokens[who]
        r = subprocess.run([self.program, *args], env=full, input=stdin, capture_output=True, text=True,
                           timeout=timeout or PATIENCE, cwd=self.dir)
        if ok and r.returncode != 0:
            raise AssertionError("countersign %s: exit %d\n%s%s\n%s" % (" ".join(args), r.returncode, r.stdout, r.stderr,
                                                                   self.log_text()[-3000:] if os.path.exists(self.log) else ""))
        return r

    def spawn_cli(self, *args):
        """Starts a command as whoever runs the gateway; returns Popen, both outputs on stdout."""
        return subprocess.Popen([self.program, *args], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                cwd=self.dir)

    def json(self, *args, who=None, **more):
        return json.loads(self.cli(*args, "--json", who=who, **more).stdout)

    def add_user(self, name, *groups):
        self.tokens[name] = self.json("user", "add", name, "--groups", ",".join(groups))["token"]
        return self.tokens[name]

    def add_agent(self, name, owner, *groups):
        self.tokens[name] = self.json("agent", "add", name, "--owner", owner, "--groups", ",".join(groups))["token"]
        return self.tokens[name]

    def people(self):
        """The cast of most tests."""
        self.add_user("alice", "engineers")
        self.add_user("bob", "dba")
        self.add_user("carol", "dba")
        self.add_agent("bot", "alice", "agents")
        return self

    # ---- clients ----
    def pg_env(self, who, **more):
        env = dict(os.environ, PGPASSWORD=self.tokens.get(who, who), PGSSLMODE="verify-full" if self.tls else "disable",
                   PGSSLROOTCERT=self.ca, PGHOST="localhost", PGHOSTADDR="127.0.0.1", PGPORT=str(self.port), PGUSER=who,
                   PGCONNECT_TIMEOUT="30", PGGSSENCMODE="disable")
        env.update(more)
        return env

    def psql(self, who, target, *sql, options=(), timeout=None):
        """psql -c for each statement; CompletedProcess with text."""
        argv = ["psql", "-XAt", "-v", "VERBOSITY=verbose", *options]
        for s in sql:
            argv += ["-c", s]
        return subprocess.run(argv + [target], env=self.pg_env(who), capture_output=True, text=True, timeout=timeout or PATIENCE)

    def psql_start(self, who, target, sql):
        """A psql in the background, for something that is held. It runs sql and ends."""
        return Background(["psql", "-XAt", "-v", "VERBOSITY=verbose", "-c", sql, target], self.pg_env(who))

    def connect(self, who, target, **more):
        import psycopg2
        args = dict(host="localhost", hostaddr="127.0.0.1", port=self.port, user=who, password=self.tokens.get(who, who),
                    dbname=target, sslmode="verify-full" if self.tls else "disable", sslrootcert=self.ca,
                    gssencmode="disable", connect_timeout=30)
        args.update(more)
        c = psycopg2.connect(**args)
        c.autocommit = True
        return c

    # ---- requests ----
    def pending(self, who="bob"):
        return [r for r in self.json("requests", who=who)["requests"] if r["state"] == "pending"]

    def wait_pending(self, who="bob", n=1):
        return wait_until("%d pending request(s)" % n, lambda: (lambda rs: rs if len(rs) >= n else None)(self.pending(who)))

    def wait_state(self, request, state, who="bob"):
        return wait_until("request %s to be %s" % (request, state),
                          lambda: (lambda c: c if c["state"] == state else None)(self.json("show", request, who=who)))

    def approve(self, request, who="bob", ok=True, **more):
        return self.cli("approve", request, "--yes", "--reason", "fine by me", who=who, ok=ok, **more)

    def deny(self, request, words, who="bob", ok=True):
        return self.cli("deny", request, "--reason", words, who=who, ok=ok)

    def recording(self, session, ok=True):
        return self.json("replay", session)["frames"] if ok else self.cli("replay", session, ok=False)

    def pids(self, role):
        status = self.json("doctor") if False else self.api("GET", "/v1/status")[1]
        return [r["pid"] for r in status["roles"] if r["role"] == role]

    def api(self, method, path, body=None, who=None, local=True, token=None, headers=None):
        """A raw API call over the local socket, or over TLS. Returns (status, decoded JSON or text)."""
        if local:
            s = socket.socket(socket.AF_UNIX)
            s.connect(self.socket)
        else:
            ctx = ssl.create_default_context(cafile=self.ca)
            s = ctx.wrap_socket(socket.create_connection(("127.0.0.1", self.api_port)), server_hostname="localhost")
        s.settimeout(PATIENCE)
        data = b"" if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
        head = "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n" % (method, path, len(data))
        if who or token:
            head += "Authorization: Bearer %s\r\n" % (token or self.tokens[who])
        for k, v in (headers or {}).items():
            head += "%s: %s\r\n" % (k, v)
        s.sendall(head.encode() + b"\r\n" + data)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while True:
                part = s.recv(65536)
                if not part:
                    break
                got += part
        s.close()
        first, _, rest = got.partition(b"\r\n\r\n")
        status = int(first.split()[1]) if first else 0
        text = rest.decode("utf-8", "replace")
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text


class Background:
    """A client process whose output is collected as it comes."""

    def __init__(self, argv, env):
        self.p = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.text, self.lines = "", []
        self.first_line_at = None
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        for line in self.p.stdout:
            if self.first_line_at is None:
                self.first_line_at = time.monotonic()
            self.lines.append(line)
            self.text += line

    def wait_text(self, pattern, patience=None):
        def look():
            m = re.search(pattern, self.text)
            if m is None and self.p.poll() is not None:
                self.thread.join(PATIENCE)
                m = re.search(pattern, self.text)
                if m is None:
                    raise AssertionError("the client ended without %r:\n%s" % (pattern, self.text))
            return m
        return wait_until("output like " + pattern, look, patience)

    def finish(self, timeout=None):
        self.p.wait(timeout or PATIENCE)
        self.thread.join(PATIENCE)
        return self.p.returncode

    def kill(self, how=signal.SIGKILL):
        if self.p.poll() is None:
            self.p.send_signal(how)


def target_of(pg, name, roles, **more):
    t = {"name": name, "address": "127.0.0.1:%d" % pg.port, "database": name, "user": roles["user"],
         "password": roles["password"], "owner": roles["owner"], "owner_password": roles["owner_password"],
         "labels": {"env": "test"}, "tls": "verify-full", "roots": pg.root}
    t.update(more)
    return t
