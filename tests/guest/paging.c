/*
 * paging.c - 4-level paging: rights, error codes, accessed and dirty bits, reserved bits, what a
 * TLB may keep (SDM volume 3, chapter 4).
 */
#include "mem.h"

#define VA (TEST_VA + 0x1000)

static volatile uint32_t *const mem = (volatile uint32_t *)VA;
static uint64_t page;

static void setup(uint64_t flags)
{
    if (!page)
        page = (uint64_t)page_alloc();
    map_page(VA, page, flags);
}

static unsigned read_at(uint64_t va)
{
    uint32_t v;
    return (unsigned)PROBE("movl (%1), %0", "=r"(v) : "D"(va) : "memory");
}

static unsigned write_at(uint64_t va)
{
    return (unsigned)PROBE("movl $0xc3c3c3c3, (%0)", : "r"(va) : "memory"); /* RETs */
}

static unsigned fetch_at(uint64_t va)
{
    return (unsigned)PROBE("call *%0\n\tjmp 77f", : "r"(va) : "memory");
}

USER(user_read, "mov (%rdi), %eax; int $0x80");
USER(user_write, "movl $0xc3c3c3c3, (%rdi); int $0x80");
USER(user_fetch, "jmp *%rdi");

#define faults(v, error, addr) page_fault_is(v, error, addr, __LINE__)

static void page_fault_is(unsigned vector, uint64_t error, uint64_t addr, int line)
{
    check_equal("the vector", vector, PF, line);
    check_equal("the error code", trap.error, error, line);
    check_equal("CR2", trap_cr2, addr, line);
}

/* The first test: an engine may keep numbers of its own there, beside code at address 0. */
TEST(canonical_jumps, "paging: jumps to addresses that are not canonical")
{
    unsigned wrong = 0;
    for (uint64_t n = 1; n < 0xffff; n++) {
        uint64_t to = n << 48;
        wrong += PROBE("jmp *%0", : "r"(to)) != GP;
        wrong += PROBE("call *%0", : "r"(to)) != GP;
        wrong += PROBE("push %0; ret", : "r"(to)) != GP;
    }
    IS(wrong, 0);
}

TEST(absent, "paging: page not present: error code and CR2")
{
    setup(0);
    faults(read_at(VA + 8), 0, VA + 8);
    faults(write_at(VA + 8), PF_W, VA + 8);
    faults(user(user_read, VA), PF_U, VA);
    faults(user(user_write, VA), PF_U | PF_W, VA);
    faults(user(user_fetch, VA), PF_U, VA); /* no I bit: neither NXE nor SMEP */
    wrmsr(EFER, rdmsr(EFER) | EFER_NXE);
    faults(user(user_fetch, VA), PF_U | PF_I, VA);
    faults(fetch_at(VA), PF_I, VA);
    wrmsr(EFER, rdmsr(EFER) & ~(uint64_t)EFER_NXE);
}

TEST(supervisor, "paging: supervisor page from user mode")
{
    setup(P_P | P_W);
    faults(user(user_read, VA), PF_U | PF_P, VA);
    faults(user(user_write, VA), PF_U | PF_W | PF_P, VA);
    faults(user(user_fetch, VA), PF_U | PF_P, VA);
    setup(P_P | P_W | P_U);
    IS(user(user_read, VA), 0x80);
    IS(user(user_write, VA), 0x80);
    *entry_of(VA, 3) &= ~P_U; /* every level must grant it */
    invlpg(mem);
    faults(user(user_read, VA), PF_U | PF_P, VA);
    *entry_of(VA, 3) |= P_U;
    invlpg(mem);
    IS(user(user_read, VA), 0x80);
}

TEST(write_protect, "paging: read-only pages and CR0.WP")
{
    setup(P_P | P_U);
    IS(write_at(VA), NO_TRAP);
    faults(user(user_write, VA), PF_U | PF_W | PF_P, VA);
    set_cr0(get_cr0() | CR0_WP);
    faults(write_at(VA), PF_W | PF_P, VA);
    setup(P_P);
    faults(write_at(VA), PF_W | PF_P, VA);
    IS(read_at(VA), NO_TRAP);
    set_cr0(get_cr0() & ~(ulong)CR0_WP);
    IS(write_at(VA), NO_TRAP);
    setup(P_P | P_W | P_U);
    *entry_of(VA, 2) &= ~P_W;
    invlpg(mem);
    faults(user(user_write, VA), PF_U | PF_W | PF_P, VA);
    *entry_of(VA, 2) |= P_W;
    invlpg(mem);
}

