/*
 * remote.h - the tool's end of a VM's control socket (vmm/control.h).
 */
#ifndef SOSIA_CATALOG_REMOTE_H
#define SOSIA_CATALOG_REMOTE_H

#include <jansson.h>

#include "catalog/catalog.h"

#define VM_SOCKET "control" /* in the VM's folder */

struct remote {
    int fd; /* -1: not open */
    char *buf;
    size_t len, cap;
    const int *give; /* descriptors for the next command */
    size_t ngive;
    char name[VM_NAME_MAX + 1]; /* for messages */
};

/* Connects and negotiates. ERR_STATE: the VM does not run; ERR_TIMEOUT: it does not answer;
 * ERR_PERM. */
int remote_open(struct remote *r, const struct vm *vm, struct error *e);
void remote_close(struct remote *r);

/* Carries a command out. `args` (NULL: none) is taken over; *ret (may be NULL) is the caller's.
 * ERR_STATE: refused, with the VM's message; ERR_TIMEOUT; ERR_IO: the connection ended. */
int remote_call(struct remote *r, const char *command, json_t *args, int timeout_ms, json_t **ret,
                struct error *e);

/* The next command comes with these descriptors, which stay the caller's. */
void remote_give(struct remote *r, const int *fd, size_t n);

/* The pieces of remote_call(), for those who do something else meanwhile. */
int remote_send(struct remote *r, const char *command, json_t *args, struct error *e);
/* The next message, an answer or an event. timeout_ms 0: only what is there. */
int remote_read(struct remote *r, int timeout_ms, json_t **message, struct error *e);

/* For the VMM: a listening socket in the VM's folder, for this user only. Returns a descriptor. */
int remote_listen(int dir, struct error *e);

#endif
