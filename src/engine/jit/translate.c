/*
 * translate.c - makes a translation: decodes a stretch of guest code, then writes each instruction.
 *
 * A stretch goes on behind conditional branches that are not taken, and ends at the end of the
 * page, at other branches and at instructions after which the mode may be another.
 */
#include "engine/jit/log.h"
#include "engine/jit/tr.h"

#include <stdlib.h>
#include <string.h>

#include "isa/x86/access.h"
#include "isa/x86/code.h"

#define INSN_MAX    15u        /* bytes (SDM vol. 2, 2.3.11) */
#define TB_HOST_MAX (64 * KIB) /* more than any translation takes */

/* ---- decoding ---- */

static bool is_jcc(const struct jit_src *s)
{
    return s->zi.meta.category == ZYDIS_CATEGORY_COND_BR && s->zi.opcode_map <= 1 &&
           ((s->zi.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && (s->zi.opcode & 0xf0) == 0x70) ||
            (s->zi.opcode_map == ZYDIS_OPCODE_MAP_0F && (s->zi.opcode & 0xf0) == 0x80));
}

/* Instructions that change what the mode is made of, though not in the interpreter's eyes. */
static bool changes_mode(ZydisMnemonic m)
{
    switch (m) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64:
    case ZYDIS_MNEMONIC_XSETBV:
    case ZYDIS_MNEMONIC_CLTS:
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_STAC:
        return true;
    default:
        return false;
    }
}

/* What code outside 64-bit mode is translated to depends on what segment registers hold. */
static bool loads_segment(const struct tr *t, const struct jit_src *s)
{
    if (tr_code64(t))
        return false;
    for (unsigned n = 0; n < s->zi.operand_count; n++)
        if (s->op[n].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            (s->op[n].actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) &&
            ZydisRegisterGetClass(s->op[n].reg.value) == ZYDIS_REGCLASS_SEGMENT)
            return true;
    return false;
}

/* See struct jit, exact; as the interpreter sees the instruction. */
static bool is_alone(const struct jit_src *s)
{
    bool near = s->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_SHORT ||
                s->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;
    switch (s->zi.mnemonic) {
    case ZYDIS_MNEMONIC_CLI:
    case ZYDIS_MNEMONIC_STI:
    case ZYDIS_MNEMONIC_CLAC:
    case ZYDIS_MNEMONIC_STAC:
    case ZYDIS_MNEMONIC_SWAPGS:
    case ZYDIS_MNEMONIC_POPFQ:
    case ZYDIS_MNEMONIC_SYSCALL:
    case ZYDIS_MNEMONIC_SYSRET:
    case ZYDIS_MNEMONIC_IRETQ:
        return false;
    case ZYDIS_MNEMONIC_INVALID:
    case ZYDIS_MNEMONIC_RDRAND:
    case ZYDIS_MNEMONIC_RDSEED:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_RDTSCP:
        return true;
    default:
        return (s->i.flags & X86_IF_END) && !near;
    }
}

unsigned jit_decode(struct x86_cpu *c, const uint8_t *bytes, unsigned avail, unsigned off,
                    struct jit_src *s)
{
    unsigned len = x86_decode_full(c, bytes, avail, off, &s->i, &s->zi, s->op);
    s->classes = s->visible = 0;
    if (!len || s->zi.mnemonic == ZYDIS_MNEMONIC_INVALID)
        return len;
    for (unsigned n = 0; n < s->zi.operand_count; n++) {
        if (s->op[n].type != ZYDIS_OPERAND_TYPE_REGISTER)
            continue;
        uint32_t bit = 1u << ZydisRegisterGetClass(s->op[n].reg.value);
        s->classes |= bit;
        if (n < s->zi.operand_count_visible)
            s->visible |= bit;
    }
    return len;
}

static unsigned decode_one(struct tr *t, const uint8_t *bytes, unsigned avail, unsigned off)
{
    struct jit_src *s = &t->j->src[t->n];
    memset(s->bytes, 0, sizeof s->bytes);
    memcpy(s->bytes, bytes, avail);
    unsigned len = jit_decode(t->c, s->bytes, avail, off, s);
    if (!len)
        return 0;
    s->off = (uint16_t)off;
    if (s->zi.meta.category == ZYDIS_CATEGORY_STRINGOP)
        s->i.flags &= ~X86_IF_END; /* REP: if it is to be repeated, RIP is not behind it */
    s->alone = is_alone(s);
    if (changes_mode(s->zi.mnemonic) || loads_segment(t, s) || tr_x87_may_end(t, s))
        s->i.flags |= X86_IF_END;
    t->n++;
    return len;
}

