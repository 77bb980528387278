/* acpi_buf.c - a growing byte buffer. */
#include "machine/acpi_buf.h"

#include "base/checked.h"

size_t acpi_buf_zero(struct acpi_buf *b, size_t len)
{
    size_t off = b->len;
    if (b->failed)
        return 0;
    if (len > b->cap - b->len) {
        size_t cap = max_u64(2 * b->cap, b->len + len + 1024);
        uint8_t *p = realloc(b->data, cap);
        if (!p) {
            b->failed = true;
            return 0;
        }
        b->data = p;
        b->cap = cap;
    }
    memset(b->data + off, 0, len);
    b->len += len;
    return off;
}

void acpi_buf_put(struct acpi_buf *b, const void *p, size_t len)
{
    size_t off = acpi_buf_zero(b, len);
    if (!b->failed)
        memcpy(b->data + off, p, len);
}

void acpi_buf_align(struct acpi_buf *b, size_t align)
{
    acpi_buf_zero(b, (align - b->len % align) % align);
}

void acpi_buf_set(struct acpi_buf *b, size_t off, uint64_t v, unsigned size)
{
    uint8_t le[8];
    store_le64(le, v);
    if (!b->failed && range_within(off, size, b->len))
        memcpy(b->data + off, le, size);
}

void acpi_buf_num(struct acpi_buf *b, uint64_t v, unsigned size)
{
    acpi_buf_set(b, acpi_buf_zero(b, size), v, size);
}
