/* compare.c - two outcomes of one case: everything that a program or its system can see. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "diff.h"

#define OPERAND_MAX 1024u
#define TASK_SIZE   0x7ffffffff000ull /* Linux': where a program's addresses end */

struct report {
    char *text;
    unsigned len, at;
    bool differs;
};

__attribute__((format(printf, 2, 3))) static void say(struct report *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    r->differs = true;
    int n = vsnprintf(r->text + r->at, r->len - r->at, fmt, ap);
    va_end(ap);
    r->at = (unsigned)min_u64(r->at + (unsigned)(n > 0 ? n : 0), r->len - 1);
}

static void number(struct report *r, const char *name, uint64_t nat, uint64_t gst)
{
    if (nat != gst)
        say(r, "#   %s: processor %llx, engine %llx\n", name, (unsigned long long)nat,
            (unsigned long long)gst);
}

static void bytes(struct report *r, const char *name, unsigned n, const uint8_t *nat,
                  const uint8_t *gst, unsigned size)
{
    if (memcmp(nat, gst, size) == 0)
        return;
    say(r, "#   %s%u: processor ", name, n);
    for (unsigned k = size; k-- > 0;)
        say(r, "%02x", nat[k]);
    say(r, ", engine ");
    for (unsigned k = size; k-- > 0;)
        say(r, "%02x", gst[k]);
    say(r, "\n");
}

static void compare_exception(struct report *r, const struct insn *i, const struct output *nat,
                              const struct output *gst)
{
    uint32_t error = nat->error;
    number(r, "vector", nat->vector, gst->vector);
    if (nat->vector != gst->vector)
        return;
    if (nat->vector != X86_PF) {
        bool has = (nat->vector >= X86_TS && nat->vector <= X86_GP) || nat->vector == X86_AC;
        if (has)
            number(r, "error code", nat->error, gst->error);
        return;
    }
    /* Linux does not tell a program which addresses beyond its own are mapped. */
    if (nat->cr2 >= TASK_SIZE)
        error = (error & ~X86_PF_P) | (gst->error & X86_PF_P);
    if (freedom_fault_address(i)) {
        /* Each of them may be the first, but it must belong to the operand. */
        uint64_t wrap = i->zi.address_width == 16 ? 0xffff : ~0ull;
        if (((nat->cr2 - gst->cr2 + OPERAND_MAX) & wrap) > 2 * OPERAND_MAX)
            number(r, "CR2", nat->cr2, gst->cr2);
        if ((nat->cr2 ^ gst->cr2) < PAGE_SIZE)
            number(r, "error code", error, gst->error);
        return;
    }
    number(r, "CR2", nat->cr2, gst->cr2);
    number(r, "error code", error, gst->error);
}

static bool faulted(const struct input *in, const struct output *o)
{
    return o->r.rip == in->r.rip &&
           (o->vector == X86_PF || o->vector == X86_GP || o->vector == X86_SSF);
}

static void compare_fpu(struct report *r, const struct x86_xsave *nat, const struct x86_xsave *gst)
{
    number(r, "FCW", nat->fcw, gst->fcw);
    number(r, "FSW", nat->fsw, gst->fsw);
    number(r, "FTW", nat->ftw, gst->ftw);
    if (!freedom_pointers(nat)) {
        number(r, "FOP", nat->fop, gst->fop);
        number(r, "FIP", nat->fip, gst->fip);
        number(r, "FDP", nat->fdp, gst->fdp);
    }
    number(r, "MXCSR", nat->mxcsr, gst->mxcsr);
    for (unsigned n = 0; n < 8; n++)
        bytes(r, "ST", n, nat->st[n], gst->st[n], 10);
    for (unsigned n = 0; n < 16; n++) {
        bytes(r, "XMM", n, nat->xmm[n], gst->xmm[n], 16);
        bytes(r, "upper half of YMM", n, nat->ymmh[n], gst->ymmh[n], 16);
    }
}

static void compare_data(struct report *r, const uint8_t *nat, const uint8_t *gst)
{
    if (memcmp(nat, gst, DATA_SIZE) == 0)
        return;
    for (unsigned n = 0, shown = 0; n < DATA_SIZE && shown < 4; n += 8) {
        uint64_t a, b;
        memcpy(&a, nat + n, 8);
        memcpy(&b, gst + n, 8);
        if (a == b)
            continue;
        shown++;
        say(r, "#   memory at %x: processor %016llx, engine %016llx\n", DATA_AT + n,
            (unsigned long long)a, (unsigned long long)b);
    }
}

bool compare_case(enum diff_mode m, const struct insn *i, const struct input *in,
                  const struct output *nat, const struct output *gst, char *text, unsigned len)
{
    static const char *const gprs[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
                                       "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
    static const char *const segs[] = {"ES", "CS", "SS", "DS", "FS", "GS"};
    struct report r = {text, len, 0, false};
    text[0] = '\0';
    if (gst->lost) {
        say(&r, "#   the engine does not come to an end\n");
        return false;
    }
    /* An operand of several parts faults on both sides: for another reason each, perhaps. */
    bool fault = freedom_fault_address(i) && faulted(in, nat) && faulted(in, gst);
    bool partly = fault && freedom_partial_load(i);
    if (!fault || nat->vector == gst->vector)
        compare_exception(&r, i, nat, gst);
    number(&r, "RIP", nat->r.rip, gst->r.rip);
    uint64_t mask = m == MODE_64 ? ~0ull : 0xffffffff;
    for (unsigned n = 0; n < (m == MODE_64 ? 16 : 8); n++)
        number(&r, gprs[n], nat->r.gpr[n] & mask, gst->r.gpr[n] & mask);
    uint64_t flags = ~(uint64_t)freedom_flags(i, in);
    number(&r, "RFLAGS", nat->r.rflags & flags, gst->r.rflags & flags);
    for (unsigned n = 0; n < X86_NSEG; n++) {
        /* The kernel's IRET clears the RPL of null selectors (SDM 2, IRET). */
        bool null = nat->r.seg[n] == 0 && gst->r.seg[n] < 4;
        if (!null)
            number(&r, segs[n], nat->r.seg[n], gst->r.seg[n]);
    }
    number(&r, "FS base", nat->r.fs_base, gst->r.fs_base);
    number(&r, "GS base", nat->r.gs_base, gst->r.gs_base);
    if (!partly)
        compare_fpu(&r, &nat->r.fpu, &gst->r.fpu);
    compare_data(&r, nat->data, gst->data);
    return !r.differs;
}
