/*
 * test_raid.c - arrays over members in memory that fail and lose power, held against a model.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "block/disk.h"
#include "block/io/file.h"
#include "block/layer/fault.h"
#include "block/layer/powercut.h"
#include "block/layer/raid.h"

#define SECTOR  512u
#define REGION  (16u * 1024)
#define DATA    (256u * 1024) /* bytes of a member that hold data */
#define SECTORS (DATA / SECTOR)
#define MEMBER  (DATA + RAID_META)
#define MEMBERS 3u
#define HISTORY 64u

static uint64_t rng = 1;

static uint32_t rnd(uint32_t below)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)(rng >> 11) % below;
}

/* A member is a file in memory, with a volatile cache and a fault layer over it while open. */
static struct {
    int fd[MEMBERS];
    struct node *cut[MEMBERS], *fault[MEMBERS];
    unsigned n;
} t;

static void make_files(unsigned n)
{
    t.n = n;
    for (unsigned i = 0; i < n; i++) {
        t.fd[i] = memfd_create("raid", MFD_CLOEXEC);
        assert_true(t.fd[i] >= 0);
        assert_int_equal(ftruncate(t.fd[i], MEMBER), 0);
    }
}

static void drop_files(void)
{
    for (unsigned i = 0; i < t.n; i++)
        close(t.fd[i]);
}

