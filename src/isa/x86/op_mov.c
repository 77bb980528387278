/*
 * op_mov.c - MOV MOVZX MOVSX MOVSXD MOVBE MOVNTI BSWAP LEA XLAT CMOVcc SETcc and the sign
 * extensions of the accumulator. Neither of them changes a flag.
 */
#include "isa/x86/op.h"

/* ---- MOV ---- */

#define MOV(bits)                                                             \
    static void mov_rr##bits(struct x86_cpu *c, const struct x86_insn *i)     \
    {                                                                         \
        x86_w##bits(c, i->dst, x86_r##bits(c, i->src));                       \
    }                                                                         \
    static void mov_ri##bits(struct x86_cpu *c, const struct x86_insn *i)     \
    {                                                                         \
        x86_w##bits(c, i->dst, (uint##bits##_t)i->imm);                       \
    }                                                                         \
    static void mov_rm##bits(struct x86_cpu *c, const struct x86_insn *i)     \
    {                                                                         \
        x86_w##bits(c, i->dst, x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8))); \
    }                                                                         \
    static void mov_mr##bits(struct x86_cpu *c, const struct x86_insn *i)     \
    {                                                                         \
        x86_st##bits(c, x86_lin_w(c, i, (bits) / 8), x86_r##bits(c, i->src)); \
    }                                                                         \
    static void mov_mi##bits(struct x86_cpu *c, const struct x86_insn *i)     \
    {                                                                         \
        x86_st##bits(c, x86_lin_w(c, i, (bits) / 8), (uint##bits##_t)i->imm); \
    }
MOV(8)
MOV(16)
MOV(32)
MOV(64)

enum { RR, RI, RM, MR, MI };

static bool bind_mov(struct x86_dec *d)
{
    static const x86_op_fn fn[5][4] = {
        [RR] = {mov_rr8, mov_rr16, mov_rr32, mov_rr64},
        [RI] = {mov_ri8, mov_ri16, mov_ri32, mov_ri64},
        [RM] = {mov_rm8, mov_rm16, mov_rm32, mov_rm64},
        [MR] = {mov_mr8, mov_mr16, mov_mr32, mov_mr64},
        [MI] = {mov_mi8, mov_mi16, mov_mi32, mov_mi64},
    };
    if (x86_is_sysreg(d, 0) || x86_is_sysreg(d, 1))
        return x86_bind_mov_sys(d);
    bool imm = x86_is_imm(d, 1);
    unsigned form = x86_is_mem(d, 0) ? (imm ? MI : MR) : imm ? RI : x86_is_mem(d, 1) ? RM : RR;
    x86_bind_regs(d);
    d->i->fn = fn[form][x86_size_index(d->op[0].size)];
    return true;
}

/* ---- MOVZX, MOVSX, MOVSXD: destination wider than (or as wide as) the source ---- */

#define MOVX(name, dbits, sbits, type)                                                 \
    static void name##_r##dbits##_##sbits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                                  \
        x86_w##dbits(c, i->dst, (uint##dbits##_t)(type)x86_r##sbits(c, i->src));       \
    }                                                                                  \
    static void name##_m##dbits##_##sbits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                                  \
        type v = (type)x86_ld##sbits(c, x86_lin_r(c, i, (sbits) / 8));                 \
        x86_w##dbits(c, i->dst, (uint##dbits##_t)v);                                   \
    }
