#!/usr/bin/env python3
"""The figures of docs/performance.md, one command each (`make bench ONLY=NAME`).

One line a figure: `figure: NAME VALUE UNIT must BOUND ok|short`. Comparisons are interleaved in one run,
warm, pair by pair, and the median of the pairs is printed: absolute numbers of a shared machine mean
nothing. A throughput run counts only if the record holds as many actions as the client counts
transactions.
"""
import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
import harness  # noqa: E402
from pgwire import Wire  # noqa: E402

FIGURES = []
OK, SHORT = [0], [0]


def figure(name, value, unit, bound, smaller_is_better=True):
    good = value <= bound if smaller_is_better else value >= bound
    (OK if good else SHORT)[0] += 1
    print("figure: %-34s %8.2f %-10s must %s %-6g %s" % (name, value, unit, "<=" if smaller_is_better else ">=", bound,
                                                        "ok" if good else "short"), flush=True)


def note(text):
    print("        " + text, flush=True)


def bench(fn):
    FIGURES.append((fn.__name__.replace("_", "-"), fn))
    return fn


# ---- the peers ----

def many_rules(total=1000, matching=200, record=None):
    """As architecture.md's budgets ask: 1,000 rules, 200 of them match who and target, each with a condition
    over relations; then the one that allows reading."""
    out = ["rules:"]
    for i in range(total - 1):
        group = "agents" if i < matching else "others"
        out.append("  - name: guard-%d\n    who: { groups: [%s] }\n    target: { kind: postgres }\n    when: |\n"
                   "      sql.writes.exists(w, w == \"table_%d\" || w == \"public.table_%d\")\n    then: deny" % (i, group, i, i))
    out.append("  - name: read\n    who: { groups: [agents] }\n    target: { kind: postgres }\n    when: |\n"
               "      sql.effects.all(e, e in [\"session\", \"read\"])\n    then: allow" + ("\n    record: " + record if record else ""))
    out.append("  - name: change\n    who: { groups: [agents] }\n    target: { kind: postgres }\n    when: |\n"
               "      sql.verb == \"INSERT\"\n    then: hold\n    approvers: { groups: [dba] }")
    return "\n".join(out) + "\n"


