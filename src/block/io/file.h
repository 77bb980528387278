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

/* The same of a descriptor that somebody else has opened for reading and writing, and locked; it is
 * taken over in any case. `name` is for messages. ERR_FORMAT: it is no such file; ERR_BUSY, ERR_IO,
 * ERR_NOMEM. */
int file_adopt(int fd, const char *name, struct node **out, struct error *e);

#endif
