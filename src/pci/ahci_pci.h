/* ahci_pci.h - the AHCI controller as a PCI function: Intel 82801IR (ICH9R), D31:F2 in AHCI mode.
 * Source: Intel I/O Controller Hub 9 datasheet (316972), 15. */
#ifndef SOSIA_PCI_AHCI_PCI_H
#define SOSIA_PCI_AHCI_PCI_H

#include "chip/ahci.h"
#include "pci/pci.h"

struct ahci_pci {
    struct pci_dev pci;
    struct ahci ahci;
};

/* Wiring then attaches drives to `ahci`. */
int ahci_pci_init(struct ahci_pci *p, struct pci_bus *b, unsigned devfn, struct error *e);
extern const struct field_table ahci_pci_fields;
void ahci_pci_fini(struct ahci_pci *p); /* after blk_close() of the disks */

#endif
