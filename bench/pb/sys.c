/*
 * sys.c - class sys, first part: system calls, signals, page faults, files.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pb.h"

enum { PAGE = 4096, MIB = 1 << 20 };

/* ---- calls ---- */

static void unit_getppid(void)
{
    for (int i = 0; i < 5000; i++)
        syscall(SYS_getppid);
}

static void unit_clock(void)
{
    struct timespec t;
    for (int i = 0; i < 5000; i++) {
        clock_gettime(CLOCK_MONOTONIC, &t);
        bench_sink += (uint64_t)t.tv_nsec;
    }
}

static void unit_read1(void)
{
    static int fd = -1;
    char c;
    if (fd < 0)
        fd = open("/dev/zero", O_RDONLY);
    for (int i = 0; i < 3000; i++)
        if (read(fd, &c, 1) != 1)
            bench_die("read");
}

/* How late a timer is: 10 times 50 microseconds. */
static void unit_usleep(void)
{
    struct timespec t = {0, 50000};
    for (int i = 0; i < 10; i++)
        nanosleep(&t, NULL);
}

static void unit_setjmp(void)
{
    jmp_buf j;
    for (volatile int i = 0; i < 20000; i++)
        if (setjmp(j) == 0)
            longjmp(j, 1);
}

/* ---- signals ---- */

static volatile int caught;

static void on_signal(int number)
{
    caught += number;
}

static void unit_signal(void)
{
    struct sigaction a = {.sa_handler = on_signal};
    sigaction(SIGUSR1, &a, NULL);
    pid_t process = getpid();
    long thread = syscall(SYS_gettid);
    for (int i = 0; i < 1000; i++)
        syscall(SYS_tgkill, process, thread, SIGUSR1);
}

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    uintptr_t page = (uintptr_t)info->si_addr & ~(uintptr_t)(PAGE - 1);
    mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE);
}

/* A write barrier, as garbage collectors have it: a fault, the handler, mprotect. */
static void unit_segv(void)
{
    enum { PAGES = 64 };
    static char *p;
    struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER}, old;
    sigaction(SIGSEGV, &a, &old);
    if (!p) {
        p = bench_map(PAGES * PAGE);
        memset(p, 1, PAGES * PAGE);
    }
    for (int r = 0; r < 8; r++) {
        mprotect(p, PAGES * PAGE, PROT_READ);
        for (int i = 0; i < PAGES; i++)
            ((volatile char *)p)[i * PAGE] = (char)r;
    }
    sigaction(SIGSEGV, &old, NULL);
}

/* ---- memory ---- */

static void touch(size_t len, int advice)
{
    char *p = bench_map(len);
    madvise(p, len, advice);
    for (size_t i = 0; i < len; i += PAGE)
        ((volatile char *)p)[i] = 1;
    munmap(p, len);
}

static void unit_pfanon(void)
{
    touch(4 * MIB, MADV_NOHUGEPAGE);
}

static void unit_pfthp(void)
{
    touch(16 * MIB, MADV_HUGEPAGE);
}

/* A file without a name in a tmpfs. */
static int scratch_file(size_t len)
{
    char path[64];
    snprintf(path, sizeof path, "/dev/shm/pb.%d", (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        bench_die(path);
    unlink(path);
    if (len && ftruncate(fd, (off_t)len))
        bench_die("ftruncate");
    return fd;
}

static int filled_file(size_t len)
{
    int fd = scratch_file(len);
    void *b = bench_map(len);
    memset(b, 1, len);
    if (pwrite(fd, b, len, 0) != (ssize_t)len)
        bench_die("pwrite");
    munmap(b, len);
    return fd;
}

static void unit_pffile(void)
{
    static int fd = -1;
    size_t n = 4 * MIB;
    if (fd < 0)
        fd = filled_file(n);
    char *p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED)
        bench_die("mmap");
    madvise(p, n, MADV_RANDOM);
    for (size_t i = 0; i < n; i += PAGE)
        bench_sink += (uint64_t)p[i];
    munmap(p, n);
}

static void unit_mmap(void)
{
    for (int i = 0; i < 1000; i++)
        munmap(bench_map(2 * PAGE), 2 * PAGE);
}

/* ---- files ---- */

static void unit_tmpfs(void)
{
    static int fd = -1;
    static char b[PAGE];
    if (fd < 0)
        fd = scratch_file(0);
    for (int i = 0; i < 256; i++)
        if (pwrite(fd, b, PAGE, i * PAGE) != PAGE)
            bench_die("pwrite");
    for (int i = 0; i < 256; i++)
        if (pread(fd, b, PAGE, i * PAGE) != PAGE)
            bench_die("pread");
}

static void unit_openclose(void)
{
    for (int i = 0; i < 500; i++) {
        int fd = open("/dev/null", O_RDONLY);
        if (fd < 0)
            bench_die("open");
        close(fd);
    }
}

static void unit_stat(void)
{
    struct stat st;
    for (int i = 0; i < 1000; i++)
        stat("/dev/null", &st);
}

static void unit_create(void)
{
    char path[64];
    for (int i = 0; i < 100; i++) {
        snprintf(path, sizeof path, "/dev/shm/pb.%d.%d", (int)getpid(), i);
        int fd = open(path, O_CREAT | O_WRONLY, 0600);
        if (fd < 0)
            bench_die(path);
        close(fd);
    }
    for (int i = 0; i < 100; i++) {
        snprintf(path, sizeof path, "/dev/shm/pb.%d.%d", (int)getpid(), i);
        unlink(path);
    }
}

const struct bench bench_sys[] = {
    {"sys/getppid", unit_getppid, 15, NULL},    {"sys/clock", unit_clock, 80, NULL},
    {"sys/read1", unit_read1, 15, NULL},        {"sys/signal", unit_signal, 2, NULL},
    {"sys/segv", unit_segv, 2, NULL},           {"sys/pfanon", unit_pfanon, 5, NULL},
    {"sys/pfthp", unit_pfthp, 8, NULL},         {"sys/pffile", unit_pffile, 40, NULL},
    {"sys/mmap", unit_mmap, 1, NULL},           {"sys/tmpfs", unit_tmpfs, 30, NULL},
    {"sys/openclose", unit_openclose, 8, NULL}, {"sys/stat", unit_stat, 10, NULL},
    {"sys/create", unit_create, 10, NULL},      {"sys/usleep", unit_usleep, 8, NULL},
    {"sys/setjmp", unit_setjmp, 60, NULL},      {0},
};
