/* cold.c - the pieces of a translation that are rarely executed. */
#include "engine/jit/tr.h"

struct cold *tr_cold(struct tr *t, enum cold_kind kind)
{
    if (t->ncold == COLD_MAX) {
        t->failed = true;
        return NULL;
    }
    struct cold *k = &t->cold[t->ncold++];
    *k = (struct cold){.kind = kind, .redo = t->redo};
    if (t->fl)
        k->redo.kind = JIT_REDO_NONE;
    return k;
}

void tr_cold_site(struct tr *t, struct cold *k, uint8_t *site)
{
    if (!site)
        return; /* the buffer is full: the translation is given up */
    if (k->nsites == COLD_SITES) {
        t->failed = true;
        return;
    }
    k->site[k->nsites++] = site;
}

struct jit_insn *tr_insn(struct tr *t)
{
    if (t->ji)
        return t->ji;
    t->ji = jit_insn_new(t->j, t->tb, t->s);
    t->failed |= !t->ji;
    return t->ji;
}

struct cold *tr_slow(struct tr *t)
{
    if (!t->slow) {
        struct jit_insn *ji = tr_insn(t);
        t->slow = ji ? tr_cold(t, COLD_INTERP) : NULL;
        if (t->slow) {
            t->slow->ji = ji;
            t->slow->x87_last = t->x87_last;
        }
    }
    return t->slow;
}

void tr_slow_if(struct tr *t, unsigned cc)
{
    struct cold *k = tr_slow(t);
    if (k)
        tr_cold_site(t, k, asm_jcc(&t->b, cc, NULL));
}

static uint16_t offset(const struct tr *t, const uint8_t *p)
{
    return (uint16_t)(p - t->b.start);
}

void tr_slow_back(struct tr *t)
{
    if (t->slow) {
        t->slow->back = t->b.p;
        t->slow->ef = t->ef;
    }
    for (unsigned n = t->site0; n < t->nsites; n++) {
        t->site[n].back = offset(t, t->b.p);
        t->site[n].bits |= t->ef ? JIT_SITE_EF : 0;
    }
}

static void call(struct tr *t, const uint8_t *thunk)
{
    asm_call(&t->b, jit_rw(t->j, thunk));
}

static struct jit_site *site(struct tr *t)
{
    if (t->nsites == SITE_MAX) {
        t->failed = true;
        return NULL;
    }
    struct jit_site *s = &t->site[t->nsites++];
    *s = (struct jit_site){.at = offset(t, t->b.p)};
    return s;
}

void tr_call_site(struct tr *t, const uint8_t *thunk, unsigned bits)
{
    call(t, thunk);
    struct jit_site *s = site(t);
    if (!s)
        return;
    s->off = t->s->off;
    tr_redo_site(t, s);
    s->bits = (uint8_t)(bits | (t->fpu ? JIT_SITE_FPU : 0) | (t->x87 ? JIT_SITE_X87 : 0));
}

/* Behind a call of C code. */
static void reload(struct tr *t, bool x87)
{
    if (t->fpu)
        call(t, t->j->thunk.fpu_load);
    if (t->x87 && x87)
        call(t, t->j->thunk.x87_load);
}

static void make_fl(struct tr *t, const struct cold *k)
{
    if (k->redo.kind == JIT_REDO_NONE)
        return;
    tr_redo(t, &k->redo);
    asm_flags_save(&t->b, G_OFF(fl));
}

static void emit_interp(struct tr *t, const struct cold *k)
{
    make_fl(t, k);
    if (k->x87_last)
        tr_x87_tell(t, k->x87_last);
    asm_mov_imm(&t->b, H_RAX, jit_data_off(t->j, k->ji));
    if (!k->back) { /* it ends the translation */
        asm_jmp(&t->b, jit_rw(t->j, t->j->thunk.interp_end));
        return;
    }
    call(t, t->j->thunk.interp);
    reload(t, k->ji->x87);
    if (k->ef)
        asm_flags_load(&t->b, G_OFF(fl));
    asm_jmp(&t->b, k->back);
}

static void emit_tlb(struct tr *t, const struct cold *k)
{
    call(t, k->thunk);
    uint8_t *site = asm_jcc(&t->b, CC_NZ, k->slow->at);
    if (!k->slow->at)
        tr_cold_site(t, k->slow, site);
    asm_jmp(&t->b, k->back);
}

