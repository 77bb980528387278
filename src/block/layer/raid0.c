/*
 * raid0.c - RAID 0: chunks in turn on each member.
 *
 * A run of the array's bytes is one run on each member, so an operation is at most one for each.
 */
#include <errno.h>
#include <stdlib.h>

#include "block/iov.h"
#include "block/layer/raid_int.h"

#define TOGETHER (64 * KIB) /* from so many bytes on a transfer is worth a change of threads */

/* How many of the array's first `at` bytes are on a member. */
static uint64_t before(const struct raid *r, unsigned member, uint64_t at)
{
    uint64_t chunk = r->super.chunk, row = chunk * r->n, in = at % row;
    uint64_t own = in > member * chunk ? min_u64(in - member * chunk, chunk) : 0;
    return at / row * chunk + own;
}

static unsigned member_at(const struct raid *r, uint64_t at)
{
    return (unsigned)(at / r->super.chunk % r->n);
}

static uint64_t left_in_chunk(const struct raid *r, uint64_t at)
{
    return r->super.chunk - at % r->super.chunk;
}

/* One job for each member that has a part of the bytes. */
static unsigned split(struct raid *r, const struct raid_job *what, uint64_t len,
                      struct raid_job *job)
{
    unsigned n = 0;
    for (unsigned i = 0; i < r->n; i++) {
        uint64_t from = before(r, i, what->offset), to = before(r, i, what->offset + len);
        if (from == to)
            continue;
        job[n] = *what;
        job[n].node = r->slot[i].node;
        job[n].offset = from;
        job[n++].len = to - from;
    }
    return n;
}

static int run(struct raid *r, struct raid_job *job, unsigned n, bool together)
{
    raid_do(&r->helpers, job, n, together || r->remote);
    for (unsigned i = 0; i < n; i++)
        if (job[i].result)
            return job[i].result;
    return 0;
}

/* The segments of a transfer, those of each member together. Allocated; NULL: no memory. */
static struct iovec *deal(struct raid *r, const struct raid_job *what, uint64_t len,
                          struct raid_job *job, unsigned n)
{
    uint64_t chunks = len / r->super.chunk + 2; /* each end of one makes a segment more */
    uint64_t max = chunks + (uint64_t)what->niov;
    struct iovec *all = calloc(max, sizeof *all), *next = all;
    for (unsigned i = 0; all && i < n; i++) {
        struct iov_cursor c = {what->iov, what->niov, 0};
        job[i].iov = next;
        job[i].niov = 0;
        for (uint64_t done = 0, part; done < len; done += part) {
            uint64_t at = what->offset + done, got = 0;
            part = min_u64(len - done, left_in_chunk(r, at));
            if (r->slot[member_at(r, at)].node == job[i].node) {
                int k = iov_slice(&c, part, next, (int)(all + max - next), &got);
                next += k;
                job[i].niov += k;
            }
            iov_advance(&c, (size_t)part);
        }
    }
    return all;
}

static int transfer(struct raid *r, const struct raid_job *what)
{
    struct raid_job job[RAID_MAX_MEMBERS];
    uint64_t len = 0;
    iov_total(what->iov, what->niov, &len);
    unsigned n = split(r, what, len, job);
    struct iovec *iov = n > 1 ? deal(r, what, len, job, n) : NULL;
    if (n > 1 && !iov)
        return -ENOMEM;
    int rc = run(r, job, n, len >= TOGETHER || what->flags & NODE_FUA);
    free(iov);
    return rc;
}

static int raid0_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    const struct raid_job what = {.op = RAID_READ, .iov = iov, .niov = niov, .offset = offset};
    return transfer(raid_of(n), &what);
}

static int raid0_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                       unsigned flags)
{
    const struct raid_job what = {
        .op = RAID_WRITE, .iov = iov, .niov = niov, .offset = offset, .flags = flags};
    return transfer(raid_of(n), &what);
}

static int raid0_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct raid *r = raid_of(n);
    struct raid_job job[RAID_MAX_MEMBERS];
    const struct raid_job what = {.op = RAID_ZERO, .offset = offset, .flags = flags};
    return run(r, job, split(r, &what, len, job), true);
}

static int raid0_discard(struct node *n, uint64_t offset, uint64_t len)
{
    struct raid *r = raid_of(n);
    struct raid_job job[RAID_MAX_MEMBERS];
    const struct raid_job what = {.op = RAID_DISCARD, .offset = offset};
    return run(r, job, split(r, &what, len, job), true);
}

static int raid0_flush(struct node *n)
{
    struct raid *r = raid_of(n);
    struct raid_job job[RAID_MAX_MEMBERS];
    for (unsigned i = 0; i < r->n; i++)
        job[i] = (struct raid_job){.node = r->slot[i].node, .op = RAID_FLUSH};
    return run(r, job, r->n, true);
}

/* Where a byte is: *len is cut to what lies together. */
static struct node *locate(struct raid *r, uint64_t offset, uint64_t *at, uint64_t *len)
{
    unsigned i = member_at(r, offset);
    *at = before(r, i, offset);
    *len = min_u64(*len, left_in_chunk(r, offset));
    return r->slot[i].node;
}

static int raid0_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    uint64_t at;
    struct node *member = locate(raid_of(n), offset, &at, &len);
    return node_map(member, at, len, out);
}

static bool raid0_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                          struct node_place *out)
{
    struct raid *r = raid_of(n);
    uint64_t at;
    struct node *member = locate(r, offset, &at, &len);
    *out = (struct node_place){member, at, len};
    return r->exact;
}

static void raid0_hurry(struct node *n, bool on)
{
    struct raid *r = raid_of(n);
    for (unsigned i = 0; i < r->n; i++)
        node_hurry(r->slot[i].node, on);
}

static void raid0_close(struct node *n)
{
    if (!n->readonly)
        raid0_flush(n);
    raid_free(raid_of(n));
}

const struct node_ops raid0_ops = {
    .name = "raid0",
    .read = raid0_read,
    .write = raid0_write,
    .flush = raid0_flush,
    .zero = raid0_zero,
    .discard = raid0_discard,
    .map = raid0_map,
    .resolve = raid0_resolve,
    .hurry = raid0_hurry,
    .close = raid0_close,
};
