"""The probe role on a real server: what it may do there, and that nothing else waits for it."""
import os
import signal
import threading
import unittest

import fakepg
import harness
from base import GatewayCase, fresh_name
from pgwire import Wire, kinds, query


class ProbeCase(GatewayCase):
    def answers(self, target=None):
        return self.gw.api("GET", "/v1/targets/%s/answers" % (target or self.name))

    def rows(self, table):
        status, body = self.answers()
        self.assertEqual(status, 200, body)
        self.assertEqual(body["tables"][table]["outcome"], "complete", body)
        return body["tables"][table]["rows"]


class Answers(ProbeCase):
    def test_the_target_is_asked_with_the_everyday_role(self):
        row = self.rows("server")[0]
        self.assertTrue(row[0].startswith("15"), row)
        self.assertEqual(row[2:5], [self.name, self.roles["user"], self.roles["user"]])
        self.assertEqual(row[6], "t")  # over TLS, as the target's configuration demands

    def test_roles_reach_the_queries_as_parameters(self):
        self.assertEqual([r[0] for r in self.rows("roles")], [self.roles["user"], self.roles["owner"]])

    def test_a_target_that_is_not_configured(self):
        status, body = self.answers("nowhere")
        self.assertEqual(status, 404, body)

    def test_only_those_who_set_up_may_ask(self):
        status, _ = self.gw.api("GET", "/v1/targets/%s/answers" % self.name, who="bob", local=False)
        self.assertEqual(status, 403)

    def test_its_session_is_read_only_and_short(self):
        settings = dict((r[0], r[1]) for r in self.rows("session"))
        self.assertEqual(settings["transaction_read_only"], "on")
        self.assertEqual(settings["statement_timeout"], "2s")
        self.assertEqual(settings["transaction_isolation"], "repeatable read")
        self.assertEqual(settings["search_path"], "pg_catalog, pg_temp")

    def test_a_role_s_own_settings_cannot_undo_that(self):
        self.sql('alter role "%s" set search_path = public; alter role "%s" set statement_timeout = 0; '
                 'alter role "%s" set default_transaction_read_only = off' % ((self.roles["user"],) * 3))
        try:
            self.test_its_session_is_read_only_and_short()
        finally:
            self.sql('alter role "%s" reset all' % self.roles["user"])

    def test_a_killed_probe_is_back_and_sessions_do_not_notice(self):
        live = self.wire()
        old = self.gw.pids("probe")[0]
        os.kill(old, signal.SIGKILL)
        self.assertEqual(kinds(live.ask(query("select 1"))), "TDCZ")
        harness.wait_until("probe to be back", lambda: self.gw.pids("probe") not in ([], [old]))
        harness.wait_until("an answer of the new one", lambda: self.answers()[0] == 200)
        live.close()


