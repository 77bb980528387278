/*
 * create.h - new images: `sosia disk create`, and the destination of every copy.
 */
#ifndef SOSIA_BLOCK_CREATE_H
#define SOSIA_BLOCK_CREATE_H

#include "block/format.h"
#include "block/output.h"

struct image_create {
    const struct format *format;
    uint64_t size;       /* bytes; 0: the backing file's */
    const char *backing; /* as it will be stored: relative to the new image's folder; or NULL */
    const char *backing_format; /* NULL: looked up now and stored */
    bool allow_outside;         /* of the backing file */
    bool as_stored; /* the backing file is not looked at: it is another image's, which was */
    bool replace;   /* an existing file */
    const char *const *option; /* "name=value" */
    unsigned noptions;
};

/* Writes the image under the hidden name of `o`, where the caller may fill it before
 * output_commit(). On failure nothing is left. ERR_USAGE: an option or a size that the format does
 * not have; else as image_open(). */
int image_create(struct output *o, const char *path, const struct image_create *c, struct error *e);
/* The format for a new file of this name by its suffix; NULL: it says nothing. */
const struct format *format_by_suffix(const char *path);

#endif
