/*
 * fuzz_virtio.h - one virtio device behind its PCI function, and a driver that obeys the rules as
 * far as the script wants: it can set the queues up in one step, so that the rings are reached
 * often, and then writes descriptors and heads that the input makes up.
 */
#ifndef SOSIA_TESTS_FUZZ_FUZZ_VIRTIO_H
#define SOSIA_TESTS_FUZZ_FUZZ_VIRTIO_H

#include "base/endian.h"
#include "fuzz.h"
#include "virtio/virtio_pci.h"

#define VF_BAR       0xe0000000u
#define VF_MSIX      0xe1000000u
#define VF_DEVFN     PCI_DEVFN(4, 0)
#define VF_SIZE      8u /* of each queue */
#define VF_DESC(q)   (0x1000u + (q)*0x4000u)
#define VF_AVAIL(q)  (0x2000u + (q)*0x4000u)
#define VF_USED(q)   (0x3000u + (q)*0x4000u)
#define VF_INDIRECT  0x20000u
#define VF_BUFFERS   0x40000u
#define VF_NOTIFY(q) (VIRTIO_PCI_NOTIFY + 4 * (q))

/* Common configuration, virtio 1.2, 4.1.4.3. */
enum {
    VF_DRIVER_SEL = 8,
    VF_DRIVER_FEATURES = 12,
    VF_STATUS = 20,
    VF_QUEUE_SEL = 22,
    VF_QUEUE_SIZE = 24,
    VF_QUEUE_VECTOR = 26,
    VF_QUEUE_ENABLE = 28,
    VF_QUEUE_DESC = 32,
};

static struct {
    struct pci_bus bus;
    struct virtio_pci fn;
    uint16_t added[VIRTIO_MAX_QUEUES];
} vf;

static inline void vf_write(struct fuzz *f, unsigned off, uint64_t val, unsigned size)
{
    space_write(&f->mem, VF_BAR + off, val, size);
}

/* What a driver does before it uses the device, with the features it is told. */
static inline void vf_start(struct fuzz *f, unsigned nqueue, uint32_t features)
{
    vf_write(f, VF_STATUS, 0, 1);
    vf_write(f, VF_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER, 1);
    vf_write(f, VF_DRIVER_SEL, 0, 4);
    vf_write(f, VF_DRIVER_FEATURES, features, 4);
    vf_write(f, VF_DRIVER_SEL, 1, 4);
    vf_write(f, VF_DRIVER_FEATURES, 0x101, 4); /* version 1, ring reset */
    vf_write(f, VF_STATUS, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK, 1);
    for (unsigned q = 0; q < nqueue; q++) {
        vf_write(f, VF_QUEUE_SEL, q, 2);
        vf_write(f, VF_QUEUE_SIZE, VF_SIZE, 2);
        vf_write(f, VF_QUEUE_DESC, VF_DESC(q), 8);
        vf_write(f, VF_QUEUE_DESC + 8, VF_AVAIL(q), 8);
        vf_write(f, VF_QUEUE_DESC + 16, VF_USED(q), 8);
        vf_write(f, VF_QUEUE_ENABLE, 1, 2);
        vf.added[q] = load_le16(f->ram.host + VF_AVAIL(q) + 2);
    }
    vf_write(f, VF_STATUS,
             VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK, 1);
}

/* A descriptor of a table; its buffer mostly lies in RAM. */
static inline void vf_desc(struct fuzz *f, gpa_t table, uint8_t what)
{
    uint8_t *d = f->ram.host + table + 16 * (fuzz_u8(&f->in) % VF_SIZE);
    uint16_t at = fuzz_u16(&f->in), flags = fuzz_u8(&f->in);
    uint64_t addr = VF_BUFFERS + 16ull * (at & 0x7fff);
    if (flags & 0x80)
        addr = fuzz_uint(&f->in, 8);
    if ((flags & 7) == 4) /* an indirect table, mostly where one is */
        addr = VF_INDIRECT + 16ull * (at & 7);
    store_le64(d, addr);
    store_le32(d + 8, what & 0x20 ? (uint32_t)fuzz_uint(&f->in, 4) : fuzz_u16(&f->in));
    store_le16(d + 12, flags & 7);
    store_le16(d + 14, fuzz_u8(&f->in) & 15);
}

static inline void vf_offer(struct fuzz *f, unsigned q)
{
    uint8_t *a = f->ram.host + VF_AVAIL(q);
    store_le16(a + 4 + 2 * (vf.added[q] % VF_SIZE), fuzz_u8(&f->in) % (VF_SIZE + 1));
    store_le16(a + 2, ++vf.added[q]);
}

/* struct fuzz.extra */
static inline void vf_extra(struct fuzz *f, uint8_t what)
{
    unsigned nqueue = vf.fn.v->nqueue, q = (what >> 3) % nqueue;
    switch (what & 7) {
    case 0:
        vf_start(f, nqueue, (uint32_t)fuzz_uint(&f->in, 4));
        break;
    case 1:
    case 2:
        vf_desc(f, VF_DESC(q), what);
        break;
    case 3:
        vf_desc(f, VF_INDIRECT, what);
        break;
    case 4:
        vf_offer(f, q);
        break;
    case 5:
        vf_offer(f, q);
        vf_write(f, VF_NOTIFY(q), q, 2);
        break;
    case 6: /* a request's header at a buffer */
        store_le32(f->ram.host + VF_BUFFERS + 16ull * fuzz_u8(&f->in), fuzz_u8(&f->in));
        break;
    case 7:
        if (what & 0x80) { /* the disk's size changes */
            fuzz_resize(f);
            break;
        }
        /* an index out of thin air */
        store_le16(f->ram.host + VF_AVAIL(q) + 2, fuzz_u16(&f->in));
        break;
    }
}

static inline void vf_reset(struct fuzz *f)
{
    pci_bus_reset(&vf.bus);
}

static inline void vf_begin(struct fuzz *f, const uint8_t *data, size_t size)
{
    fuzz_begin(f, data, size);
    f->extra = vf_extra;
    f->reset = vf_reset;
    fuzz_bus(f, &vf.bus);
}

static inline void vf_run(struct fuzz *f, struct virtio_dev *v)
{
    FUZZ_REQUIRE(!virtio_pci_init(&vf.fn, &vf.bus, VF_DEVFN, v, NULL));
    fuzz_cfg_write(f, VF_DEVFN, 0x10, VF_BAR);
    fuzz_cfg_write(f, VF_DEVFN, 0x14, VF_MSIX);
    fuzz_cfg_write(f, VF_DEVFN, 4, 6);
    fuzz_window(f, &f->mem, VF_BAR, 0x40);
    fuzz_window(f, &f->mem, VF_BAR + VIRTIO_PCI_ISR, 4);
    fuzz_window(f, &f->mem, VF_BAR + VIRTIO_PCI_DEVICE, 0x60);
    fuzz_window(f, &f->mem, VF_BAR + VIRTIO_PCI_NOTIFY, 16);
    fuzz_window(f, &f->mem, VF_MSIX, 0x1000);
    fuzz_window(f, &f->port, 0xcf8, 8);
    if (fuzz_u8(&f->in) & 1)
        vf_start(f, v->nqueue, (uint32_t)fuzz_uint(&f->in, 4));
    fuzz_run(f);
}

#endif
