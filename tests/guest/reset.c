/*
 * reset.c - the ways to reset a PC, and the A20 gate.
 */
#include "mem.h"
#include "platform.h"

/* In: RDI = address above 1 MiB. Out: EAX = what is read there while A20 is masked. Runs in an even
 * MiB and touches nothing else meanwhile. */
extern const char masked_read[], masked_read_end[];
__asm__(".section .rodata\n"
        "masked_read: in $0x92, %al; and $0xfc, %al; out %al, $0x92; mov (%rdi), %ecx\n"
        "or $2, %al; out %al, $0x92; mov %ecx, %eax; ret\n"
        "masked_read_kbc: mov $0xd1, %al; out %al, $0x64; mov $0xdd, %al; out %al, $0x60\n"
        "mov (%rdi), %ecx; mov $0xd1, %al; out %al, $0x64; mov $0xdf, %al; out %al, $0x60\n"
        "mov %ecx, %eax; ret\n"
        "masked_read_end:\n.text");
extern const char masked_read_kbc[];

static uint32_t *cell(ulong a) /* hides the constant from the compiler */
{
    __asm__("" : "+r"(a));
    return (uint32_t *)a;
}

static uint32_t call_with(const void *code, ulong arg)
{
    uint32_t v;
    __asm__ volatile("call *%1" : "=a"(v) : "r"(code), "D"(arg) : "rcx", "memory", "cc");
    return v;
}

TEST(a20, "reset: A20: addresses wrap at 1 MiB while it is masked")
{
    uint8_t *code = page_alloc();
    memcpy(code, masked_read, (size_t)(masked_read_end - masked_read));
    *cell(0x500) = 0x12345678;
    *cell(0x300500) = 0x55; /* an odd MiB: with A20 masked it is 200500h */
    *cell(0x200500) = 0x77;
    IS(call_with(code, 0x100500), 0x12345678);
    OK(*cell(0x100500) != 0x12345678); /* our own code */
    IS(call_with(code, 0x300500), 0x77);
    IS(*cell(0x300500), 0x55);
    IS(inb(0x92) & 2, 2);
    IS(call_with(code + (masked_read_kbc - masked_read), 0x300500), 0x77);
    IS(*cell(0x300500), 0x55);
}

#define STAGE 0x41 /* a byte of CMOS that nobody uses */

TEST(reset, "reset: triple fault, keyboard controller, port 92h, port CF9h")
{
    struct dtr none = {0, 0};
    uint8_t stage = cmos_read(STAGE);
    cmos_write(STAGE, (uint8_t)(stage + 1));
    switch (stage) {
    case 0:
        __asm__ volatile("lidt %0; ud2" : : "m"(none));
        break;
    case 1:
        outb(0x64, 0xfe);
        break;
    case 2:
        outb(0x92, (uint8_t)(inb(0x92) & ~1));
        outb(0x92, (uint8_t)(inb(0x92) | 1));
        break;
    case 3:
        outb(0xcf9, 2);
        outb(0xcf9, 6);
        break;
    default:
        cmos_write(STAGE, 0);
        IS(stage, 4);
        return;
    }
    wait_us(1000000);
    cmos_write(STAGE, 0);
    IS(stage, 4); /* that reset did nothing */
}