class Peers:
    def __init__(self):
        self.pg = harness.Postgres(settings=("shared_buffers = 256MB", "max_connections = 600"))
        self.pg.sql("create role bench login password 'bench'")
        self.pg.sql("create database bench owner bench")
        self.env = dict(os.environ, PGPASSWORD="bench", PGSSLMODE="disable", PGGSSENCMODE="disable")
        self.pgbench(self.pg.port, "-i", "-q", "-s", "10")
        self.pg.sql("create table stamps (at timestamptz); grant all on stamps to bench", "bench")
        self.dir = harness.scratch("bench")
        self.procs = []
        self.gateways = {}

    def pgbench(self, port, *args, user="bench", password="bench", sslmode="disable", root=None):
        env = dict(self.env, PGPASSWORD=password, PGSSLMODE=sslmode)
        if root:
            env["PGSSLROOTCERT"] = root
        r = subprocess.run([harness.PG_BIN + "/pgbench", *args, "-h", "localhost", "-p", str(port), "-U", user, "bench"],
                           env=dict(env, PGHOSTADDR="127.0.0.1"), capture_output=True, text=True)
        if r.returncode != 0:
            raise SystemExit("pgbench failed: " + r.stderr[-1500:])
        return r.stdout

    def gateway(self, tls=False, record=None):
        if (tls, record) not in self.gateways:
            t = {"name": "bench", "address": "127.0.0.1:%d" % self.pg.port, "database": "bench", "tls": "off",
                 "user": "bench", "password": "bench"}
            gw = harness.Gateway([t], rules=many_rules(record=record), tls=tls, gates=1).start()
            gw.add_user("alice", "agents")
            gw.add_user("bob", "dba")
            self.gateways[tls, record] = gw
        return self.gateways[tls, record]

    def close_gateway(self):
        for gw in self.gateways.values():
            gw.destroy()
        self.gateways = {}

    def spawn(self, argv):
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             cwd=self.dir, start_new_session=True, **harness.unprivileged())
        self.procs.append(p)
        return p

    def pgbouncer(self):
        if not hasattr(self, "pgbouncer_port"):
            self.pgbouncer_port = harness.free_port()
            with open(self.dir + "/users.txt", "w") as f:
                f.write('"bench" "bench"\n')
            with open(self.dir + "/pgbouncer.ini", "w") as f:
                f.write("[databases]\nbench = host=127.0.0.1 port=%d dbname=bench user=bench\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
                        "listen_port = %d\nauth_type = trust\nauth_file = %s/users.txt\npool_mode = session\ndefault_pool_size = 300\n"
                        "max_client_conn = 1000\nserver_tls_sslmode = disable\nunix_socket_dir =\n" % (self.pg.port, self.pgbouncer_port, self.dir))
            self.spawn(["/usr/sbin/pgbouncer", self.dir + "/pgbouncer.ini"])
            self.wait_port(self.pgbouncer_port)
        return self.pgbouncer_port

    def haproxy(self):
        if not hasattr(self, "haproxy_port"):
            self.haproxy_port = harness.free_port()
            with open(self.dir + "/haproxy.cfg", "w") as f:
                f.write("global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n"
                        "listen pg\n  bind 127.0.0.1:%d\n  server s 127.0.0.1:%d\n" % (self.haproxy_port, self.pg.port))
            self.spawn(["/usr/sbin/haproxy", "-f", self.dir + "/haproxy.cfg"])
            self.wait_port(self.haproxy_port)
        return self.haproxy_port

    @staticmethod
    def wait_port(port):
        import socket

        def up():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", port)) == 0
        harness.wait_until("port %d" % port, up)

    def through(self, name, *args):
        """pgbench's output through "gateway", "pgbouncer", "haproxy" or "direct"."""
        if name == "gateway":
            gw = self.gateway()
            return self.pgbench(gw.port, *args, user="alice", password=gw.tokens["alice"])
        port = {"pgbouncer": self.pgbouncer, "haproxy": self.haproxy, "direct": lambda: self.pg.port}[name]()
        return self.pgbench(port, *args)

    def stop(self):
        for p in self.procs:
            p.terminate()
            p.wait()
        self.close_gateway()
        self.pg.destroy()
        shutil.rmtree(self.dir, ignore_errors=True)


def tps(out):
    return float(re.search(r"tps = ([\d.]+) \(without", out).group(1))


def latency_us(out):
    """Of one client. Not from the line that says so, which is rounded to whole microseconds."""
    return 1e6 / tps(out)


def transactions(out):
    return int(re.search(r"transactions actually processed: (\d+)", out).group(1))


def recorded_actions(gw):
    """Actions in the record of all sessions that have ended, from the record itself."""
    total = 0
    for s in gw.json("sessions", "--all", "--limit", "100")["sessions"]:
        total += sum(1 for f in gw.recording(s["id"]) if f["kind"] == "action" and "SELECT abalance" in str(f["text"]))
    return total


def cpu_ns(pids):
    total = 0
    for pid in pids:
        for t in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/schedstat" % (pid, t)) as f:
                total += int(f.read().split()[0])
    return total


# ---- figures ----

@bench
def select_only_throughput(peers):
    args = ("-S", "-n", "-M", "prepared", "-c", "8", "-j", "1")
    names = ("gateway", "pgbouncer")
    for n in names:
        peers.through(n, *args, "-T", "10")
    ratios, ours, theirs = [], [], []
    for _ in range(7):
        a, b = (tps(peers.through(n, *args, "-T", "4")) for n in names)
        ratios.append(a / b)
        ours.append(a)
        theirs.append(b)
    note("gateway %.0f tps, pgbouncer %.0f tps (medians)" % (statistics.median(ours), statistics.median(theirs)))
    figure("select-only-throughput", statistics.median(ratios), "x pgbouncer", 0.70, smaller_is_better=False)
    gw = peers.gateway()
    gate = gw.pids("gate")
    everyone = [r["pid"] for r in gw.api("GET", "/v1/status")[1]["roles"]]
    before, t0 = cpu_ns(everyone), time.monotonic()
    out = peers.through("gateway", *args, "-T", "4")
    note("CPU of all our processes: %.1f us per query, %.2f of a core" % (
        (cpu_ns(everyone) - before) / 1000 / transactions(out), (cpu_ns(everyone) - before) / 1e9 / (time.monotonic() - t0)))
    strace = subprocess.Popen(["strace", "-f", "-c", "-o", peers.dir + "/strace", "-p", str(gate[0])], stderr=subprocess.DEVNULL)
    time.sleep(1)
    out = peers.through("gateway", *args, "-t", "400")
    strace.terminate()
    strace.wait()
    with open(peers.dir + "/strace") as f:
        calls = int(re.search(r"(\d+)\s+(?:\d+\s+)?total", f.read()).group(1))
    note("system calls of the gate: %.2f per query at 8 clients" % (calls / transactions(out)))


