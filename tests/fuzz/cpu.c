/*
 * cpu.c - an engine on random code in a random machine state: whatever it is, the processor ends in
 * a guest-visible way, soon, and touches nothing but guest memory.
 *
 * Input: mode and state (below), a list of pokes into memory that alter descriptor tables, page
 * tables and the rest, then the code. RAM is a good MiB with a hole for devices and a read-only
 * page; code lies at CODE, an identity map of the first GiB at TABLES. Afterwards the software TLB
 * is inspected: each entry must lead into guest memory, and a writable one not to the ROM.
 *
 * Guest loops that no interrupt ends are cut short by a timer; what depends on the moment is where
 * such a loop ends, nothing else. Memory that holds nothing else is HLT, so that few inputs loop.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "cpu.h"
#include "fuzz.h"
#include "isa/x86/code.h"
#include "isa/x86/cpuid.h"
#include "state/fields.h"

#define RAM_SIZE (MIB + 64 * KIB)
#define HOLE     0xa0000u /* one page of device registers */
#define ROM      0xb0000u /* one page */
#define GDT      0x1000u
#define IDT      0x2000u
#define TSS      0x3000u
#define HANDLERS 0x5000u
#define STACK    0x8000u
#define CODE     0x10000u
#define TABLES   0x20000u /* PML4, PDPT, PD; a 32-bit page directory; a PAE PDPT */
#define BUDGET   300000   /* nanoseconds for a loop */
#define HLT      0xf4
#define ROM_BYTE 0x90

static struct {
    struct ram ram;
    struct space space;
    struct x86_cpu *c;
    struct x86_model model;
    uint64_t rom, tsc, tpr, io;
    timer_t timer;
    struct fuzz_in in;
} m;

/* ---- the machine around it ---- */

static uint64_t bus_read(struct fuzz_in *in)
{
    if (++m.io > 1000)
        atomic_fetch_or(&m.c->pending, X86_PEND_KICK);
    return in->left ? fuzz_uint(in, 8) : m.io * 0x9e3779b97f4a7c15u;
}

static uint64_t io_read(void *ctx, uint16_t port, unsigned size)
{
    FUZZ_REQUIRE(size == 1 || size == 2 || size == 4);
    return bus_read(&m.in) & ((1ull << (8 * size)) - 1);
}

static void io_write(void *ctx, uint16_t port, uint64_t val, unsigned size)
{
    FUZZ_REQUIRE(size == 1 || size == 2 || size == 4);
    uint32_t event = (uint32_t)bus_read(&m.in);
    if (!(event & 7)) /* something happens meanwhile */
        atomic_fetch_or(&m.c->pending, 1u << (event >> 3 & 7) & 0x3f);
}

static uint64_t mem_read(void *ctx, gpa_t addr, unsigned size)
{
    FUZZ_REQUIRE(size && size <= 8 && addr >> X86_PHYS_BITS == 0);
    return bus_read(&m.in) & (size == 8 ? ~0ull : (1ull << (8 * size)) - 1);
}

static void mem_write(void *ctx, gpa_t addr, uint64_t val, unsigned size)
{
    FUZZ_REQUIRE(size && size <= 8 && addr >> X86_PHYS_BITS == 0);
    bus_read(&m.in);
}

static int intr_ack(void *ctx)
{
    int v = (int)(bus_read(&m.in) & 0x1ff);
    return v < 256 ? v : -1;
}

static uint64_t tsc(void *ctx)
{
    return m.tsc += 1000;
}

static uint64_t get_tpr(void *ctx)
{
    return m.tpr;
}

static void set_tpr(void *ctx, uint64_t v)
{
    FUZZ_REQUIRE(v < 16);
    m.tpr = v;
}

static bool apic_msr(void *ctx, uint32_t msr, bool write, uint64_t *val)
{
    if (!write)
        *val = 0xfee00900;
    return bus_read(&m.in) & 1;
}

static void unwrite_others(void *ctx, uint64_t roff, uint64_t places)
{
    FUZZ_REQUIRE(roff < m.ram.total);
}

static void on_timer(int sig)
{
    atomic_fetch_or(&m.c->pending, X86_PEND_KICK);
}

