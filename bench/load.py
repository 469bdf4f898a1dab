"""Figures of a loaded gateway beside pgbouncer and haproxy: throughput, processor time and system calls per query,
processor time per GB. Called by run.py."""
import os
import re
import statistics
import subprocess
import time

from peers import Perf, bench, cpu_ns, figure, note, tps, transactions

SELECT = ("-S", "-n", "-M", "prepared", "-c", "8", "-j", "1")


def system_calls(peers, name, tls):
    """System calls per query of the gate, or of pgbouncer, at the same load. None: perf may not count them."""
    pid = (peers.gateway(tls).pids("gate") if name == "gateway" else peers.pids(name, tls))[0]
    out = os.path.join(peers.dir, "calls")
    with Perf("stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o", out, "-p", str(pid)) as perf:
        n = transactions(peers.through(name, *SELECT, "-T", "4", tls=tls)) if perf.works else 0
    if n == 0:
        return None
    with open(out) as f:
        m = re.search(r"(?m)^(\d+),.*sys_enter", f.read())
    return int(m.group(1)) / n if m else None


def throughput(peers, tls, suffix):
    """Throughput and, in the same runs, processor time per query: of all our processes, and of pgbouncer."""
    names = ("gateway", "pgbouncer")
    for n in names:
        peers.through(n, *SELECT, "-T", "6", tls=tls)
    pids = {n: peers.pids(n, tls) for n in names}
    rate, cpu = {n: [] for n in names}, {n: [] for n in names}
    for i in range(7):
        for n in names if i % 2 else names[::-1]:
            r, c = peers.steady(n, *SELECT, tls=tls, pids=pids[n])
            rate[n].append(r)
            cpu[n].append(c)
    note("gateway %.0f tps, pgbouncer %.0f tps; processor time per query %.1f us of all our processes, %.1f us (medians)" % (
        *(statistics.median(rate[n]) for n in names), *(statistics.median(cpu[n]) for n in names)))
    ours, theirs = (system_calls(peers, n, tls) for n in names)
    if ours and theirs:
        note("system calls per query: gate %.2f, pgbouncer %.2f" % (ours, theirs))
    figure("select-only-throughput" + suffix, statistics.median(a / b for a, b in zip(*(rate[n] for n in names))), "x pgbouncer",
           0.95, smaller_is_better=False)
    figure("cpu-per-query" + suffix, statistics.median(a / b for a, b in zip(*(cpu[n] for n in names))), "x pgbouncer", 1.25)


@bench
def select_only_plain(peers):
    throughput(peers, None, "")


@bench
def select_only_tls(peers):
    throughput(peers, "both", "-tls")


COPY_MB = 1000


@bench
def copy_out(peers):
    """A COPY OUT of 1 GB of text: processor time per GB of all our processes, by what is recorded of it, and of haproxy."""
    peers.pg.sql("create unlogged table wide as select i, repeat(md5(i::text), 31) t from generate_series(1, %d000) i; "
                 "grant select on wide to bench" % COPY_MB, "bench")
    got = {}

    def run(name, port, user, password, pids):
        before, t0 = cpu_ns(pids), time.monotonic()
        p = subprocess.Popen(["psql", "-XAtqc", "copy wide to stdout", "host=127.0.0.1 port=%d user=%s dbname=bench sslmode=disable" % (port, user)],
                             env=dict(peers.env, PGPASSWORD=password), stdout=subprocess.PIPE)
        size, piece = 0, memoryview(bytearray(1 << 20))
        while True:
            n = p.stdout.readinto(piece)
            if not n:
                break
            size += n
        assert p.wait() == 0 and size > 990000 * COPY_MB
        got.setdefault(name, []).append(((cpu_ns(pids) - before) / size, size / (time.monotonic() - t0) / 1e6))
    gws = {r: peers.gateway(record=r) for r in ("head", "none", "full")}
    pids = {r: [gw.process.pid] + [x["pid"] for x in gw.api("GET", "/v1/status")[1]["roles"]] for r, gw in gws.items()}
    for i in range(6):
        for r in ("haproxy", "head", "none", "full"):
            if r == "haproxy":
                run(r, peers.haproxy(), "bench", "bench", peers.pids("haproxy"))
            elif r == "head" or i < 4:
                run(r, gws[r].port, "alice", gws[r].tokens["alice"], pids[r])
        if i == 0:
            got.clear()  # warm now
    peers.pg.sql("drop table wide", "bench")
    for name, runs in got.items():
        note("%-8s %.2f s of processor a GB, %.0f MB/s (medians of %d)" % (
            name, statistics.median(r[0] for r in runs), statistics.median(r[1] for r in runs), len(runs)))
    figure("copy-out-record-head", statistics.median(a[0] / b[0] for a, b in zip(got["head"], got["haproxy"])), "x haproxy", 1.1)
    note("record: full %.2f x haproxy" % statistics.median(a[0] / b[0] for a, b in zip(got["full"], got["haproxy"])))
