/*
 * cpuid.c - the processor model "Sosia-v3": x86-64-v3 as far as the host executes it, and
 * everything that the software CPU implements by itself.
 *
 * Identity: an Ice Lake server part, so that a guest's tables of errata and topology fit what is
 * offered. Topology: one socket, as many cores as vCPUs, one thread each.
 */
#include "isa/x86/cpuid.h"

#include <cpuid.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "isa/x86/kvm_pv.h"
#include "isa/x86/priv.h"

#define SIGNATURE    0x606a6u /* family 6, model 6AH, stepping 6 */
#define LEAF_MAX     0x16u
#define LEAF_HV      0x40000000u
#define LEAF_HV_KVM  0x40000001u
#define LEAF_HV_TIME 0x40000010u
#define LEAF_EXT     0x80000000u
#define LEAF_EXT_MAX 0x80000008u

/* Leaf 7, subleaf 2, EDX: SPEC_CTRL has BHI_DIS_S. Kernels that find neither this nor an older
 * processor clear the branch history by a loop at every system call, whatever ARCH_CAPABILITIES
 * says. */
#define LEAF7_2_BHI_CTRL (1u << 4)

#define MSR_APIC_BASE    0x1bu
#define APIC_BASE_ENABLE (1u << 11)

/* Who executes what the feature stands for. */
enum source {
    OURS,     /* the software CPU, on any host */
    HOST,     /* the host's own instructions */
    HOST_AVX, /* the same, and they need AVX state */
    BASE,     /* the host's, and without them there is no x86-64 */
};

struct feature {
    uint8_t word, bit, source;
    const char *name;
};

static const struct feature features[] = {
    {X86_F1_EDX, 0, BASE, "fpu"},
    {X86_F1_EDX, 1, OURS, "vme"},
    {X86_F1_EDX, 2, OURS, "de"},
    {X86_F1_EDX, 3, OURS, "pse"},
    {X86_F1_EDX, 4, OURS, "tsc"},
    {X86_F1_EDX, 5, OURS, "msr"},
    {X86_F1_EDX, 6, OURS, "pae"},
    {X86_F1_EDX, 7, OURS, "mce"},
    {X86_F1_EDX, 8, BASE, "cx8"},
    {X86_F1_EDX, 9, OURS, "apic"},
    {X86_F1_EDX, 11, OURS, "sep"},
    {X86_F1_EDX, 12, OURS, "mtrr"},
    {X86_F1_EDX, 13, OURS, "pge"},
    {X86_F1_EDX, 14, OURS, "mca"},
    {X86_F1_EDX, 15, BASE, "cmov"},
    {X86_F1_EDX, 16, OURS, "pat"},
    {X86_F1_EDX, 17, OURS, "pse36"},
    {X86_F1_EDX, 19, OURS, "clflush"},
    {X86_F1_EDX, 23, BASE, "mmx"},
    {X86_F1_EDX, 24, BASE, "fxsr"},
    {X86_F1_EDX, 25, BASE, "sse"},
    {X86_F1_EDX, 26, BASE, "sse2"},
    {X86_F1_ECX, 0, HOST, "sse3"},
    {X86_F1_ECX, 1, HOST, "pclmulqdq"},
    {X86_F1_ECX, 9, HOST, "ssse3"},
    {X86_F1_ECX, 12, HOST_AVX, "fma"},
    {X86_F1_ECX, 13, HOST, "cx16"},
    {X86_F1_ECX, 17, OURS, "pcid"},
    {X86_F1_ECX, 19, HOST, "sse4_1"},
    {X86_F1_ECX, 20, HOST, "sse4_2"},
    {X86_F1_ECX, 22, HOST, "movbe"},
    {X86_F1_ECX, 23, HOST, "popcnt"},
    {X86_F1_ECX, 24, OURS, "tsc_deadline"},
    {X86_F1_ECX, 25, HOST, "aes"},
    {X86_F1_ECX, 26, OURS, "xsave"},
    {X86_F1_ECX, 28, HOST_AVX, "avx"},
    {X86_F1_ECX, 29, HOST_AVX, "f16c"},
    {X86_F1_ECX, 30, HOST, "rdrand"},
    {X86_F1_ECX, 31, OURS, "hypervisor"},
    {X86_F7_EBX, 0, OURS, "fsgsbase"},
    {X86_F7_EBX, 1, OURS, "tsc_adjust"},
    {X86_F7_EBX, 3, HOST, "bmi1"},
    {X86_F7_EBX, 5, HOST_AVX, "avx2"},
    {X86_F7_EBX, 6, HOST, "fdp_excptn_only"},
    {X86_F7_EBX, 7, OURS, "smep"},
    {X86_F7_EBX, 8, HOST, "bmi2"},
    {X86_F7_EBX, 9, OURS, "erms"},
    {X86_F7_EBX, 10, OURS, "invpcid"},
    {X86_F7_EBX, 13, HOST, "zero_fcs_fds"},
    {X86_F7_EBX, 18, HOST, "rdseed"},
    {X86_F7_EBX, 19, HOST, "adx"},
    {X86_F7_EBX, 20, OURS, "smap"},
    {X86_F7_EBX, 23, OURS, "clflushopt"},
    {X86_F7_EBX, 24, OURS, "clwb"},
    {X86_F7_EBX, 29, HOST, "sha"},
    {X86_F7_ECX, 2, OURS, "umip"},
    {X86_F7_ECX, 9, HOST_AVX, "vaes"},
    {X86_F7_ECX, 10, HOST_AVX, "vpclmulqdq"},
    {X86_F7_ECX, 22, OURS, "rdpid"},
    {X86_F7_EDX, 4, OURS, "fsrm"},
    {X86_F7_EDX, 26, OURS, "spec_ctrl"},
    {X86_F7_EDX, 29, OURS, "arch_capabilities"},
    {X86_FD1_EAX, 0, OURS, "xsaveopt"},
    {X86_FD1_EAX, 1, OURS, "xsavec"},
    {X86_FD1_EAX, 2, OURS, "xgetbv1"},
    {X86_F8_1_ECX, 0, HOST, "lahf_lm"},
    {X86_F8_1_ECX, 5, HOST, "lzcnt"},
    {X86_F8_1_ECX, 8, OURS, "prefetchw"},
    {X86_F8_1_EDX, 11, OURS, "syscall"},
    {X86_F8_1_EDX, 20, OURS, "nx"},
    {X86_F8_1_EDX, 26, OURS, "pdpe1gb"},
    {X86_F8_1_EDX, 27, OURS, "rdtscp"},
    {X86_F8_1_EDX, 29, OURS, "lm"},
};

