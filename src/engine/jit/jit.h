/*
 * jit.h - the parts of the engine jit: dynamic recompilation of x86 to x86.
 *
 * A *translation* (struct jit_tb) is the host code of a stretch of guest code that is entered at
 * its start and left at its end or by branches. While translated code runs
 *  - most guest registers are in host registers, always the same ones (regs.h); the others, and
 *    everything else, are in struct x86_cpu, to which the GS base points;
 *  - the guest's arithmetic flags are in EFLAGS, or in cpu->fl, or in both: known for each point of
 *    a translation when it is made. A translation has one entry for each of the two;
 *  - the guest's SSE and AVX registers are in the host's if cpu->jit_fpu_live, else in cpu->s.fpu;
 *    its x87 state if cpu->jit_x87_live, but for the pointers, which are in cpu->jit_x87;
 *  - RSP is the host's stack: a multiple of 16. Guest calls are host calls, so that the processor
 *    predicts returns; flow.c tells how. Below cpu->jit_rsp there are 16 bytes for each.
 * Whenever C code runs, all state is in struct x86_cpu, flags in cpu->fl, but for the x87 state,
 * which C code does not touch: it stays where it is until run() is left or a semantic function
 * needs it.
 *
 * A translation is first made to be small, and made anew to be fast when it is executed often
 * (hot.c): most code is executed so rarely that what counts is how much of it fits into the host's
 * caches.
 *
 * Rules that keep translations from outliving what they were made of:
 *  1. A translation is made for one place in RAM and one mode (struct jit_mode: all that the
 *     meaning of its bytes depends on). In 64-bit code it serves whatever linear address the page
 *     is mapped at: its RIPs are relative to the page, and cpu->jit_page is added to them (else 0).
 *     Its page's generation is as in ram.h, invariant 3.
 *  2. Translations jump to each other directly only within one page of guest code, which runs
 *     under the same mapping as long as it is not left. All other jumps look the target up in the
 *     jump cache (cpu->jump), whose keys contain the generation of the address space's executable
 *     mappings (x86_exec_gen()) and the mode; or return to where the host's stack leads, which is
 *     emptied before mappings or translations change (cpu->jit_drop) and checks the rest.
 *  3. When code has been written (ram->code_epoch; X86_PEND_CODE makes a vCPU look that executes
 *     translations all the time), translations of the page are killed before the next lookup: jumps
 *     to them are redirected, the jump cache forgets them. Memory is reclaimed only by forgetting
 *     everything, and never while a translation is being executed.
 *  4. A guest instruction that is not translated, or that meets a TLB miss, a device, tracked code
 *     or a fault, is executed by its semantic function: engines differ in dispatch, not in meaning.
 */
#ifndef SOSIA_ENGINE_JIT_JIT_H
#define SOSIA_ENGINE_JIT_JIT_H

#include "base/error.h"
#include "engine/jit/asm.h"
#include "isa/x86/cpu.h"
#include "isa/x86/insn.h"

/* All that the translation of given bytes depends on. */
struct jit_mode {
    uint32_t bits; /* JIT_M_* */
    uint64_t cs_base, cs_limit;
};
#define JIT_M_CODE16 0x1u /* code size 16; with neither of the two: 64 */
#define JIT_M_CODE32 0x2u
#define JIT_M_MMU_SH 2 /* enum x86_mmu of data accesses */
#define JIT_M_MMU    (3u << JIT_M_MMU_SH)
#define JIT_M_USER   0x10u  /* CPL 3 */
#define JIT_M_GLOBAL 0x20u  /* the code is in a global page */
#define JIT_M_SSE    0x40u  /* SSE instructions can be executed, all their errors being masked */
#define JIT_M_AVX    0x80u  /* the same for AVX */
#define JIT_M_SP16   0x100u /* 16-bit stack pointer */
#define JIT_M_LONG   0x200u /* IA-32e mode: addresses may be non-canonical */
#define JIT_M_CPL0   0x400u
#define JIT_M_X87    0x800u /* like JIT_M_SSE; no error is pending */
#define JIT_M_SEG_SH 12     /* enum jit_segkind of each segment register, 2 bits */