@bench
def recorded_equals_counted(peers):
    peers.close_gateway()  # a fresh record: the sessions of other figures are too long to be read whole
    gw = peers.gateway()
    before = recorded_actions(gw)
    out = peers.through("gateway", "-S", "-n", "-M", "prepared", "-c", "4", "-j", "1", "-t", "500")
    want = transactions(out)
    harness.wait_until("the sessions to be recorded", lambda: recorded_actions(gw) - before >= want)
    figure("recorded-equals-counted", abs(recorded_actions(gw) - before - want), "actions", 0)


@bench
def record_head_throughput(peers):
    """Two gateways beside each other, alike but for the rule that allows reading: `record: head` and `record: none`."""
    args = ("-S", "-n", "-M", "prepared", "-c", "8", "-j", "1")
    gws = {r: peers.gateway(record=r) for r in ("head", "none")}

    pids = {r: [x["pid"] for x in gw.api("GET", "/v1/status")[1]["roles"]] for r, gw in gws.items()}
    cpu = {r: [] for r in gws}

    def run(record, *more):
        before = cpu_ns(pids[record])
        out = peers.pgbench(gws[record].port, *args, *more, user="alice", password=gws[record].tokens["alice"])
        cpu[record].append((cpu_ns(pids[record]) - before) / 1000 / transactions(out))
        return tps(out)
    for r in gws:
        run(r, "-T", "5")
    ratios, head, none = [], [], []
    for i in range(9):
        for r in ("head", "none") if i % 2 else ("none", "head"):
            (head if r == "head" else none).append(run(r, "-T", "4"))
        ratios.append(head[-1] / none[-1])
    note("record: head %.0f tps, none %.0f tps (medians); CPU of all our processes: %.1f and %.1f us per query" % (
        statistics.median(head), statistics.median(none), *(statistics.median(cpu[r]) for r in ("head", "none"))))
    figure("record-head-throughput", statistics.median(ratios), "x none", 0.95, smaller_is_better=False)


