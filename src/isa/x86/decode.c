/*
 * decode.c - from instruction bytes to struct x86_insn: Zydis decodes, a binder chooses the
 * function.
 */
#include <pthread.h>

#include "isa/x86/access.h"
#include "isa/x86/code.h"

struct binder {
    x86_bind_fn bind;
    unsigned arg;
};

static struct binder binders[ZYDIS_MNEMONIC_MAX_VALUE + 1];
static ZydisDecoder decoders[3]; /* 16, 32, 64 */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void init(void)
{
    static const struct x86_bind_row *const tables[] = {
        x86_rows_alu,    x86_rows_mov,    x86_rows_shift, x86_rows_bit,
        x86_rows_muldiv, x86_rows_string, x86_rows_flow,  x86_rows_misc,
        x86_rows_sys,    x86_rows_far,    x86_rows_fpu,
    };
    for (unsigned n = 0; n < ARRAY_LEN(tables); n++)
        for (const struct x86_bind_row *r = tables[n]; r->bind; r++)
            binders[r->mnemonic] = (struct binder){r->bind, r->arg};
    for (unsigned n = 0; n < ARRAY_LEN(binders); n++)
        if (!binders[n].bind)
            binders[n].bind = x86_bind_native;

    ZydisDecoderInit(&decoders[0], ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16);
    ZydisDecoderInit(&decoders[1], ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&decoders[2], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    /* What the CPU model lacks decodes as the NOPs (or older instructions) it is carved from. */
    for (unsigned n = 0; n < 3; n++) {
        ZydisDecoderEnableMode(&decoders[n], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[n], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[n], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[n], ZYDIS_DECODER_MODE_WBNOINVD, ZYAN_FALSE);
    }
}

bool x86_is_reg(const struct x86_dec *d, unsigned n)
{
    return n < d->zi->operand_count_visible && d->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER;
}

bool x86_is_mem(const struct x86_dec *d, unsigned n)
{
    return n < d->zi->operand_count_visible && d->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY;
}

bool x86_is_imm(const struct x86_dec *d, unsigned n)
{
    return n < d->zi->operand_count_visible && d->op[n].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
}

uint8_t x86_reg_code(const struct x86_dec *d, unsigned n)
{
    ZydisRegister r = d->op[n].reg.value;
    if (ZydisRegisterGetClass(r) != ZYDIS_REGCLASS_GPR8)
        return (uint8_t)ZydisRegisterGetId(r);
    if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH)
        return (uint8_t)(8 * (r - ZYDIS_REGISTER_AH) + 1);
    /* AL CL DL BL, then AH.. (above), then SPL BPL SIL DIL R8B.. */
    unsigned id = r <= ZYDIS_REGISTER_BL ? (unsigned)(r - ZYDIS_REGISTER_AL)
                                         : 4u + (unsigned)(r - ZYDIS_REGISTER_SPL);
    return (uint8_t)(8 * id);
}

static uint8_t gpr_number(ZydisRegister r)
{
    switch (ZydisRegisterGetClass(r)) {
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return (uint8_t)ZydisRegisterGetId(r);
    case ZYDIS_REGCLASS_IP:
        return X86_REG_RIP;
    default:
        return X86_REG_ZERO; /* none, or a vector index that its binder handles */
    }
}

static uint8_t seg_number(ZydisRegister r)
{
    switch (r) {
    case ZYDIS_REGISTER_ES:
        return X86_ES;
    case ZYDIS_REGISTER_CS:
        return X86_CS;
    case ZYDIS_REGISTER_SS:
        return X86_SS;
    case ZYDIS_REGISTER_FS:
        return X86_FS;
    case ZYDIS_REGISTER_GS:
        return X86_GS;
    default:
        return X86_DS;
    }
}

static uint8_t scale_shift(unsigned scale)
{
    return scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
}

static void fill_mem(struct x86_insn *i, const ZydisDecodedOperandMem *m, unsigned end)
{
    i->flags |= X86_IF_MEM;
    i->base = gpr_number(m->base);
    i->index = gpr_number(m->index);
    i->scale = scale_shift(m->scale);
    i->disp = m->disp.has_displacement ? m->disp.value : 0;
    if (i->base == X86_REG_RIP)
        i->disp += end;
}

/* Zydis 4.0 takes [index + disp32] (ModRM.mod = 0, SIB.base = 5) for [R13D + index] if REX.B is set
 * and the address has 32 bits. */
static void fix_no_base(struct x86_insn *i, const ZydisDecodedInstruction *zi)
{
    if (zi->raw.modrm.mod == 0 && zi->raw.modrm.rm == 4 && zi->raw.sib.base == 5 &&
        zi->address_width != 16) {
        i->base = X86_REG_ZERO;
        i->disp = zi->raw.disp.value;
    }
}

