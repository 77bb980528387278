/*
 * native_mem.h - memory operands of up to 64 bytes: a host pointer where the software TLB has one,
 * else a buffer.
 */
#ifndef SOSIA_ISA_X86_NATIVE_MEM_H
#define SOSIA_ISA_X86_NATIVE_MEM_H

#include "isa/x86/access.h"
#include "isa/x86/native.h"

/* x86_insn.aux of these instructions: size of the memory operand in bytes 0..7, alignment - 1 in
 * bits 8..15. */
#define X86_VEC_AUX(size, align) ((uint16_t)((size) | ((align)-1) << 8))
static inline unsigned x86_vec_size(const struct x86_insn *i)
{
    return i->aux & 0xffu;
}

/* Out of line (native_check.c): into the vCPU's buffer, which is returned; from it. */
void *x86_vec_load_slow(struct x86_cpu *c, gva_t lin, unsigned size);
void x86_vec_store_slow(struct x86_cpu *c, gva_t lin, const void *src, unsigned size);

/* Operands that must be aligned fault with #GP(0) whatever the segment (SDM vol. 3, 6.15). */
static inline void x86_vec_align(struct x86_cpu *c, const struct x86_insn *i, gva_t lin)
{
    if (UNLIKELY(lin & (i->aux >> 8)))
        x86_gp0(c);
}

static inline void *x86_vec_load(struct x86_cpu *c, const struct x86_insn *i, unsigned size)
{
    gva_t lin = x86_lin_r(c, i, size);
    x86_vec_align(c, i, lin);
    const struct x86_tlbe *e = x86_tlb_entry(c, lin, c->mmu);
    if (UNLIKELY(e->rtag != x86_tlb_tag(c, lin, size, c->mmu)))
        return x86_vec_load_slow(c, lin, size);
    return (void *)(e->addend + lin);
}

static inline gva_t x86_vec_store_lin(struct x86_cpu *c, const struct x86_insn *i, unsigned size)
{
    gva_t lin = x86_lin_w(c, i, size);
    x86_vec_align(c, i, lin);
    return lin;
}

/* Where to store directly; NULL: fill a buffer and call x86_vec_store_slow. */
static inline void *x86_vec_store_ptr(struct x86_cpu *c, gva_t lin, unsigned size)
{
    const struct x86_tlbe *e = x86_tlb_entry(c, lin, c->mmu);
    if (UNLIKELY(atomic_load_explicit(&e->wtag, memory_order_relaxed) !=
                 x86_tlb_tag(c, lin, size, c->mmu)))
        return NULL;
    return (void *)(e->addend + lin);
}

/* Mandatory after a direct store. */
static inline void x86_vec_store_done(struct x86_cpu *c, gva_t lin, const void *host, unsigned size)
{
    x86_rmw_done(c, lin, host, size);
}

static inline void x86_vec_store(struct x86_cpu *c, const struct x86_insn *i, const void *src,
                                 unsigned size)
{
    gva_t lin = x86_vec_store_lin(c, i, size);
    void *host = x86_vec_store_ptr(c, lin, size);
    if (UNLIKELY(!host)) {
        x86_vec_store_slow(c, lin, src, size);
        return;
    }
    memcpy(host, src, size);
    x86_vec_store_done(c, lin, host, size);
}

#endif
