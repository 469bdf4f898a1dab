"""`target check` and `target sql`: the printed SQL makes roles at which nothing is found and with which the
gateway works; each finding appears when a role is made badly in that way, and is gone when it is undone."""
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import unittest

import harness
from base import GatewayCase, fresh_name

RULES = """
rules:
  - name: read
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: change
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, !(e in ["session", "read"]))
    then: hold
    run_as: elevated
    approvers: { groups: [dba], quorum: 1, within: 15m, valid: 10m, attach: 10m }
"""
HOSTILE = 'we"ird\'; DROP TABLE orders; -- $$\\n {everyday} %s :x'

FUNCTION = "create function public.f1() returns int language sql as 'select 1'"
EVENT = ("create function public.et() returns event_trigger language plpgsql as 'begin end'; "
         "create event trigger et on ddl_command_end execute function public.et()")
FOREIGN = ("create foreign data wrapper w1; create server s1 foreign data wrapper w1; create user mapping for {ro} server s1")
LANGUAGE = ("create language odd handler plpgsql_call_handler; "
            "create function public.u1() returns int language odd as 'begin return 1; end'")

# finding, severity, how it comes about, how it goes away, a word of its details
CASES = [
    ("everyday-superuser", "serious", "alter role {ro} superuser", "alter role {ro} nosuperuser", "{ro}"),
    ("everyday-bypassrls", "serious", "alter role {ro} bypassrls", "alter role {ro} nobypassrls", "{ro}"),
    ("everyday-createrole", "serious", "alter role {ro} createrole", "alter role {ro} nocreaterole", "{ro}"),
    ("everyday-replication", "serious", "alter role {ro} replication", "alter role {ro} noreplication", "{ro}"),
    ("everyday-createdb", "warning", "alter role {ro} createdb", "alter role {ro} nocreatedb", "{ro}"),
    ("owns-database", "serious", "alter database {db} owner to {ro}", "alter database {db} owner to {owner}", "{db}"),
    ("owns-schema", "serious", "create schema s1 authorization {ro}", "drop schema s1", "s1"),
    ("owns-table", "serious", "create table public.t1 (i int); alter table public.t1 owner to {ro}", "drop table public.t1", "public.t1"),
    ("owns-function", "serious", FUNCTION + "; alter function public.f1() owner to {ro}", "drop function public.f1()", "public.f1()"),
    ("member-elevated", "serious", "grant {owner} to {ro}", "revoke {owner} from {ro}", "{owner}"),
    ("member-elevated", "serious", "create role {ro}_mid; grant {owner} to {ro}_mid; grant {ro}_mid to {ro}", "drop role {ro}_mid", "{owner}"),
    ("member-power", "serious", "grant pg_write_server_files to {ro}", "revoke pg_write_server_files from {ro}", "pg_write_server_files"),
    ("member-power", "serious", "create role {ro}_mid; grant pg_execute_server_program to {ro}_mid; grant {ro}_mid to {ro}",
     "drop role {ro}_mid", "pg_execute_server_program"),
    ("member-power", "serious", "grant pg_write_all_data to {ro}", "revoke pg_write_all_data from {ro}", "pg_write_all_data"),
    ("member-admin", "serious", "create role {ro}_adm createrole; grant {ro}_adm to {ro}", "drop role {ro}_adm", "createrole"),
    ("member-read-all", "warning", "grant pg_read_all_data to {ro}", "revoke pg_read_all_data from {ro}", "pg_read_all_data"),
    ("admin-option", "warning", "create role {ro}_m; grant {ro}_m to {ro} with admin option", "drop role {ro}_m", "{ro}_m"),
    ("member-other", "note", "create role {ro}_m; grant {ro}_m to {ro}", "drop role {ro}_m", "{ro}_m"),
    ("rights-held", "serious", "grant delete, truncate on orders to {ro}", "revoke delete, truncate on orders from {ro}", "public.orders: DELETE, TRUNCATE"),
    ("rights-held", "serious", "grant update (amount) on orders to public", "revoke update (amount) on orders from public", "public.orders: UPDATE"),
    ("rights-held", "serious", "create schema s1; create table s1.t (i int); alter table s1.t owner to {owner}; grant insert on s1.t to {ro}",
     "drop schema s1 cascade", "s1.t: INSERT"),
    ("rights-held", "serious", "create role {ro}_m; grant insert on orders to {ro}_m; grant {ro}_m to {ro}",
     "revoke insert on orders from {ro}_m; drop role {ro}_m", "public.orders: INSERT"),
    ("rights-future", "warning", "alter default privileges for role {owner} in schema public grant delete on tables to {ro}",
     "alter default privileges for role {owner} in schema public revoke delete on tables from {ro}", "in schema public: DELETE"),
    ("sequences", "note", "grant usage on sequence numbers to {ro}", "revoke usage on sequence numbers from {ro}", "public.numbers"),
    ("not-read-only", "note", "alter role {ro} in database {db} reset default_transaction_read_only",
     "alter role {ro} in database {db} set default_transaction_read_only = on", "{ro}"),
    ("large-objects", "warning", "select lo_create(424242); alter large object 424242 owner to {ro}", "select lo_unlink(424242)", "424242"),
    ("large-objects", "warning", "select lo_create(424243); grant update on large object 424243 to public", "select lo_unlink(424243)", "424243"),
    ("reads-passwords", "serious", "grant select (rolname, rolpassword) on pg_authid to {ro}", "revoke select (rolname, rolpassword) on pg_authid from {ro}", "pg_authid"),
    ("create-in-path", "serious", "grant create on schema public to {ro}", "revoke create on schema public from {ro}", "public"),
    ("public-create", "warning", "grant create on schema public to public", "revoke create on schema public from public", "public"),
    ("create-elsewhere", "warning", "create schema s1; grant create on schema s1 to {ro}", "drop schema s1", "s1"),
    ("create-schema", "warning", "grant create on database {db} to {ro}", "revoke create on database {db} from {ro}", "{db}"),
    ("temporary-tables", "warning", "grant temporary on database {db} to public", "revoke temporary on database {db} from public", "{db}"),
    ("functions-server", "serious", "grant execute on function pg_read_file(text) to {ro}", "revoke execute on function pg_read_file(text) from {ro}", "pg_read_file"),
    ("functions-elsewhere", "serious", FUNCTION.replace("f1", "dblink_like"), "drop function public.dblink_like()", "public.dblink_like"),
    ("functions-write", "warning", "grant execute on function lo_create(oid) to public", "revoke execute on function lo_create(oid) from public", "lo_create"),
    ("functions-text", "warning", "grant execute on function query_to_xml(text, boolean, boolean, text) to public",
     "revoke execute on function query_to_xml(text, boolean, boolean, text) from public", "query_to_xml"),
    ("definer-superuser", "serious", FUNCTION + " security definer", "drop function public.f1()", "caller's search_path"),
    ("definer-other", "warning", FUNCTION + " security definer set search_path = pg_catalog; alter function public.f1() owner to {owner}; grant execute on function public.f1() to public",
     "drop function public.f1()", "owner {owner}"),
    ("untrusted-language", "serious", LANGUAGE, "drop function public.u1(); drop language odd", "language odd"),
    ("foreign-servers", "warning", FOREIGN, "drop foreign data wrapper w1 cascade", "server s1"),
    ("event-triggers", "note", EVENT, "drop event trigger et; drop function public.et()", "et on ddl_command_end"),
    ("elevated-superuser", "warning", "alter role {owner} superuser", "alter role {owner} nosuperuser", "{owner}"),
    ("elevated-power", "warning", "alter role {owner} createdb", "alter role {owner} nocreatedb", "createdb"),
    ("elevated-power", "warning", "grant pg_signal_backend to {owner}", "revoke pg_signal_backend from {owner}", "pg_signal_backend"),
    ("elevated-others", "warning", "create role {ro}_x login; grant {owner} to {ro}_x", "drop role {ro}_x", "{ro}_x"),
    ("elevated-not-owner", "note", "create table public.t1 (i int)", "drop table public.t1", "public.t1"),
    ("no-login", "serious", "alter role {owner} nologin", "alter role {owner} login", "{owner}"),
    ("password-expiry", "warning", "alter role {owner} valid until '2020-01-01'", "alter role {owner} valid until 'infinity'", "{owner}"),
    ("connection-limit", "note", "alter role {owner} connection limit -1", "alter role {owner} connection limit 20", "{owner}"),
    ("settings-role", "serious", "alter role {owner} set role = 'none'", "alter role {owner} reset role", "role=none"),
    ("settings-odd", "warning", "alter role {ro} set row_security = off", "alter role {ro} reset row_security", "row_security = off"),
    ("password-md5", "warning", "alter role {ro} set password_encryption = 'md5'", "alter role {ro} reset password_encryption", "md5"),
]


