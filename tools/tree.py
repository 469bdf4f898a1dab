"""What the build files say about the tree: the layer table, the programs, the .def tables. Read by the
linters and by gen-docs, so that each fact stands in one place only."""
import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Names(dict):
    """Names of a meson expression; an unknown one stands for itself."""

    def __missing__(self, key):
        return key


def _assignments(text, wanted):
    """Evaluates `name = expression` (lists, strings, +) of a meson file, for the wanted names in order."""
    names = Names()
    for name in wanted:
        m = re.search(r"^%s = (.*?)(?=^\S|\Z)" % re.escape(name), text, re.M | re.S)
        if m is None:
            raise SystemExit("no `%s = …` in the build files any more: tools/tree.py must learn the new shape" % name)
        expression = m.group(1)
        if expression.lstrip().startswith("["):  # the closing bracket may stand in the first column
            expression = text[m.start(1):text.index("\n]", m.start(1)) + 2] if "\n" in expression.rstrip() else expression
        names[name] = eval(expression, {"__builtins__": {}}, names)
    return names


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def layers():
    """[(folder, [folders it may see], [outside libraries])], in the build's order."""
    return [tuple(row) for row in _assignments(read("meson.build"), ["core", "layers"])["layers"]]


def programs():
    """[(program, [folders], [outside libraries])]."""
    top = _assignments(read("meson.build"), ["core"])
    text = "core = %r\n" % top["core"] + read("src/programs/meson.build")
    return [tuple(row) for row in _assignments(text, ["core", "gate_side", "control_side", "programs"])["programs"]]


def folder_of(path, folders):
    """The layer that a path below src belongs to; None for none."""
    best = None
    for f in folders:
        if path.startswith(f + "/") and (best is None or len(f) > len(best)):
            best = f
    return best


def files(*patterns):
    """Tracked files and new ones that are not ignored, that exist."""
    out = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns], cwd=ROOT,
                         capture_output=True, text=True, check=True).stdout.split("\n")
    return [f for f in out if f and os.path.isfile(os.path.join(ROOT, f))]


def strip_comments(text):
    """C text without comments; line numbers stay. Literals are left alone."""
    token = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return token.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)) if m.group(0).startswith("/") else m.group(0), text)


def strip_literals(text):
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)


_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


def table(path, macro):
    """Rows of a .def file: for each MACRO(a, b, "c" "d") the list of its arguments, strings unquoted."""
    text = strip_comments(read(path))
    text = re.sub(r"^#.*(\\\n.*)*$", "", text, flags=re.M)  # directives are not rows
    rows = []
    for m in re.finditer(r"^%s\(" % re.escape(macro), text, re.M):
        args, current, depth, i, was_string = [], "", 1, m.end(), False
        while depth > 0:
            c = text[i]
            if c == '"':
                literal = re.compile(r'"((?:\\.|[^"\\])*)"').match(text, i)
                current += re.sub(r"\\(.)", lambda e: _ESCAPES.get(e.group(1), e.group(1)), literal.group(1))
                was_string = True
                i = literal.end()
                continue
            depth += (c == "(") - (c == ")")
            if depth == 0 or (c == "," and depth == 1):
                args.append(current if was_string else current.strip())
                current, was_string = "", False
            elif not (was_string and c.isspace()):
                if not (current == "" and c.isspace()):
                    current += c
            i += 1
        rows.append(args)
    return rows
