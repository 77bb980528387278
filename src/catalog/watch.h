/*
 * watch.h - waiting for what happens to a VM, without asking again and again: its files, and the
 * end of its process.
 */
#ifndef SOSIA_CATALOG_WATCH_H
#define SOSIA_CATALOG_WATCH_H

#include "catalog/catalog.h"

struct vm_watch {
    const struct vm *vm;
    int files; /* inotify: the VM's folder and its logs */
    int pid;   /* of the process below */
    int pidfd; /* of the VMM; -1: none lives */
};

/* ERR_HOST. */
int vm_watch_open(struct vm_watch *w, const struct vm *vm, struct error *e);
void vm_watch_close(struct vm_watch *w);
/* Until something happens, also on `more` (a descriptor to read from, or -1), at most `ms`
 * (negative: any time). What happened may be nothing of interest. True: it happened on `more`. */
bool vm_watch_wait(struct vm_watch *w, int more, int64_t ms);
/* Waits for the end of the VMM. False: it lives on after `ms`. */
bool vm_watch_end(struct vm_watch *w, int64_t ms, void (*tick)(void *arg), void *arg);
/* Ends the process. */
void vm_watch_kill(struct vm_watch *w);

#endif
