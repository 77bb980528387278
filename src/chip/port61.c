/* port61.c - see port61.h. */
#include "chip/port61.h"

#define GATE2   0x01
#define CONTROL 0x0f /* gate 2, speaker, SERR# disable, IOCHK# disable */
#define REFRESH 0x10 /* toggles with each DRAM refresh */
#define OUT2    0x20

#define REFRESH_NS 15085

static uint64_t port61_read(void *dev, uint64_t off, unsigned size)
{
    struct port61 *p = dev;
    ns_t now = vclock_now(p->pit->timerq->clock);
    uint8_t val = p->control; /* bits 7 and 6, the NMI sources, never assert */
    if (now / REFRESH_NS & 1)
        val |= REFRESH;
    if (i8254_out(p->pit, 2))
        val |= OUT2;
    return val;
}

static void port61_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct port61 *p = dev;
    p->control = val & CONTROL;
    i8254_set_gate(p->pit, 2, val & GATE2);
}

static void port61_reset(void *dev)
{
    port61_write(dev, 0, 0, 1);
}

void port61_init(struct port61 *p, struct i8254 *pit)
{
    *p = (struct port61){.pit = pit};
    port61_reset(p);
}

static const struct io_ops ops = {"port61", 1, port61_read, port61_write};

static const struct chip_range ranges[] = {{true, 0x61, 1, &ops}, {0}};

static const struct field fields[] = {
    FIELD_NONE(struct port61, pit),
    FIELD(struct port61, control, .max = 15),
};
static const struct field_table table = FIELD_TABLE(struct port61, "port61", fields);

const struct chip_desc port61_desc = {"port61", port61_reset, ranges, &table};
