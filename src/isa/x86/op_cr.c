/*
 * op_cr.c - control and debug registers: MOV CR, MOV DR, CLTS, LMSW, SMSW, XGETBV, XSETBV
 * (SDM 2.5, 2.6, 4.10.4.1, 18.2).
 *
 * The software TLB caches rights, not entries; so whatever changes how rights are derived drops
 * all of it, also where a hardware TLB could stay.
 */
#include "isa/x86/fpu.h"
#include "isa/x86/op_priv.h"

/* ---- CR0 ---- */

#define CR0_DEFINED                                                                             \
    (X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | \
     X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG)

static void check_cr0(struct x86_cpu *c, uint64_t v)
{
    const struct x86_state *s = &c->s;
    bool pg = v & X86_CR0_PG, was = s->cr0 & X86_CR0_PG, l = s->seg[X86_CS].attr & X86_ATTR_L;
    if ((v >> 32) || (pg && !(v & X86_CR0_PE)) || ((v & X86_CR0_NW) && !(v & X86_CR0_CD)))
        x86_gp0(c);
    if (pg && !was && (s->efer & X86_EFER_LME)) {
        bool tss16 = !(x86_sys_type(s->tr.attr) & 8);
        if (!(s->cr4 & X86_CR4_PAE) || l || tss16)
            x86_gp0(c);
    }
    if (!pg && was && ((s->cr4 & X86_CR4_PCIDE) || c->code_size == 64))
        x86_gp0(c);
}

/* Loads the PDPTEs as they will be with CR0 and CR4 of these values; if that faults, nothing has
 * changed. */
struct pending_mode {
    uint64_t cr0, cr4, efer;
};

static void load_pdptes(struct x86_cpu *c, void *arg)
{
    x86_load_pdptes(c, c->s.cr3);
}

static void enter_mode(struct x86_cpu *c, const struct pending_mode *m, bool reload)
{
    struct pending_mode old = {c->s.cr0, c->s.cr4, c->s.efer};
    c->s.cr0 = m->cr0;
    c->s.cr4 = m->cr4;
    c->s.efer = m->efer;
    x86_update_mode(c);
    if (!reload || x86_try(c, load_pdptes, NULL))
        return;
    c->s.cr0 = old.cr0;
    c->s.cr4 = old.cr4;
    c->s.efer = old.efer;
    x86_update_mode(c);
    x86_rethrow(c);
}

static void set_cr0(struct x86_cpu *c, uint64_t v)
{
    check_cr0(c, v);
    v = (v & CR0_DEFINED) | X86_CR0_ET;
    uint64_t changed = c->s.cr0 ^ v;
    struct pending_mode m = {v, c->s.cr4, c->s.efer};
    if ((changed & X86_CR0_PG) && (c->s.efer & X86_EFER_LME))
        m.efer = v & X86_CR0_PG ? m.efer | X86_EFER_LMA : m.efer & ~(uint64_t)X86_EFER_LMA;
    enter_mode(c, &m, changed & (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW)); /* SDM 4.4.1 */
    if (changed & (X86_CR0_PG | X86_CR0_PE | X86_CR0_WP))
        x86_tlb_flush_all(c);
}

/* ---- CR3 ---- */

void x86_set_cr3(struct x86_cpu *c, uint64_t v, bool keep_tlb)
{
    c->s.cr3 = v;
    if (c->s.cr4 & X86_CR4_PCIDE) {
        x86_tlb_set_pcid(c, v & 0xfff);
        if (!keep_tlb)
            x86_tlb_flush_pcid(c, c->pcid);
    } else {
        x86_tlb_flush_nonglobal(c);
    }
}

static void write_cr3(struct x86_cpu *c, uint64_t v)
{
    bool keep = false;
    if (c->s.cr4 & X86_CR4_PCIDE) {
        keep = v >> 63;
        v &= ~(1ull << 63);
    }
    if (c->long_active && (v >> X86_PHYS_BITS))
        x86_gp0(c);
    x86_load_pdptes(c, v);
    x86_set_cr3(c, v, keep);
}

