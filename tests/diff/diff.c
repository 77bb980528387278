/*
 * diff.c - the differential test's program: options, worker processes, report (TAP).
 *
 * Each worker takes the next form from a shared counter, makes its cases, has them run by its own
 * throw-away process and meanwhile runs them in its own vCPU. A form's random numbers depend on the
 * seed and the form alone, so that any part of a run can be repeated by itself.
 */
#include <errno.h>
#include <getopt.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "diff.h"
#include "engine/engine.h"
#include "engine/jit/jit.h"

#define CASES_LEAST 200u /* what `make check` promises, of both */
#define FORMS_LEAST 3000u
#define CASES_MAX   100000u
#define BATCH       200u
#define JOBS_MAX    64u
#define TEXT_MAX    3000u
#define SHOWN       2u /* differences of one form */

#ifdef __SANITIZE_ADDRESS__
#define SANITIZED     true
#define CASES_DEFAULT 20u
#else
#define SANITIZED     false
#define CASES_DEFAULT CASES_LEAST
#endif

struct options {
    const struct engine *engine;
    uint64_t seed;
    unsigned cases, forms, jobs;
    const char *only;
    bool mode[NMODES];
    bool list;
};

struct tally { /* of a class in a mode */
    _Atomic unsigned forms, failed;
    _Atomic uint64_t cases;
};

struct shared {
    _Atomic unsigned next; /* form */
    struct tally tally[NMODES][NCLASSES];
    _Atomic uint64_t vectors[32]; /* how the cases ended */
    struct pool pool;
};

struct run {
    struct options o;
    struct form *form;
    unsigned nform;
    struct shared *s;
};

static const char *const class_names[NCLASSES] = {
    "integer", "branches", "system", "x87", "MMX and SSE", "AVX",
};

/* ---- one form ---- */

struct worker {
    struct run *run;
    struct native *native;
    struct guest *guest[2]; /* that of odd cases translates for speed at once */
    struct insn insn[BATCH];
    struct output *out; /* BATCH of the engine's */
};

static unsigned describe(const struct form *f, const struct input *in, unsigned no, char *text)
{
    char name[96];
    form_name(f, name, sizeof name);
    int n = snprintf(text, TEXT_MAX, "# %s, case %u:", name, no);
    for (unsigned k = 0; k < in->len; k++)
        n += snprintf(text + n, TEXT_MAX - (unsigned)n, " %02x", in->code[k]);
    ZydisFormatter fmt;
    struct insn i;
    char dis[96] = "?";
    ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
    if (insn_decode(f->mode, in->code, in->len, &i))
        ZydisFormatterFormatInstruction(&fmt, &i.zi, i.op, i.zi.operand_count_visible, dis,
                                        sizeof dis, in->r.rip, NULL);
    n += snprintf(text + n, TEXT_MAX - (unsigned)n,
                  " = %s\n#   at %llx, flags %llx, mxcsr %x, fcw %x, fsw %x, ftw %x; rax %llx rcx "
                  "%llx rdx %llx "
                  "rbx %llx rsp %llx rbp %llx rsi %llx rdi %llx\n",
                  dis, (unsigned long long)in->r.rip, (unsigned long long)in->r.rflags,
                  in->r.fpu.mxcsr, in->r.fpu.fcw, in->r.fpu.fsw, in->r.fpu.ftw,
                  (unsigned long long)in->r.gpr[0], (unsigned long long)in->r.gpr[1],
                  (unsigned long long)in->r.gpr[2], (unsigned long long)in->r.gpr[3],
                  (unsigned long long)in->r.gpr[4], (unsigned long long)in->r.gpr[5],
                  (unsigned long long)in->r.gpr[6], (unsigned long long)in->r.gpr[7]);
    return (unsigned)n;
}

static void print(const char *text)
{
    size_t len = strlen(text);
    ssize_t rc = write(STDOUT_FILENO, text, len); /* one call: workers' lines do not mix */
    (void)rc;
}

/* On AMD's processors, a difference counts only if it is not a known one, and shows itself again:
 * there x87 pointers are lost if the system switches tasks. What comes before case n is done with.
 */
