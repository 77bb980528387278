/*
 * mmu.c - paging (SDM volume 3, chapter 4) and the software TLB.
 *
 * A walk yields the leaf's address and the rights of the whole path; x86_tlb_fill() turns them into
 * tags that say what the present mode may do with the page, so that a hit needs no further check.
 * Everything that changes how rights become tags (CR0.WP, CR4.SMEP/SMAP, EFER.NXE, the paging mode)
 * flushes the whole TLB; CPL and EFLAGS.AC select among the arrays instead.
 */
#include "isa/x86/mmu.h"

#include "isa/x86/access.h"

#define PHYS_MASK ((1ull << X86_PHYS_BITS) - 1)
#define PTE_ADDR  (PHYS_MASK & X86_PAGE_MASK)
/* Address bits above the physical width are reserved; bits 52..62 are ignored (SDM 4.5). */
#define PTE_RSVD64 (((1ull << 52) - 1) & ~PHYS_MASK)
/* PAE: bits 52..62 are reserved too (SDM table 4-8). */
#define PTE_RSVD_PAE (~PHYS_MASK & ~PTE_NX)

struct walk {
    gpa_t page; /* address of the 4 KiB page within the leaf */
    bool w, u, nx, global, large, huge, dirty;
};

enum walk_result { WALK_OK, WALK_ABSENT, WALK_RESERVED };

/* One entry of a paging structure, 4 or 8 bytes, anywhere in the address map. */
struct slot {
    gpa_t addr;
    void *host; /* NULL: not RAM */
    unsigned size;
    uint64_t val;
};

static void *host_of(struct x86_cpu *c, gpa_t addr)
{
    uint64_t roff;
    bool writable;
    if (ram_direct(c->ram, addr, &roff))
        return c->ram->host + roff;
    if (c->no_device)
        return NULL;
    if (!space_page(c->mem, addr, &roff, &writable) || !writable)
        return NULL;
    return c->ram->host + roff + addr % PAGE_SIZE;
}

static void slot_read(struct x86_cpu *c, struct slot *s, gpa_t addr, unsigned size)
{
    addr &= atomic_load_explicit(&c->a20_mask, memory_order_relaxed);
    *s = (struct slot){.addr = addr, .size = size, .host = host_of(c, addr)};
    if (!s->host && c->no_device)
        s->val = 0;
    else if (!s->host)
        s->val = c->bus.mem_read(c->bus.ctx, addr, size);
    else if (size == 4)
        s->val = __atomic_load_n((uint32_t *)s->host, __ATOMIC_RELAXED);
    else
        s->val = __atomic_load_n((uint64_t *)s->host, __ATOMIC_RELAXED);
}

static bool slot_lacks(const struct slot *s, uint64_t bits)
{
    return (s->val & bits) != bits && s->host;
}

/* Sets bits in an entry; false if it changed meanwhile (the walk starts again). SDM 8.1.2.1:
 * atomic. */
