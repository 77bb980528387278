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

#define PTE_P  0x1ull
#define PTE_W  0x2ull
#define PTE_U  0x4ull
#define PTE_A  0x20ull
#define PTE_D  0x40ull
#define PTE_PS 0x80ull
#define PTE_G  0x100ull
#define PTE_NX (1ull << 63)

#define PHYS_MASK ((1ull << X86_PHYS_BITS) - 1)
#define PTE_ADDR  (PHYS_MASK & X86_PAGE_MASK)
/* Address bits above the physical width are reserved; bits 52..62 are ignored (SDM 4.5). */
#define PTE_RSVD64 (((1ull << 52) - 1) & ~PHYS_MASK)
/* PAE: bits 52..62 are reserved too (SDM table 4-8). */
#define PTE_RSVD_PAE (~PHYS_MASK & ~PTE_NX)

struct walk {
    gpa_t page; /* address of the 4 KiB page within the leaf */
    bool w, u, nx, global, large, dirty;
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
    if (!space_page(c->mem, addr, &roff, &writable) || !writable)
        return NULL;
    return c->ram->host + roff + addr % PAGE_SIZE;
}

static void slot_read(struct x86_cpu *c, struct slot *s, gpa_t addr, unsigned size)
{
    addr &= atomic_load_explicit(&c->a20_mask, memory_order_relaxed);
    *s = (struct slot){.addr = addr, .size = size, .host = host_of(c, addr)};
    if (!s->host)
        s->val = c->bus.mem_read(c->bus.ctx, addr, size);
    else if (size == 4)
        s->val = __atomic_load_n((uint32_t *)s->host, __ATOMIC_RELAXED);
    else
        s->val = __atomic_load_n((uint64_t *)s->host, __ATOMIC_RELAXED);
}

/* Sets bits in an entry; false if it changed meanwhile (the walk starts again). SDM 8.1.2.1:
 * atomic. */
static bool slot_set(struct slot *s, uint64_t bits)
{
    if ((s->val & bits) == bits || !s->host)
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
    for (int k = 0; k < n; k++)
        if (!slot_set(&s[k], PTE_A | (k == n - 1 && acc == X86_WRITE ? PTE_D : 0)))
            goto again;
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
    return (unsigned)(e - c->tlb.e[0]) & (X86_TLB_SIZE - 1);
}

static void insert(struct x86_cpu *c, gva_t lin, enum x86_mmu mmu, const struct walk *w,
                   const struct x86_xlat *x)
{
    struct x86_tlbe *e = x86_tlb_entry(c, lin, mmu);
    unsigned slot = slot_of(c, e);
    uint64_t page = lin & X86_PAGE_MASK, tag = page | c->pcid;
    bool wok = x->writable && w->dirty && may_write(c, w, mmu);
    atomic_store_explicit(&e->wtag, X86_TLB_NONE(slot), memory_order_relaxed);
    __atomic_store_n(&e->addend, (uintptr_t)(c->ram->host + x->roff) - page, __ATOMIC_RELAXED);
    e->rtag = may_read(c, w, mmu) ? tag : X86_TLB_NONE(slot);
    e->xtag = may_fetch(c, w, mmu) ? tag : X86_TLB_NONE(slot);
    c->tlb.flags[mmu][slot] = (uint8_t)((w->global ? X86_TLBF_GLOBAL : 0) |
                                        (w->large ? X86_TLBF_LARGE : 0) | (wok ? X86_TLBF_WOK : 0));
    c->tlb.has_large |= w->large;
    if (wok)
        x86_tlb_rewrite(c, e, tag, x->roff);
}

