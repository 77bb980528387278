/*
 * native.h - SIMD and x87 instructions executed on the host's own units.
 *
 * For each distinct instruction (its bytes, with the memory operand rewritten to [RSI]) a *stub* is
 * generated: it loads the registers which the instruction reads from the guest's state, executes
 * the instruction itself, and stores what it writes. The result is bit-exact by construction. Stubs
 * live in an arena of executable memory, one for each vCPU, that is emptied as a whole.
 *
 * Invariants:
 *  1. No page is writable and executable through one mapping: the arena is a memfd mapped twice.
 *  2. A stub calls nothing, and RSP is as at its entry whenever the guest's instruction runs, RDI
 *     being the vCPU. The signal handler relies on that to abandon a stub (see native.c).
 *  3. Between instructions the host's MXCSR and x87 unit are in their default state, and all guest
 *     state is in memory. The engine jit leaves the guest's x87 state in the unit (jit_x87_live)
 * but for instructions that access it.
 *  4. Guest bytes are copied into a stub only after Zydis has decoded them and x86_model_has_isa()
 *     has allowed them, and never with their own memory operand or general registers.
 */
#ifndef SOSIA_ISA_X86_NATIVE_H
#define SOSIA_ISA_X86_NATIVE_H

#include "base/error.h"
#include "isa/x86/cpu.h"
#include "isa/x86/insn.h"

#define X86_NATIVE_ARENA   MIB
#define X86_NATIVE_RESERVE (64 * KIB) /* enough for the stubs of several blocks */
#define X86_NATIVE_SLOTS   16384u     /* of the hash; a power of two */
#define X86_NATIVE_BUFFER  64u        /* bytes; the widest operand of a stub has 32 */

/* `mem` points to the memory operand. */
typedef void (*x86_stub_fn)(struct x86_cpu *c, void *mem);

/* What a stub is made of; all that its code depends on. */
struct x86_stub_key {
    uint8_t insn[15]; /* the rewritten instruction */
    uint8_t len;
    uint8_t rm, reg;  /* guest GPR numbers given by ModRM, or X86_REG_ZERO */
    uint8_t kind;     /* enum x86_stub_kind */
    uint8_t mem_read; /* has a memory operand that is read */
    uint8_t pad[4];
};

struct x86_native_slot {
    struct x86_stub_key key;
    uint32_t offset; /* of the stub in the arena; 0: free */
};

/* What lean x87 stubs are told (native_x87.c). */
struct x86_lean_env {
    uint16_t fcw;      /* the guest's, all errors masked */
    uint16_t unmasked; /* the errors that the guest does not mask */
    uint16_t host_fcw;
};

struct x86_native {
    uint8_t *rw, *rx; /* two mappings of the arena */
    uint32_t used;
    unsigned count; /* slots in use */
    unsigned flushes;
    int registered; /* index in the process-wide list of arenas, or -1 */
    struct x86_native_slot slot[X86_NATIVE_SLOTS];
    uint8_t buffer[X86_NATIVE_BUFFER] __attribute__((aligned(64)));

    struct x86_lean_env lean;
    /* In what hosts differ: probe_x87(). */
    bool fop_always, fdp_always; /* updated by instructions that meet no error, too */
    bool pointers_hidden;        /* FXSAVE shows FOP, FIP, FDP as zero unless an error is pending */
    bool fcomi_clears_c1;
};

/* ERR_NOMEM, ERR_HOST (no executable memory, or the host lacks FXSR or SSE2), ERR_LIMIT (more than
 * 256 vCPUs). Also resets the FPU-related host values in c->s.fpu that a guest may not choose
 * (MXCSR_MASK). */
int x86_native_create(struct x86_cpu *c, struct error *e);
void x86_native_destroy(struct x86_cpu *c);

/* Forgets all stubs; every decoded block must be dropped with them. */
void x86_native_flush(struct x86_cpu *c);

/* The decoder must flush before it decodes another block. */
bool x86_native_full(const struct x86_cpu *c);

/* While IGNNE# is asserted unmasked x87 errors are ignored; it is withdrawn by the processor itself
 * as soon as no error is pending any more. */
void x86_set_ignne(struct x86_cpu *c, bool level);

/* native_isa.c: may the guest use this instruction-set extension? */
struct x86_model;
bool x86_model_has_isa(const struct x86_model *m, ZydisISAExt ext, ZydisISASet set);

/* ---- between the native_*.c and op_fpu/simd files ---- */

enum x86_stub_kind { X86_STUB_SSE, X86_STUB_AVX, X86_STUB_MMX, X86_STUB_X87, X86_STUB_X87_LEAN };

