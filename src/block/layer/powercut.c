/*
 * powercut.c - a disk with a volatile write cache, and whose power fails.
 *
 * One lock for everything: it is slow, and there is nothing to race.
 */
#include "block/layer/powercut.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "block/iov.h"
#include "block/layer/filter.h"

#define SECTOR  512u
#define BUCKETS 4096u
#define MAX_VERSIONS                                                             \
    65536u /* 32 MiB; then the cache empties itself, as a disk's may at any time \
            */

struct version {
    struct version *older;
    uint8_t data[SECTOR];
};

struct sector {
    struct sector *next; /* of the bucket */
    uint64_t number;
    struct version *newest;
};

struct powercut {
    struct filter filter;
    pthread_mutex_t lock;
    struct sector *bucket[BUCKETS];
    unsigned nversion;
    bool armed, dead;
    uint64_t ops_left, rng;
};

static struct powercut *cut_of(struct node *n)
{
    return CONTAINER_OF(filter_of(n), struct powercut, filter);
}

/* xorshift64* (Vigna): the state is never 0. */
static uint64_t rnd(struct powercut *p, uint64_t n)
{
    p->rng ^= p->rng >> 12;
    p->rng ^= p->rng << 25;
    p->rng ^= p->rng >> 27;
    return (p->rng * 0x2545f4914f6cdd1du >> 16) % n;
}

static struct sector **find(struct powercut *p, uint64_t number)
{
    struct sector **s = &p->bucket[number % BUCKETS];
    while (*s && (*s)->number != number)
        s = &(*s)->next;
    return s;
}

static void forget(struct powercut *p, struct sector **at)
{
    struct sector *s = *at;
    *at = s->next;
    for (struct version *v = s->newest, *older; v; v = older, p->nversion--) {
        older = v->older;
        free(v);
    }
    free(s);
}

static void forget_all(struct powercut *p)
{
    for (unsigned b = 0; b < BUCKETS; b++)
        while (p->bucket[b])
            forget(p, &p->bucket[b]);
}

/* What the guest sees of a sector. */
static int present(struct powercut *p, uint64_t number, uint8_t data[SECTOR])
{
    struct sector *s = *find(p, number);
    uint64_t at = number * SECTOR, size = node_size(p->filter.child);
    if (s) {
        memcpy(data, s->newest->data, SECTOR);
        return 0;
    }
    memset(data, 0, SECTOR);
    return at < size ? node_read(p->filter.child, data, (size_t)min_u64(SECTOR, size - at), at) : 0;
}

/* Gives the child the contents of a sector; the last one may be a part. */
static int put(struct powercut *p, uint64_t number, const uint8_t *data, unsigned flags)
{
    uint64_t at = number * SECTOR, size = node_size(&p->filter.node);
    return at < size
               ? node_write(p->filter.child, data, (size_t)min_u64(SECTOR, size - at), at, flags)
               : 0;
}

static int put_all(struct powercut *p)
{
    for (unsigned b = 0; b < BUCKETS; b++)
        for (struct sector *s = p->bucket[b]; s; s = s->next) {
            int rc = put(p, s->number, s->newest->data, 0);
            if (rc)
                return rc;
        }
    forget_all(p);
    return 0;
}

static int add_version(struct powercut *p, uint64_t number, const uint8_t data[SECTOR])
{
    int rc = p->nversion < MAX_VERSIONS ? 0 : put_all(p);
    if (rc)
        return rc;
    struct sector **at = find(p, number);
    struct version *v = malloc(sizeof *v);
    struct sector *s = *at ? *at : calloc(1, sizeof *s);
    if (!v || !s) {
        free(v);
        if (!*at)
            free(s);
        return -ENOMEM;
    }
    memcpy(v->data, data, SECTOR);
    s->number = number;
    v->older = s->newest;
    s->newest = v;
    *at = s;
    p->nversion++;
    return 0;
}

static void die(struct powercut *p)
{
    unsigned keep = (unsigned)rnd(p, 5); /* of four: how many of the writes survive */
    for (unsigned b = 0; b < BUCKETS; b++)
        for (struct sector *s = p->bucket[b]; s; s = s->next) {
            struct version *v = s->newest;
            while (v && rnd(p, 4) >= keep)
                v = v->older;
            if (v)
                put(p, s->number, v->data, 0);
        }
    forget_all(p);
    p->dead = true;
}

/* An operation has been done, or will be if it is a flush: true: the power fails at this very one.
 */
static bool fails_now(struct powercut *p)
{
    if (!p->armed || p->ops_left-- > 0)
        return false;
    die(p);
    return true;
}

static int cut_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct powercut *p = cut_of(n);
    struct iov_cursor c = {iov, niov, 0};
    uint8_t data[SECTOR];
    pthread_mutex_lock(&p->lock);
    int rc = p->dead ? -EIO : 0;
    iov_advance(&c, 0);
    while (!rc && c.niov > 0) {
        size_t skip = offset % SECTOR;
        size_t len = (size_t)min_u64(SECTOR - skip, c.iov->iov_len - c.skip);
        rc = present(p, offset / SECTOR, data);
        memcpy((uint8_t *)c.iov->iov_base + c.skip, data + skip, len);
        iov_advance(&c, len);
        offset += len;
    }
    pthread_mutex_unlock(&p->lock);
    return rc;
}

