/*
 * tasks.c - hardware task switching (SDM volume 3, chapter 7).
 */
#include "mem.h"

#define SEL(n) (FREE_SEL + 8 * (n))
#define D(n)   gdt[FREE_SEL / 8 + (n)]

struct tss32 {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi, es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, iomap;
};
struct tss16 {
    uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags;
    uint16_t ax, cx, dx, bx, sp, bp, si, di, es, cs, ss, ds, ldt;
};

/* Shared with tasks: nothing of it may stay in registers. */
static volatile struct tss32 other __attribute__((aligned(128))),
    handler __attribute__((aligned(128)));
static volatile struct tss16 small __attribute__((aligned(64)));
#define own (*(volatile struct tss32 *)tss)
static uint8_t task_stack[4096] __attribute__((aligned(16)));
volatile uint32_t task_ran, task_tr, task_flags, task_cr0, task_error, task_link;

extern const char task_code[], task_jmp_back[], task_jmp_end[], after_np[], fix_ss0[], on_fault[];
__asm__(".text\n"
        "task_code: incl task_ran; str %eax; mov %eax, task_tr; pushf; popl task_flags\n"
        "mov %cr0, %eax; mov %eax, task_cr0; iret; jmp task_code\n"
        "task_jmp_back: incl task_ran; ljmp $0x40, $0; task_jmp_end:\n"
        "after_np: popl task_error; incl task_ran; orb $0x80, gdt + 0x50 + 16 + 5; iret\n"
        "on_fault: popl task_error; incl task_ran; andb $~2, gdt + 0x45; ljmp $0x40, $0\n"
        "fix_ss0: popl task_error; incl task_ran; movl $0x18, tss + 8; iret; jmp fix_ss0\n");

static void prepare(const char *code)
{
    memset((void *)(ulong)&other, 0, sizeof other);
    other.eip = (uint32_t)(ulong)code;
    other.eflags = 2;
    other.esp = (uint32_t)(ulong)task_stack + sizeof task_stack;
    other.cs = K_CS32;
    other.ss = other.ds = other.es = other.fs = other.gs = K_DS;
    other.iomap = sizeof other;
    D(0) = descriptor((uint32_t)(ulong)&other, sizeof other - 1, 0x89, 0);
    task_ran = 0;
    __asm__ volatile("clts" : : : "memory");
}

#define CALL_OTHER "lcall $0x50, $0"
/* PROBE goes on in the new task, with its registers. */
#define ALL_LOST  "eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "memory", "cc"
#define JMP_OTHER "ljmp $0x50, $0"

static bool busy(unsigned sel)
{
    return ((volatile uint64_t *)gdt)[sel / 8] >> 41 & 1;
}

TEST(call, "tasks: CALL to a TSS and IRET back: link, NT, TS, busy bits")
{
    prepare(task_code);
    ulong before;
    __asm__ volatile("str %0" : "=r"(before));
    IS(before, K_TSS);
    IS(PROBE("mov $0x1234, %%ebx; " CALL_OTHER, : : "ebx", "memory", "cc"), NO_TRAP);
    IS(task_ran, 1);
    IS(task_tr, SEL(0));
    IS(task_flags & FL_NT, FL_NT);
    IS(task_cr0 & CR0_TS, CR0_TS);
    IS(other.link & 0xffff, K_TSS);
    IS(own.ebx, 0x1234); /* what was saved */
    IS(own.cs & 0xffff, K_CS32);
    IS(own.eflags & FL_NT, 0);
    ulong after;
    __asm__ volatile("str %0" : "=r"(after));
    IS(after, K_TSS);
    IS(busy(K_TSS), 1);
    IS(busy(SEL(0)), 0);
    IS(other.eflags & FL_NT, 0); /* IRET clears it in the image it saves */
    IS(get_flags() & FL_NT, 0);
    /* Once more: the task goes on behind its IRET. */
    IS(PROBE(CALL_OTHER, : : "memory", "cc"), NO_TRAP);
    IS(task_ran, 2);
    __asm__ volatile("clts");
}

TEST(jump, "tasks: JMP to a TSS: no link, the old one is free")
{
    prepare(task_jmp_back);
    other.link = 0xabcd;
    IS(PROBE(JMP_OTHER, : : "memory", "cc"), NO_TRAP);
    IS(task_ran, 1);
    IS(other.link, 0xabcd);
    IS(busy(K_TSS), 1);
    IS(busy(SEL(0)), 0);
    IS(other.eip, (ulong)task_jmp_end); /* behind its JMP */
    /* A busy one cannot be jumped to or called. */
    prepare(task_code);
    D(0) |= 1ull << 41;
    IS(PROBE(JMP_OTHER, : : "memory"), GP);
    IS(trap.error, SEL(0));
    IS(PROBE(CALL_OTHER, : : "memory"), GP);
    IS(trap.error, SEL(0));
    IS(task_ran, 0);
    IS(get_cr0() & CR0_TS, 0);
}

