/*
 * test_x86_simd.c - SIMD and x87 instructions against the processor this runs on.
 *
 * Encodings are enumerated over the opcode maps; those that decode and that the processor model
 * offers are executed twice from the same random state: by the emulation, and natively by a
 * trampoline. Code and data lie at the same addresses for both, so that the complete state can be
 * compared, including x87's instruction and data pointers, and the vector of an exception.
 */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cmocka.h>

#include "isa/x86/access.h"
#include "isa/x86/code.h"
#include "isa/x86/cpuid.h"
#include "isa/x86/fpu.h"
#include "isa/x86/native.h"
#include "mem/ram.h"
#include "mem/space.h"

#define DATA_AT   0x200000ull /* guest-physical = linear = host address */
#define DATA_SIZE 0x4000u
#define CODE_AT   0x300000ull
#define WINDOW    1024u /* bytes compared from the operand's neighbourhood */

/* ---- the native side ---- */

struct regs {
    uint64_t gpr[16];
    uint64_t flags;
    uint32_t env[7]; /* FNSTENV's image, from the native side */
    uint32_t pad[7];
    struct x86_xsave fpu;
};

static uint8_t *code_rw; /* writable mapping of the page at CODE_AT */
static sigjmp_buf native_env;
static volatile int native_trap;
static struct x86_xsave native_fpu; /* as the exception left it */

static void on_fault(int sig, siginfo_t *info, void *ctx)
{
    ucontext_t *u = ctx;
    native_trap = (int)u->uc_mcontext.gregs[REG_TRAPNO];
    /* The kernel writes an XSAVE image, but for bytes 464..511 of it. */
    memcpy(&native_fpu, u->uc_mcontext.fpregs, sizeof native_fpu);
    siglongjmp(native_env, 1);
}

