/*
 * array.c - arrays of images.
 *
 * The format of a member was found out when the array was made, and is in its superblock: a guest
 * that writes the beginning of another format to a raw member does not change what it is.
 */
#include "block/array.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "block/image.h"

/* A member while the array is being opened. */
struct candidate {
    char format[16];
    char why[sizeof((struct error *)0)->msg];
};

static bool is_stated(const char *format)
{
    return format && format[0] && strcmp(format, "auto") != 0;
}

/* Whether the image, opened in this format, has a superblock that says the same. */
static int try_format(const char *path, struct image_options o, char name[16], bool *found,
                      struct error *e)
{
    struct node *n = NULL;
    struct raid_super s;
    o.readonly = o.unlocked = true;
    int rc = image_open(path, &o, &n, e);
    if (rc)
        return rc;
    snprintf(name, 16, "%s", n->ops->name);
    rc = raid_super_read(n, &s, found);
    node_close(n);
    *found = *found && strcmp(s.format, name) == 0;
    return rc ? error_errno(e, ERR_IO, -rc, "%s: cannot be read", path) : 0;
}

/* Finds the format of a member, or of an image that is none yet. */
static int find_format(const char *path, const struct image_options *o, char name[16],
                       struct error *e)
{
    struct image_options raw = *o;
    char other[16];
    bool found = false;
    int rc = try_format(path, *o, name, &found, e);
    if (found || is_stated(o->format))
        return rc;
    struct error unused = {0};
    raw.format = "raw";
    if (try_format(path, raw, other, &found, &unused) || !found)
        return rc;
    memcpy(name, other, sizeof other);
    return 0;
}

static bool is_blank(struct node *n)
{
    struct node_extent x;
    uint64_t size = node_size(n);
    for (uint64_t at = 0; at < size; at += x.len)
        if (node_map(n, at, size - at, &x) || x.kind == NODE_DATA)
            return false;
    return true;
}

static int open_member(const char *path, struct image_options o, struct candidate *c,
                       struct raid_member *m, struct error *e)
{
    m->name = path;
    int rc = find_format(path, &o, c->format, e);
    if (!rc) {
        o.format = c->format;
        rc = image_open(path, &o, &m->node, e);
    }
    if (rc) {
        snprintf(c->why, sizeof c->why, "%s", e->msg);
        m->why = c->why;
        return rc == ERR_IO || rc == ERR_FORMAT ? 0 : rc;
    }
    m->format = c->format;
    m->blank = is_blank(m->node);
    return 0;
}

static void close_members(struct raid_member *m, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        node_close(m[i].node);
}

int array_open(const char *const *path, unsigned n, const struct array_options *o,
               struct node **out, struct error *e)
{
    struct raid_member m[RAID_MAX_MEMBERS] = {{0}};
    const struct image_options image = {
        .format = o->format, .readonly = o->readonly, .allow_outside = o->allow_outside};
    const struct raid_options raid = {
        .level = o->level, .readonly = o->readonly, .degraded = o->degraded};
    if (n == 0 || n > RAID_MAX_MEMBERS)
        return error_set(e, ERR_LIMIT, "an array has 1 to %d members", RAID_MAX_MEMBERS);
    struct candidate *c = calloc(n, sizeof *c);
    int rc = c ? 0 : error_set(e, ERR_NOMEM, "out of memory");
    for (unsigned i = 0; !rc && i < n; i++)
        rc = open_member(path[i], image, &c[i], &m[i], e);
    if (!rc)
        rc = raid_open(m, n, &raid, out, e);
    if (rc)
        close_members(m, n);
    free(c);
    return rc;
}

/* What is in the place of the metadata, and in members that get the first one's contents. */
static int refuse_contents(const struct raid_member *m, bool keeps, struct error *e)
{
    uint8_t tail[RAID_META];
    struct raid_super s;
    bool member = false;
    uint64_t meta = raid_meta(node_size(m->node));
    if (m->blank)
        return 0;
    if (!keeps)
        return error_set(e, ERR_STATE,
                         "%s: is not empty, and what is in it would be lost; say "
                         "--destroy-contents if that is meant",
                         m->name);
    int rc = meta ? node_read(m->node, tail, sizeof tail, meta) : 0;
    if (!rc && meta)
        rc = raid_super_read(m->node, &s, &member);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "%s: cannot be read", m->name);
    if (!meta || member || (tail[0] == 0 && !memcmp(tail, tail + 1, sizeof tail - 1)))
        return 0;
    return error_set(e, ERR_STATE,
                     "%s: its last 16 KiB are needed for the array, but are not empty; enlarge it "
                     "first: sosia disk resize FILE +1M",
                     m->name);
}

int array_create(const char *const *path, unsigned n, const struct array_create *c, struct error *e)
{
    struct raid_member m[RAID_MAX_MEMBERS] = {{0}};
    struct image_options o = {.format = c->format, .allow_outside = c->allow_outside};
    if (n < 2 || n > RAID_MAX_MEMBERS)
        return error_set(e, ERR_USAGE, "an array is made of 2 to %d images", RAID_MAX_MEMBERS);
    struct candidate *k = calloc(n, sizeof *k);
    int rc = k ? 0 : error_set(e, ERR_NOMEM, "out of memory");
    for (unsigned i = 0; !rc && i < n; i++) {
        rc = open_member(path[i], o, &k[i], &m[i], e);
        if (!rc && !m[i].node)
            rc = e->code;
    }
    for (unsigned i = 0; !rc && i < n && !c->destroy; i++)
        rc = refuse_contents(&m[i], c->raid.level == 1 && i == 0, e);
    if (!rc)
        rc = raid_create(m, n, &c->raid, e);
    close_members(m, n);
    free(k);
    return rc;
}
