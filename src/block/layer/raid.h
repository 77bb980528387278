/*
 * raid.h - a disk made of several: RAID 0 (striped) and RAID 1 (mirrored).
 *
 * What a member says about the array lies in its last RAID_META bytes (raid_super.h), so members
 * are known by what they hold, not by their order or names.
 */
#ifndef SOSIA_BLOCK_LAYER_RAID_H
#define SOSIA_BLOCK_LAYER_RAID_H

#include "block/layer/raid_super.h"

struct raid_member {
    const char *name;  /* for messages; copied */
    struct node *node; /* NULL: it cannot be had */
    const char *why;   /* of that */
    bool blank;        /* it reads as zeroes throughout and may become a member */
    const char *format;
};

#define RAID_ANY_LEVEL (~0u) /* what the members say */

struct raid_options {
    unsigned level;
    bool readonly;
    bool degraded;  /* do without members that may have newer contents than the others */
    ns_t sweep;     /* time after which regions count as the same on all members; 0: 5 s */
    bool no_pauses; /* rebuild as fast as possible, even while the disk is used */
};

/* Takes over all nodes when it succeeds. RAID 1: members that lack something are rebuilt from now
 * on. ERR_FORMAT: these are no members of one array, or too few; ERR_STATE: a member is missing
 * that `degraded` would do without; ERR_IO, ERR_NOMEM. */
int raid_open(const struct raid_member *m, unsigned n, const struct raid_options *o,
              struct node **out, struct error *e);

struct raid_create {
    unsigned level;
    uint32_t chunk;  /* RAID 0; 0: 64 KiB, or the greatest granularity of the members */
    uint64_t region; /* RAID 1: at least so many bytes in one; 0: 1 MiB, or that granularity */
};

/* Makes an array of nodes. RAID 1: the first one's contents are the array's; others that are not
 * `blank` will be rebuilt, too. Their last RAID_META bytes are overwritten. ERR_LIMIT: they are too
 * small or too many; ERR_IO. */
int raid_create(const struct raid_member *m, unsigned n, const struct raid_create *c,
                struct error *e);

/* How a member is at the moment; any thread. */
enum raid_state raid_member_state(struct node *raid, unsigned slot);
/* RAID 1: waits until nothing is left to be rebuilt, or can be. */
void raid_wait(struct node *raid);

#endif
