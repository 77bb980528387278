/*
 * system.c - what kernels do all day: CLI, STI, PUSHF, POPF, SWAPGS, STAC, CLAC, reading of control
 * and segment registers, bases of FS and GS; what takes more than a few lines is in files of its
 * own. In 64-bit code only; those that need CPL 0, there only.
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

void jit_test_imm(struct asm_buf *b, struct opnd m, uint32_t bits)
{
    asm_insn(b, (struct opcode){.op = 0xf7}, 0, m);
    asm_u32(b, bits);
}

void jit_shift(struct asm_buf *b, enum jit_shift op, unsigned reg, unsigned count, bool wide)
{
    asm_insn(b, (struct opcode){.op = 0xc1, .w = wide}, op, OP_REG((uint8_t)reg));
    asm_u8(b, (uint8_t)count);
}

void jit_cmp_canonical(struct asm_buf *b, unsigned reg, unsigned tmp)
{
    asm_mov_rr(b, tmp, reg);
    jit_shift(b, JIT_SHL, tmp, 64 - X86_LIN_BITS, true);
    jit_shift(b, JIT_SAR, tmp, 64 - X86_LIN_BITS, true);
    asm_alu(b, ALU_CMP, tmp, OP_REG((uint8_t)reg), 8);
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

void jit_cmp_code_seen(struct asm_buf *b)
{
    asm_load(b, H_R11, OP_GS(G_OFF(ram)), 8);
    asm_load(b, H_R11, OP_MEM(H_R11, (int32_t)offsetof(struct ram, code_epoch)), 8);
    asm_alu(b, ALU_CMP, H_R11, OP_GS(G_OFF(code_seen)), 8);
}

void jit_rflags_get(struct asm_buf *b)
{
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
}

void jit_rflags_set(struct asm_buf *b)
{
    asm_alu_imm(b, ALU_OR, OP_REG(H_RAX), X86_FL_R1, 4);
    asm_store(b, OP_GS(G_OFF(s.rflags)), H_RAX, 8);
    asm_mov_rr32(b, H_R11, H_RAX);
    asm_alu_imm(b, ALU_AND, OP_REG(H_R11), X86_FL_ARITH & 0xff, 4);
    jit_shift(b, JIT_SHL, H_R11, 8, false);
    jit_shift(b, JIT_SHR, H_RAX, 11, false); /* OF */
    asm_alu_imm(b, ALU_AND, OP_REG(H_RAX), 1, 4);
    asm_alu_imm(b, ALU_OR, OP_REG(H_R11), 0x200, 4); /* as LAHF gives it */
    asm_alu(b, ALU_OR, H_RAX, OP_REG(H_R11), 4);
    asm_store(b, OP_GS(G_OFF(fl)), H_RAX, 2);
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
    jit_rflags_get(b);
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

/* What POPF loads at CPL 0; RF is cleared (SDM vol. 2, POPF). */
#define POPF_FLAGS                                                                            \
    (X86_FL_ARITH | X86_FL_TF | X86_FL_IF | X86_FL_DF | X86_FL_IOPL | X86_FL_NT | X86_FL_AC | \
     X86_FL_ID)

/* TF, which is 0 now, and another AC, which is another mode, are left to the function: it does not
 * come back to this translation. */
static bool popfq(struct tr *t)
{
    struct asm_buf *b = &t->b;
    struct opnd m;
    if (t->s->zi.operand_width != 64)
        return false;
    tr_need_fl(t);
    tr_clobber_ef(t);
    if (!tr_stack(t, X86_RSP, 0, 8, ACC_R, &m))
        return false;
    t->leaves = true;
    asm_load(b, H_RAX, m, 8);
    asm_mov_rr32(b, H_R11, H_RAX);
    asm_alu(b, ALU_XOR, H_R11, OP_GS(G_OFF(s.rflags)), 4);
    jit_test_imm(b, OP_REG(H_R11), X86_FL_TF | X86_FL_AC);
    tr_slow_if(t, CC_NZ);
    asm_load(b, H_R11, OP_GS(G_OFF(s.rflags)), 4);
    asm_alu_imm(b, ALU_AND, OP_REG(H_RAX), (int32_t)POPF_FLAGS, 4);
    asm_alu_imm(b, ALU_AND, OP_REG(H_R11), (int32_t) ~(POPF_FLAGS | X86_FL_RF), 4);
    asm_alu(b, ALU_OR, H_RAX, OP_REG(H_R11), 4);
    jit_rflags_set(b);
    asm_lea(b, H_R15, OP_MEM(H_R15, 8), 8);
    t->redo.kind = JIT_REDO_NONE;
    tr_poll(t, (t->tb->rip + t->s->i.end) & t->c->ip_mask); /* IF may be 1 now */
    return true;
}

