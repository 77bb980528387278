/*
 * qcow2_zero.c - zeroing and discarding: changes of entries wherever whole clusters (zeroes:
 * subclusters) are meant, writes of zeroes at the edges.
 */
#include <errno.h>

#include "block/format/qcow2_int.h"

enum change {
    ZERO_KEEP,  /* reads as zeroes, stays in its place */
    ZERO_UNMAP, /* reads as zeroes */
    DISCARD,    /* reads as zeroes if that can be said in the entry, else stays */
    FORGET,     /* not mapped */
};

/* The backing node shows at `offset`, or would without an entry. */
static bool backed(const struct qcow2 *q, uint64_t offset)
{
    return q->node.backing && offset < node_size(q->node.backing);
}

static bool placed(const struct qcow2 *q, const struct qcow2_entry *v)
{
    return !(v->e & QCOW2_COMPRESSED) &&
           ((v->e & QCOW2_OFFSET) || (qcow2_external(q) && (v->e & QCOW2_COPIED)));
}

/* A cluster without a place that reads as zeroes. */
static struct qcow2_entry zero_entry(const struct qcow2 *q)
{
    return q->ext_l2 ? (struct qcow2_entry){0, 0xffffffffull << 32}
                     : (struct qcow2_entry){QCOW2_ZERO, 0};
}

/* The entry that a cluster is to have; false: it stays. */
static bool new_entry(const struct qcow2 *q, uint64_t offset, const struct qcow2_entry *old,
                      enum change what, struct qcow2_entry *new)
{
    bool mapped = old->e || old->bits;
    *new = (struct qcow2_entry){0, 0};
    if (what == FORGET || !backed(q, offset)) {
        bool keep = what == ZERO_KEEP && placed(q, old) && (old->e & QCOW2_COPIED);
        if (!keep)
            return mapped;
    }
    if (q->version < 3)
        return false;
    *new = zero_entry(q);
    if (what == ZERO_KEEP && placed(q, old) && (old->e & QCOW2_COPIED))
        new->e |= old->e &(QCOW2_OFFSET | QCOW2_COPIED);
    return true;
}

/* Changes clusters of one slice from `offset` on; *done: bytes that were seen to. */
static int change_some(struct qcow2 *q, uint64_t offset, uint64_t len, enum change what,
                       uint64_t *done)
{
    uint64_t span = q->cluster << q->slice_bits, table = q->cluster << q->l2_bits;
    uint64_t rest = span - (offset & (span - 1)), whole = table - (offset & (table - 1));
    uint64_t i = offset / table;
    int rc = 0;
    if ((i >= q->l1_size || !(q->l1[i] & QCOW2_OFFSET)) &&
        (what == FORGET || !backed(q, offset) || q->version < 3)) {
        *done = min_u64(len, whole); /* nothing is mapped there, nothing has to be */
        return 0;
    }
    *done = 0;
    len = min_u64(len, rest);
    for (; !rc && *done < len; *done += q->cluster) {
        struct qcow2_entry old, new;
        rc = qcow2_entry_get(q, offset + *done, &old);
        if (rc || !new_entry(q, offset + *done, &old, what, &new) ||
            (old.e == new.e &&old.bits == new.bits))
            continue;
        rc = qcow2_table_own(q, offset + *done);
        if (!rc)
            rc = qcow2_entry_set(q, offset + *done, new);
        if (rc)
            return rc;
    }
    return rc;
}

/* Whole clusters. */
static int change_clusters(struct qcow2 *q, uint64_t offset, uint64_t len, enum change what)
{
    len = qcow2_clusters(q, len) << q->cluster_bits;
    while (len > 0) {
        uint64_t part = len, done = 0;
        int rc = qcow2_lock_update(q);
        if (rc)
            return rc;
        if (!qcow2_wait_inflight(q, offset, &part))
            rc = change_some(q, offset, part, what, &done);
        pthread_mutex_unlock(&q->meta);
        if (rc)
            return rc;
        done = min_u64(done, len);
        offset += done;
        len -= done;
    }
    return 0;
}

