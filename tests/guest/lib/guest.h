/*
 * guest.h - the small kernel under every payload: tests, traps, ports, descriptors.
 *
 * A payload is a set of TEST()s. The kernel runs them in order and prints one line for each on the
 * first serial port: "ok NAME" or "not ok NAME: what differed". Expectations come from the Intel
 * SDM and the datasheets of the chips.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned long ulong; /* the width of a register */

/* ---- tests ---- */

struct test {
    const char *name;
    void (*run)(void);
};

#define TEST(fn, what)                                                                  \
    static void fn(void);                                                               \
    static const struct test fn##_test                                                  \
        __attribute__((section(".tests"), used, aligned(sizeof(void *)))) = {what, fn}; \
    static void fn(void)

/* The test goes on after a difference; the first one is reported. */
#define IS(got, want) check_equal(#got, (uint64_t)(got), (uint64_t)(want), __LINE__)
#define OK(cond)      check_equal(#cond, (cond) ? 1 : 0, 1, __LINE__)

void check_equal(const char *what, uint64_t got, uint64_t want, int line);
void skip(const char *why); /* this test cannot be run here; it returns after that */
void note(const char *text, uint64_t value);
_Noreturn void power_off(void);
void *memset(void *p, int c, size_t n);
void *memcpy(void *p, const void *q, size_t n);

/* ---- traps ---- */

struct frame {
#ifdef __x86_64__
    ulong r15, r14, r13, r12, r11, r10, r9, r8, di, si, bp, bx, dx, cx, ax;
#else
    ulong gs, fs, es, ds, di, si, bp, unused, bx, dx, cx, ax;
#endif
    ulong vector, error, ip, cs, flags, sp, ss;
#ifndef __x86_64__
    ulong v86_es, v86_ds, v86_fs, v86_gs;
#endif
};

#define NO_TRAP 256

extern struct frame trap; /* the last one caught */
extern ulong trap_cr2, trap_dr6;

typedef void handler_fn(struct frame *f);
/* Called for a vector instead of catching it; NULL: catch again. Any CPU. */
void set_handler(unsigned vector, handler_fn *fn);

extern ulong trap_resume, trap_sp;

#ifdef __x86_64__
#define PROBE_ENTER "movq $77f, trap_resume\n\tmovq %%rsp, trap_sp\n\t"
#define PROBE_LEAVE "\n77:\tmovq $0, trap_resume"
#else
#define PROBE_ENTER "movl $77f, trap_resume\n\tmovl %%esp, trap_sp\n\t"
#define PROBE_LEAVE "\n77:\tmovl trap_sp, %%esp\n\tmovl $0, trap_resume"
#endif
/* PROBE("insn", outputs : inputs : clobbers): executes it here; the vector that it raised, or
 * NO_TRAP. */
#define PROBE(insn, ...)                                              \
    ({                                                                \
        trap.vector = NO_TRAP;                                        \
        __asm__ volatile("" : : : "memory");                          \
        __asm__ volatile(PROBE_ENTER insn PROBE_LEAVE : __VA_ARGS__); \
        __asm__ volatile("" : : : "memory");                          \
        trap.vector;                                                  \
    })

/* Continues at `f`, at whatever privilege; returns the vector of the next trap that is caught. */
unsigned run_frame(const struct frame *f);

void set_gate(unsigned vector, unsigned dpl, unsigned type, unsigned ist);
#define GATE_INT  0xe
#define GATE_TRAP 0xf

/* Error codes */
#define PF_P 1
#define PF_W 2
#define PF_U 4
#define PF_R 8
#define PF_I 16

enum { DE, DB, NMI, BP, OF, BR, UD, NM, DF, TS = 10, NP, SS, GP, PF, MF = 16, AC, MC, XM };

/* ---- descriptors ---- */

#define K_CS32   0x08
#define K_CS64   0x10
#define K_DS     0x18
#define U_CS32   0x23
#define U_DS     0x2b
#define U_CS64   0x33
#define K_TSS    0x40
#define FREE_SEL 0x50 /* the first selector that tests may use */
#define GDT_LEN  64
#ifdef __x86_64__
#define K_CS K_CS64
#else
#define K_CS K_CS32
#endif

struct dtr {
    uint16_t limit;
    ulong base;
} __attribute__((packed));

extern uint64_t gdt[GDT_LEN], idt[256 * sizeof(ulong) / 4];
extern uint8_t tss[0x68 + 8192 + 40];
#define TSS_IOMAP \
    0x90 /* where the I/O permission map starts, behind room for the redirection map */
