/*
 * kvmpv.c - KVM's paravirtual interface (Linux, Documentation/virt/kvm/x86/cpuid.rst, msr.rst,
 * hypercalls.rst).
 */
#include "mem.h"
#include "platform.h"

#define CPUS 4

#define MSR_WALL_CLOCK  0x4b564d00u
#define MSR_SYSTEM_TIME 0x4b564d01u
#define MSR_STEAL_TIME  0x4b564d03u
#define MSR_EOI         0x4b564d04u
#define MSR_TSC_ADJUST  0x3bu

#define HC_VAPIC_POLL_IRQ 1
#define HC_KICK_CPU       5
#define HC_SEND_IPI       10

#define NO_RAM 0xd0000000ull /* the PCI window: 64 MiB of RAM end long before */

struct time_info {
    uint32_t version, pad;
    uint64_t tsc, ns;
    uint32_t mul;
    int8_t shift;
    uint8_t flags, pad2[2];
};

struct steal_time {
    uint64_t steal;
    uint32_t version, flags;
    uint8_t preempted, pad[47];
};

static volatile struct time_info clocks[CPUS] __attribute__((aligned(64)));
static volatile struct steal_time steals[CPUS] __attribute__((aligned(64)));
static volatile uint32_t eoi_word;

static unsigned my_id(void)
{
    return apic_read(APIC_ID) >> 24;
}

static int64_t hypercall(uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
    uint64_t r;
    __asm__ volatile("vmcall" : "=a"(r) : "a"(nr), "b"(a0), "c"(a1), "d"(a2), "S"(a3) : "memory");
    return (int64_t)r;
}

/* ---- clock ---- */

static uint64_t clock_of(unsigned n, uint64_t tsc)
{
    const volatile struct time_info *t = &clocks[n];
    uint64_t v;
    uint32_t version;
    do {
        version = t->version;
        __asm__ volatile("" : : : "memory");
        v = tsc - t->tsc;
        v = t->shift < 0 ? v >> -t->shift : v << t->shift;
        uint64_t hi, lo = v;
        __asm__("mulq %2" : "=d"(hi), "+a"(lo) : "r"((uint64_t)t->mul));
        v = (hi << 32 | lo >> 32) + t->ns;
        __asm__ volatile("" : : : "memory");
    } while (version & 1 || version != t->version);
    return v;
}

static uint64_t clock_now(void)
{
    return clock_of(my_id(), rdtsc());
}

static void clock_on(void *arg)
{
    (void)arg;
    wrmsr(MSR_SYSTEM_TIME, (ulong)&clocks[my_id()] | 1);
}

TEST(leaves, "kvmpv: CPUID says KVM, and what it offers")
{
    uint32_t r[4];
    cpuid(0x40000000, 0, r);
    OK(r[0] >= 0x40000001);
    IS(r[1], 0x4b4d564b);
    IS(r[2], 0x564b4d56);
    IS(r[3], 0x4d);
    cpuid(0x40000001, 0, r);
    IS(r[0], 1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 11 | 1 << 24);
    IS(r[1] | r[2] | r[3], 0);
    apic_enable();
    cpus_start(CPUS);
    IS(cpus_started(), CPUS);
}

/* Each interval lies within the next longer one. False: the host took us away between two readings,
 * which does not happen each time. */
static bool rates_agree(void)
{
    uint64_t us = time_us(), ns = clock_now(), tsc = rdtsc();
    wait_us(20000);
    uint64_t dtsc = rdtsc() - tsc, dns = clock_now() - ns, dus = time_us() - us;
    uint32_t r[4];
    cpuid(0x40000010, 0, r); /* TSC rate in kHz */
    uint64_t of_tsc = dtsc * 1000000 / r[0];
    OK(dns + 1000 > of_tsc && dus + dus / 1000 + 10 > dns / 1000);
    return dns < of_tsc + 200000 && dus < dns / 1000 + 200;
}

