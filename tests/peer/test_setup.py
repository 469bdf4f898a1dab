"""Setting up: configuration and its mistakes, reloading, people, secrets, and the commands themselves."""
import json
import os
import re
import signal
import subprocess
import unittest

import harness
from base import GatewayCase, fresh_name
from pgwire import PgError, Wire, error_of, kinds, query

READ = """
  - name: read
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
"""
HOLD = """
  - name: NAME
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "VERB"
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
"""


def hold(name, verb):
    return HOLD.replace("NAME", name).replace("VERB", verb)


def rules(*parts):
    return "\nrules:" + "".join(parts)


TEN = [("version: 1", "version: 2"),
       ("listeners:", "listners: {}\nlisteners:"),
       ("identity:", "rate_limit: 5\nidentity:"),
       ("    then: allow", "    then: alow"),
       ("    who: { groups: [agents, engineers] }\n    target: { kind: postgres }\n    when: |\n      sql.verb == \"INSERT\"",
        "    who: { gruops: [agents] }\n    target: { kind: postgres }\n    when: |\n      sql.verb = \"INSERT\""),
       ("quorum: 1, within: 15m", "quorum: many, within: soon"),
       ("name: never-truncate", "name: Never Truncate!"),
       ("sql.verb == \"TRUNCATE TABLE\"", "sql.colour == \"red\""),
       ("store: {", "store: { engine: sqlite, ")]


class SetupCase(GatewayCase):
    def status(self):
        return self.gw.api("GET", "/v1/status")[1]

    def reload(self, text, ok=True):
        self.gw.configure(text)
        return self.gw.cli("reload", ok=ok)

    def session(self, who="bot", target=None):
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        return w.login(who, self.gw.tokens[who], target or self.name)

    def refused(self, *argv, words=(), status=1, **more):
        r = self.gw.cli(*argv, ok=False, **more)
        self.assertEqual(r.returncode, status, r.stdout + r.stderr)
        for w in words:
            self.assertIn(w, r.stderr)
        self.assertNotEqual(r.stderr.strip(), "")
        return r


class Mistakes(SetupCase):
    """A configuration that is wrong is refused whole, with every mistake and its place."""

    def wrong(self):
        with open(self.gw.config_path) as f:
            text = f.read()
        for good, bad in TEN:
            self.assertIn(good, text)
            text = text.replace(good, bad, 1)
        return text

    def mistakes(self, text):
        return sorted(set(re.findall(r"(?m)^.*?(\d+):(\d+): ", text)))

    def test_serve_prints_all_mistakes_with_their_places_and_starts_nothing(self):
        path = os.path.join(self.gw.dir, "wrong.yaml")
        with open(path, "w") as f:
            f.write(self.wrong())
        r = subprocess.run([self.gw.program, "serve", "--config", path], capture_output=True, text=True, timeout=harness.PATIENCE,
                           env=self.gw.env, cwd=self.gw.dir)
        self.assertEqual(r.returncode, 1)
        self.assertGreaterEqual(len(self.mistakes(r.stderr)), 10, r.stderr)
        for word in ("listners", "rate_limit", "alow", "gruops", "many", "soon", "Never Truncate!", "colour", "engine", "version"):
            self.assertIn(word, r.stderr)
        self.assertIn("nothing was started", r.stderr)
        self.assertNotIn("serving", r.stdout)

    def test_a_file_that_is_not_there_or_not_yaml(self):
        for text in (None, "", "rules: [", "\0\1\2", "- a\n- b\n", "version: 1\nversion: 1\n", "a: &x 1\nb: *x\n", "version: !!int 1\n", "\t- x"):
            path = os.path.join(self.gw.dir, "bad.yaml")
            if text is not None:
                with open(path, "w") as f:
                    f.write(text)
            r = subprocess.run([self.gw.program, "serve", "--config", path], capture_output=True, text=True, timeout=harness.PATIENCE,
                               env=self.gw.env, cwd=self.gw.dir)
            self.assertEqual(r.returncode, 1, text)
            self.assertIn("bad.yaml", r.stderr)

    def test_a_port_that_is_taken_is_said_and_nothing_is_left(self):
        path = os.path.join(self.gw.home, "taken.yaml")
        with open(self.gw.config_path) as f:
            text = f.read()
        with open(path, "w") as f:
            f.write(text)
        r = subprocess.run([self.gw.program, "serve", "--config", path], capture_output=True, text=True, timeout=harness.PATIENCE,
                           env=self.gw.env, cwd=self.gw.dir)
        self.assertEqual(r.returncode, 1)
        self.assertRegex(r.stderr, "in use|another")
        self.assertEqual(self.gw.api("GET", "/v1/health")[0], 200, "the running gateway is not disturbed")

    def test_reload_with_mistakes_keeps_the_old_rules(self):
        w = self.session()
        before = self.status()["configuration"]
        with open(self.gw.config_path) as f:
            good = f.read()
        wrong = self.wrong()
        with open(self.gw.config_path, "w") as f:
            f.write(wrong)
        try:
            r = self.refused("reload")
            self.assertGreaterEqual(len(self.mistakes(r.stderr)), 10, r.stderr)
            self.assertEqual(self.status()["configuration"], before)
            self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
            self.assertEqual(error_of(w.ask(query("truncate scratchpad")))["C"], "42501")
            status, body = self.gw.api("POST", "/v1/reload", {})
            self.assertEqual((status, body["error"]), (400, "invalid"))
            self.assertGreaterEqual(len(self.mistakes(body["message"])), 10, body)
            os.kill(self.gw.process.pid, signal.SIGHUP)
            harness.wait_until("the supervisor's refusal in the log", lambda: "listners" in self.gw.log_text())
            self.assertEqual(self.status()["configuration"], before)
        finally:
            with open(self.gw.config_path, "w") as f:
                f.write(good)
        self.gw.cli("reload")
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")


