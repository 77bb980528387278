/*
 * disk_slow.c - worker threads that call what may block.
 *
 * All are made when the disk is opened: whoever submits a request may have given up the right to
 * make threads, and more that the threads it makes would lack (vmm/sandbox.h). But a worker begins
 * only when a request finds nobody idle, for few are quicker than many.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "block/disk_core.h"
#include "block/disk_near.h"
#include "block/iov.h"

#define THREAD_STACK (512 * KIB)
#define RETRY_US     1000
#define LONE_MOST    (64 * KIB) /* bytes: quickly copied */
#define TOGETHER     16         /* ends told together */
#define TOGETHER_NS  50000

/* The part of a transfer within the topmost node; the sector that it ends in may be ragged. */
static int transfer_to(struct disk *d, const struct blk_req *req, uint64_t len)
{
    struct iov_cursor c = {req->iov, req->niov, 0};
    struct iovec *iov = malloc(((size_t)req->niov + 1) * sizeof *iov);
    uint64_t got = 0;
    if (!iov)
        return -ENOMEM;
    int n = iov_slice(&c, len, iov, req->niov, &got);
    int rc;
    if (req->op == BLK_READ) {
        rc = node_readv(d->top, iov, n, req->offset);
        iov_advance(&c, (size_t)got);
        iov_zero(&c, UINT64_MAX);
    } else {
        rc = node_writev(d->top, iov, n, req->offset, req->fua ? NODE_FUA : 0);
    }
    free(iov);
    return rc;
}

/* What was acknowledged before the last overlay is in the image below. */
static int flush(struct disk *d)
{
    pthread_mutex_lock(&d->lock);
    struct node *unsettled = d->unsettled;
    pthread_mutex_unlock(&d->lock);
    int rc = unsettled ? node_flush(unsettled) : 0;
    return rc ? rc : node_flush(d->top);
}

static int perform(struct disk *d, const struct blk_req *req)
{
    uint64_t size = node_size(d->top);
    uint64_t len = req->offset < size ? min_u64(req->len, size - req->offset) : 0;
    unsigned fua = req->fua ? NODE_FUA : 0;
    switch (req->op) {
    case BLK_FLUSH:
        return flush(d);
    case BLK_READ:
        if (len < req->len)
            return transfer_to(d, req, len);
        return node_readv(d->top, req->iov, req->niov, req->offset);
    case BLK_WRITE:
        if (len < req->len)
            return transfer_to(d, req, len);
        return node_writev(d->top, req->iov, req->niov, req->offset, fua);
    case BLK_DISCARD:
        return node_discard(d->top, req->offset, len);
    case BLK_WRITE_ZEROES:
        return node_zero(d->top, req->offset, len, fua | (req->no_unmap ? 0 : NODE_MAY_UNMAP));
    }
    return -ENOTSUP;
}

/* Requests that a worker may take now. Quick writes are made one after the other: several writers
 * to one file would only wait for its lock in the kernel, spinning. With `lock` held. */
static unsigned takeable(const struct disk *d)
{
    return d->queued - d->nquick + (d->nquick > 0 && !d->writing);
}

/* One worker is woken at a time, and wakes the next if there is more than it can take: so a vCPU
 * that submits many requests pays for one. With `lock` held. */
static void wake(struct disk *d)
{
    if (d->idle > 0 && !d->waking) {
        d->waking = true;
        d->signal = true;
    }
}

void disk_unlock(struct disk *d)
{
    bool signal = d->signal && !d->plugged;
    if (signal)
        d->signal = false;
    pthread_mutex_unlock(&d->lock);
    if (signal)
        pthread_cond_signal(&d->wake);
}

void disk_unlock_later(struct disk *d)
{
    if (d->signal && !d->plugged && d->deferred && !d->later)
        d->later = deferred_add(d->deferred, &d->wake_later);
    if (d->later)
        pthread_mutex_unlock(&d->lock);
    else
        disk_unlock(d);
}

void disk_wake_later(struct deferred *job)
{
    struct disk *d = CONTAINER_OF(job, struct disk, wake_later);
    pthread_mutex_lock(&d->lock);
    while (d->signal && !d->plugged) {
        disk_unlock(d);
        pthread_mutex_lock(&d->lock);
    }
    d->later = false; /* now the disk may be closed */
    if (d->waiting)
        pthread_cond_broadcast(&d->drained);
    pthread_mutex_unlock(&d->lock);
}

