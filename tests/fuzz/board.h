/*
 * board.h - the whole board `pc` with two vCPUs for the targets that need one.
 */
#ifndef SOSIA_TESTS_FUZZ_BOARD_H
#define SOSIA_TESTS_FUZZ_BOARD_H

#include "fuzz.h"
#include "machine/pc_board.h"

#define FUZZ_CPUS 2

struct fuzz_board {
    struct fuzz f;
    struct spec spec;
    struct pc *pc;
    bool repeatable; /* nothing of the host gets in: no random numbers, no calendar */
};

/* With an IDE and a virtio disk, a CD-ROM and a floppy; `all`: and disks on all other buses, and
 * repeatable. The
 * guest's ways to it are the windows of b->f, all BARs being programmed. */
void fuzz_board_begin(struct fuzz_board *b, const uint8_t *data, size_t size, bool all);
void fuzz_board_end(struct fuzz_board *b);

#endif