class Reload(SetupCase):
    RULES = rules(READ, hold("update", "UPDATE"), hold("delete", "DELETE"))

    def setUp(self):
        self.reload(self.RULES)

    def asked(self, w, sql):
        w.send(query(sql))
        return self.held(sql)

    def test_a_changed_rule_changes_the_decisions_of_an_open_session(self):
        w = self.session()
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        self.reload(rules(READ.replace('in ["session", "read"]', 'in ["session"]'), hold("update", "UPDATE")))
        harness.wait_until("the new rules", lambda: kinds(w.ask(query("select 1"))) == "EZ")
        self.reload(self.RULES)
        harness.wait_until("the old rules", lambda: kinds(w.ask(query("select 1"))) == "TDCZ")

    def test_a_pending_request_stays_while_its_rule_stays(self):
        w = self.session()
        sql = "update orders set amount = 1 where id = 60 /* stays */"
        r = self.asked(w, sql)
        self.reload(rules(READ, hold("update", "UPDATE")))
        self.assertEqual(self.gw.json("show", r["id"], who="bob")["state"], "pending")
        self.gw.approve(r["id"])
        self.assertEqual(kinds(w.until_ready()), "CZ")
        self.gw.wait_state(r["id"], "done")

    def test_a_pending_request_is_void_when_its_rule_is_gone(self):
        w = self.session()
        sql = "delete from orders where id = 61 /* gone */"
        r = self.asked(w, sql)
        self.reload(rules(READ, hold("update", "UPDATE")))
        got = w.until_ready()
        self.assertEqual((kinds(got), error_of(got)["C"]), ("EZ", "CS003"))
        self.gw.wait_state(r["id"], "void")
        self.assertEqual(self.gw.approve(r["id"], ok=False).returncode, 1)
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")

    def test_a_pending_request_is_void_when_another_rule_would_decide(self):
        w = self.session()
        r = self.asked(w, "delete from orders where id = 62 /* denied */")
        deny = hold("delete", "DELETE").replace("then: hold", "then: deny").split("    approvers")[0]
        self.reload(rules(READ, deny))
        self.assertEqual(error_of(w.until_ready())["C"], "CS003")
        self.gw.wait_state(r["id"], "void")

    def test_the_end_of_a_target(self):
        other = fresh_name("other")
        old = list(self.gw.targets)
        self.gw.configure(self.RULES, old + [dict(old[0], name=other)])
        self.gw.cli("reload")
        self.gw.cli("secret", "set", other + "-ro", stdin=old[0]["password"])
        w = self.session(target=other)
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        self.gw.configure(self.RULES, old)
        self.gw.cli("reload")

        def over():
            try:
                return error_of(w.ask(query("select 1"))) is not None
            except (PgError, OSError, Exception):
                return True
        harness.wait_until("the session to lose its target", over)
        with self.assertRaises(PgError) as e:
            self.session(target=other)
        self.assertEqual(e.exception.fields["C"], "3D000")

    def test_sighup_reloads(self):
        self.gw.configure(rules(READ))
        os.kill(self.gw.process.pid, signal.SIGHUP)
        w = self.session()
        harness.wait_until("the new rules", lambda: error_of(w.ask(query("select 1; delete from orders where id = 0"))) is not None)

    def test_a_reload_that_is_asked_for_while_others_run_reads_the_file_after_them(self):
        self.gw.configure(rules(READ))
        for _ in range(3):
            os.kill(self.gw.process.pid, signal.SIGHUP)
        asked = [self.gw.spawn_cli("reload") for _ in range(4)]
        for p in asked:
            out, _ = p.communicate(timeout=harness.PATIENCE)
            self.assertEqual(p.returncode, 0, out)
        self.assertNotEqual(error_of(self.session().ask(query("select 1; delete from orders where id = 0"))), None)


