/* output.c - files that appear when they are complete. */
#define _GNU_SOURCE
#include "block/output.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/io/file.h"

static int exists(const char *path, struct error *e)
{
    return error_set(e, ERR_BUSY, "%s: there is such a file already; remove it first", path);
}

static int name_temp(struct output *o, const char *path)
{
    CLEANUP_FREE char *folder = strdup(path);
    CLEANUP_FREE char *name = strdup(path);
    o->path = strdup(path);
    if (!folder || !name || !o->path ||
        asprintf(&o->temp, "%s/.%.200s.%d.part", dirname(folder), basename(name), (int)getpid()) <
            0) {
        o->temp = NULL;
        return -ENOMEM;
    }
    return 0;
}

static void forget(struct output *o)
{
    free(o->path);
    free(o->temp);
    o->path = o->temp = NULL;
}

int output_begin(struct output *o, const char *path, bool replace, struct node **file,
                 struct error *e)
{
    struct stat st;
    *o = (struct output){.replace = replace};
    bool there = lstat(path, &st) == 0;
    if (there && (!replace || !S_ISREG(st.st_mode)))
        return exists(path, e);
    int rc = name_temp(o, path) ? error_set(e, ERR_NOMEM, "%s: out of memory", path) : 0;
    if (!rc) {
        unlink(o->temp); /* of a process that had our number and was killed */
        rc = file_open(o->temp, &(struct file_options){.create = true}, file, e);
    }
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

int output_commit(struct output *o, struct error *e)
{
    CLEANUP_FREE char *folder = strdup(o->path);
    int rc = folder ? take_over(o) : -ENOMEM;
    if (!rc)
        rc = sync_path(o->temp, O_RDONLY);
    if (!rc && o->replace)
        rc = rename(o->temp, o->path) < 0 ? -errno : 0;
    else if (!rc)
        rc = renameat2(AT_FDCWD, o->temp, AT_FDCWD, o->path, RENAME_NOREPLACE) < 0 ? -errno : 0;
    if (rc == -EINVAL && !o->replace) { /* a file system without that flag */
        rc = link(o->temp, o->path) < 0 ? -errno : 0;
        if (!rc)
            unlink(o->temp);
    }
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
    if (o->temp)
        unlink(o->temp);
    forget(o);
}
