/*
 * flow.c - branches: within the translation, to others, through the jump cache.
 *
 * Whether another thread wants something (cpu->pending) is looked at where loops close: at
 * branches backward and at indirect ones.
 */
#include "engine/jit/tr.h"
#include "isa/x86/access.h"

static int32_t key_off(const struct jit_mode *m)
{
    return m->bits & JIT_M_GLOBAL ? G_OFF(jit_key_global) : G_OFF(jit_key);
}

/* ---- to a known address ---- */

static gva_t linear(const struct tr *t, uint64_t rip)
{
    return tr_code64(t) ? rip : (uint32_t)(t->m->cs_base + rip);
}

static bool in_page(const struct tr *t, uint64_t rip)
{
    if (t->tb->pic)
        return !t->tb->cross && rip < PAGE_SIZE;
    return !t->tb->cross && (linear(t, rip) ^ t->lin) / PAGE_SIZE == 0;
}

/* The instruction of this translation at `rip`, if a jump to it is foreseen. */
static int own_insn(const struct tr *t, uint64_t rip)
{
    if (t->j->exact || t->j->counting)
        return -1; /* every jump is to be stopped, or counted */
    for (unsigned n = 0; n < t->n; n++)
        if (t->target[n] && t->label[n] && t->tb->rip + t->j->src[n].off == rip)
            return (int)n;
    return -1;
}

void tr_poll(struct tr *t, uint64_t rip)
{
    tr_need_fl(t);
    tr_clobber_ef(t);
    asm_alu_imm(&t->b, ALU_CMP, OP_GS(G_OFF(pending)), 0, 4);
    struct cold *k = tr_cold(t, COLD_GOTO);
    if (!k)
        return;
    k->rip = rip;
    tr_cold_site(t, k, asm_jcc(&t->b, CC_NZ, NULL));
}

static void goto_label(struct tr *t, unsigned n)
{
    if (t->want[n] == WANT_FL)
        tr_need_fl(t);
    else if (t->want[n] == WANT_EF)
        tr_need_ef(t);
    asm_jmp(&t->b, t->label[n]);
}

static struct jit_link *new_link(struct tr *t, uint64_t rip, unsigned single)
{
    struct jit_link *l = jit_data_alloc(t->j, sizeof *l);
    if (!l) {
        t->failed = true;
        return NULL;
    }
    l->rip = rip;
    l->single = (uint16_t)single;
    l->from = t->tb;
    l->fl = t->fl;
    return l;
}

/* Where the jump leads until it is patched. */
void tr_link_stub(struct tr *t, struct jit_link *l)
{
    l->stub = t->b.p;
    asm_mov_imm(&t->b, H_RAX, jit_data_off(t->j, l));
    asm_jmp(&t->b, jit_rw(t->j, l->fl ? t->j->thunk.link_fl : t->j->thunk.link_ef));
}

static void goto_link(struct tr *t, uint64_t rip, unsigned single)
{
    if (!t->fl)
        tr_need_ef(t);
    struct jit_link *l = new_link(t, rip, single);
    if (!l)
        return;
    l->site = asm_jmp(&t->b, NULL);
    asm_patch(l->site, t->b.p);
    tr_link_stub(t, l);
}

void tr_rip(struct asm_buf *b, bool pic, unsigned dst, uint64_t rip)
{
    if (!pic) {
        asm_mov_imm(b, dst, rip);
        return;
    }
    asm_load(b, dst, OP_GS(G_OFF(jit_page)), 8);
    while ((int64_t)rip != (int32_t)rip) { /* a distance of 2 GiB and a bit */
        int32_t part = (int64_t)rip > 0 ? INT32_MAX : INT32_MIN;
        asm_lea(b, dst, OP_MEM((uint8_t)dst, part), 8);
        rip -= (uint64_t)(int64_t)part;
    }
    if (rip)
        asm_lea(b, dst, OP_MEM((uint8_t)dst, (int32_t)rip), 8);
}

struct opnd jit_jump_host(void)
{
    return OP_GSR(H_R11, G_OFF(jump) + (int32_t)offsetof(struct x86_jump, host));
}

