/* test_vring.c - the split virtqueue: what a good driver does, and everything a hostile one can. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "vdriver.h"
#include "virtio/ring.h"

#define SIZE 8
#define BUF  0x20000u

static struct vring ring;
static struct drv drv;
static struct vchain chain;

static void start_ring(bool indirect, bool event_idx)
{
    ring = (struct vring){.mem = &space, .name = "test", .max = 256};
    vring_reset(&ring);
    drv = drv_at(0, SIZE);
    ring.size = SIZE;
    ring.desc = drv.desc;
    ring.avail = drv.avail;
    ring.used = drv.used;
    ring.indirect = indirect;
    ring.event_idx = event_idx;
    assert_true(vring_start(&ring));
}

static int setup(void **state)
{
    return guest_init();
}

static int teardown(void **state)
{
    guest_fini();
    return 0;
}

/* ---- a good driver ---- */

static void empty_ring_gives_nothing(void **state)
{
    start_ring(false, false);
    assert_int_equal(vring_pop(&ring, &chain), 0);
    assert_false(ring.broken);
}

static void chain_is_read_then_write(void **state)
{
    start_ring(false, false);
    put_desc(drv.desc, 3, BUF, 16, NEXT, 5);
    put_desc(drv.desc, 5, BUF + 0x100, 32, NEXT | WRITE, 0);
    put_desc(drv.desc, 0, BUF + 0x200, 1, WRITE, 77);
    drv_add(&drv, 3);
    assert_int_equal(vring_pop(&ring, &chain), 1);
    assert_int_equal(chain.head, 3);
    assert_int_equal(chain.nread, 1);
    assert_int_equal(chain.nwrite, 2);
    assert_int_equal(chain.read_len, 16);
    assert_int_equal(chain.write_len, 33);
    assert_ptr_equal(chain.iov[0].iov_base, ram.host + BUF);
    assert_ptr_equal(chain.iov[2].iov_base, ram.host + BUF + 0x200);
    assert_int_equal(vring_pop(&ring, &chain), 0);
    assert_true(vring_push(&ring, 3, 33));
    uint32_t head, len;
    assert_true(drv_take(&drv, &head, &len));
    assert_int_equal(head, 3);
    assert_int_equal(len, 33);
}

static void indices_wrap(void **state)
{
    start_ring(false, false);
    put_desc(drv.desc, 1, BUF, 4, 0, 0);
    for (unsigned i = 0; i < 70000; i++) {
        uint32_t head, len;
        drv_add(&drv, 1);
        assert_int_equal(vring_pop(&ring, &chain), 1);
        assert_true(vring_push(&ring, chain.head, 0));
        assert_true(drv_take(&drv, &head, &len));
        assert_int_equal(head, 1);
    }
}

static void full_ring_in_any_order(void **state)
{
    start_ring(false, false);
    for (uint16_t i = 0; i < SIZE; i++) {
        put_desc(drv.desc, i, BUF + i, 1, WRITE, 0);
        drv_add(&drv, (uint16_t)(SIZE - 1 - i));
    }
    for (unsigned i = 0; i < SIZE; i++) {
        assert_int_equal(vring_pop(&ring, &chain), 1);
        assert_int_equal(chain.head, SIZE - 1 - i);
    }
    assert_int_equal(vring_pop(&ring, &chain), 0);
}

static void indirect_table(void **state)
{
    gpa_t table = 0x8000;
    start_ring(true, false);
    put_desc(drv.desc, 0, BUF, 8, NEXT, 2);
    put_desc(drv.desc, 2, table, 48, INDIRECT | WRITE, 0); /* WRITE is ignored here */
    put_desc(table, 0, BUF + 8, 8, NEXT, 2);
    put_desc(table, 2, BUF + 64, 64, NEXT | WRITE, 1);
    put_desc(table, 1, BUF + 32, 32, WRITE, 0);
    drv_add(&drv, 0);
    assert_int_equal(vring_pop(&ring, &chain), 1);
    assert_int_equal(chain.nread, 2);
    assert_int_equal(chain.nwrite, 2);
    assert_int_equal(chain.write_len, 96);
}

