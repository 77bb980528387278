/*
 * i440fx.h - Intel 82441FX (PMC): the host bridge, and with it the shadow RAM at 768 KiB to 1 MiB.
 * Source: Intel 440FX PCIset datasheet (290549), 3.2.18 (PAM) and 3.2.19 (SMRAM).
 */
#ifndef SOSIA_PCI_I440FX_H
#define SOSIA_PCI_I440FX_H

#include "pci/pci.h"

#define I440FX_SEGMENTS 13 /* 12 of 16 KiB from 0xC0000, one of 64 KiB at 0xF0000 */

struct i440fx;

/* One piece of the area, with two bits that say who gets reads and who gets writes. */
struct pam_segment {
    struct i440fx *host;
    uint64_t base, len;
    unsigned ram;   /* region: the RAM, when it answers reads */
    unsigned below; /* region: what answers reads otherwise; takes writes for the RAM */
    bool bios;      /* `below` is the BIOS ROM and always there */
    bool we;        /* writes go to RAM */
};

extern const struct field_table i440fx_fields;

struct i440fx {
    struct pci_dev pci;
    struct ram *ram;
    struct pam_segment seg[I440FX_SEGMENTS];
};

/* Puts the bridge at 00.0 and takes over [0xC0000, 0x100000) of the bus' memory space, where wiring
 * maps nothing itself: RAM at the same RAM offset, under it the last 128 KiB of the BIOS image,
 * which lies at bios_roff. bios_len is a multiple of 64 KiB. */
int i440fx_init(struct i440fx *h, struct pci_bus *b, struct ram *ram, uint64_t bios_roff,
                uint64_t bios_len, struct error *e);

#endif
