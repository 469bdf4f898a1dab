"""The metrics listener: what Prometheus would read, and whether the gateway says that it is well."""
import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import unittest

import harness
from harness import wait_until

PREFIX = "countersign_"
NAME = re.compile(r"^[a-z_:][a-z0-9_:]*$")
SAMPLE = re.compile(r'^([a-z_:][a-z0-9_:]*)\{((?:[a-z_][a-z0-9_]*="[^"\\\n]*"(?:,|(?=\})))*)\} ([0-9]+(?:\.[0-9]+)?)$')
LABEL = re.compile(r'([a-z_][a-z0-9_]*)="([^"\\\n]*)"')


def rows_of_the_table():
    """name -> its help, from the table that the program is made from."""
    import sys
    sys.path.insert(0, os.path.join(harness.ROOT, "tools"))
    import tree
    return {PREFIX + r[5]: r for r in tree.table("src/ipc/metrics.def", "CS_METRIC")}


def parse(text):
    """Text format 0.0.4, strictly, as this gateway may write it: {(name, frozenset of labels): number}. Fails on anything else."""
    samples, types, helped, family = {}, {}, set(), None
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        m = re.match(r"^# (HELP|TYPE) (\S+) (.+)$", line)
        if m:
            kind, name, rest = m.groups()
            assert NAME.match(name), line
            if kind == "HELP":
                assert name not in helped, "told twice: " + line
                helped.add(name)
                family = name
            else:
                assert name == family and rest in ("counter", "gauge", "histogram") and name not in types, line
                types[name] = rest
            continue
        m = SAMPLE.match(line)
        assert m, "not a sample: %r" % line
        name, labels, value = m.groups()
        pairs = LABEL.findall(labels)
        assert len(dict(pairs)) == len(pairs), line
        base = name
        if types[family] == "histogram":
            base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert base == family, "outside its family: " + line
        assert types[family] != "counter" or name.endswith("_total"), line
        key = (name, frozenset(pairs))
        assert key not in samples, "twice: " + line
        samples[key] = float(value)
    check_histograms(samples, types)
    return samples


def check_histograms(samples, types):
    for name in (n for n, t in types.items() if t == "histogram"):
        series = {}
        for (n, labels), v in samples.items():
            if n == name + "_bucket":
                le = dict(labels)["le"]
                series.setdefault(frozenset(p for p in labels if p[0] != "le"), []).append((float(le.replace("+Inf", "inf")), v))
        for labels, buckets in series.items():
            buckets.sort()
            assert buckets[-1][0] == float("inf") and [v for _, v in buckets] == sorted(v for _, v in buckets), name
            assert samples[(name + "_count", labels)] == buckets[-1][1] and (name + "_sum", labels) in samples, name


