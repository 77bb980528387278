/*
 * access.h - how instructions reach memory: segment, linear address, software TLB, host memory.
 *
 * Loads and stores of 1, 2, 4 and 8 bytes are single host accesses, hence atomic when naturally
 * aligned and ordered as on the host (TSO). Everything here may raise a fault and then does not
 * return.
 */
#ifndef SOSIA_ISA_X86_ACCESS_H
#define SOSIA_ISA_X86_ACCESS_H

#include <string.h>

#include "isa/x86/cpu.h"
#include "isa/x86/insn.h"

/* The hot paths are inlined in every instruction: gcc would stop at its limit for unit growth. */
#define X86_HOT static inline __attribute__((always_inline))

#define X86_PAGE_MASK (~(uint64_t)(PAGE_SIZE - 1))

/* ---- out of line (access.c) ---- */
uint64_t x86_ld_slow(struct x86_cpu *c, gva_t lin, unsigned size, enum x86_mmu mmu);
void x86_st_slow(struct x86_cpu *c, gva_t lin, uint64_t val, unsigned size, enum x86_mmu mmu);
/* A store's translation was withdrawn while it was made: report the write to code tracking. */
void x86_st_raced(struct x86_cpu *c, const void *host, unsigned size);
/* Raises #GP/#SS unless [ea, ea+size) lies within the segment with the rights for `need`. */
void x86_seg_check(struct x86_cpu *c, unsigned seg, uint64_t ea, unsigned size, unsigned need);
/* Copies that cross pages. All pages are checked before the first byte is transferred. */
void x86_ld_bytes(struct x86_cpu *c, gva_t lin, void *buf, unsigned len, enum x86_mmu mmu);
void x86_st_bytes(struct x86_cpu *c, gva_t lin, const void *buf, unsigned len, enum x86_mmu mmu);
/* Checks that [lin, lin+len) may be accessed so; raises #PF if not. len <= 4096. */
void x86_probe(struct x86_cpu *c, gva_t lin, unsigned len, enum x86_access acc, enum x86_mmu mmu);
void *x86_rmw_slow(struct x86_cpu *c, gva_t lin, unsigned size);
/* Around a read-modify-write for which x86_rmw_ptr() gave no pointer: one vCPU at a time. A fault
 * ends it too. */
void x86_split_begin(struct x86_cpu *c);
void x86_split_end(struct x86_cpu *c);
/* For bulk copies (REP MOVS, STOS): a host pointer to `lin` and in *len how many bytes from there
 * lie in the same page of RAM, or NULL if it is device memory, watched, tracked code, or not in the
 * TLB yet (then access one element the ordinary way). After writing n bytes call x86_rmw_done(c,
 * lin, host, n). */
const void *x86_span_read(struct x86_cpu *c, gva_t lin, unsigned *len);
void *x86_span_write(struct x86_cpu *c, gva_t lin, unsigned *len);

X86_HOT struct x86_tlbe *x86_tlb_entry(struct x86_cpu *c, gva_t lin, unsigned mmu)
{
    return &c->tlb.e[mmu][0][(lin >> 12) & (X86_TLB_SIZE - 1)];
}

/* The tag that an access of `size` bytes must find. Taken from the last byte: an access that
 * crosses a page finds the entry of its first page and another tag, and goes the slow way. */
X86_HOT uint64_t x86_tlb_tag(const struct x86_cpu *c, gva_t lin, unsigned size, unsigned mmu)
{
    return ((lin + size - 1) & X86_PAGE_MASK) | c->tlb.asid[mmu];
}

