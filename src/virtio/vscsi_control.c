/*
 * vscsi_control.c - the SCSI host's control queue (task management) and event queue. Clauses are
 * virtio 1.2's.
 *
 * A command in a back end's hands cannot be called back. A function that ends commands marks them
 * and is answered when the last one is back: then none can write memory any more.
 */
#include <string.h>

#include "base/endian.h"
#include "base/log.h"
#include "virtio/vscsi.h"

/* 5.6.6.2 */
enum { T_TMF = 0, T_AN_QUERY = 1, T_AN_SUBSCRIBE = 2 };
enum {
    TMF_ABORT_TASK = 0,
    TMF_ABORT_TASK_SET = 1,
    TMF_CLEAR_ACA = 2,
    TMF_CLEAR_TASK_SET = 3,
    TMF_I_T_NEXUS_RESET = 4,
    TMF_LOGICAL_UNIT_RESET = 5,
    TMF_QUERY_TASK = 6,
    TMF_QUERY_TASK_SET = 7,
};
#define TMF_LEN 24u

/* 5.6.6.3 */
#define EVENT_LEN            16u
#define EVENT_PARAM_CHANGE   3u
#define CAPACITY_HAS_CHANGED (0x2au | 0x09u << 8) /* sense code of the attention */

static void finish(struct virtio_scsi *d, uint8_t response)
{
    uint8_t an[5] = {0};
    uint8_t head[4];
    bool tmf = vchain_read(&d->tmf, 0, head, 4) == 4 && load_le32(head) == T_TMF;
    size_t len = tmf ? 1 : sizeof an;
    an[len - 1] = response;
    uint32_t used = 0;
    d->managing = false;
    if (virtio_live(&d->v, VSCSI_CONTROL, &d->tmf))
        used = (uint32_t)vchain_write(d->v.mem, &d->tmf, 0, an, len);
    virtio_push(&d->v, VSCSI_CONTROL, &d->tmf, used);
    virtio_signal(&d->v, VSCSI_CONTROL);
}

/* Whether a function is about this command. */
static bool concerns(const struct virtio_scsi *d, const struct vscsi_req *r, uint32_t subtype,
                     uint64_t tag)
{
    bool one = subtype == TMF_ABORT_TASK || subtype == TMF_QUERY_TASK;
    return r->busy && r->target == d->managed_target && (!one || r->tag == tag) &&
           virtio_live(&d->v, r->q + VSCSI_REQUEST, &r->chain);
}

static void end_commands(struct virtio_scsi *d, uint32_t subtype, uint64_t tag, uint8_t response)
{
    d->managing = true;
    d->waiting = 0;
    d->resets = response == VSCSI_S_RESET;
    for (unsigned i = 0; i < d->nreq; i++) {
        struct vscsi_req *r = &d->pool[i];
        if (!concerns(d, r, subtype, tag))
            continue;
        r->forced = response;
        r->awaited = true;
        d->waiting++;
    }
}

static void ended(struct virtio_scsi *d)
{
    if (d->resets)
        scsi_reset(&d->target[d->managed_target].unit);
    finish(d, VSCSI_S_OK); /* function complete */
}

void vscsi_awaited_back(struct virtio_scsi *d)
{
    if (!d->managing || --d->waiting)
        return;
    ended(d);
    vscsi_control(d);
}

static void query(struct virtio_scsi *d, uint32_t subtype, uint64_t tag)
{
    for (unsigned i = 0; i < d->nreq; i++) {
        if (concerns(d, &d->pool[i], subtype, tag)) {
            finish(d, VSCSI_S_SUCCEEDED);
            return;
        }
    }
    finish(d, VSCSI_S_OK);
}

static void manage(struct virtio_scsi *d, const uint8_t *p)
{
    uint32_t subtype = load_le32(p + 4);
    uint64_t tag = load_le64(p + 16);
    bool absent;
    if (!vscsi_decode_lun(d, p + 8, &d->managed_target, &absent)) {
        finish(d, VSCSI_S_BAD_TARGET);
        return;
    }
    if (absent) {
        finish(d, VSCSI_S_INCORRECT_LUN);
        return;
    }
    switch (subtype) {
    case TMF_ABORT_TASK:
    case TMF_ABORT_TASK_SET:
    case TMF_CLEAR_TASK_SET:
        end_commands(d, subtype, tag, VSCSI_S_ABORTED);
        break;
    case TMF_I_T_NEXUS_RESET:
    case TMF_LOGICAL_UNIT_RESET:
        end_commands(d, subtype, tag, VSCSI_S_RESET);
        break;
    case TMF_QUERY_TASK:
    case TMF_QUERY_TASK_SET:
        query(d, subtype, tag);
        return;
    case TMF_CLEAR_ACA: /* there is never one */
        finish(d, VSCSI_S_OK);
        return;
    default:
        finish(d, VSCSI_S_REJECTED);
        return;
    }
    if (!d->waiting)
        ended(d);
}

static void handle(struct virtio_scsi *d)
{
    uint8_t p[TMF_LEN] = {0};
    size_t n = vchain_read(&d->tmf, 0, p, sizeof p);
    uint32_t type = load_le32(p);
    if (!d->tmf.nwrite || n < 4) {
        virtio_fail(&d->v, "a control request without header or response");
        virtio_drop(&d->v, VSCSI_CONTROL, &d->tmf);
        return;
    }
    if (type == T_TMF && n == sizeof p)
        manage(d, p);
    else if (type == T_AN_QUERY || type == T_AN_SUBSCRIBE)
        finish(d, VSCSI_S_OK); /* none of the notifications asked for */
    else
        finish(d, VSCSI_S_FAILURE);
}

/* Bounded like the other queues' loops: a driver that keeps to the queue's size stays below. */
void vscsi_control(struct virtio_scsi *d)
{
    for (unsigned left = 512; left && !d->managing; left--) {
        if (!virtio_pop(&d->v, VSCSI_CONTROL, &d->tmf))
            return;
        handle(d);
    }
    if (!d->managing)
        vring_rearm(&d->v.queue[VSCSI_CONTROL].ring);
}

void vscsi_control_stop(struct virtio_scsi *d)
{
    if (!d->managing)
        return;
    d->managing = false;
    for (unsigned i = 0; i < d->nreq; i++)
        d->pool[i].awaited = false;
    virtio_drop(&d->v, VSCSI_CONTROL, &d->tmf);
}

/* ---- events ---- */

/* A capacity changed: told with the first buffer that there is. The unit attention, which every
 * driver gets, says the same. */
void vscsi_events(struct virtio_scsi *d)
{
    struct vchain c;
    if (!virtio_has(&d->v, VSCSI_F_CHANGE))
        return;
    bool told = false;
    while (d->changed && virtio_pop(&d->v, VSCSI_EVENT, &c)) {
        unsigned target = (unsigned)__builtin_ctz(d->changed);
        uint8_t p[EVENT_LEN] = {0};
        d->changed &= d->changed - 1;
        store_le32(p, EVENT_PARAM_CHANGE);
        p[4] = 1;
        p[5] = (uint8_t)target;
        p[6] = 0x40; /* unit 0 in the flat form */
        store_le32(p + 12, CAPACITY_HAS_CHANGED);
        size_t n = vchain_write(d->v.mem, &c, 0, p, sizeof p);
        virtio_push(&d->v, VSCSI_EVENT, &c, (uint32_t)n);
        told = true;
    }
    if (told)
        virtio_signal(&d->v, VSCSI_EVENT);
}
