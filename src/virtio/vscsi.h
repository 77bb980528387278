/* vscsi.h - what the parts of the SCSI host share: virtio_scsi.c (commands), vscsi_control.c (task
 * management and events). Clauses are virtio 1.2's. */
#ifndef SOSIA_VIRTIO_VSCSI_H
#define SOSIA_VIRTIO_VSCSI_H

#include "virtio/virtio_scsi.h"

enum { VSCSI_CONTROL, VSCSI_EVENT, VSCSI_REQUEST }; /* queues; requests' follow each other */

enum { /* 5.6.6.1.1, 5.6.6.2 */
       VSCSI_S_OK = 0,
       VSCSI_S_OVERRUN = 1,
       VSCSI_S_ABORTED = 2,
       VSCSI_S_BAD_TARGET = 3,
       VSCSI_S_RESET = 4,
       VSCSI_S_FAILURE = 9,
       VSCSI_S_SUCCEEDED = 10,
       VSCSI_S_REJECTED = 11,
       VSCSI_S_INCORRECT_LUN = 12,
};

#define VSCSI_F_CHANGE (1ull << 2) /* 5.6.3: events about parameters of units */

struct vscsi_req {
    struct vscsi_req *next_free;
    struct virtio_scsi *d;
    unsigned q; /* of d->queue */
    bool busy;
    uint8_t forced; /* response of a command that task management ended; 0: none */
    bool awaited;   /* by the function that is being carried out */
    unsigned target;
    uint64_t tag;
    uint32_t response_len; /* with room for sense data, as it was when the command came */
    struct scsi_req scsi;
    struct iovec data[VCHAIN_IOV];
    struct vchain chain;
};

/* Decodes a LUN field: false if there is no such target. `absent`: no such logical unit in it. */
bool vscsi_decode_lun(const struct virtio_scsi *d, const uint8_t *lun, unsigned *target,
                      bool *absent);

/* Functions and events. */
void vscsi_control(struct virtio_scsi *d);
void vscsi_control_stop(struct virtio_scsi *d);
void vscsi_awaited_back(struct virtio_scsi *d);
void vscsi_events(struct virtio_scsi *d);

#endif
