/*
 * qcow2_flush.c - the order in which changes become durable.
 *
 * The promise: at any moment of kill -9 or power loss the image opens, a check finds leaked
 * clusters and nothing worse, and what was written before a flush that returned 0 is there. (With
 * lazy refcounts, the check follows the scan that the dirty bit demands.) It rests on these rules:
 *
 *  1. A cluster is taken in memory (refcount 1), then written, then its L2 entry is set in memory:
 *     entries in memory only refer to data that has been written.
 *  2. An L2 entry or L1 entry reaches the file only after an fsync that followed the writing of
 * what it refers to: data, a copy around it, a new table's contents, and the refcounts of all of
 * it.
 *  3. What a changed entry referred to before is freed (its refcount is lowered in memory, its
 * place may be given out again) only after an fsync that followed the writing of the change. So
 *     refcounts in memory are never too low for what the file may come to hold, and refcount
 *     blocks may be written at any time.
 *  4. A refcount table entry reaches the file only after an fsync that followed the writing of its
 *     block, and before the fsync of rule 2.
 *  5. A new L2 table is written whole, as zeroes or as a copy, when it is made; by rule 2 that is
 *     durable before the L1 entry, so entries of its slices may reach the file in any order.
 *  6. Header fields change by one write within the first sector, after an fsync that followed the
 *     writing of the table they refer to, and followed by one (L1 and refcount tables that grow).
 *  7. What a flush writes are copies ("frozen") of what was dirty when it began; what is changed
 *     while it sleeps in fsync waits for the next one.
 *
 *      dirty in memory --freeze--> frozen --[fsync A]--> in the file --[fsync B]--> durable
 *                                    blocks, table                        frees of rule 3
 *
 * A flush after writes in place needs one fsync, after allocations two, after a new refcount block
 * three.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/format/qcow2_int.h"

/* What a flush has taken to write. */
struct batch {
    unsigned frozen;
    struct qcow2_l1_fix *l1_fix;
    unsigned nl1_fix;
    struct qcow2_free *freed;
    unsigned nfreed;
    uint64_t *rt; /* values of the refcount table's changed entries */
    uint64_t rt_first, rt_last, rt_offset;
};

static int sync_file(struct qcow2 *q, struct node *n)
{
    int rc = node_flush(n), none = 0;
    if (rc)
        atomic_compare_exchange_strong(&q->flush_error, &none, -rc);
    return rc;
}

static int sync_all(struct qcow2 *q)
{
    int rc = qcow2_external(q) ? sync_file(q, q->data) : 0;
    return rc ? rc : sync_file(q, q->file);
}

static int freeze_slices(struct qcow2 *q, struct batch *b)
{
    struct qcow2_cache *c = &q->l2;
    for (unsigned i = 0; c->busy && i < c->nslot; i++) {
        struct qcow2_slot *s = &c->slot[i];
        if (!s->used || !s->dirty)
            continue;
        s->frozen = malloc(c->slice);
        if (!s->frozen)
            return -ENOMEM;
        memcpy(s->frozen, s->data, c->slice);
        s->dirty = false;
        b->frozen++;
    }
    return 0;
}

/* Frozen copies are gone; if they were not written, their slices are dirty again. */
static void thaw(struct qcow2 *q, bool written)
{
    struct qcow2_cache *c = &q->l2;
    for (unsigned i = 0; c->busy && i < c->nslot; i++) {
        struct qcow2_slot *s = &c->slot[i];
        if (!s->frozen)
            continue;
        free(s->frozen);
        s->frozen = NULL;
        s->dirty |= !written;
        if (!s->dirty)
            c->busy--;
    }
}

static int freeze_table(struct qcow2 *q, struct batch *b)
{
    uint64_t n = q->rt_last - q->rt_first;
    if (n == 0)
        return 0;
    b->rt = malloc(n * sizeof *b->rt);
    if (!b->rt)
        return -ENOMEM;
    memcpy(b->rt, q->rt + q->rt_first, n * sizeof *b->rt);
    b->rt_first = q->rt_first;
    b->rt_last = q->rt_last;
    b->rt_offset = q->rt_offset;
    q->rt_first = q->rt_last = 0;
    return 0;
}

/* Takes what is to be written; `meta` held. Refcount blocks are written right away (rule 3). */
static int freeze(struct qcow2 *q, struct batch *b, bool refcounts)
{
    int rc = 0;
    if (refcounts)
        rc = qcow2_cache_write(q, &q->blocks);
    if (!rc && refcounts)
        rc = freeze_table(q, b);
    if (!rc)
        rc = freeze_slices(q, b);
    for (unsigned i = 0; i < q->nl1_fix; i++)
        q->l1_fix[i].value = q->l1[q->l1_fix[i].index];
    b->l1_fix = q->l1_fix;
    b->nl1_fix = q->nl1_fix;
    b->freed = q->freed;
    b->nfreed = q->nfreed;
    q->l1_fix = NULL;
    q->nl1_fix = q->max_l1_fix = 0;
    q->freed = NULL;
    q->nfreed = q->max_freed = 0;
    return rc;
}

