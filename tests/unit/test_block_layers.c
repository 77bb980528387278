/*
 * test_block_layers.c - the layers of block/layer/, over files and a thin image in memory.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "block/io/file.h"
#include "block/iov.h"
#include "block/layer/copy_on_read.h"
#include "block/layer/fault.h"
#include "block/layer/filter.h"
#include "block/layer/powercut.h"
#include "block/layer/throttle.h"

#define FILE_SIZE (1u << 20)

static int file_fd = -1; /* of the file below, for a look past the layers */

static struct node *open_file(uint64_t size)
{
    char path[64];
    struct error e = {0};
    struct node *n = NULL;
    file_fd = memfd_create("layers", MFD_CLOEXEC);
    assert_true(file_fd >= 0);
    assert_int_equal(ftruncate(file_fd, (off_t)size), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file_fd);
    if (file_open(path, &(struct file_options){.readonly = false}, &n, &e))
        fail_msg("%s", e.msg);
    return n;
}

static void close_all(struct node *n)
{
    node_close(n);
    close(file_fd);
    file_fd = -1;
}

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static bool all(const uint8_t *p, size_t len, uint8_t want)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] != want)
            return false;
    return true;
}

/* ---- throttle ---- */

static struct node *open_throttle(uint64_t iops, uint64_t bytes)
{
    struct node *n = NULL;
    struct throttle_limits l = {iops, bytes};
    assert_int_equal(throttle_open(open_file(FILE_SIZE), &l, &n, NULL), 0);
    return n;
}

static void throttle_iops(void **state)
{
    uint8_t b[512] = {1};
    struct node *n = open_throttle(200, 0);
    double t = seconds();
    for (unsigned i = 0; i < 60; i++) /* 20 of them at once: the burst */
        assert_int_equal(i % 2 ? node_read(n, b, 512, 0) : node_write(n, b, 512, 512, 0), 0);
    t = seconds() - t;
    assert_true(t > 0.18 && t < 20);
    t = seconds();
    assert_int_equal(node_flush(n), 0); /* costs nothing */
    assert_true(seconds() - t < 3);
    close_all(n);
}

static void throttle_bytes(void **state)
{
    static uint8_t b[64 * 1024];
    struct node *n = open_throttle(0, 1 << 20);
    double t = seconds();
    for (unsigned i = 0; i < 5; i++) /* 320 KiB, a tenth of a second of them at once */
        assert_int_equal(node_write(n, b, sizeof b, 0, 0), 0);
    t = seconds() - t;
    assert_true(t > 0.13 && t < 20);
    throttle_set(n, &(struct throttle_limits){0, 0});
    t = seconds();
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(node_write(n, b, sizeof b, 0, 0), 0);
    assert_true(seconds() - t < 20);
    close_all(n);
}

static void throttle_fast_way(void **state)
{
    struct node_place p;
    struct node *n = open_throttle(20, 0);
    assert_true(node_resolve(n, 4096, 512, true, &p));
    assert_true(p.node == filter_of(n)->child && p.offset == 4096 && p.len == 512);
    unsigned k = 1;
    for (; k < 100 && node_resolve(n, 0, 512, false, &p); k++)
        continue;
    assert_in_range(k, 2, 10); /* then it has to wait */
    close_all(n);
}

static void *slow_read(void *node)
{
    uint8_t b[512];
    for (unsigned i = 0; i < 10; i++)
        if (node_read(node, b, 512, 0))
            return node;
    return NULL;
}

/* Who waits for all that is in flight does not wait for the sake of a limit. */
static void throttle_hurry(void **state)
{
    pthread_t thread;
    void *failed;
    struct node *n = open_throttle(1, 0);
    double t = seconds();
    assert_int_equal(pthread_create(&thread, NULL, slow_read, n), 0);
    usleep(50000);
    node_hurry(n, true);
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    node_hurry(n, false);
    assert_true(seconds() - t < 6);
    close_all(n);
}

/* ---- copy-on-read over a thin image of two layers ---- */

#define CLUSTER  (64u * 1024)
#define CLUSTERS 16u

struct thin {
    struct node node;
    uint8_t data[CLUSTERS][CLUSTER];
    bool have[CLUSTERS];
    unsigned reads, writes;
    int fail;
};

static struct thin *thin_of(struct node *n)
{
    return CONTAINER_OF(n, struct thin, node);
}

