/*
 * op_fpu.c - x87 control instructions, EMMS, VZEROUPPER and MXCSR, in C on the state struct.
 *
 * FCS and FDS are always zero: the model says so in CPUID (leaf 7, EBX bit 13).
 */
#include "isa/x86/fpu.h"
#include "isa/x86/native_mem.h"
#include "isa/x86/xsave.h"

/* ---- single registers ---- */

static void set_fcw(struct x86_cpu *c, uint16_t v)
{
    c->s.fpu.fcw = (v & X86_FCW_BITS) | X86_FCW_ONE;
}

static void set_fsw(struct x86_cpu *c, uint16_t v)
{
    c->s.fpu.fsw = v & (uint16_t) ~(X86_FSW_ES | X86_FSW_B);
}

void x86_fpu_init(struct x86_cpu *c)
{
    struct x86_xsave *f = &c->s.fpu;
    x86_fpu_set_top(c, 0); /* the registers keep their values */
    f->fcw = X86_FCW_INIT;
    f->fsw = f->fop = 0;
    f->ftw = 0;
    f->fip = f->fdp = 0;
}

void x86_fpu_sanitize(struct x86_cpu *c)
{
    struct x86_xsave *f = &c->s.fpu;
    set_fcw(c, f->fcw);
    set_fsw(c, f->fsw);
    x86_fpu_update_es(c);
    f->fop &= 0x7ff;
    f->rsv0 = 0;
    f->mxcsr &= f->mxcsr_mask;
    for (unsigned n = 0; n < 8; n++)
        memset(&f->st[n][10], 0, 6);
    memset(f->rsv1, 0, sizeof f->rsv1);
    memset(f->rsv2, 0, sizeof f->rsv2);
    f->xstate_bv = f->xcomp_bv = 0;
}

static void op_fldcw(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    if (!x86_fpu_wait(c, i))
        return;
    set_fcw(c, x86_ld16(c, x86_lin_r(c, i, 2)));
    x86_fpu_update_es(c);
}

static void op_fnstcw(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    x86_st16(c, x86_lin_w(c, i, 2), c->s.fpu.fcw);
}

static void op_fnstsw(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    x86_st16(c, x86_lin_w(c, i, 2), c->s.fpu.fsw);
}

static void op_fnstsw_ax(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    x86_w16(c, X86_RAX, c->s.fpu.fsw);
}

static void op_fnclex(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    c->s.fpu.fsw &= 0x7f00;
    x86_fpu_update_es(c);
}

static void op_fninit(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    x86_fpu_init(c);
    x86_fpu_update_es(c);
}

/* FENI, FDISI, FSETPM: instructions of the 8087 and 80287 that do nothing since (SDM vol.
 * 3, 23.18.9). */
static void op_fnothing(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
}

static void op_fwait(struct x86_cpu *c, const struct x86_insn *i)
{
    const uint64_t both = X86_CR0_MP | X86_CR0_TS;
    if (UNLIKELY((c->s.cr0 & both) == both))
        x86_raise(c, X86_NM);
    (void)x86_fpu_wait(c, i);
}

/* ---- the environment in memory: 14 or 28 bytes (SDM vol. 1, 8.1.10) ---- */

#define ENV_MAX  28u
#define SAVE_MAX (ENV_MAX + 80u)

/* Two bits for each register: 0 valid, 1 zero, 2 special, 3 empty (SDM vol. 1, 8.1.7). */
static unsigned tag_of(const uint8_t *st)
{
    uint64_t man;
    uint16_t exp;
    memcpy(&man, st, 8);
    memcpy(&exp, st + 8, 2);
    exp &= 0x7fff;
    if (exp == 0 && man == 0)
        return 1;
    return exp == 0 || exp == 0x7fff || !(man >> 63) ? 2 : 0;
}