TEST(clock, "kvmpv: the clock is as fast as others, and never goes back")
{
    clock_on(NULL);
    IS(rdmsr(MSR_SYSTEM_TIME), (ulong)&clocks[0] | 1);
    IS(rdmsr(0x12), rdmsr(MSR_SYSTEM_TIME));
    IS(clocks[0].version & 1, 0);
    OK(clocks[0].version);
    IS(clocks[0].flags, 1);
    uint64_t last = clock_now();
    for (unsigned n = 0; n < 20000; n++) {
        uint64_t now = clock_now();
        OK(now >= last);
        last = now;
    }
    bool done = false;
    for (unsigned n = 0; n < 20 && !done; n++)
        done = rates_agree();
    OK(done);
}

static volatile uint64_t turn_last;
static volatile unsigned turn, backwards;

/* Each in turn reads its own clock: it must not be behind what the one before has read. */
static void take_turns(void *arg)
{
    unsigned me = my_id();
    (void)arg;
    clock_on(NULL);
    for (unsigned n = 0; n < 50; n++) {
        while (turn % CPUS != me)
            pause();
        uint64_t now = clock_now();
        if (now < turn_last)
            backwards++;
        turn_last = now;
        turn++;
    }
}

static void all_take_turns(void)
{
    turn = backwards = 0;
    turn_last = 0;
    for (unsigned n = 1; n < CPUS; n++)
        cpu_call(n, take_turns, NULL);
    take_turns(NULL);
    for (unsigned n = 1; n < CPUS; n++)
        cpu_wait(n);
    IS(backwards, 0);
}

TEST(clocks_agree, "kvmpv: the clocks of all processors are one; a TSC that moves changes that not")
{
    all_take_turns();
    for (unsigned n = 0; n < CPUS; n++) {
        IS(clocks[n].flags, 1);
        IS(clock_of(n, 12345678), clock_of(0, 12345678));
    }
    uint64_t before = clock_now();
    wrmsr(MSR_TSC_ADJUST, rdmsr(MSR_TSC_ADJUST) + 1000000000000);
    uint64_t after = clock_now();
    OK(after >= before && after < before + 10000000000);
    for (unsigned n = 0; n < CPUS; n++)
        IS(clocks[n].flags, 0); /* only with one's own TSC */
    all_take_turns();
    wrmsr(0x10, rdtsc() + 5000);
    OK(clock_now() >= after);
    before = clock_now();
    wrmsr(MSR_TSC_ADJUST, 0);
    after = clock_now();
    OK(after >= before && after < before + 10000000000);
    for (unsigned n = 0; n < CPUS; n++)
        IS(clocks[n].flags, 1);
}

static uint64_t days_since_1970(unsigned y, unsigned m, unsigned d)
{
    static const uint16_t before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    uint64_t leap = (y - 1968) / 4 - (m <= 2 && y % 4 == 0); /* until 2099 */
    return (y - 1970) * 365ull + leap + before[m - 1] + d - 1;
}

static unsigned rtc(unsigned reg)
{
    uint8_t v = cmos_read(reg);
    return (v >> 4) * 10u + (v & 15);
}

static uint64_t rtc_seconds(void)
{
    uint64_t a = 0, b = 1;
    while (a != b) { /* not while it changes */
        b = a;
        while (cmos_read(0x0a) & 0x80)
            pause();
        a = days_since_1970(2000 + rtc(9), rtc(8), rtc(7));
        a = a * 86400 + rtc(4) * 3600 + rtc(2) * 60 + rtc(0);
    }
    return a;
}

TEST(wall_clock, "kvmpv: the wall clock and the clock make the calendar's time")
{
    static volatile struct {
        uint32_t version, sec, nsec;
    } w;
    w.version = 7;          /* left by somebody else, in the middle of a change */
    cmos_write(0x0b, 0x02); /* BCD, 24 h */
    wrmsr(MSR_WALL_CLOCK, (ulong)&w);
    IS(w.version & 1, 0);
    OK(w.version != 7 && w.nsec < 1000000000);
    uint64_t shown = rtc_seconds(), now = w.sec + (clock_now() + w.nsec) / 1000000000;
    note("wall clock less RTC, s", now - shown);
    OK(now + 1 >= shown && now <= shown + 3);
    IS(rdmsr(0x11), (ulong)&w);
    uint32_t version = w.version;
    wrmsr(0x11, (ulong)&w); /* the old number */
    OK(w.version != version);
}