void x86_tlb_rewrite(struct x86_cpu *c, struct x86_tlbe *e, uint64_t tag, uint64_t roff)
{
    if (ram_has_code(c->ram, roff))
        return;
    atomic_store_explicit(&e->wtag, tag, memory_order_seq_cst);
    /* A vCPU that marks the page now either sees this tag and withdraws it, or we see the mark. */
    if (ram_has_code(c->ram, roff))
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

/* ---- generations of executable mappings ---- */

static unsigned filter_bit(uint64_t number)
{
    return (unsigned)((number * 0x9e3779b97f4a7c15ull) >> 32) % X86_EXEC_FILTER;
}

static bool filter_has(const uint64_t *filter, uint64_t number)
{
    unsigned n = filter_bit(number);
    return filter[n / 64] >> (n % 64) & 1;
}

void x86_exec_note(struct x86_cpu *c, gva_t addr, bool large)
{
    unsigned n = filter_bit(addr >> (large ? 30 : 12));
    (large ? c->tlb.exec_large : c->tlb.exec_pages)[n / 64] |= 1ull << (n % 64);
}

uint64_t x86_exec_gen(struct x86_cpu *c, bool global)
{
    struct x86_tlb *t = &c->tlb;
    uint64_t *gen = global ? &t->exec_global : &t->exec_pcid[c->pcid];
    if (UNLIKELY(!*gen || (!global && *gen <= t->exec_floor)))
        *gen = ++t->exec_next;
    return *gen;
}

static void exec_flush_nonglobal(struct x86_cpu *c)
{
    c->tlb.epoch++;
    c->tlb.exec_floor = c->tlb.exec_next;
}

static void exec_flush_pcid(struct x86_cpu *c, uint64_t pcid)
{
    c->tlb.epoch++;
    c->tlb.exec_pcid[pcid] = ++c->tlb.exec_next;
}

static void exec_flush_page(struct x86_cpu *c, gva_t addr, uint64_t pcid)
{
    if (!filter_has(c->tlb.exec_pages, addr >> 12) && !filter_has(c->tlb.exec_large, addr >> 30))
        return;
    exec_flush_pcid(c, pcid);
    c->tlb.exec_global = ++c->tlb.exec_next;
}

/* ---- flushing ---- */

static void drop(struct x86_cpu *c, unsigned mmu, unsigned n)
{
    struct x86_tlbe *e = &c->tlb.e[mmu][n];
    c->tlb.epoch++;
    e->rtag = e->xtag = X86_TLB_NONE(n);
    atomic_store_explicit(&e->wtag, X86_TLB_NONE(n), memory_order_relaxed);
    c->tlb.flags[mmu][n] = 0;
}

void x86_tlb_flush_all(struct x86_cpu *c)
{
    for (unsigned m = 0; m <= X86_MMU_USER; m++)
        for (unsigned n = 0; n < X86_TLB_SIZE; n++)
            drop(c, m, n);
    for (unsigned n = 0; n < X86_TLB_SIZE; n++)
        if (c->tlb.e[X86_MMU_ALIGN][n].rtag != X86_TLB_NONE(n))
            drop(c, X86_MMU_ALIGN, n); /* only the first time */
    c->tlb.has_large = false;
    exec_flush_nonglobal(c);
    c->tlb.exec_global = ++c->tlb.exec_next;
}

void x86_tlb_flush_nonglobal(struct x86_cpu *c)
{
    exec_flush_nonglobal(c);
    for (unsigned m = 0; m <= X86_MMU_USER; m++)
        for (unsigned n = 0; n < X86_TLB_SIZE; n++)
            if (!(c->tlb.flags[m][n] & X86_TLBF_GLOBAL))
                drop(c, m, n);
}

/* The PCID an entry was made for is in each of its valid tags. */
static bool entry_has_pcid(const struct x86_tlbe *e, uint64_t pcid)
{
    uint64_t t = !X86_TLB_IS_NONE(e->rtag) ? e->rtag : e->xtag;
    return !X86_TLB_IS_NONE(t) && (t & ~X86_PAGE_MASK) == pcid;
}

void x86_tlb_flush_pcid(struct x86_cpu *c, uint64_t pcid)
{
    exec_flush_pcid(c, pcid);
    for (unsigned m = 0; m <= X86_MMU_USER; m++)
        for (unsigned n = 0; n < X86_TLB_SIZE; n++)
            if (!(c->tlb.flags[m][n] & X86_TLBF_GLOBAL) && entry_has_pcid(&c->tlb.e[m][n], pcid))
                drop(c, m, n);
}

/* Large pages are cached in 4 KiB pieces: INVLPG must drop all of them (SDM 4.10.4.1). The size is
 * not remembered, so everything within the largest page size around the address goes. */
static void flush_large(struct x86_cpu *c, gva_t addr)
{
    for (unsigned m = 0; m <= X86_MMU_USER; m++)
        for (unsigned n = 0; n < X86_TLB_SIZE; n++) {
            const struct x86_tlbe *e = &c->tlb.e[m][n];
            uint64_t t = !X86_TLB_IS_NONE(e->rtag) ? e->rtag : e->xtag;
            if ((c->tlb.flags[m][n] & X86_TLBF_LARGE) && ((t ^ addr) >> 30) == 0)
                drop(c, m, n);
        }
}

static void flush_page(struct x86_cpu *c, gva_t addr, uint64_t pcid, bool globals)
{
    unsigned n = (addr >> 12) & (X86_TLB_SIZE - 1);
    exec_flush_page(c, addr, pcid);
    for (unsigned m = 0; m <= X86_MMU_USER; m++)
        if (globals ? true : !(c->tlb.flags[m][n] & X86_TLBF_GLOBAL))
            if (entry_has_pcid(&c->tlb.e[m][n], pcid) || (c->tlb.flags[m][n] & X86_TLBF_GLOBAL))
                drop(c, m, n);
    if (c->tlb.has_large)
        flush_large(c, addr);
}

void x86_tlb_flush_page(struct x86_cpu *c, gva_t addr)
{
    flush_page(c, addr, c->pcid, true);
}

void x86_tlb_flush_page_pcid(struct x86_cpu *c, gva_t addr, uint64_t pcid)
{
    flush_page(c, addr, pcid, false);
}

void x86_tlb_unwrite(struct x86_cpu *c, uint64_t roff)
{
    uintptr_t host = (uintptr_t)(c->ram->host + (roff & X86_PAGE_MASK));
    for (unsigned m = 0; m <= X86_MMU_USER; m++)
        for (unsigned n = 0; n < X86_TLB_SIZE; n++) {
            struct x86_tlbe *e = &c->tlb.e[m][n];
            uint64_t tag = atomic_load_explicit(&e->wtag, memory_order_seq_cst);
            if (X86_TLB_IS_NONE(tag))
                continue;
            uintptr_t add = __atomic_load_n(&e->addend, __ATOMIC_RELAXED);
            /* A half-made entry is checked again by its maker (x86_tlb_rewrite). */
            if (add + (tag & X86_PAGE_MASK) == host)
                atomic_compare_exchange_strong(&e->wtag, &tag, X86_TLB_NONE(n));
        }
    atomic_store(&c->jit_unwritten, 1);
}
