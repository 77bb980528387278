/*
 * virtio_blk.c - the block device: up to eight queues, requests handled out of order by the block
 * back end. Clauses are virtio 1.2's.
 *
 * A request owns its chain from virtio_pop() to virtio_push() or virtio_drop(). Data moves between
 * the back end and guest memory directly: the chain's pieces are the request's iovec. After a reset
 * the back end may still be at work on requests of the former life; virtio.c keeps the driver
 * waiting for those, and their ends are dropped.
 */
#include "virtio/virtio_blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/endian.h"
#include "base/log.h"

#define SECTOR     512u
#define QUEUE_SIZE 256
#define SEG_MAX    254u /* QUEUE_SIZE less header and status */
#define POOL       64   /* requests in flight on each queue */
#define KICK_LIMIT (2 * QUEUE_SIZE)

/* One request frees or zeroes at most this many sectors: 2 GiB, 128 MiB. */
#define MAX_DISCARD      (1u << 22)
#define MAX_WRITE_ZEROES (1u << 18)

enum { /* 5.2.3 */
       F_SEG_MAX = 1 << 2,
       F_RO = 1 << 5,
       F_BLK_SIZE = 1 << 6,
       F_FLUSH = 1 << 9,
       F_TOPOLOGY = 1 << 10,
       F_CONFIG_WCE = 1 << 11,
       F_MQ = 1 << 12,
       F_DISCARD = 1 << 13,
       F_WRITE_ZEROES = 1 << 14,
};

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

#define HEADER_LEN  16
#define RANGE_LEN   16 /* struct virtio_blk_discard_write_zeroes */
#define RANGE_UNMAP 1u

/* 5.2.4: offsets in the configuration space. */
enum {
    C_SEG_MAX = 12,
    C_BLK_SIZE = 20,
    C_PHYSICAL_EXP = 24, /* topology, in blocks: 2^this, alignment, smallest, best */
    C_MIN_IO = 26,
    C_OPT_IO = 28,
    C_WRITEBACK = 32,
    C_NUM_QUEUES = 34,
    C_MAX_DISCARD = 36,
    C_MAX_DISCARD_SEG = 40,
    C_DISCARD_ALIGNMENT = 44,
    C_MAX_ZEROES = 48,
    C_MAX_ZEROES_SEG = 52,
    C_ZEROES_MAY_UNMAP = 56,
    CONFIG_LEN = 60,
};

#define PHYSICAL_BLOCK (4 * KIB)  /* the host's page: less costs it a read */
#define OPTIMAL_IO     (64 * KIB) /* the usual unit of allocation of thin images */

struct vblk_req {
    struct blk_req io;
    struct virtio_blk *d;
    struct vblk_req *next_free;
    unsigned q;
    uint32_t type;
    uint64_t sector;
    struct iovec *data; /* within chain.iov, without header and status */
    unsigned ndata;
    uint64_t len;
    bool no_unmap; /* write zeroes: without the flag UNMAP */
    uint8_t *status;
    struct vchain chain;
};

static struct virtio_blk *blk_of(struct virtio_dev *v)
{
    return CONTAINER_OF(v, struct virtio_blk, v);
}

/* ---- completion ---- */

static void give_back(struct vblk_req *r)
{
    struct vblk_queue *vq = &r->d->queue[r->q];
    r->next_free = vq->free;
    vq->free = r;
}

static void finish(struct vblk_req *r, uint8_t status)
{
    struct virtio_blk *d = r->d;
    uint32_t used = 0;
    if (virtio_live(&d->v, r->q, &r->chain)) {
        *(volatile uint8_t *)r->status = status;
        dma_wrote(d->v.mem, r->status, 1);
        used = (uint32_t)r->chain.write_len; /* 2.7.8.2: covers the status, the last byte */
    }
    virtio_push(&d->v, r->q, &r->chain, used);
    give_back(r);
}

static void pump(struct virtio_blk *d, unsigned q);

static uint8_t status_of(int result)
{
    return result == 0 ? S_OK : result == -ENOTSUP ? S_UNSUPP : S_IOERR;
}

/* Something is in the used ring. */
static void tell(struct virtio_blk *d, unsigned q)
{
    if (d->kick.on)
        d->kick.done++;
    else
        virtio_signal(&d->v, q);
}

static void io_done(struct blk_req *io, int result)
{
    struct vblk_req *r = io->arg;
    struct virtio_blk *d = r->d;
    if (io->op == BLK_READ)
        for (unsigned i = 0; i < r->ndata; i++)
            dma_wrote(d->v.mem, r->data[i].iov_base, r->data[i].iov_len);
    unsigned q = r->q;
    finish(r, status_of(result));
    tell(d, q);
    if (d->queue[q].starved)
        pump(d, q);
}

/* ---- decoding ---- */

