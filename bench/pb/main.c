/*
 * main.c - pb, the probe: runs benchmarks and marks where each begins and ends.
 *
 *   pb run [NAME|CLASS/ ...]   runs all benchmarks, or those whose names begin with an argument
 *   pb list                    their names
 *
 * One static binary without dependencies, so that the same file runs natively and in any guest. The
 * clock of a guest may lie (Bochs' counts instructions), so each benchmark prints two lines, and
 * whoever reads them takes the time between them:
 *
 *   @B,int/sieve               begins, after one unit as a warm-up
 *   @E,int/sieve,0.0123,0.0121 has ended; seconds and processor time by the machine's own clocks
 *   @F,int/sieve,STATUS        instead: died with this wait status
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pb.h"

volatile uint64_t bench_sink;

static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int wanted(const char *name, char **prefix)
{
    if (!*prefix)
        return 1;
    for (; *prefix; prefix++)
        if (!strncmp(name, *prefix, strlen(*prefix)))
            return 1;
    return 0;
}

static void measure(const struct bench *b)
{
    b->unit();
    printf("@B,%s\n", b->name);
    fflush(stdout);
    double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (unsigned i = 0; i < b->units; i++)
        b->unit();
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("@E,%s,%.9f,%.9f\n", b->name, seconds(CLOCK_MONOTONIC) - start, cpu);
    fflush(stdout);
}

/* Each benchmark has a process of its own: one that crashes costs one line. */
static int run(char **prefix)
{
    int failed = 0;
    for (const struct bench *b = bench_int; b->name; b++) {
        if (!wanted(b->name, prefix))
            continue;
        pid_t pid = fork();
        if (pid == 0) {
            measure(b);
            _exit(0);
        }
        int status = -1;
        if (pid < 0 || waitpid(pid, &status, 0) < 0 || status) {
            printf("@F,%s,%#x\n", b->name, (unsigned)status);
            fflush(stdout);
            failed = 1;
        }
    }
    return failed;
}

int main(int argc, char **argv)
{
    if (argc >= 2 && !strcmp(argv[1], "run"))
        return run(argv + 2);
    if (argc == 2 && !strcmp(argv[1], "list")) {
        for (const struct bench *b = bench_int; b->name; b++)
            puts(b->name);
        return 0;
    }
    fprintf(stderr, "usage: pb run [NAME|CLASS/ ...] | pb list\n");
    return 2;
}
