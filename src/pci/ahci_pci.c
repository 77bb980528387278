/* ahci_pci.c - see ahci_pci.h. Its only memory is BAR 5; the datasheet's index and data ports, port
 * enables (PCS) and MSI are left out. */
#include "pci/ahci_pci.h"

#include "base/endian.h"
#include "pci/config.h"

#define ABAR 5u

static void on_irq(void *ctx, unsigned line, bool level)
{
    struct ahci_pci *p = ctx;
    pci_intx_set(&p->pci, level);
}

static void written(struct pci_dev *d, unsigned off, unsigned len)
{
    struct ahci_pci *p = CONTAINER_OF(d, struct ahci_pci, pci);
    if (p->ahci.dma != pci_bus_master(d))
        ahci_set_dma(&p->ahci, pci_bus_master(d));
}

static void reset(struct pci_dev *d)
{
    ahci_power_on(&CONTAINER_OF(d, struct ahci_pci, pci)->ahci);
}

int ahci_pci_init(struct ahci_pci *p, struct pci_bus *b, unsigned devfn, struct error *e)
{
    static const struct pci_ids ids = {
        .vendor = 0x8086, .device = 0x2922, .class_rev = 0x01060102, .intx_pin = 1};
    *p = (struct ahci_pci){.pci = {.bus = NULL}};
    int rc = pci_dev_init(b, &p->pci, "ahci", devfn, &ids, e);
    if (rc)
        return rc;
    rc = pci_bar_add(&p->pci, ABAR, false, false, false, AHCI_BAR_LEN, &ahci_ops, &p->ahci, e);
    if (!rc)
        rc = ahci_init(&p->ahci, b->mem, (struct pin){on_irq, p, 0}, e);
    if (rc) {
        pci_dev_fini(&p->pci);
        return rc;
    }
    p->pci.written = written;
    p->pci.reset = reset;
    return 0;
}

void ahci_pci_fini(struct ahci_pci *p)
{
    if (!p->pci.bus)
        return;
    pci_dev_fini(&p->pci);
    ahci_fini(&p->ahci);
}

static int post_load(void *dev, struct error *e)
{
    struct ahci_pci *p = dev;
    p->ahci.dma = pci_bus_master(&p->pci);
    return 0;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct ahci_pci, pci, pci_dev_fields),
    FIELD_STRUCT(struct ahci_pci, ahci, ahci_fields),
};
const struct field_table ahci_pci_fields =
    FIELD_TABLE(struct ahci_pci, "ahci_pci", fields, .post_load = post_load);
