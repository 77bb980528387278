/*
 * test_disk_model.c - random overlapping requests on a disk, many in flight, against a model.
 *
 * disk.c carries out overlapping requests in the order in which they were submitted, so the model
 * is one array: a write changes it when it is submitted, and a read must give what it held then.
 *
 * The node below is as touchy as an image format may be: zeroing moves a cluster, and often the
 * next write does (copying around what is written); a discarded cluster is poisoned and used for
 * the next one at once. Nothing but the gate keeps such a copy from losing another request's bytes.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "block/disk.h"
#include "block/image.h"
#include "block/io/file.h"
#include "block/iov.h"
#include "block/layer/fault.h"

#define CLUSTER  4096u
#define CLUSTERS 64u
#define SIZE     (CLUSTER * CLUSTERS)
#define SECTOR   512u
#define NOWHERE  UINT32_MAX
#define DEPTH    48
#define OPS      15000
#define MAX_LEN  (6 * CLUSTER)

/* ---- the touchy node ---- */

struct touchy {
    struct node node;
    struct node *file;
    pthread_mutex_t lock;
    uint32_t at[CLUSTERS]; /* cluster of the file, or NOWHERE: zeroes */
    uint32_t spare[2 * CLUSTERS];
    unsigned nspare, turn;
    bool moves[CLUSTERS];   /* the next write moves it */
    bool writing[CLUSTERS]; /* a slow write, zero or discard is in this cluster */
    unsigned fast, moved;
};

static struct touchy *touchy_of(struct node *n)
{
    return CONTAINER_OF(n, struct touchy, node);
}

static uint32_t where(struct touchy *t, uint64_t offset)
{
    pthread_mutex_lock(&t->lock);
    uint32_t at = t->at[offset / CLUSTER];
    pthread_mutex_unlock(&t->lock);
    return at;
}

static int touchy_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct touchy *t = touchy_of(n);
    struct iov_cursor c = {iov, niov, 0};
    iov_advance(&c, 0);
    while (c.niov > 0) {
        struct iovec part[64];
        uint64_t got = 0;
        uint32_t at = where(t, offset);
        int k = iov_slice(&c, CLUSTER - offset % CLUSTER, part, 64, &got);
        sched_yield();
        if (at == NOWHERE)
            iov_zero(&c, got);
        else
            assert_int_equal(
                node_readv(t->file, part, k, (uint64_t)at * CLUSTER + offset % CLUSTER), 0);
        iov_advance(&c, (size_t)got);
        offset += got;
    }
    return 0;
}

/* One cluster: read, changed, written to another place. `iov` NULL: zeroes. */
static void move_cluster(struct touchy *t, const struct iov_cursor *c, uint64_t offset,
                         uint64_t len)
{
    uint8_t buf[CLUSTER] = {0}, poison[CLUSTER];
    unsigned n = (unsigned)(offset / CLUSTER);
    memset(poison, 0xdd, sizeof poison);
    pthread_mutex_lock(&t->lock);
    assert_false(t->writing[n]);
    t->writing[n] = true;
    uint32_t old = t->at[n], at = t->spare[--t->nspare];
    pthread_mutex_unlock(&t->lock);
    if (old != NOWHERE)
        assert_int_equal(node_read(t->file, buf, CLUSTER, (uint64_t)old * CLUSTER), 0);
    sched_yield();
    uint8_t *to = buf + offset % CLUSTER;
    if (c) {
        struct iovec part[64];
        uint64_t got = 0;
        int k = iov_slice(c, len, part, 64, &got);
        assert_int_equal(got, len);
        for (int i = 0; i < k; to += part[i++].iov_len)
            memcpy(to, part[i].iov_base, part[i].iov_len);
    } else {
        memset(to, 0, len);
    }
    assert_int_equal(node_write(t->file, buf, CLUSTER, (uint64_t)at * CLUSTER, 0), 0);
    if (old != NOWHERE)
        assert_int_equal(node_write(t->file, poison, CLUSTER, (uint64_t)old * CLUSTER, 0), 0);
    pthread_mutex_lock(&t->lock);
    t->at[n] = at;
    if (old != NOWHERE)
        t->spare[t->nspare++] = old;
    t->writing[n] = false;
    t->moves[n] = !c && ++t->turn % 4;
    t->moved++;
    pthread_mutex_unlock(&t->lock);
}

