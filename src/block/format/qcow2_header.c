/*
 * qcow2_header.c - the header of a qcow2 image and its extensions: decoded and checked once, before
 * anything is done with them.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "block/format/qcow2_int.h"

#define MAX_FORMAT_NAME 63
#define MAX_FEATURE     46 /* bytes of a name in the feature name table */

/* "Feature name table": what a later program calls a bit that we do not know. */
struct features {
    const uint8_t *table;
    size_t len;
};

/* Text from an image, as far as it can be shown. */
static void printable(char *to, size_t room, const uint8_t *from, size_t len)
{
    size_t n = 0;
    for (; n + 1 < room && n < len && from[n]; n++)
        to[n] = isprint(from[n]) ? (char)from[n] : '?';
    to[n] = 0;
}

static int refuse_features(const struct features *f, uint64_t unknown, struct error *e)
{
    char list[512] = "";
    for (unsigned bit = 0; bit < 64; bit++) {
        if (!(unknown >> bit & 1))
            continue;
        char name[MAX_FEATURE + 1] = "";
        for (size_t i = 0; i + 48 <= f->len; i += 48)
            if (f->table[i] == 0 && f->table[i + 1] == bit)
                printable(name, sizeof name, f->table + i + 2, MAX_FEATURE);
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s'%s' (bit %u)", at ? ", " : "",
                 name[0] ? name : "a feature without a name", bit);
    }
    return error_set(e, ERR_FORMAT,
                     "the image uses what this program does not know: %s; use a newer version, or "
                     "convert the image with the program that made it",
                     list);
}

/* A copy of text of the image; NUL inside ends it as a path would. */
static int take_text(char **out, const uint8_t *p, size_t len, struct error *e)
{
    free(*out);
    *out = strndup((const char *)p, len);
    return *out ? 0 : error_set(e, ERR_NOMEM, "out of memory");
}

static int take_bitmaps(struct qcow2 *q, const uint8_t *p, size_t len, struct error *e)
{
    if (len < 24)
        return error_set(e, ERR_FORMAT, "the bitmaps extension is damaged");
    q->nbitmaps = load_be32(p);
    q->bitmaps_size = load_be64(p + 8);
    q->bitmaps_offset = load_be64(p + 16);
    return 0;
}

/* "Header extensions", from header_length to the backing file's name or the end of the cluster. */
static int read_extensions(struct qcow2 *q, const uint8_t *head, size_t end, struct features *f,
                           struct error *e)
{
    for (size_t at = q->header_length; at + 8 <= end;) {
        uint32_t type = load_be32(head + at), len = load_be32(head + at + 4);
        const uint8_t *p = head + at + 8;
        int rc = 0;
        if (type == QCOW2_EXT_END)
            return 0;
        if (len > end - at - 8)
            return error_set(e, ERR_FORMAT, "header extension %#x is longer than the header", type);
        if (type == QCOW2_EXT_BACKING_FORMAT && len <= MAX_FORMAT_NAME)
            rc = take_text(&q->backing_format, p, len, e);
        else if (type == QCOW2_EXT_BACKING_FORMAT)
            rc = error_set(e, ERR_FORMAT, "the name of the backing file's format is too long");
        else if (type == QCOW2_EXT_DATA_FILE && qcow2_external(q))
            rc = take_text(&q->data_name, p, len, e);
        else if (type == QCOW2_EXT_FEATURES)
            *f = (struct features){p, len};
        else if (type == QCOW2_EXT_BITMAPS)
            rc = take_bitmaps(q, p, len, e);
        if (rc)
            return rc;
        at += 8 + (((size_t)len + 7) & ~(size_t)7);
    }
    return 0;
}

