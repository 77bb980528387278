/*
 * raid1_meta.c - RAID 1: who is in sync, and what may differ, in memory and on the members. See
 * raid_int.h for the invariants.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "block/layer/raid_int.h"

ns_t raid_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (ns_t)ts.tv_sec * NS_PER_SEC + (ns_t)ts.tv_nsec;
}

unsigned raid1_in_use(const struct raid *r)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < r->n; i++)
        if (r->slot[i].state != RAID_STALE)
            mask |= 1u << i;
    return mask;
}

static unsigned in_sync(const struct raid *r)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < r->n; i++)
        if (r->slot[i].state == RAID_IN_SYNC)
            mask |= 1u << i;
    return mask;
}

/* Whether each region has a member in sync, of those in `mask`, that does not lack it. */
static bool complete(const struct raid *r, unsigned mask)
{
    uint8_t lacking[RAID_BITMAP];
    memset(lacking, 0xff, sizeof lacking);
    for (unsigned i = 0; i < r->n; i++)
        for (unsigned k = 0; k < RAID_BITMAP && mask >> i & 1; k++)
            lacking[k] &= r->slot[i].todo[k];
    for (unsigned k = 0; k < RAID_BITMAP; k++)
        if (lacking[k])
            return false;
    return true;
}

static void forsake(struct raid *r, unsigned failed, const int *result, const char *doing)
{
    for (unsigned i = 0; i < r->n; i++) {
        struct raid_slot *s = &r->slot[i];
        if (!(failed >> i & 1) || s->state == RAID_STALE)
            continue;
        s->state = RAID_STALE;
        s->rebuilt = 0;
        s->ntodo = 0;
        memset(s->todo, 0, sizeof s->todo);
        r->states++;
        log_error("disk array: member %u (%s) fails at %s: %s; it is dropped, and the disk goes on "
                  "with %d of %u members. Once it works again, or an empty image is in its place, "
                  "it is rebuilt at the next start",
                  i, s->name, doing, strerror(-result[i]), __builtin_popcount(raid1_in_use(r)),
                  r->n);
    }
}

static void begin_meta(struct raid *r)
{
    while (r->meta_busy)
        pthread_cond_wait(&r->changed, &r->lock);
    r->meta_busy = true;
}

static void end_meta(struct raid *r)
{
    r->meta_busy = false;
    pthread_cond_broadcast(&r->changed);
}

/* One round of superblocks; returns the members that failed. */
static unsigned write_supers(struct raid *r, unsigned mask, int *result)
{
    struct raid_super s = r->super;
    unsigned failed = 0;
    for (unsigned i = 0; i < r->n; i++) {
        s.member[i].state = r->slot[i].state;
        s.member[i].rebuilt = r->slot[i].state == RAID_REBUILDING ? r->slot[i].rebuilt : 0;
    }
    s.events = ++r->super.events;
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < r->n; i++) {
        s.slot = i;
        memcpy(s.format, r->slot[i].format, sizeof s.format);
        result[i] = mask >> i & 1 ? raid_super_write(r->slot[i].node, &s) : 0;
        failed |= result[i] ? 1u << i : 0;
    }
    pthread_mutex_lock(&r->lock);
    return failed;
}

/* With `meta_busy` ours. Goes on until all members that are left have it. */
static int save(struct raid *r)
{
    while (!r->broken) {
        int result[RAID_MAX_MEMBERS];
        unsigned states = r->states, mask = raid1_in_use(r);
        unsigned failed = write_supers(r, mask, result);
        if (!failed) {
            r->saved = states;
            if (!raid1_unsaved(r))
                return 0;
        } else if (!complete(r, in_sync(r) & ~failed)) {
            r->broken = -EIO;
            log_error("disk array: its state cannot be written to any complete member; every "
                      "write will fail");
        } else {
            forsake(r, failed, result, "a superblock");
        }
    }
    return r->broken;
}

int raid1_save(struct raid *r)
{
    begin_meta(r);
    int rc = save(r);
    end_meta(r);
    return rc;
}

int raid1_drop(struct raid *r, unsigned failed, const int *result, const char *doing)
{
    if (!complete(r, in_sync(r) & ~failed))
        failed &= ~in_sync(r);
    forsake(r, failed, result, doing);
    return raid1_unsaved(r) ? raid1_save(r) : r->broken;
}

/* With `meta_busy` ours. */
static int write_bitmap(struct raid *r, const uint8_t bits[RAID_BITMAP], bool durable)
{
    int result[RAID_MAX_MEMBERS] = {0};
    unsigned mask = raid1_in_use(r), failed = 0;
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < r->n; i++) {
        result[i] = mask >> i & 1 ? raid_bitmap_write(r->slot[i].node, bits, durable) : 0;
        failed |= result[i] ? 1u << i : 0;
    }
    pthread_mutex_lock(&r->lock);
    if (!failed)
        return 0;
    if (!complete(r, in_sync(r) & ~failed))
        return -EIO; /* nothing begins that needs it */
    forsake(r, failed, result, "the bitmap");
    return save(r);
}

int raid1_write_bitmap(struct raid *r)
{
    begin_meta(r);
    int rc = write_bitmap(r, r->durable, false);
    end_meta(r);
    return rc;
}

int raid1_mark(struct raid *r, uint64_t first, uint64_t last)
{
    uint8_t bits[RAID_BITMAP];
    begin_meta(r);
    memcpy(bits, r->durable, sizeof bits);
    for (uint64_t i = first; i <= last; i++)
        bit_set(bits, i);
    int rc = write_bitmap(r, bits, true);
    if (!rc)
        memcpy(r->durable, bits, sizeof bits);
    end_meta(r);
    return rc;
}

void raid1_sweep(struct raid *r, bool all)
{
    uint8_t keep[RAID_BITMAP] = {0};
    ns_t now = raid_now();
    if (r->meta_busy || raid1_unsaved(r) || r->broken || (!all && now - r->swept < r->sweep))
        return;
    begin_meta(r);
    if (!all)
        memcpy(keep, r->recent, sizeof keep);
    for (struct raid_range *i = r->inflight; i; i = i->next)
        for (uint64_t k = raid1_region(r, i->from); k <= raid1_region(r, i->to - 1); k++)
            bit_set(keep, k);
    bool news = false;
    for (unsigned k = 0; k < RAID_BITMAP; k++) {
        for (unsigned i = 0; i < r->n; i++)
            keep[k] |= r->slot[i].todo[k];
        keep[k] &= r->durable[k];
        news |= keep[k] != r->durable[k];
    }
    r->swept = now;
    memset(r->recent, 0, sizeof r->recent);
    /* From here on a write to a region that is left out has to mark it anew, after us. */
    if (news) {
        memcpy(r->durable, keep, sizeof keep);
        write_bitmap(r, keep, false);
    }
    end_meta(r);
}
