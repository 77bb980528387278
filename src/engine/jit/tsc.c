/*
 * tsc.c - RDTSC and RDTSCP by the VM clock's line (base/clock.h), if there is one.
 *
 * In 64-bit code. While the line is being drawn anew the semantic function is called, which does
 * that.
 */
#include "base/clock.h"
#include "engine/jit/tr.h"

#define LINE(field) OP_MEM(H_R11, (int32_t)offsetof(struct vclock_line, field))

/* Guest RAX and RDX, which become something else in any case, are free. */
void jit_tsc_thunk(struct asm_buf *b)
{
    unsigned turn = tr_reg(X86_RAX);
    asm_load(b, H_R11, OP_GS(G_OFF(bus.tsc_line)), 8);
    const uint8_t *again = b->p;
    asm_load(b, turn, LINE(turn), 8);
    asm_alu_imm(b, ALU_CMP, LINE(span), 0, 8);
    uint8_t *none = asm_jcc(b, CC_Z, NULL);
    asm_bytes(b, "\x0f\x31", 2); /* RDTSC */
    jit_shift(b, JIT_SHL, H_RDX, 32, true);
    asm_alu(b, ALU_OR, H_RAX, OP_REG(H_RDX), 8);
    asm_alu(b, ALU_SUB, H_RAX, LINE(from), 8);
    asm_alu(b, ALU_CMP, H_RAX, LINE(span), 8);
    uint8_t *over = asm_jcc(b, CC_NB, NULL);
    asm_insn(b, (struct opcode){.op = 0xf7, .w = true}, 4, LINE(rate)); /* MUL */
    asm_insn(b, (struct opcode){.op = 0xac, .map = true, .w = true}, H_RDX, OP_REG(H_RAX));
    asm_u8(b, 32); /* SHRD */
    asm_alu(b, ALU_ADD, H_RAX, LINE(ns), 8);
    asm_alu(b, ALU_CMP, turn, LINE(turn), 8);
    asm_jcc(b, CC_NZ, again);
    asm_alu(b, ALU_ADD, H_RAX, OP_GS(G_OFF(s.tsc_offset)), 8);
    asm_bytes(b, "\xf9\xc3", 2); /* STC; RET */
    asm_patch(none, b->p);
    asm_patch(over, b->p);
    asm_bytes(b, "\xf8\xc3", 2); /* CLC; RET */
}

bool tr_tsc(struct tr *t)
{
    struct asm_buf *b = &t->b;
    if (!t->c->bus.tsc_line)
        return false;
    tr_need_fl(t);
    tr_clobber_ef(t);
    if (!(t->m->bits & JIT_M_CPL0)) {
        jit_test_imm(b, OP_GS(G_OFF(s.cr4)), X86_CR4_TSD);
        tr_slow_if(t, CC_NZ);
    }
    asm_call(b, jit_rw(t->j, t->j->thunk.tsc));
    tr_slow_if(t, CC_NB);
    asm_mov_rr32(b, tr_reg(X86_RAX), H_RAX);
    asm_mov_rr(b, tr_reg(X86_RDX), H_RAX);
    jit_shift(b, JIT_SHR, tr_reg(X86_RDX), 32, true);
    if (t->s->zi.mnemonic == ZYDIS_MNEMONIC_RDTSCP)
        asm_load(b, tr_reg(X86_RCX), OP_GS(G_OFF(s.tsc_aux)), 4);
    return true;
}
