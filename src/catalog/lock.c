/* lock.c - see lock.h. */
#define _GNU_SOURCE
#include "catalog/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "catalog/store.h"

#define PATIENCE 300 /* tries */
#define PAUSE_NS 10000000

static struct flock lock_of(enum vm_lock which, short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = which, .l_len = 1};
}

int vm_lock_open(int dir, bool write, struct error *e)
{
    char path[STORE_PATH];
    int fd = openat(dir, VM_LOCK_FILE, (write ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC, 0666);
    if (fd < 0)
        return error_file(e, errno, "%s: cannot open it", store_path(dir, VM_LOCK_FILE, path));
    return fd;
}

bool vm_lock_try(int fd, enum vm_lock which)
{
    struct flock fl = lock_of(which, F_WRLCK);
    return fcntl(fd, F_OFD_SETLK, &fl) == 0;
}

int vm_lock_wait(int fd, enum vm_lock which, const char *what, struct error *e)
{
    const struct timespec pause = {0, PAUSE_NS};
    for (int i = 0; i < PATIENCE; i++) {
        struct flock fl = lock_of(which, F_WRLCK);
        if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
            return 0;
        if (errno != EAGAIN && errno != EACCES && errno != EINTR)
            return error_errno(e, ERR_IO, errno, "%s: cannot be locked", what);
        nanosleep(&pause, NULL);
    }
    return error_set(e, ERR_BUSY, "%s: another sosia is at work on it; try again when that is done",
                     what);
}

void vm_lock_drop(int fd, enum vm_lock which)
{
    struct flock fl = lock_of(which, F_UNLCK);
    fcntl(fd, F_OFD_SETLK, &fl);
}

bool vm_lock_held(int fd, enum vm_lock which)
{
    struct flock fl = lock_of(which, F_WRLCK);
    return fcntl(fd, F_OFD_GETLK, &fl) == 0 && fl.l_type != F_UNLCK;
}
