"""Authorities and certificates for tests, made by the openssl command in a folder of the test's own."""
import os
import subprocess


class Authority:
    """A root, or with `parent` an intermediate authority."""

    def __init__(self, directory, name, parent=None, key="ec"):
        self.directory, self.name, self.parent = directory, name, parent
        self.cert, self.key = self.path(name + ".crt"), self.path(name + ".key")
        self.leaves = 0
        make_key(self.key, key)
        extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"
        sign(self, self.cert, self.key, "/O=Test/CN=" + name, extensions, by=parent)

    def path(self, name):
        return os.path.join(self.directory, name)

    def leaf(self, san="", usage="clientAuth", days=(-1, 30), key="ec", subject="/O=Test/CN=client", more=""):
        """(certificate with its chain, key) as paths. `san` as openssl has it: "email:bot@example.com,URI:x:y". `days`: from, to."""
        self.leaves += 1
        base = self.path("%s-%d" % (self.name, self.leaves))
        make_key(base + ".key", key)
        extensions = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n" + more
        extensions += "extendedKeyUsage=%s\n" % usage if usage else ""
        extensions += "subjectAltName=%s\n" % san if san else ""
        sign(self, base + ".crt", base + ".key", subject, extensions, by=self, days=days)
        if self.parent:
            with open(base + ".crt", "ab") as out, open(self.cert, "rb") as chain:
                out.write(chain.read())
        os.chmod(base + ".key", 0o600)
        return base + ".crt", base + ".key"


def openssl(*argv):
    subprocess.run(["openssl", *argv], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def make_key(path, kind):
    how = {"ec": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "ec384": ["EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
           "rsa": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], "ed25519": ["ED25519"]}[kind]
    openssl("genpkey", "-algorithm", *how, "-out", path)


def sign(authority, cert, key, subject, extensions, by, days=(-1, 30)):
    """A certificate for the key, signed by an authority or, without one, by itself; valid from and to as days from now."""
    import datetime
    when = [(datetime.datetime.utcnow() + datetime.timedelta(days=d)).strftime("%Y%m%d%H%M%SZ") for d in days]
    work = cert + ".d"
    os.mkdir(work)
    request, config = os.path.join(work, "request"), os.path.join(work, "config")
    with open(config, "w") as f:
        f.write("[ca]\ndefault_ca=d\n[d]\ndatabase=%s/index\nnew_certs_dir=%s\nrand_serial=yes\ndefault_md=sha256\npolicy=p\n"
                "unique_subject=no\nemail_in_dn=no\n[p]\nO=optional\nCN=optional\n[x]\n%s" % (work, work, extensions))
    open(os.path.join(work, "index"), "w").close()
    openssl("req", "-new", "-key", key, "-subj", subject, "-out", request, "-config", "/dev/null")
    signer = ["-selfsign", "-keyfile", key] if by is None else ["-cert", by.cert, "-keyfile", by.key]
    openssl("ca", "-batch", "-notext", "-config", config, "-extensions", "x", "-in", request, "-out", cert,
            "-startdate", when[0], "-enddate", when[1], *signer)
