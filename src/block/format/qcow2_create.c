/*
 * qcow2_create.c - new images.
 *
 * An image begins with the header, the refcount table, its blocks and the L1 table, in this order;
 * all of it is small however large the disk. The header is written last.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/format/formats.h"
#include "block/format/qcow2_int.h"

static const char *const on_off[] = {"off", "on", NULL};
static const char *const compressions[] = {"zlib", "zstd", NULL};
static const char *const preallocations[] = {"off", "metadata", NULL};

/* In the order of enum qcow2_option. One with neither words nor a maximum is a text. */
const struct format_option qcow2_options[] = {
    {"cluster_size", "bytes that are allocated at once, 512 to 2M", "65536", NULL, 512, 2 * MIB},
    {"version", "2 for programs older than 2012, else 3", "3", NULL, 2, 3},
    {"refcount_bits", "width of a refcount: 1, 2, 4 ... 64", "16", NULL, 1, 64},
    {"lazy_refcounts", "postpone refcounts; a crash is followed by a scan", "off", on_off, 0, 0},
    {"extended_l2", "allocate 32nds of a cluster", "off", on_off, 0, 0},
    {"compression_type", "of compressed clusters", "zlib", compressions, 0, 0},
    {"data_file", "name of a raw file that holds the data", "", NULL, 0, 0},
    {"data_file_raw", "the data file alone is a raw image of the disk", "off", on_off, 0, 0},
    {"preallocation", "metadata: the tables of the whole disk", "off", preallocations, 0, 0},
    {NULL, NULL, NULL, NULL, 0, 0},
};

static const char *value(const struct format_create *c, enum qcow2_option o)
{
    const char *v = c->value ? c->value[o] : NULL;
    return v ? v : qcow2_options[o].def;
}

static bool is(const struct format_create *c, enum qcow2_option o, const char *word)
{
    return !strcmp(value(c, o), word);
}

/* A number with one of the suffixes k, M, G. */
static int number(const struct format_create *c, enum qcow2_option o, uint64_t *out,
                  struct error *e)
{
    const struct format_option *opt = &qcow2_options[o];
    char *end;
    errno = 0;
    unsigned long long v = strtoull(value(c, o), &end, 10);
    unsigned shift = *end == 'k' || *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    end += shift != 0;
    if (errno || end == value(c, o) || *end || v > opt->max || v << shift > opt->max ||
        v << shift < opt->min)
        return error_set(e, ERR_USAGE, "%s: '%s' is not a number from %llu to %llu", opt->name,
                         value(c, o), (unsigned long long)opt->min, (unsigned long long)opt->max);
    *out = v << shift;
    return 0;
}

static int word(const struct format_create *c, enum qcow2_option o, struct error *e)
{
    for (const char *const *w = qcow2_options[o].words; w && *w; w++)
        if (is(c, o, *w))
            return 0;
    return qcow2_options[o].words
               ? error_set(e, ERR_USAGE, "%s: there is no '%s'", qcow2_options[o].name, value(c, o))
               : 0;
}

static int numbers(struct qcow2 *q, const struct format_create *c, struct error *e)
{
    uint64_t cluster = 0, version = 0, bits = 0;
    int rc = number(c, QCOW2_OPT_CLUSTER_SIZE, &cluster, e);
    if (!rc)
        rc = number(c, QCOW2_OPT_VERSION, &version, e);
    if (!rc)
        rc = number(c, QCOW2_OPT_REFCOUNT_BITS, &bits, e);
    for (int o = 0; !rc && o < QCOW2_OPTIONS; o++)
        rc = word(c, (enum qcow2_option)o, e);
    if (rc)
        return rc;
    if (cluster & (cluster - 1))
        return error_set(e, ERR_USAGE, "cluster_size: must be a power of two");
    if (bits & (bits - 1))
        return error_set(e, ERR_USAGE, "refcount_bits: must be a power of two");
    q->cluster = cluster;
    q->cluster_bits = (uint32_t)__builtin_ctzll(cluster);
    q->version = (uint32_t)version;
    q->order = (uint32_t)__builtin_ctzll(bits);
    return 0;
}

