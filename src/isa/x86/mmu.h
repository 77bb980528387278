/*
 * mmu.h - what the memory access functions need of paging.
 */
#ifndef SOSIA_ISA_X86_MMU_H
#define SOSIA_ISA_X86_MMU_H

#include "isa/x86/cpu.h"

struct x86_xlat {
    gpa_t gpa;
    bool ram;      /* the whole page is RAM or ROM; roff and writable are valid */
    bool writable; /* RAM, not ROM */
    uint64_t roff; /* RAM offset of the page */
};

/* Translates with full checks, fills the TLB where possible; raises #PF. */
void x86_tlb_fill(struct x86_cpu *c, gva_t lin, enum x86_access acc, enum x86_mmu mmu,
                  struct x86_xlat *x);
/* Makes the entry's page writable on the fast path, unless it holds cached code. */
void x86_tlb_rewrite(struct x86_cpu *c, struct x86_tlbe *e, uint64_t tag, uint64_t roff);

#endif