static uint16_t full_tags(const struct x86_xsave *f)
{
    unsigned top = (f->fsw >> X86_FSW_TOP_SH) & 7, tags = 0;
    for (unsigned n = 0; n < 8; n++) {
        unsigned tag = f->ftw & (1u << n) ? tag_of(f->st[(n - top) & 7]) : 3;
        tags |= tag << (2 * n);
    }
    return (uint16_t)tags;
}

static uint8_t abridged_tags(unsigned full)
{
    unsigned out = 0;
    for (unsigned n = 0; n < 8; n++)
        if (((full >> (2 * n)) & 3) != 3)
            out |= 1u << n;
    return (uint8_t)out;
}

/* Seven fields; in the 32-bit format the upper halves that are reserved read as ones. */
static void env_store(const struct x86_cpu *c, uint8_t *p, unsigned size)
{
    const struct x86_xsave *f = &c->s.fpu;
    uint32_t ip = (uint32_t)f->fip, dp = (uint32_t)f->fdp;
    uint32_t w[7] = {f->fcw, f->fsw, full_tags(f), ip, 0, dp, 0};
    bool wide = size == ENV_MAX;
    if (c->protected_mode) {
        w[4] = wide ? (uint32_t)f->fop << 16 : 0;
    } else if (wide) {
        w[3] = ip | 0xffff0000u;
        w[4] = (ip >> 16) << 12 | f->fop;
        w[5] = dp | 0xffff0000u;
        w[6] = (dp >> 16) << 12;
    } else {
        w[4] = (ip >> 16 & 0xf) << 12 | f->fop;
        w[6] = (dp >> 16 & 0xf) << 12;
    }
    if (wide) {
        for (unsigned n = 0; n < 3; n++)
            w[n] |= 0xffff0000u;
        if (c->protected_mode)
            w[6] |= 0xffff0000u;
    }
    for (unsigned n = 0; n < 7; n++)
        memcpy(p + n * (wide ? 4 : 2), &w[n], wide ? 4 : 2);
}

static void env_load(struct x86_cpu *c, const uint8_t *p, unsigned size)
{
    struct x86_xsave *f = &c->s.fpu;
    uint32_t w[7] = {0};
    bool wide = size == ENV_MAX;
    for (unsigned n = 0; n < 7; n++)
        memcpy(&w[n], p + n * (wide ? 4 : 2), wide ? 4 : 2);
    set_fcw(c, (uint16_t)w[0]);
    x86_fpu_set_top(c, w[1] >> X86_FSW_TOP_SH & 7);
    set_fsw(c, (uint16_t)w[1]);
    f->ftw = abridged_tags(w[2]);
    if (c->protected_mode) {
        f->fip = w[3];
        f->fdp = w[5];
        f->fop = wide ? w[4] >> 16 & 0x7ff : 0;
    } else {
        f->fip = (w[3] & 0xffff) | (w[4] >> 12 & 0xffff) << 16;
        f->fdp = (w[5] & 0xffff) | (w[6] >> 12 & 0xffff) << 16;
        f->fop = w[4] & 0x7ff;
    }
    x86_fpu_update_es(c);
}

/* aux: bytes of the memory operand */
static void op_fnstenv(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    uint8_t env[ENV_MAX];
    env_store(c, env, i->aux);
    x86_st_bytes(c, x86_lin_w(c, i, i->aux), env, i->aux, c->mmu);
    c->s.fpu.fcw |= X86_FCW_MASKS; /* all errors are masked from now on */
    x86_fpu_update_es(c);
}

static void op_fldenv(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    if (!x86_fpu_wait(c, i))
        return;
    uint8_t env[ENV_MAX];
    x86_ld_bytes(c, x86_lin_r(c, i, i->aux), env, i->aux, c->mmu);
    env_load(c, env, i->aux);
}

static void op_fnsave(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    uint8_t image[SAVE_MAX];
    unsigned env = i->aux - 80u;
    env_store(c, image, env);
    for (unsigned n = 0; n < 8; n++)
        memcpy(image + env + 10 * n, c->s.fpu.st[n], 10);
    x86_st_bytes(c, x86_lin_w(c, i, i->aux), image, i->aux, c->mmu);
    x86_fpu_init(c);
    x86_fpu_update_es(c);
}