TEST(gate, "tasks: task gates, from CALL and from the IDT; error codes are pushed")
{
    prepare(task_code);
    D(1) = (uint64_t)SEL(0) << 16 | 0x85ull << 40;
    IS(PROBE("lcall $0x58, $0", : : "memory", "cc"), NO_TRAP);
    IS(task_ran, 1);
    uint64_t was = idt[0x77];
    idt[0x77] = D(1);
    IS(PROBE("int $0x77", : : "memory", "cc"), NO_TRAP);
    IS(task_ran, 2);
    IS(busy(K_TSS), 1);
    idt[0x77] &= ~(1ull << 47);
    IS(PROBE("int $0x77", : : "memory"), NP);
    IS(trap.error, 0x77 * 8 + 2);
    idt[0x77] = was;
    /* A fault through a task gate: the task gets the error code on its own stack, and its IRET
     * executes the instruction again. */
    prepare(fix_ss0);
    was = idt[NP];
    idt[NP] = D(1);
    D(2) = descriptor(0, 0xfffff, 0x13, 0xc);
    task_error = 0;
    own.eflags = 0;
    other.eip = (uint32_t)(ulong)after_np; /* makes the segment present */
    IS(PROBE("mov %0, %%fs", : "r"(SEL(2)) : "memory"), NO_TRAP);
    IS(task_ran, 1);
    IS(task_error, SEL(2));
    IS(own.eflags & FL_RF, FL_RF); /* saved image of a fault */
    idt[NP] = was;
    __asm__ volatile("mov %0, %%fs" : : "r"(K_DS));
    __asm__ volatile("clts");
}

/* The fault is the new task's; a third task looks at it and goes back to us. */
TEST(bad_tss, "tasks: faulty TSS contents: #TS, #NP, #SS in the new task")
{
    D(3) = descriptor(0, 0xfffff, 0x13, 0xc); /* absent data */
    D(4) = descriptor(0, 0xfffff, 0x1b, 0xc); /* absent code */
    prepare(task_code);
    D(0) = descriptor((uint32_t)(ulong)&other, 0x66, 0x89, 0); /* too short */
    IS(PROBE(CALL_OTHER, : : "memory"), TS);
    IS(trap.error, SEL(0));
    ulong tr;
    __asm__ volatile("str %0" : "=r"(tr));
    IS(tr, K_TSS); /* before the switch */
    prepare(task_code);
    D(0) &= ~(1ull << 47);
    IS(PROBE(CALL_OTHER, : : "memory"), NP);
    IS(trap.error, SEL(0));
    IS(PROBE("lcall $0x54, $0", : : "memory"), GP); /* in the LDT */
    IS(trap.error, SEL(0) | 4);

    struct {
        volatile uint32_t *field;
        uint32_t value;
        unsigned vector, error;
    } const t[] = {
        {&other.ds, SEL(3), NP, SEL(3)},
        {&other.fs, K_CS64, NO_TRAP, 0}, /* readable code is fine */
        {&other.fs, K_TSS, TS, K_TSS},
        {&other.gs, sizeof gdt, TS, sizeof gdt},
        {&other.cs, K_DS, TS, K_DS},
        {&other.cs, 0, TS, 0},
        {&other.cs, SEL(4), NP, SEL(4)},
        {&other.ldt, K_DS, TS, K_DS},
        {&other.ldt, 0x54, TS, 0x54},
        {&other.ss, SEL(3), SS, SEL(3)},
        {&other.ss, 0, TS, 0},
        {&other.ss, K_DS | 3, TS, K_DS},
        {&other.ss, K_CS32, TS, K_CS32},
    };
    uint64_t ts = idt[TS], np = idt[NP], ss = idt[SS];
    D(5) = descriptor((uint32_t)(ulong)&handler, sizeof handler - 1, 0x89, 0);
    for (unsigned n = 0; n < sizeof t / sizeof *t; n++) {
        prepare(task_code);
        memcpy((void *)(ulong)&handler, (const void *)(ulong)&other, sizeof other);
        handler.eip = (uint32_t)(ulong)on_fault;
        *t[n].field = t[n].value;
        idt[TS] = idt[NP] = idt[SS] = 0;
        if (t[n].vector != NO_TRAP)
            idt[t[n].vector] = (uint64_t)SEL(5) << 16 | 0x85ull << 40;
        D(5) &= ~(1ull << 41);
        task_error = 0xdead;
        PROBE(CALL_OTHER, : : "memory", "cc");
        IS(trap.vector, NO_TRAP);
        IS(task_ran, 1);
        if (t[n].vector == NO_TRAP)
            continue;
        IS(task_error, t[n].error);
        IS(handler.link & 0xffff, SEL(0));
        IS(other.eip, (ulong)task_code); /* nothing of it was executed */
    }
    idt[TS] = ts;
    idt[NP] = np;
    idt[SS] = ss;
    __asm__ volatile("clts");
}

