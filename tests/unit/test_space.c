/* test_space.c - the address map: who answers, access sizes, map changes, DMA. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "mem/space.h"

static struct ram ram;
static struct space space;
static unsigned changes;

/* A device of 16 bytes of registers that records its accesses. */
struct fake {
    uint8_t reg[16];
    unsigned reads, writes;
    uint64_t off[8];
    unsigned size[8];
};

static uint64_t fake_read(void *dev, uint64_t off, unsigned size)
{
    struct fake *f = dev;
    uint64_t val = 0;
    f->reads++;
    assert_true(off + size <= sizeof f->reg);
    memcpy(&val, f->reg + off, size);
    return val;
}

static void fake_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct fake *f = dev;
    assert_true(off + size <= sizeof f->reg);
    assert_true(f->writes < 8);
    f->off[f->writes] = off;
    f->size[f->writes++] = size;
    memcpy(f->reg + off, &val, size);
}

static const struct io_ops any_ops = {"any", 1 | 2 | 4 | 8, fake_read, fake_write};
static const struct io_ops byte_ops = {"byte", 1, fake_read, fake_write};
static const struct io_ops word_ops = {"word", 2 | IO_UNALIGNED, fake_read, fake_write};
static const struct io_ops dword_ops = {"dword", 4, fake_read, fake_write};
static const struct io_ops small_ops = {"small", 1 | 2 | 4, fake_read, fake_write};

static void note_change(void *arg)
{
    changes++;
}

static int setup(void **state)
{
    changes = 0;
    if (ram_init(&ram, 1 * MIB, NULL) || space_init(&space, 1ull << 32, &ram, NULL))
        return -1;
    space.changed = note_change;
    return 0;
}

static int teardown(void **state)
{
    space_fini(&space);
    ram_fini(&ram);
    return 0;
}

static unsigned add_io(uint64_t base, uint64_t len, const struct io_ops *ops, struct fake *f,
                       int prio)
{
    unsigned id;
    assert_int_equal(space_add_io(&space, base, len, ops, f, prio, &id, NULL), 0);
    return id;
}

static unsigned add_ram(uint64_t base, uint64_t len, uint64_t roff)
{
    unsigned id;
    assert_int_equal(space_add_ram(&space, base, len, roff, 0, &id, NULL), 0);
    return id;
}

/* A device whose registers read as 16 times `byte`. */
static struct fake filled(uint8_t byte)
{
    struct fake f = {.reads = 0};
    memset(f.reg, byte, sizeof f.reg);
    return f;
}

static void nobody_reads_as_ones(void **state)
{
    assert_int_equal(space_read(&space, 0x1000, 1), 0xff);
    assert_int_equal(space_read(&space, 0x1000, 4), 0xffffffff);
    assert_true(space_read(&space, 0x1000, 8) == ~0ull);
    assert_true(space_read(&space, ~0ull - 3, 8) == ~0ull);
    space_write(&space, 0x1000, 1, 8);
    space_write(&space, ~0ull, 1, 8);
}

static void higher_priority_answers(void **state)
{
    struct fake low = filled(1), high = filled(2);
    add_io(0x100, 16, &any_ops, &high, 1);
    add_io(0x0f8, 16, &any_ops, &low, 0);
    assert_int_equal(space_read(&space, 0x0ff, 1), 1);
    assert_int_equal(space_read(&space, 0x100, 1), 2);
    assert_int_equal(space_read(&space, 0x107, 1), 2);
    assert_int_equal(space_read(&space, 0x10f, 1), 2);
    assert_int_equal(space_read(&space, 0x110, 1), 0xff);
}

static void a_hole_in_the_middle_keeps_offsets(void **state)
{
    struct fake low = {.reads = 0}, high = filled(0xee);
    for (unsigned i = 0; i < 16; i++)
        low.reg[i] = (uint8_t)i;
    add_io(0x100, 16, &any_ops, &low, 0);
    add_io(0x104, 4, &any_ops, &high, 1);
    assert_int_equal(space_read(&space, 0x103, 1), 3);
    assert_int_equal(space_read(&space, 0x104, 4), 0xeeeeeeee);
    assert_int_equal(space_read(&space, 0x108, 4), 0x0b0a0908);
    assert_int_equal(space.nflat, 3);
}

