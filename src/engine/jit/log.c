/* log.c - what translations look like, for people. */
#include "engine/jit/log.h"

#include <Zydis/Zydis.h>
#include <string.h>

#include "mem/ram.h"

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

void jit_print_guest(FILE *f, const struct x86_cpu *c, const struct jit_tb *tb)
{
    uint8_t buf[PAGE_SIZE];
    unsigned len = guest_bytes(c, tb, buf);
    ZydisStackWidth width;
    ZydisMachineMode mode = machine_mode(&c->jit->mode[tb->mode], &width);
    struct listing l = listing_of(f, mode, width);
    for (unsigned off = 0; off < len;)
        off += print_insn(&l, buf + off, len - off, tb->rip + off);
}

void jit_print_host(FILE *f, const struct jit_tb *tb)
{
    struct listing l = listing_of(f, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    const uint8_t *start = tb->entry < tb->entry_ef ? tb->entry : tb->entry_ef;
    for (unsigned off = 0; off < tb->host_len;)
        off += print_insn(&l, start + off, tb->host_len - off, (uintptr_t)start + off);
}
