/* virtio.c - status, features and the life of queues; see virtio.h. Clauses are virtio 1.2's. */
#include "virtio/virtio.h"

#include "base/log.h"

#define COMMON_FEATURES (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_RING_RESET)

/* What a driver may set; NEEDS_RESET is the device's. */
#define DRIVER_STATUS \
    (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK | VIRTIO_FAILED)

void virtio_init(struct virtio_dev *v, const struct virtio_ops *ops, struct space *mem)
{
    *v = (struct virtio_dev){.ops = ops, .mem = mem, .nqueue = ops->nqueue};
    for (unsigned q = 0; q < ops->nqueue; q++) {
        v->queue[q].ring = (struct vring){.mem = mem, .name = ops->name, .max = ops->queue_max};
        vring_reset(&v->queue[q].ring);
    }
}

void virtio_set_queues(struct virtio_dev *v, unsigned n)
{
    v->nqueue = n;
}

/* ---- chains ---- */

static bool running(const struct virtio_dev *v)
{
    return (v->status & (VIRTIO_DRIVER_OK | VIRTIO_NEEDS_RESET)) == VIRTIO_DRIVER_OK && v->dma;
}

bool virtio_queue_usable(const struct virtio_dev *v, unsigned q)
{
    return q < v->nqueue && running(v) && v->queue[q].ring.enabled;
}

bool virtio_pop(struct virtio_dev *v, unsigned q, struct vchain *c)
{
    if (!virtio_queue_usable(v, q))
        return false;
    struct virtio_queue *vq = &v->queue[q];
    int rc = vring_pop(&vq->ring, c);
    if (rc < 0)
        virtio_fail(v, "a virtqueue is broken");
    if (rc <= 0)
        return false;
    c->gen = vq->gen;
    vq->inflight++;
    return true;
}

bool virtio_live(const struct virtio_dev *v, unsigned q, const struct vchain *c)
{
    return virtio_queue_usable(v, q) && v->queue[q].gen == c->gen;
}

static unsigned inflight(const struct virtio_dev *v)
{
    unsigned n = 0;
    for (unsigned q = 0; q < v->nqueue; q++)
        n += v->queue[q].inflight;
    return n;
}

void virtio_drop(struct virtio_dev *v, unsigned q, const struct vchain *c)
{
    struct virtio_queue *vq = &v->queue[q];
    if (--vq->inflight == 0)
        vq->draining = false;
    if (v->draining && inflight(v) == 0)
        v->draining = false;
}

void virtio_push(struct virtio_dev *v, unsigned q, const struct vchain *c, uint32_t len)
{
    bool live = virtio_live(v, q, c);
    virtio_drop(v, q, c);
    if (live && !vring_push(&v->queue[q].ring, c->head, len))
        virtio_fail(v, "a virtqueue is broken");
}

void virtio_signal(struct virtio_dev *v, unsigned q)
{
    if (!virtio_queue_usable(v, q))
        return;
    struct vring *ring = &v->queue[q].ring;
    if (vring_should_notify(ring) && v->interrupt)
        v->interrupt(v->transport, (int)q);
    if (ring->broken)
        virtio_fail(v, "a virtqueue is broken");
}

/* The generation tells a driver that is reading two halves of a field to read again. */
void virtio_config_changed(struct virtio_dev *v)
{
    v->generation++;
    if ((v->status & VIRTIO_DRIVER_OK) && v->interrupt)
        v->interrupt(v->transport, -1);
}

void virtio_fail(struct virtio_dev *v, const char *why)
{
    if (v->status & VIRTIO_NEEDS_RESET)
        return;
    log_guest("%s: %s; the device stops until it is reset", v->ops->name, why);
    v->status |= VIRTIO_NEEDS_RESET;
    if ((v->status & VIRTIO_DRIVER_OK) && v->interrupt) /* 2.1.2 */
        v->interrupt(v->transport, -1);
}

/* ---- features and status ---- */

uint64_t virtio_offered(struct virtio_dev *v)
{
    return v->ops->features(v) | COMMON_FEATURES;
}

void virtio_accept(struct virtio_dev *v, uint32_t sel, uint32_t bits)
{
    if (sel > 1 || (v->status & VIRTIO_FEATURES_OK))
        return;
    unsigned shift = sel * 32;
    v->features = (v->features & ~(0xffffffffull << shift)) | (uint64_t)bits << shift;
}

/* 2.2.2: FEATURES_OK stays clear if the driver accepted what was not offered; 6.2: or if it does
 * not know virtio 1. */
static bool features_acceptable(struct virtio_dev *v)
{
    if (!(v->features & ~virtio_offered(v)) && virtio_has(v, VIRTIO_F_VERSION_1))
        return true;
    log_guest("%s: the driver chose features 0x%llx of 0x%llx", v->ops->name,
              (unsigned long long)v->features, (unsigned long long)virtio_offered(v));
    return false;
}

uint8_t virtio_status(const struct virtio_dev *v)
{
    return v->draining ? (uint8_t)(v->status | VIRTIO_NEEDS_RESET) : v->status;
}

static void queue_stop(struct virtio_dev *v, unsigned q)
{
    struct virtio_queue *vq = &v->queue[q];
    vq->gen++;
    vring_reset(&vq->ring);
    if (v->ops->queue_stop)
        v->ops->queue_stop(v, q);
}