/* ---- the host ---- */

static uint64_t host_xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

/* Feature words of the host; *avx: the OS has enabled AVX state. */
static void host_features(uint32_t w[X86_NFEATURE_WORDS], bool *avx)
{
    uint32_t a, b, c, d;
    memset(w, 0, X86_NFEATURE_WORDS * sizeof *w);
    *avx = false;
    if (__get_cpuid(1, &a, &b, &c, &d)) {
        w[X86_F1_ECX] = c;
        w[X86_F1_EDX] = d;
        const uint64_t need = X86_XCR0_SSE | X86_XCR0_AVX;
        if ((c >> 27 & 1) && (c >> 28 & 1))
            *avx = (host_xcr0() & need) == need;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        w[X86_F7_EBX] = b;
        w[X86_F7_ECX] = c;
        w[X86_F7_EDX] = d;
    }
    if (__get_cpuid(LEAF_EXT + 1, &a, &b, &c, &d)) {
        w[X86_F8_1_ECX] = c;
        w[X86_F8_1_EDX] = d;
    }
}

static uint32_t host_words[X86_NFEATURE_WORDS];

static void ask_host(void)
{
    bool avx;
    host_features(host_words, &avx);
}

bool x86_host_has(unsigned feature)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, ask_host);
    return host_words[feature / 32] >> (feature % 32) & 1;
}

static int choose_features(struct x86_model *m, struct error *e)
{
    uint32_t host[X86_NFEATURE_WORDS];
    bool avx;
    host_features(host, &avx);
    for (unsigned n = 0; n < ARRAY_LEN(features); n++) {
        const struct feature *f = &features[n];
        bool has = f->source == OURS || (host[f->word] >> f->bit & 1);
        if (f->source == HOST_AVX)
            has = has && avx;
        if (!has && f->source == BASE)
            return error_set(e, ERR_HOST, "this host's processor lacks %s, which x86-64 needs",
                             f->name);
        if (has)
            m->feature[f->word] |= 1u << f->bit;
    }
    return 0;
}