/* Subclusters of one cluster: bits are set, nothing moves. False: it has to be written. */
static int zero_subclusters(struct qcow2 *q, uint64_t offset, uint64_t len, bool *done)
{
    struct qcow2_entry v;
    uint64_t in = offset & (q->cluster - 1), at = offset - in, part = len;
    *done = false;
    int rc = qcow2_lock_update(q);
    if (rc)
        return rc;
    while (qcow2_wait_inflight(q, at, &part))
        part = len;
    rc = qcow2_entry_get(q, at, &v);
    if (!rc && !(v.e & QCOW2_COMPRESSED)) {
        uint64_t m = ((1ull << (len >> q->sub_bits)) - 1) << (in >> q->sub_bits);
        v.bits = (v.bits & ~m) | m << 32;
        rc = qcow2_table_own(q, at);
        if (!rc)
            rc = qcow2_entry_set(q, at, v);
        *done = true;
    }
    pthread_mutex_unlock(&q->meta);
    return rc;
}

/* Bytes of one cluster. */
static int zero_part(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    uint64_t sub = 1ull << q->sub_bits, end = offset + len;
    uint64_t a = (offset + sub - 1) & ~(sub - 1), b = end & ~(sub - 1);
    bool done = false;
    if (!q->ext_l2 || a >= b)
        return qcow2_write_zero_bytes(q, offset, len);
    int rc = zero_subclusters(q, a, b - a, &done);
    if (rc || !done)
        return rc ? rc : qcow2_write_zero_bytes(q, offset, len);
    rc = qcow2_write_zero_bytes(q, offset, a - offset);
    return rc ? rc : qcow2_write_zero_bytes(q, b, end - b);
}

/* Whole clusters; the last one may end with the disk. */
static int zero_whole(struct qcow2 *q, uint64_t offset, uint64_t len, unsigned flags)
{
    if (q->version >= 3)
        return change_clusters(q, offset, len, flags & NODE_MAY_UNMAP ? ZERO_UNMAP : ZERO_KEEP);
    uint64_t below = q->node.backing ? node_size(q->node.backing) : 0;
    uint64_t edge = min_u64(max_u64((below + q->cluster - 1) & ~(q->cluster - 1), offset),
                            offset + len); /* from there on no entry means zeroes */
    int rc = qcow2_write_zero_bytes(q, offset, edge - offset);
    if (rc || edge == offset + len)
        return rc;
    if (flags & NODE_MAY_UNMAP)
        return change_clusters(q, edge, offset + len - edge, ZERO_UNMAP);
    return qcow2_write_zero_bytes(q, edge, offset + len - edge);
}

int qcow2_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct qcow2 *q = qcow2_of(n);
    uint64_t end = offset + len, mask = q->cluster - 1;
    int rc = qcow2_begin(q);
    if (rc)
        return rc;
    if (q->raw_data) { /* "consistent standalone": the zeroes have to be in the data file */
        rc = node_zero(q->data, offset, len, flags & ~NODE_FUA);
        return rc || !(flags & NODE_FUA) ? rc : qcow2_flush(n);
    }
    uint64_t a = (offset + mask) & ~mask, b = end == node_size(n) ? end : end & ~mask;
    if (a >= b && !(offset == a && end == b)) {
        uint64_t cut = min_u64(end, a); /* at most one bound within it */
        rc = zero_part(q, offset, cut - offset);
        if (!rc && cut < end)
            rc = zero_part(q, cut, end - cut);
    } else {
        rc = a > offset ? zero_part(q, offset, a - offset) : 0;
        if (!rc && b > a)
            rc = zero_whole(q, a, b - a, flags);
        if (!rc && end > b)
            rc = zero_part(q, b, end - b);
    }
    return rc || !(flags & NODE_FUA) ? rc : qcow2_flush(n);
}

int qcow2_discard(struct node *n, uint64_t offset, uint64_t len)
{
    struct qcow2 *q = qcow2_of(n);
    uint64_t end = offset + len, mask = q->cluster - 1;
    uint64_t a = (offset + mask) & ~mask, b = end == node_size(n) ? end : end & ~mask;
    int rc = qcow2_begin(q);
    if (rc)
        return rc;
    if (q->raw_data)
        return node_zero(q->data, offset, len, NODE_MAY_UNMAP);
    if (a >= b)
        return 0;
    rc = change_clusters(q, a, b - a, DISCARD);
    if (!rc && qcow2_external(q))
        node_discard(q->data, a, b - a); /* a hint, like the whole */
    return rc;
}

int qcow2_unmap(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    return change_clusters(q, offset, len, FORGET);
}
