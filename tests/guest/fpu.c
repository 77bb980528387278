/*
 * fpu.c - x87, SSE and AVX as an operating system sees them: CR0.TS and EM, CR4.OSFXSR and OSXSAVE,
 * XCR0, XSAVE areas, numeric errors (SDM volume 3, chapter 2.5 and 13; volume 1, chapter 13).
 */
#include "mem.h"

static uint8_t image[4096] __attribute__((aligned(64)));

static void all_on(void)
{
    set_cr0((get_cr0() | CR0_MP | CR0_NE) & ~(ulong)(CR0_TS | CR0_EM));
    set_cr4(get_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    __asm__ volatile("fninit");
    uint32_t mxcsr = 0x1f80;
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
}

static unsigned xsetbv(uint32_t index, uint64_t v)
{
    return (unsigned)PROBE("xsetbv", : "c"(index), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)));
}

static uint64_t xgetbv(uint32_t index)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(index));
    return (uint64_t)hi << 32 | lo;
}

static bool has_avx(void)
{
    uint32_t r[4];
    cpuid(1, 0, r);
    return r[2] >> 28 & 1;
}

TEST(ts, "fpu: CR0.TS, EM and MP: who raises #NM and #UD")
{
    all_on();
    set_cr0(get_cr0() | CR0_TS);
    IS(PROBE("fld1", ), NM);
    IS(PROBE("fnstsw %%ax", : : "eax"), NM);
    IS(PROBE("fwait", ), NM); /* MP and TS */
    IS(PROBE("movaps %%xmm0, %%xmm1", ), NM);
    IS(PROBE("ldmxcsr (%0)", : "r"(image)), NM);
    IS(PROBE("fxsave (%0)", : "r"(image) : "memory"), NM);
    IS(PROBE("emms", ), NM);
    IS(PROBE("prefetcht0 (%0)", : "r"(image)), NO_TRAP);
    IS(PROBE("sfence; lfence; mfence", ), NO_TRAP);
    IS(PROBE("movnti %%eax, (%0)", : "r"(image) : "memory"), NO_TRAP);
    IS(PROBE("crc32b %%al, %%ecx", : : "ecx"), NO_TRAP);
    set_cr0(get_cr0() & ~(ulong)CR0_MP);
    IS(PROBE("fwait", ), NO_TRAP);
    IS(PROBE("fld1", ), NM);
    __asm__ volatile("clts");
    set_cr0(get_cr0() | CR0_EM);
    IS(PROBE("fld1", ), NM);
    IS(PROBE("fwait", ), NO_TRAP);
    IS(PROBE("movaps %%xmm0, %%xmm1", ), UD);
    IS(PROBE("emms", ), UD);
    set_cr0(get_cr0() | CR0_TS); /* EM wins: #UD */
    IS(PROBE("movaps %%xmm0, %%xmm1", ), UD);
    all_on();
    IS(PROBE("fld1; fstp %%st(0)", ), NO_TRAP);
}

TEST(osfxsr, "fpu: CR4.OSFXSR and OSXMMEXCPT")
{
    all_on();
    set_cr4(get_cr4() & ~(ulong)CR4_OSFXSR);
    IS(PROBE("movaps %%xmm0, %%xmm1", ), UD);
    IS(PROBE("paddb %%mm0, %%mm1; emms", ), NO_TRAP);
    IS(PROBE("ldmxcsr (%0)", : "r"(image)), UD);
    all_on();
    uint32_t mxcsr = 0x1f80 & ~0x200u; /* divide by zero not masked */
    __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
    IS(PROBE("mov $1, %%eax; cvtsi2ss %%eax, %%xmm0; xorps %%xmm1, %%xmm1; divss %%xmm1, %%xmm0",
             :
             : "eax"),
       XM);
    uint32_t now;
    __asm__ volatile("stmxcsr %0" : "=m"(now));
    IS(now & 0x3f, 4);
    set_cr4(get_cr4() & ~(ulong)CR4_OSXMMEXCPT);
    IS(PROBE("mov $1, %%eax; cvtsi2ss %%eax, %%xmm0; xorps %%xmm1, %%xmm1; divss %%xmm1, %%xmm0",
             :
             : "eax"),
       UD);
    mxcsr = 0x10000;
    IS(PROBE("ldmxcsr %0", : "m"(mxcsr)), GP); /* reserved */
    all_on();
}

