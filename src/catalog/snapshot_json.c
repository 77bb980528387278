/* snapshot_json.c - snapshots as files: reading, checking, writing, listing. See snapshot.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "block/format.h"
#include "catalog/snapshot.h"
#include "catalog/state.h"
#include "catalog/store.h"
#include "spec/source.h"

#define SNAPSHOT_VERSION 1
#define MAX_SNAPSHOT     (256u * 1024)

const char *const snapshot_words[] = {"stopped", "suspended", "running"};

static int no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "out of memory");
}

int snapshot_check_name(const char *name, struct error *e)
{
    struct error unused;
    if (catalog_check_name(name, &unused) == 0)
        return 0;
    return error_set(e, ERR_USAGE,
                     "\"%.80s\" cannot be the name of a snapshot; up to %d letters, digits, '.', "
                     "'_' and '-', the first a letter or digit",
                     name, VM_NAME_MAX);
}

int snapshot_temp(const char *prefix, char out[32], struct error *e)
{
    uint32_t unique;
    if (getrandom(&unique, sizeof unique, 0) != sizeof unique)
        return error_errno(e, ERR_IO, errno, "no random numbers");
    snprintf(out, 32, "%s%08x", prefix, unique);
    return 0;
}

void snapshot_fini(struct snapshot *s)
{
    for (size_t i = 0; i < s->ndisk; i++) {
        free(s->disk[i].file);
        free(s->disk[i].layer);
        free(s->disk[i].format);
    }
    free(s->disk);
    s->disk = NULL;
    s->ndisk = 0;
}

int snapshot_add_disk(struct snapshot *s, const char *file, const char *layer, const char *format)
{
    struct snapshot_disk *grown = realloc(s->disk, (s->ndisk + 1) * sizeof *grown);
    if (!grown)
        return -1;
    s->disk = grown;
    struct snapshot_disk *d = &grown[s->ndisk++];
    *d = (struct snapshot_disk){strdup(file), strdup(layer), strdup(format)};
    return d->file && d->layer && d->format ? 0 : -1;
}

/* A name that stays in the VM's folder. */
static bool is_inside(const char *name)
{
    if (!name || !name[0] || name[0] == '/')
        return false;
    for (const char *p = name; p; p = strchr(p, '/') ? strchr(p, '/') + 1 : NULL)
        if (strcmp(p, "..") == 0 || strncmp(p, "../", 3) == 0)
            return false;
    return true;
}

static bool take_disks(json_t *list, struct snapshot *s)
{
    size_t i;
    json_t *d;
    json_array_foreach(list, i, d)
    {
        const char *file = json_string_value(json_object_get(d, "file"));
        const char *layer = json_string_value(json_object_get(d, "layer"));
        const char *format = json_string_value(json_object_get(d, "format"));
        if (!is_inside(file) || !is_inside(layer) || !format || !format_find(format) ||
            snapshot_add_disk(s, file, layer, format))
            return false;
    }
    return json_is_array(list);
}

static bool take(json_t *o, struct snapshot *s)
{
    const char *parent = json_string_value(json_object_get(o, "parent"));
    const char *of = json_string_value(json_object_get(o, "of"));
    struct error unused;
    if ((parent && snapshot_check_name(parent, &unused)) || !of)
        return false;
    snprintf(s->parent, sizeof s->parent, "%s", parent ? parent : "");
    s->created = json_integer_value(json_object_get(o, "created"));
    s->of = SNAPSHOT_STOPPED;
    while (s->of <= SNAPSHOT_RUNNING && strcmp(snapshot_words[s->of], of) != 0)
        s->of++;
    return s->of <= SNAPSHOT_RUNNING && take_disks(json_object_get(o, "disks"), s);
}

