/*
 * events.c - interrupts and exceptions in 64-bit mode: gates, stacks, faults during delivery, NMI,
 * interrupt shadow, single-stepping, breakpoints (SDM volume 3, chapters 6 and 17).
 */
#include "mem.h"
#include "platform.h"

#define LABEL(name)  extern const char name[]
#define IDT_ERROR(v) ((v)*8 + 2)

static void *tss_ist(unsigned n) /* 1 .. 7 */
{
    return tss + 0x24 + 8 * (n - 1);
}

TEST(vectors, "events: instructions that raise exceptions: vector, RIP, RF")
{
    LABEL(ev_div);
    LABEL(ev_bp);
    LABEL(ev_ud);
    LABEL(ev_int);
    IS(PROBE("ev_div: div %b0", : "r"(0), "a"(1) : "cc"), DE);
    IS(trap.ip, (ulong)ev_div);
    IS(trap.flags & FL_RF, FL_RF);
    IS(PROBE("int3; ev_bp:", ), BP);
    IS(trap.ip, (ulong)ev_bp);
    IS(trap.flags & FL_RF, 0);
    IS(PROBE("ev_ud: ud2", ), UD);
    IS(trap.ip, (ulong)ev_ud);
    IS(trap.flags & FL_RF, FL_RF);
    IS(PROBE("int $0x77; ev_int:", ), 0x77);
    IS(trap.ip, (ulong)ev_int);
    IS(trap.flags & FL_RF, 0);
    set_dr6(0);
    IS(PROBE(".byte 0xf1", ), DB); /* INT1 */
    IS(PROBE("idiv %0", : "r"(-1l), "a"(0), "d"(1l << 63) : "cc"), DE);
    IS(PROBE(".byte 0xf0; nop", ), UD);                 /* LOCK NOP */
    IS(PROBE(".byte 0xf0, 0xff, 0xc0", : : "eax"), UD); /* LOCK on a register */
    IS(PROBE(".byte 0x06", ), UD);                      /* PUSH ES */
    IS(PROBE(".byte 0x0f, 0xff, 0xc0", : : "cc"), UD);  /* UD0 */
    IS(PROBE(".byte 0x8c, 0xf8", : : "rax"), UD);       /* MOV EAX, segment register 7 */
    IS(PROBE(".byte 0x8e, 0xc8", : : "rax"), UD);       /* MOV CS, EAX */
    IS(PROBE(".rept 14; .byte 0x66; .endr; .byte 0x66, 0x90", ), GP); /* 16 bytes */
    IS(PROBE(".rept 14; .byte 0x66; .endr; nop", ), NO_TRAP);         /* 15 */
}

USER(user_int77, "int $0x77");
USER(user_int3, "int3");
USER(user_ud, "ud2");

TEST(gate_dpl, "events: gate DPL counts for INT n only")
{
    IS(user(user_int77, 0), GP);
    IS(trap.error, IDT_ERROR(0x77));
    IS(trap.ip, USER_CODE);
    set_gate(0x77, 3, GATE_INT, 0);
    IS(user(user_int77, 0), 0x77);
    IS(trap.ip, USER_CODE + 2);
    IS(trap.cs, U_CS64);
    IS(trap.ss, U_DS);
    IS(trap.sp, USER_STACK);
    set_gate(0x77, 0, GATE_INT, 0);
    IS(user(user_int3, 0), GP);
    IS(trap.error, IDT_ERROR(BP));
    IS(user(user_ud, 0), UD);
    set_gate(BP, 3, GATE_INT, 0);
    IS(user(user_int3, 0), BP);
    set_gate(BP, 0, GATE_INT, 0);
}

