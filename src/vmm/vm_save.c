/*
 * vm_save.c - saving a VM and starting one from what was saved; see save.h.
 *
 * The order: all vCPUs are parked; the disks finish what is in flight and make it durable; the
 * clock stops; timers that are due, or lazy, run. From then on nothing changes, since this is the
 * loop's thread, and the device lock is held.
 *
 * The file gets its name when it is complete and durable: whatever happens, under that name there
 * is a whole state or what was there before.
 */
#include "vmm/save.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/field.h"
#include "base/log.h"
#include "block/output.h"
#include "vmm/vm.h"

/* ---- what is not the board's ---- */

struct vm_identity {
    struct vm *vm;
    ns_t clock;
    int64_t calendar; /* nanoseconds since 1970 when the clock stood at `clock` */
    uint32_t cpus;
    uint64_t disk[SPEC_MAX_DISKS]; /* bytes; 0: there is none */
    struct x86_model model;
};

static int identity_loaded(void *dev, struct error *e)
{
    struct vm_identity *id = dev;
    if (id->clock < 0 || id->clock > INT64_MAX / 4)
        return error_set(e, ERR_FORMAT, "clock: is not within the life of a machine");
    int rc = x86_model_adopt(&id->vm->model, &id->model, e);
    if (!rc)
        vclock_set(&id->vm->clock, id->clock);
    return rc;
}

static const struct field identity_fields[] = {
    FIELD_NONE(struct vm_identity, vm),
    FIELD(struct vm_identity, clock),
    FIELD(struct vm_identity, calendar),
    FIELD(struct vm_identity, cpus, .same = true),
    FIELD_ARRAY(struct vm_identity, disk, .same = true),
    FIELD_STRUCT(struct vm_identity, model, x86_model_fields),
};
static const struct field_table identity_table =
    FIELD_TABLE(struct vm_identity, "vm", identity_fields, .post_load = identity_loaded);

static void identify(struct vm *vm, struct vm_identity *id)
{
    *id = (struct vm_identity){.vm = vm, .cpus = vm->nvcpu, .model = vm->model};
    id->clock = vclock_now(&vm->clock);
    id->calendar = vclock_epoch(&vm->clock) + id->clock;
    for (unsigned n = 0; n < SPEC_MAX_DISKS; n++)
        id->disk[n] = vm->disk[n] ? vm->disk[n]->size : 0;
}

static void list_all(struct vm *vm, struct vm_identity *id, struct state_list *l)
{
    state_add_part(l, &identity_table, id, "vm");
    for (unsigned n = 0; n < vm->nvcpu; n++)
        state_add_part(l, &x86_cpu_fields, vm->vcpu[n].cpu, "cpu %u", n);
    pc_state_list(vm->pc, l);
}

/* ---- disks ---- */

static struct blk *drive(struct vm *vm, unsigned n)
{
    return n < SPEC_MAX_DISKS        ? vm->disk[n]
           : n == SPEC_MAX_DISKS     ? vm->cdrom
           : n == SPEC_MAX_DISKS + 1 ? vm->floppy
                                     : NULL;
}
#define DRIVES (SPEC_MAX_DISKS + 2)

static void flushed(struct blk_req *req, int result)
{
    int *worst = req->arg;
    if (result < 0)
        *worst = result;
}

void vmm_drain(struct vm *vm)
{
    for (unsigned n = 0; n < DRIVES; n++)
        blk_drain(drive(vm, n));
}

/* A saved state means nothing without what is on the disks at that moment. */
static int settle_disks(struct vm *vm, struct error *e)
{
    struct blk_req req[DRIVES];
    int worst = 0;
    vmm_drain(vm);
    pthread_mutex_lock(&vm->lock);
    for (unsigned n = 0; n < DRIVES; n++) {
        struct blk *b = drive(vm, n);
        req[n] = (struct blk_req){.op = BLK_FLUSH, .done = flushed, .arg = &worst};
        if (b && !b->readonly)
            blk_submit(b, &req[n]);
    }
    pthread_mutex_unlock(&vm->lock);
    vmm_drain(vm);
    if (worst)
        return error_errno(e, ERR_IO, -worst, "a disk cannot be made durable");
    return 0;
}

/* ---- save, load ---- */

static void stop_clock(struct vm *vm)
{
    vclock_pause(&vm->clock);
    vm->clock_stands = true;
}

void vmm_save_pool(struct vm *vm, uint64_t budget, struct state_pool *pool)
{
    struct state_list *l = calloc(1, sizeof *l);
    *pool = (struct state_pool){.p = NULL};
    if (!l)
        return;
    pthread_mutex_lock(&vm->lock);
    pc_state_list(vm->pc, l);
    pthread_mutex_unlock(&vm->lock);
    state_pool_make(pool, l, budget);
    free(l);
}

int vmm_save_begin(struct vm *vm, int fd, struct state_pool *pool, struct state_saving **out,
                   struct error *e)
{
    struct vm_identity id;
    struct state_list *l = calloc(1, sizeof *l);
    if (!l) {
        if (pool)
            state_pool_free(pool);
        return error_set(e, ERR_NOMEM, "out of memory");
    }
    vmm_drain(vm);
    pthread_mutex_lock(&vm->lock);
    stop_clock(vm);
    pc_state_begin(vm->pc);
    identify(vm, &id);
    vm->saved_at = id.calendar;
    list_all(vm, &id, l);
    int rc = state_save_begin(out, fd, l, pool, e);
    pthread_mutex_unlock(&vm->lock);
    free(l);
    return rc;
}

