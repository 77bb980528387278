/*
 * user.c - 64-bit mode: what user mode may not do, I/O permission, alignment checks, SYSCALL and
 * SYSENTER, far transfers, compatibility mode, segment registers.
 */
#include "mem.h"
#include "platform.h"

#define STAR           0xc0000081u
#define LSTAR          0xc0000082u
#define CSTAR          0xc0000083u
#define SFMASK         0xc0000084u
#define FS_BASE        0xc0000100u
#define GS_BASE        0xc0000101u
#define KERNEL_GS_BASE 0xc0000102u
#define SYSENTER_CS    0x174u
#define SYSENTER_ESP   0x175u
#define SYSENTER_EIP   0x176u

/* ---- privilege ---- */

USER(p_hlt, "hlt");
USER(p_cli, "cli; int $0x80");
USER(p_sti, "sti; int $0x80");
USER(p_in, "in $0x80, %al; int $0x80");
USER(p_outl, "mov $0x7e, %edx; out %eax, (%dx); int $0x80");
USER(p_insb, "mov %rsp, %rdi; sub $8, %rdi; mov $0x80, %edx; insb; int $0x80");
USER(p_lgdt, "lgdt -16(%rsp)");
USER(p_lidt, "lidt -16(%rsp)");
USER(p_lldt, "lldt %ax");
USER(p_ltr, "ltr %ax");
USER(p_cr0, "mov %cr0, %rax");
USER(p_cr8, "mov %cr8, %rax");
USER(p_to_cr3, "mov %rax, %cr3");
USER(p_clts, "clts");
USER(p_lmsw, "lmsw %ax");
USER(p_invlpg, "invlpg (%rsp)");
USER(p_wbinvd, "wbinvd");
USER(p_invd, "invd");
USER(p_rdmsr, "mov $0xc0000080, %ecx; rdmsr");
USER(p_wrmsr, "mov $0xc0000102, %ecx; wrmsr");
USER(p_swapgs, "swapgs");
USER(p_sysret, "sysretq");
USER(p_sysexit, "sysexitl");
USER(p_invpcid, "xor %eax, %eax; invpcid -32(%rsp), %rax");
USER(p_xsetbv, "xor %ecx, %ecx; xgetbv; xsetbv");
USER(p_rdpmc, "xor %ecx, %ecx; rdpmc");

TEST(privileged, "user: privileged instructions: #GP(0)")
{
    set_cr4(get_cr4() | CR4_OSXSAVE | CR4_OSFXSR);
#define REFUSED(name)      \
    IS(user(name, 0), GP); \
    IS(trap.error, 0)
    REFUSED(p_hlt);
    REFUSED(p_cli);
    REFUSED(p_sti);
    REFUSED(p_in);
    REFUSED(p_outl);
    REFUSED(p_insb);
    REFUSED(p_lgdt);
    REFUSED(p_lidt);
    REFUSED(p_lldt);
    REFUSED(p_ltr);
    REFUSED(p_cr0);
    REFUSED(p_cr8);
    REFUSED(p_to_cr3);
    REFUSED(p_clts);
    REFUSED(p_lmsw);
    REFUSED(p_invlpg);
    REFUSED(p_wbinvd);
    REFUSED(p_invd);
    REFUSED(p_rdmsr);
    REFUSED(p_wrmsr);
    REFUSED(p_swapgs);
    REFUSED(p_sysexit);
    REFUSED(p_invpcid);
    REFUSED(p_xsetbv);
    REFUSED(p_rdpmc);
    wrmsr(EFER, rdmsr(EFER) | EFER_SCE);
    REFUSED(p_sysret);
    wrmsr(EFER, rdmsr(EFER) & ~(uint64_t)EFER_SCE);
    IS(user(p_sysret, 0), UD); /* without SCE */
}

USER(p_sgdt, "sgdt -16(%rsp); int $0x80");
USER(p_sidt, "sidt -16(%rsp); int $0x80");
USER(p_sldt, "sldt %ax; int $0x80");
USER(p_str, "str %ax; int $0x80");
USER(p_smsw, "smsw %ax; int $0x80");
USER(p_rdtsc, "rdtsc; int $0x80");
USER(p_rdtscp, "rdtscp; int $0x80");

