/*
 * block.h - asynchronous block back ends.
 *
 * A device fills a `struct blk_req` that it owns and submits it; the request, its iovec array and
 * the memory it points to stay valid until `done` is called, exactly once, from an I/O thread and
 * with the device lock held. Submitting never blocks on I/O. Requests complete in any order; a
 * FLUSH covers every write that was completed before it was submitted, and reports done only when
 * they are durable.
 */
#ifndef SOSIA_BLOCK_BLOCK_H
#define SOSIA_BLOCK_BLOCK_H

#include <pthread.h>
#include <sys/uio.h>

#include "base/error.h"
#include "base/types.h"

enum blk_op { BLK_READ, BLK_WRITE, BLK_FLUSH, BLK_DISCARD, BLK_WRITE_ZEROES };

struct blk_req {
    enum blk_op op;
    uint64_t offset;   /* bytes; the device has checked it against blk->size */
    uint64_t len;      /* bytes; for READ and WRITE the sum of the iovec */
    struct iovec *iov; /* READ, WRITE */
    int niov;
    bool fua; /* WRITE, WRITE_ZEROES: durable when it is done */
    void (*done)(struct blk_req *req, int result); /* result: 0 or -errno */
    void *arg;                                     /* the submitter's */
    struct blk_req *next;                          /* the back end's */
};

struct blk {
    const struct blk_driver *drv;
    uint64_t size; /* bytes, a multiple of 512 (a file's ragged tail reads as zeroes) */
    bool readonly;
    /* The device's, may be NULL: `size` has changed. Called with the device lock held. */
    void (*resized)(void *ctx);
    void *ctx;
};

struct blk_driver {
    const char *name;
    void (*submit)(struct blk *b, struct blk_req *req);
    void (*close)(struct blk *b); /* waits for requests in flight, flushes, frees; lock not held */
    void (*drain)(struct blk *b); /* waits for requests in flight; lock not held */
};

/* Raw file or block device through a small pool of I/O threads. `dev_lock` is taken around each
 * `done`. The file is locked (OFD lock: shared if read-only) against a second writer. ERR_IO,
 * ERR_BUSY. */
int blk_open_raw(const char *path, bool readonly, pthread_mutex_t *dev_lock, struct blk **out,
                 struct error *e);

static inline void blk_submit(struct blk *b, struct blk_req *req)
{
    b->drv->submit(b, req);
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
