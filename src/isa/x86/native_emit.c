/*
 * native_emit.c - generates stubs: an instruction's operands are moved from the guest's state to
 * host registers and back.
 *
 * Register use in a stub: RDI the vCPU, RSI the memory operand. Vector and MMX registers keep their
 * numbers. A general register in ModRM.rm becomes RAX, one in ModRM.reg becomes RDX; implicit ones
 * (PCMPxSTRx) are RAX, RDX and RCX anyway. All of these are the caller's to lose in the System V
 * ABI.
 */
#include "isa/x86/native.h"

#include <string.h>

#define OFF(member) ((uint32_t)offsetof(struct x86_cpu, member))
#define OFF_GPR(n)  (OFF(s.gpr) + 8u * (n))
#define OFF_XMM(n)  (OFF(s.fpu.xmm) + 16u * (n))
#define OFF_YMMH(n) (OFF(s.fpu.ymmh) + 16u * (n))
#define OFF_ST(n)   (OFF(s.fpu.st) + 16u * (n))
#define HOST_RM     0u /* RAX */
#define HOST_REG    2u /* RDX */
#define RDI         7u
#define RSI         6u

/* ---- the rewritten instruction ---- */

static bool is_gpr(const ZydisDecodedOperand *o)
{
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegisterClass cl = ZydisRegisterGetClass(o->reg.value);
    return cl == ZYDIS_REGCLASS_GPR32 || cl == ZYDIS_REGCLASS_GPR64;
}

static bool is_mem(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_MEMORY;
}

/* Guest GPRs that ModRM names. False: an operand no stub can have (8 and 16-bit registers, VSIB).
 */
static bool find_gprs(const struct x86_dec *d, struct x86_stub_key *k)
{
    k->rm = k->reg = X86_REG_ZERO;
    for (unsigned n = 0; n < d->zi->operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &d->op[n];
        if (is_mem(o)) {
            if (o->mem.type != ZYDIS_MEMOP_TYPE_MEM)
                return false;
            k->mem_read = (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0;
        }
        if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegisterClass cl = ZydisRegisterGetClass(o->reg.value);
        if (cl == ZYDIS_REGCLASS_GPR8 || cl == ZYDIS_REGCLASS_GPR16)
            return false;
        if (!is_gpr(o))
            continue;
        uint8_t r = (uint8_t)ZydisRegisterGetId(o->reg.value);
        if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM)
            k->rm = r;
        else if (o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG)
            k->reg = r;
        else
            return false;
    }
    return true;
}

/* Outside 64-bit mode VEX.W does not choose a 64-bit general register (or memory) operand. */
static bool vex_w_ignored(const struct x86_dec *d)
{
    if (d->code_size == 64)
        return false;
    switch (d->zi->mnemonic) {
    case ZYDIS_MNEMONIC_VMOVD:
    case ZYDIS_MNEMONIC_VPINSRD:
    case ZYDIS_MNEMONIC_VPEXTRD:
    case ZYDIS_MNEMONIC_VCVTSI2SS:
    case ZYDIS_MNEMONIC_VCVTSI2SD:
    case ZYDIS_MNEMONIC_VCVTSS2SI:
    case ZYDIS_MNEMONIC_VCVTSD2SI:
    case ZYDIS_MNEMONIC_VCVTTSS2SI:
    case ZYDIS_MNEMONIC_VCVTTSD2SI:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
        return true;
    default:
        return false;
    }
}

static void put(struct x86_stub_key *k, unsigned byte)
{
    k->insn[k->len++] = (uint8_t)byte;
}

/* Always the three-byte form. R, X, B and vvvv are inverted in the encoding. */
static void put_vex(const struct x86_dec *d, struct x86_stub_key *k)
{
    const uint8_t *v = d->bytes + d->zi->raw.vex.offset;
    bool two = d->zi->raw.vex.size == 2;
    unsigned b1 = two ? (v[1] & 0x80u) | 0x61u : v[1];
    unsigned b2 = two ? v[1] & 0x7fu : v[2];
    bool mem = d->zi->raw.modrm.mod != 3;
    if (mem || k->rm != X86_REG_ZERO || d->code_size != 64)
        b1 |= 0x20;
    if (k->reg != X86_REG_ZERO)
        b1 |= 0x80;
    b1 |= 0x40;
    if (d->code_size != 64)
        b2 |= 0x40;
    if (vex_w_ignored(d))
        b2 &= 0x7f;
    put(k, 0xc4);
    put(k, b1);
    put(k, b2);
}

