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

struct x86_block {
    struct x86_block *next; /* in its hash bucket */
    uint64_t key;           /* RAM offset of the first byte | code size in bits 62..63 */
    uint32_t gen, gen2;     /* generations of the page(s) at decoding */
    uint64_t roff2;         /* RAM offset of the second page's start; only if `cross` */
    uint16_t count;         /* instructions */
    uint16_t len;           /* bytes */
    bool cross;
    struct x86_insn insn[];
};

struct x86_code;

int x86_code_create(struct x86_cpu *c, uint64_t arena_size, struct error *e);
void x86_code_destroy(struct x86_cpu *c);
void x86_code_flush(struct x86_cpu *c);

/* The block that starts at RIP, decoded if need be. Raises #PF, #GP (RIP beyond CS's limit). */
const struct x86_block *x86_code_find(struct x86_cpu *c);

/* Decodes one instruction of at most `avail` bytes. Returns its length, 0 if more bytes are needed,
 * and for an undefined or disabled one a length with i->fn set to raise #UD. `off` is its offset in
 * the block. */
unsigned x86_decode(struct x86_cpu *c, const uint8_t *bytes, unsigned avail, unsigned off,
                    struct x86_insn *i);

#endif
