/*
 * state.h - the architectural state of one x86-64 logical processor.
 *
 * One plain struct, complete whenever no engine is inside run(). References are to the Intel SDM
 * (volume 3 unless said otherwise).
 */
#ifndef SOSIA_ISA_X86_STATE_H
#define SOSIA_ISA_X86_STATE_H

#include "base/types.h"

enum x86_gpr { X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSP, X86_RBP, X86_RSI, X86_RDI };
/* Two pseudo registers let every address be base + (index << scale) + disp without a branch. */
#define X86_REG_ZERO 16 /* always 0: "no base", "no index" */
#define X86_REG_RIP  17 /* RIP of the block being executed; an engine's, not architectural */
#define X86_NREG     18

enum x86_segreg { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_NSEG };

/* Segment attributes: descriptor bits 40..55 (SDM 3.4.5) in bits 0..15, and one of ours. */
#define X86_ATTR_TYPE     0x000fu
#define X86_ATTR_S        0x0010u /* code or data, not system */
#define X86_ATTR_DPL(a)   (((a) >> 5) & 3)
#define X86_ATTR_DPL_SH   5
#define X86_ATTR_P        0x0080u
#define X86_ATTR_AVL      0x1000u
#define X86_ATTR_L        0x2000u
#define X86_ATTR_DB       0x4000u
#define X86_ATTR_G        0x8000u
#define X86_ATTR_UNUSABLE 0x10000u /* loaded with a null selector */
/* Type bits of code and data segments */
#define X86_TYPE_A  1u
#define X86_TYPE_RW 2u /* data: writable; code: readable */
#define X86_TYPE_DC 4u /* data: expands down; code: conforming */
#define X86_TYPE_X  8u /* code */

struct x86_seg {
    uint64_t base;
    uint32_t limit; /* in bytes, granularity applied */
    uint16_t sel;
    uint32_t attr;
};

struct x86_dtr {
    uint64_t base;
    uint16_t limit;
};

/* RFLAGS */
#define X86_FL_CF    0x1u
#define X86_FL_R1    0x2u
#define X86_FL_PF    0x4u
#define X86_FL_AF    0x10u
#define X86_FL_ZF    0x40u
#define X86_FL_SF    0x80u
#define X86_FL_TF    0x100u
#define X86_FL_IF    0x200u
#define X86_FL_DF    0x400u
#define X86_FL_OF    0x800u
#define X86_FL_IOPL  0x3000u
#define X86_FL_NT    0x4000u
#define X86_FL_RF    0x10000u
#define X86_FL_VM    0x20000u
#define X86_FL_AC    0x40000u
#define X86_FL_VIF   0x80000u
#define X86_FL_VIP   0x100000u
#define X86_FL_ID    0x200000u
#define X86_FL_ARITH (X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_ZF | X86_FL_SF | X86_FL_OF)
#define X86_FL_ALL   0x3f7fd7u /* every defined flag */

/* Control registers */
#define X86_CR0_PE 0x1u
#define X86_CR0_MP 0x2u
#define X86_CR0_EM 0x4u
#define X86_CR0_TS 0x8u
#define X86_CR0_ET 0x10u
#define X86_CR0_NE 0x20u
#define X86_CR0_WP 0x10000u
#define X86_CR0_AM 0x40000u
#define X86_CR0_NW 0x20000000u
#define X86_CR0_CD 0x40000000u
#define X86_CR0_PG 0x80000000u

#define X86_CR4_VME        0x1u
#define X86_CR4_PVI        0x2u
#define X86_CR4_TSD        0x4u
#define X86_CR4_DE         0x8u
#define X86_CR4_PSE        0x10u
#define X86_CR4_PAE        0x20u
#define X86_CR4_MCE        0x40u
#define X86_CR4_PGE        0x80u
#define X86_CR4_PCE        0x100u
#define X86_CR4_OSFXSR     0x200u
#define X86_CR4_OSXMMEXCPT 0x400u
#define X86_CR4_UMIP       0x800u
#define X86_CR4_FSGSBASE   0x10000u
#define X86_CR4_PCIDE      0x20000u
#define X86_CR4_OSXSAVE    0x40000u
#define X86_CR4_SMEP       0x100000u
#define X86_CR4_SMAP       0x200000u

