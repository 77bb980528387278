/*
 * qcow2_map.c - where the guest's bytes are: L1, L2 tables, their entries.
 *
 * Entries are the image's and checked each time they are read: what points outside the file or not
 * at the beginning of a cluster is an error (-EIO), never an address.
 */
#include <errno.h>

#include "base/checked.h"
#include "block/format/qcow2_int.h"

void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *len)
{
    unsigned x = 62 - (q->cluster_bits - 8); /* "Compressed Clusters Descriptor" */
    uint64_t sectors = (entry & (QCOW2_COMPRESSED - 1)) >> x;
    *offset = entry & ((1ull << x) - 1);
    *len = (sectors + 1) * 512 - (*offset & 511);
}

/* The 64 bits that describe the subclusters of a standard cluster without extended entries. */
static uint64_t plain_bits(const struct qcow2 *q, uint64_t e)
{
    if (q->version >= 3 && (e & QCOW2_ZERO))
        return 1ull << 32;
    return (e & QCOW2_OFFSET) || (qcow2_external(q) && (e & QCOW2_COPIED)) ? 1 : 0;
}

/* One entry, decoded as if subclusters were always there. */
struct decoded {
    uint64_t e, bits, host;
    bool packed, placed, copied;
};

static int decode(const struct qcow2 *q, const uint8_t *slice, uint64_t index, uint64_t guest,
                  struct decoded *d)
{
    const uint8_t *p = slice + index * q->entry_size;
    *d = (struct decoded){.e = load_be64(p)};
    d->packed = (d->e & QCOW2_COMPRESSED) != 0;
    if (d->packed)
        return qcow2_external(q) ? -EIO : 0;
    d->bits = q->ext_l2 ? load_be64(p + 8) : plain_bits(q, d->e);
    d->host = d->e & QCOW2_OFFSET;
    d->copied = (d->e & QCOW2_COPIED) != 0;
    d->placed = d->host || (qcow2_external(q) && d->copied);
    if (d->host & (q->cluster - 1))
        return -EIO;
    if (qcow2_external(q) && d->placed && d->host != (guest & ~(q->cluster - 1)))
        return -EIO; /* "must match the guest offset" */
    if ((d->bits & d->bits >> 32 & 0xffffffff) || (!d->placed && (d->bits & 0xffffffff)))
        return -EIO; /* data and zeroes at once; data nowhere */
    return 0;
}

static enum qcow2_kind kind_of(const struct decoded *d, unsigned sub)
{
    if (d->packed)
        return QCOW2_PACKED;
    return d->bits >> sub & 1 ? QCOW2_DATA : d->bits >> (32 + sub) & 1 ? QCOW2_ZEROES : QCOW2_HOLE;
}

/* Whether more bytes, from the beginning of a cluster, go on as the run does. */
static bool goes_on(const struct qcow2_run *run, const struct decoded *d)
{
    bool placed = run->copied || run->host;
    if (run->kind == QCOW2_PACKED || kind_of(d, 0) != run->kind || d->placed != placed ||
        d->copied != run->copied)
        return false;
    return !placed || d->host == run->host + run->len;
}

/* The run at `offset`, at most `len` bytes, which lie within one slice. */
static int run_at(const struct qcow2 *q, const uint8_t *slice, uint64_t offset, uint64_t len,
                  struct qcow2_run *run)
{
    uint64_t mask = (1ull << q->slice_bits) - 1, index = offset >> q->cluster_bits & mask;
    uint64_t in = offset & (q->cluster - 1), sub_size = 1ull << q->sub_bits;
    struct decoded d;
    int rc = decode(q, slice, index, offset, &d);
    if (rc)
        return rc;
    unsigned sub = (unsigned)(in >> q->sub_bits);
    *run =
        (struct qcow2_run){.kind = kind_of(&d, sub), .copied = d.placed && d.copied, .entry = d.e};
    if (d.packed) {
        run->host = d.e;
        run->len = min_u64(len, q->cluster - in);
        return 0;
    }
    run->host = d.placed ? d.host + in : 0;
    for (;;) {
        while (sub < q->subs && run->len < len && kind_of(&d, sub) == run->kind) {
            run->len += run->len ? sub_size : sub_size - (in & (sub_size - 1));
            sub++;
        }
        if (sub < q->subs || run->len >= len || ++index > mask)
            break;
        if (decode(q, slice, index, offset + run->len, &d) || d.packed || !goes_on(run, &d))
            break; /* a bad entry is an error for who asks for it */
        sub = 0;
    }
    run->len = min_u64(run->len, len);
    return 0;
}

/* Bytes from `offset` to the end of what one slice maps. */
static uint64_t slice_rest(const struct qcow2 *q, uint64_t offset)
{
    uint64_t span = q->cluster << q->slice_bits;
    return span - (offset & (span - 1));
}

