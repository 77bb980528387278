/*
 * throttle.c - a layer that keeps a disk below a number of operations and bytes per second.
 *
 * For each limit there is a time up to which it is used up (the "theoretical arrival time" of the
 * generic cell rate algorithm, ITU-T I.371 annex A): an operation moves it on by its cost, and
 * may start when it lies no more than the burst ahead of now. An operation that may start at once
 * can go the fast way; any other waits on a worker thread.
 */
#include "block/layer/throttle.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "block/iov.h"
#include "block/layer/filter.h"

struct throttle {
    struct filter filter;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* `hurry` or the limits */
    struct throttle_limits limit;
    int64_t iops_until, bytes_until; /* CLOCK_MONOTONIC, ns */
    unsigned hurry;
};

static struct throttle *throttle_of(struct node *n)
{
    return CONTAINER_OF(filter_of(n), struct throttle, filter);
}

static int64_t now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * NS_PER_SEC + ts.tv_nsec;
}

/* Nanoseconds that `cost` takes at `rate` per second; a day at most, which nothing waits for. */
static int64_t price(uint64_t cost, uint64_t rate)
{
    const double day = 86400.0 * NS_PER_SEC;
    double ns = rate ? (double)cost * NS_PER_SEC / (double)rate : 0;
    return ns < day ? (int64_t)ns : (int64_t)day;
}

/* Whether the limit lets something start; if not, *when is put off until it does. */
static bool allows(int64_t until, uint64_t rate, int64_t now, int64_t *when)
{
    if (!rate || until - THROTTLE_BURST_NS <= now)
        return true;
    if (*when < until - THROTTLE_BURST_NS)
        *when = until - THROTTLE_BURST_NS;
    return false;
}

static void charge(struct throttle *t, uint64_t bytes, int64_t now)
{
    if (t->iops_until < now)
        t->iops_until = now;
    if (t->bytes_until < now)
        t->bytes_until = now;
    t->iops_until += price(1, t->limit.iops);
    t->bytes_until += price(bytes, t->limit.bytes);
}

static bool may_start(const struct throttle *t, int64_t now, int64_t *when)
{
    bool a = allows(t->iops_until, t->limit.iops, now, when);
    bool b = allows(t->bytes_until, t->limit.bytes, now, when);
    return (a && b) || t->hurry > 0;
}

static void wait_turn(struct throttle *t, uint64_t bytes)
{
    pthread_mutex_lock(&t->lock);
    for (;;) {
        int64_t now = now_ns(), when = 0;
        if (may_start(t, now, &when)) {
            charge(t, bytes, now);
            break;
        }
        struct timespec ts = {.tv_sec = when / NS_PER_SEC, .tv_nsec = when % NS_PER_SEC};
        pthread_cond_timedwait(&t->changed, &t->lock, &ts);
    }
    pthread_mutex_unlock(&t->lock);
}

static uint64_t total(const struct iovec *iov, int niov)
{
    uint64_t sum = 0;
    return iov_total(iov, niov, &sum) ? sum : 0;
}

static int throttle_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    wait_turn(throttle_of(n), total(iov, niov));
    return filter_read(n, iov, niov, offset);
}

static int throttle_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                          unsigned flags)
{
    wait_turn(throttle_of(n), total(iov, niov));
    return filter_write(n, iov, niov, offset, flags);
}

/* Costs an operation, but no bytes: the host mostly notes it only. */
static int throttle_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    wait_turn(throttle_of(n), 0);
    return filter_zero(n, offset, len, flags);
}

static int throttle_discard(struct node *n, uint64_t offset, uint64_t len)
{
    wait_turn(throttle_of(n), 0);
    return filter_discard(n, offset, len);
}

/* Each place counts as an operation of its own: for the host it is one. */
static bool throttle_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                             struct node_place *out)
{
    struct throttle *t = throttle_of(n);
    int64_t now = now_ns(), when = 0;
    if (!node_resolve(t->filter.child, offset, len, write, out))
        return false;
    pthread_mutex_lock(&t->lock);
    bool at_once = may_start(t, now, &when);
    if (at_once)
        charge(t, out->len, now);
    pthread_mutex_unlock(&t->lock);
    return at_once;
}

static void throttle_hurry(struct node *n, bool on)
{
    struct throttle *t = throttle_of(n);
    pthread_mutex_lock(&t->lock);
    t->hurry += on ? 1 : -1u;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
    filter_hurry(n, on);
}

static void throttle_close(struct node *n)
{
    struct throttle *t = throttle_of(n);
    node_close(t->filter.child);
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static const struct node_ops throttle_ops = {
    .name = "throttle",
    .read = throttle_read,
    .write = throttle_write,
    .flush = filter_flush,
    .zero = throttle_zero,
    .discard = throttle_discard,
    .map = filter_map,
    .resize = filter_resize,
    .push = filter_push,
    .resolve = throttle_resolve,
    .hurry = throttle_hurry,
    .close = throttle_close,
};

int throttle_open(struct node *child, const struct throttle_limits *l, struct node **out,
                  struct error *e)
{
    struct throttle *t = calloc(1, sizeof *t);
    if (!t)
        return error_set(e, ERR_NOMEM, "out of memory");
    pthread_condattr_t attr;
    filter_init(&t->filter, &throttle_ops, child);
    t->limit = *l;
    pthread_mutex_init(&t->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->changed, &attr);
    pthread_condattr_destroy(&attr);
    *out = &t->filter.node;
    return 0;
}

void throttle_set(struct node *n, const struct throttle_limits *l)
{
    struct throttle *t = throttle_of(n);
    pthread_mutex_lock(&t->lock);
    t->limit = *l;
    t->iops_until = t->bytes_until = 0;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}