static void among_equals_the_last_added_answers(void **state)
{
    struct fake a = filled(1), b = filled(2);
    add_io(0x100, 16, &any_ops, &a, 0);
    unsigned id = add_io(0x100, 16, &any_ops, &b, 0);
    assert_int_equal(space_read(&space, 0x100, 1), 2);
    space_move(&space, id, 0x100, false);
    assert_int_equal(space_read(&space, 0x100, 1), 1);
}

static void wide_access_is_split(void **state)
{
    struct fake f = {.reads = 0};
    add_io(0, 16, &byte_ops, &f, 0);
    space_write(&space, 2, 0x44332211, 4);
    assert_int_equal(f.writes, 4);
    assert_int_equal(f.off[3], 5);
    assert_int_equal(f.size[3], 1);
    assert_int_equal(space_read(&space, 2, 4), 0x44332211);
    assert_int_equal(f.reads, 4);
}

static void eight_bytes_go_as_two_dwords(void **state)
{
    struct fake f = {.reads = 0};
    add_io(0, 16, &small_ops, &f, 0);
    space_write(&space, 8, 0x8877665544332211, 8);
    assert_int_equal(f.writes, 2);
    assert_int_equal(f.size[0], 4);
    assert_int_equal(f.off[1], 12);
    assert_true(space_read(&space, 8, 8) == 0x8877665544332211);
}

static void unaligned_access_is_split_unless_allowed(void **state)
{
    struct fake f = {.reads = 0}, g = {.reads = 0};
    add_io(0x100, 16, &small_ops, &f, 0);
    add_io(0x200, 16, &word_ops, &g, 0);
    space_write(&space, 0x101, 0x44332211, 4);
    assert_int_equal(f.writes, 3); /* 1 + 2 + 1 */
    assert_int_equal(f.size[1], 2);
    space_write(&space, 0x201, 0x2211, 2);
    assert_int_equal(g.writes, 1);
    assert_int_equal(g.off[0], 1);
    assert_int_equal(g.size[0], 2);
}

static void narrow_access_uses_the_whole_register(void **state)
{
    struct fake f = {.reg = {0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88}};
    add_io(0, 8, &dword_ops, &f, 0);
    assert_int_equal(space_read(&space, 5, 1), 0x66);
    assert_int_equal(space_read(&space, 2, 4), 0x66554433);
    space_write(&space, 6, 0xbbaa, 2);
    assert_int_equal(f.writes, 1);
    assert_int_equal(f.size[0], 4);
    assert_int_equal(f.off[0], 4);
    assert_int_equal(space_read(&space, 4, 4), 0xbbaa6655);
}

static void a_register_cut_by_the_region_is_not_there(void **state)
{
    struct fake f = filled(0);
    add_io(0, 6, &dword_ops, &f, 0);
    assert_int_equal(space_read(&space, 4, 1), 0xff);
    space_write(&space, 4, 0, 2);
    assert_int_equal(f.writes + f.reads, 0);
}

static void an_access_across_a_border_reaches_both(void **state)
{
    struct fake a = filled(1), b = filled(2);
    add_io(0x100, 2, &any_ops, &a, 0);
    add_io(0x102, 16, &any_ops, &b, 0);
    assert_int_equal(space_read(&space, 0x100, 4), 0x02020101);
    assert_true(space_read(&space, 0xfe, 8) == 0x020202020101ffff);
    space_write(&space, 0x100, 0x04030201, 4);
    assert_int_equal(a.reg[1], 2);
    assert_int_equal(b.reg[0], 3);
}

