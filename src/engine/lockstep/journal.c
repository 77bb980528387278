/* journal.c - what a pass does to memory and devices: seen, undone, compared. Rules: lockstep.h. */
#include "engine/lockstep/lockstep.h"
#include "isa/x86/access.h"

static _Noreturn void leave(struct lockstep *l, enum lockstep_end end)
{
    if (l->c->in_split)
        x86_split_end(l->c);
    siglongjmp(*l->env, (int)end);
}

/* ---- stores ---- */

static bool journaled(const struct lockstep *l, uint64_t roff)
{
    for (unsigned n = 0; n < l->nstore; n++)
        if (roff - l->store[n].roff < l->store[n].size)
            return true;
    return false;
}

static void check_store(struct lockstep *l, gva_t lin, uint64_t roff, unsigned size)
{
    for (unsigned n = 0; n < size; n++)
        if (!journaled(l, roff + n)) {
            l->stray = lin;
            leave(l, LOCKSTEP_STRAY);
        }
}

static void on_store(struct x86_observer *o, gva_t lin, enum x86_mmu mmu, uint64_t roff,
                     unsigned size)
{
    struct lockstep *l = (struct lockstep *)o;
    if (l->phase == LOCKSTEP_JIT)
        check_store(l, lin, roff, size);
    if (l->phase != LOCKSTEP_INTERP)
        return;
    if (l->nstore == LOCKSTEP_STORES || ram_has_code(l->c->ram, roff))
        leave(l, LOCKSTEP_ABANDONED);
    struct lockstep_store *s = &l->store[l->nstore++];
    *s = (struct lockstep_store){.lin = lin, .roff = roff, .size = (uint8_t)size, .mmu = mmu};
    memcpy(&s->old, l->c->ram->host + roff, size);
}

static void on_walked(struct x86_observer *o)
{
    struct lockstep *l = (struct lockstep *)o;
    if (l->phase == LOCKSTEP_INTERP)
        leave(l, LOCKSTEP_AGAIN);
}

/* Called by x86_tlb_refill(), too, while the guest's vector registers are in the host's. */
static __attribute__((target("general-regs-only"))) bool may_open(struct x86_observer *o,
                                                                  struct x86_tlbe *e)
{
    struct lockstep *l = (struct lockstep *)o;
    if (l->phase != LOCKSTEP_FREE)
        return false;
    if (l->nopened < LOCKSTEP_OPENED)
        l->opened[l->nopened] = e;
    if (l->nopened <= LOCKSTEP_OPENED)
        l->nopened++;
    return true;
}

void lockstep_journal_init(struct lockstep *l)
{
    l->observer = (struct x86_observer){on_store, on_walked, may_open};
    l->c->observer = &l->observer;
}

void lockstep_undo(struct lockstep *l)
{
    for (unsigned n = l->nstore; n-- > 0;)
        memcpy(l->c->ram->host + l->store[n].roff, &l->store[n].old, l->store[n].size);
}

/* ---- lines ---- */

static void keep_line(struct lockstep *l, gva_t lin, uint64_t roff)
{
    uint64_t at = roff & ~(uint64_t)(LOCKSTEP_LINE - 1);
    if (l->nline && l->line[l->nline - 1].roff == at)
        return;
    struct lockstep_line *k = &l->line[l->nline++];
    k->roff = at;
    k->lin = lin & ~(gva_t)(LOCKSTEP_LINE - 1);
    memcpy(k->bytes, l->c->ram->host + at, LOCKSTEP_LINE);
}

void lockstep_keep_lines(struct lockstep *l)
{
    l->nline = 0;
    for (unsigned n = 0; n < l->nstore; n++) {
        const struct lockstep_store *s = &l->store[n];
        keep_line(l, s->lin, s->roff);
        keep_line(l, s->lin + s->size - 1, s->roff + s->size - 1);
    }
}

bool lockstep_memory_same(const struct lockstep *l)
{
    for (unsigned n = 0; n < l->nline; n++)
        if (memcmp(l->c->ram->host + l->line[n].roff, l->line[n].bytes, LOCKSTEP_LINE))
            return false;
    return true;
}

/* ---- writable pages ---- */

static void close_entry(struct x86_cpu *c, struct x86_tlbe *e)
{
    unsigned slot = (unsigned)(e - c->tlb.e[0][0]) % X86_TLB_SIZE;
    atomic_store_explicit(&e->wtag, X86_TLB_NONE(slot), memory_order_relaxed);
}

void lockstep_close(struct lockstep *l)
{
    struct x86_cpu *c = l->c;
    struct x86_tlbe *first = c->tlb.e[0][0];
    if (l->nopened <= LOCKSTEP_OPENED)
        for (unsigned n = 0; n < l->nopened; n++)
            close_entry(c, l->opened[n]);
    else
        for (unsigned n = 0; n < X86_NMMU * X86_TLB_WAYS * X86_TLB_SIZE; n++)
            close_entry(c, first + n);
    l->nopened = 0;
    l->phase = LOCKSTEP_OFF;
}

