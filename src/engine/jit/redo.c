/*
 * redo.c - where the guest's flags are, and how they are made again.
 *
 * Code that checks memory loses EFLAGS, and may fault, so that the flags would have to be in
 * cpu->fl whenever it follows a comparison: that is, nearly always. Instead they are left nowhere
 * at all as long as the instruction that made them can be executed again (t->redo): where they are
 * read; in the cold piece that needs them in their home; or, where a thunk that is called may
 * leave, in C, by what its site knows (struct jit_redo).
 */
#include "engine/jit/tr.h"

#include <string.h>

#define NO_REG 0xffu

/* A general register other than AH, CH, DH and BH. */
static bool whole(const ZydisDecodedOperand *o, unsigned *guest)
{
    ZydisRegister r = o->reg.value;
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER ||
        (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH))
        return false;
    ZydisRegister wide = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
    *guest = (unsigned)ZydisRegisterGetId(wide);
    return ZydisRegisterGetClass(wide) == ZYDIS_REGCLASS_GPR64;
}

static bool source(struct jit_redo *a, const ZydisDecodedOperand *o)
{
    unsigned src;
    if (o->type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        a->imm = (int32_t)o->imm.value.s;
        return true;
    }
    if (!whole(o, &src) || (tr_reg(src) == H_NONE && tr_reg(a->dst) == H_NONE))
        return false;
    a->src = (uint8_t)src;
    return true;
}

static bool plan(const struct jit_src *s, struct jit_redo *a)
{
    unsigned dst;
    if (!whole(&s->op[0], &dst))
        return false;
    *a =
        (struct jit_redo){.dst = (uint8_t)dst, .src = NO_REG, .size = (uint8_t)(s->op[0].size / 8)};
    switch (s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_AND:
    case ZYDIS_MNEMONIC_OR:
    case ZYDIS_MNEMONIC_XOR: /* what they leave of the result, a comparison with 0 does, too */
        a->kind = JIT_REDO_CMP;
        return true;
    case ZYDIS_MNEMONIC_CMP:
        a->kind = JIT_REDO_CMP;
        return source(a, &s->op[1]);
    case ZYDIS_MNEMONIC_TEST:
        a->kind = JIT_REDO_TEST;
        return source(a, &s->op[1]);
    case ZYDIS_MNEMONIC_ADD:
        a->kind = JIT_REDO_ADD;
        return source(a, &s->op[1]) && a->src != a->dst;
    case ZYDIS_MNEMONIC_SUB:
        a->kind = JIT_REDO_SUB;
        return source(a, &s->op[1]) && a->src != a->dst;
    default:
        return false;
    }
}

static struct opnd home(unsigned guest)
{
    return tr_reg(guest) == H_NONE ? OP_GS(G_GPR(guest)) : OP_REG((uint8_t)tr_reg(guest));
}

static void operate(struct tr *t, const struct jit_redo *a, enum asm_alu op)
{
    struct opcode o = {.op = a->size > 1,
                       .prefix = a->size == 2 ? 0x66 : 0,
                       .w = a->size == 8,
                       .byte_reg = a->size == 1,
                       .byte_rm = a->size == 1};
    bool dst = a->src == NO_REG || tr_reg(a->src) == H_NONE; /* that is the field `reg` */
    if (a->src == NO_REG && !(a->kind == JIT_REDO_TEST)) {
        asm_alu_imm(&t->b, op, home(a->dst), a->imm, a->size);
    } else if (a->src == NO_REG) {
        o.op |= 0xf6;
        asm_insn(&t->b, o, 0, home(a->dst));
        asm_bytes(&t->b, &a->imm, a->size < 4 ? a->size : 4);
    } else {
        o.op |= (uint8_t)((a->kind == JIT_REDO_TEST) ? 0x84 : op << 3 | (dst ? 2 : 0));
        asm_insn(&t->b, o, tr_reg(dst ? a->dst : a->src), home(dst ? a->src : a->dst));
    }
}

void tr_redo(struct tr *t, const struct jit_redo *r)
{
    bool add = r->kind == JIT_REDO_ADD, sub = r->kind == JIT_REDO_SUB;
    if (add || sub) /* undone first */
        operate(t, r, add ? ALU_SUB : ALU_ADD);
    operate(t, r, add ? ALU_ADD : sub ? ALU_SUB : ALU_CMP);
}

/* Does the instruction change what is needed for that? */
static bool breaks(const struct jit_src *s, const struct jit_redo *r)
{
    return tr_writes(s, r->dst) || (r->src != NO_REG && tr_writes(s, r->src));
}