static void put(unsigned *at, const void *b, unsigned n)
{
    memcpy(code_rw + *at, b, n);
    *at += n;
}
#define PUT(at, ...) \
    put((at), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void put_r15(unsigned *at, unsigned reg, uint32_t disp)
{
    PUT(at, 0x87 | (reg & 7) << 3);
    put(at, &disp, 4);
}

static void put_gprs(unsigned *at, bool store)
{
    for (unsigned r = 0; r < 15; r++) {
        if (r == 4)
            continue;
        PUT(at, 0x49 | (r >> 3) << 2, store ? 0x89 : 0x8b);
        put_r15(at, r, 8 * r);
    }
}

/* Offset in the page at which an instruction of any length can be placed, with the code before it.
 */
static unsigned put_prologue(void)
{
    unsigned at = 0;
    PUT(&at, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57); /* push */
    PUT(&at, 0x49, 0x89, 0xff, 0x31, 0xd2, 0xb8, 7, 0, 0, 0); /* r15 = rdi; edx:eax = 7 */
    PUT(&at, 0x49, 0x0f, 0xae);                               /* xrstor64 */
    put_r15(&at, 5, offsetof(struct regs, fpu));
    PUT(&at, 0x41, 0xff); /* push [flags]; popf */
    put_r15(&at, 6, offsetof(struct regs, flags));
    PUT(&at, 0x9d);
    put_gprs(&at, false);
    return at;
}

static void put_epilogue(unsigned at)
{
    static const uint32_t mxcsr = 0x1f80;
    put_gprs(&at, true);
    PUT(&at, 0x9c, 0x41, 0x8f); /* pushf; pop [flags] */
    put_r15(&at, 0, offsetof(struct regs, flags));
    PUT(&at, 0x31, 0xd2, 0xb8, 7, 0, 0, 0, 0x49, 0x0f, 0xae); /* xsave64 */
    put_r15(&at, 4, offsetof(struct regs, fpu));
    PUT(&at, 0x41, 0xd9); /* fnstenv */
    put_r15(&at, 6, offsetof(struct regs, env));
    PUT(&at, 0xdb, 0xe3, 0xc5, 0xf8, 0x77, 0x68); /* fninit; vzeroupper; push mxcsr */
    put(&at, &mxcsr, 4);
    PUT(&at, 0x0f, 0xae, 0x14, 0x24, 0x58); /* ldmxcsr [rsp]; pop rax */
    PUT(&at, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);
}

static unsigned insn_off; /* of the instruction under test in the code page */

/* Vector of the exception, or -1. */
static int run_native(struct regs *r, const uint8_t *insn, unsigned len)
{
    memcpy(code_rw + insn_off, insn, len);
    put_epilogue(insn_off + len);
    native_trap = -1;
    if (sigsetjmp(native_env, 1) == 0)
        ((void (*)(struct regs *))(uintptr_t)CODE_AT)(r);
    else
        __asm__ volatile("fninit");
    return native_trap;
}

/* ---- x87 pointers on AMD's processors ----
 *
 * They keep FOP, FIP and FDP as Intel's do, but FXSAVE and XSAVE store zeros for them unless an
 * error is pending (APM vol. 2, 11.4.4). FNSTENV stores them, the lower 32 bits of addresses that
 * is. The emulation stores them always, as the SDM has it (vol. 1, 8.1.8 and 10.5.1).
 */

static bool pointers_hidden(void)
{
    static int hidden = -1;
    if (hidden < 0) {
        static struct x86_xsave in, out;
        in.fcw = X86_FCW_INIT;
        in.mxcsr = X86_MXCSR_INIT;
        in.fip = 1;
        __asm__ volatile("fxrstor64 %1; fxsave64 %0; fninit" : "=m"(out) : "m"(in));
        hidden = !out.fip;
    }
    return hidden;
}

static bool hides_now(const struct x86_xsave *f)
{
    return pointers_hidden() && !(f->fsw & X86_FSW_ES);
}

static uint64_t whole(uint32_t low, uint64_t known)
{
    return low == (uint32_t)known ? known : low;
}

/* What the instruction has set is an address below 4 GiB; the rest is known. */
static void reveal_pointers(struct regs *r, const struct x86_xsave *known)
{
    if (!hides_now(&r->fpu))
        return;
    r->fpu.fop = r->env[4] >> 16 & 0x7ff;
    r->fpu.fip = whole(r->env[3], known->fip);
    r->fpu.fdp = whole(r->env[5], known->fdp);
}

/* In what FXSAVE, XSAVE ... have stored. AMD's MXCSR_MASK has a bit 17, too (MM). */
static void reveal_saved(uint8_t *image, const struct x86_xsave *start, bool wide)
{
    if (memcmp(image + 28, "\xff\xff\x02", 4) == 0)
        image[30] = 0;
    static const uint8_t hidden[18];
    uint64_t p[2] = {wide ? start->fip : (uint32_t)start->fip,
                     wide ? start->fdp : (uint32_t)start->fdp};
    if (!hides_now(start) || memcmp(image + 6, hidden, sizeof hidden) != 0)
        return;
    memcpy(image + 6, &start->fop, 2);
    memcpy(image + 8, p, 16);
}

/* ---- the emulated side ---- */

static struct x86_cpu *cpu;
static struct ram ram;
static struct space space;
static struct x86_model model;
static sigjmp_buf cpu_env;

static uint64_t bus_read(void *ctx, gpa_t a, unsigned size)
{
    return ~0ull;
}

static void bus_write(void *ctx, gpa_t a, uint64_t v, unsigned size)
{
}

static const int signals[] = {SIGFPE, SIGILL, SIGSEGV, SIGBUS};
static struct sigaction handlers[4]; /* cmocka installs its own before each test */

static int setup(void **state)
{
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    for (unsigned n = 0; n < 4; n++)
        sigaction(signals[n], &sa, NULL);
    int fd = memfd_create("code", 0);
    assert_int_equal(ftruncate(fd, 4096), 0);
    code_rw = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    void *rx = mmap((void *)(uintptr_t)CODE_AT, 4096, PROT_READ | PROT_EXEC,
                    MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    close(fd);
    assert_ptr_equal(rx, (void *)(uintptr_t)CODE_AT);
    void *data = mmap((void *)(uintptr_t)DATA_AT, DATA_SIZE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    assert_ptr_equal(data, (void *)(uintptr_t)DATA_AT);
    insn_off = put_prologue();

    struct error e;
    unsigned id;
    cpu = aligned_alloc(64, (sizeof *cpu + 63) & ~(size_t)63);
    memset(cpu, 0, sizeof *cpu);
    assert_int_equal(ram_init(&ram, 4 * MIB, &e), 0);
    assert_int_equal(space_init(&space, 1ull << 40, &ram, &e), 0);
    assert_int_equal(space_add_ram(&space, 0, 4 * MIB, 0, 0, &id, &e), 0);
    assert_int_equal(x86_model_init(&model, 1000000000, &e), 0);
    cpu->ram = &ram;
    cpu->mem = &space;
    cpu->model = &model;
    cpu->ncpus = 1;
    atomic_store(&cpu->a20_mask, ~0ull);
    cpu->bus.mem_read = bus_read;
    cpu->bus.mem_write = bus_write;
    x86_reset(cpu, false);
    assert_int_equal(x86_native_create(cpu, &e), 0);
    for (unsigned n = 0; n < 4; n++)
        sigaction(signals[n], NULL, &handlers[n]);
    cpu->env = &cpu_env;
    /* Flat 64-bit code without paging: no processor has it, but it needs no page tables. */
    cpu->s.cr0 = X86_CR0_PE | X86_CR0_NE | X86_CR0_ET;
    cpu->s.cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    cpu->s.xcr0 = X86_XCR0_ALL;
    x86_update_mode(cpu);
    cpu->code_size = 64;
    cpu->protected_mode = true;
    cpu->lin_mask = cpu->ip_mask = cpu->sp_mask = cpu->cs_limit = ~0ull;
    for (unsigned n = 0; n <= X86_NSEG; n++)
        cpu->segc[n] = (struct x86_segc){0, X86_SEGOK_R | X86_SEGOK_W};
    return 0;
}

static int teardown(void **state)
{
    x86_native_destroy(cpu);
    space_fini(&space);
    ram_fini(&ram);
    free(cpu);
    return 0;
}

static struct x86_insn decoded;

static int run_emulated(struct regs *r)
{
    memcpy(cpu->s.gpr, r->gpr, sizeof r->gpr);
    x86_set_arith_flags(cpu, (uint32_t)r->flags);
    cpu->s.fpu = r->fpu;
    cpu->cur = &decoded;
    cpu->block_end = &decoded + 1;
    memset(cpu->native->buffer, 0xcc, sizeof cpu->native->buffer);
    volatile int trap = -1;
    if (sigsetjmp(cpu_env, 0) == 0)
        decoded.fn(cpu, &decoded);
    else
        trap = cpu->exc.vector;
    memcpy(r->gpr, cpu->s.gpr, sizeof r->gpr);
    r->flags = x86_arith_flags(cpu);
    r->fpu = cpu->s.fpu;
    return trap;
}

/* ---- random states ---- */

static uint64_t seed = 0x853c49e6748fea9bull;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1dull;
}

static unsigned pick(unsigned n)
{
    return (unsigned)((rnd() >> 33) % n);
}

static void fill(uint8_t *p, unsigned len)
{
    static const uint64_t special[] = {0,
                                       ~0ull,
                                       0x7ff0000000000000,
                                       0xfff0000000000000,
                                       0x7ff8000000000001,
                                       0x7ff0000000000001,
                                       1,
                                       0x8000000000000000,
                                       0x000fffffffffffff,
                                       0x7fefffffffffffff,
                                       0x3ff0000000000000,
                                       0x7f8000007f800001,
                                       0x7fc00000ff800000,
                                       0x00000001807fffff,
                                       0x3f800000bf800000,
                                       0x41e0000000000000,
                                       0xc1e0000000000000,
                                       0x43e0000000000000,
                                       0x7f7fffff00800000,
                                       0x3c003c017c007c01,
                                       0x0102030405060708,
                                       0x8000000080000000};
    for (unsigned n = 0; n < len; n += 8) {
        uint64_t v = rnd();
        double d;
        float f[2];
        switch (pick(5)) {
        case 0:
            v = special[pick(ARRAY_LEN(special))];
            break;
        case 1:
            d = (double)(int64_t)(v >> pick(64)) / (double)(1 + pick(1000));
            memcpy(&v, &d, 8);
            break;
        case 2:
            f[0] = (float)(int32_t)v / 16.0f;
            f[1] = (float)(int32_t)(v >> 40) * 3.0f;
            memcpy(&v, f, 8);
            break;
        case 3:
            v &= 0x3f3f3f3f3f3f3f3full >> pick(64);
            break;
        default:
            break;
        }
        memcpy(p + n, &v, len - n < 8 ? len - n : 8);
    }
}

static void fill_x87(struct x86_xsave *f)
{
    for (unsigned n = 0; n < 8; n++) {
        uint64_t man = rnd() | 1ull << 63;
        uint16_t e = (uint16_t)(0x3fff - 40 + pick(80)) | (uint16_t)(pick(2) << 15);
        switch (pick(8)) {
        case 0:
            e = (uint16_t)rnd();
            break;
        case 1:
            e |= 0x7fff;
            man = pick(2) ? 1ull << 63 : man;
            break;
        case 2:
            e &= 0x8000;
            man = pick(2) ? 0 : man;
            break;
        case 3:
            man = 1ull << 63;
            break;
        case 4:
            man &= ~0ull << 40;
            break;
        default:
            break;
        }
        memset(f->st[n], 0, 16);
        memcpy(f->st[n], &man, 8);
        memcpy(f->st[n] + 8, &e, 2);
    }
    f->fcw = (uint16_t)(0x40 | (pick(4) << 10) | (pick(8) ? 0x300 : pick(4) << 8) | 0x3f);
    if (pick(4) == 0)
        f->fcw &= (uint16_t) ~(rnd() & 0x3f);
    f->fsw = (uint16_t)(pick(8) << 11 | (rnd() & 0x4700));
    if (pick(4) == 0)
        f->fsw |= rnd() & 0x7f;
    if (f->fsw & ~f->fcw & 0x3f)
        f->fsw |= 0x8080;
    f->ftw = pick(3) ? 0xff : (uint8_t)rnd();
    f->fop = rnd() & 0x7ff;
    f->fip = rnd() & 0x7fffffffffff;
    f->fdp = rnd() & 0x7fffffffffff;
}

static void random_state(struct regs *r)
{
    memset(r, 0, sizeof *r);
    for (unsigned n = 0; n < 16; n++)
        r->gpr[n] = pick(2) ? rnd() : pick(40);
    r->flags = (rnd() & X86_FL_ARITH) | 0x202;
    fill(&r->fpu.xmm[0][0], 256);
    fill(&r->fpu.ymmh[0][0], 256);
    fill_x87(&r->fpu);
    r->fpu.mxcsr = 0x1f80 | (rnd() & 0xe07f);
    if (pick(4) == 0)
        r->fpu.mxcsr &= ~(uint32_t)(rnd() & 0x1f80);
    if (pick(3) == 0)
        r->fpu.mxcsr &= ~0x8040u;
    r->fpu.mxcsr_mask = cpu->s.fpu.mxcsr_mask;
    r->fpu.xstate_bv = 7;
}

/* ---- comparison ---- */

static unsigned mismatches, executed, faults;

static bool differs(const char *what, const void *a, const void *b, unsigned len, char *why)
{
    if (memcmp(a, b, len) == 0)
        return false;
    const uint8_t *x = a, *y = b;
    unsigned n = 0;
    while (x[n] == y[n])
        n++;
    unsigned from = n & ~7u, to = from + 16 < len ? from + 16 : len;
    char *p = why + sprintf(why, "%s+%u native", what, from);
    for (n = from; n < to; n++)
        p += sprintf(p, " %02x", x[n]);
    p += sprintf(p, " emulated");
    for (n = from; n < to; n++)
        p += sprintf(p, " %02x", y[n]);
    return true;
}

static bool states_differ(const struct regs *a, const struct regs *b, char *why)
{
    const struct x86_xsave *x = &a->fpu, *y = &b->fpu;
    uint64_t fa = a->flags & X86_FL_ARITH, fb = b->flags & X86_FL_ARITH;
    return differs("gpr", a->gpr, b->gpr, sizeof a->gpr, why) ||
           differs("flags", &fa, &fb, 8, why) || differs("x87", x, y, 24, why) ||
           differs("mxcsr", &x->mxcsr, &y->mxcsr, 4, why) ||
           differs("st", x->st, y->st, sizeof x->st, why) ||
           differs("xmm", x->xmm, y->xmm, sizeof x->xmm, why) ||
           differs("ymmh", x->ymmh, y->ymmh, sizeof x->ymmh, why);
}

static void report(const uint8_t *b, unsigned len, const char *why)
{
    char text[96] = "?";
    ZydisDisassembledInstruction di;
    if (ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, CODE_AT, b, len, &di)))
        snprintf(text, sizeof text, "%s", di.text);
    static char last[96];
    if (mismatches++ < 1000 && strcmp(last, text) != 0)
        print_message("%s: %s\n", text, why); /* the first of each form */
    memcpy(last, text, sizeof last);
}