/* Fields that only version 3 has. */
static int read_v3(struct qcow2 *q, const uint8_t *h, struct error *e)
{
    q->incompat = load_be64(h + QCOW2_H_INCOMPAT);
    q->compat = load_be64(h + QCOW2_H_COMPAT);
    q->autoclear = load_be64(h + QCOW2_H_AUTOCLEAR);
    q->order = load_be32(h + QCOW2_H_ORDER);
    q->header_length = load_be32(h + QCOW2_H_LENGTH);
    if (q->header_length < QCOW2_V3_LENGTH || q->header_length > q->cluster)
        return error_set(e, ERR_FORMAT, "the header's length, %u, is not possible",
                         q->header_length);
    if (q->order > 6)
        return error_set(e, ERR_FORMAT, "refcounts of 2^%u bits are not possible", q->order);
    if (q->header_length > QCOW2_H_COMPRESSION)
        q->compression = h[QCOW2_H_COMPRESSION];
    return 0;
}

static int check_features(struct qcow2 *q, const struct features *f, struct error *e)
{
    if (q->incompat & ~QCOW2_INCOMPAT_KNOWN)
        return refuse_features(f, q->incompat & ~QCOW2_INCOMPAT_KNOWN, e);
    if (!(q->incompat & QCOW2_INCOMPAT_COMPRESSION) != !q->compression)
        return error_set(e, ERR_FORMAT, "the compression type and its feature bit do not agree");
    if (q->compression > 1)
        return error_set(e, ERR_FORMAT,
                         "compression type %u is not known; deflate (0) and zstd (1) are",
                         q->compression);
    q->ext_l2 = (q->incompat & QCOW2_INCOMPAT_EXT_L2) != 0;
    if (q->ext_l2 && q->cluster_bits < 14)
        return error_set(e, ERR_FORMAT, "subclusters need clusters of at least 16 KiB");
    q->raw_data = qcow2_external(q) && (q->autoclear & QCOW2_AUTOCLEAR_RAW);
    if (q->raw_data && q->backing_name)
        return error_set(e, ERR_FORMAT, "a raw data file cannot have a backing file");
    if (qcow2_external(q) && q->nsnap)
        return error_set(e, ERR_FORMAT, "an image with a data file cannot have snapshots");
    return 0;
}

static void derive(struct qcow2 *q)
{
    q->entry_size = q->ext_l2 ? 16 : 8;
    q->subs = q->ext_l2 ? 32 : 1;
    q->sub_bits = q->cluster_bits - (q->ext_l2 ? 5 : 0);
    q->l2_bits = q->cluster_bits - (q->ext_l2 ? 4 : 3);
    q->slice = (uint32_t)min_u64(q->cluster, QCOW2_SLICE);
    q->slice_bits = (unsigned)__builtin_ctz(q->slice) - (q->ext_l2 ? 4 : 3);
    q->block_bits = q->cluster_bits + 3 - q->order;
    q->refcount_max = q->order == 6 ? UINT64_MAX : (1ull << (1u << q->order)) - 1;
}

/* A table of the header lies at a cluster's beginning, in the file, and is not too large. */
static int check_table(const struct qcow2 *q, const char *what, uint64_t offset, uint64_t bytes,
                       struct error *e)
{
    uint64_t end = (node_size(q->file) + q->cluster - 1) & ~(q->cluster - 1);
    if ((offset & (q->cluster - 1)) || !range_within(offset, bytes, end) ||
        (bytes && offset < q->cluster))
        return error_set(e, ERR_FORMAT, "the %s, %llu bytes at offset %#llx, is out of place", what,
                         (unsigned long long)bytes, (unsigned long long)offset);
    return 0;
}

