/* test_i8259.c - initialisation, priorities, EOI forms, special mask, poll, levels, spurious
 * vectors. */
#include "chip_probe.h"

#include "chip/i8259.h"

static struct i8259 p;
static struct probe intr;

static void out(uint64_t port, uint8_t val)
{
    out8(&i8259_desc, &p, port, val);
}

static uint8_t in(uint64_t port)
{
    return in8(&i8259_desc, &p, port);
}

/* As PC firmware does it: vectors 0x08 and 0x70, all unmasked. */
static void program(uint8_t icw4_master, uint8_t icw4_slave)
{
    const uint8_t icw4[2] = {icw4_master, icw4_slave};
    for (unsigned n = 0; n < 2; n++) {
        uint64_t base = n ? 0xa0 : 0x20;
        out(base, 0x11);
        out(base + 1, n ? 0x70 : 0x08);
        out(base + 1, n ? 2 : 4);
        out(base + 1, icw4[n]);
        out(base + 1, 0);
    }
}

static int setup(void **state)
{
    i8259_init(&p, probe_pin(&intr));
    program(1, 1);
    return 0;
}

static void pulse(unsigned irq)
{
    i8259_set_irq(&p, irq, false);
    i8259_set_irq(&p, irq, true);
}

static uint8_t isr(uint64_t base)
{
    out(base, 0x0b);
    return in(base);
}

static uint8_t irr(uint64_t base)
{
    out(base, 0x0a);
    return in(base);
}

static void fully_nested(void **state)
{
    pulse(4);
    assert_true(intr.level);
    assert_int_equal(irr(0x20), 0x10);
    assert_int_equal(i8259_ack(&p), 0x0c);
    assert_false(intr.level);
    assert_int_equal(isr(0x20), 0x10);
    assert_int_equal(irr(0x20), 0);
    pulse(6);
    assert_false(intr.level); /* lower than 4 */
    pulse(1);
    assert_true(intr.level);
    assert_int_equal(i8259_ack(&p), 0x09);
    assert_int_equal(isr(0x20), 0x12);
    out(0x20, 0x20); /* ends 1 */
    assert_int_equal(isr(0x20), 0x10);
    out(0x20, 0x20);
    assert_int_equal(i8259_ack(&p), 0x0e);
    out(0x20, 0x66); /* specific */
    assert_int_equal(isr(0x20), 0);
}

static void edges_need_a_fall(void **state)
{
    pulse(3);
    i8259_ack(&p);
    out(0x20, 0x20);
    i8259_set_irq(&p, 3, true);
    assert_false(intr.level);
    pulse(3);
    assert_true(intr.level);
}

static void cascade(void **state)
{
    pulse(12);
    assert_int_equal(i8259_ack(&p), 0x74);
    assert_int_equal(isr(0x20), 0x04);
    assert_int_equal(isr(0xa0), 0x10);
    pulse(9); /* higher on the slave, but the master still serves IR2 */
    assert_false(intr.level);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_int_equal(i8259_ack(&p), 0x71);
    i8259_set_irq(&p, 2, true); /* not an input of the pair */
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_false(intr.level);
}

static void special_fully_nested(void **state)
{
    program(0x11, 1);
    pulse(12);
    assert_int_equal(i8259_ack(&p), 0x74);
    pulse(9);
    assert_true(intr.level);
    assert_int_equal(i8259_ack(&p), 0x71);
}

static void masks(void **state)
{
    out(0x21, 0xff);
    pulse(0);
    assert_false(intr.level);
    assert_int_equal(in(0x21), 0xff);
    out(0x21, 0xfe);
    assert_true(intr.level);
}

static void special_mask(void **state)
{
    pulse(1);
    i8259_ack(&p);
    out(0x21, 0x02);
    out(0x20, 0x68); /* set special mask */
    pulse(5);
    assert_int_equal(i8259_ack(&p), 0x0d); /* lower than 1, which is masked */
    out(0x20, 0x20);                       /* must end 5, not the masked 1 */
    assert_int_equal(isr(0x20), 0x02);
    out(0x20, 0x48); /* reset special mask */
    pulse(5);
    assert_false(intr.level);
}

