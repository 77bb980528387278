/*
 * cpu.h - a vCPU as the software engines execute it: the architectural state plus everything that
 * is derived from it, the software TLB, and the way out to the machine.
 *
 * Owner: the vCPU's thread, except for the fields marked (any thread).
 *
 * Faults. A semantic function that meets a fault calls x86_raise(), which does not return: it
 * jumps to the engine's run loop. Therefore a semantic function changes architectural state only
 * after its last possible fault, or in an order in which re-execution is harmless (REP string
 * instructions commit each iteration).
 */
#ifndef SOSIA_ISA_X86_CPU_H
#define SOSIA_ISA_X86_CPU_H

#include <setjmp.h>
#include <stdatomic.h>

#include "isa/x86/state.h"
#include "mem/space.h"

struct x86_hypercall;
struct field_table;

/* The machine as seen by one vCPU. All callbacks may be called only from the vCPU's thread; each
 * takes the device lock itself. */
struct x86_bus {
    uint64_t (*io_read)(void *ctx, uint16_t port, unsigned size);
    void (*io_write)(void *ctx, uint16_t port, uint64_t val, unsigned size);
    uint64_t (*mem_read)(void *ctx, gpa_t addr, unsigned size);
    void (*mem_write)(void *ctx, gpa_t addr, uint64_t val, unsigned size);
    int (*intr_ack)(void *ctx); /* vector of the interrupt to deliver, or -1: none any more */
    uint64_t (*tsc)(void *ctx); /* machine TSC, before tsc_offset */
    /* The same, as long as there is a line; NULL: there never is. */
    const struct vclock_line *tsc_line;
    uint64_t (*get_tpr)(void *ctx); /* CR8 */
    void (*set_tpr)(void *ctx, uint64_t cr8);
    /* APIC_BASE and TSC_DEADLINE MSRs. False: the value is refused (#GP). */
    bool (*apic_msr)(void *ctx, uint32_t msr, bool write, uint64_t *val);
    /* KVM's paravirtual interface (kvm_pv.h): its MSRs (false: #GP), by their new numbers, and its
     * hypercalls. Both NULL: there is none. */
    bool (*pv_msr)(void *ctx, uint32_t msr, bool write, uint64_t *val);
    int64_t (*hypercall)(void *ctx, const struct x86_hypercall *h);
    void (*tsc_moved)(void *ctx, uint64_t offset); /* s.tsc_offset is another; may be NULL */
    /* x86_tlb_unwrite() on every other vCPU of the machine; takes no lock. */
    void (*unwrite_others)(void *ctx, uint64_t roff, uint64_t places);
    void *ctx;
};

/* ---- software TLB ---- */

/* Translations are kept apart by how the access is checked, so that a hit needs no further check.
 */
enum x86_mmu {
    X86_MMU_KERNEL,    /* CPL < 3 with EFLAGS.AC = 0, and all implicit supervisor accesses */
    X86_MMU_KERNEL_AC, /* CPL < 3 with EFLAGS.AC = 1: SMAP suspended */
    X86_MMU_USER,      /* CPL 3 */
    X86_MMU_ALIGN,     /* CPL 3 with alignment checks on (CR0.AM, EFLAGS.AC): never cached */
    X86_NMMU,
};

#define X86_EXEC_FILTER  131072u
#define X86_LARGE_FILTER 32768u

#define X86_TLB_BITS 12
#define X86_TLB_SIZE (1u << X86_TLB_BITS)
/* The tag of an unused slot. An access that looks there asks for a page whose number ends in
 * `slot`, or, if it crosses pages, in the next number: never for this one, whatever the address and
 * PCID. (One tag for all slots would be asked for in some, since an access is looked up before its
 * address is known to be canonical.) Valid tags are canonical, this one is not. */
#define X86_TLB_NONE(slot)   (0x8000000000000000ull | (uint64_t)((slot) ^ (X86_TLB_SIZE / 2)) << 12)
#define X86_TLB_IS_NONE(tag) ((tag) >> 48 == 0x8000)

