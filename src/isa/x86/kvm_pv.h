/*
 * kvm_pv.h - the numbers of KVM's paravirtual interface. Source: Linux, Documentation/virt/kvm/x86/
 * cpuid.rst, msr.rst and hypercalls.rst.
 *
 * The interface is the machine's (machine/kvm_pv.c); the processor only hands MSR accesses and
 * hypercalls over, so every engine has it.
 */
#ifndef SOSIA_ISA_X86_KVM_PV_H
#define SOSIA_ISA_X86_KVM_PV_H

#include "base/types.h"

/* CPUID leaf 40000001H, EAX */
#define KVM_PV_CLOCKSOURCE  (1u << 0) /* kvmclock, the MSRs 11H and 12H */
#define KVM_PV_NOP_IO_DELAY (1u << 1) /* no chip needs a pause between two accesses */
#define KVM_PV_CLOCKSOURCE2 (1u << 3) /* kvmclock, the MSRs below */
#define KVM_PV_STEAL_TIME   (1u << 5)
#define KVM_PV_EOI          (1u << 6)
#define KVM_PV_UNHALT       (1u << 7)
#define KVM_PV_TLB_FLUSH    (1u << 9)
#define KVM_PV_SEND_IPI     (1u << 11)
#define KVM_PV_CLOCK_STABLE (1u << 24) /* the flags of kvmclock mean what they say */
#define KVM_PV_FEATURES                                                                   \
    (KVM_PV_CLOCKSOURCE | KVM_PV_NOP_IO_DELAY | KVM_PV_CLOCKSOURCE2 | KVM_PV_STEAL_TIME | \
     KVM_PV_EOI | KVM_PV_UNHALT | KVM_PV_TLB_FLUSH | KVM_PV_SEND_IPI | KVM_PV_CLOCK_STABLE)

/* MSRs. 11H and 12H are older numbers of the first two. */
#define KVM_PV_MSR_OLD         0x11u
#define KVM_PV_MSR             0x4b564d00u
#define KVM_PV_MSR_WALL_CLOCK  (KVM_PV_MSR + 0)
#define KVM_PV_MSR_SYSTEM_TIME (KVM_PV_MSR + 1)
#define KVM_PV_MSR_STEAL_TIME  (KVM_PV_MSR + 3)
#define KVM_PV_MSR_EOI         (KVM_PV_MSR + 4)

/* Hypercalls: number in RAX, arguments in RBX, RCX, RDX, RSI, result in RAX */
#define KVM_PV_HC_VAPIC_POLL_IRQ 1u
#define KVM_PV_HC_KICK_CPU       5u
#define KVM_PV_HC_SEND_IPI       10u

#define KVM_PV_EPERM  1
#define KVM_PV_EINVAL 22
#define KVM_PV_ENOSYS 1000

struct x86_hypercall {
    uint64_t nr, arg[4]; /* outside 64-bit mode: the low halves */
    bool wide;           /* from 64-bit mode */
};

#endif