void jit_jump_place(struct asm_buf *b)
{
    asm_insn(b, (struct opcode){.op = 0x69}, H_R11, OP_REG(H_RAX)); /* IMUL r32, r32, imm32 */
    asm_u32(b, JIT_JUMP_HASH);
    asm_insn(b, (struct opcode){.op = 0xc1}, 5, OP_REG(H_R11)); /* SHR r32, imm8 */
    asm_u8(b, JIT_JUMP_SHIFT - 4);
    asm_alu_imm(b, ALU_AND, OP_REG(H_R11), (int32_t)(X86_JUMPS - 1) << 4, 4);
}

uint8_t *jit_jump_match(struct asm_buf *b, int32_t key)
{
    asm_alu(b, ALU_XOR, H_RAX, OP_GS(key), 8);
    asm_alu(b, ALU_CMP, H_RAX, OP_GSR(H_R11, G_OFF(jump) + (int32_t)offsetof(struct x86_jump, key)),
            8);
    uint8_t *miss = asm_jcc(b, CC_NZ, NULL);
    asm_alu(b, ALU_XOR, H_RAX, OP_GS(key), 8);
    return miss;
}

/* Looks the RIP in RAX up; R11 is the offset of its entry. Returns the place of the jump that is
 * taken if there is none. Then RAX is lost. */
static uint8_t *look_up(struct asm_buf *b, const struct jit_mode *m)
{
    jit_jump_place(b);
    return jit_jump_match(b, key_off(m));
}

/* Flags are in cpu->fl. Returns the place of the jump that is taken if the cache does not know. */
static uint8_t *cached_jump(struct asm_buf *b, const struct jit_mode *m, bool pic, uint64_t rip)
{
    tr_rip(b, pic, H_RAX, rip);
    uint8_t *miss = look_up(b, m);
    asm_jmp_opnd(b, jit_jump_host());
    return miss;
}

/* One of two thunks, for a RIP relative to cpu->jit_page in EAX or the real one in RAX; loads it.
 */
static const uint8_t *load_for(struct tr *t, uint64_t rip, const uint8_t *const rel[2],
                               const uint8_t *const abs[2])
{
    bool global = t->m->bits & JIT_M_GLOBAL;
    if (t->tb->pic && (int64_t)rip == (int32_t)rip) {
        asm_mov_imm(&t->b, H_RAX, (uint32_t)rip);
        return jit_rw(t->j, rel[global]);
    }
    tr_rip(&t->b, t->tb->pic, H_RAX, rip);
    return jit_rw(t->j, abs[global]);
}

static void goto_cached(struct tr *t, uint64_t rip)
{
    tr_need_fl(t);
    if (t->small) {
        asm_jmp(&t->b, load_for(t, rip, t->j->thunk.jump_rel, t->j->thunk.jump_abs));
        return;
    }
    struct cold *k = tr_cold(t, COLD_GOTO);
    if (!k)
        return;
    k->rip = rip;
    tr_cold_site(t, k, cached_jump(&t->b, t->m, t->tb->pic, rip));
}

void tr_goto_mode(struct tr *t, uint64_t rip)
{
    goto_cached(t, rip);
}

void jit_link_cached(struct x86_cpu *c, struct jit_link *l)
{
    struct jit *j = c->jit;
    uint8_t *start = j->rw + j->used;
    if (j->size - j->used < JIT_STUB_MAX)
        return;
    struct asm_buf b = {start, start, start + JIT_STUB_MAX, false};
    if (!l->fl)
        asm_flags_save(&b, G_OFF(fl));
    uint8_t *miss = cached_jump(&b, &j->mode[l->from->mode], l->from->pic, l->rip);
    asm_patch(miss, b.p);
    tr_rip(&b, l->from->pic, H_RAX, l->rip);
    asm_store(&b, OP_GS(G_OFF(s.rip)), H_RAX, 8);
    asm_jmp(&b, jit_rw(j, j->thunk.dispatch_keep));
    if (b.full)
        return;
    uint64_t before = j->used;
    j->used += ((uint64_t)(b.p - start) + 15) & ~15ull;
    jit_arena_grown(j, before);
    asm_patch(l->site, start);
}

void tr_goto(struct tr *t, uint64_t rip, uint64_t from)
{
    bool near = in_page(t, rip);
    if ((int64_t)rip <= (int64_t)from && (near || !t->small)) /* else the thunk looks */
        tr_poll(t, rip);
    int own = own_insn(t, rip);
    if (own >= 0) {
        tr_count_heat(t, t->j->src[own].off, t->fpu);
        goto_label(t, (unsigned)own);
    } else if (near) {
        goto_link(t, rip, 0);
    } else {
        goto_cached(t, rip);
    }
}

