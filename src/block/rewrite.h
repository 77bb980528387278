/*
 * rewrite.h - changes of an image as a whole: its top layer merged into the backing file, or its
 * space given back.
 *
 * An image that is rewritten is replaced by a new one with the same format, options, backing file
 * and contents, in one step (output.h); whoever is killed leaves the old one.
 */
#ifndef SOSIA_BLOCK_REWRITE_H
#define SOSIA_BLOCK_REWRITE_H

#include "block/copy.h"
#include "block/image.h"

struct rewrite {
    struct image_options image; /* its format; whether it may name files anywhere */
    block_progress *progress;   /* may be NULL */
    void *ctx;
    bool keep; /* commit: leave the top layer as it is */
    /* Results: bytes on the disk. commit: of the backing file. */
    uint64_t before, after;
    bool emptied;       /* commit: the top layer is empty now */
    char *backing_path; /* commit: allocated */
};

/* Writes what the image holds to its backing file, and replaces it by an empty one. What it reads
 * as is the same at any moment; the backing file's contents are in between until it is done. Other
 * images that have the same backing file are damaged by it. ERR_STATE: there is no backing file, or
 * ended by `progress`; else as image_open() and copy_run(). */
int image_commit(const char *path, struct rewrite *r, struct error *e);
/* Gives back the space of zeroes and of unused clusters; needs space for a copy, except for raw
 * images. ERR_STATE: the image has snapshots or the like, which a new one would lack. */
int image_compact(const char *path, struct rewrite *r, struct error *e);

#endif
