/* virtio_pci.c - the PCI transport; see virtio_pci.h. Clauses are virtio 1.2's. */
#include "virtio/virtio_pci.h"

#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "base/log.h"

#define NOTIFY_STRIDE 4u /* notify_off_multiplier: a register for each queue */
#define MSIX_BAR      1u

#define ISR_QUEUE  1u
#define ISR_CONFIG 2u

/* Common configuration, 4.1.4.3. */
enum {
    C_FEATURE_SEL = 0x00,
    C_FEATURE = 0x04,
    C_DRIVER_SEL = 0x08,
    C_DRIVER_FEATURE = 0x0c,
    C_CONFIG_VECTOR = 0x10,
    C_NUM_QUEUES = 0x12,
    C_STATUS = 0x14,
    C_GENERATION = 0x15,
    C_QUEUE_SEL = 0x16,
    C_QUEUE_SIZE = 0x18,
    C_QUEUE_VECTOR = 0x1a,
    C_QUEUE_ENABLE = 0x1c,
    C_QUEUE_NOTIFY_OFF = 0x1e,
    C_QUEUE_DESC = 0x20,
    C_QUEUE_DRIVER = 0x28,
    C_QUEUE_DEVICE = 0x30,
    C_QUEUE_NOTIFY_DATA = 0x38,
    C_QUEUE_RESET = 0x3a,
    C_LEN = 0x3c,
};

/* Capabilities, 4.1.4. */
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI_CFG };
#define CAP_VENDOR  0x09
#define CAP_BAR     4 /* offsets of fields */
#define CAP_OFFSET  8
#define CAP_LENGTH  12
#define CAP_LEN     16 /* of a plain capability; the window's data and the multiplier follow */
#define WINDOW_DATA CAP_LEN

/* ---- interrupts ---- */

static void interrupt(void *transport, int q)
{
    struct virtio_pci *p = transport;
    if (pci_msix_enabled(&p->pci)) {
        uint16_t vector = q < 0 ? p->config_vector : p->vector[q];
        if (vector != VIRTIO_NO_VECTOR)
            pci_msix_notify(&p->pci, vector);
        return;
    }
    p->isr |= q < 0 ? ISR_CONFIG : ISR_QUEUE;
    pci_intx_set(&p->pci, true);
}

static uint8_t isr_read(struct virtio_pci *p)
{
    uint8_t isr = p->isr; /* 4.1.4.5: reading acknowledges */
    p->isr = 0;
    pci_intx_set(&p->pci, false);
    return isr;
}

/* 4.1.5.1.2.1: a vector that does not exist reads back as NO_VECTOR. */
static uint16_t checked_vector(const struct virtio_pci *p, uint16_t vector)
{
    return vector <= p->v->nqueue ? vector : VIRTIO_NO_VECTOR;
}

/* ---- common configuration ---- */

static struct virtio_queue *selected(struct virtio_pci *p)
{
    return p->queue_sel < p->v->nqueue ? &p->v->queue[p->queue_sel] : NULL;
}

/* The structure as the driver sees it now. Nothing in it has a side effect when read. */
static void common_image(struct virtio_pci *p, uint8_t *c)
{
    memset(c, 0, C_LEN);
    uint64_t offered = virtio_offered(p->v);
    if (p->feature_sel < 2)
        store_le32(c + C_FEATURE, (uint32_t)(offered >> (32 * p->feature_sel)));
    if (p->driver_sel < 2)
        store_le32(c + C_DRIVER_FEATURE, (uint32_t)(p->v->features >> (32 * p->driver_sel)));
    store_le32(c + C_FEATURE_SEL, p->feature_sel);
    store_le32(c + C_DRIVER_SEL, p->driver_sel);
    store_le16(c + C_CONFIG_VECTOR, p->config_vector);
    store_le16(c + C_NUM_QUEUES, (uint16_t)p->v->nqueue);
    c[C_STATUS] = virtio_status(p->v);
    c[C_GENERATION] = p->v->generation;
    store_le16(c + C_QUEUE_SEL, p->queue_sel);
    const struct virtio_queue *q = selected(p);
    if (!q)
        return; /* queue_size 0: there is no such queue */
    store_le16(c + C_QUEUE_SIZE, q->ring.size);
    store_le16(c + C_QUEUE_VECTOR, p->vector[p->queue_sel]);
    store_le16(c + C_QUEUE_ENABLE, q->ring.enabled);
    store_le16(c + C_QUEUE_NOTIFY_OFF, p->queue_sel);
    store_le64(c + C_QUEUE_DESC, q->ring.desc);
    store_le64(c + C_QUEUE_DRIVER, q->ring.avail);
    store_le64(c + C_QUEUE_DEVICE, q->ring.used);
    store_le16(c + C_QUEUE_NOTIFY_DATA, p->queue_sel);
    store_le16(c + C_QUEUE_RESET, q->draining);
}

