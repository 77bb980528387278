/*
 * format.c - the table of image formats.
 */
#include "block/format.h"

#include <stdio.h>
#include <string.h>

#include "block/format/formats.h"

/* Probed in this order. */
const struct format *const formats[] = {&format_qcow2, &format_vmdk, &format_vdi, &format_raw,
                                        NULL};

const struct format *format_find(const char *name)
{
    for (const struct format *const *f = formats; *f; f++)
        if (strcmp((*f)->name, name) == 0)
            return *f;
    return NULL;
}

const struct format *format_probe(const uint8_t head[FORMAT_PROBE], uint64_t file_size)
{
    for (const struct format *const *f = formats; *f; f++)
        if ((*f)->probe && (*f)->probe(head, file_size))
            return *f;
    return &format_raw;
}

void format_names(char *out, size_t size)
{
    size_t at = 0;
    out[0] = '\0';
    for (const struct format *const *f = formats; *f && at < size; f++)
        at += (size_t)snprintf(out + at, size - at, "%s%s", at ? ", " : "", (*f)->name);
}
