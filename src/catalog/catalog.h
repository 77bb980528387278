/*
 * catalog.h - the VMs of a user: folders, one for each, with a spec file that is the user's and the
 * rest that is the tool's.
 *
 *     HOME/lock             taken by verbs that give or free names
 *     HOME/vms/NAME/        vm.yaml     the user's; changed by `set` and `edit` only
 *                           state.json  the tool's: UUID, layers; see state.h
 *                           run.json    who runs it now, or how that ended; see status.h
 *                           suspended.state, suspended.state.2  of a suspended VM; see status.h
 *                           lock        see lock.h
 *                           control     the socket of a running VM; see vmm/control.h
 *                           disks/ logs/
 *                           snapshots/  see snapshot.h
 *     HOME/trash/NAME.UUID8/
 *
 * HOME is $SOSIA_HOME, $XDG_DATA_HOME/sosia or ~/.local/share/sosia. There is no index and no
 * daemon: what is there is what the folders say, at every instant.
 */
#ifndef SOSIA_CATALOG_CATALOG_H
#define SOSIA_CATALOG_CATALOG_H

#include "base/error.h"
#include "base/types.h"

#define VM_NAME_MAX 63
#define VM_SPEC     "vm.yaml"

struct catalog {
    char *home;
    int home_fd, vms, trash; /* -1: not there */
    int lock;                /* HOME/lock; -1 until catalog_lock() */
};

/* Root becomes the user whose the folder is. `make`: what is missing is made; else a catalog that
 * is not there is an empty one. ERR_PERM, ERR_IO, ERR_NOMEM; ERR_USAGE: no home folder is known. */
int catalog_open(struct catalog *c, bool make, struct error *e);
void catalog_close(struct catalog *c);
/* Until catalog_close(): nobody else gives or frees names. */
int catalog_lock(struct catalog *c, struct error *e);

/* ERR_USAGE: no name for a VM; as the spec's key `name`. */
int catalog_check_name(const char *name, struct error *e);

/* The names in a folder of VMs, sorted; allocated, as is each of them. */
struct vm_names {
    char **name;
    size_t n;
};
int catalog_list(int folder, struct vm_names *list, struct error *e);
void catalog_list_free(struct vm_names *list);

struct vm {
    char name[VM_NAME_MAX + 64]; /* in the trash it has a tail */
    int dir;                     /* -1: not open */
    int lock;
    char *path; /* of the folder, allocated */
};

enum vm_find {
    VM_FIND_READ,   /* takes no lock */
    VM_FIND_CHANGE, /* with VM_LOCK_VERB, until vm_close() */
};

/* The VM of this name, else the only one whose name begins so, else the only one whose UUID does.
 * ERR_NOTFOUND; ERR_USAGE: more than one; ERR_BUSY, ERR_PERM, ERR_IO. */
int catalog_find(const struct catalog *c, const char *ref, enum vm_find how, struct vm *vm,
                 struct error *e);
/* The same in the trash. */
int catalog_find_trash(const struct catalog *c, const char *ref, struct vm *vm, struct error *e);
/* One of a list. ERR_NOTFOUND: it has gone meanwhile. */
int vm_open(int folder, const char *name, enum vm_find how, struct vm *vm, struct error *e);
void vm_close(struct vm *vm);
/* Others may change it from here on. */
void vm_unlock(struct vm *vm);

/* ---- changes. The VM is open for VM_FIND_CHANGE. ---- */

/* ERR_STATE: it runs. */
int vm_need_stopped(const struct vm *vm, const char *verb, struct error *e);
int catalog_rename(struct catalog *c, struct vm *vm, const char *to, struct error *e);
/* To the trash. */
int catalog_remove(struct catalog *c, struct vm *vm, struct error *e);
/* One in the trash, for good. */
int catalog_purge(struct catalog *c, struct vm *vm, struct error *e);
/* Out of the trash, as `to` (NULL: as it was called). */
int catalog_recover(struct catalog *c, struct vm *vm, const char *to, struct error *e);
/* What `name` in the trash was called; 0: it is none. */
size_t catalog_trash_name(const char *name);

/* ---- new VMs ---- */

/* A folder under a hidden name that becomes a VM by vm_draft_commit(). */
struct vm_draft {
    char name[VM_NAME_MAX + 1];
    char temp[64];
    char *path;
    int dir, disks, lock; /* -1: none */
};

/* ERR_BUSY: there is a VM of that name. */
int vm_draft_begin(struct catalog *c, struct vm_draft *d, const char *name, struct error *e);
struct vm_state;
int vm_draft_commit(struct catalog *c, struct vm_draft *d, const char *spec,
                    const struct vm_state *state, struct error *e);
/* Removes it; after vm_draft_commit(): closes it. */
void vm_draft_end(struct catalog *c, struct vm_draft *d);

#endif
