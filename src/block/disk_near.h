/*
 * disk_near.h - on which processor a worker runs.
 *
 * A guest that makes one small write after the other waits for each, so nothing is won by making it
 * on another processor; but to wake a thread there, and to be woken from there, takes several times
 * as long as to copy a page, above all where the host is a virtual machine itself. The host's
 * scheduler looks for an idle processor all the same. So a worker that gets lone writes, time and
 * again from the same processor, binds itself to that one:
 *
 *            STREAK lone writes from one processor
 *       FREE -------------------------------------> BOUND --. from another one, after a STREAK
 *        ^                                            |  ^  |
 *        |   another request, or from another one     |  '--'
 *        |-<------------------------------------------|
 *        |  they come late: something else runs there |
 *        '-<-- HOLDOFF writes later --- AWAY <--------'
 */
#ifndef SOSIA_BLOCK_DISK_NEAR_H
#define SOSIA_BLOCK_DISK_NEAR_H

#include <sched.h>

#include <stdbool.h>
#include <stdint.h>

struct disk_near { /* a worker's own; zeroes at first */
    bool bound;
    int bound_to;
    int cpu;          /* where the last ones came from */
    unsigned streak;  /* how many lone writes in a row */
    unsigned holdoff; /* lone writes until it may be bound again */
    uint64_t waits;   /* ns of about the last 64 of those, while it is bound */
    cpu_set_t free;   /* where it ran before it was bound */
};

/* It was given a lone write, submitted on processor `cpu` that long ago. */
void disk_near_lone(struct disk_near *n, int cpu, uint64_t waited);
/* It was given something else. */
void disk_near_other(struct disk_near *n);

#endif
