/*
 * vmm.h - one running VM, from spec to power-off.
 */
#ifndef SOSIA_VMM_VMM_H
#define SOSIA_VMM_VMM_H

#include "base/error.h"
#include "spec/spec.h"

#define VMM_WHY           64
#define VMM_WHY_SUSPENDED "suspended" /* the state is in vmm_service.state, durable */

enum vmm_change { VMM_READY, VMM_PAUSED, VMM_RESUMED };

/* A VM without a terminal: it is reached by its control socket, and what would be its terminal is a
 * console (char/console.h). */
struct vmm_service {
    int control;                  /* a listening unix socket; taken over */
    int console_log, console_old; /* files, opened for writing; the caller's */
    int events;                   /* a file that gets each event as a line; the caller's */
    int state;                    /* a file for the state of a suspended VM; the caller's */
    /* On the event loop's thread. */
    void (*changed)(void *arg, enum vmm_change what);
    void *arg;
};

struct vmm_options {
    int verbose;          /* how many -v: what is told on standard error beside warnings */
    const char *log_code; /* file for what the engine jit makes, or NULL */
    const char *state;    /* a saved state to go on from, or NULL */
    const char *save;     /* file for the state when the user asks for it (Ctrl-A z), or NULL */
    bool perf_map;        /* /tmp/perf-PID.map tells perf(1) where that is */
    const struct vmm_service *service; /* NULL: this process has a terminal */
    char *why; /* VMM_WHY bytes: how it ended, also without an error; or NULL */
};

/* Builds the machine that a checked spec describes and runs it in this process, with the terminal
 * as its serial port if the spec says so. Returns 0 when the guest powered off or the user left,
 * else ERR_*: ERR_HOST where this host cannot, anything else for a failure of the guest or of
 * Sosia. */
int vmm_run(const struct spec *s, const struct vmm_options *o, struct error *e);

#endif