class CheckCase(GatewayCase):
    RULES = RULES
    OWN = None

    @classmethod
    def setUpClass(cls):
        cls.pg = cls.server = harness.Postgres(settings=["log_connections = on"])
        try:
            cls.name = fresh_name("db")
            cls.roles = harness.make_database(cls.pg, cls.name)
            cls.gw = harness.Gateway([harness.target_of(cls.pg, cls.name, cls.roles)], rules=cls.RULES)
        except Exception:
            cls.server.destroy()
            raise
        try:
            cls.gw.start().people()
            cls.tame(cls.name, cls.roles)
        except Exception:
            cls.tearDownClass()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.gw.destroy()
        cls.server.destroy()

    @classmethod
    def psql_as_superuser(cls, sql, database, stdin=""):
        path = os.path.join(cls.gw.dir, "roles.sql")
        with open(path, "w", encoding="utf-8") as f:
            f.write(sql)
        # No terminal: then psql takes the passwords from its standard input.
        return subprocess.run(["psql", "-Xq", "-d", cls.pg.dsn("'%s'" % database.replace("\\", "\\\\").replace("'", "\\'")), "-f", path],
                              env=dict(os.environ, PGPASSWORD=cls.pg.password), input=stdin, capture_output=True, text=True,
                              timeout=harness.PATIENCE, start_new_session=True)

    @classmethod
    def tame(cls, target, roles):
        """Runs what `target sql` prints, as a superuser would."""
        sql = cls.gw.cli("target", "sql", target).stdout
        answers = [roles["password"]] * 2 + [roles["owner_password"]] * 2 + [roles.get("probe_password", "")] * 2
        r = cls.psql_as_superuser(sql, roles.get("database", target), "\n".join(answers) + "\n")
        assert r.returncode == 0 and "ERROR" not in r.stderr, r.stdout + r.stderr
        return sql

    def check(self, target=None, ok=None):
        r = self.gw.cli("target", "check", target or self.name, "--json", ok=False)
        try:
            result = json.loads(r.stdout)
        except ValueError:
            self.fail("exit %d\n%s%s\n%s" % (r.returncode, r.stdout, r.stderr, self.gw.log_text()[-2000:]))
        self.assertEqual(r.returncode, 0 if result["serious"] == 0 and result["failed"] == 0 else 1)
        return {f["id"]: f for f in result["findings"]}, result


