/*
 * lock.h - the locks of a VM: bytes of the file `lock` in its folder, as open file description
 * locks (fcntl(2)).
 *
 * They end with the process that holds them, however it dies, so nothing stale is ever left. All
 * are exclusive. A verb that changes a VM holds VM_LOCK_VERB while it does; the others belong to
 * the VMM and are what the VM's state is read from:
 *
 *        none: stopped     ALIVE: starting     ALIVE READY: running     ALIVE READY PAUSED: paused
 *
 * Order: the catalog's lock (the same byte VM_LOCK_VERB of its own file), then a VM's VERB, the
 * source's before the clone's; ALIVE is only tried, never waited for.
 */
#ifndef SOSIA_CATALOG_LOCK_H
#define SOSIA_CATALOG_LOCK_H

#include "base/error.h"
#include "base/types.h"

enum vm_lock { VM_LOCK_VERB, VM_LOCK_ALIVE, VM_LOCK_READY, VM_LOCK_PAUSED };

#define VM_LOCK_FILE "lock"

/* A description of its own. Returns a descriptor; ERR_PERM, ERR_IO, ERR_NOTFOUND. */
int vm_lock_open(int dir, bool write, struct error *e);
/* True: it is ours now. */
bool vm_lock_try(int fd, enum vm_lock which);
/* Waits a few seconds for it. ERR_BUSY: another verb is at work on what `what` names. */
int vm_lock_wait(int fd, enum vm_lock which, const char *what, struct error *e);
void vm_lock_drop(int fd, enum vm_lock which);
/* Whether another description holds it. */
bool vm_lock_held(int fd, enum vm_lock which);

#endif
