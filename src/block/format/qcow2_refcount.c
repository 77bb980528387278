/*
 * qcow2_refcount.c - refcounts of the image file's clusters; taking and giving back clusters.
 *
 * 1. A refcount in memory is never lower than what is referred to by anything that is, or may
 *    become, durable. So refcount blocks may be written at any time.
 * 2. A new block is whole in the file before the table entry that refers to it: entries changed are
 *    [rt_first, rt_last) until a flush has written them.
 * 3. The table grows by a copy that is durable before the header refers to it; the clusters for the
 *    copy come from beyond what the old one covers, where nothing can be in use.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/format/qcow2_int.h"

/* Clusters beyond the file's end that may have a refcount, left from a crash; more is damage, and
 * looking through it could take for ever. */
#define MAX_BEYOND (1ull << 22)

static uint64_t block_of(const struct qcow2 *q, uint64_t index)
{
    return q->rt[index] & QCOW2_RT_OFFSET;
}

uint64_t qcow2_refcount_load(const struct qcow2 *q, const uint8_t *block, uint64_t i)
{
    switch (q->order) {
    case 3:
        return block[i];
    case 4:
        return load_be16(block + 2 * i);
    case 5:
        return load_be32(block + 4 * i);
    case 6:
        return load_be64(block + 8 * i);
    default: { /* entries of less than a byte begin at its least significant bit */
        unsigned per = 8u >> q->order;
        return block[i / per] >> (i % per << q->order) & ((1u << (1u << q->order)) - 1);
    }
    }
}

void qcow2_refcount_store(const struct qcow2 *q, uint8_t *block, uint64_t i, uint64_t value)
{
    switch (q->order) {
    case 3:
        block[i] = (uint8_t)value;
        break;
    case 4:
        store_be16(block + 2 * i, (uint16_t)value);
        break;
    case 5:
        store_be32(block + 4 * i, (uint32_t)value);
        break;
    case 6:
        store_be64(block + 8 * i, value);
        break;
    default: {
        unsigned per = 8u >> q->order, shift = (unsigned)(i % per) << q->order;
        unsigned mask = ((1u << (1u << q->order)) - 1) << shift;
        block[i / per] = (uint8_t)((block[i / per] & ~mask) | (unsigned)value << shift);
    }
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* For writing every block must be in its own place: a block twice would count each of its clusters
 * for several others. */
static int check_blocks(const struct qcow2 *q, struct error *e)
{
    uint64_t *sorted = malloc(q->rt_entries * sizeof *sorted + 1), n = 0;
    if (!sorted)
        return error_set(e, ERR_NOMEM, "out of memory");
    const char *wrong = NULL;
    for (uint64_t i = 0; i < q->rt_entries; i++) {
        uint64_t at = block_of(q, i);
        if (at && ((at & (q->cluster - 1)) || at > QCOW2_MAX_END || at + q->slice > q->file_end))
            wrong = "is out of place";
        if (at)
            sorted[n++] = at;
    }
    qsort(sorted, n, sizeof *sorted, by_value);
    for (uint64_t i = 1; i < n; i++)
        if (sorted[i] == sorted[i - 1])
            wrong = "is used twice";
    free(sorted);
    return wrong ? error_set(e, ERR_FORMAT,
                             "a refcount block %s: the image is damaged; repair it with: "
                             "sosia disk repair",
                             wrong)
                 : 0;
}

int qcow2_refcount_init(struct qcow2 *q, struct error *e)
{
    uint64_t bytes = (uint64_t)q->rt_clusters << q->cluster_bits;
    q->rt_entries = bytes / 8;
    q->rt = malloc(bytes + 1);
    if (!q->rt)
        return error_set(e, ERR_NOMEM, "out of memory");
    int rc = bytes ? node_read(q->file, q->rt, bytes, q->rt_offset) : 0;
    if (rc && !q->check)
        return error_errno(e, ERR_IO, -rc, "cannot read the refcount table");
    for (uint64_t i = 0; i < q->rt_entries; i++)
        q->rt[i] = rc ? 0 : be64toh(q->rt[i]);
    rc = qcow2_cache_init(&q->blocks, QCOW2_REFCOUNT_CACHE, q->slice, true);
    if (rc)
        return error_set(e, ERR_NOMEM, "out of memory");
    return q->check || q->node.readonly ? 0 : check_blocks(q, e);
}

/* The slice with the refcount of a cluster, and its index there; NULL: there is no block. */
static int find(struct qcow2 *q, uint64_t cluster, struct qcow2_slot **slot, uint64_t *index)
{
    uint64_t r = cluster >> q->block_bits, in = cluster & ((1ull << q->block_bits) - 1);
    unsigned per_slice = (unsigned)__builtin_ctz(q->slice) + 3 - q->order;
    *slot = NULL;
    if (r >= q->rt_entries || !block_of(q, r))
        return 0;
    uint64_t block = block_of(q, r);
    if ((block & (q->cluster - 1)) || block > QCOW2_MAX_END)
        return qcow2_corrupt(q, "a refcount block is not at the beginning of a cluster", block);
    *index = in & ((1ull << per_slice) - 1);
    return qcow2_cache_get(q, &q->blocks, block + (in >> per_slice) * q->slice, slot);
}

int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *value)
{
    struct qcow2_slot *s;
    uint64_t i;
    int rc = find(q, cluster, &s, &i);
    *value = !rc && s ? qcow2_refcount_load(q, s->data, i) : 0;
    return rc;
}

int qcow2_refcount_none(struct qcow2 *q, uint64_t cluster, uint64_t *n)
{
    struct qcow2_slot *s;
    uint64_t i;
    int rc = find(q, cluster, &s, &i);
    *n = 0;
    if (rc || !s || (i << q->order) % 64)
        return rc;
    uint64_t from = i << q->order >> 3, end = i ? from + 8 : q->slice, at = from;
    while (at < end && !load_le64(s->data + at))
        at += 8;
    *n = (at - from) * 8 >> q->order;
    return 0;
}

int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value)
{
    struct qcow2_slot *s;
    uint64_t i;
    int rc = find(q, cluster, &s, &i);
    if (rc)
        return rc;
    if (!s || value > q->refcount_max)
        return -EIO;
    qcow2_refcount_store(q, s->data, i, value);
    qcow2_cache_dirty(&q->blocks, s);
    return 0;
}

