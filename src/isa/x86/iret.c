/*
 * iret.c - return from interrupt in every mode (SDM vol. 2, IRET; vol. 3, 6.12, 21.2-21.3).
 */
#include "isa/x86/op_priv.h"

struct frame {
    uint64_t rip, flags;
    uint16_t cs;
};

static struct frame pop_frame(struct x86_cpu *c, struct x86_stack *st, unsigned size)
{
    struct frame f;
    f.rip = x86_stack_pop(c, st, size);
    f.cs = (uint16_t)x86_stack_pop(c, st, size);
    f.flags = x86_stack_pop(c, st, size);
    return f;
}

#define LOW_FLAGS (X86_FL_ARITH | X86_FL_TF | X86_FL_IF | X86_FL_DF | X86_FL_IOPL | X86_FL_NT)

/* Real-address mode: everything but VM, VIF and VIP. */
static void iret_real(struct x86_cpu *c, const struct x86_insn *i)
{
    struct x86_stack st = x86_stack_current(c);
    struct frame f = pop_frame(c, &st, i->osize);
    x86_check_rip(c, &c->s.seg[X86_CS], f.rip);
    x86_stack_commit(c, &st, false);
    x86_seg_real(c, X86_CS, f.cs);
    c->s.rip = f.rip;
    x86_update_mode(c);
    uint64_t mask = LOW_FLAGS;
    if (i->osize != 2)
        mask |= X86_FL_RF | X86_FL_AC | X86_FL_ID;
    x86_merge_rflags(c, f.flags, mask);
}

/* Virtual-8086 mode with IOPL 3, or 16-bit with CR4.VME, where IF is kept in VIF (SDM 21.3.3). */
static void iret_vm86(struct x86_cpu *c, const struct x86_insn *i)
{
    bool vme = x86_iopl(c) < 3;
    if (vme && (!(c->s.cr4 & X86_CR4_VME) || i->osize != 2))
        x86_gp0(c);
    struct x86_stack st = x86_stack_current(c);
    struct frame f = pop_frame(c, &st, i->osize);
    x86_check_rip(c, &c->s.seg[X86_CS], f.rip);
    uint64_t mask = LOW_FLAGS & ~X86_FL_IOPL;
    if (vme) {
        if ((f.flags & X86_FL_TF) || ((f.flags & X86_FL_IF) && (c->s.rflags & X86_FL_VIP)))
            x86_gp0(c);
        mask = (mask & ~X86_FL_IF) | X86_FL_VIF;
        if (f.flags & X86_FL_IF)
            f.flags |= X86_FL_VIF;
    } else if (i->osize != 2) {
        mask |= X86_FL_RF | X86_FL_AC | X86_FL_ID;
    }
    x86_stack_commit(c, &st, false);
    c->s.seg[X86_CS] = x86_seg_vm86(f.cs);
    c->s.rip = f.rip;
    x86_update_mode(c);
    x86_merge_rflags(c, f.flags, mask);
}

/* From CPL 0 to virtual-8086 mode: ESP, SS, ES, DS, FS, GS follow on the stack. */
static void iret_to_vm86(struct x86_cpu *c, struct x86_stack *st, const struct frame *f)
{
    static const uint8_t order[] = {X86_SS, X86_ES, X86_DS, X86_FS, X86_GS};
    uint32_t esp = (uint32_t)x86_stack_pop(c, st, 4);
    uint16_t sel[ARRAY_LEN(order)];
    for (unsigned n = 0; n < ARRAY_LEN(order); n++)
        sel[n] = (uint16_t)x86_stack_pop(c, st, 4);
    if (f->rip > 0xffff)
        x86_gp0(c);
    for (unsigned n = 0; n < ARRAY_LEN(order); n++)
        c->s.seg[order[n]] = x86_seg_vm86(sel[n]);
    c->s.seg[X86_CS] = x86_seg_vm86(f->cs);
    c->s.gpr[X86_RSP] = esp;
    c->s.rip = f->rip;
    x86_set_rflags(c, f->flags);
    x86_update_mode(c);
}

/* The flags that code at this CPL may load with IRET. */
static uint64_t loadable_flags(const struct x86_cpu *c, unsigned osize)
{
    uint64_t mask = LOW_FLAGS & ~(X86_FL_IF | X86_FL_IOPL);
    if (osize != 2)
        mask |= X86_FL_RF | X86_FL_AC | X86_FL_ID;
    if (c->cpl <= x86_iopl(c))
        mask |= X86_FL_IF;
    if (c->cpl == 0) {
        mask |= X86_FL_IOPL;
        if (osize != 2)
            mask |= X86_FL_VIF | X86_FL_VIP;
    }
    return mask;
}

static void iret_protected(struct x86_cpu *c, const struct x86_insn *i)
{
    struct x86_stack st = x86_stack_current(c);
    struct frame f = pop_frame(c, &st, i->osize);
    if ((f.flags & X86_FL_VM) && c->cpl == 0 && i->osize == 4 && !c->long_active) {
        iret_to_vm86(c, &st, &f);
        return;
    }
    struct x86_seg cs = x86_check_return_cs(c, f.cs);
    unsigned cpl = c->cpl;
    bool outer = X86_SEL_RPL(f.cs) > cpl;
    bool load_ss = outer || c->code_size == 64; /* 64-bit code always pops SS:RSP (SDM 6.14.3) */
    if (load_ss) {
        uint64_t sp = x86_stack_pop(c, &st, i->osize);
        st.ss = x86_check_return_ss(c, (uint16_t)x86_stack_pop(c, &st, i->osize), &cs);
        st.sp = sp;
        bool wide = c->long_active && (cs.attr & X86_ATTR_L);
        st.mask = wide || (st.ss.attr & X86_ATTR_DB) ? ~0ull : 0xffff;
    }
    x86_check_rip(c, &cs, f.rip);
    uint64_t mask = loadable_flags(c, i->osize);
    x86_stack_commit(c, &st, load_ss);
    x86_load_cs(c, &cs, f.rip);
    x86_merge_rflags(c, f.flags, mask);
    if (outer) {
        x86_seg_drop_inner(c, c->cpl);
        x86_update_mode(c);
    }
}

static void iret(struct x86_cpu *c, const struct x86_insn *i)
{
    c->s.nmi_blocked = 0; /* even if it faults (SDM 6.7.1) */
    if (x86_vm86(c)) {
        iret_vm86(c, i);
    } else if (!c->protected_mode) {
        iret_real(c, i);
    } else if (c->s.rflags & X86_FL_NT) {
        if (c->long_active)
            x86_gp0(c);
        x86_task_return(c);
    } else {
        iret_protected(c, i);
    }
}

static bool bind_iret(struct x86_dec *d)
{
    if (x86_is_locked(d))
        return false;
    d->i->osize = (uint8_t)d->arg;
    return x86_bind_end(d, iret);
}

const struct x86_bind_row x86_rows_far[] = {
    {ZYDIS_MNEMONIC_IRET, bind_iret, 2},        {ZYDIS_MNEMONIC_IRETD, bind_iret, 4},
    {ZYDIS_MNEMONIC_IRETQ, bind_iret, 8},       {ZYDIS_MNEMONIC_SYSCALL, x86_bind_fast, 0},
    {ZYDIS_MNEMONIC_SYSRET, x86_bind_fast, 0},  {ZYDIS_MNEMONIC_SYSENTER, x86_bind_fast, 0},
    {ZYDIS_MNEMONIC_SYSEXIT, x86_bind_fast, 0}, {0, NULL, 0},
};
