/*
 * test_x86_sys.c - control registers, MSRs, CPUID, flags, port instructions, descriptor inspection,
 * and the way from reset to 64-bit mode (SDM volume 3, chapters 2, 4, 9; volume 1, chapter 19).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "isa/x86/kvm_pv.h"
#include "x86_sysrig.h"

#define W(x)  (x) & 0xff, (x) >> 8 & 0xff
#define DW(x) W(x), W((x) >> 16)

/* ---- reset and mode switches ---- */

static void power_on(void **state)
{
    struct sysrig *s = sr_create(16, 0);
    struct x86_cpu *c = s->c;
    x86_reset(c, false);
    assert_int_equal(c->s.rip, 0xfff0);
    assert_int_equal(c->s.seg[X86_CS].base, 0xffff0000);
    assert_int_equal(c->s.cr0, 0x60000010);
    assert_int_equal(c->s.rflags, 2);
    assert_int_equal(c->s.gpr[X86_RDX], s->model.signature);
    assert_int_equal(c->code_size, 16);
    assert_int_equal(c->s.activity, X86_RUNNING);
    c->index = 1;
    x86_reset(c, true);
    assert_int_equal(c->s.activity, X86_WAIT_SIPI);
    x86_sipi(c, 0x9a);
    assert_int_equal(c->s.seg[X86_CS].sel, 0x9a00);
    assert_int_equal(c->s.seg[X86_CS].base, 0x9a000);
    assert_int_equal(c->s.rip, 0);
    sr_destroy(s);
}

static void init_keeps_what_it_must(void **state)
{
    struct sysrig *s = sr_create(64, 0);
    s->c->s.lstar = 0x1234;
    s->c->s.cr0 |= X86_CR0_CD;
    s->c->s.fpu.fcw = 0x37f;
    x86_reset(s->c, true);
    assert_int_equal(s->c->s.lstar, 0x1234);
    assert_int_equal(s->c->s.fpu.fcw, 0x37f);
    assert_int_equal(s->c->s.cr0, X86_CR0_CD | X86_CR0_ET);
    assert_int_equal(s->c->s.efer, 0);
    assert_false(s->c->long_active);
    sr_destroy(s);
}

/* From real-address mode through protected mode to 64-bit mode and back to compatibility mode. */
static void all_the_way_up(void **state)
{
    struct sysrig *s = sr_create(16, 0);
    sr_gdt(s, SEL_DATA0, sr_desc(0, 0xfffff, 0x92, 0xc));
    rig_page_tables(s->r);
    sr_put(s, 0x7000, &(uint16_t){GDT_LIMIT}, 2);
    sr_set_d(s, 0x7002, GDT);
    const uint8_t pm[] = {
        0x66,      0xb8,           W(SEL_DATA0),  0x8e, 0xd8,
        0x8e,      0xd0, /* mov ax, data; mov ds, ax; mov ss, ax */
        0x0f,      0x20,           0xe0,          0x83, 0xc8,
        0x20,      0x0f,           0x22,          0xe0,       /* cr4 |= PAE */
        0xb8,      DW(RIG_TABLES), 0x0f,          0x22, 0xd8, /* cr3 */
        0xb9,      DW(0xc0000080), 0x0f,          0x32, 0x0d,
        DW(0x100), 0x0f,           0x30, /* EFER.LME */
        0x0f,      0x20,           0xc0,          0x0d, DW(0x80000000),
        0x0f,      0x22,           0xc0, /* cr0 |= PG */
        0xea,      DW(0x6800),     W(SEL_CODE64),
    };
    const uint8_t lm[] = {
        0x48, 0xb8, DW(0x9abcdef0), DW(0x12345678), /* mov rax, imm64 */
        0xff, 0x2c, 0x25,           DW(0x7010),     /* jmp far [0x7010] */
    };
    const uint8_t compat[] = {0x89, 0xc3, 0x48, 0xf4}; /* mov ebx, eax; dec eax; hlt */
    sr_put(s, 0x6400, pm, sizeof pm);
    sr_put(s, 0x6800, lm, sizeof lm);
    sr_put(s, 0x6900, compat, sizeof compat);
    sr_set_d(s, 0x7010, 0x6900);
    sr_put(s, 0x7014, &(uint16_t){SEL_CODE0}, 2);
    /* lgdt [0x7000]; mov eax, cr0; or al, 1; mov cr0, eax; jmp dword SEL_CODE0:0x6400 */
    enum engine_exit x = RUN(s, 0x66, 0x0f, 0x01, 0x16, W(0x7000), 0x0f, 0x20, 0xc0, 0x0c, 0x01,
                             0x0f, 0x22, 0xc0, 0x66, 0xea, DW(0x6400), W(SEL_CODE0));
    assert_int_equal(x, ENGINE_EXIT_HALT);
    assert_int_equal(s->c->s.rip, 0x6904);
    assert_true(s->c->long_active);
    assert_int_equal(s->c->code_size, 32);
    assert_int_equal(s->c->s.gpr[X86_RBX], 0x9abcdef0);
    assert_int_equal(s->c->s.gpr[X86_RAX], 0x9abcdeef);
    assert_int_equal(s->c->s.efer, X86_EFER_LME | X86_EFER_LMA);
    sr_destroy(s);
}