static bool compat; /* the emulated side runs the same bytes as 32-bit code */
static bool is4; /* the last byte has a register number in bits 4..7; bit 7 counts in 64-bit code */

static bool saves; /* FXSAVE, XSAVE and relatives, and what restores */

/* One run of each side from `start`, with the memory operand's neighbourhood at `win`. */
static void compare(const uint8_t *b, unsigned len, const struct regs *start, uint64_t win)
{
    static struct regs a __attribute__((aligned(64))), e __attribute__((aligned(64)));
    static uint8_t before[WINDOW];
    uint8_t *host = (uint8_t *)(uintptr_t)win, *guest = ram.host + win;
    char why[400];
    memcpy(before, host, WINDOW);
    memcpy(guest, before, WINDOW);
    e = *start;
    e.fpu.xstate_bv = 0;
    e.gpr[4] = e.gpr[15] = 0; /* the trampoline's own */
    uint8_t nb[16];
    memcpy(nb, b, len);
    if (compat && is4)
        nb[len - 1] &= 0x7f;
    int te = run_emulated(&e), ta;
    /* Where pointers are hidden, they are lost if the system switches tasks in between. */
    unsigned tries = pointers_hidden() ? 8 : 1;
    do {
        memcpy(host, before, WINDOW);
        a = *start;
        a.gpr[4] = a.gpr[15] = 0;
        ta = run_native(&a, nb, len);
        if (ta < 0)
            reveal_pointers(&a, saves ? &e.fpu : &start->fpu);
    } while (--tries && ta == te && ta < 0 &&
             (memcmp(&a.fpu, &e.fpu, 24) != 0 || (!saves && memcmp(host, guest, WINDOW) != 0)));
    executed++;
    faults += ta >= 0;
    if (ta != te) {
        sprintf(why, "native trap %d, emulated %d", ta, te);
        report(b, len, why);
    } else if (ta >= 0) { /* the native side has not stored its registers */
        a = *start;
        a.gpr[4] = a.gpr[15] = 0;
        if (ta == X86_XM)
            a.fpu = native_fpu;
        if (hides_now(&a.fpu)) {
            a.fpu.fop = start->fpu.fop;
            a.fpu.fip = start->fpu.fip;
            a.fpu.fdp = start->fpu.fdp;
        }
    } else if (saves) {
        reveal_saved(host + start->gpr[X86_RBX] - win, &start->fpu, b[0] == 0x48);
    }
    if (ta == te && (states_differ(&a, &e, why) || differs("mem", host, guest, WINDOW, why)))
        report(b, len, why);
    memcpy(host, before, WINDOW);
}

