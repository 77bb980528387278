/*
 * op_muldiv.c - MUL IMUL DIV IDIV AAM AAD.
 *
 * A division that does not fit its quotient is found before the host divides: #DE is the guest's.
 * It gets the guest's flags first, since CPUs differ in which ones they leave alone.
 */
#include "isa/x86/op.h"

/* ---- MUL, IMUL, DIV, IDIV with the accumulator: AX, or rDX:rAX ---- */

#define MOD16 "w"
#define MOD32 "k"
#define MOD64 "q"
#define ACC16 "%%ax"
#define ACC32 "%%eax"
#define ACC64 "%%rax"

#define WIDE_MUL(op, bits, sfx)                                               \
    static inline void op##bits(struct x86_cpu *c, uint##bits##_t b)          \
    {                                                                         \
        uint64_t lo = x86_r##bits(c, X86_RAX), hi;                            \
        uint##bits##_t low;                                                   \
        __asm__(#op sfx " %[b]\n\tmov %" MOD##bits "[lo], %[low]" X86_HF_SAVE \
                : [lo] "+&a"(lo), "=&d"(hi), [low] "=&r"(low)                 \
                : [b] "r"(b)                                                  \
                : "cc");                                                      \
        c->fl = (uint16_t)lo;                                                 \
        x86_w##bits(c, X86_RAX, low);                                         \
        x86_w##bits(c, X86_RDX, (uint##bits##_t)hi);                          \
    }

#define BYTE_MUL(op)                                         \
    static inline void op##8(struct x86_cpu * c, uint8_t b)  \
    {                                                        \
        uint16_t ax = x86_r8(c, 0), low;                     \
        __asm__(#op "b %[b]\n\tmov %%ax, %[low]" X86_HF_SAVE \
                : "+&a"(ax), [low] "=&r"(low)                \
                : [b] "r"(b)                                 \
                : "cc");                                     \
        c->fl = ax;                                          \
        x86_w16(c, X86_RAX, low);                            \
    }
#define MULS(op) BYTE_MUL(op) WIDE_MUL(op, 16, "w") WIDE_MUL(op, 32, "l") WIDE_MUL(op, 64, "q")
MULS(mul)
MULS(imul)

/* The quotient overflows iff |n| >= |d| * 2^(bits-1), or, if it is negative, |d| * (2^(bits-1) +
 * 1). */
