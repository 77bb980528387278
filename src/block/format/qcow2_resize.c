/*
 * qcow2_resize.c - another size of the disk.
 *
 * Growing: the new bytes are made to read as zeroes durably, then the header's size (and L1 table,
 * if it had to grow by a copy) changes with one write within a sector. Shrinking: the header first,
 * then what is beyond the new end is freed. A crash in between leaves mappings beyond the end,
 * which growing therefore removes first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/format/qcow2_int.h"

/* Size, encryption and L1 are next to each other in the header. */
static int write_fields(struct qcow2 *q, uint64_t size, uint32_t l1_size, uint64_t l1_offset)
{
    uint8_t h[24] = {0};
    store_be64(h, size);
    store_be32(h + 12, l1_size);
    store_be64(h + 16, l1_offset);
    int rc = node_write(q->file, h, sizeof h, QCOW2_H_SIZE, 0);
    return rc ? rc : node_flush(q->file);
}

/* With `flush` and `meta` held and no L1 entry waiting to be written. */
static int switch_l1(struct qcow2 *q, uint64_t *table, uint64_t entries, uint64_t at,
                     uint64_t bytes)
{
    memcpy(table, q->l1, q->l1_size * sizeof *table);
    int rc = node_zero(q->file, at, bytes, 0);
    if (!rc)
        rc = qcow2_write_table(q, table, entries, at);
    if (!rc)
        rc = node_flush(q->file);
    if (!rc)
        rc = write_fields(q, q->node.size, (uint32_t)entries, at);
    if (rc)
        return rc;
    uint64_t *old = q->l1, old_at = q->l1_offset, old_bytes = q->l1_size * 8ull;
    pthread_mutex_lock(&q->map);
    q->l1 = table;
    q->l1_size = (uint32_t)entries;
    pthread_mutex_unlock(&q->map);
    q->l1_offset = at;
    free(old);
    rc = qcow2_guard_ranges(q);
    return rc || !old_bytes ? rc : qcow2_free_now(q, old_at, old_bytes);
}

static int grow_l1(struct qcow2 *q, uint64_t entries)
{
    uint64_t clusters = qcow2_clusters(q, entries * 8), at = 0;
    uint64_t *table = calloc(entries, sizeof *table);
    bool fresh, switched = false;
    if (!table)
        return -ENOMEM;
    int rc = qcow2_lock_update(q);
    if (!rc) {
        rc = qcow2_alloc(q, clusters, &at, &fresh);
        pthread_mutex_unlock(&q->meta);
    }
    bool taken = !rc;
    while (!rc && !switched) {
        rc = qcow2_sync(q); /* the refcounts, and all L1 entries so far */
        pthread_mutex_lock(&q->flush);
        pthread_mutex_lock(&q->meta);
        if (!rc && q->nl1_fix == 0) {
            rc = switch_l1(q, table, entries, at, clusters << q->cluster_bits);
            switched = !rc;
        }
        pthread_mutex_unlock(&q->meta);
        pthread_mutex_unlock(&q->flush);
    }
    if (q->l1 != table) {
        free(table);
        pthread_mutex_lock(&q->meta);
        if (taken)
            qcow2_free_now(q, at, clusters << q->cluster_bits);
        pthread_mutex_unlock(&q->meta);
    }
    return rc;
}

/* Makes [old, new) read as zeroes, whatever is mapped there or in the backing node. */
static int clear_new(struct qcow2 *q, uint64_t old, uint64_t size)
{
    uint64_t mask = q->cluster - 1, edge = min_u64((old + mask) & ~mask, size);
    int rc = edge > old ? qcow2_write_zero_bytes(q, old, edge - old) : 0;
    if (!rc && edge < size)
        rc = qcow2_unmap(q, edge, size - edge);
    uint64_t below = q->node.backing ? node_size(q->node.backing) : 0;
    uint64_t end = min_u64((below + mask) & ~mask, size);
    if (!rc && edge < end)
        rc = qcow2_zero(&q->node, edge, end - edge, NODE_MAY_UNMAP);
    return rc ? rc : qcow2_sync(q);
}

static int set_size(struct qcow2 *q, uint64_t size)
{
    pthread_mutex_lock(&q->meta);
    int rc = write_fields(q, size, q->l1_size, q->l1_offset);
    if (!rc)
        __atomic_store_n(&q->node.size, size, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&q->meta);
    return rc;
}

static int grow(struct qcow2 *q, uint64_t size, uint64_t entries)
{
    int rc = entries > q->l1_size ? grow_l1(q, entries) : 0;
    if (!rc && !q->raw_data)
        rc = clear_new(q, q->node.size, size);
    return rc ? rc : set_size(q, size);
}

static int shrink(struct qcow2 *q, uint64_t size)
{
    uint64_t span = q->cluster << q->l2_bits, mask = q->cluster - 1;
    uint64_t from = (size + mask) & ~mask, end = q->l1_size * span;
    int rc = set_size(q, size);
    if (!rc && from < end)
        rc = qcow2_unmap(q, from, end - from);
    return rc ? rc : qcow2_sync(q);
}

static int check_snapshots(struct qcow2 *q, struct error *e)
{
    if (q->nsnap && q->version < 3) /* QEMU then refuses to go back to one */
        return error_set(e, ERR_STATE,
                         "the size cannot be changed: an image of version 2 with snapshots must "
                         "keep it");
    for (uint32_t i = 0; i < q->nsnap; i++)
        if (!q->snap[i].has_disk_size)
            return error_set(e, ERR_STATE,
                             "the size cannot be changed: snapshot '%s' does not say its own",
                             q->snap[i].name);
    return 0;
}

int qcow2_resize(struct node *n, uint64_t size, struct error *e)
{
    struct qcow2 *q = qcow2_of(n);
    uint64_t entries = 0, old = n->size;
    size = (size + 511) & ~511ull;
    int rc = qcow2_l1_bounds(q, size, &entries, e);
    if (!rc)
        rc = check_snapshots(q, e);
    if (rc)
        return rc;
    rc = qcow2_begin(q);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot write the image");
    if (qcow2_external(q) && q->data->ops->resize && (size > old || q->raw_data)) {
        rc = size < old ? set_size(q, size) : 0;
        /* What lies beyond the disk's end, as after a shrinking that a crash cut short, goes first.
         */
        bool longer = size > old && q->raw_data && node_size(q->data) > old;
        if (!rc && ((longer && node_resize(q->data, old, e)) || node_resize(q->data, size, e)))
            return error_prefix(e, "data file");
    }
    if (!rc)
        rc = size > old ? grow(q, size, entries) : size < old ? shrink(q, size) : 0;
    return rc ? error_errno(e, ERR_IO, -rc, "cannot change the size") : 0;
}
