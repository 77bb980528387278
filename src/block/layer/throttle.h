/*
 * throttle.h - a layer that keeps a disk below a number of operations and bytes per second.
 */
#ifndef SOSIA_BLOCK_LAYER_THROTTLE_H
#define SOSIA_BLOCK_LAYER_THROTTLE_H

#include "block/node.h"

/* What may be used at once after a pause: a tenth of a second's worth. */
#define THROTTLE_BURST_NS (NS_PER_SEC / 10)

struct throttle_limits {
    uint64_t iops;  /* operations per second, flushes aside; 0: any number */
    uint64_t bytes; /* read and written per second; 0: any number */
};

/* Takes over `child` when it succeeds. ERR_NOMEM. */
int throttle_open(struct node *child, const struct throttle_limits *l, struct node **out,
                  struct error *e);
/* Any thread. */
void throttle_set(struct node *n, const struct throttle_limits *l);

#endif
