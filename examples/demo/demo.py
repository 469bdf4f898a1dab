#!/usr/bin/env python3
"""The demonstration behind `make demo`: a scratch PostgreSQL, the gateway, and an agent whose DROP TABLE
waits for a person. Everything is real and runs on loopback; everything is removed at the end.

On a terminal it waits for you to decide; without one it decides as the demo's approver.
"""
import argparse
import os
import select
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
import harness  # noqa: E402

COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def paint(code, text):
    return "\x1b[%sm%s\x1b[0m" % (code, text) if COLOUR else text


def say(text=""):
    print(text, flush=True)


def step(n, text):
    say()
    say(paint("1", "%d. %s" % (n, text)))


def shell(who, command):
    say(paint("36", "   %s$ %s" % (who, command)))


def output(text):
    for line in text.rstrip("\n").split("\n"):
        say("     " + line)


RULES = """
rules:
  - name: read-shop
    title: Reading is free
    who: { groups: [agents, engineers] }
    target: { kind: postgres, labels: { env: demo } }
    when: |
      sql.effects.all(e, e in ["session", "read"])
    then: allow
  - name: change-shop
    title: Changing data needs a countersign
    who: { groups: [agents, engineers] }
    target: { kind: postgres, labels: { env: demo } }
    when: |
      sql.effects.exists(e, !(e in ["session", "read"]))
    then: hold
    run_as: elevated
    approvers: { groups: [dba], quorum: 1, within: 15m, valid: 10m, attach: 10m }
"""

TABLES = """
create table customers (id int primary key, name text);
insert into customers values (1, 'Ada'), (2, 'Grace'), (3, 'Edsger');
create table old_prices (id int primary key, cents int);
insert into old_prices select i, i * 7 from generate_series(1, 1000) i;
grant select on customers, old_prices to shop_ro;
"""


