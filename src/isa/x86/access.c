/*
 * access.c - the slow paths of guest memory access: TLB misses, page crossings, device memory,
 * pages that hold cached code, segment limits, alignment checks and data breakpoints.
 */
#include "isa/x86/access.h"

#include "isa/x86/mmu.h"

/* ---- segments (SDM 5.3-5.5) ---- */

static bool limit_ok(const struct x86_seg *s, uint64_t ea, unsigned size)
{
    uint64_t last = ea + size - 1;
    if ((s->attr & (X86_TYPE_X | X86_TYPE_DC)) == X86_TYPE_DC) { /* expand-down data */
        uint64_t top = s->attr & X86_ATTR_DB ? 0xffffffffu : 0xffffu;
        return ea > s->limit && last <= top;
    }
    return last <= s->limit && last >= ea;
}

void x86_seg_check(struct x86_cpu *c, unsigned seg, uint64_t ea, unsigned size, unsigned need)
{
    const struct x86_seg *s = &c->s.seg[seg];
    bool ok = !(s->attr & X86_ATTR_UNUSABLE) && limit_ok(s, ea, size);
    if (ok && c->protected_mode) {
        bool code = s->attr & X86_TYPE_X, rw = s->attr & X86_TYPE_RW;
        if ((need & X86_SEGOK_W) && (code || !rw))
            ok = false;
        if ((need & X86_SEGOK_R) && code && !rw)
            ok = false;
    }
    if (!ok)
        x86_raise_err(c, seg == X86_SS ? X86_SSF : X86_GP, 0);
}

/* ---- checks that only slow accesses need ---- */

/* Is this the stack's part in an instruction that has another memory operand? */
static bool on_stack(const struct x86_cpu *c, bool write)
{
    switch (c->cur->mnemonic) {
    case ZYDIS_MNEMONIC_PUSH:
    case ZYDIS_MNEMONIC_CALL:
        return write;
    case ZYDIS_MNEMONIC_POP:
        return !write;
    default:
        return false;
    }
}

static void check_canonical(struct x86_cpu *c, gva_t lin, unsigned size, bool write)
{
    if (!c->long_active)
        return;
    if (UNLIKELY(!x86_canonical(lin) || !x86_canonical(lin + size - 1))) {
        /* References through SS fault with #SS (SDM vol. 1, 3.3.7.1); stack operands are told by
         * their segment register, or by their direction. */
        bool stack =
            c->cur && (c->cur->flags & X86_IF_MEM) && (c->cur->seg == X86_SS || on_stack(c, write));
        x86_raise_err(c, stack ? X86_SSF : X86_GP, 0);
    }
}

static void check_align(struct x86_cpu *c, gva_t lin, unsigned size, enum x86_mmu mmu)
{
    if (mmu == X86_MMU_ALIGN && (lin & (size - 1)))
        x86_raise_err(c, X86_AC, 0);
}

/* DR7: bits 16+4n: type (0 execute, 1 write, 2 I/O, 3 read or write), 18+4n: length code. */
static void check_watch(struct x86_cpu *c, gva_t lin, unsigned size, bool write)
{
    static const uint8_t length[4] = {1, 2, 8, 4};
    for (unsigned n = 0; n < 4; n++) {
        unsigned type = (c->s.dr[7] >> (16 + 4 * n)) & 3;
        if (!((c->s.dr[7] >> (2 * n)) & 3) || !(type == 3 || (type == 1 && write)))
            continue;
        uint64_t len = length[(c->s.dr[7] >> (18 + 4 * n)) & 3], a = c->s.dr[n] & ~(len - 1);
        if (lin < a + len && a < lin + size) {
            c->db_hit |= 1ull << n;
            c->slow |= X86_SLOW_DB;
            if (c->cur)
                c->block_end = c->cur + 1;
        }
    }
}

