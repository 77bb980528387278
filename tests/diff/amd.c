/*
 * amd.c - where AMD's processors do not do what Intel's do. The engine, whose CPUID says Intel,
 * follows the SDM and Intel's processors; so that a test on AMD's can agree, what the processor did
 * is adapted, by one rule for each known peculiarity, and compared again. On other processors
 * nothing of this is used.
 *
 * The APM is AMD's Architecture Programmer's Manual (volume 2: system, 3: general instructions, 4:
 * SSE and AVX, 5: MMX and x87). A rule changes nothing that its peculiarity does not explain.
 */
#include <cpuid.h>
#include <stdio.h>
#include <string.h>

#include "diff.h"

#define M(name) ZYDIS_MNEMONIC_##name
#define ARITH   (X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_ZF | X86_FL_SF | X86_FL_OF)
#define FSW_ES  0x80u
#define TOP     0x3800u /* in FSW */

struct look {
    const struct insn *i;
    const struct input *in;
    struct output *nat;
    const struct output *gst;
};

enum verdict { NOT_THAT, ADAPTED, ACCEPTED };

static bool is_mem(const ZydisDecodedOperand *o)
{
    return o->type == ZYDIS_OPERAND_TYPE_MEMORY;
}

static bool is_reg(const ZydisDecodedOperand *o, ZydisRegisterClass c)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o->reg.value) == c;
}

/* Before the instruction; the indices of a gather do not count. */
static uint64_t effective_address(const struct look *k, const ZydisDecodedOperand *o)
{
    const ZydisDecodedOperandMem *m = &o->mem;
    unsigned width = k->i->zi.address_width; /* not the stack's */
    if (m->base != ZYDIS_REGISTER_NONE)
        width = ZydisRegisterGetWidth(k->i->zi.machine_mode, m->base);
    uint64_t disp = m->disp.has_displacement ? (uint64_t)m->disp.value : 0;
    uint64_t index = get_reg(&k->in->r, m->index) * m->scale;
    uint64_t ea = get_reg(&k->in->r, m->base) + index + disp;
    return ea & ~0ull >> (64 - width);
}

/* The instruction was not executed. */
static bool faulted(const struct look *k, const struct output *o)
{
    return o->r.rip == k->in->r.rip &&
           (o->vector == X86_PF || o->vector == X86_GP || o->vector == X86_SSF ||
            o->vector == X86_AC || o->vector == X86_NP);
}

static bool both_faulted(const struct look *k)
{
    return faulted(k, k->nat) && faulted(k, k->gst);
}

static bool only_native_faulted(const struct look *k)
{
    return faulted(k, k->nat) && !faulted(k, k->gst);
}

static void same_exception(const struct look *k)
{
    k->nat->vector = k->gst->vector;
    k->nat->error = k->gst->error;
    k->nat->cr2 = k->gst->cr2;
}

/* Where the data differ: first byte, and number of bytes to the last. */
static unsigned data_span(const struct look *k, unsigned *first)
{
    unsigned from = 0, to = DATA_SIZE;
    while (from < to && k->nat->data[from] == k->gst->data[from])
        from++;
    while (to > from && k->nat->data[to - 1] == k->gst->data[to - 1])
        to--;
    *first = from;
    return to - from;
}

/* ---- memory operands ---- */

/* An unmasked x87 error keeps Intel's from accessing the operand. */
static enum verdict x87_store(const struct look *k)
{
    bool error = (k->gst->r.fpu.fsw & FSW_ES) && !(k->in->r.fpu.fsw & FSW_ES);
    return is_mem(&k->i->op[0]) && only_native_faulted(k) && error ? ACCEPTED : NOT_THAT;
}

/* A store of ten bytes is two, and the first of them may have been done. */
static enum verdict half_store80(const struct look *k)
{
    unsigned first, span = data_span(k, &first);
    if (!both_faulted(k) || k->i->op[0].size != 80 || !span || span > 10)
        return NOT_THAT;
    memcpy(k->nat->data + first, k->gst->data + first, span);
    return ADAPTED;
}

static enum verdict misaligned(const struct look *k)
{
    bool large = k->i->zi.mnemonic == M(VCVTPH2PS) || k->i->zi.mnemonic == M(VCVTPS2PH);
    for (unsigned n = 0; n < k->i->zi.operand_count; n++)
        large |= is_mem(&k->i->op[n]) && k->i->op[n].size >= 128;
    return large && k->nat->vector == X86_AC && k->gst->vector != X86_AC ? ACCEPTED : NOT_THAT;
}