TEST(no_execute, "paging: execute-disable")
{
    wrmsr(EFER, rdmsr(EFER) | EFER_NXE);
    setup(P_P | P_W | P_U | P_NX);
    IS(write_at(VA), NO_TRAP);
    faults(fetch_at(VA), PF_I | PF_P, VA);
    faults(user(user_fetch, VA), PF_U | PF_I | PF_P, VA);
    IS(user(user_read, VA), 0x80);
    setup(P_P | P_W | P_U);
    IS(fetch_at(VA), NO_TRAP);
    *entry_of(VA, 4) |= P_NX;
    invlpg(mem);
    faults(fetch_at(VA), PF_I | PF_P, VA);
    *entry_of(VA, 4) &= ~P_NX;
    wrmsr(EFER, rdmsr(EFER) & ~(uint64_t)EFER_NXE);
    setup(P_P | P_W | P_U | P_NX); /* without NXE the bit is reserved */
    faults(read_at(VA), PF_R | PF_P, VA);
    faults(user(user_write, VA), PF_R | PF_P | PF_U | PF_W, VA);
}

TEST(smep, "paging: SMEP")
{
    setup(P_P | P_W | P_U);
    IS(write_at(VA), NO_TRAP);
    IS(fetch_at(VA), NO_TRAP);
    set_cr4(get_cr4() | CR4_SMEP);
    faults(fetch_at(VA), PF_I | PF_P, VA);
    IS(read_at(VA), NO_TRAP);
    setup(0);
    faults(fetch_at(VA), PF_I, VA);
    setup(P_P | P_W);
    IS(fetch_at(VA), NO_TRAP);
    setup(P_P | P_W | P_U);
    *entry_of(VA, 3) &= ~P_U; /* a supervisor page if any level says so */
    invlpg(mem);
    IS(fetch_at(VA), NO_TRAP);
    *entry_of(VA, 3) |= P_U;
    set_cr4(get_cr4() & ~(ulong)CR4_SMEP);
}

TEST(smap, "paging: SMAP, EFLAGS.AC, implicit accesses")
{
    setup(P_P | P_W | P_U);
    set_cr4(get_cr4() | CR4_SMAP);
    faults(read_at(VA), PF_P, VA);
    faults(write_at(VA), PF_P | PF_W, VA);
    IS(fetch_at(VA), NO_TRAP); /* data only */
    __asm__ volatile("stac");
    IS(read_at(VA), NO_TRAP);
    IS(write_at(VA), NO_TRAP);
    __asm__ volatile("clac");
    faults(read_at(VA), PF_P, VA);
    IS(user(user_read, VA), 0x80);
    /* A descriptor table is read as supervisor, implicitly: AC does not help (4.6.1). */
    gdt[FREE_SEL / 8] = descriptor((uint32_t)VA, 0xff, 0x82, 0);
    gdt[FREE_SEL / 8 + 1] = VA >> 32;
    *(uint64_t *)page = gdt[U_DS / 8];
    __asm__ volatile("lldt %w0; stac" : : "r"(FREE_SEL));
    unsigned v = (unsigned)PROBE("mov %w0, %%es", : "r"(7));
    __asm__ volatile("clac; lldt %w0" : : "r"(0));
    faults(v, PF_P, VA);
    set_cr4(get_cr4() & ~(ulong)CR4_SMAP);
}

