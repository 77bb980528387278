/*
 * vcpu.c - the vCPU thread: run the engine, sleep while halted, park while the VM is stopped.
 *
 * Sleeping is a futex wait on `pending` itself: whoever posts an event changes the word, so a
 * wake-up cannot be lost between the check and the wait.
 */
#define _GNU_SOURCE
#include "vmm/vcpu.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/bigmem.h"
#include "base/log.h"
#include "base/thread.h"
#include "vmm/sandbox.h"
#include "vmm/vm.h"

#define VCPU_STACK (512 * KIB)

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void vcpu_post(struct vcpu *v, uint32_t bits)
{
    uint32_t old = atomic_fetch_or(&v->cpu->pending, bits);
    if ((old & bits) != bits && atomic_load(&v->asleep))
        futex_wake(&v->cpu->pending);
}

/* Looks at `asleep` after any bits that found it queued. */
static void wake_later(struct deferred *job)
{
    struct vcpu *v = CONTAINER_OF(job, struct vcpu, wake);
    atomic_store(&v->wake_queued, false);
    if (atomic_load(&v->asleep))
        futex_wake(&v->cpu->pending);
}

void vcpu_post_locked(struct vcpu *v, uint32_t bits)
{
    uint32_t old = atomic_fetch_or(&v->cpu->pending, bits);
    if ((old & bits) == bits || !atomic_load(&v->asleep) || atomic_exchange(&v->wake_queued, true))
        return;
    if (!deferred_add(&v->vm->deferred, &v->wake))
        wake_later(&v->wake);
}

/* The flag first, then a look at `asleep`; the sleeper does it the other way round. */
void vcpu_unhalt(struct vcpu *v)
{
    atomic_store(&v->cpu->unhalted, true);
    if (atomic_load(&v->asleep))
        vcpu_post(v, X86_PEND_KICK);
}

/* ---- steal time: what passed less what the thread ran, while it wanted to run ---- */

#define STEAL_PERIOD (NS_PER_SEC / 1000)

static ns_t host_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (ns_t)t.tv_sec * NS_PER_SEC + t.tv_nsec;
}

static void steal_start(struct vcpu *v)
{
    v->ran.wall = 0;
    if (!kvm_pv_wants_steal(pc_kvm_pv(v->vm->pc), v->cpu->index))
        return;
    v->ran.wall = host_clock(CLOCK_MONOTONIC);
    v->ran.cpu = host_clock(CLOCK_THREAD_CPUTIME_ID);
}

/* The thread's clock may be coarse: what it is behind now it makes up for later, so a negative rest
 * is kept. */
static void steal_count(struct vcpu *v)
{
    if (!v->ran.wall)
        return;
    ns_t wall = v->ran.wall, cpu = v->ran.cpu;
    steal_start(v);
    if (!v->ran.wall)
        return;
    v->ran.stolen += (v->ran.wall - wall) - (v->ran.cpu - cpu);
    if (v->ran.stolen <= 0)
        return;
    kvm_pv_steal(pc_kvm_pv(v->vm->pc), v->cpu->index, v->ran.stolen);
    v->ran.stolen = 0;
}

static void steal_stop(struct vcpu *v)
{
    steal_count(v);
    v->ran.wall = 0;
}

void vcpu_report_steal(struct vcpu *v)
{
    if (!v->ran.wall)
        steal_start(v);
    else if (host_clock(CLOCK_MONOTONIC) - v->ran.wall >= STEAL_PERIOD)
        steal_count(v);
}

/* ---- sleeping ---- */

void vcpu_note(struct vcpu *v, uint32_t bits)
{
    if ((atomic_load(&v->cpu->pending) & bits) != bits)
        atomic_fetch_or(&v->cpu->pending, bits);
}

/* Is there anything in `pending` that ends the wait of a vCPU in this state? */
static bool wakes(const struct x86_cpu *c, uint32_t pending)
{
    uint32_t mask = X86_PEND_KICK | X86_PEND_TLB | X86_PEND_INIT;
    if (c->s.activity == X86_WAIT_SIPI)
        mask |= X86_PEND_SIPI;
    if (c->s.activity == X86_HALTED) {
        mask |= X86_PEND_NMI;
        if (c->s.rflags & X86_FL_IF)
            mask |= X86_PEND_INTR;
    }
    return pending & mask;
}

