#!/bin/sh
# layers.sh BUILD: the layer table is enforced by include paths. Compiles a file with exactly the flags
# of a real one of src/base: an include of its own folder must compile, an include of gate must not be
# found. The same for a protocol folder, which must not see policy, store or record.
set -eu
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
n=0 bad=0

# flags FILE: the command line of FILE in compile_commands.json, without its input, output and dependencies
flags() {
    /usr/bin/python3 - "$build/compile_commands.json" "$1" <<'PY'
import json, shlex, sys
for c in json.load(open(sys.argv[1])):
    if c["file"].endswith(sys.argv[2]) and "/tests/" not in c.get("output", "").replace("\\", "/"):
        words = shlex.split(c["command"])
        out, skip = [], False
        for w in words[1:]:
            if skip:
                skip = False
            elif w in ("-o", "-MF", "-MQ", "-MT"):
                skip = True
            elif w not in ("-c", "-MD", "-MMD") and not w.endswith(".c"):
                out.append(w)
        print(words[0], " ".join(shlex.quote(w) for w in out))
        break
else:
    sys.exit("not in compile_commands.json: " + sys.argv[2])
PY
}

# try LIKE INCLUDE yes|no: a file with the flags of LIKE that includes INCLUDE compiles, or does not find it
try() {
    n=$((n + 1))
    command=$(flags "$1")
    printf '#include "%s"\ntypedef int file_is_not_empty;\n' "$2" >"$work/t.c"
    if (cd "$build" && eval "$command" -fsyntax-only "$work/t.c") >"$work/log" 2>&1; then got=yes; else got=no; fi
    [ "$got" = yes ] || grep -q "$2: No such file\|'$2' file not found" "$work/log" || got="another error"
    if [ "$got" = "$3" ]; then
        echo "ok $n - $1 including $2: $3"
    else
        bad=1
        echo "not ok $n - $1 including $2: $got, not $3"
        sed 's/^/# /' "$work/log"
    fi
}

echo "1..10"
try src/base/alloc.c base/slice.h yes
try src/base/alloc.c gate/gate.h no
try src/base/alloc.c runtime/loop.h no
try src/base/alloc.c ../gate/gate.h no
try src/gate/decide.c policy/policy.h yes
try src/gate/decide.c store/store.h no
try src/gate/decide.c proto/postgres/postgres.h no
try src/proto/postgres/frontend.c gate/protocol.h yes
try src/proto/postgres/frontend.c policy/policy.h no
try src/front/front.c store/store.h no
exit "$bad"
