/*
 * guest.c - the kernel's start, its descriptor tables, traps, the report of the tests.
 */
#include "guest.h"

#include "mem.h"

/* ---- report ---- */

#define COM1 0x3f8

static void put(char ch)
{
    while (!(inb(COM1 + 5) & 0x20))
        pause();
    outb(COM1, (uint8_t)ch);
}

static void say(const char *s)
{
    while (*s)
        put(*s++);
}

static void say_number(uint64_t v)
{
    char buf[20];
    unsigned n = 0;
    do
        buf[n++] = "0123456789abcdef"[v & 15];
    while (v >>= 4);
    say("0x");
    while (n)
        put(buf[--n]);
}

static void say_decimal(unsigned v)
{
    if (v >= 10)
        say_decimal(v / 10);
    put((char)('0' + v % 10));
}

static struct {
    const char *what, *skip;
    uint64_t got, want;
    int line;
    unsigned more;
} failure;

void check_equal(const char *what, uint64_t got, uint64_t want, int line)
{
    if (got == want)
        return;
    if (failure.what) {
        failure.more++;
        return;
    }
    failure.what = what;
    failure.got = got;
    failure.want = want;
    failure.line = line;
}

void skip(const char *why)
{
    failure.skip = why;
}

void note(const char *text, uint64_t value)
{
    say("# ");
    say(text);
    put(' ');
    say_number(value);
    put('\n');
}

static void report(const struct test *t)
{
    say(failure.what ? "not ok " : "ok ");
    say(t->name);
    if (failure.skip && !failure.what) {
        say(" # SKIP ");
        say(failure.skip);
    }
    if (failure.what) {
        say(": line ");
        say_decimal((unsigned)failure.line);
        say(": ");
        say(failure.what);
        say(" is ");
        say_number(failure.got);
        say(", not ");
        say_number(failure.want);
        if (failure.more) {
            say("; differences more: ");
            say_decimal(failure.more);
        }
    }
    put('\n');
}

_Noreturn void power_off(void)
{
    outw(0x604, 0x2000); /* SLP_TYP 0: S5; SLP_EN */
    for (;;)
        __asm__ volatile("cli; hlt");
}

void *memset(void *p, int c, size_t n)
{
    void *d = p;
    __asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
    return p;
}

void *memcpy(void *p, const void *q, size_t n)
{
    void *d = p;
    __asm__ volatile("rep movsb" : "+D"(d), "+S"(q), "+c"(n) : : "memory");
    return p;
}

/* ---- descriptor tables ---- */

uint64_t gdt[GDT_LEN] __attribute__((aligned(16)));
uint64_t idt[256 * sizeof(ulong) / 4] __attribute__((aligned(16)));
uint8_t tss[0x68 + 8192 + 40] __attribute__((aligned(4096)));
extern const char trap_entries[];
#define TRAP_STACK 8192
static uint8_t trap_stack[TRAP_STACK] __attribute__((aligned(16)));
uint8_t *const trap_stack_top = trap_stack + TRAP_STACK;

uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 |
           (uint64_t)(base >> 24) << 56;
}

void set_gate(unsigned vector, unsigned dpl, unsigned type, unsigned ist)
{
    uint64_t ip = (ulong)trap_entries + 16 * vector;
    uint64_t *g = &idt[vector * (sizeof(ulong) / 4)];
    g[0] = (ip & 0xffff) | K_CS << 16 | (uint64_t)ist << 32 |
           (uint64_t)(0x80 | dpl << 5 | type) << 40 | (ip >> 16 & 0xffff) << 48;
    if (sizeof(ulong) == 8)
        g[1] = ip >> 32;
}

void set_kernel_stack(ulong sp)
{
    memcpy(tss + 4, &sp, sizeof sp);
    if (sizeof(ulong) == 4) {
        uint32_t ss = K_DS;
        memcpy(tss + 8, &ss, 4);
    }
}

static void load_tables(void)
{
    struct dtr g = {sizeof gdt - 1, (ulong)gdt}, i = {sizeof idt - 1, (ulong)idt};
    __asm__ volatile("lgdt %0; lidt %1" : : "m"(g), "m"(i));
    __asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss; mov %0, %%fs; mov %0, %%gs"
                     :
                     : "r"(K_DS));
}

