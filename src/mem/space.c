/*
 * space.c - an address map: regions, their flattening, lookup, device access and DMA.
 *
 * Invariants:
 *  1. `flat` is sorted by base and its pieces do not overlap; a piece lies within its region's
 * range.
 *  2. N regions have 2N edges, so at most 2N-1 pieces: both flat arrays hold 2N, reserved by the
 * add that made N. Flattening therefore cannot fail.
 *  3. `flat` and the kind of a region change only under the device lock *and* the write lock. Who
 * holds the device lock reads them without the read lock; everybody else takes it.
 *  4. No lock of the map is held while a device's callback or `changed` runs: both may change the
 * map.
 */
#include "mem/space.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"

int space_init(struct space *s, uint64_t limit, struct ram *ram, struct error *e)
{
    *s = (struct space){.limit = limit, .ram = ram};
    if (pthread_rwlock_init(&s->lock, NULL))
        return error_set(e, ERR_NOMEM, "cannot create a lock");
    return 0;
}

void space_fini(struct space *s)
{
    free(s->region);
    free(s->flat);
    free(s->next);
    free(s->edge);
    pthread_rwlock_destroy(&s->lock);
}

/* ---- flattening ---- */

static int edge_cmp(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The region that answers at `addr`, or NULL. */
static const struct region *topmost(const struct space *s, uint64_t addr)
{
    const struct region *top = NULL;
    for (unsigned i = 0; i < s->nregion; i++) {
        const struct region *r = &s->region[i];
        if (r->enabled && addr >= r->base && addr - r->base < r->len &&
            (!top || r->prio >= top->prio))
            top = r;
    }
    return top;
}

static unsigned collect_edges(struct space *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < s->nregion; i++) {
        const struct region *r = &s->region[i];
        if (r->enabled) {
            s->edge[n++] = r->base;
            s->edge[n++] = r->base + r->len;
        }
    }
    if (n)
        qsort(s->edge, n, sizeof *s->edge, edge_cmp);
    return n;
}

/* Builds the flat map in `next`; returns its number of pieces. */
static unsigned build_next(struct space *s)
{
    unsigned edges = collect_edges(s), n = 0;
    for (unsigned i = 0; i + 1 < edges; i++) {
        uint64_t base = s->edge[i], end = s->edge[i + 1];
        const struct region *r = base < end ? topmost(s, base) : NULL;
        if (!r)
            continue;
        struct flat *last = n ? &s->next[n - 1] : NULL;
        if (last && last->end == base && last->region == r->id)
            last->end = end;
        else
            s->next[n++] = (struct flat){base, end, base - r->base, r->id};
    }
    return n;
}

static bool next_differs(const struct space *s, unsigned n)
{
    if (n != s->nflat)
        return true;
    for (unsigned i = 0; i < n; i++) {
        const struct flat *a = &s->flat[i], *b = &s->next[i];
        if (a->base != b->base || a->end != b->end || a->delta != b->delta ||
            a->region != b->region)
            return true;
    }
    return false;
}

/* Brings `flat` up to date; tells `changed` only if some address is answered differently. */
static void flatten(struct space *s)
{
    if (s->batch)
        return;
    unsigned n = build_next(s);
    bool differs = next_differs(s, n);
    if (differs) {
        pthread_rwlock_wrlock(&s->lock);
        struct flat *old = s->flat;
        s->flat = s->next;
        s->next = old;
        s->nflat = n;
        pthread_rwlock_unlock(&s->lock);
    }
    if (!differs && !s->kinds_changed)
        return;
    s->kinds_changed = false;
    if (s->changed)
        s->changed(s->changed_arg);
}

void space_begin(struct space *s)
{
    s->batch++;
}

void space_commit(struct space *s)
{
    s->batch--;
    flatten(s);
}

/* ---- regions ---- */

