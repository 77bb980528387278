/*
 * random_state.c - the main() of fuzz_state.c for `make check`: COUNT guests that do anything at
 * all, whose boards' states must come back the same, or be refused where they were changed. Prints
 * TAP.
 *
 * Usage: random_state COUNT SEED. A failure is repeated by the same numbers; the last line that was
 * printed says which input it was.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "fuzz.h"

#define MAX 3000u

static uint64_t state;

/* xorshift64* */
static uint32_t next(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)(state * 0x2545f4914f6cdd1dull >> 32);
}

int main(int argc, char **argv)
{
    static uint8_t data[MAX];
    if (argc != 3) {
        fprintf(stderr, "usage: %s COUNT SEED\n", argv[0]);
        return 2;
    }
    unsigned count = (unsigned)atoi(argv[1]) * (getenv("SOSIA_TEST_LONG") ? 50 : 1);
    state = strtoull(argv[2], NULL, 0) | 1ull << 32;
    printf("1..1\n");
    for (unsigned n = 0; n < count; n++) {
        size_t size = 20 + next() % (MAX - 20);
        for (size_t k = 0; k < size; k++)
            data[k] = (uint8_t)next();
        bool changed = n % 2;
        uint16_t script = (uint16_t)(n % 3 ? size / 2 : size - 2);
        data[0] = (uint8_t)script;
        data[1] = (uint8_t)(script >> 8 | (changed ? 0x80 : 0));
        printf("# input %u\n", n);
        fflush(stdout);
        alarm(120);
        LLVMFuzzerTestOneInput(data, size);
    }
    printf("ok 1 - %u states of boards\n", count);
    return 0;
}