enum jit_segkind {
    JIT_SEG_SLOW, /* every access is checked by the semantic function */
    JIT_SEG_FLAT, /* base 0, no check */
    JIT_SEG_BASE, /* a base, no check */
    JIT_SEG_64K,  /* a base; offsets up to 0xffff may be read and written */
};

struct jit_tb;

/* An instruction that a translation leaves to its semantic function, now or in rare cases. */
struct jit_insn {
    struct x86_insn i;
    struct jit_tb *tb;
    bool x87;      /* it may access the x87 or MMX state */
    uint32_t undo; /* RET: what has been added to RSP before thunk.ret is entered */
};

/* Where the host code of a translation calls C through a thunk that is told no more than where it
 * was called from: site.c. */
struct jit_site {
    uint16_t at;   /* behind the call: from the translation's start */
    uint16_t back; /* where to go on, likewise; 0: it leaves the translation */
    uint16_t off;  /* of the guest instruction */
    uint8_t bits;  /* JIT_SITE_* */
    uint8_t redo;  /* what makes the flags: 1 and up in the translation's jit_redo; 0: in cpu->fl */
    uint32_t insn; /* offset of its jit_insn, or a group's jit_tb; 0: it has none yet */
};
#define JIT_SITE_EF    0x01u /* where it goes on, the flags are in EFLAGS, too */
#define JIT_SITE_FPU   0x02u /* SSE and AVX registers are in the host's */
#define JIT_SITE_X87   0x04u /* the x87 state is live */
#define JIT_SITE_GROUP 0x08u /* a group's check: group.c */
#define JIT_SITE_LEFT  0x80u /* (jit_resume) the host's calls are to be forgotten */

/* How flags are made again: redo.c. Registers are as they are behind the instruction. */
enum jit_redo_kind { JIT_REDO_NONE, JIT_REDO_CMP, JIT_REDO_TEST, JIT_REDO_ADD, JIT_REDO_SUB };
struct jit_redo {
    uint8_t kind;     /* enum jit_redo_kind */
    uint8_t dst, src; /* guest registers; src 0xff: imm */
    uint8_t size;     /* bytes */
    int32_t imm;
};

/* A direct jump to another translation, or to the stub that looks for it. */
struct jit_link {
    struct jit_link *next; /* of those that lead to the same translation */
    uint8_t *site;         /* the displacement, in the writable mapping */
    const uint8_t *stub;   /* likewise */
    struct jit_tb *from;
    uint64_t rip;    /* relative, as the translation's */
    uint16_t single; /* of the translation that is wanted */
    bool fl;         /* the flags are in cpu->fl here, else in EFLAGS */
};

struct jit_tb {
    /* What a look-up reads, in one of the host's cache lines: most look-ups miss its caches. */
    struct jit_tb *next; /* in its hash bucket */
    uint64_t rip;        /* relative to cpu->jit_page */
    uint64_t roff;
    const uint8_t *entry; /* host code; flags in cpu->fl; executable, as the others */
    const uint8_t *far;   /* `entry` for those from other pages: RAX is RIP */
    unsigned mode;        /* index into jit->mode */
    uint32_t gen;         /* of the page */
    uint16_t single;      /* not 0: made for so many bytes, each access with its own TLB check */
    uint16_t len, count;  /* guest bytes, instructions */
    bool pic;             /* any linear address */
    bool cross;           /* a single instruction that reaches into page roff2 */
    bool alone;           /* begins with an instruction that only one engine can execute */
    bool hot;             /* made for speed; else for size: hot.c */

    struct jit_tb *page_next[2]; /* of those that begin in the page, that reach into it */
    uint64_t roff2;
    uint32_t gen2;
    uint32_t host_len;
    struct jit_site *site;
    struct jit_redo *redo;
    const uint8_t *start;
    const uint8_t *entry_ef; /* flags in EFLAGS */
    const uint8_t *body;     /* `entry` without the look at cpu->jit_stop */
    size_t number;           /* in the log */
    uint64_t runs;           /* counted if jit->counting */
    struct jit_link *in;
    struct jit_tb *instead; /* a hot one that has taken its place */
};
#define JIT_TB_ALIGN 64u

/* A page of RAM with translations. */
struct jit_page {
    struct jit_page *next;
    uint64_t roff;
    uint32_t gen;
    struct jit_tb *tb[2]; /* that begin there, that reach into it: by page_next */
};