static void emit_raced(struct tr *t, const struct cold *k)
{
    asm_lea(&t->b, H_RAX, k->host, 8);
    asm_mov_imm(&t->b, H_R11, k->size);
    call(t, t->j->thunk.raced);
    reload(t, false);
    asm_jmp(&t->b, k->back);
}

/* Flags are in cpu->fl. */
static void emit_goto(struct tr *t, const struct cold *k)
{
    const uint8_t *to = jit_rw(t->j, t->j->thunk.dispatch_rel);
    if (t->tb->pic && (int64_t)k->rip == (int32_t)k->rip) {
        asm_mov_imm(&t->b, H_RAX, (uint32_t)k->rip);
    } else {
        to = jit_rw(t->j, t->j->thunk.dispatch_keep);
        tr_rip(&t->b, t->tb->pic, H_RAX, k->rip);
        asm_store(&t->b, OP_GS(G_OFF(s.rip)), H_RAX, 8);
    }
    if (!k->back) {
        asm_jmp(&t->b, to);
        return;
    }
    asm_call(&t->b, to); /* a call of the guest's: it returns there */
    asm_jmp(&t->b, k->back);
}

static void emit_calls(struct tr *t, const struct cold *k)
{
    jit_forget_calls(&t->b);
    asm_jmp(&t->b, k->back);
}

void tr_count_heat(struct tr *t, unsigned off, bool fpu)
{
    if (!t->small)
        return;
    int32_t heat = G_OFF(jit_heat) + 4 * (int32_t)(t->j->stat.translations % X86_HEATS);
    asm_insn(&t->b, (struct opcode){.op = 0xff}, 1, OP_GS(heat)); /* DEC */
    struct cold *k = tr_cold(t, COLD_HOT);
    if (!k)
        return;
    tr_cold_site(t, k, asm_jcc(&t->b, CC_S, NULL));
    k->back = t->b.p;
    k->rip = off;
    k->fpu = fpu;
}

static void emit_hot(struct tr *t, const struct cold *k)
{
    call(t, t->j->thunk.hot);
    struct jit_site *s = site(t);
    if (!s)
        return;
    s->back = offset(t, k->back);
    s->off = (uint16_t)k->rip;
    s->bits = k->fpu ? JIT_SITE_FPU : 0;
}

static void emit_group(struct tr *t, const struct cold *k)
{
    make_fl(t, k);
    if (k->x87_last)
        tr_x87_tell(t, k->x87_last);
    t->ef = false;
    t->fl = true;
    tr_goto_single(t, k->rip);
}

/* Pieces may add pieces: the taken sides of branches do. */
void tr_cold_emit(struct tr *t)
{
    t->redo.kind = JIT_REDO_NONE;
    for (unsigned n = 0; n < t->ncold && !t->failed && !t->b.full; n++) {
        t->cold[n].at = t->b.p;
        struct cold k = t->cold[n];
        for (unsigned s = 0; s < k.nsites; s++)
            asm_patch(k.site[s], t->b.p);
        switch (k.kind) {
        case COLD_INTERP:
            emit_interp(t, &k);
            break;
        case COLD_GROUP:
            emit_group(t, &k);
            break;
        case COLD_TLB:
            emit_tlb(t, &k);
            break;
        case COLD_RACED:
            emit_raced(t, &k);
            break;
        case COLD_GOTO:
            emit_goto(t, &k);
            break;
        case COLD_CALLS:
            emit_calls(t, &k);
            break;
        case COLD_LINK:
            tr_link_stub(t, k.link);
            break;
        case COLD_HOT:
            emit_hot(t, &k);
            break;
        case COLD_BRANCH:
            t->ef = k.ef;
            t->fl = k.fl;
            tr_goto(t, k.rip, k.from);
            break;
        }
    }
}

void tr_interp(struct tr *t)
{
    struct jit_insn *ji = tr_insn(t);
    if (!ji)
        return;
    tr_x87_settle(t);
    tr_need_fl(t);
    asm_mov_imm(&t->b, H_RAX, jit_data_off(t->j, ji));
    if (t->s->i.flags & X86_IF_END) {
        asm_jmp(&t->b, jit_rw(t->j, t->j->thunk.interp_end));
        return;
    }
    call(t, t->j->thunk.interp);
    reload(t, ji->x87);
    t->ef = false;
    t->fl = true;
    t->redo.kind = JIT_REDO_NONE;
    t->held.active = false;
}
