/* log.h - what translations look like, for people. */
#ifndef SOSIA_ENGINE_JIT_LOG_H
#define SOSIA_ENGINE_JIT_LOG_H

#include <stdio.h>

#include "engine/jit/jit.h"

/* An instruction a line. */
void jit_print_guest(FILE *f, const struct x86_cpu *c, const struct jit_tb *tb);
void jit_print_host(FILE *f, const struct jit_tb *tb);

#endif
