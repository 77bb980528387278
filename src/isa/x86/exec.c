/*
 * exec.c - generations of the mappings that code is executed through.
 *
 * Guests make the TLB forget far more often than they move code: a fork, a stack of the kernel's
 * that is unmapped. So what is executed is remembered, page by page, and when the TLB has been told
 * to forget, it is looked at whether those pages still are where they were. If so, the generation
 * stays. A processor may fetch translations ahead at any time (SDM vol. 3, 4.10.2.3), so that it
 * may have cached just what is found then; what it could not cache, because an accessed bit would
 * have to be set, counts as changed.
 */
#include "isa/x86/access.h"
#include "isa/x86/mmu.h"

#define LARGE_MASK (2 * MIB - 1)

static void reset(struct x86_cpu *c, struct x86_exec_set *s, uint64_t pcid)
{
    s->gen = ++c->tlb.exec.next;
    s->pcid = pcid;
    s->stale = s->full = false;
    s->n = 0;
    memset(s->hash, 0, sizeof s->hash);
}

static struct x86_exec_set *set_of(struct x86_cpu *c, uint64_t pcid)
{
    return &c->tlb.exec.set[pcid % X86_EXEC_SETS];
}

static bool is_same(struct x86_cpu *c, const struct x86_exec_page *p)
{
    uint64_t roff;
    bool large;
    return x86_walk_fetch(c, p->lin, p->user ? X86_MMU_USER : X86_MMU_KERNEL, &roff, &large) &&
           roff == p->roff && large == p->large;
}

static bool all_same(struct x86_cpu *c, const struct x86_exec_set *s)
{
    for (unsigned n = 0; n < s->n; n++)
        if (!is_same(c, &s->page[n]))
            return false;
    return !s->full;
}

uint64_t x86_exec_gen(struct x86_cpu *c, bool global)
{
    struct x86_exec_set *s = global ? &c->tlb.exec.global : set_of(c, c->pcid);
    uint64_t pcid = global ? 0 : c->pcid;
    if (!s->gen || s->pcid != pcid || (s->stale && !all_same(c, s)))
        reset(c, s, pcid);
    s->stale = false;
    return s->gen;
}

uint64_t x86_exec_gen_known(struct x86_cpu *c, uint64_t pcid)
{
    const struct x86_exec_set *s = set_of(c, pcid), *global = &c->tlb.exec.global;
    bool known = s->pcid == pcid && !s->stale && global->gen && !global->stale;
    return known ? s->gen : 0;
}

/* The place of the page, or of the free one. */
static uint16_t *find(struct x86_exec_set *s, const struct x86_exec_page *p)
{
    unsigned at = x86_filter_bit(p->lin ^ p->large, X86_EXEC_HASH);
    for (;; at = (at + 1) % X86_EXEC_HASH) {
        uint16_t *h = &s->hash[at];
        if (!*h)
            return h;
        const struct x86_exec_page *q = &s->page[*h - 1];
        if (q->lin == p->lin && q->large == p->large && q->user == p->user)
            return h;
    }
}

/* The TLB's entry for code at this address, and X86_TLBF_* of it; NULL: it has none. */
static const struct x86_tlbe *entry_of(struct x86_cpu *c, gva_t lin, unsigned *flags)
{
    unsigned mmu = c->cpl == 3 ? X86_MMU_USER : X86_MMU_KERNEL;
    const struct x86_tlbe *e = x86_tlb_entry(c, lin, mmu);
    *flags = c->tlb.flags[mmu][0][(lin >> 12) & (X86_TLB_SIZE - 1)];
    return e->xtag == x86_tlb_tag(c, lin, 1, mmu) ? e : NULL;
}

bool x86_exec_is_global(struct x86_cpu *c, gva_t lin)
{
    unsigned flags;
    return entry_of(c, lin, &flags) && (flags & X86_TLBF_GLOBAL);
}

void x86_exec_note(struct x86_cpu *c, gva_t lin)
{
    struct x86_exec *x = &c->tlb.exec;
    unsigned flags;
    const struct x86_tlbe *e = entry_of(c, lin, &flags);
    bool large = !e || (flags & X86_TLBF_LARGE), global = e && (flags & X86_TLBF_GLOBAL);
    x86_filter_add(x->pages[global], X86_EXEC_FILTER, lin >> 12);
    if (large)
        x86_filter_add(x->large, X86_LARGE_FILTER, lin >> 30);
    struct x86_exec_set *s = global ? &x->global : set_of(c, c->pcid);
    if (s->full)
        return;
    if (!e) {
        s->full = true;
        return;
    }
    gva_t base = lin & ~(large ? (gva_t)LARGE_MASK : (gva_t)PAGE_SIZE - 1);
    struct x86_exec_page p = {.lin = base,
                              .roff = e->addend + base - (uintptr_t)c->ram->host,
                              .large = large,
                              .user = c->cpl == 3};
    uint16_t *h = find(s, &p);
    if (*h)
        return;
    s->full = s->n == X86_EXEC_PAGES;
    if (!s->full) {
        s->page[s->n++] = p;
        *h = (uint16_t)s->n;
    }
}

void x86_exec_flush_pcid(struct x86_cpu *c, uint64_t pcid)
{
    struct x86_exec_set *s = set_of(c, pcid);
    if (s->pcid == pcid)
        s->stale = true;
}

void x86_exec_flush_nonglobal(struct x86_cpu *c)
{
    for (unsigned n = 0; n < X86_EXEC_SETS; n++)
        c->tlb.exec.set[n].stale = true;
}

void x86_exec_flush_all(struct x86_cpu *c)
{
    x86_exec_flush_nonglobal(c);
    c->tlb.exec.global.stale = true;
}

static bool may_have(const struct x86_cpu *c, gva_t addr, bool global)
{
    const struct x86_exec *x = &c->tlb.exec;
    return x86_filter_has(x->large, X86_LARGE_FILTER, addr >> 30) ||
           x86_filter_has(x->pages[global], X86_EXEC_FILTER, addr >> 12);
}

bool x86_exec_may_have(const struct x86_cpu *c, gva_t addr)
{
    return may_have(c, addr, false) || may_have(c, addr, true);
}

void x86_exec_flush_page(struct x86_cpu *c, gva_t addr, uint64_t pcid)
{
    if (may_have(c, addr, false))
        x86_exec_flush_pcid(c, pcid);
    if (may_have(c, addr, true))
        c->tlb.exec.global.stale = true;
}
