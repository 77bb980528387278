/*
 * section.h - what a stream consists of, in bytes; between stream.c and memory.c.
 */
#ifndef SOSIA_STATE_SECTION_H
#define SOSIA_STATE_SECTION_H

#include <pthread.h>

#include "state/codec.h"
#include "state/stream.h"

/* ---- the format: docs/state.md ---- */

#define STATE_MAGIC      "sosia\x1astate"
#define STATE_MAGIC_LEN  11u
#define STATE_VERSION    1u
#define STATE_HEAD_LEN   20u /* magic, u8 0, u32 version, u32 CRC of what precedes */
#define STATE_CHUNK      64u /* pages: as many as a bitmap has bits */
#define STATE_CHUNK_SIZE (STATE_CHUNK * PAGE_SIZE)

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
    24u /* u32 memory, u32 encoding, u64 first page, u64 bitmap; then the data */
enum { STATE_RAW = 0, STATE_ZSTD = 1 };
#define STATE_MAX_PAGES_SECTION (STATE_PAGES_LEN + STATE_CHUNK_SIZE)
#define STATE_INDEX_ENTRY       24u

/* ---- writing ---- */

struct state_writer {
    int fd;
    uint64_t offset;   /* bytes written */
    uint32_t sections; /* written */
    uint32_t crc;      /* of their CRCs */
    struct state_out index;
    struct state_stats stats;
};

/* `crc` is that of the payload. ERR_IO. */
int state_put_section(struct state_writer *w, enum state_kind kind, const void *payload,
                      uint64_t len, uint32_t crc, struct error *e);
uint32_t state_crc(uint32_t crc, const void *p, size_t len);
#define STATE_MAX_THREADS 8u
/* As many threads as help. */
unsigned state_threads(void);

/* memory.c: all PAGES sections of one memory. */
int state_save_memory(struct state_writer *w, unsigned number, const struct state_memory *m,
                      struct error *e);

/* ---- reading ---- */

/* Decompresses sections of pages in threads of its own. */
struct state_loader;
int state_loader_start(struct state_loader **out, const struct state_list *l, struct error *e);
/* Memory of STATE_MAX_PAGES_SECTION bytes for the next section; waits until there is some. */
uint8_t *state_loader_buffer(struct state_loader *d);
/* Hands the buffer over: the payload of a section with pages of the list's memory, whose place is
 * checked, and what its CRC should be; len 0: it is not used. */
void state_loader_give(struct state_loader *d, unsigned memory, uint8_t *buf, uint32_t len,
                       uint32_t crc);
/* Waits for the end of all work, and frees. The first error that was met. */
int state_loader_finish(struct state_loader *d, uint64_t *pages, struct error *e);
/* All of it reads as zeroes. */
int state_clear_memory(const struct state_memory *m, struct error *e);

#endif
