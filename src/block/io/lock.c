/*
 * lock.c - locks on image files, and who holds one that we are refused.
 *
 * The kernel tells no process for a lock that belongs to an open file description: F_OFD_GETLK and
 * /proc/locks say -1. But /proc/PID/fdinfo/FD shows the locks of each description that a process
 * has open, so the holder is found among the processes that we may look at.
 *
 * io_uring lets go of the files, and so of the locks, of a killed process some time after it is
 * gone. A lock that no process seems to hold is therefore waited for.
 */
#define _GNU_SOURCE
#include "block/io/lock.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

#define MAX_LOOKS 200000 /* at descriptors, in search of the holder: a second or so */
#define WAIT_MS   10     /* for a lock that nobody holds */
#define MAX_WAITS 200

static void cleanup_dir(DIR **d)
{
    if (*d)
        closedir(*d);
}
#define CLEANUP_DIR __attribute__((cleanup(cleanup_dir)))

/* Whether the description behind /proc/PID/fd/FD has a lock. */
static bool has_lock(const char *pid, const char *fd)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%.15s/fdinfo/%.15s", pid, fd);
    CLEANUP_FCLOSE FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "lock:", 5) == 0)
            return true;
    return false;
}

static bool process_holds(const char *pid, const struct stat *file, unsigned *looks)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%.15s/fd", pid);
    CLEANUP_DIR DIR *d = opendir(path);
    for (struct dirent *f; d && *looks > 0 && (f = readdir(d));) {
        (*looks)--;
        if (isdigit((unsigned char)f->d_name[0]) && fstatat(dirfd(d), f->d_name, &st, 0) == 0 &&
            st.st_dev == file->st_dev && st.st_ino == file->st_ino && has_lock(pid, f->d_name))
            return true;
    }
    return false;
}

static void name_process(const char *pid, char *out, size_t size)
{
    char path[64], name[64] = "";
    snprintf(path, sizeof path, "/proc/%.15s/comm", pid);
    CLEANUP_FCLOSE FILE *f = fopen(path, "re");
    if (!f || !fgets(name, sizeof name, f))
        snprintf(name, sizeof name, "?");
    name[strcspn(name, "\n")] = '\0';
    for (char *c = name; *c; c++) /* a process names itself as it likes */
        if (!isprint((unsigned char)*c))
            *c = '?';
    snprintf(out, size, "process %.15s (%s)", pid, name);
}

/* Finds a process that has the file locked, ourselves last: we, too, may have it open, unlocked.
 * False: there seems to be none. */
static bool find_holder(int fd, struct flock *fl, char *out, size_t size)
{
    struct stat file;
    unsigned looks = MAX_LOOKS;
    char self[16], pid[16];
    snprintf(self, sizeof self, "%d", (int)getpid());
    snprintf(out, size, "another process");
    if (fcntl(fd, F_OFD_GETLK, fl) == 0 && fl->l_type != F_UNLCK && fl->l_pid > 0) {
        snprintf(pid, sizeof pid, "%d", (int)fl->l_pid);
        name_process(pid, out, size);
        return true;
    }
    if (fstat(fd, &file) < 0)
        return false;
    CLEANUP_DIR DIR *d = opendir("/proc");
    for (struct dirent *p; d && (p = readdir(d));) {
        if (!isdigit((unsigned char)p->d_name[0]) || strcmp(p->d_name, self) == 0 ||
            !process_holds(p->d_name, &file, &looks))
            continue;
        name_process(p->d_name, out, size);
        return true;
    }
    if (!process_holds(self, &file, &looks))
        return false;
    snprintf(out, size, "another disk of this VM");
    return true;
}

int lock_take(const char *path, int fd, bool shared, struct error *e)
{
    struct flock fl = {.l_type = shared ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
    char who[128];
    for (unsigned waits = 0;; waits++) {
        if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
            return 0;
        if (errno != EAGAIN && errno != EACCES) {
            log_warn("%s: cannot lock it (%s): nothing stops a second VM from using it too", path,
                     strerror(errno));
            return 0;
        }
        if (find_holder(fd, &(struct flock){.l_type = fl.l_type, .l_whence = SEEK_SET}, who,
                        sizeof who) ||
            waits == MAX_WAITS)
            break;
        nanosleep(&(struct timespec){.tv_nsec = WAIT_MS * 1000000}, NULL);
    }
    return error_set(e, ERR_BUSY,
                     "%s: %s uses it%s; two writers would destroy its contents. Stop the other "
                     "one, or give each its own copy",
                     path, who, shared ? " and may write to it" : "");
}

void lock_share(int fd)
{
    struct flock fl = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &fl) < 0)
        log_debug("a lock cannot be shared: %s", strerror(errno));
}

bool lock_is_ours(int fd)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &fl) == 0 || (errno != EAGAIN && errno != EACCES);
}

bool lock_holder(int fd, char *who, size_t size, bool *writes)
{
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_GETLK, &fl) < 0 || fl.l_type == F_UNLCK)
        return false;
    *writes = fl.l_type == F_WRLCK;
    find_holder(fd, &fl, who, size);
    return true;
}
