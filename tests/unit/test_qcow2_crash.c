/*
 * test_qcow2_crash.c - the power fails at a random moment of random operations, again and again:
 * the image opens, a check (ours, and QEMU's if it is installed) finds leaks at worst, and each
 * sector holds what it held at the last flush or what was written to it since.
 *
 * Each sector of a write is filled with a number of its own; 0 is zeroes. SOSIA_TEST_SEED repeats a
 * run, SOSIA_TEST_LONG=1 makes it ten times as long.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "block/format/formats.h"
#include "block/format/qcow2.h"
#include "block/io/file.h"
#include "block/layer/powercut.h"

#define SECTOR   512u
#define DISK     (6 * MIB)
#define MAX_DISK (8 * MIB)
#define SECTORS  (MAX_DISK / SECTOR)
#define ALTS     6
#define CUTS     40 /* of each kind of image */
#define MAX_OPS  60

/* What a sector may hold: what was there at the last flush, or anything written since. */
struct sector {
    uint32_t durable, alt[ALTS];
    uint8_t n;
};

static struct {
    char dir[64], path[96], data[96];
    struct node *node, *cut, *data_cut;
    struct sector *s;
    uint64_t size, other_size; /* the other: of a resize that was cut off; else the same */
    uint64_t rng, seed;
    uint32_t stamp;
    bool qemu, lazy, full; /* full: some sector has no room for one more alternative */
} t;

static uint64_t rnd(uint64_t n)
{
    t.rng ^= t.rng << 13;
    t.rng ^= t.rng >> 7;
    t.rng ^= t.rng << 17;
    return (t.rng >> 11) % n;
}

static int open_file(const char *path, bool readonly, struct node **out)
{
    struct file_options o = {.readonly = readonly};
    return file_open(path, &o, out, NULL);
}

/* Backing files as they are; the data file behind a power switch of its own. */
static int open_named(const struct format_opener *o, const char *from, const char *name,
                      const char *format, bool readonly, unsigned depth, struct node **out,
                      struct error *e)
{
    char path[128];
    struct node *file = NULL;
    snprintf(path, sizeof path, "%s/%s", t.dir, name);
    int rc = open_file(path, readonly, &file);
    if (rc)
        return rc;
    if (strcmp(format, "file")) {
        struct format_open fo = {.path = path, .readonly = readonly};
        return format_raw.open(file, &fo, out, e);
    }
    *out = file;
    if (readonly || !t.cut)
        return 0;
    rc = powercut_open(file, out, e);
    t.data_cut = *out;
    return rc;
}

static const struct format_opener opener = {.open = open_named};

static void open_image(bool with_cut, bool check)
{
    struct error e = {0};
    struct node *file = NULL;
    struct format_open o = {.path = t.path, .check = check, .opener = &opener};
    assert_int_equal(open_file(t.path, false, &file), 0);
    t.cut = t.data_cut = NULL;
    if (with_cut) {
        assert_int_equal(powercut_open(file, &t.cut, &e), 0);
        file = t.cut;
    }
    if (format_qcow2.open(file, &o, &t.node, &e))
        fail_msg("seed %llu: cannot open: %s", (unsigned long long)t.seed, e.msg);
}

static uint32_t current(const struct sector *s)
{
    return s->n ? s->alt[s->n - 1] : s->durable;
}

static void may_hold(uint64_t first, uint64_t n, uint32_t stamp)
{
    for (uint64_t i = first; i < first + n; i++) {
        struct sector *s = &t.s[i];
        assert_true(s->n < ALTS);
        s->alt[s->n++] = stamp;
        t.full |= s->n >= ALTS - 1;
    }
}

/* The number that fills a sector; all its words must agree. */
static uint32_t stamp_of(const uint8_t *p, uint64_t sector)
{
    uint32_t v, w;
    memcpy(&v, p, 4);
    for (size_t i = 4; i < SECTOR; i += 4) {
        memcpy(&w, p + i, 4);
        if (w != v)
            fail_msg("seed %llu: sector %llu is torn: %u, %u", (unsigned long long)t.seed,
                     (unsigned long long)sector, v, w);
    }
    return v;
}

static bool possible(const struct sector *s, uint32_t v)
{
    bool ok = v == s->durable;
    for (unsigned i = 0; i < s->n; i++)
        ok |= v == s->alt[i];
    return ok;
}

