"""An upgrade by SIGUSR2: another program takes over while clients work. Nobody who comes is turned away, open
and held sessions live on, and a program that cannot serve changes nothing."""
import os
import shutil
import signal
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peer"))

import harness  # noqa: E402
from base import GatewayCase  # noqa: E402
from pgwire import Closed, PgError, Wire, cancel, kinds, query  # noqa: E402

PROGRAMS = os.path.join(harness.BUILD, "src", "programs")


class UpgradeCase(GatewayCase):
    MORE = ""

    @classmethod
    def setUpClass(cls):
        """An installation of its own, which a link names: an upgrade is another link."""
        cls.installed = harness.scratch("installed")
        cls.generations = 0
        cls.install()
        start = harness.Gateway.start

        def start_there(gw, secrets=True):
            gw.program = os.path.join(cls.installed, "current", "countersign")
            return start(gw, secrets)
        harness.Gateway.start = start_there
        cls.GATEWAY = dict(cls.GATEWAY, more=cls.MORE)
        try:
            super().setUpClass()
        finally:
            harness.Gateway.start = start

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.installed)

    @classmethod
    def install(cls):
        """Another copy of the programs, in a directory of its own, under the link."""
        cls.generations += 1
        where = os.path.join(cls.installed, "v%d" % cls.generations)
        os.mkdir(where)
        present = [n for n in os.listdir(PROGRAMS) if os.path.isfile(os.path.join(PROGRAMS, n))]
        for name in present:
            shutil.copy(os.path.join(PROGRAMS, name), where)
        cls.point_to(where)
        return where

    @classmethod
    def point_to(cls, where):
        link = os.path.join(cls.installed, "next")
        os.symlink(where, link)
        os.rename(link, os.path.join(cls.installed, "current"))

    def status(self):
        try:
            code, body = self.gw.api("GET", "/v1/status")
            return body if code == 200 else None
        except (OSError, ValueError):
            return None

    def signal(self):
        os.kill(self.gw.process.pid, signal.SIGUSR2)

    def upgrade(self):
        """Another program, and until it serves."""
        then = "upgraded version=0.1.0 generation=%d " % (self.status()["generation"] + 1)
        self.install()
        self.signal()
        harness.wait_until("another generation", lambda: then in self.gw.log_text())
        harness.wait_until("its front", self.status)

    def failed(self):
        return self.gw.log_text().count("upgrade-failed")

    def refused(self):
        """An upgrade that must not happen; returns what the log says of it."""
        before = self.failed()
        self.signal()
        harness.wait_until("the refusal", lambda: self.failed() > before)
        return [line for line in self.gw.log_text().splitlines() if "upgrade-failed" in line][-1]

    def gates(self, draining):
        return [r for r in self.status()["roles"] if r["role"] == "gate" and r["draining"] == draining]

    def session(self, who="bot"):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        return w.login(who, self.gw.tokens[who], self.name)

    def works(self, w):
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")

    def no_old_gates(self):
        harness.wait_until("the old gates to end", lambda: self.status() and not self.gates(True))


class Clients(threading.Thread):
    """Connects, asks and leaves, again and again, until told to stop; keeps what went wrong."""

    def __init__(self, case):
        super().__init__(daemon=True)
        self.case, self.done, self.wrong, self.stopped = case, 0, [], threading.Event()
        self.slowest = 0.0

    def run(self):
        gw = self.case.gw
        while not self.stopped.is_set():
            began = time.monotonic()
            try:
                w = Wire(gw.port, gw.ca, timeout=harness.PATIENCE)
                try:
                    w.login("bot", gw.tokens["bot"], self.case.name)
                    if kinds(w.ask(query("select 1"))) != "TDCZ":
                        self.wrong.append("a wrong answer")
                finally:
                    w.close()
                self.done += 1
            except Exception as e:  # whatever it is, it must not happen
                self.wrong.append(repr(e))
            self.slowest = max(self.slowest, time.monotonic() - began)

    def finish(self):
        self.stopped.set()
        self.join(harness.PATIENCE)