static int thin_transfer(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                         bool write)
{
    struct thin *t = thin_of(n);
    for (int i = 0; i < niov; i++)
        for (size_t k = 0; k < iov[i].iov_len; k++, offset++) {
            uint64_t c = offset / CLUSTER;
            uint8_t *p = (uint8_t *)iov[i].iov_base + k, *q = &t->data[c][offset % CLUSTER];
            if (write && !t->have[c]) {
                if (n->backing)
                    memcpy(t->data[c], thin_of(n->backing)->data[c], CLUSTER);
                t->have[c] = true;
            }
            if (write)
                *q = *p;
            else
                *p = t->have[c]   ? *q
                     : n->backing ? thin_of(n->backing)->data[c][offset % CLUSTER]
                                  : 0;
        }
    return 0;
}

static int thin_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    thin_of(n)->reads++;
    return thin_transfer(n, iov, niov, offset, false);
}

static int thin_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                      unsigned flags)
{
    thin_of(n)->writes++;
    return thin_of(n)->fail ? thin_of(n)->fail : thin_transfer(n, iov, niov, offset, true);
}

static int thin_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    *out = (struct node_extent){.kind = thin_of(n)->have[offset / CLUSTER] ? NODE_DATA : NODE_HOLE,
                                .len = min_u64(len, CLUSTER - offset % CLUSTER)};
    return 0;
}

static bool thin_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                         struct node_place *out)
{
    struct node *at = thin_of(n)->have[offset / CLUSTER] ? n : n->backing;
    *out = (struct node_place){at, offset, min_u64(len, CLUSTER - offset % CLUSTER)};
    return at == n || !write;
}

static void thin_close(struct node *n)
{
    free(thin_of(n));
}

static const struct node_ops thin_ops = {.name = "thin",
                                         .read = thin_read,
                                         .write = thin_write,
                                         .map = thin_map,
                                         .resolve = thin_resolve,
                                         .close = thin_close};

static struct thin *open_thin(struct node *backing)
{
    struct thin *t = calloc(1, sizeof *t);
    t->node = (struct node){.ops = &thin_ops,
                            .size = sizeof t->data - 1000,
                            .granularity = CLUSTER,
                            .backing = backing};
    return t;
}

static void copies_what_is_read(void **state)
{
    uint8_t b[4096];
    struct node_place p;
    struct error e = {0};
    struct node *n = NULL;
    struct thin *base = open_thin(NULL), *top = open_thin(&base->node);
    memset(base->data[3], 3, CLUSTER);
    memset(base->data[4], 4, CLUSTER);
    memset(base->data[15], 15, CLUSTER);
    base->have[3] = base->have[4] = base->have[15] = true;
    assert_int_equal(copy_on_read_open(&top->node, &n, &e), 0);

    assert_int_equal(node_read(n, b, 4096, 7 * CLUSTER), 0); /* nowhere: nothing to copy */
    assert_int_equal(top->writes, 0);
    assert_false(node_resolve(n, 3 * CLUSTER, 512, false, &p));
    assert_int_equal(node_read(n, b, 4096, 4 * CLUSTER - 2048), 0);
    assert_true(all(b, 2048, 3) && all(b + 2048, 2048, 4));
    assert_true(top->have[3] && top->have[4] && !top->have[2] && !top->have[5]);
    assert_memory_equal(top->data[3], base->data[3], CLUSTER);
    assert_memory_equal(top->data[4], base->data[4], CLUSTER);
    unsigned writes = top->writes;
    assert_int_equal(node_read(n, b, 4096, 4 * CLUSTER), 0);
    assert_int_equal(top->writes, writes); /* once */
    assert_int_equal(node_read(n, b, 3096, 16 * CLUSTER - 4096), 0);
    assert_true(all(b, 3096, 15) && top->have[15]);

    memset(b, 9, sizeof b);
    assert_int_equal(node_write(n, b, 4096, 4 * CLUSTER, 0), 0);
    assert_int_equal(node_read(n, b, 4096, 4 * CLUSTER + 2048), 0);
    assert_true(all(b, 2048, 9) && all(b + 2048, 2048, 4));
    node_close(n);
    node_close(&base->node);
}

