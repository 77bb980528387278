/*
 * snapshot_sweep.c - finding and removing layers that nothing rests on any more, and what killed
 * verbs left.
 *
 * Candidates are all files with names that Sosia gives to layers, in the folders where the VM's
 * disks and layers are: what an interrupted verb had noted, or which others came after it, does not
 * matter. What is reached from anything that stays is no candidate: snapshots, the disks of the
 * spec, and every other file in those folders, whatever it is. Anything that cannot be read means
 * that nothing is removed.
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
    const char *without;    /* the snapshot that goes, if it has its name still */
    struct vm_names folder; /* where layers may be; all names are in the VM's folder */
    struct vm_names named;  /* by snapshots that stay */
    struct vm_names layer;  /* candidates */
};

static void sweep_fini(struct sweep *w)
{
    catalog_list_free(&w->folder);
    catalog_list_free(&w->named);
    catalog_list_free(&w->layer);
}

static int no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "out of memory");
}

static bool is_layer_name(const char *name)
{
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

/* The folder of a file. Not one that is missing, nor one that a symbolic link leads to: what is
 * there need not be this VM's. */
static int add_folder(struct sweep *w, const char *file, struct error *e)
{
    struct error unused;
    CLEANUP_FREE char *copy = strdup(file), *path = NULL, *inside = NULL;
    const char *folder = copy ? dirname(copy) : NULL;
    if (!folder)
        return no_memory(e);
    if (strcmp(folder, ".") != 0 && (layer_resolve(w->vm, folder, &path, &inside, &unused) ||
                                     !inside || strcmp(inside, folder) != 0))
        return 0;
    return add(&w->folder, folder, e);
}

static DIR *read_folder(int dir, const char *name, struct error *e)
{
    DIR *d = store_list(dir, name);
    if (!d)
        error_file(e, errno, "%s: cannot read the folder", name);
    return d;
}

/* Calls `fn` for every snapshot that has its name. */
static int each_snapshot(struct sweep *w,
                         int (*fn)(struct sweep *, const struct snapshot *, struct error *),
                         struct error *e)
{
    struct vm_names list;
    int rc = vm_snapshot_list(w->vm, &list, e);
    for (size_t i = 0; i < list.n && !rc; i++) {
        struct snapshot s;
        rc = vm_snapshot_load(w->vm, list.name[i], &s, e);
        if (rc)
            break;
        rc = fn(w, &s, e);
        snapshot_fini(&s);
    }
    catalog_list_free(&list);
    return rc;
}

static bool stays(const struct sweep *w, const struct snapshot *s)
{
    return !w->without || strcmp(w->without, s->name) != 0;
}

/* ---- candidates ---- */

static int add_folders(struct sweep *w, const struct snapshot *s, struct error *e)
{
    int rc = 0;
    for (size_t i = 0; i < s->ndisk && !rc; i++)
        rc = add_folder(w, s->disk[i].layer, e);
    return rc;
}

static int note_snapshot(struct sweep *w, const struct snapshot *s, struct error *e)
{
    int rc = add_folders(w, s, e);
    for (size_t i = 0; i < s->ndisk && !rc && stays(w, s); i++)
        rc = add(&w->named, s->disk[i].layer, e);
    return rc;
}

static int note_disk(void *ctx, const struct spec_path *p, char **to, struct error *e)
{
    struct sweep *w = ctx;
    struct error unused;
    CLEANUP_FREE char *path = NULL, *inside = NULL;
    if (strcmp(p->key, "disks") != 0 || url_is_remote(p->path) ||
        layer_resolve(w->vm, p->path, &path, &inside, &unused) || !inside)
        return 0;
    return add_folder(w, inside, e);
}

static int list_layers(struct sweep *w, const char *folder, struct error *e)
{
    DIR *d = read_folder(w->vm->dir, folder, e);
    int rc = d ? 0 : e->code;
    for (struct dirent *f; !rc && (f = readdir(d));) {
        struct stat st;
        CLEANUP_FREE char *inside = NULL;
        if (!is_layer_name(f->d_name) ||
            fstatat(dirfd(d), f->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
            continue;
        bool top = strcmp(folder, ".") == 0;
        if (asprintf(&inside, "%s%s%s", top ? "" : folder, top ? "" : "/", f->d_name) < 0) {
            inside = NULL;
            rc = no_memory(e);
        } else {
            rc = add(&w->layer, inside, e);
        }
    }
    if (d)
        closedir(d);
    return rc;
}

static int find_candidates(struct sweep *w, const char *spec, struct error *e)
{
    CLEANUP_FREE char *same = NULL;
    int rc = each_snapshot(w, note_snapshot, e);
    if (!rc)
        rc = spec_edit_paths(VM_SPEC, spec, note_disk, w, &same, e);
    for (size_t i = 0; i < w->folder.n && !rc; i++)
        rc = list_layers(w, w->folder.name[i], e);
    for (size_t i = 0; i < w->named.n && !rc; i++)
        keep(w, w->named.name[i]);
    return rc;
}

/* ---- what stays ---- */

/* A file and all that it rests on. */
static int keep_chain(struct sweep *w, const char *path, const char *format, struct error *e)
{
    struct chain chain = {0};
    int rc = chain_load(&chain, path, format, false, e);
    for (unsigned i = 0; i < chain.n && !rc; i++) {
        CLEANUP_FREE char *real = NULL, *inside = NULL;
        rc = layer_resolve(w->vm, chain.link[i].path, &real, &inside, e);
        if (!rc && inside)
            keep(w, inside);
    }
    chain_free(&chain);
    return rc;
}

/* The same of one in a folder of the VM's. */
static int keep_file(struct sweep *w, const char *folder, const char *file, const char *format,
                     struct error *e)
{
    CLEANUP_FREE char *path = NULL;
    if (asprintf(&path, "%s/%s/%s", w->vm->path, folder, file) < 0) {
        path = NULL;
        return no_memory(e);
    }
    return keep_chain(w, path, format, e);
}

static int keep_snapshot(struct sweep *w, const struct snapshot *s, struct error *e)
{
    int rc = 0;
    for (size_t i = 0; i < s->ndisk && !rc && stays(w, s); i++)
        rc = keep_file(w, ".", s->disk[i].layer, s->disk[i].format, e);
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
    return stat(path, &st) == 0 ? keep_chain(w, path, p->format, e) : 0;
}

static int keep_folder(struct sweep *w, const char *folder, struct error *e)
{
    DIR *d = read_folder(w->vm->dir, folder, e);
    int rc = d ? 0 : e->code;
    for (struct dirent *f; !rc && (f = readdir(d));) {
        struct stat st;
        if (f->d_name[0] != '.' && !is_layer_name(f->d_name) &&
            fstatat(dirfd(d), f->d_name, &st, 0) == 0 && S_ISREG(st.st_mode))
            rc = keep_file(w, folder, f->d_name, NULL, e);
    }
    if (d)
        closedir(d);
    return rc;
}

/* Leaves the layers that nothing rests on. The cheap looks come first: mostly they leave none. */
static int find(struct sweep *w, struct error *e)
{
    CLEANUP_FREE char *spec = NULL, *same = NULL;
    size_t len;
    int rc = vm_spec_text(w->vm, &spec, &len, e);
    if (!rc)
        rc = find_candidates(w, spec, e);
    if (!rc && w->layer.n)
        rc = spec_edit_paths(VM_SPEC, spec, keep_disk, w, &same, e);
    if (!rc && w->layer.n)
        rc = each_snapshot(w, keep_snapshot, e);
    for (size_t i = 0; i < w->folder.n && !rc && w->layer.n; i++)
        rc = keep_folder(w, w->folder.name[i], e);
    return rc;
}

int snapshot_find_layers(const struct vm *vm, const char *without, struct vm_names *layers,
                         struct error *e)
{
    struct sweep w = {.vm = vm, .without = without};
    int rc = find(&w, e);
    *layers = w.layer;
    w.layer = (struct vm_names){0};
    sweep_fini(&w);
    return rc;
}

/* ---- removing ---- */

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

int snapshot_remove_layers(const struct vm *vm, const struct vm_names *layers, struct error *e)
{
    struct vm_state state;
    if (!layers->n)
        return 0;
    int rc = vm_state_load(vm->dir, &state, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < layers->n; i++)
        forget_layer(&state, layers->name[i]);
    rc = vm_state_save(vm->dir, &state, false, e);
    vm_state_fini(&state);
    for (size_t i = 0; i < layers->n && !rc; i++) {
        if (unlinkat(vm->dir, layers->name[i], 0) < 0 && errno != ENOENT)
            rc = error_file(e, errno, "%s: cannot remove it", layers->name[i]);
        if (!rc)
            rc = layer_sync_folder(vm->dir, layers->name[i], e);
    }
    return rc;
}

static int list_leftovers(int folder, struct vm_names *list, struct error *e)
{
    DIR *d = read_folder(folder, ".", e);
    int rc = d ? 0 : e->code;
    for (struct dirent *f; !rc && (f = readdir(d));)
        if (strncmp(f->d_name, SNAPSHOT_DRAFT, strlen(SNAPSHOT_DRAFT)) == 0 ||
            strncmp(f->d_name, SNAPSHOT_GONE, strlen(SNAPSHOT_GONE)) == 0)
            rc = add(list, f->d_name, e);
    if (d)
        closedir(d);
    return rc;
}

/* The folders, too, of layers that only a leftover speaks of. If its file cannot be read, it had
 * not come to layers, or was rid of them. */
static int note_leftovers(struct sweep *w, int folder, const struct vm_names *left, struct error *e)
{
    int rc = 0;
    for (size_t i = 0; i < left->n && !rc; i++) {
        struct snapshot s;
        struct error unused;
        if (snapshot_read(folder, left->name[i], &s, &unused))
            continue;
        rc = add_folders(w, &s, e);
        snapshot_fini(&s);
    }
    return rc;
}

void snapshot_sweep(const struct vm *vm, int folder, bool layers)
{
    struct sweep w = {.vm = vm};
    struct vm_names left = {0};
    struct error e = {0};
    int rc = list_leftovers(folder, &left, &e);
    if (!rc && (left.n || layers)) {
        rc = note_leftovers(&w, folder, &left, &e);
        if (!rc)
            rc = find(&w, &e);
        if (!rc)
            rc = snapshot_remove_layers(vm, &w.layer, &e);
    }
    for (size_t i = 0; i < left.n && !rc; i++)
        rc = store_remove(folder, left.name[i], &e);
    sweep_fini(&w);
    catalog_list_free(&left);
}
