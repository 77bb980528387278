/*
 * snap.h - a snapshot of a VM that goes on.
 *
 * A thread gets memory for a copy of the guest's. While all vCPUs are parked the machine's state is
 * copied, and each disk gets an empty overlay: so state and images are of one instant. Then the
 * guest goes on, and a thread writes the copy and makes the images below the overlays durable.
 * Whoever asks has made the files; the sandbox lets us open none. Before he asks, the overlays have
 * the disks' names: they read the same as long as they are empty, so at no instant the files are
 * without what the guest was told is durable.
 *
 *     none --vm_snap_ask--> preparing --room--> asked --all parked--> writing --written--> none
 */
#ifndef SOSIA_VMM_SNAP_H
#define SOSIA_VMM_SNAP_H

#include <pthread.h>
#include <uv.h>

#include "base/error.h"
#include "block/node.h"
#include "spec/spec.h"
#include "state/stream.h"

struct vm;

enum vm_snap_step { VM_SNAP_NONE, VM_SNAP_PREPARING, VM_SNAP_ASKED, VM_SNAP_WRITING };

/* The loop's thread's; while preparing and writing, all but `step` is the thread's. */
struct vm_snap {
    enum vm_snap_step step;
    int fd;                               /* for the state; -1: of the disks alone */
    struct node *overlay[SPEC_MAX_DISKS]; /* not in the disk's place yet; NULL: none */
    struct state_pool pool;
    struct state_saving *saving;
    pthread_t thread;
    uv_async_t stepped; /* the thread is done; in the loop from vm_loop_init() to vm_loop_fini() */
    void (*done)(void *arg, const struct vm_snap *s);
    void *arg;

    uint64_t asked, pause; /* ns: when; how long the guest stood still since */
    struct state_stats stats;
    int rc;
    struct error error;
};

struct vm_snap_files {
    int state;                /* an empty file; -1: nothing but the disks */
    int disk[SPEC_MAX_DISKS]; /* empty overlays, as large as the disks; -1: not that one */
};

/* Takes the files over in any case. `done` is called once, unless the VM ends before: rc, error,
 * stats and pause say how it went. ERR_BUSY: another one is not done; ERR_STATE, ERR_FORMAT ...:
 * what does not fit. */
int vm_snap_ask(struct vm *vm, const struct vm_snap_files *f,
                void (*done)(void *arg, const struct vm_snap *s), void *arg, struct error *e);
/* All vCPUs are parked. */
void vm_snap_parked(struct vm *vm);
int vm_snap_init(struct vm *vm); /* with the loop; as uv_async_init() */
/* The VM ends: waits for what is being written. */
void vm_snap_end(struct vm *vm);

#endif
