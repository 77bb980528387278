/* nvme_pci.h - the NVMe controller as a PCI function. Source: NVM Express Base Specification 1.4,
 * chapter 2. */
#ifndef SOSIA_PCI_NVME_PCI_H
#define SOSIA_PCI_NVME_PCI_H

#include "chip/nvme.h"
#include "pci/pci.h"

struct nvme_pci {
    struct pci_dev pci;
    struct nvme nvme;
};

/* `cfg` without its interrupts, which are the function's. */
int nvme_pci_init(struct nvme_pci *p, struct pci_bus *b, unsigned devfn,
                  const struct nvme_config *cfg, struct error *e);
extern const struct field_table nvme_pci_fields;
void nvme_pci_fini(struct nvme_pci *p); /* after blk_close() of the disk */

#endif