TEST(iret_faults, "tasks: IRET with NT and a bad link")
{
    prepare(task_code);
    own.link = SEL(0); /* not busy: not a task that called us */
    IS(PROBE("pushf; orl $0x4000, (%%esp); popf; iret", : : "memory", "cc"), TS);
    IS(trap.error, SEL(0));
    own.link = K_DS;
    IS(PROBE("pushf; orl $0x4000, (%%esp); popf; iret", : : "memory", "cc"), TS);
    IS(trap.error, K_DS);
    own.link = SEL(0) | 4;
    IS(PROBE("pushf; orl $0x4000, (%%esp); popf; iret", : : "memory", "cc"), TS);
    IS(trap.error, SEL(0) | 4);
    __asm__ volatile("pushf; andl $~0x4000, (%%esp); popf" : : : "memory", "cc");
}

TEST(debug_trap, "tasks: the T flag: #DB with BT before the first instruction")
{
    prepare(task_code);
    other.trap = 1;
    set_dr6(0);
    unsigned v = (unsigned)PROBE(CALL_OTHER, : : ALL_LOST);
    IS(v, DB);
    IS(trap_dr6, 0xffff8ff0);
    IS(trap.ip, (ulong)task_code);
    IS(task_ran, 0);
    gdt[K_TSS / 8] &= ~(1ull << 41);
    __asm__ volatile("ltr %w0; clts; pushf; andl $~0x4000, (%%esp); popf"
                     :
                     : "r"(K_TSS)
                     : "memory", "cc");
    set_dr6(0);
}

TEST(sixteen, "tasks: 16-bit TSS")
{
    memset((void *)(ulong)&small, 0, sizeof small);
    memcpy((void *)0x9000, "\x67\x66\xff\x05\x00\x00\x00\x00\xcf\xeb\xf5",
           11); /* INC [task_ran]; IRET */
    uint32_t at = (uint32_t)(ulong)&task_ran;
    memcpy((void *)0x9004, &at, 4);
    D(1) = descriptor(0, 0xffff, 0x9b, 0); /* 16-bit code */
    small.ip = 0x9000;
    small.flags = 2;
    small.sp = 0x8ff0;
    small.cs = SEL(1);
    small.ss = small.ds = small.es = K_DS;
    D(0) = descriptor((uint32_t)(ulong)&small, sizeof small - 1, 0x81, 0);
    task_ran = 0;
    IS(PROBE(CALL_OTHER, : : "memory", "cc"), NO_TRAP);
    IS(task_ran, 1);
    IS(small.link, K_TSS);
    IS(small.ip, 0x9009);
    D(0) = descriptor((uint32_t)(ulong)&small, 0x2a, 0x81, 0);
    IS(PROBE(CALL_OTHER, : : "memory", "cc"), TS);
    IS(trap.error, SEL(0));
    __asm__ volatile("clts; mov %0, %%fs; mov %0, %%gs" : : "r"(K_DS));
}

USER(u_push_dead, "push %eax; int $0x80");

TEST(double_fault, "tasks: #DF through a task gate, on a dead kernel stack")
{
    /* SS0 in the TSS is null: the #UD from user mode fails with #TS, as does #TS. */
    prepare(fix_ss0);
    D(1) = (uint64_t)SEL(0) << 16 | 0x85ull << 40;
    uint64_t was = idt[DF], ts = idt[TS];
    idt[TS] = D(1);
    own.ss0 = 0;
    task_error = 77;
    IS(user(u_push_dead, 0), 0x80); /* INT 80h runs again once the task has mended the TSS */
    IS(task_ran, 1);
    IS(task_error, 0); /* the null selector, and INT n is not external */
    idt[TS] = ts;
    /* The same with #TS impossible: #DF gets error code 0. */
    idt[DF] = D(1);
    other.eip = (uint32_t)(ulong)fix_ss0;
    task_error = 77;
    task_ran = 0;
    own.ss0 = 0;
    D(0) &= ~(1ull << 41);
    IS(user(u_push_dead, 0), 0x80);
    IS(task_ran, 1);
    IS(task_error, 0);
    idt[DF] = was;
    __asm__ volatile("clts");
}
