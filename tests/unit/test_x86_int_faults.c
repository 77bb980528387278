/*
 * test_x86_int_faults.c - integer instructions where they cannot be compared with the host: faults
 * and what they leave unchanged, long string operations, device memory, real mode.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "x86_harness.h"

/* Code for tests: assembled here, named, with its end. */
#define CODE(name, mode, text)                                                           \
    extern const uint8_t name[], name##_end[];                                           \
    __asm__(".pushsection .rodata\n.code" mode "\n" #name ": " text "\n" #name "_end:\n" \
            ".code64\n.popsection\n")
#define RUN(name) rig_run(rig, name, (unsigned)(name##_end - name))

#define HOLE          0xa00000u /* an absent 2 MiB page in 64-bit mode */
#define NOT_CANONICAL 0x8000000000000000ull
#define MMIO          0x2000000u /* beyond RAM */

static struct rig *rig;
static struct x86_cpu *c;

static int setup(void **state)
{
    rig = rig_create(64);
    c = rig->c;
    ((uint64_t *)rig_mem(rig, RIG_TABLES + 0x2000))[HOLE >> 21] = 0;
    return 0;
}

static int teardown(void **state)
{
    rig_destroy(rig);
    return 0;
}

static uint64_t *gpr(unsigned r)
{
    return &c->s.gpr[r];
}

static void assert_fault(int got, int vector)
{
    assert_int_equal(got, vector);
    assert_int_equal(c->s.rip, rig_code_base(rig));
    assert_false(c->exc.trap || c->exc.soft);
}

/* ---- illegal forms ---- */

static void test_illegal_lock(void **state)
{
    static const uint8_t bad[][5] = {
        {0xf0, 0x01, 0xc8},       /* lock add eax, ecx */
        {0xf0, 0x39, 0x08},       /* lock cmp [rax], ecx */
        {0xf0, 0x85, 0x08},       /* lock test [rax], ecx */
        {0xf0, 0x89, 0x08},       /* lock mov [rax], ecx */
        {0xf0, 0x03, 0x08},       /* lock add ecx, [rax] */
        {0xf0, 0x0f, 0xa3, 0x08}, /* lock bt [rax], ecx */
        {0xf0, 0x0f, 0xab, 0xc8}, /* lock bts eax, ecx */
        {0xf0, 0xd1, 0x20},       /* lock shl dword [rax], 1 */
        {0xf0, 0xff, 0xc0},       /* lock inc eax */
        {0xf0, 0x87, 0xc8},       /* lock xchg eax, ecx */
        {0xf0, 0x0f, 0xc1, 0xc8}, /* lock xadd eax, ecx */
        {0xf0, 0x0f, 0xb1, 0xc8}, /* lock cmpxchg eax, ecx */
        {0xf0, 0x90},             /* lock nop */
        {0xf0, 0xa4},             /* lock movsb */
        {0xf0, 0xff, 0x30},       /* lock push [rax] */
        {0x0f, 0x0b},             /* ud2 */
        {0x0f, 0xff, 0xc0},       /* ud0 */
        {0x0f, 0xb9, 0xc0},       /* ud1 */
        {0x0f, 0xc7, 0xc8},       /* cmpxchg8b eax */
        {0x8d, 0xc0},             /* lea eax, eax */
        {0x27},                   /* daa */
        {0x60},                   /* pusha */
        {0xce},                   /* into */
        {0xd6},                   /* salc */
    };
    for (unsigned n = 0; n < ARRAY_LEN(bad); n++)
        assert_fault(rig_run(rig, bad[n], sizeof bad[n]), X86_UD);
}

CODE(c_vex, "16", ".byte 0xc4, 0xe2, 0x60, 0xf2, 0xd1"); /* andn edx, ebx, ecx */

/* The same bytes are LES there; with a register operand it is undefined. */
static void test_vex_in_real_mode(void **state)
{
    rig_mode(rig, 16);
    assert_fault(RUN(c_vex), X86_UD);
}

/* ---- faults leave everything as it was ---- */

