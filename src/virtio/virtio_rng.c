/*
 * virtio_rng.c - fills the driver's buffers from the host's getrandom(2).
 *
 * One notification costs at most 64 KiB of random bytes: CHAIN_LIMIT bytes for each of QUEUE_SIZE
 * chains. A buffer is given back with what it got, which 5.4.6.2 allows. Event indices are
 * not offered, so each addition of the driver notifies, and what a notification left over (only a
 * driver that adds from a second vCPU meanwhile gets there) is served by the next.
 */
#include "virtio/virtio_rng.h"

#include <sys/random.h>

#define QUEUE_SIZE  16
#define CHAIN_LIMIT 4096u

static uint64_t features(struct virtio_dev *v)
{
    return 0;
}

/* How many bytes of the piece are random now. */
static size_t fill(uint8_t *p, size_t len)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = getrandom(p + done, min_u64(len - done, 256), 0); /* 256: never interrupted */
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    return done;
}

static uint32_t fill_chain(struct virtio_dev *v, const struct vchain *c)
{
    uint32_t total = 0;
    for (unsigned i = c->nread; i < c->nread + c->nwrite && total < CHAIN_LIMIT; i++) {
        size_t want = min_u64(c->iov[i].iov_len, CHAIN_LIMIT - total);
        size_t got = fill(c->iov[i].iov_base, want);
        dma_wrote(v->mem, c->iov[i].iov_base, got);
        total += (uint32_t)got;
        if (got < want)
            break;
    }
    return total;
}

static void kick(struct virtio_dev *v, unsigned q)
{
    struct vchain c;
    bool any = false;
    for (unsigned n = 0; n < QUEUE_SIZE && virtio_pop(v, q, &c); n++) {
        if (c.nread) { /* 5.4.6.1 */
            virtio_drop(v, q, &c);
            virtio_fail(v, "a readable buffer");
            return;
        }
        virtio_push(v, q, &c, fill_chain(v, &c));
        any = true;
    }
    if (any)
        virtio_signal(v, q);
}

static const struct virtio_ops ops = {
    .name = "virtio-rng",
    .id = 4,
    .class_rev = 0x10000001, /* encryption controller class; revision 1 */
    .nqueue = 1,
    .queue_max = QUEUE_SIZE,
    .features = features,
    .kick = kick,
};

void virtio_rng_init(struct virtio_rng *d, struct space *mem)
{
    virtio_init(&d->v, &ops, mem);
}

static const struct field fields[] = {
    FIELD_STRUCT(struct virtio_rng, v, virtio_fields),
};
const struct field_table virtio_rng_fields = FIELD_TABLE(struct virtio_rng, "virtio_rng", fields);
