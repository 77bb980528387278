/*
 * remote.h - what remote disks share: a thread that alone speaks to the server, and a queue of
 * operations for it, so that submitting one never blocks.
 *
 * Invariant: an operation belongs to the thread from the moment it is taken off the queue; it is
 * finished exactly once, when none of its commands is in flight. done() is called with no lock held
 * and outside of the library that speaks the protocol.
 */
#ifndef SOSIA_BLOCK_IO_REMOTE_H
#define SOSIA_BLOCK_IO_REMOTE_H

#include <pthread.h>

#include "block/block.h"
#include "block/node.h"

struct remote;

struct remote_op { /* the first member of a protocol's own */
    struct remote_op *next;
    struct blk_req *req; /* somebody's asynchronous one; NULL: one that is waited for */
    unsigned commands;   /* in flight, and one while they are being sent */
    int result;
    bool finished; /* under `lock` */
};

struct remote_protocol {
    const char *name; /* of the thread */
    /* An allocated operation for a READ or WRITE; NULL: the slow way, node_*(), is to be gone. */
    struct remote_op *(*make)(struct remote *r, struct blk_req *req);
    /* Sends the commands of an operation, or sets `result`. */
    void (*start)(struct remote *r, struct remote_op *op);
    /* Waits for the server or for `wake`, and deals with what the server says. */
    void (*talk)(struct remote *r);
};

struct remote {
    const struct remote_protocol *protocol;
    int wake; /* an eventfd */
    pthread_t thread;
    pthread_mutex_t lock; /* of the queues and `closing` */
    pthread_cond_t finished;
    struct remote_op *first, *last; /* to be done */
    struct blk_req *head, *tail;    /* likewise; linked by `next` */
    bool closing;
    struct remote_op *ready; /* the thread's: finished, not yet told */
};

/* ERR_HOST, ERR_NOMEM: nothing is left to be stopped. */
int remote_start(struct remote *r, const struct remote_protocol *p, struct error *e);
/* Nobody uses it any more, and what was in flight is finished. */
void remote_stop(struct remote *r);

/* Any other thread: does it and waits for its end. */
int remote_perform(struct remote *r, struct remote_op *op);
/* As node_ops' submit. */
void remote_submit(struct remote *r, struct blk_req *req);

/* The thread: a command is at its end, or all have been sent. */
void remote_release(struct remote *r, struct remote_op *op);
/* The thread, after poll(): `wake` was seen. */
void remote_woken(struct remote *r);

#endif
