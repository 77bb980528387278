/* test_latency.c - classes of latencies and percentiles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "block/latency.h"

/* Each value is in a class whose bound is at most 1/16 above it; classes are in order. */
static void classes(void **state)
{
    static const uint64_t values[] = {0,    1,    15,   16,        17,         31,    32,       33,
                                      1000, 4095, 4096, 123456789, 1ull << 62, ~0ull, ~0ull - 1};
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        uint64_t v = values[i];
        unsigned c = latency_class(v);
        assert_true(c < LATENCY_CLASSES);
        assert_true(latency_bound(c) >= v && latency_bound(c) - v <= v / 16);
        assert_true(v == 0 || latency_bound(latency_class(v) - 1) < v);
    }
    for (unsigned c = 0; c + 1 < LATENCY_CLASSES; c++) {
        assert_true(latency_bound(c) < latency_bound(c + 1));
        assert_int_equal(latency_class(latency_bound(c)), c);
        assert_int_equal(latency_class(latency_bound(c) + 1), c + 1);
    }
}

static void percentiles(void **state)
{
    static struct latency l;
    assert_int_equal(latency_percentile(&l, 5000), 0);
    for (unsigned i = 1; i <= 1000; i++)
        latency_add(&l, i * 1000);
    assert_int_equal(l.n, 1000);
    assert_int_equal(l.sum, 500500000);
    assert_in_range(latency_percentile(&l, 5000), 500000, 531250);
    assert_in_range(latency_percentile(&l, 9900), 990000, 1000000);
    assert_int_equal(latency_percentile(&l, 10000), 1000000);
    assert_in_range(latency_percentile(&l, 0), 1000, 1063);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(classes), cmocka_unit_test(percentiles)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
