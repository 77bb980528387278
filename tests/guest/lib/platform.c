/*
 * platform.c - chips of a PC. platform.h
 */
#include "platform.h"

#include "mem.h"

uint64_t time_us(void)
{
    static uint32_t last;
    static uint64_t ticks;
    uint32_t now = inl(PM_TIMER) & 0xffffff;
    ticks += (now - last) & 0xffffff;
    last = now;
    /* 3579545 ticks are 1000000 us; without a division of 64 bits */
    return ticks * 4577 >> 14;
}

void wait_us(unsigned us)
{
    uint64_t end = time_us() + us;
    while (time_us() < end)
        pause();
}

bool wait_for(volatile unsigned *p, unsigned want, unsigned us)
{
    uint64_t end = time_us() + us;
    ulong flags = get_flags();
    sti();
    while (*p < want && time_us() < end)
        pause();
    if (!(flags & FL_IF))
        cli();
    return *p >= want;
}

/* ---- APICs ---- */

#define APIC   0xfee00000u
#define IOAPIC 0xfec00000u

uint32_t apic_read(unsigned reg)
{
    return *(volatile uint32_t *)(ulong)(APIC + reg);
}

void apic_write(unsigned reg, uint32_t v)
{
    *(volatile uint32_t *)(ulong)(APIC + reg) = v;
}

static void ignore(struct frame *f)
{
    (void)f;
}

void apic_enable(void)
{
    set_handler(0xff, ignore);
    apic_write(APIC_SPIV, 0x1ff);
    apic_write(APIC_TPR, 0);
}

void apic_ipi(unsigned dest, uint32_t icr)
{
    apic_write(APIC_ICR2, dest << 24);
    apic_write(APIC_ICR, icr);
    while (apic_read(APIC_ICR) & 0x1000)
        pause();
}

void apic_eoi(void)
{
    apic_write(APIC_EOI, 0);
}

uint32_t ioapic_read(unsigned reg)
{
    *(volatile uint32_t *)(ulong)IOAPIC = reg;
    return *(volatile uint32_t *)(ulong)(IOAPIC + 0x10);
}

void ioapic_write(unsigned reg, uint32_t v)
{
    *(volatile uint32_t *)(ulong)IOAPIC = reg;
    *(volatile uint32_t *)(ulong)(IOAPIC + 0x10) = v;
}

void ioapic_route(unsigned pin, uint64_t entry)
{
    ioapic_write(0x10 + 2 * pin, IOAPIC_MASKED);
    ioapic_write(0x11 + 2 * pin, (uint32_t)(entry >> 32));
    ioapic_write(0x10 + 2 * pin, (uint32_t)entry);
}

/* ---- other processors ---- */

#define TRAMPOLINE 0x8000u
#define AP_STACK   8192

extern const char trampoline[], trampoline_end[];
void set_ap_entry(void (*fn)(void), ulong stack);

static struct {
    void (*volatile fn)(void *);
    void *volatile arg;
} work[MAX_CPUS];
static volatile unsigned started = 1;

static void ap_loop(void)
{
    unsigned me = started;
    apic_enable();
    started = me + 1;
    for (;;) {
        while (!work[me].fn)
            pause();
        work[me].fn(work[me].arg);
        __atomic_store_n(&work[me].fn, NULL, __ATOMIC_SEQ_CST);
    }
}

void cpus_start(unsigned n)
{
    memcpy((void *)(ulong)TRAMPOLINE, trampoline, (size_t)(trampoline_end - trampoline));
    while (started < n) {
        unsigned cpu = started;
        set_ap_entry(ap_loop, (ulong)pages_alloc(AP_STACK / 4096, 4096) + AP_STACK - 16);
        apic_ipi(cpu, 0x4500); /* INIT, assert */
        wait_us(200);
        apic_ipi(cpu, 0x4600 | TRAMPOLINE >> 12); /* STARTUP */
        wait_for(&started, cpu + 1, 5000000);
        if (started == cpu)
            return;
    }
}

unsigned cpus_started(void)
{
    return started;
}

void cpu_call(unsigned cpu, void (*fn)(void *), void *arg)
{
    work[cpu].arg = arg;
    __atomic_store_n(&work[cpu].fn, fn, __ATOMIC_SEQ_CST);
}

void cpu_wait(unsigned cpu)
{
    while (__atomic_load_n(&work[cpu].fn, __ATOMIC_SEQ_CST))
        pause();
}

/* ---- CMOS ---- */

uint8_t cmos_read(unsigned reg)
{
    outb(0x70, (uint8_t)reg);
    return inb(0x71);
}

void cmos_write(unsigned reg, uint8_t v)
{
    outb(0x70, (uint8_t)reg);
    outb(0x71, v);
}