/* Cuts `n` bytes off the front of the pieces; drops those that become empty. */
static void cut_front(struct vblk_req *r, size_t n)
{
    while (r->ndata && n >= r->data->iov_len) {
        n -= r->data->iov_len;
        r->data++;
        r->ndata--;
    }
    if (r->ndata) {
        r->data->iov_base = (uint8_t *)r->data->iov_base + n;
        r->data->iov_len -= n;
    }
}

/* 5.2.6: a header of 16 bytes first, a status byte last, data in between, whatever the cuts between
 * descriptors (2.7.4.1). False: there is not even a place for a status. */
static bool decode(struct vblk_req *r)
{
    struct vchain *c = &r->chain;
    uint8_t h[HEADER_LEN];
    if (vchain_read(c, 0, h, sizeof h) != sizeof h || !c->nwrite)
        return false;
    r->type = load_le32(h);
    r->sector = load_le64(h + 8);

    struct iovec *last = &c->iov[c->nread + c->nwrite - 1];
    last->iov_len--;
    r->status = (uint8_t *)last->iov_base + last->iov_len;
    if (c->write_len > 1) { /* device-writable data */
        r->data = &c->iov[c->nread];
        r->ndata = c->nwrite - (last->iov_len == 0);
        r->len = c->write_len - 1;
    } else {
        r->data = c->iov;
        r->ndata = c->nread;
        r->len = c->read_len - HEADER_LEN;
        cut_front(r, HEADER_LEN);
    }
    return true;
}

/* ---- requests; each returns S_OK with the I/O under way (*wait), or a status to give at once ----
 */

/* 5.2.6.2: without F_FLUSH, or without a write cache, a finished write is a durable one. */
static bool write_through(const struct virtio_blk *d)
{
    return !virtio_has(&d->v, F_FLUSH) || (virtio_has(&d->v, F_CONFIG_WCE) && !d->write_back);
}

static void submit(struct vblk_req *r, enum blk_op op, uint64_t sector, uint64_t len)
{
    r->io =
        (struct blk_req){.op = op,
                         .offset = sector * SECTOR,
                         .len = len,
                         .iov = r->data,
                         .niov = (int)r->ndata,
                         .fua = (op == BLK_WRITE || op == BLK_WRITE_ZEROES) && write_through(r->d),
                         .no_unmap = op == BLK_WRITE_ZEROES && r->no_unmap,
                         .done = io_done,
                         .arg = r};
    r->d->kick.urgent |= (op != BLK_READ && op != BLK_WRITE) || r->io.fua;
    blk_submit(r->d->blk, &r->io);
}

static bool on_disk(const struct virtio_blk *d, uint64_t sector, uint64_t sectors)
{
    return range_within(sector, sectors, d->blk->size / SECTOR);
}

static uint8_t transfer(struct vblk_req *r, bool *wait)
{
    const struct virtio_blk *d = r->d;
    bool write = r->type == T_OUT;
    bool writable_data = r->chain.write_len > 1;
    if (writable_data == write && r->len) /* the data buffers go the wrong way */
        return S_IOERR;
    if (write && (d->blk->readonly || r->chain.write_len != 1))
        return S_IOERR;
    if (!write && r->chain.read_len != HEADER_LEN)
        return S_IOERR;
    if (r->len % SECTOR || !on_disk(d, r->sector, r->len / SECTOR))
        return S_IOERR;
    if (r->len == 0)
        return S_OK;
    submit(r, write ? BLK_WRITE : BLK_READ, r->sector, r->len);
    *wait = true;
    return S_OK;
}

/* One range for each request, as max_discard_seg and max_write_zeroes_seg say. */
static uint8_t free_or_zero(struct vblk_req *r, bool *wait)
{
    const struct virtio_blk *d = r->d;
    bool discard = r->type == T_DISCARD;
    uint8_t raw[RANGE_LEN];
    if (d->blk->readonly || r->chain.read_len != HEADER_LEN + RANGE_LEN ||
        vchain_read(&r->chain, HEADER_LEN, raw, sizeof raw) != sizeof raw)
        return S_IOERR;
    uint64_t sector = load_le64(raw);
    uint32_t count = load_le32(raw + 8), flags = load_le32(raw + 12);
    if (flags & ~(discard ? 0u : RANGE_UNMAP)) /* 5.2.6.2 */
        return S_UNSUPP;
    if (count > (discard ? MAX_DISCARD : MAX_WRITE_ZEROES) || !on_disk(d, sector, count))
        return S_IOERR;
    if (count == 0)
        return S_OK;
    r->no_unmap = !(flags & RANGE_UNMAP);
    submit(r, discard ? BLK_DISCARD : BLK_WRITE_ZEROES, sector, (uint64_t)count * SECTOR);
    *wait = true;
    return S_OK;
}

