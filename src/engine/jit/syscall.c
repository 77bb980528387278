/*
 * syscall.c - SYSCALL and SYSRET between user and kernel code of 64 bits, without leaving
 * translated code.
 *
 * All that a translation's mode depends on stays the same but for the privilege level and what
 * data accesses may do, so that the mode on the other side is known when the instruction is
 * translated. The work itself is done by two thunks. RFLAGS.TF is 0 whenever translations are
 * executed; whatever else is unusual (EFER.SCE clear, RFLAGS.AC, a return address that is not
 * canonical, TF loaded by SYSRET) is left to the semantic function.
 *
 * The program's calls stay on the host's stack, below a mark: a return address that leads to
 * thunk.ret as the first one on the stack does, so that no return of the kernel's gets further.
 * SYSRET takes the mark off if it is what it finds, which is when the kernel's calls have all
 * returned; if not, all calls are forgotten. They also are when another address space is chosen, as
 * at every instruction that may change mappings.
 */
#include "engine/jit/tr.h"
#include "isa/x86/priv.h"

/* R11 as the thunks want it: the jit_insn, should its function be needed, and the modes to go on
 * in, of code in pages that are not global and of code in global ones. */
#define ARG_PLAIN_SH  32
#define ARG_GLOBAL_SH (ARG_PLAIN_SH + 8)

/* ---- translations ---- */

static bool to_level(struct tr *t, uint32_t level, enum x86_mmu mmu, const uint8_t *thunk,
                     bool *end)
{
    struct jit_mode m = *t->m;
    unsigned plain, global;
    m.bits &= ~(JIT_M_USER | JIT_M_CPL0 | JIT_M_MMU);
    m.bits |= level | (uint32_t)mmu << JIT_M_MMU_SH;
    if (!tr_modes(t, m, &plain, &global))
        return false;
    struct jit_insn *ji = tr_insn(t);
    *end = true;
    if (!ji)
        return true;
    tr_need_fl(t);
    if (level == JIT_M_CPL0)
        tr_rip(&t->b, t->tb->pic, H_RAX, t->tb->rip + t->s->i.end);
    asm_mov_imm(&t->b, H_R11,
                jit_data_off(t->j, ji) | (uint64_t)plain << ARG_PLAIN_SH |
                    (uint64_t)global << ARG_GLOBAL_SH);
    asm_jmp(&t->b, jit_rw(t->j, thunk));
    return true;
}

bool tr_syscall(struct tr *t, bool *end)
{
    if (t->s->zi.mnemonic == ZYDIS_MNEMONIC_SYSCALL && (t->m->bits & JIT_M_USER))
        return to_level(t, JIT_M_CPL0, X86_MMU_KERNEL, t->j->thunk.syscall, end);
    if (t->s->zi.mnemonic == ZYDIS_MNEMONIC_SYSRET && (t->m->bits & JIT_M_CPL0) &&
        t->s->i.osize == 8)
        return to_level(t, JIT_M_USER, X86_MMU_USER, t->j->thunk.sysret, end);
    return false;
}

/* ---- thunks ---- */

void jit_set_level(struct asm_buf *b, unsigned shift, unsigned cpl, enum x86_mmu mmu)
{
    jit_shift(b, JIT_SHR, H_R11, shift, true);
    jit_set_mode(b, G_OFF(jit_key), H_RAX, H_R11);
    jit_shift(b, JIT_SHR, H_R11, 8, false);
    jit_set_mode(b, G_OFF(jit_key_global), H_RAX, H_R11);
    asm_store_imm(b, OP_GS(G_OFF(cpl)), (int32_t)cpl, 1);
    asm_store_imm(b, OP_GS(G_OFF(mmu)), mmu, 1);
}

/* A flat segment for the selector in RAX, as fast.c makes it. */
static void set_seg(struct asm_buf *b, unsigned seg, uint32_t attr)
{
    asm_store_imm(b, OP_GS(G_SEG(seg, base)), 0, 8);
    asm_store_imm(b, OP_GS(G_SEG(seg, limit)), -1, 4);
    asm_store(b, OP_GS(G_SEG(seg, sel)), H_RAX, 2);
    asm_store_imm(b, OP_GS(G_SEG(seg, attr)), (int32_t)attr, 4);
}

/* ---- the mark; RAX is lost ---- */

static void load_mark(struct jit *j, struct asm_buf *b)
{
    asm_mov_imm(b, H_RAX, (uintptr_t)j->thunk.ret);
}

void jit_forget_calls(struct asm_buf *b)
{
    asm_load(b, H_RSP, OP_GS(G_OFF(jit_rsp)), 8);
}

