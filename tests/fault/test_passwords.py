"""Passwords that are typed in statements: they reach the database exactly as they are, and nothing else. Planted in each
place and spelling that the grammar has for them, held, approved, denied, refused by the server and by its parser; then
looked for in every file of the gateway, in its log, its recordings as they are replayed, every answer of its API and the
memory of every process that is not a gate."""
import json
import os
import sys
import unittest

import psycopg2

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness
import test_planted
from base import GatewayCase, fresh_name
from pgwire import SYNC, bind, error_of, execute, kinds, parse, query

WORD = "plant3d-pa55-"


# What only the session has cannot run by the elevated credential, and nobody would be asked.
RULES = harness.RULES + """
  - name: prepared
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb in ["EXECUTE", "PREPARE"]
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
"""


class Passwords(GatewayCase):
    RULES = RULES

    def setUp(self):
        self.pg.sql("alter role %s createrole" % self.roles["owner"])
        self.role = fresh_name("role")
        self.accounts = self.table()
        self.pg.sql("alter table %s add name text, add password text, add pwd_age int; grant select on %s to %s"
                    % (self.accounts, self.accounts, self.roles["user"]), database=self.name)
        self.sessions = []

    def ask(self, w, *parts, decide="approve"):
        """Sends what is held, decides, and returns the answers and the card."""
        before = {r["id"] for r in self.gw.pending()}
        w.send(*parts)
        r = harness.wait_until("a request", lambda: next((x for x in self.gw.pending() if x["id"] not in before), None))
        card = self.gw.json("show", r["id"], who="bob")
        self.said.append(json.dumps([r, card]) + self.gw.cli("show", r["id"], who="bob").stdout)
        self.gw.approve(r["id"]) if decide == "approve" else self.gw.deny(r["id"], "no")
        return w.until_ready(), card

    def logs_in(self, password):
        try:
            self.pg.connect(self.name, self.role, password).close()
            return True
        except psycopg2.OperationalError:
            return False

    def run_all(self):
        n, secret = [0], {}

        def s(spelling="%s"):
            n[0] += 1
            value = "%s%s-%d" % (WORD, self.role, n[0])
            secret["value"] = value
            return spelling % value
        w = self.wire()
        role = self.role
        # Approved: the role has exactly this password afterwards.
        for spell in (lambda v: "create role %s login password '%s'" % (role, v),
                      lambda v: "alter role %s /* c */ password\n-- c\n E'%s'" % (role, v.replace("-", "\\x2d")),
                      lambda v: "alter user %s encrypted password $x$%s$x$" % (role, v),
                      lambda v: "alter role %s password U&'%s'" % (role, v.replace("-", "\\002d")),
                      lambda v: "alter role %s password '%s'\n  '%s'" % (role, v[:30], v[30:])):
            text = spell(s())
            got, card = self.ask(w, query(text))
            self.assertEqual(kinds(got), "CZ", text)
            self.assertIn("<redacted hmac-sha256:", card["text"])
            self.assertIn(role, card["text"])
            self.assertTrue(self.logs_in(secret["value"]), text)
        # The extended protocol; a statement that is prepared and named in EXECUTE.
        got, _ = self.ask(w, parse("alter role %s password '%s'" % (role, s())), bind(), execute(), SYNC)
        self.assertEqual(kinds(got), "12CZ")
        self.assertTrue(self.logs_in(secret["value"]))
        w.send(parse("alter role %s password '%s'" % (role, s()), "named"), SYNC)
        w.until_ready()
        got, card = self.ask(w, query("execute named"), decide="deny")
        self.assertIn("<redacted", card["settings"])
        # By their place: columns and arguments, typed and bound, by a driver's statement and by SQL's PREPARE.
        table = self.accounts
        w.ask(query("insert into %s (name, password) values ('eve', '%s')" % (table, s())))  # which no rule allows
        self.pg.sql("update %s set name = 'eve'" % table, database=self.name)
        got, card = self.ask(w, query("update %s set password = '%s' where name = 'eve'" % (table, s())))
        self.assertEqual(kinds(got), "CZ")
        self.assertIn("set password = '<redacted hmac-sha256:", card["text"])
        self.assertIn("where name = 'eve'", card["text"])
        self.assertEqual(self.pg.sql("select distinct password from %s" % table, database=self.name), [(secret["value"],)])
        for fmt in ((), (1, 1)):
            got, card = self.ask(w, parse("update %s set password = $1 where name = $2" % table),
                                 bind(params=[s().encode(), b"eve"], formats=fmt), execute(), SYNC)
            self.assertEqual(kinds(got), "12CZ")
            self.assertRegex(card["params"][0]["text"], "^<redacted hmac-sha256:[0-9a-f]{64}>$")
            self.assertIn(card["params"][1]["text"], ("eve", b"eve".hex()))
            self.assertEqual(self.pg.sql("select distinct password from %s" % table, database=self.name), [(secret["value"],)])
        got, card = self.ask(w, parse("delete from %s where note = $1" % table), bind(params=[("host=db password=%s user=bob" % s()).encode()]),
                             execute(), SYNC)
        self.assertEqual(kinds(got), "12CZ")
        self.assertRegex(card["params"][0]["text"], "^host=db password=<redacted hmac-sha256:[0-9a-f]{64}> user=bob$")
        w.send(query("prepare bysql (text) as update %s set password = $1" % table))
        w.until_ready()
        got, card = self.ask(w, bind(statement="bysql", params=[s().encode()]), execute(), SYNC, decide="deny")
        self.assertIn("<redacted", card["params"][0]["text"])
        got, card = self.ask(w, query("execute bysql('%s')" % s()), decide="deny")
        self.assertIn("execute bysql('<redacted hmac-sha256:", card["text"])
        # Its value is in the server's words, which go to the client alone.
        got, card = self.ask(w, parse("update %s set pwd_age = $1" % table), bind(params=[s().encode()]), execute(), SYNC)
        self.assertIn("E", kinds(got))
        # Allowed by the rules, and recorded.
        w.ask(parse("select name from %s where password = $1" % table), bind(params=[s().encode()]), execute(), SYNC)
        w.ask(query("select name from %s where password = '%s'" % (table, s())))
        # Several statements; what ran in a transaction before is part of what is held.
        self.ask(w, query("select 1; alter role %s password '%s'; select 2" % (role, s())), decide="deny")
        # What the server refuses: its words repeat it, to the client alone.
        for text in ("alter role %s password '%s' valid until 'plain nonsense'" % (role, s()),
                     "alter subscription nosuch connection 'postgresql://x:%s@y/%%zz'" % s(),
                     "create user mapping for public server nosuch options (user 'u', password '%s')" % s(),
                     "do $$ begin execute 'alter role %s password ''%s'' oops'; end $$" % (role, s()),
                     "select 1 /* the password was %s */; drop table nosuch" % s()):
            got, card = self.ask(w, query(text))
            self.assertIn("E", kinds(got), text)
        # What no grammar takes is denied by these rules, and recorded.
        for text in ("alter role %s password %s" % (role, s().replace("-", "_")),
                     "alter role %s pasword '%s'" % (role, s()),
                     "alter role %s password '%s" % (role, s())):
            self.assertIn("E", kinds(w.ask(query(text))), text)
        # Denied by a rule, never seen by a person.
        w.ask(query("truncate nosuch; alter role %s password '%s'" % (role, s())))
        # Left behind, held: cancelled by the end of the connection.
        w.send(query("alter role %s password '%s'" % (role, s())))
        self.held(role)
        w.close()

    def test_a_typed_password_stays_between_client_and_database(self):
        self.said = []
        self.run_all()
        ended = harness.wait_until("the session to end", lambda: next(
            (x for x in self.gw.json("sessions", "--all")["sessions"] if x.get("closed")), None))
        frames = self.gw.recording(ended["id"])
        texts = [f["text"] for f in frames if f["kind"] == "action"]
        self.assertGreater(len(texts), 15)
        self.assertTrue(any("password '<redacted hmac-sha256:" in t for t in texts), texts)
        self.said.append(json.dumps(frames))
        self.said.append(self.gw.cli("replay", ended["id"]).stdout)
        for path in ("/v1/requests", "/v1/requests?all=1", "/v1/sessions?all=1", "/v1/status"):
            self.said.append(json.dumps(self.gw.api("GET", path, who="bob")[1]))
        needles = {"a typed password": [WORD.encode(), WORD.replace("-", "_").encode(), WORD.encode().hex().encode(),
                                        WORD.replace("-", "\\x2d").encode(), WORD.replace("-", "\\002d").encode()]}
        for piece in self.said:
            self.assertEqual(test_planted.found_in([piece.encode()], needles), set(), piece)
        for r in self.gw.api("GET", "/v1/status")[1]["roles"]:
            if r["role"] != "gate":  # which reads it, and sends it
                self.assertEqual(test_planted.found_in(test_planted.memory(r["pid"]), needles), set(), r["role"])
        self.gw.stop()
        looked = 0
        for base, _, names in os.walk(self.gw.dir):
            for n in names:
                path = os.path.join(base, n)
                if os.path.isfile(path) and not os.path.islink(path):
                    looked += 1
                    with open(path, "rb") as f:
                        self.assertEqual(test_planted.found_in([f.read()], needles), set(), path)
        self.assertGreater(looked, 5)
        self.gw.start(secrets=False)


