/* test_testdev.c - the test device: what reads back, lines, the end with a status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "chip/testdev.h"

static struct testdev dev;
static bool level[TESTDEV_LINES];
static unsigned exits;
static uint32_t status;

static void set_line(void *ctx, unsigned line, bool up)
{
    level[line] = up;
}

static void on_exit_port(void *ctx, uint32_t val)
{
    exits++;
    status = val;
}

static const struct chip_range *range(bool port, uint64_t base)
{
    const struct chip_range *r = testdev_desc.ranges;
    while (r->len && (r->port != port || r->base != base))
        r++;
    assert_true(r->len);
    return r;
}

static void write_at(const struct chip_range *r, uint64_t off, uint64_t val, unsigned size)
{
    assert_true(r->ops->sizes & size);
    r->ops->write(&dev, off, val, size);
}

static uint64_t read_at(const struct chip_range *r, uint64_t off, unsigned size)
{
    return r->ops->read(&dev, off, size);
}

static int setup(void **state)
{
    struct pin line[TESTDEV_LINES];
    for (unsigned n = 0; n < TESTDEV_LINES; n++)
        line[n] = (struct pin){.set = set_line, .line = n};
    exits = 0;
    testdev_init(&dev, line, on_exit_port, NULL);
    testdev_desc.reset(&dev);
    return 0;
}

static void memory(void **state)
{
    const struct chip_range *r = range(false, 0xff000000);
    write_at(r, 8, 0x1122334455667788, 8);
    assert_true(read_at(r, 8, 8) == 0x1122334455667788);
    assert_int_equal(read_at(r, 10, 1), 0x66);
    write_at(r, 13, 0xabcd, 2);
    assert_true(read_at(r, 8, 8) == 0x11abcd4455667788);
    write_at(r, TESTDEV_MEM - 1, 0x5a, 1);
    assert_int_equal(read_at(r, TESTDEV_MEM - 1, 1), 0x5a);
    write_at(r, TESTDEV_MEM - 4, ~0ull, 8); /* beyond the end: nothing */
    assert_int_equal(read_at(r, TESTDEV_MEM - 1, 1), 0x5a);
    assert_int_equal(read_at(r, TESTDEV_MEM - 4, 8), 0);
    testdev_desc.reset(&dev);
    assert_int_equal(read_at(r, 8, 8), 0);
}

static void ports(void **state)
{
    const struct chip_range *r = range(true, 0xe0);
    write_at(r, 0, 0x12, 1);
    write_at(r, 3, 0x34, 1);
    assert_int_equal(read_at(r, 0, 1), 0x12);
    assert_int_equal(read_at(r, 3, 1), 0x34);
    assert_int_equal(read_at(r, 1, 1), 0);
}

static void lines(void **state)
{
    const struct chip_range *r = range(true, 0x2000);
    write_at(r, 11, 1, 4);
    for (unsigned n = 0; n < TESTDEV_LINES; n++)
        assert_int_equal(level[n], n == 11);
    write_at(r, 23, 0x80, 1);
    assert_true(level[23]);
    write_at(r, 11, 0, 1);
    assert_false(level[11]);
    write_at(r, TESTDEV_LINES, 1, 1);
    testdev_desc.reset(&dev);
    assert_false(level[23]);
}

static void end(void **state)
{
    const struct chip_range *r = range(true, 0xf4);
    assert_int_equal(read_at(r, 0, 4), 0);
    assert_int_equal(exits, 0);
    write_at(r, 0, 0x80000001, 4);
    assert_int_equal(exits, 1);
    assert_true(status == 0x80000001);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {T(memory), T(ports), T(lines), T(end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
