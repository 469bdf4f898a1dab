"""Every command and every configuration in README.md and docs/*.md is run as it stands.

The kind of a fenced block says what happens to it:
  ```sh            run. All of a file's blocks are one shell script (bash -euE), in an empty directory,
                   with the build's programs in PATH and psql's variables (PGHOST, PGPORT, PGUSER,
                   PGPASSWORD) set for a superuser of a scratch PostgreSQL.
  ```yaml FILE     written to FILE at that point of the script.
  ```yaml          a whole configuration: job-compile must accept it.
  ```console, text, c, sql   shown only, never run.
Any other kind, or none, is an error, so that nothing goes untested by mistake.

In what is run the port 5432 stands for the scratch server's, 7432, 7443 and 7469 for free ones.
A failing line is reported as FILE:LINE. `make` stands in console blocks only: no recursion.
"""
import os
import re
import signal
import subprocess
import tempfile
import unittest

import harness

SHOWN = {"console", "text", "c", "sql"}
FENCE = re.compile(r"^```(\S*)(?: +(\S+))?\s*$")
TIME = 300


def documents():
    docs = os.path.join(harness.ROOT, "docs")
    return [os.path.join(harness.ROOT, "README.md")] + sorted(os.path.join(docs, n) for n in os.listdir(docs) if n.endswith(".md"))


def blocks(path):
    """(kind, file name or None, line of the opening fence from 0, [lines]) in order."""
    found, kind = [], None
    with open(path, encoding="utf-8") as f:
        for n, line in enumerate(f.read().split("\n")):
            m = FENCE.match(line)
            if kind is None and line.startswith("```"):
                assert m, "%s:%d: what kind of block is this?" % (path, n + 1)
                kind, name, start, body = m.group(1), m.group(2), n, []
            elif kind is not None and line == "```":
                found.append((kind, name, start, body))
                kind = None
            elif kind is not None:
                body.append(line)
    assert kind is None, "%s:%d: the block does not end" % (path, start + 1)
    return found


def script(path, ports):
    """The file's script: line N of the script is line N of the document, so that bash's line numbers fit."""
    with open(path, encoding="utf-8") as f:
        lines = [""] * (len(f.read().split("\n")) + 1)
    lines[0] = "set -euE; trap 'echo \"%s:$LINENO: failed: $BASH_COMMAND\" >&2' ERR" % os.path.relpath(path, harness.ROOT)
    for kind, name, start, body in blocks(path):
        if kind == "sh":
            lines[start + 1:start + 1 + len(body)] = body
        elif kind == "yaml" and name:
            lines[start:start + 2 + len(body)] = ["cat >'%s' <<'END_OF_BLOCK'" % name, *body, "END_OF_BLOCK"]
    text = "\n".join(lines)
    for old, new in ports.items():
        text = re.sub(r"\b%s\b" % old, str(new), text)
    return text


class Docs(unittest.TestCase):
    def environment(self, **more):
        env = {k: v for k, v in os.environ.items() if not k.startswith(("COUNTERSIGN_", "PG"))}
        env.update(PATH=os.path.join(harness.BUILD, "src", "programs") + ":" + env["PATH"], LC_ALL="C.UTF-8", **more)
        return env

    def test_every_block_is_of_a_known_kind(self):
        for path in documents():
            for kind, _, start, body in blocks(path):
                where = "%s:%d" % (os.path.relpath(path, harness.ROOT), start + 1)
                self.assertIn(kind, SHOWN | {"sh", "yaml"}, where)
                if kind == "sh":
                    self.assertFalse(any(re.match(r"\s*make\b", l) for l in body), where + ": make belongs into a console block")

    def test_commands_run_as_they_stand(self):
        ran = 0
        for path in documents():
            if not any(kind == "sh" for kind, _, _, _ in blocks(path)):
                continue
            with self.subTest(os.path.relpath(path, harness.ROOT)):
                self.run_script(path)
                ran += 1
        self.assertGreater(ran, 0)

    def run_script(self, path):
        pg = harness.shared_postgres()
        ports = {"5432": pg.port, "7432": harness.free_port(), "7443": harness.free_port(), "7469": harness.free_port()}
        with tempfile.TemporaryDirectory(prefix="countersign-docs-") as work:
            os.chmod(work, 0o755)
            out = os.path.join(work, ".output")
            here = os.path.join(work, "here")
            os.mkdir(here)
            env = self.environment(PGHOST="127.0.0.1", PGPORT=str(pg.port), PGUSER=pg.superuser, PGPASSWORD=pg.password,
                                   PGDATABASE="postgres", HOME=here)
            with open(os.path.join(work, "script"), "w") as f:
                f.write(script(path, ports))
            with open(out, "wb") as f:
                p = subprocess.Popen(["bash", os.path.join(work, "script")], cwd=here, env=env, stdin=subprocess.DEVNULL,
                                     stdout=f, stderr=f, start_new_session=True)
            try:
                status = p.wait(TIME)
            except subprocess.TimeoutExpired:
                status = "no end after %d seconds" % TIME
            finally:
                try:
                    os.killpg(p.pid, signal.SIGTERM)  # what it left in the background
                except ProcessLookupError:
                    pass
                p.poll()
            with open(out, encoding="utf-8", errors="replace") as f:
                text = f.read()
            logs = ""
            for base, _, names in os.walk(here):
                for n in names:
                    if n.endswith(".log"):
                        with open(os.path.join(base, n), encoding="utf-8", errors="replace") as f:
                            logs += "---- %s\n%s" % (n, f.read()[-3000:])
            if os.environ.get("COUNTERSIGN_DOCS_SHOW"):
                print(text)
            self.assertEqual(status, 0, text[-6000:] + logs)

    def test_configurations_are_valid(self):
        seen = 0
        for path in documents():
            for kind, _, start, body in blocks(path):
                if kind != "yaml":
                    continue
                seen += 1
                with tempfile.TemporaryDirectory(prefix="countersign-docs-") as work:
                    self.compile(work, "\n".join(body) + "\n", "%s:%d" % (os.path.relpath(path, harness.ROOT), start + 1))
        self.assertGreater(seen, 0)

    def compile(self, work, text, where):
        # init makes the certificate that the configuration may name; the file itself is replaced.
        home = os.path.join(work, "home")
        env = self.environment()
        subprocess.run(["countersign", "init", home], env=env, check=True, stdout=subprocess.DEVNULL)
        with open(os.path.join(home, "countersign.yaml"), "w") as f:
            f.write(text)
        r = subprocess.run(["job-compile", os.path.join(home, "countersign.yaml")], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertEqual(r.returncode, 0, where + "\n" + r.stdout + r.stderr)
        self.assertNotIn("error:", r.stdout, where)


if __name__ == "__main__":
    unittest.main()
