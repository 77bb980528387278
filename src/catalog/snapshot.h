/*
 * snapshot.h - what a VM was at one moment: its spec, its disks, and, if it ran, its state.
 *
 *     snapshots/NAME/   snapshot.json   what is below; its parent
 *                       vm.yaml         the spec
 *                       machine.state   docs/state.md; of one that ran or was suspended
 *
 * The disks' contents are layers (layer.h) in the folder of the disks. What holds at any instant,
 * whoever is killed:
 *
 *  1. A snapshot is there when its folder has its name: taken with all layers by one rename, gone
 *     by another. Folders with hidden names are leftovers, which the next verb sweeps up.
 *  2. What the VM's disks read as is not changed by taking or removing one.
 *  3. Going back to one is done wholly or again: state.json says "restoring" until it is complete,
 *     and no VM starts meanwhile.
 *  4. A layer is removed only if nothing in the VM's folder rests on it: no disk of the spec, no
 *     other file beside it, no snapshot. Linked clones have names of their own for what they need.
 *
 * All but vm_snapshot_load() and vm_snapshot_list() want a VM open for VM_FIND_CHANGE.
 */
#ifndef SOSIA_CATALOG_SNAPSHOT_H
#define SOSIA_CATALOG_SNAPSHOT_H

#include "catalog/catalog.h"

#define VM_SNAPSHOTS   "snapshots"
#define SNAPSHOT_FILE  "snapshot.json"
#define SNAPSHOT_STATE "machine.state"

enum snapshot_of { SNAPSHOT_STOPPED, SNAPSHOT_SUSPENDED, SNAPSHOT_RUNNING };
extern const char *const snapshot_words[]; /* "stopped" ... */

struct snapshot_disk {
    char *file, *layer; /* in the VM's folder; the disk's name and what holds its contents */
    char *format;       /* of the layer */
};

struct snapshot {
    char name[VM_NAME_MAX + 1];
    char parent[VM_NAME_MAX + 1]; /* "": none */
    int64_t created;              /* seconds since 1970 */
    enum snapshot_of of;
    struct snapshot_disk *disk;
    size_t ndisk;
};

/* ERR_NOTFOUND: there is none of that name; ERR_DAMAGED; ERR_HOST: of a newer version. The caller
 * calls snapshot_fini() on success. */
int vm_snapshot_load(const struct vm *vm, const char *name, struct snapshot *s, struct error *e);
void snapshot_fini(struct snapshot *s);
/* Their names. */
int vm_snapshot_list(const struct vm *vm, struct vm_names *list, struct error *e);
/* The spec, allocated. */
int vm_snapshot_spec(const struct vm *vm, const char *name, char **text, size_t *len,
                     struct error *e);
/* The one that the disks go on from; "" if there is none. */
int vm_snapshot_current(const struct vm *vm, char out[VM_NAME_MAX + 1], struct error *e);

/* The VM is stopped or suspended. ERR_STATE: there is one of that name, or a disk that cannot be
 * part of one; ERR_LIMIT: too many layers. */
int vm_snapshot_take(const struct vm *vm, const char *name, struct error *e);
/* The VM runs, and goes on; *pause_ns: for how long it did not. See vmm/snap.h. */
int vm_snapshot_take_live(const struct vm *vm, const char *name, int64_t *pause_ns,
                          struct error *e);
/* The VM is not alive; it is stopped or suspended afterwards. What was not in a snapshot is lost.
 */
int vm_snapshot_restore(const struct vm *vm, const char *name, struct error *e);
/* The VM may run. */
int vm_snapshot_remove(const struct vm *vm, const char *name, struct error *e);

/* ---- between the files snapshot*.c ---- */

int snapshot_check_name(const char *name, struct error *e);
/* A second name for a state, in place of what has that name. */
int snapshot_link_state(int from_dir, const char *from, int to_dir, const char *to,
                        struct error *e);
/* From a folder in snapshots/. */
int snapshot_read(int folder, const char *dir, struct snapshot *s, struct error *e);
int snapshot_write(int dir, const struct snapshot *s, bool fresh, struct error *e);
int snapshot_add_disk(struct snapshot *s, const char *file, const char *layer, const char *format);
/* The layers that nothing rests on, or will when the snapshot `without` (NULL: none) is gone. The
 * caller frees the list, on failure too. */
int snapshot_find_layers(const struct vm *vm, const char *without, struct vm_names *layers,
                         struct error *e);
int snapshot_remove_layers(const struct vm *vm, const struct vm_names *layers, struct error *e);
/* Removes what killed verbs left, and the layers that nothing rests on: if there are leftovers, or
 * `layers` says that there may be some without. What cannot be removed stays for the next. */
void snapshot_sweep(const struct vm *vm, int folder, bool layers);
#define SNAPSHOT_DRAFT ".new-"
#define SNAPSHOT_GONE  ".gone-"
/* A hidden name. */
int snapshot_temp(const char *prefix, char out[32], struct error *e);

#endif
