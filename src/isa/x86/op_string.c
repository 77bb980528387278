/*
 * op_string.c - MOVS CMPS SCAS STOS LODS, alone and repeated.
 *
 * A repeated instruction commits rSI, rDI and rCX after each step, so a fault leaves it
 * restartable. It works for a bounded time: with steps left, it sets RIP back to itself, and the
 * run loop gets a chance to take an interrupt, as between two iterations on a real CPU (SDM vol. 2,
 * REP).
 */
#include "isa/x86/op.h"

/* What one call may do, in bytes; a step that is not part of a bulk copy counts as STEP_COST. */
#define REP_BUDGET 65536
#define STEP_COST  64

/* Writes rSI, rDI or rCX in the width of the address size. */
static inline void put(struct x86_cpu *c, const struct x86_insn *i, unsigned r, uint64_t v)
{
    if (i->amask == 0xffff)
        x86_w16(c, r, (uint16_t)v);
    else
        c->s.gpr[r] = v & i->amask;
}

static inline void advance(struct x86_cpu *c, const struct x86_insn *i, unsigned r, unsigned size)
{
    uint64_t v = c->s.gpr[r];
    put(c, i, r, c->s.rflags & X86_FL_DF ? v - size : v + size);
}

static inline gva_t source(struct x86_cpu *c, const struct x86_insn *i, unsigned size)
{
    return x86_seg_lin(c, i->seg, c->s.gpr[X86_RSI] & i->amask, size, X86_SEGOK_R);
}

static inline gva_t dest(struct x86_cpu *c, const struct x86_insn *i, unsigned size, unsigned need)
{
    return x86_seg_lin(c, X86_ES, c->s.gpr[X86_RDI] & i->amask, size, need);
}

/* ---- one step ---- */

#define COMPARE(bits, sfx)                                                                       \
    static inline void compare##bits(struct x86_cpu *c, uint##bits##_t a, uint##bits##_t b)      \
    {                                                                                            \
        uint16_t fl;                                                                             \
        __asm__("cmp" sfx " %[b], %[a]" X86_HF_SAVE : "=a"(fl) : [a] "r"(a), [b] "r"(b) : "cc"); \
        c->fl = fl;                                                                              \
    }
#define STEPS(bits)                                                                              \
    static void movs##bits(struct x86_cpu *c, const struct x86_insn *i)                          \
    {                                                                                            \
        uint##bits##_t v = x86_ld##bits(c, source(c, i, (bits) / 8));                            \
        x86_st##bits(c, dest(c, i, (bits) / 8, X86_SEGOK_W), v);                                 \
        advance(c, i, X86_RSI, (bits) / 8);                                                      \
        advance(c, i, X86_RDI, (bits) / 8);                                                      \
    }                                                                                            \
    static void stos##bits(struct x86_cpu *c, const struct x86_insn *i)                          \
    {                                                                                            \
        x86_st##bits(c, dest(c, i, (bits) / 8, X86_SEGOK_W), (uint##bits##_t)c->s.gpr[X86_RAX]); \
        advance(c, i, X86_RDI, (bits) / 8);                                                      \
    }                                                                                            \
    static void lods##bits(struct x86_cpu *c, const struct x86_insn *i)                          \
    {                                                                                            \
        x86_w##bits(c, X86_RAX, x86_ld##bits(c, source(c, i, (bits) / 8)));                      \
        advance(c, i, X86_RSI, (bits) / 8);                                                      \
    }                                                                                            \
    static void cmps##bits(struct x86_cpu *c, const struct x86_insn *i)                          \
    {                                                                                            \
        uint##bits##_t b = x86_ld##bits(c, dest(c, i, (bits) / 8, X86_SEGOK_R));                 \
        uint##bits##_t a = x86_ld##bits(c, source(c, i, (bits) / 8));                            \
        compare##bits(c, a, b);                                                                  \
        advance(c, i, X86_RSI, (bits) / 8);                                                      \
        advance(c, i, X86_RDI, (bits) / 8);                                                      \
    }                                                                                            \
    static void scas##bits(struct x86_cpu *c, const struct x86_insn *i)                          \
    {                                                                                            \
        uint##bits##_t b = x86_ld##bits(c, dest(c, i, (bits) / 8, X86_SEGOK_R));                 \
        compare##bits(c, (uint##bits##_t)c->s.gpr[X86_RAX], b);                                  \
        advance(c, i, X86_RDI, (bits) / 8);                                                      \
    }