#define MOVX_ALL(name, t)       \
    MOVX(name, 16, 8, t##8_t)   \
    MOVX(name, 32, 8, t##8_t)   \
    MOVX(name, 64, 8, t##8_t)   \
    MOVX(name, 16, 16, t##16_t) \
    MOVX(name, 32, 16, t##16_t) \
    MOVX(name, 64, 16, t##16_t)
MOVX_ALL(movzx, uint)
MOVX_ALL(movsx, int)
MOVX(movsx, 32, 32, int32_t)
MOVX(movsx, 64, 32, int32_t)

/* [source size index][destination size index]; the row of 32-bit sources comes last. */
#define MOVX_TABLE(name, form, ...)                                                   \
    {                                                                                 \
        {NULL, name##_##form##16_8, name##_##form##32_8, name##_##form##64_8},        \
            {NULL, name##_##form##16_16, name##_##form##32_16, name##_##form##64_16}, \
        {                                                                             \
            __VA_ARGS__                                                               \
        }                                                                             \
    }

static bool bind_movx(struct x86_dec *d)
{
    static const x86_op_fn zx[2][3][4] = {
        MOVX_TABLE(movzx, r, NULL),
        MOVX_TABLE(movzx, m, NULL),
    };
    static const x86_op_fn sx[2][3][4] = {
        MOVX_TABLE(movsx, r, NULL, NULL, movsx_r32_32, movsx_r64_32),
        MOVX_TABLE(movsx, m, NULL, NULL, movsx_m32_32, movsx_m64_32),
    };
    unsigned from = x86_size_index(d->op[1].size), to = x86_size_index(d->op[0].size);
    if (from > to) /* MOVSXD r16, r/m16 */
        from = to;
    if (from > 2)
        return false;
    x86_bind_regs(d);
    d->i->fn = (d->arg ? sx : zx)[x86_is_mem(d, 1)][from][to];
    return d->i->fn != NULL;
}

/* ---- MOVBE, BSWAP ---- */

#define MOVBE(bits)                                                         \
    static void movbe_rm##bits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                       \
        uint##bits##_t v = x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8));    \
        x86_w##bits(c, i->dst, __builtin_bswap##bits(v));                   \
    }                                                                       \
    static void movbe_mr##bits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                       \
        uint##bits##_t v = __builtin_bswap##bits(x86_r##bits(c, i->src));   \
        x86_st##bits(c, x86_lin_w(c, i, (bits) / 8), v);                    \
    }
MOVBE(16)
MOVBE(32)
MOVBE(64)

static bool bind_movbe(struct x86_dec *d)
{
    static const x86_op_fn rm[] = {NULL, movbe_rm16, movbe_rm32, movbe_rm64};
    static const x86_op_fn mr[] = {NULL, movbe_mr16, movbe_mr32, movbe_mr64};
    x86_bind_regs(d);
    d->i->fn = (x86_is_mem(d, 0) ? mr : rm)[x86_size_index(d->op[0].size)];
    return true;
}

/* Undefined by the SDM; the host says what it does (clears the register's low half). */
static void bswap16(struct x86_cpu *c, const struct x86_insn *i)
{
    uint64_t v = c->s.gpr[i->dst];
    __asm__(".byte 0x66, 0x0f, 0xc8" : "+a"(v)); /* bswap %ax */
    c->s.gpr[i->dst] = v;
}
static void bswap32(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_w32(c, i->dst, __builtin_bswap32(x86_r32(c, i->dst)));
}
static void bswap64(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_w64(c, i->dst, __builtin_bswap64(x86_r64(c, i->dst)));
}

static bool bind_bswap(struct x86_dec *d)
{
    static const x86_op_fn fn[] = {NULL, bswap16, bswap32, bswap64};
    x86_bind_regs(d);
    d->i->fn = fn[x86_size_index(d->op[0].size)];
    return true;
}

/* ---- LEA, XLAT, MOVNTI ---- */

#define LEA(bits)                                                      \
    static void lea##bits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                  \
        x86_w##bits(c, i->dst, (uint##bits##_t)x86_ea(c, i));          \
    }
LEA(16)
LEA(32)
LEA(64)

static bool bind_lea(struct x86_dec *d)
{
    static const x86_op_fn fn[] = {NULL, lea16, lea32, lea64};
    x86_bind_regs(d);
    d->i->fn = fn[x86_size_index(d->op[0].size)];
    return true;
}

static void xlat(struct x86_cpu *c, const struct x86_insn *i)
{
    uint64_t ea = (c->s.gpr[X86_RBX] + x86_r8(c, 0)) & i->amask;
    x86_w8(c, 0, x86_ld8(c, x86_seg_lin(c, i->seg, ea, 1, X86_SEGOK_R)));
}

static bool bind_xlat(struct x86_dec *d)
{
    d->i->fn = xlat;
    return true;
}

/* A store without the non-temporal hint: stronger than the guest asked for. */
static bool bind_movnti(struct x86_dec *d)
{
    x86_bind_regs(d);
    d->i->fn = d->op[1].size == 64 ? mov_mr64 : mov_mr32;
    return true;
}

/* ---- CBW CWDE CDQE, CWD CDQ CQO ---- */

static void cbw(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_w16(c, X86_RAX, (uint16_t)(int8_t)x86_r8(c, 0));
}
static void cwde(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_w32(c, X86_RAX, (uint32_t)(int16_t)x86_r16(c, X86_RAX));
}
static void cdqe(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_w64(c, X86_RAX, (uint64_t)(int32_t)x86_r32(c, X86_RAX));
}
static void cwd(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_w16(c, X86_RDX, x86_r16(c, X86_RAX) & 0x8000 ? 0xffff : 0);
}
static void cdq(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_w32(c, X86_RDX, x86_r32(c, X86_RAX) & 0x80000000u ? ~0u : 0);
}
static void cqo(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_w64(c, X86_RDX, x86_r64(c, X86_RAX) >> 63 ? ~0ull : 0);
}

enum { EXT_CBW, EXT_CWDE, EXT_CDQE, EXT_CWD, EXT_CDQ, EXT_CQO };

static bool bind_extend(struct x86_dec *d)
{
    static const x86_op_fn fn[] = {cbw, cwde, cdqe, cwd, cdq, cqo};
    d->i->fn = fn[d->arg];
    return true;
}

/* ---- CMOVcc, SETcc ----
 * CMOVcc reads its source and, with 32 bits, clears the upper half whatever the condition. */

#define CC_ENUM(cc) CC_##cc,
enum { X86_EACH_CC(CC_ENUM) };

#define CMOV(cc, bits)                                                           \
    static void cmov##cc##_rr##bits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                            \
        unsigned f = c->fl;                                                      \
        uint##bits##_t a = x86_r##bits(c, i->dst), b = x86_r##bits(c, i->src);   \
        x86_w##bits(c, i->dst, X86_CC_##cc(f) ? b : a);                          \
    }                                                                            \
    static void cmov##cc##_rm##bits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                            \
        uint##bits##_t b = x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8));         \
        unsigned f = c->fl;                                                      \
        uint##bits##_t a = x86_r##bits(c, i->dst);                               \
        x86_w##bits(c, i->dst, X86_CC_##cc(f) ? b : a);                          \
    }
#define CC_FUNCTIONS(cc)                                                 \
    CMOV(cc, 16)                                                         \
    CMOV(cc, 32)                                                         \
    CMOV(cc, 64)                                                         \
    static void set##cc##_r(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                    \
        unsigned f = c->fl;                                              \
        x86_w8(c, i->dst, X86_CC_##cc(f) ? 1 : 0);                       \
    }                                                                    \
    static void set##cc##_m(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                    \
        unsigned f = c->fl;                                              \
        x86_st8(c, x86_lin_w(c, i, 1), X86_CC_##cc(f) ? 1 : 0);          \
    }
X86_EACH_CC(CC_FUNCTIONS)

static bool bind_cmov(struct x86_dec *d)
{
#define CMOV_ROW(cc)                                                        \
    [CC_##cc] = {{NULL, cmov##cc##_rr16, cmov##cc##_rr32, cmov##cc##_rr64}, \
                 {NULL, cmov##cc##_rm16, cmov##cc##_rm32, cmov##cc##_rm64}},
    static const x86_op_fn fn[16][2][4] = {X86_EACH_CC(CMOV_ROW)};
    x86_bind_regs(d);
    d->i->fn = fn[d->arg][x86_is_mem(d, 1)][x86_size_index(d->op[0].size)];
    return true;
}

static bool bind_set(struct x86_dec *d)
{
#define SET_ROW(cc) [CC_##cc] = {set##cc##_r, set##cc##_m},
    static const x86_op_fn fn[16][2] = {X86_EACH_CC(SET_ROW)};
    x86_bind_regs(d);
    d->i->fn = fn[d->arg][x86_is_mem(d, 0)];
    return true;
}

#define CC_ROWS(cc) \
    {ZYDIS_MNEMONIC_CMOV##cc, bind_cmov, CC_##cc}, {ZYDIS_MNEMONIC_SET##cc, bind_set, CC_##cc},

const struct x86_bind_row x86_rows_mov[] = {
    {ZYDIS_MNEMONIC_MOV, bind_mov, 0},
    {ZYDIS_MNEMONIC_MOVZX, bind_movx, 0},
    {ZYDIS_MNEMONIC_MOVSX, bind_movx, 1},
    {ZYDIS_MNEMONIC_MOVSXD, bind_movx, 1},
    {ZYDIS_MNEMONIC_MOVBE, bind_movbe, 0},
    {ZYDIS_MNEMONIC_MOVNTI, bind_movnti, 0},
    {ZYDIS_MNEMONIC_BSWAP, bind_bswap, 0},
    {ZYDIS_MNEMONIC_LEA, bind_lea, 0},
    {ZYDIS_MNEMONIC_XLAT, bind_xlat, 0},
    {ZYDIS_MNEMONIC_CBW, bind_extend, EXT_CBW},
    {ZYDIS_MNEMONIC_CWDE, bind_extend, EXT_CWDE},
    {ZYDIS_MNEMONIC_CDQE, bind_extend, EXT_CDQE},
    {ZYDIS_MNEMONIC_CWD, bind_extend, EXT_CWD},
    {ZYDIS_MNEMONIC_CDQ, bind_extend, EXT_CDQ},
    {ZYDIS_MNEMONIC_CQO, bind_extend, EXT_CQO},
    {ZYDIS_MNEMONIC_PUSH, x86_bind_push, 0},
    {ZYDIS_MNEMONIC_POP, x86_bind_pop, 0},
    {ZYDIS_MNEMONIC_PUSHA, x86_bind_pusha, 16},
    {ZYDIS_MNEMONIC_PUSHAD, x86_bind_pusha, 32},
    {ZYDIS_MNEMONIC_POPA, x86_bind_popa, 16},
    {ZYDIS_MNEMONIC_POPAD, x86_bind_popa, 32},
    {ZYDIS_MNEMONIC_ENTER, x86_bind_enter, 0},
    {ZYDIS_MNEMONIC_LEAVE, x86_bind_leave, 0},
    X86_EACH_CC(CC_ROWS){0, NULL, 0},
};
