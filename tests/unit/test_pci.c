/* test_pci.c - the bus as a guest sees it through ports 0xCF8-0xCFF, and MSI-X. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "pci/config.h"
#include "pci/pci.h"

static struct ram ram;
static struct space mem, port;
static struct pci_bus bus;
static struct pci_dev dev;
static unsigned changes, resets, hooked;
static struct {
    unsigned devfn, pin, calls;
    bool level;
} intx;
static struct {
    uint64_t addr;
    uint32_t data;
    unsigned calls;
} msi;
static uint8_t cf9;

static uint64_t reg_read(void *d, uint64_t off, unsigned size)
{
    return 0x1000 + off;
}

static void reg_write(void *d, uint64_t off, uint64_t val, unsigned size)
{
    *(uint8_t *)d = (uint8_t)val;
}

static const struct io_ops reg_ops = {"test", 4, reg_read, reg_write};
static const struct io_ops cf9_ops = {"cf9", 1, reg_read, reg_write};

static void on_intx(void *ctx, unsigned devfn, unsigned pin, bool level)
{
    intx.devfn = devfn;
    intx.pin = pin;
    intx.level = level;
    intx.calls++;
}

static void on_msi(void *ctx, uint64_t addr, uint32_t data)
{
    msi.addr = addr;
    msi.data = data;
    msi.calls++;
}

static void on_change(void *arg)
{
    changes++;
}

static void on_reset(struct pci_dev *d)
{
    resets++;
}

static void on_written(struct pci_dev *d, unsigned off, unsigned len)
{
    hooked = off << 8 | len;
}

static const struct pci_ids ids = {
    .vendor = 0x1af4,
    .device = 0x1042,
    .subvendor = 0x1111,
    .subdevice = 0x2222,
    .class_rev = 0x01000005,
    .intx_pin = 2,
};

#define DEVFN PCI_DEVFN(3, 1)

static int setup(void **state)
{
    if (ram_init(&ram, 1 * MIB, NULL) || space_init(&mem, 1ull << 40, &ram, NULL) ||
        space_init(&port, 0x10000, NULL, NULL) || pci_bus_init(&bus, &mem, &port, NULL) ||
        space_add_ram(&mem, 0, 1 * MIB, 0, 0, NULL, NULL))
        return -1;
    mem.changed = on_change;
    bus.intx = on_intx;
    bus.msi = on_msi;
    memset(&intx, 0, sizeof intx);
    memset(&msi, 0, sizeof msi);
    changes = resets = hooked = 0;
    return pci_dev_init(&bus, &dev, "test", DEVFN, &ids, NULL);
}

static int teardown(void **state)
{
    pci_dev_fini(&dev);
    space_fini(&mem);
    space_fini(&port);
    ram_fini(&ram);
    return 0;
}

static void cfg_select(unsigned devfn, unsigned off)
{
    space_write(&port, 0xcf8, 0x80000000u | devfn << 8 | (off & 0xfc), 4);
}

static uint32_t cfg_read(unsigned off, unsigned size)
{
    cfg_select(DEVFN, off);
    return (uint32_t)space_read(&port, 0xcfc + (off & 3), size);
}

static void cfg_write(unsigned off, uint32_t val, unsigned size)
{
    cfg_select(DEVFN, off);
    space_write(&port, 0xcfc + (off & 3), val, size);
}

static void header_reads_in_every_size(void **state)
{
    assert_int_equal(cfg_read(0, 4), 0x10421af4);
    assert_int_equal(cfg_read(2, 2), 0x1042);
    assert_int_equal(cfg_read(3, 1), 0x10);
    assert_int_equal(cfg_read(8, 4), 0x01000005);
    assert_int_equal(cfg_read(0x2c, 4), 0x22221111);
    assert_int_equal(cfg_read(0x3d, 1), 2);
    assert_int_equal(cfg_read(1, 2), 0x421a); /* unaligned, within the dword */
}

static void identity_is_read_only(void **state)
{
    cfg_write(0, 0, 4);
    cfg_write(8, 0, 4);
    cfg_write(0x2c, 0, 4);
    cfg_write(0x3d, 0, 1);
    header_reads_in_every_size(state);
    cfg_write(0x3c, 0x0b, 1);
    assert_int_equal(cfg_read(0x3c, 2), 0x020b);
}

