/*
 * snap_diff.c - `sosia snap diff`: what two moments of a VM differ in: blocks of disks, lines of
 * the spec.
 *
 * Where both disks are the same place of the same layer, nothing is read; what one of them has
 * anew is compared byte by byte.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "block/chain.h"
#include "block/size.h"
#include "catalog/layer.h"
#include "cli/snap.h"

#define BLOCK (64 * KIB)

/* One of the two. As it is now: each disk is its own layer. */
struct side {
    struct snapshot s;
    char *spec;
};

struct image {
    struct node *node;
    struct chain chain;
};

struct difference {
    uint64_t blocks, bytes;
};

static int no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "out of memory");
}

/* ---- disks ---- */

static void close_image(struct image *i)
{
    node_close(i->node);
    chain_free(&i->chain);
}

static int open_image(const struct vm *vm, const char *inside, const char *format,
                      struct image *out, struct error *e)
{
    const struct image_options o = {.format = format, .readonly = true, .unlocked = true};
    CLEANUP_FREE char *path = NULL;
    *out = (struct image){0};
    if (asprintf(&path, "%s/%s", vm->path, inside) < 0) {
        path = NULL;
        return no_memory(e);
    }
    int rc = image_open(path, &o, &out->node, e);
    return rc ? rc : chain_load(&out->chain, path, format, false, e);
}

static const char *holder(const struct image *i, const struct node_extent *x)
{
    return x->depth < i->chain.n ? i->chain.link[x->depth].path : NULL;
}

static bool same_place(const struct image *a, const struct node_extent *x, const struct image *b,
                       const struct node_extent *y)
{
    const char *p = holder(a, x), *q = holder(b, y);
    if (x->kind != NODE_DATA && y->kind != NODE_DATA)
        return true; /* both read as zeroes */
    return x->kind == NODE_DATA && y->kind == NODE_DATA && x->placed && y->placed &&
           x->where == y->where && p && q && strcmp(p, q) == 0;
}

/* A block, beyond the end zeroes. */
static int read_block(struct node *n, uint64_t at, uint8_t *buf)
{
    uint64_t size = node_size(n), len = at < size ? min_u64(BLOCK, size - at) : 0;
    memset(buf + len, 0, BLOCK - len);
    return len ? node_read(n, buf, len, at) : 0;
}

static int map_block(struct node *n, uint64_t at, struct node_extent *x)
{
    if (at < node_size(n))
        return node_map(n, at, node_size(n) - at, x);
    *x = (struct node_extent){.kind = NODE_HOLE, .len = UINT64_MAX / 2};
    return 0;
}

static int compare(struct image *a, struct image *b, struct difference *d, struct error *e)
{
    CLEANUP_FREE uint8_t *buf = malloc(2 * BLOCK);
    uint64_t end = max_u64(node_size(a->node), node_size(b->node));
    if (!buf)
        return no_memory(e);
    for (uint64_t at = 0; at < end;) {
        struct node_extent x, y;
        int rc = map_block(a->node, at, &x);
        if (!rc)
            rc = map_block(b->node, at, &y);
        uint64_t same = rc ? 0 : min_u64(x.len, y.len) & ~(uint64_t)(BLOCK - 1);
        if (same && same_place(a, &x, b, &y)) {
            at += same;
            continue;
        }
        if (!rc)
            rc = read_block(a->node, at, buf);
        if (!rc)
            rc = read_block(b->node, at, buf + BLOCK);
        if (rc)
            return error_errno(e, ERR_IO, -rc, "cannot read the disks");
        if (memcmp(buf, buf + BLOCK, BLOCK) != 0) {
            d->blocks++;
            d->bytes += min_u64(BLOCK, end - at);
        }
        at += BLOCK;
    }
    return 0;
}

static const struct snapshot_disk *find_disk(const struct side *s, const char *file)
{
    for (size_t i = 0; i < s->s.ndisk; i++)
        if (strcmp(s->s.disk[i].file, file) == 0)
            return &s->s.disk[i];
    return NULL;
}

static int diff_disk(const struct vm *vm, const struct snapshot_disk *x,
                     const struct snapshot_disk *y, struct difference *d, struct error *e)
{
    struct image a = {0}, b = {0};
    int rc = open_image(vm, x->layer, x->format, &a, e);
    if (!rc)
        rc = open_image(vm, y->layer, y->format, &b, e);
    if (!rc)
        rc = compare(&a, &b, d, e);
    close_image(&a);
    close_image(&b);
    return rc;
}

static int show_disk(const char *file, const struct difference *d, const char *only, json_t *list)
{
    char text[32];
    if (list)
        return json_array_append_new(
            list, json_pack("{s:o, s:I, s:I, s:I, s:s?}", "file", cli_json_text(file), "blocks",
                            (json_int_t)d->blocks, "block-size", (json_int_t)BLOCK, "bytes",
                            (json_int_t)d->bytes, "only-in", only));
    if (only)
        printf("%s: only in %s\n", file, only);
    else
        printf("%s: %llu blocks of 64 KiB differ (%s)\n", file, (unsigned long long)d->blocks,
               size_format(text, d->bytes));
    return 0;
}

