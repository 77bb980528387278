/*
 * atomics.c - several processors on the same memory: LOCKed instructions under contention, aligned
 * and not, and litmus tests of the memory order (SDM volume 3, 8.1.2 and 8.2).
 *
 * A litmus test is a few instructions for each of two or four processors, executed at about the
 * same time on thousands of slots. Outcomes that x86-TSO forbids must never occur; that one occurs
 * which it allows (store buffering without a fence) is noted, since it shows that they really race.
 */
#include "mem.h"
#include "platform.h"

#define CPUS   4
#define ROUNDS 10000u

static uint8_t arena[8192] __attribute__((aligned(4096)));
static unsigned rounds;

static void together(unsigned cpus, void (*fn)(void *), void *arg)
{
    for (unsigned n = 1; n < cpus; n++)
        cpu_call(n, fn, arg);
    fn(arg);
    for (unsigned n = 1; n < cpus; n++)
        cpu_wait(n);
}

static unsigned me(void)
{
    return apic_read(APIC_ID) >> 24;
}

TEST(startup, "atomics: four processors")
{
    apic_enable();
    cpus_start(CPUS);
    IS(cpus_started(), CPUS);
}

/* ---- contention ---- */

/* RDI: the operand, ECX: the number of the processor; others are free. */
#define LOOP(fn, insn)                                                                  \
    static void fn(void *arg)                                                           \
    {                                                                                   \
        for (unsigned n = 0; n < rounds; n++) {                                         \
            ulong cpu = me_cached();                                                    \
            __asm__ volatile(insn                                                       \
                             : "+c"(cpu)                                                \
                             : "D"(arg)                                                 \
                             : "memory", "cc", "rax", "rdx", "rbx", "rsi", "r8", "r9"); \
        }                                                                               \
    }

/* The stack tells the processor: reading the APIC each time would serialize them. */
static ulong stack_page[CPUS];

static unsigned me_cached(void)
{
    ulong sp = (ulong)__builtin_frame_address(0) >> 12;
    for (unsigned n = 0; n < CPUS; n++)
        if (stack_page[n] == sp)
            return n;
    unsigned n = me();
    stack_page[n] = sp;
    return n;
}

/* Each adds 1 in a round. */
LOOP(add8, "lock addb $1, (%%rdi)")
LOOP(add16, "lock addw $1, (%%rdi)")
LOOP(add32, "lock addl $1, (%%rdi)")
LOOP(add64, "mov $1, %%eax; lock addq %%rax, (%%rdi)")
LOOP(inc8, "lock incb (%%rdi)")
LOOP(inc16, "lock incw (%%rdi)")
LOOP(inc64, "lock incq (%%rdi)")
LOOP(sub32, "lock subl $-1, (%%rdi)")
LOOP(dec32, "lock decl (%%rdi); lock addl $2, (%%rdi)")
LOOP(adc32, "stc; lock adcl $0, (%%rdi)")
LOOP(sbb64, "stc; lock sbbq $-2, (%%rdi)")
LOOP(xadd8, "mov $1, %%al; lock xaddb %%al, (%%rdi)")
LOOP(xadd16, "mov $1, %%eax; lock xaddw %%ax, (%%rdi)")
LOOP(xadd32, "mov $1, %%eax; lock xaddl %%eax, (%%rdi)")
LOOP(xadd64, "mov $1, %%eax; lock xaddq %%rax, (%%rdi)")
LOOP(cmpxchg8, "movb (%%rdi), %%al; 1: lea 1(%%rax), %%edx; lock cmpxchgb %%dl, (%%rdi); jne 1b")
LOOP(cmpxchg16, "movw (%%rdi), %%ax; 1: lea 1(%%rax), %%edx; lock cmpxchgw %%dx, (%%rdi); jne 1b")
LOOP(cmpxchg32, "mov (%%rdi), %%eax; 1: lea 1(%%rax), %%edx; lock cmpxchgl %%edx, (%%rdi); jne 1b")
LOOP(cmpxchg64, "mov (%%rdi), %%rax; 1: lea 1(%%rax), %%rdx; lock cmpxchgq %%rdx, (%%rdi); jne 1b")
LOOP(cmpxchg8b, "mov (%%rdi), %%eax; mov 4(%%rdi), %%edx; 1: mov %%eax, %%ebx; mov %%edx, %%ecx;"
                "add $1, %%ebx; adc $0, %%ecx; lock cmpxchg8b (%%rdi); jne 1b")
/* A lock of a byte beside the operand; (RDI) is changed by an ordinary instruction. */
LOOP(xchg8, "1: mov $1, %%al; xchgb %%al, 64(%%rdi); test %%al, %%al; jz 2f; pause; jmp 1b;"
            "2: incl (%%rdi); movb $0, 64(%%rdi)")
