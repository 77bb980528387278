/*
 * coalesce.h - one interrupt for several requests that were done at once.
 *
 * A request that is done before the driver's notification of it returns would be an interrupt of
 * its own: a driver that has 32 to submit takes 32 interrupts. Where it turns out that it has more,
 * the interrupt is held back until MOST requests are done, or a vCPU has nothing else to do, or a
 * time has passed. Whether it has more cannot be seen from outside, only tried, now and then:
 *
 *                           `left` requests later
 *              NOW --------------------------------------> TRY
 *               ^   it took long, or fewer than WORTH were  |   ^
 *               |   done meanwhile                          |   | else
 *               `-------------------------------------------'   |
 *                                                           `---'
 *
 * Only interrupts are held, never ends: the used ring tells them at once to a driver that looks.
 */
#ifndef SOSIA_VIRTIO_COALESCE_H
#define SOSIA_VIRTIO_COALESCE_H

#include "base/clock.h"
#include "virtio/virtio.h"

struct coalesce {
    struct virtio_dev *v;
    struct timerq *tq; /* NULL: nothing is held */
    struct timer timer;
    unsigned q;
    unsigned held; /* requests that are done and the driver has not been told of */
    unsigned left; /* until the next try */
    unsigned wait; /* what `left` begins with */
};

/* ERR_NOMEM. */
int coalesce_init(struct coalesce *c, struct virtio_dev *v, unsigned q, struct timerq *tq,
                  struct error *e);
/* A request was done at once and is in the used ring. */
void coalesce_add(struct coalesce *c);
/* Something else is in the used ring: an interrupt now, for all. */
void coalesce_tell(struct coalesce *c);
/* The queue ends its life. */
void coalesce_stop(struct coalesce *c);

#endif