/* "Unreal mode": limits loaded in protected mode outlast it. */
static void limits_outlast_protected_mode(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    RUN(s, 0x0f, 0x20, 0xc0, 0x24, 0xfe, 0x0f, 0x22, 0xc0); /* cr0.PE = 0 */
    assert_false(s->c->protected_mode);
    assert_int_equal(s->c->segc[X86_DS].ok, X86_SEGOK_R | X86_SEGOK_W);
    x86_load_seg(s->c, X86_DS, 0x1000);
    assert_int_equal(s->c->segc[X86_DS].base, 0x10000);
    assert_int_equal(s->c->s.seg[X86_DS].limit, 0xffffffff);
    sr_destroy(s);
}

/* ---- control and debug registers ---- */

/* mov rax, v; mov crN, rax: the vector raised, or -1. */
static int set_cr(struct sysrig *s, unsigned n, uint64_t v)
{
    sr_level(s, 64, 0);
    s->c->s.gpr[X86_RAX] = v;
    if (n == 8)
        RUN(s, 0x44, 0x0f, 0x22, 0xc0);
    else
        RUN(s, 0x0f, 0x22, 0xc0 | n << 3);
    return sr_vector(s);
}

static void control_register_rules(void **state)
{
    struct sysrig *s = sr_create(64, 0);
    uint64_t cr0 = s->c->s.cr0, cr4 = s->c->s.cr4, cr3 = s->c->s.cr3;
    assert_int_equal(set_cr(s, 0, cr0 & ~(uint64_t)X86_CR0_PE), X86_GP);
    assert_int_equal(set_cr(s, 0, cr0 & ~(uint64_t)X86_CR0_PG), X86_GP); /* in 64-bit code */
    assert_int_equal(set_cr(s, 0, cr0 | X86_CR0_NW), X86_GP);
    assert_int_equal(set_cr(s, 0, cr0 | 1ull << 32), X86_GP);
    assert_int_equal(s->c->s.cr0, cr0);
    assert_int_equal(set_cr(s, 4, cr4 & ~(uint64_t)X86_CR4_PAE), X86_GP);
    assert_int_equal(set_cr(s, 4, cr4 | 1u << 12), X86_GP); /* LA57 */
    assert_int_equal(set_cr(s, 3, cr3 | 1ull << 63), X86_GP);
    assert_int_equal(set_cr(s, 3, cr3 | 1ull << X86_PHYS_BITS), X86_GP);
    s->c->s.cr3 = cr3 | 8; /* PCIDE needs PCID 0 */
    assert_int_equal(set_cr(s, 4, cr4 | X86_CR4_PCIDE), X86_GP);
    s->c->s.cr3 = cr3;
    assert_int_equal(set_cr(s, 4, cr4 | X86_CR4_PCIDE), -1);
    assert_int_equal(set_cr(s, 3, cr3 | 5 | 1ull << 63), -1);
    assert_int_equal(s->c->s.cr3, cr3 | 5);
    assert_int_equal(s->c->pcid, 5);
    assert_int_equal(set_cr(s, 8, 16), X86_GP);
    assert_int_equal(set_cr(s, 8, 9), -1);
    assert_int_equal(s->tpr, 9);
    sr_level(s, 64, 3);
    RUN(s, 0x0f, 0x20, 0xc0);
    assert_int_equal(sr_vector(s), X86_GP);
    sr_destroy(s);
}

