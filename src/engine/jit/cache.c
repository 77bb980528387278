/*
 * cache.c - which translations there are: finding, linking, killing. Rules: jit.h.
 */
#include <string.h>

#include "engine/jit/jit.h"
#include "engine/jit/log.h"
#include "engine/jit/regs.h"
#include "isa/x86/access.h"
#include "isa/x86/code.h"
#include "isa/x86/fpu.h"
#include "isa/x86/native.h"

void jit_tell_runs(const struct jit *j)
{
    if (!j->counting)
        return;
    for (unsigned n = 0; n < JIT_BUCKETS; n++)
        for (const struct jit_tb *tb = j->bucket[n]; tb; tb = tb->next)
            jit_log_gone(tb);
}

/* A guest may jump to any number. An empty entry's key, 0, is looked for in entry 0 alone, and 1
 * elsewhere: neither is ever found. */
static void forget_jumps(struct x86_cpu *c)
{
    memset(c->jump, 0, sizeof c->jump);
    c->jump[0].key = 1;
}

void jit_flush(struct x86_cpu *c)
{
    struct jit *j = c->jit;
    jit_tell_runs(j);
    memset(j->bucket, 0, JIT_BUCKETS * sizeof *j->bucket);
    memset(j->page, 0, sizeof j->page);
    forget_jumps(c);
    j->used = j->thunk_end;
    j->data_used = 0;
    j->ntbs = 0;
    j->modes = 0;
    memset(j->recent, 0, sizeof j->recent);
    j->ngens = 1; /* number 0 is not used: no key is 0 */
    j->tlb_epoch = ~0ull;
    j->flushes++;
    c->jit_drop = 1;
    jit_heat_reset(c);
    jit_serialize();
}

/* ---- modes ---- */

static enum jit_segkind seg_kind(const struct x86_cpu *c, unsigned n)
{
    const struct x86_segc *s = &c->segc[n];
    const struct x86_seg *d = &c->s.seg[n];
    if ((s->ok & (X86_SEGOK_R | X86_SEGOK_W)) == (X86_SEGOK_R | X86_SEGOK_W))
        return s->base ? JIT_SEG_BASE : JIT_SEG_FLAT;
    bool data = !c->protected_mode || (!(d->attr & X86_TYPE_X) && (d->attr & X86_TYPE_RW));
    if (data && !(d->attr & (X86_ATTR_UNUSABLE | X86_TYPE_DC)) && d->limit >= 0xffff)
        return JIT_SEG_64K;
    return JIT_SEG_SLOW;
}

#define SEG_AT(kind, seg) ((uint32_t)(kind) << (JIT_M_SEG_SH + 2 * (seg)))
#define SEG_BITS64                                                                                \
    (SEG_AT(JIT_SEG_FLAT, X86_ES) | SEG_AT(JIT_SEG_FLAT, X86_CS) | SEG_AT(JIT_SEG_FLAT, X86_SS) | \
     SEG_AT(JIT_SEG_FLAT, X86_DS) | SEG_AT(JIT_SEG_BASE, X86_FS) | SEG_AT(JIT_SEG_BASE, X86_GS))
static uint32_t seg_bits(const struct x86_cpu *c)
{
    uint32_t b = 0;
    if (LIKELY(c->code_size == 64))
        return SEG_BITS64;
    for (unsigned n = 0; n < X86_NSEG; n++)
        b |= (uint32_t)seg_kind(c, n) << (JIT_M_SEG_SH + 2 * n);
    return b;
}

static uint32_t mode_bits(const struct x86_cpu *c)
{
    uint32_t b = c->code_size == 16 ? JIT_M_CODE16 : c->code_size == 32 ? JIT_M_CODE32 : 0;
    b |= (uint32_t)c->mmu << JIT_M_MMU_SH;
    if (c->cpl == 3)
        b |= JIT_M_USER;
    if (c->cpl == 0)
        b |= JIT_M_CPL0;
    if (c->sp_mask == 0xffff)
        b |= JIT_M_SP16;
    if (c->long_active)
        b |= JIT_M_LONG;
    /* Errors would have to be reported: those instructions are left to the interpreter's stubs. */
    bool masked = (c->s.fpu.mxcsr & 0x1f80) == 0x1f80;
    if (masked && !(c->s.cr0 & (X86_CR0_EM | X86_CR0_TS)) && (c->s.cr4 & X86_CR4_OSFXSR))
        b |= JIT_M_SSE;
    const uint64_t avx = X86_XCR0_SSE | X86_XCR0_AVX;
    if (masked && !(c->s.cr0 & X86_CR0_TS) && (c->s.cr4 & X86_CR4_OSXSAVE) &&
        (c->s.xcr0 & avx) == avx && c->protected_mode)
        b |= JIT_M_AVX;
    bool x87 = (c->s.fpu.fcw & X86_FCW_MASKS) == X86_FCW_MASKS && !(c->s.fpu.fsw & X86_FSW_ES);
    if (x87 && !(c->s.cr0 & (X86_CR0_EM | X86_CR0_TS)) && c->jit->xsave)
        b |= JIT_M_X87;
    return b | seg_bits(c);
}

