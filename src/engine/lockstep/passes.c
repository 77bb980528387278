/* passes.c - the two executions of a translation. Rules: lockstep.h. */
#include "engine/lockstep/lockstep.h"
#include "isa/x86/access.h"
#include "isa/x86/code.h"
#include "isa/x86/native.h"

#define ATTEMPTS 3u

/* ---- the interpreter's ---- */

/* A conditional branch to the instruction behind it leads out of the translation if it is taken:
 * RIP does not tell. */
static bool to_next(const struct x86_cpu *c, const struct x86_insn *i, uint64_t base)
{
    return (i->flags & X86_IF_END) &&
           ((base + i->imm) & i->amask) == ((base + i->end) & c->ip_mask);
}

/* Executes instructions of the block at RIP, `off` bytes from the start of the translation, up to
 * `limit`. Returns true if it goes on behind them. */
static bool run_block(struct lockstep *l, struct x86_cpu *c, unsigned limit, unsigned off)
{
    const struct x86_block *b = x86_code_find(c, NULL);
    uint64_t base = c->s.rip;
    unsigned count = b->count;
    while (count > 1 && b->insn[count - 1].end > limit - off)
        count--;
    const struct x86_insn *i = b->insn, *last = i + count;
    c->s.gpr[X86_REG_RIP] = base;
    c->s.rip = (base + last[-1].end) & c->ip_mask;
    c->block_end = last;
    c->icount += count;
    do {
        c->cur = i;
        i->fn(c, i);
    } while (++i < c->block_end);
    c->cur = NULL;
    if (l)
        l->done = off + i[-1].end;
    if (i < last) {
        c->s.rip = (base + i[-1].end) & c->ip_mask;
        return false;
    }
    if (l && l->phase == LOCKSTEP_INTERP && to_next(c, last - 1, base))
        siglongjmp(*l->env, LOCKSTEP_ABANDONED);
    return c->s.rip == ((base + last[-1].end) & c->ip_mask) && c->block_end == last;
}

/* Does the translation go on behind STI? Then the next instruction is in its shadow. */
static bool leave_shadow(struct x86_cpu *c)
{
    if (c->slow != X86_SLOW_SHADOW || c->s.movss_shadow || c->s.activity)
        return false;
    c->s.sti_shadow = 0;
    c->slow = 0;
    return true;
}

static void interpret(struct lockstep *l, struct x86_cpu *c, uint64_t start, unsigned limit)
{
    for (uint64_t off = 0;;) {
        if (!run_block(l, c, limit, (unsigned)off) || c->s.activity)
            return;
        off = (c->s.rip - start) & c->ip_mask;
        if (off >= limit || (c->slow && !leave_shadow(c)))
            return;
    }
}

void lockstep_interpret(struct x86_cpu *c, const struct jit_tb *tb)
{
    interpret(NULL, c, c->s.rip, tb->len);
}

/* ---- a pass ---- */

/* The function with sigsetjmp, where nothing may live in registers. */
static __attribute__((noinline)) enum lockstep_end pass(struct lockstep *l, const struct jit_tb *tb)
{
    struct x86_cpu *c = l->c;
    sigjmp_buf env, *volatile outer = c->env;
    volatile enum lockstep_end end = LOCKSTEP_DONE;
    c->env = l->env = &env;
    switch (sigsetjmp(env, 0)) {
    case LOCKSTEP_DONE:
        if (l->phase == LOCKSTEP_INTERP)
            interpret(l, c, l->start.rip, l->limit);
        else
            c->jit->thunk.enter(tb->body);
        break;
    case LOCKSTEP_RAISED: /* not by the instruction behind, which cannot be fetched */
        end = c->cur ? LOCKSTEP_RAISED : LOCKSTEP_DONE;
        break;
    case LOCKSTEP_ABANDONED:
        end = LOCKSTEP_ABANDONED;
        break;
    case LOCKSTEP_AGAIN:
        end = LOCKSTEP_AGAIN;
        break;
    default:
        end = LOCKSTEP_STRAY;
    }
    jit_x87_to_memory(c);
    c->env = outer;
    l->env = NULL;
    return end;
}