static void buffer_across_a_seam_is_split(void **state)
{
    unsigned id; /* the first 64 KiB of RAM again, at 1 MiB: two pieces of host memory */
    assert_int_equal(space_add_ram(&space, MIB, 64 * KIB, 0, 0, &id, NULL), 0);
    start_ring(false, false);
    put_desc(drv.desc, 0, MIB - 16, 48, WRITE, 0);
    drv_add(&drv, 0);
    assert_int_equal(vring_pop(&ring, &chain), 1);
    assert_int_equal(chain.nwrite, 2);
    assert_int_equal(chain.iov[0].iov_len, 16);
    assert_ptr_equal(chain.iov[1].iov_base, ram.host);
    assert_int_equal(chain.iov[1].iov_len, 32);
    uint8_t msg[40], back[16];
    memset(msg, 0x5a, sizeof msg);
    assert_int_equal(vchain_write(&space, &chain, 8, msg, sizeof msg), 40);
    assert_int_equal(ram.host[MIB - 9], 0);
    assert_int_equal(ram.host[MIB - 8], 0x5a);
    assert_int_equal(ram.host[31], 0x5a);
    assert_int_equal(vchain_write(&space, &chain, 48, msg, 1), 0);
    assert_int_equal(vchain_read(&chain, 0, back, sizeof back), 0);
}

static void copies_across_pieces(void **state)
{
    start_ring(false, false);
    memcpy(ram.host + BUF, "abcdef", 6);
    put_desc(drv.desc, 0, BUF, 2, NEXT, 1);
    put_desc(drv.desc, 1, BUF + 2, 4, 0, 0);
    drv_add(&drv, 0);
    assert_int_equal(vring_pop(&ring, &chain), 1);
    char s[8] = "";
    assert_int_equal(vchain_read(&chain, 1, s, 3), 3);
    assert_string_equal(s, "bcd");
    assert_int_equal(vchain_read(&chain, 4, s, 8), 2);
    assert_int_equal(vchain_read(&chain, 6, s, 8), 0);
    assert_int_equal(vchain_read(&chain, UINT64_MAX, s, 8), 0);
}

static void flag_suppresses_interrupts(void **state)
{
    start_ring(false, false);
    vring_push(&ring, 0, 0);
    assert_true(vring_should_notify(&ring));
    store_le16(ram.host + drv.avail, 1);
    vring_push(&ring, 0, 0);
    assert_false(vring_should_notify(&ring));
}

static void event_index_both_ways(void **state)
{
    start_ring(false, true);
    assert_int_equal(vring_pop(&ring, &chain), 0);
    put_desc(drv.desc, 0, BUF, 1, 0, 0);
    drv_add(&drv, 0);
    drv_add(&drv, 0);
    assert_int_equal(vring_pop(&ring, &chain), 1);
    assert_int_equal(vring_pop(&ring, &chain), 1);
    assert_int_equal(drv_avail_event(&drv), 0); /* not re-armed while chains flow */
    assert_int_equal(vring_pop(&ring, &chain), 0);
    assert_int_equal(drv_avail_event(&drv), 2);

    drv_used_event(&drv, 0); /* interrupt at the first */
    vring_push(&ring, 0, 0);
    assert_true(vring_should_notify(&ring));
    assert_false(vring_should_notify(&ring)); /* nothing new */
    drv_used_event(&drv, 3);                  /* at the fourth */
    vring_push(&ring, 0, 0);
    assert_false(vring_should_notify(&ring));
    vring_push(&ring, 0, 0);
    vring_push(&ring, 0, 0);
    assert_true(vring_should_notify(&ring));
    drv_used_event(&drv, 2); /* behind */
    vring_push(&ring, 0, 0);
    assert_false(vring_should_notify(&ring));
}