#define JIT_RECENTS   64u
#define JIT_MODES     256u
#define JIT_GENS      256u
#define JIT_TB_BITS   18
#define JIT_BUCKETS   (1u << JIT_TB_BITS)
#define JIT_PAGE_BITS 11
#define JIT_TB_INSNS  32u

/* Code that all translations share (thunks.c); addresses in the executable mapping. */
struct jit_thunks {
    void (*enter)(const uint8_t *host); /* from C: executes until something leaves */
    const uint8_t *leave;               /* back to the caller of enter() */
    const uint8_t *stop;                /* the same, with registers to be stored; s.rip is set */
    const uint8_t *dispatch;            /* continue at s.rip, without the host's calls */
    const uint8_t *dispatch_keep;       /* the same with them */
    const uint8_t *dispatch_rel;        /* dispatch_keep at cpu->jit_page + (signed) EAX */
    /* Jumped to; RAX: the target of a return that the host's stack does not lead to, R11: offset of
     * its jit_insn; flags in cpu->fl. */
    const uint8_t *ret;
    const uint8_t *interp;     /* called; EAX: offset of a jit_insn; comes back or dispatches */
    const uint8_t *interp_end; /* jumped to; EAX likewise; dispatches */
    const uint8_t *link_fl, *link_ef; /* jumped to; EAX: offset of a jit_link */
    /* Called; RAX: tag, R11: offset of the TLB set; for reading, writing. ZF: R11 is the addend. */
    const uint8_t *ways[2][X86_NMMU];
    /* Called; RAX: address; by the size's logarithm. R11: host address. Through `slow` if it cannot
     * be had. Flags must be in cpu->fl, or the site must know, from here on until `call_abs`.
     * H_HELD is lost in the first. */
    const uint8_t *check[2][X86_NMMU][6], *check_held[2][X86_NMMU][6];
    const uint8_t *check_range[2][X86_NMMU]; /* the same for RAX to R11; H_HELD: addend */
    const uint8_t *slow;                     /* jumped to, behind a site's call: jit_c_slow() */
    const uint8_t *hot;                      /* called by a site: jit_c_hot() */
    /* Jumped to: to cpu->jit_page + (signed) EAX, to RAX, through the jump cache; by whether the
     * code is in a global page. */
    const uint8_t *jump_rel[2], *jump_abs[2];
    /* The same called by a guest's call, the return address having been pushed. */
    const uint8_t *call_rel[2], *call_abs[2];
    /* Jumped to: to RAX, in whatever mode the vCPU is now. */
    const uint8_t *jump_any;
    const uint8_t *syscall, *sysret; /* jumped to: syscall.c */
    const uint8_t *iret;             /* jumped to: iret.c */
    const uint8_t *iret_slow;        /* as interp_end, for jit_c_iret() */
    /* Jumped to; RAX: the operand, R11: offset of the jit_insn, H_HELD: RIP behind it: paging.c */
    const uint8_t *mov_cr3, *invlpg;
    const uint8_t *rdmsr, *wrmsr; /* called; CF: done; RAX, R11: the value: msr.c */
    const uint8_t *tsc;           /* called; CF: RAX is the guest's TSC; RDX is lost: tsc.c */
    const uint8_t *dead; /* jumped to from the `far` of a translation that was killed; RAX: RIP */
    const uint8_t
        *raced; /* called; RAX: host address, R11D: size of a store, as in jit_c_raced() */
    const uint8_t *fpu_load; /* called */
    const uint8_t *x87_load; /* called */
    void (*x87_save)(void);  /* from C */
};

/* A mode that was looked for, by a hash of it. */
struct jit_recent {
    struct jit_mode mode;
    unsigned index;
    bool valid;
};

/* One instruction while it is translated. */
struct jit_src {
    struct x86_insn i;
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    uint8_t bytes[15];
    uint16_t off; /* from the start of the translation */
    bool alone;   /* see jit_tb.alone */
    /* Bits by ZydisRegisterClass: of all registers that are operands, of those that are written in
     * the instruction's text. */
    uint32_t classes, visible;
};
static inline bool jit_has(uint32_t classes, ZydisRegisterClass c)
{
    return classes >> c & 1;
}
static inline bool jit_has_vector(uint32_t classes)
{
    return jit_has(classes, ZYDIS_REGCLASS_XMM) || jit_has(classes, ZYDIS_REGCLASS_YMM);
}