/* A page's translation may change in memory; CR3 loads drop what is cached, unless told not to. */
static void cr3_and_the_tlb(void **state)
{
    struct sysrig *s = sr_create(64, 0);
    uint64_t *pd = rig_mem(s->r, RIG_TABLES + 0x2000), cr3 = s->c->s.cr3;
    *(uint32_t *)rig_mem(s->r, 0x400000) = 1;
    *(uint32_t *)rig_mem(s->r, 0x600000) = 2;
    assert_int_equal(set_cr(s, 4, s->c->s.cr4 | X86_CR4_PCIDE), -1);
    RUN(s, 0x8b, 0x1c, 0x25, DW(0x400000)); /* mov ebx, [0x400000] */
    assert_int_equal(s->c->s.gpr[X86_RBX], 1);
    pd[2] = 0x600087;
    assert_int_equal(set_cr(s, 3, cr3 | 1ull << 63), -1);
    RUN(s, 0x8b, 0x1c, 0x25, DW(0x400000));
    assert_int_equal(s->c->s.gpr[X86_RBX], 1);
    assert_int_equal(set_cr(s, 3, cr3), -1);
    RUN(s, 0x8b, 0x1c, 0x25, DW(0x400000));
    assert_int_equal(s->c->s.gpr[X86_RBX], 2);
    pd[2] = 0x400087;
    RUN(s, 0x0f, 0x01, 0x3c, 0x25, DW(0x400000), 0x8b, 0x1c, 0x25, DW(0x400000)); /* invlpg first */
    assert_int_equal(s->c->s.gpr[X86_RBX], 1);
    /* invpcid rax, [0x7000]: reserved bits, unknown type */
    sr_set_q(s, 0x7000, 1u << 12);
    s->c->s.gpr[X86_RAX] = 1;
    RUN(s, 0x66, 0x0f, 0x38, 0x82, 0x04, 0x25, DW(0x7000));
    assert_int_equal(sr_vector(s), X86_GP);
    sr_level(s, 64, 0);
    sr_set_q(s, 0x7000, 0);
    s->c->s.gpr[X86_RAX] = 4;
    RUN(s, 0x66, 0x0f, 0x38, 0x82, 0x04, 0x25, DW(0x7000));
    assert_int_equal(sr_vector(s), X86_GP);
    sr_destroy(s);
}

static void pae_needs_good_pdptes(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    s->c->s.cr4 = X86_CR4_PAE;
    s->c->s.cr3 = 0x7000;
    sr_set_q(s, 0x7000, 0x21003); /* bit 1 is reserved */
    s->c->s.gpr[X86_RAX] = s->c->s.cr0 | X86_CR0_PG;
    uint64_t cr0 = s->c->s.cr0;
    RUN(s, 0x0f, 0x22, 0xc0);
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(s->c->s.cr0, cr0);
    sr_destroy(s);
}

static void debug_registers(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    s->c->s.gpr[X86_RAX] = 0xffffffff;
    RUN(s, 0x0f, 0x23, 0xf0, 0x0f, 0x21, 0xf3); /* mov dr6, eax; mov ebx, dr6 */
    assert_int_equal(s->c->s.gpr[X86_RBX], 0xffffeff0 | 0xf);
    RUN(s, 0x0f, 0x21, 0xe1); /* mov ecx, dr4: alias of DR6 */
    assert_int_equal(s->c->s.gpr[X86_RCX], 0xffffefff);
    s->c->s.cr4 = X86_CR4_DE;
    RUN(s, 0x0f, 0x21, 0xe1);
    assert_int_equal(sr_vector(s), X86_UD);
    sr_level(s, 32, 0);
    s->c->s.dr[6] = X86_DR6_FIXED;
    s->c->s.dr[7] = X86_DR7_FIXED | X86_DR7_GD;
    RUN(s, 0x0f, 0x21, 0xc1);
    assert_int_equal(sr_vector(s), X86_DB);
    assert_int_equal(sr_d(s, STACK - 12), CODE); /* before the instruction */
    assert_int_equal(s->c->s.dr[6], X86_DR6_FIXED | X86_DR6_BD);
    assert_false(s->c->s.dr[7] & X86_DR7_GD);
    sr_destroy(s);
}

/* ---- MSRs and CPUID ---- */

static int wrmsr(struct sysrig *s, uint32_t msr, uint64_t v)
{
    sr_level(s, 64, 0);
    s->c->s.gpr[X86_RCX] = msr;
    s->c->s.gpr[X86_RAX] = (uint32_t)v;
    s->c->s.gpr[X86_RDX] = v >> 32;
    RUN(s, 0x0f, 0x30);
    return sr_vector(s);
}

