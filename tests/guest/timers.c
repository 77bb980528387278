/*
 * timers.c - clocks and interrupt controllers: 8254, 8259A, local APIC, I/O APIC, HPET, RTC, ACPI
 * PM timer.
 *
 * Times are compared with the PM timer. A busy host may stop the processor between any two
 * instructions and deliver interrupts late, several periods as one; it never delivers them early or
 * more than there were. Therefore a time is taken from before a timer is started, so that too short
 * is wrong in any case; what a late host spoils is an attempt, which is repeated (retry()).
 */
#include "mem.h"
#include "platform.h"

static volatile unsigned hits[256];

static void count(struct frame *f)
{
    hits[f->vector]++;
    apic_eoi();
}

static void count_pic(struct frame *f)
{
    hits[f->vector]++;
    if (f->vector >= 0x28)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
}

#define TRIES 20u

/* False: the host was late. */
static bool in_time(uint64_t us, uint64_t want, int line)
{
    check_equal("early", us + want / 50 + 100 < want, 0, line);
    return us <= want * 3 + 100000;
}
#define IN_TIME(us, want) in_time(us, want, __LINE__)

static void retry(bool (*attempt)(void), int line)
{
    bool done = false;
    for (unsigned n = 0; n < TRIES && !done; n++)
        done = attempt();
    check_equal("late each time", !done, 0, line);
}
#define RETRY(attempt) retry(attempt, __LINE__)

/* With interrupts open: what is pending comes in. */
static void idle(unsigned us)
{
    static volatile unsigned never;
    wait_for(&never, 1, us);
}

/* A counter and the time at which it was read, unless the host is too busy to tell. */
static uint64_t sample(uint64_t (*read)(void), uint64_t *us)
{
    for (unsigned n = 0;; n++) {
        uint64_t before = time_us(), v = read();
        if (time_us() - before < 100 || n == 1000) {
            *us = before;
            return v;
        }
    }
}

static uint64_t read_tccr(void)
{
    return apic_read(APIC_TCCR);
}

#define HPET(off) (*(volatile uint64_t *)(0xfed00000ul + (off)))

static uint64_t read_hpet(void)
{
    return HPET(0xf0);
}

TEST(pm_timer, "timers: ACPI PM timer: 3.58 MHz against the TSC")
{
    uint32_t r[4];
    cpuid(0x15, 0, r);
    uint64_t outer = rdtsc();
    uint32_t a = inl(PM_TIMER);
    uint64_t inner = rdtsc();
    for (unsigned n = 0; n < 10000000 && ((inl(PM_TIMER) - a) & 0xffffff) < 35795; n++)
        pause();
    inner = rdtsc() - inner;
    uint32_t ticks = (inl(PM_TIMER) - a) & 0xffffff;
    outer = rdtsc() - outer;
    OK(ticks >= 35795);
    if (r[0] && r[1] && r[2]) {
        uint64_t khz = (uint64_t)r[2] * r[1] / r[0] / 1000;
        uint64_t us = ticks * 1000000ull / 3579545, slack = us / 50 + 10;
        OK(inner * 1000 / khz <= us + slack); /* whatever came between the readings */
        OK(outer * 1000 / khz + slack >= us);
    }
}

static void pic_init(void)
{
    outb(0x20, 0x11);
    outb(0x21, 0x20);
    outb(0x21, 4);
    outb(0x21, 1);
    outb(0xa0, 0x11);
    outb(0xa1, 0x28);
    outb(0xa1, 2);
    outb(0xa1, 1);
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
}

static void pit(unsigned channel, unsigned mode, unsigned n)
{
    outb(0x43, (uint8_t)(channel << 6 | 0x30 | mode << 1));
    outb((uint16_t)(0x40 + channel), (uint8_t)n);
    outb((uint16_t)(0x40 + channel), (uint8_t)(n >> 8));
}