TEST(umip_tsd, "user: UMIP, TSD")
{
    IS(user(p_sgdt, 0), 0x80);
    IS(user(p_sidt, 0), 0x80);
    IS(user(p_sldt, 0), 0x80);
    IS(user(p_str, 0), 0x80);
    IS(trap.ax & 0xffff, K_TSS);
    IS(user(p_smsw, 0), 0x80);
    set_cr4(get_cr4() | CR4_UMIP);
    REFUSED(p_sgdt);
    REFUSED(p_sidt);
    REFUSED(p_sldt);
    REFUSED(p_str);
    REFUSED(p_smsw);
    IS(PROBE("smsw %%ax", : : "eax"), NO_TRAP);
    set_cr4(get_cr4() & ~(ulong)CR4_UMIP);
    IS(user(p_rdtsc, 0), 0x80);
    IS(user(p_rdtscp, 0), 0x80);
    set_cr4(get_cr4() | CR4_TSD);
    REFUSED(p_rdtsc);
    REFUSED(p_rdtscp);
    IS(PROBE("rdtsc", : : "eax", "edx"), NO_TRAP);
    set_cr4(get_cr4() & ~(ulong)CR4_TSD);
}

static unsigned run_flags(const char *code, const char *end, ulong flags)
{
    struct frame f;
    user_frame(&f, code, (size_t)(end - code), 0);
    f.flags = flags | 2;
    return run_frame(&f);
}
#define user_flags(name, flags) run_flags(name, name##_end, flags)

TEST(iopl, "user: IOPL, the I/O permission map, POPF")
{
    IS(user_flags(p_in, FL_IOPL3), 0x80);
    IS(user_flags(p_outl, FL_IOPL3), 0x80);
    IS(user_flags(p_cli, FL_IOPL3 | FL_IF), 0x80);
    IS(trap.flags & FL_IF, 0);
    IS(user_flags(p_sti, FL_IOPL3), 0x80);
    IS(trap.flags & FL_IF, FL_IF);
    IS(user_flags(p_hlt, FL_IOPL3), GP);
    tss[TSS_IOMAP + 16] &= ~1; /* port 80h */
    IS(user(p_in, 0), 0x80);
    IS(user(p_insb, 0), 0x80);
    IS(user(p_outl, 0), GP); /* 7Eh .. 81h: all four bits are looked at */
    tss[TSS_IOMAP + 15] &= 0x3f;
    tss[TSS_IOMAP + 16] &= ~2;
    IS(user(p_outl, 0), 0x80);
    tss[TSS_IOMAP + 15] = tss[TSS_IOMAP + 16] = 0xff;
    /* POPF in user mode changes neither IOPL nor, with IOPL < CPL, IF; no fault. */
    static const char popf_code[] = "\x68\x02\x32\x00\x00\x9d\x9c\x58\xcd\x80"; /* push 3202h */
    struct frame f;
    user_frame(&f, popf_code, sizeof popf_code - 1, 0);
    IS(run_frame(&f), 0x80);
    IS(trap.ax & 0x3200, 0);
    user_frame(&f, popf_code, sizeof popf_code - 1, 0);
    f.flags |= FL_IOPL3;
    IS(run_frame(&f), 0x80);
    IS(trap.ax & 0x3200, 0x3200);
}

USER(p_load, "mov -31(%rsp,%rdi), %eax; int $0x80");
USER(p_push, "dec %rsp; push %rax; int $0x80");
USER(p_movaps, "movaps -31(%rsp), %xmm0; int $0x80");

TEST(alignment, "user: alignment check: CR0.AM, EFLAGS.AC, CPL 3 only")
{
    IS(user_flags(p_load, FL_AC), 0x80);
    set_cr0(get_cr0() | CR0_AM);
    IS(user(p_load, 0), 0x80);
    struct frame f;
    user_frame(&f, p_load, (size_t)(p_load_end - p_load), 0);
    f.flags |= FL_AC;
    IS(run_frame(&f), AC);
    IS(trap.error, 0);
    IS(trap.ip, USER_CODE);
    user_frame(&f, p_load, (size_t)(p_load_end - p_load), -1);
    f.flags |= FL_AC;
    IS(run_frame(&f), 0x80);
    IS(user_flags(p_push, FL_AC), AC);
    ulong v;
    IS(PROBE("pushf; orl $0x40000, (%%rsp); popf; mov 1(%%rsp), %0; pushf; andl $~0x40000, "
             "(%%rsp); popf",
             "=r"(v)
             :
             : "cc", "memory"),
       NO_TRAP);               /* not at CPL 0 */
    IS(user(p_movaps, 0), GP); /* an alignment of its own, whatever AC says */
    set_cr0(get_cr0() & ~(ulong)CR0_AM);
}

