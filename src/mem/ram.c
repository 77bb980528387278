/* ram.c - see ram.h for the invariants of code tracking. */
#define _GNU_SOURCE
#include "mem/ram.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/bigmem.h"

#define CHUNK 64u
/* Of 2 MiB: with fewer pages in use, a large one would waste the host's memory. */
#define ENOUGH (2 * MIB / PAGE_SIZE / 8)

static void *barrier_page; /* for hosts without membarrier(2); NULL otherwise */

static long membarrier(int cmd)
{
    return syscall(SYS_membarrier, cmd, 0, 0);
}

static int barrier_init(struct error *e)
{
    if (barrier_page || membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0)
        return 0;
    /* Changing a protection makes the kernel interrupt every core that runs this process. */
    void *p = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return error_errno(e, ERR_NOMEM, errno, "cannot map a page");
    barrier_page = p;
    return 0;
}

void barrier_all_threads(void)
{
    if (!barrier_page) {
        membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        return;
    }
    mprotect(barrier_page, PAGE_SIZE, PROT_READ | PROT_WRITE);
    *(volatile char *)barrier_page =
        1; /* present and writable: the next change must be broadcast */
    mprotect(barrier_page, PAGE_SIZE, PROT_READ);
}

int ram_init(struct ram *r, uint64_t ram_size, struct error *e)
{
    *r = (struct ram){.fd = -1, .ram_size = ram_size, .total = ram_size + RAM_ROM_AREA};
    int rc = barrier_init(e);
    if (rc)
        return rc;
    r->fd = memfd_create("guest-ram", MFD_CLOEXEC);
    if (r->fd < 0)
        return error_errno(e, ERR_HOST, errno, "cannot create the guest's memory (memfd)");
    if (ftruncate(r->fd, (off_t)r->total) < 0) {
        rc = error_errno(e, ERR_NOMEM, errno, "cannot size the guest's memory");
        goto fail;
    }
    r->host = bigmem_map(r->fd, r->total, PROT_READ | PROT_WRITE);
    if (!r->host) {
        rc = error_errno(e, ERR_NOMEM, errno, "cannot map %llu MiB of guest memory",
                         (unsigned long long)(ram_size / MIB));
        goto fail;
    }
    r->code = calloc(r->total / PAGE_SIZE, sizeof *r->code);
    r->large = calloc((r->total + 2 * MIB - 1) / (2 * MIB), sizeof *r->large);
    r->mapped = calloc(1, r->total / MIB / 8 + 1);
    if (!r->code || !r->large || !r->mapped) {
        rc = error_set(e, ERR_NOMEM, "out of memory");
        goto fail;
    }
    return 0;
fail:
    ram_fini(r);
    return rc;
}

void ram_fini(struct ram *r)
{
    free(r->code);
    free(r->large);
    free(r->mapped);
    bigmem_free(r->host, r->total);
    if (r->fd >= 0)
        close(r->fd);
    *r = (struct ram){.fd = -1};
}