void tr_goto_single(struct tr *t, uint64_t rip)
{
    goto_link(t, rip, (unsigned)(t->tb->rip + t->tb->len - rip));
}

/* Target of a relative branch; false: it faults. */
static bool target(const struct tr *t, uint64_t *rip)
{
    const struct x86_insn *i = &t->s->i;
    *rip = (t->tb->rip + i->imm) & i->amask;
    return *rip <= t->m->cs_limit && x86_canonical(*rip);
}

static uint64_t own_rip(const struct tr *t)
{
    return t->tb->rip + t->s->off;
}

/* A jump that is a link itself; its stub is elsewhere. */
static void link_site(struct tr *t, struct jit_link *l, uint8_t *site)
{
    struct cold *k = tr_cold(t, COLD_LINK);
    if (!l || !k)
        return;
    k->link = l;
    l->site = site;
    tr_cold_site(t, k, site);
}

static bool jcc(struct tr *t)
{
    uint64_t rip;
    if (!target(t, &rip))
        return false;
    tr_need_ef(t);
    unsigned cc = t->s->zi.opcode & 15;
    if (own_insn(t, rip) >= 0) { /* a loop: taken is what is expected */
        uint8_t *over = asm_jcc(&t->b, cc ^ 1, NULL);
        bool ef = t->ef, fl = t->fl;
        tr_goto(t, rip, own_rip(t));
        t->ef = ef;
        t->fl = fl;
        asm_patch(over, t->b.p);
        return true;
    }
    bool forward = (int64_t)rip > (int64_t)own_rip(t);
    if (forward && in_page(t, rip)) {
        link_site(t, new_link(t, rip, 0), asm_jcc(&t->b, cc, NULL));
        return true;
    }
    struct cold *k = tr_cold(t, COLD_BRANCH);
    if (!k)
        return true;
    k->rip = rip;
    k->from = own_rip(t);
    k->ef = t->ef;
    k->fl = t->fl;
    tr_cold_site(t, k, asm_jcc(&t->b, cc, NULL));
    return true;
}

static bool jmp_rel(struct tr *t)
{
    uint64_t rip;
    if (!target(t, &rip))
        return false;
    tr_goto(t, rip, own_rip(t));
    return true;
}

/* ---- to an address in RAX ---- */

/* R11: offset in the jump cache of the entry for RAX, which matches; else the slow way. Flags must
 * be in cpu->fl. */
static void probe(struct tr *t)
{
    asm_alu_imm(&t->b, ALU_CMP, OP_GS(G_OFF(pending)), 0, 4);
    tr_slow_if(t, CC_NZ);
    uint8_t *miss = look_up(&t->b, t->m);
    struct cold *k = tr_slow(t);
    if (k)
        tr_cold_site(t, k, miss);
}

static unsigned width(const struct tr *t)
{
    return tr_code64(t) ? 8 : 4;
}

/* Makes EFLAGS free for probe(), RAX being so already. */
static void free_flags(struct tr *t, struct opnd *m)
{
    if (!t->fl)
        tr_mem_free_rax(t, m);
    tr_need_fl(t);
    tr_clobber_ef(t);
}

/* Loads the target of an indirect branch into RAX, flags in cpu->fl. */
static bool load_target(struct tr *t)
{
    const ZydisDecodedOperand *o = &t->s->op[0];
    struct opnd m;
    if (o->size != width(t) * 8)
        return false;
    if (o->type == ZYDIS_OPERAND_TYPE_REGISTER) {
        unsigned r = (unsigned)ZydisRegisterGetId(o->reg.value);
        tr_need_fl(t);
        tr_clobber_ef(t);
        unsigned h = tr_get(t, r, H_RAX);
        if (width(t) == 4)
            asm_mov_rr32(&t->b, H_RAX, h);
        else
            asm_mov_rr(&t->b, H_RAX, h);
        return true;
    }
    if (o->type != ZYDIS_OPERAND_TYPE_MEMORY || !tr_mem(t, width(t), ACC_R, 1, &m))
        return false;
    free_flags(t, &m);
    asm_load(&t->b, H_RAX, m, width(t));
    return true;
}

static bool is_far(const struct jit_src *s)
{
    return s->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;
}