/* The failed batch's changes wait again; `meta` held. */
static void take_back(struct qcow2 *q, struct batch *b)
{
    thaw(q, false);
    if (b->rt && b->rt_offset == q->rt_offset) {
        bool none = q->rt_first == q->rt_last;
        q->rt_first = none ? b->rt_first : min_u64(q->rt_first, b->rt_first);
        q->rt_last = none ? b->rt_last : max_u64(q->rt_last, b->rt_last);
    }
    unsigned n = q->nl1_fix + b->nl1_fix;
    struct qcow2_l1_fix *p = realloc(q->l1_fix, (n + 1) * sizeof *p);
    if (p) {
        if (b->nl1_fix)
            memcpy(p + q->nl1_fix, b->l1_fix, b->nl1_fix * sizeof *p);
        q->l1_fix = p;
        q->nl1_fix = n;
        q->max_l1_fix = n + 1;
    } else { /* the tables are lost to the file: nothing may claim to be durable any more */
        atomic_store(&q->flush_error, ENOMEM);
    }
    for (unsigned i = 0; i < b->nfreed; i++)
        qcow2_free_later(q, b->freed[i].offset, b->freed[i].len);
}

/* Rule 4. */
static int write_rt(struct qcow2 *q, struct batch *b)
{
    if (!b->rt)
        return 0;
    int rc = sync_file(q, q->file);
    pthread_mutex_lock(&q->meta);
    if (!rc && b->rt_offset == q->rt_offset) /* else a new table has all of them */
        rc = qcow2_write_table(q, b->rt, b->rt_last - b->rt_first, q->rt_offset + b->rt_first * 8);
    pthread_mutex_unlock(&q->meta);
    return rc;
}

/* Writes the frozen entries; `meta` held. */
static int write_entries(struct qcow2 *q, struct batch *b)
{
    int rc = 0;
    for (unsigned i = 0; !rc && b->frozen && i < q->l2.nslot; i++)
        if (q->l2.slot[i].frozen)
            rc = node_write(q->file, q->l2.slot[i].frozen, q->l2.slice, q->l2.slot[i].where, 0);
    for (unsigned i = 0; !rc && i < b->nl1_fix; i++)
        rc = qcow2_write_table(q, &b->l1_fix[i].value, 1, q->l1_offset + b->l1_fix[i].index * 8ull);
    if (!rc)
        thaw(q, true);
    return rc;
}

static int write_batch(struct qcow2 *q, struct batch *b)
{
    int rc = write_rt(q, b);
    bool entries = b->frozen || b->nl1_fix;
    if (!rc && entries) {
        rc = sync_all(q); /* A */
        pthread_mutex_lock(&q->meta);
        if (!rc)
            rc = write_entries(q, b);
        pthread_mutex_unlock(&q->meta);
        if (!rc)
            rc = sync_file(q, q->file); /* B */
        return rc;
    }
    return rc ? rc : sync_all(q);
}

/* Rule 3. Reads that still look at the old places are waited for. */
static int free_batch(struct qcow2 *q, struct batch *b)
{
    int rc = 0;
    if (b->nfreed == 0)
        return 0;
    pthread_rwlock_wrlock(&q->grace);
    pthread_rwlock_unlock(&q->grace);
    pthread_mutex_lock(&q->unpack);
    q->unpacked_entry = 0; /* its place may soon hold something else */
    pthread_mutex_unlock(&q->unpack);
    pthread_mutex_lock(&q->meta);
    for (unsigned i = 0; !rc && i < b->nfreed; i++)
        rc = qcow2_free_now(q, b->freed[i].offset, b->freed[i].len);
    pthread_mutex_unlock(&q->meta);
    return rc;
}

/* One flush at a time; `flush` held. */
static int flush_once(struct qcow2 *q, bool refcounts)
{
    struct batch b = {0};
    pthread_mutex_lock(&q->meta);
    int rc = freeze(q, &b, refcounts);
    q->settling = true;
    pthread_mutex_unlock(&q->meta);
    if (!rc)
        rc = write_batch(q, &b);
    pthread_mutex_lock(&q->meta);
    if (rc)
        take_back(q, &b);
    q->settling = false;
    pthread_mutex_unlock(&q->meta);
    if (!rc)
        rc = free_batch(q, &b);
    free(b.l1_fix);
    free(b.freed);
    free(b.rt);
    return rc ? rc : -atomic_load(&q->flush_error);
}

/* A flush that began after this one was asked for serves it, too. */
int qcow2_sync(struct qcow2 *q)
{
    uint64_t ticket = ++q->flush_asked;
    int rc = 0;
    pthread_mutex_lock(&q->flush);
    if (q->flush_done < ticket) {
        uint64_t covers = q->flush_asked;
        rc = -atomic_load(&q->flush_error);
        if (!rc)
            rc = flush_once(q, !qcow2_lazy(q));
        if (!rc)
            q->flush_done = covers;
    }
    pthread_mutex_unlock(&q->flush);
    return rc;
}

int qcow2_flush(struct node *n)
{
    return n->readonly ? 0 : qcow2_sync(qcow2_of(n));
}

int qcow2_settle(struct qcow2 *q)
{
    if (!atomic_load(&q->written) || !atomic_load(&q->ready))
        return 0;
    pthread_mutex_lock(&q->flush);
    int rc = -atomic_load(&q->flush_error);
    for (int i = 0; !rc && i < 2; i++) /* the second time for what the first one has freed */
        rc = flush_once(q, true);
    pthread_mutex_unlock(&q->flush);
    if (!rc && (q->incompat & QCOW2_INCOMPAT_DIRTY)) {
        q->incompat &= ~QCOW2_INCOMPAT_DIRTY;
        rc = qcow2_header_features(q);
    }
    if (rc)
        log_error("%s: what was written last may be lost: %s", q->path, strerror(-rc));
    return rc;
}
