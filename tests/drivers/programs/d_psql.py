"""psql, by scripts; the steps of steps.py."""
import os
import signal
import subprocess
import sys
import tempfile
import time

import steps

ARGV = ["psql", "-XAtq", "-v", "VERBOSITY=verbose"]


def psql(script, status=0):
    """Output and errors together of a script that goes on behind an error."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as f:
        f.write(script)
        f.flush()
        r = subprocess.run([*ARGV, "-f", f.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    steps.check("exit status of psql (%s)" % r.stdout, r.returncode, status)
    return r.stdout


def output(script, wanted):
    steps.check(script, psql(script), wanted)


def has(text, *words):
    for w in words:
        if w not in text:
            sys.exit("%r is not in %r" % (w, text))


def tls():
    has(psql("\\conninfo\n"), "SSL connection (protocol: TLSv1.3")
    has(psql("\\d scratchpad\n\\dt\n\\l\n"), "n|integer", "scratchpad", os.environ["PGDATABASE"])  # what people type first


def prepared():
    output("prepare one (int) as %s$1;\n" % steps.SELECT + "execute one(1);\nexecute one(2);\ndeallocate one;\n"
           "select 1 as x, 'a' as y \\gdesc\n", "row\nrow\nx|integer\ny|text\n")


def transaction():
    n = "(%d);\n" % steps.NUMBER
    output("begin;\n" + steps.INSERT + n + steps.COUNT + ";\nrollback;\n" + steps.COUNT + ";\nbegin;\n" + steps.INSERT + n +
           "commit;\n" + steps.COUNT + ";\n", "1\n0\n1\n")


def copy():
    rows = "%d\n" % steps.NUMBER * 1000
    output("copy scratchpad from stdin;\n" + rows + "\\.\n\\%s\n" % steps.COPY_OUT, rows)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as f:
        f.write(rows)
        f.flush()
        output("\\copy scratchpad from '%s'\n%s;\n" % (f.name, steps.COUNT), "2000\n")


def cancel():
    """Control-C at the prompt."""
    p = subprocess.Popen(ARGV, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    p.stdin.write("select 'ready';\n" + steps.LONG + ";\n")
    p.stdin.flush()
    steps.check("ready", p.stdout.readline(), "ready\n")
    time.sleep(1)
    p.send_signal(signal.SIGINT)
    has(p.stdout.readline() + p.stdout.readline(), "57014")


def hold():
    has(psql("%s3;\n" % steps.UPDATE + "%s3;\n" % steps.SELECT), "COUNTERSIGN held id=", "WARNING", "by driver\n")


def denied():
    text = psql("%s;\nbegin;\n" % steps.TRUNCATE + steps.INSERT + "(%d);\n" % steps.NUMBER + steps.UPDATE + "4;\nselect 1;\nrollback;\n" +
                steps.COUNT + ";\n")
    has(text, "never-truncate", "ERROR:  42501: Countersign denied this", "not on a Friday", "25P02")
    steps.check("what stood before", text.split("\n")[-2:], ["0", ""])


def not_yet():
    text = psql(steps.UPDATE + "5;\n" + steps.SELECT + "5;\n")
    has(text, "ERROR:  CS001", "DETAIL:  COUNTERSIGN held id=", "state=pending", "\nrow\n")


def again():
    output("\\unset QUIET\n%s5;\n" % steps.UPDATE, "UPDATE 1\n")


if __name__ == "__main__":
    {f.__name__: f for f in (tls, prepared, transaction, copy, cancel, hold, denied, not_yet, again)}[sys.argv[1]]()