TEST(accessed_dirty, "paging: accessed and dirty bits")
{
    setup(P_P | P_W | P_U);
    volatile uint64_t *pte = entry_of(VA, 1), *pde = entry_of(VA, 2), *pdpte = entry_of(VA, 3);
    *pde &= ~P_A;
    *pdpte &= ~P_A;
    *entry_of(VA, 4) &= ~P_A;
    set_cr3(get_cr3());
    IS(*pte & (P_A | P_D), 0);
    read_at(VA);
    IS(*pte & (P_A | P_D), P_A);
    IS(*pde & (P_A | P_D), P_A);
    IS(*pdpte & P_A, P_A);
    IS(*entry_of(VA, 4) & P_A, P_A);
    write_at(VA); /* through the cached translation: must still set D */
    IS(*pte & (P_A | P_D), P_A | P_D);
    IS(*pde & P_D, 0);
    *pte &= ~(P_A | P_D);
    invlpg(mem);
    write_at(VA);
    IS(*pte & (P_A | P_D), P_A | P_D);
    *pte = (*pte & ~(P_A | P_D | P_W));
    set_cr0(get_cr0() | CR0_WP);
    invlpg(mem);
    IS(write_at(VA), PF);
    IS(*pte & P_D, 0); /* a write that faults does not make it dirty */
    set_cr0(get_cr0() & ~(ulong)CR0_WP);
    setup(P_P | P_W);
    IS(fetch_at(VA), NO_TRAP);
    IS(*pte & P_A, P_A);
}

TEST(dirty_rmw, "paging: read-modify-write, CMPXCHG and the dirty bit")
{
    setup(P_P | P_W);
    volatile uint64_t *pte = entry_of(VA, 1);
    __asm__ volatile("lock addl $0, (%0)" : : "r"(VA) : "memory");
    IS(*pte & P_D, P_D);
    setup(P_P | P_W);
    /* CMPXCHG writes in either case (SDM vol. 2, CMPXCHG): the destination, if they differ. */
    uint32_t old = *mem + 1;
    __asm__ volatile("lock cmpxchgl %%ecx, (%1)" : "+a"(old) : "r"(VA), "c"(0) : "memory", "cc");
    IS(*pte & P_D, P_D);
    set_cr0(get_cr0() | CR0_WP);
    setup(P_P);
    old = *mem + 1;
    IS(PROBE("lock cmpxchgl %%ecx, (%1)", "+a"(old) : "r"(VA), "c"(0) : "memory", "cc"), PF);
    IS(trap.error, PF_W | PF_P);
    IS(PROBE("lock addl $0, (%0)", : "r"(VA) : "memory", "cc"), PF);
    IS(trap.error, PF_W | PF_P);
    IS(PROBE("btsl $0, (%0)", : "r"(VA) : "memory", "cc"), PF);
    IS(trap.error, PF_W | PF_P);
    set_cr0(get_cr0() & ~(ulong)CR0_WP);
}

TEST(large_pages, "paging: 2 MiB and 1 GiB pages: A, D, offsets, reserved bits")
{
    volatile uint64_t va = TEST_VA + (2ull << 30);
    volatile uint64_t *pde = entry_of(va, 2);
    volatile uint32_t *low = (volatile uint32_t *)0x3123458;
    *low = 0x600d;
    *pde = 0x3000000 | P_P | P_W | P_PS;
    IS(*(volatile uint32_t *)(va + 0x123458), 0x600d);
    IS(*pde & (P_A | P_D), P_A);
    *(volatile uint32_t *)(va + 0x123458) = 0xbee;
    IS(*low, 0xbee);
    IS(*pde & (P_A | P_D), P_A | P_D);
    for (unsigned bit = 13; bit <= 20; bit++) {
        *pde = 0x3000000 | P_P | P_W | P_PS | 1ull << bit;
        invlpg((void *)va);
        faults(read_at(va), PF_P | PF_R, va);
    }
    *pde = 0x3000000 | P_P | P_W | P_PS | 1ull << 12; /* PAT */
    invlpg((void *)va);
    IS(read_at(va), NO_TRAP);

    uint32_t r[4];
    cpuid(0x80000001, 0, r);
    if (!(r[3] & 1u << 26))
        return;
    va = TEST_VA + (3ull << 30);
    volatile uint64_t *pdpte = entry_of(va, 3);
    *pdpte = P_P | P_W | P_PS;
    *low = 0x16;
    IS(*(volatile uint32_t *)(va + 0x3123458), 0x16);
    IS(*pdpte & (P_A | P_D), P_A);
    *(volatile uint32_t *)(va + 0x3123458) = 1;
    IS(*pdpte & (P_A | P_D), P_A | P_D);
    *pdpte = P_P | P_W | P_PS | 1ull << 13;
    invlpg((void *)va);
    faults(read_at(va), PF_P | PF_R, va);
    *pdpte = P_P | P_W | P_PS | 1ull << 29;
    invlpg((void *)va);
    faults(read_at(va), PF_P | PF_R, va);
}

