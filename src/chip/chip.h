/*
 * chip.h - what wiring needs to know of a chip: one const description for each type.
 *
 * A chip is this description plus one state struct, a pure core. Its registers are reached through
 * `struct io_ops`, its outputs are `struct pin`s and small callbacks given at init; it owns no
 * lock, thread or file. All of it is called with the device lock held.
 */
#ifndef SOSIA_CHIP_CHIP_H
#define SOSIA_CHIP_CHIP_H

#include "base/field.h"
#include "mem/space.h"

struct chip_range {
    bool port; /* true: I/O port, false: memory */
    uint64_t base, len;
    const struct io_ops *ops;
};

struct chip_desc {
    const char *name;                /* the datasheet part, "i8259" */
    void (*reset)(void *dev);        /* to power-on state; pins are driven to their reset level */
    const struct chip_range *ranges; /* fixed addresses; ends with len == 0; NULL: wiring maps it */
    const struct field_table *fields; /* the state; NULL: there is none */
};

#endif
