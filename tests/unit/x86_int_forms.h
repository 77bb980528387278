/*
 * x86_int_forms.h - the instructions of test_x86_int.c, assembled by the compiler's assembler.
 *
 * Registers as operands hold random values, except: R15 points to memory that may be written, R13
 * is a small index, R14 a bit offset, RSP a stack.
 */
#ifndef SOSIA_TESTS_UNIT_X86_INT_FORMS_H
#define SOSIA_TESTS_UNIT_X86_INT_FORMS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* What must hold before the instruction, or what the CPU must have. */
enum form_kind {
    FORM_PLAIN,
    FORM_STACK,   /* RBP points to a frame */
    FORM_STRING,  /* RSI, RDI, RCX for a string instruction; DF random */
    FORM_ALIGNED, /* R15 is a multiple of 16 */
    FORM_BMI,
    FORM_BMI2,
    FORM_ADX,
    FORM_LZCNT,
    FORM_MOVBE,
};

struct form {
    enum form_kind kind;
    unsigned len;
    const uint8_t *code;
    const char *text;
};

/* In memory: kind, length, code, text with NUL. A kind of 255 ends the table. */
extern const uint8_t x86_int_forms[], x86_int_forms32[];

static inline const uint8_t *form_next(const uint8_t *p, struct form *f)
{
    if (p[0] == 255)
        return NULL;
    f->kind = p[0];
    f->len = p[1];
    f->code = p + 2;
    f->text = (const char *)p + 2 + f->len;
    return p + 2 + f->len + strlen(f->text) + 1;
}

static inline bool form_supported(const struct form *f)
{
    switch (f->kind) {
    case FORM_BMI:
        return __builtin_cpu_supports("bmi");
    case FORM_BMI2:
        return __builtin_cpu_supports("bmi2");
    case FORM_ADX:
        return __builtin_cpu_supports("adx");
    case FORM_LZCNT:
        return __builtin_cpu_supports("lzcnt");
    case FORM_MOVBE:
        return __builtin_cpu_supports("movbe");
    default:
        return true;
    }
}

/* `kind` is written as a number: the assembler knows no C names. */
#define K(kind, text) ".byte " #kind ", 771f-770f\n770: " text "\n771: .asciz \"" text "\"\n"
#define F(text)       K(0, text)
#define STACK(text)   K(1, text)
#define STRING(text)  K(2, text)

/* One line holds what belongs together: */
/* clang-format off */
#define MEM "(%r15)"
#define SIB "8(%r15,%r13,4)"

#define BINARY_RO(op)                                                                              \
    F(op "b %cl, %al") F(op "b %ah, %bl") F(op "b %dl, %ch") F(op "b %sil, %r9b")                  \
    F(op "w %cx, %ax") F(op "l %ecx, %eax") F(op "q %rcx, %rax") F(op "w %r9w, %di")               \
    F(op "l %r9d, %r12d") F(op "q %r9, %rbp") F(op "l %ebx, %ebx") F(op "b $0x5a, %al")            \
    F(op "b $0x85, %r10b") F(op "w $0x1234, %ax") F(op "w $0xff85, %cx")                           \
    F(op "l $0x12345678, %eax") F(op "l $-5, %r8d") F(op "q $-5, %rdx")                            \
    F(op "q $0x7fffffff, %rax") F(op "b %cl, " MEM) F(op "w %cx, " MEM) F(op "l %ecx, " SIB)       \
    F(op "q %r11, " SIB) F(op "b $0x81, " MEM) F(op "w $0x81, " MEM) F(op "l $-3, " SIB)           \
    F(op "q $-3, " MEM)
#define BINARY(op)                                                                                 \
    BINARY_RO(op) F(op "b (%rsp), %dh") F(op "w " MEM ", %dx") F(op "l " SIB ", %edx")             \
    F(op "q " MEM ", %r8") F("lock " op "b %cl, " MEM) F("lock " op "w %cx, " MEM)                 \
    F("lock " op "l %ecx, " SIB) F("lock " op "q %rcx, " SIB) F("lock " op "b $7, " MEM)           \
    F("lock " op "w $0x777, " MEM) F("lock " op "l $7, " MEM) F("lock " op "q $-7, " MEM)
