/*
 * task.c - task switches through 16-bit and 32-bit TSSs (SDM chapter 7). IA-32e mode has none.
 *
 * A switch has two halves. Up to the commit point a fault belongs to the old task, which has not
 * changed. From there on the new task is the current one: a fault while its registers are loaded is
 * reported with the new task's CS:EIP (SDM 7.3, step 14), which c->exc.trap tells the run loop.
 */
#include "isa/x86/op_priv.h"

/* Offsets in the TSS (SDM figures 7-2 and 7-11). */
struct layout {
    uint8_t width; /* of a register: 2 or 4 bytes */
    uint8_t ip, flags, gpr, seg, nseg, ldt;
    uint8_t min_limit;
};
static const struct layout layout16 = {2, 14, 16, 18, 34, 4, 42, 0x2b};
static const struct layout layout32 = {4, 32, 36, 40, 72, 6, 96, 0x67};
#define TSS32_CR3  28
#define TSS32_TRAP 100

static const struct layout *layout_of(uint32_t attr)
{
    return x86_sys_type(attr) & 8 ? &layout32 : &layout16;
}

struct image {
    uint32_t cr3, ip, flags, gpr[8];
    uint16_t sel[X86_NSEG], ldt;
    bool trap;
};

static uint32_t tss_read(struct x86_cpu *c, uint64_t base, unsigned off, unsigned width)
{
    gva_t a = (uint32_t)(base + off);
    return width == 4 ? x86_ldm32(c, a, X86_MMU_KERNEL) : x86_ldm16(c, a, X86_MMU_KERNEL);
}

static void tss_write(struct x86_cpu *c, uint64_t base, unsigned off, unsigned width, uint32_t v)
{
    gva_t a = (uint32_t)(base + off);
    if (width == 4)
        x86_stm32(c, a, v, X86_MMU_KERNEL);
    else
        x86_stm16(c, a, (uint16_t)v, X86_MMU_KERNEL);
}

static void save(struct x86_cpu *c, uint64_t flags)
{
    const struct layout *l = layout_of(c->s.tr.attr);
    uint64_t base = c->s.tr.base;
    tss_write(c, base, l->ip, l->width, (uint32_t)c->s.rip);
    tss_write(c, base, l->flags, l->width, (uint32_t)flags);
    for (unsigned n = 0; n < 8; n++)
        tss_write(c, base, l->gpr + n * l->width, l->width, (uint32_t)c->s.gpr[n]);
    for (unsigned n = 0; n < l->nseg; n++)
        tss_write(c, base, l->seg + n * l->width, 2, c->s.seg[n].sel);
}

static struct image load(struct x86_cpu *c, const struct x86_seg *tss)
{
    const struct layout *l = layout_of(tss->attr);
    struct image m = {0};
    m.ip = tss_read(c, tss->base, l->ip, l->width);
    m.flags = tss_read(c, tss->base, l->flags, l->width);
    for (unsigned n = 0; n < 8; n++)
        m.gpr[n] = tss_read(c, tss->base, l->gpr + n * l->width, l->width);
    for (unsigned n = 0; n < l->nseg; n++)
        m.sel[n] = (uint16_t)tss_read(c, tss->base, l->seg + n * l->width, 2);
    m.ldt = (uint16_t)tss_read(c, tss->base, l->ldt, 2);
    if (l == &layout32) {
        m.cr3 = tss_read(c, tss->base, TSS32_CR3, 4);
        m.trap = tss_read(c, tss->base, TSS32_TRAP, 2) & 1;
    }
    return m;
}

/* ---- the second half ---- */

static void load_ldt(struct x86_cpu *c, uint16_t sel)
{
    if (X86_SEL_NULL(sel))
        return;
    if (sel & X86_SEL_TI)
        x86_fault_sel(c, X86_TS, sel);
    struct x86_seg s = x86_desc_seg(x86_desc_fetch(c, sel, X86_TS), sel);
    if (x86_sys_type(s.attr) != X86_SYS_LDT || !(s.attr & X86_ATTR_P))
        x86_fault_sel(c, X86_TS, sel);
    c->s.ldtr = s;
}

