"""Figures of many sessions: memory of idle ones, of ten thousand with a thousand that wait for people, and the longest
turn of a gate's loop. Called by run.py."""
import os
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request

import harness
from peers import Perf, bench, cpu_ns, figure, note, resident, roles_of
from pgwire import Wire, bind, execute, parse, query, SYNC


def idle_memory(peers, tls, name, bound, count=400):
    gw = peers.gateway(tls)
    pids = gw.pids("gate") + gw.pids("control")

    def login():
        return Wire(gw.port, gw.ca if tls else None).login("alice", gw.tokens["alice"], "bench")
    open_ones = [login() for _ in range(20)]
    before = [resident(p) for p in pids]
    open_ones += [login() for _ in range(count)]
    after = [resident(p) for p in pids]
    for w in open_ones:
        w.close()
    note("%d sessions: gate %.1f KB, control %.1f KB each" % (count, (after[0] - before[0]) / count, (after[1] - before[1]) / count))
    figure(name, (after[0] - before[0]) / count, "KB", bound)


@bench
def idle_session_plain(peers):
    idle_memory(peers, None, "idle-session-plain", 8)


@bench
def idle_session_tls(peers):
    idle_memory(peers, "client", "idle-session-tls", 24)


@bench
def idle_session_both_tls(peers):
    idle_memory(peers, "both", "idle-session-tls-both", 60)


# ---- ten thousand ----

SESSIONS, HOLDS, PEOPLE = 10000, 1000, 20
HELD = "rules:\n  - name: read\n    who: { groups: [agents] }\n    target: {}\n    when: |\n      sql.effects.all(e, e in [\"session\", \"read\"])\n    then: allow\n" \
       "  - name: change\n    who: { groups: [agents] }\n    target: {}\n    when: |\n      sql.verb == \"INSERT\"\n    then: hold\n    approvers: { groups: [dba] }\n"


def memory_by_role(gw):
    """KB of each role's own memory, its processes together."""
    out = {"supervisor": resident(gw.process.pid)}
    for r in roles_of(gw):
        out[r["role"]] = out.get(r["role"], 0) + resident(r["pid"])
    return out


def tell(what, memory):
    note("%s: %.1f MB: %s" % (what, sum(memory.values()) / 1024, ", ".join("%s %.1f" % (k, v / 1024) for k, v in sorted(memory.items()))))