/* ---- SYSCALL, SYSRET ---- */

USER(s_syscall, "syscall; int $0x80");

uint8_t small_stack[4096] __attribute__((aligned(16)));
uint64_t sys_sp, sys_cx, sys_r11, sys_flags, sys_ss, sys_cs, sys_user_sp;

extern const char on_syscall[];
/* Records the state, then returns with an interrupt that is caught. */
__asm__(".text\non_syscall: mov %rsp, sys_user_sp\n"
        "lea small_stack+4096, %rsp\n"
        "mov %rcx, sys_cx; mov %r11, sys_r11; pushf; pop sys_flags\n"
        "mov %ss, sys_ss; mov %cs, sys_cs\n"
        "int $0x78\n");

static void enable_syscall(void)
{
    wrmsr(EFER, rdmsr(EFER) | EFER_SCE);
    wrmsr(STAR, 0x23ull << 48 | (uint64_t)K_CS64 << 32);
    wrmsr(LSTAR, (ulong)on_syscall);
    wrmsr(SFMASK, FL_IF | 0x400 | FL_TF);
}

TEST(syscall, "user: SYSCALL: RCX, R11, flags, segments")
{
    IS(user(s_syscall, 0), UD); /* SCE is 0 */
    enable_syscall();
    struct frame f;
    user_frame(&f, s_syscall, (size_t)(s_syscall_end - s_syscall), 0);
    f.flags |= 0xcd5 | FL_RF; /* with DF and OF, and RF */
    IS(run_frame(&f), 0x78);
    IS(sys_cx, USER_CODE + 2);
    IS(sys_r11, 0xcd5 | 2); /* RF is cleared by the time the flags are saved */
    IS(sys_flags & (0x400 | FL_IF | FL_RF), 0);
    IS(sys_cs & 0xffff, K_CS64);
    IS(sys_ss & 0xffff, K_CS64 + 8);
    IS(sys_user_sp, USER_STACK);
    for (unsigned masked = 0; masked < 2; masked++) {
        wrmsr(SFMASK, FL_IF | (masked ? FL_AC : 0));
        IS(user_flags(s_syscall, FL_AC), 0x78);
        IS(sys_r11, FL_AC | 2);
        IS(sys_flags & FL_AC, masked ? 0 : FL_AC);
    }
    wrmsr(SFMASK, FL_IF);
}

/* Calls within calls, each with a system call that returns at once. */
USER(s_many, "mov $20000, %ebx\n"
             "1: call 2f; dec %ebx; jnz 1b; int $0x80\n"
             "2: call 3f; add $1, %rbp; ret\n"
             "3: push $0; popf; syscall; adc $0, %rbp; ret");
uint64_t sys_count;
extern const char on_many[];
__asm__(".text\non_many: call 1f; or $1, %r11d; sysretq\n"
        "1: incq sys_count; ret");

USER(s_ret, "call 1f; mov %cs, %ecx; int $0x80; 1: mov (%rsp), %rax; syscall");
extern const char on_ret[], on_unbalanced[];
__asm__(".text\non_ret: push %rax; ret\n"
        "on_unbalanced: call 1f; 1: add $8, %rsp; or $1, %r11d; sysretq\n");

TEST(syscalls, "user: SYSCALL and SYSRET many times, within calls")
{
    struct frame f;
    enable_syscall();
    wrmsr(LSTAR, (ulong)on_many);
    sys_count = 0;
    user_frame(&f, s_many, (size_t)(s_many_end - s_many), 0);
    IS(run_frame(&f), 0x80);
    IS(sys_count, 20000);
    IS(trap.bp, 40000); /* CF is what SYSRET has loaded */
    /* Returns of one side are not taken for the other's: a kernel that returns to where the program
     * would, and one that calls without returning. */
    wrmsr(LSTAR, (ulong)on_ret);
    user_frame(&f, s_ret, (size_t)(s_ret_end - s_ret), 0);
    IS(run_frame(&f), 0x80);
    IS(trap.cs, K_CS64);
    IS(trap.ip, USER_CODE + 9);
    wrmsr(LSTAR, (ulong)on_unbalanced);
    user_frame(&f, s_many, (size_t)(s_many_end - s_many), 0);
    IS(run_frame(&f), 0x80);
    IS(trap.bp, 40000);
}

