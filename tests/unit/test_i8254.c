/* test_i8254.c - 8254: the six modes, count read-back, BCD, gates, phase of IRQ 0; port 0x61. */
#include "chip_probe.h"

#include "chip/i8254.h"
#include "chip/port61.h"

static struct vclock clk;
static struct timerq tq;
static struct i8254 p;
static struct port61 nmisc;
static struct probe irq0;

static void out(uint64_t port, uint8_t val)
{
    out8(&i8254_desc, &p, port, val);
}

static uint8_t in(uint64_t port)
{
    return in8(&i8254_desc, &p, port);
}

static uint16_t in_word(uint64_t port)
{
    uint16_t lo = in(port);
    return (uint16_t)(lo | in(port) << 8);
}

static void out_word(uint64_t port, uint16_t val)
{
    out(port, val & 0xff);
    out(port, val >> 8);
}

/* To the middle of a tick, running timers on the way as the event loop would. */
static void to_tick(uint64_t tick)
{
    ns_t t = (ns_t)muldiv_u64(2 * tick + 1, NS_PER_SEC, 2ull * I8254_HZ), next;
    while ((next = timerq_next(&tq)) <= t) {
        vclock_set(&clk, next);
        timerq_run(&tq);
    }
    vclock_set(&clk, t);
}

static uint16_t latched(unsigned ch)
{
    out(0x43, (uint8_t)(ch << 6));
    return in_word(0x40 + ch);
}

static uint8_t status(unsigned ch)
{
    out(0x43, (uint8_t)(0xe0 | 2u << ch));
    return in(0x40 + ch);
}

static int setup(void **state)
{
    vclock_init_manual(&clk);
    timerq_init(&tq, &clk);
    assert_int_equal(i8254_init(&p, &tq, probe_pin(&irq0), NULL), 0);
    port61_init(&nmisc, &p);
    to_tick(1000);
    return 0;
}

static int teardown(void **state)
{
    timerq_fini(&tq);
    return 0;
}

static void mode0(void **state)
{
    out(0x43, 0x30);
    assert_false(irq0.level);
    assert_int_equal(status(0), 0x40 | 0x30); /* null count, OUT low */
    out_word(0x40, 100);
    assert_int_equal(status(0) & 0x40, 0x40); /* loaded by the next clock pulse */
    to_tick(1001);
    assert_int_equal(latched(0), 100);
    assert_int_equal(status(0), 0x30);
    to_tick(1051);
    assert_int_equal(latched(0), 50);
    to_tick(1100);
    assert_int_equal(latched(0), 1);
    assert_false(i8254_out(&p, 0));
    to_tick(1101); /* N + 1 after the write */
    assert_true(i8254_out(&p, 0));
    assert_int_equal(irq0.rises, 1);
    assert_int_equal(status(0), 0xb0);
    to_tick(1102);
    assert_int_equal(latched(0), 0xffff); /* wraps, OUT stays */
    to_tick(200000);
    assert_int_equal(irq0.rises, 1);
    out(0x40, 10); /* the first byte lowers OUT */
    assert_false(irq0.level);
    assert_false(i8254_out(&p, 0));
    out(0x40, 0);
    to_tick(200011);
    assert_int_equal(irq0.rises, 2);
}

static void mode2_keeps_phase(void **state)
{
    out(0x43, 0x34);
    assert_true(irq0.level);
    out_word(0x40, 11932); /* 100 Hz */
    irq0.rises = 0;
    to_tick(1001 + 11932 * 1000ull);
    assert_int_equal(irq0.rises, 1000);
    assert_int_equal(latched(0), 11932);
    to_tick(1001 + 11932 * 1000ull + 11931);
    assert_int_equal(latched(0), 1);
    assert_false(i8254_out(&p, 0));
    /* Far behind: one edge for all, and the phase is as if nothing happened. */
    vclock_set(&clk, vclock_now(&clk) + 100 * NS_PER_SEC);
    irq0.rises = 0;
    timerq_run(&tq);
    assert_int_equal(irq0.rises, 1);
    assert_true(timerq_next(&tq) > vclock_now(&clk));
    uint64_t tick = p.next_edge;
    assert_int_equal((tick - 1001) % 11932, 0);
    to_tick(tick);
    assert_int_equal(irq0.rises, 2);
}

