/*
 * snapshot_rm.c - removing snapshots, and the layers that nothing rests on any more.
 *
 * Candidates are the layers of the snapshot that goes, as far as Sosia gave them their names. What
 * is reached from anything that stays is no candidate: other snapshots, the disks of the spec, and
 * every other file in the folders of the candidates, whatever it is. Anything that cannot be read
 * means that nothing is removed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/url.h"
#include "block/chain.h"
#include "catalog/layer.h"
#include "catalog/snapshot.h"
#include "catalog/state.h"
#include "catalog/store.h"
#include "catalog/vmspec.h"
#include "spec/edit.h"

struct sweep {
    const struct vm *vm;
    const char *without;   /* the snapshot that goes, if it has its name still */
    struct vm_names layer; /* candidates, in the VM's folder */
};

static int no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "out of memory");
}

static bool is_layer_name(const char *inside)
{
    const char *slash = strrchr(inside, '/');
    const char *name = slash ? slash + 1 : inside;
    return strncmp(name, "layer-", 6) == 0 && strspn(name + 6, "0123456789abcdef") >= 8 &&
           name[14] == '-';
}

static int add(struct vm_names *list, const char *name, struct error *e)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->name[i], name) == 0)
            return 0;
    char **grown = realloc(list->name, (list->n + 1) * sizeof *grown);
    if (!grown)
        return no_memory(e);
    list->name = grown;
    grown[list->n] = strdup(name);
    return grown[list->n] ? (list->n++, 0) : no_memory(e);
}

static void keep(struct sweep *w, const char *inside)
{
    for (size_t i = 0; i < w->layer.n; i++)
        if (strcmp(w->layer.name[i], inside) == 0) {
            free(w->layer.name[i]);
            w->layer.name[i] = w->layer.name[--w->layer.n];
            return;
        }
}

/* A file and all that it rests on: new candidates, or needed. */
static int walk(struct sweep *w, const char *path, const char *format, bool needed, struct error *e)
{
    struct chain chain = {0};
    int rc = chain_load(&chain, path, format, false, e);
    for (unsigned i = 0; i < chain.n && !rc; i++) {
        CLEANUP_FREE char *real = NULL, *inside = NULL;
        rc = layer_resolve(w->vm, chain.link[i].path, &real, &inside, e);
        if (!rc && inside && needed)
            keep(w, inside);
        else if (!rc && inside && is_layer_name(inside))
            rc = add(&w->layer, inside, e);
    }
    chain_free(&chain);
    return rc;
}

static int walk_snapshot(struct sweep *w, const struct snapshot *s, bool needed, struct error *e)
{
    struct stat st;
    int rc = 0;
    for (size_t i = 0; i < s->ndisk && !rc; i++) {
        CLEANUP_FREE char *path = NULL;
        if (asprintf(&path, "%s/%s", w->vm->path, s->disk[i].layer) < 0) {
            path = NULL;
            return no_memory(e);
        }
        /* Of one that was not taken to its end, it may not be there. */
        if (stat(path, &st) == 0)
            rc = walk(w, path, s->disk[i].format, needed, e);
    }
    return rc;
}

/* ---- what stays ---- */

static int keep_snapshots(struct sweep *w, struct error *e)
{
    struct vm_names list;
    int rc = vm_snapshot_list(w->vm, &list, e);
    for (size_t i = 0; i < list.n && !rc; i++) {
        struct snapshot s;
        if (w->without && strcmp(w->without, list.name[i]) == 0)
            continue;
        rc = vm_snapshot_load(w->vm, list.name[i], &s, e);
        if (rc)
            break;
        rc = walk_snapshot(w, &s, true, e);
        snapshot_fini(&s);
    }
    catalog_list_free(&list);
    return rc;
}

static int keep_disk(void *ctx, const struct spec_path *p, char **to, struct error *e)
{
    struct sweep *w = ctx;
    struct stat st;
    CLEANUP_FREE char *path = NULL;
    if (strcmp(p->key, "disks") != 0 || url_is_remote(p->path))
        return 0;
    if (asprintf(&path, "%s/%s", p->path[0] == '/' ? "" : w->vm->path, p->path) < 0) {
        path = NULL;
        return no_memory(e);
    }
    return stat(path, &st) == 0 ? walk(w, path, p->format, true, e) : 0;
}

