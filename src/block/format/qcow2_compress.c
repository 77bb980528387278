/*
 * qcow2_compress.c - compressed clusters: deflate without a header (type 0) and zstd (type 1).
 *
 * A compressed cluster occupies any bytes of one or two neighbouring clusters of the file, whose
 * refcounts count each compressed cluster in them. Output is bounded by the cluster, input by the
 * descriptor: two clusters at most.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "block/format/qcow2_int.h"

#define DEFLATE_WINDOW 12 /* bits; readers allocate no more than this */
#define ZSTD_WINDOW    21 /* bits: what a cluster can need at most; some more is allowed */

static int inflate_cluster(uint8_t *to, size_t room, const uint8_t *from, size_t len)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)from,
                  .avail_in = (uInt)len,
                  .next_out = to,
                  .avail_out = (uInt)room};
    if (inflateInit2(&z, -15) != Z_OK)
        return -ENOMEM;
    int rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    /* "decompression stops when it has produced a cluster of data" */
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR || rc == Z_OK) && z.avail_out == 0 ? 0 : -EIO;
}

static int unzstd_cluster(uint8_t *to, size_t room, const uint8_t *from, size_t len)
{
    ZSTD_DStream *z = ZSTD_createDStream();
    if (!z)
        return -ENOMEM;
    ZSTD_inBuffer in = {from, len, 0};
    ZSTD_outBuffer out = {to, room, 0};
    size_t rc = ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZSTD_WINDOW + 2);
    while (!ZSTD_isError(rc) && out.pos < room) {
        size_t before = in.pos + out.pos;
        rc = ZSTD_decompressStream(z, &out, &in);
        if (in.pos + out.pos == before)
            break;
    }
    bool bad = ZSTD_isError(rc) || out.pos < room;
    ZSTD_freeDStream(z);
    return bad ? -EIO : 0;
}

/* The whole cluster, into `to`. */
static int unpack_cluster(struct qcow2 *q, uint64_t entry, uint8_t *to)
{
    uint64_t at, len;
    qcow2_packed_place(q, entry, &at, &len);
    if (at > QCOW2_MAX_END || at >= node_size(q->file))
        return -EIO;
    CLEANUP_FREE uint8_t *from = malloc(len);
    if (!from)
        return -ENOMEM;
    uint64_t there = q->file->grows ? len : min_u64(len, node_size(q->file) - at);
    memset(from + there, 0, len - there);
    int rc = node_read(q->file, from, there, at);
    if (rc)
        return rc;
    return q->compression ? unzstd_cluster(to, q->cluster, from, len)
                          : inflate_cluster(to, q->cluster, from, len);
}

int qcow2_unpack(struct qcow2 *q, uint64_t entry, void *buf, uint64_t skip, uint64_t len)
{
    pthread_mutex_lock(&q->unpack);
    bool known = q->unpacked && q->unpacked_entry == entry;
    if (known)
        memcpy(buf, q->unpacked + skip, len);
    pthread_mutex_unlock(&q->unpack);
    if (known)
        return 0;
    uint8_t *cluster = malloc(q->cluster);
    if (!cluster)
        return -ENOMEM;
    int rc = unpack_cluster(q, entry, cluster);
    if (!rc)
        memcpy(buf, cluster + skip, len);
    if (!rc && (skip || len < q->cluster)) { /* more of it may be wanted */
        pthread_mutex_lock(&q->unpack);
        uint8_t *old = q->unpacked;
        q->unpacked = cluster;
        q->unpacked_entry = entry;
        cluster = old;
        pthread_mutex_unlock(&q->unpack);
    }
    free(cluster);
    return rc;
}

/* Returns bytes, 0 if it does not become smaller, or -errno. */
static int64_t pack(const struct qcow2 *q, const uint8_t *from, uint8_t *to, size_t room)
{
    if (q->compression) {
        size_t n = ZSTD_compress(to, room, from, q->cluster, ZSTD_CLEVEL_DEFAULT);
        return ZSTD_isError(n) ? 0 : (int64_t)n;
    }
    z_stream z = {.next_in = (Bytef *)(uintptr_t)from,
                  .avail_in = (uInt)q->cluster,
                  .next_out = to,
                  .avail_out = (uInt)room};
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, -DEFLATE_WINDOW, 9,
                     Z_DEFAULT_STRATEGY) != Z_OK)
        return -ENOMEM;
    int rc = deflate(&z, Z_FINISH);
    deflateEnd(&z);
    return rc == Z_STREAM_END ? (int64_t)(room - z.avail_out) : 0;
}

