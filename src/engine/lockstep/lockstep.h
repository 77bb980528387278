/*
 * lockstep.h - a debugging engine: every translation of the engine jit is compared with the
 * interpreter.
 *
 * A *pass* is one execution of a translation's straight path, up to where it branches away, ends or
 * faults. The interpreter makes the first pass: each of its stores is journaled. Then everything is
 * put back, the translation makes the second pass, and both ends must be the same: all of struct
 * x86_state, the exception, and memory around each store.
 *
 *   OFF -> INTERP -> (undo) -> JIT -> same: OFF, the vCPU goes on from here
 *           |                   `-> not the same: undo, once more; then the end
 *           `-> abandoned: undo; one engine alone executes it
 *
 * Invariants:
 *  1. Nothing that cannot be repeated happens in a pass: instructions with more effects than
 *     registers and memory begin a translation of their own (jit_tb.alone) and are not compared;
 *     device access (the bus) and stores to cached code abandon the pass before they happen.
 *  2. Unless the phase is FREE no TLB entry is writable, so that every store is seen, but for the
 *     pages of the journal in a JIT pass: there translated code stores as it always does.
 *  3. Accessed and dirty bits are not undone. A pass that has set any starts again, so that both
 *     passes find them set.
 *  4. Devices write to memory, and other threads to cpu->pending, in the middle of it all. Only a
 *     difference that stays the same when it is tried again counts.
 */
#ifndef SOSIA_ENGINE_LOCKSTEP_LOCKSTEP_H
#define SOSIA_ENGINE_LOCKSTEP_LOCKSTEP_H

#include <stdio.h>

#include "engine/jit/jit.h"

#define LOCKSTEP_STORES 512u /* of a pass; one that has more is abandoned */
#define LOCKSTEP_LINE   64u
#define LOCKSTEP_OPENED 256u

enum lockstep_phase {
    LOCKSTEP_FREE, /* nothing is compared */
    LOCKSTEP_OFF,
    LOCKSTEP_INTERP,
    LOCKSTEP_JIT,
};

/* How a pass ends; the values of sigsetjmp() are among them. */
enum lockstep_end {
    LOCKSTEP_DONE,
    LOCKSTEP_RAISED,    /* x86_raise() */
    LOCKSTEP_ABANDONED, /* it cannot be repeated */
    LOCKSTEP_AGAIN,
    LOCKSTEP_STRAY, /* the second pass touched what the first one had not */
};

struct lockstep_store {
    gva_t lin;
    uint64_t roff, old;
    uint8_t size, mmu;
};

/* What the first pass left around its stores. */
struct lockstep_line {
    uint64_t roff;
    gva_t lin;
    uint8_t bytes[LOCKSTEP_LINE];
};

struct lockstep_result {
    enum lockstep_end end;
    struct x86_state s; /* RFLAGS composed; RIP at a faulting instruction */
    uint8_t vector;     /* LOCKSTEP_RAISED: x86_cpu.exc */
    bool has_error, soft, trap;
    uint32_t error;
    uint64_t cr2, dr6;
};

struct lockstep {
    struct x86_observer observer;
    struct x86_cpu *c;
    struct x86_bus bus; /* the board's */
    enum lockstep_phase phase;
    sigjmp_buf *env; /* of the pass */

    struct x86_state start;
    uint16_t start_fl;
    uint64_t start_key[2]; /* jit_key, jit_key_global: translated code may change them, too */
    struct lockstep_result interp, jit;
    struct lockstep_store store[LOCKSTEP_STORES];
    unsigned nstore;
    struct lockstep_line line[2 * LOCKSTEP_STORES];
    unsigned nline;
    struct x86_tlbe *opened[LOCKSTEP_OPENED]; /* in phase FREE */
    unsigned nopened;                         /* more than LOCKSTEP_OPENED: any */
    unsigned limit;                           /* bytes of the translation to be executed at most */
    unsigned done; /* bytes of the translation that the first pass executed */
    gva_t stray;   /* LOCKSTEP_STRAY: linear or device address */

    uint32_t every, skip; /* translations: one of so many is compared; how many until then */
    uint64_t random;
    uint64_t compared, abandoned, repeated;
};

/* ---- passes.c ---- */
/* Executes the translation by the interpreter; may raise. */
void lockstep_interpret(struct x86_cpu *c, const struct jit_tb *tb);
/* LOCKSTEP_DONE, LOCKSTEP_RAISED: the vCPU is at the end of the translation. LOCKSTEP_AGAIN: it is
 * where it was, look it up once more. LOCKSTEP_ABANDONED: likewise, and it is not compared.
 * LOCKSTEP_STRAY: the engines differ. */
enum lockstep_end lockstep_compare(struct lockstep *l, const struct jit_tb *tb);

/* ---- journal.c ---- */
void lockstep_journal_init(struct lockstep *l);
void lockstep_bus_wrap(struct lockstep *l);
/* Ends the phase FREE: no page is writable on the fast path. */
void lockstep_close(struct lockstep *l);
/* Those of the journal are, or are not. */
void lockstep_open(struct lockstep *l, bool open);
void lockstep_keep_lines(struct lockstep *l);
void lockstep_undo(struct lockstep *l);
bool lockstep_memory_same(const struct lockstep *l);

/* ---- report.c ---- */
bool lockstep_state_same(const struct x86_state *a, const struct x86_state *b);
/* Lines `NAME: A, B` of what differs. */
void lockstep_print_state(FILE *f, const struct x86_state *a, const struct x86_state *b);
/* LOCKSTEP_SAME: apart from what is undefined, if `tb` is not NULL; LOCKSTEP_UNDEFINED: that may be
 * to blame. */
enum lockstep_verdict { LOCKSTEP_SAME, LOCKSTEP_UNDEFINED, LOCKSTEP_DIFFERENT };
enum lockstep_verdict lockstep_verdict(const struct lockstep *l, const struct jit_tb *tb);
/* To the log. */
void lockstep_report(const struct lockstep *l, const struct jit_tb *tb);

#endif
