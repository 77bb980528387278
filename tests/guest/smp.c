/*
 * smp.c - several processors: start-up, atomicity, ordering, code modification, TLB shoot-down,
 * interrupts between processors (SDM volume 3, chapters 8 and 10).
 */
#include "mem.h"
#include "platform.h"

#define CPUS        4
#define ROUNDS      20000u
#define PAGE_ROUNDS 2000u

static unsigned rounds = ROUNDS;
static uint8_t arena[8192] __attribute__((aligned(4096)));

static void together(void (*fn)(void *), void *arg)
{
    for (unsigned n = 1; n < cpus_started(); n++)
        cpu_call(n, fn, arg);
    fn(arg);
    for (unsigned n = 1; n < cpus_started(); n++)
        cpu_wait(n);
}

TEST(startup, "smp: INIT and SIPI start the other processors")
{
    apic_enable();
    uint32_t r[4];
    cpuid(1, 0, r);
    IS(rdmsr(0x1b) >> 8 & 1, 1); /* BSP */
    cpus_start(CPUS);
    IS(cpus_started(), CPUS);
}

static volatile uint32_t ap_ids[CPUS], ap_bsp[CPUS], ap_cr0[CPUS];

static void identify(void *arg)
{
    unsigned id = apic_read(APIC_ID) >> 24;
    (void)arg;
    ap_ids[id] = id + 1;
    ap_bsp[id] = rdmsr(0x1b) >> 8 & 1;
    ap_cr0[id] = (uint32_t)get_cr0();
}

TEST(identity, "smp: each processor has its APIC id; one is the BSP")
{
    together(identify, NULL);
    for (unsigned n = 0; n < CPUS; n++) {
        IS(ap_ids[n], n + 1);
        IS(ap_bsp[n], n == 0);
    }
    uint32_t r[4];
    cpuid(0xb, 1, r);
    IS(r[1] & 0xffff, CPUS);
}

/* ---- atomicity ---- */

#define LOCKED_LOOP(fn, insn)                                                                 \
    static void fn(void *arg)                                                                 \
    {                                                                                         \
        for (unsigned n = 0; n < rounds; n++)                                                 \
            __asm__ volatile(insn : : "r"(arg) : "memory", "cc", "rax", "rcx", "rdx", "rbx"); \
    }

LOCKED_LOOP(inc32, "lock incl (%0)")
LOCKED_LOOP(inc64, "lock incq (%0)")
LOCKED_LOOP(add8, "lock addb $1, (%0)")
LOCKED_LOOP(add16, "lock addw $1, (%0)")
LOCKED_LOOP(xadd, "mov $1, %%eax; lock xadd %%eax, (%0)")
LOCKED_LOOP(cmpxchg, "mov (%0), %%eax; 1: lea 1(%%rax), %%ecx; lock cmpxchg %%ecx, (%0); jne 1b")
LOCKED_LOOP(cmpxchg8b, "mov (%0), %%eax; mov 4(%0), %%edx; 1: mov %%eax, %%ebx; mov %%edx, %%ecx; "
                       "add $1, %%ebx; adc $0, %%ecx; lock cmpxchg8b (%0); jne 1b")
LOCKED_LOOP(cmpxchg16b, "mov (%0), %%rax; mov 8(%0), %%rdx; 1: mov %%rax, %%rbx; mov %%rdx, %%rcx; "
                        "add $1, %%rbx; adc $1, %%rcx; lock cmpxchg16b (%0); jne 1b")
LOCKED_LOOP(xchg_lock, "1: mov $1, %%eax; xchg %%eax, 64(%0); test %%eax, %%eax; jz 2f; pause; "
                       "jmp 1b; 2: incl (%0); movl $0, 64(%0)")
LOCKED_LOOP(bts_lock, "1: lock btsl $5, 64(%0); jnc 2f; pause; jmp 1b; 2: incl (%0); "
                      "lock btrl $5, 64(%0)")

static uint32_t run_locked(void (*fn)(void *), unsigned offset)
{
    memset(arena, 0, sizeof arena);
    together(fn, arena + offset);
    uint32_t v;
    memcpy(&v, arena + offset, 4);
    return v;
}

