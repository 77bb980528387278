/*
 * load.c - spec_load(): defaults, then the file, then the overrides, all through the same table.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "spec/schema.h"

/* The directory part of a path; "" if there is none. Owned by the caller; NULL: out of memory. */
static char *dir_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return strdup("");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* Parses one "key=value". A value of nothing stands for the default. */
static int apply_set(const struct spec_parse *p, struct spec_source *src, const char *set,
                     struct spec_mark *marks)
{
    struct spec_node node = {0};
    int r = spec_source_set(src, set, p->e);
    if (r < 0)
        return r;

    CLEANUP_FREE char *name = strndup(src->text, src->value - 1);
    if (!name)
        return error_set(p->e, ERR_NOMEM, "out of memory for --set");
    int k = spec_key_find(spec_schema, name);
    if (k < 0)
        return spec_key_unknown(spec_schema, name, (struct spec_mark){src, 0, 0}, p->e);
    const struct spec_key *key = &spec_schema[k];
    r = spec_tree_parse(src, &node, p->e);
    if (r == 0 && node.kind == SPEC_NODE_NULL)
        r = spec_error(p->e, node.at, NULL, "\"%s\" has no value", key->name);
    else if (r == 0)
        r = key->parse(p, key, &node, (char *)p->spec + key->offset);
    if (r == 0)
        marks[k] = node.at;
    spec_tree_fini(&node);
    return r;
}

/* The table's defaults go the way of overrides, so that they are checked by the same code. */
static int apply_defaults(const struct spec_parse *p)
{
    for (const struct spec_key *k = spec_schema; k->name; k++) {
        struct spec_mark unused[SPEC_SCHEMA_KEYS];
        struct spec_source src;
        char set[128];
        if (!k->def)
            continue;
        snprintf(set, sizeof set, "%s=%s", k->name, k->def);
        int r = apply_set(p, &src, set, unused);
        spec_source_fini(&src);
        if (r < 0)
            return r;
    }
    return 0;
}

/* What the file holds, or shall hold. */
struct file_text {
    const char *path;
    const char *text; /* NULL: read it */
    size_t len;
};

static int apply_file(const struct spec_parse *p, struct spec_source *src,
                      const struct file_text *f, struct spec_mark *marks)
{
    struct spec_node root = {0};
    int r = f->text ? spec_source_text(src, f->path, f->text, f->len, p->e)
                    : spec_source_file(src, f->path, p->e);
    if (r == 0)
        r = spec_tree_parse(src, &root, p->e);
    if (r == 0 && root.kind == SPEC_NODE_NULL)
        r = spec_error(p->e, root.at, "`sosia spec --defaults` prints one to start from",
                       "the spec file is empty");
    else if (r == 0 && root.kind != SPEC_NODE_MAP)
        r = spec_error(p->e, root.at, "for example:  memory: 512M",
                       "a spec file is a map of \"key: value\" lines, not %s",
                       spec_node_kind_name(&root));
    else if (r == 0)
        r = spec_parse_map(p, spec_schema, &root, p->spec, marks);
    spec_tree_fini(&root);
    return r;
}

static int load(const struct file_text *f, const char *const *set, unsigned nset, struct spec *s,
                struct error *e)
{
    CLEANUP_FREE char *dir = dir_of(f->path);
    struct spec_parse from_file = {s, dir, e}, from_here = {s, "", e};

    *s = (struct spec){0};
    s->origin = calloc(1, sizeof *s->origin + (nset + 1ul) * sizeof s->origin->source[0]);
    if (!dir || !s->origin) {
        spec_fini(s);
        return error_set(e, ERR_NOMEM, "out of memory for the spec");
    }
    struct spec_origin *o = s->origin;
    o->nsource = nset + 1ul;
    int r = apply_defaults(&from_here);
    if (r == 0)
        r = apply_file(&from_file, &o->source[0], f, o->key);
    for (unsigned i = 0; r == 0 && i < nset; i++)
        r = apply_set(&from_here, &o->source[i + 1], set[i], o->key);
    if (r < 0)
        spec_fini(s);
    return r;
}

int spec_load(const char *path, const char *const *set, unsigned nset, struct spec *s,
              struct error *e)
{
    return load(&(struct file_text){.path = path}, set, nset, s, e);
}

int spec_load_text(const char *path, const char *text, size_t len, struct spec *s, struct error *e)
{
    return load(&(struct file_text){path, text, len}, NULL, 0, s, e);
}

void spec_disk_fini(struct spec_disk *d)
{
    for (unsigned i = 0; i < SPEC_MAX_MEMBERS; i++)
        free(d->members.path[i]);
    free(d->file);
    free(d->serial);
}

void spec_fini(struct spec *s)
{
    struct spec_origin *o = s->origin;

    for (unsigned i = 0; i < s->ndisk; i++)
        spec_disk_fini(&s->disk[i]);
    for (size_t i = 0; o && i < o->nsource; i++)
        spec_source_fini(&o->source[i]);
    free(o);
    free(s->name);
    free(s->kernel);
    free(s->initrd);
    free(s->cmdline);
    free(s->cdrom);
    free(s->floppy);
    free(s->serial_file);
    *s = (struct spec){0};
}