TEST(reserved_bits, "paging: address bits above MAXPHYADDR, PS in PML4E")
{
    uint32_t r[4];
    cpuid(0x80000008, 0, r);
    unsigned width = r[0] & 0xff;
    setup(P_P | P_W);
    for (unsigned level = 1; level <= 4; level++) {
        volatile uint64_t *e = entry_of(VA, level);
        uint64_t was = *e;
        for (unsigned bit = width; bit < 52; bit++) {
            *e = was | 1ull << bit;
            invlpg(mem);
            faults(read_at(VA), PF_P | PF_R, VA);
        }
        *e = was | 0x7ffull << 52 | 0xe00; /* ignored (CR4.PKE = 0) */
        invlpg(mem);
        IS(read_at(VA), NO_TRAP);
        *e = was;
    }
    *entry_of(VA, 4) |= P_PS;
    invlpg(mem);
    faults(read_at(VA), PF_P | PF_R, VA);
    *entry_of(VA, 4) &= ~P_PS;
    *entry_of(VA, 1) = (1ull << 51) | P_W; /* not present: nothing is reserved */
    invlpg(mem);
    faults(read_at(VA), 0, VA);
}

TEST(crossing, "paging: an access across two pages faults at the second one's first byte")
{
    uint64_t v = 0;
    setup(P_P | P_W);
    map_page(VA + 0x1000, 0, 0);
    volatile uint64_t *edge = (volatile uint64_t *)(page + 0xff8);
    *edge = 0x1122334455667788;
    IS(PROBE("movq %1, (%0)", : "r"(VA + 0xffc), "r"(v) : "memory"), PF);
    IS(trap.error, PF_W);
    IS(trap_cr2, VA + 0x1000);
    IS(*edge, 0x1122334455667788); /* nothing was written */
    IS(PROBE("lock xaddq %1, (%0)", : "r"(VA + 0xffc), "r"(v) : "memory"), PF);
    IS(trap_cr2, VA + 0x1000);
    IS(PROBE("movq (%1), %0", "=r"(v) : "r"(VA + 0xffd) : "memory"), PF);
    IS(trap_cr2, VA + 0x1000);
    map_page(VA + 0x1000, (uint64_t)page_alloc(), P_P | P_W);
    IS(PROBE("movq %1, (%0)", : "r"(VA + 0xffc), "r"(0x99aabbccddeeff00) : "memory"), NO_TRAP);
    IS(*edge, 0xddeeff0055667788);
    IS(*(volatile uint32_t *)(VA + 0x1000), 0x99aabbcc);
    /* An instruction across the edge: MOV EAX, imm32 */
    uint8_t *code = (uint8_t *)page + 0xffd;
    memcpy(code, "\xb8\x11\x22", 3);
    memcpy((void *)(VA + 0x1000), "\x33\x44\xc3", 3);
    uint32_t eax;
    IS(PROBE("call *%1", "=a"(eax) : "r"(VA + 0xffd) : "memory"), NO_TRAP);
    IS(eax, 0x44332211);
    *entry_of(VA + 0x1000, 1) = 0;
    invlpg((void *)(VA + 0x1000));
    IS(PROBE("call *%1\n\tjmp 77f", "=a"(eax) : "r"(VA + 0xffd) : "memory"), PF);
    IS(trap_cr2, VA + 0x1000);
    IS(trap.ip, VA + 0xffd);
}

TEST(rep_fault, "paging: a fault in REP MOVS keeps the progress")
{
    setup(P_P | P_W);
    map_page(VA + 0x1000, 0, 0);
    ulong di = VA + 0xff0, cx = 64, si = page;
    unsigned v = (unsigned)PROBE("rep movsb", "+D"(di), "+c"(cx), "+S"(si) : : "memory");
    IS(v, PF);
    IS(trap.cx, 48);
    IS(trap.di, VA + 0x1000);
    IS(trap_cr2, VA + 0x1000);
    IS(trap.flags & FL_RF, FL_RF);
    di = VA + 0xff0;
    cx = 12;
    v = (unsigned)PROBE("rep stosq", "+D"(di), "+c"(cx) : "a"(0ul) : "memory");
    IS(v, PF);
    IS(trap.cx, 10);
}

