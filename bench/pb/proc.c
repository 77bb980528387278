/*
 * proc.c - class sys, second part: processes, threads, and what goes to and fro between them.
 */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pb.h"

static void unit_fork(void)
{
    for (int i = 0; i < 10; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        if (pid < 0)
            bench_die("fork");
        waitpid(pid, NULL, 0);
    }
}

static void unit_forkexec(void)
{
    const char *self = bench_self();
    for (int i = 0; i < 5; i++) {
        pid_t pid = vfork();
        if (pid == 0) {
            execl(self, "pb", "nothing", (char *)NULL);
            _exit(127);
        }
        int status = -1;
        if (waitpid(pid, &status, 0) != pid || status)
            bench_die(self);
    }
}

static void *thread_nothing(void *arg)
{
    return arg;
}

static pthread_t start(void *(*fn)(void *))
{
    pthread_t t;
    if (pthread_create(&t, NULL, fn, NULL))
        bench_die("pthread_create");
    return t;
}

static void unit_thread(void)
{
    for (int i = 0; i < 30; i++)
        pthread_join(start(thread_nothing), NULL);
}

/* ---- a token that two threads hand to each other ---- */

enum { ROUNDS = 500 };
static int token[2];

static void give(int *t)
{
    __atomic_store_n(t, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, t, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void take(int *t)
{
    while (!__atomic_load_n(t, __ATOMIC_ACQUIRE))
        syscall(SYS_futex, t, FUTEX_WAIT, 0, NULL, NULL, 0);
    __atomic_store_n(t, 0, __ATOMIC_RELEASE);
}

static void *thread_token(void *arg)
{
    for (int i = 0; i < ROUNDS; i++) {
        take(&token[0]);
        give(&token[1]);
    }
    return arg;
}

static void unit_futex(void)
{
    token[0] = token[1] = 0;
    pthread_t other = start(thread_token);
    for (int i = 0; i < ROUNDS; i++) {
        give(&token[0]);
        take(&token[1]);
    }
    pthread_join(other, NULL);
}

/* ---- a byte that two processes send each other ---- */

/* Reads from in, then writes to out, or the other way round. */
static void exchange(int in, int out, bool first)
{
    char c = 0;
    for (int i = 0; i < ROUNDS; i++)
        if ((first && write(out, &c, 1) != 1) || read(in, &c, 1) != 1 ||
            (!first && write(out, &c, 1) != 1))
            bench_die("exchange");
}

/* there[1] leads to back[0] by way of the other process. */
static void ping_pong(int there[2], int back[2])
{
    pid_t pid = fork();
    if (pid == 0) {
        exchange(there[0], back[1], false);
        _exit(0);
    }
    exchange(back[0], there[1], true);
    waitpid(pid, NULL, 0);
}

static void unit_pipe(void)
{
    int there[2], back[2];
    if (pipe(there) || pipe(back))
        bench_die("pipe");
    ping_pong(there, back);
    for (int n = 0; n < 2; n++) {
        close(there[n]);
        close(back[n]);
    }
}

/* The same on one CPU: every exchange is two context switches. */
static void unit_ctxsw(void)
{
    cpu_set_t before, one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    sched_getaffinity(0, sizeof before, &before);
    sched_setaffinity(0, sizeof one, &one);
    unit_pipe();
    sched_setaffinity(0, sizeof before, &before);
}

static void unit_unix(void)
{
    int s[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, s))
        bench_die("socketpair");
    ping_pong((int[2]){s[0], s[1]}, (int[2]){s[1], s[0]});
    close(s[0]);
    close(s[1]);
}

/* 8 MiB through a pipe in pieces of 64 KiB. */
static void unit_pipebw(void)
{
    static char b[65536];
    int p[2];
    if (pipe(p))
        bench_die("pipe");
    pid_t pid = fork();
    if (pid == 0) {
        close(p[0]);
        for (size_t sent = 0; sent < 128 * sizeof b;) {
            ssize_t n = write(p[1], b, sizeof b - sent % sizeof b);
            if (n <= 0)
                _exit(1);
            sent += (size_t)n;
        }
        _exit(0);
    }
    close(p[1]);
    while (read(p[0], b, sizeof b) > 0)
        ;
    close(p[0]);
    waitpid(pid, NULL, 0);
}

const struct bench bench_proc[] = {
    {"sys/fork", unit_fork, 10, NULL},
    {"sys/forkexec", unit_forkexec, 2, NULL},
    {"sys/thread", unit_thread, 15, NULL},
    {"sys/futex", unit_futex, 1, NULL},
    {"sys/pipe", unit_pipe, 1, NULL},
    {"sys/ctxsw", unit_ctxsw, 5, NULL},
    {"sys/unix", unit_unix, 2, NULL},
    {"sys/pipebw", unit_pipebw, 5, NULL},
    {0},
};
