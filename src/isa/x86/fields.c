/*
 * fields.c - the state of a vCPU by name: what is saved of struct x86_cpu, and what of the model.
 *
 * What is loaded must be a state that the processor can be in. Where the SDM leaves no doubt the
 * load is refused; the FPU's registers are made valid instead (x86_fpu_sanitize).
 */
#include "base/field.h"
#include "isa/x86/cpuid.h"
#include "isa/x86/fpu.h"
#include "isa/x86/priv.h"

/* ---- the architectural state ---- */

static const struct field seg_fields[] = {
    FIELD(struct x86_seg, base),
    FIELD(struct x86_seg, limit),
    FIELD(struct x86_seg, sel),
    FIELD(struct x86_seg, attr, .max = 0x1ffff),
};
static const struct field_table seg_table = FIELD_TABLE(struct x86_seg, "x86_seg", seg_fields);

static const struct field dtr_fields[] = {
    FIELD(struct x86_dtr, base),
    FIELD(struct x86_dtr, limit),
};
static const struct field_table dtr_table = FIELD_TABLE(struct x86_dtr, "x86_dtr", dtr_fields);

/* What the header and the mask say is the host's. */
static const struct field xsave_fields[] = {
    FIELD(struct x86_xsave, fcw),
    FIELD(struct x86_xsave, fsw),
    FIELD(struct x86_xsave, ftw),
    FIELD(struct x86_xsave, rsv0),
    FIELD(struct x86_xsave, fop),
    FIELD(struct x86_xsave, fip),
    FIELD(struct x86_xsave, fdp),
    FIELD(struct x86_xsave, mxcsr, .max = X86_MXCSR_BITS),
    FIELD_NONE(struct x86_xsave, mxcsr_mask),
    FIELD_ARRAY2(struct x86_xsave, st),
    FIELD_ARRAY2(struct x86_xsave, xmm),
    FIELD_NONE(struct x86_xsave, rsv1),
    FIELD_NONE(struct x86_xsave, xstate_bv),
    FIELD_NONE(struct x86_xsave, xcomp_bv),
    FIELD_NONE(struct x86_xsave, rsv2),
    FIELD_ARRAY2(struct x86_xsave, ymmh),
};
static const struct field_table xsave_table =
    FIELD_TABLE(struct x86_xsave, "x86_xsave", xsave_fields);

static const struct field state_fields[] = {
    /* The pseudo registers are the engines'. */
    {.name = "gpr",
     .kind = FIELD_IS_UINT,
     .offset = offsetof(struct x86_state, gpr),
     .size = 8,
     .count = X86_REG_ZERO},
    FIELD(struct x86_state, rip),
    FIELD(struct x86_state, rflags, .max = X86_FL_ALL),
    FIELD_STRUCTS(struct x86_state, seg, seg_table),
    FIELD_STRUCT(struct x86_state, ldtr, seg_table),
    FIELD_STRUCT(struct x86_state, tr, seg_table),
    FIELD_STRUCT(struct x86_state, gdtr, dtr_table),
    FIELD_STRUCT(struct x86_state, idtr, dtr_table),
    FIELD(struct x86_state, cr0, .max = 0xffffffff),
    FIELD(struct x86_state, cr2),
    FIELD(struct x86_state, cr3),
    FIELD(struct x86_state, cr4),
    FIELD(struct x86_state, xcr0),
    FIELD_ARRAY(struct x86_state, dr),
    FIELD(struct x86_state, efer),
    FIELD(struct x86_state, star),
    FIELD(struct x86_state, lstar),
    FIELD(struct x86_state, cstar),
    FIELD(struct x86_state, fmask),
    FIELD(struct x86_state, kernel_gs_base),
    FIELD(struct x86_state, tsc_aux),
    FIELD(struct x86_state, sysenter_cs),
    FIELD(struct x86_state, sysenter_esp),
    FIELD(struct x86_state, sysenter_eip),
    FIELD(struct x86_state, tsc_offset),
    FIELD(struct x86_state, pat),
    FIELD(struct x86_state, mtrr_deftype),
    FIELD_ARRAY(struct x86_state, mtrr_fixed),
    FIELD_ARRAY(struct x86_state, mtrr_base),
    FIELD_ARRAY(struct x86_state, mtrr_mask),
    FIELD(struct x86_state, misc_enable),
    FIELD(struct x86_state, spec_ctrl),
    FIELD(struct x86_state, mcg_status),
    FIELD(struct x86_state, feature_control),
    FIELD_ARRAY(struct x86_state, pdpte),
    FIELD(struct x86_state, activity, .max = X86_SHUTDOWN),
    FIELD(struct x86_state, sti_shadow, .max = 1),
    FIELD(struct x86_state, movss_shadow, .max = 1),
    FIELD(struct x86_state, nmi_blocked, .max = 1),
    FIELD_STRUCT(struct x86_state, fpu, xsave_table),
};
static const struct field_table state_table =
    FIELD_TABLE(struct x86_state, "x86_state", state_fields);