static int flags(struct qcow2 *q, const struct format_create *c, struct error *e)
{
    q->ext_l2 = is(c, QCOW2_OPT_EXTENDED_L2, "on");
    q->compression = is(c, QCOW2_OPT_COMPRESSION, "zstd");
    q->raw_data = is(c, QCOW2_OPT_DATA_FILE_RAW, "on");
    q->compat = is(c, QCOW2_OPT_LAZY_REFCOUNTS, "on") ? QCOW2_COMPAT_LAZY : 0;
    bool external = value(c, QCOW2_OPT_DATA_FILE)[0] != 0;
    q->incompat = (external ? QCOW2_INCOMPAT_DATA_FILE : 0) |
                  (q->compression ? QCOW2_INCOMPAT_COMPRESSION : 0) |
                  (q->ext_l2 ? QCOW2_INCOMPAT_EXT_L2 : 0);
    q->autoclear = q->raw_data ? QCOW2_AUTOCLEAR_RAW : 0;
    q->header_length = q->version == 2 ? QCOW2_V2_LENGTH : QCOW2_OUR_LENGTH;
    if (q->version == 2 && (q->incompat || q->compat || q->order != 4))
        return error_set(e, ERR_USAGE,
                         "version 2 has none of: lazy_refcounts, extended_l2, "
                         "compression_type=zstd, data_file, refcount_bits");
    if (q->ext_l2 && q->cluster_bits < 14)
        return error_set(e, ERR_USAGE, "extended_l2 needs a cluster_size of at least 16k");
    if (q->raw_data && !external)
        return error_set(e, ERR_USAGE, "data_file_raw needs data_file");
    if (q->raw_data && c->backing)
        return error_set(e, ERR_USAGE, "data_file_raw cannot be used with a backing file");
    if (c->backing && strlen(c->backing) > QCOW2_MAX_NAME)
        return error_set(e, ERR_LIMIT, "the name of a backing file has at most %d bytes",
                         QCOW2_MAX_NAME);
    if ((external || c->backing) && is(c, QCOW2_OPT_PREALLOCATION, "metadata"))
        return error_set(e, ERR_USAGE, "preallocation cannot be used with a backing or data file");
    return 0;
}

/* Where everything is, in clusters. */
struct layout {
    uint64_t rt, blocks, l1, end;
};

static int lay_out(struct qcow2 *q, uint64_t size, struct layout *l, struct error *e)
{
    uint64_t entries = 0, rt = 1, blocks = 1, per = 1ull << (q->cluster_bits + 3 - q->order);
    q->l2_bits = q->cluster_bits - (q->ext_l2 ? 4 : 3);
    int rc = qcow2_l1_bounds(q, size, &entries, e);
    if (rc)
        return rc;
    uint64_t l1 = max_u64(qcow2_clusters(q, entries * 8), 1);
    for (;;) {
        uint64_t need = (1 + rt + blocks + l1 + per - 1) / per;
        if (need > blocks)
            blocks = need;
        else if (blocks * 8 > rt << q->cluster_bits)
            rt = qcow2_clusters(q, blocks * 8);
        else
            break;
    }
    *l = (struct layout){1, 1 + rt, 1 + rt + blocks, 1 + rt + blocks + l1};
    q->l1_size = (uint32_t)entries;
    q->rt_clusters = (uint32_t)rt;
    return 0;
}

static int write_refcounts(struct qcow2 *q, struct node *file, const struct layout *l)
{
    uint64_t per = 1ull << (q->cluster_bits + 3 - q->order), n = l->l1 - l->blocks;
    uint8_t *buf = malloc(q->cluster), entry[8];
    int rc = buf ? 0 : -ENOMEM;
    for (uint64_t b = 0; !rc && b < n; b++) {
        memset(buf, 0, q->cluster);
        for (uint64_t c = b * per; c < min_u64((b + 1) * per, l->end); c++)
            qcow2_refcount_store(q, buf, c - b * per, 1);
        rc = node_write(file, buf, q->cluster, (l->blocks + b) << q->cluster_bits, 0);
        store_be64(entry, (l->blocks + b) << q->cluster_bits);
        if (!rc)
            rc = node_write(file, entry, sizeof entry, (l->rt << q->cluster_bits) + b * 8, 0);
    }
    free(buf);
    return rc;
}