static bool slot_set(struct slot *s, uint64_t bits)
{
    if (!slot_lacks(s, bits))
        return true;
    uint64_t want = s->val | bits;
    if (s->size == 4) {
        uint32_t old = (uint32_t)s->val;
        return __atomic_compare_exchange_n((uint32_t *)s->host, &old, (uint32_t)want, false,
                                           __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    }
    uint64_t old = s->val;
    return __atomic_compare_exchange_n((uint64_t *)s->host, &old, want, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_RELAXED);
}

/* 32-bit paging (SDM 4.3). `s` receives the entries used, `n` their number. */
static enum walk_result walk32(struct x86_cpu *c, gva_t lin, struct walk *w, struct slot *s, int *n)
{
    slot_read(c, &s[0], (c->s.cr3 & 0xfffff000u) + ((lin >> 22) & 0x3ff) * 4, 4);
    *n = 1;
    uint64_t pde = s[0].val;
    if (!(pde & PTE_P))
        return WALK_ABSENT;
    w->w = pde & PTE_W;
    w->u = pde & PTE_U;
    if ((pde & PTE_PS) && (c->s.cr4 & X86_CR4_PSE)) {
        if (pde & (1u << 21)) /* above the address bits that PSE-36 has with 40 physical bits */
            return WALK_RESERVED;
        w->large = true;
        w->global = pde & PTE_G;
        w->dirty = pde & PTE_D;
        w->page = (pde & 0xffc00000u) | ((pde >> 13) & 0xff) << 32 | (lin & 0x3ff000);
        return WALK_OK;
    }
    slot_read(c, &s[1], (pde & 0xfffff000u) + ((lin >> 12) & 0x3ff) * 4, 4);
    *n = 2;
    uint64_t pte = s[1].val;
    if (!(pte & PTE_P))
        return WALK_ABSENT;
    w->w &= !!(pte & PTE_W);
    w->u &= !!(pte & PTE_U);
    w->global = pte & PTE_G;
    w->dirty = pte & PTE_D;
    w->page = pte & 0xfffff000u;
    return WALK_OK;
}

/* The levels of PAE and 4-level paging below `table`, starting at `level` (4 PML4, 3 PDPT, 2 PD, 1
 * PT). */
static enum walk_result walk64(struct x86_cpu *c, gva_t lin, gpa_t table, int level, struct walk *w,
                               struct slot *s, int *n)
{
    uint64_t rsvd = c->long_active ? PTE_RSVD64 : PTE_RSVD_PAE;
    if (!(c->s.efer & X86_EFER_NXE))
        rsvd |= PTE_NX;
    w->w = w->u = true;
    for (;; level--) {
        unsigned shift = 12 + 9 * (unsigned)(level - 1);
        struct slot *e = &s[(*n)++];
        slot_read(c, e, table + ((lin >> shift) & 0x1ff) * 8, 8);
        if (!(e->val & PTE_P))
            return WALK_ABSENT;
        bool leaf = level == 1 || (level < 4 && (e->val & PTE_PS));
        uint64_t bad = rsvd;
        if (level == 4)
            bad |= PTE_PS;
        else if (leaf && level > 1)
            bad |= ((1ull << shift) - 1) & ~0x1fffull; /* below the page's address; bit 12 is PAT */
        if (e->val & bad)
            return WALK_RESERVED;
        w->w &= !!(e->val & PTE_W);
        w->u &= !!(e->val & PTE_U);
        w->nx |= !!(e->val & PTE_NX);
        if (!leaf) {
            table = e->val & PTE_ADDR;
            continue;
        }
        uint64_t within = (1ull << shift) - 1;
        w->large = level > 1;
        w->huge = level > 2;
        w->global = e->val & PTE_G;
        w->dirty = e->val & PTE_D;
        w->page = (e->val & PTE_ADDR & ~within) | (lin & within & X86_PAGE_MASK);
        return WALK_OK;
    }
}

static enum walk_result walk(struct x86_cpu *c, gva_t lin, struct walk *w, struct slot *s, int *n)
{
    *w = (struct walk){0};
    *n = 0;
    if (!(c->s.cr4 & X86_CR4_PAE))
        return walk32(c, lin, w, s, n);
    if (c->long_active)
        return walk64(c, lin, c->s.cr3 & PTE_ADDR, 4, w, s, n);
    uint64_t pdpte = c->s.pdpte[(lin >> 30) & 3];
    if (!(pdpte & PTE_P))
        return WALK_ABSENT;
    return walk64(c, lin, pdpte & PTE_ADDR, 2, w, s, n);
}

static bool is_user(enum x86_mmu mmu)
{
    return mmu == X86_MMU_USER || mmu == X86_MMU_ALIGN;
}

static bool may_read(const struct x86_cpu *c, const struct walk *w, enum x86_mmu mmu)
{
    if (is_user(mmu))
        return w->u;
    return !(w->u && (c->s.cr4 & X86_CR4_SMAP) && mmu == X86_MMU_KERNEL);
}

static bool may_write(const struct x86_cpu *c, const struct walk *w, enum x86_mmu mmu)
{
    if (!may_read(c, w, mmu))
        return false;
    return w->w || (!is_user(mmu) && !(c->s.cr0 & X86_CR0_WP));
}

static bool may_fetch(const struct x86_cpu *c, const struct walk *w, enum x86_mmu mmu)
{
    if (w->nx)
        return false;
    if (is_user(mmu))
        return w->u;
    return !(w->u && (c->s.cr4 & X86_CR4_SMEP));
}

static bool permitted(const struct x86_cpu *c, const struct walk *w, enum x86_access acc,
                      enum x86_mmu mmu)
{
    switch (acc) {
    case X86_READ:
        return may_read(c, w, mmu);
    case X86_WRITE:
        return may_write(c, w, mmu);
    default:
        return may_fetch(c, w, mmu);
    }
}

static _Noreturn void page_fault(struct x86_cpu *c, gva_t lin, enum x86_access acc,
                                 enum x86_mmu mmu, uint32_t why)
{
    uint32_t err = why;
    if (acc == X86_WRITE)
        err |= X86_PF_W;
    if (is_user(mmu))
        err |= X86_PF_U;
    bool nxe = (c->s.cr4 & X86_CR4_PAE) && (c->s.efer & X86_EFER_NXE);
    if (acc == X86_FETCH && (nxe || (c->s.cr4 & X86_CR4_SMEP)))
        err |= X86_PF_I;
    x86_raise_pf(c, lin, err);
}

/* Walks, checks, sets accessed and dirty bits. */
static void walk_for(struct x86_cpu *c, gva_t lin, enum x86_access acc, enum x86_mmu mmu,
                     struct walk *w)
{
    struct slot s[4];
    int n;
again:;
    enum walk_result r = walk(c, lin, w, s, &n);
    if (r == WALK_ABSENT)
        page_fault(c, lin, acc, mmu, 0);
    if (r == WALK_RESERVED)
        page_fault(c, lin, acc, mmu, X86_PF_P | X86_PF_R);
    if (!permitted(c, w, acc, mmu))
        page_fault(c, lin, acc, mmu, X86_PF_P);
    if (acc == X86_WRITE)
        w->dirty = true;
    bool changed = false;
    for (int k = 0; k < n; k++) {
        uint64_t bits = PTE_A | (k == n - 1 && acc == X86_WRITE ? PTE_D : 0);
        changed |= slot_lacks(&s[k], bits);
        if (!slot_set(&s[k], bits))
            goto again;
    }
    if (UNLIKELY(changed && c->observer))
        c->observer->walked(c->observer);
    if (!(c->s.cr4 & X86_CR4_PGE))
        w->global = false;
}

/* Breakpoint addresses make their pages uncacheable, so that every access is looked at. */
static bool watched_page(const struct x86_cpu *c, gva_t lin)
{
    if (!c->watch_data)
        return false;
    for (int n = 0; n < 4; n++)
        if ((c->s.dr[n] & X86_PAGE_MASK) == (lin & X86_PAGE_MASK) ||
            ((c->s.dr[n] + 7) & X86_PAGE_MASK) == (lin & X86_PAGE_MASK))
            return true;
    return false;
}

static unsigned slot_of(const struct x86_cpu *c, const struct x86_tlbe *e)
{
    return (unsigned)(e - c->tlb.e[0][0]) & (X86_TLB_SIZE - 1);
}

/* Of the vCPU, the kind of access and the set of an entry: as ram_add_writer() wants it. */
static uint32_t place_of(const struct x86_cpu *c, const struct x86_tlbe *e)
{
    uint32_t mmu = (uint32_t)(e - c->tlb.e[0][0]) / (X86_TLB_SIZE * X86_TLB_WAYS);
    return 1 + ((c->index * X86_NMMU + mmu) << X86_TLB_BITS | slot_of(c, e));
}

/* The set's first entry; NULL: the place is another vCPU's. */
static struct x86_tlbe *entries_at(struct x86_cpu *c, uint32_t place)
{
    uint32_t n = place - 1, who = n >> X86_TLB_BITS;
    return place && who / X86_NMMU == c->index ? &c->tlb.e[who % X86_NMMU][0][n % X86_TLB_SIZE]
                                               : NULL;
}

/* Does the entry allow writing the page at this host address? Of another vCPU's there may be more
 * than meets the eye: a half-made entry is checked again by its maker (x86_tlb_rewrite). */
static bool writes_to(const struct x86_tlbe *e, uint64_t host, uint64_t *tag)
{
    *tag = atomic_load(&e->wtag);
    return !X86_TLB_IS_NONE(*tag) &&
           __atomic_load_n(&e->addend, __ATOMIC_RELAXED) + (*tag & X86_PAGE_MASK) == host;
}

static void clear(struct x86_tlbe *e, uint8_t *flags, unsigned slot)
{
    e->rtag = e->xtag = X86_TLB_NONE(slot);
    atomic_store_explicit(&e->wtag, X86_TLB_NONE(slot), memory_order_relaxed);
    *flags = 0;
}

/* A copy starts without the right to write: a vCPU that withdraws it now may have passed `to`, and
 * not yet come to `from` (or the other way round). x86_tlb_rewrite() looks again. */
static void move_way(struct x86_cpu *c, unsigned mmu, unsigned slot, unsigned to, unsigned from)
{
    struct x86_tlbe *d = &c->tlb.e[mmu][to][slot];
    const struct x86_tlbe *s = &c->tlb.e[mmu][from][slot];
    uint64_t w = atomic_load_explicit(&s->wtag, memory_order_relaxed);
    atomic_store_explicit(&d->wtag, X86_TLB_NONE(slot), memory_order_relaxed);
    __atomic_store_n(&d->addend, s->addend, __ATOMIC_RELAXED);
    d->rtag = s->rtag;
    d->xtag = s->xtag;
    c->tlb.flags[mmu][to][slot] = c->tlb.flags[mmu][from][slot];
    if (!X86_TLB_IS_NONE(w))
        x86_tlb_rewrite(c, d, w,
                        (uint64_t)(d->addend + (w & X86_PAGE_MASK) - (uintptr_t)c->ram->host));
}

/* Makes the first way of the set free for a page. */
static void make_room(struct x86_cpu *c, unsigned mmu, unsigned slot, uint64_t tag)
{
    unsigned way = 0;
    while (way < X86_TLB_WAYS - 1) {
        const struct x86_tlbe *e = &c->tlb.e[mmu][way][slot];
        bool unused = X86_TLB_IS_NONE(e->rtag) && X86_TLB_IS_NONE(e->xtag);
        if (unused || e->rtag == tag || e->xtag == tag)
            break;
        way++;
    }
    for (; way > 0; way--)
        move_way(c, mmu, slot, way, way - 1);
}

static void note_page(struct x86_cpu *c, gva_t lin, enum x86_mmu mmu, const struct walk *w)
{
    struct x86_tlb *t = &c->tlb;
    if (w->huge)
        x86_filter_add(t->huge, X86_LARGE_FILTER, lin >> 30);
    else if (w->large) /* 4 MiB with 32-bit paging */
        for (unsigned n = 0; n < 2; n++)
            x86_filter_add(t->large, X86_LARGE_FILTER, (lin >> 21) ^ n);
    if (mmu != X86_MMU_KERNEL || w->global)
        return;
    if (t->nnonglobal < X86_NONGLOBALS)
        t->nonglobal[t->nnonglobal] = (uint16_t)((lin >> 12) & (X86_TLB_SIZE - 1));
    if (t->nnonglobal <= X86_NONGLOBALS)
        t->nnonglobal++;
}

static void insert(struct x86_cpu *c, gva_t lin, enum x86_mmu mmu, const struct walk *w,
                   const struct x86_xlat *x)
{
    struct x86_tlbe *e = x86_tlb_entry(c, lin, mmu);
    unsigned slot = slot_of(c, e);
    uint64_t page = lin & X86_PAGE_MASK, tag = page | c->tlb.asid[mmu];
    bool wok = x->writable && w->dirty && may_write(c, w, mmu);
    make_room(c, mmu, slot, tag);
    ram_touch(c->ram, x->roff);
    atomic_store_explicit(&e->wtag, X86_TLB_NONE(slot), memory_order_relaxed);
    __atomic_store_n(&e->addend, (uintptr_t)(c->ram->host + x->roff) - page, __ATOMIC_RELAXED);
    e->rtag = may_read(c, w, mmu) ? tag : X86_TLB_NONE(slot);
    e->xtag = may_fetch(c, w, mmu) ? tag : X86_TLB_NONE(slot);
    c->tlb.flags[mmu][0][slot] =
        (uint8_t)((w->global ? X86_TLBF_GLOBAL : 0) | (w->large ? X86_TLBF_LARGE : 0) |
                  (wok ? X86_TLBF_WOK : 0));
    note_page(c, lin, mmu, w);
    if (wok)
        x86_tlb_rewrite(c, e, tag, x->roff);
}

/* The marks are looked at first: see ram.h, invariant 5. */
static bool may_write_fast(const struct x86_cpu *c, uint64_t roff)
{
    return !ram_has_code(c->ram, roff) && atomic_load(&c->ram->code_dying) == c->code_seen;
}

/* None of our own entries at `place` allows writing the page. */
static bool is_over(struct x86_cpu *c, uint64_t roff, uint32_t place)
{
    uintptr_t host = (uintptr_t)(c->ram->host + (roff & X86_PAGE_MASK));
    const struct x86_tlbe *e = entries_at(c, place);
    uint64_t tag;
    for (unsigned w = 0; e && w < X86_TLB_WAYS; w++)
        if (writes_to(e + w * X86_TLB_SIZE, host, &tag))
            return false;
    return e;
}

static void add_writer(struct x86_cpu *c, uint64_t roff, uint32_t place)
{
    if (LIKELY(ram_add_writer(c->ram, roff, place)))
        return;
    uint64_t places = ram_writers(c->ram, roff);
    for (unsigned n = 0; n < RAM_PLACES; n++)
        if (is_over(c, roff, ram_place(places, n)))
            ram_remove_writer(c->ram, roff, ram_place(places, n));
    if (!ram_add_writer(c->ram, roff, place))
        ram_write_anywhere(c->ram, roff);
}

void x86_tlb_rewrite(struct x86_cpu *c, struct x86_tlbe *e, uint64_t tag, uint64_t roff)
{
    if (!may_write_fast(c, roff) || (c->observer && !c->observer->may_open(c->observer, e)))
        return;
    add_writer(c, roff, place_of(c, e));
    atomic_store_explicit(&e->wtag, tag, memory_order_seq_cst);
    /* A vCPU that marks the page now either sees this tag and withdraws it, or we see the mark, or
     * that it was cleared again. */
    if (!may_write_fast(c, roff))
        atomic_store_explicit(&e->wtag, X86_TLB_NONE(slot_of(c, e)), memory_order_seq_cst);
}

void x86_tlb_fill(struct x86_cpu *c, gva_t lin, enum x86_access acc, enum x86_mmu mmu,
                  struct x86_xlat *x)
{
    struct walk w;
    if (c->s.cr0 & X86_CR0_PG) {
        walk_for(c, lin, acc, mmu, &w);
    } else {
        w = (struct walk){.page = lin & 0xfffff000u, .w = true, .u = true, .dirty = true};
        mmu = is_user(mmu) ? mmu : X86_MMU_KERNEL_AC; /* SMAP and SMEP do not apply */
    }
    bool nopg = !(c->s.cr0 & X86_CR0_PG);
    w.page &= atomic_load_explicit(&c->a20_mask, memory_order_relaxed);
    x->gpa = w.page | (lin & ~X86_PAGE_MASK);
    x->ram = true;
    x->writable = true;
    if (!ram_direct(c->ram, w.page, &x->roff))
        x->ram = space_page(c->mem, w.page, &x->roff, &x->writable);
    if (!x->ram || watched_page(c, lin))
        return;
    if (nopg)
        for (unsigned m = 0; m <= X86_MMU_USER; m++)
            insert(c, lin, m, &w, x);
    else if (mmu != X86_MMU_ALIGN)
        insert(c, lin, mmu, &w, x);
}

/* Can the table be read without leaving RAM? */
static bool tables_in_ram(const struct slot *s, int n)
{
    for (int k = 0; k < n; k++)
        if (!s[k].host)
            return false;
    return true;
}

/* A walk that changes nothing, and finds what permits the access without asking a device. */
static bool walk_ram(struct x86_cpu *c, gva_t lin, enum x86_access acc, enum x86_mmu mmu,
                     struct walk *w, struct slot *s, int *n)
{
    c->no_device = true;
    enum walk_result r = walk(c, lin, w, s, n);
    c->no_device = false;
    return r == WALK_OK && tables_in_ram(s, *n) && permitted(c, w, acc, mmu);
}

bool x86_tlb_refill(struct x86_cpu *c, gva_t addr, bool write, unsigned mmu)
{
    struct walk w;
    struct slot s[4];
    struct x86_xlat x = {.ram = true, .writable = true};
    enum x86_access acc = write ? X86_WRITE : X86_READ;
    int n;
    if (!(c->s.cr0 & X86_CR0_PG) || mmu == X86_MMU_ALIGN || c->watch_data ||
        (c->long_active && !x86_canonical(addr)))
        return false;
    if (!walk_ram(c, addr, acc, mmu, &w, s, &n))
        return false;
    for (int k = 0; k < n; k++)
        if (!slot_set(&s[k], PTE_A | (k == n - 1 && write ? PTE_D : 0)))
            return false;
    w.dirty |= write;
    w.global &= !!(c->s.cr4 & X86_CR4_PGE);
    w.page &= atomic_load_explicit(&c->a20_mask, memory_order_relaxed);
    if (!ram_direct(c->ram, w.page, &x.roff))
        return false;
    insert(c, addr, mmu, &w, &x);
    const struct x86_tlbe *e = x86_tlb_entry(c, addr, mmu);
    return !write || !X86_TLB_IS_NONE(atomic_load_explicit(&e->wtag, memory_order_relaxed));
}

bool x86_walk_fetch(struct x86_cpu *c, gva_t lin, enum x86_mmu mmu, uint64_t *roff, bool *large)
{
    struct walk w;
    struct slot s[4];
    bool writable;
    int n;
    if (!(c->s.cr0 & X86_CR0_PG))
        return false;
    if (!walk_ram(c, lin, X86_FETCH, mmu, &w, s, &n))
        return false;
    for (int k = 0; k < n; k++)
        if (slot_lacks(&s[k], PTE_A))
            return false;
    *large = w.large;
    w.page &= atomic_load_explicit(&c->a20_mask, memory_order_relaxed);
    return ram_direct(c->ram, w.page, roff) || space_page(c->mem, w.page, roff, &writable);
}

gpa_t x86_translate(struct x86_cpu *c, gva_t addr, enum x86_access acc, enum x86_mmu mmu)
{
    struct x86_xlat x;
    x86_tlb_fill(c, addr, acc, mmu, &x);
    return x.gpa;
}

bool x86_translate_debug(struct x86_cpu *c, gva_t addr, gpa_t *gpa)
{
    *gpa = addr & 0xffffffffu;
    if (!(c->s.cr0 & X86_CR0_PG))
        return true;
    struct walk w;
    struct slot s[4];
    int n;
    if (walk(c, addr, &w, s, &n) != WALK_OK)
        return false;
    *gpa = w.page | (addr & ~X86_PAGE_MASK);
    return true;
}

void x86_load_pdptes(struct x86_cpu *c, uint64_t cr3)
{
    if (!(c->s.cr0 & X86_CR0_PG) || !(c->s.cr4 & X86_CR4_PAE) || (c->s.efer & X86_EFER_LMA))
        return;
    uint64_t p[4];
    for (unsigned n = 0; n < 4; n++) {
        struct slot s;
        slot_read(c, &s, (cr3 & 0xffffffe0u) + n * 8, 8);
        p[n] = s.val;
        /* SDM table 4-8: bits 1-2, 5-8 and those above the physical width are reserved. */
        if ((p[n] & PTE_P) && (p[n] & (0x1e6ull | ~PHYS_MASK)))
            x86_gp0(c);
    }
    memcpy(c->s.pdpte, p, sizeof p);
}

/* ---- address spaces ---- */

static void drop(struct x86_cpu *c, unsigned mmu, unsigned way, unsigned slot)
{
    clear(&c->tlb.e[mmu][way][slot], &c->tlb.flags[mmu][way][slot], slot);
}

static void drop_mmu(struct x86_cpu *c, unsigned mmu)
{
    for (unsigned w = 0; w < X86_TLB_WAYS; w++)
        for (unsigned n = 0; n < X86_TLB_SIZE; n++)
            drop(c, mmu, w, n);
}

/* The kernel's accesses forget what belongs to the present address space alone. */
static void drop_nonglobal(struct x86_cpu *c)
{
    struct x86_tlb *t = &c->tlb;
    bool listed = t->nnonglobal <= X86_NONGLOBALS;
    unsigned count = listed ? t->nnonglobal : X86_TLB_SIZE;
    for (unsigned k = 0; k < count; k++)
        for (unsigned w = 0; w < X86_TLB_WAYS; w++) {
            unsigned n = listed ? t->nonglobal[k] : k;
            if (!(t->flags[X86_MMU_KERNEL][w][n] & X86_TLBF_GLOBAL))
                drop(c, X86_MMU_KERNEL, w, n);
        }
    t->nnonglobal = 0;
}

/* The number of the address space with this PCID; a new one if it has none. */
static uint64_t asid_of(struct x86_cpu *c, uint64_t pcid)
{
    struct x86_tlb *t = &c->tlb;
    uint64_t *serial = &t->asid_pcid[pcid];
    if (*serial > t->asid_floor)
        return *serial - t->asid_base;
    if (t->asid_next - t->asid_base >= X86_ASIDS - 1) { /* none left: forget them all */
        for (unsigned m = X86_MMU_KERNEL_AC; m <= X86_MMU_USER; m++)
            drop_mmu(c, m);
        t->asid_base = t->asid_floor = t->asid_next;
    }
    *serial = ++t->asid_next;
    return *serial - t->asid_base;
}

static void use_asid(struct x86_cpu *c)
{
    uint64_t asid = asid_of(c, c->pcid);
    c->tlb.asid[X86_MMU_KERNEL_AC] = c->tlb.asid[X86_MMU_USER] = asid;
    c->tlb.asid[X86_MMU_ALIGN] = asid;
}

void x86_tlb_set_pcid(struct x86_cpu *c, uint64_t pcid)
{
    c->tlb.epoch++;
    if (pcid == c->pcid) /* CR3 has changed, but what is cached for its PCID stays */
        return;
    c->pcid = pcid;
    drop_nonglobal(c);
    use_asid(c);
}

/* ---- flushing ---- */

void x86_tlb_flush_all(struct x86_cpu *c)
{
    struct x86_tlb *t = &c->tlb;
    for (unsigned m = 0; m <= X86_MMU_USER; m++)
        drop_mmu(c, m);
    if (!X86_TLB_IS_NONE(t->e[X86_MMU_ALIGN][0][1].rtag))
        drop_mmu(c, X86_MMU_ALIGN); /* only the first time */
    memset(t->large, 0, sizeof t->large);
    memset(t->huge, 0, sizeof t->huge);
    t->nnonglobal = 0;
    t->asid_base = t->asid_floor = t->asid_next;
    use_asid(c);
    t->epoch++;
    x86_exec_flush_all(c);
}

void x86_tlb_flush_nonglobal(struct x86_cpu *c)
{
    c->tlb.epoch++;
    x86_exec_flush_nonglobal(c);
    c->tlb.asid_floor = c->tlb.asid_next;
    drop_nonglobal(c);
    use_asid(c);
}

void x86_tlb_flush_pcid(struct x86_cpu *c, uint64_t pcid)
{
    c->tlb.epoch++;
    x86_exec_flush_pcid(c, pcid);
    c->tlb.asid_pcid[pcid] = 0;
    if (pcid == c->pcid) {
        drop_nonglobal(c);
        use_asid(c);
    }
}

/* Large pages are cached in 4 KiB pieces: INVLPG must drop all of them (SDM 4.10.4.1). */
static void flush_range(struct x86_cpu *c, gva_t first, uint64_t pages, uint64_t asid)
{
    for (unsigned m = 0; m <= X86_MMU_USER; m++)
        for (unsigned w = 0; w < X86_TLB_WAYS; w++)
            for (uint64_t k = 0; k < pages; k++) {
                unsigned n = ((first >> 12) + k) & (X86_TLB_SIZE - 1);
                const struct x86_tlbe *e = &c->tlb.e[m][w][n];
                uint64_t t = !X86_TLB_IS_NONE(e->rtag) ? e->rtag : e->xtag;
                uint64_t own = m == X86_MMU_KERNEL ? 0 : asid;
                bool global = c->tlb.flags[m][w][n] & X86_TLBF_GLOBAL;
                if ((t ^ first) >> 12 < pages && (global || (t & ~X86_PAGE_MASK) == own))
                    drop(c, m, w, n);
            }
}

/* `first` is a multiple of the size. All sets are visited if the range has more pages than those.
 */
static void flush_around(struct x86_cpu *c, gva_t addr, unsigned shift, uint64_t asid)
{
    gva_t first = addr >> shift << shift;
    uint64_t pages = 1ull << (shift - 12);
    if (pages <= X86_TLB_SIZE) {
        flush_range(c, first, pages, asid);
        return;
    }
    for (unsigned m = 0; m <= X86_MMU_USER; m++)
        for (unsigned w = 0; w < X86_TLB_WAYS; w++)
            for (unsigned n = 0; n < X86_TLB_SIZE; n++) {
                const struct x86_tlbe *e = &c->tlb.e[m][w][n];
                uint64_t t = !X86_TLB_IS_NONE(e->rtag) ? e->rtag : e->xtag;
                if ((t ^ first) >> shift == 0)
                    drop(c, m, w, n);
            }
}

/* Drops global pages, too, which INVPCID type 0 need not, but may. */
static void flush_page(struct x86_cpu *c, gva_t addr, uint64_t pcid)
{
    uint64_t asid = asid_of(c, pcid);
    c->tlb.epoch++;
    x86_exec_flush_page(c, addr, pcid);
    flush_range(c, addr & X86_PAGE_MASK, 1, asid);
    if (x86_filter_has(c->tlb.large, X86_LARGE_FILTER, addr >> 21))
        flush_around(c, addr, c->s.cr4 & X86_CR4_PAE ? 21 : 22, asid);
    if (x86_filter_has(c->tlb.huge, X86_LARGE_FILTER, addr >> 30))
        flush_around(c, addr, 30, asid);
}

void x86_tlb_flush_page(struct x86_cpu *c, gva_t addr)
{
    flush_page(c, addr, c->pcid);
}

void x86_tlb_flush_page_pcid(struct x86_cpu *c, gva_t addr, uint64_t pcid)
{
    flush_page(c, addr, pcid);
}

static void unwrite(struct x86_tlbe *e, uint64_t host, unsigned slot)
{
    uint64_t tag;
    if (writes_to(e, host, &tag))
        atomic_compare_exchange_strong(&e->wtag, &tag, X86_TLB_NONE(slot));
}

static void unwrite_all(struct x86_cpu *c, uint64_t host)
{
    for (unsigned k = 0; k < (X86_MMU_USER + 1) * X86_TLB_WAYS; k++)
        for (unsigned n = 0; n < X86_TLB_SIZE; n++)
            unwrite(&c->tlb.e[k / X86_TLB_WAYS][k % X86_TLB_WAYS][n], host, n);
}

void x86_tlb_unwrite(struct x86_cpu *c, uint64_t roff, uint64_t places)
{
    uintptr_t host = (uintptr_t)(c->ram->host + (roff & X86_PAGE_MASK));
    bool own = places == RAM_ANYWHERE;
    if (own)
        unwrite_all(c, host);
    for (unsigned n = 0; n < RAM_PLACES && places != RAM_ANYWHERE; n++) {
        struct x86_tlbe *e = entries_at(c, ram_place(places, n));
        own |= e != NULL;
        for (unsigned w = 0; e && w < X86_TLB_WAYS; w++)
            unwrite(e + w * X86_TLB_SIZE, host, slot_of(c, e));
    }
    if (own)
        atomic_store(&c->jit_unwritten, 1);
}
