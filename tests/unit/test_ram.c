/* test_ram.c - guest RAM: the ROM area, and the bookkeeping of cached code. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "mem/ram.h"

static struct ram ram;

static int setup(void **state)
{
    return ram_init(&ram, 1 * MIB, NULL);
}

static int teardown(void **state)
{
    ram_fini(&ram);
    return 0;
}

static void starts_zeroed_and_writable(void **state)
{
    assert_int_equal(ram.total, 1 * MIB + RAM_ROM_AREA);
    assert_int_equal(ram.host[0] | ram.host[ram.total - 1], 0);
    ram.host[ram.total - 1] = 7;
    assert_int_equal(ram.host[ram.total - 1], 7);
}

static void rom_is_handed_out_in_pages_until_full(void **state)
{
    uint64_t a, b, c;
    assert_int_equal(ram_rom_alloc(&ram, 1, &a, NULL), 0);
    assert_int_equal(ram_rom_alloc(&ram, 2 * PAGE_SIZE, &b, NULL), 0);
    assert_int_equal(a, ram.ram_size);
    assert_int_equal(b, a + PAGE_SIZE);
    struct error e;
    assert_int_equal(ram_rom_alloc(&ram, RAM_ROM_AREA, &c, &e), ERR_LIMIT);
    assert_int_equal(ram_rom_alloc(&ram, ~0ull, &c, &e), ERR_LIMIT);
    assert_int_equal(ram_rom_alloc(&ram, RAM_ROM_AREA - 3 * PAGE_SIZE, &c, NULL), 0);
    assert_int_equal(ram_rom_alloc(&ram, 1, &c, &e), ERR_LIMIT);
}

static void only_the_first_mark_of_a_page_is_first(void **state)
{
    bool first;
    ram_code_mark(&ram, 0x2000, 1, &first);
    assert_true(first);
    ram_code_mark(&ram, 0x2fff, 1, &first);
    assert_false(first);
    ram_code_mark(&ram, 0x3000, 1, &first);
    assert_true(first);
}

static void a_write_beside_the_code_keeps_it(void **state)
{
    bool first;
    uint32_t gen = ram_code_mark(&ram, 0x1040, 64, &first);
    assert_false(ram_note_write(&ram, 0x103f, 1));
    assert_false(ram_note_write(&ram, 0x1080, 0xf80));
    assert_int_equal(ram_code_gen(&ram, 0x1040), gen);
    assert_true(ram_has_code(&ram, 0x1000));
}

static void a_write_into_a_marked_chunk_kills_it(void **state)
{
    bool first;
    uint32_t gen = ram_code_mark(&ram, 0x1040, 65, &first);
    assert_true(ram_note_write(&ram, 0x10bf, 1));
    assert_int_not_equal(ram_code_gen(&ram, 0x1040), gen);
    assert_false(ram_has_code(&ram, 0x1000));
    assert_false(ram_note_write(&ram, 0x10bf, 1));
    ram_code_mark(&ram, 0x1040, 1, &first);
    assert_true(first);
}

static void a_long_write_reaches_every_page(void **state)
{
    bool first;
    ram_code_mark(&ram, 0x1fff, 1, &first);
    ram_code_mark(&ram, 0x3000, 1, &first);
    ram_code_mark(&ram, 0x4000, 1, &first);
    assert_true(ram_note_write(&ram, 0x1ffe, 0x1003));
    assert_false(ram_has_code(&ram, 0x1000));
    assert_false(ram_has_code(&ram, 0x3000));
    assert_true(ram_has_code(&ram, 0x4000));
    assert_false(ram_note_write(&ram, 0, 0));
}

static void a_whole_page_of_code_is_marked(void **state)
{
    bool first;
    ram_code_mark(&ram, 0, PAGE_SIZE, &first);
    assert_true(ram_note_write(&ram, PAGE_SIZE - 1, 1));
}

static void the_barrier_returns(void **state)
{
    barrier_all_threads();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(starts_zeroed_and_writable, setup, teardown),
        cmocka_unit_test_setup_teardown(rom_is_handed_out_in_pages_until_full, setup, teardown),
        cmocka_unit_test_setup_teardown(only_the_first_mark_of_a_page_is_first, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_beside_the_code_keeps_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_into_a_marked_chunk_kills_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_write_reaches_every_page, setup, teardown),
        cmocka_unit_test_setup_teardown(a_whole_page_of_code_is_marked, setup, teardown),
        cmocka_unit_test_setup_teardown(the_barrier_returns, setup, teardown),
    };
    return cmocka_run_group_tests_name("ram", tests, NULL, NULL);
}
