/* clone.c - see clone.h. */
#define _GNU_SOURCE
#include "catalog/clone.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/url.h"
#include "block/chain.h"
#include "block/create.h"
#include "catalog/layer.h"
#include "catalog/snapshot.h"
#include "catalog/state.h"
#include "catalog/store.h"
#include "catalog/vmspec.h"
#include "spec/edit.h"

struct cloning {
    const struct vm *from;
    const struct clone *how;
    struct vm_draft draft;
    struct vm_state old, fresh; /* state.json of each */
    bool old_changed;
    struct snapshot snap; /* with how->snapshot */
};

static int no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "out of memory");
}

/* ---- names ---- */

/* The folders of `inside` in the draft. */
static int make_folders(const struct cloning *c, const char *inside, struct error *e)
{
    CLEANUP_FREE char *copy = strdup(inside);
    if (!copy)
        return no_memory(e);
    for (char *slash = copy; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        if (mkdirat(c->draft.dir, copy, 0777) < 0 && errno != EEXIST)
            return error_file(e, errno, "%s: cannot make the folder", copy);
    }
    return 0;
}

static char *draft_path(const struct cloning *c, const char *inside)
{
    char *path;
    return asprintf(&path, "%s/%s", c->draft.path, inside) < 0 ? NULL : path;
}

/* ---- layers ---- */

/* A hard link to the layer in the clone's folder; both states name it. */
static int share_layer(struct cloning *c, const char *path, struct error *e)
{
    struct stat st;
    size_t n = strlen(c->from->path);
    CLEANUP_FREE char *real = realpath(path, NULL);
    if (!real)
        return error_file(e, errno, "%s: cannot be found", path);
    if (strncmp(real, c->from->path, n) != 0 || real[n] != '/')
        return error_set(e, ERR_STATE,
                         "%s, on which a disk rests, is not in the VM's folder, so it cannot be "
                         "shared safely; use --full",
                         real);
    const char *inside = real + n + 1;
    int rc = make_folders(c, inside, e);
    if (rc)
        return rc;
    if (linkat(c->from->dir, inside, c->draft.dir, inside, 0) < 0 && errno != EEXIST)
        return error_file(e, errno, "%s: cannot be shared by a hard link; use --full", inside);
    if (fstatat(c->draft.dir, inside, &st, 0) < 0 || layer_note(&c->fresh, inside, &st) ||
        layer_note(&c->old, inside, &st))
        return no_memory(e);
    return 0;
}

/* What the overlays will rest on: *layer is allocated. */
static int find_layer(struct cloning *c, const char *inside, const struct chain *chain,
                      char **layer, const char **format, struct error *e)
{
    if (chain->n > 1 && layer_is_untouched(&c->old, c->from->dir, inside)) {
        *layer = strdup(chain->link[1].path);
        *format = chain->link[1].format ? chain->link[1].format->name : NULL;
        return *layer ? 0 : no_memory(e);
    }
    if (chain->n + 1 >= FORMAT_MAX_DEPTH)
        return error_set(e, ERR_LIMIT, "%s rests on %u layers already; use --full", inside,
                         chain->n - 1);
    CLEANUP_FREE char *name = NULL;
    *format = chain->link[0].format ? chain->link[0].format->name : NULL;
    int rc = layer_name(inside, &name, e);
    if (!rc)
        rc = layer_push(c->from, &c->old, inside, name, *format, e);
    if (!rc)
        rc = layer_done(c->from, &c->old, name, e);
    if (rc)
        return rc;
    c->old_changed = true;
    if (asprintf(layer, "%s/%s", c->from->path, name) < 0) {
        *layer = NULL;
        return no_memory(e);
    }
    return 0;
}

/* What a disk was when the snapshot was taken. Nobody writes to that, so the VM may run. */
static int find_snapped(const struct cloning *c, const char *inside, char **layer,
                        const char **format, struct error *e)
{
    for (size_t i = 0; i < c->snap.ndisk; i++) {
        const struct snapshot_disk *d = &c->snap.disk[i];
        if (strcmp(d->file, inside) != 0)
            continue;
        *format = d->format;
        if (asprintf(layer, "%s/%s", c->from->path, d->layer) < 0)
            break;
        return 0;
    }
    *layer = NULL;
    return error_set(e, ERR_DAMAGED, "the disk %s is not in the snapshot %s", inside, c->snap.name);
}

