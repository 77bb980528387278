/*
 * op_simd.c - plain data moves of SSE, AVX and AVX2, which are much of all SIMD instructions: in C
 * on the state, faster than by a stub. dst, src: register numbers.
 */
#include "isa/x86/native_mem.h"

static inline uint8_t *xmm(struct x86_cpu *c, unsigned r)
{
    return c->s.fpu.xmm[r];
}

static inline void zero_high(struct x86_cpu *c, unsigned r)
{
    memset(c->s.fpu.ymmh[r], 0, 16);
}

static inline void no_high(struct x86_cpu *c, unsigned r)
{
    (void)c;
    (void)r;
}

/* For a legacy instruction bits 128.. of the destination stay; VEX clears them. */
#define MOVES(name, check, high)                                                               \
    static void name##_rr(struct x86_cpu *c, const struct x86_insn *i)                         \
    {                                                                                          \
        check(c);                                                                              \
        memmove(xmm(c, i->dst), xmm(c, i->src), 16);                                           \
        high(c, i->dst);                                                                       \
    }                                                                                          \
    static void name##_ld16(struct x86_cpu *c, const struct x86_insn *i)                       \
    {                                                                                          \
        check(c);                                                                              \
        memcpy(xmm(c, i->dst), x86_vec_load(c, i, 16), 16);                                    \
        high(c, i->dst);                                                                       \
    }                                                                                          \
    static void name##_st16(struct x86_cpu *c, const struct x86_insn *i)                       \
    {                                                                                          \
        check(c);                                                                              \
        x86_vec_store(c, i, xmm(c, i->src), 16);                                               \
    }                                                                                          \
    /* MOVQ, MOVSD, MOVD, MOVSS from memory: zero-extended to 128 bits */                      \
    static void name##_ld8(struct x86_cpu *c, const struct x86_insn *i)                        \
    {                                                                                          \
        check(c);                                                                              \
        uint64_t v[2] = {x86_ld64(c, x86_lin_r(c, i, 8)), 0};                                  \
        memcpy(xmm(c, i->dst), v, 16);                                                         \
        high(c, i->dst);                                                                       \
    }                                                                                          \
    static void name##_ld4(struct x86_cpu *c, const struct x86_insn *i)                        \
    {                                                                                          \
        check(c);                                                                              \
        uint64_t v[2] = {x86_ld32(c, x86_lin_r(c, i, 4)), 0};                                  \
        memcpy(xmm(c, i->dst), v, 16);                                                         \
        high(c, i->dst);                                                                       \
    }                                                                                          \
    static void name##_st8(struct x86_cpu *c, const struct x86_insn *i)                        \
    {                                                                                          \
        check(c);                                                                              \
        uint64_t v;                                                                            \
        memcpy(&v, xmm(c, i->src), 8);                                                         \
        x86_st64(c, x86_lin_w(c, i, 8), v);                                                    \
    }                                                                                          \
    static void name##_st4(struct x86_cpu *c, const struct x86_insn *i)                        \
    {                                                                                          \
        check(c);                                                                              \
        uint32_t v;                                                                            \
        memcpy(&v, xmm(c, i->src), 4);                                                         \
        x86_st32(c, x86_lin_w(c, i, 4), v);                                                    \
    }                                                                                          \
    static void name##_low_rr(struct x86_cpu *c, const struct x86_insn *i) /* MOVQ xmm, xmm */ \
    {                                                                                          \
        check(c);                                                                              \
        uint64_t v[2] = {0, 0};                                                                \
        memcpy(v, xmm(c, i->src), 8);                                                          \
        memcpy(xmm(c, i->dst), v, 16);                                                         \
        high(c, i->dst);                                                                       \
    }                                                                                          \
    static void name##_from_r64(struct x86_cpu *c, const struct x86_insn *i)                   \
    {                                                                                          \
        check(c);                                                                              \
        uint64_t v[2] = {x86_r64(c, i->src), 0};                                               \
        memcpy(xmm(c, i->dst), v, 16);                                                         \
        high(c, i->dst);                                                                       \
    }                                                                                          \
    static void name##_from_r32(struct x86_cpu *c, const struct x86_insn *i)                   \
    {                                                                                          \
        check(c);                                                                              \
        uint64_t v[2] = {x86_r32(c, i->src), 0};                                               \
        memcpy(xmm(c, i->dst), v, 16);                                                         \
        high(c, i->dst);                                                                       \
    }                                                                                          \
    static void name##_to_r64(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                          \
        check(c);                                                                              \
        memcpy(&c->s.gpr[i->dst], xmm(c, i->src), 8);                                          \
    }                                                                                          \
    static void name##_to_r32(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                          \
        check(c);                                                                              \
        uint32_t v;                                                                            \
        memcpy(&v, xmm(c, i->src), 4);                                                         \
        x86_w32(c, i->dst, v);                                                                 \
    }                                                                                          \
    static void name##_zero(struct x86_cpu *c, const struct x86_insn *i) /* XOR with itself */ \
    {                                                                                          \
        check(c);                                                                              \
        memset(xmm(c, i->dst), 0, 16);                                                         \
        high(c, i->dst);                                                                       \
    }
