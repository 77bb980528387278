/*
 * native_isa.c - which SIMD and x87 instruction sets the processor model offers.
 *
 * An allow-list: what is not here (AVX-512, AMX, XOP, SSE4a, 3DNow ...) is #UD for the guest
 * whatever the host can do.
 */
#include "isa/x86/cpuid.h"
#include "isa/x86/native.h"

#define NEVER 0xffffu

static unsigned feature_of(ZydisISASet set)
{
    switch (set) {
    case ZYDIS_ISA_SET_X87:
    case ZYDIS_ISA_SET_FCMOV:
    case ZYDIS_ISA_SET_PPRO: /* FCOMI and relatives */
        return X86_FEATURE(X86_F1_EDX, 0);
    case ZYDIS_ISA_SET_PENTIUMMMX:
        return X86_FEATURE(X86_F1_EDX, 23);
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSEMXCSR:
        return X86_FEATURE(X86_F1_EDX, 25);
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX:
        return X86_FEATURE(X86_F1_EDX, 26);
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87:
        return X86_FEATURE(X86_F1_ECX, 0);
    case ZYDIS_ISA_SET_PCLMULQDQ:
        return X86_FEATURE(X86_F1_ECX, 1);
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX:
        return X86_FEATURE(X86_F1_ECX, 9);
    case ZYDIS_ISA_SET_FMA:
        return X86_FEATURE(X86_F1_ECX, 12);
    case ZYDIS_ISA_SET_SSE4:
        return X86_FEATURE(X86_F1_ECX, 19);
    case ZYDIS_ISA_SET_SSE42:
        return X86_FEATURE(X86_F1_ECX, 20);
    case ZYDIS_ISA_SET_AES:
    case ZYDIS_ISA_SET_AVXAES:
        return X86_FEATURE(X86_F1_ECX, 25);
    case ZYDIS_ISA_SET_AVX:
        return X86_FEATURE(X86_F1_ECX, 28);
    case ZYDIS_ISA_SET_F16C:
        return X86_FEATURE(X86_F1_ECX, 29);
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER:
        return X86_FEATURE(X86_F7_EBX, 5);
    case ZYDIS_ISA_SET_SHA:
        return X86_FEATURE(X86_F7_EBX, 29);
    case ZYDIS_ISA_SET_VAES:
        return X86_FEATURE(X86_F7_ECX, 9);
    case ZYDIS_ISA_SET_VPCLMULQDQ:
        return X86_FEATURE(X86_F7_ECX, 10);
    default:
        return NEVER;
    }
}

bool x86_model_has_isa(const struct x86_model *m, ZydisISAExt ext, ZydisISASet set)
{
    unsigned f = feature_of(set);
    if (f == NEVER || !m || !x86_model_has(m, f))
        return false;
    return ext != ZYDIS_ISA_EXT_AVXAES || x86_model_has(m, X86_FEATURE(X86_F1_ECX, 28));
}
