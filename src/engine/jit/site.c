/*
 * site.c - what a translation's code is about, by its address.
 *
 * In translations made for size, a check of memory is the call of a thunk. If that fails, where it
 * returns to tells the translation, whose sites tell the instruction: nothing else in the code is
 * there for that case. The copy of an instruction that its function needs is made when it is needed
 * for the first time.
 */
#include "engine/boundary.h"
#include "engine/jit/tr.h"
#include "isa/x86/code.h"
#include "isa/x86/native.h"

/* Translations by their host code's addresses, and for each granule of the arena the last one that
 * begins before its end. */
#define GRANULE 256u

size_t jit_order_bytes(const struct jit *j)
{
    return j->size / JIT_TB_LEAST * sizeof *j->order + j->size / GRANULE * sizeof *j->granule;
}

static size_t granule_of(const struct jit *j, const uint8_t *host)
{
    return (size_t)(host - j->rx) / GRANULE;
}

void jit_order_add(struct jit *j, const struct jit_tb *tb)
{
    size_t end = granule_of(j, tb->start + tb->host_len);
    for (size_t g = granule_of(j, tb->start); g <= end; g++)
        j->granule[g] = j->ntbs;
    j->order[j->ntbs++] = jit_data_off(j, tb);
}

static struct jit_tb *translation(const struct jit *j, uint32_t n)
{
    return (struct jit_tb *)(j->data + j->order[n]);
}

/* The last one that begins below the address, where the next one may begin. */
static struct jit_tb *find(const struct jit *j, const uint8_t *ret)
{
    uint32_t n = j->granule[granule_of(j, ret - 1)];
    while (translation(j, n)->start >= ret)
        n--;
    return translation(j, n);
}

static struct jit_site *site_at(const struct jit_tb *tb, const uint8_t *ret)
{
    struct jit_site *s = tb->site;
    while (s->at != ret - tb->start)
        s++;
    return s;
}

static uint64_t rip_of(const struct x86_cpu *c, const struct jit_tb *tb, const struct jit_site *s)
{
    return (c->jit_page + tb->rip + s->off) & c->ip_mask;
}

struct jit_insn *jit_insn_new(struct jit *j, struct jit_tb *tb, const struct jit_src *s)
{
    struct jit_insn *ji = jit_data_alloc(j, sizeof *ji);
    if (ji)
        *ji = (struct jit_insn){.i = s->i, .tb = tb, .x87 = tr_touches_x87(s)};
    return ji;
}

/* NULL: no memory. */
static struct jit_insn *insn_of(struct x86_cpu *c, struct jit_tb *tb, struct jit_site *s)
{
    struct jit *j = c->jit;
    if (s->insn)
        return (struct jit_insn *)(j->data + s->insn);
    if (x86_native_full(c))
        return NULL;
    struct jit_src src;
    jit_decode(c, c->ram->host + tb->roff + s->off, (unsigned)(tb->len - s->off), s->off, &src);
    struct jit_insn *ji = jit_insn_new(j, tb, &src);
    if (ji)
        s->insn = jit_data_off(j, ji);
    return ji;
}

static const uint8_t *leave_to(struct x86_cpu *c, uint64_t rip)
{
    c->s.rip = rip;
    return jit_c_dispatch(c);
}

/* Where a group cannot be: the translation without it goes on at once, as in jit_c_link(). What the
 * site remembers lives as long as `tb`, being in the same page. */
static const uint8_t *single(struct x86_cpu *c, const struct jit_tb *tb, struct jit_site *s,
                             uint64_t rip)
{
    struct jit *j = c->jit;
    c->jit_resume = 0;
    if (s->insn && j->code_epoch == atomic_load(&c->ram->code_epoch)) {
        const struct jit_tb *known = (const struct jit_tb *)(j->data + s->insn);
        return known->instead ? known->instead->entry : known->entry;
    }
    uint64_t flushes = j->flushes, killed = j->stat.killed;
    c->s.rip = rip;
    const struct jit_tb *to = jit_lookup_single(c, (unsigned)(tb->len - s->off));
    if (!to)
        return j->thunk.leave;
    if (flushes == j->flushes && killed == j->stat.killed)
        s->insn = jit_data_off(j, to);
    return to->entry;
}

const uint8_t *jit_c_slow(struct x86_cpu *c, const uint8_t *ret)
{
    struct jit_tb *tb = find(c->jit, ret);
    struct jit_site *s = site_at(tb, ret);
    uint64_t rip = rip_of(c, tb, s);
    if (s->redo)
        c->fl = jit_redo_flags(c, &tb->redo[s->redo - 1]);
    if (s->bits & JIT_SITE_GROUP)
        return single(c, tb, s, rip);
    c->jit_resume = JIT_SITE_LEFT;
    /* What has been written meanwhile is not what the translation was made of. */
    if (ram_code_gen(c->ram, tb->roff) != tb->gen)
        return leave_to(c, rip);
    struct jit_insn *ji = insn_of(c, tb, s);
    if (!ji) {
        jit_flush(c);
        return leave_to(c, rip);
    }
    if (!s->back)
        return jit_c_interp_end(c, ji);
    if (!jit_c_interp(c, ji))
        return jit_c_dispatch(c);
    c->jit_resume = s->bits & (ji->x87 ? JIT_SITE_EF | JIT_SITE_FPU | JIT_SITE_X87
                                       : JIT_SITE_EF | JIT_SITE_FPU);
    return tb->start + s->back;
}

const uint8_t *jit_c_hot(struct x86_cpu *c, const uint8_t *ret)
{
    struct jit_tb *tb = find(c->jit, ret);
    const struct jit_site *s = site_at(tb, ret);
    const struct jit_tb *to = NULL;
    c->jit_resume = s->bits;
    c->s.rip = rip_of(c, tb, s);
    if (!jit_is_hot(c))
        return tb->start + s->back;
    if (!s->off) {
        to = jit_make_hot(c, tb);
        if (to == tb)
            return tb->start + s->back;
        c->jit_resume = 0;
        return to->body ? to->body : to->entry;
    }
    c->jit_resume = 0;
    if (!boundary_needed(c))
        to = jit_lookup(c); /* of the loop alone, which will count for itself */
    return to ? to->entry : c->jit->thunk.leave;
}
