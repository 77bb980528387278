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

static uint32_t mark(uint64_t roff, bool *withdraw)
{
    uint32_t gen = ram_code_mark(&ram, roff, 1, withdraw);
    ram_code_marked(&ram, roff);
    return gen;
}

static void only_the_first_mark_withdraws(void **state)
{
    bool withdraw;
    mark(0x2000, &withdraw);
    assert_true(withdraw);
    mark(0x2fff, &withdraw);
    assert_false(withdraw);
    mark(0x3000, &withdraw);
    assert_true(withdraw);
    ram_note_write(&ram, 0x2000, 1);
    mark(0x2000, &withdraw);
    assert_true(withdraw);
}

static void writers_are_remembered(void **state)
{
    const uint32_t last = (1u << RAM_PLACE_BITS) - 2;
    assert_int_equal(ram_writers(&ram, 0x5000), 0);
    assert_true(ram_add_writer(&ram, 0x5000, 5));
    assert_true(ram_add_writer(&ram, 0x5fff, last));
    assert_true(ram_add_writer(&ram, 0x5000, 5));
    assert_true(ram_add_writer(&ram, 0x5000, 9));
    assert_false(ram_add_writer(&ram, 0x5000, 10));
    assert_true(ram_add_writer(&ram, 0x5000, last));
    uint64_t places = ram_writers(&ram, 0x5000);
    assert_int_equal(ram_place(places, 0), 5);
    assert_int_equal(ram_place(places, 1), last);
    assert_int_equal(ram_place(places, 2), 9);
    ram_remove_writer(&ram, 0x5000, 10);
    ram_remove_writer(&ram, 0x5000, last);
    assert_true(ram_add_writer(&ram, 0x5000, 10));
    places = ram_writers(&ram, 0x5000);
    assert_int_equal(ram_place(places, 0), 5);
    assert_int_equal(ram_place(places, 1), 10);
    assert_int_equal(ram_place(places, 2), 9);
    ram_write_anywhere(&ram, 0x5000);
    assert_true(ram_add_writer(&ram, 0x5000, 11));
    ram_remove_writer(&ram, 0x5000, 10);
    assert_true(ram_writers(&ram, 0x5000) == RAM_ANYWHERE);
    assert_int_equal(ram_writers(&ram, 0x4000) | ram_writers(&ram, 0x6000), 0);
}

static void all_that_mark_at_once_withdraw(void **state)
{
    bool withdraw;
    ram_add_writer(&ram, 0x2000, 7);
    ram_code_mark(&ram, 0x2000, 1, &withdraw);
    assert_int_equal(ram_take_writers(&ram, 0x2000), 7);
    ram_code_mark(&ram, 0x2fff, 1, &withdraw); /* another vCPU, before the first one is done */
    assert_true(withdraw);
    assert_true(ram_take_writers(&ram, 0x2000) == RAM_ANYWHERE);
    ram_code_marked(&ram, 0x2000);
    ram_code_marked(&ram, 0x2fff);
    mark(0x2800, &withdraw);
    assert_false(withdraw);
}

static void a_write_beside_the_code_keeps_it(void **state)
{
    bool withdraw;
    uint32_t gen = ram_code_mark(&ram, 0x1040, 64, &withdraw);
    assert_false(ram_note_write(&ram, 0x103f, 1));
    assert_false(ram_note_write(&ram, 0x1080, 0xf80));
    assert_int_equal(ram_code_gen(&ram, 0x1040), gen);
    assert_true(ram_has_code(&ram, 0x1000));
}

static void a_write_into_a_marked_chunk_kills_it(void **state)
{
    bool withdraw;
    uint32_t gen = ram_code_mark(&ram, 0x1040, 65, &withdraw);
    assert_true(ram_note_write(&ram, 0x10bf, 1));
    assert_int_not_equal(ram_code_gen(&ram, 0x1040), gen);
    assert_false(ram_has_code(&ram, 0x1000));
    assert_false(ram_note_write(&ram, 0x10bf, 1));
    ram_code_mark(&ram, 0x1040, 1, &withdraw);
    assert_true(withdraw);
}

static unsigned told;

static void on_written(void *ctx)
{
    assert_ptr_equal(ctx, &told);
    assert_int_equal(ram.code_epoch, ram.code_dying);
    assert_false(ram_has_code(&ram, 0x1000));
    told++;
}

static void a_hit_is_told_and_counted(void **state)
{
    bool withdraw;
    ram.code_written = on_written;
    ram.code_ctx = &told;
    uint32_t gen = ram_code_mark(&ram, 0x1040, 64, &withdraw);
    uint64_t epoch = ram.code_epoch;
    ram_note_write(&ram, 0x1000, 64);
    assert_int_equal(told, 0);
    assert_int_equal(ram_note_write(&ram, 0x1000, 65), 1);
    assert_int_equal(told, 1);
    assert_int_equal(ram.code_epoch, epoch + 1);
    ram_code_kill(&ram, 0x1000, 1); /* whether it is marked or not */
    assert_int_equal(told, 2);
    assert_int_equal(ram_code_gen(&ram, 0x1040), gen + 2);
}

static void a_long_write_reaches_every_page(void **state)
{
    bool withdraw;
    ram_code_mark(&ram, 0x1fff, 1, &withdraw);
    ram_code_mark(&ram, 0x3000, 1, &withdraw);
    ram_code_mark(&ram, 0x4000, 1, &withdraw);
    assert_true(ram_note_write(&ram, 0x1ffe, 0x1003));
    assert_false(ram_has_code(&ram, 0x1000));
    assert_false(ram_has_code(&ram, 0x3000));
    assert_true(ram_has_code(&ram, 0x4000));
    assert_false(ram_note_write(&ram, 0, 0));
}

static void a_whole_page_of_code_is_marked(void **state)
{
    bool withdraw;
    ram_code_mark(&ram, 0, PAGE_SIZE, &withdraw);
    assert_true(ram_note_write(&ram, PAGE_SIZE - 1, 1));
}

/* A large page may take its place: what is there stays, also in the part behind the last whole one.
 */
static void touched_pages_keep_what_is_there(void **state)
{
    for (uint64_t at = 0; at < ram.total; at += PAGE_SIZE) {
        ram.host[at + at / PAGE_SIZE % PAGE_SIZE] = (uint8_t)(1 + at / PAGE_SIZE % 255);
        ram_touch(&ram, at);
        ram_touch(&ram, at);
    }
    for (uint64_t at = 0; at < ram.total; at += PAGE_SIZE)
        assert_int_equal(ram.host[at + at / PAGE_SIZE % PAGE_SIZE], 1 + at / PAGE_SIZE % 255);
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
        cmocka_unit_test_setup_teardown(only_the_first_mark_withdraws, setup, teardown),
        cmocka_unit_test_setup_teardown(writers_are_remembered, setup, teardown),
        cmocka_unit_test_setup_teardown(all_that_mark_at_once_withdraw, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_beside_the_code_keeps_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_write_into_a_marked_chunk_kills_it, setup, teardown),
        cmocka_unit_test_setup_teardown(a_hit_is_told_and_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_write_reaches_every_page, setup, teardown),
        cmocka_unit_test_setup_teardown(a_whole_page_of_code_is_marked, setup, teardown),
        cmocka_unit_test_setup_teardown(touched_pages_keep_what_is_there, setup, teardown),
        cmocka_unit_test_setup_teardown(the_barrier_returns, setup, teardown),
    };
    return cmocka_run_group_tests_name("ram", tests, NULL, NULL);
}
