"""The walls between the roles: keeper and dialer die while the gateway serves, and what each of the others has open."""
import os
import re
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness
from base import GatewayCase
from pgwire import Wire, kinds, query

ROLES = ("recorder", "keeper", "dialer", "probe", "control", "front", "gate")


class WallsCase(GatewayCase):
    def roles_now(self):
        status, body = self.gw.api("GET", "/v1/status")
        return body["roles"] if status == 200 and "roles" in body else []

    def pid(self, role):
        return next(r["pid"] for r in self.roles_now() if r["role"] == role)

    def connects(self, who="bot"):
        """The first answer of a fresh session, or the error with which it was refused."""
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        try:
            w.login(who, self.gw.tokens[who], self.name)
        except Exception as e:
            return str(e)
        return kinds(w.ask(query("select 1")))


class Killed(WallsCase):
    def back(self, role, old):
        def again():
            return [r for r in self.roles_now() if r["role"] == role and r["pid"] not in (0, old) and r["ready"]]
        return harness.wait_until(role + " to be back", again)

    def kill_and_use(self, role):
        live = self.wire()
        old = self.pid(role)
        began = time.monotonic()
        os.kill(old, signal.SIGKILL)
        self.assertEqual(kinds(live.ask(query("select 1"))), "TDCZ")  # who is connected needs neither
        self.back(role, old)
        harness.wait_until("a new session after %s died" % role, lambda: self.connects() == "TDCZ", 10)
        # The whole restart, and a log-in: generous for a busy machine; the role itself is back within 200 ms.
        self.assertLess(time.monotonic() - began, 5)
        self.assertEqual(kinds(live.ask(query("select 1"))), "TDCZ")
        log = self.gw.log_text()
        self.assertRegex(log, r"role-died .*role=%s pid=%d why=\"signal 9" % (role, old))

    def test_keeper(self):
        self.kill_and_use("keeper")

    def test_dialer(self):
        self.kill_and_use("dialer")

    def test_restart_is_quick(self):
        for role in ("keeper", "dialer"):
            with self.subTest(role):
                old = self.pid(role)
                os.kill(old, signal.SIGKILL)
                self.back(role, old)
                log = self.gw.log_text()
                died = re.findall(r"^(\S+) \w+ supervisor role-died .*pid=%d " % old, log, re.M)[-1]
                back = re.findall(r"^(\S+) \w+ %s started" % role, log, re.M)[-1]

                def seconds(t):
                    h, m, s = t.split("T")[1].rstrip("Z").split(":")
                    return int(h) * 3600 + int(m) * 60 + float(s)
                # One death within ten seconds of another waits longer before its restart: 100 ms more.
                self.assertLess((seconds(back) - seconds(died)) % 86400, 0.5)

    def stopped(self, role, words):
        """While the role does not answer, a new session is refused in time and in words; then all is well."""
        pid = self.pid(role)
        os.kill(pid, signal.SIGSTOP)
        try:
            said = self.connects()
        finally:
            os.kill(pid, signal.SIGCONT)
        self.assertIn(words, said)
        harness.wait_until("a new session after %s went on" % role, lambda: self.connects() == "TDCZ", 20)

    def test_a_dialer_that_hangs(self):
        self.stopped("dialer", "did not answer")

    def test_a_keeper_that_hangs(self):
        self.stopped("keeper", "took too long")

    def test_elevated_works_after_keeper_died(self):
        table = self.table()
        sql = "drop table " + table
        w = self.wire()
        w.send(query(sql))
        request = self.held(sql)
        old = self.pid("keeper")
        os.kill(old, signal.SIGKILL)
        self.back("keeper", old)
        harness.wait_until("keeper to be joined", lambda: self.connects() == "TDCZ", 10)
        self.gw.approve(request["id"])
        harness.wait_until("the table to be gone", lambda: not self.exists(table))

    def test_a_secret_is_set_after_keeper_died(self):
        old = self.pid("keeper")
        os.kill(old, signal.SIGKILL)
        self.back("keeper", old)
        harness.wait_until("a secret to be stored",
                           lambda: self.gw.cli("secret", "set", "other", stdin="x", ok=False).returncode == 0, 10)
        self.assertEqual(self.connects(), "TDCZ")


class Sockets(WallsCase):
    def test_control_keeper_and_recorder_have_no_network_socket(self):
        inet = set()
        for name in ("tcp", "tcp6", "udp", "udp6"):
            with open("/proc/net/" + name) as f:
                inet |= {line.split()[9] for line in f.readlines()[1:]}
        w = self.wire()
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        for role in ("control", "keeper", "recorder", "dialer"):
            pid = self.pid(role)
            for fd in os.listdir("/proc/%d/fd" % pid):
                to = os.readlink("/proc/%d/fd/%s" % (pid, fd))
                if to.startswith("socket:["):
                    self.assertNotIn(to[8:-1], inet, role)

    def test_the_master_key_is_open_nowhere(self):
        for role in ROLES:
            pid = self.pid(role)
            for fd in os.listdir("/proc/%d/fd" % pid):
                self.assertNotIn("master.key", os.readlink("/proc/%d/fd/%s" % (pid, fd)), role)

    def test_a_secret_in_clear_is_not_taken(self):
        status, body = self.gw.api("PUT", "/v1/secrets/x", {"value": "in clear"})
        self.assertEqual(status, 400, body)


if __name__ == "__main__":
    unittest.main()
