/* snapshot_take.c - taking snapshots. See snapshot.h. */
#define _GNU_SOURCE
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
#include "catalog/layer.h"
#include "catalog/remote.h"
#include "catalog/saved.h"
#include "catalog/snapshot.h"
#include "catalog/status.h"
#include "catalog/store.h"
#include "catalog/vmspec.h"
#include "spec/edit.h"
#include "spec/source.h"
#include "spec/spec.h"

#define LIVE_MS 600000 /* all of the memory is written */

static int no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "out of memory");
}

struct disk_plan {
    unsigned index; /* in the spec */
    bool push;      /* its top is to become the layer */
};

struct taking {
    const struct vm *vm;
    bool live; /* it runs */
    struct vm_state state;
    struct snapshot snap;
    struct disk_plan *plan; /* of each disk */
    const char *file;       /* of the state, if it is suspended */
    int folder, dir;
    char temp[32];
};

static int add_disk(struct taking *t, const char *file, const char *layer, const char *format,
                    struct disk_plan plan, struct error *e)
{
    struct disk_plan *grown = realloc(t->plan, (t->snap.ndisk + 1) * sizeof *grown);
    if (!grown)
        return no_memory(e);
    t->plan = grown;
    t->plan[t->snap.ndisk] = plan;
    return snapshot_add_disk(&t->snap, file, layer, format) ? no_memory(e) : 0;
}

/* A disk that was not written to since its overlay was made needs no new layer. What a VM that runs
 * has written cannot be seen from here. */
static int plan_layer(struct taking *t, const struct chain *c, const char *inside, unsigned index,
                      struct error *e)
{
    CLEANUP_FREE char *path = NULL, *layer = NULL;
    int rc = 0;
    bool push = c->n < 2 || t->live || !layer_is_untouched(&t->state, t->vm->dir, inside);
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
    return rc ? rc : add_disk(t, inside, layer, f->name, (struct disk_plan){index, push}, e);
}

/* A VM that runs puts an overlay over one image, not over an array of them. */
static int refuse_array(const struct taking *t, unsigned index, struct error *e)
{
    for (size_t i = 0; t->live && i < t->snap.ndisk; i++)
        if (t->plan[i].index == index)
            return error_set(e, ERR_STATE,
                             "disk %u is an array; `sosia suspend %s`, and start it again when the "
                             "snapshot is taken",
                             index, t->vm->name);
    return 0;
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
    int rc = refuse_array(t, p->index, e);
    if (!rc)
        rc = layer_resolve(t->vm, p->path, &path, &inside, e);
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
        rc = plan_layer(t, &chain, inside, p->index, e);
    chain_free(&chain);
    return rc;
}

/* The draft holds all but the disks, and says where layers will be: so whoever finds it can clear
 * up. */