/* ---- what else of the vCPU outlives run() ---- */

/* Events that it has not looked at. The others are about what engines keep in caches. */
#define SAVED_PENDING (X86_PEND_INTR | X86_PEND_NMI | X86_PEND_INIT | X86_PEND_SIPI)

static uint64_t get_pending(const void *dev)
{
    const struct x86_cpu *c = dev;
    return c->pending & SAVED_PENDING;
}

static bool set_pending(void *dev, uint64_t v)
{
    struct x86_cpu *c = dev;
    atomic_store(&c->pending, (uint32_t)v | X86_PEND_TLB);
    return !(v & ~(uint64_t)SAVED_PENDING);
}

static uint64_t get_a20(const void *dev)
{
    const struct x86_cpu *c = dev;
    return c->a20_mask == ~0ull;
}

static bool set_a20(void *dev, uint64_t v)
{
    struct x86_cpu *c = dev;
    atomic_store(&c->a20_mask, v ? ~0ull : ~(uint64_t)MIB);
    return true;
}

static bool canonical(uint64_t addr)
{
    return (uint64_t)((int64_t)(addr << (64 - X86_LIN_BITS)) >> (64 - X86_LIN_BITS)) == addr;
}

/* SDM 2.5, 4.1.1, 9.8.5: modes that exist. */
static bool modes_valid(const struct x86_cpu *c)
{
    const struct x86_state *s = &c->s;
    const struct x86_model *m = c->model;
    bool pg = s->cr0 & X86_CR0_PG, pe = s->cr0 & X86_CR0_PE, lme = s->efer & X86_EFER_LME;
    bool lma = s->efer & X86_EFER_LMA, pae = s->cr4 & X86_CR4_PAE, vm = s->rflags & X86_FL_VM;
    uint64_t cr0 = X86_CR0_PE | X86_CR0_MP | X86_CR0_EM | X86_CR0_TS | X86_CR0_ET | X86_CR0_NE |
                   X86_CR0_WP | X86_CR0_AM | X86_CR0_NW | X86_CR0_CD | X86_CR0_PG;
    if (s->cr0 & ~cr0 || s->cr4 & ~m->cr4_mask || s->efer & ~(m->efer_mask | X86_EFER_LMA))
        return false;
    if ((pg && !pe) || lma != (lme && pg) || (lma && !pae) || (vm && !pe))
        return false;
    if ((s->cr4 & X86_CR4_PCIDE) && !lma)
        return false;
    return pe || X86_ATTR_DPL(s->seg[X86_SS].attr) == 0;
}