/* tag = linear page address | address space; host address of a byte = addend + linear address. */
struct x86_tlbe {
    uint64_t rtag;
    _Atomic uint64_t wtag; /* other vCPUs may make it X86_TLB_NONE at any time (x86_tlb_unwrite) */
    uint64_t xtag;
    uintptr_t addend;
};
#define X86_TLBF_GLOBAL 1u
#define X86_TLBF_LARGE  2u
#define X86_TLBF_WOK    4u /* a write is permitted and the dirty bit is set, whatever wtag says */

/* Each set of entries has a few ways. The first holds the newest entry, and is the only one that
 * most accesses look at; what it displaces goes to the next. */
#define X86_TLB_WAYS 4u

/* Address spaces are numbered anew whenever their translations are to be forgotten, so that this
 * takes no time. Kernel accesses (X86_MMU_KERNEL) have number 0 throughout: nearly all their pages
 * are global; those that are not are remembered, and dropped when the address space changes. */
#define X86_ASIDS      4096u
#define X86_NONGLOBALS 64u

/* Mappings that code is executed through: exec.c. */
#define X86_EXEC_PAGES 512u
#define X86_EXEC_HASH  1024u
#define X86_EXEC_SETS  8u
struct x86_exec_page {
    gva_t lin; /* a multiple of 4 KiB, or of 2 MiB if `large` */
    uint64_t roff;
    bool large, user;
};
struct x86_exec_set {
    uint64_t gen;  /* 0: none yet */
    uint64_t pcid; /* of pages that are not global */
    bool stale;    /* they may lead elsewhere now */
    bool full;     /* there are more than these */
    unsigned n;
    struct x86_exec_page page[X86_EXEC_PAGES];
    uint16_t hash[X86_EXEC_HASH]; /* 1 + index; 0: free */
};
struct x86_exec {
    uint64_t next; /* the last generation */
    struct x86_exec_set global, set[X86_EXEC_SETS];
    /* Which linear pages (or, where mapped by large ones, GiBs) ever were in them. Hashed, one bit
     * each; of pages not global, global. */
    uint64_t pages[2][X86_EXEC_FILTER / 64];
    uint64_t large[X86_LARGE_FILTER / 64];
};

struct x86_tlb {
    struct x86_tlbe e[X86_NMMU][X86_TLB_WAYS][X86_TLB_SIZE];
    uint8_t flags[X86_NMMU][X86_TLB_WAYS][X86_TLB_SIZE]; /* X86_TLBF_* */
    uint64_t asid[X86_NMMU]; /* present number for each kind of access */
    uint64_t asid_next, asid_base, asid_floor;
    uint64_t asid_pcid[4096]; /* valid if above asid_floor; the number is what exceeds asid_base */
    uint16_t nonglobal[X86_NONGLOBALS]; /* kernel sets that may hold entries of pages not global */
    unsigned nnonglobal;                /* more than there is room for: any set */
    /* Which 2 MiB, and which GiB, are mapped by pages of that size; hashed, one bit each. */
    uint64_t large[X86_LARGE_FILTER / 64], huge[X86_LARGE_FILTER / 64];
    uint64_t epoch; /* grows whenever a translation may have changed */

    struct x86_exec exec;
};

/* Where IRETQ from 64-bit code at CPL 0 went last, to such code or to that of CPL 3: the selectors,
 * where in the table their descriptors are, both in one page (that of CS twice if SS was null),
 * what those were and what they made of the registers. */
struct x86_returned {
    uint32_t cs_sel, ss_sel; /* ~0: nothing yet */
    uint32_t gdt_limit;
    gva_t gdt_base, cs_at, ss_at;
    uint64_t cs_desc, ss_desc;
    struct x86_seg cs, ss;
};

/* An entry of the jump cache: where the engine continues at an address. */
struct x86_jump {
    uint64_t key;
    const void *host;
};
#define X86_JUMPS 65536u
#define X86_HEATS 16384u