static void put_legacy(const struct x86_dec *d, struct x86_stub_key *k)
{
    const ZydisDecodedInstruction *zi = d->zi;
    for (unsigned n = 0; n < zi->raw.prefix_count; n++)
        if (zi->raw.prefixes[n].type == ZYDIS_PREFIX_TYPE_MANDATORY && k->len < 4)
            put(k, zi->raw.prefixes[n].value);
    if (zi->attributes & ZYDIS_ATTRIB_HAS_REX) {
        bool mem = zi->raw.modrm.mod != 3;
        unsigned rex = 0x40u | zi->raw.rex.W << 3;
        if (k->reg == X86_REG_ZERO)
            rex |= zi->raw.rex.R << 2;
        if (!mem && k->rm == X86_REG_ZERO)
            rex |= zi->raw.rex.B;
        put(k, rex);
    }
    if (zi->opcode_map != ZYDIS_OPCODE_MAP_DEFAULT)
        put(k, 0x0f);
    if (zi->opcode_map == ZYDIS_OPCODE_MAP_0F38)
        put(k, 0x38);
    if (zi->opcode_map == ZYDIS_OPCODE_MAP_0F3A)
        put(k, 0x3a);
}

/* Non-temporal stores become ordinary ones: their weak ordering would escape the check that a
 * store is followed by (x86_st_raced). */
static uint8_t plain_opcode(const struct x86_dec *d)
{
    switch (d->zi->mnemonic) {
    case ZYDIS_MNEMONIC_MOVNTPS:
    case ZYDIS_MNEMONIC_MOVNTPD:
    case ZYDIS_MNEMONIC_VMOVNTPS:
    case ZYDIS_MNEMONIC_VMOVNTPD:
        return 0x29; /* MOVAPS, MOVAPD */
    case ZYDIS_MNEMONIC_MOVNTDQ:
    case ZYDIS_MNEMONIC_VMOVNTDQ:
    case ZYDIS_MNEMONIC_MOVNTQ:
        return 0x7f; /* MOVDQA, MOVQ */
    default:
        return d->zi->opcode;
    }
}

static void put_modrm(const struct x86_dec *d, struct x86_stub_key *k)
{
    unsigned mod = d->zi->raw.modrm.mod, reg = d->zi->raw.modrm.reg, rm = d->zi->raw.modrm.rm;
    if (k->reg != X86_REG_ZERO)
        reg = HOST_REG;
    if (mod != 3) {
        mod = 0;
        rm = RSI;
    } else if (k->rm != X86_REG_ZERO) {
        rm = HOST_RM;
    }
    put(k, mod << 6 | reg << 3 | rm);
}

static bool encoding_ok(const ZydisDecodedInstruction *zi)
{
    if (zi->encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY &&
        zi->encoding != ZYDIS_INSTRUCTION_ENCODING_VEX)
        return false;
    return zi->opcode_map <= ZYDIS_OPCODE_MAP_0F3A;
}

bool x86_native_key(const struct x86_dec *d, enum x86_stub_kind kind, struct x86_stub_key *k)
{
    const ZydisDecodedInstruction *zi = d->zi;
    memset(k, 0, sizeof *k);
    k->kind = (uint8_t)kind;
    if (!encoding_ok(zi) || !find_gprs(d, k))
        return false;
    if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX)
        put_vex(d, k);
    else
        put_legacy(d, k);
    put(k, plain_opcode(d));
    if (zi->attributes & ZYDIS_ATTRIB_HAS_MODRM)
        put_modrm(d, k);
    for (unsigned n = 0; n < 2; n++) {
        for (unsigned b = 0; b < zi->raw.imm[n].size / 8u && k->len < sizeof k->insn; b++) {
            unsigned v = d->bytes[zi->raw.imm[n].offset + b];
            if (d->code_size != 64 && zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX &&
                zi->operand_count_visible == 4 && d->op[3].encoding == ZYDIS_OPERAND_ENCODING_IS4)
                v &= 0x7f; /* a register number in bits 4..7; there are eight */
            put(k, v);
        }
    }
    return true;
}

