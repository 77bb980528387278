/*
 * test_vdi.c - vdi: what is created, written and read back, what is refused, and that the power may
 * fail at any moment. tests/func/formats.py works on images by turns with QEMU's tools.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/endian.h"
#include "block/format/formats.h"
#include "block/io/file.h"
#include "block/layer/powercut.h"

#define SIZE (8 * MIB - 1024)

static char dir[64], path[80];
static struct error e;
static uint8_t buf[2 * MIB];

static void make(void)
{
    struct node *file = NULL;
    const struct format_create c = {.size = SIZE};
    unlink(path);
    assert_int_equal(file_open(path, &(struct file_options){.create = true}, &file, &e), 0);
    assert_int_equal(format_vdi.create(file, &c, &e), 0);
    node_close(file);
}

/* *cut, if not NULL, becomes a power switch below the image. */
static int open_it(bool readonly, struct node **cut, struct node **out)
{
    struct node *file = NULL;
    const struct format_open o = {.path = path, .readonly = readonly};
    e = (struct error){0};
    assert_int_equal(file_open(path, &(struct file_options){.readonly = readonly}, &file, &e), 0);
    if (cut) {
        assert_int_equal(powercut_open(file, cut, &e), 0);
        file = *cut;
    }
    int rc = format_vdi.open(file, &o, out, &e);
    if (rc)
        node_close(file);
    return rc;
}

static struct node *opened(bool readonly)
{
    struct node *n = NULL;
    if (open_it(readonly, NULL, &n))
        fail_msg("%s", e.msg);
    return n;
}

static void poke(uint64_t at, uint64_t value, size_t bytes)
{
    uint8_t v[8];
    struct node *file;
    store_le64(v, value);
    assert_int_equal(file_open(path, &(struct file_options){0}, &file, &e), 0);
    assert_int_equal(node_write(file, v, bytes, at, 0), 0);
    node_close(file);
}

static uint32_t peek(uint64_t at)
{
    uint8_t v[4];
    struct node *file;
    assert_int_equal(
        file_open(path, &(struct file_options){.readonly = true, .unlocked = true}, &file, &e), 0);
    assert_int_equal(node_read(file, v, 4, at), 0);
    node_close(file);
    return load_le32(v);
}

static void written_and_read(void **state)
{
    struct node_extent x;
    struct node_place p;
    make();
    struct node *n = opened(false);
    assert_int_equal(n->size, SIZE);
    assert_int_equal(n->granularity, MIB);
    assert_int_equal(node_map(n, 0, SIZE, &x), 0);
    assert_true(x.kind == NODE_HOLE && x.len == SIZE);
    memset(buf, 7, sizeof buf);
    assert_int_equal(node_write(n, buf, 1000, 5 * MIB + 77, 0), 0);
    assert_int_equal(node_write(n, buf, MIB, 2 * MIB, 0), 0);
    assert_int_equal(node_zero(n, 0, 2 * MIB, 0), 0);      /* takes no place */
    assert_false(node_resolve(n, 5 * MIB, 512, true, &p)); /* its entry is not durable */
    assert_true(node_resolve(n, 5 * MIB, 512, false, &p) && p.node);
    assert_int_equal(peek(512 + 5 * 4), 0xffffffffu);
    assert_int_equal(node_flush(n), 0);
    assert_int_equal(peek(512 + 5 * 4), 0);
    assert_int_equal(peek(512 + 2 * 4), 1);
    assert_int_equal(peek(0x184), 2);
    assert_true(node_resolve(n, 5 * MIB, 512, true, &p));
    assert_int_equal(p.offset, MIB);
    assert_int_equal(node_discard(n, 2 * MIB, MIB), 0);
    assert_int_equal(node_write(n, buf, 2 * MIB, 3 * MIB + 512, NODE_FUA), 0); /* three blocks */
    node_close(n);
    n = opened(true);
    memset(buf, 1, sizeof buf);
    assert_int_equal(node_read(n, buf, 3, 5 * MIB + 512 - 1), 0);
    assert_true(buf[0] == 7 && buf[1] == 7 && buf[2] == 7);
    assert_int_equal(node_read(n, buf, 2, 5 * MIB + 1076), 0);
    assert_true(buf[0] == 7 && buf[1] == 0);
    assert_int_equal(node_read(n, buf, MIB, 2 * MIB), 0);
    for (size_t i = 0; i < MIB; i++)
        assert_int_equal(buf[i], 0);
    assert_int_equal(node_read(n, buf, 2, 3 * MIB + 511), 0);
    assert_true(buf[0] == 0 && buf[1] == 7);
    assert_int_equal(node_write(n, buf, 1, 0, 0), -EROFS);
    node_close(n);
}

