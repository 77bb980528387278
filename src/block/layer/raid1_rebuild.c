/*
 * raid1_rebuild.c - RAID 1: a thread that copies to members what they lack, region by region, while
 * the disk is used. See raid_int.h for the invariants.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/thread.h"
#include "block/layer/raid_int.h"

#define THREAD_STACK (512 * KIB)
#define CHUNK        (1 * MIB) /* copied at once: writes to it wait meanwhile */
#define SAVES        64        /* times that progress is recorded */

/* The next region that somebody lacks, from `from` on, else from the beginning; -1: none. `lock`
 * held, as everywhere here unless said otherwise. */
static int64_t next_region(const struct raid *r, uint64_t from)
{
    uint64_t regions = raid1_region(r, r->super.size - 1) + 1;
    for (uint64_t k = 0; k < regions; k++)
        for (unsigned i = 0; i < r->n; i++)
            if (r->slot[i].ntodo && bit_get(r->slot[i].todo, (from + k) % regions))
                return (int64_t)((from + k) % regions);
    return -1;
}

static unsigned lacking(const struct raid *r, uint64_t region)
{
    unsigned mask = 0;
    for (unsigned i = 0; i < r->n; i++)
        if (r->slot[i].state != RAID_STALE && bit_get(r->slot[i].todo, region))
            mask |= 1u << i;
    return mask;
}

static bool is_used(const struct raid *r, uint64_t from, uint64_t to)
{
    for (const struct raid_range *i = r->inflight; i; i = i->next)
        if (i->from < to && from < i->to)
            return true;
    return false;
}

/* What is nothing but zeroes in the source takes no space in the copy. Without `lock`. */
static int copy_extent(struct raid *r, struct node *source, unsigned targets, uint8_t *buf,
                       uint64_t at, uint64_t *len, int *result)
{
    struct node_extent x, there;
    int rc = node_map(source, at, *len, &x);
    if (rc)
        return rc;
    *len = x.len;
    if (x.kind == NODE_DATA && (rc = node_read(source, buf, x.len, at)))
        return rc;
    for (unsigned i = 0; i < r->n; i++) {
        struct node *n = r->slot[i].node;
        if (!(targets >> i & 1) || result[i])
            continue;
        if (x.kind == NODE_DATA)
            result[i] = node_write(n, buf, x.len, at, 0);
        else if (node_map(n, at, x.len, &there) || there.kind == NODE_DATA || there.len < x.len)
            result[i] = node_zero(n, at, x.len, NODE_MAY_UNMAP);
    }
    return 0;
}

/* Copies a chunk while nobody writes to it. Returns the source's result. */
static int copy_chunk(struct raid *r, int source, unsigned targets, uint8_t *buf, uint64_t from,
                      uint64_t to, int *result)
{
    int rc = 0;
    r->copy_from = from;
    r->copy_to = to;
    while (is_used(r, from, to))
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
    for (uint64_t at = from, len; !rc && at < to; at += len) {
        len = to - at;
        rc = copy_extent(r, r->slot[source].node, targets, buf, at, &len, result);
    }
    pthread_mutex_lock(&r->lock);
    r->copy_from = r->copy_to = 0;
    pthread_cond_broadcast(&r->changed);
    return rc;
}

/* Leaves the disk to others for a while. */
static void pause_for(struct raid *r, ns_t took)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t ns = (uint64_t)until.tv_nsec + min_u64((uint64_t)took, NS_PER_SEC / 2);
    until.tv_sec += (time_t)(ns / NS_PER_SEC);
    until.tv_nsec = (long)(ns % NS_PER_SEC);
    while (!r->closing &&
           pthread_cond_clockwait(&r->changed, &r->lock, CLOCK_MONOTONIC, &until) != ETIMEDOUT)
        continue;
}

/* The members that are not to be rebuilt any more, since there is nothing to read from. */
static void give_up(struct raid *r, unsigned targets, int rc)
{
    int result[RAID_MAX_MEMBERS];
    for (unsigned i = 0; i < r->n; i++)
        result[i] = rc;
    raid1_drop(r, targets, result, "rebuilding (from the only complete member)");
}

