/*
 * start.S - a payload's way in: the Linux boot header, the entries of the 16, 32 and 64-bit boot
 * protocols (Linux, Documentation/arch/x86/boot.rst), and the code on which an application
 * processor starts. All ways end in kmain() or ap_main(), in the mode the payload is compiled for.
 */
#define CODE32 0x08
#define CODE64 0x10
#define DATA   0x18
#define TRAMPOLINE 0x8000

    .section .setup, "ax"
    .org 0x1f1
    .byte 1                      /* setup_sects */
    .word 0
    .long image_paragraphs       /* syssize */
    .org 0x1fe
    .word 0xaa55
    .byte 0xeb, setup16 - header /* jump over the header */
header:
    .ascii "HdrS"
    .word 0x020c                 /* version */
    .org 0x210
    .byte 0, 1                   /* type_of_loader; loadflags: LOADED_HIGH */
    .org 0x214
    .long 0x100000               /* code32_start */
    .org 0x22c
    .long 0x37ffffff             /* initrd_addr_max */
    .long 0x1000                 /* kernel_alignment */
    .byte 0, 0                   /* not relocatable */
#ifdef __x86_64__
    .word 1                      /* XLF_KERNEL_64 */
#else
    .word 0
#endif
    .long 255                    /* cmdline_size */
    .org 0x258
    .quad 0x100000               /* pref_address */
    .long image_room             /* init_size */
    .long 0

    /* A loader that follows the 16-bit protocol comes here with DS = the setup's segment. */
    .code16
setup16:
    cli
    lgdtl gdt_pointer16
    mov %cr0, %eax
    or $1, %al
    mov %eax, %cr0
    mov $DATA, %ax
    mov %ax, %ds
    ljmpl $CODE32, $entry32
gdt_pointer16:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt

    .section .head, "ax"
    .code32
    .globl entry32
entry32:
    cli
    cld
    lgdtl gdt_pointer
    ljmpl $CODE32, $1f
1:  mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $boot_stack_top, %esp
#ifdef __x86_64__
    /* Four GiB in pages of 2 MiB, at the tables that kmain() will replace. */
    mov $boot_tables, %edi
    xor %eax, %eax
    mov $6 * 1024, %ecx
    rep stosl
    movl $boot_tables + 0x1003, boot_tables
    mov $boot_tables + 0x2003, %eax
    mov $boot_tables + 0x1000, %edi
2:  mov %eax, (%edi)
    add $8, %edi
    add $0x1000, %eax
    cmp $boot_tables + 0x1020, %edi
    jne 2b
    mov $0x83, %eax
    mov $boot_tables + 0x2000, %edi
3:  mov %eax, (%edi)
    add $8, %edi
    add $0x200000, %eax
    jnc 3b
    mov $boot_tables, %eax
    call enter_long
    ljmpl $CODE64, $entry64

/* EAX: CR3 */
enter_long:
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %al
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    rdmsr
    or $0x100, %eax
    wrmsr
    mov %cr0, %eax
    or $0x80000001, %eax
    mov %eax, %cr0
    ret

    .org 0x200
    .code64
entry64:
    cli
    cld
    lgdt gdt_pointer
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %fs
    mov %eax, %gs
    mov %eax, %ss
    mov $boot_stack_top, %rsp
    pushq $CODE64
    pushq $4f
    lretq
4:
#endif
    mov $bss_begin, %edi
    mov $bss_end, %ecx
    sub %edi, %ecx
    xor %eax, %eax
    rep stosb
    call kmain
5:  hlt
    jmp 5b

    .text
/* Copied to TRAMPOLINE; an application processor starts at its first byte, in real mode. */
    .code16
    .globl trampoline, trampoline_end
trampoline:
    cli
    cld
    mov %cs, %ax
    mov %ax, %ds
    lgdtl gdt_pointer_ap - trampoline
    mov %cr0, %eax
    and $0x9fffffff, %eax        /* caches on */
    or $0x31, %eax
    mov %eax, %cr0
    ljmpl $CODE32, $ap32
gdt_pointer_ap:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt
trampoline_end:
    .code32
ap32:
    mov $DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov ap_stack, %esp
#ifdef __x86_64__
    mov ap_cr3, %eax
    call enter_long
    ljmpl $CODE64, $6f
    .code64
6:  mov ap_stack, %rsp
#endif
    call ap_main
7:  hlt
    jmp 7b

    .data
gdt_pointer:
    .word boot_gdt_end - boot_gdt - 1
    .long boot_gdt, 0
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdt_end:

    .section .stack, "aw", @nobits   /* not .bss: that is cleared on this stack */
    .balign 4096
#ifdef __x86_64__
boot_tables:
    .skip 0x6000
#endif
    .skip 0x4000
    .globl boot_stack_top
boot_stack_top:
    .section .note.GNU-stack, "", @progbits
