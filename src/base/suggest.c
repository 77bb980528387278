/* suggest.c - edit distance over short words; see suggest.h. */
#include "base/suggest.h"

#include <string.h>
#include <strings.h>

#define MAX_WORD 63

static unsigned lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned)(c - 'A' + 'a') : (unsigned char)c;
}

static unsigned min2(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* Optimal string alignment with three rows: the one being filled and the two before it. */
unsigned suggest_distance(const char *a, const char *b)
{
    size_t la = strnlen(a, MAX_WORD), lb = strnlen(b, MAX_WORD);
    unsigned row[3][MAX_WORD + 1] = {{0}};

    for (size_t j = 0; j <= lb; j++)
        row[0][j] = (unsigned)j;
    for (size_t i = 1; i <= la; i++) {
        unsigned *cur = row[i % 3];
        const unsigned *prev = row[(i + 2) % 3], *prev2 = row[(i + 1) % 3];
        cur[0] = (unsigned)i;
        for (size_t j = 1; j <= lb; j++) {
            unsigned differ = lower(a[i - 1]) != lower(b[j - 1]);
            cur[j] = min2(min2(prev[j], cur[j - 1]) + 1, prev[j - 1] + differ);
            if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
                lower(a[i - 2]) == lower(b[j - 1]))
                cur[j] = min2(cur[j], prev2[j - 2] + 1);
        }
    }
    return row[la % 3][lb];
}

const char *suggest(const char *word, suggest_nth *nth, const void *list)
{
    size_t len = strlen(word);
    unsigned best = len < 3 ? 1 : len < 6 ? 2 : 3;
    const char *found = NULL, *c;

    for (size_t i = 0; (c = nth(list, i)); i++) {
        unsigned d = suggest_distance(word, c);
        if (len >= 2 && strncasecmp(word, c, len) == 0)
            d = min2(d, 1); /* an abbreviation: "mem" for "memory" */
        if (d >= len)
            continue; /* nothing of the word would be left */
        if (d < best || (d == best && !found)) {
            best = d;
            found = c;
        }
    }
    return found;
}