static int fill_draft(struct taking *t, const char *spec, size_t len, struct error *e)
{
    int rc = snapshot_temp(SNAPSHOT_DRAFT, t->temp, e);
    if (rc)
        return rc;
    t->dir = store_folder(t->folder, t->temp, true, e);
    if (t->dir < 0)
        return t->dir;
    rc = store_write_new(t->dir, VM_SPEC, spec, len, e);
    if (!rc && t->snap.of == SNAPSHOT_SUSPENDED)
        rc = snapshot_link_state(t->vm->dir, t->file, t->dir, SNAPSHOT_STATE, e);
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

/* ---- disks, state ---- */

static int push(struct taking *t, size_t i, struct error *e)
{
    const struct snapshot_disk *d = &t->snap.disk[i];
    return layer_push(t->vm, &t->state, d->file, d->layer, d->format, e);
}

/* Of a VM that nobody runs. */
static int take_disks(struct taking *t, struct error *e)
{
    int rc = 0;
    for (size_t i = 0; i < t->snap.ndisk && !rc; i++) {
        if (!t->plan[i].push)
            continue;
        rc = push(t, i, e);
        if (!rc)
            rc = layer_done(t->vm, &t->state, t->snap.disk[i].layer, e);
    }
    return rc;
}

#define MAX_FILES (SPEC_MAX_DISKS + 1) /* the state's, and one for each disk */

/* The files that the VMM cannot open itself, in the order of its command. */
struct live {
    struct remote vmm;
    int fd[MAX_FILES];
    size_t n;
    json_t *disks; /* their names for it */
};

static int add_file(struct live *l, int dir, const char *name, int flags, struct error *e)
{
    int fd = openat(dir, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    if (fd < 0)
        return error_file(e, errno, "%s: cannot open it", name);
    l->fd[l->n++] = fd;
    return 0;
}

/* The overlays take the disks' names before the VMM uses them: empty, they read the same. */
static int make_files(struct taking *t, struct live *l, struct error *e)
{
    int rc = add_file(l, t->dir, SNAPSHOT_STATE, O_CREAT | O_EXCL, e);
    for (size_t i = 0; i < t->snap.ndisk && !rc; i++) {
        char name[16];
        snprintf(name, sizeof name, "disk%u", t->plan[i].index);
        rc = l->n < MAX_FILES ? push(t, i, e) : error_set(e, ERR_LIMIT, "too many disks");
        if (!rc)
            rc = add_file(l, t->vm->dir, t->snap.disk[i].file, 0, e);
        if (!rc && json_array_append_new(l->disks, json_string(name)))
            rc = no_memory(e);
    }
    return rc ? rc : store_sync(t->dir, e);
}

static int take_live(struct taking *t, int64_t *pause_ns, struct error *e)
{
    struct live l = {.disks = json_array()};
    json_t *ret = NULL;
    int rc = remote_open(&l.vmm, t->vm, e);
    if (rc) {
        json_decref(l.disks);
        return rc;
    }
    rc = make_files(t, &l, e);
    if (!rc) {
        remote_give(&l.vmm, l.fd, l.n);
        rc = remote_call(&l.vmm, "x-sosia-snapshot", json_pack("{s:O}", "disks", l.disks), LIVE_MS,
                         &ret, e);
    }
    *pause_ns = json_integer_value(json_object_get(ret, "pause-ns"));
    json_decref(ret);
    json_decref(l.disks);
    while (l.n)
        close(l.fd[--l.n]);
    remote_close(&l.vmm);
    for (size_t i = 0; i < t->snap.ndisk && !rc; i++)
        rc = layer_done(t->vm, &t->state, t->snap.disk[i].layer, e);
    return rc;
}

/* ---- take ---- */

static int take(struct taking *t, int64_t *pause_ns, struct error *e)
{
    CLEANUP_FREE char *text = NULL;
    size_t len;
    int rc = plan(t, &text, &len, e);
    if (!rc)
        rc = fill_draft(t, text, len, e);
    if (!rc)
        rc = t->live ? take_live(t, pause_ns, e) : take_disks(t, e);
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
    snapshot_sweep(t->vm, t->folder, false); /* changes the state that is loaded now */
    rc = vm_snapshot_current(t->vm, t->snap.parent, e);
    return rc ? rc : vm_state_load(t->vm->dir, &t->state, e);
}

static void end(struct taking *t)
{
    if (t->dir >= 0)
        close(t->dir);
    if (t->folder >= 0)
        close(t->folder);
    free(t->plan);
    snapshot_fini(&t->snap);
    vm_state_fini(&t->state);
}

static int take_or_sweep(struct taking *t, int64_t *pause_ns, struct error *e)
{
    int rc = take(t, pause_ns, e);
    if (rc)
        snapshot_sweep(t->vm, t->folder, false);
    return rc;
}

/* A state and disks that do not belong together are none to go back to. */
static int check_suspended(const struct vm *vm, struct error *e)
{
    struct spec s;
    int rc = vm_spec_load(vm, NULL, 0, &s, e);
    if (rc)
        return rc;
    rc = vm_saved_check(vm, &s, e);
    spec_fini(&s);
    return rc;
}

int vm_snapshot_take(const struct vm *vm, const char *name, struct error *e)
{
    struct taking t = {.vm = vm, .folder = -1, .dir = -1};
    struct vm_status status;
    int64_t none;
    vm_status_read(vm, &status);
    int rc = vm_need_stopped(vm, "snap take", e);
    if (!rc && status.run == VM_SUSPENDED)
        rc = check_suspended(vm, e);
    if (!rc)
        rc = begin(&t, name, e);
    if (!rc) {
        t.file = status.state;
        t.snap.of = status.run == VM_SUSPENDED ? SNAPSHOT_SUSPENDED : SNAPSHOT_STOPPED;
        rc = take_or_sweep(&t, &none, e);
    }
    end(&t);
    return rc;
}

int vm_snapshot_take_live(const struct vm *vm, const char *name, int64_t *pause_ns, struct error *e)
{
    struct taking t = {
        .vm = vm, .live = true, .snap = {.of = SNAPSHOT_RUNNING}, .folder = -1, .dir = -1};
    int rc = begin(&t, name, e);
    if (!rc)
        rc = take_or_sweep(&t, pause_ns, e);
    end(&t);
    return rc;
}
