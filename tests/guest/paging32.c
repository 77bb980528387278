/*
 * paging32.c - 32-bit and PAE paging (SDM volume 3, 4.3 and 4.4).
 */
#include "mem.h"

#define P_P  1u
#define P_W  2u
#define P_U  4u
#define P_A  0x20u
#define P_D  0x40u
#define P_PS 0x80u
#define P_G  0x100u

#define VA 0x40001000u

static volatile uint32_t *dir, *table;
static volatile uint64_t *pdpt, *dirs[4], *table64;
static uint32_t page;

#define faults(v, error, addr) page_fault_is(v, error, addr, __LINE__)

static void page_fault_is(unsigned vector, uint32_t error, uint32_t addr, int line)
{
    check_equal("the vector", vector, PF, line);
    check_equal("the error code", trap.error, error, line);
    check_equal("CR2", trap_cr2, addr, line);
}

static unsigned read_at(uint32_t va)
{
    uint32_t v;
    return (unsigned)PROBE("movl (%1), %0", "=r"(v) : "c"(va));
}

static unsigned write_at(uint32_t va)
{
    return (unsigned)PROBE("movl $0xc3c3c3c3, (%0)", : "c"(va));
}

static unsigned fetch_at(uint32_t va)
{
    return (unsigned)PROBE("call *%0\n\tjmp 77f", : "c"(va));
}

USER(user_read, "mov (%edi), %eax; int $0x80");
USER(user_write, "movl $0xc3c3c3c3, (%edi); int $0x80");

static void paging_off(void)
{
    set_cr0(get_cr0() & ~(ulong)CR0_PG & ~(ulong)CR0_WP);
    set_cr4(0);
    wrmsr(EFER, 0);
}

/* The first 64 MiB are mapped to themselves, for user mode too, by 4 MiB pages. */
static void paging_on_32(void)
{
    if (!dir) {
        dir = page_alloc();
        table = page_alloc();
        page = (uint32_t)(ulong)page_alloc();
    }
    for (unsigned n = 0; n < 16; n++)
        dir[n] = n << 22 | P_P | P_W | P_U | P_PS;
    dir[VA >> 22] = (uint32_t)(ulong)table | P_P | P_W | P_U;
    table[VA >> 12 & 1023] = page | P_P | P_W | P_U;
    set_cr4(CR4_PSE);
    set_cr3((ulong)dir);
    set_cr0(get_cr0() | CR0_PG);
}

#define pte table[VA >> 12 & 1023]

static void set_pte(uint32_t v)
{
    pte = v;
    invlpg((void *)(ulong)VA);
}

TEST(rights, "paging32: rights and error codes")
{
    paging_on_32();
    set_pte(0);
    faults(read_at(VA + 4), 0, VA + 4);
    faults(write_at(VA), PF_W, VA);
    faults(fetch_at(VA), 0, VA); /* no I bit without NXE and SMEP */
    faults(user(user_read, VA), PF_U, VA);
    set_pte(page | P_P | P_W);
    IS(write_at(VA), NO_TRAP);
    IS(fetch_at(VA), NO_TRAP);
    faults(user(user_read, VA), PF_U | PF_P, VA);
    set_pte(page | P_P | P_U);
    IS(write_at(VA), NO_TRAP);
    IS(user(user_read, VA), 0x80);
    faults(user(user_write, VA), PF_U | PF_W | PF_P, VA);
    set_cr0(get_cr0() | CR0_WP);
    faults(write_at(VA), PF_W | PF_P, VA);
    set_cr0(get_cr0() & ~(ulong)CR0_WP);
    set_pte(page | P_P | P_W | P_U);
    dir[VA >> 22] &= ~P_U; /* both levels must grant it */
    set_cr3(get_cr3());
    faults(user(user_read, VA), PF_U | PF_P, VA);
    dir[VA >> 22] |= P_U;
    set_cr3(get_cr3());
    for (unsigned n = 0; n < 16; n++)
        dir[n] &= ~P_U; /* we run here */
    set_cr4(get_cr4() | CR4_SMEP);
    faults(fetch_at(VA), PF_P | PF_I, VA);
    paging_off();
}

