/*
 * diff.h - the differential test: one instruction, from the same state, on the processor this runs
 * on and in an engine; everything that a program can see afterwards must be the same.
 *
 *   forms.c    which instructions there are: the opcode maps, enumerated
 *   encode.c   one case's encoding of a form: registers, addressing, immediates
 *   cases.c    one case's state: registers, flags, FPU modes, memory
 *   special.c  instructions whose operands must be chosen for anything to happen
 *   native.c   the processor's side; native_run.c: its throw-away process
 *   layout.c   the LDT of both sides
 *   guest.c    the engine's side
 *   compare.c  the comparison
 *   amd.c      what AMD's processors do otherwise than Intel's
 *   freedoms.c what need not or cannot agree, in one table
 *   diff.c     options, worker processes, report
 *   torture.c  another program: blocks of such instructions, engine against engine
 *
 * Both sides see one linear address space. Everything not listed is unmapped:
 *
 *   CODE_AT  two pages, read and execute
 *   DATA_AT  two pages read and write, one page read only; none of them executable
 *
 * 64-bit code has flat segments, and FS and GS with a base; 32-bit code has flat ones and GS with a
 * base; 16-bit code has CS and data segments with a base and 64 KiB, from the LDT.
 */
#ifndef SOSIA_TESTS_DIFF_H
#define SOSIA_TESTS_DIFF_H

#include <Zydis/Zydis.h>

#include "base/types.h"
#include "engine/engine.h"

#define CODE_AT    0x10000000u
#define CODE_PAGES 2u
#define DATA_AT    0x20000000u
#define DATA_RW    2u /* pages */
#define DATA_PAGES 3u
#define DATA_SIZE  (DATA_PAGES * 4096u)
#define CODE_SIZE  (CODE_PAGES * 4096u)
#define DATA_SEG   (DATA_AT - 0x4000u) /* base of 16-bit code's data segments */
#define FS_BASE    0x00100000u         /* in 64-bit mode */
#define GS_BASE    0x1ff00000u

/* Selectors, as Linux has them, and of our LDT. */
#define SEL_CS32   0x23u
#define SEL_DS     0x2bu
#define SEL_CS64   0x33u
#define SEL_LDT(n) ((n)*8u + 7u)
#define SEL_CS16   SEL_LDT(0)
#define SEL_DATA   SEL_LDT(1)
#define LDT_COUNT  7u
#define LDT_FLAT   0xfffffu

struct ldt_entry { /* arguments of modify_ldt(2) */
    uint32_t base, limit;
    uint8_t contents; /* 0: data, 1: expand-down, 2: code */
    bool big, read_exec_only, pages, absent;
};
extern const struct ldt_entry diff_ldt[LDT_COUNT];

enum diff_mode { MODE_64, MODE_32, MODE_16, NMODES };
static inline unsigned mode_bits(enum diff_mode m)
{
    return m == MODE_64 ? 64 : m == MODE_32 ? 32 : 16;
}

/* Classes: a TAP point for each in each mode. */
enum diff_class { CLASS_INT, CLASS_FLOW, CLASS_SYS, CLASS_X87, CLASS_SSE, CLASS_AVX, NCLASSES };

struct form {
    uint64_t key;
    enum diff_mode mode;
    enum diff_class cls;
    ZydisMnemonic mnemonic;
    bool vex;
    uint8_t map; /* 0: one-byte opcodes, 1: 0F, 2: 0F38, 3: 0F3A */
    uint8_t opcode;
    bool opsize, addrsize, lock, w, l;
    uint8_t rep; /* 0, F2 or F3; VEX: also 66 */
    bool modrm, mem;
    bool free_reg, free_rm, free_op, free_vvvv; /* fields that hold nothing but a register number */
    uint8_t reg, rm;
};

/* What the processor has before and after. `gpr` are cut to 32 bits outside 64-bit mode. */
struct regs {
    uint64_t gpr[16];
    uint64_t rip, rflags;
    uint64_t fs_base, gs_base;
    uint16_t seg[X86_NSEG];
    struct x86_xsave fpu;
};

#define PATCH_MAX  1024u
#define INSN_MAX   16u
#define POOL_PAGES 8u /* initial contents of the data pages to choose from */

struct input {
    struct regs r;
    uint8_t code[INSN_MAX];
    uint8_t len;
    bool tf;
    uint8_t pool;
    uint32_t code_off; /* of the instruction, from CODE_AT */
    uint16_t npatch;   /* bytes of `patch` that go to `patch_off` in the data pages */
    uint16_t patch_off;
    uint8_t patch[PATCH_MAX];
};

struct output {
    struct regs r;
    uint8_t vector; /* of the exception that ended it */
    uint32_t error;
    uint64_t cr2; /* #PF only */
    bool lost;    /* it did not end */
    uint8_t data[DATA_SIZE];
};

