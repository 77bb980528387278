/*
 * qcow2_count.c - counting what refers to each cluster of the file: the header, tables, entries.
 *
 * Time and memory are bounded by what the file holds: an L2 table is walked once however many L1
 * tables refer to it, and its references count as often.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "block/format/qcow2_int.h"

#define PAGE_BITS    12           /* log2 of the counts of a page */
#define MAX_CLUSTERS (1ull << 32) /* of a file that can be checked: 256 TiB of 64 KiB clusters */
#define MAX_L2       (1ull << 24) /* L1 entries of all snapshots together */
#define MAX_BITMAPS  65535        /* QEMU's limit */

void qcow2_count_error(struct qcow2_count *c, bool fixed, const char *fmt, ...)
{
    char line[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    c->out->errors++;
    c->out->errors_fixed += fixed;
    if (c->out->say)
        c->out->say(c->out->ctx, line);
}

uint32_t qcow2_count_of(const struct qcow2_count *c, uint64_t cluster)
{
    uint32_t *page = cluster < c->clusters ? c->page[cluster >> PAGE_BITS] : NULL;
    return page ? page[cluster & ((1u << PAGE_BITS) - 1)] : 0;
}

bool qcow2_count_any(const struct qcow2_count *c, uint64_t first, uint64_t last)
{
    if (first >= c->clusters)
        return false;
    for (uint64_t i = first >> PAGE_BITS; i <= min_u64(last, c->clusters - 1) >> PAGE_BITS; i++)
        if (c->page[i])
            return true;
    return false;
}

int qcow2_count_add(struct qcow2_count *c, uint64_t cluster, uint32_t n)
{
    uint32_t **page = &c->page[cluster >> PAGE_BITS];
    if (cluster >= c->clusters)
        return -ERANGE;
    if (!*page && !(*page = calloc(1u << PAGE_BITS, sizeof **page)))
        return -ENOMEM;
    uint32_t *v = &(*page)[cluster & ((1u << PAGE_BITS) - 1)];
    if (__builtin_add_overflow(*v, n, v))
        *v = UINT32_MAX;
    return 0;
}

void qcow2_count_free(struct qcow2_count *c)
{
    for (uint64_t i = 0; c->page && i <= c->clusters >> PAGE_BITS; i++)
        free(c->page[i]);
    free(c->page);
    free(c->l2);
}

/* Counts all clusters of [offset, offset + len); -ERANGE: not all are in the file. */
static int add_range(struct qcow2_count *c, uint64_t offset, uint64_t len, uint32_t n)
{
    unsigned bits = c->q->cluster_bits;
    if (len == 0)
        return 0;
    if (!range_within(offset, len, c->clusters << bits))
        return -ERANGE;
    c->out->end = max_u64(c->out->end, offset + len);
    for (uint64_t i = offset >> bits; i <= (offset + len - 1) >> bits; i++) {
        int rc = qcow2_count_add(c, i, n);
        if (rc)
            return rc;
    }
    return 0;
}

/* A table of the header; out of place is an error that cannot be put right. */
static int add_table(struct qcow2_count *c, const char *what, uint64_t offset, uint64_t len)
{
    int rc = offset & (c->q->cluster - 1) ? -ERANGE : add_range(c, offset, len, 1);
    if (rc == -ERANGE)
        qcow2_count_error(c, false, "the %s at offset %#llx is out of place", what,
                          (unsigned long long)offset);
    return rc == -ERANGE ? 0 : rc;
}

static int remember_l2(struct qcow2_count *c, uint64_t offset)
{
    if (c->nl2 == c->max_l2) {
        uint64_t max = c->max_l2 ? c->max_l2 * 2 : 1024;
        if (max > MAX_L2)
            return -EFBIG;
        uint64_t *p = realloc(c->l2, max * sizeof *p);
        if (!p)
            return -ENOMEM;
        c->l2 = p;
        c->max_l2 = max;
    }
    c->l2[c->nl2++] = offset;
    return 0;
}

/* An L1 entry; *bad: it refers to no possible place. */
static int add_l1_entry(struct qcow2_count *c, uint64_t entry, bool *bad)
{
    uint64_t at = entry & QCOW2_OFFSET;
    *bad = (at & (c->q->cluster - 1)) ||
           !range_within(at, c->q->cluster, c->clusters << c->q->cluster_bits);
    if (!at || *bad)
        return 0;
    int rc = add_range(c, at, c->q->cluster, 1);
    return rc ? rc : remember_l2(c, at);
}

static int count_active_l1(struct qcow2_count *c)
{
    struct qcow2 *q = c->q;
    int rc = add_table(c, "L1 table", q->l1_offset, q->l1_size * 8ull);
    for (uint32_t i = 0; !rc && i < q->l1_size; i++) {
        bool bad, fix = c->fix & FORMAT_FIX_ERRORS;
        rc = add_l1_entry(c, q->l1[i], &bad);
        if (rc || !bad)
            continue;
        qcow2_count_error(c, fix, "L1 entry %u refers to an impossible place (%#llx)%s", i,
                          (unsigned long long)q->l1[i], fix ? ": cleared" : "");
        uint64_t none = 0;
        if (fix)
            rc = qcow2_write_table(q, &none, 1, q->l1_offset + i * 8ull);
        if (fix && !rc)
            q->l1[i] = 0;
    }
    return rc;
}

static int count_snapshot_l1(struct qcow2_count *c, const struct qcow2_snapshot *s)
{
    uint64_t first = s->l1_offset >> c->q->cluster_bits;
    if (s->l1_size == 0)
        return 0;
    if (qcow2_count_of(c, first)) { /* no honest table overlaps another: it is walked only once */
        qcow2_count_error(c, false, "the L1 table of snapshot '%s' overlaps something else",
                          s->name);
        return add_table(c, "L1 table of a snapshot", s->l1_offset, s->l1_size * 8ull);
    }
    int rc = add_table(c, "L1 table of a snapshot", s->l1_offset, s->l1_size * 8ull);
    uint64_t *l1 = malloc(s->l1_size * 8ull);
    if (!rc)
        rc = l1 ? node_read(c->q->file, l1, s->l1_size * 8ull, s->l1_offset) : -ENOMEM;
    for (uint32_t i = 0; !rc && i < s->l1_size; i++) {
        bool bad;
        rc = add_l1_entry(c, be64toh(l1[i]), &bad);
        if (!rc && bad)
            qcow2_count_error(c, false, "snapshot '%s': L1 entry %u refers to an impossible place",
                              s->name, i);
    }
    free(l1);
    return rc;
}

/* The bitmap's table: places of its clusters. */
static int count_bitmap(struct qcow2_count *c, uint64_t table, uint32_t entries)
{
    int rc = entries * 8ull > QCOW2_MAX_L1 ? -ERANGE : 0;
    if (!rc)
        rc = add_table(c, "table of a bitmap", table, entries * 8ull);
    for (uint32_t i = 0; !rc && i < entries; i++) {
        uint8_t b[8];
        rc = node_read(c->q->file, b, sizeof b, table + i * 8ull);
        uint64_t at = load_be64(b) & QCOW2_OFFSET;
        if (!rc && at)
            rc = add_range(c, at, c->q->cluster, 1);
    }
    return rc;
}

static int count_bitmaps(struct qcow2_count *c)
{
    struct qcow2 *q = c->q;
    if (!q->bitmaps_offset || !(q->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
        return 0;
    int rc = q->bitmaps_size > QCOW2_MAX_SNAP_TABLE || q->nbitmaps > MAX_BITMAPS ? -ERANGE : 0;
    if (!rc)
        rc = add_table(c, "bitmap directory", q->bitmaps_offset, q->bitmaps_size);
    uint64_t at = q->bitmaps_offset, end = at + q->bitmaps_size;
    for (uint32_t i = 0; !rc && i < q->nbitmaps; i++) {
        uint8_t h[24];
        if (at + sizeof h > end)
            rc = -ERANGE;
        if (!rc)
            rc = node_read(q->file, h, sizeof h, at);
        if (!rc)
            rc = count_bitmap(c, load_be64(h), load_be32(h + 8));
        at += (24ull + load_be16(h + 18) + load_be32(h + 20) + 7) & ~7ull;
    }
    if (rc == -ERANGE)
        qcow2_count_error(c, false, "the bitmaps are damaged");
    return rc == -ERANGE ? 0 : rc;
}

static int count_refcounts(struct qcow2_count *c)
{
    struct qcow2 *q = c->q;
    uint64_t before = c->out->errors;
    int rc =
        add_table(c, "refcount table", q->rt_offset, (uint64_t)q->rt_clusters << q->cluster_bits);
    for (uint64_t i = 0; !rc && i < q->rt_entries; i++) {
        uint64_t at = q->rt[i] & QCOW2_RT_OFFSET;
        if (!at)
            continue;
        rc = at & (q->cluster - 1) ? -ERANGE : add_range(c, at, q->cluster, 1);
        if (rc == -ERANGE) {
            qcow2_count_error(c, c->fix & FORMAT_FIX_ERRORS, "refcount block %llu is out of place",
                              (unsigned long long)i);
            rc = 0;
        } else if (!rc && qcow2_count_of(c, at >> q->cluster_bits) > 1) {
            qcow2_count_error(c, c->fix & FORMAT_FIX_ERRORS,
                              "refcount block %llu overlaps something else", (unsigned long long)i);
        }
    }
    c->rebuild = c->out->errors > before || q->rt_clusters == 0;
    return rc;
}

/* One entry of an L2 table, which is referred to `n` times. *bad: it refers to nothing possible. */
static int count_entry(struct qcow2_count *c, uint64_t e, uint64_t bits, uint32_t n, bool *bad)
{
    struct qcow2 *q = c->q;
    uint64_t at = e & QCOW2_OFFSET, len = q->cluster;
    *bad = true;
    if (e & QCOW2_COMPRESSED) {
        qcow2_packed_place(q, e, &at, &len);
        if (qcow2_external(q))
            return 0;
        at &= ~511ull; /* whole sectors, as far as there are whole sectors in the file */
        len = (len + 511) & ~511ull;
        c->out->compressed += n;
    } else {
        if ((at & (q->cluster - 1)) ||
            (!at && !(qcow2_external(q) && (e & QCOW2_COPIED)) && (bits & 0xffffffff)) ||
            (bits & bits >> 32 & 0xffffffff))
            return 0;
        *bad = false;
        if (!at || qcow2_external(q))
            return 0;
        *bad = true;
    }
    int rc = add_range(c, at, len, n);
    *bad = rc == -ERANGE;
    return *bad ? 0 : rc;
}

static int fix_entry(struct qcow2 *q, uint8_t *p, uint64_t where)
{
    memset(p, 0, q->entry_size);
    if (q->version >= 3 && q->ext_l2)
        store_be64(p + 8, 0xffffffffull << 32);
    else if (q->version >= 3)
        store_be64(p, QCOW2_ZERO);
    return node_write(q->file, p, q->entry_size, where, 0);
}

static int count_l2(struct qcow2_count *c, uint64_t at, uint32_t n, uint8_t *table)
{
    struct qcow2 *q = c->q;
    int rc = node_read(q->file, table, q->cluster, at);
    bool fix = c->fix & FORMAT_FIX_ERRORS, bad;
    for (uint64_t i = 0; !rc && i < 1ull << q->l2_bits; i++) {
        uint8_t *p = table + i * q->entry_size;
        uint64_t e = load_be64(p), bits = q->ext_l2 ? load_be64(p + 8) : 0;
        if (!e && !bits)
            continue;
        rc = count_entry(c, e, e & QCOW2_COMPRESSED ? 0 : bits, n, &bad);
        if (rc || !bad)
            continue;
        qcow2_count_error(c, fix,
                          "L2 table %#llx, entry %llu refers to an impossible place "
                          "(%#llx)%s",
                          (unsigned long long)at, (unsigned long long)i, (unsigned long long)e,
                          fix ? ": made zeroes" : "");
        if (fix)
            rc = fix_entry(q, p, at + i * q->entry_size);
    }
    return rc;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int count_l2s(struct qcow2_count *c)
{
    uint8_t *table = malloc(c->q->cluster);
    int rc = table ? 0 : -ENOMEM;
    if (c->nl2)
        qsort(c->l2, c->nl2, sizeof *c->l2, by_value);
    for (uint64_t i = 0, n; !rc && i < c->nl2; i += n) {
        for (n = 1; i + n < c->nl2 && c->l2[i + n] == c->l2[i]; n++)
            continue;
        rc = count_l2(c, c->l2[i], (uint32_t)n, table);
        if (c->out->progress)
            c->out->progress(c->out->ctx, i, c->nl2);
    }
    free(table);
    return rc;
}

int qcow2_count_all(struct qcow2_count *c)
{
    struct qcow2 *q = c->q;
    c->clusters = qcow2_clusters(q, node_size(q->file));
    if (c->clusters > MAX_CLUSTERS)
        return -EFBIG;
    c->page = calloc((c->clusters >> PAGE_BITS) + 1, sizeof *c->page);
    if (!c->page)
        return -ENOMEM;
    int rc = add_range(c, 0, q->cluster, 1);
    if (!rc)
        rc = count_active_l1(c);
    if (!rc && q->nsnap)
        rc = add_table(c, "snapshot table", q->snap_offset, q->snap_bytes);
    for (uint32_t i = 0; !rc && i < q->nsnap; i++)
        rc = count_snapshot_l1(c, &q->snap[i]);
    if (!rc)
        rc = count_bitmaps(c);
    if (!rc)
        rc = count_l2s(c);
    return rc || c->rebuild ? rc : count_refcounts(c);
}
