/*
 * vm86.c - virtual-8086 mode with and without CR4.VME, protected-mode virtual interrupts, and
 * real-address mode (SDM volume 3, chapter 20 and 21).
 */
#include "mem.h"

#define SEG  0x900u /* code at 9000h, stack up to 9F00h */
#define BASE 0x9000u

static void *
low(ulong a) /* hides the constant: the compiler mistrusts addresses in the first page */
{
    __asm__("" : "+r"(a));
    return (void *)a;
}

static unsigned run(const char *code, const char *end, ulong flags)
{
    memset((void *)BASE, 0xcc, 0x800);
    memcpy((void *)BASE, code, (size_t)(end - code));
    struct frame f = {.ip = 0,
                      .cs = SEG,
                      .flags = flags | FL_VM | 2,
                      .sp = 0xf00,
                      .ss = SEG,
                      .v86_ds = SEG,
                      .v86_es = 0x1111,
                      .v86_fs = 0x2222,
                      .v86_gs = 0x3333};
    f.ds = f.es = f.fs = f.gs = K_DS;
    return run_frame(&f);
}
#define V(name, code)   USER(name, ".code16\n" code "\n.code32")
#define vm(name, flags) run(name, name##_end, flags)
#define REFUSED(name, fl) \
    IS(vm(name, fl), GP); \
    IS(trap.error, 0);    \
    IS(trap.ip, 0)

V(v_basic, "mov %cs, %ax; mov $0x40, %bx; mov %bx, %ds; movw $0x1234, 2; mov %gs, %cx; int $0x80");
V(v_cli, "cli; int $0x80");
V(v_sti, "sti; int $0x80");
V(v_pushf, "pushf; pop %ax; int $0x80");
V(v_popf, "pushw $0x3203; popf; nop; int $0x80");
V(v_popf_code, "popf; int $0x80");
V(v_int, "int $0x77");
V(v_int3, "int3");
V(v_iret, "iret");
V(v_hlt, "hlt");
V(v_in, "in $0x80, %al; int $0x80");
V(v_lldt, "lldt %ax");
V(v_lar, "lar %ax, %bx");
V(v_arpl, "arpl %ax, %bx");
V(v_verr, "verr %ax");
V(v_cr0, "mov %cr0, %eax");
V(v_lgdt, "lgdt 0");
V(v_limit, "mov 0xffff, %ax");
V(v_wide, "mov $0x10000, %ebx; mov (%ebx), %al");
V(v_stack, "mov $1, %sp; push %ax");
V(v_far, "ljmp $0x910, $0; .org v_far + 0x100; mov %cs, %ax; int $0x80");
V(v_ud, "ud2");

TEST(entry, "vm86: IRET enters it, a trap leaves it: registers and frame")
{
    set_gate(0x80, 3, GATE_INT, 0);
    IS(vm(v_basic, FL_IOPL3), 0x80);
    IS(trap.flags & FL_VM, FL_VM);
    IS(trap.ax & 0xffff, SEG);
    IS(trap.cx & 0xffff, 0x3333);
    IS(trap.cs & 0xffff, SEG);
    IS(trap.ss & 0xffff, SEG);
    IS(trap.sp, 0xf00);
    IS(trap.v86_ds & 0xffff, 0x40);
    IS(trap.v86_es & 0xffff, 0x1111);
    IS(trap.v86_fs & 0xffff, 0x2222);
    IS(trap.v86_gs & 0xffff, 0x3333);
    IS(trap.ds & 0xffff, 0); /* null in the handler */
    IS(trap.gs & 0xffff, 0);
    IS(*(volatile uint16_t *)low(0x402), 0x1234);
    IS(vm(v_far, FL_IOPL3), 0x80);
    IS(trap.ax & 0xffff, 0x910);
}

