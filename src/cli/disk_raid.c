/* disk_raid.c - `sosia disk raid`: an array of images. */
#include "cli/disk.h"

int disk_raid(const struct disk_args *a, struct error *e)
{
    struct array_create c = {.format = a->value[DISK_FORMAT],
                             .allow_outside = a->given[DISK_ANYWHERE],
                             .destroy = a->given[DISK_DESTROY]};
    const struct format *f = NULL;
    uint64_t chunk = 0;
    if (!a->value[DISK_LEVEL])
        return error_set(e, ERR_USAGE, "disk raid: which --level, 0 (striped) or 1 (mirrored)?");
    int rc = disk_number(a, DISK_LEVEL, 0, 0, 1, &c.raid.level, e);
    if (!rc)
        rc = disk_format_option(a, DISK_FORMAT, &f, e);
    if (!rc && a->value[DISK_CHUNK])
        rc = disk_size(a->value[DISK_CHUNK], "disk raid", &chunk, e);
    if (!rc && a->value[DISK_CHUNK] &&
        (c.raid.level || chunk < RAID_MIN_CHUNK || chunk > RAID_MAX_CHUNK || chunk & (chunk - 1)))
        rc = error_set(e, ERR_USAGE,
                       "disk raid: --chunk is for level 0, a power of two from 4K to 64M");
    c.raid.chunk = (uint32_t)chunk;
    if (!rc)
        rc = array_create(a->path, (unsigned)a->npath, &c, e);
    if (rc)
        return rc;
    if (a->given[DISK_JSON])
        return cli_print_json(
            json_pack("{s:i, s:i}", "level", (int)c.raid.level, "members", a->npath), e);
    printf("RAID %u of %d images; in a spec file:\n  - {raid: %u, members: [", c.raid.level,
           a->npath, c.raid.level);
    for (int i = 0; i < a->npath; i++)
        printf("%s%s", i ? ", " : "", a->path[i]);
    printf("]}\n");
    return 0;
}
