/*
 * op_seg.c - instructions on segment registers and descriptor tables: MOV, PUSH, POP of segment
 * registers, LDS and relatives, LGDT LIDT LLDT LTR and their stores, LAR LSL VERR VERW ARPL.
 */
#include "isa/x86/op_priv.h"

/* ---- segment registers ---- */

/* After MOV SS and POP SS nothing interrupts before the next instruction (SDM 6.8.3). */
static void shadow_movss(struct x86_cpu *c)
{
    c->s.movss_shadow = 1;
    c->slow |= X86_SLOW_SHADOW;
}

static void mov_sreg_reg(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_load_seg(c, i->dst, x86_r16(c, i->src));
    if (i->dst == X86_SS)
        shadow_movss(c);
}

static void mov_sreg_mem(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_load_seg(c, i->dst, x86_ld16(c, x86_lin_r(c, i, 2)));
    if (i->dst == X86_SS)
        shadow_movss(c);
}

static void mov_reg_sreg(struct x86_cpu *c, const struct x86_insn *i)
{
    uint16_t sel = c->s.seg[i->src].sel;
    if (i->osize == 2)
        x86_w16(c, i->dst, sel);
    else
        x86_w64(c, i->dst, sel);
}

static void mov_mem_sreg(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_st16(c, x86_lin_w(c, i, 2), c->s.seg[i->src].sel);
}

static uint8_t sreg_code(const struct x86_dec *d, unsigned n)
{
    return (uint8_t)ZydisRegisterGetId(d->op[n].reg.value);
}

static bool is_sreg(const struct x86_dec *d, unsigned n)
{
    return x86_is_reg(d, n) && ZydisRegisterGetClass(d->op[n].reg.value) == ZYDIS_REGCLASS_SEGMENT;
}

static bool bind_mov_to_sreg(struct x86_dec *d)
{
    d->i->dst = sreg_code(d, 0);
    if (d->i->dst == X86_CS || d->i->dst >= X86_NSEG)
        return false;
    if (d->i->dst == X86_SS)
        d->i->flags |= X86_IF_END;
    if (x86_is_mem(d, 1)) {
        d->i->fn = mov_sreg_mem;
    } else {
        d->i->src = x86_reg_code(d, 1);
        d->i->fn = mov_sreg_reg;
    }
    return true;
}

bool x86_bind_mov_sys(struct x86_dec *d)
{
    if (is_sreg(d, 0))
        return bind_mov_to_sreg(d);
    if (!is_sreg(d, 1))
        return x86_bind_mov_crdr(d);
    d->i->src = sreg_code(d, 1);
    if (d->i->src >= X86_NSEG)
        return false;
    if (x86_is_mem(d, 0)) {
        d->i->fn = mov_mem_sreg;
    } else {
        d->i->dst = x86_reg_code(d, 0);
        d->i->fn = mov_reg_sreg;
    }
    return true;
}

static void push_sreg(struct x86_cpu *c, const struct x86_insn *i)
{
    uint16_t sel = c->s.seg[i->src].sel;
    if (i->osize == 8) {
        x86_push64(c, sel);
    } else if (i->osize == 2) {
        x86_push16(c, sel);
    } else { /* the upper half of the slot is not written (SDM vol. 2, PUSH) */
        uint64_t sp = (c->s.gpr[X86_RSP] - 4) & c->sp_mask;
        x86_st16(c, x86_seg_lin(c, X86_SS, sp, 2, X86_SEGOK_W), sel);
        x86_set_rsp(c, sp);
    }
}

static void pop_sreg(struct x86_cpu *c, const struct x86_insn *i)
{
    uint16_t sel = x86_peek16(c, 0);
    uint64_t mask = c->sp_mask, rsp = c->s.gpr[X86_RSP]; /* POP SS may change the mask */
    x86_load_seg(c, i->dst, sel);
    c->s.gpr[X86_RSP] = (rsp & ~mask) | ((rsp + i->osize) & mask);
    if (i->dst == X86_SS)
        shadow_movss(c);
}

bool x86_bind_pushpop_seg(struct x86_dec *d)
{
    if (d->zi->mnemonic == ZYDIS_MNEMONIC_PUSH) {
        d->i->src = sreg_code(d, 0);
        d->i->fn = push_sreg;
        return d->i->src < X86_NSEG;
    }
    d->i->dst = sreg_code(d, 0);
    d->i->fn = pop_sreg;
    if (d->i->dst == X86_SS)
        d->i->flags |= X86_IF_END;
    return d->i->dst != X86_CS && d->i->dst < X86_NSEG;
}