int qcow2_write_table(struct qcow2 *q, const uint64_t *table, uint64_t n, uint64_t offset)
{
    uint64_t buf[512];
    for (uint64_t done = 0; done < n;) {
        uint64_t k = min_u64(n - done, ARRAY_LEN(buf));
        for (uint64_t i = 0; i < k; i++)
            buf[i] = htobe64(table[done + i]);
        int rc = node_write(q->file, buf, k * 8, offset + done * 8, 0);
        if (rc)
            return rc;
        done += k;
    }
    return 0;
}

/* The first free run at or after the hint: of `want` clusters, or of fewer unless `exact`. */
static int find_free(struct qcow2 *q, uint64_t want, bool exact, uint64_t *first, uint64_t *n)
{
    uint64_t limit = (q->file_end >> q->cluster_bits) + MAX_BEYOND + want;
    uint64_t run = 0, c = q->free_hint;
    bool leading = true; /* all from the hint on are in use */
    for (; run < want; c++) {
        uint64_t v = 0;
        int rc = qcow2_refcount_get(q, c, &v);
        if (rc)
            return rc;
        if (v == 0) {
            run++;
            leading = false;
            continue;
        }
        if (leading)
            q->free_hint = c + 1;
        if (run && !exact)
            break;
        run = 0;
        if (c > limit)
            return qcow2_corrupt(q, "far too many clusters are in use", c << q->cluster_bits);
    }
    *first = c - run;
    *n = run;
    return 0;
}

/* A table that is being grown: where it, and the blocks that count it, come to lie. */
struct growth {
    uint64_t start;  /* cluster */
    uint64_t tables; /* clusters of the table */
    uint64_t blocks; /* that follow it */
    uint64_t first;  /* entry of the first of them */
    uint64_t n;      /* entries of the table */
    uint64_t *table;
};

static int plan_growth(struct qcow2 *q, uint64_t upto, struct growth *g)
{
    *g = (struct growth){.tables = max_u64(q->rt_clusters * 2ull, 1), .blocks = 1};
    g->start = max_u64(q->rt_entries << q->block_bits, qcow2_clusters(q, q->file_end));
    g->first = g->start >> q->block_bits;
    for (;;) { /* both only grow, the second by a fraction of the first: it ends */
        uint64_t last = (g->start + g->tables + g->blocks - 1) >> q->block_bits;
        uint64_t need = (max_u64(last, upto >> q->block_bits) + 1) * 8;
        if (need > QCOW2_MAX_RT)
            return -EFBIG;
        if (last + 1 - g->first > g->blocks)
            g->blocks = last + 1 - g->first;
        else if (need > g->tables << q->cluster_bits)
            g->tables = qcow2_clusters(q, need);
        else
            break;
    }
    g->tables = min_u64(g->tables, QCOW2_MAX_RT >> q->cluster_bits);
    g->n = (g->tables << q->cluster_bits) / 8;
    g->table = calloc(g->n, sizeof *g->table);
    return g->table ? 0 : -ENOMEM;
}

