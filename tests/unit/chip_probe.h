/*
 * chip_probe.h - for tests of chips: a pin that counts its edges, and port access through a chip's
 * description, as a board would map it.
 */
#ifndef SOSIA_TESTS_CHIP_PROBE_H
#define SOSIA_TESTS_CHIP_PROBE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "chip/chip.h"
#include "chip/pin.h"

struct probe {
    bool level;
    unsigned rises, falls;
};

static inline void probe_set(void *ctx, unsigned line, bool level)
{
    struct probe *p = ctx;
    p->rises += level && !p->level;
    p->falls += !level && p->level;
    p->level = level;
}

static inline struct pin probe_pin(struct probe *p)
{
    *p = (struct probe){0};
    return (struct pin){probe_set, p, 0};
}

static inline const struct chip_range *probe_range(const struct chip_desc *d, uint64_t port)
{
    for (const struct chip_range *r = d->ranges; r->len; r++)
        if (r->port && port >= r->base && port - r->base < r->len)
            return r;
    fail_msg("%s does not answer at port %#llx", d->name, (unsigned long long)port);
    return NULL;
}

static inline uint8_t in8(const struct chip_desc *d, void *dev, uint64_t port)
{
    const struct chip_range *r = probe_range(d, port);
    return (uint8_t)r->ops->read(dev, port - r->base, 1);
}

static inline void out8(const struct chip_desc *d, void *dev, uint64_t port, uint8_t val)
{
    const struct chip_range *r = probe_range(d, port);
    r->ops->write(dev, port - r->base, val, 1);
}

/* Every register, with pseudo-random reads and writes: nothing may crash, whatever the order. */
static inline void probe_storm(const struct chip_desc *d, void *dev, unsigned steps)
{
    uint32_t seed = 12345;
    for (unsigned i = 0; i < steps; i++) {
        for (const struct chip_range *r = d->ranges; r->len; r++) {
            seed = seed * 1664525 + 1013904223;
            uint64_t off = (seed >> 8) % r->len;
            if (seed >> 31)
                r->ops->read(dev, off, 1);
            else
                r->ops->write(dev, off, seed >> 16 & 0xff, 1);
        }
    }
}

#endif
