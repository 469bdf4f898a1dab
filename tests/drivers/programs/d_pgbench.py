"""pgbench in its three modes and with a pipeline; the steps of steps.py that it can do."""
import re
import subprocess
import sys
import tempfile

import steps

PROGRAM = "/usr/lib/postgresql/15/bin/pgbench"


def pgbench(script, *args, transactions=20, status=0):
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as f:
        f.write(script)
        f.flush()
        r = subprocess.run([PROGRAM, "-n", "-c", "2", "-t", str(transactions), "-f", f.name, *args], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
    steps.check("exit status of pgbench (%s)" % r.stdout, r.returncode, status)
    return r.stdout


def processed(text, n):
    found = re.search(r"number of transactions actually processed: (\d+)/", text)
    steps.check("transactions (%s)" % text, found and int(found[1]), n)


def modes(script):
    for mode in ("simple", "extended", "prepared"):
        processed(pgbench(script, "-M", mode), 40)


def tls():
    modes("\\set i random(1, 10)\n%s:i;\n" % steps.SELECT)


def prepared():
    pipelined = "\\startpipeline\n%s3;\n%s4;\n\\endpipeline\n" % (steps.SELECT, steps.SELECT)
    processed(pgbench(pipelined, "-M", "extended"), 40)
    processed(pgbench("\\set i random(1, 10)\n" + pipelined, "-M", "prepared"), 40)


def transaction():
    modes("begin;\n%s(%d);\n%s5;\nend;\n" % (steps.INSERT, steps.NUMBER, steps.SELECT))


def hold():
    processed(pgbench(steps.UPDATE + "3;\n", "-M", "prepared", "-c", "1", transactions=1), 1)


def denied():
    text = pgbench("begin;\n%s(%d);\n%s4;\nend;\n" % (steps.INSERT, steps.NUMBER, steps.UPDATE), "-c", "1", transactions=1, status=2)
    if "Countersign denied this" not in text:
        sys.exit(text)


if __name__ == "__main__":
    {f.__name__: f for f in (tls, prepared, transaction, hold, denied)}[sys.argv[1]]()