static void put_mark(struct jit *j, struct asm_buf *b)
{
    asm_alu(b, ALU_CMP, H_RSP, OP_GS(G_OFF(jit_rsp_end)), 8);
    uint8_t *room = asm_jcc(b, CC_NB, NULL);
    jit_forget_calls(b);
    asm_patch(room, b->p);
    load_mark(j, b);
    asm_lea(b, H_RSP, OP_MEM(H_RSP, -16), 8);
    asm_store(b, OP_MEM(H_RSP, 0), H_RAX, 8);
}

static void take_mark(struct jit *j, struct asm_buf *b)
{
    load_mark(j, b);
    asm_alu(b, ALU_CMP, H_RAX, OP_MEM(H_RSP, 0), 8);
    uint8_t *other = asm_jcc(b, CC_NZ, NULL);
    asm_alu(b, ALU_CMP, H_RSP, OP_GS(G_OFF(jit_rsp)), 8);
    uint8_t *first = asm_jcc(b, CC_Z, NULL);
    asm_lea(b, H_RSP, OP_MEM(H_RSP, 16), 8);
    uint8_t *done = asm_jmp(b, NULL);
    asm_patch(other, b->p);
    jit_forget_calls(b);
    asm_patch(first, b->p);
    asm_patch(done, b->p);
}

static void unusual(struct jit *j, struct asm_buf *b, const struct asm_jumps *from)
{
    asm_jumps_here(b, from);
    asm_mov_rr32(b, H_RAX, H_R11);
    asm_jmp(b, jit_rw(j, j->thunk.interp_end));
}

void jit_syscall_thunk(struct jit *j, struct asm_buf *b)
{
    struct asm_jumps other = {0};
    jit_test_imm(b, OP_GS(G_OFF(s.efer)), X86_EFER_SCE);
    asm_jcc_to(b, CC_Z, &other);
    jit_test_imm(b, OP_GS(G_OFF(s.rflags)), X86_FL_AC);
    asm_jcc_to(b, CC_NZ, &other);
    asm_mov_rr(b, tr_reg(X86_RCX), H_RAX);
    jit_set_level(b, ARG_PLAIN_SH, 0, X86_MMU_KERNEL);
    jit_rflags_get(b);
    asm_store(b, OP_GS(G_GPR(11)), H_RAX, 8);
    asm_load(b, H_R11, OP_GS(G_OFF(s.fmask)), 4);
    asm_insn(b, (struct opcode){.op = 0xf7}, 2, OP_REG(H_R11)); /* NOT */
    asm_alu(b, ALU_AND, H_RAX, OP_REG(H_R11), 4);
    jit_rflags_set(b);
    asm_load(b, H_RAX, OP_GS(G_OFF(s.star) + 4), 2);
    asm_alu_imm(b, ALU_AND, OP_REG(H_RAX), -4, 4);
    set_seg(b, X86_CS, X86_FLAT_CODE64(0));
    asm_alu_imm(b, ALU_ADD, OP_REG(H_RAX), 8, 4);
    set_seg(b, X86_SS, X86_FLAT_DATA(0));
    put_mark(j, b);
    asm_load(b, H_RAX, OP_GS(G_OFF(s.lstar)), 8);
    asm_jmp(b, jit_rw(j, j->thunk.jump_any));
    unusual(j, b, &other);
}

void jit_sysret_thunk(struct jit *j, struct asm_buf *b)
{
    struct asm_jumps other = {0};
    unsigned rcx = tr_reg(X86_RCX);
    jit_test_imm(b, OP_GS(G_OFF(s.efer)), X86_EFER_SCE);
    asm_jcc_to(b, CC_Z, &other);
    jit_test_imm(b, OP_GS(G_GPR(11)), X86_FL_TF | X86_FL_AC);
    asm_jcc_to(b, CC_NZ, &other);
    jit_cmp_canonical(b, rcx, H_RAX);
    asm_jcc_to(b, CC_NZ, &other);
    jit_set_level(b, ARG_PLAIN_SH, 3, X86_MMU_USER);
    asm_load(b, H_RAX, OP_GS(G_GPR(11)), 4);
    asm_alu_imm(b, ALU_AND, OP_REG(H_RAX), (int32_t)X86_SYSRET_FLAGS, 4);
    jit_rflags_set(b);
    asm_load(b, H_RAX, OP_GS(G_OFF(s.star) + 6), 2);
    asm_alu_imm(b, ALU_ADD, OP_REG(H_RAX), 8, 4);
    asm_alu_imm(b, ALU_OR, OP_REG(H_RAX), 3, 4);
    set_seg(b, X86_SS, X86_FLAT_DATA(3));
    asm_alu_imm(b, ALU_ADD, OP_REG(H_RAX), 8, 4);
    set_seg(b, X86_CS, X86_FLAT_CODE64(3));
    take_mark(j, b);
    asm_mov_rr(b, H_RAX, rcx);
    asm_jmp(b, jit_rw(j, j->thunk.jump_any));
    unusual(j, b, &other);
}
