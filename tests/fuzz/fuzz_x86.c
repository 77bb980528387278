/* fuzz_x86.c - decoder and interpreter on random code: cpu.c. */
#include "cpu.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cpu_input(&engine_interp, false, data, size);
    return 0;
}
