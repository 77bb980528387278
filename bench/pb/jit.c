/*
 * jit.c - class jit: code that a program writes and then executes, which an engine that translates
 * has to translate first.
 */
#include <string.h>
#include <sys/mman.h>

#include "pb.h"

enum { BUFFER = 65536, STEP = 16 };
typedef int (*made_fn)(int);

static uint8_t *buffer(void)
{
    static uint8_t *p;
    if (p)
        return p;
    p = mmap(NULL, BUFFER, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        bench_die("mmap");
    return p;
}

/* int f(int x) { return (x + imm) ^ 21; } in less than STEP bytes */
static void make(uint8_t *p, int32_t imm)
{
    uint8_t code[] = {0x8d, 0x87, 0,    0, 0, 0, /* LEA EAX, [RDI + imm] */
                      0x83, 0xf0, 0x15,          /* XOR EAX, 21 */
                      0xc3};
    memcpy(code + 2, &imm, sizeof imm);
    memcpy(p, code, sizeof code);
}

static int call(const uint8_t *p, int x)
{
    return ((made_fn)(uintptr_t)p)(x);
}

static void settle(uint8_t *p, size_t len)
{
    __builtin___clear_cache((char *)p, (char *)p + len);
}

/* One function, written anew before each call. */
static void unit_patch(void)
{
    uint8_t *p = buffer();
    int x = 0;
    for (int i = 0; i < 1000; i++) {
        make(p, i);
        settle(p, STEP);
        x = call(p, x);
    }
    bench_sink += (uint64_t)x;
}

/* 4096 functions that are called once. */
static void unit_cold(void)
{
    static int generation;
    uint8_t *p = buffer();
    int x = 0;
    generation++;
    for (int i = 0; i < BUFFER / STEP; i++)
        make(p + i * STEP, i + generation);
    settle(p, BUFFER);
    for (int i = 0; i < BUFFER / STEP; i++)
        x = call(p + i * STEP, x);
    bench_sink += (uint64_t)x;
}

/* New functions in the page of one that is called often. */
static void unit_mixed(void)
{
    uint8_t *hot = buffer() + 8192;
    int x = 0;
    make(hot, 3);
    settle(hot, STEP);
    for (int i = 0; i < 200; i++) {
        uint8_t *fresh = hot + 2 * STEP + STEP * (i % 64);
        make(fresh, i);
        settle(hot, 4096);
        for (int k = 0; k < 300; k++)
            x = call(hot, x);
        x += call(fresh, x);
    }
    bench_sink += (uint64_t)x;
}

const struct bench bench_jit[] = {
    {"jit/patch", unit_patch, 200, NULL},
    {"jit/cold", unit_cold, 200, NULL},
    {"jit/mixed", unit_mixed, 80, NULL},
    {0},
};
