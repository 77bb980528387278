/*
 * ioapic.h - the I/O APIC: 24 pins, a redirection table, delivery over the APIC bus.
 * Source: Intel 82093AA datasheet (290566).
 *
 * Version 0x20 is presented, the 82093AA's successor in the ICH family: its EOI register lets a
 * guest end a level-triggered interrupt that is stuck with Remote IRR set without re-programming
 * the pin's trigger mode, which is what guests do for version 0x11; that works here too.
 */
#ifndef SOSIA_CHIP_IOAPIC_H
#define SOSIA_CHIP_IOAPIC_H

#include "chip/apic_bus.h"
#include "chip/chip.h"

#define IOAPIC_PINS 24
#define IOAPIC_BASE 0xfec00000ull
#define IOAPIC_SIZE 0x1000u

struct ioapic {
    struct apic_bus *bus;
    uint8_t id, select;
    uint32_t level; /* pin n is asserted */
    uint32_t edge;  /* pin n saw an edge that is not delivered yet */
    uint64_t redir[IOAPIC_PINS];
};

extern const struct chip_desc ioapic_desc;

/* Becomes the bus's receiver of EOI broadcasts. */
void ioapic_init(struct ioapic *io, struct apic_bus *bus);

/* Input pin `line` (0..23), asserted or not; fits struct pin. ctx: the struct ioapic. */
void ioapic_set(void *ctx, unsigned line, bool level);

#endif
