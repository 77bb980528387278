/*
 * op_flow.c - near JMP CALL RET, Jcc, LOOP, JCXZ, BOUND, software interrupts, UD.
 *
 * s.rip is the fall-through already; only a branch that is taken writes it. A fault after that does
 * no harm: the engine winds RIP back to the instruction. The operand size cuts a relative target:
 * for these instructions the binder keeps that mask in amask.
 */
#include "isa/x86/op.h"

static inline uint64_t target(const struct x86_cpu *c, const struct x86_insn *i)
{
    return (c->s.gpr[X86_REG_RIP] + i->imm) & i->amask;
}

/* Near branches ignore the operand-size prefix in 64-bit mode, as Intel's CPUs do. */
static unsigned branch_bits(const struct x86_dec *d)
{
    return d->code_size == 64 ? 64 : d->zi->operand_width == 16 ? 16 : 32;
}

static bool bind_relative(struct x86_dec *d, x86_op_fn fn)
{
    unsigned bits = branch_bits(d);
    d->i->amask = bits == 64 ? ~0ull : bits == 32 ? 0xffffffffu : 0xffffu;
    return x86_bind_end(d, fn);
}

/* ---- Jcc ---- */

#define JCC(cc)                                                    \
    static void j##cc(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                              \
        unsigned f = c->fl;                                        \
        if (X86_CC_##cc(f))                                        \
            x86_jump(c, target(c, i));                             \
    }
X86_EACH_CC(JCC)

#define CC_ENUM(cc) CC_##cc,
enum { X86_EACH_CC(CC_ENUM) };

static bool bind_jcc(struct x86_dec *d)
{
#define CC_FN(cc) j##cc,
    static const x86_op_fn fn[16] = {X86_EACH_CC(CC_FN)};
    return bind_relative(d, fn[d->arg]);
}

/* ---- JMP, CALL, RET ---- */

static void jmp_rel(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_jump(c, target(c, i));
}

