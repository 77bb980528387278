/*
 * msr.c - the model-specific registers, in one table (SDM volume 4). An MSR that is not in it does
 * not exist: #GP.
 */
#include "isa/x86/kvm_pv.h"
#include "isa/x86/op_priv.h"

struct msr {
    uint32_t first, count;
    /* Either a plain field of struct x86_state ... */
    uint16_t field;    /* offset + 1; 0: none */
    uint64_t reserved; /* bits that must be written as 0 */
    bool canonical;    /* holds an address */
    bool write_only;
    uint64_t value; /* without field and functions: reads as this, writes are #GP */
    /* ... or functions; n is the index within the row. */
    bool (*read)(struct x86_cpu *c, unsigned n, uint64_t *val);
    bool (*write)(struct x86_cpu *c, unsigned n, uint64_t val);
};

#define FIELD(f) .field = (uint16_t)(offsetof(struct x86_state, f) + 1)
#define HIGH32   0xffffffff00000000ull

/* ---- EFER ---- */

static bool write_efer(struct x86_cpu *c, unsigned n, uint64_t v)
{
    (void)n;
    uint64_t old = c->s.efer;
    if (v & ~c->model->efer_mask)
        return false;
    if (((v ^ old) & X86_EFER_LME) && (c->s.cr0 & X86_CR0_PG))
        return false;
    c->s.efer = (v & ~(uint64_t)X86_EFER_LMA) | (old & X86_EFER_LMA); /* LMA is the processor's */
    if ((v ^ old) & X86_EFER_NXE)
        x86_tlb_flush_all(c);
    x86_update_mode(c);
    return true;
}

/* ---- FS and GS ---- */

static bool read_segbase(struct x86_cpu *c, unsigned n, uint64_t *v)
{
    *v = n == 2 ? c->s.kernel_gs_base : c->s.seg[X86_FS + n].base;
    return true;
}

static bool write_segbase(struct x86_cpu *c, unsigned n, uint64_t v)
{
    if (!x86_canonical(v))
        return false;
    if (n == 2) {
        c->s.kernel_gs_base = v;
        return true;
    }
    c->s.seg[X86_FS + n].base = v;
    x86_update_seg(c, X86_FS + n);
    return true;
}

/* ---- time ---- */

static bool read_tsc(struct x86_cpu *c, unsigned n, uint64_t *v)
{
    (void)n;
    *v = c->bus.tsc(c->bus.ctx) + c->s.tsc_offset;
    return true;
}

static bool write_tsc_adjust(struct x86_cpu *c, unsigned n, uint64_t v)
{
    (void)n;
    c->s.tsc_offset = v;
    if (c->bus.tsc_moved)
        c->bus.tsc_moved(c->bus.ctx, v);
    return true;
}

/* The machine's TSC starts at 0 with power-up, so the offset is what IA32_TSC_ADJUST must hold: it
 * too moves with every write of the TSC (SDM 18.17.3). */
static bool write_tsc(struct x86_cpu *c, unsigned n, uint64_t v)
{
    (void)n;
    return write_tsc_adjust(c, n, v - c->bus.tsc(c->bus.ctx));
}

/* ---- the local APIC ---- */

static bool read_apic(struct x86_cpu *c, uint32_t msr, uint64_t *v)
{
    *v = 0;
    return c->bus.apic_msr(c->bus.ctx, msr, false, v);
}

static bool write_apic(struct x86_cpu *c, uint32_t msr, uint64_t v)
{
    return c->bus.apic_msr(c->bus.ctx, msr, true, &v);
}

static bool read_apic_base(struct x86_cpu *c, unsigned n, uint64_t *v)
{
    return read_apic(c, 0x1b, v);
}
static bool write_apic_base(struct x86_cpu *c, unsigned n, uint64_t v)
{
    return write_apic(c, 0x1b, v);
}
static bool read_deadline(struct x86_cpu *c, unsigned n, uint64_t *v)
{
    return read_apic(c, 0x6e0, v);
}
static bool write_deadline(struct x86_cpu *c, unsigned n, uint64_t v)
{
    return write_apic(c, 0x6e0, v);
}

/* ---- KVM's paravirtual interface ---- */

static bool read_pv(struct x86_cpu *c, unsigned n, uint64_t *v)
{
    return c->bus.pv_msr && c->bus.pv_msr(c->bus.ctx, KVM_PV_MSR + n, false, v);
}
static bool write_pv(struct x86_cpu *c, unsigned n, uint64_t v)
{
    return c->bus.pv_msr && c->bus.pv_msr(c->bus.ctx, KVM_PV_MSR + n, true, &v);
}

/* ---- memory types ---- */

/* UC WC WT WP WB; the PAT has UC- as well. */
static bool memory_type_ok(uint64_t t, bool pat)
{
    return t == 0 || t == 1 || (t >= 4 && t <= 6) || (pat && t == 7);
}

static bool memory_types_ok(uint64_t v, bool pat)
{
    for (unsigned n = 0; n < 64; n += 8)
        if (!memory_type_ok(v >> n & 0xff, pat))
            return false;
    return true;
}

