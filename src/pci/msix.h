/* msix.h - MSI-X between the bus and its functions (PCI 3.0, 6.8.2). Devices use pci.h. */
#ifndef SOSIA_PCI_MSIX_H
#define SOSIA_PCI_MSIX_H

#include "pci/pci.h"

struct msix {
    struct pci_dev *dev;
    uint8_t cap;     /* offset of the capability in configuration space */
    unsigned n;      /* vectors, 1..2048 */
    uint64_t pba;    /* offset of the pending bits within the BAR */
    uint32_t *table; /* 4 dwords for each vector: address, address high, data, control */
    uint32_t *pending;
    uint32_t table_len, pending_len; /* bytes */
};

/* Enable, function mask or bus mastering may have changed: sends what is no longer held back. */
void msix_update(struct msix *m);
void msix_reset(struct msix *m);
extern const struct field_table msix_fields;
void msix_free(struct msix *m); /* NULL is allowed */

#endif
