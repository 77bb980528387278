/*
 * msr.c - RDMSR and WRMSR of the bases of FS and GS. The other registers are left to the semantic
 * functions.
 */
#include "engine/jit/tr.h"

#define FS_BASE 0xc0000100u /* GS_BASE and KERNEL_GS_BASE follow */
#define BASES   3u

static int32_t base_of(unsigned n)
{
    return n == 2 ? G_OFF(s.kernel_gs_base) : G_SEG(X86_FS + n, base);
}

/* STC or CLC; RET */
static void leave(struct asm_buf *b, bool done)
{
    asm_u8(b, done ? 0xf9 : 0xf8);
    asm_u8(b, 0xc3);
}

/* `each` for the register that guest ECX names; RAX is lost. */
static void choose(struct asm_buf *b, void (*each)(struct asm_buf *b, unsigned n))
{
    asm_lea(b, H_RAX, OP_MEM((uint8_t)tr_reg(X86_RCX), (int32_t)-FS_BASE), 4);
    for (unsigned n = 0; n < BASES; n++) {
        asm_alu_imm(b, ALU_CMP, OP_REG(H_RAX), (int32_t)n, 4);
        uint8_t *other = asm_jcc(b, CC_NZ, NULL);
        each(b, n);
        leave(b, true);
        asm_patch(other, b->p);
    }
    leave(b, false);
}

static void read(struct asm_buf *b, unsigned n)
{
    asm_load(b, H_RAX, OP_GS(base_of(n)), 8);
}

static void write(struct asm_buf *b, unsigned n)
{
    asm_store(b, OP_GS(base_of(n)), H_R11, 8);
    if (n < 2)
        asm_store(b, OP_GS(G_SEGC(X86_FS + n)), H_R11, 8);
}

void jit_rdmsr_thunk(struct asm_buf *b)
{
    choose(b, read);
}

void jit_wrmsr_thunk(struct asm_buf *b)
{
    asm_mov_rr(b, H_HELD, H_R11);
    jit_cmp_code_seen(b);
    uint8_t *written = asm_jcc(b, CC_NZ, NULL);
    asm_mov_rr(b, H_R11, H_HELD);
    jit_cmp_canonical(b, H_R11, H_RAX);
    uint8_t *odd = asm_jcc(b, CC_NZ, NULL);
    choose(b, write);
    asm_patch(written, b->p);
    asm_patch(odd, b->p);
    leave(b, false);
}

bool tr_rdmsr(struct tr *t)
{
    struct asm_buf *b = &t->b;
    tr_need_fl(t);
    tr_clobber_ef(t);
    asm_call(b, jit_rw(t->j, t->j->thunk.rdmsr));
    tr_slow_if(t, CC_NB);
    asm_mov_rr32(b, tr_reg(X86_RAX), H_RAX);
    asm_mov_rr(b, tr_reg(X86_RDX), H_RAX);
    jit_shift(b, JIT_SHR, tr_reg(X86_RDX), 32, true);
    return true;
}

bool tr_wrmsr(struct tr *t)
{
    struct asm_buf *b = &t->b;
    tr_need_fl(t);
    tr_clobber_ef(t);
    t->leaves = true; /* another register may change the mode */
    asm_mov_rr32(b, H_RAX, tr_reg(X86_RAX));
    asm_mov_rr(b, H_R11, tr_reg(X86_RDX));
    jit_shift(b, JIT_SHL, H_R11, 32, true);
    asm_alu(b, ALU_OR, H_R11, OP_REG(H_RAX), 8);
    asm_call(b, jit_rw(t->j, t->j->thunk.wrmsr));
    tr_slow_if(t, CC_NB);
    return true;
}