MOVES(sse, x86_sse_check, no_high)
MOVES(avx, x86_avx_check, zero_high)
#undef MOVES

/* ---- legacy only: the destination's other bytes stay ---- */

static void sse_merge8(struct x86_cpu *c, const struct x86_insn *i) /* MOVSD xmm, xmm */
{
    x86_sse_check(c);
    memmove(xmm(c, i->dst), xmm(c, i->src), 8);
}

static void sse_merge4(struct x86_cpu *c, const struct x86_insn *i) /* MOVSS xmm, xmm */
{
    x86_sse_check(c);
    memmove(xmm(c, i->dst), xmm(c, i->src), 4);
}

static void sse_ldlow(struct x86_cpu *c, const struct x86_insn *i) /* MOVLPS, MOVLPD */
{
    x86_sse_check(c);
    uint64_t v = x86_ld64(c, x86_lin_r(c, i, 8));
    memcpy(xmm(c, i->dst), &v, 8);
}

static void sse_ldhigh(struct x86_cpu *c, const struct x86_insn *i) /* MOVHPS, MOVHPD */
{
    x86_sse_check(c);
    uint64_t v = x86_ld64(c, x86_lin_r(c, i, 8));
    memcpy(xmm(c, i->dst) + 8, &v, 8);
}

static void sse_sthigh(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_sse_check(c);
    uint64_t v;
    memcpy(&v, xmm(c, i->src) + 8, 8);
    x86_st64(c, x86_lin_w(c, i, 8), v);
}

/* ---- 256 bits ---- */

static void avx_rr32(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_avx_check(c);
    memmove(xmm(c, i->dst), xmm(c, i->src), 16);
    memmove(c->s.fpu.ymmh[i->dst], c->s.fpu.ymmh[i->src], 16);
}

static void avx_ld32(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_avx_check(c);
    const uint8_t *p = x86_vec_load(c, i, 32);
    memcpy(xmm(c, i->dst), p, 16);
    memcpy(c->s.fpu.ymmh[i->dst], p + 16, 16);
}

static void avx_st32(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_avx_check(c);
    uint8_t v[32];
    memcpy(v, xmm(c, i->src), 16);
    memcpy(v + 16, c->s.fpu.ymmh[i->src], 16);
    x86_vec_store(c, i, v, 32);
}

/* ---- binding ---- */

enum move { WHOLE, ALIGNED, QWORD, DWORD, LOW, HIGH, XOR, NOT_A_MOVE };

static enum move move_of(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_MOVUPS:
    case ZYDIS_MNEMONIC_MOVUPD:
    case ZYDIS_MNEMONIC_MOVDQU:
    case ZYDIS_MNEMONIC_LDDQU:
    case ZYDIS_MNEMONIC_VMOVUPS:
    case ZYDIS_MNEMONIC_VMOVUPD:
    case ZYDIS_MNEMONIC_VMOVDQU:
    case ZYDIS_MNEMONIC_VLDDQU:
        return WHOLE;
    case ZYDIS_MNEMONIC_MOVAPS:
    case ZYDIS_MNEMONIC_MOVAPD:
    case ZYDIS_MNEMONIC_MOVDQA:
    case ZYDIS_MNEMONIC_MOVNTPS:
    case ZYDIS_MNEMONIC_MOVNTPD:
    case ZYDIS_MNEMONIC_MOVNTDQ:
    case ZYDIS_MNEMONIC_MOVNTDQA:
    case ZYDIS_MNEMONIC_VMOVAPS:
    case ZYDIS_MNEMONIC_VMOVAPD:
    case ZYDIS_MNEMONIC_VMOVDQA:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQA:
        return ALIGNED;
    case ZYDIS_MNEMONIC_MOVQ:
    case ZYDIS_MNEMONIC_VMOVQ:
    case ZYDIS_MNEMONIC_MOVSD:
    case ZYDIS_MNEMONIC_VMOVSD:
        return QWORD;
    case ZYDIS_MNEMONIC_MOVD:
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_MOVSS:
    case ZYDIS_MNEMONIC_VMOVSS:
        return DWORD;
    case ZYDIS_MNEMONIC_MOVLPS:
    case ZYDIS_MNEMONIC_MOVLPD:
        return LOW;
    case ZYDIS_MNEMONIC_MOVHPS:
    case ZYDIS_MNEMONIC_MOVHPD:
        return HIGH;
    case ZYDIS_MNEMONIC_PXOR:
    case ZYDIS_MNEMONIC_XORPS:
    case ZYDIS_MNEMONIC_XORPD:
    case ZYDIS_MNEMONIC_VPXOR:
    case ZYDIS_MNEMONIC_VXORPS:
    case ZYDIS_MNEMONIC_VXORPD:
        return XOR;
    default:
        return NOT_A_MOVE;
    }
}

