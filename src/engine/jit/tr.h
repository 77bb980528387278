/*
 * tr.h - one translation in the making: what the files that write its code share.
 *
 * Code is written in two parts: the straight path, and behind it the *cold* pieces, where rare
 * cases go and mostly come back from.
 */
#ifndef SOSIA_ENGINE_JIT_TR_H
#define SOSIA_ENGINE_JIT_TR_H

#include "engine/jit/jit.h"
#include "engine/jit/regs.h"

enum cold_kind {
    COLD_INTERP, /* execute the instruction by its semantic function, come back behind it */
    COLD_GROUP,  /* continue with a translation that has no groups */
    COLD_TLB,    /* look into the TLB's other ways, refill it, come back */
    COLD_RACED,  /* report a store, come back */
    COLD_GOTO,   /* set RIP and dispatch */
    COLD_BRANCH, /* the taken side of a conditional branch */
    COLD_CALLS,  /* forget the host's calls, come back */
    COLD_LINK,   /* the stub of a link */
    COLD_HOT,    /* executed often: make it anew */
};

#define COLD_SITES 4u

struct cold {
    enum cold_kind kind;
    uint8_t *site[COLD_SITES]; /* displacements of the jumps here */
    uint8_t nsites;
    uint8_t size;         /* COLD_RACED */
    bool ef, fl;          /* where the flags are here (COLD_BRANCH), or must be on return */
    struct opnd host;     /* COLD_RACED */
    struct jit_insn *ji;  /* COLD_INTERP */
    struct jit_redo redo; /* COLD_INTERP, COLD_GROUP: what makes the flags */
    const struct jit_src *x87_last; /* COLD_INTERP, COLD_GROUP: before it */
    struct cold *slow;              /* COLD_TLB: where to go if that fails */
    const uint8_t *thunk;
    const uint8_t *at;  /* where it was written */
    uint64_t rip, from; /* COLD_GOTO, COLD_BRANCH, COLD_GROUP; COLD_HOT: from the start */
    bool fpu;           /* COLD_HOT: see JIT_SITE_FPU */
    uint8_t *back;
    struct jit_link *link; /* COLD_LINK */
};

/* Accesses that share a TLB check: group.c. */
struct held {
    bool active, write;
    unsigned base;        /* guest register */
    unsigned first, last; /* instructions */
    unsigned last_write;
    int64_t lo, hi; /* the range, relative to the register at `first` */
    int64_t at;     /* how far it has moved since */
};

/* An instruction has fewer than eight pieces, and fewer than three sites. */
#define COLD_MAX (8u * JIT_TB_INSNS)
#define SITE_MAX (3u * JIT_TB_INSNS)

struct tr {
    struct jit *j;
    struct x86_cpu *c;
    struct jit_tb *tb;
    const struct jit_mode *m;
    struct asm_buf b;
    unsigned n; /* instructions */
    gva_t lin;

    bool ef, fl;          /* the guest's flags are in EFLAGS, in cpu->fl */
    struct jit_redo redo; /* how they are made again, if they can be */
    bool redo_ends;       /* but not behind this instruction */
    bool fpu; /* the translation keeps the guest's SSE and AVX registers in the host's */
    bool x87; /* likewise the x87 state */
    bool smp;
    bool small;          /* memory is checked by thunks */
    bool failed;         /* out of data */
    struct jit_src *s;   /* the instruction at hand */
    struct jit_insn *ji; /* its copy, once it has one */
    struct cold *slow;   /* its COLD_INTERP, once it has one */
    bool leaves;         /* if its function is called, that does not come back */
    unsigned site0;      /* its first site */
    /* The last x87 instruction, if FIP and FOP are still to be set to it. */
    const struct jit_src *x87_last;
    uint8_t *label[JIT_TB_INSNS]; /* host code of each instruction that jumps lead back to */
    bool target[JIT_TB_INSNS];    /* they do */
    uint8_t want[JIT_TB_INSNS];   /* enum want: where the flags are at such a label */
    unsigned poll_behind;         /* the instruction behind STI; 0: none */
    struct held held;             /* in H_HELD */
    unsigned nsites, nredo;
    struct jit_redo redos[JIT_TB_INSNS]; /* of sites */
    struct jit_site site[SITE_MAX];
    unsigned ncold;
    struct cold cold[COLD_MAX];
};