TEST(iopl0, "vm86: IOPL below 3: CLI STI PUSHF POPF INT IRET fault")
{
    REFUSED(v_cli, 0);
    REFUSED(v_sti, 0);
    REFUSED(v_pushf, 0);
    IS(vm(v_popf_code, 0), GP);
    REFUSED(v_int, 0);
    REFUSED(v_iret, 0);
    IS(vm(v_int3, 0), GP); /* INT3 is not sensitive to IOPL, but the gate has DPL 0 */
    IS(trap.error, BP * 8 + 2);
    REFUSED(v_hlt, FL_IOPL3);
    REFUSED(v_cr0, FL_IOPL3);
    REFUSED(v_lgdt, FL_IOPL3);
}

TEST(iopl3, "vm86: IOPL 3: flags are the program's, INT goes to the gate")
{
    IS(vm(v_cli, FL_IOPL3 | FL_IF), 0x80);
    IS(trap.flags & FL_IF, 0);
    IS(vm(v_popf, FL_IOPL3), 0x80);
    IS(trap.flags & 0x3201, 0x3201);
    IS(trap.flags & FL_VM, FL_VM);
    IS(vm(v_int, FL_IOPL3), GP); /* gate DPL 0 */
    IS(trap.error, 0x77 * 8 + 2);
    set_gate(0x77, 3, GATE_INT, 0);
    IS(vm(v_int, FL_IOPL3), 0x77);
    IS(trap.ip, 2);
    set_gate(0x77, 0, GATE_INT, 0);
    IS(vm(v_in, FL_IOPL3), GP); /* I/O: the map alone decides */
    tss[TSS_IOMAP + 16] &= ~1;
    IS(vm(v_in, FL_IOPL3), 0x80);
    tss[TSS_IOMAP + 16] = 0xff;
    IS(vm(v_ud, FL_IOPL3), UD);
    IS(vm(v_lldt, FL_IOPL3), UD);
    IS(vm(v_lar, FL_IOPL3), UD);
    IS(vm(v_arpl, FL_IOPL3), UD);
    IS(vm(v_verr, FL_IOPL3), UD);
}

TEST(limits, "vm86: segments of 64 KiB")
{
    REFUSED(v_limit, FL_IOPL3);
    IS(vm(v_wide, FL_IOPL3), GP);
    IS(vm(v_stack, FL_IOPL3), SS);
    IS(trap.error, 0);
    struct frame f = {.ip = 0x10000, .cs = SEG, .flags = FL_VM | 2, .sp = 0xf00, .ss = SEG};
    f.ds = f.es = f.fs = f.gs = K_DS;
    IS(run_frame(&f), GP);
}

static void redirect(unsigned vector, bool to_program)
{
    uint8_t *map = tss + TSS_IOMAP - 32 + vector / 8;
    *map = (uint8_t)(to_program ? *map & ~(1 << vector % 8) : *map | 1 << vector % 8);
}

V(v_vme, "sti; int $0x77; mov %sp, %dx; int $0x80; .org v_vme + 0x100; pop %ax; pop %bx; pop %cx; "
         "push %cx; "
         "push %bx; push %ax; iret");
V(v_vme_popf, "pushw $0x0202; popf; nop; int $0x80");
V(v_vme_tf, "pushw $0x0102; popf; nop; int $0x80");
V(v_pushfl, "pushfl; int $0x80");