/* Setting the mode may be an edge of its own: the tenth comes after nine periods. */
static bool pit_rate(void)
{
    unsigned from = hits[0x20];
    uint64_t t = time_us();
    pit(0, 2, 5966); /* 5 ms */
    outb(0x21, 0xfe);
    OK(wait_for(&hits[0x20], from + 10, 5000000));
    t = time_us() - t;
    outb(0x21, 0xff);
    return IN_TIME(t, 45000);
}

static bool pit_once(void)
{
    pit(0, 0, 0xffff); /* output goes low: the request disappears before it is let in */
    outb(0x21, 0xfe);
    idle(3000);
    unsigned from = hits[0x20];
    uint64_t t = time_us();
    pit(0, 0, 1193); /* mode 0: one interrupt, after 1 ms */
    OK(wait_for(&hits[0x20], from + 1, 5000000));
    t = time_us() - t;
    idle(10000);
    IS(hits[0x20], from + 1);
    outb(0x21, 0xff);
    return IN_TIME(t, 1000);
}

TEST(pit_pic, "timers: 8254 through the 8259A and LINT0: rate, mask, one shot")
{
    apic_enable();
    apic_write(APIC_LVT0, 0x700); /* ExtINT */
    pic_init();
    set_handler(0x20, count_pic);
    set_handler(0x27, count_pic);
    RETRY(pit_rate);
    IS(inb(0x21), 0xff); /* masked */
    idle(5000);
    unsigned from = hits[0x20];
    idle(20000);
    IS(hits[0x20], from);
    RETRY(pit_once);
}

static unsigned pit_latch(void)
{
    outb(0x43, 0);
    unsigned n = inb(0x40);
    return n | (unsigned)inb(0x40) << 8;
}

static bool pit_counts(void)
{
    uint64_t outer = time_us();
    unsigned a = pit_latch();
    uint64_t inner = time_us();
    wait_us(2000);
    inner = time_us() - inner;
    unsigned passed = (a - pit_latch()) & 0xffff;
    outer = time_us() - outer;
    if (outer > 50000)
        return false; /* 55 ms: once around */
    OK(passed + 50 >= inner * 1193 / 1000);
    OK(passed <= outer * 1194 / 1000 + 50);
    return true;
}

static bool pit_gate(void)
{
    outb(0x61, (uint8_t)(inb(0x61) & ~3)); /* gate off, speaker off */
    pit(2, 0, 1193);
    wait_us(3000);
    IS(inb(0x61) >> 5 & 1, 0); /* does not count */
    uint64_t t = time_us();
    outb(0x61, (uint8_t)((inb(0x61) & ~2) | 1));
    while (!(inb(0x61) & 0x20) && time_us() - t < 1000000)
        pause();
    t = time_us() - t;
    IS(inb(0x61) >> 5 & 1, 1);
    return IN_TIME(t, 1000);
}

TEST(pit_count, "timers: 8254: latched counts, channel 2 and its gate")
{
    pit(0, 2, 0xffff);
    RETRY(pit_counts);
    RETRY(pit_gate);
    /* Read-back: status of channel 2: output high, mode 0, word */
    outb(0x43, 0xe8);
    IS(inb(0x42) & 0xbf, 0xb0);
}

TEST(pic_spurious, "timers: 8259A: priorities and registers")
{
    outb(0x21, 0xfb);
    outb(0x20, 0x0b); /* read ISR */
    IS(inb(0x20), 0);
    outb(0x21, 0xff);
    outb(0xa0, 0x0a); /* read IRR */
    IS(inb(0xa0) & 0x40, 0);
}

static uint32_t per_ms; /* ticks of the local APIC's timer */

/* Starts the timer and waits for `n` interrupts. */
static bool lapic_shots(uint32_t ticks, unsigned n, uint64_t want)
{
    unsigned from = hits[0x50];
    uint64_t t = time_us();
    apic_write(APIC_TICR, ticks);
    OK(wait_for(&hits[0x50], from + n, 5000000));
    return IN_TIME(time_us() - t, want);
}

static bool lapic_once(void)
{
    return lapic_shots(per_ms * 5, 1, 5000);
}

static bool lapic_by_16(void)
{
    return lapic_shots(per_ms / 4, 1, 4000);
}

