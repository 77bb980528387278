/* fake_blk.h - a disk in memory for unit tests: completes at once, or when told to. */
#ifndef SOSIA_TESTS_FAKE_BLK_H
#define SOSIA_TESTS_FAKE_BLK_H

#include <errno.h>
#include <string.h>

#include "block/block.h"

#define FAKE_SIZE (2 * MIB)

struct fake_blk {
    struct blk blk;
    uint8_t data[FAKE_SIZE];
    bool late;            /* keep requests until fake_complete() */
    int fail;             /* -errno for every request, or 0 */
    struct blk_req *held; /* at most one: a device has one in flight */
    unsigned reads, writes, flushes;
};

static inline void fake_run(struct fake_blk *f, struct blk_req *req)
{
    uint64_t off = req->offset;
    f->reads += req->op == BLK_READ;
    f->writes += req->op == BLK_WRITE;
    f->flushes += req->op == BLK_FLUSH;
    for (int i = 0; i < req->niov && !f->fail; i++) {
        struct iovec *v = &req->iov[i];
        if (req->op == BLK_READ)
            memcpy(v->iov_base, f->data + off, v->iov_len);
        else
            memcpy(f->data + off, v->iov_base, v->iov_len);
        off += v->iov_len;
    }
    req->done(req, f->fail);
}

static inline void fake_submit(struct blk *b, struct blk_req *req)
{
    struct fake_blk *f = (struct fake_blk *)(void *)b;
    if (req->offset > b->size || req->len > b->size - req->offset || f->held)
        __builtin_trap(); /* the device has not checked the range, or submits twice */
    if (f->late)
        f->held = req;
    else
        fake_run(f, req);
}

/* Completes the request that is held; false if there is none. */
static inline bool fake_complete(struct fake_blk *f)
{
    struct blk_req *req = f->held;
    f->held = NULL;
    if (req)
        fake_run(f, req);
    return req;
}

static inline void fake_init(struct fake_blk *f)
{
    static const struct blk_driver driver = {.name = "fake", .submit = fake_submit};
    memset(f, 0, sizeof *f);
    f->blk = (struct blk){.drv = &driver, .size = FAKE_SIZE};
    for (unsigned i = 0; i < FAKE_SIZE; i++)
        f->data[i] = (uint8_t)(i * 7 + (i >> 9) * 3 + (i >> 16));
}

#endif
