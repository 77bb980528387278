/*
 * change.c - names that are given and freed: rename, the trash, new VMs.
 *
 * Each is one rename(2) of a complete folder, so there is no instant at which a VM is half there.
 * What a killed process leaves are folders under hidden names, which the next vm_draft_begin()
 * removes.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "catalog/catalog.h"
#include "catalog/lock.h"
#include "catalog/state.h"
#include "catalog/status.h"
#include "catalog/store.h"

#define DRAFT     ".new-"
#define DOOMED    ".gone-"
#define DRAFT_AGE 60 /* seconds after which a draft that nobody has locked is swept up */

int vm_need_stopped(const struct vm *vm, const char *verb, struct error *e)
{
    struct vm_status s;
    vm_status_read(vm, &s);
    if (s.run == VM_SUSPENDED && strcmp(verb, "clone") == 0)
        return error_set(e, ERR_STATE,
                         "clone: %s is suspended, and its disks are as a running guest left them; "
                         "`sosia start %s` and stop it first",
                         vm->name, vm->name);
    if (!vm_is_alive(&s))
        return 0;
    return error_set(e, ERR_STATE, "%s: %s is %s; `sosia stop %s` first", verb, vm->name,
                     vm_run_words[s.run], vm->name);
}

int catalog_rename(struct catalog *c, struct vm *vm, const char *to, struct error *e)
{
    int rc = catalog_check_name(to, e);
    if (!rc)
        rc = vm_need_stopped(vm, "rename", e);
    if (!rc && strcmp(to, vm->name) != 0)
        rc = store_rename(c->vms, vm->name, c->vms, to, e);
    return rc == ERR_BUSY ? error_set(e, ERR_STATE, "there is a VM \"%s\" already", to) : rc;
}

int catalog_remove(struct catalog *c, struct vm *vm, struct error *e)
{
    char to[VM_NAME_MAX + 64];
    struct vm_state s;
    int rc = vm_need_stopped(vm, "rm", e);
    if (rc)
        return rc;
    /* A VM whose state cannot be read can be thrown away, too. */
    if (vm_state_load(vm->dir, &s, e) == 0) {
        snprintf(to, sizeof to, "%.*s.%.8s", VM_NAME_MAX, vm->name, s.uuid);
        vm_state_fini(&s);
    } else {
        snprintf(to, sizeof to, "%.*s.%08x", VM_NAME_MAX, vm->name, (unsigned)time(NULL));
    }
    rc = store_rename(c->vms, vm->name, c->trash, to, e);
    if (!rc)
        memcpy(vm->name, to, sizeof vm->name);
    return rc;
}

int catalog_purge(struct catalog *c, struct vm *vm, struct error *e)
{
    char doomed[sizeof vm->name + 16];
    snprintf(doomed, sizeof doomed, DOOMED "%s", vm->name);
    int rc = store_rename(c->trash, vm->name, c->trash, doomed, e);
    if (rc == ERR_BUSY) { /* somebody was killed while removing one */
        rc = store_remove(c->trash, doomed, e);
        if (!rc)
            rc = store_rename(c->trash, vm->name, c->trash, doomed, e);
    }
    return rc ? rc : store_remove(c->trash, doomed, e);
}

int catalog_recover(struct catalog *c, struct vm *vm, const char *to, struct error *e)
{
    char name[sizeof vm->name];
    snprintf(name, sizeof name, "%.*s", (int)catalog_trash_name(vm->name), vm->name);
    if (to)
        snprintf(name, sizeof name, "%.*s", VM_NAME_MAX + 1, to);
    int rc = catalog_check_name(name, e);
    if (!rc)
        rc = store_rename(c->trash, vm->name, c->vms, name, e);
    if (rc == ERR_BUSY)
        return error_set(e, ERR_STATE,
                         "there is a VM \"%s\" already; give the old one another name: `sosia "
                         "recover %s NEWNAME`",
                         name, vm->name);
    if (!rc)
        snprintf(vm->name, sizeof vm->name, "%s", name);
    return rc;
}