TEST(gate_faults, "events: faulty gates: #GP and #NP with the vector, IDT and EXT bits")
{
    idt[2 * 0x77] &= ~(1ull << 47); /* P */
    IS(PROBE("int $0x77", ), NP);
    IS(trap.error, IDT_ERROR(0x77));
    set_gate(0x77, 0, 0xc, 0); /* call gate */
    IS(PROBE("int $0x77", ), GP);
    IS(trap.error, IDT_ERROR(0x77));
    set_gate(0x77, 0, 5, 0); /* task gates do not exist here */
    IS(PROBE("int $0x77", ), GP);
    set_gate(0x77, 0, 6, 0); /* nor 16-bit gates */
    IS(PROBE("int $0x77", ), GP);
    set_gate(0x77, 0, GATE_INT, 0);
    struct dtr full = {sizeof idt - 1, (ulong)idt}, cut = {0x77 * 16 + 14, (ulong)idt};
    __asm__ volatile("lidt %0" : : "m"(cut));
    unsigned v = (unsigned)PROBE("int $0x77", );
    __asm__ volatile("lidt %0" : : "m"(full));
    IS(v, GP);
    IS(trap.error, IDT_ERROR(0x77));
    /* An exception, so EXT is set. */
    idt[2 * UD] &= ~(1ull << 47);
    IS(PROBE("ud2", ), NP);
    IS(trap.error, IDT_ERROR(UD) | 1);
    set_gate(UD, 0, GATE_INT, 0);
}

static void set_gate_sel(unsigned vector, uint16_t sel)
{
    set_gate(vector, 0, GATE_INT, 0);
    idt[2 * vector] = (idt[2 * vector] & ~0xffff0000ull) | (uint64_t)sel << 16;
}

TEST(gate_selector, "events: a gate's code segment")
{
    struct {
        uint64_t desc;
        unsigned sel, vector, error;
    } const t[] = {
        {0, 0, GP, 0},
        {descriptor(0, 0xfffff, 0x9b, 0xc), FREE_SEL, GP, FREE_SEL}, /* not 64-bit */
        {descriptor(0, 0xfffff, 0x9b, 0xe), FREE_SEL, GP, FREE_SEL}, /* L and D */
        {descriptor(0, 0xfffff, 0x93, 0xa), FREE_SEL, GP, FREE_SEL}, /* data */
        {descriptor(0, 0xfffff, 0x1b, 0xa), FREE_SEL, NP, FREE_SEL},
        {descriptor(0, 0xfffff, 0xfb, 0xa), FREE_SEL, GP, FREE_SEL}, /* DPL 3 */
        {descriptor(0, 0xfffff, 0x9b, 0xa), FREE_SEL | 3, 0x77, 0},  /* RPL is ignored */
        {0, sizeof gdt, GP, sizeof gdt},                             /* beyond the limit */
        {0, FREE_SEL | 4, GP, FREE_SEL | 4},                         /* no LDT */
    };
    for (unsigned n = 0; n < sizeof t / sizeof *t; n++) {
        gdt[FREE_SEL / 8] = t[n].desc;
        set_gate_sel(0x77, (uint16_t)t[n].sel);
        IS(PROBE("int $0x77", ), t[n].vector);
        IS(trap.error, t[n].error);
        set_gate_sel(UD, (uint16_t)t[n].sel);
        IS(PROBE("ud2", ), t[n].vector == 0x77 ? UD : t[n].vector);
        IS(trap.error, t[n].vector == 0x77 ? 0 : t[n].error | 1);
    }
    set_gate(0x77, 0, GATE_INT, 0);
    set_gate(UD, 0, GATE_INT, 0);
}

static struct frame seen;
static uint64_t seen_ss, seen_rsp, seen_flags;

static void look(struct frame *f)
{
    seen = *f;
    seen_rsp = (uint64_t)(f + 1);
    __asm__ volatile("mov %%ss, %0" : "=r"(seen_ss));
    seen_flags = get_flags();
}

static void look_and_catch(struct frame *f)
{
    look(f);
    set_handler((unsigned)f->vector, NULL);
    void trap_dispatch(struct frame *);
    trap_dispatch(f);
}