TEST(bits, "paging32: accessed and dirty bits, 4 MiB pages, PSE-36")
{
    paging_on_32();
    dir[VA >> 22] &= ~P_A;
    set_cr3(get_cr3());
    set_pte(page | P_P | P_W);
    read_at(VA);
    IS(pte & (P_A | P_D), P_A);
    IS(dir[VA >> 22] & P_A, P_A);
    write_at(VA);
    IS(pte & (P_A | P_D), P_A | P_D);
    IS(dir[VA >> 22] & P_D, 0);
    uint32_t big = 0x50000000;
    *(volatile uint32_t *)(ulong)page = 0x1234;
    dir[big >> 22] = (page & 0xffc00000) | P_P | P_W | P_PS;
    IS(*(volatile uint32_t *)(ulong)(big + (page & 0x3fffff)), 0x1234);
    IS(dir[big >> 22] & (P_A | P_D), P_A);
    write_at(big + (page & 0x3fffff) + 8);
    IS(dir[big >> 22] & (P_A | P_D), P_A | P_D);
    dir[big >> 22] |= 1u << 21; /* reserved with 40 address bits */
    set_cr3(get_cr3());
    uint32_t r[4];
    cpuid(0x80000008, 0, r);
    if ((r[0] & 0xff) == 40)
        faults(read_at(big), PF_P | PF_R, big);
    /* Without CR4.PSE the bit is ignored: it is a page table. We must not stand on large pages. */
    for (unsigned n = 0; n < 16; n++) {
        uint32_t *flat = page_alloc();
        for (unsigned k = 0; k < 1024; k++)
            flat[k] = n << 22 | k << 12 | P_P | P_W | P_U;
        dir[n] = (uint32_t)(ulong)flat | P_P | P_W | P_U;
    }
    dir[big >> 22] = (uint32_t)(ulong)table | P_P | P_W | P_PS;
    set_cr3(get_cr3());
    set_cr4(0);
    set_pte(page | P_P | P_W);
    IS(*(volatile uint32_t *)(ulong)(big + (VA & 0x3ff000)), *(volatile uint32_t *)(ulong)page);
    paging_off();
}

static void paging_on_pae(void)
{
    if (!pdpt) {
        pdpt = page_alloc();
        for (unsigned n = 0; n < 4; n++)
            dirs[n] = page_alloc();
        table64 = page_alloc();
    }
    for (unsigned n = 0; n < 4; n++)
        pdpt[n] = (ulong)dirs[n] | P_P;
    for (unsigned n = 0; n < 32; n++)
        dirs[0][n] = (uint64_t)n << 21 | P_P | P_W | P_U | P_PS;
    dirs[1][0] = (ulong)table64 | P_P | P_W | P_U;
    table64[1] = page | P_P | P_W | P_U;
    set_cr4(CR4_PAE);
    set_cr3((ulong)pdpt);
    set_cr0(get_cr0() | CR0_PG);
}

TEST(pae, "paging32: PAE: rights, execute-disable, reserved bits")
{
    paging_on_pae();
    IS(write_at(VA), NO_TRAP);
    IS(table64[1] & (P_A | P_D), P_A | P_D);
    IS(dirs[1][0] & P_A, P_A);
    IS(user(user_read, VA), 0x80);
    table64[1] = page | P_P;
    invlpg((void *)(ulong)VA);
    faults(user(user_read, VA), PF_P | PF_U, VA);
    table64[1] = page | P_P | P_W | 1ull << 63; /* reserved: NXE is 0 */
    invlpg((void *)(ulong)VA);
    faults(read_at(VA), PF_P | PF_R, VA);
    wrmsr(EFER, EFER_NXE);
    IS(read_at(VA), NO_TRAP);
    faults(fetch_at(VA), PF_P | PF_I, VA);
    table64[1] = page | P_P | P_W | 1ull << 52; /* 52-62 are reserved here */
    invlpg((void *)(ulong)VA);
    faults(read_at(VA), PF_P | PF_R, VA);
    table64[1] = page | P_P | P_W | 1ull << 41;
    invlpg((void *)(ulong)VA);
    uint32_t r[4];
    cpuid(0x80000008, 0, r);
    if ((r[0] & 0xff) <= 41)
        faults(read_at(VA), PF_P | PF_R, VA);
    table64[1] = page | P_P | P_W;
    dirs[1][0] |= 1ull << 63; /* NX at the directory */
    set_cr3(get_cr3());
    faults(fetch_at(VA), PF_P | PF_I, VA);
    dirs[1][1] = P_P | P_W | P_PS | 1u << 13;
    faults(read_at(0x40200000), PF_P | PF_R, 0x40200000);
    paging_off();
}

