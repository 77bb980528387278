/*
 * deferred.h - what a thread puts off until it has released a lock that it holds.
 *
 * Waking a thread that will want that lock is better done afterwards: where the other
 * processors are busy the one that is woken runs at once, in place of the one that woke it, and
 * then waits for it: four changes of threads instead of two.
 */
#ifndef SOSIA_BASE_DEFERRED_H
#define SOSIA_BASE_DEFERRED_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

struct deferred { /* in one list at a time; its owner keeps account of that */
    struct deferred *next;
    void (*run)(struct deferred *job); /* may free it */
};

/* Belongs to the lock. */
struct deferred_list {
    struct deferred *head;
    bool open; /* who holds the lock will call deferred_close() */
};

/* False: nobody will run it. With the lock held, as the next two. */
static inline bool deferred_add(struct deferred_list *l, struct deferred *job)
{
    if (!l->open)
        return false;
    job->next = l->head;
    l->head = job;
    return true;
}

static inline void deferred_open(struct deferred_list *l)
{
    l->open = true;
}

/* For deferred_run(). */
static inline struct deferred *deferred_close(struct deferred_list *l)
{
    struct deferred *head = l->head;
    *l = (struct deferred_list){0};
    return head;
}

/* After the lock. */
static inline void deferred_run(struct deferred *head)
{
    while (head) {
        struct deferred *next = head->next;
        head->run(head);
        head = next;
    }
}

static inline void deferred_lock(pthread_mutex_t *lock, struct deferred_list *l)
{
    pthread_mutex_lock(lock);
    deferred_open(l);
}

static inline void deferred_unlock(pthread_mutex_t *lock, struct deferred_list *l)
{
    struct deferred *jobs = deferred_close(l);
    pthread_mutex_unlock(lock);
    deferred_run(jobs);
}

#endif