static void wait_for_event(struct vcpu *v)
{
    struct x86_cpu *c = v->cpu;
    atomic_store(&v->asleep, 1);
    uint32_t p = atomic_load(&c->pending);
    while (!wakes(c, p) && !(c->s.activity == X86_HALTED && atomic_load(&c->unhalted))) {
        futex_wait(&c->pending, p);
        p = atomic_load(&c->pending);
    }
    atomic_store(&v->asleep, 0);
    if (c->s.activity == X86_HALTED && atomic_exchange(&c->unhalted, false))
        c->s.activity = X86_RUNNING;
}

/* What was put off as long as the guest had work. */
static void run_lazy(struct vm *vm)
{
    if (!timerq_has_lazy(&vm->timers))
        return;
    vm_lock_devices(vm);
    timerq_idle(&vm->timers);
    vm_unlock_devices(vm);
}

static void vcpu_sleep(struct vcpu *v)
{
    struct kvm_pv *pv = pc_kvm_pv(v->vm->pc);
    steal_stop(v);
    kvm_pv_sleep(pv, v->cpu->index);
    run_lazy(v->vm);
    wait_for_event(v);
    kvm_pv_wake(pv, v->cpu->index);
}

/* Like vm_vcpu_may_run(): a VM that is stopped has nothing stolen. Begins to count anew. */
static bool may_run(struct vcpu *v)
{
    steal_stop(v);
    bool may = vm_vcpu_may_run(v->vm);
    steal_start(v);
    return may;
}

static void *vcpu_main(void *arg)
{
    struct vcpu *v = arg;
    atomic_store(&v->tid, (int)gettid());
    struct error e = {0};
    if (vm_is_sandboxed(v->vm) && sandbox_enter(SANDBOX_VCPU, vm_has_remote_disk(v->vm->spec), &e))
        log_warn("vCPU %u: %s", v->cpu->index, e.msg);
    while (may_run(v)) {
        switch (v->engine->run(v->cpu)) {
        case ENGINE_EXIT_KICK:
            break;
        case ENGINE_EXIT_HALT:
            vcpu_sleep(v);
            break;
        case ENGINE_EXIT_SHUTDOWN:
            vm_request(v->vm, VM_REQ_RESET, "triple fault");
            vcpu_sleep(v); /* until the reset kicks it */
            break;
        case ENGINE_EXIT_FAILED:
            vm_request(v->vm, VM_REQ_FAILED, v->engine->name);
            break;
        }
    }
    return NULL;
}

int vcpu_init(struct vcpu *v, struct vm *vm, const struct engine *engine, unsigned index,
              struct error *e)
{
    *v = (struct vcpu){.vm = vm, .engine = engine, .wake.run = wake_later};
    struct x86_cpu *c = bigmem_alloc(sizeof *c);
    if (!c)
        return error_set(e, ERR_NOMEM, "out of memory for vCPU %u", index);
    v->cpu = c;
    c->index = index;
    vm_setup_cpu(vm, c);
    int rc = engine->vcpu_create(c, e);
    if (rc) {
        bigmem_free(c, sizeof *c);
        v->cpu = NULL;
        return rc;
    }
    x86_reset(c, false);
    return 0;
}

void vcpu_fini(struct vcpu *v)
{
    if (!v->cpu)
        return;
    v->engine->vcpu_destroy(v->cpu);
    bigmem_free(v->cpu, sizeof *v->cpu);
    v->cpu = NULL;
}

void vcpu_join(struct vcpu *v)
{
    if (v->started)
        pthread_join(v->thread, NULL);
    v->started = false;
}

int vcpu_start(struct vcpu *v, struct error *e)
{
    char name[16];
    snprintf(name, sizeof name, "vcpu%u", v->cpu->index % 1000);
    const struct thread_options o = {.name = name, .stack = VCPU_STACK, .takes_faults = true};
    int rc = thread_start(&v->thread, &o, vcpu_main, v);
    if (rc)
        return error_errno(e, ERR_HOST, rc, "cannot start a thread for vCPU %u", v->cpu->index);
    v->started = true;
    return 0;
}