COMPARE(8, "b")
COMPARE(16, "w")
COMPARE(32, "l")
COMPARE(64, "q")
STEPS(8)
STEPS(16)
STEPS(32)
STEPS(64)

/* ---- bulk: as many elements as lie in the pages of RAM that rSI and rDI point to ---- */

/* Bytes from `ea` upward that neither leave the segment (whose rights and limit have been checked
 * for the first element) nor wrap around the address size. */
static uint64_t room_in_segment(const struct x86_cpu *c, const struct x86_insn *i, unsigned seg,
                                uint64_t ea, unsigned need)
{
    uint64_t room = i->amask - ea;
    if ((c->segc[seg].ok & need) == need)
        return room;
    const struct x86_seg *s = &c->s.seg[seg];
    if ((s->attr & (X86_TYPE_X | X86_TYPE_DC)) == X86_TYPE_DC || ea > s->limit)
        return 0; /* expands down */
    return min_u64(room, s->limit - ea + 1);
}

/* Copies elements upward with the host's REP MOVS, which treats overlap as the guest's does. */
static void host_movs(void *to, const void *from, uint64_t n, unsigned size)
{
    switch (size) {
    case 1:
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory");
        break;
    case 2:
        __asm__ volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(n)::"memory");
        break;
    case 4:
        __asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(n)::"memory");
        break;
    default:
        __asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n)::"memory");
    }
}

static void host_stos(void *to, uint64_t v, uint64_t n, unsigned size)
{
    switch (size) {
    case 1:
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(v) : "memory");
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(to), "+c"(n) : "a"(v) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(n) : "a"(v) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(v) : "memory");
    }
}

/* Bulk work is for the plain case: upward, and nothing to look for at each step. */
static inline bool bulk_allowed(const struct x86_cpu *c)
{
    return !(c->s.rflags & X86_FL_DF) && !c->slow;
}

/* Does up to `count` elements; returns how many, 0: take a single step. */
static uint64_t bulk_movs(struct x86_cpu *c, const struct x86_insn *i, uint64_t count,
                          unsigned size)
{
    unsigned sroom, droom;
    if (!bulk_allowed(c))
        return 0;
    uint64_t si = c->s.gpr[X86_RSI] & i->amask, di = c->s.gpr[X86_RDI] & i->amask;
    const void *from = x86_span_read(c, source(c, i, size), &sroom);
    if (!from)
        return 0;
    gva_t lin = dest(c, i, size, X86_SEGOK_W);
    void *to = x86_span_write(c, lin, &droom);
    if (!to)
        return 0;
    uint64_t bytes =
        min_u64(min_u64(sroom, droom), min_u64(room_in_segment(c, i, i->seg, si, X86_SEGOK_R),
                                               room_in_segment(c, i, X86_ES, di, X86_SEGOK_W)));
    uint64_t n = min_u64(count, bytes / size);
    if (!n)
        return 0;
    host_movs(to, from, n, size);
    x86_rmw_done(c, lin, to, (unsigned)(n * size));
    put(c, i, X86_RSI, si + n * size);
    put(c, i, X86_RDI, di + n * size);
    return n;
}

