/*
 * raid1.c - RAID 1: the same on every member. See raid_int.h for the invariants.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "block/iov.h"
#include "block/layer/raid_int.h"

#define TOGETHER (64 * KIB) /* from so many bytes on a write is worth a change of threads */

int raid1_source(const struct raid *r, uint64_t first, uint64_t last, unsigned without)
{
    for (unsigned i = 0; i < r->n; i++) {
        const struct raid_slot *s = &r->slot[i];
        bool lacks = false;
        for (uint64_t k = first; s->ntodo && k <= last && !lacks; k++)
            lacks = bit_get(s->todo, k);
        if (s->state == RAID_IN_SYNC && !lacks && !(without >> i & 1))
            return (int)i;
    }
    return -1;
}

/* ---- reading ---- */

static int source_of(const struct raid *r, uint64_t offset, uint64_t len, unsigned without)
{
    return raid1_source(r, raid1_region(r, offset), raid1_region(r, offset + len - 1), without);
}

/* One region, whole or in part. Members that fail are dropped, the others asked. */
static int read_region(struct raid *r, const struct iovec *iov, int niov, uint64_t offset,
                       uint64_t len)
{
    int result[RAID_MAX_MEMBERS] = {0}, rc = -EIO;
    for (unsigned failed = 0;;) {
        pthread_mutex_lock(&r->lock);
        r->used++;
        if (failed && !r->node.readonly)
            raid1_drop(r, failed, result, "reading");
        int i = source_of(r, offset, len, failed);
        pthread_mutex_unlock(&r->lock);
        if (i < 0)
            return rc;
        rc = result[i] = node_readv(r->slot[i].node, iov, niov, offset);
        if (!rc)
            return 0;
        failed |= 1u << i;
    }
}

static int raid1_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct raid *r = raid_of(n);
    uint64_t total = 0, region = 1ull << r->super.shift;
    iov_total(iov, niov, &total);
    if (offset % region + total <= region)
        return read_region(r, iov, niov, offset, total);
    struct iovec *part = malloc((size_t)niov * sizeof *part);
    struct iov_cursor c = {iov, niov, 0};
    int rc = part ? 0 : -ENOMEM;
    while (!rc && total > 0) {
        uint64_t len = min_u64(total, region - offset % region);
        int k = iov_slice(&c, len, part, niov, &len);
        rc = read_region(r, part, k, offset, len);
        iov_advance(&c, (size_t)len);
        offset += len;
        total -= len;
    }
    free(part);
    return rc;
}

/* ---- writing ---- */

static bool overlaps_copy(const struct raid *r, const struct raid_range *g)
{
    return g->from < r->copy_to && r->copy_from < g->to;
}

static bool is_marked(const struct raid *r, uint64_t first, uint64_t last)
{
    for (uint64_t k = first; k <= last; k++)
        if (!bit_get(r->durable, k))
            return false;
    return true;
}

static void mark_recent(struct raid *r, const struct raid_range *g)
{
    for (uint64_t k = raid1_region(r, g->from); k <= raid1_region(r, g->to - 1); k++)
        bit_set(r->recent, k);
}

/* Waits until an operation may begin; `g`: what it changes, NULL: a flush. `lock` held. */
static int begin(struct raid *r, struct raid_range *g)
{
    r->used++;
    while (!r->broken) {
        if (raid1_unsaved(r) || (g && overlaps_copy(r, g))) {
            pthread_cond_wait(&r->changed, &r->lock);
            continue;
        }
        if (!g)
            return 0;
        uint64_t first = raid1_region(r, g->from), last = raid1_region(r, g->to - 1);
        if (is_marked(r, first, last)) {
            mark_recent(r, g);
            g->next = r->inflight;
            g->at = &r->inflight;
            if (g->next)
                g->next->at = &g->next;
            r->inflight = g;
            return 0;
        }
        int rc = raid1_mark(r, first, last);
        if (rc)
            return rc;
    }
    return r->broken;
}

static void end(struct raid *r, struct raid_range *g)
{
    mark_recent(r, g);
    *g->at = g->next;
    if (g->next)
        g->next->at = g->at;
    pthread_cond_broadcast(&r->changed);
}

