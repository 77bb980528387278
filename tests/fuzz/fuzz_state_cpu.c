/* fuzz_state_cpu.c - translations on random code in a processor whose saved state was changed:
 * cpu.c. */
#include "cpu.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cpu_input(&engine_jit, true, data, size);
    return 0;
}
