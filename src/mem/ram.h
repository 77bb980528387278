/*
 * ram.h - guest RAM and ROM: one memfd, mapped once. A VM that goes on from a saved state has pages
 * of that file, mapped privately, in the place of most of it.
 *
 * Everything a guest can execute lies in this one block, so "RAM offset" (roff) identifies a byte
 * of it regardless of where the address map shows it. Layout: [0, ram_size) RAM, then the ROM area.
 *
 * Code tracking. An engine that caches decoded or translated code marks the 64-byte chunks it read
 * (ram_code_mark); whoever writes guest memory reports it (ram_note_write). Invariants:
 *  1. A page's generation grows whenever a marked chunk may have changed.
 *  2. As long as a page has marks, no vCPU has a fast write translation of it, once the first that
 *     marked it has withdrawn them. Others that mark it meanwhile (`marking`) cannot rely on that
 *     yet: they withdraw all that there may be themselves.
 *  3. Cached code remembers the generation read *before* the chunk was marked, and the chunk is
 * marked *before* its bytes are read; code whose generation differs from the page's is dead.
 *  4. A writer stores first and looks at the marks afterwards. ram_note_write() has a full fence
 *     between the two; between a vCPU's store and its look at its TLB none is needed, because the
 *     marking side runs barrier_all_threads() if there are other vCPUs.
 *  5. A write that hits clears the marks before the generation grows, so that later writes to the
 *     page cost nothing: for a moment, and for as long as a vCPU does not look at the generation, a
 *     page without marks may have code that is still executed. code_dying grows before the marks
 *     go, code_epoch after the generation has grown; a vCPU whose code_seen is not equal to
 *     code_dying may have such pages: it makes no fast write translation, and treats each store
 *     that it reports as a hit.
 *  6. Whoever hits calls code_written() at the end, so that vCPUs which execute translated code
 *     without looking at epochs are told to.
 */
#ifndef SOSIA_MEM_RAM_H
#define SOSIA_MEM_RAM_H

#include <stdatomic.h>

#include "base/error.h"
#include "base/types.h"

struct code_page {
    _Atomic uint64_t chunks; /* bit n: bytes [64n, 64n+64) of the page are cached as code */
    _Atomic uint32_t gen;
    _Atomic uint32_t marking; /* how many are between ram_code_mark() and ram_code_marked() */
    _Atomic uint64_t writers; /* where translations that allow writing it are: places, see below */
};

/* Up to RAM_PLACES numbers, not 0, that their users know how to read; or RAM_ANYWHERE. */
#define RAM_PLACES     3u
#define RAM_PLACE_BITS 21
#define RAM_ANYWHERE   (~0ull)
/* 0: there are not so many. Of RAM_ANYWHERE: no place. */
static inline uint32_t ram_place(uint64_t places, unsigned n)
{
    return (uint32_t)(places >> n * RAM_PLACE_BITS) & ((1u << RAM_PLACE_BITS) - 1);
}

/* The pages that were hit last: slot n holds the page of a hit with code_epoch % RAM_HITS = n, and
 * above it the low bits of the epoch, to tell whether it is the one. */
#define RAM_HITS     64u
#define RAM_HIT_PAGE 40 /* bits: 4 PiB of RAM */

/* 2 MiB, which become a large page of the host's when a vCPU has translated enough of them: the
 * host's TLB, and its page faults, are a good part of what memory costs. */
struct ram_large {
    _Atomic uint64_t seen[2 * MIB / PAGE_SIZE / 64]; /* by page */
    _Atomic uint32_t count;
};

