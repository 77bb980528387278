/*
 * qcow2_write.c - writing the guest's bytes.
 *
 * A write is done in steps. A step writes in place, or gives a run of clusters a new place: under
 * `meta` it plans and takes the clusters, then writes them with no lock held, what it does not
 * cover copied from what the guest saw before, and then, under `meta` again, sets the entries.
 * Meanwhile the run is in `inflight`, which keeps every other change of its mapping waiting.
 * Entries therefore never refer to data that is not written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "block/format/qcow2_int.h"
#include "block/iov.h"

#define ON_STACK   32   /* segments */
#define MAX_FREED  4096 /* runs of clusters waiting for a flush */
#define ZERO_CHUNK (64 * KIB)
#define ZERO_PARTS 16

struct step {
    uint64_t offset, len;      /* of the guest, what the caller's bytes cover */
    uint64_t first, n;         /* offset of the first cluster, clusters */
    uint64_t head, tail;       /* bytes to be copied in front and behind */
    bool head_zero, tail_zero; /* they are zeroes */
    bool reuse, fresh;         /* stays in its place; the place reads as zeroes */
    uint64_t host;             /* of the first cluster */
    uint64_t linked;           /* clusters whose entries are set */
};

int qcow2_begin(struct qcow2 *q)
{
    atomic_store_explicit(&q->written, true, memory_order_relaxed);
    if (atomic_load(&q->ready) && !(q->incompat & QCOW2_INCOMPAT_CORRUPT))
        return 0;
    if (q->node.readonly)
        return -EROFS;
    int rc = 0;
    pthread_mutex_lock(&q->meta);
    if (q->incompat & QCOW2_INCOMPAT_CORRUPT) {
        rc = -EIO;
    } else if (!atomic_load(&q->ready)) {
        uint64_t keep = q->autoclear & QCOW2_AUTOCLEAR_RAW, incompat = q->incompat;
        if (qcow2_lazy(q))
            q->incompat |= QCOW2_INCOMPAT_DIRTY;
        bool change = keep != q->autoclear || incompat != q->incompat;
        q->autoclear = keep;
        rc = change ? qcow2_header_features(q) : 0;
        if (!rc)
            atomic_store(&q->ready, true);
    }
    pthread_mutex_unlock(&q->meta);
    return rc;
}

int qcow2_lock_update(struct qcow2 *q)
{
    pthread_mutex_lock(&q->meta);
    while (q->l2.busy > q->l2.nslot / 2 || q->nfreed > MAX_FREED) {
        pthread_mutex_unlock(&q->meta);
        int rc = qcow2_sync(q);
        if (rc)
            return rc;
        pthread_mutex_lock(&q->meta);
    }
    return 0;
}

bool qcow2_wait_inflight(struct qcow2 *q, uint64_t offset, uint64_t *len)
{
    uint64_t first = offset >> q->cluster_bits;
    for (struct qcow2_inflight *f = q->inflight; f; f = f->next) {
        uint64_t last = (offset + *len - 1) >> q->cluster_bits;
        if (f->first > last || f->last < first)
            continue;
        if (f->first <= first) {
            pthread_cond_wait(&q->landed, &q->meta);
            return true;
        }
        *len = (f->first << q->cluster_bits) - offset;
    }
    return false;
}

void qcow2_takeoff(struct qcow2 *q, struct qcow2_inflight *f, uint64_t offset, uint64_t len)
{
    *f = (struct qcow2_inflight){offset >> q->cluster_bits, (offset + len - 1) >> q->cluster_bits,
                                 q->inflight};
    q->inflight = f;
}

void qcow2_land(struct qcow2 *q, struct qcow2_inflight *f)
{
    struct qcow2_inflight **link = &q->inflight;
    while (*link != f)
        link = &(*link)->next;
    *link = f->next;
    pthread_cond_broadcast(&q->landed);
}

/* Whether a place that is to be written is one for data. Beyond the file's end it is if it has a
 * refcount: the file may have lost its end when the power failed. */
static int check_place(struct qcow2 *q, uint64_t host, uint64_t len)
{
    uint64_t v = 0, last = (host + len - 1) >> q->cluster_bits;
    if (qcow2_external(q))
        return 0;
    if (qcow2_guarded(q, host, len))
        return qcow2_corrupt(q, "data overlaps metadata", host);
    if (last < qcow2_clusters(q, q->file_end))
        return 0;
    int rc = qcow2_refcount_get(q, last, &v);
    if (!rc && v == 0)
        rc = qcow2_corrupt(q, "data lies beyond the end of the file", host);
    if (!rc)
        q->file_end = max_u64(q->file_end, host + len);
    return rc;
}

