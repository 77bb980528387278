/*
 * op_bmi.c - the VEX-encoded integer instructions of BMI1 and BMI2, executed by the host's own.
 *
 * Operands, destination first: most are (register, register, register or memory); the ones that
 * take their control operand last (BEXTR, BZHI, SARX ...) are (register, register or memory,
 * register).
 */
#include "isa/x86/op.h"

#define KERNEL3(op, bits, load, save)                                                            \
    static inline uint##bits##_t op##bits(struct x86_cpu *c, uint##bits##_t a, uint##bits##_t b) \
    {                                                                                            \
        uint16_t fl = c->fl;                                                                     \
        uint##bits##_t r;                                                                        \
        /* AT&T order: last operand first */                                                     \
        __asm__(load #op " %[b], %[a], %[r]" save                                                \
                : [r] "=r"(r), "+&a"(fl)                                                         \
                : [a] "r"(a), [b] "r"(b)                                                         \
                : "cc");                                                                         \
        c->fl = fl;                                                                              \
        return r;                                                                                \
    }

/* dst = op(src, src2 or memory) */
#define LAST_IS_RM(op, bits, load, save)                                                      \
    KERNEL3(op, bits, load, save)                                                             \
    static void op##_r##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                         \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->src), x86_r##bits(c, i->src2))); \
    }                                                                                         \
    static void op##_m##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                         \
        uint##bits##_t b = x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8));                      \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->src), b));                       \
    }

/* dst = op(src or memory, src2) */
#define MIDDLE_IS_RM(op, bits, load, save)                                                    \
    KERNEL3(op, bits, load, save)                                                             \
    static void op##_r##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                         \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->src), x86_r##bits(c, i->src2))); \
    }                                                                                         \
    static void op##_m##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                         \
        uint##bits##_t a = x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8));                      \
        x86_w##bits(c, i->dst, op##bits(c, a, x86_r##bits(c, i->src2)));                      \
    }

/* dst = op(src or memory) */
#define UNARY(op, bits)                                                                    \
    static inline uint##bits##_t op##bits(struct x86_cpu *c, uint##bits##_t a)             \
    {                                                                                      \
        uint16_t fl = c->fl;                                                               \
        uint##bits##_t r;                                                                  \
        __asm__(X86_HF_LOAD #op " %[a], %[r]" X86_HF_SAVE                                  \
                : [r] "=r"(r), "+&a"(fl)                                                   \
                : [a] "r"(a)                                                               \
                : "cc");                                                                   \
        c->fl = fl;                                                                        \
        return r;                                                                          \
    }                                                                                      \
    static void op##_r##bits(struct x86_cpu *c, const struct x86_insn *i)                  \
    {                                                                                      \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->src)));                       \
    }                                                                                      \
    static void op##_m##bits(struct x86_cpu *c, const struct x86_insn *i)                  \
    {                                                                                      \
        x86_w##bits(c, i->dst, op##bits(c, x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8)))); \
    }

/* Without BMI2 in the compiler's target the generic rotation is as good. */
#define RORX(bits)                                                                                \
    static inline uint##bits##_t rorx##bits(uint##bits##_t a, uint64_t imm)                       \
    {                                                                                             \
        unsigned n = imm & ((bits)-1);                                                            \
        return (a >> n) | (a << (-n & ((bits)-1)));                                               \
    }                                                                                             \
    static void rorx_r##bits(struct x86_cpu *c, const struct x86_insn *i)                         \
    {                                                                                             \
        x86_w##bits(c, i->dst, rorx##bits(x86_r##bits(c, i->src), i->imm));                       \
    }                                                                                             \
    static void rorx_m##bits(struct x86_cpu *c, const struct x86_insn *i)                         \
    {                                                                                             \
        x86_w##bits(c, i->dst, rorx##bits(x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8)), i->imm)); \
    }

/* MULX: dst is the high half, src the low one; written in that order's reverse, so that the high
 * half stays if both are one register (SDM vol. 2, MULX). */