#define X86_ACCESS(bits)                                                                     \
    X86_HOT uint##bits##_t x86_ldm##bits(struct x86_cpu *c, gva_t lin, unsigned mmu)         \
    {                                                                                        \
        const struct x86_tlbe *e = x86_tlb_entry(c, lin, mmu);                               \
        if (UNLIKELY(e->rtag != x86_tlb_tag(c, lin, (bits) / 8, mmu)))                       \
            return (uint##bits##_t)x86_ld_slow(c, lin, (bits) / 8, mmu);                     \
        uint##bits##_t v;                                                                    \
        memcpy(&v, (const void *)(e->addend + lin), sizeof v);                               \
        return v;                                                                            \
    }                                                                                        \
    X86_HOT void x86_stm##bits(struct x86_cpu *c, gva_t lin, uint##bits##_t v, unsigned mmu) \
    {                                                                                        \
        struct x86_tlbe *e = x86_tlb_entry(c, lin, mmu);                                     \
        uint64_t tag = x86_tlb_tag(c, lin, (bits) / 8, mmu);                                 \
        if (UNLIKELY(atomic_load_explicit(&e->wtag, memory_order_relaxed) != tag)) {         \
            x86_st_slow(c, lin, v, (bits) / 8, mmu);                                         \
            return;                                                                          \
        }                                                                                    \
        void *host = (void *)(e->addend + lin);                                              \
        memcpy(host, &v, sizeof v);                                                          \
        atomic_signal_fence(memory_order_seq_cst);                                           \
        if (UNLIKELY(atomic_load_explicit(&e->wtag, memory_order_relaxed) != tag))           \
            x86_st_raced(c, host, (bits) / 8);                                               \
    }                                                                                        \
    /* at a linear address, with the rights of the running code */                           \
    X86_HOT uint##bits##_t x86_ld##bits(struct x86_cpu *c, gva_t lin)                        \
    {                                                                                        \
        return x86_ldm##bits(c, lin, c->mmu);                                                \
    }                                                                                        \
    X86_HOT void x86_st##bits(struct x86_cpu *c, gva_t lin, uint##bits##_t v)                \
    {                                                                                        \
        x86_stm##bits(c, lin, v, c->mmu);                                                    \
    }
X86_ACCESS(8)
X86_ACCESS(16)
X86_ACCESS(32)
X86_ACCESS(64)
#undef X86_ACCESS

#define X86_CACHE_LINE 64u
static inline bool x86_crosses_line(gva_t lin, unsigned size)
{
    return lin % X86_CACHE_LINE > X86_CACHE_LINE - size;
}

/* Read-modify-write of 1, 2, 4, 8 or 16 bytes: a host pointer to the operand, on which the caller
 * works with one host instruction (locked or not), then x86_rmw_done(). NULL: the operand is device
 * memory, or crosses a page or (with a single vCPU) a cache line; write access has been checked,
 * and the caller uses x86_ld_slow and x86_st_slow. */
X86_HOT void *x86_rmw_ptr(struct x86_cpu *c, gva_t lin, unsigned size)
{
    const struct x86_tlbe *e = x86_tlb_entry(c, lin, c->mmu);
    uint64_t tag = x86_tlb_tag(c, lin, size, c->mmu);
    if (UNLIKELY(atomic_load_explicit(&e->wtag, memory_order_relaxed) != tag || e->rtag != tag ||
                 x86_crosses_line(lin, size)))
        return x86_rmw_slow(c, lin, size);
    return (void *)(e->addend + lin);
}
X86_HOT void x86_rmw_done(struct x86_cpu *c, gva_t lin, const void *host, unsigned size)
{
    const struct x86_tlbe *e = x86_tlb_entry(c, lin, c->mmu);
    atomic_signal_fence(memory_order_seq_cst);
    if (UNLIKELY(atomic_load_explicit(&e->wtag, memory_order_relaxed) !=
                 x86_tlb_tag(c, lin, size, c->mmu)))
        x86_st_raced(c, host, size);
}

/* ---- addresses ---- */

X86_HOT uint64_t x86_ea(const struct x86_cpu *c, const struct x86_insn *i)
{
    return (c->s.gpr[i->base] + (c->s.gpr[i->index] << i->scale) + (uint64_t)i->disp) & i->amask;
}

/* Linear address of seg:ea for an access of `size` bytes; need: X86_SEGOK_R and/or _W. */
X86_HOT gva_t x86_seg_lin(struct x86_cpu *c, unsigned seg, uint64_t ea, unsigned size,
                          unsigned need)
{
    const struct x86_segc *s = &c->segc[seg];
    if (UNLIKELY((s->ok & need) != need))
        x86_seg_check(c, seg, ea, size, need);
    return (s->base + ea) & c->lin_mask;
}

/* Linear address of the memory operand of `i`. */
X86_HOT gva_t x86_lin_r(struct x86_cpu *c, const struct x86_insn *i, unsigned size)
{
    return x86_seg_lin(c, i->seg, x86_ea(c, i), size, X86_SEGOK_R);
}
static inline gva_t x86_lin_w(struct x86_cpu *c, const struct x86_insn *i, unsigned size)
{
    return x86_seg_lin(c, i->seg, x86_ea(c, i), size, X86_SEGOK_W);
}
X86_HOT gva_t x86_lin_rw(struct x86_cpu *c, const struct x86_insn *i, unsigned size)
{
    return x86_seg_lin(c, i->seg, x86_ea(c, i), size, X86_SEGOK_R | X86_SEGOK_W);
}

/* ---- registers ---- */

/* 8-bit operands are given by byte offset into gpr[] (8*reg, or 8*reg+1 for AH CH DH BH). */
static inline uint8_t x86_r8(const struct x86_cpu *c, unsigned off)
{
    return ((const uint8_t *)c->s.gpr)[off];
}
static inline void x86_w8(struct x86_cpu *c, unsigned off, uint8_t v)
{
    ((uint8_t *)c->s.gpr)[off] = v;
}
static inline uint16_t x86_r16(const struct x86_cpu *c, unsigned r)
{
    return (uint16_t)c->s.gpr[r];
}
static inline void x86_w16(struct x86_cpu *c, unsigned r, uint16_t v)
{
    memcpy(&c->s.gpr[r], &v, sizeof v);
}
static inline uint32_t x86_r32(const struct x86_cpu *c, unsigned r)
{
    return (uint32_t)c->s.gpr[r];
}
static inline void x86_w32(struct x86_cpu *c, unsigned r, uint32_t v)
{
    c->s.gpr[r] = v; /* upper half cleared, also outside 64-bit mode: harmless there */
}
static inline uint64_t x86_r64(const struct x86_cpu *c, unsigned r)
{
    return c->s.gpr[r];
}
static inline void x86_w64(struct x86_cpu *c, unsigned r, uint64_t v)
{
    c->s.gpr[r] = v;
}

/* ---- RIP ----
 * On entry to a block s.rip is already its end (the fall-through); a branch overwrites it. */

static inline uint64_t x86_insn_rip(const struct x86_cpu *c) /* of the running instruction */
{
    return (c->s.gpr[X86_REG_RIP] + c->cur->end - c->cur->len) & c->ip_mask;
}
static inline uint64_t x86_next_rip(const struct x86_cpu *c)
{
    return (c->s.gpr[X86_REG_RIP] + c->cur->end) & c->ip_mask;
}
static inline bool x86_canonical(uint64_t a)
{
    return (uint64_t)((int64_t)(a << 16) >> 16) == a;
}
/* Near branch within CS: #GP(0) if the target is beyond the limit or not canonical. */
X86_HOT void x86_jump(struct x86_cpu *c, uint64_t target)
{
    if (UNLIKELY(target > c->cs_limit || !x86_canonical(target)))
        x86_gp0(c);
    c->s.rip = target;
}

/* ---- stack ---- */

X86_HOT void x86_set_rsp(struct x86_cpu *c, uint64_t v)
{
    c->s.gpr[X86_RSP] = (c->s.gpr[X86_RSP] & ~c->sp_mask) | (v & c->sp_mask);
}

#define X86_STACK(bits)                                                                        \
    X86_HOT void x86_push##bits(struct x86_cpu *c, uint##bits##_t v)                           \
    {                                                                                          \
        uint64_t sp = (c->s.gpr[X86_RSP] - (bits) / 8) & c->sp_mask;                           \
        x86_st##bits(c, x86_seg_lin(c, X86_SS, sp, (bits) / 8, X86_SEGOK_W), v);               \
        x86_set_rsp(c, sp);                                                                    \
    }                                                                                          \
    /* Reads the stack at RSP + disp; the caller moves RSP when nothing can fault any more. */ \
    X86_HOT uint##bits##_t x86_peek##bits(struct x86_cpu *c, uint64_t disp)                    \
    {                                                                                          \
        uint64_t sp = (c->s.gpr[X86_RSP] + disp) & c->sp_mask;                                 \
        return x86_ld##bits(c, x86_seg_lin(c, X86_SS, sp, (bits) / 8, X86_SEGOK_R));           \
    }
X86_STACK(16)
X86_STACK(32)
X86_STACK(64)
#undef X86_STACK

#endif
