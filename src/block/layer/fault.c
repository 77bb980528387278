/*
 * fault.c - a layer whose operations fail, fall short or take long, by rules.
 */
#include "block/layer/fault.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "block/iov.h"
#include "block/layer/filter.h"

struct fault {
    struct filter filter;
    pthread_mutex_t lock; /* the rest; not held while anything is done */
    struct fault_rule rule[FAULT_RULES];
    unsigned seen[FAULT_RULES]; /* operations that a rule is about */
    unsigned nrule, hits;
};

static struct fault *fault_of(struct node *n)
{
    return CONTAINER_OF(filter_of(n), struct fault, filter);
}

/* Whether a rule hits; it is copied to *out. */
static bool hit(struct fault *f, enum fault_op op, uint64_t offset, uint64_t len,
                struct fault_rule *out)
{
    bool found = false;
    pthread_mutex_lock(&f->lock);
    for (unsigned i = 0; i < f->nrule && !found; i++) {
        const struct fault_rule *r = &f->rule[i];
        bool touched =
            op == FAULT_FLUSH || r->to == 0 || (offset < r->to && r->from < offset + len);
        if (!(r->ops & op) || !touched)
            continue;
        unsigned nth = f->seen[i]++;
        found = nth >= r->skip && (r->times == 0 || nth - r->skip < r->times);
        *out = *r;
    }
    f->hits += found;
    pthread_mutex_unlock(&f->lock);
    return found;
}

/* What becomes of an operation: 1: it is done as ever; 2: its first half; else its result. */
static int judge(struct node *n, enum fault_op op, uint64_t offset, uint64_t len, int *err)
{
    struct fault_rule r;
    if (!hit(fault_of(n), op, offset, len, &r))
        return 1;
    *err = r.err ? r.err : EIO;
    if (r.kind == FAULT_SHORT && (op & (FAULT_READ | FAULT_WRITE)))
        return 2;
    if (r.kind != FAULT_LATENCY)
        return -*err;
    struct timespec ts = {.tv_sec = (time_t)(r.ns / NS_PER_SEC),
                          .tv_nsec = (long)(r.ns % NS_PER_SEC)};
    while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
        continue;
    return 1;
}

static int fault_transfer(struct node *n, enum fault_op op, const struct iovec *iov, int niov,
                          uint64_t offset, unsigned flags)
{
    uint64_t len = 0;
    int err = 0;
    struct iovec half[64];
    iov_total(iov, niov, &len);
    int what = judge(n, op, offset, len, &err);
    if (what < 0)
        return what;
    if (what == 2) {
        struct iov_cursor c = {iov, niov, 0};
        iov = half;
        niov = iov_slice(&c, len / 2, half, ARRAY_LEN(half), &len);
    }
    int rc = op == FAULT_READ ? filter_read(n, iov, niov, offset)
                              : filter_write(n, iov, niov, offset, flags);
    return what == 2 ? -err : rc;
}

static int fault_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    return fault_transfer(n, FAULT_READ, iov, niov, offset, 0);
}

static int fault_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                       unsigned flags)
{
    return fault_transfer(n, FAULT_WRITE, iov, niov, offset, flags);
}

static int fault_flush(struct node *n)
{
    int err, what = judge(n, FAULT_FLUSH, 0, 0, &err);
    return what < 0 ? what : filter_flush(n);
}

static int fault_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    int err, what = judge(n, FAULT_ZERO, offset, len, &err);
    return what < 0 ? what : filter_zero(n, offset, len, flags);
}

static int fault_discard(struct node *n, uint64_t offset, uint64_t len)
{
    int err, what = judge(n, FAULT_DISCARD, offset, len, &err);
    return what < 0 ? what : filter_discard(n, offset, len);
}

static void fault_close(struct node *n)
{
    struct fault *f = fault_of(n);
    node_close(f->filter.child);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* No resolve: a rule may come at any time, so all of it goes the slow way. */
static const struct node_ops fault_ops = {
    .name = "fault",
    .read = fault_read,
    .write = fault_write,
    .flush = fault_flush,
    .zero = fault_zero,
    .discard = fault_discard,
    .map = filter_map,
    .resize = filter_resize,
    .hurry = filter_hurry,
    .close = fault_close,
};

int fault_open(struct node *child, struct node **out, struct error *e)
{
    struct fault *f = calloc(1, sizeof *f);
    if (!f)
        return error_set(e, ERR_NOMEM, "out of memory");
    filter_init(&f->filter, &fault_ops, child);
    pthread_mutex_init(&f->lock, NULL);
    *out = &f->filter.node;
    return 0;
}

int fault_add(struct node *n, const struct fault_rule *rule)
{
    struct fault *f = fault_of(n);
    int rc = ERR_LIMIT;
    pthread_mutex_lock(&f->lock);
    if (f->nrule < FAULT_RULES) {
        f->seen[f->nrule] = 0;
        f->rule[f->nrule++] = *rule;
        rc = 0;
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

void fault_clear(struct node *n)
{
    struct fault *f = fault_of(n);
    pthread_mutex_lock(&f->lock);
    f->nrule = 0;
    pthread_mutex_unlock(&f->lock);
}

unsigned fault_hits(struct node *n)
{
    struct fault *f = fault_of(n);
    pthread_mutex_lock(&f->lock);
    unsigned hits = f->hits;
    pthread_mutex_unlock(&f->lock);
    return hits;
}