/* ---- end of interrupt by memory ---- */

static volatile unsigned told[4], seen; /* what the handlers found in eoi_word; how many came */

static bool clear_word(void)
{
    bool was;
    __asm__ volatile("btrl $0, %0; setc %1" : "+m"(eoi_word), "=qm"(was) : : "cc", "memory");
    return was;
}

static bool in_service(unsigned vector)
{
    return apic_read(APIC_ISR + (vector >> 5) * 16) >> (vector & 31) & 1;
}

static void self_ipi(unsigned vector)
{
    apic_write(APIC_ICR, 0x44000 | vector);
}

static void by_memory(struct frame *f)
{
    (void)f;
    told[seen & 3] = clear_word();
    if (!told[seen++ & 3])
        apic_eoi();
}

static void by_register(struct frame *f)
{
    (void)f;
    told[seen++ & 3] = eoi_word & 1;
    apic_eoi();
}

static void catch_one(unsigned vector, handler_fn *fn)
{
    set_handler(vector, fn);
    seen = 0;
    self_ipi(vector);
    OK(wait_for(&seen, 1, 5000000));
}

TEST(eoi, "kvmpv: the end of an interrupt told by memory")
{
    IS(rdmsr(MSR_EOI), 0);
    wrmsr(MSR_EOI, (ulong)&eoi_word | 1);
    IS(rdmsr(MSR_EOI), (ulong)&eoi_word | 1);
    for (unsigned n = 0; n < 3; n++) {
        catch_one(0x60, by_memory);
        IS(told[0], 1);
        IS(in_service(0x60), 0);
        IS(apic_read(APIC_PPR), 0);
    }
    catch_one(0x61, by_register); /* the register still works, and takes the offer back */
    IS(told[0], 1);
    IS(eoi_word, 0);
    IS(in_service(0x61), 0);
}

/* One that waits when the other is delivered: the register must be used, and lets it through. */
TEST(eoi_pending, "kvmpv: no offer while another interrupt waits")
{
    set_handler(0x60, by_memory);
    set_handler(0x64, by_memory);
    seen = 0;
    self_ipi(0x60);
    self_ipi(0x64);
    OK(wait_for(&seen, 2, 5000000));
    IS(told[0], 0);
    IS(told[1], 1);
    IS(in_service(0x60) + in_service(0x64), 0);
}

static void asks_for_more(struct frame *f)
{
    (void)f;
    seen++;
    self_ipi(0x64); /* the same class: only after the end of this one */
    wait_us(200);
    told[0] = clear_word();
    if (!told[0])
        apic_eoi();
}

TEST(eoi_then_next, "kvmpv: the next interrupt of a class comes after an end told by memory")
{
    set_handler(0x64, by_memory);
    catch_one(0x60, asks_for_more);
    OK(wait_for(&seen, 2, 5000000));
    IS(told[0], 1); /* the handler was not interruptible, so nothing could take it back */
    IS(in_service(0x60) + in_service(0x64), 0);
}

static void outer(struct frame *f)
{
    (void)f;
    told[2] = eoi_word & 1;
    sti();
    self_ipi(0x90);
    wait_us(200);
    cli();
    told[3] = clear_word();
    if (!told[3])
        apic_eoi();
    else
        told[3] += in_service(0x70);
    seen++;
}

TEST(eoi_nested, "kvmpv: nested interrupts: the offer is the inner one's")
{
    set_handler(0x90, by_memory);
    set_handler(0x70, outer);
    seen = 0;
    self_ipi(0x70);
    OK(wait_for(&seen, 2, 5000000));
    IS(told[2], 1);
    IS(told[0], 1);
    IS(told[3], 0);
    IS(in_service(0x70) + in_service(0x90), 0);
}

