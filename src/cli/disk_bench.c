/* disk_bench.c - `sosia disk bench`: how fast a disk is. */
#include "cli/disk.h"

#include <string.h>

#include "block/bench.h"

#define MAX_BLOCK (4 * MIB)

static const struct mode {
    const char *name;
    bool write, random;
} modes[] = {{"randread", false, true}, /* the default */
             {"read", false, false},
             {"write", true, false},
             {"randwrite", true, true}};

static const unsigned percentiles[] = {5000, 9000, 9900, 9990}; /* of 10000 */
static const char *const percentile_names[] = {"p50", "p90", "p99", "p99.9"};

static int take_mode(const struct disk_args *a, const struct mode **m, struct error *e)
{
    *m = &modes[0];
    if (!a->value[DISK_MODE])
        return 0;
    for (size_t i = 0; i < ARRAY_LEN(modes); i++)
        if (strcmp(modes[i].name, a->value[DISK_MODE]) == 0) {
            *m = &modes[i];
            return 0;
        }
    return error_set(e, ERR_USAGE,
                     "there is no mode \"%.40s\"; there are: read, write, randread, randwrite",
                     a->value[DISK_MODE]);
}

static int take_options(const struct disk_args *a, const struct mode **m, struct bench_options *o,
                        struct error *e)
{
    uint64_t block = 4 * KIB;
    unsigned seconds = 0, requests = 0;
    int rc = take_mode(a, m, e);
    if (!rc && a->value[DISK_BLOCK_SIZE])
        rc = disk_size(a->value[DISK_BLOCK_SIZE], "--block-size", &block, e);
    if (!rc && (block == 0 || block % 512 || block > MAX_BLOCK))
        rc = error_set(e, ERR_USAGE, "--block-size must be a multiple of 512 up to 4M");
    if (!rc)
        rc = disk_number(a, DISK_DEPTH, 16, 1, BENCH_MAX_DEPTH, &o->depth, e);
    if (!rc)
        rc = disk_number(a, DISK_DURATION, 5, 1, 86400, &seconds, e);
    if (!rc)
        rc = disk_number(a, DISK_REQUESTS, 0, 1, 2000000000, &requests, e);
    if (!rc && requests && a->given[DISK_DURATION])
        rc = error_set(e, ERR_USAGE, "--duration and --requests: choose one");
    if (!rc && (*m)->write && !a->given[DISK_DESTROY])
        rc = error_set(e, ERR_USAGE,
                       "writing destroys what is on the disk; if that is meant, say "
                       "--destroy-contents");
    o->write = (*m)->write;
    o->random = (*m)->random;
    o->block = (uint32_t)block;
    o->duration = seconds * NS_PER_SEC;
    o->requests = requests;
    o->progress = disk_progress;
    return rc;
}

static int print(const struct disk_args *a, const struct mode *m, const struct bench_options *o,
                 const struct bench_result *r, struct error *e)
{
    double seconds = (double)r->elapsed / 1e9, iops = (double)r->requests / seconds;
    double rate = (double)r->bytes / seconds / 1e6;
    double mean = r->latency.n ? (double)r->latency.sum / (double)r->latency.n / 1e3 : 0;
    json_t *times = json_pack("{s:f}", "mean", mean);
    if (!a->given[DISK_JSON])
        printf("%s, %u bytes, depth %u: %.0f iops, %.1f MB/s\nlatency in us: mean %.1f", m->name,
               o->block, o->depth, iops, rate, mean);
    for (size_t i = 0; i < ARRAY_LEN(percentiles); i++) {
        double us = (double)latency_percentile(&r->latency, percentiles[i]) / 1e3;
        json_object_set_new(times, percentile_names[i], json_real(us));
        if (!a->given[DISK_JSON])
            printf(", %s %.1f", percentile_names[i], us);
    }
    json_object_set_new(times, "max", json_real((double)r->latency.max / 1e3));
    if (a->given[DISK_JSON])
        return cli_print_json(json_pack("{s:o, s:s, s:I, s:i, s:I, s:I, s:f, s:f, s:f, s:f, s:o}",
                                        "file", cli_json_text(a->path[0]), "mode", m->name,
                                        "block-size", (json_int_t)o->block, "depth", (int)o->depth,
                                        "requests", (json_int_t)r->requests, "bytes",
                                        (json_int_t)r->bytes, "seconds", seconds, "flush-seconds",
                                        (double)r->flush / 1e9, "iops", iops,
                                        "megabytes-per-second", rate, "latency-us", times),
                              e);
    printf(", max %.1f\n", (double)r->latency.max / 1e3);
    json_decref(times);
    return 0;
}

int disk_bench(const struct disk_args *a, struct error *e)
{
    struct bench_options o = {0};
    struct bench_result r;
    const struct mode *m = NULL;
    struct node *n = NULL;
    int rc = take_options(a, &m, &o, e);
    if (rc)
        return rc;
    struct image_options io = disk_image_options(a, !o.write);
    rc = disk_open_any(a, a->path[0], &io, &n, e);
    if (rc)
        return rc;
    disk_progress_begin();
    rc = bench_run(n, &o, &r, e);
    disk_progress_end();
    return rc ? rc : print(a, m, &o, &r, e);
}