/* native.c: the stub with this key, or NULL. native_add copies `code` into the arena; NULL if it is
 * full. */
x86_stub_fn x86_native_find(struct x86_cpu *c, const struct x86_stub_key *k);
x86_stub_fn x86_native_add(struct x86_cpu *c, const struct x86_stub_key *k, const uint8_t *code,
                           unsigned len);
/* Address of the arena's constant 0x1f80, for [RIP+disp32] in a stub that will lie at arena offset
 * `at`. */
#define X86_NATIVE_MXCSR_OFFSET 0u

/* native_emit.c: the key (rewritten instruction) of a decoded one; false if it cannot be run by a
 * stub. */
bool x86_native_key(const struct x86_dec *d, enum x86_stub_kind kind, struct x86_stub_key *k);
/* The stub's code; returns its length (at most X86_STUB_MAX). `at`: its future offset in the arena.
 */
#define X86_STUB_MAX 512u
unsigned x86_native_emit(const struct x86_dec *d, const struct x86_stub_key *k, uint32_t at,
                         uint8_t *out);

/* native_x87.c: chooses the runner of an x87 instruction, `full` being the stub that works on the
 * whole x87 state. */
bool x86_bind_x87(struct x86_dec *d, x86_stub_fn full, bool store);

/* op_simd.c, op_vmask.c: plain moves, masked moves and gathers in C. False: not one of them. */
bool x86_bind_simd_move(struct x86_dec *d);
bool x86_bind_masked(struct x86_dec *d);

/* ---- availability (native_check.c): each raises #UD or #NM if the class of instruction cannot be
 * used now ---- */
_Noreturn void x86_sse_fault(struct x86_cpu *c);
_Noreturn void x86_avx_fault(struct x86_cpu *c);
_Noreturn void x86_fpu_fault(struct x86_cpu *c);
_Noreturn void x86_mmx_fault(struct x86_cpu *c);

static inline void x86_sse_check(struct x86_cpu *c)
{
    if (UNLIKELY((c->s.cr0 & (X86_CR0_EM | X86_CR0_TS)) || !(c->s.cr4 & X86_CR4_OSFXSR)))
        x86_sse_fault(c);
}

static inline void x86_avx_check(struct x86_cpu *c)
{
    const uint64_t need = X86_XCR0_SSE | X86_XCR0_AVX;
    if (UNLIKELY((c->s.cr0 & X86_CR0_TS) || !(c->s.cr4 & X86_CR4_OSXSAVE) ||
                 (c->s.xcr0 & need) != need || !c->protected_mode))
        x86_avx_fault(c);
}

/* x87, but not whether an error is pending */
static inline void x86_fpu_check(struct x86_cpu *c)
{
    if (UNLIKELY(c->s.cr0 & (X86_CR0_EM | X86_CR0_TS)))
        x86_fpu_fault(c);
}

static inline void x86_mmx_check(struct x86_cpu *c)
{
    if (UNLIKELY(c->s.cr0 & (X86_CR0_EM | X86_CR0_TS)))
        x86_mmx_fault(c);
}

/* ---- x87 status ---- */
#define X86_FSW_ES     0x80u
#define X86_FSW_B      0x8000u
#define X86_FSW_TOP_SH 11

/* For waiting x87 and MMX instructions: reports a pending unmasked error. Returns true if the
 * instruction may run; false: FERR# is asserted and the processor waits for the interrupt,
 * re-executing the instruction; the caller returns at once. Raises #MF if CR0.NE = 1. */
bool x86_fpu_error_pending(struct x86_cpu *c, const struct x86_insn *i);
static inline bool x86_fpu_wait(struct x86_cpu *c, const struct x86_insn *i)
{
    return LIKELY(!(c->s.fpu.fsw & X86_FSW_ES)) || x86_fpu_error_pending(c, i);
}
/* Sets ES and B from the error flags and FCW's masks, and FERR# with them; call after either
 * changed. */
void x86_fpu_update_es(struct x86_cpu *c);

/* Changes TOP. The image holds the registers in stack order, so that it is rotated: MMn is physical
 * register n and stays what it was. */
void x86_fpu_set_top(struct x86_cpu *c, unsigned top);

/* Puts the x87 unit into the state MMX instructions leave: TOP = 0, all registers valid. */
void x86_mmx_enter_slow(struct x86_cpu *c);
static inline void x86_mmx_enter(struct x86_cpu *c)
{
    if (UNLIKELY((c->s.fpu.fsw & (7u << X86_FSW_TOP_SH)) || c->s.fpu.ftw != 0xff))
        x86_mmx_enter_slow(c);
}

#endif