/* Segment as data accesses need it. */
#define X86_SEGOK_R 1u /* any offset may be read: no check needed */
#define X86_SEGOK_W 2u
struct x86_segc {
    uint64_t base; /* 0 in 64-bit mode but for FS and GS */
    uint32_t ok;
};
#define X86_PHYS_BITS 40 /* guest-physical address width offered by CPUID */
#define X86_LIN_BITS  48

#define X86_SEG_NONE 6 /* base 0, everything allowed: for linear addresses */

/* `pending` bits (any thread may set; the vCPU's thread clears) */
#define X86_PEND_INTR 1u /* the interrupt controller has something: ask intr_ack */
#define X86_PEND_NMI  2u
#define X86_PEND_INIT 4u
#define X86_PEND_SIPI 8u  /* vector in sipi_vector */
#define X86_PEND_KICK 16u /* leave run() */
#define X86_PEND_TLB  32u /* drop all translations (the address map changed) */
#define X86_PEND_CODE 64u /* cached code was hit (ram->code_epoch grew): wakes nobody */
/* `slow` bits (own thread): the run loop must look before each instruction or block */
#define X86_SLOW_SHADOW 1u /* sti_shadow or movss_shadow */
#define X86_SLOW_TF     2u /* single-step */
#define X86_SLOW_BP     4u /* DR7 enables an instruction breakpoint */
#define X86_SLOW_DB     8u /* db_hit: a data or I/O breakpoint was met by this instruction */

struct x86_insn;
struct x86_block;

/* Who wants to see what the vCPU does to memory (engine/lockstep). The first two functions may
 * leave by a longjmp to an x86_cpu.env. */
struct x86_observer {
    /* Before a store to RAM that takes a slow path, of at most 8 bytes within a page. */
    void (*store)(struct x86_observer *o, gva_t lin, enum x86_mmu mmu, uint64_t roff,
                  unsigned size);
    /* Accessed or dirty bits have been set. */
    void (*walked)(struct x86_observer *o);
    /* May the entry become writable? Stores through it are not seen. */
    bool (*may_open)(struct x86_observer *o, struct x86_tlbe *e);
};

struct x86_cpu {
    struct x86_state s;

    /* Arithmetic flags while an engine is inside run(): LAHF's byte in bits 8..15 (SF ZF - AF - PF
     * 1 CF), OF in bit 0. The bits of s.rflags are stale meanwhile; x86_rflags() composes. */
    uint16_t fl;

    /* Derived: x86_update_mode() */
    uint8_t cpl;
    uint8_t code_size;   /* 16, 32, 64: default operand/address size of CS */
    bool long_active;    /* EFER.LMA */
    bool protected_mode; /* CR0.PE and not VM86 */
    uint8_t mmu;         /* enum x86_mmu of ordinary data accesses */
    uint64_t pcid;       /* current PCID, or 0 */
    uint64_t lin_mask;   /* linear addresses are cut to 32 bits outside long mode's 64-bit code */
    uint64_t ip_mask, sp_mask;
    _Atomic uint64_t a20_mask; /* applied to every physical address; set by the board */
    uint64_t cs_limit;         /* last valid RIP; ~0 in 64-bit code */
    struct x86_segc segc[X86_NSEG + 1];

    const struct x86_insn *cur;       /* instruction being executed, while inside a block */
    const struct x86_insn *block_end; /* stop before this one; lowered to leave a block early */
    uint64_t icount;                  /* instructions retired */
    uint64_t code_seen; /* ram->code_epoch when the code to be executed was looked up */

    _Atomic uint32_t pending;
    _Atomic uint8_t sipi_vector;
    _Atomic bool unhalted; /* KVM_PV_HC_KICK_CPU: ends this HLT, or the next */
    uint32_t slow;
    uint64_t db_hit; /* DR6 bits to report as a trap when the instruction is finished */
    bool in_split;   /* between x86_split_begin() and _end() */
    bool no_device;  /* page tables that are not in RAM read as absent: x86_tlb_refill() */
    bool watch_data; /* DR7 enables a data breakpoint: pages it touches are never cached */

