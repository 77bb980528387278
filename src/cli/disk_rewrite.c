/* disk_rewrite.c - `sosia disk commit` and `sosia disk compact`. */
#include "cli/disk.h"

#include "base/cleanup.h"
#include "block/rewrite.h"

static struct rewrite begin(const struct disk_args *a)
{
    disk_progress_begin();
    return (struct rewrite){.image = disk_image_options(a, false),
                            .progress = disk_progress,
                            .keep = a->given[DISK_KEEP]};
}

int disk_commit(const struct disk_args *a, struct error *e)
{
    struct rewrite r = begin(a);
    char text[32];
    int rc = image_commit(a->path[0], &r, e);
    CLEANUP_FREE char *base = r.backing_path;
    disk_progress_end();
    if (rc)
        return rc;
    if (a->given[DISK_JSON])
        return cli_print_json(json_pack("{s:o, s:o, s:I, s:b}", "file", cli_json_text(a->path[0]),
                                        "backing-file", cli_json_text(base),
                                        "backing-allocated-size", (json_int_t)r.after, "emptied",
                                        r.emptied),
                              e);
    printf("%s: merged into %s (%s on disk now)%s\n", a->path[0], base ? base : "its backing file",
           size_format(text, r.after), r.emptied ? "; it is empty now" : "");
    return 0;
}

int disk_compact(const struct disk_args *a, struct error *e)
{
    struct rewrite r = begin(a);
    char text[32];
    int rc = image_compact(a->path[0], &r, e);
    disk_progress_end();
    if (rc)
        return rc;
    if (a->given[DISK_JSON])
        return cli_print_json(json_pack("{s:o, s:I, s:I}", "file", cli_json_text(a->path[0]),
                                        "old-allocated-size", (json_int_t)r.before,
                                        "allocated-size", (json_int_t)r.after),
                              e);
    printf("%s: %s", a->path[0], size_format(text, r.before));
    printf(" -> %s on disk\n", size_format(text, r.after));
    return 0;
}
