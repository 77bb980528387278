/* test_disk_near.c - a thread binds itself to where lone writes come from, and lets go. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "block/disk_near.h"

#define MANY  10000 /* more than any count in disk_near.c */
#define QUICK 1000  /* ns */
#define LATE  10000000

static cpu_set_t before;
static int first, second; /* two processors that this thread may run on; may be the same */

static int setup(void **state)
{
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    first = second = -1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &before))
            continue;
        if (first < 0)
            first = cpu;
        second = cpu;
    }
    return 0;
}

static int teardown(void **state)
{
    return sched_setaffinity(0, sizeof before, &before);
}

static void writes(struct disk_near *n, unsigned times, int cpu)
{
    while (times--)
        disk_near_lone(n, cpu, QUICK);
}

static bool runs_on(const cpu_set_t *want)
{
    cpu_set_t now;
    assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
    return CPU_EQUAL(&now, want);
}

static bool bound_to(int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)cpu, &one);
    return runs_on(&one);
}

static void needs_two(void)
{
    if (first == second)
        skip();
}

static void binds_after_some(void **state)
{
    struct disk_near n = {0};
    needs_two();
    writes(&n, 2, second);
    assert_true(runs_on(&before));
    writes(&n, MANY, second);
    assert_true(bound_to(second));
    disk_near_other(&n);
    assert_true(runs_on(&before));
    writes(&n, 2, second);
    assert_true(runs_on(&before));
}

static void follows_who_moves_seldom(void **state)
{
    struct disk_near n = {0};
    needs_two();
    writes(&n, MANY, first);
    writes(&n, MANY, second);
    assert_true(bound_to(second));
    writes(&n, 1, first);
    assert_true(bound_to(first));
    writes(&n, 1, second);
    assert_true(runs_on(&before));
    for (unsigned i = 0; i < MANY; i++)
        writes(&n, 1, i % 2 ? first : second);
    assert_true(runs_on(&before));
}

/* Something else runs there. */
static void stays_away_where_it_waits(void **state)
{
    struct disk_near n = {0};
    needs_two();
    writes(&n, MANY, first);
    disk_near_lone(&n, first, LATE);
    assert_true(bound_to(first)); /* now and then it may */
    for (unsigned i = 0; i < 10; i++)
        disk_near_lone(&n, first, LATE);
    assert_true(runs_on(&before));
    writes(&n, 100, first);
    assert_true(runs_on(&before));
    writes(&n, MANY, first);
    assert_true(bound_to(first));
}

static void stays_among_its_processors(void **state)
{
    struct disk_near n = {0};
    cpu_set_t one;
    needs_two();
    CPU_ZERO(&one);
    CPU_SET((size_t)first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    writes(&n, MANY, second);
    writes(&n, MANY, -1);
    writes(&n, MANY, CPU_SETSIZE);
    assert_true(bound_to(first));
}

static void lets_go_where_it_cannot_follow(void **state)
{
    struct disk_near n = {0};
    needs_two();
    writes(&n, MANY, first);
    assert_true(bound_to(first));
    writes(&n, 1, -1);
    assert_true(runs_on(&before));
}

/* Who runs the VMM binds its threads. */
static void leaves_what_others_set(void **state)
{
    struct disk_near n = {0};
    needs_two();
    writes(&n, MANY, first);
    assert_true(bound_to(first));
    cpu_set_t two = before;
    if (CPU_COUNT(&before) > 2)
        CPU_CLR((size_t)first, &two);
    assert_int_equal(sched_setaffinity(0, sizeof two, &two), 0);
    disk_near_other(&n);
    assert_true(runs_on(&two));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(binds_after_some),
        T(follows_who_moves_seldom),
        T(stays_away_where_it_waits),
        T(stays_among_its_processors),
        T(lets_go_where_it_cannot_follow),
        T(leaves_what_others_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
