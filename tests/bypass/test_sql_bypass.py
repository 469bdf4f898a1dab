"""Every trick of sql-rows.txt, run twice on a real server: first straight at it, to prove that the trick
works without us; then through the gateway with a credential that could do it (a superuser), where only
the classification stands between. Through the gateway it must not happen."""
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))
import harness  # noqa: E402
from attacks import ATTACKS  # noqa: E402
from base import fresh_name  # noqa: E402
from pgwire import SYNC, Closed, Wire, bind, execute, parse, query  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
READ_ONLY = """
rules:
  - name: read
    who: { groups: [agents] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
"""
CANARY = ("drop table if exists canary, stolen cascade; create table canary (k int primary key, v text); "
          "insert into canary values (1, 'a'), (2, 'b'), (3, 'c')")


class SqlBypass(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pg = harness.Postgres()
        cls.db = fresh_name("bypass")
        cls.pg.sql("create database " + cls.db)
        cls.folder = os.path.join(cls.pg.dir, "out")
        os.mkdir(cls.folder)
        os.chmod(cls.folder, 0o777)
        target = {"name": cls.db, "address": "127.0.0.1:%d" % cls.pg.port, "database": cls.db, "tls": "off",
                  "user": cls.pg.superuser, "password": cls.pg.password}
        cls.gw = harness.Gateway([target], rules=READ_ONLY, tls=False).start()
        cls.gw.add_user("alice", "agents")
        cls.gw.add_agent("bot", "alice", "agents")

    @classmethod
    def tearDownClass(cls):
        cls.gw.destroy()
        cls.pg.destroy()

    def fill(self, text):
        return text.replace("{dir}", self.folder).replace("{db}", self.db)

    def prepare(self, a):
        for name in os.listdir(self.folder):
            os.unlink(os.path.join(self.folder, name))
        self.pg.sql(CANARY, self.db)
        if a.prepare:
            for part in ([a.prepare] if "system" not in a.prepare else a.prepare.split(";")):
                self.pg.sql(self.fill(part), self.db)

    def happened(self, a):
        return bool(self.pg.sql(self.fill(a.happened), self.db)[0][0])

    def connect(self, guarded):
        if guarded:
            return Wire(self.gw.port).login("bot", self.gw.tokens["bot"], self.db)
        return Wire(self.pg.port).login(self.pg.superuser, self.pg.password, self.db)

    def send(self, wire, texts, extended):
        """True when every message was answered with ReadyForQuery."""
        try:
            for text in texts:
                text = self.fill(text)
                if extended:
                    wire.ask(parse(text), bind(), execute(), SYNC)
                else:
                    wire.ask(query(text))
        except (Closed, ConnectionResetError, BrokenPipeError):
            pass  # ending the session is an answer too

    def attempt(self, a, guarded, extended):
        self.prepare(a)
        wire = self.connect(guarded)
        try:
            self.send(wire, a.attack, extended)
            return self.happened(a)
        finally:
            wire.close()
            harness.wait_until("the session to end at the server", lambda: self.pg.sql(
                "select count(*) = 0 from pg_stat_activity where datname = '%s' and pid <> pg_backend_pid()" % self.db, self.db)[0][0])

    def test_every_row_of_the_table_has_an_attack_or_stands_elsewhere(self):
        # S16 needs a server newer than the packaged grammar; what the grammar rejects is opaque (corpus.txt).
        elsewhere = {"S16": "tests/unit/sql/corpus.txt", "S10": "test_main_job (the credential)", "S18": "test_protocol (cancel keys)", "S19": "test_protocol",
                     "S20": "test_main_job (digest)"}
        covered = {a.row for a in ATTACKS}
        with open(os.path.join(HERE, "sql-rows.txt")) as f:
            rows = re.findall(r"^(S\d+) ", f.read(), re.M)
        self.assertEqual([r for r in rows if r not in covered and r not in elsewhere], [])


def add(a, n, extended):
    def test(self):
        self.assertTrue(self.attempt(a, False, extended), "the attack does not even work without the gateway: it proves nothing")
        self.assertFalse(self.attempt(a, True, extended), "it went through the gateway")
    name = re.sub(r"\W+", "_", "test_%s_%s_%s_%d" % (a.row, a.name, "extended" if extended else "simple", n))
    setattr(SqlBypass, name, test)


for number, attack in enumerate(ATTACKS):
    add(attack, number, False)
    if attack.extended:
        add(attack, number, True)

if __name__ == "__main__":
    unittest.main()
