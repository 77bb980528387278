/*
 * segments.c - segmentation in 32-bit protected mode: limits, types, loads, gates, returns (SDM
 * volume 3, chapters 3, 5 and 6).
 */
#include "mem.h"

#define SEL(n) (FREE_SEL + 8 * (n))
#define D(n)   gdt[FREE_SEL / 8 + (n)]

static uint8_t area[0x20000] __attribute__((aligned(16)));

static void load_fs(unsigned sel)
{
    __asm__ volatile("mov %0, %%fs" : : "r"(sel) : "memory");
}

static unsigned read_fs(ulong off)
{
    uint32_t v;
    return (unsigned)PROBE("movl %%fs:(%1), %0", "=r"(v) : "c"(off) : "memory");
}

static unsigned write_fs(ulong off)
{
    return (unsigned)PROBE("movl %1, %%fs:(%0)", : "c"(off), "r"(0) : "memory");
}

TEST(limits, "segments: limits: byte, page, expand-down")
{
    D(0) = descriptor((uint32_t)(ulong)area, 0xffe, 0x93, 4);
    load_fs(SEL(0));
    IS(read_fs(0xffb), NO_TRAP);
    IS(read_fs(0xffc), GP);
    IS(trap.error, 0);
    IS(write_fs(0xffc), GP);
    IS(PROBE("movb %%fs:0xffe, %%al", : : "eax"), NO_TRAP);
    IS(PROBE("movb %%fs:0xfff, %%al", : : "eax"), GP);
    IS(PROBE("mov %%fs:-2(%0), %%eax", : "r"(0) : "eax"), GP); /* wraps */
    area[5] = 0x5a;
    uint32_t v;
    __asm__ volatile("movzbl %%fs:5, %0" : "=r"(v) : : "memory");
    IS(v, 0x5a);                                            /* base */
    D(0) = descriptor((uint32_t)(ulong)area, 1, 0x93, 0xc); /* 2 pages */
    load_fs(SEL(0));
    IS(read_fs(0x1ffc), NO_TRAP);
    IS(read_fs(0x1ffd), GP);
    D(0) = descriptor((uint32_t)(ulong)area, 0xfff, 0x97, 4); /* expand down, 32 bits */
    load_fs(SEL(0));
    IS(read_fs(0xfff), GP);
    IS(read_fs(0), GP);
    IS(read_fs(0x1000), NO_TRAP);
    IS(read_fs(0xfffd), NO_TRAP);
    D(0) = descriptor((uint32_t)(ulong)area, 0xfff, 0x97, 0); /* up to FFFFh */
    load_fs(SEL(0));
    IS(read_fs(0xfffc), NO_TRAP);
    IS(read_fs(0xfffd), GP);
    IS(read_fs(0x10000), GP);
    load_fs(K_DS);
}

TEST(types, "segments: what each type may be used for")
{
    D(0) = descriptor((uint32_t)(ulong)area, 0xffff, 0x91, 4); /* read-only */
    D(1) = descriptor((uint32_t)(ulong)area, 0xffff, 0x99, 4); /* execute-only */
    D(2) = descriptor((uint32_t)(ulong)area, 0xffff, 0x9b, 4); /* execute, read */
    load_fs(SEL(0));
    IS(read_fs(0), NO_TRAP);
    IS(write_fs(0), GP);
    IS(trap.error, 0);
    load_fs(SEL(2));
    IS(read_fs(0), NO_TRAP);
    IS(write_fs(0), GP);
    IS(PROBE("mov %0, %%fs", : "r"(SEL(1))), GP);
    IS(trap.error, SEL(1));
    IS(PROBE("movl $0, %%cs:area", : : "memory"), GP);
    IS(PROBE("movl %%cs:area, %%eax", : : "eax"), NO_TRAP);
    load_fs(0);
    IS(read_fs(0), GP); /* null */
    IS(trap.error, 0);
    load_fs(3);
    IS(read_fs(0), GP);
    load_fs(K_DS);
}

