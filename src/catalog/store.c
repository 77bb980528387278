/* store.c - see store.h. */
#define _GNU_SOURCE
#include "catalog/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"

#define MAX_DEPTH 16 /* of folders that are removed */

const char *store_path(int dir, const char *name, char out[STORE_PATH])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    ssize_t n = dir == AT_FDCWD ? 0 : readlink(link, out, STORE_PATH - 2);
    if (n < 0)
        n = 0;
    if (n > 0 && name[0])
        out[n++] = '/';
    snprintf(out + n, STORE_PATH - (size_t)n, "%s", name);
    return out;
}

static int fails(struct error *e, int errnum, const char *what, int dir, const char *name)
{
    char path[STORE_PATH];
    return error_file(e, errnum, "%s: %s", store_path(dir, name, path), what);
}

int store_read(int dir, const char *name, size_t max, char **text, size_t *len, struct error *e)
{
    struct stat st;
    CLEANUP_CLOSE int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) < 0)
        return fails(e, errno, "cannot read it", dir, name);
    if (!S_ISREG(st.st_mode))
        return fails(e, EINVAL, "not a file", dir, name);
    if ((uint64_t)st.st_size > max)
        return error_set(e, ERR_LIMIT, "%s is larger than %zu bytes", name, max);
    size_t cap = (size_t)st.st_size, got = 0;
    CLEANUP_FREE char *buf = malloc(cap + 1);
    if (!buf)
        return error_set(e, ERR_NOMEM, "out of memory for %s", name);
    while (got < cap) {
        ssize_t n = read(fd, buf + got, cap - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fails(e, errno, "cannot read it", dir, name);
        if (n == 0)
            break;
        got += (size_t)n;
    }
    buf[got] = 0;
    *text = buf;
    *len = got;
    buf = NULL;
    return 0;
}

/* 0 or errno. */
static int write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        text += n;
        len -= (size_t)n;
    }
    return fsync(fd) < 0 && errno != EINVAL ? errno : 0;
}

static int write_file(int dir, const char *name, int flags, const char *text, size_t len)
{
    CLEANUP_CLOSE int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);
    return fd < 0 ? errno : write_all(fd, text, len);
}

int store_write_new(int dir, const char *name, const char *text, size_t len, struct error *e)
{
    int err = write_file(dir, name, O_EXCL, text, len);
    return err ? fails(e, err, "cannot write it", dir, name) : 0;
}

int store_write(int dir, const char *name, const char *text, size_t len, struct error *e)
{
    char temp[128];
    snprintf(temp, sizeof temp, ".%.80s.%d.part", name, (int)getpid());
    unlinkat(dir, temp, 0); /* of a process that had our number and was killed */
    int err = write_file(dir, temp, O_EXCL, text, len);
    if (!err && renameat(dir, temp, dir, name) < 0)
        err = errno;
    if (err) {
        unlinkat(dir, temp, 0);
        return fails(e, err, "cannot write it", dir, name);
    }
    return store_sync(dir, e);
}

/* ".NAME.PID.part" */
static bool is_part_of(const char *file, const char *name)
{
    size_t len = strlen(name);
    if (file[0] != '.' || strncmp(file + 1, name, len) != 0 || file[len + 1] != '.')
        return false;
    const char *pid = file + len + 2;
    size_t digits = strspn(pid, "0123456789");
    return digits > 0 && strcmp(pid + digits, ".part") == 0;
}

void store_sweep(int dir, const char *const *name)
{
    DIR *d = store_list(dir, ".");
    for (struct dirent *f; d && (f = readdir(d));)
        for (unsigned i = 0; name[i]; i++)
            if (is_part_of(f->d_name, name[i]))
                unlinkat(dir, f->d_name, 0);
    if (d)
        closedir(d);
}

int store_sync(int dir, struct error *e)
{
    if (fsync(dir) < 0 && errno != EINVAL)
        return fails(e, errno, "cannot be made durable", dir, "");
    return 0;
}

int store_folder(int dir, const char *name, bool make, struct error *e)
{
    if (make && mkdirat(dir, name, 0777) < 0 && errno != EEXIST)
        return fails(e, errno, "cannot make the folder", dir, name);
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? fails(e, errno, "cannot open the folder", dir, name) : fd;
}

DIR *store_list(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d && fd >= 0) {
        int err = errno;
        close(fd);
        errno = err;
    }
    return d;
}

static int remove_at(int dir, const char *name, unsigned depth)
{
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM && errno != ENOTEMPTY)
        return errno;
    if (depth >= MAX_DEPTH)
        return ELOOP;
    DIR *d = store_list(dir, name);
    int err = d ? 0 : errno;
    if (!d)
        return err;
    for (struct dirent *f; !err && (f = readdir(d));)
        if (strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0)
            err = remove_at(dirfd(d), f->d_name, depth + 1);
    closedir(d);
    return !err && unlinkat(dir, name, AT_REMOVEDIR) < 0 ? errno : err;
}

int store_remove(int dir, const char *name, struct error *e)
{
    int err = remove_at(dir, name, 0);
    if (err)
        return fails(e, err, "cannot remove it", dir, name);
    return store_sync(dir, e);
}

int store_rename(int from_dir, const char *from, int to_dir, const char *to, struct error *e)
{
    struct stat st;
    int err = 0;
    if (renameat2(from_dir, from, to_dir, to, RENAME_NOREPLACE) < 0)
        err = errno;
    if (err == EINVAL) { /* a file system without that flag; the catalog's lock is held */
        err = fstatat(to_dir, to, &st, AT_SYMLINK_NOFOLLOW) == 0 ? EEXIST : 0;
        if (!err && renameat(from_dir, from, to_dir, to) < 0)
            err = errno;
    }
    if (err == EEXIST || err == ENOTEMPTY)
        return error_set(e, ERR_BUSY, "there is a \"%s\" already", to);
    if (err)
        return fails(e, err, "cannot rename it", from_dir, from);
    int rc = store_sync(to_dir, e);
    return rc == 0 && from_dir != to_dir ? store_sync(from_dir, e) : rc;
}

int store_copy(int from, int to, const char *name, struct error *e)
{
    struct stat st;
    if (fstat(from, &st) < 0)
        return error_file(e, errno, "%s: cannot read it", name);
    for (off_t left = st.st_size; left > 0;) {
        ssize_t n = copy_file_range(from, NULL, to, NULL, (size_t)left, 0);
        if (n <= 0)
            return error_file(e, n < 0 ? errno : EIO, "%s: cannot write the copy", name);
        left -= n;
    }
    return fsync(to) < 0 ? error_file(e, errno, "%s: cannot write the copy", name) : 0;
}
