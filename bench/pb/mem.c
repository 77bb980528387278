/*
 * mem.c - class mem: long stretches of memory, and more pages than a TLB holds.
 */
#include <stdlib.h>
#include <string.h>

#include "pb.h"

enum { MIB = 1 << 20 };

static void unit_memcpy(void)
{
    static char *a;
    size_t n = 16 * MIB;
    if (!a) {
        a = bench_map(2 * n);
        memset(a, 1, 2 * n);
    }
    memcpy(a, a + n, n);
    bench_sink += (uint64_t)a[5];
}

static void unit_memset(void)
{
    static char *a;
    size_t n = 16 * MIB;
    if (!a) {
        a = bench_map(n);
        memset(a, 1, n);
    }
    memset(a, (int)bench_sink, n);
    bench_sink += (uint64_t)a[5];
}

/* STREAM's triad, scalar: three arrays of 8 MiB. */
static SCALAR void unit_triad(void)
{
    enum { N = MIB };
    static double *a, *b, *c;
    if (!a) {
        a = bench_map(N * sizeof *a);
        b = bench_map(N * sizeof *b);
        c = bench_map(N * sizeof *c);
        for (int i = 0; i < N; i++) {
            b[i] = i;
            c[i] = 2 * i;
        }
    }
    for (int i = 0; i < N; i++)
        a[i] = b[i] + 3.0 * c[i];
    bench_sink += (uint64_t)a[77];
}

/* Reads 16 MiB in a row, scalar. */
static SCALAR void unit_sum(void)
{
    enum { N = 2 * MIB };
    static uint64_t *a;
    uint64_t s = 0;
    if (!a) {
        a = bench_map(N * sizeof *a);
        memset(a, 1, N * sizeof *a);
    }
    for (int i = 0; i < N; i++)
        s += a[i];
    bench_sink += s;
}

/* A random cycle through n places that lie `stride` words apart: p[x] is the word behind x. */
static uint32_t *cycle(size_t n, size_t stride)
{
    uint32_t *order = malloc(n * sizeof *order), *p = bench_map(n * stride * sizeof *p);
    uint64_t random = 31337;
    if (!order)
        bench_die("malloc");
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t i = n - 1; i; i--) {
        size_t j = bench_random(&random) % (i + 1);
        uint32_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (size_t i = 0; i < n; i++)
        p[order[i] * stride] = (uint32_t)(order[(i + 1) % n] * stride);
    free(order);
    return p;
}

static SCALAR uint32_t follow(const uint32_t *p, uint32_t x, int n)
{
    while (n--)
        x = p[x];
    return x;
}

/* Cache lines that fit into the first cache, into the second, and into none. */
static void unit_chase_l1(void)
{
    static uint32_t *p, x;
    if (!p)
        p = cycle(256, 16);
    bench_sink += x = follow(p, x, 500000);
}

static void unit_chase_l2(void)
{
    static uint32_t *p, x;
    if (!p)
        p = cycle(16384, 16);
    bench_sink += x = follow(p, x, 200000);
}

static void unit_chase_64m(void)
{
    static uint32_t *p, x;
    if (!p)
        p = cycle(MIB, 16);
    bench_sink += x = follow(p, x, 50000);
}

/* One line of each page of 64 MiB. */
static void unit_tlb(void)
{
    static uint32_t *p, x;
    if (!p)
        p = cycle(16384, 1024 + 16);
    bench_sink += x = follow(p, x, 100000);
}

/* Independent changes of random words of 64 MiB. */
static SCALAR void unit_rand_64m(void)
{
    static uint64_t *a;
    size_t n = 8 * MIB;
    if (!a) {
        a = bench_map(n * sizeof *a);
        memset(a, 1, n * sizeof *a);
    }
    uint64_t x = 1;
    for (unsigned i = 0; i < 100000; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        a[x >> 41] += i;
    }
}

const struct bench bench_mem[] = {
    {"mem/memcpy", unit_memcpy, 5, NULL},      {"mem/memset", unit_memset, 30, NULL},
    {"mem/triad", unit_triad, 8, NULL},        {"mem/sum", unit_sum, 15, NULL},
    {"mem/chaseL1", unit_chase_l1, 15, NULL},  {"mem/chaseL2", unit_chase_l2, 2, NULL},
    {"mem/chase64M", unit_chase_64m, 1, NULL}, {"mem/tlb", unit_tlb, 1, NULL},
    {"mem/rand64M", unit_rand_64m, 15, NULL},  {0},
};