int x86_model_init(struct x86_model *m, uint64_t tsc_hz, struct error *e)
{
    memset(m, 0, sizeof *m);
    if (tsc_hz < 1000000 || tsc_hz > 100000000000ull)
        return error_set(e, ERR_LIMIT, "a TSC frequency of %llu Hz is out of range",
                         (unsigned long long)tsc_hz);
    snprintf(m->name, sizeof m->name, "Sosia-v3");
    snprintf(m->brand, sizeof m->brand, "Sosia virtual CPU @ %u.%02uGHz",
             (unsigned)(tsc_hz / 1000000000), (unsigned)(tsc_hz / 10000000 % 100));
    m->signature = SIGNATURE;
    m->tsc_hz = tsc_hz;
    int rc = choose_features(m, e);
    if (rc)
        return rc;
    m->xcr0_mask = X86_XCR0_X87 | X86_XCR0_SSE;
    if (m->feature[X86_F1_ECX] >> 28 & 1)
        m->xcr0_mask |= X86_XCR0_AVX;
    m->cr4_mask = X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE |
                  X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT |
                  X86_CR4_UMIP | X86_CR4_FSGSBASE | X86_CR4_PCIDE | X86_CR4_OSXSAVE | X86_CR4_SMEP |
                  X86_CR4_SMAP;
    m->efer_mask = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    return 0;
}

/* ---- leaves ---- */

enum { A, B, C, D };

/* Bits that number the cores of the socket in an APIC id. */
static unsigned core_bits(const struct x86_cpu *c)
{
    unsigned bits = 0;
    while (1u << bits < c->ncpus)
        bits++;
    return bits;
}

static void leaf_vendor(const char *s, uint32_t *r0, uint32_t *r1, uint32_t *r2)
{
    memcpy(r0, s, 4);
    memcpy(r1, s + 4, 4);
    memcpy(r2, s + 8, 4);
}

static void leaf_features(const struct x86_cpu *c, uint32_t o[4])
{
    const struct x86_model *m = c->model;
    o[A] = m->signature;
    o[B] = (c->index & 0xff) << 24 | (1u << core_bits(c) & 0xff) << 16 | 8 << 8; /* CLFLUSH: 8*8 */
    o[C] = m->feature[X86_F1_ECX] | (c->s.cr4 & X86_CR4_OSXSAVE ? 1u << 27 : 0);
    o[D] = m->feature[X86_F1_EDX] | (c->ncpus > 1 ? 1u << 28 : 0);
    uint64_t base;
    if (c->bus.apic_msr && c->bus.apic_msr(c->bus.ctx, MSR_APIC_BASE, false, &base) &&
        !(base & APIC_BASE_ENABLE))
        o[D] &= ~(1u << 9); /* globally disabled: as if there were none (SDM vol. 3, 11.4.3) */
}

/* Deterministic cache parameters (leaf 4). */
static void leaf_cache(const struct x86_cpu *c, uint32_t sub, uint32_t o[4])
{
    static const struct {
        uint8_t type, level, ways;
        bool shared;
        uint32_t sets;
    } cache[] = {
        {1, 1, 12, false, 64},    /* data, 48 KiB */
        {2, 1, 8, false, 64},     /* instructions, 32 KiB */
        {3, 2, 20, false, 1024},  /* 1.25 MiB */
        {3, 3, 16, true, 0x4000}, /* 16 MiB */
    };
    if (sub >= ARRAY_LEN(cache))
        return;
    uint32_t cores = (1u << core_bits(c)) - 1;
    o[A] = cache[sub].type | (uint32_t)cache[sub].level << 5 | 1u << 8 |
           (cache[sub].shared ? cores << 14 : 0) | cores << 26;
    o[B] = 63 | (uint32_t)(cache[sub].ways - 1) << 22; /* 64-byte lines */
    o[C] = cache[sub].sets - 1;
}

static void leaf_topology(const struct x86_cpu *c, uint32_t sub, uint32_t o[4])
{
    o[C] = sub & 0xff;
    o[D] = c->index;
    if (sub == 0) { /* one thread per core */
        o[B] = 1;
        o[C] |= 1 << 8;
    } else if (sub == 1) {
        o[A] = core_bits(c);
        o[B] = c->ncpus;
        o[C] |= 2 << 8;
    }
}

#define XSAVE_LEGACY 576u /* x87, SSE and the header */
#define XSAVE_AVX    256u

static void leaf_xsave(const struct x86_cpu *c, uint32_t sub, uint32_t o[4])
{
    const struct x86_model *m = c->model;
    uint32_t now = XSAVE_LEGACY + (c->s.xcr0 & X86_XCR0_AVX ? XSAVE_AVX : 0);
    if (sub == 0) {
        o[A] = (uint32_t)m->xcr0_mask;
        o[B] = now;
        o[C] = XSAVE_LEGACY + (m->xcr0_mask & X86_XCR0_AVX ? XSAVE_AVX : 0);
    } else if (sub == 1) {
        o[A] = m->feature[X86_FD1_EAX];
        o[B] = now;
    } else if (sub == 2 && (m->xcr0_mask & X86_XCR0_AVX)) {
        o[A] = XSAVE_AVX;
        o[B] = XSAVE_LEGACY;
    }
}