TEST(locked, "smp: LOCKed instructions are atomic")
{
    IS(run_locked(inc32, 0), CPUS * ROUNDS);
    IS(run_locked(inc64, 0), CPUS * ROUNDS);
    IS(run_locked(add8, 0), CPUS * ROUNDS & 0xff);
    IS(run_locked(add16, 0), CPUS * ROUNDS & 0xffff);
    IS(run_locked(xadd, 0), CPUS * ROUNDS);
    IS(run_locked(cmpxchg, 0), CPUS * ROUNDS);
    IS(run_locked(cmpxchg8b, 0), CPUS * ROUNDS);
    IS(run_locked(cmpxchg16b, 0), CPUS * ROUNDS);
    uint64_t high;
    memcpy(&high, arena + 8, 8);
    IS(high, CPUS * ROUNDS);
    IS(run_locked(xchg_lock, 0), CPUS * ROUNDS);
    IS(run_locked(bts_lock, 0), CPUS * ROUNDS);
}

/* Within a page, an access across cache lines would be one on the host too, and some hosts stop a
 * thread for seconds for it ("split lock detection"): only accesses across pages are tried here. */
TEST(split_page, "smp: LOCKed instructions across pages")
{
    rounds = PAGE_ROUNDS;
    IS(run_locked(inc32, 4094), CPUS * PAGE_ROUNDS);
    IS(run_locked(inc64, 4093), CPUS * PAGE_ROUNDS);
    IS(run_locked(xadd, 4095), CPUS * PAGE_ROUNDS);
    IS(run_locked(cmpxchg, 4093), CPUS * PAGE_ROUNDS);
    IS(run_locked(cmpxchg8b, 4092), CPUS * PAGE_ROUNDS);
}

/* ---- memory order ---- */

static volatile uint64_t words[32] __attribute__((aligned(64)));
static volatile unsigned torn, reordered;

static void tear(void *arg)
{
    unsigned me = apic_read(APIC_ID) >> 24;
    (void)arg;
    for (unsigned n = 0; n < ROUNDS; n++) {
        if (me & 1)
            words[0] = n & 1 ? ~0ull : 0;
        else if (words[0] + 1 > 1)
            torn = 1;
    }
}

static void message(void *arg) /* stores are seen in order, loads are done in order (8.2.2) */
{
    unsigned me = apic_read(APIC_ID) >> 24;
    (void)arg;
    if (me > 1)
        return;
    for (unsigned n = 1; n <= ROUNDS; n++) {
        if (me) {
            words[0] = n;
            words[16] = n;
        } else {
            uint64_t b = words[16], a = words[0];
            if (a < b)
                reordered = 1;
        }
    }
}

TEST(ordering, "smp: aligned stores are whole, and in order")
{
    words[0] = 0;
    together(tear, NULL);
    IS(torn, 0);
    words[0] = words[16] = 0;
    together(message, NULL);
    IS(reordered, 0);
}

static volatile unsigned ready_x, ready_y, both_zero;
static volatile uint32_t box_x, box_y, saw_x, saw_y;

static void dekker(void *arg)
{
    unsigned me = apic_read(APIC_ID) >> 24;
    (void)arg;
    if (me > 1)
        return;
    for (unsigned n = 1; n <= 2000; n++) {
        if (me == 0) {
            box_x = box_y = 0;
            ready_x = n;
            while (ready_y != n)
                pause();
            box_x = 1;
            __asm__ volatile("mfence" : : : "memory");
            saw_y = box_y;
            ready_x = n | 1u << 31;
            while (ready_y != (n | 1u << 31))
                pause();
            if (!saw_x && !saw_y)
                both_zero = 1;
        } else {
            while (ready_x != n)
                pause();
            ready_y = n;
            box_y = 1;
            __asm__ volatile("lock orl $0, (%%rsp)" : : : "memory", "cc");
            saw_x = box_x;
            while (ready_x != (n | 1u << 31))
                pause();
            ready_y = n | 1u << 31;
        }
    }
}

TEST(fences, "smp: MFENCE and LOCK order a store before a load")
{
    together(dekker, NULL);
    IS(both_zero, 0);
}