static bool lapic_stopped(void) /* divided by 16, too */
{
    unsigned from = hits[0x50];
    uint64_t t = time_us();
    apic_write(APIC_TICR, per_ms);
    apic_write(APIC_TICR, 0);
    bool soon = time_us() - t < 15000;
    idle(40000);
    if (soon)
        IS(hits[0x50], from);
    return soon;
}

static bool lapic_periodic(void)
{
    apic_write(APIC_LVTT, 0x20050);
    bool done = lapic_shots(per_ms * 2, 10, 20000);
    apic_write(APIC_LVTT, 0x10050);
    apic_write(APIC_TICR, 0);
    idle(1000);
    return done;
}

TEST(lapic_oneshot, "timers: local APIC timer: one shot, divider, mask")
{
    set_handler(0x50, count);
    apic_write(APIC_TDCR, 0xb); /* by 1 */
    apic_write(APIC_LVTT, 0x10050);
    apic_write(APIC_TICR, ~0u);
    uint64_t t, end;
    uint64_t from = sample(read_tccr, &t);
    wait_us(20000);
    uint64_t ticks = from - sample(read_tccr, &end);
    per_ms = (uint32_t)(ticks * 1000 / (end - t));
    OK(per_ms > 1000);
    idle(1000);
    IS(hits[0x50], 0);
    apic_write(APIC_LVTT, 0x50);
    RETRY(lapic_once);
    IS(apic_read(APIC_TCCR), 0);
    unsigned before = hits[0x50];
    idle(20000);
    IS(hits[0x50], before);
    apic_write(APIC_TDCR, 3); /* by 16 */
    RETRY(lapic_by_16);
    RETRY(lapic_stopped);
    apic_write(APIC_TDCR, 0xb);
    RETRY(lapic_periodic);
}

#define TSC_DEADLINE 0x6e0

static uint64_t tsc_per_ms;
static volatile uint64_t rung; /* TSC, when the deadline's last interrupt came */

static void ring(struct frame *f)
{
    rung = rdtsc();
    count(f);
}

static bool deadline_met(void)
{
    unsigned from = hits[0x51];
    uint64_t t = time_us(), at = rdtsc() + 4 * tsc_per_ms;
    wrmsr(TSC_DEADLINE, at);
    bool armed = rdmsr(TSC_DEADLINE) == at;
    OK(armed || rdtsc() >= at);
    OK(wait_for(&hits[0x51], from + 1, 5000000));
    OK(rung >= at);
    IS(rdmsr(TSC_DEADLINE), 0); /* disarmed */
    return IN_TIME(time_us() - t, 4000) && armed;
}

static bool deadline_cancelled(void)
{
    unsigned from = hits[0x51];
    uint64_t at = rdtsc() + 2 * tsc_per_ms;
    wrmsr(TSC_DEADLINE, at);
    wrmsr(TSC_DEADLINE, 0);
    bool soon = rdtsc() < at;
    idle(6000);
    if (soon)
        IS(hits[0x51], from);
    return soon;
}

TEST(deadline, "timers: TSC deadline")
{
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[2] >> 24 & 1)) {
        skip("no TSC deadline");
        return;
    }
    uint64_t t, end, start = sample(rdtsc, &t);
    wait_us(20000);
    tsc_per_ms = (sample(rdtsc, &end) - start) * 1000 / (end - t);
    set_handler(0x51, ring);
    apic_write(APIC_LVTT, 0x40051);
    __asm__ volatile("mfence");
    RETRY(deadline_met);
    unsigned from = hits[0x51];
    wrmsr(TSC_DEADLINE, 1); /* in the past: at once */
    OK(wait_for(&hits[0x51], from + 1, 5000000));
    RETRY(deadline_cancelled);
    apic_write(APIC_TICR, 1000); /* ignored in this mode */
    IS(apic_read(APIC_TCCR), 0);
    apic_write(APIC_LVTT, 0x10051);
}

