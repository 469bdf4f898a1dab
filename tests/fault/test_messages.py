"""Every row of messages.def against every role that could receive it: malformed, cut short, too large, with the wrong
descriptors, in the wrong phase, from the wrong sender, twice. Made from the table, so a new message and a new role
are attacked too. The real program receives; what the table forbids ends the channel that it came by, and everybody
else is served on; what it permits but makes no sense never gives anything away, kills nobody and leaks nothing."""
import os
import random
import shutil
import socket
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness
import ipc
from ipc import ROWS, Ring, Role, memfd, neighbours, note

# Questions whose answer is no refusal although they made no sense: it gives nothing that is not public.
HARMLESS = {"seal_key", "log_key"}  # the second one makes a key that nobody has asked to use


def forbidden(receiver, sender, run=True):
    """Messages that this sender may not send here, well-formed, with the descriptors that belong to them."""
    for row in ROWS.values():
        if not row.may(sender, receiver) or (row.phase == "BOOT") == run and row.phase != "EVER":
            yield row


def own(receiver, sender, run=True):
    for row in ROWS.values():
        if row.may(sender, receiver) and row.phase in ("EVER", "RUN" if run else "BOOT"):
            yield row


def broken(row):
    """(what, bytes, number of descriptors): not a message of the table, one way or another."""
    good = row.encode(5, text=b"xy")
    yield "a byte too many", good + b"\0", row.fds
    for cut in sorted({1, 2, 7, len(good) // 2, len(good) - 1}):
        if 0 < cut < len(good):
            yield "cut to %d bytes" % cut, good[:cut], row.fds
    yield "one byte beyond its size", good + bytes(row.max + 1 - len(good)), row.fds
    yield "beyond every size", good + bytes(70000), row.fds
    yield "a descriptor too many", good, row.fds + 1
    yield "a hundred descriptors", good, 100
    if row.fds:
        yield "a descriptor too few", good, row.fds - 1
    yield "an unknown flag", good[:2] + b"\2\0" + good[4:], row.fds
    yield "all flags", good[:2] + b"\xff\xff" + good[4:], row.fds
    yield "an answer to call 0", good[:2] + b"\1\0" + bytes(4) + good[8:], row.fds
    slices = [n for k, n in row.fields if k == "SLICE"]
    if slices:
        at = 8
        for kind, name in row.fields:
            if kind == "SLICE":
                for lie in (3, 0x7fffffff, 0xffffffff, 0xfffffff8):
                    yield "a length of %x in %s" % (lie, name), good[:at] + struct.pack("<I", lie) + good[at + 4:], row.fds
                break
            at += 8 if kind == "U64" else 16
        n = row.max + 1 - len(row.encode(5, **{s: b"" for s in slices}))
        yield "a text that fills it beyond its size", row.encode(5, **{**{s: b"" for s in slices}, slices[-1]: b"x" * n}), row.fds


def nonsense(row):
    """Well-formed, and about nothing that exists."""
    r = random.Random(row.name)
    slices = sum(1 for k, _ in row.fields if k == "SLICE")
    room = (row.max - len(row.encode(5))) // max(slices, 1)
    yield dict(u64=0, ids=bytes(16), text=b"")
    yield dict(u64=1, ids=b"\xa5" * 16, text=b"x")
    yield dict(u64=(1 << 64) - 1, ids=b"\xff" * 16, text=b"\0" * min(room, 32))
    yield dict(u64=1 << 63, ids=r.randbytes(16), text=r.randbytes(min(room, 200)))
    yield dict(u64=1 << 32, ids=r.randbytes(16), text=b"A" * room)
    for _ in range(4):
        yield dict(u64=r.randrange(5), ids=r.randbytes(16), text=r.choice([b"orders", b"postgres", b"'\"\n\0\xff%s%n", b"SCRAM-SHA-256", b"../../x"])[:room])


class MessagesCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = harness.scratch("messages")
        cls.snapshot, cls.version = ipc.installation(cls.home)

    @classmethod
    def tearDownClass(cls):
        os.close(cls.snapshot)
        shutil.rmtree(cls.home, ignore_errors=True)

    def role(self, name, wire=True):
        r = Role(name, self.home, self.snapshot, self.version)
        self.addCleanup(r.stop)
        return r.start(wire)

    def fds(self, n, kind=0):
        """n descriptors of some kind; closed at the end of the test."""
        made = []
        for i in range(n):
            k = (kind + i) % 6
            if k == 0:
                fd = memfd(b"not what it should be")
            elif k == 1:
                fd = memfd(b"unsealed", seals=0)
            elif k == 2:
                fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            elif k == 3:
                s = socket.socket(socket.AF_UNIX)
                fd = s.detach()
            elif k == 4:
                fd = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
            else:
                fd = memfd(b"\0" * (9 << 20))
            made.append(fd)
        self.made = made
        return made

    def drop_fds(self):
        for fd in self.made:
            os.close(fd)
        self.made = []

    # ---- is everybody else served? ----

    def serves(self, r):
        """The daily work of each role, on channels that nobody attacked. A role without a line here is asked for its
        channels only."""
        self.assertIsNone(r.process.poll(), "it died of %s\n%s" % (r.process.returncode, r.log()))
        if r.role == "KEEPER":
            m, _ = r.peers["CONTROL"].ask("seal_key")
            self.assertEqual((m[0].name, m[2]["err"], len(m[2]["key"])), ("seal_key_is", 0, 32))
        elif r.role == "DIALER":
            m, _ = r.peers["CONTROL"].ask("dial", address=b"127.0.0.1:4", deadline=(1 << 63))
            self.assertEqual(m[0].name, "not_dialed")
        elif r.role == "PROBE":
            task = memfd(b"no task")
            m, _ = r.peers["CONTROL"].ask("probe", fds=[task], task=b"t" * 16)
            os.close(task)
            self.assertEqual((m[0].name, m[2]["err"] != 0), ("probed", True))
        elif r.role == "CONTROL":
            m, _ = r.peers["GATE"].ask("auth_start", protocol=b"postgres", user=b"bot", target=b"orders", address=b"127.0.0.1", client_nonce=b"x" * 24)
            self.assertEqual(m[0].name, "auth_challenge")
            m, _ = r.peers["FRONT"].ask("api", method=b"GET", path=b"/v1/whoami", token_sha256=bytes(32), address=b"127.0.0.1")
            self.assertEqual((m[0].name, m[2]["status"]), ("api_reply", 401))
        elif r.role == "RECORDER":
            if not hasattr(r, "honest"):
                r.honest = Ring(1 << 16)
                self.addCleanup(r.honest.close)
                r.supervisor.say("ring", fds=r.honest.fds(), gate=200, epoch=4711)
            r.honest.append(note(b"s" * 16, 1, b"all is well"))
            harness.wait_until("an honest frame to be durable", r.honest.is_durable)
        elif r.role == "FRONT":
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(harness.PATIENCE)
            s.connect(os.path.join(self.home, "local.sock"))
            s.sendall(b"GET /r/ABCDEFGH HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            self.assertTrue(s.recv(100).startswith(b"HTTP/1.1 "))
            s.close()
        elif r.role == "GATE":
            s = socket.create_connection(next(s.getsockname() for k, s in r.listeners if k == "postgres"))
            s.settimeout(harness.PATIENCE)
            s.sendall(struct.pack("!II", 8, 80877103))
            self.assertEqual(s.recv(1), b"S")
            s.close()
        for name, c in r.peers.items():
            self.assertTrue(c.lives(), "the honest channel to %s was cut\n%s" % (name, r.log()))

    def channel(self, r, sender):
        """A channel of its own for one attack. Where the role knows one control only, this replaces it for now."""
        return r.peer(sender, index=100)

    def restore(self, r, sender):
        if sender == "CONTROL":
            r.peers["CONTROL"].close()
            r.peers["CONTROL"] = r.peer("CONTROL")


def cases():
    """(receiver, sender) for all that are joined, the supervisor aside: it is every role's other side."""
    for receiver in ipc.ROLES:
        for sender in neighbours(receiver):
            yield receiver, sender


class Peers(MessagesCase):
    """From a role that was taken over to each role that it has a channel to."""

    def attack(self, receiver, sender, attempts, judge):
        """Each attempt on a channel of its own; returns how many."""
        r = self.role(receiver)
        self.serves(r)
        before, n = r.descriptors(), 0
        for what, data, n_fds in attempts:
            c = self.channel(r, sender)
            c.send(data, self.fds(n_fds, n))
            self.drop_fds()
            self.assertTrue(judge(c), "%s, from %s to %s: %s\n%s" % (what, sender, receiver, judge.__doc__, r.log()))
            c.close()
            n += 1
            if n % 40 == 0:
                self.restore(r, sender)
                self.serves(r)
        self.restore(r, sender)
        self.serves(r)
        harness.wait_until("the descriptors to be closed (%d before)" % before, lambda: r.descriptors() <= before + 2)
        r.stop()
        return n

    def all(self, make, judge, least):
        n = 0
        for receiver, sender in cases():
            with self.subTest(receiver=receiver, sender=sender):
                n += self.attack(receiver, sender, make(receiver, sender), judge)
        self.assertGreater(n, least)

    def test_messages_of_others_end_the_channel(self):
        def cut(c):
            "the channel was not ended"
            return c.is_cut()
        self.all(lambda r, s: [("%s well-formed" % row.name, row.encode(5, text=b"x", u64=1), row.fds) for row in forbidden(r, s)] +
                 [("type %d" % t, struct.pack("<HHI", t, 0, 5), 0) for t in (0, len(ROWS) + 1, 255, 65535)], cut, 300)

    def test_broken_messages_end_the_channel(self):
        def cut(c):
            "the channel was not ended"
            return c.is_cut()
        self.all(lambda r, s: [("%s with %s" % (row.name, what), data, fds) for row in own(r, s) for what, data, fds in broken(row)], cut, 300)

    def test_nonsense_and_repetition_give_nothing_away(self):
        n = 0
        for receiver, sender in cases():
            with self.subTest(receiver=receiver, sender=sender):
                n += self.nonsense(receiver, sender)
        self.assertGreater(n, 500)

    def nonsense(self, receiver, sender):
        r = self.role(receiver)
        self.serves(r)
        before, n = r.descriptors(), 0
        for row in own(receiver, sender):
            c = self.channel(r, sender)
            for values in nonsense(row):
                for corr, answer in ((0, False), (9, False), (9, False), (9, True)):  # a call, the same again, an answer
                    c.say(row.name, corr, self.fds(row.fds, n), answer, **values)
                    self.drop_fds()
                    n += 1
                self.barrier(r, c, row)
            if receiver == "CONTROL":
                self.assertTrue(c.lives(), "%s: %s" % (row.name, r.log()))
            c.close()
            self.restore(r, sender)
            self.serves(r)
        harness.wait_until("the descriptors to be closed (%d before)" % before, lambda: r.descriptors() <= before + 2)
        r.stop()
        return n

    def barrier(self, r, c, row):
        """Reads what came until something that is always answered is answered."""
        questions = {"KEEPER": ("seal_key", dict(create=1)), "DIALER": ("dial", dict(address=b"127.0.0.1:4", deadline=1 << 63))}
        if r.role in questions:
            name, values = questions[r.role]
            _, others = c.ask(name, 1234, **values)
        elif r.role == "CONTROL" and c.sock.fileno() >= 0 and row.sender in ("GATE", "FRONT"):
            name, values = (("auth_start", dict(protocol=b"postgres", user=b"nobody", target=b"orders", address=b"127.0.0.1", client_nonce=b"y" * 24))
                            if row.sender == "GATE" else ("api", dict(method=b"GET", path=b"/v1/nothing", token_sha256=bytes(32))))
            _, others = c.ask(name, 1234, **values)
        else:
            others = []
        for got, corr, fields, n_fds in others:
            self.assertEqual(n_fds, 0, "%s was answered %s with a descriptor" % (row.name, got.name))
            if "err" in fields:
                self.assertTrue(fields["err"] != 0 or row.name in HARMLESS, "%s was answered %s %r" % (row.name, got.name, fields))
            if got.name == "api_reply":
                self.assertGreaterEqual(fields["status"], 400, fields)


class Supervisor(MessagesCase):
    """From the supervisor's side: whoever breaks the table there is not the supervisor, and the role ends rather than
    serve on without one."""

    def end_of(self, role, what, data, n_fds, run):
        r = Role(role, self.home, self.snapshot, self.version)
        try:
            r.start(wire=run)
            r.supervisor.send(data, self.fds(n_fds))
            self.drop_fds()
            r.ends()
        except Exception as e:
            raise AssertionError("%s to %s: it did not end: %s\n%s" % (what, role, e, r.log()))
        finally:
            r.stop()

    def test_broken_messages_end_the_role(self):
        for role in ipc.ROLES:
            for row in own(role, "SUPERVISOR", run=False):
                for what, data, fds in list(broken(row))[:: 3]:
                    self.end_of(role, "%s with %s" % (row.name, what), data, fds, False)

    def test_messages_of_others_and_of_another_phase_end_the_role(self):
        for role in ipc.ROLES:
            foreign = [row for row in ROWS.values() if not row.may("SUPERVISOR", role)]
            for row in foreign[:: max(1, len(foreign) // 6)] + [ROWS["boot"], ROWS["listener"]]:
                self.end_of(role, row.name, row.encode(5, text=b"x"), row.fds, True)

    def test_what_a_role_must_not_use_is_refused(self):
        """Descriptors that are not what they stand for: unsealed, too large, no memory at all. The role goes on as
        before, or ends by its own decision where going on would be by old rules; it is never felled by them."""
        for role in ipc.ROLES:
            gets = ipc.ROLES[role][1]
            wanted = ["peer"] + ["snapshot"] * ("GETS_SNAPSHOT" in gets) + ["ring"] * bool({"GETS_RING", "GETS_RINGS"} & gets)
            r = None
            for kind in range(6):
                for name in wanted:
                    if r is None or not r.alive():
                        r = self.role(role)
                        self.serves(r)  # once before: what it opens for that stays open
                    before, row = r.descriptors(), ROWS[name]
                    r.supervisor.send(row.encode(0, u64=ipc.NUMBERS["JOB"] if name == "peer" else 1 << 63, text=b"z"), self.fds(row.fds, kind))
                    self.drop_fds()
                    try:
                        self.serves(r)
                        harness.wait_until("%s: the descriptors to be closed (%d before)" % (role, before), lambda: r.descriptors() <= before + 2)
                    except (AssertionError, OSError, TypeError):  # no answer: it must have ended
                        self.assertEqual(r.ends(), 1, "%s, %s of kind %d: %s" % (role, name, kind, r.log()))
                        r.stop()
                        r = None
            if r is not None:
                r.stop()


if __name__ == "__main__":
    unittest.main()