class PrintedSql(CheckCase):
    def test_roles_made_by_the_printed_sql_are_found_good(self):
        found, result = self.check()
        self.assertEqual(found, {})
        self.assertEqual(result["failed"], 0)
        self.assertEqual(result["certificate"]["subject"], "CN=localhost")
        self.assertEqual({u["id"] for u in result["not_seen"]}, {"hba-trust", "hba-anywhere", "hba-plain"})
        text = self.gw.cli("target", "check", self.name, "--strict").stdout
        self.assertIn("Nothing to complain about.", text)

    def test_the_printed_sql_can_be_run_again(self):
        self.tame(self.name, self.roles)
        self.assertEqual(self.check()[0], {})

    def test_with_these_roles_a_read_passes_and_a_held_drop_runs(self):
        table = fresh_name("t")
        c = self.pg.connect(self.name, self.roles["owner"], self.roles["owner_password"])
        with c.cursor() as cur:  # a table made later: default privileges let the everyday role read it
            cur.execute("create table %s (i int); insert into %s values (42)" % (table, table))
        c.close()
        r = self.gw.psql("bot", self.name, "select i from " + table)
        self.assertEqual((r.returncode, r.stdout.strip()), (0, "42"), r.stderr)
        held = self.gw.psql_start("bot", self.name, "drop table " + table)
        self.gw.approve(self.held("drop table " + table)["id"])
        self.assertEqual(held.finish(), 0, held.text)
        self.assertFalse(self.exists(table))

    def test_the_printed_sql_holds_no_password_and_is_for_its_database_only(self):
        sql = self.gw.cli("target", "sql", self.name).stdout
        self.assertNotIn(self.roles["password"], sql)
        self.assertNotIn(self.roles["owner_password"], sql)
        r = self.psql_as_superuser(sql, "postgres")
        self.assertNotEqual(r.returncode, 0)
        self.assertIn("this is for the database", r.stderr)
        verifiers = self.pg.sql("select rolpassword from pg_authid where rolname in ('%s', '%s')" % (self.roles["user"], self.roles["owner"]))
        self.assertTrue(all(v.startswith("SCRAM-SHA-256$") for v, in verifiers), "not stored as SCRAM")

    def test_it_mends_a_role_that_was_made_badly(self):
        ro, owner = self.roles["user"], self.roles["owner"]
        self.pg.sql("alter role %s superuser createrole bypassrls replication; alter role %s set role = 'none'; grant %s, pg_write_server_files to %s; "
                    "create table public.mine (i int); alter table public.mine owner to %s; create table public.bosses (i int); "
                    "grant all on all tables in schema public to public; grant all on schema public to public; "
                    "grant all on database %s to %s; grant execute on function pg_read_file(text) to public" % (
                        ro, ro, owner, ro, ro, self.name, ro), self.name)
        self.assertIn("everyday-superuser", self.check()[0])
        self.tame(self.name, self.roles)
        found, _ = self.check()
        self.pg.sql("drop table public.mine, public.bosses", self.name)
        self.assertEqual(found, {})