static int write_header(struct qcow2 *q, struct node *file, const struct format_create *c,
                        const struct layout *l)
{
    const char *data = value(c, QCOW2_OPT_DATA_FILE);
    struct qcow2_names names = {c->backing, c->backing ? c->backing_format : NULL,
                                data[0] ? data : NULL};
    uint8_t *h = calloc(1, q->cluster);
    if (!h)
        return -ENOMEM;
    store_be32(h, QCOW2_MAGIC);
    store_be32(h + 4, q->version);
    store_be32(h + QCOW2_H_CLUSTER_BITS, q->cluster_bits);
    store_be64(h + QCOW2_H_SIZE, c->size);
    store_be32(h + QCOW2_H_L1_SIZE, q->l1_size);
    store_be64(h + QCOW2_H_L1_OFF, l->l1 << q->cluster_bits);
    store_be64(h + QCOW2_H_RT_OFF, l->rt << q->cluster_bits);
    store_be32(h + QCOW2_H_RT_CLUSTERS, q->rt_clusters);
    if (q->version >= 3) {
        store_be64(h + QCOW2_H_INCOMPAT, q->incompat);
        store_be64(h + QCOW2_H_COMPAT, q->compat);
        store_be64(h + QCOW2_H_AUTOCLEAR, q->autoclear);
        store_be32(h + QCOW2_H_ORDER, q->order);
        store_be32(h + QCOW2_H_LENGTH, q->header_length);
        h[QCOW2_H_COMPRESSION] = q->compression;
    }
    int rc = qcow2_header_tail(q, &names, h, q->cluster);
    if (!rc)
        rc = node_write(file, h, q->cluster, 0, 0);
    free(h);
    return rc;
}

/* Gives some clusters from `at` on a place; *done: how many bytes of the disk. */
static int preallocate_some(struct qcow2 *q, uint64_t at, uint64_t *done)
{
    uint64_t n = min_u64(qcow2_clusters(q, q->node.size - at), 1ull << q->slice_bits), host = 0;
    bool fresh;
    int rc = qcow2_alloc_some(q, &n, &host, &fresh);
    if (!rc && q->version < 3) /* the entry cannot say that it reads as zeroes */
        rc = node_zero(q->file, host, n * q->cluster, NODE_MAY_UNMAP);
    else if (!rc) /* the file's end covers what is referred to */
        rc = node_zero(q->file, host + n * q->cluster - 1, 1, 0);
    for (uint64_t i = 0; !rc && i < n; i++) {
        struct qcow2_entry v = {(host + i * q->cluster) | QCOW2_COPIED, 0};
        v.e |= !q->ext_l2 && q->version >= 3 ? QCOW2_ZERO : 0;
        v.bits = q->ext_l2 ? 0xffffffffull << 32 : 0;
        rc = qcow2_table_own(q, at + i * q->cluster);
        if (!rc)
            rc = qcow2_entry_set(q, at + i * q->cluster, v);
    }
    *done = n * q->cluster;
    return rc;
}

/* "preallocation=metadata": every cluster has a place, which reads as zeroes. */
static int preallocate(struct node *file, struct error *e)
{
    struct format_open o = {.path = "new image"};
    struct node *n = NULL;
    int rc = format_qcow2.open(file, &o, &n, e);
    if (rc)
        return rc;
    struct qcow2 *q = qcow2_of(n);
    rc = qcow2_begin(q);
    for (uint64_t at = 0, done; !rc && at < n->size; at += done) {
        rc = qcow2_lock_update(q);
        if (rc)
            break;
        rc = preallocate_some(q, at, &done);
        pthread_mutex_unlock(&q->meta);
    }
    if (!rc)
        rc = qcow2_settle(q);
    qcow2_destroy(q); /* `file` stays open */
    return rc ? error_errno(e, ERR_IO, -rc, "cannot preallocate") : 0;
}

int qcow2_create(struct node *file, const struct format_create *c, struct error *e)
{
    struct qcow2 q = {.version = 0};
    struct layout l;
    if (c->size > INT64_MAX - 511)
        return error_set(e, ERR_LIMIT, "a disk has less than 2^63 bytes");
    int rc = numbers(&q, c, e);
    if (!rc)
        rc = flags(&q, c, e);
    struct format_create rounded = *c;
    rounded.size = (c->size + 511) & ~511ull;
    if (!rc)
        rc = lay_out(&q, rounded.size, &l, e);
    if (rc)
        return rc;
    rc = node_zero(file, l.rt << q.cluster_bits, (l.end - l.rt) << q.cluster_bits, NODE_MAY_UNMAP);
    if (!rc)
        rc = write_refcounts(&q, file, &l);
    if (!rc)
        rc = write_header(&q, file, &rounded, &l);
    if (!rc)
        rc = node_flush(file);
    if (rc == -ENOSPC && q.cluster < 4096)
        return error_set(e, ERR_LIMIT, "the names do not fit into a cluster of %llu bytes",
                         (unsigned long long)q.cluster);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot write the new image");
    return is(c, QCOW2_OPT_PREALLOCATION, "metadata") ? preallocate(file, e) : 0;
}
