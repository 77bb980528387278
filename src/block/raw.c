/*
 * raw.c - a raw image file or block device, behind block.h.
 *
 * Requests wait in one FIFO that at most two I/O threads empty. The first thread starts when the
 * disk is opened, so that a host without threads to spare says so there and then; the second starts
 * when a request finds nobody idle.
 *
 * Invariants:
 *  1. The queue and all counters are owned by `lock`. Lock order: device lock, then `lock`; an I/O
 *     thread holds neither during a system call and never takes the device lock inside `lock`.
 *  2. A flush that failed is never followed by one that succeeds: after a failed fdatasync(2) the
 *     kernel may drop the dirty pages and report success the next time, which would break the
 *     promise that flushed data is durable.
 *  3. Discarding and zeroing never change the file's length. Reads beyond the end of a file (its
 *     ragged tail, or a file that somebody truncated) give zeroes; a write there extends it.
 */
#define _GNU_SOURCE
#include "block/block.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/checked.h"
#include "base/endian.h"
#include "base/log.h"

#define MAX_THREADS  2
#define THREAD_STACK (256 * KIB)
#define SECTOR       512u
#define IOV_BATCH    128 /* segments for one system call; IOV_MAX is 1024 */
#define ZERO_CHUNK   (64 * KIB)

struct raw {
    struct blk blk;
    int fd;
    char *path;
    pthread_mutex_t *dev_lock;
    atomic_int flush_error; /* errno of the first failed flush, invariant 2 */
    pthread_mutex_t lock;
    pthread_cond_t wake;    /* the queue is not empty, or `closing` */
    pthread_cond_t drained; /* `inflight` is 0 */
    struct blk_req *head, *tail;
    unsigned queued, idle, nthreads, max_threads;
    unsigned inflight; /* submitted, `done` has not returned */
    bool closing;
    pthread_t thread[MAX_THREADS];
};

static const uint8_t zeroes[ZERO_CHUNK];

static struct raw *raw_of(struct blk *b)
{
    return CONTAINER_OF(b, struct raw, blk);
}

/* Where a transfer stands in the caller's segments, which are not modified. */
struct cursor {
    const struct iovec *iov;
    int niov;
    size_t skip; /* bytes of iov[0] already done */
};

static void cursor_advance(struct cursor *c, size_t n)
{
    while (c->niov > 0 && n >= c->iov->iov_len - c->skip) {
        n -= c->iov->iov_len - c->skip;
        c->iov++;
        c->niov--;
        c->skip = 0;
    }
    c->skip += n;
}

/* Up to IOV_BATCH of the remaining segments; returns how many. */
static int cursor_batch(const struct cursor *c, struct iovec *out)
{
    int n = c->niov < IOV_BATCH ? c->niov : IOV_BATCH;
    memcpy(out, c->iov, (size_t)n * sizeof *out);
    if (n) {
        out[0].iov_base = (uint8_t *)out[0].iov_base + c->skip;
        out[0].iov_len -= c->skip;
    }
    return n;
}

static void zero_rest(const struct cursor *c)
{
    size_t skip = c->skip;
    for (int i = 0; i < c->niov; i++, skip = 0)
        memset((uint8_t *)c->iov[i].iov_base + skip, 0, c->iov[i].iov_len - skip);
}

static int do_read(struct raw *r, const struct blk_req *req)
{
    struct cursor c = {req->iov, req->niov, 0};
    uint64_t off = req->offset;
    cursor_advance(&c, 0); /* past empty segments */
    while (c.niov > 0) {
        struct iovec batch[IOV_BATCH];
        int n = cursor_batch(&c, batch);
        ssize_t got = preadv(r->fd, batch, n, (off_t)off);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0) {
            zero_rest(&c);
            return 0;
        }
        cursor_advance(&c, (size_t)got);
        off += (uint64_t)got;
    }
    return 0;
}

static int do_write(struct raw *r, const struct blk_req *req)
{
    struct cursor c = {req->iov, req->niov, 0};
    uint64_t off = req->offset;
    cursor_advance(&c, 0);
    while (c.niov > 0) {
        struct iovec batch[IOV_BATCH];
        int n = cursor_batch(&c, batch);
        ssize_t put = pwritev(r->fd, batch, n, (off_t)off);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        if (put == 0) /* a device at its end; looping would not end */
            return -ENOSPC;
        cursor_advance(&c, (size_t)put);
        off += (uint64_t)put;
    }
    return 0;
}

static int do_flush(struct raw *r)
{
    int failed = atomic_load(&r->flush_error);
    if (failed)
        return -failed;
    while (fdatasync(r->fd) < 0) {
        if (errno == EINTR)
            continue;
        int err = errno;
        atomic_store(&r->flush_error, err);
        log_error("%s: cannot make writes durable: %s; every later flush of this disk will fail",
                  r->path, strerror(err));
        return -err;
    }
    return 0;
}

