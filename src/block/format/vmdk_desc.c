/*
 * vmdk_desc.c - the descriptor of a vmdk image: lines `key=value`, and one line for each extent:
 * access, sectors, type, "name", offset. Comments begin with '#'. Keys that do not change what the
 * disk holds are skipped.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "block/format/vmdk_int.h"

/* A part of a line; never beyond its end. */
struct cursor {
    const char *p, *end;
};

static void skip_blanks(struct cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t' || *c->p == '\r'))
        c->p++;
}

/* The characters up to a blank, '=' or the end. */
static struct cursor take_word(struct cursor *c)
{
    skip_blanks(c);
    struct cursor w = {c->p, c->p};
    while (c->p < c->end && !strchr(" \t\r=", *c->p))
        c->p++;
    w.end = c->p;
    return w;
}

static bool is_word(const struct cursor *w, const char *word)
{
    size_t n = strlen(word);
    return (size_t)(w->end - w->p) == n && strncasecmp(w->p, word, n) == 0;
}

/* All of the word is a number; `base` 10 or 16. */
static bool to_number(const struct cursor *w, unsigned base, uint64_t *out)
{
    uint64_t v = 0;
    for (const char *p = w->p; p < w->end; p++) {
        int digit = isdigit((unsigned char)*p)    ? *p - '0'
                    : isxdigit((unsigned char)*p) ? (*p | 32) - 'a' + 10
                                                  : 99;
        if ((unsigned)digit >= base || v > (UINT64_MAX - (unsigned)digit) / base)
            return false;
        v = v * base + (unsigned)digit;
    }
    *out = v;
    return w->p < w->end;
}

/* A text in double quotes, allocated; NULL with *bad false: there is none. */
static char *take_quoted(struct cursor *c, bool *bad)
{
    *bad = false;
    skip_blanks(c);
    if (c->p == c->end || *c->p != '"')
        return NULL;
    const char *from = ++c->p;
    const char *to = memchr(from, '"', (size_t)(c->end - from));
    *bad = !to;
    if (!to)
        return NULL;
    c->p = to + 1;
    char *s = strndup(from, (size_t)(to - from));
    *bad = !s;
    return s;
}

static int find_kind(const struct cursor *w, enum vmdk_kind *out, struct error *e)
{
    static const struct {
        const char *name;
        enum vmdk_kind kind;
    } kinds[] = {
        {"FLAT", VMDK_FLAT}, {"VMFS", VMDK_FLAT}, {"SPARSE", VMDK_SPARSE}, {"ZERO", VMDK_ZERO}};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (is_word(w, kinds[i].name)) {
            *out = kinds[i].kind;
            return 0;
        }
    return error_set(e, ERR_FORMAT,
                     "an extent is of type '%.*s', which is not supported; FLAT, VMFS, SPARSE and "
                     "ZERO are",
                     (int)min_u64((uint64_t)(w->end - w->p), 20), w->p);
}

/* What follows the access word of an extent's line. */
static int parse_extent(struct cursor *c, struct vmdk_desc *d, struct error *e)
{
    struct vmdk_line *l = &d->line[d->nline];
    bool bad;
    *l = (struct vmdk_line){0};
    struct cursor sectors = take_word(c), kind = take_word(c);
    if (!to_number(&sectors, 10, &l->sectors) || l->sectors == 0)
        return error_set(e, ERR_FORMAT, "an extent's size is no number of sectors");
    int rc = find_kind(&kind, &l->kind, e);
    if (rc)
        return rc;
    d->nline++; /* owns the name from now on */
    l->name = take_quoted(c, &bad);
    if (bad || (!l->name && l->kind != VMDK_ZERO))
        return error_set(e, ERR_FORMAT, "an extent has no file name");
    skip_blanks(c);
    if (c->p < c->end) {
        struct cursor offset = take_word(c);
        if (!to_number(&offset, 10, &l->offset))
            return error_set(e, ERR_FORMAT, "an extent's offset is no number");
    }
    return 0;
}

static int add_extent(struct cursor *c, struct vmdk_desc *d, struct error *e)
{
    if (d->nline == VMDK_MAX_EXTENTS)
        return error_set(e, ERR_LIMIT, "the image has more than %u extents", VMDK_MAX_EXTENTS);
    if (!d->line && !(d->line = calloc(VMDK_MAX_EXTENTS, sizeof *d->line)))
        return error_set(e, ERR_NOMEM, "out of memory");
    return parse_extent(c, d, e);
}

static int parse_cid(struct cursor *c, uint32_t *out, struct error *e)
{
    uint64_t v;
    struct cursor w = take_word(c);
    if (!to_number(&w, 16, &v) || v > UINT32_MAX)
        return error_set(e, ERR_FORMAT, "a content ID in the descriptor is no number");
    *out = (uint32_t)v;
    return 0;
}

/* The value of a key that matters. */
static int parse_value(const struct cursor *key, struct cursor *c, struct vmdk_desc *d,
                       struct error *e)
{
    bool bad = false;
    if (is_word(key, "CID"))
        return parse_cid(c, &d->cid, e);
    if (is_word(key, "parentCID"))
        return parse_cid(c, &d->parent_cid, e);
    if (is_word(key, "parentFileNameHint") && !d->parent)
        d->parent = take_quoted(c, &bad);
    if (is_word(key, "createType")) {
        char *type = take_quoted(c, &bad);
        if (type)
            strncpy(d->type, type, sizeof d->type - 1);
        free(type);
    }
    if (bad)
        return error_set(e, ERR_FORMAT, "the descriptor's '%.*s' has no end",
                         (int)(key->end - key->p), key->p);
    return 0;
}

static int parse_line(struct cursor c, struct vmdk_desc *d, struct error *e)
{
    struct cursor first = take_word(&c);
    skip_blanks(&c);
    if (first.p == first.end || *first.p == '#')
        return 0;
    if (c.p < c.end && *c.p == '=') {
        c.p++;
        return parse_value(&first, &c, d, e);
    }
    if (is_word(&first, "RW") || is_word(&first, "RDONLY"))
        return add_extent(&c, d, e);
    if (is_word(&first, "NOACCESS"))
        return error_set(e, ERR_FORMAT, "the image says that an extent must not be accessed");
    return 0;
}

int vmdk_desc_parse(const char *text, size_t len, struct vmdk_desc *d, struct error *e)
{
    const char *end = text + strnlen(text, len);
    *d = (struct vmdk_desc){.parent_cid = VMDK_NO_CID};
    for (int rc; text < end;) {
        const char *nl = memchr(text, '\n', (size_t)(end - text));
        const char *stop = nl ? nl : end;
        rc = parse_line((struct cursor){text, stop}, d, e);
        if (rc)
            return rc;
        text = stop + 1;
    }
    return 0;
}

void vmdk_desc_free(struct vmdk_desc *d)
{
    for (unsigned i = 0; i < d->nline; i++)
        free(d->line[i].name);
    free(d->line);
    free(d->parent);
    *d = (struct vmdk_desc){0};
}