TEST(stacks, "events: stack switch, alignment, null SS, IST")
{
    set_gate(0x77, 3, GATE_INT, 0);
    set_handler(0x77, look_and_catch);
    IS(user(user_int77, 0), 0x77);
    IS(seen_ss, 0); /* null, RPL = CPL (6.14.4) */
    IS(seen_rsp, (ulong)trap_stack_top);
    set_handler(0x77, look);
    uint64_t sp;
    __asm__ volatile("mov %%rsp, %0; sub $3, %%rsp; int $0x77; add $3, %%rsp" : "=&r"(sp));
    IS(seen.sp, sp - 3);
    IS(seen_rsp, (sp - 3) & ~15ull);
    IS(seen_ss, K_DS);
    static uint8_t stack[4096] __attribute__((aligned(16)));
    uint64_t top = (ulong)stack + sizeof stack - 8;
    memcpy(tss_ist(3), &top, 8);
    set_gate(0x77, 0, GATE_INT, 3);
    __asm__ volatile("mov %%rsp, %0; int $0x77" : "=r"(sp));
    IS(seen.sp, sp);
    IS(seen_rsp, top & ~15ull); /* aligned too */
    set_handler(0x77, NULL);
    top = 0x800000000000; /* not canonical: #SS (6.14.2, and vol. 2, INT n) */
    memcpy(tss_ist(3), &top, 8);
    IS(PROBE("int $0x77", ), SS);
    IS(trap.error, 0);
    /* A TSS too short to hold the pointer: #TS with its selector */
    uint64_t was = gdt[K_TSS / 8];
    gdt[K_TSS / 8] = descriptor((uint32_t)(ulong)tss, 0x30, 0x89, 0);
    __asm__ volatile("ltr %w0" : : "r"(K_TSS) : "memory");
    IS(PROBE("int $0x77", ), TS);
    IS(trap.error, K_TSS);
    gdt[K_TSS / 8] = was & ~(1ull << 41);
    __asm__ volatile("ltr %w0" : : "r"(K_TSS) : "memory");
    IS(gdt[K_TSS / 8] >> 41 & 1, 1); /* busy */
    IS(PROBE("ltr %w0", : "r"(K_TSS)), GP);
    IS(trap.error, K_TSS);
    set_gate(0x77, 0, GATE_INT, 0);
}

TEST(flags, "events: what gates clear in RFLAGS")
{
    set_handler(0x77, look);
    __asm__ volatile(
        "pushf; orl $0x4600, (%%rsp); popf; int $0x77; pushf; andl $~0x4600, (%%rsp); popf"
        :
        :
        : "memory", "cc"); /* NT, DF, IF */
    cli();
    IS(seen.flags & 0x4600, 0x4600);
    IS(seen_flags & (FL_IF | FL_NT | FL_TF | FL_RF), 0);
    set_gate(0x77, 0, GATE_TRAP, 0);
    __asm__ volatile("sti; int $0x77; cli" : : : "memory", "cc");
    IS(seen_flags & FL_IF, FL_IF);
    set_gate(0x77, 0, GATE_INT, 0);
    set_handler(0x77, NULL);
}

TEST(popf, "events: POPF at CPL 0: all flags but RF, VM, VIF, VIP")
{
    static const ulong value[] = {0, 0x8d5, 0x400, FL_IOPL3, FL_NT, FL_AC, 0x200000, 0x247cd5};
    const ulong ignored = FL_RF | FL_VM | FL_VIF | FL_VIP;
    for (unsigned n = 0; n < 2 * sizeof value / sizeof *value; n++) {
        ulong v, want = value[n / 2];
        __asm__ volatile("push %1; popf; pushf; pop %0; push $2; popf"
                         : "=&r"(v)
                         : "r"(want | (n & 1 ? ignored : 0))
                         : "memory", "cc");
        IS(v, want | 2);
    }
}

/* ---- exceptions during exceptions ---- */

