/*
 * log.h - what translations look like, for people and for perf(1).
 *
 * One log for the process, whatever its vCPUs. Functions that write to it may be called by any
 * thread, but jit_log_start() before there are vCPUs, and jit_log_stop() when there are none.
 */
#ifndef SOSIA_ENGINE_JIT_LOG_H
#define SOSIA_ENGINE_JIT_LOG_H

#include <stdio.h>

#include "engine/jit/jit.h"

/* An instruction a line. `rip`: where the translation starts. */
void jit_print_guest(FILE *f, const struct x86_cpu *c, const struct jit_tb *tb, uint64_t rip);
void jit_print_host(FILE *f, const struct jit_tb *tb);

/* `path` (NULL: none) receives each translation as it is made, and at the end how often each was
 * entered. `perf`: /tmp/perf-PID.map tells where translations are. ERR_IO: a file cannot be
 * created. */
int jit_log_start(const char *path, bool perf, struct error *e);
void jit_log_stop(void);
bool jit_log_counts(void); /* are translations to count how often they are entered? */
bool jit_log_perf(void);

/* Tells of a new translation; of one that is about to be forgotten. */
void jit_log_made(struct x86_cpu *c, struct jit_tb *tb);
void jit_log_gone(const struct jit_tb *tb);

#endif