static int touchy_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                        unsigned flags)
{
    struct touchy *t = touchy_of(n);
    struct iov_cursor c = {iov, niov, 0};
    iov_advance(&c, 0);
    while (c.niov > 0) {
        uint64_t got = 0, len = CLUSTER - offset % CLUSTER;
        struct iovec part[64];
        int k = iov_slice(&c, len, part, 64, &got);
        uint32_t at = where(t, offset);
        if (at == NOWHERE || t->moves[offset / CLUSTER])
            move_cluster(t, &c, offset, got);
        else
            assert_int_equal(
                node_writev(t->file, part, k, (uint64_t)at * CLUSTER + offset % CLUSTER, 0), 0);
        iov_advance(&c, (size_t)got);
        offset += got;
    }
    return 0;
}

static int touchy_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    for (uint64_t part; len > 0; offset += part, len -= part) {
        part = min_u64(len, CLUSTER - offset % CLUSTER);
        move_cluster(touchy_of(n), NULL, offset, part);
    }
    return 0;
}

static int touchy_discard(struct node *n, uint64_t offset, uint64_t len)
{
    struct touchy *t = touchy_of(n);
    for (uint64_t part; len > 0; offset += part, len -= part) {
        part = min_u64(len, CLUSTER - offset % CLUSTER);
        move_cluster(t, NULL, offset, part);
        if (part < CLUSTER)
            continue;
        pthread_mutex_lock(&t->lock);
        t->spare[t->nspare++] = t->at[offset / CLUSTER];
        t->at[offset / CLUSTER] = NOWHERE;
        pthread_mutex_unlock(&t->lock);
    }
    return 0;
}

static bool touchy_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                           struct node_place *out)
{
    struct touchy *t = touchy_of(n);
    pthread_mutex_lock(&t->lock);
    uint32_t at = t->at[offset / CLUSTER];
    bool moves = write && t->moves[offset / CLUSTER];
    assert_false(t->writing[offset / CLUSTER]);
    t->fast++;
    pthread_mutex_unlock(&t->lock);
    if (at == NOWHERE || moves)
        return false;
    *out = (struct node_place){t->file, (uint64_t)at * CLUSTER + offset % CLUSTER,
                               min_u64(len, CLUSTER - offset % CLUSTER)};
    return true;
}

static int touchy_resize(struct node *n, uint64_t size, struct error *e)
{
    if (size > SIZE)
        return error_set(e, ERR_LIMIT, "too large");
    n->size = size;
    return 0;
}

static void touchy_close(struct node *n)
{
    struct touchy *t = touchy_of(n);
    node_close(t->file);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static const struct node_ops touchy_ops = {
    .name = "touchy",
    .read = touchy_read,
    .write = touchy_write,
    .zero = touchy_zero,
    .discard = touchy_discard,
    .resize = touchy_resize,
    .resolve = touchy_resolve,
    .close = touchy_close,
};

static struct node *open_file(uint64_t size)
{
    char path[64];
    struct error e = {0};
    struct node *n = NULL;
    int fd = memfd_create("model", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (file_open(path, &(struct file_options){.readonly = false}, &n, &e))
        fail_msg("%s", e.msg);
    close(fd);
    return n;
}

static struct node *open_touchy(void)
{
    struct touchy *t = calloc(1, sizeof *t);
    t->node = (struct node){.ops = &touchy_ops, .size = SIZE, .granularity = CLUSTER};
    t->file = open_file(2 * SIZE);
    pthread_mutex_init(&t->lock, NULL);
    memset(t->at, 0xff, sizeof t->at);
    for (unsigned i = 0; i < 2 * CLUSTERS; i++)
        t->spare[t->nspare++] = i;
    return &t->node;
}

/* ---- requests against the model ---- */

struct op {
    struct blk_req req;
    struct iovec iov[5];
    uint8_t buf[MAX_LEN], want[MAX_LEN];
    struct op *next_free;
    int result;
};

static pthread_mutex_t dev_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t freed = PTHREAD_COND_INITIALIZER;
static struct op op[DEPTH], *free_ops;
static uint8_t model[SIZE];
static struct deferred_list deferred;
static unsigned nwrong, ndone;
static uint64_t rng;
static uint64_t discard_granule = SECTOR; /* whole ones read as zeroes afterwards */

static uint32_t rnd(uint32_t n)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(rng >> 33) % n;
}

static void on_done(struct blk_req *req, int result)
{
    struct op *o = req->arg;
    ndone++;
    o->result = result;
    nwrong += result != 0;
    if (req->op == BLK_READ)
        nwrong += memcmp(o->buf, o->want, req->len) != 0;
    memset(req, 0xee, sizeof *req); /* it is the device's again */
    o->next_free = free_ops;
    free_ops = o;
    pthread_cond_signal(&freed);
}

/* Cuts the buffer into a few segments; some may be empty. */
static int cut(struct op *o, size_t len)
{
    int n = 1 + (int)rnd(5);
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        size_t part = i == n - 1 ? len - at : rnd((uint32_t)(len - at) + 1);
        o->iov[i] = (struct iovec){o->buf + at, part};
        at += part;
    }
    return n;
}