static void by_level(struct frame *f)
{
    (void)f;
    ioapic_write(0x14, IOAPIC_MASKED | 0x8000 | 0x52);
    told[0] = eoi_word & 1;
    told[1] = ioapic_read(0x14) >> 14 & 1; /* remote IRR */
    apic_eoi();
    told[2] = ioapic_read(0x14) >> 14 & 1;
    seen++;
}

TEST(eoi_level, "kvmpv: no offer for a level-triggered interrupt")
{
    set_handler(0x52, by_level);
    seen = 0;
    outb(0x43, 0x30); /* channel 0, mode 0: high from the terminal count on */
    outb(0x40, 100);
    outb(0x40, 0);
    ioapic_route(2, 0x8000 | 0x52);
    OK(wait_for(&seen, 1, 5000000));
    IS(told[0], 0);
    IS(told[1], 1);
    IS(told[2], 0);
    catch_one(0x60, by_memory); /* of another, it can be told again */
    IS(told[0], 1);
    wrmsr(MSR_EOI, 0);
    catch_one(0x60, by_memory);
    IS(told[0], 0);
}

/* ---- hypercalls ---- */

static volatile unsigned stop, ipis[CPUS];

static void on_ipi(struct frame *f)
{
    (void)f;
    __atomic_fetch_add(&ipis[my_id()], 1, __ATOMIC_SEQ_CST);
    apic_eoi();
}

static void listen(void *arg)
{
    (void)arg;
    while (!stop)
        __asm__ volatile("sti; hlt; cli" : : : "memory");
}

static void expect_ipis(unsigned set, int64_t got)
{
    unsigned count = 0;
    for (unsigned n = 0; n < CPUS; n++) {
        count += set >> n & 1;
        if (set >> n & 1)
            wait_for(&ipis[n], 1, 5000000);
        IS(ipis[n], set >> n & 1);
        ipis[n] = 0;
    }
    IS(got, count);
}

TEST(send_ipi, "kvmpv: IPIs to several processors by one hypercall")
{
    set_handler(0x60, on_ipi);
    stop = 0;
    for (unsigned n = 1; n < CPUS; n++)
        cpu_call(n, listen, NULL);
    wait_us(2000);
    expect_ipis(0xe, hypercall(HC_SEND_IPI, 0xe, 0, 0, 0x60));
    expect_ipis(0xf, hypercall(HC_SEND_IPI, 0xf, 0, 0, 0x60));
    expect_ipis(0xc, hypercall(HC_SEND_IPI, 3, 0, 2, 0x60));
    expect_ipis(0x4, hypercall(HC_SEND_IPI, 4, ~0ull, 0, 0x60));
    expect_ipis(0, hypercall(HC_SEND_IPI, ~0ull, ~0ull, 4, 0x60));
    IS(hypercall(HC_SEND_IPI, 0xe, 0, 0, 0x860), -22);
    IS(hypercall(HC_SEND_IPI, 0xe, 0, 0, 0xc0060), -22);
    expect_ipis(0, 0);
    stop = 1;
    expect_ipis(0xe, hypercall(HC_SEND_IPI, 0xe, 0, 0, 0x60));
    for (unsigned n = 1; n < CPUS; n++)
        cpu_wait(n);
}

static volatile unsigned halts;

static void halt_deaf(void *arg)
{
    (void)arg;
    for (unsigned n = 0; n < 2; n++) {
        __asm__ volatile("cli; hlt" : : : "memory");
        halts++;
    }
}