/* ---- enumeration ---- */

static ZydisDecoder decoder, decoder32;
static bool compat; /* the emulated side runs the same bytes as 32-bit code */
static bool is4; /* the last byte has a register number in bits 4..7; bit 7 counts in 64-bit code */
static uint16_t seen[65536]; /* by hash of the form */

static bool is_ours(const ZydisDecodedInstruction *zi)
{
    switch (zi->mnemonic) {
    case ZYDIS_MNEMONIC_CRC32:
    case ZYDIS_MNEMONIC_MOVNTI:
    case ZYDIS_MNEMONIC_LFENCE:
    case ZYDIS_MNEMONIC_MFENCE:
    case ZYDIS_MNEMONIC_SFENCE:
    case ZYDIS_MNEMONIC_FEMMS:
        return false;
    case ZYDIS_MNEMONIC_UD0:
    case ZYDIS_MNEMONIC_UD1:
        return false;
    default:
        break;
    }
    if (zi->meta.isa_ext == ZYDIS_ISA_EXT_BASE || zi->meta.category == ZYDIS_CATEGORY_PREFETCH ||
        (zi->attributes & ZYDIS_ATTRIB_HAS_LOCK))
        return false;
    return x86_model_has_isa(&model, zi->meta.isa_ext, zi->meta.isa_set) &&
           zi->meta.isa_set != ZYDIS_ISA_SET_INVALID;
}