static void save(const struct x86_cpu *c, enum lockstep_end end, struct lockstep_result *r)
{
    r->end = end;
    r->s = c->s;
    r->s.rflags = x86_rflags(c);
    r->s.gpr[X86_REG_RIP] = 0;
    if (end != LOCKSTEP_RAISED)
        return;
    r->vector = c->exc.vector;
    r->has_error = c->exc.has_error;
    r->soft = c->exc.soft;
    r->trap = c->exc.trap;
    r->error = c->exc.error;
    r->cr2 = c->exc.cr2;
    r->dr6 = c->exc.dr6;
    if (!r->trap && !r->soft)
        r->s.rip = x86_insn_rip(c);
}

static void rewind_state(struct lockstep *l)
{
    struct x86_cpu *c = l->c;
    c->s = l->start;
    c->fl = l->start_fl;
    c->cur = NULL;
    c->db_hit = 0;
    c->slow = 0;
    c->jit_key = l->start_key[0];
    c->jit_key_global = l->start_key[1];
    x86_update_mode(c);
}

/* The page was mapped until the translation's own stores changed the page tables: without INVLPG,
 * an access may see either (SDM vol. 3, 4.10.4.3). */
static bool unmapped_by_itself(const struct lockstep *l)
{
    const struct lockstep_result *r = &l->interp;
    gpa_t gpa;
    return r->end == LOCKSTEP_RAISED && r->vector == X86_PF && !(r->error & X86_PF_P) &&
           x86_translate_debug(l->c, r->cr2, &gpa);
}

static enum lockstep_end first_pass(struct lockstep *l, const struct jit_tb *tb)
{
    unsigned stubs = l->c->native->flushes;
    l->nstore = 0;
    l->phase = LOCKSTEP_INTERP;
    enum lockstep_end end = pass(l, tb);
    l->phase = LOCKSTEP_OFF;
    save(l->c, end, &l->interp);
    if (end == LOCKSTEP_RAISED)
        l->done = (unsigned)min_u64(l->interp.s.rip - l->start.rip, tb->len);
    lockstep_keep_lines(l);
    lockstep_undo(l);
    rewind_state(l);
    if (unmapped_by_itself(l))
        end = LOCKSTEP_ABANDONED;
    /* The translation may use a stub that is no longer there. */
    return stubs == l->c->native->flushes ? end : LOCKSTEP_AGAIN;
}

static enum lockstep_end second_pass(struct lockstep *l, const struct jit_tb *tb)
{
    lockstep_open(l, true);
    l->phase = LOCKSTEP_JIT;
    l->c->jit_stop = 0;
    l->c->jit_page = l->start.rip - tb->rip;
    enum lockstep_end end = pass(l, tb);
    l->phase = LOCKSTEP_OFF;
    lockstep_open(l, false);
    save(l->c, end, &l->jit);
    return end;
}

/* A translation may be left before its end, at any instruction: then that is how far it must agree.
 * Returns true if there is something new to compare. */
static bool shorten(struct lockstep *l)
{
    uint64_t off = (l->jit.s.rip - l->start.rip) & l->c->ip_mask;
    if (l->jit.end != LOCKSTEP_DONE || !off || off > l->done ||
        (off == l->done && l->interp.end == LOCKSTEP_DONE))
        return false;
    l->limit = (unsigned)off;
    return true;
}

enum lockstep_end lockstep_compare(struct lockstep *l, const struct jit_tb *tb)
{
    struct x86_cpu *c = l->c;
    l->start = c->s;
    l->start_fl = c->fl;
    l->start_key[0] = c->jit_key;
    l->start_key[1] = c->jit_key_global;
    l->limit = tb->len;
    for (unsigned n = 0;; n++) {
        uint64_t flushes = c->jit->flushes;
        enum lockstep_end end = first_pass(l, tb);
        if (end != LOCKSTEP_DONE && end != LOCKSTEP_RAISED)
            return end;
        end = second_pass(l, tb);
        bool gone = flushes != c->jit->flushes; /* `tb` is */
        enum lockstep_verdict v = lockstep_verdict(l, gone ? NULL : tb);
        if (v == LOCKSTEP_SAME)
            return end;
        if (v == LOCKSTEP_DIFFERENT && !gone && n >= ATTEMPTS - 1 && !shorten(l))
            return LOCKSTEP_STRAY;
        lockstep_undo(l);
        rewind_state(l);
        l->repeated++;
        if (gone)
            return LOCKSTEP_AGAIN;
        if (v == LOCKSTEP_UNDEFINED)
            return LOCKSTEP_ABANDONED;
    }
}
