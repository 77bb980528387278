/*
 * qcow2_check.c - comparing refcounts with what refers to the clusters, and putting them right.
 *
 * A refcount that is too high is a leak; one that is too low, a flag "refcount is exactly one" that
 * is wrong, and whatever refers to an impossible place are errors.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/format/qcow2_int.h"

#define PAGE 4096 /* clusters that are skipped at once where there are no counts */

static void leak(struct qcow2_count *c, bool fixed)
{
    c->out->leaks++;
    c->out->leaks_fixed += fixed;
}

/* One cluster's refcount and what it should be. */
static int compare(struct qcow2_count *c, uint64_t cluster, bool has_block)
{
    uint64_t have = 0, want = qcow2_count_of(c, cluster);
    int rc = qcow2_refcount_get(c->q, cluster, &have);
    if (rc || have == want)
        return rc;
    bool low = have < want;
    bool fix = c->fix & (low ? FORMAT_FIX_ERRORS : FORMAT_FIX_LEAKS);
    if (low && want > c->q->refcount_max)
        fix = false; /* the width does not allow for it */
    if (low)
        qcow2_count_error(c, fix, "cluster %llu is referred to %llu times, its refcount is %llu%s",
                          (unsigned long long)cluster, (unsigned long long)want,
                          (unsigned long long)have, fix ? ": put right" : "");
    else
        leak(c, fix);
    if (fix && !has_block)
        c->rebuild = true;
    return fix && has_block ? qcow2_refcount_set(c->q, cluster, want) : 0;
}

/* How many clusters from `i` on have neither a refcount nor anything that refers to them, as far as
 * that is told at once; 0: look at each. */
static int nothing_there(struct qcow2_count *c, uint64_t i, bool has_block, uint64_t *n)
{
    struct qcow2 *q = c->q;
    int rc = 0;
    *n = 0;
    if (has_block) {
        rc = qcow2_refcount_none(q, i, n);
    } else {
        uint64_t block_end = ((i >> q->block_bits) + 1) << q->block_bits;
        *n = i < c->clusters ? min_u64(block_end - i, PAGE - i % PAGE) : block_end - i;
    }
    if (*n && qcow2_count_any(c, i, i + *n - 1))
        *n = 0;
    return rc;
}

static int compare_all(struct qcow2_count *c)
{
    struct qcow2 *q = c->q;
    uint64_t end = max_u64(c->clusters, q->rt_entries << q->block_bits);
    for (uint64_t i = 0, n; i < end; i += n ? n : 1) {
        uint64_t r = i >> q->block_bits;
        bool has_block = r < q->rt_entries && (q->rt[r] & QCOW2_RT_OFFSET);
        int rc = nothing_there(c, i, has_block, &n);
        if (!rc && !n)
            rc = compare(c, i, has_block);
        if (rc)
            return rc;
    }
    return 0;
}

/* The flag of one entry; *fix_it: `e` was changed. */
static int check_flag(struct qcow2_count *c, uint64_t *e, uint64_t mask, const char *what,
                      bool *fix_it)
{
    uint64_t at = *e & mask, v = 0;
    *fix_it = false;
    if (at & (c->q->cluster - 1))
        return 0; /* reported before */
    int rc = qcow2_refcount_get(c->q, at >> c->q->cluster_bits, &v);
    if (rc || (v == 1) == !!(*e & QCOW2_COPIED))
        return rc;
    *fix_it = c->fix & FORMAT_FIX_ERRORS;
    qcow2_count_error(c, *fix_it, "%s at %#llx: flag %d, refcount %llu%s", what,
                      (unsigned long long)at, !!(*e & QCOW2_COPIED), (unsigned long long)v,
                      *fix_it ? ": put right" : "");
    if (*fix_it)
        *e ^= QCOW2_COPIED;
    return 0;
}

