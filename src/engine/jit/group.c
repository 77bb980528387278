/*
 * group.c - memory accesses that share one TLB check.
 *
 * Stack frames and structures are accessed through one register, at small offsets from each other.
 * The first such access checks the whole range that those to come will touch, which must lie within
 * one page; the host address that belongs to it stays in a register (H_HELD) for the others. If the
 * check fails, the rest of the translation is executed by another one (jit_tb.single), made when
 * that happens for the first time, in which each access has its own check.
 *
 * What is held stays valid: a TLB entry is given up only at the guest's request or when the memory
 * map changes, neither of which happens within a translation but in C code, which ends the group. A
 * page to which the right to write is withdrawn meanwhile is dealt with as in tr_stored(): all the
 * group's stores from then on are reported.
 */
#include "engine/jit/tr.h"

/* Bytes: long ranges cross pages often. In translations made for size, that takes C code. */
#define RANGE_MAX       512
#define RANGE_MAX_SMALL 128

static bool is_gpr64(const ZydisDecodedOperand *o, unsigned guest)
{
    return o->type == ZYDIS_OPERAND_TYPE_REGISTER &&
           ZydisRegisterGetClass(o->reg.value) == ZYDIS_REGCLASS_GPR64 &&
           (unsigned)ZydisRegisterGetId(o->reg.value) == guest;
}

static bool is_gpr(const ZydisDecodedOperand *o, unsigned guest)
{
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return false;
    ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o->reg.value);
    return ZydisRegisterGetClass(wide) == ZYDIS_REGCLASS_GPR64 &&
           (unsigned)ZydisRegisterGetId(wide) == guest;
}

bool tr_writes(const struct jit_src *s, unsigned guest)
{
    for (unsigned n = 0; n < s->zi.operand_count; n++)
        if ((s->op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) && is_gpr(&s->op[n], guest))
            return true;
    return false;
}

/* PUSH or POP of eight bytes, register or immediate. */
static bool is_plain_stack(const struct jit_src *s)
{
    return s->zi.operand_width == 64 && !(s->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK) &&
           s->op[0].type != ZYDIS_OPERAND_TYPE_MEMORY;
}

/* How the instruction moves the register, if by a known distance. */
static bool moves(const struct jit_src *s, unsigned base, int64_t *by)
{
    *by = 0;
    switch (s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
        *by = base == X86_RSP ? -8 : 0;
        return is_plain_stack(s);
    case ZYDIS_MNEMONIC_POP:
        *by = base == X86_RSP ? 8 : 0;
        return is_plain_stack(s) && !is_gpr(&s->op[0], base);
    case ZYDIS_MNEMONIC_ADD:
    case ZYDIS_MNEMONIC_SUB:
        if (!is_gpr64(&s->op[0], base) || s->op[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
            break;
        *by = s->zi.mnemonic == ZYDIS_MNEMONIC_ADD ? s->op[1].imm.value.s : -s->op[1].imm.value.s;
        return true;
    case ZYDIS_MNEMONIC_LEA:
        if (!is_gpr64(&s->op[0], base) || s->i.base != base || s->i.index != X86_REG_ZERO ||
            s->i.amask != ~0ull)
            break;
        *by = s->i.disp;
        return true;
    default:
        break;
    }
    return !tr_writes(s, base);
}

/* The bytes that the instruction accesses relative to the register; false: none. */
static bool touches(const struct tr *t, const struct jit_src *s, unsigned base, int64_t *from,
                    unsigned *size, bool *write)
{
    switch (s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_CALL:
        *from = -8;
        *size = 8;
        *write = true;
        return base == X86_RSP && s->zi.operand_width == 64;
    case ZYDIS_MNEMONIC_POP:
    case ZYDIS_MNEMONIC_RET:
        *from = 0;
        *size = 8;
        *write = false;
        return base == X86_RSP && s->zi.operand_width == 64;
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_NOP:
        return false;
    default:
        break;
    }
    const struct x86_insn *i = &s->i;
    if (!(i->flags & X86_IF_MEM) || i->base != base || i->index != X86_REG_ZERO ||
        i->amask != ~0ull || tr_seg(t, i->seg) != JIT_SEG_FLAT || (i->flags & X86_IF_LOCK))
        return false;
    for (unsigned n = 0; n < s->zi.operand_count_visible; n++) {
        const ZydisDecodedOperand *o = &s->op[n];
        if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || o->encoding != ZYDIS_OPERAND_ENCODING_MODRM_RM)
            continue;
        *from = i->disp;
        *size = o->size / 8u;
        *write = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
        return *size >= 1 && *size <= 32;
    }
    return false;
}

static bool ends(const struct jit_src *s)
{
    switch (s->zi.meta.category) {
    case ZYDIS_CATEGORY_CALL:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_UNCOND_BR:
        return true;
    default:
        return s->zi.mnemonic == ZYDIS_MNEMONIC_INVALID ||
               ((s->i.flags & X86_IF_END) && s->zi.meta.category != ZYDIS_CATEGORY_COND_BR);
    }
}

/* The accesses from instruction `first` on, until the register becomes something else. */
static unsigned survey(const struct tr *t, unsigned first, unsigned base, struct held *h)
{
    unsigned count = 0;
    int64_t at = 0;
    for (unsigned n = first; n < t->n && !(n > first && t->target[n]); n++) {
        const struct jit_src *s = &t->j->src[n];
        int64_t from, by;
        unsigned size;
        bool write;
        if (touches(t, s, base, &from, &size, &write)) {
            int64_t lo = at + from, hi = lo + size;
            if (count) {
                lo = lo < h->lo ? lo : h->lo;
                hi = hi > h->hi ? hi : h->hi;
            }
            if (hi - lo > (t->small ? RANGE_MAX_SMALL : RANGE_MAX))
                break;
            h->lo = lo;
            h->hi = hi;
            h->write |= write;
            h->last = n;
            if (write)
                h->last_write = n;
            count++;
        }
        if (ends(s) || !moves(s, base, &by))
            break;
        at += by;
    }
    return count;
}

bool tr_group_begin(struct tr *t, unsigned base)
{
    unsigned n = (unsigned)(t->s - t->j->src);
    struct held h = {.base = base, .first = n};
    if (t->tb->single || !tr_code64(t) || (t->held.active && t->held.last > n) ||
        tr_reg(base) == H_NONE || survey(t, n, base, &h) < 2)
        return false;
    h.active = true;
    t->held = h;
    return true;
}

bool tr_group_has(const struct tr *t, unsigned base, int64_t from, unsigned size, bool write)
{
    const struct held *h = &t->held;
    return h->active && h->base == base && (h->write || !write) && from + h->at >= h->lo &&
           from + h->at + size <= h->hi;
}

bool tr_group_stores(const struct tr *t)
{
    return t->held.active && t->held.write && t->s < &t->j->src[t->held.last_write];
}

void tr_group_step(struct tr *t)
{
    struct held *h = &t->held;
    int64_t by;
    if (!h->active)
        return;
    unsigned n = (unsigned)(t->s - t->j->src);
    if (n >= h->last || !moves(t->s, h->base, &by))
        h->active = false;
    else
        h->at += by;
}
