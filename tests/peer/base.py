"""What the peer tests share: one gateway per test class, one database of its own."""
import os
import re
import ssl
import threading
import unittest

import harness
from pgwire import Closed, Wire, error_fields

COUNTER = [0]


def fresh_name(prefix):
    COUNTER[0] += 1
    return "%s_%d_%d" % (prefix, os.getpid(), COUNTER[0])


class GatewayCase(unittest.TestCase):
    RULES = harness.RULES
    GATEWAY = {}
    TARGET = {}

    @classmethod
    def setUpClass(cls):
        cls.pg = harness.shared_postgres()
        cls.name = fresh_name("db")
        cls.roles = harness.make_database(cls.pg, cls.name)
        cls.gw = harness.Gateway([harness.target_of(cls.pg, cls.name, cls.roles, **cls.TARGET)], rules=cls.RULES, **cls.GATEWAY)
        try:
            cls.gw.start().people()
        except Exception:
            cls.gw.destroy()
            raise

    @classmethod
    def tearDownClass(cls):
        cls.gw.destroy()

    def sql(self, text):
        """As the superuser, straight at the server."""
        return self.pg.sql(text, self.name)

    def table(self):
        """A fresh table owned by the elevated role; returns its name."""
        t = fresh_name("t")
        c = self.pg.connect(self.name, self.roles["owner"], self.roles["owner_password"])
        with c.cursor() as cur:
            cur.execute("create table %s (id int, note text); insert into %s select i, 'row' from generate_series(1, 10) i; "
                        "grant select, insert, update on %s to %s" % (t, t, t, self.roles["user"]))
        c.close()
        return t

    def exists(self, table):
        return self.sql("select to_regclass('public.%s') is not null" % table)[0][0]

    def wire(self, who="bot", **more):
        return Wire(self.gw.port, self.gw.ca if self.gw.tls else None).login(who, self.gw.tokens.get(who, who), self.name, **more)

    def held(self, text_part, who="bob"):
        """The pending request whose text contains text_part."""
        return harness.wait_until("a request about " + text_part, lambda: next(
            (r for r in self.gw.pending(who) if text_part in (r["text"] or "")), None))


WAIT_LINE = re.compile(r"COUNTERSIGN held id=([0-9A-Z]{8}) state=(\w+) wait=(\d+)s expires=(\d+)s retry=same-request url=(\S+) rule=([a-z0-9-]+)")
# For tests message by message: reading is free, INSERT and COPY of one table too; an UPDATE is held for the
# everyday credential, whatever else changes something for the elevated one; TRUNCATE is denied.
PROTOCOL_RULES = """
rules:
  - name: read
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: scratchpad
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb in ["INSERT", "COPY"] && sql.writes.all(w, w == "scratchpad") && sql.effects.all(e, e in ["read", "write"])
    then: allow
  - name: tell
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "NOTIFY"
    then: allow
  - name: update
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb in ["UPDATE", "EXECUTE", "PREPARE"] && sql.effects.exists(e, !(e in ["session", "read"]))
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
  - name: change
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, e in ["write", "ddl", "admin", "opaque"]) && !(sql.verb in ["INSERT", "COPY", "NOTIFY", "UPDATE", "EXECUTE", "PREPARE"])
    then: hold
    run_as: elevated
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
  - name: never-truncate
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "TRUNCATE TABLE"
    then: deny
"""
ENDED = (Closed, ConnectionResetError, BrokenPipeError, ssl.SSLError)


class WireCase(GatewayCase):
    """Sessions by raw messages."""
    RULES = PROTOCOL_RULES

    def session(self, who="bot", **more):
        w = self.wire(who, **more)
        w.sock.settimeout(min(harness.PATIENCE, 90))
        self.addCleanup(w.close)
        return w

    def direct(self):
        """The same conversation with the real server, without the gateway."""
        w = Wire(self.pg.port, self.pg.root, timeout=harness.PATIENCE).login(self.roles["user"], self.roles["password"], self.name)
        self.addCleanup(w.close)
        return w


class BypassCase(WireCase):
    """Attacks: `self.attack` changes a table of which nobody has approved a change."""

    def setUp(self):
        self.t = self.table()
        self.attack = "update %s set note = 'changed'" % self.t
        self.was_held = []

    def changed(self):
        return self.sql("select count(*) from %s where note = 'changed'" % self.t)[0][0]

    def said(self, w, *parts, n=1, held=None):
        """Answers, or None when the session was ended or nothing came for a while: both repel. What waits for
        somebody is denied at once (or given to `held`), so that the attack goes on behind it."""
        got = []
        try:
            w.send(*parts)
            while n > 0:
                kind, body = w.read()
                line = WAIT_LINE.search(body.decode("utf-8", "replace")) if kind == "N" else None
                if line and line[1] not in self.was_held:
                    self.was_held.append(line[1])
                    (held or (lambda request: self.gw.deny(request, "an attack")))(line[1])
                if kind == "N":
                    w.notices.append(error_fields(body))
                    continue
                got.append((kind, body))
                n -= kind == "Z"
            return got
        except ENDED + (TimeoutError,):
            return None

    def repelled(self):
        """After an attack nothing may have changed."""
        self.assertEqual(self.changed(), 0, "it ran, and nobody approved it")

    def approve_soon(self, text_part, **more):
        """Approves the request about text_part when it comes; the thread, to be joined."""
        def run():
            self.card = self.held(text_part)
            self.card = self.gw.json("show", self.card["id"], who="bob")
            self.gw.approve(self.card["id"], **more)
        th = threading.Thread(target=run)
        th.start()
        self.addCleanup(th.join)
        return th
