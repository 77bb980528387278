/*
 * x87.c - x87 and MMX instructions: copied, since the guest's x87 state is in the host's unit.
 *
 * The mode says that all errors are masked and none is pending (JIT_M_X87), so that none can be
 * reported by the host. What could change that is checked here (FLDCW), or ends the translation.
 *
 * The host would record the addresses of its own instructions and operands. FOP, FIP and FDP are
 * therefore kept in struct x86_cpu while the rest is in the host's unit (thunks.c). FIP and FOP are
 * written only where another instruction than those here could see them: t->x87_last is the one
 * that they are still to be told of.
 *
 * MMX instructions work on the same registers and leave the pointers alone.
 */
#include "engine/jit/tr.h"
#include "isa/x86/fpu.h"
#include "isa/x86/native.h"

enum kind {
    NOT_OURS,
    NOTHING,  /* FWAIT: there is no error to wait for */
    COPY,     /* sets the pointers */
    CONTROL,  /* does not */
    INIT,     /* clears them */
    LOAD_FCW, /* might unmask errors */
    STATUS_AX,
    MMX,
    EMPTY_MMX,
};

/* Second encodings that no manual promises (FCOM2, FSTP1, FXCH4 ...); FFREEP is one that compilers
 * use. */
static bool is_alias(const struct jit_src *s)
{
    unsigned modrm = s->bytes[s->zi.raw.modrm.offset];
    switch (s->zi.opcode << 8 | (modrm & 0xf8)) {
    case 0xd9d8:
    case 0xdcd0:
    case 0xdcd8:
    case 0xddc8:
    case 0xded0:
    case 0xdfc8:
    case 0xdfd0:
    case 0xdfd8:
        return true;
    default:
        return false;
    }
}

/* Those that need SSE registers, too, or access memory in ways of their own, are not. */
static bool is_mmx(const struct tr *t, const struct jit_src *s)
{
    return jit_has(s->classes, ZYDIS_REGCLASS_MMX) && !jit_has_vector(s->classes) &&
           s->zi.meta.category != ZYDIS_CATEGORY_CONVERT &&
           s->zi.mnemonic != ZYDIS_MNEMONIC_MASKMOVQ && s->zi.mnemonic != ZYDIS_MNEMONIC_MOVNTQ &&
           tr_generic_can(t, s);
}

static enum kind kind_of(const struct tr *t, const struct jit_src *s)
{
    if (!(t->m->bits & JIT_M_X87))
        return NOT_OURS;
    if ((s->i.flags & X86_IF_MEM) && !tr_mem_can(t, &s->i))
        return NOT_OURS;
    switch (s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_FWAIT:
        return NOTHING;
    case ZYDIS_MNEMONIC_FNSTSW:
        return s->i.flags & X86_IF_MEM ? CONTROL : STATUS_AX;
    case ZYDIS_MNEMONIC_FNSTCW:
    case ZYDIS_MNEMONIC_FNCLEX:
        return CONTROL;
    case ZYDIS_MNEMONIC_FNINIT:
        return INIT;
    case ZYDIS_MNEMONIC_FLDCW:
        return LOAD_FCW;
    case ZYDIS_MNEMONIC_EMMS:
        return EMPTY_MMX;
    case ZYDIS_MNEMONIC_INVALID:
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSAVE:
    case ZYDIS_MNEMONIC_FENI8087_NOP:
    case ZYDIS_MNEMONIC_FDISI8087_NOP:
    case ZYDIS_MNEMONIC_FSETPM287_NOP:
        return NOT_OURS;
    default:
        break;
    }
    if (s->zi.meta.category != ZYDIS_CATEGORY_X87_ALU &&
        s->zi.meta.category != ZYDIS_CATEGORY_FCMOV)
        return is_mmx(t, s) ? MMX : NOT_OURS;
    return !(s->i.flags & X86_IF_MEM) && is_alias(s) ? NOT_OURS : COPY;
}

bool tr_is_x87(const struct tr *t, const struct jit_src *s)
{
    return kind_of(t, s) > NOTHING;
}

bool tr_x87_may_end(const struct tr *t, const struct jit_src *s)
{
    switch (s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_FLDCW:
    case ZYDIS_MNEMONIC_FNCLEX:
    case ZYDIS_MNEMONIC_FNINIT:
        return !tr_is_x87(t, s);
    case ZYDIS_MNEMONIC_FLDENV:
    case ZYDIS_MNEMONIC_FNSTENV:
    case ZYDIS_MNEMONIC_FRSTOR:
    case ZYDIS_MNEMONIC_FNSAVE:
        return true;
    default:
        return false;
    }
}

/* Only of those is it known that they do not: SSE's and AVX's with vector registers (not FXSAVE),
 * and what is neither of these nor XSAVE. */
bool tr_touches_x87(const struct jit_src *s)
{
    if (s->zi.mnemonic == ZYDIS_MNEMONIC_INVALID || jit_has(s->classes, ZYDIS_REGCLASS_MMX) ||
        jit_has(s->classes, ZYDIS_REGCLASS_X87))
        return true;
    switch (s->zi.meta.isa_ext) {
    case ZYDIS_ISA_EXT_BASE:
    case ZYDIS_ISA_EXT_BMI1:
    case ZYDIS_ISA_EXT_BMI2:
    case ZYDIS_ISA_EXT_INVPCID:
    case ZYDIS_ISA_EXT_LONGMODE:
    case ZYDIS_ISA_EXT_RDTSCP:
    case ZYDIS_ISA_EXT_RDWRFSGS:
    case ZYDIS_ISA_EXT_SMAP:
        return false;
    default:
        return !jit_has_vector(s->classes);
    }
}

