/* tail.c - see tail.h. */
#include "cli/tail.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

void tail_open(struct tail *t, const struct vm *vm, const char *name)
{
    *t = (struct tail){.dir = vm->dir, .name = name, .fd = -1};
    t->fd = openat(t->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

void tail_close(struct tail *t)
{
    if (t->fd >= 0)
        close(t->fd);
    t->fd = -1;
}

void tail_last(struct tail *t, unsigned lines)
{
    char block[4096];
    off_t at = t->fd < 0 ? 0 : lseek(t->fd, 0, SEEK_END);
    unsigned seen = 0;
    if (lines == 0)
        t->at = at;
    if (lines == 0 || at <= 0)
        return;
    /* The line end at the very end ends the last line. */
    off_t end = at;
    while (at > 0) {
        size_t n = at < (off_t)sizeof block ? (size_t)at : sizeof block;
        if (pread(t->fd, block, n, at - (off_t)n) != (ssize_t)n)
            return;
        for (size_t i = n; i-- > 0;)
            if (block[i] == '\n' && at - (off_t)(n - i) != end - 1 && ++seen == lines) {
                t->at = at - (off_t)(n - i) + 1;
                return;
            }
        at -= (off_t)n;
    }
}

/* Whether another file has taken the name: a new run's. */
static void follow(struct tail *t)
{
    struct stat now, mine;
    if (fstatat(t->dir, t->name, &now, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    if (t->fd >= 0 && fstat(t->fd, &mine) == 0 && mine.st_ino == now.st_ino &&
        mine.st_dev == now.st_dev) {
        if (mine.st_size < t->at)
            t->at = 0; /* it was full and starts anew */
        return;
    }
    int fd = openat(t->dir, t->name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    tail_close(t);
    t->fd = fd;
    t->at = 0;
}

size_t tail_read(struct tail *t, char *buf, size_t size)
{
    ssize_t n = t->fd < 0 ? 0 : pread(t->fd, buf, size, t->at);
    if (n <= 0) {
        follow(t);
        n = t->fd < 0 ? 0 : pread(t->fd, buf, size, t->at);
    }
    if (n <= 0)
        return 0;
    t->at += n;
    return (size_t)n;
}
