/*
 * iret.c - IRETQ from 64-bit code at CPL 0 to such code or to that of CPL 3, without leaving
 * translated code.
 *
 * Kernels return to the same few segments all the time. What the descriptors were when the semantic
 * function looked at them last is remembered (cpu->jit_returned) with what they made of CS and SS:
 * as long as the selectors, the table's place and the descriptors are the same, they would pass all
 * checks again. Data segments that an outer level must not keep, RFLAGS.TF and AC, a return address
 * that is not canonical, and whatever is not in the TLB, are left to the semantic function.
 */
#include "engine/jit/tr.h"
#include "isa/x86/access.h"
#include "isa/x86/priv.h"

/* RAX as the thunk wants it: the jit_insn, should its function be needed, and the modes to go on in
 * (jit_set_level()); R11: where the frame is in the host. */
#define ARG_KERNEL_SH 32
#define ARG_USER_SH   48

#define FRAME(n) OP_MEM(H_R11, 8 * (n)) /* RIP, CS, RFLAGS, RSP, SS */
/* What IRETQ loads at CPL 0 (SDM vol. 2, IRET). */
#define IRET_FLAGS (X86_FL_ALL & ~X86_FL_VM)

bool tr_iret(struct tr *t, bool *end)
{
    struct asm_buf *b = &t->b;
    struct jit_mode m = *t->m;
    unsigned kernel[2], user[2];
    struct opnd frame;
    m.bits &= ~(JIT_M_USER | JIT_M_CPL0 | JIT_M_MMU);
    struct jit_mode k = m, u = m;
    k.bits |= JIT_M_CPL0 | X86_MMU_KERNEL << JIT_M_MMU_SH;
    u.bits |= JIT_M_USER | X86_MMU_USER << JIT_M_MMU_SH;
    if (!tr_modes(t, k, &kernel[0], &kernel[1]) || !tr_modes(t, u, &user[0], &user[1]))
        return false;
    tr_need_fl(t);
    tr_clobber_ef(t);
    if (!tr_stack(t, X86_RSP, 0, 40, ACC_R, &frame))
        return false;
    t->leaves = true;
    *end = true;
    struct jit_insn *ji = tr_insn(t);
    if (!ji)
        return true;
    tr_mem_fix(t, &frame);
    uint64_t modes = kernel[0] | kernel[1] << 8 | user[0] << 16 | (uint64_t)user[1] << 24;
    asm_mov_imm(b, H_RAX, jit_data_off(t->j, ji) | modes << ARG_KERNEL_SH);
    asm_jmp(b, jit_rw(t->j, t->j->thunk.iret));
    return true;
}

/* ---- the semantic function ---- */

/* The descriptor as it is now, if that is what the register was loaded from. */
static bool same_desc(struct x86_cpu *c, gva_t at, const struct x86_seg *s, uint64_t *desc)
{
    const struct x86_tlbe *e = x86_tlb_entry(c, at, X86_MMU_KERNEL);
    if (at % 8 || e->rtag != x86_tlb_tag(c, at, 8, X86_MMU_KERNEL))
        return false;
    memcpy(desc, (const void *)(e->addend + at), sizeof *desc);
    struct x86_seg d = x86_desc_seg(*desc, s->sel);
    return d.base == s->base && d.limit == s->limit && d.attr == s->attr && (d.attr & X86_TYPE_A);
}

static bool note(struct x86_cpu *c, struct x86_returned *r)
{
    r->cs = c->s.seg[X86_CS];
    r->ss = c->s.seg[X86_SS];
    r->gdt_base = c->s.gdtr.base;
    r->gdt_limit = c->s.gdtr.limit;
    r->ss_sel = r->ss.sel;
    if ((r->cs.sel | r->ss.sel) & X86_SEL_TI || !x86_desc_addr(c, r->cs.sel, 8, &r->cs_at) ||
        !same_desc(c, r->cs_at, &r->cs, &r->cs_desc))
        return false;
    r->ss_at = r->cs_at;
    r->ss_desc = r->cs_desc;
    if (X86_SEL_NULL(r->ss.sel))
        return true;
    return x86_desc_addr(c, r->ss.sel, 8, &r->ss_at) && !((r->ss_at ^ r->cs_at) / PAGE_SIZE) &&
           same_desc(c, r->ss_at, &r->ss, &r->ss_desc);
}

const uint8_t *jit_c_iret(struct x86_cpu *c, struct jit_insn *ji)
{
    const uint8_t *host = jit_c_interp_end(c, ji);
    if (c->code_size == 64 && (c->cpl == 0 || c->cpl == 3)) {
        struct x86_returned *r = &c->jit_returned[c->cpl == 3];
        r->cs_sel = note(c, r) ? r->cs.sel : ~0u;
    }
    return host;
}

/* ---- the thunk ---- */

#define RETURNED(cpl, field) \
    (G_OFF(jit_returned) +   \
     (int32_t)(((cpl) == 3) * sizeof(struct x86_returned) + offsetof(struct x86_returned, field)))

static void must_equal(struct asm_buf *b, struct opnd m, int32_t field, unsigned size,
                       struct asm_jumps *other)
{
    asm_load(b, H_RAX, m, size);
    asm_alu(b, ALU_CMP, H_RAX, OP_GS(field), size == 8 ? 8 : 4);
    asm_jcc_to(b, CC_NZ, other);
}

