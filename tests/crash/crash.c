/*
 * crash.c SOSIA - nothing that a flush acknowledged is lost, whatever fails when.
 *
 * The power fails, or the process is killed, at a random moment of writing, discarding, zeroing,
 * resizing, making overlays, merging layers and compacting, over kinds of images. Afterwards each
 * image opens, our check and QEMU's find no errors beyond leaked clusters, and each sector holds
 * what it held at the last flush or what was written to it since. Prints TAP.
 *
 * SOSIA_TEST_SEED repeats a run and leaves its images; SOSIA_TEST_LONG=1 makes it ten times as
 * long.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "block/format/qcow2.h"
#include "crash.h"
#include "storage.h"

static const struct {
    const char *what;
    void (*run)(const struct kind *k, unsigned times);
    unsigned times, times_long; /* for each kind */
} points[] = {
    {"power cuts amid writes", power_writes, 12, 60},
    {"power cuts amid overlays", power_overlays, 2, 25},
    {"power cuts amid merges", power_merges, 3, 25},
    {"power cuts amid compacting", power_compacts, 2, 25},
    {"power cuts amid resizes", power_resizes, 2, 25},
    {"kills amid writes", kill_writes, 3, 25},
    {"kills of the tool", kill_tool, 3, 30},
};

static unsigned npoint;
static char point[160];

static void clean_up(void)
{
    char cmd[160];
    if (getenv("SOSIA_TEST_SEED"))
        printf("# the images: %s\n", rig.folder);
    snprintf(cmd, sizeof cmd, "rm -rf %s", rig.folder);
    if (!getenv("SOSIA_TEST_SEED"))
        (void)!system(cmd);
}

void crash_fail(const char *fmt, ...)
{
    va_list ap;
    printf("not ok %u - %s\n# SOSIA_TEST_SEED=%llu, after %u cuts and %u kills: ", npoint, point,
           (unsigned long long)rig.seed, rig.cuts, rig.kills);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    clean_up();
    exit(1);
}

static void begin(const char *what, const char *kind)
{
    npoint++;
    snprintf(point, sizeof point, "%s%s%s", what, kind ? ": " : "", kind ? kind : "");
    rig.rng = (rig.seed + npoint) * 0x9e3779b97f4a7c15u | 1; /* a point can be repeated alone */
}

static void set_up(const char *sosia)
{
    const char *seed = getenv("SOSIA_TEST_SEED");
    const char *fast =
        access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm"; /* fsync costs nothing there */
    snprintf(rig.folder, sizeof rig.folder, "%s/sosia-crash-XXXXXX", fast);
    if (!mkdtemp(rig.folder)) {
        printf("Bail out! no folder in %s\n", fast);
        exit(1);
    }
    rig.m = mmap(NULL, sizeof *rig.m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (rig.m == MAP_FAILED)
        crash_fail("out of memory");
    rig.sosia = sosia;
    rig.seed = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL) ^ (uint64_t)getpid() << 20;
    rig.qemu = system("qemu-img --version >/dev/null 2>&1") == 0;
    rig.often = getenv("SOSIA_TEST_LONG");
    storage_open(rig.folder);
    qcow2_set_cache_size(0); /* the smallest, so that slices have to be written to make room */
    printf("# SOSIA_TEST_SEED=%llu%s\n", (unsigned long long)rig.seed,
           rig.qemu ? "" : ", without qemu-img");
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: crash SOSIA\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    set_up(argv[1]);
    printf("1..%u\n", 2 + nkinds * (unsigned)ARRAY_LEN(points));
    begin("what is not flushed may be lost, what is flushed is not", NULL);
    power_self_test();
    printf("ok %u - %s\n", npoint, point);
    begin("power cuts at every moment in turn", kinds[1].name);
    power_every_moment();
    printf("ok %u - %u %s\n", npoint, rig.cuts, point);
    for (size_t i = 0; i < ARRAY_LEN(points); i++)
        for (unsigned k = 0; k < nkinds; k++) {
            unsigned before = rig.cuts + rig.kills;
            begin(points[i].what, kinds[k].name);
            points[i].run(&kinds[k], rig.often ? points[i].times_long : points[i].times);
            printf("ok %u - %u %s\n", npoint, rig.cuts + rig.kills - before, point);
        }
    printf("# %u power cuts, %u kills\n", rig.cuts, rig.kills);
    clean_up();
    return 0;
}
