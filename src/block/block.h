/*
 * block.h - asynchronous block back ends.
 *
 * A device fills a `struct blk_req` that it owns and submits it; the request, its iovec array and
 * the memory it points to stay valid until `done` is called, exactly once, from an I/O thread (or
 * from blk_end(), see there) and with the device lock held. Submitting never blocks on I/O.
 * Requests complete in any order; a FLUSH covers every write that was completed before it was
 * submitted, and reports done only when they are durable.
 */
#ifndef SOSIA_BLOCK_BLOCK_H
#define SOSIA_BLOCK_BLOCK_H

#include <sys/uio.h>

#include "base/error.h"
#include "base/types.h"

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_WRITE_ZEROES };

struct blk_req;

/* A part of a request that lies together on the host. */
struct blk_piece {
    struct blk_req *req;
    uint64_t len;
};

/* The back end's own notes about a request in flight; disk.c explains them. */
struct blk_note {
    struct blk_req *prev, *next, *waiters, *last_waiter;
    uint64_t from, to, seq;
    struct blk_pieces *pieces;
    struct blk_piece one;
    bool reads, started, expanded, quick;
    int result;
};

struct blk_req {
    enum blk_op op;
    uint64_t offset;   /* bytes; the device has checked it against blk->size */
    uint64_t len;      /* bytes; for READ and WRITE the sum of the iovec */
    struct iovec *iov; /* READ, WRITE */
    int niov;
    bool fua;      /* WRITE, WRITE_ZEROES: durable when it is done */
    bool no_unmap; /* WRITE_ZEROES: the space is to remain allocated */
    void (*done)(struct blk_req *req, int result); /* result: 0 or -errno */
    void *arg;                                     /* the submitter's */
    struct blk_req *next;                          /* the back end's, like `note` */
    struct blk_note note;
};

struct blk {
    const struct blk_driver *drv;
    uint64_t size; /* bytes, a multiple of 512 (a ragged tail reads as zeroes) */
    bool readonly;
    /* The device's, may be NULL: `size` has changed. Called with the device lock held. */
    void (*resized)(void *ctx);
    void *ctx;
};

enum blk_batch { BLK_PLUG, BLK_UNPLUG, BLK_BEGIN, BLK_END, BLK_END_LAZY };

struct blk_driver {
    const char *name;
    void (*submit)(struct blk *b, struct blk_req *req);
    void (*close)(struct blk *b); /* waits for requests in flight, flushes, frees; lock not held */
    void (*drain)(struct blk *b); /* waits for requests in flight; lock not held */
    void (*batch)(struct blk *b, enum blk_batch what);            /* may be NULL */
    int (*resize)(struct blk *b, uint64_t size, struct error *e); /* may be NULL */
};

static inline void blk_submit(struct blk *b, struct blk_req *req)
{
    b->drv->submit(b, req);
}

static inline void blk_batch(struct blk *b, enum blk_batch what)
{
    if (b->drv->batch)
        b->drv->batch(b, what);
}

/* Between the two calls requests may be collected, to be sent to the host together. For a device
 * that finds several in its queue; on one thread, with the device lock held all the while. */
static inline void blk_plug(struct blk *b)
{
    blk_batch(b, BLK_PLUG);
}

static inline void blk_unplug(struct blk *b)
{
    blk_batch(b, BLK_UNPLUG);
}

/* The same, but blk_end() calls done() for what the host could do at once, such as reads from its
 * page cache: cheaper by two changes of the thread. A done() that begins anew is nested no deeper:
 * nothing is done at once then. */
static inline void blk_begin(struct blk *b)
{
    blk_batch(b, BLK_BEGIN);
}

static inline void blk_end(struct blk *b)
{
    blk_batch(b, BLK_END);
}

/* The same, but what a thread has to be woken for may wait until blk_unplug(), or for as long as
 * nobody waits for it. */
static inline void blk_end_lazy(struct blk *b)
{
    blk_batch(b, BLK_END_LAZY);
}

/* Changes the size of the disk and tells the device (`resized`). Blocks; lock not held. */
static inline int blk_resize(struct blk *b, uint64_t size, struct error *e)
{
    if (!b->drv->resize)
        return error_set(e, ERR_STATE, "this disk cannot change its size");
    return b->drv->resize(b, size, e);
}

/* Waits until nothing that was submitted is in flight: no memory is written behind a reset. NULL is
 * allowed. */
static inline void blk_drain(struct blk *b)
{
    if (b && b->drv->drain)
        b->drv->drain(b);
}

static inline void blk_close(struct blk *b)
{
    if (b)
        b->drv->close(b);
}

#endif
