/*
 * chain.h - the members of a chain of images, one by one: their names, formats and facts.
 */
#ifndef SOSIA_BLOCK_CHAIN_H
#define SOSIA_BLOCK_CHAIN_H

#include "block/image.h"

struct json_t;

struct chain_link {
    char *path;
    const struct format *format;
    uint64_t size;       /* virtual, bytes */
    uint64_t allocated;  /* bytes that the file takes on the disk; 0 for a device */
    uint64_t length;     /* of the file */
    struct json_t *info; /* the format's own facts, or NULL */
    struct json_t *raid; /* what it says about the array that it is a member of, or NULL */
    char *backing;       /* as stored, or NULL */
    char *backing_format;
};

struct chain {
    struct chain_link link[FORMAT_MAX_DEPTH];
    unsigned n;
};

/* Looks at the image and all below it; takes no locks. Names are followed as image_open() follows
 * them, so that what it refuses is refused here with its message, but the links before it are in
 * `c` and valid: chain_free() is always called. */
int chain_load(struct chain *c, const char *path, const char *format, bool allow_outside,
               struct error *e);
void chain_free(struct chain *c);
/* Where a file that the image at `from` names lies; allocated, NULL: out of memory. */
char *chain_join(const char *from, const char *name);

#endif
