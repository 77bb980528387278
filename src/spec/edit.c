/* edit.c - replacing the bytes of one value in the text of a spec; see edit.h. */
#define _GNU_SOURCE
#include "spec/edit.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "spec/schema.h"

/* A parsed text. */
struct doc {
    struct spec_source src;
    struct spec_node root;
};

static void doc_fini(struct doc *d)
{
    spec_tree_fini(&d->root);
    spec_source_fini(&d->src);
}
#define CLEANUP_DOC __attribute__((cleanup(doc_fini)))

static int no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "out of memory for the spec's text");
}

static int doc_parse(struct doc *d, const char *path, const char *text, struct error *e)
{
    int r = spec_source_text(&d->src, path, text, strlen(text), e);
    if (r == 0)
        r = spec_tree_parse(&d->src, &d->root, e);
    if (r == 0 && d->root.kind != SPEC_NODE_MAP && d->root.kind != SPEC_NODE_NULL)
        r = spec_error(e, d->root.at, NULL, "a spec file is a map of \"key: value\" lines");
    return r;
}

/* Position of the key in root->child, or -1. */
static int find_key(const struct spec_node *root, const char *key)
{
    for (size_t i = 0; i + 1 < root->nchild; i += 2)
        if (root->child[i].kind == SPEC_NODE_TEXT && strcmp(root->child[i].text, key) == 0)
            return (int)i;
    return -1;
}

static bool same(const struct spec_node *a, const struct spec_node *b)
{
    if (a->kind != b->kind || a->nchild != b->nchild)
        return false;
    if (a->kind == SPEC_NODE_TEXT && (a->len != b->len || memcmp(a->text, b->text, a->len) != 0))
        return false;
    for (size_t i = 0; i < a->nchild; i++)
        if (!same(&a->child[i], &b->child[i]))
            return false;
    return true;
}

/* ---- writing a value ---- */

/* YAML 1.1, 5.5: double quotes with escapes can hold any text. */
static void put_text(FILE *f, const char *s)
{
    fputc('"', f);
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            fputc('\\', f);
        if ((unsigned char)*s < 0x20)
            fprintf(f, "\\x%02x", (unsigned)*s);
        else
            fputc(*s, f);
    }
    fputc('"', f);
}

static void put_node(FILE *f, const struct spec_node *n)
{
    bool map = n->kind == SPEC_NODE_MAP;
    if (n->kind == SPEC_NODE_TEXT)
        put_text(f, n->text);
    if (n->kind == SPEC_NODE_NULL)
        fputc('~', f);
    if (n->kind != SPEC_NODE_LIST && !map)
        return;
    fputc(map ? '{' : '[', f);
    for (size_t i = 0; i < n->nchild; i++) {
        put_node(f, &n->child[i]);
        if (i + 1 < n->nchild)
            fputs(map && i % 2 == 0 ? ": " : ", ", f);
    }
    fputc(map ? '}' : ']', f);
}

static char *node_text(const struct spec_node *n)
{
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    if (!f)
        return NULL;
    put_node(f, n);
    if (fclose(f) == 0)
        return text;
    free(text);
    return NULL;
}

/* ---- cutting the text ---- */

/* text[..from) + insert + text[to..) */
static char *splice(const char *text, size_t from, size_t to, const char *insert)
{
    char *out;
    return asprintf(&out, "%.*s%s%s", (int)from, text, insert, text + to) < 0 ? NULL : out;
}

static bool blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The end of a node without the line breaks that a block scalar includes. */
static size_t end_of(const char *text, const struct spec_node *n)
{
    size_t to = n->to;
    while (to > n->from && blank(text[to - 1]))
        to--;
    return to;
}

static size_t line_start(const char *text, size_t at)
{
    while (at > 0 && text[at - 1] != '\n')
        at--;
    return at;
}

/* The first byte of the next line, or the end of the text. */
static size_t line_end(const char *text, size_t at)
{
    const char *nl = strchr(text + at, '\n');
    return nl ? (size_t)(nl - text) + 1 : at + strlen(text + at);
}

/* Behind the ':' that follows a key; 0: it is written in some other way. */
static size_t behind_colon(const char *text, const struct spec_node *key)
{
    size_t at = key->to;
    while (text[at] == ' ' || text[at] == '\t')
        at++;
    return text[at] == ':' ? at + 1 : 0;
}