PROBE_CASES = [
    ("probe-elevated", "serious", "grant {owner} to {probe}", "revoke {owner} from {probe}", "{probe}"),
    ("probe-power", "serious", "alter role {probe} superuser", "alter role {probe} nosuperuser", "attribute superuser"),
    ("probe-power", "serious", "alter role {probe} createdb bypassrls", "alter role {probe} nocreatedb nobypassrls", "attribute bypassrls"),
    ("probe-power", "serious", "grant pg_write_all_data to {probe}", "revoke pg_write_all_data from {probe}", "pg_write_all_data"),
    ("probe-writes", "note", "grant update on orders to {probe}", "revoke update on orders from {probe}", "public.orders"),
]


class OfItsOwn(CheckCase):
    """A target with `probe`: another role looks, with another secret, and the everyday one is still what is judged."""

    @classmethod
    def setUpClass(cls):
        target_of = harness.target_of

        def with_probe(pg, name, roles, **more):
            roles["probe"], roles["probe_password"] = roles["user"] + "_look", "looks only"
            return target_of(pg, name, roles, probe=roles["probe"], probe_password=roles["probe_password"], **more)
        harness.target_of = with_probe
        try:
            super().setUpClass()
        finally:
            harness.target_of = target_of

    def fill(self, text):
        return text.format(owner=self.roles["owner"], probe=self.roles["probe"], ro=self.roles["user"])

    def test_the_role_made_by_the_printed_sql_looks_and_is_found_good(self):
        found, result = self.check()
        self.assertEqual(found, {})
        self.assertEqual((result["everyday"], result["probe"]), (self.roles["user"], self.roles["probe"]))
        self.assertIn(self.roles["probe"], self.gw.cli("target", "check", self.name).stdout)
        status, body = self.gw.api("GET", "/v1/targets/%s/answers" % self.name)
        self.assertEqual(status, 200, body)
        self.assertEqual(body["tables"]["server"]["rows"][0][2:5], [self.name, self.roles["probe"], self.roles["probe"]])
        self.assertEqual([r[0] for r in body["tables"]["roles"]["rows"]], [self.roles["user"], self.roles["owner"]])
        r = self.gw.psql("bot", self.name, "select current_user")
        self.assertEqual(r.stdout.strip(), self.roles["user"])

    def test_each_way_of_making_it_badly_is_found_and_its_mending_too(self):
        for finding, severity, bad, good, detail in PROBE_CASES:
            with self.subTest(finding, how=bad):
                try:
                    self.sql(self.fill(bad))
                    found, _ = self.check()
                    self.assertIn(finding, found)
                    self.assertEqual(found[finding]["severity"], severity)
                    self.assertIn(self.fill(detail), "\n".join(found[finding]["details"]))
                finally:
                    self.sql(self.fill(good))
        self.assertEqual(self.check()[0], {})

    def test_the_everyday_role_is_judged_all_the_same(self):
        self.sql(self.fill("alter role {ro} createdb"))
        try:
            self.assertIn("everyday-createdb", self.check()[0])
        finally:
            self.sql(self.fill("alter role {ro} nocreatedb"))

    def test_catalogues_are_read_with_it(self):
        harness.wait_until("a catalogue", lambda: self.gw.api("GET", "/v1/status")[1]["catalogues"][self.name] is not None)
        with open(self.pg.log, encoding="utf-8") as f:
            self.assertIn("user=" + self.roles["probe"], f.read())

    def test_without_its_secret_nobody_looks_and_doctor_says_which_one(self):
        self.gw.configure(RULES, [dict(self.gw.targets[0], probe=self.roles["probe"]), dict(self.gw.targets[0], name="second")])
        self.gw.cli("reload")
        try:
            self.gw.cli("secret", "set", "second-ro", stdin=self.roles["password"])
            self.gw.cli("secret", "set", "second-owner", stdin=self.roles["owner_password"])
            self.assertIn("second-probe of target second is not stored", self.gw.cli("doctor", ok=False).stdout)
            r = self.gw.cli("target", "check", "second", ok=False)
            self.assertEqual(r.returncode, 1)
            self.assertEqual(self.gw.psql("bot", "second", "select 1").stdout.strip(), "1")
        finally:
            self.gw.configure(RULES, [self.gw.targets[0]])
            self.gw.cli("reload")