int snapshot_read(int folder, const char *dir, struct snapshot *s, struct error *e)
{
    char path[STORE_PATH];
    CLEANUP_FREE char *text = NULL;
    size_t len;
    *s = (struct snapshot){0};
    snprintf(s->name, sizeof s->name, "%.*s", VM_NAME_MAX, dir);
    CLEANUP_CLOSE int fd = openat(folder, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_file(e, errno, "%s: cannot open the snapshot", store_path(folder, dir, path));
    int rc = store_read(fd, SNAPSHOT_FILE, MAX_SNAPSHOT, &text, &len, e);
    if (rc && rc != ERR_NOTFOUND)
        return rc;
    json_t *o = rc ? NULL : json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    json_int_t version = json_integer_value(json_object_get(o, "version"));
    rc = 0;
    if (version > SNAPSHOT_VERSION)
        rc = error_set(e, ERR_HOST, "the snapshot %s was made by a newer Sosia; use that", dir);
    else if (version < 1 || !take(o, s))
        rc = error_set(e, ERR_DAMAGED,
                       "%s: is missing or not what the tool wrote; restore it from a backup of the "
                       "VM's folder",
                       store_path(fd, SNAPSHOT_FILE, path));
    json_decref(o);
    if (rc)
        snapshot_fini(s);
    return rc;
}

int snapshot_write(int dir, const struct snapshot *s, bool fresh, struct error *e)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < s->ndisk; i++)
        json_array_append_new(disks, json_pack("{s:s, s:s, s:s}", "file", s->disk[i].file, "layer",
                                               s->disk[i].layer, "format", s->disk[i].format));
    json_t *o = json_pack("{s:i, s:s*, s:I, s:s, s:o}", "version", SNAPSHOT_VERSION, "parent",
                          s->parent[0] ? s->parent : NULL, "created", (json_int_t)s->created, "of",
                          snapshot_words[s->of], "disks", disks);
    CLEANUP_FREE char *text = o ? json_dumps(o, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(o);
    if (!text)
        return no_memory(e);
    return (fresh ? store_write_new : store_write)(dir, SNAPSHOT_FILE, text, strlen(text), e);
}

static int open_folder(const struct vm *vm, struct error *e)
{
    return store_folder(vm->dir, VM_SNAPSHOTS, false, e);
}

int vm_snapshot_list(const struct vm *vm, struct vm_names *list, struct error *e)
{
    *list = (struct vm_names){0};
    CLEANUP_CLOSE int folder = open_folder(vm, e);
    if (folder == ERR_NOTFOUND)
        return 0;
    return folder < 0 ? folder : catalog_list(folder, list, e);
}

int vm_snapshot_load(const struct vm *vm, const char *name, struct snapshot *s, struct error *e)
{
    struct stat st;
    *s = (struct snapshot){0};
    int rc = snapshot_check_name(name, e);
    if (rc)
        return rc;
    CLEANUP_CLOSE int folder = open_folder(vm, e);
    if (folder < 0 && folder != ERR_NOTFOUND)
        return folder;
    if (folder < 0 || fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return error_set(e, ERR_NOTFOUND,
                         "%s has no snapshot \"%.80s\"; `sosia snap ls %s` lists them", vm->name,
                         name, vm->name);
    return snapshot_read(folder, name, s, e);
}

int vm_snapshot_spec(const struct vm *vm, const char *name, char **text, size_t *len,
                     struct error *e)
{
    CLEANUP_CLOSE int folder = open_folder(vm, e);
    CLEANUP_CLOSE int dir = folder < 0 ? folder : store_folder(folder, name, false, e);
    return dir < 0 ? dir : store_read(dir, VM_SPEC, SPEC_MAX_TEXT, text, len, e);
}

/* state.json names the new one before it is there, and the one before. */
int vm_snapshot_current(const struct vm *vm, char out[VM_NAME_MAX + 1], struct error *e)
{
    static const char *const keys[] = {"snapshot", "snapshot-before"};
    struct vm_state state;
    struct error unused;
    struct stat st;
    out[0] = 0;
    int rc = vm_state_load(vm->dir, &state, e);
    if (rc)
        return rc;
    CLEANUP_CLOSE int folder = open_folder(vm, &unused);
    for (unsigned i = 0; i < ARRAY_LEN(keys) && !out[0] && folder >= 0; i++) {
        const char *name = json_string_value(json_object_get(state.root, keys[i]));
        if (name && snapshot_check_name(name, &unused) == 0 &&
            fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            snprintf(out, VM_NAME_MAX + 1, "%s", name);
    }
    vm_state_fini(&state);
    return 0;
}