TEST(lapic_priority, "timers: local APIC: TPR, PPR, nesting order, EOI, ISR")
{
    set_handler(0x61, count);
    set_handler(0x81, count);
    cli();
    apic_write(APIC_TPR, 0x70);
    apic_write(APIC_ICR, 0x44000 | 0x61);
    apic_write(APIC_ICR, 0x44000 | 0x81);
    OK(wait_for(&hits[0x81], 1, 100000));
    wait_for(&hits[0x61], 1, 2000);
    IS(hits[0x61], 0); /* class 6 is below the TPR */
    IS(apic_read(APIC_IRR + 0x30) >> 1 & 1, 1);
    IS(apic_read(APIC_PPR), 0x70);
    apic_write(APIC_TPR, 0);
    OK(wait_for(&hits[0x61], 1, 100000));
    IS(apic_read(APIC_IRR + 0x30), 0);
    /* The same vector twice while IF is 0: once only */
    apic_write(APIC_ICR, 0x44000 | 0x61);
    apic_write(APIC_ICR, 0x44000 | 0x61);
    wait_for(&hits[0x61], 3, 3000);
    IS(hits[0x61], 2);
    /* Illegal vector: ESR bit 5 (send) */
    apic_write(APIC_ESR, 0);
    apic_write(APIC_ICR, 0x44000 | 0x05);
    apic_write(APIC_ESR, 0);
    OK(apic_read(APIC_ESR) & 0x60);
    apic_write(APIC_ESR, 0);
    /* Software-disabled: LVTs are masked and cannot be unmasked. */
    apic_write(APIC_SPIV, 0xff);
    apic_write(APIC_LVTT, 0x50);
    IS(apic_read(APIC_LVTT) & 0x10000, 0x10000);
    apic_write(APIC_SPIV, 0x1ff);
    apic_write(APIC_LVTT, 0x10050);
}

TEST(ioapic, "timers: I/O APIC: PIT on pin 2, mask, destination, registers")
{
    apic_write(APIC_LVT0, 0x10000);
    outb(0x21, 0xff);
    set_handler(0x52, count);
    OK((ioapic_read(1) >> 16 & 0xff) >= 23);
    ioapic_route(2, 0x52);
    pit(0, 2, 5966);
    OK(wait_for(&hits[0x52], 5, 5000000));
    ioapic_write(0x14, IOAPIC_MASKED | 0x52);
    idle(3000);
    unsigned from = hits[0x52];
    idle(20000);
    IS(hits[0x52], from);
    ioapic_route(2, 0x52ull | 9ull << 56); /* nobody has this id */
    idle(15000);
    IS(hits[0x52], from);
    ioapic_route(2, 0x52);
    OK(wait_for(&hits[0x52], from + 2, 5000000));
    ioapic_write(0x14, IOAPIC_MASKED | 0x52);
    IS(ioapic_read(0x14) & 0x100ff, 0x10052);
}

/* Each is acknowledged before the next can come. */
static bool rtc_rate(void)
{
    unsigned n;
    uint64_t t = time_us();
    cmos_read(0x0c);        /* PF may be set already */
    cmos_write(0x0b, 0x42); /* PIE, 24 h */
    for (n = 0; n < 10; n++) {
        unsigned from = hits[0x53];
        if (!wait_for(&hits[0x53], from + 1, 5000000))
            break;
        IS(cmos_read(0x0c) & 0xc0, 0xc0); /* IRQF, PF; lets the next one come */
    }
    t = time_us() - t;
    IS(n, 10);
    cmos_write(0x0b, 0x02);
    cmos_read(0x0c);
    idle(1000);
    return IN_TIME(t, 9 * 976);
}

/* The next period may end between the two. */
static bool rtc_acknowledged(void)
{
    cmos_read(0x0c);
    return !(cmos_read(0x0c) & 0x80);
}

