/*
 * port92.h - port 0x92: fast A20 gate and fast CPU reset.
 * Source: Intel 82371SB (PIIX3), section 2.5.5.3 (Port 92).
 */
#ifndef SOSIA_CHIP_PORT92_H
#define SOSIA_CHIP_PORT92_H

#include "chip/chip.h"
#include "chip/pin.h"

struct port92 {
    uint8_t val;
    struct pin a20;   /* driven when bit 1 is written, and at reset */
    struct pin reset; /* a pulse high, when bit 0 goes from 0 to 1 */
};

extern const struct chip_desc port92_desc;

void port92_init(struct port92 *p, struct pin a20, struct pin reset);

#endif
