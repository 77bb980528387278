/* snapshot_rm.c - removing snapshots. See snapshot.h. */
#define _GNU_SOURCE
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/snapshot.h"
#include "catalog/state.h"
#include "catalog/store.h"

/* Its children become its parent's. */
static int hand_over_children(const struct vm *vm, int folder, const struct snapshot *gone,
                              struct error *e)
{
    struct vm_names list;
    int rc = vm_snapshot_list(vm, &list, e);
    for (size_t i = 0; i < list.n && !rc; i++) {
        struct snapshot s;
        rc = vm_snapshot_load(vm, list.name[i], &s, e);
        if (rc)
            break;
        if (strcmp(s.parent, gone->name) == 0) {
            memcpy(s.parent, gone->parent, sizeof s.parent);
            CLEANUP_CLOSE int dir = store_folder(folder, s.name, false, e);
            rc = dir < 0 ? dir : snapshot_write(dir, &s, false, e);
        }
        snapshot_fini(&s);
    }
    catalog_list_free(&list);
    return rc;
}

static int hand_over_disks(const struct vm *vm, const struct snapshot *gone, struct error *e)
{
    char current[VM_NAME_MAX + 1];
    struct vm_state state;
    int rc = vm_snapshot_current(vm, current, e);
    if (rc || strcmp(current, gone->name) != 0)
        return rc;
    rc = vm_state_load(vm->dir, &state, e);
    if (rc)
        return rc;
    if (gone->parent[0])
        json_object_set_new(state.root, "snapshot", json_string(gone->parent));
    else
        json_object_del(state.root, "snapshot");
    json_object_del(state.root, "snapshot-before");
    rc = vm_state_save(vm->dir, &state, false, e);
    vm_state_fini(&state);
    return rc;
}

static int remove_one(const struct vm *vm, int folder, const struct snapshot *s, struct error *e)
{
    struct vm_names layers;
    char temp[32];
    int rc = snapshot_find_layers(vm, s->name, &layers, e);
    if (!rc)
        rc = snapshot_temp(SNAPSHOT_GONE, temp, e);
    if (!rc)
        rc = hand_over_children(vm, folder, s, e);
    if (!rc)
        rc = hand_over_disks(vm, s, e);
    if (!rc)
        rc = store_rename(folder, s->name, folder, temp, e);
    if (!rc)
        rc = snapshot_remove_layers(vm, &layers, e);
    if (!rc)
        rc = store_remove(folder, temp, e);
    catalog_list_free(&layers);
    return rc;
}

static int refuse_broken_off(const struct vm *vm, struct error *e)
{
    struct vm_state state;
    int rc = vm_state_load(vm->dir, &state, e);
    if (rc)
        return rc;
    const char *name = json_string_value(json_object_get(state.root, "restoring"));
    if (name)
        rc = error_set(e, ERR_STATE,
                       "going back to the snapshot %.80s was broken off; `sosia snap restore %s "
                       "%.80s` first",
                       name, vm->name, name);
    vm_state_fini(&state);
    return rc;
}

int vm_snapshot_remove(const struct vm *vm, const char *name, struct error *e)
{
    struct snapshot s;
    int rc = vm_snapshot_load(vm, name, &s, e);
    if (rc)
        return rc;
    rc = refuse_broken_off(vm, e);
    CLEANUP_CLOSE int folder = rc ? -1 : store_folder(vm->dir, VM_SNAPSHOTS, false, e);
    if (!rc && folder < 0)
        rc = folder;
    if (!rc) {
        snapshot_sweep(vm, folder, false);
        rc = remove_one(vm, folder, &s, e);
    }
    snapshot_fini(&s);
    return rc;
}