/* A place that a crash left unused, and what is in it. */
static void gaps_are_filled(void **state)
{
    make();
    struct node *n = opened(false);
    memset(buf, 9, MIB);
    for (unsigned b = 0; b < 3; b++)
        assert_int_equal(node_write(n, buf, MIB, b * MIB, 0), 0);
    node_close(n);
    poke(512 + 4, 0xffffffff, 4); /* place 1 is free now, and full of nines */
    n = opened(false);
    assert_int_equal(node_write(n, "x", 1, 6 * MIB + 10, 0), 0);
    assert_int_equal(node_read(n, buf, 12, 6 * MIB), 0);
    assert_memory_equal(buf, "\0\0\0\0\0\0\0\0\0\0x\0", 12);
    node_close(n);
    assert_int_equal(peek(512 + 6 * 4), 1);
    assert_int_equal(peek(0x184), 3);
}

static void refused(void **state)
{
    static const struct {
        unsigned at, bytes;
        uint64_t value;
        int code;
        const char *says;
    } bad[] = {
        {0x40, 4, 1, ERR_FORMAT, "signature"},
        {0x44, 4, 0x20001, ERR_FORMAT, "version 2.1"},
        {0x4c, 4, 4, ERR_FORMAT, "type 4"},
        {0x154, 4, 0, ERR_FORMAT, "block map"},
        {0x154, 4, 513, ERR_FORMAT, "block map"},
        {0x158, 4, 512, ERR_FORMAT, "block map"},
        {0x158, 4, 0xfffffe00, ERR_FORMAT, "block map"},
        {0x168, 4, 4096, ERR_FORMAT, "sectors of 4096"},
        {0x170, 8, 0, ERR_FORMAT, "a disk of 0 bytes"},
        {0x170, 8, UINT64_MAX, ERR_FORMAT, "does not have 8 blocks"},
        {0x170, 8, 7 * MIB, ERR_FORMAT, "does not have 8 blocks"},
        {0x178, 4, 0, ERR_FORMAT, "blocks of 0"},
        {0x178, 4, 3 * MIB, ERR_FORMAT, "blocks of 3145728"},
        {0x17c, 4, 512, ERR_FORMAT, "512 bytes in front"},
        {0x180, 4, 0xffffffff, ERR_LIMIT, "4194304 are supported"},
        {0x180, 4, 0, ERR_FORMAT, "0 blocks"},
        {0x1a8, 4, 1, ERR_FORMAT, "parent"},
        {0x1c4, 4, 1, ERR_FORMAT, "parent"},
        {512, 4, 8, ERR_FORMAT, "place 8"},
        {512, 8, 0, ERR_FORMAT, "shares its place"},
        {516, 4, 1, ERR_FORMAT, "copied completely"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct node *n = NULL;
        make();
        n = opened(false);
        assert_int_equal(node_write(n, "x", 1, 0, 0), 0);
        node_close(n);
        poke(bad[i].at, bad[i].value, bad[i].bytes);
        assert_int_equal(open_it(true, NULL, &n), bad[i].code);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("%x: '%s' lacks '%s'", bad[i].at, e.msg, bad[i].says);
    }
}

/* The power fails at each operation in turn: what was flushed is there, the rest is old or new, and
 * no block shows what another wrote. */
static void power_cuts(void **state)
{
    for (uint64_t seed = 0, more = 1; more; seed++) {
        struct node *n = NULL, *cut = NULL;
        make();
        assert_int_equal(open_it(false, &cut, &n), 0);
        powercut_arm(cut, seed, seed + 1);
        unsigned durable = 0, done = 0;
        for (unsigned b = 0; b < 7; b++) {
            memset(buf, (int)(b + 1), 512);
            if (node_write(n, buf, 512, (b * 3 % 7) * MIB + 4096, 0))
                break;
            done++;
            if (b % 2 == 0 && !node_flush(n))
                durable = b + 1;
        }
        more = powercut_is_cut(cut);
        node_close(n);
        n = opened(false);
        for (unsigned b = 0; b < 7; b++) {
            assert_int_equal(node_read(n, buf, 8192, (b * 3 % 7) * MIB), 0);
            if (buf[4096] != b + 1 && (b < durable || buf[4096] != 0))
                fail_msg("seed %u: block %u has %u after %u flushed, %u written", (unsigned)seed, b,
                         buf[4096], durable, done);
            assert_int_equal(buf[0], 0);
        }
        assert_int_equal(node_write(n, "y", 1, 6 * MIB, NODE_FUA), 0);
        node_close(n);
        node_close(opened(true));
    }
}

/* ---- changing the size ---- */

/* The image as other programs make it: the data right behind the map, in blocks of 4 KiB. */
static void make_tight(uint32_t blocks, bool fill)
{
    struct node *file = NULL;
    uint64_t data = 512 + (blocks * 4 + 511) / 512 * 512;
    make();
    poke(0x178, 4096, 4);
    poke(0x180, blocks, 4);
    poke(0x170, blocks * 4096ull, 8);
    poke(0x158, data, 4);
    assert_int_equal(file_open(path, &(struct file_options){0}, &file, &e), 0);
    assert_int_equal(node_resize(file, data, &e), 0);
    memset(buf, 0xff, data - 512);
    assert_int_equal(node_write(file, buf, data - 512, 512, 0), 0);
    node_close(file);
    struct node *n = opened(false);
    for (uint32_t b = 0; b < blocks; b++)
        if (fill || b * 7 % 5 < 2) {
            memset(buf, (int)(b % 251 + 1), 4096);
            assert_int_equal(node_write(n, buf, 4096, b * 7 % blocks * 4096ull, 0), 0);
        }
    node_close(n);
}

static unsigned check(struct node *n, unsigned fix)
{
    struct format_check c = {0};
    assert_int_equal(format_vdi.check(n, fix, &c, &e), 0);
    return (unsigned)(c.errors + c.leaks);
}

/* Larger and smaller, at random, with and without room for the map; writes in between. */
static void resized(void **state)
{
    static uint8_t want[4 * MIB];
    uint64_t size = 256 * 4096, rng = 88172645463325252u;
    make_tight(256, false);
    struct node *n = opened(false);
    assert_int_equal(node_read(n, want, size, 0), 0);
    for (unsigned step = 0; step < 60; step++) {
        rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
        uint64_t to = (1 + (rng >> 9) % (step % 3 ? 1600 : 8000)) * 512, at = (rng >> 40) % size;
        to = step % 3 ? to : min_u64(to, sizeof want);
        int rc = node_resize(n, to, &e);
        if (rc == ERR_STATE) { /* too full for a longer map */
            assert_true(to > size);
            to = size;
        } else if (rc) {
            fail_msg("%s", e.msg);
        }
        if (to > size)
            memset(want + size, 0, to - size);
        size = to;
        assert_int_equal(node_size(n), size);
        at = min_u64(at, size - 1);
        uint64_t len = min_u64(5000, size - at);
        memset(want + at, (int)step + 1, len);
        assert_int_equal(node_write(n, want + at, len, at, 0), 0);
        for (uint64_t done = 0, part; done < size; done += part) {
            part = min_u64(size - done, sizeof buf);
            assert_int_equal(node_read(n, buf, part, done), 0);
            assert_memory_equal(buf, want + done, part);
        }
        if (step % 4 == 0) {
            node_close(n);
            n = opened(false);
        }
    }
    node_close(n);
    n = opened(true);
    assert_int_equal(node_size(n), size);
    node_close(n);
}

static void full_map(void **state)
{
    make_tight(128, true);
    struct node *n = opened(false);
    assert_int_equal(node_resize(n, 200 * 4096, &e), ERR_STATE);
    assert_non_null(strstr(e.msg, "convert it"));
    node_close(n);
    make();
    poke(0x4c, 2, 4);
    n = opened(false);
    assert_int_equal(node_resize(n, 16 * MIB, &e), ERR_STATE);
    assert_non_null(strstr(e.msg, "fixed"));
    node_close(n);
}

/* At any moment the image is the old one or the new one; what both have reads the same. */
static void power_cuts_while_resized(void **state)
{
    static uint8_t want[500 * 4096];
    for (unsigned grow = 0; grow < 2; grow++)
        for (uint64_t at = 0, more = 1; more; at++) {
            struct node *n = NULL, *cut = NULL;
            uint64_t size = 128 * 4096, to = grow ? 500 * 4096 : 60 * 4096 + 512;
            make_tight(128, false);
            assert_int_equal(open_it(false, &cut, &n), 0);
            assert_int_equal(node_read(n, want, size, 0), 0);
            memset(want + size, 0, sizeof want - size);
            powercut_arm(cut, at, at + 1);
            int rc = node_resize(n, to, &e);
            more = powercut_is_cut(cut);
            assert_true(more || !rc);
            node_close(n);
            n = opened(false);
            assert_true(node_size(n) == size || node_size(n) == to);
            assert_true(more || node_size(n) == to);
            uint64_t same = grow ? node_size(n) : to;
            assert_int_equal(node_read(n, buf, same, 0), 0);
            assert_memory_equal(buf, want, same);
            check(n, FORMAT_FIX_LEAKS | FORMAT_FIX_ERRORS);
            assert_int_equal(check(n, 0), 0);
            assert_int_equal(node_read(n, buf, same, 0), 0);
            assert_memory_equal(buf, want, same);
            node_close(n);
        }
}

/* ---- repair ---- */

static void repaired(void **state)
{
    struct node *file = NULL, *n = NULL;
    make();
    n = opened(false);
    for (unsigned b = 0; b < 6; b++) {
        memset(buf, (int)b + 1, MIB);
        assert_int_equal(node_write(n, buf, MIB, b * MIB, 0), 0);
    }
    node_close(n);
    poke(512, 0xffffffff, 4); /* place 0 is lost */
    poke(512 + 4, 77, 4);     /* block 1: nowhere */
    poke(512 + 4 * 3, 2, 4);  /* block 3: where block 2 is */
    poke(0x184, 1, 4);        /* six */
    assert_int_equal(open_it(true, NULL, &n), ERR_FORMAT);
    const struct format_open o = {.path = path, .check = true};
    assert_int_equal(file_open(path, &(struct file_options){0}, &file, &e), 0);
    assert_int_equal(format_vdi.open(file, &o, &n, &e), 0);
    assert_int_equal(check(n, 0), 6); /* 77, shared, the count; places 0, 1 and 3 */
    check(n, FORMAT_FIX_LEAKS | FORMAT_FIX_ERRORS);
    assert_int_equal(check(n, 0), 0);
    node_close(n);
    n = opened(true);
    static const uint8_t want[] = {0, 0, 3, 3, 5, 6, 0};
    for (unsigned b = 0; b < sizeof want; b++) {
        assert_int_equal(node_read(n, buf, MIB, b * MIB), 0);
        for (unsigned i = 0; i < MIB; i += 4095)
            assert_int_equal(buf[i], want[b]);
    }
    node_close(n);
    assert_int_equal(peek(0x184), 4);
}

/* A flush that failed is never followed by one that succeeds. */
static void failed_flush(void **state)
{
    struct node *n = NULL, *cut = NULL;
    make();
    assert_int_equal(open_it(false, &cut, &n), 0);
    assert_int_equal(node_write(n, "x", 1, 0, 0), 0);
    powercut_cut(cut, 1);
    assert_int_equal(node_flush(n), -EIO);
    assert_int_equal(node_flush(n), -EIO);
    assert_int_equal(node_write(n, "x", 1, 0, NODE_FUA), -EIO);
    node_close(n);
}

static int setup(void **state)
{
    strcpy(dir, "/tmp/sosia-vdi-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/d.vdi", dir);
    return 0;
}

static int teardown(void **state)
{
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_and_read), cmocka_unit_test(gaps_are_filled),
        cmocka_unit_test(refused),          cmocka_unit_test(power_cuts),
        cmocka_unit_test(failed_flush),     cmocka_unit_test(resized),
        cmocka_unit_test(full_map),         cmocka_unit_test(power_cuts_while_resized),
        cmocka_unit_test(repaired),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