TEST(canonical, "paging: addresses that are not canonical")
{
    uint64_t bad = 0x800000000000;
    uint32_t v;
    IS(read_at(bad), GP);
    IS(trap.error, 0);
    IS(read_at(0xffff7fffffffffff), GP);
    IS(read_at(0x7ffffffffffe), GP); /* its last byte is not */
    IS(PROBE("movl (%%rsp,%1), %0", "=r"(v) : "r"(bad)), SS);
    IS(trap.error, 0);
    IS(PROBE("mov %0, %%rbp; movl (%%rbp), %%eax", : "r"(bad) : "rax", "rbp"), SS);
    IS(fetch_at(bad), GP);
    IS(PROBE("invlpg (%0)", : "r"(bad)), NO_TRAP); /* a NOP then */
    IS(PROBE("prefetcht0 (%0)", : "r"(bad)), NO_TRAP);
}

TEST(new_mapping, "paging: an entry that becomes present needs no invalidation")
{
    uint64_t other = (uint64_t)page_alloc();
    setup(0);
    *entry_of(VA, 1) = 0;
    faults(read_at(VA), 0, VA);
    *entry_of(VA, 1) = other | P_P | P_W; /* 4.10.2.3: absent entries are not cached */
    *(volatile uint32_t *)other = 77;
    IS(*mem, 77);
    uint64_t far_va = TEST_VA + (20ull << 30);
    volatile uint64_t *e = entry_of(far_va, 3);
    *e = 0;
    IS(read_at(far_va), PF);
    *e = *entry_of(VA, 3); /* another way to the same PT */
    IS(*(volatile uint32_t *)(far_va + 0x1000), 77);
    *e = 0;
    set_cr3(get_cr3());
}

TEST(invalidation, "paging: INVLPG, MOV CR3, MOV CR4 drop translations")
{
    uint64_t a = (uint64_t)page_alloc(), b = (uint64_t)page_alloc();
    *(volatile uint32_t *)a = 1;
    *(volatile uint32_t *)b = 2;
    volatile uint64_t *pte = entry_of(VA, 1);
    map_page(VA, a, P_P | P_W);
    IS(*mem, 1);
    *pte = b | P_P | P_W;
    invlpg((void *)(VA + 0xabc));
    IS(*mem, 2);
    *pte = a | P_P | P_W;
    set_cr3(get_cr3());
    IS(*mem, 1);
    set_cr4(get_cr4() | CR4_PGE);
    *pte = b | P_P | P_W | P_G;
    invlpg(mem);
    IS(*mem, 2);
    *pte = a | P_P | P_W | P_G;
    invlpg(mem); /* global ones too */
    IS(*mem, 1);
    *pte = b | P_P | P_W;
    set_cr4(get_cr4() & ~(ulong)CR4_PGE); /* all, with the global ones */
    IS(*mem, 2);
    /* Withdrawn rights, with the page cached as dirty and writable */
    *mem = 5;
    *pte = b | P_P;
    set_cr0(get_cr0() | CR0_WP);
    invlpg(mem);
    IS(write_at(VA), PF);
    set_cr0(get_cr0() & ~(ulong)CR0_WP);
    /* A 2 MiB page is dropped by INVLPG anywhere in it (4.10.4.1). */
    volatile uint64_t va = TEST_VA + (4ull << 30);
    volatile uint64_t *pde = entry_of(va, 2);
    *pde = 0x3000000 | P_P | P_W | P_PS;
    *(volatile uint32_t *)(va + 0x5000) = 3;
    *(volatile uint32_t *)(va + 0x105000) = 4;
    *pde = 0;
    invlpg((void *)(va + 0x5000));
    IS(read_at(va + 0x105000), PF);
}