/* The trampoline's own registers. */
static bool uses_reserved(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op)
{
    for (unsigned n = 0; n < zi->operand_count_visible; n++) {
        if (op[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        ZydisRegister r =
            ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op[n].reg.value);
        if (r == ZYDIS_REGISTER_RSP || r == ZYDIS_REGISTER_R15)
            return true;
    }
    return false;
}

/* How many times this form (mnemonic and operand kinds) was met before. */
static unsigned times_seen(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op)
{
    uint32_t h = zi->mnemonic * 2654435761u + zi->encoding;
    for (unsigned n = 0; n < zi->operand_count_visible; n++) {
        h = h * 16777619u + op[n].type * 64u + op[n].size * 7u + op[n].encoding;
        if (op[n].type == ZYDIS_OPERAND_TYPE_REGISTER)
            h = h * 16777619u + ZydisRegisterGetClass(op[n].reg.value);
    }
    return seen[(h ^ h >> 16) & 0xffff]++;
}

static unsigned forms;

/* Small indices, so that a gather stays within the window. */
static void small_indices(struct regs *r, unsigned reg)
{
    for (unsigned n = 0; n < 2; n++) {
        uint64_t v = pick(30);
        memcpy(&r->fpu.xmm[reg][8 * n], &v, 8);
        v = pick(30);
        memcpy(&r->fpu.ymmh[reg][8 * n], &v, 8);
    }
}

static void try_form(const uint8_t *b, unsigned len, unsigned trials)
{
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(compat ? &decoder32 : &decoder, b, len, &zi, op)) ||
        !is_ours(&zi) || uses_reserved(&zi, op))
        return;
    if (compat &&
        (zi.mnemonic == ZYDIS_MNEMONIC_VZEROUPPER || zi.mnemonic == ZYDIS_MNEMONIC_VZEROALL))
        return; /* eight registers, not sixteen */
    bool x87 = zi.meta.category == ZYDIS_CATEGORY_X87_ALU;
    if (times_seen(&zi, op) >= (x87 ? 16u : 3u))
        return;
    forms++;
    is4 = zi.operand_count_visible == 4 && op[3].encoding == ZYDIS_OPERAND_ENCODING_IS4;
    cpu->s.gpr[X86_REG_RIP] = CODE_AT + insn_off;
    if (x86_native_full(cpu))
        x86_native_flush(cpu);
    assert_int_equal(x86_decode(cpu, b, zi.length, 0, &decoded), zi.length);
    /* AMD's processors do not ask that SHA's operand be aligned; SDM vol. 2: exception type 4. */
    bool sha_anywhere = __builtin_cpu_is("amd");
    for (unsigned n = 0; n < trials; n++) {
        struct regs start;
        random_state(&start);
        uint64_t win = DATA_AT + 0xe00; /* crosses a page in its middle */
        fill((uint8_t *)(uintptr_t)win, WINDOW);
        static const unsigned place[] = {0x40, 0x80, 0x1c0, 0x1f8, 0x1ff, 0x1f0, 0x48, 0x43};
        start.gpr[X86_RBX] = start.gpr[X86_RDI] = win + place[n % ARRAY_LEN(place)];
        if (sha_anywhere && zi.meta.isa_set == ZYDIS_ISA_SET_SHA)
            start.gpr[X86_RBX] &= ~15ull;
        small_indices(&start, 5);
        compare(b, zi.length, &start, win);
    }
}

#define TRIALS 16

/* All values of ModRM.reg with a register and a memory operand [RBX], and some immediate. */
static void try_modrm(uint8_t *b, unsigned n, bool all_rm)
{
    for (unsigned reg = 0; reg < 8; reg++) {
        static const uint8_t imm[] = {0x00, 0x07, 0x1b, 0x44, 0xa5, 0x5e, 0xff, 0x90};
        memset(b + n, imm[(reg + n + b[n - 1]) % 8], 8);
        b[n] = (uint8_t)(reg << 3 | 3);
        try_form(b, n + 9, TRIALS);
        for (unsigned rm = all_rm ? 0 : 2; rm < (all_rm ? 8 : 4); rm++) {
            b[n] = (uint8_t)(0xc0 | reg << 3 | rm);
            try_form(b, n + 9, TRIALS);
        }
    }
}

static void finish(const char *what)
{
    print_message("# %s: %u forms, %u runs (%u with a fault), %u differences\n", what, forms,
                  executed, faults, mismatches);
    assert_int_equal(mismatches, 0);
}

static void begin(void)
{
    for (unsigned n = 0; n < 4; n++)
        sigaction(signals[n], &handlers[n], NULL);
    memset(seen, 0, sizeof seen);
    forms = executed = faults = mismatches = 0;
}

