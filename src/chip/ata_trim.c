/*
 * ata_trim.c - DATA SET MANAGEMENT with TRIM (ACS-3, 7.5 and 9.3): blocks of ranges from the guest,
 * each of 48 bits of address and 16 of length.
 *
 * All ranges are checked before the first is discarded; then one request follows the other. What
 * discarded sectors read as is not promised (IDENTIFY, word 69).
 */
#include "base/checked.h"
#include "base/endian.h"
#include "chip/ide_core.h"

#define RANGE_LEN 8u

struct range {
    uint64_t lba;
    uint32_t count; /* 0: unused */
};

static struct range range_at(const struct ide_channel *ch, uint32_t i)
{
    uint64_t raw = load_le64(ch->buf + i * RANGE_LEN);
    return (struct range){raw & 0xffffffffffff, (uint32_t)(raw >> 48)};
}

static void step(struct ide_channel *ch);

static void discarded(struct ide_channel *ch, int result)
{
    if (result < 0)
        ide_fail(ch, ER_ABRT);
    else
        step(ch);
}

/* A back end that completes at once comes back here; there are 512 ranges at most. */
static void step(struct ide_channel *ch)
{
    while (ch->trim_next < ch->trim_end) {
        struct range r = range_at(ch, ch->trim_next++);
        if (!r.count)
            continue;
        ide_io(ch, BLK_DISCARD, r.lba * IDE_SECTOR, (uint64_t)r.count * IDE_SECTOR, discarded);
        return;
    }
    ide_finish(ch);
}

void ata_trim_ranges(struct ide_channel *ch)
{
    const struct ide_drive *d = ch->active;
    uint64_t sectors = min_u64(d->sectors, d->blk->size / IDE_SECTOR);
    for (uint32_t i = 0; i < ch->trim_end; i++) {
        struct range r = range_at(ch, i);
        if (r.count && !range_within(r.lba, r.count, sectors)) {
            ide_fail(ch, ER_IDNF | ER_ABRT);
            return;
        }
    }
    step(ch);
}

void ata_trim(struct ide_channel *ch, uint32_t blocks)
{
    ch->trim_next = 0;
    ch->trim_end = blocks * IDE_SECTOR / RANGE_LEN;
    ch->xfer.block = IDE_SECTOR;
    ch->xfer.done = ata_trim_ranges;
    ide_xfer_take(ch, blocks * IDE_SECTOR);
}