/* Kind of a visible operand. */
enum operand { NONE, XMM, YMM, GPR, MEM, OTHER };

static enum operand operand(const struct x86_dec *d, unsigned n)
{
    if (n >= d->zi->operand_count_visible)
        return NONE;
    if (x86_is_mem(d, n))
        return MEM;
    if (!x86_is_reg(d, n))
        return OTHER;
    switch (ZydisRegisterGetClass(d->op[n].reg.value)) {
    case ZYDIS_REGCLASS_XMM:
        return XMM;
    case ZYDIS_REGCLASS_YMM:
        return YMM;
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return GPR;
    default:
        return OTHER;
    }
}

static x86_op_fn whole_fn(bool vex, enum operand dst, enum operand src)
{
    if (dst == XMM)
        return src == XMM   ? (vex ? avx_rr : sse_rr)
               : src == MEM ? (vex ? avx_ld16 : sse_ld16)
                            : NULL;
    if (dst == YMM)
        return src == YMM ? avx_rr32 : src == MEM ? avx_ld32 : NULL;
    if (dst == MEM)
        return src == XMM ? (vex ? avx_st16 : sse_st16) : src == YMM ? avx_st32 : NULL;
    return NULL;
}

/* MOVQ and MOVD in all directions, and MOVSD and MOVSS with memory. */
static x86_op_fn scalar_fn(bool vex, bool q, enum operand dst, enum operand src, bool gpr64)
{
    if (dst == XMM && src == MEM)
        return q ? (vex ? avx_ld8 : sse_ld8) : (vex ? avx_ld4 : sse_ld4);
    if (dst == MEM && src == XMM)
        return q ? (vex ? avx_st8 : sse_st8) : (vex ? avx_st4 : sse_st4);
    if (dst == XMM && src == GPR)
        return gpr64 ? (vex ? avx_from_r64 : sse_from_r64) : (vex ? avx_from_r32 : sse_from_r32);
    if (dst == GPR && src == XMM)
        return gpr64 ? (vex ? avx_to_r64 : sse_to_r64) : (vex ? avx_to_r32 : sse_to_r32);
    return NULL;
}

static x86_op_fn scalar_rr_fn(const struct x86_dec *d, bool vex)
{
    switch (d->zi->mnemonic) {
    case ZYDIS_MNEMONIC_MOVSD:
        return sse_merge8;
    case ZYDIS_MNEMONIC_MOVSS:
        return sse_merge4;
    case ZYDIS_MNEMONIC_MOVQ:
    case ZYDIS_MNEMONIC_VMOVQ:
        return vex ? avx_low_rr : sse_low_rr;
    default:
        return NULL;
    }
}

static x86_op_fn half_fn(enum move m, enum operand dst, enum operand src)
{
    if (dst == XMM && src == MEM)
        return m == LOW ? sse_ldlow : sse_ldhigh;
    if (dst == MEM && src == XMM)
        return m == LOW ? sse_st8 : sse_sthigh;
    return NULL;
}

static x86_op_fn xor_fn(const struct x86_dec *d, bool vex)
{
    unsigned n = d->zi->operand_count_visible;
    if (operand(d, 0) != XMM || operand(d, n - 1) != XMM ||
        d->op[n - 1].reg.value != d->op[vex ? 1 : 0].reg.value)
        return NULL;
    return vex ? avx_zero : sse_zero;
}

static unsigned memory_size(const struct x86_dec *d)
{
    return d->op[x86_is_mem(d, 0) ? 0 : 1].size / 8u;
}

bool x86_bind_simd_move(struct x86_dec *d)
{
    enum move m = move_of(d->zi->mnemonic);
    bool vex = d->zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    if (m == NOT_A_MOVE || (m != XOR && d->zi->operand_count_visible != 2))
        return false;
    enum operand dst = operand(d, 0), src = operand(d, 1);
    x86_op_fn fn = NULL;
    if (m == WHOLE || m == ALIGNED) {
        fn = whole_fn(vex, dst, src);
        unsigned size = memory_size(d);
        d->i->aux = X86_VEC_AUX(size, m == ALIGNED ? size : 1u);
    } else if (m == QWORD || m == DWORD) {
        bool wide = d->op[dst == GPR ? 0 : 1].size == 64;
        fn = dst == XMM && src == XMM ? scalar_rr_fn(d, vex)
                                      : scalar_fn(vex, m == QWORD, dst, src, wide);
    } else if (m == XOR) {
        fn = xor_fn(d, vex);
    } else {
        fn = half_fn(m, dst, src);
    }
    if (!fn)
        return false;
    if (dst != MEM)
        d->i->dst = (uint8_t)ZydisRegisterGetId(d->op[0].reg.value);
    if (m != XOR && src != MEM)
        d->i->src = (uint8_t)ZydisRegisterGetId(d->op[1].reg.value);
    d->i->fn = fn;
    return true;
}
