/*
 * xsave.h - how op_fpu.c's table reaches xsave.c.
 */
#ifndef SOSIA_ISA_X86_XSAVE_H
#define SOSIA_ISA_X86_XSAVE_H

#include "isa/x86/insn.h"

enum x86_xsave_op { X86_FXSAVE, X86_FXRSTOR, X86_XSAVE, X86_XSAVEOPT, X86_XSAVEC, X86_XRSTOR };

bool x86_bind_xsave(struct x86_dec *d);

#endif