static volatile uint64_t tsc_last, tsc_end;
static volatile unsigned tsc_lock, warps;

static uint64_t tsc_ordered(void)
{
    __asm__ volatile("lfence" : : : "memory");
    return rdtsc();
}

/* One after the other reads it, and never less than the one before. */
static void read_tsc(void *arg)
{
    (void)arg;
    while (tsc_last < tsc_end) {
        while (__atomic_exchange_n(&tsc_lock, 1, __ATOMIC_SEQ_CST))
            pause();
        uint64_t now = tsc_ordered();
        warps += now < tsc_last;
        tsc_last = now;
        __atomic_store_n(&tsc_lock, 0, __ATOMIC_SEQ_CST);
    }
}

TEST(one_tsc, "smp: the TSC is the same on all processors, and never goes back")
{
    uint32_t r[4];
    cpuid(0x15, 0, r); /* ECX: crystal in Hz; one tick each */
    OK(r[2] >= 1000000);
    tsc_end = rdtsc() + r[2] / 10;
    together(read_tsc, NULL);
    IS(warps, 0);
}

/* ---- code ---- */

static uint8_t code[4096] __attribute__((aligned(4096)));
static volatile unsigned stage, wrong;

static void run_code(void *arg)
{
    (void)arg;
    for (unsigned n = 1; n <= 200; n++) {
        while (stage != n)
            pause();
        uint32_t a, b, c, d = 0;
        __asm__ volatile("cpuid"
                         : "=a"(a), "=b"(b), "=c"(c), "+d"(d)
                         : "a"(0), "c"(0)); /* serialize */
        uint32_t v;
        __asm__ volatile("call *%1" : "=a"(v) : "r"(code) : "memory");
        if (v != n)
            wrong++;
        stage = 0;
    }
}

TEST(cross_modify, "smp: code that another processor has written (8.1.3)")
{
    memcpy(code, "\xb8\x00\x00\x00\x00\xc3", 6); /* MOV EAX, imm32; RET */
    stage = 0;
    cpu_call(1, run_code, NULL);
    for (uint32_t n = 1; n <= 200; n++) {
        memcpy(code + 1, &n, 4);
        __atomic_store_n(&stage, n, __ATOMIC_SEQ_CST);
        while (stage)
            pause();
    }
    cpu_wait(1);
    IS(wrong, 0);
}

static volatile unsigned stop;

static void spin_in_code(void *arg)
{
    uint32_t v;
    (void)arg;
    __asm__ volatile("call *%1" : "=a"(v) : "r"(code) : "memory");
    if (v != 0x55)
        wrong++;
    stage = 2;
}

TEST(cross_jump, "smp: a loop that another processor opens by rewriting its jump")
{
    wrong = 0;
    stage = 1;
    memcpy(code, "\xf3\x90\xeb\xfc\xb8\x55\x00\x00\x00\xc3", 10); /* PAUSE; JMP -4; MOV; RET */
    cpu_call(1, spin_in_code, NULL);
    wait_us(2000);
    IS(stage, 1);
    *(volatile uint8_t *)(code + 3) = 0; /* JMP +0 */
    for (unsigned n = 0; n < 1000 && stage == 1; n++)
        wait_us(1000);
    IS(stage, 2);
    if (stage == 2)
        cpu_wait(1);
    IS(wrong, 0);
}