TEST(loads, "segments: selectors that cannot be loaded")
{
    D(0) = descriptor(0, 0xfffff, 0x13, 0xc); /* absent data */
    D(1) = descriptor(0, 0xfffff, 0x93, 0xc);
    D(2) = descriptor(0, 0xfffff, 0xf3, 0xc);
    D(3) = descriptor(0, 0xfffff, 0x9f, 0xc); /* conforming */
    D(4) = descriptor(0, 0xfffff, 0x92, 0xc);
    IS(PROBE("mov %0, %%fs", : "r"(SEL(0))), NP);
    IS(trap.error, SEL(0));
    IS(PROBE("mov %0, %%ss", : "r"(SEL(0))), SS);
    IS(trap.error, SEL(0));
    IS(PROBE("mov %0, %%fs", : "r"(SEL(1) | 1)), GP); /* RPL > DPL */
    IS(trap.error, SEL(1));
    IS(PROBE("mov %0, %%fs", : "r"(SEL(2) | 3)), NO_TRAP);
    IS(PROBE("mov %0, %%fs", : "r"(SEL(3) | 3)), NO_TRAP); /* conforming: no check */
    IS(PROBE("mov %0, %%ss", : "r"(SEL(2))), GP);          /* DPL is not CPL */
    IS(trap.error, SEL(2));
    IS(PROBE("mov %0, %%ss", : "r"(SEL(3))), GP);
    IS(PROBE("mov %0, %%ss", : "r"(0)), GP);
    IS(trap.error, 0);
    IS(PROBE("mov %0, %%fs", : "r"(K_TSS)), GP);
    IS(trap.error, K_TSS);
    IS(PROBE("mov %0, %%fs", : "r"(sizeof gdt)), GP);
    IS(trap.error, sizeof gdt);
    IS(PROBE("mov %0, %%fs", : "r"(SEL(1) | 4)), GP); /* no LDT */
    IS(trap.error, SEL(1) | 4);
    IS(D(4) >> 40 & 1, 0);
    load_fs(SEL(4));
    IS(D(4) >> 40 & 1, 1);
    static struct {
        uint32_t off;
        uint16_t sel;
    } __attribute__((packed)) far_pointer = {0x1234, SEL(0)};
    uint32_t v = 7;
    IS(PROBE("lfs %1, %0", "+r"(v) : "m"(far_pointer)), NP);
    IS(trap.error, SEL(0));
    far_pointer.sel = SEL(2);
    __asm__ volatile("lfs %1, %0" : "=r"(v) : "m"(far_pointer));
    IS(v, 0x1234);
    load_fs(K_DS);
}

TEST(ldt, "segments: LDT")
{
    static uint64_t ldt[4];
    ldt[1] = descriptor((uint32_t)(ulong)area, 0xff, 0x93, 4);
    D(0) = descriptor((uint32_t)(ulong)ldt, sizeof ldt - 1, 0x82, 0);
    D(1) = descriptor((uint32_t)(ulong)ldt, sizeof ldt - 1, 0x02, 0);
    IS(PROBE("lldt %w0", : "r"(SEL(1))), NP);
    IS(trap.error, SEL(1));
    IS(PROBE("lldt %w0", : "r"(K_DS)), GP);
    IS(trap.error, K_DS);
    IS(PROBE("lldt %w0", : "r"(SEL(0) | 4)), GP);
    IS(trap.error, SEL(0) | 4);
    IS(PROBE("lldt %w0", : "r"(SEL(0))), NO_TRAP);
    uint32_t v;
    __asm__ volatile("sldt %0" : "=r"(v));
    IS(v, SEL(0));
    IS(PROBE("mov %0, %%fs", : "r"(0xc)), NO_TRAP);
    IS(read_fs(0xfc), NO_TRAP);
    IS(read_fs(0xfd), GP);
    IS(PROBE("mov %0, %%fs", : "r"(4)), GP); /* index 0 of the LDT is a descriptor; it is empty */
    IS(trap.error, 4);
    IS(PROBE("mov %0, %%fs", : "r"(0x24)), GP);
    IS(trap.error, 0x24);
    load_fs(K_DS);
    IS(PROBE("lldt %w0", : "r"(0)), NO_TRAP);
    IS(PROBE("mov %0, %%fs", : "r"(0xc)), GP);
    IS(trap.error, 0xc);
    IS(PROBE("ltr %w0", : "r"(0)), GP);
    IS(trap.error, 0);
    IS(PROBE("ltr %w0", : "r"(SEL(0))), GP);
    IS(trap.error, SEL(0));
    IS(PROBE("ltr %w0", : "r"(K_TSS)), GP); /* busy */
    IS(trap.error, K_TSS);
}

