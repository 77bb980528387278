/* test_mc146818.c - RTC: time keeping, formats, SET, UIP, the three interrupts, CMOS banks. */
#include "chip_probe.h"

#include "base/clock.h"
#include "chip/mc146818.h"

static struct vclock clk;
static struct timerq tq;
static struct mc146818 r;
static struct probe irq, nmi;

/* 2024-02-28 23:59:58 UTC, a Wednesday. */
#define LEAP_EVE 1709164798ll

#define MS 1000000ll

static void out(uint8_t index, uint8_t val)
{
    out8(&mc146818_desc, &r, 0x70, index);
    out8(&mc146818_desc, &r, 0x71, val);
}

static uint8_t in(uint8_t index)
{
    out8(&mc146818_desc, &r, 0x70, index);
    return in8(&mc146818_desc, &r, 0x71);
}

static void run_to(ns_t t)
{
    ns_t next;
    while ((next = timerq_next(&tq)) <= t) {
        vclock_set(&clk, next);
        assert_true(timerq_run(&tq) > next);
    }
    vclock_set(&clk, t);
}

static int setup(void **state)
{
    vclock_init_manual(&clk);
    timerq_init(&tq, &clk);
    struct pin p = probe_pin(&irq);
    assert_int_equal(mc146818_init(&r, &tq, LEAP_EVE, p, probe_pin(&nmi), NULL), 0);
    return 0;
}

static int teardown(void **state)
{
    timerq_fini(&tq);
    return 0;
}

static void shows(uint8_t h, uint8_t m, uint8_t s)
{
    assert_int_equal(in(4), h);
    assert_int_equal(in(2), m);
    assert_int_equal(in(0), s);
}

static void date_shows(uint8_t century, uint8_t y, uint8_t m, uint8_t d, uint8_t weekday)
{
    assert_int_equal(in(0x32), century);
    assert_int_equal(in(9), y);
    assert_int_equal(in(8), m);
    assert_int_equal(in(7), d);
    assert_int_equal(in(6), weekday);
}

static void keeps_time(void **state)
{
    assert_int_equal(in(0x0a), 0x26);
    assert_int_equal(in(0x0b), 0x02);
    assert_int_equal(in(0x0d), 0x80);
    shows(0x23, 0x59, 0x58);
    date_shows(0x20, 0x24, 0x02, 0x28, 4);
    run_to(NS_PER_SEC - 1);
    assert_int_equal(in(0), 0x58);
    run_to(2 * NS_PER_SEC);
    shows(0, 0, 0);
    date_shows(0x20, 0x24, 0x02, 0x29, 5);
    run_to(2 * NS_PER_SEC + 86400 * NS_PER_SEC);
    date_shows(0x20, 0x24, 0x03, 0x01, 6);
    assert_int_equal(timerq_next(&tq), INT64_MAX); /* nothing enabled: nothing wakes up */
}

static void formats(void **state)
{
    out(0x0b, 0x80 | 0x04); /* SET, binary, 12 hours */
    out(0, 59);
    out(2, 59);
    out(4, 0x80 | 11); /* 11 pm */
    out(7, 31);
    out(8, 12);
    out(9, 99);
    out(0x32, 19);
    run_to(5 * NS_PER_SEC); /* SET: nothing moves */
    shows(0x8b, 59, 59);
    out(0x0b, 0x04);
    run_to(6 * NS_PER_SEC);
    shows(12, 0, 0); /* midnight is 12 am */
    date_shows(20, 0, 1, 1, 5);
    run_to(6 * NS_PER_SEC + 12 * 3600 * NS_PER_SEC);
    shows(0x8c, 0, 0);
    out(0x0b, 0x80); /* BCD, 12 hours */
    out(4, 0x92);
    out(0x0b, 0x00);
    run_to(6 * NS_PER_SEC + 13 * 3600 * NS_PER_SEC);
    assert_int_equal(in(4), 0x81);
}

static void divider_reset_delays_half_a_second(void **state)
{
    run_to(900 * MS);
    out(0x0a, 0x76);
    run_to(10 * NS_PER_SEC);
    out(0, 0x30);
    out(0x0a, 0x26);
    run_to(10 * NS_PER_SEC + 499 * MS);
    assert_int_equal(in(0), 0x30);
    run_to(10 * NS_PER_SEC + 500 * MS);
    assert_int_equal(in(0), 0x31);
}

static void update_in_progress(void **state)
{
    run_to(NS_PER_SEC - 244001);
    assert_int_equal(in(0x0a), 0x26);
    run_to(NS_PER_SEC - 244000);
    assert_int_equal(in(0x0a), 0xa6);
    out(0x0b, 0x82);
    assert_int_equal(in(0x0a), 0x26); /* SET inhibits updates */
    out(0x0b, 0x02);
    run_to(NS_PER_SEC);
    assert_int_equal(in(0x0a), 0x26);
}

