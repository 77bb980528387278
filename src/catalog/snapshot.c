/* snapshot.c - taking snapshots and going back to them. See snapshot.h. */
#define _GNU_SOURCE
#include "catalog/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/url.h"
#include "block/chain.h"
#include "catalog/launch.h"
#include "catalog/layer.h"
#include "catalog/status.h"
#include "catalog/store.h"
#include "catalog/vmspec.h"
#include "spec/edit.h"
#include "spec/source.h"

static int no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "out of memory");
}

/* ---- the state of a suspended VM ---- */

/* States are never written to again once they are complete. */
static int link_state(int from_dir, const char *from, int to_dir, const char *to, struct error *e)
{
    unlinkat(to_dir, to, 0);
    if (linkat(from_dir, from, to_dir, to, 0) < 0)
        return error_file(e, errno, "%s: cannot get a second name (a file system without them?)",
                          from);
    return store_sync(to_dir, e);
}

/* ---- take ---- */

struct taking {
    const struct vm *vm;
    struct vm_state state;
    struct snapshot snap;
    bool *push;       /* of each disk: its top is to become the layer */
    const char *file; /* of the state, if it is suspended */
    int folder, dir;
    char temp[32];
};

static int add_disk(struct taking *t, const char *file, const char *layer, const char *format,
                    bool push, struct error *e)
{
    bool *grown = realloc(t->push, (t->snap.ndisk + 1) * sizeof *grown);
    if (!grown)
        return no_memory(e);
    t->push = grown;
    t->push[t->snap.ndisk] = push;
    return snapshot_add_disk(&t->snap, file, layer, format) ? no_memory(e) : 0;
}

/* A disk that was not written to since its overlay was made needs no new layer. */
static int plan_layer(struct taking *t, const struct chain *c, const char *inside, struct error *e)
{
    CLEANUP_FREE char *path = NULL, *layer = NULL;
    int rc = 0;
    bool push = c->n < 2 || !layer_is_untouched(&t->state, t->vm->dir, inside);
    const struct format *f = c->link[push ? 0 : 1].format;
    if (push && c->n + 1 >= FORMAT_MAX_DEPTH)
        return error_set(e, ERR_LIMIT,
                         "%s rests on %u layers already; make a full clone and go on with that",
                         inside, c->n - 1);
    if (push)
        rc = layer_name(inside, &layer, e);
    else
        rc = layer_resolve(t->vm, c->link[1].path, &path, &layer, e);
    if (!rc && (!f || !layer))
        rc = error_set(e, ERR_STATE, "%s rests on a file that is not in the VM's folder", inside);
    return rc ? rc : add_disk(t, inside, layer, f->name, push, e);
}

static int plan_disk(void *ctx, const struct spec_path *p, char **to, struct error *e)
{
    struct taking *t = ctx;
    struct chain chain = {0};
    CLEANUP_FREE char *path = NULL, *inside = NULL;
    if (strcmp(p->key, "disks") != 0 || !p->written)
        return 0;
    if (url_is_remote(p->path))
        return error_set(e, ERR_STATE,
                         "the remote disk %s cannot be part of a snapshot; make it readonly, or "
                         "convert it to a disk in the VM's folder",
                         p->path);
    int rc = layer_resolve(t->vm, p->path, &path, &inside, e);
    if (rc)
        return rc;
    if (!inside)
        return error_set(e, ERR_STATE,
                         "the disk %s is not in the VM's folder, so nobody could be kept from "
                         "changing what the snapshot rests on; a full clone has one of its own",
                         path);
    if (p->format && strcmp(p->format, "auto") != 0 && strcmp(p->format, "qcow2") != 0)
        return error_set(e, ERR_STATE,
                         "disk %s: the spec says that it is %s, but an overlay is qcow2; leave the "
                         "format out",
                         inside, p->format);
    rc = chain_load(&chain, path, p->format, false, e);
    if (!rc)
        rc = plan_layer(t, &chain, inside, e);
    chain_free(&chain);
    return rc;
}

/* The draft holds all but the disks, and says which layers there will be: so whoever finds it can
 * clear up. */
static int fill_draft(struct taking *t, const char *spec, size_t len, struct error *e)
{
    int rc = snapshot_temp(SNAPSHOT_DRAFT, t->temp, e);
    if (rc)
        return rc;
    t->dir = store_folder(t->folder, t->temp, true, e);
    if (t->dir < 0)
        return t->dir;
    rc = store_write_new(t->dir, VM_SPEC, spec, len, e);
    if (!rc && t->snap.of != SNAPSHOT_STOPPED)
        rc = link_state(t->vm->dir, t->file, t->dir, SNAPSHOT_STATE, e);
    if (!rc)
        rc = snapshot_write(t->dir, &t->snap, true, e);
    if (!rc)
        rc = store_sync(t->dir, e);
    return rc ? rc : store_sync(t->folder, e);
}

