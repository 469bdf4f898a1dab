"""The walls around each role as the kernel tells of them, and that ordinary work is possible within."""
import glob
import os
import pwd
import shutil
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "peer"))

import harness  # noqa: E402
from base import GatewayCase  # noqa: E402

PROGRAMS = os.path.join(harness.BUILD, "src", "programs")


def of_process(pid, name):
    with open("/proc/%d/status" % pid) as f:
        return next(line.split(":", 1)[1].split() for line in f if line.startswith(name + ":"))


class Walls(GatewayCase):
    @classmethod
    def setUpClass(cls):
        pg = harness.shared_postgres()
        cls.TARGET = {"address": "localhost:%d" % pg.port}  # a name: control looks it up within its walls
        super().setUpClass()

    def test_every_role_has_a_filter_and_no_new_rights(self):
        status = self.gw.api("GET", "/v1/status")[1]
        self.assertEqual(status["sandbox"], "off" if harness.sanitized() else "enforced")
        self.assertEqual(status["user"], os.geteuid())
        self.assertGreaterEqual({r["role"] for r in status["roles"]}, {"gate", "front", "control", "recorder"})
        for r in status["roles"]:
            self.assertEqual((r["role"], of_process(r["pid"], "NoNewPrivs")), (r["role"], ["1"]))
            self.assertEqual((r["role"], of_process(r["pid"], "Seccomp")), (r["role"], ["0" if harness.sanitized() else "2"]))
            self.assertEqual((r["seccomp"], r["no_new_privs"]), (not harness.sanitized(), True))

    def test_no_role_has_memory_that_is_writable_and_executable(self):
        for r in self.gw.api("GET", "/v1/status")[1]["roles"]:
            with open("/proc/%d/maps" % r["pid"]) as f:
                self.assertEqual([line for line in f if "wx" in line.split()[1]], [])

    def test_doctor_shows_the_walls(self):
        text = self.gw.cli("doctor").stdout
        for words in ("system calls: ", "Landlock", "gate/0: ", "recorder/0: ", "user id"):
            self.assertIn(words, text)
        if not harness.sanitized():
            self.assertIn("system calls: enforced", text)
            self.assertIn("seccomp filter, no_new_privs", text)
            self.assertNotIn("NO seccomp", text)

    def test_a_target_by_name_is_looked_up_and_reached(self):
        self.assertEqual(self.gw.psql("bot", self.name, "select count(*) from orders").stdout, "100\n")

    def test_an_untrusted_server_is_refused_after_a_reload_and_trusted_after_another(self):
        trusted = self.gw.targets
        self.gw.configure(self.RULES, [dict(t, roots=self.gw.ca) for t in trusted])
        self.gw.cli("reload")
        r = self.gw.psql("bot", self.name, "select 1")
        self.assertNotEqual(r.returncode, 0, r.stdout)
        self.gw.configure(self.RULES, trusted)
        self.gw.cli("reload")
        self.assertEqual(self.gw.psql("bot", self.name, "select 1").stdout, "1\n")

    def test_a_new_certificate_comes_in_by_a_reload(self):
        kept = {n: open(os.path.join(self.gw.home, n), "rb").read() for n in ("tls.crt", "tls.key")}
        made = harness.scratch("certificate")
        self.gw.cli("init", os.path.join(made, "new"))
        try:
            for n in kept:
                shutil.copy(os.path.join(made, "new", n), os.path.join(self.gw.home, n))
            self.gw.cli("reload")
            self.assertEqual(self.gw.psql("bot", self.name, "select 1").stdout, "1\n")
            self.assertEqual(self.gw.api("GET", "/v1/health", local=False)[0], 200)
        finally:
            for n, content in kept.items():
                with open(os.path.join(self.gw.home, n), "wb") as f:
                    f.write(content)
            self.gw.cli("reload")
            shutil.rmtree(made)


