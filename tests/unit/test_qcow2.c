/*
 * test_qcow2.c - the format qcow2 over a file in memory that counts what is done to it: places,
 * copies, the order and number of flushes, failures, threads, features, damage.
 * What the images look like to QEMU is tested in tests/func/qcow2.py.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/endian.h"
#include "block/format/formats.h"
#include "block/format/qcow2.h"
#include "block/layer/fault.h"

#define ROOM (40 * MIB)

/* A file in memory; it outlives the nodes over it. */
struct mem {
    struct node node;
    uint8_t *p;
    unsigned reads, writes, flushes, zeroes; /* calls */
    uint64_t read_bytes, written_bytes;
    pthread_mutex_t lock;
};

static struct mem image, base;

static struct mem *mem_of(struct node *n)
{
    return CONTAINER_OF(n, struct mem, node);
}

static int mem_read(struct node *n, const struct iovec *iov, int niov, uint64_t at)
{
    struct mem *m = mem_of(n);
    pthread_mutex_lock(&m->lock);
    m->reads++;
    for (int i = 0; i < niov; at += iov[i++].iov_len) {
        m->read_bytes += iov[i].iov_len;
        for (size_t k = 0; k < iov[i].iov_len; k++)
            ((uint8_t *)iov[i].iov_base)[k] = at + k < ROOM ? m->p[at + k] : 0;
    }
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static int mem_write(struct node *n, const struct iovec *iov, int niov, uint64_t at, unsigned flags)
{
    struct mem *m = mem_of(n);
    int rc = 0;
    pthread_mutex_lock(&m->lock);
    m->writes++;
    for (int i = 0; i < niov && !rc; at += iov[i++].iov_len) {
        m->written_bytes += iov[i].iov_len;
        if (at + iov[i].iov_len > ROOM)
            rc = -ENOSPC;
        else
            memcpy(m->p + at, iov[i].iov_base, iov[i].iov_len);
    }
    if (!rc)
        __atomic_store_n(&n->size, max_u64(n->size, at), __ATOMIC_RELAXED);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static int mem_zero(struct node *n, uint64_t at, uint64_t len, unsigned flags)
{
    struct mem *m = mem_of(n);
    if (at + len > ROOM)
        return -ENOSPC;
    pthread_mutex_lock(&m->lock);
    m->zeroes++;
    memset(m->p + at, 0, len);
    n->size = max_u64(n->size, at + len);
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static int mem_flush(struct node *n)
{
    __atomic_add_fetch(&mem_of(n)->flushes, 1, __ATOMIC_RELAXED);
    return 0;
}

static bool mem_resolve(struct node *n, uint64_t at, uint64_t len, bool write,
                        struct node_place *out)
{
    *out = (struct node_place){n, at, len};
    return true;
}

static void mem_close(struct node *n)
{
}

static const struct node_ops mem_ops = {.name = "memory",
                                        .read = mem_read,
                                        .write = mem_write,
                                        .zero = mem_zero,
                                        .flush = mem_flush,
                                        .resolve = mem_resolve,
                                        .close = mem_close};

static void clear(struct mem *m)
{
    memset(m->p, 0, ROOM);
    m->node = (struct node){.ops = &mem_ops, .grows = true};
}

static void reset_counts(void)
{
    image.reads = image.writes = image.flushes = image.zeroes = 0;
    image.read_bytes = image.written_bytes = 0;
    base.reads = 0;
}

static int open_named(const struct format_opener *o, const char *from, const char *name,
                      const char *format, bool readonly, unsigned depth, struct node **out,
                      struct error *e)
{
    *out = &base.node;
    return 0;
}

static const struct format_opener opener = {.open = open_named};

static int try_open(struct node *file, bool readonly, struct node **n, struct error *e)
{
    struct format_open o = {.path = "image", .readonly = readonly, .opener = &opener};
    return format_qcow2.open(file, &o, n, e);
}

static struct node *open_image(void)
{
    struct node *n = NULL;
    struct error e = {0};
    if (try_open(&image.node, false, &n, &e))
        fail_msg("%s", e.msg);
    return n;
}

/* Returns the processor's nanoseconds. */
static int64_t create(uint64_t size, const char *backing, const char *cluster, const char *bits)
{
    const char *value[QCOW2_OPTIONS] = {
        [QCOW2_OPT_CLUSTER_SIZE] = cluster, [QCOW2_OPT_REFCOUNT_BITS] = bits};
    struct format_create c = {
        .size = size, .backing = backing, .backing_format = "raw", .value = value};
    struct error e = {0};
    struct timespec t0, t1;
    clear(&image);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t0);
    if (format_qcow2.create(&image.node, &c, &e))
        fail_msg("%s", e.msg);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t1);
    return (t1.tv_sec - t0.tv_sec) * 1000000000ll + t1.tv_nsec - t0.tv_nsec;
}

static void say(void *ctx, const char *line)
{
    print_message("# %s\n", line);
}

static void check_clean(void)
{
    struct format_open o = {.path = "image", .readonly = true, .check = true, .opener = &opener};
    struct format_check c = {.say = say};
    struct node *n = NULL;
    assert_int_equal(format_qcow2.open(&image.node, &o, &n, NULL), 0);
    assert_int_equal(format_qcow2.check(n, 0, &c, NULL), 0);
    assert_int_equal(c.errors, 0);
    assert_int_equal(c.leaks, 0);
    node_close(n);
}

static void fill(struct node *n, uint64_t at, size_t len, int byte)
{
    uint8_t *buf = malloc(len);
    memset(buf, byte, len);
    assert_int_equal(node_write(n, buf, len, at, 0), 0);
    free(buf);
}

static void expect(struct node *n, uint64_t at, size_t len, uint8_t byte)
{
    uint8_t *buf = malloc(len);
    assert_int_equal(node_read(n, buf, len, at), 0);
    for (size_t i = 0; i < len; i++)
        if (buf[i] != byte)
            fail_msg("byte %llu is %u, not %u", (unsigned long long)(at + i), buf[i], byte);
    free(buf);
}

static void base_of(uint64_t size, int byte)
{
    clear(&base);
    memset(base.p, byte, size);
    base.node.size = size;
    base.node.grows = false;
    base.node.readonly = true;
}

static void test_thin(void **state)
{
    base_of(MIB, 0);
    reset_counts();
    for (unsigned i = 0; i < 2; i++) {
        assert_true(create(1ull << 40, i ? "base" : NULL, NULL, NULL) < 10000000);
        assert_true(image.node.size < 300000);
        assert_true(image.written_bytes < 300000);
        check_clean();
    }
}

static void test_places(void **state)
{
    struct node_place at;
    create(8 * MIB, NULL, NULL, NULL);
    struct node *n = open_image();
    assert_int_equal(n->granularity, 65536);
    assert_true(node_resolve(n, 0, MIB, false, &at)); /* a hole is zeroes */
    assert_null(at.node);
    assert_int_equal(at.len, MIB);
    assert_false(node_resolve(n, 0, 512, true, &at));
    fill(n, 4 * MIB, 512, 1); /* makes the L2 table, which would come to lie in between */
    fill(n, 0, MIB, 1);
    fill(n, MIB, MIB, 2);
    assert_true(node_resolve(n, 512, 2 * MIB - 512, true, &at)); /* all of it lies together */
    assert_ptr_equal(at.node, &image.node);
    assert_int_equal(at.len, 2 * MIB - 512);
    assert_int_equal(image.p[at.offset + MIB - 513], 1);
    assert_int_equal(image.p[at.offset + MIB - 512], 2);
    assert_int_equal(node_zero(n, 65536, 65536, 0), 0);
    assert_true(node_resolve(n, 65536, MIB, false, &at));
    assert_null(at.node);
    assert_int_equal(at.len, 65536);
    assert_false(node_resolve(n, 65536, 512, true, &at));
    node_close(n);

    n = open_image(); /* nothing is cached yet, and resolve() does no I/O */
    reset_counts();
    assert_false(node_resolve(n, 0, 512, false, &at));
    assert_int_equal(image.reads, 0);
    expect(n, 0, 512, 1);
    assert_true(node_resolve(n, 0, 512, false, &at));
    node_close(n);
    check_clean();
}

static void test_packed_places(void **state)
{
    struct node_place at;
    struct node_extent x;
    uint8_t buf[65536] = {7};
    create(MIB, NULL, NULL, NULL);
    struct node *n = open_image();
    assert_int_equal(format_qcow2.write_compressed(n, buf, sizeof buf, 65536), 0);
    assert_false(node_resolve(n, 65536, 512, false, &at));
    assert_int_equal(node_map(n, 65536, MIB - 65536, &x), 0);
    assert_true(x.compressed && x.kind == NODE_DATA && x.len == 65536);
    expect(n, 65536, 1, 7);
    expect(n, 65537, 65535, 0);
    assert_int_equal(format_qcow2.write_compressed(n, buf, 512, 0), -EINVAL);
    node_close(n);
    check_clean();
}

/* Compressed clusters lie side by side, across the bounds of clusters. */
static void test_packing(void **state)
{
    uint8_t buf[65536];
    uint32_t x = 1;
    create(16 * MIB, NULL, NULL, NULL);
    struct node *n = open_image();
    fill(n, 15 * MIB, 512, 1);
    uint64_t before = image.node.size;
    for (unsigned i = 0; i < 100; i++) { /* 40000 bytes that cannot be compressed in each */
        memset(buf, 0, sizeof buf);
        for (unsigned k = 0; k < 40000; k++)
            buf[k] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
        assert_int_equal(format_qcow2.write_compressed(n, buf, sizeof buf, i * 65536), 0);
    }
    assert_true(image.node.size - before < 100 * 41000);
    node_close(n);
    check_clean();
    n = open_image();
    node_discard(n, 0, 50 * 65536); /* their clusters are free again, all but one */
    assert_int_equal(node_flush(n), 0);
    before = image.node.size;
    fill(n, 10 * MIB, 29 * 65536, 3);
    assert_int_equal(image.node.size, before);
    expect(n, 99 * 65536 + 40000, 25536, 0);
    node_close(n);
    check_clean();
}

static void test_unwritten(void **state)
{
    create(MIB, NULL, NULL, NULL);
    struct node *n = open_image();
    expect(n, 0, MIB, 0);
    reset_counts();
    node_close(n);
    assert_int_equal(image.flushes + image.writes, 0);
}

/* What a write covers is not copied; what it does not cover comes from the backing file. */
static void test_copies(void **state)
{
    base_of(4 * MIB, 3);
    create(4 * MIB, "base", NULL, NULL);
    struct node *n = open_image();
    reset_counts();
    fill(n, 65536, 3 * 65536, 1);
    assert_int_equal(base.reads, 0);
    fill(n, 10 * 65536 + 100, 65536, 1); /* a head and a tail */
    assert_int_equal(base.reads, 2);
    expect(n, 0, 65536, 3);
    expect(n, 65536, 3 * 65536, 1);
    expect(n, 4 * 65536, 6 * 65536 + 100, 3);
    expect(n, 10 * 65536 + 100, 65536, 1);
    expect(n, 11 * 65536 + 100, 65436, 3);
    reset_counts();
    assert_int_equal(node_zero(n, MIB, MIB, 0), 0);
    fill(n, MIB + 5000, 100, 4); /* around it are zeroes, not the backing file */
    assert_int_equal(base.reads, 0);
    expect(n, MIB, 5000, 0);
    expect(n, MIB + 5100, 60000, 0);
    node_close(n);
    check_clean();
}

/* A new cluster at the file's end is not filled with zeroes: it is a hole. */
static void test_fresh(void **state)
{
    create(64 * MIB, NULL, NULL, NULL);
    struct node *n = open_image();
    fill(n, 0, 512, 1); /* makes the L2 table */
    reset_counts();
    for (unsigned i = 1; i < 100; i++)
        fill(n, i * 65536 + 4096, 4096, 1);
    assert_true(image.written_bytes < 100 * 4096 + 100 * 512);
    expect(n, 65536, 4096, 0);
    expect(n, 65536 + 8192, 57344, 0);
    node_close(n);
    check_clean();
}

static void test_flushes(void **state)
{
    create(64 * MIB, NULL, NULL, NULL);
    struct node *n = open_image();
    fill(n, 0, 4 * MIB, 1);
    reset_counts();
    assert_int_equal(node_flush(n), 0);
    assert_int_equal(image.flushes, 2); /* data, L2 tables and refcounts; L2 and L1 entries */
    fill(n, 0, MIB, 2);
    assert_int_equal(node_flush(n), 0);
    assert_int_equal(image.flushes, 3);
    uint8_t b[512] = {0};
    assert_int_equal(node_write(n, b, sizeof b, 0, NODE_FUA), 0); /* in place: a flag is enough */
    assert_int_equal(image.flushes, 3);
    assert_int_equal(node_write(n, b, sizeof b, 32 * MIB, NODE_FUA), 0);
    assert_int_equal(image.flushes, 5);
    node_close(n);
    check_clean();
}

/* L1, the refcount table and its blocks grow. */
static void test_growth(void **state)
{
    static const char *const bits[] = {"1", "16", "64"};
    for (unsigned i = 0; i < ARRAY_LEN(bits); i++) {
        create(MIB, NULL, "512", bits[i]);
        struct node *n = open_image();
        assert_int_equal(node_resize(n, 12 * MIB, NULL), 0);
        for (uint64_t at = 0; at < 12 * MIB; at += 768 * KIB)
            fill(n, at, 768 * KIB, 5);
        assert_int_equal(node_resize(n, 14 * MIB, NULL), 0);
        expect(n, 0, 12 * MIB, 5);
        expect(n, 12 * MIB, 2 * MIB, 0);
        node_close(n);
        check_clean();
        n = open_image();
        expect(n, 0, 12 * MIB, 5);
        assert_int_equal(node_resize(n, MIB + 512, NULL), 0);
        assert_int_equal(node_resize(n, 2 * MIB, NULL), 0);
        expect(n, 0, MIB + 512, 5);
        expect(n, MIB + 512, MIB - 512, 0);
        node_close(n);
        check_clean();
    }
}

static void test_overlay_grows(void **state)
{
    struct error e = {0};
    base_of(4 * MIB, 3); /* larger than the disk: must not show in what is added */
    create(MIB + 512, "base", NULL, NULL);
    struct node *n = open_image();
    fill(n, MIB, 512, 1);
    assert_int_equal(node_resize(n, 6 * MIB, &e), 0);
    expect(n, 0, MIB, 3);
    expect(n, MIB, 512, 1);
    expect(n, MIB + 512, 5 * MIB - 512, 0);
    assert_int_equal(node_resize(n, 1ull << 62, &e), ERR_LIMIT);
    node_close(n);
    check_clean();
}

/* A write that fails takes nothing; a flush that failed never goes well again. */
static void test_failures(void **state)
{
    struct node *f = NULL, *n = NULL;
    uint8_t buf[4096] = {1};
    create(8 * MIB, NULL, NULL, NULL);
    assert_int_equal(fault_open(&image.node, &f, NULL), 0);
    assert_int_equal(try_open(f, false, &n, NULL), 0);
    fill(n, 0, 512, 1);
    fault_add(f, &(struct fault_rule){.ops = FAULT_WRITE, .err = ENOSPC, .times = 1});
    assert_int_equal(node_write(n, buf, sizeof buf, MIB, 0), -ENOSPC);
    expect(n, MIB, 4096, 0);
    fault_add(f, &(struct fault_rule){.ops = FAULT_WRITE, .err = ENOSPC, .times = 1});
    assert_int_equal(node_flush(n), -ENOSPC); /* metadata; it waits for the next flush */
    assert_int_equal(node_flush(n), 0);
    node_close(n);
    check_clean();

    assert_int_equal(fault_open(&image.node, &f, NULL), 0);
    assert_int_equal(try_open(f, false, &n, NULL), 0);
    fill(n, MIB, 512, 1);
    fault_add(f, &(struct fault_rule){.ops = FAULT_FLUSH, .err = EIO, .times = 1});
    assert_int_equal(node_flush(n), -EIO);
    assert_int_equal(node_flush(n), -EIO);
    node_close(n);
    expect(n = open_image(), 0, 512, 1);
    node_close(n);
}

#define THREADS 4
struct job {
    pthread_t thread;
    struct node *n;
    unsigned self;
};

/* Each thread has every fourth block of 4 KiB, so they meet in every cluster. */
static void *work(void *arg)
{
    struct job *j = arg;
    struct node_place at;
    uint8_t buf[4096];
    for (unsigned i = j->self; i < 1024; i += THREADS) {
        memset(buf, (int)(j->self + 1), sizeof buf);
        if (node_write(j->n, buf, sizeof buf, i * 4096ull, 0))
            return j;
        if (i % 64 == j->self && node_flush(j->n))
            return j;
        (void)node_resolve(j->n, i * 4096ull, sizeof buf, true, &at);
        if (i % 32 == j->self &&
            (node_zero(j->n, i * 4096ull, sizeof buf, i & 64 ? NODE_MAY_UNMAP : 0) ||
             node_write(j->n, buf, sizeof buf, i * 4096ull, 0)))
            return j;
        if (node_read(j->n, buf, sizeof buf, i * 4096ull) || buf[17] != j->self + 1)
            return j;
    }
    return NULL;
}

static void threads(const char *cluster)
{
    struct job job[THREADS];
    base_of(8 * MIB, 9);
    create(8 * MIB, "base", cluster, NULL);
    struct node *n = open_image();
    uint8_t packed[65536];
    memset(packed, 8, sizeof packed);
    for (unsigned i = 0; i < 32; i++)
        assert_int_equal(format_qcow2.write_compressed(n, packed, n->granularity, i * 65536), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        job[i] = (struct job){.n = n, .self = i};
        assert_int_equal(pthread_create(&job[i].thread, NULL, work, &job[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(job[i].thread, &failed);
        assert_null(failed);
    }
    for (unsigned i = 0; i < 1024; i++)
        expect(n, i * 4096, 4096, (uint8_t)(i % THREADS + 1));
    expect(n, 4 * MIB, 4 * MIB, 9);
    node_close(n);
    check_clean();
}

static void test_threads(void **state)
{
    threads("65536");
    qcow2_set_cache_size(0); /* 64 slices of 32 KiB: others have to make room */
    threads("512");
    qcow2_set_cache_size(4 * MIB);
}

static void refuse(const char *says)
{
    struct node *n = NULL;
    struct error e = {0};
    assert_true(try_open(&image.node, false, &n, &e) < 0);
    if (!strstr(e.msg, says))
        fail_msg("'%s' does not say '%s'", e.msg, says);
}

static void test_features(void **state)
{
    struct node *n = NULL;
    create(MIB, NULL, NULL, NULL);
    uint8_t *table = memmem(image.p, 512, "extended L2 entries", 19);
    assert_non_null(table);
    table[-1] = 9; /* the entry's bit */
    memcpy(table, "warp drive", 11);
    store_be64(image.p + 72, 1 << 9 | 1ull << 63);
    refuse("'warp drive' (bit 9), 'a feature without a name' (bit 63)");

    create(MIB, NULL, NULL, NULL);
    store_be32(image.p + 32, 1);
    refuse("encrypted (AES)");
    create(MIB, NULL, NULL, NULL);
    store_be32(image.p + 4, 4);
    refuse("version 4");

    create(MIB, NULL, NULL, NULL); /* autoclear bits: kept while it is read, cleared for a write */
    store_be64(image.p + 88, 1ull << 7 | 1);
    assert_int_equal(try_open(&image.node, true, &n, NULL), 0);
    node_close(n);
    assert_int_equal(load_be64(image.p + 88), 1 << 7 | 1);
    n = open_image();
    fill(n, 0, 512, 1);
    assert_int_equal(load_be64(image.p + 88), 0);
    node_close(n);
}

static void test_lazy(void **state)
{
    const char *value[QCOW2_OPTIONS] = {[QCOW2_OPT_LAZY_REFCOUNTS] = "on"};
    struct format_create c = {.size = MIB, .value = value};
    clear(&image);
    assert_int_equal(format_qcow2.create(&image.node, &c, NULL), 0);
    struct node *n = open_image();
    assert_int_equal(load_be64(image.p + 72), 0);
    fill(n, 0, 65536, 1);
    assert_int_equal(load_be64(image.p + 72), 1); /* dirty */
    assert_int_equal(node_flush(n), 0);
    uint8_t *crashed = malloc(ROOM);
    memcpy(crashed, image.p, ROOM);
    node_close(n);
    assert_int_equal(load_be64(image.p + 72), 0);
    check_clean();
    memcpy(image.p, crashed, ROOM); /* it was not closed: opening it repairs it */
    free(crashed);
    n = open_image();
    expect(n, 0, 65536, 1);
    node_close(n);
    check_clean();
}

/* An L2 entry of a damaged image refers to the refcount table: nothing is written there. */
static void test_overlap(void **state)
{
    struct node *n = NULL;
    create(MIB, NULL, NULL, NULL);
    n = open_image();
    fill(n, 0, 65536, 1);
    node_close(n);
    uint64_t l1 = load_be64(image.p + 40), rt = load_be64(image.p + 48);
    uint64_t l2 = load_be64(image.p + l1) & 0x00fffffffffffe00;
    store_be64(image.p + l2, rt | 1ull << 63);
    uint8_t before[512], buf[512] = {1};
    memcpy(before, image.p + rt, sizeof before);
    n = open_image();
    struct node_place at;
    assert_int_equal(node_read(n, buf, sizeof buf, 0), 0);
    assert_false(node_resolve(n, 0, 512, true, &at));
    assert_int_equal(node_write(n, buf, sizeof buf, 0, 0), -EIO);
    assert_int_equal(node_write(n, buf, sizeof buf, 131072, 0), -EIO); /* not anywhere else, now */
    node_close(n);
    assert_memory_equal(image.p + rt, before, sizeof before);
    assert_int_equal(load_be64(image.p + 72) & 2, 2); /* corrupt */
    refuse("marked as damaged");
    assert_int_equal(try_open(&image.node, true, &n, NULL), 0);
    node_close(n);
}

static void test_info(void **state)
{
    create(MIB, "base", "4096", "8");
    base_of(MIB, 0);
    struct node *n = open_image();
    json_t *o = format_qcow2.info(n);
    assert_int_equal(json_integer_value(json_object_get(o, "cluster-size")), 4096);
    assert_int_equal(json_integer_value(json_object_get(o, "refcount-bits")), 8);
    assert_string_equal(json_string_value(json_object_get(o, "backing-file")), "base");
    json_decref(o);
    node_close(n);
}

static void test_options(void **state)
{
    static const char *const bad[][2] = {{"3000", NULL}, {"256", NULL}, {"4M", NULL}, {"x", NULL},
                                         {NULL, "3"},    {NULL, "128"}, {"", NULL}};
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        const char *value[QCOW2_OPTIONS] = {
            [QCOW2_OPT_CLUSTER_SIZE] = bad[i][0], [QCOW2_OPT_REFCOUNT_BITS] = bad[i][1]};
        struct format_create c = {.size = MIB, .value = value};
        struct error e = {0};
        clear(&image);
        assert_int_equal(format_qcow2.create(&image.node, &c, &e), ERR_USAGE);
        assert_int_equal(image.node.size, 0);
    }
}

/* A raw data file is the disk: what a crash left in a cluster without an entry is read, so a write
 * beside it must not take it away. */
static void test_raw_data(void **state)
{
    const char *value[QCOW2_OPTIONS] = {
        [QCOW2_OPT_DATA_FILE] = "data", [QCOW2_OPT_DATA_FILE_RAW] = "on"};
    clear(&image);
    clear(&base);
    assert_int_equal(format_qcow2.create(
                         &image.node, &(struct format_create){.size = MIB, .value = value}, NULL),
                     0);
    struct node *n = open_image();
    memset(base.p + 70000, 7, 5000);
    expect(n, 70000, 5000, 7);
    fill(n, 80000, 512, 8);
    fill(n, 66048, 512, 9);
    expect(n, 66048, 512, 9);
    expect(n, 70000, 5000, 7);
    expect(n, 80000, 512, 8);
    node_close(n);
    check_clean();
}

static int mem_resize(struct node *n, uint64_t size, struct error *e)
{
    if (size < n->size)
        memset(mem_of(n)->p + size, 0, n->size - size);
    n->size = size;
    return 0;
}

/* A crash may leave a raw data file longer than the disk; what grows over it is zeroes. */
static void test_raw_data_grows(void **state)
{
    const char *value[QCOW2_OPTIONS] = {
        [QCOW2_OPT_DATA_FILE] = "data", [QCOW2_OPT_DATA_FILE_RAW] = "on"};
    struct node_ops ops = mem_ops;
    ops.resize = mem_resize;
    clear(&image);
    clear(&base);
    assert_int_equal(format_qcow2.create(
                         &image.node, &(struct format_create){.size = MIB, .value = value}, NULL),
                     0);
    base.node.ops = &ops;
    base.node.size = 3 * MIB;
    memset(base.p, 7, 3 * MIB);
    struct node *n = open_image();
    assert_int_equal(node_resize(n, 2 * MIB, NULL), 0);
    expect(n, 0, MIB, 7);
    expect(n, MIB, MIB, 0);
    node_close(n);
    check_clean();
    clear(&base);
}

static int setup(void **state)
{
    image.p = malloc(ROOM);
    base.p = malloc(ROOM);
    pthread_mutex_init(&image.lock, NULL);
    pthread_mutex_init(&base.lock, NULL);
    return image.p && base.p ? 0 : -1;
}

static int teardown(void **state)
{
    free(image.p);
    free(base.p);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_thin),           cmocka_unit_test(test_places),
        cmocka_unit_test(test_packed_places),  cmocka_unit_test(test_packing),
        cmocka_unit_test(test_unwritten),      cmocka_unit_test(test_copies),
        cmocka_unit_test(test_fresh),          cmocka_unit_test(test_flushes),
        cmocka_unit_test(test_growth),         cmocka_unit_test(test_overlay_grows),
        cmocka_unit_test(test_failures),       cmocka_unit_test(test_threads),
        cmocka_unit_test(test_features),       cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_overlap),        cmocka_unit_test(test_info),
        cmocka_unit_test(test_options),        cmocka_unit_test(test_raw_data),
        cmocka_unit_test(test_raw_data_grows),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