    sigjmp_buf *env; /* the engine's landing place for x86_raise() */
    struct {         /* the exception being raised */
        uint8_t vector;
        bool has_error;
        uint32_t error;
        uint64_t cr2; /* #PF */
        uint64_t dr6; /* #DB: bits to set */
        bool soft;    /* INT n, INT3, INTO: RIP of the next instruction is pushed; DPL checked */
        bool trap;    /* reported after the instruction: RIP is not wound back */
    } exc;

    struct x86_bus bus;
    struct { /* FERR# and IGNNE# (SDM vol. 1, D.2.1): x87 errors when CR0.NE = 0 */
        void (*fn)(void *ctx, bool level); /* FERR#, on the vCPU's thread; NULL: not connected */
        void *ctx;
        bool level;
        bool ignne; /* errors are ignored: x86_set_ignne() */
    } ferr;
    struct space *mem;
    struct ram *ram;
    unsigned index; /* vCPU number = initial APIC id */
    unsigned ncpus;
    uint32_t pauses;               /* PAUSE instructions executed */
    const struct x86_model *model; /* cpuid.h */

    struct x86_observer *observer; /* or NULL */
    struct lockstep *lockstep;     /* the engine lockstep's */

    struct x86_tlb tlb;
    struct x86_code *code;     /* decoded blocks: code.h */
    struct x86_native *native; /* SIMD and x87 on the host's units: native.h */

    /* The engine jit's; here, because translated code reaches all it needs by one base register. */
    struct jit *jit;
    struct x86_cpu *self;
    uint64_t jit_key, jit_key_global; /* of the jump cache, to be combined with RIP */
    uint64_t jit_tmp, jit_set, jit_target;
    uint64_t jit_page;             /* what the RIPs of the running translation are relative to */
    uint64_t jit_rsp, jit_rsp_end; /* the host's stack pointer without calls; with too many */
    uint32_t jit_scratch;
    uint32_t jit_stop;    /* see struct jit, exact */
    uint8_t jit_drop;     /* translations that the host's stack leads back to are no more */
    uint8_t jit_fpu_live; /* the guest's SSE and AVX registers are in the host's */
    uint8_t jit_x87_live; /* the guest's x87 state is in the host's, but for these: */
    struct {
        uint64_t fip, fdp;
        uint32_t fop;
    } jit_x87;
    _Atomic uint8_t jit_unwritten;       /* (any thread) x86_tlb_unwrite() was here */
    struct x86_returned jit_returned[2]; /* [1]: to CPL 3 */
    uint8_t jit_resume;          /* JIT_SITE_*: what a site's thunk does before it goes on */
    int32_t jit_heat[X86_HEATS]; /* of translations by their numbers: engine/jit/hot.c */
    struct x86_jump jump[X86_JUMPS];
};

/* Raises an exception; the instruction has no effect. x86_raise_err pushes an error code. */
_Noreturn void x86_raise(struct x86_cpu *c, enum x86_vector v);
_Noreturn void x86_raise_err(struct x86_cpu *c, enum x86_vector v, uint32_t error);
_Noreturn void x86_raise_pf(struct x86_cpu *c, gva_t addr, uint32_t error);
/* #DB with these DR6 bits; a trap (after the instruction) or a fault (before it). */
_Noreturn void x86_raise_db(struct x86_cpu *c, uint64_t dr6, bool trap);
#define x86_gp0(c) x86_raise_err((c), X86_GP, 0)
#define x86_ud(c)  x86_raise((c), X86_UD)

extern const struct field_table x86_cpu_fields; /* between two calls of run() */

/* Power-on or INIT state (SDM 10.1.1). The BSP starts at F000:FFF0, the others wait for SIPI. */
void x86_reset(struct x86_cpu *c, bool init);
void x86_sipi(struct x86_cpu *c, uint8_t vector);

/* Recomputes everything derived; call after changing CR0, CR4, EFER, CS, SS, or RFLAGS.VM/AC/TF.
 * Cheap. */
void x86_update_mode(struct x86_cpu *c);
/* Recomputes segc[seg] after loading that register (x86_update_mode does all). */
void x86_update_seg(struct x86_cpu *c, unsigned seg);