static void load_cs(struct x86_cpu *c, uint16_t sel)
{
    if (X86_SEL_NULL(sel))
        x86_raise_err(c, X86_TS, 0);
    struct x86_seg s = x86_desc_seg(x86_desc_fetch(c, sel, X86_TS), sel);
    unsigned dpl = X86_ATTR_DPL(s.attr), rpl = X86_SEL_RPL(sel);
    if (!x86_attr_code(s.attr) || (x86_attr_conforming(s.attr) ? dpl > rpl : dpl != rpl))
        x86_fault_sel(c, X86_TS, sel);
    if (!(s.attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    x86_desc_accessed(c, &s);
    c->s.seg[X86_CS] = s;
}

static void load_data(struct x86_cpu *c, unsigned seg, uint16_t sel)
{
    if (X86_SEL_NULL(sel))
        return;
    struct x86_seg s = x86_desc_seg(x86_desc_fetch(c, sel, X86_TS), sel);
    unsigned dpl = X86_ATTR_DPL(s.attr);
    bool conforming = x86_attr_code(s.attr) && x86_attr_conforming(s.attr);
    if (!x86_attr_readable(s.attr) || (!conforming && (c->cpl > dpl || X86_SEL_RPL(sel) > dpl)))
        x86_fault_sel(c, X86_TS, sel);
    if (!(s.attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    x86_desc_accessed(c, &s);
    c->s.seg[seg] = s;
}

static void load_segments(struct x86_cpu *c, const struct image *m)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};
    load_ldt(c, m->ldt);
    if (m->flags & X86_FL_VM) {
        for (unsigned n = 0; n < X86_NSEG; n++)
            c->s.seg[n] = x86_seg_vm86(m->sel[n]);
        x86_update_mode(c);
        return;
    }
    load_cs(c, m->sel[X86_CS]);
    struct x86_seg ss = x86_check_ss(c, m->sel[X86_SS], X86_SEL_RPL(m->sel[X86_CS]), X86_TS);
    x86_desc_accessed(c, &ss);
    c->s.seg[X86_SS] = ss;
    x86_update_mode(c);
    for (unsigned n = 0; n < ARRAY_LEN(data); n++)
        load_data(c, data[n], m->sel[data[n]]);
    x86_update_mode(c);
}

/* All selectors are in place, none is usable yet; the CPL is that of the new CS. */
static void blank_segments(struct x86_cpu *c, const struct image *m)
{
    uint32_t cpl = m->flags & X86_FL_VM ? 3 : X86_SEL_RPL(m->sel[X86_CS]);
    for (unsigned n = 0; n < X86_NSEG; n++)
        c->s.seg[n] = (struct x86_seg){.sel = m->sel[n], .attr = X86_ATTR_UNUSABLE};
    c->s.seg[X86_SS].attr |= cpl << X86_ATTR_DPL_SH;
    c->s.ldtr = (struct x86_seg){.sel = m->ldt, .attr = X86_ATTR_UNUSABLE};
}

static void become(struct x86_cpu *c, void *arg)
{
    const struct image *m = arg;
    bool wide = layout_of(c->s.tr.attr) == &layout32;
    if (wide && (c->s.cr0 & X86_CR0_PG)) {
        x86_load_pdptes(c, m->cr3);
        x86_set_cr3(c, m->cr3, false);
    }
    load_segments(c, m);
    x86_check_rip(c, &c->s.seg[X86_CS], c->s.rip);
}

/* ---- the switch ---- */

static void check_reachable(struct x86_cpu *c, const struct x86_seg *tss, enum x86_access acc)
{
    const struct layout *l = layout_of(tss->attr);
    if (tss->limit < l->min_limit)
        x86_fault_sel(c, X86_TS, tss->sel);
    x86_probe(c, (uint32_t)tss->base, l->min_limit + 1u, acc, X86_MMU_KERNEL);
}

static void load_registers(struct x86_cpu *c, const struct image *m, bool wide)
{
    for (unsigned n = 0; n < 8; n++)
        c->s.gpr[n] = wide ? m->gpr[n] : (c->s.gpr[n] & 0xffff0000u) | m->gpr[n];
    c->s.rip = m->ip;
    blank_segments(c, m);
    x86_set_rflags(c, m->flags);
    c->s.cr0 |= X86_CR0_TS;
    c->s.dr[7] &= ~0x155ull; /* L0..L3 and LE are the task's own */
    x86_update_mode(c);
}

void x86_task_switch(struct x86_cpu *c, uint16_t sel, uint64_t d, enum x86_task_cause cause)
{
    bool nested = cause == X86_TASK_CALL || cause == X86_TASK_INT;
    struct x86_seg tss = x86_desc_seg(d, sel);
    check_reachable(c, &tss, nested ? X86_WRITE : X86_READ); /* nested: the back link */
    check_reachable(c, &c->s.tr, X86_WRITE);
    struct image m = load(c, &tss);
    uint64_t flags = x86_rflags(c);
    uint16_t old = c->s.tr.sel;
    if (cause == X86_TASK_IRET)
        flags &= ~(uint64_t)X86_FL_NT;
    /* What is written below is known to be writable, or faults first here. */
    if (cause != X86_TASK_IRET)
        x86_desc_busy(c, sel, true);
    if (!nested)
        x86_desc_busy(c, old, false);
    save(c, flags);
    if (nested) {
        tss_write(c, tss.base, 0, 2, old);
        m.flags |= X86_FL_NT;
    }
    tss.attr |= X86_SYS_BUSY;
    c->s.tr = tss;
    load_registers(c, &m, layout_of(tss.attr) == &layout32);
    if (!x86_try(c, become, &m)) {
        x86_update_mode(c);
        c->exc.trap = true;
        x86_rethrow(c);
    }
    if (m.trap) {
        c->db_hit |= X86_DR6_BT;
        c->slow |= X86_SLOW_DB;
    }
}

void x86_task_gate(struct x86_cpu *c, uint16_t sel, enum x86_task_cause cause)
{
    if (sel & X86_SEL_TI)
        x86_fault_sel(c, X86_GP, sel);
    uint64_t d = x86_desc_fetch(c, sel, X86_GP);
    uint32_t attr = x86_desc_attr(d);
    unsigned type = x86_sys_type(attr);
    if (type != X86_SYS_TSS16 && type != X86_SYS_TSS32)
        x86_fault_sel(c, X86_GP, sel);
    if (!(attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    x86_task_switch(c, sel, d, cause);
}

void x86_task_return(struct x86_cpu *c)
{
    uint16_t sel = (uint16_t)tss_read(c, c->s.tr.base, 0, 2);
    if (sel & X86_SEL_TI)
        x86_fault_sel(c, X86_TS, sel);
    uint64_t d = x86_desc_fetch(c, sel, X86_TS);
    uint32_t attr = x86_desc_attr(d);
    unsigned type = x86_sys_type(attr);
    if (type != (X86_SYS_TSS16 | X86_SYS_BUSY) && type != (X86_SYS_TSS32 | X86_SYS_BUSY))
        x86_fault_sel(c, X86_TS, sel);
    if (!(attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    x86_task_switch(c, sel, d, X86_TASK_IRET);
}
