/*
 * forms.c - the opcode maps, enumerated: every opcode with every prefix that can be a part of it
 * and every ModRM.reg, decoded; of the encodings that mean the same with the same kinds of operands
 * one is kept.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "diff.h"

static ZydisDecoder decoders[NMODES];

void insn_init(void)
{
    ZydisDecoderInit(&decoders[MODE_64], ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&decoders[MODE_32], ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32);
    ZydisDecoderInit(&decoders[MODE_16], ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16);
    for (unsigned n = 0; n < NMODES; n++) {
        ZydisDecoderEnableMode(&decoders[n], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[n], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
        ZydisDecoderEnableMode(&decoders[n], ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
    }
}

/* Zydis 4.0 takes [index + disp32] for [R13D + index] if REX.B is set and the address has 32 bits.
 */
static void fix_no_base(struct insn *i)
{
    const ZydisDecodedInstructionRaw *raw = &i->zi.raw;
    bool none = raw->modrm.mod == 0 && raw->modrm.rm == 4 && raw->sib.base == 5;
    for (unsigned n = 0; none && n < i->zi.operand_count; n++) {
        ZydisDecodedOperandMem *m = &i->op[n].mem;
        if (i->op[n].encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM &&
            m->base != ZYDIS_REGISTER_NONE) {
            m->base = ZYDIS_REGISTER_NONE;
            m->disp.has_displacement = true;
            m->disp.value = raw->disp.value;
        }
    }
}

bool insn_decode(enum diff_mode m, const uint8_t *code, unsigned len, struct insn *out)
{
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoders[m], code, len, &out->zi, out->op)))
        return false;
    if (out->zi.address_width != 16)
        fix_no_base(out);
    return true;
}

/* ---- what makes a form ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15ull;
    return h ^ (h >> 29);
}

static bool variable(ZydisOperandEncoding e)
{
    return e == ZYDIS_OPERAND_ENCODING_MODRM_REG || e == ZYDIS_OPERAND_ENCODING_MODRM_RM ||
           e == ZYDIS_OPERAND_ENCODING_OPCODE || e == ZYDIS_OPERAND_ENCODING_NDSNDD ||
           e == ZYDIS_OPERAND_ENCODING_IS4;
}

static uint64_t operand_key(uint64_t h, const ZydisDecodedOperand *o)
{
    h = mix(h, (uint64_t)o->type << 40 | (uint64_t)o->encoding << 32 | (uint64_t)o->size << 8 |
                   o->visibility);
    if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && !variable(o->encoding))
        h = mix(h, (uint64_t)o->reg.value);
    if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && variable(o->encoding))
        h = mix(h, (uint64_t)ZydisRegisterGetClass(o->reg.value));
    if (o->type == ZYDIS_OPERAND_TYPE_MEMORY)
        h = mix(h, (uint64_t)o->mem.type);
    return h;
}

static bool has_opcode_reg(const struct insn *i)
{
    for (unsigned n = 0; n < i->zi.operand_count; n++)
        if (i->op[n].encoding == ZYDIS_OPERAND_ENCODING_OPCODE)
            return true;
    return false;
}

uint64_t insn_key(enum diff_mode m, const struct insn *i)
{
    const uint64_t prefixes = ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE |
                              ZYDIS_ATTRIB_HAS_REPNE;
    uint8_t opcode = has_opcode_reg(i) ? i->zi.opcode & ~7 : i->zi.opcode;
    uint64_t h = mix(m, (uint64_t)i->zi.mnemonic << 32 | (uint64_t)i->zi.encoding << 24 |
                            (uint64_t)i->zi.opcode_map << 16 | opcode);
    h = mix(h, i->zi.attributes & prefixes);
    if (i->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY) /* VEX.W is often ignored */
        h = mix(h, i->zi.operand_width);
    for (unsigned n = 0; n < i->zi.operand_count; n++)
        h = operand_key(h, &i->op[n]);
    return h;
}