/* ---- the pointers ---- */

void tr_x87_tell(struct tr *t, const struct jit_src *s)
{
    struct asm_buf *b = &t->b;
    uint64_t rip = (t->tb->rip + s->off) & t->c->ip_mask;
    if (!t->tb->pic && (int64_t)rip == (int32_t)rip) {
        asm_store_imm(b, OP_GS(G_OFF(jit_x87.fip)), (int32_t)rip, 8);
    } else {
        tr_rip(b, t->tb->pic, H_RAX, rip);
        asm_store(b, OP_GS(G_OFF(jit_x87.fip)), H_RAX, 8);
    }
    if (t->c->native->fop_always)
        asm_store_imm(b, OP_GS(G_OFF(jit_x87.fop)), (int32_t)(s->i.imm & 0x7ff), 4);
}

void tr_x87_settle(struct tr *t)
{
    if (t->x87_last)
        tr_x87_tell(t, t->x87_last);
    t->x87_last = NULL;
}

/* ---- writing ---- */

static const ZydisDecodedOperand *memory_operand(const struct jit_src *s)
{
    for (unsigned n = 0; n < s->zi.operand_count_visible; n++)
        if (s->op[n].type == ZYDIS_OPERAND_TYPE_MEMORY)
            return &s->op[n];
    return NULL;
}

static bool copy_memory(struct tr *t, bool pointers)
{
    const struct jit_src *s = t->s;
    const ZydisDecodedOperand *o = memory_operand(s);
    if (!o)
        return false;
    unsigned size = o->size / 8u;
    bool store = o->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    struct opnd m;
    if (size > 10 || !tr_mem(t, size, store ? ACC_W : ACC_R, 1, &m))
        return false;
    asm_insn(&t->b, (struct opcode){.op = s->zi.opcode}, s->zi.raw.modrm.reg, m);
    if (store)
        tr_stored(t, m, size);
    if (pointers && t->c->native->fdp_always) {
        tr_ea(t, &s->i, H_RAX);
        asm_store(&t->b, OP_GS(G_OFF(jit_x87.fdp)), H_RAX, 8);
    }
    return true;
}

static void copy_register(struct tr *t)
{
    const struct jit_src *s = t->s;
    struct tr_flags f = tr_flags_of(t, s);
    if (f.reads)
        tr_need_ef(t);
    asm_u8(&t->b, s->zi.opcode);
    asm_u8(&t->b, s->bytes[s->zi.raw.modrm.offset]);
    if (f.writes)
        tr_flags_written(t);
}

static bool copy(struct tr *t, bool pointers)
{
    if (!(t->s->i.flags & X86_IF_MEM))
        copy_register(t);
    else if (!copy_memory(t, pointers))
        return false;
    if (pointers)
        t->x87_last = t->s;
    return true;
}

/* The operand is read once: other vCPUs may change it. What the interpreter executes here may
 * unmask errors, so it does not come back. */
static bool load_fcw(struct tr *t)
{
    struct asm_buf *b = &t->b;
    struct opnd m;
    if (!tr_mem(t, 2, ACC_R, 1, &m))
        return false;
    if (!t->fl)
        tr_mem_free_rax(t, &m);
    tr_need_fl(t);
    tr_clobber_ef(t);
    asm_load(b, H_RAX, m, 2);
    asm_mov_rr32(b, H_R11, H_RAX);
    asm_alu_imm(b, ALU_AND, OP_REG(H_R11), X86_FCW_MASKS, 4);
    asm_alu_imm(b, ALU_CMP, OP_REG(H_R11), X86_FCW_MASKS, 4);
    tr_slow_if(t, CC_NZ);
    t->leaves = true;
    asm_alu_imm(b, ALU_AND, OP_REG(H_RAX), X86_FCW_BITS, 4);
    asm_alu_imm(b, ALU_OR, OP_REG(H_RAX), X86_FCW_ONE, 4);
    asm_store(b, OP_GS(G_OFF(jit_scratch)), H_RAX, 4);
    asm_insn(b, (struct opcode){.op = 0xd9}, 5, OP_GS(G_OFF(jit_scratch)));
    return true;
}

static void init(struct tr *t)
{
    copy_register(t);
    asm_store_imm(&t->b, OP_GS(G_OFF(jit_x87.fip)), 0, 8);
    asm_store_imm(&t->b, OP_GS(G_OFF(jit_x87.fdp)), 0, 8);
    asm_store_imm(&t->b, OP_GS(G_OFF(jit_x87.fop)), 0, 4);
    t->x87_last = NULL;
}

/* FNSTSW AX into the host's, which is scratch; MOV r16, AX */
static void status_ax(struct tr *t)
{
    copy_register(t);
    asm_insn(&t->b, (struct opcode){.op = 0x8b, .prefix = 0x66}, tr_reg(X86_RAX), OP_REG(H_RAX));
}

bool tr_x87(struct tr *t)
{
    switch (kind_of(t, t->s)) {
    case NOTHING:
        return true;
    case COPY:
        return copy(t, true);
    case CONTROL:
        return copy(t, false);
    case INIT:
        init(t);
        return true;
    case LOAD_FCW:
        return load_fcw(t);
    case STATUS_AX:
        status_ax(t);
        return true;
    case MMX:
        return tr_generic(t);
    case EMPTY_MMX:
        asm_u8(&t->b, 0x0f);
        asm_u8(&t->b, 0x77);
        return true;
    case NOT_OURS:
        break;
    }
    return false;
}