/* Writes half of a 64-bit address; 4.1.3.1 has the driver use 32-bit accesses. */
static void set_half(gpa_t *addr, unsigned off, uint32_t val)
{
    unsigned shift = (off & 4) * 8;
    *addr = (*addr & ~(0xffffffffull << shift)) | (uint64_t)val << shift;
}

static void queue_write16(struct virtio_pci *p, unsigned off, uint16_t val)
{
    struct virtio_queue *q = selected(p);
    if (!q)
        return;
    if (off == C_QUEUE_SIZE && !q->ring.enabled)
        q->ring.size = val; /* checked by vring_start */
    else if (off == C_QUEUE_VECTOR)
        p->vector[p->queue_sel] = checked_vector(p, val);
    else if (off == C_QUEUE_ENABLE && val == 1)
        virtio_queue_enable(p->v, p->queue_sel);
    else if (off == C_QUEUE_RESET && val == 1 && virtio_has(p->v, VIRTIO_F_RING_RESET)) {
        p->vector[p->queue_sel] = VIRTIO_NO_VECTOR;
        virtio_queue_reset(p->v, p->queue_sel);
    }
}

static void queue_write32(struct virtio_pci *p, unsigned off, uint32_t val)
{
    struct virtio_queue *q = selected(p);
    if (!q || q->ring.enabled)
        return;
    if (off < C_QUEUE_DRIVER)
        set_half(&q->ring.desc, off, val);
    else if (off < C_QUEUE_DEVICE)
        set_half(&q->ring.avail, off, val);
    else
        set_half(&q->ring.used, off, val);
}

/* What the driver can select and assign goes back to its default with the device (4.1.4.3.1). */
static void transport_reset(struct virtio_pci *p)
{
    p->feature_sel = p->driver_sel = 0;
    p->queue_sel = 0;
    p->config_vector = VIRTIO_NO_VECTOR;
    for (unsigned q = 0; q < VIRTIO_MAX_QUEUES; q++)
        p->vector[q] = VIRTIO_NO_VECTOR;
    isr_read(p);
}

static void write_status(struct virtio_pci *p, uint8_t status)
{
    virtio_set_status(p->v, status);
    if (status == 0)
        transport_reset(p);
}

/* 4.1.3.1: each field is written with its own width; anything else has no effect. */
static void common_write(struct virtio_pci *p, unsigned off, uint32_t val, unsigned size)
{
    if (size == 1 && off == C_STATUS)
        write_status(p, (uint8_t)val);
    else if (size == 2 && off == C_CONFIG_VECTOR)
        p->config_vector = checked_vector(p, (uint16_t)val);
    else if (size == 2 && off == C_QUEUE_SEL)
        p->queue_sel = (uint16_t)val;
    else if (size == 2)
        queue_write16(p, off, (uint16_t)val);
    else if (size == 4 && off == C_FEATURE_SEL)
        p->feature_sel = val;
    else if (size == 4 && off == C_DRIVER_SEL)
        p->driver_sel = val;
    else if (size == 4 && off == C_DRIVER_FEATURE)
        virtio_accept(p->v, p->driver_sel, val);
    else if (size == 4 && off >= C_QUEUE_DESC && off < C_QUEUE_NOTIFY_DATA)
        queue_write32(p, off, val);
    else
        log_guest("%s: write of %u bytes to common configuration 0x%x ignored", p->v->ops->name,
                  size, off);
}

/* ---- BAR 0 ---- */

