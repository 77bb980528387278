/*
 * virtio.h - a virtio device between its transport and its class. Source: virtio 1.2, clause 2.
 *
 * A device class (virtio_blk.c ...) fills a const `struct virtio_ops` and embeds a `struct
 * virtio_dev`. A transport (virtio_pci.c) turns register accesses into the calls of the second
 * half of this file. Everything is called with the device lock held.
 *
 * Chains in flight. virtio_pop() lends a chain to the device, and each one comes back exactly once
 * through virtio_push() or virtio_drop(), possibly much later. A reset does not wait: it starts a
 * new life ("generation") of the queues, and chains of an older one go nowhere. Since their I/O may
 * still write guest memory, the driver is told of the end of the reset only when the last one is
 * back: until then the status reads as not 0 (2.4.2), queue_reset as 1 (2.6.1).
 */
#ifndef SOSIA_VIRTIO_VIRTIO_H
#define SOSIA_VIRTIO_VIRTIO_H

#include "virtio/ring.h"

#define VIRTIO_MAX_QUEUES 12

enum { /* device status, 2.1 */
       VIRTIO_ACKNOWLEDGE = 1,
       VIRTIO_DRIVER = 2,
       VIRTIO_DRIVER_OK = 4,
       VIRTIO_FEATURES_OK = 8,
       VIRTIO_NEEDS_RESET = 64,
       VIRTIO_FAILED = 128,
};

/* Feature bits that every device here has, clause 6. */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX     (1ull << 29)
#define VIRTIO_F_VERSION_1     (1ull << 32)
#define VIRTIO_F_RING_RESET    (1ull << 40)

struct virtio_dev;

struct virtio_ops {
    const char *name;
    uint16_t id;        /* device type, clause 5 */
    uint32_t class_rev; /* PCI class, subclass, interface, revision */
    unsigned nqueue;    /* at most; see virtio_set_queues() */
    uint16_t queue_max; /* largest size of each queue; power of two */
    unsigned config_len;
    uint64_t (*features)(struct virtio_dev *v); /* offered; VERSION_1 etc. are added */
    /* Within [0, config_len). Either may be NULL. */
    void (*config_read)(struct virtio_dev *v, unsigned off, uint8_t *buf, unsigned len);
    void (*config_write)(struct virtio_dev *v, unsigned off, const uint8_t *buf, unsigned len);
    void (*kick)(struct virtio_dev *v, unsigned q); /* the driver added chains */
    /* Queue q ends its life: drop the chains that are not in a back end's hands. May be NULL. */
    void (*queue_stop)(struct virtio_dev *v, unsigned q);
    void (*reset)(struct virtio_dev *v); /* after all queues stopped. May be NULL */
};

struct virtio_queue {
    struct vring ring;
    unsigned inflight; /* chains lent out, of any generation */
    uint32_t gen;
    bool draining; /* reset, and chains are still out */
};

struct virtio_dev {
    const struct virtio_ops *ops;
    struct space *mem;
    void (*interrupt)(void *transport, int q); /* q < 0: configuration change */
    void *transport;
    unsigned nqueue;
    uint64_t features; /* accepted by the driver; final with FEATURES_OK */
    uint8_t status;
    uint8_t generation; /* of the configuration space, 2.5.1 */
    bool draining;      /* reset by the driver, and chains are still out */
    bool dma;           /* the bus lets the device reach memory */
    struct virtio_queue queue[VIRTIO_MAX_QUEUES];
};

/* ---- for device classes ---- */

/* Chains in flight are no part of it: a device class takes those back that it still holds. */
extern const struct field_table virtio_fields;
void virtio_retake(struct virtio_dev *v, unsigned q, uint16_t head, struct vchain *c);

void virtio_init(struct virtio_dev *v, const struct virtio_ops *ops, struct space *mem);
/* Before the transport is made: this device has fewer queues than its class may have. */
void virtio_set_queues(struct virtio_dev *v, unsigned n);

/* The next chain of queue q: true if there is one. A broken ring puts the device in NEEDS_RESET. */
bool virtio_pop(struct virtio_dev *v, unsigned q, struct vchain *c);
/* Whether the chain's driver still waits for it; if not, its memory must not be written any more.
 */
bool virtio_live(const struct virtio_dev *v, unsigned q, const struct vchain *c);
void virtio_push(struct virtio_dev *v, unsigned q, const struct vchain *c, uint32_t len);
void virtio_drop(struct virtio_dev *v, unsigned q, const struct vchain *c);
/* Interrupts the driver if it wants that for what was pushed. */
void virtio_signal(struct virtio_dev *v, unsigned q);
/* The device changed its configuration space by itself: a configuration interrupt. */
void virtio_config_changed(struct virtio_dev *v);
/* The driver broke the rules (2.1.1): DEVICE_NEEDS_RESET, and nothing more until it is reset. */
void virtio_fail(struct virtio_dev *v, const char *why);

static inline bool virtio_has(const struct virtio_dev *v, uint64_t feature)
{
    return v->features & feature;
}

/* ---- for transports ---- */

uint64_t virtio_offered(struct virtio_dev *v);
/* Takes half `sel` of the driver's features; ignored once FEATURES_OK is set. */
void virtio_accept(struct virtio_dev *v, uint32_t sel, uint32_t bits);

uint8_t virtio_status(const struct virtio_dev *v); /* as the driver reads it */
void virtio_set_status(struct virtio_dev *v, uint8_t status);
void virtio_power_on(struct virtio_dev *v); /* reset of the platform: does not wait */

bool virtio_queue_usable(const struct virtio_dev *v, unsigned q);
void virtio_queue_enable(struct virtio_dev *v, unsigned q);
void virtio_queue_reset(struct virtio_dev *v, unsigned q);
void virtio_kick(struct virtio_dev *v, unsigned q);

#endif
