/*
 * ring.h - the split virtqueue, seen from the device. Source: virtio 1.2, clause 2.7.
 *
 * A ring is three areas in guest memory: the descriptor table (buffers as address, length, flags),
 * the available ring (heads of chains that the driver offers) and the used ring (heads that the
 * device gives back). All of it is hostile. Each guest field is read once, into a local, and
 * checked before use:
 *  - the areas lie in RAM, aligned, when the ring is started (a map that changes later is
 *    caught by every access being a checked DMA);
 *  - the available index is at most `size` ahead, a head is below `size`;
 *  - a walk takes at most VCHAIN_STEPS descriptors, so a loop ends; `next` stays inside its table;
 *  - a buffer is not empty, lies in RAM to its last byte, and readable buffers precede writable
 * ones;
 *  - an indirect table is a multiple of 16 bytes, is last, and is not inside another one.
 * A ring that violates this is `broken` and gives out nothing until it is started anew.
 */
#ifndef SOSIA_VIRTIO_RING_H
#define SOSIA_VIRTIO_RING_H

#include <sys/uio.h>

#include "base/field.h"
#include "mem/space.h"

/* Longest walk and most pieces of host memory of one chain: 254 data segments, a header and a
 * status, and room for buffers that cross a seam of the address map. */
#define VCHAIN_STEPS 288
#define VCHAIN_IOV   288

struct vring {
    struct space *mem;
    const char *name;        /* for the log */
    uint16_t max;            /* largest size offered; power of two */
    uint16_t size;           /* chosen by the driver */
    gpa_t desc, avail, used; /* descriptor table, driver area, device area */
    bool enabled, broken;
    bool indirect, event_idx; /* negotiated; set before vring_start */
    uint16_t last_avail;      /* next available entry to take */
    uint16_t avail_idx;       /* the driver's index as last read and checked */
    uint16_t used_idx;        /* next used entry to fill */
    uint16_t signalled;       /* used_idx at the last interrupt decision */
};

/* A chain taken off the ring, as host memory: readable pieces, then writable ones. */
struct vchain {
    uint16_t head;
    uint32_t gen; /* virtio.c's: the life of the queue that the chain belongs to */
    unsigned nread, nwrite;
    uint64_t read_len, write_len;
    struct iovec iov[VCHAIN_IOV];
};

extern const struct field_table vring_fields;

/* Back to the state before vring_start: default size, no addresses. */
void vring_reset(struct vring *q);

/* Checks what the driver set up and starts the ring. False (and logged) if it cannot be used. */
bool vring_start(struct vring *q);

/* Takes the next chain: 1, 0 if there is none, -1 if the ring is (now) broken. When it returns 0
 * the driver will notify the next addition. */
int vring_pop(struct vring *q, struct vchain *c);

/* Takes a chain once more that was taken before a saved state was loaded. False: the ring is (now)
 * broken. */
bool vring_retake(struct vring *q, uint16_t head, struct vchain *c);

/* Gives a chain back, `len` bytes of its writable part filled. False: the ring is now broken. */
bool vring_push(struct vring *q, uint16_t head, uint32_t len);

/* After pushing: whether the driver wants an interrupt for what was pushed since the last call. */
bool vring_should_notify(struct vring *q);

/* For a device that stops before the ring is empty: the driver notifies its next addition. */
void vring_rearm(struct vring *q);

/* Copies between a chain and a buffer, `off` bytes into the chain's readable or writable part;
 * return how many bytes there were. */
size_t vchain_read(const struct vchain *c, uint64_t off, void *buf, size_t len);
size_t vchain_write(struct space *mem, const struct vchain *c, uint64_t off, const void *buf,
                    size_t len);

#endif
