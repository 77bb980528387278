/*
 * piix4pm_pci.h - Intel 82371AB (PIIX4), function 3: power management and SMBus in configuration
 * space. Source: 82371AB datasheet (290562), chapter 7.1.
 */
#ifndef SOSIA_PCI_PIIX4PM_PCI_H
#define SOSIA_PCI_PIIX4PM_PCI_H

#include "chip/piix4pm.h"
#include "chip/piix4smb.h"
#include "pci/pci.h"

struct piix4pm_pci {
    struct pci_dev pci;
    struct piix4pm *pm;
    struct piix4smb smb;
    unsigned pm_region, smb_region;
};

extern const struct field_table piix4pm_pci_fields;

/* Puts the function at devfn (by convention function 3 of the ISA bridge's slot). `pm` is
 * initialized; wiring maps its fixed ports. */
int piix4pm_pci_init(struct piix4pm_pci *p, struct pci_bus *b, unsigned devfn, struct piix4pm *pm,
                     struct error *e);

/* What firmware does: PM block at pm_base (64-byte aligned), SMBus 0x100 above, interrupt line 9.
 * For booting a kernel without firmware. */
void piix4pm_pci_program(struct piix4pm_pci *p, uint16_t pm_base);

#endif
