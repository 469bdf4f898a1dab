"""The clients of the driver matrix: name, program, what builds it, and which steps its interface does not have."""
import json
import os
import shutil
import subprocess

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs")
PYTHON = "/usr/bin/python3"


def debian(package):
    """Version of a Debian package, without Debian's own part."""
    r = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True)
    return r.stdout.split(":")[-1].split("-")[0].split("+")[0]


class Client:
    def __init__(self, name, argv, package, lacks=None, extra=False):
        self.name, self.argv, self.package, self.lacks, self.extra = name, argv, package, lacks or {}, extra
        self.key = "".join(c if c.isalnum() else "_" for c in name.lower())

    def version(self):
        return debian(self.package)

    def needs(self):
        """Files without which it cannot be built."""
        return []

    def prepare(self, out):
        """What has to be built, into the folder `out`."""

    def wanted(self):
        """COUNTERSIGN_DRIVERS: keys of clients, or the word extra: all that need a tool chain of their own and are here."""
        only = os.environ.get("COUNTERSIGN_DRIVERS", "")
        if only == "extra":
            return self.extra and not self.missing()
        return self.key in only.split(",") if only else not self.extra

    def missing(self):
        return [f for f in self.needs() if not os.path.exists(f)]


def python(name, file, package, lacks=None):
    return Client(name, [PYTHON, file], package, lacks)


class Libpq(Client):
    def prepare(self, out):
        self.argv = [os.path.join(out, "pipeline")]
        subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-I/usr/include/postgresql", os.path.join(HERE, "pipeline.c"), "-lpq", "-o", self.argv[0]], check=True)


class Jdbc(Client):
    JAR = "/usr/share/java/postgresql.jar"

    def needs(self):
        return [self.JAR, "/usr/bin/javac"]

    def prepare(self, out):
        subprocess.run(["/usr/bin/javac", "-cp", self.JAR, "-d", out, os.path.join(HERE, "Jdbc.java")], check=True)
        self.argv = ["/usr/bin/java", "-cp", out + ":" + self.JAR, "Jdbc"]


class Pgx(Client):
    def needs(self):
        return ["/usr/bin/go", "/usr/share/gocode/src/github.com/jackc/pgx"]

    def prepare(self, out):
        self.argv = [os.path.join(out, "pgx")]
        env = dict(os.environ, GO111MODULE="off", GOPATH="/usr/share/gocode", GOCACHE=os.path.join(out, "gocache"), GOTOOLCHAIN="local", GOFLAGS="")
        subprocess.run(["/usr/bin/go", "build", "-o", self.argv[0], "main.go"], check=True, env=env, cwd=os.path.join(HERE, "pgx"))


class Tokio(Client):
    CRATES = "/usr/share/cargo/registry"

    def needs(self):
        return ["/usr/bin/cargo", "/usr/bin/rustc", self.CRATES]

    def prepare(self, out):
        """With Debian's crates and nothing from elsewhere. Built once for the build folder: it takes a minute."""
        kept = os.path.join(os.environ["COUNTERSIGN_BUILD"], "drivers", "tokio")
        shutil.copytree(os.path.join(HERE, "tokio"), kept, dirs_exist_ok=True)
        os.makedirs(os.path.join(kept, ".cargo"), exist_ok=True)
        with open(os.path.join(kept, ".cargo", "config.toml"), "w") as f:
            f.write('[source.crates-io]\nreplace-with = "debian"\n[source.debian]\ndirectory = "%s"\n' % self.CRATES)
        subprocess.run(["/usr/bin/cargo", "build", "--offline", "--quiet"], check=True, env=dict(os.environ, RUSTC="/usr/bin/rustc"), cwd=kept)
        self.argv = [os.path.join(kept, "target", "debug", "tokio-driver")]


class Node(Client):
    """From npm, in the versions of programs/node/package.json."""

    def needs(self):
        return [os.path.join(self.modules(), "pg", "package.json")]

    def modules(self):
        return os.path.join(os.environ.get("COUNTERSIGN_BUILD", "build"), "drivers", "node", "node_modules")

    def version(self):
        with open(os.path.join(self.modules(), "pg", "package.json")) as f:
            return json.load(f)["version"]

    def fetch(self):
        """Why it could not, or None."""
        where = os.path.dirname(self.modules())
        os.makedirs(where, exist_ok=True)
        for name in ("package.json", "node.js"):
            shutil.copy(os.path.join(HERE, "node", name), where)
        if os.path.exists(self.needs()[0]):
            return None
        if shutil.which("npm") is None:
            return "there is no npm"
        r = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"], cwd=where, capture_output=True, text=True)
        return None if r.returncode == 0 else "npm install failed: " + r.stderr.strip()[-300:]

    def prepare(self, out):
        self.argv = ["node", os.path.join(os.path.dirname(self.modules()), "node.js")]


CLIENTS = [
    python("psql", "d_psql.py", "postgresql-client-15"),
    Libpq("libpq, pipeline mode", [], "libpq5", {"copy": "no COPY in a pipeline"}),
    python("psycopg2", "d_psycopg2.py", "python3-psycopg2"),
    python("psycopg 3", "d_psycopg3.py", "python3-psycopg"),
    python("psycopg 3, pipeline mode", "d_psycopg3_pipeline.py", "python3-psycopg", {"copy": "no COPY in a pipeline"}),
    python("asyncpg", "d_asyncpg.py", "python3-asyncpg"),
    python("SQLAlchemy", "d_sqlalchemy.py", "python3-sqlalchemy"),
    python("Django ORM", "d_django.py", "python3-django"),
    Jdbc("pgjdbc", [], "libpostgresql-jdbc-java", extra=True),
    Pgx("pgx v4", [], "golang-github-jackc-pgx-v4-dev", extra=True),
    Tokio("tokio-postgres", [], "librust-tokio-postgres-dev", extra=True),
    Node("node-postgres", [], "", extra=True),
    python("pgbench, all modes", "d_pgbench.py", "postgresql-15", {"copy": "—", "cancel": "—", "not_yet": "—"}),
    python("pg_dump, pg_restore", "d_pg_dump.py", "postgresql-client-15", {s: "—" for s in ("prepared", "transaction", "cancel", "hold", "hold_20_s", "denied", "not_yet")}),
]
