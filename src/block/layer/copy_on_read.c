/*
 * copy_on_read.c - a layer over a thin image that fills it from its backing file as it is read.
 *
 * Invariants:
 *  1. What is copied is not allocated in the image while it is copied: copying holds `copying` for
 *     writing, and all else that allocates holds it for reading. (A write that went the fast way
 *     does not: its bytes are allocated already.)
 *  2. Copying serves later reads. That it fails, for want of space say, is no reason for this one
 *     to fail.
 */
#define _GNU_SOURCE
#include "block/layer/copy_on_read.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/iov.h"
#include "block/layer/filter.h"

#define CHUNK       MIB
#define MIN_GRANULE (64 * KIB)

struct copy_on_read {
    struct filter filter;
    pthread_rwlock_t copying;
    uint64_t granule;
    atomic_bool failed; /* it was logged */
};

static struct copy_on_read *cor_of(struct node *n)
{
    return CONTAINER_OF(filter_of(n), struct copy_on_read, filter);
}

/* Copies what is only in a backing node of at most CHUNK bytes from `offset` on; *len: how far it
 * got. The lock is held. */
static int copy_some(struct copy_on_read *c, uint64_t offset, uint64_t end, void *buf,
                     uint64_t *len)
{
    struct node *child = c->filter.child;
    struct node_extent x;
    int rc = node_map(child, offset, min_u64(end - offset, CHUNK), &x);
    if (rc)
        return rc;
    *len = x.len;
    if (x.depth == 0 || x.kind == NODE_HOLE)
        return 0;
    if (x.kind == NODE_ZERO)
        return node_zero(child, offset, x.len, NODE_MAY_UNMAP);
    rc = node_read(child, buf, (size_t)x.len, offset);
    return rc ? rc : node_write(child, buf, (size_t)x.len, offset, 0);
}

/* Whether anything from `offset` to `end` is only in a backing node. */
static bool lacks(struct copy_on_read *c, uint64_t offset, uint64_t end)
{
    struct node_extent x;
    for (; offset < end; offset += x.len) {
        if (node_map(c->filter.child, offset, end - offset, &x))
            return false;
        if (x.depth > 0 && x.kind != NODE_HOLE)
            return true;
    }
    return false;
}

static void copy(struct copy_on_read *c, uint64_t offset, uint64_t end)
{
    uint64_t size = node_size(c->filter.child), len = 0;
    offset &= ~(c->granule - 1);
    end = min_u64((end + c->granule - 1) & ~(c->granule - 1), size);
    void *buf = malloc(CHUNK);
    int rc = buf ? 0 : -ENOMEM;
    pthread_rwlock_wrlock(&c->copying);
    for (; !rc && offset < end; offset += len)
        rc = copy_some(c, offset, end, buf, &len);
    pthread_rwlock_unlock(&c->copying);
    free(buf);
    if (rc && !atomic_exchange(&c->failed, true))
        log_warn("copy-on-read: what was read could not be copied: %s", strerror(-rc));
}

static int cor_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct copy_on_read *c = cor_of(n);
    uint64_t len = 0;
    if (iov_total(iov, niov, &len) && lacks(c, offset, offset + len))
        copy(c, offset, offset + len);
    return filter_read(n, iov, niov, offset);
}

static int cor_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                     unsigned flags)
{
    struct copy_on_read *c = cor_of(n);
    pthread_rwlock_rdlock(&c->copying);
    int rc = filter_write(n, iov, niov, offset, flags);
    pthread_rwlock_unlock(&c->copying);
    return rc;
}

static int cor_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct copy_on_read *c = cor_of(n);
    pthread_rwlock_rdlock(&c->copying);
    int rc = filter_zero(n, offset, len, flags);
    pthread_rwlock_unlock(&c->copying);
    return rc;
}

static int cor_discard(struct node *n, uint64_t offset, uint64_t len)
{
    struct copy_on_read *c = cor_of(n);
    pthread_rwlock_rdlock(&c->copying);
    int rc = filter_discard(n, offset, len);
    pthread_rwlock_unlock(&c->copying);
    return rc;
}

/* Reads of what lies in a backing node, and of zeroes that may be its, are ours. */
static bool cor_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                        struct node_place *out)
{
    struct node *child = cor_of(n)->filter.child;
    return child->ops->resolve && child->ops->resolve(child, offset, len, write, out) &&
           out->node && out->node != child->backing;
}

static void cor_close(struct node *n)
{
    struct copy_on_read *c = cor_of(n);
    node_close(c->filter.child);
    pthread_rwlock_destroy(&c->copying);
    free(c);
}

static const struct node_ops cor_ops = {
    .name = "copy-on-read",
    .read = cor_read,
    .write = cor_write,
    .flush = filter_flush,
    .zero = cor_zero,
    .discard = cor_discard,
    .map = filter_map,
    .resize = filter_resize,
    .push = filter_push,
    .resolve = cor_resolve,
    .hurry = filter_hurry,
    .close = cor_close,
};

int copy_on_read_open(struct node *child, struct node **out, struct error *e)
{
    if (!child->backing)
        return error_set(e, ERR_STATE, "there is no backing file to copy from");
    if (child->readonly)
        return error_set(e, ERR_STATE, "an image that is only read cannot be copied to");
    struct copy_on_read *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(e, ERR_NOMEM, "out of memory");
    pthread_rwlockattr_t attr;
    filter_init(&c->filter, &cor_ops, child);
    c->granule = max_u64(child->granularity, MIN_GRANULE);
    pthread_rwlockattr_init(&attr);
    /* Or else a copy, which a guest waits for, would have to wait until nobody writes. */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&c->copying, &attr);
    pthread_rwlockattr_destroy(&attr);
    *out = &c->filter.node;
    return 0;
}
