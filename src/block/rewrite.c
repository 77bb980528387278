/*
 * rewrite.c - changes of an image as a whole.
 *
 * Commit: (1) the backing file is made as large as the image; (2) what the image holds is written
 * to it, while the image still shows its own; (3) the backing file is flushed; (4) only then is the
 * image replaced by an empty one, which is durable before it gets the name. Whatever happens in
 * between, the image reads as before, and beginning anew finishes the work.
 */
#define _GNU_SOURCE
#include "block/rewrite.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "block/chain.h"
#include "block/create.h"
#include "block/format/formats.h"

#define CHUNK       (1 * MIB)
#define HOLE_UNIT   4096u /* the least that a file system gives back */
#define MAX_OPTIONS 64

static uint64_t space_of(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

/* What a new image would lack. */
static const char *peculiar(const struct json_t *info)
{
    static const char *const keys[] = {"snapshots", "bitmaps", "data-file"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const json_t *v = json_object_get(info, keys[i]);
        if (v && !json_is_null(v) && !(json_is_array(v) && json_array_size(v) == 0))
            return keys[i];
    }
    return NULL;
}

/* "cluster_size=65536" from the fact "cluster-size": 65536; NULL: the format does not tell. */
static char *option_of(const struct json_t *info, const char *name)
{
    char key[64], *out = NULL;
    snprintf(key, sizeof key, "%s", name);
    for (char *c = key; *c; c++)
        *c = *c == '_' ? '-' : *c;
    const json_t *v = json_object_get(info, key);
    int n = -1;
    if (json_is_boolean(v))
        n = asprintf(&out, "%s=%s", name, json_is_true(v) ? "on" : "off");
    else if (json_is_integer(v))
        n = asprintf(&out, "%s=%lld", name, (long long)json_integer_value(v));
    else if (json_is_string(v))
        n = asprintf(&out, "%s=%s", name, json_string_value(v));
    return n < 0 ? NULL : out;
}

/* An empty image that differs from `l` in its contents alone, to replace it. */
static int create_like(struct output *out, const struct chain_link *l, struct error *e)
{
    char *option[MAX_OPTIONS];
    struct image_create c = {.format = l->format,
                             .size = l->size,
                             .backing = l->backing,
                             .backing_format = l->backing_format,
                             .as_stored = true,
                             .replace = true,
                             .option = (const char *const *)option};
    const char *why = peculiar(l->info);
    if (why)
        return error_set(e, ERR_STATE, "%s: has %s, which a new image would lack", l->path, why);
    const struct format_option *o = l->format->options;
    for (; o && o->name && c.noptions < MAX_OPTIONS; o++) {
        char *text = option_of(l->info, o->name);
        if (text)
            option[c.noptions++] = text;
    }
    int rc = image_create(out, l->path, &c, e);
    while (c.noptions > 0)
        free(option[--c.noptions]);
    return rc;
}

static int flush(struct node *n, const char *path, struct error *e)
{
    int rc = node_flush(n);
    return rc ? error_errno(e, ERR_IO, -rc, "%s: cannot be written", path) : 0;
}

/* Steps 1 to 3. */
static int merge(struct node *top, const struct chain *c, struct rewrite *r, struct error *e)
{
    struct image_options o = {.format = c->link[0].backing_format,
                              .allow_outside = r->image.allow_outside};
    struct node *base = NULL;
    const char *path = c->link[1].path;
    int rc = image_open(path, &o, &base, e);
    if (rc)
        return error_prefix(e, "backing file");
    r->before = space_of(path);
    if (node_size(base) < node_size(top))
        rc = node_resize(base, node_size(top), e);
    struct copy copy = {.from = top,
                        .to = base,
                        .overlay = true,
                        .format = format_find(base->ops->name),
                        .progress = r->progress,
                        .ctx = r->ctx};
    if (!rc)
        rc = copy_run(&copy, e);
    if (!rc)
        rc = flush(base, path, e);
    node_close(base);
    r->after = space_of(path);
    return rc;
}

int image_commit(const char *path, struct rewrite *r, struct error *e)
{
    struct image_options o = r->image;
    struct chain c = {0};
    struct output out = {0};
    struct node *top = NULL;
    o.readonly = false;
    o.no_backing = true;
    int rc = image_open(path, &o, &top, e); /* from now on nobody else writes to it */
    if (!rc)
        rc = chain_load(&c, path, o.format, o.allow_outside, e);
    if (!rc && c.n < 2)
        rc = error_set(e, ERR_STATE, "%s: has no backing file that it could be merged into", path);
    if (!rc)
        rc = merge(top, &c, r, e);
    if (!rc && !r->keep && !peculiar(c.link[0].info)) {
        rc = create_like(&out, &c.link[0], e);
        if (!rc)
            rc = output_commit(&out, e);
        r->emptied = !rc;
    }
    if (!rc)
        r->backing_path = strdup(c.link[1].path);
    node_close(top);
    chain_free(&c);
    return rc;
}

static bool is_zero(const uint8_t *p, uint64_t len)
{
    return !p[0] && memcmp(p, p + 1, len - 1) == 0;
}

/* Holes for the zeroes of a stretch of data that begins at `at`. */
static int punch(struct node *n, const uint8_t *buf, uint64_t at, uint64_t len)
{
    int rc = 0;
    uint64_t zeroes = 0;
    for (uint64_t i = 0, part; !rc && i < len; i += part) {
        part = min_u64(HOLE_UNIT - (at + i) % HOLE_UNIT, len - i);
        bool zero = is_zero(buf + i, part);
        zeroes += zero ? part : 0;
        bool ends = !zero || i + part == len;
        uint64_t end = zero ? i + part : i;
        if (ends && zeroes)
            rc = node_zero(n, at + end - zeroes, zeroes, NODE_MAY_UNMAP);
        zeroes = ends ? 0 : zeroes;
    }
    return rc;
}

/* For an image that is nothing but the bytes of the disk. */
static int compact_raw(struct node *n, struct rewrite *r, struct error *e)
{
    CLEANUP_FREE uint8_t *buf = malloc(CHUNK);
    uint64_t size = node_size(n);
    int rc = buf ? 0 : -ENOMEM;
    for (uint64_t at = 0, len; !rc && at < size; at += len) {
        struct node_extent x;
        rc = node_map(n, at, size - at, &x);
        if (rc)
            break;
        len = x.kind == NODE_DATA ? min_u64(x.len, CHUNK) : x.len;
        if (x.kind == NODE_DATA)
            rc = node_read(n, buf, len, at);
        if (!rc && x.kind == NODE_DATA)
            rc = punch(n, buf, at, len);
        if (r->progress && !r->progress(r->ctx, at + len, size))
            return error_set(e, ERR_STATE, "interrupted");
    }
    if (!rc)
        rc = node_flush(n);
    return rc ? error_errno(e, ERR_IO, -rc, "cannot give back the space of zeroes") : 0;
}

static int fill(struct node *from, const struct chain_link *l, const char *temp, struct rewrite *r,
                struct error *e)
{
    struct image_options o = {
        .format = l->format->name, .allow_outside = r->image.allow_outside, .at = temp};
    struct node *to = NULL;
    int rc = image_open(l->path, &o, &to, e);
    if (rc)
        return rc;
    struct copy copy = {.from = from,
                        .to = to,
                        .overlay = l->backing != NULL,
                        .format = l->format,
                        .progress = r->progress,
                        .ctx = r->ctx};
    rc = copy_run(&copy, e);
    if (!rc)
        rc = flush(to, l->path, e);
    node_close(to);
    return rc;
}

static int compact_by_copy(struct node *n, const struct chain_link *l, struct rewrite *r,
                           struct error *e)
{
    struct output out = {0};
    int rc = create_like(&out, l, e);
    if (rc)
        return rc;
    rc = fill(n, l, out.temp, r, e);
    if (rc || space_of(out.temp) >= r->before) /* there is nothing to give back */
        output_abort(&out);
    else
        rc = output_commit(&out, e);
    return rc;
}

int image_compact(const char *path, struct rewrite *r, struct error *e)
{
    struct image_options o = r->image;
    struct chain c = {0};
    struct node *n = NULL;
    o.readonly = false;
    o.no_backing = true;
    r->before = space_of(path);
    int rc = image_open(path, &o, &n, e);
    if (!rc)
        rc = chain_load(&c, path, o.format, o.allow_outside, e);
    if (!rc)
        rc = c.link[0].format == &format_raw ? compact_raw(n, r, e)
                                             : compact_by_copy(n, &c.link[0], r, e);
    node_close(n);
    chain_free(&c);
    r->after = space_of(path);
    return rc;
}
