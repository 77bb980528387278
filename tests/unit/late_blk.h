/* late_blk.h - a disk in memory for tests of devices with many requests in flight: each waits until
 * the test completes it. */
#ifndef SOSIA_TESTS_LATE_BLK_H
#define SOSIA_TESTS_LATE_BLK_H

#include <string.h>

#include "block/block.h"

#define LATE_SIZE (1 * MIB)
#define LATE_MAX  512

struct late_blk {
    struct blk blk;
    uint8_t data[LATE_SIZE];
    struct blk_req *req[LATE_MAX]; /* in the order of submission */
    unsigned n;
};

static inline void late_submit(struct blk *b, struct blk_req *req)
{
    struct late_blk *f = (struct late_blk *)(void *)b;
    uint64_t sum = 0;
    bool data = req->op == BLK_READ || req->op == BLK_WRITE;
    for (int i = 0; data && i < req->niov; i++)
        sum += req->iov[i].iov_len;
    if (req->offset > b->size || req->len > b->size - req->offset || f->n == LATE_MAX ||
        (data && (sum != req->len || sum % 512)))
        __builtin_trap(); /* the device has not checked what the guest asked for */
    f->req[f->n++] = req;
}

/* Carries out and completes the request that waits at position i. */
static inline void late_one(struct late_blk *f, unsigned i, int result)
{
    if (i >= f->n)
        __builtin_trap();
    struct blk_req *req = f->req[i];
    memmove(&f->req[i], &f->req[i + 1], (f->n - i - 1) * sizeof *f->req);
    f->n--;
    uint64_t off = req->offset;
    for (int k = 0; result == 0 && k < req->niov && req->op <= BLK_WRITE; k++) {
        struct iovec *v = &req->iov[k];
        if (req->op == BLK_READ)
            memcpy(v->iov_base, f->data + off, v->iov_len);
        else
            memcpy(f->data + off, v->iov_base, v->iov_len);
        off += v->iov_len;
    }
    if (result == 0 && (req->op == BLK_DISCARD || req->op == BLK_WRITE_ZEROES))
        memset(f->data + off, 0, req->len);
    req->done(req, result);
}

static inline void late_all(struct late_blk *f, int result)
{
    while (f->n)
        late_one(f, 0, result);
}

static inline void late_init(struct late_blk *f)
{
    static const struct blk_driver driver = {.name = "late", .submit = late_submit};
    memset(f, 0, sizeof *f);
    f->blk = (struct blk){.drv = &driver, .size = LATE_SIZE};
    for (unsigned i = 0; i < LATE_SIZE; i++)
        f->data[i] = (uint8_t)(i * 7 + (i >> 9) * 3 + (i >> 16));
}

#endif