static void copying_may_fail(void **state)
{
    uint8_t b[512];
    struct error e = {0};
    struct node *n = NULL;
    struct thin *base = open_thin(NULL), *top = open_thin(&base->node);
    assert_int_equal(copy_on_read_open(&base->node, &n, &e), ERR_STATE);
    top->node.readonly = true;
    assert_int_equal(copy_on_read_open(&top->node, &n, &e), ERR_STATE);
    top->node.readonly = false;
    assert_int_equal(copy_on_read_open(&top->node, &n, &e), 0);
    memset(base->data[1], 5, CLUSTER);
    base->have[1] = true;
    top->fail = -ENOSPC;
    assert_int_equal(node_read(n, b, 512, CLUSTER), 0);
    assert_true(all(b, 512, 5));
    assert_false(top->have[1]);
    assert_true(top->writes > 0);
    node_close(n);
    node_close(&base->node);
}

/* ---- faults ---- */

static void faults_by_rule(void **state)
{
    uint8_t b[1024], r[1024];
    struct node *n = NULL;
    struct node_place p;
    assert_int_equal(fault_open(open_file(FILE_SIZE), &n, NULL), 0);
    assert_false(node_resolve(n, 0, 512, false, &p));
    assert_int_equal(fault_add(n, &(struct fault_rule){.ops = FAULT_WRITE | FAULT_ZERO,
                                                       .from = 4096,
                                                       .to = 8192,
                                                       .skip = 1,
                                                       .times = 2,
                                                       .err = ENOSPC}),
                     0);
    memset(b, 1, sizeof b);
    assert_int_equal(node_write(n, b, 1024, 4096 - 1024, 0), 0); /* beside it */
    assert_int_equal(node_write(n, b, 1024, 8192, 0), 0);
    assert_int_equal(node_write(n, b, 1024, 8191, 0), 0); /* the one that goes well */
    memset(b, 2, sizeof b);
    assert_int_equal(node_read(n, r, 1024, 4096), 0);
    assert_int_equal(node_write(n, b, 1024, 4095, 0), -ENOSPC);
    assert_int_equal(node_zero(n, 0, FILE_SIZE, 0), -ENOSPC);
    assert_int_equal(fault_hits(n), 2);
    assert_int_equal(node_read(n, r, 1, 4095), 0);
    assert_int_equal(r[0], 1); /* nothing was done */
    assert_int_equal(node_write(n, b, 1024, 4095, 0), 0);

    fault_clear(n);
    assert_int_equal(fault_add(n, &(struct fault_rule){.ops = FAULT_WRITE, .kind = FAULT_SHORT}),
                     0);
    memset(b, 7, sizeof b);
    assert_int_equal(node_write(n, b, 1024, 0, 0), -EIO);
    fault_clear(n);
    assert_int_equal(node_read(n, r, 1024, 0), 0);
    assert_true(all(r, 512, 7) && all(r + 512, 512, 0));

    assert_int_equal(fault_add(n, &(struct fault_rule){.ops = FAULT_FLUSH, .err = EDQUOT}), 0);
    assert_int_equal(node_flush(n), -EDQUOT);
    assert_int_equal(node_discard(n, 0, 512), 0);
    assert_int_equal(
        fault_add(n,
                  &(struct fault_rule){.ops = FAULT_READ, .kind = FAULT_LATENCY, .ns = 30000000}),
        0);
    double t = seconds();
    assert_int_equal(node_read(n, r, 512, 0), 0);
    assert_true(seconds() - t > 0.025);
    for (unsigned i = 2; i < FAULT_RULES; i++)
        assert_int_equal(fault_add(n, &(struct fault_rule){0}), 0);
    assert_int_equal(fault_add(n, &(struct fault_rule){0}), ERR_LIMIT);
    close_all(n);
}

/* ---- power cuts ---- */

static struct node *open_powercut(void)
{
    struct node *n = NULL;
    assert_int_equal(powercut_open(open_file(FILE_SIZE), &n, NULL), 0);
    return n;
}

