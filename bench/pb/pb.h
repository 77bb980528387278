/*
 * pb.h - what a class of benchmarks is to the probe: a table.
 *
 * A benchmark is a function that does one unit of work, the same work on every machine, and keeps
 * its result alive in bench_sink. Its count of units makes a native run of some ten milliseconds:
 * long enough to measure, and short enough for an emulator that is a hundred times slower.
 */
#ifndef SOSIA_BENCH_PB_H
#define SOSIA_BENCH_PB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench {
    const char *name; /* "class/benchmark"; NULL ends a table */
    void (*unit)(void);
    unsigned units;
    bool (*can)(void); /* does the processor have what it needs? NULL: every one has */
};

extern volatile uint64_t bench_sink;
extern const struct bench bench_int[], bench_fp[], bench_simd[], bench_mem[], bench_sys[],
    bench_proc[], bench_priv[], bench_jit[], bench_smp[];

/* For code that is not to become SIMD code, which is a class of its own. */
#define SCALAR __attribute__((noinline, optimize("no-tree-vectorize")))
#define PLAIN  __attribute__((noinline))

/* Prints `what` and errno's meaning, and ends the process: the benchmark has failed. */
_Noreturn void bench_die(const char *what);
/* Anonymous memory of its own, untouched. */
void *bench_map(size_t len);
/* The path of this program. */
const char *bench_self(void);

/* Marsaglia's xorshift64: the same numbers everywhere. *state: not 0. */
static inline uint64_t bench_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

#endif
