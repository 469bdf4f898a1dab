"""pg_dump and pg_restore, as far as rules let an agent go: reading everything is free, writing one table too."""
import os
import subprocess
import sys
import tempfile

import steps

BIN = "/usr/lib/postgresql/15/bin/"


def run(*argv, status=0):
    r = subprocess.run([BIN + argv[0], *argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    steps.check("exit status of %s (%s)" % (argv[0], r.stderr), r.returncode, status)
    return r


def tls():
    text = run("pg_dump", "-t", "scratchpad", "-t", steps.TABLE).stdout
    for words in ("CREATE TABLE public.scratchpad", "CREATE TABLE public.%s" % steps.TABLE, "COPY public.%s (id, note) FROM stdin;\n1\trow\n" % steps.TABLE):
        if words not in text:
            sys.exit("%r is not in %r" % (words, text))


def copy():
    """Out with pg_dump, in with pg_restore."""
    with tempfile.TemporaryDirectory() as d:
        dump = os.path.join(d, "dump")
        run("pg_dump", "-Fc", "-f", dump, "-t", "scratchpad")
        run("pg_restore", "--data-only", "-t", "scratchpad", "-d", os.environ["PGDATABASE"], dump)


if __name__ == "__main__":
    {f.__name__: f for f in (tls, copy)}[sys.argv[1]]()
