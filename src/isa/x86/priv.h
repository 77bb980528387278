/*
 * priv.h - shared by the files of the privileged part: descriptors, stacks of other privilege
 * levels, far control transfers. References are to the Intel SDM, volume 3.
 */
#ifndef SOSIA_ISA_X86_PRIV_H
#define SOSIA_ISA_X86_PRIV_H

#include "isa/x86/access.h"
#include "isa/x86/seg.h"

/* Bits of DR6 and DR7 that always read as 1 (SDM 18.2.3, 18.2.4; no RTM). */
#define X86_DR6_FIXED 0xffff0ff0u
#define X86_DR7_FIXED 0x400u
#define X86_DR6_BD    (1u << 13) /* debug register access detected */
#define X86_DR6_BS    (1u << 14) /* single step */
#define X86_DR6_BT    (1u << 15) /* task switch */
#define X86_DR7_GD    (1u << 13)

/* Fast strings; neither BTS nor PEBS. */
#define X86_MISC_ENABLE_RESET       0x1801u
#define X86_MISC_ENABLE_LIMIT_CPUID (1ull << 22)
#define X86_MISC_ENABLE_XD_DISABLE  (1ull << 34)

/* ---- selectors and attributes ---- */

#define X86_SEL_RPL(sel)  ((sel)&3u)
#define X86_SEL_NULL(sel) (((sel)&0xfffcu) == 0)
#define X86_SEL_TI        4u

/* Types of system descriptors (SDM 3.5); in IA-32e mode only LDT and the 32-bit ones exist. */
#define X86_SYS_TSS16     1u
#define X86_SYS_LDT       2u
#define X86_SYS_CALL16    4u
#define X86_SYS_TASK_GATE 5u
#define X86_SYS_INTR16    6u
#define X86_SYS_TRAP16    7u
#define X86_SYS_TSS32     9u
#define X86_SYS_CALL32    12u
#define X86_SYS_INTR32    14u
#define X86_SYS_TRAP32    15u
#define X86_SYS_BUSY      2u /* of both kinds of TSS */

static inline bool x86_attr_code(uint32_t a)
{
    return (a & (X86_ATTR_S | X86_TYPE_X)) == (X86_ATTR_S | X86_TYPE_X);
}
static inline bool x86_attr_conforming(uint32_t a)
{
    return (a & X86_TYPE_DC) != 0;
}
static inline bool x86_attr_writable(uint32_t a) /* a data segment that may be written */
{
    return (a & (X86_ATTR_S | X86_TYPE_X | X86_TYPE_RW)) == (X86_ATTR_S | X86_TYPE_RW);
}
static inline bool x86_attr_readable(uint32_t a)
{
    return (a & X86_ATTR_S) && (a & (X86_TYPE_X | X86_TYPE_RW)) != X86_TYPE_X;
}
/* Type of a system descriptor; 0 (reserved) if it is not one. */
static inline unsigned x86_sys_type(uint32_t a)
{
    return a & X86_ATTR_S ? 0 : a & X86_ATTR_TYPE;
}

/* The segments that SYSCALL and its like load: base 0, limit 4 GiB (SDM vol. 2, SYSCALL). */
#define X86_FLAT(cpl) \
    (X86_ATTR_G | X86_ATTR_P | (cpl) << X86_ATTR_DPL_SH | X86_ATTR_S | X86_TYPE_RW | X86_TYPE_A)
#define X86_FLAT_CODE64(cpl) (X86_FLAT(cpl) | X86_ATTR_L | X86_TYPE_X)
#define X86_FLAT_CODE32(cpl) (X86_FLAT(cpl) | X86_ATTR_DB | X86_TYPE_X)
#define X86_FLAT_DATA(cpl)   (X86_FLAT(cpl) | X86_ATTR_DB)
/* RFLAGS as SYSRET loads them: neither RF nor VM (SDM vol. 2, SYSRET). */
#define X86_SYSRET_FLAGS 0x3c7fd7u

/* Faults that name a selector. */
static inline _Noreturn void x86_fault_sel(struct x86_cpu *c, enum x86_vector v, unsigned sel)
{
    x86_raise_err(c, v, sel & 0xfffcu);
}

/* A linear address of a system structure: 64 bits wide whenever IA-32e mode is active. */
static inline gva_t x86_sys_lin(const struct x86_cpu *c, uint64_t a)
{
    return c->long_active ? a : (uint32_t)a;
}

/* ---- descriptors (desc.c) ---- */

/* Linear address of the descriptor; false: null, no LDT, or beyond the table's limit. */
bool x86_desc_addr(const struct x86_cpu *c, uint16_t sel, unsigned size, gva_t *addr);
/* Reads the descriptor of `sel`; raises `v` with the selector as error code if there is none. */
uint64_t x86_desc_fetch(struct x86_cpu *c, uint16_t sel, enum x86_vector v);
/* The upper half of a 16-byte system descriptor (IA-32e mode). */
uint64_t x86_desc_fetch_upper(struct x86_cpu *c, uint16_t sel, enum x86_vector v);
/* The same for instructions that only look (LAR LSL VERR VERW). */
bool x86_desc_peek(struct x86_cpu *c, uint16_t sel, uint64_t *d);
struct x86_seg x86_desc_seg(uint64_t d, uint16_t sel);
static inline uint32_t x86_desc_attr(uint64_t d)
{
    return (uint32_t)(d >> 40) & 0xf0ffu;
}
/* Sets the accessed bit of a code or data descriptor, in memory and in *s. Atomic (SDM 8.1.2.1). */
void x86_desc_accessed(struct x86_cpu *c, struct x86_seg *s);
/* Sets or clears the busy bit of a TSS descriptor. Returns the access byte before. */
uint8_t x86_desc_busy(struct x86_cpu *c, uint16_t sel, bool busy);

