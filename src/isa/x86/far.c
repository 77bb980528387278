/*
 * far.c - far JMP, CALL and RET: direct, through call gates, task gates and TSSs (SDM 5.8).
 *
 * Everything is checked, and pushed onto the stack with a private copy of its pointer, before the
 * first register changes; so a fault leaves the instruction without effect.
 */
#include "isa/x86/op.h"
#include "isa/x86/priv.h"

/* ---- code segments ---- */

void x86_check_rip(struct x86_cpu *c, const struct x86_seg *cs, uint64_t rip)
{
    bool ok = c->long_active && (cs->attr & X86_ATTR_L) ? x86_canonical(rip) : rip <= cs->limit;
    if (!ok)
        x86_gp0(c);
}

void x86_load_cs(struct x86_cpu *c, const struct x86_seg *cs, uint64_t rip)
{
    c->s.seg[X86_CS] = *cs;
    c->s.rip = rip;
    x86_update_mode(c);
}

/* CS.L and CS.D together are reserved in IA-32e mode (SDM 5.2.1). */
static void check_l_and_d(struct x86_cpu *c, const struct x86_seg *cs)
{
    if (c->long_active && (cs->attr & X86_ATTR_L) && (cs->attr & X86_ATTR_DB))
        x86_fault_sel(c, X86_GP, cs->sel);
}

