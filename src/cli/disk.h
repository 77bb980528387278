/*
 * disk.h - `sosia disk`: what its verbs share. One table of verbs (disk.c), one file for each.
 *
 * With --json a verb prints one JSON object to standard output, also when it fails:
 * {"error": {"code": "busy", "message": "...", "hint": "..." or null}}. Progress is shown on
 * standard error, on a terminal only.
 */
#ifndef SOSIA_CLI_DISK_H
#define SOSIA_CLI_DISK_H

#include "block/array.h"
#include "block/create.h"
#include "block/image.h"
#include "block/size.h"
#include "cli/cli.h"
#include "cli/json.h"

enum disk_opt {
    DISK_JSON,
    DISK_FORMAT,
    DISK_SOURCE_FORMAT,
    DISK_OPTION,
    DISK_BACKING,
    DISK_BACKING_FORMAT,
    DISK_ANYWHERE,
    DISK_REPLACE,
    DISK_COMPRESS,
    DISK_SHRINK,
    DISK_KEEP,
    DISK_MODE,
    DISK_BLOCK_SIZE,
    DISK_DEPTH,
    DISK_DURATION,
    DISK_REQUESTS,
    DISK_DESTROY,
    DISK_LEVEL,
    DISK_CHUNK,
    DISK_SNAPSHOT,
    DISK_DEGRADED,
    DISK_OPTS
};
#define DISK_OPT(o) (1u << (o))

struct disk_args {
    const char *verb;
    const char *path[RAID_MAX_MEMBERS];
    int npath;
    bool given[DISK_OPTS];
    const char *value[DISK_OPTS]; /* the last one */
    const char **option;          /* each --option, owned */
    unsigned noptions;
};

struct disk_verb {
    const char *name, *args, *summary, *detail;
    unsigned opts;                                          /* besides --json */
    int min, max;                                           /* of file names and sizes */
    int (*run)(const struct disk_args *a, struct error *e); /* 0, ERR_* or enum cli_exit */
};

/* Options that name an image: --format, --backing-anywhere. */
struct image_options disk_image_options(const struct disk_args *a, bool readonly);
/* As image_open(), of an image or of an array: "raid:FILE,FILE...". */
int disk_open_any(const struct disk_args *a, const char *name, const struct image_options *o,
                  struct node **out, struct error *e);
/* ERR_USAGE: there is no such format. NULL: the option was not given. */
int disk_format_option(const struct disk_args *a, enum disk_opt o, const struct format **f,
                       struct error *e);
/* A size, or ERR_USAGE; `what` is for the message. */
int disk_size(const char *text, const char *what, uint64_t *out, struct error *e);
/* A number of an option within limits, or `def`. */
int disk_number(const struct disk_args *a, enum disk_opt o, unsigned def, unsigned min,
                unsigned max, unsigned *out, struct error *e);

/* The bar; as a `progress` callback. False: the user wants to end (SIGINT, SIGTERM, SIGHUP). */
bool disk_progress(void *ctx, uint64_t done, uint64_t of);
/* The signals are noticed by disk_progress() from now on instead of ending the process. */
void disk_progress_begin(void);
/* Removes the bar. */
void disk_progress_end(void);

int disk_create(const struct disk_args *a, struct error *e);
int disk_info(const struct disk_args *a, struct error *e);
int disk_convert(const struct disk_args *a, struct error *e);
int disk_check(const struct disk_args *a, struct error *e);
int disk_repair(const struct disk_args *a, struct error *e);
int disk_resize(const struct disk_args *a, struct error *e);
int disk_map(const struct disk_args *a, struct error *e);
int disk_commit(const struct disk_args *a, struct error *e);
int disk_compact(const struct disk_args *a, struct error *e);
int disk_bench(const struct disk_args *a, struct error *e);
int disk_raid(const struct disk_args *a, struct error *e);

#endif
