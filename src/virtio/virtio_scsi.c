/*
 * virtio_scsi.c - the SCSI host: from the rings to logical units and back. Clauses are
 * virtio 1.2's.
 *
 * A request owns its chain from virtio_pop() to virtio_push() or virtio_drop(). Its data is the
 * chain's pieces, without the header and the response in front of them.
 */
#include "virtio/virtio_scsi.h"

#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/log.h"
#include "virtio/vscsi.h"

#define QUEUE_SIZE 256
#define SEG_MAX    254u
#define POOL       64 /* commands in progress on each queue */
#define KICK_LIMIT (2 * QUEUE_SIZE)

/* 5.6.6.1: the fixed parts of a request and a response. */
#define HEADER_LEN   19u /* lun, tag, attributes; the CDB follows */
#define RESPONSE_LEN 12u /* the sense data follows */

#define DEFAULT_SENSE 96u
#define DEFAULT_CDB   32u
#define MAX_FIELD     255u /* longest sense data or CDB that a driver can ask for */

enum { /* 5.6.4: offsets in the configuration space */
       C_NUM_QUEUES = 0,
       C_SEG_MAX = 4,
       C_MAX_SECTORS = 8,
       C_CMD_PER_LUN = 12,
       C_EVENT_INFO_SIZE = 16,
       C_SENSE_SIZE = 20,
       C_CDB_SIZE = 24,
       C_MAX_CHANNEL = 28,
       C_MAX_TARGET = 30,
       C_MAX_LUN = 32,
       CONFIG_LEN = 36,
};

static struct virtio_scsi *scsi_of(struct virtio_dev *v)
{
    return CONTAINER_OF(v, struct virtio_scsi, v);
}

/* ---- the end of a command ---- */

static void give_back(struct vscsi_req *r)
{
    struct vscsi_queue *vq = &r->d->queue[r->q];
    r->busy = false;
    r->next_free = vq->free;
    vq->free = r;
}

static void pump(struct virtio_scsi *d, unsigned q);

static void respond(struct vscsi_req *r, uint8_t response)
{
    struct virtio_scsi *d = r->d;
    const struct scsi_req *s = &r->scsi;
    unsigned q = r->q + VSCSI_REQUEST;
    uint8_t p[RESPONSE_LEN + MAX_FIELD] = {0};
    uint32_t used = 0;
    if (r->forced)
        response = r->forced;
    if (virtio_live(&d->v, q, &r->chain)) {
        if (response == VSCSI_S_OK && s->status == SCSI_CHECK_CONDITION) {
            uint32_t n = (uint32_t)min_u64(r->response_len - RESPONSE_LEN, SCSI_SENSE_LEN);
            store_le32(p, n);
            memcpy(p + RESPONSE_LEN, s->sense, n);
        }
        uint64_t resid = s->len - (response == VSCSI_S_OK ? s->moved : 0);
        store_le32(p + 4, (uint32_t)resid);
        p[10] = response == VSCSI_S_OK ? s->status : 0;
        p[11] = response;
        vchain_write(d->v.mem, &r->chain, 0, p, r->response_len);
        used = r->response_len + (s->to_target ? 0 : (uint32_t)s->moved);
    }
    virtio_push(&d->v, q, &r->chain, used);
    bool awaited = r->awaited;
    give_back(r);
    if (awaited)
        vscsi_awaited_back(d);
}

/* Signals at once, or leaves that to the loop that is taking chains. */
static void answer(struct vscsi_req *r, uint8_t response)
{
    struct virtio_scsi *d = r->d;
    unsigned q = r->q;
    struct vscsi_queue *vq = &d->queue[q];
    respond(r, response);
    if (vq->pumping) {
        vq->finished = true;
        return;
    }
    virtio_signal(&d->v, q + VSCSI_REQUEST);
    if (vq->starved)
        pump(d, q);
}

