/*
 * main.c - pb, the probe: runs benchmarks and says how long they take.
 *
 *   pb run [NAME|CLASS/ ...]          all benchmarks, or those whose names begin with an argument
 *   pb measure SECONDS [NAME ...]     the same, timed by this machine's own clock
 *   pb time NAME REPS COMMAND...      a program, likewise; its output goes nowhere
 *   pb list                           the names
 *
 * One static binary without dependencies, so that the same file runs natively and in any guest.
 * The clock of a guest may lie (Bochs' counts instructions), so `run` prints two lines, and whoever
 * reads them takes the time between them:
 *
 *   @B,int/sieve               begins, after one unit as a warm-up
 *   @E,int/sieve,0.0123,0.0121 has ended; seconds and processor time by the machine's own clocks
 *   @F,int/sieve,STATUS        instead: died with this wait status
 *
 * `measure` is for engines whose clock is right. It repeats a benchmark's unit for SECONDS:
 *
 *   @B,int/sieve
 *   @R,int/sieve,0.0012,0.0011,0.0020,57   seconds for a unit: median, least, first; how many
 *                            (the first unit is one of these only for programs)
 *   @C,int/sieve,0.0713        its processor time, with the first unit and all processes it had
 *   @S,simd/avx2fp             left out: the processor cannot do it
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pb.h"

#define MAX_UNITS   100000
#define MIN_UNITS   3
#define HANGS_AFTER 60 /* seconds for one benchmark */

volatile uint64_t bench_sink;

static const struct bench *const tables[] = {bench_int,  bench_fp,  bench_simd,
                                             bench_mem,  bench_sys, bench_proc,
                                             bench_priv, bench_jit, bench_smp};

void bench_die(const char *what)
{
    perror(what);
    exit(1);
}

void *bench_map(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        bench_die("mmap");
    return p;
}

const char *bench_self(void)
{
    static char path[512];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n < 0)
        bench_die("/proc/self/exe");
    return path;
}

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool wanted(const char *name, char **prefix)
{
    if (!*prefix)
        return true;
    for (; *prefix; prefix++)
        if (!strncmp(name, *prefix, strlen(*prefix)))
            return true;
    return false;
}

static void say(const char *mark, const char *name)
{
    printf("@%s,%s\n", mark, name);
    fflush(stdout);
}

static void run_marked(const struct bench *b, double unused)
{
    (void)unused;
    b->unit();
    say("B", b->name);
    double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (unsigned i = 0; i < b->units; i++)
        b->unit();
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("@E,%s,%.9f,%.9f\n", b->name, seconds(CLOCK_MONOTONIC) - start, cpu);
    fflush(stdout);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void result(const char *name, double first, double *took, int n)
{
    qsort(took, (size_t)n, sizeof *took, compare);
    printf("@R,%s,%.9f,%.9f,%.9f,%d\n", name, took[n / 2], took[0], first, n);
    fflush(stdout);
}

static double timed(void (*unit)(void))
{
    double start = seconds(CLOCK_MONOTONIC);
    unit();
    return seconds(CLOCK_MONOTONIC) - start;
}

static void run_measured(const struct bench *b, double duration)
{
    static double took[MAX_UNITS];
    int n = 0;
    say("B", b->name);
    double first = timed(b->unit), end = seconds(CLOCK_MONOTONIC) + duration;
    while (n < MAX_UNITS && (n < MIN_UNITS || seconds(CLOCK_MONOTONIC) < end))
        took[n++] = timed(b->unit);
    result(b->name, first, took, n);
}

/* Processor time of all processes that have been waited for, and of those that they waited for. */
static double children_cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_CHILDREN, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

static bool failed(const char *name, pid_t pid)
{
    int status = -1;
    if (pid > 0 && waitpid(pid, &status, 0) == pid && !status)
        return false;
    printf("@F,%s,%#x\n", name, (unsigned)status);
    fflush(stdout);
    return true;
}

static void used(const char *name, double cpu)
{
    printf("@C,%s,%.6f\n", name, cpu);
    fflush(stdout);
}

/* Each benchmark has a process of its own: one that crashes or hangs costs one line. */
static bool run_one(const struct bench *b, void (*how)(const struct bench *, double), double arg)
{
    double cpu = children_cpu();
    pid_t pid = fork();
    if (pid == 0) {
        if (how == run_measured)
            alarm(HANGS_AFTER);
        how(b, arg);
        _exit(0);
    }
    if (failed(b->name, pid))
        return false;
    if (how == run_measured)
        used(b->name, children_cpu() - cpu);
    return true;
}

static int run(char **prefix, void (*how)(const struct bench *, double), double arg)
{
    int status = 0;
    for (unsigned n = 0; n < sizeof tables / sizeof *tables; n++)
        for (const struct bench *b = tables[n]; b->name; b++) {
            if (!wanted(b->name, prefix))
                continue;
            if (b->can && !b->can())
                say("S", b->name);
            else if (!run_one(b, how, arg))
                status = 1;
        }
    return status;
}

static int list(void)
{
    for (unsigned n = 0; n < sizeof tables / sizeof *tables; n++)
        for (const struct bench *b = tables[n]; b->name; b++)
            puts(b->name);
    return 0;
}

static _Noreturn void execute(char **argv)
{
    int null = open("/dev/null", O_WRONLY);
    dup2(null, STDOUT_FILENO);
    dup2(null, STDERR_FILENO);
    alarm(HANGS_AFTER);
    execvp(argv[0], argv);
    _exit(127);
}

static int time_program(const char *name, int reps, char **argv)
{
    double took[64], cpu = children_cpu();
    say("B", name);
    for (int n = 0; n < reps && n < 64; n++) {
        double start = seconds(CLOCK_MONOTONIC);
        pid_t pid = fork();
        if (pid == 0)
            execute(argv);
        if (failed(name, pid))
            return 1;
        took[n] = seconds(CLOCK_MONOTONIC) - start;
    }
    result(name, took[0], took, reps < 64 ? reps : 64);
    used(name, children_cpu() - cpu);
    return 0;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "run"))
        return run(argv + 2, run_marked, 0);
    if (!strcmp(verb, "measure") && argc > 2 && atof(argv[2]) > 0)
        return run(argv + 3, run_measured, atof(argv[2]));
    if (!strcmp(verb, "time") && argc > 4 && atoi(argv[3]) > 0)
        return time_program(argv[2], atoi(argv[3]), argv + 4);
    if (!strcmp(verb, "list"))
        return list();
    if (!strcmp(verb, "nothing")) /* what sys/forkexec starts */
        return 0;
    fprintf(stderr, "usage: pb run [NAME|CLASS/ ...] | pb measure SECONDS [NAME|CLASS/ ...] |\n"
                    "       pb time NAME REPS COMMAND... | pb list\n");
    return 2;
}
