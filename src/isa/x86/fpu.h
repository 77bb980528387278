/*
 * fpu.h - the x87, SSE and AVX state as a whole: initial values, saving and restoring it (xsave.c).
 */
#ifndef SOSIA_ISA_X86_FPU_H
#define SOSIA_ISA_X86_FPU_H

#include "isa/x86/cpu.h"

#define X86_FCW_INIT   0x37fu
#define X86_FCW_BITS   0x1f3fu /* the others are zero but for one */
#define X86_FCW_ONE    0x40u
#define X86_FCW_MASKS  0x3fu /* of the six errors */
#define X86_MXCSR_INIT 0x1f80u
#define X86_MXCSR_BITS 0xffffu /* the others are reserved (SDM vol. 1, 10.2.3) */

/* State components that differ from their initial configuration (XGETBV with ECX = 1; SDM vol.
 * 1, 13.6). */
uint64_t x86_xinuse(const struct x86_cpu *c);

/* FNINIT's effect on the state. */
void x86_fpu_init(struct x86_cpu *c);

/* Values as the processor keeps them: reserved bits of FCW, FSW's summary bits, and so on. Whoever
 * fills c->s.fpu from outside (a snapshot) must call this before the vCPU runs: invalid MXCSR bits
 * would fault in the host. */
void x86_fpu_sanitize(struct x86_cpu *c);

#endif