/* Where code wants the flags, by what it does with them first. */
enum want { WANT_FL, WANT_EF, WANT_ANY };

static inline bool tr_code64(const struct tr *t)
{
    return !(t->m->bits & (JIT_M_CODE16 | JIT_M_CODE32));
}
static inline enum jit_segkind tr_seg(const struct tr *t, unsigned seg)
{
    return (t->m->bits >> (JIT_M_SEG_SH + 2 * seg)) & 3;
}

/* ---- state of the flags (redo.c) ---- */
/* Makes cpu->fl valid. RAX is lost. */
void tr_need_fl(struct tr *t);
/* EFLAGS are free, and cold pieces that begin now know how to make cpu->fl valid: needed before
 * anything that changes EFLAGS or may fault. RAX is lost. */
void tr_free_ef(struct tr *t);
/* Makes EFLAGS valid. RAX is lost. */
void tr_need_ef(struct tr *t);
/* An instruction has written all it writes, to EFLAGS. */
void tr_flags_written(struct tr *t);
/* Lets the site know how to make cpu->fl valid. */
void tr_redo_site(struct tr *t, struct jit_site *s);
/* Makes EFLAGS valid. */
void tr_redo(struct tr *t, const struct jit_redo *r);
/* Around each instruction. */
void tr_flags_begin(struct tr *t);
void tr_flags_end(struct tr *t);
static inline void tr_clobber_ef(struct tr *t)
{
    t->ef = false;
}

/* ---- RIPs: those of a translation are relative to cpu->jit_page ---- */
/* The real one into a register; no flags. */
void tr_rip(struct asm_buf *b, bool pic, unsigned dst, uint64_t rip);

/* ---- cold pieces (cold.c) ---- */
struct cold *tr_cold(struct tr *t, enum cold_kind kind);
void tr_cold_site(struct tr *t, struct cold *k, uint8_t *site);
/* The instruction's COLD_INTERP; NULL: failed. */
struct cold *tr_slow(struct tr *t);
/* A jump to it; flags must be in cpu->fl. */
void tr_slow_if(struct tr *t, unsigned cc);
/* Behind the instruction: where its COLD_INTERP and its sites come back to. */
void tr_slow_back(struct tr *t);
/* The translation counts that it goes on at the instruction at `off`; with `fpu`, it may have SSE
 * and AVX registers in the host's. Flags are in cpu->fl, and lost in EFLAGS. */
void tr_count_heat(struct tr *t, unsigned off, bool fpu);
/* A call of a thunk that finds out by a site. Flags must be in cpu->fl. */
void tr_call_site(struct tr *t, const uint8_t *thunk, unsigned bits);
struct jit_insn *tr_insn(struct tr *t);
void tr_cold_emit(struct tr *t);
/* The instruction by its semantic function, on the straight path. */
void tr_interp(struct tr *t);

/* ---- memory (mem.c) ---- */
enum { ACC_R = 1, ACC_W = 2, ACC_LOCK = 4 };
/* The instruction's memory operand, checked, as an operand of a host instruction that uses R11 and
 * possibly RAX. If there is a check, flags are in cpu->fl afterwards. False: leave the instruction
 * to tr_interp(). */
bool tr_mem(struct tr *t, unsigned size, unsigned acc, unsigned align, struct opnd *m);
bool tr_stack_can(const struct tr *t);
bool tr_mem_can(const struct tr *t, const struct x86_insn *i); /* tr_mem() would not refuse */
/* The same for [SS:base + disp] with the width of the stack; `base` is RSP or RBP. */
bool tr_stack(struct tr *t, unsigned base, int32_t disp, unsigned size, unsigned acc,
              struct opnd *m);
/* The operand in R11 alone: RAX is free, and the instruction may change the address's registers. */
void tr_mem_fix(struct tr *t, struct opnd *m);
static inline void tr_mem_free_rax(struct tr *t, struct opnd *m)
{
    if (m->base == H_RAX)
        tr_mem_fix(t, m);
}
/* Mandatory behind every instruction that has stored to `m`. */
void tr_stored(struct tr *t, struct opnd m, unsigned size);
/* The effective address (without the segment) into `dst`. */
void tr_ea(struct tr *t, const struct x86_insn *i, unsigned dst);
/* Adds the segment's base to it. Flags are lost. */
void tr_add_base(struct tr *t, unsigned seg, unsigned at);