static bool same_mode(const struct jit_mode *a, const struct jit_mode *b)
{
    return a->bits == b->bits && a->cs_base == b->cs_base && a->cs_limit == b->cs_limit;
}

bool jit_mode_find(struct jit *j, const struct jit_mode *m, unsigned *index)
{
    struct jit_recent *r = &j->recent[(m->bits ^ m->bits >> 7 ^ m->cs_base >> 4) % JIT_RECENTS];
    if (LIKELY(r->valid && same_mode(&r->mode, m))) {
        *index = r->index;
        return true;
    }
    unsigned n = 0;
    while (n < j->modes && !same_mode(&j->mode[n], m))
        n++;
    if (n == JIT_MODES)
        return false;
    if (n == j->modes)
        j->mode[j->modes++] = *m;
    *r = (struct jit_recent){*m, n, true};
    *index = n;
    return true;
}

static unsigned mode_index(struct x86_cpu *c, const struct jit_mode *m)
{
    unsigned n = 0;
    if (!jit_mode_find(c->jit, m, &n)) {
        jit_flush(c);
        jit_mode_find(c->jit, m, &n);
    }
    return n;
}

/* A short number for a generation; with the mode it makes a key of the jump cache unique. */
static unsigned gen_index(struct x86_cpu *c, uint64_t gen)
{
    struct jit *j = c->jit;
    for (unsigned n = j->ngens; n-- > 0;)
        if (j->gens[n] == gen)
            return n;
    if (j->ngens == JIT_GENS) {
        j->ngens = 1;
        forget_jumps(c);
    }
    j->gens[j->ngens] = gen;
    return j->ngens++;
}

static void update_gens(struct x86_cpu *c)
{
    struct jit *j = c->jit;
    uint64_t gen = x86_exec_gen(c, false);
    do { /* the second one may have forgotten the first */
        j->cur_gen = gen_index(c, gen);
        j->cur_gen_global = gen_index(c, x86_exec_gen(c, true));
    } while (j->ngens <= j->cur_gen || j->gens[j->cur_gen] != gen);
    j->tlb_epoch = c->tlb.epoch;
}

void jit_mode_update(struct x86_cpu *c)
{
    struct jit *j = c->jit;
    struct jit_mode m = {mode_bits(c), c->code_size == 64 ? 0 : c->segc[X86_CS].base, c->cs_limit};
    bool same = j->modes && same_mode(&m, &j->mode[j->cur_mode]) &&
                c->jit_key >> 56 == j->cur_mode; /* translated code may have changed it */
    if (LIKELY(same && j->tlb_epoch == c->tlb.epoch))
        return;
    if (!same) {
        uint64_t flushes = j->flushes;
        do {
            flushes = j->flushes;
            m.bits &= ~JIT_M_GLOBAL;
            j->cur_mode = mode_index(c, &m);
            m.bits |= JIT_M_GLOBAL;
            j->cur_mode_global = mode_index(c, &m);
        } while (flushes != j->flushes); /* the second one has forgotten the first */
    }
    if (j->tlb_epoch != c->tlb.epoch)
        update_gens(c);
    c->jit_key = (uint64_t)j->cur_mode << 56 | (uint64_t)j->cur_gen << 48;
    c->jit_key_global = (uint64_t)j->cur_mode_global << 56 | (uint64_t)j->cur_gen_global << 48;
}

/* ---- the jump cache ---- */

unsigned jit_jump_index(uint64_t rip)
{
    return ((uint32_t)rip * JIT_JUMP_HASH >> JIT_JUMP_SHIFT) & (X86_JUMPS - 1);
}

void jit_jump_insert(struct x86_cpu *c, const struct jit_tb *tb)
{
    struct jit *j = c->jit;
    bool global = j->mode[tb->mode].bits & JIT_M_GLOBAL;
    c->jump[jit_jump_index(c->s.rip)] =
        (struct x86_jump){c->s.rip ^ (global ? c->jit_key_global : c->jit_key), tb->far};
}