static char *change_value(const char *text, const struct spec_node *key,
                          const struct spec_node *value, const char *to)
{
    CLEANUP_FREE char *spaced = NULL;
    size_t colon = behind_colon(text, key), end = end_of(text, value);
    bool block = (value->kind == SPEC_NODE_LIST || value->kind == SPEC_NODE_MAP) && !value->flow;
    if (!block && value->kind != SPEC_NODE_NULL)
        return splice(text, value->from, end, to);
    if (!colon || asprintf(&spaced, " %s", to) < 0)
        return NULL;
    if (!block)
        return splice(text, colon, max_u64(colon, end), spaced);
    /* A block's lines go; comments before it stay. */
    size_t from = line_start(text, value->from), next = line_end(text, end);
    if (from < colon)
        return splice(text, colon, end, spaced);
    CLEANUP_FREE char *rest = splice(text, from, next, "");
    return rest ? splice(rest, colon, colon, spaced) : NULL;
}

static char *remove_pair(const char *text, const struct spec_node *root, size_t i)
{
    const struct spec_node *key = &root->child[i], *value = key + 1;
    size_t end = max_u64(end_of(text, value), behind_colon(text, key));
    if (!root->flow)
        return splice(text, line_start(text, key->from), line_end(text, end), "");
    if (i + 2 < root->nchild)
        return splice(text, key->from, root->child[i + 2].from, "");
    return splice(text, i ? root->child[i - 1].to : key->from, end, "");
}

static char *add_pair(const char *text, const struct spec_node *root, const char *key,
                      const char *value)
{
    CLEANUP_FREE char *pair = NULL;
    size_t len = strlen(text);
    if (root->kind == SPEC_NODE_MAP && root->flow) {
        size_t at = root->nchild ? root->child[root->nchild - 1].to : root->from + 1;
        if (asprintf(&pair, "%s%s: %s", root->nchild ? ", " : "", key, value) < 0)
            return NULL;
        return splice(text, at, at, pair);
    }
    size_t at = len, indent = 0;
    if (root->nchild) {
        at = line_end(text, end_of(text, &root->child[root->nchild - 1]));
        indent = root->child[0].from - line_start(text, root->child[0].from);
    }
    bool broken = at > 0 && text[at - 1] != '\n';
    if (asprintf(&pair, "%s%*s%s: %s\n", broken ? "\n" : "", (int)indent, "", key, value) < 0)
        return NULL;
    return splice(text, at, at, pair);
}

/* ---- set ---- */

/* Whether `text` says what `old` says, but `value` (NULL: nothing) for `key`. */
static bool is_result(const char *path, const char *text, const struct spec_node *old,
                      const char *key, const struct spec_node *value)
{
    CLEANUP_DOC struct doc d = {0};
    struct error unused;
    if (doc_parse(&d, path, text, &unused) < 0)
        return false;
    size_t others = 0, want = 0;
    for (size_t i = 0; i + 1 < old->nchild; i += 2) {
        if (old->child[i].kind == SPEC_NODE_TEXT && strcmp(old->child[i].text, key) == 0)
            continue;
        int k = old->child[i].kind == SPEC_NODE_TEXT ? find_key(&d.root, old->child[i].text) : -1;
        if (k < 0 || !same(&old->child[i + 1], &d.root.child[k + 1]))
            return false;
        want += 2;
    }
    int k = find_key(&d.root, key);
    others = d.root.nchild - (k >= 0 ? 2 : 0);
    if (others != want || (k >= 0) != (value != NULL))
        return false;
    return k < 0 || same(&d.root.child[k + 1], value);
}

static char *apply(const struct doc *d, const char *key, const char *value)
{
    const char *text = d->src.text;
    int k = find_key(&d->root, key);
    if (value)
        return k >= 0 ? change_value(text, &d->root.child[k], &d->root.child[k + 1], value)
                      : add_pair(text, &d->root, key, value);
    return k >= 0 ? remove_pair(text, &d->root, (size_t)k) : strdup(text);
}

/* As the user wrote the value, if that works in its new place; else quoted. */
static int set_value(const char *path, const struct doc *d, const char *key, const char *text,
                     const struct spec_node *value, char **out, struct error *e)
{
    for (int quoted = 0; quoted < 2; quoted++) {
        CLEANUP_FREE char *mine = value && quoted ? node_text(value) : NULL;
        char *result = apply(d, key, !value ? NULL : quoted ? mine : text);
        if (result && is_result(path, result, &d->root, key, value)) {
            *out = result;
            return 0;
        }
        free(result);
    }
    return error_set(e, ERR_SPEC,
                     "%s: \"%s\" is written in a way that cannot be changed automatically; change "
                     "it with an editor",
                     path, key);
}