struct jit {
    uint8_t *rw, *rx; /* two mappings of the code arena */
    uint64_t size, used, thunk_end;
    uint8_t *data; /* translations, instructions, links */
    uint64_t data_size, data_used;
    uint64_t flushes;

    struct jit_tb **bucket;          /* JIT_BUCKETS */
    uint32_t *order, *granule, ntbs; /* translations by their host code's addresses: site.c */
    int32_t heat;                    /* from which translations count down: hot.c */
    uint64_t heat_since;             /* when they began to, in milliseconds */
    struct jit_page *page[1u << JIT_PAGE_BITS];
    struct jit_mode mode[JIT_MODES];
    unsigned modes;
    struct jit_recent recent[JIT_RECENTS];
    unsigned cur_mode, cur_mode_global; /* without JIT_M_GLOBAL, and with */
    uint64_t gens[JIT_GENS];            /* x86_exec_gen() values by their short numbers */
    unsigned ngens;
    unsigned cur_gen, cur_gen_global; /* short numbers */

    uint64_t code_epoch, tlb_epoch;
    unsigned native_flushes;
    struct jit_thunks thunk;
    struct jit_src src[JIT_TB_INSNS];
    struct tr *tr;         /* the translation in the making: tr.h */
    bool full;             /* the last one failed for want of space */
    bool bmi2, avx, xsave; /* of the host */
    /* For comparisons with another engine: a translation that is entered when cpu->jit_stop has
     * been counted down to 0 is not executed, and thunk.enter() returns with s.rip at it;
     * instructions that another engine cannot repeat, or that change more than registers and
     * memory, begin a translation (jit_tb.alone). */
    bool exact;
    bool counting; /* how often translations are entered: log.h */
    struct {
        uint64_t translations, hot, killed, lookups, interps;
    } stat;
};

/* ---- arena.c ---- */
int jit_arena_create(struct jit *j, uint64_t code, uint64_t data, struct error *e);
void jit_arena_destroy(struct jit *j);
/* Behind every growth of `used`, which was `before`: code gets into large pages. */
void jit_arena_grown(struct jit *j, uint64_t before);
/* Zeroed, 8-aligned; NULL: full. */
void *jit_data_alloc(struct jit *j, size_t len);
/* JIT_TB_ALIGN-aligned. */
struct jit_tb *jit_tb_alloc(struct jit *j);
static inline const uint8_t *jit_rx(const struct jit *j, const uint8_t *rw)
{
    return j->rx + (rw - j->rw);
}
static inline uint8_t *jit_rw(const struct jit *j, const uint8_t *rx)
{
    return j->rw + (rx - j->rx);
}
static inline uint32_t jit_data_off(const struct jit *j, const void *p)
{
    return (uint32_t)((const uint8_t *)p - j->data);
}
/* Executes a serializing instruction: code has been changed through another address than it is
 * executed at (SDM vol. 3, 9.1.3). */
void jit_serialize(void);

/* ---- thunks.c ---- */
bool jit_thunks_make(struct x86_cpu *c);

/* `dst`: offset of the TLB set for the address in `addr`; `dst` may be `addr`. Flags are lost. */
void jit_tlb_offset(struct asm_buf *b, bool bmi2, unsigned dst, unsigned addr);
/* `last`, the address of the last byte, becomes the tag; ZF: it is the one of the set's first
 * entry, for reading or writing, `set` being as above. */
void jit_tlb_compare(struct asm_buf *b, enum x86_mmu mmu, bool write, unsigned last, unsigned set);

/* ---- system.c ---- */
/* RFLAGS, but for RF and VM, into EAX; R11 is lost. Flags are in cpu->fl. */
void jit_rflags_get(struct asm_buf *b);
/* RFLAGS and cpu->fl become EAX, all of whose bits are defined; EAX and R11 are lost. */
void jit_rflags_set(struct asm_buf *b);
void jit_test_imm(struct asm_buf *b, struct opnd m, uint32_t bits); /* TEST m32, imm32 */
enum jit_shift { JIT_ROR = 1, JIT_SHL = 4, JIT_SHR = 5, JIT_SAR = 7 };
void jit_shift(struct asm_buf *b, enum jit_shift op, unsigned reg, unsigned count, bool wide);
/* ZF: the address in `reg` is canonical; `tmp` is it if it is. */
void jit_cmp_canonical(struct asm_buf *b, unsigned reg, unsigned tmp);

