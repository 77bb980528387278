/* test_clock.c - the VM clock and its timers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

struct alarm {
    struct timer timer;
    struct timerq *q;
    unsigned rang;
    ns_t period, at; /* when it rang last */
};

static void ring(void *arg)
{
    struct alarm *a = arg;
    a->rang++;
    a->at = vclock_now(a->q->clock);
    if (a->period)
        timer_arm(a->q, &a->timer, a->at + a->period);
}

static void test_manual_clock(void **state)
{
    struct vclock c;
    vclock_init_manual(&c);
    assert_int_equal(vclock_now(&c), 0);
    vclock_set(&c, 42);
    assert_int_equal(vclock_now(&c), 42);
}

static void test_advance(void **state)
{
    struct vclock c;
    vclock_init_manual(&c);
    vclock_set(&c, 5);
    vclock_advance(&c, 10);
    assert_int_equal(vclock_now(&c), 15);
    vclock_init(&c);
    vclock_advance(&c, 3600 * NS_PER_SEC);
    assert_in_range(vclock_now(&c), 3600 * NS_PER_SEC, 3700 * NS_PER_SEC);
    vclock_pause(&c);
    ns_t t = vclock_now(&c);
    vclock_set(&c, 77); /* a paused clock can be set, and goes on from there */
    vclock_resume(&c);
    assert_in_range(vclock_now(&c), 77, t - 1);
}

