/*
 * qcow2_guard.c - where an image's metadata is, so that nothing else is ever written there.
 *
 * In a sound image no data overlaps metadata, because both have refcounts. In a damaged or hostile
 * one an L2 entry may point at the refcount table, or a cluster with refcount 0 may be an L2 table.
 * Every place that is to be written is looked up here first: tables of one cluster in a hash set,
 * the others in a sorted list of ranges.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/format/qcow2_int.h"

#define FIRST_SLOTS 256

static uint64_t hash(uint64_t cluster)
{
    return cluster * 0x9e3779b97f4a7c15ull >> 20;
}

static void insert(uint64_t *set, uint64_t mask, uint64_t cluster)
{
    uint64_t i = hash(cluster) & mask;
    while (set[i] && set[i] != cluster)
        i = (i + 1) & mask;
    set[i] = cluster;
}

static bool contains(const struct qcow2_guard *g, uint64_t cluster)
{
    if (!g->set)
        return false;
    for (uint64_t i = hash(cluster) & g->mask; g->set[i]; i = (i + 1) & g->mask)
        if (g->set[i] == cluster)
            return true;
    return false;
}

/* Half of the slots stay free. */
static int make_room(struct qcow2 *q)
{
    struct qcow2_guard *g = &q->guard;
    if (g->set && g->count * 2 < g->mask)
        return 0;
    uint64_t n = g->set ? (g->mask + 1) * 2 : FIRST_SLOTS;
    uint64_t *set = calloc(n, sizeof *set);
    if (!set)
        return -ENOMEM;
    for (uint64_t i = 0; g->set && i <= g->mask; i++)
        if (g->set[i])
            insert(set, n - 1, g->set[i]);
    uint64_t *old = g->set;
    pthread_mutex_lock(&q->map);
    g->set = set;
    g->mask = n - 1;
    pthread_mutex_unlock(&q->map);
    free(old);
    return 0;
}

int qcow2_guard_add(struct qcow2 *q, uint64_t cluster)
{
    int rc = make_room(q);
    if (rc || cluster == 0)
        return rc;
    pthread_mutex_lock(&q->map);
    insert(q->guard.set, q->guard.mask, cluster);
    q->guard.count++; /* may count one twice: that only makes room early */
    pthread_mutex_unlock(&q->map);
    return 0;
}

static int by_first(const void *a, const void *b)
{
    const struct qcow2_range *x = a, *y = b;
    return x->first < y->first ? -1 : x->first > y->first;
}

static void put(const struct qcow2 *q, struct qcow2_range *r, unsigned *n, uint64_t offset,
                uint64_t bytes)
{
    if (bytes)
        r[(*n)++] = (struct qcow2_range){offset >> q->cluster_bits,
                                         (offset + bytes - 1) >> q->cluster_bits};
}

int qcow2_guard_ranges(struct qcow2 *q)
{
    struct qcow2_range *r = calloc(q->nsnap + 5ull, sizeof *r);
    unsigned n = 0, kept = 0;
    if (!r)
        return -ENOMEM;
    put(q, r, &n, 0, q->cluster);
    put(q, r, &n, q->l1_offset, q->l1_size * 8ull);
    put(q, r, &n, q->rt_offset, (uint64_t)q->rt_clusters << q->cluster_bits);
    put(q, r, &n, q->snap_offset, q->snap_bytes);
    if ((q->autoclear & QCOW2_AUTOCLEAR_BITMAPS) && q->bitmaps_offset < QCOW2_MAX_END)
        put(q, r, &n, q->bitmaps_offset, q->bitmaps_size); /* else they are leaked, maybe freed */
    for (unsigned i = 0; q->snap && i < q->nsnap; i++)
        put(q, r, &n, q->snap[i].l1_offset, q->snap[i].l1_size * 8ull);
    qsort(r, n, sizeof *r, by_first);
    for (unsigned i = 1; i < n; i++) {
        if (r[i].first <= r[kept].last)
            r[kept].last = max_u64(r[kept].last, r[i].last);
        else
            r[++kept] = r[i];
    }
    struct qcow2_range *old = q->guard.range;
    pthread_mutex_lock(&q->map);
    q->guard.range = r;
    q->guard.nrange = kept + 1;
    pthread_mutex_unlock(&q->map);
    free(old);
    return 0;
}

int qcow2_guard_init(struct qcow2 *q)
{
    int rc = qcow2_guard_ranges(q);
    for (uint32_t i = 0; !rc && i < q->l1_size; i++)
        if (q->l1[i] & QCOW2_OFFSET)
            rc = qcow2_guard_add(q, (q->l1[i] & QCOW2_OFFSET) >> q->cluster_bits);
    for (uint64_t i = 0; !rc && i < q->rt_entries; i++)
        if (q->rt[i] & QCOW2_RT_OFFSET)
            rc = qcow2_guard_add(q, (q->rt[i] & QCOW2_RT_OFFSET) >> q->cluster_bits);
    return rc;
}

void qcow2_guard_free(struct qcow2 *q)
{
    free(q->guard.range);
    free(q->guard.set);
    q->guard = (struct qcow2_guard){0};
}

static bool in_ranges(const struct qcow2_guard *g, uint64_t first, uint64_t last)
{
    unsigned lo = 0, hi = g->nrange; /* the first range that ends at `first` or later */
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (g->range[mid].last < first)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < g->nrange && g->range[lo].first <= last;
}

bool qcow2_guarded(const struct qcow2 *q, uint64_t offset, uint64_t len)
{
    const struct qcow2_guard *g = &q->guard;
    uint64_t first = offset >> q->cluster_bits, last = (offset + len - 1) >> q->cluster_bits;
    if (in_ranges(g, first, last))
        return true;
    for (uint64_t c = first; c <= last; c++)
        if (contains(g, c))
            return true;
    return false;
}

int qcow2_corrupt(struct qcow2 *q, const char *what, uint64_t offset)
{
    if (q->incompat & QCOW2_INCOMPAT_CORRUPT)
        return -EIO;
    log_error("%s: %s at offset %#llx: the image is damaged and takes no more writes; repair it "
              "with: sosia disk repair",
              q->path, what, (unsigned long long)offset);
    q->incompat |= QCOW2_INCOMPAT_CORRUPT; /* version 2 has no such bit: only for this run */
    if (!q->node.readonly)
        qcow2_header_features(q);
    return -EIO;
}
