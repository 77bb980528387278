/* coalesce.c - see coalesce.h. */
#include "virtio/coalesce.h"

#include "base/checked.h"

#define MOST      8
#define WORTH     4
#define HOLD_NS   1000000 /* more than MOST requests of a guest that is translated */
#define WAIT      32      /* requests between two tries, at first */
#define WAIT_MOST 512

/* Ends a try. */
static void end(struct coalesce *c, bool worth)
{
    c->wait = worth ? WAIT : (unsigned)min_u64(2ull * c->wait, WAIT_MOST);
    c->left = worth ? 0 : c->wait;
    c->held = 0;
    timer_disarm(c->tq, &c->timer);
    blk_unplug(c->blk);
    virtio_signal(c->v, c->q);
}

/* Sooner, if a vCPU is about to sleep. Otherwise the guest does not live on these requests, or
 * waits for them without sleeping. */
static void on_timer(void *arg)
{
    struct coalesce *c = arg;
    bool late = vclock_now(c->tq->clock) >= c->timer.deadline;
    end(c, c->held >= WORTH && !late);
}

void coalesce_add(struct coalesce *c, unsigned n, bool hold, bool done)
{
    if (hold && n > 0) {
        if (c->held == 0)
            timer_arm_lazy(c->tq, &c->timer, vclock_now(c->tq->clock) + HOLD_NS);
        c->held += n;
        if (c->held >= MOST)
            end(c, true);
        return;
    }
    if (c->held > 0) /* something urgent */
        end(c, c->held >= WORTH);
    else if (done)
        virtio_signal(c->v, c->q);
    c->left -= (unsigned)min_u64(c->left, n);
}

void coalesce_stop(struct coalesce *c)
{
    if (c->held > 0)
        blk_unplug(c->blk);
    c->held = 0;
    if (c->tq)
        timer_disarm(c->tq, &c->timer);
}

int coalesce_init(struct coalesce *c, struct virtio_dev *v, unsigned q, struct blk *blk,
                  struct timerq *tq, struct error *e)
{
    *c = (struct coalesce){.v = v, .blk = blk, .tq = tq, .q = q, .wait = WAIT, .left = WAIT};
    return tq ? timer_init(tq, &c->timer, on_timer, c, e) : 0;
}