/* state.json names the snapshot before it is there; see vm_snapshot_current(). */
static int save_state(struct taking *t, struct error *e)
{
    json_t *root = t->state.root;
    json_object_set_new(root, "snapshot", json_string(t->snap.name));
    if (t->snap.parent[0])
        json_object_set_new(root, "snapshot-before", json_string(t->snap.parent));
    else
        json_object_del(root, "snapshot-before");
    return vm_state_save(t->vm->dir, &t->state, false, e);
}

/* *spec: allocated. */
static int plan(struct taking *t, char **spec, size_t *len, struct error *e)
{
    CLEANUP_FREE char *same = NULL;
    int rc = vm_spec_text(t->vm, spec, len, e);
    return rc ? rc : spec_edit_paths(VM_SPEC, *spec, plan_disk, t, &same, e);
}

static int take(struct taking *t, struct error *e)
{
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int rc = plan(t, &text, &len, e);
    if (!rc)
        rc = fill_draft(t, text, len, e);
    for (size_t i = 0; i < t->snap.ndisk && !rc; i++) {
        const struct snapshot_disk *d = &t->snap.disk[i];
        if (t->push[i])
            rc = layer_push(t->vm, &t->state, d->file, d->layer, d->format, e);
    }
    if (!rc)
        rc = save_state(t, e);
    if (!rc)
        rc = store_rename(t->folder, t->temp, t->folder, t->snap.name, e);
    return rc;
}

static int begin(struct taking *t, const char *name, struct error *e)
{
    struct stat st;
    int rc = snapshot_check_name(name, e);
    if (!rc)
        rc = vm_layers_check(t->vm, e);
    if (rc)
        return rc;
    snprintf(t->snap.name, sizeof t->snap.name, "%s", name);
    t->snap.created = (int64_t)time(NULL);
    t->folder = store_folder(t->vm->dir, VM_SNAPSHOTS, true, e);
    if (t->folder < 0)
        return t->folder;
    if (fstatat(t->folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return error_set(e, ERR_STATE,
                         "%s has a snapshot \"%s\" already; choose another name, or `sosia snap rm "
                         "%s %s`",
                         t->vm->name, name, t->vm->name, name);
    rc = vm_snapshot_current(t->vm, t->snap.parent, e);
    return rc ? rc : vm_state_load(t->vm->dir, &t->state, e);
}

static void end(struct taking *t)
{
    if (t->dir >= 0)
        close(t->dir);
    if (t->folder >= 0)
        close(t->folder);
    free(t->push);
    snapshot_fini(&t->snap);
    vm_state_fini(&t->state);
}

int vm_snapshot_check(const struct vm *vm, const char *name, struct error *e)
{
    struct taking t = {.vm = vm, .folder = -1, .dir = -1};
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int rc = begin(&t, name, e);
    if (!rc)
        rc = plan(&t, &text, &len, e);
    end(&t);
    return rc;
}

int vm_snapshot_take(const struct vm *vm, const char *name, enum snapshot_of of, struct error *e)
{
    struct taking t = {.vm = vm, .folder = -1, .dir = -1};
    struct vm_status status;
    int rc = vm_need_stopped(vm, "snap take", e);
    if (!rc)
        rc = begin(&t, name, e);
    if (!rc) {
        vm_status_read(vm, &status);
        t.file = status.state;
        t.snap.of = status.run != VM_SUSPENDED ? SNAPSHOT_STOPPED
                    : of == SNAPSHOT_STOPPED   ? SNAPSHOT_SUSPENDED
                                               : of;
        snapshot_sweep(vm, t.folder);
        rc = take(&t, e);
        if (rc)
            snapshot_sweep(vm, t.folder);
    }
    end(&t);
    return rc;
}

/* ---- restore ---- */

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
    rc = link_state(dir, SNAPSHOT_STATE, vm->dir, file, e);
    return rc ? rc : vm_adopt_state(vm, file, e);
}

static int restore(const struct vm *vm, int dir, const struct snapshot *s, struct vm_state *state,
                   struct error *e)
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
    rc = dir < 0 ? dir : restore(vm, dir, &s, &state, e);
    vm_state_fini(&state);
    snapshot_fini(&s);
    return rc;
}
