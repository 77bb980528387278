/*
 * mem.c - memory operands: address, TLB check, host operand.
 *
 * The check finds the entry by the page of the first byte and compares the page of the last one
 * (access.h, x86_tlb_tag), so that what crosses pages goes the slow way.
 */
#include "engine/jit/tr.h"
#include "isa/x86/access.h"

unsigned tr_get(struct tr *t, unsigned guest, unsigned tmp)
{
    unsigned h = tr_reg(guest);
    if (h != H_NONE)
        return h;
    asm_load(&t->b, tmp, OP_GS(G_GPR(guest)), 8);
    return tmp;
}

void tr_put(struct tr *t, unsigned guest, unsigned host)
{
    unsigned h = tr_reg(guest);
    if (h == H_NONE)
        asm_store(&t->b, OP_GS(G_GPR(guest)), host, 8);
    else
        asm_mov_rr(&t->b, h, host);
}

/* ---- addresses ---- */

static bool has(uint8_t r)
{
    return r != X86_REG_ZERO && r != X86_REG_RIP;
}

static unsigned ea_size(const struct x86_insn *i)
{
    return i->amask == ~0ull ? 8 : 4;
}

void tr_ea(struct tr *t, const struct x86_insn *i, unsigned dst)
{
    struct asm_buf *b = &t->b;
    uint64_t disp = (uint64_t)i->disp + (i->base == X86_REG_RIP ? t->tb->rip : 0);
    unsigned other = dst == H_RAX ? H_R11 : H_RAX;
    if (i->base == X86_REG_RIP && t->tb->pic) {
        tr_rip(b, true, dst, disp);
        if (i->amask != ~0ull)
            asm_mov_rr32(b, dst, dst);
        return;
    }
    if (!has(i->base) && !has(i->index)) {
        asm_mov_imm(b, dst, disp & i->amask);
        return;
    }
    unsigned base = has(i->base) ? tr_get(t, i->base, dst) : H_NONE;
    unsigned index = has(i->index) ? tr_get(t, i->index, base == dst ? other : dst) : H_NONE;
    asm_lea(b, dst, OP_SIB((uint8_t)base, (uint8_t)index, i->scale, (int32_t)disp), ea_size(i));
    if (i->amask == 0xffff)
        asm_insn(b, (struct opcode){.op = 0xb7, .map = 1}, dst, OP_REG((uint8_t)dst));
}

/* Can the linear address be written as [host register + disp]? */
static bool is_simple(const struct tr *t, const struct x86_insn *i)
{
    return tr_code64(t) && i->amask == ~0ull && tr_seg(t, i->seg) == JIT_SEG_FLAT && has(i->base) &&
           !has(i->index) && tr_reg(i->base) != H_NONE;
}

void tr_add_base(struct tr *t, unsigned seg, unsigned at)
{
    if (tr_seg(t, seg) != JIT_SEG_FLAT)
        asm_alu(&t->b, ALU_ADD, at, OP_GS(G_SEGC(seg)), tr_code64(t) ? 8 : 4);
}

/* ---- the check ---- */

void jit_tlb_offset(struct asm_buf *b, bool bmi2, unsigned dst, unsigned addr)
{
    if (bmi2) { /* RORX dst, addr, 7: 32 bits */
        asm_insn(b, (struct opcode){.op = 0xf0, .map = 3, .prefix = 0xf2, .vex = true}, dst,
                 OP_REG((uint8_t)addr));
        asm_u8(b, JIT_TLB_SHIFT);
    } else {
        asm_mov_rr32(b, dst, addr);
        asm_insn(b, (struct opcode){.op = 0xc1}, 5, OP_REG((uint8_t)dst)); /* SHR */
        asm_u8(b, JIT_TLB_SHIFT);
    }
    asm_alu_imm(b, ALU_AND, OP_REG((uint8_t)dst), JIT_TLB_MASK, 4);
}

void jit_tlb_compare(struct asm_buf *b, enum x86_mmu mmu, bool write, unsigned last, unsigned set)
{
    asm_alu_imm(b, ALU_AND, OP_REG((uint8_t)last), -(int32_t)PAGE_SIZE, 8);
    if (mmu != X86_MMU_KERNEL) /* whose number is 0 */
        asm_alu(b, ALU_OR, last, OP_GS(G_OFF(tlb.asid) + 8 * (int32_t)mmu), 8);
    int32_t tag = write ? JIT_TLB_OFF(mmu, 0, wtag) : JIT_TLB_OFF(mmu, 0, rtag);
    asm_alu(b, ALU_CMP, last, OP_GSR((uint8_t)set, tag), 8);
}

static enum x86_mmu mmu_of(const struct tr *t)
{
    return (t->m->bits & JIT_M_MMU) >> JIT_M_MMU_SH;
}

/* R11: offset of the TLB entry for the address in `reg` + 0. */
static void entry_offset(struct tr *t, unsigned reg)
{
    jit_tlb_offset(&t->b, t->j->bmi2, H_R11, reg);
}

