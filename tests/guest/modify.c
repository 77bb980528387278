/*
 * modify.c - random programs that change themselves and are changed by another processor, against a
 * model of them (SDM volume 3, 8.1.3).
 *
 * A program is a row of items, each one instruction; most are `op reg, imm32`. Others change what
 * such an item does, or what they themselves do: by ordinary stores, locked ones, REP MOVSB. A
 * write counts from the next instruction on. Items lie across cache lines and pages, and data lies
 * among them.
 */
#include "mem.h"
#include "platform.h"

#define ITEMS  160u
#define REGS   16u
#define ROUNDS 100u
#define CALLS  4u /* of a program before another one is made */
#define AREA   8192u

enum kind {
    PLAIN,   /* REX 81 /op reg, imm32 */
    SET_IMM, /* MOV dword [item's imm], imm32 */
    SET_OP,  /* MOV byte [item's ModRM], imm8 */
    XOR_IMM, /* LOCK XOR dword [item's imm], imm32 */
    ADD_REG, /* ADD [item's imm], reg */
    COPY,    /* REP MOVSB: one PLAIN item over another */
    SKIP,    /* TEST EAX, imm32; JNZ over the next item */
    DATA,    /* JMP over a counter; INC of it */
    NKINDS,
};

struct item {
    enum kind kind;
    uint8_t *at;     /* its first byte */
    uint8_t *imm_at; /* of imm */
    unsigned len, to, from;
    /* what a PLAIN item does at present, and any item's constant */
    unsigned rex, modrm;
    uint32_t imm;
};

struct program {
    struct item item[ITEMS + 1];
    uint8_t *end;
    uint32_t reg[REGS];  /* the processor's: before, then after a call */
    uint32_t want[REGS]; /* the model's */
};

static uint8_t area[2 * AREA] __attribute__((aligned(4096)));
static struct program programs[2];

static uint64_t random_state;

static uint32_t rnd(void)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 32);
}

static unsigned below(unsigned n)
{
    return (unsigned)((uint64_t)rnd() * n >> 32);
}

/* ---- making ---- */

static const uint8_t low_regs[] = {0, 2, 3, 5}; /* RSP is the stack, RCX, RSI, RDI are COPY's */
static const uint8_t ops[] = {0, 1, 4, 5, 6};   /* ADD, OR, AND, SUB, XOR */

static unsigned random_modrm(bool high)
{
    unsigned reg = high ? below(8) : low_regs[below(4)];
    return 0xc0 | (unsigned)ops[below(5)] << 3 | reg;
}

static uint8_t *emit(uint8_t *p, const char *bytes, unsigned n)
{
    memcpy(p, bytes, n);
    return p + n;
}

static uint8_t *emit32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
    return p + 4;
}

/* disp32 of [RIP + disp] to `to`, if `more` bytes of the instruction follow it. */
static uint8_t *emit_rel(uint8_t *p, const uint8_t *to, unsigned more)
{
    return emit32(p, (uint32_t)(to - (p + 4 + more)));
}

static unsigned length_of(enum kind k)
{
    static const uint8_t length[NKINDS] = {7, 10, 7, 11, 7, 21, 7, 12};
    return length[k];
}

static unsigned imm_offset(enum kind k)
{
    static const uint8_t offset[NKINDS] = {3, 6, 6, 7, 0, 15, 1, 2};
    return offset[k];
}

static void write_item(struct program *g, struct item *i)
{
    uint8_t *p = i->at;
    const struct item *to = &g->item[i->to];
    switch (i->kind) {
    case PLAIN:
        *p++ = (uint8_t)i->rex;
        *p++ = 0x81;
        *p++ = (uint8_t)i->modrm;
        emit32(p, i->imm);
        break;
    case SET_IMM:
        emit32(emit_rel(emit(p, "\xc7\x05", 2), to->imm_at, 4), i->imm);
        break;
    case SET_OP:
        *emit_rel(emit(p, "\xc6\x05", 2), to->at + 2, 1) = (uint8_t)i->imm;
        break;
    case XOR_IMM:
        emit32(emit_rel(emit(p, "\xf0\x81\x35", 3), to->imm_at, 4), i->imm);
        break;
    case ADD_REG: /* R8D + n */
        p = emit(p, "\x44\x01", 2);
        *p++ = (uint8_t)(0x05 | (i->imm & 7) << 3);
        emit_rel(p, to->imm_at, 0);
        break;
    case COPY:
        p = emit_rel(emit(p, "\x48\x8d\x35", 3), g->item[i->from].at, 0);
        p = emit_rel(emit(p, "\x48\x8d\x3d", 3), to->at, 0);
        emit(emit32(emit(p, "\xb9", 1), 7), "\xf3\xa4", 2);
        break;
    case SKIP:
        p = emit32(emit(p, "\xa9", 1), i->imm);
        *p++ = 0x75;
        *p = (uint8_t)i[1].len;
        break;
    default: /* JMP +4; counter; INC dword [counter] */
        emit_rel(emit(emit32(emit(p, "\xeb\x04", 2), i->imm), "\xff\x05", 2), i->imm_at, 0);
        break;
    }
}

