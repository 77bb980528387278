/* flags.c - what instructions do with the arithmetic flags, and what follows for translations. */
#include "engine/jit/tr.h"
#include "isa/x86/code.h"

/* A shift or rotation leaves all flags alone if its count is zero (SDM vol. 2). */
static bool may_shift_by_zero(const struct jit_src *s)
{
    switch (s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
        break;
    default:
        return false;
    }
    const ZydisDecodedOperand *count = &s->op[s->zi.operand_count_visible - 1];
    unsigned mask = s->zi.operand_width == 64 ? 63 : 31;
    return count->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || !(count->imm.value.u & mask);
}

/* The logical instructions clear AF on every processor, though the manuals leave it undefined. */
static bool is_logical(ZydisMnemonic m)
{
    return m == ZYDIS_MNEMONIC_AND || m == ZYDIS_MNEMONIC_OR || m == ZYDIS_MNEMONIC_XOR ||
           m == ZYDIS_MNEMONIC_TEST;
}

/* Register-to-register arithmetic that is copied whatever its operands are. */
static bool is_copied(const struct jit_src *s)
{
    if (s->op[0].size <= 8 || s->i.flags & X86_IF_MEM)
        return false;
    switch (s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR:
    case ZYDIS_MNEMONIC_CMP:
    case ZYDIS_MNEMONIC_TEST:
    case ZYDIS_MNEMONIC_ADC:
    case ZYDIS_MNEMONIC_SBB:
    case ZYDIS_MNEMONIC_INC:
    case ZYDIS_MNEMONIC_DEC:
    case ZYDIS_MNEMONIC_NEG:
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
        return true;
    default:
        return false;
    }
}

/* Reads and writes, not counting flags that are left alone. */
static struct tr_flags plain_flags(const struct tr *t, const struct jit_src *s)
{
    const ZydisAccessedFlags *f = s->zi.cpu_flags;
    struct tr_flags r = {0};
    if (!f || s->zi.mnemonic == ZYDIS_MNEMONIC_INVALID)
        return r;
    r.reads = f->tested & X86_FL_ARITH;
    uint32_t sure = (f->modified | f->set_0 | f->set_1) & X86_FL_ARITH;
    uint32_t maybe = f->undefined & X86_FL_ARITH & ~sure;
    r.writes = sure | maybe;
    if (may_shift_by_zero(s))
        r.reads |= X86_FL_ARITH;
    return r;
}

static bool needs_home(const struct jit_src *s);

/* Will any of these flags be seen behind instruction n: by a reader, or where they are saved
 * because the next instruction may fault or the translation is left? */
static bool live_behind(const struct tr *t, unsigned n, uint32_t flags)
{
    for (n++; n < t->n && !t->target[n]; n++) {
        const struct jit_src *s = &t->j->src[n];
        struct tr_flags f = plain_flags(t, s);
        if (needs_home(s) && !(f.writes && !(s->i.flags & X86_IF_MEM) && is_copied(s)))
            return true;
        if (f.reads & flags)
            return true;
        flags &= ~f.writes;
        if (!flags)
            return false;
    }
    return true;
}

struct tr_flags tr_flags_of(const struct tr *t, const struct jit_src *s)
{
    struct tr_flags r = plain_flags(t, s);
    uint32_t kept = r.writes ? X86_FL_ARITH & ~r.writes : 0;
    if (kept && live_behind(t, (unsigned)(s - t->j->src), kept))
        r.reads |= kept;
    return r;
}

/* Does it need the flags in their home, since it accesses memory or calls something? Of those that
 * it does not know it is assumed. */
static bool needs_home(const struct jit_src *s)
{
    if (s->i.flags & X86_IF_MEM)
        return s->zi.mnemonic != ZYDIS_MNEMONIC_LEA && s->zi.mnemonic != ZYDIS_MNEMONIC_NOP;
    switch (s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_MOV:
        return s->op[0].size < 16 || s->zi.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT ||
               ZydisRegisterGetClass(s->op[0].reg.value) == ZYDIS_REGCLASS_SEGMENT;
    case ZYDIS_MNEMONIC_MOVZX:
    case ZYDIS_MNEMONIC_MOVSX:
        return s->op[1].size < 16; /* AH */
    case ZYDIS_MNEMONIC_RORX:
    case ZYDIS_MNEMONIC_SHLX:
    case ZYDIS_MNEMONIC_SHRX:
    case ZYDIS_MNEMONIC_SARX:
    case ZYDIS_MNEMONIC_NOT:
    case ZYDIS_MNEMONIC_BSWAP:
        return s->op[0].size < 32;
    case ZYDIS_MNEMONIC_MOVSXD:
    case ZYDIS_MNEMONIC_CDQE:
    case ZYDIS_MNEMONIC_CWDE:
    case ZYDIS_MNEMONIC_CDQ:
    case ZYDIS_MNEMONIC_CQO:
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_ENDBR32:
    case ZYDIS_MNEMONIC_ENDBR64:
        return false;
    default:
        return true;
    }
}

enum want tr_want(const struct tr *t, unsigned from)
{
    for (unsigned n = from; n < t->n; n++) {
        const struct jit_src *s = &t->j->src[n];
        struct tr_flags f = tr_flags_of(t, s);
        if (!(s->i.flags & X86_IF_MEM) && f.reads)
            return WANT_EF;
        if (f.writes)
            return is_copied(s) ? WANT_ANY : WANT_FL;
        if (needs_home(s))
            return WANT_FL;
    }
    return WANT_EF;
}

/* ---- for comparisons ---- */

/* REP CMPS and SCAS leave the flags alone if RCX is zero. */
static bool is_repeated(const struct jit_src *s)
{
    return s->zi.attributes & (ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
}

static struct jit_undefined behind(const struct jit_src *s, struct jit_undefined u)
{
    const ZydisAccessedFlags *f = s->zi.cpu_flags;
    if (!f || s->zi.mnemonic == ZYDIS_MNEMONIC_INVALID)
        return u;
    uint32_t sure = (f->modified | f->set_0 | f->set_1) & ~f->undefined;
    u.read |= f->tested & u.flags;
    if (!may_shift_by_zero(s) && !is_repeated(s))
        u.flags &= ~sure;
    if (!is_logical(s->zi.mnemonic))
        u.flags |= f->undefined & X86_FL_ARITH;
    return u;
}

struct jit_undefined jit_undefined_flags(struct x86_cpu *c, const struct jit_tb *tb, unsigned len)
{
    struct jit_undefined u = {0};
    if (tb->cross)
        return (struct jit_undefined){.flags = X86_FL_ARITH};
    for (unsigned off = 0; off < len && off < tb->len;) {
        struct jit_src s;
        unsigned n = x86_decode_full(c, c->ram->host + tb->roff + off, tb->len - off, off, &s.i,
                                     &s.zi, s.op);
        if (!n)
            break;
        u = behind(&s, u);
        off += n;
    }
    return u;
}
