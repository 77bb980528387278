/* fuzz_jit.c - translator and translations on random code: cpu.c. */
#include "cpu.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cpu_input(&engine_jit, false, data, size);
    return 0;
}
