/* vm_snap.c - see snap.h. */
#define _GNU_SOURCE
#include "vmm/snap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/thread.h"
#include "block/disk.h"
#include "block/format.h"
#include "block/io/file.h"
#include "vmm/vm.h"

/* For copies of the guest's memory. One that uses more stands still until the rest is written. */
#define COPY_BUDGET GIB

/* ---- asking ---- */

static int check_state_file(int fd, struct error *e)
{
    struct stat st;
    if (fd < 0)
        return 0;
    int flags = fcntl(fd, F_GETFL);
    if (fstat(fd, &st) < 0 || flags < 0 || !S_ISREG(st.st_mode) || st.st_size != 0 ||
        (flags & O_ACCMODE) == O_RDONLY || flags & (O_PATH | O_APPEND))
        return error_set(e, ERR_USAGE, "the state needs an empty file that can be written");
    return 0;
}

/* `fd` is taken over. */
static int open_overlay(struct vm *vm, unsigned n, int fd, struct error *e)
{
    const struct format *qcow2 = format_find("qcow2");
    struct node *file = NULL;
    char name[40];
    snprintf(name, sizeof name, "the new overlay of disk%u", n);
    int rc = file_adopt(fd, name, &file, e);
    if (rc)
        return rc;
    const struct format_open o = {.path = name, .no_backing = true};
    rc = qcow2->open(file, &o, &vm->snap.overlay[n], e);
    if (rc)
        node_close(file);
    return rc;
}

static int check_disk(const struct vm *vm, unsigned n, struct error *e)
{
    if (n >= vm->spec->ndisk || vm->disk[n]->readonly)
        return error_set(e, ERR_USAGE, "disk%u is none that is written", n);
    if (vm->spec->disk[n].raid != SPEC_RAID_NONE)
        return error_set(e, ERR_STATE, "disk%u is an array, which cannot take an overlay", n);
    return 0;
}

/* What was not used. */
static void close_files(struct vm_snap *s)
{
    for (unsigned n = 0; n < SPEC_MAX_DISKS; n++)
        node_close(s->overlay[n]);
    if (s->fd >= 0)
        close(s->fd);
    state_pool_free(&s->pool);
    s->step = VM_SNAP_NONE;
}

static int ask(struct vm *vm, const struct vm_snap_files *f, unsigned *used, struct error *e)
{
    int rc = check_state_file(f->state, e);
    for (; !rc && *used < SPEC_MAX_DISKS; (*used)++) {
        int fd = f->disk[*used];
        if (fd < 0)
            continue;
        rc = check_disk(vm, *used, e);
        if (rc)
            break;
        rc = open_overlay(vm, *used, fd, e);
    }
    return rc;
}

static void *get_room(void *arg)
{
    struct vm *vm = arg;
    if (vm->snap.fd >= 0)
        vmm_save_pool(vm, COPY_BUDGET, &vm->snap.pool);
    uv_async_send(&vm->snap.stepped);
    return NULL;
}

/* A thread's work is done here if there can be none. */
static void start(struct vm *vm, enum vm_snap_step step, void *(*work)(void *vm))
{
    const struct thread_options options = {.name = "snapshot", .stack = 512 * KIB};
    struct vm_snap *s = &vm->snap;
    s->step = step;
    if (!thread_start(&s->thread, &options, work, vm))
        return;
    s->thread = pthread_self();
    work(vm);
}

int vm_snap_ask(struct vm *vm, const struct vm_snap_files *f,
                void (*done)(void *arg, const struct vm_snap *s), void *arg, struct error *e)
{
    struct vm_snap *s = &vm->snap;
    unsigned used = 0;
    bool busy = s->step != VM_SNAP_NONE;
    int rc = busy ? error_set(e, ERR_BUSY, "a snapshot is being taken already") : 0;
    if (!busy) {
        for (unsigned n = 0; n < SPEC_MAX_DISKS; n++)
            s->overlay[n] = NULL;
        s->fd = f->state;
        s->rc = 0;
        s->error = (struct error){0};
        s->done = done;
        s->arg = arg;
        s->saving = NULL;
        rc = ask(vm, f, &used, e);
    }
    if (rc) {
        for (; used < SPEC_MAX_DISKS; used++)
            if (f->disk[used] >= 0)
                close(f->disk[used]);
        if (busy && f->state >= 0)
            close(f->state);
        if (!busy)
            close_files(s);
        return rc;
    }
    start(vm, VM_SNAP_PREPARING, get_room);
    return 0;
}