static void mode2_new_count_waits(void **state)
{
    out(0x43, 0x34);
    out_word(0x40, 1000);
    to_tick(1001 + 500);
    out_word(0x40, 2000);
    assert_int_equal(status(0) & 0x40, 0x40);
    assert_int_equal(latched(0), 500);
    to_tick(1001 + 1000);
    assert_int_equal(latched(0), 2000);
    assert_int_equal(status(0) & 0x40, 0);
    irq0.rises = 0;
    to_tick(1001 + 1000 + 1999);
    assert_int_equal(irq0.rises, 0);
    to_tick(1001 + 1000 + 2000);
    assert_int_equal(irq0.rises, 1);
}

static void mode3(void **state)
{
    out(0x43, 0xb6);
    i8254_set_gate(&p, 2, true);
    out_word(0x42, 10);
    static const uint8_t even[10] = {10, 8, 6, 4, 2, 10, 8, 6, 4, 2};
    for (unsigned i = 0; i < 20; i++) {
        to_tick(1001 + i);
        assert_int_equal(latched(2), even[i % 10]);
        assert_int_equal(i8254_out(&p, 2), i % 10 < 5);
    }
    out(0x43, 0xb6);
    out_word(0x42, 5); /* odd: high for 3, low for 2; counts 4 2 0 4 2 */
    static const uint8_t odd[5] = {4, 2, 0, 4, 2};
    for (unsigned i = 0; i < 10; i++) {
        to_tick(1021 + i);
        assert_int_equal(latched(2), odd[i % 5]);
        assert_int_equal(i8254_out(&p, 2), i % 5 < 3);
    }
}

static void mode3_new_count_at_half(void **state)
{
    out(0x43, 0x36);
    out_word(0x40, 1000);
    to_tick(1001 + 100);
    out_word(0x40, 200);
    irq0.rises = 0;
    to_tick(1001 + 500);
    assert_false(i8254_out(&p, 0));
    to_tick(1001 + 599);
    assert_false(i8254_out(&p, 0));
    assert_int_equal(irq0.rises, 0);
    to_tick(1001 + 600);
    assert_true(i8254_out(&p, 0));
    assert_int_equal(irq0.rises, 1);
    to_tick(1001 + 800);
    assert_int_equal(irq0.rises, 2);
}

static void one_shots(void **state)
{
    out(0x43, 0xb2); /* mode 1 */
    out_word(0x42, 20);
    assert_true(i8254_out(&p, 2));
    assert_int_equal(status(2), 0xf2); /* waits for the trigger */
    i8254_set_gate(&p, 2, true);
    to_tick(1001);
    assert_false(i8254_out(&p, 2));
    to_tick(1020);
    assert_false(i8254_out(&p, 2));
    to_tick(1021);
    assert_true(i8254_out(&p, 2));
    out(0x43, 0x38); /* mode 4 on channel 0: a strobe of one tick */
    out_word(0x40, 50);
    irq0.rises = 0;
    to_tick(1022 + 49);
    assert_true(i8254_out(&p, 0));
    to_tick(1022 + 50);
    assert_false(i8254_out(&p, 0));
    to_tick(1022 + 51);
    assert_true(i8254_out(&p, 0));
    to_tick(1200);
    assert_int_equal(irq0.rises, 1);
    to_tick(300000);
    assert_int_equal(irq0.rises, 1);
    out(0x43, 0xba); /* mode 5 on channel 2: a strobe after the trigger */
    out_word(0x42, 3);
    i8254_set_gate(&p, 2, false);
    i8254_set_gate(&p, 2, true);
    to_tick(300003);
    assert_true(i8254_out(&p, 2));
    to_tick(300004);
    assert_false(i8254_out(&p, 2));
    to_tick(300005);
    assert_true(i8254_out(&p, 2));
}