static void rearm_asks_for_the_next_addition(void **state)
{
    start_ring(false, true);
    put_desc(drv.desc, 0, BUF, 1, 0, 0);
    for (unsigned i = 0; i < 3; i++)
        drv_add(&drv, 0);
    assert_int_equal(vring_pop(&ring, &chain), 1);
    vring_rearm(&ring);
    assert_int_equal(drv_avail_event(&drv), 3);
    assert_int_equal(vring_pop(&ring, &chain), 1); /* the rest is still there */
}

/* ---- bad set-up ---- */

static bool start_with(uint16_t size, gpa_t desc, gpa_t avail, gpa_t used)
{
    ring = (struct vring){.mem = &space, .name = "test", .max = 256};
    vring_reset(&ring);
    ring.size = size;
    ring.desc = desc;
    ring.avail = avail;
    ring.used = used;
    bool ok = vring_start(&ring);
    assert_true(ok == ring.enabled);
    if (!ok)
        assert_int_equal(vring_pop(&ring, &chain), -1);
    return ok;
}

static void bad_sizes(void **state)
{
    assert_true(start_with(256, 0x1000, 0x3000, 0x4000));
    assert_true(start_with(1, 0x1000, 0x3000, 0x4000));
    static const uint16_t bad[] = {0, 3, 7, 255, 257, 512, 0x8000, 0xffff};
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
        assert_false(start_with(bad[i], 0x1000, 0x3000, 0x4000));
}

static void bad_addresses(void **state)
{
    assert_false(start_with(8, 0x1008, 0x3000, 0x4000)); /* not aligned */
    assert_false(start_with(8, 0x1000, 0x3001, 0x4000));
    assert_false(start_with(8, 0x1000, 0x3000, 0x4002));
    assert_false(start_with(8, GUEST_RAM - 112, 0x3000, 0x4000)); /* the last one is outside */
    assert_true(start_with(8, GUEST_RAM - 128, 0x3000, 0x4000));
    assert_false(start_with(8, 0x1000, GUEST_RAM - 20, 0x4000));
    assert_false(start_with(8, 0x1000, 0x3000, GUEST_RAM - 68));
    assert_false(start_with(8, 0xfffffff0, 0x3000, 0x4000));
    assert_false(start_with(8, 0x1000, 0xfffffffffffffffe, 0x4000));
    assert_false(start_with(8, 0x1000, 0x3000, 0xfffffffffffffffc));
    assert_false(start_with(8, 0xfffffffffffffff0, 0x3000, 0x4000));
}

/* ---- bad chains ---- */

static void assert_breaks(uint16_t head)
{
    drv_add(&drv, head);
    assert_int_equal(vring_pop(&ring, &chain), -1);
    assert_true(ring.broken);
    assert_int_equal(vring_pop(&ring, &chain), -1);
    assert_false(vring_push(&ring, 0, 0));
    assert_false(vring_should_notify(&ring));
    vring_rearm(&ring);
    assert_int_equal(drv_used_idx(&drv), 0);
}

static void index_far_ahead(void **state)
{
    start_ring(false, false);
    put_desc(drv.desc, 0, BUF, 1, 0, 0);
    drv_set_idx(&drv, SIZE + 1);
    assert_int_equal(vring_pop(&ring, &chain), -1);
    start_ring(false, true);
    drv_set_idx(&drv, 0xffff); /* one back */
    assert_int_equal(vring_pop(&ring, &chain), -1);
    drv_set_idx(&drv, 0);
    start_ring(false, true);
    drv_set_idx(&drv, 0x8000);
    vring_rearm(&ring);
    assert_true(ring.broken);
}

static void head_beyond_table(void **state)
{
    start_ring(false, false);
    assert_breaks(SIZE);
    drv_set_idx(&drv, 0);
    start_ring(false, false);
    assert_breaks(0xffff);
}

static void next_beyond_table(void **state)
{
    start_ring(false, false);
    put_desc(drv.desc, 0, BUF, 1, NEXT, SIZE);
    put_desc(drv.desc, SIZE, BUF, 1, 0, 0);
    assert_breaks(0);
}

