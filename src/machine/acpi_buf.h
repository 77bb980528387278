/*
 * acpi_buf.h - a growing byte buffer for firmware tables. Out of memory is remembered, so that a
 * builder checks once at its end.
 */
#ifndef SOSIA_MACHINE_ACPI_BUF_H
#define SOSIA_MACHINE_ACPI_BUF_H

#include <stdlib.h>

#include "base/endian.h"
#include "base/types.h"

struct acpi_buf {
    uint8_t *data;
    size_t len, cap;
    bool failed;
};

/* Appends `len` zero bytes; returns their offset. */
size_t acpi_buf_zero(struct acpi_buf *b, size_t len);
void acpi_buf_put(struct acpi_buf *b, const void *p, size_t len);
void acpi_buf_align(struct acpi_buf *b, size_t align);
/* Appends, or writes at `off`, a little-endian number of 1, 2, 4 or 8 bytes. */
void acpi_buf_num(struct acpi_buf *b, uint64_t v, unsigned size);
void acpi_buf_set(struct acpi_buf *b, size_t off, uint64_t v, unsigned size);

#endif
