/*
 * apic_bus.h - what connects the local APICs, the I/O APIC, the 8259 and message-signalled
 * interrupts. Source: Intel SDM volume 3, chapter "APIC", and its section "Message Signalled
 * Interrupts".
 *
 * All functions are called with the device lock held.
 */
#ifndef SOSIA_CHIP_APIC_BUS_H
#define SOSIA_CHIP_APIC_BUS_H

#include "base/field.h"
#include "base/types.h"

#define APIC_BUS_MAX_CPUS 32
#define APIC_DEST_ALL     0xffu

struct lapic;

enum apic_mode {
    APIC_FIXED = 0,
    APIC_LOWEST = 1,
    APIC_SMI = 2,
    APIC_NMI = 4,
    APIC_INIT = 5,
    APIC_SIPI = 6,
    APIC_EXTINT = 7,
};

struct apic_msg {
    uint8_t dest;
    bool logical; /* destination mode */
    uint8_t mode; /* enum apic_mode, 3 bits */
    uint8_t vector;
    bool level; /* trigger mode: becomes the vector's TMR bit */
};

struct apic_bus {
    struct lapic *lapic[APIC_BUS_MAX_CPUS]; /* by position; the first is the BSP */
    unsigned nlapic;
    unsigned turn; /* where the search for the lowest priority starts */
    /* The I/O APIC: a level-triggered interrupt of this vector was completed. */
    void (*eoi)(void *ctx, uint8_t vector);
    void *eoi_ctx;
    /* The 8259 pair: the INTA cycle, returns the vector. */
    int (*pic_ack)(void *ctx);
    void *pic_ctx;
};

extern const struct field_table apic_bus_fields;

void apic_bus_init(struct apic_bus *b);

/* Gives the APIC the next free position. ERR_LIMIT beyond APIC_BUS_MAX_CPUS. */
int apic_bus_attach(struct apic_bus *b, struct lapic *l, struct error *e);

/* Delivers to every APIC that the destination names, or with APIC_LOWEST to one of them. True if at
 * least one accepted. */
bool apic_bus_send(struct apic_bus *b, const struct apic_msg *m);
/* The same to all APICs but `self` (ICR shorthand). */
bool apic_bus_send_others(struct apic_bus *b, const struct lapic *self, const struct apic_msg *m);

/* A device's MSI or MSI-X write; fits struct pci_bus.msi. ctx: the struct apic_bus. */
void apic_bus_msi(void *ctx, uint64_t addr, uint32_t data);

/* INTR of the 8259 pair; fits struct pin. ctx: the struct apic_bus. */
void apic_bus_set_extint(void *ctx, unsigned line, bool level);

/* Called by a local APIC on EOI of a level-triggered vector. */
void apic_bus_broadcast_eoi(struct apic_bus *b, uint8_t vector);

#endif