static void invpcid(uint64_t type, uint64_t pcid, uint64_t addr)
{
    struct {
        uint64_t pcid, addr;
    } d = {pcid, addr};
    __asm__ volatile("invpcid %0, %1" : : "m"(d), "r"(type) : "memory");
}

static unsigned probe_invpcid(uint64_t type, uint64_t pcid, uint64_t addr)
{
    struct {
        uint64_t pcid, addr;
    } d = {pcid, addr};
    return (unsigned)PROBE("invpcid %0, %1", : "m"(d), "r"(type) : "memory");
}

TEST(pcid, "paging: PCIDs keep translations apart; INVPCID")
{
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[2] & 1u << 17)) {
        skip("no PCID");
        return;
    }
    ulong base = (ulong)pml4;
    uint64_t a = (uint64_t)page_alloc(), b = (uint64_t)page_alloc();
    *(volatile uint32_t *)a = 1;
    *(volatile uint32_t *)b = 2;
    /* A second PML4 with another page at VA */
    uint64_t *other = page_alloc(), *first = pml4;
    memcpy(other, pml4, 4096);
    other[TEST_VA >> 39 & 511] = 0;
    pml4 = other;
    map_page(VA, b, P_P | P_W);
    pml4 = first;
    map_page(VA, a, P_P | P_W);

    set_cr3(base | 1);
    set_cr3(base); /* CR3[11:0] must be 0 when PCIDE is set */
    set_cr4(get_cr4() | CR4_PCIDE);
    set_cr3(base | 1);
    IS(*mem, 1);
    set_cr3((ulong)other | 2);
    IS(*mem, 2);
    set_cr3(base | 1 | 1ul << 63); /* keep */
    IS(*mem, 1);
    set_cr3((ulong)other | 2 | 1ul << 63);
    IS(*mem, 2);
    IS(get_cr3(), (ulong)other | 2); /* bit 63 is not kept */
    /* PCID 1 gets another page while PCID 2 runs. */
    *entry_of(VA, 1) = b | P_P | P_W;
    invpcid(0, 1, VA);
    set_cr3(base | 1 | 1ul << 63);
    IS(*mem, 2);
    *entry_of(VA, 1) = a | P_P | P_W;
    set_cr3((ulong)other | 2 | 1ul << 63);
    invpcid(1, 1, 0);
    set_cr3(base | 1 | 1ul << 63);
    IS(*mem, 1);
    *entry_of(VA, 1) = b | P_P | P_W;
    invpcid(3, 0, 0);
    IS(*mem, 2);
    *entry_of(VA, 1) = a | P_P | P_W;
    invpcid(2, 0, 0);
    IS(*mem, 1);
    *entry_of(VA, 1) = b | P_P | P_W;
    set_cr3(base | 1); /* without bit 63: drops PCID 1 */
    IS(*mem, 2);
    IS(probe_invpcid(4, 0, 0), GP);
    IS(probe_invpcid(0, 0x1000, 0), GP);
    IS(probe_invpcid(0, 1, 0x800000000000), GP);
    IS(probe_invpcid(1, 1, 0x800000000000), NO_TRAP); /* the address is not used */
    set_cr3(base | 3);
    IS(PROBE("mov %0, %%cr4", : "r"(get_cr4() & ~(ulong)CR4_PCIDE)), NO_TRAP);
    IS(PROBE("mov %0, %%cr4", : "r"(get_cr4() | CR4_PCIDE)), GP); /* CR3[11:0] is not 0 */
    set_cr3(base);
    IS(probe_invpcid(0, 1, VA), GP); /* PCID 0 only while PCIDE is 0 */
    IS(probe_invpcid(0, 0, VA), NO_TRAP);
}

/* MOV $n, EAX; RET */
static uint64_t code_page(uint8_t n)
{
    uint8_t *p = page_alloc();
    memcpy(p, "\xb8\0\0\0\0\xc3", 6);
    p[1] = n;
    return (uint64_t)p;
}

static unsigned call_it(void)
{
    unsigned n;
    __asm__ volatile("call *%1" : "=a"(n) : "r"(VA) : "memory", "cc");
    return n;
}

