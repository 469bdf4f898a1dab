"""The same bytes to our classifier and to a server (differential.py): what it calls session and read only changes
nothing there. Each trap of world.py with all that generate.py makes of it, what fuzz.py once found (seeds/), every
volatile function of the server, and some seconds of new texts. `make fuzz-server` runs as long as one likes."""
import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import differential  # noqa: E402
import functions  # noqa: E402
import fuzz  # noqa: E402
import generate  # noqa: E402
from world import TRAPS  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))

# One change of each kind, said plainly: what the watch does not see, no test here can find.
CHANGES = ["insert into canary values (9, 'x')", "update canary set v = 'y' where k = 1", "create table made (a int)", "select nextval('seq')",
           "select setval('seq', 77)", "select lo_create(4711)", "select pg_advisory_lock(1)", "begin; lock table canary in share mode",
           "begin; select * from canary for update", "notify canary", "set role pg_monitor", "set session_replication_role = replica",
           "set search_path = other", "set array_nulls = off", "copy canary to '{dir}/copied'",
           "begin; insert into canary values (8, 'x'); prepare transaction 'p'", "rollback prepared 'p'", 
           "alter system set work_mem = '9MB'", "select pg_stat_reset()", "select pg_replication_origin_create('o')",
           "begin; select pg_export_snapshot()", "select pg_terminate_backend(pg_backend_pid())", "select txid_current()",
           "select pg_logical_emit_message(false, 'a', 'b')", "do $$begin perform public.bump(); end$$", "select public.bump(); select 1/0"]


class Differential(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pg = differential.scratch_server()
        try:
            cls.facts = differential.Facts()
        except BaseException:
            cls.pg.destroy()
            raise
        cls.worlds = 0

    @classmethod
    def tearDownClass(cls):
        cls.facts.close()
        cls.pg.destroy()

    def world(self, *traps, **more):
        Differential.worlds += 1
        w = differential.World(self.pg, self.facts, traps, "world_%d" % Differential.worlds, **more)
        self.addCleanup(w.drop)
        return w

    def check(self, world, texts):
        """None of those that are called harmless changes anything."""
        texts = [world.fill(t) for t in texts]
        called = [(t, {}) for t in texts if self.facts.of(t).harmless]
        found = world.search(called)
        self.assertEqual(found, [], "called harmless, and yet: %s" % "; ".join("%r: %s" % f for f in found))
        return len(called)

    def test_the_watch_sees_every_kind_of_change(self):
        w = self.world()
        for text in CHANGES:
            moved, errors = w.changed_by([(w.fill(text), {})])
            self.assertTrue(moved, "%s (%s)" % (text, errors))
            self.assertFalse(self.facts.of(text).harmless, text)

    def test_the_watch_sees_nothing_where_nothing_happens(self):
        w = self.world()
        for text in ("select * from plain", "select pg_backend_pid(), clock_timestamp(), random()", "begin; select 1", "set application_name = 'x'", "selec", "",
                     "select 1/0", "declare c cursor for select 1", "explain analyze select count(*) from pg_class", "begin; lock table plain in access share mode"):
            self.assertEqual(w.changed_by([(text, {})])[0], [], text)

    def test_every_listed_function_does_what_the_list_says(self):
        w = self.world()
        with w.admin.cursor() as cur:
            cur.execute(functions.LIST)
            rows = cur.fetchall()
        calls, unknown = functions.calls(rows)
        listed = [(t, {}) for t, _, _ in calls if self.facts.of(t).harmless]
        moved, errors = w.changed_by(listed)
        if moved:
            self.fail("on the list, and yet: %s" % "; ".join("%r: %s" % f for f in w.search(listed)))
        self.assertGreater(sum(e is None for e in errors), 2000, "too few were really called")
        # Not vacuous: of the volatile ones that are not on the list, many change something.
        others = [t for t, _, volatile in calls if volatile and not self.facts.of(t).harmless]
        self.assertGreater(len(others), 100)
        self.assertGreater(len(w.search([(t, {}) for t in others if "lo_" in t or "setval" in t or "advisory" in t])), 5)

    def test_what_was_once_found_changes_nothing_now(self):
        names = sorted(n for n in os.listdir(os.path.join(HERE, "seeds")) if n.endswith(".json"))
        self.assertTrue(names)
        for name in names:
            with self.subTest(name):
                with open(os.path.join(HERE, "seeds", name)) as f:
                    seen = json.load(f)
                w = self.world(*[t for t in TRAPS if t.name in seen["traps"]], encoding=seen["encoding"])
                text = seen["text"].encode("utf-8", "surrogateescape")
                self.assertTrue(w.changed_by([(text, seen["how"])])[0], "it does nothing: no seed")
                self.assertFalse(self.facts.of(text).harmless)

    def test_no_value_of_a_declared_type_changes_anything(self):
        w = self.world(*[t for t in TRAPS if t.name in ("types-as-functions", "column-types", "dotted")])
        with w.admin.cursor() as cur:
            cur.execute("select oid::int, typname from pg_type where oid >= 16384 or typname in ('int4', 'text', '_int4', 'regclass', 'json', 'record', 'pg_class')")
            kinds = cur.fetchall()
        sprung = called = 0
        for number, name in kinds:
            for value in ("5", "{5}", "(5,1)", "[1,5)", '{"(5,1)"}', "(5)", "{[1,5)}", "x"):
                how = {"extended": True, "types": [number], "params": [value]}
                moved = w.changed_by([("select $1", how)])[0]
                harmless = self.facts.of("select $1", **how).harmless
                sprung, called = sprung + bool(moved), called + harmless
                self.assertFalse(moved and harmless, "%s %r: %s" % (name, value, moved))
        self.assertGreater(sprung, 5)
        self.assertGreater(called, 20)

    def test_some_seconds_of_new_texts(self):
        for seed in (1, 2, 3, 4):
            found = fuzz.one_round(self.pg, self.facts, seed, n=600)[0]
            self.assertIsNone(found, "seed %d: %s" % (seed, found))


def add(trap):
    def test(self):
        w = self.world(trap, encoding="LATIN1" if trap.name.startswith("latin") else None)
        self.check(w, generate.all_of(trap))
        if trap.ddl:
            sprung = next((t for t in generate.all_of(trap) if w.changed_by([(w.fill(t), {})])[0]), None)
            self.assertIsNotNone(sprung, "none of its texts does harm: it proves nothing")
    setattr(Differential, "test_trap_" + trap.name.replace("-", "_"), test)


for each in TRAPS:
    add(each)

if __name__ == "__main__":
    unittest.main()