#define BRANCHES(bits)                                                                \
    static void jmp_r##bits(struct x86_cpu *c, const struct x86_insn *i)              \
    {                                                                                 \
        x86_jump(c, x86_r##bits(c, i->dst));                                          \
    }                                                                                 \
    static void jmp_m##bits(struct x86_cpu *c, const struct x86_insn *i)              \
    {                                                                                 \
        x86_jump(c, x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8)));                    \
    }                                                                                 \
    /* The target is checked last: processors leave the return address behind. */     \
    static inline void call##bits(struct x86_cpu *c, uint64_t to)                     \
    {                                                                                 \
        uint64_t sp = c->s.gpr[X86_RSP] - (bits) / 8;                                 \
        gva_t lin = x86_seg_lin(c, X86_SS, sp & c->sp_mask, (bits) / 8, X86_SEGOK_W); \
        x86_st##bits(c, lin, (uint##bits##_t)x86_next_rip(c));                        \
        x86_jump(c, to);                                                              \
        x86_set_rsp(c, sp);                                                           \
    }                                                                                 \
    static void call_rel##bits(struct x86_cpu *c, const struct x86_insn *i)           \
    {                                                                                 \
        call##bits(c, target(c, i));                                                  \
    }                                                                                 \
    static void call_r##bits(struct x86_cpu *c, const struct x86_insn *i)             \
    {                                                                                 \
        call##bits(c, x86_r##bits(c, i->dst));                                        \
    }                                                                                 \
    static void call_m##bits(struct x86_cpu *c, const struct x86_insn *i)             \
    {                                                                                 \
        call##bits(c, x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8)));                  \
    }                                                                                 \
    static void ret##bits(struct x86_cpu *c, const struct x86_insn *i)                \
    {                                                                                 \
        x86_jump(c, x86_peek##bits(c, 0));                                            \
        x86_set_rsp(c, c->s.gpr[X86_RSP] + (bits) / 8 + i->aux);                      \
    }
BRANCHES(16)
BRANCHES(32)
BRANCHES(64)

static bool is_far(const struct x86_dec *d)
{
    return d->zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

static bool bind_jmp(struct x86_dec *d)
{
    static const x86_op_fn r[] = {NULL, jmp_r16, jmp_r32, jmp_r64};
    static const x86_op_fn m[] = {NULL, jmp_m16, jmp_m32, jmp_m64};
    if (is_far(d))
        return x86_bind_far(d);
    if (x86_is_imm(d, 0))
        return bind_relative(d, jmp_rel);
    x86_bind_regs(d);
    return x86_bind_end(d, (x86_is_mem(d, 0) ? m : r)[x86_size_index(branch_bits(d))]);
}

static bool bind_call(struct x86_dec *d)
{
    static const x86_op_fn rel[] = {NULL, call_rel16, call_rel32, call_rel64};
    static const x86_op_fn r[] = {NULL, call_r16, call_r32, call_r64};
    static const x86_op_fn m[] = {NULL, call_m16, call_m32, call_m64};
    unsigned size = x86_size_index(branch_bits(d));
    if (is_far(d))
        return x86_bind_far(d);
    if (x86_is_imm(d, 0))
        return bind_relative(d, rel[size]);
    x86_bind_regs(d);
    return x86_bind_end(d, (x86_is_mem(d, 0) ? m : r)[size]);
}

static bool bind_ret(struct x86_dec *d)
{
    static const x86_op_fn fn[] = {NULL, ret16, ret32, ret64};
    if (is_far(d))
        return x86_bind_far(d);
    d->i->aux = x86_is_imm(d, 0) ? (uint16_t)d->i->imm : 0; /* bytes of arguments to release */
    return x86_bind_end(d, fn[x86_size_index(branch_bits(d))]);
}

/* ---- LOOP, JCXZ: the count is rCX in the width of the address size ---- */

static inline uint64_t count_mask(const struct x86_insn *i)
{
    return i->flags & X86_IF_A16 ? 0xffff : i->flags & X86_IF_A32 ? 0xffffffff : ~0ull;
}

static inline void loop_if(struct x86_cpu *c, const struct x86_insn *i, bool cond)
{
    uint64_t n = (c->s.gpr[X86_RCX] - 1) & count_mask(i);
    if (n && cond)
        x86_jump(c, target(c, i));
    if (i->flags & X86_IF_A16)
        x86_w16(c, X86_RCX, (uint16_t)n);
    else
        c->s.gpr[X86_RCX] = n;
}

static void loop(struct x86_cpu *c, const struct x86_insn *i)
{
    loop_if(c, i, true);
}
static void loope(struct x86_cpu *c, const struct x86_insn *i)
{
    loop_if(c, i, X86_CC_Z(c->fl));
}
static void loopne(struct x86_cpu *c, const struct x86_insn *i)
{
    loop_if(c, i, X86_CC_NZ(c->fl));
}
static void jcxz(struct x86_cpu *c, const struct x86_insn *i)
{
    if (!(c->s.gpr[X86_RCX] & count_mask(i)))
        x86_jump(c, target(c, i));
}

enum { OP_LOOP, OP_LOOPE, OP_LOOPNE, OP_JCXZ };

static bool bind_loop(struct x86_dec *d)
{
    static const x86_op_fn fn[] = {loop, loope, loopne, jcxz};
    return bind_relative(d, fn[d->arg]);
}

/* ---- BOUND (not in 64-bit mode): lower and upper bound lie one behind the other ---- */

/* The upper bound is not looked at if the index is below the lower. */
static gva_t upper_bound(struct x86_cpu *c, const struct x86_insn *i, unsigned size)
{
    return x86_seg_lin(c, i->seg, (x86_ea(c, i) + size) & i->amask, size, X86_SEGOK_R);
}

static void bound16(struct x86_cpu *c, const struct x86_insn *i)
{
    int16_t n = (int16_t)x86_r16(c, i->dst);
    if (n < (int16_t)x86_ld16(c, x86_lin_r(c, i, 2)) ||
        n > (int16_t)x86_ld16(c, upper_bound(c, i, 2)))
        x86_raise(c, X86_BR);
}

static void bound32(struct x86_cpu *c, const struct x86_insn *i)
{
    int32_t n = (int32_t)x86_r32(c, i->dst);
    if (n < (int32_t)x86_ld32(c, x86_lin_r(c, i, 4)) ||
        n > (int32_t)x86_ld32(c, upper_bound(c, i, 4)))
        x86_raise(c, X86_BR);
}

static bool bind_bound(struct x86_dec *d)
{
    x86_bind_regs(d);
    d->i->fn = d->op[0].size == 16 ? bound16 : bound32;
    return true;
}

/* ---- software interrupts ---- */

static void int_n(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_soft_int(c, (uint8_t)i->imm);
}
static void int3(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_soft_trap(c, X86_BP);
}
static void into(struct x86_cpu *c, const struct x86_insn *i)
{
    if (X86_CC_O(c->fl))
        x86_soft_trap(c, X86_OF);
}
/* A #DB trap that DR6 says nothing about (SDM vol. 2, INT1). What was held back behind MOV SS is
 * told with it: it is one exception. */
static void int1(struct x86_cpu *c, const struct x86_insn *i)
{
    uint64_t hit = c->db_hit;
    c->db_hit = 0;
    c->slow &= ~X86_SLOW_DB;
    x86_raise_db(c, hit, true);
}

enum { OP_INT, OP_INT3, OP_INTO, OP_INT1 };

static bool bind_int(struct x86_dec *d)
{
    static const x86_op_fn fn[] = {int_n, int3, into, int1};
    return x86_bind_end(d, fn[d->arg]);
}

/* UD0, UD1 and UD2 are the instructions that do not exist on any CPU. */
static bool bind_ud(struct x86_dec *d)
{
    return false;
}

#define JCC_ROW(cc) {ZYDIS_MNEMONIC_J##cc, bind_jcc, CC_##cc},

const struct x86_bind_row x86_rows_flow[] = {
    {ZYDIS_MNEMONIC_JMP, bind_jmp, 0},
    {ZYDIS_MNEMONIC_CALL, bind_call, 0},
    {ZYDIS_MNEMONIC_RET, bind_ret, 0},
    {ZYDIS_MNEMONIC_LOOP, bind_loop, OP_LOOP},
    {ZYDIS_MNEMONIC_LOOPE, bind_loop, OP_LOOPE},
    {ZYDIS_MNEMONIC_LOOPNE, bind_loop, OP_LOOPNE},
    {ZYDIS_MNEMONIC_JCXZ, bind_loop, OP_JCXZ},
    {ZYDIS_MNEMONIC_JECXZ, bind_loop, OP_JCXZ},
    {ZYDIS_MNEMONIC_JRCXZ, bind_loop, OP_JCXZ},
    {ZYDIS_MNEMONIC_BOUND, bind_bound, 0},
    {ZYDIS_MNEMONIC_INT, bind_int, OP_INT},
    {ZYDIS_MNEMONIC_INT3, bind_int, OP_INT3},
    {ZYDIS_MNEMONIC_INTO, bind_int, OP_INTO},
    {ZYDIS_MNEMONIC_INT1, bind_int, OP_INT1},
    {ZYDIS_MNEMONIC_UD0, bind_ud, 0},
    {ZYDIS_MNEMONIC_UD1, bind_ud, 0},
    {ZYDIS_MNEMONIC_UD2, bind_ud, 0},
    X86_EACH_CC(JCC_ROW){0, NULL, 0},
};
