/*
 * test_disk.c - a raw image as a disk: transfers, the end of the file, zeroing, flushing, locks,
 * bad files. All of it twice: through io_uring where the host allows it, and by threads.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/endian.h"
#include "base/log.h"
#include "block/disk.h"
#include "block/image.h"

#define IMAGE_SIZE (64 * 1024)

static char dir[64], image[96];
static pthread_mutex_t dev_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t done_cond = PTHREAD_COND_INITIALIZER;

struct op {
    struct blk_req req;
    int result;
    unsigned calls;
};

static void on_done(struct blk_req *req, int result)
{
    struct op *op = req->arg;
    assert_int_not_equal(pthread_mutex_trylock(&dev_lock), 0); /* the caller holds it */
    op->result = result;
    op->calls++;
    pthread_cond_broadcast(&done_cond);
}

static void start(struct blk *b, struct op *op, enum blk_op what, uint64_t off, uint64_t len,
                  struct iovec *iov, int niov)
{
    *op = (struct op){.req = {.op = what,
                              .offset = off,
                              .len = len,
                              .iov = iov,
                              .niov = niov,
                              .done = on_done,
                              .arg = op}};
    pthread_mutex_lock(&dev_lock);
    blk_submit(b, &op->req);
    pthread_mutex_unlock(&dev_lock);
}

static int finish(struct op *op)
{
    pthread_mutex_lock(&dev_lock);
    while (!op->calls)
        pthread_cond_wait(&done_cond, &dev_lock);
    pthread_mutex_unlock(&dev_lock);
    assert_int_equal(op->calls, 1);
    return op->result;
}

static int run(struct blk *b, enum blk_op what, uint64_t off, void *buf, size_t len)
{
    struct op op;
    struct iovec iov = {buf, len};
    start(b, &op, what, off, len, &iov, buf ? 1 : 0);
    return finish(&op);
}

static void make_image(const char *path, size_t len)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    uint8_t *p = malloc(len ? len : 1);
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i / 512 + 1);
    assert_int_equal(write(fd, p, len), (ssize_t)len);
    free(p);
    close(fd);
}