TEST(x87_errors, "fpu: x87 errors: #MF at the next waiting instruction")
{
    all_on();
    uint16_t cw = 0x37f & ~4u; /* division by zero not masked */
    uint16_t sw;
    __asm__ volatile("fldcw %0" : : "m"(cw));
    IS(PROBE("fld1; fldz; fdivrp; nop", ), NO_TRAP); /* 1 / 0, no report yet */
    __asm__ volatile("fnstsw %0" : "=m"(sw));
    IS(sw & 0x8084, 0x8084); /* B, ES, ZE */
    IS(PROBE("fwait", ), MF);
    IS(PROBE("fld1", ), MF);
    IS(PROBE("emms", ), MF);
    IS(PROBE("fnclex", ), NO_TRAP);
    IS(PROBE("fwait", ), NO_TRAP);
    all_on();
}

/* Three times round: the third unmasks division by zero. */
TEST(x87_unmask, "fpu: x87 code that unmasks an error in its midst")
{
    all_on();
    static const uint16_t cw[4] = {0x37f, 0x27f, 0x37b, 0x37f};
    ulong left = 4;
    const uint16_t *p = cw;
    IS(PROBE("fldz; 1: fld1; fldcw (%0); fdiv %%st(1), %%st; fstp %%st(0); add $2, %0; dec %1; "
             "jnz 1b",
             "+r"(p), "+r"(left)),
       MF);
    IS(p - cw, 2);
    IS(left, 2);
    uint16_t sw;
    __asm__ volatile("fnstsw %0" : "=m"(sw));
    IS(sw & 0xb884, 0xb084); /* B, ES, ZE; two registers in use */
    all_on();
}

TEST(x87_pointers, "fpu: FIP is that of the last instruction which was completed")
{
    all_on();
    uint32_t env[7];
    ulong at;
    uint64_t va = TEST_VA + 0x20000;
    map_page(va, 0, 0);
    IS(PROBE("lea 2f(%%rip), %0; fldz; 2: fld1; mov %0, %%rcx; fldl (%1)", "=&r"(at)
             : "r"(va)
             : "rcx"),
       PF);
    __asm__ volatile("fnstenv %0" : "=m"(env));
    IS(env[3], (uint32_t)at);
    IS(env[1] >> 11 & 7, 6); /* and the load has pushed nothing */
    __asm__ volatile("lea 2f(%%rip), %0; fldz; 2: fld1; fnstcw (%2); fwait; jmp 3f; 3: fnstenv %1"
                     : "=&r"(at), "=m"(env)
                     : "r"(image)
                     : "memory");
    IS(env[3], (uint32_t)at);
    __asm__ volatile("fld1; fninit; fnstenv %0" : "=m"(env));
    IS(env[3], 0);
}