int ram_rom_alloc(struct ram *r, uint64_t len, uint64_t *roff, struct error *e)
{
    uint64_t need = (len + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
    if (len > RAM_ROM_AREA || need > RAM_ROM_AREA - r->rom_used)
        return error_set(e, ERR_LIMIT, "firmware images exceed %llu KiB",
                         (unsigned long long)(RAM_ROM_AREA / KIB));
    *roff = r->ram_size + r->rom_used;
    r->rom_used += need;
    return 0;
}

void ram_touch(struct ram *r, uint64_t roff)
{
    struct ram_large *l = &r->large[roff / (2 * MIB)];
    unsigned page = roff % (2 * MIB) / PAGE_SIZE;
    uint64_t bit = 1ull << page % 64;
    _Atomic uint64_t *seen = &l->seen[page / 64];
    if ((atomic_load_explicit(seen, memory_order_relaxed) & bit) ||
        (atomic_fetch_or(seen, bit) & bit) || atomic_fetch_add(&l->count, 1) + 1 != ENOUGH)
        return;
    uint64_t from = roff - roff % (2 * MIB);
    if (from + 2 * MIB <= r->total)
        bigmem_collapse(r->host + from, 2 * MIB);
}

static uint64_t chunk_mask(unsigned off, unsigned len)
{
    unsigned a = off / CHUNK, b = (off + len - 1) / CHUNK;
    return (~0ull >> (63 - (b - a))) << a;
}

uint32_t ram_code_mark(struct ram *r, uint64_t roff, unsigned len, bool *withdraw)
{
    struct code_page *p = &r->code[roff / PAGE_SIZE];
    atomic_fetch_add(&p->marking, 1);
    uint32_t gen = atomic_load(&p->gen);
    uint64_t had = atomic_fetch_or(&p->chunks, chunk_mask(roff % PAGE_SIZE, len));
    /* Whoever marked it first has withdrawn them, unless it is still between mark and marked. It
     * may have got there before this one's mark, though behind this one's first step. */
    *withdraw = had == 0 || atomic_load(&p->marking) > 1;
    return gen;
}

void ram_code_marked(struct ram *r, uint64_t roff)
{
    atomic_fetch_sub(&r->code[roff / PAGE_SIZE].marking, 1);
}

uint64_t ram_take_writers(struct ram *r, uint64_t roff)
{
    struct code_page *p = &r->code[roff / PAGE_SIZE];
    uint64_t places = atomic_exchange(&p->writers, 0);
    /* Another may have taken them, and not be done. */
    return atomic_load(&p->marking) == 1 ? places : RAM_ANYWHERE;
}

static void kill_page(struct ram *r, struct code_page *p)
{
    atomic_fetch_add(&r->code_dying, 1);
    /* Clear the marks before the generation grows: a marker that comes in between has read the old
     * generation, so its code is dead on arrival and its mark is merely superfluous. */
    atomic_store(&p->chunks, 0);
    atomic_fetch_add(&p->gen, 1);
    uint64_t epoch = atomic_fetch_add(&r->code_epoch, 1) + 1;
    atomic_store(&r->hit[epoch % RAM_HITS], epoch << RAM_HIT_PAGE | (uint64_t)(p - r->code));
    if (r->code_written)
        r->code_written(r->code_ctx);
}

bool ram_hit_page(const struct ram *r, uint64_t epoch, uint64_t *roff)
{
    uint64_t hit = atomic_load(&r->hit[epoch % RAM_HITS]);
    *roff = (hit & ((1ull << RAM_HIT_PAGE) - 1)) * PAGE_SIZE;
    return hit >> RAM_HIT_PAGE == epoch << RAM_HIT_PAGE >> RAM_HIT_PAGE;
}

uint64_t ram_writers(const struct ram *r, uint64_t roff)
{
    return atomic_load_explicit(&r->code[roff / PAGE_SIZE].writers, memory_order_relaxed);
}

/* Which of them is `place`; 0: the first that is free. RAM_PLACES: none. */
static unsigned find_place(uint64_t places, uint32_t place)
{
    unsigned n = 0;
    while (n < RAM_PLACES && ram_place(places, n) != place)
        n++;
    return n;
}

bool ram_add_writer(struct ram *r, uint64_t roff, uint32_t place)
{
    uint64_t seen = ram_writers(r, roff), then;
    do {
        if (seen == RAM_ANYWHERE || find_place(seen, place) < RAM_PLACES)
            return true;
        unsigned n = find_place(seen, 0);
        if (n == RAM_PLACES)
            return false;
        then = seen | (uint64_t)place << n * RAM_PLACE_BITS;
    } while (!atomic_compare_exchange_weak(&r->code[roff / PAGE_SIZE].writers, &seen, then));
    return true;
}

void ram_remove_writer(struct ram *r, uint64_t roff, uint32_t place)
{
    uint64_t seen = ram_writers(r, roff), then;
    do {
        unsigned n = find_place(seen, place);
        if (seen == RAM_ANYWHERE || n == RAM_PLACES)
            return;
        then = seen ^ (uint64_t)place << n * RAM_PLACE_BITS;
    } while (!atomic_compare_exchange_weak(&r->code[roff / PAGE_SIZE].writers, &seen, then));
}

void ram_write_anywhere(struct ram *r, uint64_t roff)
{
    atomic_store(&r->code[roff / PAGE_SIZE].writers, RAM_ANYWHERE);
}

static bool is_hit(const struct code_page *p, unsigned off, unsigned len)
{
    uint64_t chunks = atomic_load_explicit(&p->chunks, memory_order_relaxed);
    return UNLIKELY(chunks & chunk_mask(off, len));
}

static unsigned kill(struct ram *r, uint64_t roff, uint64_t len, bool all)
{
    unsigned hits = 0;
    atomic_thread_fence(memory_order_seq_cst);
    while (len) {
        struct code_page *p = &r->code[roff / PAGE_SIZE];
        unsigned off = roff % PAGE_SIZE;
        unsigned n = (unsigned)min_u64(len, PAGE_SIZE - off);
        if (all || is_hit(p, off, n)) {
            kill_page(r, p);
            hits++;
        }
        roff += n;
        len -= n;
    }
    return hits;
}

unsigned ram_note_write(struct ram *r, uint64_t roff, uint64_t len)
{
    return kill(r, roff, len, false);
}

void ram_code_kill(struct ram *r, uint64_t roff, uint64_t len)
{
    kill(r, roff, len, true);
}
