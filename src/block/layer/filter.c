/*
 * filter.c - what layers have in common.
 */
#include "block/layer/filter.h"

void filter_init(struct filter *f, const struct node_ops *ops, struct node *child)
{
    f->node = *child;
    f->node.ops = ops;
    f->node.size = node_size(child);
    f->node.fd = -1;
    f->child = child;
}

/* A child that grows takes the layer with it. */
static int follow(struct filter *f, int rc)
{
    uint64_t size = node_size(&f->node), now = node_size(f->child);
    while (f->node.grows && size < now &&
           !__atomic_compare_exchange_n(&f->node.size, &size, now, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
        continue;
    return rc;
}

int filter_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    return node_readv(filter_of(n)->child, iov, niov, offset);
}

int filter_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset, unsigned flags)
{
    struct filter *f = filter_of(n);
    return follow(f, node_writev(f->child, iov, niov, offset, flags));
}

int filter_flush(struct node *n)
{
    return node_flush(filter_of(n)->child);
}

int filter_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct filter *f = filter_of(n);
    return follow(f, node_zero(f->child, offset, len, flags));
}

int filter_discard(struct node *n, uint64_t offset, uint64_t len)
{
    return node_discard(filter_of(n)->child, offset, len);
}

int filter_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    struct node *child = filter_of(n)->child; /* itself alone; its backing node is ours, too */
    if (child->ops->map)
        return child->ops->map(child, offset, len, out);
    *out = (struct node_extent){.kind = NODE_DATA, .len = len};
    return 0;
}

int filter_resize(struct node *n, uint64_t size, struct error *e)
{
    struct filter *f = filter_of(n);
    int rc = node_resize(f->child, size, e);
    if (!rc)
        __atomic_store_n(&n->size, node_size(f->child), __ATOMIC_RELAXED);
    return rc;
}

bool filter_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                    struct node_place *out)
{
    *out = (struct node_place){filter_of(n)->child, offset, len};
    return true;
}

void filter_hurry(struct node *n, bool on)
{
    node_hurry(filter_of(n)->child, on);
}

void filter_push(struct node *n, struct node *overlay)
{
    struct filter *f = filter_of(n);
    node_push(&f->child, overlay);
    n->backing = f->child->backing;
    n->granularity = f->child->granularity;
    n->alignment = f->child->alignment;
}
