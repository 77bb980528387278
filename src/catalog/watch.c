/* watch.c - inotify and a pidfd; see watch.h. */
#define _GNU_SOURCE
#include "catalog/watch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "catalog/status.h"

#define TICK_MS 1000 /* of what nobody tells: a file system without inotify, an old kernel */

static void find_process(struct vm_watch *w)
{
    struct vm_status s;
    if (w->pidfd >= 0)
        return;
    vm_status_read(w->vm, &s);
    if (!vm_is_alive(&s) || s.pid <= 0)
        return;
    w->pid = s.pid;
    w->pidfd = (int)syscall(SYS_pidfd_open, s.pid, 0);
    /* The number could be another process's by now: it is not, if the VM still lives. */
    vm_status_read(w->vm, &s);
    if (w->pidfd >= 0 && (!vm_is_alive(&s) || s.pid != w->pid)) {
        close(w->pidfd);
        w->pidfd = -1;
    }
}

int vm_watch_open(struct vm_watch *w, const struct vm *vm, struct error *e)
{
    static const char *const folders[] = {"", "/logs"};
    *w = (struct vm_watch){.vm = vm, .pidfd = -1};
    w->files = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (w->files < 0)
        return error_errno(e, ERR_HOST, errno, "cannot watch files");
    for (unsigned i = 0; i < ARRAY_LEN(folders); i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d%s", vm->dir, folders[i]);
        inotify_add_watch(w->files, path, IN_MODIFY | IN_CREATE | IN_MOVED_TO);
    }
    find_process(w);
    return 0;
}

void vm_watch_close(struct vm_watch *w)
{
    if (w->files >= 0)
        close(w->files);
    if (w->pidfd >= 0)
        close(w->pidfd);
    w->files = w->pidfd = -1;
}

bool vm_watch_wait(struct vm_watch *w, int more, int64_t ms)
{
    char events[4096];
    find_process(w);
    struct pollfd p[] = {{.fd = w->files, .events = POLLIN},
                         {.fd = w->pidfd, .events = POLLIN},
                         {.fd = more, .events = POLLIN}};
    int timeout = ms < 0 || ms > TICK_MS ? TICK_MS : (int)ms;
    poll(p, ARRAY_LEN(p), timeout);
    while (read(w->files, events, sizeof events) > 0)
        continue;
    return p[2].revents != 0;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

bool vm_watch_end(struct vm_watch *w, int64_t ms, void (*tick)(void *arg), void *arg)
{
    int64_t until = now_ms() + ms;
    for (;;) {
        struct vm_status s;
        vm_status_read(w->vm, &s);
        if (!vm_is_alive(&s))
            return true;
        if (tick)
            tick(arg);
        int64_t left = until - now_ms();
        if (left <= 0)
            return false;
        vm_watch_wait(w, -1, left);
    }
}

void vm_watch_kill(struct vm_watch *w)
{
    find_process(w);
    if (w->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, w->pidfd, SIGKILL, NULL, 0);
}