/* ---- links ---- */

void jit_link_to(struct x86_cpu *c, struct jit_link *l, struct jit_tb *to)
{
    l->next = to->in;
    to->in = l;
    asm_patch(l->site, jit_rw(c->jit, l->fl ? to->entry : to->entry_ef));
}

/* ---- killing ---- */

static struct jit_tb **bucket_of(struct jit *j, uint64_t rip, uint64_t roff)
{
    uint64_t h = (rip ^ roff << 20) * 0x9e3779b97f4a7c15ull;
    return &j->bucket[h >> (64 - JIT_TB_BITS)];
}

static void remove_from_bucket(struct jit *j, const struct jit_tb *tb)
{
    for (struct jit_tb **at = bucket_of(j, tb->rip, tb->roff); *at; at = &(*at)->next)
        if (*at == tb) {
            *at = tb->next;
            break;
        }
}

/* Whoever finds it in the jump cache is led elsewhere; a jump of 32 bits also tells that. */
static void lead_away(struct jit *j, const struct jit_tb *tb, const uint8_t *to)
{
    uint8_t *far = jit_rw(j, tb->far);
    struct asm_buf b = {far, far, jit_rw(j, tb->entry), false};
    asm_patch(asm_jmp(&b, NULL), jit_rw(j, to));
}

static void kill_tb(struct x86_cpu *c, struct jit_tb *tb)
{
    struct jit *j = c->jit;
    remove_from_bucket(j, tb);
    for (struct jit_link *l = tb->in; l; l = l->next)
        asm_patch(l->site, l->stub);
    tb->in = NULL;
    lead_away(j, tb, j->thunk.dead);
    j->stat.killed++;
    c->jit_drop = 1;
    jit_log_gone(tb);
}

static struct jit_page *find_page(struct jit *j, uint64_t roff)
{
    struct jit_page *p = j->page[roff / PAGE_SIZE % ARRAY_LEN(j->page)];
    while (p && p->roff != (roff & X86_PAGE_MASK))
        p = p->next;
    return p;
}

static uint32_t gen_of(const struct jit_tb *tb, unsigned part)
{
    return part ? tb->gen2 : tb->gen;
}

static void unlink_part(struct jit *j, struct jit_tb *tb, unsigned part)
{
    struct jit_page *p = find_page(j, part ? tb->roff2 : tb->roff);
    struct jit_tb **at = &p->tb[part];
    while (*at != tb)
        at = &(*at)->page_next[part];
    *at = tb->page_next[part];
}

/* Those with a part in the page. */
static bool sync_part(struct x86_cpu *c, struct jit_page *p, unsigned part, uint32_t gen)
{
    bool any = false;
    struct jit_tb **at = &p->tb[part];
    while (*at) {
        struct jit_tb *tb = *at;
        if (gen_of(tb, part) == gen) {
            at = &tb->page_next[part];
            continue;
        }
        *at = tb->page_next[part];
        if (tb->cross)
            unlink_part(c->jit, tb, !part);
        kill_tb(c, tb);
        any = true;
    }
    return any;
}

static bool sync_page(struct x86_cpu *c, struct jit_page *p)
{
    uint32_t gen = ram_code_gen(c->ram, p->roff);
    if (p->gen == gen)
        return false;
    bool any = sync_part(c, p, 0, gen);
    any |= sync_part(c, p, 1, gen);
    p->gen = gen;
    return any;
}

/* The pages hit since then, if they are all known. */
static bool sync_recent(struct x86_cpu *c, uint64_t epoch, bool *any)
{
    struct jit *j = c->jit;
    if (epoch - j->code_epoch > RAM_HITS / 2)
        return false;
    for (uint64_t e = j->code_epoch + 1; e <= epoch; e++) {
        uint64_t roff;
        if (!ram_hit_page(c->ram, e, &roff))
            return false;
        struct jit_page *p = find_page(j, roff);
        if (p)
            *any |= sync_page(c, p);
    }
    return true;
}

void jit_sync_code(struct x86_cpu *c)
{
    struct jit *j = c->jit;
    /* Read first: what changes from now on is seen next time. */
    uint64_t epoch = atomic_load(&c->ram->code_epoch);
    bool any = false;
    if (!sync_recent(c, epoch, &any))
        for (unsigned n = 0; n < ARRAY_LEN(j->page); n++)
            for (struct jit_page *p = j->page[n]; p; p = p->next)
                any |= sync_page(c, p);
    j->code_epoch = epoch;
    if (any)
        jit_serialize();
}