static uint64_t bulk_stos(struct x86_cpu *c, const struct x86_insn *i, uint64_t count,
                          unsigned size)
{
    unsigned room;
    if (!bulk_allowed(c))
        return 0;
    uint64_t di = c->s.gpr[X86_RDI] & i->amask;
    gva_t lin = dest(c, i, size, X86_SEGOK_W);
    void *to = x86_span_write(c, lin, &room);
    if (!to)
        return 0;
    uint64_t bytes = min_u64(room, room_in_segment(c, i, X86_ES, di, X86_SEGOK_W));
    uint64_t n = min_u64(count, bytes / size);
    if (!n)
        return 0;
    host_stos(to, c->s.gpr[X86_RAX], n, size);
    x86_rmw_done(c, lin, to, (unsigned)(n * size));
    put(c, i, X86_RDI, di + n * size);
    return n;
}

static uint64_t bulk_none(struct x86_cpu *c, const struct x86_insn *i, uint64_t count,
                          unsigned size)
{
    return 0;
}

/* ---- repetition ---- */

/* Steps are left: come back after the run loop has looked for interrupts and traps. */
static void come_back(struct x86_cpu *c)
{
    c->s.rip = x86_insn_rip(c);
}

static inline __attribute__((always_inline)) void
repeat(struct x86_cpu *c, const struct x86_insn *i, unsigned size, x86_op_fn step,
       uint64_t (*bulk)(struct x86_cpu *, const struct x86_insn *, uint64_t, unsigned))
{
    uint64_t count = c->s.gpr[X86_RCX] & i->amask, spent = 0;
    if (bulk != bulk_none && i->amask == 0xffffffff) { /* even if nothing is moved */
        c->s.gpr[X86_RDI] &= i->amask;
        if (bulk == bulk_movs)
            c->s.gpr[X86_RSI] &= i->amask;
    }
    while (count) {
        uint64_t n = bulk(c, i, min_u64(count, (REP_BUDGET - spent) / size), size);
        if (n) {
            spent += n * size;
        } else {
            step(c, i);
            n = 1;
            spent += STEP_COST;
        }
        count -= n;
        put(c, i, X86_RCX, count);
        if (spent >= REP_BUDGET || c->slow)
            break;
    }
    if (count)
        come_back(c);
}

/* CMPS and SCAS go on while ZF is as the prefix asks: `zf` is X86_HF_ZF for REPE, 0 for REPNE. What
 * interrupts them finds the flags as they were before the instruction (SDM vol. 2, REP). */
static inline __attribute__((always_inline)) void
repeat_while(struct x86_cpu *c, const struct x86_insn *i, x86_op_fn step, unsigned zf)
{
    uint64_t count = c->s.gpr[X86_RCX] & i->amask;
    uint16_t before = c->fl;
    for (unsigned spent = 0; count; spent += STEP_COST) {
        c->fl = before;
        if (spent >= REP_BUDGET || (spent && c->slow)) {
            come_back(c);
            return;
        }
        step(c, i);
        put(c, i, X86_RCX, --count);
        if ((c->fl & X86_HF_ZF) != zf)
            return;
    }
}

