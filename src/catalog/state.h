/*
 * state.h - state.json: what the tool knows about a VM beside the spec. A JSON object with a
 * version; keys that this version does not know are kept.
 */
#ifndef SOSIA_CATALOG_STATE_H
#define SOSIA_CATALOG_STATE_H

#include <jansson.h>

#include "base/error.h"
#include "base/types.h"

#define VM_STATE_FILE    "state.json"
#define VM_STATE_VERSION 1

struct vm_state {
    char uuid[37];
    int64_t created; /* seconds since 1970 */
    json_t *root;    /* all of it */
};

/* A new VM's, with a random UUID. ERR_NOMEM, ERR_IO. */
int vm_state_new(struct vm_state *s, struct error *e);
/* ERR_DAMAGED: it is missing or not what it should be; ERR_HOST: of a newer version. */
int vm_state_load(int dir, struct vm_state *s, struct error *e);
/* ERR_IO, ERR_PERM. `fresh`: the folder is not a VM yet. */
int vm_state_save(int dir, const struct vm_state *s, bool fresh, struct error *e);
void vm_state_fini(struct vm_state *s);

#endif
