/*
 * smp.c - class smp: the same work by one process (NAME-1), and by two at once, each on a processor
 * of its own (NAME-2). Two that do not disturb each other take as long as one.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pb.h"

static void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        bench_die("sched_setaffinity");
}

static void by(int processes, void (*work)(void))
{
    for (int i = 0; i < processes; i++) {
        pid_t pid = fork();
        if (pid < 0)
            bench_die("fork");
        if (pid)
            continue;
        pin(i);
        work();
        _exit(0);
    }
    for (int i = 0, status; i < processes; i++)
        if (wait(&status) < 0 || status)
            bench_die("a process");
}

static SCALAR void compute(void)
{
    uint64_t state = 1, sum = 0;
    for (int i = 0; i < 8000000; i++)
        sum += bench_random(&state) >> (sum & 7);
    bench_sink = sum;
}

static SCALAR void memory(void)
{
    enum { WORDS = 1 << 15 };
    uint64_t *p = bench_map(WORDS * sizeof *p), state = 1;
    for (int i = 0; i < 4000000; i++) {
        uint64_t n = bench_random(&state) % WORDS;
        p[n] += p[(n + 1) % WORDS] + state;
    }
    bench_sink = p[7];
    munmap(p, WORDS * sizeof *p);
}

static void calls(void)
{
    for (int i = 0; i < 100000; i++)
        syscall(SYS_getppid);
}

static void faults(void)
{
    enum { PAGES = 256 };
    for (int i = 0; i < 100; i++) {
        volatile char *p = bench_map(PAGES * 4096);
        for (int k = 0; k < PAGES; k++)
            p[k * 4096] = 1;
        munmap((void *)(uintptr_t)p, PAGES * 4096);
    }
}

static void pipes(void)
{
    int fd[2];
    char buf[512] = {0};
    if (pipe(fd))
        bench_die("pipe");
    for (int i = 0; i < 20000; i++)
        if (write(fd[1], buf, sizeof buf) != sizeof buf || read(fd[0], buf, sizeof buf) < 0)
            bench_die("pipe");
    close(fd[0]);
    close(fd[1]);
}

#define ONE_AND_TWO(work)      \
    static void work##_1(void) \
    {                          \
        by(1, work);           \
    }                          \
    static void work##_2(void) \
    {                          \
        by(2, work);           \
    }
ONE_AND_TWO(compute)
ONE_AND_TWO(memory)
ONE_AND_TWO(calls)
ONE_AND_TWO(faults)
ONE_AND_TWO(pipes)

static bool two_processors(void)
{
    return sysconf(_SC_NPROCESSORS_ONLN) >= 2;
}

const struct bench bench_smp[] = {{"smp/compute-1", compute_1, 5, two_processors},
                                  {"smp/compute-2", compute_2, 5, two_processors},
                                  {"smp/memory-1", memory_1, 5, two_processors},
                                  {"smp/memory-2", memory_2, 5, two_processors},
                                  {"smp/calls-1", calls_1, 5, two_processors},
                                  {"smp/calls-2", calls_2, 5, two_processors},
                                  {"smp/faults-1", faults_1, 3, two_processors},
                                  {"smp/faults-2", faults_2, 3, two_processors},
                                  {"smp/pipes-1", pipes_1, 5, two_processors},
                                  {"smp/pipes-2", pipes_2, 5, two_processors},
                                  {NULL}};
