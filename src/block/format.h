/*
 * format.h - image formats: one table behind opening, `sosia disk` and the spec key `format`.
 */
#ifndef SOSIA_BLOCK_FORMAT_H
#define SOSIA_BLOCK_FORMAT_H

#include "block/node.h"

/* Bytes of a file's beginning that probe() sees; zeroes beyond its end. */
#define FORMAT_PROBE 4096

/* How the files are opened that an image names. A path from an image is untrusted text. */
struct format_opener {
    /* Opens the file that `name` (from the image whose own file is `from`) stands for, with its
     * format; refuses what the user did not allow. "" or NULL: the format is probed, and the files
     * that the file then names are refused. "file": the bare file, for the parts of an image.
     * `depth` counts backing files; the opener counts for itself, too. */
    int (*open)(const struct format_opener *o, const char *from, const char *name,
                const char *format, bool readonly, unsigned depth, struct node **out,
                struct error *e);
    bool allow_outside; /* backing files outside the image's folder */
    unsigned depth;     /* of this image in its chain; FORMAT_MAX_DEPTH is refused */
};
#define FORMAT_MAX_DEPTH 64

struct format_open {
    const char *path; /* of the image, for messages and for what it names relatively */
    bool readonly;
    bool check;      /* opened to be checked or repaired: damage is no reason to refuse */
    bool no_backing; /* leave the backing node out: for tools that look at one layer */
    /* The disk as it was at the internal snapshot with this ID, else with this name; read-only.
     * NULL: as it is. For formats that have `snapshots`; ERR_STATE: there is none like that. */
    const char *snapshot;
    const struct format_opener *opener;
    bool guessed; /* the format was probed, not stated */
};

/* A value of an option of create; the name is one of the format's table. */
struct format_option {
    const char *name, *help, *def;
    const char *const *words; /* NULL: a number or a size, or if `max` is 0 a text */
    uint64_t min, max;        /* of a number */
};

struct format_create {
    uint64_t size;              /* bytes */
    const char *backing;        /* as stored; NULL: none */
    const char *backing_format; /* NULL: none */
    const char *const *value;   /* by position in `options`; NULL: the default */
};

/* What check found; counts. */
struct format_check {
    uint64_t errors, leaks; /* wrong data possible; space lost */
    uint64_t errors_fixed, leaks_fixed;
    uint64_t allocated, total, compressed;    /* clusters */
    uint64_t end;                             /* bytes of the file in use */
    void (*say)(void *ctx, const char *line); /* each finding; may be NULL */
    void *ctx;
    void (*progress)(void *ctx, uint64_t done, uint64_t of); /* may be NULL */
};
#define FORMAT_FIX_LEAKS  (1u << 0)
#define FORMAT_FIX_ERRORS (1u << 1)

struct format {
    const char *name, *help;
    const char *suffixes;                /* "vmdk": of file names, for `disk convert`'s guess */
    const struct format_option *options; /* of create; a NULL name ends it; NULL: none */
    bool snapshots;                      /* internal ones, which can be read */
    bool (*probe)(const uint8_t head[FORMAT_PROBE], uint64_t file_size);
    /* Takes over `file` when it succeeds. ERR_FORMAT (a damaged or hostile image, or a feature that
     * is not supported: the message says which), ERR_IO, ERR_NOMEM. */
    int (*open)(struct node *file, const struct format_open *o, struct node **out, struct error *e);
    /* Writes an empty image to an empty file; NULL: read-only format. */
    int (*create)(struct node *file, const struct format_create *c, struct error *e);
    int (*check)(struct node *n, unsigned fix, struct format_check *out, struct error *e);
    /* The format's own facts for `disk info`, as a JSON object (new reference); NULL: none. */
    struct json_t *(*info)(struct node *n);
    /* Writes data that fills a cluster in compressed form; NULL: it cannot. */
    int (*write_compressed)(struct node *n, const void *buf, size_t len, uint64_t offset);
    /* Changes the name of the backing file, which reads the same. NULL: it has none. */
    int (*rebase)(struct node *n, const char *backing, const char *backing_format, struct error *e);
};

/* All formats, raw last: it takes any file. A NULL ends it. */
extern const struct format *const formats[];
/* NULL: no such format. */
const struct format *format_find(const char *name);
/* The format whose probe() knows these bytes; never NULL, raw takes any. */
const struct format *format_probe(const uint8_t head[FORMAT_PROBE], uint64_t file_size);
/* "raw, qcow2 ..." for messages. */
void format_names(char *out, size_t size);

#endif