static unsigned sysret_to(const char *insn, uint64_t cx, uint64_t r11)
{
    struct frame f = {.ip = (ulong)insn,
                      .cs = K_CS64,
                      .flags = 2,
                      .ss = K_DS,
                      .sp = (ulong)small_stack + 4096,
                      .cx = cx,
                      .r11 = r11};
    return run_frame(&f);
}
extern const char r_sysretq[], r_sysretl[], r_sysexitq[], r_sysexitl[];
__asm__(
    ".text\nr_sysretq: sysretq\nr_sysretl: sysretl\nr_sysexitq: sysexitq\nr_sysexitl: sysexitl");

TEST(sysret, "user: SYSRET: segments, flags, RCX that is not canonical")
{
    struct frame f;
    user_frame(&f, "\xcd\x80", 2, 0);
    enable_syscall();
    IS(sysret_to(r_sysretq, USER_CODE, 0x3cd5 | FL_RF | FL_VM), 0x80);
    IS(trap.cs, U_CS64);
    IS(trap.ss, U_DS);
    IS(trap.flags & ~2ul, 0x3cd5); /* RF and VM are cleared */
    IS(trap.ip, USER_CODE + 2);
    IS(sysret_to(r_sysretq, 0x800000000000, 2), GP);
    IS(trap.cs, K_CS64); /* #GP at CPL 0, before anything changes */
    IS(trap.error, 0);
    IS(trap.ip, (ulong)r_sysretq);
    user_frame(&f, "\x90\xcd\x80", 3, 0);
    IS(sysret_to(r_sysretq, USER_CODE, FL_TF | 2), DB);
    IS(trap.cs, U_CS64);
    user_frame(&f, "\x8b\x41\x01\xcd\x80", 5, 0); /* mov 1(%rcx), %eax */
    set_cr0(get_cr0() | CR0_AM);
    IS(sysret_to(r_sysretq, USER_CODE, FL_AC | 2), AC);
    set_cr0(get_cr0() & ~(ulong)CR0_AM);
    IS(sysret_to(r_sysretq, USER_CODE, FL_AC | 2), 0x80);
    wrmsr(EFER, rdmsr(EFER) & ~(ulong)EFER_SCE);
    IS(sysret_to(r_sysretq, USER_CODE, 2), UD);
    enable_syscall();
    user_frame(&f, "\xcd\x80", 2, 0);
    /* A STAR without RPL bits: SYSRET sets them. */
    wrmsr(STAR, 0x20ull << 48 | (uint64_t)K_CS64 << 32);
    IS(sysret_to(r_sysretq, USER_CODE, 2), 0x80);
    IS(trap.cs, U_CS64);
    IS(trap.ss, U_DS);
    wrmsr(STAR, 0x23ull << 48 | (uint64_t)K_CS64 << 32);
}

USER(u_sysenter, "sysenter");

TEST(sysenter, "user: SYSENTER and SYSEXIT")
{
    wrmsr(SYSENTER_CS, 0);
    IS(user(u_sysenter, 0), GP); /* SYSENTER_CS is null */
    IS(trap.error, 0);
    wrmsr(SYSENTER_CS, K_CS64);
    wrmsr(SYSENTER_ESP, (ulong)small_stack + 4096);
    wrmsr(SYSENTER_EIP, (ulong)on_syscall);
    struct frame f;
    user_frame(&f, u_sysenter, (size_t)(u_sysenter_end - u_sysenter), 0);
    f.flags |= FL_IF;
    IS(run_frame(&f), 0x78);
    IS(sys_user_sp, (ulong)small_stack + 4096);
    IS(sys_cs & 0xffff, K_CS64);
    IS(sys_ss & 0xffff, K_CS64 + 8);
    IS(sys_flags & FL_IF, 0);
    /* SYSEXIT: RDX is RIP, RCX is RSP. CS is SYSENTER_CS + 32 or + 16. */
    user_frame(&f, "\xcd\x80", 2, 0);
    struct frame k = {.ip = (ulong)r_sysexitq,
                      .cs = K_CS64,
                      .flags = 2,
                      .ss = K_DS,
                      .sp = (ulong)small_stack + 4096,
                      .cx = USER_STACK,
                      .dx = USER_CODE};
    IS(run_frame(&k), 0x80);
    IS(trap.cs, K_CS64 + 32 + 3);
    IS(trap.ss, K_CS64 + 40 + 3);
    IS(trap.sp, USER_STACK);
    IS(trap.ip, USER_CODE + 2);
    k.dx = 0x800000000000;
    IS(run_frame(&k), GP);
    IS(trap.cs, K_CS64);
    k.dx = USER_CODE;
    k.cx = 0x800000000000;
    IS(run_frame(&k), GP);
    wrmsr(SYSENTER_CS, 0);
    k.cx = USER_STACK;
    IS(run_frame(&k), GP);
}

