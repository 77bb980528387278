/*
 * torture.c - blocks of random instructions, and interrupts at random moments, with caches of code
 * that are full all the time: each translation compared with the interpreter (engine lockstep).
 *
 * A block's instructions are those of the differential test. What they address is mostly in the
 * data pages, or nearly; an instruction that faults ends its block. Branches lead to instructions
 * of the block, forward and back. Block n of a seed is always the same; what the caches hold, and
 * when an interrupt comes, is not.
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "diff.h"
#include "engine/lockstep/lockstep.h"

#define INSNS_MAX 40u
#define BLOCK_MAX (INSNS_MAX * 64u)

#ifdef __SANITIZE_ADDRESS__
#define BLOCKS_LEAST 1000u
#else
#define BLOCKS_LEAST 10000u
#endif

struct torture {
    uint64_t seed, first;
    double seconds;
    uint64_t blocks; /* 0: as many as there is time for */
    struct form *form;
    unsigned nform[NMODES], start[NMODES];
    struct guest *guest;
    struct pool pool;
    _Atomic bool end;
};

/* A block in the making. */
struct block {
    enum diff_mode mode;
    struct rng g;
    uint8_t code[BLOCK_MAX];
    unsigned len, count;
    unsigned at[INSNS_MAX]; /* where each instruction starts */
    struct {
        unsigned at, size; /* of a relative displacement */
    } branch[INSNS_MAX];
    unsigned nbranch;
};

static void put(struct block *b, const void *p, unsigned n)
{
    memcpy(b->code + b->len, p, n);
    b->len += n;
}

/* MOV reg, imm: flags stay. */
static void put_mov(struct block *b, unsigned reg, uint64_t v)
{
    uint8_t op = (uint8_t)(0xb8 | (reg & 7));
    if (b->mode == MODE_64) {
        uint8_t rex = (uint8_t)(0x48 | reg >> 3);
        put(b, &rex, 1);
    } else if (b->mode == MODE_16) {
        put(b, "\x66", 1);
    }
    put(b, &op, 1);
    put(b, &v, b->mode == MODE_64 ? 8 : 4);
}

static bool gpr_of(ZydisRegister r, unsigned *n)
{
    ZydisRegisterClass c = ZydisRegisterGetClass(r);
    *n = (unsigned)ZydisRegisterGetId(r);
    return c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 || c == ZYDIS_REGCLASS_GPR64;
}

/* Near the data pages more often than not in them all. */
static uint64_t data_address(struct block *b)
{
    uint64_t v = DATA_AT + rnd_n(&b->g, DATA_SIZE);
    if (rnd_pct(&b->g, 60))
        v = DATA_AT + rnd_n(&b->g, DATA_RW * 4096 - 64);
    if (rnd_pct(&b->g, 50))
        v &= ~63ull;
    return b->mode == MODE_16 ? v - DATA_SEG : v;
}