static bool registers_valid(const struct x86_cpu *c)
{
    const struct x86_state *s = &c->s;
    bool code64 = (s->efer & X86_EFER_LMA) && (s->seg[X86_CS].attr & X86_ATTR_L);
    if (code64 ? !canonical(s->rip) || s->seg[X86_CS].attr & X86_ATTR_DB : s->rip >> 32)
        return false;
    if (s->efer & X86_EFER_LMA) {
        if (!canonical(s->seg[X86_FS].base) || !canonical(s->seg[X86_GS].base) ||
            !canonical(s->kernel_gs_base) || !canonical(s->lstar))
            return false;
    } else {
        for (unsigned n = 0; n < X86_NSEG; n++)
            if (s->seg[n].base >> 32)
                return false;
    }
    if (!(s->xcr0 & X86_XCR0_X87) || s->xcr0 & ~c->model->xcr0_mask ||
        ((s->xcr0 & X86_XCR0_AVX) && !(s->xcr0 & X86_XCR0_SSE)))
        return false;
    uint64_t phys = (1ull << X86_PHYS_BITS) - 1;
    return !((s->cr3 & ~(1ull << 63)) & ~phys) && !(s->dr[6] >> 32) && !(s->dr[7] >> 32);
}

static int post_load(void *dev, struct error *e)
{
    struct x86_cpu *c = dev;
    if (!modes_valid(c) || !registers_valid(c))
        return error_set(e, ERR_FORMAT, "s: is no state that this processor can be in");
    c->s.gpr[X86_REG_ZERO] = c->s.gpr[X86_REG_RIP] = 0;
    c->s.rflags |= X86_FL_R1;
    c->s.fpu.xcomp_bv = 0;
    memset(c->s.fpu.rsv1, 0, sizeof c->s.fpu.rsv1);
    memset(c->s.fpu.rsv2, 0, sizeof c->s.fpu.rsv2);
    x86_fpu_sanitize(c);
    x86_set_arith_flags(c, (uint32_t)c->s.rflags);
    c->slow = 0;
    if (c->s.sti_shadow || c->s.movss_shadow)
        c->slow |= X86_SLOW_SHADOW;
    if (c->db_hit)
        c->slow |= X86_SLOW_DB;
    x86_update_mode(c);
    x86_tlb_flush_all(c);
    return 0;
}

