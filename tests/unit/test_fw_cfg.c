/* test_fw_cfg.c - firmware configuration: items, directory, data port, DMA and its limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/endian.h"
#include "chip/fw_cfg.h"

static struct ram ram;
static struct space mem, port;
static struct fw_cfg f;

static int setup(void **state)
{
    unsigned id;
    const struct chip_range *r = fw_cfg_desc.ranges;
    if (ram_init(&ram, 4 * MIB, NULL) || space_init(&mem, 1ull << 36, &ram, NULL) ||
        space_add_ram(&mem, 0, 4 * MIB, 0, 0, &id, NULL) ||
        space_init(&port, 0x10000, NULL, NULL) || fw_cfg_init(&f, &mem, NULL))
        return -1;
    return space_add_io(&port, r->base, r->len, r->ops, &f, 0, &id, NULL);
}

static int teardown(void **state)
{
    fw_cfg_fini(&f);
    space_fini(&port);
    space_fini(&mem);
    ram_fini(&ram);
    return 0;
}

static void choose(uint16_t key)
{
    space_write(&port, 0x510, key, 2);
}

static uint8_t byte(void)
{
    return (uint8_t)space_read(&port, 0x511, 1);
}

/* Runs one DMA command from a descriptor at 0x1000; returns the control field afterwards. */
static uint32_t dma(uint32_t control, uint32_t len, uint64_t addr)
{
    uint8_t *d = ram.host + 0x1000;
    store_be32(d, control);
    store_be32(d + 4, len);
    store_be64(d + 8, addr);
    space_write(&port, 0x514, 0, 4);
    space_write(&port, 0x518, htobe32(0x1000), 4);
    return load_be32(d);
}

static void test_signature(void **state)
{
    choose(FW_CFG_SIGNATURE);
    assert_true(byte() == 'Q' && byte() == 'E' && byte() == 'M' && byte() == 'U');
    assert_int_equal(byte(), 0); /* beyond the end */
    choose(FW_CFG_ID);
    assert_int_equal(byte(), 3);
    choose(0x7777); /* no such item */
    assert_int_equal(byte(), 0);
    assert_int_equal(be32toh((uint32_t)space_read(&port, 0x514, 4)), 0x51454d55);
    assert_int_equal(be32toh((uint32_t)space_read(&port, 0x518, 4)), 0x20434647);
}

static void test_values_and_files(void **state)
{
    assert_int_equal(fw_cfg_add_u16(&f, FW_CFG_NB_CPUS, 0x1234, NULL), 0);
    choose(FW_CFG_NB_CPUS);
    assert_int_equal(byte(), 0x34);
    assert_int_equal(byte(), 0x12);
    assert_int_equal(fw_cfg_add_file(&f, "etc/e820", "abc", 3, NULL), 0);
    assert_int_equal(fw_cfg_add_file(&f, "bootorder", "x", 2, NULL), 0);
    assert_int_equal(fw_cfg_add_file(&f, "etc/e820", "defgh", 5, NULL), 0); /* replaced */
    assert_int_equal(dma(FW_CFG_FILE_DIR * 0x10000u | 8 | 2, 132, 0x2000), 0);
    const uint8_t *dir = ram.host + 0x2000;
    assert_int_equal(load_be32(dir), 2);
    assert_int_equal(load_be32(dir + 4), 5);
    assert_int_equal(load_be16(dir + 8), 0x20);
    assert_string_equal((const char *)dir + 12, "etc/e820");
    assert_string_equal((const char *)dir + 76, "bootorder");
    choose(0x20);
    assert_int_equal(byte(), 'd');
}

static void test_dma(void **state)
{
    fw_cfg_add_file(&f, "file", "0123456789", 10, NULL);
    memset(ram.host + 0x3000, 0xee, 64);
    assert_int_equal(dma(0x200000 | 8, 0, 0), 0);
    assert_int_equal(dma(4, 4, 0), 0);      /* skip */
    assert_int_equal(dma(2, 3, 0x3000), 0); /* read */
    assert_memory_equal(ram.host + 0x3000, "456\xee", 4);
    assert_int_equal(byte(), '7'); /* both ports share the position */
    assert_int_equal(dma(2, 8, 0x3010), 0);
    assert_memory_equal(ram.host + 0x3010, "89\0\0\0\0\0\0\xee", 9);
    assert_int_equal(dma(0x200000 | 8 | 16, 1, 0x3000), 1); /* write: refused */
}

static void test_dma_hostile(void **state)
{
    fw_cfg_add_file(&f, "file", "0123456789", 10, NULL);
    assert_int_equal(dma(0x200000 | 8 | 2, 10, 4 * MIB - 4), 1);    /* runs out of RAM */
    assert_int_equal(dma(0x200000 | 8 | 2, 10, ~0ull - 3), 1);      /* wraps */
    assert_int_equal(dma(0x200000 | 8 | 2, 0xffffffff, 0x2000), 1); /* far too long */
    assert_int_equal(dma(0xffff0000 | 8 | 2, 16, 0x2000), 0);       /* no item: zeroes */
    assert_int_equal(dma(0x200000 | 8 | 4, 0xffffffff, 0), 0);      /* skip stops at the end */
    assert_int_equal(byte(), 0);
    space_write(&port, 0x514, 0xffffffff, 4); /* descriptor outside RAM */
    space_write(&port, 0x518, 0xffffffff, 4);
    assert_int_equal(f.dma_high, 0);
    for (unsigned i = 0; i < 12; i++) {
        space_write(&port, 0x510 + i, ~0ull, 1);
        space_read(&port, 0x510 + i, 4);
    }
}

static void test_limits(void **state)
{
    struct error e;
    char name[80];
    memset(name, 'n', sizeof name);
    name[56] = 0;
    assert_int_equal(fw_cfg_add_file(&f, name, "", 0, &e), ERR_LIMIT);
    for (unsigned i = 0; i < FW_CFG_MAX_FILES; i++) {
        snprintf(name, sizeof name, "f%u", i);
        assert_int_equal(fw_cfg_add_file(&f, name, "", 0, &e), 0);
    }
    assert_int_equal(fw_cfg_add_file(&f, "one more", "", 0, &e), ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_signature),   T(test_values_and_files), T(test_dma),
        T(test_dma_hostile), T(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
