/*
 * file.c - a regular file or a block device as a node.
 *
 * Invariants:
 *  1. A flush that failed is never followed by one that succeeds: after a failed fdatasync(2) the
 *     kernel may drop the dirty pages and report success the next time, which would break the
 *     promise that flushed data is durable. The same holds for a write that was to be durable.
 *  2. Discarding never changes the file's length; writing and zeroing extend it. No call makes it
 *     shorter but resize, so extending needs no lock: it is always a write at the new end.
 *  3. `size` is the greatest end that we know of. Reads ask the kernel, not `size`: a file that
 *     somebody truncated reads as zeroes from there on.
 */
#define _GNU_SOURCE
#include "block/io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "block/io/lock.h"
#include "block/iov.h"

#define IOV_BATCH  128 /* segments for one system call; IOV_MAX is 1024 */
#define ZERO_CHUNK (64 * KIB)

struct file {
    struct node node;
    char *path;
    bool device;
    atomic_int flush_error;   /* errno of the first failed flush, invariant 1 */
    atomic_bool dirty;        /* written since the last flush began */
    atomic_bool cannot_punch; /* the file system refused it once */
    atomic_bool cannot_zero;  /* likewise FALLOC_FL_ZERO_RANGE */
    atomic_bool cannot_seek;  /* likewise SEEK_DATA */
};

static const uint8_t zeroes[ZERO_CHUNK];

static struct file *file_of(struct node *n)
{
    return CONTAINER_OF(n, struct file, node);
}

/* errno values that say "not here" rather than "it went wrong". */
static bool unsupported(int err)
{
    return err == EOPNOTSUPP || err == ENOSYS || err == EINVAL || err == ENODEV || err == ENOTTY;
}

static int file_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct iov_cursor c = {iov, niov, 0};
    iov_advance(&c, 0);
    while (c.niov > 0) {
        struct iovec batch[IOV_BATCH];
        uint64_t len = 0;
        int k = iov_slice(&c, INT64_MAX, batch, IOV_BATCH, &len);
        ssize_t got = preadv(n->fd, batch, k, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0) {
            iov_zero(&c, UINT64_MAX);
            return 0;
        }
        iov_advance(&c, (size_t)got);
        offset += (uint64_t)got;
    }
    return 0;
}

static int flush_failed(struct file *f, int err)
{
    int none = 0;
    if (atomic_compare_exchange_strong(&f->flush_error, &none, err))
        log_error("%s: cannot make writes durable: %s; every later flush of this disk will fail",
                  f->path, strerror(err));
    return -err;
}

static void grow_to(struct node *n, uint64_t end)
{
    uint64_t size = node_size(n);
    while (size < end && !__atomic_compare_exchange_n(&n->size, &size, end, true, __ATOMIC_RELAXED,
                                                      __ATOMIC_RELAXED))
        continue;
}

static int file_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                      unsigned flags)
{
    struct file *f = file_of(n);
    struct iov_cursor c = {iov, niov, 0};
    int failed = atomic_load(&f->flush_error);
    if ((flags & NODE_FUA) && failed)
        return -failed;
    atomic_store(&f->dirty, true);
    iov_advance(&c, 0);
    while (c.niov > 0) {
        struct iovec batch[IOV_BATCH];
        uint64_t len = 0;
        int k = iov_slice(&c, INT64_MAX, batch, IOV_BATCH, &len);
        ssize_t put = pwritev2(n->fd, batch, k, (off_t)offset, flags & NODE_FUA ? RWF_DSYNC : 0);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return flags & NODE_FUA && errno == EIO ? flush_failed(f, errno) : -errno;
        if (put == 0) /* a device at its end; looping would not end */
            return -ENOSPC;
        iov_advance(&c, (size_t)put);
        offset += (uint64_t)put;
    }
    if (!f->device)
        grow_to(n, offset);
    return 0;
}

static int file_flush(struct node *n)
{
    struct file *f = file_of(n);
    int failed = atomic_load(&f->flush_error);
    if (failed)
        return -failed;
    atomic_store(&f->dirty, false);
    while (fdatasync(n->fd) < 0)
        if (errno != EINTR)
            return flush_failed(f, errno);
    return 0;
}

/* fallocate(2) without a change of the length. */
static int allocate(struct node *n, int mode, uint64_t offset, uint64_t len)
{
    atomic_store(&file_of(n)->dirty, true);
    while (fallocate(n->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)len) < 0)
        if (errno != EINTR)
            return -errno;
    return 0;
}

