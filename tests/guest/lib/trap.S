/*
 * trap.S - the 256 entries of the IDT, and the way into and out of a struct frame.
 */
    .text
    .balign 16
    .globl trap_entries
trap_entries:
vector = 0
    .rept 256
    .balign 16
    .if vector != 8 && vector != 17 && (vector < 10 || vector > 14)
    push $0
    .endif
    push $vector
    jmp trap_common
vector = vector + 1
    .endr

#ifdef __x86_64__
trap_common:
    push %rax; push %rcx; push %rdx; push %rbx; push %rbp; push %rsi; push %rdi
    push %r8; push %r9; push %r10; push %r11; push %r12; push %r13; push %r14; push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbx
    and $-16, %rsp
    call trap_dispatch
    mov %rbx, %rsp
    .globl frame_leave
frame_leave:
    pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8
    pop %rdi; pop %rsi; pop %rbp; pop %rbx; pop %rdx; pop %rcx; pop %rax
    add $16, %rsp
    iretq

/* unsigned run_enter(struct frame *) */
    .globl run_enter, run_leave
run_enter:
    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15
    pushf
    mov %rsp, run_sp
    mov %rdi, %rsp
    jmp frame_leave
/* With the result in RDI; the trap's stack is given up. */
run_leave:
    mov run_sp, %rsp
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov %edi, %eax
    popf
    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx
    ret
#else
trap_common:
    pusha
    push %ds; push %es; push %fs; push %gs
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    cld
    mov %esp, %ebx
    push %ebx
    call trap_dispatch
    mov %ebx, %esp
    .globl frame_leave
frame_leave:
    pop %gs; pop %fs; pop %es; pop %ds
    popa
    add $8, %esp
    iret

    .globl run_enter, run_leave
run_enter:
    mov 4(%esp), %eax
    push %ebx; push %ebp; push %esi; push %edi
    pushf
    mov %esp, run_sp
    mov %eax, %esp
    jmp frame_leave
run_leave:
    mov 4(%esp), %eax
    mov $0x18, %ecx
    mov %ecx, %ss
    mov run_sp, %esp
    mov %ecx, %ds
    mov %ecx, %es
    mov %ecx, %fs
    mov %ecx, %gs
    popf
    pop %edi; pop %esi; pop %ebp; pop %ebx
    ret
#endif
    .section .note.GNU-stack, "", @progbits
