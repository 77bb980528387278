/* disk_map.c - `sosia disk map`: where the bytes of a disk are. */
#include "cli/disk.h"

#include "block/chain.h"

struct place {
    uint64_t start;
    struct node_extent x;
};

static const char *holder(const struct chain *c, const struct node_extent *x)
{
    return x->kind != NODE_HOLE && x->depth < c->n ? c->link[x->depth].path : NULL;
}

static json_t *place_json(const struct chain *c, const struct place *p)
{
    static const char *const kinds[] = {"hole", "zero", "data"};
    const struct node_extent *x = &p->x;
    json_t *o = json_pack("{s:I, s:I, s:s, s:b, s:o}", "start", (json_int_t)p->start, "length",
                          (json_int_t)x->len, "kind", kinds[x->kind], "compressed", x->compressed,
                          "file", cli_json_text(holder(c, x)));
    if (x->kind != NODE_HOLE)
        json_object_set_new(o, "depth", json_integer(x->depth));
    if (x->kind == NODE_DATA && x->placed)
        json_object_set_new(o, "offset", json_integer((json_int_t)x->where));
    return o;
}

static void print_place(const struct chain *c, const struct place *p)
{
    const struct node_extent *x = &p->x;
    const char *file = holder(c, x);
    if (x->kind == NODE_HOLE)
        return;
    printf("%#-18llx %#-18llx ", (unsigned long long)p->start, (unsigned long long)x->len);
    if (x->kind == NODE_ZERO)
        printf("%-18s", "zeroes");
    else if (x->placed)
        printf("%#-18llx", (unsigned long long)x->where);
    else
        printf("%-18s", x->compressed ? "compressed" : "?");
    printf(" %s\n", file ? file : "");
}

/* Whether `b` goes on where `a` ends. */
static bool joins(const struct place *a, const struct node_extent *b)
{
    const struct node_extent *x = &a->x;
    return x->kind == b->kind && x->compressed == b->compressed && x->placed == b->placed &&
           (x->depth == b->depth || x->kind == NODE_HOLE) &&
           (!x->placed || (x->below == b->below && x->where + x->len == b->where));
}

static void show(const struct chain *c, const struct place *p, json_t *list)
{
    if (p->x.len && list)
        json_array_append_new(list, place_json(c, p));
    else if (p->x.len)
        print_place(c, p);
}

static int walk(struct node *n, const struct chain *c, json_t *list, struct error *e)
{
    struct place p = {0};
    for (uint64_t at = 0, size = node_size(n); at < size;) {
        struct node_extent x;
        int rc = node_map(n, at, size - at, &x);
        if (rc)
            return error_errno(e, ERR_IO, -rc, "cannot read where the disk's bytes are");
        if (p.x.len && joins(&p, &x)) {
            p.x.len += x.len;
        } else {
            show(c, &p, list);
            p = (struct place){at, x};
        }
        at += x.len;
    }
    show(c, &p, list);
    return 0;
}

int disk_map(const struct disk_args *a, struct error *e)
{
    struct image_options o = disk_image_options(a, true);
    struct node *n = NULL;
    struct chain c = {0};
    json_t *list = a->given[DISK_JSON] ? json_array() : NULL;
    int rc = image_open(a->path[0], &o, &n, e);
    if (!rc)
        rc = chain_load(&c, a->path[0], o.format, o.allow_outside, e);
    if (!rc && !list)
        printf("%-18s %-18s %-18s %s\n", "start", "length", "at", "in");
    if (!rc)
        rc = walk(n, &c, list, e);
    node_close(n);
    chain_free(&c);
    if (!rc && list)
        return cli_print_json(
            json_pack("{s:o, s:o}", "file", cli_json_text(a->path[0]), "extents", list), e);
    json_decref(list);
    return rc;
}