void lockstep_open(struct lockstep *l, bool open)
{
    struct x86_cpu *c = l->c;
    for (unsigned n = 0; n < l->nstore; n++) {
        const struct lockstep_store *s = &l->store[n];
        struct x86_tlbe *e = x86_tlb_entry(c, s->lin, s->mmu);
        unsigned slot = (unsigned)(e - c->tlb.e[s->mmu][0]);
        uint64_t tag = x86_tlb_tag(c, s->lin, 1, s->mmu);
        if (!open)
            close_entry(c, e);
        else if (e->rtag == tag && (c->tlb.flags[s->mmu][0][slot] & X86_TLBF_WOK) &&
                 !ram_has_code(c->ram, s->roff))
            atomic_store_explicit(&e->wtag, tag, memory_order_relaxed);
    }
}

/* ---- devices ---- */

static const struct x86_bus *outside(struct lockstep *l, gva_t at)
{
    if (l->phase == LOCKSTEP_INTERP)
        leave(l, LOCKSTEP_ABANDONED);
    if (l->phase == LOCKSTEP_JIT) {
        l->stray = at;
        leave(l, LOCKSTEP_STRAY);
    }
    return &l->bus;
}

static uint64_t io_read(void *ctx, uint16_t port, unsigned size)
{
    const struct x86_bus *b = outside(ctx, port);
    return b->io_read(b->ctx, port, size);
}

static void io_write(void *ctx, uint16_t port, uint64_t val, unsigned size)
{
    const struct x86_bus *b = outside(ctx, port);
    b->io_write(b->ctx, port, val, size);
}

static uint64_t mem_read(void *ctx, gpa_t addr, unsigned size)
{
    const struct x86_bus *b = outside(ctx, addr);
    return b->mem_read(b->ctx, addr, size);
}

static void mem_write(void *ctx, gpa_t addr, uint64_t val, unsigned size)
{
    const struct x86_bus *b = outside(ctx, addr);
    b->mem_write(b->ctx, addr, val, size);
}

static int intr_ack(void *ctx)
{
    const struct x86_bus *b = outside(ctx, 0);
    return b->intr_ack(b->ctx);
}

static uint64_t tsc(void *ctx)
{
    const struct x86_bus *b = outside(ctx, 0);
    return b->tsc(b->ctx);
}

static uint64_t get_tpr(void *ctx)
{
    const struct x86_bus *b = outside(ctx, 0);
    return b->get_tpr(b->ctx);
}

static void set_tpr(void *ctx, uint64_t cr8)
{
    const struct x86_bus *b = outside(ctx, 0);
    b->set_tpr(b->ctx, cr8);
}

static bool apic_msr(void *ctx, uint32_t msr, bool write, uint64_t *val)
{
    const struct x86_bus *b = outside(ctx, msr);
    return b->apic_msr(b->ctx, msr, write, val);
}

static bool pv_msr(void *ctx, uint32_t msr, bool write, uint64_t *val)
{
    const struct x86_bus *b = outside(ctx, msr);
    return b->pv_msr(b->ctx, msr, write, val);
}

static int64_t hypercall(void *ctx, const struct x86_hypercall *h)
{
    const struct x86_bus *b = outside(ctx, 0);
    return b->hypercall(b->ctx, h);
}

static void tsc_moved(void *ctx, uint64_t offset)
{
    const struct x86_bus *b = outside(ctx, 0);
    b->tsc_moved(b->ctx, offset);
}

/* Part of looking at code, not an effect of it. */
static void unwrite_others(void *ctx, uint64_t roff, uint64_t places)
{
    struct lockstep *l = ctx;
    l->bus.unwrite_others(l->bus.ctx, roff, places);
}

_Static_assert(sizeof(struct x86_bus) == 15 * sizeof(void *), "all ways out are guarded");

void lockstep_bus_wrap(struct lockstep *l)
{
    l->bus = l->c->bus;
    l->c->bus = (struct x86_bus){
        .io_read = io_read,
        .io_write = io_write,
        .mem_read = mem_read,
        .mem_write = mem_write,
        .intr_ack = intr_ack,
        .tsc = tsc,
        .get_tpr = get_tpr,
        .set_tpr = set_tpr,
        .apic_msr = apic_msr,
        .pv_msr = l->bus.pv_msr ? pv_msr : NULL,
        .hypercall = l->bus.hypercall ? hypercall : NULL,
        .tsc_moved = l->bus.tsc_moved ? tsc_moved : NULL,
        .unwrite_others = unwrite_others,
        .ctx = l,
    };
}