TEST(self_modify, "smp: code that writes itself: the next instruction, the same line, another page")
{
    uint32_t v;
    /* MOVB $9, 1(RIP..): changes the immediate of the MOV EAX that follows at once. */
    static const uint8_t program[] = {0xc6, 0x05, 0x01, 0x00, 0x00,
                                      0x00, 0x09,                   /* movb $9, 1(%rip) */
                                      0xb8, 0x01, 0x00, 0x00, 0x00, /* mov $1, %eax */
                                      0xc3};
    memcpy(code, program, sizeof program);
    __asm__ volatile("call *%1" : "=a"(v) : "r"(code) : "memory");
    IS(v, 9);
    /* A loop whose body is incremented: INCB of the immediate, five times. */
    static const uint8_t loop[] = {0xb9, 0x05, 0,    0,    0,          /* mov $5, %ecx */
                                   0x31, 0xc0,                         /* xor %eax, %eax */
                                   0x83, 0xc0, 0x01,                   /* 1: add $1, %eax */
                                   0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff, /* incb -7(%rip) */
                                   0xff, 0xc9,                         /* dec %ecx */
                                   0x75, 0xf3,                         /* jne 1b */
                                   0xc3};
    memcpy(code, loop, sizeof loop);
    __asm__ volatile("call *%1" : "=a"(v) : "r"(code) : "memory", "ecx", "cc");
    IS(v, 1 + 2 + 3 + 4 + 5);
    /* Through another linear address */
    map_page(TEST_VA, (ulong)code, P_P | P_W);
    memcpy((void *)TEST_VA, "\xb8\x21\x00\x00\x00\xc3", 6);
    __asm__ volatile("call *%1" : "=a"(v) : "r"(code) : "memory");
    IS(v, 0x21);
    *(volatile uint8_t *)(TEST_VA + 1) = 0x22;
    __asm__ volatile("call *%1" : "=a"(v) : "r"(code) : "memory");
    IS(v, 0x22);
    /* By REP STOSB over it */
    void *di = code;
    ulong cx = 5;
    __asm__ volatile("rep stosb" : "+D"(di), "+c"(cx) : "a"(0x90) : "memory");
    v = 0x33;
    __asm__ volatile("call *%1" : "+a"(v) : "r"(code) : "memory");
    IS(v, 0x33);
}

/* Each processor has a function of its own at 256 * its number, and all have one at 2048. */
static volatile unsigned busy;

static uint32_t call_code(unsigned at)
{
    uint32_t v;
    __asm__ volatile("call *%1" : "=a"(v) : "r"(code + at) : "memory");
    return v;
}

static void modify_own(void *arg)
{
    unsigned at = 256 * (apic_read(APIC_ID) >> 24), bad = 0;
    (void)arg;
    for (uint32_t n = 1; n <= 3 * PAGE_ROUNDS; n++) {
        *(volatile uint32_t *)(code + at + 1) = n;
        bad += call_code(at) != n;
        if (n % 3 == 0)
            call_code(2048);
    }
    __atomic_fetch_add(&wrong, bad, __ATOMIC_SEQ_CST);
    __atomic_fetch_sub(&busy, 1, __ATOMIC_SEQ_CST);
}

TEST(modify_same_page, "smp: each processor modifies code of its own in one page")
{
    for (unsigned n = 0; n < sizeof code / 256; n++)
        memcpy(code + 256 * n, "\xb8\x00\x00\x00\x00\xc3", 6); /* MOV EAX, imm32; RET */
    wrong = 0;
    busy = CPUS - 1;
    for (unsigned n = 1; n < CPUS; n++)
        cpu_call(n, modify_own, NULL);
    for (uint32_t n = 1; busy; n++)
        *(volatile uint32_t *)(code + 2049) = n;
    for (unsigned n = 1; n < CPUS; n++)
        cpu_wait(n);
    IS(wrong, 0);
}

/* ---- interrupts between processors ---- */

static volatile unsigned ipis[CPUS], flushed;

static void on_ipi(struct frame *f)
{
    (void)f;
    __atomic_fetch_add(&ipis[apic_read(APIC_ID) >> 24], 1, __ATOMIC_SEQ_CST);
    apic_eoi();
}

/* Only wakes a processor that is told to stop. It may come when the next round already listens. */
static void on_wake(struct frame *f)
{
    (void)f;
    apic_eoi();
}

static void listen(void *arg)
{
    (void)arg;
    sti();
    while (!stop)
        pause();
    cli();
}

static void listen_halted(void *arg)
{
    (void)arg;
    while (!stop) {
        cli();
        if (!stop)
            __asm__ volatile("sti; hlt; cli" : : : "memory");
    }
}

static void all_listen(void (*fn)(void *))
{
    stop = 0;
    memset((void *)(ulong)ipis, 0, sizeof ipis);
    for (unsigned n = 1; n < CPUS; n++)
        cpu_call(n, fn, NULL);
    wait_us(3000);
}

