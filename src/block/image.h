/*
 * image.h - opening an image with all the files that it is made of.
 *
 * What an image says about other files is untrusted text: a guest may have written it. Therefore
 *  - a file that an image names lies in the folder of the first image of the chain, or below it,
 *    after all symbolic links are followed, unless the user says otherwise;
 *  - a backing file whose format nobody stated may not name further files: it may be a raw disk
 *    whose guest wrote a header of another format into it;
 *  - a chain has no loops and at most FORMAT_MAX_DEPTH members.
 */
#ifndef SOSIA_BLOCK_IMAGE_H
#define SOSIA_BLOCK_IMAGE_H

#include "block/format.h"

struct image_options {
    const char *format; /* NULL, "" or "auto": probed */
    bool readonly;
    bool allow_outside;   /* the files that it names may be anywhere, and their formats guessed */
    bool unlocked;        /* look at an image that a VM uses; implies readonly */
    bool check;           /* as format_open's */
    bool no_backing;      /* likewise */
    const char *snapshot; /* likewise, of the image itself */
    const char *at; /* the file that is to be opened, if it is not at its path yet (output.h) */
};

/* ERR_IO, ERR_FORMAT, ERR_BUSY, ERR_LIMIT, ERR_NOMEM; the message names the file. */
int image_open(const char *path, const struct image_options *o, struct node **out, struct error *e);
/* The format that the first bytes of `file` speak of. ERR_IO. */
int image_probe(struct node *file, const char *path, const struct format **out, struct error *e);

#endif
