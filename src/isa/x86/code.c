/*
 * code.c - the cache of decoded blocks of one vCPU; see code.h and ram.h for the invariants.
 */
#include "isa/x86/code.h"

#include <stdalign.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "isa/x86/access.h"
#include "isa/x86/mmu.h"
#include "isa/x86/native.h"

#define BUCKET_BITS 15
#define BUCKETS     (1u << BUCKET_BITS)
#define INSN_MAX    15 /* bytes (SDM vol. 2, 2.3.11) */

/* The blocks met last, direct-mapped: found without a walk through blocks that are something else.
 */
#define RECENT_BITS 13
#define RECENTS     (1u << RECENT_BITS)

struct recent {
    uint64_t key;
    struct x86_block *block; /* NULL: empty */
};

struct x86_code {
    struct recent recent[RECENTS];
    struct x86_block *bucket[BUCKETS];
    uint8_t *arena;
    uint64_t size, used;
    uint64_t flushes;
    /* A block that is not cached: code in device memory, or cut short at CS's limit. */
    alignas(struct x86_block) uint8_t scratch[sizeof(struct x86_block) + sizeof(struct x86_insn)];
};

int x86_code_create(struct x86_cpu *c, uint64_t arena_size, struct error *e)
{
    struct x86_code *k = calloc(1, sizeof *k);
    if (!k)
        return error_set(e, ERR_NOMEM, "out of memory for the code cache");
    k->size = arena_size;
    k->arena = mmap(NULL, arena_size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (k->arena == MAP_FAILED) {
        free(k);
        return error_set(e, ERR_NOMEM, "out of memory for the code cache");
    }
    c->code = k;
    return 0;
}

void x86_code_destroy(struct x86_cpu *c)
{
    if (!c->code)
        return;
    munmap(c->code->arena, c->code->size);
    free(c->code);
    c->code = NULL;
}

void x86_code_flush(struct x86_cpu *c)
{
    memset(c->code->recent, 0, sizeof c->code->recent);
    memset(c->code->bucket, 0, sizeof c->code->bucket);
    c->code->used = 0;
    c->code->flushes++;
    x86_native_flush(c);
}

static unsigned size_code(const struct x86_cpu *c)
{
    return c->code_size == 64 ? 2 : c->code_size == 32 ? 1 : 0;
}

static uint64_t block_key(const struct x86_cpu *c, uint64_t roff)
{
    return roff | (uint64_t)size_code(c) << 62;
}

static struct x86_block **bucket_of(struct x86_code *k, uint64_t key)
{
    return &k->bucket[((key ^ key >> BUCKET_BITS) + (key >> 62)) & (BUCKETS - 1)];
}

static enum x86_mmu fetch_mmu(const struct x86_cpu *c)
{
    return c->cpl == 3 ? X86_MMU_USER : X86_MMU_KERNEL;
}

static gva_t fetch_lin(const struct x86_cpu *c, uint64_t rip)
{
    return c->code_size == 64 ? rip : (uint32_t)(c->s.seg[X86_CS].base + rip);
}

/* RAM offset of the code at `lin`; false if it is not RAM or ROM (*gpa is set then). Raises #PF. */
static inline bool fetch_roff(struct x86_cpu *c, gva_t lin, uint64_t *roff, gpa_t *gpa)
{
    enum x86_mmu mmu = fetch_mmu(c);
    const struct x86_tlbe *e = x86_tlb_entry(c, lin, mmu);
    if (LIKELY(e->xtag == x86_tlb_tag(c, lin, 1, mmu))) {
        *roff = (uint64_t)((const uint8_t *)(e->addend + lin) - c->ram->host);
        return true;
    }
    if (c->code_size == 64 && !x86_canonical(lin))
        x86_gp0(c);
    struct x86_xlat x;
    x86_tlb_fill(c, lin, X86_FETCH, mmu, &x);
    *roff = x.roff + lin % PAGE_SIZE;
    *gpa = x.gpa;
    return x.ram;
}

bool x86_code_locate(struct x86_cpu *c, gva_t lin, uint64_t *roff, gpa_t *gpa)
{
    return fetch_roff(c, lin, roff, gpa);
}

static void withdraw_writers(struct x86_cpu *c, uint64_t roff)
{
    uint64_t places = ram_take_writers(c->ram, roff);
    if (places) {
        x86_tlb_unwrite(c, roff, places);
        if (c->ncpus > 1)
            c->bus.unwrite_others(c->bus.ctx, roff, places);
    }
    if (c->ncpus > 1)
        barrier_all_threads();
}

uint32_t x86_code_mark(struct x86_cpu *c, uint64_t roff, unsigned len)
{
    bool withdraw;
    uint32_t gen = ram_code_mark(c->ram, roff, len, &withdraw);
    if (withdraw)
        withdraw_writers(c, roff);
    ram_code_marked(c->ram, roff);
    return gen;
}

static struct x86_block *scratch_block(struct x86_cpu *c)
{
    return (struct x86_block *)(void *)c->code->scratch;
}

/* Decodes the one instruction at RIP from bytes read through the slow path: code in device memory.
 */
static struct x86_block *decode_uncached(struct x86_cpu *c, gva_t lin)
{
    uint8_t buf[INSN_MAX];
    unsigned have = 0, len = 0;
    struct x86_block *b = scratch_block(c);
    memset(b, 0, sizeof *b);
    struct x86_xlat x = {0};
    while (have < INSN_MAX && !len) {
        gva_t a = lin + have;
        if (have == 0 || a % PAGE_SIZE == 0)
            x86_tlb_fill(c, a, X86_FETCH, fetch_mmu(c), &x);
        gpa_t gpa = (x.gpa & X86_PAGE_MASK) | a % PAGE_SIZE;
        buf[have++] = x.ram ? c->ram->host[x.roff + a % PAGE_SIZE]
                            : (uint8_t)c->bus.mem_read(c->bus.ctx, gpa, 1);
        len = x86_decode(c, buf, have, 0, b->insn);
    }
    if (!len)
        x86_ud(c);
    b->count = 1;
    b->len = (uint16_t)len;
    return b;
}

/* An instruction whose bytes lie in two pages; the second page's translation is in *roff2. */
static void decode_cross(struct x86_cpu *c, struct x86_block *b, gva_t lin, uint64_t roff)
{
    unsigned first = (unsigned)(PAGE_SIZE - roff % PAGE_SIZE);
    uint8_t buf[INSN_MAX];
    gpa_t gpa;
    gva_t lin2 = lin + first;
    if (c->code_size != 64)
        lin2 = (uint32_t)lin2;
    b->cross = true;
    b->count = 1;
    if (!fetch_roff(c, lin2, &b->roff2, &gpa)) {
        b->gen = ram_code_gen(c->ram, roff) - 1; /* never found again */
        b->roff2 = roff;
        const struct x86_block *u = decode_uncached(c, lin);
        b->insn[0] = u->insn[0];
        b->len = u->len;
        return;
    }
    b->gen = x86_code_mark(c, roff, first);
    b->gen2 = x86_code_mark(c, b->roff2, INSN_MAX - first);
    memcpy(buf, c->ram->host + roff, first);
    memcpy(buf + first, c->ram->host + b->roff2, INSN_MAX - first);
    unsigned len = x86_decode(c, buf, INSN_MAX, 0, b->insn);
    if (!len) /* cannot be: 15 bytes suffice */
        x86_ud(c);
    b->len = (uint16_t)len;
}

static void decode_run(struct x86_cpu *c, struct x86_block *b, uint64_t roff)
{
    unsigned room = (unsigned)(PAGE_SIZE - roff % PAGE_SIZE), off = 0;
    unsigned span = room < X86_BLOCK_MAX * INSN_MAX ? room : X86_BLOCK_MAX * INSN_MAX;
    /* Decode from a snapshot taken after marking, then keep the marks of what was used. Marking a
     * bit too much only costs a spurious invalidation, so mark in steps of what is needed. */
    const uint8_t *bytes = c->ram->host + roff;
    b->gen = x86_code_mark(c, roff, span < 64 ? span : 64);
    unsigned marked = span < 64 ? span : 64;
    while (b->count < X86_BLOCK_MAX) {
        if (off + INSN_MAX > marked && marked < span) {
            unsigned more = span - marked < 64 ? span - marked : 64;
            if (x86_code_mark(c, roff + marked, more) != b->gen) /* written meanwhile: end here */
                break;
            marked += more;
        }
        uint8_t copy[INSN_MAX] = {0};
        unsigned avail = marked - off < INSN_MAX ? marked - off : INSN_MAX;
        memcpy(copy, bytes + off, avail);
        struct x86_insn *i = &b->insn[b->count];
        unsigned len = x86_decode(c, copy, avail, off, i);
        if (!len)
            break; /* runs into the next page */
        off += len;
        b->count++;
        if (i->flags & X86_IF_END)
            break;
    }
    b->len = (uint16_t)off;
}

static struct x86_block *decode_block(struct x86_cpu *c, gva_t lin, uint64_t roff)
{
    struct x86_code *k = c->code;
    uint64_t need = sizeof(struct x86_block) + X86_BLOCK_MAX * sizeof(struct x86_insn);
    if (k->size - k->used < need || x86_native_full(c))
        x86_code_flush(c);
    struct x86_block *b = (struct x86_block *)(void *)(k->arena + k->used);
    *b = (struct x86_block){.key = block_key(c, roff)};
    decode_run(c, b, roff);
    if (!b->count)
        decode_cross(c, b, lin, roff);
    k->used += sizeof *b + b->count * sizeof(struct x86_insn);
    struct x86_block **head = bucket_of(k, b->key);
    b->next = *head;
    *head = b;
    return b;
}

static bool still_valid(struct x86_cpu *c, const struct x86_block *b, uint64_t roff, gva_t lin)
{
    if (b->gen != ram_code_gen(c->ram, roff))
        return false;
    if (LIKELY(!b->cross))
        return true;
    uint64_t roff2;
    gpa_t gpa;
    gva_t lin2 = (lin | (PAGE_SIZE - 1)) + 1;
    if (c->code_size != 64)
        lin2 = (uint32_t)lin2;
    return fetch_roff(c, lin2, &roff2, &gpa) && roff2 == b->roff2 &&
           b->gen2 == ram_code_gen(c->ram, roff2);
}

static struct x86_block *search(struct x86_cpu *c, gva_t lin, uint64_t roff, uint64_t key)
{
    struct x86_block **at = bucket_of(c->code, key);
    for (struct x86_block *b = *at; b; at = &b->next, b = *at) {
        if (b->key != key)
            continue;
        if (LIKELY(still_valid(c, b, roff, lin)))
            return b;
        *at = b->next; /* dead code never comes back */
        break;
    }
    return decode_block(c, lin, roff);
}

static struct x86_block *lookup(struct x86_cpu *c, gva_t lin, uint64_t roff)
{
    uint64_t key = block_key(c, roff);
    struct recent *r = &c->code->recent[(key ^ key >> RECENT_BITS) & (RECENTS - 1)];
    if (UNLIKELY(r->key != key || !r->block || !still_valid(c, r->block, roff, lin))) {
        struct x86_block *b = search(c, lin, roff, key); /* may empty the whole cache */
        *r = (struct recent){key, b};
    }
    return r->block;
}

/* The block reaches beyond CS's limit: execute its first instruction alone, if that fits. */
static struct x86_block *cut_at_limit(struct x86_cpu *c, const struct x86_block *b)
{
    if (c->s.rip + b->insn[0].len - 1 > c->cs_limit)
        x86_gp0(c);
    struct x86_block *s = scratch_block(c);
    memset(s, 0, sizeof *s);
    s->insn[0] = b->insn[0];
    s->count = 1;
    s->len = b->insn[0].len;
    return s;
}

/* Remembers that `b` followed `from`. */
static void link_blocks(struct x86_cpu *c, struct x86_block *from, struct x86_block *b)
{
    unsigned n = from->victim;
    from->victim = !n;
    from->link[n] = (struct x86_link){x86_link_key(c), x86_code_epoch(c), b};
}

struct x86_block *x86_code_find(struct x86_cpu *c, struct x86_block *from)
{
    uint64_t roff = 0, flushes = c->code->flushes;
    gpa_t gpa = 0;
    x86_code_look(c);
    if (UNLIKELY(c->s.rip > c->cs_limit))
        x86_gp0(c);
    gva_t lin = fetch_lin(c, c->s.rip);
    if (UNLIKELY(!fetch_roff(c, lin, &roff, &gpa)))
        return decode_uncached(c, lin);
    struct x86_block *b = lookup(c, lin, roff);
    if (UNLIKELY(c->cs_limit - c->s.rip < b->len - 1u))
        return cut_at_limit(c, b);
    if (from && from != scratch_block(c) && flushes == c->code->flushes)
        link_blocks(c, from, b);
    return b;
}