static uint64_t bar_read(void *dev, uint64_t off, unsigned size)
{
    struct virtio_pci *p = dev;
    const struct virtio_ops *ops = p->v->ops;
    uint8_t image[C_LEN], raw[4] = {0};
    unsigned at = (unsigned)(off & 0xfff);
    switch (off & ~0xfffull) {
    case VIRTIO_PCI_COMMON:
        if (!range_within(at, size, C_LEN))
            return 0;
        common_image(p, image);
        memcpy(raw, image + at, size);
        break;
    case VIRTIO_PCI_ISR:
        return at == 0 ? isr_read(p) : 0;
    case VIRTIO_PCI_DEVICE:
        if (range_within(at, size, ops->config_len) && ops->config_read)
            ops->config_read(p->v, at, raw, size);
        break;
    default:
        break;
    }
    return load_le32(raw);
}

static void bar_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct virtio_pci *p = dev;
    const struct virtio_ops *ops = p->v->ops;
    uint8_t raw[4];
    unsigned at = (unsigned)(off & 0xfff);
    switch (off & ~0xfffull) {
    case VIRTIO_PCI_COMMON:
        common_write(p, at, (uint32_t)val, size);
        break;
    case VIRTIO_PCI_DEVICE:
        store_le32(raw, (uint32_t)val);
        if (range_within(at, size, ops->config_len) && ops->config_write)
            ops->config_write(p->v, at, raw, size);
        break;
    case VIRTIO_PCI_NOTIFY:
        if (at % NOTIFY_STRIDE == 0)
            virtio_kick(p->v, at / NOTIFY_STRIDE);
        break;
    default:
        break;
    }
}

static const struct io_ops bar_ops = {"virtio", 1 | 2 | 4, bar_read, bar_write};

/* ---- the PCI_CFG window, 4.1.4.9 ---- */

/* Decodes the window: where in BAR 0 and how much. The guest writes all three fields. */
static bool window_target(const struct virtio_pci *p, uint32_t *off, uint32_t *len)
{
    const uint8_t *cap = p->pci.cfg + p->window;
    *off = load_le32(cap + CAP_OFFSET);
    *len = load_le32(cap + CAP_LENGTH);
    return cap[CAP_BAR] == 0 && (*len == 1 || *len == 2 || *len == 4) && *off % *len == 0 &&
           range_within(*off, *len, VIRTIO_PCI_BAR_LEN);
}

static bool touches_window(const struct virtio_pci *p, unsigned off, unsigned len)
{
    unsigned data = p->window + WINDOW_DATA;
    return p->window && off < data + 4 && off + len > data;
}

static bool config_read(struct pci_dev *d, unsigned off, unsigned size, uint32_t *val)
{
    struct virtio_pci *p = CONTAINER_OF(d, struct virtio_pci, pci);
    uint32_t at, len;
    if (touches_window(p, off, size) && window_target(p, &at, &len)) {
        uint8_t raw[4];
        store_le32(raw, (uint32_t)bar_read(p, at, len));
        memcpy(d->cfg + p->window + WINDOW_DATA, raw, len);
    }
    return false; /* the core reads the bytes now stored */
}

static void config_written(struct pci_dev *d, unsigned off, unsigned len)
{
    struct virtio_pci *p = CONTAINER_OF(d, struct virtio_pci, pci);
    uint32_t at, n;
    p->v->dma = pci_bus_master(d);
    if (pci_msix_enabled(d)) { /* 4.1.4.5: ISR and INTx are not used then */
        p->isr = 0;
        pci_intx_set(d, false);
    }
    if (!touches_window(p, off, len) || !window_target(p, &at, &n))
        return;
    uint32_t val = load_le32(d->cfg + p->window + WINDOW_DATA);
    if (n < 4)
        val &= (1u << (8 * n)) - 1;
    bar_write(p, at, val, n);
}

/* ---- set-up ---- */

static void pci_reset(struct pci_dev *d)
{
    struct virtio_pci *p = CONTAINER_OF(d, struct virtio_pci, pci);
    uint8_t *cap = d->cfg + p->window;
    cap[CAP_BAR] = 0;
    memset(cap + CAP_OFFSET, 0, 12); /* offset, length, data */
    virtio_power_on(p->v);
    transport_reset(p);
}

