/* vdriver.h - the driver's side of a virtqueue, for tests: guest memory and rings laid out in it.
 */
#ifndef SOSIA_TESTS_VDRIVER_H
#define SOSIA_TESTS_VDRIVER_H

#include <string.h>

#include "base/endian.h"
#include "mem/space.h"

#define GUEST_RAM   (1 * MIB)
#define NEXT        1
#define WRITE       2
#define INDIRECT    4
#define RING_DESC   0x1000u
#define RING_AVAIL  0x3000u
#define RING_USED   0x4000u
#define RING_STRIDE 0x4000u /* queue n's areas lie n strides higher */

static struct ram ram;
static struct space space;

struct drv {
    gpa_t desc, avail, used;
    uint16_t size, added, seen;
};

static inline int guest_init(void)
{
    unsigned id;
    return ram_init(&ram, GUEST_RAM, NULL) || space_init(&space, 1ull << 32, &ram, NULL) ||
           space_add_ram(&space, 0, GUEST_RAM, 0, 0, &id, NULL);
}

static inline void guest_fini(void)
{
    space_fini(&space);
    ram_fini(&ram);
}

static inline struct drv drv_at(unsigned q, uint16_t size)
{
    gpa_t base = (gpa_t)q * RING_STRIDE;
    return (struct drv){base + RING_DESC, base + RING_AVAIL, base + RING_USED, size, 0, 0};
}

static inline void put_desc(gpa_t table, unsigned i, gpa_t addr, uint32_t len, uint16_t flags,
                            uint16_t next)
{
    uint8_t *p = ram.host + table + 16ull * i;
    store_le64(p, addr);
    store_le32(p + 8, len);
    store_le16(p + 12, flags);
    store_le16(p + 14, next);
}

static inline void drv_set_idx(struct drv *d, uint16_t idx)
{
    d->added = idx;
    store_le16(ram.host + d->avail + 2, idx);
}

static inline void drv_add(struct drv *d, uint16_t head)
{
    store_le16(ram.host + d->avail + 4 + 2ull * (d->added % d->size), head);
    drv_set_idx(d, (uint16_t)(d->added + 1));
}

static inline uint16_t drv_used_idx(const struct drv *d)
{
    return load_le16(ram.host + d->used + 2);
}

/* The next used entry: false if there is none. */
static inline bool drv_take(struct drv *d, uint32_t *head, uint32_t *len)
{
    if (drv_used_idx(d) == d->seen)
        return false;
    const uint8_t *p = ram.host + d->used + 4 + 8ull * (d->seen % d->size);
    *head = load_le32(p);
    *len = load_le32(p + 4);
    d->seen++;
    return true;
}

static inline void drv_used_event(const struct drv *d, uint16_t v)
{
    store_le16(ram.host + d->avail + 4 + 2ull * d->size, v);
}

static inline uint16_t drv_avail_event(const struct drv *d)
{
    return load_le16(ram.host + d->used + 4 + 8ull * d->size);
}

#endif
