/*
 * suggest.h - "did you mean ...?" for keys, words and verbs.
 */
#ifndef SOSIA_BASE_SUGGEST_H
#define SOSIA_BASE_SUGGEST_H

#include <stddef.h>

/* Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`, ignoring ASCII case.
 * Words longer than 63 bytes are compared by their first 63. */
unsigned suggest_distance(const char *a, const char *b);

/* The i-th candidate; NULL ends the list. */
typedef const char *suggest_nth(const void *list, size_t i);

/* The candidate that `word` was probably meant to be, or NULL if none is near enough. */
const char *suggest(const char *word, suggest_nth *nth, const void *list);

#endif
