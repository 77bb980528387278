/*
 * insn.h - a decoded instruction, ready to execute, and how a Zydis decoding becomes one.
 *
 * Decoding has two steps. decode.c runs Zydis and fills in what all instructions share (address
 * operand, lengths, prefixes). Then the mnemonic's *binder* chooses the semantic function by
 * operand kinds and sizes and fills in the operands. Binders are listed in tables, one for each
 * op_*.c file.
 */
#ifndef SOSIA_ISA_X86_INSN_H
#define SOSIA_ISA_X86_INSN_H

#include <Zydis/Zydis.h>

#include "base/types.h"

struct x86_cpu;
struct x86_insn;

/* Executes the instruction: all its effects but advancing RIP, which the engine has done for the
 * whole block. */
typedef void (*x86_op_fn)(struct x86_cpu *c, const struct x86_insn *i);

struct x86_insn {
    x86_op_fn fn;
    uint64_t amask; /* address-size mask of the memory operand (and of string operations) */
    int64_t disp;   /* for RIP-relative operands relative to the block's RIP */
    uint64_t
        imm; /* immediate, sign-extended to 64 bits; branches: target relative to the block's RIP */
    uint8_t base, index, scale; /* memory operand: register numbers (X86_REG_ZERO: none), shift */
    uint8_t seg;                /* enum x86_segreg */
    uint8_t dst, src, src2; /* registers: number, or byte offset into gpr[] for 8-bit operands */
    uint8_t len;            /* bytes */
    uint16_t end;           /* offset of the byte behind it, from the block's start */
    uint8_t flags;          /* X86_IF_* */
    uint8_t osize;          /* operand size in bytes: 2, 4, 8 (1 where the opcode says so) */
    uint16_t aux;           /* the binder's */
    uint16_t mnemonic;      /* ZydisMnemonic */
    void *ext;              /* the binder's: e.g. a native stub */
};

#define X86_IF_LOCK  1u
#define X86_IF_REP   2u  /* F3 */
#define X86_IF_REPNE 4u  /* F2 */
#define X86_IF_MEM   8u  /* has a memory operand in base/index/scale/disp/seg */
#define X86_IF_END   16u /* ends the block: it may change RIP, mode, mappings, or interrupt state */
#define X86_IF_A16   32u /* address size 16 (string, LOOP, JCXZ) */
#define X86_IF_A32   64u

struct x86_dec {
    const ZydisDecodedInstruction *zi;
    const ZydisDecodedOperand *op; /* the visible ones first, then the implicit ones */
    const uint8_t *bytes;          /* zi->length of them */
    unsigned code_size;            /* 16, 32, 64 */
    struct x86_cpu *c;
    struct x86_insn *i;
    unsigned arg; /* from the table row */
};

/* Sets i->fn and operands. False: this form does not exist on our CPU (#UD). */
typedef bool (*x86_bind_fn)(struct x86_dec *d);

struct x86_bind_row {
    ZydisMnemonic mnemonic;
    x86_bind_fn bind;
    unsigned arg;
};
/* Tables end with bind == NULL. A mnemonic in no table goes to x86_bind_native (SIMD, x87) or is
 * #UD. */
extern const struct x86_bind_row x86_rows_alu[], x86_rows_mov[], x86_rows_shift[], x86_rows_bit[],
    x86_rows_muldiv[], x86_rows_string[], x86_rows_flow[], x86_rows_misc[], x86_rows_sys[],
    x86_rows_far[], x86_rows_fpu[];
bool x86_bind_native(struct x86_dec *d);

/* ---- for binders (decode.c) ---- */
bool x86_is_reg(const struct x86_dec *d, unsigned n);
bool x86_is_mem(const struct x86_dec *d, unsigned n);
bool x86_is_imm(const struct x86_dec *d, unsigned n);
/* GPR operand n as dst/src hold it: byte offset if it is 8 bits wide, else the number. */
uint8_t x86_reg_code(const struct x86_dec *d, unsigned n);
/* Index of a size in function tables: 1, 2, 4, 8 bytes -> 0, 1, 2, 3. */
static inline unsigned x86_size_index(unsigned bits)
{
    return bits == 8 ? 0 : bits == 16 ? 1 : bits == 32 ? 2 : 3;
}

#endif
