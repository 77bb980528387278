/* resize.c - `sosia resize`: a disk of a running VM grows. */
#include <string.h>

#include "block/size.h"
#include "catalog/remote.h"
#include "cli/life.h"

#define ANSWER_MS 60000 /* tables of an image may have to move */

/* Of a disk, as query-block tells it. */
static int disk_size_now(struct remote *r, const char *disk, uint64_t *size, struct error *e)
{
    json_t *all = NULL, *d;
    size_t i;
    int rc = remote_call(r, "query-block", NULL, ANSWER_MS, &all, e);
    if (rc)
        return rc;
    rc = error_set(e, ERR_USAGE, "there is no disk \"%.40s\": the first one is disk0", disk);
    json_array_foreach(all, i, d)
    {
        json_t *image = json_object_get(json_object_get(d, "inserted"), "image");
        const char *name = json_string_value(json_object_get(d, "device"));
        if (!image || !name || strcmp(name, disk) != 0)
            continue;
        *size = (uint64_t)json_integer_value(json_object_get(image, "virtual-size"));
        rc = 0;
    }
    json_decref(all);
    return rc;
}

static int resize_to(const struct cli_args *a, struct remote *r, uint64_t *size, struct error *e)
{
    const char *disk = a->pos[1], *text = a->pos[2];
    uint64_t old = 0;
    int rc = disk_size_now(r, disk, &old, e);
    if (rc)
        return rc;
    if (!size_parse(text + (text[0] == '+'), size) || *size > INT64_MAX - old - 511)
        return error_set(e, ERR_USAGE, "\"%.40s\" is no size: 20G, or +4G for so much more", text);
    *size = (*size + (text[0] == '+' ? old : 0) + 511) & ~511ull;
    return remote_call(r, "block_resize",
                       json_pack("{s:s, s:I}", "device", disk, "size", (json_int_t)*size),
                       ANSWER_MS, NULL, e);
}

int cli_resize(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm vm;
    struct remote r;
    uint64_t size = 0;
    char text[32];
    int rc = vms_open(&c, a->pos[0], VM_FIND_READ, &vm, e);
    if (rc)
        return rc;
    rc = remote_open(&r, &vm, e);
    if (!rc) {
        rc = resize_to(a, &r, &size, e);
        remote_close(&r);
    }
    if (!rc)
        rc = vms_done(a, &vm, e, "%s: %s has %s now", vm.name, a->pos[1], size_format(text, size));
    vm_close(&vm);
    catalog_close(&c);
    return rc;
}