static uint64_t rdmsr(struct sysrig *s, uint32_t msr)
{
    sr_level(s, 64, 0);
    s->c->s.gpr[X86_RCX] = msr;
    RUN(s, 0x0f, 0x32);
    assert_int_equal(sr_vector(s), -1);
    return s->c->s.gpr[X86_RDX] << 32 | s->c->s.gpr[X86_RAX];
}

static void msrs(void **state)
{
    static const struct {
        uint32_t msr;
        uint64_t val;
        bool ok;
    } t[] = {
        {0xc0000080, X86_EFER_LME | X86_EFER_LMA | X86_EFER_SCE | X86_EFER_NXE, true},
        {0xc0000080, X86_EFER_LMA, false},     /* LME while paging */
        {0xc0000080, X86_EFER_LME | 2, false}, /* reserved */
        {0xc0000082, 0xffff800000001000, true},
        {0xc0000082, 0x0000800000001000, false}, /* not canonical */
        {0xc0000084, 1ull << 32, false},
        {0xc0000101, 0xffffc00000000000, true},
        {0xc0000102, 0x123456789a, true},
        {0x277, 0x0007040600070406, true},
        {0x277, 0x02, false},
        {0x200, 0x6, true},
        {0x200, 0x2, false},
        {0x201, 0xff00000800, true},
        {0x201, 1ull << X86_PHYS_BITS, false},
        {0x268, 0x0606060606060606, true},
        {0x2ff, 0xc06, true},
        {0x2ff, 0x100, false},
        {0x48, 1, true},
        {0x48, 0x401, true},
        {0x48, 8, false},
        {0x10a, 0, false}, /* read-only */
        {0x12345, 0, false},
    };
    struct sysrig *s = sr_create(64, 0);
    for (unsigned n = 0; n < ARRAY_LEN(t); n++) {
        assert_int_equal(wrmsr(s, t[n].msr, t[n].val), t[n].ok ? -1 : X86_GP);
        if (t[n].ok && t[n].msr != 0xc0000101) /* sr_level() reloads GS */
            assert_int_equal(rdmsr(s, t[n].msr), t[n].val);
    }
    assert_int_equal(rdmsr(s, 0xce) >> 8 & 0xff, 27);
    assert_int_equal(rdmsr(s, 0x1b), 0xfee00900);
    s->tsc = 1000;
    assert_int_equal(wrmsr(s, 0x10, 5000), -1);
    assert_int_equal(rdmsr(s, 0x3b), 4000);
    s->tsc = 1100;
    assert_int_equal(rdmsr(s, 0x10), 5100);
    sr_destroy(s);
}

static void every_msr_reads_or_faults(void **state)
{
    struct sysrig *s = sr_create(64, 0);
    uint64_t v;
    unsigned known = 0;
    for (uint32_t n = 0; n < 0x2000; n++)
        known += x86_rdmsr(s->c, n, &v) + x86_rdmsr(s->c, 0xc0000000 + n, &v);
    assert_in_range(known, 40, 80);
    sr_destroy(s);
}

static void cpuid_is_coherent(void **state)
{
    struct sysrig *s = sr_create(64, 0);
    uint32_t o[4], b[4];
    x86_cpuid(s->c, 0, 0, o);
    assert_memory_equal(&o[1], "Genu", 4);
    assert_true(o[0] >= 0x16);
    x86_cpuid(s->c, 1, 0, o);
    assert_false(o[2] >> 27 & 1);
    s->c->s.cr4 |= X86_CR4_OSXSAVE;
    x86_cpuid(s->c, 1, 0, o);
    assert_true(o[2] >> 27 & 1);
    x86_cpuid(s->c, 7, 0, o);
    assert_int_equal(o[0], 2);
    x86_cpuid(s->c, 7, 2, o);
    assert_int_equal(o[3], 0x10); /* BHI_DIS_S, which SPEC_CTRL accepts */
    x86_cpuid(s->c, 0x15, 0, o);
    assert_int_equal((uint64_t)o[2] * o[1] / o[0], 2700000000ull);
    x86_cpuid(s->c, 0x40000000, 0, o);
    assert_memory_equal(&o[1], "KVMKVMKVM\0\0\0", 12);
    x86_cpuid(s->c, 0x40000001, 0, o);
    assert_int_equal(o[0], 0); /* no board, no interface */
    x86_cpuid(s->c, 0x40000010, 0, o);
    assert_int_equal(o[0], 2700000);
    x86_cpuid(s->c, 0xd, 0, o);
    s->c->s.xcr0 = o[0];
    x86_cpuid(s->c, 0xd, 0, b);
    assert_int_equal(b[1], b[2]); /* all enabled: size now = largest size */
    s->c->ncpus = 6;
    s->c->index = 5;
    x86_cpuid(s->c, 0xb, 1, o);
    assert_int_equal(o[0], 3);
    assert_int_equal(o[1], 6);
    assert_int_equal(o[3], 5);
    sr_destroy(s);
}