@bench
def record_full_copy_out(peers):
    """Processor time of all our processes for a large COPY OUT of text, by what is recorded of it. Stated, without a bound."""
    rows, width = 400000, 500
    sql = "copy (select i, repeat(md5(i::text), %d) from generate_series(1, %d) i) to stdout" % (width // 32, rows)
    got = {}
    for record in ("none", "head", "full"):
        gw = peers.gateway(record=record)
        everyone = [r["pid"] for r in gw.api("GET", "/v1/status")[1]["roles"]]
        for _ in range(3):
            before, t0 = cpu_ns(everyone), time.monotonic()
            r = subprocess.run(["psql", "-XAtqc", sql, "host=127.0.0.1 port=%d user=alice dbname=bench sslmode=disable" % gw.port],
                               env=dict(peers.env, PGPASSWORD=gw.tokens["alice"]), stdout=subprocess.PIPE)
            size = len(r.stdout)
            assert r.returncode == 0 and size > rows * 400
            got.setdefault(record, []).append(((cpu_ns(everyone) - before) / size * 1e9 / 1e9, size / (time.monotonic() - t0) / 1e6))
    for record, runs in got.items():
        note("record: %s: %.2f s of processor a GB, %.0f MB/s (medians of 3)" % (
            record, statistics.median(r[0] for r in runs), statistics.median(r[1] for r in runs)))


@bench
def added_latency(peers):
    args = ("-S", "-n", "-M", "prepared", "-c", "1", "-t", "3000")
    names = ("direct", "gateway", "haproxy")
    for n in names:
        peers.through(n, "-S", "-n", "-M", "prepared", "-c", "1", "-T", "5")
    ours, theirs = [], []
    for _ in range(11):
        d, g, h = (latency_us(peers.through(n, *args)) for n in names)
        ours.append(g - d)
        theirs.append(h - d)
    note("added by the gateway %.1f us, by haproxy %.1f us (medians)" % (statistics.median(ours), statistics.median(theirs)))
    figure("added-latency", statistics.median(ours) / statistics.median(theirs), "x haproxy", 1.0)


@bench
def classification(peers):
    exe = os.path.join(harness.BUILD, "bench", "classify")
    out = subprocess.run([exe], capture_output=True, text=True, check=True).stdout
    for name, value in re.findall(r"^figure: (\S+)\s+([\d.]+)\s+ratio", out, re.M):
        figure(name, float(value), "x raw", 2.5)


@bench
def decision(peers):
    exe = os.path.join(harness.BUILD, "bench", "decide")
    out = subprocess.run([exe], capture_output=True, text=True, check=True).stdout
    for name, value in re.findall(r"^figure: (\S+)\s+([\d.]+)\s+us", out, re.M):
        figure(name, float(value), "us", 20)


def figures_of(program, *args):
    exe = os.path.join(harness.BUILD, "bench", program)
    out = subprocess.run([exe, *args], capture_output=True, text=True, check=True).stdout
    for name, value, unit, op, bound in re.findall(r"^figure: (\S+)\s+([\d.]+) (\S+)\s+must (<=|>=) (\S+)", out, re.M):
        figure(name, float(value), unit, float(bound), op == "<=")
    for line in re.findall(r"^        (\S.*)$", out, re.M):
        note(line)


@bench
def recording(peers):
    figures_of("record")


@bench
def large_recording(peers):
    """10 GB on disk, made by the writer: the only figure that needs so much room."""
    directory = harness.scratch("large")
    try:
        if shutil.disk_usage(directory).free < 20e9:
            note("not measured: %s has less than 20 GB of room" % directory)
            return
        figures_of("record", directory, "10240", "noise")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@bench
def verify(peers):
    figures_of("verify")


@bench
def group_commit(peers):
    figures_of("commit")


@bench
def keeper_proof(peers):
    """A SCRAM proof for a target, control to keeper and back: what the separation costs at the opening of a connection."""
    exe = os.path.join(harness.BUILD, "bench", "keeper")
    out = subprocess.run([exe], capture_output=True, text=True, check=True).stdout
    for name, value, bound in re.findall(r"^figure: (\S+)\s+([\d.]+)\s+us\s+must <= (\d+)", out, re.M):
        figure(name, float(value), "us", float(bound))


@bench
def dialer_round_trip(peers):
    """From control's question to the connection in its hands, beside a bare connection from the same program: what
    the separation costs at the opening of one."""
    import ipc
    folder = os.path.join(peers.dir, "dialer")
    os.mkdir(folder)
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    _, _ = ipc.installation(folder)
    config = os.path.join(folder, "home", "countersign.yaml")
    address = "127.0.0.1:%d" % listener.getsockname()[1]
    with open(config) as f:
        text = f.read().replace("127.0.0.1:3", address)
    with open(config, "w") as f:
        f.write(text)
    role = ipc.Role("DIALER", folder, *ipc.compile_snapshot(config)).start()
    bare, dialed = [], []
    try:
        control = role.peers["CONTROL"]
        for i in range(2200):
            t0 = time.perf_counter()
            c = socket.create_connection(("127.0.0.1", listener.getsockname()[1]))
            t1 = time.perf_counter()
            control.say("dial", i + 1, address=address.encode(), deadline=time.clock_gettime_ns(time.CLOCK_MONOTONIC) + 10 ** 10)
            m = control.read()
            t2 = time.perf_counter()
            if m is None or m[0].name != "dialed":
                raise AssertionError("not dialed: %r" % (m,))
            for s in (c, listener.accept()[0], listener.accept()[0]):
                s.close()
            if i >= 200:
                bare.append(t1 - t0)
                dialed.append(t2 - t1)
    finally:
        role.stop()
        listener.close()
    note("a bare connection %.0f us; both with Python's own share" % (1e6 * statistics.median(bare)))
    figure("dialer-round-trip-p50", 1e6 * statistics.median(dialed), "us", 500)
    figure("dialer-round-trip-p99", 1e6 * sorted(dialed)[len(dialed) * 99 // 100], "us", 2000)


def switches(pid):
    total = 0
    for t in os.listdir("/proc/%d/task" % pid):
        with open("/proc/%d/task/%s/status" % (pid, t)) as f:
            total += int(re.search(r"^voluntary_ctxt_switches:\s+(\d+)", f.read(), re.M).group(1))
    return total


@bench
def separation_share(peers):
    """What a query pays for its record being another process's work: its frames into the ring and out of it, and the
    recorder's sleeps and wake-ups, as a part of the processor time of all our processes. Everything else that is
    separate (logins, holds, catalogues) is not on the way of an allowed query."""
    WAKE_US = 5  # of a sleep and a wake-up across processes: more than either costs here
    out = subprocess.run([os.path.join(harness.BUILD, "bench", "ring")], capture_output=True, text=True, check=True).stdout
    values = dict(line.split() for line in out.splitlines() if len(line.split()) == 2)
    both_ns = float(values["cpu_ns"])  # a frame of 240 bytes, written and read
    args = ("-S", "-n", "-M", "prepared", "-c", "8", "-j", "1")
    peers.through("gateway", *args, "-T", "5")
    gw = peers.gateway()
    everyone, recorder = [r["pid"] for r in roles_of(gw)], gw.pids("recorder")[0]
    cpu, woken = cpu_ns(everyone), switches(recorder)
    n = transactions(peers.through("gateway", *args, "-T", "8"))
    per_query, wakes = (cpu_ns(everyone) - cpu) / n, (switches(recorder) - woken) / n
    frames = 3  # the action, its result, and room for a third: a prepared SELECT has two
    cost = frames * both_ns + wakes * 1000 * WAKE_US
    note("%.1f us of all processes per query; ring %.0f ns a frame, both ways; recorder sleeps %.4f times a query" % (per_query / 1000, both_ns, wakes))
    figure("separation-share", 100 * cost / per_query, "%", 3)


def resident(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return sum(int(x) for x in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+)", f.read(), re.M))


def idle_memory(peers, tls, name, bound, count=400):
    gw = peers.gateway(tls)
    pids = gw.pids("gate") + gw.pids("control")
    open_ones = [Wire(gw.port, gw.ca if tls else None).login("alice", gw.tokens["alice"], "bench") for _ in range(20)]
    before = [resident(p) for p in pids]
    open_ones += [Wire(gw.port, gw.ca if tls else None).login("alice", gw.tokens["alice"], "bench") for _ in range(count)]
    after = [resident(p) for p in pids]
    for w in open_ones:
        w.close()
    note("%d sessions: gate %.1f KB, control %.1f KB each" % (count, (after[0] - before[0]) / count, (after[1] - before[1]) / count))
    figure(name, (after[0] - before[0]) / count, "KB", bound)


@bench
def idle_session_plain(peers):
    idle_memory(peers, False, "idle-session-plain", 8)


@bench
def idle_session_tls(peers):
    idle_memory(peers, True, "idle-session-tls", 24)


def fdatasync_ms(folder, n=200):
    path, took = os.path.join(folder, "probe"), []
    with open(path, "wb") as f:
        for _ in range(n):
            f.write(b"x" * 300)
            f.flush()
            t = time.monotonic()
            os.fdatasync(f.fileno())
            took.append(1000 * (time.monotonic() - t))
    os.unlink(path)
    return statistics.median(took)


@bench
def decision_to_first_byte(peers):
    """From the committed vote (its time stamp) to the statement running at the server (clock_timestamp())."""
    import datetime
    gw = peers.gateway()
    took = []
    for _ in range(15):
        b = gw.psql_start("alice", "bench", "insert into stamps values (clock_timestamp()) returning extract(epoch from at)")
        request = harness.wait_until("the request", lambda: next(iter(gw.pending()), None))
        gw.approve(request["id"])
        b.finish()
        ran = float(re.search(r"^(\d+\.\d+)$", b.text, re.M).group(1))
        vote = gw.json("show", request["id"], who="bob")["votes"][0]["at"]
        at = datetime.datetime.fromisoformat(vote.replace("Z", "+00:00")).timestamp()
        took.append(1000 * (ran - at))
    barrier = fdatasync_ms(gw.home)
    note("vote to execution %.1f ms (median), one fdatasync here %.2f ms (median)" % (statistics.median(took), barrier))
    figure("decision-to-first-byte", statistics.median(took), "ms", 3 * barrier + 5)


# ---- what the separation into processes costs ----

def roles_of(gw):
    try:
        code, body = gw.api("GET", "/v1/status")
        return body["roles"] if code == 200 else []
    except (OSError, ValueError, KeyError):
        return []


def killed_and_back(gw, role):
    """Milliseconds from kill -9 until another process of the role says that it serves, and its own start."""
    old = next(r for r in roles_of(gw) if r["role"] == role)
    t0 = time.monotonic()
    os.kill(old["pid"], signal.SIGKILL)
    new = harness.wait_until("%s to be back" % role, lambda: next(
        (r for r in roles_of(gw) if (r["role"], r["index"]) == (role, old["index"]) and r["pid"] not in (0, old["pid"]) and r["ready"]), None))
    return 1000 * (time.monotonic() - t0), new["start_us"] / 1000


@bench
def role_restart(peers):
    """The first death of each role; the second soon after would wait (back-off)."""
    slowest, gates = [], []
    for _ in range(3):
        gw = peers.gateway()
        for role in ("gate", "front", "control", "keeper", "recorder", "dialer"):
            ms, start = killed_and_back(gw, role)
            slowest.append((ms, role))
            if role == "gate":
                gates.append(start)
        peers.close_gateway()
    for role in sorted({r for _, r in slowest}):
        note("%-9s %.0f ms (median of %d)" % (role, statistics.median(ms for ms, r in slowest if r == role), 3))
    figure("role-restart", max(statistics.median(ms for ms, r in slowest if r == role) for _, role in slowest), "ms", 200)
    figure("gate-start", statistics.median(gates), "ms", 10)


@bench
def ring(peers):
    out = subprocess.run([os.path.join(harness.BUILD, "bench", "ring")], capture_output=True, text=True, check=True).stdout
    values = dict(line.split() for line in out.splitlines())
    figure("ring-append", float(values["append_ns"]), "ns", 500)
    figure("ring-throughput", float(values["mb_per_s"]), "MB/s", 100, smaller_is_better=False)


@bench
def role_memory(peers):
    """Memory that is a role's own, with no session open."""
    gw = peers.gateway()
    total = 0
    for r in sorted(roles_of(gw), key=lambda r: r["role"]):
        kb = resident(r["pid"])
        total += kb
        note("%-9s %.0f KB" % (r["role"], kb))
    figure("roles-memory", total / 1024, "MB", 64)


@bench
def upgrade_gap(peers):
    """The longest time that a new connection waits while one program replaces another."""
    gw, worst = peers.gateway(), []
    for n in range(3):
        generation = gw.api("GET", "/v1/status")[1]["generation"]
        os.kill(gw.process.pid, signal.SIGUSR2)
        slowest = 0.0
        while "generation=%d " % (generation + 1) not in gw.log_text():
            t0 = time.monotonic()
            gw.connect("alice", "bench").close()
            slowest = max(slowest, time.monotonic() - t0)
        worst.append(1000 * slowest)
    figure("upgrade-gap", statistics.median(worst), "ms", 1000)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--build", default="build")
    a.add_argument("--only")
    args = a.parse_args()
    harness.BUILD = os.path.abspath(args.build)
    chosen = [(n, f) for n, f in FIGURES if not args.only or args.only in n]
    if not chosen:
        raise SystemExit("no figure of that name; there are: " + ", ".join(n for n, _ in FIGURES))
    peers = Peers()
    try:
        for _, f in chosen:
            f(peers)
    finally:
        peers.stop()
    print("%d ok, %d short" % (OK[0], SHORT[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
