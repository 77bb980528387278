/*
 * priv.c - class priv: instructions that a hypervisor may have to see.
 */
#include <cpuid.h>

#include "pb.h"

static void unit_cpuid(void)
{
    unsigned a, b, c, d;
    for (int i = 0; i < 50; i++) {
        __cpuid(0, a, b, c, d);
        bench_sink += a + b + c + d;
    }
}

static void unit_rdtsc(void)
{
    for (int i = 0; i < 5000; i++)
        bench_sink += __builtin_ia32_rdtsc();
}

const struct bench bench_priv[] = {
    {"priv/cpuid", unit_cpuid, 50, NULL},
    {"priv/rdtsc", unit_rdtsc, 200, NULL},
    {0},
};