#define UNARY(op)                                                                                  \
    F(op "b %al") F(op "b %dh") F(op "w %cx") F(op "l %edx") F(op "q %r9") F(op "b " MEM)          \
    F(op "w " MEM) F(op "l " SIB) F(op "q " SIB) F("lock " op "b " MEM) F("lock " op "w " MEM)     \
    F("lock " op "l " SIB) F("lock " op "q " MEM)
#define SHIFT(op)                                                                                  \
    F(op "b %cl, %al") F(op "b %cl, %bh") F(op "w %cl, %dx") F(op "l %cl, %ebx")                   \
    F(op "q %cl, %r8") F(op "b $1, %al") F(op "w $1, %dx") F(op "l $1, %ebx") F(op "q $1, %r8")    \
    F(op "b $3, %al") F(op "w $17, %dx") F(op "l $31, %ebx") F(op "q $63, %r8")                    \
    F(op "l $0, %ebx") F(op "l $32, %ebx") F(op "b $9, %al") F(op "b $1, " MEM)                    \
    F(op "w $5, " MEM) F(op "l $5, " SIB) F(op "q $5, " SIB) F(op "b %cl, " MEM)                   \
    F(op "w %cl, " MEM) F(op "l %cl, " SIB) F(op "q %cl, " SIB)
#define DOUBLE(op)                                                                                 \
    F(op " %cl, %ax, %dx") F(op " %cl, %eax, %edx") F(op " %cl, %rax, %r9")                        \
    F(op " $3, %ax, %dx") F(op " $13, %eax, %edx") F(op " $43, %rax, %r9")                         \
    F(op " $32, %eax, %edx") F(op " %cl, %ax, " MEM) F(op " %cl, %eax, " MEM)                      \
    F(op " %cl, %rax, " SIB) F(op " $3, %ax, " MEM) F(op " $13, %eax, " SIB)                       \
    F(op " $43, %rax, " MEM)
#define BIT_RO(op)                                                                                 \
    F(op "w %cx, %dx") F(op "l %ecx, %edx") F(op "q %rcx, %r9") F(op "w $3, %dx")                  \
    F(op "l $77, %edx") F(op "q $63, %r9") F(op "w %r14w, " MEM) F(op "l %r14d, " MEM)             \
    F(op "q %r14, " SIB) F(op "w $3, " MEM) F(op "l $33, " MEM) F(op "q $63, " SIB)
#define BIT(op)                                                                                    \
    BIT_RO(op) F("lock " op "w %r14w, " MEM) F("lock " op "l %r14d, " MEM)                         \
    F("lock " op "q %r14, " SIB) F("lock " op "w $3, " MEM) F("lock " op "l $33, " MEM)            \
    F("lock " op "q $63, " SIB)
#define SCAN(k, op)                                                                                \
    K(k, op " %cx, %dx") K(k, op " %ecx, %edx") K(k, op " %rcx, %r9") K(k, op " " MEM ", %dx")     \
    K(k, op " " SIB ", %edx") K(k, op " " MEM ", %r9")
#define VEX3(k, op)                                                                                \
    K(k, op " %ecx, %ebx, %edx") K(k, op " %r8, %r9, %r10") K(k, op " %rax, %rax, %rax")
#define VEX_LAST(k, op)                                                                            \
    VEX3(k, op) K(k, op " " MEM ", %ebx, %edx") K(k, op " " SIB ", %r9, %r10")
#define VEX_MIDDLE(k, op)                                                                          \
    VEX3(k, op) K(k, op " %ebx, " MEM ", %edx") K(k, op " %r9, " SIB ", %r10")
#define VEX2(k, op)                                                                                \
    K(k, op " %ecx, %ebx") K(k, op " %r8, %r9") K(k, op " " MEM ", %ebx") K(k, op " " SIB ", %r9")
#define RORX(k)                                                                                    \
    K(k, "rorx $0, %ecx, %ebx") K(k, "rorx $13, %r8d, %r9d") K(k, "rorx $63, %r8, %r9")            \
    K(k, "rorx $7, " MEM ", %ebx") K(k, "rorx $71, " SIB ", %r9")