class HostileNames(CheckCase):
    def test_names_that_look_like_sql_make_roles_and_nothing_else(self):
        name = HOSTILE + fresh_name("d")
        with self.pg.connect().cursor() as cur:
            cur.execute('create database "%s"' % name.replace('"', '""').replace("%", "%"))
        roles = {"user": HOSTILE + "ro", "password": "pw one", "owner": HOSTILE + "ow", "owner_password": "pw two", "database": name}
        q = json.dumps  # a YAML string
        old = list(self.gw.targets)
        target = harness.target_of(self.pg, "hostile", roles)
        target.update(user=q(roles["user"]), owner=q(roles["owner"]), database=q(name))
        self.gw.configure(RULES, old + [target])
        self.gw.cli("reload")
        try:
            for secret, value in (("hostile-ro", "pw one"), ("hostile-owner", "pw two")):
                self.gw.cli("secret", "set", secret, stdin=value)
            self.pg.sql("create table orders (id int); insert into orders values (7)", name)
            self.tame("hostile", roles)
            found, result = self.check("hostile")
            self.assertEqual(found, {})
            self.assertEqual((result["everyday"], result["elevated"]), (roles["user"], roles["owner"]))
            r = self.gw.psql("bot", "hostile", "select id from orders")
            self.assertEqual((r.returncode, r.stdout.strip()), (0, "7"), r.stderr)
            text = self.gw.cli("target", "check", "hostile").stdout
            self.assertIn(roles["user"].replace("\\n", "\\n"), text)
        finally:
            self.gw.configure(RULES, old)
            self.gw.cli("reload")