static bool jmp(struct tr *t)
{
    if (is_far(t->s))
        return false;
    if (t->s->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE)
        return jmp_rel(t);
    if (!load_target(t))
        return false;
    probe(t);
    asm_jmp_opnd(&t->b, jit_jump_host());
    return true;
}

static bool can_push(const struct tr *t)
{
    return t->s->zi.operand_width == width(t) * 8 && !(t->m->bits & JIT_M_SP16) &&
           tr_seg(t, X86_SS) == JIT_SEG_FLAT;
}

/* ---- calls and returns ----
 *
 * A guest call pushes its return address on both stacks, and is a host call. A guest return is a
 * host return, with the address from the guest's stack in RAX: back behind the host's call that
 * address is compared with the one on the host's stack. If they differ, or if there is no such call
 * (its address is thunk.ret, the first thing on the stack), the jump cache is asked. The calls are
 * forgotten whenever C code may have changed what is mapped or translated; a return into another
 * mode, which STAC and CLAC change without C code, is found where it arrives. The vCPU's pending
 * requests need no look at returns: there is no loop without a branch backward or a call.
 */

static uint64_t behind(const struct tr *t)
{
    return (t->tb->rip + t->s->i.end) & t->c->ip_mask;
}

/* Is there room on the host's stack? */
static void check_calls(struct tr *t)
{
    struct asm_buf *b = &t->b;
    tr_clobber_ef(t);
    asm_alu(b, ALU_CMP, H_RSP, OP_GS(G_OFF(jit_rsp_end)), 8);
    struct cold *k = tr_cold(t, COLD_CALLS);
    if (!k)
        return;
    tr_cold_site(t, k, asm_jcc(b, CC_B, NULL));
    k->back = b->p;
}

/* Both addresses on the host's stack but the one that the host's call pushes; `in_rax`: the guest's
 * is in RAX. */
static void open_call(struct tr *t, bool in_rax)
{
    if (!in_rax)
        tr_rip(&t->b, t->tb->pic, H_RAX, behind(t));
    asm_u8(&t->b, 0x50); /* PUSH RAX */
}

/* Where the host's return arrives, the return address in RAX. */
static void close_call(struct tr *t)
{
    struct asm_buf *b = &t->b;
    uint8_t *miss = jit_rw(t->j, t->j->thunk.ret);
    t->ef = false;
    t->fl = true;
    if (!in_page(t, behind(t))) {
        asm_jmp(b, miss);
        return;
    }
    asm_alu(b, ALU_CMP, H_RAX, OP_MEM(H_RSP, 0), 8);
    asm_jcc(b, CC_NZ, miss);
    asm_u8(b, 0x58); /* POP RAX, which is the same */
    if (t->m->bits & JIT_M_CPL0) {
        asm_alu_imm(b, ALU_CMP, OP_GS(key_off(t->m) + 7), (int8_t)t->tb->mode, 1);
        asm_jcc(b, CC_NZ, miss);
    }
    if (t->tb->pic) {
        asm_alu_imm(b, ALU_AND, OP_REG(H_RAX), -(int32_t)PAGE_SIZE, 8);
        asm_store(b, OP_GS(G_OFF(jit_page)), H_RAX, 8);
    }
    goto_link(t, behind(t), 0);
}

static void call_link(struct tr *t, uint64_t rip)
{
    struct jit_link *l = new_link(t, rip, 0);
    link_site(t, l, asm_call(&t->b, NULL));
}

static void call_cached(struct tr *t, uint64_t rip)
{
    tr_rip(&t->b, t->tb->pic, H_RAX, rip);
    uint8_t *site = look_up(&t->b, t->m);
    struct cold *k = tr_cold(t, COLD_GOTO);
    if (!k)
        return;
    k->rip = rip;
    tr_cold_site(t, k, site);
    asm_call_opnd(&t->b, jit_jump_host());
    k->back = t->b.p;
}

static void call_rel(struct tr *t, uint64_t rip, bool in_rax)
{
    bool near = in_page(t, rip);
    tr_need_fl(t);
    if (t->small && !near) { /* the thunk looks at everything */
        open_call(t, in_rax);
        asm_call(&t->b, load_for(t, rip, t->j->thunk.call_rel, t->j->thunk.call_abs));
        close_call(t);
        return;
    }
    if ((int64_t)rip <= (int64_t)own_rip(t))
        tr_poll(t, rip);
    check_calls(t);
    open_call(t, in_rax);
    if (near)
        call_link(t, rip);
    else
        call_cached(t, rip);
    close_call(t);
}