/* ---- without host code ---- */

/* As LAHF and SETO give them: struct x86_cpu, fl. */
#define FLAGS_OF(insn, a, b)                        \
    ({                                              \
        uint64_t d_ = (a);                          \
        uint16_t f_;                                \
        __asm__(insn " %2, %0\n\tlahf\n\tseto %%al" \
                : "+r"(d_), "=&a"(f_)               \
                : "r"((uint64_t)(b))                \
                : "cc");                            \
        f_;                                         \
    })

static uint16_t flags64(enum jit_redo_kind kind, uint64_t a, uint64_t b)
{
    return kind == JIT_REDO_ADD    ? FLAGS_OF("add", a, b)
           : kind == JIT_REDO_TEST ? FLAGS_OF("and", a, b)
                                   : FLAGS_OF("sub", a, b);
}

uint16_t jit_redo_flags(const struct x86_cpu *c, const struct jit_redo *r)
{
    const uint16_t low = X86_FL_PF << 8 | X86_FL_AF << 8; /* of the result's low bits */
    enum jit_redo_kind kind = r->kind;
    uint64_t a = c->s.gpr[r->dst], b = r->src == NO_REG ? (uint64_t)r->imm : c->s.gpr[r->src];
    if (kind == JIT_REDO_ADD)
        a -= b;
    else if (kind == JIT_REDO_SUB)
        a += b;
    unsigned up = 64 - 8u * r->size; /* the others depend on the result's high bits */
    return (uint16_t)((flags64(kind, a << up, b << up) & ~low) | (flags64(kind, a, b) & low));
}

void tr_redo_site(struct tr *t, struct jit_site *s)
{
    if (t->fl || t->redo.kind == JIT_REDO_NONE)
        return;
    if (!t->nredo || memcmp(&t->redos[t->nredo - 1], &t->redo, sizeof t->redo) != 0)
        t->redos[t->nredo++] = t->redo; /* one for each instruction at most */
    s->redo = (uint8_t)t->nredo;
}

/* ---- where they are ---- */

void tr_need_ef(struct tr *t)
{
    if (!t->ef && t->redo.kind != JIT_REDO_NONE)
        tr_redo(t, &t->redo);
    else if (!t->ef)
        asm_flags_load(&t->b, G_OFF(fl));
    t->ef = true;
}

void tr_need_fl(struct tr *t)
{
    if (t->fl)
        return;
    if (t->redo.kind != JIT_REDO_NONE)
        tr_need_ef(t);
    asm_flags_save(&t->b, G_OFF(fl));
    t->fl = true;
}

/* Will others be made before anything needs those of t->redo in cpu->fl, which is cheaper if it is
 * done at once? */
static bool die_soon(const struct tr *t)
{
    for (unsigned n = (unsigned)(t->s - t->j->src), k = n; k < t->n; k++) {
        const struct jit_src *s = &t->j->src[k];
        if (k > n && t->target[k])
            return false;
        if ((s->i.flags & X86_IF_END) && s->zi.meta.category != ZYDIS_CATEGORY_COND_BR)
            return false;
        struct tr_flags f = tr_flags_of(t, s);
        if ((f.writes & X86_FL_ARITH) == X86_FL_ARITH && !f.reads)
            return true;
        if (f.writes || breaks(s, &t->redo))
            return false;
    }
    return false;
}

void tr_free_ef(struct tr *t)
{
    if (!t->fl && (t->redo.kind == JIT_REDO_NONE || !die_soon(t)))
        tr_need_fl(t);
    t->ef = false;
}

void tr_flags_written(struct tr *t)
{
    t->ef = true;
    t->fl = false;
    t->redo.kind = JIT_REDO_NONE;
}

void tr_flags_begin(struct tr *t)
{
    if (t->redo.kind == JIT_REDO_NONE || !breaks(t->s, &t->redo))
        return;
    struct tr_flags f = tr_flags_of(t, t->s);
    t->redo_ends = true;
    if (!t->ef && !t->fl && ((f.writes & X86_FL_ARITH) != X86_FL_ARITH || f.reads))
        tr_need_ef(t);
}

void tr_flags_end(struct tr *t)
{
    struct jit_redo r;
    if (t->redo_ends)
        t->redo.kind = JIT_REDO_NONE;
    t->redo_ends = false;
    if (t->ef && !t->fl && t->redo.kind == JIT_REDO_NONE && plan(t->s, &r))
        t->redo = r;
}
