/*
 * asm.h - writes host instructions.
 *
 * An operand is a host register or a memory reference; references with `gs` are relative to the
 * vCPU (struct x86_cpu), whose address is the GS base while translated code runs. The buffer never
 * overflows: what does not fit is dropped and `full` says so.
 */
#ifndef SOSIA_ENGINE_JIT_ASM_H
#define SOSIA_ENGINE_JIT_ASM_H

#include "base/types.h"

enum hreg {
    H_RAX,
    H_RCX,
    H_RDX,
    H_RBX,
    H_RSP,
    H_RBP,
    H_RSI,
    H_RDI,
    H_R8,
    H_R9,
    H_R10,
    H_R11,
    H_R12,
    H_R13,
    H_R14,
    H_R15,
    H_NONE = 0xff,
};

struct asm_buf {
    uint8_t *start, *p, *end;
    bool full;
};

struct opnd {
    bool mem, gs;
    uint8_t reg;                /* of a register operand */
    uint8_t base, index, scale; /* of a memory operand; H_NONE: absent. scale is a shift */
    int32_t disp;
};

#define OP_REG(r)    ((struct opnd){.reg = (r)})
#define OP_MEM(b, d) ((struct opnd){.mem = true, .base = (b), .index = H_NONE, .disp = (d)})
#define OP_SIB(b, i, s, d) \
    ((struct opnd){.mem = true, .base = (b), .index = (i), .scale = (s), .disp = (d)})
#define OP_GS(d) \
    ((struct opnd){.mem = true, .gs = true, .base = H_NONE, .index = H_NONE, .disp = (d)})
#define OP_GSR(r, d) \
    ((struct opnd){.mem = true, .gs = true, .base = (r), .index = H_NONE, .disp = (d)})

/* Everything of an instruction in front of its ModRM byte. */
struct opcode {
    uint8_t op;
    uint8_t map;            /* 0: one byte, 1: 0F, 2: 0F 38, 3: 0F 3A */
    uint8_t prefix;         /* 66, F2, F3 or 0: mandatory, or the operand size */
    bool w;                 /* REX.W or VEX.W */
    bool lock, opsize;      /* F0; 66 beside another prefix */
    bool byte_reg, byte_rm; /* registers of 8 bits: 4..7 need a REX prefix to be SPL.. */
    bool vex, l;            /* VEX encoding, with VEX.L */
    uint8_t vvvv;           /* VEX: host register number, 0 if unused */
};

void asm_u8(struct asm_buf *b, uint8_t v);
void asm_u32(struct asm_buf *b, uint32_t v);
void asm_u64(struct asm_buf *b, uint64_t v);
void asm_bytes(struct asm_buf *b, const void *p, unsigned n);

/* Prefixes, opcode, ModRM and displacement; immediates are written behind it by the caller. */
void asm_insn(struct asm_buf *b, struct opcode o, unsigned reg, struct opnd rm);

/* ---- what the translator writes itself ---- */

void asm_mov_rr(struct asm_buf *b, unsigned dst, unsigned src); /* 64 bits */
void asm_mov_rr32(struct asm_buf *b, unsigned dst, unsigned src);
void asm_load(struct asm_buf *b, unsigned dst, struct opnd m, unsigned size); /* zero-extends */
void asm_store(struct asm_buf *b, struct opnd m, unsigned src, unsigned size);
void asm_store_imm(struct asm_buf *b, struct opnd m, int32_t imm, unsigned size);
void asm_mov_imm(struct asm_buf *b, unsigned dst, uint64_t imm); /* no flags */
void asm_lea(struct asm_buf *b, unsigned dst, struct opnd m, unsigned size);
enum asm_alu { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };
void asm_alu_imm(struct asm_buf *b, enum asm_alu op, struct opnd rm, int32_t imm, unsigned size);
/* dst op= m */
void asm_alu(struct asm_buf *b, enum asm_alu op, unsigned dst, struct opnd m, unsigned size);

enum asm_cc { CC_O, CC_NO, CC_B, CC_NB, CC_Z, CC_NZ, CC_BE, CC_NBE, CC_S, CC_NS };
/* With `to`, the shortest form. Without, a 32-bit displacement for asm_patch(): they return its
 * place. */
uint8_t *asm_jcc(struct asm_buf *b, unsigned cc, const uint8_t *to);
uint8_t *asm_jmp(struct asm_buf *b, const uint8_t *to);
uint8_t *asm_call(struct asm_buf *b, const uint8_t *to);
void asm_jmp_opnd(struct asm_buf *b, struct opnd rm);
void asm_call_opnd(struct asm_buf *b, struct opnd rm);
/* Makes the displacement at `at` (which may be NULL: dropped) lead to `to`. */
void asm_patch(uint8_t *at, const uint8_t *to);
/* Jumps to one place that is not known yet. */
#define ASM_JUMPS 16u
struct asm_jumps {
    uint8_t *site[ASM_JUMPS];
    unsigned n; /* not more than ASM_JUMPS */
};
void asm_jcc_to(struct asm_buf *b, unsigned cc, struct asm_jumps *j);
void asm_jumps_here(struct asm_buf *b, const struct asm_jumps *j);

/* The guest's arithmetic flags between EFLAGS and struct x86_cpu's `fl`; RAX is lost. */
void asm_flags_save(struct asm_buf *b, int32_t fl);
void asm_flags_load(struct asm_buf *b, int32_t fl);

#endif
