/*
 * raid.c - which nodes are an array, who of them is in sync, and making one. See raid_int.h.
 *
 * A slot is a member's place in the array. What the newest superblock says holds: the others are of
 * members that were left out since, or of writes of superblocks that were cut short.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/log.h"
#include "block/layer/raid_int.h"

#define CHUNK      (64 * KIB)
#define MIN_REGION (1 * MIB)
#define SWEEP      (5 * (ns_t)NS_PER_SEC)

/* The members as they are given, and what was found. */
struct found {
    const struct raid_member *m;
    unsigned n;
    const struct raid_options *o;
    const char *why[RAID_MAX_MEMBERS]; /* it cannot be used; NULL: it can */
    bool is_member[RAID_MAX_MEMBERS];  /* has a superblock */
    struct raid_super super[RAID_MAX_MEMBERS];
    const struct raid_super *newest;
    unsigned level;
    int at[RAID_MAX_MEMBERS]; /* by slot: position in `m`; -1: none */
};

void raid_free(struct raid *r)
{
    raid_helpers_fini(&r->helpers);
    for (unsigned i = 0; i < r->n; i++) {
        node_close(r->slot[i].node);
        free(r->slot[i].name);
    }
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

/* ---- which members ---- */

static int read_supers(struct found *f, struct error *e)
{
    for (unsigned i = 0; i < f->n; i++) {
        const struct raid_member *m = &f->m[i];
        int rc = m->node ? raid_super_read(m->node, &f->super[i], &f->is_member[i]) : 0;
        f->why[i] = m->node ? NULL : m->why;
        if (rc) {
            f->is_member[i] = false;
            f->why[i] = strerrordesc_np(-rc);
        }
        if (f->is_member[i] && (!f->newest || f->super[i].events > f->newest->events))
            f->newest = &f->super[i];
    }
    if (!f->newest)
        return error_set(e, ERR_FORMAT,
                         "%s is not a member of an array, nor are the others; make them one with: "
                         "sosia disk raid FILE... --level N",
                         f->m[0].name);
    f->level = f->o->level == RAID_ANY_LEVEL ? f->newest->level : f->o->level;
    return 0;
}

static int refuse_stranger(const struct raid_member *m, struct error *e)
{
    return error_set(e, ERR_FORMAT,
                     "%s: is not a member of this array, and it is not empty; name another image, "
                     "or make an empty one in its place, which will be filled from the others",
                     m->name);
}

static int compare(const struct found *f, unsigned i, struct error *e)
{
    const struct raid_super *a = f->newest, *b = &f->super[i];
    const char *name = f->m[i].name;
    if (b->level != f->level)
        return error_set(e, ERR_FORMAT, "%s: is a member of a RAID %u array, not RAID %u", name,
                         b->level, f->level);
    if (memcmp(a->uuid, b->uuid, RAID_UUID) != 0)
        return error_set(e, ERR_FORMAT,
                         "%s: is a member of another array than %s; name the members of one", name,
                         f->m[f->newest - f->super].name);
    if (a->slots != b->slots || a->size != b->size || a->chunk != b->chunk || a->shift != b->shift)
        return error_set(e, ERR_FORMAT, "%s: what it says about its array is not what %s says",
                         name, f->m[f->newest - f->super].name);
    return 0;
}

/* Two parts of an array that were used without each other have both something new. */
static int refuse_split(const struct found *f, unsigned i, struct error *e)
{
    unsigned newest = f->newest->slot;
    const struct raid_super *s = &f->super[i];
    if (s->level == 0 || s == f->newest || s->member[newest].state != RAID_STALE ||
        s->member[s->slot].state != RAID_IN_SYNC)
        return 0;
    return error_set(e, ERR_FORMAT,
                     "%s and %s have been used without each other and differ; decide which of them "
                     "counts, and put an empty image in the place of the other, which will be "
                     "filled from it",
                     f->m[i].name, f->m[f->newest - f->super].name);
}

static int place_members(struct found *f, struct error *e)
{
    int rc = 0;
    for (unsigned i = 0; i < RAID_MAX_MEMBERS; i++)
        f->at[i] = -1;
    for (unsigned i = 0; !rc && i < f->n; i++) {
        if (!f->is_member[i])
            continue;
        int *at = &f->at[f->super[i].slot];
        rc = compare(f, i, e);
        if (!rc)
            rc = refuse_split(f, i, e);
        if (!rc && *at >= 0)
            rc = error_set(e, ERR_FORMAT, "%s and %s are the same member; one is a copy",
                           f->m[*at].name, f->m[i].name);
        *at = (int)i;
    }
    if (!rc && f->n > f->newest->slots)
        rc = error_set(e, ERR_FORMAT, "the array has %u members, but %u are named",
                       f->newest->slots, f->n);
    return rc;
}

/* Puts empty images in the places of members that are not there. */
static int place_new(struct found *f, struct error *e)
{
    for (unsigned i = 0, slot = 0; i < f->n; i++) {
        const struct raid_member *m = &f->m[i];
        if (f->why[i] || f->is_member[i])
            continue;
        if (f->level == 0 || !m->blank)
            return refuse_stranger(m, e);
        if (raid_meta(node_size(m->node)) < f->newest->size)
            return error_set(
                e, ERR_LIMIT,
                "%s: is too small to be a member of this array, which takes %llu bytes", m->name,
                (unsigned long long)f->newest->size + RAID_META);
        while (slot < f->newest->slots && f->at[slot] >= 0)
            slot++;
        if (slot == f->newest->slots)
            return refuse_stranger(m, e);
        f->at[slot] = (int)i;
    }
    return 0;
}

/* The member of a slot that is not there, as it was named: its position, or -1. */
static int absent(const struct found *f, unsigned slot)
{
    unsigned nth = 0;
    for (unsigned i = 0; i < slot; i++)
        nth += f->at[i] < 0;
    for (unsigned i = 0; i < f->n; i++)
        if (f->why[i] && nth-- == 0)
            return (int)i;
    return -1;
}

static const char *name_of(const struct found *f, int at)
{
    return at < 0 ? "?" : f->m[at].name;
}

static const char *why_of(const struct found *f, int at)
{
    return at < 0 ? "it is not named" : f->why[at];
}

/* A member that has, or may have, what no other has is not done without. */
static int check_missing(const struct found *f, struct error *e)
{
    unsigned usable = 0;
    for (unsigned slot = 0; slot < f->newest->slots; slot++) {
        bool good = f->level == 0 || f->newest->member[slot].state == RAID_IN_SYNC;
        bool there = f->at[slot] >= 0 && f->is_member[f->at[slot]];
        usable += good && there;
        if (there || !good || (f->level == 1 && f->o->degraded))
            continue;
        int at = absent(f, slot);
        return error_set(e, ERR_STATE, "member %u of the array (%s) is missing: %s%s", slot,
                         name_of(f, at), why_of(f, at),
                         f->level == 0 ? "; a RAID 0 needs all of them"
                                       : ". It may have writes that the others lack; if it is "
                                         "lost, say 'degraded: true' to go on without it");
    }
    if (usable == 0)
        return error_set(e, ERR_STATE,
                         "none of the members that are there has all of the array's contents; the "
                         "one that was used last is missing");
    return 0;
}

/* ---- opening ---- */

static bool is_remote(struct node *n)
{
    struct node_place p;
    return node_resolve(n, 0, 512, false, &p) && p.node && p.node->ops->submit;
}

static int take_member(struct raid *r, const struct found *f, unsigned slot, struct error *e)
{
    struct raid_slot *s = &r->slot[slot];
    int at = f->at[slot];
    s->name = strdup(name_of(f, at < 0 ? absent(f, slot) : at));
    if (!s->name)
        return error_set(e, ERR_NOMEM, "out of memory");
    s->state = r->super.level ? r->super.member[slot].state : RAID_IN_SYNC;
    s->rebuilt = r->super.member[slot].rebuilt;
    if (at < 0) {
        s->state = RAID_STALE;
        log_warn("disk array: member %u (%s) is missing: %s; the disk goes on without it", slot,
                 s->name, why_of(f, absent(f, slot)));
        return 0;
    }
    const char *format = f->is_member[at] ? f->super[at].format : f->m[at].format;
    s->node = f->m[at].node;
    memcpy(s->format, format, strnlen(format, sizeof s->format - 1));
    if (s->state == RAID_STALE || !f->is_member[at]) {
        s->state = RAID_REBUILDING;
        s->rebuilt = 0;
    }
    r->remote |= is_remote(s->node);
    r->node.alignment = (uint32_t)max_u64(r->node.alignment, s->node->alignment);
    r->node.granularity = (uint32_t)max_u64(r->node.granularity, s->node->granularity);
    return 0;
}

/* Who is only looked at is not rebuilt, so it is of no use. */
static void leave_out(struct raid *r)
{
    for (unsigned i = 0; i < r->n; i++)
        if (r->slot[i].state == RAID_REBUILDING && r->node.readonly)
            r->slot[i].state = RAID_STALE;
}

static int assemble(struct raid *r, const struct found *f, struct error *e)
{
    int rc = 0;
    r->super = *f->newest;
    r->n = f->newest->slots;
    r->node = (struct node){.ops = f->level ? &raid1_ops : &raid0_ops,
                            .size = f->newest->size * (f->level ? 1 : f->newest->slots),
                            .readonly = f->o->readonly,
                            .fd = -1};
    for (unsigned i = 0; !rc && i < r->n; i++)
        rc = take_member(r, f, i, e);
    if (rc)
        return rc;
    uint64_t granule = f->level ? 1ull << r->super.shift : r->super.chunk;
    r->exact = max_u64(r->node.granularity, 1) <= granule;
    r->sweep = f->o->sweep ? f->o->sweep : SWEEP;
    r->no_pauses = f->o->no_pauses;
    leave_out(r);
    return f->level ? raid1_start(r, e) : 0;
}

int raid_open(const struct raid_member *m, unsigned n, const struct raid_options *o,
              struct node **out, struct error *e)
{
    struct found f = {.m = m, .n = n, .o = o};
    if (n == 0 || n > RAID_MAX_MEMBERS)
        return error_set(e, ERR_LIMIT, "an array has 1 to %d members", RAID_MAX_MEMBERS);
    int rc = read_supers(&f, e);
    if (!rc)
        rc = place_members(&f, e);
    if (!rc)
        rc = place_new(&f, e);
    if (!rc)
        rc = check_missing(&f, e);
    if (rc)
        return rc;
    struct raid *r = calloc(1, sizeof *r);
    if (!r)
        return error_set(e, ERR_NOMEM, "out of memory");
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    raid_helpers_init(&r->helpers);
    rc = assemble(r, &f, e);
    if (rc) {
        for (unsigned i = 0; i < r->n; i++)
            r->slot[i].node = NULL; /* still the caller's */
        raid_free(r);
        return rc;
    }
    for (unsigned i = 0; i < n; i++)
        if (f.why[i])
            node_close(m[i].node);
    *out = &r->node;
    return 0;
}

enum raid_state raid_member_state(struct node *n, unsigned slot)
{
    struct raid *r = raid_of(n);
    pthread_mutex_lock(&r->lock);
    enum raid_state s = slot < r->n ? r->slot[slot].state : RAID_STALE;
    if (s == RAID_IN_SYNC && r->slot[slot].ntodo)
        s = RAID_REBUILDING;
    pthread_mutex_unlock(&r->lock);
    return s;
}

/* ---- making one ---- */

static int measure(const struct raid_member *m, unsigned n, const struct raid_create *c,
                   struct raid_super *s, struct error *e)
{
    uint64_t granule = 1;
    s->size = UINT64_MAX;
    for (unsigned i = 0; i < n; i++) {
        uint64_t meta = raid_meta(node_size(m[i].node));
        granule = max_u64(granule, m[i].node->granularity);
        if (c->level == 1 && meta < s->size && i > 0)
            return error_set(e, ERR_LIMIT, "%s: is smaller than %s, whose contents it is to have",
                             m[i].name, m[0].name);
        if (i == 0 || c->level == 0)
            s->size = min_u64(s->size, meta);
    }
    if (c->level == 0) {
        s->chunk = c->chunk ? c->chunk : (uint32_t)max_u64(CHUNK, granule);
        s->size -= s->size % s->chunk;
    }
    uint64_t region = c->region ? c->region : max_u64(granule, MIN_REGION);
    for (s->shift = 12; (s->size - 1) >> s->shift >= RAID_REGIONS || 1ull << s->shift < region;)
        s->shift++;
    if (s->size == 0)
        return error_set(e, ERR_LIMIT, "the images are too small for an array");
    if (s->size > INT64_MAX / n)
        return error_set(e, ERR_LIMIT, "the images are too large for an array");
    return 0;
}

int raid_create(const struct raid_member *m, unsigned n, const struct raid_create *c,
                struct error *e)
{
    struct raid_super s = {.level = c->level, .slots = n, .events = 1};
    const uint8_t none[RAID_BITMAP] = {0};
    int rc = measure(m, n, c, &s, e);
    if (rc)
        return rc;
    if (getrandom(s.uuid, sizeof s.uuid, 0) != sizeof s.uuid)
        return error_errno(e, ERR_HOST, errno, "there are no random numbers");
    for (unsigned i = 1; i < n && c->level == 1; i++) /* empty ones are the same already */
        s.member[i].state = m[0].blank && m[i].blank ? RAID_IN_SYNC : RAID_REBUILDING;
    for (unsigned i = 0; i < n; i++) {
        s.slot = i;
        memset(s.format, 0, sizeof s.format);
        memcpy(s.format, m[i].format, strnlen(m[i].format, sizeof s.format - 1));
        rc = node_zero(m[i].node, raid_meta(node_size(m[i].node)), RAID_META, 0);
        if (!rc)
            rc = raid_bitmap_write(m[i].node, none, false);
        if (!rc)
            rc = raid_super_write(m[i].node, &s);
        if (!rc)
            rc = node_flush(m[i].node);
        if (rc)
            return error_errno(e, ERR_IO, -rc, "%s: cannot be written", m[i].name);
    }
    return 0;
}
