/*
 * section.h - what a stream consists of, in bytes; between save.c, load.c and their helpers.
 */
#ifndef SOSIA_STATE_SECTION_H
#define SOSIA_STATE_SECTION_H

#include <pthread.h>

#include "state/codec.h"
#include "state/stream.h"

/* ---- the format: docs/state.md ---- */

#define STATE_MAGIC      "sosia\x1astate"
#define STATE_MAGIC_LEN  11u
#define STATE_VERSION    2u  /* 1 had no PLACED pages */
#define STATE_HEAD_LEN   20u /* magic, u8 0, u32 version, u32 CRC of what precedes */
#define STATE_CHUNK      64u /* pages: as many as a bitmap has bits */
#define STATE_CHUNK_SIZE (STATE_CHUNK * PAGE_SIZE)
#define STATE_BLOCK      256u /* pages: as many as a section has in place */
#define STATE_BLOCK_SIZE (STATE_BLOCK * PAGE_SIZE)

enum state_kind {
    STATE_PART = 1,   /* u8 length of the name, name, struct (fields.h) */
    STATE_MEMORY = 2, /* u32 number, u64 length, u8 length of the name, name */
    STATE_PAGES = 3,  /* struct state_pages */
    STATE_INDEX = 4,  /* for each PAGES section: u64 memory, u64 first page, u64 offset */
    STATE_END = 5,    /* u64 how many sections precede, u32 CRC of their CRCs */
};

#define STATE_SECTION_LEN                                                   \
    24u /* u32 kind, u32 number, u64 length, u32 CRC, u32 CRC of the header \
         */

#define STATE_MAX_PART (4 * MIB)
#define STATE_PAGES_LEN \
    24u /* u32 memory, u32 encoding, u64 first page, u64 bitmap or pages; then the data */
/* PLACED: the third number says how many pages there are, zero ones among them; behind zeroes they
 * begin at a multiple of PAGE_SIZE in the stream, so that a file of it can be mapped. */
enum { STATE_RAW = 0, STATE_ZSTD = 1, STATE_PLACED = 2 };
#define STATE_MAX_PAGES_SECTION (STATE_PAGES_LEN + STATE_CHUNK_SIZE)
#define STATE_INDEX_ENTRY       24u

/* The bytes between a section's payload at `offset` in the stream and its pages in place. */
static inline uint32_t state_pad(uint64_t offset)
{
    return (uint32_t)(-(offset + STATE_PAGES_LEN) % PAGE_SIZE);
}

uint32_t state_crc(uint32_t crc, const void *p, size_t len);
#define STATE_MAX_THREADS 8u
/* As many threads as help. */
unsigned state_threads(void);
/* ERR_LIMIT. */
int state_check_list(const struct state_list *l, struct error *e);

/* ---- writing ---- */

struct state_writer {
    int fd;
    bool seeks;        /* gaps may be left in the file */
    uint64_t offset;   /* bytes written */
    uint32_t sections; /* written */
    uint32_t crc;      /* of their CRCs */
    struct state_out index;
    struct state_stats stats;
};

int state_put_bytes(struct state_writer *w, const void *p, uint64_t len, struct error *e);
/* Zeroes, as a gap where the file can have one. */
int state_put_gap(struct state_writer *w, uint64_t len, struct error *e);
/* The header of a section whose payload, of this length and CRC, is written next. ERR_IO. */
int state_put_section(struct state_writer *w, enum state_kind kind, uint64_t len, uint32_t crc,
                      struct error *e);

/* copy.c: which pages are to be stored, and copies of them. */

struct state_block {
    uint64_t used[STATE_BLOCK / 64]; /* a bit for each page: it is not zero */
    const uint8_t *copy;             /* of these pages, one after the other; NULL: there is none */
};

struct state_copy {
    struct state_memory memory[STATE_MAX_MEMORIES];
    struct state_block *block[STATE_MAX_MEMORIES];
    unsigned nmemories;
    uint64_t blocks; /* of all memories */
    /* As many of these have no copy, or are to be treated like that: all that follow have one. */
    uint64_t live;
    struct state_pool pool;
};

static inline uint64_t state_blocks(const struct state_memory *m)
{
    return (m->len + STATE_BLOCK_SIZE - 1) / STATE_BLOCK_SIZE;
}

/* Nothing changes meanwhile. The pool is taken over. ERR_NOMEM. */
int state_copy_make(struct state_copy *c, const struct state_list *l, struct state_pool *pool,
                    struct error *e);
void state_copy_free(struct state_copy *c);
/* The section of a block, if there is anything in it. */
int state_put_block(struct state_writer *w, const struct state_copy *c, unsigned memory,
                    uint64_t block, struct error *e);

/* ---- reading ---- */

/* Checks and, where they are compressed, decompresses pages in threads of its own. */
struct state_loader;
int state_loader_start(struct state_loader **out, const struct state_list *l, struct error *e);
/* Memory of STATE_MAX_PAGES_SECTION bytes for the next section; waits until there is some. */
uint8_t *state_loader_buffer(struct state_loader *d);
/* Hands the buffer over: the payload of a section with pages of the list's memory, whose place is
 * checked, and what its CRC should be; len 0: it is not used. */
void state_loader_give(struct state_loader *d, unsigned memory, uint8_t *buf, uint32_t len,
                       uint32_t crc);
/* Bytes of a file that were mapped: with those before them, whose CRC is `seed`, they should have
 * `crc`. */
void state_loader_check(struct state_loader *d, int fd, uint64_t offset, uint32_t len,
                        uint32_t seed, uint32_t crc);
/* Waits for the end of all work, and frees. The first error that was met. */
int state_loader_finish(struct state_loader *d, uint64_t *pages, struct error *e);
/* All of it reads as zeroes. */
int state_clear_memory(const struct state_memory *m, struct error *e);

#endif
