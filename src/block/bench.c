/*
 * bench.c - how fast a disk is.
 *
 * Each slot has one request in flight or is idle. The caller's thread is what a vCPU is to a
 * device: it submits what all idle slots have next, together (blk_begin), and what is done at once
 * is so on it. Where nothing is, done() submits the slot's next request, on a thread of the disk's.
 * All of `struct bench` belongs to the lock, which stands for the device lock of a VM.
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
    pthread_cond_t news; /* a slot is idle */
    struct slot slot[BENCH_MAX_DEPTH], *idle[BENCH_MAX_DEPTH];
    unsigned nidle, depth;
    bool flushing, at_once; /* at_once: something was in the last batch */
    bool batching;          /* done() is called by blk_end() */
    uint64_t left;          /* requests that may still be begun */
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
    if (t >= b->end)
        b->left = 0;
    b->at_once |= b->batching;
    if (!b->at_once && b->left > 0 && !b->failed) {
        b->left--;
        submit(s);
        return;
    }
    b->idle[b->nidle++] = s;
    pthread_cond_signal(&b->news);
}

static void flushed(struct blk_req *req, int result)
{
    struct bench *b = req->arg;
    if (result)
        b->failed = result;
    b->flushing = false;
    pthread_cond_signal(&b->news);
}

/* Submits what the idle slots have next. With the lock held. */
static void submit_idle(struct bench *b)
{
    struct slot *s[BENCH_MAX_DEPTH];
    unsigned n = 0;
    for (; b->nidle > 0 && b->left > 0; b->left--)
        s[n++] = b->idle[--b->nidle];
    b->at_once = false;
    b->batching = true;
    blk_begin(b->blk);
    for (unsigned i = 0; i < n; i++)
        submit(s[i]);
    blk_end(b->blk);
    b->batching = false;
}

/* Tells how far it is, now and then; false: it is to end. With the lock held. */
static bool tell(struct bench *b, ns_t start, ns_t *told)
{
    ns_t t = now();
    if (!b->o->progress || t - *told < TICK)
        return true;
    *told = t;
    uint64_t of = b->o->requests ? b->o->requests : (uint64_t)b->o->duration;
    uint64_t gone = b->o->requests ? b->r->requests : (uint64_t)(t - start);
    return b->o->progress(b->o->ctx, min_u64(gone, of), of);
}

/* At most a TICK. With the lock held. */
static void wait_news(struct bench *b)
{
    ns_t until = now() + TICK;
    struct timespec t = {until / NS_PER_SEC, until % NS_PER_SEC};
    pthread_cond_timedwait(&b->news, &b->lock, &t);
}

/* False: `progress` wanted it to end. With the lock held. */
static bool run_all(struct bench *b, ns_t start)
{
    ns_t told = start;
    bool go_on = true;
    while (b->left > 0 || b->nidle < b->depth) {
        if (b->failed)
            b->left = 0;
        if (b->nidle > 0 && b->left > 0) {
            submit_idle(b);
            pthread_mutex_unlock(&b->lock); /* for other ends, as a vCPU goes on between accesses */
            pthread_mutex_lock(&b->lock);
        } else {
            wait_news(b);
        }
        if (go_on && !tell(b, start, &told)) {
            go_on = false;
            b->left = 0; /* what is in flight is the last */
        }
    }
    return go_on;
}

static int measure(struct bench *b, struct error *e)
{
    struct blk_req flush = {.op = BLK_FLUSH, .done = flushed, .arg = b};
    pthread_mutex_lock(&b->lock);
    ns_t start = now();
    b->left = b->o->requests ? b->o->requests : UINT64_MAX;
    b->end = b->o->requests ? INT64_MAX : start + b->o->duration;
    bool whole = run_all(b, start);
    ns_t over = now();
    if (b->o->write && !b->failed) {
        b->flushing = true;
        blk_submit(b->blk, &flush);
        while (b->flushing)
            wait_news(b);
        b->r->flush = now() - over;
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
    b->depth = b->o->depth;
    for (unsigned i = 0; i < b->depth; i++) {
        struct slot *s = &b->slot[i];
        s->bench = b;
        s->iov = (struct iovec){memory + (size_t)i * b->o->block, b->o->block};
        memset(s->iov.iov_base, (int)(i % 255 + 1), b->o->block);
        s->req = (struct blk_req){.op = b->o->write ? BLK_WRITE : BLK_READ,
                                  .len = b->o->block,
                                  .iov = &s->iov,
                                  .niov = 1,
                                  .done = done};
        b->idle[b->nidle++] = s;
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
    pthread_cond_init(&b->news, &attr);
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
        pthread_cond_destroy(&b->news);
        pthread_mutex_destroy(&b->lock);
    }
    free(b);
    return rc;
}
