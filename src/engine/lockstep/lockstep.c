/*
 * lockstep.c - the engine lockstep: its run loop.
 *
 * SOSIA_LOCKSTEP_EVERY=N compares about one translation of N, at random; the others are executed by
 * the engine jit in one go.
 */
#include "engine/lockstep/lockstep.h"

#include <stdlib.h>

#include "base/log.h"
#include "engine/boundary.h"
#include "isa/x86/code.h"

static const struct jit_sizes sizes = {.code = 32 * MIB, .data = 32 * MIB, .decoded = 16 * MIB};

static int probe(struct error *e)
{
    return engine_jit.probe(e);
}

static uint32_t every_of(const char *text)
{
    unsigned long n = text ? strtoul(text, NULL, 10) : 1;
    return n < 1 ? 1 : n > 1000000 ? 1000000 : (uint32_t)n;
}

static void vcpu_destroy(struct x86_cpu *c)
{
    struct lockstep *l = c->lockstep;
    if (l) {
        c->bus = l->bus;
        c->lockstep = NULL;
        c->observer = NULL;
        log_info("lockstep: %llu translations compared, %llu not (devices, modified code), %llu "
                 "once more",
                 (unsigned long long)l->compared, (unsigned long long)l->abandoned,
                 (unsigned long long)l->repeated);
        free(l);
    }
    jit_destroy(c);
}

static int vcpu_create(struct x86_cpu *c, struct error *e)
{
    if (c->ncpus > 1)
        return error_set(e, ERR_LIMIT, "engine lockstep compares one vCPU only (cpus: %u)",
                         c->ncpus);
    struct lockstep *l = calloc(1, sizeof *l);
    if (!l)
        return error_set(e, ERR_NOMEM, "out of memory for comparisons");
    int rc = jit_create(c, &sizes, true, e);
    if (rc) {
        free(l);
        return rc;
    }
    c->lockstep = l;
    l->c = c;
    l->every = every_of(getenv("SOSIA_LOCKSTEP_EVERY"));
    l->random = 1;
    l->phase = LOCKSTEP_OFF;
    lockstep_journal_init(l);
    lockstep_bus_wrap(l);
    return 0;
}

/* ---- the run loop ---- */

static uint32_t draw(struct lockstep *l) /* 0 .. 2 * (every - 1) */
{
    l->random = l->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((l->random >> 33) % (2ull * l->every - 1));
}

/* Up to l->skip translations. */
static void run_free(struct lockstep *l, const struct jit_tb *tb)
{
    struct x86_cpu *c = l->c;
    l->phase = LOCKSTEP_FREE;
    c->jit_stop = l->skip;
    c->jit->thunk.enter(tb->entry);
    l->skip = c->jit_stop == UINT32_MAX ? 0 : c->jit_stop;
}

/* Returns false if the engines differ. */
static bool run_compared(struct lockstep *l, const struct jit_tb *tb)
{
    struct x86_cpu *c = l->c;
    if (l->phase == LOCKSTEP_FREE)
        lockstep_close(l);
    switch (lockstep_compare(l, tb)) {
    case LOCKSTEP_AGAIN:
        return true;
    case LOCKSTEP_ABANDONED:
        l->abandoned++;
        lockstep_interpret(c, tb);
        return true;
    case LOCKSTEP_STRAY:
        lockstep_report(l, tb);
        return false;
    case LOCKSTEP_RAISED:
    case LOCKSTEP_DONE:
        break;
    }
    l->compared++;
    l->skip = l->every > 1 ? draw(l) : 0;
    if (l->jit.end == LOCKSTEP_RAISED)
        boundary_deliver(c);
    return true;
}

/* Not inlined into the function that calls sigsetjmp, where nothing may live in registers. */
static __attribute__((noinline)) void loop(struct x86_cpu *c, enum engine_exit *why)
{
    struct lockstep *l = c->lockstep;
    for (;;) {
        jit_x87_to_memory(c);
        if (boundary_needed(c)) {
            if (!boundary_look(c, why))
                return;
            if (c->slow) {
                boundary_step(c);
                continue;
            }
        }
        const struct jit_tb *tb = jit_lookup(c);
        if (tb && l->skip) {
            run_free(l, tb);
        } else if (!tb || tb->alone) {
            boundary_step(c);
        } else if (!run_compared(l, tb)) {
            *why = ENGINE_EXIT_FAILED;
            return;
        }
    }
}

static enum engine_exit run(struct x86_cpu *c)
{
    sigjmp_buf env;
    enum engine_exit why = ENGINE_EXIT_KICK;
    jit_bind_thread(c);
    x86_set_arith_flags(c, (uint32_t)c->s.rflags);
    x86_update_mode(c);
    c->cur = NULL;
    c->env = &env;
    if (sigsetjmp(env, 0))
        boundary_deliver(c);
    loop(c, &why);
    c->s.rflags = x86_rflags(c);
    c->env = NULL;
    return why;
}

const struct engine engine_lockstep = {
    .name = "lockstep",
    .technique = "interpretation and recompilation, compared",
    .probe = probe,
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .run = run,
};
