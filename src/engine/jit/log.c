/* log.c - see log.h. */
#include "engine/jit/log.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mem/ram.h"

struct record {
    uint64_t rip, runs;
};

static struct {
    pthread_mutex_t lock; /* guards the rest, once started */
    FILE *code, *perf;
    struct record *record; /* by number of the translation */
    size_t count, room;
} the_log = {.lock = PTHREAD_MUTEX_INITIALIZER};

static ZydisMachineMode machine_mode(const struct jit_mode *m, ZydisStackWidth *width)
{
    if (m->bits & JIT_M_CODE16) {
        *width = ZYDIS_STACK_WIDTH_16;
        return ZYDIS_MACHINE_MODE_LEGACY_16;
    }
    if (m->bits & JIT_M_CODE32) {
        *width = ZYDIS_STACK_WIDTH_32;
        return ZYDIS_MACHINE_MODE_LEGACY_32;
    }
    *width = ZYDIS_STACK_WIDTH_64;
    return ZYDIS_MACHINE_MODE_LONG_64;
}

struct listing {
    FILE *f;
    ZydisDecoder dec;
    ZydisFormatter fmt;
};

static struct listing listing_of(FILE *f, ZydisMachineMode mode, ZydisStackWidth width)
{
    struct listing l = {.f = f};
    ZydisDecoderInit(&l.dec, mode, width);
    ZydisFormatterInit(&l.fmt, ZYDIS_FORMATTER_STYLE_INTEL);
    ZydisFormatterSetProperty(&l.fmt, ZYDIS_FORMATTER_PROP_FORCE_SIZE, ZYAN_TRUE);
    return l;
}

/* One instruction; returns its length, 1 for a byte that is none. */
static unsigned print_insn(struct listing *l, const uint8_t *p, unsigned avail, uint64_t at)
{
    ZydisDecodedInstruction zi;
    ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
    char text[128] = "?";
    unsigned len = 1;
    if (ZYAN_SUCCESS(ZydisDecoderDecodeFull(&l->dec, p, avail, &zi, op))) {
        len = zi.length;
        ZydisFormatterFormatInstruction(&l->fmt, &zi, op, zi.operand_count_visible, text,
                                        sizeof text, at, NULL);
    }
    fprintf(l->f, "  %016llx ", (unsigned long long)at);
    for (unsigned n = 0; n < 15; n++)
        if (n < len)
            fprintf(l->f, " %02x", p[n]);
        else if (n < 8)
            fputs("   ", l->f);
    fprintf(l->f, "  %s\n", text);
    return len;
}

/* The guest's bytes as they are now. */
static unsigned guest_bytes(const struct x86_cpu *c, const struct jit_tb *tb, uint8_t *buf)
{
    unsigned first = (unsigned)(PAGE_SIZE - tb->roff % PAGE_SIZE);
    unsigned len = tb->len < PAGE_SIZE ? tb->len : PAGE_SIZE;
    if (!tb->cross || first >= len)
        first = len;
    memcpy(buf, c->ram->host + tb->roff, first);
    memcpy(buf + first, c->ram->host + tb->roff2, len - first);
    return len;
}

void jit_print_guest(FILE *f, const struct x86_cpu *c, const struct jit_tb *tb, uint64_t rip)
{
    uint8_t buf[PAGE_SIZE];
    unsigned len = guest_bytes(c, tb, buf);
    ZydisStackWidth width;
    ZydisMachineMode mode = machine_mode(&c->jit->mode[tb->mode], &width);
    struct listing l = listing_of(f, mode, width);
    for (unsigned off = 0; off < len;)
        off += print_insn(&l, buf + off, len - off, rip + off);
}

