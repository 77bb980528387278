/*
 * event.c - delivery of exceptions and interrupts (SDM chapter 6; 21.3 for virtual-8086 mode).
 *
 * Delivery may itself fault. Each attempt therefore runs inside x86_try(), changes no register
 * before its last possible fault, and on failure is replaced by what the two events make together:
 * the new exception, #DF, or shutdown (SDM 6.15, "Interrupt 8").
 */
#include "isa/x86/op.h"
#include "isa/x86/priv.h"

enum event_kind { EVENT_EXTERNAL, EVENT_EXCEPTION, EVENT_SOFT };

struct event {
    uint8_t vector;
    enum event_kind kind;
    bool has_error;
    uint32_t error;
    bool rf;      /* the saved RFLAGS.RF is 1 */
    uint64_t rip; /* EVENT_SOFT: of the instruction, should it fault */
};

/* More nested faults than the architecture can produce, except for endless #AC: shutdown. */
#define NESTING_MAX 8

/* ---- real-address mode (SDM 20.1.4) ---- */

static void enter_real(struct x86_cpu *c, const struct event *e)
{
    unsigned off = e->vector * 4u;
    if (off + 3 > c->s.idtr.limit)
        x86_raise_err(c, X86_GP, e->vector * 8u + 2);
    uint32_t v = x86_ldm32(c, x86_sys_lin(c, c->s.idtr.base + off), X86_MMU_KERNEL);
    struct x86_stack st = x86_stack_current(c);
    x86_stack_push(c, &st, x86_rflags(c), 2);
    x86_stack_push(c, &st, c->s.seg[X86_CS].sel, 2);
    x86_stack_push(c, &st, c->s.rip, 2);
    x86_check_rip(c, &c->s.seg[X86_CS], v & 0xffff);
    x86_stack_commit(c, &st, false);
    x86_seg_real(c, X86_CS, (uint16_t)(v >> 16));
    c->s.rip = v & 0xffff;
    x86_merge_rflags(c, 0, X86_FL_IF | X86_FL_TF | X86_FL_AC | X86_FL_RF);
    x86_update_mode(c);
}

/* ---- protected mode and IA-32e mode ---- */

struct gate {
    unsigned type, ist, size; /* size: of what is pushed */
    uint16_t sel;
    uint64_t rip;
};

static bool gate_type_ok(const struct x86_cpu *c, unsigned type)
{
    switch (type) {
    case X86_SYS_INTR32:
    case X86_SYS_TRAP32:
        return true;
    case X86_SYS_INTR16:
    case X86_SYS_TRAP16:
    case X86_SYS_TASK_GATE:
        return !c->long_active;
    default:
        return false;
    }
}

static struct gate read_gate(struct x86_cpu *c, const struct event *e)
{
    unsigned len = c->long_active ? 16 : 8, off = e->vector * len, error = e->vector * 8u + 2;
    if (off + len - 1 > c->s.idtr.limit)
        x86_raise_err(c, X86_GP, error);
    gva_t a = x86_sys_lin(c, c->s.idtr.base + off);
    uint64_t d = x86_ldm64(c, a, X86_MMU_KERNEL);
    uint32_t attr = x86_desc_attr(d);
    struct gate g = {.type = x86_sys_type(attr), .sel = (uint16_t)(d >> 16)};
    if (!gate_type_ok(c, g.type))
        x86_raise_err(c, X86_GP, error);
    if (e->kind == EVENT_SOFT && X86_ATTR_DPL(attr) < c->cpl)
        x86_raise_err(c, X86_GP, error);
    if (!(attr & X86_ATTR_P))
        x86_raise_err(c, X86_NP, error);
    g.rip = (d & 0xffff) | ((d >> 32) & 0xffff0000u);
    g.size = 4;
    if (c->long_active) {
        g.rip |= (x86_ldm64(c, a + 8, X86_MMU_KERNEL) & 0xffffffff) << 32;
        g.ist = (d >> 32) & 7;
        g.size = 8;
    } else if (!(g.type & 8)) {
        g.rip &= 0xffff;
        g.size = 2;
    }
    return g;
}