class Upgrade(UpgradeCase):
    GATEWAY = {"gates": 2}

    def test_nobody_who_comes_is_turned_away_while_it_happens_twice(self):
        clients = [Clients(self) for _ in range(2)]
        for c in clients:
            c.start()
        harness.wait_until("them to work", lambda: all(c.done > 2 for c in clients))
        for _ in range(2):
            self.upgrade()
            seen = [c.done for c in clients]
            harness.wait_until("them to work on", lambda: all(c.done > n + 2 for c, n in zip(clients, seen)))
        for c in clients:
            c.finish()
        self.assertEqual([w for c in clients for w in c.wrong], [])
        self.no_old_gates()

    def test_a_held_statement_is_approved_after_the_upgrade_and_runs_once(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        request = self.held(t)
        self.upgrade()
        self.assertEqual(self.gw.json("show", request["id"], who="bob")["state"], "pending")
        self.assertTrue(self.gates(True))
        self.gw.approve(request["id"])
        self.assertEqual(b.finish(), 0, b.text)
        self.assertFalse(self.exists(t))
        self.assertEqual(self.gw.wait_state(request["id"], "done")["state"], "done")
        frames = self.gw.recording(self.gw.json("show", request["id"], who="bob")["session"])
        self.assertIn("drop table " + t, str(frames))
        self.no_old_gates()

    def test_a_running_query_ends_and_its_session_goes_on(self):
        w = self.session()
        text = "select count(*) from generate_series(1, 3000) a, generate_series(1, 10000) b"
        w.send(query(text))
        harness.wait_until("it to run", lambda: self.sql("select 1 from pg_stat_activity where state = 'active' and query = '%s'" % text))
        self.upgrade()
        self.assertEqual(kinds(w.until_ready()), "TDCZ")
        self.works(w)
        t = self.table()
        w.send(query("drop table " + t))  # the old gate and the new control
        self.gw.approve(self.held(t)["id"])
        self.assertIn("C", kinds(w.until_ready()))
        self.assertFalse(self.exists(t))
        w.close()
        self.no_old_gates()

    def test_a_cancel_reaches_a_session_behind_the_upgrade(self):
        w = self.session()
        text = "select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b"
        w.send(query(text))
        harness.wait_until("it to run", lambda: self.sql("select 1 from pg_stat_activity where state = 'active' and query = '%s'" % text))
        self.upgrade()
        cancel(self.gw.port, w.key, self.gw.ca)
        self.assertIn("E", kinds(w.until_ready()))
        w.close()

    def test_a_session_can_be_ended_behind_the_upgrade(self):
        w = self.session()
        self.works(w)
        self.upgrade()
        mine = [s["id"] for s in self.gw.json("sessions")["sessions"]]
        self.assertTrue(mine)
        for s in mine:
            self.gw.cli("sessions", "kill", s)
        harness.wait_until("its end", w.closed)
        self.no_old_gates()

    def test_a_killed_old_gate_takes_its_own_sessions_only_and_none_replaces_it(self):
        w = self.session()
        self.upgrade()
        old = self.gates(True)
        self.assertTrue(old)
        for r in old:
            os.kill(r["pid"], signal.SIGKILL)
        harness.wait_until("its end", w.closed)
        self.no_old_gates()
        self.works(self.session())
        self.assertEqual(len(self.gates(False)), 2)

    def test_roles_die_in_the_middle_and_it_goes_on(self):
        """kill -9 of what is there while the upgrade runs: it comes about or not, and all is well either way."""
        w = self.session()
        for role in ("control", "recorder", "keeper", "dialer", "front"):
            victim = self.gw.pids(role)[0]
            ended = self.gw.log_text().count("supervisor upgrade")
            self.install()
            self.signal()
            os.kill(victim, signal.SIGKILL)
            harness.wait_until("its end, either way", lambda: self.gw.log_text().count("supervisor upgrade") > ended)
            harness.wait_until("all roles", lambda: (lambda s: s and all(r["ready"] for r in s["roles"]))(self.status()))
            self.works(w)
            self.works(self.session())
        roles = [r["role"] for r in self.status()["roles"] if not r["draining"]]
        self.assertEqual(roles.count("gate"), 2)
        self.assertEqual(len(roles), len(set(roles)) + 1)  # one of everything else

    def test_the_rules_of_the_new_program_hold_for_old_sessions(self):
        w = self.session()
        self.works(w)
        self.gw.configure(self.RULES.replace("then: allow", "then: deny", 1))
        try:
            self.upgrade()
            self.assertIn("E", kinds(w.ask(query("select * from orders"))))
        finally:
            self.gw.configure(self.RULES)
            self.gw.cli("reload")
        self.assertNotIn("E", kinds(w.ask(query("select * from orders"))))


class Refused(UpgradeCase):
    """What lies at the program's path cannot serve."""

    def setUp(self):
        self.w = self.session()
        self.before = self.status()

    def same(self):
        self.works(self.w)
        self.works(self.session())
        after = self.status()
        self.assertEqual(after["generation"], self.before["generation"])
        self.assertEqual({(r["role"], r["pid"]) for r in after["roles"]}, {(r["role"], r["pid"]) for r in self.before["roles"]})
        self.install()

    def broken(self, name, content=None):
        where = self.install()
        path = os.path.join(where, name)
        os.unlink(path)
        if content is not None:
            with open(path, "wb") as f:
                f.write(content)
            os.chmod(path, 0o755)

    def test_nothing_there(self):
        self.broken("countersign")
        self.assertIn("does not run", self.refused())
        self.same()

    def test_not_a_program(self):
        self.broken("countersign", b"\x7fELF garbage")
        self.assertIn("does not run", self.refused())
        self.same()

    def test_a_program_that_ends_at_once(self):
        self.broken("countersign", b"#!/bin/sh\nexit 0\n")
        self.assertIn("does not run", self.refused())
        self.same()

    def test_a_program_that_speaks_another_language(self):
        with open(os.path.join(PROGRAMS, "countersign"), "rb") as f:
            program = f.read()
        ours = self.format_of(program)
        self.broken("countersign", program.replace(ours, bytes(reversed(ours))))
        self.assertIn("would not understand each other", self.refused())
        self.same()

    def format_of(self, program):
        with open(os.path.join(harness.BUILD, "src", "roles", "generation_format.c"), "rb") as f:
            text = f.read().split(b'"')[1]
        self.assertIn(text, program)
        return text

    def test_a_role_that_is_missing(self):
        self.broken("recorder")
        self.assertIn("recorder does not start", self.refused())
        self.same()

    def test_a_role_that_does_not_load(self):
        with open(os.path.join(PROGRAMS, "gate"), "rb") as f:
            program = f.read()
        self.broken("gate", program.replace(b"libcrypto.so.3", b"libcrypto.so.9"))
        self.assertIn("gate does not start", self.refused())
        self.same()

    def test_a_configuration_that_does_not_compile(self):
        self.install()
        self.gw.configure(self.RULES + "\nnonsense: 1\n")
        try:
            self.assertIn("nonsense", self.refused())
        finally:
            self.gw.configure(self.RULES)
        self.same()


class Back(UpgradeCase):
    """A program that passes its trial and then cannot serve calls the one before back."""

    def test_the_one_before_goes_on(self):
        t = self.table()
        w = self.session()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        request = self.held(t)
        now = self.status()["generation"]
        where = self.install()
        # Its control starts and ends, as one does that cannot read the store.
        os.rename(os.path.join(where, "control"), os.path.join(where, "control-real"))
        with open(os.path.join(where, "control"), "w") as f:
            f.write('#!/bin/sh\nexit 1\n')
        os.chmod(os.path.join(where, "control"), 0o755)
        self.assertIn("could not serve", self.refused())
        harness.wait_until("the one before to serve", lambda: self.status())
        self.assertEqual(self.status()["generation"], now)
        self.works(w)
        self.works(self.session())
        self.gw.approve(request["id"])
        self.assertEqual(b.finish(), 0, b.text)
        self.assertFalse(self.exists(t))
        self.assertFalse(self.gates(True))
        self.upgrade()  # and one that can serve is taken afterwards
        self.works(w)


class InPlace(UpgradeCase):
    """Programs that are replaced in the directory that they lie in, as packages do."""

    def replace(self, **content):
        """Every file becomes another one of the same name."""
        where = os.path.realpath(os.path.join(self.installed, "current"))
        for name in os.listdir(where):
            path = os.path.join(where, name)
            new = os.path.join(self.installed, "new")
            shutil.copy(os.path.join(PROGRAMS, name), new)
            if name in content:
                with open(new, "wb") as f:
                    f.write(content[name])
            os.rename(new, path)

    def program_of(self, pid):
        return os.stat("/proc/%d/exe" % pid).st_ino

    def pid(self, role):
        return next(r["pid"] for r in self.status()["roles"] if r["role"] == role)

    def test_the_one_before_is_called_back_with_the_roles_that_it_had(self):
        w = self.session()
        now, before = self.status()["generation"], {r["role"]: self.program_of(r["pid"]) for r in self.status()["roles"]}
        self.replace(control=b"#!/bin/sh\nexit 1\n")
        self.assertIn("could not serve", self.refused())
        harness.wait_until("the one before to serve", self.status)
        self.assertEqual(self.status()["generation"], now)
        self.assertEqual({r["role"]: self.program_of(r["pid"]) for r in self.status()["roles"]}, before)
        self.works(w)
        self.works(self.session())
        with self.subTest("a role that dies comes back as what it was"):
            old = self.pid("keeper")
            os.kill(old, signal.SIGKILL)
            harness.wait_until("another keeper", lambda: self.status() and self.pid("keeper") not in (0, old))
            self.assertEqual(self.program_of(self.pid("keeper")), before["keeper"])
            harness.wait_until("it to serve", self.connects)
        with self.subTest("it is listed by its name"):
            with open("/proc/%d/comm" % self.pid("keeper")) as f:
                self.assertEqual(f.read().strip(), "keeper")
        self.replace()
        self.signal()
        harness.wait_until("the next generation", lambda: (self.status() or {}).get("generation") == now + 1)
        self.assertNotEqual(self.program_of(self.pid("keeper")), before["keeper"])
        self.works(w)

    def connects(self):
        try:
            self.session().close()
            return True
        except (PgError, Closed, OSError):
            return False


class StoppedInTheTrial(UpgradeCase):
    def test_the_order_to_stop_does_not_wait_for_a_program_that_hangs(self):
        where, began = self.install(), os.path.join(self.installed, "began")
        with open(os.path.join(where, "countersign"), "w") as f:
            f.write("#!/bin/sh\n: > %s\nexec sleep 1000\n" % began)
        self.signal()
        harness.wait_until("the trial to have begun", lambda: os.path.exists(began))
        os.kill(self.gw.process.pid, signal.SIGTERM)
        self.assertEqual(self.gw.process.wait(harness.PATIENCE), 0)
        said = [line for line in self.gw.log_text().splitlines() if "upgrade-failed" in line]
        self.assertIn("it was cancelled", said[-1])  # and not the end of its time


FIRST = 726000


class AsRoot(UpgradeCase):
    """Started as root; only root can do this."""

    @classmethod
    def setUpClass(cls):
        cls.root = os.geteuid() == 0
        if not cls.root:
            return
        with harness.homes_of("nobody"):
            super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        if cls.root:
            super().tearDownClass()


class User(AsRoot):
    """With --user: the supervisor of the next generation has nothing more to give up, which is no reason to end."""
    GATEWAY = {"gates": 1, "serve": ("--user", "nobody")}

    def test_it_goes_on_over_two_upgrades(self):
        if not self.root:
            return
        w = self.session()
        for _ in range(2):
            self.upgrade()
            harness.wait_until("all to be ready", lambda: self.status() and all(r["ready"] for r in self.status()["roles"]))
            self.works(w)
            self.works(self.session())
        for r in self.status()["roles"]:
            self.assertNotEqual(os.stat("/proc/%d" % r["pid"]).st_uid, 0, r)


class RoleUsers(AsRoot):
    """With --role-users: what the new generation takes over belongs to the users that it starts its roles as."""
    GATEWAY = {"gates": 2, "serve": ("--user", "nobody", "--role-users", str(FIRST))}

    def uids(self):
        """{(role, index): user id} of those that are not draining; each process has that one and no other."""
        out = {}
        for r in self.status()["roles"]:
            with open("/proc/%d/status" % r["pid"]) as f:
                uid = next(line.split()[1:] for line in f if line.startswith("Uid:"))
            self.assertEqual(uid, uid[:1] * 4)
            self.assertTrue(FIRST <= int(uid[0]) < FIRST + 80, (r, uid))
            if not r["draining"]:
                out[(r["role"], r["index"])] = int(uid[0])
        return out

    def test_the_next_generation_runs_as_the_same_users_and_goes_on_with_their_files(self):
        if not self.root:
            return
        before, t, w = self.uids(), self.table(), self.session()
        old_gates = {uid for (role, _), uid in before.items() if role == "gate"}
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        request = self.held(t)
        self.upgrade()
        harness.wait_until("all to be ready", lambda: self.status() and all(r["ready"] for r in self.status()["roles"]))
        after = self.uids()
        self.assertEqual({k: v for k, v in after.items() if k[0] != "gate"}, {k: v for k, v in before.items() if k[0] != "gate"})
        self.assertEqual(len(set(after.values())), len(after))
        # A gate of the generation before shares no user with one of the next: their files and memory stay apart.
        self.assertFalse(old_gates & {uid for (role, _), uid in after.items() if role == "gate"})
        self.gw.approve(request["id"])
        self.assertEqual(b.finish(), 0, b.text)
        self.assertFalse(self.exists(t))
        self.works(w)
        self.works(self.session())
        frames = self.gw.recording(self.gw.json("show", request["id"], who="bob")["session"])
        self.assertIn("drop table " + t, str(frames))
        self.gw.cli("reload")
        w.close()
        self.no_old_gates()
        for folder, role in (("state", "control"), ("recordings", "recorder")):
            path = os.path.join(self.gw.home, folder)
            owners = {os.stat(os.path.join(path, n)).st_uid for n in os.listdir(path) if os.path.isfile(os.path.join(path, n))}
            self.assertEqual(owners, {before[(role, 0)]})


class Deadline(UpgradeCase):
    MORE = "upgrade: { drain: 2s }\n"

    def test_sessions_end_when_their_time_is_over(self):
        w = self.session()
        b = self.gw.psql_start("bot", self.name, "drop table " + self.table())
        b.wait_text("COUNTERSIGN held")
        self.upgrade()
        harness.wait_until("its end", w.closed)
        self.assertNotEqual(b.finish(), 0)
        self.no_old_gates()


class KilledSupervisor(UpgradeCase):
    def test_a_supervisor_that_is_killed_in_the_middle_leaves_nothing_and_a_start_recovers(self):
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        request = self.held(t)
        pids = [r["pid"] for r in self.status()["roles"]]
        self.install()
        self.signal()
        harness.wait_until("it to have begun", lambda: "front stopped" in self.gw.log_text() or "generation=2" in self.gw.log_text())
        os.kill(self.gw.process.pid, signal.SIGKILL)
        self.gw.process.wait()
        harness.wait_until("all to be gone", lambda: not [p for p in pids if os.path.exists("/proc/%d/root" % p)])
        self.assertNotEqual(b.finish(), 0)
        self.gw.restart()
        self.assertTrue(self.exists(t))
        self.assertEqual(self.gw.json("show", request["id"], who="bob")["state"], "pending")
        again = self.gw.psql_start("bot", self.name, "drop table " + t)
        again.wait_text("COUNTERSIGN held")
        self.gw.approve(request["id"])
        self.assertEqual(again.finish(), 0, again.text)
        self.assertFalse(self.exists(t))


if __name__ == "__main__":
    unittest.main()
