#!/bin/sh
# run.sh [SECONDS [TARGET...]] - fuzzes each target (default: all) for SECONDS (default: 600) with
# libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer, in build-fuzz/. What is learned stays
# in build-fuzz/corpus/TARGET and is where the next run starts. A finding ends its target's run and
# lies in build-fuzz/findings/; minimise it (-minimize_crash=1), fix what it shows and put it into
# tests/fuzz/corpus/TARGET/, where `make check` runs it from then on.
# Needs clang and libclang-rt-14-dev; scripts/setup.sh installs them.
set -eu

seconds=${1:-600}
[ $# -gt 0 ] && shift
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
build=build-fuzz
flags='-fsanitize=fuzzer-no-link'

[ -f $build/build.ninja ] ||
    CC=${CC:-clang} meson setup $build -Db_sanitize=address,undefined -Db_lundef=false \
        -Dc_args="$flags" -Doptimization=1 >/dev/null
ninja -C $build build.ninja >/dev/null # targets that are new
targets=$*
[ -n "$targets" ] || targets=$(sed -n "s/^  '\([a-z0-9_]*\)',$/\1/p" tests/fuzz/meson.build)

failed=
for t in $targets; do
    meson compile -C $build "fuzz_$t" >$build/compile.log 2>&1 || {
        cat $build/compile.log
        exit 1
    }
    mkdir -p "$build/corpus/$t" $build/findings
    "$build/tests/fuzz/fuzz_$t" -d "$build/corpus/$t" "tests/fuzz/corpus/$t" >/dev/null
    "${CC:-clang}" -fsanitize=fuzzer,address,undefined -o "$build/libfuzzer_$t" \
        "$build/tests/fuzz/fuzz_$t.p/fuzz_$t.c.o" $build/tests/fuzz/libfuzz_common.a \
        $build/libsosia.a -lZydis -lZycore -lm -lyaml -lexpat -ljansson -luv -lnbd -liscsi -lseccomp -luring -lz -lzstd -lpthread
    echo "=== $t: $seconds s"
    if ! "$build/libfuzzer_$t" -max_total_time="$seconds" -max_len=4096 -len_control=20 -timeout=10 \
        -rss_limit_mb=4096 -artifact_prefix="$build/findings/$t-" -print_final_stats=1 \
        "$build/corpus/$t" >"$build/$t.log" 2>&1; then
        failed="$failed $t"
        tail -40 "$build/$t.log"
    fi
    grep -E 'DONE|number_of_executed' "$build/$t.log" | tail -2 || true
done
[ -z "$failed" ] || {
    echo "run.sh: findings in:$failed" >&2
    exit 1
}