class Findings(CheckCase):
    """Each finding, at a server where it is so and where it is not."""

    def fill(self, text):
        return text.format(ro=self.roles["user"], owner=self.roles["owner"], db=self.name)

    def test_each_way_of_making_roles_badly_is_found_and_its_mending_too(self):
        self.assertEqual(self.check()[0], {})
        for finding, severity, bad, good, detail in CASES:
            with self.subTest(finding, how=bad):
                try:
                    self.sql(self.fill(bad))
                    found, _ = self.check()
                    self.assertIn(finding, found)
                    self.assertEqual(found[finding]["severity"], severity)
                    self.assertIn(self.fill(detail), "\n".join(found[finding]["details"]))
                finally:
                    self.sql(self.fill(good))
                self.assertNotIn(finding, self.check()[0])

    def test_what_a_superuser_could_do_besides_is_not_listed(self):
        self.sql(self.fill("alter role {ro} superuser"))
        try:
            self.assertEqual(set(self.check()[0]), {"everyday-superuser"})
        finally:
            self.sql(self.fill("alter role {ro} nosuperuser"))

    def with_target(self, **more):
        """The findings with the target configured otherwise."""
        old = list(self.gw.targets)
        try:
            self.gw.configure(RULES, [dict(old[0], **more)])
            self.gw.cli("reload")
            return self.check()[0]
        finally:
            self.gw.configure(RULES, old)
            self.gw.cli("reload")

    def test_the_configuration_is_judged_too(self):
        self.assertEqual(set(self.with_target()), set())
        found = self.with_target(owner=self.roles["user"], owner_password=self.roles["password"])
        self.assertIn("elevated-same", found)
        self.assertEqual(self.with_target(owner="nobody_there")["elevated-missing"]["severity"], "serious")
        self.assertNotIn("elevated-same", self.with_target(owner="nobody_there"))
        self.assertEqual(self.with_target(tls="require", roots=None)["tls-unchecked"]["severity"], "warning")
        self.assertIn("tls-any-name", self.with_target(tls="verify-ca"))
        self.assertNotIn("tls-off", self.with_target(tls="off", roots=None), "loopback needs no TLS")

    def test_rights_that_the_rules_use_are_no_finding(self):
        more = RULES + """
  - name: insert-scratch
    who: { groups: [dba] }
    target: { kind: postgres }
    when: |
      sql.verb == "INSERT" && sql.writes.all(w, w == "scratchpad") && sql.effects.all(e, e in ["read", "write"])
    then: allow
"""
        self.sql(self.fill("grant insert on orders, scratchpad to {ro}"))
        try:
            self.assertEqual(sorted(self.check()[0]["rights-held"]["details"]), ["public.orders: INSERT", "public.scratchpad: INSERT"])
            self.gw.configure(more)
            self.gw.cli("reload")
            self.assertEqual(self.check()[0]["rights-held"]["details"], ["public.orders: INSERT"])
            sql = self.gw.cli("target", "sql", self.name).stdout
            self.assertIn("\n-- GRANT INSERT ON ", sql)
            self.assertNotIn("\nGRANT INSERT", sql)
        finally:
            self.gw.configure(RULES)
            self.gw.cli("reload")
            self.sql(self.fill("revoke insert on orders, scratchpad from {ro}"))

    def test_a_session_from_elsewhere_is_found(self):
        import psycopg2
        path = os.path.join(self.pg.data, "pg_hba.conf")
        with open(path) as f:
            before = f.read()
        listener = socket.create_server(("127.0.0.1", 0))

        def forward():
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                server = socket.create_connection(("127.0.0.1", self.pg.port), source_address=("127.0.0.2", 0))
                threading.Thread(target=relay, args=(client, server), daemon=True).start()

        def connect():
            try:
                return psycopg2.connect(host="127.0.0.1", port=listener.getsockname()[1], user=self.roles["user"],
                                        password=self.roles["password"], dbname=self.name, sslmode="disable")
            except psycopg2.OperationalError:
                return None  # pg_hba.conf is read again when the server gets to it

        threading.Thread(target=forward, daemon=True).start()
        with open(path, "w") as f:
            f.write(before + "host all all 127.0.0.2/32 scram-sha-256\n")
        self.pg.sql("select pg_reload_conf()")
        try:
            c = harness.wait_until("a session from 127.0.0.2", connect)
            found, _ = self.check()
            c.close()
            self.assertIn("sessions-elsewhere", found)
            self.assertIn("127.0.0.2", found["sessions-elsewhere"]["details"][0])
            harness.wait_until("the session to be gone", lambda: "sessions-elsewhere" not in self.check()[0])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            with open(path, "w") as f:
                f.write(before)
            self.pg.sql("select pg_reload_conf()")

    def test_lines_of_pg_hba_conf_are_judged_where_they_can_be_seen(self):
        path = os.path.join(self.pg.data, "pg_hba.conf")
        with open(path) as f:
            before = f.read()
        self.sql(self.fill("grant select on pg_hba_file_rules to {ro}; grant execute on function pg_hba_file_rules() to {ro}"))
        try:
            found, result = self.check()
            self.assertEqual((found, result["not_seen"]), ({}, []))
            for line, wanted in (("host all all 10.0.0.1/32 trust", {"hba-trust", "hba-plain"}),
                                 ("hostssl all all all scram-sha-256", {"hba-anywhere"}),
                                 ("hostssl all all 0.0.0.0/0 scram-sha-256", {"hba-anywhere"}),
                                 ("hostssl all %s ::/0 scram-sha-256" % self.roles["owner"], {"hba-anywhere"}),
                                 ("host all somebody_else 0.0.0.0/0 trust", set()),
                                 ("host other_db all 0.0.0.0/0 trust", set()),
                                 ("host all all all reject", set()),
                                 ("hostssl all all 10.0.0.1/32 scram-sha-256", set())):
                with self.subTest(line):
                    with open(path, "w") as f:
                        f.write(before + line + "\n")
                    self.assertEqual(set(self.check()[0]), wanted)
        finally:
            with open(path, "w") as f:
                f.write(before)
            self.sql(self.fill("revoke select on pg_hba_file_rules from {ro}; revoke execute on function pg_hba_file_rules() from {ro}"))

    def pooler(self, listener, cert, key):
        """Takes TLS and goes on without."""
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(cert, key)
        ctx.set_alpn_protocols(["postgresql"])
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.recv(8)  # SSLRequest
            client.sendall(b"S")
            tls = ctx.wrap_socket(client, server_side=True)
            threading.Thread(target=relay, args=(tls, socket.create_connection(("127.0.0.1", self.pg.port))), daemon=True).start()

    def test_tls_that_ends_before_the_server_is_found(self):
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.pooler, args=(listener, self.pg.data + "/server.crt", self.pg.data + "/server.key"), daemon=True).start()
        try:
            self.assertEqual(set(self.with_target(address="127.0.0.1:%d" % listener.getsockname()[1])), {"tls-ends"})
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def test_what_this_server_is_not_is_judged_behind_a_relay_that_pretends(self):
        """Other versions and addresses: the relay changes what a query compares, on its way."""
        version = b"current_setting('server_version_num')::int"
        listen = b"FROM pg_settings WHERE name = 'listen_addresses'"
        for finding, severity, old, new in (
                ("version-old", "warning", version, b"130099"), ("version-new", "note", version, b"160000"), (None, None, version, b"159999"),
                (None, None, version, b"140000"),
                ("listens-everywhere", "note", listen, b"FROM (VALUES ('listen_addresses', '*')) v(name, setting) WHERE true"),
                ("listens-everywhere", "note", listen, b"FROM (VALUES ('', 'localhost, 0.0.0.0')) v(name, setting) WHERE true"),
                (None, None, listen, b"FROM (VALUES ('', 'localhost, 10.0.0.0')) v(name, setting) WHERE true")):
            with self.subTest(finding, new=new):
                relay_ = Pretender(self.pg.port, old, new)
                try:
                    found = self.with_target(address="127.0.0.1:%d" % relay_.port, tls="off", roots=None)
                finally:
                    relay_.stop()
                self.assertGreater(relay_.changed, 0, "the query is not what the test thinks it is")
                self.assertEqual({k: v["severity"] for k, v in found.items()}, {finding: severity} if finding else {})

    def test_a_certificate_that_runs_out_is_found(self):
        listener = socket.create_server(("127.0.0.1", 0))
        cert, key = os.path.join(self.gw.dir, "short.crt"), os.path.join(self.gw.dir, "short.key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "5",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
                       check=True, capture_output=True)
        t = threading.Thread(target=self.pooler, args=(listener, cert, key), daemon=True)
        t.start()
        try:
            found = self.with_target(address="127.0.0.1:%d" % listener.getsockname()[1], roots=cert)
            self.assertIn("CN=localhost: until ", found["certificate-expiry"]["details"][0])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def test_the_servers_own_state_is_judged(self):
        def log(value):
            self.pg.sql("alter system set log_connections = " + value)
            self.pg.sql("select pg_reload_conf()")
            harness.wait_until("log_connections to be " + value, lambda: self.pg.sql("show log_connections")[0][0] == value)
        log("off")
        self.assertIn("log-connections", self.check()[0])
        log("on")
        self.assertNotIn("log-connections", self.check()[0])
        signal_file = os.path.join(self.pg.data, "standby.signal")
        self.pg.stop()
        with open(signal_file, "w"):
            pass
        try:
            self.pg.start()
            self.assertEqual(self.check()[0]["standby"]["severity"], "warning")
        finally:
            self.pg.stop()
            os.unlink(signal_file)
            self.pg.start()
        self.assertNotIn("standby", self.check()[0])


