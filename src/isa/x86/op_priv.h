/*
 * op_priv.h - what the op_*.c files of privileged instructions share; bound by the table in
 * op_sys.c.
 */
#ifndef SOSIA_ISA_X86_OP_PRIV_H
#define SOSIA_ISA_X86_OP_PRIV_H

#include "isa/x86/cpuid.h"
#include "isa/x86/op.h"
#include "isa/x86/priv.h"

/* Binders of one file each; which instruction is told by d->zi->mnemonic. */
bool x86_bind_segment(struct x86_dec *d);  /* op_seg.c */
bool x86_bind_mov_crdr(struct x86_dec *d); /* op_cr.c: MOV with a control or debug register */
bool x86_bind_cr(struct x86_dec *d);       /* op_cr.c: CLTS LMSW SMSW XGETBV XSETBV */
bool x86_bind_flags(struct x86_dec *d);    /* op_flags.c: CLI STI PUSHF POPF CLAC STAC */
bool x86_bind_io(struct x86_dec *d);       /* op_io.c: IN OUT INS OUTS */
bool x86_bind_misc_sys(struct x86_dec *d); /* op_sys.c */
bool x86_bind_fast(struct x86_dec *d);     /* fast.c: SYSCALL SYSRET SYSENTER SYSEXIT */

uint16_t x86_rm16(struct x86_cpu *c, const struct x86_insn *i); /* operand in memory or i->src */
void x86_umip_check(struct x86_cpu *c);

/* msr.c. False: #GP. */
bool x86_rdmsr(struct x86_cpu *c, uint32_t msr, uint64_t *val);
bool x86_wrmsr(struct x86_cpu *c, uint32_t msr, uint64_t val);

/* op_cr.c: the effects of a write of CR3 after its checks: TLB, PCID. */
void x86_set_cr3(struct x86_cpu *c, uint64_t v, bool keep_tlb);

#endif