/* The address operand: the one a ModRM byte or an absolute offset gives, or a string instruction's
 * source (whose segment can be overridden), or any other implicit one (XLAT). */
static void fill_operands(struct x86_dec *d, unsigned end)
{
    struct x86_insn *i = d->i;
    i->base = i->index = X86_REG_ZERO;
    i->seg = X86_DS;
    const ZydisDecodedOperand *mem = NULL;
    for (unsigned n = 0; n < d->zi->operand_count; n++) {
        const ZydisDecodedOperand *o = &d->op[n];
        if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && n < d->zi->operand_count_visible)
            i->imm = o->imm.value.u + (o->imm.is_relative ? end : 0);
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY)
            continue;
        bool modrm = o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ||
                     o->encoding == ZYDIS_OPERAND_ENCODING_DISP16_32_64;
        bool source = o->mem.base == ZYDIS_REGISTER_SI || o->mem.base == ZYDIS_REGISTER_ESI ||
                      o->mem.base == ZYDIS_REGISTER_RSI;
        if (modrm || !mem || (source && mem->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM))
            mem = o;
        if (modrm)
            break;
    }
    for (unsigned n = 0; n < d->zi->operand_count_visible; n++)
        if (d->op[n].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
            i->imm = d->op[n].imm.value.u + (d->op[n].imm.is_relative ? end : 0);
    if (mem) {
        fill_mem(i, &mem->mem, end);
        if (mem->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
            fix_no_base(i, d->zi);
        i->seg = seg_number(mem->mem.segment);
    }
}

static void op_undefined(struct x86_cpu *c, const struct x86_insn *i)
{
    (void)i;
    x86_ud(c);
}

static void op_too_long(struct x86_cpu *c, const struct x86_insn *i)
{
    (void)i;
    x86_gp0(c);
}

static uint8_t prefix_flags(const ZydisDecodedInstruction *zi)
{
    uint8_t f = 0;
    if (zi->attributes & ZYDIS_ATTRIB_HAS_LOCK)
        f |= X86_IF_LOCK;
    if (zi->attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE))
        f |= X86_IF_REP;
    if (zi->attributes & ZYDIS_ATTRIB_HAS_REPNE)
        f |= X86_IF_REPNE;
    if (zi->address_width == 16)
        f |= X86_IF_A16;
    else if (zi->address_width == 32)
        f |= X86_IF_A32;
    return f;
}

static unsigned decode_failed(struct x86_insn *i, ZyanStatus st, unsigned off)
{
    if (st == ZYDIS_STATUS_NO_MORE_DATA)
        return 0;
    i->fn = st == ZYDIS_STATUS_INSTRUCTION_TOO_LONG ? op_too_long : op_undefined;
    i->len = 1;
    i->end = (uint16_t)(off + 1);
    i->flags = X86_IF_END;
    return 1;
}

unsigned x86_decode(struct x86_cpu *c, const uint8_t *bytes, unsigned avail, unsigned off,
                    struct x86_insn *i)
{
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    return x86_decode_full(c, bytes, avail, off, i, &zi, op);
}

unsigned x86_decode_full(struct x86_cpu *c, const uint8_t *bytes, unsigned avail, unsigned off,
                         struct x86_insn *i, ZydisDecodedInstruction *zi, ZydisDecodedOperand *op)
{
    pthread_once(&once, init);
    const ZydisDecoder *dec = &decoders[c->code_size == 64 ? 2 : c->code_size == 32 ? 1 : 0];
    *i = (struct x86_insn){0};
    ZyanStatus st = ZydisDecoderDecodeFull(dec, bytes, avail, zi, op);
    if (!ZYAN_SUCCESS(st)) {
        zi->mnemonic = ZYDIS_MNEMONIC_INVALID;
        return decode_failed(i, st, off);
    }
    unsigned end = off + zi->length;
    i->len = zi->length;
    i->end = (uint16_t)end;
    i->flags = prefix_flags(zi);
    i->osize = (uint8_t)(zi->operand_width / 8);
    i->mnemonic = (uint16_t)zi->mnemonic;
    i->amask = zi->address_width == 16 ? 0xffff : zi->address_width == 32 ? 0xffffffff : ~0ull;
    struct x86_dec d = {zi, op, bytes, c->code_size, c, i, binders[zi->mnemonic].arg};
    fill_operands(&d, end);
    if (!binders[zi->mnemonic].bind(&d)) {
        i->fn = op_undefined;
        i->flags |= X86_IF_END;
        zi->mnemonic = ZYDIS_MNEMONIC_INVALID;
    }
    return zi->length;
}
