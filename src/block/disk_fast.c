/*
 * disk_fast.c - transfers that need nobody's help: their bytes lie in known places of files.
 *
 * Mostly one place for all of a request, which is sent with the request's own segments. Otherwise
 * the segments are cut up into a `struct blk_pieces`. A node with a `submit` of its own gets a
 * request that stands for ours, if all of it lies there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>

#include "block/disk_core.h"
#include "block/iov.h"

#define MAX_PIECES 32
#define AT_ONCE    (256 * KIB) /* bytes between blk_begin() and blk_end(): the caller is a vCPU */

struct blk_pieces {
    unsigned left; /* not finished */
    bool redo;     /* some were not done completely */
    int result;    /* the first error */
    struct blk_piece piece[MAX_PIECES];
    struct iovec iov[]; /* of all pieces, one after the other */
};

/* Where the bytes of a request lie; returns the number of places, 0: not possible. */
static unsigned find_places(struct disk *d, const struct blk_req *req, struct node_place *place)
{
    uint64_t offset = req->offset, left = req->len;
    bool write = req->op == BLK_WRITE;
    for (unsigned n = 0; n < MAX_PIECES; n++) {
        if (!node_resolve(d->top, offset, left, write, &place[n]) || !place[n].node)
            return 0;
        offset += place[n].len;
        left -= place[n].len;
        if (left == 0)
            return n + 1;
        if (place[n].node->ops->submit)
            return 0;
    }
    return 0;
}

/* Prepares one transfer for each place; room for them there is. */
static bool send_pieces(struct disk *d, struct blk_req *req, const struct node_place *place,
                        unsigned n)
{
    size_t max = (size_t)req->niov + n; /* each cut makes one more segment */
    struct blk_pieces *p = malloc(sizeof *p + max * sizeof p->iov[0]);
    if (!p)
        return false;
    p->left = n;
    p->redo = false;
    p->result = 0;
    struct iov_cursor c = {req->iov, req->niov, 0};
    struct iovec *iov = p->iov;
    for (unsigned i = 0; i < n; i++) {
        uint64_t got = 0;
        int k = iov_slice(&c, place[i].len, iov, (int)(max - (size_t)(iov - p->iov)), &got);
        iov_advance(&c, (size_t)got);
        p->piece[i] = (struct blk_piece){req, place[i].len};
        uring_prepare(d->ring, place[i].node->fd, req->op == BLK_WRITE, iov, k, place[i].offset,
                      place[i].len, &p->piece[i]);
        iov += k;
    }
    req->note.pieces = p;
    return true;
}

/* A request of ours that a node carries out for another one. */
struct proxy {
    struct disk *d;
    struct blk_req *req;
    struct blk_req own;
};

static void proxy_done(struct blk_req *own, int result)
{
    struct proxy *x = own->arg;
    struct disk *d = x->d;
    struct blk_req *req = x->req;
    struct req_list finished = {0};
    free(x);
    pthread_mutex_lock(&d->lock);
    if (result == -EAGAIN || (result && req->op == BLK_READ)) { /* see to_be_redone() */
        disk_slow(d, req);
    } else {
        req->note.result = result;
        disk_gate_leave(d, req);
        req_push(&finished, req);
    }
    disk_unlock(d);
    disk_finish(d, &finished);
}

static enum disk_way send_proxy(struct disk *d, struct blk_req *req, const struct node_place *place)
{
    struct proxy *x = malloc(sizeof *x);
    if (!x)
        return DISK_SLOW_EXACT;
    *x = (struct proxy){.d = d,
                        .req = req,
                        .own = {.op = req->op,
                                .offset = place->offset,
                                .len = req->len,
                                .iov = req->iov,
                                .niov = req->niov,
                                .done = proxy_done,
                                .arg = x}};
    place->node->ops->submit(place->node, &x->own);
    return DISK_SENT;
}

static bool is_transfer(const struct disk *d, const struct blk_req *req)
{
    return (req->op == BLK_READ || req->op == BLK_WRITE) && !req->fua && req->niov > 0 &&
           req->niov <= URING_MAX_IOV && req->len > 0 &&
           range_within(req->offset, req->len, node_size(d->top));
}

/* RWF_NOWAIT (preadv2(2)): what the page cache can do here and now. Bytes, or -1 and errno. */
static ssize_t write_now(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    ssize_t put = pwritev2(n->fd, iov, niov, (off_t)offset, RWF_NOWAIT);
    if (put < 0 && errno != EAGAIN && errno != EINTR) /* not on this file system, mostly */
        n->writes_block = true;
    n->write_tried = true;
    return put;
}