/* LDS LES LSS LFS LGS: aux is the segment register. */
static void load_far_pointer(struct x86_cpu *c, const struct x86_insn *i)
{
    gva_t lin = x86_lin_r(c, i, i->osize);
    uint64_t sel_ea = (x86_ea(c, i) + i->osize) & i->amask;
    uint64_t off = i->osize == 8   ? x86_ld64(c, lin)
                   : i->osize == 4 ? x86_ld32(c, lin)
                                   : x86_ld16(c, lin);
    gva_t sel_lin = x86_seg_lin(c, i->seg, sel_ea, 2, X86_SEGOK_R);
    x86_load_seg(c, i->aux, x86_ld16(c, sel_lin));
    if (i->osize == 2)
        x86_w16(c, i->dst, (uint16_t)off);
    else
        x86_w64(c, i->dst, off);
}

static bool bind_load_far_pointer(struct x86_dec *d)
{
    if (!x86_is_mem(d, 1))
        return false;
    d->i->dst = x86_reg_code(d, 0);
    d->i->aux = (uint16_t)d->arg;
    return x86_bind_end(d, load_far_pointer);
}

/* ---- descriptor table registers ---- */

/* SGDT SIDT SLDT STR SMSW: CR4.UMIP keeps them from applications (SDM 2.5). */
void x86_umip_check(struct x86_cpu *c)
{
    if (UNLIKELY(c->cpl && (c->s.cr4 & X86_CR4_UMIP)))
        x86_gp0(c);
}

static struct x86_dtr read_dtr(struct x86_cpu *c, const struct x86_insn *i)
{
    uint8_t b[10];
    unsigned len = c->code_size == 64 ? 10 : 6;
    struct x86_dtr r = {0};
    x86_ld_bytes(c, x86_lin_r(c, i, len), b, len, (enum x86_mmu)c->mmu);
    memcpy(&r.limit, b, 2);
    memcpy(&r.base, b + 2, len - 2);
    if (len == 6 && i->osize == 2)
        r.base &= 0xffffff;
    if (len == 10 && !x86_canonical(r.base))
        x86_gp0(c);
    return r;
}

static void lgdt(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_need_cpl0(c);
    c->s.gdtr = read_dtr(c, i);
}

static void lidt(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_need_cpl0(c);
    c->s.idtr = read_dtr(c, i);
}

static void store_dtr(struct x86_cpu *c, const struct x86_insn *i, const struct x86_dtr *r)
{
    uint8_t b[10];
    unsigned len = c->code_size == 64 ? 10 : 6;
    x86_umip_check(c);
    memcpy(b, &r->limit, 2);
    memcpy(b + 2, &r->base, 8);
    x86_st_bytes(c, x86_lin_w(c, i, len), b, len, (enum x86_mmu)c->mmu);
}

static void sgdt(struct x86_cpu *c, const struct x86_insn *i)
{
    store_dtr(c, i, &c->s.gdtr);
}

static void sidt(struct x86_cpu *c, const struct x86_insn *i)
{
    store_dtr(c, i, &c->s.idtr);
}

/* LLDT LTR SLDT STR and the descriptor inspections exist in protected mode only. */
static void need_protected(struct x86_cpu *c)
{
    if (UNLIKELY(!c->protected_mode))
        x86_ud(c);
}

uint16_t x86_rm16(struct x86_cpu *c, const struct x86_insn *i)
{
    return i->flags & X86_IF_MEM ? x86_ld16(c, x86_lin_r(c, i, 2)) : x86_r16(c, i->src);
}

/* Reads an LDT or TSS descriptor: 16 bytes in IA-32e mode. */
static struct x86_seg fetch_system(struct x86_cpu *c, uint16_t sel)
{
    if (sel & X86_SEL_TI)
        x86_fault_sel(c, X86_GP, sel);
    struct x86_seg s = x86_desc_seg(x86_desc_fetch(c, sel, X86_GP), sel);
    if (c->long_active) {
        s.base |= x86_desc_fetch_upper(c, sel, X86_GP) << 32;
        if (!x86_canonical(s.base))
            x86_fault_sel(c, X86_GP, sel);
    }
    return s;
}