TEST(x87_kept, "fpu: x87 and SSE registers are kept while the system works")
{
    all_on();
    enum { PAGES = 16 };
    uint64_t va = TEST_VA + 0x20000, p = va, x, y = 0x4008000000000000; /* 3.0 */
    ulong n = PAGES;
    for (unsigned k = 0; k < PAGES; k++)
        map_page(va + 4096 * k, (uint64_t)page_alloc(), P_P | P_W);
    __asm__ volatile("movsd %3, %%xmm9; fldz; fld1; 1: fadd %%st, %%st(1); addsd %%xmm9, %%xmm9; "
                     "xor %%eax, %%eax; cpuid; fxch; fistl (%0); fxch; add $4096, %0; dec %1; "
                     "jnz 1b; fstp %%st(0); fistpll %2; movsd %%xmm9, %3"
                     : "+r"(p), "+r"(n), "=m"(x), "+m"(y)
                     :
                     : "memory", "rax", "rbx", "rcx", "rdx");
    IS(x, PAGES);
    IS(y, 0x4008000000000000 + ((uint64_t)PAGES << 52)); /* 3 * 2^16 */
    for (unsigned k = 0; k < PAGES; k++)
        IS(*(const uint32_t *)(va + 4096 * k), k + 1);
    uint32_t mxcsr = 0x1f80 & ~0x200u; /* an SSE error that is not masked */
    __asm__ volatile("ldmxcsr %0; xorps %%xmm1, %%xmm1" : : "m"(mxcsr));
    IS(PROBE("fldpi; fld1; fadd %%st, %%st; mov $1, %%eax; cvtsi2ss %%eax, %%xmm0; "
             "divss %%xmm1, %%xmm0",
             :
             : "eax"),
       XM);
    __asm__ volatile("fmulp; fldpi; fldpi; faddp; fsubrp; fld1; faddp; fistpll %0" : "=m"(x));
    IS(x, 1); /* 2 pi - (pi + pi) + 1 */
    all_on();
}

TEST(osxsave, "fpu: CR4.OSXSAVE, XSETBV and XCR0")
{
    uint32_t r[4];
    all_on();
    set_cr4(get_cr4() & ~(ulong)CR4_OSXSAVE);
    cpuid(1, 0, r);
    IS(r[2] >> 27 & 1, 0);
    IS(PROBE("xgetbv", : "c"(0) : "eax", "edx"), UD);
    IS(xsetbv(0, 1), UD);
    IS(PROBE("xsave (%0)", : "r"(image), "a"(7), "d"(0) : "memory"), UD);
    set_cr4(get_cr4() | CR4_OSXSAVE);
    cpuid(1, 0, r);
    IS(r[2] >> 27 & 1, 1);
    IS(xgetbv(0), 1);     /* as after reset */
    IS(xsetbv(0, 0), GP); /* x87 must be set */
    IS(xsetbv(0, 2), GP);
    IS(xsetbv(0, 5), GP); /* AVX without SSE */
    IS(xsetbv(1, 1), GP);
    IS(xsetbv(0, 1ull << 63 | 1), GP);
    IS(PROBE("xgetbv", : "c"(5) : "eax", "edx"), GP);
    if (has_avx()) {
        IS(PROBE("vxorps %%ymm0, %%ymm0, %%ymm0", ), UD); /* XCR0.AVX is 0 */
        IS(xsetbv(0, 7), NO_TRAP);
        IS(xgetbv(0), 7);
        IS(PROBE("vxorps %%ymm0, %%ymm0, %%ymm0", ), NO_TRAP);
        set_cr0(get_cr0() | CR0_TS);
        IS(PROBE("vxorps %%ymm0, %%ymm0, %%ymm0", ), NM);
        __asm__ volatile("clts");
        set_cr4(get_cr4() & ~(ulong)CR4_OSXSAVE);
        IS(PROBE("vxorps %%ymm0, %%ymm0, %%ymm0", ), UD);
        set_cr4(get_cr4() | CR4_OSXSAVE);
    } else {
        IS(xsetbv(0, 3), NO_TRAP);
    }
    cpuid(0xd, 0, r);
    IS(r[1], has_avx() ? 832 : 576);
}