static void all_stop(void)
{
    stop = 1;
    apic_write(APIC_ICR, 0xc4000 | 0x61);
    for (unsigned n = 1; n < CPUS; n++)
        cpu_wait(n);
}

TEST(ipi, "smp: IPIs: physical, logical, shorthands")
{
    set_handler(0x60, on_ipi);
    set_handler(0x61, on_wake);
    for (unsigned round = 0; round < 2; round++) {
        all_listen(round ? listen_halted : listen);
        apic_ipi(2, 0x4000 | 0x60);
        wait_for(&ipis[2], 1, 5000000);
        IS(ipis[2], 1);
        IS(ipis[1] + ipis[3], 0);
        apic_write(APIC_ICR, 0xc4000 | 0x60); /* all but self */
        for (unsigned n = 1; n < CPUS; n++)
            wait_for(&ipis[n], n == 2 ? 2 : 1, 5000000);
        IS(ipis[0], 0);
        IS(ipis[1], 1);
        IS(ipis[2], 2);
        IS(ipis[3], 1);
        apic_write(APIC_ICR, 0x84000 | 0x60); /* all */
        wait_for(&ipis[0], 1, 5000000);
        for (unsigned n = 1; n < CPUS; n++)
            wait_for(&ipis[n], n == 2 ? 3 : 2, 5000000);
        IS(ipis[0], 1);
        IS(ipis[3], 2);
        all_stop();
    }
}

static void on_flush(struct frame *f)
{
    (void)f;
    invlpg((void *)TEST_VA);
    __atomic_fetch_add(&flushed, 1, __ATOMIC_SEQ_CST);
    apic_eoi();
}

static volatile unsigned stale, page_gone;

static void read_page(void *arg)
{
    (void)arg;
    sti();
    while (!stop) {
        unsigned gone = page_gone;
        uint32_t v = *(volatile uint32_t *)TEST_VA;
        if (v < gone)
            stale++;
    }
    cli();
}

TEST(shootdown, "smp: TLB shoot-down")
{
    set_handler(0x62, on_flush);
    uint32_t *pages[2] = {page_alloc(), page_alloc()};
    map_page(TEST_VA, (ulong)pages[0], P_P | P_W);
    stop = stale = page_gone = 0;
    for (unsigned n = 1; n < CPUS; n++)
        cpu_call(n, read_page, NULL);
    for (uint32_t n = 1; n <= 50; n++) {
        *(volatile uint32_t *)pages[n & 1] = n;
        *entry_of(TEST_VA, 1) = (ulong)pages[n & 1] | P_P | P_W;
        flushed = 0;
        apic_write(APIC_ICR, 0xc4000 | 0x62);
        OK(wait_for(&flushed, CPUS - 1, 5000000));
        page_gone = n; /* from now on nobody may see an older one */
    }
    stop = 1;
    for (unsigned n = 1; n < CPUS; n++)
        cpu_wait(n);
    IS(stale, 0);
}

static volatile unsigned restarted;

static void ap_again(void)
{
    restarted++;
    for (;;)
        __asm__ volatile("cli; hlt");
}

void set_ap_entry(void (*fn)(void), ulong stack);

TEST(init_again, "smp: INIT stops a running processor; SIPI without INIT is ignored")
{
    stop = 0;
    cpu_call(3, listen, NULL);
    wait_us(1000);
    set_ap_entry(ap_again, (ulong)page_alloc() + 4080);
    apic_ipi(3, 0x4608);
    wait_us(2000);
    IS(restarted, 0); /* it runs: a SIPI means nothing to it */
    apic_ipi(3, 0x4500);
    wait_us(1000);
    memset((void *)(ulong)ipis, 0, sizeof ipis);
    apic_ipi(3, 0x4000 | 0x60); /* waiting for SIPI: no interrupts */
    wait_us(2000);
    IS(ipis[3], 0);
    apic_ipi(3, 0x4608);
    wait_for(&restarted, 1, 5000000);
    apic_ipi(3, 0x4608); /* a second one is ignored */
    wait_us(1000);
    IS(restarted, 1);
}