static void done(struct scsi_req *s)
{
    answer(s->arg, s->overrun ? VSCSI_S_OVERRUN : VSCSI_S_OK);
}

/* ---- taking commands ---- */

/* 5.6.6.1: byte 0 is 1, byte 1 the target, the next two the logical unit in either of two forms. */
bool vscsi_decode_lun(const struct virtio_scsi *d, const uint8_t *lun, unsigned *target,
                      bool *absent)
{
    static const uint8_t rest[4];
    unsigned n = (lun[2] & 0x3fu) << 8 | lun[3];
    *target = lun[1];
    *absent = n != 0 || (lun[2] & 0x80) || memcmp(lun + 4, rest, sizeof rest) != 0;
    return lun[0] == 1 && lun[1] < VSCSI_TARGETS && d->target[lun[1]].present;
}

/* The pieces from byte `skip` of one half of the chain. */
static unsigned pieces(struct iovec *out, const struct iovec *in, unsigned n, uint64_t skip)
{
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++) {
        if (skip >= in[i].iov_len) {
            skip -= in[i].iov_len;
            continue;
        }
        out[count++] = (struct iovec){(uint8_t *)in[i].iov_base + skip, in[i].iov_len - skip};
        skip = 0;
    }
    return count;
}

static void fill(struct vscsi_req *r, const uint8_t *header)
{
    const struct virtio_scsi *d = r->d;
    const struct vchain *c = &r->chain;
    uint64_t head = HEADER_LEN + d->cdb_size, tail = RESPONSE_LEN + d->sense_size;
    struct scsi_req *s = &r->scsi;
    *s = (struct scsi_req){.iov = r->data, .done = done, .arg = r};
    memcpy(s->cdb, header + HEADER_LEN, min_u64(d->cdb_size, SCSI_CDB_LEN));
    s->to_target = c->read_len > head;
    if (s->to_target) {
        s->len = c->read_len - head;
        s->niov = pieces(r->data, c->iov, c->nread, head);
    } else {
        s->len = c->write_len - tail;
        s->niov = pieces(r->data, c->iov + c->nread, c->nwrite, tail);
    }
}

static void start(struct virtio_scsi *d, struct vscsi_req *r)
{
    const struct vchain *c = &r->chain;
    uint8_t header[HEADER_LEN + MAX_FIELD] = {0};
    size_t head = HEADER_LEN + d->cdb_size;
    uint32_t tail = r->response_len = RESPONSE_LEN + d->sense_size;
    r->busy = true;
    r->forced = VSCSI_S_OK;
    r->awaited = false;
    if (vchain_read(c, 0, header, head) != head || c->write_len < tail) {
        virtio_fail(&d->v, "a SCSI request without header or response");
        virtio_drop(&d->v, r->q + VSCSI_REQUEST, &r->chain);
        give_back(r);
        return;
    }
    fill(r, header);
    r->tag = load_le64(header + 8);
    if (!vscsi_decode_lun(d, header, &r->target, &r->scsi.absent)) {
        answer(r, VSCSI_S_BAD_TARGET);
        return;
    }
    if (c->read_len > head && c->write_len > tail) { /* data both ways is not offered */
        answer(r, VSCSI_S_FAILURE);
        return;
    }
    r->scsi.unit = &d->target[r->target].unit;
    scsi_run(&r->scsi);
}

/* Requests go to each disk together. */
static void batch(struct virtio_scsi *d, void (*what)(struct blk *b))
{
    for (unsigned i = 0; i < VSCSI_TARGETS; i++)
        if (d->target[i].present && d->target[i].unit.drive.blk)
            what(d->target[i].unit.drive.blk);
}

