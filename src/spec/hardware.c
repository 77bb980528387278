/* hardware.c - what of a spec the guest sees of its machine: what a saved state fits. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

#include "spec/schema.h"

static void print_value(FILE *out, const struct spec_key *k, const char *prefix, const void *base)
{
    const void *field = (const char *)base + k->offset;
    char size[32];
    fprintf(out, "%s%s: ", prefix, k->name);
    if (k->parse == spec_parse_word)
        fputs(k->words[*(const unsigned *)field], out);
    else if (k->parse == spec_parse_count)
        fprintf(out, "%u", *(const unsigned *)field);
    else if (k->parse == spec_parse_size)
        fputs(spec_format_size(size, *(const uint64_t *)field), out);
    else if (k->parse == spec_parse_bool)
        fputs(*(const bool *)field ? "true" : "false", out);
    else if (k->parse == spec_parse_path)
        fputs(*(char *const *)field ? "(a file)" : "(none)", out);
    else if (k->parse == spec_parse_text)
        fputs(*(char *const *)field ? *(char *const *)field : "(none)", out);
    fputc('\n', out);
}

static void print_all(FILE *out, const struct spec_key *table, const char *prefix, const void *base)
{
    for (const struct spec_key *k = table; k->name; k++)
        if (k->hardware)
            print_value(out, k, prefix, base);
}

char *spec_hardware(const struct spec *s)
{
    char *text = NULL, prefix[24];
    size_t len;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return NULL;
    print_all(out, spec_schema, "", s);
    for (unsigned i = 0; i < s->ndisk; i++) {
        snprintf(prefix, sizeof prefix, "disks[%u].", i);
        print_all(out, spec_disk_schema, prefix, &s->disk[i]);
    }
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}
