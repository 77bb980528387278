/* disk_create.c - `sosia disk create`. */
#include "cli/disk.h"

int disk_create(const struct disk_args *a, struct error *e)
{
    const char *path = a->path[0];
    struct output out;
    struct image_create c = {.backing = a->value[DISK_BACKING],
                             .backing_format = a->value[DISK_BACKING_FORMAT],
                             .allow_outside = a->given[DISK_ANYWHERE],
                             .option = a->option,
                             .noptions = a->noptions};
    int rc = disk_format_option(a, DISK_FORMAT, &c.format, e);
    if (!rc && a->path[1])
        rc = disk_size(a->path[1], "SIZE", &c.size, e);
    if (rc)
        return rc;
    if (!a->path[1] && !c.backing)
        return error_set(e, ERR_USAGE, "disk create: how large? `sosia disk create %s 20G`", path);
    if (a->path[1] && c.size == 0)
        return error_set(e, ERR_USAGE, "disk create: a disk has at least one byte");
    if (!c.format)
        c.format = format_by_suffix(path);
    if (!c.format)
        c.format = format_find("qcow2");
    rc = image_create(&out, path, &c, e);
    if (!rc)
        rc = output_commit(&out, e);
    if (rc)
        return rc;
    struct image_options o = {.format = c.format->name,
                              .readonly = true,
                              .unlocked = true,
                              .allow_outside = c.allow_outside};
    struct node *n = NULL;
    rc = image_open(path, &o, &n, e);
    if (rc)
        return rc;
    uint64_t size = node_size(n);
    char text[32];
    node_close(n);
    if (a->given[DISK_JSON])
        return cli_print_json(json_pack("{s:o, s:s, s:I, s:o}", "file", cli_json_text(path),
                                        "format", c.format->name, "virtual-size", (json_int_t)size,
                                        "backing-file", cli_json_text(c.backing)),
                              e);
    printf("%s: %s, %s%s%s\n", path, c.format->name, size_format(text, size),
           c.backing ? ", backed by " : "", c.backing ? c.backing : "");
    return 0;
}
