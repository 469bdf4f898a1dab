"""Reads NAME.expected, the differences that are justified; used by check.py and tools/gen-docs. A line `= KEY: sentence` is a reason,
`TEST<tab>KEY` a test that ends otherwise through the gateway, and why; # begins a comment."""


def read(path):
    """Reasons by key, and reason's key by test; ValueError for a line that is neither, twice there, or without a reason."""
    reasons, tests = {}, {}
    with open(path, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            if line.startswith("= "):
                into, (key, _, value) = reasons, line[2:].partition(": ")
            else:
                into, (key, _, value) = tests, line.partition("\t")
            if not value or key in into or (into is tests and value not in reasons):
                raise ValueError("%s:%d: %s" % (path, number, line))
            into[key] = value
    unused = set(reasons) - set(tests.values())
    if unused:
        raise ValueError("%s: reasons of nothing: %s" % (path, ", ".join(sorted(unused))))
    return reasons, tests