static void op_frstor(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_fpu_check(c);
    if (!x86_fpu_wait(c, i))
        return;
    uint8_t image[SAVE_MAX];
    unsigned env = i->aux - 80u;
    x86_ld_bytes(c, x86_lin_r(c, i, i->aux), image, i->aux, c->mmu);
    env_load(c, image, env);
    for (unsigned n = 0; n < 8; n++)
        memcpy(c->s.fpu.st[n], image + env + 10 * n, 10);
}

/* ---- MMX, SSE and AVX ---- */

static void op_emms(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_mmx_check(c);
    if (!x86_fpu_wait(c, i))
        return;
    x86_mmx_enter(c); /* TOP becomes 0 like with any MMX instruction */
    c->s.fpu.ftw = 0;
}

static void op_vzeroupper(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_avx_check(c);
    memset(c->s.fpu.ymmh, 0, c->code_size == 64 ? 256 : 128);
}

static void op_vzeroall(struct x86_cpu *c, const struct x86_insn *i)
{
    op_vzeroupper(c, i);
    memset(c->s.fpu.xmm, 0, c->code_size == 64 ? 256 : 128);
}

static void ldmxcsr(struct x86_cpu *c, const struct x86_insn *i)
{
    uint32_t v = x86_ld32(c, x86_lin_r(c, i, 4));
    if (v & ~c->s.fpu.mxcsr_mask)
        x86_gp0(c);
    c->s.fpu.mxcsr = v;
}

static void op_ldmxcsr(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_sse_check(c);
    ldmxcsr(c, i);
}

static void op_vldmxcsr(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_avx_check(c);
    ldmxcsr(c, i);
}

static void op_stmxcsr(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_sse_check(c);
    x86_st32(c, x86_lin_w(c, i, 4), c->s.fpu.mxcsr);
}

static void op_vstmxcsr(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_avx_check(c);
    x86_st32(c, x86_lin_w(c, i, 4), c->s.fpu.mxcsr);
}

/* ---- binding ---- */

enum op {
    FLDCW,
    FNSTCW,
    FNSTSW,
    FNCLEX,
    FNINIT,
    FNOTHING,
    FWAIT,
    FNSTENV,
    FLDENV,
    FNSAVE,
    FRSTOR,
    EMMS,
    VZEROUPPER,
    VZEROALL,
    LDMXCSR,
    VLDMXCSR,
    STMXCSR,
    VSTMXCSR,
};

static const x86_op_fn functions[] = {
    [FLDCW] = op_fldcw,       [FNSTCW] = op_fnstcw,     [FNSTSW] = op_fnstsw,
    [FNCLEX] = op_fnclex,     [FNINIT] = op_fninit,     [FNOTHING] = op_fnothing,
    [FWAIT] = op_fwait,       [FNSTENV] = op_fnstenv,   [FLDENV] = op_fldenv,
    [FNSAVE] = op_fnsave,     [FRSTOR] = op_frstor,     [EMMS] = op_emms,
    [VZEROALL] = op_vzeroall, [LDMXCSR] = op_ldmxcsr,   [VZEROUPPER] = op_vzeroupper,
    [STMXCSR] = op_stmxcsr,   [VLDMXCSR] = op_vldmxcsr, [VSTMXCSR] = op_vstmxcsr,
};

static bool bind_fpu(struct x86_dec *d)
{
    const ZydisDecodedInstruction *zi = d->zi;
    if ((zi->attributes & ZYDIS_ATTRIB_HAS_LOCK) ||
        !x86_model_has_isa(d->c->model, zi->meta.isa_ext, zi->meta.isa_set))
        return false;
    d->i->fn = functions[d->arg];
    if (d->arg == FNSTSW && x86_is_reg(d, 0))
        d->i->fn = op_fnstsw_ax;
    if (x86_is_mem(d, 0))
        d->i->aux = d->op[0].size / 8;
    bool env = d->arg == FNSTENV || d->arg == FLDENV, save = d->arg == FNSAVE || d->arg == FRSTOR;
    return (!env && !save) || d->i->aux == ENV_MAX + 80u * save ||
           d->i->aux == ENV_MAX / 2 + 80u * save;
}