static void copy_region(struct raid *r, uint64_t region, uint8_t *buf)
{
    uint64_t begin = region << r->super.shift;
    uint64_t end = min_u64((region + 1) << r->super.shift, r->super.size);
    unsigned targets = lacking(r, region);
    for (uint64_t at = begin; at < end && !r->closing && targets;) {
        int result[RAID_MAX_MEMBERS] = {0};
        int source = raid1_source(r, region, region, 0);
        uint64_t to = min_u64(end, at + CHUNK);
        unsigned used = r->used, failed = 0;
        if (source < 0) {
            give_up(r, targets, -EIO);
            return;
        }
        ns_t start = raid_now();
        result[source] = copy_chunk(r, source, targets, buf, at, to, result);
        for (unsigned i = 0; i < r->n; i++)
            failed |= result[i] ? 1u << i : 0;
        if (failed)
            raid1_drop(r, failed, result, "rebuilding");
        if (result[source] && r->slot[source].state != RAID_STALE) {
            give_up(r, targets, result[source]);
            return;
        }
        if (failed & targets & raid1_in_use(r)) /* the only one that has other parts */
            pause_for(r, NS_PER_SEC / 2);
        else if (r->used != used && !r->no_pauses)
            pause_for(r, raid_now() - start);
        targets &= lacking(r, region);
        at = failed ? at : to;
    }
    if (r->closing)
        return;
    for (unsigned i = 0; i < r->n; i++)
        if (targets >> i & 1 && bit_get(r->slot[i].todo, region)) {
            bit_clear(r->slot[i].todo, region);
            bit_set(r->recent, region); /* the copy is not flushed yet */
            r->slot[i].ntodo--;
        }
}

/* Flushes the members that have come far enough, and records it: `all` done, or a part. */
static void record(struct raid *r, uint64_t done, bool all)
{
    int result[RAID_MAX_MEMBERS] = {0};
    unsigned mask = 0, failed = 0;
    for (unsigned i = 0; i < r->n; i++)
        if (r->slot[i].state == RAID_REBUILDING && (!all || !r->slot[i].ntodo))
            mask |= 1u << i;
    if (!mask)
        return;
    pthread_mutex_unlock(&r->lock);
    for (unsigned i = 0; i < r->n; i++) {
        result[i] = mask >> i & 1 ? node_flush(r->slot[i].node) : 0;
        failed |= result[i] ? 1u << i : 0;
    }
    pthread_mutex_lock(&r->lock);
    if (failed)
        raid1_drop(r, failed, result, "a flush");
    for (unsigned i = 0; i < r->n; i++) {
        struct raid_slot *s = &r->slot[i];
        if (!(mask >> i & 1) || s->state != RAID_REBUILDING)
            continue;
        s->rebuilt = max_u64(s->rebuilt, done);
        if (all && !s->ntodo) {
            s->state = RAID_IN_SYNC;
            log_info("disk array: member %u (%s) is in sync", i, s->name);
        }
        r->states++;
    }
    if (raid1_unsaved(r))
        raid1_save(r);
}

static void *rebuild(void *arg)
{
    struct raid *r = arg;
    uint8_t *buf = malloc(CHUNK);
    uint64_t step = max_u64(r->super.size / SAVES, 1ull << r->super.shift), recorded = 0, at = 0;
    pthread_mutex_lock(&r->lock);
    while (!r->closing) {
        int64_t region = buf ? next_region(r, at) : -1;
        if (region >= 0) {
            at = (uint64_t)region;
            copy_region(r, at, buf);
            at++;
            uint64_t done = min_u64(at << r->super.shift, r->super.size);
            /* Regions are done in order, so all before this one are. */
            if (next_region(r, 0) >= (int64_t)at && done >= recorded + step) {
                record(r, done, false);
                recorded = done;
            }
            continue;
        }
        record(r, 0, true);
        if (next_region(r, 0) >= 0)
            continue;
        r->rebuilding = false;
        pthread_cond_broadcast(&r->changed);
        while (!r->closing && next_region(r, 0) < 0)
            pthread_cond_wait(&r->changed, &r->lock);
        r->rebuilding = true;
    }
    r->rebuilding = false;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    free(buf);
    return NULL;
}

int raid1_start_rebuilder(struct raid *r)
{
    const struct thread_options o = {.name = "disk rebuild", .stack = THREAD_STACK};
    r->rebuilding = true;
    int err = thread_start(&r->rebuilder, &o, rebuild, r);
    if (err)
        r->rebuilding = false;
    return err;
}

void raid1_stop_rebuilder(struct raid *r)
{
    if (r->node.readonly)
        return;
    pthread_mutex_lock(&r->lock);
    r->closing = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->rebuilder, NULL);
}

void raid_wait(struct node *n)
{
    struct raid *r = raid_of(n);
    pthread_mutex_lock(&r->lock);
    while (r->rebuilding || (!r->node.readonly && next_region(r, 0) >= 0))
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
}