/* ---- KVM's paravirtual interface: what the processor does of it ---- */

static struct x86_hypercall called;
static unsigned ncalls;
static uint64_t moved_to, pv_msrs[5];

static int64_t on_hypercall(void *ctx, const struct x86_hypercall *h)
{
    called = *h;
    ncalls++;
    return -1000;
}

static bool on_pv_msr(void *ctx, uint32_t msr, bool write, uint64_t *v)
{
    uint32_t n = msr - KVM_PV_MSR;
    if (n > 4 || n == 2)
        return false;
    *(write ? &pv_msrs[n] : v) = write ? *v : pv_msrs[n];
    return true;
}

static void on_tsc_moved(void *ctx, uint64_t offset)
{
    moved_to = offset;
}

static void hypercalls(void **state)
{
    static const uint8_t vmcall[] = {0x0f, 0x01, 0xc1}, vmmcall[] = {0x0f, 0x01, 0xd9};
    static const unsigned bits[] = {16, 32, 64};
    for (unsigned n = 0; n < ARRAY_LEN(bits); n++) {
        struct sysrig *s = sr_create(bits[n], 0);
        sr_run(s, vmcall, 3);
        assert_int_equal(sr_vector(s), X86_UD); /* no board, no interface */
        sr_destroy(s);
        s = sr_create(bits[n], 0);
        s->c->bus.hypercall = on_hypercall;
        ncalls = 0;
        for (unsigned k = 0; k < 4; k++)
            s->c->s.gpr[(uint8_t[]){X86_RBX, X86_RCX, X86_RDX, X86_RSI}[k]] = ~0ull << (k + 1);
        s->c->s.gpr[X86_RAX] = 0xffffffff12345678;
        sr_run(s, n & 1 ? vmmcall : vmcall, 3);
        assert_int_equal(sr_vector(s), -1);
        uint64_t mask = bits[n] == 64 ? ~0ull : 0xffffffff;
        assert_int_equal(called.nr, 0xffffffff12345678 & mask);
        for (unsigned k = 0; k < 4; k++)
            assert_int_equal(called.arg[k], ~0ull << (k + 1) & mask);
        assert_int_equal(called.wide, bits[n] == 64);
        assert_int_equal(s->c->s.gpr[X86_RAX], -1000ull & mask);
        RUN(s, 0xf0, 0x0f, 0x01, 0xc1); /* LOCK */
        assert_int_equal(sr_vector(s), X86_UD);
        assert_int_equal(ncalls, 1);
        sr_destroy(s);
    }
}

static void hypercalls_of_user_code_fail(void **state)
{
    struct sysrig *s = sr_create(64, 3);
    s->c->bus.hypercall = on_hypercall;
    ncalls = 0;
    RUN(s, 0x0f, 0x01, 0xc1, 0x0f, 0x0b); /* vmcall; ud2 */
    assert_int_equal(sr_vector(s), X86_UD);
    assert_int_equal(s->c->s.gpr[X86_RAX], -1ull);
    assert_int_equal(ncalls, 0);
    sr_destroy(s);
}

static void pv_msrs_are_the_boards(void **state)
{
    struct sysrig *s = sr_create(64, 0);
    uint64_t v = 0;
    assert_false(x86_rdmsr(s->c, 0x11, &v));
    assert_false(x86_wrmsr(s->c, KVM_PV_MSR, 0));
    s->c->bus.pv_msr = on_pv_msr;
    s->c->bus.hypercall = on_hypercall;
    s->c->bus.tsc_moved = on_tsc_moved;
    uint32_t o[4];
    x86_cpuid(s->c, 0x40000001, 0, o);
    assert_int_equal(o[0], 0x1000aeb);
    assert_true(x86_wrmsr(s->c, 0x11, 0x1000)); /* the old numbers are the same registers */
    assert_true(x86_wrmsr(s->c, 0x12, 0x2001));
    assert_true(x86_rdmsr(s->c, KVM_PV_MSR_SYSTEM_TIME, &v));
    assert_int_equal(v, 0x2001);
    assert_true(x86_rdmsr(s->c, KVM_PV_MSR_WALL_CLOCK, &v));
    assert_int_equal(v, 0x1000);
    assert_false(x86_rdmsr(s->c, KVM_PV_MSR + 2, &v));
    assert_false(x86_rdmsr(s->c, KVM_PV_MSR + 5, &v));
    assert_true(x86_wrmsr(s->c, KVM_PV_MSR_STEAL_TIME, 0x3001));
    assert_true(x86_wrmsr(s->c, KVM_PV_MSR_EOI, 0x4001));
    s->tsc = 1000;
    x86_wrmsr(s->c, 0x10, 5000);
    assert_int_equal(moved_to, 4000);
    x86_wrmsr(s->c, 0x3b, 77);
    assert_int_equal(moved_to, 77);
    x86_reset(s->c, true); /* INIT: nothing is written to this vCPU's memory any more */
    assert_int_equal(pv_msrs[1] | pv_msrs[3] | pv_msrs[4], 0);
    assert_int_equal(pv_msrs[0], 0x1000);
    assert_int_equal(s->c->s.tsc_offset, 77);
    sr_destroy(s);
}