static struct raid_member open_member(unsigned i)
{
    static char name[MEMBERS][16];
    char path[64];
    struct error e = {0};
    struct node *n = NULL;
    snprintf(path, sizeof path, "/proc/self/fd/%d", t.fd[i]);
    snprintf(name[i], sizeof name[i], "m%u", i);
    if (file_open(path, &(struct file_options){0}, &n, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(powercut_open(n, &t.cut[i], &e), 0);
    assert_int_equal(fault_open(t.cut[i], &t.fault[i], &e), 0);
    struct node_extent x;
    assert_int_equal(node_map(n, 0, MEMBER, &x), 0);
    return (struct raid_member){.name = name[i],
                                .node = t.fault[i],
                                .blank = x.kind != NODE_DATA && x.len == MEMBER,
                                .format = "raw"};
}

/* Opens the array with the members in `mask`. */
static int open_raid(unsigned level, unsigned mask, bool degraded, struct node **out,
                     struct error *e)
{
    struct raid_member m[MEMBERS] = {{0}};
    const struct raid_options o = {
        .level = level, .degraded = degraded, .sweep = 1, .no_pauses = rnd(2)};
    for (unsigned i = 0; i < t.n; i++)
        m[i] = mask >> i & 1 ? open_member(i)
                             : (struct raid_member){.name = "gone", .why = "no such file"};
    int rc = raid_open(m, t.n, &o, out, e);
    for (unsigned i = 0; rc && i < t.n; i++)
        node_close(m[i].node);
    return rc;
}

static struct node *must_open(unsigned level, unsigned mask, bool degraded)
{
    struct error e = {0};
    struct node *n = NULL;
    if (open_raid(level, mask, degraded, &n, &e))
        fail_msg("%s", e.msg);
    return n;
}

static void refuses(unsigned level, unsigned mask, int code, const char *says)
{
    struct error e = {0};
    struct node *n = NULL;
    assert_int_equal(open_raid(level, mask, false, &n, &e), code);
    if (!strstr(e.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
}

static void make_array(unsigned level, unsigned n)
{
    struct raid_member m[MEMBERS] = {{0}};
    struct error e = {0};
    make_files(n);
    for (unsigned i = 0; i < n; i++)
        m[i] = open_member(i);
    const struct raid_create c = {.level = level, .chunk = level ? 0 : 4096, .region = REGION};
    if (raid_create(m, n, &c, &e))
        fail_msg("%s", e.msg);
    for (unsigned i = 0; i < n; i++)
        node_close(m[i].node);
}

static void fail_member(unsigned i, unsigned ops, unsigned skip)
{
    const struct fault_rule rule = {.ops = ops, .kind = FAULT_ERROR, .skip = skip};
    assert_int_equal(fault_add(t.fault[i], &rule), 0);
}

/* What a member holds, past all layers. */
static void peek(unsigned i, void *buf, size_t len, uint64_t at)
{
    assert_int_equal(pread(t.fd[i], buf, len, (off_t)at), len);
}

/* ---- RAID 0 ---- */

static void striped(void **state)
{
    static uint8_t model[3 * DATA], buf[3 * DATA];
    make_array(0, 3);
    struct node *n = must_open(0, 7, false);
    uint64_t size = node_size(n);
    assert_int_equal(size, 3 * DATA);
    memset(model, 0, sizeof model);
    for (unsigned step = 0; step < 600; step++) {
        uint64_t at = rnd((uint32_t)size), len = 1 + rnd(rnd(2) ? 9000 : 120000);
        len = min_u64(len, size - at);
        unsigned op = rnd(5);
        uint64_t first = rnd((uint32_t)len + 1), second = rnd((uint32_t)(len - first) + 1);
        struct iovec iov[3] = {{buf + at, first},
                               {buf + at + first, second},
                               {buf + at + first + second, len - first - second}};
        if (op < 2) {
            for (uint64_t i = 0; i < len; i++)
                buf[at + i] = model[at + i] = (uint8_t)rnd(256);
            assert_int_equal(node_writev(n, iov, 3, at, op ? NODE_FUA : 0), 0);
        } else if (op == 2) {
            memset(model + at, 0, len);
            assert_int_equal(node_zero(n, at, len, rnd(2) ? NODE_MAY_UNMAP : 0), 0);
        } else {
            memset(buf + at, 0xee, len);
            assert_int_equal(node_readv(n, iov, 3, at), 0);
            assert_memory_equal(buf + at, model + at, len);
            assert_int_equal(node_flush(n), 0);
        }
    }
    /* Byte x of the array is where the arithmetic of the books puts it. */
    assert_int_equal(node_flush(n), 0);
    for (uint64_t x = 0; x < size; x += 997) {
        uint8_t b;
        peek((unsigned)(x / 4096 % 3), &b, 1, x / 4096 / 3 * 4096 + x % 4096);
        assert_int_equal(b, model[x]);
    }
    node_close(n);
    refuses(0, 5, ERR_STATE, "needs all of them");
    refuses(1, 7, ERR_FORMAT, "RAID 0");
    drop_files();
}

/* ---- RAID 1, step by step ---- */

static void drops_and_rebuilds(void **state)
{
    static uint8_t b[DATA], c[DATA];
    make_array(1, 2);
    struct node *n = must_open(1, 3, false);
    assert_int_equal(node_size(n), DATA);
    memset(b, 1, sizeof b);
    assert_int_equal(node_write(n, b, 100000, 0, 0), 0);
    fail_member(1, FAULT_WRITE, 0);
    memset(b, 2, sizeof b);
    assert_int_equal(node_write(n, b, 50000, 20000, 0), 0); /* told, dropped, and goes on */
    assert_int_equal(raid_member_state(n, 1), RAID_STALE);
    assert_int_equal(node_read(n, c, 50000, 20000), 0);
    assert_memory_equal(c, b, 50000);
    assert_int_equal(node_flush(n), 0);
    unsigned hits = fault_hits(t.fault[1]);
    assert_int_equal(node_write(n, b, 512, 0, 0), 0);
    assert_int_equal(fault_hits(t.fault[1]), hits); /* it is left alone */
    node_close(n);

    refuses(1, 2, ERR_STATE, "member 0"); /* the stale one does not serve as good */
    n = must_open(1, 1, false);           /* it is known that the other one lacks something */
    node_close(n);
    n = must_open(1, 3, false);
    raid_wait(n);
    assert_int_equal(raid_member_state(n, 1), RAID_IN_SYNC);
    node_close(n);
    peek(0, b, DATA, 0);
    peek(1, c, DATA, 0);
    assert_memory_equal(b, c, DATA);

    refuses(1, 2, ERR_STATE, "member 0"); /* it may have been written since */
    n = must_open(1, 2, true);            /* the user says that it was not */
    assert_int_equal(node_read(n, c, DATA, 0), 0);
    assert_memory_equal(b, c, DATA);
    node_close(n);
    drop_files();
}

static void the_last_one_stays(void **state)
{
    uint8_t b[4096] = {7};
    make_array(1, 2);
    struct node *n = must_open(1, 3, false);
    assert_int_equal(node_write(n, b, sizeof b, 0, 0), 0);
    fail_member(0, FAULT_READ, 0);
    assert_int_equal(node_read(n, b, sizeof b, 0), 0);
    assert_int_equal(b[0], 7);
    assert_int_equal(raid_member_state(n, 0), RAID_STALE);
    fail_member(1, FAULT_READ | FAULT_WRITE | FAULT_FLUSH, 0);
    assert_int_equal(node_read(n, b, sizeof b, 0), -EIO);
    assert_int_equal(node_write(n, b, sizeof b, 0, 0), -EIO);
    assert_int_equal(node_flush(n), -EIO);
    assert_int_equal(raid_member_state(n, 1), RAID_IN_SYNC);
    fault_clear(t.fault[1]);
    assert_int_equal(node_read(n, b, sizeof b, 0), 0);
    node_close(n);
    drop_files();
}

/* A write that fails everywhere leaves each byte old or new, and it stays so. */
static void fails_everywhere(void **state)
{
    uint8_t b[REGION], c[REGION];
    make_array(1, 2);
    struct node *n = must_open(1, 3, false);
    memset(b, 1, sizeof b);
    assert_int_equal(node_write(n, b, sizeof b, 0, 0), 0);
    const struct fault_rule half = {.ops = FAULT_WRITE, .kind = FAULT_SHORT, .to = DATA},
                            none = {
                                .ops = FAULT_WRITE, .kind = FAULT_ERROR, .to = DATA, .times = 1};
    assert_int_equal(fault_add(t.fault[0], &none), 0);
    assert_int_equal(fault_add(t.fault[1], &half), 0);
    memset(b, 2, sizeof b);
    assert_int_equal(node_write(n, b, sizeof b, 0, 0), -EIO);
    assert_int_equal(node_read(n, b, sizeof b, 0), 0);
    raid_wait(n);
    fault_clear(t.fault[1]);
    raid_wait(n);
    if (raid_member_state(n, 1) == RAID_IN_SYNC)
        fail_member(0, FAULT_READ, 0);
    assert_int_equal(node_read(n, c, sizeof c, 0), 0);
    assert_memory_equal(b, c, sizeof b);
    node_close(n);
    drop_files();
}

static void a_new_member(void **state)
{
    static uint8_t b[DATA], c[DATA];
    make_array(1, 3);
    struct node *n = must_open(1, 7, false);
    memset(b, 5, sizeof b);
    assert_int_equal(node_write(n, b, DATA / 2, 0, 0), 0);
    node_close(n);
    assert_int_equal(ftruncate(t.fd[1], 0), 0);
    assert_int_equal(ftruncate(t.fd[1], MEMBER), 0); /* an empty image in its place */
    refuses(1, 7, ERR_STATE, "degraded");            /* it was in sync: who says that it is lost? */
    n = must_open(1, 7, true);
    assert_int_equal(raid_member_state(n, 0), RAID_IN_SYNC);
    raid_wait(n);
    assert_int_equal(raid_member_state(n, 1), RAID_IN_SYNC);
    node_close(n);
    peek(1, c, DATA, 0);
    assert_memory_equal(c, b, DATA / 2);
    n = must_open(1, 7, false);
    node_close(n);

    assert_int_equal(pwrite(t.fd[2], b, RAID_META, DATA), RAID_META); /* somebody's data */
    refuses(1, 7, ERR_FORMAT, "not a member of this array");
    drop_files();
}

static void used_apart(void **state)
{
    uint8_t b[512] = {1};
    make_array(1, 2);
    node_close(must_open(1, 3, false));
    for (unsigned i = 0; i < 2; i++) {
        struct node *n = must_open(1, 1u << i, true);
        assert_int_equal(node_write(n, b, sizeof b, 0, 0), 0);
        node_close(n);
    }
    refuses(1, 3, ERR_FORMAT, "without each other");
    drop_files();
}

static void strangers(void **state)
{
    static uint8_t b[MEMBER];
    make_array(1, 2);
    int old = t.fd[1];
    node_close(must_open(1, 3, false));
    peek(0, b, MEMBER, 0);
    int first = t.fd[0];
    make_array(1, 2); /* another one */
    close(t.fd[1]);
    t.fd[1] = old;
    refuses(1, 3, ERR_FORMAT, "another array");
    close(t.fd[0]);
    t.fd[0] = dup(first);
    node_close(must_open(1, 3, false));
    assert_int_equal(pwrite(old, b, MEMBER, 0), MEMBER);
    refuses(1, 3, ERR_FORMAT, "same member");
    assert_int_equal(ftruncate(old, MEMBER / 2), 0);
    refuses(1, 3, ERR_FORMAT, "not a member");
    drop_files();
    close(first);
}

/* Superblocks with random bytes changed: refused, or taken for what they say; never worse. */
static void hostile(void **state)
{
    static uint8_t good[2][RAID_META];
    make_array(1, 2);
    node_close(must_open(1, 3, false));
    for (unsigned i = 0; i < 2; i++)
        peek(i, good[i], RAID_META, DATA);
    for (unsigned step = 0; step < 300; step++) {
        struct error e = {0};
        struct node *n = NULL;
        for (unsigned i = 0; i < 2; i++) {
            uint8_t b[RAID_META];
            memcpy(b, good[i], sizeof b);
            for (unsigned k = rnd(4); k > 0; k--)
                b[rnd(2) * 4096 + rnd(512)] = (uint8_t)rnd(256);
            assert_int_equal(pwrite(t.fd[i], b, sizeof b, DATA), sizeof b);
        }
        if (!open_raid(1, 3, rnd(2), &n, &e))
            node_close(n);
    }
    drop_files();
}

/* ---- RAID 1 against a model ---- */

/* Each sector holds a number in all its words; what it may hold, oldest first. Up to `sure` the
 * rest is durable or replaced. */
static struct {
    uint32_t may[HISTORY];
    unsigned n, last_good; /* position of the last one that was acknowledged */
} model[SECTORS];

static void model_write(uint64_t first, uint64_t count, uint32_t value, bool good, bool durable)
{
    for (uint64_t s = first; s < first + count; s++) {
        if (durable && good)
            model[s].n = 0;
        assert_true(model[s].n < HISTORY);
        if (good)
            model[s].last_good = model[s].n;
        model[s].may[model[s].n++] = value;
    }
}

static void model_flush(void)
{
    for (unsigned s = 0; s < SECTORS; s++) {
        unsigned skip = model[s].last_good;
        model[s].n -= skip;
        memmove(model[s].may, model[s].may + skip, model[s].n * sizeof model[s].may[0]);
        model[s].last_good = 0;
    }
}

static void fill(uint32_t *buf, uint64_t len, uint32_t value)
{
    for (uint64_t i = 0; i < len / 4; i++)
        buf[i] = value;
}

/* All that is acknowledged is seen; `settle`: what is seen is what there is from now on. */
static void check_all(struct node *n, bool after_crash)
{
    static uint32_t buf[DATA / 4];
    assert_int_equal(node_read(n, buf, DATA, 0), 0);
    for (unsigned s = 0; s < SECTORS; s++) {
        const uint32_t *b = buf + s * SECTOR / 4;
        bool found = false;
        for (unsigned i = 1; i < SECTOR / 4; i++)
            assert_int_equal(b[i], b[0]);
        for (unsigned k = after_crash ? 0 : model[s].last_good; k < model[s].n; k++)
            found |= model[s].may[k] == b[0];
        if (!found)
            fail_msg("sector %u holds %u, of %u values the last is %u", s, b[0], model[s].n,
                     model[s].may[model[s].n - 1]);
        model[s].may[0] = b[0];
        if (after_crash) {
            model[s].n = 1;
            model[s].last_good = 0;
        }
    }
}

static bool one_op(struct node *n, uint32_t value)
{
    static uint32_t buf[DATA / 4];
    uint64_t first = rnd(SECTORS), count = 1 + rnd(rnd(4) ? 16 : 100);
    count = min_u64(count, SECTORS - first);
    unsigned op = rnd(10);
    for (uint64_t s = first; s < first + count; s++)
        if (model[s].n >= HISTORY - 1)
            op = 9;
    if (op < 6) {
        bool fua = rnd(8) == 0;
        fill(buf, count * SECTOR, value);
        int rc = node_write(n, buf, count * SECTOR, first * SECTOR, fua ? NODE_FUA : 0);
        model_write(first, count, value, !rc, fua);
        return !rc;
    }
    if (op == 6) {
        int rc = rnd(2) ? node_zero(n, first * SECTOR, count * SECTOR, NODE_MAY_UNMAP)
                        : node_discard(n, first * SECTOR, count * SECTOR);
        model_write(first, count, 0, !rc, false);
        return !rc;
    }
    if (op < 9) {
        if (node_read(n, buf, count * SECTOR, first * SECTOR))
            return false;
        for (uint64_t s = first; s < first + count; s++) {
            bool found = false;
            for (unsigned k = model[s].last_good; k < model[s].n; k++)
                found |= model[s].may[k] == buf[(s - first) * SECTOR / 4];
            assert_true(found);
        }
        return true;
    }
    int rc = node_flush(n);
    if (!rc)
        model_flush();
    return !rc;
}

static void same_everywhere(unsigned mask)
{
    static uint8_t a[DATA], b[DATA];
    unsigned first = (unsigned)__builtin_ctz(mask);
    peek(first, a, DATA, 0);
    for (unsigned i = first + 1; i < t.n; i++)
        if (mask >> i & 1) {
            peek(i, b, DATA, 0);
            assert_memory_equal(a, b, DATA);
        }
}

static void after_a_crash(void)
{
    struct node *n = must_open(1, (1u << t.n) - 1, false);
    check_all(n, true);
    if (rnd(4) == 0) { /* writes and then a crash while it is being rebuilt */
        for (unsigned i = 0; i < 3; i++)
            assert_true(one_op(n, 1 + rnd(1u << 30)));
        for (unsigned i = 0; i < t.n; i++)
            powercut_cut(t.cut[i], rnd(1u << 30));
        node_close(n);
        n = must_open(1, (1u << t.n) - 1, false);
        check_all(n, true);
    }
    for (unsigned i = 0; i < 10; i++)
        assert_true(one_op(n, 1 + rnd(1u << 30)));
    raid_wait(n);
    for (unsigned i = 0; i < t.n; i++)
        assert_int_equal(raid_member_state(n, i), RAID_IN_SYNC);
    assert_int_equal(node_flush(n), 0);
    model_flush();
    check_all(n, false);
    node_close(n);
    same_everywhere((1u << t.n) - 1);
}

/* Members fail, or lose their power one after the other; then it comes back. */
static void crashes(void **state)
{
    unsigned rounds = getenv("SOSIA_TEST_LONG") ? 2000 : 150;
    const char *seed = getenv("SOSIA_TEST_SEED");
    rng = seed ? strtoull(seed, NULL, 0) | 1 : 0x2545f4914f6cdd1d;
    make_array(1, 2 + rnd(2));
    for (unsigned s = 0; s < SECTORS; s++) {
        model[s].n = 1;
        model[s].may[0] = 0;
    }
    for (unsigned round = 0; round < rounds; round++) {
        struct node *n = must_open(1, (1u << t.n) - 1, false);
        bool graceful = rnd(5) == 0;
        for (unsigned i = 0; i < t.n && !graceful; i++)
            if (rnd(3))
                powercut_arm(t.cut[i], rnd(150), rnd(1u << 30));
        if (rnd(3) == 0)
            fail_member(rnd(t.n), 1u << rnd(4), rnd(40));
        for (unsigned i = rnd(60); i > 0; i--)
            if (!one_op(n, 1 + rnd(1u << 30)))
                break;
        for (unsigned i = 0; i < t.n && !graceful; i++)
            powercut_cut(t.cut[i], rnd(1u << 30));
        node_close(n);
        after_a_crash();
    }
    drop_files();
}

/* ---- a rebuild while others write ---- */

static struct {
    struct node *n;
    _Atomic bool end;
} busy;

static void *keep_writing(void *arg)
{
    unsigned half = (unsigned)(uintptr_t)arg;
    uint8_t b[3000];
    for (unsigned i = 0; !busy.end; i++) {
        unsigned at = half * (DATA / 2) + i * 7919 % (DATA / 2 - sizeof b);
        memset(b, (int)(i % 255 + 1), sizeof b);
        if (node_write(busy.n, b, 1 + i % sizeof b, at, 0) || (i % 50 == 0 && node_flush(busy.n)))
            return busy.n;
    }
    return NULL;
}

static void rebuilds_while_used(void **state)
{
    make_array(1, 2);
    for (unsigned round = 0; round < 5; round++) {
        pthread_t thread[2];
        busy.end = false;
        busy.n = must_open(1, 3, false);
        for (uintptr_t i = 0; i < 2; i++)
            assert_int_equal(pthread_create(&thread[i], NULL, keep_writing, (void *)i), 0);
        usleep(20000);
        raid_wait(busy.n);
        assert_int_equal(raid_member_state(busy.n, 1), RAID_IN_SYNC);
        if (round % 2 == 0) /* it is to be rebuilt the next time */
            fail_member(1, FAULT_WRITE | FAULT_ZERO, 3);
        usleep(20000);
        busy.end = true;
        for (unsigned i = 0; i < 2; i++) {
            void *failed = NULL;
            pthread_join(thread[i], &failed);
            assert_null(failed);
        }
        node_close(busy.n);
        if (round % 2)
            same_everywhere(3);
    }
    drop_files();
}

/* ---- as a device sees it ---- */

static struct {
    pthread_mutex_t lock;
    pthread_cond_t done;
    int result; /* 1: not yet */
} device = {.lock = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static void on_done(struct blk_req *req, int result)
{
    device.result = result;
    pthread_cond_signal(&device.done);
}

static int request(struct blk *b, enum blk_op op, void *buf, uint64_t offset, uint64_t len)
{
    struct iovec iov = {buf, len};
    struct blk_req req = {
        .op = op, .offset = offset, .len = len, .iov = &iov, .niov = 1, .done = on_done};
    pthread_mutex_lock(&device.lock);
    device.result = 1;
    blk_submit(b, &req);
    while (device.result == 1)
        pthread_cond_wait(&device.done, &device.lock);
    pthread_mutex_unlock(&device.lock);
    return device.result;
}

/* The fast way, past the array: a read that fails comes back to it. */
static void fast_reads_fail_over(void **state)
{
    static uint8_t b[20000], c[20000];
    struct raid_member m[2] = {{0}};
    const struct raid_options o = {.level = 1};
    struct node_place p;
    struct error e = {0};
    struct node *n = NULL;
    struct blk *disk = NULL;
    make_array(1, 2);
    for (unsigned i = 0; i < 2; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", t.fd[i]);
        assert_int_equal(file_open(path, &(struct file_options){0}, &m[i].node, &e), 0);
        m[i].name = i ? "second" : "first";
        m[i].format = "raw";
    }
    assert_int_equal(raid_open(m, 2, &o, &n, &e), 0);
    raid_wait(n);
    assert_int_equal(
        disk_open(n, &(struct disk_options){.io = DISK_IO_AUTO}, &device.lock, &disk, &e), 0);
    memset(b, 3, sizeof b);
    assert_int_equal(request(disk, BLK_WRITE, b, 512, sizeof b - 32), 0);
    assert_true(node_resolve(n, 512, 512, false, &p) && p.node == m[0].node && p.offset == 512);
    assert_int_equal(request(disk, BLK_READ, c, 512, sizeof b - 32), 0);
    assert_memory_equal(b, c, sizeof b - 32);
    /* The first member's file cannot be read any more. */
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", t.fd[0]);
    int write_only = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(dup2(write_only, m[0].node->fd), m[0].node->fd);
    memset(c, 0, sizeof c);
    assert_int_equal(request(disk, BLK_READ, c, 512, sizeof b - 32), 0);
    assert_memory_equal(b, c, sizeof b - 32);
    assert_int_equal(raid_member_state(n, 0), RAID_STALE);
    assert_true(node_resolve(n, 512, 512, false, &p) && p.node == m[1].node);
    assert_int_equal(request(disk, BLK_DISCARD, NULL, 512, 4096), 0);
    assert_int_equal(request(disk, BLK_FLUSH, NULL, 0, 0), 0);
    blk_close(disk);
    close(write_only);
    drop_files();
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(striped),
        cmocka_unit_test(drops_and_rebuilds),
        cmocka_unit_test(the_last_one_stays),
        cmocka_unit_test(fails_everywhere),
        cmocka_unit_test(a_new_member),
        cmocka_unit_test(used_apart),
        cmocka_unit_test(strangers),
        cmocka_unit_test(hostile),
        cmocka_unit_test(crashes),
        cmocka_unit_test(rebuilds_while_used),
        cmocka_unit_test(fast_reads_fail_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
