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

void jit_order_add(struct jit *j, const struct jit_tb *tb)
{
    j->order[j->ntbs++] = jit_data_off(j, tb);
}

static struct jit_tb *translation(const struct jit *j, uint32_t n)
{
    return (struct jit_tb *)(j->data + j->order[n]);
}

/* The last one that begins below the address, behind which the next one may begin. */
static struct jit_tb *find(const struct jit *j, const uint8_t *ret)
{
    uint32_t lo = 0, hi = j->ntbs; /* it is in [lo, hi) */
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (translation(j, mid)->start < ret)
            lo = mid;
        else
            hi = mid;
    }
    return translation(j, lo);
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

/* NULL: no memory. */
static struct jit_insn *insn_of(struct x86_cpu *c, struct jit_tb *tb, struct jit_site *s)
{
    struct jit *j = c->jit;
    if (s->insn)
        return (struct jit_insn *)(j->data + s->insn);
    struct jit_insn *ji = x86_native_full(c) ? NULL : jit_data_alloc(j, sizeof *ji);
    if (!ji)
        return NULL;
    struct jit_src src;
    x86_decode_full(c, c->ram->host + tb->roff + s->off, (unsigned)(tb->len - s->off), s->off,
                    &src.i, &src.zi, src.op);
    ji->i = src.i;
    ji->tb = tb;
    ji->x87 = tr_touches_x87(&src);
    s->insn = jit_data_off(j, ji);
    return ji;
}

static const uint8_t *leave_to(struct x86_cpu *c, uint64_t rip)
{
    c->s.rip = rip;
    return jit_c_dispatch(c);
}

const uint8_t *jit_c_slow(struct x86_cpu *c, const uint8_t *ret)
{
    struct jit_tb *tb = find(c->jit, ret);
    struct jit_site *s = site_at(tb, ret);
    uint64_t rip = rip_of(c, tb, s);
    if (s->bits & JIT_SITE_GROUP) { /* as jit_c_link() */
        c->jit_resume = 0;
        c->s.rip = rip;
        const struct jit_tb *to = jit_lookup_single(c, (unsigned)(tb->len - s->off));
        return to ? to->entry : c->jit->thunk.leave;
    }
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
    c->jit_resume = 0;
    if (!s->off) {
        to = jit_make_hot(c, tb);
        return to->body ? to->body : to->entry;
    }
    if (!boundary_needed(c))
        to = jit_lookup(c); /* of the loop alone, which will count for itself */
    return to ? to->entry : c->jit->thunk.leave;
}