CODE(c_push, "64", "push %rax");
CODE(c_push_mem, "64", "pushq (%rax)");
CODE(c_pop_mem, "64", "pop (%rax)");
CODE(c_call, "64", "call *%rax");
CODE(c_ret, "64", "ret");
CODE(c_enter, "64", "enter $0x1000, $0");
CODE(c_xadd, "64", "lock xadd %ecx, (%rax)");
CODE(c_add, "64", "add %ecx, (%rax)");
CODE(c_cx16, "64", "lock cmpxchg16b (%rsi)");

static void test_stack_faults(void **state)
{
    *gpr(X86_RSP) = HOLE + 8;
    assert_fault(RUN(c_push), X86_PF);
    assert_int_equal(*gpr(X86_RSP), HOLE + 8);
    assert_int_equal(c->exc.cr2, HOLE);

    *gpr(X86_RSP) = 0x8000;
    *gpr(X86_RAX) = HOLE;
    assert_fault(RUN(c_pop_mem), X86_PF);
    assert_int_equal(*gpr(X86_RSP), 0x8000);

    *gpr(X86_RSP) = HOLE + 0x200000 + 0x800; /* the frame fits, the new top of stack does not */
    *gpr(X86_RBP) = 77;
    assert_fault(RUN(c_enter), X86_PF);
    assert_int_equal(*gpr(X86_RBP), 77);
    assert_int_equal(*gpr(X86_RSP), HOLE + 0x200000 + 0x800);
}

static void test_not_canonical(void **state)
{
    *gpr(X86_RAX) = NOT_CANONICAL;
    assert_fault(RUN(c_call), X86_GP);
    assert_int_equal(*gpr(X86_RSP), 0x8000);
    memcpy(rig_mem(rig, 0x8000), gpr(X86_RAX), 8);
    assert_fault(RUN(c_ret), X86_GP);
    assert_int_equal(*gpr(X86_RSP), 0x8000);
    assert_fault(RUN(c_add), X86_GP);
    *gpr(X86_RSP) = NOT_CANONICAL + 8;
    assert_fault(RUN(c_push), X86_SSF);
    *gpr(X86_RAX) = NOT_CANONICAL; /* where the stack is, but through DS */
    assert_fault(RUN(c_push_mem), X86_GP);
    *gpr(X86_RAX) = 0x8000;
    assert_fault(RUN(c_push_mem), X86_SSF);
    assert_fault(RUN(c_pop_mem), X86_SSF);
    *gpr(X86_RSP) = 0x8000;
    *gpr(X86_RAX) = NOT_CANONICAL;
    assert_fault(RUN(c_pop_mem), X86_GP);
}

static void test_rmw_faults(void **state)
{
    *gpr(X86_RAX) = HOLE;
    *gpr(X86_RCX) = 5;
    assert_fault(RUN(c_xadd), X86_PF);
    assert_int_equal(c->exc.error & X86_PF_W, X86_PF_W); /* reported as a write */
    assert_int_equal(*gpr(X86_RCX), 5);
    *gpr(X86_RSI) = 0x9008;
    assert_fault(RUN(c_cx16), X86_GP);
}

static void test_branch_out_of_segment(void **state)
{
    static const uint8_t jmp[] = {0xe9, 0x00, 0x10, 0x00, 0x00}; /* jmp .+0x1005 */
    static const uint8_t loop[] = {0xe2, 0x7f};                  /* loop .+0x81 */
    rig_mode(rig, 32);
    c->s.seg[X86_CS].limit = RIG_CODE + 0x40;
    x86_update_mode(c);
    *gpr(X86_RCX) = 9;
    assert_fault(rig_run(rig, jmp, sizeof jmp), X86_GP);
    assert_fault(rig_run(rig, loop, sizeof loop), X86_GP);
    assert_int_equal(*gpr(X86_RCX), 9);
}

/* ---- division ---- */

CODE(c_div32, "64", "div %ecx");
CODE(c_idiv8, "64", "idiv %cl");
CODE(c_idiv64, "64", "idiv %rcx");