static void submit(struct blk *b, uint64_t size)
{
    static const enum blk_op kinds[] = {BLK_READ,  BLK_READ,    BLK_READ,         BLK_WRITE,
                                        BLK_WRITE, BLK_DISCARD, BLK_WRITE_ZEROES, BLK_FLUSH};
    struct op *o = free_ops;
    free_ops = o->next_free;
    enum blk_op kind = kinds[rnd(8)];
    uint64_t at = rnd((uint32_t)(size / SECTOR)) * SECTOR;
    uint64_t len = min_u64((1 + rnd(rnd(4) ? 4 : MAX_LEN / SECTOR)) * SECTOR, size - at);
    if (kind == BLK_DISCARD) {
        at &= ~(discard_granule - 1);
        len = min_u64((len + discard_granule - 1) & ~(discard_granule - 1), size - at);
    }
    o->req = (struct blk_req){
        .op = kind, .offset = at, .len = len, .iov = o->iov, .done = on_done, .arg = o};
    o->req.fua = kind == BLK_WRITE && rnd(16) == 0;
    if (kind == BLK_READ || kind == BLK_WRITE)
        o->req.niov = cut(o, len);
    if (kind == BLK_READ)
        memcpy(o->want, model + at, len);
    else if (kind == BLK_DISCARD || kind == BLK_WRITE_ZEROES)
        memset(model + at, 0, len);
    if (kind == BLK_WRITE) {
        for (uint64_t i = 0; i < len; i += 8)
            memcpy(o->buf + i, &(uint64_t){rng + i}, 8);
        memcpy(model + at, o->buf, len);
    }
    blk_submit(b, &o->req);
}

static void run(struct blk *b, unsigned n, uint64_t size)
{
    pthread_mutex_lock(&dev_lock);
    for (unsigned i = 0; i < n; i++) {
        unsigned plug = rnd(8); /* 0: plug, 1: begin */
        while (!free_ops)
            pthread_cond_wait(&freed, &dev_lock);
        if (rnd(2))
            deferred_open(&deferred);
        if (plug < 2)
            blk_batch(b, plug ? BLK_BEGIN : BLK_PLUG);
        for (unsigned k = plug < 2 ? 1 + rnd(8) : 1; k > 0 && free_ops; k--)
            submit(b, size);
        if (plug < 2)
            blk_batch(b, plug ? BLK_END : BLK_UNPLUG);
        if (deferred.open || rnd(8) == 0) { /* let them finish in between */
            struct deferred *jobs = deferred_close(&deferred);
            pthread_mutex_unlock(&dev_lock);
            deferred_run(jobs);
            sched_yield();
            pthread_mutex_lock(&dev_lock);
        }
    }
    pthread_mutex_unlock(&dev_lock);
}

