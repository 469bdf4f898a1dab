#!/usr/bin/env python3
"""Functions and words that must not stand in the tree. One table of rules; an exception names its files
and its reason, in the same table."""
import re
import sys

import tree

CALL = r"(?<![\w.>])(?:%s)\s*\("  # a call, not a member nor the end of a longer name

# rule, pattern on the code without comments and literals, files it covers, {file or folder: why it may}
C_RULES = [
    ("function that knows no bound", CALL % "strcpy|stpcpy|strcat|strlcat|sprintf|vsprintf|strtok|strtok_r|gets|alloca",
     ("src/", "tests/", "fuzz/", "bench/"), {}),
    ("function that hides errors or memory", CALL % "strncat|strncpy|sscanf|scanf|fscanf|atoi|atol|atoll|atof|strdup|strndup|asprintf|vasprintf",
     ("src/",), {}),
    ("memory outside base/alloc.h", CALL % "malloc|calloc|realloc|reallocarray|free|posix_memalign|aligned_alloc|memalign", ("src/",), {
        "src/base/alloc.c": "is base/alloc.h",
        "src/programs/job-compile.c": "realpath() allocates its result itself",
    }),
    ("socket input or output outside src/runtime and src/ipc", CALL % "recv|recvfrom|recvmsg|recvmmsg|send|sendto|sendmsg|sendmmsg|socket|"
     "connect|accept|accept4", ("src/",), {
         "src/runtime/": "is the socket layer",
         "src/ipc/": "is the message layer between roles",
         "src/cli/connection.c": "the commands' own blocking client: a program without a loop, which is no role",
         "src/roles/serve.c": "one datagram to the service manager (NOTIFY_SOCKET)",
         "src/roles/job.c": "one message of a job with its descriptor, before it is anybody's channel",
         "src/programs/": "a job's one message to the supervisor: job-compile and job-replayer have no loop",
     }),
    ("files, processes or dialling in a role that must not have them", CALL % "open|openat|creat|fopen|fdopen|popen|system|fork|vfork|execve|execv|"
     "execvp|posix_spawn|socket|connect|getaddrinfo|getenv|unlink|rename|dlopen",
     ("src/gate/", "src/proto/", "src/policy/", "src/sql/", "src/action/", "src/wire/", "src/front/", "src/approval/", "src/identity/"), {}),
    ("printing in library code", CALL % "printf|fprintf|vfprintf|puts|fputs|fputc|putc|putchar|perror|fwrite", ("src/",), {
        "src/cli/": "commands print",
        "src/roles/serve.c": "serve tells whoever started it",
        "src/roles/programs.c": "the same, of programs that are missing",
        "src/roles/users.c": "the same, of users",
        "src/roles/listen.c": "the same, of an address that cannot be opened",
        "src/programs/": "said when started by hand and wrongly",
    }),
    ("`..` in an include", r'#\s*include\s+"[^"]*\.\.', ("src/", "tests/", "fuzz/", "bench/"), {}),
    ("assert.h: switched off in some builds (base/assert.h stays on)", r"#\s*include\s+<assert\.h>", ("src/",), {}),
]
RAW_RULES = [
    ("unfinished business", r"\b(TODO|FIXME|XXX|HACK)\b", ("src/", "tools/", "tests/", "examples/", "fuzz/", "bench/"), {"tools/lint-words.py": "this table"}),
    ("a path of a development machine", r"(?<![\w.-])/(?:home/[a-z]|root/|work/|Users/|tmp/(?:build|work))",
     ("",), {"tools/lint-words.py": "this table", "fuzz/corpus/": "seeds are bytes"}),
]


def exempt(path, allowed):
    return any(path == a or (a.endswith("/") and path.startswith(a)) for a in allowed)


def main():
    found = []
    used = set()
    for path in tree.files():
        covered = lambda folders: any(path.startswith(f) for f in folders)
        try:
            text = tree.read(path)
        except UnicodeDecodeError:
            continue  # a seed of a fuzz harness
        is_c = path.endswith((".c", ".h"))
        code = None
        for rules, plain in ((C_RULES, False), (RAW_RULES, True)):
            for what, pattern, folders, allowed in rules:
                if not covered(folders) or (not plain and not is_c):
                    continue
                if not plain and code is None:
                    code = tree.strip_comments(text)
                body = text if plain else (code if "include" in pattern else tree.strip_literals(code))
                for m in re.finditer(pattern, body):
                    if exempt(path, allowed):
                        used.update((what, a) for a in allowed if exempt(path, [a]))
                        continue
                    line = body.count("\n", 0, m.start()) + 1
                    found.append("%s:%d: %s: %s" % (path, line, what, m.group(0).strip().rstrip("( ")))
    for line in sorted(set(found)):
        print(line)
    for what, _, _, allowed in C_RULES:
        for a in allowed:
            if (what, a) not in used:
                print("tools/lint-words.py: the exception of %s from `%s` is not needed any more: take it out" % (a, what))
                found.append(a)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
