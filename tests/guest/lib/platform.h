/*
 * platform.h - the chips of a PC that payloads use: clocks, local APIC, other processors.
 */
#ifndef PLATFORM_H
#define PLATFORM_H

#include "guest.h"

/* ---- time: the ACPI PM timer, 3.579545 MHz, 24 or 32 bits ---- */
#define PM_TIMER 0x608
uint64_t time_us(void); /* monotonic from the first call, if called every 4 s */
void wait_us(unsigned us);
/* Waits, with interrupts open, until *p is at least `want`; false after `us`. */
bool wait_for(volatile unsigned *p, unsigned want, unsigned us);

/* ---- local APIC ---- */
enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xa0,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SPIV = 0xf0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR2 = 0x310,
    APIC_LVTT = 0x320,
    APIC_LVT0 = 0x350,
    APIC_LVT1 = 0x360,
    APIC_LVTERR = 0x370,
    APIC_TICR = 0x380,
    APIC_TCCR = 0x390,
    APIC_TDCR = 0x3e0,
};
uint32_t apic_read(unsigned reg);
void apic_write(unsigned reg, uint32_t v);
void apic_enable(void); /* this processor's; spurious vector 0xff */
void apic_ipi(unsigned dest, uint32_t icr);
void apic_eoi(void);

/* ---- I/O APIC ---- */
uint32_t ioapic_read(unsigned reg);
void ioapic_write(unsigned reg, uint32_t v);
void ioapic_route(unsigned pin, uint64_t entry);
#define IOAPIC_MASKED 0x10000u

/* ---- other processors ---- */
#define MAX_CPUS 4
void cpus_start(unsigned n); /* starts processors 1 .. n - 1; they wait for work */
unsigned cpus_started(void);
void cpu_call(unsigned cpu, void (*fn)(void *), void *arg); /* does not wait for the end */
void cpu_wait(unsigned cpu);

/* ---- CMOS ---- */
uint8_t cmos_read(unsigned reg);
void cmos_write(unsigned reg, uint8_t v);

#endif
