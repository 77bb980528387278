/*
 * xsave.c - FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XSAVEC, XRSTOR (SDM vol. 1, chapters 10.5 and 13).
 *
 * The state is already in the standard format of XSAVE, so that saving is copying pieces of it.
 * What is restored is read completely and checked before the first piece is taken over.
 */
#include "isa/x86/xsave.h"

#include "isa/x86/cpuid.h"
#include "isa/x86/fpu.h"
#include "isa/x86/native_mem.h"

#define LEGACY_SIZE 512u
#define HEADER      512u
#define EXTENDED    576u /* AVX is the first extended component: here in both formats */
#define COMPACTED   (1ull << 63)
#define XMM_OFFSET  160u

/* i->aux: REX.W was given: 64-bit instruction and data pointers */

static unsigned nregs(const struct x86_cpu *c)
{
    return c->code_size == 64 ? 16 : 8;
}

static void save(struct x86_cpu *c, gva_t lin, unsigned off, const void *p, unsigned len)
{
    x86_st_bytes(c, (lin + off) & c->lin_mask, p, len, c->mmu);
}

static gva_t operand(struct x86_cpu *c, const struct x86_insn *i, unsigned size, unsigned align,
                     unsigned need)
{
    gva_t lin = x86_seg_lin(c, i->seg, x86_ea(c, i), size, need);
    if (lin & (align - 1))
        x86_gp0(c);
    return lin;
}

/* Bytes 0..23: FCW to FDP; the pointers are cut, and FCS and FDS are zero, without REX.W. */
static void x87_header(const struct x86_cpu *c, const struct x86_insn *i, struct x86_xsave *out)
{
    memcpy(out, &c->s.fpu, 24);
    if (!i->aux) {
        out->fip = (uint32_t)out->fip;
        out->fdp = (uint32_t)out->fdp;
    }
}

static void take_x87(struct x86_cpu *c, const struct x86_insn *i, const struct x86_xsave *in)
{
    struct x86_xsave *f = &c->s.fpu;
    f->fcw = (in->fcw & 0x1f3f) | 0x40;
    f->fsw = in->fsw & (uint16_t) ~(X86_FSW_ES | X86_FSW_B);
    f->ftw = in->ftw;
    f->fop = in->fop & 0x7ff;
    f->fip = i->aux ? in->fip : (uint32_t)in->fip;
    f->fdp = i->aux ? in->fdp : (uint32_t)in->fdp;
    for (unsigned n = 0; n < 8; n++) {
        memcpy(f->st[n], in->st[n], 10);
        memset(f->st[n] + 10, 0, 6);
    }
    x86_fpu_update_es(c);
}

static void init_x87(struct x86_cpu *c)
{
    x86_fpu_init(c);
    memset(c->s.fpu.st, 0, sizeof c->s.fpu.st);
    x86_fpu_update_es(c);
}

/* ---- FXSAVE and FXRSTOR ---- */

static void fx_check(struct x86_cpu *c)
{
    if (UNLIKELY(c->s.cr0 & (X86_CR0_EM | X86_CR0_TS)))
        x86_mmx_fault(c); /* #UD if EM, else #NM */
}

static void op_fxsave(struct x86_cpu *c, const struct x86_insn *i)
{
    fx_check(c);
    gva_t lin = operand(c, i, LEGACY_SIZE, 16, X86_SEGOK_W);
    struct x86_xsave out;
    x87_header(c, i, &out);
    unsigned len = XMM_OFFSET + 16 * nregs(c);
    memcpy((uint8_t *)&out + 24, (const uint8_t *)&c->s.fpu + 24, len - 24);
    save(c, lin, 0, &out, len);
}

static void op_fxrstor(struct x86_cpu *c, const struct x86_insn *i)
{
    fx_check(c);
    gva_t lin = operand(c, i, LEGACY_SIZE, 16, X86_SEGOK_R);
    struct x86_xsave in;
    x86_ld_bytes(c, lin, &in, LEGACY_SIZE, c->mmu);
    if (in.mxcsr & ~c->s.fpu.mxcsr_mask)
        x86_gp0(c);
    take_x87(c, i, &in);
    c->s.fpu.mxcsr = in.mxcsr;
    memcpy(c->s.fpu.xmm, in.xmm, 16 * nregs(c));
}

/* ---- XSAVE ... ---- */

