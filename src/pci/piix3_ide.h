/*
 * piix3_ide.h - Intel 82371SB (PIIX3), function 1: two IDE channels at their legacy ports, and the
 * bus master that carries their data by scatter-gather lists. Sources: Intel 82371FB/82371SB
 * datasheet (290550), 2.3 and 3.5; Programming Interface for Bus Master IDE Controller, rev. 1.0.
 */
#ifndef SOSIA_PCI_PIIX3_IDE_H
#define SOSIA_PCI_PIIX3_IDE_H

#include "chip/ide.h"
#include "pci/pci.h"

/* The bus master of one channel. The cursor is the part of the list that is already loaded. */
struct bmide {
    struct ide_channel ide;
    struct piix3_ide *owner;
    struct pin irq;
    unsigned command_region, control_region;
    bool intrq; /* level of the channel's interrupt */
    uint8_t command, status;
    uint32_t table; /* as written: physical address of the list */
    uint32_t next;  /* the entry to load next */
    uint32_t addr;  /* of the bytes to carry next */
    uint32_t count; /* bytes left at addr */
    bool last;      /* no entry follows */
};

struct piix3_ide {
    struct pci_dev pci;
    struct bmide channel[2];
};

extern const struct field_table piix3_ide_fields;

/* Puts the function at devfn (1.1) and maps its ports. Wiring then attaches drives to
 * channel[n].ide. */
int piix3_ide_init(struct piix3_ide *p, struct pci_bus *b, unsigned devfn, struct pin irq14,
                   struct pin irq15, struct error *e);
/* After the drives' disks have been closed. */
void piix3_ide_fini(struct piix3_ide *p);

#endif
