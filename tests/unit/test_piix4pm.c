/* test_piix4pm.c - PIIX4 power management: SCI, timer, sleep, APM handover, SMBus, PCI function. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/endian.h"
#include "pci/piix4pm_pci.h"

static struct vclock vclk;
static struct timerq tq;
static struct piix4pm pm;
static bool sci;
static unsigned offs;

static void on_sci(void *ctx, unsigned line, bool level)
{
    sci = level;
}

static void on_off(void *ctx)
{
    offs++;
}

static int setup(void **state)
{
    sci = false;
    offs = 0;
    vclock_init_manual(&vclk);
    timerq_init(&tq, &vclk);
    return piix4pm_init(&pm, &tq, &(struct pin){on_sci, NULL, 9}, on_off, NULL, NULL);
}

static int teardown(void **state)
{
    piix4pm_fini(&pm);
    timerq_fini(&tq);
    return 0;
}

static uint32_t rd(unsigned off, unsigned size)
{
    return (uint32_t)piix4pm_ops.read(&pm, off, size);
}

static void wr(unsigned off, uint32_t v, unsigned size)
{
    piix4pm_ops.write(&pm, off, v, size);
}

static void advance(ns_t to)
{
    vclock_set(&vclk, to);
    timerq_run(&tq);
}

static void apm(uint8_t v)
{
    piix4pm_desc.ranges[0].ops->write(&pm, 0, v, 1);
}

static void test_timer(void **state)
{
    assert_int_equal(rd(8, 4), 0);
    advance(NS_PER_SEC);
    assert_int_equal(rd(8, 4), 3579545);
    advance(10 * NS_PER_SEC);
    assert_int_equal(rd(8, 4), 35795450 & 0xffffff);
    assert_int_equal(rd(9, 1), (35795450 >> 8) & 0xff);
    wr(8, 0, 4);
    assert_int_equal(rd(8, 4), 35795450 & 0xffffff);
}

static void test_timer_overflow(void **state)
{
    advance(2343000000); /* 2^23 ticks are 2.3434 s */
    assert_int_equal(rd(0, 2), 0);
    advance(2344000000);
    assert_int_equal(rd(0, 2), 1);
    wr(0, 1, 2);
    assert_int_equal(rd(0, 2), 0);
    wr(2, 1, 2);
    apm(PIIX4PM_ACPI_ENABLE);
    assert_false(sci);
    advance(4687000000);
    assert_true(sci);
    wr(0, 1, 1);
    assert_false(sci);
    assert_true(timerq_next(&tq) < 7100000000);
    wr(2, 0, 2);
    assert_true(timerq_next(&tq) == INT64_MAX);
}

static void test_power_button(void **state)
{
    piix4pm_power_button(&pm);
    wr(2, 0x100, 2);
    assert_false(sci); /* not before ACPI is enabled */
    assert_int_equal(rd(4, 2), 0);
    apm(PIIX4PM_ACPI_ENABLE);
    assert_int_equal(rd(4, 2), 1);
    assert_true(sci);
    wr(0, 0x21, 1); /* byte lanes: another byte's bits stay */
    assert_true(sci);
    wr(1, 0x01, 1);
    assert_false(sci);
    assert_int_equal(rd(0, 4), 0x01000000);
    apm(PIIX4PM_ACPI_DISABLE);
    assert_int_equal(rd(4, 2), 0);
    assert_int_equal(piix4pm_desc.ranges[0].ops->read(&pm, 0, 1), PIIX4PM_ACPI_DISABLE);
}

static void test_sleep(void **state)
{
    wr(4, 0x2000 | 1 << 10, 2); /* suspend to RAM */
    assert_int_equal(offs, 0);
    assert_int_equal(rd(4, 2), 1 << 10); /* SLP_EN reads as 0 */
    wr(4, 0x0001, 2);
    assert_int_equal(offs, 0);
    wr(4, 0x2001, 2);
    assert_int_equal(offs, 1);
    wr(5, 0x20, 1);
    assert_int_equal(offs, 2);
    for (unsigned off = 0; off < PIIX4PM_SIZE; off++)
        wr(off, 0xdf, 1);
    for (unsigned off = 0; off < PIIX4PM_SIZE; off += 4)
        rd(off, 4);
    piix4pm_reset(&pm);
    assert_int_equal(rd(0, 4) | rd(4, 2) | rd(12, 4), 0);
}

static void test_smbus(void **state)
{
    struct piix4smb s;
    piix4smb_reset(&s);
    piix4smb_ops.write(&s, 4, 0xa1, 1);
    assert_int_equal(piix4smb_ops.read(&s, 4, 1), 0xa1);
    piix4smb_ops.write(&s, 2, 0x48, 1);
    assert_int_equal(piix4smb_ops.read(&s, 0, 1), 0x04); /* device error, not busy */
    assert_int_equal(piix4smb_ops.read(&s, 2, 1), 0x08);
    piix4smb_ops.write(&s, 0, 0xff, 1);
    assert_int_equal(piix4smb_ops.read(&s, 0, 1), 0);
}

static void test_pci(void **state)
{
    static struct space mem, port;
    static struct pci_bus bus;
    static struct piix4pm_pci p;
    assert_int_equal(space_init(&mem, 1ull << 32, NULL, NULL), 0);
    assert_int_equal(space_init(&port, 0x10000, NULL, NULL), 0);
    assert_int_equal(pci_bus_init(&bus, &mem, &port, NULL), 0);
    assert_int_equal(piix4pm_pci_init(&p, &bus, PCI_DEVFN(1, 3), &pm, NULL), 0);
    assert_int_equal(load_le32(&p.pci.cfg[0]), 0x71138086);
    assert_int_equal(space_read(&port, 0x608, 4), 0xffffffff);
    uint32_t cf8 = 0x80000000u | PCI_DEVFN(1, 3) << 8;
    space_write(&port, 0xcf8, cf8 | 0x58, 4);
    assert_int_equal(space_read(&port, 0xcfc, 4), 1u << 25);
    space_write(&port, 0xcf8, cf8 | 0x40, 4);
    space_write(&port, 0xcfc, 0x601, 4);
    assert_int_equal(space_read(&port, 0xcfc, 4), 0x601);
    assert_int_equal(space_read(&port, 0x604, 2), 0xffff); /* not enabled yet */
    space_write(&port, 0xcf8, cf8 | 0x80, 4);
    space_write(&port, 0xcfc, 1, 1);
    space_write(&port, 0x604, 1, 2);
    assert_int_equal(space_read(&port, 0x604, 2), 1);
    space_write(&port, 0xcf8, cf8 | 0x40, 4);
    space_write(&port, 0xcfc, 0xffffffff, 4); /* the top of the port space */
    assert_int_equal(space_read(&port, 0xffc4, 2), 1);
    pci_bus_reset(&bus);
    assert_int_equal(space_read(&port, 0xffc4, 2), 0xffff);
    piix4pm_pci_program(&p, 0x600);
    assert_int_equal(space_read(&port, 0x604, 2), 0);
    assert_int_equal(space_read(&port, 0x700, 1), 0);
    pci_dev_fini(&p.pci);
    space_fini(&mem);
    space_fini(&port);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_timer), T(test_timer_overflow), T(test_power_button),
        T(test_sleep), T(test_smbus),          T(test_pci),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
