/*
 * op_stack.c - PUSH POP PUSHA POPA ENTER LEAVE.
 *
 * Stack addresses are as wide as the stack segment says (c->sp_mask), pushed values as wide as the
 * operand. RSP and RBP change after the last access that can fault.
 */
#include "isa/x86/op.h"

#define STACK_OPS(bits)                                                                          \
    static void push_r##bits(struct x86_cpu *c, const struct x86_insn *i)                        \
    {                                                                                            \
        x86_push##bits(c, x86_r##bits(c, i->dst));                                               \
    }                                                                                            \
    static void push_i##bits(struct x86_cpu *c, const struct x86_insn *i)                        \
    {                                                                                            \
        x86_push##bits(c, (uint##bits##_t)i->imm);                                               \
    }                                                                                            \
    static void push_m##bits(struct x86_cpu *c, const struct x86_insn *i)                        \
    {                                                                                            \
        x86_push##bits(c, x86_ld##bits(c, x86_lin_r(c, i, (bits) / 8)));                         \
    }                                                                                            \
    static void pop_r##bits(struct x86_cpu *c, const struct x86_insn *i)                         \
    {                                                                                            \
        uint##bits##_t v = x86_peek##bits(c, 0);                                                 \
        x86_set_rsp(c, c->s.gpr[X86_RSP] + (bits) / 8);                                          \
        x86_w##bits(c, i->dst, v); /* last: POP RSP loads the value popped */                    \
    }                                                                                            \
    /* An address with RSP in it is computed with the incremented RSP (SDM vol. 2, POP). */      \
    static void pop_m##bits(struct x86_cpu *c, const struct x86_insn *i)                         \
    {                                                                                            \
        uint##bits##_t v = x86_peek##bits(c, 0);                                                 \
        uint64_t rsp = c->s.gpr[X86_RSP];                                                        \
        x86_set_rsp(c, rsp + (bits) / 8);                                                        \
        uint64_t ea = x86_ea(c, i), after = c->s.gpr[X86_RSP];                                   \
        c->s.gpr[X86_RSP] = rsp;                                                                 \
        x86_st##bits(c, x86_seg_lin(c, i->seg, ea, (bits) / 8, X86_SEGOK_W), v);                 \
        c->s.gpr[X86_RSP] = after;                                                               \
    }                                                                                            \
    static void leave##bits(struct x86_cpu *c, const struct x86_insn *i)                         \
    {                                                                                            \
        uint64_t bp = c->s.gpr[X86_RBP] & c->sp_mask;                                            \
        uint##bits##_t v = x86_ld##bits(c, x86_seg_lin(c, X86_SS, bp, (bits) / 8, X86_SEGOK_R)); \
        x86_set_rsp(c, bp + (bits) / 8);                                                         \
        x86_w##bits(c, X86_RBP, v);                                                              \
    }
STACK_OPS(16)
STACK_OPS(32)
STACK_OPS(64)

bool x86_bind_push(struct x86_dec *d)
{
    static const x86_op_fn r[] = {NULL, push_r16, push_r32, push_r64};
    static const x86_op_fn n[] = {NULL, push_i16, push_i32, push_i64};
    static const x86_op_fn m[] = {NULL, push_m16, push_m32, push_m64};
    if (x86_is_sysreg(d, 0))
        return x86_bind_pushpop_seg(d);
    x86_bind_regs(d);
    d->i->fn = (x86_is_reg(d, 0)   ? r
                : x86_is_imm(d, 0) ? n
                                   : m)[x86_size_index(d->zi->operand_width)];
    return true;
}

bool x86_bind_pop(struct x86_dec *d)
{
    static const x86_op_fn r[] = {NULL, pop_r16, pop_r32, pop_r64};
    static const x86_op_fn m[] = {NULL, pop_m16, pop_m32, pop_m64};
    if (x86_is_sysreg(d, 0))
        return x86_bind_pushpop_seg(d);
    x86_bind_regs(d);
    d->i->fn = (x86_is_reg(d, 0) ? r : m)[x86_size_index(d->zi->operand_width)];
    return true;
}

bool x86_bind_leave(struct x86_dec *d)
{
    static const x86_op_fn fn[] = {NULL, leave16, leave32, leave64};
    d->i->fn = fn[x86_size_index(d->zi->operand_width)];
    return true;
}

