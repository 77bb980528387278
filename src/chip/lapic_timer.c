/*
 * lapic_timer.c - the local APIC's timer: one-shot, periodic and TSC-deadline mode.
 * Source: Intel SDM volume 3, section "APIC Timer".
 *
 * The count is not stepped: (load, loaded_at) say what it held when, and everything else follows
 * from the VM clock. The host timer is armed only while an expiry can have an effect the guest
 * sees.
 *
 * Invariant: before anything that the expiry depends on is changed, catch_up() delivers an expiry
 * that is already due, so that no tick is lost between its time and the event loop's turn.
 */
#include "chip/lapic.h"

/* A guest can ask for a tick every nanosecond. Periodic ticks that the host could not deliver apart
 * are coalesced to this distance. */
#define MIN_PERIOD_NS 50000

enum { MODE_ONESHOT, MODE_PERIODIC, MODE_TSC_DEADLINE, MODE_RESERVED };

static unsigned mode(const struct lapic *l)
{
    return (l->lvt[LVT_TIMER] >> 17) & 3;
}

/* Divide configuration: bits 3,1,0 = 0..6 mean 2..128, 7 means 1. */
static uint32_t divisor(const struct lapic *l)
{
    uint32_t v = (l->t.divide & 3) | (l->t.divide & 8) >> 1;
    return v == 7 ? 1 : 2u << v;
}

/* The next time the count reaches 0 after being loaded. */
static ns_t expiry(const struct lapic *l)
{
    return l->t.loaded_at + (ns_t)((uint64_t)l->t.load * divisor(l));
}

uint32_t lapic_timer_count(const struct lapic *l)
{
    const struct lapic_timer *t = &l->t;
    if (t->stopped || mode(l) >= MODE_TSC_DEADLINE)
        return 0;
    uint64_t ticks = (uint64_t)(vclock_now(l->tq->clock) - t->loaded_at) / divisor(l);
    if (ticks < t->load)
        return t->load - (uint32_t)ticks;
    if (mode(l) == MODE_ONESHOT || !t->initial)
        return 0;
    return t->initial - (uint32_t)((ticks - t->load) % t->initial);
}

static void arm(struct lapic *l)
{
    struct lapic_timer *t = &l->t;
    if (mode(l) == MODE_TSC_DEADLINE && t->tsc_deadline)
        timer_arm(l->tq, &t->timer, l->host.tsc_to_ns(l->host.ctx, t->tsc_deadline));
    else if (mode(l) <= MODE_PERIODIC && !t->stopped)
        timer_arm(l->tq, &t->timer, expiry(l));
    else
        timer_disarm(l->tq, &t->timer);
}

static void expire(struct lapic *l)
{
    struct lapic_timer *t = &l->t;
    timer_disarm(l->tq, &t->timer);
    switch (mode(l)) {
    case MODE_TSC_DEADLINE:
        t->tsc_deadline = 0;
        break;
    case MODE_PERIODIC:
        if (t->initial) {
            /* Move on to the first period whose end lies far enough ahead. */
            ns_t zero = expiry(l);
            uint64_t period = (uint64_t)t->initial * divisor(l);
            uint64_t late = (uint64_t)(vclock_now(l->tq->clock) - zero) + MIN_PERIOD_NS;
            t->loaded_at = period < late ? zero + (ns_t)((late - 1) / period * period) : zero;
            t->load = t->initial;
            arm(l);
            break;
        }
        /* fallthrough */
    default:
        t->stopped = true;
        break;
    }
    lapic_local(l, LVT_TIMER);
}

static void catch_up(struct lapic *l)
{
    if (l->t.timer.pos && l->t.timer.deadline <= vclock_now(l->tq->clock))
        expire(l);
}

static void on_timer(void *arg)
{
    expire(arg);
}

void lapic_timer_set_initial(struct lapic *l, uint32_t v)
{
    struct lapic_timer *t = &l->t;
    if (mode(l) >= MODE_TSC_DEADLINE)
        return; /* SDM: writes to the initial-count register are ignored */
    catch_up(l);
    t->initial = t->load = v;
    t->loaded_at = vclock_now(l->tq->clock);
    t->stopped = !v; /* writing 0 stops the timer */
    arm(l);
}

void lapic_timer_set_divide(struct lapic *l, uint32_t v)
{
    struct lapic_timer *t = &l->t;
    catch_up(l);
    t->load = lapic_timer_count(l);
    t->loaded_at = vclock_now(l->tq->clock);
    t->divide = v & 0xb;
    arm(l);
}

void lapic_timer_set_lvt(struct lapic *l, uint32_t v)
{
    struct lapic_timer *t = &l->t;
    catch_up(l);
    uint32_t count = lapic_timer_count(l);
    unsigned old = mode(l);
    l->lvt[LVT_TIMER] = v;
    if (mode(l) == old)
        return;
    /* Between one-shot and periodic the count goes on; to and from TSC-deadline it is disarmed. */
    t->tsc_deadline = 0;
    t->load = count;
    t->loaded_at = vclock_now(l->tq->clock);
    t->stopped |= mode(l) >= MODE_TSC_DEADLINE || !count;
    arm(l);
}

void lapic_timer_set_deadline(struct lapic *l, uint64_t tsc)
{
    if (mode(l) != MODE_TSC_DEADLINE)
        return; /* SDM: in other timer modes a WRMSR to IA32_TSC_DEADLINE is ignored */
    catch_up(l);
    l->t.tsc_deadline = tsc;
    arm(l);
    catch_up(l); /* a deadline in the past fires now */
}

int lapic_timer_init(struct lapic *l, struct error *e)
{
    l->t.stopped = true;
    return timer_init(l->tq, &l->t.timer, on_timer, l, e);
}

void lapic_timer_reset(struct lapic *l)
{
    timer_disarm(l->tq, &l->t.timer);
    l->t.divide = l->t.initial = l->t.load = 0;
    l->t.stopped = true;
    l->t.tsc_deadline = 0;
}

/* ---- state ---- */

int lapic_timer_loaded(struct lapic *l, struct error *e)
{
    if (l->t.loaded_at < 0 || l->t.loaded_at > vclock_now(l->tq->clock) + NS_PER_SEC)
        return error_set(e, ERR_FORMAT, "t: loaded_at: is not within the life of the machine");
    arm(l);
    return 0;
}

static const struct field fields[] = {
    FIELD_NONE(struct lapic_timer, timer), /* armed by the mode and the count */
    FIELD(struct lapic_timer, divide, .max = 11),
    FIELD(struct lapic_timer, initial),
    FIELD(struct lapic_timer, load),
    FIELD(struct lapic_timer, loaded_at),
    FIELD(struct lapic_timer, stopped),
    FIELD(struct lapic_timer, tsc_deadline),
};
const struct field_table lapic_timer_fields =
    FIELD_TABLE(struct lapic_timer, "lapic_timer", fields);