TEST(double_fault, "events: which exceptions make a double fault")
{
    uint64_t bad = 0x800000000000;
    uint64_t absent = TEST_VA + 0x123000;
    static uint8_t stack[4096] __attribute__((aligned(16)));
    uint64_t top = (ulong)stack + sizeof stack;
    memcpy(tss_ist(1), &top, 8);
    set_gate(DF, 0, GATE_INT, 1);
    /* #GP, and its gate is absent: #NP. Both contributory. */
    idt[2 * GP] &= ~(1ull << 47);
    trap.error = 1;
    IS(PROBE("mov (%0), %%eax", : "D"(bad) : "eax"), DF);
    IS(trap.error, 0);
    /* #DE is contributory, #UD is not. */
    idt[2 * DE] &= ~(1ull << 47);
    IS(PROBE("div %b0", : "r"(0), "a"(1) : "cc"), DF);
    idt[2 * UD] &= ~(1ull << 47);
    IS(PROBE("ud2", ), NP);
    IS(trap.error, IDT_ERROR(UD) | 1);
    set_gate(UD, 0, GATE_INT, 0);
    set_gate(DE, 0, GATE_INT, 0);
    /* Page fault, then a contributory one */
    idt[2 * PF] &= ~(1ull << 47);
    IS(PROBE("mov (%0), %%eax", : "D"(absent) : "eax"), DF);
    set_gate(PF, 0, GATE_INT, 0);
    /* Page fault while a page fault is delivered: the stack is absent. */
    memcpy(tss_ist(2), &absent, 8);
    set_gate(PF, 0, GATE_INT, 2);
    IS(PROBE("mov (%0), %%eax", : "D"(absent) : "eax"), DF);
    IS(trap_cr2, absent - 8);
    set_gate(PF, 0, GATE_INT, 0);
    /* Contributory first, page fault second: handled one after the other. */
    set_gate(GP, 0, GATE_INT, 2);
    IS(PROBE("mov (%0), %%eax", : "D"(bad) : "eax"), PF);
    IS(trap.error, PF_W);
    set_gate(GP, 0, GATE_INT, 0);
    /* A benign one first: serially too. */
    set_gate(UD, 0, GATE_INT, 2);
    IS(PROBE("ud2", ), PF);
    set_gate(UD, 0, GATE_INT, 0);
    /* A software interrupt is benign. */
    set_gate(0x77, 0, GATE_INT, 2);
    IS(PROBE("int $0x77", ), PF);
    set_gate(0x77, 0, GATE_INT, 0);
}

/* ---- interrupts ---- */

#define SELF_IPI 0x44000u /* shorthand self, fixed, assert */

static unsigned hits;

static void count(struct frame *f)
{
    seen = *f;
    hits++;
    if (f->vector >= 32)
        apic_eoi();
}

static void wait_irr(unsigned vector) /* until the APIC has the interrupt */
{
    for (unsigned n = 0; n < 100000; n++)
        if (apic_read(APIC_IRR + vector / 32 * 16) >> vector % 32 & 1)
            return;
    check_equal("IRR", 0, 1, __LINE__);
}

static void pend(unsigned vector)
{
    hits = 0;
    apic_write(APIC_ICR, SELF_IPI | vector);
    wait_irr(vector);
}

TEST(sti_shadow, "events: STI holds interrupts off for one instruction")
{
    LABEL(ev_sti);
    LABEL(ev_popf);
    LABEL(ev_iret);
    LABEL(ev_hlt);
    apic_enable();
    set_handler(0x51, count);
    pend(0x51);
    __asm__ volatile("sti; nop; ev_sti: nop; cli" : : : "memory");
    IS(hits, 1);
    IS(seen.ip, (ulong)ev_sti);
    pend(0x51);
    __asm__ volatile("sti; cli; sti; cli" : : : "memory");
    IS(hits, 0);
    __asm__ volatile("sti; hlt; ev_hlt: cli" : : : "memory");
    IS(hits, 1);
    IS(seen.ip, (ulong)ev_hlt);
    pend(0x51);
    __asm__ volatile("pushf; orl $0x200, (%%rsp); popf; ev_popf: nop; cli" : : : "memory", "cc");
    IS(hits, 1);
    IS(seen.ip, (ulong)ev_popf); /* POPF has no shadow */
    pend(0x51);
    __asm__ volatile("mov %%rsp, %%rax; push %0; push %%rax; pushf; orl $0x200, (%%rsp); push %1; "
                     "push $ev_iret; iretq; ev_iret: nop; cli"
                     :
                     : "r"((ulong)K_DS), "r"((ulong)K_CS)
                     : "rax", "memory", "cc");
    IS(hits, 1);
    IS(seen.ip, (ulong)ev_iret);
    /* With IF set already STI has no shadow; nothing to see but that it is taken at once. */
    sti();
    hits = 0;
    apic_write(APIC_ICR, SELF_IPI | 0x51);
    for (unsigned n = 0; n < 100000 && !hits; n++)
        sti();
    cli();
    IS(hits, 1);
    set_handler(0x51, NULL);
}