/* The disk of the clone: an overlay over a layer in its folder. */
static int put_overlay(struct cloning *c, const char *inside, const char *layer, const char *format,
                       struct error *e)
{
    CLEANUP_FREE char *mine = draft_path(c, inside);
    int rc = mine ? layer_overlay(mine, layer, format, false, e) : no_memory(e);
    if (!rc)
        layer_note_top(&c->fresh, c->draft.dir, inside);
    return rc;
}

static int link_snapped(struct cloning *c, const char *inside, struct error *e)
{
    struct chain chain = {0};
    CLEANUP_FREE char *layer = NULL;
    const char *format = NULL;
    int rc = find_snapped(c, inside, &layer, &format, e);
    if (!rc)
        rc = chain_load(&chain, layer, format, false, e);
    if (!rc)
        rc = make_folders(c, inside, e);
    for (unsigned i = 0; !rc && i < chain.n; i++)
        rc = share_layer(c, chain.link[i].path, e);
    if (!rc)
        rc = put_overlay(c, inside, layer, format, e);
    chain_free(&chain);
    return rc;
}

static int link_disk(struct cloning *c, const struct spec_path *p, const char *path,
                     const char *inside, struct error *e)
{
    struct chain chain;
    CLEANUP_FREE char *layer = NULL;
    const char *format = NULL;
    if (p->format && strcmp(p->format, "auto") != 0 && strcmp(p->format, "qcow2") != 0)
        return error_set(e, ERR_STATE,
                         "disk %s: the spec says that it is %s, but an overlay is qcow2; leave the "
                         "format out, or use --full",
                         inside, p->format);
    int rc = chain_load(&chain, path, p->format, false, e);
    if (!rc)
        rc = make_folders(c, inside, e);
    if (!rc)
        rc = find_layer(c, inside, &chain, &layer, &format, e);
    if (!rc)
        rc = share_layer(c, layer, e);
    for (unsigned i = 1; !rc && i < chain.n; i++)
        rc = share_layer(c, chain.link[i].path, e);
    if (!rc)
        rc = put_overlay(c, inside, layer, format, e);
    chain_free(&chain);
    return rc;
}

/* ---- copies ---- */

/* A file that is no disk image with a chain: a kernel, a CD-ROM. */
static int copy_file(struct cloning *c, const char *path, const char *inside, struct error *e)
{
    struct stat st;
    int rc = make_folders(c, inside, e);
    if (rc)
        return rc;
    CLEANUP_CLOSE int from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0 || fstat(from, &st) < 0)
        return error_file(e, errno, "%s: cannot read it", path);
    CLEANUP_CLOSE int to =
        openat(c->draft.dir, inside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, st.st_mode & 0777);
    if (to < 0 && errno == EEXIST)
        return 0; /* named twice in the spec */
    if (to < 0)
        return error_file(e, errno, "%s: cannot write the copy", inside);
    return store_copy(from, to, inside, e);
}

/* All that the disk reads as, in an image of its own. */
static int copy_disk(struct cloning *c, const struct spec_path *p, const char *path,
                     const char *inside, struct error *e)
{
    struct node *from = NULL;
    struct image_options o = {.format = p->format, .readonly = true, .allow_outside = true};
    CLEANUP_FREE char *mine = draft_path(c, inside);
    int rc = mine ? make_folders(c, inside, e) : no_memory(e);
    if (!rc)
        rc = image_open(path, &o, &from, e);
    if (rc)
        return rc;
    const struct format *f = format_find(from->ops->name);
    if (!f || !f->create)
        f = format_find(p->format && strcmp(p->format, "raw") == 0 ? "raw" : "qcow2");
    struct image_create ic = {.format = f, .size = node_size(from)};
    struct copy copy = {.from = from, .progress = c->how->progress};
    rc = copy_new(&copy, mine, &ic, e);
    node_close(from);
    return rc;
}

/* ---- the spec ---- */

