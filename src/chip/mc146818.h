/*
 * mc146818.h - MC146818A real-time clock and CMOS RAM: 128 bytes, and the PIIX's second bank of
 * 128.
 *
 * Sources: Motorola MC146818A data sheet; Intel 82371SB (PIIX3), section 2.5.4. The century is at
 * index 0x32, as the ACPI FADT and PC firmware expect.
 */
#ifndef SOSIA_CHIP_MC146818_H
#define SOSIA_CHIP_MC146818_H

#include "base/clock.h"
#include "chip/chip.h"
#include "chip/pin.h"

struct mc146818 {
    uint8_t cmos[256]; /* bank 0: 0..127; bank 1: 128..255. Registers A-D are kept here too */
    uint8_t index[2];  /* selected byte of each bank, 0..127 */
    struct timerq *timerq;
    struct timer timer;
    ns_t divider;        /* VM time at which the divider chain started: seconds count from here */
    int64_t second;      /* seconds of the chain that the time registers already contain */
    uint64_t period;     /* periodic ticks of the chain that PF already reports */
    struct pin irq;      /* IRQ 8, active high */
    struct pin nmi_mask; /* bit 7 of port 0x70 */
};

extern const struct chip_desc mc146818_desc;

/* `seconds`: what the clock shows now, as seconds since 1970-01-01 00:00:00 in the clock's own zone
 * (UTC or local time: wiring's choice). 0 or ERR_NOMEM. */
int mc146818_init(struct mc146818 *r, struct timerq *q, int64_t seconds, struct pin irq,
                  struct pin nmi_mask, struct error *e);

/* A byte of CMOS RAM, 0..255, as firmware expects to find it. The clock's registers (0..13 and
 * 0x32) are not to be set this way. */
void mc146818_set_cmos(struct mc146818 *r, unsigned index, uint8_t value);
uint8_t mc146818_get_cmos(const struct mc146818 *r, unsigned index);

#endif
