/*
 * test_x86_int.c - the integer instructions against the host: each form runs natively and in the
 * interpreter's functions with the same random operands, and registers, flags and memory must be
 * equal.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <cmocka.h>

#include "x86_harness.h"
#include "x86_int_forms.h"

/* Memory operands: at this address in the guest and in this process alike. */
#define BUF      0x800000u
#define BUF_SIZE 0x2800u
#define ROUNDS   24

/* ---- native execution ---- */

struct native {
    uint64_t gpr[16];
    uint64_t flags;
    uint64_t host_rsp;
    void *code;
    uint64_t fault; /* SIGFPE */
};

/* Named by the assembly below. */
struct native x86_native_regs;
void x86_native_enter(void);
extern const char x86_native_back[];

__asm__(".pushsection .text\n"
        "x86_native_enter:\n"
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
        "mov %rsp, x86_native_regs+136(%rip)\n"
        "push x86_native_regs+128(%rip); popf\n"
        "mov x86_native_regs+0(%rip), %rax; mov x86_native_regs+8(%rip), %rcx\n"
        "mov x86_native_regs+16(%rip), %rdx; mov x86_native_regs+24(%rip), %rbx\n"
        "mov x86_native_regs+32(%rip), %rsp; mov x86_native_regs+40(%rip), %rbp\n"
        "mov x86_native_regs+48(%rip), %rsi; mov x86_native_regs+56(%rip), %rdi\n"
        "mov x86_native_regs+64(%rip), %r8; mov x86_native_regs+72(%rip), %r9\n"
        "mov x86_native_regs+80(%rip), %r10; mov x86_native_regs+88(%rip), %r11\n"
        "mov x86_native_regs+96(%rip), %r12; mov x86_native_regs+104(%rip), %r13\n"
        "mov x86_native_regs+112(%rip), %r14; mov x86_native_regs+120(%rip), %r15\n"
        "jmp *x86_native_regs+144(%rip)\n"
        "x86_native_back:\n"
        "mov %rax, x86_native_regs+0(%rip); mov %rcx, x86_native_regs+8(%rip)\n"
        "mov %rdx, x86_native_regs+16(%rip); mov %rbx, x86_native_regs+24(%rip)\n"
        "mov %rsp, x86_native_regs+32(%rip); mov %rbp, x86_native_regs+40(%rip)\n"
        "mov %rsi, x86_native_regs+48(%rip); mov %rdi, x86_native_regs+56(%rip)\n"
        "mov %r8, x86_native_regs+64(%rip); mov %r9, x86_native_regs+72(%rip)\n"
        "mov %r10, x86_native_regs+80(%rip); mov %r11, x86_native_regs+88(%rip)\n"
        "mov %r12, x86_native_regs+96(%rip); mov %r13, x86_native_regs+104(%rip)\n"
        "mov %r14, x86_native_regs+112(%rip); mov %r15, x86_native_regs+120(%rip)\n"
        "mov x86_native_regs+136(%rip), %rsp\n"
        "pushf; pop x86_native_regs+128(%rip)\n"
        "cld\n"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
        "ret\n"
        ".popsection\n");

static void on_fpe(int sig, siginfo_t *info, void *ctx)
{
    ucontext_t *u = ctx;
    x86_native_regs.fault = 1;
    u->uc_mcontext.gregs[REG_RIP] = (greg_t)x86_native_back;
    u->uc_mcontext.gregs[REG_CSGSFS] = (u->uc_mcontext.gregs[REG_CSGSFS] & ~0xffffll) | 0x33;
}

static uint8_t *code_page;
static uint8_t *buffer; /* at BUF */
static uint8_t signal_stack[65536];
static struct rig *rig;

static void native_run(const uint8_t *code, unsigned len)
{
    static const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0}; /* jmp *0(%rip) */
    const char *back = x86_native_back;
    memcpy(code_page, code, len);
    memcpy(code_page + len, jump, sizeof jump);
    memcpy(code_page + len + sizeof jump, &back, sizeof back);
    x86_native_regs.code = code_page;
    x86_native_regs.fault = 0;
    x86_native_enter();
}

