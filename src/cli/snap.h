/*
 * snap.h - `sosia snap`: what its verbs share.
 */
#ifndef SOSIA_CLI_SNAP_H
#define SOSIA_CLI_SNAP_H

#include "catalog/snapshot.h"
#include "cli/vms.h"

/* The catalog and the VM are open; its name and `snap` are pos[0] and pos[1] of what follows. */
struct snap_call {
    const struct cli_args *a;
    struct vm *vm;
    int npos; /* behind the VM */
    const char **pos;
};

int snap_ls(const struct snap_call *c, struct error *e);
int snap_tree(const struct snap_call *c, struct error *e);
int snap_diff(const struct snap_call *c, struct error *e);

#endif
