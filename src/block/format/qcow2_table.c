/*
 * qcow2_table.c - changing L2 tables: making them, copying those that a snapshot shares, setting
 * entries. All under `meta`; in memory only, but for the first contents of a new table.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/format/qcow2_int.h"

#define COPY_CHUNK (64 * KIB)

static uint64_t l1_index(const struct qcow2 *q, uint64_t offset)
{
    return offset >> (q->cluster_bits + q->l2_bits);
}

/* The slice and the entry within it. The table is there. */
static int slice_of(struct qcow2 *q, uint64_t offset, struct qcow2_slot **s, uint8_t **entry)
{
    uint64_t table = q->l1[l1_index(q, offset)] & QCOW2_OFFSET;
    uint64_t i = offset >> q->cluster_bits & ((1ull << q->l2_bits) - 1);
    int rc = qcow2_cache_get(q, &q->l2, table + (i >> q->slice_bits) * q->slice, s);
    if (!rc)
        *entry = (*s)->data + (i & ((1ull << q->slice_bits) - 1)) * q->entry_size;
    return rc;
}

int qcow2_entry_get(struct qcow2 *q, uint64_t offset, struct qcow2_entry *out)
{
    struct qcow2_slot *s;
    uint8_t *p;
    *out = (struct qcow2_entry){0, 0};
    uint64_t i = l1_index(q, offset), table = i < q->l1_size ? q->l1[i] & QCOW2_OFFSET : 0;
    if (table & (q->cluster - 1))
        return -EIO;
    if (!table)
        return 0;
    int rc = slice_of(q, offset, &s, &p);
    if (rc)
        return rc;
    out->e = load_be64(p);
    out->bits = q->ext_l2 ? load_be64(p + 8) : 0;
    return 0;
}

/* A shared table is never changed, so the file has all of it. */
static int copy_table(struct qcow2 *q, uint64_t from, uint64_t to)
{
    uint64_t chunk = min_u64(q->cluster, COPY_CHUNK);
    void *buf = malloc(chunk);
    int rc = buf ? 0 : -ENOMEM;
    for (uint64_t done = 0; !rc && done < q->cluster; done += chunk) {
        rc = node_read(q->file, buf, chunk, from + done);
        if (!rc)
            rc = node_write(q->file, buf, chunk, to + done, 0);
    }
    free(buf);
    return rc;
}

static int remember_fix(struct qcow2 *q)
{
    if (q->nl1_fix < q->max_l1_fix)
        return 0;
    unsigned max = q->max_l1_fix ? q->max_l1_fix * 2 : 16;
    struct qcow2_l1_fix *p = realloc(q->l1_fix, max * sizeof *p);
    if (!p)
        return -ENOMEM;
    q->l1_fix = p;
    q->max_l1_fix = max;
    return 0;
}

int qcow2_table_own(struct qcow2 *q, uint64_t offset)
{
    uint64_t i = l1_index(q, offset), at = 0;
    bool fresh = false;
    if (i >= q->l1_size)
        return -EIO;
    uint64_t old = q->l1[i] & QCOW2_OFFSET;
    if (old & (q->cluster - 1))
        return qcow2_corrupt(q, "an L2 table is not at the beginning of a cluster", old);
    if (old && old + q->slice > q->file_end)
        return qcow2_corrupt(q, "an L2 table lies beyond the end of the file", old);
    if (old && (q->l1[i] & QCOW2_COPIED))
        return 0;
    int rc = remember_fix(q);
    if (!rc)
        rc = qcow2_alloc(q, 1, &at, &fresh);
    if (rc)
        return rc;
    qcow2_cache_drop(q, &q->l2, at, q->cluster);
    rc = old ? copy_table(q, old, at) : node_zero(q->file, at, q->cluster, 0);
    if (!rc)
        rc = qcow2_guard_add(q, at >> q->cluster_bits);
    if (rc) {
        qcow2_free_now(q, at, q->cluster);
        return rc;
    }
    pthread_mutex_lock(&q->map);
    q->l1[i] = at | QCOW2_COPIED;
    pthread_mutex_unlock(&q->map);
    q->l1_fix[q->nl1_fix++] = (struct qcow2_l1_fix){(uint32_t)i, 0};
    if (old)
        qcow2_free_later(q, old, q->cluster);
    return 0;
}

/* Gives back what an entry referred to, unless it stays where it is. */
static void drop_old(struct qcow2 *q, const struct qcow2_entry *old, const struct qcow2_entry *new)
{
    uint64_t at, len;
    if (qcow2_external(q))
        return;
    if (old->e & QCOW2_COMPRESSED) {
        qcow2_packed_place(q, old->e, &at, &len);
        qcow2_free_later(q, at, len);
    } else if ((old->e & QCOW2_OFFSET) &&
               ((new->e &QCOW2_COMPRESSED) || (old->e & QCOW2_OFFSET) != (new->e &QCOW2_OFFSET))) {
        qcow2_free_later(q, old->e & QCOW2_OFFSET, q->cluster);
    }
}

int qcow2_entry_set(struct qcow2 *q, uint64_t offset, struct qcow2_entry v)
{
    struct qcow2_slot *s;
    uint8_t *p;
    int rc = slice_of(q, offset, &s, &p);
    if (rc)
        return rc;
    struct qcow2_entry old = {load_be64(p), q->ext_l2 ? load_be64(p + 8) : 0};
    if (old.e == v.e && old.bits == v.bits)
        return 0;
    pthread_mutex_lock(&q->map);
    store_be64(p, v.e);
    if (q->ext_l2)
        store_be64(p + 8, v.bits);
    pthread_mutex_unlock(&q->map);
    qcow2_cache_dirty(&q->l2, s);
    drop_old(q, &old, &v);
    return 0;
}