static int diff_disks(const struct vm *vm, const struct side *a, const struct side *b,
                      const char *const name[2], json_t *list, struct error *e)
{
    int rc = 0;
    for (size_t i = 0; i < a->s.ndisk && !rc; i++) {
        const struct snapshot_disk *x = &a->s.disk[i], *y = find_disk(b, x->file);
        struct difference d = {0};
        if (y)
            rc = diff_disk(vm, x, y, &d, e);
        if (!rc)
            show_disk(x->file, &d, y ? NULL : name[0], list);
    }
    for (size_t i = 0; i < b->s.ndisk && !rc; i++)
        if (!find_disk(a, b->s.disk[i].file))
            show_disk(b->s.disk[i].file, &(struct difference){0}, name[1], list);
    return rc;
}

/* ---- the spec ---- */

static size_t line_length(const char *s)
{
    return strcspn(s, "\n") + (strchr(s, '\n') != NULL);
}

static void show_lines(const char *s, const char *end, char mark, json_t *list)
{
    while (s < end) {
        size_t n = line_length(s), shown = strcspn(s, "\n");
        if (list) {
            char *text = strndup(s, shown);
            json_array_append_new(list, cli_json_text(text ? text : ""));
            free(text);
        } else {
            printf("%c%.*s\n", mark, (int)shown, s);
        }
        s += n;
    }
}

/* The lines between the first and the last that differ. */
static void diff_spec(const char *a, const char *b, json_t *removed, json_t *added)
{
    size_t n;
    while (*a && (n = line_length(a)) == line_length(b) && memcmp(a, b, n) == 0) {
        a += n;
        b += n;
    }
    const char *x = a + strlen(a), *y = b + strlen(b);
    while (x > a && y > b && x[-1] == y[-1]) {
        x--;
        y--;
    }
    /* Whole lines. */
    while ((*x && x > a && x[-1] != '\n') || (*y && y > b && y[-1] != '\n')) {
        x += *x ? line_length(x) : 0;
        y += *y ? line_length(y) : 0;
    }
    show_lines(a, x, '-', removed);
    show_lines(b, y, '+', added);
}

/* ---- both sides ---- */

static void free_side(struct side *s)
{
    snapshot_fini(&s->s);
    free(s->spec);
}

/* The disks as they are now: those that `like` has. */
static int load_now(const struct vm *vm, const struct side *like, struct side *out, struct error *e)
{
    struct vm_status status;
    size_t len;
    vm_status_read(vm, &status);
    if (vm_is_alive(&status))
        return error_set(e, ERR_STATE,
                         "%s is %s, and its disks change; name a second snapshot, or stop it",
                         vm->name, vm_run_words[status.run]);
    for (size_t i = 0; i < like->s.ndisk; i++) {
        const char *file = like->s.disk[i].file;
        if (snapshot_add_disk(&out->s, file, file, "qcow2"))
            return no_memory(e);
    }
    return vm_spec_text(vm, &out->spec, &len, e);
}

static int load_side(const struct vm *vm, const char *name, struct side *out, struct error *e)
{
    size_t len;
    int rc = vm_snapshot_load(vm, name, &out->s, e);
    if (rc)
        return rc;
    return vm_snapshot_spec(vm, name, &out->spec, &len, e);
}

static int show(const struct snap_call *c, struct side side[2], const char *const name[2],
                struct error *e)
{
    bool json = cli_has(c->a, CLI_JSON);
    json_t *disks = json ? json_array() : NULL, *removed = json ? json_array() : NULL,
           *added = json ? json_array() : NULL;
    int rc = diff_disks(c->vm, &side[0], &side[1], name, disks, e);
    if (!rc)
        diff_spec(side[0].spec, side[1].spec, removed, added);
    if (!rc && json)
        return cli_print_json(json_pack("{s:s, s:s, s:o, s:{s:o, s:o}}", "from", name[0], "to",
                                        name[1], "disks", disks, "spec", "removed", removed,
                                        "added", added),
                              e);
    json_decref(disks);
    json_decref(removed);
    json_decref(added);
    return rc;
}

int snap_diff(const struct snap_call *c, struct error *e)
{
    struct side side[2] = {0};
    const char *const name[2] = {c->pos[0], c->npos > 1 ? c->pos[1] : "now"};
    int rc = load_side(c->vm, name[0], &side[0], e);
    if (!rc)
        rc = c->npos > 1 ? load_side(c->vm, name[1], &side[1], e)
                         : load_now(c->vm, &side[0], &side[1], e);
    if (!rc)
        rc = show(c, side, name, e);
    free_side(&side[0]);
    free_side(&side[1]);
    return rc;
}
