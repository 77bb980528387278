/*
 * raid_jobs.h - the same thing done by several nodes at the same time.
 */
#ifndef SOSIA_BLOCK_LAYER_RAID_JOBS_H
#define SOSIA_BLOCK_LAYER_RAID_JOBS_H

#include <pthread.h>

#include "block/node.h"

#define RAID_THREADS 8

enum raid_op { RAID_READ, RAID_WRITE, RAID_ZERO, RAID_DISCARD, RAID_FLUSH };

struct raid_call;

struct raid_job {
    struct node *node;
    enum raid_op op;
    const struct iovec *iov; /* READ, WRITE */
    int niov;
    uint64_t offset, len; /* the latter of ZERO and DISCARD */
    unsigned flags;
    int result;
    struct raid_call *call;
    struct raid_job *next;
};

/* Threads that help whoever has several jobs; they start when they are needed, and without any the
 * callers do all of it. */
struct raid_helpers {
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    struct raid_job *first, *last;
    unsigned idle, queued, nthreads;
    bool closing;
    pthread_t thread[RAID_THREADS];
};

void raid_helpers_init(struct raid_helpers *h);
void raid_helpers_fini(struct raid_helpers *h);

/* Does all jobs and fills in their results: `together` where that is worth a change of threads,
 * else one after the other. */
void raid_do(struct raid_helpers *h, struct raid_job *job, unsigned n, bool together);

#endif