/* The segment register's state after loading `sel` in real-address mode or virtual-8086 mode. */
struct x86_seg x86_seg_vm86(uint16_t sel);
void x86_seg_real(struct x86_cpu *c, unsigned seg, uint16_t sel);
/* On a return to an outer level: data segments that it may not use become null (SDM 5.8.6). */
void x86_seg_drop_inner(struct x86_cpu *c, unsigned new_cpl);

/* Fetches and checks a stack segment for privilege level `cpl` whose faults are `v` (#TS or #GP;
 * #SS if absent). */
struct x86_seg x86_check_ss(struct x86_cpu *c, uint16_t sel, unsigned cpl, enum x86_vector v);
/* The null stack segment of 64-bit mode. */
struct x86_seg x86_null_ss(unsigned cpl);

/* ---- stacks that are not (yet) SS:RSP (desc.c) ---- */

struct x86_stack {
    struct x86_seg ss;
    uint64_t sp, mask;
    enum x86_mmu mmu; /* rights that its accesses are made with */
    uint32_t error;   /* error code of #SS if it has no room */
    bool flat;        /* 64-bit: no segment, canonical addresses */
};

struct x86_stack x86_stack_current(const struct x86_cpu *c);
/* The stack for a more privileged level, from the TSS (SDM 5.8.5). ist: 0, or 1..7 in IA-32e mode.
 */
struct x86_stack x86_stack_inner(struct x86_cpu *c, unsigned cpl, unsigned ist);
void x86_stack_push(struct x86_cpu *c, struct x86_stack *s, uint64_t v, unsigned size);
uint64_t x86_stack_pop(struct x86_cpu *c, struct x86_stack *s, unsigned size);
/* RSP becomes what was pushed or popped; SS is loaded if `load_ss`. */
void x86_stack_commit(struct x86_cpu *c, const struct x86_stack *s, bool load_ss);

/* ---- code segments (far.c) ---- */

/* Raises #GP(0) unless `rip` may be executed in the code segment. */
void x86_check_rip(struct x86_cpu *c, const struct x86_seg *cs, uint64_t rip);
/* Loads CS (its accessed bit has been set) and RIP; the new CPL becomes CS.RPL. */
void x86_load_cs(struct x86_cpu *c, const struct x86_seg *cs, uint64_t rip);
/* The code segment that a far return or IRET goes to, checked (SDM vol. 2, RET). */
struct x86_seg x86_check_return_cs(struct x86_cpu *c, uint16_t sel);
/* The stack segment that a return to an outer level names; null is possible in 64-bit mode. */
struct x86_seg x86_check_return_ss(struct x86_cpu *c, uint16_t sel, const struct x86_seg *cs);

/* ---- faults as values (mode.c) ---- */

/* Calls fn(c, arg). False: it raised an exception, which is in c->exc. */
bool x86_try(struct x86_cpu *c, void (*fn)(struct x86_cpu *c, void *arg), void *arg);
/* Raises what x86_try() caught. */
_Noreturn void x86_rethrow(struct x86_cpu *c);

/* ---- tasks (task.c) ---- */

enum x86_task_cause { X86_TASK_JMP, X86_TASK_CALL, X86_TASK_IRET, X86_TASK_INT };

/* Switches to the task of TSS selector `sel`, whose descriptor is `d` (type, presence and privilege
 * have been checked). s.rip is what the old task continues at. IA-32e mode has no tasks. */
void x86_task_switch(struct x86_cpu *c, uint16_t sel, uint64_t d, enum x86_task_cause cause);
/* Through a task gate's selector: checks the TSS (SDM vol. 2, CALL, "TASK-GATE"), then switches. */
void x86_task_gate(struct x86_cpu *c, uint16_t tss_sel, enum x86_task_cause cause);
/* IRET with NT set. */
void x86_task_return(struct x86_cpu *c);

/* ---- checks ---- */

/* #GP(0) unless CPL is 0. */
static inline void x86_need_cpl0(struct x86_cpu *c)
{
    if (UNLIKELY(c->cpl))
        x86_gp0(c);
}
static inline unsigned x86_iopl(const struct x86_cpu *c)
{
    return (unsigned)(c->s.rflags >> 12) & 3;
}
static inline bool x86_vm86(const struct x86_cpu *c)
{
    return (c->s.rflags & X86_FL_VM) != 0;
}

/* Merges `val` into RFLAGS where `mask` allows and updates what derives from it. */
static inline void x86_merge_rflags(struct x86_cpu *c, uint64_t val, uint64_t mask)
{
    x86_set_rflags(c, (x86_rflags(c) & ~mask) | (val & mask));
}

#endif