static enum verdict sha(const struct look *k)
{
    bool mem = is_mem(&k->i->op[1]) && k->i->zi.meta.isa_set == ZYDIS_ISA_SET_SHA;
    bool gp = k->gst->vector == X86_GP && faulted(k, k->gst);
    return mem && gp && k->nat->vector != X86_GP ? ACCEPTED : NOT_THAT;
}

static enum verdict whole_slot(const struct look *k)
{
    bool segment = is_reg(&k->i->op[0], ZYDIS_REGCLASS_SEGMENT);
    bool movsxd = k->i->zi.mnemonic == M(MOVSXD);
    bool wide = movsxd ? k->i->op[0].size == 16 : segment;
    bool access = k->nat->vector == X86_PF || k->nat->vector == X86_AC ||
                  k->nat->vector == X86_SSF || (movsxd && k->nat->vector == X86_GP);
    bool alone = !faulted(k, k->gst) || k->nat->vector != k->gst->vector;
    return wide && access && faulted(k, k->nat) && alone ? ACCEPTED : NOT_THAT;
}

static enum verdict push_segment(const struct look *k)
{
    static const uint8_t zero[6];
    unsigned first, span = data_span(k, &first);
    if (!is_reg(&k->i->op[0], ZYDIS_REGCLASS_SEGMENT) || !span || span > sizeof zero ||
        memcmp(k->nat->data + first, zero, span) != 0)
        return NOT_THAT;
    memcpy(k->nat->data + first, k->gst->data + first, span);
    return ADAPTED;
}

static enum verdict bound(const struct look *k)
{
    return only_native_faulted(k) && k->gst->vector == X86_BR ? ACCEPTED : NOT_THAT;
}

static enum verdict order_of_faults(const struct look *k)
{
    bool several = k->i->zi.mnemonic == M(ENTER) || k->i->op[0].size == 80 ||
                   (k->i->zi.attributes &
                    (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE));
    if (!both_faulted(k) || !several)
        return NOT_THAT;
    same_exception(k);
    return ADAPTED;
}

