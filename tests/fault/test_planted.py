"""Secrets that were planted and used are looked for after a full run, everywhere that they must not be: in the memory
of every process (by root, through /proc/PID/mem), in argv and environments, in the log, the state, the recordings,
whatever else lies in the gateway's folders, and in core files, of which there may be none."""
import base64
import os
import re
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peer"))

import harness
from base import GatewayCase
from pgwire import Wire, kinds, query

EVERYBODY = {"supervisor", "recorder", "keeper", "dialer", "probe", "control", "front", "gate"}


def memory(pid):
    """Everything readable of a process, piece by piece."""
    with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as mem:
        for line in maps:
            m = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if m is None or "[vvar]" in line or "[vsyscall]" in line:
                continue
            at, end = int(m.group(1), 16), int(m.group(2), 16)
            if end - at > 1 << 36:
                continue  # AddressSanitizer's shadow: terabytes of flags about memory, not memory
            while at < end:
                n = min(end - at, 1 << 22)
                try:
                    mem.seek(at)
                    yield mem.read(n)
                except OSError:
                    pass  # a guard page, or one beyond the end of a file
                at += n


def found_in(pieces, needles):
    """Names of those needles that are there."""
    found, tail = set(), b""
    for piece in pieces:
        found |= {name for name, values in needles.items() for v in values if v in tail + piece}
        tail = piece[-128:]
    return found


class Planted(GatewayCase):
    # Who may have what, and why; nobody else.
    MAY = {
        "the everyday password": {"keeper"},       # while it is used, in locked memory
        "the elevated password": {"keeper"},
        "the master key": {"keeper"},
        "a token used at the database": set(),     # SCRAM: nobody is ever told
        "a token used at the API": {"front"},      # hashes it where it finds it
        "the listener's TLS key": EVERYBODY - {"keeper", "recorder", "probe"},  # in the snapshot, which these map
        "a secret of nobody": set(),               # stored once: sealed in the command, opened by keeper, forgotten
    }

    def needles(self):
        with open(os.path.join(self.gw.home, "master.key"), "rb") as f:
            master = f.read()
        pem = open(os.path.join(self.gw.home, "tls.key"), "rb").read()
        der = subprocess.run(["openssl", "pkey", "-in", os.path.join(self.gw.home, "tls.key"), "-outform", "DER"],
                             capture_output=True, check=True).stdout
        scalar = der[der.index(b"\x04\x20") + 2:][:32]
        values = {
            "the everyday password": [self.roles["password"].encode()],
            "the elevated password": [self.roles["owner_password"].encode()],
            "the master key": [master],
            "a token used at the database": [self.gw.tokens["bot"].encode()],
            "a token used at the API": [self.gw.tokens["bob"].encode()],
            "the listener's TLS key": [b"".join(pem.split(b"\n")[1:2]), scalar],
            "a secret of nobody": [b"planted-and-forgotten-" + self.name.encode()],
        }
        # Also in the forms in which a slip would write them down.
        for name in list(values):
            values[name] += [base64.b64encode(v) for v in values[name] if len(v) >= 24] + [v.hex().encode() for v in values[name]]
        return values

    def full_run(self):
        """Log-ins, allowed, held, approved and denied actions, the API over TLS, a reload, a secret set anew."""
        table = self.table()
        self.gw.cli("secret", "set", "nobodys", stdin=self.needles()["a secret of nobody"][0].decode())
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE).login("bot", self.gw.tokens["bot"], self.name)
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        for how in ("approve", "deny"):
            sql = "drop table " + (table if how == "approve" else table + "_x")
            w.send(query(sql))
            request = self.held(sql)
            self.gw.approve(request["id"]) if how == "approve" else self.gw.deny(request["id"], "no")
            w.until_ready()
        self.gw.cli("target", "check", self.name, ok=False)  # probe logs in with the everyday credential
        status, _ = self.gw.api("GET", "/v1/requests", who="bob", local=False)
        self.assertEqual(status, 200)
        self.gw.cli("reload")
        self.assertEqual(kinds(w.ask(query("select 2"))), "TDCZ")
        return w

    def test_planted_secrets(self):
        self.assertEqual(os.geteuid(), 0, "reading the memory of other processes needs root")
        needles = self.needles()
        self.assertEqual(set(needles), set(self.MAY))
        self.gw.restart()  # what made people and their tokens is gone
        w = self.full_run()
        roles = [(r["role"], r["pid"]) for r in self.gw.api("GET", "/v1/status")[1]["roles"]] + [("supervisor", self.gw.process.pid)]
        self.assertLessEqual(EVERYBODY, {role for role, _ in roles})
        marks = {"mark": [b"\x7fELF"]}
        seen = {}
        for role, pid in roles:
            found = found_in(memory(pid), {**needles, **marks})
            self.assertIn("mark", found, "the memory of %s was not read" % role)
            seen[role] = found - {"mark"}
            self.assertEqual({n for n in seen[role] if role not in self.MAY[n] and role not in ("job",)}, set(), role)
            for what in ("environ", "cmdline"):
                with open("/proc/%d/%s" % (pid, what), "rb") as f:
                    self.assertEqual(found_in([f.read()], needles), set(), "%s of %s" % (what, role))
            with open("/proc/%d/limits" % pid) as f:
                if role != "supervisor":
                    self.assertRegex(f.read(), r"Max core file size\s+0\s+0 ", role)
        # The search sees what it looks for.
        self.assertLessEqual({"the master key"}, seen["keeper"])
        for role in ("gate", "front", "control", "dialer", "supervisor"):  # the threat model says that they have it
            self.assertIn("the listener's TLS key", seen[role], role)
        w.close()
        self.gw.stop()
        own = {"the master key": {"master.key"}, "the listener's TLS key": {"tls.key"}}
        looked = 0
        for base, _, names in os.walk(self.gw.dir):
            for n in names:
                path = os.path.join(base, n)
                self.assertNotRegex(n, r"^core(\.|$)", path)
                if os.path.isfile(path) and not os.path.islink(path):
                    looked += 1
                    with open(path, "rb") as f:
                        found = found_in([f.read()], needles)
                    self.assertEqual({x for x in found if n not in own.get(x, ())}, set(), path)
        self.assertGreater(looked, 5)


if __name__ == "__main__":
    unittest.main()
