"""A listener's certificate is renewed by a reload: who comes sees the new one, who is there goes on, and files that do
not fit change nothing."""
import os
import shutil
import socket
import ssl
import struct
import unittest

import harness
from base import GatewayCase
from pgwire import Wire, kinds, query

FILES = ("tls.crt", "tls.key")


class Certificates(GatewayCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.made = harness.scratch("certificate")
        cls.gw.cli("init", os.path.join(cls.made, "new"))

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.made)

    def shown(self, port, startup=False):
        """The certificate that a listener shows, in DER."""
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", port), timeout=harness.PATIENCE) as s:
            if startup:
                s.sendall(struct.pack("!II", 8, 80877103))
                self.assertEqual(s.recv(1), b"S")
            with ctx.wrap_socket(s) as t:
                return t.getpeercert(binary_form=True)

    def both(self):
        return self.shown(self.gw.port, startup=True), self.shown(self.gw.api_port)

    def put(self, **files):
        for name, content in files.items():
            with open(os.path.join(self.gw.home, name.replace("_", ".")), "wb") as f:
                f.write(content)

    def read(self, folder):
        return {n.replace(".", "_"): open(os.path.join(folder, n), "rb").read() for n in FILES}

    def test_a_new_one_is_shown_and_old_sessions_go_on(self):
        kept, new = self.read(self.gw.home), self.read(os.path.join(self.made, "new"))
        want = ssl.PEM_cert_to_DER_cert(new["tls_crt"].decode())
        before = self.both()
        self.assertNotIn(want, before)
        w = Wire(self.gw.port, self.gw.ca, timeout=harness.PATIENCE)
        self.addCleanup(w.close)
        w.login("bot", self.gw.tokens["bot"], self.name)
        try:
            self.put(**new)
            self.gw.cli("reload")
            self.assertEqual(self.both(), (want, want))
            self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")
        finally:
            self.put(**kept)
            self.gw.cli("reload")
        self.assertEqual(self.both(), before)
        self.assertEqual(kinds(w.ask(query("select 1"))), "TDCZ")

    def test_files_that_do_not_fit_change_nothing(self):
        kept, new = self.read(self.gw.home), self.read(os.path.join(self.made, "new"))
        before = self.both()
        broken = kept["tls_crt"].replace(b"A", b"B", 3)
        cut = kept["tls_crt"][:len(kept["tls_crt"]) // 2]
        for files in ({"tls_crt": new["tls_crt"]}, {"tls_key": new["tls_key"]}, {"tls_crt": b""}, {"tls_crt": broken},
                      {"tls_crt": cut}, {"tls_key": b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n"}):
            try:
                self.put(**files)
                r = self.gw.cli("reload", ok=False)
                self.assertNotEqual(r.returncode, 0, files.keys())
                self.assertEqual(self.both(), before)
            finally:
                self.put(**kept)
        self.gw.cli("reload")
        self.assertEqual(self.gw.psql("bot", self.name, "select 1").stdout, "1\n")


if __name__ == "__main__":
    unittest.main()
