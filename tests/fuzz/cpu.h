/* cpu.h - random code in a random machine state, for each engine's fuzz target. */
#ifndef SOSIA_TESTS_FUZZ_CPU_H
#define SOSIA_TESTS_FUZZ_CPU_H

#include "engine/engine.h"

/* Carries an input out. The machine is built by the first call: a process has one engine. */
void cpu_input(const struct engine *e, const uint8_t *data, size_t size);

#endif