/* Where the slice for `offset` is in the file; 0: there is no table. */
static int slice_place(const struct qcow2 *q, uint64_t offset, uint64_t *where)
{
    uint64_t i = offset >> (q->cluster_bits + q->l2_bits);
    uint64_t table = i < q->l1_size ? q->l1[i] & QCOW2_OFFSET : 0;
    uint64_t entry = offset >> q->cluster_bits & ((1ull << q->l2_bits) - 1);
    *where = table ? table + (entry >> q->slice_bits) * q->slice : 0;
    return table & (q->cluster - 1) ? -EIO : 0;
}

static void hole(const struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_run *out)
{
    uint64_t span = q->cluster << q->l2_bits; /* what one table maps */
    uint64_t rest = span - (offset & (span - 1));
    *out = (struct qcow2_run){.kind = QCOW2_HOLE, .len = min_u64(len, rest)};
}

/* Looks only at what is in memory: 1 if that is not enough. `map` held. */
static int lookup_cached(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_run *out)
{
    uint64_t where;
    int rc = slice_place(q, offset, &where);
    if (rc)
        return rc;
    if (!where) {
        hole(q, offset, len, out);
        return 0;
    }
    struct qcow2_slot *s = qcow2_cache_peek(&q->l2, where);
    return s ? run_at(q, s->data, offset, min_u64(len, slice_rest(q, offset)), out) : 1;
}

int qcow2_lookup_locked(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_run *out)
{
    int rc = lookup_cached(q, offset, len, out);
    if (rc <= 0)
        return rc;
    uint64_t where;
    struct qcow2_slot *s;
    rc = slice_place(q, offset, &where);
    if (!rc)
        rc = qcow2_cache_get(q, &q->l2, where, &s);
    return rc ? rc : run_at(q, s->data, offset, min_u64(len, slice_rest(q, offset)), out);
}

int qcow2_lookup(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_run *out)
{
    pthread_mutex_lock(&q->map);
    int rc = lookup_cached(q, offset, len, out);
    pthread_mutex_unlock(&q->map);
    if (rc <= 0)
        return rc;
    pthread_mutex_lock(&q->meta);
    rc = qcow2_lookup_locked(q, offset, len, out);
    pthread_mutex_unlock(&q->meta);
    return rc;
}

/* Bytes of a hole: from the backing node, zeroes beyond its end. */
static bool resolve_hole(struct qcow2 *q, uint64_t offset, uint64_t len, struct node_place *out)
{
    struct node *b = q->node.backing;
    uint64_t size = b ? node_size(b) : 0;
    *out = (struct node_place){NULL, 0, len};
    if (offset < size)
        *out = (struct node_place){b, offset, min_u64(len, size - offset)};
    return true;
}

bool qcow2_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                   struct node_place *out)
{
    struct qcow2 *q = qcow2_of(n);
    struct qcow2_run run;
    if (n->alignment > q->cluster)
        return false;
    if (q->raw_data && !write && range_within(offset, len, node_size(q->data))) {
        *out = (struct node_place){q->data, offset, len};
        return true;
    }
    if (write && (!atomic_load(&q->ready) || (q->incompat & QCOW2_INCOMPAT_CORRUPT)))
        return false;
    pthread_mutex_lock(&q->map);
    bool known = !lookup_cached(q, offset, len, &run);
    if (known && write)
        known = run.kind == QCOW2_DATA && run.copied &&
                (qcow2_external(q) || !qcow2_guarded(q, run.host, run.len));
    pthread_mutex_unlock(&q->map);
    if (!known || run.kind == QCOW2_PACKED)
        return false;
    if (write)
        atomic_store_explicit(&q->written, true, memory_order_relaxed);
    if (run.kind == QCOW2_HOLE)
        return resolve_hole(q, offset, run.len, out);
    *out = (struct node_place){run.kind == QCOW2_DATA ? q->data : NULL, run.host, run.len};
    return true;
}

int qcow2_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    struct qcow2 *q = qcow2_of(n);
    struct qcow2_run run;
    int rc = qcow2_lookup(q, offset, len, &run);
    if (rc)
        return rc;
    *out = (struct node_extent){.len = run.len};
    switch (run.kind) {
    case QCOW2_HOLE:
        out->kind = NODE_HOLE;
        break;
    case QCOW2_ZEROES:
        out->kind = NODE_ZERO;
        break;
    case QCOW2_PACKED:
        out->kind = NODE_DATA;
        out->compressed = true;
        break;
    case QCOW2_DATA:
        out->kind = NODE_DATA;
        out->placed = true;
        out->below = q->data;
        out->where = run.host;
        break;
    }
    if (q->raw_data && run.kind != QCOW2_DATA)
        *out = (struct node_extent){
            .kind = NODE_DATA, .len = run.len, .placed = true, .below = q->data, .where = offset};
    return 0;
}
