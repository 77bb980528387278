/*
 * vclock.c - the VM clock; see clock.h.
 *
 * It follows CLOCK_MONOTONIC. Where the host's kernel itself keeps time by the TSC, which therefore
 * is steady and the same on all processors, the clock is drawn as a line through it, anew every
 * SPAN: reading that costs half of what asking the kernel does, and translated code can do
 * it by itself. Each new line starts where the old one is, and meets CLOCK_MONOTONIC at its end. If
 * the TSC is not what it was (the host slept, or is itself a VM that has moved), the line is given
 * up until the TSC's rate has been measured again.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "base/clock.h"

#define SPAN    (NS_PER_SEC / 20)   /* of a line */
#define MEASURE (NS_PER_SEC / 100)  /* before there is a rate */
#define LEAP    (NS_PER_SEC / 1000) /* what a line is not bent for */
#define TRIES   4u

static ns_t host_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (ns_t)t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

static bool kernel_uses_tsc(void)
{
    char name[16] = "";
    FILE *f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    if (!f)
        return false;
    bool is = fgets(name, sizeof name, f) && strcmp(name, "tsc\n") == 0;
    fclose(f);
    return is;
}

static uint64_t scale(uint64_t ticks, uint64_t rate)
{
    return (uint64_t)((unsigned __int128)ticks * rate >> 32);
}

/* ---- the line ---- */

static void set_line(struct vclock *c, struct vclock_line l)
{
    atomic_store_explicit(&c->line.span, 0, memory_order_seq_cst);
    atomic_fetch_add(&c->line.turn, 1);
    atomic_store_explicit(&c->line.from, l.from, memory_order_relaxed);
    atomic_store_explicit(&c->line.rate, l.rate, memory_order_relaxed);
    atomic_store_explicit(&c->line.ns, l.ns, memory_order_relaxed);
    atomic_store_explicit(&c->line.span, l.span, memory_order_release);
}

static bool by_line(const struct vclock_line *l, ns_t *now)
{
    uint64_t turn;
    do {
        turn = atomic_load_explicit(&l->turn, memory_order_acquire);
        uint64_t span = atomic_load_explicit(&l->span, memory_order_acquire);
        uint64_t from = atomic_load_explicit(&l->from, memory_order_acquire);
        uint64_t rate = atomic_load_explicit(&l->rate, memory_order_acquire);
        ns_t ns = atomic_load_explicit(&l->ns, memory_order_acquire);
        uint64_t ticks = __rdtsc() - from;
        if (ticks >= span)
            return false;
        *now = ns + (ns_t)scale(ticks, rate);
    } while (atomic_load_explicit(&l->turn, memory_order_acquire) != turn);
    return true;
}

static struct vclock_pair host_pair(void)
{
    struct vclock_pair best = {0};
    uint64_t least = UINT64_MAX;
    for (unsigned n = 0; n < TRIES; n++) {
        uint64_t before = __rdtsc();
        ns_t ns = host_now();
        uint64_t took = __rdtsc() - before;
        if (took < least) {
            least = took;
            best = (struct vclock_pair){before + took / 2, ns};
        }
    }
    return best;
}

/* How fast the TSC goes: begins anew if that is another than before. */
static void measure(struct vclock *c, const struct vclock_pair *p)
{
    ns_t ns = p->ns - c->begin.ns;
    if (c->begin.tsc && p->tsc > c->begin.tsc && ns > 0) {
        if (ns < MEASURE)
            return;
        uint64_t rate = (uint64_t)(((unsigned __int128)ns << 32) / (p->tsc - c->begin.tsc));
        uint64_t other = rate > c->rate ? rate - c->rate : c->rate - rate;
        if (!c->rate || other <= c->rate / 1000) { /* clocks that are adjusted: half of it */
            c->rate = rate;
            return;
        }
    }
    c->begin = *p;
    c->rate = 0;
}

/* Where the line has led to, up to its end and from there on as time goes. */
static ns_t along(const struct vclock *c, uint64_t ticks, bool beyond)
{
    uint64_t span = c->line.span;
    ns_t ns = c->line.ns + (ns_t)scale(min_u64(ticks, span), c->line.rate);
    return beyond && ticks > span ? ns + (ns_t)scale(ticks - span, c->rate) : ns;
}

/* Where a new line begins: where the old one is, if that is near. Never before what has been told.
 */