/* ---- MSRs ---- */

TEST(msrs, "user: MSRs: unknown ones, addresses that are not canonical")
{
    uint64_t bad = 0x800000000000;
    IS(PROBE("rdmsr", : "c"(0x12345678) : "eax", "edx"), GP);
    IS(PROBE_WRMSR(0x12345678, 0), GP);
    IS(PROBE_WRMSR(LSTAR, bad), GP);
    IS(PROBE_WRMSR(CSTAR, bad), GP);
    IS(PROBE_WRMSR(FS_BASE, bad), GP);
    IS(PROBE_WRMSR(GS_BASE, bad), GP);
    IS(PROBE_WRMSR(KERNEL_GS_BASE, bad), GP);
    for (unsigned msr = FS_BASE; msr <= KERNEL_GS_BASE; msr++) {
        wrmsr(msr, 0xffff800012345678ul + msr);
        IS(rdmsr(msr), 0xffff800012345678ul + msr);
    }
    for (unsigned msr = FS_BASE; msr <= KERNEL_GS_BASE; msr++)
        wrmsr(msr, 0);
    IS(PROBE_WRMSR(SYSENTER_EIP, bad), GP);
    IS(PROBE_WRMSR(SYSENTER_ESP, bad), GP);
    IS(PROBE_WRMSR(SFMASK, 1ull << 32), GP);
    IS(PROBE_WRMSR(0x277, 0x0007040600070402), GP); /* PAT: type 2 is reserved */
    IS(PROBE_WRMSR(0x277, 0x0007040600070408), GP);
    IS(PROBE_WRMSR(0x1b, 1ull << 52), GP); /* APIC_BASE */
    IS(PROBE_WRMSR(0x2ff, 0x02), GP);      /* MTRR default type */
    IS(PROBE_WRMSR(0xfe, 0), GP);          /* MTRRCAP is read-only */
    IS(PROBE("mov %0, %%cr8", : "r"(0x10ul)), GP);
    IS(PROBE("mov %0, %%cr8", : "r"(5ul)), NO_TRAP);
    ulong v;
    __asm__ volatile("mov %%cr8, %0" : "=r"(v));
    IS(v, 5);
    IS(apic_read(APIC_TPR), 0x50);
    apic_write(APIC_TPR, 0x2f);
    __asm__ volatile("mov %%cr8, %0" : "=r"(v));
    IS(v, 2);
    apic_write(APIC_TPR, 0);
    IS(PROBE(".byte 0x0f, 0x20, 0xc8", : : "rax"), UD);       /* CR1 */
    IS(PROBE(".byte 0x0f, 0x20, 0xe8", : : "rax"), UD);       /* CR5 */
    IS(PROBE(".byte 0x44, 0x0f, 0x20, 0xc8", : : "rax"), UD); /* CR9 */
}

TEST(swapgs, "user: SWAPGS, FSGSBASE")
{
    ulong v;
    IS(PROBE("rdfsbase %0", "=r"(v)), UD);
    set_cr4(get_cr4() | CR4_FSGSBASE);
    wrmsr(GS_BASE, 0x1000);
    wrmsr(KERNEL_GS_BASE, 0x2000);
    __asm__ volatile("swapgs");
    IS(rdmsr(GS_BASE), 0x2000);
    IS(rdmsr(KERNEL_GS_BASE), 0x1000);
    IS(PROBE("wrgsbase %0", : "r"(0x800000000000)), GP);
    IS(PROBE("wrgsbase %0", : "r"(0x7000ul)), NO_TRAP);
    IS(rdmsr(GS_BASE), 0x7000);
    static uint64_t cell = 0x1234;
    wrmsr(FS_BASE, (ulong)&cell - 16);
    __asm__ volatile("mov %%fs:16, %0" : "=r"(v));
    IS(v, 0x1234);
    /* Loading a selector replaces the base, from the descriptor; upper half zero. */
    wrmsr(FS_BASE, 0x123456789000);
    __asm__ volatile("mov %0, %%fs" : : "r"(K_DS));
    IS(rdmsr(FS_BASE), 0);
    set_cr4(get_cr4() & ~(ulong)CR4_FSGSBASE);
    wrmsr(GS_BASE, 0);
}

/* ---- segments and far transfers ---- */