/* TSC = crystal * EBX / EAX. Guests compute in kHz and 32 bits, so the fraction must be small. */
static void leaf_tsc(const struct x86_model *m, uint32_t o[4])
{
    uint64_t mhz = m->tsc_hz / 1000000, crystal = X86_CRYSTAL_HZ / 1000000;
    if (m->tsc_hz % 1000000 || mhz > 4294)
        return; /* not enumerated: the guest measures */
    uint64_t a = mhz, b = crystal;
    while (b) {
        uint64_t t = a % b;
        a = b;
        b = t;
    }
    o[A] = (uint32_t)(crystal / a);
    o[B] = (uint32_t)(mhz / a);
    o[C] = X86_CRYSTAL_HZ;
}

static void leaf_basic(const struct x86_cpu *c, uint32_t leaf, uint32_t sub, uint32_t o[4])
{
    const struct x86_model *m = c->model;
    switch (leaf) {
    case 0:
        o[A] = c->s.misc_enable & X86_MISC_ENABLE_LIMIT_CPUID ? 2 : LEAF_MAX;
        leaf_vendor("GenuineIntel", &o[B], &o[D], &o[C]);
        break;
    case 1:
        leaf_features(c, o);
        break;
    case 2: /* see leaf 4 for caches; prefetch 64 bytes */
        o[A] = 0x00fff001;
        break;
    case 4:
        leaf_cache(c, sub, o);
        break;
    case 6:
        o[A] = 1u << 2; /* the APIC timer always runs */
        break;
    case 7:
        if (sub == 0) {
            o[B] = m->feature[X86_F7_EBX];
            o[C] = m->feature[X86_F7_ECX];
            o[D] = m->feature[X86_F7_EDX];
            o[A] = 2;
        } else if (sub == 2) {
            o[D] = LEAF7_2_BHI_CTRL;
        }
        break;
    case 0xb:
        leaf_topology(c, sub, o);
        break;
    case 0xd:
        leaf_xsave(c, sub, o);
        break;
    case 0x15:
        leaf_tsc(m, o);
        break;
    case 0x16:
        o[A] = o[B] = (uint32_t)(m->tsc_hz / 1000000) & 0xffff;
        o[C] = 100;
        break;
    default:
        break;
    }
}

/* KVM's leaves, and VMware's for the rates of the clocks. */
static void leaf_hypervisor(const struct x86_cpu *c, uint32_t leaf, uint32_t o[4])
{
    if (leaf == LEAF_HV) {
        o[A] = LEAF_HV_TIME;
        leaf_vendor("KVMKVMKVM\0\0", &o[B], &o[C], &o[D]);
    } else if (leaf == LEAF_HV_KVM) {
        o[A] = c->bus.hypercall ? KVM_PV_FEATURES : 0;
    } else if (leaf == LEAF_HV_TIME) { /* in kHz */
        o[A] = (uint32_t)(c->model->tsc_hz / 1000);
        o[B] = X86_CRYSTAL_HZ / 1000;
    }
}

static void leaf_extended(const struct x86_model *m, uint32_t leaf, uint32_t o[4])
{
    switch (leaf) {
    case LEAF_EXT:
        o[A] = LEAF_EXT_MAX;
        break;
    case LEAF_EXT + 1:
        o[C] = m->feature[X86_F8_1_ECX];
        o[D] = m->feature[X86_F8_1_EDX];
        break;
    case LEAF_EXT + 2:
    case LEAF_EXT + 3:
    case LEAF_EXT + 4:
        memcpy(o, m->brand + 16 * (leaf - LEAF_EXT - 2), 16);
        break;
    case LEAF_EXT + 6:
        o[C] = 1280u << 16 | 7u << 12 | 64; /* L2; associativity: see leaf 4 */
        break;
    case LEAF_EXT + 7:
        o[D] = 1u << 8; /* invariant TSC */
        break;
    case LEAF_EXT + 8:
        o[A] = X86_PHYS_BITS | X86_LIN_BITS << 8;
        break;
    default:
        break;
    }
}

void x86_cpuid(const struct x86_cpu *c, uint32_t leaf, uint32_t sub, uint32_t out[4])
{
    memset(out, 0, 4 * sizeof *out);
    if (leaf <= LEAF_MAX)
        leaf_basic(c, leaf, sub, out);
    else if (leaf >= LEAF_EXT && leaf <= LEAF_EXT_MAX)
        leaf_extended(c->model, leaf, out);
    else if (leaf >> 16 == LEAF_HV >> 16)
        leaf_hypervisor(c, leaf, out);
    if (leaf == LEAF_EXT + 1 && (c->s.misc_enable & X86_MISC_ENABLE_XD_DISABLE))
        out[D] &= ~(1u << 20); /* NX */
}
