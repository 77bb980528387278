/* fuzz_lockstep.c - random code (cpu.c) by both engines, compared. */
#include "cpu.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cpu_input(&engine_lockstep, false, data, size);
    return 0;
}
