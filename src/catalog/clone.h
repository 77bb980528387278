/*
 * clone.h - a VM made from another one.
 *
 * A linked clone shares what is on the disks at that moment. The source's disk becomes a *layer*, a
 * file that nobody writes to any more, and both VMs get an overlay on it, under the disk's old
 * name. A layer lies beside the disk, in the folder of each VM that needs it, as a hard link: so a
 * VM's folder is complete, a copy of it is a backup, and removing one VM takes nothing from
 * another.
 *
 * Each step leaves a source that works: the layer's link is made first, then the overlay is put in
 * the disk's place by one rename.
 */
#ifndef SOSIA_CATALOG_CLONE_H
#define SOSIA_CATALOG_CLONE_H

#include "block/copy.h"
#include "catalog/catalog.h"

struct clone {
    bool linked;
    const char *snapshot;     /* of what was then, instead of now; linked only. NULL: of now */
    block_progress *progress; /* of copied disks; may be NULL */
};

/* Makes the VM `name` from `from`, which does not run (but may, if it is a snapshot that is cloned)
 * and is open for VM_FIND_CHANGE. ERR_STATE: it runs, `name` is taken, or (linked) a disk is not in
 * the VM's folder; ERR_NOTFOUND: there is no such snapshot; else as image_open(). */
int vm_clone(struct catalog *c, const struct vm *from, const char *name, const struct clone *how,
             struct error *e);

#endif