/* ---- new VMs ---- */

/* Removes a draft whose maker is gone. */
static void sweep_one(int vms, const char *name)
{
    struct stat st;
    struct error unused;
    if (fstatat(vms, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || time(NULL) - st.st_mtime < DRAFT_AGE)
        return;
    CLEANUP_CLOSE int dir = openat(vms, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    CLEANUP_CLOSE int lock = dir < 0 ? -1 : vm_lock_open(dir, true, &unused);
    if (lock >= 0 && vm_lock_try(lock, VM_LOCK_VERB))
        store_remove(vms, name, &unused);
}

static void sweep(int vms)
{
    DIR *d = store_list(vms, ".");
    if (!d)
        return;
    for (struct dirent *f; (f = readdir(d));)
        if (strncmp(f->d_name, DRAFT, strlen(DRAFT)) == 0)
            sweep_one(vms, f->d_name);
    closedir(d);
}

static int exists(const char *name, struct error *e)
{
    return error_set(e, ERR_STATE, "there is a VM \"%s\" already", name);
}

static int fill_draft(struct catalog *c, struct vm_draft *d, struct error *e)
{
    char path[STORE_PATH];
    d->dir = store_folder(c->vms, d->temp, true, e);
    if (d->dir < 0)
        return d->dir;
    d->path = strdup(store_path(c->vms, d->temp, path));
    d->lock = vm_lock_open(d->dir, true, e);
    if (d->lock < 0)
        return d->lock;
    if (!d->path || !vm_lock_try(d->lock, VM_LOCK_VERB))
        return error_set(e, ERR_IO, "%s: cannot be locked", d->temp);
    static const char *const folders[] = {"snapshots", "logs"};
    for (unsigned i = 0; i < ARRAY_LEN(folders); i++) {
        CLEANUP_CLOSE int fd = store_folder(d->dir, folders[i], true, e);
        if (fd < 0)
            return fd;
    }
    d->disks = store_folder(d->dir, "disks", true, e);
    return d->disks < 0 ? d->disks : 0;
}

int vm_draft_begin(struct catalog *c, struct vm_draft *d, const char *name, struct error *e)
{
    struct stat st;
    *d = (struct vm_draft){.dir = -1, .disks = -1, .lock = -1};
    int rc = catalog_check_name(name, e);
    if (rc)
        return rc;
    sweep(c->vms);
    if (fstatat(c->vms, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        return exists(name, e);
    snprintf(d->name, sizeof d->name, "%s", name);
    uint32_t unique;
    if (getrandom(&unique, sizeof unique, 0) != sizeof unique)
        return error_errno(e, ERR_IO, errno, "no random numbers");
    snprintf(d->temp, sizeof d->temp, DRAFT "%d-%08x", (int)getpid(), unique);
    rc = fill_draft(c, d, e);
    if (rc)
        vm_draft_end(c, d);
    return rc;
}

int vm_draft_commit(struct catalog *c, struct vm_draft *d, const char *spec,
                    const struct vm_state *state, struct error *e)
{
    int rc = store_write_new(d->dir, VM_SPEC, spec, strlen(spec), e);
    if (!rc)
        rc = vm_state_save(d->dir, state, true, e);
    if (!rc)
        rc = store_sync(d->disks, e);
    if (!rc)
        rc = store_sync(d->dir, e);
    if (!rc)
        rc = store_rename(c->vms, d->temp, c->vms, d->name, e);
    if (rc == ERR_BUSY)
        rc = exists(d->name, e);
    if (!rc)
        d->temp[0] = 0;
    return rc;
}

static void drop(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void vm_draft_end(struct catalog *c, struct vm_draft *d)
{
    struct error unused;
    if (d->temp[0])
        store_remove(c->vms, d->temp, &unused);
    drop(&d->disks);
    drop(&d->dir);
    drop(&d->lock);
    free(d->path);
    d->path = NULL;
    d->temp[0] = 0;
}
