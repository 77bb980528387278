/*
 * node.c - the functions that everybody calls instead of a node's operations: they check range and
 * rights, and do what a node cannot by other means.
 */
#include "block/node.h"

#include <errno.h>

#include "base/checked.h"
#include "block/iov.h"

#define ZERO_CHUNK    (64 * KIB)
#define ZERO_SEGMENTS 16  /* of the same chunk in one write: 1 MiB */
#define RESOLVE_STEPS 128 /* twice the depth of a chain: more is a node that resolves in a ring */

static const uint8_t zeroes[ZERO_CHUNK];

/* File offsets are signed for the kernel. */
static bool in_range(const struct node *n, uint64_t offset, uint64_t len)
{
    return range_within(offset, len, n->grows ? INT64_MAX : node_size(n));
}

int node_readv(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    uint64_t len = 0;
    if (!iov_total(iov, niov, &len) || !in_range(n, offset, len))
        return -EINVAL;
    return len ? n->ops->read(n, iov, niov, offset) : 0;
}

int node_writev(struct node *n, const struct iovec *iov, int niov, uint64_t offset, unsigned flags)
{
    uint64_t len = 0;
    if (!iov_total(iov, niov, &len) || !in_range(n, offset, len))
        return -EINVAL;
    if (n->readonly || !n->ops->write)
        return -EROFS;
    return len ? n->ops->write(n, iov, niov, offset, flags) : 0;
}

int node_read(struct node *n, void *buf, size_t len, uint64_t offset)
{
    struct iovec iov = {buf, len};
    return node_readv(n, &iov, 1, offset);
}

int node_write(struct node *n, const void *buf, size_t len, uint64_t offset, unsigned flags)
{
    struct iovec iov = {(void *)(uintptr_t)buf,
                        len}; /* an iovec has no const, a write needs none */
    return node_writev(n, &iov, 1, offset, flags);
}

static int write_zeroes(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    while (len > 0) {
        struct iovec iov[ZERO_SEGMENTS];
        int niov = 0;
        uint64_t done = 0;
        for (; niov < ZERO_SEGMENTS && done < len; niov++) {
            size_t part = (size_t)min_u64(len - done, ZERO_CHUNK);
            iov[niov] = (struct iovec){(void *)(uintptr_t)zeroes, part};
            done += part;
        }
        int rc = n->ops->write(n, iov, niov, offset, flags);
        if (rc)
            return rc;
        offset += done;
        len -= done;
    }
    return 0;
}

int node_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    if (!in_range(n, offset, len))
        return -EINVAL;
    if (n->readonly || !n->ops->write)
        return -EROFS;
    if (len == 0)
        return 0;
    return n->ops->zero ? n->ops->zero(n, offset, len, flags)
                        : write_zeroes(n, offset, len, flags & NODE_FUA);
}

int node_discard(struct node *n, uint64_t offset, uint64_t len)
{
    if (!in_range(n, offset, len))
        return -EINVAL;
    if (n->readonly || !n->ops->write)
        return -EROFS;
    return len && n->ops->discard ? n->ops->discard(n, offset, len) : 0;
}

int node_flush(struct node *n)
{
    return n->readonly || !n->ops->flush ? 0 : n->ops->flush(n);
}

/* What one node has at `offset`; `len` is more than 0. */
static int map_one(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    uint64_t size = node_size(n);
    *out = (struct node_extent){.kind = NODE_HOLE, .len = len};
    if (offset >= size)
        return 0;
    len = min_u64(len, size - offset);
    *out = (struct node_extent){.kind = NODE_DATA, .len = len};
    int rc = n->ops->map ? n->ops->map(n, offset, len, out) : 0;
    if (rc)
        return rc;
    return out->len > 0 && out->len <= len ? 0 : -EIO;
}

int node_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    if (len == 0 || !in_range(n, offset, len))
        return -EINVAL;
    for (unsigned depth = 0;; depth++) {
        int rc = map_one(n, offset, len, out);
        if (rc)
            return rc;
        out->depth = depth;
        if (out->kind != NODE_HOLE || !n->backing)
            return 0;
        len = out->len;
        n = n->backing;
    }
}

int node_resize(struct node *n, uint64_t size, struct error *e)
{
    if (n->readonly)
        return error_set(e, ERR_STATE, "its size cannot be changed: it is opened for reading only");
    if (!n->ops->resize)
        return error_set(e, ERR_STATE, "'%s' cannot change its size", n->ops->name);
    if (size > INT64_MAX)
        return error_set(e, ERR_LIMIT, "a disk has at most 2^63 - 1 bytes");
    return n->ops->resize(n, size, e);
}

bool node_resolve(struct node *n, uint64_t offset, uint64_t len, bool write, struct node_place *out)
{
    *out = (struct node_place){n, offset, len};
    for (unsigned step = 0; step < RESOLVE_STEPS; step++) {
        struct node *at = out->node;
        uint64_t want = out->len;
        if (!at->ops->resolve || (write && at->readonly) ||
            !at->ops->resolve(at, out->offset, want, write, out))
            return false;
        if (out->len == 0 || out->len > want)
            return false;
        if (!out->node || out->node == at)
            return out->node || !write;
    }
    return false;
}

void node_push(struct node **top, struct node *overlay)
{
    struct node *n = *top;
    if (n->ops->push) {
        n->ops->push(n, overlay);
        return;
    }
    overlay->backing = n;
    *top = overlay;
}

int node_freeze(struct node *n)
{
    return n->ops->freeze ? n->ops->freeze(n) : node_flush(n);
}

void node_hurry(struct node *n, bool on)
{
    if (n->ops->hurry)
        n->ops->hurry(n, on);
}

void node_close(struct node *n)
{
    if (n)
        n->ops->close(n);
}