static void check_access(struct x86_cpu *c, gva_t lin, unsigned size, enum x86_mmu mmu, bool write)
{
    check_canonical(c, lin, size, write);
    check_align(c, lin, size, mmu);
    if (UNLIKELY(c->watch_data))
        check_watch(c, lin, size, write);
}

/* ---- one piece within a page ---- */

static uint64_t host_load(const void *p, unsigned size)
{
    uint64_t v = 0;
    switch (size) {
    case 1:
        return *(const uint8_t *)p;
    case 2:
        memcpy(&v, p, 2);
        return v;
    case 4:
        memcpy(&v, p, 4);
        return v;
    case 8:
        memcpy(&v, p, 8);
        return v;
    default:
        memcpy(&v, p, size);
        return v;
    }
}

static void host_store(void *p, uint64_t v, unsigned size)
{
    switch (size) {
    case 1:
        *(uint8_t *)p = (uint8_t)v;
        break;
    case 2:
        memcpy(p, &v, 2);
        break;
    case 4:
        memcpy(p, &v, 4);
        break;
    case 8:
        memcpy(p, &v, 8);
        break;
    default:
        memcpy(p, &v, size);
    }
}

/* Device accesses come in powers of two. */
static uint64_t dev_load(struct x86_cpu *c, gpa_t gpa, unsigned size)
{
    if ((size & (size - 1)) == 0)
        return c->bus.mem_read(c->bus.ctx, gpa, size);
    uint64_t v = 0;
    for (unsigned n = 0; n < size; n++)
        v |= (c->bus.mem_read(c->bus.ctx, gpa + n, 1) & 0xff) << (8 * n);
    return v;
}

static void dev_store(struct x86_cpu *c, gpa_t gpa, uint64_t v, unsigned size)
{
    if ((size & (size - 1)) == 0) {
        c->bus.mem_write(c->bus.ctx, gpa, v, size);
        return;
    }
    for (unsigned n = 0; n < size; n++)
        c->bus.mem_write(c->bus.ctx, gpa + n, (v >> (8 * n)) & 0xff, 1);
}

/* The running code was modified: decode again behind the present instruction. */
static void code_hit(struct x86_cpu *c)
{
    if (c->cur)
        c->block_end = c->cur + 1;
}

static void note(struct x86_cpu *c, uint64_t roff, uint64_t len)
{
    unsigned hits = ram_note_write(c->ram, roff, len);
    uint64_t dying = atomic_load_explicit(&c->ram->code_dying, memory_order_acquire);
    if (LIKELY(dying == c->code_seen))
        return;
    if (!hits) /* another's hit may have removed the marks of what this vCPU is executing */
        ram_code_kill(c->ram, roff, len);
    else if (dying == c->code_seen + hits) /* only this vCPU's: it will leave the dead code now */
        c->code_seen = dying;
    code_hit(c);
}

static inline void observe(struct x86_cpu *c, gva_t lin, enum x86_mmu mmu, uint64_t roff,
                           unsigned size)
{
    if (UNLIKELY(c->observer))
        c->observer->store(c->observer, lin, mmu, roff, size);
}

static uint64_t piece_load(struct x86_cpu *c, const struct x86_xlat *x, unsigned size)
{
    if (x->ram)
        return host_load(c->ram->host + x->roff + x->gpa % PAGE_SIZE, size);
    return dev_load(c, x->gpa, size);
}

static void piece_store(struct x86_cpu *c, gva_t lin, enum x86_mmu mmu, const struct x86_xlat *x,
                        uint64_t v, unsigned size)
{
    if (x->ram && x->writable) {
        uint64_t roff = x->roff + x->gpa % PAGE_SIZE;
        observe(c, lin, mmu, roff, size);
        host_store(c->ram->host + roff, v, size);
        atomic_signal_fence(memory_order_seq_cst);
        note(c, roff, size);
    } else {
        dev_store(c, x->gpa, v, size);
    }
}

