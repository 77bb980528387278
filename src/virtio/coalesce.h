/*
 * coalesce.h - one interrupt, and one wake-up of a disk's thread, for several requests.
 *
 * A driver that has 32 requests to submit notifies the device of each. Each that can be done at
 * once would be an interrupt of its own, each that cannot would wake a thread. Where it turns out
 * that the driver has more, both are put off until MOST requests have come, or a vCPU has nothing
 * else to do, or a time has passed. Whether it has more cannot be seen from outside, only tried,
 * now and then:
 *
 *                           `left` requests later
 *              NOW --------------------------------------> TRY
 *               ^   it took long, or fewer than WORTH have  |   ^
 *               |   come meanwhile                          |   | else
 *               `-------------------------------------------'   |
 *                                                           `---'
 *
 * What is done is in the used ring at once, for a driver that looks.
 */
#ifndef SOSIA_VIRTIO_COALESCE_H
#define SOSIA_VIRTIO_COALESCE_H

#include "base/clock.h"
#include "block/block.h"
#include "virtio/virtio.h"

struct coalesce {
    struct virtio_dev *v;
    struct blk *blk;
    struct timerq *tq; /* NULL: nothing is put off */
    struct timer timer;
    unsigned q;
    unsigned held; /* requests that have come during this try */
    unsigned left; /* until the next one */
    unsigned wait; /* what `left` begins with */
};

/* ERR_NOMEM. */
int coalesce_init(struct coalesce *c, struct virtio_dev *v, unsigned q, struct blk *blk,
                  struct timerq *tq, struct error *e);
/* Whether the next notification's requests are put off: blk_end_lazy(). */
static inline bool coalesce_holds(const struct coalesce *c)
{
    return c->tq && c->left == 0;
}
/* `n` requests have come by a notification. `hold`: as above, and no one of them is urgent. `done`:
 * some are in the used ring. */
void coalesce_add(struct coalesce *c, unsigned n, bool hold, bool done);
/* The queue ends its life. */
void coalesce_stop(struct coalesce *c);

#endif