#define X86_EFER_SCE 0x1u
#define X86_EFER_LME 0x100u
#define X86_EFER_LMA 0x400u
#define X86_EFER_NXE 0x800u

/* Exception vectors (SDM 6.15) */
enum x86_vector {
    X86_DE = 0,
    X86_DB = 1,
    X86_NMI = 2,
    X86_BP = 3,
    X86_OF = 4,
    X86_BR = 5,
    X86_UD = 6,
    X86_NM = 7,
    X86_DF = 8,
    X86_TS = 10,
    X86_NP = 11,
    X86_SSF = 12,
    X86_GP = 13,
    X86_PF = 14,
    X86_MF = 16,
    X86_AC = 17,
    X86_MC = 18,
    X86_XM = 19,
};

/* Page-fault error code (SDM 4.7) */
#define X86_PF_P 1u
#define X86_PF_W 2u
#define X86_PF_U 4u
#define X86_PF_R 8u /* reserved bit set */
#define X86_PF_I 16u

/* XSAVE state components offered (SDM vol. 1, 13.1): x87, SSE, AVX */
#define X86_XCR0_X87 1u
#define X86_XCR0_SSE 2u
#define X86_XCR0_AVX 4u
#define X86_XCR0_ALL (X86_XCR0_X87 | X86_XCR0_SSE | X86_XCR0_AVX)

/* Standard-format XSAVE image: legacy area 0..511, header 512..575, YMM high halves 576..831. */
struct x86_xsave {
    uint16_t fcw, fsw;
    uint8_t ftw, rsv0; /* abridged tag word: bit n set: register n (physical) not empty */
    uint16_t fop;
    uint64_t fip, fdp;
    uint32_t mxcsr, mxcsr_mask;
    uint8_t st[8][16];
    uint8_t xmm[16][16];
    uint8_t rsv1[96];
    uint64_t xstate_bv, xcomp_bv, rsv2[6];
    uint8_t ymmh[16][16];
} __attribute__((aligned(64)));

/* What a vCPU that is not executing waits for. */
enum x86_activity {
    X86_RUNNING,
    X86_HALTED,    /* HLT: an unmasked interrupt, NMI, INIT */
    X86_WAIT_SIPI, /* after INIT on an application processor */
    X86_SHUTDOWN,  /* triple fault */
};

#define X86_NMTRR 8

struct x86_state {
    uint64_t gpr[X86_NREG]; /* encoding order: RAX RCX RDX RBX RSP RBP RSI RDI R8..R15 */
    uint64_t rip;
    uint64_t rflags;
    struct x86_seg seg[X86_NSEG];
    struct x86_seg ldtr, tr;
    struct x86_dtr gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4, xcr0;
    uint64_t dr[8]; /* 4 and 5 are unused */
    uint64_t efer, star, lstar, cstar, fmask, kernel_gs_base, tsc_aux;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t tsc_offset; /* guest TSC = machine TSC + this */
    uint64_t pat, mtrr_deftype, mtrr_fixed[11], mtrr_base[X86_NMTRR], mtrr_mask[X86_NMTRR];
    uint64_t misc_enable, spec_ctrl, mcg_status, feature_control;
    uint64_t pdpte[4]; /* PAE: loaded with CR3 (SDM 4.4.1) */
    enum x86_activity activity;
    uint8_t sti_shadow;   /* interrupts blocked for one instruction by STI */
    uint8_t movss_shadow; /* interrupts and debug traps blocked for one instruction by MOV/POP SS */
    uint8_t nmi_blocked;  /* until IRET */
    struct x86_xsave fpu;
};

#endif
