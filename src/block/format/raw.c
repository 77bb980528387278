/*
 * raw.c - the format without a format: the file's bytes are the disk's.
 *
 * Invariants:
 *  1. The disk is the file, rounded up to whole sectors. The ragged tail reads as zeroes; a write
 *     there extends the file, zeroing and discarding never do.
 *  2. A raw image whose format was guessed stays one: a write that makes its beginning look like
 *     another format is refused. Otherwise a guest could turn its disk into an image that names
 *     files of the host, which the next start would open.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/log.h"
#include "block/format/formats.h"
#include "block/iov.h"

#define SECTOR 512u

struct raw {
    struct node node;
    struct node *file;
    bool guarded;         /* invariant 2 */
    pthread_mutex_t head; /* one guarded write at a time: two could pass that may not together */
};

static struct raw *raw_of(struct node *n)
{
    return CONTAINER_OF(n, struct raw, node);
}

static int raw_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    return node_readv(raw_of(n)->file, iov, niov, offset);
}

/* Whether the image would still be taken for a raw one with these bytes at `offset`. */
static int check_head(struct raw *r, const struct iovec *iov, int niov, uint64_t offset)
{
    uint8_t head[FORMAT_PROBE];
    int rc = node_read(r->file, head, sizeof head, 0);
    if (rc)
        return rc;
    for (int i = 0; i < niov && offset < sizeof head; offset += iov[i++].iov_len)
        if (iov[i].iov_len > 0)
            memcpy(head + offset, iov[i].iov_base, min_u64(iov[i].iov_len, sizeof head - offset));
    const struct format *f = format_probe(head, node_size(r->file));
    if (f == &format_raw)
        return 0;
    log_guest("a write would make a raw disk look like a %s image, which the next start would "
              "open as one; it is refused. With 'format: raw' in the spec file it is not",
              f->name);
    return -EROFS;
}

static int raw_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                     unsigned flags)
{
    struct raw *r = raw_of(n);
    if (!r->guarded || offset >= FORMAT_PROBE)
        return node_writev(r->file, iov, niov, offset, flags);
    pthread_mutex_lock(&r->head);
    int rc = check_head(r, iov, niov, offset);
    if (!rc)
        rc = node_writev(r->file, iov, niov, offset, flags);
    pthread_mutex_unlock(&r->head);
    return rc;
}

static int raw_flush(struct node *n)
{
    return node_flush(raw_of(n)->file);
}

/* How many of the bytes lie within the file, invariant 1. */
static uint64_t within_file(struct raw *r, uint64_t offset, uint64_t len)
{
    uint64_t size = node_size(r->file);
    return offset < size ? min_u64(len, size - offset) : 0;
}

static int raw_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct raw *r = raw_of(n);
    return node_zero(r->file, offset, within_file(r, offset, len), flags);
}

static int raw_discard(struct node *n, uint64_t offset, uint64_t len)
{
    struct raw *r = raw_of(n);
    return node_discard(r->file, offset, within_file(r, offset, len));
}

static int raw_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    return node_map(raw_of(n)->file, offset, len, out);
}

static int raw_resize(struct node *n, uint64_t size, struct error *e)
{
    if (size == 0 || size % SECTOR)
        return error_set(e, ERR_LIMIT, "the size of a raw disk is a multiple of %u bytes", SECTOR);
    int rc = node_resize(raw_of(n)->file, size, e);
    if (!rc)
        __atomic_store_n(&n->size, size, __ATOMIC_RELAXED);
    return rc;
}

static bool raw_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                        struct node_place *out)
{
    struct raw *r = raw_of(n);
    if (write && r->guarded && offset < FORMAT_PROBE)
        return false;
    *out = (struct node_place){r->file, offset, len};
    return true;
}

static int raw_freeze(struct node *n)
{
    return node_freeze(raw_of(n)->file);
}

static void raw_close(struct node *n)
{
    struct raw *r = raw_of(n);
    node_close(r->file);
    pthread_mutex_destroy(&r->head);
    free(r);
}

static const struct node_ops raw_ops = {
    .name = "raw",
    .read = raw_read,
    .write = raw_write,
    .flush = raw_flush,
    .zero = raw_zero,
    .discard = raw_discard,
    .map = raw_map,
    .resize = raw_resize,
    .resolve = raw_resolve,
    .freeze = raw_freeze,
    .close = raw_close,
};

static int raw_open(struct node *file, const struct format_open *o, struct node **out,
                    struct error *e)
{
    uint64_t size = node_size(file);
    if (size == 0)
        return error_set(e, ERR_FORMAT,
                         "%s: is empty; a disk has a size, give it one with: truncate -s 10G '%s'",
                         o->path, o->path);
    if (size > INT64_MAX - SECTOR)
        return error_set(e, ERR_LIMIT, "%s: is too large for a disk", o->path);
    struct raw *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(e, ERR_NOMEM, "%s: out of memory", o->path);
    *r = (struct raw){.node = {.ops = &raw_ops,
                               .size = (size + SECTOR - 1) & ~(uint64_t)(SECTOR - 1),
                               .readonly = o->readonly || file->readonly,
                               .alignment = file->alignment},
                      .file = file,
                      .guarded = o->guessed};
    pthread_mutex_init(&r->head, NULL);
    *out = &r->node;
    return 0;
}

static int raw_create(struct node *file, const struct format_create *c, struct error *e)
{
    if (c->backing)
        return error_set(e, ERR_USAGE, "a raw image has no backing file; use qcow2");
    return node_resize(file, c->size, e);
}

const struct format format_raw = {
    .name = "raw",
    .help = "the bytes of the disk, nothing else",
    .suffixes = "raw img iso",
    .open = raw_open,
    .create = raw_create,
};