/* `data` NULL: zeroes. */
static int write_bytes(struct powercut *p, const uint8_t *data, uint64_t offset, uint64_t len)
{
    uint8_t buf[SECTOR];
    int rc = 0;
    if (p->filter.node.grows && offset + len > p->filter.node.size)
        __atomic_store_n(&p->filter.node.size, offset + len, __ATOMIC_RELAXED);
    while (!rc && len > 0) {
        size_t skip = offset % SECTOR, part = (size_t)min_u64(SECTOR - skip, len);
        rc = present(p, offset / SECTOR, buf);
        if (data)
            memcpy(buf + skip, data, part);
        else
            memset(buf + skip, 0, part);
        rc = rc ? rc : add_version(p, offset / SECTOR, buf);
        data = data ? data + part : NULL;
        offset += part;
        len -= part;
    }
    return rc;
}

/* What was just written becomes durable, and nothing else. */
static int harden(struct powercut *p, uint64_t offset, uint64_t len)
{
    for (uint64_t k = offset / SECTOR; k * SECTOR < offset + len; k++) {
        struct sector **s = find(p, k);
        if (!*s)
            continue;
        int rc = put(p, k, (*s)->newest->data, 0);
        if (rc)
            return rc;
        forget(p, s);
    }
    return node_flush(p->filter.child);
}

static int cut_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                     unsigned flags)
{
    struct powercut *p = cut_of(n);
    uint64_t from = offset;
    pthread_mutex_lock(&p->lock);
    int rc = p->dead ? -EIO : 0;
    for (int i = 0; i < niov && !rc; offset += iov[i++].iov_len)
        rc = write_bytes(p, iov[i].iov_base, offset, iov[i].iov_len);
    if (!rc && fails_now(p))
        rc = -EIO;
    if (!rc && (flags & NODE_FUA))
        rc = harden(p, from, offset - from);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

static int cut_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct powercut *p = cut_of(n);
    pthread_mutex_lock(&p->lock);
    int rc = p->dead ? -EIO : write_bytes(p, NULL, offset, len);
    if (!rc && fails_now(p))
        rc = -EIO;
    if (!rc && (flags & NODE_FUA))
        rc = harden(p, offset, len);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

static int cut_flush(struct node *n)
{
    struct powercut *p = cut_of(n);
    pthread_mutex_lock(&p->lock);
    int rc = p->dead || fails_now(p) ? -EIO : put_all(p);
    if (!rc)
        rc = node_flush(p->filter.child);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

static int cut_discard(struct node *n, uint64_t offset, uint64_t len)
{
    struct powercut *p = cut_of(n);
    uint64_t size = node_size(p->filter.child);
    pthread_mutex_lock(&p->lock);
    int rc = p->dead ? -EIO : 0;
    if (!rc && offset < size)
        rc = node_discard(p->filter.child, offset, min_u64(len, size - offset));
    for (uint64_t k = (offset + SECTOR - 1) / SECTOR; !rc && (k + 1) * SECTOR <= offset + len;
         k++) {
        struct sector **s = find(p, k);
        if (*s)
            forget(p, s);
    }
    if (!rc && fails_now(p))
        rc = -EIO;
    pthread_mutex_unlock(&p->lock);
    return rc;
}

/* The change of the size is durable at once. */
static int cut_resize(struct node *n, uint64_t size, struct error *e)
{
    struct powercut *p = cut_of(n);
    pthread_mutex_lock(&p->lock);
    int rc = p->dead ? -EIO : put_all(p);
    rc = rc ? error_errno(e, ERR_IO, -rc, "cannot change the size") : filter_resize(n, size, e);
    pthread_mutex_unlock(&p->lock);
    return rc;
}

static void cut_close(struct node *n)
{
    struct powercut *p = cut_of(n);
    if (!p->dead)
        put_all(p);
    forget_all(p);
    node_close(p->filter.child);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static const struct node_ops cut_ops = {
    .name = "powercut",
    .read = cut_read,
    .write = cut_write,
    .flush = cut_flush,
    .zero = cut_zero,
    .discard = cut_discard,
    .resize = cut_resize,
    .close = cut_close,
};

int powercut_open(struct node *child, struct node **out, struct error *e)
{
    struct powercut *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(e, ERR_NOMEM, "out of memory");
    filter_init(&p->filter, &cut_ops, child);
    pthread_mutex_init(&p->lock, NULL);
    *out = &p->filter.node;
    return 0;
}

static void seed_rng(struct powercut *p, uint64_t seed)
{
    p->rng = (seed + 1) * 0x9e3779b97f4a7c15u;
    p->rng |= !p->rng;
}

void powercut_cut(struct node *n, uint64_t seed)
{
    struct powercut *p = cut_of(n);
    pthread_mutex_lock(&p->lock);
    seed_rng(p, seed);
    if (!p->dead)
        die(p);
    pthread_mutex_unlock(&p->lock);
}

void powercut_arm(struct node *n, uint64_t ops, uint64_t seed)
{
    struct powercut *p = cut_of(n);
    pthread_mutex_lock(&p->lock);
    seed_rng(p, seed);
    p->armed = true;
    p->ops_left = ops;
    pthread_mutex_unlock(&p->lock);
}

bool powercut_is_cut(struct node *n)
{
    struct powercut *p = cut_of(n);
    pthread_mutex_lock(&p->lock);
    bool dead = p->dead;
    pthread_mutex_unlock(&p->lock);
    return dead;
}