/* As allocate(); -EOPNOTSUPP: there is no such thing for these bytes. */
static int try_allocate(struct node *n, atomic_bool *cannot, int mode, uint64_t offset,
                        uint64_t len)
{
    if (atomic_load(cannot))
        return -EOPNOTSUPP;
    int rc = allocate(n, mode, offset, len);
    if (!rc || !unsupported(-rc))
        return rc;
    if (rc != -EINVAL) /* which may be about these bytes alone */
        atomic_store(cannot, true);
    return -EOPNOTSUPP;
}

static int write_zeroes(struct node *n, uint64_t offset, uint64_t end)
{
    while (offset < end) {
        ssize_t put =
            pwrite(n->fd, zeroes, (size_t)min_u64(end - offset, sizeof zeroes), (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return put < 0 ? -errno : -ENOSPC;
        offset += (uint64_t)put;
    }
    return 0;
}

/* The present end of the file. A block device does not change its size. */
static int present_size(struct node *n, uint64_t *size)
{
    struct stat st;
    if (fstat(n->fd, &st) < 0)
        return -errno;
    *size = file_of(n)->device ? node_size(n) : (uint64_t)st.st_size;
    return 0;
}

static int file_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct file *f = file_of(n);
    uint64_t size = 0, end = offset + len;
    int rc = present_size(n, &size);
    if (rc)
        return rc;
    atomic_store(&f->dirty, true);
    uint64_t inside = offset < size ? min_u64(end, size) - offset : 0;
    rc = inside ? -EOPNOTSUPP : 0;
    if (rc && (flags & NODE_MAY_UNMAP))
        rc = try_allocate(n, &f->cannot_punch, FALLOC_FL_PUNCH_HOLE, offset, inside);
    if (rc == -EOPNOTSUPP)
        rc = try_allocate(n, &f->cannot_zero, FALLOC_FL_ZERO_RANGE, offset, inside);
    if (rc == -EOPNOTSUPP)
        rc = write_zeroes(n, offset, offset + inside);
    if (!rc && end > size) {
        rc = write_zeroes(n, end - 1, end);
        if (!rc)
            grow_to(n, end);
    }
    return rc || !(flags & NODE_FUA) ? rc : file_flush(n);
}

static int file_discard(struct node *n, uint64_t offset, uint64_t len)
{
    int rc = try_allocate(n, &file_of(n)->cannot_punch, FALLOC_FL_PUNCH_HOLE, offset, len);
    return rc == -EOPNOTSUPP ? 0 : rc; /* a hint */
}

static int file_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    struct file *f = file_of(n);
    *out = (struct node_extent){
        .kind = NODE_DATA, .len = len, .placed = true, .below = n, .where = offset};
    if (atomic_load(&f->cannot_seek))
        return 0;
    off_t data = lseek(n->fd, (off_t)offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO) { /* no data from here on */
        *out = (struct node_extent){.kind = NODE_HOLE, .len = len};
        return 0;
    }
    if (data < 0) {
        atomic_store(&f->cannot_seek, true);
        return 0;
    }
    if ((uint64_t)data > offset) {
        *out =
            (struct node_extent){.kind = NODE_HOLE, .len = min_u64(len, (uint64_t)data - offset)};
        return 0;
    }
    off_t hole = lseek(n->fd, (off_t)offset, SEEK_HOLE);
    if (hole > (off_t)offset)
        out->len = min_u64(len, (uint64_t)hole - offset);
    return 0;
}

static int file_resize(struct node *n, uint64_t size, struct error *e)
{
    struct file *f = file_of(n);
    if (f->device)
        return error_set(e, ERR_STATE, "%s: is a block device, whose size is the host's affair",
                         f->path);
    atomic_store(&f->dirty, true);
    while (ftruncate(n->fd, (off_t)size) < 0)
        if (errno != EINTR)
            return error_errno(e, ERR_IO, errno, "%s: cannot change its size", f->path);
    __atomic_store_n(&n->size, size, __ATOMIC_RELAXED);
    return 0;
}

static bool file_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                         struct node_place *out)
{
    if (write) {
        if (!range_within(offset, len, node_size(n)))
            return false; /* `size` has to follow */
        atomic_store(&file_of(n)->dirty, true);
    }
    *out = (struct node_place){n, offset, len};
    return true;
}

