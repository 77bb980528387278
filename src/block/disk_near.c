/* disk_near.c - see disk_near.h. */
#define _GNU_SOURCE
#include "block/disk_near.h"

#define STREAK  16
#define HOLDOFF 512
#define LATE_NS 50000   /* on average: longer than a wake-up across processors */
#define MOST_NS 1000000 /* of one */
#define AVERAGE 64      /* writes, about */

/* Who runs the VMM may have bound its threads meanwhile: that stays. */
static void set_free(struct disk_near *n)
{
    cpu_set_t now;
    if (n->bound && sched_getaffinity(0, sizeof now, &now) == 0 && CPU_COUNT(&now) == 1 &&
        CPU_ISSET((size_t)n->bound_to, &now))
        sched_setaffinity(0, sizeof n->free, &n->free);
    n->bound = false;
}

static void bind_to(struct disk_near *n, int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    if (cpu >= 0 && cpu < CPU_SETSIZE)
        CPU_SET((size_t)cpu, &one);
    if (!n->bound && sched_getaffinity(0, sizeof n->free, &n->free) < 0)
        CPU_ZERO(&n->free);
    CPU_AND(&one, &one, &n->free);
    if (CPU_COUNT(&one) == 1 && sched_setaffinity(0, sizeof one, &one) == 0) {
        n->bound = true;
        n->bound_to = cpu;
        n->waits = 0;
    } else {
        set_free(n);
        n->holdoff = HOLDOFF;
    }
}

void disk_near_lone(struct disk_near *n, int cpu, uint64_t waited)
{
    bool moved = cpu != n->cpu;
    n->waits += (waited < MOST_NS ? waited : MOST_NS) - n->waits / AVERAGE;
    bool late = n->waits > (uint64_t)LATE_NS * AVERAGE;
    if (n->bound && (late || (moved && n->streak < STREAK))) {
        set_free(n);
        n->holdoff = late ? HOLDOFF : 0;
    }
    n->streak = moved ? 0 : n->streak + 1;
    n->cpu = cpu;
    if (n->holdoff > 0)
        n->holdoff--;
    else if (n->bound ? moved : n->streak >= STREAK)
        bind_to(n, cpu);
}

void disk_near_other(struct disk_near *n)
{
    n->streak = 0;
    set_free(n);
}