class ByHand(unittest.TestCase):
    def test_job_compile_prints_on_a_terminal_and_into_a_file(self):
        example = harness.scratch("job")
        try:
            subprocess.run([os.path.join(PROGRAMS, "countersign"), "init", os.path.join(example, "new")], check=True,
                           capture_output=True)
            argv = [os.path.join(PROGRAMS, "job-compile"), os.path.join(example, "new", "countersign.yaml")]
            master, slave = os.openpty()
            for out in (slave, subprocess.DEVNULL, subprocess.PIPE):
                self.assertEqual(subprocess.run(argv, stdout=out).returncode, 0)
                self.assertEqual(subprocess.run([argv[0], argv[0]], stdout=out).returncode, 1)
            self.assertIn(b"error", os.read(master, 4096))
            os.close(master)
            os.close(slave)
        finally:
            shutil.rmtree(example)


class OtherUser(GatewayCase):
    """Started as root with --user: everything but the supervisor runs as somebody else."""
    SERVE = ("--user", "nobody")

    @classmethod
    def setUpClass(cls):
        cls.libexec = None
        if os.geteuid() != 0:
            return
        cls.libexec = harness.scratch("programs")  # where that user can reach them, wherever the build is
        for program in glob.glob(os.path.join(PROGRAMS, "*")):
            if os.path.isfile(program):
                shutil.copy(program, cls.libexec)
        cls.GATEWAY = {"gates": 2, "serve": cls.SERVE, "env": {"COUNTERSIGN_LIBEXEC": cls.libexec}}
        with harness.homes_of("nobody"):
            super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        if cls.libexec is not None:
            super().tearDownClass()
            shutil.rmtree(cls.libexec)

    def test_roles_run_as_that_user_in_no_other_group_and_work(self):
        if self.libexec is None:
            return  # only root can do this
        who = pwd.getpwnam("nobody")
        status = self.gw.api("GET", "/v1/status")[1]
        self.assertEqual(status["user"], who.pw_uid)
        needed = sum(1 << c for c in (0, 1, 3, 5, 6, 7, 10))  # chown, files, fowner, kill, setgid, setuid, low ports
        for of in ("CapPrm", "CapEff", "CapBnd"):
            self.assertEqual(int(of_process(self.gw.process.pid, of)[0], 16) & ~needed, 0, of)
        for r in status["roles"]:
            self.assertEqual(of_process(r["pid"], "Uid"), [str(who.pw_uid)] * 4)
            self.assertEqual(of_process(r["pid"], "Gid"), [str(who.pw_gid)] * 4)
            self.assertEqual(of_process(r["pid"], "Groups"), [])
            self.assertEqual(of_process(r["pid"], "CapEff"), ["0" * 16])
        self.assertEqual(self.gw.psql("bot", self.name, "select count(*) from orders").stdout, "100\n")
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        request = self.held(t)
        self.gw.approve(request["id"])
        self.assertEqual(b.finish(), 0, b.text)
        self.gw.cli("reload")
        self.gw.cli("replay", self.gw.json("show", request["id"], who="bob")["session"])

    def test_mistakes_are_said(self):
        if self.libexec is None:
            return
        for user, words in (("root", "that is root"), ("no-such-user-here", "there is no such user")):
            r = self.gw.cli("serve", "--config", self.gw.config_path, "--user", user, ok=False)
            self.assertEqual(r.returncode, 2)
            self.assertIn(words, r.stderr)


FIRST = 724000


