/*
 * pb.h - what a class of benchmarks is to the probe: a table.
 *
 * A benchmark is a function that does one unit of work, the same work on every machine, and keeps
 * its result alive in bench_sink. Its count of units makes a native run of some ten milliseconds:
 * long enough to measure, and short enough for an emulator that is a hundred times slower.
 */
#ifndef SOSIA_BENCH_PB_H
#define SOSIA_BENCH_PB_H

#include <stdint.h>

struct bench {
    const char *name; /* "class/benchmark"; NULL ends a table */
    void (*unit)(void);
    unsigned units;
};

extern volatile uint64_t bench_sink;
extern const struct bench bench_int[];

#endif
