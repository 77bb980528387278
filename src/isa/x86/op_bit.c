/*
 * op_bit.c - BT BTS BTR BTC, BSF BSR TZCNT LZCNT POPCNT, CRC32, ADCX ADOX.
 */
#include "isa/x86/cpuid.h"
#include "isa/x86/op.h"

/* ---- BT, BTS, BTR, BTC ----
 * A register as bit offset addresses a bit string in memory: it is signed, and selects the operand
 * relative to the effective address. An immediate is taken modulo the operand size. */

#define BIT_SHIFT16 4
#define BIT_SHIFT32 5
#define BIT_SHIFT64 6

#define BIT_STRING(bits)                                                           \
    static inline gva_t bit_lin##bits(struct x86_cpu *c, const struct x86_insn *i, \
                                      uint##bits##_t off, unsigned need)           \
    {                                                                              \
        int64_t unit = (int64_t)(int##bits##_t)off >> BIT_SHIFT##bits;             \
        uint64_t ea = (x86_ea(c, i) + (uint64_t)unit * ((bits) / 8)) & i->amask;   \
        return x86_seg_lin(c, i->seg, ea, (bits) / 8, need);                       \
    }
BIT_STRING(16)
BIT_STRING(32)
BIT_STRING(64)

#define BIT_KERNEL(op, bits, sfx)                                                                \
    static inline uint##bits##_t op##bits(struct x86_cpu *c, uint##bits##_t a, uint##bits##_t n) \
    {                                                                                            \
        uint16_t fl = c->fl;                                                                     \
        __asm__(X86_HF_LOAD #op sfx " %[n], %[a]" X86_HF_SAVE                                    \
                : [a] "+r"(a), "+a"(fl)                                                          \
                : [n] "r"(n)                                                                     \
                : "cc");                                                                         \
        c->fl = fl;                                                                              \
        return a;                                                                                \
    }
#define BIT_REG(op, bits, form, n)                                                        \
    static void op##_##form##bits(struct x86_cpu *c, const struct x86_insn *i)            \
    {                                                                                     \
        x86_w##bits(c, i->dst, op##bits(c, x86_r##bits(c, i->dst), (uint##bits##_t)(n))); \
    }
/* The bit lies within the operand, so the host's register form does for its memory form, too. */
#define BIT_MEM(op, bits, form, n, linear, direct)                             \
    static void op##_##form##bits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                          \
        uint##bits##_t off = (uint##bits##_t)(n);                              \
        gva_t lin = linear;                                                    \
        off &= (bits)-1;                                                       \
        X86_RMW(c, lin, bits, direct, op##bits(c, old, off));                  \
    }
#define BIT_LOCKED(op, bits, sfx)                                                             \
    static inline void op##bits##_lock(struct x86_cpu *c, x86_mem##bits *p, uint##bits##_t n) \
    {                                                                                         \
        uint16_t fl = c->fl;                                                                  \
        __asm__ volatile(X86_HF_LOAD "lock " #op sfx " %[n], %[a]" X86_HF_SAVE                \
                         : [a] "+m"(*p), "+a"(fl)                                             \
                         : [n] "r"(n)                                                         \
                         : "cc", "memory");                                                   \
        c->fl = fl;                                                                           \
    }

#define BIT_RW           (X86_SEGOK_R | X86_SEGOK_W)
#define BIT_N_REG(b)     x86_r##b(c, i->src)
#define BIT_PLAIN(op, b) *(x86_mem##b *)p = op##b(c, *(x86_mem##b *)p, off)

#define BIT_MODIFY(op, bits, sfx)                                                                 \
    BIT_KERNEL(op, bits, sfx)                                                                     \
    BIT_LOCKED(op, bits, sfx)                                                                     \
    BIT_REG(op, bits, rr, BIT_N_REG(bits))                                                        \
    BIT_REG(op, bits, ri, i->imm)                                                                 \
    BIT_MEM(op, bits, mr, BIT_N_REG(bits), bit_lin##bits(c, i, off, BIT_RW), BIT_PLAIN(op, bits)) \
    BIT_MEM(op, bits, mi, i->imm, x86_lin_rw(c, i, (bits) / 8), BIT_PLAIN(op, bits))              \
    BIT_MEM(op, bits, lmr, BIT_N_REG(bits), bit_lin##bits(c, i, off, BIT_RW),                     \
            op##bits##_lock(c, p, off))                                                           \
    BIT_MEM(op, bits, lmi, i->imm, x86_lin_rw(c, i, (bits) / 8), op##bits##_lock(c, p, off))

#define BIT_TEST(bits, sfx)                                                                \
    BIT_KERNEL(bt, bits, sfx)                                                              \
    static void bt_rr##bits(struct x86_cpu *c, const struct x86_insn *i)                   \
    {                                                                                      \
        bt##bits(c, x86_r##bits(c, i->dst), x86_r##bits(c, i->src));                       \
    }                                                                                      \
    static void bt_ri##bits(struct x86_cpu *c, const struct x86_insn *i)                   \
    {                                                                                      \
        bt##bits(c, x86_r##bits(c, i->dst), (uint##bits##_t)i->imm);                       \
    }                                                                                      \
    static void bt_mr##bits(struct x86_cpu *c, const struct x86_insn *i)                   \
    {                                                                                      \
        uint##bits##_t off = x86_r##bits(c, i->src);                                       \
        bt##bits(c, x86_ld##bits(c, bit_lin##bits(c, i, off, X86_SEGOK_R)), off);          \
    }                                                                                      \
    static void bt_mi##bits(struct x86_cpu *c, const struct x86_insn *i)                   \
    {                                                                                      \
        bt##bits(c, x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8)), (uint##bits##_t)i->imm); \
    }

BIT_TEST(16, "w")
BIT_TEST(32, "l")
BIT_TEST(64, "q")
#define BIT_SIZES(op) BIT_MODIFY(op, 16, "w") BIT_MODIFY(op, 32, "l") BIT_MODIFY(op, 64, "q")
BIT_SIZES(bts)
BIT_SIZES(btr)
BIT_SIZES(btc)

enum { RR, RI, MR, MI, LMR, LMI };
enum { OP_BT, OP_BTS, OP_BTR, OP_BTC };

static bool bind_bt(struct x86_dec *d)
{
#define SIZES(name)                        \
    {                                      \
        NULL, name##16, name##32, name##64 \
    }
#define BIT_ROW(op)                                                                      \
    {                                                                                    \
        SIZES(op##_rr), SIZES(op##_ri), SIZES(op##_mr), SIZES(op##_mi), SIZES(op##_lmr), \
            SIZES(op##_lmi)                                                              \
    }
    static const x86_op_fn fn[4][6][4] = {
        [OP_BT] = {SIZES(bt_rr), SIZES(bt_ri), SIZES(bt_mr), SIZES(bt_mi)},
        [OP_BTS] = BIT_ROW(bts),
        [OP_BTR] = BIT_ROW(btr),
        [OP_BTC] = BIT_ROW(btc),
    };
    unsigned form = (x86_is_mem(d, 0) ? MR : RR) + x86_is_imm(d, 1);
    if (x86_is_locked(d)) {
        if (form < MR)
            return false;
        form += LMR - MR;
    }
    x86_bind_regs(d);
    d->i->fn = fn[d->arg][form][x86_size_index(d->op[0].size)];
    return d->i->fn != NULL; /* LOCK BT does not exist */
}

/* ---- one source, one destination ----
 * The destination goes in and out whole: BSF and BSR of zero leave it alone. `mod` prints it in the
 * operand's size. */

#define SCAN(op, bits, mod)                                                        \
    static inline void op##bits(struct x86_cpu *c, unsigned dst, uint##bits##_t v) \
    {                                                                              \
        uint64_t r = c->s.gpr[dst];                                                \
        uint16_t fl = c->fl;                                                       \
        __asm__(X86_HF_LOAD #op " %[v], %" mod "[r]" X86_HF_SAVE                   \
                : [r] "+r"(r), "+a"(fl)                                            \
                : [v] "r"(v)                                                       \
                : "cc");                                                           \
        c->fl = fl;                                                                \
        c->s.gpr[dst] = r;                                                         \
    }                                                                              \
    static void op##_r##bits(struct x86_cpu *c, const struct x86_insn *i)          \
    {                                                                              \
        op##bits(c, i->dst, x86_r##bits(c, i->src));                               \
    }                                                                              \
    static void op##_m##bits(struct x86_cpu *c, const struct x86_insn *i)          \
    {                                                                              \
        op##bits(c, i->dst, x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8)));         \
    }
#define SCAN_32_64(op) SCAN(op, 32, "k") SCAN(op, 64, "q")
#define SCAN_SIZES(op) SCAN(op, 16, "w") SCAN_32_64(op)
SCAN_SIZES(bsf)
SCAN_SIZES(bsr)
SCAN_SIZES(tzcnt)
SCAN_SIZES(lzcnt)
SCAN_SIZES(popcnt)
SCAN_32_64(adcx)
SCAN_32_64(adox)

enum { OP_BSF, OP_BSR, OP_TZCNT, OP_LZCNT, OP_POPCNT, OP_ADCX, OP_ADOX };

/* An instruction that the host lacks is not offered to guests either. */
static bool host_has_scan(unsigned op)
{
    switch (op) {
    case OP_TZCNT:
        return x86_host_has(X86_HAS_BMI1);
    case OP_LZCNT:
        return x86_host_has(X86_HAS_LZCNT);
    case OP_POPCNT:
        return x86_host_has(X86_HAS_POPCNT);
    case OP_ADCX:
    case OP_ADOX:
        return x86_host_has(X86_HAS_ADX);
    default:
        return true;
    }
}

static bool bind_scan(struct x86_dec *d)
{
#define SCAN_ROW(op)                           \
    {                                          \
        {NULL, op##_r16, op##_r32, op##_r64},  \
        {                                      \
            NULL, op##_m16, op##_m32, op##_m64 \
        }                                      \
    }
#define SCAN_ROW_32_64(op)                 \
    {                                      \
        {NULL, NULL, op##_r32, op##_r64},  \
        {                                  \
            NULL, NULL, op##_m32, op##_m64 \
        }                                  \
    }
    static const x86_op_fn fn[][2][4] = {
        [OP_BSF] = SCAN_ROW(bsf),         [OP_BSR] = SCAN_ROW(bsr),
        [OP_TZCNT] = SCAN_ROW(tzcnt),     [OP_LZCNT] = SCAN_ROW(lzcnt),
        [OP_POPCNT] = SCAN_ROW(popcnt),   [OP_ADCX] = SCAN_ROW_32_64(adcx),
        [OP_ADOX] = SCAN_ROW_32_64(adox),
    };
    if (!host_has_scan(d->arg))
        return false;
    x86_bind_regs(d);
    d->i->fn = fn[d->arg][x86_is_mem(d, 1)][x86_size_index(d->op[0].size)];
    return d->i->fn != NULL;
}

/* ---- CRC32: the result has 32 bits; with a 64-bit source the upper half becomes 0, too ---- */

#define CRC32(bits, sfx, mod)                                                       \
    static inline void crc##bits(struct x86_cpu *c, unsigned dst, uint##bits##_t v) \
    {                                                                               \
        uint64_t r = c->s.gpr[dst];                                                 \
        __asm__("crc32" sfx " %[v], %" mod "[r]" : [r] "+r"(r) : [v] "r"(v));       \
        c->s.gpr[dst] = r;                                                          \
    }                                                                               \
    static void crc_r##bits(struct x86_cpu *c, const struct x86_insn *i)            \
    {                                                                               \
        crc##bits(c, i->dst, x86_r##bits(c, i->src));                               \
    }                                                                               \
    static void crc_m##bits(struct x86_cpu *c, const struct x86_insn *i)            \
    {                                                                               \
        crc##bits(c, i->dst, x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8)));         \
    }
CRC32(8, "b", "k")
CRC32(16, "w", "k")
CRC32(32, "l", "k")
CRC32(64, "q", "q")

static bool bind_crc32(struct x86_dec *d)
{
    static const x86_op_fn r[] = {crc_r8, crc_r16, crc_r32, crc_r64};
    static const x86_op_fn m[] = {crc_m8, crc_m16, crc_m32, crc_m64};
    if (!__builtin_cpu_supports("sse4.2"))
        return false;
    x86_bind_regs(d);
    d->i->fn = (x86_is_mem(d, 1) ? m : r)[x86_size_index(d->op[1].size)];
    return true;
}

const struct x86_bind_row x86_rows_bit[] = {
    {ZYDIS_MNEMONIC_BT, bind_bt, OP_BT},
    {ZYDIS_MNEMONIC_BTS, bind_bt, OP_BTS},
    {ZYDIS_MNEMONIC_BTR, bind_bt, OP_BTR},
    {ZYDIS_MNEMONIC_BTC, bind_bt, OP_BTC},
    {ZYDIS_MNEMONIC_BSF, bind_scan, OP_BSF},
    {ZYDIS_MNEMONIC_BSR, bind_scan, OP_BSR},
    {ZYDIS_MNEMONIC_TZCNT, bind_scan, OP_TZCNT},
    {ZYDIS_MNEMONIC_LZCNT, bind_scan, OP_LZCNT},
    {ZYDIS_MNEMONIC_POPCNT, bind_scan, OP_POPCNT},
    {ZYDIS_MNEMONIC_ADCX, bind_scan, OP_ADCX},
    {ZYDIS_MNEMONIC_ADOX, bind_scan, OP_ADOX},
    {ZYDIS_MNEMONIC_CRC32, bind_crc32, 0},
    {ZYDIS_MNEMONIC_ANDN, x86_bind_bmi, X86_BMI_ANDN},
    {ZYDIS_MNEMONIC_BEXTR, x86_bind_bmi, X86_BMI_BEXTR},
    {ZYDIS_MNEMONIC_BLSI, x86_bind_bmi, X86_BMI_BLSI},
    {ZYDIS_MNEMONIC_BLSMSK, x86_bind_bmi, X86_BMI_BLSMSK},
    {ZYDIS_MNEMONIC_BLSR, x86_bind_bmi, X86_BMI_BLSR},
    {ZYDIS_MNEMONIC_BZHI, x86_bind_bmi, X86_BMI_BZHI},
    {ZYDIS_MNEMONIC_PDEP, x86_bind_bmi, X86_BMI_PDEP},
    {ZYDIS_MNEMONIC_PEXT, x86_bind_bmi, X86_BMI_PEXT},
    {ZYDIS_MNEMONIC_MULX, x86_bind_bmi, X86_BMI_MULX},
    {0, NULL, 0},
};
