/* disk_common.c - what the verbs of `sosia disk` share: options, JSON, the progress bar. */
#include "cli/disk.h"

#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BAR_WIDTH 40
#define ARRAY     "raid:"

struct image_options disk_image_options(const struct disk_args *a, bool readonly)
{
    return (struct image_options){.format = a->value[DISK_FORMAT],
                                  .readonly = readonly,
                                  .allow_outside = a->given[DISK_ANYWHERE]};
}

int disk_open_any(const struct disk_args *a, const char *name, const struct image_options *o,
                  struct node **out, struct error *e)
{
    const char *path[RAID_MAX_MEMBERS];
    const struct array_options array = {.level = RAID_ANY_LEVEL,
                                        .format = o->format,
                                        .readonly = o->readonly,
                                        .degraded = a->given[DISK_DEGRADED],
                                        .allow_outside = o->allow_outside};
    unsigned n = 0;
    if (strncmp(name, ARRAY, sizeof ARRAY - 1) != 0)
        return image_open(name, o, out, e);
    if (o->snapshot)
        return error_set(e, ERR_STATE, "%s: an array has no snapshots", name);
    char *list = strdup(name + sizeof ARRAY - 1), *rest = list;
    if (!list)
        return error_set(e, ERR_NOMEM, "out of memory");
    for (char *one; n < RAID_MAX_MEMBERS && (one = strsep(&rest, ","));)
        path[n++] = one;
    int rc = rest ? error_set(e, ERR_LIMIT, "an array has 1 to %d members", RAID_MAX_MEMBERS)
                  : array_open(path, n, &array, out, e);
    free(list);
    return rc;
}

int disk_format_option(const struct disk_args *a, enum disk_opt o, const struct format **f,
                       struct error *e)
{
    char names[256];
    *f = NULL;
    if (!a->value[o])
        return 0;
    *f = format_find(a->value[o]);
    if (*f)
        return 0;
    format_names(names, sizeof names);
    return error_set(e, ERR_USAGE, "there is no format \"%.40s\"; there are: %s", a->value[o],
                     names);
}

int disk_size(const char *text, const char *what, uint64_t *out, struct error *e)
{
    if (size_parse(text, out))
        return 0;
    return error_set(e, ERR_USAGE,
                     "%s: \"%.40s\" is no size; write a number and K, M, G or T, for example 20G",
                     what, text);
}

int disk_number(const struct disk_args *a, enum disk_opt o, unsigned def, unsigned min,
                unsigned max, unsigned *out, struct error *e)
{
    char *end = NULL;
    *out = def;
    if (!a->value[o])
        return 0;
    unsigned long v = strtoul(a->value[o], &end, 10);
    if (*end || end == a->value[o] || a->value[o][0] == '-' || v < min || v > max)
        return error_set(e, ERR_USAGE, "\"%.40s\" is not a whole number from %u to %u", a->value[o],
                         min, max);
    *out = (unsigned)v;
    return 0;
}

static volatile sig_atomic_t wanted_end;
static bool shown;

static void on_signal(int sig)
{
    wanted_end = sig;
}

void disk_progress_begin(void)
{
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
}

static int64_t milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

bool disk_progress(void *ctx, uint64_t done, uint64_t of)
{
    static int64_t last;
    if (wanted_end)
        return false;
    int64_t now = milliseconds();
    if ((last && now - last < 100) || !of || !isatty(STDERR_FILENO))
        return true;
    last = now;
    shown = true;
    unsigned permille = (unsigned)((double)done * 1000 / (double)of);
    int full = (int)(permille * BAR_WIDTH / 1000);
    fprintf(stderr, "\r[%.*s%*s] %3u.%u %%", full, "########################################",
            BAR_WIDTH - full, "", permille / 10, permille % 10);
    return true;
}

void disk_progress_end(void)
{
    if (shown)
        fprintf(stderr, "\r\033[K");
    shown = false;
}
