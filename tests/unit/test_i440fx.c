/* test_i440fx.c - the host bridge: shadow RAM by the PAM registers, the SMRAM register. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "pci/i440fx.h"

#define BIOS_LEN (256 * KIB)

static struct ram ram;
static struct space mem, port;
static struct pci_bus bus;
static struct i440fx host;

/* The byte of the BIOS image that shows at `addr`, when the ROM does. */
static uint8_t bios_byte(uint64_t addr)
{
    return (uint8_t)(addr >> 8) ^ 0x5a;
}

static int setup(void **state)
{
    uint64_t roff;
    if (ram_init(&ram, 2 * MIB, NULL) || ram_rom_alloc(&ram, BIOS_LEN, &roff, NULL) ||
        space_init(&mem, 1ull << 40, &ram, NULL) || space_init(&port, 0x10000, NULL, NULL) ||
        pci_bus_init(&bus, &mem, &port, NULL))
        return -1;
    for (uint64_t i = 0; i < BIOS_LEN; i++)
        ram.host[roff + i] = bios_byte(0x100000 - BIOS_LEN + i);
    return i440fx_init(&host, &bus, &ram, roff, BIOS_LEN, NULL);
}

static int teardown(void **state)
{
    pci_dev_fini(&host.pci);
    space_fini(&mem);
    space_fini(&port);
    ram_fini(&ram);
    return 0;
}

static void cfg_write(unsigned off, uint8_t val)
{
    space_write(&port, 0xcf8, 0x80000000u | (off & 0xfc), 4);
    space_write(&port, 0xcfc + (off & 3), val, 1);
}

static uint8_t cfg_read(unsigned off)
{
    space_write(&port, 0xcf8, 0x80000000u | (off & 0xfc), 4);
    return (uint8_t)space_read(&port, 0xcfc + (off & 3), 1);
}

static void the_bios_shows_after_reset(void **state)
{
    assert_int_equal(space_read(&mem, 0xffff0, 1), bios_byte(0xffff0));
    assert_int_equal(space_read(&mem, 0xe0100, 1), bios_byte(0xe0100));
    assert_int_equal(space_read(&mem, 0xdffff, 1), 0xff);
    assert_int_equal(space_read(&mem, 0xc0000, 1), 0xff);
    space_write(&mem, 0xf0000, 0, 4);
    space_write(&mem, 0xc0000, 0, 4);
    assert_int_equal(ram.host[0xf0000] | ram.host[0xc0000], 0);
    assert_int_equal(space_read(&mem, 0xf0000, 1), bios_byte(0xf0000));
}

static void the_bios_is_executable_memory(void **state)
{
    uint64_t roff;
    bool writable;
    assert_true(space_page(&mem, 0xff000, &roff, &writable));
    assert_false(writable);
    assert_int_equal(ram.host[roff], bios_byte(0xff000));
}

static void a_bios_copies_itself_into_shadow_ram(void **state)
{
    bool first;
    cfg_write(0x59, 0x20); /* read ROM, write RAM */
    ram_code_mark(&ram, 0xf0000, 4, &first);
    for (uint64_t a = 0xf0000; a < 0x100000; a += 8)
        space_write(&mem, a, space_read(&mem, a, 8), 8);
    assert_false(ram_has_code(&ram, 0xf0000));
    space_write(&mem, 0xf1001, 0x2211, 2);
    assert_int_equal(space_read(&mem, 0xf1001, 1), bios_byte(0xf1001));
    cfg_write(0x59, 0x10); /* read RAM, drop writes */
    assert_int_equal(space_read(&mem, 0xf1000, 4), 0x002211 << 8 | 0x4a | 0x4a000000);
    space_write(&mem, 0xf1000, 0, 4);
    assert_int_equal(space_read(&mem, 0xf1001, 2), 0x2211);
    assert_int_equal(space_read(&mem, 0xffff0, 1), bios_byte(0xffff0));
}

