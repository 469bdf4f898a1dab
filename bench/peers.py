"""What the figures are measured against, and how: a server, a gateway, pgbouncer and haproxy, their clients,
and the lines that a figure prints. Used by run.py and the files of figures beside it."""
import os
import re
import shutil
import signal
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
import harness  # noqa: E402

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
        self.gateways, self.pgbouncers = {}, {}

    def pgbench_argv(self, port, *args, user="bench", password="bench", sslmode="disable"):
        env = dict(self.env, PGPASSWORD=password, PGSSLMODE=sslmode, PGHOSTADDR="127.0.0.1")
        return [harness.PG_BIN + "/pgbench", *args, "-h", "localhost", "-p", str(port), "-U", user, "bench"], env

    def pgbench(self, port, *args, **who):
        argv, env = self.pgbench_argv(port, *args, **who)
        r = subprocess.run(argv, env=env, capture_output=True, text=True)
        if r.returncode != 0:
            raise SystemExit("pgbench failed: " + r.stderr[-1500:])
        return r.stdout

    def gateway(self, tls=None, record=None, one=False):
        """`tls`: None, "client" or "both" sides. `one`: gate and recorder in a single process (bench/one)."""
        if (tls, record, one) not in self.gateways:
            t = {"name": "bench", "address": "127.0.0.1:%d" % self.pg.port, "database": "bench", "tls": "off",
                 "user": "bench", "password": "bench"}
            if tls == "both":
                t.update(tls="verify-full", roots=self.pg.root)
            programs = self.one_programs() if one else None
            gw = harness.Gateway([t], rules=many_rules(record=record), tls=tls is not None, gates=1, programs=programs,
                                 env={"COUNTERSIGN_LIBEXEC": programs} if one else None).start()
            gw.add_user("alice", "agents")
            gw.add_user("bob", "dba")
            self.gateways[tls, record, one] = gw
        return self.gateways[tls, record, one]

    def one_programs(self):
        folder = os.path.join(self.dir, "one")
        built = os.path.join(harness.BUILD, "src", "programs")
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o755)
        for name in os.listdir(built):
            if os.path.isfile(os.path.join(built, name)):
                shutil.copy(os.path.join(built, name), folder)
        for name in ("gate", "recorder"):
            shutil.copy(os.path.join(harness.BUILD, "bench", "one", "one-" + name), os.path.join(folder, name))
        return folder

    def close_gateway(self):
        for gw in self.gateways.values():
            gw.destroy()
        self.gateways = {}

    def spawn(self, argv):
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             cwd=self.dir, start_new_session=True, **harness.unprivileged())
        self.procs.append(p)
        return p

    def pgbouncer(self, tls=None):
        """(port, process) of one with session pooling; `tls`: None or "both" sides."""
        if tls not in self.pgbouncers:
            port, at = harness.free_port(), os.path.join(self.dir, "pgbouncer-%s" % tls)
            with open(self.dir + "/users.txt", "w") as f:
                f.write('"bench" "bench"\n')
            way = "server_tls_sslmode = disable\n"
            if tls:
                for name in ("server.key", "server.crt"):
                    shutil.copy(os.path.join(self.pg.data, name), os.path.join(self.dir, name))
                    shutil.chown(os.path.join(self.dir, name), **{k: v for k, v in harness.unprivileged().items() if k == "user"})
                way = ("server_tls_sslmode = require\nclient_tls_sslmode = require\nclient_tls_key_file = %s/server.key\n"
                       "client_tls_cert_file = %s/server.crt\n" % (self.dir, self.dir))
            with open(at, "w") as f:
                f.write("[databases]\nbench = host=127.0.0.1 port=%d dbname=bench user=bench\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
                        "listen_port = %d\nauth_type = trust\nauth_file = %s/users.txt\npool_mode = session\ndefault_pool_size = 300\n"
                        "max_client_conn = 1000\nunix_socket_dir =\n%s" % (self.pg.port, port, self.dir, way))
            process = self.spawn(["/usr/sbin/pgbouncer", at])
            self.wait_port(port)
            self.pgbouncers[tls] = port, process
        return self.pgbouncers[tls]

    def haproxy(self):
        if not hasattr(self, "haproxy_port"):
            self.haproxy_port = harness.free_port()
            with open(self.dir + "/haproxy.cfg", "w") as f:
                f.write("global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n"
                        "listen pg\n  bind 127.0.0.1:%d\n  server s 127.0.0.1:%d\n" % (self.haproxy_port, self.pg.port))
            self.haproxy_process = self.spawn(["/usr/sbin/haproxy", "-f", self.dir + "/haproxy.cfg"])
            self.wait_port(self.haproxy_port)
        return self.haproxy_port

    @staticmethod
    def wait_port(port):
        import socket

        def up():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", port)) == 0
        harness.wait_until("port %d" % port, up)

    def door(self, name, tls=None):
        """Where pgbench reaches the server through "gateway", "pgbouncer", "haproxy" or "direct"; `tls`: None or "both" sides."""
        mode = "require" if tls else "disable"
        if name == "gateway":
            gw = self.gateway(tls)
            return gw.port, {"user": "alice", "password": gw.tokens["alice"], "sslmode": mode}
        port = {"pgbouncer": lambda: self.pgbouncer(tls)[0], "haproxy": self.haproxy, "direct": lambda: self.pg.port}[name]()
        return port, {"sslmode": mode}

    def through(self, name, *args, tls=None):
        """pgbench's output."""
        port, who = self.door(name, tls)
        return self.pgbench(port, *args, **who)

    def steady(self, name, *args, tls=None, pids=(), warm=4, seconds=4):
        """Transactions a second, and the processor time of `pids` for each in us, of a run that is warm already.

        The first seconds do not count: a server's process that is new maps its memory page by page, and a pooler's
        are not new in its second run."""
        port, who = self.door(name, tls)
        argv, env = self.pgbench_argv(port, *args, "-P", "1", "-T", str(warm + seconds + 1), **who)
        p = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        began = ended = None
        n, last, said = 0.0, 0.0, []
        for line in p.stderr:
            m = re.match(r"progress: ([\d.]+) s, ([\d.]+) tps", line)
            said.append(line)
            if m is None:
                continue
            now, rate = map(float, m.groups())
            if began is not None and ended is None:
                n += rate * (now - last)
            if began is None and now >= warm:
                began = now, cpu_ns(pids)
            elif began is not None and ended is None and now >= warm + seconds:
                ended = now, cpu_ns(pids)
            last = now
        if p.wait() != 0 or ended is None or n == 0:
            raise SystemExit("pgbench failed: " + "".join(said)[-1500:])
        return n / (ended[0] - began[0]), (ended[1] - began[1]) / 1000 / n

    def pids(self, name, tls=None):
        """The processes whose time is `name`'s: all roles of the gateway, or the peer itself."""
        if name == "gateway":
            gw = self.gateway(tls)
            return [gw.process.pid] + [r["pid"] for r in gw.api("GET", "/v1/status")[1]["roles"]]
        if name == "pgbouncer":
            return [self.pgbouncer(tls)[1].pid]
        self.haproxy()
        return [self.haproxy_process.pid]

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