TEST(examine, "segments: LAR, LSL, VERR, VERW, ARPL")
{
    D(0) = descriptor(0, 0x1234, 0x91, 4);
    D(1) = descriptor(0, 0x1, 0xf9, 0xc); /* execute-only, DPL 3 */
    D(2) = descriptor(0, 0, 0x8e, 0);     /* an interrupt gate has no place in a GDT */
    D(3) = descriptor(0, 0, 0xec, 0);     /* call gate */
    uint32_t v;
    bool zf;
    __asm__ volatile("lar %2, %0" : "=r"(v), "=@ccz"(zf) : "r"(SEL(0)));
    IS(zf, 1);
    IS(v & 0xf0ff00, 0x409100);
    __asm__ volatile("lsl %2, %0" : "=r"(v), "=@ccz"(zf) : "r"(SEL(1)));
    IS(zf, 1);
    IS(v, 0x1fff);
    v = 77;
    __asm__ volatile("lar %2, %0" : "+r"(v), "=@ccz"(zf) : "r"(SEL(2)));
    IS(zf, 0);
    IS(v, 77); /* not changed */
    __asm__ volatile("lar %2, %0" : "+r"(v), "=@ccz"(zf) : "r"(SEL(3)));
    IS(zf, 1);
    __asm__ volatile("lsl %2, %0" : "+r"(v), "=@ccz"(zf) : "r"(SEL(3)));
    IS(zf, 0);
    __asm__ volatile("lar %2, %0" : "+r"(v), "=@ccz"(zf) : "r"(SEL(0) | 3)); /* RPL > DPL */
    IS(zf, 0);
    __asm__ volatile("verr %w1" : "=@ccz"(zf) : "r"(SEL(0)));
    IS(zf, 1);
    __asm__ volatile("verw %w1" : "=@ccz"(zf) : "r"(SEL(0)));
    IS(zf, 0);
    __asm__ volatile("verr %w1" : "=@ccz"(zf) : "r"(SEL(1)));
    IS(zf, 0);
    __asm__ volatile("verr %w1" : "=@ccz"(zf) : "r"(0));
    IS(zf, 0);
    uint16_t sel = 0x50;
    __asm__ volatile("arpl %w2, %w0" : "+r"(sel), "=@ccz"(zf) : "r"(2));
    IS(sel, 0x52);
    IS(zf, 1);
    __asm__ volatile("arpl %w2, %w0" : "+r"(sel), "=@ccz"(zf) : "r"(1));
    IS(sel, 0x52);
    IS(zf, 0);
}

/* ---- stack segments ---- */

USER(u_push, "push %eax; int $0x80");
USER(u_push16, "mov $0x12340000, %esp; push %eax; mov %esp, %ebx; int $0x80");
USER(u_pop, "pop %eax; int $0x80");
USER(u_ebp, "mov %edi, %ebp; mov (%ebp), %eax; int $0x80");
USER(u_call, "call 1f; 1: int $0x80");
USER(u_enter, "enter $16, $3; int $0x80");

static unsigned on_stack(const char *code, const char *end, uint64_t desc, ulong esp, ulong arg)
{
    struct frame f;
    user_frame(&f, code, (size_t)(end - code), arg);
    D(0) = desc;
    f.ss = SEL(0) | 3;
    f.sp = esp;
    return run_frame(&f);
}
#define stack(name, desc, esp, arg) on_stack(name, name##_end, desc, esp, arg)