/* Pushes the address behind the call; *in_rax: it is in RAX now, too. */
static bool push_return(struct tr *t, bool *in_rax)
{
    struct opnd m;
    unsigned w = width(t);
    uint64_t next = behind(t);
    *in_rax = false;
    if (!tr_stack(t, X86_RSP, -(int32_t)w, w, ACC_W, &m))
        return false;
    if (w == 4 || (!t->tb->pic && (int64_t)next == (int32_t)next)) {
        asm_store_imm(&t->b, m, (int32_t)next, w);
    } else {
        tr_mem_free_rax(t, &m);
        tr_rip(&t->b, t->tb->pic, H_RAX, next);
        asm_store(&t->b, m, H_RAX, 8);
        *in_rax = t->fl && !t->smp; /* what follows may need it */
    }
    if (t->smp)
        tr_mem_fix(t, &m);
    asm_lea(&t->b, H_R15, OP_MEM(H_R15, -(int32_t)w), w);
    tr_stored(t, m, w);
    return true;
}

static bool call(struct tr *t)
{
    uint64_t rip;
    bool in_rax;
    if (is_far(t->s) || !can_push(t))
        return false;
    if (t->s->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE) {
        if (!target(t, &rip) || !push_return(t, &in_rax))
            return false;
        call_rel(t, rip, in_rax);
        return true;
    }
    /* The target is found before anything is changed: otherwise the interpreter does it all. */
    if (!load_target(t))
        return false;
    probe(t);
    asm_store(&t->b, OP_GS(G_OFF(jit_target)), H_RAX, 8);
    asm_load(&t->b, H_RAX, jit_jump_host(), 8);
    asm_store(&t->b, OP_GS(G_OFF(jit_tmp)), H_RAX, 8);
    if (!push_return(t, &in_rax)) {
        t->failed = true; /* cannot be: can_push() */
        return true;
    }
    check_calls(t);
    open_call(t, in_rax);
    asm_load(&t->b, H_RAX, OP_GS(G_OFF(jit_target)), 8);
    asm_call_opnd(&t->b, OP_GS(G_OFF(jit_tmp)));
    close_call(t);
    return true;
}

static bool ret(struct tr *t)
{
    unsigned w = width(t);
    struct opnd m;
    if (is_far(t->s) || !can_push(t) || !tr_stack(t, X86_RSP, 0, w, ACC_R, &m))
        return false;
    uint32_t drop =
        t->s->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && t->s->zi.operand_count_visible
            ? (uint32_t)t->s->op[0].imm.value.u & 0xffff
            : 0;
    free_flags(t, &m);
    asm_load(&t->b, H_RAX, m, w);
    asm_lea(&t->b, H_R15, OP_MEM(H_R15, (int32_t)(w + drop)), w);
    struct jit_insn *ji = tr_insn(t);
    if (!ji)
        return true;
    ji->undo = w + drop;
    asm_mov_imm(&t->b, H_R11, jit_data_off(t->j, ji));
    asm_u8(&t->b, 0xc3); /* RET */
    return true;
}

bool tr_flow(struct tr *t, bool *end)
{
    *end = true;
    switch (t->s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_JMP:
        return jmp(t);
    case ZYDIS_MNEMONIC_CALL:
        return call(t);
    case ZYDIS_MNEMONIC_RET:
        return ret(t);
    case ZYDIS_MNEMONIC_JB:
    case ZYDIS_MNEMONIC_JBE:
    case ZYDIS_MNEMONIC_JL:
    case ZYDIS_MNEMONIC_JLE:
    case ZYDIS_MNEMONIC_JNB:
    case ZYDIS_MNEMONIC_JNBE:
    case ZYDIS_MNEMONIC_JNL:
    case ZYDIS_MNEMONIC_JNLE:
    case ZYDIS_MNEMONIC_JNO:
    case ZYDIS_MNEMONIC_JNP:
    case ZYDIS_MNEMONIC_JNS:
    case ZYDIS_MNEMONIC_JNZ:
    case ZYDIS_MNEMONIC_JO:
    case ZYDIS_MNEMONIC_JP:
    case ZYDIS_MNEMONIC_JS:
    case ZYDIS_MNEMONIC_JZ:
        *end = false;
        return jcc(t);
    default:
        *end = false;
        return false;
    }
}
