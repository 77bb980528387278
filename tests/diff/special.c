/*
 * special.c - instructions for which random operands would nearly always mean the same
 * uninteresting thing: a divide error, a branch to nowhere, a selector beyond the table, a reserved
 * bit.
 */
#include <string.h>

#include "diff.h"

struct job {
    const struct form *f;
    struct rng *g;
    const struct insn *i;
    const struct placement *p;
    struct input *in;
};

/* Writes to the memory operand, as far as it is mapped. */
static void poke(const struct job *j, unsigned off, uint64_t v, unsigned size)
{
    uint8_t *to = j->p->any ? patch_at(j->in, j->p->at + off, size) : NULL;
    if (to)
        memcpy(to, &v, size);
}

static uint64_t peek(const struct job *j, unsigned off, unsigned size)
{
    uint64_t v = 0;
    const uint8_t *from = j->p->any ? patch_at(j->in, j->p->at + off, size) : NULL;
    if (from)
        memcpy(&v, from, size);
    return v;
}

static void gpr(const struct job *j, unsigned n, uint64_t v)
{
    j->in->r.gpr[n] = j->f->mode == MODE_64 ? v : (uint32_t)v;
}

bool addresses_with(const struct insn *i, unsigned n)
{
    for (unsigned k = 0; k < i->zi.operand_count; k++) {
        const ZydisDecodedOperand *o = &i->op[k];
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY &&
            ((o->mem.base != ZYDIS_REGISTER_NONE &&
              (unsigned)ZydisRegisterGetId(o->mem.base) == n) ||
             (o->mem.index != ZYDIS_REGISTER_NONE &&
              (unsigned)ZydisRegisterGetId(o->mem.index) == n)))
            return true;
    }
    return false;
}

/* ---- DIV, IDIV: a high half small enough that there is a quotient ---- */

static void divide(const struct job *j)
{
    struct regs *r = &j->in->r;
    unsigned size = j->i->op[0].size / 8;
    if (rnd_pct(j->g, 25) || addresses_with(j->i, X86_RDX) || addresses_with(j->i, X86_RAX))
        return;
    uint64_t high = rnd_n(j->g, 4) ? 0 : rnd_n(j->g, 8);
    if (j->i->zi.mnemonic == ZYDIS_MNEMONIC_IDIV && rnd_pct(j->g, 50))
        high = ~0ull;
    if (size == 1)
        gpr(j, X86_RAX, (r->gpr[X86_RAX] & ~0xff00ull) | (high & 0xff) << 8);
    else
        gpr(j, X86_RDX, high);
}

/* ---- targets ---- */

static uint64_t code_pointer(const struct job *j)
{
    uint64_t at = rnd_n(j->g, 0x700); /* breakpoints only */
    return j->f->mode == MODE_16 ? at : CODE_AT + at;
}

static void branch(const struct job *j)
{
    const ZydisDecodedOperand *o = &j->i->op[0];
    bool indirect = !(o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE && o->imm.is_relative);
    uint64_t to = rnd_pct(j->g, 70) ? code_pointer(j) : random_gpr(j->g, j->f->mode);
    if (rnd_pct(j->g, 40) && !addresses_with(j->i, X86_RCX))
        gpr(j, X86_RCX, rnd_n(j->g, 3)); /* LOOP, JCXZ */
    if (!indirect)
        return;
    if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && o->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN)
        set_reg(&j->in->r, j->f->mode, o->reg.value, to);
    else
        poke(j, 0, to, 8);
}

/* ---- selectors ---- */

static uint16_t selector(struct rng *g)
{
    static const uint16_t sels[] = {0,    1,    2,    3,    4,    7,    8,    0x0b, 0x10,   0x13,
                                    0x18, 0x1b, 0x20, 0x23, 0x28, 0x2b, 0x30, 0x33, 0x2a,   0x31,
                                    0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x37, 0x3f, 0x0c, 0xfff8, 0x83};
    return rnd_pct(g, 90) ? sels[rnd_n(g, ARRAY_LEN(sels))] : (uint16_t)(rnd(g) | 0x80);
}

static void segment(const struct job *j)
{
    uint16_t sel = selector(j->g);
    for (unsigned n = 0; n < j->i->zi.operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &j->i->op[n];
        if (o->type == ZYDIS_OPERAND_TYPE_REGISTER && (o->actions & ZYDIS_OPERAND_ACTION_MASK_READ))
            set_reg(&j->in->r, j->f->mode, o->reg.value, sel);
        if (o->type == ZYDIS_OPERAND_TYPE_MEMORY && o->size > 16 && o->size != 64)
            poke(j, o->size / 8u - 2, sel, 2); /* LDS and relatives; POP */
    }
    if (j->i->zi.mnemonic == ZYDIS_MNEMONIC_POP || (j->p->size <= 2 && j->p->any))
        poke(j, 0, sel, 2);
}

/* ---- FPU images ---- */