static struct blk *open_disk(struct node *n, enum disk_io io)
{
    struct blk *b = NULL;
    struct error e = {0};
    if (disk_open(n, &(struct disk_options){.io = io, .deferred = &deferred}, &dev_lock, &b, &e)) {
        node_close(n);
        if (io == DISK_IO_URING && e.code == ERR_HOST)
            skip();
        fail_msg("%s", e.msg);
    }
    memset(model, 0, sizeof model);
    nwrong = ndone = 0;
    rng = 42;
    free_ops = NULL;
    for (unsigned i = 0; i < DEPTH; i++) {
        op[i].next_free = free_ops;
        free_ops = &op[i];
    }
    return b;
}

static void check_all(struct blk *b)
{
    blk_drain(b);
    pthread_mutex_lock(&dev_lock);
    for (uint64_t at = 0; at < b->size; at += MAX_LEN) {
        struct op *o = free_ops;
        free_ops = o->next_free;
        uint64_t len = min_u64(MAX_LEN, b->size - at);
        o->iov[0] = (struct iovec){o->buf, len};
        o->req = (struct blk_req){.op = BLK_READ,
                                  .offset = at,
                                  .len = len,
                                  .iov = o->iov,
                                  .niov = 1,
                                  .done = on_done,
                                  .arg = o};
        memcpy(o->want, model + at, len);
        blk_submit(b, &o->req);
    }
    pthread_mutex_unlock(&dev_lock);
    blk_drain(b);
    assert_int_equal(nwrong, 0);
}

static void check_touchy(enum disk_io io)
{
    struct node *n = open_touchy();
    struct blk *b = open_disk(n, io);
    run(b, OPS, SIZE);
    check_all(b);
    struct touchy *t = touchy_of(n);
    assert_true(t->moved > OPS / 20);
    if (io == DISK_IO_URING)
        assert_true(t->fast > OPS / 10);
    blk_close(b);
}

static void touchy_uring(void **state)
{
    check_touchy(DISK_IO_URING);
}

static void touchy_threads(void **state)
{
    check_touchy(DISK_IO_THREADS);
}

static void check_file(enum disk_io io)
{
    struct blk *b = open_disk(open_file(SIZE), io);
    run(b, OPS, SIZE);
    check_all(b);
    blk_close(b);
}

static void file_uring(void **state)
{
    check_file(DISK_IO_URING);
}

static void file_threads(void **state)
{
    check_file(DISK_IO_THREADS);
}

/* ---- a node that is asynchronous itself, as a remote disk is ---- */

struct remote {
    struct node node;
    struct node *file;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    struct blk_req *queue;
    unsigned sent;
    bool closing;
};

static struct remote *remote_of(struct node *n)
{
    return CONTAINER_OF(n, struct remote, node);
}

static int remote_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    return node_readv(remote_of(n)->file, iov, niov, offset);
}

static int remote_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                        unsigned flags)
{
    return node_writev(remote_of(n)->file, iov, niov, offset, flags);
}

static int remote_discard(struct node *n, uint64_t offset, uint64_t len)
{
    return node_zero(remote_of(n)->file, offset, len, 0);
}

static bool remote_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                           struct node_place *out)
{
    *out = (struct node_place){n, offset, min_u64(len, SIZE / 2 - offset % (SIZE / 2))};
    return true;
}