static void empty_places_read_as_ones(void **state)
{
    cfg_select(PCI_DEVFN(4, 0), 0);
    assert_int_equal(space_read(&port, 0xcfc, 4), 0xffffffff);
    space_write(&port, 0xcfc, 0, 4);
    space_write(&port, 0xcf8, 0x80010000u | DEVFN << 8, 4); /* bus 1 */
    assert_int_equal(space_read(&port, 0xcfc, 4), 0xffffffff);
    space_write(&port, 0xcf8, DEVFN << 8, 4); /* not enabled */
    assert_int_equal(space_read(&port, 0xcfc, 2), 0xffff);
}

static void config_address_answers_dwords_only(void **state)
{
    space_write(&port, 0xcf8, 0xffffffff, 4);
    assert_int_equal(space_read(&port, 0xcf8, 4), 0x80fffffc);
    space_write(&port, 0xcfb, 1, 1);
    assert_int_equal(space_read(&port, 0xcf8, 4), 0x80fffffc);
    assert_int_equal(space_read(&port, 0xcfb, 1), 0xff);
    space_write(&port, 0xcf9, 6, 1);
    assert_int_equal(space_read(&port, 0xcf9, 1), 0xff);
}

static void cf9_goes_to_its_owner(void **state)
{
    bus.cf9 = &cf9_ops;
    bus.cf9_dev = &cf9;
    space_write(&port, 0xcf9, 6, 1);
    assert_int_equal(cf9, 6);
    assert_int_equal(space_read(&port, 0xcf9, 1), 0);
    assert_int_equal(space_read(&port, 0xcf8, 4), 0);
}

static void a_place_holds_one_function(void **state)
{
    struct pci_dev other;
    struct error e;
    assert_int_equal(pci_dev_init(&bus, &other, "other", DEVFN, &ids, &e), ERR_BUSY);
    assert_int_equal(pci_dev_init(&bus, &other, "other", 256, &ids, &e), ERR_BUSY);
    pci_dev_fini(&other);
    assert_ptr_equal(bus.dev[DEVFN], &dev);
}

static uint8_t written;

static void add_bars(void)
{
    assert_int_equal(pci_bar_add(&dev, 0, true, false, false, 32, &reg_ops, &written, NULL), 0);
    assert_int_equal(pci_bar_add(&dev, 1, false, false, false, 4096, &reg_ops, &written, NULL), 0);
    assert_int_equal(pci_bar_add(&dev, 4, false, true, true, 16384, &reg_ops, &written, NULL), 0);
}

static void bars_are_sized_by_writing_ones(void **state)
{
    add_bars();
    for (unsigned i = 0; i < 6; i++)
        cfg_write(PCI_BAR0 + 4 * i, 0xffffffff, 4);
    assert_int_equal(cfg_read(PCI_BAR0, 4), 0xffffffe1);
    assert_int_equal(cfg_read(PCI_BAR0 + 4, 4), 0xfffff000);
    assert_int_equal(cfg_read(PCI_BAR0 + 8, 4), 0);
    assert_int_equal(cfg_read(PCI_BAR0 + 16, 4), 0xffffc00c);
    assert_int_equal(cfg_read(PCI_BAR0 + 20, 4), 0xffffffff);
    assert_int_equal(changes, 0); /* decoding is off */
}

static void bars_follow_the_command_register(void **state)
{
    add_bars();
    cfg_write(PCI_BAR0, 0xc001, 4);
    cfg_write(PCI_BAR0 + 4, 0xfe000000, 4);
    assert_int_equal(space_read(&port, 0xc004, 4), 0xffffffff);
    cfg_write(PCI_COMMAND, PCI_CMD_IO, 2);
    assert_int_equal(space_read(&port, 0xc004, 4), 0x1004);
    assert_int_equal(space_read(&mem, 0xfe000010, 4), 0xffffffff);
    cfg_write(PCI_COMMAND, PCI_CMD_IO | PCI_CMD_MEM, 2);
    assert_int_equal(space_read(&mem, 0xfe000010, 4), 0x1010);
    cfg_write(PCI_BAR0 + 6, 0xfd00, 2); /* a part of the register */
    assert_int_equal(space_read(&mem, 0xfe000010, 4), 0xffffffff);
    assert_int_equal(space_read(&mem, 0xfd000010, 4), 0x1010);
}