static bool write_pat(struct x86_cpu *c, unsigned n, uint64_t v)
{
    if (!memory_types_ok(v, true))
        return false;
    c->s.pat = v;
    return true;
}

#define MTRR_RESERVED (~(uint64_t)0 << X86_PHYS_BITS)

static bool read_mtrr_var(struct x86_cpu *c, unsigned n, uint64_t *v)
{
    *v = n & 1 ? c->s.mtrr_mask[n / 2] : c->s.mtrr_base[n / 2];
    return true;
}

static bool write_mtrr_var(struct x86_cpu *c, unsigned n, uint64_t v)
{
    if (v & MTRR_RESERVED)
        return false;
    if (n & 1) {
        if (v & 0x7ff)
            return false;
        c->s.mtrr_mask[n / 2] = v;
        return true;
    }
    if ((v & 0xf00) || !memory_type_ok(v & 0xff, false))
        return false;
    c->s.mtrr_base[n / 2] = v;
    return true;
}

static bool mtrr_fixed(struct x86_cpu *c, unsigned n, uint64_t v)
{
    if (!memory_types_ok(v, false))
        return false;
    c->s.mtrr_fixed[n] = v;
    return true;
}

static bool write_fixed64k(struct x86_cpu *c, unsigned n, uint64_t v)
{
    return mtrr_fixed(c, 0, v);
}
static bool write_fixed16k(struct x86_cpu *c, unsigned n, uint64_t v)
{
    return mtrr_fixed(c, 1 + n, v);
}
static bool write_fixed4k(struct x86_cpu *c, unsigned n, uint64_t v)
{
    return mtrr_fixed(c, 3 + n, v);
}

static bool write_mtrr_deftype(struct x86_cpu *c, unsigned n, uint64_t v)
{
    if ((v & ~0xcffull) || !memory_type_ok(v & 0xff, false))
        return false;
    c->s.mtrr_deftype = v;
    return true;
}

/* ---- identity and switches ---- */

static bool accept(struct x86_cpu *c, unsigned n, uint64_t v)
{
    return true;
}

/* LBR and BTF are dropped, the other bits are reserved for a processor without branch tracing. */
static bool debugctl(struct x86_cpu *c, unsigned n, uint64_t v)
{
    return !(v & ~3ull);
}

/* SDM vol. 4, table 2-2: fast strings, thermal control, SpeedStep, MONITOR, limited CPUID, xTPR,
 * and NX off. What stands for something we have not is only kept; CPUID obeys the switches for it.
 */
#define MISC_ENABLE_WRITABLE                                                                      \
    (1ull << 0 | 1ull << 3 | 1ull << 16 | 1ull << 18 | X86_MISC_ENABLE_LIMIT_CPUID | 1ull << 23 | \
     X86_MISC_ENABLE_XD_DISABLE)

static bool write_misc_enable(struct x86_cpu *c, unsigned n, uint64_t v)
{
    c->s.misc_enable = (c->s.misc_enable & ~MISC_ENABLE_WRITABLE) | (v & MISC_ENABLE_WRITABLE);
    return true;
}

/* Maximum non-turbo ratio in 8..15, maximum efficiency ratio in 40..47; both in units of 100 MHz.
 */
static bool read_platform_info(struct x86_cpu *c, unsigned n, uint64_t *v)
{
    uint64_t ratio = (c->model->tsc_hz + 50000000) / 100000000 & 0xff;
    *v = ratio << 8 | ratio << 40;
    return true;
}

/* IBPB, the only command, has nothing to flush that outlives a guest instruction. */
static bool write_pred_cmd(struct x86_cpu *c, unsigned n, uint64_t v)
{
    return !(v & ~1ull);
}

/* Immune by construction: no guest instruction is executed speculatively beyond its checks.
 * IBRS_ALL spares the guest retpolines; the rest spares it the mitigation of the flaw that the name
 * says. */
#define ARCH_CAP_RDCL_NO        (1ull << 0)
#define ARCH_CAP_IBRS_ALL       (1ull << 1)
#define ARCH_CAP_SKIP_L1DFL     (1ull << 3)
#define ARCH_CAP_SSB_NO         (1ull << 4)
#define ARCH_CAP_MDS_NO         (1ull << 5)
#define ARCH_CAP_PSCHANGE_MC_NO (1ull << 6)
#define ARCH_CAP_TAA_NO         (1ull << 8)
#define ARCH_CAP_SBDR_SSDP_NO   (1ull << 13)
#define ARCH_CAP_FBSDP_NO       (1ull << 14)
#define ARCH_CAP_PSDP_NO        (1ull << 15)
#define ARCH_CAP_BHI_NO         (1ull << 20)
#define ARCH_CAP_PBRSB_NO       (1ull << 24)
#define ARCH_CAP_GDS_NO         (1ull << 26)
#define ARCH_CAP_RFDS_NO        (1ull << 27)
#define ARCH_CAP_ITS_NO         (1ull << 62)
#define ARCH_CAPABILITIES                                                                  \
    (ARCH_CAP_RDCL_NO | ARCH_CAP_IBRS_ALL | ARCH_CAP_SKIP_L1DFL | ARCH_CAP_SSB_NO |        \
     ARCH_CAP_MDS_NO | ARCH_CAP_PSCHANGE_MC_NO | ARCH_CAP_TAA_NO | ARCH_CAP_SBDR_SSDP_NO | \
     ARCH_CAP_FBSDP_NO | ARCH_CAP_PSDP_NO | ARCH_CAP_BHI_NO | ARCH_CAP_PBRSB_NO |          \
     ARCH_CAP_GDS_NO | ARCH_CAP_RFDS_NO | ARCH_CAP_ITS_NO)

