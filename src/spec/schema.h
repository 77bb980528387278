/*
 * schema.h - the keys of a spec file: the one table behind the parser, `sosia spec`, `sosia spec
 * --defaults` and the tests of sosia.yaml(5).
 */
#ifndef SOSIA_SPEC_SCHEMA_H
#define SOSIA_SPEC_SCHEMA_H

#include "spec/spec.h"
#include "spec/tree.h"

struct spec_key;

/* What a value parser needs to know beside the value. */
struct spec_parse {
    struct spec *spec;
    const char *dir; /* relative paths start here; "": where the program runs */
    struct error *e;
};

/* Parses `node` into the field and replaces what was there. ERR_SPEC, ERR_NOMEM. */
typedef int spec_parser(const struct spec_parse *p, const struct spec_key *key,
                        const struct spec_node *node, void *field);

struct spec_key {
    const char *name;
    spec_parser *parse;
    size_t offset;    /* of the field in struct spec, or in the element of a list */
    const char *form; /* how a value is written, for people */
    const char *def;  /* the default as a spec file writes it; NULL: not given */
    const char *help; /* one line */
    const char *const
        *words;        /* enumerations: the words in the order of the enum, NULL at the end */
    bool hardware;     /* what the guest sees of the machine: a saved state fits one value only */
    uint64_t min, max; /* numbers and sizes: bounds; texts: bounds of the length in bytes */
};

/* In the order of the manual. A NULL name ends each table. */
extern const struct spec_key spec_schema[];
extern const struct spec_key spec_disk_schema[];   /* a map in `disks` */
extern const struct spec_key spec_serial_schema[]; /* the map form of `serial` */

#define SPEC_SCHEMA_KEYS 16 /* keys of spec_schema */

/* Where the values of a spec are written; owned by the spec. */
struct spec_origin {
    struct spec_mark key[SPEC_SCHEMA_KEYS]; /* by position in spec_schema; src NULL: default */
    struct spec_mark disk[SPEC_MAX_DISKS];
    size_t nsource;
    struct spec_source source[]; /* the file, then the overrides */
};

/* Parses the map `node` by a table into the struct at `base`. `marks` (may be NULL) gets, by table
 * position, where each value stands. */
int spec_parse_map(const struct spec_parse *p, const struct spec_key *table,
                   const struct spec_node *node, void *base, struct spec_mark *marks);

/* Position of a key in a table, or -1. */
int spec_key_find(const struct spec_key *table, const char *name);
/* Unknown key: fills the error, with the nearest key as a hint. */
int spec_key_unknown(const struct spec_key *table, const char *name, struct spec_mark at,
                     struct error *e);

/* The parsers of the table. */
spec_parser spec_parse_name, spec_parse_text, spec_parse_path, spec_parse_word, spec_parse_bool,
    spec_parse_count, spec_parse_size, spec_parse_boot, spec_parse_disks, spec_parse_members,
    spec_parse_serial;

void spec_disk_fini(struct spec_disk *d);

/* "512M": the largest unit that is exact. */
const char *spec_format_size(char buf[32], uint64_t bytes);

#endif