/* Does it cross 4 GiB? */
static bool crosses(const struct look *k, const ZydisDecodedOperand *o)
{
    uint32_t size = mem_size(k->i, o), left = 0u - (uint32_t)k->gst->cr2;
    if (k->gst->vector == X86_PF) /* BT, PUSH, ENTER: not where the registers point to */
        return left && left < size;
    bool pushed = o->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
                  o->mem.base == ZYDIS_REGISTER_ESP &&
                  (o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
    uint64_t ea = effective_address(k, o);
    return (pushed ? (uint32_t)(ea - size) : ea) + (uint64_t)size > 1ull << 32;
}

static enum verdict beyond_4g(const struct look *k)
{
    bool limit = (k->nat->vector == X86_GP || k->nat->vector == X86_SSF) && !k->nat->error;
    bool other = k->gst->vector == X86_PF || k->gst->vector == X86_AC;
    bool crossing = false;
    for (unsigned n = 0; n < k->i->zi.operand_count; n++)
        crossing |= is_mem(&k->i->op[n]) && crosses(k, &k->i->op[n]);
    if (!both_faulted(k) || !limit || !other || !crossing ||
        k->i->zi.machine_mode == ZYDIS_MACHINE_MODE_LONG_64)
        return NOT_THAT;
    same_exception(k);
    return ADAPTED;
}

static enum verdict alignment_first(const struct look *k)
{
    bool large = false;
    for (unsigned n = 0; n < k->i->zi.operand_count; n++) {
        const ZydisDecodedOperand *o = &k->i->op[n];
        large |= is_mem(o) && o->size >= 128 && (effective_address(k, o) & (o->size / 8u - 1));
    }
    if (!both_faulted(k) || k->nat->vector != X86_GP || k->gst->vector != X86_SSF || !large)
        return NOT_THAT;
    same_exception(k);
    return ADAPTED;
}

static enum verdict masked_elements(const struct look *k)
{
    bool limit = k->gst->vector == X86_GP || k->gst->vector == X86_SSF;
    bool crossing = false;
    for (unsigned n = 0; n < k->i->zi.operand_count; n++)
        crossing |= is_mem(&k->i->op[n]) &&
                    effective_address(k, &k->i->op[n]) + mem_size(k->i, &k->i->op[n]) > 0x10000;
    return limit && faulted(k, k->gst) && crossing && k->i->zi.address_width == 16 ? ACCEPTED
                                                                                   : NOT_THAT;
}

static enum verdict not_canonical(const struct look *k)
{
    bool is = false;
    for (unsigned n = 0; n < k->i->zi.operand_count; n++) {
        const ZydisDecodedOperand *o = &k->i->op[n];
        if (!is_mem(o) ||
            (o->mem.segment != ZYDIS_REGISTER_FS && o->mem.segment != ZYDIS_REGISTER_GS))
            continue;
        uint64_t ea = effective_address(k, o);
        is |= o->mem.type == ZYDIS_MEMOP_TYPE_VSIB || (uint64_t)((int64_t)(ea << 16) >> 16) != ea;
    }
    bool other = k->gst->vector == X86_PF || k->gst->vector == X86_AC;
    if (!both_faulted(k) || k->nat->vector != X86_GP || !other || !is)
        return NOT_THAT;
    same_exception(k);
    return ADAPTED;
}

/* ---- what was done before a fault ---- */

static enum verdict call_target(const struct look *k)
{
    unsigned first, span = data_span(k, &first);
    if (!both_faulted(k) || k->nat->vector != X86_GP || !span || span > 8)
        return NOT_THAT;
    memcpy(k->nat->data + first, k->gst->data + first, span);
    return ADAPTED;
}

static enum verdict mmx_store(const struct look *k)
{
    struct x86_xsave *nat = &k->nat->r.fpu;
    const struct x86_xsave *gst = &k->gst->r.fpu, *in = &k->in->r.fpu;
    if (!both_faulted(k) || !is_reg(&k->i->op[1], ZYDIS_REGCLASS_MMX) || nat->fsw != in->fsw ||
        (gst->fsw & TOP))
        return NOT_THAT;
    unsigned top = nat->fsw >> 11 & 7;
    nat->fsw = (uint16_t)(nat->fsw & ~TOP);
    uint8_t st[8][16];
    for (unsigned n = 0; n < 8; n++) /* in stack order: physical register n */
        memcpy(st[n], nat->st[(n - top) & 7], 16);
    memcpy(nat->st, st, sizeof st);
    return ADAPTED;
}

static enum verdict convert_store(const struct look *k)
{
    if (faulted(k, k->nat) && k->gst->vector == X86_XM)
        return ACCEPTED;
    if (!both_faulted(k))
        return NOT_THAT;
    k->nat->r.fpu.mxcsr |= k->gst->r.fpu.mxcsr & 0x3f;
    return ADAPTED;
}

/* Intel's have made the mask's elements zeros or ones by then, and cleared its upper half; the
 * destination's, too, once an element is loaded. */
static enum verdict gather(const struct look *k)
{
    static const uint8_t zero[16];
    struct x86_xsave *f = &k->nat->r.fpu;
    if (k->i->zi.meta.category != ZYDIS_CATEGORY_AVX2GATHER || !both_faulted(k))
        return NOT_THAT;
    unsigned dst = (unsigned)ZydisRegisterGetId(k->i->op[0].reg.value);
    unsigned r = (unsigned)ZydisRegisterGetId(k->i->op[2].reg.value);
    unsigned size = k->i->zi.raw.vex.W ? 8 : 4;
    bool half = !k->i->zi.raw.vex.L;
    for (unsigned at = 0; at < (half ? 16 : 32); at += size) {
        uint8_t *p = at < 16 ? &f->xmm[r][at] : &f->ymmh[r][at - 16];
        memset(p, p[size - 1] >> 7 ? 0xff : 0, size);
    }
    if (half)
        memset(f->ymmh[r], 0, 16);
    if (is_reg(&k->i->op[0], ZYDIS_REGCLASS_XMM) && memcmp(k->gst->r.fpu.ymmh[dst], zero, 16) == 0)
        memset(f->ymmh[dst], 0, 16);
    return ADAPTED;
}

/* ---- REP ---- */

static bool repeated(const struct look *k)
{
    return k->i->zi.attributes &
           (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
}

/* Intel's have cut them even if the first iteration faults, or there is none. */
static enum verdict cut_registers(const struct look *k)
{
    static const uint8_t used[] = {X86_RCX, X86_RSI, X86_RDI};
    if (!repeated(k) || k->i->zi.address_width != 32)
        return NOT_THAT;
    for (unsigned n = 0; n < ARRAY_LEN(used); n++) {
        uint64_t *v = &k->nat->r.gpr[used[n]];
        if (*v == k->in->r.gpr[used[n]] && k->gst->r.gpr[used[n]] == (uint32_t)*v)
            *v = (uint32_t)*v;
    }
    return ADAPTED;
}

static enum verdict interrupted_string(const struct look *k)
{
    uint64_t take = 0;
    if (!repeated(k) || k->nat->r.rip != k->in->r.rip || k->gst->r.rip != k->in->r.rip)
        return NOT_THAT;
    if (k->nat->vector == X86_DB)
        take |= X86_FL_RF;
    if (k->i->zi.attributes & (ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        take |= ARITH;
    k->nat->r.rflags = (k->nat->r.rflags & ~take) | (k->gst->r.rflags & take);
    return ADAPTED;
}

/* ---- encodings ---- */

static enum verdict undefined_nop(const struct look *k)
{
    bool prefetch = k->i->zi.opcode_map == ZYDIS_OPCODE_MAP_0F && k->i->zi.opcode == 0x0d;
    return prefetch && k->i->zi.raw.modrm.mod == 3 && k->nat->vector == X86_UD ? ACCEPTED
                                                                               : NOT_THAT;
}

/* Where not all of the instruction is mapped. */
static enum verdict undefined_short(const struct look *k)
{
    bool fetch = k->gst->vector == X86_PF && (k->gst->error & X86_PF_I);
    return k->nat->vector == X86_UD && fetch ? ACCEPTED : NOT_THAT;
}

static enum verdict far_pointer(const struct look *k)
{
    return k->i->zi.attributes & ZYDIS_ATTRIB_HAS_REX && k->i->zi.raw.rex.W ? ACCEPTED : NOT_THAT;
}

static enum verdict int1(const struct look *k)
{
    if (k->nat->vector != X86_DB || k->nat->r.rip != k->in->r.rip)
        return NOT_THAT;
    k->nat->r.rip += k->in->len;
    return ADAPTED;
}

/* ---- the x87 pointers ---- */

/* Zeros in an image instead of the pointers, which the instruction itself does not change. */
static enum verdict saved_pointers(const struct look *k)
{
    static const uint8_t hidden[18];
    const struct x86_xsave *f = &k->in->r.fpu;
    uint8_t want[18];
    if (!freedom_pointers(f))
        return NOT_THAT;
    memcpy(want, &f->fop, 2);
    memcpy(want + 2, &f->fip, 8); /* 32 bits in all modes: random_fpu() */
    memcpy(want + 10, &f->fdp, 8);
    for (unsigned at = 6; at + sizeof want <= DATA_SIZE; at += 16)
        if (memcmp(k->nat->data + at, hidden, sizeof hidden) == 0 &&
            memcmp(k->gst->data + at, want, sizeof want) == 0)
            memcpy(k->nat->data + at, want, sizeof want);
    return ADAPTED;
}

/* MXCSR.MM, in what is loaded, and in MXCSR_MASK. */
static enum verdict misaligned_mode(const struct look *k)
{
    const uint32_t mm = 0x20000, mask = 0xffff;
    if (k->gst->vector == X86_GP && faulted(k, k->gst) && (k->nat->r.fpu.mxcsr & mm))
        return ACCEPTED;
    for (unsigned at = 28; at + 4 <= DATA_SIZE; at += 16) {
        uint32_t nat, gst;
        memcpy(&nat, k->nat->data + at, 4);
        memcpy(&gst, k->gst->data + at, 4);
        if (nat == (mask | mm) && gst == mask)
            memcpy(k->nat->data + at, &gst, 4);
    }
    return ADAPTED;
}

static enum verdict whole_area(const struct look *k)
{
    bool legacy = k->in->r.gpr[X86_RAX] & (X86_XCR0_X87 | X86_XCR0_SSE);
    return only_native_faulted(k) && k->nat->vector == X86_PF && !legacy ? ACCEPTED : NOT_THAT;
}

/* ---- the table ---- */

struct rule {
    enum verdict (*adapt)(const struct look *k);
    ZydisMnemonic only[13]; /* none: any instruction that the function recognizes */
    const char *what;
};

static const struct rule rules[] = {
    {saved_pointers,
     {M(FXSAVE), M(FXSAVE64), M(XSAVE), M(XSAVE64), M(XSAVEOPT), M(XSAVEOPT64), M(XSAVEC),
      M(XSAVEC64)},
     "x87 pointers are saved as zeros unless an error is pending: APM 2, 11.4.4"},
    {whole_area,
     {M(XSAVE), M(XSAVE64), M(XSAVEOPT), M(XSAVEOPT64), M(XSAVEC), M(XSAVEC64)},
     "XSAVE needs the legacy region writable even if nothing in it is requested"},
    {misaligned_mode,
     {M(XSAVE), M(XSAVE64), M(XSAVEOPT), M(XSAVEOPT64), M(XSAVEC), M(XSAVEC64), M(LDMXCSR),
      M(VLDMXCSR), M(XRSTOR), M(XRSTOR64)},
     "MXCSR has a bit 17: APM 4, misaligned exception mask; reserved in SDM 1, 10.2.3"},
    {x87_store,
     {M(FST), M(FSTP), M(FIST), M(FISTP), M(FISTTP), M(FBSTP)},
     "a fault of the operand goes before an unmasked x87 error: order not defined, SDM 3, 6.9"},
    {half_store80,
     {M(FSTP), M(FBSTP)},
     "a store of ten bytes that faults may have stored eight: SDM 1, 8.3.3 leaves it open"},
    {misaligned,
     {0},
     "operands of 16 bytes and more are checked if AC is set: SDM 2, MOVUPS leaves it open"},
    {sha, {0}, "SHA's operand need not be aligned: APM 4; SDM 2 has exception type 4"},
    {whole_slot,
     {M(PUSH), M(POP), M(MOVSXD)},
     "PUSH and POP of a segment and MOVSXD with 66 access all of the operand, not 16 bits"},
    {push_segment,
     {M(PUSH)},
     "PUSH of a segment writes zeros beyond its 16 bits: SDM 2, PUSH allows both"},
    {bound, {M(BOUND)}, "both bounds are read before they are compared: order not defined"},
    {order_of_faults,
     {M(ENTER), M(CMPSB), M(CMPSW), M(CMPSD), M(CMPSQ), M(MOVSB), M(MOVSW), M(MOVSD), M(MOVSQ),
      M(FLD), M(FSTP), M(FBLD), M(FBSTP)},
     "which of two faults is first: order not defined"},
    {beyond_4g,
     {0},
     "an operand that crosses 4 GiB exceeds the segment's limit: SDM 3, 5.3 leaves it open"},
    {alignment_first,
     {0},
     "alignment goes before the limit of the stack's segment: order not defined"},
    {masked_elements,
     {M(VMASKMOVPS), M(VMASKMOVPD), M(VPMASKMOVD), M(VPMASKMOVQ)},
     "with 16-bit addresses, elements beyond 64 KiB are those at 0: not defined"},
    {not_canonical,
     {0},
     "with FS and GS, the address must be canonical before the base is added, too"},
    {call_target, {M(CALL)}, "a bad target is noticed before the return address is pushed"},
    {mmx_store,
     {M(MOVD), M(MOVQ), M(MOVNTQ)},
     "an MMX store that faults has not touched TOP and the tags"},
    {convert_store,
     {M(VCVTPS2PH)},
     "the operand of VCVTPS2PH may fault before MXCSR has the flags, and before #XM"},
    {gather, {0}, "a gather that faults leaves the mask's elements and upper halves as they are"},
    {interrupted_string,
     {0},
     "REP between iterations: RF is clear in a trap's image, CMPS and SCAS have set the flags"},
    {cut_registers, {0}, "REP with 67 cuts the registers after the first iteration only"},
    {undefined_nop, {M(NOP)}, "0F 0D with a register is #UD: APM 3, PREFETCH"},
    {undefined_short, {M(UD0), M(UD1)}, "UD0 and UD1 are #UD before their operand is fetched"},
    {far_pointer, {M(LSS), M(LFS), M(LGS)}, "REX.W does not make the pointer wide: APM 3, LDS"},
    {int1, {M(INT1)}, "hypervisors that intercept #DB report it at the instruction: APM 2, 15.12"},
};

static bool concerns(const struct rule *r, ZydisMnemonic m)
{
    bool any = r->only[0] == M(INVALID);
    for (unsigned n = 0; n < ARRAY_LEN(r->only); n++)
        any |= r->only[n] != M(INVALID) && r->only[n] == m;
    return any;
}

bool amd_host(void)
{
    static int amd = -1;
    if (amd < 0) {
        unsigned a, b = 0, c, d;
        amd = __get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx;
    }
    return amd;
}

bool amd_adapt(const struct insn *i, const struct input *in, struct output *nat,
               const struct output *gst)
{
    const struct look k = {i, in, nat, gst};
    for (unsigned n = 0; n < ARRAY_LEN(rules); n++)
        if (concerns(&rules[n], i->zi.mnemonic) && rules[n].adapt(&k) == ACCEPTED)
            return true;
    return false;
}

void amd_print(void)
{
    for (unsigned n = 0; n < ARRAY_LEN(rules); n++)
        printf("on AMD's processors: %s\n", rules[n].what);
}