/* Whether the bytes can follow what was packed last: in its cluster, and in the next one if that is
 * free. *at is 0 if not. */
static int append(struct qcow2 *q, uint64_t len, uint64_t *at)
{
    uint64_t c = q->packed_at >> q->cluster_bits, v = 0, room = -q->packed_at & (q->cluster - 1);
    bool taken = true;
    *at = 0;
    if (!q->packed_at)
        return 0;
    int rc = qcow2_refcount_get(q, c, &v);
    if (rc || v == 0 || v >= q->refcount_max)
        return rc;
    if (room < len)
        rc = qcow2_alloc_at(q, c + 1, &taken);
    if (rc || !taken)
        return rc;
    rc = qcow2_refcount_set(q, c, v + 1);
    if (!rc)
        *at = q->packed_at;
    else if (room < len)
        qcow2_free_now(q, (c + 1) << q->cluster_bits, q->cluster);
    return rc;
}

/* Takes `len` bytes anywhere; `meta` held. */
static int alloc_bytes(struct qcow2 *q, uint64_t len, uint64_t *at)
{
    bool fresh;
    int rc = append(q, len, at);
    if (!rc && !*at)
        rc = qcow2_alloc(q, 1, at, &fresh);
    unsigned x = 62 - (q->cluster_bits - 8);
    if (!rc && x < 64 && *at >> min_u64(x, 56)) { /* the descriptor cannot hold it */
        qcow2_free_now(q, *at, len);
        return -EFBIG;
    }
    if (!rc)
        q->packed_at = (*at + len) & (q->cluster - 1) ? *at + len : 0;
    return rc;
}

static int link_packed(struct qcow2 *q, uint64_t offset, uint64_t at, uint64_t len)
{
    unsigned x = 62 - (q->cluster_bits - 8);
    uint64_t sectors = ((at + len - 1) >> 9) - (at >> 9);
    int rc = qcow2_table_own(q, offset);
    if (!rc)
        rc = qcow2_entry_set(q, offset,
                             (struct qcow2_entry){QCOW2_COMPRESSED | sectors << x | at, 0});
    return rc;
}

/* Writes what is packed; *busy: nothing was done, once more. */
static int place_packed(struct qcow2 *q, const uint8_t *buf, uint64_t len, uint64_t offset,
                        bool *busy)
{
    struct qcow2_inflight f;
    uint64_t at = 0, one = q->cluster;
    int rc = qcow2_lock_update(q);
    if (rc)
        return rc;
    *busy = qcow2_wait_inflight(q, offset, &one);
    if (!*busy)
        rc = alloc_bytes(q, len, &at);
    if (rc || *busy) {
        pthread_mutex_unlock(&q->meta);
        return rc;
    }
    qcow2_takeoff(q, &f, offset, q->cluster);
    pthread_mutex_unlock(&q->meta);
    rc = node_write(q->file, buf, len, at, 0);
    int full = qcow2_lock_update(q);
    if (full)
        pthread_mutex_lock(&q->meta);
    rc = rc ? rc : full;
    if (!rc)
        rc = link_packed(q, offset, at, len);
    if (rc)
        qcow2_free_now(q, at, len);
    qcow2_land(q, &f);
    pthread_mutex_unlock(&q->meta);
    return rc;
}

int qcow2_write_compressed(struct node *n, const void *buf, size_t len, uint64_t offset)
{
    struct qcow2 *q = qcow2_of(n);
    if (n->readonly)
        return -EROFS;
    if (qcow2_external(q))
        return -ENOTSUP;
    if ((offset & (q->cluster - 1)) || len == 0 || len > q->cluster || offset > node_size(n) ||
        len > node_size(n) - offset || (len < q->cluster && offset + len != node_size(n)))
        return -EINVAL;
    int rc = qcow2_begin(q);
    CLEANUP_FREE uint8_t *whole = calloc(2, q->cluster);
    if (rc || !whole)
        return rc ? rc : -ENOMEM;
    uint8_t *packed = whole + q->cluster;
    memcpy(whole, buf, len);
    int64_t size = pack(q, whole, packed, q->cluster - 1);
    if (size < 0)
        return (int)size;
    if (size == 0)
        return node_write(n, buf, len, offset, 0);
    bool busy = true;
    while (!rc && busy)
        rc = place_packed(q, packed, (uint64_t)size, offset, &busy);
    return rc;
}
