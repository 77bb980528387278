/* snapshot.c - going back to snapshots. See snapshot.h. */
#define _GNU_SOURCE
#include "catalog/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/chain.h"
#include "catalog/launch.h"
#include "catalog/layer.h"
#include "catalog/status.h"
#include "catalog/store.h"
#include "spec/source.h"

static int no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "out of memory");
}

/* States are never written to again once they are complete. */
int snapshot_link_state(int from_dir, const char *from, int to_dir, const char *to, struct error *e)
{
    unlinkat(to_dir, to, 0);
    if (linkat(from_dir, from, to_dir, to, 0) < 0)
        return error_file(e, errno, "%s: cannot get a second name (a file system without them?)",
                          from);
    return store_sync(to_dir, e);
}

/* That all of it is there, before anything is changed. */
static int check_disks(const struct vm *vm, const struct snapshot *s, struct error *e)
{
    int rc = 0;
    for (size_t i = 0; i < s->ndisk && !rc; i++) {
        struct chain chain = {0};
        CLEANUP_FREE char *path = NULL;
        if (asprintf(&path, "%s/%s", vm->path, s->disk[i].layer) < 0) {
            path = NULL;
            return no_memory(e);
        }
        rc = chain_load(&chain, path, s->disk[i].format, false, e);
        chain_free(&chain);
        if (rc) {
            error_prefix(e, "the snapshot %s cannot be used", s->name);
            rc = e->code = ERR_DAMAGED;
        }
    }
    return rc;
}

/* The layers that a disk rests on now. */
static int note_layers(const struct vm *vm, struct vm_state *state, const char *path,
                       struct error *e)
{
    struct chain chain = {0};
    int rc = chain_load(&chain, path, "qcow2", false, e);
    for (unsigned i = 1; i < chain.n && !rc; i++) {
        struct stat st;
        CLEANUP_FREE char *real = NULL, *inside = NULL;
        rc = layer_resolve(vm, chain.link[i].path, &real, &inside, e);
        if (!rc && inside && stat(real, &st) == 0 && layer_note(state, inside, &st))
            rc = no_memory(e);
    }
    chain_free(&chain);
    return rc;
}

static int put_disk(const struct vm *vm, struct vm_state *state, const struct snapshot_disk *d,
                    struct error *e)
{
    CLEANUP_FREE char *path = NULL;
    if (asprintf(&path, "%s/%s", vm->path, d->file) < 0) {
        path = NULL;
        return no_memory(e);
    }
    int rc = layer_overlay(path, d->layer, d->format, true, e);
    if (!rc)
        rc = note_layers(vm, state, path, e);
    if (!rc)
        layer_note_top(state, vm->dir, d->file);
    return rc;
}

/* The spec, and whether the VM is suspended. */
static int put_rest(const struct vm *vm, int dir, const struct snapshot *s, struct error *e)
{
    CLEANUP_FREE char *text = NULL;
    size_t len;
    struct vm_status status;
    int rc = store_read(dir, VM_SPEC, SPEC_MAX_TEXT, &text, &len, e);
    if (!rc)
        rc = store_write(vm->dir, VM_SPEC, text, len, e);
    if (rc)
        return rc;
    vm_status_read(vm, &status);
    if (s->of == SNAPSHOT_STOPPED)
        return status.run == VM_SUSPENDED ? vm_drop_state(vm, e) : 0;
    const char *file = vm_state_other(status.state);
    rc = snapshot_link_state(dir, SNAPSHOT_STATE, vm->dir, file, e);
    return rc ? rc : vm_adopt_state(vm, file, e);
}

/* Layers that only the disks before rested on are removed before it is complete: whoever is killed
 * amid that does it again. */
static int restore(const struct vm *vm, int folder, int dir, const struct snapshot *s,
                   struct vm_state *state, struct error *e)
{
    int rc = check_disks(vm, s, e);
    if (!rc && s->of != SNAPSHOT_STOPPED && faccessat(dir, SNAPSHOT_STATE, R_OK, 0) < 0)
        rc = error_set(e, ERR_DAMAGED, "the state of the snapshot %s is missing", s->name);
    if (rc)
        return rc;
    json_object_set_new(state->root, "restoring", json_string(s->name));
    rc = vm_state_save(vm->dir, state, false, e);
    if (rc)
        return rc;
    json_object_set_new(state->root, "layers", json_array());
    for (size_t i = 0; i < s->ndisk && !rc; i++)
        rc = put_disk(vm, state, &s->disk[i], e);
    if (!rc)
        rc = put_rest(vm, dir, s, e);
    if (rc)
        return rc;
    snapshot_sweep(vm, folder, true);
    json_object_del(state->root, "restoring");
    json_object_del(state->root, "snapshot-before");
    json_object_set_new(state->root, "snapshot", json_string(s->name));
    return vm_state_save(vm->dir, state, false, e);
}

int vm_snapshot_restore(const struct vm *vm, const char *name, struct error *e)
{
    struct snapshot s;
    struct vm_state state;
    int rc = vm_snapshot_load(vm, name, &s, e);
    if (rc)
        return rc;
    rc = vm_need_stopped(vm, "snap restore", e);
    if (!rc)
        rc = vm_state_load(vm->dir, &state, e);
    if (rc) {
        snapshot_fini(&s);
        return rc;
    }
    CLEANUP_CLOSE int folder = store_folder(vm->dir, VM_SNAPSHOTS, false, e);
    CLEANUP_CLOSE int dir = folder < 0 ? folder : store_folder(folder, name, false, e);
    rc = dir < 0 ? dir : restore(vm, folder, dir, &s, &state, e);
    vm_state_fini(&state);
    snapshot_fini(&s);
    return rc;
}