static unsigned split(gva_t lin, unsigned size)
{
    uint64_t room = PAGE_SIZE - lin % PAGE_SIZE;
    return room < size ? (unsigned)room : size;
}

static gva_t next_lin(const struct x86_cpu *c, gva_t lin, unsigned n)
{
    return (lin + n) & (c->long_active ? ~0ull : 0xffffffffull);
}

uint64_t x86_ld_slow(struct x86_cpu *c, gva_t lin, unsigned size, enum x86_mmu mmu)
{
    check_access(c, lin, size, mmu, false);
    struct x86_xlat a, b;
    unsigned n = split(lin, size);
    x86_tlb_fill(c, lin, X86_READ, mmu, &a);
    if (LIKELY(n == size))
        return piece_load(c, &a, size);
    x86_tlb_fill(c, next_lin(c, lin, n), X86_READ, mmu, &b);
    uint64_t lo = piece_load(c, &a, n);
    return lo | piece_load(c, &b, size - n) << (8 * n);
}

/* A page that holds cached code keeps its translation, but every store is reported. */
static bool store_tracked(struct x86_cpu *c, gva_t lin, uint64_t val, unsigned size, unsigned mmu)
{
    struct x86_tlbe *e = x86_tlb_entry(c, lin, mmu);
    unsigned slot = (unsigned)(e - c->tlb.e[mmu][0]);
    uint64_t tag = x86_tlb_tag(c, lin, size, mmu);
    if (e->rtag != tag || !(c->tlb.flags[mmu][0][slot] & X86_TLBF_WOK))
        return false;
    uint8_t *host = (uint8_t *)(e->addend + lin);
    uint64_t roff = (uint64_t)(host - c->ram->host);
    observe(c, lin, mmu, roff, size);
    host_store(host, val, size);
    atomic_signal_fence(memory_order_seq_cst);
    note(c, roff, size);
    x86_tlb_rewrite(c, e, tag, roff);
    return true;
}

void x86_st_slow(struct x86_cpu *c, gva_t lin, uint64_t val, unsigned size, enum x86_mmu mmu)
{
    if (store_tracked(c, lin, val, size, mmu))
        return;
    check_access(c, lin, size, mmu, true);
    struct x86_xlat a, b;
    unsigned n = split(lin, size);
    x86_tlb_fill(c, lin, X86_WRITE, mmu, &a);
    if (LIKELY(n == size)) {
        piece_store(c, lin, mmu, &a, val, size);
        return;
    }
    x86_tlb_fill(c, next_lin(c, lin, n), X86_WRITE, mmu, &b);
    piece_store(c, lin, mmu, &a, val, n);
    piece_store(c, next_lin(c, lin, n), mmu, &b, val >> (8 * n), size - n);
}

void x86_st_raced(struct x86_cpu *c, const void *host, unsigned size)
{
    note(c, (uint64_t)((const uint8_t *)host - c->ram->host), size);
}

void *x86_rmw_slow(struct x86_cpu *c, gva_t lin, unsigned size)
{
    check_access(c, lin, size, c->mmu, true);
    struct x86_xlat a, b;
    unsigned n = split(lin, size);
    x86_tlb_fill(c, lin, X86_WRITE, c->mmu, &a);
    if (n != size) {
        x86_tlb_fill(c, next_lin(c, lin, n), X86_WRITE, c->mmu, &b);
        return NULL;
    }
    /* A locked access across cache lines stops every processor of the host, or is punished by it:
     * Linux makes the thread sleep. Nobody notices the difference where no other vCPU looks. */
    if (c->ncpus == 1 && x86_crosses_line(lin, size))
        return NULL;
    if (!a.ram || !a.writable)
        return NULL;
    uint64_t roff = a.roff + a.gpa % PAGE_SIZE;
    for (unsigned k = 0; k < size; k += 8)
        observe(c, lin + k, c->mmu, roff + k, size - k < 8 ? size - k : 8);
    return c->ram->host + roff;
}