class Demo:
    def __init__(self):
        self.pg = self.gw = None

    def start(self):
        self.pg = harness.Postgres()
        self.pg.sql("create role shop_ro login password 'everyday'")
        self.pg.sql("create role shop_owner login password 'stronger'")
        self.pg.sql("create database shop owner shop_owner")
        self.pg.sql("grant usage, create on schema public to shop_owner; grant usage on schema public to shop_ro", "shop")
        c = self.pg.connect("shop", "shop_owner", "stronger")
        c.cursor().execute(TABLES)
        c.close()
        target = {"name": "shop", "address": "127.0.0.1:%d" % self.pg.port, "database": "shop", "tls": "verify-full",
                  "roots": self.pg.root, "labels": {"env": "demo"}, "user": "shop_ro", "password": "everyday",
                  "owner": "shop_owner", "owner_password": "stronger"}
        self.gw = harness.Gateway([target], rules=RULES)
        self.gw.start()
        self.gw.add_user("alice", "engineers")
        self.gw.add_user("bob", "dba")
        self.gw.add_agent("report-bot", "alice", "agents")

    def stop(self):
        if self.gw:
            self.gw.destroy()
        if self.pg:
            self.pg.destroy()

    def hold(self, sql):
        """The agent sends it; its output is shown as it comes, up to the wait line."""
        shell("report-bot", 'psql shop -c "%s"' % sql)
        b = self.gw.psql_start("report-bot", "shop", sql)
        b.wait_text(r"COUNTERSIGN held.*\n")
        output(next(x for x in b.lines if "COUNTERSIGN" in x))
        request = harness.wait_until("the request", lambda: next((r for r in self.gw.pending() if r["text"] == sql), None))
        return b, request["id"]

    def finish(self, b):
        b.finish()
        seen = next(i for i, x in enumerate(b.lines) if "COUNTERSIGN" in x) + 1
        output("".join(x for x in b.lines[seen:] if "COUNTERSIGN held" not in x and not x.startswith("HINT:  The connection waits")))

    def person_decides(self, request):
        """On a terminal: a key here, or the command in another shell."""
        say()
        say("     The request waits. Decide it: press " + paint("1", "a") + " to approve or " + paint("1", "d") + " to deny (then Enter), or in a second shell:")
        say(paint("36", "       export COUNTERSIGN_SOCKET=%s COUNTERSIGN_TOKEN=%s" % (self.gw.socket, self.gw.tokens["bob"])))
        say(paint("36", "       %s approve %s" % (os.path.relpath(self.gw.program), request)))
        while True:
            ready, _, _ = select.select([sys.stdin], [], [], 0.3)
            key = sys.stdin.readline().strip().lower()[:1] if ready else ""
            if ready and key == "":
                return  # end of input: the script decides
            if key == "a":
                self.gw.approve(request)
            elif key == "d":
                self.gw.deny(request, "denied by the viewer of the demonstration")
            if self.gw.json("show", request, who="bob")["state"] != "pending":
                return

    def run(self):
        interactive = sys.stdin.isatty() and sys.stdout.isatty()
        step(1, "An agent reads through the gateway. Its psql knows a token, never the database's password.")
        shell("report-bot", 'psql shop -c "select * from customers"')
        output(self.gw.psql("report-bot", "shop", "select * from customers").stdout)

        step(2, "It wants to drop a table. The statement is held on the wire; nothing has reached the database.")
        b, request = self.hold("drop table old_prices")
        say("     meanwhile in the database, straight at the server: to_regclass('old_prices') = %s"
            % self.pg.sql("select to_regclass('old_prices')", "shop")[0][0])

        step(3, "Bob, a DBA, looks at exactly what would run, and signs.")
        shell("bob", "countersign show " + request)
        output(self.gw.cli("show", request, who="bob").stdout)
        if interactive:
            self.person_decides(request)
        card = self.gw.json("show", request, who="bob")
        if card["state"] == "pending":
            shell("bob", "countersign approve %s --yes" % request)
            output(self.gw.approve(request).stdout)

        step(4, "The same connection goes on: those bytes run once, with the stronger credential.")
        self.finish(b)
        say("     in the database: to_regclass('old_prices') = %s" % self.pg.sql("select to_regclass('old_prices')", "shop")[0][0])

        step(5, "A second DROP is refused. The agent gets the approver's words, and its session goes on.")
        b, second = self.hold("drop table customers")
        shell("bob", 'countersign deny %s --reason "customers are needed; ask for a copy instead"' % second)
        self.gw.deny(second, "customers are needed; ask for a copy instead")
        self.finish(b)
        say("     in the database: to_regclass('customers') = %s" % self.pg.sql("select to_regclass('customers')", "shop")[0][0])

        step(6, "Everything is in the record.")
        session = self.gw.json("show", request, who="bob")["session"]
        harness.wait_until("the session's end in the record", lambda: self.gw.recording(session)[-1]["kind"] == "session_close")
        shell("auditor", "countersign replay " + session)
        output(self.gw.cli("replay", session).stdout)
        self.verify(session)

    def check(self, directory):
        """countersign verify, without the gateway's help: files and the log's public key."""
        return self.gw.cli("verify", directory, "--key", os.path.join(self.gw.dir, "kept.pub"), ok=False)

    def verify(self, session):
        step(7, "Anybody can check it: with the files and the log's public key, without gateway, password or database.")
        recordings = os.path.join(self.gw.home, "recordings")
        shutil.copy(os.path.join(recordings, "log", "log.pub"), os.path.join(self.gw.dir, "kept.pub"))
        harness.wait_until("the log to be signed to its end", lambda: self.check(recordings).returncode == 0)
        shell("auditor", "countersign verify recordings --key kept.pub")
        output(self.check(recordings).stdout)

        step(8, "Somebody changes one byte of that session, in a copy.")
        copy = os.path.join(self.gw.dir, "copy")
        shutil.copytree(recordings, copy)
        name = session + ".csr"
        with open(os.path.join(copy, name), "r+b") as f:
            f.seek(os.path.getsize(f.name) // 2)
            byte = f.read(1)[0]
            f.seek(-1, os.SEEK_CUR)
            f.write(bytes([byte ^ 1]))
        shell("auditor", "countersign verify copy --key kept.pub")
        caught = self.check(copy)
        output(caught.stdout)
        say("     exit status %d" % caught.returncode)
        if caught.returncode != 1 or name not in caught.stdout:
            raise AssertionError("the change was not found in %s: %s" % (name, caught.stdout + caught.stderr))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--build", default="build")
    harness.BUILD = os.path.abspath(a.parse_args().build)
    demo = Demo()
    began = time.monotonic()
    try:
        say("Starting a scratch PostgreSQL and the gateway ...")
        demo.start()
        demo.run()
        say()
        say(paint("32", "Done in %.0f seconds. Everything that was started is being stopped and removed." % (time.monotonic() - began)))
        return 0
    except KeyboardInterrupt:
        return 130
    except (AssertionError, subprocess.SubprocessError) as e:
        say(paint("31", "The demonstration failed: %s" % e))
        return 1
    finally:
        demo.stop()


if __name__ == "__main__":
    sys.exit(main())