static enum diff_class classify(const struct insn *i)
{
    switch (i->zi.meta.isa_ext) {
    case ZYDIS_ISA_EXT_X87:
        return CLASS_X87;
    case ZYDIS_ISA_EXT_MMX:
    case ZYDIS_ISA_EXT_SSE:
    case ZYDIS_ISA_EXT_SSE2:
    case ZYDIS_ISA_EXT_SSE3:
    case ZYDIS_ISA_EXT_SSSE3:
    case ZYDIS_ISA_EXT_SSE4:
    case ZYDIS_ISA_EXT_AES:
    case ZYDIS_ISA_EXT_PCLMULQDQ:
    case ZYDIS_ISA_EXT_SHA:
        return CLASS_SSE;
    case ZYDIS_ISA_EXT_AVX:
    case ZYDIS_ISA_EXT_AVX2:
    case ZYDIS_ISA_EXT_AVX2GATHER:
    case ZYDIS_ISA_EXT_AVXAES:
    case ZYDIS_ISA_EXT_FMA:
    case ZYDIS_ISA_EXT_F16C:
    case ZYDIS_ISA_EXT_VAES:
    case ZYDIS_ISA_EXT_VPCLMULQDQ:
        return CLASS_AVX;
    default:
        break;
    }
    if (i->zi.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE)
        return CLASS_FLOW;
    bool system = (i->zi.attributes & ZYDIS_ATTRIB_IS_PRIVILEGED) ||
                  i->zi.meta.category == ZYDIS_CATEGORY_SYSTEM ||
                  i->zi.meta.category == ZYDIS_CATEGORY_INTERRUPT ||
                  i->zi.meta.category == ZYDIS_CATEGORY_XSAVE ||
                  i->zi.meta.category == ZYDIS_CATEGORY_SEGOP;
    return system ? CLASS_SYS : CLASS_INT;
}

/* ---- the set of keys seen ---- */

#define SET_SIZE 65536u /* several times what there is */
static uint64_t seen[SET_SIZE];

static bool first_time(uint64_t key)
{
    unsigned n = (unsigned)(key >> 20) % SET_SIZE;
    for (; seen[n]; n = (n + 1) % SET_SIZE)
        if (seen[n] == key)
            return false;
    seen[n] = key;
    return true;
}

/* ---- enumeration ---- */

struct walk {
    enum diff_mode mode;
    struct form f; /* the encoding being tried */
    struct form *list;
    unsigned *count, *room;
};

/* The shortest encoding of w->f; the rest of `code` is for displacement and immediate. */
void form_plain_code(const struct form *f, uint8_t code[INSN_MAX])
{
    static const uint8_t maps[4][2] = {{0}, {0x0f}, {0x0f, 0x38}, {0x0f, 0x3a}};
    unsigned n = 0;
    memset(code, 0, INSN_MAX);
    if (f->addrsize)
        code[n++] = 0x67;
    if (f->vex) {
        code[n++] = 0xc4;
        code[n++] = (uint8_t)(0xe0 | f->map);
        unsigned p = f->rep == 0x66 ? 1 : f->rep == 0xf3 ? 2 : f->rep == 0xf2 ? 3 : 0;
        code[n++] = (uint8_t)(f->w << 7 | 15 << 3 | f->l << 2 | p);
    } else {
        if (f->lock)
            code[n++] = 0xf0;
        if (f->opsize)
            code[n++] = 0x66;
        if (f->rep)
            code[n++] = f->rep;
        if (f->w)
            code[n++] = 0x48;
        for (unsigned k = 0; k < f->map && k < 2; k++)
            code[n++] = maps[f->map][k];
    }
    code[n++] = f->opcode;
    if (f->modrm)
        code[n++] = (uint8_t)((f->mem ? 0 : 0xc0) | f->reg << 3 | f->rm);
    if (f->vex && f->mem && f->rm == 4)
        code[n++] = 0x08; /* [rax+rcx]: gathers have a SIB byte */
}

/* Which fields are nothing but register numbers. */
static void find_free_fields(struct form *f, const struct insn *i)
{
    for (unsigned n = 0; n < i->zi.operand_count; n++) {
        ZydisOperandEncoding e = i->op[n].encoding;
        bool reg = i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER;
        f->free_op |= reg && e == ZYDIS_OPERAND_ENCODING_OPCODE;
        f->free_vvvv |= reg && e == ZYDIS_OPERAND_ENCODING_NDSNDD;
        f->free_reg |= reg && e == ZYDIS_OPERAND_ENCODING_MODRM_REG;
        f->free_rm |= reg && e == ZYDIS_OPERAND_ENCODING_MODRM_RM;
    }
}

static void keep(struct walk *w, const struct insn *i, uint64_t key)
{
    if (*w->count == *w->room) {
        *w->room = *w->room ? 2 * *w->room : 4096;
        w->list = realloc(w->list, *w->room * sizeof *w->list);
        if (!w->list)
            abort();
    }
    struct form *f = &w->list[(*w->count)++];
    *f = w->f;
    f->key = key;
    f->mnemonic = i->zi.mnemonic;
    f->cls = classify(i);
    find_free_fields(f, i);
}