static void update_interrupt(void **state)
{
    in(0x0c);
    out(0x0b, 0x12);
    run_to(NS_PER_SEC - 1);
    assert_false(irq.level);
    run_to(NS_PER_SEC);
    assert_true(irq.level);
    run_to(5 * NS_PER_SEC);
    assert_int_equal(irq.rises, 1);
    assert_int_equal(in(0x0c) & 0x90, 0x90);
    assert_false(irq.level);
    assert_int_equal(in(0x0c), 0);
    run_to(6 * NS_PER_SEC);
    assert_int_equal(irq.rises, 2);
    out(0x0b, 0x92); /* SET clears UIE */
    assert_int_equal(in(0x0b), 0x82);
}

static void periodic_interrupt(void **state)
{
    out(0x0a, 0x26); /* 1024 Hz */
    out(0x0b, 0x42);
    for (unsigned i = 1; i <= 1024; i++) {
        run_to((ns_t)i * NS_PER_SEC / 1024 + 1);
        assert_int_equal(irq.rises, i);
        assert_int_equal(in(0x0c) & 0xc0, 0xc0);
    }
    out(0x0a, 0x21); /* 256 Hz */
    irq.rises = 0;
    for (unsigned i = 1; i <= 256; i++) {
        run_to(NS_PER_SEC + (ns_t)i * NS_PER_SEC / 256 + 1);
        in(0x0c);
    }
    assert_int_equal(irq.rises, 256);
    out(0x0a, 0x20); /* none */
    run_to(5 * NS_PER_SEC);
    assert_int_equal(irq.rises, 256);
    assert_int_equal(in(0x0c) & 0x40, 0);
}

static void alarm_interrupt(void **state)
{
    out(1, 0x05);
    out(3, 0x00);
    out(5, 0x00);
    out(0x0b, 0x22);
    run_to(7 * NS_PER_SEC - 1);
    assert_false(irq.level);
    run_to(7 * NS_PER_SEC);
    assert_true(irq.level);
    assert_int_equal(in(0x0c) & 0xb0, 0xb0);
    out(3, 0xc0); /* every hour and minute, at second 5 */
    out(5, 0xff);
    run_to(67 * NS_PER_SEC);
    assert_int_equal(irq.rises, 2);
    assert_int_equal(in(0x0c) & 0xb0, 0xb0);
    out(1, 0x99); /* never */
    run_to(2 * 86400 * NS_PER_SEC);
    assert_int_equal(irq.rises, 2);
    assert_int_equal(timerq_next(&tq), INT64_MAX);
    assert_int_equal(in(0x0c), 0x50); /* flags are set without being enabled */
    out(0x0b, 0x02);
    out(1, 0xc0);
    run_to(2 * 86400 * NS_PER_SEC + NS_PER_SEC);
    assert_int_equal(in(0x0c) & 0x30, 0x30);
}

static void cmos(void **state)
{
    mc146818_set_cmos(&r, 0x34, 0x5a);
    mc146818_set_cmos(&r, 0xff, 0xa5);
    mc146818_set_cmos(&r, 1000, 1);
    assert_int_equal(in(0x34), 0x5a);
    out8(&mc146818_desc, &r, 0x72, 0xff);
    assert_int_equal(in8(&mc146818_desc, &r, 0x73), 0xa5);
    out8(&mc146818_desc, &r, 0x73, 0x11);
    assert_int_equal(mc146818_get_cmos(&r, 0xff), 0x11);
    assert_int_equal(in8(&mc146818_desc, &r, 0x70), 0xff);
    out8(&mc146818_desc, &r, 0x70, 0x8f);
    assert_true(nmi.level);
    out8(&mc146818_desc, &r, 0x70, 0x0f);
    assert_false(nmi.level);
}

static void reset_keeps_time(void **state)
{
    out(0x0b, 0x72);
    run_to(2 * NS_PER_SEC);
    mc146818_desc.reset(&r);
    assert_false(irq.level);
    assert_int_equal(in(0x0b), 0x02);
    assert_int_equal(in(7), 0x29);
}

static void storm(void **state)
{
    for (unsigned i = 0; i < 300; i++) {
        probe_storm(&mc146818_desc, &r, 5 + i);
        vclock_set(&clk, vclock_now(&clk) + (ns_t)i * i * i * 9973);
        timerq_run(&tq);
    }
    vclock_set(&clk, vclock_now(&clk) + 200ll * 365 * 86400 * NS_PER_SEC);
    timerq_run(&tq);
    probe_storm(&mc146818_desc, &r, 500);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(keeps_time),
        TEST(formats),
        TEST(divider_reset_delays_half_a_second),
        TEST(update_in_progress),
        TEST(update_interrupt),
        TEST(periodic_interrupt),
        TEST(alarm_interrupt),
        TEST(cmos),
        TEST(reset_keeps_time),
        TEST(storm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
