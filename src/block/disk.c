/*
 * disk.c - a tree of nodes as a disk of the VM. How it works is in disk_core.h.
 */
#include "block/disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/log.h"
#include "block/disk_core.h"

#define SECTOR 512u

static struct disk *disk_of(struct blk *b)
{
    return CONTAINER_OF(b, struct disk, blk);
}

/* In whole sectors, as devices count. */
static uint64_t size_of(const struct node *top)
{
    uint64_t size = min_u64(node_size(top), INT64_MAX - SECTOR);
    return (size + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
}

static uint64_t granule_of(const struct node *top)
{
    uint64_t granule = top->granularity;
    return granule > 1 && !(granule & (granule - 1)) ? granule : 1;
}

/* What the nodes need not be asked for. */
static int refuse(const struct disk *d, const struct blk_req *req)
{
    if (req->op != BLK_FLUSH && !range_within(req->offset, req->len, d->blk.size))
        return -EINVAL;
    if (req->op != BLK_FLUSH && req->op != BLK_READ && d->blk.readonly)
        return -EROFS;
    return 0;
}

/* With `lock` held. */
static void begin(struct disk *d, struct blk_req *req)
{
    req->note.result = refuse(d, req);
    if (req->note.result || req->op == BLK_FLUSH)
        disk_slow(d, req);
    else
        disk_gate_enter(d, req);
}

static void disk_submit(struct blk *b, struct blk_req *req)
{
    struct disk *d = disk_of(b);
    req->note = (struct blk_note){0};
    pthread_mutex_lock(&d->lock);
    d->inflight++;
    if (!d->hold && !refuse(d, req) && disk_at_once(d, req)) {
        req_push(&d->ready, req);
    } else if (d->hold) {
        req_push(&d->held, req);
        d->nheld++;
    } else {
        begin(d, req);
    }
    disk_unlock_later(d);
}

/* The guest is told by its device, the user by the log: once, as the guest will try again and
 * again. What it asks for wrongly is its own affair. */
static void tell_failure(struct disk *d, const struct blk_req *req)
{
    static const char *const verbs[] = {[BLK_READ] = "read",
                                        [BLK_WRITE] = "write",
                                        [BLK_FLUSH] = "flush",
                                        [BLK_DISCARD] = "discard",
                                        [BLK_WRITE_ZEROES] = "write of zeroes"};
    int result = req->note.result;
    if (d->told || result == -EINVAL || result == -EROFS)
        return;
    d->told = true;
    log_error("%s: a %s fails: %s; the guest is told, and goes on", d->name, verbs[req->op],
              strerror(-result));
}

/* Calls done() for all of the list, with the device lock held. */
static void finish_locked(struct disk *d, struct req_list *list)
{
    unsigned n = 0;
    for (struct blk_req *req; (req = req_pop(list)); n++) {
        if (req->note.result < 0)
            tell_failure(d, req);
        req->done(req, req->note.result);
    }
    pthread_mutex_lock(&d->lock);
    d->inflight -= n;
    if (d->inflight == d->nheld)
        pthread_cond_broadcast(&d->drained);
    pthread_mutex_unlock(&d->lock);
}

void disk_finish(struct disk *d, struct req_list *list)
{
    if (!list->head)
        return;
    struct deferred_list none = {0}, *deferred = d->deferred ? d->deferred : &none;
    deferred_lock(d->dev_lock, deferred);
    finish_locked(d, list);
    deferred_unlock(d->dev_lock, deferred);
}

static void disk_batch(struct blk *b, enum blk_batch what)
{
    struct disk *d = disk_of(b);
    struct req_list ready = {0};
    pthread_mutex_lock(&d->lock);
    d->plugged = what == BLK_PLUG || what == BLK_BEGIN;
    d->at_once = what == BLK_BEGIN && !d->ending;
    d->copied = 0;
    if (!d->plugged && d->ring)
        disk_fast_submit(d);
    if ((what == BLK_END || what == BLK_END_LAZY) && !d->ending) {
        ready = d->ready;
        d->ready = (struct req_list){0};
        d->ending = ready.head != NULL;
    }
    if (what == BLK_END_LAZY && !d->waiting)
        pthread_mutex_unlock(&d->lock);
    else
        disk_unlock_later(d);
    if (!ready.head)
        return;
    finish_locked(d, &ready);
    pthread_mutex_lock(&d->lock);
    d->ending = false;
    pthread_mutex_unlock(&d->lock);
}

/* Waits until only that many are in flight, which may change meanwhile. With `lock` held. */
static void wait_drained(struct disk *d, const unsigned *but)
{
    d->waiting++;
    while (d->inflight > *but || d->later) {
        if (d->signal) /* blk_end_lazy() left it */
            pthread_cond_signal(&d->wake);
        d->signal = false;
        pthread_cond_wait(&d->drained, &d->lock);
    }
    d->waiting--;
}

static void disk_drain(struct blk *b)
{
    static const unsigned none = 0;
    struct disk *d = disk_of(b);
    node_hurry(d->top, true);
    pthread_mutex_lock(&d->lock);
    wait_drained(d, &none);
    pthread_mutex_unlock(&d->lock);
    node_hurry(d->top, false);
}

/* Nothing but held requests is in flight when it returns; one caller at a time. */
static void hold(struct disk *d)
{
    pthread_mutex_lock(&d->lock);
    while (d->hold)
        pthread_cond_wait(&d->drained, &d->lock);
    d->hold = true;
    wait_drained(d, &d->nheld);
    pthread_mutex_unlock(&d->lock);
}

static void release(struct disk *d)
{
    pthread_mutex_lock(&d->lock);
    d->hold = false;
    d->nheld = 0;
    for (struct blk_req *req; (req = req_pop(&d->held));)
        begin(d, req);
    pthread_cond_broadcast(&d->drained);
    disk_unlock(d);
}

static int disk_resize(struct blk *b, uint64_t size, struct error *e)
{
    struct disk *d = disk_of(b);
    if (size == 0 || size % SECTOR)
        return error_set(e, ERR_LIMIT, "the size of a disk is a multiple of %u bytes", SECTOR);
    hold(d);
    int rc = node_resize(d->top, size, e);
    pthread_mutex_lock(d->dev_lock);
    if (size_of(d->top) != b->size) {
        b->size = size_of(d->top);
        if (b->resized)
            b->resized(b->ctx);
    }
    /* With the device lock held: begin() reads blk.size, and a held request was checked against
     * the old one. */
    release(d);
    pthread_mutex_unlock(d->dev_lock);
    return rc;
}

int disk_push(struct blk *b, struct node *overlay, struct error *e)
{
    struct disk *d = disk_of(b);
    hold(d);
    int rc = d->unsettled || d->blk.readonly || node_size(overlay) != node_size(d->top)
                 ? error_set(e, ERR_BUSY, "the disk cannot take an overlay now")
                 : 0;
    pthread_mutex_lock(d->dev_lock);
    if (!rc) {
        node_push(&d->top, overlay);
        d->unsettled = overlay->backing;
        d->granule = granule_of(d->top);
    }
    release(d);
    pthread_mutex_unlock(d->dev_lock);
    return rc;
}

int disk_settle(struct blk *b, struct error *e)
{
    struct disk *d = disk_of(b);
    pthread_mutex_lock(&d->lock);
    struct node *n = d->unsettled;
    pthread_mutex_unlock(&d->lock);
    int rc = n ? node_freeze(n) : 0;
    if (rc)
        return error_errno(e, ERR_IO, -rc, "a disk cannot be made durable");
    pthread_mutex_lock(&d->lock);
    d->unsettled = NULL;
    pthread_mutex_unlock(&d->lock);
    return 0;
}

static void disk_close(struct blk *b)
{
    struct disk *d = disk_of(b);
    disk_drain(b);
    if (d->ring)
        uring_close(d->ring);
    disk_slow_stop(d);
    if (!d->blk.readonly)
        node_flush(d->top); /* has logged what went wrong */
    node_close(d->top);
    pthread_cond_destroy(&d->wake);
    pthread_cond_destroy(&d->begin);
    pthread_cond_destroy(&d->drained);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static const struct blk_driver disk_driver = {
    "disk", disk_submit, disk_close, disk_drain, disk_batch, disk_resize,
};

static int start_io(struct disk *d, enum disk_io io, struct error *e)
{
    int rc = io == DISK_IO_THREADS ? -ENOTSUP : uring_open(&d->ring, disk_fast_done, d);
    if (rc && io == DISK_IO_URING)
        return error_errno(e, ERR_HOST, -rc, "this host allows no io_uring");
    if (rc)
        log_debug("disk I/O by threads: %s",
                  io == DISK_IO_THREADS ? "as told" : "no io_uring on this host");
    int err = disk_slow_start(d);
    if (!err)
        return 0;
    if (!rc)
        uring_close(d->ring);
    return error_errno(e, ERR_HOST, err, "cannot start an I/O thread");
}

int disk_open(struct node *top, const struct disk_options *o, pthread_mutex_t *dev_lock,
              struct blk **out, struct error *e)
{
    struct disk *d = calloc(1, sizeof *d);
    if (!d)
        return error_set(e, ERR_NOMEM, "out of memory");
    *d =
        (struct disk){.blk = {.drv = &disk_driver, .size = size_of(top), .readonly = top->readonly},
                      .top = top,
                      .name = o->name ? o->name : "a disk",
                      .granule = granule_of(top),
                      .deferred = o->deferred,
                      .wake_later.run = disk_wake_later,
                      .dev_lock = dev_lock};
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->wake, NULL);
    pthread_cond_init(&d->begin, NULL);
    pthread_cond_init(&d->drained, NULL);
    int rc = start_io(d, o->io, e);
    if (rc) {
        pthread_cond_destroy(&d->wake);
        pthread_cond_destroy(&d->begin);
        pthread_cond_destroy(&d->drained);
        pthread_mutex_destroy(&d->lock);
        free(d);
        return rc;
    }
    *out = &d->blk;
    return 0;
}
