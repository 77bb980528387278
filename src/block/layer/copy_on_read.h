/*
 * copy_on_read.h - a layer over a thin image that fills it from its backing file as it is read.
 */
#ifndef SOSIA_BLOCK_LAYER_COPY_ON_READ_H
#define SOSIA_BLOCK_LAYER_COPY_ON_READ_H

#include "block/node.h"

/* Takes over `child` when it succeeds. ERR_STATE: it has no backing file, or cannot be written.
 * ERR_NOMEM. */
int copy_on_read_open(struct node *child, struct node **out, struct error *e);

#endif
