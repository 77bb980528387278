/* value.c - the parsers of the schema's table: from marked text to typed, bounded fields. */
#define _GNU_SOURCE
#include "spec/schema.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/suggest.h"
#include "base/url.h"

static int wrong_kind(const struct spec_parse *p, const struct spec_key *key,
                      const struct spec_node *node, const char *expected)
{
    char hint[160];

    snprintf(hint, sizeof hint, "%s: %s", key->name, key->form);
    return spec_error(p->e, node->at, hint, "\"%s\" must be %s, not %s", key->name, expected,
                      spec_node_kind_name(node));
}

static int replace(const struct spec_parse *p, char **field, char *text)
{
    if (!text)
        return error_set(p->e, ERR_NOMEM, "out of memory for the spec");
    free(*field);
    *field = text;
    return 0;
}

/* A single value of bounded length without line breaks or tabs. */
static int check_text(const struct spec_parse *p, const struct spec_key *key,
                      const struct spec_node *node, size_t min, size_t max)
{
    if (node->kind != SPEC_NODE_TEXT)
        return wrong_kind(p, key, node, "a single value");
    if (node->len < min)
        return spec_error(p->e, node->at, NULL, "\"%s\" must not be empty", key->name);
    if (node->len > max)
        return spec_error(p->e, node->at, NULL, "\"%s\" is %zu bytes long, the limit is %zu",
                          key->name, node->len, max);
    for (const char *c = node->text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return spec_error(p->e, node->at, NULL, "\"%s\" must be one line of plain text",
                              key->name);
    return 0;
}

int spec_parse_text(const struct spec_parse *p, const struct spec_key *key,
                    const struct spec_node *node, void *field)
{
    int r = check_text(p, key, node, key->min, key->max);
    return r < 0 ? r : replace(p, field, strdup(node->text));
}

static bool is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* A VM's name becomes a file name and a host name: nothing that either could misread. */
int spec_parse_name(const struct spec_parse *p, const struct spec_key *key,
                    const struct spec_node *node, void *field)
{
    int r = check_text(p, key, node, key->min, key->max);
    if (r < 0)
        return r;
    for (const char *c = node->text; *c; c++)
        if (!is_alnum(*c) && (c == node->text || !strchr("._-", *c)))
            return spec_error(p->e, node->at,
                              "letters, digits, '.', '_' and '-'; the first a letter or digit",
                              "\"%s\" has a character that a name cannot have", key->name);
    return replace(p, field, strdup(node->text));
}

int spec_parse_path(const struct spec_parse *p, const struct spec_key *key,
                    const struct spec_node *node, void *field)
{
    int r = check_text(p, key, node, 1, PATH_MAX - 1);
    if (r < 0)
        return r;
    if (node->text[0] == '/' || !p->dir[0] || url_is_remote(node->text))
        return replace(p, field, strdup(node->text));
    char *joined;
    if (asprintf(&joined, "%s/%s", p->dir, node->text) < 0)
        joined = NULL;
    return replace(p, field, joined);
}

static const char *nth_word(const void *list, size_t i)
{
    return ((const char *const *)list)[i];
}

/* The position of the node's word among key->words, or ERR_SPEC. */
static int find_word(const struct spec_parse *p, const struct spec_key *key,
                     const struct spec_node *node)
{
    char quoted[SPEC_QUOTE + 4], hint[160];

    if (node->kind != SPEC_NODE_TEXT)
        return wrong_kind(p, key, node, "one of its words");
    for (int i = 0; key->words[i]; i++)
        if (strcmp(key->words[i], node->text) == 0)
            return i;
    const char *near = suggest(node->text, nth_word, key->words);
    if (near)
        snprintf(hint, sizeof hint, "did you mean \"%s\"?", near);
    else
        snprintf(hint, sizeof hint, "%s: %s", key->name, key->form);
    return spec_error(p->e, node->at, hint, "\"%s\" cannot be \"%s\"", key->name,
                      spec_quote(quoted, node->text, node->len));
}

int spec_parse_word(const struct spec_parse *p, const struct spec_key *key,
                    const struct spec_node *node, void *field)
{
    int i = find_word(p, key, node);
    if (i < 0)
        return i;
    *(unsigned *)field = (unsigned)i; /* the type that GCC gives an enum without negative values */
    return 0;
}

int spec_parse_bool(const struct spec_parse *p, const struct spec_key *key,
                    const struct spec_node *node, void *field)
{
    bool yes = node->kind == SPEC_NODE_TEXT && strcmp(node->text, "true") == 0;
    bool no = node->kind == SPEC_NODE_TEXT && strcmp(node->text, "false") == 0;

    if (!yes && !no)
        return spec_error(p->e, node->at, NULL, "\"%s\" must be true or false", key->name);
    *(bool *)field = yes;
    return 0;
}

/* Decimal digits at *text, without a leading zero; moves *text behind them. */
static bool take_number(const char **text, uint64_t *n)
{
    const char *c = *text;

    if (*c < '0' || *c > '9' || (c[0] == '0' && c[1] >= '0' && c[1] <= '9'))
        return false;
    for (*n = 0; *c >= '0' && *c <= '9'; c++)
        if (!checked_mul_u64(*n, 10, n) || !checked_add_u64(*n, (uint64_t)(*c - '0'), n))
            return false;
    *text = c;
    return true;
}

int spec_parse_count(const struct spec_parse *p, const struct spec_key *key,
                     const struct spec_node *node, void *field)
{
    char quoted[SPEC_QUOTE + 4];
    const char *c = node->text;
    uint64_t n;

    if (node->kind != SPEC_NODE_TEXT)
        return wrong_kind(p, key, node, "a number");
    if (!take_number(&c, &n) || *c || n < key->min || n > key->max)
        return spec_error(p->e, node->at, NULL,
                          "\"%s\" must be a whole number from %llu to %llu, not \"%s\"", key->name,
                          (unsigned long long)key->min, (unsigned long long)key->max,
                          spec_quote(quoted, node->text, node->len));
    *(unsigned *)field = (unsigned)n;
    return 0;
}

/* "512M" or "512MiB" or bytes; false if it is no size or does not fit 64 bits. */
static bool take_size(const char *c, uint64_t *bytes, bool *unit)
{
    static const char units[] = "KMGT";

    if (!take_number(&c, bytes))
        return false;
    const char *u = *c ? strchr(units, *c) : NULL;
    *unit = u != NULL;
    if (u) {
        c += c[1] == 'i' && c[2] == 'B' ? 3 : 1;
        if (!checked_mul_u64(*bytes, 1ull << 10 * (u - units + 1), bytes))
            return false;
    }
    return *c == 0;
}

int spec_parse_size(const struct spec_parse *p, const struct spec_key *key,
                    const struct spec_node *node, void *field)
{
    char quoted[SPEC_QUOTE + 4], lo[32], hi[32], hint[64];
    uint64_t n;
    bool unit;

    if (node->kind != SPEC_NODE_TEXT)
        return wrong_kind(p, key, node, "a size");
    spec_quote(quoted, node->text, node->len);
    if (!take_size(node->text, &n, &unit))
        return spec_error(p->e, node->at, "a number and K, M, G or T, for example 512M or 2G",
                          "\"%s\" cannot be \"%s\"", key->name, quoted);
    snprintf(hint, sizeof hint, "a number without unit counts bytes: did you mean %lluM?",
             (unsigned long long)n);
    if (n < key->min || n > key->max)
        return spec_error(p->e, node->at, !unit && n > 0 && n <= key->max / MIB ? hint : NULL,
                          "\"%s\" must be from %s to %s, not %s%s", key->name,
                          spec_format_size(lo, key->min), spec_format_size(hi, key->max), quoted,
                          unit ? "" : " bytes");
    if (n % MIB)
        return spec_error(p->e, node->at, NULL, "\"%s\" must be a multiple of 1M", key->name);
    *(uint64_t *)field = n;
    return 0;
}

const char *spec_format_size(char buf[32], uint64_t bytes)
{
    static const char *const units[] = {"", "K", "M", "G", "T"};
    unsigned u = 0;

    while (u < 4 && bytes && bytes % 1024 == 0) {
        bytes /= 1024;
        u++;
    }
    snprintf(buf, 32, "%llu%s", (unsigned long long)bytes, units[u]);
    return buf;
}

int spec_parse_boot(const struct spec_parse *p, const struct spec_key *key,
                    const struct spec_node *node, void *field)
{
    const struct spec_node *item = node->kind == SPEC_NODE_LIST ? node->child : node;
    size_t count = node->kind == SPEC_NODE_LIST ? node->nchild : 1;
    enum spec_boot order[SPEC_MAX_BOOT];
    unsigned seen = 0, n = 0;

    if (count == 0)
        return spec_error(p->e, node->at, NULL, "\"%s\" must name a device", key->name);
    for (size_t i = 0; i < count; i++) {
        int w = find_word(p, key, &item[i]);
        if (w < 0)
            return w;
        if (seen & 1u << w)
            return spec_error(p->e, item[i].at, NULL, "\"%s\" names %s twice", key->name,
                              key->words[w]);
        seen |= 1u << w;
        order[n++] = (enum spec_boot)w; /* no word twice: at most SPEC_MAX_BOOT */
    }
    memcpy(p->spec->boot, order, sizeof order[0] * n);
    p->spec->nboot = n;
    return 0;
}

int spec_parse_members(const struct spec_parse *p, const struct spec_key *key,
                       const struct spec_node *node, void *field)
{
    struct spec_members *m = field;

    if (node->kind != SPEC_NODE_LIST)
        return wrong_kind(p, key, node, "a list");
    if (node->nchild == 0 || node->nchild > SPEC_MAX_MEMBERS)
        return spec_error(p->e, node->at, NULL, "\"%s\" must name 1 to %d images", key->name,
                          SPEC_MAX_MEMBERS);
    for (m->n = 0; m->n < node->nchild; m->n++) {
        int r = spec_parse_path(p, key, &node->child[m->n], &m->path[m->n]);
        if (r < 0)
            return r;
    }
    return 0;
}

/* What an array is called in messages: "RAID 1 of a.qcow2, b.qcow2". */
static int name_array(const struct spec_parse *p, const struct spec_node *node,
                      struct spec_disk *disk)
{
    char *name = NULL, *longer;

    if (disk->file)
        return spec_error(p->e, node->at, NULL, "a disk has \"file\" or \"members\", not both");
    if (disk->raid == SPEC_RAID_NONE || !disk->members.n)
        return spec_error(p->e, node->at, "{raid: 1, members: [PATH, PATH]}",
                          "an array needs \"raid\" and \"members\"");
    if (disk->media == SPEC_MEDIA_CDROM)
        return spec_error(p->e, node->at, NULL, "a CD-ROM cannot be an array");
    if (asprintf(&name, "RAID %u", disk->raid - SPEC_RAID_0) < 0)
        return replace(p, &disk->file, NULL);
    for (unsigned i = 0; i < disk->members.n; i++) {
        int n = asprintf(&longer, "%s%s %s", name, i ? "," : " of", disk->members.path[i]);
        free(name);
        name = n < 0 ? NULL : longer;
        if (!name)
            break;
    }
    return replace(p, &disk->file, name);
}

/* One item of `disks`: a path, or a map. The bus and the mode start at the table's defaults. */
static int parse_disk(const struct spec_parse *p, const struct spec_node *node,
                      struct spec_disk *disk)
{
    if (node->kind == SPEC_NODE_TEXT)
        return spec_parse_path(p, &spec_disk_schema[0], node, &disk->file);
    if (node->kind != SPEC_NODE_MAP)
        return spec_error(p->e, node->at, "- PATH, or: - {file: PATH, bus: ide}",
                          "a disk must be a path or a map, not %s", spec_node_kind_name(node));
    int r = spec_parse_map(p, spec_disk_schema, node, disk, NULL);
    if (r < 0)
        return r;
    if (disk->raid != SPEC_RAID_NONE || disk->members.n)
        r = name_array(p, node, disk);
    else if (disk->degraded)
        r = spec_error(p->e, node->at, NULL, "\"degraded\" needs \"raid\"");
    else if (!disk->file)
        r = spec_error(p->e, node->at, NULL, "a disk needs \"file\"");
    if (r < 0)
        return r;
    if (disk->media == SPEC_MEDIA_CDROM)
        disk->readonly = true;
    return 0;
}

int spec_parse_disks(const struct spec_parse *p, const struct spec_key *key,
                     const struct spec_node *node, void *field)
{
    struct spec *s = p->spec;

    if (node->kind == SPEC_NODE_TEXT)
        return spec_error(p->e, node->at, "for one disk write: disks: [PATH]",
                          "\"%s\" must be a list", key->name);
    if (node->kind != SPEC_NODE_LIST)
        return wrong_kind(p, key, node, "a list");
    if (node->nchild > SPEC_MAX_DISKS)
        return spec_error(p->e, node->child[SPEC_MAX_DISKS].at, NULL, "more than %d disks",
                          SPEC_MAX_DISKS);
    while (s->ndisk > 0)
        spec_disk_fini(&s->disk[--s->ndisk]);
    for (size_t i = 0; i < node->nchild; i++) {
        struct spec_disk *disk = &s->disk[s->ndisk++];
        *disk = (struct spec_disk){.bus = SPEC_BUS_VIRTIO};
        int r = parse_disk(p, &node->child[i], disk);
        if (r < 0)
            return r;
        s->origin->disk[i] = node->child[i].at;
    }
    return 0;
}

int spec_parse_serial(const struct spec_parse *p, const struct spec_key *key,
                      const struct spec_node *node, void *field)
{
    struct spec *s = p->spec;
    int kind = SPEC_SERIAL_FILE;

    if (node->kind == SPEC_NODE_MAP) {
        int r = spec_parse_map(p, spec_serial_schema, node, s, NULL);
        if (r < 0)
            return r;
        if (node->nchild == 0)
            return spec_error(p->e, node->at, NULL, "\"%s\" as a map needs \"file\"", key->name);
    } else {
        kind = find_word(p, key, node);
        if (kind == SPEC_SERIAL_FILE)
            return spec_error(p->e, node->at, "serial: {file: PATH}", "which file?");
        if (kind < 0)
            return kind;
        free(s->serial_file);
        s->serial_file = NULL;
    }
    s->serial = (enum spec_serial)kind;
    return 0;
}
