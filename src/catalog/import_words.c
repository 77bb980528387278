/* import_words.c - see import_words.h. */
#include "catalog/import_words.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_DEPTH 4 /* QEMU's options are hardly deeper; what is gets lost as a whole */

/* The text is read at `s` and written at `to`, which never overtakes it. */
struct splitting {
    const char *s;
    char *to;
    struct words *w;
};

static void take_double_quoted(struct splitting *p)
{
    for (p->s++; *p->s && *p->s != '"'; p->s++) {
        if (*p->s == '\\' && p->s[1] == '\n') {
            p->s++;
            continue;
        }
        if (*p->s == '\\' && p->s[1] && strchr("$`\"\\", p->s[1]))
            p->s++;
        else if (*p->s == '$' || *p->s == '`')
            p->w->expands = true;
        *p->to++ = *p->s;
    }
}

static void take_single_quoted(struct splitting *p)
{
    for (p->s++; *p->s && *p->s != '\''; p->s++)
        *p->to++ = *p->s;
}

/* One word, up to a blank or an operator. ERR_FORMAT. */
static int take_word(struct splitting *p, struct error *e)
{
    for (; *p->s && !strchr(" \t\r\n;|&<>", *p->s); p->s++) {
        char c = *p->s;
        if (c == '\'')
            take_single_quoted(p);
        else if (c == '"')
            take_double_quoted(p);
        else if (c == '\\' && p->s[1] == '\n')
            p->s++;
        else if (c == '\\' && p->s[1])
            *p->to++ = *++p->s;
        else
            *p->to++ = c;
        if ((c == '\'' || c == '"') && *p->s != c)
            return error_set(e, ERR_FORMAT, "a quote (%c) has no end", c);
        p->w->expands |= c == '$' || c == '`';
    }
    return 0;
}

/* Blanks, ends of lines with and without a backslash, comments. */
static void skip_between(struct splitting *p)
{
    for (;;) {
        if (p->s[0] == '\\' && p->s[1] == '\n')
            p->s += 2;
        else if (p->s[0] == '\\' && p->s[1] == '\r' && p->s[2] == '\n')
            p->s += 3;
        else if (*p->s && strchr(" \t\r\n", *p->s))
            p->s++;
        else if (*p->s == '#')
            p->s += strcspn(p->s, "\n");
        else
            return;
    }
}

int words_split(char *text, struct words *w, struct error *e)
{
    struct splitting p = {text, text, w};
    w->n = 0;
    w->ended_by = 0;
    w->expands = false;
    for (;;) {
        skip_between(&p);
        if (!*p.s)
            return 0;
        if (strchr(";|&<>", *p.s)) {
            w->ended_by = *p.s;
            return 0;
        }
        if (w->n == WORDS_MAX)
            return error_set(e, ERR_LIMIT, "more than %u words", WORDS_MAX);
        w->word[w->n++] = p.to;
        int rc = take_word(&p, e);
        if (rc)
            return rc;
        char end = *p.s; /* the word's end may be written there */
        if (end && strchr(";|&<>", end))
            w->ended_by = end;
        if (end)
            p.s++;
        *p.to++ = 0;
        if (!end || w->ended_by)
            return 0;
    }
}

/* One item, up to a lone comma; its text is written where it stands. */
static char *take_item(char **text)
{
    char *start = *text, *to = start, *s = start;
    for (; *s; s++) {
        if (*s == ',' && s[1] != ',')
            break;
        s += *s == ',';
        *to++ = *s;
    }
    *text = *s ? s + 1 : NULL;
    *to = 0;
    return start;
}

void props_split(char *text, const char *implied, struct props *p)
{
    p->n = 0;
    p->more = false;
    for (bool first = true; text; first = false) {
        char *item = take_item(&text);
        char *equals = strchr(item, '=');
        if (!*item)
            continue;
        if (p->n == PROPS_MAX) {
            p->more = true;
            return;
        }
        struct prop *it = &p->prop[p->n++];
        *it = (struct prop){.key = item, .value = "on"};
        if (equals) {
            *equals = 0;
            it->value = equals + 1;
        } else if (first && implied) {
            it->key = implied;
            it->value = item;
        }
    }
}

const char *props_get(struct props *p, const char *key)
{
    const char *value = NULL;
    for (unsigned i = 0; i < p->n; i++)
        if (strcmp(p->prop[i].key, key) == 0) {
            p->prop[i].used = true;
            value = p->prop[i].value;
        }
    return value;
}

bool props_on(struct props *p, const char *key)
{
    const char *value = props_get(p, key);
    return value &&
           (strcmp(value, "on") == 0 || strcmp(value, "yes") == 0 || strcmp(value, "true") == 0);
}

static void put_value(FILE *f, const char *value)
{
    for (; *value; value++) {
        if (*value == ',')
            fputc(',', f);
        fputc(*value, f);
    }
    fputc(',', f);
}

static void put_object(FILE *f, json_t *object, const char *before, unsigned depth)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        char name[128];
        int n = snprintf(name, sizeof name, "%s%s", before, key);
        if (n <= 0 || n >= (int)sizeof name - 1 || strpbrk(name, "=,"))
            continue; /* no name of a property */
        if (json_is_object(value) && depth < JSON_DEPTH) {
            strcat(name, ".");
            put_object(f, value, name, depth + 1);
        } else if (json_is_string(value)) {
            fprintf(f, "%s=", name);
            put_value(f, json_string_value(value));
        } else if (json_is_integer(value)) {
            fprintf(f, "%s=%lld,", name, (long long)json_integer_value(value));
        } else if (json_is_boolean(value)) {
            fprintf(f, "%s=%s,", name, json_is_true(value) ? "on" : "off");
        }
    }
}

char *props_from_json(const char *json)
{
    char *text = NULL;
    size_t len;
    json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    FILE *f = json_is_object(root) ? open_memstream(&text, &len) : NULL;
    if (f) {
        put_object(f, root, "", 1);
        if (fclose(f) != 0) {
            free(text);
            text = NULL;
        }
    }
    json_decref(root);
    return text;
}