static void wide_bar_goes_above_4g(void **state)
{
    add_bars();
    cfg_write(PCI_COMMAND, PCI_CMD_MEM, 2);
    cfg_write(PCI_BAR0 + 16, 0x80000000, 4);
    cfg_write(PCI_BAR0 + 20, 0x12, 4);
    assert_int_equal(space_read(&mem, 0x1280000020, 4), 0x1020);
    assert_int_equal(space_read(&mem, 0x80000020, 4), 0xffffffff);
    cfg_write(PCI_BAR0 + 20, 0xffffffff, 4); /* beyond the space */
    assert_int_equal(space_read(&mem, 0x1280000020, 4), 0xffffffff);
}

static void silly_places_hide_nothing(void **state)
{
    add_bars();
    cfg_write(PCI_COMMAND, PCI_CMD_IO | PCI_CMD_MEM, 2);
    cfg_write(PCI_BAR0 + 4, 0x1000, 4); /* RAM is there */
    space_write(&mem, 0x1000, 0x55, 4);
    assert_int_equal(space_read(&mem, 0x1000, 4), 0x55);
    cfg_write(PCI_BAR0, 0xce1, 4); /* over the configuration ports */
    cfg_write(PCI_BAR0 + 4, 0xfffff000, 4);
    cfg_write(PCI_BAR0 + 16, 0xffffc000, 4); /* two BARs in one place */
    assert_int_equal(space_read(&mem, 0xfffff000, 4), 0x4000);
    assert_int_equal(cfg_read(0, 4), 0x10421af4);
    cfg_write(PCI_BAR0, 0xffffffe1, 4);
    cfg_write(PCI_BAR0 + 4, 0, 4);
    assert_int_equal(space_read(&mem, 0, 4), 0);
}

static void impossible_bars_are_refused(void **state)
{
    struct error e;
    assert_int_equal(pci_bar_add(&dev, 6, false, false, false, 4096, &reg_ops, 0, &e), ERR_LIMIT);
    assert_int_equal(pci_bar_add(&dev, 5, false, true, false, 4096, &reg_ops, 0, &e), ERR_LIMIT);
    assert_int_equal(pci_bar_add(&dev, 0, false, false, false, 4097, &reg_ops, 0, &e), ERR_LIMIT);
    assert_int_equal(pci_bar_add(&dev, 0, true, false, false, 2, &reg_ops, 0, &e), ERR_LIMIT);
    add_bars();
    assert_int_equal(pci_bar_add(&dev, 5, false, false, false, 4096, &reg_ops, 0, &e), ERR_BUSY);
}

static void expansion_rom_needs_both_enables(void **state)
{
    uint64_t roff;
    assert_int_equal(ram_rom_alloc(&ram, 4096, &roff, NULL), 0);
    ram.host[roff] = 0x55;
    assert_int_equal(pci_rom_add(&dev, roff, 4096, NULL), 0);
    cfg_write(PCI_ROM, 0xffffffff, 4);
    assert_int_equal(cfg_read(PCI_ROM, 4), 0xfffff001);
    cfg_write(PCI_ROM, 0xfe100000, 4);
    cfg_write(PCI_COMMAND, PCI_CMD_MEM, 2);
    assert_int_equal(space_read(&mem, 0xfe100000, 1), 0xff);
    cfg_write(PCI_ROM, 0xfe100001, 4);
    assert_int_equal(space_read(&mem, 0xfe100000, 1), 0x55);
    cfg_write(PCI_COMMAND, 0, 2);
    assert_int_equal(space_read(&mem, 0xfe100000, 1), 0xff);
}

static void capabilities_form_a_list(void **state)
{
    assert_int_equal(pci_cap_add(&dev, 9, 16, NULL), 0x40);
    assert_int_equal(pci_cap_add(&dev, 5, 13, NULL), 0x50);
    assert_int_equal(pci_cap_add(&dev, 1, 160, NULL), 0x60);
    struct error e;
    assert_int_equal(pci_cap_add(&dev, 1, 4, &e), ERR_LIMIT);
    assert_int_equal(cfg_read(PCI_STATUS, 2) & PCI_ST_CAPS, PCI_ST_CAPS);
    assert_int_equal(cfg_read(PCI_CAP_PTR, 1), 0x40);
    assert_int_equal(cfg_read(0x40, 2), 0x5009);
    assert_int_equal(cfg_read(0x50, 2), 0x6005);
    assert_int_equal(cfg_read(0x60, 2), 0x0001);
}

