/* coalesce.c - see coalesce.h. */
#include "virtio/coalesce.h"

#include "base/checked.h"

#define MOST      8
#define WORTH     4
#define HOLD_NS   1000000 /* more than MOST requests of a guest that is translated */
#define WAIT      32      /* requests between two tries, at first */
#define WAIT_MOST 512

/* Ends a try. */
static void judge(struct coalesce *c, bool worth)
{
    c->wait = worth ? WAIT : (unsigned)min_u64(2ull * c->wait, WAIT_MOST);
    c->left = worth ? 0 : c->wait;
    c->held = 0;
    timer_disarm(c->tq, &c->timer);
}

void coalesce_tell(struct coalesce *c)
{
    if (c->held)
        judge(c, c->held >= WORTH);
    virtio_signal(c->v, c->q);
}

/* Sooner, if a vCPU is about to sleep. Otherwise the guest does not live on these requests, or
 * waits for them without sleeping. */
static void on_timer(void *arg)
{
    struct coalesce *c = arg;
    bool late = vclock_now(c->tq->clock) >= c->timer.deadline;
    judge(c, c->held >= WORTH && !late);
    virtio_signal(c->v, c->q);
}

void coalesce_add(struct coalesce *c)
{
    if (!c->tq || c->left > 0) {
        c->left -= c->left > 0;
        virtio_signal(c->v, c->q);
        return;
    }
    if (c->held++ == 0)
        timer_arm_lazy(c->tq, &c->timer, vclock_now(c->tq->clock) + HOLD_NS);
    if (c->held == MOST)
        coalesce_tell(c);
}

void coalesce_stop(struct coalesce *c)
{
    c->held = 0;
    if (c->tq)
        timer_disarm(c->tq, &c->timer);
}

int coalesce_init(struct coalesce *c, struct virtio_dev *v, unsigned q, struct timerq *tq,
                  struct error *e)
{
    *c = (struct coalesce){.v = v, .tq = tq, .q = q, .wait = WAIT, .left = WAIT};
    return tq ? timer_init(tq, &c->timer, on_timer, c, e) : 0;
}