static void odd_tsc_rate_is_not_enumerated(void **state)
{
    struct x86_model m;
    struct error e;
    struct x86_cpu *c = calloc(1, sizeof *c);
    uint32_t o[4];
    assert_int_equal(x86_model_init(&m, 2693456789ull, &e), 0);
    c->model = &m;
    c->ncpus = 1;
    x86_cpuid(c, 0x15, 0, o);
    assert_int_equal(o[2], 0);
    assert_int_equal(x86_model_init(&m, 1, &e), ERR_LIMIT);
    free(c);
}

static void xsetbv_rules(void **state)
{
    struct sysrig *s = sr_create(64, 0);
    RUN(s, 0x0f, 0x01, 0xd0); /* xgetbv without OSXSAVE */
    assert_int_equal(sr_vector(s), X86_UD);
    s->c->s.cr4 |= X86_CR4_OSXSAVE;
    static const struct {
        uint32_t v;
        int vector;
    } t[] = {{3, -1}, {2, X86_GP}, {5, X86_GP}, {0x20, X86_GP}};
    for (unsigned n = 0; n < ARRAY_LEN(t); n++) {
        sr_level(s, 64, 0);
        s->c->s.gpr[X86_RCX] = s->c->s.gpr[X86_RDX] = 0;
        s->c->s.gpr[X86_RAX] = t[n].v;
        RUN(s, 0x0f, 0x01, 0xd1);
        assert_int_equal(sr_vector(s), t[n].vector);
    }
    assert_int_equal(s->c->s.xcr0, 3);
    sr_destroy(s);
}

/* ---- flags ---- */

static void popf_respects_privilege(void **state)
{
    struct sysrig *s = sr_create(32, 3);
    sr_idt32(s, X86_BP, SEL_CODE0, 0xee);
    RUN(s, 0x68, DW(0x3302), 0x9d, 0xcc); /* push IOPL 3, IF, TF: TF traps behind INT3 */
    sr_level(s, 32, 3);
    x86_set_rflags(s->c, X86_FL_R1);
    RUN(s, 0x68, DW(0x3203 | X86_FL_AC), 0x9d, 0xcc);
    assert_int_equal(sr_d(s, STACK0 - 12), X86_FL_R1 | X86_FL_CF | X86_FL_AC);
    sr_level(s, 32, 0);
    x86_set_rflags(s->c, X86_FL_R1);
    RUN(s, 0x68, DW(0x3203 | X86_FL_VM | X86_FL_VIP | X86_FL_RF), 0x9d);
    assert_int_equal(s->c->s.rflags, 0x3203);
    sr_destroy(s);
}

static void sti_shadow(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    s->vector = 0x40;
    s->c->pending = X86_PEND_INTR;
    RUN(s, 0xfb, 0x40, 0x40, 0x40); /* sti; inc eax x3 */
    assert_int_equal(sr_vector(s), 0x40);
    assert_int_equal(sr_d(s, STACK - 12), CODE + 2);
    assert_int_equal(s->c->s.gpr[X86_RAX], 1);
    /* STI; HLT waits with interrupts on */
    sr_level(s, 32, 0);
    x86_set_rflags(s->c, X86_FL_R1);
    assert_int_equal(RUN(s, 0xfb), ENGINE_EXIT_HALT);
    assert_int_equal(s->c->s.rip, CODE + 2);
    sr_destroy(s);
}