/* ---- taking ---- */

static void failed(struct vm_snap *s, int rc, const struct error *e)
{
    if (s->rc)
        return;
    s->rc = rc;
    s->error = *e;
}

static void *write_out(void *arg)
{
    struct vm *vm = arg;
    struct vm_snap *s = &vm->snap;
    struct error e;
    int rc = 0;
    if (s->saving)
        rc = state_save_end(s->saving, &s->stats, &e);
    if (!rc && s->saving && fsync(s->fd) < 0)
        rc = error_errno(&e, ERR_IO, errno, "the state cannot be made durable");
    if (rc)
        failed(s, rc, &e);
    for (unsigned n = 0; n < vm->spec->ndisk; n++) {
        rc = disk_settle(vm->disk[n], &e);
        if (rc)
            failed(s, rc, &e);
    }
    uv_async_send(&s->stepped);
    return NULL;
}

/* From here on the overlays are the disks', whatever fails. */
static void push_disks(struct vm *vm)
{
    struct vm_snap *s = &vm->snap;
    struct error e;
    for (unsigned n = 0; n < SPEC_MAX_DISKS && !s->rc; n++) {
        if (!s->overlay[n])
            continue;
        int rc = disk_push(vm->disk[n], s->overlay[n], &e);
        if (rc)
            failed(s, rc, &e);
        else
            s->overlay[n] = NULL;
    }
}

void vm_snap_parked(struct vm *vm)
{
    struct vm_snap *s = &vm->snap;
    struct error e;
    if (s->step != VM_SNAP_ASKED)
        return;
    int rc = 0;
    if (s->fd >= 0)
        rc = vmm_save_begin(vm, s->fd, &s->pool, &s->saving, &e);
    else
        vmm_drain(vm);
    if (rc)
        failed(s, rc, &e);
    else
        push_disks(vm);
    if (s->rc && s->saving) {
        state_save_drop(s->saving);
        s->saving = NULL;
    }
    vm_clock_resume(vm);
    s->pause = uv_hrtime() - s->asked;
    start(vm, VM_SNAP_WRITING, write_out);
}

static void join(struct vm_snap *s)
{
    if (!pthread_equal(s->thread, pthread_self()))
        pthread_join(s->thread, NULL);
}

static void finish(struct vm_snap *s)
{
    join(s);
    close_files(s);
    unsigned long long ms = s->pause / 1000000;
    if (s->rc)
        log_warn("no snapshot was taken: %s", s->error.msg);
    else if (s->fd < 0)
        log_info("a disk has a new overlay; the guest stood still for %llu ms", ms);
    else
        log_info("a snapshot: %llu MiB of memory; the guest stood still for %llu ms",
                 (unsigned long long)(s->stats.pages * PAGE_SIZE / MIB), ms);
    s->done(s->arg, s);
}

static void on_step(uv_async_t *a)
{
    struct vm *vm = a->data;
    struct vm_snap *s = &vm->snap;
    if (s->step == VM_SNAP_WRITING) {
        finish(s);
    } else if (s->step == VM_SNAP_PREPARING) {
        join(s);
        s->step = VM_SNAP_ASKED;
        s->asked = uv_hrtime();
        vm_request(vm, VM_REQ_WORK, "snapshot");
    }
}

int vm_snap_init(struct vm *vm)
{
    int rc = uv_async_init(&vm->loop, &vm->snap.stepped, on_step);
    vm->snap.stepped.data = vm;
    return rc;
}

void vm_snap_end(struct vm *vm)
{
    struct vm_snap *s = &vm->snap;
    if (s->step == VM_SNAP_PREPARING || s->step == VM_SNAP_WRITING)
        join(s);
    if (s->step != VM_SNAP_NONE)
        close_files(s);
}
