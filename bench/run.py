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
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
import harness  # noqa: E402
import load  # noqa: E402, F401  (its figures)
import sessions  # noqa: E402, F401
from peers import FIGURES, OK, SHORT, Peers, bench, cpu_ns, figure, latency_us, note, resident, roles_of, tps, transactions  # noqa: E402


def recorded_actions(gw):
    """Actions in the record of all sessions that have ended, from the record itself."""
    total = 0
    for s in gw.json("sessions", "--all", "--limit", "100")["sessions"]:
        total += sum(1 for f in gw.recording(s["id"]) if f["kind"] == "action" and "SELECT abalance" in str(f["text"]))
    return total


# ---- figures ----

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
def long_text(peers):
    """A statement of a megabyte, rows of 80 bytes, and back: a job of the gateway's parses it. The first one waits for the
    job's start, the others do not."""
    rows = ",".join("(%d,'%s')" % (i, "row %d " % i + "x" * 56) for i in range(13000))
    sql = "select count(*) from (values %s) v" % rows
    gw = peers.gateway()
    c = {"gateway": gw.connect("alice", "bench"), "direct": peers.pg.connect("bench", "bench", "bench")}

    def ms(name):
        with c[name].cursor() as cur:
            began = time.monotonic()
            cur.execute(sql)
            return (time.monotonic() - began) * 1e3
    first = ms("gateway")
    took = {n: [] for n in c}
    for _ in range(20):
        for n in c:
            took[n].append(ms(n))
            time.sleep(0.05)
    added = statistics.median(a - b for a, b in zip(took["gateway"], took["direct"]))
    note("%d bytes: direct %.1f ms, gateway %.1f ms (medians), its first %.1f ms" % (
        len(sql), statistics.median(took["direct"]), statistics.median(took["gateway"]), first))
    figure("long-text-added", added, "ms", 50)
    for x in c.values():
        x.close()


@bench
def text_3kb(peers):
    """A statement of 3 KB as a mapper writes them, new each time: the gate's own parser parses it. What the gateway adds
    to it, beyond what it adds to a new short one, which it parses itself."""
    columns = ", ".join('t0."column_number_%d" AS "t0_column_number_%d"' % (i, i) for i in range(45))
    values = ", ".join("%d AS column_number_%d" % (i, i) for i in range(45))
    made = {"short": "SELECT ?", "long": "SELECT %s FROM (SELECT %s) t0 WHERE ? = 1" % (columns, values)}
    gw = peers.gateway()
    c = {"gateway": gw.connect("alice", "bench"), "direct": peers.pg.connect("bench", "bench", "bench")}
    took = {(n, k): [] for n in c for k in made}
    for x in c.values():
        x.autocommit = True
    for i in range(1000):
        for k, sql in made.items():
            for n in c:
                with c[n].cursor() as cur:
                    began = time.monotonic()
                    cur.execute(sql.replace("?", str(100000 + i)))
                    took[n, k].append((time.monotonic() - began) * 1e6)
    added = {k: statistics.median(a - b for a, b in zip(took["gateway", k], took["direct", k])) for k in made}
    note("%d bytes: direct %.0f us, gateway %.0f us, added %.0f us; a short one: added %.0f us (medians)" % (
        len(made["long"]), statistics.median(took["direct", "long"]), statistics.median(took["gateway", "long"]), added["long"], added["short"]))
    figure("text-3kb-added", added["long"] - added["short"], "us", 200)
    for x in c.values():
        x.close()


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


def recorded_beyond_counted(peers, gw):
    before = recorded_actions(gw)
    out = peers.pgbench(gw.port, "-S", "-n", "-M", "prepared", "-c", "4", "-j", "1", "-t", "300", user="alice", password=gw.tokens["alice"])
    want = transactions(out)
    harness.wait_until("the sessions to be recorded", lambda: recorded_actions(gw) - before >= want)
    return abs(recorded_actions(gw) - before - want)


@bench
def separation_throughput(peers):
    """The gateway as it is against one whose gate and recorder are a single process on one loop (bench/one), in turn. Nothing
    else is on the way of an allowed query: the other processes are not even woken by it, which is counted."""
    peers.close_gateway()
    gws = {"real": peers.gateway(), "one": peers.gateway(one=True)}
    figure("separation-recorded", sum(recorded_beyond_counted(peers, gw) for gw in gws.values()), "actions", 0)
    pids = {n: [r["pid"] for r in roles_of(gw)] for n, gw in gws.items()}
    others = [r["pid"] for r in roles_of(gws["real"]) if r["role"] not in ("gate", "recorder")]

    def run(name, clients, seconds):
        gw, before = gws[name], cpu_ns(pids[name])
        out = peers.pgbench(gw.port, "-S", "-n", "-M", "prepared", "-c", clients, "-j", "1", "-T", seconds,
                            user="alice", password=gw.tokens["alice"])
        if "tps" not in out:
            raise SystemExit("pgbench said nothing of its throughput: " + out)
        return tps(out), (cpu_ns(pids[name]) - before) / 1000 / transactions(out)

    for clients in ("8", "1"):
        ratios, seen = [], {"real": [], "one": []}
        for name in gws:
            run(name, clients, "3")
        for i in range(7):
            got = {name: run(name, clients, "3") for name in sorted(gws, reverse=i % 2 == 0)}
            for name in gws:
                seen[name].append(got[name])
            ratios.append(got["real"][0] / got["one"][0])
        note("%s client%s: %.0f tps, in one process %.0f; %.1f us of all processes per query, %.1f" % (
            clients, "" if clients == "1" else "s", *(statistics.median(x[0] for x in seen[n]) for n in ("real", "one")),
            *(statistics.median(x[1] for x in seen[n]) for n in ("real", "one"))))
        figure("separation-throughput-%s" % clients, statistics.median(ratios), "x one process", 0.97, smaller_is_better=False)

    def woken(seconds):
        before = sum(switches(p) for p in others)
        time.sleep(seconds)
        return sum(switches(p) for p in others) - before

    idle, busy = woken(3), []
    middle = threading.Timer(5, lambda: busy.append(woken(3)))  # the log-ins are over by then
    middle.start()
    per_second = run("real", "8", "10")[0]
    middle.join()
    note("control, keeper, dialer, probe and front were woken %d times in 3 s of idleness, %d in 3 s at %.0f queries a second" % (idle, busy[0], per_second))
    figure("separation-others-woken", max(0, busy[0] - idle) / (3 * per_second), "a query", 0.01)


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