static int check_l2_flags(struct qcow2_count *c, uint64_t at, uint8_t *table)
{
    struct qcow2 *q = c->q;
    int rc = node_read(q->file, table, q->cluster, at);
    for (uint64_t i = 0; !rc && i < 1ull << q->l2_bits; i++) {
        uint8_t *p = table + i * q->entry_size;
        uint64_t e = load_be64(p);
        bool fix;
        if (!e)
            continue;
        c->out->allocated += e & (QCOW2_COMPRESSED | QCOW2_OFFSET) ? 1 : 0;
        if ((e & QCOW2_COMPRESSED) && (e & QCOW2_COPIED))
            qcow2_count_error(c, false, "compressed cluster with a flag in table %#llx",
                              (unsigned long long)at);
        if ((e & QCOW2_COMPRESSED) || !(e & QCOW2_OFFSET) || qcow2_external(q))
            continue;
        rc = check_flag(c, &e, QCOW2_OFFSET, "cluster", &fix);
        store_be64(p, e);
        if (!rc && fix)
            rc = node_write(q->file, p, 8, at + i * q->entry_size, 0);
    }
    return rc;
}

static int check_flags(struct qcow2_count *c)
{
    struct qcow2 *q = c->q;
    uint8_t *table = malloc(q->cluster);
    int rc = table ? 0 : -ENOMEM;
    for (uint32_t i = 0; !rc && i < q->l1_size; i++) {
        uint64_t e = q->l1[i], at = e & QCOW2_OFFSET;
        bool fix;
        if (!at || (at & (q->cluster - 1)))
            continue;
        rc = check_flag(c, &e, QCOW2_OFFSET, "L2 table", &fix);
        if (!rc && fix) {
            rc = qcow2_write_table(q, &e, 1, q->l1_offset + i * 8ull);
            q->l1[i] = e;
        }
        /* A table that is referred to twice is walked once: the rest would be the same. */
        if (!rc && qcow2_count_of(c, at >> q->cluster_bits) <= 1 + q->nsnap)
            rc = check_l2_flags(c, at, table);
    }
    free(table);
    return rc;
}

/* Everything is right again: the header says so. */
static int clear_marks(struct qcow2 *q)
{
    uint64_t marks = QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_DIRTY;
    if (!(q->incompat & marks))
        return 0;
    q->incompat &= ~marks;
    return qcow2_header_features(q);
}

static int check_locked(struct qcow2_count *c)
{
    struct qcow2 *q = c->q;
    int rc = qcow2_count_all(c);
    if (!rc && !c->rebuild) /* else one block may stand for many */
        rc = compare_all(c);
    if (!rc && c->fix)
        rc = qcow2_cache_write(q, &q->blocks);
    if (!rc && c->fix)
        rc = node_flush(q->file);
    if (!rc && c->rebuild && (c->fix & FORMAT_FIX_ERRORS))
        rc = qcow2_rebuild(c);
    if (!rc && (!c->rebuild || (c->fix & FORMAT_FIX_ERRORS)))
        rc = check_flags(c);
    if (!rc && c->fix)
        rc = node_flush(q->file);
    bool right = c->out->errors == c->out->errors_fixed;
    if (!rc && (c->fix & FORMAT_FIX_ERRORS) && right)
        rc = clear_marks(q);
    return rc;
}

/* The refcounts may be in other places now, and what was metadata may be free. */
static int renew_guard(struct qcow2 *q)
{
    pthread_mutex_lock(&q->map);
    qcow2_guard_free(q);
    pthread_mutex_unlock(&q->map);
    return qcow2_guard_init(q);
}

int qcow2_check(struct node *n, unsigned fix, struct format_check *out, struct error *e)
{
    struct qcow2 *q = qcow2_of(n);
    struct qcow2_count c = {.q = q, .out = out, .fix = fix};
    if (fix && n->readonly)
        return error_set(e, ERR_STATE, "an image that is opened for reading cannot be repaired");
    int rc = !n->readonly && atomic_load(&q->ready) ? qcow2_settle(q) : 0;
    pthread_mutex_lock(&q->meta);
    if (!rc)
        rc = check_locked(&c);
    qcow2_cache_drop_all(q, &q->l2);
    if (!rc && fix && q->guard.set)
        rc = renew_guard(q);
    out->total = qcow2_clusters(q, n->size);
    pthread_mutex_unlock(&q->meta);
    qcow2_count_free(&c);
    if (rc == -EFBIG)
        return error_set(e, ERR_LIMIT, "the image is too large to be checked");
    return rc ? error_errno(e, ERR_IO, -rc, "the check could not be finished") : 0;
}