TEST(segment_loads, "user: loading segment registers in 64-bit mode")
{
    gdt[FREE_SEL / 8] = descriptor(0, 0xfffff, 0x93 & ~0x80, 0xc); /* absent data */
    gdt[FREE_SEL / 8 + 1] = descriptor(0, 0xfffff, 0x99, 0xa);     /* execute-only */
    gdt[FREE_SEL / 8 + 2] = descriptor(0, 0xfffff, 0x91, 0xc);     /* read-only data */
    gdt[FREE_SEL / 8 + 3] = descriptor(0, 0xfffff, 0x92, 0xc);     /* not accessed */
    IS(PROBE("mov %0, %%ds", : "r"(FREE_SEL)), NP);
    IS(trap.error, FREE_SEL);
    IS(PROBE("mov %0, %%ss", : "r"(FREE_SEL)), SS);
    IS(trap.error, FREE_SEL);
    IS(PROBE("mov %0, %%ds", : "r"(FREE_SEL + 8)), GP);
    IS(trap.error, FREE_SEL + 8);
    IS(PROBE("mov %0, %%ss", : "r"(FREE_SEL + 16)), GP);     /* not writable */
    IS(PROBE("mov %0, %%ss", : "r"(FREE_SEL + 24 + 3)), GP); /* RPL */
    IS(trap.error, FREE_SEL + 24);
    IS(gdt[FREE_SEL / 8 + 3] >> 40 & 1, 0);
    IS(PROBE("mov %0, %%es; mov %1, %%es", : "r"(FREE_SEL + 24), "r"(K_DS)), NO_TRAP);
    IS(gdt[FREE_SEL / 8 + 3] >> 40 & 1, 1);                                /* accessed */
    IS(PROBE("mov %0, %%ss; mov %1, %%ss", : "r"(0), "r"(K_DS)), NO_TRAP); /* null, CPL 0 */
    IS(PROBE("mov %0, %%ss; mov %1, %%ss", : "r"(3), "r"(K_DS)), GP);      /* RPL is not CPL */
    IS(trap.error, 0);
    IS(PROBE("mov %0, %%es", : "r"(K_TSS)), GP);
    IS(trap.error, K_TSS);
    IS(PROBE("mov %0, %%es", : "r"(sizeof gdt)), GP);
    IS(trap.error, sizeof gdt);
    __asm__ volatile("mov %0, %%es; mov %0, %%ds; mov %0, %%ss" : : "r"(K_DS));
    uint32_t lar = 0, zf;
    __asm__ volatile("xor %0, %0; lar %w2, %0; setz %b1"
                     : "=&r"(lar), "=q"(zf)
                     : "r"(U_CS64)
                     : "cc");
    IS(lar & 0xf0ff00, 0xa0fb00); /* bits 16-19 are undefined */
    IS(zf & 1, 1);
    __asm__ volatile("lar %w2, %0; setz %b1" : "=&r"(lar), "=q"(zf) : "r"(0) : "cc");
    IS(zf & 1, 0);
    __asm__ volatile("lsl %w2, %0; setz %b1" : "=&r"(lar), "=q"(zf) : "r"(K_TSS) : "cc");
    IS(zf & 1, 1);
    IS(lar, sizeof tss - 1);
    __asm__ volatile("verw %w1; setz %b0" : "=q"(zf) : "r"(FREE_SEL + 16) : "cc");
    IS(zf & 1, 0);
    __asm__ volatile("verr %w1; setz %b0" : "=q"(zf) : "r"(FREE_SEL + 16) : "cc");
    IS(zf & 1, 1);
    __asm__ volatile("verr %w1; setz %b0" : "=q"(zf) : "r"(FREE_SEL + 8) : "cc");
    IS(zf & 1, 0);
}

static void call_gate(unsigned sel, uint64_t ip, uint16_t cs, unsigned access)
{
    gdt[sel / 8] =
        (ip & 0xffff) | (uint64_t)cs << 16 | (uint64_t)access << 40 | (ip >> 16 & 0xffff) << 48;
    gdt[sel / 8 + 1] = ip >> 32;
}

extern const char gate_target[];
__asm__(".text\ngate_target: mov %ss, sys_ss; mov %rsp, sys_sp; int $0x79; lretq");
USER(c_call, "rex.w lcall *1f(%rip); int $0x80; 1: .quad 0x1234; .word 0x50");