static void lldt(struct x86_cpu *c, const struct x86_insn *i)
{
    need_protected(c);
    x86_need_cpl0(c);
    uint16_t sel = x86_rm16(c, i);
    if (X86_SEL_NULL(sel)) {
        c->s.ldtr = (struct x86_seg){.sel = sel, .attr = X86_ATTR_UNUSABLE};
        return;
    }
    struct x86_seg s = fetch_system(c, sel);
    if (x86_sys_type(s.attr) != X86_SYS_LDT)
        x86_fault_sel(c, X86_GP, sel);
    if (!(s.attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    c->s.ldtr = s;
}

static void ltr(struct x86_cpu *c, const struct x86_insn *i)
{
    need_protected(c);
    x86_need_cpl0(c);
    uint16_t sel = x86_rm16(c, i);
    if (X86_SEL_NULL(sel))
        x86_gp0(c);
    struct x86_seg s = fetch_system(c, sel);
    unsigned type = x86_sys_type(s.attr);
    if (type != X86_SYS_TSS32 && (type != X86_SYS_TSS16 || c->long_active))
        x86_fault_sel(c, X86_GP, sel);
    if (!(s.attr & X86_ATTR_P))
        x86_fault_sel(c, X86_NP, sel);
    if (x86_desc_busy(c, sel, true) & X86_SYS_BUSY) /* another processor was faster */
        x86_fault_sel(c, X86_GP, sel);
    s.attr |= X86_SYS_BUSY;
    c->s.tr = s;
}

/* aux 0: SLDT, 1: STR */
static void store_system(struct x86_cpu *c, const struct x86_insn *i)
{
    need_protected(c);
    x86_umip_check(c);
    uint16_t sel = i->aux ? c->s.tr.sel : c->s.ldtr.sel;
    if (i->flags & X86_IF_MEM)
        x86_st16(c, x86_lin_w(c, i, 2), sel);
    else if (i->osize == 2)
        x86_w16(c, i->dst, sel);
    else
        x86_w64(c, i->dst, sel);
}

static bool bind_store_system(struct x86_dec *d)
{
    if (x86_is_reg(d, 0))
        d->i->dst = x86_reg_code(d, 0);
    d->i->aux = (uint16_t)d->arg;
    d->i->fn = store_system;
    return true;
}

/* ---- inspection of descriptors ---- */

static void set_zf(struct x86_cpu *c, bool zf)
{
    uint32_t f = x86_arith_flags(c);
    x86_set_arith_flags(c, zf ? f | X86_FL_ZF : f & ~X86_FL_ZF);
}

/* Would the selector be allowed to refer to the segment, conforming code aside? */
static bool privileged_for(const struct x86_cpu *c, uint16_t sel, uint32_t attr)
{
    unsigned dpl = X86_ATTR_DPL(attr);
    if (x86_attr_code(attr) && x86_attr_conforming(attr))
        return true;
    return c->cpl <= dpl && X86_SEL_RPL(sel) <= dpl;
}

/* System types that LAR (aux 0) and LSL (aux 1) accept: bit n for type n (SDM vol. 2, tables 3-53,
 * 3-57). */
static bool inspectable(const struct x86_cpu *c, unsigned type, bool lsl)
{
    unsigned ok = 1u << X86_SYS_LDT | 1u << X86_SYS_TSS32 | 1u << (X86_SYS_TSS32 | X86_SYS_BUSY);
    if (!lsl)
        ok |= 1u << X86_SYS_CALL32;
    if (!c->long_active) {
        ok |= 1u << X86_SYS_TSS16 | 1u << (X86_SYS_TSS16 | X86_SYS_BUSY);
        if (!lsl)
            ok |= 1u << X86_SYS_CALL16 | 1u << X86_SYS_TASK_GATE;
    }
    return ok >> type & 1;
}

static void lar_lsl(struct x86_cpu *c, const struct x86_insn *i)
{
    need_protected(c);
    uint16_t sel = x86_rm16(c, i);
    uint64_t d;
    bool ok = x86_desc_peek(c, sel, &d);
    if (ok) {
        uint32_t attr = x86_desc_attr(d);
        ok = privileged_for(c, sel, attr) &&
             ((attr & X86_ATTR_S) || inspectable(c, x86_sys_type(attr), i->aux));
    }
    set_zf(c, ok);
    if (!ok)
        return;
    uint32_t v = i->aux ? x86_desc_seg(d, sel).limit : (uint32_t)(d >> 32) & 0xffff00u;
    if (i->osize == 2)
        x86_w16(c, i->dst, (uint16_t)v);
    else
        x86_w64(c, i->dst, v);
}

/* aux 0: VERR, 1: VERW */
static void verr_verw(struct x86_cpu *c, const struct x86_insn *i)
{
    need_protected(c);
    uint16_t sel = x86_rm16(c, i);
    uint64_t d;
    bool ok = x86_desc_peek(c, sel, &d);
    if (ok) {
        uint32_t attr = x86_desc_attr(d);
        ok = privileged_for(c, sel, attr) &&
             (i->aux ? x86_attr_writable(attr) : x86_attr_readable(attr));
    }
    set_zf(c, ok);
}

static void arpl(struct x86_cpu *c, const struct x86_insn *i)
{
    need_protected(c);
    uint16_t src = x86_r16(c, i->src2);
    uint16_t dst = i->flags & X86_IF_MEM ? x86_ld16(c, x86_lin_r(c, i, 2)) : x86_r16(c, i->src);
    bool raise = X86_SEL_RPL(dst) < X86_SEL_RPL(src);
    if (raise) { /* else nothing is written: a read-only operand does not fault */
        dst = (uint16_t)((dst & ~3u) | X86_SEL_RPL(src));
        if (i->flags & X86_IF_MEM)
            x86_st16(c, x86_lin_w(c, i, 2), dst);
        else
            x86_w16(c, i->src, dst);
    }
    set_zf(c, raise);
}

/* ---- binding ---- */

static bool bind_lldt_ltr(struct x86_dec *d)
{
    if (x86_is_reg(d, 0))
        d->i->src = x86_reg_code(d, 0);
    return x86_bind_end(d, d->arg ? ltr : lldt);
}

static bool bind_dtr(struct x86_dec *d)
{
    static const x86_op_fn fn[] = {lgdt, lidt, sgdt, sidt};
    if (!x86_is_mem(d, 0))
        return false;
    return x86_bind_end(d, fn[d->arg]);
}

static bool bind_lar_lsl(struct x86_dec *d)
{
    d->i->dst = x86_reg_code(d, 0);
    if (x86_is_reg(d, 1))
        d->i->src = x86_reg_code(d, 1);
    d->i->aux = (uint16_t)d->arg;
    d->i->fn = lar_lsl;
    return true;
}

static bool bind_verr_verw(struct x86_dec *d)
{
    if (x86_is_reg(d, 0))
        d->i->src = x86_reg_code(d, 0);
    d->i->aux = (uint16_t)d->arg;
    d->i->fn = verr_verw;
    return true;
}

static bool bind_arpl(struct x86_dec *d)
{
    if (x86_is_reg(d, 0))
        d->i->src = x86_reg_code(d, 0);
    d->i->src2 = x86_reg_code(d, 1);
    d->i->fn = arpl;
    return true;
}

bool x86_bind_segment(struct x86_dec *d)
{
    static const struct x86_bind_row rows[] = {
        {ZYDIS_MNEMONIC_LES, bind_load_far_pointer, X86_ES},
        {ZYDIS_MNEMONIC_LDS, bind_load_far_pointer, X86_DS},
        {ZYDIS_MNEMONIC_LSS, bind_load_far_pointer, X86_SS},
        {ZYDIS_MNEMONIC_LFS, bind_load_far_pointer, X86_FS},
        {ZYDIS_MNEMONIC_LGS, bind_load_far_pointer, X86_GS},
        {ZYDIS_MNEMONIC_LGDT, bind_dtr, 0},
        {ZYDIS_MNEMONIC_LIDT, bind_dtr, 1},
        {ZYDIS_MNEMONIC_SGDT, bind_dtr, 2},
        {ZYDIS_MNEMONIC_SIDT, bind_dtr, 3},
        {ZYDIS_MNEMONIC_LLDT, bind_lldt_ltr, 0},
        {ZYDIS_MNEMONIC_LTR, bind_lldt_ltr, 1},
        {ZYDIS_MNEMONIC_SLDT, bind_store_system, 0},
        {ZYDIS_MNEMONIC_STR, bind_store_system, 1},
        {ZYDIS_MNEMONIC_LAR, bind_lar_lsl, 0},
        {ZYDIS_MNEMONIC_LSL, bind_lar_lsl, 1},
        {ZYDIS_MNEMONIC_VERR, bind_verr_verw, 0},
        {ZYDIS_MNEMONIC_VERW, bind_verr_verw, 1},
        {ZYDIS_MNEMONIC_ARPL, bind_arpl, 0},
    };
    for (unsigned n = 0; n < ARRAY_LEN(rows); n++)
        if (rows[n].mnemonic == d->zi->mnemonic) {
            d->arg = rows[n].arg;
            return !x86_is_locked(d) && rows[n].bind(d);
        }
    return false;
}
