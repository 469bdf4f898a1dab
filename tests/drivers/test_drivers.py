"""The driver matrix: ordinary clients, each by a program written as its users would write it, through the gateway.

A driver's program (programs/) is started once for each step, with the name of the step; what the steps are stands in
programs/steps.py. This file plays the people who approve and refuse. Where COUNTERSIGN_DRIVER_RESULTS names a file, the results are
written to it, and tools/gen-drivers makes the table in docs/postgresql.md of it.

`make check` runs the drivers that need nothing but Debian's Python; `make check-drivers` (check.py) those with tool chains of their own."""
import atexit
import importlib.machinery
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "peer"))

import harness  # noqa: E402
from base import GatewayCase, fresh_name  # noqa: E402
from clients import CLIENTS  # noqa: E402

RULES = """
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
      sql.verb in ["INSERT", "COPY"] && sql.writes.all(w, w in ["scratchpad", "public.scratchpad"]) && sql.effects.all(e, e in ["read", "write"])
    then: allow
  - name: change
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.effects.exists(e, !(e in ["session", "read"])) && !(sql.verb in ["INSERT", "COPY"])
    then: hold
    approvers: { groups: [dba], within: 15m, valid: 10m, attach: 10m }
  - name: never-truncate
    who: { groups: [agents, engineers] }
    target: { kind: postgres }
    when: |
      sql.verb == "TRUNCATE TABLE"
    then: deny
"""
RESULTS = {}
NUMBERS = [1000]


def write_results():
    path = os.environ.get("COUNTERSIGN_DRIVER_RESULTS")
    if path and RESULTS:
        with open(path, "w") as f:
            json.dump(RESULTS, f, indent=1, sort_keys=True)


atexit.register(write_results)


class Program:
    """A driver's program at one step, in the background."""

    def __init__(self, case, client, step, table, mode=None):
        self.step = client.name + ", " + step
        NUMBERS[0] += 1
        options = "-c countersign.mode=%s" % mode if mode else ""
        env = case.gw.pg_env("bot", PGDATABASE=case.name, CS_TABLE=table, CS_NUMBER=str(NUMBERS[0]), PGOPTIONS=options,
                             PYTHONDONTWRITEBYTECODE="1")
        if not options:
            del env["PGOPTIONS"]
        self.p = subprocess.Popen([*client.argv, step], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, cwd=os.path.join(HERE, "programs"))
        self.text = ""
        self.thread = threading.Thread(target=self._read)
        self.thread.start()
        case.addCleanup(self.end)

    def _read(self):
        for line in self.p.stdout:
            self.text += line

    def end(self):
        if self.p.poll() is None:
            self.p.kill()
        self.p.wait()
        self.thread.join()
        self.p.stdout.close()

    def finished(self):
        try:
            self.p.wait(harness.PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError("%s did not end:\n%s" % (self.step, self.text))
        self.thread.join()
        if self.p.returncode != 0:
            raise AssertionError("%s: exit status %d\n%s" % (self.step, self.p.returncode, self.text))


class Matrix(GatewayCase):
    RULES = RULES

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.built = harness.scratch("drivers")
        cls.addClassCleanup(shutil.rmtree, cls.built, ignore_errors=True)
        for client in WANTED:
            client.prepare(cls.built)

    def program(self, client, step, table=None, mode=None):
        return Program(self, client, step, table or self.table(), mode)

    def plain(self, client, step):
        self.program(client, step).finished()

    def asked(self, program, table):
        """The request about that table; whoever asked for it must still be there."""
        def look():
            if program.p.poll() is not None and program.p.returncode != 0:
                program.finished()
            return next((r for r in self.gw.pending() if table in (r["text"] or "")), None)
        return harness.wait_until("a request about " + table, look)

    def hold(self, client, step):
        t = self.table()
        p = self.program(client, "hold", t)
        request = self.asked(p, t)
        self.gw.approve(request["id"])
        p.finished()
        self.gw.wait_state(request["id"], "done")

    def denied(self, client, step):
        t = self.table()
        p = self.program(client, "denied", t)
        self.gw.deny(self.asked(p, t)["id"], "not on a Friday")
        p.finished()

    def reconnect(self, client, step):
        """Async mode: one connection is told, another runs it once."""
        t = self.table()
        first = self.program(client, "not_yet", t, "async")
        request = self.asked(first, t)
        first.finished()
        self.gw.approve(request["id"])
        self.program(client, "again", t, "async").finished()
        self.gw.wait_state(request["id"], "done")
        self.assertEqual(self.sql("select count(*) from %s where note = 'by driver'" % t)[0][0], 1)


COLUMNS = [("TLS", "tls", Matrix.plain), ("prepared", "prepared", Matrix.plain), ("transaction", "transaction", Matrix.plain),
           ("COPY", "copy", Matrix.plain), ("cancel", "cancel", Matrix.plain), ("hold", "hold", Matrix.hold),
           ("denial in a transaction", "denied", Matrix.denied),
           ("async, reconnect", "not_yet", Matrix.reconnect)]


LONG = "hold of 20 s"


def cells(client):
    return RESULTS.setdefault(client.name, {"version": client.version(), "cells": {}})["cells"]


def one(client, column, step, how):
    def test(self):
        cells(client)[column] = "fails"
        how(self, client, step)
        cells(client)[column] = "ok"
    return test


def long_holds(self):
    """All at once: each waits for twenty seconds, in which it is told twice."""
    waiting = []
    for client in WANTED:
        if "hold" not in client.lacks:
            cells(client)[LONG] = "fails"
            t = self.table()
            waiting.append((client, t, self.program(client, "hold", t)))
    requests = [self.asked(program, t) for _, t, program in waiting]
    since = time.monotonic()
    harness.wait_until("twenty seconds", lambda: time.monotonic() > since + 20)
    for r in requests:
        self.gw.approve(r["id"])
    for client, _, program in waiting:
        with self.subTest(client.name):
            program.finished()
            cells(client)[LONG] = "ok"


def documented(self):
    """docs/postgresql.md says of each client of this run what this run says; made by tools/gen-drivers."""
    said = drivers_table()
    for client in WANTED:
        with self.subTest(client.name):
            self.assertEqual(said.get(client.name, ("", {}))[1], cells(client))


def drivers_table():
    spec = importlib.machinery.SourceFileLoader("gen_drivers", os.path.join(harness.ROOT, "tools", "gen-drivers"))
    sys.dont_write_bytecode = True
    return spec.load_module().table()


def make():
    for client in WANTED:
        for column, step, how in COLUMNS:
            if step in client.lacks:
                cells(client)[column] = client.lacks[step]
            else:
                setattr(Matrix, "test_%s_%s" % (client.key, step), one(client, column, step, how))
        if "hold" in client.lacks:
            cells(client)[LONG] = client.lacks["hold"]
    Matrix.test_holds_of_twenty_seconds = long_holds
    Matrix.test_z_the_documented_table_is_what_was_seen = documented


WANTED = [c for c in CLIENTS if c.wanted()]
make()
del GatewayCase  # a class of tests by itself otherwise
