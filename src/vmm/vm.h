/*
 * vm.h - one running VM: memory, clock, board, vCPUs, event loop.
 *
 * Threads: one for each vCPU; the event loop's (timers, terminal, requests; it is the caller of
 * vm_run()); the disks' I/O threads. Lock order: device lock, then the address map's lock or the
 * park lock, which are leaves.
 *
 * Stopping: vm_request() raises `stop` and kicks the vCPUs, which park in vm_vcpu_may_run(); when
 * all have parked the loop carries the request out and releases or ends them.
 *
 *        running --vm_request--> stopping --all parked--> parked --reset, save, work--> running
 *                                                          |  ^ \--poweroff, quit--> ended
 *                                                    pause v  | any request
 *                                                         paused
 *
 * A paused VM stays parked, and its clock stands; requests are carried out there, too.
 */
#ifndef SOSIA_VMM_VM_H
#define SOSIA_VMM_VM_H

#include <uv.h>

#include "base/clock.h"
#include "base/deferred.h"
#include "char/console.h"
#include "char/terminal.h"
#include "isa/x86/cpuid.h"
#include "machine/pc.h"
#include "vmm/control.h"
#include "vmm/save.h"
#include "vmm/snap.h"
#include "vmm/vcpu.h"
#include "vmm/vmm.h"

enum vm_req {
    VM_REQ_NONE,
    VM_REQ_WORK, /* something to do while no vCPU runs; done together with a reset, too */
    VM_REQ_SAVE, /* vm_save(): likewise, unless the VM ends */
    VM_REQ_RESET,
    VM_REQ_POWEROFF,
    VM_REQ_EXIT,
    VM_REQ_QUIT,
    VM_REQ_SIGNAL,
    VM_REQ_FAILED,
};

struct vm {
    const struct spec *spec;
    struct ram ram;
    struct vclock clock;
    struct timerq timers;
    pthread_mutex_t lock;          /* the device lock */
    struct deferred_list deferred; /* that lock's */
    struct pc *pc;
    struct x86_model model;
    struct vcpu vcpu[32];
    unsigned nvcpu;
    const struct engine *engine;
    const struct engine *engine_wanted; /* NULL: no other; the loop's thread's */
    struct blk *disk[SPEC_MAX_DISKS], *cdrom, *floppy;
    struct char_terminal *terminal;
    struct char_file *serial_file;

    const struct vmm_service *service; /* NULL: none */
    struct control *control;           /* with a service */
    struct char_console *console;      /* likewise, if a device leads to it */
    bool pause_wanted;                 /* the loop's thread's */
    bool paused;                       /* written under the device lock by the loop's thread */
    char engine_line[1024];            /* how the last change of the engine went */

    uv_loop_t loop;
    uv_async_t wake;
    uv_poll_t timer_poll;
    uv_signal_t signal[3];
    unsigned nsignal;
    int timer_fd;

    pthread_mutex_t park_lock; /* guards the fields below */
    pthread_cond_t park_cond;
    bool stop, quit;
    unsigned parked;
    enum vm_req req; /* the strongest request not yet carried out */
    char req_why[64];

    /* The loop's thread's: vm_save.c. */
    struct vm_save save; /* asked for; path NULL: nothing is */
    char *save_path;
    int64_t saved_at; /* the calendar's time in a state just saved or loaded */
    ns_t behind;      /* what the clock has to catch up */
    bool clock_stands;
    uv_timer_t catch_up;
    bool restored;         /* the VM goes on from a saved state: it does not boot */
    const char *save_file; /* where the user's key saves to; NULL: nowhere */

    struct vm_snap snap;

    struct error result; /* why the VM ended, if it failed */
};

#define VM_WHY_CONTROL "asked for by the user" /* of requests by the control socket */

int vm_create(struct vm *vm, const struct spec *s, const struct vmm_service *service,
              struct error *e);
/* Runs until power-off, quit or failure. 0 or a negative code with *e filled. */
int vm_run(struct vm *vm, struct error *e);
void vm_destroy(struct vm *vm);

/* The device lock, for what may wake threads that want it, too: they are woken when it is free. */
static inline void vm_lock_devices(struct vm *vm)
{
    deferred_lock(&vm->lock, &vm->deferred);
}

static inline void vm_unlock_devices(struct vm *vm)
{
    deferred_unlock(&vm->lock, &vm->deferred);
}

/* (the loop's thread) The VM goes on with the next engine that this host can run, as soon as all
 * vCPUs have parked; the terminal tells which. */
void vm_next_engine(struct vm *vm);
/* The same with a certain one, which this host can run. */
void vm_set_engine(struct vm *vm, const struct engine *to);
/* (the loop's thread) The VM pauses or goes on; control_parked() is called when it has. */
void vm_pause(struct vm *vm, bool pause);

/* (any thread) Asks for a reset or the end of the VM. A stronger request replaces a weaker one.
 * VM_REQ_EXIT is the guest's own report of a failure, VM_REQ_FAILED the engine's. */
void vm_request(struct vm *vm, enum vm_req req, const char *why);

/* For vCPU threads: waits while the VM is stopped; false: end the thread. */
bool vm_vcpu_may_run(struct vm *vm);
/* Its threads give up rights (sandbox.h). */
bool vm_is_sandboxed(const struct vm *vm);
bool vm_has_remote_disk(const struct spec *s);
/* For vcpu_init(): bus, memory, model. */
void vm_setup_cpu(struct vm *vm, struct x86_cpu *c);

/* ---- between vm.c and its parts ---- */
struct pc_host vm_pc_host(struct vm *vm);          /* vm_bus.c */
void vm_code_written(void *vm);                    /* vm_bus.c, for struct ram */
int vm_open_disks(struct vm *vm, struct error *e); /* vm_disks.c */
int vm_loop_init(struct vm *vm, struct error *e);  /* vm_loop.c */
void vm_loop_fini(struct vm *vm);
void vm_loop_pause(struct vm *vm); /* all vCPUs are parked: the clock does as pause_wanted says */
void vm_post_all(struct vm *vm, uint32_t bits);
/* vm_engine.c: the engine that the spec asks for; NULL with ERR_HOST: none that this host can run.
 */
const struct engine *vm_choose_engine(const struct spec *s, struct error *e);
void vm_change_engine(struct vm *vm); /* all vCPUs are parked */

#endif