/* RAX: address of the last byte. Leaves the entry's addend in R11. `slow`: where to go if there is
 * none. */
static void compare_tag(struct tr *t, unsigned acc, struct cold *slow)
{
    struct asm_buf *b = &t->b;
    enum x86_mmu mmu = mmu_of(t);
    jit_tlb_compare(b, mmu, acc & ACC_W, H_RAX, H_R11);
    struct cold *k = slow ? tr_cold(t, COLD_TLB) : NULL;
    if (!k)
        return;
    tr_cold_site(t, k, asm_jcc(b, CC_NZ, NULL));
    k->slow = slow;
    k->thunk = t->j->thunk.ways[!!(acc & ACC_W)][mmu];
    asm_load(b, H_R11, OP_GSR(H_R11, JIT_TLB_OFF(mmu, 0, addend)), 8);
    k->back = b->p;
}

/* An operand that must be aligned, or (LOCK) must not cross a cache line. */
static void check_align(struct tr *t, unsigned reg, unsigned align)
{
    asm_insn(&t->b, (struct opcode){.op = 0xf6, .byte_rm = true}, 0, OP_REG((uint8_t)reg));
    asm_u8(&t->b, (uint8_t)(align - 1)); /* TEST reg8, imm8 */
    tr_slow_if(t, CC_NZ);
}

/* The whole range of a group that begins here. Flags are in cpu->fl. */
static void check_group(struct tr *t)
{
    const struct held *h = &t->held;
    struct asm_buf *b = &t->b;
    uint8_t base = (uint8_t)tr_reg(h->base);
    asm_lea(b, H_RAX, OP_MEM(base, (int32_t)h->lo), 8);
    if (t->small) {
        asm_lea(b, H_R11, OP_MEM(base, (int32_t)h->hi - 1), 8);
        tr_call_site(t, t->j->thunk.check_range[h->write][mmu_of(t)], JIT_SITE_GROUP);
        return;
    }
    entry_offset(t, H_RAX);
    asm_lea(b, H_RAX, OP_MEM(base, (int32_t)h->hi - 1), 8);
    struct cold *k = tr_cold(t, COLD_GROUP);
    if (!k)
        return;
    k->rip = t->tb->rip + t->s->off;
    k->x87_last = t->x87_last;
    compare_tag(t, h->write ? ACC_W : ACC_R, k);
    asm_mov_rr(b, H_HELD, H_R11);
}

/* By a thunk, the address being in `from`; the operand is R11 alone. False: not this one. */
static bool check_small(struct tr *t, unsigned from, unsigned size, unsigned acc, struct opnd *m)
{
    if (!t->small || size > 32 || size & (size - 1))
        return false;
    if (from != H_RAX)
        asm_mov_rr(&t->b, H_RAX, from);
    unsigned log = (unsigned)__builtin_ctz(size);
    bool write = acc & ACC_W;
    tr_call_site(t,
                 t->held.active ? t->j->thunk.check_held[write][mmu_of(t)][log]
                                : t->j->thunk.check[write][mmu_of(t)][log],
                 0);
    *m = OP_MEM(H_R11, 0);
    return true;
}

/* [guest register + disp] in 64-bit code, without a segment. */
static bool simple(struct tr *t, unsigned guest, int32_t disp, unsigned size, unsigned acc,
                   unsigned align, struct opnd *m)
{
    struct asm_buf *b = &t->b;
    unsigned base = tr_reg(guest), from = base;
    bool write = acc & ACC_W;
    if (!(acc & ACC_LOCK)) {
        if (!tr_group_has(t, guest, disp, size, write) && tr_group_begin(t, guest)) {
            tr_free_ef(t);
            check_group(t);
        }
        if (tr_group_has(t, guest, disp, size, write) && align == 1) {
            *m = OP_SIB((uint8_t)base, H_HELD, 0, disp);
            return true;
        }
    }
    tr_free_ef(t);
    if (disp) {
        asm_lea(b, H_RAX, OP_MEM((uint8_t)base, disp), 8);
        from = H_RAX;
    }
    if (align > 1)
        check_align(t, from, align);
    if (check_small(t, from, size, acc, m))
        return true;
    entry_offset(t, from);
    if (size > 1 || !disp)
        asm_lea(b, H_RAX, OP_MEM((uint8_t)base, disp + (int32_t)size - 1), 8);
    compare_tag(t, acc, tr_slow(t));
    *m = OP_SIB((uint8_t)base, H_R11, 0, disp);
    return true;
}

/* The offset in RAX, of 16 bits, must leave room below 64 KiB. */
static void check_64k(struct tr *t, unsigned size)
{
    if (size == 1)
        return;
    asm_alu_imm(&t->b, ALU_CMP, OP_REG(H_RAX), (int32_t)(0x10000 - size), 4);
    tr_slow_if(t, 7); /* JA */
}

