/* test_hpet.c - HPET: counter, one-shot, periodic, routing, level status, legacy replacement. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "chip/hpet.h"

static struct vclock vclk;
static struct timerq tq;
static struct hpet h;
static unsigned rises[24], legacy_rises[2];
static bool level[24], legacy_on;

static void on_irq(void *ctx, unsigned line, bool v)
{
    assert_true(line < 24);
    rises[line] += v;
    level[line] = v;
}

static void on_legacy(void *ctx, unsigned line, bool v)
{
    legacy_rises[line] += v;
}

static void on_mode(void *ctx, unsigned line, bool v)
{
    legacy_on = v;
}

static int setup(void **state)
{
    struct hpet_wiring w = {
        {on_irq, NULL, 0}, {on_legacy, NULL, 0}, {on_legacy, NULL, 1}, {on_mode, NULL, 0}};
    memset(rises, 0, sizeof rises);
    memset(legacy_rises, 0, sizeof legacy_rises);
    memset(level, 0, sizeof level);
    vclock_init_manual(&vclk);
    timerq_init(&tq, &vclk);
    return hpet_init(&h, &tq, &w, NULL);
}

static int teardown(void **state)
{
    hpet_fini(&h);
    timerq_fini(&tq);
    return 0;
}

static uint64_t rd(unsigned off, unsigned size)
{
    return hpet_desc.ranges[0].ops->read(&h, off, size);
}

static void wr(unsigned off, uint64_t v, unsigned size)
{
    hpet_desc.ranges[0].ops->write(&h, off, v, size);
}

static void advance(ns_t to)
{
    vclock_set(&vclk, to);
    timerq_run(&tq);
}

static void test_counter(void **state)
{
    assert_int_equal(rd(0, 8), 0x009896808086a201ull); /* 10^7 fs */
    assert_int_equal(rd(4, 4), 10000000);
    advance(1000);
    assert_int_equal(rd(0xf0, 8), 0); /* halted */
    wr(0xf4, 1, 4);
    wr(0xf0, 5, 4);
    wr(0x10, 1, 4);
    advance(2000);
    assert_int_equal(rd(0xf0, 8), 0x100000000ull + 5 + 100);
    assert_int_equal(rd(0xf4, 4), 1);
    wr(0xf0, 0, 8); /* ignored while running */
    wr(0x10, 0, 8);
    advance(9000);
    assert_int_equal(rd(0xf0, 4), 105);
    assert_int_equal(rd(0x100, 8), 0x00ff000000000030ull);
    assert_int_equal(rd(0x108, 8), ~0ull);
}

static void test_oneshot_edge(void **state)
{
    wr(0x10, 1, 8);
    wr(0x108, 1000, 8);
    wr(0x100, 20 << 9 | 4, 4);
    advance(9990);
    assert_int_equal(rises[20], 0);
    advance(10000);
    assert_int_equal(rises[20], 1);
    assert_false(level[20]);
    advance(NS_PER_SEC);
    assert_int_equal(rises[20], 1);
    assert_int_equal(rd(0x20, 4), 0);
    wr(0x108, 5, 8); /* in the past: 64 bits never come round */
    assert_true(timerq_next(&tq) == INT64_MAX);
    wr(0x100, 20 << 9 | 0x104, 4); /* 32 bits do */
    assert_int_equal(timerq_next(&tq), (0x100000000ll + 5) * 10);
    wr(0x100, 3 << 9 | 4, 4); /* a pin that is not offered */
    wr(0x108, rd(0xf0, 8) + 1, 8);
    advance(2 * NS_PER_SEC);
    assert_int_equal(rises[3], 0);
}

static void test_level(void **state)
{
    wr(0x10, 1, 8);
    wr(0x128, 100, 8);
    wr(0x120, 21 << 9 | 6, 4);
    advance(1000);
    assert_true(level[21]);
    assert_int_equal(rd(0x20, 4), 2);
    wr(0x20, 1, 4);
    assert_true(level[21]);
    wr(0x20, 2, 4);
    assert_false(level[21]);
    wr(0x128, 200, 8);
    advance(2000);
    assert_true(level[21]);
    wr(0x120, 22 << 9 | 6, 4); /* re-routed while asserted: the old line is released */
    assert_false(level[21]);
}

static void test_periodic_legacy(void **state)
{
    wr(0x100, 0x4c | 0x100, 4); /* as Linux sets its tick up: periodic, SET, 32 bits */
    wr(0x108, 100000, 4);
    wr(0x108, 100000, 4);
    wr(0x10, 3, 4);
    assert_true(legacy_on);
    for (unsigned i = 1; i <= 10; i++) {
        advance(i * 1000000);
        assert_int_equal(legacy_rises[0], i);
    }
    assert_int_equal(rd(0x108, 4), 1100000);
    advance(55500000); /* behind: one interrupt, phase kept */
    assert_int_equal(legacy_rises[0], 11);
    advance(55990000);
    assert_int_equal(legacy_rises[0], 11);
    advance(56000000);
    assert_int_equal(legacy_rises[0], 12);
    assert_int_equal(rises[0], 0);
    wr(0x120, 4, 4);
    wr(0x128, rd(0xf0, 8) + 10, 8);
    advance(56500000);
    assert_int_equal(legacy_rises[1], 1);
    /* A due match that the event loop has not seen is delivered before the timer is stopped. */
    vclock_set(&vclk, 57000000);
    wr(0x10, 0, 4);
    assert_int_equal(legacy_rises[0], 13);
    assert_false(legacy_on);
    assert_true(timerq_next(&tq) == INT64_MAX);
}

static void test_hostile(void **state)
{
    wr(0x10, 1, 8);
    wr(0x100, 0x4c, 4);
    wr(0x108, rd(0xf0, 8), 8); /* period equal to the count, then 1, then 0 */
    wr(0x108, 1, 8);
    advance(1000000);
    assert_true(timerq_next(&tq) >= 1050000);
    wr(0x108, 0, 8);
    advance(NS_PER_SEC);
    for (unsigned off = 0; off < HPET_SIZE; off += 4) {
        wr(off, ~0ull, 4);
        rd(off, 4);
    }
    for (unsigned off = 0; off < HPET_SIZE; off += 8) {
        wr(off, ~0ull, 8);
        rd(off, 8);
    }
    advance(2 * NS_PER_SEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_counter),         T(test_oneshot_edge), T(test_level),
        T(test_periodic_legacy), T(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
