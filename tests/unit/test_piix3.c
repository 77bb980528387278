/* test_piix3.c - the ISA bridge: interrupt routing and the reset control register. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "pci/piix3.h"

static struct space mem, port;
static struct pci_bus bus;
static struct piix3 isa;
static uint16_t irqs;
static unsigned edges, resets;

static void on_irq(void *ctx, unsigned irq, bool level)
{
    assert_true(irq < 16);
    assert_true(((irqs >> irq) & 1) != level);
    irqs ^= (uint16_t)(1u << irq);
    edges++;
}

static void on_reset(void *ctx)
{
    resets++;
}

static void on_intx(void *ctx, unsigned devfn, unsigned pin, bool level)
{
    piix3_intx(ctx, devfn, pin, level);
}

static int setup(void **state)
{
    irqs = 0;
    edges = resets = 0;
    if (space_init(&mem, 1ull << 32, NULL, NULL) || space_init(&port, 0x10000, NULL, NULL) ||
        pci_bus_init(&bus, &mem, &port, NULL) || piix3_init(&isa, &bus, PCI_DEVFN(1, 0), NULL))
        return -1;
    isa.set_irq = on_irq;
    isa.reset_request = on_reset;
    bus.intx = on_intx;
    bus.ctx = &isa;
    return 0;
}

static int teardown(void **state)
{
    pci_dev_fini(&isa.pci);
    space_fini(&mem);
    space_fini(&port);
    return 0;
}

static void route(unsigned pirq, uint8_t val)
{
    space_write(&port, 0xcf8, 0x80000000u | PCI_DEVFN(1, 0) << 8 | 0x60, 4);
    space_write(&port, 0xcfc + pirq, val, 1);
}

static void slots_are_swizzled(void **state)
{
    assert_int_equal(piix3_pirq(PCI_DEVFN(1, 0), 0), 0);
    assert_int_equal(piix3_pirq(PCI_DEVFN(1, 3), 3), 3);
    assert_int_equal(piix3_pirq(PCI_DEVFN(2, 0), 0), 1);
    assert_int_equal(piix3_pirq(PCI_DEVFN(2, 0), 3), 0);
    assert_int_equal(piix3_pirq(PCI_DEVFN(5, 0), 0), 0);
    assert_int_equal(piix3_pirq(PCI_DEVFN(0, 0), 0), 3);
}

static void nothing_is_routed_after_reset(void **state)
{
    piix3_intx(&isa, PCI_DEVFN(2, 0), 0, true);
    assert_int_equal(irqs, 0);
    route(1, 11);
    assert_int_equal(irqs, 1 << 11);
}

static void shared_lines_are_ored(void **state)
{
    route(0, 10);
    route(1, 10);
    piix3_intx(&isa, PCI_DEVFN(1, 0), 0, true);
    piix3_intx(&isa, PCI_DEVFN(5, 0), 0, true);
    piix3_intx(&isa, PCI_DEVFN(2, 0), 0, true);
    assert_int_equal(irqs, 1 << 10);
    piix3_intx(&isa, PCI_DEVFN(1, 0), 0, false);
    piix3_intx(&isa, PCI_DEVFN(1, 0), 0, false);
    piix3_intx(&isa, PCI_DEVFN(2, 0), 0, false);
    assert_int_equal(irqs, 1 << 10);
    piix3_intx(&isa, PCI_DEVFN(5, 0), 0, false);
    assert_int_equal(irqs, 0);
    assert_int_equal(edges, 2);
}

static void a_route_may_change_while_asserted(void **state)
{
    route(0, 10);
    piix3_intx(&isa, PCI_DEVFN(1, 0), 0, true);
    route(0, 5);
    assert_int_equal(irqs, 1 << 5);
    route(0, 0x85);
    assert_int_equal(irqs, 0);
    route(0, 0x0b);
    assert_int_equal(irqs, 1 << 11);
    pci_bus_reset(&bus);
    assert_int_equal(irqs, 0);
}

static void reserved_interrupts_are_not_driven(void **state)
{
    piix3_intx(&isa, PCI_DEVFN(1, 0), 0, true);
    for (uint8_t irq = 0; irq < 16; irq++) {
        route(0, irq);
        bool reserved = irq < 3 || irq == 8 || irq == 13;
        assert_int_equal(irqs, reserved ? 0 : 1 << irq);
    }
}

static void reset_starts_on_the_rising_bit(void **state)
{
    space_write(&port, 0xcf9, 0x02, 1);
    assert_int_equal(resets, 0);
    assert_int_equal(space_read(&port, 0xcf9, 1), 0x02);
    space_write(&port, 0xcf9, 0x0e, 1);
    assert_int_equal(resets, 1);
    space_write(&port, 0xcf9, 0x06, 1);
    assert_int_equal(resets, 1);
    pci_bus_reset(&bus);
    assert_int_equal(space_read(&port, 0xcf9, 1), 0);
    space_write(&port, 0xcf9, 0x04, 1);
    assert_int_equal(resets, 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(slots_are_swizzled),
        TEST(nothing_is_routed_after_reset),
        TEST(shared_lines_are_ored),
        TEST(a_route_may_change_while_asserted),
        TEST(reserved_interrupts_are_not_driven),
        TEST(reset_starts_on_the_rising_bit),
    };
    return cmocka_run_group_tests_name("piix3", tests, NULL, NULL);
}