static bool swapgs(struct tr *t)
{
    struct asm_buf *b = &t->b;
    const struct opnd base = OP_GS(G_SEG(X86_GS, base)), other = OP_GS(G_OFF(s.kernel_gs_base)),
                      cached = OP_GS(G_SEGC(X86_GS));
    /* EFLAGS stay; RAX is free unless they are to be saved, which they are not. */
    asm_load(b, H_RAX, base, 8);
    asm_load(b, H_R11, other, 8);
    asm_store(b, other, H_RAX, 8);
    asm_store(b, base, H_R11, 8);
    asm_store(b, cached, H_R11, 8);
    return true;
}

/* ---- registers into registers ---- */

/* `size` bytes of struct x86_cpu into the lower `width` of the register. */
static void read_field(struct tr *t, int32_t field, unsigned size, unsigned width)
{
    unsigned dst = t->s->i.dst, h = tr_reg(dst);
    asm_load(&t->b, H_RAX, OP_GS(field), size);
    asm_store(&t->b, h == H_NONE ? OP_GS(G_GPR(dst)) : OP_REG((uint8_t)h), H_RAX, width);
}

static ZydisRegisterClass class_of(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER ? ZydisRegisterGetClass(o->reg.value)
                                                  : ZYDIS_REGCLASS_INVALID;
}

