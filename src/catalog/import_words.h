/*
 * import_words.h - command lines: the words that a shell would make of a text, and QEMU's lists of
 * properties, "file=a.img,if=virtio".
 */
#ifndef SOSIA_CATALOG_IMPORT_WORDS_H
#define SOSIA_CATALOG_IMPORT_WORDS_H

#include "base/error.h"
#include "base/types.h"

#define WORDS_MAX 2048
#define PROPS_MAX 64

struct words {
    char *word[WORDS_MAX]; /* in the text that was split */
    unsigned n;
    char ended_by; /* an operator of the shell at which the reading ended; or 0 */
    bool expands;  /* a shell would have replaced something ($, `) that is left as it is */
};

/* Splits in place, by the quoting rules of the shell (POSIX.1-2017, Shell 2.2): quotes,
 * backslashes, lines that go on, comments. ERR_LIMIT; ERR_FORMAT: a quote has no end. */
int words_split(char *text, struct words *w, struct error *e);

struct props {
    struct prop {
        const char *key, *value;
        bool used;
    } prop[PROPS_MAX];
    unsigned n;
    bool more; /* there was no room for all */
};

/* Splits in place at commas; ",," is a comma. `implied` is the key of a first item without one
 * (NULL: none has). A key without a value is "on". */
void props_split(char *text, const char *implied, struct props *p);
/* The same list from a JSON object, as text; what lies deeper is "file.filename=...". Allocated;
 * NULL: it is no object, or there is no memory. */
char *props_from_json(const char *json);
/* The last value of a key, or NULL; it counts as used. */
const char *props_get(struct props *p, const char *key);
/* Whether a key is on. */
bool props_on(struct props *p, const char *key);

#endif
