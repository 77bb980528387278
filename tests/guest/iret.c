/*
 * iret.c - IRETQ from CPL 0: what it loads, what it checks each time (SDM vol. 2, IRET).
 */
#include "mem.h"

#define CS        (FREE_SEL + 0u)
#define SS_SEL    (FREE_SEL + 8u)
#define FL_LOADED 0x3c7fd5ul /* but for RF, which PUSHF does not show */

/* To right behind itself. */
static unsigned back(ulong cs, ulong ss)
{
    return (unsigned)PROBE("movq %%rsp, %%rax; pushq %1; pushq %%rax; pushq $2; pushq %0;"
                           "pushq $1f; iretq; 1:",
                           : "r"(cs), "r"(ss)
                           : "rax", "memory");
}

/* It works, which may be remembered. */
static void works(int line)
{
    for (unsigned n = 0; n < 3; n++)
        check_equal("before", back(CS, SS_SEL), NO_TRAP, line);
}
#define FAILS(cs, ss, vector, code)   \
    ({                                \
        works(__LINE__);              \
        IS(back((cs), (ss)), vector); \
        IS(trap.error, code);         \
    })

static void load_gdt(const uint64_t *table, unsigned limit)
{
    struct dtr g = {(uint16_t)limit, (ulong)table};
    __asm__ volatile("lgdt %0" : : "m"(g));
}

static void fill(uint64_t *table)
{
    table[CS / 8] = descriptor(0, 0xfffff, 0x9b, 0xa);
    table[SS_SEL / 8] = descriptor(0, 0xfffff, 0x93, 0xc);
}

/* With that descriptor it does not work; without it, it does again. */
static void refused(unsigned sel, uint64_t desc, unsigned vector, int line)
{
    works(line);
    gdt[sel / 8] = desc;
    check_equal("vector", back(CS, SS_SEL), vector, line);
    check_equal("error", trap.error, sel, line);
    fill(gdt);
    check_equal("after", back(CS, SS_SEL), NO_TRAP, line);
}
#define REFUSED(sel, access, flags, vector) \
    refused(sel, descriptor(0, 0xfffff, access, flags), vector, __LINE__)

TEST(descriptors, "iret: descriptors are looked at each time")
{
    ulong cs, ss;
    fill(gdt);
    for (unsigned n = 0; n < 3; n++) {
        IS(back(CS, SS_SEL), NO_TRAP);
        __asm__ volatile("mov %%cs, %0; mov %%ss, %1" : "=r"(cs), "=r"(ss));
        IS(cs, CS);
        IS(ss, SS_SEL);
        IS(back(K_CS64, K_DS), NO_TRAP);
        __asm__ volatile("mov %%cs, %0; mov %%ss, %1" : "=r"(cs), "=r"(ss));
        IS(cs, K_CS64);
        IS(ss, K_DS);
    }
    REFUSED(CS, 0x1b, 0xa, NP);
    REFUSED(CS, 0x93, 0xa, GP); /* data */
    REFUSED(CS, 0xfb, 0xa, GP); /* DPL 3 */
    REFUSED(CS, 0x9b, 0xe, GP); /* L and D */
    REFUSED(SS_SEL, 0x13, 0xc, SS);
    REFUSED(SS_SEL, 0x91, 0xc, GP); /* read-only */
    REFUSED(SS_SEL, 0xf3, 0xc, GP);
    REFUSED(SS_SEL, 0x9b, 0xa, GP); /* code */
    gdt[CS / 8] = descriptor(0, 0xfffff, 0x9a, 0xa);
    gdt[SS_SEL / 8] = descriptor(0, 0xfffff, 0x92, 0xc);
    IS(back(CS, SS_SEL), NO_TRAP);
    IS(gdt[CS / 8] >> 40 & 0xff, 0x9b); /* accessed */
    IS(gdt[SS_SEL / 8] >> 40 & 0xff, 0x93);
    IS(back(K_CS64, K_DS), NO_TRAP);
}

TEST(tables, "iret: where the table is, and how long, counts each time")
{
    static uint64_t other[GDT_LEN] __attribute__((aligned(16)));
    memcpy(other, gdt, sizeof other);
    other[CS / 8] = 0;
    fill(gdt);
    const struct {
        const uint64_t *table;
        unsigned limit, error;
    } bad[] = {{gdt, CS - 1, CS}, {gdt, SS_SEL - 1, SS_SEL}, {other, sizeof gdt - 1, CS}};
    for (unsigned n = 0; n < sizeof bad / sizeof *bad; n++) {
        works(__LINE__);
        load_gdt(bad[n].table, bad[n].limit);
        IS(back(CS, SS_SEL), GP);
        IS(trap.error, bad[n].error);
        load_gdt(gdt, sizeof gdt - 1);
    }
    IS(back(K_CS64, K_DS), NO_TRAP);
}

