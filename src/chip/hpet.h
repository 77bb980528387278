/*
 * hpet.h - high precision event timer: a 100 MHz 64-bit counter and three comparators.
 * Source: IA-PC HPET Specification 1.0a.
 */
#ifndef SOSIA_CHIP_HPET_H
#define SOSIA_CHIP_HPET_H

#include "base/clock.h"
#include "chip/chip.h"
#include "chip/pin.h"

#define HPET_BASE      0xfed00000ull
#define HPET_SIZE      0x400u
#define HPET_TIMERS    3
#define HPET_TICK_NS   10
#define HPET_PERIOD_FS (HPET_TICK_NS * 1000000u)
/* The first dword of the capabilities, which the ACPI HPET table repeats. */
#define HPET_CAP_ID 0x8086a201u
/* I/O APIC pins a comparator can be routed to: those that no ISA or PCI interrupt uses. */
#define HPET_ROUTES 0x00ff0000u

struct hpet;

struct hpet_comparator {
    struct hpet *hpet;
    struct timer timer;
    uint32_t config;
    uint64_t compare, period;
};

struct hpet {
    struct timerq *tq;
    struct pin irq;       /* I/O APIC; its `line` is replaced by the routed pin */
    struct pin legacy[2]; /* in legacy replacement mode: IRQ0 and IRQ8 */
    struct pin legacy_on; /* high: the i8254 and the RTC are cut off from IRQ0 and IRQ8 */
    uint64_t config;      /* general configuration */
    uint32_t status;      /* general interrupt status */
    uint64_t counter;     /* while stopped: its value; while running: its value at `since` */
    ns_t since;
    struct hpet_comparator cmp[HPET_TIMERS];
};

struct hpet_wiring {
    struct pin irq; /* set(ctx, I/O APIC pin, level); .line is not used */
    struct pin legacy_irq0, legacy_irq8, legacy_on;
};

extern const struct chip_desc hpet_desc;

int hpet_init(struct hpet *h, struct timerq *tq, const struct hpet_wiring *w, struct error *e);
void hpet_fini(struct hpet *h);

#endif