/* ---- flags ---- */
static inline uint32_t x86_arith_flags(const struct x86_cpu *c)
{
    return ((c->fl >> 8) & 0xd5u) | ((uint32_t)(c->fl & 1) << 11);
}
static inline void x86_set_arith_flags(struct x86_cpu *c, uint32_t f)
{
    c->fl = (uint16_t)((f & 0xd5u) << 8 | 0x200u | ((f >> 11) & 1));
}
static inline uint64_t x86_rflags(const struct x86_cpu *c)
{
    return (c->s.rflags & ~(uint64_t)X86_FL_ARITH) | x86_arith_flags(c) | X86_FL_R1;
}
/* Replaces the whole of RFLAGS (the caller has merged what may not change) and what derives from
 * it. */
void x86_set_rflags(struct x86_cpu *c, uint64_t f);

/* ---- mmu.c ---- */
/* The PCID (0 without CR4.PCIDE) has become that of CR3. */
void x86_tlb_set_pcid(struct x86_cpu *c, uint64_t pcid);
/* Fills the TLB for an access within one page if that takes no fault and no device: nothing but the
 * page tables' accessed and dirty bits changes. Uses no vector registers. False: it cannot. */
bool x86_tlb_refill(struct x86_cpu *c, gva_t addr, bool write, unsigned mmu);
void x86_tlb_flush_all(struct x86_cpu *c);
void x86_tlb_flush_pcid(struct x86_cpu *c, uint64_t pcid); /* all but global */
void x86_tlb_flush_nonglobal(struct x86_cpu *c);
void x86_tlb_flush_page(struct x86_cpu *c, gva_t addr); /* INVLPG: current PCID and global */
void x86_tlb_flush_page_pcid(struct x86_cpu *c, gva_t addr, uint64_t pcid);
/* ---- exec.c ---- */
/* Equal values: the linear addresses of executable pages that x86_exec_note() was told of (global
 * ones, or the others of the present PCID) lead where they led. Never 0. */
uint64_t x86_exec_gen(struct x86_cpu *c, bool global);
/* Is the page of code global? Not, to be on the safe side, if it is not in the TLB. */
bool x86_exec_is_global(struct x86_cpu *c, gva_t lin);
/* The first of these values for another PCID, if it is known without a look at the page tables that
 * it is still valid, as that of the global pages; else 0. */
uint64_t x86_exec_gen_known(struct x86_cpu *c, uint64_t pcid);
/* Code is executed at `lin`, which x86_exec_gen() has been asked about since the last flush. */
void x86_exec_note(struct x86_cpu *c, gva_t lin);
/* The TLB was told to forget: everything, a PCID, all PCIDs, a page. */
void x86_exec_flush_all(struct x86_cpu *c);
void x86_exec_flush_pcid(struct x86_cpu *c, uint64_t pcid);
void x86_exec_flush_nonglobal(struct x86_cpu *c);
/* False: no code was ever executed in the page, nor in the large one around it. */
bool x86_exec_may_have(const struct x86_cpu *c, gva_t addr);
void x86_exec_flush_page(struct x86_cpu *c, gva_t addr, uint64_t pcid);
/* (any thread) Makes every write to the page of RAM at roff take the slow path once more. `places`:
 * as ram_take_writers() has named them; other vCPUs' among them do not matter. */
void x86_tlb_unwrite(struct x86_cpu *c, uint64_t roff, uint64_t places);
/* Loads the PAE PDPTEs from CR3; #GP(0) if reserved bits are set. No-op unless PAE paging is on. */
void x86_load_pdptes(struct x86_cpu *c, uint64_t cr3);

enum x86_access { X86_READ, X86_WRITE, X86_FETCH };
/* Translates one page's address with full checks; fills the TLB; raises #PF. */
gpa_t x86_translate(struct x86_cpu *c, gva_t addr, enum x86_access acc, enum x86_mmu mmu);
/* The same for a debugger: no fault, no A/D update. False: not mapped. */
bool x86_translate_debug(struct x86_cpu *c, gva_t addr, gpa_t *gpa);

#endif
