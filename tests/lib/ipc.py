"""Messages between roles, made from the very tables that the roles are made from (messages.def, roles.def), and a
stand-in for the supervisor that starts one real role and plays everybody around it."""
import array
import fcntl
import hashlib
import mmap
import os
import re
import select
import socket
import struct
import subprocess
import time

import harness

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
F_ADD_SEALS, SEAL, SHRINK, GROW, WRITE = 1033, 1, 2, 4, 8


def _table(name):
    with open(os.path.join(SOURCE, "src", name)) as f:
        return re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)


class Row:
    def __init__(self, number, line):
        self.id, self.name, self.sender, self.receiver, self.phase = line[:5]
        self.number, self.max, self.fds, self.fields = number, int(line[5]), int(line[6]), []

    def may(self, sender, receiver):
        return self.sender in (sender, "ANY") and self.receiver in (receiver, "ANY")

    def encode(self, corr=0, answer=False, u64=0, ids=bytes(16), text=b"", **values):
        """The message with these fields; the others get the value that is given for their kind."""
        out = struct.pack("<HHI", self.number, 1 if answer else 0, corr)
        for kind, name in self.fields:
            v = values.get(name, {"U64": u64, "ID": ids, "SLICE": text}[kind])
            out += struct.pack("<Q", v) if kind == "U64" else v if kind == "ID" else struct.pack("<I", len(v)) + v
        return out

    def decode(self, data):
        at, out = 8, {}
        for kind, name in self.fields:
            if kind == "U64":
                out[name], at = struct.unpack_from("<Q", data, at)[0], at + 8
            elif kind == "ID":
                out[name], at = data[at:at + 16], at + 16
            else:
                n = struct.unpack_from("<I", data, at)[0]
                out[name], at = data[at + 4:at + 4 + n], at + 4 + n
        return out


def rows():
    text = _table("ipc/messages.def")
    found = re.findall(r"^CS_MSG\((\w+),\s*(\w+),\s*(\w+),\s*(\w+),\s*(\w+),\s*(\d+),\s*(\d+)\)", text, re.M)
    all_ = [Row(i + 1, line) for i, line in enumerate(found)]
    fields = dict(re.findall(r"^#define CS_FIELDS_(\w+)\(F\)(.*)$", text, re.M))
    for r in all_:
        r.fields = re.findall(r"F\((\w+), (\w+)\)", fields[r.id])
    return {r.name: r for r in all_}


ROWS = rows()
BY_NUMBER = {r.number: r for r in ROWS.values()}


def _roles():
    """enum cs_role, and what each role gets (roles.def)."""
    with open(os.path.join(SOURCE, "src", "ipc", "ipc.h")) as f:
        names = re.search(r"enum cs_role \{(.*?)\}", f.read(), re.S).group(1)
    numbers = {n: i for i, n in enumerate(re.findall(r"CS_ROLE_(\w+)", names))}
    gets = {m[0]: (m[1], set(re.findall(r"(?:GETS_|PER_)\w+", m[2])))
            for m in re.findall(r'^CS_ROLE_ROW\((\w+),\s*"([\w-]+)",\s*\d+,\s*([^)]*)\)', _table("roles/roles.def"), re.M)}
    return numbers, gets


NUMBERS, ROLES = _roles()


def neighbours(role):
    """Who has a channel to it, the supervisor aside."""
    if role == "CONTROL":
        return [r for r, (_, gets) in ROLES.items() if "GETS_CONTROL" in gets]
    return ["CONTROL"] if "GETS_CONTROL" in ROLES[role][1] else []


# ---- descriptors ----

def memfd(data=b"", seals=SEAL | SHRINK | GROW | WRITE, name="test"):
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, data) if data else None
    if seals:
        fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


class Ring:
    """A gate's ring, written as a gate should, or not. The layout is ring.c's."""
    PAGE, HEAD, WANT, TAIL, DURABLE, HEALTH = 4096, 64, 72, 128, 136, 144

    def __init__(self, size=4 * 1024 * 1024):
        self.size = size
        self.fd = os.memfd_create("countersign-ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.PAGE + size)
        fcntl.fcntl(self.fd, F_ADD_SEALS, SEAL | SHRINK | GROW)
        self.kick, self.durable = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC), os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.map = mmap.mmap(self.fd, self.PAGE + size)
        self.map[0:16] = b"cscring1" + struct.pack("<Q", size)
        self.head = self.seq = 0

    def fds(self):
        return [self.fd, self.kick, self.durable]

    def u64(self, at):
        return struct.unpack_from("<Q", self.map, at)[0]

    def append(self, frame):
        n = len(frame)
        data = struct.pack("<IIQ", n, 0, self.seq + 1) + frame + bytes(-n % 8)
        at = self.head % self.size
        first = min(len(data), self.size - at)
        self.map[self.PAGE + at:self.PAGE + at + first] = data[:first]
        self.map[self.PAGE:self.PAGE + len(data) - first] = data[first:]
        self.head += len(data)
        self.seq += 1
        struct.pack_into("<Q", self.map, self.HEAD, self.head)
        struct.pack_into("<I", self.map, self.WANT, 1)
        self.poke()

    def poke(self):
        os.write(self.kick, struct.pack("=Q", 1))

    def is_durable(self):
        return self.u64(self.DURABLE) >= self.seq

    def stopped(self):
        return struct.unpack_from("<I", self.map, self.HEALTH)[0] != 0

    def close(self):
        self.map.close()
        for fd in self.fds():
            os.close(fd)