/* Reads the disk; each sector must hold something possible, and if `exact` the newest. From now on
 * only that is possible. */
static void learn(bool exact)
{
    uint8_t *buf = malloc(t.size);
    assert_int_equal(node_read(t.node, buf, t.size, 0), 0);
    for (uint64_t i = 0; i < t.size / SECTOR; i++) {
        uint32_t v = stamp_of(buf + i * SECTOR, i);
        struct sector *s = &t.s[i];
        if (exact ? v != current(s) : !possible(s, v))
            fail_msg("seed %llu: sector %llu holds %u; durable %u, newest %u (%u)",
                     (unsigned long long)t.seed, (unsigned long long)i, v, s->durable, current(s),
                     s->n);
        *s = (struct sector){.durable = v};
    }
    for (uint64_t i = t.size / SECTOR; i < SECTORS; i++)
        t.s[i] = (struct sector){0};
    t.full = false;
    free(buf);
}

static int do_write(uint64_t first, uint64_t n, unsigned flags)
{
    uint32_t *buf = malloc(n * SECTOR), stamp = ++t.stamp;
    for (uint64_t i = 0; i < n * SECTOR / 4; i++)
        buf[i] = stamp;
    may_hold(first, n, stamp);
    int rc = node_write(t.node, buf, n * SECTOR, first * SECTOR, flags);
    if (!rc && (flags & NODE_FUA))
        for (uint64_t i = first; i < first + n; i++)
            t.s[i] = (struct sector){.durable = stamp};
    free(buf);
    return rc;
}

static int do_packed(uint64_t first)
{
    uint64_t c = t.node->granularity, at = first * SECTOR / c * c, len = min_u64(c, t.size - at);
    uint32_t *buf = malloc(len), stamp = ++t.stamp;
    for (uint64_t i = 0; i < len / 4; i++)
        buf[i] = stamp;
    may_hold(at / SECTOR, len / SECTOR, stamp);
    int rc = format_qcow2.write_compressed(t.node, buf, len, at);
    free(buf);
    return rc;
}

/* Discarded sectors are read back: each is what it was, or zero. */
static int do_discard(uint64_t first, uint64_t n)
{
    uint8_t *buf = malloc(n * SECTOR);
    may_hold(first, n, 0);
    int rc = node_discard(t.node, first * SECTOR, n * SECTOR);
    if (!rc)
        rc = node_read(t.node, buf, n * SECTOR, first * SECTOR);
    for (uint64_t i = 0; !rc && i < n; i++) {
        struct sector *s = &t.s[first + i];
        if (stamp_of(buf + i * SECTOR, first + i) != 0)
            s->n--; /* it stayed */
        assert_int_equal(stamp_of(buf + i * SECTOR, first + i), current(s));
    }
    free(buf);
    return rc;
}

static int do_resize(void)
{
    uint64_t size = (MIB + rnd(MAX_DISK - MIB)) & ~(uint64_t)(SECTOR - 1);
    t.other_size = size;
    for (uint64_t i = min_u64(size, t.size) / SECTOR; i < SECTORS; i++)
        if (t.s[i].n < ALTS)
            t.s[i].alt[t.s[i].n++] = 0;
    if (node_resize(t.node, size, NULL))
        return -1;
    t.size = size;
    return 0;
}

/* A flush may be done and the power fail while what it freed is discarded. */
static int do_flush(void)
{
    int rc = node_flush(t.node);
    for (uint64_t i = 0; !rc && i < SECTORS; i++)
        t.s[i] = (struct sector){.durable = current(&t.s[i])};
    if (!rc && !powercut_is_cut(t.cut))
        learn(true);
    return rc;
}

static int step(bool packs)
{
    uint64_t n = t.size / SECTOR, first = rnd(n);
    uint64_t len = min_u64(1 + rnd(rnd(3) ? 40 : 600), n - first);
    unsigned what = (unsigned)rnd(100);
    if (t.full || what < 12)
        return do_flush();
    if (what < 55)
        return do_write(first, len, 0);
    if (what < 60)
        return do_write(first, len, NODE_FUA);
    if (what < 78) {
        may_hold(first, len, 0);
        return node_zero(t.node, first * SECTOR, len * SECTOR, what & 1 ? NODE_MAY_UNMAP : 0);
    }
    if (what < 88)
        return do_discard(first, len);
    if (what < 97)
        return packs ? do_packed(first) : 0;
    int rc = do_flush();
    if (!rc)
        rc = do_resize();
    return rc ? rc : do_flush();
}