TEST(stacks, "segments: stack faults, 16-bit and expand-down stacks")
{
    uint32_t base = (uint32_t)(ulong)area;
    uint64_t small = descriptor(base, 0xfff, 0xf3, 4), down = descriptor(base, 0xfff, 0xf7, 4),
             wide16 = descriptor(base, 0xffff, 0xf3, 0);
    IS(stack(u_push, small, 0x1000, 0), 0x80);
    IS(stack(u_push, small, 0x1004, 0), SS);
    IS(trap.error, 0);
    IS(trap.sp, 0x1004);
    IS(stack(u_push, small, 0, 0), SS); /* wraps to FFFFFFFCh */
    IS(stack(u_pop, small, 0xffd, 0), SS);
    IS(stack(u_call, small, 0x2000, 0), SS);
    IS(stack(u_ebp, small, 0x1000, 0xffd), SS); /* EBP: SS by default */
    IS(stack(u_enter, small, 0x1008, 0), SS);
    IS(stack(u_push, down, 0x1000, 0), SS);
    IS(stack(u_push, down, 0x1004, 0), 0x80);
    IS(stack(u_push16, wide16, 0x8000, 0), 0x80); /* SP wraps in 16 bits, upper half stays */
    IS(trap.bx, 0x1234fffc);
    area[0x100] = 0x77;
    area[0x101] = area[0x102] = area[0x103] = 0;
    IS(stack(u_pop, wide16, 0xabcd0100, 0), 0x80);
    IS(trap.ax, 0x77);
    IS(trap.sp & 0xffff, 0x104); /* IRET did not load the upper half: the stack is of 16 bits */
    IS(stack(u_pop, wide16, 0xfffe, 0), SS); /* across the limit */
}

/* ---- code segments ---- */

static unsigned far_jump(unsigned sel, ulong ip)
{
    struct {
        uint32_t ip;
        uint16_t cs;
    } __attribute__((packed)) to = {(uint32_t)ip, (uint16_t)sel};
    return (unsigned)PROBE("ljmp *%0", : "m"(to) : "memory");
}

extern const char landing[], conforming_code[];
__asm__(".text\nlanding: int $0x79\nconforming_code: int $0x80");

TEST(far_jumps, "segments: far jumps and returns within a privilege")
{
    D(0) = descriptor(0, 0xfffff, 0x9b, 0xc);
    D(1) = descriptor(0, 0xfffff, 0x1b, 0xc); /* absent */
    D(2) = descriptor(0, 0xfffff, 0xfb, 0xc); /* DPL 3 */
    D(3) = descriptor(0, 0xfffff, 0x9f, 0xc); /* conforming */
    D(4) = descriptor(0, 0xfff, 0x9b, 4);     /* small */
    D(5) = descriptor(0, 0xfffff, 0x9a, 0xc); /* not accessed */
    IS(far_jump(SEL(0), (ulong)landing), 0x79);
    IS(trap.cs & 0xffff, SEL(0));
    IS(far_jump(SEL(1), (ulong)landing), NP);
    IS(trap.error, SEL(1));
    IS(far_jump(SEL(2), (ulong)landing), GP);
    IS(trap.error, SEL(2));
    IS(far_jump(SEL(0) | 3, (ulong)landing), GP); /* RPL > CPL */
    IS(trap.error, SEL(0));
    IS(far_jump(SEL(3) | 3, (ulong)landing), 0x79); /* RPL of a conforming one is not checked */
    IS(trap.cs & 0xffff, SEL(3));                   /* CS.RPL is CPL */
    IS(far_jump(SEL(4), (ulong)landing), GP);       /* beyond the limit */
    IS(trap.error, 0);
    IS(trap.cs & 0xffff, K_CS32);
    IS(far_jump(SEL(5), (ulong)landing), 0x79);
    IS(D(5) >> 40 & 1, 1);
    IS(far_jump(0, (ulong)landing), GP);
    IS(trap.error, 0);
    IS(far_jump(K_DS, (ulong)landing), GP);
    IS(trap.error, K_DS);
    IS(PROBE("push %0; push $0; lret", : "r"(SEL(1)) : "memory"), NP);
    IS(PROBE("push %0; push $0; lret", : "r"(0) : "memory"), GP);
    IS(trap.error, 0);
    IS(PROBE("push %0; push $0; lret", : "r"(K_DS) : "memory"), GP);
    IS(trap.error, K_DS);
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(K_DS));
}

