"""The clients of the driver matrix: name, program, what builds it, and which steps its interface does not have."""
import os
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

    def prepare(self, out):
        """What has to be built, into the folder `out`."""

    def wanted(self):
        only = os.environ.get("COUNTERSIGN_DRIVERS", "")
        return not self.extra if not only else only == "all" or self.key in only.split(",")


def python(name, file, package, lacks=None):
    return Client(name, [PYTHON, file], package, lacks)


class Libpq(Client):
    def prepare(self, out):
        self.argv = [os.path.join(out, "pipeline")]
        subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-I/usr/include/postgresql", os.path.join(HERE, "pipeline.c"), "-lpq", "-o", self.argv[0]], check=True)


CLIENTS = [
    python("psql", "d_psql.py", "postgresql-client-15"),
    Libpq("libpq, pipeline mode", [], "libpq5", {"copy": "no COPY in a pipeline"}),
    python("psycopg2", "d_psycopg2.py", "python3-psycopg2"),
    python("psycopg 3", "d_psycopg3.py", "python3-psycopg"),
    python("psycopg 3, pipeline mode", "d_psycopg3_pipeline.py", "python3-psycopg", {"copy": "no COPY in a pipeline"}),
    python("asyncpg", "d_asyncpg.py", "python3-asyncpg"),
    python("SQLAlchemy", "d_sqlalchemy.py", "python3-sqlalchemy"),
    python("Django ORM", "d_django.py", "python3-django"),
    python("pgbench, all modes", "d_pgbench.py", "postgresql-15", {"copy": "—", "cancel": "—", "not_yet": "—"}),
    python("pg_dump, pg_restore", "d_pg_dump.py", "postgresql-client-15", {s: "—" for s in ("prepared", "transaction", "cancel", "hold", "hold_20_s", "denied", "not_yet")}),
]
