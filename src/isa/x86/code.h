/*
 * code.h - decoded blocks: straight-line runs of instructions, cached by where their bytes lie in
 * RAM.
 *
 * Invariants: see ram.h (code tracking). A block lies within one page, unless it consists of a
 * single instruction that crosses into the next. A cache belongs to one vCPU; it is a
 * bump-allocated arena of bounded size that is emptied as a whole when full.
 */
#ifndef SOSIA_ISA_X86_CODE_H
#define SOSIA_ISA_X86_CODE_H

#include "isa/x86/cpu.h"
#include "isa/x86/insn.h"

#define X86_BLOCK_MAX 32 /* instructions */

/* A block that followed this one. The link holds while neither a translation of this vCPU nor any
 * cached code has changed since; then the address alone identifies the block. */
struct x86_link {
    uint64_t key;   /* linear address with CPL and code size mixed in */
    uint64_t epoch; /* x86_code_epoch() when the link was made */
    struct x86_block *to;
};

struct x86_block {
    struct x86_block *next; /* in its hash bucket */
    struct x86_link link[2];
    uint64_t key;       /* RAM offset of the first byte | code size in bits 62..63 */
    uint32_t gen, gen2; /* generations of the page(s) at decoding */
    uint64_t roff2;     /* RAM offset of the second page's start; only if `cross` */
    uint16_t count;     /* instructions */
    uint16_t len;       /* bytes */
    bool cross;
    uint8_t victim; /* the link that is replaced next */
    struct x86_insn insn[];
};

struct x86_code;

int x86_code_create(struct x86_cpu *c, uint64_t arena_size, struct error *e);
void x86_code_destroy(struct x86_cpu *c);
void x86_code_flush(struct x86_cpu *c);

/* The block that starts at RIP, decoded if need be. `from` (or NULL) is the block that ended there,
 * which may have been found by x86_code_find() or x86_code_next() since this vCPU last left its run
 * loop; it receives a link. Raises #PF, #GP (RIP beyond CS's limit). */
struct x86_block *x86_code_find(struct x86_cpu *c, struct x86_block *from);

/* Before code is looked up. */
static inline void x86_code_look(struct x86_cpu *c)
{
    c->code_seen = atomic_load_explicit(&c->ram->code_epoch, memory_order_acquire);
}

static inline uint64_t x86_code_epoch(const struct x86_cpu *c)
{
    return c->tlb.epoch + c->code_seen; /* both grow only: an equal sum means that neither did */
}

/* Canonical addresses have equal bits 47 to 63, so this is one-to-one. */
static inline uint64_t x86_link_key(const struct x86_cpu *c)
{
    return (c->s.rip + c->segc[X86_CS].base) ^ (uint64_t)c->cpl << 60 ^
           (uint64_t)c->code_size << 48;
}

/* As x86_code_find(), by the links of `from` if possible. */
static inline struct x86_block *x86_code_next(struct x86_cpu *c, struct x86_block *from)
{
    x86_code_look(c);
    uint64_t key = x86_link_key(c), epoch = x86_code_epoch(c);
    for (unsigned n = 0; n < 2; n++) {
        const struct x86_link *l = &from->link[n];
        if (LIKELY(l->key == key && l->epoch == epoch) &&
            LIKELY(c->cs_limit - c->s.rip >= l->to->len - 1u))
            return l->to;
    }
    return x86_code_find(c, from);
}

/* RAM offset of the code at linear address `lin`, with the rights of the running code. False: it is
 * not RAM or ROM, *gpa is set. Raises #PF, #GP (not canonical). */
bool x86_code_locate(struct x86_cpu *c, gva_t lin, uint64_t *roff, gpa_t *gpa);
/* Marks code, within one page, before it is read; from then on no vCPU's write to it passes
 * unnoticed. Returns the page's generation to remember. */
uint32_t x86_code_mark(struct x86_cpu *c, uint64_t roff, unsigned len);

/* Decodes one instruction of at most `avail` bytes. Returns its length, 0 if more bytes are needed,
 * and for an undefined or disabled one a length with i->fn set to raise #UD. `off` is its offset in
 * the block. */
unsigned x86_decode(struct x86_cpu *c, const uint8_t *bytes, unsigned avail, unsigned off,
                    struct x86_insn *i);
/* The same, and hands out what Zydis says; zi->mnemonic is INVALID if i->fn raises #UD. `op` has
 * ZYDIS_MAX_OPERAND_COUNT elements. */
unsigned x86_decode_full(struct x86_cpu *c, const uint8_t *bytes, unsigned avail, unsigned off,
                         struct x86_insn *i, ZydisDecodedInstruction *zi, ZydisDecodedOperand *op);

#endif
