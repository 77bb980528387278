/* test_size.c - sizes as people write them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "block/size.h"

static void parses(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},          {"4096", 4096},      {"20G", 20 * GIB},
                {"20g", 20 * GIB}, {"20GB", 20 * GIB},  {"20GiB", 20 * GIB},
                {"1.5K", 1536},    {"0.5M", 512 * KIB}, {"10.000000T", 10240 * GIB},
                {"512B", 512},     {"7E", 7ull << 60},  {"9223372036854775807", INT64_MAX}};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        uint64_t n = 1;
        if (!size_parse(good[i].text, &n) || n != good[i].bytes)
            fail_msg("%s: %llu", good[i].text, (unsigned long long)n);
    }
}

static void refuses(void **state)
{
    static const char *const bad[] = {"",
                                      "G",
                                      "-1",
                                      "+1",
                                      "1 G",
                                      "1x",
                                      "1Gx",
                                      "1Gi",
                                      "1.",
                                      ".5G",
                                      "1.5",
                                      "1e3",
                                      "0x10",
                                      "8E",
                                      "16E",
                                      "9223372036854775808",
                                      "1G ",
                                      "1BB",
                                      "1.0000000000G",
                                      "99999999999999999999"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint64_t n;
        if (size_parse(bad[i], &n))
            fail_msg("'%s' is taken for a size", bad[i]);
    }
}

static void formats(void **state)
{
    char buf[32];
    assert_string_equal(size_format(buf, 0), "0 bytes");
    assert_string_equal(size_format(buf, 1023), "1023 bytes");
    assert_string_equal(size_format(buf, 20 * GIB), "20 GiB");
    assert_string_equal(size_format(buf, 3 * MIB / 2), "1.5 MiB");
    assert_string_equal(size_format(buf, UINT64_MAX), "15.9 EiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(parses), cmocka_unit_test(refuses),
                                       cmocka_unit_test(formats)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