TEST(vme, "vm86: CR4.VME: redirected interrupts, VIF and VIP")
{
    uint16_t *ivt = low(0x77 * 4);
    memset(tss + TSS_IOMAP - 32, 0xff, 32);
    ivt[0] = 0x100;
    ivt[1] = SEG;
    set_cr4(get_cr4() | CR4_VME);
    redirect(0x77, true);
    /* IOPL 0: IF in the pushed image is VIF; INT 80h is not redirected and faults. */
    IS(vm(v_vme, FL_IF), GP);
    IS(trap.ax & 0xffff, 3); /* IP behind INT */
    IS(trap.bx & 0xffff, SEG);
    IS(trap.cx & 0x3200, 0x3200); /* IOPL shows as 3 */
    IS(trap.dx & 0xffff, 0xf00);
    IS(trap.flags & FL_VIF, FL_VIF);       /* IRET brought it back */
    IS(vm(v_vme, FL_IF | FL_IOPL3), 0x80); /* IOPL 3: the same, on IF itself; INT 80h to its gate */
    IS(vm(v_cli, FL_VIF | FL_IF), GP);
    IS(trap.ip, 1);
    IS(trap.flags & FL_VIF, 0);
    IS(trap.flags & FL_IF, FL_IF);
    IS(vm(v_sti, FL_IF), GP);
    IS(trap.ip, 1);
    IS(trap.flags & FL_VIF, FL_VIF);
    REFUSED(v_sti, FL_IF | FL_VIP);
    IS(vm(v_pushf, FL_IF | FL_VIF), GP);
    IS(trap.ax & 0x3200, 0x3200);
    IS(vm(v_pushf, FL_IF), GP);
    IS(trap.ax & 0x3200, 0x3000);
    IS(vm(v_vme_popf, FL_IF), GP);
    IS(trap.ip, 5);
    IS(trap.flags & FL_VIF, FL_VIF);
    IS(vm(v_vme_popf, FL_IF | FL_VIP), GP);
    IS(trap.ip, 3);
    IS(vm(v_vme_tf, FL_IF), GP);
    IS(trap.ip, 3);
    IS(vm(v_pushfl, FL_IF), GP); /* only the 16-bit form */
    IS(trap.ip, 0);
    redirect(0x77, false);
    REFUSED(v_int, FL_IF);
    set_cr4(get_cr4() & ~(ulong)CR4_VME);
}

USER(u_cli, "cli; int $0x80");
USER(u_sti, "sti; int $0x80");

TEST(pvi, "vm86: CR4.PVI: CLI and STI in user mode with VIF")
{
    struct frame f;
    set_cr4(get_cr4() | CR4_PVI);
    user_frame(&f, u_sti, (size_t)(u_sti_end - u_sti), 0);
    f.flags |= FL_IF;
    IS(run_frame(&f), 0x80);
    IS(trap.flags & FL_VIF, FL_VIF);
    f.flags |= FL_VIP;
    IS(run_frame(&f), GP);
    user_frame(&f, u_cli, (size_t)(u_cli_end - u_cli), 0);
    f.flags |= FL_VIF | FL_IF;
    IS(run_frame(&f), 0x80);
    IS(trap.flags & (FL_VIF | FL_IF), FL_IF);
    set_cr4(get_cr4() & ~(ulong)CR4_PVI);
    IS(run_frame(&f), GP);
}

/* ---- real-address mode ---- */

/* Runs at 9000h in real mode; its handlers note the vector in BX and jump to 9F0h, which goes back.
 * The stub that leaves protected mode is part of the image. */
uint32_t real_sp;
extern const char real_begin[], real_end[];
void real_enter(void);
__asm__(
    ".section .rodata\n"
    "real_begin:\n.code16\n"
    "  mov $0x20, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %ss; mov %ax, %fs; mov %ax, %gs\n"
    "  mov %cr0, %eax; and $~1, %al; mov %eax, %cr0; ljmp $0x900, $1f - real_begin\n"
    "1: xor %ax, %ax; mov %ax, %ds; mov %ax, %es; mov %ax, %ss; mov %ax, %fs; mov $0x8f00, %esp\n"
    "  lidtl %cs:real_idt - real_begin\n"
    "  xor %bx, %bx; jmp *%cs:real_entry - real_begin\n"
    /* the handler of #GP, #UD, #DE, #SS and INT 77h: BX = vector, CX = IP, DX = flags */
    "h0: mov $0x100, %bx; jmp 2f\n"
    "h6: mov $0x106, %bx; jmp 2f\n"
    "h12: mov $0x10c, %bx; jmp 2f\n"
    "h13: mov $0x10d, %bx; jmp 2f\n"
    "h77: mov $0x177, %bx\n"
    "2: pop %cx; pop %ax; pop %dx; pushf; pop %si\n"
    "real_leave: mov %cr0, %eax; or $1, %al; mov %eax, %cr0; ljmpl $8, $real_back\n"
    "real_idt: .word 0x3ff; .long 0\n"
    "real_entry: .word 0\n"
    ".balign 16; real_code: .skip 64\n"
    "real_end:\n.code32\n.text\n"
    "real_enter: pusha; mov %esp, real_sp; ljmp $0x58, $0\n"
    "real_back: mov $0x18, %eax; mov %eax, %ds; mov %eax, %es; mov %eax, %ss; mov %eax, %fs; "
    "mov %eax, %gs\n"
    "  mov %bx, real_bx; mov %cx, real_cx; mov %dx, real_dx; mov %si, real_si\n"
    "  mov real_sp, %esp; popa; ret\n");