static void test_divide_error(void **state)
{
    *gpr(X86_RAX) = 7;
    assert_fault(RUN(c_div32), X86_DE); /* by zero */
    *gpr(X86_RDX) = *gpr(X86_RCX) = 5;
    assert_fault(RUN(c_div32), X86_DE); /* the quotient needs 33 bits */
    assert_int_equal(*gpr(X86_RAX), 7);
    *gpr(X86_RDX) = 4;
    assert_int_equal(RUN(c_div32), RIG_OK);
    *gpr(X86_RAX) = 0xff80; /* -128 / 1 fits, 128 / 1 does not */
    *gpr(X86_RCX) = 1;
    assert_int_equal(RUN(c_idiv8), RIG_OK);
    *gpr(X86_RAX) = 0x0080;
    assert_fault(RUN(c_idiv8), X86_DE);
    *gpr(X86_RAX) = 1ull << 63;
    *gpr(X86_RDX) = ~0ull;
    *gpr(X86_RCX) = ~0ull;
    assert_fault(RUN(c_idiv64), X86_DE); /* -2^63 / -1 */
}

/* ---- software interrupts ---- */

CODE(c_int, "64", "int $0x80");
CODE(c_int3, "64", "int3");
CODE(c_int1, "64", ".byte 0xf1");
CODE(c_into, "32", "into");
CODE(c_bound, "32", "bound %ecx, (%eax)");

static void test_software_interrupts(void **state)
{
    assert_int_equal(RUN(c_int), 0x80);
    assert_true(c->exc.soft);
    assert_int_equal(c->s.rip, RIG_CODE + 2); /* the next instruction's */
    assert_int_equal(RUN(c_int3), X86_BP);
    assert_true(c->exc.soft);
    assert_int_equal(c->s.rip, RIG_CODE + 1);
    assert_int_equal(RUN(c_int1), X86_DB);
    assert_true(c->exc.trap && !c->exc.soft);
    assert_int_equal(c->s.rip, RIG_CODE + 1);
    rig_mode(rig, 32);
    assert_int_equal(RUN(c_into), RIG_OK);
    x86_set_arith_flags(c, X86_FL_OF);
    assert_int_equal(RUN(c_into), X86_OF);
    assert_true(c->exc.soft);
}

static void test_bound(void **state)
{
    static const int32_t bounds[2] = {-3, 4};
    rig_mode(rig, 32);
    memcpy(rig_mem(rig, 0x9000), bounds, sizeof bounds);
    *gpr(X86_RAX) = 0x9000;
    for (int n = -5; n < 7; n++) {
        *gpr(X86_RCX) = (uint32_t)n;
        if (n >= -3 && n <= 4)
            assert_int_equal(RUN(c_bound), RIG_OK);
        else
            assert_fault(RUN(c_bound), X86_BR);
    }
}

/* ---- strings ---- */

CODE(c_movsb, "64", "rep movsb");
CODE(c_movsq, "64", "rep movsq");
CODE(c_stosl, "64", "rep stosl");
CODE(c_scasb, "64", "repne scasb");

static void fill(gpa_t from, unsigned len)
{
    uint8_t *p = rig_mem(rig, from);
    for (unsigned n = 0; n < len; n++)
        p[n] = (uint8_t)(n * 7 + n / 256);
}

static void regs(uint64_t si, uint64_t di, uint64_t cx)
{
    *gpr(X86_RSI) = si;
    *gpr(X86_RDI) = di;
    *gpr(X86_RCX) = cx;
}

static void test_long_copy_yields(void **state)
{
    const unsigned len = 1 << 20;
    fill(0x100000, len);
    regs(0x100000, 0x300801, len);
    assert_int_equal(RUN(c_movsb), RIG_OK);
    assert_true(rig->steps >= 16); /* it came back to the run loop */
    assert_memory_equal(rig_mem(rig, 0x100000), rig_mem(rig, 0x300801), len);
    assert_int_equal(*gpr(X86_RSI), 0x100000 + len);
    assert_int_equal(*gpr(X86_RDI), 0x300801 + len);
    assert_int_equal(*gpr(X86_RCX), 0);
}