/* With `lock` held, which it gives up while it waits. */
static void wait_request(struct disk *d)
{
    d->idle++;
    while (!takeable(d) && !d->closing) {
        if (d->stuck) {
            d->stuck = false;
            disk_unlock(d);
            usleep(RETRY_US);
            pthread_mutex_lock(&d->lock);
            disk_fast_submit(d);
            continue;
        }
        pthread_cond_wait(&d->wake, &d->lock);
        d->waking = false;
    }
    d->idle--;
    d->waking = false;
}

/* Takes a request off the queue; NULL: there is none. With `lock` held. */
static struct blk_req *take(struct disk *d)
{
    struct blk_req *req = NULL, *last = NULL;
    if (takeable(d)) {
        for (req = d->slow.head; req->note.quick && d->writing; req = req->next)
            last = req;
        req_remove(&d->slow, last, req);
        d->queued--;
        d->nquick -= req->note.quick;
        d->writing |= req->note.quick;
    }
    if (takeable(d) || d->stuck)
        wake(d);
    return req;
}

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * NS_PER_SEC + (uint64_t)t.tv_nsec;
}

/* Whether ends are told after one more request, which is likely to be quick: its place is known.
 * With `lock` held. */
static bool may_wait(const struct disk *d, unsigned n, uint64_t since)
{
    const struct blk_req *next = d->slow.head;
    return next && next->note.quick && !d->writing && n < TOGETHER &&
           now_ns() - since < TOGETHER_NS;
}

/* With `lock` held; gives it up. `req` was just taken. */
static void come_near(struct disk *d, const struct blk_req *req, struct disk_near *near)
{
    bool lone = req->note.quick && d->inflight == 1 && req->len <= LONE_MOST;
    int cpu = d->quick_cpu;
    uint64_t at = d->quick_at;
    disk_unlock(d);
    if (lone)
        disk_near_lone(near, cpu, now_ns() - at);
    else
        disk_near_other(near);
}

/* Does one request after another. The device lock, and the interrupt that follows, are worth more
 * than a write to the page cache, so the ends of such are told together. */
static void work(struct disk *d)
{
    struct req_list finished = {0};
    struct disk_near near = {0};
    struct blk_req *req;
    uint64_t since = 0;
    unsigned n = 0;
    for (;;) {
        if (n > 0 && !may_wait(d, n, since)) {
            d->telling++;
            disk_unlock(d);
            disk_finish(d, &finished);
            finished = (struct req_list){0};
            n = 0;
            pthread_mutex_lock(&d->lock);
            d->telling--;
        }
        if (n == 0)
            wait_request(d);
        req = take(d);
        if (!req)
            break; /* closing; n is 0 */
        come_near(d, req, &near);
        bool gated = req->note.started;
        if (n == 0)
            since = now_ns();
        if (!req->note.result)
            req->note.result = perform(d, req);
        pthread_mutex_lock(&d->lock);
        if (req->note.quick)
            d->writing = false;
        if (gated)
            disk_gate_leave(d, req);
        req_push(&finished, req);
        n++;
    }
}

static void *worker(void *arg)
{
    struct disk *d = arg;
    pthread_mutex_lock(&d->lock);
    unsigned number = d->numbered++;
    while (number >= d->nworkers && !d->closing)
        pthread_cond_wait(&d->begin, &d->lock);
    work(d);
    disk_unlock(d);
    return NULL;
}

int disk_slow_start(struct disk *d)
{
    const struct thread_options o = {.name = "disk", .stack = THREAD_STACK};
    int err = 0;
    for (unsigned n = 0; n < DISK_WORKERS && !err; n++) {
        err = thread_start(&d->worker[n], &o, worker, d);
        d->nthreads += !err;
    }
    return d->nthreads ? 0 : err;
}

static void need_worker(struct disk *d, unsigned jobs)
{
    if (jobs <= d->telling)
        return;
    if (jobs > d->idle + d->telling && d->nworkers < d->nthreads) {
        d->nworkers++;
        pthread_cond_broadcast(&d->begin);
    }
    wake(d);
}

void disk_slow(struct disk *d, struct blk_req *req)
{
    req_push(&d->slow, req);
    d->queued++;
    d->nquick += req->note.quick;
    if (req->note.quick) {
        d->quick_cpu = sched_getcpu();
        d->quick_at = now_ns();
    }
    need_worker(d, takeable(d));
}

void disk_slow_retry(struct disk *d)
{
    d->stuck = true;
    need_worker(d, takeable(d) + 1);
}

void disk_slow_stop(struct disk *d)
{
    pthread_mutex_lock(&d->lock);
    d->closing = true;
    pthread_cond_broadcast(&d->begin);
    pthread_cond_broadcast(&d->wake);
    pthread_mutex_unlock(&d->lock);
    for (unsigned i = 0; i < d->nthreads; i++)
        pthread_join(d->worker[i], NULL);
}
