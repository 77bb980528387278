/*
 * copy.h - one image's contents into another: holes stay holes, several requests are in flight.
 */
#ifndef SOSIA_BLOCK_COPY_H
#define SOSIA_BLOCK_COPY_H

#include "block/create.h"

typedef bool block_progress(void *ctx, uint64_t done, uint64_t of); /* false: end now */

struct copy {
    struct node *from; /* its size is at most that of `to` */
    struct node *to;   /* nobody else writes to it; empty, unless `overlay` */
    /* What reads as zeroes in `from` is made so in `to`, where a backing node would show; what is
     * not allocated in `from` is left alone in any case. */
    bool overlay;
    bool compress;               /* all of it, as far as it gets smaller */
    const struct format *format; /* of `to`; NULL: nothing is compressed */
    block_progress *progress;    /* on the caller's thread; may be NULL */
    void *ctx;
};

/* Does not flush. ERR_IO: the message says whether reading or writing failed; ERR_STATE: ended by
 * `progress`, or the format cannot compress; ERR_NOMEM. */
int copy_run(const struct copy *c, struct error *e);
/* Into a new image at `path`, which is durable or not there; its size and format are `with`'s.
 * Fills in c->to and c->format for the time of it. Errors of image_create() and copy_run(), too. */
int copy_new(struct copy *c, const char *path, const struct image_create *with, struct error *e);

#endif
