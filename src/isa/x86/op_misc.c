/*
 * op_misc.c - flag instructions, decimal adjustment, NOPs and hints, cache-line and ordering
 * instructions, random numbers, RDPID.
 */
#include "isa/x86/cpuid.h"
#include "isa/x86/op.h"

#include <sched.h>

#define PAUSES_TO_YIELD 32

/* ---- LAHF SAHF CLC STC CMC CLD STD SALC ---- */

static void lahf(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_w8(c, 1, (uint8_t)(x86_arith_flags(c) | X86_FL_R1));
}
static void sahf(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_set_arith_flags(c, x86_r8(c, 1) | (c->fl & X86_HF_OF ? X86_FL_OF : 0));
}
static void clc(struct x86_cpu *c, const struct x86_insn *i)
{
    c->fl &= (uint16_t)~X86_HF_CF;
}
static void stc(struct x86_cpu *c, const struct x86_insn *i)
{
    c->fl |= X86_HF_CF;
}
static void cmc(struct x86_cpu *c, const struct x86_insn *i)
{
    c->fl ^= X86_HF_CF;
}
static void cld(struct x86_cpu *c, const struct x86_insn *i)
{
    c->s.rflags &= ~(uint64_t)X86_FL_DF;
}
static void std(struct x86_cpu *c, const struct x86_insn *i)
{
    c->s.rflags |= X86_FL_DF;
}
/* D6, not in 64-bit mode: AL becomes 0 or FF as CF says. */
static void salc(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_w8(c, 0, X86_CC_B(c->fl) ? 0xff : 0);
}

/* ---- AAA AAS DAA DAS (not in 64-bit mode; SDM vol. 2) ---- */

/* SF ZF PF as of AL, OF clear. */
static void set_bcd_flags(struct x86_cpu *c, uint8_t al, bool af, bool cf)
{
    uint16_t fl;
    __asm__("testb %[a], %[a]" X86_HF_SAVE : "=a"(fl) : [a] "r"(al) : "cc");
    fl &= (uint16_t) ~(X86_HF_AF | X86_HF_CF);
    c->fl = (uint16_t)(fl | (af ? X86_HF_AF : 0) | (cf ? X86_HF_CF : 0));
}

static bool low_digit_over(const struct x86_cpu *c)
{
    return (x86_r8(c, 0) & 0x0f) > 9 || (c->fl & X86_HF_AF);
}

static void ascii_adjust(struct x86_cpu *c, unsigned addend)
{
    bool over = low_digit_over(c);
    unsigned ax = x86_r16(c, X86_RAX) + (over ? addend : 0);
    x86_w16(c, X86_RAX, (uint16_t)(ax & 0xff0f));
    set_bcd_flags(c, (uint8_t)(ax & 0x0f), over, over);
}
static void aaa(struct x86_cpu *c, const struct x86_insn *i)
{
    ascii_adjust(c, 0x106);
}
static void aas(struct x86_cpu *c, const struct x86_insn *i)
{
    ascii_adjust(c, -0x106u);
}

static void daa(struct x86_cpu *c, const struct x86_insn *i)
{
    uint8_t old = x86_r8(c, 0), al = old;
    bool af = low_digit_over(c), cf = old > 0x99 || (c->fl & X86_HF_CF);
    if (af)
        al = (uint8_t)(al + 6);
    if (cf)
        al = (uint8_t)(al + 0x60);
    x86_w8(c, 0, al);
    set_bcd_flags(c, al, af, cf);
}
static void das(struct x86_cpu *c, const struct x86_insn *i)
{
    uint8_t old = x86_r8(c, 0), al = old;
    bool af = low_digit_over(c), high = old > 0x99 || (c->fl & X86_HF_CF);
    bool cf = high || (af && old < 6); /* the borrow of the first subtraction */
    if (af)
        al = (uint8_t)(al - 6);
    if (high)
        al = (uint8_t)(al - 0x60);
    x86_w8(c, 0, al);
    set_bcd_flags(c, al, af, cf);
}

/* ---- hints, cache lines, ordering ---- */

static void nop(struct x86_cpu *c, const struct x86_insn *i)
{
}
/* A guest that spins may wait for a vCPU which the host does not run for want of processors. */
static void pause_spin(struct x86_cpu *c, const struct x86_insn *i)
{
    if (c->ncpus > 1 && ++c->pauses % PAUSES_TO_YIELD == 0)
        sched_yield();
    else
        __builtin_ia32_pause();
}
/* Caches are coherent with RAM: nothing is to be written back, but the address must be readable. */
static void clflush(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_ld8(c, x86_lin_r(c, i, 1));
}
static void lfence(struct x86_cpu *c, const struct x86_insn *i)
{
    __asm__ volatile("lfence" ::: "memory");
}
static void sfence(struct x86_cpu *c, const struct x86_insn *i)
{
    __asm__ volatile("sfence" ::: "memory");
}
static void mfence(struct x86_cpu *c, const struct x86_insn *i)
{
    __asm__ volatile("mfence" ::: "memory");
}

/* ---- RDRAND RDSEED: CF says whether there was a number; the other flags are cleared ---- */

