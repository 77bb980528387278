/*
 * kvm_pv.h - KVM's paravirtual interface as a part of the board: clock, steal time, end of
 * interrupt by memory, IPIs and kicks by hypercall. Source: Linux,
 * Documentation/virt/kvm/x86/msr.rst and hypercalls.rst; isa/x86/kvm_pv.h has the numbers.
 *
 * All functions are called with the device lock held, but for those of the vCPU's own thread.
 * vCPUs are counted as on the APIC bus; `cpu` is always one of them.
 */
#ifndef SOSIA_MACHINE_KVM_PV_H
#define SOSIA_MACHINE_KVM_PV_H

#include "base/clock.h"
#include "base/field.h"
#include "chip/apic_bus.h"
#include "isa/x86/kvm_pv.h"
#include "mem/space.h"

/* What the vCPUs are told. */
struct kvm_pv_host {
    void (*flush)(void *ctx, unsigned cpu);  /* drop all translations before the next instruction */
    void (*unhalt)(void *ctx, unsigned cpu); /* the present HLT ends, or the next one at once */
    void *ctx;
};

struct kvm_pv_cpu {
    uint64_t system_time, eoi, steal_time; /* MSRs as written; steal_time: its own thread's */
    uint64_t tsc_offset;                   /* this vCPU's TSC less the machine's */
};

struct kvm_pv {
    struct space *mem;
    struct apic_bus *apic;
    struct vclock *clock;
    struct kvm_pv_host host;
    uint32_t tsc_mul; /* ns = (shift(ticks) * mul) >> 32 */
    int8_t tsc_shift;
    uint64_t wall_clock; /* MSR as written; one for all vCPUs */
    bool stable;         /* all TSCs of the machine show the same */
    struct kvm_pv_cpu cpu[APIC_BUS_MAX_CPUS];
};

/* All APICs must be on the bus when the guest starts. The machine's TSC counts tsc_hz (1 MHz to 100
 * GHz) from 0 at VM time 0. */
void kvm_pv_init(struct kvm_pv *pv, struct space *mem, struct apic_bus *apic, struct vclock *clock,
                 uint64_t tsc_hz, const struct kvm_pv_host *host);
extern const struct field_table kvm_pv_fields; /* loaded before the APICs */
void kvm_pv_reset(struct kvm_pv *pv);          /* no vCPU runs */

/* MSRs by their new numbers, from the vCPU's own thread. False: #GP. */
bool kvm_pv_read_msr(const struct kvm_pv *pv, unsigned cpu, uint32_t msr, uint64_t *val);
bool kvm_pv_write_msr(struct kvm_pv *pv, unsigned cpu, uint32_t msr, uint64_t val);
int64_t kvm_pv_hypercall(struct kvm_pv *pv, const struct x86_hypercall *h);
void kvm_pv_tsc_moved(struct kvm_pv *pv, unsigned cpu, uint64_t offset);

/* The guest did not run for a while: its watchdogs, which look at the mark in the clock's structure
 * (and clear it), are not to take that for a hang. */
void kvm_pv_stopped(struct kvm_pv *pv);

/* The vCPU's own thread, without the lock: around the time in which it sleeps and neither executes
 * nor translates anything for its guest. */
void kvm_pv_sleep(struct kvm_pv *pv, unsigned cpu);
void kvm_pv_wake(struct kvm_pv *pv, unsigned cpu);
/* The same: the host has kept it from running for so long. */
bool kvm_pv_wants_steal(const struct kvm_pv *pv, unsigned cpu);
void kvm_pv_steal(struct kvm_pv *pv, unsigned cpu, ns_t ns);

#endif
