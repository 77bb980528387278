/*
 * vmm.h - one running VM, from spec to power-off.
 */
#ifndef SOSIA_VMM_VMM_H
#define SOSIA_VMM_VMM_H

#include "base/error.h"
#include "spec/spec.h"

struct vmm_options {
    int verbose;          /* how many -v: what is told on standard error beside warnings */
    const char *log_code; /* file for what the engine jit makes, or NULL */
    const char *state;    /* a saved state to go on from, or NULL */
    const char *save;     /* file for the state when the user asks for it (Ctrl-A z), or NULL */
    bool perf_map;        /* /tmp/perf-PID.map tells perf(1) where that is */
};

/* Builds the machine that a checked spec describes and runs it in this process, with the terminal
 * as its serial port if the spec says so. Returns 0 when the guest powered off or the user left,
 * else ERR_*: ERR_HOST where this host cannot, anything else for a failure of the guest or of
 * Sosia. */
int vmm_run(const struct spec *s, const struct vmm_options *o, struct error *e);

#endif
