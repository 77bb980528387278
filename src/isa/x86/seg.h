/*
 * seg.h - segment registers, descriptors, control transfers between segments and privilege levels.
 */
#ifndef SOSIA_ISA_X86_SEG_H
#define SOSIA_ISA_X86_SEG_H

#include "isa/x86/cpu.h"

/* Loads ES, SS, DS, FS or GS as MOV Sreg does in the present mode, with all checks (SDM 3.4.2,
 * MOV). */
void x86_load_seg(struct x86_cpu *c, unsigned seg, uint16_t sel);

/* Delivers c->exc (an exception, or INT n with exc.soft) or an external interrupt through the IDT
 * or IVT, with #DF and shutdown on nesting. RIP to be saved is s.rip. Does not raise: it handles
 * faults that occur during delivery. After it, s.activity may be X86_SHUTDOWN. */
void x86_deliver_exception(struct x86_cpu *c);
void x86_deliver_interrupt(struct x86_cpu *c, uint8_t vector);
void x86_deliver_nmi(struct x86_cpu *c);

#endif
