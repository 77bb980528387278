/*
 * encode.c - one case's encoding of a form: its register fields, the way its memory operand is
 * addressed, displacement and immediates are chosen at random, and prefixes are added that change
 * addressing only. An encoding that decodes to another form is dropped and another one tried.
 */
#include <string.h>

#include "diff.h"

#define TRIES 12u

struct emit {
    const struct form *f;
    struct rng *g;
    uint8_t *code;
    unsigned n;
    bool r, x, b;
    uint8_t modrm, sib;
    bool has_sib;
};

static void put(struct emit *e, unsigned byte)
{
    e->code[e->n++] = (uint8_t)byte;
}

static void choose_modrm(struct emit *e)
{
    const struct form *f = e->f;
    bool wide = f->mode == MODE_64;
    unsigned reg = f->reg, rm = f->rm, mod = 3;
    if (f->free_reg) {
        reg = rnd_n(e->g, 8);
        e->r = wide && rnd_pct(e->g, 50);
    }
    if (f->mem) {
        mod = rnd_n(e->g, 3);
        rm = f->rm == 4 ? 4 : rnd_n(e->g, 8);
        e->b = wide && rnd_pct(e->g, 50);
        e->x = wide && rnd_pct(e->g, 50);
        e->has_sib = rm == 4;
        e->sib = (uint8_t)rnd(e->g);
    } else if (f->free_rm) {
        rm = rnd_n(e->g, 8);
        e->b = wide && rnd_pct(e->g, 50);
    }
    e->modrm = (uint8_t)(mod << 6 | reg << 3 | rm);
}

static void put_vex(struct emit *e)
{
    const struct form *f = e->f;
    unsigned p = f->rep == 0x66 ? 1 : f->rep == 0xf3 ? 2 : f->rep == 0xf2 ? 3 : 0;
    unsigned vvvv = f->free_vvvv ? rnd_n(e->g, f->mode == MODE_64 ? 16 : 8) : 0;
    unsigned last = (~vvvv & 15) << 3 | (unsigned)f->l << 2 | p;
    if (f->map == 1 && !f->w && !e->x && !e->b && rnd_pct(e->g, 50)) {
        put(e, 0xc5);
        put(e, (unsigned)!e->r << 7 | last);
        return;
    }
    put(e, 0xc4);
    put(e, (unsigned)!e->r << 7 | (unsigned)!e->x << 6 | (unsigned)!e->b << 5 | f->map);
    put(e, (unsigned)f->w << 7 | last);
}

static void put_prefixes(struct emit *e, bool extra)
{
    static const uint8_t segs[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65};
    const struct form *f = e->f;
    bool addrsize = f->addrsize != (extra && rnd_pct(e->g, 10));
    if (extra && rnd_pct(e->g, 10))
        put(e, segs[rnd_n(e->g, 6)]);
    if (addrsize)
        put(e, 0x67);
    if (f->vex) {
        put_vex(e);
        return;
    }
    if (f->lock)
        put(e, 0xf0);
    if (f->opsize)
        put(e, 0x66);
    if (f->rep)
        put(e, f->rep);
    /* An empty REX prefix makes SPL .. DIL of AH .. BH. */
    if (f->w || e->r || e->x || e->b || (f->mode == MODE_64 && extra && rnd_pct(e->g, 20)))
        put(e, 0x40u | (unsigned)f->w << 3 | (unsigned)e->r << 2 | (unsigned)e->x << 1 | e->b);
    if (f->map)
        put(e, 0x0f);
    if (f->map > 1)
        put(e, f->map == 2 ? 0x38 : 0x3a);
}

static void random_code(const struct form *f, struct rng *g, bool extra, uint8_t code[INSN_MAX])
{
    struct emit e = {.f = f, .g = g, .code = code};
    uint64_t fill[2] = {rnd(g), rnd(g)};
    memcpy(code, fill, INSN_MAX);
    if (f->modrm)
        choose_modrm(&e);
    unsigned opcode = f->opcode;
    if (f->free_op) {
        opcode = (opcode & ~7u) | rnd_n(g, 8);
        e.b = f->mode == MODE_64 && rnd_pct(g, 50);
    }
    put_prefixes(&e, extra);
    put(&e, opcode);
    if (f->modrm)
        put(&e, e.modrm);
    if (e.has_sib)
        put(&e, e.sib);
}

/* An address cannot be had by solving for the base if the index is the same register. */
static bool solvable(const struct insn *i)
{
    for (unsigned n = 0; n < i->zi.operand_count; n++) {
        const ZydisDecodedOperandMem *m = &i->op[n].mem;
        if (i->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY && m->base != ZYDIS_REGISTER_NONE &&
            m->base == m->index)
            return false;
    }
    return true;
}

static void edge_immediates(struct rng *g, struct insn *i, uint8_t *code)
{
    static const uint32_t edges[] = {
        0,  1,    2,    7,    8,      15,     16,     31,         32,         33,        63,
        64, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff};
    for (unsigned n = 0; n < 2; n++) {
        unsigned size = i->zi.raw.imm[n].size / 8;
        if (!size || !rnd_pct(g, 40))
            continue;
        uint64_t v = edges[rnd_n(g, ARRAY_LEN(edges))];
        if (rnd_pct(g, 30))
            v = (uint64_t)(int64_t)(int32_t)v;
        memcpy(code + i->zi.raw.imm[n].offset, &v, size);
    }
}

/* EDX:EAX chooses state components, of which the host may have more than the engine. */
static bool masks_components(const struct insn *i)
{
    return i->zi.meta.category == ZYDIS_CATEGORY_XSAVE ||
           i->zi.meta.category == ZYDIS_CATEGORY_XSAVEOPT;
}

static bool accept(const struct form *f, const uint8_t *code, struct insn *out)
{
    return insn_decode(f->mode, code, 15, out) && insn_key(f->mode, out) == f->key &&
           !freedom_excluded(out) && solvable(out) &&
           !(masks_components(out) &&
             (addresses_with(out, X86_RAX) || addresses_with(out, X86_RDX)));
}

void encode_case(const struct form *f, struct rng *g, struct input *in, struct insn *out)
{
    for (unsigned n = 0; n < TRIES; n++) {
        random_code(f, g, n < TRIES / 2, in->code);
        if (!accept(f, in->code, out))
            continue;
        uint8_t before[INSN_MAX];
        memcpy(before, in->code, INSN_MAX);
        edge_immediates(g, out, in->code);
        if (!accept(f, in->code, out)) {
            memcpy(in->code, before, INSN_MAX);
            insn_decode(f->mode, in->code, 15, out);
        }
        in->len = out->zi.length;
        return;
    }
    form_plain_code(f, in->code);
    insn_decode(f->mode, in->code, 15, out);
    in->len = out->zi.length;
}