static void loops(void **state)
{
    start_ring(false, false);
    put_desc(drv.desc, 0, BUF, 1, NEXT, 0);
    assert_breaks(0);
    drv_set_idx(&drv, 0);
    start_ring(false, false);
    put_desc(drv.desc, 0, BUF, 1, NEXT | WRITE, 1);
    put_desc(drv.desc, 1, BUF, 1, NEXT | WRITE, 0);
    assert_breaks(0);
}

static void loop_in_indirect_table(void **state)
{
    start_ring(true, false);
    put_desc(drv.desc, 0, 0x8000, 32, INDIRECT, 0);
    put_desc(0x8000, 0, BUF, 1, NEXT, 1);
    put_desc(0x8000, 1, BUF, 1, NEXT, 0);
    assert_breaks(0);
}

static void empty_buffer(void **state)
{
    start_ring(false, false);
    put_desc(drv.desc, 0, BUF, 0, 0, 0);
    assert_breaks(0);
}

static void buffers_outside_ram(void **state)
{
    static const struct {
        gpa_t addr;
        uint32_t len;
    } bad[] = {
        {GUEST_RAM, 1},           {GUEST_RAM - 1, 2},       {0, GUEST_RAM + 1}, {0, UINT32_MAX},
        {0xffffffff, 1},          {0xfffff000, UINT32_MAX}, {1ull << 32, 16},   {UINT64_MAX, 1},
        {UINT64_MAX, UINT32_MAX}, {UINT64_MAX - 15, 32},
    };
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        drv_set_idx(&drv, 0);
        start_ring(false, false);
        put_desc(drv.desc, 0, bad[i].addr, bad[i].len, i % 2 ? WRITE : 0, 0);
        assert_breaks(0);
        drv_set_idx(&drv, 0);
    }
}

static void readable_after_writable(void **state)
{
    start_ring(false, false);
    put_desc(drv.desc, 0, BUF, 1, NEXT | WRITE, 1);
    put_desc(drv.desc, 1, BUF, 1, 0, 0);
    assert_breaks(0);
}

static void more_than_4_gib_in_sum(void **state)
{
    unsigned id;
    guest_fini();
    assert_int_equal(ram_init(&ram, 64 * MIB, NULL), 0);
    assert_int_equal(space_init(&space, 1ull << 32, &ram, NULL), 0);
    assert_int_equal(space_add_ram(&space, 0, 64 * MIB, 0, 0, &id, NULL), 0);
    for (unsigned n = 63; n <= 64; n++) { /* 64 times 64 MiB is one byte too many */
        start_ring(true, false);
        put_desc(drv.desc, 0, 0x8000, 16 * 64, INDIRECT, 0);
        for (unsigned i = 0; i < n; i++)
            put_desc(0x8000, i, 0, 64 * MIB, i + 1 < n ? NEXT : 0, (uint16_t)(i + 1));
        drv_set_idx(&drv, 0);
        drv_add(&drv, 0);
        assert_int_equal(vring_pop(&ring, &chain), n == 63 ? 1 : -1);
    }
}