static void reset(struct virtio_dev *v)
{
    v->status = 0;
    v->features = 0;
    for (unsigned q = 0; q < v->nqueue; q++) {
        queue_stop(v, q);
        v->queue[q].draining = false;
    }
    if (v->ops->reset)
        v->ops->reset(v);
}

void virtio_power_on(struct virtio_dev *v)
{
    reset(v);
    v->draining = false;
    v->dma = false;
}

void virtio_set_status(struct virtio_dev *v, uint8_t status)
{
    if (status == 0) {
        reset(v);
        v->draining = inflight(v) != 0;
        return;
    }
    if (v->draining) /* 2.4.1: the driver must wait for 0 before it goes on */
        return;
    uint8_t add = status & DRIVER_STATUS & (uint8_t)~v->status; /* bits are cleared by reset only */
    if ((add & VIRTIO_FEATURES_OK) && !features_acceptable(v))
        add &= (uint8_t)~VIRTIO_FEATURES_OK;
    if ((add & VIRTIO_DRIVER_OK) && !((v->status | add) & VIRTIO_FEATURES_OK)) {
        log_guest("%s: DRIVER_OK without FEATURES_OK", v->ops->name);
        add &= (uint8_t)~VIRTIO_DRIVER_OK;
    }
    v->status |= add;
    if (add & VIRTIO_DRIVER_OK) /* chains that were added, and notified in vain, before it */
        for (unsigned q = 0; q < v->nqueue; q++)
            virtio_kick(v, q);
}

/* ---- queues ---- */

void virtio_queue_enable(struct virtio_dev *v, unsigned q)
{
    if (q >= v->nqueue || v->queue[q].ring.enabled || v->queue[q].draining)
        return;
    if (!(v->status & VIRTIO_FEATURES_OK) || v->draining) {
        log_guest("%s: queue enabled before features are agreed on", v->ops->name);
        return;
    }
    struct vring *ring = &v->queue[q].ring;
    ring->indirect = virtio_has(v, VIRTIO_F_INDIRECT_DESC);
    ring->event_idx = virtio_has(v, VIRTIO_F_EVENT_IDX);
    if (!vring_start(ring))
        virtio_fail(v, "a virtqueue cannot be used as it is set up");
}

void virtio_queue_reset(struct virtio_dev *v, unsigned q)
{
    if (q >= v->nqueue || !virtio_has(v, VIRTIO_F_RING_RESET))
        return;
    queue_stop(v, q);
    v->queue[q].draining = v->queue[q].inflight != 0;
}

void virtio_kick(struct virtio_dev *v, unsigned q)
{
    if (virtio_queue_usable(v, q))
        v->ops->kick(v, q);
}

/* ---- state ---- */

void virtio_retake(struct virtio_dev *v, unsigned q, uint16_t head, struct vchain *c)
{
    struct virtio_queue *vq = &v->queue[q];
    if (!vring_retake(&vq->ring, head, c)) {
        *c = (struct vchain){.head = head};
        virtio_fail(v, "a virtqueue is broken");
    }
    c->gen = vq->gen;
    vq->inflight++;
}

static int post_load(void *dev, struct error *e)
{
    struct virtio_dev *v = dev;
    uint64_t extra = v->features & ~virtio_offered(v);
    if ((v->status & VIRTIO_FEATURES_OK) && extra)
        return error_set(e, ERR_STATE,
                         "features: the guest uses %#llx, which this machine does not offer",
                         (unsigned long long)extra);
    if ((v->status & (VIRTIO_DRIVER_OK | VIRTIO_FEATURES_OK)) == VIRTIO_DRIVER_OK)
        return error_set(e, ERR_FORMAT, "status: the driver runs without features");
    for (unsigned q = v->nqueue; q < VIRTIO_MAX_QUEUES; q++)
        if (v->queue[q].ring.enabled)
            return error_set(e, ERR_FORMAT, "queue[%u]: does not exist here", q);
    return 0;
}

static const struct field queue_fields[] = {
    FIELD_STRUCT(struct virtio_queue, ring, vring_fields),
    FIELD_NONE(struct virtio_queue, inflight), /* the disks are drained before the state is saved;
                                                  for the others see the class */
    FIELD_NONE(struct virtio_queue, gen),
    FIELD_NONE(struct virtio_queue, draining),
};
static const struct field_table queue_table =
    FIELD_TABLE(struct virtio_queue, "virtio_queue", queue_fields);

static const struct field fields[] = {
    FIELD_NONE(struct virtio_dev, ops),
    FIELD_NONE(struct virtio_dev, mem),
    FIELD_NONE(struct virtio_dev, interrupt),
    FIELD_NONE(struct virtio_dev, transport),
    FIELD(struct virtio_dev, nqueue, .same = true),
    FIELD(struct virtio_dev, features),
    FIELD(struct virtio_dev, status),
    FIELD(struct virtio_dev, generation),
    FIELD_NONE(struct virtio_dev, draining),
    FIELD_NONE(struct virtio_dev, dma), /* of the bus: virtio_pci.c */
    FIELD_STRUCTS(struct virtio_dev, queue, queue_table),
};
const struct field_table virtio_fields =
    FIELD_TABLE(struct virtio_dev, "virtio_dev", fields, .post_load = post_load);
