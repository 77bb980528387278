/*
 * cpuid.h - the processor model that the guest sees: CPUID leaves and the features behind them.
 */
#ifndef SOSIA_ISA_X86_CPUID_H
#define SOSIA_ISA_X86_CPUID_H

#include "base/error.h"
#include "isa/x86/cpu.h"

/* Crystal clock of leaf 15H; guests take it for the APIC timer's input clock too. The local APIC's
 * clock must therefore run at this rate. */
#define X86_CRYSTAL_HZ 1000000000u

/* Registers of CPUID whose bits name features. */
enum x86_feature_word {
    X86_F1_ECX,
    X86_F1_EDX,
    X86_F7_EBX,
    X86_F7_ECX,
    X86_F7_EDX,
    X86_FD1_EAX,  /* leaf 0DH, subleaf 1 */
    X86_F8_1_ECX, /* leaf 80000001H */
    X86_F8_1_EDX,
    X86_NFEATURE_WORDS,
};

struct x86_model {
    char name[16];      /* "Sosia-v3" */
    char brand[49];     /* leaves 80000002H..4H; NUL-terminated */
    uint32_t signature; /* leaf 1 EAX: family, model, stepping; EDX after reset */
    uint64_t tsc_hz;
    uint32_t feature[X86_NFEATURE_WORDS];
    uint64_t xcr0_mask; /* state components that XSETBV may enable */
    uint64_t cr4_mask;  /* bits of CR4 that are not reserved */
    uint64_t efer_mask;
};

/* Bits that the code asks for: word and bit in one number. */
#define X86_FEATURE(word, bit) ((word)*32u + (bit))
#define X86_HAS_PCID           X86_FEATURE(X86_F1_ECX, 17)
#define X86_HAS_XSAVE          X86_FEATURE(X86_F1_ECX, 26)
#define X86_HAS_FSGSBASE       X86_FEATURE(X86_F7_EBX, 0)
#define X86_HAS_INVPCID        X86_FEATURE(X86_F7_EBX, 10)
#define X86_HAS_SMAP           X86_FEATURE(X86_F7_EBX, 20)
#define X86_HAS_XGETBV1        X86_FEATURE(X86_FD1_EAX, 2)
#define X86_HAS_POPCNT         X86_FEATURE(X86_F1_ECX, 23)
#define X86_HAS_RDRAND         X86_FEATURE(X86_F1_ECX, 30)
#define X86_HAS_BMI1           X86_FEATURE(X86_F7_EBX, 3)
#define X86_HAS_RDSEED         X86_FEATURE(X86_F7_EBX, 18)
#define X86_HAS_ADX            X86_FEATURE(X86_F7_EBX, 19)
#define X86_HAS_LZCNT          X86_FEATURE(X86_F8_1_ECX, 5)

static inline bool x86_model_has(const struct x86_model *m, unsigned feature)
{
    return m->feature[feature / 32] >> (feature % 32) & 1;
}

/* Whether the host's processor has the feature: for instructions that are carried out by the same
 * one of the host. Any thread; asks the processor once, since CPUID traps in virtual machines. */
bool x86_host_has(unsigned feature);

/* Fills the model with everything that Sosia offers and this host can execute. tsc_hz is the rate
 * of the machine's TSC; the guest is told it exactly if it is a multiple of 1 MHz below 4.29 GHz,
 * and has to measure it otherwise. ERR_HOST if the host lacks what x86-64 itself needs; ERR_LIMIT
 * if tsc_hz is absurd. */
int x86_model_init(struct x86_model *m, uint64_t tsc_hz, struct error *e);

extern const struct field_table x86_model_fields;
/* For a guest that has been running on another host: *m, which is this host's, becomes what it was
 * there. ERR_HOST: this host lacks something of it. */
int x86_model_adopt(struct x86_model *m, const struct x86_model *saved, struct error *e);

/* CPUID as vCPU `c` sees it at this moment (OSXSAVE, APIC id, enabled XSAVE size). out: EAX EBX ECX
 * EDX. */
void x86_cpuid(const struct x86_cpu *c, uint32_t leaf, uint32_t sub, uint32_t out[4]);

#endif