const struct x86_bind_row x86_rows_fpu[] = {
    {ZYDIS_MNEMONIC_FLDCW, bind_fpu, FLDCW},
    {ZYDIS_MNEMONIC_FNSTCW, bind_fpu, FNSTCW},
    {ZYDIS_MNEMONIC_FNSTSW, bind_fpu, FNSTSW},
    {ZYDIS_MNEMONIC_FNCLEX, bind_fpu, FNCLEX},
    {ZYDIS_MNEMONIC_FNINIT, bind_fpu, FNINIT},
    {ZYDIS_MNEMONIC_FENI8087_NOP, bind_fpu, FNOTHING},
    {ZYDIS_MNEMONIC_FDISI8087_NOP, bind_fpu, FNOTHING},
    {ZYDIS_MNEMONIC_FSETPM287_NOP, bind_fpu, FNOTHING},
    {ZYDIS_MNEMONIC_FWAIT, bind_fpu, FWAIT},
    {ZYDIS_MNEMONIC_FNSTENV, bind_fpu, FNSTENV},
    {ZYDIS_MNEMONIC_FLDENV, bind_fpu, FLDENV},
    {ZYDIS_MNEMONIC_FNSAVE, bind_fpu, FNSAVE},
    {ZYDIS_MNEMONIC_FRSTOR, bind_fpu, FRSTOR},
    {ZYDIS_MNEMONIC_EMMS, bind_fpu, EMMS},
    {ZYDIS_MNEMONIC_VZEROUPPER, bind_fpu, VZEROUPPER},
    {ZYDIS_MNEMONIC_VZEROALL, bind_fpu, VZEROALL},
    {ZYDIS_MNEMONIC_LDMXCSR, bind_fpu, LDMXCSR},
    {ZYDIS_MNEMONIC_VLDMXCSR, bind_fpu, VLDMXCSR},
    {ZYDIS_MNEMONIC_STMXCSR, bind_fpu, STMXCSR},
    {ZYDIS_MNEMONIC_VSTMXCSR, bind_fpu, VSTMXCSR},
    {ZYDIS_MNEMONIC_FXSAVE, x86_bind_xsave, X86_FXSAVE},
    {ZYDIS_MNEMONIC_FXSAVE64, x86_bind_xsave, X86_FXSAVE},
    {ZYDIS_MNEMONIC_FXRSTOR, x86_bind_xsave, X86_FXRSTOR},
    {ZYDIS_MNEMONIC_FXRSTOR64, x86_bind_xsave, X86_FXRSTOR},
    {ZYDIS_MNEMONIC_XSAVE, x86_bind_xsave, X86_XSAVE},
    {ZYDIS_MNEMONIC_XSAVE64, x86_bind_xsave, X86_XSAVE},
    {ZYDIS_MNEMONIC_XSAVEOPT, x86_bind_xsave, X86_XSAVEOPT},
    {ZYDIS_MNEMONIC_XSAVEOPT64, x86_bind_xsave, X86_XSAVEOPT},
    {ZYDIS_MNEMONIC_XSAVEC, x86_bind_xsave, X86_XSAVEC},
    {ZYDIS_MNEMONIC_XSAVEC64, x86_bind_xsave, X86_XSAVEC},
    {ZYDIS_MNEMONIC_XRSTOR, x86_bind_xsave, X86_XRSTOR},
    {ZYDIS_MNEMONIC_XRSTOR64, x86_bind_xsave, X86_XRSTOR},
    {ZYDIS_MNEMONIC_INVALID, NULL, 0},
};
