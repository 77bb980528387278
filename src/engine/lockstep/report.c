/* report.c - are two states the same, and if not, what is there to see? */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "engine/jit/log.h"
#include "engine/lockstep/lockstep.h"

struct field {
    const char *name;
    uint16_t off, size, count; /* an array of `count`, if that is not 0 */
};

#define ONE(n, f)                                                               \
    {                                                                           \
        n, offsetof(struct x86_state, f), sizeof(((struct x86_state *)0)->f), 0 \
    }
#define MANY(n, f)                                                                     \
    {                                                                                  \
        n, offsetof(struct x86_state, f), sizeof(((struct x86_state *)0)->f[0]),       \
            sizeof(((struct x86_state *)0)->f) / sizeof(((struct x86_state *)0)->f[0]) \
    }
#define SEGMENT(n, f)                                                            \
    ONE(n " selector", f.sel), ONE(n " base", f.base), ONE(n " limit", f.limit), \
        ONE(n " attributes", f.attr)

static const struct field fields[] = {
    ONE("RAX", gpr[0]),
    ONE("RCX", gpr[1]),
    ONE("RDX", gpr[2]),
    ONE("RBX", gpr[3]),
    ONE("RSP", gpr[4]),
    ONE("RBP", gpr[5]),
    ONE("RSI", gpr[6]),
    ONE("RDI", gpr[7]),
    ONE("R8", gpr[8]),
    ONE("R9", gpr[9]),
    ONE("R10", gpr[10]),
    ONE("R11", gpr[11]),
    ONE("R12", gpr[12]),
    ONE("R13", gpr[13]),
    ONE("R14", gpr[14]),
    ONE("R15", gpr[15]),
    ONE("RIP", rip),
    ONE("RFLAGS", rflags),
    SEGMENT("ES", seg[X86_ES]),
    SEGMENT("CS", seg[X86_CS]),
    SEGMENT("SS", seg[X86_SS]),
    SEGMENT("DS", seg[X86_DS]),
    SEGMENT("FS", seg[X86_FS]),
    SEGMENT("GS", seg[X86_GS]),
    SEGMENT("LDTR", ldtr),
    SEGMENT("TR", tr),
    ONE("GDTR base", gdtr.base),
    ONE("GDTR limit", gdtr.limit),
    ONE("IDTR base", idtr.base),
    ONE("IDTR limit", idtr.limit),
    ONE("CR0", cr0),
    ONE("CR2", cr2),
    ONE("CR3", cr3),
    ONE("CR4", cr4),
    ONE("XCR0", xcr0),
    MANY("DR", dr),
    ONE("EFER", efer),
    ONE("STAR", star),
    ONE("LSTAR", lstar),
    ONE("CSTAR", cstar),
    ONE("FMASK", fmask),
    ONE("KERNEL_GS_BASE", kernel_gs_base),
    ONE("TSC_AUX", tsc_aux),
    ONE("SYSENTER_CS", sysenter_cs),
    ONE("SYSENTER_ESP", sysenter_esp),
    ONE("SYSENTER_EIP", sysenter_eip),
    ONE("TSC offset", tsc_offset),
    ONE("PAT", pat),
    MANY("PDPTE", pdpte),
    ONE("activity", activity),
    ONE("STI shadow", sti_shadow),
    ONE("MOV SS shadow", movss_shadow),
    ONE("NMI blocked", nmi_blocked),
    ONE("FCW", fpu.fcw),
    ONE("FSW", fpu.fsw),
    ONE("FTW", fpu.ftw),
    ONE("FOP", fpu.fop),
    ONE("FIP", fpu.fip),
    ONE("FDP", fpu.fdp),
    ONE("MXCSR", fpu.mxcsr),
    MANY("ST", fpu.st),
    MANY("XMM", fpu.xmm),
    MANY("upper half of YMM", fpu.ymmh),
};

static const uint8_t *at(const struct x86_state *s, const struct field *f, unsigned n)
{
    return (const uint8_t *)s + f->off + n * f->size;
}

bool lockstep_state_same(const struct x86_state *a, const struct x86_state *b)
{
    if (!memcmp(a, b, sizeof *a))
        return true;
    for (unsigned k = 0; k < ARRAY_LEN(fields); k++) {
        const struct field *f = &fields[k];
        if (memcmp(at(a, f, 0), at(b, f, 0), (size_t)f->size * (f->count ? f->count : 1)))
            return false;
    }
    return true; /* padding */
}

static void print_value(FILE *f, const uint8_t *p, unsigned size)
{
    for (unsigned n = size; n-- > 0;)
        fprintf(f, "%02x", p[n]);
}

static void print_field(FILE *f, const struct field *d, unsigned n, const struct x86_state *a,
                        const struct x86_state *b)
{
    if (!memcmp(at(a, d, n), at(b, d, n), d->size))
        return;
    fprintf(f, d->count ? "%s%u: " : "%s: ", d->name, n);
    print_value(f, at(a, d, n), d->size);
    fputs(", ", f);
    print_value(f, at(b, d, n), d->size);
    fputc('\n', f);
}

