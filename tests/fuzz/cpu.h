/* cpu.h - random code in a random machine state, for each engine's fuzz target. */
#ifndef SOSIA_TESTS_FUZZ_CPU_H
#define SOSIA_TESTS_FUZZ_CPU_H

#include "engine/engine.h"

/* Carries an input out. The machine is built by the first call: a process has one engine. `saved`:
 * the state is saved first, changed as the input says (before the code: u8 how often, 0 to 7, each
 * u16 where, u8 exclusive-or), and loaded. */
void cpu_input(const struct engine *e, bool saved, const uint8_t *data, size_t size);

#endif