/* A decoded instruction and its operands. */
struct insn {
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

/* ---- random numbers ---- */
struct rng {
    uint64_t s;
};
static inline uint64_t rnd(struct rng *r) /* splitmix64 */
{
    uint64_t z = (r->s += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}
static inline unsigned rnd_n(struct rng *r, unsigned n) /* 0 .. n-1 */
{
    return (unsigned)((rnd(r) >> 32) * n >> 32);
}
static inline bool rnd_pct(struct rng *r, unsigned percent)
{
    return rnd_n(r, 100) < percent;
}

/* ---- forms.c ---- */
void insn_init(void);
bool insn_decode(enum diff_mode m, const uint8_t *code, unsigned len, struct insn *out);
/* What makes two encodings the same form. */
uint64_t insn_key(enum diff_mode m, const struct insn *i);
/* The shortest encoding, displacement and immediate being zero. */
void form_plain_code(const struct form *f, uint8_t code[INSN_MAX]);
struct form *forms_enumerate(enum diff_mode m, struct form *list, unsigned *count, unsigned *room);
void form_name(const struct form *f, char *buf, unsigned len);

/* ---- encode.c ---- */
void encode_case(const struct form *f, struct rng *g, struct input *in, struct insn *out);

/* ---- cases.c ---- */
struct pool { /* shared by both sides */
    uint8_t data[POOL_PAGES][DATA_SIZE];
};
void pool_fill(struct pool *p, uint64_t seed);
void make_case(const struct form *f, struct rng *g, struct input *in, struct insn *i);
void random_fpu(struct rng *g, struct x86_xsave *x);
uint64_t random_gpr(struct rng *g, enum diff_mode m);

/* For special.c: where the instruction's memory operand is, and access to what lies there. */
struct placement {
    bool any;
    uint64_t at; /* linear address */
    unsigned size;
};
/* Bytes of the patch at a linear address, to be changed; NULL outside it. */
uint8_t *patch_at(struct input *in, uint64_t lin, unsigned size);
bool addresses_with(const struct insn *i, unsigned gpr);
bool split_sensitive(const struct insn *i);
unsigned mem_size(const struct insn *i, const ZydisDecodedOperand *o);
uint64_t get_reg(const struct regs *r, ZydisRegister reg);
void set_reg(struct regs *r, enum diff_mode m, ZydisRegister reg, uint64_t v);

/* ---- special.c ---- */
void special_operands(const struct form *f, struct rng *g, const struct insn *i,
                      const struct placement *p, struct input *in);

/* ---- native.c ---- */
struct native;
/* NULL: this host cannot; *why says what is missing. */
struct native *native_create(const struct pool *pool, unsigned max, const char **why);
void native_destroy(struct native *n);
bool native_has_mode(const struct native *n, enum diff_mode m);
struct input *native_inputs(struct native *n);
const struct output *native_outputs(const struct native *n);
void native_start(struct native *n, unsigned count);
/* Number of finished cases: less than `count` if the process died; the next start has a new one. */
unsigned native_wait(struct native *n);

/* ---- guest.c ---- */
struct guest;
struct guest *guest_create(const struct engine *e, const struct pool *pool);
void guest_destroy(struct guest *g);
void guest_run(struct guest *g, enum diff_mode m, const struct input *in, struct output *out);
/* The same for a block of instructions, which may be interrupted by X86_PEND_INTR any time; it ends
 * by an exception (ENGINE_EXIT_HALT), or after many interrupts (ENGINE_EXIT_KICK). */
#define GUEST_VECTOR 0xf0
enum engine_exit guest_run_block(struct guest *g, enum diff_mode m, const struct input *in,
                                 const uint8_t *code, unsigned len);
struct x86_cpu *guest_cpu(struct guest *g);
/* Is it in the processor model? */
bool guest_offers(const struct guest *g, const struct form *f);

/* ---- freedoms.c ---- */
/* Why an instruction is not compared, or NULL. */
const char *freedom_excluded(const struct insn *i);
/* Flags that the manual leaves undefined after this case. */
uint32_t freedom_flags(const struct insn *i, const struct input *in);
/* May the processor meet the parts of its operand in any order? */
bool freedom_fault_address(const struct insn *i);
/* If it faults, may it have loaded any part of the state, and does the order of the faults matter?
 */
bool freedom_partial_load(const struct insn *i);
/* Has it no defined place for a single-step trap? */
bool freedom_trap(const struct insn *i);
/* May it or may it not check alignment? */
bool freedom_alignment(const struct insn *i);
/* Does the processor keep the x87 pointers of this state to itself? */
bool freedom_pointers(const struct x86_xsave *nat);
/* Prints the table. */
void freedom_print(void);

/* ---- amd.c ---- */
bool amd_host(void);
/* Makes of what an AMD processor did what Intel's do, as far as it is known how they differ. True:
 * the case ended in a way that cannot be compared. */
bool amd_adapt(const struct insn *i, const struct input *in, struct output *nat,
               const struct output *gst);
void amd_print(void);

/* ---- compare.c ---- */
/* True if equal; otherwise `text` says what differs. */
bool compare_case(enum diff_mode m, const struct insn *i, const struct input *in,
                  const struct output *nat, const struct output *gst, char *text, unsigned len);

#endif
