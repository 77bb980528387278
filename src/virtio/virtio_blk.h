/* virtio_blk.h - the block device. Source: virtio 1.2, clause 5.2. */
#ifndef SOSIA_VIRTIO_VIRTIO_BLK_H
#define SOSIA_VIRTIO_VIRTIO_BLK_H

#include "block/block.h"
#include "virtio/virtio.h"

#define VIRTIO_BLK_ID_LEN 20

struct vblk_req;

struct virtio_blk {
    struct virtio_dev v;
    struct blk *blk;
    char id[VIRTIO_BLK_ID_LEN]; /* serial number; not terminated if it fills the field */
    struct vblk_req *pool;      /* bounds the requests in flight */
    struct vblk_req *free;
    bool starved; /* stopped taking chains because the pool was empty */
};

/* `blk` stays the caller's. `serial` may be NULL. ERR_NOMEM. */
int virtio_blk_init(struct virtio_blk *d, struct space *mem, struct blk *blk, const char *serial,
                    struct error *e);
/* After blk_close(), which waits for the requests that point here, and virtio_pci_fini(). */
void virtio_blk_fini(struct virtio_blk *d);

#endif