class Metrics(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pg = harness.shared_postgres()
        cls.roles = harness.make_database(cls.pg, "metered")
        cls.gw = harness.Gateway([harness.target_of(cls.pg, "metered", cls.roles)], gates=2, metrics=", tls: off").start().people()

    @classmethod
    def tearDownClass(cls):
        cls.gw.destroy()

    def get(self, path, method="GET", gw=None, **more):
        gw = gw or self.gw
        c = http.client.HTTPConnection("127.0.0.1", gw.metrics_port, timeout=harness.PATIENCE)
        try:
            c.request(method, path, **more)
            r = c.getresponse()
            return r.status, r.read().decode(), r.headers
        finally:
            c.close()

    def samples(self, gw=None):
        status, text, headers = self.get("/metrics", gw=gw)
        self.assertEqual((status, headers["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        return parse(text)

    def total(self, name, gw=None, **labels):
        """The sum of all series of this name that have these labels."""
        return sum(v for (n, have), v in self.samples(gw).items() if n == PREFIX + name and set(labels.items()) <= set(have))

    def await_total(self, name, least, **labels):
        wait_until("%s%r to be %d" % (name, labels, least), lambda: self.total(name, **labels) >= least)

    def test_every_metric_of_the_table_is_told_in_the_format_that_prometheus_reads(self):
        self.assertEqual(self.gw.psql("alice", "metered", "select 1").returncode, 0)
        self.await_total("process_up", 9)
        status, text, _ = self.get("/metrics")
        names = set(re.findall(r"^# TYPE (\S+)", text, re.M))
        told = {n for n, r in rows_of_the_table().items() if r[1] != "NOBODY"}
        self.assertEqual(names, told)
        parse(text)
        if shutil.which("promtool"):  # Debian's package would also start a server: not among those that tests need
            r = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
            self.assertEqual((r.returncode, r.stdout + r.stderr), (0, ""))

    def test_the_example_rules_name_metrics_that_are_there(self):
        rules = os.path.join(harness.ROOT, "examples", "alerts.yml")
        if shutil.which("promtool"):
            r = subprocess.run(["promtool", "check", "rules", rules], capture_output=True, text=True)
            self.assertEqual(r.returncode, 0, r.stdout + r.stderr)
        with open(rules) as f:
            used = set(re.findall(r"countersign_[a-z0-9_]+", f.read()))
        known = {re.sub(r"_(bucket|sum|count)$", "", n) for n, _ in self.samples()} | set(rows_of_the_table())
        self.assertGreater(len(used), 10)
        for name in used:
            self.assertIn(re.sub(r"_(bucket|sum|count)$", "", name), known)

    def test_what_happens_is_counted(self):
        before = {n: self.total(n, **l) for n, l in (("sessions_opened_total", {}), ("results_total", {}))}
        refused = self.total("logins_total", outcome="refused")
        selects = self.total("decisions_total", outcome="allow", verb="select")
        denied = self.total("decisions_total", outcome="deny", verb="truncate")
        self.assertEqual(self.gw.psql("alice", "metered", "select 1", "select count(*) from orders").returncode, 0)
        self.assertNotEqual(self.gw.psql("alice", "metered", "truncate orders").returncode, 0)
        env = self.gw.pg_env("alice", PGPASSWORD="wrong")
        self.assertNotEqual(subprocess.run(["psql", "-XAtc", "select 1", "metered"], env=env, capture_output=True).returncode, 0)
        self.await_total("decisions_total", selects + 2, outcome="allow", verb="select")
        self.await_total("decisions_total", denied + 1, outcome="deny", verb="truncate")
        self.await_total("sessions_opened_total", before["sessions_opened_total"] + 2)
        self.await_total("results_total", before["results_total"] + 2)
        self.await_total("logins_total", refused + 1, outcome="refused")
        self.await_total("logins_total", 2, outcome="ok")
        self.await_total("upstream_connections_total", 2, outcome="ok", credential="everyday")
        self.await_total("dials_total", 2, outcome="ok")
        self.await_total("client_bytes_total", 1, direction="in")
        self.await_total("client_bytes_total", 1, direction="out")
        self.await_total("secret_uses_total", 2, use="proof", outcome="ok")
        self.await_total("recorded_frames_total", 4)
        self.await_total("recording_file_bytes_total", 1)
        self.await_total("journal_sync_seconds_count", 1)
        self.await_total("log_events_total", 1, event="auth-failed", process="control")
        self.await_total("store_commits_total", 1)
        self.await_total("process_resident_memory_bytes", 1 << 20, process="recorder")

    def test_a_hold_is_counted_from_its_beginning_to_its_end(self):
        """Held, voted on, granted, run elevated: each step in its own number."""
        held = self.total("holds_total", ended="granted")
        p = self.gw.psql_start("alice", "metered", "delete from orders where id = 1")
        request = self.gw.wait_pending()[0]["id"]
        self.await_total("sessions", 1, state="held")
        self.await_total("requests_pending", 1)
        self.assertNotEqual(self.gw.approve(request, who="alice", ok=False).returncode, 0)
        self.gw.approve(request)
        self.assertEqual(p.finish(), 0, p.text)
        self.await_total("holds_total", held + 1, ended="granted")
        self.await_total("hold_seconds_count", held + 1)
        self.await_total("votes_total", 1, vote="approve", outcome="ok")
        self.await_total("grants_total", 1, outcome="used")
        self.await_total("requests_total", 1, state="pending")
        self.await_total("requests_total", 1, state="done")
        self.await_total("upstream_connections_total", 1, outcome="ok", credential="elevated")
        self.await_total("record_wait_seconds_count", 1)
        wait_until("nobody to be held", lambda: self.total("sessions", state="held") == 0)
        wait_until("no request to be pending", lambda: self.total("requests_pending") == 0)

    def test_no_name_no_text_no_address_and_no_secret_is_told(self):
        """SECURITY: whoever reaches the listener may read it, and a time series is kept for years."""
        marks = ["zinnoberrot", "orders_secret_table"]
        self.gw.psql("alice", "metered", "select 'zinnoberrot'", "select * from orders_secret_table")
        subprocess.run(["psql", "-XAtc", "select 1", "metered"], env=self.gw.pg_env("zinnoberrot"), capture_output=True)
        self.await_total("log_events_total", 1, event="auth-failed")
        text = self.get("/metrics")[1]
        marks += list(self.gw.tokens) + list(self.gw.tokens.values()) + [self.roles[k] for k in self.roles] + ["metered", "127.0.0.1"]
        for mark in marks:
            self.assertNotIn(mark, re.sub(r"^# .*$", "", text, flags=re.M), mark)
        allowed = {"process", "le"} | {l.split('"')[1] for l in open(os.path.join(harness.ROOT, "src/ipc/metrics.def")) if l.startswith("CS_DIM")}
        for _, labels in self.samples():
            self.assertLessEqual({k for k, _ in labels}, allowed)

    def test_the_number_of_series_does_not_depend_on_what_clients_do(self):
        before = set(self.samples())
        for n in range(5):
            self.gw.psql("alice", "metered", "select %d" % n, "select 'x%d'" % n)
            subprocess.run(["psql", "-XAtc", "select 1", "metered"], env=self.gw.pg_env("user%d" % n), capture_output=True)
        self.assertEqual({k for k in self.samples() if "_time_seconds" not in k[0]}, {k for k in before if "_time_seconds" not in k[0]})

    def test_the_listener_tells_nothing_else_and_the_others_do_not_tell_it(self):
        self.assertEqual(self.get("/v1/status", headers={"Authorization": "Bearer " + self.gw.tokens["bob"]})[0], 404)
        self.assertEqual(self.get("/r/7Q2KD4M9")[0], 404)
        self.assertEqual(self.get("/metrics/x")[0], 404)
        self.assertEqual(self.get("/metrics", method="POST", body="x")[0], 405)
        self.assertEqual(self.get("/metrics", method="DELETE")[0], 405)
        self.assertEqual(self.gw.api("GET", "/metrics", who="bob", local=False)[0], 404)
        self.assertEqual(self.gw.api("GET", "/readyz", who="bob")[0], 404)

    def test_it_is_ready_and_says_what_is_not(self):
        self.assertEqual(self.get("/healthz")[:2], (200, "ok\n"))
        wait_until("it to be ready", lambda: self.get("/readyz")[:2] == (200, "ready\n"))
        (keeper,) = self.gw.pids("keeper")
        restarts = self.total("process_restarts_total", process="keeper")
        os.kill(keeper, signal.SIGKILL)
        self.await_total("process_restarts_total", restarts + 1, process="keeper")
        wait_until("it to be ready again", lambda: self.get("/readyz")[0] == 200)
        self.assertEqual(self.total("master_keys"), 1)

    def test_a_role_that_does_not_come_up_is_named(self):
        gw = harness.Gateway([harness.target_of(self.pg, "metered", self.roles)], metrics=", tls: off").start(secrets=False)
        try:
            wait_until("it to be ready", lambda: self.get("/readyz", gw=gw)[0] == 200)
            key = os.path.join(gw.home, "master.key")
            os.rename(key, key + ".gone")  # keeper's next start finds none
            os.kill([r["pid"] for r in gw.api("GET", "/v1/status")[1]["roles"] if r["role"] == "keeper"][0], signal.SIGKILL)
            wait_until("keeper to be missed", lambda: "keeper: is not running" in self.get("/readyz", gw=gw)[1])
            self.assertEqual(self.get("/readyz", gw=gw)[0], 503)
            self.assertEqual(self.get("/healthz", gw=gw)[0], 200)  # nothing that a restart of everything would mend
            os.rename(key + ".gone", key)
            wait_until("it to be ready again", lambda: self.get("/readyz", gw=gw)[0] == 200)
        finally:
            gw.destroy()

    def test_a_new_front_and_a_new_gate_tell_all_numbers(self):
        gw = harness.Gateway([harness.target_of(self.pg, "metered", self.roles)], metrics=", tls: off").start().people()
        try:
            def all_there():
                try:
                    return {dict(l)["process"] for n, l in self.samples(gw) if n == PREFIX + "process_up"} == {
                        "supervisor", "gate/0", "front", "control", "keeper", "dialer", "probe", "recorder"}
                except OSError:
                    return False
            wait_until("all processes", all_there)
            for role in ("front", "gate"):
                os.kill(gw.pids(role)[0], signal.SIGKILL)
                wait_until("a new " + role, lambda: all_there() and self.total("process_restarts_total", gw, process={"gate": "gate/0"}.get(role, role)) >= 1
                           and self.get("/readyz", gw=gw)[0] == 200)
            wait_until("a log-in", lambda: gw.psql("alice", "metered", "select 1").returncode == 0)
            wait_until("the new gate's numbers", lambda: self.total("decisions_total", gw, process="gate/0", verb="select") >= 1)
        finally:
            gw.destroy()

    def test_with_tls_it_has_the_listeners_certificate_and_says_when_it_expires(self):
        gw = harness.Gateway([harness.target_of(self.pg, "metered", self.roles)], metrics="").start(secrets=False)
        try:
            ctx = ssl.create_default_context(cafile=gw.ca)
            c = http.client.HTTPSConnection("localhost", gw.metrics_port, context=ctx, timeout=harness.PATIENCE)
            c.request("GET", "/metrics")
            samples = parse(c.getresponse().read().decode())
            c.close()
            end = subprocess.run(["openssl", "x509", "-enddate", "-noout", "-in", gw.ca], capture_output=True, text=True, check=True)
            end = ssl.cert_time_to_seconds(end.stdout.strip().partition("=")[2])
            for listener in ("control", "postgres", "metrics"):
                self.assertEqual(samples[(PREFIX + "certificate_expiry_time_seconds", frozenset({("process", "front"), ("listener", listener)}))], end)
            with self.assertRaises((OSError, http.client.HTTPException)):
                self.get("/metrics", gw=gw)  # in clear
        finally:
            gw.destroy()

    def test_more_connections_than_a_scraper_needs_are_refused_and_the_api_goes_on(self):
        crowd = []
        try:
            for _ in range(40):
                crowd.append(socket.create_connection(("127.0.0.1", self.gw.metrics_port), timeout=harness.PATIENCE))
            ended = 0
            for s in crowd:
                s.settimeout(0.2)
                try:
                    ended += s.recv(1) == b""
                except TimeoutError:
                    pass
                except ConnectionResetError:
                    ended += 1
            self.assertGreaterEqual(ended, 24)
            self.assertEqual(self.gw.api("GET", "/v1/status")[0], 200)
        finally:
            for s in crowd:
                s.close()
        def again():
            try:
                return self.get("/healthz")[0] == 200
            except (OSError, http.client.HTTPException):
                return False
        wait_until("room again", again)


if __name__ == "__main__":
    unittest.main()
