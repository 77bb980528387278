/*
 * checked.h - arithmetic on numbers from outside. Each returns true if the result is exact and
 * false (leaving *r unspecified) on overflow.
 */
#ifndef SOSIA_BASE_CHECKED_H
#define SOSIA_BASE_CHECKED_H

#include "base/types.h"

static inline bool checked_add_u64(uint64_t a, uint64_t b, uint64_t *r)
{
    return !__builtin_add_overflow(a, b, r);
}

static inline bool checked_mul_u64(uint64_t a, uint64_t b, uint64_t *r)
{
    return !__builtin_mul_overflow(a, b, r);
}

/* True if [off, off+len) lies within [0, limit). Never overflows. */
static inline bool range_within(uint64_t off, uint64_t len, uint64_t limit)
{
    return off <= limit && len <= limit - off;
}

#endif