#define FITS(bits, wide)                                                        \
    static inline bool div_fits##bits(wide n, uint##bits##_t d)                 \
    {                                                                           \
        return (uint##bits##_t)(n >> (bits)) < d; /* false for d = 0 */         \
    }                                                                           \
    static inline bool idiv_fits##bits(wide n, uint##bits##_t d)                \
    {                                                                           \
        bool nneg = n >> (2 * (bits)-1), dneg = d >> ((bits)-1);                \
        wide an = nneg ? (wide)-n : n, ad = dneg ? (uint##bits##_t) - d : d;    \
        return an < (wide)((wide)(ad << ((bits)-1)) + (nneg != dneg ? ad : 0)); \
    }
FITS(8, uint16_t)
FITS(16, uint32_t)
FITS(32, uint64_t)
FITS(64, unsigned __int128)

#define WIDE_DIV(op, bits, sfx, wide)                                                          \
    static inline void op##bits(struct x86_cpu *c, uint##bits##_t b)                           \
    {                                                                                          \
        uint##bits##_t lo = x86_r##bits(c, X86_RAX), hi = x86_r##bits(c, X86_RDX);             \
        if (UNLIKELY(!op##_fits##bits((wide)hi << (bits) | lo, b)))                            \
            x86_raise(c, X86_DE);                                                              \
        uint16_t fl = c->fl;                                                                   \
        uint##bits##_t quot = lo;                                                              \
        __asm__(X86_HF_LOAD "mov %[quot], " ACC##bits "\n\t" #op sfx " %[b]\n\t"               \
                                                      "mov " ACC##bits ", %[quot]" X86_HF_SAVE \
                : "+&a"(fl), "+&d"(hi), [quot] "+&r"(quot)                                     \
                : [b] "r"(b)                                                                   \
                : "cc");                                                                       \
        c->fl = fl;                                                                            \
        x86_w##bits(c, X86_RAX, quot);                                                         \
        x86_w##bits(c, X86_RDX, hi);                                                           \
    }
#define BYTE_DIV(op)                                                                              \
    static inline void op##8(struct x86_cpu * c, uint8_t b)                                       \
    {                                                                                             \
        uint16_t quot = x86_r16(c, X86_RAX), fl = c->fl;                                          \
        if (UNLIKELY(!op##_fits8(quot, b)))                                                       \
            x86_raise(c, X86_DE);                                                                 \
        __asm__(X86_HF_LOAD "mov %[quot], %%ax\n\t" #op "b %[b]\n\tmov %%ax, %[quot]" X86_HF_SAVE \
                : "+&a"(fl), [quot] "+&r"(quot)                                                   \
                : [b] "r"(b)                                                                      \
                : "cc");                                                                          \
        c->fl = fl;                                                                               \
        x86_w16(c, X86_RAX, quot);                                                                \
    }
#define DIVS(op)                    \
    BYTE_DIV(op)                    \
    WIDE_DIV(op, 16, "w", uint32_t) \
    WIDE_DIV(op, 32, "l", uint64_t) \
    WIDE_DIV(op, 64, "q", unsigned __int128)
DIVS(div)
DIVS(idiv)

#define FORMS(op, bits)                                                   \
    static void op##_r##bits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                     \
        op##bits(c, x86_r##bits(c, i->dst));                              \
    }                                                                     \
    static void op##_m##bits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                     \
        op##bits(c, x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8)));        \
    }
#define FORMS_ALL(op) FORMS(op, 8) FORMS(op, 16) FORMS(op, 32) FORMS(op, 64)
FORMS_ALL(mul)
FORMS_ALL(imul)
FORMS_ALL(div)
FORMS_ALL(idiv)

enum { OP_MUL, OP_IMUL, OP_DIV, OP_IDIV };

static bool bind_accumulator(struct x86_dec *d)
{
#define ROW(op)                                   \
    {                                             \
        {op##_r8, op##_r16, op##_r32, op##_r64},  \
        {                                         \
            op##_m8, op##_m16, op##_m32, op##_m64 \
        }                                         \
    }
    static const x86_op_fn fn[4][2][4] = {ROW(mul), ROW(imul), ROW(div), ROW(idiv)};
    x86_bind_regs(d);
    d->i->fn = fn[d->arg][x86_is_mem(d, 0)][x86_size_index(d->op[0].size)];
    return true;
}

/* ---- IMUL with two and three operands ---- */

#define IMUL(bits)                                                                              \
    static inline uint##bits##_t imul_##bits(struct x86_cpu *c, uint##bits##_t a,               \
                                             uint##bits##_t b)                                  \
    {                                                                                           \
        uint16_t fl;                                                                            \
        __asm__("imul %[b], %[a]" X86_HF_SAVE : [a] "+r"(a), "=a"(fl) : [b] "r"(b) : "cc");     \
        c->fl = fl;                                                                             \
        return a;                                                                               \
    }                                                                                           \
    static void imul_rr##bits(struct x86_cpu *c, const struct x86_insn *i)                      \
    {                                                                                           \
        x86_w##bits(c, i->dst, imul_##bits(c, x86_r##bits(c, i->dst), x86_r##bits(c, i->src))); \
    }                                                                                           \
    static void imul_rm##bits(struct x86_cpu *c, const struct x86_insn *i)                      \
    {                                                                                           \
        uint##bits##_t b = x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8));                        \
        x86_w##bits(c, i->dst, imul_##bits(c, x86_r##bits(c, i->dst), b));                      \
    }                                                                                           \
    static void imul_rri##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                           \
        uint##bits##_t b = (uint##bits##_t)i->imm;                                              \
        x86_w##bits(c, i->dst, imul_##bits(c, x86_r##bits(c, i->src), b));                      \
    }                                                                                           \
    static void imul_rmi##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                           \
        uint##bits##_t a = x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8));                        \
        x86_w##bits(c, i->dst, imul_##bits(c, a, (uint##bits##_t)i->imm));                      \
    }
IMUL(16)
IMUL(32)
IMUL(64)

static bool bind_imul(struct x86_dec *d)
{
    static const x86_op_fn fn[2][2][4] = {
        {{NULL, imul_rr16, imul_rr32, imul_rr64}, {NULL, imul_rm16, imul_rm32, imul_rm64}},
        {{NULL, imul_rri16, imul_rri32, imul_rri64}, {NULL, imul_rmi16, imul_rmi32, imul_rmi64}},
    };
    /* The one-operand form names its operand first, its accumulator is hidden. */
    if (d->zi->operand_count_visible == 1)
        return bind_accumulator(d);
    x86_bind_regs(d);
    d->i->fn = fn[x86_is_imm(d, 2)][x86_is_mem(d, 1)][x86_size_index(d->op[0].size)];
    return true;
}

/* ---- AAM, AAD (not in 64-bit mode) ----
 * SF ZF PF are as of AL. The undefined ones are as on Intel's CPUs: clear after AAM, those of the
 * final addition after AAD. */

static void aam(struct x86_cpu *c, const struct x86_insn *i)
{
    uint8_t base = (uint8_t)i->imm, al = x86_r8(c, 0), rest;
    uint16_t fl;
    if (!base)
        x86_raise(c, X86_DE);
    rest = al % base;
    x86_w16(c, X86_RAX, (uint16_t)(al / base << 8 | rest));
    __asm__("testb %[a], %[a]" X86_HF_SAVE : "=a"(fl) : [a] "r"(rest) : "cc");
    c->fl = fl;
}

static void aad(struct x86_cpu *c, const struct x86_insn *i)
{
    uint16_t ax = x86_r16(c, X86_RAX), fl;
    uint8_t al = (uint8_t)ax, tens = (uint8_t)((ax >> 8) * (uint8_t)i->imm);
    __asm__("addb %[b], %[a]" X86_HF_SAVE : [a] "+r"(al), "=a"(fl) : [b] "r"(tens) : "cc");
    c->fl = fl;
    x86_w16(c, X86_RAX, al);
}

static bool bind_ascii(struct x86_dec *d)
{
    d->i->fn = d->arg ? aad : aam;
    return true;
}

const struct x86_bind_row x86_rows_muldiv[] = {
    {ZYDIS_MNEMONIC_MUL, bind_accumulator, OP_MUL},
    {ZYDIS_MNEMONIC_IMUL, bind_imul, OP_IMUL},
    {ZYDIS_MNEMONIC_DIV, bind_accumulator, OP_DIV},
    {ZYDIS_MNEMONIC_IDIV, bind_accumulator, OP_IDIV},
    {ZYDIS_MNEMONIC_AAM, bind_ascii, 0},
    {ZYDIS_MNEMONIC_AAD, bind_ascii, 1},
    {0, NULL, 0},
};
