/*
 * file.h - a regular file or a block device as a node.
 */
#ifndef SOSIA_BLOCK_IO_FILE_H
#define SOSIA_BLOCK_IO_FILE_H

#include "block/node.h"

struct file_options {
    bool readonly;
    bool create;   /* makes it; ERR_BUSY if there is one */
    bool unnamed;  /* makes one without a name in this folder (O_TMPFILE) */
    bool unlocked; /* no lock is taken: for looking at the image of a running VM */
};

/* The file is locked, see lock.h. ERR_IO, ERR_BUSY; ERR_FORMAT: neither a file nor a disk. */
int file_open(const char *path, const struct file_options *o, struct node **out, struct error *e);

#endif
