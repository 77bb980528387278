/* clock.c - timers; see clock.h. */
#include "base/clock.h"

#include <stdlib.h>

void timerq_init(struct timerq *q, struct vclock *clock)
{
    *q = (struct timerq){.clock = clock};
}

void timerq_fini(struct timerq *q)
{
    free(q->heap);
    *q = (struct timerq){0};
}

int timer_init(struct timerq *q, struct timer *t, void (*fn)(void *arg), void *arg, struct error *e)
{
    /* One slot per registered timer: `cap` counts registrations. */
    struct timer **h = realloc(q->heap, (q->cap + 2) * sizeof *h);
    if (!h)
        return error_set(e, ERR_NOMEM, "out of memory for a timer");
    q->heap = h;
    q->cap++;
    *t = (struct timer){.fn = fn, .arg = arg};
    return 0;
}

static void heap_put(struct timerq *q, size_t i, struct timer *t)
{
    q->heap[i] = t;
    t->pos = i;
}

static void sift_up(struct timerq *q, size_t i, struct timer *t)
{
    for (; i > 1 && q->heap[i / 2]->deadline > t->deadline; i /= 2)
        heap_put(q, i, q->heap[i / 2]);
    heap_put(q, i, t);
}

static void sift_down(struct timerq *q, size_t i, struct timer *t)
{
    for (;;) {
        size_t c = 2 * i;
        if (c > q->count)
            break;
        if (c < q->count && q->heap[c + 1]->deadline < q->heap[c]->deadline)
            c++;
        if (q->heap[c]->deadline >= t->deadline)
            break;
        heap_put(q, i, q->heap[c]);
        i = c;
    }
    heap_put(q, i, t);
}

static void heap_remove(struct timerq *q, struct timer *t)
{
    size_t i = t->pos;
    t->pos = 0;
    if (t->lazy)
        atomic_fetch_sub(&q->nlazy, 1);
    t->lazy = false;
    struct timer *last = q->heap[q->count--];
    if (last == t)
        return;
    if (i > 1 && q->heap[i / 2]->deadline > last->deadline)
        sift_up(q, i, last);
    else
        sift_down(q, i, last);
}

void timer_arm(struct timerq *q, struct timer *t, ns_t deadline)
{
    ns_t before = timerq_next(q);
    if (t->pos)
        heap_remove(q, t);
    t->deadline = deadline;
    sift_up(q, ++q->count, t);
    if (deadline < before && q->kick)
        q->kick(q->kick_arg);
}

void timer_arm_lazy(struct timerq *q, struct timer *t, ns_t deadline)
{
    timer_arm(q, t, deadline);
    t->lazy = true;
    atomic_fetch_add(&q->nlazy, 1);
}

void timer_disarm(struct timerq *q, struct timer *t)
{
    if (t->pos)
        heap_remove(q, t);
}

ns_t timerq_next(const struct timerq *q)
{
    return q->count ? q->heap[1]->deadline : INT64_MAX;
}

static struct timer *find_lazy(const struct timerq *q)
{
    for (size_t i = 1; i <= q->count; i++)
        if (q->heap[i]->lazy)
            return q->heap[i];
    return NULL;
}

void timerq_idle(struct timerq *q)
{
    for (struct timer *t; (t = find_lazy(q));) {
        heap_remove(q, t);
        t->fn(t->arg);
    }
}

ns_t timerq_run(struct timerq *q)
{
    ns_t now = vclock_now(q->clock);
    while (q->count && q->heap[1]->deadline <= now) {
        struct timer *t = q->heap[1];
        heap_remove(q, t);
        t->fn(t->arg);
    }
    return timerq_next(q);
}