/* An operation failed on members that could not be dropped: what is there is taken from one. */
static void disagree(struct raid *r, const struct raid_range *g)
{
    for (uint64_t k = raid1_region(r, g->from); k <= raid1_region(r, g->to - 1); k++) {
        int source = raid1_source(r, k, k, 0);
        for (unsigned i = 0; i < r->n; i++) {
            struct raid_slot *s = &r->slot[i];
            if (source < 0 || (int)i == source || s->state == RAID_STALE || bit_get(s->todo, k))
                continue;
            bit_set(s->todo, k);
            s->ntodo++;
        }
    }
    pthread_cond_broadcast(&r->changed);
}

/* What an operation of the members in `mask` has come to. `lock` held. */
static int settle(struct raid *r, unsigned mask, const int *result, const struct raid_range *g,
                  const char *doing)
{
    unsigned failed = 0;
    for (unsigned i = 0; i < r->n; i++)
        failed |= mask >> i & 1 && result[i] ? 1u << i : 0;
    if (!failed)
        return 0;
    int rc = raid1_drop(r, failed, result, doing);
    failed &= raid1_in_use(r);
    if (!failed)
        return rc;
    if (g)
        disagree(r, g);
    return result[__builtin_ctz(failed)];
}

/* Has all members in use do the same. `lock` held, and given up meanwhile. */
static unsigned do_all(struct raid *r, const struct raid_job *what, bool together, int *result)
{
    struct raid_job job[RAID_MAX_MEMBERS];
    unsigned mask = raid1_in_use(r), n = 0;
    for (unsigned i = 0; i < r->n; i++)
        if (mask >> i & 1) {
            job[n] = *what;
            job[n++].node = r->slot[i].node;
        }
    pthread_mutex_unlock(&r->lock);
    raid_do(&r->helpers, job, n, together || r->remote);
    pthread_mutex_lock(&r->lock);
    for (unsigned i = 0, k = 0; i < r->n; i++)
        if (mask >> i & 1)
            result[i] = job[k++].result;
    return mask;
}

static int change(struct raid *r, const struct raid_job *what, uint64_t len, const char *doing)
{
    int result[RAID_MAX_MEMBERS] = {0};
    struct raid_range g = {.from = what->offset, .to = what->offset + len};
    pthread_mutex_lock(&r->lock);
    int rc = begin(r, &g);
    if (!rc) {
        bool together = what->flags & NODE_FUA || len >= TOGETHER;
        unsigned mask = do_all(r, what, together, result);
        rc = settle(r, mask, result, &g, doing);
        end(r, &g);
    }
    pthread_mutex_unlock(&r->lock);
    return rc;
}

static int raid1_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                       unsigned flags)
{
    uint64_t len = 0;
    iov_total(iov, niov, &len);
    const struct raid_job what = {
        .op = RAID_WRITE, .iov = iov, .niov = niov, .offset = offset, .flags = flags};
    return change(raid_of(n), &what, len, "writing");
}

static int raid1_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    const struct raid_job what = {.op = RAID_ZERO, .offset = offset, .len = len, .flags = flags};
    return change(raid_of(n), &what, len, "writing zeroes");
}

/* Members are free to make different things of a discard; zeroes are the same on all. */
static int raid1_discard(struct node *n, uint64_t offset, uint64_t len)
{
    return raid1_zero(n, offset, len, NODE_MAY_UNMAP);
}

static int raid1_flush(struct node *n)
{
    struct raid *r = raid_of(n);
    int result[RAID_MAX_MEMBERS] = {0};
    const struct raid_job what = {.op = RAID_FLUSH};
    pthread_mutex_lock(&r->lock);
    int rc = begin(r, NULL);
    if (!rc) {
        unsigned mask = do_all(r, &what, true, result);
        rc = settle(r, mask, result, NULL, "a flush");
    }
    if (!rc)
        raid1_sweep(r, false);
    pthread_mutex_unlock(&r->lock);
    return rc;
}

/* ---- looking ---- */

static int raid1_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    struct raid *r = raid_of(n);
    len = min_u64(len, (1ull << r->super.shift) - offset % (1ull << r->super.shift));
    pthread_mutex_lock(&r->lock);
    int i = source_of(r, offset, len, 0);
    pthread_mutex_unlock(&r->lock);
    return i < 0 ? -EIO : node_map(r->slot[i].node, offset, len, out);
}