static off_t file_size(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

static enum disk_io io;

static int try_open(const char *path, bool readonly, struct blk **out, struct error *e)
{
    struct node *top = NULL;
    int rc =
        image_open(path, &(struct image_options){.format = "raw", .readonly = readonly}, &top, e);
    if (rc)
        return rc;
    rc = disk_open(top, &(struct disk_options){.io = io}, &dev_lock, out, e);
    if (rc)
        node_close(top);
    return rc;
}

static struct blk *open_image(bool readonly)
{
    struct blk *b = NULL;
    struct error e = {0};
    if (try_open(image, readonly, &b, &e))
        fail_msg("%s", e.msg);
    return b;
}

static int setup(void **state)
{
    io = *(const enum disk_io *)*state;
    strcpy(dir, "/tmp/sosia-raw-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(image, sizeof image, "%s/disk.img", dir);
    make_image(image, IMAGE_SIZE);
    return 0;
}

static int teardown(void **state)
{
    unlink(image);
    return rmdir(dir);
}

static void reads_and_writes(void **state)
{
    struct blk *b = open_image(false);
    assert_int_equal(b->size, IMAGE_SIZE);
    uint8_t w[1024], r[1024] = {0};
    memset(w, 0xa5, sizeof w);
    assert_int_equal(run(b, BLK_WRITE, 4096, w, sizeof w), 0);
    assert_int_equal(run(b, BLK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(run(b, BLK_READ, 4096, r, sizeof r), 0);
    assert_memory_equal(r, w, sizeof r);
    assert_int_equal(run(b, BLK_READ, 4096 - 512, r, 512), 0);
    assert_int_equal(r[0], 8);
    blk_close(b);
    int fd = open(image, O_RDONLY);
    assert_int_equal(pread(fd, r, 1024, 4096), 1024);
    assert_memory_equal(r, w, sizeof r);
    close(fd);
}

static void scatters_over_more_segments_than_one_call_takes(void **state)
{
    enum { N = 2500 }; /* more than IOV_MAX */
    struct blk *b = open_image(false);
    static uint8_t buf[N * 3];
    static struct iovec iov[N];
    for (unsigned i = 0; i < N; i++) /* lengths 3, 0, 6, 3, 0, 6 ... */
        iov[i] = (struct iovec){buf + i * 3 - (i % 3 == 2 ? 3 : 0), i % 3 == 0   ? 3
                                                                    : i % 3 == 1 ? 0
                                                                                 : 6};
    uint64_t len = 0;
    for (unsigned i = 0; i < N; i++)
        len += iov[i].iov_len;
    struct op op;
    start(b, &op, BLK_READ, 0, len, iov, N);
    assert_int_equal(finish(&op), 0);
    for (uint64_t i = 0; i < len; i++)
        assert_int_equal(buf[i], (uint8_t)(i / 512 + 1));
    memset(buf, 0x77, sizeof buf);
    start(b, &op, BLK_WRITE, 512, len, iov, N);
    assert_int_equal(finish(&op), 0);
    uint8_t r[512];
    assert_int_equal(run(b, BLK_READ, len, r, 512), 0);
    assert_int_equal(r[0], 0x77);
    assert_int_equal(run(b, BLK_READ, 0, r, 512), 0);
    assert_int_equal(r[511], 1);
    blk_close(b);
}

static void ragged_tail_reads_zero_and_can_be_written(void **state)
{
    make_image(image, 1000);
    struct blk *b = open_image(false);
    assert_int_equal(b->size, 1024);
    uint8_t r[1024];
    memset(r, 0xff, sizeof r);
    assert_int_equal(run(b, BLK_READ, 0, r, sizeof r), 0);
    assert_int_equal(r[999], 2);
    for (unsigned i = 1000; i < 1024; i++)
        assert_int_equal(r[i], 0);
    memset(r, 9, 512);
    assert_int_equal(run(b, BLK_WRITE, 512, r, 512), 0);
    assert_int_equal(file_size(image), 1024);
    blk_close(b);
}

static void truncated_under_us_reads_zero(void **state)
{
    struct blk *b = open_image(false);
    assert_int_equal(truncate(image, 700), 0);
    uint8_t r[2048];
    memset(r, 0xff, sizeof r);
    assert_int_equal(run(b, BLK_READ, 0, r, sizeof r), 0);
    assert_int_equal(r[699], 2);
    assert_int_equal(r[700], 0);
    assert_int_equal(r[2047], 0);
    assert_int_equal(run(b, BLK_READ, IMAGE_SIZE - 512, r, 512), 0);
    assert_int_equal(r[0], 0);
    assert_int_equal(run(b, BLK_WRITE_ZEROES, 0, NULL, 0), 0);
    blk_close(b);
}

static void zeroing_and_discarding_keep_the_size(void **state)
{
    make_image(image, IMAGE_SIZE - 100);
    struct blk *b = open_image(false);
    struct op op;
    start(b, &op, BLK_WRITE_ZEROES, 512, IMAGE_SIZE - 512, NULL, 0);
    assert_int_equal(finish(&op), 0);
    start(b, &op, BLK_DISCARD, 0, 512, NULL, 0);
    assert_int_equal(finish(&op), 0);
    assert_int_equal(file_size(image), IMAGE_SIZE - 100);
    uint8_t r[512];
    for (uint64_t off = 512; off < IMAGE_SIZE; off += 512) {
        memset(r, 0xff, sizeof r);
        assert_int_equal(run(b, BLK_READ, off, r, 512), 0);
        assert_int_equal(r[0] | r[511], 0);
    }
    blk_close(b);
}

static void requests_outside_fail(void **state)
{
    struct blk *b = open_image(false);
    uint8_t r[1024];
    assert_int_equal(run(b, BLK_READ, IMAGE_SIZE - 512, r, 1024), -EINVAL);
    assert_int_equal(run(b, BLK_WRITE, IMAGE_SIZE, r, 512), -EINVAL);
    assert_int_equal(run(b, BLK_READ, UINT64_MAX - 100, r, 512), -EINVAL);
    struct op op;
    start(b, &op, BLK_DISCARD, 512, UINT64_MAX, NULL, 0);
    assert_int_equal(finish(&op), -EINVAL);
    assert_int_equal(file_size(image), IMAGE_SIZE);
    blk_close(b);
}

static void readonly_refuses_changes(void **state)
{
    chmod(image, 0400);
    struct blk *b = open_image(true);
    uint8_t r[512] = {0};
    assert_true(b->readonly);
    assert_int_equal(run(b, BLK_WRITE, 0, r, 512), -EROFS);
    struct op op;
    start(b, &op, BLK_DISCARD, 0, 512, NULL, 0);
    assert_int_equal(finish(&op), -EROFS);
    start(b, &op, BLK_WRITE_ZEROES, 0, 512, NULL, 0);
    assert_int_equal(finish(&op), -EROFS);
    assert_int_equal(run(b, BLK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(run(b, BLK_READ, 0, r, 512), 0);
    assert_int_equal(r[0], 1);
    blk_close(b);
}

static void many_requests_all_complete_once(void **state)
{
    enum { N = 100 };
    struct blk *b = open_image(false);
    static struct op op[N];
    static uint8_t buf[N][512];
    static struct iovec iov[N];
    for (unsigned i = 0; i < N; i++) {
        memset(buf[i], (int)i + 100, 512);
        iov[i] = (struct iovec){buf[i], 512};
        start(b, &op[i], BLK_WRITE, i * 512, 512, &iov[i], 1);
    }
    blk_close(b); /* waits for all of them */
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(op[i].calls, 1);
    b = open_image(true);
    uint8_t r[512];
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(run(b, BLK_READ, i * 512, r, 512), 0);
        assert_int_equal(r[7], i + 100);
    }
    blk_close(b);
}

/* Submits the same request again from `done`, as a device does that has more to do. */
static unsigned again;
static struct blk *again_blk;
static void on_done_again(struct blk_req *req, int result)
{
    struct op *op = req->arg;
    assert_int_equal(result, 0);
    if (++again < 20)
        blk_submit(again_blk, req);
    else
        on_done(&op->req, result);
}

static void done_may_submit(void **state)
{
    again = 0;
    again_blk = open_image(false);
    uint8_t r[512];
    struct iovec iov = {r, 512};
    struct op op = {
        .req = {
            .op = BLK_READ, .len = 512, .iov = &iov, .niov = 1, .done = on_done_again, .arg = &op}};
    pthread_mutex_lock(&dev_lock);
    blk_submit(again_blk, &op.req);
    pthread_mutex_unlock(&dev_lock);
    blk_close(again_blk);
    assert_int_equal(again, 20);
    assert_int_equal(op.calls, 1);
}

static void second_writer_is_refused(void **state)
{
    struct blk *b = open_image(false), *other = NULL;
    struct error e = {0};
    assert_int_equal(try_open(image, false, &other, &e), ERR_BUSY);
    assert_non_null(strstr(e.msg, image));
    assert_non_null(strstr(e.msg, "another disk of this VM"));
    assert_int_equal(try_open(image, true, &other, &e), ERR_BUSY);
    pid_t pid = fork();
    if (pid == 0)
        _exit(try_open(image, false, &other, &e) == ERR_BUSY ? 0 : 1);
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    blk_close(b);
    blk_close(open_image(false)); /* the lock is gone with it */
}

static void readers_share(void **state)
{
    struct blk *a = open_image(true), *b = open_image(true), *c = NULL;
    struct error e = {0};
    assert_int_equal(try_open(image, false, &c, &e), ERR_BUSY);
    blk_close(a);
    blk_close(b);
}

static void refuse(const char *path, bool readonly, int code, const char *says)
{
    struct blk *b = NULL;
    struct error e = {0};
    assert_int_equal(try_open(path, readonly, &b, &e), code);
    assert_null(b);
    if (!strstr(e.msg, says) || !strstr(e.msg, path))
        fail_msg("'%s' lacks '%s'", e.msg, says);
}

static void unusable_files_are_named(void **state)
{
    char path[128];
    refuse(dir, false, ERR_FORMAT, "directory");
    refuse(dir, true, ERR_FORMAT, "directory");
    refuse("/dev/null", false, ERR_FORMAT, "neither");
    refuse("/dev/zero", true, ERR_FORMAT, "neither");
    snprintf(path, sizeof path, "%s/absent", dir);
    refuse(path, false, ERR_IO, "no such file");
    snprintf(path, sizeof path, "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    refuse(path, false, ERR_FORMAT, "neither");
    refuse(path, true, ERR_FORMAT, "neither");
    unlink(path);
    make_image(image, 0);
    refuse(image, false, ERR_FORMAT, "empty");
}

/* In a process that may not have an io_uring, as in most containers. */
static int without_uring(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {ARRAY_LEN(code), code};
    struct blk *b = NULL;
    struct error e = {0};
    uint8_t r[512];
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
        return 2;
    io = DISK_IO_URING;
    if (try_open(image, false, &b, &e) != ERR_HOST || !strstr(e.msg, "no io_uring"))
        return 3;
    io = DISK_IO_AUTO;
    if (try_open(image, false, &b, &e) || run(b, BLK_READ, 512, r, 512) || r[0] != 2)
        return 4;
    blk_close(b);
    return 0;
}

static void a_host_without_uring(void **state)
{
    int status = 1;
    pid_t pid = fork();
    if (pid == 0)
        _exit(without_uring());
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
}

/* A node whose writes wait for each other: none ends before WAITERS are in it. */
#define WAITERS 4
static struct {
    pthread_mutex_t lock;
    pthread_cond_t news;
    unsigned came, late;
} meeting = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};

static int meet(struct node *n, const struct iovec *iov, int niov, uint64_t offset, unsigned flags)
{
    struct timespec end;
    int rc = 0;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 20;
    pthread_mutex_lock(&meeting.lock);
    unsigned round = meeting.came++ / WAITERS;
    pthread_cond_broadcast(&meeting.news);
    while (!rc && meeting.came < (round + 1) * WAITERS)
        rc = pthread_cond_timedwait(&meeting.news, &meeting.lock, &end);
    meeting.late += rc != 0;
    pthread_mutex_unlock(&meeting.lock);
    return -rc;
}

static int no_flush(struct node *n)
{
    return 0;
}

static void no_close(struct node *n)
{
}

/* Slow requests do not wait behind each other, the workers be new or asleep. */
static void slow_requests_side_by_side(void **state)
{
    static const struct node_ops ops = {
        .name = "meeting", .write = meet, .flush = no_flush, .close = no_close};
    struct node node = {.ops = &ops, .size = MIB, .fd = -1};
    uint8_t buf[512] = {0};
    struct iovec iov = {buf, sizeof buf};
    struct op op[WAITERS];
    struct error e = {0};
    struct blk *b = NULL;
    meeting.came = meeting.late = 0;
    assert_int_equal(disk_open(&node, &(struct disk_options){.io = io}, &dev_lock, &b, &e), 0);
    for (unsigned round = 0; round < 50; round++) {
        for (unsigned i = 0; i < WAITERS; i++)
            start(b, &op[i], BLK_WRITE, i * 4096, sizeof buf, &iov, 1);
        for (unsigned i = 0; i < WAITERS; i++)
            assert_int_equal(finish(&op[i]), 0);
    }
    assert_int_equal(meeting.late, 0);
    blk_close(b);
}

static void *drain(void *b)
{
    blk_drain(b);
    return b;
}

/* The wake-up of a worker waits until the device lock is free, and the disk waits for it. */
static void wakes_once_the_lock_is_free(void **state)
{
    static const struct node_ops ops = {.name = "null", .flush = no_flush, .close = no_close};
    struct node node = {.ops = &ops, .size = MIB, .fd = -1};
    struct deferred_list deferred = {0};
    const struct disk_options o = {.io = io, .deferred = &deferred};
    struct op op = {.req = {.op = BLK_FLUSH, .done = on_done, .arg = &op}};
    struct error e = {0};
    struct blk *b = NULL;
    pthread_t drainer;
    unsigned put_off = 0;
    assert_int_equal(disk_open(&node, &o, &dev_lock, &b, &e), 0);
    assert_int_equal(run(b, BLK_FLUSH, 0, NULL, 0), 0); /* nobody put it off */
    for (unsigned round = 0; round < 50; round++) {
        usleep(1000); /* the worker sleeps, mostly */
        op.calls = 0;
        pthread_mutex_lock(&dev_lock);
        deferred_open(&deferred);
        blk_submit(b, &op.req);
        struct deferred *jobs = deferred_close(&deferred);
        pthread_mutex_unlock(&dev_lock);
        put_off += jobs != NULL;
        assert_int_equal(pthread_create(&drainer, NULL, drain, b), 0);
        assert_int_equal(finish(&op), 0); /* who waits wakes it */
        if (jobs)
            assert_int_not_equal(pthread_tryjoin_np(drainer, NULL), 0);
        deferred_run(jobs);
        assert_int_equal(pthread_join(drainer, NULL), 0);
    }
    assert_int_not_equal(put_off, 0);
    blk_close(b);
}

/* Not where the kernel lacks it, or its administrator or a container forbids it. */
static bool has_uring(void)
{
    const enum disk_io want = DISK_IO_URING;
    void *state = (void *)(uintptr_t)&want;
    struct blk *b = NULL;
    struct error e = {0};
    setup(&state);
    int rc = try_open(image, true, &b, &e);
    blk_close(b);
    teardown(NULL);
    return rc == 0;
}

int main(void)
{
    log_set_level(LOG_ERROR);
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(reads_and_writes),
        T(scatters_over_more_segments_than_one_call_takes),
        T(ragged_tail_reads_zero_and_can_be_written),
        T(truncated_under_us_reads_zero),
        T(zeroing_and_discarding_keep_the_size),
        T(requests_outside_fail),
        T(readonly_refuses_changes),
        T(many_requests_all_complete_once),
        T(done_may_submit),
        T(second_writer_is_refused),
        T(readers_share),
        T(unusable_files_are_named),
        T(a_host_without_uring),
        T(slow_requests_side_by_side),
        T(wakes_once_the_lock_is_free),
    };
    static const enum disk_io ways[] = {DISK_IO_URING, DISK_IO_THREADS};
    struct CMUnitTest all[2 * ARRAY_LEN(tests)];
    static char name[ARRAY_LEN(all)][96];
    size_t n = 0;
    for (unsigned way = !has_uring(); way < 2; way++)
        for (size_t i = 0; i < ARRAY_LEN(tests); i++) {
            snprintf(name[n], sizeof name[n], "%s, %s", tests[i].name,
                     way ? "threads" : "io_uring");
            all[n] = tests[i];
            all[n].initial_state = (void *)(uintptr_t)&ways[way];
            all[n].name = name[n];
            n++;
        }
    return _cmocka_run_group_tests("disk", all, n, NULL, NULL);
}
