/*
 * seg.c - loading of ES, SS, DS, FS and GS (SDM vol. 2, MOV and POP; vol. 3, 3.4.2).
 */
#include "isa/x86/priv.h"

static void load_ss(struct x86_cpu *c, uint16_t sel)
{
    if (X86_SEL_NULL(sel)) {
        /* 64-bit mode allows a null stack segment below CPL 3 (SDM 5.4.1.1). */
        if (c->code_size != 64 || c->cpl == 3 || X86_SEL_RPL(sel) != c->cpl)
            x86_gp0(c);
        c->s.seg[X86_SS] = x86_null_ss(c->cpl);
    } else {
        struct x86_seg s = x86_check_ss(c, sel, c->cpl, X86_GP);
        x86_desc_accessed(c, &s);
        c->s.seg[X86_SS] = s;
    }
    x86_update_mode(c); /* the stack's address size */
}

static void load_data(struct x86_cpu *c, unsigned seg, uint16_t sel)
{
    if (X86_SEL_NULL(sel)) {
        c->s.seg[seg] = (struct x86_seg){.sel = sel, .attr = X86_ATTR_UNUSABLE};
        x86_update_seg(c, seg);
        return;
    }
    struct x86_seg s = x86_desc_seg(x86_desc_fetch(c, sel, X86_GP), sel);
    if (!x86_attr_readable(s.attr))
        x86_fault_sel(c, X86_GP, sel);
    bool conforming = x86_attr_code(s.attr) && x86_attr_conforming(s.attr);
    unsigned dpl = X86_ATTR_DPL(s.attr);
    if (!conforming && (X86_SEL_RPL(sel) > dpl || c->cpl > dpl))
        x86_fault_sel(c, X86_GP, sel);
    if (!(s.attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    x86_desc_accessed(c, &s);
    c->s.seg[seg] = s;
    x86_update_seg(c, seg);
}

void x86_load_seg(struct x86_cpu *c, unsigned seg, uint16_t sel)
{
    if (x86_vm86(c)) {
        c->s.seg[seg] = x86_seg_vm86(sel);
        x86_update_seg(c, seg);
    } else if (!c->protected_mode) {
        x86_seg_real(c, seg, sel);
        x86_update_seg(c, seg);
    } else if (seg == X86_SS) {
        load_ss(c, sel);
    } else {
        load_data(c, seg, sel);
    }
}