static void remote_submit(struct node *n, struct blk_req *req)
{
    struct remote *r = remote_of(n);
    pthread_mutex_lock(&r->lock);
    req->next = r->queue; /* the other way round than they came */
    r->queue = req;
    r->sent++;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

static void *remote_thread(void *arg)
{
    struct remote *r = arg;
    unsigned n = 0;
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!r->queue && !r->closing)
            pthread_cond_wait(&r->wake, &r->lock);
        struct blk_req *req = r->queue;
        if (!req)
            break;
        r->queue = req->next;
        pthread_mutex_unlock(&r->lock);
        if (++n % 5 == 0)
            req->done(req, -EAGAIN);
        else
            req->done(req, req->op == BLK_READ
                               ? node_readv(r->file, req->iov, req->niov, req->offset)
                               : node_writev(r->file, req->iov, req->niov, req->offset, 0));
        pthread_mutex_lock(&r->lock);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static void remote_close(struct node *n)
{
    struct remote *r = remote_of(n);
    pthread_mutex_lock(&r->lock);
    r->closing = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    node_close(r->file);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static const struct node_ops remote_ops = {.name = "remote",
                                           .read = remote_read,
                                           .write = remote_write,
                                           .discard = remote_discard,
                                           .resolve = remote_resolve,
                                           .submit = remote_submit,
                                           .close = remote_close};

static void a_node_of_its_own_mind(void **state)
{
    struct remote *r = calloc(1, sizeof *r);
    r->node = (struct node){.ops = &remote_ops, .size = SIZE};
    r->file = open_file(SIZE);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->wake, NULL);
    assert_int_equal(pthread_create(&r->thread, NULL, remote_thread, r), 0);
    struct blk *b = open_disk(&r->node, DISK_IO_AUTO);
    run(b, OPS, SIZE);
    check_all(b);
    assert_true(r->sent > OPS / 2);
    blk_close(b);
}

/* ---- errors ---- */

static void errors_arrive(void **state)
{
    static const int want[] = {-ENOSPC, -ENOSPC, -EIO, 0};
    struct node *n = NULL;
    assert_int_equal(fault_open(open_file(SIZE), &n, NULL), 0);
    fault_add(n, &(struct fault_rule){
                     .ops = FAULT_WRITE | FAULT_ZERO, .from = 4096, .to = 8192, .err = ENOSPC});
    fault_add(n, &(struct fault_rule){.ops = FAULT_FLUSH});
    struct blk *b = open_disk(n, DISK_IO_AUTO);
    static const enum blk_op kind[] = {BLK_WRITE, BLK_WRITE_ZEROES, BLK_FLUSH, BLK_WRITE};
    pthread_mutex_lock(&dev_lock);
    for (unsigned i = 0; i < 4; i++) { /* the last one waits for none of the others */
        struct op *o = &op[i];
        o->iov[0] = (struct iovec){o->buf, 512};
        o->req = (struct blk_req){.op = kind[i],
                                  .offset = i == 3 ? 0 : 4096,
                                  .len = 512,
                                  .iov = o->iov,
                                  .niov = 1,
                                  .done = on_done,
                                  .arg = o};
        blk_submit(b, &o->req);
    }
    pthread_mutex_unlock(&dev_lock);
    blk_drain(b);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(op[i].result, want[i]);
    assert_int_equal(ndone, 4);
    fault_clear(n);
    blk_close(b);
}

/* ---- an overlay ---- */

static char dir[64];

static const char *in_dir(const char *name)
{
    static char path[2][96];
    static unsigned turn;
    char *p = path[turn++ % 2];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static struct node *create(const char *name, const char *format, const struct format_create *c)
{
    struct node *n = NULL;
    struct error e = {0};
    if (file_open(in_dir(name), &(struct file_options){.create = true}, &n, &e) ||
        format_find(format)->create(n, c, &e))
        fail_msg("%s", e.msg);
    return n;
}

static struct node *open_overlay(const char *cluster)
{
    struct node *n = NULL;
    struct error e = {0};
    const char *value[16] = {cluster};
    struct format_create c = {
        .size = SIZE, .backing = "base", .backing_format = "raw", .value = value};
    strcpy(dir, "/tmp/sosia-model-XXXXXX");
    assert_non_null(mkdtemp(dir));
    n = create("base", "raw", &(struct format_create){.size = SIZE});
    assert_int_equal(node_write(n, model, sizeof model, 0, 0), 0);
    node_close(n);
    node_close(create("top", "qcow2", &c));
    if (image_open(in_dir("top"), &(struct image_options){.format = "qcow2"}, &n, &e))
        fail_msg("%s", e.msg);
    return n;
}

static void check_overlay(enum disk_io io, const char *cluster)
{
    static uint8_t base[SIZE], back[SIZE];
    rng = 7;
    for (uint64_t i = 0; i < SIZE; i++)
        base[i] = (uint8_t)rnd(256);
    memcpy(model, base, SIZE);
    struct blk *b = open_disk(open_overlay(cluster), io);
    memcpy(model, base, SIZE);
    discard_granule = strtoul(cluster, NULL, 10);
    run(b, OPS / 8, SIZE); /* fewer: a flush takes its time */
    check_all(b);
    blk_close(b);
    discard_granule = SECTOR;

    struct node *n = NULL; /* what is in the files is what was written */
    struct format_check found = {0};
    assert_int_equal(image_open(in_dir("top"), &(struct image_options){.check = true}, &n, NULL),
                     0);
    assert_int_equal(node_read(n, back, SIZE, 0), 0);
    assert_memory_equal(back, model, SIZE);
    assert_int_equal(format_find("qcow2")->check(n, 0, &found, NULL), 0);
    assert_int_equal(found.errors, 0);
    assert_int_equal(found.leaks, 0);
    node_close(n);
    unlink(in_dir("top"));
    unlink(in_dir("base"));
    rmdir(dir);
}

static void overlay_uring(void **state)
{
    check_overlay(DISK_IO_URING, "4096");
}

static void overlay_threads(void **state)
{
    check_overlay(DISK_IO_THREADS, "65536");
}

static void overlay_of_sectors(void **state)
{
    check_overlay(DISK_IO_AUTO, "512");
}

/* ---- the size changes under load ---- */

struct resizer {
    struct blk *b;
    unsigned told;
    uint64_t size;
};

static void on_resized(void *ctx)
{
    struct resizer *r = ctx;
    assert_int_not_equal(pthread_mutex_trylock(&dev_lock), 0);
    r->told++;
    r->size = r->b->size;
}

static void *resize_thread(void *arg)
{
    struct resizer *r = arg;
    struct error e = {0};
    for (unsigned i = 0; i < 40; i++)
        if (blk_resize(r->b, SIZE - CLUSTER * (i % 7 + 1), &e))
            return r;
    return NULL;
}

static void resize_under_load(void **state)
{
    pthread_t thread;
    void *failed = &thread;
    struct error e = {0};
    struct resizer r = {0};
    r.b = open_disk(open_touchy(), DISK_IO_AUTO);
    r.b->resized = on_resized;
    r.b->ctx = &r;
    assert_int_equal(pthread_create(&thread, NULL, resize_thread, &r), 0);
    run(r.b, OPS / 2, SIZE / 2);
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    assert_int_equal(r.told, 40);
    assert_int_equal(r.size, r.b->size);
    assert_int_equal(blk_resize(r.b, 2 * SIZE, &e), ERR_LIMIT);
    assert_int_equal(blk_resize(r.b, 100, &e), ERR_LIMIT);
    assert_int_equal(r.told, 40);
    assert_int_equal(nwrong, 0);
    blk_close(r.b);
}

/* A disk of a size that ends within a sector. */
static void ragged(void **state)
{
    struct node *n = open_touchy();
    n->size = SIZE - 100;
    struct blk *b = open_disk(n, DISK_IO_AUTO);
    assert_int_equal(b->size, SIZE);
    struct op *o = &op[0];
    for (unsigned kind = 0; kind < 2; kind++) {
        memset(o->buf, 7, sizeof o->buf);
        o->iov[0] = (struct iovec){o->buf, 100};
        o->iov[1] = (struct iovec){o->buf + 100, 924};
        o->req = (struct blk_req){.op = kind ? BLK_READ : BLK_WRITE,
                                  .offset = SIZE - 1024,
                                  .len = 1024,
                                  .iov = o->iov,
                                  .niov = 2,
                                  .done = on_done,
                                  .arg = o};
        memset(o->want, 7, 924);
        memset(o->want + 924, 0, 100);
        pthread_mutex_lock(&dev_lock);
        blk_submit(b, &o->req);
        pthread_mutex_unlock(&dev_lock);
        blk_drain(b);
    }
    assert_int_equal(nwrong, 0);
    assert_int_equal(ndone, 2);
    blk_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(touchy_uring),
        cmocka_unit_test(touchy_threads),
        cmocka_unit_test(file_uring),
        cmocka_unit_test(file_threads),
        cmocka_unit_test(overlay_uring),
        cmocka_unit_test(overlay_threads),
        cmocka_unit_test(overlay_of_sectors),
        cmocka_unit_test(a_node_of_its_own_mind),
        cmocka_unit_test(errors_arrive),
        cmocka_unit_test(resize_under_load),
        cmocka_unit_test(ragged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
