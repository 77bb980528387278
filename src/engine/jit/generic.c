/*
 * generic.c - instructions that are copied, with their registers and their address replaced.
 *
 * Which operands the fields of ModRM and VEX stand for is Zydis's knowledge; the opcode, the
 * prefixes that are part of it and the immediates stay as they are.
 */
#include "engine/jit/tr.h"

struct plan {
    struct opcode o;
    bool mem, reg_gpr, rm_gpr, v_gpr; /* what the fields are; else vector registers or digits */
    unsigned reg, rm, v;              /* register numbers of the guest, or the digit */
    bool reg_written, rm_written;
    bool reg_high, rm_high; /* AH, CH, DH, BH */
    unsigned rm_size;       /* of a register */
    unsigned size, acc;     /* of the memory operand */
};

static bool is_gpr(ZydisRegisterClass c)
{
    return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
           c == ZYDIS_REGCLASS_GPR64;
}

/* Number of a GPR; *high: its second byte, AH, CH, DH or BH. */
static unsigned gpr_number(ZydisRegister r, bool *high)
{
    *high = r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH;
    if (*high)
        return (unsigned)(r - ZYDIS_REGISTER_AH);
    if (ZydisRegisterGetClass(r) != ZYDIS_REGCLASS_GPR8)
        return (unsigned)ZydisRegisterGetId(r);
    return r <= ZYDIS_REGISTER_BL ? (unsigned)(r - ZYDIS_REGISTER_AL)
                                  : 4u + (unsigned)(r - ZYDIS_REGISTER_SPL);
}

/* RORX dst, src, by: 64 bits, no flags. */
static void rotate(struct tr *t, unsigned dst, unsigned src, unsigned by)
{
    asm_insn(&t->b, (struct opcode){.op = 0xf0, .map = 3, .prefix = 0xf2, .vex = true, .w = true},
             dst, OP_REG((uint8_t)src));
    asm_u8(&t->b, (uint8_t)by);
}

/* A register operand in a host register: its own or `tmp`. The second byte is rotated down. */
static unsigned get(struct tr *t, unsigned guest, bool high, unsigned tmp)
{
    if (!high)
        return tr_get(t, guest, tmp);
    rotate(t, tmp, tr_reg(guest), 8);
    return tmp;
}

static void put(struct tr *t, unsigned guest, bool high, unsigned host)
{
    if (high)
        rotate(t, tr_reg(guest), host, 56);
    else
        tr_put(t, guest, host);
}

static bool plan_reg(struct plan *p, const ZydisDecodedOperand *o)
{
    ZydisRegisterClass c = ZydisRegisterGetClass(o->reg.value);
    bool gpr = is_gpr(c), written = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE, high = false;
    if (!gpr && c != ZYDIS_REGCLASS_XMM && c != ZYDIS_REGCLASS_YMM && c != ZYDIS_REGCLASS_MMX)
        return false;
    unsigned n = gpr ? gpr_number(o->reg.value, &high) : (unsigned)ZydisRegisterGetId(o->reg.value);
    switch (o->encoding) {
    case ZYDIS_OPERAND_ENCODING_MODRM_REG:
        p->reg = n;
        p->reg_gpr = gpr;
        p->reg_high = high;
        p->reg_written = gpr && written;
        p->o.byte_reg = c == ZYDIS_REGCLASS_GPR8;
        return true;
    case ZYDIS_OPERAND_ENCODING_MODRM_RM:
        p->rm = n;
        p->rm_gpr = gpr;
        p->rm_high = high;
        p->rm_size = o->size / 8u;
        p->rm_written = gpr && written;
        p->o.byte_rm = c == ZYDIS_REGCLASS_GPR8;
        return true;
    case ZYDIS_OPERAND_ENCODING_NDSNDD:
        p->v = n;
        p->v_gpr = gpr;
        return !gpr || !written;
    case ZYDIS_OPERAND_ENCODING_IS4: /* a vector register in the immediate */
        return !gpr;
    default:
        return false;
    }
}