LOOP(xchg16, "1: mov $1, %%eax; xchgw %%ax, 64(%%rdi); test %%ax, %%ax; jz 2f; pause; jmp 1b;"
             "2: incl (%%rdi); movw $0, 64(%%rdi)")
LOOP(xchg64, "1: mov $1, %%eax; xchgq %%rax, 64(%%rdi); test %%rax, %%rax; jz 2f; pause; jmp 1b;"
             "2: incl (%%rdi); movq $0, 64(%%rdi)")
LOOP(bts16, "1: lock btsw $15, 64(%%rdi); jnc 2f; pause; jmp 1b; 2: incl (%%rdi);"
            "lock btrw $15, 64(%%rdi)")
LOOP(bts64, "mov $77, %%edx; 1: lock btsq %%rdx, 64(%%rdi); jnc 2f; pause; jmp 1b; 2: incl (%%rdi);"
            "lock btrq %%rdx, 64(%%rdi)")
LOOP(ticket, "mov $1, %%eax; lock xaddl %%eax, 64(%%rdi); 1: cmp %%eax, 128(%%rdi); je 2f; pause;"
             "jmp 1b; 2: incl (%%rdi); incl 128(%%rdi)")

static const struct {
    void (*fn)(void *);
    uint8_t size; /* of the operand */
} counters[] = {
    {add8, 1},      {add16, 2},     {add32, 4},  {add64, 8},    {inc8, 1},      {inc16, 2},
    {inc64, 8},     {sub32, 4},     {dec32, 4},  {adc32, 4},    {sbb64, 8},     {xadd8, 1},
    {xadd16, 2},    {xadd32, 4},    {xadd64, 8}, {cmpxchg8, 1}, {cmpxchg16, 2}, {cmpxchg32, 4},
    {cmpxchg64, 8}, {cmpxchg8b, 8}, {xchg8, 4},  {xchg16, 4},   {xchg64, 4},    {bts16, 4},
    {bts64, 4},     {ticket, 4},
};
#define COUNTERS (sizeof counters / sizeof counters[0])
#define LOCKS    6 /* the last of them, which do not like what is beside them to be misaligned */

static uint64_t count(unsigned k, unsigned offset)
{
    uint64_t v = 0;
    memset(arena, 0, sizeof arena);
    together(CPUS, counters[k].fn, arena + offset);
    memcpy(&v, arena + offset, counters[k].size);
    /* Nothing beside the operand has changed. */
    for (unsigned n = 0; k < COUNTERS - LOCKS && n < 16; n++)
        if (n >= counters[k].size)
            OK(arena[offset + n] == 0);
    return v;
}

static void count_all(unsigned offset, unsigned how_many)
{
    for (unsigned k = 0; k < how_many; k++) {
        uint64_t want = CPUS * rounds;
        if (counters[k].size < 4)
            want &= (1u << 8 * counters[k].size) - 1;
        IS(count(k, offset), want);
    }
}

TEST(aligned, "atomics: four processors count by LOCKed instructions")
{
    rounds = ROUNDS;
    count_all(0, COUNTERS);
}

TEST(in_line, "atomics: the same, misaligned within a cache line")
{
    rounds = ROUNDS / 4;
    count_all(64 + 3, COUNTERS - LOCKS);
    count_all(64 + 49, COUNTERS - LOCKS);
}

/* Some hosts slow a thread down by milliseconds for each of these ("split lock detection"). */
TEST(across_lines, "atomics: the same, across cache lines")
{
    static const uint8_t some[] = {2, 3, 14, 19}; /* ADD 32 and 64, XADD 64, CMPXCHG8B */
    rounds = 25;
    for (unsigned k = 0; k < sizeof some; k++)
        IS(count(some[k], 128 - 3 - (some[k] > 2)), CPUS * rounds);
}

TEST(across_pages, "atomics: the same, across pages")
{
    rounds = ROUNDS / 10;
    for (unsigned k = 0; k < COUNTERS - LOCKS; k++)
        if (counters[k].size > 1)
            IS(count(k, 4096 - counters[k].size / 2),
               (CPUS * rounds) & (counters[k].size == 2 ? 0xffff : ~0ull));
}

LOOP(cmpxchg16b, "mov (%%rdi), %%rax; mov 8(%%rdi), %%rdx; 1: mov %%rax, %%rbx; mov %%rdx, %%rcx;"
                 "add $1, %%rbx; lea 3(%%rdx), %%rcx; lock cmpxchg16b (%%rdi); jne 1b")