/* Each element is read after the one before it was written: the first bytes repeat. */
static void test_overlapping_copy(void **state)
{
    static const unsigned distance[] = {1, 3, 8, 63, 4095, 4096};
    for (unsigned k = 0; k < ARRAY_LEN(distance); k++) {
        unsigned d = distance[k];
        fill(0x100000, 0x8000);
        regs(0x100000, 0x100000 + d, 0x3000);
        assert_int_equal(RUN(c_movsb), RIG_OK);
        const uint8_t *p = rig_mem(rig, 0x100000);
        for (unsigned n = 0; n < 0x3000; n++)
            assert_int_equal(p[n + d], p[n]);
    }
    fill(0x100000, 0x8000);
    uint8_t *copy = malloc(0x3000);
    memcpy(copy, rig_mem(rig, 0x100005), 0x3000);
    regs(0x100005, 0x100000, 0x3000 / 8);
    assert_int_equal(RUN(c_movsq), RIG_OK);
    assert_memory_equal(rig_mem(rig, 0x100000), copy, 0x3000);
    free(copy);
}

static void test_string_fault_is_restartable(void **state)
{
    fill(0x100000, 64);
    regs(0x100000, HOLE - 16, 64);
    assert_fault(RUN(c_movsb), X86_PF);
    assert_int_equal(c->exc.cr2, HOLE);
    assert_int_equal(*gpr(X86_RCX), 48);
    assert_int_equal(*gpr(X86_RSI), 0x100010);
    assert_int_equal(*gpr(X86_RDI), HOLE);
    *gpr(X86_RDI) = 0x200000; /* "mapped" meanwhile */
    assert_int_equal(RUN(c_movsb), RIG_OK);
    assert_memory_equal(rig_mem(rig, 0x200000), rig_mem(rig, 0x100010), 48);
    /* An element that crosses into the hole is not stored in part. */
    memset(rig_mem(rig, HOLE - 8), 0x55, 8);
    *gpr(X86_RAX) = 0x11111111;
    regs(0, HOLE - 6, 4);
    assert_fault(RUN(c_stosl), X86_PF);
    assert_int_equal(*gpr(X86_RCX), 3);
    assert_int_equal(*(uint8_t *)rig_mem(rig, HOLE - 1), 0x55);
}

static void test_strings_and_devices(void **state)
{
    fill(0x100000, 64);
    regs(0x100000, MMIO, 16);
    assert_int_equal(RUN(c_movsb), RIG_OK);
    assert_int_equal(rig->mmio_writes, 16);
    assert_memory_equal(rig->mmio, rig_mem(rig, 0x100000), 16);
    regs(MMIO, 0x200000, 2);
    assert_int_equal(RUN(c_movsq), RIG_OK);
    assert_int_equal(rig->mmio_reads, 2);
    assert_memory_equal(rig->mmio, rig_mem(rig, 0x200000), 16);
    *gpr(X86_RAX) = MMIO + 4;
    *gpr(X86_RCX) = 1;
    memset(rig->mmio, 0xff, 8);
    assert_int_equal(RUN(c_xadd), RIG_OK); /* no host pointer: load, compute, store */
    assert_int_equal(*gpr(X86_RCX), 0xffffffff);
    assert_int_equal(rig->mmio[4], 0);
    assert_int_equal(rig->mmio[3], 0xff);
    assert_true(x86_arith_flags(c) & X86_FL_CF);
}

static void test_single_step_stops_each_iteration(void **state)
{
    regs(0x100000, 0x200000, 5);
    c->slow |= X86_SLOW_TF;
    assert_int_equal(RUN(c_movsb), RIG_OK);
    assert_int_equal(rig->steps, 5);
    memset(rig_mem(rig, 0x200000), 1, 8);
    regs(0, 0x200000, 8);
    *gpr(X86_RAX) = 7;
    assert_int_equal(RUN(c_scasb), RIG_OK);
    assert_int_equal(rig->steps, 8);
    c->slow = 0;
}

static void test_zero_count(void **state)
{
    regs(HOLE, HOLE, 0);
    assert_int_equal(RUN(c_movsb), RIG_OK);
    assert_int_equal(*gpr(X86_RSI), HOLE);
}

/* ---- real mode ---- */

CODE(c_movsb16, "16", "rep movsb");
CODE(c_push16, "16", "push %ax");
CODE(c_pusha16, "16", "pusha");
CODE(c_loop16, "16", "1: inc %ax; loop 1b");
CODE(c_call16, "16", "call 1f; 1: pop %bx");
CODE(c_word16, "16", "mov 0xffff, %ax");
CODE(c_lea16, "16", "lea 0xfff0(%bx), %ecx");