class People(SetupCase):
    def test_duplicate_and_bad_names(self):
        name = fresh_name("p").replace("_", "-")
        self.gw.add_user(name, "engineers")
        self.refused("user", "add", name, words=(name, "exists"))
        self.refused("agent", "add", name, "--owner", "alice", words=("exists",))
        for bad in ("Über", "a b", "", "x" * 65, "../x", "a;b", "a\nb", "UPPER"):
            self.refused("user", "add", bad, words=("name",))
        for bad in ("has space", "Üb", "a/b"):
            self.refused("user", "add", fresh_name("q").replace("_", "-"), "--groups", bad)

    def test_an_agent_needs_a_person(self):
        self.refused("agent", "add", "orphan", status=2)
        self.refused("agent", "add", "orphan", "--owner", "nobody-at-all", words=("owner",))
        self.refused("agent", "add", "orphan", "--owner", "bot", words=("owner",))
        self.assertNotIn("orphan", [u["name"] for u in self.gw.json("user", "list")["users"]])

    def test_a_new_token_ends_the_old_one(self):
        self.gw.add_user("rotating", "engineers")
        old = self.gw.tokens["rotating"]
        self.session("rotating")
        new = self.gw.json("user", "token", "rotating")["token"]
        self.assertNotEqual(old, new)
        with self.assertRaises(PgError) as e:
            self.session("rotating")
        self.assertEqual(e.exception.fields["C"], "28P01")
        self.assertEqual(self.gw.api("GET", "/v1/whoami", token=old)[0], 401)
        self.gw.tokens["rotating"] = new
        self.session("rotating")
        self.assertEqual(self.gw.api("GET", "/v1/whoami", token=new)[1]["name"], "rotating")

    def ended(self, w):
        harness.wait_until("the session to end", w.closed)

    def test_disabling_a_user_ends_its_sessions_and_its_agents(self):
        self.gw.add_user("leaver", "engineers")
        self.gw.add_agent("leaver-bot", "leaver", "agents")
        w, a, other = self.session("leaver"), self.session("leaver-bot"), self.session("alice")
        self.gw.cli("user", "disable", "leaver")
        self.ended(w)
        self.ended(a)
        for who in ("leaver", "leaver-bot"):
            with self.assertRaises(PgError) as e:
                self.session(who)
            self.assertEqual(e.exception.fields["C"], "28P01", who)
        self.assertEqual(kinds(other.ask(query("select 1"))), "TDCZ")
        self.assertEqual(self.gw.api("GET", "/v1/whoami", who="leaver")[0], 401)

    def test_taking_groups_away_takes_rights_away(self):
        self.gw.add_user("mover", "engineers")
        self.session("mover")
        self.gw.cli("user", "groups", "mover", "--groups", "")
        with self.assertRaises(PgError) as e:
            self.session("mover")
        self.assertEqual(e.exception.fields["C"], "28000")
        self.refused("user", "groups", "no-such-person", "--groups", "x", words=("no-such-person",))

    def test_agents_and_mere_users_may_not_set_up(self):
        for who in ("bot", "alice", "bob"):
            for call in (("POST", "/v1/users", {"name": "intruder", "groups": []}), ("PUT", "/v1/secrets/x", {"value": "y"}), ("POST", "/v1/reload", {}),
                         ("GET", "/v1/users", None), ("GET", "/v1/status", None)):
                status, body = self.gw.api(*call, who=who, local=False)
                self.assertEqual(status, 403, (who, call, body))

    def test_names_that_do_not_exist(self):
        for argv in (("user", "token", "ghost"), ("user", "disable", "ghost")):
            self.refused(*argv, words=("ghost",))