static void intx_has_status_and_disable(void **state)
{
    pci_intx_set(&dev, true);
    pci_intx_set(&dev, true);
    assert_int_equal(intx.calls, 1);
    assert_int_equal(intx.devfn, DEVFN);
    assert_int_equal(intx.pin, 1);
    assert_true(intx.level);
    assert_true(cfg_read(PCI_STATUS, 2) & PCI_ST_INTX);
    cfg_write(PCI_COMMAND, PCI_CMD_INTX_OFF, 2);
    assert_false(intx.level);
    assert_true(cfg_read(PCI_STATUS, 2) & PCI_ST_INTX);
    cfg_write(PCI_COMMAND, 0, 2);
    assert_true(intx.level);
    cfg_write(PCI_COMMAND, PCI_CMD_INTX_OFF, 2);
    pci_intx_set(&dev, false);
    pci_intx_set(&dev, true);
    assert_int_equal(intx.calls, 4); /* on; off, on, off by the command register */
}

static void hooks_see_writes_and_w1c_clears(void **state)
{
    dev.written = on_written;
    dev.w1c[0x41] = 0x80;
    dev.wmask[0x40] = 0x0f;
    dev.cfg[0x41] = 0x81;
    cfg_write(0x40, 0xffff, 2);
    assert_int_equal(hooked, 0x4002);
    assert_int_equal(cfg_read(0x40, 2), 0x010f);
}

static bool window(struct pci_dev *d, unsigned off, unsigned size, uint32_t *val)
{
    *val = 0xabcd;
    return off == 0x50;
}

static void a_hook_answers_reads(void **state)
{
    dev.cfg_read_hook = window;
    assert_int_equal(cfg_read(0x50, 4), 0xabcd);
    assert_int_equal(cfg_read(0, 2), 0x1af4);
}

static void reset_forgets_what_the_guest_wrote(void **state)
{
    add_bars();
    dev.reset = on_reset;
    cfg_write(PCI_BAR0, 0xc001, 4);
    cfg_write(PCI_COMMAND, PCI_CMD_IO, 2);
    cfg_write(0x3c, 11, 1);
    pci_intx_set(&dev, true);
    pci_bus_reset(&bus);
    assert_int_equal(resets, 1);
    assert_false(intx.level);
    assert_int_equal(space_read(&port, 0xc000, 4), 0xffffffff);
    assert_int_equal(cfg_read(PCI_BAR0, 4), 1);
    assert_int_equal(cfg_read(0x3c, 1), 0);
    assert_int_equal(cfg_read(PCI_COMMAND, 4), 0);
    assert_int_equal(cfg_read(0, 4), 0x10421af4);
}

/* ---- MSI-X ---- */

#define MSIX_BASE 0xfe000000u

static unsigned msix_on(void)
{
    assert_int_equal(pci_msix_add(&dev, 2, 3, NULL), 0);
    unsigned cap = cfg_read(PCI_CAP_PTR, 1);
    cfg_write(PCI_BAR0 + 8, MSIX_BASE, 4);
    cfg_write(PCI_COMMAND, PCI_CMD_MEM | PCI_CMD_MASTER, 2);
    cfg_write(cap + 2, 0x8000, 2);
    return cap;
}

static void set_vector(unsigned n, uint32_t addr, uint32_t data, uint32_t control)
{
    space_write(&mem, MSIX_BASE + 16 * n, addr, 4);
    space_write(&mem, MSIX_BASE + 16 * n + 4, 0, 4);
    space_write(&mem, MSIX_BASE + 16 * n + 8, (uint64_t)control << 32 | data, 8);
}

static void msix_describes_itself(void **state)
{
    unsigned cap = msix_on();
    assert_int_equal(cfg_read(cap, 1), PCI_CAP_ID_MSIX);
    assert_int_equal(cfg_read(cap + 2, 2), 0x8002); /* enabled, 3 vectors */
    assert_int_equal(cfg_read(cap + 4, 4), 2);
    assert_int_equal(cfg_read(cap + 8, 4), 0x802);
    cfg_write(cap + 2, 0xffff, 2);
    assert_int_equal(cfg_read(cap + 2, 2), 0xc002);
    assert_int_equal(space_read(&mem, MSIX_BASE + 0x2c, 4), 1); /* masked after reset */
    assert_int_equal(space_read(&mem, MSIX_BASE + 0x30, 4), 0);
}

static void msix_sends_unmasked_vectors(void **state)
{
    msix_on();
    set_vector(1, 0xfee01003, 0x4055, 0);
    pci_msix_notify(&dev, 1);
    assert_int_equal(msi.calls, 1);
    assert_int_equal(msi.addr, 0xfee01000);
    assert_int_equal(msi.data, 0x4055);
    pci_msix_notify(&dev, 3);
    pci_msix_notify(&dev, 0xffff);
    assert_int_equal(msi.calls, 1);
}

