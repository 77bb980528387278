/*
 * pin.h - an output pin of a chip: a value that wiring hands to the device.
 *
 * A chip knows neither the interrupt controller nor the bus; it raises and lowers its pins.
 * A zeroed pin is not connected.
 */
#ifndef SOSIA_CHIP_PIN_H
#define SOSIA_CHIP_PIN_H

#include "base/types.h"

struct pin {
    void (*set)(void *ctx, unsigned line, bool level);
    void *ctx;
    unsigned line;
};

static inline void pin_set(const struct pin *p, bool level)
{
    if (p->set)
        p->set(p->ctx, p->line, level);
}

#endif