USER(u_fall, "nop; nop");
USER(u_jump_out, "jmp . + 0x2000");

TEST(code_limit, "segments: execution beyond the limit of CS")
{
    struct frame f;
    user_frame(&f, u_fall, 2, 0);
    memcpy(area, "\x90\x90\x90\xb8\x01\x02\x03\x04", 8);
    D(1) = descriptor((uint32_t)(ulong)area, 5, 0xfb, 4);
    f.ip = 0;
    f.cs = SEL(1) | 3;
    IS(run_frame(&f), GP); /* the MOV at 3 does not fit */
    IS(trap.ip, 3);
    IS(trap.error, 0);
    memcpy(area, "\xe9\x00\x10\x00\x00", 5);
    IS(run_frame(&f), GP); /* reported at the jump, not at the target */
    IS(trap.ip, 0);
    memset(area, 0x90, 6);
    IS(run_frame(&f), GP);
    IS(trap.ip, 6);
    f.ip = 6; /* IRET checks the new EIP itself */
    IS(run_frame(&f), GP);
    IS(trap.cs & 0xffff, K_CS32);
    /* 16-bit code: near jumps keep 16 bits of EIP. */
    D(1) = descriptor((uint32_t)(ulong)area, 0xffff, 0xfb, 0);
    memcpy(area + 0x8000, "\xe9\xfd\x80", 3); /* JMP +80FDh = 0100h */
    memcpy(area + 0x100, "\xcd\x80", 2);
    f.ip = 0x8000;
    IS(run_frame(&f), 0x80);
    IS(trap.ip, 0x102);
}

/* ---- privilege changes ---- */

uint32_t gate_frame[6], gate_ss, gate_sp, gate_cs;
extern const char gate_code[], gate_code16[];
__asm__(".text\n"
        "gate_code: push %ds; mov $0x18, %eax; mov %eax, %ds\n"
        "mov %esp, gate_sp; addl $4, gate_sp; mov %ss, gate_ss; mov %cs, gate_cs\n"
        "lea 4(%esp), %esi; mov $gate_frame, %edi; mov $6, %ecx; rep movsl; pop %ds\n"
        "lret $8\n"
        "gate_code16: int $0x79");
/* Pushes two parameters, calls, shows ESP, DS and FS. */
USER(u_gate,
     "mov %esp, %ebp; mov $0x18, %edx; push $0x1111; push $0x2222; lcall $0x50, $0x12345678; "
     "mov %esp, %ebx; mov %ds, %edx; mov %fs, %esi; int $0x80");
USER(u_gate_jmp, "ljmp $0x50, $0");
USER(u_lret_in, "push $0x8; push $0; lret");

static uint64_t gate32(ulong ip, unsigned sel, unsigned access, unsigned params)
{
    return (ip & 0xffff) | (uint64_t)sel << 16 | (uint64_t)params << 32 | (uint64_t)access << 40 |
           (uint64_t)(ip >> 16) << 48;
}

TEST(call_gates, "segments: call gates to an inner privilege, and back")
{
    D(0) = gate32((ulong)gate_code, K_CS32, 0xec, 2);
    IS(user(u_gate, 0), 0x80);
    IS(gate_ss & 0xffff, K_DS);
    IS(gate_cs & 0xffff, K_CS32);
    IS(gate_sp, (ulong)trap_stack_top - 24); /* SS ESP, two parameters, CS EIP */
    const uint32_t *s = gate_frame;
    IS(s[1] & 0xffff, U_CS32);
    IS(s[2], 0x2222);
    IS(s[3], 0x1111);
    IS(s[4], trap.bp - 8);
    IS(s[5] & 0xffff, U_DS);
    IS(trap.bx, trap.bp);        /* RET 8 removed the parameters from both stacks */
    IS(user(u_gate_jmp, 0), GP); /* JMP cannot change CPL */
    IS(trap.error, K_CS32);
    D(0) = gate32((ulong)gate_code, K_CS32, 0x8c, 2); /* DPL 0 */
    IS(user(u_gate, 0), GP);
    IS(trap.error, SEL(0));
    D(0) = gate32((ulong)gate_code, K_CS32, 0x6c, 2);
    IS(user(u_gate, 0), NP);
    IS(trap.error, SEL(0));
    D(0) = gate32((ulong)gate_code, K_DS, 0xec, 2);
    IS(user(u_gate, 0), GP);
    IS(trap.error, K_DS);
    D(0) = gate32((ulong)gate_code, 0, 0xec, 2);
    IS(user(u_gate, 0), GP);
    IS(trap.error, 0);
    /* 16-bit gate: words are pushed. */
    memcpy((void *)0x9000, gate_code16, 2);
    D(0) = gate32(0x9000, K_CS32, 0xe4, 0);
    IS(user(u_gate, 0), 0x79);
    IS(((const uint16_t *)trap_stack_top)[-1], U_DS);
    IS(((const uint16_t *)trap_stack_top)[-3], U_CS32);
    IS(user(u_lret_in, 0), GP); /* no return to an inner privilege */
    IS(trap.error, K_CS32);
}

