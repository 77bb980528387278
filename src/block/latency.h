/*
 * latency.h - how long requests took: counts by classes, each a sixteenth of a power of two wide,
 * so that a percentile is right to 6 %.
 */
#ifndef SOSIA_BLOCK_LATENCY_H
#define SOSIA_BLOCK_LATENCY_H

#include "base/types.h"

#define LATENCY_CLASSES (16 * 61)

struct latency {
    uint64_t count[LATENCY_CLASSES];
    uint64_t n, sum, max; /* ns */
};

static inline unsigned latency_class(uint64_t ns)
{
    if (ns < 16)
        return (unsigned)ns;
    unsigned top = 63 - (unsigned)__builtin_clzll(ns);
    return (top - 3) * 16 + (unsigned)(ns >> (top - 4) & 15);
}

/* The greatest value of a class. */
static inline uint64_t latency_bound(unsigned c)
{
    if (c < 16)
        return c;
    unsigned top = c / 16 + 3;
    return (1ull << top) + ((uint64_t)(c % 16 + 1) << (top - 4)) - 1;
}

static inline void latency_add(struct latency *l, uint64_t ns)
{
    l->count[latency_class(ns)]++;
    l->n++;
    l->sum += ns;
    l->max = max_u64(l->max, ns);
}

/* At most this long took so many of 10000 requests; 0 if there were none. */
static inline uint64_t latency_percentile(const struct latency *l, unsigned of_10000)
{
    uint64_t want = (uint64_t)((unsigned __int128)l->n * of_10000 / 10000), seen = 0;
    for (unsigned c = 0; c < LATENCY_CLASSES && l->n; c++) {
        seen += l->count[c];
        if (seen > 0 && seen >= want)
            return min_u64(latency_bound(c), l->max);
    }
    return l->max;
}

#endif