/* ---- registers ---- */
/* Does the instruction write any part of it? */
bool tr_writes(const struct jit_src *s, unsigned guest);
static inline unsigned tr_reg(unsigned guest)
{
    return jit_host_reg[guest & 15];
}
/* Guest register into `tmp`, unless it is in a host register already; returns where it is. */
unsigned tr_get(struct tr *t, unsigned guest, unsigned tmp);
/* Writes back what tr_get() loaded, or moves from `host` to the guest register. 64 bits. */
void tr_put(struct tr *t, unsigned guest, unsigned host);

/* ---- instructions: false: not one of ours, or not in this form; nothing was written ---- */
bool tr_integer(struct tr *t);
bool tr_move(struct tr *t);
bool tr_simd(struct tr *t);
bool tr_is_simd(const struct tr *t, const struct jit_src *s); /* will tr_simd() take it? */
bool tr_x87(struct tr *t);
/* Will tr_x87() need the state live for it? */
bool tr_is_x87(const struct tr *t, const struct jit_src *s);
/* May its semantic function access the x87 or MMX state? */
bool tr_touches_x87(const struct jit_src *s);
/* It ends the translation: errors may be masked, unmasked or pending behind it. */
bool tr_x87_may_end(const struct tr *t, const struct jit_src *s);
/* FIP and FOP as `s` sets them. RAX is lost. */
void tr_x87_tell(struct tr *t, const struct jit_src *s);
/* The same for t->x87_last: needed before anything but straight code that is not interpreted. */
void tr_x87_settle(struct tr *t);
bool tr_flow(struct tr *t, bool *end);
/* An instruction with a ModRM byte, its registers and address replaced (generic.c). */
bool tr_generic(struct tr *t);
bool tr_generic_can(const struct tr *t, const struct jit_src *s);

/* ---- groups (group.c) ---- */
/* Does the instruction's access by this register begin a group? Then t->held describes it. */
bool tr_group_begin(struct tr *t, unsigned base);
/* Has the access been checked already? */
bool tr_group_has(const struct tr *t, unsigned base, int64_t from, unsigned size, bool write);
/* Another store of the group follows this instruction's. */
bool tr_group_stores(const struct tr *t);
void tr_group_step(struct tr *t); /* behind each instruction */

/* ---- system.c ---- */
bool tr_system(struct tr *t, bool *end);
/* The numbers of a mode, for code in pages that are not global and in global ones. False: there is
 * no room for them. */
bool tr_modes(struct tr *t, struct jit_mode m, unsigned *plain, unsigned *global);
bool tr_syscall(struct tr *t, bool *end); /* syscall.c */
bool tr_iret(struct tr *t, bool *end);    /* iret.c */
bool tr_tsc(struct tr *t);                /* tsc.c */
bool tr_mov_cr3(struct tr *t, bool *end); /* paging.c */
bool tr_invlpg(struct tr *t, bool *end);
bool tr_rdmsr(struct tr *t); /* msr.c */
bool tr_wrmsr(struct tr *t);

/* ---- flow (flow.c) ---- */
/* Looks at cpu->pending; if it is set, leaves the translation, to continue at `rip`. */
void tr_link_stub(struct tr *t, struct jit_link *l);
void tr_poll(struct tr *t, uint64_t rip);
void tr_goto_mode(struct tr *t, uint64_t rip); /* to code of the mode that cpu->jit_key says now */
void tr_goto(struct tr *t, uint64_t rip, uint64_t from);
/* To a translation from `rip` on, within this one, that has no groups. */
void tr_goto_single(struct tr *t, uint64_t rip);

/* ---- what an instruction does with the flags (flags.c): X86_FL_ARITH bits ---- */
struct tr_flags {
    uint32_t reads;  /* or leaves alone in some cases */
    uint32_t writes; /* all but those it leaves alone */
};
struct tr_flags tr_flags_of(const struct tr *t, const struct jit_src *s);
enum want tr_want(const struct tr *t, unsigned from);

#endif