static void test_legacy(void **state)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};
    static const uint8_t rexes[] = {0, 0x48, 0x45, 0x4c};
    begin();
    for (unsigned map = 1; map < 4; map++)
        for (unsigned p = 0; p < 4; p++)
            for (unsigned x = 0; x < 4; x++)
                for (unsigned opcode = 0; opcode < 256; opcode++) {
                    if (map == 1 && (opcode == 0x38 || opcode == 0x3a)) /* the other maps */
                        continue;
                    uint8_t b[24] = {0};
                    unsigned n = 0;
                    if (prefixes[p])
                        b[n++] = prefixes[p];
                    if (rexes[x])
                        b[n++] = rexes[x];
                    b[n++] = 0x0f;
                    if (map > 1)
                        b[n++] = map == 2 ? 0x38 : 0x3a;
                    b[n++] = (uint8_t)opcode;
                    /* REX.B would move the memory operand's base */
                    if (!(rexes[x] & 1)) {
                        try_modrm(b, n, false);
                        continue;
                    }
                    for (unsigned reg = 0; reg < 8; reg++) {
                        b[n] = (uint8_t)(0xc0 | reg << 3 | 2);
                        try_form(b, n + 9, TRIALS);
                    }
                }
    finish("legacy");
    assert_true(forms > 400);
}

static void test_vex(void **state)
{
    begin();
    for (unsigned map = 1; map < 4; map++)
        for (unsigned pp = 0; pp < 4; pp++)
            for (unsigned x = 0; x < 16; x++) /* W, L, vvvv, R */
                for (unsigned opcode = 0; opcode < 256; opcode++) {
                    bool gather = map == 2 && opcode >= 0x90 && opcode <= 0x93;
                    uint8_t b[24] = {0xc4};
                    unsigned vvvv = x & 4 ? 15 : ~9u & 15; /* none, or register 9 */
                    b[1] = (uint8_t)((x & 8 ? 0x60 : 0xe0) | map);
                    b[2] = (uint8_t)((x & 1) << 7 | vvvv << 3 | (x >> 1 & 1) << 2 | pp);
                    b[3] = (uint8_t)opcode;
                    if (!gather) {
                        try_modrm(b, 4, false);
                        continue;
                    }
                    b[4] = 0x14; /* register 2 */
                    b[5] = 0x6b; /* [RBX + 2 * xmm5] */
                    try_form(b, 6, TRIALS);
                }
    finish("VEX");
    assert_true(forms > 500);
}

static void test_x87(void **state)
{
    begin();
    for (unsigned opcode = 0xd8; opcode < 0xe0; opcode++)
        for (unsigned p = 0; p < 3; p++) {
            uint8_t b[24];
            unsigned n = 0;
            if (p)
                b[n++] = p == 1 ? 0x66 : 0x48;
            b[n++] = (uint8_t)opcode;
            for (unsigned modrm = 0; modrm < 256; modrm++) {
                if ((modrm & 0xc0) != 0xc0 && (modrm & 0xc7) != 3)
                    continue;
                b[n] = (uint8_t)modrm;
                try_form(b, n + 1, 40);
            }
        }
    static const uint8_t wait[] = {0x9b};
    try_form(wait, 1, TRIALS);
    finish("x87");
    assert_true(forms > 150);
}

/* The same bytes mean the same in 32-bit code if they have no REX and VEX names no high register.
 */
static void test_compat(void **state)
{
    static const uint8_t prefixes[] = {0, 0x66, 0xf2, 0xf3};
    begin();
    compat = true;
    cpu->code_size = 32;
    for (unsigned map = 1; map < 4; map++)
        for (unsigned p = 0; p < 4; p++)
            for (unsigned opcode = 0; opcode < 256; opcode++) {
                uint8_t b[24] = {0};
                unsigned n = 0;
                if (map == 1 && (opcode == 0x38 || opcode == 0x3a))
                    continue;
                if (prefixes[p])
                    b[n++] = prefixes[p];
                b[n++] = 0x0f;
                if (map > 1)
                    b[n++] = map == 2 ? 0x38 : 0x3a;
                b[n++] = (uint8_t)opcode;
                try_modrm(b, n, false);
                if (map == 2 && opcode >= 0x90 && opcode <= 0x93)
                    continue;
                for (unsigned x = 0; x < 4; x++) { /* L, vvvv */
                    uint8_t v[24] = {0xc4, (uint8_t)(0xe0 | map), 0, (uint8_t)opcode};
                    v[2] = (uint8_t)((x & 1 ? 15 : ~1u & 15) << 3 | (x >> 1) << 2 | p);
                    try_modrm(v, 4, false);
                }
            }
    compat = false;
    cpu->code_size = 64;
    finish("32-bit code");
    assert_true(forms > 900);
}

/* ---- FXSAVE, XSAVE and relatives ---- */