static void bad_indirect(void **state)
{
    static const struct {
        uint32_t len;
        uint16_t flags;
        gpa_t addr;
    } bad[] = {
        {0, INDIRECT, 0x8000},          {8, INDIRECT, 0x8000},          {17, INDIRECT, 0x8000},
        {0xfffffff0, INDIRECT, 0x8000}, {16, INDIRECT | NEXT, 0x8000},  {16, INDIRECT, GUEST_RAM},
        {16, INDIRECT, GUEST_RAM - 8},  {16, INDIRECT, UINT64_MAX - 7},
    };
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        drv_set_idx(&drv, 0);
        start_ring(true, false);
        put_desc(0x8000, 0, BUF, 1, 0, 0);
        put_desc(drv.desc, 0, bad[i].addr, bad[i].len, bad[i].flags, 0);
        assert_breaks(0);
        drv_set_idx(&drv, 0);
    }
    start_ring(true, false); /* nested */
    put_desc(drv.desc, 0, 0x8000, 16, INDIRECT, 0);
    put_desc(0x8000, 0, 0x8000, 16, INDIRECT, 0);
    assert_breaks(0);
    drv_set_idx(&drv, 0);
    start_ring(true, false); /* `next` beyond the indirect table, though within the ring's */
    put_desc(drv.desc, 0, 0x8000, 32, INDIRECT, 0);
    put_desc(0x8000, 0, BUF, 1, NEXT, 2);
    put_desc(0x8000, 2, BUF, 1, 0, 0);
    assert_breaks(0);
    drv_set_idx(&drv, 0);
    start_ring(false, false); /* not negotiated */
    put_desc(drv.desc, 0, 0x8000, 16, INDIRECT, 0);
    assert_breaks(0);
}

static void ring_that_leaves_ram(void **state)
{
    unsigned id;
    static const struct io_ops none = {"none", 4, NULL, NULL};
    assert_int_equal(space_add_io(&space, 0x4000, 0x1000, &none, NULL, 1, &id, NULL), 0);
    space_move(&space, id, 0x4000, false);
    start_ring(false, false);
    put_desc(drv.desc, 0, BUF, 1, 0, 0);
    drv_add(&drv, 0);
    assert_int_equal(vring_pop(&ring, &chain), 1);
    space_move(&space, id, 0x4000, true); /* a device now covers the used ring */
    assert_false(vring_push(&ring, 0, 0));
    assert_true(ring.broken);
}

/* Random descriptors, many times: nothing but a good chain or a broken ring may come of it. */
static void random_rings(void **state)
{
    srand(1);
    for (unsigned round = 0; round < 3000; round++) {
        start_ring(round & 1, round & 2);
        drv_set_idx(&drv, 0);
        for (unsigned i = 0; i < 2 * SIZE; i++) {
            gpa_t table = i < SIZE ? drv.desc : 0x8000;
            gpa_t addr = rand() % 4 ? (unsigned)rand() % GUEST_RAM : 0x8000;
            uint32_t len = rand() % 4 ? (unsigned)(rand() % 8 + 1) * 16 : (unsigned)rand();
            put_desc(table, i % SIZE, addr, len, (uint16_t)(rand() & 7),
                     (uint16_t)(rand() % (SIZE + 1)));
        }
        for (unsigned i = 0; i < SIZE; i++)
            drv_add(&drv, (uint16_t)(rand() % SIZE));
        for (unsigned i = 0; i < SIZE && vring_pop(&ring, &chain) == 1; i++) {
            uint64_t sum = 0;
            for (unsigned n = 0; n < chain.nread + chain.nwrite; n++) {
                const uint8_t *p = chain.iov[n].iov_base;
                assert_true(p >= ram.host && p + chain.iov[n].iov_len <= ram.host + GUEST_RAM);
                sum += chain.iov[n].iov_len;
            }
            assert_int_equal(sum, chain.read_len + chain.write_len);
        }
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(empty_ring_gives_nothing),
        T(chain_is_read_then_write),
        T(indices_wrap),
        T(full_ring_in_any_order),
        T(indirect_table),
        T(buffer_across_a_seam_is_split),
        T(copies_across_pieces),
        T(flag_suppresses_interrupts),
        T(event_index_both_ways),
        T(rearm_asks_for_the_next_addition),
        T(bad_sizes),
        T(bad_addresses),
        T(index_far_ahead),
        T(head_beyond_table),
        T(next_beyond_table),
        T(loops),
        T(loop_in_indirect_table),
        T(empty_buffer),
        T(buffers_outside_ram),
        T(readable_after_writable),
        T(more_than_4_gib_in_sum),
        T(bad_indirect),
        T(ring_that_leaves_ram),
        T(random_rings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