static void an_access_may_end_beyond_the_space(void **state)
{
    struct fake f = filled(5);
    add_io(0xfffffff0, 16, &any_ops, &f, 0);
    assert_true(space_read(&space, 0xfffffffe, 4) == 0xffff0505);
    space_write(&space, 0xfffffffe, 0, 8);
    assert_int_equal(f.reg[15], 0);
}

static void ram_is_served_and_tracked(void **state)
{
    bool first;
    add_ram(0, 0x10000, 0x4000);
    space_write(&space, 0x10, 0x123456789abcdef0, 8);
    assert_true(space_read(&space, 0x10, 8) == 0x123456789abcdef0);
    assert_int_equal(ram.host[0x4010], 0xf0);
    ram_code_mark(&ram, 0x4040, 4, &first);
    space_write(&space, 0x40, 1, 1);
    assert_false(ram_has_code(&ram, 0x4040));
}

static void rom_ignores_writes_or_hands_them_on(void **state)
{
    struct fake f = {.reads = 0};
    unsigned id;
    ram.host[0x5000] = 0xaa;
    assert_int_equal(space_add_rom(&space, 0xf0000, 0x1000, 0x5000, 0, &id, NULL), 0);
    space_write(&space, 0xf0000, 1, 1);
    assert_int_equal(space_read(&space, 0xf0000, 1), 0xaa);
    space_rom_writes(&space, id, &any_ops, &f);
    space_write(&space, 0xf0004, 0x77, 1);
    assert_int_equal(f.reg[4], 0x77);
    assert_int_equal(space_read(&space, 0xf0004, 1), 0);
}

static void rom_becomes_ram_and_back(void **state)
{
    uint64_t roff;
    bool writable;
    unsigned id;
    assert_int_equal(space_add_rom(&space, 0xf0000, 0x1000, 0, 0, &id, NULL), 0);
    unsigned before = changes;
    space_set_kind(&space, id, REGION_RAM);
    assert_int_equal(changes, before + 1);
    assert_true(space_page(&space, 0xf0123, &roff, &writable));
    assert_true(writable);
    space_set_kind(&space, id, REGION_RAM);
    assert_int_equal(changes, before + 1);
    space_set_kind(&space, id, REGION_ROM);
    assert_true(space_page(&space, 0xf0123, &roff, &writable));
    assert_false(writable);
}

static void a_page_must_be_whole(void **state)
{
    uint64_t roff;
    bool writable;
    struct fake f = {.reads = 0};
    add_ram(0, 0x3800, 0x8000);
    add_ram(0x5000, 0x2000, 0x9800);
    add_io(0x1ff0, 16, &any_ops, &f, 1);
    assert_true(space_page(&space, 0xfff, &roff, &writable));
    assert_int_equal(roff, 0x8000);
    assert_true(space_page(&space, 0x2000, &roff, &writable));
    assert_int_equal(roff, 0xa000);
    assert_false(space_page(&space, 0x1000, &roff, &writable)); /* a device sits in it */
    assert_false(space_page(&space, 0x3000, &roff, &writable)); /* ends within */
    assert_false(space_page(&space, 0x4000, &roff, &writable)); /* nobody */
    assert_false(space_page(&space, 0x5000, &roff, &writable)); /* not a page of RAM offsets */
    assert_false(space_page(&space, ~0ull, &roff, &writable));
}

static void a_batch_is_one_change(void **state)
{
    struct fake f = filled(3);
    unsigned a = add_io(0x100, 16, &any_ops, &f, 0), b = add_io(0x200, 16, &any_ops, &f, 0);
    changes = 0;
    space_begin(&space);
    space_begin(&space);
    space_move(&space, a, 0x300, true);
    space_commit(&space);
    space_move(&space, b, 0x400, true);
    assert_int_equal(changes, 0);
    assert_int_equal(space_read(&space, 0x100, 1), 3);
    space_commit(&space);
    assert_int_equal(changes, 1);
    assert_int_equal(space_read(&space, 0x100, 1), 0xff);
    assert_int_equal(space_read(&space, 0x300, 1), 3);
    assert_int_equal(space_read(&space, 0x400, 1), 3);
}

