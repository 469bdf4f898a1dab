"""The probe role on a real server: what it may do there, and that nothing else waits for it."""
import os
import signal
import unittest

import harness
from base import GatewayCase
from pgwire import kinds, query


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


if __name__ == "__main__":
    unittest.main()