TEST(kick, "kvmpv: a kick ends HLT with interrupts closed, or the next one")
{
    halts = 0;
    cpu_call(2, halt_deaf, NULL);
    wait_us(3000);
    IS(halts, 0);
    IS(hypercall(HC_KICK_CPU, 0, 1, 0, 0), 0); /* somebody else */
    wait_us(2000);
    IS(halts, 0);
    hypercall(HC_KICK_CPU, 0, 2, 0, 0);
    wait_for(&halts, 1, 5000000);
    IS(halts, 1);
    wait_us(2000);
    IS(halts, 1); /* once */
    hypercall(HC_KICK_CPU, 0, 2, 0, 0);
    cpu_wait(2);
    /* 1 was kicked while it ran: it does not halt once. */
    halts = 0;
    cpu_call(1, halt_deaf, NULL);
    wait_for(&halts, 1, 5000000);
    wait_us(2000);
    IS(halts, 1);
    hypercall(HC_KICK_CPU, 0, 1, 0, 0);
    cpu_wait(1);
    IS(halts, 2);
}

USER(user_vmcall, "mov $1, %eax; vmcall; int $0x80");

TEST(calls, "kvmpv: other hypercalls, and those of user code")
{
    IS(hypercall(HC_VAPIC_POLL_IRQ, 0, 0, 0, 0), 0);
    IS(hypercall(2, 0, 0, 0, 0), -1000);
    IS(hypercall(9, (ulong)steals, 0, 0, 0), -1000);
    IS(hypercall(~0ull, ~0ull, ~0ull, ~0ull, ~0ull), -1000);
    int64_t r;
    __asm__ volatile("vmmcall" : "=a"(r) : "a"(0x12345ull), "b"(0), "c"(0), "d"(0), "S"(0));
    IS(r, -1000);
    IS(user(user_vmcall, 0), 0x80);
    IS(trap.ax, (uint64_t)-1); /* -EPERM */
    IS(PROBE(".byte 0xf0; vmcall", : "a"(1) : "memory"), UD);
}

/* ---- steal time ---- */

static void steal_on(void *arg)
{
    (void)arg;
    wrmsr(MSR_STEAL_TIME, (ulong)&steals[my_id()] | 1);
}

TEST(steal, "kvmpv: steal time grows, but not faster than time")
{
    uint64_t begin = clock_now(), last = 0;
    steal_on(NULL);
    IS(rdmsr(MSR_STEAL_TIME), (ulong)&steals[0] | 1);
    IS(steals[0].preempted, 0);
    set_handler(0x60, by_register);
    for (unsigned n = 0; n < 100; n++) {
        uint64_t stolen = steals[0].steal;
        OK(stolen >= last);
        last = stolen;
        IS(steals[0].version & 1, 0);
        IS(steals[0].preempted, 0);
        self_ipi(0x60);
        wait_for(&seen, ~0u, 500);
    }
    note("stolen in ns", last);
    note("of", clock_now() - begin);
    OK(last < clock_now() - begin);
}

static volatile uint32_t *const page = (volatile uint32_t *)TEST_VA;
static volatile unsigned phase, read_value;

static void halt_between(void *arg)
{
    (void)arg;
    steal_on(NULL);
    for (unsigned n = 0; n < 3; n++) {
        read_value = *page;
        phase = 2 * n + 1;
        __asm__ volatile("sti; hlt; cli" : : : "memory");
        read_value = *page;
        phase = 2 * n + 2;
        while (phase == 2 * n + 2)
            pause();
    }
}

static uint8_t wait_preempted(unsigned cpu)
{
    for (uint64_t end = time_us() + 5000000; !steals[cpu].preempted && time_us() < end;)
        pause();
    return steals[cpu].preempted;
}

TEST(preempted, "kvmpv: a halted processor is marked, and flushes its TLB when asked to")
{
    uint32_t *pages[2] = {page_alloc(), page_alloc()};
    pages[0][0] = 100;
    pages[1][0] = 101;
    map_page(TEST_VA, (ulong)pages[0], P_P | P_W);
    set_handler(0x61, by_register);
    phase = 0;
    cpu_call(1, halt_between, NULL);
    for (unsigned n = 0; n < 3; n++) {
        wait_for(&phase, 2 * n + 1, 5000000);
        IS(phase, 2 * n + 1);
        IS(read_value, 100 + (n & 1));
        IS(wait_preempted(1), 1);
        /* The processor sleeps with a translation that is wrong from now on. */
        *entry_of(TEST_VA, 1) = (ulong)pages[~n & 1] | P_P | P_W;
        uint8_t old = 1;
        OK(__atomic_compare_exchange_n(&steals[1].preempted, &old, 3, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST));
        apic_ipi(1, 0x4061);
        wait_for(&phase, 2 * n + 2, 5000000);
        IS(read_value, 101 - (n & 1));
        IS(steals[1].preempted, 0);
        phase = 0;
    }
    cpu_wait(1);
}