/* Whether a transfer is better done by a worker. The first write to a file finds it out: one byte
 * of it is written twice. */
static bool blocks(const struct blk_req *req, const struct node_place *place)
{
    struct node *n = place->node;
    if (req->op != BLK_WRITE)
        return false;
    if (!n->write_tried) {
        const struct iov_cursor c = {req->iov, req->niov, 0};
        struct iovec first;
        uint64_t got;
        if (iov_slice(&c, 1, &first, 1, &got) == 1)
            write_now(n, &first, 1, place->offset);
    }
    return n->writes_block;
}

enum disk_way disk_fast(struct disk *d, struct blk_req *req)
{
    struct node_place place[MAX_PIECES];
    struct blk_note *note = &req->note;
    bool write = req->op == BLK_WRITE;
    unsigned n = is_transfer(d, req) ? find_places(d, req, place) : 0;
    if (n == 0)
        return DISK_SLOW;
    if (place[n - 1].node->ops->submit)
        return n == 1 ? send_proxy(d, req, place) : DISK_SLOW_EXACT;
    if (!d->ring || !uring_room(d->ring, n) || blocks(req, &place[0])) {
        note->quick = write;
        return DISK_SLOW_EXACT;
    }
    if (n > 1) {
        if (!send_pieces(d, req, place, n))
            return DISK_SLOW_EXACT;
    } else {
        note->one = (struct blk_piece){req, req->len};
        if (!uring_prepare(d->ring, place->node->fd, write, req->iov, req->niov, place->offset,
                           req->len, &note->one))
            return DISK_SLOW_EXACT;
    }
    if (!d->plugged)
        disk_fast_submit(d);
    return DISK_SENT;
}

/* Tries what the page cache can do, here and now. A write that was done in part will be done
 * again. */
bool disk_at_once(struct disk *d, struct blk_req *req)
{
    struct node_place p;
    bool write = req->op == BLK_WRITE;
    if (!d->at_once || d->copied + req->len > AT_ONCE || !is_transfer(d, req) ||
        (!write && d->no_reads_at_once) || !disk_gate_open(d, req) ||
        !node_resolve(d->top, req->offset, req->len, write, &p) || !p.node || p.len < req->len ||
        p.node->ops->submit || (write && p.node->writes_block))
        return false;
    ssize_t n = write ? write_now(p.node, req->iov, req->niov, p.offset)
                      : preadv2(p.node->fd, req->iov, req->niov, (off_t)p.offset, RWF_NOWAIT);
    if (n < 0 && !write && errno != EAGAIN && errno != EINTR)
        d->no_reads_at_once = true;
    if (n < 0 || (uint64_t)n != req->len)
        return false;
    d->copied += req->len;
    return true;
}

void disk_fast_submit(struct disk *d)
{
    if (!uring_submit(d->ring))
        disk_slow_retry(d);
}

/* Whether the end of a transfer says that the slow way has to be gone. A file that ends early reads
 * as zeroes, which only the node knows; a read that fails may have another source; the others say
 * that it did not happen. The request stays through the gate, at the same places. */
static bool to_be_redone(const struct blk_piece *piece, int result)
{
    if (result >= 0)
        return (uint64_t)result != piece->len;
    if (piece->req->op == BLK_READ)
        return true;
    return result == -EAGAIN || result == -EINTR || result == -ECANCELED || result == -EINVAL ||
           result == -EOPNOTSUPP || result == -ENOMEM;
}

/* Takes the end of a transfer; true: it was the last one of its request. */
static bool piece_done(struct blk_piece *piece, int result)
{
    struct blk_note *note = &piece->req->note;
    struct blk_pieces one = {.left = 1}, *p = note->pieces ? note->pieces : &one;
    if (to_be_redone(piece, result))
        p->redo = true;
    else if (result < 0 && p->result == 0)
        p->result = result;
    if (--p->left > 0)
        return false;
    note->result = p->redo ? 1 : p->result; /* 1: see below */
    free(note->pieces);
    note->pieces = NULL;
    return true;
}

void disk_fast_done(void *disk, const struct uring_event *ev, unsigned n)
{
    struct disk *d = disk;
    struct req_list finished = {0};
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < n; i++) {
        struct blk_piece *piece = ev[i].user;
        struct blk_req *req = piece->req;
        if (!piece_done(piece, ev[i].result))
            continue;
        if (req->note.result > 0) { /* it stays through the gate, at the same places */
            req->note.result = 0;
            disk_slow(d, req);
            continue;
        }
        disk_gate_leave(d, req);
        req_push(&finished, req);
    }
    disk_unlock(d);
    disk_finish(d, &finished);
}