class Secrets(SetupCase):
    def test_a_secret_that_is_not_set_is_said_at_connect(self):
        other = fresh_name("unset")
        old = list(self.gw.targets)
        self.gw.configure(self.RULES, old + [dict(old[0], name=other)])
        self.gw.cli("reload")
        with self.assertRaises(PgError) as e:
            self.session(target=other)
        self.assertIn(other + "-ro", e.exception.fields["M"])
        self.assertIn("not set", e.exception.fields["M"])
        doctor = self.gw.cli("doctor", ok=False)
        self.assertEqual(doctor.returncode, 1)
        self.assertIn(other + "-ro", doctor.stdout)
        self.gw.cli("secret", "set", other + "-ro", stdin=old[0]["password"] + "\n")
        self.assertEqual(kinds(self.session(target=other).ask(query("select 1"))), "TDCZ")
        self.gw.configure(self.RULES, old)
        self.gw.cli("reload")

    def test_a_rotated_secret_is_used_at_the_next_connection(self):
        w = self.session()
        new = "rotated-" + os.urandom(4).hex()
        self.pg.sql("alter role %s password '%s'" % (self.roles["user"], new))
        with self.assertRaises(PgError):
            self.session()
        self.gw.cli("secret", "set", self.name + "-ro", stdin=new)
        self.gw.targets[0]["password"] = new
        self.session()
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ", "an open session is not disturbed")
        self.assertNotIn(new, self.gw.cli("secret", "list").stdout)
        self.assertNotIn(new, self.gw.log_text())
        self.assertNotIn(new, json.dumps(self.status()))

    def test_secrets_lie_sealed(self):
        for base, _, names in os.walk(self.gw.home):
            for n in names:
                if os.path.isfile(os.path.join(base, n)):
                    with open(os.path.join(base, n), "rb") as f:
                        self.assertNotIn(self.roles["owner_password"].encode(), f.read(), n)

    def test_bad_secrets(self):
        self.refused("secret", "set", "Bad Name", stdin="x")
        self.refused("secret", "set", "empty", stdin="")
        self.refused("secret", "set", "too-long", stdin="x" * 200000)
        self.refused("secret", "set", "nofile", "--file", "/no/such/file", words=("/no/such/file",))


