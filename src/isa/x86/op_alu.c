/*
 * op_alu.c - ADD OR ADC SBB AND SUB XOR CMP TEST INC DEC NEG NOT.
 *
 * One function for each operation, operand form and size: nothing is decided at run time. Forms are
 * named destination first: r register, m memory, i immediate; l in front: with LOCK.
 */
#include "isa/x86/op.h"

enum { OP_ADD, OP_OR, OP_ADC, OP_SBB, OP_AND, OP_SUB, OP_XOR, OP_CMP, OP_TEST };
enum { UN_INC, UN_DEC, UN_NEG, UN_NOT };

/* ---- two operands, written back ----
 * flc: "=a" where no old flag matters, which spares a dependency on the previous instruction. */

#define KERNEL2(op, pre, flc, bits, sfx)                                                           \
    static inline uint##bits##_t op##bits(struct x86_cpu *c, uint##bits##_t a, uint##bits##_t b)   \
    {                                                                                              \
        uint16_t fl = c->fl;                                                                       \
        __asm__(pre #op sfx " %[b], %[a]" X86_HF_SAVE : [a] "+r"(a), flc(fl) : [b] "r"(b) : "cc"); \
        c->fl = fl;                                                                                \
        return a;                                                                                  \
    }                                                                                              \
    static inline void op##bits##_mem(struct x86_cpu *c, x86_mem##bits *p, uint##bits##_t b)       \
    {                                                                                              \
        uint16_t fl = c->fl;                                                                       \
        __asm__ volatile(pre #op sfx " %[b], %[a]" X86_HF_SAVE                                     \
                         : [a] "+m"(*p), flc(fl)                                                   \
                         : [b] "r"(b)                                                              \
                         : "cc");                                                                  \
        c->fl = fl;                                                                                \
    }                                                                                              \
    static inline void op##bits##_lock(struct x86_cpu *c, x86_mem##bits *p, uint##bits##_t b)      \
    {                                                                                              \
        uint16_t fl = c->fl;                                                                       \
        __asm__ volatile(pre "lock " #op sfx " %[b], %[a]" X86_HF_SAVE                             \
                         : [a] "+m"(*p), flc(fl)                                                   \
                         : [b] "r"(b)                                                              \
                         : "cc", "memory");                                                        \
        c->fl = fl;                                                                                \
    }

#define RMW2(op, bits, form, kind, operand)                                     \
    static void op##_##form##bits(struct x86_cpu *c, const struct x86_insn *i)  \
    {                                                                           \
        gva_t lin = x86_lin_rw(c, i, (bits) / 8);                               \
        uint##bits##_t b = (uint##bits##_t)(operand);                           \
        X86_RMW(c, lin, bits, op##bits##_##kind(c, p, b), op##bits(c, old, b)); \
    }

#define FORMS2(op, bits)                                                                     \
    static void op##_rr##bits(struct x86_cpu *c, const struct x86_insn *i)                   \
    {                                                                                        \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->dst), x86_r##bits(c, i->src))); \
    }                                                                                        \
    static void op##_ri##bits(struct x86_cpu *c, const struct x86_insn *i)                   \
    {                                                                                        \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->dst), (uint##bits##_t)i->imm)); \
    }                                                                                        \
    static void op##_rm##bits(struct x86_cpu *c, const struct x86_insn *i)                   \
    {                                                                                        \
        uint##bits##_t b = x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8));                     \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->dst), b));                      \
    }                                                                                        \
    RMW2(op, bits, mr, mem, x86_r##bits(c, i->src))                                          \
    RMW2(op, bits, mi, mem, i->imm)                                                          \
    RMW2(op, bits, lmr, lock, x86_r##bits(c, i->src))                                        \
    RMW2(op, bits, lmi, lock, i->imm)

#define OP2(op, pre, flc)          \
    KERNEL2(op, pre, flc, 8, "b")  \
    KERNEL2(op, pre, flc, 16, "w") \
    KERNEL2(op, pre, flc, 32, "l") \
    KERNEL2(op, pre, flc, 64, "q") \
    FORMS2(op, 8) FORMS2(op, 16) FORMS2(op, 32) FORMS2(op, 64)

OP2(add, "", "=a")
OP2(or, "", "=a")
OP2(adc, X86_HF_LOAD_CF, "+a")
OP2(sbb, X86_HF_LOAD_CF, "+a")
OP2(and, "", "=a")
OP2(sub, "", "=a")
OP2(xor, "", "=a")

/* ---- two operands, flags only ---- */

#define KERNEL_CMP(op, bits, sfx)                                                              \
    static inline void op##bits(struct x86_cpu *c, uint##bits##_t a, uint##bits##_t b)         \
    {                                                                                          \
        uint16_t fl;                                                                           \
        __asm__(#op sfx " %[b], %[a]" X86_HF_SAVE : "=a"(fl) : [a] "r"(a), [b] "r"(b) : "cc"); \
        c->fl = fl;                                                                            \
    }                                                                                          \
    static void op##_rr##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                          \
        op##bits(c, x86_r##bits(c, i->dst), x86_r##bits(c, i->src));                           \
    }                                                                                          \
    static void op##_ri##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                          \
        op##bits(c, x86_r##bits(c, i->dst), (uint##bits##_t)i->imm);                           \
    }                                                                                          \
    static void op##_rm##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                          \
        uint##bits##_t b = x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8));                       \
        op##bits(c, x86_r##bits(c, i->dst), b);                                                \
    }                                                                                          \
    static void op##_mr##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                          \
        uint##bits##_t a = x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8));                       \
        op##bits(c, a, x86_r##bits(c, i->src));                                                \
    }                                                                                          \
    static void op##_mi##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                          \
        uint##bits##_t a = x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8));                       \
        op##bits(c, a, (uint##bits##_t)i->imm);                                                \
    }