/* ---- CR4 ---- */

static void set_cr4(struct x86_cpu *c, uint64_t v)
{
    uint64_t changed = c->s.cr4 ^ v;
    if (v & ~c->model->cr4_mask)
        x86_gp0(c);
    if (c->long_active && !(v & X86_CR4_PAE))
        x86_gp0(c);
    if ((changed & v & X86_CR4_PCIDE) && (!c->long_active || (c->s.cr3 & 0xfff)))
        x86_gp0(c);
    const uint64_t paging = X86_CR4_PGE | X86_CR4_PSE | X86_CR4_PAE | X86_CR4_SMEP;
    struct pending_mode m = {c->s.cr0, v, c->s.efer};
    enter_mode(c, &m, changed & paging);
    if (changed & (paging | X86_CR4_SMAP | X86_CR4_PCIDE))
        x86_tlb_flush_all(c);
}

/* ---- MOV CR ---- */

static uint64_t crmask(const struct x86_cpu *c)
{
    return c->code_size == 64 ? ~0ull : 0xffffffffull;
}

static void mov_from_cr(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_need_cpl0(c);
    const struct x86_state *s = &c->s;
    uint64_t v = i->aux == 0   ? s->cr0
                 : i->aux == 2 ? s->cr2
                 : i->aux == 3 ? s->cr3
                 : i->aux == 4 ? s->cr4
                               : c->bus.get_tpr(c->bus.ctx);
    x86_w64(c, i->dst, v & crmask(c));
}

static void mov_to_cr(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_need_cpl0(c);
    uint64_t v = x86_r64(c, i->src) & crmask(c);
    switch (i->aux) {
    case 0:
        set_cr0(c, v);
        break;
    case 2:
        c->s.cr2 = v;
        break;
    case 3:
        write_cr3(c, v);
        break;
    case 4:
        set_cr4(c, v);
        break;
    default:
        if (v >> 4)
            x86_gp0(c);
        c->bus.set_tpr(c->bus.ctx, v);
    }
}

/* ---- MOV DR ---- */

/* DR4 and DR5 are DR6 and DR7 unless CR4.DE is set (SDM 18.2.2). */
static unsigned debug_register(struct x86_cpu *c, unsigned n)
{
    if (n == 4 || n == 5) {
        if (c->s.cr4 & X86_CR4_DE)
            x86_ud(c);
        n += 2;
    }
    x86_need_cpl0(c);
    if (c->s.dr[7] & X86_DR7_GD)
        x86_raise_db(c, X86_DR6_BD, false);
    return n;
}

static void mov_from_dr(struct x86_cpu *c, const struct x86_insn *i)
{
    unsigned n = debug_register(c, i->aux);
    x86_w64(c, i->dst, c->s.dr[n] & crmask(c));
}

static void mov_to_dr(struct x86_cpu *c, const struct x86_insn *i)
{
    unsigned n = debug_register(c, i->aux);
    uint64_t v = x86_r64(c, i->src) & crmask(c);
    if (n >= 6 && (v >> 32))
        x86_gp0(c);
    if (n == 6)
        v = (v & (0xfu | X86_DR6_BD | X86_DR6_BS | X86_DR6_BT)) | X86_DR6_FIXED;
    else if (n == 7)
        v = (v & 0xffff23ffu) | X86_DR7_FIXED;
    c->s.dr[n] = v;
    /* This instruction ends RF's effect; without breakpoints nobody had to look until now. */
    c->s.rflags &= ~(uint64_t)X86_FL_RF;
    bool watched = c->watch_data;
    x86_update_mode(c);
    if (watched || c->watch_data) /* pages that watchpoints touch are not cached */
        x86_tlb_flush_all(c);
}