TEST(mov_ss_shadow, "events: MOV SS holds off debug traps")
{
    LABEL(ev_ss);
    LABEL(ev_pop_ss);
    /* The single-step trap of MOV SS is lost; the next comes behind its successor (6.8.3). */
    set_dr6(0);
    unsigned v = (unsigned)PROBE("mov %%ss, %%ecx; pushf; orl $0x100, (%%rsp); popf; "
                                 "mov %%ecx, %%ss; nop; ev_ss: nop; nop",
                                 :
                                 : "ecx", "cc", "memory");
    IS(v, DB);
    IS(trap.ip, (ulong)ev_ss);
    /* A data breakpoint met by MOV SS is kept until then. */
    static volatile uint16_t selector = K_DS;
    set_dr0((ulong)&selector);
    set_dr6(0);
    set_dr7(2 | 7 << 16);
    IS(PROBE("mov (%0), %%ss; nop; ev_pop_ss: nop", : "r"(&selector)), DB);
    IS(trap.ip, (ulong)ev_pop_ss);
    IS(trap_dr6 & 1, 1);
    set_dr7(0);
    set_dr6(0);
}

TEST(external_fault, "events: an interrupt whose gate is faulty: EXT")
{
    idt[2 * 0x52] &= ~(1ull << 47);
    pend(0x52);
    IS(PROBE("sti; nop; nop; cli", : : "memory"), NP);
    IS(trap.error, IDT_ERROR(0x52) | 1);
    cli();
    apic_eoi();
    set_gate(0x52, 0, GATE_INT, 0);
}

static unsigned nmi_depth, nmi_nested;

static void on_nmi(struct frame *f)
{
    seen = *f;
    if (nmi_depth++)
        nmi_nested = 1;
    if (++hits == 1) { /* two more: one is kept until IRET, the other is lost */
        apic_ipi(apic_read(APIC_ID) >> 24, 0x4400);
        apic_ipi(apic_read(APIC_ID) >> 24, 0x4400);
        for (unsigned n = 0; n < 1000; n++)
            pause();
    }
    nmi_depth--;
}

TEST(nmi, "events: NMI ignores IF, blocks itself until IRET, keeps one")
{
    set_handler(NMI, on_nmi);
    hits = nmi_nested = 0;
    cli();
    apic_ipi(apic_read(APIC_ID) >> 24, 0x4400);
    wait_us(200);
    IS(hits, 2);
    IS(nmi_nested, 0);
    hits = 5; /* wakes HLT with IF = 0 */
    __asm__ volatile("nop");
    apic_write(APIC_ICR2, apic_read(APIC_ID) & 0xff000000);
    apic_write(APIC_ICR, 0x4400);
    for (unsigned n = 0; n < 10000 && hits == 5; n++)
        pause();
    IS(hits, 6);
    set_handler(NMI, NULL);
}

/* ---- debug exceptions ---- */

#define DR6_INIT 0xffff0ff0u

