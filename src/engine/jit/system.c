/*
 * system.c - what kernels do all day: CLI, STI, PUSHF, SWAPGS, STAC, CLAC. In 64-bit code at CPL 0
 * only, where none of them can fault.
 */
#include "engine/jit/tr.h"

static bool kernel64(const struct tr *t)
{
    return tr_code64(t) && (t->m->bits & JIT_M_CPL0);
}

static void rflags(struct tr *t, enum asm_alu op, uint32_t bits)
{
    tr_need_fl(t);
    tr_clobber_ef(t);
    asm_alu_imm(&t->b, op, OP_GS(G_OFF(s.rflags)), (int32_t)bits, 4);
}

/* Interrupts are taken behind the instruction after STI at the earliest (SDM vol. 2, STI): only
 * there is it looked whether there are any. */
static bool sti(struct tr *t)
{
    unsigned n = (unsigned)(t->s - t->j->src);
    if (n + 1 >= t->n)
        return false;
    rflags(t, ALU_OR, X86_FL_IF);
    t->poll_behind = n + 1;
    return true;
}

/* SDM vol. 2, PUSHF: VM and RF are pushed as zeros. */
static bool pushfq(struct tr *t)
{
    struct asm_buf *b = &t->b;
    struct opnd m;
    if (t->s->zi.operand_width != 64)
        return false;
    tr_need_fl(t);
    tr_clobber_ef(t);
    asm_load(b, H_RAX, OP_GS(G_OFF(fl)), 1);                    /* OF */
    asm_insn(b, (struct opcode){.op = 0xc1}, 4, OP_REG(H_RAX)); /* SHL */
    asm_u8(b, 11);
    asm_load(b, H_R11, OP_GS(G_OFF(fl) + 1), 1); /* as LAHF gives them */
    asm_alu_imm(b, ALU_AND, OP_REG(H_R11), X86_FL_ARITH & 0xff, 4);
    asm_alu(b, ALU_OR, H_RAX, OP_REG(H_R11), 4);
    asm_load(b, H_R11, OP_GS(G_OFF(s.rflags)), 4);
    asm_alu_imm(b, ALU_AND, OP_REG(H_R11),
                (int32_t)(X86_FL_ALL & ~(X86_FL_ARITH | X86_FL_RF | X86_FL_VM)), 4);
    asm_alu(b, ALU_OR, H_RAX, OP_REG(H_R11), 4);
    asm_alu_imm(b, ALU_OR, OP_REG(H_RAX), X86_FL_R1, 4);
    asm_store(b, OP_GS(G_OFF(jit_tmp)), H_RAX, 8);
    if (!tr_stack(t, X86_RSP, -8, 8, ACC_W, &m))
        return false;
    tr_mem_fix(t, &m);
    asm_load(b, H_RAX, OP_GS(G_OFF(jit_tmp)), 8);
    asm_store(b, m, H_RAX, 8);
    asm_lea(b, H_R15, OP_MEM(H_R15, -8), 8);
    tr_stored(t, m, 8);
    return true;
}

static bool swapgs(struct tr *t)
{
    struct asm_buf *b = &t->b;
    const struct opnd base = OP_GS(G_OFF(s.seg) + (int32_t)(X86_GS * sizeof(struct x86_seg))),
                      other = OP_GS(G_OFF(s.kernel_gs_base)),
                      cached = OP_GS(G_OFF(segc) + (int32_t)(X86_GS * sizeof(struct x86_segc)));
    /* EFLAGS stay; RAX is free unless they are to be saved, which they are not. */
    asm_load(b, H_RAX, base, 8);
    asm_load(b, H_R11, other, 8);
    asm_store(b, other, H_RAX, 8);
    asm_store(b, base, H_R11, 8);
    asm_store(b, cached, H_R11, 8);
    return true;
}

/* EFLAGS.AC selects another mode: the next instruction belongs to another translation. */
static bool set_ac(struct tr *t, bool on, bool *end)
{
    struct asm_buf *b = &t->b;
    enum x86_mmu mmu = on ? X86_MMU_KERNEL_AC : X86_MMU_KERNEL;
    struct jit_mode m = *t->m;
    m.bits = (m.bits & ~(JIT_M_MMU | JIT_M_GLOBAL)) | (uint32_t)mmu << JIT_M_MMU_SH;
    unsigned plain, global;
    if (!jit_mode_find(t->j, &m, &plain))
        return false;
    m.bits |= JIT_M_GLOBAL;
    if (!jit_mode_find(t->j, &m, &global))
        return false;
    rflags(t, on ? ALU_OR : ALU_AND, on ? X86_FL_AC : ~X86_FL_AC);
    asm_store_imm(b, OP_GS(G_OFF(mmu)), mmu, 1);
    asm_store_imm(b, OP_GS(G_OFF(jit_key) + 7), (int32_t)plain, 1);
    asm_store_imm(b, OP_GS(G_OFF(jit_key_global) + 7), (int32_t)global, 1);
    tr_goto_mode(t, (t->tb->rip + t->s->i.end) & t->c->ip_mask);
    *end = true;
    return true;
}

bool tr_system(struct tr *t, bool *end)
{
    if (!kernel64(t))
        return false;
    switch (t->s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
        rflags(t, ALU_AND, ~X86_FL_IF);
        return true;
    case ZYDIS_MNEMONIC_STI:
        return sti(t);
    case ZYDIS_MNEMONIC_PUSHFQ:
        return pushfq(t);
    case ZYDIS_MNEMONIC_SWAPGS:
        return swapgs(t);
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        return set_ac(t, t->s->zi.mnemonic == ZYDIS_MNEMONIC_STAC, end);
    default:
        return false;
    }
}
