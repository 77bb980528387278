/*
 * paging.c - MOV to CR3 and INVLPG without leaving translated code.
 *
 * The first as kernels switch address spaces: with PCIDs, keeping what is cached. Both go on if
 * that has not made it doubtful where executed pages are (isa/x86/exec.c), which has to be looked
 * up in the page tables then. This file is compiled to leave vector registers alone, which are the
 * guest's.
 */
#include "engine/jit/tr.h"
#include "isa/x86/access.h"

static bool end_in(struct tr *t, const uint8_t *thunk)
{
    struct jit_insn *ji = tr_insn(t);
    t->leaves = true;
    if (!ji)
        return true;
    tr_rip(&t->b, t->tb->pic, H_HELD, t->tb->rip + t->s->i.end);
    asm_mov_imm(&t->b, H_R11, jit_data_off(t->j, ji));
    asm_jmp(&t->b, jit_rw(t->j, thunk));
    return true;
}

bool tr_mov_cr3(struct tr *t, bool *end)
{
    const ZydisDecodedOperand *o = &t->s->op[0];
    if (o->type != ZYDIS_OPERAND_TYPE_REGISTER || o->reg.value != ZYDIS_REGISTER_CR3)
        return false;
    tr_need_fl(t);
    asm_mov_rr(&t->b, H_RAX, tr_get(t, t->s->i.src, H_RAX));
    *end = true;
    return end_in(t, t->j->thunk.mov_cr3);
}

bool tr_invlpg(struct tr *t, bool *end)
{
    const struct x86_insn *i = &t->s->i;
    tr_need_fl(t);
    tr_clobber_ef(t);
    tr_ea(t, i, H_RAX);
    tr_add_base(t, i->seg, H_RAX);
    *end = true;
    return end_in(t, t->j->thunk.invlpg);
}

/* ---- C functions ---- */

static bool number_of(const struct jit *j, uint64_t gen, unsigned *n)
{
    for (*n = j->ngens - 1; *n > 0 && j->gens[*n] != gen; --*n)
        ;
    return *n;
}

bool jit_c_mov_cr3(struct x86_cpu *c, uint64_t v)
{
    const uint64_t keep = 1ull << 63;
    struct jit *j = c->jit;
    unsigned gen;
    if (!(c->s.cr4 & X86_CR4_PCIDE) || !(v & keep) || (v & ~keep) >> X86_PHYS_BITS ||
        j->tlb_epoch != c->tlb.epoch || !number_of(j, x86_exec_gen_known(c, v & 0xfff), &gen))
        return false;
    c->s.cr3 = v & ~keep;
    x86_tlb_set_pcid(c, v & 0xfff);
    j->tlb_epoch = c->tlb.epoch;
    j->cur_gen = gen;
    c->jit_key = (c->jit_key & ~(0xffull << 48)) | (uint64_t)gen << 48;
    return true;
}

bool jit_c_invlpg(struct x86_cpu *c, gva_t lin)
{
    struct jit *j = c->jit;
    if (!x86_canonical(lin) || j->tlb_epoch != c->tlb.epoch || x86_exec_may_have(c, lin))
        return false;
    x86_tlb_flush_page(c, lin);
    j->tlb_epoch = c->tlb.epoch;
    return true;
}