/* QEMU's opinion: 0 is clean, 3 leaks. */
static void check_with_qemu(bool leaks)
{
    char cmd[256];
    if (!t.qemu)
        return;
    snprintf(cmd, sizeof cmd, "cd %s && qemu-img check -q -f qcow2 disk >out 2>&1", t.dir);
    int rc = WEXITSTATUS(system(cmd));
    if (rc == 0 || (rc == 3 && leaks))
        return;
    snprintf(cmd, sizeof cmd, "head -20 %s/out >&2", t.dir);
    (void)!system(cmd);
    fail_msg("seed %llu: qemu-img check: %d", (unsigned long long)t.seed, rc);
}

static void say(void *ctx, const char *line)
{
    print_message("# %s\n", line);
}

/* After a cut; with lazy refcounts the image is first opened, which repairs it. */
static void verify(bool repair_leaks)
{
    struct format_check c = {.say = say};
    if (!t.lazy)
        check_with_qemu(true);
    open_image(false, !t.lazy);
    assert_int_equal(format_qcow2.check(t.node, repair_leaks ? FORMAT_FIX_LEAKS : 0, &c, NULL), 0);
    if (c.errors)
        fail_msg("seed %llu: %llu errors", (unsigned long long)t.seed,
                 (unsigned long long)c.errors);
    assert_true(t.node->size == t.size || t.node->size == t.other_size);
    t.size = t.other_size = t.node->size;
    learn(false);
    node_close(t.node);
    if (repair_leaks || t.lazy)
        check_with_qemu(false);
}

static void one_cut(bool packs)
{
    int rc = 0;
    open_image(true, false);
    powercut_arm(t.cut, rnd(rnd(2) ? 400 : 60), rnd(1u << 30));
    for (unsigned i = 0; i < MAX_OPS && !rc; i++)
        rc = step(packs);
    powercut_cut(t.cut, rnd(1u << 30));
    if (t.data_cut)
        powercut_cut(t.data_cut, rnd(1u << 30));
    node_close(t.node);
    verify(rnd(4) == 0);
}

static void create(const char *const *value, const char *backing)
{
    struct node *file = NULL;
    struct error e = {0};
    struct file_options o = {.create = true};
    struct format_create c = {
        .size = DISK, .value = value, .backing = backing, .backing_format = backing ? "raw" : NULL};
    unlink(t.path);
    assert_int_equal(file_open(t.path, &o, &file, &e), 0);
    if (format_qcow2.create(file, &c, &e))
        fail_msg("%s", e.msg);
    node_close(file);
    t.size = t.other_size = DISK;
    memset(t.s, 0, SECTORS * sizeof *t.s);
    t.full = false;
}