static bool aligning(const struct tr *t)
{
    return mmu_of(t) == X86_MMU_ALIGN;
}

bool tr_mem_can(const struct tr *t, const struct x86_insn *i)
{
    enum jit_segkind kind = tr_seg(t, i->seg);
    return kind != JIT_SEG_SLOW && (kind != JIT_SEG_64K || i->amask == 0xffff) && !aligning(t);
}

/* The address behind a check that has been passed, R11 being the addend: computed once more. */
static void again(struct tr *t, const struct x86_insn *i)
{
    struct asm_buf *b = &t->b;
    bool both = has(i->base) && tr_reg(i->base) == H_NONE && has(i->index) &&
                tr_reg(i->index) == H_NONE; /* tr_ea() needs R11 */
    if (both)
        asm_store(b, OP_GS(G_OFF(jit_tmp)), H_R11, 8);
    tr_ea(t, i, H_RAX);
    tr_add_base(t, i->seg, H_RAX);
    if (both)
        asm_load(b, H_R11, OP_GS(G_OFF(jit_tmp)), 8);
}

bool tr_mem(struct tr *t, unsigned size, unsigned acc, unsigned align, struct opnd *m)
{
    const struct x86_insn *i = &t->s->i;
    struct asm_buf *b = &t->b;
    enum jit_segkind kind = tr_seg(t, i->seg);
    if (!tr_mem_can(t, i))
        return false;
    if (t->small)
        tr_x87_settle(t);
    if ((acc & ACC_LOCK) && size > align)
        align = size;
    if (is_simple(t, i) && i->disp + 64 < INT32_MAX && i->disp > INT32_MIN)
        return simple(t, i->base, (int32_t)i->disp, size, acc, align, m);
    tr_free_ef(t);
    bool keep = !t->small && !t->held.active && kind != JIT_SEG_64K;
    unsigned at = keep ? H_HELD : H_RAX; /* which no group is using */
    tr_ea(t, i, at);
    if (kind == JIT_SEG_64K)
        check_64k(t, size);
    tr_add_base(t, i->seg, at);
    if (align > 1)
        check_align(t, at, align);
    if (check_small(t, at, size, acc, m))
        return true;
    entry_offset(t, at);
    if (size > 1 || keep)
        asm_lea(b, H_RAX, OP_MEM((uint8_t)at, (int32_t)size - 1), 8);
    compare_tag(t, acc, tr_slow(t));
    if (!keep)
        again(t, i);
    *m = OP_SIB((uint8_t)at, H_R11, 0, 0);
    return true;
}

bool tr_stack_can(const struct tr *t)
{
    return !(t->m->bits & JIT_M_SP16) && tr_seg(t, X86_SS) == JIT_SEG_FLAT && !aligning(t);
}

bool tr_stack(struct tr *t, unsigned base, int32_t disp, unsigned size, unsigned acc,
              struct opnd *m)
{
    struct asm_buf *b = &t->b;
    if (!tr_stack_can(t))
        return false;
    if (t->small)
        tr_x87_settle(t);
    if (tr_code64(t))
        return simple(t, base, disp, size, acc, 1, m);
    tr_free_ef(t);
    asm_lea(b, H_RAX, OP_MEM((uint8_t)tr_reg(base), disp), 4);
    if (check_small(t, H_RAX, size, acc, m))
        return true;
    entry_offset(t, H_RAX);
    asm_lea(b, H_RAX, OP_MEM(H_RAX, (int32_t)size - 1), 8);
    compare_tag(t, acc, tr_slow(t));
    asm_lea(b, H_RAX, OP_MEM((uint8_t)tr_reg(base), disp), 4);
    *m = OP_SIB(H_RAX, H_R11, 0, 0);
    return true;
}

void tr_mem_fix(struct tr *t, struct opnd *m)
{
    if (m->base == H_R11 && m->index == H_NONE && !m->disp)
        return;
    asm_lea(&t->b, H_R11, *m, 8);
    *m = OP_MEM(H_R11, 0);
}

void tr_stored(struct tr *t, struct opnd m, unsigned size)
{
    if (!t->smp)
        return;
    struct asm_buf *b = &t->b;
    /* Another vCPU may have begun to execute the page between the check and the store (ram.h,
     * invariant 4). RAX may be part of the operand; keep the flags' home in order first. */
    if (t->ef && !t->fl) {
        tr_mem_free_rax(t, &m);
        tr_free_ef(t);
    }
    asm_alu_imm(b, ALU_CMP, OP_GS(G_OFF(jit_unwritten)), 0, 1);
    tr_clobber_ef(t);
    struct cold *k = tr_cold(t, COLD_RACED);
    if (!k)
        return;
    tr_cold_site(t, k, asm_jcc(b, CC_NZ, NULL));
    k->host = m;
    k->size = (uint8_t)(size | (tr_group_stores(t) ? JIT_RACED_HELD : 0));
    k->back = b->p;
}
