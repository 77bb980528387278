/*
 * virtio_pci.h - virtio over PCI, modern (non-transitional) only. Source: virtio 1.2, clause 4.1.
 *
 * BAR 0 holds the four structures that the vendor capabilities point to, a page each; BAR 1 the
 * MSI-X table. A fifth capability is the window through which firmware reaches BAR 0 with
 * configuration cycles alone.
 */
#ifndef SOSIA_VIRTIO_VIRTIO_PCI_H
#define SOSIA_VIRTIO_VIRTIO_PCI_H

#include "pci/pci.h"
#include "virtio/virtio.h"

#define VIRTIO_PCI_VENDOR  0x1af4
#define VIRTIO_NO_VECTOR   0xffff
#define VIRTIO_PCI_COMMON  0x0000 /* offsets in BAR 0 */
#define VIRTIO_PCI_ISR     0x1000
#define VIRTIO_PCI_DEVICE  0x2000
#define VIRTIO_PCI_NOTIFY  0x3000
#define VIRTIO_PCI_BAR_LEN 0x4000

struct virtio_pci {
    struct pci_dev pci;
    struct virtio_dev *v;
    uint32_t feature_sel, driver_sel;
    uint16_t queue_sel;
    uint16_t config_vector;
    uint16_t vector[VIRTIO_MAX_QUEUES];
    uint8_t isr;
    uint8_t window; /* offset of the PCI_CFG capability */
};

/* Puts the device, which the caller keeps, on the bus. */
int virtio_pci_init(struct virtio_pci *p, struct pci_bus *bus, unsigned devfn, struct virtio_dev *v,
                    struct error *e);
extern const struct field_table virtio_pci_fields;
void virtio_pci_fini(struct virtio_pci *p);

#endif