/* As virtio_blk.c's: commands that end at once would let a second vCPU feed this loop for ever. */
static void pump(struct virtio_scsi *d, unsigned q)
{
    struct vscsi_queue *vq = &d->queue[q];
    unsigned left = KICK_LIMIT;
    if (vq->pumping)
        return;
    vq->pumping = true;
    vq->finished = vq->starved = false;
    for (bool full = true; full && vq->free && left;) { /* the end of a batch may have freed some */
        batch(d, blk_begin);
        for (full = false; left && !full; left--) {
            struct vscsi_req *r = vq->free;
            if (!virtio_pop(&d->v, q + VSCSI_REQUEST, &r->chain))
                break;
            vq->free = r->next_free;
            start(d, r);
            full = !vq->free;
        }
        batch(d, blk_end);
    }
    vq->pumping = false;
    vq->starved = !vq->free;
    if (!left && !vq->starved)
        vring_rearm(&d->v.queue[q + VSCSI_REQUEST].ring);
    if (vq->finished)
        virtio_signal(&d->v, q + VSCSI_REQUEST);
}

/* ---- the device ---- */

static uint64_t features(struct virtio_dev *v)
{
    return VIRTIO_F_EVENT_IDX | VSCSI_F_CHANGE;
}

static void config_read(struct virtio_dev *v, unsigned off, uint8_t *buf, unsigned len)
{
    const struct virtio_scsi *d = scsi_of(v);
    uint8_t c[CONFIG_LEN] = {0};
    store_le32(c + C_NUM_QUEUES, v->nqueue - VSCSI_REQUEST);
    store_le32(c + C_SEG_MAX, SEG_MAX);
    store_le32(c + C_MAX_SECTORS, 0xffff);
    store_le32(c + C_CMD_PER_LUN, QUEUE_SIZE / 2);
    store_le32(c + C_EVENT_INFO_SIZE, 16);
    store_le32(c + C_SENSE_SIZE, d->sense_size);
    store_le32(c + C_CDB_SIZE, d->cdb_size);
    store_le16(c + C_MAX_TARGET, VSCSI_TARGETS - 1);
    memcpy(buf, c + off, len);
}

/* 5.6.4: the two fields that a driver writes, each as a whole. */
static void config_write(struct virtio_dev *v, unsigned off, const uint8_t *buf, unsigned len)
{
    struct virtio_scsi *d = scsi_of(v);
    uint32_t val = len == 4 ? load_le32(buf) : 0;
    if (!val || val > MAX_FIELD)
        return;
    if (off == C_SENSE_SIZE)
        d->sense_size = val;
    else if (off == C_CDB_SIZE)
        d->cdb_size = val;
}

static void kick(struct virtio_dev *v, unsigned q)
{
    struct virtio_scsi *d = scsi_of(v);
    if (q == VSCSI_CONTROL)
        vscsi_control(d);
    else if (q == VSCSI_EVENT)
        vscsi_events(d);
    else
        pump(d, q - VSCSI_REQUEST);
}

static void queue_stop(struct virtio_dev *v, unsigned q)
{
    struct virtio_scsi *d = scsi_of(v);
    if (q == VSCSI_CONTROL)
        vscsi_control_stop(d);
    else if (q >= VSCSI_REQUEST)
        d->queue[q - VSCSI_REQUEST].starved = false;
}

static void reset(struct virtio_dev *v)
{
    struct virtio_scsi *d = scsi_of(v);
    d->sense_size = DEFAULT_SENSE;
    d->cdb_size = DEFAULT_CDB;
    d->changed = 0;
    for (unsigned i = 0; i < VSCSI_TARGETS; i++)
        if (d->target[i].present)
            scsi_reset(&d->target[i].unit);
}

static const struct virtio_ops ops = {
    .name = "virtio-scsi",
    .id = 8,
    .class_rev = 0x01000001, /* mass storage, SCSI; revision 1 */
    .nqueue = VSCSI_REQUEST + VSCSI_MAX_QUEUES,
    .queue_max = QUEUE_SIZE,
    .config_len = CONFIG_LEN,
    .features = features,
    .config_read = config_read,
    .config_write = config_write,
    .kick = kick,
    .queue_stop = queue_stop,
    .reset = reset,
};

