/*
 * raid_super.h - what a member of an array says about the array, in its last RAID_META bytes:
 *
 *   0      superblock, when its `events` is even
 *   4096   superblock, when it is odd: so the one before is there while one is written
 *   8192   bitmap (RAID 1), RAID_BITMAP bytes: a bit for each region in which members may differ
 *
 * All of it is untrusted like the rest of an image; numbers are little-endian.
 */
#ifndef SOSIA_BLOCK_LAYER_RAID_SUPER_H
#define SOSIA_BLOCK_LAYER_RAID_SUPER_H

#include "block/node.h"

#define RAID_MAX_MEMBERS 16
#define RAID_META        (16 * KIB)
#define RAID_BITMAP      512u /* one sector: never torn */
#define RAID_REGIONS     (RAID_BITMAP * 8)
#define RAID_MIN_CHUNK   (4 * KIB)
#define RAID_MAX_CHUNK   (64 * MIB)
#define RAID_UUID        16

enum raid_state {
    RAID_IN_SYNC,    /* has all that was ever acknowledged, but for regions in the bitmap */
    RAID_STALE,      /* was dropped, or was not there: it lacks writes */
    RAID_REBUILDING, /* has all before `rebuilt` */
};

struct raid_super {
    uint8_t uuid[RAID_UUID];
    unsigned level;  /* 0 or 1 */
    unsigned slots;  /* members, 1 to RAID_MAX_MEMBERS */
    unsigned slot;   /* which this one is */
    uint32_t chunk;  /* RAID 0: bytes, a power of two */
    unsigned shift;  /* RAID 1: log2 of a region's bytes */
    uint64_t size;   /* bytes of each member that hold data */
    uint64_t events; /* grows with each superblock that is written */
    char format[16]; /* of the member's image */
    struct {
        enum raid_state state;
        uint64_t rebuilt; /* bytes; REBUILDING */
    } member[RAID_MAX_MEMBERS];
};

/* Where a member of `size` bytes has its metadata; 0: it is too small to be one. */
static inline uint64_t raid_meta(uint64_t size)
{
    return size >= 2 * RAID_META ? (size & ~(uint64_t)4095) - RAID_META : 0;
}

/* Reads and checks the newer superblock. *found: there is one. -errno: it cannot be read. */
int raid_super_read(struct node *n, struct raid_super *s, bool *found);
/* Durable when it returns 0. */
int raid_super_write(struct node *n, const struct raid_super *s);
int raid_bitmap_read(struct node *n, uint8_t bits[RAID_BITMAP]);
int raid_bitmap_write(struct node *n, const uint8_t bits[RAID_BITMAP], bool durable);
/* "in sync", ... */
const char *raid_state_name(enum raid_state s);

#endif
