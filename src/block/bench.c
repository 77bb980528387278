/*
 * bench.c - how fast a disk is.
 *
 * Each slot has one request in flight; when it is done, done() submits the next one. All of `struct
 * bench` belongs to the lock, which stands for the device lock of a VM.
 */
#include "block/bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "block/disk.h"

#define TICK (100 * 1000000ll) /* between calls of `progress` */

struct slot {
    struct blk_req req;
    struct iovec iov;
    struct bench *bench;
    ns_t begun;
};

struct bench {
    const struct bench_options *o;
    struct bench_result *r;
    struct blk *blk;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    struct slot slot[BENCH_MAX_DEPTH];
    unsigned inflight;
    uint64_t blocks, next, seed;
    ns_t end;
    int failed;
};

static ns_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

/* xorshift64 (Marsaglia, 2003). */
static uint64_t random_of(struct bench *b)
{
    b->seed ^= b->seed << 13;
    b->seed ^= b->seed >> 7;
    b->seed ^= b->seed << 17;
    return b->seed;
}

static void submit(struct slot *s)
{
    struct bench *b = s->bench;
    uint64_t block = (b->o->random ? random_of(b) : b->next++) % b->blocks;
    s->req.offset = block * b->o->block;
    s->begun = now();
    blk_submit(b->blk, &s->req);
}

static void ended(struct bench *b)
{
    if (--b->inflight == 0)
        pthread_cond_signal(&b->idle);
}

static void done(struct blk_req *req, int result)
{
    struct slot *s = CONTAINER_OF(req, struct slot, req);
    struct bench *b = s->bench;
    ns_t t = now();
    if (result)
        b->failed = result;
    latency_add(&b->r->latency, (uint64_t)(t - s->begun));
    b->r->requests++;
    b->r->bytes += req->len;
    if (b->failed || t >= b->end)
        ended(b);
    else
        submit(s);
}

static void flushed(struct blk_req *req, int result)
{
    struct bench *b = req->arg;
    if (result)
        b->failed = result;
    ended(b);
}

/* Waits until nothing is in flight; false: `progress` wants to end. With the lock held. */
static bool wait_idle(struct bench *b, ns_t start)
{
    bool go_on = true;
    while (b->inflight > 0) {
        ns_t until = now() + TICK;
        struct timespec t = {until / NS_PER_SEC, until % NS_PER_SEC};
        pthread_cond_timedwait(&b->idle, &b->lock, &t);
        uint64_t gone = min_u64((uint64_t)(now() - start), (uint64_t)b->o->duration);
        if (go_on && b->o->progress && !b->o->progress(b->o->ctx, gone, (uint64_t)b->o->duration)) {
            go_on = false;
            b->end = 0; /* what is in flight is the last */
        }
    }
    return go_on;
}

static int measure(struct bench *b, struct error *e)
{
    struct blk_req flush = {.op = BLK_FLUSH, .done = flushed, .arg = b};
    pthread_mutex_lock(&b->lock);
    ns_t start = now();
    b->end = start + b->o->duration;
    b->inflight = b->o->depth;
    blk_plug(b->blk);
    for (unsigned i = 0; i < b->o->depth; i++)
        submit(&b->slot[i]);
    blk_unplug(b->blk);
    bool whole = wait_idle(b, start);
    if (b->o->write && !b->failed) {
        b->inflight = 1;
        blk_submit(b->blk, &flush);
        wait_idle(b, start);
    }
    b->r->elapsed = now() - start;
    pthread_mutex_unlock(&b->lock);
    if (b->failed)
        return error_errno(e, ERR_IO, -b->failed, "a request failed");
    return whole ? 0 : error_set(e, ERR_STATE, "interrupted");
}

/* Buffers with data that no layer takes for zeroes. */
static void prepare(struct bench *b, uint8_t *memory)
{
    for (unsigned i = 0; i < b->o->depth; i++) {
        struct slot *s = &b->slot[i];
        s->bench = b;
        s->iov = (struct iovec){memory + (size_t)i * b->o->block, b->o->block};
        memset(s->iov.iov_base, (int)(i % 255 + 1), b->o->block);
        s->req = (struct blk_req){.op = b->o->write ? BLK_WRITE : BLK_READ,
                                  .len = b->o->block,
                                  .iov = &s->iov,
                                  .niov = 1,
                                  .done = done};
    }
}

static struct bench *make(const struct bench_options *o, struct bench_result *r)
{
    pthread_condattr_t attr;
    struct bench *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->o = o;
    b->r = r;
    b->seed = 88172645463325252ull;
    pthread_mutex_init(&b->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&b->idle, &attr);
    pthread_condattr_destroy(&attr);
    return b;
}

static int run(struct bench *b, struct node *top, uint8_t *memory, struct error *e)
{
    int rc = 0;
    b->blocks = node_size(top) / b->o->block;
    if (b->blocks == 0)
        rc = error_set(e, ERR_USAGE, "the disk is smaller than a block");
    else if (!b->o->depth || b->o->depth > BENCH_MAX_DEPTH || b->o->block % 512)
        rc = error_set(e, ERR_USAGE, "no such depth or block size");
    if (!rc)
        rc = disk_open(top, &(struct disk_options){.io = DISK_IO_AUTO}, &b->lock, &b->blk, e);
    if (rc) {
        node_close(top);
        return rc;
    }
    prepare(b, memory);
    rc = measure(b, e);
    blk_close(b->blk);
    return rc;
}

int bench_run(struct node *top, const struct bench_options *o, struct bench_result *r,
              struct error *e)
{
    *r = (struct bench_result){0};
    struct bench *b = make(o, r);
    uint8_t *memory = aligned_alloc(PAGE_SIZE, ((size_t)o->depth * o->block + PAGE_SIZE) &
                                                   ~(size_t)(PAGE_SIZE - 1));
    int rc = 0;
    if (b && memory) {
        rc = run(b, top, memory, e);
    } else {
        node_close(top);
        rc = error_set(e, ERR_NOMEM, "out of memory");
    }
    free(memory);
    if (b) {
        pthread_cond_destroy(&b->idle);
        pthread_mutex_destroy(&b->lock);
    }
    free(b);
    return rc;
}