/* An image to restore that is valid, mostly. */
static void make_image(uint8_t *p)
{
    struct x86_xsave *f = (struct x86_xsave *)(void *)p;
    fill(p, sizeof *f);
    fill_x87(f);
    f->mxcsr = pick(8) ? 0x1f80 | (rnd() & 0xff7f) : (uint32_t)rnd();
    f->xstate_bv = pick(16) ? pick(8) : rnd();
    memset(&f->xcomp_bv, 0, 56);
    if (pick(3) == 0)
        f->xcomp_bv = 1ull << 63 | f->xstate_bv | pick(8);
    if (pick(16) == 0)
        f->rsv2[pick(6)] = 1;
}

static void init_components(struct x86_xsave *f)
{
    if (pick(2)) {
        memset(f, 0, 24);
        memset(f->st, 0, sizeof f->st);
        f->fcw = X86_FCW_INIT;
    }
    if (pick(2))
        memset(f->ymmh, 0, sizeof f->ymmh);
    if (pick(2))
        f->mxcsr = X86_MXCSR_INIT;
}

static void test_xsave(void **state)
{
    static const uint8_t op[][3] = {{0x0f, 0xae, 0x03}, {0x0f, 0xae, 0x0b}, {0x0f, 0xae, 0x23},
                                    {0x0f, 0xae, 0x2b}, {0x0f, 0xae, 0x33}, {0x0f, 0xc7, 0x23}};
    begin();
    saves = true;
    for (unsigned n = 0; n < ARRAY_LEN(op) * 2; n++) {
        uint8_t b[4] = {0x48, op[n / 2][0], op[n / 2][1], op[n / 2][2]};
        const uint8_t *insn = b + n % 2;
        unsigned len = 4 - n % 2;
        cpu->s.gpr[X86_REG_RIP] = CODE_AT + insn_off;
        assert_int_equal(x86_decode(cpu, insn, len, 0, &decoded), len);
        forms++;
        for (unsigned t = 0; t < 400; t++) {
            struct regs start;
            uint64_t win = DATA_AT + 0xe00;
            random_state(&start);
            make_image((uint8_t *)(uintptr_t)win);
            init_components(&start.fpu);
            start.gpr[X86_RBX] = win + (pick(32) ? 0 : pick(64));
            start.gpr[X86_RAX] = pick(8) ? pick(8) : rnd() & 7;
            start.gpr[X86_RDX] = 0;
            /* The processor takes for in use what XRSTOR has loaded, the emulation what differs. */
            cpu->s.fpu = start.fpu;
            start.fpu.xstate_bv = x86_xinuse(cpu);
            compare(insn, len, &start, win);
        }
    }
    saves = false;
    finish("XSAVE");
}

/* ---- what no user program can set up ---- */

static int run_bytes(const char *bytes, unsigned len)
{
    static struct regs r;
    assert_int_equal(x86_decode(cpu, (const uint8_t *)bytes, len, 0, &decoded), len);
    memset(&r, 0, sizeof r);
    r.gpr[X86_RBX] = DATA_AT;
    r.fpu = cpu->s.fpu;
    return run_emulated(&r);
}
#define RUN(b) run_bytes((b), sizeof(b) - 1)

#define MOVAPS  "\x0f\x28\x03"
#define ADDPS   "\x0f\x58\xc1"
#define PADDB   "\x0f\xfc\xc1" /* MMX */
#define VADDPS  "\xc5\xf0\x58\xc2"
#define VMOVAPS "\xc5\xf8\x28\x03"
#define FADD    "\xd8\xc1"
#define FWAIT   "\x9b"
#define LDMXCSR "\x0f\xae\x13"
#define XSAVE   "\x0f\xae\x23"
#define FXSAVE  "\x0f\xae\x03"

static void test_availability(void **state)
{
    begin();
    struct x86_state was = cpu->s;
    x86_fpu_init(cpu);
    assert_int_equal(RUN(ADDPS), -1);
    cpu->s.cr0 |= X86_CR0_TS;
    assert_int_equal(RUN(MOVAPS), X86_NM);
    assert_int_equal(RUN(ADDPS), X86_NM);
    assert_int_equal(RUN(PADDB), X86_NM);
    assert_int_equal(RUN(VADDPS), X86_NM);
    assert_int_equal(RUN(VMOVAPS), X86_NM);
    assert_int_equal(RUN(FADD), X86_NM);
    assert_int_equal(RUN(LDMXCSR), X86_NM);
    assert_int_equal(RUN(XSAVE), X86_NM);
    assert_int_equal(RUN(FXSAVE), X86_NM);
    assert_int_equal(RUN(FWAIT), -1);
    cpu->s.cr0 |= X86_CR0_MP;
    assert_int_equal(RUN(FWAIT), X86_NM);
    cpu->s.cr0 = (cpu->s.cr0 & ~(uint64_t)(X86_CR0_TS | X86_CR0_MP)) | X86_CR0_EM;
    assert_int_equal(RUN(ADDPS), X86_UD);
    assert_int_equal(RUN(MOVAPS), X86_UD);
    assert_int_equal(RUN(PADDB), X86_UD);
    assert_int_equal(RUN(FXSAVE), X86_UD);
    assert_int_equal(RUN(FADD), X86_NM);
    cpu->s.cr0 &= ~(uint64_t)X86_CR0_EM;
    cpu->s.cr4 &= ~(uint64_t)X86_CR4_OSFXSR;
    assert_int_equal(RUN(ADDPS), X86_UD);
    assert_int_equal(RUN(PADDB), -1);
    assert_int_equal(RUN(VADDPS), -1);
    cpu->s.xcr0 = X86_XCR0_X87 | X86_XCR0_SSE;
    assert_int_equal(RUN(VADDPS), X86_UD);
    cpu->s.xcr0 = X86_XCR0_ALL;
    cpu->protected_mode = false;
    assert_int_equal(RUN(VADDPS), X86_UD);
    cpu->protected_mode = true;
    cpu->s.cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
    assert_int_equal(RUN(VADDPS), X86_UD);
    assert_int_equal(RUN(XSAVE), X86_UD);
    cpu->s = was;

    /* An unmasked SIMD error (1/0) is #UD if the system is not ready for #XM. */
    cpu->s.fpu.mxcsr = 0;
    memset(cpu->s.fpu.xmm, 0, sizeof cpu->s.fpu.xmm);
    cpu->s.fpu.xmm[0][3] = 0x3f;
    assert_int_equal(RUN("\x0f\x5e\xc1"), X86_XM);
    cpu->s.cr4 &= ~(uint64_t)X86_CR4_OSXMMEXCPT;
    assert_int_equal(RUN("\x0f\x5e\xc1"), X86_UD);
    cpu->s = was;
    /* Not offered: EVEX, SSE4a, 3DNow, XOP; and LOCK. */
    assert_false(x86_model_has_isa(&model, ZYDIS_ISA_EXT_AVX512EVEX, ZYDIS_ISA_SET_AVX512F_128));
    assert_false(x86_model_has_isa(&model, ZYDIS_ISA_EXT_SSE4A, ZYDIS_ISA_SET_SSE4A));
    assert_int_equal(RUN("\x62\xf1\x74\x08\x58\xc2"), X86_UD);
}