/* An item that the constant of may be changed by others: not a length, not a byte. */
static bool may_change(const struct item *i)
{
    return i->kind == PLAIN || i->kind == SET_IMM || i->kind == XOR_IMM || i->kind == SKIP;
}

static unsigned target(const struct program *g, bool plain)
{
    for (;;) {
        unsigned n = below(ITEMS);
        if (plain ? g->item[n].kind == PLAIN : may_change(&g->item[n]))
            return n;
    }
}

static void choose_kinds(struct program *g)
{
    for (unsigned n = 0; n < ITEMS; n++) {
        struct item *i = &g->item[n];
        *i = (struct item){.kind = n < 4 || below(100) < 55 ? PLAIN : below(NKINDS)};
        i->rex = 0x40 | (rnd() & 1);
        i->modrm = random_modrm(i->rex & 1);
        i->imm = rnd();
        i->len = length_of(i->kind);
    }
    g->item[ITEMS - 1].kind = PLAIN;
    g->item[ITEMS - 1].len = length_of(PLAIN);
}

static void make_program(struct program *g, uint8_t *at)
{
    choose_kinds(g);
    for (unsigned n = 0; n < ITEMS; n++) {
        struct item *i = &g->item[n];
        i->at = at;
        i->imm_at = at + imm_offset(i->kind);
        at += i->len;
    }
    for (unsigned n = 0; n < ITEMS; n++) {
        struct item *i = &g->item[n];
        i->to = target(g, i->kind == SET_OP || i->kind == COPY);
        i->from = target(g, true);
        if (i->kind == SET_OP)
            i->imm = random_modrm(false);
    }
    for (unsigned n = 0; n < ITEMS; n++)
        write_item(g, &g->item[n]);
    *at = 0xc3;
    g->end = at + 1;
}

/* ---- the model ---- */

static void model_plain(uint32_t *reg, const struct item *i)
{
    uint32_t *r = &reg[(i->modrm & 7) | (i->rex & 1) << 3];
    switch (i->modrm >> 3 & 7) {
    case 0:
        *r += i->imm;
        break;
    case 1:
        *r |= i->imm;
        break;
    case 4:
        *r &= i->imm;
        break;
    case 5:
        *r -= i->imm;
        break;
    default:
        *r ^= i->imm;
        break;
    }
}

/* Returns true if the next item is skipped. */
static bool model_item(struct program *g, struct item *i)
{
    struct item *to = &g->item[i->to];
    const struct item *from = &g->item[i->from];
    switch (i->kind) {
    case PLAIN:
        model_plain(g->want, i);
        break;
    case SET_IMM:
        to->imm = i->imm;
        break;
    case SET_OP:
        to->modrm = i->imm;
        break;
    case XOR_IMM:
        to->imm ^= i->imm;
        break;
    case ADD_REG:
        to->imm += g->want[8 + (i->imm & 7)];
        break;
    case COPY:
        to->rex = from->rex;
        to->modrm = from->modrm;
        to->imm = from->imm;
        break;
    case SKIP:
        return g->want[0] & i->imm;
    default:
        i->imm++;
        break;
    }
    return false;
}

static void model_call(struct program *g)
{
    for (unsigned n = 0; n < ITEMS; n++)
        n += model_item(g, &g->item[n]);
}

/* ---- the processor ---- */

