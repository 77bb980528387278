/*
 * save.h - the state of a VM to a file and from there.
 */
#ifndef SOSIA_VMM_SAVE_H
#define SOSIA_VMM_SAVE_H

#include "base/error.h"
#include "base/types.h"
#include "state/stream.h"

struct vm;

/* What becomes of the VM after its state was saved. */
enum vm_save_then {
    VM_SAVE_RESUME, /* it goes on */
    VM_SAVE_QUIT,   /* it ends, if the state was saved; else it goes on */
};

struct vm_save {
    const char *path; /* an existing file is replaced once the new one is durable */
    enum vm_save_then then;
    /* On the loop's thread, once, before the VM goes on or ends. May be NULL. */
    void (*done)(void *arg, int rc, const struct error *e);
    void *arg;
};

/* (the loop's thread) Saves the VM as soon as all its vCPUs are between two instructions. `path` is
 * copied. ERR_BUSY: it is about to be saved already. */
int vm_save(struct vm *vm, const struct vm_save *s, struct error *e);
/* The same once all vCPUs are parked, by vm.c. True: the VM shall end. */
bool vm_save_parked(struct vm *vm);
/* What was asked for will not happen: the VM ends. */
void vm_save_cancel(struct vm *vm);

/* The disks finish what is in flight. */
void vmm_drain(struct vm *vm);
/* (any thread) See state_pool_make(). */
void vmm_save_pool(struct vm *vm, uint64_t budget, struct state_pool *pool);
/* The first half of vmm_save(), see state_save_begin(). The disks finish what is in flight, but
 * need not be durable. */
int vmm_save_begin(struct vm *vm, int fd, struct state_pool *pool, struct state_saving **out,
                   struct error *e);
/* No vCPU runs. Writes the state to a descriptor, from its position on; the VM's clock stands until
 * vm_clock_resume(). ERR_IO, ERR_NOMEM. */
int vmm_save(struct vm *vm, int fd, struct state_stats *stats, struct error *e);
/* No vCPU runs, and none has since vm_create(). The clock stands then, too. ERR_FORMAT, ERR_STATE
 * (of another machine), ERR_HOST (this host cannot run it), ERR_IO, ERR_NOMEM; the VM cannot be
 * used after an error. */
int vmm_load(struct vm *vm, int fd, struct state_stats *stats, struct error *e);
/* The same from a file. */
int vm_load_file(struct vm *vm, const char *path, struct error *e);

/* After vmm_save() or vmm_load(): the clock goes on, and catches up with the calendar: the guest
 * finds that time has passed as if it had been stopped, and its clock is right. Long times are made
 * up for in steps, which guests can follow. */
void vm_clock_resume(struct vm *vm);

#endif