struct ram {
    int fd;
    uint8_t *host;               /* `total` bytes, page-aligned */
    uint64_t ram_size;           /* bytes of RAM, multiple of 4 KiB */
    uint64_t rom_used;           /* bytes handed out by ram_rom_alloc */
    uint64_t total;              /* ram_size + ROM area */
    uint8_t *mapped;             /* a bit for each MiB: it may be a file's; see state/stream.h */
    struct code_page *code;      /* one for each page of `total` */
    _Atomic uint64_t code_dying; /* grows before a page's marks go and its generation grows */
    _Atomic uint64_t code_epoch; /* grows by as much after that */
    _Atomic uint64_t hit[RAM_HITS];
    struct ram_large *large; /* one for each 2 MiB, or part, of `total` */
    /* (any thread, whatever it holds; NULL: nobody asks) Cached code was hit: takes no lock. */
    void (*code_written)(void *ctx);
    void *code_ctx;
    /* What the board promises never to cover: guest addresses [1 MiB, low_end) are RAM at the same
     * RAM offset, and [4 GiB, 4 GiB + ram_size - low_end) is the rest. 0: no promise. */
    uint64_t low_end;
};

#define RAM_ROM_AREA (2 * MIB)

/* 0, or ERR_NOMEM / ERR_HOST. Pages are committed when touched. */
int ram_init(struct ram *r, uint64_t ram_size, struct error *e);
void ram_fini(struct ram *r);

/* Reserves `len` bytes (rounded up to pages) of ROM area; *roff is their RAM offset. */
int ram_rom_alloc(struct ram *r, uint64_t len, uint64_t *roff, struct error *e);

/* A vCPU is about to access the page. May take a millisecond. */
void ram_touch(struct ram *r, uint64_t roff);

/* RAM offset of a guest address by the board's promise alone; false: ask the address map. */
static inline bool ram_direct(const struct ram *r, gpa_t gpa, uint64_t *roff)
{
    if (LIKELY(gpa >= MIB && gpa < r->low_end)) {
        *roff = gpa;
        return true;
    }
    if (gpa >= 4 * GIB && r->low_end && gpa - 4 * GIB < r->ram_size - r->low_end) {
        *roff = gpa - 4 * GIB + r->low_end;
        return true;
    }
    return false;
}

/* Marks [roff, roff+len), within one page, as cached code and returns the page's generation to
 * remember; the caller ends by ram_code_marked(), and then reads the bytes. *withdraw: before that
 * it must drop every writable translation of the page (ram_take_writers) in every vCPU and, if
 * there are several, run barrier_all_threads(). */
uint32_t ram_code_mark(struct ram *r, uint64_t roff, unsigned len, bool *withdraw);
void ram_code_marked(struct ram *r, uint64_t roff);

static inline uint32_t ram_code_gen(const struct ram *r, uint64_t roff)
{
    return atomic_load_explicit(&r->code[roff / PAGE_SIZE].gen, memory_order_relaxed);
}

static inline bool ram_has_code(const struct ram *r, uint64_t roff)
{
    return atomic_load_explicit(&r->code[roff / PAGE_SIZE].chunks, memory_order_seq_cst) != 0;
}

/* Reports a finished write to [roff, roff+len). Returns in how many pages cached code was hit. */
unsigned ram_note_write(struct ram *r, uint64_t roff, uint64_t len);
/* All cached code of these pages is dead from now on. */
void ram_code_kill(struct ram *r, uint64_t roff, uint64_t len);

/* RAM offset of the page whose hit made code_epoch `epoch`; false: it is not known any more, or not
 * yet. */
bool ram_hit_page(const struct ram *r, uint64_t epoch, uint64_t *roff);

/* A translation that allows writing is about to be made at `place` (the caller makes it, then looks
 * at ram_has_code()). False: there is no room; remove one, or call ram_write_anywhere(). */
bool ram_add_writer(struct ram *r, uint64_t roff, uint32_t place);
void ram_write_anywhere(struct ram *r, uint64_t roff);
/* There is no such translation at `place`, and none is being made. */
void ram_remove_writer(struct ram *r, uint64_t roff, uint32_t place);
uint64_t ram_writers(const struct ram *r, uint64_t roff);
/* Those that there may be; from now on there are none: the caller withdraws them. Call after
 * ram_code_mark(). */
uint64_t ram_take_writers(struct ram *r, uint64_t roff);

/* Every other thread of the process executes a full memory fence before this returns. */
void barrier_all_threads(void);

#endif
