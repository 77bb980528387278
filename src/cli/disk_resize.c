/* disk_resize.c - `sosia disk resize`. */
#include "cli/disk.h"

static int new_size(const struct disk_args *a, uint64_t old, uint64_t *size, struct error *e)
{
    const char *text = a->path[1];
    char sign = text[0];
    int rc = disk_size(text + (sign == '+' || sign == '-'), "SIZE", size, e);
    if (rc)
        return rc;
    if (sign == '-' && *size >= old)
        return error_set(e, ERR_USAGE, "disk resize: the disk has only %llu bytes",
                         (unsigned long long)old);
    *size = sign == '+' ? old + *size : sign == '-' ? old - *size : *size;
    if (*size == 0 || *size > INT64_MAX - 511)
        return error_set(e, ERR_USAGE, "disk resize: a disk has from 1 to 2^63 - 512 bytes");
    *size = (*size + 511) & ~511ull;
    if (*size < old && !a->given[DISK_SHRINK])
        return error_set(
            e, ERR_USAGE,
            "disk resize: the last %llu bytes of the disk would be lost; make the file "
            "systems in it smaller first, then say --shrink",
            (unsigned long long)(old - *size));
    return 0;
}

/* What says that it is a member lies at its end. */
static int refuse_member(struct node *n, const char *path, struct error *e)
{
    struct raid_super s;
    bool found = false;
    int rc = raid_super_read(n, &s, &found);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "%s: cannot be read", path);
    return found ? error_set(e, ERR_STATE,
                             "%s: is a member of an array, which keeps its size; make a new array "
                             "of larger images, and copy what is in this one",
                             path)
                 : 0;
}

int disk_resize(const struct disk_args *a, struct error *e)
{
    struct image_options o = disk_image_options(a, false);
    struct node *n = NULL;
    uint64_t size = 0;
    char text[32];
    int rc = image_open(a->path[0], &o, &n, e);
    if (rc)
        return rc;
    uint64_t old = node_size(n);
    rc = refuse_member(n, a->path[0], e);
    if (!rc)
        rc = new_size(a, old, &size, e);
    if (!rc && size != old) {
        rc = node_resize(n, size, e);
        int flushed = rc ? 0 : node_flush(n);
        if (flushed)
            rc = error_errno(e, ERR_IO, -flushed, "%s: cannot be written", a->path[0]);
    }
    size = node_size(n);
    node_close(n);
    if (rc)
        return rc;
    if (a->given[DISK_JSON])
        return cli_print_json(json_pack("{s:o, s:I, s:I}", "file", cli_json_text(a->path[0]),
                                        "old-size", (json_int_t)old, "virtual-size",
                                        (json_int_t)size),
                              e);
    printf("%s: %s", a->path[0], size_format(text, old));
    printf(" -> %s\n", size_format(text, size));
    return 0;
}