static bool agrees_on_amd(struct worker *w, const struct form *f, unsigned n, char *what,
                          unsigned len)
{
    static struct output nat;
    struct input *first = native_inputs(w->native), kept = *first;
    bool same = false;
    nat = native_outputs(w->native)[n];
    *first = first[n];
    for (unsigned tries = 0; !same && tries < 4; tries++) {
        same = amd_adapt(&w->insn[n], first, &nat, &w->out[n]) ||
               compare_case(f->mode, &w->insn[n], first, &nat, &w->out[n], what, len);
        if (same)
            break;
        native_start(w->native, 1);
        if (native_wait(w->native) != 1)
            break;
        nat = native_outputs(w->native)[0];
    }
    *first = kept;
    return same;
}

/* Compares a batch; returns the number of differences. */
static unsigned judge(struct worker *w, const struct form *f, unsigned first, unsigned done,
                      unsigned count, unsigned shown)
{
    const struct input *in = native_inputs(w->native);
    const struct output *nat = native_outputs(w->native);
    char text[TEXT_MAX + 1024];
    unsigned bad = 0;
    for (unsigned n = 0; n < done; n++) {
        atomic_fetch_add_explicit(&w->run->s->vectors[nat[n].vector & 31], 1, memory_order_relaxed);
        char what[TEXT_MAX - 1024];
        if (compare_case(f->mode, &w->insn[n], &in[n], &nat[n], &w->out[n], what, sizeof what) ||
            (amd_host() && agrees_on_amd(w, f, n, what, sizeof what)))
            continue;
        if (shown + bad++ < SHOWN) {
            unsigned at = describe(f, &in[n], first + n, text);
            snprintf(text + at, sizeof text - at, "%s", what);
            print(text);
        }
    }
    if (done < count) {
        unsigned at = describe(f, &in[done], first + done, text);
        snprintf(text + at, sizeof text - at, "#   the process did not survive this\n");
        print(text);
        bad++;
    }
    return bad;
}

static void run_form(struct worker *w, const struct form *f)
{
    const struct options *o = &w->run->o;
    struct tally *t = &w->run->s->tally[f->mode][f->cls];
    struct rng g = {o->seed ^ f->key};
    unsigned bad = 0;
    for (unsigned first = 0; first < o->cases; first += BATCH) {
        unsigned count = (unsigned)min_u64(BATCH, o->cases - first);
        struct input *in = native_inputs(w->native);
        for (unsigned n = 0; n < count; n++)
            make_case(f, &g, &in[n], &w->insn[n]);
        native_start(w->native, count);
        for (unsigned n = 0; n < count; n++)
            guest_run(w->guest[n & 1], f->mode, &in[n], &w->out[n]);
        bad += judge(w, f, first, native_wait(w->native), count, bad);
    }
    atomic_fetch_add(&t->forms, 1);
    atomic_fetch_add(&t->cases, o->cases);
    if (bad) {
        char name[96], text[160];
        atomic_fetch_add(&t->failed, 1);
        form_name(f, name, sizeof name);
        snprintf(text, sizeof text, "# DIFFERS %s: %u of %u cases\n", name, bad, o->cases);
        print(text);
    }
}

static void worker(struct run *run)
{
    static const struct jit_sizes hot = {
        .code = 32 * MIB, .data = 32 * MIB, .decoded = MIB / 4, .heat = -1};
    const char *why;
    struct worker *w = calloc(1, sizeof *w);
    if (!w)
        _exit(2);
    w->run = run;
    w->native = native_create(&run->s->pool, BATCH, &why);
    w->guest[0] = guest_create(run->o.engine, &run->s->pool);
    jit_set_sizes(&hot);
    w->guest[1] = guest_create(run->o.engine, &run->s->pool);
    jit_set_sizes(NULL);
    w->out = calloc(BATCH, sizeof *w->out);
    if (!w->native || !w->guest[0] || !w->guest[1] || !w->out)
        _exit(2);
    for (;;) {
        unsigned n = atomic_fetch_add(&run->s->next, 1);
        if (n >= run->nform)
            break;
        const struct form *f = &run->form[n];
        run_form(w, f);
    }
    guest_destroy(w->guest[0]);
    guest_destroy(w->guest[1]);
    native_destroy(w->native);
    free(w->out);
    free(w);
}