/* The mode in `key`, which is the offset of cpu->jit_key or jit_key_global, becomes `mode`; flags
 * and `tmp` are lost. The key is stored as a whole: who loads it next would have to wait for the
 * store of a part. */
void jit_set_mode(struct asm_buf *b, int32_t key, unsigned tmp, unsigned mode);

/* ---- tsc.c ---- */

void jit_tsc_thunk(struct asm_buf *b);

/* ZF: no code has been written since that to be executed was looked up. R11 is lost. An instruction
 * that serializes must not go on otherwise (jit.c, code_is_same()). */
void jit_cmp_code_seen(struct asm_buf *b);

/* ---- iret.c ---- */
void jit_iret_thunk(struct jit *j, struct asm_buf *b);
const uint8_t *jit_c_iret(struct x86_cpu *c, struct jit_insn *i);

/* ---- paging.c: they leave vector registers alone ---- */
/* False: nothing was done. */
bool jit_c_mov_cr3(struct x86_cpu *c, uint64_t v);
bool jit_c_invlpg(struct x86_cpu *c, gva_t lin);

/* ---- msr.c ---- */
void jit_rdmsr_thunk(struct asm_buf *b);
void jit_wrmsr_thunk(struct asm_buf *b);

/* ---- syscall.c ---- */
/* The vCPU is at another level now. R11 >> shift: the modes to go on in, of code in pages that are
 * not global and, eight bits further, in global ones. RAX and R11 are lost. */
void jit_set_level(struct asm_buf *b, unsigned shift, unsigned cpl, enum x86_mmu mmu);
/* The host's calls are not returned to. */
void jit_forget_calls(struct asm_buf *b);
void jit_syscall_thunk(struct jit *j, struct asm_buf *b);
void jit_sysret_thunk(struct jit *j, struct asm_buf *b);

/* ---- cache.c ---- */
void jit_flush(struct x86_cpu *c);
/* To the log, of all translations there are. */
void jit_tell_runs(const struct jit *j);
/* The index of a mode, a new one if need be. False: there is no room for another. */
bool jit_mode_find(struct jit *j, const struct jit_mode *m, unsigned *index);
/* The mode of the code at s.rip, apart from JIT_M_GLOBAL. */
void jit_mode_update(struct x86_cpu *c);
/* Kills translations of code that has been written. */
void jit_sync_code(struct x86_cpu *c);
/* The translation at s.rip, made if need be; `single` as in struct jit_tb. Raises #PF, #GP. NULL:
 * it cannot be translated (code in device memory): interpret one instruction. */
struct jit_tb *jit_find(struct x86_cpu *c, unsigned single);
void jit_link_to(struct x86_cpu *c, struct jit_link *l, struct jit_tb *to);
/* `tb` was made anew from the same code and takes the place of `old`, which may be executing. */
void jit_replace(struct x86_cpu *c, struct jit_tb *old, struct jit_tb *tb);
/* RIP * JIT_JUMP_HASH in 32 bits; its upper bits are the place in the jump cache. */
#define JIT_JUMP_HASH  0x9e3779b1u
#define JIT_JUMP_SHIFT 16
unsigned jit_jump_index(uint64_t rip);
/* From a translation's `far` to where it goes on as from `entry`. */
#define JIT_FAR_BYTES 16u
void jit_jump_insert(struct x86_cpu *c, const struct jit_tb *tb);

/* ---- translate.c ---- */
/* As x86_decode_full(); fills in what belongs to the instruction alone. */
unsigned jit_decode(struct x86_cpu *c, const uint8_t *bytes, unsigned avail, unsigned off,
                    struct jit_src *s);
int jit_translator_create(struct jit *j, struct error *e);
void jit_translator_destroy(struct jit *j);
/* NULL: j->full, or the code is in device memory. Raises #PF, #GP. */
struct jit_tb *jit_translate(struct x86_cpu *c, gva_t lin, uint64_t roff, unsigned mode,
                             unsigned single, bool hot);

