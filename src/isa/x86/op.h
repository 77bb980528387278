/*
 * op.h - what the files of instruction semantics (op_*.c) share.
 *
 * Arithmetic is done by the host's own instruction, so that results and flags, the undefined ones
 * included, are those of a real CPU. Around it, in inline assembly, c->fl travels in AX.
 */
#ifndef SOSIA_ISA_X86_OP_H
#define SOSIA_ISA_X86_OP_H

#include "isa/x86/access.h"
#include "isa/x86/insn.h"

/* ---- host flags in inline assembly: c->fl is in AX ---- */

/* AL is OF: 1 + 127 overflows, 0 + 127 does not. SAHF leaves OF alone. */
#define X86_HF_LOAD    "addb $0x7f, %%al\n\tsahf\n\t"
#define X86_HF_LOAD_CF "btw $8, %%ax\n\t"
#define X86_HF_SAVE    "\n\tlahf\n\tseto %%al"

#define X86_HF_CF 0x0100u
#define X86_HF_PF 0x0400u
#define X86_HF_AF 0x1000u
#define X86_HF_ZF 0x4000u
#define X86_HF_SF 0x8000u
#define X86_HF_OF 0x0001u

/* Guest memory as an operand of a host instruction: any alignment, any type. */
typedef uint8_t __attribute__((may_alias)) x86_mem8;
typedef uint16_t __attribute__((may_alias, aligned(1))) x86_mem16;
typedef uint32_t __attribute__((may_alias, aligned(1))) x86_mem32;
typedef uint64_t __attribute__((may_alias, aligned(1))) x86_mem64;

/* ---- conditions, by the low four bits of the opcode (SDM vol. 1, appendix B) ---- */

#define X86_CC_O(f)   ((f)&X86_HF_OF)
#define X86_CC_NO(f)  (!X86_CC_O(f))
#define X86_CC_B(f)   ((f)&X86_HF_CF)
#define X86_CC_NB(f)  (!X86_CC_B(f))
#define X86_CC_Z(f)   ((f)&X86_HF_ZF)
#define X86_CC_NZ(f)  (!X86_CC_Z(f))
#define X86_CC_BE(f)  ((f) & (X86_HF_CF | X86_HF_ZF))
#define X86_CC_NBE(f) (!X86_CC_BE(f))
#define X86_CC_S(f)   ((f)&X86_HF_SF)
#define X86_CC_NS(f)  (!X86_CC_S(f))
#define X86_CC_P(f)   ((f)&X86_HF_PF)
#define X86_CC_NP(f)  (!X86_CC_P(f))
#define X86_CC_L(f)   ((((f) >> 15) ^ (f)) & 1)
#define X86_CC_NL(f)  (!X86_CC_L(f))
#define X86_CC_LE(f)  (X86_CC_L(f) || X86_CC_Z(f))
#define X86_CC_NLE(f) (!X86_CC_LE(f))

#define X86_EACH_CC(X) \
    X(O) X(NO) X(B) X(NB) X(Z) X(NZ) X(BE) X(NBE) X(S) X(NS) X(P) X(NP) X(L) X(NL) X(LE) X(NLE)

/* ---- read-modify-write of a memory operand ----
 * `direct` works on the host pointer p, `indirect` turns the value `old` into what is stored. */
#define X86_RMW(c, lin, bits, direct, indirect)                                           \
    do {                                                                                  \
        void *p = x86_rmw_ptr(c, lin, (bits) / 8);                                        \
        if (LIKELY(p != NULL)) {                                                          \
            direct;                                                                       \
            x86_rmw_done(c, lin, p, (bits) / 8);                                          \
        } else {                                                                          \
            x86_split_begin(c);                                                           \
            uint##bits##_t old = (uint##bits##_t)x86_ld_slow(c, lin, (bits) / 8, c->mmu); \
            x86_st_slow(c, lin, indirect, (bits) / 8, c->mmu);                            \
            x86_split_end(c);                                                             \
        }                                                                                 \
    } while (0)

/* ---- binding ---- */

/* Fills dst and src from the first two visible operands: dst is operand 0 if it is a register; src
 * is operand 1 if that is one. */
static inline void x86_bind_regs(struct x86_dec *d)
{
    if (x86_is_reg(d, 0))
        d->i->dst = x86_reg_code(d, 0);
    if (d->zi->operand_count > 1 && x86_is_reg(d, 1))
        d->i->src = x86_reg_code(d, 1);
}

static inline bool x86_is_locked(const struct x86_dec *d)
{
    return d->i->flags & X86_IF_LOCK;
}

/* An instruction that ends its block. */
static inline bool x86_bind_end(struct x86_dec *d, x86_op_fn fn)
{
    d->i->flags |= X86_IF_END;
    d->i->fn = fn;
    return true;
}

/* Operand n is a segment, control or debug register, i.e. not a GPR. */
static inline bool x86_is_sysreg(const struct x86_dec *d, unsigned n)
{
    if (!x86_is_reg(d, n))
        return false;
    switch (ZydisRegisterGetClass(d->op[n].reg.value)) {
    case ZYDIS_REGCLASS_SEGMENT:
    case ZYDIS_REGCLASS_CONTROL:
    case ZYDIS_REGCLASS_DEBUG:
    case ZYDIS_REGCLASS_TEST:
        return true;
    default:
        return false;
    }
}

/* XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B, XCHG (op_xchg.c) */
bool x86_bind_xadd(struct x86_dec *d);
bool x86_bind_cmpxchg(struct x86_dec *d);
bool x86_bind_cmpxchg_wide(struct x86_dec *d); /* arg: operand size in bytes */
bool x86_bind_xchg(struct x86_dec *d);

/* PUSH, POP, PUSHA, POPA, ENTER, LEAVE (op_stack.c); arg as each says there */
bool x86_bind_push(struct x86_dec *d);
bool x86_bind_pop(struct x86_dec *d);
bool x86_bind_pusha(struct x86_dec *d);
bool x86_bind_popa(struct x86_dec *d);
bool x86_bind_enter(struct x86_dec *d);
bool x86_bind_leave(struct x86_dec *d);

/* The VEX-encoded integer instructions (op_bmi.c); arg: enum x86_bmi_op */
enum x86_bmi_op {
    X86_BMI_ANDN,
    X86_BMI_BEXTR,
    X86_BMI_BLSI,
    X86_BMI_BLSMSK,
    X86_BMI_BLSR,
    X86_BMI_BZHI,
    X86_BMI_PDEP,
    X86_BMI_PEXT,
    X86_BMI_MULX,
    X86_BMI_RORX,
    X86_BMI_SARX,
    X86_BMI_SHLX,
    X86_BMI_SHRX,
};
bool x86_bind_bmi(struct x86_dec *d);

/* ---- provided by the system instructions ---- */

bool x86_bind_mov_sys(struct x86_dec *d);     /* MOV with a segment, control or debug register */
bool x86_bind_pushpop_seg(struct x86_dec *d); /* PUSH or POP of a segment register */
bool x86_bind_far(struct x86_dec *d);         /* CALL, JMP, RET with a far target */
/* INT n: in virtual-8086 mode subject to IOPL and VME (SDM 21.3); then as x86_soft_trap. Returns
 * only if VME redirected the interrupt: CS:RIP is then the 8086 handler. */
void x86_soft_int(struct x86_cpu *c, uint8_t vector);
/* INT3 and INTO: raises `vector` as a software interrupt (exc.soft). */
_Noreturn void x86_soft_trap(struct x86_cpu *c, uint8_t vector);

#endif