class WhatPeopleSee(CheckCase):
    def test_only_who_may_set_up_sees_it(self):
        for what in ("check", "sql"):
            path = "/v1/targets/%s/%s" % (self.name, what)
            for who in ("alice", "bob", "bot"):
                self.assertEqual(self.gw.api("GET", path, who=who, local=False)[0], 403, (what, who))
            self.assertEqual(self.gw.api("GET", path, local=False)[0], 401)
            self.assertEqual(self.gw.api("GET", path)[0], 200)

    def test_a_target_that_is_none_is_said(self):
        for what in ("check", "sql"):
            r = self.gw.cli("target", what, "nope", ok=False)
            self.assertEqual(r.returncode, 1)
            self.assertIn("there is no such target", r.stderr)
        r = self.gw.cli("target", "sql", self.name, "--schema", "a\nb", ok=False)
        self.assertEqual(r.returncode, 1)
        self.assertEqual(r.stdout, "")

    def test_warnings_fail_the_strict_check_only(self):
        self.sql("alter role %s createdb" % self.roles["user"])
        try:
            self.assertEqual(self.gw.cli("target", "check", self.name).returncode, 0)
            self.assertEqual(self.gw.cli("target", "check", self.name, "--strict", ok=False).returncode, 1)
        finally:
            self.sql("alter role %s nocreatedb" % self.roles["user"])

    def test_the_text_says_what_it_is_what_it_means_and_what_to_do(self):
        self.sql("create table public.\"\x1b[2J\" (i int); grant delete on public.\"\x1b[2J\", orders to %s" % self.roles["user"])
        try:
            r = self.gw.cli("target", "check", self.name, ok=False)
            self.assertEqual(r.returncode, 1)
            self.assertIn("SERIOUS  The everyday role may change data that the rules never let it change  [rights-held]", r.stdout)
            self.assertIn("      public.orders: DELETE", r.stdout)
            self.assertIn('-> REVOKE', r.stdout)
            self.assertNotIn("\x1b", r.stdout, "a server's name reached the terminal as it was")
        finally:
            self.sql("drop table public.\"\x1b[2J\"; revoke delete on orders from %s" % self.roles["user"])

    def test_a_probe_that_dies_is_replaced_and_meanwhile_said(self):
        for pid in self.gw.pids("probe"):
            os.kill(pid, signal.SIGKILL)
        r = self.gw.cli("target", "check", self.name, ok=False)
        if r.returncode != 0:
            self.assertIn("countersign target check: ", r.stderr)
        harness.wait_until("the next probe", lambda: self.gw.cli("target", "check", self.name, ok=False).returncode == 0)
        self.assertEqual(self.gw.psql("bot", self.name, "select 1").stdout.strip(), "1")

    def doctor(self):
        return [c["detail"] for c in json.loads(self.gw.cli("doctor", "--json", ok=False).stdout)["checks"] if c["check"] == "target roles"]

    def test_doctor_tells_the_last_result_and_waits_for_none(self):
        self.sql("grant delete on orders to %s" % self.roles["user"])
        try:
            self.check()
            text = "\n".join(self.doctor())
            self.assertIn("1 serious", text)
            self.assertIn("[rights-held]", text)
            self.assertEqual(self.gw.cli("doctor", ok=False).returncode, 1)
        finally:
            self.sql("revoke delete on orders from %s" % self.roles["user"])
        self.check()
        self.assertIn("0 serious, 0 warnings", "\n".join(self.doctor()))
        self.assertEqual(self.gw.cli("doctor").returncode, 0)

    def test_doctor_looks_by_itself_and_does_not_hang_at_a_target_that_is_down(self):
        silent = socket.create_server(("127.0.0.1", 0))  # accepts, never answers
        old = list(self.gw.targets)
        try:
            self.gw.configure(RULES, old + [dict(old[0], name="silent", address="127.0.0.1:%d" % silent.getsockname()[1]),
                                            dict(old[0], name="closed", address="127.0.0.1:%d" % harness.free_port())])
            self.gw.cli("reload")
            first = self.doctor()
            self.assertTrue(any("not looked at yet" in d and "silent" in d for d in first), first)
            harness.wait_until("doctor to know all of them", lambda: (lambda t: "silent: could not be looked at" in t and
                                                                      "closed: could not be looked at" in t and
                                                                      self.name + ": 0 serious" in t)("\n".join(self.doctor())))
        finally:
            silent.close()
            self.gw.configure(RULES, old)
            self.gw.cli("reload")