TEST(xsave, "fpu: XSAVE, XRSTOR: alignment, header, initial state")
{
    all_on();
    set_cr4(get_cr4() | CR4_OSXSAVE);
    uint32_t all = has_avx() ? 7 : 3;
    IS(xsetbv(0, all), NO_TRAP);
    IS(PROBE("xsave (%0)", : "r"(image + 16), "a"(all), "d"(0) : "memory"), GP);
    IS(PROBE("fxsave (%0)", : "r"(image + 8) : "memory"), GP);
    memset(image, 0, sizeof image);
    __asm__ volatile("pcmpeqd %%xmm3, %%xmm3; xsave (%0)"
                     :
                     : "r"(image), "a"(all), "d"(0)
                     : "memory");
    uint64_t *header = (uint64_t *)(image + 512);
    IS(header[0] & 2, 2);
    IS(*(uint32_t *)(image + 160 + 48), 0xffffffff);
    header[0] &= ~2ull; /* SSE in its initial state */
    uint64_t low;
    __asm__ volatile("xrstor (%1); movq %%xmm3, %0"
                     : "=r"(low)
                     : "r"(image), "a"(all), "d"(0)
                     : "memory");
    IS(low, 0);
    header[0] = 1ull << 62;
    IS(PROBE("xrstor (%0)", : "r"(image), "a"(all), "d"(0)), GP);
    header[0] = all;
    header[1] = 1; /* XCOMP_BV: not the compacted format */
    IS(PROBE("xrstor (%0)", : "r"(image), "a"(all), "d"(0)), GP);
    header[1] = 0;
    header[3] = 0; /* bytes 23:16 must be 0, the others are not looked at */
    header[2] = 1;
    IS(PROBE("xrstor (%0)", : "r"(image), "a"(all), "d"(0)), GP);
    header[2] = 0;
    *(uint32_t *)(image + 24) = 0x80000000; /* MXCSR */
    IS(PROBE("xrstor (%0)", : "r"(image), "a"(all), "d"(0)), GP);
    IS(PROBE("fxrstor (%0)", : "r"(image)), GP);
    *(uint32_t *)(image + 24) = 0x1f80;
    IS(PROBE("xrstor (%0)", : "r"(image), "a"(all), "d"(0)), NO_TRAP);
    set_cr0(get_cr0() | CR0_TS);
    IS(PROBE("xsave (%0)", : "r"(image), "a"(all), "d"(0) : "memory"), NM);
    IS(PROBE("xrstor (%0)", : "r"(image), "a"(all), "d"(0)), NM);
    __asm__ volatile("clts");
    set_cr4(get_cr4() | CR4_OSXSAVE);
    IS(PROBE(".byte 0xf0; xsave (%0)", : "r"(image), "a"(all), "d"(0) : "memory"), UD);
}

TEST(xsave_fault, "fpu: a page fault in XSAVE and FXRSTOR")
{
    all_on();
    uint64_t va = TEST_VA + 0x10000;
    map_page(va, (uint64_t)page_alloc(), P_P | P_W);
    map_page(va + 0x1000, 0, 0);
    IS(PROBE("xsave (%0)", : "r"(va + 0xe00), "a"(3), "d"(0) : "memory"), PF);
    IS(trap_cr2, va + 0x1000);
    IS(trap.error, PF_W);
    IS(PROBE("fxsave (%0)", : "r"(va + 0xf00) : "memory"), PF);
    IS(trap_cr2, va + 0x1000);
    IS(PROBE("fxrstor (%0)", : "r"(va + 0xf00)), PF);
    IS(trap.error, 0);
    IS(PROBE("movups %%xmm0, (%0)", : "r"(va + 0xff8) : "memory"), PF);
    IS(trap_cr2, va + 0x1000);
    IS(PROBE("movaps %%xmm0, (%0)", : "r"(va + 8) : "memory"), GP);
    IS(PROBE("movntdq %%xmm0, (%0)", : "r"(va + 4) : "memory"), GP);
    IS(PROBE("fstpt (%0)", : "r"(va + 0xffc) : "memory"), PF);
    IS(PROBE("fld1; fstpt (%0)", : "r"(va + 0x1000) : "memory"), PF);
    uint16_t sw;
    __asm__ volatile("fnstsw %0" : "=m"(sw));
    IS(sw >> 11 & 7, 7); /* nothing was popped */
    __asm__ volatile("fninit");
}