static bool has_data(const struct qcow2 *q, const struct qcow2_entry *v)
{
    if (v->e & QCOW2_COMPRESSED)
        return true;
    if (q->ext_l2)
        return (v->bits & 0xffffffff) != 0;
    return (v->e & QCOW2_OFFSET) && !(q->version >= 3 && (v->e & QCOW2_ZERO));
}

static bool in_own_place(const struct qcow2 *q, const struct qcow2_entry *v)
{
    return !(v->e & QCOW2_COMPRESSED) && (v->e & QCOW2_COPIED) &&
           ((v->e & QCOW2_OFFSET) || qcow2_external(q));
}

/* How many clusters from the first one need a new place, within the step. Sets *last to the entry
 * of the last of them. */
static int count_new(struct qcow2 *q, struct step *s, struct qcow2_entry *last)
{
    uint64_t end = s->offset + s->len;
    s->n = 1;
    for (uint64_t at = s->first + q->cluster; at < end; at += q->cluster, s->n++) {
        struct qcow2_entry v;
        int rc = qcow2_entry_get(q, at, &v);
        if (rc)
            return rc;
        if (in_own_place(q, &v))
            break;
        *last = v;
    }
    s->len = min_u64(end, s->first + s->n * q->cluster) - s->offset;
    return 0;
}

/* Whether the guest sees zeroes there; `len` may be 0. */
static int sees_zeroes(struct qcow2 *q, uint64_t offset, uint64_t len, bool *zeroes)
{
    *zeroes = true;
    while (len && *zeroes) {
        struct qcow2_run run;
        int rc = qcow2_lookup_locked(q, offset, len, &run);
        if (rc)
            return rc;
        uint64_t below = q->node.backing ? node_size(q->node.backing) : 0;
        *zeroes = run.kind == QCOW2_ZEROES || (run.kind == QCOW2_HOLE && offset >= below);
        offset += run.len;
        len -= run.len;
    }
    return 0;
}

/* What has to be copied around the caller's bytes: to the bounds of subclusters, or of the cluster
 * if it moves with data in it. Nothing in a raw data file: it is what the guest reads, even where
 * a crash kept bytes whose entry it lost. */
static int plan_copies(struct qcow2 *q, struct step *s, const struct qcow2_entry *first,
                       const struct qcow2_entry *last)
{
    if (q->raw_data)
        return 0;
    uint64_t sub = 1ull << q->sub_bits, end = s->offset + s->len;
    uint64_t h = has_data(q, first) && !s->reuse ? q->cluster : sub;
    uint64_t t = has_data(q, last) && !s->reuse ? q->cluster : sub;
    s->head = s->offset & (h - 1);
    s->tail = -end & (t - 1);
    if (s->reuse) { /* subclusters with data stay as they are */
        unsigned i = (unsigned)((s->offset & (q->cluster - 1)) >> q->sub_bits);
        unsigned k = (unsigned)(((end - 1) & (q->cluster - 1)) >> q->sub_bits);
        if (q->ext_l2 && first->bits >> i & 1)
            s->head = 0;
        if (q->ext_l2 && first->bits >> k & 1)
            s->tail = 0;
    }
    int rc = sees_zeroes(q, s->offset - s->head, s->head, &s->head_zero);
    return rc ? rc : sees_zeroes(q, end, s->tail, &s->tail_zero);
}

