/*
 * native.h - what the two sides of the throw-away process share: a memfd, inherited as NATIVE_FD,
 * and two pipes. A byte that goes down starts a batch; the byte that comes up says that it is done.
 */
#ifndef SOSIA_TESTS_DIFF_NATIVE_H
#define SOSIA_TESTS_DIFF_NATIVE_H

#include "diff.h"

#define NATIVE_FD   3
#define NATIVE_DOWN 4
#define NATIVE_UP   5

struct native_shared {
    unsigned max, count; /* cases: room, and in this batch */
    _Atomic unsigned done;
    struct pool pool;
    struct input in[]; /* max of them, and behind them as many struct output */
};

static inline size_t native_shared_size(unsigned max)
{
    return sizeof(struct native_shared) + max * (sizeof(struct input) + sizeof(struct output));
}

static inline struct output *native_shared_out(struct native_shared *s)
{
    return (struct output *)(void *)(s->in + s->max);
}

/* The first byte that comes up. */
enum native_answer { NATIVE_BROKEN, NATIVE_NO_LDT, NATIVE_READY };

#endif
