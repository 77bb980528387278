/*
 * transfer.c - moving a stretch of somebody's segments from a node below, or to it.
 */
#include "block/format/transfer.h"

#define SEGMENTS 32 /* of one transfer below; more are done in several */

void transfer_zero(struct iov_cursor *c, uint64_t len)
{
    iov_zero(c, len);
    iov_advance(c, len);
}

int transfer_read(struct node *n, struct iov_cursor *c, uint64_t offset, uint64_t len)
{
    struct iovec iov[SEGMENTS];
    uint64_t size = !n ? 0 : n->grows ? INT64_MAX : node_size(n), beyond = 0;
    if (!range_within(offset, len, size)) {
        uint64_t there = offset < size ? min_u64(len, size - offset) : 0;
        beyond = len - there;
        len = there;
    }
    while (len > 0) {
        uint64_t got;
        int k = iov_slice(c, len, iov, SEGMENTS, &got);
        int rc = node_readv(n, iov, k, offset);
        if (rc)
            return rc;
        iov_advance(c, got);
        offset += got;
        len -= got;
    }
    transfer_zero(c, beyond);
    return 0;
}

void transfer_copy(struct iov_cursor *c, const uint8_t *from, uint64_t len)
{
    while (len > 0) {
        struct iovec part = {NULL, 0};
        uint64_t got;
        if (iov_slice(c, len, &part, 1, &got) == 0)
            return;
        memcpy(part.iov_base, from, got);
        iov_advance(c, got);
        from += got;
        len -= got;
    }
}

int transfer_write(struct node *n, struct iov_cursor *c, uint64_t offset, uint64_t len,
                   unsigned flags)
{
    struct iovec iov[SEGMENTS];
    while (len > 0) {
        uint64_t got;
        int k = iov_slice(c, len, iov, SEGMENTS, &got);
        int rc = node_writev(n, iov, k, offset, flags);
        if (rc)
            return rc;
        iov_advance(c, got);
        offset += got;
        len -= got;
    }
    return 0;
}