#define MTRRCAP (X86_NMTRR | 1u << 8 /* fixed ranges */ | 1u << 10 /* WC */)

/* Sorted by number. */
static const struct msr table[] = {
    {0x10, 1, .read = read_tsc, .write = write_tsc},
    {KVM_PV_MSR_OLD, 2, .read = read_pv, .write = write_pv},
    {0x17, 1, .value = 0}, /* PLATFORM_ID */
    {0x1b, 1, .read = read_apic_base, .write = write_apic_base},
    {0x3a, 1, .value = 1},                                   /* FEATURE_CONTROL: locked, no VMX */
    {0x3b, 1, FIELD(tsc_offset), .write = write_tsc_adjust}, /* TSC_ADJUST */
    {0x48, 1, FIELD(spec_ctrl), .reserved = ~0x401ull},      /* IBRS, BHI_DIS_S */
    {0x49, 1, .write_only = true, .write = write_pred_cmd},
    {0x8b, 1, .value = 1ull << 32, .write = accept}, /* microcode revision; 0 is written to query */
    {0xce, 1, .read = read_platform_info},
    {0xfe, 1, .value = MTRRCAP},
    {0x10a, 1, .value = ARCH_CAPABILITIES},
    {0x174, 1, FIELD(sysenter_cs), .reserved = HIGH32},
    {0x175, 1, FIELD(sysenter_esp), .canonical = true},
    {0x176, 1, FIELD(sysenter_eip), .canonical = true},
    {0x179, 1, .value = 0}, /* MCG_CAP: no error-reporting banks */
    {0x17a, 1, FIELD(mcg_status), .reserved = ~7ull},
    {0x1a0, 1, FIELD(misc_enable), .write = write_misc_enable},
    {0x1d9, 1, .value = 0, .write = debugctl}, /* DEBUGCTL: neither LBR nor BTF */
    {0x200, 2 * X86_NMTRR, .read = read_mtrr_var, .write = write_mtrr_var},
    {0x250, 1, FIELD(mtrr_fixed[0]), .write = write_fixed64k},
    {0x258, 2, FIELD(mtrr_fixed[1]), .write = write_fixed16k},
    {0x268, 8, FIELD(mtrr_fixed[3]), .write = write_fixed4k},
    {0x277, 1, FIELD(pat), .write = write_pat},
    {0x2ff, 1, FIELD(mtrr_deftype), .write = write_mtrr_deftype},
    {0x6e0, 1, .read = read_deadline, .write = write_deadline},
    {KVM_PV_MSR, 5, .read = read_pv, .write = write_pv},
    {0xc0000080, 1, FIELD(efer), .write = write_efer},
    {0xc0000081, 1, FIELD(star)},
    {0xc0000082, 1, FIELD(lstar), .canonical = true},
    {0xc0000083, 1, FIELD(cstar), .canonical = true},
    {0xc0000084, 1, FIELD(fmask), .reserved = HIGH32},
    {0xc0000100, 3, .read = read_segbase, .write = write_segbase},
    {0xc0000103, 1, FIELD(tsc_aux), .reserved = HIGH32},
};

static const struct msr *find(uint32_t msr, unsigned *n)
{
    unsigned lo = 0, hi = ARRAY_LEN(table);
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        const struct msr *m = &table[mid];
        if (msr - m->first < m->count) {
            *n = msr - m->first;
            return m;
        }
        if (msr < m->first)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

static uint64_t *field_of(struct x86_cpu *c, const struct msr *m, unsigned n)
{
    return (uint64_t *)(void *)((uint8_t *)&c->s + m->field - 1) + n;
}

bool x86_rdmsr(struct x86_cpu *c, uint32_t msr, uint64_t *val)
{
    unsigned n;
    const struct msr *m = find(msr, &n);
    if (!m)
        return false;
    if (m->read)
        return m->read(c, n, val);
    if (m->write_only)
        return false;
    *val = m->field ? *field_of(c, m, n) : m->value;
    return true;
}

bool x86_wrmsr(struct x86_cpu *c, uint32_t msr, uint64_t val)
{
    unsigned n;
    const struct msr *m = find(msr, &n);
    if (!m)
        return false;
    if (m->write)
        return m->write(c, n, val);
    if (!m->field || (val & m->reserved) || (m->canonical && !x86_canonical(val)))
        return false;
    *field_of(c, m, n) = val;
    return true;
}