/* Tries w->f. Returns true if the encoding has a ModRM byte (or might have one). */
static bool try_form(struct walk *w)
{
    uint8_t code[INSN_MAX];
    struct insn i;
    form_plain_code(&w->f, code);
    if (!insn_decode(w->mode, code, 15, &i))
        return true;
    bool modrm = i.zi.attributes & ZYDIS_ATTRIB_HAS_MODRM;
    /* A byte that was meant as an opcode may be a prefix. */
    if (i.zi.opcode != w->f.opcode)
        return false;
    if (freedom_excluded(&i))
        return modrm;
    uint64_t key = insn_key(w->mode, &i);
    w->f.modrm = modrm;
    if (first_time(key))
        keep(w, &i, key);
    return modrm;
}

static void try_modrms(struct walk *w)
{
    w->f.modrm = true;
    w->f.mem = false;
    for (w->f.reg = 0; w->f.reg < 8; w->f.reg++)
        for (w->f.rm = 0; w->f.rm < 8; w->f.rm++)
            if (!try_form(w))
                return;
    w->f.modrm = w->f.mem = true;
    for (w->f.rm = 0; w->f.rm <= (w->f.vex ? 4 : 0); w->f.rm += 4)
        for (w->f.reg = 0; w->f.reg < 8; w->f.reg++)
            try_form(w);
    w->f.rm = w->f.reg = 0;
}

static void try_opcodes(struct walk *w)
{
    for (unsigned op = 0; op < 256; op++) {
        w->f.opcode = (uint8_t)op;
        w->f.reg = w->f.rm = 0;
        try_modrms(w);
    }
}

static void walk_legacy(struct walk *w)
{
    static const uint8_t reps[] = {0, 0xf2, 0xf3};
    for (unsigned bits = 0; bits < 16; bits++) {
        w->f = (struct form){.mode = w->mode,
                             .opsize = bits & 1,
                             .w = bits & 2,
                             .addrsize = bits & 4,
                             .lock = bits & 8};
        if (w->f.w && w->mode != MODE_64)
            continue;
        for (unsigned r = 0; r < ARRAY_LEN(reps); r++)
            for (unsigned map = 0; map < 4; map++) {
                /* the address size changes what string and loop instructions are, only */
                if ((w->f.addrsize || w->f.lock) && map > 1)
                    continue;
                w->f.rep = reps[r];
                w->f.map = (uint8_t)map;
                try_opcodes(w);
            }
    }
}

static void walk_vex(struct walk *w)
{
    static const uint8_t pps[] = {0, 0x66, 0xf2, 0xf3};
    for (unsigned bits = 0; bits < 4; bits++)
        for (unsigned p = 0; p < ARRAY_LEN(pps); p++)
            for (unsigned map = 1; map < 4; map++) {
                w->f = (struct form){.mode = w->mode,
                                     .vex = true,
                                     .map = (uint8_t)map,
                                     .rep = pps[p],
                                     .w = bits & 1,
                                     .l = bits & 2};
                try_opcodes(w);
            }
}

struct form *forms_enumerate(enum diff_mode m, struct form *list, unsigned *count, unsigned *room)
{
    struct walk w = {.mode = m, .list = list, .count = count, .room = room};
    walk_legacy(&w);
    walk_vex(&w);
    return w.list;
}

void form_name(const struct form *f, char *buf, unsigned len)
{
    static const char *const maps[] = {"", "0f", "0f38", "0f3a"};
    snprintf(buf, len, "%u-bit %s (%s%s%s%s%s%s%s%02x", mode_bits(f->mode),
             ZydisMnemonicGetString(f->mnemonic), f->vex ? f->l ? "vex.256." : "vex.128." : "",
             f->lock ? "lock." : "", f->opsize || f->rep == 0x66 ? "66." : "",
             f->rep == 0xf2   ? "f2."
             : f->rep == 0xf3 ? "f3."
                              : "",
             f->addrsize ? "67." : "", f->w ? "w1." : "", maps[f->map], f->opcode);
    unsigned n = (unsigned)strlen(buf);
    if (f->modrm)
        snprintf(buf + n, len - n, " %s", f->mem ? "mem" : "reg");
    n = (unsigned)strlen(buf);
    if (f->modrm && !f->free_reg)
        snprintf(buf + n, len - n, " /%u", f->reg);
    n = (unsigned)strlen(buf);
    snprintf(buf + n, len - n, ")");
}
