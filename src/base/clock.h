/*
 * clock.h - the VM clock and its timers.
 *
 * Every time source of the guest (TSC, PIT, HPET, LAPIC, ACPI PM, RTC) derives from one `struct
 * vclock`, which counts nanoseconds since the VM's creation and can be paused. A clock made with
 * vclock_init_manual() stands still until vclock_set() moves it: unit tests of devices use it.
 *
 * A `struct timerq` is a heap of timers on that clock. It is owned by the device lock: every
 * function here but vclock_now() is called with that lock held. The event loop calls timerq_run()
 * when the earliest deadline is reached; `kick` tells it that the earliest deadline moved.
 */
#ifndef SOSIA_BASE_CLOCK_H
#define SOSIA_BASE_CLOCK_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/error.h"
#include "base/types.h"

/* VM time by the host's TSC, for those who read it without a call: ns + ((tsc - from) * rate >>
 * 32), as long as tsc - from < span. To read: `turn`; `span`, which must not be 0; the rest; `turn`
 * again, and if it is another, all again. Whoever finds that the span is over calls vclock_now().
 */
struct vclock_line {
    _Atomic uint64_t turn; /* grows whenever the line becomes another */
    _Atomic uint64_t span; /* TSC ticks; 0: there is no line */
    _Atomic uint64_t from, rate;
    _Atomic ns_t ns;
};

struct vclock_pair { /* both at the same moment */
    uint64_t tsc;
    ns_t ns; /* CLOCK_MONOTONIC */
};

struct vclock {
    _Atomic ns_t offset; /* VM time = host monotonic time + offset, while running */
    _Atomic ns_t frozen; /* VM time while paused or manual */
    _Atomic int running; /* 0: paused or manual */
    struct vclock_line line;
    bool by_tsc;              /* there may be a line */
    pthread_mutex_t lock;     /* of what is below, and for whoever changes the line */
    struct vclock_pair begin; /* of what `rate` was measured over; tsc 0: nothing yet */
    uint64_t rate;            /* ns per tick * 2^32; 0: not known yet */
    ns_t least;               /* what has been told already */
};

void vclock_init(struct vclock *c);        /* host-driven, starts at 0, running */
void vclock_init_manual(struct vclock *c); /* stands at 0 */
void vclock_set(struct vclock *c, ns_t t); /* manual or paused clocks only */
void vclock_pause(struct vclock *c);
void vclock_resume(struct vclock *c);
void vclock_advance(struct vclock *c, ns_t n); /* n nanoseconds pass at once; n >= 0 */
ns_t vclock_now(struct vclock *c);             /* monotonic; callable from any thread */
/* What the host's calendar shows now less vclock_now(): UTC in nanoseconds since 1970 at VM time 0,
 * had the clock never been paused. Any thread. */
int64_t vclock_epoch(struct vclock *c);

struct timer {
    void (*fn)(void *arg); /* runs under the device lock; may re-arm itself */
    void *arg;
    ns_t deadline;
    size_t pos; /* 1-based place in the heap; 0: not armed */
    bool lazy;
};

struct timerq {
    struct vclock *clock;
    struct timer **heap; /* 1-based binary heap by deadline */
    size_t count, cap;
    atomic_uint nlazy;
    void (*kick)(void *arg); /* the earliest deadline is now earlier; may be NULL */
    void *kick_arg;
};

void timerq_init(struct timerq *q, struct vclock *clock);
void timerq_fini(struct timerq *q);

/* Registers a timer so that arming it later cannot fail. 0 or ERR_NOMEM. */
int timer_init(struct timerq *q, struct timer *t, void (*fn)(void *arg), void *arg,
               struct error *e);
void timer_arm(struct timerq *q, struct timer *t, ns_t deadline); /* also moves an armed timer */
/* The same, but timerq_idle() runs it, too: what is put off while a vCPU has other work. `fn` does
 * not arm it like this again. */
void timer_arm_lazy(struct timerq *q, struct timer *t, ns_t deadline);
void timer_disarm(struct timerq *q, struct timer *t);

/* Runs every timer whose deadline is reached; returns the next deadline, or INT64_MAX. A timer that
 * re-arms itself must do so for later than vclock_now(), or this never returns: a periodic device
 * that is behind skips or coalesces periods. */
ns_t timerq_run(struct timerq *q);
/* A vCPU is about to sleep: runs lazy timers, whatever their deadline. Nothing to do if there is
 * none, which any thread may ask without the lock. */
void timerq_idle(struct timerq *q);
static inline bool timerq_has_lazy(struct timerq *q)
{
    return atomic_load(&q->nlazy) > 0;
}
/* The earliest deadline, or INT64_MAX. */
ns_t timerq_next(const struct timerq *q);

/* a * b / c without overflow in between; the result is truncated to 64 bits. c != 0. */
static inline uint64_t muldiv_u64(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)((unsigned __int128)a * b / c);
}

#endif
