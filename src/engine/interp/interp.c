/*
 * interp.c - the interpreter: executes blocks of decoded instructions, one function call each.
 *
 * The loop looks at three words before each block: `pending` (what other threads want), `slow`
 * (conditions that need a look at every instruction) and `activity`. While all are zero it runs
 * whole blocks. An exception arrives by longjmp from x86_raise() and is delivered at the landing
 * place.
 */
#include "engine/boundary.h"
#include "isa/x86/access.h"
#include "isa/x86/code.h"
#include "isa/x86/native.h"

/* Decoded code of all vCPUs together; a vCPU gets its share, but not less than the minimum. */
#define ARENA_TOTAL (16 * MIB)
#define ARENA_MIN   (2 * MIB)

static int probe(struct error *e)
{
    (void)e;
    return 0;
}

static int vcpu_create(struct x86_cpu *c, struct error *e)
{
    int rc = x86_code_create(c, max_u64(ARENA_TOTAL / c->ncpus, ARENA_MIN), e);
    if (rc)
        return rc;
    rc = x86_native_create(c, e);
    if (rc)
        x86_code_destroy(c);
    return rc;
}

static void vcpu_destroy(struct x86_cpu *c)
{
    x86_native_destroy(c);
    x86_code_destroy(c);
}

/* Executes the first `count` instructions of a block at RIP, `len` bytes of code. */
static inline void run_insns(struct x86_cpu *c, const struct x86_insn *i, unsigned count,
                             unsigned len)
{
    uint64_t base = c->s.rip;
    const struct x86_insn *last = i + count;
    c->s.gpr[X86_REG_RIP] = base;
    c->s.rip = (base + len) & c->ip_mask;
    c->block_end = last;
    c->icount += count;
    do {
        c->cur = i;
        i->fn(c, i);
    } while (++i < c->block_end);
    c->cur = NULL;
    if (UNLIKELY(i < last)) { /* left early, behind an instruction that does not branch */
        c->s.rip = (base + i[-1].end) & c->ip_mask;
        c->icount -= (uint64_t)(last - i);
    }
}

/* Not inlined into the function that calls sigsetjmp, where nothing may live in registers. */
static __attribute__((noinline)) void loop(struct x86_cpu *c, enum engine_exit *why)
{
    struct x86_block *b = NULL;
    for (;;) {
        if (UNLIKELY(boundary_needed(c))) {
            if (!boundary_look(c, why))
                return;
            b = NULL; /* an event may have emptied the cache */
            if (c->slow) {
                boundary_step(c);
                continue; /* an interrupt window (STI; NOP; CLI) may be one instruction wide */
            }
        }
        b = b ? x86_code_next(c, b) : x86_code_find(c, NULL);
        run_insns(c, b->insn, b->count, b->len);
    }
}

static enum engine_exit run(struct x86_cpu *c)
{
    sigjmp_buf env;
    enum engine_exit why = ENGINE_EXIT_KICK;
    x86_set_arith_flags(c, (uint32_t)c->s.rflags);
    x86_update_mode(c);
    c->cur = NULL;
    c->env = &env;
    if (sigsetjmp(env, 0)) {
        if (c->cur)
            c->icount -= (uint64_t)(c->block_end - c->cur);
        boundary_deliver(c);
    }
    loop(c, &why);
    c->s.rflags = x86_rflags(c);
    c->env = NULL;
    return why;
}

const struct engine engine_interp = {
    .name = "interp",
    .technique = "interpretation of decoded blocks",
    .probe = probe,
    .vcpu_create = vcpu_create,
    .vcpu_destroy = vcpu_destroy,
    .run = run,
};