static int ferr_level;
static void ferr(void *ctx, bool level)
{
    ferr_level = level;
}

static void test_ferr(void **state)
{
    begin();
    struct x86_state was = cpu->s;
    cpu->ferr.fn = ferr;
    cpu->s.cr0 &= ~(uint64_t)X86_CR0_NE;
    cpu->s.gpr[X86_REG_RIP] = CODE_AT;
    x86_fpu_init(cpu);
    cpu->s.fpu.fcw = 0x37e;          /* invalid operation unmasked */
    assert_int_equal(RUN(FADD), -1); /* both registers are empty */
    assert_true(cpu->s.fpu.fsw & X86_FSW_ES);
    assert_int_equal(ferr_level, 0);
    uint16_t fsw = cpu->s.fpu.fsw;
    cpu->s.rip = CODE_AT + 2;
    assert_int_equal(RUN(FADD), -1); /* waits for the interrupt: at the same address again */
    assert_int_equal(ferr_level, 1);
    assert_int_equal(cpu->s.rip, CODE_AT);
    assert_int_equal(cpu->s.fpu.fsw, fsw);
    x86_set_ignne(cpu, true);
    cpu->s.rip = CODE_AT + 2;
    assert_int_equal(RUN("\xd9\xe8"), -1); /* FLD1 */
    assert_int_equal(cpu->s.rip, CODE_AT + 2);
    assert_int_equal(cpu->s.fpu.fsw >> 11 & 7, 7);
    assert_true(cpu->s.fpu.fsw & X86_FSW_ES);
    assert_int_equal(RUN("\xdb\xe2"), -1); /* FNCLEX */
    assert_int_equal(ferr_level, 0);
    assert_false(cpu->ferr.ignne);
    cpu->s.cr0 |= X86_CR0_NE;
    cpu->s.fpu.fcw = 0x37e;
    cpu->s.fpu.fsw = 0x8081;
    assert_int_equal(RUN(FADD), X86_MF);
    assert_int_equal(RUN("\xdb\xe3"), -1); /* FNINIT does not wait */
    cpu->ferr.fn = NULL;
    cpu->s = was;
}

/* 40,000 different PSHUFDs: the arena reports in time that it is full, and works after a flush. */
static void test_arena_full(void **state)
{
    begin();
    unsigned made = 0, flushes = 0;
    for (unsigned n = 0; n < 40000; n++) {
        uint8_t rex = (uint8_t)(0x40 | (n >> 14 & 1) << 2 | (n >> 15 & 1));
        uint8_t b[] = {0x66, rex, 0x0f, 0x70, (uint8_t)(0xc0 | (n >> 8 & 63)), (uint8_t)n};
        if (x86_native_full(cpu)) {
            x86_native_flush(cpu);
            flushes++;
        }
        assert_int_equal(x86_decode(cpu, b, sizeof b, 0, &decoded), sizeof b);
        made += decoded.ext != NULL;
    }
    assert_int_equal(made, 40000);
    assert_true(flushes > 1);
    assert_int_equal(RUN(ADDPS), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_legacy), cmocka_unit_test(test_vex),
        cmocka_unit_test(test_x87),    cmocka_unit_test(test_compat),
        cmocka_unit_test(test_xsave),  cmocka_unit_test(test_availability),
        cmocka_unit_test(test_ferr),   cmocka_unit_test(test_arena_full),
    };
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    ZydisDecoderInit(&decoder32, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
    return cmocka_run_group_tests(tests, setup, teardown);
}
