"""What the peer tests share: one gateway per test class, one database of its own."""
import os
import re
import unittest

import harness
from pgwire import Wire

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