def note(session, n, text):
    """A frame NOTE of a recording (action/frame.h), as a gate would append it."""
    body = struct.pack("<I", len(text)) + text
    return struct.pack("<BQ", 8, time.time_ns() // 1000000) + session + body


# ---- channels ----

class Channel:
    """One end of a channel, in our hands."""

    def __init__(self, sock):
        self.sock = sock
        sock.settimeout(harness.PATIENCE)

    def send(self, data, fds=()):
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self.sock.sendmsg([data], anc)
            return True
        except OSError:
            return False

    def say(self, name, /, corr=0, fds=(), answer=False, **values):
        return self.send(ROWS[name].encode(corr, answer, **values), fds)

    def read(self, timeout=None):
        """(row, corr, fields, number of descriptors); None at the end; TimeoutError."""
        if not select.select([self.sock], [], [], harness.PATIENCE if timeout is None else timeout)[0]:
            raise TimeoutError("no message came")
        try:
            data, anc, _, _ = self.sock.recvmsg(1 << 17, socket.CMSG_SPACE(64))
        except OSError:
            return None
        n = 0
        for level, kind, raw in anc:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i", raw[:len(raw) - len(raw) % 4])
                n += len(fds)
                for fd in fds:
                    os.close(fd)
        if not data:
            return None
        row = BY_NUMBER[struct.unpack_from("<H", data)[0]]
        return row, struct.unpack_from("<I", data, 4)[0], row.decode(data), n

    def is_cut(self):
        """The role has closed it (whatever it said before)."""
        try:
            while self.read() is not None:
                pass
            return True
        except TimeoutError:
            return False

    def lives(self):
        """It has not been closed; what came is read away."""
        try:
            while self.read(0) is not None:
                pass
            return False
        except TimeoutError:
            return True

    def ask(self, name, /, corr=77, fds=(), **values):
        """The answer to a call, and what else came before it."""
        self.say(name, corr, fds, **values)
        others = []
        while True:
            m = self.read()
            if m is None:
                return None, others
            if m[1] == corr:
                return m, others
            others.append(m)

    def close(self):
        self.sock.close()


_reserved = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)]
while _reserved[-1] < 4:  # descriptor 3 is a started role's channel: nothing of ours may have that number
    _reserved.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))


def with_channel(argv, sock, **more):
    """Starts a program with its channel as descriptor 3."""
    return subprocess.Popen(argv, pass_fds=[3], preexec_fn=lambda: os.dup2(sock.fileno(), 3), stdin=subprocess.DEVNULL, **more)


# An X25519 pair that stands for the key of recordings.
RECORDING_PRIVATE = "c00af108186e90dc553534338d8f37ba3cf3d3ecd3498b5c8030dc088fda107b"
RECORDING_PUBLIC = bytes.fromhex("c0bcf51e199c6924e395822d9ffdccc101a0b4b61fe25f313d9664ac38819822")


