/* debugport.c - see debugport.h. */
#include "chip/debugport.h"

/* What firmware expects to read if a debug console is there. */
#define DEBUGPORT_PRESENT 0xe9

static uint64_t post_read(void *dev, uint64_t off, unsigned size)
{
    const struct post_latch *p = dev;
    return p->code;
}

static void post_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct post_latch *p = dev;
    p->code = (uint8_t)val;
}

static void post_reset(void *dev)
{
    post_write(dev, 0, 0, 1);
}

void post_latch_init(struct post_latch *p)
{
    post_reset(p);
}

static uint64_t debug_read(void *dev, uint64_t off, unsigned size)
{
    return DEBUGPORT_PRESENT;
}

static void debug_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct debugport *d = dev;
    uint8_t byte = (uint8_t)val;
    char_write(&d->out, &byte, 1); /* nobody waits for a log: what is not taken is lost */
}

static void debug_reset(void *dev)
{
}

void debugport_init(struct debugport *d, struct char_out out)
{
    d->out = out;
}

static const struct io_ops post_ops = {"post", 1, post_read, post_write};
static const struct io_ops debug_ops = {"debugport", 1, debug_read, debug_write};

static const struct chip_range post_ranges[] = {{true, 0x80, 1, &post_ops}, {0}};
static const struct chip_range debug_ranges[] = {{true, 0x402, 1, &debug_ops}, {0}};

static const struct field post_fields[] = {
    FIELD(struct post_latch, code),
};
static const struct field_table post_table =
    FIELD_TABLE(struct post_latch, "post_latch", post_fields);

const struct chip_desc post_latch_desc = {"post", post_reset, post_ranges, &post_table};
const struct chip_desc debugport_desc = {"debugport", debug_reset, debug_ranges, NULL};