static int read_tables(struct qcow2 *q, const uint8_t *h, struct error *e)
{
    q->l1_size = load_be32(h + QCOW2_H_L1_SIZE);
    q->l1_offset = load_be64(h + QCOW2_H_L1_OFF);
    q->rt_offset = load_be64(h + QCOW2_H_RT_OFF);
    q->rt_clusters = load_be32(h + QCOW2_H_RT_CLUSTERS);
    q->nsnap = load_be32(h + QCOW2_H_NSNAP);
    q->snap_offset = load_be64(h + QCOW2_H_SNAP_OFF);
    if (q->l1_size * 8ull > QCOW2_MAX_L1)
        return error_set(e, ERR_LIMIT, "an L1 table of %u entries is too large", q->l1_size);
    if (q->rt_clusters > QCOW2_MAX_RT >> q->cluster_bits)
        return error_set(e, ERR_LIMIT, "a refcount table of %u clusters is too large",
                         q->rt_clusters);
    if (q->nsnap > QCOW2_MAX_SNAPSHOTS)
        return error_set(e, ERR_LIMIT, "%u snapshots are too many", q->nsnap);
    int rc = check_table(q, "L1 table", q->l1_offset, q->l1_size * 8ull, e);
    if (!rc && !q->check)
        rc = check_table(q, "refcount table", q->rt_offset,
                         (uint64_t)q->rt_clusters << q->cluster_bits, e);
    if (!rc && !q->check && q->rt_clusters == 0)
        rc = error_set(e, ERR_FORMAT, "there is no refcount table");
    if (!rc && q->nsnap)
        rc = check_table(q, "snapshot table", q->snap_offset, 40ull * q->nsnap, e);
    return rc;
}

static int read_names(struct qcow2 *q, const uint8_t *head, struct features *f, struct error *e)
{
    uint64_t at = load_be64(head + QCOW2_H_BACKING_OFF);
    uint32_t len = load_be32(head + QCOW2_H_BACKING_LEN);
    size_t end = (size_t)q->cluster;
    if (at) {
        if (len > QCOW2_MAX_NAME || !range_within(at, len, q->cluster) || at < QCOW2_V2_LENGTH)
            return error_set(e, ERR_FORMAT, "the name of the backing file is out of place");
        int rc = len ? take_text(&q->backing_name, head + at, len, e) : 0;
        if (rc)
            return rc;
        if (at >= q->header_length)
            end = (size_t)at;
    }
    return read_extensions(q, head, end, f, e);
}