bool x86_bind_mov_crdr(struct x86_dec *d)
{
    bool to = x86_is_sysreg(d, 0);
    ZydisRegister r = d->op[to ? 0 : 1].reg.value;
    unsigned n = (unsigned)ZydisRegisterGetId(r);
    bool cr = ZydisRegisterGetClass(r) == ZYDIS_REGCLASS_CONTROL;
    if (x86_is_locked(d) || (!cr && ZydisRegisterGetClass(r) != ZYDIS_REGCLASS_DEBUG))
        return false;
    if (cr ? n == 1 || n > 8 || (n > 4 && n < 8) || (n == 8 && d->code_size != 64) : n > 7)
        return false;
    d->i->aux = (uint16_t)n;
    if (to)
        d->i->src = x86_reg_code(d, 1);
    else
        d->i->dst = x86_reg_code(d, 0);
    if (!to && cr) {
        d->i->fn = mov_from_cr;
        return true;
    }
    return x86_bind_end(d, cr ? mov_to_cr : to ? mov_to_dr : mov_from_dr);
}

/* ---- CLTS, LMSW, SMSW ---- */

static void clts(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_need_cpl0(c);
    c->s.cr0 &= ~(uint64_t)X86_CR0_TS;
}

/* Sets PE but never clears it; changes PE, MP, EM, TS only. */
static void lmsw(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_need_cpl0(c);
    uint64_t v = x86_rm16(c, i) & 0xf;
    set_cr0(c, (c->s.cr0 & ~0xeull) | v);
}

static void smsw(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_umip_check(c);
    if (i->flags & X86_IF_MEM)
        x86_st16(c, x86_lin_w(c, i, 2), (uint16_t)c->s.cr0);
    else if (i->osize == 2)
        x86_w16(c, i->dst, (uint16_t)c->s.cr0);
    else
        x86_w64(c, i->dst, c->s.cr0);
}

/* ---- XCR0 ---- */

static void need_osxsave(struct x86_cpu *c)
{
    if (!(c->s.cr4 & X86_CR4_OSXSAVE))
        x86_ud(c);
}

static void xgetbv(struct x86_cpu *c, const struct x86_insn *i)
{
    need_osxsave(c);
    uint32_t n = x86_r32(c, X86_RCX);
    if (n > 1 || (n == 1 && !x86_model_has(c->model, X86_HAS_XGETBV1)))
        x86_gp0(c);
    uint64_t v = n ? c->s.xcr0 & x86_xinuse(c) : c->s.xcr0; /* 1: XINUSE */
    x86_w64(c, X86_RAX, (uint32_t)v);
    x86_w64(c, X86_RDX, v >> 32);
}

static void xsetbv(struct x86_cpu *c, const struct x86_insn *i)
{
    need_osxsave(c);
    x86_need_cpl0(c);
    uint64_t v = (uint64_t)x86_r32(c, X86_RDX) << 32 | x86_r32(c, X86_RAX);
    bool bad = x86_r32(c, X86_RCX) != 0 || (v & ~c->model->xcr0_mask) || !(v & X86_XCR0_X87) ||
               ((v & X86_XCR0_AVX) && !(v & X86_XCR0_SSE));
    if (bad)
        x86_gp0(c);
    c->s.xcr0 = v;
}

bool x86_bind_cr(struct x86_dec *d)
{
    if (x86_is_locked(d))
        return false;
    bool reg = x86_is_reg(d, 0);
    switch (d->zi->mnemonic) {
    case ZYDIS_MNEMONIC_CLTS:
        return x86_bind_end(d, clts);
    case ZYDIS_MNEMONIC_LMSW:
        d->i->src = reg ? x86_reg_code(d, 0) : 0;
        return x86_bind_end(d, lmsw);
    case ZYDIS_MNEMONIC_SMSW:
        d->i->dst = reg ? x86_reg_code(d, 0) : 0;
        d->i->fn = smsw;
        return true;
    case ZYDIS_MNEMONIC_XGETBV:
        d->i->fn = xgetbv;
        return x86_model_has(d->c->model, X86_HAS_XSAVE);
    default:
        return x86_model_has(d->c->model, X86_HAS_XSAVE) && x86_bind_end(d, xsetbv);
    }
}
