/*
 * output.h - a file that appears under its name only when it is complete.
 *
 * It has no name while it is written (O_TMPFILE, open(2)), so a process that is killed leaves
 * nothing. Where the file system cannot do that, it has a hidden name in the same folder, and a
 * file that a killed process left there is removed by the next one that makes a file of the same
 * name. Then it is made durable, and gets its name.
 */
#ifndef SOSIA_BLOCK_OUTPUT_H
#define SOSIA_BLOCK_OUTPUT_H

#include "block/node.h"

struct output {
    char *path;
    char *temp;   /* a name to open it by until it has its own: image_options' `at` */
    int fd;       /* keeps a file without a name; -1: it has one */
    bool replace; /* a file of this name is replaced; else it is an error */
};

/* Makes the file; *file is the caller's, who closes it. ERR_BUSY: there is a file of this
 * name; ERR_IO, ERR_NOMEM. */
int output_begin(struct output *o, const char *path, bool replace, struct node **file,
                 struct error *e);
/* The same with a hidden name, as where there is nothing else. */
int output_begin_named(struct output *o, const char *path, bool replace, struct node **file,
                       struct error *e);
/* The file, which nobody has open for writing any more, becomes durable and gets its name.
 * Frees what `o` holds, as output_abort() does. ERR_BUSY, ERR_IO. */
int output_commit(struct output *o, struct error *e);
/* Removes the file. Does nothing after output_commit() or before output_begin(). */
void output_abort(struct output *o);

#endif