/* Writes the blocks of the new clusters and enters them into the new table. */
static int write_new_blocks(struct qcow2 *q, struct growth *g)
{
    uint64_t per = 1ull << q->block_bits, end = g->start + g->tables + g->blocks;
    uint8_t *block = malloc(q->cluster);
    int rc = block ? 0 : -ENOMEM;
    for (uint64_t b = 0; !rc && b < g->blocks; b++) {
        uint64_t at = g->start + g->tables + b, from = (g->first + b) * per;
        memset(block, 0, q->cluster);
        for (uint64_t c = max_u64(from, g->start); c < min_u64(from + per, end); c++)
            qcow2_refcount_store(q, block, c - from, 1);
        g->table[g->first + b] = at << q->cluster_bits;
        qcow2_cache_drop(q, &q->blocks, at << q->cluster_bits, q->cluster);
        rc = node_write(q->file, block, q->cluster, at << q->cluster_bits, 0);
        if (!rc)
            rc = qcow2_guard_add(q, at);
    }
    free(block);
    return rc;
}

static int switch_table(struct qcow2 *q, const struct growth *g)
{
    uint8_t h[12];
    store_be64(h, g->start << q->cluster_bits);
    store_be32(h + 8, (uint32_t)g->tables);
    int rc = qcow2_write_table(q, g->table, g->n, g->start << q->cluster_bits);
    if (!rc)
        rc = qcow2_cache_write(q, &q->blocks);
    if (!rc)
        rc = node_flush(q->file);
    if (!rc)
        rc = node_write(q->file, h, sizeof h, QCOW2_H_RT_OFF, 0);
    return rc ? rc : node_flush(q->file);
}

/* Rule 3. The table covers at least the cluster `upto` afterwards. */
static int grow_table(struct qcow2 *q, uint64_t upto)
{
    struct growth g;
    int rc = plan_growth(q, upto, &g);
    if (rc)
        return rc;
    memcpy(g.table, q->rt, q->rt_entries * sizeof *g.table);
    rc = write_new_blocks(q, &g);
    if (!rc)
        rc = switch_table(q, &g);
    if (rc) {
        free(g.table);
        return rc;
    }
    uint64_t old = q->rt_offset, old_len = (uint64_t)q->rt_clusters << q->cluster_bits;
    free(q->rt);
    q->rt = g.table;
    q->rt_entries = g.n;
    q->rt_offset = g.start << q->cluster_bits;
    q->rt_clusters = (uint32_t)g.tables;
    q->rt_first = q->rt_last = 0;
    q->file_end = max_u64(q->file_end, (g.start + g.tables + g.blocks) << q->cluster_bits);
    rc = qcow2_guard_ranges(q);
    return rc ? rc : qcow2_free_now(q, old, old_len);
}

/* Makes a block of refcounts: for the cluster it comes to lie in if that has none (it counts
 * itself), else for `index`. */
static int make_block(struct qcow2 *q, uint64_t index)
{
    uint64_t c = 0, n = 0;
    int rc = find_free(q, 1, true, &c, &n);
    if (rc)
        return rc;
    uint64_t in = c >> q->block_bits, at = c << q->cluster_bits;
    if (in >= q->rt_entries)
        return grow_table(q, c);
    if (qcow2_guarded(q, at, q->cluster))
        return qcow2_corrupt(q, "a free cluster holds metadata", at);
    rc = qcow2_guard_add(q, c);
    if (!rc)
        rc = node_zero(q->file, at, q->cluster, 0);
    if (rc)
        return rc;
    q->file_end = max_u64(q->file_end, at + q->cluster);
    qcow2_cache_drop(q, &q->blocks, at, q->cluster);
    index = block_of(q, in) ? index : in;
    q->rt[index] = at;
    bool none = q->rt_first == q->rt_last;
    q->rt_first = none ? index : min_u64(q->rt_first, index);
    q->rt_last = none ? index + 1 : max_u64(q->rt_last, index + 1);
    return qcow2_refcount_set(q, c, 1);
}

/* The first entry without a block that the clusters need. */
static bool missing_block(const struct qcow2 *q, uint64_t first, uint64_t n, uint64_t *index)
{
    for (uint64_t r = first >> q->block_bits; r <= (first + n - 1) >> q->block_bits; r++) {
        if (r >= q->rt_entries || !block_of(q, r)) {
            *index = r;
            return true;
        }
    }
    return false;
}