/* ---- PUSHA, POPA (not in 64-bit mode) ---- */

#define STACK_ALL(bits)                                                          \
    static void pusha##bits(struct x86_cpu *c, const struct x86_insn *i)         \
    {                                                                            \
        uint64_t sp = c->s.gpr[X86_RSP];                                         \
        for (unsigned r = X86_RAX; r <= X86_RDI; r++) {                          \
            sp = (sp - (bits) / 8) & c->sp_mask;                                 \
            x86_st##bits(c, x86_seg_lin(c, X86_SS, sp, (bits) / 8, X86_SEGOK_W), \
                         x86_r##bits(c, r));                                     \
        }                                                                        \
        x86_set_rsp(c, sp);                                                      \
    }                                                                            \
    static void popa##bits(struct x86_cpu *c, const struct x86_insn *i)          \
    {                                                                            \
        /* A fault finds the registers loaded that were read before it. */       \
        for (unsigned n = 0; n < 8; n++) {                                       \
            uint##bits##_t v = x86_peek##bits(c, n * (bits) / 8);                \
            if (n != X86_RDI - X86_RSP)                                          \
                x86_w##bits(c, X86_RDI - n, v);                                  \
        }                                                                        \
        x86_set_rsp(c, c->s.gpr[X86_RSP] + (bits));                              \
    }
STACK_ALL(16)
STACK_ALL(32)

bool x86_bind_pusha(struct x86_dec *d)
{
    d->i->fn = d->arg == 16 ? pusha16 : pusha32;
    return true;
}

bool x86_bind_popa(struct x86_dec *d)
{
    d->i->fn = d->arg == 16 ? popa16 : popa32;
    return true;
}

/* ---- ENTER ---- */

/* A value of `size` bytes at stack offset sp. */
static uint64_t frame_load(struct x86_cpu *c, uint64_t sp, unsigned size)
{
    sp &= c->sp_mask;
    gva_t lin = x86_seg_lin(c, X86_SS, sp, size, X86_SEGOK_R);
    return size == 2 ? x86_ld16(c, lin) : size == 4 ? x86_ld32(c, lin) : x86_ld64(c, lin);
}

static void frame_store(struct x86_cpu *c, uint64_t sp, uint64_t v, unsigned size)
{
    sp &= c->sp_mask;
    gva_t lin = x86_seg_lin(c, X86_SS, sp, size, X86_SEGOK_W);
    if (size == 2)
        x86_st16(c, lin, (uint16_t)v);
    else if (size == 4)
        x86_st32(c, lin, (uint32_t)v);
    else
        x86_st64(c, lin, v);
}

/* SDM vol. 2, ENTER. imm: nesting level; aux: bytes of local variables; osize: of the pointers. */
static void enter(struct x86_cpu *c, const struct x86_insn *i)
{
    unsigned size = i->osize, level = i->imm & 31;
    uint64_t sp = c->s.gpr[X86_RSP] - size, bp = c->s.gpr[X86_RBP], frame;
    frame_store(c, sp, bp, size);
    frame = (c->s.gpr[X86_RSP] & ~c->sp_mask) | (sp & c->sp_mask);
    if (level) {
        for (unsigned n = 1; n < level; n++) {
            bp -= size;
            sp -= size;
            frame_store(c, sp, frame_load(c, bp, size), size);
        }
        sp -= size;
        frame_store(c, sp, frame, size);
    }
    sp -= i->aux;
    /* It faults if the new top of stack could not be written. */
    gva_t top = x86_seg_lin(c, X86_SS, sp & c->sp_mask, size, X86_SEGOK_W);
    if (c->mmu == X86_MMU_ALIGN && (top & (size - 1)))
        x86_raise_err(c, X86_AC, 0);
    x86_probe(c, top, size, X86_WRITE, c->mmu);
    x86_set_rsp(c, sp);
    if (size == 2)
        x86_w16(c, X86_RBP, (uint16_t)frame);
    else if (size == 4)
        x86_w32(c, X86_RBP, (uint32_t)frame);
    else
        x86_w64(c, X86_RBP, frame);
}

bool x86_bind_enter(struct x86_dec *d)
{
    d->i->fn = enter;
    d->i->aux = (uint16_t)d->op[0].imm.value.u;
    d->i->osize = (uint8_t)(d->zi->operand_width / 8);
    return true;
}
