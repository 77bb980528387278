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
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/url.h"
#include "block/chain.h"
#include "block/create.h"
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
};

static int no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "out of memory");
}

/* ---- names ---- */

/* The path of a name in the spec, and, if the file lies in the VM's folder, the part behind that.
 * Allocated; *inside NULL: it does not. */
static int resolve(const struct cloning *c, const char *name, char **path, char **inside,
                   struct error *e)
{
    size_t n = strlen(c->from->path);
    CLEANUP_FREE char *joined = NULL;
    *path = *inside = NULL;
    if (asprintf(&joined, "%s/%s", name[0] == '/' ? "" : c->from->path, name) < 0) {
        joined = NULL;
        return no_memory(e);
    }
    *path = realpath(joined, NULL);
    if (!*path)
        return error_file(e, errno, "%s: the VM's file cannot be found", joined);
    if (strncmp(*path, c->from->path, n) == 0 && (*path)[n] == '/')
        *inside = strdup(*path + n + 1);
    return 0;
}

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

/* The folder of a file is made durable. */
static int sync_folder_of(int dir, const char *inside, struct error *e)
{
    CLEANUP_FREE char *copy = strdup(inside);
    CLEANUP_CLOSE int fd = copy ? store_folder(dir, dirname(copy), false, e) : no_memory(e);
    return fd < 0 ? fd : store_sync(fd, e);
}

/* ---- layers ---- */

static int note_layer(json_t *root, const char *inside, const struct stat *st)
{
    json_t *layers = json_object_get(root, "layers"), *known;
    size_t i;
    if (!layers) {
        layers = json_array();
        json_object_set_new(root, "layers", layers);
    }
    json_array_foreach(layers, i, known)
    {
        const char *file = json_string_value(json_object_get(known, "file"));
        if (file && strcmp(file, inside) == 0)
            return 0;
    }
    json_t *o = json_pack("{s:s, s:I}", "file", inside, "size", (json_int_t)st->st_size);
    return o && json_array_append_new(layers, o) == 0 ? 0 : -1;
}

int vm_layers_check(const struct vm *vm, struct error *e)
{
    struct vm_state s;
    size_t i;
    json_t *layer;
    int rc = vm_state_load(vm->dir, &s, e);
    if (rc)
        return rc;
    json_array_foreach(json_object_get(s.root, "layers"), i, layer)
    {
        struct stat st;
        const char *file = json_string_value(json_object_get(layer, "file"));
        if (!file || fstatat(vm->dir, file, &st, 0) < 0) {
            rc =
                error_set(e, ERR_DAMAGED,
                          "%s: the layer %.200s of its disks is missing; without it their contents "
                          "are lost: restore the file from a backup, or from a VM that was cloned "
                          "from it",
                          vm->name, file ? file : "?");
            break;
        }
        if (st.st_size != json_integer_value(json_object_get(layer, "size"))) {
            rc = error_set(e, ERR_DAMAGED,
                           "%s: the layer %.200s of its disks has another size than it had; it was "
                           "changed, and disks that rest on it may be damaged: restore it from a "
                           "backup",
                           vm->name, file);
            break;
        }
    }
    vm_state_fini(&s);
    return rc;
}

/* The mark of a disk that has not been written to since its overlay was made. */
static json_t *untouched(const struct stat *st)
{
    return json_pack("{s:I, s:I, s:I}", "ino", (json_int_t)st->st_ino, "size",
                     (json_int_t)st->st_size, "mtime-ns",
                     (json_int_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec);
}

static void note_top(json_t *root, int dir, const char *inside)
{
    struct stat st;
    json_t *tops = json_object_get(root, "tops");
    if (!tops) {
        tops = json_object();
        json_object_set_new(root, "tops", tops);
    }
    if (fstatat(dir, inside, &st, 0) == 0)
        json_object_set_new(tops, inside, untouched(&st));
}

static bool is_untouched(const struct cloning *c, const char *inside)
{
    struct stat st;
    json_t *was = json_object_get(json_object_get(c->old.root, "tops"), inside);
    if (!was || fstatat(c->from->dir, inside, &st, 0) < 0)
        return false;
    json_t *is = untouched(&st);
    bool same = json_equal(is, was);
    json_decref(is);
    return same;
}

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
    if (fstatat(c->draft.dir, inside, &st, 0) < 0 || note_layer(c->fresh.root, inside, &st) ||
        note_layer(c->old.root, inside, &st))
        return no_memory(e);
    return 0;
}

/* An empty overlay at `path` on `layer`, which lies beside it. */
static int make_overlay(const char *path, const char *layer, const char *format, bool replace,
                        struct error *e)
{
    struct output out;
    CLEANUP_FREE char *copy = strdup(layer);
    if (!copy)
        return no_memory(e);
    struct image_create ic = {.format = format_find("qcow2"),
                              .backing = basename(copy),
                              .backing_format = format,
                              .replace = replace};
    int rc = image_create(&out, path, &ic, e);
    return rc ? rc : output_commit(&out, e);
}

