/*
 * output.h - a file that appears under its name only when it is complete.
 *
 * It is written under a hidden name in the same folder, made durable, then renamed. A process that
 * is killed leaves the hidden file, never one that looks complete.
 */
#ifndef SOSIA_BLOCK_OUTPUT_H
#define SOSIA_BLOCK_OUTPUT_H

#include "block/node.h"

struct output {
    char *path, *temp;
    bool replace; /* a file of this name is replaced; else it is an error */
};

/* Makes the hidden file; *file is the caller's, who closes it. ERR_BUSY: there is a file of this
 * name; ERR_IO, ERR_NOMEM. */
int output_begin(struct output *o, const char *path, bool replace, struct node **file,
                 struct error *e);
/* The hidden file, which nobody has open for writing any more, becomes durable and gets its name.
 * Frees what `o` holds, as output_abort() does. ERR_BUSY, ERR_IO. */
int output_commit(struct output *o, struct error *e);
/* Removes the hidden file. Does nothing after output_commit() or before output_begin(). */
void output_abort(struct output *o);

#endif