/* access: bits 40..47, flags: bits 52..55 */
uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags);
void set_kernel_stack(ulong sp); /* for traps from lower privilege */
extern uint8_t *const trap_stack_top;

/* ---- instructions ---- */

static inline uint8_t inb(uint16_t port)
{
    uint8_t v;
    __asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint16_t inw(uint16_t port)
{
    uint16_t v;
    __asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline uint32_t inl(uint16_t port)
{
    uint32_t v;
    __asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}
static inline void outb(uint16_t port, uint8_t v)
{
    __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static inline void outw(uint16_t port, uint16_t v)
{
    __asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}
static inline void outl(uint16_t port, uint32_t v)
{
    __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

#define CR(n)                                                          \
    static inline ulong get_cr##n(void)                                \
    {                                                                  \
        ulong v;                                                       \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v) : : "memory"); \
        return v;                                                      \
    }                                                                  \
    static inline void set_cr##n(ulong v)                              \
    {                                                                  \
        __asm__ volatile("mov %0, %%cr" #n : : "r"(v) : "memory");     \
    }
CR(0)
CR(2)
CR(3)
CR(4)

#define DR(n)                                                      \
    static inline ulong get_dr##n(void)                            \
    {                                                              \
        ulong v;                                                   \
        __asm__ volatile("mov %%dr" #n ", %0" : "=r"(v));          \
        return v;                                                  \
    }                                                              \
    static inline void set_dr##n(ulong v)                          \
    {                                                              \
        __asm__ volatile("mov %0, %%dr" #n : : "r"(v) : "memory"); \
    }
DR(0)
DR(1)
DR(2)
DR(3)
DR(6)
DR(7)

static inline uint64_t rdmsr(uint32_t msr)
{
    uint32_t lo, hi;
    __asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
    return (uint64_t)hi << 32 | lo;
}
static inline void wrmsr(uint32_t msr, uint64_t v)
{
    __asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
#define PROBE_WRMSR(msr, v)                                                    \
    PROBE("wrmsr",                                                             \
          : "c"(msr), "a"((uint32_t)(v)), "d"((uint32_t)((uint64_t)(v) >> 32)) \
          : "memor"                                                            \
            "y")

static inline uint64_t rdtsc(void)
{
    uint32_t lo, hi;
    __asm__ volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
    return (uint64_t)hi << 32 | lo;
}
static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t r[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "a"(leaf), "c"(sub));
}
static inline void invlpg(const volatile void *p)
{
    __asm__ volatile("invlpg (%0)" : : "r"(p) : "memory");
}
static inline ulong get_flags(void)
{
    ulong f;
    __asm__ volatile("pushf; pop %0" : "=r"(f) : : "memory");
    return f;
}
static inline void sti(void)
{
    __asm__ volatile("sti" : : : "memory");
}
static inline void cli(void)
{
    __asm__ volatile("cli" : : : "memory");
}
static inline void pause(void)
{
    __asm__ volatile("pause" : : : "memory");
}

#define FL_CF    1u
#define FL_ZF    0x40u
#define FL_TF    0x100u
#define FL_IF    0x200u
#define FL_NT    0x4000u
#define FL_RF    0x10000u
#define FL_VM    0x20000u
#define FL_AC    0x40000u
#define FL_VIF   0x80000u
#define FL_VIP   0x100000u
#define FL_IOPL3 0x3000u

#define CR0_PE         1u
#define CR0_MP         2u
#define CR0_EM         4u
#define CR0_TS         8u
#define CR0_NE         0x20u
#define CR0_WP         0x10000u
#define CR0_AM         0x40000u
#define CR0_NW         0x20000000u
#define CR0_CD         0x40000000u
#define CR0_PG         0x80000000u
#define CR4_VME        1u
#define CR4_PVI        2u
#define CR4_TSD        4u
#define CR4_DE         8u
#define CR4_PSE        0x10u
#define CR4_PAE        0x20u
#define CR4_PGE        0x80u
#define CR4_PCE        0x100u
#define CR4_OSFXSR     0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_UMIP       0x800u
#define CR4_FSGSBASE   0x10000u
#define CR4_PCIDE      0x20000u
#define CR4_OSXSAVE    0x40000u
#define CR4_SMEP       0x100000u
#define CR4_SMAP       0x200000u
#define EFER           0xc0000080u
#define EFER_SCE       1u
#define EFER_LME       0x100u
#define EFER_LMA       0x400u
#define EFER_NXE       0x800u

#endif