static bool plan_operand(struct plan *p, const ZydisDecodedOperand *o)
{
    switch (o->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        if (o->encoding == ZYDIS_OPERAND_ENCODING_NONE) /* CL, or 1 */
            return o->reg.value == ZYDIS_REGISTER_CL;
        return plan_reg(p, o);
    case ZYDIS_OPERAND_TYPE_MEMORY:
        if (p->mem || o->mem.type != ZYDIS_MEMOP_TYPE_MEM ||
            o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
            return false;
        p->mem = true;
        p->size = o->size / 8u;
        if (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ)
            p->acc |= ACC_R;
        if (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
            p->acc |= ACC_W;
        return p->size >= 1 && p->size <= 32 && p->acc;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE:
        return true;
    default:
        return false;
    }
}

static uint8_t mandatory_prefix(const ZydisDecodedInstruction *zi)
{
    for (unsigned n = 0; n < zi->raw.prefix_count; n++)
        if (zi->raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY)
            return zi->raw.prefixes[n].value;
    return 0;
}

static bool is_vector(const struct jit_src *s)
{
    return jit_has_vector(s->visible) || jit_has(s->visible, ZYDIS_REGCLASS_MMX);
}

static bool plan_opcode(struct plan *p, const struct jit_src *s)
{
    const ZydisDecodedInstruction *zi = &s->zi;
    static const uint8_t pp[4] = {0, 0x66, 0xf3, 0xf2};
    p->o.op = zi->opcode;
    if (p->o.op == 0x82 && zi->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT)
        p->o.op = 0x80; /* its alias, which 64-bit code does not have */
    switch (zi->opcode_map) {
    case ZYDIS_OPCODE_MAP_DEFAULT:
        p->o.map = 0;
        break;
    case ZYDIS_OPCODE_MAP_0F:
        p->o.map = 1;
        break;
    case ZYDIS_OPCODE_MAP_0F38:
        p->o.map = 2;
        break;
    case ZYDIS_OPCODE_MAP_0F3A:
        p->o.map = 3;
        break;
    default:
        return false;
    }
    if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) {
        p->o.vex = true;
        p->o.prefix = pp[zi->raw.vex.pp & 3];
        p->o.w = zi->raw.vex.W;
        p->o.l = zi->raw.vex.L;
        return true;
    }
    if (zi->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
        return false;
    p->o.prefix = mandatory_prefix(zi);
    p->o.w = zi->raw.rex.W;
    p->o.opsize = !p->o.w && zi->operand_width == 16 && p->o.prefix != 0x66 && !is_vector(s) &&
                  zi->mnemonic != ZYDIS_MNEMONIC_MOVNTI; /* which has no 16-bit form */
    p->o.lock = zi->attributes & ZYDIS_ATTRIB_HAS_LOCK;
    return true;
}

static bool make_plan(struct plan *p, const struct jit_src *s)
{
    *p = (struct plan){0};
    if (!(s->zi.attributes & ZYDIS_ATTRIB_HAS_MODRM) || !plan_opcode(p, s))
        return false;
    p->reg = s->zi.raw.modrm.reg; /* an opcode's digit, unless an operand says otherwise */
    for (unsigned n = 0; n < s->zi.operand_count_visible; n++)
        if (!plan_operand(p, &s->op[n]))
            return false;
    return p->mem || s->zi.raw.modrm.mod == 3;
}

static bool has_is4(const struct jit_src *s)
{
    for (unsigned n = 0; n < s->zi.operand_count_visible; n++)
        if (s->op[n].encoding == ZYDIS_OPERAND_ENCODING_IS4)
            return true;
    return false;
}

static void emit_immediates(struct tr *t)
{
    const struct jit_src *s = t->s;
    if (has_is4(s) && !tr_code64(t)) { /* where bit 7 is ignored */
        asm_u8(&t->b, s->bytes[s->zi.raw.imm[0].offset] & 0x7f);
        return;
    }
    for (unsigned n = 0; n < 2; n++)
        if (s->zi.raw.imm[n].size)
            asm_bytes(&t->b, s->bytes + s->zi.raw.imm[n].offset, s->zi.raw.imm[n].size / 8);
}

/* Alignment that the operand must have, from the binder of vector instructions. */
static unsigned alignment(const struct tr *t, const struct plan *p)
{
    return is_vector(t->s) && p->size >= 16 ? (t->s->i.aux >> 8) + 1u : 1;
}

/* Does the field `reg` need a scratch register? */
static bool in_scratch(const struct plan *p)
{
    return p->reg_gpr && (p->reg_high || tr_reg(p->reg) == H_NONE);
}

static bool same_register(const struct plan *p)
{
    return p->reg_gpr && p->rm_gpr && p->rm == p->reg && p->rm_high == p->reg_high;
}

/* XOR and SUB of a register by itself. */
static bool is_zeroing(const struct jit_src *s, const struct plan *p)
{
    return (s->zi.mnemonic == ZYDIS_MNEMONIC_XOR || s->zi.mnemonic == ZYDIS_MNEMONIC_SUB) &&
           same_register(p) && s->op[0].size >= 32;
}

/* Does the field `reg`, or `rm`, stand for a register whose value before does not matter? */
static bool is_new(const struct jit_src *s, const struct plan *p, bool written)
{
    if (is_zeroing(s, p))
        return true;
    if (!written || s->op[0].size < 32 || same_register(p))
        return false;
    switch (s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
        return true;
    default:
        return s->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    }
}

/* More registers in memory than there are scratch registers? */
static bool too_many(const struct tr *t, const struct jit_src *s, const struct plan *p)
{
    bool made = !p->reg_high && is_new(s, p, p->reg_written);
    unsigned n = (in_scratch(p) && !made) + (p->v_gpr && tr_reg(p->v) == H_NONE);
    if ((p->reg_high || p->rm_high) && !t->j->bmi2)
        return true;
    if (p->reg_written && p->rm_written && p->reg == p->rm && p->reg_high != p->rm_high)
        return true; /* XCHG and XADD of AL and AH */
    if (p->reg_gpr && p->v_gpr && tr_reg(p->reg) == H_NONE && p->reg == p->v && !made)
        return true; /* rare; one copy would have to be two */
    return n > 1;
}

bool tr_generic_can(const struct tr *t, const struct jit_src *s)
{
    struct plan p;
    return make_plan(&p, s) && !too_many(t, s, &p) && (!p.mem || tr_mem_can(t, &s->i));
}

/* ---- guest registers that are in memory ---- */

static bool in_memory(bool gpr, unsigned guest)
{
    return gpr && tr_reg(guest) == H_NONE;
}

/* Exchanges the fields, if there is a form of the instruction that then does the same. */
static bool mirror(struct plan *p)
{
    struct opcode *o = &p->o;
    if (o->map || o->vex || !p->reg_gpr || !p->rm_gpr)
        return false;
    if ((o->op < 0x40 && (o->op & 7) < 4) || (o->op & 0xfc) == 0x88)
        o->op ^= 2; /* ADD to CMP, MOV: the direction */
    else if ((o->op & 0xfe) != 0x84)
        return false; /* not TEST */
    struct plan q = *p;
    p->reg = q.rm;
    p->reg_written = q.rm_written;
    p->reg_high = q.rm_high;
    o->byte_reg = q.o.byte_rm;
    p->rm = q.reg;
    p->rm_written = q.reg_written;
    p->rm_high = q.reg_high;
    o->byte_rm = q.o.byte_reg;
    return true;
}

/* Can the register in memory be the instruction's memory operand? Not where that would mean
 * something else; nor where a store of less than the register would have to be followed by one of
 * the rest, or be waited for by the next load of the whole. */
static bool rm_at_home(const struct tr *t, const struct plan *p)
{
    if (!in_memory(p->rm_gpr, p->rm) || (p->rm_written && p->rm_size < 8))
        return false;
    switch (t->s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTC:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTS:  /* a string of bits */
    case ZYDIS_MNEMONIC_XCHG: /* locked */
        return false;
    default:
        return true;
    }
}

/* The operand that the field `reg` stands for, in a host register. */
static unsigned get_reg(struct tr *t, const struct plan *p)
{
    if (!p->reg_gpr)
        return p->reg;
    if (in_memory(true, p->reg) && is_new(t->s, p, p->reg_written))
        return H_RAX;
    return get(t, p->reg, p->reg_high, H_RAX);
}

/* A register that the field `rm` stands for; `reg` is where the other operand is. */
static struct opnd get_rm(struct tr *t, struct plan *p, unsigned reg)
{
    if (!p->rm_gpr)
        return OP_REG((uint8_t)p->rm);
    if (same_register(p))
        return OP_REG((uint8_t)reg);
    if (rm_at_home(t, p)) {
        p->rm_written = false; /* no more to be put away */
        return OP_GS(G_GPR(p->rm));
    }
    if (in_memory(true, p->rm) && is_new(t->s, p, p->rm_written))
        return OP_REG(H_R11);
    return OP_REG((uint8_t)get(t, p->rm, p->rm_high, H_R11));
}

bool tr_generic(struct tr *t)
{
    struct plan p;
    if (!make_plan(&p, t->s) || too_many(t, t->s, &p))
        return false;
    struct asm_buf *b = &t->b;
    struct tr_flags f = tr_flags_of(t, t->s);
    struct opnd rm;
    if (p.mem) {
        bool locked = p.o.lock || t->s->zi.mnemonic == ZYDIS_MNEMONIC_XCHG;
        unsigned acc = p.acc | (locked ? ACC_LOCK : 0);
        if (!tr_mem(t, p.size, acc, alignment(t, &p), &rm))
            return false;
        bool made = !p.reg_high && is_new(t->s, &p, p.reg_written);
        if (t->smp && p.reg_written && (p.acc & ACC_W))
            tr_mem_fix(t, &rm); /* tr_stored() needs the address */
        else if (f.reads || (in_scratch(&p) && !made) || in_memory(p.v_gpr, p.v))
            tr_mem_free_rax(t, &rm);
    } else if (in_memory(p.reg_gpr, p.reg) && !in_memory(p.rm_gpr, p.rm)) {
        mirror(&p);
    }
    if (f.reads)
        tr_need_ef(t);
    unsigned reg = get_reg(t, &p);
    if (p.v_gpr)
        p.v = tr_get(t, p.v, H_RAX);
    if (!p.mem)
        rm = get_rm(t, &p, reg);
    p.o.vvvv = (uint8_t)p.v;
    asm_insn(b, p.o, reg, rm);
    emit_immediates(t);
    if (p.reg_written)
        put(t, p.reg, p.reg_high, reg);
    if (p.rm_written)
        put(t, p.rm, p.rm_high, rm.reg);
    if (f.writes)
        tr_flags_written(t);
    if (p.acc & ACC_W)
        tr_stored(t, rm, p.size);
    return true;
}