/* `len` is a multiple of 8. */
static bool all_zero(const void *p, unsigned len)
{
    const uint8_t *b = p;
    uint64_t any = 0, v;
    for (unsigned n = 0; n < len; n += sizeof v) {
        memcpy(&v, b + n, sizeof v);
        any |= v;
    }
    return !any;
}

uint64_t x86_xinuse(const struct x86_cpu *c)
{
    const struct x86_xsave *f = &c->s.fpu;
    uint64_t use = 0;
    if (f->fcw != X86_FCW_INIT || f->fsw || f->ftw || f->fop || f->fip || f->fdp ||
        !all_zero(f->st, sizeof f->st))
        use |= X86_XCR0_X87;
    if (!all_zero(f->xmm, sizeof f->xmm))
        use |= X86_XCR0_SSE;
    if (!all_zero(f->ymmh, sizeof f->ymmh))
        use |= X86_XCR0_AVX;
    return use;
}

static void xsave_check(struct x86_cpu *c)
{
    if (!(c->s.cr4 & X86_CR4_OSXSAVE))
        x86_ud(c);
    if (c->s.cr0 & X86_CR0_TS)
        x86_raise(c, X86_NM);
}

/* The requested-feature bitmap (SDM vol. 1, 13.7). */
static uint64_t requested(const struct x86_cpu *c)
{
    return ((uint64_t)x86_r32(c, X86_RDX) << 32 | x86_r32(c, X86_RAX)) & c->s.xcr0;
}

static unsigned area_size(uint64_t components)
{
    return components & X86_XCR0_AVX ? EXTENDED + 256 : EXTENDED;
}

/* The legacy region is not touched if nothing in it is requested. */
static void probe_area(struct x86_cpu *c, gva_t lin, unsigned size, bool legacy)
{
    unsigned from = legacy ? 0 : HEADER;
    x86_probe(c, (lin + from) & c->lin_mask, size - from, X86_WRITE, c->mmu);
}

static void save_components(struct x86_cpu *c, const struct x86_insn *i, gva_t lin, uint64_t which)
{
    struct x86_xsave *f = &c->s.fpu;
    if (which & X86_XCR0_X87) {
        struct x86_xsave out;
        x87_header(c, i, &out);
        save(c, lin, 0, &out, 24);
        save(c, lin, 32, f->st, sizeof f->st);
    }
    if (which & X86_XCR0_SSE)
        save(c, lin, XMM_OFFSET, f->xmm, 16 * nregs(c));
    if (which & X86_XCR0_AVX)
        save(c, lin, EXTENDED, f->ymmh, 16 * nregs(c));
}

/* SDM vol. 1, 13.7 and 13.9. arg `opt`: leave components out that are in their initial
 * configuration. */
static void xsave_standard(struct x86_cpu *c, const struct x86_insn *i, bool opt)
{
    xsave_check(c);
    uint64_t rfbm = requested(c), use = x86_xinuse(c);
    unsigned size = area_size(rfbm);
    gva_t lin = operand(c, i, size, 64, X86_SEGOK_R | X86_SEGOK_W);
    probe_area(c, lin, size, rfbm); /* MXCSR belongs to AVX, too */
    uint64_t bv = x86_ld64(c, (lin + HEADER) & c->lin_mask);
    save_components(c, i, lin, opt ? rfbm & use : rfbm);
    if (rfbm & (X86_XCR0_SSE | X86_XCR0_AVX))
        save(c, lin, 24, &c->s.fpu.mxcsr, 8);
    bv = (bv & ~rfbm) | (use & rfbm);
    save(c, lin, HEADER, &bv, sizeof bv);
}

static void op_xsave(struct x86_cpu *c, const struct x86_insn *i)
{
    xsave_standard(c, i, false);
}

static void op_xsaveopt(struct x86_cpu *c, const struct x86_insn *i)
{
    xsave_standard(c, i, true);
}

/* SDM vol. 1, 13.10 */
static void op_xsavec(struct x86_cpu *c, const struct x86_insn *i)
{
    xsave_check(c);
    uint64_t rfbm = requested(c), use = x86_xinuse(c);
    if (c->s.fpu.mxcsr != X86_MXCSR_INIT)
        use |= X86_XCR0_SSE;
    unsigned size = area_size(rfbm);
    gva_t lin = operand(c, i, size, 64, X86_SEGOK_W);
    probe_area(c, lin, size, rfbm & (X86_XCR0_X87 | X86_XCR0_SSE));
    save_components(c, i, lin, rfbm & use);
    if (rfbm & use & X86_XCR0_SSE)
        save(c, lin, 24, &c->s.fpu.mxcsr, 8);
    uint64_t header[2] = {rfbm & use, rfbm | COMPACTED};
    save(c, lin, HEADER, header, sizeof header);
}