/* What is shorter is copied in whole words: it may be an operand that others access, too. */
#define SPAN_LEAST 64u

void x86_ld_bytes(struct x86_cpu *c, gva_t lin, void *buf, unsigned len, enum x86_mmu mmu)
{
    uint8_t *p = buf;
    check_canonical(c, lin, len, false);
    unsigned span = 0;
    const void *host = len >= SPAN_LEAST && mmu == c->mmu ? x86_span_read(c, lin, &span) : NULL;
    if (host && len <= span) {
        memcpy(p, host, len);
        return;
    }
    if (split(lin, len) != len)
        x86_probe(c, lin, len, X86_READ, mmu);
    while (len) {
        unsigned room = split(lin, len);
        unsigned n = room >= 8 ? 8 : room >= 4 ? 4 : room >= 2 ? 2 : 1;
        uint64_t v = n == 8   ? x86_ldm64(c, lin, mmu)
                     : n == 4 ? x86_ldm32(c, lin, mmu)
                     : n == 2 ? x86_ldm16(c, lin, mmu)
                              : x86_ldm8(c, lin, mmu);
        memcpy(p, &v, n);
        p += n;
        len -= n;
        lin = next_lin(c, lin, n);
    }
}

void x86_st_bytes(struct x86_cpu *c, gva_t lin, const void *buf, unsigned len, enum x86_mmu mmu)
{
    const uint8_t *p = buf;
    check_canonical(c, lin, len, true);
    unsigned span = 0;
    void *host = len >= SPAN_LEAST && mmu == c->mmu ? x86_span_write(c, lin, &span) : NULL;
    if (host && len <= span) {
        memcpy(host, p, len);
        x86_rmw_done(c, lin, host, len);
        return;
    }
    if (split(lin, len) != len)
        x86_probe(c, lin, len, X86_WRITE, mmu);
    while (len) {
        unsigned room = split(lin, len);
        unsigned n = room >= 8 ? 8 : room >= 4 ? 4 : room >= 2 ? 2 : 1;
        uint64_t v = 0;
        memcpy(&v, p, n);
        if (n == 8)
            x86_stm64(c, lin, v, mmu);
        else if (n == 4)
            x86_stm32(c, lin, (uint32_t)v, mmu);
        else if (n == 2)
            x86_stm16(c, lin, (uint16_t)v, mmu);
        else
            x86_stm8(c, lin, (uint8_t)v, mmu);
        p += n;
        len -= n;
        lin = next_lin(c, lin, n);
    }
}

void x86_probe(struct x86_cpu *c, gva_t lin, unsigned len, enum x86_access acc, enum x86_mmu mmu)
{
    struct x86_xlat x;
    check_canonical(c, lin, len, acc == X86_WRITE);
    x86_tlb_fill(c, lin, acc, mmu, &x);
    if (split(lin, len) != len)
        x86_tlb_fill(c, next_lin(c, lin, split(lin, len)), acc, mmu, &x);
}

const void *x86_span_read(struct x86_cpu *c, gva_t lin, unsigned *len)
{
    const struct x86_tlbe *e = x86_tlb_entry(c, lin, c->mmu);
    if (e->rtag != x86_tlb_tag(c, lin, 1, c->mmu))
        return NULL;
    *len = (unsigned)(PAGE_SIZE - lin % PAGE_SIZE);
    return (const void *)(e->addend + lin);
}

void *x86_span_write(struct x86_cpu *c, gva_t lin, unsigned *len)
{
    const struct x86_tlbe *e = x86_tlb_entry(c, lin, c->mmu);
    if (atomic_load_explicit(&e->wtag, memory_order_relaxed) != x86_tlb_tag(c, lin, 1, c->mmu))
        return NULL;
    *len = (unsigned)(PAGE_SIZE - lin % PAGE_SIZE);
    return (void *)(e->addend + lin);
}