class Commands(SetupCase):
    def commands(self):
        text = self.gw.cli("help").stdout
        found = re.findall(r"(?m)^  ((?:[a-z]+)(?: [a-z]+)?)(?=  | [A-Z\[-]|$)", text)
        self.assertGreater(len(found), 15, text)
        return sorted(set(found))

    def test_every_command_explains_itself_with_an_example(self):
        for c in self.commands():
            with self.subTest(c):
                r = self.gw.cli(*c.split(), "--help")
                self.assertRegex(r.stdout.lower(), r"example")
                self.assertIn("countersign " + c.split()[0], r.stdout)

    def test_usage_errors_exit_with_2(self):
        for argv in ((), ("nonsense",), ("user",), ("user", "nonsense"), ("user", "add"), ("user", "add", "a", "b"), ("show",), ("approve",),
                     ("deny", "7Q2KD4M9"), ("requests", "--colour"), ("sessions", "--limit", "many"), ("serve",), ("serve", "--config"),
                     ("serve", "--gates", "0", "--config", "x"), ("init",), ("secret", "set"), ("reload", "now"), ("replay",), ("--nonsense",)):
            with self.subTest(argv):
                r = self.gw.cli(*argv, ok=False)
                self.assertEqual(r.returncode, 2, r.stdout + r.stderr)
                self.assertNotEqual(r.stderr + r.stdout, "")

    def test_json_is_json(self):
        for argv, who in ((("whoami",), "bob"), (("user", "list"), None), (("secret", "list"), None), (("requests",), "bob"), (("requests", "--all"), "bob"),
                          (("sessions",), None), (("sessions", "--all"), None), (("doctor",), None), (("version",), None)):
            with self.subTest(argv):
                r = self.gw.cli(*argv, "--json", who=who, ok=False)
                json.loads(r.stdout)

    def test_nothing_coloured_without_a_terminal(self):
        for argv in (("doctor",), ("user", "list"), ("sessions",)):
            self.assertNotIn("\x1b", self.gw.cli(*argv, ok=False).stdout)

    def test_doctor_says_that_all_is_well_and_that_nobody_answers(self):
        ro = self.roles["user"]  # may do more than these rules let it: doctor would say so
        self.sql("revoke insert, update on all tables in schema public from " + ro)
        self.addCleanup(self.sql, "grant insert, update on all tables in schema public to " + ro)
        self.gw.cli("target", "check", self.name)
        r = self.gw.cli("doctor")
        for word in ("gate/0", "control", "recorder", "front", self.name, "in order"):
            self.assertIn(word, r.stdout)
        self.assertTrue(self.gw.json("doctor")["ok"])
        r = self.gw.cli("doctor", ok=False, env={"COUNTERSIGN_SOCKET": os.path.join(self.gw.dir, "no-socket")})
        self.assertEqual(r.returncode, 1)
        self.assertIn("no-socket", r.stdout)

    def test_sessions_are_listed_and_ended(self):
        w, other = self.session("bot"), self.session("alice")
        mine = harness.wait_until("the session in the list", lambda: [
            s for s in self.gw.json("sessions")["sessions"] if s["chain"][-1]["name"] == "bot"])
        r = self.gw.cli("sessions")
        self.assertIn("bot", r.stdout)
        self.assertIn(self.name, r.stdout)
        for s in mine:
            self.gw.cli("sessions", "kill", s["id"], "--reason", "enough of this")
        kind, body = w.read()
        self.assertEqual(error_of([(kind, body)])["C"], "57P01")
        self.assertIn("enough of this", error_of([(kind, body)])["M"])
        self.assertTrue(w.closed())
        self.assertEqual(kinds(other.ask(query("select 1"))), "TDCZ")
        harness.wait_until("it to be ended", lambda: mine[0]["id"] not in [s["id"] for s in self.gw.json("sessions")["sessions"]])
        self.assertIn(mine[0]["id"], [s["id"] for s in self.gw.json("sessions", "--all")["sessions"]])
        self.refused("sessions", "kill", "ffffffff", words=("ffffffff",))
        self.refused("sessions", "kill", "f" * 32)

    def test_a_held_session_is_ended_too(self):
        t = self.table()
        w = self.session("bot")
        w.send(query("drop table " + t))
        r = self.held(t)
        session = self.gw.json("show", r["id"], who="bob")["session"]
        self.gw.cli("sessions", "kill", session, "--reason", "stop")
        self.assertTrue(w.closed())
        self.assertTrue(self.exists(t))

    def test_watching_requests(self):
        env = dict(self.gw.env, COUNTERSIGN_TOKEN=self.gw.tokens["bob"])
        b = harness.Background([self.gw.program, "requests", "--watch"], env)
        self.addCleanup(lambda: (b.kill(), b.finish()))
        t = self.table()
        w = self.session("bot")
        w.send(query("drop table " + t))
        r = self.held(t)
        b.wait_text(r["id"])
        self.gw.deny(r["id"], "seen")
        b.wait_text(r"(?s)%s.*denied" % r["id"])
        self.assertEqual(error_of(w.until_ready())["C"], "42501")

    def test_init_never_writes_over_anything(self):
        before = {}
        for base, _, names in os.walk(self.gw.home):
            for n in names:
                p = os.path.join(base, n)
                if os.path.isfile(p) and n in ("master.key", "tls.key", "countersign.yaml"):
                    with open(p, "rb") as f:
                        before[p] = f.read()
        self.assertEqual(len(before), 3)
        self.refused("init", self.gw.home, words=(self.gw.home,))
        for p, text in before.items():
            with open(p, "rb") as f:
                self.assertEqual(f.read(), text, p)
        self.refused("init", "/proc/nowhere/x")

    def test_keys_are_readable_by_their_owner_alone(self):
        for n in ("master.key", "tls.key"):
            self.assertEqual(os.stat(os.path.join(self.gw.home, n)).st_mode & 0o077, 0, n)
        for n in ("state", "recordings"):
            self.assertEqual(os.stat(os.path.join(self.gw.home, n)).st_mode & 0o077, 0, n)

    def test_requests_that_do_not_exist(self):
        for argv in (("show", "ZZZZZZZZ"), ("approve", "ZZZZZZZZ", "--yes"), ("deny", "ZZZZZZZZ", "--reason", "x"), ("cancel", "ZZZZZZZZ"),
                     ("show", "../../x"), ("replay", "0" * 32), ("replay", "x")):
            self.refused(*argv, who="bob")


if __name__ == "__main__":
    unittest.main()