/* From CR0, CR2, CR3, CR4 and from segment registers. */
static bool mov_from(struct tr *t)
{
    const struct x86_insn *i = &t->s->i;
    static const int32_t cr[] = {G_OFF(s.cr0), 0, G_OFF(s.cr2), G_OFF(s.cr3), G_OFF(s.cr4)};
    if (t->s->op[0].type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    switch (class_of(&t->s->op[1])) {
    case ZYDIS_REGCLASS_SEGMENT:
        read_field(t, G_SEG(i->src, sel), 2, i->osize == 2 ? 2 : 8);
        return true;
    case ZYDIS_REGCLASS_CONTROL:
        if (!kernel64(t) || i->aux >= ARRAY_LEN(cr))
            return false;
        read_field(t, cr[i->aux], 8, 8);
        return true;
    default:
        return false;
    }
}

/* Flags are free. */
static void need_fsgsbase(struct tr *t)
{
    tr_need_fl(t);
    tr_clobber_ef(t);
    jit_test_imm(&t->b, OP_GS(G_OFF(s.cr4)), X86_CR4_FSGSBASE);
    tr_slow_if(t, CC_Z);
}

static bool read_base(struct tr *t)
{
    need_fsgsbase(t);
    read_field(t, G_SEG(t->s->i.aux, base), t->s->i.osize == 8 ? 8 : 4,
               8); /* a prefix 66 means nothing */
    return true;
}

static bool write_base(struct tr *t)
{
    struct asm_buf *b = &t->b;
    const struct x86_insn *i = &t->s->i;
    need_fsgsbase(t);
    unsigned v = tr_get(t, i->dst, H_RAX);
    if (i->osize == 8) {
        jit_cmp_canonical(b, v, H_R11);
        tr_slow_if(t, CC_NZ);
    } else {
        asm_mov_rr32(b, H_R11, v);
    }
    asm_store(b, OP_GS(G_SEG(i->aux, base)), H_R11, 8);
    asm_store(b, OP_GS(G_SEGC(i->aux)), H_R11, 8);
    return true;
}

bool tr_modes(struct tr *t, struct jit_mode m, unsigned *plain, unsigned *global)
{
    m.bits &= ~JIT_M_GLOBAL;
    if (!jit_mode_find(t->j, &m, plain))
        return false;
    m.bits |= JIT_M_GLOBAL;
    return jit_mode_find(t->j, &m, global);
}

void jit_set_mode(struct asm_buf *b, int32_t key, unsigned tmp, unsigned mode)
{
    asm_load(b, tmp, OP_GS(key), 8);
    jit_shift(b, JIT_SHL, tmp, 8, true);
    asm_insn(b, (struct opcode){.op = 0x8a, .byte_reg = true, .byte_rm = true}, tmp,
             OP_REG((uint8_t)mode)); /* MOV r8, r8 */
    jit_shift(b, JIT_ROR, tmp, 8, true);
    asm_store(b, OP_GS(key), tmp, 8);
}

/* EFLAGS.AC selects another mode: the next instruction belongs to another translation. */
static bool set_ac(struct tr *t, bool on, bool *end)
{
    struct asm_buf *b = &t->b;
    enum x86_mmu mmu = on ? X86_MMU_KERNEL_AC : X86_MMU_KERNEL;
    struct jit_mode m = *t->m;
    unsigned plain, global;
    m.bits = (m.bits & ~JIT_M_MMU) | (uint32_t)mmu << JIT_M_MMU_SH;
    if (!tr_modes(t, m, &plain, &global))
        return false;
    rflags(t, on ? ALU_OR : ALU_AND, on ? X86_FL_AC : ~X86_FL_AC);
    asm_store_imm(b, OP_GS(G_OFF(mmu)), mmu, 1);
    asm_mov_imm(b, H_R11, plain);
    jit_set_mode(b, G_OFF(jit_key), H_RAX, H_R11);
    asm_mov_imm(b, H_R11, global);
    jit_set_mode(b, G_OFF(jit_key_global), H_RAX, H_R11);
    tr_goto_mode(t, (t->tb->rip + t->s->i.end) & t->c->ip_mask);
    *end = true;
    return true;
}

static bool of_any_level(struct tr *t, bool *end)
{
    switch (t->s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSRET:
        return tr_syscall(t, end);
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        return tr_tsc(t);
    case ZYDIS_MNEMONIC_MOV:
        return mov_from(t);
    case ZYDIS_MNEMONIC_RDFSBASE:
    case ZYDIS_MNEMONIC_RDGSBASE:
        return read_base(t);
    case ZYDIS_MNEMONIC_WRFSBASE:
    case ZYDIS_MNEMONIC_WRGSBASE:
        return write_base(t);
    default:
        return false;
    }
}

bool tr_system(struct tr *t, bool *end)
{
    if (!tr_code64(t))
        return false;
    if (of_any_level(t, end))
        return true;
    if (!kernel64(t))
        return false;
    switch (t->s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_IRETQ:
        return tr_iret(t, end);
    case ZYDIS_MNEMONIC_INVLPG:
        return tr_invlpg(t, end);
    case ZYDIS_MNEMONIC_RDMSR:
        return tr_rdmsr(t);
    case ZYDIS_MNEMONIC_WRMSR:
        return tr_wrmsr(t);
    case ZYDIS_MNEMONIC_MOV:
        return tr_mov_cr3(t, end);
    case ZYDIS_MNEMONIC_CLI:
        rflags(t, ALU_AND, ~X86_FL_IF);
        return true;
    case ZYDIS_MNEMONIC_STI:
        return sti(t);
    case ZYDIS_MNEMONIC_PUSHFQ:
        return pushfq(t);
    case ZYDIS_MNEMONIC_POPFQ:
        return popfq(t);
    case ZYDIS_MNEMONIC_SWAPGS:
        return swapgs(t);
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_CLAC:
        return set_ac(t, t->s->zi.mnemonic == ZYDIS_MNEMONIC_STAC, end);
    default:
        return false;
    }
}