TEST(call_gates, "user: 64-bit call gates")
{
    call_gate(FREE_SEL, (ulong)gate_target, K_CS64, 0xec); /* DPL 3 */
    IS(user(c_call, 0), 0x79);
    IS(trap.cs, K_CS64);
    IS(sys_ss & 0xffff, 0);                 /* null */
    IS(sys_sp, (ulong)trap_stack_top - 32); /* SS, RSP, CS, RIP: no parameters */
    uint64_t *frame = (uint64_t *)sys_sp;
    IS(frame[1], U_CS64);
    IS(frame[2], USER_STACK);
    IS(frame[3], U_DS);
    call_gate(FREE_SEL, (ulong)gate_target, K_CS64, 0x8c); /* DPL 0 */
    IS(user(c_call, 0), GP);
    IS(trap.error, FREE_SEL);
    call_gate(FREE_SEL, (ulong)gate_target, K_CS64, 0x6c); /* absent */
    IS(user(c_call, 0), NP);
    IS(trap.error, FREE_SEL);
    call_gate(FREE_SEL, (ulong)gate_target, K_CS32, 0xec); /* not 64-bit code */
    IS(user(c_call, 0), GP);
    IS(trap.error, K_CS32);
    call_gate(FREE_SEL, (ulong)gate_target, 0, 0xec);
    IS(user(c_call, 0), GP);
    IS(trap.error, 0);
    call_gate(FREE_SEL, (ulong)gate_target, K_CS64, 0xec);
    gdt[FREE_SEL / 8 + 1] |= 1ull << 40; /* the type in the upper half must be 0 */
    IS(user(c_call, 0), GP);
    IS(trap.error, FREE_SEL);
    call_gate(FREE_SEL, 0x800000000000, K_CS64, 0xec);
    IS(user(c_call, 0), GP);
    IS(trap.error, 0);
    gdt[FREE_SEL / 8 + 1] = 0;
}

#define LOW_CODE  0xbff00000u /* a user page below 4 GiB, for compatibility mode */
#define LOW_STACK (LOW_CODE + 0x2000)

static unsigned compat_run(const char *code, const char *end, uint16_t cs, ulong flags)
{
    static uint8_t *page;
    if (!page) {
        *entry_of(LOW_CODE, 2) = 0;
        page = page_alloc();
        map_page(LOW_CODE, (ulong)page, P_P | P_W | P_U);
        map_page(LOW_CODE + 0x1000, (ulong)page_alloc(), P_P | P_W | P_U);
        set_cr3(get_cr3());
    }
    memset(page, 0xcc, 4096);
    memcpy(page, code, (size_t)(end - code));
    struct frame f = {.ip = LOW_CODE,
                      .cs = cs,
                      .flags = flags | 2,
                      .sp = LOW_STACK,
                      .ss = U_DS,
                      .bx = LOW_CODE,
                      .ax = 0x1111111122222222};
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(U_DS));
    unsigned v = run_frame(&f);
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(K_DS));
    return v;
}
#define compat(name)       compat_run(name, name##_end, U_CS32, 0)
#define USER32(name, code) USER(name, ".code32\n" code "\n.code64")

USER32(k_basic, "mov $0x80000000, %ecx; add %ecx, %ecx; inc %eax; push %eax; pop %edx; int $0x80");
USER32(k_syscall, "syscall");
USER32(k_sysenter, "sysenter");
USER32(k_into, "mov $0x7fffffff, %eax; inc %eax; into; nop");
USER32(k_bound, "movl $5, -8(%esp); movl $9, -4(%esp); mov $4, %eax; bound %eax, -8(%esp)");

USER(k_to64, ".code32; ljmp $0x33, $0xbff00007; .code64; dec %rax; int $0x80");
USER(k_trap, "int $0x80");

TEST(compatibility, "user: compatibility mode")
{
    IS(compat(k_basic), 0x80);
    IS(trap.ax, 0x22222223); /* 32-bit results are extended by zeroes */
    IS(trap.dx, 0x22222223);
    IS(trap.cx, 0);
    IS(trap.cs, U_CS32);
    IS(compat(k_into), GP); /* gate DPL 0 */
    IS(trap.error, OF * 8 + 2);
    set_gate(OF, 3, GATE_INT, 0);
    IS(compat(k_into), OF);
    IS(trap.ip, LOW_CODE + 7);
    set_gate(OF, 0, GATE_INT, 0);
    IS(compat(k_bound), BR);
    enable_syscall();
    wrmsr(CSTAR, (ulong)on_syscall);
    IS(compat(k_syscall), UD); /* Intel: only in 64-bit mode */
    wrmsr(SYSENTER_CS, K_CS64);
    wrmsr(SYSENTER_ESP, (ulong)small_stack + 4096);
    wrmsr(SYSENTER_EIP, (ulong)on_syscall);
    IS(compat(k_sysenter), 0x78);
    IS(trap.cs, K_CS64);
    IS(compat(k_to64), 0x80); /* JMP to 64-bit code: there 48 is REX, not DEC EAX */
    IS(trap.cs, U_CS64);
    IS(trap.ax, 0x1111111122222221);
}

