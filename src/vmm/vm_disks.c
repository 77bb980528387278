/*
 * vm_disks.c - opens what the guest's drives hold.
 */
#include <stdlib.h>

#include "block/array.h"
#include "block/disk.h"
#include "block/image.h"
#include "block/layer/copy_on_read.h"
#include "block/layer/throttle.h"
#include "vmm/vm.h"

/* The layers that the spec asks for, over the image; *top is the topmost one. */
static int add_layers(const struct spec_disk *d, struct node **top, struct error *e)
{
    const struct throttle_limits limits = {.iops = d->iops, .bytes = d->bandwidth};
    int rc = d->copy_on_read ? copy_on_read_open(*top, top, e) : 0;
    if (!rc && (d->iops || d->bandwidth))
        rc = throttle_open(*top, &limits, top, e);
    return rc;
}

static int open_array(const struct spec_disk *d, const struct image_options *o, struct node **out,
                      struct error *e)
{
    const struct array_options a = {.level = d->raid == SPEC_RAID_1,
                                    .format = o->format,
                                    .readonly = o->readonly,
                                    .degraded = d->degraded,
                                    .allow_outside = o->allow_outside};
    return array_open((const char *const *)d->members.path, d->members.n, &a, out, e);
}

/* `d`: NULL for other media than disks. */
static int open_disk(struct vm *vm, const char *path, const struct image_options *o,
                     const struct spec_disk *d, struct blk **out, struct error *e)
{
    struct node *top = NULL;
    int rc =
        d && d->raid != SPEC_RAID_NONE ? open_array(d, o, &top, e) : image_open(path, o, &top, e);
    if (rc)
        return rc;
    rc = d ? add_layers(d, &top, e) : 0;
    if (!rc)
        rc = disk_open(
            top,
            &(struct disk_options){.io = DISK_IO_AUTO, .name = path, .deferred = &vm->deferred},
            &vm->lock, out, e);
    if (rc) {
        node_close(top);
        return error_prefix(e, "%s", path);
    }
    return 0;
}

int vm_open_disks(struct vm *vm, struct error *e)
{
    const struct spec *s = vm->spec;
    const struct image_options iso = {.format = "raw", .readonly = true};
    const struct image_options floppy = {.format = "raw"};
    int rc = 0;
    for (unsigned n = 0; n < s->ndisk && !rc; n++) {
        const struct spec_disk *d = &s->disk[n];
        const struct image_options o = {.format = spec_format_words[d->format],
                                        .readonly = d->readonly,
                                        .allow_outside = d->backing == SPEC_BACKING_ANYWHERE};
        rc = open_disk(vm, d->file, &o, d, &vm->disk[n], e);
    }
    if (!rc && s->cdrom)
        rc = open_disk(vm, s->cdrom, &iso, NULL, &vm->cdrom, e);
    if (!rc && s->floppy)
        rc = open_disk(vm, s->floppy, &floppy, NULL, &vm->floppy, e);
    return rc;
}
