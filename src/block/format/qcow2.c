/*
 * qcow2.c - opening and closing qcow2 images, and the tables of the format's operations.
 */
#define _GNU_SOURCE
#include "block/format/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/format/formats.h"
#include "block/format/qcow2_int.h"

static _Atomic uint64_t cache_bytes = QCOW2_L2_CACHE;

void qcow2_set_cache_size(uint64_t bytes)
{
    atomic_store(&cache_bytes, bytes);
}

void qcow2_destroy(struct qcow2 *q)
{
    node_close(q->node.backing);
    if (q->data != q->file)
        node_close(q->data);
    qcow2_snapshots_free(q);
    qcow2_guard_free(q);
    qcow2_cache_free(&q->l2);
    qcow2_cache_free(&q->blocks);
    pthread_mutex_destroy(&q->flush);
    pthread_mutex_destroy(&q->meta);
    pthread_mutex_destroy(&q->map);
    pthread_mutex_destroy(&q->unpack);
    pthread_rwlock_destroy(&q->grace);
    pthread_cond_destroy(&q->landed);
    free(q->l1);
    free(q->rt);
    free(q->l1_fix);
    free(q->freed);
    free(q->unpacked);
    free(q->backing_name);
    free(q->backing_format);
    free(q->data_name);
    free(q->path);
    free(q);
}

static void close_node(struct node *n)
{
    struct qcow2 *q = qcow2_of(n);
    struct node *file = q->file;
    if (!n->readonly)
        qcow2_settle(q); /* has logged what went wrong */
    qcow2_destroy(q);
    node_close(file);
}

static int freeze_node(struct node *n)
{
    struct qcow2 *q = qcow2_of(n);
    int rc = qcow2_flush(n); /* also of what it has failed to write before */
    if (!rc)
        rc = qcow2_settle(q);
    if (!rc && q->data != q->file)
        rc = node_freeze(q->data);
    return rc ? rc : node_freeze(q->file);
}

static const struct node_ops ops = {
    .name = "qcow2",
    .read = qcow2_read,
    .write = qcow2_write,
    .flush = qcow2_flush,
    .zero = qcow2_zero,
    .discard = qcow2_discard,
    .map = qcow2_map,
    .resize = qcow2_resize,
    .resolve = qcow2_resolve,
    .freeze = freeze_node,
    .close = close_node,
};

static struct qcow2 *make(struct node *file, const struct format_open *o)
{
    struct qcow2 *q = calloc(1, sizeof *q);
    pthread_rwlockattr_t attr;
    if (!q)
        return NULL;
    q->node.ops = &ops;
    q->node.readonly = o->readonly || file->readonly;
    q->node.fd = -1;
    q->file = q->data = file;
    q->check = o->check;
    q->file_end = node_size(file);
    pthread_mutex_init(&q->flush, NULL);
    pthread_mutex_init(&q->meta, NULL);
    pthread_mutex_init(&q->map, NULL);
    pthread_mutex_init(&q->unpack, NULL);
    pthread_cond_init(&q->landed, NULL);
    pthread_rwlockattr_init(&attr); /* a flush is not to wait for ever while reads overlap */
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&q->grace, &attr);
    pthread_rwlockattr_destroy(&attr);
    q->path = strdup(o->path ? o->path : "image");
    if (q->path)
        return q;
    qcow2_destroy(q);
    return NULL;
}

/* The entries that a disk of `size` bytes needs. */
int qcow2_l1_bounds(struct qcow2 *q, uint64_t size, uint64_t *entries, struct error *e)
{
    uint64_t span = q->cluster << q->l2_bits;
    *entries = size / span + (size % span != 0);
    if (*entries * 8 > QCOW2_MAX_L1)
        return error_set(e, ERR_LIMIT,
                         "a disk of %llu bytes is too large for clusters of %llu bytes; larger "
                         "clusters allow for more",
                         (unsigned long long)size, (unsigned long long)q->cluster);
    return 0;
}

/* That of a snapshot may be shorter than the disk, which has grown since: the rest are holes. */
static int read_l1(struct qcow2 *q, bool short_is_fine, struct error *e)
{
    uint64_t need, bytes = q->l1_size * 8ull;
    int rc = qcow2_l1_bounds(q, q->node.size, &need, e);
    if (rc)
        return rc;
    if (need > q->l1_size && !short_is_fine)
        return error_set(e, ERR_FORMAT, "the L1 table is too small for the disk's size");
    q->l1 = malloc(bytes + 1);
    if (!q->l1)
        return error_set(e, ERR_NOMEM, "out of memory");
    rc = bytes ? node_read(q->file, q->l1, bytes, q->l1_offset) : 0;
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot read the L1 table");
    for (uint32_t i = 0; i < q->l1_size; i++)
        q->l1[i] = be64toh(q->l1[i]);
    return 0;
}

/* Shows the disk as it was at a snapshot. */
static int select_snapshot(struct qcow2 *q, const char *which, struct error *e)
{
    const struct qcow2_snapshot *found = NULL;
    for (uint32_t i = 0; i < q->nsnap && !found; i++)
        if (!strcmp(q->snap[i].id, which))
            found = &q->snap[i];
    for (uint32_t i = 0; i < q->nsnap && !found; i++)
        if (!strcmp(q->snap[i].name, which))
            found = &q->snap[i];
    if (!found)
        return error_set(e, ERR_STATE, "there is no snapshot with the ID or name '%s'", which);
    q->l1_offset = found->l1_offset;
    q->l1_size = found->l1_size;
    q->node.size = found->disk_size;
    q->node.readonly = true;
    return 0;
}

