/*
 * disk.h - a tree of nodes as a disk of the VM: asynchronous, through block.h.
 */
#ifndef SOSIA_BLOCK_DISK_H
#define SOSIA_BLOCK_DISK_H

#include <pthread.h>

#include "base/deferred.h"
#include "block/block.h"
#include "block/node.h"

enum disk_io {
    DISK_IO_AUTO,  /* io_uring if the host allows it, else threads */
    DISK_IO_URING, /* ERR_HOST if it does not */
    DISK_IO_THREADS,
};

struct disk_options {
    enum disk_io io;
    const char *name;               /* for the log, as long as the disk is open; NULL: "a disk" */
    struct deferred_list *deferred; /* the device lock's; NULL: none */
};

/* Takes over `top` when it succeeds. `dev_lock` is taken around each `done`. ERR_NOMEM, ERR_HOST.
 */
int disk_open(struct node *top, const struct disk_options *o, pthread_mutex_t *dev_lock,
              struct blk **out, struct error *e);

/* The guest goes on with `overlay`, which is empty and as large as the disk, over the image that it
 * had; takes it over. Waits for what is in flight. Until disk_settle() has succeeded, a flush makes
 * that image durable, too. ERR_BUSY: the last one has not been settled. */
int disk_push(struct blk *b, struct node *overlay, struct error *e);
/* (any thread) The image below becomes durable, and others may use it as a backing file. */
int disk_settle(struct blk *b, struct error *e);

#endif