TEST(sixteen, "atomics: CMPXCHG16B")
{
    rounds = ROUNDS;
    memset(arena, 0, sizeof arena);
    together(CPUS, cmpxchg16b, arena + 48);
    uint64_t v[2];
    memcpy(v, arena + 48, 16);
    IS(v[0], CPUS * ROUNDS);
    IS(v[1], 3 * CPUS * ROUNDS);
}

/* Each has bits of its own in one word: what another does may not undo them. */
LOOP(own_bits, "lea 8(%%rcx), %%edx; lock btcl %%edx, (%%rdi); mov $1, %%eax; shl %%cl, %%eax;"
               "lock xorl %%eax, (%%rdi); lock orl %%eax, 4(%%rdi); not %%eax;"
               "lock andl %%eax, 8(%%rdi); lock notl 16(%%rdi); lock negl 20(%%rdi)")

TEST(bits, "atomics: AND, OR, XOR, NOT, NEG, BTC")
{
    rounds = ROUNDS; /* even */
    memset(arena, 0, sizeof arena);
    uint32_t *w = (uint32_t *)(void *)arena;
    w[2] = ~0u;
    w[4] = 0x12345678;
    w[5] = 0x12345678;
    together(CPUS, own_bits, arena);
    IS(w[0], 0);
    IS(w[1], 0xf);
    IS(w[2], ~0xfu);
    IS(w[4], 0x12345678);
    IS(w[5], 0x12345678);
}

/* ---- memory order ---- */

#define SLOTS   512
#define BATCHES 12

struct slot {
    volatile uint32_t x, pad_x[15], y, pad_y[15], r[8], pad_r[8];
} __attribute__((aligned(64)));
static struct slot slots[SLOTS];

struct litmus {
    void (*thread[CPUS])(struct slot *s);
    bool (*forbidden)(const struct slot *s);
    unsigned cpus;
};

static const struct litmus *litmus;
static volatile unsigned arrived, seen;

/* All `cpus` processors have come so far; `turn` counts from 1. */
static void meet(unsigned cpus, unsigned turn)
{
    __atomic_fetch_add(&arrived, 1, __ATOMIC_SEQ_CST);
    while (arrived < cpus * turn)
        pause();
}

static void check_slots(void)
{
    for (unsigned n = 0; n < SLOTS; n++)
        seen += litmus->forbidden(&slots[n]);
    memset(slots, 0, sizeof slots);
}

static void race(void *arg)
{
    unsigned cpu = me(), cpus = litmus->cpus, turn = 0;
    void (*thread)(struct slot *) = litmus->thread[cpu];
    (void)arg;
    for (unsigned b = 0; b < BATCHES; b++) {
        meet(cpus, ++turn);
        for (unsigned n = 0; n < SLOTS; n++)
            thread(&slots[n]);
        meet(cpus, ++turn);
        if (cpu == 0)
            check_slots();
    }
}

/* How often the outcome occurred. */
static unsigned run(const struct litmus *l)
{
    litmus = l;
    arrived = seen = 0;
    memset(slots, 0, sizeof slots);
    together(l->cpus, race, NULL);
    return seen;
}

/* RDI: X at 0, Y at 64, results from 128 on. EAX and EDX are free. */
#define THREAD(fn, code)                                                  \
    static void fn(struct slot *s)                                        \
    {                                                                     \
        __asm__ volatile(code : : "D"(s) : "memory", "cc", "rax", "rdx"); \
    }
#define LOCKED_OP "lock orl $0, -8(%%rsp);"

THREAD(sb_0, "movl $1, (%%rdi); movl 64(%%rdi), %%eax; movl %%eax, 128(%%rdi)")
THREAD(sb_1, "movl $1, 64(%%rdi); movl (%%rdi), %%eax; movl %%eax, 132(%%rdi)")
THREAD(sb_fence_0, "movl $1, (%%rdi); mfence; movl 64(%%rdi), %%eax; movl %%eax, 128(%%rdi)")
THREAD(sb_fence_1, "movl $1, 64(%%rdi); mfence; movl (%%rdi), %%eax; movl %%eax, 132(%%rdi)")
THREAD(sb_lock_0, "movl $1, (%%rdi);" LOCKED_OP "movl 64(%%rdi), %%eax; movl %%eax, 128(%%rdi)")
THREAD(sb_lock_1, "movl $1, 64(%%rdi);" LOCKED_OP "movl (%%rdi), %%eax; movl %%eax, 132(%%rdi)")
THREAD(sb_xchg_0, "mov $1, %%edx; xchgl %%edx, (%%rdi); movl 64(%%rdi), %%eax;"
                  "movl %%eax, 128(%%rdi)")
THREAD(sb_xchg_1, "mov $1, %%edx; xchgl %%edx, 64(%%rdi); movl (%%rdi), %%eax;"
                  "movl %%eax, 132(%%rdi)")
