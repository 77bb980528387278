/*
 * copy.c - one image's contents into another.
 *
 * Threads take units of the disk, one after another. A unit holds whole clusters of the
 * destination, so no two threads write to one. Clusters that `from` holds compressed stay so if the
 * clusters of both have the same size.
 */
#include "block/copy.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/image.h"

#define THREADS   4
#define CHUNK     (2 * MIB) /* read at once */
#define ZERO_UNIT 4096u     /* shorter runs of zeroes are written as data */

struct job {
    const struct copy *c;
    uint64_t size, unit;
    uint32_t cluster; /* of `to` */
    _Atomic uint64_t next, done;
    atomic_int failed;  /* the first errno */
    atomic_bool writes; /* it was about writing */
    atomic_bool ended;
};

static void fail(struct job *j, int rc, bool writes)
{
    int none = 0;
    if (atomic_compare_exchange_strong(&j->failed, &none, -rc))
        atomic_store(&j->writes, writes);
}

static bool is_zero(const uint8_t *p, uint64_t len)
{
    return !p[0] && memcmp(p, p + 1, len - 1) == 0;
}

static int write_zeroes(const struct job *j, uint64_t at, uint64_t len)
{
    return j->c->overlay ? node_zero(j->c->to, at, len, NODE_MAY_UNMAP) : 0;
}

/* Data with its zeroes left out. */
static int write_data(const struct job *j, const uint8_t *buf, uint64_t at, uint64_t len)
{
    uint64_t step = min_u64(max_u64(j->cluster, ZERO_UNIT), CHUNK), from = 0, n;
    bool was_zero = false;
    int rc = 0;
    for (uint64_t i = 0; !rc && i <= len; i += n) {
        n = i < len ? min_u64(step - (at + i) % step, len - i) : 1;
        bool zero = i < len && is_zero(buf + i, n);
        if (i > from && (i == len || zero != was_zero)) {
            rc = was_zero ? write_zeroes(j, at + from, i - from)
                          : node_write(j->c->to, buf + from, i - from, at + from, 0);
            from = i;
        }
        was_zero = zero;
    }
    return rc;
}

/* Whole clusters of `to`, or its last; `len` is at most CHUNK. */
static int write_packed(const struct job *j, const uint8_t *buf, uint64_t at, uint64_t len)
{
    int rc = 0;
    for (uint64_t i = 0, n; !rc && i < len; i += n) {
        n = min_u64(j->cluster, len - i);
        rc = is_zero(buf + i, n) ? write_zeroes(j, at + i, n)
                                 : j->c->format->write_compressed(j->c->to, buf + i, n, at + i);
    }
    return rc;
}

/* Whether data at `at` is to be compressed; *len: of it, whole clusters of `to`, whose last one may
 * be a part. */
static bool packs(const struct job *j, const struct node_extent *x, uint64_t at, uint64_t *len)
{
    if (!j->c->compress && !(x->compressed && j->c->from->granularity == j->cluster))
        return false;
    if (!j->c->format || !j->c->format->write_compressed || j->cluster < 2 || at % j->cluster)
        return false;
    uint64_t whole = at + *len == node_size(j->c->to) ? *len : *len - *len % j->cluster;
    if (whole)
        *len = whole;
    return whole > 0;
}

static int copy_data(struct job *j, uint8_t *buf, const struct node_extent *x, uint64_t at,
                     uint64_t *len)
{
    bool packed = packs(j, x, at, len);
    int rc = node_read(j->c->from, buf, *len, at);
    if (rc)
        fail(j, rc, false);
    if (!rc) {
        rc = packed ? write_packed(j, buf, at, *len) : write_data(j, buf, at, *len);
        if (rc)
            fail(j, rc, true);
    }
    return rc;
}

/* What is at `at`. What is compressed by the cluster is looked at by the cluster: data, if there is
 * any in it. */
static int look(const struct job *j, uint64_t at, uint64_t end, struct node_extent *x)
{
    int rc = node_map(j->c->from, at, end - at, x);
    if (rc || !j->c->compress)
        return rc;
    if (x->kind != NODE_DATA && x->len < end - at)
        x->len -= x->len % j->cluster;
    if (x->kind == NODE_DATA || x->len == 0)
        *x = (struct node_extent){.kind = NODE_DATA, .len = end - at};
    return 0;
}