static void read_write_shadow_is_plain_ram(void **state)
{
    uint64_t roff;
    bool writable;
    cfg_write(0x5a, 0x03);
    assert_true(space_page(&mem, 0xc1000, &roff, &writable));
    assert_true(writable);
    assert_int_equal(roff, 0xc1000);
    assert_false(space_page(&mem, 0xc4000, &roff, &writable));
    cfg_write(0x5a, 0x31);
    assert_true(space_page(&mem, 0xc1000, &roff, &writable));
    assert_false(writable);
    assert_true(space_page(&mem, 0xc7000, &roff, &writable));
    assert_true(writable);
}

static void every_segment_has_its_bits(void **state)
{
    for (unsigned n = 0; n < 12; n++) {
        uint64_t base = 0xc0000 + n * 0x4000, roff;
        unsigned reg = 0x5a + n / 2;
        bool writable;
        cfg_write(reg, n % 2 ? 0x30 : 0x03);
        assert_true(space_page(&mem, base, &roff, &writable));
        assert_true(writable && roff == base);
        assert_true(space_page(&mem, base + 0x3000, &roff, &writable) && writable);
        assert_false(space_page(&mem, base + 0x4000, &roff, &writable) && writable);
        cfg_write(reg, 0);
    }
}

static void write_only_without_a_rom_reads_as_ones(void **state)
{
    cfg_write(0x5b, 0x02);
    space_write(&mem, 0xc8000, 0x1234, 2);
    assert_int_equal(space_read(&mem, 0xc8000, 2), 0xffff);
    assert_int_equal(ram.host[0xc8001], 0x12);
    cfg_write(0x5b, 0x01);
    assert_int_equal(space_read(&mem, 0xc8000, 2), 0x1234);
}

static void reserved_bits_read_as_zero(void **state)
{
    cfg_write(0x59, 0xff);
    cfg_write(0x5f, 0xff);
    assert_int_equal(cfg_read(0x59), 0x30);
    assert_int_equal(cfg_read(0x5f), 0x33);
}

static void reset_shows_the_rom_again(void **state)
{
    cfg_write(0x59, 0x30);
    space_write(&mem, 0xf0000, 0, 1);
    assert_int_equal(space_read(&mem, 0xf0000, 1), 0);
    pci_bus_reset(&bus);
    assert_int_equal(space_read(&mem, 0xf0000, 1), bios_byte(0xf0000));
    assert_int_equal(cfg_read(0x59), 0);
    assert_int_equal(cfg_read(4), 6);
}

static void smram_locks(void **state)
{
    assert_int_equal(cfg_read(0x72), 0x02);
    cfg_write(0x72, 0x48);
    assert_int_equal(cfg_read(0x72), 0x4a);
    cfg_write(0x72, 0x58);
    assert_int_equal(cfg_read(0x72), 0x1a);
    cfg_write(0x72, 0x40);
    assert_int_equal(cfg_read(0x72), 0x1a);
    pci_bus_reset(&bus);
    assert_int_equal(cfg_read(0x72), 0x02);
    cfg_write(0x72, 0x48);
    assert_int_equal(cfg_read(0x72), 0x4a);
}

static void odd_sizes_are_refused(void **state)
{
    struct i440fx h;
    struct error e;
    assert_int_equal(i440fx_init(&h, &bus, &ram, ram.ram_size, 1000, &e), ERR_FORMAT);
    assert_int_equal(i440fx_init(&h, &bus, &ram, ram.ram_size, 0, &e), ERR_FORMAT);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_bios_shows_after_reset),
        TEST(the_bios_is_executable_memory),
        TEST(a_bios_copies_itself_into_shadow_ram),
        TEST(read_write_shadow_is_plain_ram),
        TEST(every_segment_has_its_bits),
        TEST(write_only_without_a_rom_reads_as_ones),
        TEST(reserved_bits_read_as_zero),
        TEST(reset_shows_the_rom_again),
        TEST(smram_locks),
        TEST(odd_sizes_are_refused),
    };
    return cmocka_run_group_tests_name("i440fx", tests, NULL, NULL);
}