static void a_change_without_effect_disturbs_nobody(void **state)
{
    struct fake f = {.reads = 0};
    unsigned id = add_io(0x100, 16, &any_ops, &f, 0);
    space_move(&space, id, 0x100, false);
    changes = 0;
    space_move(&space, id, 0x5000, false);
    space_move(&space, id, 0xfffffff8, true); /* does not fit: stays disabled */
    space_move(&space, id, ~0ull, true);
    assert_int_equal(changes, 0);
    assert_int_equal(space_read(&space, 0xfffffff8, 1), 0xff);
}

static void silly_regions_are_refused(void **state)
{
    struct fake f;
    struct error e;
    assert_int_equal(space_add_io(&space, 0, 0, &any_ops, &f, 0, NULL, &e), ERR_LIMIT);
    assert_int_equal(space_add_io(&space, 0xfffffff8, 16, &any_ops, &f, 0, NULL, &e), ERR_LIMIT);
    assert_int_equal(space_add_io(&space, 8, ~0ull, &any_ops, &f, 0, NULL, &e), ERR_LIMIT);
    assert_int_equal(space_add_ram(&space, 0, 8 * MIB, 0, 0, NULL, &e), ERR_LIMIT);
    assert_int_equal(space_add_rom(&space, 0, 4096, ~0ull - 8, 0, NULL, &e), ERR_LIMIT);
    assert_int_equal(space.nregion, 0);
}

static void dma_crosses_regions(void **state)
{
    uint8_t buf[0x3000], back[0x3000];
    bool first;
    add_ram(0, 0x2000, 0x10000);
    add_ram(0x2000, 0x2000, 0);
    for (unsigned i = 0; i < sizeof buf; i++)
        buf[i] = (uint8_t)(i * 7 + (i >> 8));
    ram_code_mark(&ram, 0x11fff, 1, &first);
    ram_code_mark(&ram, 0, 1, &first);
    ram_code_mark(&ram, 0x1fff, 1, &first);
    assert_true(dma_write(&space, 0x800, buf, sizeof buf));
    assert_false(ram_has_code(&ram, 0x11fff));
    assert_false(ram_has_code(&ram, 0));
    assert_true(ram_has_code(&ram, 0x1fff)); /* the write ended at 0x17ff */
    assert_true(dma_read(&space, 0x800, back, sizeof back));
    assert_memory_equal(buf, back, sizeof buf);
    assert_int_equal(ram.host[0], buf[0x1800]);
}

static void dma_to_nowhere_is_harmless(void **state)
{
    uint8_t buf[64];
    struct fake f = filled(9);
    add_ram(0, 0x1000, 0);
    add_io(0x1000, 16, &any_ops, &f, 0);
    memset(buf, 0x55, sizeof buf);
    assert_false(dma_write(&space, 0xff0, buf, sizeof buf));
    assert_false(dma_read(&space, 0xff0, buf, sizeof buf));
    assert_int_equal(buf[15], 0x55);
    assert_int_equal(buf[16], 0xff);
    assert_int_equal(buf[63], 0xff);
    assert_int_equal(f.reads + f.writes, 0);
    assert_false(dma_read(&space, ~0ull - 8, buf, sizeof buf));
    assert_false(dma_write(&space, ~0ull - 8, buf, sizeof buf));
    assert_false(dma_write(&space, 0xfffffff0, buf, sizeof buf));
    assert_true(dma_write(&space, ~0ull, buf, 0));
}

static void dma_into_rom_is_swallowed(void **state)
{
    uint8_t buf[4] = {1, 2, 3, 4};
    assert_int_equal(space_add_rom(&space, 0, 0x1000, 0, 0, NULL, NULL), 0);
    assert_false(dma_write(&space, 0, buf, 4));
    assert_int_equal(ram.host[0], 0);
    assert_true(dma_read(&space, 0, buf, 4));
    assert_int_equal(buf[3], 0);
}