/* A file of sectors with numbers, or of zeroes. */
static void make_file(const char *name, uint64_t sectors, bool numbers)
{
    char path[128];
    uint32_t buf[SECTOR / 4];
    snprintf(path, sizeof path, "%s/%s", t.dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (uint64_t i = 0; i < sectors; i++) {
        t.s[i].durable = numbers ? ++t.stamp : 0;
        for (size_t k = 0; k < SECTOR / 4; k++)
            buf[k] = t.s[i].durable;
        assert_int_equal(fwrite(buf, SECTOR, 1, f), 1);
    }
    fclose(f);
}

static void cuts(const char *const *value, bool backing)
{
    unsigned n = getenv("SOSIA_TEST_LONG") ? CUTS * 10 : CUTS;
    create(value, backing ? "base" : NULL);
    if (backing)
        make_file("base", 5 * MIB / SECTOR, true);
    bool data = value[QCOW2_OPT_DATA_FILE];
    if (data)
        make_file("data", 0, false);
    t.lazy = value[QCOW2_OPT_LAZY_REFCOUNTS];
    for (unsigned i = 0; i < n; i++)
        one_cut(!data);
}

static void test_64k(void **state)
{
    const char *v[QCOW2_OPTIONS] = {NULL};
    cuts(v, false);
}

static void test_512_backed(void **state)
{
    const char *v[QCOW2_OPTIONS] = {
        [QCOW2_OPT_CLUSTER_SIZE] = "512", [QCOW2_OPT_REFCOUNT_BITS] = "64"};
    cuts(v, true);
}

static void test_4k_v2_backed(void **state)
{
    const char *v[QCOW2_OPTIONS] = {[QCOW2_OPT_CLUSTER_SIZE] = "4096", [QCOW2_OPT_VERSION] = "2"};
    cuts(v, true);
}

static void test_subclusters(void **state)
{
    const char *v[QCOW2_OPTIONS] = {[QCOW2_OPT_CLUSTER_SIZE] = "32k",
                                    [QCOW2_OPT_EXTENDED_L2] = "on",
                                    [QCOW2_OPT_COMPRESSION] = "zstd"};
    cuts(v, true);
}

static void test_lazy(void **state)
{
    const char *v[QCOW2_OPTIONS] = {
        [QCOW2_OPT_CLUSTER_SIZE] = "4096", [QCOW2_OPT_LAZY_REFCOUNTS] = "on"};
    cuts(v, false);
}

static void test_data_file(void **state)
{
    const char *v[QCOW2_OPTIONS] = {
        [QCOW2_OPT_CLUSTER_SIZE] = "4096", [QCOW2_OPT_DATA_FILE] = "data"};
    cuts(v, true);
}

/* A short life of an image whose L1, refcount table and blocks all have to grow. */
static int short_life(void)
{
    int rc = do_write(0, 200, 0);
    if (!rc)
        rc = do_flush();
    if (!rc)
        rc = do_write(2000, 300, 0);
    if (!rc)
        rc = do_discard(0, 100);
    if (!rc)
        rc = do_flush();
    if (!rc)
        rc = do_write(600, 130, NODE_FUA);
    t.other_size = MAX_DISK;
    if (!rc)
        rc = node_resize(t.node, MAX_DISK, NULL);
    if (!rc)
        t.size = MAX_DISK;
    if (!rc)
        rc = do_write(DISK / SECTOR + 1000, 100, 0);
    return rc ? rc : do_flush();
}

/* The power fails at each operation in turn, until the life is over before it does. */
static void each_moment(const char *const *value)
{
    bool qemu = t.qemu, over = false;
    for (unsigned op = 0; !over; op++) {
        t.qemu = qemu && op % 8 == 0;
        create(value, NULL);
        open_image(false, false); /* little is missing until the refcount table is full */
        assert_int_equal(do_write(8000, 3700, 0), 0);
        node_close(t.node);
        open_image(true, false);
        learn(false);
        powercut_arm(t.cut, op, rnd(1u << 30));
        over = short_life() == 0;
        powercut_cut(t.cut, rnd(1u << 30));
        node_close(t.node);
        verify(false);
    }
    t.qemu = qemu;
}

static void test_every_moment(void **state)
{
    const char *v[QCOW2_OPTIONS] = {
        [QCOW2_OPT_CLUSTER_SIZE] = "512", [QCOW2_OPT_REFCOUNT_BITS] = "64"};
    unsigned times = getenv("SOSIA_TEST_LONG") ? 20 : 2;
    t.lazy = false;
    for (unsigned i = 0; i < times; i++)
        each_moment(v);
}

static int setup(void **state)
{
    const char *seed = getenv("SOSIA_TEST_SEED");
    const char *fast =
        access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm"; /* fsync costs nothing there */
    snprintf(t.dir, sizeof t.dir, "%s/sosia-qcow2-XXXXXX", fast);
    assert_non_null(mkdtemp(t.dir));
    snprintf(t.path, sizeof t.path, "%s/disk", t.dir);
    t.seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) ^ (uint64_t)getpid() << 20;
    t.rng = t.seed * 2 + 1;
    t.qemu = system("qemu-img --version >/dev/null 2>&1") == 0;
    t.s = calloc(SECTORS, sizeof *t.s);
    qcow2_set_cache_size(0); /* the smallest, so that slices have to be written to make room */
    print_message("# SOSIA_TEST_SEED=%llu\n", (unsigned long long)t.seed);
    return 0;
}

static int teardown(void **state)
{
    char cmd[128];
    snprintf(cmd, sizeof cmd, "rm -rf %s", t.dir);
    free(t.s);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_64k),          cmocka_unit_test(test_512_backed),
        cmocka_unit_test(test_4k_v2_backed), cmocka_unit_test(test_subclusters),
        cmocka_unit_test(test_lazy),         cmocka_unit_test(test_data_file),
        cmocka_unit_test(test_every_moment),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
