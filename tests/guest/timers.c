/*
 * timers.c - clocks and interrupt controllers: 8254, 8259A, local APIC, I/O APIC, HPET, RTC, ACPI
 * PM timer. Times are compared with the PM timer; bounds are wide, for a host that is busy.
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

/* Not earlier than `want` less `slack`; not absurdly late. */
static void near(uint64_t us, uint64_t want, uint64_t slack, int line)
{
    check_equal("early", us + want / 50 + 100 + slack < want, 0, line);
    check_equal("late", us > want * 3 + 100000, 0, line);
}
#define NEAR(us, want)          near(us, want, 0, __LINE__)
#define ABOUT(us, want, period) near(us, want, 2 * (period), __LINE__) /* two may have waited */

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
    uint32_t a = inl(PM_TIMER);
    uint64_t t = rdtsc();
    for (unsigned n = 0; n < 10000000 && ((inl(PM_TIMER) - a) & 0xffffff) < 35795; n++)
        pause();
    t = rdtsc() - t;
    uint32_t ticks = (inl(PM_TIMER) - a) & 0xffffff;
    OK(ticks >= 35795);
    if (r[0] && r[1] && r[2]) {
        uint64_t hz = (uint64_t)r[2] * r[1] / r[0];
        uint64_t us = t * 1000000 / hz;
        NEAR(us, 10000);
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

TEST(pit_pic, "timers: 8254 through the 8259A and LINT0: rate, mask, one shot")
{
    apic_enable();
    apic_write(APIC_LVT0, 0x700); /* ExtINT */
    pic_init();
    set_handler(0x20, count_pic);
    set_handler(0x27, count_pic);
    pit(0, 2, 5966); /* 5 ms */
    outb(0x21, 0xfe);
    OK(wait_for(&hits[0x20], 1, 1000000));
    unsigned from = hits[0x20];
    uint64_t t = time_us();
    OK(wait_for(&hits[0x20], from + 10, 2000000));
    ABOUT(time_us() - t, 45000, 5000);
    outb(0x21, 0xff); /* masked */
    wait_for(&hits[0x20], ~0u, 5000);
    from = hits[0x20];
    wait_for(&hits[0x20], ~0u, 20000);
    IS(hits[0x20], from);
    IS(inb(0x21), 0xff);
    pit(0, 0, 0xffff); /* output goes low: the request disappears before it is let in */
    outb(0x21, 0xfe);
    wait_for(&hits[0x20], ~0u, 3000);
    from = hits[0x20];
    pit(0, 0, 1193); /* mode 0: one interrupt, after 1 ms */
    t = time_us();
    OK(wait_for(&hits[0x20], from + 1, 1000000));
    NEAR(time_us() - t, 1000);
    wait_for(&hits[0x20], ~0u, 10000);
    IS(hits[0x20], from + 1);
    outb(0x21, 0xff);
}

TEST(pit_count, "timers: 8254: latched counts, channel 2 and its gate")
{
    pit(0, 2, 0xffff);
    outb(0x43, 0);
    unsigned a = inb(0x40);
    a |= (unsigned)inb(0x40) << 8;
    wait_us(2000);
    outb(0x43, 0);
    unsigned b = inb(0x40);
    b |= (unsigned)inb(0x40) << 8;
    unsigned passed = (a - b) & 0xffff;
    OK(passed >= 2300);
    outb(0x61, (uint8_t)(inb(0x61) & ~3)); /* gate off, speaker off */
    pit(2, 0, 1193);
    wait_us(3000);
    IS(inb(0x61) >> 5 & 1, 0); /* does not count */
    outb(0x61, (uint8_t)((inb(0x61) & ~2) | 1));
    uint64_t t = time_us();
    for (unsigned n = 0; n < 100000 && !(inb(0x61) & 0x20); n++)
        pause();
    NEAR(time_us() - t, 1000);
    IS(inb(0x61) >> 5 & 1, 1);
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
    uint32_t per_ms = (uint32_t)(ticks * 1000 / (end - t));
    OK(per_ms > 1000);
    wait_for(&hits[0x50], 1, 1000);
    IS(hits[0x50], 0);
    apic_write(APIC_LVTT, 0x50);
    apic_write(APIC_TICR, per_ms * 5);
    t = time_us();
    OK(wait_for(&hits[0x50], 1, 1000000));
    NEAR(time_us() - t, 5000);
    IS(apic_read(APIC_TCCR), 0);
    wait_for(&hits[0x50], 2, 20000);
    IS(hits[0x50], 1);
    apic_write(APIC_TDCR, 3); /* by 16 */
    apic_write(APIC_TICR, per_ms / 4);
    t = time_us();
    OK(wait_for(&hits[0x50], 2, 1000000));
    NEAR(time_us() - t, 4000);
    apic_write(APIC_TICR, per_ms);
    apic_write(APIC_TICR, 0); /* stops it */
    wait_for(&hits[0x50], 3, 40000);
    IS(hits[0x50], 2);
    /* Periodic */
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVTT, 0x20050);
    apic_write(APIC_TICR, per_ms * 2);
    t = time_us();
    OK(wait_for(&hits[0x50], 12, 1000000));
    NEAR(time_us() - t, 20000);
    apic_write(APIC_LVTT, 0x10050);
    apic_write(APIC_TICR, 0);
}