/* #GP(0) unless the header is valid (SDM vol. 1, 13.8). */
static void check_header(struct x86_cpu *c, const struct x86_xsave *in)
{
    bool compact = in->xcomp_bv & COMPACTED;
    if (!compact) {
        if ((in->xstate_bv & ~c->s.xcr0) || in->xcomp_bv || in->rsv2[0])
            x86_gp0(c);
        return;
    }
    uint64_t present = in->xcomp_bv & ~COMPACTED;
    if (!x86_model_has(c->model, X86_FEATURE(X86_FD1_EAX, 1)) || (present & ~c->s.xcr0) ||
        (in->xstate_bv & ~present) || !all_zero(in->rsv2, sizeof in->rsv2))
        x86_gp0(c);
}

/* MXCSR belongs to SSE in the compacted format; in the other it is loaded with SSE or AVX, always.
 */
static void take_mxcsr(struct x86_cpu *c, const struct x86_xsave *in, uint64_t rfbm)
{
    bool compact = in->xcomp_bv & COMPACTED;
    if (!(rfbm & (compact ? X86_XCR0_SSE : X86_XCR0_SSE | X86_XCR0_AVX)))
        return;
    uint32_t v = compact && !(in->xstate_bv & X86_XCR0_SSE) ? X86_MXCSR_INIT : in->mxcsr;
    if (v & ~c->s.fpu.mxcsr_mask)
        x86_gp0(c);
    c->s.fpu.mxcsr = v;
}

static void op_xrstor(struct x86_cpu *c, const struct x86_insn *i)
{
    xsave_check(c);
    uint64_t rfbm = requested(c);
    unsigned len = 16 * nregs(c);
    gva_t lin = operand(c, i, EXTENDED, 64, X86_SEGOK_R);
    struct x86_xsave in;
    x86_ld_bytes(c, lin, &in, EXTENDED, c->mmu);
    check_header(c, &in);
    if (rfbm & in.xstate_bv & X86_XCR0_AVX) {
        lin = operand(c, i, area_size(X86_XCR0_AVX), 64, X86_SEGOK_R);
        x86_ld_bytes(c, (lin + EXTENDED) & c->lin_mask, in.ymmh, len, c->mmu);
    }
    take_mxcsr(c, &in, rfbm); /* the last that can fault */
    if (!(in.xstate_bv & X86_XCR0_SSE))
        memset(in.xmm, 0, sizeof in.xmm);
    if (!(in.xstate_bv & X86_XCR0_AVX))
        memset(in.ymmh, 0, sizeof in.ymmh);
    if ((rfbm & X86_XCR0_X87) && (in.xstate_bv & X86_XCR0_X87))
        take_x87(c, i, &in);
    else if (rfbm & X86_XCR0_X87)
        init_x87(c);
    if (rfbm & X86_XCR0_SSE)
        memcpy(c->s.fpu.xmm, in.xmm, len);
    if (rfbm & X86_XCR0_AVX)
        memcpy(c->s.fpu.ymmh, in.ymmh, len);
}

/* ---- binding ---- */

bool x86_bind_xsave(struct x86_dec *d)
{
    static const struct {
        x86_op_fn fn;
        unsigned feature;
    } ops[] = {
        [X86_FXSAVE] = {op_fxsave, X86_FEATURE(X86_F1_EDX, 24)},
        [X86_FXRSTOR] = {op_fxrstor, X86_FEATURE(X86_F1_EDX, 24)},
        [X86_XSAVE] = {op_xsave, X86_HAS_XSAVE},
        [X86_XRSTOR] = {op_xrstor, X86_HAS_XSAVE},
        [X86_XSAVEOPT] = {op_xsaveopt, X86_FEATURE(X86_FD1_EAX, 0)},
        [X86_XSAVEC] = {op_xsavec, X86_FEATURE(X86_FD1_EAX, 1)},
    };
    if ((d->zi->attributes & ZYDIS_ATTRIB_HAS_LOCK) || !d->c->model ||
        !x86_model_has(d->c->model, ops[d->arg].feature))
        return false;
    switch (d->zi->mnemonic) {
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVEC64:
        d->i->aux = 1;
        break;
    default:
        d->i->aux = 0;
    }
    d->i->fn = ops[d->arg].fn;
    return true;
}