/* Makes room for one more region: see invariant 2. */
static int reserve(struct space *s, struct error *e)
{
    size_t n = (size_t)s->nregion + 1;
    struct region *region = calloc(n, sizeof *region);
    struct flat *flat = calloc(2 * n, sizeof *flat), *next = calloc(2 * n, sizeof *next);
    uint64_t *edge = calloc(2 * n, sizeof *edge);
    if (!region || !flat || !next || !edge) {
        free(region);
        free(flat);
        free(next);
        free(edge);
        return error_set(e, ERR_NOMEM, "out of memory");
    }
    if (s->nregion)
        memcpy(region, s->region, s->nregion * sizeof *region);
    if (s->nflat)
        memcpy(flat, s->flat, s->nflat * sizeof *flat);
    pthread_rwlock_wrlock(&s->lock);
    free(s->region);
    free(s->flat);
    s->region = region;
    s->flat = flat;
    pthread_rwlock_unlock(&s->lock);
    free(s->next);
    free(s->edge);
    s->next = next;
    s->edge = edge;
    return 0;
}

static int add(struct space *s, struct region r, unsigned *id, struct error *e)
{
    if (!r.len || !range_within(r.base, r.len, s->limit))
        return error_set(e, ERR_LIMIT,
                         "a region at 0x%llx of 0x%llx bytes leaves the address space",
                         (unsigned long long)r.base, (unsigned long long)r.len);
    if (r.kind != REGION_IO && (!s->ram || !range_within(r.roff, r.len, s->ram->total)))
        return error_set(e, ERR_LIMIT, "a region at 0x%llx exceeds the memory behind it",
                         (unsigned long long)r.base);
    int rc = reserve(s, e);
    if (rc)
        return rc;
    r.enabled = true;
    r.id = s->nregion;
    s->region[s->nregion++] = r;
    if (id)
        *id = r.id;
    flatten(s);
    return 0;
}

int space_add_ram(struct space *s, uint64_t base, uint64_t len, uint64_t roff, int prio,
                  unsigned *id, struct error *e)
{
    struct region r = {.base = base, .len = len, .kind = REGION_RAM, .prio = prio, .roff = roff};
    return add(s, r, id, e);
}

int space_add_rom(struct space *s, uint64_t base, uint64_t len, uint64_t roff, int prio,
                  unsigned *id, struct error *e)
{
    struct region r = {.base = base, .len = len, .kind = REGION_ROM, .prio = prio, .roff = roff};
    return add(s, r, id, e);
}

int space_add_io(struct space *s, uint64_t base, uint64_t len, const struct io_ops *io, void *dev,
                 int prio, unsigned *id, struct error *e)
{
    struct region r = {
        .base = base, .len = len, .kind = REGION_IO, .prio = prio, .io = io, .dev = dev};
    return add(s, r, id, e);
}

void space_rom_writes(struct space *s, unsigned id, const struct io_ops *io, void *dev)
{
    pthread_rwlock_wrlock(&s->lock);
    s->region[id].io = io;
    s->region[id].dev = dev;
    pthread_rwlock_unlock(&s->lock);
}

void space_move(struct space *s, unsigned id, uint64_t base, bool enabled)
{
    struct region *r = &s->region[id];
    r->base = base;
    r->enabled = enabled && range_within(base, r->len, s->limit);
    flatten(s);
}

void space_set_kind(struct space *s, unsigned id, enum region_kind kind)
{
    struct region *r = &s->region[id];
    if (r->kind == kind || r->kind == REGION_IO || kind == REGION_IO)
        return;
    pthread_rwlock_wrlock(&s->lock);
    r->kind = kind;
    pthread_rwlock_unlock(&s->lock);
    s->kinds_changed = true;
    flatten(s);
}

/* ---- lookup ---- */

/* What answers at an address: a copy, so that it outlives the lock. */
struct target {
    uint64_t avail; /* bytes from the address on that are answered alike */
    uint64_t off;   /* within the region */
    uint64_t len;   /* of the region */
    uint64_t roff;  /* RAM, ROM: of the address */
    enum region_kind kind;
    const struct io_ops *io;
    void *dev;
};