static ns_t go_on(struct vclock *c, uint64_t tsc, ns_t target)
{
    uint64_t ticks = tsc - c->line.from;
    ns_t now = target;
    if (c->line.span) {
        ns_t here = along(c, ticks, true);
        if (here > target - LEAP && here < target + LEAP)
            now = here;
        c->least = along(c, ticks, false);
    }
    c->least = now > c->least ? now : c->least;
    return c->least;
}

static void draw_line(struct vclock *c, uint64_t tsc, ns_t now, ns_t target)
{
    ns_t late = target - now, most = SPAN - SPAN / 16;
    late = late > most ? most : late < -most ? -most : late;
    int64_t bend = (int64_t)c->rate * late / SPAN;
    uint64_t span = (uint64_t)(((unsigned __int128)SPAN << 32) / c->rate);
    set_line(c, (struct vclock_line){
                    .from = tsc, .rate = c->rate + (uint64_t)bend, .ns = now, .span = span});
}

/* ---- the clock ---- */

static ns_t without_line(const struct vclock *c)
{
    if (!atomic_load_explicit(&c->running, memory_order_acquire))
        return atomic_load_explicit(&c->frozen, memory_order_relaxed);
    return host_now() + atomic_load_explicit(&c->offset, memory_order_relaxed);
}

/* Under the lock: the line may be over, or there is none. */
static ns_t look(struct vclock *c)
{
    ns_t now;
    if (!c->by_tsc || !atomic_load(&c->running))
        return without_line(c);
    if (by_line(&c->line, &now))
        return now;
    struct vclock_pair p = host_pair();
    ns_t target = p.ns + atomic_load(&c->offset);
    measure(c, &p);
    now = go_on(c, p.tsc, target);
    if (c->rate)
        draw_line(c, p.tsc, now, target);
    else
        set_line(c, (struct vclock_line){0});
    return now;
}

static void init(struct vclock *c, bool running)
{
    memset(c, 0, sizeof *c);
    pthread_mutex_init(&c->lock, NULL);
    c->by_tsc = running && kernel_uses_tsc();
    atomic_store(&c->offset, running ? -host_now() : 0);
    atomic_store(&c->running, running);
}

void vclock_init(struct vclock *c)
{
    init(c, true);
}

void vclock_init_manual(struct vclock *c)
{
    init(c, false);
}

void vclock_set(struct vclock *c, ns_t t)
{
    atomic_store(&c->frozen, t);
}

/* Under the lock. */
static void begin_anew(struct vclock *c, ns_t least)
{
    set_line(c, (struct vclock_line){0});
    c->least = least;
}

void vclock_pause(struct vclock *c)
{
    if (!atomic_load(&c->running))
        return;
    pthread_mutex_lock(&c->lock);
    ns_t now = look(c);
    atomic_store(&c->frozen, now);
    atomic_store(&c->running, 0);
    begin_anew(c, now);
    pthread_mutex_unlock(&c->lock);
}

void vclock_resume(struct vclock *c)
{
    if (atomic_load(&c->running))
        return;
    pthread_mutex_lock(&c->lock);
    ns_t now = atomic_load(&c->frozen);
    atomic_store(&c->offset, now - host_now());
    begin_anew(c, now);
    atomic_store(&c->running, 1);
    pthread_mutex_unlock(&c->lock);
}

void vclock_advance(struct vclock *c, ns_t n)
{
    pthread_mutex_lock(&c->lock);
    if (atomic_load(&c->running)) {
        ns_t now = look(c);
        atomic_fetch_add(&c->offset, n);
        begin_anew(c, now + n);
    } else {
        atomic_fetch_add(&c->frozen, n);
    }
    pthread_mutex_unlock(&c->lock);
}

ns_t vclock_now(struct vclock *c)
{
    ns_t now;
    if (!c->by_tsc)
        return without_line(c);
    if (by_line(&c->line, &now))
        return now;
    pthread_mutex_lock(&c->lock);
    now = look(c);
    pthread_mutex_unlock(&c->lock);
    return now;
}

int64_t vclock_epoch(struct vclock *c)
{
    struct timespec t;
    ns_t before = vclock_now(c);
    clock_gettime(CLOCK_REALTIME, &t);
    ns_t middle = before + (vclock_now(c) - before) / 2;
    return (int64_t)t.tv_sec * NS_PER_SEC + t.tv_nsec - middle;
}