/* All of them unusable: none is to be dropped. */
static void check_data(struct asm_buf *b, struct asm_jumps *other)
{
    static const uint8_t data[] = {X86_DS, X86_FS, X86_GS};
    asm_load(b, H_RAX, OP_GS(G_SEG(X86_ES, attr)), 4);
    for (unsigned n = 0; n < ARRAY_LEN(data); n++)
        asm_alu(b, ALU_AND, H_RAX, OP_GS(G_SEG(data[n], attr)), 4);
    jit_test_imm(b, OP_REG(H_RAX), X86_ATTR_UNUSABLE);
    asm_jcc_to(b, CC_Z, other);
}

static void check_descs(struct jit *j, struct asm_buf *b, unsigned cpl, struct asm_jumps *other)
{
    const int32_t at[] = {RETURNED(cpl, cs_at), RETURNED(cpl, ss_at)};
    const int32_t desc[] = {RETURNED(cpl, cs_desc), RETURNED(cpl, ss_desc)};
    asm_load(b, H_RAX, OP_GS(at[0]), 8);
    jit_tlb_offset(b, j->bmi2, H_HELD, H_RAX);
    jit_tlb_compare(b, X86_MMU_KERNEL, false, H_RAX, H_HELD);
    asm_jcc_to(b, CC_NZ, other);
    asm_load(b, H_HELD, OP_GSR(H_HELD, JIT_TLB_OFF(X86_MMU_KERNEL, 0, addend)), 8);
    for (unsigned n = 0; n < ARRAY_LEN(at); n++) {
        asm_load(b, H_RAX, OP_GS(at[n]), 8);
        must_equal(b, OP_SIB(H_RAX, H_HELD, 0, 0), desc[n], 8, other);
    }
}

static void load_seg(struct asm_buf *b, unsigned seg, int32_t from)
{
    _Static_assert(sizeof(struct x86_seg) == 24 && offsetof(struct x86_seg, base) == 0,
                   "three words are copied");
    for (int32_t n = 0; n < 24; n += 8) {
        asm_load(b, H_RAX, OP_GS(from + n), 8);
        asm_store(b, OP_GS(G_SEG(seg, base) + n), H_RAX, 8);
    }
}

/* EAX: the selector of CS. */
static void to_level(struct jit *j, struct asm_buf *b, unsigned cpl, struct asm_jumps *other)
{
    asm_alu(b, ALU_CMP, H_RAX, OP_GS(RETURNED(cpl, cs_sel)), 4);
    asm_jcc_to(b, CC_NZ, other);
    must_equal(b, FRAME(4), RETURNED(cpl, ss_sel), 2, other);
    must_equal(b, OP_GS(G_OFF(s.gdtr.base)), RETURNED(cpl, gdt_base), 8, other);
    must_equal(b, OP_GS(G_OFF(s.gdtr.limit)), RETURNED(cpl, gdt_limit), 2, other);
    asm_load(b, H_RAX, FRAME(0), 8);
    jit_cmp_canonical(b, H_RAX, H_HELD);
    asm_jcc_to(b, CC_NZ, other);
    if (cpl == 3)
        check_data(b, other);
    check_descs(j, b, cpl, other);
    /* nothing below can fault */
    asm_store_imm(b, OP_GS(G_OFF(s.nmi_blocked)), 0, 1);
    load_seg(b, X86_CS, RETURNED(cpl, cs));
    load_seg(b, X86_SS, RETURNED(cpl, ss));
    asm_load(b, H_HELD, FRAME(0), 8);
    asm_load(b, tr_reg(X86_RSP), FRAME(3), 8);
    asm_load(b, H_RAX, FRAME(2), 4);
    asm_alu_imm(b, ALU_AND, OP_REG(H_RAX), (int32_t)IRET_FLAGS, 4);
    jit_rflags_set(b);
    asm_load(b, H_R11, OP_GS(G_OFF(jit_tmp)), 8);
    jit_set_level(b, cpl == 3 ? ARG_USER_SH : ARG_KERNEL_SH, cpl,
                  cpl == 3 ? X86_MMU_USER : X86_MMU_KERNEL);
    jit_forget_calls(b);
    asm_mov_rr(b, H_RAX, H_HELD);
    asm_jmp(b, jit_rw(j, j->thunk.jump_any));
}

void jit_iret_thunk(struct jit *j, struct asm_buf *b)
{
    struct asm_jumps other = {0}, kernel = {0}, user = {0};
    asm_store(b, OP_GS(G_OFF(jit_tmp)), H_RAX, 8);
    asm_mov_rr(b, H_HELD, H_R11);
    jit_cmp_code_seen(b);
    asm_jcc_to(b, CC_NZ, &other);
    asm_mov_rr(b, H_R11, H_HELD);
    jit_test_imm(b, OP_GS(G_OFF(s.rflags)), X86_FL_NT);
    asm_jcc_to(b, CC_NZ, &other);
    jit_test_imm(b, FRAME(2), X86_FL_TF | X86_FL_AC);
    asm_jcc_to(b, CC_NZ, &other);
    asm_load(b, H_RAX, FRAME(1), 2);
    jit_test_imm(b, OP_REG(H_RAX), 3);
    uint8_t *to_user = asm_jcc(b, CC_NZ, NULL);
    to_level(j, b, 0, &kernel);
    asm_patch(to_user, b->p);
    to_level(j, b, 3, &user);
    asm_jumps_here(b, &other);
    asm_jumps_here(b, &kernel);
    asm_jumps_here(b, &user);
    asm_load(b, H_RAX, OP_GS(G_OFF(jit_tmp)), 4);
    asm_jmp(b, jit_rw(j, j->thunk.iret_slow));
}
