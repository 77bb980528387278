/* move.c - MOV, LEA, PUSH, POP, LEAVE: what moves between registers, memory and the stack. */
#include "engine/jit/tr.h"

static unsigned opcode_reg(const struct jit_src *s)
{
    return (s->zi.opcode & 7) | (s->zi.raw.rex.B ? 8u : 0);
}

/* MOV r, imm with the register in the opcode. */
static bool mov_imm(struct tr *t)
{
    const struct jit_src *s = t->s;
    unsigned size = s->op[0].size / 8u, r = opcode_reg(s);
    unsigned h = tr_reg(r) == H_NONE ? H_RAX : tr_reg(r);
    uint64_t imm = s->op[1].imm.value.u;
    if (size == 1 && !(s->zi.attributes & ZYDIS_ATTRIB_HAS_REX) && (s->zi.opcode & 7) >= 4)
        return false; /* AH, CH, DH, BH */
    if (size >= 4) {
        asm_mov_imm(&t->b, h, size == 4 ? (uint32_t)imm : imm);
    } else {
        h = tr_get(t, r, H_RAX);
        asm_insn(&t->b,
                 (struct opcode){.op = size == 1 ? 0xc6 : 0xc7,
                                 .prefix = size == 2 ? 0x66 : 0,
                                 .byte_rm = size == 1},
                 0, OP_REG((uint8_t)h));
        asm_bytes(&t->b, &imm, size);
    }
    tr_put(t, r, h);
    return true;
}

/* MOV AL/eAX, moffs and back. */
static bool mov_moffs(struct tr *t)
{
    const struct jit_src *s = t->s;
    bool load = s->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER;
    unsigned size = s->op[0].size / 8u;
    struct opnd m;
    if (!tr_mem(t, size, load ? ACC_R : ACC_W, 1, &m))
        return false;
    unsigned rax = tr_reg(X86_RAX);
    asm_insn(&t->b,
             (struct opcode){.op = (uint8_t)((load ? 0x8a : 0x88) | (size > 1)),
                             .prefix = size == 2 ? 0x66 : 0,
                             .w = size == 8},
             rax, m);
    if (!load)
        tr_stored(t, m, size);
    return true;
}

static bool mov_from_sreg(struct tr *t)
{
    const struct x86_insn *i = &t->s->i;
    if (i->osize == 2)
        return false;
    asm_load(&t->b, H_RAX, OP_GS(G_OFF(s.seg[i->src].sel)), 2);
    tr_put(t, i->dst, H_RAX);
    return true;
}