static int copy_unit(struct job *j, uint8_t *buf, uint64_t at, uint64_t end)
{
    int rc = 0;
    for (uint64_t len; !rc && at < end && !atomic_load(&j->failed); at += len) {
        struct node_extent x;
        rc = look(j, at, end, &x);
        if (rc) {
            fail(j, rc, false);
            break;
        }
        len = x.kind == NODE_DATA ? min_u64(x.len, CHUNK) : x.len;
        if (x.kind == NODE_DATA)
            rc = copy_data(j, buf, &x, at, &len);
        else if (x.kind == NODE_ZERO && (rc = write_zeroes(j, at, len)))
            fail(j, rc, true);
    }
    return rc;
}

static void work(struct job *j, bool first)
{
    CLEANUP_FREE uint8_t *buf = malloc(CHUNK);
    if (!buf)
        fail(j, -ENOMEM, false);
    while (!atomic_load(&j->failed) && !atomic_load(&j->ended)) {
        uint64_t at = atomic_fetch_add(&j->next, j->unit);
        if (at >= j->size)
            break;
        uint64_t len = min_u64(j->unit, j->size - at);
        copy_unit(j, buf, at, at + len);
        uint64_t done = atomic_fetch_add(&j->done, len) + len;
        if (first && j->c->progress && !j->c->progress(j->c->ctx, done, j->size))
            atomic_store(&j->ended, true);
    }
}

static void *worker(void *arg)
{
    work(arg, false);
    return NULL;
}

static int run(struct job *j, struct error *e)
{
    pthread_t thread[THREADS - 1];
    int n = 0;
    if (j->c->progress && !j->c->progress(j->c->ctx, 0, j->size))
        atomic_store(&j->ended, true);
    while (n < THREADS - 1 && pthread_create(&thread[n], NULL, worker, j) == 0)
        n++;
    work(j, true);
    while (n > 0)
        pthread_join(thread[--n], NULL);
    int failed = atomic_load(&j->failed);
    if (failed)
        return error_errno(e, failed == ENOMEM ? ERR_NOMEM : ERR_IO, failed, "%s failed",
                           atomic_load(&j->writes) ? "writing to the new image"
                                                   : "reading the image");
    return atomic_load(&j->ended) ? error_set(e, ERR_STATE, "interrupted") : 0;
}

int copy_run(const struct copy *c, struct error *e)
{
    struct job j = {.c = c, .size = node_size(c->from), .cluster = c->to->granularity};
    j.unit = max_u64(CHUNK, j.cluster);
    if (j.size > node_size(c->to))
        return error_set(e, ERR_LIMIT, "the new image is too small: %llu of %llu bytes",
                         (unsigned long long)node_size(c->to), (unsigned long long)j.size);
    if (c->compress &&
        (!c->format || !c->format->write_compressed || j.cluster < 2 || j.cluster > CHUNK))
        return error_set(e, ERR_STATE, "images of the format %s cannot be compressed",
                         c->format ? c->format->name : c->to->ops->name);
    return run(&j, e);
}

static int fill(struct copy *c, const struct output *out, const struct image_create *with,
                struct error *e)
{
    struct image_options o = {
        .format = with->format->name, .allow_outside = with->allow_outside, .at = out->temp};
    int rc = image_open(out->path, &o, &c->to, e);
    if (rc)
        return rc;
    c->format = with->format;
    rc = copy_run(c, e);
    int flushed = rc ? 0 : node_flush(c->to);
    if (flushed)
        rc = error_errno(e, ERR_IO, -flushed, "%s: cannot be written", out->path);
    node_close(c->to);
    c->to = NULL;
    return rc;
}

int copy_new(struct copy *c, const char *path, const struct image_create *with, struct error *e)
{
    struct output out;
    int rc = image_create(&out, path, with, e);
    if (rc)
        return rc;
    rc = fill(c, &out, with, e);
    if (!rc)
        return output_commit(&out, e);
    output_abort(&out);
    return rc;
}
