/*
 * mmu.h - what the memory access functions need of paging.
 */
#ifndef SOSIA_ISA_X86_MMU_H
#define SOSIA_ISA_X86_MMU_H

#include "isa/x86/cpu.h"

/* Bits of an entry of the paging structures (SDM 4.3 to 4.5). */
#define PTE_P  0x1ull
#define PTE_W  0x2ull
#define PTE_U  0x4ull
#define PTE_A  0x20ull
#define PTE_D  0x40ull
#define PTE_PS 0x80ull
#define PTE_G  0x100ull
#define PTE_NX (1ull << 63)

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

/* Where the page's code is in RAM, if a fetch would find it without a fault, a device or a change
 * of the page tables; `large`: it belongs to a large page. */
bool x86_walk_fetch(struct x86_cpu *c, gva_t lin, enum x86_mmu mmu, uint64_t *roff, bool *large);

/* Sets of numbers, with few false hits: a bit for each hash. `bits` is a power of two. */
static inline unsigned x86_filter_bit(uint64_t number, unsigned bits)
{
    return (unsigned)((number * 0x9e3779b97f4a7c15ull) >> 32) & (bits - 1);
}

static inline bool x86_filter_has(const uint64_t *filter, unsigned bits, uint64_t number)
{
    unsigned n = x86_filter_bit(number, bits);
    return filter[n / 64] >> (n % 64) & 1;
}

static inline void x86_filter_add(uint64_t *filter, unsigned bits, uint64_t number)
{
    unsigned n = x86_filter_bit(number, bits);
    filter[n / 64] |= 1ull << (n % 64);
}

#endif
