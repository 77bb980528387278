/*
 * vcpu.h - one virtual CPU: an architectural state, an engine, and the host thread that runs it.
 */
#ifndef SOSIA_VMM_VCPU_H
#define SOSIA_VMM_VCPU_H

#include <pthread.h>

#include "base/deferred.h"
#include "engine/engine.h"

struct vm;

struct vcpu {
    struct x86_cpu *cpu; /* page-aligned allocation of its own */
    struct vm *vm;
    const struct engine *engine;
    pthread_t thread;
    bool started;
    _Atomic int tid;         /* of the thread; 0: not running yet */
    _Atomic uint32_t asleep; /* the thread waits, or is about to wait, on cpu->pending */
    struct deferred wake;    /* wakes it once the device lock is free */
    atomic_bool wake_queued;
    struct {            /* for the guest's steal time; the thread's own */
        ns_t wall, cpu; /* host time and the thread's share of it; wall 0: not counting */
        ns_t stolen;    /* since then, not yet reported; may be negative */
    } ran;
};

/* Creates the state and the engine's part; no thread yet. */
int vcpu_init(struct vcpu *v, struct vm *vm, const struct engine *engine, unsigned index,
              struct error *e);
void vcpu_fini(struct vcpu *v);
int vcpu_start(struct vcpu *v, struct error *e);
void vcpu_join(struct vcpu *v); /* waits for the thread's end, if it was started */

/* (any thread) Sets X86_PEND_* bits and wakes the vCPU if it sleeps. */
void vcpu_post(struct vcpu *v, uint32_t bits);
/* The same with the device lock held, which it is likely to want at once: it may be woken later. */
void vcpu_post_locked(struct vcpu *v, uint32_t bits);
/* (any thread) Sets bits that need not wake it. */
void vcpu_note(struct vcpu *v, uint32_t bits);
/* (any thread) Ends its HLT, or the next one at once. */
void vcpu_unhalt(struct vcpu *v);

/* (the vCPU's thread) Tells the guest what time the host took from it, now and then. */
void vcpu_report_steal(struct vcpu *v);

#endif
