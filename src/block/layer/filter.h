/*
 * filter.h - what layers have in common: one node below, to which they pass on what they do not
 * change.
 */
#ifndef SOSIA_BLOCK_LAYER_FILTER_H
#define SOSIA_BLOCK_LAYER_FILTER_H

#include "block/node.h"

struct filter {
    struct node node;
    struct node *child; /* owned once the layer is open */
};

static inline struct filter *filter_of(struct node *n)
{
    return CONTAINER_OF(n, struct filter, node);
}

/* The layer looks like its child. */
void filter_init(struct filter *f, const struct node_ops *ops, struct node *child);

/* Operations that do nothing but pass on; filter_resolve() names the child as the place. */
int filter_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset);
int filter_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                 unsigned flags);
int filter_flush(struct node *n);
int filter_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags);
int filter_discard(struct node *n, uint64_t offset, uint64_t len);
int filter_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out);
int filter_resize(struct node *n, uint64_t size, struct error *e);
bool filter_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                    struct node_place *out);
void filter_hurry(struct node *n, bool on);
void filter_push(struct node *n, struct node *overlay);

#endif
