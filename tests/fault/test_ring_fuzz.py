"""A process that was taken over scribbles over its ring while the real recorder reads it: indices, lengths, numbers,
the reader's own part, frames that claim to be of other sessions. The recorder lives, the other gates' frames become
durable in their order, and the journal that results is whole: the replayer reads an honest session back to the byte,
and nothing that the hostile gate wrote stands in it."""
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness
import ipc
from ipc import Ring, Role, note

ROUNDS, SESSION, OTHER = 150, b"honest session !", b"another session."


def scribble(ring, r, end):
    """What a hostile writer does, for as long as it is let."""
    m, page, size = ring.map, ring.PAGE, ring.size
    head, seq = ring.head, ring.seq
    good = note(SESSION, 1, b"forged: it never happened")
    while time.monotonic() < end:
        what = r.randrange(12)
        if what < 4:  # a frame in good order, whose bytes, length or number change while it is read
            n = r.choice([len(good), 0, 24, 8191, 65536])
            at = head % size
            if at + 16 + len(good) + 8 > size:
                head += size - at
                continue
            m[page + at:page + at + 16] = struct.pack("<IIQ", n, 0, seq + 1)
            m[page + at + 16:page + at + 16 + len(good)] = good
            head += 16 + (len(good) + 7) // 8 * 8
            seq += 1
            struct.pack_into("<Q", m, ring.HEAD, head)
            for _ in range(r.randrange(8)):
                struct.pack_into("<I", m, page + at, r.choice([0xfffffff0, 0x7fffffff, len(good), 0, 3]))
                m[page + at + 16] = r.randrange(256)
        elif what == 4:
            struct.pack_into("<Q", m, ring.HEAD, r.choice([0, head + 8, head + 7, head + size, 1 << 63, (1 << 64) - 8, r.getrandbits(64)]))
        elif what == 5:  # the reader's own: tail, durable, health, sleeping, checkpoints, which of them
            struct.pack_into("<Q", m, r.randrange(ring.TAIL, 192, 8), r.choice([0, 8, head, 1 << 62, r.getrandbits(64)]))
        elif what == 6:
            m[0:16] = r.randbytes(16)
        elif what == 7:
            at = r.randrange(size - 64)
            m[page + at:page + at + 64] = r.randbytes(64)
        elif what == 8:
            struct.pack_into("<I", m, ring.WANT, r.getrandbits(32))
        ring.poke()