static int open_below(struct qcow2 *q, const struct format_open *o, const char *name,
                      const char *format, bool readonly, struct node **out, struct error *e)
{
    if (!o->opener)
        return error_set(e, ERR_STATE, "the image needs '%s', which must not be opened here", name);
    return o->opener->open(o->opener, q->path, name, format, readonly, o->opener->depth + 1, out,
                           e);
}

static int open_data_file(struct qcow2 *q, const struct format_open *o, struct error *e)
{
    struct node *data = NULL;
    if (!qcow2_external(q))
        return 0;
    if (!q->data_name)
        return error_set(e, ERR_FORMAT, "the image does not say the name of its data file");
    int rc = open_below(q, o, q->data_name, "file", q->node.readonly, &data, e);
    if (rc)
        return error_prefix(e, "data file");
    q->data = data;
    if (!q->node.readonly && !q->check && node_size(data) < q->node.size && data->ops->resize)
        rc = node_resize(data, q->node.size, e);
    return rc;
}

static int open_backing(struct qcow2 *q, const struct format_open *o, struct error *e)
{
    if (!q->backing_name || o->no_backing)
        return 0;
    int rc = open_below(q, o, q->backing_name, q->backing_format ? q->backing_format : "", true,
                        &q->node.backing, e);
    return rc; /* the opener says whose backing file it is */
}

/* What the bits in the header demand before the image may be written. */
static int make_writable(struct qcow2 *q, struct error *e)
{
    struct format_check found = {0};
    if (q->node.readonly || q->check)
        return 0;
    if (q->incompat & QCOW2_INCOMPAT_CORRUPT)
        return error_set(e, ERR_FORMAT,
                         "the image is marked as damaged and must not be written; repair it with: "
                         "sosia disk repair");
    if (q->incompat & QCOW2_INCOMPAT_DIRTY) {
        log_info("%s: was not closed; its refcounts are put right", q->path);
        int rc = qcow2_check(&q->node, FORMAT_FIX_LEAKS | FORMAT_FIX_ERRORS, &found, e);
        if (rc)
            return rc;
        if (found.errors != found.errors_fixed)
            return error_set(e, ERR_FORMAT,
                             "the image was not closed and is damaged beyond what is repaired "
                             "when it is opened; look at it with: sosia disk check");
    }
    if (qcow2_guard_init(q))
        return error_set(e, ERR_NOMEM, "out of memory");
    bool change = qcow2_lazy(q) || (q->autoclear & ~QCOW2_AUTOCLEAR_RAW);
    atomic_store(&q->ready, !change);
    return 0;
}

static int load(struct qcow2 *q, const struct format_open *o, struct error *e)
{
    int rc = qcow2_header_read(q, e);
    if (!rc)
        rc = qcow2_snapshots_read(q, e);
    if (!rc && o->snapshot)
        rc = select_snapshot(q, o->snapshot, e);
    if (!rc)
        rc = read_l1(q, o->snapshot != NULL, e);
    if (!rc)
        rc = qcow2_refcount_init(q, e);
    if (!rc && qcow2_cache_init(&q->l2, atomic_load(&cache_bytes), q->slice, false))
        rc = error_set(e, ERR_NOMEM, "out of memory");
    if (!rc)
        rc = open_data_file(q, o, e);
    if (rc)
        return error_prefix(e, "%s", q->path);
    rc = open_backing(q, o, e);
    if (rc)
        return rc;
    rc = make_writable(q, e);
    if (rc)
        return error_prefix(e, "%s", q->path);
    q->node.granularity = (uint32_t)q->cluster;
    q->node.alignment = (uint32_t)max_u64(q->file->alignment, q->data->alignment);
    return 0;
}

static int open_image(struct node *file, const struct format_open *o, struct node **out,
                      struct error *e)
{
    struct error ours;
    e = e ? e : &ours;
    struct qcow2 *q = make(file, o);
    if (!q)
        return error_set(e, ERR_NOMEM, "out of memory");
    int rc = load(q, o, e);
    if (rc) {
        qcow2_destroy(q); /* `file` stays the caller's */
        return rc;
    }
    *out = &q->node;
    return 0;
}

static bool probe(const uint8_t head[FORMAT_PROBE], uint64_t file_size)
{
    uint32_t version = load_be32(head + 4);
    return file_size >= QCOW2_V2_LENGTH && load_be32(head) == QCOW2_MAGIC && version >= 2;
}

const struct format format_qcow2 = {
    .name = "qcow2",
    .help = "QEMU's format: thin, overlays, compressed clusters, snapshots (read)",
    .suffixes = "qcow2 qcow",
    .options = qcow2_options,
    .snapshots = true,
    .probe = probe,
    .open = open_image,
    .create = qcow2_create,
    .check = qcow2_check,
    .info = qcow2_info,
    .write_compressed = qcow2_write_compressed,
    .rebase = qcow2_rebase,
};