/* errno values that say "not here" rather than "it went wrong". */
static bool unsupported(int err)
{
    return err == EOPNOTSUPP || err == ENOSYS || err == EINVAL || err == ENODEV || err == ENOTTY;
}

/* Deallocates; what was there reads as zeroes. */
static int punch(struct raw *r, const struct blk_req *req)
{
    while (fallocate(r->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)req->offset,
                     (off_t)req->len) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return 0;
}

/* The present end of the file. A block device does not change its size. */
static int present_size(const struct raw *r, uint64_t *size)
{
    struct stat st;
    if (fstat(r->fd, &st) < 0)
        return -errno;
    *size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : r->blk.size;
    return 0;
}

static int do_discard(struct raw *r, const struct blk_req *req)
{
    int rc = punch(r, req);
    return unsupported(-rc) ? 0 : rc; /* a discard is a hint */
}

static int do_write_zeroes(struct raw *r, const struct blk_req *req)
{
    int rc = punch(r, req);
    if (!unsupported(-rc))
        return rc;
    uint64_t size = 0, off = req->offset;
    rc = present_size(r, &size);
    if (rc)
        return rc;
    uint64_t end = min_u64(off + req->len, size);
    while (off < end) {
        ssize_t put = pwrite(r->fd, zeroes, min_u64(end - off, sizeof zeroes), (off_t)off);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? -errno : -ENOSPC;
        off += (uint64_t)put;
    }
    return 0;
}

static int perform(struct raw *r, const struct blk_req *req)
{
    if (req->op == BLK_FLUSH)
        return r->blk.readonly ? 0 : do_flush(r);
    if (!range_within(req->offset, req->len, r->blk.size))
        return -EINVAL;
    if (req->op == BLK_READ)
        return do_read(r, req);
    if (r->blk.readonly)
        return -EROFS;
    if (req->len == 0)
        return 0;
    int result = 0;
    switch (req->op) {
    case BLK_WRITE:
        result = do_write(r, req);
        break;
    case BLK_DISCARD:
        return do_discard(r, req);
    case BLK_WRITE_ZEROES:
        result = do_write_zeroes(r, req);
        break;
    default:
        return -ENOTSUP;
    }
    return result || !req->fua ? result : do_flush(r);
}

/* Waits for a request and takes it off the queue; NULL: closing and nothing is left. */
static struct blk_req *take(struct raw *r)
{
    pthread_mutex_lock(&r->lock);
    r->idle++;
    while (!r->head && !r->closing)
        pthread_cond_wait(&r->wake, &r->lock);
    r->idle--;
    struct blk_req *req = r->head;
    if (req) {
        r->head = req->next;
        r->queued--;
    }
    pthread_mutex_unlock(&r->lock);
    return req;
}

static void *io_thread(void *arg)
{
    struct raw *r = arg;
    struct blk_req *req;
    while ((req = take(r))) {
        int result = perform(r, req);
        pthread_mutex_lock(r->dev_lock);
        req->done(req, result);
        pthread_mutex_unlock(r->dev_lock);
        pthread_mutex_lock(&r->lock);
        if (--r->inflight == 0)
            pthread_cond_broadcast(&r->drained);
        pthread_mutex_unlock(&r->lock);
    }
    return NULL;
}

/* Signals are for the threads of the VMM that expect them, so an I/O thread blocks them all. */
static int start_thread(struct raw *r)
{
    sigset_t all, old;
    pthread_attr_t attr;
    int err = pthread_attr_init(&attr);
    if (err)
        return err;
    pthread_attr_setstacksize(&attr, THREAD_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&r->thread[r->nthreads], &attr, io_thread, r);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (!err)
        r->nthreads++;
    return err;
}