#define OP_FLAGS(op) \
    KERNEL_CMP(op, 8, "b") KERNEL_CMP(op, 16, "w") KERNEL_CMP(op, 32, "l") KERNEL_CMP(op, 64, "q")

OP_FLAGS(cmp)
OP_FLAGS(test)

/* ---- one operand ---- */

#define KERNEL1(op, pre, post, bits, sfx)                                          \
    static inline uint##bits##_t op##bits(struct x86_cpu *c, uint##bits##_t a)     \
    {                                                                              \
        uint16_t fl = c->fl;                                                       \
        __asm__(pre #op sfx " %[a]" post : [a] "+r"(a), "+a"(fl)::"cc");           \
        c->fl = fl;                                                                \
        return a;                                                                  \
    }                                                                              \
    static inline void op##bits##_mem(struct x86_cpu *c, x86_mem##bits *p)         \
    {                                                                              \
        uint16_t fl = c->fl;                                                       \
        __asm__ volatile(pre #op sfx " %[a]" post : [a] "+m"(*p), "+a"(fl)::"cc"); \
        c->fl = fl;                                                                \
    }                                                                              \
    static inline void op##bits##_lock(struct x86_cpu *c, x86_mem##bits *p)        \
    {                                                                              \
        uint16_t fl = c->fl;                                                       \
        __asm__ volatile(pre "lock " #op sfx " %[a]" post                          \
                         : [a] "+m"(*p), "+a"(fl)::"cc", "memory");                \
        c->fl = fl;                                                                \
    }                                                                              \
    static void op##_r##bits(struct x86_cpu *c, const struct x86_insn *i)          \
    {                                                                              \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->dst)));               \
    }                                                                              \
    static void op##_m##bits(struct x86_cpu *c, const struct x86_insn *i)          \
    {                                                                              \
        gva_t lin = x86_lin_rw(c, i, (bits) / 8);                                  \
        X86_RMW(c, lin, bits, op##bits##_mem(c, p), op##bits(c, old));             \
    }                                                                              \
    static void op##_lm##bits(struct x86_cpu *c, const struct x86_insn *i)         \
    {                                                                              \
        gva_t lin = x86_lin_rw(c, i, (bits) / 8);                                  \
        X86_RMW(c, lin, bits, op##bits##_lock(c, p), op##bits(c, old));            \
    }

#define OP1(op, pre, post)          \
    KERNEL1(op, pre, post, 8, "b")  \
    KERNEL1(op, pre, post, 16, "w") \
    KERNEL1(op, pre, post, 32, "l") \
    KERNEL1(op, pre, post, 64, "q")

OP1(inc, X86_HF_LOAD_CF, X86_HF_SAVE)
OP1(dec, X86_HF_LOAD_CF, X86_HF_SAVE)
OP1(neg, "", X86_HF_SAVE)
OP1(not, "", "")

/* ---- binding ---- */

enum { RR, RI, RM, MR, MI, LMR, LMI };

#define SIZES(name)                           \
    {                                         \
        name##8, name##16, name##32, name##64 \
    }
#define ROW2(op)                                                                        \
    {                                                                                   \
        SIZES(op##_rr), SIZES(op##_ri), SIZES(op##_rm), SIZES(op##_mr), SIZES(op##_mi), \
            SIZES(op##_lmr), SIZES(op##_lmi)                                            \
    }
#define ROW_FLAGS(op)                                                                  \
    {                                                                                  \
        SIZES(op##_rr), SIZES(op##_ri), SIZES(op##_rm), SIZES(op##_mr), SIZES(op##_mi) \
    }
#define ROW1(op)                                     \
    {                                                \
        SIZES(op##_r), SIZES(op##_m), SIZES(op##_lm) \
    }

static const x86_op_fn binary[][7][4] = {
    [OP_ADD] = ROW2(add), [OP_OR] = ROW2(or),        [OP_ADC] = ROW2(adc),
    [OP_SBB] = ROW2(sbb), [OP_AND] = ROW2(and),      [OP_SUB] = ROW2(sub),
    [OP_XOR] = ROW2(xor), [OP_CMP] = ROW_FLAGS(cmp), [OP_TEST] = ROW_FLAGS(test),
};
static const x86_op_fn unary[][3][4] = {
    [UN_INC] = ROW1(inc),
    [UN_DEC] = ROW1(dec),
    [UN_NEG] = ROW1(neg),
    [UN_NOT] = ROW1(not ),
};

static bool bind_binary(struct x86_dec *d)
{
    bool imm = x86_is_imm(d, 1), mem = x86_is_mem(d, 0);
    if (x86_is_locked(d) && !mem)
        return false;
    unsigned form = mem ? (imm ? MI : MR) : imm ? RI : x86_is_mem(d, 1) ? RM : RR;
    if (x86_is_locked(d))
        form += LMR - MR;
    x86_bind_regs(d);
    d->i->fn = binary[d->arg][form][x86_size_index(d->op[0].size)];
    return d->i->fn != NULL; /* LOCK CMP does not exist */
}

static bool bind_unary(struct x86_dec *d)
{
    bool mem = x86_is_mem(d, 0);
    if (x86_is_locked(d) && !mem)
        return false;
    x86_bind_regs(d);
    d->i->fn = unary[d->arg][mem ? 1 + x86_is_locked(d) : 0][x86_size_index(d->op[0].size)];
    return true;
}

const struct x86_bind_row x86_rows_alu[] = {
    {ZYDIS_MNEMONIC_ADD, bind_binary, OP_ADD},
    {ZYDIS_MNEMONIC_OR, bind_binary, OP_OR},
    {ZYDIS_MNEMONIC_ADC, bind_binary, OP_ADC},
    {ZYDIS_MNEMONIC_SBB, bind_binary, OP_SBB},
    {ZYDIS_MNEMONIC_AND, bind_binary, OP_AND},
    {ZYDIS_MNEMONIC_SUB, bind_binary, OP_SUB},
    {ZYDIS_MNEMONIC_XOR, bind_binary, OP_XOR},
    {ZYDIS_MNEMONIC_CMP, bind_binary, OP_CMP},
    {ZYDIS_MNEMONIC_TEST, bind_binary, OP_TEST},
    {ZYDIS_MNEMONIC_INC, bind_unary, UN_INC},
    {ZYDIS_MNEMONIC_DEC, bind_unary, UN_DEC},
    {ZYDIS_MNEMONIC_NEG, bind_unary, UN_NEG},
    {ZYDIS_MNEMONIC_NOT, bind_unary, UN_NOT},
    {ZYDIS_MNEMONIC_XADD, x86_bind_xadd, 0},
    {ZYDIS_MNEMONIC_CMPXCHG, x86_bind_cmpxchg, 0},
    {ZYDIS_MNEMONIC_CMPXCHG8B, x86_bind_cmpxchg_wide, 8},
    {ZYDIS_MNEMONIC_CMPXCHG16B, x86_bind_cmpxchg_wide, 16},
    {ZYDIS_MNEMONIC_XCHG, x86_bind_xchg, 0},
    {0, NULL, 0},
};