THREAD(mp_0, "movl $1, (%%rdi); movl $1, 64(%%rdi)")
THREAD(mp_1, "movl 64(%%rdi), %%eax; movl (%%rdi), %%edx; movl %%eax, 128(%%rdi);"
             "movl %%edx, 132(%%rdi)")
THREAD(lb_0, "movl (%%rdi), %%eax; movl $1, 64(%%rdi); movl %%eax, 128(%%rdi)")
THREAD(lb_1, "movl 64(%%rdi), %%eax; movl $1, (%%rdi); movl %%eax, 132(%%rdi)")
THREAD(ww_0, "movl $1, (%%rdi); movl $2, 64(%%rdi)")
THREAD(ww_1, "movl $1, 64(%%rdi); movl $2, (%%rdi)")
THREAD(corr_0, "movl $1, (%%rdi)")
THREAD(corr_1, "movl (%%rdi), %%eax; movl (%%rdi), %%edx; movl %%eax, 128(%%rdi);"
               "movl %%edx, 132(%%rdi)")
/* The own store is seen at once, the other's later: allowed, but not to both (SDM 8.2.3.5). */
THREAD(own_0, "movl $1, (%%rdi); movl (%%rdi), %%eax; movl %%eax, 128(%%rdi)")
THREAD(own_1, "movl $2, (%%rdi); movl (%%rdi), %%eax; movl %%eax, 132(%%rdi)")
THREAD(iriw_0, "movl $1, (%%rdi)")
THREAD(iriw_1, "movl $1, 64(%%rdi)")
THREAD(iriw_2, "movl (%%rdi), %%eax; movl 64(%%rdi), %%edx; movl %%eax, 128(%%rdi);"
               "movl %%edx, 132(%%rdi)")
THREAD(iriw_3, "movl 64(%%rdi), %%eax; movl (%%rdi), %%edx; movl %%eax, 136(%%rdi);"
               "movl %%edx, 140(%%rdi)")
THREAD(stos_0, "push %%rdi; lea 64(%%rdi), %%rdx; mov $1, %%eax; stosl; mov %%rdx, %%rdi; stosl;"
               "pop %%rdi")

static bool both_zero(const struct slot *s)
{
    return !s->r[0] && !s->r[1];
}
static bool late(const struct slot *s)
{
    return s->r[0] && !s->r[1];
}
static bool both_one(const struct slot *s)
{
    return s->r[0] && s->r[1];
}
static bool first_writes(const struct slot *s)
{
    return s->x == 1 && s->y == 1;
}
static bool lost(const struct slot *s)
{
    return !s->r[0] || !s->r[1] || (s->r[0] == 2 && s->r[1] == 1);
}
static bool two_orders(const struct slot *s)
{
    return s->r[0] && !s->r[1] && s->r[2] && !s->r[3];
}

TEST(store_buffering, "atomics: a store passes a load only without a fence (8.2.3.4)")
{
    static const struct litmus plain = {{sb_0, sb_1}, both_zero, 2},
                               fence = {{sb_fence_0, sb_fence_1}, both_zero, 2},
                               lock = {{sb_lock_0, sb_lock_1}, both_zero, 2},
                               xchg = {{sb_xchg_0, sb_xchg_1}, both_zero, 2};
    note("store buffering, seen without a fence:", run(&plain));
    IS(run(&fence), 0);
    IS(run(&lock), 0);
    IS(run(&xchg), 0);
}

TEST(message_passing, "atomics: stores in order, loads in order (8.2.3.2)")
{
    static const struct litmus mp = {{mp_0, mp_1}, late, 2}, stos = {{stos_0, mp_1}, late, 2};
    IS(run(&mp), 0);
    IS(run(&stos), 0);
}

TEST(load_buffering, "atomics: a store does not pass an older load (8.2.3.3)")
{
    static const struct litmus lb = {{lb_0, lb_1}, both_one, 2};
    IS(run(&lb), 0);
}

TEST(coherence, "atomics: one order of stores to a location (8.2.3.5, 8.2.3.6)")
{
    static const struct litmus ww = {{ww_0, ww_1}, first_writes, 2},
                               corr = {{corr_0, corr_1}, late, 2}, own = {{own_0, own_1}, lost, 2};
    IS(run(&ww), 0);
    IS(run(&corr), 0);
    IS(run(&own), 0);
}

TEST(iriw, "atomics: two processors agree on the order of stores by others (8.2.3.7)")
{
    static const struct litmus l = {{iriw_0, iriw_1, iriw_2, iriw_3}, two_orders, 4};
    IS(run(&l), 0);
}