static void test_address_size_wraps(void **state)
{
    rig_mode(rig, 16);
    fill(0xfff0, 0x100);
    fill(0, 0x10);
    regs(0x1234fff8, 0x56784000, 0x9abc0010);
    assert_int_equal(RUN(c_movsb16), RIG_OK);
    assert_int_equal(*gpr(X86_RSI), 0x12340008);
    assert_int_equal(*gpr(X86_RDI), 0x56784010);
    assert_int_equal(*gpr(X86_RCX), 0x9abc0000);
    assert_memory_equal(rig_mem(rig, 0x4000), rig_mem(rig, 0xfff8), 8);
    assert_memory_equal(rig_mem(rig, 0x4008), rig_mem(rig, 0), 8);
    *gpr(X86_RBX) = 0x20;
    assert_int_equal(RUN(c_lea16), RIG_OK);
    assert_int_equal(*gpr(X86_RCX), 0x10);
}

static void test_real_mode_limits(void **state)
{
    rig_mode(rig, 16);
    assert_fault(RUN(c_word16), X86_GP); /* a word at FFFF */
    *gpr(X86_RSP) = 1;
    assert_fault(RUN(c_push16), X86_SSF);
    *gpr(X86_RSP) = 5; /* the third push meets the limit */
    assert_fault(RUN(c_pusha16), X86_SSF);
    assert_int_equal(*gpr(X86_RSP), 5);
    *gpr(X86_RSP) = 0xabcd0000; /* SP wraps, the rest of ESP stays */
    *gpr(X86_RAX) = 0x4711;
    assert_int_equal(RUN(c_push16), RIG_OK);
    assert_int_equal(*gpr(X86_RSP), 0xabcdfffe);
    assert_int_equal(*(uint16_t *)rig_mem(rig, 0xfffe), 0x4711);
}

static void test_real_mode_branches(void **state)
{
    rig_mode(rig, 16);
    *gpr(X86_RAX) = 0;
    *gpr(X86_RCX) = 0x50003;
    assert_int_equal(RUN(c_loop16), RIG_OK);
    assert_int_equal(*gpr(X86_RAX), 3);
    assert_int_equal(*gpr(X86_RCX), 0x50000);
    assert_int_equal(RUN(c_call16), RIG_OK);
    assert_int_equal(*gpr(X86_RBX), 3);
    assert_int_equal(*gpr(X86_RSP), 0x8000);
}

/* ---- the rest ---- */

CODE(c_rdrand, "64", "rdrand %rax");
CODE(c_rdpid, "64", "rdpid %rcx");
CODE(c_clflush, "64", "clflush (%rax)");
CODE(c_nop, "64", "nopl (%rax); prefetcht0 (%rax)");

static void test_random(void **state)
{
    if (!__builtin_cpu_supports("rdrnd"))
        skip();
    x86_set_arith_flags(c, X86_FL_ARITH);
    assert_int_equal(RUN(c_rdrand), RIG_OK);
    assert_int_equal(x86_arith_flags(c) & ~X86_FL_CF, 0);
}

static void test_hints(void **state)
{
    c->s.tsc_aux = 0x12345;
    assert_int_equal(RUN(c_rdpid), RIG_OK);
    assert_int_equal(*gpr(X86_RCX), 0x12345);
    *gpr(X86_RAX) = HOLE;
    assert_int_equal(RUN(c_nop), RIG_OK); /* touches no memory */
    assert_fault(RUN(c_clflush), X86_PF);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_illegal_lock),
        TEST(test_vex_in_real_mode),
        TEST(test_stack_faults),
        TEST(test_not_canonical),
        TEST(test_rmw_faults),
        TEST(test_branch_out_of_segment),
        TEST(test_divide_error),
        TEST(test_software_interrupts),
        TEST(test_bound),
        TEST(test_long_copy_yields),
        TEST(test_overlapping_copy),
        TEST(test_string_fault_is_restartable),
        TEST(test_strings_and_devices),
        TEST(test_single_step_stops_each_iteration),
        TEST(test_zero_count),
        TEST(test_address_size_wraps),
        TEST(test_real_mode_limits),
        TEST(test_real_mode_branches),
        TEST(test_random),
        TEST(test_hints),
    };
    return cmocka_run_group_tests_name("x86_int_faults", tests, NULL, NULL);
}