/* A page without access on either side of guest memory, so that a step too far is seen. */
static void fence(void)
{
    uint8_t *sides[2] = {m.ram.host - PAGE_SIZE, m.ram.host + m.ram.total};
    for (unsigned n = 0; n < 2; n++)
        mmap(sides[n], PAGE_SIZE, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
}

static void create_timer(void)
{
    struct sigaction sa = {.sa_handler = on_timer, .sa_flags = SA_RESTART | SA_ONSTACK};
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    FUZZ_REQUIRE(!sigaction(SIGRTMIN, &sa, NULL));
    FUZZ_REQUIRE(!timer_create(CLOCK_MONOTONIC, &ev, &m.timer));
}

static void create_map(void)
{
    unsigned id;
    FUZZ_REQUIRE(!ram_init(&m.ram, RAM_SIZE, NULL));
    FUZZ_REQUIRE(!space_init(&m.space, 1ull << X86_PHYS_BITS, &m.ram, NULL));
    FUZZ_REQUIRE(!ram_rom_alloc(&m.ram, PAGE_SIZE, &m.rom, NULL));
    FUZZ_REQUIRE(!space_add_ram(&m.space, 0, HOLE, 0, 0, &id, NULL));
    FUZZ_REQUIRE(!space_add_rom(&m.space, ROM, PAGE_SIZE, m.rom, 0, &id, NULL));
    FUZZ_REQUIRE(!space_add_ram(&m.space, MIB, RAM_SIZE - MIB, MIB, 0, &id, NULL));
    m.ram.low_end = RAM_SIZE;
    fence();
}

/* Once: building a vCPU takes longer than most inputs. */
static void create(const struct engine *e)
{
    create_map();
    size_t size = (sizeof *m.c + 63) / 64 * 64;
    m.c = aligned_alloc(64, size);
    FUZZ_REQUIRE(m.c);
    memset(m.c, 0, size);
    m.c->ram = &m.ram;
    m.c->mem = &m.space;
    m.c->ncpus = 1;
    m.c->a20_mask = ~0ull;
    m.c->bus = (struct x86_bus){.io_read = io_read,
                                .io_write = io_write,
                                .mem_read = mem_read,
                                .mem_write = mem_write,
                                .intr_ack = intr_ack,
                                .tsc = tsc,
                                .get_tpr = get_tpr,
                                .set_tpr = set_tpr,
                                .apic_msr = apic_msr,
                                .unwrite_others = unwrite_others};
    FUZZ_REQUIRE(!x86_model_init(&m.model, 1000000000, NULL));
    m.c->model = &m.model;
    FUZZ_REQUIRE(!e->vcpu_create(m.c, NULL));
    create_timer();
}

/* ---- the state to start from ---- */

static void put(gpa_t at, uint64_t v, unsigned size)
{
    memcpy(m.ram.host + at, &v, size);
}

enum { SEL_CODE16 = 8, SEL_CODE32 = 0x10, SEL_CODE64 = 0x18, SEL_DATA = 0x20, SEL_TSS = 0x28 };

/* For each level a code segment of 16, 32 and 64 bits, and data; a TSS, an LDT, call gates. */
static void put_gdt(void)
{
    for (uint64_t cpl = 0; cpl < 4; cpl++) {
        gpa_t at = GDT + 0x40 * cpl;
        put(at + SEL_CODE16, 0x00009b000000ffffull | cpl << 45, 8);
        put(at + SEL_CODE32, 0x00cf9b000000ffffull | cpl << 45, 8);
        put(at + SEL_CODE64, 0x00af9b000000ffffull | cpl << 45, 8);
        put(at + SEL_DATA, 0x00cf93000000ffffull | cpl << 45, 8);
        put(at + SEL_TSS, 0x0000890000000067ull | (uint64_t)TSS << 16, 8);
        put(at + 0x38, 0x0000e200000000ffull | (uint64_t)(GDT + 0x200) << 16, 8);
    }
    put(GDT + 0x200, (uint64_t)HANDLERS | SEL_CODE32 << 16 | 0x0000ec0200000000ull, 8);
    put(GDT + 0x208, (uint64_t)HANDLERS | SEL_CODE16 << 16 | 0x0000e40000000000ull, 8);
    put(GDT + 0x210, (uint64_t)HANDLERS | SEL_CODE64 << 16 | 0x0000ec0000000000ull, 8);
    put(GDT + 0x220, 0x0000e50000000000ull | SEL_TSS << 16, 8);
}

/* Handlers are code of the input too: they run into what lies behind. */
static void put_idt(bool wide)
{
    for (unsigned v = 0; v < 256; v++) {
        uint64_t gate = (uint64_t)(HANDLERS + v) | 0xee0000000000ull;
        put(v * 4, HANDLERS + v, 4); /* real mode */
        if (wide)
            put(IDT + v * 16, gate | SEL_CODE64 << 16, 8);
        else if (v * 8 < 0x800)
            put(IDT + v * 8, gate | SEL_CODE32 << 16, 8);
    }
}

static void put_tables(void)
{
    put(TABLES, (TABLES + 0x1000) | 7, 8);
    put(TABLES + 0x1000, (TABLES + 0x2000) | 7, 8);
    for (uint64_t n = 0; n < 512; n++)
        put(TABLES + 0x2000 + 8 * n, n << 21 | 0x87, 8);
    for (uint64_t n = 0; n < 1024; n++)
        put(TABLES + 0x3000 + 4 * n, n << 22 | 0x87, 4);
    put(TABLES + 0x4000, (TABLES + 0x2000) | 1, 8);
}

static void segment(unsigned n, uint16_t sel, uint64_t desc)
{
    uint32_t limit = (uint32_t)((desc & 0xffff) | (desc >> 32 & 0xf0000));
    if (desc >> 55 & 1)
        limit = limit << 12 | 0xfff;
    m.c->s.seg[n] =
        (struct x86_seg){.limit = limit, .sel = sel, .attr = (uint32_t)(desc >> 40) & 0xf0ff};
}

enum { REAL, PROT16, PROT32, PAGED32, PAE32, COMPAT, LONG, VM86 };

static void set_mode(unsigned mode, unsigned cpl, uint32_t cr4)
{
    struct x86_state *s = &m.c->s;
    bool lm = mode == COMPAT || mode == LONG;
    s->cr0 |= mode == REAL ? 0 : X86_CR0_PE;
    if (mode == PAGED32 || mode == PAE32 || lm)
        s->cr0 |= X86_CR0_PG;
    s->cr4 = cr4 & m.model.cr4_mask & ~(uint64_t)(X86_CR4_PAE | X86_CR4_PCIDE);
    if (mode == PAE32 || lm)
        s->cr4 |= X86_CR4_PAE;
    if (lm) {
        s->efer |= X86_EFER_LME | X86_EFER_LMA;
        s->cr4 |= cr4 & m.model.cr4_mask & X86_CR4_PCIDE;
    }
    if (mode == PAGED32)
        s->cr4 |= X86_CR4_PSE;
    s->cr3 = mode == PAGED32 ? TABLES + 0x3000 : mode == PAE32 ? TABLES + 0x4000 : TABLES;
    if (mode == PAE32)
        memcpy(s->pdpte, m.ram.host + TABLES + 0x4000, sizeof s->pdpte);
    if (mode == REAL || mode == VM86) {
        bool v86 = mode == VM86;
        for (unsigned n = 0; n < X86_NSEG; n++)
            segment(n, 0, v86 ? 0x0000f3000000ffffull : 0x000093000000ffffull);
        s->seg[X86_CS].sel = CODE >> 4;
        s->seg[X86_CS].base = CODE;
        s->rip = 0;
        s->rflags |= v86 ? X86_FL_VM : 0;
        return;
    }
    uint64_t dpl = (uint64_t)cpl << 45;
    uint16_t base = (uint16_t)(0x40 * cpl + cpl);
    for (unsigned n = 0; n < X86_NSEG; n++)
        segment(n, base + SEL_DATA, 0x00cf93000000ffffull | dpl);
    if (mode == PROT16)
        segment(X86_CS, base + SEL_CODE16, 0x000f9b000000ffffull | dpl);
    else if (mode == LONG)
        segment(X86_CS, base + SEL_CODE64, 0x00af9b000000ffffull | dpl);
    else
        segment(X86_CS, base + SEL_CODE32, 0x00cf9b000000ffffull | dpl);
    s->rip = CODE;
}

/* Registers point to interesting places more often than not. */
static void set_registers(void)
{
    static const uint64_t places[16] = {
        0,   1,       ~0ull,      STACK,      CODE,       RAM_SIZE - 1, RAM_SIZE, HOLE,
        ROM, ROM - 3, 0x7fffffff, 0xfffffffc, 1ull << 47, 0x10ffef,     TABLES,   HANDLERS,
    };
    for (unsigned n = 0; n < 16; n++) {
        uint8_t what = fuzz_u8(&m.in);
        m.c->s.gpr[n] = what >= 0xf0 ? fuzz_uint(&m.in, 8) : places[what & 15] + (what >> 4);
    }
    if (fuzz_u8(&m.in) & 3)
        m.c->s.gpr[X86_RSP] = STACK;
}

static void set_state(void)
{
    struct x86_state *s = &m.c->s;
    uint8_t mode = fuzz_u8(&m.in), cr0 = fuzz_u8(&m.in);
    uint32_t cr4 = (uint32_t)fuzz_uint(&m.in, 3), fl = (uint32_t)fuzz_uint(&m.in, 3);
    unsigned cpl = (mode & 7) == REAL ? 0 : (mode & 7) == VM86 ? 3 : mode >> 3 & 3;
    uint8_t debug = fuzz_u8(&m.in);
    s->cr0 = X86_CR0_ET | (cr0 & 0x2e) | (cr0 & 1 ? X86_CR0_WP : 0) | (cr0 & 16 ? X86_CR0_AM : 0);
    s->efer = (mode & 0x20 ? X86_EFER_NXE : 0) | X86_EFER_SCE;
    s->rflags = (fl & X86_FL_ALL & ~(uint32_t)(X86_FL_VM | X86_FL_RF)) | X86_FL_R1;
    s->xcr0 = m.model.xcr0_mask;
    s->gdtr = (struct x86_dtr){GDT, 0x3ff};
    s->idtr = (mode & 7) == REAL ? (struct x86_dtr){0, 0x3ff} : (struct x86_dtr){IDT, 0xfff};
    s->tr = (struct x86_seg){.base = TSS, .limit = 0x1fff, .sel = SEL_TSS, .attr = 0x8b};
    s->ldtr = (struct x86_seg){.base = GDT + 0x200, .limit = 0xff, .sel = 0x38, .attr = 0x82};
    s->lstar = s->cstar = s->sysenter_eip = HANDLERS;
    s->sysenter_cs = SEL_CODE32;
    s->star = (uint64_t)SEL_CODE64 << 32 | (uint64_t)SEL_CODE16 << 48;
    set_mode(mode & 7, cpl, cr4);
    if (debug & 1) { /* breakpoints: code, data, I/O */
        s->dr[7] = 0x400 | (uint32_t)debug << 16 | (debug >> 1 & 0x7f);
        s->dr[0] = CODE + (debug >> 4);
        s->dr[1] = STACK - 2;
    }
    set_registers();
}

/* ---- one input ---- */

static void fill_memory(unsigned mode)
{
    memset(m.ram.host, 0, TABLES + 0x5000);
    memset(m.ram.host + HANDLERS, HLT, STACK - 0x1000 - HANDLERS);
    memset(m.ram.host + CODE, HLT, TABLES - CODE);
    memset(m.ram.host + TABLES + 0x5000, HLT, RAM_SIZE - TABLES - 0x5000);
    memset(m.ram.host + m.rom, ROM_BYTE, PAGE_SIZE);
    put_gdt();
    put_idt(mode == COMPAT || mode == LONG);
    put_tables();
    put(TSS + 4, STACK + 0x1000, 8); /* ESP0 and SS0, RSP0 */
    put(TSS + 8, mode == LONG || mode == COMPAT ? 0 : SEL_DATA, 4);
    put(TSS + 0x66, 104, 2);
}

static void poke(void)
{
    for (unsigned n = fuzz_u8(&m.in) & 15; n; n--) {
        static const uint32_t base[8] = {GDT, IDT, TSS, TABLES, TABLES + 0x2000, STACK, 0, ROM};
        uint16_t at = fuzz_u16(&m.in);
        gpa_t gpa = base[at >> 13] + (at & 0xfff);
        uint64_t v = fuzz_uint(&m.in, 1 + (at >> 12 & 1) * 7);
        put(gpa < HOLE ? gpa : m.rom + (at & 0xff0), v, 1 + (at >> 12 & 1) * 7);
    }
}

static void check_tlb(void)
{
    for (unsigned u = 0; u < X86_NMMU; u++) {
        for (unsigned n = 0; n < X86_TLB_SIZE; n++) {
            const struct x86_tlbe *t = &m.c->tlb.e[u][0][n];
            uint64_t wtag = atomic_load(&t->wtag);
            uint64_t tags[3] = {t->rtag, wtag, t->xtag};
            for (unsigned k = 0; k < 3; k++) {
                if (X86_TLB_IS_NONE(tags[k]))
                    continue;
                uint64_t host = t->addend + (tags[k] & ~(PAGE_SIZE - 1));
                uint64_t roff = host - (uint64_t)(uintptr_t)m.ram.host;
                FUZZ_REQUIRE(roff < RAM_SIZE || (roff == m.rom && k != 1));
            }
        }
    }
}

/* Once, not again and again: while a split lock of the guest is held up by the host (Linux makes
 * its task sleep for 10 ms), a signal makes it start anew. */
static void arm(ns_t ns)
{
    const struct itimerspec t = {.it_value.tv_nsec = ns};
    timer_settime(m.timer, 0, &t, NULL);
}

static void run(const struct engine *e)
{
    arm(BUDGET);
    for (unsigned n = 0; n < 4; n++) {
        enum engine_exit why = e->run(m.c);
        FUZZ_REQUIRE(why != ENGINE_EXIT_FAILED);
        if (why != ENGINE_EXIT_HALT)
            break;
        atomic_fetch_or(&m.c->pending, X86_PEND_INTR | X86_PEND_NMI);
    }
    arm(0);
}

/* The state goes through its saved form, in which the input changes something. False: it was
 * refused. */
static bool change_saved(void)
{
    struct state_out out;
    state_out_init(&out, MIB);
    state_save_fields(&x86_cpu_fields, m.c, &out);
    FUZZ_REQUIRE(!out.failed);
    unsigned changes = fuzz_u8(&m.in) & 7;
    for (unsigned n = changes; n; n--) {
        uint16_t at = fuzz_u16(&m.in);
        out.p[at % out.len] ^= fuzz_u8(&m.in);
    }
    struct state_in in = {.p = out.p, .len = out.len};
    bool ok = !state_load_fields(&x86_cpu_fields, m.c, &in, NULL);
    if (!changes) { /* it comes back the same */
        struct state_out again;
        state_out_init(&again, MIB);
        state_save_fields(&x86_cpu_fields, m.c, &again);
        FUZZ_REQUIRE(ok && again.len == out.len && !memcmp(again.p, out.p, out.len));
        state_out_fini(&again);
    }
    state_out_fini(&out);
    return ok;
}

void cpu_input(const struct engine *e, bool saved, const uint8_t *data, size_t size)
{
    if (!m.c)
        create(e);
    m.in = (struct fuzz_in){data, size};
    m.io = m.tsc = m.tpr = 0;
    atomic_store(&m.c->pending, 0);
    atomic_store(&m.c->a20_mask, ~0ull);
    fill_memory(size ? data[0] & 7 : 0);
    x86_reset(m.c, false);
    x86_code_flush(m.c);
    ram_note_write(&m.ram, 0, m.ram.total);
    set_state();
    poke();
    x86_update_mode(m.c);
    if (saved && !change_saved())
        return;
    size_t n = m.in.left < 2048 ? m.in.left : 2048;
    if (n) {
        memcpy(m.ram.host + CODE, m.in.p, n);
        memcpy(m.ram.host + HANDLERS, m.in.p + n / 2, n - n / 2);
    }
    run(e);
    check_tlb();
    for (unsigned k = 0; k < PAGE_SIZE; k++) /* pokes leave multiples of 16 alone but for 8 bytes */
        FUZZ_REQUIRE(k % 16 < 8 || m.ram.host[m.rom + k] == ROM_BYTE);
}