static void raw_submit(struct blk *b, struct blk_req *req)
{
    struct raw *r = raw_of(b);
    req->next = NULL;
    pthread_mutex_lock(&r->lock);
    if (r->head)
        r->tail->next = req;
    else
        r->head = req;
    r->tail = req;
    r->queued++;
    r->inflight++;
    if (r->queued > r->idle && r->nthreads < r->max_threads && start_thread(r))
        r->max_threads = r->nthreads; /* no more to be had: the first one does it all */
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

static void raw_drain(struct blk *b)
{
    struct raw *r = raw_of(b);
    pthread_mutex_lock(&r->lock);
    while (r->inflight)
        pthread_cond_wait(&r->drained, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

static void raw_free(struct raw *r)
{
    if (r->fd >= 0)
        close(r->fd); /* gives up the lock */
    pthread_cond_destroy(&r->drained);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    free(r->path);
    free(r);
}

static void raw_close(struct blk *b)
{
    struct raw *r = raw_of(b);
    pthread_mutex_lock(&r->lock);
    r->closing = true;
    r->max_threads = r->nthreads; /* a `done` that submits again starts no thread now */
    pthread_cond_broadcast(&r->wake);
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < r->nthreads; i++)
        pthread_join(r->thread[i], NULL);
    if (!b->readonly)
        do_flush(r); /* has logged what went wrong */
    raw_free(r);
}

static const struct blk_driver raw_driver = {"raw", raw_submit, raw_close, raw_drain};

static int open_file(const char *path, bool readonly, int *fd, struct error *e)
{
    /* O_NONBLOCK: a FIFO given by mistake must not hang us; regular files and disks ignore it. */
    *fd = open(path, (readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*fd >= 0)
        return 0;
    switch (errno) {
    case ENOENT:
        return error_set(e, ERR_IO,
                         "%s: no such file; check the path, or make an empty 10 GiB disk with: "
                         "truncate -s 10G '%s'",
                         path, path);
    case EISDIR:
        return error_set(e, ERR_FORMAT, "%s: is a directory, not a disk image", path);
    case EACCES:
    case EPERM:
    case EROFS:
        return error_errno(e, ERR_IO, errno, "%s: cannot open for %s%s", path,
                           readonly ? "reading" : "writing",
                           readonly ? "" : " (a disk that is only read needs 'readonly: yes')");
    default:
        return error_errno(e, ERR_IO, errno, "%s: cannot open the disk image", path);
    }
}

static int find_size(const char *path, int fd, uint64_t *size, struct error *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_errno(e, ERR_IO, errno, "%s: cannot find its size", path);
    if (S_ISDIR(st.st_mode))
        return error_set(e, ERR_FORMAT, "%s: is a directory, not a disk image", path);
    if (S_ISREG(st.st_mode))
        *size = (uint64_t)st.st_size;
    else if (!S_ISBLK(st.st_mode))
        return error_set(e, ERR_FORMAT, "%s: is neither a regular file nor a block device", path);
    else if (ioctl(fd, BLKGETSIZE64, size) < 0)
        return error_errno(e, ERR_IO, errno, "%s: cannot find its size", path);
    if (*size == 0)
        return error_set(e, ERR_FORMAT,
                         "%s: is empty; a disk has a size, give it one with: truncate -s 10G '%s'",
                         path, path);
    *size = (*size + SECTOR - 1) & ~(uint64_t)(SECTOR - 1);
    return 0;
}

static int lock_file(const char *path, int fd, bool readonly, struct error *e)
{
    struct flock fl = {.l_type = readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
        return 0;
    if (errno == EAGAIN || errno == EACCES)
        return error_set(e, ERR_BUSY,
                         "%s: another process uses it (or another disk of this VM is the same "
                         "file); two writers would destroy its contents. Stop the other VM, or "
                         "give each its own copy",
                         path);
    log_warn("%s: cannot lock it (%s): nothing stops a second VM from using it too", path,
             strerror(errno));
    return 0;
}

/* A qcow2 image served as raw boots nothing, and the reason is hard to guess. */
static void warn_if_qcow2(const char *path, int fd)
{
    uint8_t magic[4];
    if (pread(fd, magic, sizeof magic, 0) == sizeof magic && load_be32(magic) == 0x514649fb)
        log_warn("%s: looks like a qcow2 image but is used as a raw one; convert it with: "
                 "qemu-img convert -O raw",
                 path);
}

int blk_open_raw(const char *path, bool readonly, pthread_mutex_t *dev_lock, struct blk **out,
                 struct error *e)
{
    CLEANUP_CLOSE int fd = -1;
    uint64_t size = 0;
    int rc = open_file(path, readonly, &fd, e);
    if (rc)
        return rc;
    rc = find_size(path, fd, &size, e);
    if (rc)
        return rc;
    rc = lock_file(path, fd, readonly, e);
    if (rc)
        return rc;
    warn_if_qcow2(path, fd);

    struct raw *r = calloc(1, sizeof *r);
    char *name = strdup(path);
    if (!r || !name) {
        free(r);
        free(name);
        return error_set(e, ERR_NOMEM, "%s: out of memory", path);
    }
    *r = (struct raw){.blk = {&raw_driver, size, readonly},
                      .fd = fd,
                      .path = name,
                      .dev_lock = dev_lock,
                      .max_threads = MAX_THREADS};
    fd = -1; /* owned by r now */
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->wake, NULL);
    pthread_cond_init(&r->drained, NULL);
    int err = start_thread(r);
    if (err) {
        raw_free(r);
        return error_errno(e, ERR_HOST, err, "%s: cannot start an I/O thread", path);
    }
    *out = &r->blk;
    return 0;
}
