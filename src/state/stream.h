/*
 * stream.h - the state of a machine as a stream of bytes: parts (structs by their field tables) and
 * memories (pages). docs/state.md has the format.
 *
 * Whoever saves and loads names the same parts and memories; what is in the stream must be all of
 * them and nothing else. Parts are loaded in the order of the list, after all memory, since some
 * look at it. Nothing of a stream is believed: lengths are bounded, each section has a checksum,
 * and the last one says how many there are.
 */
#ifndef SOSIA_STATE_STREAM_H
#define SOSIA_STATE_STREAM_H

#include "base/field.h"

#define STATE_MAX_PARTS    256u
#define STATE_MAX_MEMORIES 8u
#define STATE_NAME_LEN     48u /* with the final NUL */

struct state_part {
    char name[STATE_NAME_LEN]; /* "pci 05.0 nvme": what, and where in the machine */
    const struct field_table *table;
    void *obj;
};

struct state_memory {
    const char *name;
    uint8_t *host;
    uint64_t len; /* a multiple of PAGE_SIZE */
    int fd;       /* `host` is a mapping of it, from its beginning; -1: there is none */
    /* With an fd: a bit for each MiB where there may be a private mapping of a file with a state
     * instead, which state_load() has made. NULL: it must not. */
    uint8_t *mapped;
};

struct state_list {
    struct state_part part[STATE_MAX_PARTS];
    unsigned nparts;
    struct state_memory memory[STATE_MAX_MEMORIES];
    unsigned nmemories;
};

/* More than there is room for is remembered, and refused by state_save() and state_load(). */
void state_add_part(struct state_list *l, const struct field_table *table, void *obj,
                    const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void state_add_memory(struct state_list *l, struct state_memory m);

/* What a save or a load was, for the log. */
struct state_stats {
    uint64_t pages, zero_pages; /* stored; known to be zero */
    uint64_t bytes;             /* of the stream */
};

/* Writes the stream from the descriptor's position on, where there is nothing yet. Nothing of the
 * machine may change meanwhile. ERR_IO, ERR_NOMEM, ERR_LIMIT. */
int state_save(int fd, const struct state_list *l, struct state_stats *stats, struct error *e);

/* Room for copies of memory. */
struct state_pool {
    uint8_t *p; /* NULL: there is none */
    size_t len;
};
/* As much as the list's memories may need now is there at once, so that nothing has to be waited
 * for once it is used; what they may need later can be had, too, all within `budget` bytes. Takes a
 * while; the machine may go on. Without memory for it there is no room. */
void state_pool_make(struct state_pool *p, const struct state_list *l, uint64_t budget);
void state_pool_free(struct state_pool *p);

/* The same as state_save() for a machine that is to go on soon. state_save_begin() copies what
 * there is room for and writes the rest; until then nothing may change. It takes the pool (NULL:
 * none) over. state_save_end() writes the copies, in any thread, and frees. */
struct state_saving;
int state_save_begin(struct state_saving **out, int fd, const struct state_list *l,
                     struct state_pool *pool, struct error *e);
int state_save_end(struct state_saving *s, struct state_stats *stats, struct error *e);
/* Frees without writing what is left. */
void state_save_drop(struct state_saving *s);

/* Reads a stream of state_save(), with several threads. Pages of a regular file are mapped where
 * the memory allows it: the file must never be changed again. All of it is checked first. ERR_IO,
 * ERR_NOMEM, ERR_FORMAT (damaged, truncated, or of a version that is not known), ERR_STATE (of
 * another machine). After an error the parts and memories hold anything. */
int state_load(int fd, const struct state_list *l, struct state_stats *stats, struct error *e);

#endif
