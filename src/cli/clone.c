/* clone.c - `sosia clone`. */
#include <string.h>

#include "catalog/clone.h"
#include "cli/disk.h"
#include "cli/vms.h"

int cli_clone(const struct cli_args *a, struct error *e)
{
    struct catalog c;
    struct vm from, vm;
    char source[2 * VM_NAME_MAX]; /* what is longer is no VM's name */
    const char *at = strchr(a->pos[0], '@');
    const struct clone how = {.linked = cli_has(a, CLI_LINKED),
                              .snapshot = at ? at + 1 : NULL,
                              .progress = disk_progress};
    if (cli_has(a, CLI_LINKED) && cli_has(a, CLI_FULL))
        return error_set(e, ERR_USAGE, "clone: either --linked or --full");
    if (at && !how.linked)
        return error_set(e, ERR_USAGE,
                         "clone: of a snapshot there are linked clones only: --linked");
    snprintf(source, sizeof source, "%.*s", (int)strcspn(a->pos[0], "@"), a->pos[0]);
    int rc = vms_open(&c, source, VM_FIND_CHANGE, &from, e);
    if (rc)
        return rc;
    disk_progress_begin(); /* from here on there is something to remove */
    rc = vm_clone(&c, &from, a->pos[1], &how, e);
    disk_progress_end();
    if (!rc)
        rc = vm_open(c.vms, a->pos[1], VM_FIND_READ, &vm, e);
    if (!rc) {
        rc = vms_done(a, &vm, e, "%s is a %s of %s%s", vm.name,
                      how.linked ? "linked clone" : "copy", from.name, at ? at : "");
        vm_close(&vm);
    }
    vm_close(&from);
    catalog_close(&c);
    return rc;
}
