/*
 * i8237.h - the PC's pair of 8237A DMA controllers and their page registers.
 *
 * Sources: Intel 8237A data sheet (231466-005); Intel 82371SB (PIIX3), section 2.5.1. Channels 0-3
 * move bytes, 5-7 words; 4 is the cascade. Page register 0 (port 0x80) is left to the POST latch.
 */
#ifndef SOSIA_CHIP_I8237_H
#define SOSIA_CHIP_I8237_H

#include "chip/chip.h"
#include "mem/space.h"

struct i8237_channel {
    uint16_t base_addr, base_count; /* as programmed */
    uint16_t addr, count;           /* current; count is one less than what is left */
    uint8_t mode;
};

struct i8237_one {
    struct i8237_channel channel[4];
    uint8_t command, mask, request, terminal; /* the last three: a bit for each channel */
    bool high_byte;                           /* the byte pointer flip-flop */
};

struct i8237 {
    struct i8237_one one[2];
    uint8_t page[16]; /* ports 0x80-0x8f */
    struct space *mem;
};

extern const struct chip_desc i8237_desc;

void i8237_init(struct i8237 *d, struct space *mem);

/*
 * A device on `channel` (0..7) has `len` bytes for memory (to_memory) or wants them from there.
 * Returns how many the controller moved: less than `len` if its count ran out, 0 if the channel is
 * masked, disabled or programmed for the other direction. A channel in verify mode counts, but
 * moves nothing. *tc: terminal count was reached.
 */
size_t i8237_transfer(struct i8237 *d, unsigned channel, void *buf, size_t len, bool to_memory,
                      bool *tc);

#endif
