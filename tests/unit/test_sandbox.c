/*
 * test_sandbox.c - from inside the sandbox: what a guest that has taken over the VMM might try
 * fails, in each kind of thread; what a VM does goes on.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "block/uring.h"
#include "vmm/sandbox.h"

static int file; /* opened before */

static bool denied(long rc)
{
    return rc == -1 && errno == EPERM;
}

/* The number of the first thing that is possible and should not be; 0: none. */
static int try_all(void)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/tmp/none"};
    static char *const argv[] = {NULL};
    static const char path[] = "/bin/true";
    if (!denied(open("/etc/passwd", O_RDONLY)))
        return 1;
    if (!denied(openat(file, "x", O_WRONLY | O_CREAT, 0600)))
        return 2;
    if (!denied(socket(AF_INET, SOCK_STREAM, 0)) || !denied(socket(AF_UNIX, SOCK_STREAM, 0)))
        return 3;
    if (!denied(connect(file, (struct sockaddr *)&un, sizeof un)))
        return 4;
    if (!denied(execve(path, argv, argv)) ||
        !denied(syscall(SYS_execveat, file, "", argv, argv, 0)))
        return 5;
    if (!denied(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL)))
        return 6;
    if (!denied(syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0)))
        return 7;
    if (!denied(kill(getppid(), 0)))
        return 8;
    if (!denied(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)) || !denied(syscall(SYS_fork)))
        return 9;
    if (!denied(unshare(CLONE_NEWUSER)) || !denied(mount("a", "/", "tmpfs", 0, NULL)))
        return 10;
    if (!denied(syscall(SYS_bpf, 0, NULL, 0)) || !denied(syscall(SYS_io_uring_setup, 1, NULL)))
        return 11;
    if (!denied(syscall(SYS_rename, "/tmp/a", "/tmp/b")) || !denied(syscall(SYS_chmod, "/tmp", 0)))
        return 12;
    if (mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
            MAP_FAILED ||
        errno != EPERM)
        return 13;
    return 0;
}

/* What only the others need. */
static int try_vcpu(void)
{
    char byte;
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return 101;
    if (!denied(syscall(SYS_accept4, file, NULL, NULL, 0)))
        return 102;
    if (!denied(mprotect(p, 4096, PROT_READ | PROT_EXEC)))
        return 103;
    if (!denied(read(file, &byte, 1)) || !denied(pread(file, &byte, 1, 0)) || !denied(fsync(file)))
        return 104;
    if (!denied(syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, 0, 0, 0, 0)))
        return 105;
    if (!denied(syscall(SYS_memfd_create, "x", 0)) || !denied(fcntl(file, F_GETFD)))
        return 106;
    return 0;
}

static void *in_vcpu(void *arg)
{
    struct error e;
    intptr_t bad = 100;
    if (sandbox_enter(SANDBOX_VCPU, false, &e) == 0) {
        bad = try_all();
        if (!bad)
            bad = try_vcpu();
    }
    return (void *)bad;
}

static void *in_worker(void *arg)
{
    return (void *)(intptr_t)try_all();
}

/* In a process of its own; exits with the number of what went wrong. */
static _Noreturn void inside(void)
{
    struct error e = {0};
    pthread_t t;
    void *bad = NULL;
    char byte;
    if (sandbox_enter(SANDBOX_PROCESS, false, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        _exit(200);
    }
    int rc = try_all();
    if (rc)
        _exit(rc);
    /* What a VM does. */
    if (pread(file, &byte, 1, 0) != 1 || lseek(file, 0, SEEK_SET) != 0 || fcntl(file, F_GETFD) < 0)
        _exit(50);
    if (pthread_create(&t, NULL, in_worker, NULL) || pthread_join(t, &bad) || bad)
        _exit(60 + (int)(intptr_t)bad);
    if (pthread_create(&t, NULL, in_vcpu, &e) || pthread_join(t, &bad) || bad)
        _exit(80 + (int)(intptr_t)bad);
    free(malloc(64 << 20));
    _exit(0);
}

static void keeps_inside(void **state)
{
    int status;
    file = open("/proc/self/exe", O_RDONLY);
    assert_true(file >= 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        inside();
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* A ring does for whoever submits to it what a list of system calls would forbid: so it has one. A
 * registration tells that it has; none is on it. */
static void ring_is_restricted(void **state)
{
    struct uring *u;
    char path[40], to[64];
    int ring = -1;
    int rc = uring_open(&u, NULL, NULL);
    if (rc)
        skip(); /* not on this host */
    for (int fd = 3; fd < 256 && ring < 0; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, to, sizeof to - 1);
        to[n > 0 ? n : 0] = 0;
        ring = strcmp(to, "anon_inode:[io_uring]") == 0 ? fd : -1;
    }
    assert_true(ring >= 0);
    assert_int_equal(syscall(SYS_io_uring_register, ring, IORING_REGISTER_EVENTFD, &file, 1), -1);
    assert_int_equal(errno, EACCES);
    uring_close(u);
}

int main(void)
{
    if (SOSIA_SANITIZED) {
        puts("1..0 # SKIP the sanitizers' runtime needs calls that no VM does");
        return 0;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(ring_is_restricted),
                                       cmocka_unit_test(keeps_inside)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