/* Reads only: every write concerns all members. A read that fails comes back by raid1_read(). */
static bool raid1_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                          struct node_place *out)
{
    struct raid *r = raid_of(n);
    len = min_u64(len, (1ull << r->super.shift) - offset % (1ull << r->super.shift));
    if (write || !r->exact)
        return false;
    pthread_mutex_lock(&r->lock);
    r->used++;
    int i = source_of(r, offset, len, 0);
    pthread_mutex_unlock(&r->lock);
    if (i < 0)
        return false;
    *out = (struct node_place){r->slot[i].node, offset, len};
    return true;
}

static void raid1_hurry(struct node *n, bool on)
{
    struct raid *r = raid_of(n);
    for (unsigned i = 0; i < r->n; i++)
        if (r->slot[i].node)
            node_hurry(r->slot[i].node, on);
}

static void raid1_close(struct node *n)
{
    struct raid *r = raid_of(n);
    raid1_stop_rebuilder(r);
    if (!n->readonly && !raid1_flush(n)) {
        pthread_mutex_lock(&r->lock);
        raid1_sweep(r, true);
        bool rebuilding = false;
        for (unsigned i = 0; i < r->n; i++)
            rebuilding |= r->slot[i].state == RAID_REBUILDING && r->slot[i].rebuilt > 0;
        if (rebuilding)
            raid1_save(r); /* goes on there the next time */
        pthread_mutex_unlock(&r->lock);
        raid1_flush(n);
    }
    raid_free(r);
}

const struct node_ops raid1_ops = {
    .name = "raid1",
    .read = raid1_read,
    .write = raid1_write,
    .flush = raid1_flush,
    .zero = raid1_zero,
    .discard = raid1_discard,
    .map = raid1_map,
    .resolve = raid1_resolve,
    .hurry = raid1_hurry,
    .close = raid1_close,
};

/* ---- the beginning ---- */

static void lack(struct raid_slot *s, uint64_t first, uint64_t regions, const uint8_t *only)
{
    for (uint64_t k = first; k < regions; k++)
        if ((!only || bit_get(only, k)) && !bit_get(s->todo, k)) {
            bit_set(s->todo, k);
            s->ntodo++;
        }
}

/* What the members in sync say may differ; what goes beyond the disk does not count. */
static int read_bitmaps(struct raid *r, uint64_t regions, struct error *e)
{
    uint8_t bits[RAID_BITMAP];
    for (unsigned i = 0; i < r->n; i++) {
        if (r->slot[i].state != RAID_IN_SYNC)
            continue;
        int rc = raid_bitmap_read(r->slot[i].node, bits);
        if (rc)
            return error_errno(e, ERR_IO, -rc, "%s: cannot be read", r->slot[i].name);
        for (uint64_t k = 0; k < regions; k++)
            if (bit_get(bits, k))
                bit_set(r->durable, k);
    }
    return 0;
}

int raid1_start(struct raid *r, struct error *e)
{
    uint64_t regions = raid1_region(r, r->super.size - 1) + 1;
    bool first = true;
    int rc = read_bitmaps(r, regions, e);
    for (unsigned i = 0; !rc && i < r->n; i++) {
        struct raid_slot *s = &r->slot[i];
        if (s->state == RAID_REBUILDING)
            lack(s, raid1_region(r, s->rebuilt), regions, NULL);
        if (s->state == RAID_REBUILDING || (s->state == RAID_IN_SYNC && !first))
            lack(s, 0, regions, r->durable);
        first = first && s->state != RAID_IN_SYNC;
    }
    if (rc || r->node.readonly)
        return rc;
    r->swept = raid_now();
    pthread_mutex_lock(&r->lock);
    rc = raid1_save(r);
    if (!rc)
        rc = raid1_write_bitmap(r);
    pthread_mutex_unlock(&r->lock);
    if (rc)
        return error_set(e, ERR_IO, "the array's state cannot be written to its members");
    rc = raid1_start_rebuilder(r);
    return rc ? error_errno(e, ERR_HOST, rc, "cannot start a thread") : 0;
}