class Impact(ProbeCase):
    def impact(self, sql, setup=""):
        """What the card of the held statement says it would touch, once it says something."""
        w = self.wire(options="-c countersign.mode=async")
        w.ask(query(sql))
        w.close()
        request = self.held(sql)

        def look():
            status, card = self.gw.api("GET", "/v1/requests/" + request["id"], who="bob")
            return status == 200 and card["impact"] and card
        card = harness.wait_until("the impact of " + sql, look)
        self.assertEqual(card["digest"], request["digest"])  # it is no part of that
        return request["id"], card["impact"]

    def test_a_table_that_is_dropped(self):
        t = self.table()
        self.sql("create view public.%s_v as select id from public.%s; analyze public.%s" % (t, t, t))
        request, impact = self.impact("drop table " + t)
        relation = impact["relations"][0]
        self.assertEqual((relation["name"], relation["kind"], relation["rows"]), ("public." + t, "table", 10))
        self.assertGreater(relation["bytes"], 0)
        self.assertIn(t + "_v", relation["dependants"])
        self.assertIsNone(impact["rows"])
        shown = self.gw.cli("show", request, who="bob")
        shown = shown.stdout if hasattr(shown, "stdout") else shown
        self.assertIn("an estimate", shown)
        self.assertIn("about 10 rows", shown)

    def test_the_rows_of_an_update_by_its_plan(self):
        t = self.table()
        self.sql("insert into public.%s select i, 'x' from generate_series(11, 1000) i; analyze public.%s" % (t, t))
        harness.wait_until("a catalogue", lambda: self.gw.api("GET", "/v1/status")[1]["catalogues"][self.name] is not None)
        _, impact = self.impact("update %s set note = 'y' where id <= 500" % t)
        self.assertTrue(300 < impact["rows"] < 700, impact)

    def test_a_statement_that_calls_unknown_code_is_not_planned(self):
        t = self.table()
        self.sql("create table if not exists folded (n int); create or replace function public.folds(int) returns int language plpgsql "
                 "immutable security definer as 'begin insert into public.folded values (1); return 1; end'")
        w = self.wire(options="-c countersign.mode=async")
        w.ask(query("update %s set note = 'y' where id = folds(1)" % t))
        w.close()
        self.impact("drop table " + t)  # asked for behind it
        self.assertIsNone(self.held("folds(1)")["impact"])
        self.assertEqual(self.sql("select count(*) from public.folded")[0][0], 0)

    def test_a_hold_does_not_wait_for_it(self):
        t = self.table()
        pid = self.gw.pids("probe")[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            w = self.wire(options="-c countersign.mode=async")
            w.ask(query("drop table " + t))
            w.close()
            request = self.held("drop table " + t)
            self.assertIsNone(request["impact"])
        finally:
            os.kill(pid, signal.SIGCONT)


class Hostile(unittest.TestCase):
    """Targets that do everything wrong: only their own task suffers."""

    @classmethod
    def setUpClass(cls):
        cls.pg = harness.shared_postgres()
        cls.name = fresh_name("db")
        cls.roles = harness.make_database(cls.pg, cls.name)
        cls.fake = fakepg.FakePostgres("fake-password")
        fake = dict(name="fake", address="127.0.0.1:%d" % cls.fake.port, database="any", user="fake_ro", password="fake-password",
                    owner="fake_owner", owner_password="fake-password", tls="off")
        cls.gw = harness.Gateway([harness.target_of(cls.pg, cls.name, cls.roles), fake])
        try:
            cls.gw.start().people()
        except Exception:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.fake.destroy()
        cls.gw.destroy()

    def setUp(self):
        self.pid = self.gw.pids("probe")[0]

    def tearDown(self):
        self.assertEqual(self.gw.pids("probe"), [self.pid], "the probe has died")

    def broken(self, answer, error):
        """A server that logs in as it should and sends this to the first query."""
        def script(c):
            c.login()
            c.read()
            answer(c)
        self.fake.script = script
        status, body = self.gw.api("GET", "/v1/targets/fake/answers")
        self.assertNotEqual(status, 200)
        self.assertRegex(body["message"], error)

    def test_a_huge_length(self):
        self.broken(lambda c: (c.send(b"D\x7f\xff\xff\xf0\0\1"), c.hang()), "larger than is taken in")

    def test_an_unknown_message(self):
        self.broken(lambda c: (c.send(b"?\0\0\0\4"), c.hang()), "does not speak")

    def test_rows_that_nobody_asked_for(self):
        self.broken(lambda c: (c.send(fakepg.row(b"x"), fakepg.ready()), c.hang()), "not asked for")

    def test_a_copy(self):
        self.broken(lambda c: (c.send(b"G\0\0\0\7\0\0\0"), c.hang()), "does not fit")

    def test_it_closes(self):
        self.broken(lambda c: None, "connection broke")

    def session(self):
        w = Wire(self.gw.port, self.gw.ca).login("bot", self.gw.tokens["bot"], self.name)
        answer = kinds(w.ask(query("select 1")))
        w.close()
        return answer

    def alongside(self, script, error):
        """While such a task runs, sessions of other targets open and work, and other targets are looked at."""
        self.fake.script = script
        results = []
        worker = threading.Thread(target=lambda: results.append(self.gw.api("GET", "/v1/targets/fake/answers")))
        worker.start()
        for _ in range(5):
            self.assertEqual(self.session(), "TDCZ")
            status, _ = self.gw.api("GET", "/v1/targets/%s/answers" % self.name)
            self.assertEqual(status, 200)
        worker.join()
        self.assertNotEqual(results[0][0], 200)
        self.assertRegex(results[0][1]["message"], error)

    def test_notices_without_end(self):
        def script(c):
            c.login()
            while True:
                c.send(fakepg.notice("x" * 1000) * 50)
        self.alongside(script, "took too long|without end")

    def test_no_answer_at_all(self):
        self.alongside(lambda c: (c.login(), c.hang()), "does not answer|took too long")


class Late(unittest.TestCase):
    def test_a_target_that_was_down_at_the_first_look_is_looked_at_again_within_seconds(self):
        fake = fakepg.FakePostgres("fake-password")
        self.addCleanup(fake.destroy)
        looks = []
        fake.script = looks.append  # and it closes
        gw = harness.Gateway([dict(name="late", address="127.0.0.1:%d" % fake.port, database="any", user="fake_ro",
                                   password="fake-password", tls="off")], rules="rules: []\n")
        self.addCleanup(gw.destroy)
        gw.start()
        harness.wait_until("a second and a third look", lambda: len(looks) >= 3, 30)  # one a minute, if all goes well


if __name__ == "__main__":
    unittest.main()