/* All registers but RCX, RSP, RSI, RDI from reg[] and back to it. */
__asm__(".globl call_program\n"
        "call_program:\n\t" /* RDI: code, RSI: reg */
        "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15; push %rsi\n\t"
        "mov %rdi, %rcx\n\t"
        "mov (%rsi), %eax; mov 8(%rsi), %edx; mov 12(%rsi), %ebx; mov 20(%rsi), %ebp\n\t"
        "mov 32(%rsi), %r8d; mov 36(%rsi), %r9d; mov 40(%rsi), %r10d; mov 44(%rsi), %r11d\n\t"
        "mov 48(%rsi), %r12d; mov 52(%rsi), %r13d; mov 56(%rsi), %r14d; mov 60(%rsi), %r15d\n\t"
        "call *%rcx\n\t"
        "pop %rsi\n\t"
        "mov %eax, (%rsi); mov %edx, 8(%rsi); mov %ebx, 12(%rsi); mov %ebp, 20(%rsi)\n\t"
        "mov %r8d, 32(%rsi); mov %r9d, 36(%rsi); mov %r10d, 40(%rsi); mov %r11d, 44(%rsi)\n\t"
        "mov %r12d, 48(%rsi); mov %r13d, 52(%rsi); mov %r14d, 56(%rsi); mov %r15d, 60(%rsi)\n\t"
        "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n\t"
        "ret\n");
void call_program(const void *code, uint32_t *reg);

static void set_registers(struct program *g)
{
    for (unsigned n = 0; n < REGS; n++)
        g->reg[n] = g->want[n] = n == 1 || n == 4 || n == 6 || n == 7 ? 0 : rnd();
}

/* Number of registers that are not what they should be. */
static unsigned differences(const struct program *g)
{
    unsigned bad = 0;
    for (unsigned n = 0; n < REGS; n++)
        bad += g->reg[n] != g->want[n];
    return bad;
}

static unsigned run(struct program *g)
{
    set_registers(g);
    call_program(g->item[0].at, g->reg);
    model_call(g);
    return differences(g);
}

/* As the program's own items do it, by this processor's stores. */
static void change(struct program *g)
{
    for (unsigned k = below(8); k; k--) {
        struct item *i = &g->item[target(g, false)];
        i->imm = rnd();
        memcpy(i->imm_at, &i->imm, 4);
        i = &g->item[target(g, true)];
        i->modrm = random_modrm(i->rex & 1);
        i->at[2] = (uint8_t)i->modrm;
    }
}

static uint8_t *somewhere(unsigned part)
{
    return area + part * AREA + below(AREA / 2);
}

TEST(seed, "modify: a seed")
{
    random_state = rdtsc();
    note("seed", random_state);
}

TEST(itself, "modify: programs that change themselves, and are changed between two calls")
{
    unsigned bad = 0;
    for (unsigned n = 0; n < ROUNDS; n++) {
        make_program(&programs[0], somewhere(0));
        for (unsigned k = 0; k < CALLS; k++) {
            bad += run(&programs[0]);
            change(&programs[0]);
        }
    }
    IS(bad, 0);
}

/* ---- two processors ---- */

static volatile unsigned ticket;

/* Calls a program each time it is told to: serializes, then executes what is there. */
static void serve(void *arg)
{
    struct program *g = arg;
    for (unsigned n = 1; n <= ROUNDS * CALLS; n++) {
        uint32_t r[4];
        while (ticket != n)
            pause();
        cpuid(0, 0, r);
        call_program(g->item[0].at, g->reg);
        __atomic_store_n(&ticket, 0, __ATOMIC_SEQ_CST);
    }
}

TEST(another, "modify: programs that another processor has changed")
{
    struct program *g = &programs[0];
    unsigned bad = 0;
    cpus_start(2);
    make_program(g, somewhere(0));
    cpu_call(1, serve, g);
    for (unsigned n = 1; n <= ROUNDS * CALLS; n++) {
        if (n % CALLS == 0)
            make_program(g, somewhere(0));
        change(g);
        set_registers(g);
        __atomic_store_n(&ticket, n, __ATOMIC_SEQ_CST);
        model_call(g);
        while (ticket)
            pause();
        bad += differences(g);
    }
    cpu_wait(1);
    IS(bad, 0);
}

static volatile unsigned neighbour_bad;

static void neighbour(void *arg)
{
    struct program *g = arg;
    for (unsigned n = 0; n < ROUNDS; n++)
        neighbour_bad += run(g);
}

TEST(neighbours, "modify: two processors, each with a program of its own, in the same pages")
{
    unsigned bad = 0;
    for (unsigned n = 0; n < 4; n++) {
        make_program(&programs[0], somewhere(0));
        make_program(&programs[1], programs[0].end);
        cpu_call(1, neighbour, &programs[1]);
        neighbour(&programs[0]);
        cpu_wait(1);
    }
    bad = neighbour_bad;
    IS(bad, 0);
}
