/* nvme_pci.c - see nvme_pci.h. Registers in BAR 0, MSI-X in BAR 4. */
#include "pci/nvme_pci.h"

#define MSIX_BAR 4u

/* Drivers look for the class. The numbers are of the range that virtio's vendor leaves to virtual
 * devices without one of their own; with those that emulators use Linux turns commands off. */
#define VENDOR 0x1af4u
#define DEVICE 0x10f8u

static bool message(void *ctx, unsigned vector)
{
    struct nvme_pci *p = ctx;
    if (!pci_msix_enabled(&p->pci))
        return false;
    pci_msix_notify(&p->pci, vector);
    return true;
}

static void on_irq(void *ctx, unsigned line, bool level)
{
    struct nvme_pci *p = ctx;
    pci_intx_set(&p->pci, level && !pci_msix_enabled(&p->pci));
}

static void written(struct pci_dev *d, unsigned off, unsigned len)
{
    struct nvme_pci *p = CONTAINER_OF(d, struct nvme_pci, pci);
    if (p->nvme.dma != pci_bus_master(d))
        nvme_set_dma(&p->nvme, pci_bus_master(d));
    nvme_update_irq(&p->nvme);
}

static void reset(struct pci_dev *d)
{
    nvme_power_on(&CONTAINER_OF(d, struct nvme_pci, pci)->nvme);
}

int nvme_pci_init(struct nvme_pci *p, struct pci_bus *b, unsigned devfn,
                  const struct nvme_config *cfg, struct error *e)
{
    static const struct pci_ids ids = {.vendor = VENDOR,
                                       .device = DEVICE,
                                       .subvendor = VENDOR,
                                       .subdevice = 0x1100,
                                       .class_rev = 0x01080201, /* NVM Express */
                                       .intx_pin = 1};
    struct nvme_config c = *cfg;
    c.irq = (struct pin){on_irq, p, 0};
    c.message = message;
    c.ctx = p;
    *p = (struct nvme_pci){.pci = {.bus = NULL}};
    int rc = pci_dev_init(b, &p->pci, "nvme", devfn, &ids, e);
    if (rc)
        return rc;
    rc = pci_bar_add(&p->pci, 0, false, true, false, NVME_BAR_LEN, &nvme_ops, &p->nvme, e);
    if (!rc)
        rc = pci_msix_add(&p->pci, MSIX_BAR, cfg->queues + 1, e);
    if (!rc)
        rc = nvme_init(&p->nvme, b->mem, &c, e);
    if (rc) {
        pci_dev_fini(&p->pci);
        return rc;
    }
    p->pci.written = written;
    p->pci.reset = reset;
    return 0;
}

void nvme_pci_fini(struct nvme_pci *p)
{
    if (!p->pci.bus)
        return;
    pci_dev_fini(&p->pci);
    nvme_fini(&p->nvme);
}

static int post_load(void *dev, struct error *e)
{
    struct nvme_pci *p = dev;
    p->nvme.dma = pci_bus_master(&p->pci);
    return 0;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct nvme_pci, pci, pci_dev_fields),
    FIELD_STRUCT(struct nvme_pci, nvme, nvme_fields),
};
const struct field_table nvme_pci_fields =
    FIELD_TABLE(struct nvme_pci, "nvme_pci", fields, .post_load = post_load);