static int add_cap(struct virtio_pci *p, uint8_t type, uint32_t off, uint32_t len, unsigned extra,
                   struct error *e)
{
    int at = pci_cap_add(&p->pci, CAP_VENDOR, CAP_LEN + extra, e);
    if (at < 0)
        return at;
    uint8_t *cap = p->pci.cfg + at;
    cap[2] = (uint8_t)(CAP_LEN + extra);
    cap[3] = type;
    store_le32(cap + CAP_OFFSET, off);
    store_le32(cap + CAP_LENGTH, len);
    return at;
}

static int add_caps(struct virtio_pci *p, struct error *e)
{
    const struct virtio_ops *ops = p->v->ops;
    int at = add_cap(p, CAP_COMMON, VIRTIO_PCI_COMMON, C_LEN, 0, e);
    if (at >= 0)
        at = add_cap(p, CAP_ISR, VIRTIO_PCI_ISR, 1, 0, e);
    if (at >= 0 && ops->config_len)
        at = add_cap(p, CAP_DEVICE, VIRTIO_PCI_DEVICE, ops->config_len, 0, e);
    if (at >= 0)
        at = add_cap(p, CAP_NOTIFY, VIRTIO_PCI_NOTIFY, NOTIFY_STRIDE * p->v->nqueue, 4, e);
    if (at < 0)
        return at;
    store_le32(p->pci.cfg + at + CAP_LEN, NOTIFY_STRIDE);
    at = add_cap(p, CAP_PCI_CFG, 0, 0, 4, e);
    if (at < 0)
        return at;
    p->window = (uint8_t)at;
    p->pci.wmask[at + CAP_BAR] = 0xff;
    memset(p->pci.wmask + at + CAP_OFFSET, 0xff, 12);
    return 0;
}

int virtio_pci_init(struct virtio_pci *p, struct pci_bus *bus, unsigned devfn, struct virtio_dev *v,
                    struct error *e)
{
    *p = (struct virtio_pci){.v = v};
    const struct pci_ids ids = {.vendor = VIRTIO_PCI_VENDOR,
                                .device = (uint16_t)(0x1040 + v->ops->id), /* 4.1.2 */
                                .subvendor = VIRTIO_PCI_VENDOR,
                                .subdevice = 0x40,
                                .class_rev = v->ops->class_rev,
                                .intx_pin = 1};
    int rc = pci_dev_init(bus, &p->pci, v->ops->name, devfn, &ids, e);
    if (rc)
        return rc;
    rc = pci_bar_add(&p->pci, 0, false, false, false, VIRTIO_PCI_BAR_LEN, &bar_ops, p, e);
    if (!rc)
        rc = pci_msix_add(&p->pci, MSIX_BAR, v->nqueue + 1, e);
    if (!rc)
        rc = add_caps(p, e);
    if (rc) {
        pci_dev_fini(&p->pci);
        return rc;
    }
    p->pci.reset = pci_reset;
    p->pci.written = config_written;
    p->pci.cfg_read_hook = config_read;
    v->interrupt = interrupt;
    v->transport = p;
    transport_reset(p);
    return 0;
}

void virtio_pci_fini(struct virtio_pci *p)
{
    if (!p->v)
        return;
    p->v->interrupt = NULL;
    pci_dev_fini(&p->pci);
    p->v = NULL;
}

/* ---- state ---- */

static int post_load(void *dev, struct error *e)
{
    struct virtio_pci *p = dev;
    p->v->dma = pci_bus_master(&p->pci);
    return 0;
}

static const struct field fields[] = {
    FIELD_STRUCT(struct virtio_pci, pci, pci_dev_fields),
    FIELD_NONE(struct virtio_pci, v), /* loaded by itself */
    FIELD(struct virtio_pci, feature_sel),
    FIELD(struct virtio_pci, driver_sel),
    FIELD(struct virtio_pci, queue_sel),
    FIELD(struct virtio_pci, config_vector),
    FIELD_ARRAY(struct virtio_pci, vector),
    FIELD(struct virtio_pci, isr, .max = ISR_QUEUE | ISR_CONFIG),
    FIELD_NONE(struct virtio_pci, window),
};
const struct field_table virtio_pci_fields =
    FIELD_TABLE(struct virtio_pci, "virtio_pci", fields, .post_load = post_load);