#define MULX(bits, wide)                                                                         \
    static inline void mulx##bits(struct x86_cpu *c, const struct x86_insn *i, uint##bits##_t b) \
    {                                                                                            \
        wide r = (wide)x86_r##bits(c, X86_RDX) * b;                                              \
        x86_w##bits(c, i->src, (uint##bits##_t)r);                                               \
        x86_w##bits(c, i->dst, (uint##bits##_t)(r >> (bits)));                                   \
    }                                                                                            \
    static void mulx_r##bits(struct x86_cpu *c, const struct x86_insn *i)                        \
    {                                                                                            \
        mulx##bits(c, i, x86_r##bits(c, i->src2));                                               \
    }                                                                                            \
    static void mulx_m##bits(struct x86_cpu *c, const struct x86_insn *i)                        \
    {                                                                                            \
        mulx##bits(c, i, x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8)));                          \
    }

#define BOTH(kind, op, ...) kind(op, 32, __VA_ARGS__) kind(op, 64, __VA_ARGS__)
BOTH(LAST_IS_RM, andn, X86_HF_LOAD, X86_HF_SAVE)
BOTH(LAST_IS_RM, pdep, "", "")
BOTH(LAST_IS_RM, pext, "", "")
BOTH(MIDDLE_IS_RM, bextr, X86_HF_LOAD, X86_HF_SAVE)
BOTH(MIDDLE_IS_RM, bzhi, X86_HF_LOAD, X86_HF_SAVE)
BOTH(MIDDLE_IS_RM, sarx, "", "")
BOTH(MIDDLE_IS_RM, shlx, "", "")
BOTH(MIDDLE_IS_RM, shrx, "", "")
UNARY(blsi, 32)
UNARY(blsi, 64)
UNARY(blsmsk, 32)
UNARY(blsmsk, 64)
UNARY(blsr, 32)
UNARY(blsr, 64)
RORX(32)
RORX(64)
MULX(32, uint64_t)
MULX(64, unsigned __int128)

struct bmi {
    x86_op_fn fn[2][2]; /* [memory][64 bits] */
    bool bmi2;
};

/* VEX prefixes are not recognized in real and virtual-8086 mode (SDM vol. 2, 2.6.13). */
static void vex_checked(struct x86_cpu *c, const struct x86_insn *i)
{
    if (!c->protected_mode)
        x86_ud(c);
    const struct bmi *b = i->ext;
    b->fn[(i->flags & X86_IF_MEM) != 0][i->osize == 8](c, i);
}

bool x86_bind_bmi(struct x86_dec *d)
{
#define ROW(op)                \
    {                          \
        {op##_r32, op##_r64},  \
        {                      \
            op##_m32, op##_m64 \
        }                      \
    }
    static struct bmi ops[] = {
        [X86_BMI_ANDN] = {ROW(andn), false}, [X86_BMI_BEXTR] = {ROW(bextr), false},
        [X86_BMI_BLSI] = {ROW(blsi), false}, [X86_BMI_BLSMSK] = {ROW(blsmsk), false},
        [X86_BMI_BLSR] = {ROW(blsr), false}, [X86_BMI_BZHI] = {ROW(bzhi), true},
        [X86_BMI_PDEP] = {ROW(pdep), true},  [X86_BMI_PEXT] = {ROW(pext), true},
        [X86_BMI_MULX] = {ROW(mulx), true},  [X86_BMI_RORX] = {ROW(rorx), true},
        [X86_BMI_SARX] = {ROW(sarx), true},  [X86_BMI_SHLX] = {ROW(shlx), true},
        [X86_BMI_SHRX] = {ROW(shrx), true},
    };
    struct bmi *b = &ops[d->arg];
    if (!__builtin_cpu_supports("bmi") || (b->bmi2 && !__builtin_cpu_supports("bmi2")))
        return false;
    x86_bind_regs(d);
    if (x86_is_reg(d, 2))
        d->i->src2 = x86_reg_code(d, 2);
    unsigned wide = d->op[0].size == 64;
    d->i->osize = wide ? 8 : 4;
    d->i->ext = b;
    bool mem = d->i->flags & X86_IF_MEM;
    d->i->fn = d->code_size == 64 ? b->fn[mem][wide] : vex_checked;
    return true;
}
