/*
 * fuzz_board.c - the whole board `pc` with two vCPUs, two disks and a CD-ROM, or (the last byte is
 * odd) a disk on every bus: accesses to any port and address, in any order, as wired.
 */
#include "board.h"

static struct fuzz_board b;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_board_begin(&b, data, size, size > 0 && data[size - 1] & 1);
    fuzz_run(&b.f);
    fuzz_board_end(&b);
    return 0;
}