/* ---- the code around it ---- */

struct emit {
    uint8_t *p;
    unsigned len;
};

static void e8(struct emit *e, unsigned v)
{
    e->p[e->len++] = (uint8_t)v;
}

static void e32(struct emit *e, uint32_t v)
{
    memcpy(e->p + e->len, &v, 4);
    e->len += 4;
}

static void bytes(struct emit *e, const uint8_t *b, unsigned n)
{
    memcpy(e->p + e->len, b, n);
    e->len += n;
}
#define BYTES(e, ...) \
    bytes((e), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* ModRM for [RDI + disp32] */
static void at_rdi(struct emit *e, unsigned reg, uint32_t disp)
{
    e8(e, 0x80 | (reg & 7) << 3 | RDI);
    e32(e, disp);
}

static void mov_gpr(struct emit *e, bool store, unsigned reg, unsigned guest)
{
    BYTES(e, 0x48, store ? 0x89 : 0x8b);
    at_rdi(e, reg, OFF_GPR(guest));
}

static void mov_xmm(struct emit *e, bool store, bool vex, unsigned r)
{
    if (vex) { /* VMOVAPS */
        BYTES(e, 0xc5, r < 8 ? 0xf8 : 0x78);
    } else { /* MOVAPS */
        if (r >= 8)
            e8(e, 0x44);
        e8(e, 0x0f);
    }
    e8(e, store ? 0x29 : 0x28);
    at_rdi(e, r, OFF_XMM(r));
}

/* VINSERTF128 ymm, ymm, m128, 1 and VEXTRACTF128 m128, ymm, 1 */
static void mov_ymmh(struct emit *e, bool store, unsigned r)
{
    unsigned vvvv = store ? 15 : ~r & 15;
    BYTES(e, 0xc4, r < 8 ? 0xe3 : 0x63, vvvv << 3 | 5, store ? 0x19 : 0x18);
    at_rdi(e, r, OFF_YMMH(r));
    e8(e, 1);
}

static void mov_mmx(struct emit *e, bool store, unsigned r)
{
    BYTES(e, 0x0f, store ? 0x7f : 0x6f);
    at_rdi(e, r, OFF_ST(r));
    if (!store)
        return;
    BYTES(e, 0x66, 0xc7); /* MOV word: the exponent becomes all ones (SDM vol. 1, 9.2.2) */
    at_rdi(e, 0, OFF_ST(r) + 8);
    BYTES(e, 0xff, 0xff);
}

static bool is_ymm(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_YMM;
}

/* One register operand, before or after the instruction. */
static void move_operand(struct emit *e, const ZydisDecodedOperand *o, bool store, bool vex)
{
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return;
    bool reads = o->actions & ZYDIS_OPERAND_ACTION_MASK_READ;
    bool writes = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    unsigned r = (unsigned)ZydisRegisterGetId(o->reg.value);
    switch (ZydisRegisterGetClass(o->reg.value)) {
    case ZYDIS_REGCLASS_XMM: /* a legacy instruction may leave part of its destination alone */
        if (store ? writes : reads || !vex)
            mov_xmm(e, store, vex, r);
        if (store && writes && vex)
            mov_ymmh(e, true, r); /* which VEX has zeroed */
        break;
    case ZYDIS_REGCLASS_YMM:
        if (store ? writes : reads) {
            mov_xmm(e, store, true, r);
            mov_ymmh(e, store, r);
        }
        break;
    case ZYDIS_REGCLASS_MMX:
        if (store ? writes : reads || writes)
            mov_mmx(e, store, r);
        break;
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        if (store ? writes : reads || writes)
            mov_gpr(e, store,
                    o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN ? r
                    : o->encoding == ZYDIS_OPERAND_ENCODING_MODRM_RM ? HOST_RM
                                                                     : HOST_REG,
                    r);
        break;
    default:
        break;
    }
}

static void move_operands(struct emit *e, const struct x86_dec *d, bool store)
{
    bool vex = d->zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    /* YMM registers last: loading the same register as an XMM operand clears its upper half. */
    for (unsigned ymm = 0; ymm < 2; ymm++)
        for (unsigned n = 0; n < d->zi->operand_count; n++)
            if (is_ymm(&d->op[n]) == ymm)
                move_operand(e, &d->op[n], store, vex);
}

/* Floating-point arithmetic and conversions; comparing the exception classes is conservative. */
static bool uses_mxcsr(const ZydisDecodedInstruction *zi)
{
    switch (zi->meta.exception_class) {
    case ZYDIS_EXCEPTION_CLASS_SSE2:
    case ZYDIS_EXCEPTION_CLASS_SSE3:
    case ZYDIS_EXCEPTION_CLASS_AVX2:
    case ZYDIS_EXCEPTION_CLASS_AVX3:
    case ZYDIS_EXCEPTION_CLASS_AVX11:
        return true;
    default:
        return zi->meta.category == ZYDIS_CATEGORY_CONVERT;
    }
}

static bool writes_flags(const ZydisDecodedInstruction *zi)
{
    return zi->cpu_flags && (zi->cpu_flags->modified | zi->cpu_flags->set_0 | zi->cpu_flags->set_1 |
                             zi->cpu_flags->undefined);
}

static bool reads_flags(const ZydisDecodedInstruction *zi)
{
    return zi->cpu_flags && zi->cpu_flags->tested;
}

/* OF from bit 0: 0x7f + 1 overflows; the others from AH. MOVZX EAX, [fl]; ADD AL, 0x7F; SAHF */
static void load_flags(struct emit *e)
{
    BYTES(e, 0x0f, 0xb7);
    at_rdi(e, 0, OFF(fl));
    BYTES(e, 0x04, 0x7f, 0x9e);
}

/* LAHF; SETO AL; MOV [fl], AX */
static void store_flags(struct emit *e)
{
    BYTES(e, 0x9f, 0x0f, 0x90, 0xc0, 0x66, 0x89);
    at_rdi(e, 0, OFF(fl));
}

static void load_host_mxcsr(struct emit *e, uint32_t at)
{
    BYTES(e, 0x0f, 0xae, 0x15);
    e32(e, X86_NATIVE_MXCSR_OFFSET - (at + e->len + 4));
}

static bool has_ymm(const struct x86_dec *d)
{
    for (unsigned n = 0; n < d->zi->operand_count; n++)
        if (is_ymm(&d->op[n]))
            return true;
    return false;
}

static unsigned emit_x87(struct emit *e, const struct x86_dec *d, const struct x86_stub_key *k,
                         uint32_t at)
{
    BYTES(e, 0x48, 0x0f, 0xae); /* FXRSTOR64 */
    at_rdi(e, 1, OFF(s.fpu));
    if (reads_flags(d->zi) || writes_flags(d->zi))
        load_flags(e);
    bytes(e, k->insn, k->len);
    if (writes_flags(d->zi))
        store_flags(e);
    BYTES(e, 0x48, 0x0f, 0xae); /* FXSAVE64 */
    at_rdi(e, 0, OFF(s.fpu));
    BYTES(e, 0xdb, 0xe3); /* FNINIT */
    load_host_mxcsr(e, at);
    e8(e, 0xc3);
    return e->len;
}

unsigned x86_native_emit(const struct x86_dec *d, const struct x86_stub_key *k, uint32_t at,
                         uint8_t *out)
{
    struct emit e = {out, 0};
    if (k->kind == X86_STUB_X87)
        return emit_x87(&e, d, k, at);
    bool mxcsr = uses_mxcsr(d->zi);
    move_operands(&e, d, false);
    if (mxcsr) {
        BYTES(&e, 0x0f, 0xae);
        at_rdi(&e, 2, OFF(s.fpu.mxcsr));
    }
    bytes(&e, k->insn, k->len);
    move_operands(&e, d, true); /* changes no flags */
    if (writes_flags(d->zi))
        store_flags(&e);
    if (mxcsr) {
        BYTES(&e, 0x0f, 0xae);
        at_rdi(&e, 3, OFF(s.fpu.mxcsr));
        load_host_mxcsr(&e, at);
    }
    if (k->kind == X86_STUB_MMX)
        BYTES(&e, 0x0f, 0x77); /* EMMS */
    if (has_ymm(d))
        BYTES(&e, 0xc5, 0xf8, 0x77); /* VZEROUPPER */
    e8(&e, 0xc3);
    return e.len;
}