static void make_tables(void)
{
    gdt[K_CS32 / 8] = descriptor(0, 0xfffff, 0x9b, 0xc);
    gdt[K_CS64 / 8] = descriptor(0, 0xfffff, 0x9b, 0xa);
    gdt[K_DS / 8] = descriptor(0, 0xfffff, 0x93, 0xc);
    gdt[U_CS32 / 8] = descriptor(0, 0xfffff, 0xfb, 0xc);
    gdt[U_DS / 8] = gdt[0x38 / 8] = descriptor(0, 0xfffff, 0xf3, 0xc);
    gdt[U_CS64 / 8] = descriptor(0, 0xfffff, 0xfb, 0xa);
    gdt[K_TSS / 8] = descriptor((uint32_t)(ulong)tss, sizeof tss - 1, 0x89, 0);
    for (unsigned v = 0; v < 256; v++)
        set_gate(v, v == 0x80 ? 3 : 0, GATE_INT, 0);
    set_kernel_stack((ulong)trap_stack + TRAP_STACK);
    uint16_t iomap = TSS_IOMAP;
    memcpy(tss + 0x66, &iomap, 2);
    memset(tss + TSS_IOMAP, 0xff, sizeof tss - TSS_IOMAP);
    load_tables();
    __asm__ volatile("ltr %w0" : : "r"(K_TSS));
}

/* ---- traps ---- */

struct frame trap;
ulong trap_cr2, trap_dr6, trap_resume, trap_sp, run_sp;
static bool run_active;
static handler_fn *handlers[256];
static uint8_t run_stack[4096] __attribute__((aligned(16)));

unsigned run_enter(struct frame *f);
_Noreturn void run_leave(unsigned vector);
void trap_dispatch(struct frame *f);
void kmain(void);
void ap_main(void);

void set_handler(unsigned vector, handler_fn *fn)
{
    handlers[vector] = fn;
}

static _Noreturn void die(const struct frame *f)
{
    say("not ok kernel: unexpected trap\n");
    note("vector", f->vector);
    note("error", f->error);
    note("ip", f->ip);
    note("cs", f->cs);
    note("flags", f->flags);
    note("cr2", get_cr2());
    power_off();
}

void trap_dispatch(struct frame *f)
{
    if (handlers[f->vector]) {
        handlers[f->vector](f);
        return;
    }
    if (!trap_resume && !run_active)
        die(f);
    /* Without a change of privilege, 32-bit frames end at EFLAGS, maybe at the end of memory. */
    bool whole = sizeof(ulong) == 8 || (f->cs & 3) || (f->flags & FL_VM);
    memcpy(&trap, f, whole ? sizeof trap : offsetof(struct frame, sp));
    trap_cr2 = get_cr2();
    trap_dr6 = get_dr6();
    if (!trap_resume) {
        run_active = false;
        run_leave((unsigned)f->vector);
    }
    f->ip = trap_resume;
    f->cs = K_CS;
    f->flags &= ~(ulong)(FL_TF | FL_RF | FL_AC | FL_NT);
#ifdef __x86_64__
    f->sp = trap_sp;
    f->ss = K_DS;
#endif
    trap_resume = 0;
}

unsigned run_frame(const struct frame *f)
{
    struct frame *copy = (struct frame *)(run_stack + sizeof run_stack) - 1;
    memcpy(copy, f, sizeof *f);
    run_active = true;
    return run_enter(copy);
}

/* ---- start ---- */

extern const struct test tests_begin[], tests_end[];

void kmain(void)
{
    outb(0x21, 0xff); /* legacy interrupt controllers: all masked */
    outb(0xa1, 0xff);
    make_tables();
    mem_init();
    say("plan ");
    say_decimal((unsigned)(tests_end - tests_begin));
    put('\n');
    for (const struct test *t = tests_begin; t < tests_end; t++) {
        memset(&failure, 0, sizeof failure);
        t->run();
        report(t);
    }
    say("end\n");
    power_off();
}

/* ---- other processors ---- */

ulong ap_stack, ap_cr3;
static void (*volatile ap_entry)(void);

void set_ap_entry(void (*fn)(void), ulong stack)
{
    ap_entry = fn;
    ap_stack = stack;
    ap_cr3 = get_cr3();
}

void ap_main(void)
{
    load_tables();
    ap_entry();
}