/* The same for 32-bit code: by way of Linux' code segment for compatibility mode and back. */
static void native_run32(const uint8_t *code, unsigned len)
{
    uint8_t *p = code_page;
    uint32_t start = (uint32_t)(uintptr_t)code_page + 12, end = start + len + 7;
    const char *back = x86_native_back;
    memcpy(p, "\xff\x2d\0\0\0\0", 6); /* ljmp *0(%rip) */
    memcpy(p + 6, &start, 4);
    memcpy(p + 10, "\x23\0", 2);
    memcpy(p + 12, code, len);
    p += 12 + len;
    *p = 0xea; /* ljmp $0x33, $end */
    memcpy(p + 1, &end, 4);
    memcpy(p + 5, "\x33\0", 2);
    memcpy(p + 7, "\xff\x25\0\0\0\0", 6); /* jmp *0(%rip) */
    memcpy(p + 13, &back, sizeof back);
    x86_native_regs.code = code_page;
    x86_native_regs.fault = 0;
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" ::"r"(0x2b));
    x86_native_enter();
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" ::"r"(0));
}

static int setup(void **state)
{
    stack_t ss = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
    code_page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    buffer = mmap((void *)(uintptr_t)BUF, BUF_SIZE, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    rig = rig_create(64);
    return code_page == MAP_FAILED || buffer == MAP_FAILED || sigaltstack(&ss, NULL);
}

static int teardown(void **state)
{
    rig_destroy(rig);
    munmap(code_page, PAGE_SIZE);
    munmap(buffer, BUF_SIZE);
    return 0;
}

/* ---- operands ---- */

static uint64_t seed = 88172645463325252ull;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static uint64_t rnd_value(void)
{
    static const uint64_t edge[] = {0,
                                    1,
                                    ~0ull,
                                    0x80,
                                    0x7f,
                                    0x8000,
                                    0x7fff,
                                    0x80000000,
                                    0x7fffffff,
                                    0x8000000000000000,
                                    0x7fffffffffffffff,
                                    0xffffffff};
    uint64_t kind = rnd() % 4, v = rnd();
    return kind == 0 ? edge[v % ARRAY_LEN(edge)] : kind == 1 ? v % 256 : kind == 2 ? v >> 32 : v;
}

static void random_state(const struct form *f, struct native *n)
{
    for (unsigned r = 0; r < 16; r++)
        n->gpr[r] = rnd_value();
    for (unsigned k = 0; k < BUF_SIZE / 8; k++)
        ((uint64_t *)(void *)buffer)[k] = rnd();
    n->gpr[X86_RSP] = BUF + 0x800;
    n->gpr[13] = rnd() % 8;
    n->gpr[14] = rnd() % 1024 - 512; /* a bit offset that stays in the buffer */
    n->gpr[15] = BUF + 0x1000 + (rnd() % 4 ? 0 : 0x1000 - 1 - rnd() % 16);
    /* Kernels punish locked accesses that cross a cache line. */
    if (f->kind == FORM_ALIGNED || strstr(f->text, "lock") || strstr(f->text, "xchg"))
        n->gpr[15] = BUF + 0x1000;
    n->flags = (rnd() & X86_FL_ARITH) | 0x202;
    if (f->kind == FORM_STACK) {
        n->gpr[X86_RBP] = BUF + 0x900;
    } else if (f->kind == FORM_STRING) {
        n->gpr[X86_RCX] = rnd() % 40;
        n->gpr[X86_RSI] = BUF + 0x1000 - 64 + rnd() % 128;
        n->gpr[X86_RDI] = n->gpr[X86_RSI] + rnd() % 64 - 32;
        n->gpr[X86_RAX] = rnd() % 2 ? n->gpr[X86_RAX] : 0x0101010101010101 * (rnd() % 4);
        for (unsigned k = 0x800; k < 0x1800; k++)
            buffer[k] = rnd() % 8 ? 1 : (uint8_t)rnd();
        n->flags |= rnd() % 2 ? X86_FL_DF : 0;
    }
}

/* ---- the comparison ---- */

/* What the SDM leaves undefined, the guest has as Intel's processors do, and there it is compared,
 * too. On AMD's processors these flags are others: */
static uint64_t undefined_here(const struct form *f)
{
    static const struct {
        const char *mnemonic;
        uint64_t flags;
    } undefined[] = {
        {"mul", X86_FL_SF | X86_FL_ZF | X86_FL_AF | X86_FL_PF},  /* SDM 2, MUL */
        {"imul", X86_FL_SF | X86_FL_ZF | X86_FL_AF | X86_FL_PF}, /* SDM 2, IMUL */
        {"aaa", X86_FL_OF | X86_FL_SF | X86_FL_ZF | X86_FL_PF},  /* SDM 2, AAA */
        {"aas", X86_FL_OF | X86_FL_SF | X86_FL_ZF | X86_FL_PF},  /* SDM 2, AAS */
        {"daa", X86_FL_OF},                                      /* SDM 2, DAA */
        {"das", X86_FL_OF},                                      /* SDM 2, DAS */
    };
    uint64_t flags = 0;
    if (!__builtin_cpu_is("amd"))
        return 0;
    for (unsigned n = 0; n < ARRAY_LEN(undefined); n++) {
        const char *last = strrchr(f->text, ';'), *text = last ? last + 2 : f->text;
        size_t len = strlen(undefined[n].mnemonic);
        if (strncmp(text, undefined[n].mnemonic, len) == 0 && text[len] != 'x') /* not MULX */
            flags |= undefined[n].flags;
    }
    /* SDM 2, RCL/RCR/ROL/ROR: OF, if the count is not 1 */
    bool rotate = strncmp(f->text, "rol", 3) == 0 || strncmp(f->text, "ror", 3) == 0;
    if (rotate && strchr(f->text, '$') && !strstr(f->text, "$1,"))
        flags |= X86_FL_OF;
    return flags;
}

/* In 32-bit mode there are eight registers of 32 bits. */
static void narrow(struct native *n)
{
    for (unsigned r = 0; r < 16; r++)
        n->gpr[r] = r < 8 ? (uint32_t)n->gpr[r] : 0;
}

static void load_guest(const struct native *n)
{
    memcpy(rig->c->s.gpr, n->gpr, sizeof n->gpr);
    x86_set_rflags(rig->c, n->flags);
    memcpy(rig_mem(rig, BUF), buffer, BUF_SIZE);
}

static void compare(const struct form *f, const struct native *in, uint64_t reg_mask)
{
    const struct native *n = &x86_native_regs;
    uint64_t flags = x86_rflags(rig->c), mask = (X86_FL_ARITH | X86_FL_DF) & ~undefined_here(f);
    for (unsigned r = 0; r < (reg_mask == UINT32_MAX ? 8 : 16); r++)
        if ((n->gpr[r] ^ rig->c->s.gpr[r]) & reg_mask)
            fail_msg("%s: register %u is %#llx on the host, %#llx in the guest, was %#llx", f->text,
                     r, (unsigned long long)n->gpr[r], (unsigned long long)rig->c->s.gpr[r],
                     (unsigned long long)in->gpr[r]);
    if ((n->flags ^ flags) & mask)
        fail_msg("%s: flags %#llx on the host, %#llx in the guest, were %#llx", f->text,
                 (unsigned long long)(n->flags & mask), (unsigned long long)(flags & mask),
                 (unsigned long long)(in->flags & mask));
    if (memcmp(buffer, rig_mem(rig, BUF), BUF_SIZE) != 0)
        fail_msg("%s: memory differs", f->text);
}

static void run_form(const struct form *f, unsigned bits)
{
    struct native in = {0};
    random_state(f, &in);
    if (bits == 32)
        narrow(&in);
    load_guest(&in);
    x86_native_regs = in;
    if (bits == 32)
        native_run32(f->code, f->len);
    else
        native_run(f->code, f->len);
    int got = rig_run(rig, f->code, f->len);
    if (x86_native_regs.fault) {
        if (got != X86_DE)
            fail_msg("%s: the host raises #DE, the guest %d", f->text, got);
        return;
    }
    if (got != RIG_OK)
        fail_msg("%s: the guest raises %d", f->text, got);
    compare(f, &in, bits == 32 ? UINT32_MAX : UINT64_MAX);
}

static unsigned run_table(const uint8_t *table, unsigned bits)
{
    /* Here and not in setup(): cmocka sets its own handler before each test. */
    struct sigaction sa = {.sa_sigaction = on_fpe, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    struct form f;
    unsigned forms = 0;
    assert_int_equal(sigaction(SIGFPE, &sa, NULL), 0);
    rig_mode(rig, bits);
    for (const uint8_t *p = table; (p = form_next(p, &f)) != NULL; forms++) {
        if (!form_supported(&f))
            continue;
        for (unsigned n = 0; n < ROUNDS; n++)
            run_form(&f, bits);
    }
    return forms;
}

static void test_forms_like_host(void **state)
{
    assert_true(run_table(x86_int_forms, 64) > 600);
}

static void test_forms32_like_host(void **state)
{
    assert_true(run_table(x86_int_forms32, 32) > 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_like_host),
        cmocka_unit_test(test_forms32_like_host),
    };
    return cmocka_run_group_tests_name("x86_int", tests, setup, teardown);
}
