/*
 * codec.h - bytes of the stream in memory: an output that grows up to a limit, and an input that
 * cannot be read beyond its end. Integers are little-endian.
 */
#ifndef SOSIA_STATE_CODEC_H
#define SOSIA_STATE_CODEC_H

#include "base/error.h"
#include "base/types.h"

/* Failing is remembered, so that a writer checks once, at its end. */
struct state_out {
    uint8_t *p;
    size_t len, cap, limit;
    bool failed; /* out of memory, or the limit is reached */
};

struct state_in {
    const uint8_t *p;
    size_t len, pos;
};

void state_out_init(struct state_out *o, size_t limit);
void state_out_fini(struct state_out *o);
void state_put(struct state_out *o, const void *p, size_t len);
void state_put_uint(struct state_out *o, uint64_t v, unsigned bytes);

/* NULL: there are not so many bytes left. */
const uint8_t *state_take(struct state_in *in, size_t len);
bool state_take_uint(struct state_in *in, unsigned bytes, uint64_t *v);

#endif