/* ---- finding ---- */

static struct jit_page *page_of(struct jit *j, uint64_t roff)
{
    struct jit_page *p = find_page(j, roff);
    if (p)
        return p;
    roff &= X86_PAGE_MASK;
    struct jit_page **head = &j->page[roff / PAGE_SIZE % ARRAY_LEN(j->page)];
    p = jit_data_alloc(j, sizeof *p);
    if (!p)
        return NULL;
    p->roff = roff;
    p->next = *head;
    *head = p;
    return p;
}

static bool add_part(struct x86_cpu *c, struct jit_tb *tb, unsigned part)
{
    struct jit_page *p = page_of(c->jit, part ? tb->roff2 : tb->roff);
    if (!p)
        return false;
    if (!p->tb[0] && !p->tb[1])
        p->gen = gen_of(tb, part);
    else if (p->gen != gen_of(tb, part))
        p->gen = ~ram_code_gen(c->ram, p->roff); /* whichever is dead is found at the next sync */
    tb->page_next[part] = p->tb[part];
    p->tb[part] = tb;
    return true;
}

/* False: no memory. */
static bool insert(struct x86_cpu *c, struct jit_tb *tb)
{
    struct jit *j = c->jit;
    if (!add_part(c, tb, 0) || (tb->cross && !add_part(c, tb, 1)))
        return false;
    struct jit_tb **head = bucket_of(j, tb->rip, tb->roff);
    tb->next = *head;
    *head = tb;
    return true;
}

void jit_replace(struct x86_cpu *c, struct jit_tb *old, struct jit_tb *tb)
{
    struct jit *j = c->jit;
    remove_from_bucket(j, old);
    insert(c, tb); /* cannot fail: the page is known */
    while (old->in) {
        struct jit_link *l = old->in;
        old->in = l->next;
        jit_link_to(c, l, tb);
    }
    lead_away(j, old, tb->far);
    old->instead = tb;
}

static struct jit_tb *make(struct x86_cpu *c, gva_t lin, uint64_t roff, bool global,
                           unsigned single)
{
    struct jit *j = c->jit;
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        jit_mode_update(c);
        unsigned mode = global ? j->cur_mode_global : j->cur_mode;
        if (!x86_native_full(c)) {
            struct jit_tb *tb = jit_translate(c, lin, roff, mode, single, false);
            if (tb && insert(c, tb))
                return tb;
            if (!tb && !j->full)
                return NULL;
        } else {
            x86_code_flush(c);
        }
        jit_flush(c);
        j->native_flushes = c->native->flushes;
    }
    return NULL; /* cannot be: an empty arena holds any translation */
}

/* The second page of a crossing instruction is still what it was. */
static bool still_crosses(struct x86_cpu *c, const struct jit_tb *tb, gva_t lin)
{
    uint64_t roff2;
    gpa_t gpa;
    gva_t lin2 = (lin | (PAGE_SIZE - 1)) + 1;
    if (c->code_size != 64)
        lin2 = (uint32_t)lin2;
    return x86_code_locate(c, lin2, &roff2, &gpa) && roff2 == tb->roff2;
}

struct jit_tb *jit_find(struct x86_cpu *c, unsigned single)
{
    struct jit *j = c->jit;
    uint64_t roff = 0, rip = c->s.rip;
    gpa_t gpa;
    if (UNLIKELY(rip > c->cs_limit))
        x86_gp0(c);
    gva_t lin = c->code_size == 64 ? rip : (uint32_t)(c->s.seg[X86_CS].base + rip);
    if (UNLIKELY(!x86_code_locate(c, lin, &roff, &gpa)))
        return NULL;
    bool global = x86_exec_is_global(c, lin);
    jit_mode_update(c);
    j->stat.lookups++;
    unsigned mode = global ? j->cur_mode_global : j->cur_mode;
    uint64_t place = c->code_size == 64 ? rip % PAGE_SIZE : rip;
    struct jit_tb *tb = *bucket_of(j, place, roff);
    while (tb && !(tb->rip == place && tb->roff == roff && tb->mode == mode &&
                   tb->single == single && (!tb->cross || still_crosses(c, tb, lin))))
        tb = tb->next;
    if (!tb)
        tb = make(c, lin, roff, global, single);
    if (tb) {
        x86_exec_note(c, lin);
        if (tb->cross)
            x86_exec_note(c, lin + PAGE_SIZE);
    }
    return tb;
}