int vmm_save(struct vm *vm, int fd, struct state_stats *stats, struct error *e)
{
    struct state_saving *saving;
    int rc = settle_disks(vm, e);
    if (!rc)
        rc = vmm_save_begin(vm, fd, NULL, &saving, e);
    return rc ? rc : state_save_end(saving, stats, e);
}

int vmm_load(struct vm *vm, int fd, struct state_stats *stats, struct error *e)
{
    struct vm_identity id;
    struct state_list *l = calloc(1, sizeof *l);
    if (!l)
        return error_set(e, ERR_NOMEM, "out of memory");
    pthread_mutex_lock(&vm->lock);
    stop_clock(vm);
    identify(vm, &id);
    list_all(vm, &id, l);
    int rc = state_load(fd, l, stats, e);
    vm->saved_at = id.calendar;
    ram_code_kill(&vm->ram, 0, vm->ram.total);
    pthread_mutex_unlock(&vm->lock);
    free(l);
    return rc;
}

int vm_load_file(struct vm *vm, const char *path, struct error *e)
{
    struct state_stats stats;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        error_errno(e, ERR_IO, errno, "cannot open the saved state");
        return error_prefix(e, "%s", path);
    }
    int rc = vmm_load(vm, fd, &stats, e);
    close(fd);
    if (rc)
        return error_prefix(e, "%s", path);
    log_info("%s: restored: %llu MiB of memory in %llu MiB", path,
             (unsigned long long)(stats.pages * PAGE_SIZE / MIB),
             (unsigned long long)(stats.bytes / MIB));
    return 0;
}

/* The guest's memory is nobody else's business, whatever the umask says. */
static int save_fd(struct vm *vm, const char *at, const char *path, struct error *e)
{
    struct state_stats stats = {0};
    int fd = open(at, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(e, ERR_IO, errno, "cannot open the new file");
    int rc = fchmod(fd, 0600) ? error_errno(e, ERR_IO, errno, "cannot keep others from the file")
                              : vmm_save(vm, fd, &stats, e);
    if (close(fd) && !rc)
        rc = error_errno(e, ERR_IO, errno, "cannot write the state");
    if (!rc)
        log_info("%s: saved: %llu MiB of memory in %llu MiB", path,
                 (unsigned long long)(stats.pages * PAGE_SIZE / MIB),
                 (unsigned long long)(stats.bytes / MIB));
    return rc;
}

static int save_file(struct vm *vm, const char *path, struct error *e)
{
    struct output o;
    struct node *file;
    int rc = output_begin(&o, path, true, &file, e);
    if (rc)
        return rc;
    node_close(file);
    rc = save_fd(vm, o.temp, path, e);
    if (!rc)
        rc = output_commit(&o, e);
    output_abort(&o);
    return rc;
}

/* ---- on request ---- */

int vm_save(struct vm *vm, const struct vm_save *s, struct error *e)
{
    if (vm->save.path)
        return error_set(e, ERR_BUSY, "the VM is being saved already");
    char *path = strdup(s->path);
    if (!path)
        return error_set(e, ERR_NOMEM, "out of memory");
    vm->save = *s;
    vm->save.path = vm->save_path = path;
    vm_request(vm, VM_REQ_SAVE, "saved");
    return 0;
}

static void end_save(struct vm *vm, int rc, const struct error *e)
{
    struct vm_save s = vm->save;
    char *path = vm->save_path;
    vm->save = (struct vm_save){.path = NULL};
    vm->save_path = NULL;
    if (s.done)
        s.done(s.arg, rc, e);
    free(path);
}

bool vm_save_parked(struct vm *vm)
{
    struct error e = {0};
    if (!vm->save.path)
        return false;
    int rc = save_file(vm, vm->save.path, &e);
    bool quit = !rc && vm->save.then == VM_SAVE_QUIT;
    end_save(vm, rc, &e);
    vm_clock_resume(vm);
    return quit;
}

void vm_save_cancel(struct vm *vm)
{
    struct error e = {0};
    if (!vm->save.path)
        return;
    int rc = error_set(&e, ERR_STATE, "the VM ended before it could be saved");
    end_save(vm, rc, &e);
}

/* ---- the clock ---- */

/* Linux before 6.12 reckons wrong after a jump of 36 minutes (its clock source's multiplier
 * overflows); between two steps it needs a few timer interrupts. */
#define STEP_NS (600 * NS_PER_SEC)
#define STEP_MS 200

static void step(struct vm *vm)
{
    ns_t n = vm->behind < STEP_NS ? vm->behind : STEP_NS;
    vm->behind -= n;
    pthread_mutex_lock(&vm->lock);
    vclock_advance(&vm->clock, n);
    kvm_pv_stopped(pc_kvm_pv(vm->pc));
    vm->timers.kick(vm->timers.kick_arg);
    pthread_mutex_unlock(&vm->lock);
}

static void on_step(uv_timer_t *t)
{
    struct vm *vm = t->data;
    if (!vm->paused)
        step(vm);
    if (!vm->behind)
        uv_timer_stop(t);
}

void vm_clock_resume(struct vm *vm)
{
    if (!vm->clock_stands || vm->paused) /* it did not come to that, or nobody wants it to go on */
        return;
    vm->clock_stands = false;
    pthread_mutex_lock(&vm->lock);
    int64_t now = vclock_epoch(&vm->clock) + vclock_now(&vm->clock);
    vclock_resume(&vm->clock);
    pthread_mutex_unlock(&vm->lock);
    int64_t passed;
    if (__builtin_sub_overflow(now, vm->saved_at, &passed) || passed < 0)
        passed = 0; /* the calendar was set back */
    vm->behind += passed;
    step(vm);
    if (vm->behind)
        uv_timer_start(&vm->catch_up, on_step, STEP_MS, STEP_MS);
}
