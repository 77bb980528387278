/*
 * mode.c - what derives from the control registers, CS, SS and RFLAGS; and raising exceptions.
 */
#include "isa/x86/priv.h"

/* ---- exceptions ---- */

_Noreturn void x86_rethrow(struct x86_cpu *c)
{
    if (c->in_split)
        x86_split_end(c);
    siglongjmp(*c->env, 1);
}

_Noreturn void x86_raise(struct x86_cpu *c, enum x86_vector v)
{
    memset(&c->exc, 0, sizeof c->exc);
    c->exc.vector = (uint8_t)v;
    x86_rethrow(c);
}

_Noreturn void x86_raise_err(struct x86_cpu *c, enum x86_vector v, uint32_t error)
{
    memset(&c->exc, 0, sizeof c->exc);
    c->exc.vector = (uint8_t)v;
    c->exc.has_error = true;
    c->exc.error = error;
    x86_rethrow(c);
}

_Noreturn void x86_raise_pf(struct x86_cpu *c, gva_t addr, uint32_t error)
{
    memset(&c->exc, 0, sizeof c->exc);
    c->exc.vector = X86_PF;
    c->exc.has_error = true;
    c->exc.error = error;
    c->exc.cr2 = addr;
    x86_rethrow(c);
}

_Noreturn void x86_raise_db(struct x86_cpu *c, uint64_t dr6, bool trap)
{
    memset(&c->exc, 0, sizeof c->exc);
    c->exc.vector = X86_DB;
    c->exc.dr6 = dr6;
    c->exc.trap = trap;
    x86_rethrow(c);
}

/* The signal mask is neither saved nor restored: a landing costs a few loads. */
bool x86_try(struct x86_cpu *c, void (*fn)(struct x86_cpu *c, void *arg), void *arg)
{
    sigjmp_buf env, *volatile outer = c->env;
    c->env = &env;
    volatile bool ok = false;
    if (sigsetjmp(env, 0) == 0) {
        fn(c, arg);
        ok = true;
    }
    c->env = outer;
    return ok;
}

/* ---- derived state ---- */

/* Rights with which no offset of the segment needs a check. */
static uint32_t flat_rights(const struct x86_cpu *c, const struct x86_seg *s)
{
    if ((s->attr & X86_ATTR_UNUSABLE) || s->limit != 0xffffffffu)
        return 0;
    if (!c->protected_mode)
        return X86_SEGOK_R | X86_SEGOK_W;
    if (s->attr & X86_TYPE_X)
        return s->attr & X86_TYPE_RW ? X86_SEGOK_R : 0;
    if (s->attr & X86_TYPE_DC) /* expand-down: a limit of 4 GiB leaves nothing */
        return 0;
    return s->attr & X86_TYPE_RW ? X86_SEGOK_R | X86_SEGOK_W : X86_SEGOK_R;
}

void x86_update_seg(struct x86_cpu *c, unsigned seg)
{
    const struct x86_seg *s = &c->s.seg[seg];
    if (c->code_size == 64) {
        c->segc[seg].base = seg == X86_FS || seg == X86_GS ? s->base : 0;
        c->segc[seg].ok = X86_SEGOK_R | X86_SEGOK_W;
        return;
    }
    c->segc[seg].base = s->base;
    c->segc[seg].ok = flat_rights(c, s);
}

static void update_debug(struct x86_cpu *c)
{
    c->watch_data = false;
    c->slow &= ~(X86_SLOW_TF | X86_SLOW_BP);
    if (c->s.rflags & X86_FL_TF)
        c->slow |= X86_SLOW_TF;
    if (LIKELY(!(c->s.dr[7] & 0xff)))
        return;
    for (unsigned n = 0; n < 4; n++) {
        if (!((c->s.dr[7] >> (2 * n)) & 3))
            continue;
        unsigned type = (c->s.dr[7] >> (16 + 4 * n)) & 3;
        if (type == 0)
            c->slow |= X86_SLOW_BP;
        else if (type != 2)
            c->watch_data = true;
    }
}

void x86_update_mode(struct x86_cpu *c)
{
    const struct x86_state *s = &c->s;
    const struct x86_seg *cs = &s->seg[X86_CS];
    c->long_active = s->efer & X86_EFER_LMA;
    c->protected_mode = (s->cr0 & X86_CR0_PE) && !(s->rflags & X86_FL_VM);
    /* SS.DPL is the CPL in every mode: 0 in real mode, 3 in virtual-8086 mode (SDM 5.5). */
    c->cpl = X86_ATTR_DPL(s->seg[X86_SS].attr);
    uint64_t pcid = s->cr4 & X86_CR4_PCIDE ? s->cr3 & 0xfff : 0;
    if (pcid != c->pcid)
        x86_tlb_set_pcid(c, pcid);
    bool ac = s->rflags & X86_FL_AC;
    if (c->cpl == 3)
        c->mmu = ac && (s->cr0 & X86_CR0_AM) ? X86_MMU_ALIGN : X86_MMU_USER;
    else
        c->mmu = ac ? X86_MMU_KERNEL_AC : X86_MMU_KERNEL;
    if (c->long_active && (cs->attr & X86_ATTR_L)) {
        c->code_size = 64;
        c->lin_mask = c->ip_mask = c->sp_mask = c->cs_limit = ~0ull;
    } else {
        /* 16-bit code does not wrap at 64 KiB: it meets CS's limit there. */
        c->code_size = cs->attr & X86_ATTR_DB ? 32 : 16;
        c->lin_mask = c->ip_mask = 0xffffffffull;
        c->sp_mask = s->seg[X86_SS].attr & X86_ATTR_DB ? 0xffffffffull : 0xffffull;
        c->cs_limit = cs->limit;
    }
    for (unsigned n = 0; n < X86_NSEG; n++)
        x86_update_seg(c, n);
    c->segc[X86_SEG_NONE] = (struct x86_segc){0, X86_SEGOK_R | X86_SEGOK_W};
    update_debug(c);
}

void x86_set_rflags(struct x86_cpu *c, uint64_t f)
{
    uint64_t changed = c->s.rflags ^ f;
    c->s.rflags = (f & X86_FL_ALL) | X86_FL_R1;
    x86_set_arith_flags(c, (uint32_t)f);
    if (changed & (X86_FL_VM | X86_FL_AC | X86_FL_TF))
        x86_update_mode(c);
}