static int name_layer(const char *inside, char **layer, struct error *e)
{
    uint32_t unique;
    const char *slash = strrchr(inside, '/');
    const char *name = slash ? slash + 1 : inside;
    if (getrandom(&unique, sizeof unique, 0) != sizeof unique)
        return error_errno(e, ERR_IO, errno, "no random numbers");
    if (asprintf(layer, "%.*slayer-%08x-%s", (int)(name - inside), inside, unique, name) < 0) {
        *layer = NULL;
        return no_memory(e);
    }
    return 0;
}

/* The source's disk becomes a layer, and an overlay takes its place. */
static int push_layer(struct cloning *c, const char *inside, const char *path, const char *format,
                      char **layer, struct error *e)
{
    int rc = name_layer(inside, layer, e);
    if (rc)
        return rc;
    if (linkat(c->from->dir, inside, c->from->dir, *layer, 0) < 0)
        return error_file(e, errno, "%s: cannot become a layer (a file system without hard links?)",
                          inside);
    rc = sync_folder_of(c->from->dir, *layer, e);
    if (!rc)
        rc = make_overlay(path, *layer, format, true, e);
    if (rc) {
        unlinkat(c->from->dir, *layer, 0);
        return rc;
    }
    fchmodat(c->from->dir, *layer, 0444, 0); /* a reminder; the overlay has taken over the mode */
    note_top(c->old.root, c->from->dir, inside);
    c->old_changed = true;
    return 0;
}

/* What the overlays will rest on: *layer is allocated. */
static int find_layer(struct cloning *c, const char *inside, const char *path,
                      const struct chain *chain, char **layer, const char **format, struct error *e)
{
    if (chain->n > 1 && is_untouched(c, inside)) {
        *layer = strdup(chain->link[1].path);
        *format = chain->link[1].format ? chain->link[1].format->name : NULL;
        return *layer ? 0 : no_memory(e);
    }
    if (chain->n + 1 >= FORMAT_MAX_DEPTH)
        return error_set(e, ERR_LIMIT, "%s rests on %u layers already; use --full", inside,
                         chain->n - 1);
    CLEANUP_FREE char *name = NULL;
    *format = chain->link[0].format ? chain->link[0].format->name : NULL;
    int rc = push_layer(c, inside, path, *format, &name, e);
    if (rc)
        return rc;
    if (asprintf(layer, "%s/%s", c->from->path, name) < 0) {
        *layer = NULL;
        return no_memory(e);
    }
    return 0;
}

static int link_disk(struct cloning *c, const struct spec_path *p, const char *path,
                     const char *inside, struct error *e)
{
    struct chain chain;
    CLEANUP_FREE char *layer = NULL, *mine = draft_path(c, inside);
    const char *format = NULL;
    if (!mine)
        return no_memory(e);
    if (p->format && strcmp(p->format, "auto") != 0 && strcmp(p->format, "qcow2") != 0)
        return error_set(e, ERR_STATE,
                         "disk %s: the spec says that it is %s, but an overlay is qcow2; leave the "
                         "format out, or use --full",
                         inside, p->format);
    int rc = chain_load(&chain, path, p->format, false, e);
    if (!rc)
        rc = make_folders(c, inside, e);
    if (!rc)
        rc = find_layer(c, inside, path, &chain, &layer, &format, e);
    if (!rc)
        rc = share_layer(c, layer, e);
    for (unsigned i = 1; !rc && i < chain.n; i++)
        rc = share_layer(c, chain.link[i].path, e);
    if (!rc)
        rc = make_overlay(mine, layer, format, false, e);
    if (!rc)
        note_top(c->fresh.root, c->draft.dir, inside);
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
    for (off_t left = st.st_size; left > 0;) {
        ssize_t n = copy_file_range(from, NULL, to, NULL, (size_t)left, 0);
        if (n <= 0)
            return error_file(e, n < 0 ? errno : EIO, "%s: cannot write the copy", inside);
        left -= n;
    }
    return fsync(to) < 0 ? error_file(e, errno, "%s: cannot write the copy", inside) : 0;
}

static int fill(struct cloning *c, struct node *from, const struct output *out,
                const struct format *f, struct error *e)
{
    struct node *to = NULL;
    struct image_options o = {.format = f->name, .at = out->temp};
    int rc = image_open(out->path, &o, &to, e);
    if (rc)
        return rc;
    struct copy copy = {.from = from, .to = to, .format = f, .progress = c->how->progress};
    rc = copy_run(&copy, e);
    if (!rc && node_flush(to))
        rc = error_set(e, ERR_IO, "the copy cannot be written");
    node_close(to);
    return rc;
}

/* All that the disk reads as, in an image of its own. */
static int copy_disk(struct cloning *c, const struct spec_path *p, const char *path,
                     const char *inside, struct error *e)
{
    struct output out;
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
    rc = image_create(&out, mine, &ic, e);
    if (!rc) {
        rc = fill(c, from, &out, f, e);
        if (rc)
            output_abort(&out);
        else
            rc = output_commit(&out, e);
    }
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
    int rc = resolve(c, p->path, &path, &inside, e);
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
    int rc = vm_spec_text(c->from, &text, &len, e);
    if (!rc)
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
    int rc = vm_need_stopped(from, "clone", e);
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
    return rc;
}
