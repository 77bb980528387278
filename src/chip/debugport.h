/*
 * debugport.h - two ports through which firmware talks to people: the POST code latch at 0x80, and
 * the debug console at 0x402 that SeaBIOS and OVMF look for.
 */
#ifndef SOSIA_CHIP_DEBUGPORT_H
#define SOSIA_CHIP_DEBUGPORT_H

#include "char/char.h"
#include "chip/chip.h"

struct post_latch {
    uint8_t
        code; /* the last POST code; port 0x80 is also a spare DMA page register and reads back */
};

extern const struct chip_desc post_latch_desc;

void post_latch_init(struct post_latch *p);

struct debugport {
    struct char_out out;
};

extern const struct chip_desc debugport_desc;

void debugport_init(struct debugport *d, struct char_out out);

#endif