static uint8_t get_id(struct vblk_req *r)
{
    if (r->chain.write_len < VIRTIO_BLK_ID_LEN + 1)
        return S_IOERR;
    size_t done = 0;
    for (unsigned i = 0; i < r->ndata && done < VIRTIO_BLK_ID_LEN; i++) {
        size_t n = min_u64(r->data[i].iov_len, VIRTIO_BLK_ID_LEN - done);
        memcpy(r->data[i].iov_base, r->d->id + done, n);
        dma_wrote(r->d->v.mem, r->data[i].iov_base, n);
        done += n;
    }
    return S_OK;
}

static uint8_t perform(struct vblk_req *r, bool *wait)
{
    switch (r->type) {
    case T_IN:
    case T_OUT:
        return transfer(r, wait);
    case T_FLUSH:
        submit(r, BLK_FLUSH, 0, 0);
        *wait = true;
        return S_OK;
    case T_GET_ID:
        return get_id(r);
    case T_DISCARD:
    case T_WRITE_ZEROES:
        return free_or_zero(r, wait);
    default:
        return S_UNSUPP;
    }
}

/* Starts the request of a chain just taken. True: it is finished already. */
static bool start(struct virtio_blk *d, struct vblk_req *r)
{
    bool wait = false;
    if (!decode(r)) {
        virtio_fail(&d->v, "a block request without header or status");
        virtio_drop(&d->v, r->q, &r->chain);
        give_back(r);
        return true;
    }
    uint8_t status = perform(r, &wait);
    if (!wait)
        finish(r, status);
    return !wait;
}

/* Takes what the driver offers, as far as the pool goes. Requests that end at once would let a
 * second vCPU feed this loop for ever, so it has a limit; a driver that keeps to the queue's size
 * never gets there. */
static void pump(struct virtio_blk *d, unsigned q)
{
    struct vblk_queue *vq = &d->queue[q];
    bool finished = false;
    unsigned left = KICK_LIMIT;
    vq->starved = false;
    for (bool full = true; full && vq->free && left;) { /* blk_end() may have freed some */
        blk_begin(d->blk);
        for (full = false; left && !full; left--) {
            struct vblk_req *r = vq->free;
            if (!virtio_pop(&d->v, q, &r->chain))
                break;
            vq->free = r->next_free;
            d->kick.begun++;
            finished |= start(d, r);
            full = !vq->free;
        }
        if (d->kick.on && d->kick.hold && !d->kick.urgent)
            blk_end_lazy(d->blk);
        else
            blk_end(d->blk);
    }
    vq->starved = !vq->free;
    if (!left && !vq->starved)
        vring_rearm(&d->v.queue[q].ring);
    if (finished)
        tell(d, q);
}

/* ---- the device ---- */

static uint64_t features(struct virtio_dev *v)
{
    const struct virtio_blk *d = blk_of(v);
    uint64_t f = VIRTIO_F_EVENT_IDX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY;
    if (v->nqueue > 1)
        f |= F_MQ;
    return d->blk->readonly ? f | F_RO : f | F_CONFIG_WCE | F_DISCARD | F_WRITE_ZEROES;
}

static uint8_t log2_of(uint64_t n)
{
    return (uint8_t)(63 - __builtin_clzll(n));
}

static void config_read(struct virtio_dev *v, unsigned off, uint8_t *buf, unsigned len)
{
    const struct virtio_blk *d = blk_of(v);
    uint8_t c[CONFIG_LEN] = {0};
    uint64_t physical = PHYSICAL_BLOCK / d->block_size;
    store_le64(c, d->blk->size / SECTOR);
    store_le32(c + C_SEG_MAX, SEG_MAX);
    store_le32(c + C_BLK_SIZE, d->block_size);
    c[C_PHYSICAL_EXP] = log2_of(physical);
    store_le16(c + C_MIN_IO, (uint16_t)physical);
    store_le32(c + C_OPT_IO, (uint32_t)(OPTIMAL_IO / d->block_size));
    /* 5.2.5.2: 0 for a driver that took F_CONFIG_WCE without F_FLUSH */
    c[C_WRITEBACK] = (v->status & VIRTIO_FEATURES_OK) ? !write_through(d) : d->write_back;
    store_le16(c + C_NUM_QUEUES, (uint16_t)v->nqueue);
    store_le32(c + C_MAX_DISCARD, MAX_DISCARD);
    store_le32(c + C_MAX_DISCARD_SEG, 1);
    store_le32(c + C_DISCARD_ALIGNMENT, PHYSICAL_BLOCK / SECTOR);
    store_le32(c + C_MAX_ZEROES, MAX_WRITE_ZEROES);
    store_le32(c + C_MAX_ZEROES_SEG, 1);
    c[C_ZEROES_MAY_UNMAP] = 1;
    memcpy(buf, c + off, len);
}