class Perf:
    """`with Perf("record", …)`: perf counts or records what its arguments say inside the block, from when it says that it
    has begun. `works` is False where there is no perf, or it may not."""

    def __init__(self, command, *args):
        self.argv, self.works = ["perf", command, "-D", "-1", *args], True

    def __enter__(self):
        (orders, tell), (hear, answers) = os.pipe(), os.pipe()
        self.ours = tell, hear  # open to the end: without them perf records nothing
        try:
            self.process = subprocess.Popen(self.argv[:2] + ["--control", "fd:%d,%d" % (orders, answers)] + self.argv[2:], pass_fds=(orders, answers),
                                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except OSError:
            self.works = False
        os.close(orders)
        os.close(answers)
        try:
            os.write(tell, b"enable\n")
            self.works = self.works and os.read(hear, 16) != b""  # nothing: it has ended
        except BrokenPipeError:
            self.works = False
        return self

    def __exit__(self, *_):
        if hasattr(self, "process"):
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
        for fd in self.ours:
            os.close(fd)


def cpu_ns(pids):
    total = 0
    for pid in pids:
        for t in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/schedstat" % (pid, t)) as f:
                total += int(f.read().split()[0])
    return total


def resident(pid):
    with open("/proc/%d/smaps_rollup" % pid) as f:
        return sum(int(x) for x in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+)", f.read(), re.M))


def roles_of(gw):
    try:
        code, body = gw.api("GET", "/v1/status")
        return body["roles"] if code == 200 else []
    except (OSError, ValueError, KeyError):
        return []