#define ACCUMULATOR(op)                                                                            \
    F(op "b %cl") F(op "b %ah") F(op "w %bx") F(op "l %ebx") F(op "q %rbx") F(op "l %edx")         \
    F(op "b " MEM) F(op "w " MEM) F(op "l " SIB) F(op "q " SIB) F(op "q %rax")
/* A dividend small enough to divide now and then */
#define DIVIDE(op)                                                                                 \
    ACCUMULATOR(op) F("cwd; " op "w %bx") F("cltd; " op "l %ebx") F("cqto; " op "q %rbx")          \
    F("cltd; " op "l " MEM) F("xor %edx, %edx; " op "q %rbx") F("xor %edx, %edx; " op "l %ebx")    \
    F("cbtw; " op "b %bl") F("mov %ebx, %edx; shr $1, %edx; " op "l %ebx")                         \
    F("mov %rbx, %rdx; sar $1, %rdx; " op "q %rbx")
#define EXCHANGE(op)                                                                               \
    F(op "b %cl, %dl") F(op "b %ah, %bl") F(op "w %cx, %dx") F(op "l %ecx, %edx")                  \
    F(op "q %r8, %r9") F(op "l %ecx, %ecx") F(op "b %cl, %al") F(op "l %ecx, %eax")                \
    F(op "q %rax, %rcx") F(op "b %cl, " MEM) F(op "w %cx, " MEM) F(op "l %ecx, " SIB)              \
    F(op "q %rcx, " SIB) F("lock " op "b %cl, " MEM) F("lock " op "w %cx, " MEM)                   \
    F("lock " op "l %ecx, " SIB) F("lock " op "q %rcx, " MEM)
#define CONDITION(cc)                                                                              \
    F("set" cc " %bl") F("set" cc " " MEM) F("cmov" cc "w %cx, %dx") F("cmov" cc "l %ecx, %edx")   \
    F("cmov" cc "q %rcx, %r9") F("cmov" cc "l " MEM ", %edx") F("cmov" cc "q " MEM ", %r9")        \
    F("cmov" cc "w " MEM ", %dx") F("j" cc " 1f; inc %rax; 1: inc %rbx")
#define STRINGS(op)                                                                                \
    STRING(op "b") STRING(op "w") STRING(op "l") STRING(op "q")
#define REPEATED(rep, op)                                                                          \
    STRING(rep " " op "b") STRING(rep " " op "w") STRING(rep " " op "l") STRING(rep " " op "q")