@bench
def many_sessions(peers):
    """Against a server that is none, so that only the gateway's memory grows. Two gates, because a process may have
    20,000 descriptors on many machines, and a session needs two."""
    stub = subprocess.Popen([sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "stub.py"), "stub", "stub"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    target = {"name": "stub", "address": "127.0.0.1:%d" % int(stub.stdout.readline()), "database": "stub", "user": "stub", "password": "stub"}
    gw = harness.Gateway([target], rules=HELD, tls=False, gates=2, metrics=", tls: off")
    wires = []
    try:
        gw.start()
        for i in range(PEOPLE):
            gw.add_user("user%d" % i, "agents")

        def login():
            who = "user%d" % (len(wires) % PEOPLE)
            wires.append(Wire(gw.port).login(who, gw.tokens[who], "stub"))
        for _ in range(20):
            login()
        none = memory_by_role(gw)
        tell("20 sessions", none)
        t0 = time.monotonic()
        for _ in range(SESSIONS):
            login()
        idle = memory_by_role(gw)
        tell("%d more, %.0f a second" % (SESSIONS, SESSIONS / (time.monotonic() - t0)), idle)
        each = {r: (idle[r] - none[r]) / SESSIONS for r in idle}
        note("each: " + ", ".join("%s %.1f KB" % (r, kb) for r, kb in sorted(each.items()) if kb >= 0.05))
        figure("many-sessions-gate", each["gate"], "KB each", 8)
        pids = [gw.process.pid] + [r["pid"] for r in roles_of(gw)]
        before, t0 = cpu_ns(pids), time.monotonic()
        time.sleep(10)  # what they cost while nothing happens is the figure
        note("processor time of all processes meanwhile: %.2f %%" % ((cpu_ns(pids) - before) / 1e7 / (time.monotonic() - t0)))
        for i in range(0, HOLDS, 25):  # not all at once: what they take while they are made is another matter
            for w in wires[i:i + 25]:
                w.send(query("insert into t values (1)"))
            harness.wait_until("the holds", lambda: held(gw) >= i + 25)
            if i + 25 == HOLDS // 2:
                half = memory_by_role(gw)  # what control's heap grows once, it has grown by now
        holds = memory_by_role(gw)
        tell("%d of them held" % HOLDS, holds)
        more = {r: (holds[r] - half[r]) / (HOLDS / 2) for r in holds}
        note("beyond idle %.1f MB; each of the second half: " % ((sum(holds.values()) - sum(idle.values())) / 1024) +
             ", ".join("%s %.1f KB" % (r, kb) for r, kb in sorted(more.items()) if abs(kb) >= 0.05))
        figure("many-holds-memory", sum(more.values()), "KB each", 4)
        before, t0 = cpu_ns(pids), time.monotonic()
        time.sleep(20)  # two notices to each client
        note("processor time of all processes meanwhile, two notices to each: %.2f %%" % ((cpu_ns(pids) - before) / 1e7 / (time.monotonic() - t0)))
    finally:
        stub.stdin.close()
        stub.wait()
        for w in wires:
            w.sock.close()
        gw.destroy()


def held(gw):
    """Sessions that wait for people now, as the gates tell it."""
    with urllib.request.urlopen("http://127.0.0.1:%d/metrics" % gw.metrics_port) as r:
        return sum(int(n) for n in re.findall(r'(?m)^countersign_sessions\{.*state="held".*\} (\d+)$', r.read().decode()))


# ---- turns of the loop ----

def turns(pid, out, action, looks=True):
    """Nanoseconds of each turn of a process's loop while action() runs, from one epoll_wait that returned to the next,
    without what other processes took of the time in between. None: there is no perf. Without `looks` not of those that
    began with nothing new from the kernel: a session that had let others run goes on in them, or the loop only looks again."""
    with Perf("record", "-q", "--switch-events", "-e", "syscalls:sys_enter_epoll_wait", "-e", "syscalls:sys_exit_epoll_wait",
              "-o", out, "-p", str(pid)) as perf:
        if not perf.works:
            return None
        action()
    text = subprocess.run(["perf", "script", "--ns", "--show-switch-events", "-F", "time,event,trace", "-i", out], capture_output=True, text=True).stdout
    found, began, left = [], None, None
    for at, what in re.findall(r"(?m)^\s*(\d+\.\d+): *(.*)$", text):
        at = int(at.replace(".", ""))
        if "sys_exit_epoll_wait" in what:
            began = at if looks or not what.rstrip().endswith("0x0") else None
        elif began is not None and "SWITCH" in what:
            if "OUT" in what:
                left = at
            elif left is not None:
                began, left = began + at - left, None
        elif "sys_enter_epoll_wait" in what and began is not None:
            found.append(at - began)
            began = None
    return found


REQUESTS = (  # what one client may send at once; the answers do not matter
    ("64 KB of text, 7,000 statements", lambda w: w.send(query("select 1;" * 7000))),
    ("64 KB of text, one expression", lambda w: w.send(query("select 1" + "+1" * 32000))),
    ("1 MB of text", lambda w: w.send(query("select '" + "x" * 1000000 + "'"))),
    ("1 MB of parameters", lambda w: w.send(parse("select $1::text"), bind(["x" * 1000000]), execute(), SYNC)),
    ("300 statements that write, judged by 200 conditions", lambda w: w.send(query(";".join("delete from t%d" % i for i in range(250))))),
    ("256 messages in one buffer", lambda w: w.send(b"".join(parse("select %d" % i) + bind() + execute() + SYNC for i in range(64)))),
    ("100 MB of answer", lambda w: w.send(query("select repeat('x', 1000) from generate_series(1, 100000)"))),
)


@bench
def loop_turn(peers):
    """The longest turn that one client's request causes, in median turns of a session that sends small queries."""
    gw = peers.gateway()
    gate = gw.pids("gate")[0]
    ping, other = (Wire(gw.port).login("alice", gw.tokens["alice"], "bench") for _ in range(2))
    took = []

    def pings(n=None, until=None):
        while n is None or n > 0:
            t0 = time.monotonic()
            ping.send(bind(statement="ping"), execute(), SYNC)
            ping.until_ready()
            took.append(1e6 * (time.monotonic() - t0))
            n = n - 1 if n is not None else None
            if until is not None and until.is_set():
                return

    def beside(request):
        """One request while the other session pings, and its answer."""
        over = threading.Event()
        t = threading.Thread(target=pings, args=(None, over))
        t.start()
        for _ in range(5):
            request(other)
            other.send(query("select 'over'"))
            while True:
                kind, body = other.read()
                if kind == "D" and body.endswith(b"over"):
                    break
            other.until_ready()
        over.set()
        t.join()

    ping.send(parse("select 1", name="ping"), SYNC)
    ping.until_ready()
    pings(200)
    out = os.path.join(peers.dir, "turns")
    quiet = turns(gate, out, lambda: pings(2000), looks=False)
    if not quiet:
        note("not measured: perf is not there, or may not trace system calls")
        return
    median = statistics.median(quiet)
    note("a turn takes %.1f us (median of %d), the longest of them %.0f us" % (median / 1000, len(quiet), max(quiet) / 1000))
    worst = 0.0
    for name, request in REQUESTS:
        took.clear()
        found = turns(gate, out, lambda: beside(request))
        note("%-52s longest turn %8.0f us, %6.1f median turns; longest ping %6.1f ms" % (name, max(found) / 1000, max(found) / median, max(took) / 1000))
        worst = max(worst, max(found) / median)
    figure("loop-turn", worst, "x median", 3)