void jit_print_host(FILE *f, const struct jit_tb *tb)
{
    struct listing l = listing_of(f, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    const uint8_t *start = tb->start;
    for (unsigned off = 0; off < tb->host_len;)
        off += print_insn(&l, start + off, tb->host_len - off, (uintptr_t)start + off);
}

/* ---- the log ---- */

static FILE *create(const char *path, struct error *e)
{
    FILE *f = fopen(path, "we");
    if (!f)
        error_errno(e, ERR_IO, errno, "%s", path);
    return f;
}

int jit_log_start(const char *path, bool perf, struct error *e)
{
    char map[64];
    if (path && !(the_log.code = create(path, e)))
        return ERR_IO;
    snprintf(map, sizeof map, "/tmp/perf-%d.map", (int)getpid());
    if (perf && !(the_log.perf = create(map, e))) {
        jit_log_stop();
        return ERR_IO;
    }
    return 0;
}

bool jit_log_counts(void)
{
    return the_log.code;
}

bool jit_log_perf(void)
{
    return the_log.perf;
}

static const char *mode_name(const struct jit_mode *m)
{
    return m->bits & JIT_M_CODE16 ? "16" : m->bits & JIT_M_CODE32 ? "32" : "64";
}

static bool number(struct jit_tb *tb, uint64_t rip)
{
    if (the_log.count == the_log.room) {
        size_t room = the_log.room ? 2 * the_log.room : 4096;
        struct record *r = realloc(the_log.record, room * sizeof *r);
        if (!r)
            return false;
        the_log.record = r;
        the_log.room = room;
    }
    the_log.record[the_log.count] = (struct record){.rip = rip};
    tb->number = the_log.count++;
    return true;
}

static void print_made(struct x86_cpu *c, const struct jit_tb *tb)
{
    FILE *f = the_log.code;
    const struct jit_mode *m = &c->jit->mode[tb->mode];
    fprintf(f,
            "translation %zu: vCPU %u, %s-bit %s code at %016" PRIx64 ", physical %" PRIx64
            ", %u instructions in %u bytes\n",
            tb->number, c->index, mode_name(m), m->bits & JIT_M_USER ? "user" : "kernel", c->s.rip,
            tb->roff, tb->count, tb->len);
    jit_print_guest(f, c, tb, c->s.rip);
    fprintf(f, "host code, %u bytes:\n", tb->host_len);
    jit_print_host(f, tb);
    fputc('\n', f);
}

void jit_log_made(struct x86_cpu *c, struct jit_tb *tb)
{
    if (!the_log.code && !the_log.perf)
        return;
    pthread_mutex_lock(&the_log.lock);
    if (the_log.code && number(tb, c->s.rip))
        print_made(c, tb);
    if (the_log.perf) {
        fprintf(the_log.perf, "%lx %x guest:%" PRIx64 "%s\n", (unsigned long)tb->start,
                tb->host_len, c->s.rip, c->jit->mode[tb->mode].bits & JIT_M_USER ? " (user)" : "");
        fflush(the_log.perf); /* perf reads it when it likes */
    }
    pthread_mutex_unlock(&the_log.lock);
}

void jit_log_gone(const struct jit_tb *tb)
{
    if (!the_log.code)
        return;
    pthread_mutex_lock(&the_log.lock);
    if (tb->number < the_log.count)
        the_log.record[tb->number].runs += tb->runs;
    pthread_mutex_unlock(&the_log.lock);
}

static int by_runs(const void *a, const void *b)
{
    const struct record *x = a, *y = b;
    return x->runs < y->runs ? 1 : x->runs > y->runs ? -1 : x->rip < y->rip ? -1 : x->rip > y->rip;
}

static void print_runs(FILE *f)
{
    qsort(the_log.record, the_log.count, sizeof *the_log.record, by_runs);
    fprintf(f, "how often translations were entered, and their addresses:\n");
    for (size_t n = 0; n < the_log.count; n++)
        fprintf(f, "%12" PRIu64 "  %016" PRIx64 "\n", the_log.record[n].runs,
                the_log.record[n].rip);
}

void jit_log_stop(void)
{
    if (the_log.code) {
        print_runs(the_log.code);
        fclose(the_log.code);
    }
    if (the_log.perf)
        fclose(the_log.perf);
    free(the_log.record);
    the_log.code = the_log.perf = NULL;
    the_log.record = NULL;
    the_log.count = the_log.room = 0;
}