/* Plans a step that gives clusters a place. */
static int plan(struct qcow2 *q, struct step *s, uint64_t offset, uint64_t len)
{
    struct qcow2_entry first, last;
    *s = (struct step){.offset = offset, .first = offset & ~(q->cluster - 1)};
    s->len = min_u64(len, max_u64(QCOW2_MAX_STEP, q->cluster));
    uint64_t span = q->cluster << q->slice_bits; /* the entries are in one slice */
    s->len = min_u64(s->len, span - (offset & (span - 1)));
    int rc = qcow2_entry_get(q, s->first, &first);
    if (rc)
        return rc;
    last = first;
    s->reuse = in_own_place(q, &first);
    if (s->reuse) {
        s->n = 1;
        s->host = first.e & QCOW2_OFFSET;
        s->len = min_u64(s->len, s->first + q->cluster - s->offset);
        rc = check_place(q, s->host, q->cluster);
    } else {
        rc = count_new(q, s, &last);
        uint64_t want = s->n;
        if (!rc && qcow2_external(q))
            s->host = s->first;
        else if (!rc)
            rc = qcow2_alloc_some(q, &s->n, &s->host, &s->fresh);
        if (!rc && s->n < want) { /* the last cluster is another one now */
            s->len = s->first + s->n * q->cluster - s->offset;
            rc = qcow2_entry_get(q, s->first + (s->n - 1) * q->cluster, &last);
        }
    }
    if (!rc && !(rc = plan_copies(q, s, &first, &last)))
        return 0;
    if (!s->reuse && !qcow2_external(q) && s->host)
        qcow2_free_now(q, s->host, s->n * q->cluster);
    return rc;
}

/* The bytes around the caller's; beyond the disk's end they are zeroes. */
static int copy_around(struct qcow2 *q, uint8_t *buf, uint64_t len, uint64_t offset)
{
    uint64_t size = node_size(&q->node), there = offset < size ? min_u64(len, size - offset) : 0;
    memset(buf + there, 0, len - there);
    return there ? qcow2_read_buf(q, buf, there, offset) : 0;
}

/* Writes a step's bytes to their place; no lock held. */
static int write_data(struct qcow2 *q, struct step *s, const struct iov_cursor *c)
{
    uint64_t head = s->fresh && s->head_zero ? 0 : s->head;
    uint64_t tail = s->fresh && s->tail_zero ? 0 : s->tail;
    struct iovec some[ON_STACK], *iov = some;
    int k = 0, max = c->niov + 2, rc = 0;
    uint8_t *buf = head + tail ? malloc(head + tail) : NULL;
    if (max > ON_STACK)
        iov = malloc((size_t)max * sizeof *iov);
    if ((head + tail && !buf) || !iov)
        rc = -ENOMEM;
    if (!rc && head) {
        if (s->head_zero)
            memset(buf, 0, head);
        else
            rc = copy_around(q, buf, head, s->offset - head);
        iov[k++] = (struct iovec){buf, head};
    }
    if (!rc) {
        uint64_t got;
        k += iov_slice(c, s->len, iov + k, max - 1 - k, &got);
        if (got != s->len)
            rc = -EINVAL;
    }
    if (!rc && tail) {
        if (s->tail_zero)
            memset(buf + head, 0, tail);
        else
            rc = copy_around(q, buf + head, tail, s->offset + s->len);
        iov[k++] = (struct iovec){buf + head, tail};
    }
    if (!rc)
        rc = node_writev(q->data, iov, k, s->host + (s->offset - head - s->first), 0);
    free(buf);
    if (iov != some)
        free(iov);
    return rc;
}

/* Bits of the subclusters that [from, to), offsets within the cluster, touches. */
static uint64_t sub_mask(const struct qcow2 *q, uint64_t from, uint64_t to)
{
    unsigned a = (unsigned)(from >> q->sub_bits), b = (unsigned)((to - 1) >> q->sub_bits);
    return ((1ull << (b - a + 1)) - 1) << a;
}

/* Sets the entries. */
static int link_clusters(struct qcow2 *q, struct step *s)
{
    uint64_t from = s->offset - s->head, to = s->offset + s->len + s->tail;
    int rc = qcow2_table_own(q, s->first);
    for (; !rc && s->linked < s->n; s->linked++) {
        uint64_t at = s->first + s->linked * q->cluster;
        struct qcow2_entry old, new = {(s->host + (at - s->first)) | QCOW2_COPIED, 0};
        rc = qcow2_entry_get(q, at, &old);
        if (rc)
            return rc;
        if (q->ext_l2) {
            uint64_t m = sub_mask(q, max_u64(from, at) - at, min_u64(to, at + q->cluster) - at);
            uint64_t kept = old.e & QCOW2_COMPRESSED ? 0 : old.bits;
            new.bits = (kept & ~(m << 32)) | m;
        }
        rc = qcow2_entry_set(q, at, new);
        if (rc)
            return rc;
    }
    return rc;
}