static bool stops(const struct tr *t, const struct jit_src *s)
{
    bool inside = s->zi.mnemonic == ZYDIS_MNEMONIC_STI || s->zi.mnemonic == ZYDIS_MNEMONIC_POPFQ;
    if (inside && tr_code64(t) && (t->m->bits & JIT_M_CPL0))
        return false; /* system.c */
    return (s->i.flags & X86_IF_END) && !is_jcc(s);
}

static void decode_run(struct tr *t)
{
    struct jit_tb *tb = t->tb;
    uint64_t roff = tb->roff, limit = t->m->cs_limit - tb->rip;
    unsigned room = (unsigned)(PAGE_SIZE - roff % PAGE_SIZE), off = 0, marked = 0;
    while (t->n < JIT_TB_INSNS && !(tb->single && off >= tb->single)) {
        if (marked < room && off + INSN_MAX > marked) {
            unsigned more = (unsigned)min_u64(room - marked, 64);
            uint32_t gen = x86_code_mark(t->c, roff + marked, more);
            if (marked && gen != tb->gen)
                break; /* written meanwhile */
            tb->gen = gen;
            marked += more;
        }
        unsigned avail = (unsigned)min_u64(marked - off, INSN_MAX);
        unsigned len = decode_one(t, t->c->ram->host + roff + off, avail, off);
        if (!len)
            break; /* it reaches into the next page */
        if (off && t->j->exact && t->j->src[t->n - 1].alone) {
            t->n--;
            break;
        }
        if (off + len - 1 > limit) {
            if (!off)
                x86_gp0(t->c);
            t->n--;
            break;
        }
        /* STI needs the next one: system.c */
        if (off && t->n == JIT_TB_INSNS && t->j->src[t->n - 1].zi.mnemonic == ZYDIS_MNEMONIC_STI) {
            t->n--;
            break;
        }
        off += len;
        if (stops(t, &t->j->src[t->n - 1]))
            break;
    }
    tb->len = (uint16_t)off;
}

/* A first instruction with bytes in two pages. Raises #PF. */
static void decode_cross(struct tr *t)
{
    struct jit_tb *tb = t->tb;
    unsigned first = (unsigned)(PAGE_SIZE - tb->roff % PAGE_SIZE);
    uint8_t buf[INSN_MAX];
    gpa_t gpa;
    gva_t lin2 = t->lin + first;
    if (!tr_code64(t))
        lin2 = (uint32_t)lin2;
    if (!x86_code_locate(t->c, lin2, &tb->roff2, &gpa))
        return; /* device memory */
    tb->cross = true;
    tb->gen = x86_code_mark(t->c, tb->roff, first);
    tb->gen2 = x86_code_mark(t->c, tb->roff2, INSN_MAX - first);
    memcpy(buf, t->c->ram->host + tb->roff, first);
    memcpy(buf + first, t->c->ram->host + tb->roff2, INSN_MAX - first);
    tb->len = (uint16_t)decode_one(t, buf, INSN_MAX, 0);
    if (tb->len - 1u > t->m->cs_limit - tb->rip)
        x86_gp0(t->c);
}

/* ---- loops within the translation ---- */

