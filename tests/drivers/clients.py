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


class Fetched(Client):
    """From a registry, in the version that stands here and in its manifest; built once for the build folder."""

    def __init__(self, name, release, lacks=None):
        super().__init__(name, [], "", lacks, extra=True)
        self.release = release
        self.kept = os.path.join(os.environ.get("COUNTERSIGN_BUILD", "build"), "drivers", self.key)

    def version(self):
        return self.release

    def needs(self):
        return [os.path.join(self.kept, "ready")]

    def fetch(self):
        """Why it could not, or None."""
        os.makedirs(self.kept, exist_ok=True)
        try:
            why = self.get()
        except subprocess.TimeoutExpired:
            why = "it took longer than ten minutes"
        if why is None:
            open(self.needs()[0], "w").close()
        elif os.path.exists(self.needs()[0]):
            os.unlink(self.needs()[0])
        return why

    def call(self, *argv, **env):
        """Why the call failed, or None."""
        if shutil.which(argv[0]) is None:
            return "there is no " + argv[0]
        r = subprocess.run(argv, cwd=self.kept, env=dict(os.environ, **env), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
        return None if r.returncode == 0 else "%s failed: %s" % (" ".join(argv[:2]), " ".join((r.stderr or r.stdout).split())[:300])


class JdbcNewest(Fetched):
    def jar(self):
        return os.path.join(self.kept, "postgresql-%s.jar" % self.release)

    def get(self):
        if os.path.exists(self.jar()):
            return None
        return self.call("mvn", "-q", "-B", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
                         "-Dartifact=org.postgresql:postgresql:" + self.release, "-DoutputDirectory=" + self.kept)

    def prepare(self, out):
        out = os.path.join(out, self.key)
        subprocess.run(["javac", "-cp", self.jar(), "-d", out, os.path.join(HERE, "Jdbc.java")], check=True)
        self.argv = ["java", "-cp", out + ":" + self.jar(), "Jdbc"]


class PgxFive(Fetched):
    """The program of pgx v4 with the names of version 5."""

    def get(self):
        for name in ("go.mod", "go.sum"):
            shutil.copy(os.path.join(HERE, "pgx5", name), self.kept)
        with open(os.path.join(HERE, "pgx", "main.go")) as f:
            text = f.read()
        with open(os.path.join(self.kept, "main.go"), "w") as f:
            f.write(text.replace("github.com/jackc/pgconn", "github.com/jackc/pgx/v5/pgconn").replace("github.com/jackc/pgx/v4", "github.com/jackc/pgx/v5"))
        return self.call("go", "build", "-o", "program", ".", GOFLAGS="-mod=readonly", GO111MODULE="on", GOTOOLCHAIN="local")

    def prepare(self, out):
        self.argv = [os.path.join(self.kept, "program")]


class Sqlx(Fetched):
    def get(self):
        shutil.copytree(os.path.join(HERE, "sqlx"), self.kept, dirs_exist_ok=True)
        return self.call("cargo", "build", "--quiet")

    def prepare(self, out):
        self.argv = [os.path.join(self.kept, "target", "debug", "sqlx-driver")]


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
    JdbcNewest("pgjdbc, newest", "42.7.14"),
    PgxFive("pgx v5", "5.12.0"),
    Sqlx("sqlx", "0.8.6", {"cancel": "no cancel in its interface"}),
    python("pgbench, all modes", "d_pgbench.py", "postgresql-15", {"copy": "—", "cancel": "—", "not_yet": "—"}),
    python("pg_dump, pg_restore", "d_pg_dump.py", "postgresql-client-15", {s: "—" for s in ("prepared", "transaction", "cancel", "hold", "hold_20_s", "denied", "not_yet")}),
]