/* ---- what is refused ---- */

TEST(refused, "kvmpv: addresses and bits that are refused or ignored")
{
    IS(PROBE_WRMSR(MSR_EOI, NO_RAM | 1), GP);
    IS(PROBE_WRMSR(MSR_EOI, ~0ull & ~2ull), GP);
    IS(PROBE_WRMSR(MSR_EOI, (ulong)&eoi_word | 2), GP);
    IS(rdmsr(MSR_EOI), 0);
    for (unsigned bit = 1; bit < 6; bit++)
        IS(PROBE_WRMSR(MSR_STEAL_TIME, (ulong)&steals[0] | 1 << bit), GP);
    static const uint64_t bad[] = {NO_RAM, 0xfee00000, 0xfffff000, ~0ull & ~63ull, 1ull << 40};
    for (unsigned n = 0; n < sizeof bad / sizeof bad[0]; n++) {
        IS(PROBE_WRMSR(MSR_WALL_CLOCK, bad[n]), NO_TRAP);
        IS(PROBE_WRMSR(MSR_SYSTEM_TIME, bad[n] | 1), NO_TRAP);
        IS(PROBE_WRMSR(MSR_STEAL_TIME, bad[n] | 1), NO_TRAP);
        IS(rdmsr(MSR_STEAL_TIME), bad[n] | 1);
        catch_one(0x60, by_register);
    }
    /* Not aligned: nothing is written. */
    static uint8_t area[64] __attribute__((aligned(64)));
    wrmsr(MSR_WALL_CLOCK, (ulong)area + 2);
    wrmsr(MSR_SYSTEM_TIME, (ulong)area + 2 + 1);
    for (unsigned n = 0; n < sizeof area; n++)
        IS(area[n], 0);
    for (unsigned n = 2; n < 9; n += n == 2 ? 3 : 1) { /* those of features not offered */
        IS(PROBE_WRMSR(MSR_WALL_CLOCK + n, 0), GP);
        IS(PROBE("rdmsr", : "c"(MSR_WALL_CLOCK + n) : "eax", "edx"), GP);
    }
    wrmsr(MSR_SYSTEM_TIME, 0);
    wrmsr(MSR_STEAL_TIME, 0);
}

static volatile uint64_t after_init[3];
static volatile unsigned back;

static void ap_again(void)
{
    after_init[0] = rdmsr(MSR_SYSTEM_TIME);
    after_init[1] = rdmsr(MSR_STEAL_TIME);
    after_init[2] = rdmsr(MSR_EOI);
    back = 1;
    for (;;)
        __asm__ volatile("cli; hlt");
}

static void all_on(void *arg)
{
    (void)arg;
    clock_on(NULL);
    steal_on(NULL);
    wrmsr(MSR_EOI, (ulong)&eoi_word | 1);
}

void set_ap_entry(void (*fn)(void), ulong stack);

TEST(init, "kvmpv: INIT switches it off")
{
    cpu_call(3, all_on, NULL);
    cpu_wait(3);
    set_ap_entry(ap_again, (ulong)page_alloc() + 4080);
    apic_ipi(3, 0x4500);
    wait_us(1000);
    apic_ipi(3, 0x4608);
    OK(wait_for(&back, 1, 5000000));
    IS(after_init[0] | after_init[1] | after_init[2], 0);
    uint32_t version = clocks[3].version;
    wrmsr(MSR_TSC_ADJUST, 1);
    wrmsr(MSR_TSC_ADJUST, 0);
    IS(clocks[3].version, version);
}