TEST(selectors, "iret: null selectors, LDT, RPL")
{
    fill(gdt);
    FAILS(0, SS_SEL, GP, 0);
    FAILS(CS | 4, SS_SEL, GP, CS | 4);
    FAILS(CS | 1, SS_SEL | 1, GP, CS);
    FAILS(CS, SS_SEL | 3, GP, SS_SEL);
    FAILS(CS, 3, GP, 0);
    works(__LINE__);
    for (unsigned n = 0; n < 3; n++) {
        ulong ss;
        IS(back(CS, 0), NO_TRAP); /* at CPL 0 */
        __asm__ volatile("mov %%ss, %0" : "=r"(ss));
        IS(ss, 0);
    }
    IS(back(K_CS64, K_DS), NO_TRAP);
}

static ulong flags_after(ulong flags)
{
    ulong got;
    __asm__ volatile(
        "movq %%rsp, %%rax; pushq $0x18; pushq %%rax; pushq %1; pushq $0x10; pushq $1f;"
        "iretq; 1: pushfq; popq %0; pushq $2; popfq"
        : "=r"(got)
        : "r"(flags)
        : "rax", "memory", "cc");
    return got;
}

TEST(flags, "iret: flags, and RIP that is not canonical")
{
    static const ulong some[] = {0x8d5,    0x455,    0x3000, 0x4000,  0x40000,
                                 0x180000, 0x200000, FL_VM,  0x10000, 0x8028};
    for (unsigned round = 0; round < 3; round++)
        for (unsigned n = 0; n < sizeof some / sizeof *some; n++)
            IS(flags_after(some[n]), (some[n] & FL_LOADED) | 2);
    for (unsigned n = 0; n < 3; n++) {
        IS(PROBE("pushq $0x18; pushq %%rsp; pushq $2; pushq $0x10; pushq %0; iretq",
                 : "r"(1ul << 47)
                 : "memory"),
           GP);
        IS(trap.error, 0);
        OK(trap.ip != 1ul << 47); /* it is the instruction that faults */
        IS(PROBE("pushq $0x4002; popfq; movq %%rsp, %%rax; pushq $0x18; pushq %%rax; pushq $2;"
                 "pushq $0x10; pushq $1f; iretq; 1:",
                 :
                 : "rax", "memory"),
           GP); /* NT */
        IS(trap.error, 0);
        __asm__ volatile("pushq $2; popfq" : : : "cc");
    }
}

/* ---- to CPL 3 ---- */

USER(u_segments, "mov %ds, %eax; mov %es, %ecx; mov %fs, %edx; mov %gs, %esi; int $0x80");

static void data_segments(ulong sel, ulong want, int line)
{
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs; mov %0, %%gs" : : "r"(sel));
    check_equal("vector", user(u_segments, 0), 0x80, line);
    check_equal("DS", trap.ax & 0xffff, want, line);
    check_equal("ES", trap.cx & 0xffff, want, line);
    check_equal("FS", trap.dx & 0xffff, want, line);
    check_equal("GS", trap.si & 0xffff, want, line);
}

TEST(data, "iret: data segments of an inner level become null")
{
    for (unsigned n = 0; n < 3; n++) {
        data_segments(0, 0, __LINE__);
        data_segments(K_DS, 0, __LINE__);
        data_segments(U_DS, U_DS, __LINE__);
    }
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %1, %%fs; mov %1, %%gs"
                     :
                     : "r"(K_DS), "r"(0));
}

USER(u_many, "mov $20000, %ebx\n"
             "1: call 2f; dec %ebx; jnz 1b; int $0x80\n"
             "2: call 3f; add $1, %rbp; ret\n"
             "3: stc; int $0x81; adc $0, %rbp; ret");
static unsigned count;

static void counts(struct frame *f)
{
    count++;
    f->flags ^= count & 1;
}

TEST(many, "iret: from interrupts of a program, many times, within calls")
{
    struct frame f;
    set_gate(0x81, 3, GATE_INT, 0);
    set_handler(0x81, counts);
    count = 0;
    user_frame(&f, u_many, (size_t)(u_many_end - u_many), 0);
    IS(run_frame(&f), 0x80);
    IS(count, 20000);
    IS(trap.bp, 30000); /* CF is what the frame says */
    IS(trap.cs, U_CS64);
    IS(trap.ss, U_DS);
    set_handler(0x81, NULL);
}

/* At CPL 0 it calls itself, and leaves that by IRETQ; the RET is executed at CPL 3. */
USER(k_call, "call 1f; cli; int $0x80; 1: add $8, %rsp; lea 2f(%rip), %rax; push %rax; iretq\n"
             "2: ret");

TEST(calls, "iret: a program does not return to where its kernel has called")
{
    ulong stack[8] = {[4] = U_CS64, 2, USER_STACK - 8, U_DS};
    struct frame f;
    for (unsigned n = 0; n < 3; n++) {
        user_frame(&f, k_call, (size_t)(k_call_end - k_call), 0);
        ((ulong *)USER_STACK)[-1] = USER_CODE + 5;
        f.cs = K_CS64;
        f.ss = K_DS;
        f.sp = (ulong)&stack[4];
        IS(run_frame(&f), GP); /* CLI */
        IS(trap.cs, U_CS64);
        IS(trap.ip, USER_CODE + 5);
    }
}
