/* test_base.c - errors, checked arithmetic, endian accessors, suggestions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/checked.h"
#include "base/endian.h"
#include "base/error.h"
#include "base/suggest.h"

static void test_error_contract(void **state)
{
    struct error e = {.where = "old"};
    assert_int_equal(error_set(&e, ERR_FORMAT, "bad %s", "magic"), ERR_FORMAT);
    assert_int_equal(e.code, ERR_FORMAT);
    assert_string_equal(e.where, "");
    assert_string_equal(e.msg, "bad magic");
    assert_int_equal(error_prefix(&e, "disk %d", 3), ERR_FORMAT);
    assert_string_equal(e.msg, "disk 3: bad magic");
    assert_int_equal(error_errno(&e, ERR_IO, 2, "open %s", "x"), ERR_IO);
    assert_string_equal(e.msg, "open x: No such file or directory");
}

static void test_error_null(void **state)
{
    assert_int_equal(error_set(NULL, ERR_HOST, "x"), ERR_HOST);
    assert_int_equal(error_errno(NULL, ERR_BUSY, 1, "x"), ERR_BUSY);
    assert_true(error_prefix(NULL, "x") < 0);
}

static void test_error_truncates(void **state)
{
    struct error e;
    char longer[2 * sizeof e.msg];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    error_set(&e, ERR_IO, "%s", longer);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    error_prefix(&e, "%s", longer);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
    error_errno(&e, ERR_IO, 2, "%s", longer);
    assert_int_equal(strlen(e.msg), sizeof e.msg - 1);
}

static void test_checked(void **state)
{
    uint64_t r;
    assert_true(checked_add_u64(UINT64_MAX - 1, 1, &r));
    assert_true(r == UINT64_MAX);
    assert_false(checked_add_u64(UINT64_MAX, 1, &r));
    assert_true(checked_mul_u64(1ull << 32, (1ull << 32) - 1, &r));
    assert_true(r == (1ull << 32) * ((1ull << 32) - 1));
    assert_false(checked_mul_u64(1ull << 32, 1ull << 32, &r));
    assert_true(checked_mul_u64(0, UINT64_MAX, &r));
    assert_true(r == 0);
}

static void test_range_within(void **state)
{
    assert_true(range_within(0, 10, 10));
    assert_true(range_within(10, 0, 10));
    assert_false(range_within(10, 1, 10));
    assert_false(range_within(11, 0, 10));
    assert_false(range_within(1, UINT64_MAX, 10)); /* the sum would wrap to 0 */
    assert_true(range_within(0, UINT64_MAX, UINT64_MAX));
}

static void test_endian(void **state)
{
    uint8_t b[9] = {0xff, 1, 2, 3, 4, 5, 6, 7, 8};
    assert_int_equal(load_le16(b + 1), 0x0201); /* unaligned on purpose */
    assert_int_equal(load_be16(b + 1), 0x0102);
    assert_int_equal(load_le32(b + 1), 0x04030201);
    assert_int_equal(load_be32(b + 1), 0x01020304);
    assert_true(load_le64(b + 1) == 0x0807060504030201);
    assert_true(load_be64(b + 1) == 0x0102030405060708);
    store_le32(b + 1, 0xa1b2c3d4);
    assert_int_equal(b[1], 0xd4);
    store_be16(b + 1, 0xa1b2);
    assert_int_equal(b[1], 0xa1);
}

static void test_distance(void **state)
{
    assert_int_equal(suggest_distance("", ""), 0);
    assert_int_equal(suggest_distance("", "abc"), 3);
    assert_int_equal(suggest_distance("abc", "abc"), 0);
    assert_int_equal(suggest_distance("ABC", "abc"), 0);
    assert_int_equal(suggest_distance("memroy", "memory"), 1); /* a swap is one edit */
    assert_int_equal(suggest_distance("kitten", "sitting"), 3);
    assert_int_equal(suggest_distance("disks", "disk"), 1);
}

static const char *nth(const void *list, size_t i)
{
    return ((const char *const *)list)[i];
}

static void test_suggest(void **state)
{
    static const char *const words[] = {"memory", "cpus", "name", "disks", NULL};
    static const char *const none[] = {NULL};
    char longest[4096];

    assert_string_equal(suggest("memroy", nth, words), "memory");
    assert_string_equal(suggest("mem", nth, words), "memory"); /* abbreviation */
    assert_string_equal(suggest("CPU", nth, words), "cpus");
    assert_null(suggest("frobnicate", nth, words));
    assert_null(suggest("", nth, words));
    assert_null(suggest("x", nth, words));
    assert_null(suggest("memory", nth, none));
    memset(longest, 'm', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    assert_null(suggest(longest, nth, words));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_contract),  cmocka_unit_test(test_error_null),
        cmocka_unit_test(test_error_truncates), cmocka_unit_test(test_checked),
        cmocka_unit_test(test_range_within),    cmocka_unit_test(test_endian),
        cmocka_unit_test(test_distance),        cmocka_unit_test(test_suggest),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
