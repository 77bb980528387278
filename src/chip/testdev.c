/* testdev.c - see testdev.h. */
#include "chip/testdev.h"

#include <string.h>

#include "base/endian.h"

/* The map hands out accesses of 1 byte here, and so checks the range of each. */
static uint64_t port_read(void *dev, uint64_t off, unsigned size)
{
    const struct testdev *t = dev;
    return t->port[off & 3];
}

static void port_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct testdev *t = dev;
    t->port[off & 3] = (uint8_t)val;
}

static uint64_t none_read(void *dev, uint64_t off, unsigned size)
{
    return 0;
}

static void exit_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    const struct testdev *t = dev;
    t->exit(t->ctx, (uint32_t)val);
}

/* Ports lie side by side and are written 32 bits wide: only the first line is meant. */
static void line_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    const struct testdev *t = dev;
    if (off < TESTDEV_LINES)
        pin_set(&t->line[off], val != 0);
}

static uint64_t mem_read(void *dev, uint64_t off, unsigned size)
{
    const struct testdev *t = dev;
    uint8_t bytes[8] = {0};
    if (off > TESTDEV_MEM - size)
        return 0;
    memcpy(bytes, t->mem + off, size);
    return load_le64(bytes);
}

static void mem_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct testdev *t = dev;
    uint8_t bytes[8];
    if (off > TESTDEV_MEM - size)
        return;
    store_le64(bytes, val);
    memcpy(t->mem + off, bytes, size);
}

static void testdev_reset(void *dev)
{
    struct testdev *t = dev;
    for (unsigned n = 0; n < TESTDEV_LINES; n++)
        pin_set(&t->line[n], false);
    memset(t->port, 0, sizeof t->port);
    memset(t->mem, 0, sizeof t->mem);
}

void testdev_init(struct testdev *t, const struct pin line[TESTDEV_LINES],
                  void (*exit)(void *ctx, uint32_t status), void *ctx)
{
    memcpy(t->line, line, sizeof t->line);
    t->exit = exit;
    t->ctx = ctx;
}

static const struct io_ops port_ops = {"testdev", 1, port_read, port_write};
static const struct io_ops exit_ops = {"testdev exit", 1 | 2 | 4, none_read, exit_write};
static const struct io_ops line_ops = {"testdev lines", 1 | 2 | 4, none_read, line_write};
static const struct io_ops mem_ops = {"testdev memory", 1 | 2 | 4 | 8, mem_read, mem_write};

static const struct chip_range ranges[] = {
    {true, 0xe0, 4, &port_ops},
    {true, 0xf4, 4, &exit_ops},
    {true, 0x2000, TESTDEV_LINES, &line_ops},
    {false, 0xff000000, TESTDEV_MEM, &mem_ops},
    {0},
};

static const struct field fields[] = {
    FIELD_NONE(struct testdev, line), FIELD_NONE(struct testdev, exit),
    FIELD_NONE(struct testdev, ctx),  FIELD_ARRAY(struct testdev, port),
    FIELD_ARRAY(struct testdev, mem),
};
static const struct field_table table = FIELD_TABLE(struct testdev, "testdev", fields);

const struct chip_desc testdev_desc = {"testdev", testdev_reset, ranges, &table};