class Fuzz(unittest.TestCase):
    def setUp(self):
        self.home = harness.scratch("ring")
        self.addCleanup(shutil.rmtree, self.home, True)
        os.makedirs(os.path.join(self.home, "home", "recordings"), 0o700)

    def recorder(self):
        r = Role("RECORDER", self.home).start()
        self.addCleanup(r.stop)
        return r

    def replay(self, session):
        """What the real replayer reads of a session."""
        key = os.path.join(self.home, "key")
        with open(key, "w") as f:
            f.write(ipc.RECORDING_PRIVATE)
        out = subprocess.run([os.path.join(harness.BUILD, "src", "programs", "job-replayer"), os.path.join(self.home, "home", "recordings"), session.hex(),
                              "--key", key], capture_output=True, text=True)
        self.assertEqual(out.returncode, 0, out.stderr)
        return json.loads(out.stdout)["frames"]

    def test_a_hostile_writer_harms_its_own_record_only(self):
        seed = int(os.environ.get("COUNTERSIGN_SEED", "0")) or random.randrange(1 << 32)
        rec = self.recorder()
        honest = Ring(1 << 16)
        self.addCleanup(honest.close)
        rec.supervisor.say("ring", fds=honest.fds(), gate=0, epoch=1)
        said = []

        def honestly():
            said.append("frame %d of an honest gate" % len(said))
            honest.append(note(SESSION, len(said), said[-1].encode()))
            harness.wait_until("an honest frame to be durable (seed %d)" % seed, honest.is_durable)

        for n in range(ROUNDS):
            ring = Ring(1 << 16)
            rec.supervisor.say("ring", fds=ring.fds(), gate=1 + n % 40, epoch=100 + n)
            if n % 2 == 0:  # some have a good past
                ring.append(note(OTHER, 1, b"before it was taken over"))
                harness.wait_until("it to be durable", ring.is_durable)
            pid = os.fork()
            if pid == 0:
                try:
                    scribble(ring, random.Random(seed + n), time.monotonic() + 0.02)
                finally:
                    os._exit(0)
            honestly()
            if n % 25 == 24:  # a recorder that dies meanwhile: its successor starts from what the rings say
                os.kill(rec.process.pid, signal.SIGKILL)
                rec.stop()
                rec = self.recorder()
                rec.supervisor.say("ring", fds=ring.fds(), gate=1 + n % 40, epoch=100 + n)
                rec.supervisor.say("ring", fds=honest.fds(), gate=0, epoch=1)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)
            honestly()
            self.assertTrue(rec.alive(), "seed %d: %s" % (seed, rec.log()))
            ring.close()
        rec.supervisor.say("shutdown")
        self.assertEqual(rec.ends(), 0, rec.log())
        self.assertGreater(rec_text(rec).count("ipc-broken"), ROUNDS // 4, "most hostile rings are given up")
        # The journal is whole, and its past is what it was.
        frames = self.replay(SESSION)
        self.assertEqual([f["text"] for f in frames if f["kind"] == "note"], said)

    def test_what_is_durable_cannot_be_rewritten_by_its_gate(self):
        rec = self.recorder()
        ring = Ring(1 << 16)
        self.addCleanup(ring.close)
        rec.supervisor.say("ring", fds=ring.fds(), gate=0, epoch=1)
        ring.append(note(SESSION, 1, b"what it did"))
        harness.wait_until("it to be durable", ring.is_durable)
        # The same place in the ring, the same number, other words; and every index set back to the beginning.
        other = note(SESSION, 1, b"I was good!")
        ring.map[ring.PAGE:ring.PAGE + 16 + len(other)] = struct.pack("<IIQ", len(other), 0, 1) + other
        for at in range(ring.TAIL, 192, 8):
            struct.pack_into("<Q", ring.map, at, 0)
        ring.poke()
        os.kill(rec.process.pid, signal.SIGKILL)
        rec.stop()
        rec = self.recorder()  # reads from where the ring says: again from the beginning
        rec.supervisor.say("ring", fds=ring.fds(), gate=0, epoch=1)
        clean = Ring(1 << 16)
        self.addCleanup(clean.close)
        rec.supervisor.say("ring", fds=clean.fds(), gate=1, epoch=2)
        clean.append(note(OTHER, 1, b"later"))
        harness.wait_until("the next frame to be durable", clean.is_durable)
        rec.supervisor.say("shutdown")
        self.assertEqual(rec.ends(), 0, rec.log())
        self.assertEqual([f["text"] for f in self.replay(SESSION)], ["what it did"])

    def test_a_ring_of_the_wrong_kind_is_refused(self):
        rec = self.recorder()
        honest = Ring(1 << 16)
        self.addCleanup(honest.close)
        rec.supervisor.say("ring", fds=honest.fds(), gate=0, epoch=1)
        honest.append(note(SESSION, 1, b"well so far"))
        harness.wait_until("an honest frame to be durable", honest.is_durable)
        before = rec.descriptors()
        for fd in (ipc.memfd(bytes(8192), seals=0), ipc.memfd(bytes(4096)), ipc.memfd(b"x" * 8192), ipc.memfd(bytes(8193)),
                   os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC)):
            rec.supervisor.say("ring", fds=[fd, honest.kick, honest.durable], gate=7, epoch=7)
            rec.supervisor.say("ring", fds=[fd, fd, fd], gate=7, epoch=7)
            os.close(fd)
        honest.append(note(SESSION, 1, b"goes on"))
        harness.wait_until("an honest frame to be durable", honest.is_durable)
        harness.wait_until("their descriptors to be closed", lambda: rec.descriptors() <= before)


def rec_text(rec):
    with open(rec.log_path, errors="replace") as f:
        return f.read()


if __name__ == "__main__":
    unittest.main()
