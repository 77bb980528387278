/*
 * raid_jobs.c - the same thing done by several nodes at the same time.
 *
 * The caller does a job itself, then whatever is still in the queue, so nobody depends on the
 * threads. `lock` owns the queue and the counts; no job is done with it held.
 */
#include "block/layer/raid_jobs.h"

#include <errno.h>

#include "base/thread.h"

#define THREAD_STACK (512 * KIB)

struct raid_call {
    unsigned left;
};

static void perform(struct raid_job *j)
{
    switch (j->op) {
    case RAID_READ:
        j->result = node_readv(j->node, j->iov, j->niov, j->offset);
        break;
    case RAID_WRITE:
        j->result = node_writev(j->node, j->iov, j->niov, j->offset, j->flags);
        break;
    case RAID_ZERO:
        j->result = node_zero(j->node, j->offset, j->len, j->flags);
        break;
    case RAID_DISCARD:
        j->result = node_discard(j->node, j->offset, j->len);
        break;
    case RAID_FLUSH:
        j->result = node_flush(j->node);
        break;
    }
}

/* With the lock held. */
static struct raid_job *pop(struct raid_helpers *h)
{
    struct raid_job *j = h->first;
    if (j) {
        h->first = j->next;
        h->queued--;
    }
    return j;
}

/* With the lock held, which is given up meanwhile. */
static void do_one(struct raid_helpers *h, struct raid_job *j)
{
    struct raid_call *call = j->call;
    pthread_mutex_unlock(&h->lock);
    perform(j);
    pthread_mutex_lock(&h->lock);
    if (--call->left == 0)
        pthread_cond_broadcast(&h->done);
}

static void *helper(void *arg)
{
    struct raid_helpers *h = arg;
    pthread_mutex_lock(&h->lock);
    for (struct raid_job *j;;) {
        h->idle++;
        while (!(j = pop(h)) && !h->closing)
            pthread_cond_wait(&h->wake, &h->lock);
        h->idle--;
        if (!j)
            break;
        do_one(h, j);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

void raid_helpers_init(struct raid_helpers *h)
{
    *h = (struct raid_helpers){0};
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->wake, NULL);
    pthread_cond_init(&h->done, NULL);
}

void raid_helpers_fini(struct raid_helpers *h)
{
    pthread_mutex_lock(&h->lock);
    h->closing = true;
    pthread_cond_broadcast(&h->wake);
    pthread_mutex_unlock(&h->lock);
    for (unsigned i = 0; i < h->nthreads; i++)
        pthread_join(h->thread[i], NULL);
    pthread_cond_destroy(&h->wake);
    pthread_cond_destroy(&h->done);
    pthread_mutex_destroy(&h->lock);
}

/* With the lock held. */
static void push(struct raid_helpers *h, struct raid_job *j)
{
    const struct thread_options o = {.name = "disk array", .stack = THREAD_STACK};
    j->next = NULL;
    if (h->first)
        h->last->next = j;
    else
        h->first = j;
    h->last = j;
    h->queued++;
    if (h->queued > h->idle && h->nthreads < RAID_THREADS &&
        thread_start(&h->thread[h->nthreads], &o, helper, h) == 0)
        h->nthreads++;
    pthread_cond_signal(&h->wake);
}

void raid_do(struct raid_helpers *h, struct raid_job *job, unsigned n, bool together)
{
    struct raid_call call = {.left = n};
    if (n == 0)
        return;
    if (!together || n == 1) {
        for (unsigned i = 0; i < n; i++)
            perform(&job[i]);
        return;
    }
    pthread_mutex_lock(&h->lock);
    for (unsigned i = 0; i < n; i++) {
        job[i].call = &call;
        if (i > 0)
            push(h, &job[i]);
    }
    do_one(h, &job[0]);
    while (call.left > 0) {
        struct raid_job *j = pop(h);
        if (j)
            do_one(h, j);
        else
            pthread_cond_wait(&h->done, &h->lock);
    }
    pthread_mutex_unlock(&h->lock);
}
