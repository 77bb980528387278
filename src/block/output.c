/* output.c - files that appear when they are complete. */
#define _GNU_SOURCE
#include "block/output.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/io/file.h"
#include "block/io/lock.h"

#define STALE_SECONDS 60

static int exists(const char *path, struct error *e)
{
    return error_set(e, ERR_BUSY, "%s: there is such a file already; remove it first", path);
}

/* What a hidden name begins with: ".NAME."; allocated. */
static char *hidden_prefix(const char *path)
{
    CLEANUP_FREE char *name = strdup(path);
    char *prefix = NULL;
    return name && asprintf(&prefix, ".%.200s.", basename(name)) >= 0 ? prefix : NULL;
}

static char *hidden_name(const char *path)
{
    CLEANUP_FREE char *folder = strdup(path);
    CLEANUP_FREE char *prefix = hidden_prefix(path);
    char *name = NULL;
    return folder && prefix &&
                   asprintf(&name, "%s/%s%d.part", dirname(folder), prefix, (int)getpid()) >= 0
               ? name
               : NULL;
}

/* Whether a process that is gone has left it: nobody has locked it, none has its number, and it has
 * not been written for a while (the process may be one of another machine). */
static bool is_stale(int folder, const char *name, const char *prefix)
{
    char who[128], *end;
    bool writes;
    struct stat st;
    size_t n = strlen(prefix);
    if (strncmp(name, prefix, n) != 0 || name[n] < '1' || name[n] > '9')
        return false;
    long pid = strtol(name + n, &end, 10);
    if (strcmp(end, ".part") != 0 || pid > INT_MAX || kill((pid_t)pid, 0) == 0 || errno != ESRCH)
        return false;
    CLEANUP_CLOSE int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    return fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) &&
           time(NULL) - st.st_mtime > STALE_SECONDS && !lock_holder(fd, who, sizeof who, &writes);
}

static void remove_stale(const char *path)
{
    CLEANUP_FREE char *folder = strdup(path);
    CLEANUP_FREE char *prefix = hidden_prefix(path);
    DIR *d = folder && prefix ? opendir(dirname(folder)) : NULL;
    for (struct dirent *f; d && (f = readdir(d));)
        if (is_stale(dirfd(d), f->d_name, prefix))
            unlinkat(dirfd(d), f->d_name, 0);
    if (d)
        closedir(d);
}

static void forget(struct output *o)
{
    if (o->temp && o->fd >= 0)
        close(o->fd);
    o->fd = -1;
    free(o->path);
    free(o->temp);
    o->path = o->temp = NULL;
}

/* That it may be made. */
static int look(struct output *o, const char *path, bool replace, struct error *e)
{
    struct stat st;
    *o = (struct output){.fd = -1, .replace = replace};
    bool there = lstat(path, &st) == 0;
    if (there && (!replace || !S_ISREG(st.st_mode)))
        return exists(path, e);
    o->path = strdup(path);
    return o->path ? 0 : error_set(e, ERR_NOMEM, "%s: out of memory", path);
}

/* False: not in this folder. */
static bool make_unnamed(struct output *o, struct node **file)
{
    CLEANUP_FREE char *folder = strdup(o->path);
    char proc[64];
    if (!folder || file_open(dirname(folder), &(struct file_options){.unnamed = true}, file, NULL))
        return false;
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", (*file)->fd);
    o->fd = open(proc, O_RDONLY | O_CLOEXEC); /* without the node's lock */
    if (o->fd >= 0 && asprintf(&o->temp, "/proc/self/fd/%d", o->fd) >= 0)
        return true;
    if (o->fd >= 0)
        close(o->fd);
    o->fd = -1;
    o->temp = NULL;
    node_close(*file);
    return false;
}

static int make_named(struct output *o, struct node **file, struct error *e)
{
    o->temp = hidden_name(o->path);
    if (!o->temp)
        return error_set(e, ERR_NOMEM, "%s: out of memory", o->path);
    unlink(o->temp); /* of a process that had our number and was killed */
    return file_open(o->temp, &(struct file_options){.create = true}, file, e);
}

int output_begin(struct output *o, const char *path, bool replace, struct node **file,
                 struct error *e)
{
    int rc = look(o, path, replace, e);
    if (rc)
        return rc;
    remove_stale(path);
    rc = make_unnamed(o, file) ? 0 : make_named(o, file, e);
    if (rc)
        forget(o);
    return rc;
}

int output_begin_named(struct output *o, const char *path, bool replace, struct node **file,
                       struct error *e)
{
    int rc = look(o, path, replace, e);
    if (!rc)
        rc = make_named(o, file, e);
    if (rc)
        forget(o);
    return rc;
}

static int sync_path(const char *path, int flags)
{
    CLEANUP_CLOSE int fd = open(path, flags | O_CLOEXEC);
    return fd < 0 || (fsync(fd) < 0 && errno != EINVAL) ? -errno : 0;
}

/* The owner and rights of the file that is replaced; the owner only as far as we may. */
static int take_over(const struct output *o)
{
    struct stat st;
    if (!o->replace || stat(o->path, &st) < 0)
        return 0;
    if (chown(o->temp, st.st_uid, st.st_gid) < 0 && errno != EPERM)
        return -errno;
    return chmod(o->temp, st.st_mode & 07777) < 0 ? -errno : 0;
}

/* Files are replaced by renaming alone, so for a moment it has a hidden name. */
static int name_unnamed(const struct output *o)
{
    CLEANUP_FREE char *hidden = o->replace ? hidden_name(o->path) : NULL;
    const char *to = o->replace ? hidden : o->path;
    if (!to)
        return -ENOMEM;
    if (o->replace)
        unlink(hidden);
    if (linkat(AT_FDCWD, o->temp, AT_FDCWD, to, AT_SYMLINK_FOLLOW) < 0)
        return -errno;
    int rc = o->replace && rename(hidden, o->path) < 0 ? -errno : 0;
    if (rc)
        unlink(hidden);
    return rc;
}

static int rename_named(const struct output *o)
{
    if (o->replace)
        return rename(o->temp, o->path) < 0 ? -errno : 0;
    if (renameat2(AT_FDCWD, o->temp, AT_FDCWD, o->path, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EINVAL) /* a file system without that flag */
        return -errno;
    if (link(o->temp, o->path) < 0)
        return -errno;
    unlink(o->temp);
    return 0;
}

int output_commit(struct output *o, struct error *e)
{
    CLEANUP_FREE char *folder = strdup(o->path);
    int rc = folder ? take_over(o) : -ENOMEM;
    if (!rc)
        rc = sync_path(o->temp, O_RDONLY);
    if (!rc)
        rc = o->fd >= 0 ? name_unnamed(o) : rename_named(o);
    if (!rc)
        rc = sync_path(dirname(folder), O_RDONLY | O_DIRECTORY);
    if (rc == -EEXIST)
        rc = exists(o->path, e);
    else if (rc)
        rc = error_errno(e, ERR_IO, -rc, "%s: cannot be completed", o->path);
    if (rc)
        output_abort(o);
    else
        forget(o);
    return rc;
}

void output_abort(struct output *o)
{
    if (o->temp && o->fd < 0)
        unlink(o->temp);
    forget(o);
}
