/*
 * vga_pci.h - the VGA as PCI function 1234:1111: BAR 0 frame buffer, BAR 2 registers, expansion
 * ROM.
 */
#ifndef SOSIA_PCI_VGA_PCI_H
#define SOSIA_PCI_VGA_PCI_H

#include "chip/vga.h"
#include "pci/pci.h"

struct vga_pci {
    struct pci_dev pci;
    struct vga *vga;
};

extern const struct field_table vga_pci_fields;

/* `vga` is initialized; wiring maps its fixed ports and memory. The video BIOS (vgabios-stdvga.bin)
 * lies in the ROM area at rom_roff; rom_size is a power of two, or 0 for none. */
int vga_pci_init(struct vga_pci *p, struct pci_bus *b, unsigned devfn, struct vga *vga,
                 uint64_t rom_roff, uint64_t rom_size, struct error *e);

#endif