/* A disk from elsewhere gets a name in the clone's folder. */
static int name_copy(const struct spec_path *p, const char *path, char **inside, struct error *e)
{
    const char *slash = strrchr(path, '/');
    if (asprintf(inside, "disks/copy%u-%s", p->index, slash ? slash + 1 : path) < 0) {
        *inside = NULL;
        return no_memory(e);
    }
    return 0;
}

static int clone_disk(struct cloning *c, const struct spec_path *p, const char *path, char **inside,
                      struct error *e)
{
    if (!*inside && !p->written)
        return 0; /* read only, and where it was */
    if (c->how->linked && !*inside)
        return error_set(e, ERR_STATE,
                         "the disk %s is not in the VM's folder, so nobody could be kept from "
                         "changing what the clone rests on; use --full",
                         path);
    if (c->how->snapshot && p->written)
        return link_snapped(c, *inside, e);
    if (c->how->linked && p->written)
        return link_disk(c, p, path, *inside, e);
    if (c->how->linked)
        return share_layer(c, path, e);
    int rc = *inside ? 0 : name_copy(p, path, inside, e);
    return rc ? rc : copy_disk(c, p, path, *inside, e);
}

static int clone_path(void *ctx, const struct spec_path *p, char **to, struct error *e)
{
    struct cloning *c = ctx;
    CLEANUP_FREE char *path = NULL, *inside = NULL;
    if (strcmp(p->key, "serial") == 0 || url_is_remote(p->path)) {
        if (url_is_remote(p->path) && p->written)
            return error_set(e, ERR_STATE,
                             "the remote disk %s would be written by both VMs; give the clone "
                             "another one, or make it readonly",
                             p->path);
        return 0;
    }
    int rc = layer_resolve(c->from, p->path, &path, &inside, e);
    if (!rc && strcmp(p->key, "disks") == 0)
        rc = clone_disk(c, p, path, &inside, e);
    else if (!rc && inside)
        rc = copy_file(c, path, inside, e);
    else if (!rc && p->written)
        return error_set(e, ERR_STATE,
                         "the %s %s would be written by both VMs; make it the VM's own", p->key,
                         path);
    if (rc)
        return rc;
    *to = inside ? strdup(inside) : strdup(path);
    return *to ? 0 : no_memory(e);
}

/* ---- all of it ---- */

static int clone_into_draft(struct catalog *cat, struct cloning *c, struct error *e)
{
    CLEANUP_FREE char *text = NULL, *mine = NULL;
    size_t len;
    int rc = c->how->snapshot ? vm_snapshot_spec(c->from, c->how->snapshot, &text, &len, e)
                              : vm_spec_text(c->from, &text, &len, e);
    if (!rc && !c->how->snapshot)
        rc = vm_layers_check(c->from, e);
    if (!rc)
        rc = spec_edit_paths(VM_SPEC, text, clone_path, c, &mine, e);
    /* Also if it failed: what has been done to the source is done. */
    if (c->old_changed) {
        struct error first = *e;
        int saved = vm_state_save(c->from->dir, &c->old, false, e);
        if (rc)
            *e = first;
        else
            rc = saved;
    }
    if (rc)
        return rc;
    json_t *origin = json_pack("{s:s, s:s, s:b}", "uuid", c->old.uuid, "name", c->from->name,
                               "linked", c->how->linked);
    json_object_set_new(c->fresh.root, "origin", origin);
    return vm_draft_commit(cat, &c->draft, mine, &c->fresh, e);
}

int vm_clone(struct catalog *cat, const struct vm *from, const char *name, const struct clone *how,
             struct error *e)
{
    struct cloning c = {.from = from, .how = how};
    int rc = how->snapshot ? vm_snapshot_load(from, how->snapshot, &c.snap, e)
                           : vm_need_stopped(from, "clone", e);
    if (!rc)
        rc = vm_state_load(from->dir, &c.old, e);
    if (!rc)
        rc = vm_state_new(&c.fresh, e);
    if (!rc)
        rc = vm_draft_begin(cat, &c.draft, name, e);
    if (!rc) {
        rc = clone_into_draft(cat, &c, e);
        vm_draft_end(cat, &c.draft);
    }
    vm_state_fini(&c.old);
    vm_state_fini(&c.fresh);
    snapshot_fini(&c.snap);
    return rc;
}
