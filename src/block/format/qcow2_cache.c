/*
 * qcow2_cache.c - a bounded cache of slices of L2 tables or refcount blocks.
 *
 * 1. Changes are made under `meta`, those of the L2 cache under `map`, too; looking needs one of
 *    them. The cache of refcount blocks is only used under `meta`.
 * 2. A slot that is dirty or frozen is never given to another slice, except dirty ones of a cache
 *    that may be written at any time.
 * 3. Memory of a slot is allocated when it is first used.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/format/qcow2_int.h"

int qcow2_cache_init(struct qcow2_cache *c, uint64_t bytes, uint32_t slice, bool write_any_time)
{
    uint64_t n = max_u64(bytes / slice, QCOW2_MIN_SLOTS);
    if (n > 1u << 24)
        n = 1u << 24;
    *c = (struct qcow2_cache){
        .nslot = (unsigned)n, .slice = slice, .write_any_time = write_any_time};
    c->slot = calloc(n, sizeof *c->slot);
    c->bucket = malloc(n * sizeof *c->bucket);
    if (!c->slot || !c->bucket) {
        qcow2_cache_free(c);
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < n; i++)
        c->bucket[i] = -1;
    return 0;
}

void qcow2_cache_free(struct qcow2_cache *c)
{
    for (unsigned i = 0; c->slot && i < c->nslot; i++) {
        free(c->slot[i].data);
        free(c->slot[i].frozen);
    }
    free(c->slot);
    free(c->bucket);
    c->slot = NULL;
    c->bucket = NULL;
}

static void lock_map(struct qcow2 *q, const struct qcow2_cache *c)
{
    if (c == &q->l2)
        pthread_mutex_lock(&q->map);
}

static void unlock_map(struct qcow2 *q, const struct qcow2_cache *c)
{
    if (c == &q->l2)
        pthread_mutex_unlock(&q->map);
}

static int *bucket_of(const struct qcow2_cache *c, uint64_t where)
{
    return &c->bucket[where / c->slice % c->nslot];
}

struct qcow2_slot *qcow2_cache_peek(struct qcow2_cache *c, uint64_t where)
{
    for (int i = *bucket_of(c, where); i >= 0; i = c->slot[i].next) {
        struct qcow2_slot *s = &c->slot[i];
        if (s->where == where) {
            __atomic_store_n(&s->recent, true, __ATOMIC_RELAXED); /* `map` or `meta`, not both */
            return s;
        }
    }
    return NULL;
}

static void unlink_slot(struct qcow2_cache *c, struct qcow2_slot *s)
{
    int self = (int)(s - c->slot);
    int *link = bucket_of(c, s->where);
    while (*link != self)
        link = &c->slot[*link].next;
    *link = s->next;
    s->used = false;
}

static int write_slot(struct qcow2 *q, struct qcow2_cache *c, struct qcow2_slot *s)
{
    int rc = node_write(q->file, s->data, c->slice, s->where, 0);
    if (rc)
        return rc;
    q->file_end = max_u64(q->file_end, s->where + c->slice);
    s->dirty = false;
    c->busy--;
    return 0;
}

/* The second-chance clock: a slot that was used since the hand passed it last stays. */
static int find_victim(struct qcow2 *q, struct qcow2_cache *c, struct qcow2_slot **out)
{
    for (unsigned step = 0; step < 2 * c->nslot + 1; step++) {
        struct qcow2_slot *s = &c->slot[c->hand];
        c->hand = c->hand + 1 == c->nslot ? 0 : c->hand + 1;
        if (s->used && (s->recent || s->frozen || (s->dirty && !c->write_any_time))) {
            s->recent = false;
            continue;
        }
        if (s->used && s->dirty) {
            int rc = write_slot(q, c, s);
            if (rc)
                return rc;
        }
        *out = s;
        return 0;
    }
    return -ENOMEM; /* cannot be: qcow2_lock_update() keeps half of them clean */
}

int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t where, struct qcow2_slot **out)
{
    struct qcow2_slot *s = qcow2_cache_peek(c, where);
    if (s) {
        *out = s;
        return 0;
    }
    lock_map(q, c);
    int rc = find_victim(q, c, &s);
    if (!rc && s->used)
        unlink_slot(c, s);
    unlock_map(q, c);
    if (rc)
        return rc;
    if (!s->data && !(s->data = malloc(c->slice)))
        return -ENOMEM;
    rc = node_read(q->file, s->data, c->slice, where); /* nobody else sees the slot now */
    if (rc)
        return rc;
    lock_map(q, c);
    s->where = where;
    s->used = true;
    s->dirty = false;
    s->recent = true;
    s->next = *bucket_of(c, where);
    *bucket_of(c, where) = (int)(s - c->slot);
    unlock_map(q, c);
    *out = s;
    return 0;
}

void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_slot *s)
{
    if (!s->dirty && !s->frozen)
        c->busy++;
    s->dirty = true;
}

int qcow2_cache_write(struct qcow2 *q, struct qcow2_cache *c)
{
    for (unsigned i = 0; c->busy && i < c->nslot; i++) {
        int rc = c->slot[i].used && c->slot[i].dirty ? write_slot(q, c, &c->slot[i]) : 0;
        if (rc)
            return rc;
    }
    return 0;
}

void qcow2_cache_drop(struct qcow2 *q, struct qcow2_cache *c, uint64_t where, uint64_t len)
{
    lock_map(q, c);
    for (uint64_t at = where & ~(uint64_t)(c->slice - 1); at < where + len; at += c->slice) {
        struct qcow2_slot *s = qcow2_cache_peek(c, at);
        if (!s)
            continue;
        if (s->dirty || s->frozen)
            c->busy--;
        free(s->frozen);
        s->frozen = NULL;
        s->dirty = false;
        unlink_slot(c, s);
    }
    unlock_map(q, c);
}

void qcow2_cache_drop_all(struct qcow2 *q, struct qcow2_cache *c)
{
    for (unsigned i = 0; i < c->nslot; i++)
        if (c->slot[i].used && !c->slot[i].dirty && !c->slot[i].frozen)
            qcow2_cache_drop(q, c, c->slot[i].where, 1);
}