/* Fields at the same place in all versions. */
static int read_basics(struct qcow2 *q, const uint8_t *h, struct error *e)
{
    uint32_t crypt = load_be32(h + QCOW2_H_CRYPT);
    if (load_be32(h) != QCOW2_MAGIC)
        return error_set(e, ERR_FORMAT, "is not a qcow2 image");
    q->version = load_be32(h + 4);
    if (q->version != 2 && q->version != 3)
        return error_set(e, ERR_FORMAT, "is of version %u of the format; 2 and 3 are supported",
                         q->version);
    q->cluster_bits = load_be32(h + QCOW2_H_CLUSTER_BITS);
    if (q->cluster_bits < QCOW2_MIN_CLUSTER_BITS || q->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
        return error_set(e, ERR_FORMAT, "clusters of 2^%u bytes: 2^9 to 2^21 are possible",
                         q->cluster_bits);
    q->cluster = 1ull << q->cluster_bits;
    q->node.size = load_be64(h + QCOW2_H_SIZE);
    if (q->node.size > INT64_MAX)
        return error_set(e, ERR_LIMIT, "a disk of %llu bytes is too large",
                         (unsigned long long)q->node.size);
    if (crypt)
        return error_set(e, ERR_FORMAT,
                         "the image is encrypted (%s), which is not supported; decrypt it with: "
                         "qemu-img convert -O qcow2",
                         crypt == 1   ? "AES"
                         : crypt == 2 ? "LUKS"
                                      : "in an unknown way");
    q->order = 4;
    q->header_length = QCOW2_V2_LENGTH;
    return q->version == 3 ? read_v3(q, h, e) : 0;
}

int qcow2_header_read(struct qcow2 *q, struct error *e)
{
    uint8_t h[QCOW2_OUR_LENGTH] = {0};
    struct features f = {NULL, 0};
    int rc = node_read(q->file, h, sizeof h, 0);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot read the header");
    rc = read_basics(q, h, e);
    if (rc)
        return rc;
    CLEANUP_FREE uint8_t *head = malloc(q->cluster);
    if (!head)
        return error_set(e, ERR_NOMEM, "out of memory");
    rc = node_read(q->file, head, q->cluster, 0);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot read the header");
    if (memcmp(h, head, sizeof h)) /* somebody else is writing: what was checked is not this */
        return error_set(e, ERR_IO, "the header changes while it is read");
    rc = read_names(q, head, &f, e);
    if (!rc && (q->incompat & ~QCOW2_INCOMPAT_KNOWN))
        rc = refuse_features(&f, q->incompat & ~QCOW2_INCOMPAT_KNOWN, e);
    if (!rc)
        rc = read_tables(q, h, e);
    if (!rc)
        rc = check_features(q, &f, e);
    if (!rc)
        derive(q);
    return rc;
}

int qcow2_header_features(struct qcow2 *q)
{
    uint8_t b[24];
    if (q->version < 3)
        return 0;
    store_be64(b, q->incompat);
    store_be64(b + 8, q->compat);
    store_be64(b + 16, q->autoclear);
    int rc = node_write(q->file, b, sizeof b, QCOW2_H_INCOMPAT, 0);
    return rc ? rc : node_flush(q->file);
}

static size_t put_extension(uint8_t *head, size_t at, size_t room, uint32_t type, const void *data,
                            size_t len)
{
    size_t padded = (len + 7) & ~(size_t)7;
    if (at == 0 || at + 8 + padded > room)
        return 0;
    store_be32(head + at, type);
    store_be32(head + at + 4, (uint32_t)len);
    memset(head + at + 8, 0, padded);
    if (len)
        memcpy(head + at + 8, data, len);
    return at + 8 + padded;
}

/* The names of all features this program knows. */
static size_t put_features(uint8_t *head, size_t at, size_t room)
{
    static const struct {
        uint8_t kind, bit;
        const char *name;
    } known[] = {
        {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
        {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
        {2, 0, "bitmaps"},          {2, 1, "raw external data"},
    };
    uint8_t table[ARRAY_LEN(known) * 48] = {0};
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        table[i * 48] = known[i].kind;
        table[i * 48 + 1] = known[i].bit;
        memcpy(table + i * 48 + 2, known[i].name, strlen(known[i].name));
    }
    return put_extension(head, at, room, QCOW2_EXT_FEATURES, table, sizeof table);
}

/* Puts the extensions of the old header that are not ours to change. */
static size_t put_others(const struct qcow2 *q, uint8_t *head, size_t at, const uint8_t *old,
                         size_t room)
{
    uint64_t name = load_be64(old + QCOW2_H_BACKING_OFF);
    size_t end = name >= q->header_length && name < room ? (size_t)name : room;
    for (size_t from = q->header_length; at && from + 8 <= end;) {
        uint32_t type = load_be32(old + from), len = load_be32(old + from + 4);
        if (type == QCOW2_EXT_END || len > end - from - 8)
            break;
        if (type != QCOW2_EXT_BACKING_FORMAT && type != QCOW2_EXT_DATA_FILE &&
            type != QCOW2_EXT_FEATURES)
            at = put_extension(head, at, room, type, old + from + 8, len);
        from += 8 + (((size_t)len + 7) & ~(size_t)7);
    }
    return at;
}

/* Fills head[header_length ..) with extensions and the backing file's name, and the header's fields
 * for the latter. `old`: the header as it was, whose other extensions are kept; or NULL. The short
 * extensions come first, so that they are in the first sector. -ENOSPC: they do not fit. */
static int build_tail(const struct qcow2 *q, const struct qcow2_names *names, const uint8_t *old,
                      uint8_t *head)
{
    size_t room = (size_t)q->cluster, at = q->header_length, name_at, len;
    size_t need = names->backing ? strlen(names->backing) : 0;
    memset(head + at, 0, room - at);
    if (names->backing_format)
        at = put_extension(head, at, room, QCOW2_EXT_BACKING_FORMAT, names->backing_format,
                           strlen(names->backing_format));
    if (names->data_file)
        at = put_extension(head, at, room, QCOW2_EXT_DATA_FILE, names->data_file,
                           strlen(names->data_file));
    if (old)
        at = put_others(q, head, at, old, room);
    if (q->version == 3 && at) {
        size_t more = put_features(head, at, room);
        if (more && more + 8 + need <= room)
            at = more;
    }
    at = put_extension(head, at, room, QCOW2_EXT_END, NULL, 0);
    if (!at || at + need > room)
        return -ENOSPC;
    name_at = at;
    if (old && (len = load_be32(old + QCOW2_H_BACKING_LEN)) && need) {
        /* Not on top of the present name, so that the old header stays whole until the switch. */
        uint64_t was = load_be64(old + QCOW2_H_BACKING_OFF);
        if (was && was < at + need && at < was + len && was + len + need <= room)
            name_at = (size_t)was + len;
    }
    store_be64(head + QCOW2_H_BACKING_OFF, need ? name_at : 0);
    store_be32(head + QCOW2_H_BACKING_LEN, (uint32_t)need);
    if (need)
        memcpy(head + name_at, names->backing, need);
    return 0;
}

int qcow2_header_tail(const struct qcow2 *q, const struct qcow2_names *names, uint8_t *head,
                      size_t room)
{
    (void)room;
    return build_tail(q, names, NULL, head);
}

/* Writes the first cluster: what the present header does not refer to, then its sector. */
static int switch_header(struct qcow2 *q, const uint8_t *head)
{
    int rc = 0;
    if (q->cluster > 512) {
        rc = node_write(q->file, head + 512, q->cluster - 512, 512, 0);
        if (!rc)
            rc = node_flush(q->file);
    }
    if (!rc)
        rc = node_write(q->file, head, 512, 0, 0);
    return rc ? rc : node_flush(q->file);
}

int qcow2_rebase(struct node *n, const char *backing, const char *backing_format, struct error *e)
{
    struct qcow2 *q = qcow2_of(n);
    if (n->readonly)
        return error_set(e, ERR_STATE, "the image is opened for reading only");
    if (backing && strlen(backing) > QCOW2_MAX_NAME)
        return error_set(e, ERR_LIMIT, "the name of a backing file has at most %d bytes",
                         QCOW2_MAX_NAME);
    if (backing && q->raw_data)
        return error_set(e, ERR_STATE, "an image with a raw data file cannot have a backing file");
    if (backing_format && strlen(backing_format) > MAX_FORMAT_NAME)
        return error_set(e, ERR_LIMIT, "the name of a format is too long");
    int rc = qcow2_begin(q);
    CLEANUP_FREE uint8_t *old = malloc(q->cluster), *head = malloc(q->cluster);
    if (!old || !head)
        return error_set(e, ERR_NOMEM, "out of memory");
    struct qcow2_names names = {backing, backing ? backing_format : NULL, q->data_name};
    pthread_mutex_lock(&q->meta);
    if (!rc)
        rc = node_read(q->file, old, q->cluster, 0);
    if (!rc) {
        memcpy(head, old, q->cluster);
        rc = build_tail(q, &names, old, head);
    }
    if (!rc)
        rc = switch_header(q, head);
    char *name = backing ? strdup(backing) : NULL;
    char *format = backing && backing_format ? strdup(backing_format) : NULL;
    if (!rc) {
        free(q->backing_name);
        free(q->backing_format);
        q->backing_name = name;
        q->backing_format = format;
    } else {
        free(name);
        free(format);
    }
    pthread_mutex_unlock(&q->meta);
    if (rc == -ENOSPC)
        return error_set(e, ERR_LIMIT, "the name does not fit into the image's first cluster");
    return rc ? error_errno(e, ERR_IO, -rc, "cannot write the header") : 0;
}