static int keep_folder(struct sweep *w, const char *folder, struct error *e)
{
    int fd = openat(w->vm->dir, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    int rc = 0;
    if (!d) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        return error_file(e, err, "%s: cannot read the folder", folder);
    }
    for (struct dirent *f; !rc && (f = readdir(d));) {
        struct stat st;
        CLEANUP_FREE char *path = NULL;
        if (f->d_name[0] == '.' || is_layer_name(f->d_name) ||
            fstatat(dirfd(d), f->d_name, &st, 0) < 0 || !S_ISREG(st.st_mode))
            continue;
        if (asprintf(&path, "%s/%s/%s", w->vm->path, folder, f->d_name) < 0) {
            path = NULL;
            rc = no_memory(e);
        } else {
            rc = walk(w, path, NULL, true, e);
        }
    }
    closedir(d);
    return rc;
}

static int keep_all(struct sweep *w, struct error *e)
{
    CLEANUP_FREE char *text = NULL, *same = NULL;
    size_t len;
    int rc = keep_snapshots(w, e);
    if (!rc)
        rc = vm_spec_text(w->vm, &text, &len, e);
    if (!rc)
        rc = spec_edit_paths(VM_SPEC, text, keep_disk, w, &same, e);
    struct vm_names folders = {0};
    for (size_t i = 0; i < w->layer.n && !rc; i++) {
        CLEANUP_FREE char *copy = strdup(w->layer.name[i]);
        rc = copy ? add(&folders, dirname(copy), e) : no_memory(e);
    }
    for (size_t i = 0; i < folders.n && !rc; i++)
        rc = keep_folder(w, folders.name[i], e);
    catalog_list_free(&folders);
    return rc;
}

/* ---- removing ---- */

/* The layers that go with a snapshot. */
static int find_layers(struct sweep *w, const struct snapshot *s, struct error *e)
{
    int rc = walk_snapshot(w, s, false, e);
    if (!rc && w->layer.n)
        rc = keep_all(w, e);
    return rc;
}

/* Out of the list of what must be there. */
static void forget_layer(struct vm_state *state, const char *inside)
{
    json_t *layers = json_object_get(state->root, "layers");
    for (size_t i = json_array_size(layers); i-- > 0;) {
        const char *file = json_string_value(json_object_get(json_array_get(layers, i), "file"));
        if (file && strcmp(file, inside) == 0)
            json_array_remove(layers, i);
    }
}

static int remove_layers(struct sweep *w, struct error *e)
{
    struct vm_state state;
    if (!w->layer.n)
        return 0;
    int rc = vm_state_load(w->vm->dir, &state, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < w->layer.n; i++)
        forget_layer(&state, w->layer.name[i]);
    rc = vm_state_save(w->vm->dir, &state, false, e);
    vm_state_fini(&state);
    for (size_t i = 0; i < w->layer.n && !rc; i++) {
        if (unlinkat(w->vm->dir, w->layer.name[i], 0) < 0 && errno != ENOENT)
            rc = error_file(e, errno, "%s: cannot remove it", w->layer.name[i]);
        if (!rc)
            rc = layer_sync_folder(w->vm->dir, w->layer.name[i], e);
    }
    return rc;
}

static void sweep_one(const struct vm *vm, int folder, const char *name)
{
    struct sweep w = {.vm = vm};
    struct snapshot s = {0};
    struct error e = {0};
    struct stat st;
    CLEANUP_CLOSE int dir = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int rc = 0;
    /* Without that file it had not come to layers. */
    if (dir >= 0 && fstatat(dir, SNAPSHOT_FILE, &st, 0) == 0) {
        rc = snapshot_read(folder, name, &s, &e);
        if (!rc)
            rc = find_layers(&w, &s, &e);
        if (!rc)
            rc = remove_layers(&w, &e);
    }
    if (!rc)
        store_remove(folder, name, &e);
    snapshot_fini(&s);
    catalog_list_free(&w.layer);
}

void snapshot_sweep(const struct vm *vm, int folder)
{
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *f; (f = readdir(d));)
        if (strncmp(f->d_name, SNAPSHOT_DRAFT, strlen(SNAPSHOT_DRAFT)) == 0 ||
            strncmp(f->d_name, SNAPSHOT_GONE, strlen(SNAPSHOT_GONE)) == 0)
            sweep_one(vm, folder, f->d_name);
    closedir(d);
}

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
    struct sweep w = {.vm = vm, .without = s->name};
    char temp[32];
    int rc = find_layers(&w, s, e);
    if (!rc)
        rc = snapshot_temp(SNAPSHOT_GONE, temp, e);
    if (!rc)
        rc = hand_over_children(vm, folder, s, e);
    if (!rc)
        rc = hand_over_disks(vm, s, e);
    if (!rc)
        rc = store_rename(folder, s->name, folder, temp, e);
    if (!rc)
        rc = remove_layers(&w, e);
    if (!rc)
        rc = store_remove(folder, temp, e);
    catalog_list_free(&w.layer);
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
        snapshot_sweep(vm, folder);
        rc = remove_one(vm, folder, &s, e);
    }
    snapshot_fini(&s);
    return rc;
}