/* False: nothing answers the next t->avail bytes. addr < limit. */
static bool find(const struct space *s, uint64_t addr, struct target *t)
{
    unsigned lo = 0, hi = s->nflat; /* the first piece whose base is beyond addr */
    while (lo < hi) {
        unsigned mid = lo + (hi - lo) / 2;
        if (s->flat[mid].base <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    const struct flat *f = lo ? &s->flat[lo - 1] : NULL;
    if (!f || addr >= f->end) {
        t->avail = (lo < s->nflat ? s->flat[lo].base : s->limit) - addr;
        return false;
    }
    const struct region *r = &s->region[f->region];
    uint64_t off = f->delta + (addr - f->base);
    *t = (struct target){
        f->end - addr, off, r->len, r->roff + off, r->kind, r->io, r->dev,
    };
    return true;
}

static bool find_shared(struct space *s, uint64_t addr, struct target *t)
{
    pthread_rwlock_rdlock(&s->lock);
    bool hit = find(s, addr, t);
    pthread_rwlock_unlock(&s->lock);
    return hit;
}

bool space_page(struct space *s, gpa_t addr, uint64_t *roff, bool *writable)
{
    gpa_t page = addr & ~(PAGE_SIZE - 1);
    struct target t;
    if (page >= s->limit || !find_shared(s, page, &t))
        return false;
    if (t.kind == REGION_IO || t.avail < PAGE_SIZE || t.roff % PAGE_SIZE)
        return false;
    *roff = t.roff;
    *writable = t.kind == REGION_RAM;
    return true;
}

/* ---- device access ---- */

static uint64_t ones(unsigned size)
{
    return ~0ull >> (64 - 8 * size);
}

/* The largest size that the device takes at `off` for an access of n bytes; 0: none is that small.
 */
static unsigned fit(const struct io_ops *io, uint64_t off, unsigned n)
{
    for (unsigned size = 8; size; size /= 2) {
        bool aligned = (io->sizes & IO_UNALIGNED) || !(off & (size - 1));
        if ((io->sizes & size) && size <= n && aligned)
            return size;
    }
    return 0;
}

/* A part of a register that only takes wider accesses. */
struct narrow {
    uint64_t base; /* of the register */
    unsigned
        size;   /* of the register: the smallest implemented size; 0: the region ends within it */
    unsigned n; /* bytes of the access that lie in it; 1 if there is no register */
    unsigned shift;
};

static struct narrow narrow(const struct target *t, uint64_t off, unsigned n)
{
    struct narrow a = {.n = 1, .size = t->io->sizes & 0xfu};
    a.size &= -a.size;
    a.base = off & ~((uint64_t)a.size - 1);
    if (!a.size || !range_within(a.base, a.size, t->len)) {
        a.size = 0;
        return a;
    }
    unsigned skip = (unsigned)(off - a.base);
    a.n = (unsigned)min_u64(n, a.size - skip);
    a.shift = 8 * skip;
    return a;
}

static uint64_t io_read(const struct target *t, unsigned n)
{
    uint64_t val = 0;
    for (unsigned i = 0; i < n;) {
        uint64_t off = t->off + i, part;
        unsigned size = fit(t->io, off, n - i);
        if (size) {
            part = t->io->read(t->dev, off, size);
        } else {
            struct narrow a = narrow(t, off, n - i);
            part = a.size ? t->io->read(t->dev, a.base, a.size) >> a.shift : ~0ull;
            size = a.n;
        }
        val |= (part & ones(size)) << (8 * i);
        i += size;
    }
    return val;
}

static void io_write(const struct target *t, uint64_t val, unsigned n)
{
    for (unsigned i = 0; i < n;) {
        uint64_t off = t->off + i, part = val >> (8 * i);
        unsigned size = fit(t->io, off, n - i);
        if (size) {
            t->io->write(t->dev, off, part & ones(size), size);
        } else {
            struct narrow a = narrow(t, off, n - i);
            size = a.n;
            if (a.size && t->io->read) {
                uint64_t mask = ones(size) << a.shift;
                uint64_t old = t->io->read(t->dev, a.base, a.size) & ~mask;
                t->io->write(t->dev, a.base, old | (part << a.shift & mask), a.size);
            }
        }
        i += size;
    }
}

/* RAM is little-endian and so is every host of Sosia; whole accesses are single loads and stores.
 */
static uint64_t ram_load(const uint8_t *p, unsigned n)
{
    uint64_t val = 0;
    switch (n) {
    case 1:
        return *p;
    case 2:
        memcpy(&val, p, 2);
        break;
    case 4:
        memcpy(&val, p, 4);
        break;
    case 8:
        memcpy(&val, p, 8);
        break;
    default:
        memcpy(&val, p, n);
        break;
    }
    return val;
}

static void ram_store(uint8_t *p, uint64_t val, unsigned n)
{
    switch (n) {
    case 1:
        *p = (uint8_t)val;
        break;
    case 2:
        memcpy(p, &val, 2);
        break;
    case 4:
        memcpy(p, &val, 4);
        break;
    case 8:
        memcpy(p, &val, 8);
        break;
    default:
        memcpy(p, &val, n);
        break;
    }
}

uint64_t space_read(struct space *s, uint64_t addr, unsigned size)
{
    uint64_t val = 0;
    for (unsigned i = 0; i < size;) {
        struct target t;
        uint64_t part;
        unsigned n = size - i;
        if (addr >= s->limit)
            return val | (ones(n) << (8 * i));
        bool hit = find(s, addr, &t);
        n = (unsigned)min_u64(n, t.avail);
        if (!hit)
            part = ones(n);
        else if (t.kind == REGION_IO)
            part = io_read(&t, n);
        else
            part = ram_load(s->ram->host + t.roff, n);
        val |= part << (8 * i);
        i += n;
        addr += n;
    }
    return val;
}

void space_write(struct space *s, uint64_t addr, uint64_t val, unsigned size)
{
    for (unsigned i = 0; i < size;) {
        struct target t;
        uint64_t part = val >> (8 * i);
        if (addr >= s->limit)
            return;
        bool hit = find(s, addr, &t);
        unsigned n = (unsigned)min_u64(size - i, t.avail);
        if (hit && t.kind == REGION_RAM) {
            ram_store(s->ram->host + t.roff, part, n);
            ram_note_write(s->ram, t.roff, n);
        } else if (hit && t.io) {
            io_write(&t, part, n);
        }
        i += n;
        addr += n;
    }
}

/* ---- DMA ---- */

bool dma_read(struct space *s, gpa_t addr, void *buf, uint64_t len)
{
    uint8_t *p = buf;
    bool all = true;
    while (len) {
        struct target t;
        if (addr >= s->limit) {
            memset(p, 0xff, len);
            return false;
        }
        bool hit = find_shared(s, addr, &t) && t.kind != REGION_IO;
        uint64_t n = min_u64(len, t.avail);
        if (hit)
            memcpy(p, s->ram->host + t.roff, n);
        else
            memset(p, 0xff, n);
        all &= hit;
        p += n;
        addr += n;
        len -= n;
    }
    return all;
}

bool dma_write(struct space *s, gpa_t addr, const void *buf, uint64_t len)
{
    const uint8_t *p = buf;
    bool all = true;
    while (len) {
        struct target t;
        if (addr >= s->limit)
            return false;
        bool hit = find_shared(s, addr, &t) && t.kind == REGION_RAM;
        uint64_t n = min_u64(len, t.avail);
        if (hit) {
            memcpy(s->ram->host + t.roff, p, n);
            ram_note_write(s->ram, t.roff, n);
        }
        all &= hit;
        p += n;
        addr += n;
        len -= n;
    }
    return all;
}

void *dma_map(struct space *s, gpa_t addr, uint64_t *len)
{
    struct target t;
    if (addr >= s->limit || !find_shared(s, addr, &t) || t.kind != REGION_RAM) {
        *len = 0;
        return NULL;
    }
    *len = min_u64(*len, t.avail);
    return s->ram->host + t.roff;
}

void dma_wrote(struct space *s, const void *host, uint64_t len)
{
    ram_note_write(s->ram, (uint64_t)((const uint8_t *)host - s->ram->host), len);
}