static void fpu_image(const struct job *j)
{
    struct x86_xsave x;
    random_fpu(j->g, &x);
    x.mxcsr_mask = 0;
    unsigned size = (unsigned)min_u64(j->p->size, sizeof x);
    uint8_t *to = j->p->any ? patch_at(j->in, j->p->at, size) : NULL;
    /* The state components that both have */
    gpr(j, X86_RDX, 0);
    gpr(j, X86_RAX, rnd_pct(j->g, 50) ? 7 : rnd_n(j->g, 8));
    if (!to || rnd_pct(j->g, 5))
        return;
    x.xstate_bv = rnd_n(j->g, 8);
    if (rnd_pct(j->g, 10))
        x.xcomp_bv = rnd_pct(j->g, 50) ? rnd_n(j->g, 8) : rnd(j->g);
    if (rnd_pct(j->g, 30)) /* compacted */
        x.xcomp_bv = 1ull << 63 | 7;
    if (rnd_pct(j->g, 4))
        x.mxcsr |= 0x10000;
    memcpy(to, &x, size);
}

static void mxcsr(const struct job *j)
{
    poke(j, 0, rnd_pct(j->g, 90) ? rnd(j->g) & 0xffff : rnd(j->g), 4);
}

/* ---- comparisons that should sometimes be equal ---- */

static void compare_exchange(const struct job *j)
{
    unsigned half = j->p->size / 2;
    if (rnd_pct(j->g, 40))
        return;
    if (j->i->zi.mnemonic != ZYDIS_MNEMONIC_CMPXCHG) {
        if (addresses_with(j->i, X86_RAX) || addresses_with(j->i, X86_RDX))
            return;
        gpr(j, X86_RAX, peek(j, 0, half));
        gpr(j, X86_RDX, peek(j, half, half));
    } else if (j->p->any && !addresses_with(j->i, X86_RAX)) {
        gpr(j, X86_RAX, peek(j, 0, j->p->size));
    } else if (!j->p->any) {
        gpr(j, X86_RAX, get_reg(&j->in->r, j->i->op[0].reg.value));
    }
}

/* The bit offset reaches beyond the operand; seldom out of the pages. */
static void bit_offset(const struct job *j)
{
    const ZydisDecodedOperand *o = &j->i->op[1];
    unsigned n = (unsigned)ZydisRegisterGetId(o->reg.value);
    if (j->f->mem && o->type == ZYDIS_OPERAND_TYPE_REGISTER && !addresses_with(j->i, n))
        set_reg(&j->in->r, j->f->mode, o->reg.value,
                j->f->lock ? rnd_n(j->g, 64) : (uint64_t)rnd_n(j->g, 1024) - 512);
}

/* ---- counts, masks ---- */

static void repeat_count(const struct job *j)
{
    uint64_t n = rnd_pct(j->g, 95) ? rnd_n(j->g, 24) : rnd_n(j->g, 3000);
    gpr(j, X86_RCX, n);
}

/* Masks whose elements are on or off. */
static void vector_mask(const struct job *j, const ZydisDecodedOperand *o)
{
    unsigned id = (unsigned)ZydisRegisterGetId(o->reg.value) & 15;
    for (unsigned n = 0; n < 16; n++) {
        if (rnd_pct(j->g, 50))
            j->in->r.fpu.xmm[id][n] ^= 0x80;
        if (rnd_pct(j->g, 50))
            j->in->r.fpu.ymmh[id][n] ^= 0x80;
    }
}

/* Lengths of the explicit-length string comparisons. */
static void string_lengths(const struct job *j)
{
    if (!addresses_with(j->i, X86_RAX))
        gpr(j, X86_RAX, (uint64_t)rnd_n(j->g, 48) - 20);
    if (!addresses_with(j->i, X86_RDX))
        gpr(j, X86_RDX, (uint64_t)rnd_n(j->g, 48) - 20);
}

static bool loads_segment(const struct insn *i)
{
    for (unsigned n = 0; n < i->zi.operand_count; n++)
        if (i->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(i->op[n].reg.value) == ZYDIS_REGCLASS_SEGMENT &&
            (i->op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE))
            return true;
    return false;
}

void special_operands(const struct form *f, struct rng *g, const struct insn *i,
                      const struct placement *p, struct input *in)
{
    const struct job j = {f, g, i, p, in};
    if (f->cls == CLASS_FLOW)
        branch(&j);
    if (loads_segment(i) && f->cls != CLASS_FLOW)
        segment(&j);
    if (i->zi.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
        repeat_count(&j);
    switch (i->zi.mnemonic) {
    case ZYDIS_MNEMONIC_DIV:
    case ZYDIS_MNEMONIC_IDIV:
        divide(&j);
        break;
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW:
    case ZYDIS_MNEMONIC_ARPL:
        segment(&j);
        break;
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XSAVE:
    case ZYDIS_MNEMONIC_XSAVE64:
    case ZYDIS_MNEMONIC_XSAVEOPT:
    case ZYDIS_MNEMONIC_XSAVEOPT64:
    case ZYDIS_MNEMONIC_XSAVEC:
    case ZYDIS_MNEMONIC_XSAVEC64:
        fpu_image(&j);
        break;
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
        mxcsr(&j);
        break;
    case ZYDIS_MNEMONIC_CMPXCHG:
    case ZYDIS_MNEMONIC_CMPXCHG8B:
    case ZYDIS_MNEMONIC_CMPXCHG16B:
        compare_exchange(&j);
        break;
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        bit_offset(&j);
        break;
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_VPCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRM:
        string_lengths(&j);
        break;
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
        vector_mask(&j, &i->op[1]);
        break;
    default:
        break;
    }
    if (i->zi.meta.category == ZYDIS_CATEGORY_AVX2GATHER)
        vector_mask(&j, &i->op[2]);
}
