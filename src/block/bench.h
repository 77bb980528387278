/*
 * bench.h - how fast a disk is, as a device of a VM would find it: through block.h, with a number
 * of requests in flight all the time.
 */
#ifndef SOSIA_BLOCK_BENCH_H
#define SOSIA_BLOCK_BENCH_H

#include "block/copy.h"
#include "block/latency.h"

struct bench_options {
    bool write; /* destroys the contents */
    bool random;
    uint32_t block;    /* bytes of a request, a multiple of 512 */
    unsigned depth;    /* requests in flight, 1 to BENCH_MAX_DEPTH */
    uint64_t requests; /* ends after so many; 0: after `duration` */
    ns_t duration;
    block_progress *progress; /* of the duration; may be NULL */
    void *ctx;
};
#define BENCH_MAX_DEPTH 256

struct bench_result {
    uint64_t requests, bytes;
    ns_t elapsed; /* for writing, with a flush at the end */
    ns_t flush;   /* what that took */
    struct latency latency;
};

/* Takes over `top` and closes it, also when it fails. ERR_USAGE: the disk is smaller than a block;
 * ERR_IO: a request failed; ERR_STATE: ended by `progress`; ERR_NOMEM, ERR_HOST. */
int bench_run(struct node *top, const struct bench_options *o, struct bench_result *r,
              struct error *e);

#endif