static void a_masked_vector_stays_pending(void **state)
{
    msix_on();
    set_vector(2, 0xfee00000, 0x41, 1);
    pci_msix_notify(&dev, 2);
    assert_int_equal(msi.calls, 0);
    assert_int_equal(space_read(&mem, MSIX_BASE + 0x800, 8), 4);
    space_write(&mem, MSIX_BASE + 0x800, 0, 4);
    assert_int_equal(space_read(&mem, MSIX_BASE + 0x800, 8), 4);
    set_vector(2, 0xfee00000, 0x42, 0);
    assert_int_equal(msi.calls, 1);
    assert_int_equal(msi.data, 0x42);
    assert_int_equal(space_read(&mem, MSIX_BASE + 0x800, 8), 0);
}

static void the_function_mask_and_bus_mastering_hold_back(void **state)
{
    unsigned cap = msix_on();
    set_vector(0, 0xfee00000, 0x41, 0);
    cfg_write(cap + 2, 0xc000, 2);
    pci_msix_notify(&dev, 0);
    pci_msix_notify(&dev, 0);
    assert_int_equal(msi.calls, 0);
    cfg_write(cap + 2, 0x8000, 2);
    assert_int_equal(msi.calls, 1);
    cfg_write(PCI_COMMAND, PCI_CMD_MEM, 2);
    pci_msix_notify(&dev, 0);
    assert_int_equal(msi.calls, 1);
    cfg_write(PCI_COMMAND, PCI_CMD_MEM | PCI_CMD_MASTER, 2);
    assert_int_equal(msi.calls, 2);
}

static void disabled_msix_is_silent(void **state)
{
    unsigned cap = msix_on();
    assert_true(pci_msix_enabled(&dev));
    cfg_write(cap + 2, 0, 2);
    assert_false(pci_msix_enabled(&dev));
    pci_msix_notify(&dev, 0);
    assert_int_equal(space_read(&mem, MSIX_BASE + 0x800, 4), 0);
    cfg_write(cap + 2, 0x8000, 2);
    set_vector(0, 0xfee00000, 0x41, 1);
    pci_msix_notify(&dev, 0);
    pci_bus_reset(&bus);
    assert_false(pci_msix_enabled(&dev));
    assert_int_equal(msi.calls, 0);
}

static void many_vectors_get_a_larger_bar(void **state)
{
    struct error e;
    assert_int_equal(pci_msix_add(&dev, 0, 0, &e), ERR_LIMIT);
    assert_int_equal(pci_msix_add(&dev, 0, 2049, &e), ERR_LIMIT);
    assert_int_equal(pci_msix_add(&dev, 0, 2048, NULL), 0);
    assert_int_equal(dev.bar[0].size, 65536);
    cfg_write(PCI_BAR0, MSIX_BASE, 4);
    cfg_write(PCI_COMMAND, PCI_CMD_MEM | PCI_CMD_MASTER, 2);
    cfg_write(0x42, 0x8000, 2);
    pci_msix_notify(&dev, 2047);
    assert_int_equal(space_read(&mem, MSIX_BASE + 32768 + 252, 4), 0x80000000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(header_reads_in_every_size),
        TEST(identity_is_read_only),
        TEST(empty_places_read_as_ones),
        TEST(config_address_answers_dwords_only),
        TEST(cf9_goes_to_its_owner),
        TEST(a_place_holds_one_function),
        TEST(bars_are_sized_by_writing_ones),
        TEST(bars_follow_the_command_register),
        TEST(wide_bar_goes_above_4g),
        TEST(silly_places_hide_nothing),
        TEST(impossible_bars_are_refused),
        TEST(expansion_rom_needs_both_enables),
        TEST(capabilities_form_a_list),
        TEST(intx_has_status_and_disable),
        TEST(hooks_see_writes_and_w1c_clears),
        TEST(a_hook_answers_reads),
        TEST(reset_forgets_what_the_guest_wrote),
        TEST(msix_describes_itself),
        TEST(msix_sends_unmasked_vectors),
        TEST(a_masked_vector_stays_pending),
        TEST(the_function_mask_and_bus_mastering_hold_back),
        TEST(disabled_msix_is_silent),
        TEST(many_vectors_get_a_larger_bar),
    };
    return cmocka_run_group_tests_name("pci", tests, NULL, NULL);
}
