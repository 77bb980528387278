/* port92.c - see port92.h. */
#include "chip/port92.h"

#define FAST_RESET 0x01
#define FAST_A20   0x02

static uint64_t port92_read(void *dev, uint64_t off, unsigned size)
{
    const struct port92 *p = dev;
    return p->val;
}

static void port92_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct port92 *p = dev;
    bool reset = val & ~(uint64_t)p->val & FAST_RESET;
    p->val = val & (FAST_RESET | FAST_A20);
    pin_set(&p->a20, val & FAST_A20);
    if (reset) {
        pin_set(&p->reset, true);
        pin_set(&p->reset, false);
    }
}

/* A20 starts open, as the keyboard controller's gate does. */
static void port92_reset(void *dev)
{
    struct port92 *p = dev;
    p->val = FAST_A20;
    pin_set(&p->a20, true);
}

void port92_init(struct port92 *p, struct pin a20, struct pin reset)
{
    *p = (struct port92){.a20 = a20, .reset = reset};
    port92_reset(p);
}

static const struct io_ops ops = {"port92", 1, port92_read, port92_write};

static const struct chip_range ranges[] = {{true, 0x92, 1, &ops}, {0}};

static const struct field fields[] = {
    FIELD(struct port92, val),
    FIELD_NONE(struct port92, a20), /* the vCPUs have its level */
    FIELD_NONE(struct port92, reset),
};
static const struct field_table table = FIELD_TABLE(struct port92, "port92", fields);

const struct chip_desc port92_desc = {"port92", port92_reset, ranges, &table};
