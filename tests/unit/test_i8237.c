/* test_i8237.c - DMA: programming, transfers both ways, terminal count, auto-init, words, wrap,
 * verify. */
#include "chip_probe.h"

#include "chip/i8237.h"

static struct ram ram;
static struct space mem;
static struct i8237 d;
static uint8_t buf[70000];

static void out(uint64_t port, uint8_t val)
{
    out8(&i8237_desc, &d, port, val);
}

static uint8_t in(uint64_t port)
{
    return in8(&i8237_desc, &d, port);
}

static int group_setup(void **state)
{
    unsigned id;
    assert_int_equal(ram_init(&ram, 1 * MIB, NULL), 0);
    assert_int_equal(space_init(&mem, 1ull << 32, &ram, NULL), 0);
    return space_add_ram(&mem, 0, 1 * MIB, 0, 0, &id, NULL);
}

static int group_teardown(void **state)
{
    space_fini(&mem);
    ram_fini(&ram);
    return 0;
}

static int setup(void **state)
{
    i8237_init(&d, &mem);
    memset(ram.host, 0, 1 * MIB);
    for (size_t i = 0; i < sizeof buf; i++)
        buf[i] = (uint8_t)(i * 7 + 1);
    return 0;
}

/* Channel 2, as for the floppy. */
static void program(uint8_t mode, uint8_t page, uint16_t addr, uint16_t count)
{
    out(0x0a, 0x06);
    out(0x0c, 0);
    out(0x0b, mode | 2);
    out(0x04, addr & 0xff);
    out(0x04, addr >> 8);
    out(0x05, count & 0xff);
    out(0x05, count >> 8);
    out(0x81, page);
    out(0x0a, 0x02);
}

static uint16_t word_at(uint64_t port)
{
    out(0x0c, 0);
    uint16_t lo = in(port);
    return (uint16_t)(lo | in(port) << 8);
}

static void to_memory(void **state)
{
    bool tc;
    program(0x44, 0x03, 0x1000, 1023);
    assert_int_equal(i8237_transfer(&d, 2, buf, 512, true, &tc), 512);
    assert_false(tc);
    assert_int_equal(word_at(0x04), 0x1200);
    assert_int_equal(word_at(0x05), 511);
    assert_int_equal(i8237_transfer(&d, 2, buf + 512, 600, true, &tc), 512);
    assert_true(tc);
    assert_memory_equal(ram.host + 0x31000, buf, 1024);
    assert_int_equal(ram.host[0x31000 + 1024], 0);
    assert_int_equal(in(0x08), 0x04);
    assert_int_equal(in(0x08), 0x00);
    assert_int_equal(in(0x0f) & 0x0f, 0x0f); /* masked by terminal count */
    assert_int_equal(word_at(0x05), 0xffff);
    assert_int_equal(i8237_transfer(&d, 2, buf, 1, true, &tc), 0);
}

static void to_device(void **state)
{
    bool tc;
    uint8_t got[16] = {0};
    memcpy(ram.host + 0x2fff8, buf, 8);
    memcpy(ram.host + 0x20000, buf + 8, 8); /* addresses wrap within the page */
    program(0x48, 0x02, 0xfff8, 15);
    assert_int_equal(i8237_transfer(&d, 2, got, 16, true, &tc), 0); /* the other direction */
    assert_int_equal(i8237_transfer(&d, 2, got, 16, false, &tc), 16);
    assert_true(tc);
    assert_memory_equal(got, buf, 16);
    program(0x68, 0x02, 0x0007, 7); /* decrement */
    assert_int_equal(i8237_transfer(&d, 2, got, 8, false, &tc), 8);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(got[i], buf[8 + 7 - i]);
}

static void auto_init(void **state)
{
    bool tc;
    program(0x54, 0x01, 0x0000, 9);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(i8237_transfer(&d, 2, buf, 100, true, &tc), 10);
        assert_true(tc);
    }
    assert_int_equal(word_at(0x04), 0);
    assert_int_equal(word_at(0x05), 9);
}

static void verify(void **state)
{
    bool tc;
    program(0x40, 0x01, 0x0000, 99);
    assert_int_equal(i8237_transfer(&d, 2, buf, 100, true, &tc), 100);
    assert_true(tc);
    assert_int_equal(ram.host[0x10000], 0);
    program(0x40, 0x01, 0x0000, 99);
    assert_int_equal(i8237_transfer(&d, 2, buf, 100, false, &tc), 100);
    assert_int_equal(buf[99], 0);
}

static void words(void **state)
{
    bool tc;
    out(0xd8, 0);
    out(0xd6, 0x45); /* channel 5 */
    out(0xc4, 0x00);
    out(0xc4, 0x80);
    out(0xc6, 49);
    out(0xc6, 0);
    out(0x8b, 0x05); /* bit 0 is not used: 128 KiB pages */
    out(0xd4, 0x01);
    assert_int_equal(i8237_transfer(&d, 5, buf, 200, true, &tc), 100);
    assert_true(tc);
    assert_memory_equal(ram.host + 0x50000, buf, 100);
    assert_int_equal(i8237_transfer(&d, 4, buf, 1, true, &tc), 0);
    assert_int_equal(i8237_transfer(&d, 8, buf, 1, true, &tc), 0);
}

static void controls(void **state)
{
    bool tc;
    program(0x44, 0x01, 0, 9);
    out(0x08, 0x04); /* controller off */
    assert_int_equal(i8237_transfer(&d, 2, buf, 5, true, &tc), 0);
    out(0x08, 0x00);
    assert_int_equal(i8237_transfer(&d, 2, buf, 5, true, &tc), 5);
    out(0x0d, 0); /* master clear masks all */
    assert_int_equal(in(0x0f), 0xff);
    out(0x0e, 0);
    assert_int_equal(in(0x0f), 0xf0);
    out(0x0f, 0x05);
    assert_int_equal(in(0x0f), 0xf5);
    out(0x09, 0x06);
    assert_int_equal(in(0x08), 0x40);
    out(0x84, 0x77); /* spare page register */
    assert_int_equal(in(0x84), 0x77);
    program(0x44, 0xff, 0, 0xffff); /* beyond RAM: swallowed */
    assert_int_equal(i8237_transfer(&d, 2, buf, sizeof buf, true, &tc), 65536);
    assert_true(tc);
}

static void storm(void **state)
{
    bool tc;
    for (unsigned i = 0; i < 200; i++) {
        probe_storm(&i8237_desc, &d, 11 + i);
        assert_true(i8237_transfer(&d, i % 9, buf, i * 3, i & 1, &tc) <= i * 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(to_memory, setup), cmocka_unit_test_setup(to_device, setup),
        cmocka_unit_test_setup(auto_init, setup), cmocka_unit_test_setup(verify, setup),
        cmocka_unit_test_setup(words, setup),     cmocka_unit_test_setup(controls, setup),
        cmocka_unit_test_setup(storm, setup),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