TEST(single_step, "events: single-stepping: where it stops, DR6.BS, REP, INT")
{
    LABEL(ev_s1);
    LABEL(ev_s2);
    set_dr6(0);
    IS(PROBE("pushf; orl $0x100, (%%rsp); popf; nop; ev_s1: nop", : : "cc", "memory"), DB);
    IS(trap.ip, (ulong)ev_s1); /* behind the instruction after POPF */
    IS(trap_dr6, DR6_INIT | 1 << 14);
    IS(trap.flags & FL_TF, FL_TF);
    /* Each iteration of REP is a step; RIP stays on the instruction. */
    static uint8_t buf[16];
    ulong di = (ulong)buf, cx = 5;
    IS(PROBE("pushf; orl $0x100, (%%rsp); popf; ev_s2: rep stosb; nop; nop", "+D"(di), "+c"(cx)
             : "a"(0)
             : "cc", "memory"),
       DB);
    IS(trap.ip, (ulong)ev_s2);
    IS(trap.cx, 4);
    /* INT n clears TF in the handler; the saved image has it. */
    set_handler(0x77, look);
    IS(PROBE("pushf; orl $0x100, (%%rsp); popf; int $0x77; nop; nop", : : "cc", "memory"), DB);
    IS(seen.flags & FL_TF, FL_TF);
    IS(seen_flags & FL_TF, 0);
    set_handler(0x77, NULL);
    /* A fault is reported instead of the step. */
    IS(PROBE("pushf; orl $0x100, (%%rsp); popf; ud2", : : "cc", "memory"), UD);
    set_dr6(0);
}

static uint64_t watched[4] __attribute__((aligned(64)));

static void set_bp(unsigned n, ulong addr, unsigned type, unsigned len)
{
    switch (n) {
    case 0:
        set_dr0(addr);
        break;
    case 1:
        set_dr1(addr);
        break;
    case 2:
        set_dr2(addr);
        break;
    default:
        set_dr3(addr);
        break;
    }
    set_dr6(0);
    set_dr7((get_dr7() & ~(0xful << (16 + 4 * n))) | 2ul << (2 * n) |
            (ulong)(type | len << 2) << (16 + 4 * n));
}

TEST(data_breakpoints, "events: data breakpoints: type, length, RIP")
{
    LABEL(ev_w);
    uint8_t *p = (uint8_t *)watched;
    set_bp(1, (ulong)p + 8, 1, 3); /* write, 4 bytes */
    IS(PROBE("movl $1, (%0); ev_w: nop", : "r"(p + 8) : "memory"), DB);
    IS(trap.ip, (ulong)ev_w); /* a trap */
    IS(trap_dr6, DR6_INIT | 2);
    IS(watched[1], 1);
    IS(PROBE("mov (%0), %%eax; nop", : "r"(p + 8) : "eax"), NO_TRAP);
    IS(PROBE("movb $1, (%0); nop", : "r"(p + 11) : "memory"), DB);
    IS(PROBE("movb $1, (%0); nop", : "r"(p + 12) : "memory"), NO_TRAP);
    IS(PROBE("movl $1, (%0); nop", : "r"(p + 5) : "memory"), DB); /* overlaps */
    IS(PROBE("movq $1, (%0); nop", : "r"(p) : "memory"), NO_TRAP);
    IS(PROBE("push %0; pop (%1); nop", : "r"(1ul), "r"(p + 8) : "memory"), DB);
    set_dr7(0);
    set_bp(2, (ulong)p + 16, 3, 2); /* read or write, 8 bytes */
    IS(PROBE("mov (%0), %%al; nop", : "r"(p + 23) : "eax"), DB);
    IS(trap_dr6 & 15, 4);
    IS(PROBE("lock incl (%0); nop", : "r"(p + 16) : "memory"), DB);
    IS(PROBE("mov (%0), %%al; nop", : "r"(p + 15) : "eax"), NO_TRAP);
    /* Two at once, and DR6 collects: the processor never clears it (17.2.3) but for B0-B3. */
    set_bp(0, (ulong)p + 16, 1, 0);
    IS(PROBE("movl $0, (%0); nop", : "r"(p + 16) : "memory"), DB);
    IS(trap_dr6 & 15, 5);
    /* String instructions are interrupted between iterations. */
    set_dr7(0);
    set_bp(0, (ulong)p + 2, 1, 0);
    ulong di = (ulong)p, cx = 8;
    IS(PROBE("rep stosb; nop", "+D"(di), "+c"(cx) : "a"(0) : "memory"), DB);
    IS(trap.cx, 5);
    set_dr7(0);
    set_dr6(0);
}