TEST(deadline, "timers: TSC deadline")
{
    uint32_t r[4];
    cpuid(1, 0, r);
    if (!(r[2] >> 24 & 1)) {
        skip("no TSC deadline");
        return;
    }
    set_handler(0x51, count);
    apic_write(APIC_LVTT, 0x40051);
    __asm__ volatile("mfence");
    uint64_t start = rdtsc();
    wait_us(2000);
    uint64_t span = rdtsc() - start;
    uint64_t t = time_us();
    wrmsr(0x6e0, rdtsc() + 2 * span);
    OK(rdmsr(0x6e0) != 0);
    OK(wait_for(&hits[0x51], 1, 1000000));
    NEAR(time_us() - t, 4000);
    IS(rdmsr(0x6e0), 0); /* disarmed */
    wrmsr(0x6e0, 1);     /* in the past: at once */
    OK(wait_for(&hits[0x51], 2, 100000));
    wrmsr(0x6e0, rdtsc() + span);
    wrmsr(0x6e0, 0);
    wait_for(&hits[0x51], 3, 6000);
    IS(hits[0x51], 2);
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
    OK(wait_for(&hits[0x52], 5, 1000000));
    ioapic_write(0x14, IOAPIC_MASKED | 0x52);
    wait_for(&hits[0x52], ~0u, 3000);
    unsigned from = hits[0x52];
    wait_for(&hits[0x52], ~0u, 20000);
    IS(hits[0x52], from);
    ioapic_route(2, 0x52ull | 9ull << 56); /* nobody has this id */
    wait_for(&hits[0x52], ~0u, 15000);
    IS(hits[0x52], from);
    ioapic_route(2, 0x52);
    OK(wait_for(&hits[0x52], from + 2, 1000000));
    ioapic_write(0x14, IOAPIC_MASKED | 0x52);
    IS(ioapic_read(0x14) & 0x100ff, 0x10052);
}

TEST(rtc, "timers: RTC: periodic interrupt, register C, update in progress")
{
    set_handler(0x53, count);
    ioapic_route(8, 0x53);
    cmos_write(0x0a, 0x26); /* 1024 Hz */
    cmos_read(0x0c);        /* PF may be set already */
    cmos_write(0x0b, 0x42); /* PIE, 24 h */
    uint64_t t = time_us();
    unsigned n;
    for (n = 0; n < 10; n++) {
        unsigned from = hits[0x53];
        if (!wait_for(&hits[0x53], from + 1, 500000))
            break;
        IS(cmos_read(0x0c) & 0xc0, 0xc0); /* IRQF, PF; lets the next one come */
    }
    IS(n, 10);
    ABOUT(time_us() - t, 9000, 1000);
    IS(cmos_read(0x0c) & 0x80, 0);
    wait_for(&hits[0x53], ~0u, 3000); /* not acknowledged: no more than one */
    unsigned from = hits[0x53];
    wait_for(&hits[0x53], ~0u, 10000);
    IS(hits[0x53], from);
    cmos_write(0x0b, 0x02);
    cmos_read(0x0c);
    IS(cmos_read(0x0d) & 0x80, 0x80);
    uint8_t s = cmos_read(0);
    t = time_us();
    while (cmos_read(0) == s && time_us() - t < 2500000)
        wait_us(500);
    OK(time_us() - t < 2500000); /* seconds advance */
    ioapic_write(0x20, IOAPIC_MASKED);
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
    uint64_t ms = 1000000000000ull / period;
    OK(HPET(0x100) >> 52 & 1); /* timer 0 may use pin 20 */
    HPET(0x100) = 20ull << 9 | 1 << 2;
    IS(HPET(0x100) >> 9 & 31, 20);
    t = time_us();
    HPET(0x108) = HPET(0xf0) + 3 * ms;
    OK(wait_for(&hits[0x54], 1, 1000000));
    NEAR(time_us() - t, 3000);
    wait_for(&hits[0x54], 2, 5000);
    IS(hits[0x54], 1);
    HPET(0x100) = 20ull << 9 | 1 << 2 | 1 << 3 | 1 << 6; /* periodic, set the accumulator */
    t = time_us();
    HPET(0x108) = HPET(0xf0) + 2 * ms;
    HPET(0x108) = 2 * ms;
    OK(wait_for(&hits[0x54], 11, 1000000));
    NEAR(time_us() - t, 20000);
    HPET(0x100) = 20ull << 9;
    HPET(0x10) = 0;
    a = HPET(0xf0);
    wait_us(1000);
    IS(HPET(0xf0), a); /* halted */
    ioapic_write(0x38, IOAPIC_MASKED);
}

TEST(halt, "timers: HLT sleeps until the interrupt")
{
    set_handler(0x50, count);
    apic_write(APIC_TDCR, 0xb);
    apic_write(APIC_LVTT, 0x50);
    unsigned from = hits[0x50];
    apic_write(APIC_TICR, 1000000);
    __asm__ volatile("sti; hlt; cli" : : : "memory");
    IS(hits[0x50], from + 1);
}