TEST(pdptes, "paging32: PAE: PDPTEs are loaded with CR3, and checked then")
{
    paging_on_pae();
    IS(read_at(VA), NO_TRAP);
    pdpt[1] = 0; /* not looked at until CR3 is written (4.4.1) */
    invlpg((void *)(ulong)VA);
    IS(read_at(VA), NO_TRAP);
    set_cr3(get_cr3());
    faults(read_at(VA), 0, VA);
    pdpt[1] = (ulong)dirs[1] | P_P | P_W; /* bit 1 is reserved */
    IS(PROBE("mov %0, %%cr3", : "r"(get_cr3())), GP);
    IS(trap.error, 0);
    pdpt[1] = (ulong)dirs[1] | P_P | 1ull << 63;
    IS(PROBE("mov %0, %%cr3", : "r"(get_cr3())), GP);
    pdpt[1] = (ulong)dirs[1] | 0x1e6; /* not present: nothing is reserved */
    IS(PROBE("mov %0, %%cr3", : "r"(get_cr3())), NO_TRAP);
    pdpt[1] = (ulong)dirs[1] | P_P;
    set_cr4(get_cr4() ^ CR4_PGE); /* reloads them too */
    IS(read_at(VA), NO_TRAP);
    paging_off();
    /* Turning paging on checks them as well. */
    pdpt[2] |= 2;
    set_cr4(CR4_PAE);
    IS(PROBE("mov %0, %%cr0", : "r"(get_cr0() | CR0_PG)), GP);
    IS(get_cr0() & CR0_PG, 0);
    pdpt[2] &= ~2ull;
    /* The table lies at any multiple of 32. */
    volatile uint64_t *other = pdpt + 8;
    for (unsigned n = 0; n < 4; n++)
        other[n] = pdpt[n];
    set_cr3((ulong)other);
    set_cr0(get_cr0() | CR0_PG);
    IS(read_at(VA), NO_TRAP);
    paging_off();
}

TEST(mode_faults, "paging32: combinations of CR0, CR4 and EFER that fault")
{
    paging_off();
    IS(PROBE("mov %0, %%cr0", : "r"((get_cr0() | CR0_PG) & ~(ulong)CR0_PE)), GP);
    IS(PROBE("mov %0, %%cr0", : "r"((get_cr0() | CR0_NW) & ~(ulong)CR0_CD)), GP);
    IS(PROBE("mov %0, %%cr4", : "r"(CR4_PCIDE)), GP); /* outside IA-32e mode */
    wrmsr(EFER, EFER_LME);
    IS(PROBE("mov %0, %%cr0", : "r"(get_cr0() | CR0_PG)), GP); /* LME without PAE */
    wrmsr(EFER, 0);
    paging_on_32();
    IS(PROBE_WRMSR(EFER, EFER_LME), GP); /* while paging is on */
    IS(rdmsr(EFER), 0);
    paging_off();
    IS(PROBE("smsw %%eax", : : "eax"), NO_TRAP);
    /* LMSW sets PE and cannot clear it. */
    IS(PROBE("lmsw %w0", : "r"(get_cr0() & ~1)), NO_TRAP);
    IS(get_cr0() & 1, 1);
    set_cr0(get_cr0() & ~0x10ul); /* ET cannot be cleared */
    IS(get_cr0() & 0x10, 0x10);
}
