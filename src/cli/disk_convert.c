/* disk_convert.c - `sosia disk convert`: a copy of what a disk reads as, in any format. */
#include "cli/disk.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "block/copy.h"
#include "block/io/lock.h"

/* The file that is to be replaced must not be anybody's disk right now. */
static int refuse_used(const char *path, struct error *e)
{
    char who[128];
    bool writes;
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0 && lock_holder(fd, who, sizeof who, &writes))
        return error_set(e, ERR_BUSY, "%s: %s uses it; stop that first", path, who);
    return 0;
}

static int convert(const struct disk_args *a, struct node *from, const struct format *f,
                   struct error *e)
{
    struct image_create with = {.format = f,
                                .size = node_size(from),
                                .allow_outside = a->given[DISK_ANYWHERE],
                                .replace = a->given[DISK_REPLACE],
                                .option = a->option,
                                .noptions = a->noptions};
    struct copy c = {.from = from, .compress = a->given[DISK_COMPRESS], .progress = disk_progress};
    disk_progress_begin(); /* from here on there is something to remove */
    int rc = copy_new(&c, a->path[1], &with, e);
    disk_progress_end();
    return rc;
}

int disk_convert(const struct disk_args *a, struct error *e)
{
    const struct format *f = NULL;
    struct image_options o = {.format = a->value[DISK_SOURCE_FORMAT],
                              .readonly = true,
                              .snapshot = a->value[DISK_SNAPSHOT],
                              .allow_outside = a->given[DISK_ANYWHERE]};
    struct node *from = NULL;
    struct stat st;
    char text[32];
    int rc = disk_format_option(a, DISK_FORMAT, &f, e);
    if (!rc && a->given[DISK_REPLACE])
        rc = refuse_used(a->path[1], e);
    if (!rc)
        rc = disk_open_any(a, a->path[0], &o, &from, e);
    if (rc)
        return rc;
    if (!f)
        f = format_by_suffix(a->path[1]);
    if (!f)
        f = format_find("qcow2");
    uint64_t size = node_size(from);
    rc = convert(a, from, f, e);
    node_close(from);
    if (rc)
        return rc;
    uint64_t taken = stat(a->path[1], &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
    if (a->given[DISK_JSON])
        return cli_print_json(json_pack("{s:o, s:s, s:I, s:I}", "file", cli_json_text(a->path[1]),
                                        "format", f->name, "virtual-size", (json_int_t)size,
                                        "allocated-size", (json_int_t)taken),
                              e);
    printf("%s: %s, %s", a->path[1], f->name, size_format(text, size));
    printf(", %s on disk\n", size_format(text, taken));
    return 0;
}
