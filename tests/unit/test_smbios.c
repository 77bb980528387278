/* test_smbios.c - SMBIOS: anchor checksums, structure chain, strings, memory sizes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/endian.h"
#include "machine/smbios.h"

static struct smbios_tables t;
static struct smbios_config cfg;

static int setup(void **state)
{
    cfg = (struct smbios_config){
        .name = "demo",
        .version = "0.1",
        .uuid = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88},
        .ncpus = 2,
        .ram_low = 3 * GIB,
        .ram_high = 1 * GIB,
    };
    return 0;
}

static int teardown(void **state)
{
    smbios_fini(&t);
    return 0;
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;
    while (len--)
        s += *p++;
    return s;
}

/* Where the structure after the one at `off` starts. */
static size_t next(size_t off)
{
    assert_true(off + 4 <= t.len && off + t.tables[off + 1] + 2 <= t.len);
    off += t.tables[off + 1];
    while (t.tables[off] || t.tables[off + 1]) {
        off++;
        assert_true(off + 2 <= t.len);
    }
    return off + 2;
}

/* The nth structure of a type, or NULL. */
static const uint8_t *find(uint8_t type, unsigned n)
{
    for (size_t off = 0; off < t.len; off = next(off)) {
        if (t.tables[off] == type && n-- == 0)
            return t.tables + off;
    }
    return NULL;
}

static void test_anchor(void **state)
{
    assert_int_equal(smbios_build(&cfg, &t, NULL), 0);
    smbios_place(&t, 0xf1000);
    assert_memory_equal(t.anchor, "_SM_", 4);
    assert_int_equal(sum(t.anchor, 31), 0);
    assert_int_equal(sum(t.anchor + 16, 15), 0);
    assert_int_equal(load_le16(t.anchor + 22), t.len);
    assert_int_equal(load_le32(t.anchor + 24), 0xf1000);
    unsigned count = 0;
    size_t largest = 0;
    for (size_t off = 0; off < t.len; count++) {
        size_t after = next(off);
        largest = max_u64(largest, after - off);
        off = after;
    }
    assert_int_equal(load_le16(t.anchor + 28), count);
    assert_int_equal(load_le16(t.anchor + 8), largest);
    assert_int_equal(t.tables[t.len - 6], 127);
}

static void test_structures(void **state)
{
    /* Lengths that DSP0134 2.8 gives: readers take shorter ones for older versions. */
    static const uint8_t length[][2] = {{0, 0x18},  {1, 0x1b},  {3, 0x16},  {4, 0x2a}, {16, 0x17},
                                        {17, 0x28}, {19, 0x1f}, {32, 0x0b}, {127, 4}};
    assert_int_equal(smbios_build(&cfg, &t, NULL), 0);
    for (unsigned i = 0; i < ARRAY_LEN(length); i++) {
        const uint8_t *p = find(length[i][0], 0);
        assert_non_null(p);
        assert_int_equal(p[1], length[i][1]);
    }
    const uint8_t *sys = find(1, 0);
    assert_int_equal(load_le32(sys + 8), 0x00112233);
    assert_int_equal(load_le16(sys + 12), 0x4455);
    assert_int_equal(sys[16], 0x88);
    assert_string_equal((const char *)sys + sys[1], "Sosia");
    assert_int_equal(find(4, 0)[0x23], 2);
    assert_int_equal(load_le32(find(16, 0) + 7), 4 * MIB);
    assert_int_equal(load_le16(find(17, 0) + 12), 4096);
    assert_int_equal(load_le32(find(19, 1) + 4), 4 * MIB);
    assert_int_equal(load_le32(find(19, 1) + 8), 5 * MIB - 1);
    assert_null(find(19, 2));
}

static void test_sizes(void **state)
{
    cfg.name = NULL;
    cfg.ram_high = 4096 * GIB - 3 * GIB;
    assert_int_equal(smbios_build(&cfg, &t, NULL), 0);
    assert_int_equal(load_le32(find(16, 0) + 7), 0x80000000);
    assert_int_equal(load_le64(find(16, 0) + 15), 4096 * GIB);
    assert_int_equal(load_le16(find(17, 0) + 12), 0x7fff);
    assert_int_equal(load_le32(find(17, 0) + 28), 4096 * KIB);
    assert_int_equal(load_le32(find(19, 1) + 4), 0xffffffff);
    assert_int_equal(load_le64(find(19, 1) + 15), 4 * GIB);
    smbios_fini(&t);
    cfg.ram_high = 0;
    assert_int_equal(smbios_build(&cfg, &t, NULL), 0);
    assert_null(find(19, 1));
    smbios_fini(&t);
    cfg.ncpus = 0;
    assert_int_equal(smbios_build(&cfg, &t, NULL), ERR_LIMIT);
}

static void test_publish(void **state)
{
    struct fw_cfg fw;
    assert_int_equal(smbios_build(&cfg, &t, NULL), 0);
    assert_int_equal(fw_cfg_init(&fw, NULL, NULL), 0);
    assert_int_equal(smbios_publish(&t, &fw, NULL), 0);
    assert_string_equal(fw.name[1], "etc/smbios/smbios-anchor");
    fw_cfg_fini(&fw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_anchor),
        T(test_structures),
        T(test_sizes),
        T(test_publish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