struct x86_seg x86_check_return_cs(struct x86_cpu *c, uint16_t sel)
{
    if (X86_SEL_NULL(sel))
        x86_gp0(c);
    struct x86_seg cs = x86_desc_seg(x86_desc_fetch(c, sel, X86_GP), sel);
    unsigned rpl = X86_SEL_RPL(sel), dpl = X86_ATTR_DPL(cs.attr);
    if (!x86_attr_code(cs.attr) || rpl < c->cpl)
        x86_fault_sel(c, X86_GP, sel);
    if (x86_attr_conforming(cs.attr) ? dpl > rpl : dpl != rpl)
        x86_fault_sel(c, X86_GP, sel);
    check_l_and_d(c, &cs);
    if (!(cs.attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    x86_desc_accessed(c, &cs);
    return cs;
}

struct x86_seg x86_check_return_ss(struct x86_cpu *c, uint16_t sel, const struct x86_seg *cs)
{
    unsigned rpl = X86_SEL_RPL(cs->sel);
    if (X86_SEL_NULL(sel) && c->long_active && (cs->attr & X86_ATTR_L) && rpl != 3) {
        if (X86_SEL_RPL(sel) != rpl)
            x86_fault_sel(c, X86_GP, sel);
        return x86_null_ss(rpl);
    }
    struct x86_seg ss = x86_check_ss(c, sel, rpl, X86_GP);
    x86_desc_accessed(c, &ss);
    return ss;
}

/* The target of a direct far JMP or CALL. Its RPL becomes the CPL. */
static struct x86_seg direct_cs(struct x86_cpu *c, uint16_t sel, uint64_t d)
{
    struct x86_seg cs = x86_desc_seg(d, sel);
    unsigned dpl = X86_ATTR_DPL(cs.attr);
    if (!x86_attr_code(cs.attr))
        x86_fault_sel(c, X86_GP, sel);
    if (x86_attr_conforming(cs.attr) ? dpl > c->cpl : X86_SEL_RPL(sel) > c->cpl || dpl != c->cpl)
        x86_fault_sel(c, X86_GP, sel);
    check_l_and_d(c, &cs);
    if (!(cs.attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    x86_desc_accessed(c, &cs);
    cs.sel = (uint16_t)((sel & ~3u) | c->cpl);
    return cs;
}

/* ---- call gates ---- */

struct gate {
    uint16_t sel; /* of the gate itself */
    uint16_t cs;
    uint64_t rip;
    unsigned params; /* to copy to an inner stack */
    unsigned size;   /* of what is pushed */
};

static struct gate read_gate(struct x86_cpu *c, uint16_t sel, uint64_t d)
{
    uint32_t attr = x86_desc_attr(d);
    unsigned dpl = X86_ATTR_DPL(attr);
    if (dpl < c->cpl || X86_SEL_RPL(sel) > dpl)
        x86_fault_sel(c, X86_GP, sel);
    if (!(attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    struct gate g = {.sel = sel, .cs = (uint16_t)(d >> 16), .params = (d >> 32) & 31};
    g.rip = (d & 0xffff) | ((d >> 32) & 0xffff0000u);
    g.size = 4;
    if (c->long_active) {
        g.rip |= x86_desc_fetch_upper(c, sel, X86_GP) << 32;
        g.size = 8;
        g.params = 0;
    } else if (x86_sys_type(attr) == X86_SYS_CALL16) {
        g.rip &= 0xffff;
        g.size = 2;
    }
    return g;
}

/* The gate's code segment; sel.RPL is the privilege level it will run at. */
static struct x86_seg gate_cs(struct x86_cpu *c, const struct gate *g, bool call)
{
    if (X86_SEL_NULL(g->cs))
        x86_gp0(c);
    struct x86_seg cs = x86_desc_seg(x86_desc_fetch(c, g->cs, X86_GP), g->cs);
    unsigned dpl = X86_ATTR_DPL(cs.attr);
    bool conforming = x86_attr_conforming(cs.attr);
    if (!x86_attr_code(cs.attr) || dpl > c->cpl || (!call && !conforming && dpl != c->cpl))
        x86_fault_sel(c, X86_GP, g->cs);
    if (c->long_active && (cs.attr & (X86_ATTR_L | X86_ATTR_DB)) != X86_ATTR_L)
        x86_fault_sel(c, X86_GP, g->cs);
    if (!(cs.attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, g->cs);
    x86_desc_accessed(c, &cs);
    cs.sel = (uint16_t)((g->cs & ~3u) | (conforming ? c->cpl : dpl));
    return cs;
}

static void push_return(struct x86_cpu *c, struct x86_stack *st, unsigned size)
{
    x86_stack_push(c, st, c->s.seg[X86_CS].sel, size);
    x86_stack_push(c, st, x86_next_rip(c), size);
}

static void call_inner(struct x86_cpu *c, const struct gate *g, const struct x86_seg *cs)
{
    struct x86_stack st = x86_stack_inner(c, X86_SEL_RPL(cs->sel), 0);
    x86_stack_push(c, &st, c->s.seg[X86_SS].sel, g->size);
    x86_stack_push(c, &st, c->s.gpr[X86_RSP], g->size);
    for (unsigned n = g->params; n-- > 0;)
        x86_stack_push(c, &st, g->size == 2 ? x86_peek16(c, 2 * n) : x86_peek32(c, 4 * n), g->size);
    push_return(c, &st, g->size);
    x86_check_rip(c, cs, g->rip);
    x86_desc_accessed(c, &st.ss);
    x86_stack_commit(c, &st, true);
    x86_load_cs(c, cs, g->rip);
}

static void through_gate(struct x86_cpu *c, uint16_t sel, uint64_t d, bool call)
{
    struct gate g = read_gate(c, sel, d);
    struct x86_seg cs = gate_cs(c, &g, call);
    if (X86_SEL_RPL(cs.sel) < c->cpl) {
        call_inner(c, &g, &cs);
        return;
    }
    struct x86_stack st = x86_stack_current(c);
    if (c->long_active) { /* the code that is entered is 64-bit, and so is its stack */
        st.flat = true;
        st.mask = ~0ull;
        st.sp = c->s.gpr[X86_RSP];
    }
    if (call)
        push_return(c, &st, g.size);
    x86_check_rip(c, &cs, g.rip);
    x86_stack_commit(c, &st, false);
    x86_load_cs(c, &cs, g.rip);
}

/* ---- JMP and CALL ---- */

static void to_task(struct x86_cpu *c, uint16_t sel, uint64_t d, bool call)
{
    enum x86_task_cause cause = call ? X86_TASK_CALL : X86_TASK_JMP;
    uint32_t attr = x86_desc_attr(d);
    unsigned dpl = X86_ATTR_DPL(attr);
    if (dpl < c->cpl || X86_SEL_RPL(sel) > dpl)
        x86_fault_sel(c, X86_GP, sel);
    if (x86_sys_type(attr) == X86_SYS_TASK_GATE) {
        if (!(attr & X86_ATTR_P))
            x86_fault_sel(c, X86_NP, sel);
        x86_task_gate(c, (uint16_t)(d >> 16), cause);
        return;
    }
    if (sel & X86_SEL_TI)
        x86_fault_sel(c, X86_GP, sel);
    if (!(attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    c->s.rip = x86_next_rip(c);
    x86_task_switch(c, sel, d, cause);
}

static void to_system(struct x86_cpu *c, uint16_t sel, uint64_t d, bool call)
{
    switch (x86_sys_type(x86_desc_attr(d))) {
    case X86_SYS_CALL32:
        through_gate(c, sel, d, call);
        return;
    case X86_SYS_CALL16:
        if (c->long_active)
            break;
        through_gate(c, sel, d, call);
        return;
    case X86_SYS_TASK_GATE:
    case X86_SYS_TSS16:
    case X86_SYS_TSS32:
        if (c->long_active)
            break;
        to_task(c, sel, d, call);
        return;
    default:
        break;
    }
    x86_fault_sel(c, X86_GP, sel);
}

/* Real-address and virtual-8086 mode: CS.base = sel * 16. */
static void load_cs_real(struct x86_cpu *c, uint16_t sel, uint64_t rip)
{
    if (x86_vm86(c))
        c->s.seg[X86_CS] = x86_seg_vm86(sel);
    else
        x86_seg_real(c, X86_CS, sel);
    c->s.rip = rip;
    x86_update_mode(c);
}

static void far_go(struct x86_cpu *c, uint16_t sel, uint64_t off, unsigned osize, bool call)
{
    struct x86_seg cs = c->s.seg[X86_CS];
    if (c->protected_mode) {
        if (X86_SEL_NULL(sel))
            x86_gp0(c);
        uint64_t d = x86_desc_fetch(c, sel, X86_GP);
        if (!(x86_desc_attr(d) & X86_ATTR_S)) {
            to_system(c, sel, d, call);
            return;
        }
        cs = direct_cs(c, sel, d);
    }
    struct x86_stack st = x86_stack_current(c);
    if (call)
        push_return(c, &st, osize);
    x86_check_rip(c, &cs, off);
    if (call)
        x86_stack_commit(c, &st, false);
    if (c->protected_mode)
        x86_load_cs(c, &cs, off);
    else
        load_cs_real(c, sel, off);
}

/* aux: selector; imm: offset; src2: 1 for CALL */
static void far_direct(struct x86_cpu *c, const struct x86_insn *i)
{
    far_go(c, i->aux, i->imm, i->osize, i->src2);
}

static void far_indirect(struct x86_cpu *c, const struct x86_insn *i)
{
    gva_t lin = x86_lin_r(c, i, i->osize + 2u);
    uint64_t off = i->osize == 8   ? x86_ld64(c, lin)
                   : i->osize == 4 ? x86_ld32(c, lin)
                                   : x86_ld16(c, lin);
    far_go(c, x86_ld16(c, (lin + i->osize) & c->lin_mask), off, i->osize, i->src2);
}

/* ---- RET ---- */

static void ret_outer(struct x86_cpu *c, struct x86_stack *st, const struct x86_seg *cs,
                      uint64_t rip, const struct x86_insn *i)
{
    st->sp = (st->sp + (i->imm & 0xffff)) & st->mask;
    uint64_t sp = x86_stack_pop(c, st, i->osize);
    uint16_t ss = (uint16_t)x86_stack_pop(c, st, i->osize);
    struct x86_stack to = {.ss = x86_check_return_ss(c, ss, cs)};
    x86_check_rip(c, cs, rip);
    bool wide = c->long_active && (cs->attr & X86_ATTR_L);
    to.sp = sp + (i->imm & 0xffff);
    to.mask = ~0ull;
    if (!wide) {
        to.sp = (uint32_t)to.sp;
        if (!(to.ss.attr & X86_ATTR_DB))
            to.mask = 0xffff;
    }
    x86_stack_commit(c, &to, true);
    x86_load_cs(c, cs, rip);
    x86_seg_drop_inner(c, c->cpl);
    x86_update_mode(c);
}

/* imm: bytes of parameters to release */
static void ret_far(struct x86_cpu *c, const struct x86_insn *i)
{
    struct x86_stack st = x86_stack_current(c);
    uint64_t rip = x86_stack_pop(c, &st, i->osize);
    uint16_t sel = (uint16_t)x86_stack_pop(c, &st, i->osize);
    struct x86_seg cs = c->s.seg[X86_CS];
    if (c->protected_mode) {
        cs = x86_check_return_cs(c, sel);
        if (X86_SEL_RPL(sel) > c->cpl) {
            ret_outer(c, &st, &cs, rip, i);
            return;
        }
    }
    x86_check_rip(c, &cs, rip);
    st.sp = (st.sp + (i->imm & 0xffff)) & st.mask;
    x86_stack_commit(c, &st, false);
    if (c->protected_mode)
        x86_load_cs(c, &cs, rip);
    else
        load_cs_real(c, sel, rip);
}

/* ---- binding ---- */

bool x86_bind_far(struct x86_dec *d)
{
    if (x86_is_locked(d))
        return false;
    if (d->zi->mnemonic == ZYDIS_MNEMONIC_RET)
        return x86_bind_end(d, ret_far);
    d->i->src2 = d->zi->mnemonic == ZYDIS_MNEMONIC_CALL;
    if (x86_is_mem(d, 0))
        return x86_bind_end(d, far_indirect);
    if (d->op[0].type != ZYDIS_OPERAND_TYPE_POINTER)
        return false;
    d->i->aux = d->op[0].ptr.segment;
    d->i->imm = d->op[0].ptr.offset;
    if (d->i->osize == 2)
        d->i->imm &= 0xffff;
    return x86_bind_end(d, far_direct);
}