static void gate_pauses(void **state)
{
    out(0x43, 0xb0);
    out_word(0x42, 1000);
    assert_int_equal(latched(2), 1000); /* the gate is low */
    to_tick(2000);
    assert_int_equal(latched(2), 1000);
    i8254_set_gate(&p, 2, true);
    to_tick(2300);
    assert_int_equal(latched(2), 700);
    i8254_set_gate(&p, 2, false);
    to_tick(9000);
    assert_int_equal(latched(2), 700);
    out(0x43, 0xb4); /* mode 2: the rising gate reloads */
    out_word(0x42, 1000);
    i8254_set_gate(&p, 2, true);
    to_tick(9401);
    assert_int_equal(latched(2), 600);
    i8254_set_gate(&p, 2, false);
    assert_true(i8254_out(&p, 2));
    i8254_set_gate(&p, 2, true);
    to_tick(9402);
    assert_int_equal(latched(2), 1000);
}

static void latches(void **state)
{
    out(0x43, 0x34);
    out_word(0x40, 0); /* 65536 */
    to_tick(1001 + 0x1234);
    out(0x43, 0x00);
    to_tick(30000);
    out(0x43, 0x00); /* ignored: the first latch is still there */
    assert_int_equal(in_word(0x40), 0x10000 - 0x1234);
    assert_int_equal(in_word(0x40), 0x10000 - (30000 - 1001));
    out(0x43, 0xc2); /* read-back of both: status comes first */
    to_tick(30100);
    assert_int_equal(in(0x40), 0x80 | 0x30 | 2 << 1);
    assert_int_equal(in_word(0x40), 0x10000 - (30000 - 1001));
    out(0x43, 0x14); /* LSB only */
    out(0x40, 200);
    to_tick(30101 + 10);
    assert_int_equal(in(0x40), 190);
    out(0x43, 0x24); /* MSB only */
    out(0x40, 0x12);
    to_tick(30112 + 1);
    assert_int_equal(in(0x40), 0x11);
    assert_int_equal(in(0x43), 0xff);
}

static void bcd(void **state)
{
    out(0x43, 0x31);
    out_word(0x40, 0x0100);
    to_tick(1001);
    assert_int_equal(latched(0), 0x0100);
    to_tick(1002);
    assert_int_equal(latched(0), 0x0099);
    to_tick(1102);
    assert_int_equal(latched(0), 0x9999);
    out(0x43, 0x35);
    out_word(0x40, 0xffff); /* not digits */
    to_tick(5000);
    latched(0);
}

static void port_61(void **state)
{
    out8(&port61_desc, &nmisc, 0x61, 0xff);
    assert_int_equal(in8(&port61_desc, &nmisc, 0x61) & 0xcf, 0x0f);
    assert_true(i8254_gate(&p, 2));
    out(0x43, 0xb0);
    out_word(0x42, 5);
    assert_int_equal(in8(&port61_desc, &nmisc, 0x61) & 0x20, 0);
    to_tick(1006);
    assert_int_equal(in8(&port61_desc, &nmisc, 0x61) & 0x20, 0x20);
    vclock_set(&clk, 15085 * 1000);
    assert_int_equal(in8(&port61_desc, &nmisc, 0x61) & 0x10, 0);
    vclock_set(&clk, 15085 * 1001);
    assert_int_equal(in8(&port61_desc, &nmisc, 0x61) & 0x10, 0x10);
    port61_desc.reset(&nmisc);
    assert_false(i8254_gate(&p, 2));
}

static void storm(void **state)
{
    for (unsigned i = 0; i < 200; i++) {
        probe_storm(&i8254_desc, &p, 7 + i);
        probe_storm(&port61_desc, &nmisc, 3);
        vclock_set(&clk, vclock_now(&clk) + 1 + i * i * 997);
        assert_true(timerq_run(&tq) > vclock_now(&clk));
    }
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(mode0),
        TEST(mode2_keeps_phase),
        TEST(mode2_new_count_waits),
        TEST(mode3),
        TEST(mode3_new_count_at_half),
        TEST(one_shots),
        TEST(gate_pauses),
        TEST(latches),
        TEST(bcd),
        TEST(port_61),
        TEST(storm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