USER(u_sel, "mov %ds, %eax; mov %es, %ecx; mov %fs, %edx; mov %gs, %ebx; int $0x80");

TEST(outer_return, "segments: IRET to user mode drops inner data segments")
{
    struct frame f;
    D(0) = descriptor(0, 0xfffff, 0x9f, 0xc); /* conforming code: kept */
    user_frame(&f, u_sel, (size_t)(u_sel_end - u_sel), 0);
    f.ds = U_DS;
    f.es = K_DS;
    f.fs = SEL(0);
    f.gs = K_DS;
    IS(run_frame(&f), 0x80);
    IS(trap.ax & 0xffff, U_DS);
    IS(trap.cx & 0xffff, 0);
    IS(trap.dx & 0xffff, SEL(0));
    IS(trap.bx & 0xffff, 0);
    f.ss = K_DS;
    IS(run_frame(&f), GP);
    IS(trap.error, K_DS);
    f.ss = 0;
    IS(run_frame(&f), GP);
    IS(trap.error, 0);
    f.ss = U_DS;
    f.cs = U_CS32 & ~3;
    IS(run_frame(&f), GP); /* RPL 0, DPL 3: nonconforming must be equal */
    IS(trap.error, U_CS32 & ~3);
    load_fs(K_DS);
    __asm__ volatile("mov %0, %%gs" : : "r"(K_DS));
}

USER(u_int77, "int $0x77");

TEST(gates, "segments: interrupt gates of 16 bits, to conforming code, with a bad TSS stack")
{
    /* INT through a conforming segment stays at CPL 3. */
    D(0) = descriptor(0, 0xfffff, 0x9f, 0xc);
    idt[0x77] = gate32((ulong)conforming_code, SEL(0), 0xee, 0);
    IS(user(u_int77, 0), 0x80);
    IS(trap.cs & 0xffff, SEL(0) | 3);
    /* 16-bit interrupt gate: 3 words */
    memcpy((void *)0x9000, "\xcd\x79", 2);
    idt[0x77] = gate32(0x9000, K_CS32, 0x86, 0);
    ulong sp;
    IS(PROBE("mov %%esp, %%ecx; int $0x77", "=c"(sp)), 0x79);
    set_gate(0x77, 3, GATE_INT, 0);
    /* Task gate to something that is no TSS */
    idt[0x77] = gate32(0, K_DS, 0x85, 0);
    IS(PROBE("int $0x77", ), GP);
    IS(trap.error, K_DS);
    idt[0x77] = gate32(0, K_TSS, 0x85, 0); /* busy */
    IS(PROBE("int $0x77", ), GP);
    IS(trap.error, K_TSS);
    set_gate(0x77, 0, GATE_INT, 0);
    IS(PROBE("into", ), NO_TRAP);
    IS(PROBE("mov $0x7fffffff, %%eax; inc %%eax; into", : : "eax", "cc"), OF);
    int32_t bounds[2] = {-5, 5};
    IS(PROBE("bound %0, %1", : "r"(5), "m"(bounds)), NO_TRAP);
    IS(PROBE("bound %0, %1", : "r"(-6), "m"(bounds)), BR);
    IS(PROBE("bound %0, %1", : "r"(6), "m"(bounds)), BR);
}