static void dma_map_is_cut_and_tracked(void **state)
{
    bool first;
    uint64_t len = 0x10000;
    add_ram(0, 0x2000, 0x4000);
    assert_int_equal(space_add_rom(&space, 0x8000, 0x1000, 0, 0, NULL, NULL), 0);
    uint8_t *p = dma_map(&space, 0x1800, &len);
    assert_ptr_equal(p, ram.host + 0x5800);
    assert_int_equal(len, 0x800);
    len = 16;
    assert_non_null(dma_map(&space, 0x10, &len));
    assert_int_equal(len, 16);
    assert_null(dma_map(&space, 0x2000, &len));
    assert_int_equal(len, 0);
    len = 16;
    assert_null(dma_map(&space, 0x8000, &len));
    len = 16;
    assert_null(dma_map(&space, ~0ull, &len));
    ram_code_mark(&ram, 0x5810, 1, &first);
    p[0x10] = 1;
    dma_wrote(&space, p + 0x10, 1);
    assert_false(ram_has_code(&ram, 0x5810));
}

static unsigned mover_id;

static void mover_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    space_move(&space, mover_id, val, true);
}

static void a_device_may_move_itself(void **state)
{
    static const struct io_ops ops = {"mover", 4, fake_read, mover_write};
    struct fake f = filled(4);
    mover_id = add_io(0x100, 16, &ops, &f, 0);
    space_write(&space, 0x100, 0x900, 4);
    assert_int_equal(space_read(&space, 0x100, 1), 0xff);
    assert_int_equal(space_read(&space, 0x900, 1), 4);
}

static void many_regions_agree_with_a_plain_search(void **state)
{
    enum { N = 40, SPAN = 400 };
    static struct fake f[N];
    uint64_t base[N], len[N];
    int prio[N];
    uint32_t seed = 12345;
    for (int i = 0; i < N; i++) {
        seed = seed * 1664525 + 1013904223;
        base[i] = (seed >> 8) % SPAN;
        len[i] = 1 + (seed >> 20) % 16;
        prio[i] = (int)(seed >> 28) - 8;
        f[i] = filled((uint8_t)i);
        add_io(base[i], len[i], &byte_ops, &f[i], prio[i]);
    }
    assert_true(space.nflat < 2 * N);
    for (uint64_t a = 0; a < SPAN + 32; a++) {
        int top = -1;
        for (int i = 0; i < N; i++)
            if (a >= base[i] && a < base[i] + len[i] && (top < 0 || prio[i] >= prio[top]))
                top = i;
        assert_int_equal(space_read(&space, a, 1), top < 0 ? 0xff : top);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_reads_as_ones),
        TEST(higher_priority_answers),
        TEST(a_hole_in_the_middle_keeps_offsets),
        TEST(among_equals_the_last_added_answers),
        TEST(wide_access_is_split),
        TEST(eight_bytes_go_as_two_dwords),
        TEST(unaligned_access_is_split_unless_allowed),
        TEST(narrow_access_uses_the_whole_register),
        TEST(a_register_cut_by_the_region_is_not_there),
        TEST(an_access_across_a_border_reaches_both),
        TEST(an_access_may_end_beyond_the_space),
        TEST(ram_is_served_and_tracked),
        TEST(rom_ignores_writes_or_hands_them_on),
        TEST(rom_becomes_ram_and_back),
        TEST(a_page_must_be_whole),
        TEST(a_batch_is_one_change),
        TEST(a_change_without_effect_disturbs_nobody),
        TEST(silly_regions_are_refused),
        TEST(dma_crosses_regions),
        TEST(dma_to_nowhere_is_harmless),
        TEST(dma_into_rom_is_swallowed),
        TEST(dma_map_is_cut_and_tracked),
        TEST(a_device_may_move_itself),
        TEST(many_regions_agree_with_a_plain_search),
    };
    return cmocka_run_group_tests_name("space", tests, NULL, NULL);
}