int virtio_scsi_init(struct virtio_scsi *d, struct space *mem, unsigned queues, struct error *e)
{
    *d = (struct virtio_scsi){.sense_size = DEFAULT_SENSE, .cdb_size = DEFAULT_CDB};
    virtio_init(&d->v, &ops, mem);
    virtio_set_queues(&d->v, VSCSI_REQUEST + queues);
    d->nreq = queues * POOL;
    d->pool = calloc(d->nreq, sizeof *d->pool);
    if (!d->pool)
        return error_set(e, ERR_NOMEM, "virtio-scsi: out of memory");
    for (unsigned i = 0; i < d->nreq; i++) {
        d->pool[i].d = d;
        d->pool[i].q = i / POOL;
        give_back(&d->pool[i]);
    }
    return 0;
}

void virtio_scsi_fini(struct virtio_scsi *d)
{
    free(d->pool);
    d->pool = NULL;
}

static void capacity_changed(void *ctx)
{
    struct vscsi_target *t = ctx;
    t->d->changed |= 1u << t->n;
    vscsi_events(t->d);
}

static struct scsi_unit *add(struct virtio_scsi *d, unsigned target)
{
    struct vscsi_target *t = &d->target[target];
    t->d = d;
    t->n = target;
    t->present = true;
    return &t->unit;
}

void virtio_scsi_add_disk(struct virtio_scsi *d, unsigned target, struct blk *blk,
                          const char *model, const char *serial, uint32_t block_size)
{
    struct scsi_unit *u = add(d, target);
    scsi_init_disk(u, d->v.mem, blk, model, serial, block_size);
    u->changed = capacity_changed;
    u->ctx = &d->target[target];
}

void virtio_scsi_add_cdrom(struct virtio_scsi *d, unsigned target, struct blk *blk,
                           const char *model, const char *serial)
{
    scsi_init_cdrom(add(d, target), d->v.mem, blk, model, serial);
}

/* ---- state ---- */

static int post_load(void *dev, struct error *e)
{
    const struct virtio_scsi *d = dev;
    for (unsigned n = 0; n < VSCSI_TARGETS; n++)
        if (d->changed >> n & 1 && !d->target[n].present)
            return error_set(e, ERR_FORMAT, "changed: there is no target %u", n);
    return 0;
}

static const struct field target_fields[] = {
    FIELD_NONE(struct vscsi_target, d),
    FIELD_NONE(struct vscsi_target, n),
    FIELD(struct vscsi_target, present, .same = true),
    FIELD_STRUCT(struct vscsi_target, unit, scsi_unit_fields),
};
static const struct field_table target_table =
    FIELD_TABLE(struct vscsi_target, "vscsi_target", target_fields);

static const struct field fields[] = {
    FIELD_STRUCT(struct virtio_scsi, v, virtio_fields),
    FIELD(struct virtio_scsi, sense_size, .max = MAX_FIELD),
    FIELD(struct virtio_scsi, cdb_size, .max = MAX_FIELD),
    FIELD_STRUCTS(struct virtio_scsi, target, target_table),
    FIELD_NONE(struct virtio_scsi, pool),
    FIELD_NONE(struct virtio_scsi, nreq),
    FIELD_NONE(struct virtio_scsi, queue), /* no request is in flight when the state is saved */
    FIELD_NONE(struct virtio_scsi, managing),
    FIELD_NONE(struct virtio_scsi, waiting),
    FIELD_NONE(struct virtio_scsi, managed_target),
    FIELD_NONE(struct virtio_scsi, resets),
    FIELD_NONE(struct virtio_scsi, tmf),
    FIELD(struct virtio_scsi, changed, .max = (1u << VSCSI_TARGETS) - 1),
};
const struct field_table virtio_scsi_fields =
    FIELD_TABLE(struct virtio_scsi, "virtio_scsi", fields, .post_load = post_load);