class Role:
    """A real role's program, started as the supervisor does it, with us on every side of it."""

    def __init__(self, role, home, snapshot=None, version=0, program=None, env=None):
        self.role, self.home, self.version, self.env = role, home, version, env
        program_name, self.gets = ROLES[role]
        self.program = program or os.path.join(harness.BUILD, "src", "programs", program_name)
        program = program_name
        self.snapshot_fd = snapshot
        self.log_path = os.path.join(home, program + ".log")
        self.process, self.listeners, self.ring, self.peers = None, [], None, {}

    def start(self, wire=True):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        log = open(self.log_path, "ab")
        self.process = with_channel([self.program, os.path.basename(self.program)], theirs, stdout=log, stderr=log, cwd=self.home,
                                    env=dict(os.environ, **(self.env or {})))
        log.close()
        theirs.close()
        self.supervisor = Channel(ours)
        if wire:
            self.boot()
            self.wait_ready()
        return self

    def boot(self):
        params = ""
        if "GETS_RINGS" in self.gets:
            params = "directory=%s\n" % os.path.join(self.home, "home", "recordings")
        self.supervisor.say("boot", role=NUMBERS[self.role], index=0, epoch=1, params=params.encode())
        if "GETS_RINGS" in self.gets:
            self.supervisor.say("record_key", name=b"recording/2026-11", public=RECORDING_PUBLIC)
        if "GETS_KEY" in self.gets:
            self.give_keys()
        if "GETS_SNAPSHOT" in self.gets:
            self.supervisor.say("snapshot", fds=[self.snapshot_fd], version=self.version, sha256=self.snapshot_sum())
        if "GETS_WEB" in self.gets:
            self.listen("control", "control")
            self.listen("local", "local")
        if "GETS_PROTOCOLS" in self.gets:
            self.listen("postgres", "postgres")
        if "GETS_RING" in self.gets:
            self.ring = Ring()
            self.supervisor.say("ring", fds=self.ring.fds(), gate=0, epoch=1)
        self.peers = {n: self.peer(n) for n in neighbours(self.role)}

    def give_keys(self):
        """To keeper: the master key, and a table of credentials with no target in it."""
        key = os.open(os.path.join(self.home, "home", "master.key"), os.O_RDONLY)
        self.supervisor.say("master_key", fds=[key], previous=0, last=1)
        os.close(key)
        table = memfd()
        self.supervisor.say("credentials", fds=[table], version=1, sha256=hashlib.sha256(b"").digest())
        os.close(table)

    def snapshot_sum(self):
        return hashlib.sha256(os.pread(self.snapshot_fd, 1 << 26, 0)).digest()

    def listen(self, name, kind):
        if kind == "local":
            s = socket.socket(socket.AF_UNIX)
            s.bind(os.path.join(self.home, "local.sock"))
            s.listen(16)
        else:
            s = socket.create_server(("127.0.0.1", 0), backlog=16)
        s.setblocking(False)
        self.listeners.append((kind, s))
        self.supervisor.say("listener", fds=[s.fileno()], name=name.encode(), kind=kind.encode())

    def peer(self, role, index=0):
        """A channel on which we are that role; the newest is the one that counts where there is one."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.supervisor.say("peer", fds=[theirs.fileno()], role=NUMBERS[role], index=index, epoch=index + 1)
        theirs.close()
        return Channel(ours)

    def wait_ready(self):
        """Until it says so; meanwhile we are the keeper that it asks for public keys."""
        answers = {"seal_key": ("seal_key_is", dict(key=b"\x09" + bytes(31), id=bytes(8))),
                   "recording_key": ("recording_key_is", dict(box=b"a box", public=b"\x09" + bytes(31)))}
        keeper = self.peers.get("KEEPER")
        m = None
        while m is None:
            there, _, _ = select.select([c.sock for c in (self.supervisor, keeper) if c], [], [], harness.PATIENCE)
            if keeper is not None and keeper.sock in there:
                asked = keeper.read()
                if asked is None:
                    break
                name, values = answers[asked[0].name]
                keeper.say(name, asked[1], answer=True, **values)
            elif there:
                m = self.supervisor.read()
                break
            else:
                break
        if m is None or m[0].name != "ready":
            raise AssertionError("%s did not become ready: %r\n%s" % (self.role, m, self.log()))

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()[-3000:]

    def alive(self):
        return self.process.poll() is None

    def descriptors(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def ends(self):
        """It ends by itself; its status."""
        return self.process.wait(harness.PATIENCE)

    def stop(self):
        if self.process is not None:
            if self.alive():
                self.process.kill()
            self.process.wait()
            self.supervisor.close()
        for p in self.peers.values():
            p.close()
        for _, s in self.listeners:
            s.close()
        self.listeners = []
        if os.path.exists(os.path.join(self.home, "local.sock")):
            os.unlink(os.path.join(self.home, "local.sock"))
        if self.ring is not None:
            self.ring.close()
            self.ring = None


def compile_snapshot(config):
    """The real compiler's answer for a configuration file: (memfd, version)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    p = with_channel([os.path.join(harness.BUILD, "src", "programs", "job-compile"), config], theirs)
    theirs.close()
    ours.settimeout(harness.PATIENCE)
    data, anc, _, _ = ours.recvmsg(1 << 17, socket.CMSG_SPACE(64))
    p.wait(harness.PATIENCE)
    ours.close()
    err, version = struct.unpack_from("<QQ", data)
    if err != 0:
        raise AssertionError(data[20:].decode())
    return array.array("i", anc[0][2])[0], version


CONFIG = """version: 1
listeners:
  control: { address: "127.0.0.1:1", url: "https://localhost:1" }
  local: { socket: "%(home)s/run/countersign.sock" }
  postgres: { address: "127.0.0.1:2" }
tls: { certificate: tls.crt, key: tls.key }
store: { sqlite: state/state.db }
recordings: { directory: recordings }
master_key: master.key
identity:
  - name: local
targets:
  - name: orders
    postgres: { address: "127.0.0.1:3", database: orders, tls: off }
    credential: { user: ro, password: "secret:ro" }
    elevated: { user: owner, password: "secret:owner" }
"""


def installation(folder):
    """A home with keys and a configuration, and its snapshot: (memfd, version)."""
    home = os.path.join(folder, "home")
    subprocess.run([os.path.join(harness.BUILD, "src", "programs", "countersign"), "init", home], check=True, stdout=subprocess.DEVNULL)
    with open(os.path.join(home, "countersign.yaml"), "w") as f:
        f.write(CONFIG % {"home": home} + harness.RULES)
    return compile_snapshot(os.path.join(home, "countersign.yaml"))
