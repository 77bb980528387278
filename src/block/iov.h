/*
 * iov.h - where a transfer stands in somebody's segments, which are never modified.
 */
#ifndef SOSIA_BLOCK_IOV_H
#define SOSIA_BLOCK_IOV_H

#include <string.h>
#include <sys/uio.h>

#include "base/checked.h"
#include "base/types.h"

struct iov_cursor {
    const struct iovec *iov;
    int niov;
    size_t skip; /* bytes of iov[0] already done */
};

/* Bytes in all; false: more than 2^63 - 1. */
static inline bool iov_total(const struct iovec *iov, int niov, uint64_t *total)
{
    uint64_t sum = 0;
    for (int i = 0; i < niov; i++)
        if (!checked_add_u64(sum, iov[i].iov_len, &sum))
            return false;
    *total = sum;
    return sum <= INT64_MAX;
}

/* Skips `n` bytes and empty segments. */
static inline void iov_advance(struct iov_cursor *c, size_t n)
{
    while (c->niov > 0 && n >= c->iov->iov_len - c->skip) {
        n -= c->iov->iov_len - c->skip;
        c->iov++;
        c->niov--;
        c->skip = 0;
    }
    c->skip += n;
}

/* The next `len` bytes as at most `max` segments in `out`; returns their number and the bytes in
 * them, which are fewer if more segments would be needed. */
static inline int iov_slice(const struct iov_cursor *c, uint64_t len, struct iovec *out, int max,
                            uint64_t *got)
{
    size_t skip = c->skip;
    int n = 0;
    *got = 0;
    for (int i = 0; i < c->niov && n < max && *got < len; i++, skip = 0) {
        size_t part = (size_t)min_u64(c->iov[i].iov_len - skip, len - *got);
        if (part == 0)
            continue;
        out[n++] = (struct iovec){(uint8_t *)c->iov[i].iov_base + skip, part};
        *got += part;
    }
    return n;
}

/* Zeroes the next `len` bytes, or as many as there are. */
static inline void iov_zero(const struct iov_cursor *c, uint64_t len)
{
    size_t skip = c->skip;
    for (int i = 0; i < c->niov && len > 0; i++, skip = 0) {
        size_t part = (size_t)min_u64(c->iov[i].iov_len - skip, len);
        if (part > 0)
            memset((uint8_t *)c->iov[i].iov_base + skip, 0, part);
        len -= part;
    }
}

#endif