/* ---- flow.c ---- */
/* Makes the jump go through the jump cache: to an instruction that reaches into another page. */
void jit_link_cached(struct x86_cpu *c, struct jit_link *l);
#define JIT_STUB_MAX 128u
/* R11: offset from cpu->jump of the entry for the RIP in RAX. Flags are lost. */
void jit_jump_place(struct asm_buf *b);
/* Goes on if that entry is the one for RAX, `key` being the offset of cpu->jit_key or
 * jit_key_global. Returns the place of the jump that is taken if not; there RAX is to be combined
 * with the key once more. */
uint8_t *jit_jump_match(struct asm_buf *b, int32_t key);
/* The host address in that entry. */
struct opnd jit_jump_host(void);

/* ---- redo.c ---- */
/* The flags, as in struct x86_cpu, `fl`; all registers are in there. */
uint16_t jit_redo_flags(const struct x86_cpu *c, const struct jit_redo *r);

/* ---- site.c ---- */
#define JIT_TB_LEAST 32u /* bytes of host code */
/* NULL: no memory. */
struct jit_insn *jit_insn_new(struct jit *j, struct jit_tb *tb, const struct jit_src *s);
size_t jit_order_bytes(const struct jit *j);
/* A translation has been written. */
void jit_order_add(struct jit *j, const struct jit_tb *tb);

/* ---- hot.c ---- */
void jit_heat_reset(struct x86_cpu *c);
/* A counter has run out: has that been fast? */
bool jit_is_hot(struct x86_cpu *c);
/* What is to be executed instead of `old`, the translation at s.rip; `old`, if that cannot be had.
 */
struct jit_tb *jit_make_hot(struct x86_cpu *c, struct jit_tb *old);

/* ---- flags.c ---- */
/* Arithmetic flags that the manuals leave undefined behind the first `len` bytes, and whether an
 * instruction among them has read one. */
struct jit_undefined {
    uint32_t flags;
    bool read;
};
struct jit_undefined jit_undefined_flags(struct x86_cpu *c, const struct jit_tb *tb, unsigned len);

/* ---- jit.c ---- */
struct jit_sizes { /* bytes of a vCPU's arenas */
    uint64_t code, data;
    uint64_t decoded; /* for instructions that are stepped over */
    int32_t heat;     /* executions that make a translation hot, less one; 0: as many as usual */
};
/* For tests: the sizes for all vCPUs created from now on, whatever their engines ask for; NULL: as
 * they do. */
void jit_set_sizes(const struct jit_sizes *z);
/* The engine's vcpu_create(), with other sizes; `exact` as in struct jit. */
int jit_create(struct x86_cpu *c, const struct jit_sizes *z, bool exact, struct error *e);
void jit_destroy(struct x86_cpu *c);
/* Before the thread executes translations of the vCPU. */
void jit_bind_thread(struct x86_cpu *c);
/* The translation to continue with. NULL: there is none, see jit_find(). */
struct jit_tb *jit_lookup(struct x86_cpu *c);
/* The same with `single`; it is not for others to find. */
struct jit_tb *jit_lookup_single(struct x86_cpu *c, unsigned single);
/* Behind translated code, before anything that looks at the x87 state. */
void jit_x87_to_memory(const struct x86_cpu *c);

/* called by thunks */
const uint8_t *jit_c_dispatch(struct x86_cpu *c);
const uint8_t *jit_c_link(struct x86_cpu *c, struct jit_link *l);
bool jit_c_interp(struct x86_cpu *c, struct jit_insn *i);
/* The host address to go on at, with cpu->jit_resume; `ret`: behind the site's call. */
const uint8_t *jit_c_slow(struct x86_cpu *c, const uint8_t *ret);
const uint8_t *jit_c_hot(struct x86_cpu *c, const uint8_t *ret);
/* `size`: in bytes; with JIT_RACED_HELD, more stores follow by the check that this one passed. */
#define JIT_RACED_HELD 0x80u
void jit_c_raced(struct x86_cpu *c, const void *host, unsigned size);
const uint8_t *jit_c_interp_end(struct x86_cpu *c, struct jit_insn *i);

#endif