static void protected_virtual_interrupts(void **state)
{
    struct sysrig *s = sr_create(32, 3);
    sr_idt32(s, X86_BP, SEL_CODE0, 0xee);
    RUN(s, 0xfa);
    assert_int_equal(sr_vector(s), X86_GP);
    sr_level(s, 32, 3);
    s->c->s.cr4 = X86_CR4_PVI;
    RUN(s, 0xfb, 0xcc);
    assert_int_equal(sr_vector(s), X86_BP);
    assert_true(sr_d(s, STACK0 - 12) & X86_FL_VIF);
    sr_destroy(s);
}

/* ---- ports ---- */

static void io_bitmap(void **state)
{
    struct sysrig *s = sr_create(32, 3);
    uint8_t *map = rig_mem(s->r, TSS_A + 104);
    sr_idt32(s, X86_BP, SEL_CODE0, 0xee);
    RUN(s, 0xb0, 0x55, 0xe6, 0x71, 0xcc); /* mov al, 0x55; out 0x71, al; int3 */
    assert_int_equal(sr_vector(s), X86_BP);
    assert_int_equal(s->out_port, 0x71);
    assert_int_equal(s->out_val, 0x55);
    map[0x72 / 8] = 1 << 2;
    sr_level(s, 32, 3);
    RUN(s, 0x66, 0xe7, 0x71, 0xcc); /* a word at 0x71 needs 0x72 too */
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(s->out_count, 1);
    sr_level(s, 32, 3);
    RUN(s, 0x66, 0xba, W(0x4c0), 0xec); /* beyond the TSS's limit */
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(s->in_count, 0);
    sr_destroy(s);
}

static void string_io(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    s->c->s.gpr[X86_RDI] = 0x7000;
    s->c->s.gpr[X86_RCX] = 3;
    RUN(s, 0xf3, 0x66, 0x6d); /* rep insw */
    assert_int_equal(s->in_count, 3);
    assert_int_equal(sr_d(s, 0x7002), 0x33023301);
    assert_int_equal(s->c->s.gpr[X86_RDI], 0x7006);
    assert_int_equal(s->c->s.gpr[X86_RCX], 0);
    /* A long one is done in pieces, all of them in the end. */
    s->c->s.gpr[X86_RCX] = 5000;
    s->c->s.gpr[X86_RDI] = 0x100000;
    RUN(s, 0xf3, 0x6c);
    assert_int_equal(s->in_count, 5003);
    assert_int_equal(s->c->s.gpr[X86_RDI], 0x100000 + 5000);
    /* No byte is taken from the device if it cannot be stored. */
    s->c->s.seg[X86_ES].limit = 0x6fff;
    x86_update_mode(s->c);
    s->c->s.gpr[X86_RDI] = 0x7000;
    RUN(s, 0x6c);
    assert_int_equal(sr_vector(s), X86_GP);
    assert_int_equal(s->in_count, 5003);
    sr_level(s, 32, 0);
    s->c->s.gpr[X86_RSI] = 0x7003;
    s->c->s.gpr[X86_RCX] = 2;
    RUN(s, 0xfd, 0xf3, 0x6e); /* std; rep outsb */
    assert_int_equal(s->c->s.gpr[X86_RSI], 0x7001);
    assert_int_equal(s->out_val, *(uint8_t *)rig_mem(s->r, 0x7002));
    sr_destroy(s);
}

/* ---- descriptor tables and inspection ---- */

static void descriptor_inspection(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    s->c->s.gpr[X86_RAX] = SEL_CODE0;
    RUN(s, 0x0f, 0x02, 0xd8, 0x0f, 0x03, 0xc8); /* lar ebx, eax; lsl ecx, eax */
    assert_int_equal(s->c->s.gpr[X86_RBX], 0xcf9b00);
    assert_int_equal(s->c->s.gpr[X86_RCX], 0xffffffff);
    assert_true(s->c->s.rflags & X86_FL_ZF);
    RUN(s, 0x0f, 0x00, 0xe8); /* verw ax: code */
    assert_false(s->c->s.rflags & X86_FL_ZF);
    s->c->s.gpr[X86_RAX] = 0x1000;
    s->c->s.gpr[X86_RBX] = 7;
    RUN(s, 0x0f, 0x02, 0xd8); /* beyond the limit: unchanged */
    assert_int_equal(s->c->s.gpr[X86_RBX], 7);
    assert_false(s->c->s.rflags & X86_FL_ZF);
    s->c->s.gpr[X86_RAX] = 0x10;
    s->c->s.gpr[X86_RCX] = 3;
    RUN(s, 0x63, 0xc8); /* arpl ax, cx */
    assert_int_equal(s->c->s.gpr[X86_RAX], 0x13);
    assert_true(s->c->s.rflags & X86_FL_ZF);
    sr_destroy(s);
}