__asm__(".pushsection .rodata\n"
        ".globl x86_int_forms\n"
        "x86_int_forms:\n"
        BINARY("add") BINARY("or") BINARY("adc") BINARY("sbb") BINARY("and") BINARY("sub")
        BINARY("xor") BINARY_RO("cmp") BINARY_RO("test") F("cmpb (%rsp), %dh")
        F("cmpw " MEM ", %dx") F("cmpl " SIB ", %edx") F("cmpq " MEM ", %r8") UNARY("inc")
        UNARY("dec") UNARY("neg") UNARY("not") EXCHANGE("xadd") EXCHANGE("cmpxchg")
        EXCHANGE("xchg") F("mov " MEM ", %eax; cmpxchg %ecx, " MEM)
        F("mov %ebx, %eax; cmpxchg %ecx, %ebx") F("mov %rbx, %rax; lock cmpxchg %rcx, " SIB)
        F("mov " MEM ", %al; lock cmpxchg %cl, " MEM) F("cmpxchg8b " MEM)
        F("lock cmpxchg8b " MEM) F("mov " MEM ", %eax; mov 4" MEM ", %edx; lock cmpxchg8b " MEM)
        K(3, "cmpxchg16b " MEM) K(3, "lock cmpxchg16b " MEM)
        K(3, "mov " MEM ", %rax; mov 8" MEM ", %rdx; lock cmpxchg16b " MEM) F("movb %cl, %ah")
        F("movw %cx, %dx") F("movl %ecx, %edx") F("movq %rcx, %r9") F("movb $5, %ch")
        F("movw $0x555, %cx") F("movl $0x81234567, %ecx") F("movq $-5, %r9")
        F("movabs $0x123456789abcdef0, %r9") F("movb (%rsp), %bh") F("movw " MEM ", %bx")
        F("movl " SIB ", %ebx") F("movq " SIB ", %rbx") F("movb %bh, (%rsp)")
        F("movw %bx, " MEM) F("movl %ebx, " SIB) F("movq %rbx, " SIB) F("movb $5, " MEM)
        F("movw $0x505, " MEM) F("movl $0x81234567, " SIB) F("movq $-9, " SIB)
        F("movl -4(%r15d), %eax") F("movabs 0x801000, %eax") F("movabs %al, 0x801001")
        F("movabs 0x801002, %rax") F("movzbw %cl, %dx") F("movzbl %ch, %edx")
        F("movzbq %cl, %rdx") F("movzwl %cx, %edx") F("movzwq %cx, %r9")
        F("movzbw " MEM ", %dx") F("movzbl " MEM ", %edx") F("movzbq " MEM ", %rdx")
        F("movzwl " MEM ", %edx") F("movzwq " SIB ", %rdx") F("movsbw %cl, %dx")
        F("movsbl %ch, %edx") F("movsbq %cl, %rdx") F("movswl %cx, %edx") F("movswq %cx, %r9")
        F("movslq %ecx, %r9") F("movsbw " MEM ", %dx") F("movsbl " MEM ", %edx")
        F("movsbq " MEM ", %rdx") F("movswl " MEM ", %edx") F("movswq " SIB ", %rdx")
        F("movslq " SIB ", %rdx") F(".byte 0x63, 0xd1") F(".byte 0x66, 0x63, 0xd1")
        F(".byte 0x66, 0x0f, 0xb7, 0xd1") F(".byte 0x66, 0x0f, 0xbf, 0xd1")
        K(8, "movbe " MEM ", %dx") K(8, "movbe " SIB ", %edx") K(8, "movbe " MEM ", %r9")
        K(8, "movbe %dx, " MEM) K(8, "movbe %edx, " SIB) K(8, "movbe %r9, " MEM)
        F("movnti %edx, " MEM) F("movnti %r9, " SIB) F("bswap %ecx") F("bswap %r9")
        F(".byte 0x66, 0x0f, 0xc9") F("lea 5(%rcx,%rdx,8), %ax") F("lea 5(%rcx,%rdx,8), %eax")
        F("lea -5(%rcx,%rdx,2), %rax") F("lea 5(%ecx,%edx,4), %rax")
        F("lea 5(%ecx,%edx,4), %eax") F("lea (,%r12,8), %r9") F("lea (%rsp), %r9")
        F("mov %r15, %rbx; xlatb") F("cbtw") F("cwtl") F("cltq") F("cwtd") F("cltd") F("cqto")
        STACK("push %rax") STACK("push %rsp") STACK("push %r9") STACK("pushw %cx")
        STACK("push $-5") STACK("pushq $0x12345678") STACK("pushw $0x1234") STACK("push " MEM)
        STACK("pushw " MEM) STACK("push 8(%rsp)") STACK("pop %rcx") STACK("pop %rsp")
        STACK("popw %sp") STACK("popw %dx") STACK("pop %r9") STACK("pop " MEM)
        STACK("popw " MEM) STACK("pop 8(%rsp)") STACK("popw 8(%rsp)") STACK("pop (%rsp,%r13,8)")
        STACK("leave") STACK("leavew") STACK("enter $16, $0") STACK("enter $8, $1")
        STACK("enter $40, $5") STACK("enterw $8, $3")
        STACK("call 1f; inc %rax; 1: movq $0, (%rsp); pop %rbx")
        STACK("lea 1f(%rip), %rcx; push %rcx; ret; inc %rax; 1: dec %rbx; xor %ecx, %ecx; "
          "push %rcx")
        STACK("lea 1f(%rip), %rcx; push %rax; push %rcx; ret $8; inc %rax; "
          "1: xor %ecx, %ecx; push %rcx; push %rcx; pop %rdx")
        STACK("lea 1f(%rip), %rcx; jmp *%rcx; inc %rax; 1: xor %ecx, %ecx")
        STACK("lea 1f(%rip), %rcx; mov %rcx, " MEM "; jmp *" MEM "; 1: xor %ecx, %ecx; "
          "mov %rcx, " MEM)
        STACK("lea 1f(%rip), %rcx; call *%rcx; inc %rax; 1: xor %ecx, %ecx; mov %rcx, (%rsp)")
        STACK("lea 1f(%rip), %rcx; push %rcx; call *(%rsp); 1: xor %ecx, %ecx; "
          "mov %rcx, (%rsp); mov %rcx, 8(%rsp)") F("jmp 1f; inc %rax; 1: inc %rbx")
        F("movzbl %cl, %ecx; inc %rcx; 1: inc %rax; loop 1b")
        F("mov $5, %ecx; 1: inc %rax; loope 1b") F("mov $5, %ecx; 1: inc %rax; loopne 1b")
        F("jrcxz 1f; inc %rax; 1: inc %rbx") F("jecxz 1f; inc %rax; 1: inc %rbx")
        F("mov $3, %ecx; 1: inc %rax; addr32 loop 1b") SHIFT("shl") SHIFT("shr") SHIFT("sar")
        SHIFT("rol") SHIFT("ror") SHIFT("rcl") SHIFT("rcr") DOUBLE("shld") DOUBLE("shrd")
        BIT_RO("bt") BIT("bts") BIT("btr") BIT("btc") SCAN(0, "bsf") SCAN(0, "bsr")
        SCAN(0, "popcnt") SCAN(4, "tzcnt") SCAN(7, "lzcnt") F("xor %ecx, %ecx; bsf %ecx, %edx")
        F("xor %ecx, %ecx; bsr %cx, %dx") VEX_LAST(4, "andn") VEX_MIDDLE(4, "bextr")
        VEX2(4, "blsi") VEX2(4, "blsmsk") VEX2(4, "blsr") VEX_MIDDLE(5, "bzhi")
        VEX_LAST(5, "pdep") VEX_LAST(5, "pext") VEX_LAST(5, "mulx") VEX_MIDDLE(5, "sarx")
        VEX_MIDDLE(5, "shlx") VEX_MIDDLE(5, "shrx") RORX(5) K(6, "adcx %ecx, %edx")
        K(6, "adcx %r8, %r9") K(6, "adcx " MEM ", %edx") K(6, "adcx " SIB ", %r9")
        K(6, "adox %ecx, %edx") K(6, "adox %r8, %r9") K(6, "adox " MEM ", %edx")
        K(6, "adox " SIB ", %r9") F("crc32b %cl, %edx") F("crc32w %cx, %edx")
        F("crc32l %ecx, %edx") F("crc32q %rcx, %rdx") F("crc32b %cl, %rdx")
        F("crc32b " MEM ", %edx") F("crc32w " MEM ", %edx") F("crc32l " SIB ", %edx")
        F("crc32q " MEM ", %r9") ACCUMULATOR("mul") ACCUMULATOR("imul") DIVIDE("div")
        DIVIDE("idiv") F("imul %cx, %dx") F("imul %ecx, %edx") F("imul %rcx, %r9")
        F("imul " MEM ", %dx") F("imul " SIB ", %edx") F("imul " MEM ", %r9")
        F("imul $-5, %cx, %dx") F("imul $1000, %cx, %dx") F("imul $-5, %ecx, %edx")
        F("imul $0x12345678, %ecx, %edx") F("imul $-5, %rcx, %r9")
        F("imul $0x12345678, " MEM ", %r9") F("imul $9, " MEM ", %dx")
        F("imul $9, " SIB ", %edx") STRINGS("movs") STRINGS("cmps") STRINGS("scas")
        STRINGS("stos") STRINGS("lods") REPEATED("rep", "movs") REPEATED("rep", "stos")
        REPEATED("rep", "lods") REPEATED("repe", "cmps") REPEATED("repne", "cmps")
        REPEATED("repe", "scas") REPEATED("repne", "scas") STRING("repne movsb")
        STRING("repne stosq") STRING("addr32 rep movsb") STRING("addr32 movsl")
        STRING("addr32 repne scasb") F("lahf") F("sahf") F("clc") F("stc") F("cmc") F("cld")
        F("std; cld") F("nop") F("nopl " MEM) F("endbr64") F("pause") F("lfence") F("mfence")
        F("sfence") F("prefetcht0 " MEM) F("prefetchw " MEM) F("clflush " MEM) CONDITION("o")
        CONDITION("no") CONDITION("b") CONDITION("nb") CONDITION("z") CONDITION("nz")
        CONDITION("be") CONDITION("nbe") CONDITION("s") CONDITION("ns") CONDITION("p")
        CONDITION("np") CONDITION("l") CONDITION("nl") CONDITION("le") CONDITION("nle")
        ".byte 255\n.popsection\n");

