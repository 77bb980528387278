/*
 * source.h - the text that a spec value was written in, and errors that point into it.
 *
 * A source is the spec file or one "--set key=value". Lines and columns count from 0 inside the
 * program and from 1 in messages; a column is one character (not byte, not screen cell).
 */
#ifndef SOSIA_SPEC_SOURCE_H
#define SOSIA_SPEC_SOURCE_H

#include "base/error.h"
#include "base/types.h"

#define SPEC_MAX_TEXT (1u * 1024 * 1024) /* bytes of a spec file */
#define SPEC_QUOTE    48                 /* a quoted piece is cut to this many bytes */

struct spec_source {
    char *name;   /* owned: the file's path, or "--set key=value" */
    char *text;   /* owned, NUL-terminated, checked UTF-8 without NUL */
    size_t len;   /* bytes of text */
    size_t value; /* where YAML begins: after "key=" of an override, else 0 */
    bool is_file;
};

struct spec_mark {
    const struct spec_source *src; /* NULL: not written anywhere */
    size_t line, column;
};

/* Reads a file of up to SPEC_MAX_TEXT bytes. ERR_IO, ERR_NOMEM; ERR_SPEC if it is no UTF-8 text. */
int spec_source_file(struct spec_source *src, const char *path, struct error *e);
/* Takes a copy of text that is, or is to be, in the file `path`. ERR_SPEC if it is no UTF-8 text,
 * ERR_NOMEM. */
int spec_source_text(struct spec_source *src, const char *path, const char *text, size_t len,
                     struct error *e);
/* Takes "key=value". ERR_SPEC if '=' is missing or it is no UTF-8 text, ERR_NOMEM. */
int spec_source_set(struct spec_source *src, const char *set, struct error *e);
void spec_source_fini(struct spec_source *src);

/* Fills *e with the place, the message, the source line with a caret below, and the hint (may be
 * NULL) on a line of its own. Returns ERR_SPEC. */
int spec_error(struct error *e, struct spec_mark at, const char *hint, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Copies text into a buffer of SPEC_QUOTE + 4 bytes, safe for a terminal: control characters become
 * '?', a long text ends with "...". Returns the buffer. */
const char *spec_quote(char buf[SPEC_QUOTE + 4], const char *text, size_t len);

#endif
