#!/usr/bin/env python3
"""A server that lets many sessions in and answers every query with nothing: thousands of connections in one process,
where PostgreSQL would start a process each. `stub.py USER PASSWORD` prints its port and ends with its input."""
import asyncio
import base64
import hashlib
import hmac
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "lib"))
from fakepg import SETTINGS, auth, complete, parameter, ready  # noqa: E402
from pgwire import message  # noqa: E402

SALT, ROUNDS = b"0123456789abcdef", 4096
USER, PASSWORD = sys.argv[1:3]
SALTED = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), SALT, ROUNDS)
GREETING = b"".join([auth(0)] + [parameter(k, v) for k, v in {**SETTINGS, "session_authorization": USER}.items()] +
                    [message("K", struct.pack("!II", 4711, 815)), ready()])


async def read(r):
    head = await r.readexactly(5)
    return head[:1], await r.readexactly(struct.unpack("!I", head[1:])[0] - 4)


async def login(r, w):
    await r.readexactly(struct.unpack("!I", await r.readexactly(4))[0] - 4)
    w.write(auth(10, b"SCRAM-SHA-256\0\0"))
    _, body = await read(r)
    bare = body[body.index(b",,") + 2:].decode()
    first = "r=%s,s=%s,i=%d" % (bare.split("r=", 1)[1] + base64.b64encode(os.urandom(18)).decode(), base64.b64encode(SALT).decode(), ROUNDS)
    w.write(auth(11, first.encode()))
    _, body = await read(r)
    everything = (bare + "," + first + "," + body.decode().rpartition(",p=")[0]).encode()
    proof = hmac.digest(hmac.digest(SALTED, b"Server Key", "sha256"), everything, "sha256")
    w.write(auth(12, b"v=" + base64.b64encode(proof)) + GREETING)


async def session(r, w):
    try:
        await login(r, w)
        while True:
            kind, _ = await read(r)
            if kind == b"Q":
                w.write(complete("SELECT 0") + ready())
            elif kind == b"S":
                w.write(ready())
            elif kind == b"X":
                break
    except (OSError, asyncio.IncompleteReadError):
        pass
    w.close()


async def main():
    server = await asyncio.start_server(session, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    os._exit(0)  # thousands of connections need no farewell


asyncio.run(main())
