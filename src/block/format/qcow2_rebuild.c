/*
 * qcow2_rebuild.c - new refcounts from what refers to the clusters, written beyond the end of the
 * file; the header refers to them when all of it is durable. What held them before is free then.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/format/qcow2_int.h"

struct plan {
    uint64_t start;          /* cluster of the new table; its blocks follow */
    uint64_t tables, blocks; /* clusters */
    uint64_t entries;        /* of the table that may have blocks */
    uint64_t *table;
};

/* Whether anything that a block counts is in use; a file may be mostly holes. */
static bool block_needed(const struct qcow2_count *c, const struct plan *p, uint64_t r)
{
    uint64_t bits = c->q->block_bits, first = r << bits, last = first + (1ull << bits) - 1;
    if (last >= p->start && first < p->start + p->tables + p->blocks)
        return true;
    return qcow2_count_any(c, first, last);
}

static int make_plan(const struct qcow2_count *c, struct plan *p)
{
    const struct qcow2 *q = c->q;
    *p = (struct plan){.start = c->clusters, .tables = 1, .blocks = 1};
    for (;;) { /* both only grow */
        uint64_t blocks = 0;
        p->entries = ((p->start + p->tables + p->blocks - 1) >> q->block_bits) + 1;
        if (p->entries * 8 > QCOW2_MAX_RT)
            return -EFBIG;
        for (uint64_t r = 0; r < p->entries; r++)
            blocks += block_needed(c, p, r);
        if (blocks > p->blocks)
            p->blocks = blocks;
        else if (p->entries * 8 > p->tables << q->cluster_bits)
            p->tables = qcow2_clusters(q, p->entries * 8);
        else
            break;
    }
    p->table = calloc(p->tables, q->cluster);
    return p->table ? 0 : -ENOMEM;
}

static uint64_t wanted(const struct qcow2_count *c, const struct plan *p, uint64_t cluster)
{
    if (cluster >= p->start)
        return cluster < p->start + p->tables + p->blocks;
    return min_u64(qcow2_count_of(c, cluster), c->q->refcount_max);
}

static int write_blocks(struct qcow2_count *c, struct plan *p)
{
    struct qcow2 *q = c->q;
    uint64_t per = 1ull << q->block_bits, at = (p->start + p->tables) << q->cluster_bits;
    uint8_t *block = malloc(q->cluster);
    int rc = block ? 0 : -ENOMEM;
    for (uint64_t r = 0; !rc && r < p->entries; r++) {
        if (!block_needed(c, p, r))
            continue;
        memset(block, 0, q->cluster);
        for (uint64_t i = 0; i < per; i++)
            qcow2_refcount_store(q, block, i, wanted(c, p, r * per + i));
        p->table[r] = at;
        rc = node_write(q->file, block, q->cluster, at, 0);
        at += q->cluster;
    }
    free(block);
    return rc;
}

static int switch_header(struct qcow2 *q, const struct plan *p)
{
    uint8_t h[12];
    uint64_t entries = (p->tables << q->cluster_bits) / 8;
    int rc = qcow2_write_table(q, p->table, entries, p->start << q->cluster_bits);
    if (!rc)
        rc = node_flush(q->file);
    store_be64(h, p->start << q->cluster_bits);
    store_be32(h + 8, (uint32_t)p->tables);
    if (!rc)
        rc = node_write(q->file, h, sizeof h, QCOW2_H_RT_OFF, 0);
    return rc ? rc : node_flush(q->file);
}

static int rebuild(struct qcow2_count *c)
{
    struct qcow2 *q = c->q;
    struct plan p;
    int rc = make_plan(c, &p);
    if (rc)
        return rc;
    rc = write_blocks(c, &p);
    if (!rc)
        rc = switch_header(q, &p);
    if (rc) {
        free(p.table);
        return rc;
    }
    free(q->rt);
    q->rt = p.table;
    q->rt_entries = (p.tables << q->cluster_bits) / 8;
    q->rt_offset = p.start << q->cluster_bits;
    q->rt_clusters = (uint32_t)p.tables;
    q->rt_first = q->rt_last = 0;
    q->file_end = (p.start + p.tables + p.blocks) << q->cluster_bits;
    qcow2_cache_free(&q->blocks);
    return qcow2_cache_init(&q->blocks, QCOW2_REFCOUNT_CACHE, q->slice, true);
}

int qcow2_rebuild(struct qcow2_count *old)
{
    struct format_check silent = {0};
    struct qcow2_count c = {.q = old->q, .out = &silent, .rebuild = true};
    int rc = qcow2_count_all(&c);
    if (!rc)
        rc = rebuild(&c);
    qcow2_count_free(&c);
    return rc;
}