TEST(remapped_code, "paging: code behind INVLPG is what is mapped then")
{
    uint64_t a = code_page(1), b = code_page(2);
    map_page(VA, a, P_P);
    invlpg(mem);
    for (unsigned n = 0; n < 300; n++) {
        IS(call_it(), 1 + n % 2);
        *entry_of(VA, 1) = (n % 2 ? a : b) | P_P;
        invlpg((const void *)(VA + n));
    }
}

TEST(pcid_code, "paging: code of two address spaces at the same address")
{
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[2] & 1u << 17)) {
        skip("no PCID");
        return;
    }
    uint64_t a = code_page(1), b = code_page(2), c = code_page(3), *first = pml4;
    uint64_t *other = page_alloc();
    memcpy(other, first, 4096);
    other[TEST_VA >> 39 & 511] = 0;
    pml4 = other;
    map_page(VA, b, P_P);
    volatile uint64_t *theirs = entry_of(VA, 1);
    pml4 = first;
    map_page(VA, a, P_P);
    ulong base = (ulong)first, keep = 1ul << 63;
    set_cr3(base);
    set_cr4(get_cr4() | CR4_PCIDE);
    for (unsigned n = 0; n < 300; n++) {
        set_cr3(base | 1 | keep);
        IS(call_it(), 1);
        set_cr3((ulong)other | 2 | keep);
        IS(get_cr3(), (ulong)other | 2);
        IS(call_it(), n < 150 ? 2 : 3);
        if (n == 149) {
            *theirs = c | P_P;
            invlpg(mem);
        }
    }
    IS(PROBE("mov %0, %%cr3", : "r"(base | 1ul << 52 | keep)), GP);
    IS(get_cr3(), (ulong)other | 2);
    set_cr3(base);
    set_cr4(get_cr4() & ~(ulong)CR4_PCIDE);
}

TEST(table_in_table, "paging: page tables changed through their own mapping")
{
    volatile uint64_t *pte = entry_of(VA, 1);
    uint64_t va = VA + 0x3000;
    map_page(va, (ulong)pte & ~0xfffull, P_P | P_W);
    volatile uint64_t *alias = (volatile uint64_t *)(va + ((ulong)pte & 0xfff));
    uint64_t a = (uint64_t)page_alloc();
    *(volatile uint32_t *)a = 9;
    *alias = a | P_P;
    invlpg(mem);
    IS(*mem, 9);
    *alias = 0;
    invlpg(mem);
    IS(read_at(VA), PF);
}

TEST(cr3_cr4_faults, "paging: reserved bits of CR0, CR3, CR4, EFER")
{
    IS(PROBE("mov %0, %%cr3", : "r"(get_cr3() | 1ul << 52)), GP);
    IS(PROBE("mov %0, %%cr3", : "r"(get_cr3() | 1ul << 63)), GP); /* PCIDE is 0 */
    IS(PROBE("mov %0, %%cr0", : "r"(get_cr0() & ~(ulong)CR0_PG & ~(ulong)CR0_PE)), GP);
    IS(PROBE("mov %0, %%cr0", : "r"(get_cr0() & ~(ulong)CR0_PE)), GP);
    IS(PROBE("mov %0, %%cr0", : "r"(get_cr0() & ~(ulong)CR0_PG)), GP); /* in 64-bit code */
    IS(PROBE("mov %0, %%cr0", : "r"((get_cr0() | CR0_NW) & ~(ulong)CR0_CD)), GP);
    IS(PROBE("mov %0, %%cr0", : "r"(get_cr0() | 1ul << 32)), GP);
    IS(PROBE("mov %0, %%cr4", : "r"(get_cr4() & ~(ulong)CR4_PAE)), GP);
    IS(PROBE("mov %0, %%cr4", : "r"(get_cr4() | 1ul << 63)), GP);
    IS(PROBE("mov %0, %%cr4", : "r"(get_cr4() | 1ul << 15)), GP);
    IS(PROBE("mov %0, %%cr4", : "r"(get_cr4() | 1ul << 12)), GP); /* LA57 is not offered */
    IS(PROBE_WRMSR(EFER, rdmsr(EFER) ^ EFER_LME), GP);
    IS(PROBE_WRMSR(EFER, rdmsr(EFER) | 1 << 1), GP);
    IS(PROBE_WRMSR(EFER, rdmsr(EFER) | 1ull << 63), GP);
}
