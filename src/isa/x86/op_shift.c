/*
 * op_shift.c - SHL SHR SAR ROL ROR RCL RCR SHLD SHRD.
 *
 * The host's instruction gets the guest's flags first: a count of zero leaves them as they are, and
 * a rotation leaves most of them. It masks the count as the guest's would.
 */
#include "isa/x86/op.h"

/* ROL and ROR of a register by an immediate count other than 1, for which OF is undefined, leave it
 * alone on Intel's CPUs; of memory, or by CL, they do not. */
static inline void fix_of(struct x86_cpu *c, uint16_t before, uint64_t imm, unsigned bits)
{
    if ((imm & (bits == 64 ? 63 : 31)) != 1)
        c->fl = (uint16_t)((c->fl & ~X86_HF_OF) | (before & X86_HF_OF));
}
#define NO_FIX(c, before, imm, bits) (void)before

#define SHIFT_KERNEL(op, bits, sfx)                                                       \
    static inline uint##bits##_t op##bits(struct x86_cpu *c, uint##bits##_t a, uint8_t n) \
    {                                                                                     \
        uint16_t fl = c->fl;                                                              \
        __asm__(X86_HF_LOAD #op sfx " %%cl, %[a]" X86_HF_SAVE                             \
                : [a] "+r"(a), "+a"(fl)                                                   \
                : "c"(n)                                                                  \
                : "cc");                                                                  \
        c->fl = fl;                                                                       \
        return a;                                                                         \
    }
#define SHIFT_MEM(op, bits)                                                                   \
    static inline void op##_mem##bits(struct x86_cpu *c, const struct x86_insn *i, uint8_t n) \
    {                                                                                         \
        gva_t lin = x86_lin_rw(c, i, (bits) / 8);                                             \
        X86_RMW(c, lin, bits, *(x86_mem##bits *)p = op##bits(c, *(x86_mem##bits *)p, n),      \
                op##bits(c, old, n));                                                         \
    }
#define SHIFT(op, bits, sfx, fix)                                                     \
    SHIFT_KERNEL(op, bits, sfx)                                                       \
    SHIFT_MEM(op, bits)                                                               \
    static void op##_ri##bits(struct x86_cpu *c, const struct x86_insn *i)            \
    {                                                                                 \
        uint16_t before = c->fl;                                                      \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->dst), (uint8_t)i->imm)); \
        fix(c, before, i->imm, bits);                                                 \
    }                                                                                 \
    static void op##_rc##bits(struct x86_cpu *c, const struct x86_insn *i)            \
    {                                                                                 \
        uint8_t n = (uint8_t)c->s.gpr[X86_RCX];                                       \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->dst), n));               \
    }                                                                                 \
    static void op##_mi##bits(struct x86_cpu *c, const struct x86_insn *i)            \
    {                                                                                 \
        op##_mem##bits(c, i, (uint8_t)i->imm);                                        \
    }                                                                                 \
    static void op##_mc##bits(struct x86_cpu *c, const struct x86_insn *i)            \
    {                                                                                 \
        op##_mem##bits(c, i, (uint8_t)c->s.gpr[X86_RCX]);                             \
    }

#define SHIFT_SIZES(op, fix) \
    SHIFT(op, 8, "b", fix) SHIFT(op, 16, "w", fix) SHIFT(op, 32, "l", fix) SHIFT(op, 64, "q", fix)
SHIFT_SIZES(shl, NO_FIX)
SHIFT_SIZES(shr, NO_FIX)
SHIFT_SIZES(sar, NO_FIX)
SHIFT_SIZES(rol, fix_of)
SHIFT_SIZES(ror, fix_of)
SHIFT_SIZES(rcl, NO_FIX)
SHIFT_SIZES(rcr, NO_FIX)

enum { OP_SHL, OP_SHR, OP_SAR, OP_ROL, OP_ROR, OP_RCL, OP_RCR };
enum { RI, RC, MI, MC };