static bool mov(struct tr *t)
{
    const struct jit_src *s = t->s;
    if (s->zi.opcode == 0x8c && s->op[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
        s->zi.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT)
        return mov_from_sreg(t);
    if (s->zi.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        return false; /* control and debug registers */
    if (s->zi.attributes & ZYDIS_ATTRIB_HAS_MODRM)
        return tr_generic(t);
    return s->zi.opcode >= 0xb0 ? mov_imm(t) : mov_moffs(t);
}

static bool in_memory(unsigned guest)
{
    return guest < 16 && tr_reg(guest) == H_NONE;
}

static bool lea(struct tr *t)
{
    const struct jit_src *s = t->s;
    const struct x86_insn *i = &s->i;
    unsigned r = s->zi.raw.modrm.reg | (s->zi.raw.rex.R ? 8u : 0), size = s->op[0].size / 8u;
    bool regs = i->base < 16 || i->index < 16;
    if (regs && !in_memory(r) && !in_memory(i->base) && !in_memory(i->index) && size >= 4 &&
        i->amask != 0xffff && i->base != X86_REG_RIP) {
        uint8_t base = i->base < 16 ? jit_host_reg[i->base] : H_NONE;
        uint8_t index = i->index < 16 ? jit_host_reg[i->index] : H_NONE;
        asm_lea(&t->b, tr_reg(r), OP_SIB(base, index, i->scale, (int32_t)i->disp),
                size == 8 && i->amask == ~0ull ? 8 : 4);
        return true;
    }
    tr_ea(t, i, H_RAX);
    if (size == 2) {
        unsigned d = tr_get(t, r, H_R11);
        asm_insn(&t->b, (struct opcode){.op = 0x8b, .prefix = 0x66}, d, OP_REG(H_RAX));
        tr_put(t, r, d);
        return true;
    }
    if (size == 4)
        asm_mov_rr32(&t->b, H_RAX, H_RAX);
    tr_put(t, r, H_RAX);
    return true;
}

/* ---- the stack ---- */

static unsigned stack_width(const struct tr *t)
{
    return tr_code64(t) ? 8 : 4;
}

static void move_sp(struct tr *t, int32_t by)
{
    asm_lea(&t->b, tr_reg(X86_RSP), OP_MEM((uint8_t)tr_reg(X86_RSP), by), stack_width(t));
}

/* The value waits in memory while the stack is checked. */
static bool push_mem(struct tr *t)
{
    struct asm_buf *b = &t->b;
    unsigned size = stack_width(t);
    struct opnd m;
    if (t->s->zi.operand_width != size * 8 || !tr_stack_can(t) || !tr_mem(t, size, ACC_R, 1, &m))
        return false;
    tr_mem_fix(t, &m);
    tr_need_fl(t);
    asm_load(b, H_RAX, m, size);
    asm_store(b, OP_GS(G_OFF(jit_tmp)), H_RAX, 8);
    if (!tr_stack(t, X86_RSP, -(int32_t)size, size, ACC_W, &m))
        return false;
    tr_mem_fix(t, &m);
    asm_load(b, H_RAX, OP_GS(G_OFF(jit_tmp)), 8);
    asm_store(b, m, H_RAX, size);
    move_sp(t, -(int32_t)size);
    tr_stored(t, m, size);
    return true;
}

static bool push(struct tr *t)
{
    const struct jit_src *s = t->s;
    unsigned size = s->zi.operand_width / 8u;
    const ZydisDecodedOperand *o = &s->op[0];
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
        return push_mem(t);
    bool imm = o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    if (size != stack_width(t) || (!imm && o->type != ZYDIS_OPERAND_TYPE_REGISTER))
        return false;
    unsigned r = 0;
    if (!imm) {
        ZydisRegisterClass cl = ZydisRegisterGetClass(o->reg.value);
        if (cl != ZYDIS_REGCLASS_GPR32 && cl != ZYDIS_REGCLASS_GPR64)
            return false;
        r = (unsigned)ZydisRegisterGetId(o->reg.value);
    }
    struct opnd m;
    if (!tr_stack(t, X86_RSP, -(int32_t)size, size, ACC_W, &m))
        return false;
    if (imm) {
        asm_store_imm(&t->b, m, (int32_t)o->imm.value.s, size);
    } else {
        if (tr_reg(r) == H_NONE)
            tr_mem_free_rax(t, &m);
        asm_store(&t->b, m, tr_get(t, r, H_RAX), size);
    }
    if (t->smp)
        tr_mem_fix(t, &m);
    move_sp(t, -(int32_t)size);
    tr_stored(t, m, size);
    return true;
}

static bool pop(struct tr *t)
{
    const struct jit_src *s = t->s;
    unsigned size = s->zi.operand_width / 8u;
    const ZydisDecodedOperand *o = &s->op[0];
    if (size != stack_width(t) || o->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegisterClass cl = ZydisRegisterGetClass(o->reg.value);
    if (cl != ZYDIS_REGCLASS_GPR32 && cl != ZYDIS_REGCLASS_GPR64)
        return false;
    unsigned r = (unsigned)ZydisRegisterGetId(o->reg.value);
    struct opnd m;
    if (!tr_stack(t, X86_RSP, 0, size, ACC_R, &m))
        return false;
    unsigned h = tr_reg(r) == H_NONE ? H_RAX : tr_reg(r);
    asm_load(&t->b, h, m, size);
    if (r != X86_RSP)
        move_sp(t, (int32_t)size);
    tr_put(t, r, h);
    return true;
}

/* RSP = RBP; POP RBP */
static bool leave(struct tr *t)
{
    unsigned size = t->s->zi.operand_width / 8u;
    struct opnd m;
    if (size != stack_width(t) || !tr_stack(t, X86_RBP, 0, size, ACC_R, &m))
        return false;
    uint8_t bp = (uint8_t)tr_reg(X86_RBP);
    asm_lea(&t->b, tr_reg(X86_RSP), OP_MEM(bp, (int32_t)size), size);
    asm_load(&t->b, bp, m, size);
    return true;
}

bool tr_move(struct tr *t)
{
    switch (t->s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        return mov(t);
    case ZYDIS_MNEMONIC_LEA:
        return lea(t);
    case ZYDIS_MNEMONIC_PUSH:
        return push(t);
    case ZYDIS_MNEMONIC_POP:
        return pop(t);
    case ZYDIS_MNEMONIC_LEAVE:
        return leave(t);
    default:
        return false;
    }
}