static void find_targets(struct tr *t)
{
    for (unsigned n = 0; n < t->n; n++) {
        const struct jit_src *s = &t->j->src[n];
        bool rel = is_jcc(s) || (s->zi.mnemonic == ZYDIS_MNEMONIC_JMP &&
                                 s->op[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE);
        if (!rel || s->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
            continue;
        uint64_t rip = (t->tb->rip + s->i.imm) & s->i.amask;
        for (unsigned k = 0; k <= n; k++)
            if (t->tb->rip + t->j->src[k].off == rip)
                t->target[k] = true;
    }
    for (unsigned k = 0; k < t->n; k++)
        if (t->target[k])
            t->want[k] = (uint8_t)tr_want(t, k);
}

/* ---- writing ---- */

static void check_live(struct tr *t, int32_t flag, const uint8_t *load)
{
    asm_alu_imm(&t->b, ALU_CMP, OP_GS(flag), 0, 1);
    uint8_t *live = asm_jcc(&t->b, CC_NZ, NULL);
    asm_call(&t->b, jit_rw(t->j, load));
    asm_patch(live, t->b.p);
}

static const uint8_t *here(const struct tr *t)
{
    return jit_rx(t->j, t->b.p);
}

/* Flags are in cpu->fl. */
static void check_stop(struct tr *t)
{
    if (!t->j->exact || t->tb->single) /* which is part of the one that leads here */
        return;
    asm_alu_imm(&t->b, ALU_SUB, OP_GS(G_OFF(jit_stop)), 1, 4);
    uint8_t *go = asm_jcc(&t->b, CC_NB, NULL);
    tr_rip(&t->b, t->tb->pic, H_RAX, t->tb->rip);
    asm_store(&t->b, OP_GS(G_OFF(s.rip)), H_RAX, 8);
    asm_jmp(&t->b, jit_rw(t->j, t->j->thunk.stop));
    asm_patch(go, t->b.p);
}

/* RAX: RIP; what follows leads to `entry`. */
static void write_far(struct tr *t)
{
    uint8_t *start = t->b.p;
    t->tb->far = here(t);
    if (t->tb->pic) {
        asm_alu_imm(&t->b, ALU_AND, OP_REG(H_RAX), -(int32_t)PAGE_SIZE, 8);
        asm_store(&t->b, OP_GS(G_OFF(jit_page)), H_RAX, 8);
    } else {
        asm_store_imm(&t->b, OP_GS(G_OFF(jit_page)), 0, 8);
    }
    while (!t->b.full && t->b.p < start + JIT_FAR_BYTES)
        asm_u8(&t->b, 0x90);
}

/* Flags are in cpu->fl. */
static void count_run(struct tr *t)
{
    if (!t->j->counting)
        return;
    asm_mov_imm(&t->b, H_R11, (uintptr_t)&t->tb->runs);
    asm_insn(&t->b, (struct opcode){.op = 0xff, .w = true}, 0, OP_MEM(H_R11, 0)); /* INC */
}

/* It goes on at `entry`. */
static void write_entry_ef(struct tr *t, bool save)
{
    uint8_t *over = t->b.p + 1;
    if (save) { /* most come from the same page, so that it is the others that jump */
        asm_u8(&t->b, 0xeb);
        asm_u8(&t->b, 0);
    }
    t->tb->entry_ef = here(t);
    if (!save)
        return;
    asm_flags_save(&t->b, G_OFF(fl));
    if (!t->b.full)
        *over = (uint8_t)(t->b.p - (over + 1));
}

static void write_entries(struct tr *t)
{
    struct jit_tb *tb = t->tb;
    enum want want = tr_want(t, 0);
    bool code = t->j->exact || t->j->counting; /* that the entry begins with */
    write_far(t);
    if (want == WANT_EF && !t->fpu && !t->x87 && !code) {
        tb->entry = here(t);
        tr_count_heat(t, 0, false);
        asm_flags_load(&t->b, G_OFF(fl));
        tb->entry_ef = here(t);
        t->ef = true;
        return;
    }
    write_entry_ef(t, want != WANT_ANY || code || t->small);
    tb->entry = here(t);
    check_stop(t);
    count_run(t);
    tb->body = here(t);
    tr_count_heat(t, 0, false);
    if (t->fpu)
        check_live(t, G_OFF(jit_fpu_live), t->j->thunk.fpu_load);
    if (t->x87)
        check_live(t, G_OFF(jit_x87_live), t->j->thunk.x87_load);
    t->fl = want != WANT_ANY;
    if (want == WANT_EF)
        tr_need_ef(t);
}

static void write_label(struct tr *t, unsigned n)
{
    if (!t->target[n])
        return;
    if (t->want[n] == WANT_FL)
        tr_need_fl(t);
    else if (t->want[n] == WANT_EF)
        tr_need_ef(t);
    t->fl = t->want[n] == WANT_FL;
    t->ef = t->want[n] == WANT_EF;
    t->redo.kind = JIT_REDO_NONE;
    t->held.active = false;
    t->label[n] = t->b.p;
}

static bool write_insn(struct tr *t, unsigned n)
{
    bool end = false;
    t->s = &t->j->src[n];
    t->ji = NULL;
    t->slow = NULL;
    t->leaves = false;
    t->site0 = t->nsites;
    if (t->target[n] || (t->s->i.flags & X86_IF_END))
        tr_x87_settle(t);
    write_label(t, n);
    tr_flags_begin(t);
    bool known = t->s->zi.mnemonic != ZYDIS_MNEMONIC_INVALID;
    if (!known || !(tr_flow(t, &end) || tr_system(t, &end) || tr_move(t) || tr_integer(t) ||
                    tr_simd(t) || tr_x87(t))) {
        tr_interp(t);
        end = t->s->i.flags & X86_IF_END;
    }
    if (!end && !t->leaves)
        tr_slow_back(t);
    tr_flags_end(t);
    tr_group_step(t);
    if (!end && n && t->poll_behind == n)
        tr_poll(t, (t->tb->rip + t->s->i.end) & t->c->ip_mask);
    return end;
}

/* A copy that lives as long as the translation. */
static void *keep(struct tr *t, const void *p, size_t len)
{
    void *to = len ? jit_data_alloc(t->j, len) : NULL;
    if (to)
        memcpy(to, p, len);
    t->failed |= len && !to;
    return to;
}

static void write_code(struct tr *t)
{
    struct jit_tb *tb = t->tb;
    t->small = !tb->hot && !tb->cross;
    tb->start = here(t);
    for (unsigned n = 0; n < t->n; n++) {
        t->fpu |= tr_is_simd(t, &t->j->src[n]);
        t->x87 |= tr_is_x87(t, &t->j->src[n]);
    }
    find_targets(t);
    write_entries(t);
    bool end = false;
    for (unsigned n = 0; n < t->n && !end; n++)
        end = write_insn(t, n);
    tr_x87_settle(t);
    if (!end)
        tr_goto(t, (tb->rip + tb->len) & t->c->ip_mask, tb->rip);
    tr_cold_emit(t);
    tb->site = keep(t, t->site, t->nsites * sizeof *t->site);
    tb->redo = keep(t, t->redos, t->nredo * sizeof *t->redos);
}

int jit_translator_create(struct jit *j, struct error *e)
{
    j->tr = malloc(sizeof *j->tr);
    return j->tr ? 0 : error_set(e, ERR_NOMEM, "out of memory for the translator");
}

void jit_translator_destroy(struct jit *j)
{
    free(j->tr);
}

struct jit_tb *jit_translate(struct x86_cpu *c, gva_t lin, uint64_t roff, unsigned mode,
                             unsigned single, bool hot)
{
    struct jit *j = c->jit;
    j->full = true; /* unless it turns out otherwise */
    if (j->size - j->used < TB_HOST_MAX)
        return NULL;
    struct jit_tb *tb = jit_tb_alloc(j);
    if (!tb)
        return NULL;
    struct tr *t = j->tr;
    memset(t, 0, offsetof(struct tr, redos));
    t->ncold = 0;
    t->j = j;
    t->c = c;
    t->tb = tb;
    t->m = &j->mode[mode];
    t->lin = lin;
    t->smp = c->ncpus > 1;
    uint8_t *start = j->rw + j->used;
    t->b = (struct asm_buf){start, start, start + TB_HOST_MAX, false};
    bool pic = tr_code64(t);
    *tb = (struct jit_tb){.rip = pic ? roff % PAGE_SIZE : c->s.rip,
                          .roff = roff,
                          .mode = mode,
                          .pic = pic,
                          .single = (uint16_t)single,
                          .hot = hot};
    decode_run(t);
    if (!t->n)
        decode_cross(t);
    if (!t->n) {
        j->full = false;
        return NULL;
    }
    tb->count = (uint16_t)t->n;
    tb->alone = j->exact && j->src[0].alone;
    write_code(t);
    if (t->failed || t->b.full)
        return NULL;
    tb->host_len = (uint32_t)(t->b.p - start);
    uint64_t before = j->used;
    j->used += (tb->host_len + 15) & ~15u;
    jit_arena_grown(j, before);
    j->stat.translations++;
    j->stat.hot += hot;
    jit_order_add(j, tb);
    jit_log_made(c, tb);
    return tb;
}