uint16_t real_bx, real_cx, real_dx, real_si;
extern const char real_entry[], real_code[], h0[], h6[], h12[], h13[], h77[], real_leave[];

#define IN_IMAGE(label) ((unsigned)((label)-real_begin))

static unsigned real(const char *code, const char *end)
{
    struct dtr full = {sizeof idt - 1, (ulong)idt};
    uint16_t entry = (uint16_t)IN_IMAGE(real_code);
    static const struct {
        uint8_t vector;
        const char *handler;
    } handlers[] = {{0, h0}, {6, h6}, {12, h12}, {13, h13}, {0x77, h77}};
    uint16_t *ivt = low(0);
    for (unsigned n = 0; n < 5; n++) {
        ivt[handlers[n].vector * 2] = (uint16_t)IN_IMAGE(handlers[n].handler);
        ivt[handlers[n].vector * 2 + 1] = SEG;
    }
    memcpy((void *)BASE, real_begin, (size_t)(real_end - real_begin));
    memcpy((void *)(BASE + IN_IMAGE(real_entry)), &entry, 2);
    memcpy((void *)(BASE + entry), code, (size_t)(end - code));
    gdt[0x20 / 8] = descriptor(0, 0xffff, 0x93, 0);
    gdt[0x58 / 8] = descriptor(BASE, 0xffff, 0x9b, 0);
    real_enter();
    gdt[0x20 / 8] = descriptor(0, 0xfffff, 0xfb, 0xc); /* user code again */
    __asm__ volatile("lidt %0" : : "m"(full));
    return real_bx;
}
#define rm(name) real(name, name##_end)

V(r_int, "stc; sti; int $0x77");
V(r_div, "xor %cx, %cx; div %cl");
V(r_limit, "mov 0xffff, %ax");
V(r_wide, "mov $0x20000, %ebx; mov (%ebx), %al");
V(r_lldt, "lldt %ax");
V(r_lar, "lar %ax, %bx");
V(r_arpl, "arpl %ax, %bx");
V(r_str, "str %ax");
V(r_stack, "mov $0xffff, %bp; mov (%bp), %ax");

TEST(real_mode, "vm86: real-address mode: interrupts and faults without error codes")
{
    IS(rm(r_int), 0x177);
    IS(real_cx, IN_IMAGE(real_code) + 4);
    IS(real_dx & 0x201, 0x201);
    IS(real_si & 0x200, 0); /* IF is cleared */
    IS(rm(r_div), 0x100);
    IS(real_cx, IN_IMAGE(real_code) + 2);
    IS(rm(r_limit), 0x10d);
    IS(real_cx, IN_IMAGE(real_code));
    IS(rm(r_wide), 0x10d);
    IS(rm(r_lldt), 0x106);
    IS(rm(r_lar), 0x106);
    IS(rm(r_arpl), 0x106);
    IS(rm(r_str), 0x106);
    IS(rm(r_stack), 0x10c);
}