static int allocate_and_write(struct qcow2 *q, struct step *s, const struct iov_cursor *c)
{
    struct qcow2_inflight f;
    qcow2_takeoff(q, &f, s->first, s->n * q->cluster);
    pthread_mutex_unlock(&q->meta);
    int rc = write_data(q, s, c), full = qcow2_lock_update(q);
    if (full)
        pthread_mutex_lock(&q->meta);
    rc = rc ? rc : full;
    if (!rc)
        rc = link_clusters(q, s);
    if (rc && !s->reuse && !qcow2_external(q) && s->linked < s->n)
        qcow2_free_now(q, s->host + s->linked * q->cluster, (s->n - s->linked) * q->cluster);
    qcow2_land(q, &f);
    pthread_mutex_unlock(&q->meta);
    return rc;
}

static int write_in_place(struct qcow2 *q, const struct qcow2_run *run, struct iov_cursor c,
                          unsigned flags)
{
    struct iovec iov[ON_STACK];
    uint64_t done = 0, got;
    while (done < run->len) {
        int k = iov_slice(&c, run->len - done, iov, ON_STACK, &got);
        int rc = node_writev(q->data, iov, k, run->host + done, flags);
        if (rc)
            return rc;
        iov_advance(&c, got);
        done += got;
    }
    return 0;
}

/* What can be done in one go; *done may be 0. *placed: metadata has changed. */
static int write_step(struct qcow2 *q, const struct iov_cursor *c, uint64_t offset, uint64_t len,
                      unsigned flags, uint64_t *done, bool *placed)
{
    struct qcow2_run run = {.len = 0};
    struct step s;
    *done = 0;
    int rc = qcow2_lock_update(q);
    if (rc)
        return rc;
    if (qcow2_wait_inflight(q, offset, &len)) {
        pthread_mutex_unlock(&q->meta);
        return 0;
    }
    rc = qcow2_lookup_locked(q, offset, len, &run);
    bool here = !rc && run.kind == QCOW2_DATA && run.copied;
    if (here)
        rc = check_place(q, run.host, run.len);
    else if (!rc)
        rc = plan(q, &s, offset, len);
    if (rc || here) {
        pthread_mutex_unlock(&q->meta);
        *done = run.len;
        return rc ? rc : write_in_place(q, &run, *c, flags);
    }
    *done = s.len;
    *placed = true;
    return allocate_and_write(q, &s, c);
}

/* A durable write in place needs no flush of its own unless its mapping is not durable yet. */
static int make_durable(struct qcow2 *q, bool placed)
{
    if (!placed) {
        pthread_mutex_lock(&q->meta);
        placed = q->l2.busy || q->nl1_fix || q->settling;
        pthread_mutex_unlock(&q->meta);
    }
    return placed ? qcow2_flush(&q->node) : -atomic_load(&q->flush_error);
}

int qcow2_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset, unsigned flags)
{
    struct qcow2 *q = qcow2_of(n);
    struct iov_cursor c = {iov, niov, 0};
    uint64_t len = 0, done;
    bool placed = false;
    if (!iov_total(iov, niov, &len))
        return -EINVAL;
    int rc = qcow2_begin(q);
    if (rc)
        return rc;
    iov_advance(&c, 0);
    while (len > 0) {
        rc = write_step(q, &c, offset, len, flags & NODE_FUA, &done, &placed);
        if (rc)
            return rc;
        iov_advance(&c, done);
        offset += done;
        len -= done;
    }
    return flags & NODE_FUA ? make_durable(q, placed) : 0;
}

int qcow2_write_zero_bytes(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    static const uint8_t zeroes[ZERO_CHUNK];
    while (len > 0) {
        struct iovec iov[ZERO_PARTS];
        struct qcow2_run run;
        uint64_t below = q->node.backing ? node_size(q->node.backing) : 0, done = 0;
        int k = 0, rc = qcow2_lookup(q, offset, len, &run);
        if (rc)
            return rc;
        if (run.kind == QCOW2_ZEROES || (run.kind == QCOW2_HOLE && offset >= below)) {
            done = run.len;
        } else {
            for (; k < ZERO_PARTS && done < run.len; k++) {
                size_t part = (size_t)min_u64(run.len - done, ZERO_CHUNK);
                iov[k] = (struct iovec){(void *)(uintptr_t)zeroes, part};
                done += part;
            }
            rc = qcow2_write(&q->node, iov, k, offset, 0);
        }
        if (rc)
            return rc;
        offset += done;
        len -= done;
    }
    return 0;
}