TEST(sysret32, "user: SYSRET and SYSEXIT to compatibility mode")
{
    IS(compat(k_trap), 0x80); /* leaves INT 80h at LOW_CODE */
    enable_syscall();
    IS(sysret_to(r_sysretl, LOW_CODE | 7ull << 32, 2), 0x80);
    IS(trap.cs, U_CS32);
    IS(trap.ss, U_DS);
    IS(trap.ip, LOW_CODE + 2);
    wrmsr(SYSENTER_CS, K_CS64);
    struct frame k = {.ip = (ulong)r_sysexitl,
                      .cs = K_CS64,
                      .flags = 2,
                      .ss = K_DS,
                      .sp = (ulong)small_stack + 4096,
                      .cx = 7ull << 32 | LOW_STACK,
                      .dx = 7ull << 32 | LOW_CODE};
    IS(run_frame(&k), 0x80);
    IS(trap.cs, K_CS64 + 16 + 3);
    IS(trap.ss, K_CS64 + 24 + 3);
    IS(trap.ip, LOW_CODE + 2);
    IS(trap.sp, LOW_STACK);
}

TEST(far_jump, "user: far jumps and returns: selectors and faults")
{
    struct {
        uint64_t ip;
        uint16_t cs;
    } __attribute__((packed)) to = {(ulong)0, FREE_SEL};
    gdt[FREE_SEL / 8] = descriptor(0, 0xfffff, 0x9b, 0xe); /* L and D */
    IS(PROBE("rex.w ljmp *%0", : "m"(to)), GP);
    IS(trap.error, FREE_SEL);
    gdt[FREE_SEL / 8] = descriptor(0, 0xfffff, 0x1b, 0xa);
    IS(PROBE("rex.w ljmp *%0", : "m"(to)), NP);
    IS(trap.error, FREE_SEL);
    gdt[FREE_SEL / 8] = descriptor(0, 0xfffff, 0xfb, 0xa); /* DPL 3 */
    IS(PROBE("rex.w ljmp *%0", : "m"(to)), GP);
    to.cs = 0;
    IS(PROBE("rex.w ljmp *%0", : "m"(to)), GP);
    IS(trap.error, 0);
    to.cs = K_CS64;
    to.ip = 0x800000000000;
    IS(PROBE("rex.w ljmp *%0", : "m"(to)), GP);
    IS(trap.error, 0);
    to.cs = K_TSS;
    IS(PROBE("rex.w ljmp *%0", : "m"(to)), GP); /* no task switches */
    IS(trap.error, K_TSS);
    IS(PROBE("push %0; push %1; lretq", : "r"((ulong)K_DS), "r"(0ul) : "memory"), GP);
    IS(trap.error, K_DS);
    IS(PROBE("push %0; push $79f; lretq; ud2; 79:", : "r"((ulong)K_CS64) : "memory"), NO_TRAP);
    /* IRETQ to a null SS: fine for 64-bit code below CPL 3, not for CPL 3 */
    struct frame f = {.ip = USER_CODE, .cs = U_CS64, .flags = 2, .sp = USER_STACK, .ss = 3};
    IS(run_frame(&f), GP);
    IS(trap.error, 0);
    f.ss = K_DS; /* RPL and DPL differ from the new CPL */
    IS(run_frame(&f), GP);
    IS(trap.error, K_DS);
    f.ss = U_DS;
    f.ip = 0x800000000000;
    IS(run_frame(&f), GP);
    f.ip = USER_CODE;
    f.cs = K_CS64 | 3; /* nonconforming: DPL must be RPL */
    IS(run_frame(&f), GP);
    IS(trap.error, K_CS64);
    f.cs = U_CS64;
    f.flags = 2;
    __asm__ volatile("pushf; orl $0x4000, (%%rsp); popf" : : : "cc", "memory");
    IS(PROBE("iretq", ), GP); /* NT */
    IS(trap.error, 0);
    __asm__ volatile("pushf; andl $~0x4000, (%%rsp); popf" : : : "cc", "memory");
}