static void rotation(void **state)
{
    pulse(2 + 1);
    i8259_ack(&p);
    out(0x20, 0xa0); /* rotate on non-specific EOI: 3 is now lowest, 4 highest */
    pulse(3);
    pulse(4);
    pulse(0);
    assert_int_equal(i8259_ack(&p), 0x0c);
    out(0x20, 0xe4); /* rotate on specific EOI: 4 lowest */
    assert_int_equal(i8259_ack(&p), 0x08);
    out(0x20, 0x60);
    assert_int_equal(i8259_ack(&p), 0x0b);
    out(0x20, 0x63);
    out(0x20, 0xc5); /* set priority: 5 lowest, 6 highest */
    pulse(0);
    pulse(6);
    assert_int_equal(i8259_ack(&p), 0x0e);
}

static void automatic_eoi(void **state)
{
    program(0x03, 0x03);
    pulse(5);
    assert_int_equal(i8259_ack(&p), 0x0d);
    assert_int_equal(isr(0x20), 0);
    out(0x20, 0x80); /* rotate in AEOI mode */
    pulse(0);
    assert_int_equal(i8259_ack(&p), 0x08);
    pulse(0);
    pulse(7);
    assert_int_equal(i8259_ack(&p), 0x0f);
    out(0x20, 0x00);
}

static void poll(void **state)
{
    out(0x20, 0x0c);
    assert_int_equal(in(0x20) & 0x80, 0);
    pulse(6);
    out(0x20, 0x0c);
    assert_int_equal(in(0x20), 0x86);
    assert_int_equal(isr(0x20), 0x40);
    assert_false(intr.level);
}

static void level_triggered(void **state)
{
    out(0x4d0, 0xff);
    out(0x4d1, 0xff);
    assert_int_equal(in(0x4d0), 0xf8);
    assert_int_equal(in(0x4d1), 0xde);
    i8259_set_irq(&p, 11, true);
    assert_int_equal(i8259_ack(&p), 0x73);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_true(intr.level); /* still asserted */
    assert_int_equal(i8259_ack(&p), 0x73);
    i8259_set_irq(&p, 11, false);
    out(0xa0, 0x20);
    out(0x20, 0x20);
    assert_false(intr.level);
}

static void spurious(void **state)
{
    assert_int_equal(i8259_ack(&p), 0x0f);
    assert_int_equal(isr(0x20), 0);
    out(0x4d1, 0x08);
    i8259_set_irq(&p, 11, true);
    i8259_set_irq(&p, 11, false); /* gone before the CPU answered */
    assert_int_equal(i8259_ack(&p), 0x77);
    assert_int_equal(isr(0xa0), 0);
    assert_int_equal(isr(0x20), 0x04); /* the master needs its EOI */
}

static void icw1_restarts(void **state)
{
    pulse(3);
    i8259_ack(&p);
    pulse(4);
    out(0x21, 0x55);
    out(0x20, 0x13); /* single, ICW4 needed: no ICW3 */
    out(0x21, 0x27);
    out(0x21, 0x01);
    assert_int_equal(in(0x21), 0);
    assert_int_equal(isr(0x20), 0);
    assert_int_equal(irr(0x20), 0);
    pulse(0);
    assert_int_equal(i8259_ack(&p), 0x20); /* the low bits of ICW2 are the input's */
    i8259_desc.reset(&p);
    assert_false(intr.level);
}

static void storm(void **state)
{
    probe_storm(&i8259_desc, &p, 5000);
    for (unsigned i = 0; i < 40; i++) {
        i8259_set_irq(&p, i, i & 1);
        int v = i8259_ack(&p);
        assert_in_range(v, 0, 255);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(fully_nested, setup),
        cmocka_unit_test_setup(edges_need_a_fall, setup),
        cmocka_unit_test_setup(cascade, setup),
        cmocka_unit_test_setup(special_fully_nested, setup),
        cmocka_unit_test_setup(masks, setup),
        cmocka_unit_test_setup(special_mask, setup),
        cmocka_unit_test_setup(rotation, setup),
        cmocka_unit_test_setup(automatic_eoi, setup),
        cmocka_unit_test_setup(poll, setup),
        cmocka_unit_test_setup(level_triggered, setup),
        cmocka_unit_test_setup(spurious, setup),
        cmocka_unit_test_setup(icw1_restarts, setup),
        cmocka_unit_test_setup(storm, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
