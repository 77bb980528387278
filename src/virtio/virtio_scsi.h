/*
 * virtio_scsi.h - the SCSI host device: a target with one logical unit, number 0, for each disk or
 * CD-ROM drive. Source: virtio 1.2, clause 5.6.
 */
#ifndef SOSIA_VIRTIO_VIRTIO_SCSI_H
#define SOSIA_VIRTIO_VIRTIO_SCSI_H

#include "chip/scsi.h"
#include "virtio/virtio.h"

#define VSCSI_TARGETS    16
#define VSCSI_MAX_QUEUES 8 /* of requests */

struct vscsi_req;

struct vscsi_target {
    struct virtio_scsi *d;
    unsigned n;
    bool present;
    struct scsi_unit unit;
};

/* Each queue has requests of its own, so that none can starve another. */
struct vscsi_queue {
    struct vscsi_req *free;
    bool starved;           /* stopped taking chains because there was none */
    bool pumping, finished; /* the signal is pump's */
};

struct virtio_scsi {
    struct virtio_dev v;
    uint32_t sense_size, cdb_size; /* the driver's choice */
    struct vscsi_target target[VSCSI_TARGETS];
    struct vscsi_req *pool; /* bounds the commands in progress */
    unsigned nreq;
    struct vscsi_queue queue[VSCSI_MAX_QUEUES];

    /* Task management: one function at a time, which waits for the commands it ends. */
    bool managing;
    unsigned waiting, managed_target;
    bool resets;
    struct vchain tmf;

    uint32_t changed; /* targets whose capacity changed: events that wait for a buffer */
};

/* `queues` of requests, 1 to VSCSI_MAX_QUEUES. ERR_NOMEM. */
int virtio_scsi_init(struct virtio_scsi *d, struct space *mem, unsigned queues, struct error *e);
extern const struct field_table virtio_scsi_fields;
void virtio_scsi_fini(struct virtio_scsi *d); /* after blk_close() of the disks */

/* Before the guest runs: names as for scsi_init_*(). */
void virtio_scsi_add_disk(struct virtio_scsi *d, unsigned target, struct blk *blk,
                          const char *model, const char *serial, uint32_t block_size);
void virtio_scsi_add_cdrom(struct virtio_scsi *d, unsigned target, struct blk *blk,
                           const char *model, const char *serial);

#endif
