/*
 * regs.h - where guest registers are while translated code runs.
 *
 * RAX and R11 of the host are scratch: RAX because LAHF, SAHF and SETO work there, R11 to address
 * with. R14 is H_HELD (group.c), or holds an address while no group is held. What that displaces
 * goes elsewhere: guest RAX to R10, guest RSP to R15. The four guest registers that compilers use
 * least are in memory.
 */
#ifndef SOSIA_ENGINE_JIT_REGS_H
#define SOSIA_ENGINE_JIT_REGS_H

#include "engine/jit/asm.h"
#include "isa/x86/cpu.h"

#define G_OFF(field) ((int32_t)offsetof(struct x86_cpu, field))
#define G_GPR(r)     (G_OFF(s.gpr) + 8 * (int32_t)(r))

/* A segment register's field, and the base that data accesses use. */
#define G_SEG(n, field) \
    (G_OFF(s.seg) + (int32_t)((n) * sizeof(struct x86_seg) + offsetof(struct x86_seg, field)))
#define G_SEGC(n) (G_OFF(segc) + (int32_t)((n) * sizeof(struct x86_segc)))

/* A TLB entry's field, relative to the set's offset: page number % sets * size of an entry. */
#define JIT_TLB_OFF(mmu, way, field)                                                    \
    (G_OFF(tlb.e) +                                                                     \
     (int32_t)(((mmu)*X86_TLB_WAYS + (way)) * sizeof(struct x86_tlbe) * X86_TLB_SIZE) + \
     (int32_t)offsetof(struct x86_tlbe, field))
#define JIT_TLB_SHIFT 7
#define JIT_TLB_MASK  ((int32_t)(X86_TLB_SIZE - 1) << 5)
_Static_assert(sizeof(struct x86_tlbe) == 32, "the page number is shifted accordingly");

#define H_HELD H_R14

/* Host register of each guest register; H_NONE: in memory. */
static const uint8_t jit_host_reg[16] = {
    [X86_RAX] = H_R10, [X86_RCX] = H_RCX, [X86_RDX] = H_RDX, [X86_RBX] = H_RBX,
    [X86_RSP] = H_R15, [X86_RBP] = H_RBP, [X86_RSI] = H_RSI, [X86_RDI] = H_RDI,
    [8] = H_R8,        [9] = H_R9,        [10] = H_NONE,     [11] = H_NONE,
    [12] = H_R12,      [13] = H_R13,      [14] = H_NONE,     [15] = H_NONE,
};

#endif