TEST(rtc, "timers: RTC: periodic interrupt, register C, update in progress")
{
    set_handler(0x53, count);
    ioapic_route(8, 0x53);
    cmos_write(0x0a, 0x26); /* 1024 Hz */
    RETRY(rtc_rate);
    cmos_write(0x0b, 0x42);
    RETRY(rtc_acknowledged);
    unsigned from = hits[0x53]; /* one may be pending, one comes; not acknowledged, no more */
    OK(wait_for(&hits[0x53], from + 1, 5000000));
    idle(50000);
    OK(hits[0x53] <= from + 2);
    cmos_write(0x0b, 0x02);
    cmos_read(0x0c);
    IS(cmos_read(0x0d) & 0x80, 0x80);
    uint8_t s = cmos_read(0);
    uint64_t t = time_us();
    while (cmos_read(0) == s && time_us() - t < 2500000)
        wait_us(500);
    OK(cmos_read(0) != s); /* seconds advance */
    ioapic_write(0x20, IOAPIC_MASKED);
}

static uint64_t hpet_ms; /* ticks */

/* A comparator that the counter has passed already is met when the counter comes around. */
static bool hpet_once(void)
{
    unsigned from = hits[0x54];
    HPET(0x100) = 20ull << 9 | 1 << 2;
    IS(HPET(0x100) >> 9 & 31, 20);
    uint64_t t = time_us(), at = HPET(0xf0) + 3 * hpet_ms;
    HPET(0x108) = at;
    bool done = HPET(0xf0) < at;
    if (done) {
        OK(wait_for(&hits[0x54], from + 1, 5000000));
        done = IN_TIME(time_us() - t, 3000);
        idle(5000);
        IS(hits[0x54], from + 1);
    }
    HPET(0x100) = 20ull << 9;
    idle(1000);
    return done;
}

static bool hpet_periodic(void)
{
    unsigned from = hits[0x54];
    HPET(0x100) = 20ull << 9 | 1 << 2 | 1 << 3 | 1 << 6; /* periodic, set the accumulator */
    uint64_t t = time_us(), at = HPET(0xf0) + 2 * hpet_ms;
    HPET(0x108) = at;
    HPET(0x108) = 2 * hpet_ms;
    bool done = HPET(0xf0) < at;
    if (done) {
        OK(wait_for(&hits[0x54], from + 10, 5000000));
        done = IN_TIME(time_us() - t, 20000);
    }
    HPET(0x100) = 20ull << 9;
    idle(1000);
    return done;
}

TEST(hpet, "timers: HPET: counter, one shot, periodic")
{
    uint64_t cap = HPET(0);
    uint32_t period = (uint32_t)(cap >> 32); /* fs */
    OK(period && period <= 100000000);
    set_handler(0x54, count);
    ioapic_route(20, 0x54); /* edge */
    HPET(0x10) = 0;
    HPET(0xf0) = 0;
    IS(HPET(0xf0), 0);
    HPET(0x10) = 1;
    uint64_t t, end, a = sample(read_hpet, &t);
    wait_us(10000);
    uint64_t us = (sample(read_hpet, &end) - a) * (period / 1000) / 1000000;
    t = end - t;
    OK(us + us / 20 + 200 >= t && us <= t + t / 20 + 200);
    hpet_ms = 1000000000000ull / period;
    OK(HPET(0x100) >> 52 & 1); /* timer 0 may use pin 20 */
    RETRY(hpet_once);
    RETRY(hpet_periodic);
    HPET(0x10) = 0;
    a = HPET(0xf0);
    wait_us(1000);
    IS(HPET(0xf0), a); /* halted */
    ioapic_write(0x38, IOAPIC_MASKED);
}

static bool halt_sleeps(void)
{
    unsigned from = hits[0x50];
    uint64_t t = time_us();
    apic_write(APIC_TICR, per_ms * 2);
    __asm__ volatile("sti; hlt; cli" : : : "memory");
    t = time_us() - t;
    IS(hits[0x50], from + 1);
    return IN_TIME(t, 2000);
}

TEST(halt, "timers: HLT sleeps until the interrupt")
{
    set_handler(0x50, count);
    apic_write(APIC_TDCR, 0xb);
    idle(1000); /* no other one may end it */
    apic_write(APIC_LVTT, 0x50);
    RETRY(halt_sleeps);
}
