/* layer.c - see layer.h. */
#define _GNU_SOURCE
#include "catalog/layer.h"

#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/create.h"
#include "catalog/store.h"

static int no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "out of memory");
}

int layer_resolve(const struct vm *vm, const char *name, char **path, char **inside,
                  struct error *e)
{
    size_t n = strlen(vm->path);
    CLEANUP_FREE char *joined = NULL;
    *path = *inside = NULL;
    if (asprintf(&joined, "%s/%s", name[0] == '/' ? "" : vm->path, name) < 0) {
        joined = NULL;
        return no_memory(e);
    }
    *path = realpath(joined, NULL);
    if (!*path)
        return error_file(e, errno, "%s: the VM's file cannot be found", joined);
    if (strncmp(*path, vm->path, n) == 0 && (*path)[n] == '/')
        *inside = strdup(*path + n + 1);
    return 0;
}

int layer_sync_folder(int dir, const char *inside, struct error *e)
{
    CLEANUP_FREE char *copy = strdup(inside);
    CLEANUP_CLOSE int fd = copy ? store_folder(dir, dirname(copy), false, e) : no_memory(e);
    return fd < 0 ? fd : store_sync(fd, e);
}

int layer_note(struct vm_state *s, const char *inside, const struct stat *st)
{
    json_t *layers = json_object_get(s->root, "layers"), *known;
    size_t i;
    if (!layers) {
        layers = json_array();
        json_object_set_new(s->root, "layers", layers);
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
    const char *restoring = json_string_value(json_object_get(s.root, "restoring"));
    if (restoring)
        rc =
            error_set(e, ERR_STATE,
                      "%s: going back to its snapshot %.80s was broken off; `sosia snap restore %s "
                      "%.80s` does it again",
                      vm->name, restoring, vm->name, restoring);
    json_array_foreach(json_object_get(s.root, "layers"), i, layer)
    {
        struct stat st;
        const char *file = json_string_value(json_object_get(layer, "file"));
        if (rc)
            break;
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

void layer_note_top(struct vm_state *s, int dir, const char *inside)
{
    struct stat st;
    json_t *tops = json_object_get(s->root, "tops");
    if (!tops) {
        tops = json_object();
        json_object_set_new(s->root, "tops", tops);
    }
    if (fstatat(dir, inside, &st, 0) == 0)
        json_object_set_new(tops, inside, untouched(&st));
}

bool layer_is_untouched(const struct vm_state *s, int dir, const char *inside)
{
    struct stat st;
    json_t *was = json_object_get(json_object_get(s->root, "tops"), inside);
    if (!was || fstatat(dir, inside, &st, 0) < 0)
        return false;
    json_t *is = untouched(&st);
    bool same = json_equal(is, was);
    json_decref(is);
    return same;
}

int layer_overlay(const char *path, const char *layer, const char *format, bool replace,
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

int layer_name(const char *inside, char **layer, struct error *e)
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

static bool is_same_file(int dir, const char *a, const char *b)
{
    struct stat sa, sb;
    return fstatat(dir, a, &sa, 0) == 0 && fstatat(dir, b, &sb, 0) == 0 && sa.st_dev == sb.st_dev &&
           sa.st_ino == sb.st_ino;
}

int layer_push(const struct vm *vm, struct vm_state *s, const char *inside, const char *layer,
               const char *format, struct error *e)
{
    CLEANUP_FREE char *path = NULL;
    if (asprintf(&path, "%s/%s", vm->path, inside) < 0) {
        path = NULL;
        return no_memory(e);
    }
    if (linkat(vm->dir, inside, vm->dir, layer, 0) < 0)
        return error_file(e, errno, "%s: cannot become a layer (a file system without hard links?)",
                          inside);
    int rc = layer_sync_folder(vm->dir, layer, e);
    if (!rc)
        rc = layer_overlay(path, layer, format, true, e);
    if (!rc)
        layer_note_top(s, vm->dir, inside);
    else if (is_same_file(vm->dir, inside, layer)) /* and not an overlay that only is not durable */
        unlinkat(vm->dir, layer, 0);
    return rc;
}

int layer_done(const struct vm *vm, struct vm_state *s, const char *layer, struct error *e)
{
    struct stat st;
    fchmodat(vm->dir, layer, 0444, 0); /* a reminder; the overlay has taken over the mode */
    if (fstatat(vm->dir, layer, &st, 0) < 0)
        return error_file(e, errno, "%s: cannot find its size", layer);
    return layer_note(s, layer, &st) ? no_memory(e) : 0;
}