int spec_edit_set(const char *path, const char *text, const char *set, char **out, struct error *e)
{
    CLEANUP_DOC struct doc d = {0}, value = {0};
    int r = doc_parse(&d, path, text, e);
    if (r == 0)
        r = spec_source_set(&value.src, set, e);
    if (r < 0)
        return r;
    CLEANUP_FREE char *key = strndup(value.src.text, value.src.value - 1);
    if (!key)
        return no_memory(e);
    if (spec_key_find(spec_schema, key) < 0)
        return spec_key_unknown(spec_schema, key, (struct spec_mark){&value.src, 0, 0}, e);
    r = spec_tree_parse(&value.src, &value.root, e);
    if (r < 0)
        return r;
    /* Without a comment or blanks around it. */
    value.src.text[end_of(value.src.text, &value.root)] = 0;
    const char *raw = value.src.text + value.root.from;
    bool none = value.root.kind == SPEC_NODE_NULL;
    return set_value(path, &d, key, raw, none ? NULL : &value.root, out, e);
}

/* ---- paths ---- */

struct paths {
    const char *path;
    spec_path_fn *fn;
    void *ctx;
    struct error *e;
};

static const struct spec_node *member(const struct spec_node *map, const char *key)
{
    int k = map->kind == SPEC_NODE_MAP ? find_key(map, key) : -1;
    return k < 0 ? NULL : &map->child[k + 1];
}

static bool says(const struct spec_node *map, const char *key, const char *word)
{
    const struct spec_node *v = member(map, key);
    return v && v->kind == SPEC_NODE_TEXT && strcmp(v->text, word) == 0;
}

/* Asks for one path; a new one is put into *text in its place. Paths are visited from the last to
 * the first, so that the marks before one stay true. */
static int visit(const struct paths *p, const struct spec_node *n, struct spec_path ask,
                 char **text)
{
    CLEANUP_FREE char *to = NULL;
    if (!n || n->kind != SPEC_NODE_TEXT)
        return 0;
    ask.path = n->text;
    int r = p->fn(p->ctx, &ask, &to, p->e);
    if (r < 0 || !to)
        return r;
    const struct spec_node now = {.kind = SPEC_NODE_TEXT, .text = to};
    CLEANUP_FREE char *value = node_text(&now);
    char *result = value ? splice(*text, n->from, end_of(*text, n), value) : NULL;
    if (!result)
        return no_memory(p->e);
    free(*text);
    *text = result;
    return 0;
}

static int visit_disks(const struct paths *p, const struct spec_node *list, char **text)
{
    int r = 0;
    for (size_t i = list->kind == SPEC_NODE_LIST ? list->nchild : 0; i-- > 0 && r == 0;) {
        const struct spec_node *d = &list->child[i], *format = member(d, "format");
        struct spec_path ask = {
            .key = "disks",
            .index = (unsigned)i,
            .written = !says(d, "readonly", "true") && !says(d, "media", "cdrom"),
            .format = format && format->kind == SPEC_NODE_TEXT ? format->text : NULL};
        r = visit(p, d->kind == SPEC_NODE_MAP ? member(d, "file") : d, ask, text);
    }
    return r;
}

int spec_edit_paths(const char *path, const char *text, spec_path_fn *fn, void *ctx, char **out,
                    struct error *e)
{
    CLEANUP_DOC struct doc d = {0};
    struct paths p = {path, fn, ctx, e};
    int r = doc_parse(&d, path, text, e);
    if (r < 0)
        return r;
    char *now = strdup(d.src.text);
    if (!now)
        return no_memory(e);
    for (size_t i = d.root.nchild; i >= 2 && r == 0; i -= 2) {
        const struct spec_node *key = &d.root.child[i - 2], *value = key + 1;
        int k = key->kind == SPEC_NODE_TEXT ? spec_key_find(spec_schema, key->text) : -1;
        if (k < 0)
            continue;
        struct spec_path ask = {.key = key->text, .written = strcmp(key->text, "floppy") == 0};
        if (strcmp(key->text, "disks") == 0)
            r = visit_disks(&p, value, &now);
        else if (spec_schema[k].parse == spec_parse_path)
            r = visit(&p, value, ask, &now);
        else if (strcmp(key->text, "serial") == 0)
            r = visit(&p, member(value, "file"), ask, &now);
    }
    if (r < 0)
        free(now);
    else
        *out = now;
    return r;
}