/* What 64-bit mode lacks or does otherwise. */
__asm__(".pushsection .rodata\n"
        ".code32\n"
        ".globl x86_int_forms32\n"
        "x86_int_forms32:\n"
        F("aaa") F("aas") F("daa") F("das") F("aam $10") F("aam $7") F("aam $0") F("aad $10")
        F("aad $200") F(".byte 0xd6") F("incl %eax") F("decl %edi") F("incw %cx") F("decw %bp")
        F("mov %ah, %al; daa") F("add %bl, %al; daa") F("sub %bl, %al; das")
        F("sub %bl, %al; aas") F("add %bl, %al; aaa") F("mul %bl; aam $10") STACK("pusha")
        STACK("popa") STACK("pushaw") STACK("popaw") STACK("pusha; popa") STACK("push %eax")
        STACK("push %esp") STACK("pushw %cx") STACK("push $-5") STACK("pushw $-5")
        STACK("pop %ecx") STACK("pop %esp") STACK("popw %dx") STACK("pop 8(%esp)")
        STACK("push 8(%esp)") STACK("leave") STACK("leavew") STACK("enter $16, $0")
        STACK("enter $8, $4") STACK("enterw $8, $3")
        STACK("call 1f; inc %eax; 1: movl $0, (%esp); pop %ebx")
        STACK("call 1f; jmp 2f; 1: ret; 2: movl $0, -4(%esp)")
        STACK("call 1f; jmp 2f; 1: ret $4; 2: movl $0, -8(%esp)") F("lea 5(%bx,%si), %eax")
        F("lea -3(%bp,%di), %cx") F("lea 5(%eax,%ecx,4), %edx")
        F("jcxz 1f; inc %eax; 1: inc %ebx") F("jecxz 1f; inc %eax; 1: inc %ebx")
        F("mov $3, %cx; 1: inc %eax; addr16 loop 1b") F("mov $3, %ecx; 1: inc %eax; loop 1b")
        STACK("movl $-5, (%esp); movl $9, 4(%esp); mov $9, %eax; bound %eax, (%esp)")
        STACK("movl $0x7fff8000, (%esp); bound %ax, (%esp)") STRING("movsb") STRING("movsl")
        STRING("cmpsw") STRING("scasl") STRING("stosl") STRING("lodsw") STRING("rep movsb")
        STRING("rep movsl") STRING("rep stosw") STRING("repe cmpsb") STRING("repne scasb")
        STRING("repe scasl") F("addl %ecx, %eax") F("adcw %cx, %ax") F("sbbb %ch, %dl")
        F("imull %ecx") F("idivl %ebx") F("divw %bx") F("shldl %cl, %edx, %eax")
        F("rcll %cl, %eax") F("btsl %ecx, %eax") F("bswap %ecx") F("cmpxchgl %ecx, %edx")
        F("xchgl %ecx, %eax") F("movsbl %cl, %edx") STACK("addl %ecx, (%esp)")
        STACK("lock xaddl %ecx, 4(%esp)") STACK("xchgw %cx, (%esp)") STACK("cmpxchg8b (%esp)")
        STACK("shll %cl, (%esp)") STACK("negb (%esp)") K(4, "andn %ecx, %ebx, %edx")
        K(5, "pdep %ecx, %ebx, %edx") K(5, "rorx $9, (%esp), %edx")
        ".code64\n"
        ".byte 255\n.popsection\n");
/* clang-format on */

#endif
