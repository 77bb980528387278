/*
 * simd.c - SSE and AVX instructions: copied, since the guest's registers are in the host's.
 *
 * They can raise no floating-point exceptions here: the mode says that all are masked. Those with
 * MMX registers as well are left to the interpreter's native stubs.
 */
#include "engine/jit/tr.h"

/* Instructions that access memory or registers in ways their operands do not tell. */
static bool is_special(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
    case ZYDIS_MNEMONIC_VPCMPISTRI:
        return true;
    default:
        return false;
    }
}

static bool is_zero(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_VZEROUPPER || m == ZYDIS_MNEMONIC_VZEROALL;
}

bool tr_is_simd(const struct tr *t, const struct jit_src *s)
{
    if (s->zi.mnemonic == ZYDIS_MNEMONIC_INVALID)
        return false;
    bool vex = s->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
    if (!(t->m->bits & (vex ? JIT_M_AVX : JIT_M_SSE)))
        return false;
    if (is_zero(s->zi.mnemonic))
        return tr_code64(t); /* other code has 8 registers to lose */
    bool vector = jit_has_vector(s->visible) || (s->zi.meta.category == ZYDIS_CATEGORY_CONVERT &&
                                                 (s->zi.attributes & ZYDIS_ATTRIB_HAS_MODRM));
    return vector && !jit_has(s->visible, ZYDIS_REGCLASS_MMX) && !is_special(s->zi.mnemonic) &&
           tr_generic_can(t, s);
}

bool tr_simd(struct tr *t)
{
    if (!tr_is_simd(t, t->s))
        return false;
    if (!is_zero(t->s->zi.mnemonic))
        return tr_generic(t);
    asm_u8(&t->b, 0xc5);
    asm_u8(&t->b, t->s->zi.mnemonic == ZYDIS_MNEMONIC_VZEROALL ? 0xfc : 0xf8);
    asm_u8(&t->b, 0x77);
    return true;
}
