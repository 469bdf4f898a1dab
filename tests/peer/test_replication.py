"""Replication connections: only for verbs that a rule names, each command judged like any other action, by the programs
that people use for it (pg_recvlogical, pg_receivewal, pg_basebackup, psycopg2)."""
import os
import struct
import subprocess
import unittest

import harness
from base import ENDED, WireCase, fresh_name
from pgwire import PgError, error_of, kinds, message, parse, query, SYNC

READ = """
rules:
  - name: read
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
"""
NAMED = READ + """  - name: changes
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb in ["IDENTIFY_SYSTEM", "READ_REPLICATION_SLOT", "TIMELINE_HISTORY", "START_REPLICATION", "CREATE_REPLICATION_SLOT"]
    then: allow
  - name: copies
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb in ["BASE_BACKUP", "DROP_REPLICATION_SLOT"]
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
  - name: sql
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, e in ["write", "ddl"]) && !(sql.verb in ["START_REPLICATION", "CREATE_REPLICATION_SLOT", "BASE_BACKUP"])
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
"""
ANYTHING = """
rules:
  - name: anything
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    then: allow
"""


class ReplicationCase(WireCase):
    RULES = NAMED

    @classmethod
    def setUpClass(cls):
        cls.pg = harness.Postgres(settings=("wal_level = logical", "max_replication_slots = 50", "max_wal_senders = 20"))
        cls.addClassCleanup(cls.pg.destroy)
        shared, harness.shared_postgres = harness.shared_postgres, lambda: cls.pg
        try:
            super().setUpClass()
        finally:
            harness.shared_postgres = shared
        cls.pg.sql('alter role "%s" replication' % cls.roles["user"])
        cls.addClassCleanup(super().tearDownClass)

    @classmethod
    def tearDownClass(cls):
        pass

    def tearDown(self):
        for r in self.gw.pending():
            self.gw.deny(r["id"], "the test is over")
        for (slot,) in self.pg.sql("select slot_name from pg_replication_slots where not active"):
            self.pg.sql("select pg_drop_replication_slot('%s')" % slot)

    def env(self, who="bot"):
        return self.gw.pg_env(who, PGOPTIONS="-c countersign.target=" + self.name)

    def run_tool(self, program, *args, who="bot"):
        return subprocess.Popen([harness.PG_BIN + "/" + program, *args], env=self.env(who), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finished(self, p, ok=True):
        try:
            out, err = p.communicate(timeout=harness.PATIENCE)
        finally:
            p.kill()
        self.assertEqual(p.returncode == 0, ok, out + err)
        return out, err

    def slot(self):
        name = fresh_name("slot")
        self.sql("select pg_create_logical_replication_slot('%s', 'test_decoding')" % name)
        return name


class Replication(ReplicationCase):
    def test_changes_are_streamed_to_pg_recvlogical(self):
        slot, t = fresh_name("slot"), self.table()
        self.finished(self.run_tool("pg_recvlogical", "-d", self.name, "--slot", slot, "--create-slot", "-P", "test_decoding"))
        self.sql("insert into %s values (77, 'streamed')" % t)
        end = self.sql("select pg_current_wal_lsn()")[0][0]
        out, _ = self.finished(self.run_tool("pg_recvlogical", "-d", self.name, "--slot", slot, "--start", "-f", "-", "--no-loop", "-E", end))
        self.assertIn("table public.%s: INSERT: id[integer]:77 note[text]:'streamed'" % t, out)

    def test_a_physical_stream_goes_to_pg_receivewal(self):
        d = harness.scratch("wal")
        self.addCleanup(subprocess.run, ["rm", "-rf", d])
        t = self.table()
        end = self.sql("select pg_current_wal_lsn() + 16 * 1024 * 1024")[0][0]
        p = self.run_tool("pg_receivewal", "-D", d, "--no-loop", "--endpos", end)
        harness.wait_until("the stream", lambda: self.sql("select count(*) from pg_stat_replication where state = 'streaming'")[0][0])
        while p.poll() is None:
            self.sql("insert into %s values (1, 'x'); select pg_switch_wal()" % t)
        self.finished(p)
        self.assertTrue([f for f in os.listdir(d) if len(f) == 24], os.listdir(d))  # a whole segment

    def test_a_backup_waits_for_somebody_and_is_whole(self):
        d = harness.scratch("backup")
        self.addCleanup(subprocess.run, ["rm", "-rf", d])
        p = self.run_tool("pg_basebackup", "-D", d + "/b", "-c", "fast")
        r = self.held("BASE_BACKUP")
        self.gw.approve(r["id"])
        self.finished(p)
        v = subprocess.run([harness.PG_BIN + "/pg_verifybackup", d + "/b"], capture_output=True, text=True)
        self.assertEqual(v.returncode, 0, v.stdout + v.stderr)

    def test_a_backup_that_somebody_refuses_is_none(self):
        d = harness.scratch("backup")
        self.addCleanup(subprocess.run, ["rm", "-rf", d])
        p = self.run_tool("pg_basebackup", "-D", d + "/b", "-c", "fast")
        self.gw.deny(self.held("BASE_BACKUP")["id"], "not on a Monday")
        _, err = self.finished(p, ok=False)
        self.assertIn("not on a Monday", err)

    def test_psycopg2_reads_changes_and_tells_how_far_it_got(self):
        import psycopg2
        import psycopg2.extras
        slot, t = self.slot(), self.table()
        c = psycopg2.connect(host="localhost", port=self.gw.port, user="bot", password=self.gw.tokens["bot"], dbname=self.name,
                             sslmode="verify-full", sslrootcert=self.gw.ca, connection_factory=psycopg2.extras.LogicalReplicationConnection)
        self.addCleanup(c.close)
        cur = c.cursor()
        cur.execute("IDENTIFY_SYSTEM")
        self.assertEqual(cur.fetchone()[3], self.name)
        cur.start_replication(slot_name=slot, decode=True)
        self.sql("insert into %s values (78, 'more')" % t)
        seen = []

        def look():
            m = cur.read_message()
            if m is not None:
                seen.append(m.payload)
                cur.send_feedback(write_lsn=m.data_start, flush_lsn=m.data_start, reply=True, force=True)
            return any("'more'" in s for s in seen)
        harness.wait_until("the change", look)
        c.close()
        harness.wait_until("the slot to be free", lambda: not self.sql("select active from pg_replication_slots where slot_name = '%s'" % slot)[0][0])

    def stream(self, slot):
        w = self.session(replication="database")
        w.send(query("START_REPLICATION SLOT %s LOGICAL 0/0" % slot))
        self.assertEqual(w.read()[0], "W")
        return w

    def test_the_end_of_a_stream_is_the_clients_word(self):
        w = self.stream(self.slot())
        got = [k for k, _ in w.ask(message("c"))]
        self.assertEqual("".join(k for k in got if k not in "dN"), "cCCZ")  # of the stream, and of the command
        self.assertEqual(kinds(w.ask(query("IDENTIFY_SYSTEM"))), "TDCZ")

    def test_what_comes_and_goes_is_recorded(self):
        slot, t = self.slot(), self.table()
        w = self.stream(slot)
        self.sql("insert into %s values (79, 'on the record')" % t)
        while True:
            kind, body = w.read()
            if kind == "d" and b"on the record" in body:
                break
        w.send(message("d", b"r" + struct.pack("!QQQQB", 1, 1, 1, 0, 0)))
        w.ask(message("c"))
        session = self.sessions("bot")[0]["id"]
        w.close()
        frames = harness.wait_until("the session's end in the record", lambda: next(
            (f for f in [self.gw.recording(session)] if f[-1]["kind"] == "session_close"), None))
        action = next(f for f in frames if "START_REPLICATION SLOT %s" % slot in f.get("text", ""))
        data = [f for f in frames if f["kind"] == "data" and f["n"] == action["n"]]
        self.assertEqual([f["bytes"] for f in data if f["from"] == "client"], [39])
        result = next(f for f in frames if f["kind"] == "result" and f["n"] == action["n"])
        self.assertEqual(result["bytes"], sum(f["bytes"] for f in data if f["from"] == "target"))
        self.assertEqual(action["verb"], "START_REPLICATION")

    def sessions(self, who):
        return [s for s in self.gw.json("sessions")["sessions"] if s["chain"][-1]["name"] == who]

    def test_a_query_in_the_middle_of_a_stream_ends_the_session(self):
        w = self.stream(self.slot())
        w.send(query("select 1"))
        with self.assertRaises(ENDED):
            while w.read()[0] != "Z":
                pass

    def test_a_kill_ends_a_stream(self):
        slot = self.slot()
        w = self.stream(slot)
        for s in self.sessions("bot"):
            self.gw.cli("sessions", "kill", s["id"])
        with self.assertRaises(ENDED):
            while True:
                w.read()

    def test_sql_on_such_a_connection_is_judged_as_ever(self):
        t = self.table()
        w = self.session(replication="database", options="-c countersign.mode=async")
        self.assertEqual(kinds(w.ask(query("select count(*) from " + t))), "TDCZ")
        self.assertIn("CS001", error_of(w.ask(query("drop table " + t)))["C"])
        self.assertTrue(self.exists(t))

    def test_the_first_word_counts_whatever_its_case_and_what_is_before_it(self):
        w = self.session(replication="database", options="-c countersign.mode=async")
        for text in ("DROP_REPLICATION_SLOT x", "drop_replication_slot x", " \t\r\n\fDrop_Replication_Slot x", "DROP_REPLICATION_SLOT\nx;"):
            self.assertEqual(error_of(w.ask(query(text)))["C"], "CS001", text)

    def test_a_command_with_something_behind_it_is_not_called_harmless(self):
        w = self.session(replication="database")
        for text in ("IDENTIFY_SYSTEM; DROP_REPLICATION_SLOT x", "IDENTIFY_SYSTEM x y", "TIMELINE_HISTORY 1 'x'", "READ_REPLICATION_SLOT a /* */"):
            self.assertEqual(error_of(w.ask(query(text)))["C"], "42501", text)

    def test_the_extended_protocol_does_not_reach_a_command(self):
        w = self.session(replication="database", options="-c countersign.mode=async")
        for text in ("DROP_REPLICATION_SLOT x", "START_REPLICATION SLOT x LOGICAL 0/0"):
            self.assertIn("E", kinds(w.ask(parse(text), SYNC)))

    def test_on_an_ordinary_connection_the_same_words_are_no_command(self):
        w = self.session(options="-c countersign.mode=async")
        e = error_of(w.ask(query("IDENTIFY_SYSTEM")))
        self.assertEqual(e["C"], "CS001")  # nobody can read it: held like any other such text

    def test_other_values_of_the_parameter_are_refused(self):
        for value in ("maybe", "", "Database", "TRUE", "2"):
            with self.assertRaises(PgError) as e:
                self.session(replication=value)
            self.assertIn("42501", str(e.exception.fields), value)
        for value in ("off", "false", "no", "0"):
            self.assertEqual(kinds(self.session(replication=value).ask(query("select 1"))), "TDCZ")


class Unnamed(ReplicationCase):
    RULES = ANYTHING

    def test_allow_everything_does_not_mean_replication(self):
        for value in ("database", "true"):
            with self.assertRaises(PgError) as e:
                self.session(replication=value)
            self.assertIn("no rule for this target names", str(e.exception))

    def test_a_rule_that_names_one_command_permits_no_other(self):
        try:
            self.gw.configure(ANYTHING + '''  - name: identify
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "IDENTIFY_SYSTEM"
    then: allow
''')
            self.gw.cli("reload")
            w = harness.wait_until("the rule to count", self.opened)
            self.assertEqual(kinds(w.ask(query("IDENTIFY_SYSTEM"))), "TDCZ")
            e = error_of(w.ask(query("CREATE_REPLICATION_SLOT s LOGICAL test_decoding")))
            self.assertEqual(e["C"], "42501")
            self.assertIn('no rule that names "CREATE_REPLICATION_SLOT" allows this', e["D"] if "D" in e else e["M"])
            self.assertEqual(self.sql("select count(*) from pg_replication_slots")[0][0], 0)
            self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        finally:
            self.gw.configure(self.RULES)
            self.gw.cli("reload")
        # The session lives on; what it may do does not.
        harness.wait_until("the rule to be gone", lambda: "E" in kinds(w.ask(query("IDENTIFY_SYSTEM"))))

    def opened(self):
        try:
            return self.session(replication="database")
        except PgError:
            return None


class Elevated(ReplicationCase):
    RULES = READ + '''  - name: backups
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "DROP_REPLICATION_SLOT"
    then: hold
    run_as: elevated
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
'''

    def test_a_command_cannot_run_by_the_elevated_credential(self):
        w = self.session(replication="database")
        e = error_of(w.ask(query("DROP_REPLICATION_SLOT x")))
        self.assertEqual(e["C"], "42501")
        self.assertIn("elevated", e["M"])
        self.assertEqual(self.gw.pending(), [])


if __name__ == "__main__":
    unittest.main()