/* ---- which forms ---- */

static bool wanted(const struct options *o, const struct guest *g, const struct native *n,
                   const struct form *f)
{
    if (!o->mode[f->mode] || !native_has_mode(n, f->mode))
        return false;
    if (o->only && strcasecmp(o->only, ZydisMnemonicGetString(f->mnemonic)) != 0)
        return false;
    return guest_offers(g, f);
}

/* Keeps what is wanted, and of that at most o->forms, evenly spread. */
static void choose_forms(struct run *r, struct native *n)
{
    unsigned room = 0, kept = 0;
    struct guest *g = guest_create(r->o.engine, &r->s->pool);
    for (unsigned m = 0; m < NMODES; m++)
        r->form = forms_enumerate((enum diff_mode)m, r->form, &r->nform, &room);
    for (unsigned k = 0; k < r->nform; k++)
        if (wanted(&r->o, g, n, &r->form[k]))
            r->form[kept++] = r->form[k];
    r->nform = kept;
    if (r->o.forms && r->o.forms < kept) {
        for (unsigned k = 0; k < r->o.forms; k++)
            r->form[k] = r->form[(uint64_t)k * kept / r->o.forms];
        r->nform = r->o.forms;
    }
    guest_destroy(g);
}

/* ---- report ---- */

static bool report(const struct run *r, bool finished, double seconds)
{
    unsigned point = 0, forms = 0;
    uint64_t cases = 0;
    bool ok = finished;
    for (unsigned m = 0; m < NMODES; m++)
        for (unsigned c = 0; c < NCLASSES; c++) {
            const struct tally *t = &r->s->tally[m][c];
            if (!t->forms)
                continue;
            ok &= t->failed == 0;
            forms += t->forms;
            cases += t->cases;
            printf("%sok %u - %u-bit code, %s: %u forms, %llu cases", t->failed ? "not " : "",
                   ++point, mode_bits((enum diff_mode)m), class_names[c], t->forms,
                   (unsigned long long)t->cases);
            printf(t->failed ? ", %u forms differ\n" : "\n", t->failed);
        }
    printf("%sok %u - every form was run\n", finished ? "" : "not ", ++point);
    if (!r->o.only && !r->o.forms && r->o.cases >= CASES_LEAST && r->o.mode[MODE_64] &&
        r->o.mode[MODE_32]) {
        bool enough = forms >= FORMS_LEAST;
        ok &= enough;
        printf("%sok %u - at least %u forms with %u cases each\n", enough ? "" : "not ", ++point,
               FORMS_LEAST, CASES_LEAST);
    }
    printf("1..%u\n# %u forms, %llu cases in %.1f s; the cases ended by", point, forms,
           (unsigned long long)cases, seconds);
    for (unsigned v = 0; v < 32; v++)
        if (r->s->vectors[v])
            printf(" %u:%llu", v, (unsigned long long)r->s->vectors[v]);
    printf(" (vector:cases)\n");
    return ok;
}

static bool run_workers(struct run *r)
{
    unsigned started = 0;
    bool ok = true;
    for (unsigned k = 0; k < r->o.jobs; k++) {
        pid_t pid = fork();
        if (pid == 0) {
            worker(r);
            _exit(0);
        }
        started += pid > 0;
    }
    for (; started; started--) {
        int status;
        if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status)) {
            printf("# a worker died: status %x\n", (unsigned)status);
            ok = false;
        }
    }
    return ok && atomic_load(&r->s->next) >= r->nform;
}

/* ---- options ---- */

static const char help[] =
    "usage: diff [options]\n"
    "  --engine NAME    the engine to test (interp)\n"
    "  --seed N         replays a run (default: from the clock; it is printed)\n"
    "  --cases N        for each form\n"
    "  --forms N        at most so many, evenly chosen\n"
    "  --mode 64|32|16  code of this size only\n"
    "  --only MNEMONIC  these instructions only\n"
    "  --jobs N         worker processes (default: one for each processor)\n"
    "  --list           prints the forms\n"
    "  --freedoms       prints what is not compared, and why\n";