static bool bind_shift(struct x86_dec *d)
{
#define SHIFT_ROW(op)                                       \
    {                                                       \
        [RI] = {op##_ri8, op##_ri16, op##_ri32, op##_ri64}, \
        [RC] = {op##_rc8, op##_rc16, op##_rc32, op##_rc64}, \
        [MI] = {op##_mi8, op##_mi16, op##_mi32, op##_mi64}, \
        [MC] = {op##_mc8, op##_mc16, op##_mc32, op##_mc64}, \
    }
    static const x86_op_fn fn[7][4][4] = {
        SHIFT_ROW(shl), SHIFT_ROW(shr), SHIFT_ROW(sar), SHIFT_ROW(rol),
        SHIFT_ROW(ror), SHIFT_ROW(rcl), SHIFT_ROW(rcr),
    };
    unsigned form = (x86_is_mem(d, 0) ? MI : RI) + (x86_is_imm(d, 1) ? 0 : 1);
    x86_bind_regs(d);
    d->i->fn = fn[d->arg][form][x86_size_index(d->op[0].size)];
    return true;
}

/* ---- SHLD, SHRD ---- */

#define DOUBLE_RMW(op, bits, form, count)                                                   \
    static void op##_##form##bits(struct x86_cpu *c, const struct x86_insn *i)              \
    {                                                                                       \
        gva_t lin = x86_lin_rw(c, i, (bits) / 8);                                           \
        uint8_t n = (uint8_t)(count);                                                       \
        uint##bits##_t b = x86_r##bits(c, i->src);                                          \
        X86_RMW(c, lin, bits, *(x86_mem##bits *)p = op##bits(c, *(x86_mem##bits *)p, b, n), \
                op##bits(c, old, b, n));                                                    \
    }
#define DOUBLE(op, bits)                                                                         \
    static inline uint##bits##_t op##bits(struct x86_cpu *c, uint##bits##_t a, uint##bits##_t b, \
                                          uint8_t n)                                             \
    {                                                                                            \
        uint16_t fl = c->fl;                                                                     \
        __asm__(X86_HF_LOAD #op " %%cl, %[b], %[a]" X86_HF_SAVE                                  \
                : [a] "+r"(a), "+a"(fl)                                                          \
                : "c"(n), [b] "r"(b)                                                             \
                : "cc");                                                                         \
        c->fl = fl;                                                                              \
        return a;                                                                                \
    }                                                                                            \
    static void op##_ri##bits(struct x86_cpu *c, const struct x86_insn *i)                       \
    {                                                                                            \
        uint##bits##_t b = x86_r##bits(c, i->src);                                               \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->dst), b, (uint8_t)i->imm));         \
    }                                                                                            \
    static void op##_rc##bits(struct x86_cpu *c, const struct x86_insn *i)                       \
    {                                                                                            \
        uint##bits##_t b = x86_r##bits(c, i->src);                                               \
        uint8_t n = (uint8_t)c->s.gpr[X86_RCX];                                                  \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->dst), b, n));                       \
    }                                                                                            \
    DOUBLE_RMW(op, bits, mi, i->imm)                                                             \
    DOUBLE_RMW(op, bits, mc, c->s.gpr[X86_RCX])
#define DOUBLE_SIZES(op) DOUBLE(op, 16) DOUBLE(op, 32) DOUBLE(op, 64)
DOUBLE_SIZES(shld)
DOUBLE_SIZES(shrd)

static bool bind_double(struct x86_dec *d)
{
#define DOUBLE_ROW(op)                                  \
    {                                                   \
        [RI] = {NULL, op##_ri16, op##_ri32, op##_ri64}, \
        [RC] = {NULL, op##_rc16, op##_rc32, op##_rc64}, \
        [MI] = {NULL, op##_mi16, op##_mi32, op##_mi64}, \
        [MC] = {NULL, op##_mc16, op##_mc32, op##_mc64}, \
    }
    static const x86_op_fn fn[2][4][4] = {DOUBLE_ROW(shld), DOUBLE_ROW(shrd)};
    unsigned form = (x86_is_mem(d, 0) ? MI : RI) + (x86_is_imm(d, 2) ? 0 : 1);
    x86_bind_regs(d);
    d->i->fn = fn[d->arg][form][x86_size_index(d->op[0].size)];
    return true;
}

const struct x86_bind_row x86_rows_shift[] = {
    {ZYDIS_MNEMONIC_SHL, bind_shift, OP_SHL},
    {ZYDIS_MNEMONIC_SHR, bind_shift, OP_SHR},
    {ZYDIS_MNEMONIC_SAR, bind_shift, OP_SAR},
    {ZYDIS_MNEMONIC_ROL, bind_shift, OP_ROL},
    {ZYDIS_MNEMONIC_ROR, bind_shift, OP_ROR},
    {ZYDIS_MNEMONIC_RCL, bind_shift, OP_RCL},
    {ZYDIS_MNEMONIC_RCR, bind_shift, OP_RCR},
    {ZYDIS_MNEMONIC_SHLD, bind_double, 0},
    {ZYDIS_MNEMONIC_SHRD, bind_double, 1},
    {ZYDIS_MNEMONIC_RORX, x86_bind_bmi, X86_BMI_RORX},
    {ZYDIS_MNEMONIC_SARX, x86_bind_bmi, X86_BMI_SARX},
    {ZYDIS_MNEMONIC_SHLX, x86_bind_bmi, X86_BMI_SHLX},
    {ZYDIS_MNEMONIC_SHRX, x86_bind_bmi, X86_BMI_SHRX},
    {0, NULL, 0},
};