class Same(GatewayCase):
    """The digest still covers the bytes of a password: another password is another question, the same one is not."""

    def test_another_password_is_another_request(self):
        self.pg.sql("alter role %s createrole" % self.roles["owner"])
        role, ids, cards = fresh_name("role"), [], []
        for password in ("one", "one", "two"):
            w = self.wire(**{"options": "-c countersign.mode=async"})
            got = w.ask(query("create role %s password '%s'" % (role, password)))
            self.assertIn("COUNTERSIGN held", error_of(got)["D"])
            ids.append(error_of(got)["D"].split("id=")[1][:8])
            cards.append(self.gw.json("show", ids[-1], who="bob"))
            w.close()
        self.assertEqual(ids[0], ids[1])
        self.assertNotEqual(ids[0], ids[2])
        self.assertNotEqual(cards[0]["text"], cards[2]["text"])
        self.assertNotEqual(cards[0]["digest"], cards[2]["digest"])
        # The approval of one is not good for the other, also behind a restart: the key is the gateway's.
        self.gw.approve(ids[0])
        self.gw.restart()
        w = self.wire(**{"options": "-c countersign.mode=async"})
        self.assertIn("E", kinds(w.ask(query("create role %s password 'three'" % role))))
        self.assertEqual(self.sql("select count(*) from pg_roles where rolname = '%s'" % role), [(0,)])
        self.assertEqual(kinds(w.ask(query("create role %s password 'one'" % role))), "CZ")
        w.close()


if __name__ == "__main__":
    unittest.main()
