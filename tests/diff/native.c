/*
 * native.c - the processor's side, seen from outside: starts the throw-away process (native_run.c),
 * hands it batches of cases, and starts another one when it has died of one.
 */
#define _GNU_SOURCE
#include "native.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAM         "diff-native"
#define TIMEOUT_MS      20000
#define HWCAP2_FSGSBASE 2ul

struct native {
    pid_t pid;
    int to, from; /* pipes */
    int fd;       /* of the shared memory */
    bool has_ldt;
    struct native_shared *shared;
    char path[PATH_MAX];
};

static int read_byte(int fd)
{
    uint8_t b;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int rc;
    do
        rc = poll(&p, 1, TIMEOUT_MS);
    while (rc < 0 && errno == EINTR);
    return rc > 0 && read(fd, &b, 1) == 1 ? b : -1;
}

/* In the child, between fork and exec: the descriptors get their numbers. */
static _Noreturn void become(const char *path, int shared, int down, int up)
{
    /* first out of the way, for they may have each other's numbers */
    int fd[] = {fcntl(shared, F_DUPFD, 16), fcntl(down, F_DUPFD, 16), fcntl(up, F_DUPFD, 16)};
    for (int n = 0; n < 3; n++)
        if (dup2(fd[n], NATIVE_FD + n) < 0 || close(fd[n]))
            _exit(1);
    execl(path, path, (char *)NULL);
    _exit(1);
}

static bool spawn(struct native *n)
{
    int down[2], up[2];
    if (pipe2(down, O_CLOEXEC))
        return false;
    if (pipe2(up, O_CLOEXEC)) {
        close(down[0]);
        close(down[1]);
        return false;
    }
    n->pid = fork();
    if (n->pid == 0)
        become(n->path, n->fd, down[0], up[1]);
    close(down[0]);
    close(up[1]);
    n->to = down[1];
    n->from = up[0];
    int b = n->pid > 0 ? read_byte(n->from) : -1;
    n->has_ldt = b == NATIVE_READY;
    return b > NATIVE_BROKEN;
}

static void reap(struct native *n)
{
    if (n->pid > 0) {
        kill(n->pid, SIGKILL);
        waitpid(n->pid, NULL, 0);
    }
    n->pid = 0;
    close(n->to);
    close(n->from);
}

static void release(struct native *n)
{
    if (n->shared)
        munmap(n->shared, native_shared_size(n->shared->max));
    if (n->fd >= 0)
        close(n->fd);
    free(n);
}

static bool share(struct native *n, const struct pool *pool, unsigned max)
{
    size_t size = native_shared_size(max);
    n->fd = memfd_create("diff-cases", MFD_CLOEXEC);
    if (n->fd < 0 || ftruncate(n->fd, (off_t)size))
        return false;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, n->fd, 0);
    if (p == MAP_FAILED)
        return false;
    n->shared = p;
    n->shared->max = max;
    n->shared->pool = *pool;
    return true;
}

/* The program lies beside this one. */
static bool find_program(char *path, size_t len)
{
    ssize_t n = readlink("/proc/self/exe", path, len - sizeof PROGRAM);
    if (n <= 0)
        return false;
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    if (!slash)
        return false;
    strcpy(slash + 1, PROGRAM);
    return true;
}

struct native *native_create(const struct pool *pool, unsigned max, const char **why)
{
    *why = "the kernel does not let programs use RDFSBASE";
    if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE))
        return NULL;
    *why = "no memory";
    struct native *n = calloc(1, sizeof *n);
    if (!n)
        return NULL;
    n->fd = -1;
    if (!share(n, pool, max) || !find_program(n->path, sizeof n->path)) {
        release(n);
        return NULL;
    }
    *why = "no process can be started that maps low addresses and catches its signals";
    if (!spawn(n)) {
        reap(n);
        release(n);
        return NULL;
    }
    return n;
}

void native_destroy(struct native *n)
{
    reap(n);
    release(n);
}

bool native_has_mode(const struct native *n, enum diff_mode m)
{
    return m == MODE_64 || n->has_ldt;
}

struct input *native_inputs(struct native *n)
{
    return n->shared->in;
}

const struct output *native_outputs(const struct native *n)
{
    return native_shared_out(n->shared);
}

void native_start(struct native *n, unsigned count)
{
    n->shared->count = count;
    atomic_store(&n->shared->done, 0);
    ssize_t rc = write(n->to, "", 1);
    (void)rc; /* a dead process is noticed by native_wait() */
}

unsigned native_wait(struct native *n)
{
    if (read_byte(n->from) < 0) {
        reap(n);
        if (!spawn(n))
            _exit(3);
    }
    return atomic_load(&n->shared->done);
}