static _Noreturn void usage(const char *what)
{
    fprintf(stderr, "diff: %s\n%s", what, help);
    exit(2);
}

static uint64_t parse_number(const char *s)
{
    char *end;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 0);
    if (errno || end == s || *end)
        usage("not a number");
    return v;
}

static void parse_mode(struct options *o, const char *s)
{
    memset(o->mode, 0, sizeof o->mode);
    for (unsigned m = 0; m < NMODES; m++)
        if (parse_number(s) == mode_bits((enum diff_mode)m))
            o->mode[m] = true;
}

static struct options parse(int argc, char **argv)
{
    static const struct option longs[] = {
        {"engine", 1, NULL, 'e'}, {"seed", 1, NULL, 's'}, {"cases", 1, NULL, 'c'},
        {"forms", 1, NULL, 'f'},  {"mode", 1, NULL, 'm'}, {"only", 1, NULL, 'o'},
        {"jobs", 1, NULL, 'j'},   {"list", 0, NULL, 'l'}, {"freedoms", 0, NULL, 'F'},
        {"help", 0, NULL, 'h'},   {NULL, 0, NULL, 0},
    };
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct options o = {.engine = engine_by_name("interp"),
                        .seed = (uint64_t)now.tv_sec * 1000003u ^ (uint64_t)now.tv_nsec,
                        .cases = CASES_DEFAULT,
                        .jobs = cpus > 0 ? (unsigned)min_u64((uint64_t)cpus, JOBS_MAX) : 1,
                        .mode = {true, true, true}};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        if (c == 'e' && !(o.engine = engine_by_name(optarg)))
            usage("no such engine");
        else if (c == 's')
            o.seed = parse_number(optarg);
        else if (c == 'c')
            o.cases = (unsigned)min_u64(parse_number(optarg), CASES_MAX);
        else if (c == 'f')
            o.forms = (unsigned)parse_number(optarg);
        else if (c == 'm')
            parse_mode(&o, optarg);
        else if (c == 'o')
            o.only = optarg;
        else if (c == 'j')
            o.jobs = (unsigned)max_u64(1, min_u64(parse_number(optarg), JOBS_MAX));
        else if (c == 'l')
            o.list = true;
        else if (c == 'F' || c == 'h') {
            c == 'F' ? freedom_print() : (void)fputs(help, stdout);
            exit(0);
        } else if (c == '?')
            usage("what is that?");
    }
    return o;
}

int main(int argc, char **argv)
{
    struct run r = {.o = parse(argc, argv)};
    struct error e;
    const char *why;
    struct timespec a, b;
    setvbuf(stdout, NULL, _IOLBF, 0);
    insn_init();
    if (r.o.engine->probe(&e)) {
        printf("1..0 # SKIP %s: %s\n", r.o.engine->name, e.msg);
        return 0;
    }
    r.s = mmap(NULL, sizeof *r.s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (r.s == MAP_FAILED)
        usage("no memory");
    pool_fill(&r.s->pool, r.o.seed);
    struct native *n = native_create(&r.s->pool, 1, &why);
    if (!n) {
        printf("1..0 # SKIP %s\n", why);
        return 0;
    }
    choose_forms(&r, n);
    for (unsigned k = 0; r.o.list && k < r.nform; k++) {
        char name[96];
        form_name(&r.form[k], name, sizeof name);
        printf("%s: %s\n", class_names[r.form[k].cls], name);
    }
    if (r.o.list) {
        native_destroy(n);
        free(r.form);
        return 0;
    }
    printf("# engine %s, seed %llu (replay with --seed), %u forms, %u cases each\n",
           r.o.engine->name, (unsigned long long)r.o.seed, r.nform, r.o.cases);
    fflush(stdout);
    clock_gettime(CLOCK_MONOTONIC, &a);
    bool finished = run_workers(&r);
    clock_gettime(CLOCK_MONOTONIC, &b);
    native_destroy(n);
    bool ok =
        report(&r, finished, (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
    free(r.form);
    return ok ? 0 : 1;
}
