#!/bin/sh
# linkage.sh BUILD: every program loads the libraries that this table gives it, and no other. A parser of
# network bytes that cannot reach a database, an XML reader or an HTTP client has less to be misused for.
#   program: libraries it may need itself; libc is always permitted
set -eu
build=$1
table="
countersign:  libcrypto libssl libjansson
gate:         libcrypto libssl
control:      libcrypto libsqlite3 libjansson
keeper:       libcrypto
dialer:       libcrypto
probe:        libcrypto libssl
front:        libcrypto libssl
recorder:     libcrypto libzstd
job-compile:  libcrypto libyaml-0
job-parser:   libcrypto
job-replayer: libcrypto libzstd
job-verify:   libcrypto libzstd
"
never_in_gate="sqlite curl xml libpq jansson yaml"
n=0 bad=0
say() { # say ok|"not ok" TEXT
    n=$((n + 1))
    [ "$1" = ok ] || bad=1
    echo "$1 $n - $2"
}
needed() { # direct needs, without versions, without libc, the loader and a sanitizer's own libraries
    readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\].*/\1/p' | sed 's/\.so.*//' |
        grep -Ev '^(libc|ld-linux.*|libasan|libubsan|libtsan)$' | grep -Ev "$sanitizer" || true
}

# Sanitized programs also need what their run-time libraries need.
sanitizer='^$'
if readelf -d "$build/src/programs/gate" 2>/dev/null | grep -q 'libasan\|libubsan'; then
    sanitizer='^(libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+)$'
fi
programs=$(printf '%s' "$table" | sed -n 's/^\([a-z-]*\):.*/\1/p')
for p in $programs; do
    exe=$build/src/programs/$p
    if [ ! -x "$exe" ]; then
        say "not ok" "$p is not built"
        continue
    fi
    allowed=$(printf '%s' "$table" | sed -n "s/^$p: *//p")
    extra=""
    for lib in $(needed "$exe"); do
        case " $allowed " in *" $lib "*) ;; *) extra="$extra $lib" ;; esac
    done
    if [ -z "$extra" ]; then say ok "$p needs only libc $allowed"; else say "not ok" "$p also needs$extra"; fi
done
if [ -x "$build/src/programs/gate" ]; then
    loaded=$(ldd "$build/src/programs/gate")
    for lib in $never_in_gate; do
        if printf '%s' "$loaded" | grep -q "$lib"; then say "not ok" "gate loads $lib"; else say ok "gate loads no $lib"; fi
    done
fi
# A program that the table does not know would be one that nobody looked at.
for exe in "$build"/src/programs/*; do
    [ -f "$exe" ] && [ -x "$exe" ] || continue
    case " $(echo $programs) " in *" $(basename "$exe") "*) ;; *) say "not ok" "$(basename "$exe") is not in the table" ;; esac
done
echo "1..$n"
exit "$bad"
