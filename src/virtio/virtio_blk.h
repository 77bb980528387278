/* virtio_blk.h - the block device. Source: virtio 1.2, clause 5.2. */
#ifndef SOSIA_VIRTIO_VIRTIO_BLK_H
#define SOSIA_VIRTIO_VIRTIO_BLK_H

#include "block/block.h"
#include "virtio/coalesce.h"

#define VIRTIO_BLK_ID_LEN     20
#define VIRTIO_BLK_MAX_QUEUES 8

struct vblk_req;

struct virtio_blk_config {
    struct blk *blk;       /* stays the caller's; `resized` and `ctx` become the device's */
    const char *serial;    /* up to VIRTIO_BLK_ID_LEN characters; may be NULL */
    unsigned queues;       /* 1 to VIRTIO_BLK_MAX_QUEUES */
    uint32_t block_size;   /* logical: 512 or 4096 */
    struct timerq *timers; /* NULL: no interrupt is held back */
};

/* Each queue has requests of its own, so that none can starve another. */
struct vblk_queue {
    struct vblk_req *free;
    bool starved; /* stopped taking chains because there was none */
    struct coalesce irq;
};

struct virtio_blk {
    struct virtio_dev v;
    struct blk *blk;
    char id[VIRTIO_BLK_ID_LEN]; /* serial number; not terminated if it fills the field */
    uint32_t block_size;
    bool write_back; /* configuration field `writeback`: the driver's choice */
    struct {         /* the notification that is being dealt with */
        bool on, hold, urgent;
        unsigned begun, done; /* requests; `done`: at once */
    } kick;
    struct vblk_req *pool; /* bounds the requests in flight */
    struct vblk_queue queue[VIRTIO_BLK_MAX_QUEUES];
    struct blk_req sync; /* what was cached when write_back ended */
    bool syncing;
};

/* ERR_NOMEM. */
int virtio_blk_init(struct virtio_blk *d, struct space *mem, const struct virtio_blk_config *cfg,
                    struct error *e);
extern const struct field_table virtio_blk_fields;
/* After blk_close(), which waits for the requests that point here, and virtio_pci_fini(). */
void virtio_blk_fini(struct virtio_blk *d);

#endif