class Pretender:
    """A relay that replaces a piece of text in the client's Parse messages."""

    def __init__(self, server_port, old, new):
        self.server_port, self.old, self.new, self.changed = server_port, old, new, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.server_port))
            for s in (client, server):
                s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._client_side, args=(client, server), daemon=True).start()
            threading.Thread(target=self._server_side, args=(client, server), daemon=True).start()

    @staticmethod
    def _server_side(client, server):
        try:
            while data := server.recv(65536):
                client.sendall(data)
        except OSError:
            pass
        client.close()

    def _client_side(self, client, server):
        stream = client.makefile("rb")
        try:
            head = stream.read(4)
            server.sendall(head + stream.read(int.from_bytes(head, "big") - 4))
            while kind := stream.read(1):
                body = stream.read(int.from_bytes(stream.read(4), "big") - 4)
                if kind == b"P" and self.old in body:
                    self.changed += 1
                    body = body.replace(self.old, self.new)
                server.sendall(kind + (len(body) + 4).to_bytes(4, "big") + body)
        except OSError:
            pass
        server.close()


def relay(a, b):
    """Bytes both ways until one side ends."""
    def one_way(x, y):
        try:
            while True:
                data = x.recv(65536)
                if not data:
                    break
                y.sendall(data)
        except OSError:
            pass
        for s in (x, y):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
    t = threading.Thread(target=one_way, args=(b, a), daemon=True)
    t.start()
    one_way(a, b)
    t.join(harness.PATIENCE)
    a.close()
    b.close()


if __name__ == "__main__":
    unittest.main()