static const struct field cpu_fields[] = {
    FIELD_STRUCT(struct x86_cpu, s, state_table),
    FIELD_NONE(struct x86_cpu, fl), /* of s.rflags, as the rest up to `segc` is of `s` */
    FIELD_NONE(struct x86_cpu, cpl),
    FIELD_NONE(struct x86_cpu, code_size),
    FIELD_NONE(struct x86_cpu, long_active),
    FIELD_NONE(struct x86_cpu, protected_mode),
    FIELD_NONE(struct x86_cpu, mmu),
    FIELD_NONE(struct x86_cpu, pcid),
    FIELD_NONE(struct x86_cpu, lin_mask),
    FIELD_NONE(struct x86_cpu, ip_mask),
    FIELD_NONE(struct x86_cpu, sp_mask),
    FIELD_VALUE(struct x86_cpu, a20_mask, get_a20, set_a20, .max = 1),
    FIELD_NONE(struct x86_cpu, cs_limit),
    FIELD_NONE(struct x86_cpu, segc),
    FIELD_NONE(struct x86_cpu, cur),
    FIELD_NONE(struct x86_cpu, block_end),
    FIELD_NONE(struct x86_cpu, icount),
    FIELD_NONE(struct x86_cpu, code_seen),
    FIELD_VALUE(struct x86_cpu, pending, get_pending, set_pending),
    FIELD(struct x86_cpu, sipi_vector),
    FIELD(struct x86_cpu, unhalted),
    FIELD_NONE(struct x86_cpu, slow),
    FIELD(struct x86_cpu, db_hit, .max = 0xe00f),
    FIELD_NONE(struct x86_cpu, in_split),
    FIELD_NONE(struct x86_cpu, no_device),
    FIELD_NONE(struct x86_cpu, watch_data),
    FIELD_NONE(struct x86_cpu, env),
    FIELD_NONE(struct x86_cpu, exc),
    FIELD_NONE(struct x86_cpu, bus),
    FIELD(struct x86_cpu, ferr.level),
    FIELD(struct x86_cpu, ferr.ignne),
    FIELD_NONE(struct x86_cpu, mem),
    FIELD_NONE(struct x86_cpu, ram),
    FIELD_NONE(struct x86_cpu, index),
    FIELD_NONE(struct x86_cpu, ncpus),
    FIELD_NONE(struct x86_cpu, pauses),
    FIELD_NONE(struct x86_cpu, model), /* a part of its own */
    FIELD_NONE(struct x86_cpu, observer),
    FIELD_NONE(struct x86_cpu, lockstep),
    FIELD_NONE(struct x86_cpu, tlb),
    FIELD_NONE(struct x86_cpu, code),
    FIELD_NONE(struct x86_cpu, native),
    FIELD_NONE(struct x86_cpu, jit),
    FIELD_NONE(struct x86_cpu, self),
    FIELD_NONE(struct x86_cpu, jit_key),
    FIELD_NONE(struct x86_cpu, jit_key_global),
    FIELD_NONE(struct x86_cpu, jit_tmp),
    FIELD_NONE(struct x86_cpu, jit_set),
    FIELD_NONE(struct x86_cpu, jit_target),
    FIELD_NONE(struct x86_cpu, jit_page),
    FIELD_NONE(struct x86_cpu, jit_rsp),
    FIELD_NONE(struct x86_cpu, jit_rsp_end),
    FIELD_NONE(struct x86_cpu, jit_scratch),
    FIELD_NONE(struct x86_cpu, jit_stop),
    FIELD_NONE(struct x86_cpu, jit_drop),
    FIELD_NONE(struct x86_cpu, jit_fpu_live),
    FIELD_NONE(struct x86_cpu, jit_x87_live),
    FIELD_NONE(struct x86_cpu, jit_x87),
    FIELD_NONE(struct x86_cpu, jit_heat),
    FIELD_NONE(struct x86_cpu, jit_resume),
    FIELD_NONE(struct x86_cpu, jit_returned),
    FIELD_NONE(struct x86_cpu, jit_unwritten),
    FIELD_NONE(struct x86_cpu, jump),
};
const struct field_table x86_cpu_fields =
    FIELD_TABLE(struct x86_cpu, "x86_cpu", cpu_fields, .post_load = post_load);

/* ---- the model ---- */

/* The guest has seen it, so it stays; but the host must be able to do what it promises. */
int x86_model_adopt(struct x86_model *m, const struct x86_model *saved, struct error *e)
{
    bool ok = !(saved->xcr0_mask & ~m->xcr0_mask) && !(saved->cr4_mask & ~m->cr4_mask) &&
              !(saved->efer_mask & ~m->efer_mask);
    for (unsigned n = 0; n < X86_NFEATURE_WORDS; n++)
        ok &= !(saved->feature[n] & ~m->feature[n]);
    if (!ok)
        return error_set(e, ERR_HOST,
                         "the guest uses features of its processor (%.15s) that this host does not "
                         "have (%.15s)",
                         saved->name, m->name);
    if (saved->tsc_hz != m->tsc_hz)
        return error_set(e, ERR_STATE, "the guest's TSC counts at another rate");
    *m = *saved;
    return 0;
}

static int model_loaded(void *dev, struct error *e)
{
    const struct x86_model *m = dev;
    if (m->name[sizeof m->name - 1] || m->brand[sizeof m->brand - 1])
        return error_set(e, ERR_FORMAT, "name, brand: do not end");
    return 0;
}

static const struct field model_fields[] = {
    FIELD_TEXT(struct x86_model, name),     FIELD_TEXT(struct x86_model, brand),
    FIELD(struct x86_model, signature),     FIELD(struct x86_model, tsc_hz),
    FIELD_ARRAY(struct x86_model, feature), FIELD(struct x86_model, xcr0_mask),
    FIELD(struct x86_model, cr4_mask),      FIELD(struct x86_model, efer_mask),
};
const struct field_table x86_model_fields =
    FIELD_TABLE(struct x86_model, "x86_model", model_fields, .post_load = model_loaded);
