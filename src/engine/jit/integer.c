/*
 * integer.c - integer instructions that need more than their fields replaced: implied registers,
 * registers in the opcode, short forms.
 */
#include "engine/jit/tr.h"

static bool has_modrm(const struct jit_src *s)
{
    return s->zi.attributes & ZYDIS_ATTRIB_HAS_MODRM;
}

/* ADD AL/eAX, imm and its sisters, TEST eAX, imm: no ModRM byte. */
static bool accumulator_imm(struct tr *t)
{
    const struct jit_src *s = t->s;
    unsigned size = s->op[0].size / 8u, n = size < 4 ? size : 4;
    if (s->op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return false;
    struct tr_flags f = tr_flags_of(t, s);
    if (f.reads)
        tr_need_ef(t);
    struct opnd rax = OP_REG((uint8_t)tr_reg(X86_RAX));
    int32_t imm = (int32_t)s->op[1].imm.value.s;
    if (s->zi.mnemonic == ZYDIS_MNEMONIC_TEST) {
        asm_insn(&t->b,
                 (struct opcode){
                     .op = size == 1 ? 0xf6 : 0xf7, .prefix = size == 2 ? 0x66 : 0, .w = size == 8},
                 0, rax);
        asm_bytes(&t->b, &imm, n);
    } else {
        asm_alu_imm(&t->b, (enum asm_alu)(s->zi.opcode >> 3 & 7), rax, imm, size);
    }
    tr_flags_written(t);
    return true;
}

/* INC, DEC of the 32-bit modes with the register in the opcode. */
static bool short_inc(struct tr *t)
{
    const struct jit_src *s = t->s;
    unsigned size = s->op[0].size / 8u, r = s->zi.opcode & 7, dec = s->zi.opcode >= 0x48;
    tr_need_ef(t);
    asm_insn(&t->b, (struct opcode){.op = 0xff, .prefix = size == 2 ? 0x66 : 0}, dec,
             OP_REG((uint8_t)tr_reg(r)));
    tr_flags_written(t);
    return true;
}

/* SAHF, LAHF: with guest RAX in host RAX. The first leaves OF alone. */
static bool ah_flags(struct tr *t)
{
    bool load = t->s->zi.mnemonic == ZYDIS_MNEMONIC_LAHF;
    tr_need_ef(t);
    asm_mov_rr(&t->b, H_RAX, tr_reg(X86_RAX));
    asm_u8(&t->b, load ? 0x9f : 0x9e);
    if (load)
        asm_mov_rr(&t->b, tr_reg(X86_RAX), H_RAX);
    else
        tr_flags_written(t);
    return true;
}

/* ---- implied RAX ---- */

/* MUL, IMUL of one operand, CMPXCHG: the instruction is executed with guest RAX in host RAX. */
static bool with_rax(struct tr *t, bool cmpxchg)
{
    const struct jit_src *s = t->s;
    const ZydisDecodedOperand *rm = &s->op[0], *src = &s->op[1];
    bool mem = rm->type == ZYDIS_OPERAND_TYPE_MEMORY;
    unsigned size = rm->size / 8u;
    if (!has_modrm(s) ||
        (!mem && rm->reg.value >= ZYDIS_REGISTER_AH && rm->reg.value <= ZYDIS_REGISTER_BH))
        return false;
    if (cmpxchg && size == 1 && src->reg.value >= ZYDIS_REGISTER_AH &&
        src->reg.value <= ZYDIS_REGISTER_BH)
        return false;
    unsigned reg = s->zi.raw.modrm.reg | (s->zi.raw.rex.R ? 8u : 0);
    unsigned rmn = s->zi.raw.modrm.rm | (s->zi.raw.rex.B ? 8u : 0);
    if (cmpxchg && tr_reg(reg) == H_NONE)
        return false;
    struct tr_flags f = tr_flags_of(t, s);
    struct opnd o = OP_REG(0);
    if (mem) {
        unsigned acc = cmpxchg ? ACC_R | ACC_W | ACC_LOCK : ACC_R;
        if (!tr_mem(t, size, acc, 1, &o))
            return false;
        tr_mem_fix(t, &o);
    }
    if (f.reads)
        tr_need_ef(t);
    if (!mem)
        o = OP_REG((uint8_t)(rmn == X86_RAX ? H_RAX : tr_get(t, rmn, H_R11)));
    asm_mov_rr(&t->b, H_RAX, tr_reg(X86_RAX));
    unsigned host_reg = !cmpxchg ? reg & 7u : reg == X86_RAX ? H_RAX : tr_reg(reg);
    asm_insn(&t->b,
             (struct opcode){.op = s->zi.opcode,
                             .map = cmpxchg,
                             .prefix = size == 2 ? 0x66 : 0,
                             .w = size == 8,
                             .lock = s->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK,
                             .byte_rm = size == 1,
                             .byte_reg = size == 1 && cmpxchg},
             host_reg, o);
    asm_mov_rr(&t->b, tr_reg(X86_RAX), H_RAX);
    if (cmpxchg && !mem && rmn != X86_RAX)
        tr_put(t, rmn, o.reg);
    tr_flags_written(t);
    if (cmpxchg && mem)
        tr_stored(t, o, size);
    return true;
}

/* CMPXCHG16B m128: RDX, RCX and RBX are where they belong. */
static bool cmpxchg16b(struct tr *t)
{
    struct opnd m;
    if (!tr_mem(t, 16, ACC_R | ACC_W | ACC_LOCK, 16, &m))
        return false;
    tr_mem_fix(t, &m);
    if (tr_flags_of(t, t->s).reads)
        tr_need_ef(t);
    asm_mov_rr(&t->b, H_RAX, tr_reg(X86_RAX));
    asm_insn(
        &t->b,
        (struct opcode){
            .op = 0xc7, .map = 1, .w = true, .lock = t->s->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK},
        1, m);
    asm_mov_rr(&t->b, tr_reg(X86_RAX), H_RAX);
    tr_flags_written(t);
    tr_stored(t, m, 16);
    return true;
}

/* DIV, IDIV of 32 or 64 bits. The host must not meet an error: what might be one is left to the
 * interpreter. */
static bool divide(struct tr *t)
{
    const struct jit_src *s = t->s;
    const ZydisDecodedOperand *rm = &s->op[0];
    struct asm_buf *b = &t->b;
    unsigned size = rm->size / 8u, rmn = s->zi.raw.modrm.rm | (s->zi.raw.rex.B ? 8u : 0);
    bool wide = size == 8;
    struct opnd m;
    if (size < 4)
        return false;
    if (rm->type == ZYDIS_OPERAND_TYPE_MEMORY) {
        if (!tr_mem(t, size, ACC_R, 1, &m))
            return false;
        asm_load(b, H_R11, m, size);
        tr_free_ef(t);
    } else {
        tr_free_ef(t);
        asm_mov_rr(b, H_R11, tr_get(t, rmn, H_R11));
    }
    if (s->zi.mnemonic == ZYDIS_MNEMONIC_DIV) { /* the upper half is below the divisor */
        asm_alu(b, ALU_CMP, H_RDX, OP_REG(H_R11), size);
        tr_slow_if(t, CC_NB);
    } else { /* a dividend of one register, a divisor other than 0 and -1 */
        asm_mov_rr(b, H_RAX, tr_reg(X86_RAX));
        asm_insn(b, (struct opcode){.op = 0xc1, .w = wide}, 7, OP_REG(H_RAX)); /* SAR */
        asm_u8(b, (uint8_t)(size * 8 - 1));
        asm_alu(b, ALU_CMP, H_RAX, OP_REG(H_RDX), size);
        tr_slow_if(t, CC_NZ);
        asm_lea(b, H_RAX, OP_MEM(H_R11, 1), size);
        asm_alu_imm(b, ALU_CMP, OP_REG(H_RAX), 1, size);
        tr_slow_if(t, CC_BE);
    }
    /* The flags stay what they were: they are undefined. */
    asm_mov_rr(b, H_RAX, tr_reg(X86_RAX));
    asm_insn(b, (struct opcode){.op = 0xf7, .w = wide},
             s->zi.mnemonic == ZYDIS_MNEMONIC_DIV ? 6 : 7, OP_REG(H_R11));
    asm_mov_rr(b, tr_reg(X86_RAX), H_RAX);
    return true;
}

/* ---- sign extension of the accumulator ---- */

static bool extend(struct tr *t)
{
    struct asm_buf *b = &t->b;
    unsigned rax = tr_reg(X86_RAX), rdx = tr_reg(X86_RDX);
    struct opnd a = OP_REG((uint8_t)rax);
    switch (t->s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_CBW: /* MOVSX AX, AL and so on */
        asm_insn(b, (struct opcode){.op = 0xbe, .map = 1, .prefix = 0x66, .byte_rm = true}, rax, a);
        return true;
    case ZYDIS_MNEMONIC_CWDE:
        asm_insn(b, (struct opcode){.op = 0xbf, .map = 1}, rax, a);
        return true;
    case ZYDIS_MNEMONIC_CDQE:
        asm_insn(b, (struct opcode){.op = 0x63, .w = true}, rax, a);
        return true;
    case ZYDIS_MNEMONIC_CDQ: /* with RAX in its place CDQ itself changes no flags */
    case ZYDIS_MNEMONIC_CQO:
    case ZYDIS_MNEMONIC_CWD:
        asm_mov_rr(b, H_RAX, rax);
        if (t->s->zi.mnemonic == ZYDIS_MNEMONIC_CWD)
            asm_u8(b, 0x66);
        else if (t->s->zi.mnemonic == ZYDIS_MNEMONIC_CQO)
            asm_u8(b, 0x48);
        asm_u8(b, 0x99);
        return rdx == H_RDX;
    default:
        return false;
    }
}

/* ---- others ---- */

static bool bswap(struct tr *t)
{
    const struct jit_src *s = t->s;
    unsigned size = s->op[0].size / 8u;
    if (size < 4)
        return false;
    unsigned r = (s->zi.opcode & 7) | (s->zi.raw.rex.B ? 8u : 0), h = tr_get(t, r, H_RAX);
    asm_u8(&t->b, (uint8_t)(0x40 | (size == 8) << 3 | h >> 3));
    asm_u8(&t->b, 0x0f);
    asm_u8(&t->b, (uint8_t)(0xc8 | (h & 7)));
    tr_put(t, r, h);
    return true;
}

/* XCHG eAX, r with the register in the opcode. */
static bool short_xchg(struct tr *t)
{
    const struct jit_src *s = t->s;
    unsigned size = s->op[0].size / 8u;
    unsigned r = (s->zi.opcode & 7) | (s->zi.raw.rex.B ? 8u : 0), h = tr_get(t, r, H_RAX);
    asm_insn(&t->b, (struct opcode){.op = 0x87, .prefix = size == 2 ? 0x66 : 0, .w = size == 8}, h,
             OP_REG((uint8_t)tr_reg(X86_RAX)));
    tr_put(t, r, h);
    return true;
}

static bool carry(struct tr *t)
{
    tr_need_ef(t);
    asm_bytes(&t->b, t->s->bytes + t->s->i.len - 1, 1); /* CLC, STC, CMC */
    tr_flags_written(t);
    return true;
}

static bool direction(struct tr *t)
{
    bool set = t->s->zi.mnemonic == ZYDIS_MNEMONIC_STD;
    tr_need_fl(t);
    tr_clobber_ef(t);
    asm_alu_imm(&t->b, set ? ALU_OR : ALU_AND, OP_GS(G_OFF(s.rflags)),
                set ? (int32_t)X86_FL_DF : ~(int32_t)X86_FL_DF, 4);
    return true;
}

static bool fence(struct tr *t)
{
    asm_u8(&t->b, 0x0f);
    asm_u8(&t->b, 0xae);
    asm_u8(&t->b, t->s->zi.mnemonic == ZYDIS_MNEMONIC_LFENCE   ? 0xe8
                  : t->s->zi.mnemonic == ZYDIS_MNEMONIC_MFENCE ? 0xf0
                                                               : 0xf8);
    return true;
}

/* BT and its like with a register as bit number address a bit string: left to the interpreter. */
static bool bit_test(struct tr *t)
{
    const struct jit_src *s = t->s;
    if (s->op[0].type == ZYDIS_OPERAND_TYPE_MEMORY && s->op[1].type == ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    return tr_generic(t);
}

bool tr_integer(struct tr *t)
{
    const struct jit_src *s = t->s;
    switch (s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
        return has_modrm(s) ? tr_generic(t) : accumulator_imm(t);
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
        return has_modrm(s) ? tr_generic(t) : short_inc(t);
    case ZYDIS_MNEMONIC_MUL:
        return with_rax(t, false);
    case ZYDIS_MNEMONIC_IMUL:
        return s->zi.operand_count_visible == 1 ? with_rax(t, false) : tr_generic(t);
    case ZYDIS_MNEMONIC_CMPXCHG:
        return with_rax(t, true);
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        return cmpxchg16b(t);
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        return divide(t);
    case ZYDIS_MNEMONIC_CBW:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CWD:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CQO:
        return extend(t);
    case ZYDIS_MNEMONIC_BSWAP:
        return bswap(t);
    case ZYDIS_MNEMONIC_XCHG:
        return has_modrm(s) ? tr_generic(t) : short_xchg(t);
    case ZYDIS_MNEMONIC_CLC:
    case ZYDIS_MNEMONIC_STC:
    case ZYDIS_MNEMONIC_CMC:
        return carry(t);
    case ZYDIS_MNEMONIC_CLD:
    case ZYDIS_MNEMONIC_STD:
        return direction(t);
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
        return fence(t);
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        return bit_test(t);
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
        return true;
    case ZYDIS_MNEMONIC_SAHF:
    case ZYDIS_MNEMONIC_LAHF:
        return ah_flags(t);
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_BSF:
    case ZYDIS_MNEMONIC_BSR:
    case ZYDIS_MNEMONIC_TZCNT:
    case ZYDIS_MNEMONIC_LZCNT:
    case ZYDIS_MNEMONIC_POPCNT:
    case ZYDIS_MNEMONIC_ADCX:
    case ZYDIS_MNEMONIC_ADOX:
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_ANDN:
    case ZYDIS_MNEMONIC_BEXTR:
    case ZYDIS_MNEMONIC_BLSI:
    case ZYDIS_MNEMONIC_BLSMSK:
    case ZYDIS_MNEMONIC_BLSR:
    case ZYDIS_MNEMONIC_BZHI:
    case ZYDIS_MNEMONIC_PDEP:
    case ZYDIS_MNEMONIC_PEXT:
    case ZYDIS_MNEMONIC_RORX:
    case ZYDIS_MNEMONIC_SARX:
    case ZYDIS_MNEMONIC_SHLX:
    case ZYDIS_MNEMONIC_SHRX:
    case ZYDIS_MNEMONIC_XADD:
    case ZYDIS_MNEMONIC_SETB:
    case ZYDIS_MNEMONIC_SETBE:
    case ZYDIS_MNEMONIC_SETL:
    case ZYDIS_MNEMONIC_SETLE:
    case ZYDIS_MNEMONIC_SETNB:
    case ZYDIS_MNEMONIC_SETNBE:
    case ZYDIS_MNEMONIC_SETNL:
    case ZYDIS_MNEMONIC_SETNLE:
    case ZYDIS_MNEMONIC_SETNO:
    case ZYDIS_MNEMONIC_SETNP:
    case ZYDIS_MNEMONIC_SETNS:
    case ZYDIS_MNEMONIC_SETNZ:
    case ZYDIS_MNEMONIC_SETO:
    case ZYDIS_MNEMONIC_SETP:
    case ZYDIS_MNEMONIC_SETS:
    case ZYDIS_MNEMONIC_SETZ:
    case ZYDIS_MNEMONIC_CMOVB:
    case ZYDIS_MNEMONIC_CMOVBE:
    case ZYDIS_MNEMONIC_CMOVL:
    case ZYDIS_MNEMONIC_CMOVLE:
    case ZYDIS_MNEMONIC_CMOVNB:
    case ZYDIS_MNEMONIC_CMOVNBE:
    case ZYDIS_MNEMONIC_CMOVNL:
    case ZYDIS_MNEMONIC_CMOVNLE:
    case ZYDIS_MNEMONIC_CMOVNO:
    case ZYDIS_MNEMONIC_CMOVNP:
    case ZYDIS_MNEMONIC_CMOVNS:
    case ZYDIS_MNEMONIC_CMOVNZ:
    case ZYDIS_MNEMONIC_CMOVO:
    case ZYDIS_MNEMONIC_CMOVP:
    case ZYDIS_MNEMONIC_CMOVS:
    case ZYDIS_MNEMONIC_CMOVZ:
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_MOVBE:
    case ZYDIS_MNEMONIC_MOVNTI:
        return tr_generic(t);
    default:
        return false;
    }
}