/* Loads the registers of the address. */
static void aim(struct block *b, const struct insn *i)
{
    for (unsigned n = 0; n < i->zi.operand_count; n++) {
        const ZydisDecodedOperand *o = &i->op[n];
        unsigned base, index;
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
            continue;
        if (gpr_of(o->mem.index, &index))
            put_mov(b, index, rnd_n(&b->g, 8));
        if (gpr_of(o->mem.base, &base))
            put_mov(b, base,
                    data_address(b) -
                        (uint64_t)(o->mem.disp.has_displacement ? o->mem.disp.value : 0));
    }
    if (i->zi.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        put_mov(b, X86_RCX, rnd_n(&b->g, 20));
}

static void add_insn(struct block *b, const struct torture *t)
{
    struct input in;
    struct insn i;
    const struct form *f = &t->form[t->start[b->mode] + rnd_n(&b->g, t->nform[b->mode])];
    if (f->cls == CLASS_SYS && rnd_pct(&b->g, 80))
        return; /* most of them fault */
    encode_case(f, &b->g, &in, &i);
    if (rnd_pct(&b->g, 92))
        aim(b, &i);
    for (unsigned n = 0; n < 2; n++)
        if (i.zi.raw.imm[n].is_relative && i.zi.raw.imm[n].size) {
            b->branch[b->nbranch].at = b->len + i.zi.raw.imm[n].offset;
            b->branch[b->nbranch++].size = i.zi.raw.imm[n].size / 8;
        }
    put(b, in.code, in.len);
}

/* The displacement is the last part of its instruction. */
static void fix_branches(struct block *b)
{
    for (unsigned n = 0; n < b->nbranch; n++) {
        unsigned end = b->branch[n].at + b->branch[n].size;
        int32_t d = (int32_t)b->at[rnd_n(&b->g, b->count)] - (int32_t)end;
        if (rnd_pct(&b->g, 70) && d < 0)
            d = (int32_t)(b->len - end); /* to the end */
        if (b->branch[n].size == 1 && (d < -128 || d > 127))
            d = 0;
        memcpy(b->code + b->branch[n].at, &d, b->branch[n].size);
    }
}

static void make_block(struct block *b, const struct torture *t, uint64_t number, struct input *in)
{
    struct insn first;
    memset(b, 0, sizeof *b);
    b->g.s = t->seed + number * 0x9e3779b97f4a7c15ull;
    b->mode = (enum diff_mode)(rnd_pct(&b->g, 60) ? MODE_64 : 1 + rnd_n(&b->g, 2));
    make_case(&t->form[t->start[b->mode]], &b->g, in, &first);
    in->r.rflags &= ~(uint64_t)X86_FL_TF;
    in->npatch = 0;
    unsigned want = 1 + rnd_n(&b->g, INSNS_MAX);
    while (b->count < want) {
        b->at[b->count++] = b->len;
        add_insn(b, t);
    }
    fix_branches(b);
    /* Anywhere, and often across the end of the page. */
    in->code_off = rnd_n(&b->g, 4096);
    if (rnd_pct(&b->g, 40))
        in->code_off = 4096 - rnd_n(&b->g, min_u64(b->len + 1, 4096));
    in->r.rip = in->code_off + (b->mode == MODE_16 ? 0 : CODE_AT);
}

/* ---- the run ---- */

static void *interrupt(void *arg)
{
    struct torture *t = arg;
    struct rng g = {t->seed};
    while (!t->end) {
        struct timespec ts = {.tv_nsec = 10000 + rnd_n(&g, 300000)};
        nanosleep(&ts, NULL);
        atomic_fetch_or(&guest_cpu(t->guest)->pending, X86_PEND_INTR);
    }
    return NULL;
}

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void choose_forms(struct torture *t)
{
    unsigned room = 0, count = 0, kept = 0;
    for (unsigned m = 0; m < NMODES; m++)
        t->form = forms_enumerate((enum diff_mode)m, t->form, &count, &room);
    for (unsigned k = 0; k < count; k++) {
        const struct form f = t->form[k];
        if (!guest_offers(t->guest, &f))
            continue;
        if (!t->nform[f.mode]++)
            t->start[f.mode] = kept;
        t->form[kept++] = f;
    }
}

#define HEAT        3
#define HOT_AT_ONCE (-1)

/* Number of blocks. *failed: the engines differ in the last one. */
static uint64_t run(struct torture *t, bool *failed)
{
    double end = now() + t->seconds;
    uint64_t n = t->first;
    struct jit *jit = guest_cpu(t->guest)->lockstep->c->jit;
    struct block *b = malloc(sizeof *b);
    struct input *in = calloc(1, sizeof *in);
    if (!b || !in)
        abort();
    for (; t->blocks ? n < t->first + t->blocks : now() < end; n++) {
        make_block(b, t, n, in);
        /* From the next flush on: few blocks are executed often enough to become hot by that. */
        jit->heat = n / 128 % 2 ? HOT_AT_ONCE : HEAT;
        enum engine_exit why = guest_run_block(t->guest, b->mode, in, b->code, b->len);
        *failed = why == ENGINE_EXIT_FAILED;
        if (*failed)
            break;
    }
    free(b);
    free(in);
    return n - t->first;
}

static bool options(struct torture *t, int argc, char **argv)
{
    static const struct option known[] = {{"seed", required_argument, NULL, 's'},
                                          {"first", required_argument, NULL, 'f'},
                                          {"blocks", required_argument, NULL, 'b'},
                                          {"seconds", required_argument, NULL, 't'},
                                          {0}};
    int c;
    while ((c = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (c == 's')
            t->seed = strtoull(optarg, NULL, 0);
        else if (c == 'f')
            t->first = strtoull(optarg, NULL, 0);
        else if (c == 'b')
            t->blocks = strtoull(optarg, NULL, 0);
        else if (c == 't')
            t->seconds = strtod(optarg, NULL);
        else
            return false;
    }
    return optind == argc;
}

static void report(const struct torture *t, uint64_t blocks, bool failed)
{
    const struct lockstep *l = guest_cpu(t->guest)->lockstep;
    printf("%sok 1 - the engines agree\n", failed ? "not " : "");
    if (failed)
        printf("# in block %llu: replay with --seed %llu --first %llu --blocks 1\n",
               (unsigned long long)(t->first + blocks), (unsigned long long)t->seed,
               (unsigned long long)(t->first + blocks));
    printf("%sok 2 - enough blocks%s\n", failed || blocks >= BLOCKS_LEAST ? "" : "not ",
           t->blocks ? " # SKIP as many as asked for" : "");
    printf(
        "# %llu blocks; %llu translations compared, %llu not, %llu once more; %llu flushes\n1..2\n",
        (unsigned long long)blocks, (unsigned long long)l->compared,
        (unsigned long long)l->abandoned, (unsigned long long)l->repeated,
        (unsigned long long)l->c->jit->flushes);
}

int main(int argc, char **argv)
{
    static const struct jit_sizes tiny = {
        .code = 256 * KIB, .data = 128 * KIB, .decoded = 64 * KIB, .heat = HEAT};
    static struct torture t;
    bool failed = false;
    pthread_t thread;
    t.seed = (uint64_t)time(NULL) ^ (uint64_t)now() << 20;
    t.seconds = 20;
    if (!options(&t, argc, argv)) {
        fprintf(stderr, "usage: torture [--seed N] [--first N] [--blocks N] [--seconds N]\n");
        return 2;
    }
    printf("# seed %llu\n", (unsigned long long)t.seed);
    fflush(stdout);
    insn_init();
    pool_fill(&t.pool, t.seed);
    jit_set_sizes(&tiny);
    t.guest = guest_create(&engine_lockstep, &t.pool);
    choose_forms(&t);
    pthread_create(&thread, NULL, interrupt, &t);
    uint64_t blocks = run(&t, &failed);
    t.end = true;
    pthread_join(thread, NULL);
    report(&t, blocks, failed);
    guest_destroy(t.guest);
    free(t.form);
    return failed;
}
