"""A gateway that may open few files: a gate takes no more sessions than it can serve to their ends, other gates take the
rest, and what a session asks for is held and run as anywhere."""
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness
from base import GatewayCase
from pgwire import Wire, kinds, query

FILES, EACH = 300, 22  # two descriptors a session, and 256 for everything else (src/base/limits.def)


class FewDescriptors(GatewayCase):
    @classmethod
    def setUpClass(cls):
        cls.few = harness.scratch("few")
        program = os.path.join(cls.few, "countersign")
        with open(program, "w") as f:
            f.write("#!/bin/sh\nulimit -n %d\nexec %s/src/programs/countersign \"$@\"\n" % (FILES, harness.BUILD))
        os.chmod(program, 0o755)
        cls.GATEWAY = {"programs": cls.few, "gates": 2}
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.few, ignore_errors=True)

    def test_sessions_that_one_gate_has_no_descriptors_for_are_another_gates(self):
        table, open_ones = self.table(), []
        for _ in range(2 * EACH):
            open_ones.append(self.wire())
            self.addCleanup(open_ones[-1].close)
        self.assertEqual([sum(w.gate == g for w in open_ones) for g in (0, 1)], [EACH, EACH])
        for w in open_ones:
            self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        # A hold needs descriptors of its own: its sealed form, the elevated connection.
        for w in (open_ones[0], next(w for w in open_ones if w.gate != open_ones[0].gate)):
            w.send(query("delete from %s where id = %d" % (table, 1 + open_ones.index(w) % 2)))
            self.gw.approve(self.held(table)["id"])
            self.assertEqual(kinds(w.until_ready()), "CZ")
        # One more waits for a place, and gets it.
        late = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(late.close)
        harness.wait_until("a gate to say that it is full", lambda: self.gw.log_text().count("all %d sessions" % EACH) >= 2)
        open_ones[5].close()
        late.login("bot", self.gw.tokens["bot"], self.name)
        self.assertEqual(kinds(late.ask(query("select 1"))), "TDCZ")
