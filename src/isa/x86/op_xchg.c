/*
 * op_xchg.c - XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B, XCHG: the building blocks of guest locks.
 *
 * An operand that lies in RAM within one page is worked on by the host's instruction, with LOCK
 * where the guest asked for it, so it is atomic among all vCPUs and devices. An operand in device
 * memory, or one that crosses a page, is loaded and stored separately.
 */
#include "isa/x86/op.h"

/* ---- XCHG: with memory always locked (SDM vol. 2, XCHG) ---- */

#define XCHG(bits)                                                                \
    static void xchg_rr##bits(struct x86_cpu *c, const struct x86_insn *i)        \
    {                                                                             \
        uint##bits##_t a = x86_r##bits(c, i->dst), b = x86_r##bits(c, i->src);    \
        x86_w##bits(c, i->dst, b);                                                \
        x86_w##bits(c, i->src, a);                                                \
    }                                                                             \
    static void xchg_mr##bits(struct x86_cpu *c, const struct x86_insn *i)        \
    {                                                                             \
        gva_t lin = x86_lin_rw(c, i, (bits) / 8);                                 \
        uint##bits##_t v = x86_r##bits(c, i->src), w = v;                         \
        X86_RMW(c, lin, bits,                                                     \
                __asm__ volatile("xchg %0, %1"                                    \
                                 : "+r"(v), "+m"(*(x86_mem##bits *)p)::"memory"), \
                (v = old, w));                                                    \
        x86_w##bits(c, i->src, v);                                                \
    }
XCHG(8)
XCHG(16)
XCHG(32)
XCHG(64)

bool x86_bind_xchg(struct x86_dec *d)
{
    static const x86_op_fn rr[] = {xchg_rr8, xchg_rr16, xchg_rr32, xchg_rr64};
    static const x86_op_fn mr[] = {xchg_mr8, xchg_mr16, xchg_mr32, xchg_mr64};
    unsigned size = x86_size_index(d->op[0].size);
    x86_bind_regs(d);
    if (x86_is_mem(d, 0)) {
        d->i->fn = mr[size];
    } else if (x86_is_mem(d, 1)) { /* the same operation, named the other way round */
        d->i->src = d->i->dst;
        d->i->fn = mr[size];
    } else {
        d->i->fn = rr[size];
        return !x86_is_locked(d);
    }
    return true;
}

/* ---- XADD ---- */

#define XADD_MEM(bits, form, lock)                                                             \
    static void xadd_##form##bits(struct x86_cpu *c, const struct x86_insn *i)                 \
    {                                                                                          \
        gva_t lin = x86_lin_rw(c, i, (bits) / 8);                                              \
        uint##bits##_t v = x86_r##bits(c, i->src);                                             \
        uint16_t fl;                                                                           \
        X86_RMW(c, lin, bits,                                                                  \
                __asm__ volatile(lock "xadd %[v], %[m]" X86_HF_SAVE                            \
                                 : [v] "+r"(v), [m] "+m"(*(x86_mem##bits *)p), "=a"(fl)::"cc", \
                                   "memory"),                                                  \
                xadd##bits(old, &v, &fl));                                                     \
        c->fl = fl;                                                                            \
        x86_w##bits(c, i->src, v);                                                             \
    }
#define XADD(bits)                                                                             \
    static inline uint##bits##_t xadd##bits(uint##bits##_t a, uint##bits##_t *b, uint16_t *fl) \
    {                                                                                          \
        __asm__("xadd %[b], %[a]" X86_HF_SAVE : [a] "+r"(a), [b] "+r"(*b), "=a"(*fl)::"cc");   \
        return a;                                                                              \
    }                                                                                          \
    static void xadd_rr##bits(struct x86_cpu *c, const struct x86_insn *i)                     \
    {                                                                                          \
        uint##bits##_t b = x86_r##bits(c, i->src);                                             \
        uint##bits##_t a = xadd##bits(x86_r##bits(c, i->dst), &b, &c->fl);                     \
        x86_w##bits(c, i->src, b);                                                             \
        x86_w##bits(c, i->dst, a); /* last: it wins if both are one register */                \
    }                                                                                          \
    XADD_MEM(bits, mr, "")                                                                     \
    XADD_MEM(bits, lmr, "lock ")
XADD(8)
XADD(16)
XADD(32)
XADD(64)

bool x86_bind_xadd(struct x86_dec *d)
{
    static const x86_op_fn fn[3][4] = {
        {xadd_rr8, xadd_rr16, xadd_rr32, xadd_rr64},
        {xadd_mr8, xadd_mr16, xadd_mr32, xadd_mr64},
        {xadd_lmr8, xadd_lmr16, xadd_lmr32, xadd_lmr64},
    };
    bool mem = x86_is_mem(d, 0);
    x86_bind_regs(d);
    d->i->fn = fn[mem ? 1 + x86_is_locked(d) : 0][x86_size_index(d->op[0].size)];
    return mem || !x86_is_locked(d);
}

/* ---- CMPXCHG ----
 * RAX goes in and out whole: the host decides which of its bits change. */

#define CMPXCHG_MEM(bits, form, lock, mod)                                                   \
    static void cmpxchg_##form##bits(struct x86_cpu *c, const struct x86_insn *i)            \
    {                                                                                        \
        gva_t lin = x86_lin_rw(c, i, (bits) / 8);                                            \
        uint64_t rax = c->s.gpr[X86_RAX], fl = rax;                                          \
        uint##bits##_t v = x86_r##bits(c, i->src);                                           \
        X86_RMW(c, lin, bits,                                                                \
                __asm__ volatile(lock "cmpxchg %[v], %[m]\n\tmov %%rax, %[rax]" X86_HF_SAVE  \
                                 : [m] "+m"(*(x86_mem##bits *)p), [rax] "=&r"(rax), "+a"(fl) \
                                 : [v] "r"(v)                                                \
                                 : "cc", "memory"),                                          \
                (uint##bits##_t)cmpxchg##bits(old, v, &rax, &fl));                           \
        c->fl = (uint16_t)fl;                                                                \
        c->s.gpr[X86_RAX] = rax;                                                             \
    }
#define CMPXCHG(bits, mod)                                                              \
    static inline uint64_t cmpxchg##bits(uint64_t dst, uint##bits##_t v, uint64_t *rax, \
                                         uint64_t *fl)                                  \
    {                                                                                   \
        *fl = *rax;                                                                     \
        __asm__("cmpxchg %[v], %" mod "[dst]\n\tmov %%rax, %[rax]" X86_HF_SAVE          \
                : [dst] "+r"(dst), [rax] "=&r"(*rax), "+a"(*fl)                         \
                : [v] "r"(v)                                                            \
                : "cc");                                                                \
        return dst;                                                                     \
    }                                                                                   \
    CMPXCHG_MEM(bits, mr, "", mod)                                                      \
    CMPXCHG_MEM(bits, lmr, "lock ", mod)
CMPXCHG(8, "b")
CMPXCHG(16, "w")
CMPXCHG(32, "k")
CMPXCHG(64, "q")

/* The accumulator is written only if the comparison failed, and may be the destination as well. */
#define CMPXCHG_RR(bits)                                                                         \
    static void cmpxchg_rr##bits(struct x86_cpu *c, const struct x86_insn *i)                    \
    {                                                                                            \
        uint64_t rax = c->s.gpr[X86_RAX], fl;                                                    \
        uint64_t dst = cmpxchg##bits(x86_r##bits(c, i->dst), x86_r##bits(c, i->src), &rax, &fl); \
        c->fl = (uint16_t)fl;                                                                    \
        if (fl & X86_HF_ZF)                                                                      \
            x86_w##bits(c, i->dst, (uint##bits##_t)dst);                                         \
        else                                                                                     \
            c->s.gpr[X86_RAX] = rax;                                                             \
    }
CMPXCHG_RR(8)
CMPXCHG_RR(16)
CMPXCHG_RR(32)
CMPXCHG_RR(64)

bool x86_bind_cmpxchg(struct x86_dec *d)
{
    static const x86_op_fn fn[3][4] = {
        {cmpxchg_rr8, cmpxchg_rr16, cmpxchg_rr32, cmpxchg_rr64},
        {cmpxchg_mr8, cmpxchg_mr16, cmpxchg_mr32, cmpxchg_mr64},
        {cmpxchg_lmr8, cmpxchg_lmr16, cmpxchg_lmr32, cmpxchg_lmr64},
    };
    bool mem = x86_is_mem(d, 0);
    x86_bind_regs(d);
    d->i->fn = fn[mem ? 1 + x86_is_locked(d) : 0][x86_size_index(d->op[0].size)];
    return mem || !x86_is_locked(d);
}

/* ---- CMPXCHG8B, CMPXCHG16B: only ZF changes ---- */

static void set_zf(struct x86_cpu *c, bool zf)
{
    c->fl = (uint16_t)((c->fl & ~X86_HF_ZF) | (zf ? X86_HF_ZF : 0));
}

static void cmpxchg8b(struct x86_cpu *c, const struct x86_insn *i)
{
    gva_t lin = x86_lin_rw(c, i, 8);
    uint64_t want = (uint64_t)x86_r32(c, X86_RDX) << 32 | x86_r32(c, X86_RAX);
    uint64_t val = (uint64_t)x86_r32(c, X86_RCX) << 32 | x86_r32(c, X86_RBX);
    uint64_t got = want;
    X86_RMW(c, lin, 64,
            __asm__ volatile("lock cmpxchgq %[v], %[m]"
                             : [m] "+m"(*(x86_mem64 *)p), "+a"(got)
                             : [v] "r"(val)
                             : "cc", "memory"),
            (got = old, old == want ? val : old));
    set_zf(c, got == want);
    if (got != want) {
        x86_w32(c, X86_RAX, (uint32_t)got);
        x86_w32(c, X86_RDX, (uint32_t)(got >> 32));
    }
}

static void cmpxchg16b(struct x86_cpu *c, const struct x86_insn *i)
{
    gva_t lin = x86_lin_rw(c, i, 16);
    if (lin & 15)
        x86_gp0(c);
    uint64_t lo = c->s.gpr[X86_RAX], hi = c->s.gpr[X86_RDX];
    bool same;
    uint8_t *p = x86_rmw_ptr(c, lin, 16);
    if (LIKELY(p != NULL)) {
        __asm__ volatile("lock cmpxchg16b %[m]"
                         : [m] "+m"(*(__int128 *)(void *)p), "+a"(lo), "+d"(hi), "=@ccz"(same)
                         : "b"(c->s.gpr[X86_RBX]), "c"(c->s.gpr[X86_RCX])
                         : "memory");
        x86_rmw_done(c, lin, p, 16);
    } else {
        x86_split_begin(c);
        lo = x86_ld_slow(c, lin, 8, c->mmu);
        hi = x86_ld_slow(c, lin + 8, 8, c->mmu);
        same = lo == c->s.gpr[X86_RAX] && hi == c->s.gpr[X86_RDX];
        x86_st_slow(c, lin, same ? c->s.gpr[X86_RBX] : lo, 8, c->mmu);
        x86_st_slow(c, lin + 8, same ? c->s.gpr[X86_RCX] : hi, 8, c->mmu);
        x86_split_end(c);
    }
    set_zf(c, same);
    c->s.gpr[X86_RAX] = lo;
    c->s.gpr[X86_RDX] = hi;
}

bool x86_bind_cmpxchg_wide(struct x86_dec *d)
{
    d->i->fn = d->arg == 16 ? cmpxchg16b : cmpxchg8b;
    return x86_is_mem(d, 0);
}
