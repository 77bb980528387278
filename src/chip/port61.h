/*
 * port61.h - port 0x61, NMI status and control: speaker, timer 2 gate, NMI sources.
 * Source: Intel 82371SB (PIIX3), section 2.5.5.1 (NMISC).
 */
#ifndef SOSIA_CHIP_PORT61_H
#define SOSIA_CHIP_PORT61_H

#include "chip/i8254.h"

struct port61 {
    struct i8254 *pit;
    uint8_t control; /* bits 3-0 as written */
};

extern const struct chip_desc port61_desc;

void port61_init(struct port61 *p, struct i8254 *pit);

#endif