static void umip(void **state)
{
    struct sysrig *s = sr_create(32, 3);
    sr_idt32(s, X86_BP, SEL_CODE0, 0xee);
    RUN(s, 0x0f, 0x01, 0x05, DW(0x7000), 0xcc); /* sgdt [0x7000] */
    assert_int_equal(sr_vector(s), X86_BP);
    assert_int_equal(sr_w(s, 0x7000), GDT_LIMIT);
    assert_int_equal(sr_d(s, 0x7002), GDT);
    sr_level(s, 32, 3);
    s->c->s.cr4 = X86_CR4_UMIP;
    RUN(s, 0x0f, 0x01, 0x05, DW(0x7000), 0xcc);
    assert_int_equal(sr_vector(s), X86_GP);
    sr_destroy(s);
}

static void ldt_and_tr(void **state)
{
    struct sysrig *s = sr_create(32, 0);
    sr_set_q(s, LDT + 8, sr_desc(0x123000, 0xfff, 0x93, 0x4));
    s->c->s.gpr[X86_RAX] = SEL_LDT;
    s->c->s.gpr[X86_RBX] = 0x0c;
    RUN(s, 0x0f, 0x00, 0xd0, 0x8e, 0xe3); /* lldt ax; mov fs, bx */
    assert_int_equal(sr_vector(s), -1);
    assert_int_equal(s->c->s.seg[X86_FS].base, 0x123000);
    s->c->s.gpr[X86_RAX] = SEL_TSS_B;
    RUN(s, 0x0f, 0x00, 0xd8); /* ltr ax */
    assert_int_equal(s->c->s.tr.base, TSS_B);
    assert_int_equal(sr_q(s, GDT + SEL_TSS_B) >> 40 & 0xff, 0x8b);
    RUN(s, 0x0f, 0x00, 0xd8); /* busy now */
    assert_int_equal(sr_vector(s), X86_GP);
    sr_destroy(s);
}

static void gs_bases(void **state)
{
    struct sysrig *s = sr_create(64, 0);
    s->c->s.kernel_gs_base = 0x7000;
    sr_set_q(s, 0x7008, 42);
    RUN(s, 0x0f, 0x01, 0xf8, 0x65, 0x48, 0x8b, 0x04, 0x25, DW(8)); /* swapgs; mov rax, gs:[8] */
    assert_int_equal(s->c->s.gpr[X86_RAX], 42);
    RUN(s, 0xf3, 0x48, 0x0f, 0xae, 0xc8); /* rdgsbase rax without CR4.FSGSBASE */
    assert_int_equal(sr_vector(s), X86_UD);
    sr_level(s, 64, 0);
    s->c->s.cr4 |= X86_CR4_FSGSBASE;
    s->c->s.gpr[X86_RAX] = 0x800000000000;
    RUN(s, 0xf3, 0x48, 0x0f, 0xae, 0xd0); /* wrfsbase rax: not canonical */
    assert_int_equal(sr_vector(s), X86_GP);
    sr_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_on),
        cmocka_unit_test(init_keeps_what_it_must),
        cmocka_unit_test(all_the_way_up),
        cmocka_unit_test(limits_outlast_protected_mode),
        cmocka_unit_test(control_register_rules),
        cmocka_unit_test(cr3_and_the_tlb),
        cmocka_unit_test(pae_needs_good_pdptes),
        cmocka_unit_test(debug_registers),
        cmocka_unit_test(msrs),
        cmocka_unit_test(every_msr_reads_or_faults),
        cmocka_unit_test(cpuid_is_coherent),
        cmocka_unit_test(hypercalls),
        cmocka_unit_test(hypercalls_of_user_code_fail),
        cmocka_unit_test(pv_msrs_are_the_boards),
        cmocka_unit_test(odd_tsc_rate_is_not_enumerated),
        cmocka_unit_test(xsetbv_rules),
        cmocka_unit_test(popf_respects_privilege),
        cmocka_unit_test(sti_shadow),
        cmocka_unit_test(protected_virtual_interrupts),
        cmocka_unit_test(io_bitmap),
        cmocka_unit_test(string_io),
        cmocka_unit_test(descriptor_inspection),
        cmocka_unit_test(umip),
        cmocka_unit_test(ldt_and_tr),
        cmocka_unit_test(gs_bases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
