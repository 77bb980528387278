/*
 * vm_disks.c - opens what the guest's drives hold.
 */
#include <stdlib.h>

#include "block/disk.h"
#include "block/image.h"
#include "vmm/vm.h"

static int open_disk(struct vm *vm, const char *path, const struct image_options *o,
                     struct blk **out, struct error *e)
{
    struct node *top = NULL;
    int rc = image_open(path, o, &top, e);
    if (rc)
        return rc;
    rc = disk_open(top, &(struct disk_options){.io = DISK_IO_AUTO}, &vm->lock, out, e);
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
        rc = open_disk(vm, d->file, &o, &vm->disk[n], e);
    }
    if (!rc && s->cdrom)
        rc = open_disk(vm, s->cdrom, &iso, &vm->cdrom, e);
    if (!rc && s->floppy)
        rc = open_disk(vm, s->floppy, &floppy, &vm->floppy, e);
    return rc;
}