#define REPS(bits)                                                            \
    static void rep_movs##bits(struct x86_cpu *c, const struct x86_insn *i)   \
    {                                                                         \
        repeat(c, i, (bits) / 8, movs##bits, bulk_movs);                      \
    }                                                                         \
    static void rep_stos##bits(struct x86_cpu *c, const struct x86_insn *i)   \
    {                                                                         \
        repeat(c, i, (bits) / 8, stos##bits, bulk_stos);                      \
    }                                                                         \
    static void rep_lods##bits(struct x86_cpu *c, const struct x86_insn *i)   \
    {                                                                         \
        repeat(c, i, (bits) / 8, lods##bits, bulk_none);                      \
    }                                                                         \
    static void repe_cmps##bits(struct x86_cpu *c, const struct x86_insn *i)  \
    {                                                                         \
        repeat_while(c, i, cmps##bits, X86_HF_ZF);                            \
    }                                                                         \
    static void repne_cmps##bits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                         \
        repeat_while(c, i, cmps##bits, 0);                                    \
    }                                                                         \
    static void repe_scas##bits(struct x86_cpu *c, const struct x86_insn *i)  \
    {                                                                         \
        repeat_while(c, i, scas##bits, X86_HF_ZF);                            \
    }                                                                         \
    static void repne_scas##bits(struct x86_cpu *c, const struct x86_insn *i) \
    {                                                                         \
        repeat_while(c, i, scas##bits, 0);                                    \
    }
REPS(8)
REPS(16)
REPS(32)
REPS(64)

/* ---- binding ---- */

enum { MOVS, STOS, LODS, CMPS, SCAS };
enum { ONCE, REPNE, REPE };

/* The last of F2 and F3 counts; where ZF plays no role both mean REP. */
static unsigned rep_prefix(const struct x86_dec *d)
{
    unsigned rep = ONCE;
    for (unsigned n = 0; n < d->zi->raw.prefix_count; n++) {
        if (d->zi->raw.prefixes[n].value == 0xf2)
            rep = REPNE;
        else if (d->zi->raw.prefixes[n].value == 0xf3)
            rep = REPE;
    }
    return rep;
}

static bool bind_string(struct x86_dec *d)
{
#define SIZES(name)                           \
    {                                         \
        name##8, name##16, name##32, name##64 \
    }
    static const x86_op_fn fn[5][3][4] = {
        [MOVS] = {SIZES(movs), SIZES(rep_movs), SIZES(rep_movs)},
        [STOS] = {SIZES(stos), SIZES(rep_stos), SIZES(rep_stos)},
        [LODS] = {SIZES(lods), SIZES(rep_lods), SIZES(rep_lods)},
        [CMPS] = {SIZES(cmps), SIZES(repne_cmps), SIZES(repe_cmps)},
        [SCAS] = {SIZES(scas), SIZES(repne_scas), SIZES(repe_scas)},
    };
    /* MOVSD and CMPSD are SSE2 instructions, too. */
    if (d->zi->meta.category != ZYDIS_CATEGORY_STRINGOP)
        return x86_bind_native(d);
    unsigned rep = rep_prefix(d);
    if (rep != ONCE)
        d->i->flags |= X86_IF_END;
    d->i->fn = fn[d->arg][rep][x86_size_index(d->zi->operand_width)];
    return true;
}

const struct x86_bind_row x86_rows_string[] = {
    {ZYDIS_MNEMONIC_MOVSB, bind_string, MOVS},
    {ZYDIS_MNEMONIC_MOVSW, bind_string, MOVS},
    {ZYDIS_MNEMONIC_MOVSD, bind_string, MOVS},
    {ZYDIS_MNEMONIC_MOVSQ, bind_string, MOVS},
    {ZYDIS_MNEMONIC_STOSB, bind_string, STOS},
    {ZYDIS_MNEMONIC_STOSW, bind_string, STOS},
    {ZYDIS_MNEMONIC_STOSD, bind_string, STOS},
    {ZYDIS_MNEMONIC_STOSQ, bind_string, STOS},
    {ZYDIS_MNEMONIC_LODSB, bind_string, LODS},
    {ZYDIS_MNEMONIC_LODSW, bind_string, LODS},
    {ZYDIS_MNEMONIC_LODSD, bind_string, LODS},
    {ZYDIS_MNEMONIC_LODSQ, bind_string, LODS},
    {ZYDIS_MNEMONIC_CMPSB, bind_string, CMPS},
    {ZYDIS_MNEMONIC_CMPSW, bind_string, CMPS},
    {ZYDIS_MNEMONIC_CMPSD, bind_string, CMPS},
    {ZYDIS_MNEMONIC_CMPSQ, bind_string, CMPS},
    {ZYDIS_MNEMONIC_SCASB, bind_string, SCAS},
    {ZYDIS_MNEMONIC_SCASW, bind_string, SCAS},
    {ZYDIS_MNEMONIC_SCASD, bind_string, SCAS},
    {ZYDIS_MNEMONIC_SCASQ, bind_string, SCAS},
    {0, NULL, 0},
};