void lockstep_print_state(FILE *f, const struct x86_state *a, const struct x86_state *b)
{
    for (unsigned k = 0; k < ARRAY_LEN(fields); k++)
        for (unsigned n = 0; n < (fields[k].count ? fields[k].count : 1u); n++)
            print_field(f, &fields[k], n, a, b);
}

static bool same_end(const struct lockstep_result *a, const struct lockstep_result *b)
{
    if (a->end != b->end)
        return false;
    return a->end != LOCKSTEP_RAISED ||
           (a->vector == b->vector && a->has_error == b->has_error && a->soft == b->soft &&
            a->trap == b->trap && a->error == b->error && a->cr2 == b->cr2 && a->dr6 == b->dr6);
}

/* Outside 64-bit code nothing says what becomes of them (SDM vol. 1, 3.4.1.1). */
static void forget_upper_halves(const struct x86_state *a, struct x86_state *b)
{
    for (unsigned n = 0; n < 16; n++)
        b->gpr[n] = (uint32_t)b->gpr[n] | (a->gpr[n] & 0xffffffff00000000ull);
}

enum lockstep_verdict lockstep_verdict(const struct lockstep *l, const struct jit_tb *tb)
{
    bool same = same_end(&l->interp, &l->jit) && lockstep_memory_same(l);
    if (same && lockstep_state_same(&l->interp.s, &l->jit.s))
        return LOCKSTEP_SAME;
    if (!tb)
        return LOCKSTEP_DIFFERENT;
    struct x86_state jit = l->jit.s;
    if (l->c->jit->mode[tb->mode].bits & (JIT_M_CODE16 | JIT_M_CODE32))
        forget_upper_halves(&l->interp.s, &jit);
    struct jit_undefined u = jit_undefined_flags(l->c, tb, l->done);
    jit.rflags ^= (jit.rflags ^ l->interp.s.rflags) & u.flags;
    if (same && lockstep_state_same(&l->interp.s, &jit))
        return LOCKSTEP_SAME;
    return u.read ? LOCKSTEP_UNDEFINED : LOCKSTEP_DIFFERENT;
}

/* ---- the report ---- */

static void print_end(FILE *f, const char *who, const struct lockstep *l,
                      const struct lockstep_result *r)
{
    fprintf(f, "%s ", who);
    if (r->end == LOCKSTEP_STRAY)
        fprintf(f, "touched %llx, which the other did not", (unsigned long long)l->stray);
    else if (r->end == LOCKSTEP_RAISED)
        fprintf(f, "raised exception %u (error code %x, CR2 %llx, DR6 %llx%s%s)", r->vector,
                r->error, (unsigned long long)r->cr2, (unsigned long long)r->dr6,
                r->soft ? ", by software" : "", r->trap ? ", a trap" : "");
    else
        fputs("came to the end", f);
    fprintf(f, " at %llx\n", (unsigned long long)r->s.rip);
}

static void print_memory(FILE *f, const struct lockstep *l)
{
    for (unsigned n = 0; n < l->nline; n++) {
        const struct lockstep_line *k = &l->line[n];
        const uint8_t *now = l->c->ram->host + k->roff;
        for (unsigned b = 0; b < LOCKSTEP_LINE; b++)
            if (now[b] != k->bytes[b])
                fprintf(f, "byte at %llx: %02x, %02x\n", (unsigned long long)k->lin + b,
                        k->bytes[b], now[b]);
    }
}

static void print_start(FILE *f, const struct lockstep *l)
{
    struct x86_state none = {0}, start = l->start;
    memcpy(none.fpu.st, start.fpu.st, sizeof none.fpu.st);
    memcpy(none.fpu.xmm, start.fpu.xmm, sizeof none.fpu.xmm);
    memcpy(none.fpu.ymmh, start.fpu.ymmh, sizeof none.fpu.ymmh);
    fprintf(f, "before (0, value); arithmetic flags %x:\n", l->start_fl);
    lockstep_print_state(f, &none, &start);
}

static void print_all(FILE *f, const struct lockstep *l, const struct jit_tb *tb)
{
    fprintf(f, "lockstep: the engines differ in a translation of %u instructions:\n", tb->count);
    jit_print_guest(f, l->c, tb, l->start.rip);
    print_end(f, "interp", l, &l->interp);
    print_end(f, "jit", l, &l->jit);
    fputs("after (interp, jit):\n", f);
    lockstep_print_state(f, &l->interp.s, &l->jit.s);
    print_memory(f, l);
    print_start(f, l);
    fputs("host code:\n", f);
    jit_print_host(f, tb);
}

void lockstep_report(const struct lockstep *l, const struct jit_tb *tb)
{
    char *text = NULL, *rest;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    if (f) {
        print_all(f, l, tb);
        fclose(f);
    }
    for (char *line = text ? strtok_r(text, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest))
        log_error("%s", line);
    free(text);
}
