"""The life of a role that test_hostile.py has taken over: says what the plan says, writes down what it heard, and waits
to be killed, or ends when the plan is done. Not a test of its own."""
import json
import os
import socket
import sqlite3
import struct
import time

from ipc import BY_NUMBER, NUMBERS, ROWS, Channel

NAMES = {number: name for name, number in NUMBERS.items()}


def take(sock, peers, heard):
    """One message of the supervisor's; channels to others are kept."""
    data, fds, _, _ = socket.recv_fds(sock, 1 << 17, 8)
    if not data:
        os._exit(0)
    row, corr = BY_NUMBER[struct.unpack_from("<H", data)[0]], struct.unpack_from("<I", data, 4)[0]
    fields = row.decode(data)
    if row.name == "peer":
        peers[NAMES[fields["role"]]] = Channel(socket.socket(fileno=fds[0]))
    else:
        for fd in fds:
            os.close(fd)
    heard[row.name] = heard.get(row.name, 0) + 1
    if row.name == "replayed":
        heard["replayed_ok"] = heard.get("replayed_ok", 0) + (fields["err"] == 0)
    return row, corr


def send_all(sock, plan, peers, heard):
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(plan.get("fds", 0))]
    for data in plan.get("send", []):
        while True:
            try:
                socket.send_fds(sock, [bytes.fromhex(data)], fds, socket.MSG_DONTWAIT)
                break
            except BlockingIOError:
                take_some(sock, peers, heard, 0.05)
        take_some(sock, peers, heard, 0)


def take_some(sock, peers, heard, patience):
    sock.settimeout(patience if patience > 0 else 0)
    try:
        while True:
            take(sock, peers, heard)
    except (BlockingIOError, TimeoutError):
        pass
    sock.settimeout(None)


# ---- keeper ----

NONCE = "fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j"
CLIENT = NONCE[:24]


def boxes(database):
    db = sqlite3.connect("file:%s?mode=ro" % database, uri=True)
    return {name: (version, box) for name, version, box in db.execute("select name, version, box from secret")}


def ask_keeper(keeper, plan):
    stored, target = boxes(plan["database"]), plan["target"].encode()
    everyday, elevated = target.decode() + "-ro", target.decode() + "-owner"
    got, connection = {}, [0]

    def now():
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def ask(what, name, which=0, **change):
        connection[0] += 1
        version, box = stored[name]
        fields = dict(session=b"s" * 16, target=target, connection=connection[0], which=which, grant=bytes(16), consumed=0,
                      deadline=now() + 10 ** 10, name=name.encode(), version=version, box=box, mechanism=b"SCRAM-SHA-256",
                      client_first_bare=("n=user,r=" + CLIENT).encode(),
                      server_first=("r=%s,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096" % NONCE).encode(),
                      client_final_bare=("c=biws,r=" + NONCE).encode())
        fields.update(change)
        answer, _ = keeper.ask("prove_for", corr=connection[0], **fields)
        if answer is None or answer[0].name != "proof_for":
            got[what] = ["ended", ""]
        else:
            ok = answer[2]["err"] == 0 and len(answer[2]["proof"]) == 32
            got[what] = ["ok" if ok else str(answer[2]["err"]), answer[2]["text"].decode("utf-8", "replace")]

    def grant():
        return dict(which=1, grant=os.urandom(16), consumed=now())

    ask("+the everyday one", everyday)
    ask("elevated without a grant", elevated, which=1)
    ask("elevated with a grant of nought", elevated, which=1, consumed=now())
    ask("elevated called everyday", elevated)
    ask("elevated called the one for looking", elevated, which=2)
    ask("everyday called the one for looking", everyday, which=2)
    ask("everyday with a grant", everyday, grant=b"g" * 16, consumed=now())
    ask("everyday called elevated", everyday, **grant())
    ask("a credential that is none", everyday, which=3)
    ask("a target that is not configured", everyday, target=b"elsewhere")
    ask("another secret of the store in this one's name", everyday, box=stored[elevated][1])
    ask("this one's box in another one's name", elevated, box=stored[everyday][1], **grant())
    ask("another version", everyday, version=stored[everyday][0] + 1)
    ask("a box that was changed", everyday, box=stored[everyday][1][:-1] + bytes([stored[everyday][1][-1] ^ 1]))
    ask("a grant from before keeper's start", elevated, which=1, grant=b"o" * 16, consumed=1)
    ask("a grant of the future", elevated, which=1, grant=b"f" * 16, consumed=now() + 10 ** 12)
    ask("too few rounds", everyday, server_first=("r=%s,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1" % NONCE).encode())
    ask("another exchange's end", everyday, client_final_bare=b"c=biws,r=other")
    once = grant()
    ask("+a grant that control invents", elevated, **once)
    ask("the grant again", elevated, **once)
    ask("the grant again for another session", elevated, **dict(once, session=b"t" * 16))
    return got


def play(role, plans):
    with open(os.path.join(plans, "begun")) as f:
        plan = json.load(f)
    sock, peers, heard = socket.socket(fileno=3), {}, {}
    sock.setblocking(True)
    while "boot" not in heard:
        take(sock, peers, heard)
    if plan.get("after", True):
        while role == "control" and "KEEPER" not in peers:
            take(sock, peers, heard)
        sock.send(ROWS["ready"].encode())
    report = {}
    if plan.get("keeper"):
        report["keeper"] = ask_keeper(peers["KEEPER"], plan)
    send_all(sock, plan, peers, heard)
    if plan.get("killed"):
        while True:
            take(sock, peers, heard)
    end = time.monotonic() + 30
    while plan.get("send") and time.monotonic() < end and not all(heard.get(n) for n in ("status_is", "reloaded", "replayed")):
        take_some(sock, peers, heard, 0.2)
    report.update(answers=heard, replayed_ok=heard.get("replayed_ok", 0))
    path = os.path.join(plans, "report")
    with open(path + ".new", "w") as f:
        json.dump(report, f)
    os.rename(path + ".new", path)