static void synced(struct blk_req *io, int result)
{
    struct virtio_blk *d = io->arg;
    d->syncing = false;
}

/* The one field that a driver writes, 5.2.5: whether there is a write cache. From the moment that
 * there is none no driver asks for a flush, so what is in it goes to the disk now. */
static void config_write(struct virtio_dev *v, unsigned off, const uint8_t *buf, unsigned len)
{
    struct virtio_blk *d = blk_of(v);
    if (off > C_WRITEBACK || off + len <= C_WRITEBACK || !virtio_has(v, F_CONFIG_WCE))
        return;
    bool was = d->write_back;
    d->write_back = buf[C_WRITEBACK - off] & 1;
    if (was && !d->write_back && !d->syncing) {
        d->syncing = true;
        d->sync = (struct blk_req){.op = BLK_FLUSH, .done = synced, .arg = d};
        blk_submit(d->blk, &d->sync);
    }
}

static void kick(struct virtio_dev *v, unsigned q)
{
    struct virtio_blk *d = blk_of(v);
    struct coalesce *c = &d->queue[q].irq;
    d->kick.on = true;
    d->kick.hold = coalesce_holds(c);
    d->kick.urgent = false;
    d->kick.begun = d->kick.done = 0;
    pump(d, q);
    d->kick.on = false;
    coalesce_add(c, d->kick.begun, d->kick.hold && !d->kick.urgent, d->kick.done > 0);
}

static void queue_stop(struct virtio_dev *v, unsigned q)
{
    struct vblk_queue *vq = &blk_of(v)->queue[q];
    vq->starved = false;
    coalesce_stop(&vq->irq);
}

static void reset(struct virtio_dev *v)
{
    blk_of(v)->write_back = true;
}

static void resized(void *ctx)
{
    struct virtio_blk *d = ctx;
    virtio_config_changed(&d->v);
}

static const struct virtio_ops ops = {
    .name = "virtio-blk",
    .id = 2,
    .class_rev = 0x01000001, /* mass storage, SCSI-like; revision 1 */
    .nqueue = VIRTIO_BLK_MAX_QUEUES,
    .queue_max = QUEUE_SIZE,
    .config_len = CONFIG_LEN,
    .features = features,
    .config_read = config_read,
    .config_write = config_write,
    .kick = kick,
    .queue_stop = queue_stop,
    .reset = reset,
};

int virtio_blk_init(struct virtio_blk *d, struct space *mem, const struct virtio_blk_config *cfg,
                    struct error *e)
{
    *d = (struct virtio_blk){.blk = cfg->blk, .block_size = cfg->block_size, .write_back = true};
    virtio_init(&d->v, &ops, mem);
    virtio_set_queues(&d->v, cfg->queues);
    if (cfg->serial)
        memcpy(d->id, cfg->serial, strnlen(cfg->serial, sizeof d->id));
    d->pool = calloc((size_t)cfg->queues * POOL, sizeof *d->pool);
    if (!d->pool)
        return error_set(e, ERR_NOMEM, "virtio-blk: out of memory");
    for (unsigned q = 0; q < cfg->queues; q++) {
        int rc = coalesce_init(&d->queue[q].irq, &d->v, q, d->blk, cfg->timers, e);
        if (rc) {
            virtio_blk_fini(d);
            return rc;
        }
    }
    for (unsigned i = 0; i < cfg->queues * POOL; i++) {
        d->pool[i].d = d;
        d->pool[i].q = i / POOL;
        give_back(&d->pool[i]);
    }
    d->blk->resized = resized;
    d->blk->ctx = d;
    return 0;
}

void virtio_blk_fini(struct virtio_blk *d)
{
    for (unsigned q = 0; q < ARRAY_LEN(d->queue); q++)
        coalesce_stop(&d->queue[q].irq);
    free(d->pool);
    *d = (struct virtio_blk){.pool = NULL};
}

static const struct field fields[] = {
    FIELD_STRUCT(struct virtio_blk, v, virtio_fields),
    FIELD_NONE(struct virtio_blk, blk),
    FIELD_NONE(struct virtio_blk, id),
    FIELD(struct virtio_blk, block_size, .same = true),
    FIELD(struct virtio_blk, write_back),
    FIELD_NONE(struct virtio_blk, kick),
    FIELD_NONE(struct virtio_blk, pool),
    /* No request is in flight when the state is saved, no interrupt held back. */
    FIELD_NONE(struct virtio_blk, queue),
    FIELD_NONE(struct virtio_blk, sync),
    FIELD_NONE(struct virtio_blk, syncing),
};
const struct field_table virtio_blk_fields = FIELD_TABLE(struct virtio_blk, "virtio_blk", fields);