static ns_t monotonic(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (ns_t)t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

#define MS (NS_PER_SEC / 1000)

/* Until `end` it does not go back, and is not later than the host's clock by more than `ahead`, nor
 * earlier. `begin`: what that shows at 0. */
static void follow(struct vclock *c, ns_t begin, ns_t end, ns_t ahead)
{
    const ns_t near = MS / 10;
    ns_t last = vclock_now(c), after;
    do {
        ns_t before = monotonic() - begin;
        ns_t now = vclock_now(c);
        after = monotonic() - begin;
        assert_true(now >= last);
        last = now;
        if (after - before < near) /* not interrupted */
            assert_true(now >= before - near && now <= after + near + ahead);
    } while (after < end);
}

static void test_follows_the_host(void **state)
{
    struct vclock c;
    vclock_init(&c);
    ns_t begin = monotonic() - vclock_now(&c);
    follow(&c, begin, 100 * MS, 0);
    if (!c.by_tsc)
        skip();
    assert_true(c.line.span);      /* it is in use, if it is offered */
    c.begin.tsc = c.line.from = 1; /* the host slept: its TSC went on */
    follow(&c, begin, 200 * MS, 50 * MS);
    follow(&c, begin, 300 * MS, 0);
    c.line.from = c.begin.tsc = ~0ull >> 1; /* it began anew */
    follow(&c, begin, 500 * MS, 50 * MS);
    follow(&c, begin, 600 * MS, 0);
    c.begin.ns -= NS_PER_SEC; /* it goes at another rate */
    follow(&c, begin, 800 * MS, 0);
    assert_true(c.line.span);
    ns_t then = vclock_now(&c);
    vclock_advance(&c, NS_PER_SEC);
    assert_true(vclock_now(&c) >= then + NS_PER_SEC);
    vclock_pause(&c);
    assert_false(c.line.span);
    assert_true(vclock_now(&c) >= then + NS_PER_SEC);
}

static void test_pause_stops_time(void **state)
{
    struct vclock c;
    vclock_init(&c);
    ns_t a = vclock_now(&c), b = vclock_now(&c);
    assert_true(a >= 0 && b >= a);
    vclock_pause(&c);
    ns_t frozen = vclock_now(&c);
    assert_true(vclock_now(&c) == frozen);
    vclock_pause(&c); /* again changes nothing */
    assert_true(vclock_now(&c) == frozen);
    vclock_resume(&c);
    ns_t later = vclock_now(&c);
    assert_true(later >= frozen && later < frozen + NS_PER_SEC);
    vclock_resume(&c);
    assert_true(vclock_now(&c) >= later);
}

static void test_epoch(void **state)
{
    struct vclock c;
    vclock_init_manual(&c);
    vclock_set(&c, 1000 * NS_PER_SEC);
    int64_t before = time(NULL), now = vclock_epoch(&c) / NS_PER_SEC + 1000;
    assert_true(now >= before - 1 && now <= time(NULL) + 1);
}

static void test_lazy(void **state)
{
    struct vclock c;
    struct timerq q;
    struct alarm a[5] = {0};

    vclock_init_manual(&c);
    timerq_init(&q, &c);
    for (int i = 0; i < 5; i++) {
        a[i].q = &q;
        assert_int_equal(timer_init(&q, &a[i].timer, ring, &a[i], NULL), 0);
        (i % 2 ? timer_arm : timer_arm_lazy)(&q, &a[i].timer, 10 - i);
    }
    timer_arm(&q, &a[0].timer, 20); /* not lazy any more */
    timerq_idle(&q);
    assert_false(timerq_has_lazy(&q));
    for (int i = 0; i < 5; i++)
        assert_int_equal(a[i].rang, i == 2 || i == 4);
    timer_arm_lazy(&q, &a[2].timer, 5);
    timer_arm_lazy(&q, &a[4].timer, 6);
    assert_true(timerq_has_lazy(&q));
    timer_disarm(&q, &a[2].timer);
    vclock_set(&c, 6);
    timerq_run(&q);
    assert_int_equal(a[2].rang, 1);
    assert_int_equal(a[4].rang, 2);
    assert_false(timerq_has_lazy(&q));
    timerq_fini(&q);
}

/* Deadlines in scrambled order come out sorted, whatever is disarmed or moved in between. */
static void test_heap_order(void **state)
{
    enum { N = 61 }; /* prime, so that i * 17 % N visits each number once */
    struct vclock c;
    struct timerq q;
    struct alarm a[N] = {0};

    vclock_init_manual(&c);
    timerq_init(&q, &c);
    for (int i = 0; i < N; i++) {
        a[i].q = &q;
        assert_int_equal(timer_init(&q, &a[i].timer, ring, &a[i], NULL), 0);
    }
    for (int i = 0; i < N; i++)
        timer_arm(&q, &a[i].timer, 1 + i * 17 % N);
    for (int i = 0; i < N; i += 3)
        timer_disarm(&q, &a[i].timer);
    for (int i = 1; i < N; i += 3)
        timer_arm(&q, &a[i].timer, 1000 + i * 29 % N);
    timer_disarm(&q, &a[0].timer); /* not armed: nothing happens */
    for (ns_t t = 0; timerq_next(&q) != INT64_MAX; t = timerq_next(&q)) {
        assert_true(timerq_next(&q) >= t);
        vclock_set(&c, timerq_next(&q));
        assert_true(timerq_run(&q) > vclock_now(&c));
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(a[i].rang, i % 3 != 0);
        if (i % 3 == 1)
            assert_int_equal(a[i].at, 1000 + i * 29 % N);
        else if (i % 3 == 2)
            assert_int_equal(a[i].at, 1 + i * 17 % N);
    }
    timerq_fini(&q);
}

static void test_periodic(void **state)
{
    struct vclock c;
    struct timerq q;
    struct alarm a = {.q = &q, .period = 10};

    vclock_init_manual(&c);
    timerq_init(&q, &c);
    assert_int_equal(timer_init(&q, &a.timer, ring, &a, NULL), 0);
    timer_arm(&q, &a.timer, 10);
    vclock_set(&c, 9);
    assert_int_equal(timerq_run(&q), 10);
    assert_int_equal(a.rang, 0);
    vclock_set(&c, 35); /* late: rings once, next from now */
    assert_int_equal(timerq_run(&q), 45);
    assert_int_equal(a.rang, 1);
    timerq_fini(&q);
}

static void count(void *arg)
{
    ++*(unsigned *)arg;
}

static void test_kick_only_when_earlier(void **state)
{
    unsigned kicks = 0;
    struct vclock c;
    struct timerq q;
    struct alarm a = {.q = &q}, b = {.q = &q};

    vclock_init_manual(&c);
    timerq_init(&q, &c);
    q.kick = count;
    q.kick_arg = &kicks;
    assert_int_equal(timer_init(&q, &a.timer, ring, &a, NULL), 0);
    assert_int_equal(timer_init(&q, &b.timer, ring, &b, NULL), 0);
    timer_arm(&q, &a.timer, 100);
    assert_int_equal(kicks, 1);
    timer_arm(&q, &b.timer, 200);
    assert_int_equal(kicks, 1);
    timer_arm(&q, &b.timer, 50);
    assert_int_equal(kicks, 2);
    timer_arm(&q, &b.timer, 60);
    assert_int_equal(kicks, 2);
    timerq_fini(&q);
}

static void test_muldiv(void **state)
{
    assert_true(muldiv_u64(UINT64_MAX, 1000, 1000) == UINT64_MAX);
    assert_true(muldiv_u64(3, 7, 2) == 10);
    assert_true(muldiv_u64(1ull << 63, 1193182, NS_PER_SEC) == 11005161493678455ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_manual_clock),
        cmocka_unit_test(test_advance),
        cmocka_unit_test(test_follows_the_host),
        cmocka_unit_test(test_pause_stops_time),
        cmocka_unit_test(test_epoch),
        cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_heap_order),
        cmocka_unit_test(test_periodic),
        cmocka_unit_test(test_muldiv),
        cmocka_unit_test(test_kick_only_when_earlier),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