#define RANDOM(op, bits)                                                         \
    static void op##bits(struct x86_cpu *c, const struct x86_insn *i)            \
    {                                                                            \
        uint##bits##_t v;                                                        \
        uint16_t fl;                                                             \
        __asm__ volatile(#op " %[v]" X86_HF_SAVE : [v] "=r"(v), "=a"(fl)::"cc"); \
        c->fl = fl;                                                              \
        x86_w##bits(c, i->dst, v);                                               \
    }
RANDOM(rdrand, 16)
RANDOM(rdrand, 32)
RANDOM(rdrand, 64)
RANDOM(rdseed, 16)
RANDOM(rdseed, 32)
RANDOM(rdseed, 64)

static bool bind_random(struct x86_dec *d)
{
    static const x86_op_fn rand[] = {NULL, rdrand16, rdrand32, rdrand64};
    static const x86_op_fn seed[] = {NULL, rdseed16, rdseed32, rdseed64};
    if (!x86_host_has(d->arg ? X86_HAS_RDSEED : X86_HAS_RDRAND))
        return false;
    x86_bind_regs(d);
    d->i->fn = (d->arg ? seed : rand)[x86_size_index(d->op[0].size)];
    return true;
}

/* The register is 64 bits wide in 64-bit mode, else 32: its upper half does no harm there. */
static void rdpid(struct x86_cpu *c, const struct x86_insn *i)
{
    x86_w64(c, i->dst, (uint32_t)c->s.tsc_aux);
}

/* ---- binding ---- */

enum misc {
    OP_LAHF,
    OP_SAHF,
    OP_CLC,
    OP_STC,
    OP_CMC,
    OP_CLD,
    OP_STD,
    OP_SALC,
    OP_AAA,
    OP_AAS,
    OP_DAA,
    OP_DAS,
    OP_NOP,
    OP_CLFLUSH,
    OP_LFENCE,
    OP_SFENCE,
    OP_MFENCE,
    OP_RDPID,
};

static bool bind_misc(struct x86_dec *d)
{
    static const x86_op_fn fn[] = {
        [OP_LAHF] = lahf,     [OP_SAHF] = sahf,       [OP_CLC] = clc,       [OP_STC] = stc,
        [OP_CMC] = cmc,       [OP_CLD] = cld,         [OP_STD] = std,       [OP_SALC] = salc,
        [OP_AAA] = aaa,       [OP_AAS] = aas,         [OP_DAA] = daa,       [OP_DAS] = das,
        [OP_NOP] = nop,       [OP_CLFLUSH] = clflush, [OP_LFENCE] = lfence, [OP_SFENCE] = sfence,
        [OP_MFENCE] = mfence, [OP_RDPID] = rdpid,
    };
    x86_bind_regs(d);
    d->i->fn = fn[d->arg];
    return true;
}

/* A vCPU that spins gives the run loop a chance to look around. */
static bool bind_pause(struct x86_dec *d)
{
    return x86_bind_end(d, pause_spin);
}

const struct x86_bind_row x86_rows_misc[] = {
    {ZYDIS_MNEMONIC_LAHF, bind_misc, OP_LAHF},
    {ZYDIS_MNEMONIC_SAHF, bind_misc, OP_SAHF},
    {ZYDIS_MNEMONIC_CLC, bind_misc, OP_CLC},
    {ZYDIS_MNEMONIC_STC, bind_misc, OP_STC},
    {ZYDIS_MNEMONIC_CMC, bind_misc, OP_CMC},
    {ZYDIS_MNEMONIC_CLD, bind_misc, OP_CLD},
    {ZYDIS_MNEMONIC_STD, bind_misc, OP_STD},
    {ZYDIS_MNEMONIC_SALC, bind_misc, OP_SALC},
    {ZYDIS_MNEMONIC_AAA, bind_misc, OP_AAA},
    {ZYDIS_MNEMONIC_AAS, bind_misc, OP_AAS},
    {ZYDIS_MNEMONIC_DAA, bind_misc, OP_DAA},
    {ZYDIS_MNEMONIC_DAS, bind_misc, OP_DAS},
    {ZYDIS_MNEMONIC_NOP, bind_misc, OP_NOP},
    {ZYDIS_MNEMONIC_ENDBR32, bind_misc, OP_NOP},
    {ZYDIS_MNEMONIC_ENDBR64, bind_misc, OP_NOP},
    {ZYDIS_MNEMONIC_PREFETCH, bind_misc, OP_NOP},
    {ZYDIS_MNEMONIC_PREFETCHNTA, bind_misc, OP_NOP},
    {ZYDIS_MNEMONIC_PREFETCHT0, bind_misc, OP_NOP},
    {ZYDIS_MNEMONIC_PREFETCHT1, bind_misc, OP_NOP},
    {ZYDIS_MNEMONIC_PREFETCHT2, bind_misc, OP_NOP},
    {ZYDIS_MNEMONIC_PREFETCHW, bind_misc, OP_NOP},
    {ZYDIS_MNEMONIC_PREFETCHWT1, bind_misc, OP_NOP},
    {ZYDIS_MNEMONIC_PAUSE, bind_pause, 0},
    {ZYDIS_MNEMONIC_CLFLUSH, bind_misc, OP_CLFLUSH},
    {ZYDIS_MNEMONIC_CLFLUSHOPT, bind_misc, OP_CLFLUSH},
    {ZYDIS_MNEMONIC_CLWB, bind_misc, OP_CLFLUSH},
    {ZYDIS_MNEMONIC_LFENCE, bind_misc, OP_LFENCE},
    {ZYDIS_MNEMONIC_SFENCE, bind_misc, OP_SFENCE},
    {ZYDIS_MNEMONIC_MFENCE, bind_misc, OP_MFENCE},
    {ZYDIS_MNEMONIC_RDRAND, bind_random, 0},
    {ZYDIS_MNEMONIC_RDSEED, bind_random, 1},
    {ZYDIS_MNEMONIC_RDPID, bind_misc, OP_RDPID},
    {0, NULL, 0},
};
