/*
 * hot.c - which translations are made for speed.
 *
 * Each translation made for size counts how often it is entered, in one of the counters of
 * cpu->jit_heat. When its counter runs out, it is replaced by one made for speed, if that took a
 * short time; else all counters start again. So a loop is hot after a thousand rounds, but not a
 * function that is called now and then for an hour.
 */
#define _GNU_SOURCE
#include <time.h>

#include "engine/jit/jit.h"
#include "isa/x86/native.h"

#define WINDOW 100u /* ms */

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void jit_heat_reset(struct x86_cpu *c)
{
    struct jit *j = c->jit;
    for (unsigned n = 0; n < X86_HEATS; n++)
        c->jit_heat[n] = j->heat;
    j->heat_since = now();
}

bool jit_is_hot(struct x86_cpu *c)
{
    if (now() - c->jit->heat_since <= WINDOW && !x86_native_full(c))
        return true;
    jit_heat_reset(c);
    return false;
}

struct jit_tb *jit_make_hot(struct x86_cpu *c, struct jit_tb *old)
{
    if (old->instead)
        return old->instead;
    gva_t lin = c->code_size == 64 ? c->s.rip : (uint32_t)(c->s.seg[X86_CS].base + c->s.rip);
    struct jit_tb *tb = jit_translate(c, lin, old->roff, old->mode, old->single, true);
    if (!tb || tb->cross || tb->gen != old->gen) { /* no memory, or not the same code any more */
        jit_heat_reset(c);
        return old;
    }
    jit_replace(c, old, tb);
    return tb;
}