static void flushed_is_kept(void **state)
{
    uint8_t b[4096], r[4096];
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct node *n = open_powercut();
        memset(b, 1, sizeof b);
        assert_int_equal(node_write(n, b, 4096, 100, 0), 0);
        memset(b, 2, sizeof b);
        assert_int_equal(node_write(n, b, 4096, 3000, 0), 0);
        assert_int_equal(node_read(n, r, 4096, 100), 0); /* it sees what it wrote */
        assert_true(all(r, 2900, 1) && all(r + 2900, 1196, 2));
        assert_int_equal(pread(file_fd, r, 4096, 100), 4096); /* nobody else does */
        assert_true(all(r, 4096, 0));
        assert_int_equal(node_flush(n), 0);
        memset(b, 3, sizeof b);
        assert_int_equal(node_write(n, b, 1024, 16384, 0), 0);
        assert_int_equal(node_write(n, b, 1024, 32768, NODE_FUA), 0);
        assert_int_equal(node_zero(n, 65536, 1024, NODE_FUA), 0);
        powercut_cut(n, seed);
        assert_true(powercut_is_cut(n));
        assert_int_equal(node_read(n, r, 1, 0), -EIO);
        assert_int_equal(node_write(n, r, 1, 0, 0), -EIO);
        assert_int_equal(node_flush(n), -EIO);
        assert_int_equal(pread(file_fd, r, 4096, 100), 4096);
        assert_true(all(r, 2900, 1) && all(r + 2900, 1196, 2));
        assert_int_equal(pread(file_fd, r, 1024, 32768), 1024);
        assert_true(all(r, 1024, 3));
        close_all(n);
    }
}

/* Of two writes to the same sectors each sector has the one, the other, or neither. All of it
 * occurs, also a mixture. */
static void unflushed_is_anything(void **state)
{
    uint8_t b[8192], r[8192];
    unsigned kept[3] = {0}, torn = 0, whole = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct node *n = open_powercut();
        for (unsigned v = 1; v <= 2; v++) {
            memset(b, (int)v, sizeof b);
            assert_int_equal(node_write(n, b, 8192, 4096, 0), 0);
        }
        powercut_cut(n, seed);
        assert_int_equal(pread(file_fd, r, 8192, 4096), 8192);
        unsigned here[3] = {0};
        for (unsigned k = 0; k < 16; k++) {
            assert_true(r[k * 512] <= 2 && all(r + k * 512, 512, r[k * 512]));
            here[r[k * 512]]++;
        }
        for (unsigned v = 0; v < 3; v++)
            kept[v] += here[v];
        torn += here[1] + here[2] > 0 && here[0] > 0;
        whole += here[2] == 16;
        close_all(n);
    }
    assert_true(kept[0] > 50 && kept[1] > 50 && kept[2] > 50 && torn > 10 && whole > 2);
}

static void the_power_fails_later(void **state)
{
    uint8_t b[512];
    for (unsigned at = 0; at < 6; at++) {
        struct node *n = open_powercut();
        unsigned ok = 0;
        powercut_arm(n, at, 5);
        for (unsigned i = 0; i < 6; i++) {
            memset(b, (int)i + 1, sizeof b);
            int rc = i == 3   ? node_flush(n)
                     : i == 4 ? node_discard(n, 0, 512)
                              : node_write(n, b, 512, i * 512, 0);
            assert_int_equal(rc, i < at ? 0 : -EIO);
            ok += rc == 0;
        }
        assert_int_equal(ok, at);
        assert_int_equal(powercut_is_cut(n), at < 6);
        close_all(n);
    }
}

static void grows_and_shrinks(void **state)
{
    uint8_t b[1000], r[2000];
    struct node *n = open_powercut();
    memset(b, 6, sizeof b);
    assert_int_equal(node_resize(n, 700, NULL), 0);
    assert_int_equal(n->size, 700);
    assert_int_equal(node_write(n, b, 1000, 1000, 0), 0);
    assert_int_equal(n->size, 2000);
    assert_int_equal(node_flush(n), 0);
    assert_int_equal(lseek(file_fd, 0, SEEK_END), 2000);
    assert_int_equal(node_write(n, b, 500, 1900, 0), 0);
    node_close(n); /* no power cut: nothing is lost */
    assert_int_equal(pread(file_fd, r, 2000, 400), 2000);
    assert_true(all(r, 600, 0) && all(r + 600, 1400, 6));
    close(file_fd);
}

int main(void)
{
    log_set_level(LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(throttle_iops),         cmocka_unit_test(throttle_bytes),
        cmocka_unit_test(throttle_fast_way),     cmocka_unit_test(throttle_hurry),
        cmocka_unit_test(copies_what_is_read),   cmocka_unit_test(copying_may_fail),
        cmocka_unit_test(faults_by_rule),        cmocka_unit_test(flushed_is_kept),
        cmocka_unit_test(unflushed_is_anything), cmocka_unit_test(the_power_fails_later),
        cmocka_unit_test(grows_and_shrinks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