/* The handler's code segment; sel.RPL is the privilege level it runs at. */
static struct x86_seg handler_cs(struct x86_cpu *c, uint16_t sel)
{
    if (X86_SEL_NULL(sel))
        x86_gp0(c);
    struct x86_seg cs = x86_desc_seg(x86_desc_fetch(c, sel, X86_GP), sel);
    unsigned dpl = X86_ATTR_DPL(cs.attr);
    bool conforming = x86_attr_conforming(cs.attr);
    if (!x86_attr_code(cs.attr) || dpl > c->cpl)
        x86_fault_sel(c, X86_GP, sel);
    if (c->long_active && (cs.attr & (X86_ATTR_L | X86_ATTR_DB)) != X86_ATTR_L)
        x86_fault_sel(c, X86_GP, sel);
    if (!(cs.attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    if (x86_vm86(c) && (conforming || dpl != 0))
        x86_fault_sel(c, X86_GP, sel);
    x86_desc_accessed(c, &cs);
    cs.sel = (uint16_t)((sel & ~3u) | (conforming ? c->cpl : dpl));
    return cs;
}

/* The stack of the handler, with the interrupted SS:RSP on it if it is another one, and always in
 * IA-32e mode (SDM 6.14.2). */
static struct x86_stack handler_stack(struct x86_cpu *c, const struct gate *g, unsigned cpl)
{
    static const uint8_t vm86_order[] = {X86_GS, X86_FS, X86_DS, X86_ES};
    bool inner = cpl < c->cpl;
    struct x86_stack st = x86_stack_current(c);
    if (inner || g->ist)
        st = x86_stack_inner(c, cpl, g->ist);
    if (c->long_active) {
        if (!inner && !g->ist) {
            st.sp = c->s.gpr[X86_RSP];
            st.mask = ~0ull;
            st.flat = true;
        }
        st.sp &= ~15ull;
    }
    if (!inner && !c->long_active)
        return st;
    if (x86_vm86(c))
        for (unsigned n = 0; n < ARRAY_LEN(vm86_order); n++)
            x86_stack_push(c, &st, c->s.seg[vm86_order[n]].sel, g->size);
    x86_stack_push(c, &st, c->s.seg[X86_SS].sel, g->size);
    x86_stack_push(c, &st, c->s.gpr[X86_RSP], g->size);
    return st;
}

static void enter_gate(struct x86_cpu *c, const struct event *e, const struct gate *g)
{
    struct x86_seg cs = handler_cs(c, g->sel);
    unsigned cpl = X86_SEL_RPL(cs.sel);
    bool inner = cpl < c->cpl, vm86 = x86_vm86(c);
    uint64_t flags = x86_rflags(c);
    struct x86_stack st = handler_stack(c, g, cpl);
    x86_stack_push(c, &st, e->rf ? flags | X86_FL_RF : flags, g->size);
    x86_stack_push(c, &st, c->s.seg[X86_CS].sel, g->size);
    x86_stack_push(c, &st, c->s.rip, g->size);
    if (e->has_error)
        x86_stack_push(c, &st, e->error, g->size);
    x86_check_rip(c, &cs, g->rip);
    if (inner)
        x86_desc_accessed(c, &st.ss);
    /* nothing below can fault */
    x86_stack_commit(c, &st, inner);
    flags &= ~(uint64_t)(X86_FL_TF | X86_FL_NT | X86_FL_RF | X86_FL_VM);
    if (!(g->type & 1)) /* an interrupt gate */
        flags &= ~(uint64_t)X86_FL_IF;
    if (vm86) {
        static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};
        for (unsigned n = 0; n < ARRAY_LEN(data); n++)
            c->s.seg[data[n]] = (struct x86_seg){.attr = X86_ATTR_UNUSABLE};
    }
    x86_set_rflags(c, flags);
    x86_load_cs(c, &cs, g->rip);
}

static void enter_task(struct x86_cpu *c, const struct event *e, const struct gate *g)
{
    if (e->rf)
        c->s.rflags |= X86_FL_RF;
    x86_task_gate(c, g->sel, X86_TASK_INT);
    if (!e->has_error)
        return;
    struct x86_stack st = x86_stack_current(c);
    x86_stack_push(c, &st, e->error, x86_sys_type(c->s.tr.attr) & 8 ? 4 : 2);
    x86_stack_commit(c, &st, false);
}

static void enter(struct x86_cpu *c, void *arg)
{
    const struct event *e = arg;
    if (!(c->s.cr0 & X86_CR0_PE)) {
        enter_real(c, e);
        return;
    }
    struct gate g = read_gate(c, e);
    if (g.type == X86_SYS_TASK_GATE)
        enter_task(c, e, &g);
    else
        enter_gate(c, e, &g);
}

/* ---- nesting ---- */

static bool contributory(unsigned v)
{
    return v == X86_DE || (v >= X86_TS && v <= X86_GP);
}

/* What becomes of `second`, raised while `first` was delivered. False: shutdown. */
static bool combine(const struct event *first, struct event *second)
{
    if (first->kind != EVENT_EXCEPTION)
        return true;
    bool serious = contributory(second->vector) || second->vector == X86_PF;
    if (first->vector == X86_DF)
        return !serious;
    bool twice = contributory(first->vector) ? contributory(second->vector)
                                             : first->vector == X86_PF && serious;
    if (twice)
        *second = (struct event){
            .vector = X86_DF, .kind = EVENT_EXCEPTION, .has_error = true, .rf = true};
    return true;
}

/* c->exc as an event; with the registers it leaves its cause in (CR2, DR6). */
static struct event raised(struct x86_cpu *c)
{
    struct event e = {.vector = c->exc.vector,
                      .kind = c->exc.soft ? EVENT_SOFT : EVENT_EXCEPTION,
                      .has_error = c->exc.has_error,
                      .error = c->exc.error};
    e.rf = !c->exc.soft && !c->exc.trap;
    if (c->exc.soft)
        e.rip = c->exc.cr2;
    if (e.vector == X86_PF)
        c->s.cr2 = c->exc.cr2;
    if (e.vector == X86_DB && !c->exc.soft) {
        /* Saved RF: instruction breakpoints do not set it (SDM 6.8.3, 18.3.1.1). */
        e.rf = c->exc.dr6 & X86_DR6_BD;
        if (c->exc.dr6)
            c->s.dr[6] = (c->s.dr[6] & ~0xfull) | c->exc.dr6;
        c->s.dr[7] &= ~(uint64_t)X86_DR7_GD;
    }
    return e;
}

static void deliver(struct x86_cpu *c, struct event e)
{
    c->s.activity = X86_RUNNING;
    c->s.sti_shadow = c->s.movss_shadow = 0;
    c->slow &= ~X86_SLOW_SHADOW;
    for (unsigned n = 0; n < NESTING_MAX; n++) {
        if (x86_try(c, enter, &e))
            return;
        /* exc.trap: a task switch had got beyond the point of return, RIP is the new task's. */
        if (e.kind == EVENT_SOFT && !c->exc.trap)
            c->s.rip = e.rip;
        struct event second = raised(c);
        if (e.kind != EVENT_SOFT && second.vector >= X86_TS && second.vector <= X86_GP)
            second.error |= 1; /* EXT (SDM 6.13) */
        if (!combine(&e, &second))
            break;
        e = second;
    }
    c->s.activity = X86_SHUTDOWN;
}

void x86_deliver_exception(struct x86_cpu *c)
{
    deliver(c, raised(c));
}

void x86_deliver_interrupt(struct x86_cpu *c, uint8_t vector)
{
    deliver(c, (struct event){.vector = vector, .kind = EVENT_EXTERNAL});
}

void x86_deliver_nmi(struct x86_cpu *c)
{
    c->s.nmi_blocked = 1;
    deliver(c, (struct event){.vector = X86_NMI, .kind = EVENT_EXTERNAL});
}

/* ---- INT n, INT3, INTO ---- */

_Noreturn void x86_soft_trap(struct x86_cpu *c, uint8_t vector)
{
    memset(&c->exc, 0, sizeof c->exc);
    c->exc.vector = vector;
    c->exc.soft = true;
    c->exc.trap = true;
    c->exc.cr2 = x86_insn_rip(c); /* where a fault of its delivery is reported */
    x86_rethrow(c);
}

/* The bit of the software interrupt redirection map, 32 bytes below the I/O map (SDM 21.3.1). */
static bool redirected_to_monitor(struct x86_cpu *c, uint8_t vector)
{
    const struct x86_seg *tr = &c->s.tr;
    if (!(x86_sys_type(tr->attr) & 8) || tr->limit < 103)
        x86_gp0(c);
    unsigned map = x86_ldm16(c, x86_sys_lin(c, tr->base + 102), X86_MMU_KERNEL);
    if (map < 32 || map - 32 + vector / 8 > tr->limit)
        x86_gp0(c);
    uint64_t a = tr->base + map - 32 + vector / 8;
    return x86_ldm8(c, x86_sys_lin(c, a), X86_MMU_KERNEL) >> (vector % 8) & 1;
}

/* Method 5 and 6 of SDM table 21-2: the 8086 program handles the interrupt itself. */
static void vme_interrupt(struct x86_cpu *c, uint8_t vector)
{
    uint32_t v = x86_ld32(c, vector * 4u);
    uint64_t flags = x86_rflags(c), image = flags, clear = X86_FL_TF | X86_FL_IF;
    if (x86_iopl(c) < 3) {
        image = (flags & ~(uint64_t)X86_FL_IF) | X86_FL_IOPL;
        if (flags & X86_FL_VIF)
            image |= X86_FL_IF;
        clear = X86_FL_TF | X86_FL_VIF;
    }
    struct x86_stack st = x86_stack_current(c);
    x86_stack_push(c, &st, image, 2);
    x86_stack_push(c, &st, c->s.seg[X86_CS].sel, 2);
    x86_stack_push(c, &st, x86_next_rip(c), 2);
    x86_stack_commit(c, &st, false);
    c->s.seg[X86_CS] = x86_seg_vm86((uint16_t)(v >> 16));
    c->s.rip = v & 0xffff;
    x86_update_mode(c);
    x86_merge_rflags(c, 0, clear | X86_FL_RF);
}

void x86_soft_int(struct x86_cpu *c, uint8_t vector)
{
    if (x86_vm86(c)) {
        if ((c->s.cr4 & X86_CR4_VME) && !redirected_to_monitor(c, vector)) {
            vme_interrupt(c, vector);
            return;
        }
        if (x86_iopl(c) < 3)
            x86_gp0(c);
    }
    x86_soft_trap(c, vector);
}
