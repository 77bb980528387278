/* test_ioapic.c - I/O APIC: registers, edge and level delivery, Remote IRR, EOI. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "chip/ioapic.h"
#include "chip/lapic.h"

static struct vclock vclk;
static struct timerq tq;
static struct apic_bus bus;
static struct lapic l[2];
static struct ioapic io;
static unsigned nmis;

static void on_event(void *ctx, enum lapic_event ev, unsigned arg)
{
    nmis += ev == LAPIC_NMI;
}

static int setup(void **state)
{
    struct lapic_host h = {.event = on_event};
    nmis = 0;
    vclock_init_manual(&vclk);
    timerq_init(&tq, &vclk);
    apic_bus_init(&bus);
    for (unsigned i = 0; i < 2; i++) {
        if (lapic_init(&l[i], &bus, &tq, i == 0, 40, &h, NULL))
            return -1;
        lapic_write(&l[i], 0xf0, 0x1ff, 4);
    }
    ioapic_init(&io, &bus);
    return 0;
}

static int teardown(void **state)
{
    timerq_fini(&tq);
    return 0;
}

static const struct io_ops *ops(void)
{
    return ioapic_desc.ranges[0].ops;
}

static uint32_t rd(unsigned reg)
{
    ops()->write(&io, 0, reg, 4);
    return (uint32_t)ops()->read(&io, 0x10, 4);
}

static void wr(unsigned reg, uint32_t v)
{
    ops()->write(&io, 0, reg, 4);
    ops()->write(&io, 0x10, v, 4);
}

static int ack(unsigned n)
{
    int v = lapic_ack(&l[n]);
    return v;
}

static void eoi(unsigned n)
{
    lapic_write(&l[n], 0xb0, 0, 4);
}

static void test_registers(void **state)
{
    assert_int_equal(rd(1), 0x00170020);
    wr(0, 0xff000000);
    assert_int_equal(rd(0), 0x0f000000);
    assert_int_equal(rd(0x10 + 46), 0x10000);
    wr(0x10, 0xffffffff);
    assert_int_equal(rd(0x10), 0x1afff); /* status bits are read-only */
    wr(0x11, 0xffffffff);
    assert_int_equal(rd(0x11), 0xff000000);
    wr(0x40, 0xffffffff); /* beyond the table */
    assert_int_equal(rd(0x40), 0);
    assert_int_equal(rd(0xff), 0);
    ioapic_set(&io, 24, true);
    ioapic_set(&io, 0xffffffff, true);
}

static void test_edge(void **state)
{
    ioapic_set(&io, 4, true); /* masked: lost */
    ioapic_set(&io, 4, false);
    wr(0x19, 1u << 24);
    wr(0x18, 0x34);
    assert_int_equal(ack(1), -1);
    ioapic_set(&io, 4, true);
    ioapic_set(&io, 4, true);
    assert_int_equal(ack(1), 0x34);
    assert_int_equal(ack(0), -1);
    eoi(1);
    assert_int_equal(ack(1), -1); /* one edge, one interrupt */
    ioapic_set(&io, 4, false);
    ioapic_set(&io, 4, true);
    assert_int_equal(ack(1), 0x34);
}

static void test_level(void **state)
{
    wr(0x10 + 2 * 11, 0x8000 | 0x71);
    ioapic_set(&io, 11, true);
    assert_int_equal(rd(0x10 + 2 * 11), 0xc071);
    assert_int_equal(ack(0), 0x71);
    eoi(0); /* still asserted */
    assert_int_equal(ack(0), 0x71);
    ioapic_set(&io, 11, false);
    eoi(0);
    assert_int_equal(ack(0), -1);
    assert_int_equal(rd(0x10 + 2 * 11), 0x8071);
    /* Asserted while masked: comes with the unmasking. */
    wr(0x10 + 2 * 11, 0x18000 | 0x71);
    ioapic_set(&io, 11, true);
    assert_int_equal(ack(0), -1);
    wr(0x10 + 2 * 11, 0x8000 | 0x71);
    assert_int_equal(ack(0), 0x71);
    eoi(0);
    assert_int_equal(ack(0), 0x71); /* in service again */
    /* Both ways to end a stuck Remote IRR. */
    ioapic_set(&io, 11, false);
    assert_int_equal(rd(0x10 + 2 * 11), 0xc071);
    ops()->write(&io, 0x40, 0x71, 4);
    assert_int_equal(rd(0x10 + 2 * 11), 0x8071);
    ioapic_set(&io, 11, true);
    wr(0x10 + 2 * 11, 0x10071);
    assert_int_equal(rd(0x10 + 2 * 11), 0x10071);
}

static void test_modes(void **state)
{
    wr(0x10 + 2 * 2, 0x400); /* NMI */
    ioapic_set(&io, 2, true);
    assert_int_equal(nmis, 1);
    /* A level interrupt for nobody waits for a destination. */
    wr(0x11 + 2 * 10, 9u << 24);
    wr(0x10 + 2 * 10, 0x8000 | 0x61);
    ioapic_set(&io, 10, true);
    assert_int_equal(rd(0x10 + 2 * 10), 0x8061);
    wr(0x11 + 2 * 10, 1u << 24);
    assert_int_equal(ack(1), 0x61);
}

static void test_reset(void **state)
{
    wr(0x10, 0x30);
    ioapic_desc.reset(&io);
    assert_int_equal(rd(0x10), 0x10000);
    assert_int_equal(io.redir[0], 0x10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_registers), T(test_edge), T(test_level), T(test_modes), T(test_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