static int take(struct qcow2 *q, uint64_t want, bool exact, uint64_t *first, uint64_t *n)
{
    for (;;) { /* each round makes a block or is the last */
        uint64_t index = 0;
        int rc = find_free(q, want, exact, first, n);
        if (rc)
            return rc;
        if (*first + *n > QCOW2_MAX_END >> q->cluster_bits)
            return -EFBIG;
        if (!missing_block(q, *first, *n, &index))
            break;
        rc = index >= q->rt_entries ? grow_table(q, *first + *n - 1) : make_block(q, index);
        if (rc)
            return rc;
    }
    if (qcow2_guarded(q, *first << q->cluster_bits, *n << q->cluster_bits))
        return qcow2_corrupt(q, "a free cluster holds metadata", *first << q->cluster_bits);
    for (uint64_t i = 0; i < *n; i++) {
        int rc = qcow2_refcount_set(q, *first + i, 1);
        if (!rc)
            continue;
        while (i-- > 0)
            qcow2_refcount_set(q, *first + i, 0); /* if that fails, too, they are leaked */
        return rc;
    }
    return 0;
}

static int alloc(struct qcow2 *q, uint64_t *n, bool exact, uint64_t *offset, bool *fresh)
{
    uint64_t first = 0;
    if (q->incompat & QCOW2_INCOMPAT_CORRUPT && !q->check)
        return -EIO;
    int rc = take(q, *n, exact, &first, n);
    if (rc)
        return rc;
    if (q->free_hint == first)
        q->free_hint = first + *n;
    *offset = first << q->cluster_bits;
    *fresh = *offset >= q->file_end;
    q->file_end = max_u64(q->file_end, (first + *n) << q->cluster_bits);
    return 0;
}

int qcow2_alloc(struct qcow2 *q, uint64_t n, uint64_t *offset, bool *fresh)
{
    return alloc(q, &n, true, offset, fresh);
}

int qcow2_alloc_some(struct qcow2 *q, uint64_t *n, uint64_t *offset, bool *fresh)
{
    return alloc(q, n, false, offset, fresh);
}

int qcow2_alloc_at(struct qcow2 *q, uint64_t cluster, bool *taken)
{
    uint64_t v = 0, index, end = (cluster + 1) << q->cluster_bits;
    *taken = false;
    int rc = qcow2_refcount_get(q, cluster, &v);
    if (rc || v || end > QCOW2_MAX_END || missing_block(q, cluster, 1, &index))
        return rc;
    if (qcow2_guarded(q, end - q->cluster, q->cluster))
        return qcow2_corrupt(q, "a free cluster holds metadata", end - q->cluster);
    rc = qcow2_refcount_set(q, cluster, 1);
    if (rc)
        return rc;
    *taken = true;
    q->file_end = max_u64(q->file_end, end);
    return 0;
}

int qcow2_free_now(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    uint64_t last = (offset + len - 1) >> q->cluster_bits, gone = 0; /* clusters before `c` */
    for (uint64_t c = offset >> q->cluster_bits; len && c <= last + 1; c++) {
        uint64_t v = 0;
        int rc = c <= last ? qcow2_refcount_get(q, c, &v) : 0;
        if (!rc && c <= last && v == 0)
            rc = qcow2_corrupt(q, "a cluster is freed that is not in use", c << q->cluster_bits);
        if (!rc && c <= last)
            rc = qcow2_refcount_set(q, c, v - 1);
        if (rc)
            return rc;
        if (c <= last && v == 1) {
            q->free_hint = min_u64(q->free_hint, c);
            if (q->packed_at && q->packed_at >> q->cluster_bits == c)
                q->packed_at = 0;
            gone++;
            continue;
        }
        if (gone) /* a hint: what it says does not matter */
            node_discard(q->file, (c - gone) << q->cluster_bits, gone << q->cluster_bits);
        gone = 0;
    }
    return 0;
}

void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    struct qcow2_free *last = q->nfreed ? &q->freed[q->nfreed - 1] : NULL;
    if (last && last->offset + last->len == offset && !(offset & (q->cluster - 1)) &&
        !(last->offset & (q->cluster - 1))) {
        last->len += len;
        return;
    }
    if (q->nfreed == q->max_freed) {
        unsigned max = q->max_freed ? q->max_freed * 2 : 64;
        struct qcow2_free *p = realloc(q->freed, max * sizeof *p);
        if (!p) {
            log_warn("%s: out of memory: %llu bytes of the image are leaked", q->path,
                     (unsigned long long)len);
            return;
        }
        q->freed = p;
        q->max_freed = max;
    }
    q->freed[q->nfreed++] = (struct qcow2_free){offset, len};
}
