/*
 * raid_int.h - what the files of the arrays share.
 *
 * RAID 1
 *
 * Definitions. A member is *in use* if it is in sync or being rebuilt: every write goes to it. It
 * *lacks* a region if `todo` says so: what it has there may be old. The disk is divided into up to
 * RAID_REGIONS regions; those in the bitmap on the members may differ between members.
 *
 *      new, was stale            all of `todo` done, flushed            an operation fails
 *      --------------> REBUILDING -------------------------> IN SYNC -------------------> STALE
 *                          |                                                                ^
 *                          `----------------------------------------------------------------'
 *
 * Invariants:
 *  1. Nothing is acknowledged that a member in sync by the superblocks has not: before the first
 *     write or flush is acknowledged that left a member out, superblocks that call it stale are
 *     durable on all others in use (until then no operation begins: raid1_unsaved()). So the
 * superblock with the most events tells who is in sync, whatever happens.
 *  2. Before a region is written, its bit in the bitmap is durable on all members in use
 *     (`durable`). It is cleared when all writes to it are done and flushed on all of them, and no
 *     member lacks it. So after a crash, what may differ between members in sync is known, and
 *     read from one of them only, until it has been copied to the others.
 *  3. Reads come from the first member that is in sync and does not lack the region. The last one
 *     in sync is never dropped: its errors are the disk's.
 *  4. While a chunk is copied (`copy_from` to `copy_to`) no write to it is in flight, so neither
 *     overtakes the other; outside, members being rebuilt get all writes.
 *  5. A member becomes in sync after a flush of it that followed the last copy.
 *
 * `lock` owns everything but the nodes; no I/O is done with it held. `meta_busy` is whose turn it
 * is to write metadata; who has it waits for nothing but I/O.
 */
#ifndef SOSIA_BLOCK_LAYER_RAID_INT_H
#define SOSIA_BLOCK_LAYER_RAID_INT_H

#include "block/layer/raid.h"
#include "block/layer/raid_jobs.h"

struct raid_slot {
    struct node *node; /* NULL: missing */
    char *name;
    char format[16]; /* as in the superblock */
    enum raid_state state;
    uint64_t rebuilt; /* as in the superblock */
    uint8_t todo[RAID_BITMAP];
    unsigned ntodo;
};

struct raid_range { /* of a write in flight; on its thread's stack */
    uint64_t from, to;
    struct raid_range *next, **at;
};

struct raid {
    struct node node;
    struct raid_super super; /* but for `slot`, and the states, which are below */
    unsigned n;
    struct raid_slot slot[RAID_MAX_MEMBERS];
    struct raid_helpers helpers;
    bool remote; /* a member is, so that every operation waits long */

    bool exact; /* no member moves what lies in two places of the array: the fast way is possible */

    /* RAID 1 */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct raid_range *inflight;
    uint64_t copy_from, copy_to;
    bool meta_busy;
    unsigned states, saved;       /* changes of states so far; of those in the superblocks */
    int broken;                   /* superblocks cannot be written: nor can anything else */
    uint8_t durable[RAID_BITMAP]; /* the bitmap on the members */
    uint8_t recent[RAID_BITMAP];  /* written since the last sweep */
    ns_t sweep, swept;
    unsigned used; /* operations so far: whether the disk is used */
    bool no_pauses, rebuilding, closing;
    pthread_t rebuilder;
};

static inline struct raid *raid_of(struct node *n)
{
    return CONTAINER_OF(n, struct raid, node);
}

static inline bool bit_get(const uint8_t *bits, uint64_t i)
{
    return bits[i / 8] >> i % 8 & 1;
}

static inline void bit_set(uint8_t *bits, uint64_t i)
{
    bits[i / 8] |= (uint8_t)(1u << i % 8);
}

static inline void bit_clear(uint8_t *bits, uint64_t i)
{
    bits[i / 8] &= (uint8_t) ~(1u << i % 8);
}

/* raid0.c, raid1.c: of a raid whose members are known; they start what has to run. */
static inline bool raid1_unsaved(const struct raid *r)
{
    return r->states != r->saved;
}

/* The first region of a byte. */
static inline uint64_t raid1_region(const struct raid *r, uint64_t at)
{
    return at >> r->super.shift;
}

extern const struct node_ops raid0_ops, raid1_ops;
int raid1_start(struct raid *r, struct error *e);
void raid_free(struct raid *r); /* with its nodes */

/* raid1_meta.c. All with `lock` held, which they may give up meanwhile. */
/* Members in use, as bits. */
unsigned raid1_in_use(const struct raid *r);
/* Operations of the members in `failed` (bits) failed: they are dropped, but those in sync only if
 * the others have everything. 0, or -EIO: it cannot be recorded. */
int raid1_drop(struct raid *r, unsigned failed, const int *result, const char *doing);
/* Records the present states. */
int raid1_save(struct raid *r);
/* Writes the bitmap as it is to all members in use. */
int raid1_write_bitmap(struct raid *r);
/* Makes the bits of these regions durable. */
int raid1_mark(struct raid *r, uint64_t first, uint64_t last);
/* After a flush of all members: forgets regions that are the same everywhere. `all`: those that
 * were written lately, too, since nothing is in flight any more. */
void raid1_sweep(struct raid *r, bool all);

/* raid1.c: the first member in sync that lacks none of these regions, `without` these (bits); -1:
 * there is none. `lock` held. */
int raid1_source(const struct raid *r, uint64_t first, uint64_t last, unsigned without);

/* raid1_rebuild.c */
int raid1_start_rebuilder(struct raid *r);
void raid1_stop_rebuilder(struct raid *r);

ns_t raid_now(void);

#endif
