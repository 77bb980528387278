/*
 * disk_core.h - what the parts of disk.c share.
 *
 * A request goes one of two ways. The fast one: the nodes tell where its bytes lie, without
 * blocking, and io_uring transfers them there. The slow one: a worker thread calls the topmost
 * node's operation, which may block. All but flushes pass a gate first that keeps overlapping
 * requests apart (rule 1 of node.h).
 *
 *                 overlaps another                       worker thread: node_*()
 *        .-- READY (done at once: done() is called by blk_end())
 *        |
 *     submit ----> WAITING on that one ---.          .--> SLOW --.
 *        |                                v          |           v
 *        `------------------------------> gate ------+        finished ----> done()
 *        |  (while the size changes: HELD)           |           ^
 *        `---- flush, refused ----> SLOW             `--> FAST --'
 *                                                         ring's thread; what io_uring did not
 *                                                         do completely goes to SLOW
 *
 * Invariants:
 *  1. `lock` owns everything here but `blk`, which belongs to the device lock. Lock order: device
 *     lock, then `lock`. No blocking operation and no done() is called with `lock` held; no thread
 *     of ours takes the device lock inside it.
 *  2. A request that has passed the gate overlaps no other one that has, except reads each other.
 *     What counts are the exact bytes; of a slow write, zero or discard the whole granules that it
 *     touches, as it may move them. Nobody is moving a granule that a fast write goes to: that is
 *     what it overlaps then.
 *  3. A request waits for one request that was submitted before it, or that has passed the gate.
 *     Hence there is no circle of waiting requests. When that one is finished it tries again.
 *  4. A request is in no list any more when its done() is called; it may be gone afterwards.
 */
#ifndef SOSIA_BLOCK_DISK_CORE_H
#define SOSIA_BLOCK_DISK_CORE_H

#include "block/disk.h"
#include "block/uring.h"

#define DISK_WORKERS 4

struct req_list { /* linked by `next`, in order */
    struct blk_req *head, *tail;
};

struct disk {
    struct blk blk;
    struct node *top;
    struct node *unsettled; /* an image that an overlay was put over, and that is not durable yet */
    const char *name;
    bool told;        /* of a failure; with the device lock held */
    uint64_t granule; /* a power of two */
    pthread_mutex_t *dev_lock;
    pthread_mutex_t lock;
    struct blk_req *active; /* at the gate or through it, in no order; linked by `note` */
    unsigned nwriting;      /* of those: not reads */
    uint64_t seq;
    unsigned inflight;      /* submitted, `done` has not returned */
    pthread_cond_t drained; /* `inflight` is 0, or all of it held */
    unsigned waiting;       /* threads, for that */
    unsigned nheld;
    bool hold; /* the size is being changed: nothing is let to the gate */
    struct req_list held;

    bool at_once; /* between blk_begin() and blk_end() */
    bool ending;  /* in blk_end() */
    bool no_reads_at_once;
    uint64_t copied; /* bytes of what was done at once since blk_begin() */
    struct req_list ready;

    struct uring *ring; /* NULL: only the slow way */
    bool plugged;
    bool stuck; /* the kernel did not take what the ring has; a worker tries again */

    struct req_list slow;
    unsigned queued, nquick; /* requests in `slow`; of those: quick */
    bool writing;            /* a worker has a quick one */
    int quick_cpu;           /* the last quick one: which processor it came from, and when */
    uint64_t quick_at;
    unsigned idle;
    unsigned nthreads, numbered, nworkers; /* made; have a number; those below it have begun */
    pthread_cond_t begin;                  /* more shall begin, or `closing` */
    unsigned telling;                      /* workers that call done() and then look at the queue */
    bool waking;         /* a worker was woken, or is about to be, and does not run yet */
    bool signal;         /* disk_unlock() is to wake one */
    pthread_cond_t wake; /* something is slow, stuck, or `closing` */
    struct deferred_list *deferred;
    struct deferred wake_later; /* does what `signal` says once the device lock is free */
    bool later;                 /* it will be run; until then the disk stays */
    bool closing;
    pthread_t worker[DISK_WORKERS];
};

static inline void req_push(struct req_list *l, struct blk_req *req)
{
    req->next = NULL;
    if (l->head)
        l->tail->next = req;
    else
        l->head = req;
    l->tail = req;
}

static inline struct blk_req *req_pop(struct req_list *l)
{
    struct blk_req *req = l->head;
    if (req)
        l->head = req->next;
    return req;
}

/* `before` is the one in front of it; NULL: it is the first. */
static inline void req_remove(struct req_list *l, struct blk_req *before, struct blk_req *req)
{
    *(before ? &before->next : &l->head) = req->next;
    if (l->tail == req)
        l->tail = before;
}

/* disk_gate.c. With `lock` held. */
/* Whether it could go straight through. */
bool disk_gate_open(struct disk *d, struct blk_req *req);
void disk_gate_enter(struct disk *d, struct blk_req *req);
/* It is finished: those that waited for it go on. */
void disk_gate_leave(struct disk *d, struct blk_req *req);

/* disk_fast.c. With `lock` held. */
enum disk_way {
    DISK_SENT,
    DISK_SLOW_EXACT, /* the slow way, but to places that are known: nothing moves */
    DISK_SLOW,
};
enum disk_way disk_fast(struct disk *d, struct blk_req *req);
bool disk_at_once(struct disk *d, struct blk_req *req);
void disk_fast_submit(struct disk *d);
void disk_fast_done(void *disk, const struct uring_event *ev, unsigned n);

/* disk_slow.c. Gives `lock` up; only then is a worker woken, which would have to wait for it. While
 * requests are collected none is, and after blk_end_lazy() the next one who gives `lock` up does
 * it. */
void disk_unlock(struct disk *d);
/* The same, with the device lock held. The worker will want that, too, so it is woken once it is
 * free, if somebody sees to that. */
void disk_unlock_later(struct disk *d);
void disk_wake_later(struct deferred *job);
/* With `lock` held. A `note.result` that is set already is reported, no more. */
void disk_slow(struct disk *d, struct blk_req *req);
void disk_slow_retry(struct disk *d); /* has disk_fast_submit() called again, a little later */
/* Without `lock`. 0 or an errno: there is none. */
int disk_slow_start(struct disk *d);
void disk_slow_stop(struct disk *d);

/* disk.c. Without `lock`: `n` requests are finished, their results in `note.result`. */
void disk_finish(struct disk *d, struct req_list *list);

#endif