static int file_freeze(struct node *n)
{
    int rc = file_flush(n);
    if (!rc)
        lock_share(n->fd);
    return rc;
}

static void file_close(struct node *n)
{
    struct file *f = file_of(n);
    if (!n->readonly && atomic_load(&f->dirty))
        file_flush(n); /* has logged what went wrong */
    if (n->fd >= 0)
        close(n->fd); /* gives up the lock */
    free(f->path);
    free(f);
}

static const struct node_ops file_ops = {
    .name = "file",
    .read = file_read,
    .write = file_write,
    .flush = file_flush,
    .zero = file_zero,
    .discard = file_discard,
    .map = file_map,
    .resize = file_resize,
    .resolve = file_resolve,
    .freeze = file_freeze,
    .close = file_close,
};

static int cannot_open(const char *path, const struct file_options *o, struct error *e)
{
    switch (errno) {
    case EEXIST:
        return error_set(e, ERR_BUSY, "%s: there is such a file already", path);
    case ENOENT:
        if (o->create)
            return error_errno(e, ERR_IO, ENOENT, "%s: cannot make it", path);
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
                           o->readonly ? "reading" : "writing",
                           o->readonly ? "" : " (a disk that is only read needs 'readonly: yes')");
    default:
        return error_errno(e, ERR_IO, errno, "%s: cannot open the disk image", path);
    }
}

static int find_size(const char *path, int fd, struct file *f, struct error *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_errno(e, ERR_IO, errno, "%s: cannot find its size", path);
    if (S_ISDIR(st.st_mode))
        return error_set(e, ERR_FORMAT, "%s: is a directory, not a disk image", path);
    if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return error_set(e, ERR_FORMAT, "%s: is neither a regular file nor a block device", path);
    f->device = S_ISBLK(st.st_mode);
    f->node.size = (uint64_t)st.st_size;
    if (f->device && ioctl(fd, BLKGETSIZE64, &f->node.size) < 0)
        return error_errno(e, ERR_IO, errno, "%s: cannot find its size", path);
    /* O_NONBLOCK has done its duty. io_uring would take it as a wish for EAGAIN. */
    int fl = fcntl(fd, F_GETFL);
    if (fl < 0 || fcntl(fd, F_SETFL, fl & ~O_NONBLOCK) < 0)
        return error_errno(e, ERR_IO, errno, "%s: cannot set its flags", path);
    return 0;
}

/* Takes over `fd` when it succeeds. */
static int make_node(int fd, const char *path, bool readonly, struct node **out, struct error *e)
{
    struct file *f = calloc(1, sizeof *f);
    char *name = strdup(path);
    int rc =
        f && name ? find_size(path, fd, f, e) : error_set(e, ERR_NOMEM, "%s: out of memory", path);
    if (rc) {
        free(f);
        free(name);
        return rc;
    }
    f->node.ops = &file_ops;
    f->node.readonly = readonly;
    f->node.grows = true;
    f->node.fd = fd;
    f->path = name;
    *out = &f->node;
    return 0;
}

int file_open(const char *path, const struct file_options *o, struct node **out, struct error *e)
{
    /* O_NONBLOCK: a FIFO given by mistake must not hang us. */
    int flags = (o->readonly ? O_RDONLY : O_RDWR) | (o->create ? O_CREAT | O_EXCL : 0);
    flags |= o->unnamed ? O_TMPFILE : 0;
    CLEANUP_CLOSE int fd = open(path, flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
    if (fd < 0)
        return cannot_open(path, o, e);
    struct node *n = NULL;
    int rc = make_node(fd, path, o->readonly, &n, e);
    if (rc)
        return rc;
    fd = -1; /* the node's */
    if (!o->unlocked)
        rc = lock_take(path, n->fd, o->readonly, e);
    if (rc)
        node_close(n);
    else
        *out = n;
    return rc;
}

int file_adopt(int fd, const char *name, struct node **out, struct error *e)
{
    CLEANUP_CLOSE int given = fd;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || (flags & O_ACCMODE) != O_RDWR || flags & (O_PATH | O_APPEND))
        return error_set(e, ERR_FORMAT, "%s: is not open for reading and writing", name);
    if (!lock_is_ours(fd))
        return error_set(e, ERR_BUSY, "%s: is in use", name);
    int rc = make_node(fd, name, false, out, e);
    if (!rc)
        given = -1;
    return rc;
}
