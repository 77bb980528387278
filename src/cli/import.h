/*
 * import.h - what becomes of the disks of a VM that `sosia import` makes.
 */
#ifndef SOSIA_CLI_IMPORT_H
#define SOSIA_CLI_IMPORT_H

#include "catalog/import.h"

struct import_plan {
    bool copy; /* --copy */
    struct import_step {
        char *from;         /* allocated; NULL: the disk stays where it is */
        const char *format; /* of `from` */
        bool overlay;       /* rather than a copy */
    } step[SPEC_MAX_DISKS];
};

/* Makes the paths absolute, starting at `base`, looks at the images, and gives disks that are to be
 * made in the VM's folder their new names in the spec. ERR_NOMEM, or with `copy` as image_open().
 */
int import_plan(struct import_plan *p, struct import *m, const char *base, struct error *e);
/* Makes them, in the folder `path`, before they are anybody's. */
int import_make_disks(const struct import_plan *p, const char *path, struct error *e);
void import_plan_fini(struct import_plan *p);

#endif