TEST(insn_breakpoints, "events: instruction breakpoints are faults; RF")
{
    LABEL(ev_x);
    LABEL(ev_y);
    set_bp(0, (ulong)ev_x, 0, 0);
    ulong n = 0;
    IS(PROBE("inc %0; ev_x: inc %0", "+r"(n) : : "cc"), DB);
    IS(trap.ip, (ulong)ev_x);
    IS(trap_dr6, DR6_INIT | 1);
    IS(trap.flags & FL_RF, 0);
    /* IRET with RF steps over it. */
    set_bp(0, (ulong)ev_y, 0, 0);
    n = 0;
    IS(PROBE("mov %%rsp, %%rax; push %1; push %%rax; pushf; orl $0x10000, (%%rsp); push %2; "
             "push $ev_y; iretq; nop; ev_y: inc %0; nop",
             "+r"(n)
             : "r"((ulong)K_DS), "r"((ulong)K_CS)
             : "rax", "cc", "memory"),
       NO_TRAP);
    IS(n, 1);
    IS(get_flags() & FL_RF, 0);
    set_dr7(0);
    set_dr6(0);
}

TEST(io_breakpoints, "events: I/O breakpoints with CR4.DE")
{
    LABEL(ev_io);
    set_cr4(get_cr4() | CR4_DE);
    set_bp(3, 0x80, 2, 0);
    IS(PROBE("outb %%al, $0x80; ev_io: nop", : "a"(0)), DB);
    IS(trap.ip, (ulong)ev_io);
    IS(trap_dr6 & 15, 8);
    IS(PROBE("inb $0x80, %%al; nop", : : "eax"), DB);
    IS(PROBE("inb $0x81, %%al; nop", : : "eax"), NO_TRAP);
    set_dr7(0);
    set_cr4(get_cr4() & ~(ulong)CR4_DE);
    set_dr6(0);
}

USER(user_dr, "mov %dr0, %rax; int $0x80");

TEST(debug_registers, "events: DR4, DR5, GD, reserved bits, privilege")
{
    set_dr6(0);
    IS(get_dr6(), DR6_INIT);
    set_dr6(0xffffffff);
    IS(get_dr6(), 0xffffefff); /* bit 12 reads as 0 */
    set_dr6(0);
    IS(get_dr7(), 0x400);
    set_dr7(0xffff2bff & ~0x2000ul); /* all but GD */
    IS(get_dr7() & 0xd400, 0x400);   /* bits 12, 14, 15 read as 0, 10 as 1 */
    set_dr7(0);
    ulong v;
    IS(PROBE("mov %%dr4, %0", "=r"(v)), NO_TRAP); /* DR6 */
    IS(v, DR6_INIT);
    set_cr4(get_cr4() | CR4_DE);
    IS(PROBE("mov %%dr4, %0", "=r"(v)), UD);
    IS(PROBE("mov %0, %%dr5", : "r"(0ul)), UD);
    set_cr4(get_cr4() & ~(ulong)CR4_DE);
    IS(PROBE("mov %0, %%dr6", : "r"(1ul << 32)), GP);
    IS(PROBE("mov %0, %%dr7", : "r"(1ul << 32)), GP);
    IS(PROBE("mov %0, %%dr0", : "r"(1ul << 32)), NO_TRAP);
    set_dr7(0x2000);
    IS(PROBE("mov %%dr0, %0", "=r"(v)), DB); /* general detect: a fault */
    IS(trap_dr6, DR6_INIT | 1 << 13);
    IS(get_dr7(), 0x400); /* GD is clear in the handler, and stays so */
    set_dr6(0);
    IS(user(user_dr, 0), GP);
    IS(trap.error, 0);
}
