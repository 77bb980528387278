/*
 * status.h - whether a VM runs, since when, and how its last run ended.
 *
 * That it runs is told by locks (lock.h). run.json adds what locks cannot say: it is written by the
 * VMM when it starts and once more when it ends. A run.json without an end and no lock held means
 * that the VMM died.
 */
#ifndef SOSIA_CATALOG_STATUS_H
#define SOSIA_CATALOG_STATUS_H

#include <jansson.h>

#include "catalog/catalog.h"

#define VM_RUN_FILE "run.json"

/* A VM that goes on from its state uses that file as its memory, so the next state goes to another
 * one: the two take turns. */
#define VM_STATE_FILES 2
extern const char *const vm_state_files[VM_STATE_FILES]; /* in the VM's folder */
/* The one that `name` (NULL: none of them) is not. */
const char *vm_state_other(const char *name);

enum vm_run { VM_STOPPED, VM_STARTING, VM_RUNNING, VM_PAUSED, VM_CRASHED, VM_SUSPENDED };
extern const char *const vm_run_words[]; /* "stopped" ... */

struct vm_status {
    enum vm_run run;
    int pid;                /* of the VMM, or of the last one; 0: it has never run */
    int64_t started, ended; /* seconds since 1970; 0: not known */
    char engine[16];        /* at the start */
    char reason[256];       /* how the last run ended */
    const char *state;      /* of one that is suspended: its file */
};

static inline bool vm_is_alive(const struct vm_status *s)
{
    return s->run == VM_STARTING || s->run == VM_RUNNING || s->run == VM_PAUSED;
}

/* Cannot fail: what cannot be read is not known. */
void vm_status_read(const struct vm *vm, struct vm_status *s);

/* The same, and what the state of a suspended VM rests on (saved.h); the caller's, may be NULL. */
json_t *vm_status_saved(const struct vm *vm, struct vm_status *s);

/* ---- for the VMM ---- */

struct vm_record {
    int fd;
    int64_t started, log; /* log: how long the VMM's log was then */
    char engine[16], boot[40];
    const char *from; /* the state that it is restored from, and what counts if it dies now; NULL */
    const char *next; /* where its own state would go */
    json_t *saved;    /* what `from` rests on; owned */
};
/* Writes that it starts; the descriptor stays open for the end. ERR_PERM, ERR_IO. */
int vm_record_begin(struct vm_record *r, int dir, const char *engine, const char *from,
                    struct error *e);
/* The guest runs: what it was restored from is past. */
void vm_record_ready(struct vm_record *r);
/* Tells those who watch the file that something has changed. */
void vm_record_touch(struct vm_record *r);
/* `outcome`: "off", "failed", or "suspended": its state is in r->from or else r->next, and rests on
 * `saved`, which is taken over; NULL: on what it rested on before. */
void vm_record_end(struct vm_record *r, const char *outcome, const char *reason, json_t *saved);

#endif