class OwnUsers(OtherUser):
    """With --role-users: each role as a user of its own, and its files belong to that one."""
    SERVE = ("--user", "nobody", "--role-users", str(FIRST))

    def processes(self):
        return self.gw.api("GET", "/v1/status")[1]["roles"]

    def uids(self):
        return {(r["role"], r["index"]): int(of_process(r["pid"], "Uid")[0]) for r in self.processes()}

    def test_roles_run_as_that_user_in_no_other_group_and_work(self):
        if self.libexec is None:
            return  # only root can do this
        uids = self.uids()
        for r in self.processes():
            uid = str(uids[(r["role"], r["index"])])
            self.assertEqual((of_process(r["pid"], "Uid"), of_process(r["pid"], "Gid")), ([uid] * 4, [uid] * 4))
            self.assertEqual(of_process(r["pid"], "Groups"), [])
            self.assertEqual(of_process(r["pid"], "CapEff"), ["0" * 16])
            self.assertTrue(FIRST <= int(uid) < FIRST + 80)
        self.assertEqual(len(set(uids.values())), 8)
        t = self.table()
        b = self.gw.psql_start("bot", self.name, "drop table " + t)
        request = self.held(t)
        self.gw.approve(request["id"])
        self.assertEqual(b.finish(), 0, b.text)
        self.gw.cli("reload")
        self.gw.cli("replay", self.gw.json("show", request["id"], who="bob")["session"])
        self.gw.cli("secret", "rotate")
        self.gw.cli("target", "check", self.name, ok=False)

    def test_what_a_role_writes_belongs_to_it_and_is_closed_to_the_others(self):
        if self.libexec is None:
            return
        self.assertEqual(self.gw.psql("bot", self.name, "select count(*) from orders").stdout, "100\n")
        uids = self.uids()
        for folder, owner in (("state", uids[("control", 0)]), ("recordings", uids[("recorder", 0)])):
            path = os.path.join(self.gw.home, folder)
            found = [os.path.join(path, n) for n in os.listdir(path) if os.path.isfile(os.path.join(path, n))]
            self.assertTrue(found)
            for name in found:
                st = os.stat(name)
                self.assertEqual((st.st_uid, st.st_mode & 0o777), (owner, 0o600), name)
            for uid in sorted(set(uids.values()) | {pwd.getpwnam("nobody").pw_uid}):
                read = subprocess.run(["cat", found[0]], user=uid, group=uid, extra_groups=[], capture_output=True)
                self.assertEqual(read.returncode == 0, uid == owner, (uid, found[0], read.stderr))

    def test_the_services_user_sets_up_and_a_roles_does_not(self):
        if self.libexec is None:
            return
        program, uids = os.path.join(self.libexec, "countersign"), self.uids()
        for uid, may in ((pwd.getpwnam("nobody").pw_uid, True), (uids[("gate", 0)], False), (uids[("control", 0)], False)):
            r = subprocess.run([program, "secret", "list"], user=uid, group=uid, extra_groups=[], capture_output=True, text=True,
                               env=dict(self.gw.env, HOME="/"), cwd="/")
            self.assertEqual(r.returncode == 0, may, (uid, r.stdout, r.stderr))

    def test_a_role_that_dies_comes_back_as_its_user(self):
        if self.libexec is None:
            return
        before = self.uids()
        for role in ("keeper", "recorder", "gate", "control"):
            old = next(r["pid"] for r in self.processes() if r["role"] == role)
            os.kill(old, signal.SIGKILL)

            def another():
                status, body = self.gw.api("GET", "/v1/status")
                return status == 200 and all(r["ready"] and r["pid"] != old for r in body["roles"])
            harness.wait_until("another " + role, another)
        self.assertEqual(self.uids(), before)
        self.assertEqual(self.gw.psql("bot", self.name, "select 1").stdout, "1\n")

    def test_mistakes_are_said(self):
        if self.libexec is None:
            return
        for more, words in ((("--role-users", "724000"), "is for use with --user"),
                            (("--user", "nobody", "--role-users", "0"), "what is --role-users"),
                            (("--user", "nobody", "--role-users", "65500"), "65534 is the user nobody"),
                            (("--user", "nobody", "--role-users", "1x"), "what is --role-users")):
            r = self.gw.cli("serve", "--config", self.gw.config_path, *more, ok=False)
            self.assertEqual(r.returncode, 2, more)
            self.assertIn(words, r.stderr)
        r = self.gw.cli("serve", "--config", self.gw.config_path, "--user", "nobody", "--role-users", "725000", ok=False)
        self.assertEqual(r.returncode, 1)
        self.assertIn("chown -R 7250", r.stderr)


if __name__ == "__main__":
    unittest.main()
