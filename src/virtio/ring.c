/*
 * ring.c - the split virtqueue. ring.h lists what is checked; clause numbers are virtio 1.2's.
 */
#include "virtio/ring.h"

#include <stdatomic.h>
#include <string.h>

#include "base/endian.h"
#include "base/log.h"

#define DESC_SIZE 16u
#define USED_SIZE 8u

#define DESC_F_NEXT     1u
#define DESC_F_WRITE    2u
#define DESC_F_INDIRECT 4u

#define AVAIL_F_NO_INTERRUPT 1u

struct desc {
    gpa_t addr;
    uint32_t len;
    uint16_t flags, next;
};

static bool broken(struct vring *q, const char *why)
{
    log_guest("%s: virtqueue broken: %s", q->name, why);
    q->broken = true;
    return false;
}

/* ---- guest fields ---- */

static bool read_le16(struct vring *q, gpa_t addr, uint16_t *v)
{
    uint8_t raw[2];
    if (!dma_read(q->mem, addr, raw, sizeof raw))
        return broken(q, "a ring is no longer in RAM");
    *v = load_le16(raw);
    return true;
}

static bool write_le16(struct vring *q, gpa_t addr, uint16_t v)
{
    uint8_t raw[2];
    store_le16(raw, v);
    if (!dma_write(q->mem, addr, raw, sizeof raw))
        return broken(q, "a ring is no longer in RAM");
    return true;
}

static bool read_desc(struct vring *q, gpa_t table, uint32_t i, struct desc *d)
{
    uint8_t raw[DESC_SIZE];
    if (!dma_read(q->mem, table + (uint64_t)i * DESC_SIZE, raw, sizeof raw))
        return broken(q, "a descriptor table is not in RAM");
    *d =
        (struct desc){load_le64(raw), load_le32(raw + 8), load_le16(raw + 12), load_le16(raw + 14)};
    return true;
}

/* 2.7.6, 2.7.8: the layout of the rings; the event fields follow the entries (2.7.10). */
static gpa_t avail_entry(const struct vring *q, uint16_t i)
{
    return q->avail + 4 + 2ull * (i & (q->size - 1u));
}

static gpa_t used_event(const struct vring *q)
{
    return q->avail + 4 + 2ull * q->size;
}

static gpa_t used_entry(const struct vring *q, uint16_t i)
{
    return q->used + 4 + (uint64_t)USED_SIZE * (i & (q->size - 1u));
}

static gpa_t avail_event(const struct vring *q)
{
    return q->used + 4 + (uint64_t)USED_SIZE * q->size;
}

/* ---- set-up ---- */

void vring_reset(struct vring *q)
{
    *q = (struct vring){.mem = q->mem, .name = q->name, .max = q->max, .size = q->max};
}

static bool in_ram(struct space *mem, gpa_t addr, uint64_t len)
{
    while (len) {
        uint64_t n = len;
        if (!dma_map(mem, addr, &n))
            return false;
        addr += n;
        len -= n;
    }
    return true;
}

/* Can the areas be used? */
static bool check_areas(struct vring *q)
{
    if (!q->size || (q->size & (q->size - 1)) || q->size > q->max)
        return broken(q, "its size is not a power of two within the limit");
    if (q->desc % 16 || q->avail % 2 || q->used % 4) /* 2.7: alignment */
        return broken(q, "an area is not aligned");
    if (!in_ram(q->mem, q->desc, (uint64_t)DESC_SIZE * q->size) ||
        !in_ram(q->mem, q->avail, 6 + 2ull * q->size) ||
        !in_ram(q->mem, q->used, 6 + (uint64_t)USED_SIZE * q->size))
        return broken(q, "an area is not in RAM");
    return true;
}

bool vring_start(struct vring *q)
{
    q->broken = false;
    if (!check_areas(q))
        return false;
    q->last_avail = q->avail_idx = q->used_idx = q->signalled = 0;
    q->enabled = true;
    return true;
}

/* ---- taking chains ---- */

static bool add_buffer(struct vring *q, struct vchain *c, const struct desc *d)
{
    bool write = d->flags & DESC_F_WRITE;
    if (!d->len)
        return broken(q, "an empty buffer");
    if (!write && c->nwrite) /* 2.7.4.2 */
        return broken(q, "a readable buffer after a writable one");
    uint64_t *total = write ? &c->write_len : &c->read_len;
    *total += d->len;        /* at most VCHAIN_STEPS * 2^32 */
    if (*total > UINT32_MAX) /* 2.7.5.3.1 */
        return broken(q, "a chain of more than 4 GiB");
    gpa_t addr = d->addr;
    uint64_t left = d->len;
    while (left) {
        uint64_t n = left;
        void *host = dma_map(q->mem, addr, &n);
        if (!host)
            return broken(q, "a buffer is not in RAM");
        if (c->nread + c->nwrite == VCHAIN_IOV)
            return broken(q, "a chain in too many pieces");
        c->iov[c->nread + c->nwrite] = (struct iovec){host, n};
        *(write ? &c->nwrite : &c->nread) += 1;
        addr += n;
        left -= n;
    }
    return true;
}

/* 2.7.5.3.1: what a driver must keep to when it uses an indirect table. */
static bool check_indirect(struct vring *q, const struct desc *d, bool nested)
{
    if (!q->indirect)
        return broken(q, "an indirect descriptor that was not negotiated");
    if (nested)
        return broken(q, "an indirect table inside an indirect table");
    if (d->flags & DESC_F_NEXT)
        return broken(q, "an indirect descriptor with a successor");
    if (!d->len || d->len % DESC_SIZE || d->len / DESC_SIZE > UINT16_MAX + 1u)
        return broken(q, "an indirect table of a wrong length");
    return true;
}

static bool walk(struct vring *q, struct vchain *c)
{
    gpa_t table = q->desc;
    uint32_t count = q->size, i = c->head;
    bool nested = false;
    for (unsigned steps = 0; steps < VCHAIN_STEPS; steps++) {
        struct desc d;
        if (i >= count)
            return broken(q, "a descriptor index beyond its table");
        if (!read_desc(q, table, i, &d))
            return false;
        if (d.flags & DESC_F_INDIRECT) {
            if (!check_indirect(q, &d, nested))
                return false;
            nested = true;
            table = d.addr;
            count = d.len / DESC_SIZE;
            i = 0;
            continue;
        }
        if (!add_buffer(q, c, &d))
            return false;
        if (!(d.flags & DESC_F_NEXT))
            return true;
        i = d.next;
    }
    return broken(q, "a chain that is too long or loops");
}

/* Reads the driver's index; what it covers may be read after this. */
static bool refresh(struct vring *q)
{
    uint16_t idx;
    if (!read_le16(q, q->avail + 2, &idx))
        return false;
    if ((uint16_t)(idx - q->last_avail) > q->size)
        return broken(q, "the available index is too far ahead");
    q->avail_idx = idx;
    atomic_thread_fence(memory_order_acquire);
    return true;
}

int vring_pop(struct vring *q, struct vchain *c)
{
    if (!q->enabled || q->broken)
        return q->broken ? -1 : 0;
    if (q->avail_idx == q->last_avail && !refresh(q))
        return -1;
    if (q->avail_idx == q->last_avail && q->event_idx) {
        /* 2.7.10.1: ask for a notification, then look again for what came in between. */
        if (!write_le16(q, avail_event(q), q->last_avail))
            return -1;
        atomic_thread_fence(memory_order_seq_cst);
        if (!refresh(q))
            return -1;
    }
    if (q->avail_idx == q->last_avail)
        return 0;

    if (!read_le16(q, avail_entry(q, q->last_avail), &c->head))
        return -1;
    q->last_avail++;
    c->nread = c->nwrite = 0;
    c->read_len = c->write_len = 0;
    return walk(q, c) ? 1 : -1; /* the walk checks the head like any other index */
}

void vring_rearm(struct vring *q)
{
    if (!q->enabled || q->broken || !q->event_idx || !refresh(q))
        return;
    write_le16(q, avail_event(q), q->avail_idx);
}

/* ---- giving chains back ---- */

bool vring_push(struct vring *q, uint16_t head, uint32_t len)
{
    if (!q->enabled || q->broken)
        return false;
    uint8_t raw[USED_SIZE];
    store_le32(raw, head);
    store_le32(raw + 4, len);
    if (!dma_write(q->mem, used_entry(q, q->used_idx), raw, sizeof raw))
        return broken(q, "a ring is no longer in RAM");
    atomic_thread_fence(memory_order_release); /* the entry before the index, 2.7.8.2 */
    q->used_idx++;
    return write_le16(q, q->used + 2, q->used_idx);
}

bool vring_should_notify(struct vring *q)
{
    if (!q->enabled || q->broken)
        return false;
    atomic_thread_fence(memory_order_seq_cst); /* the index before the driver's wish, 2.7.7.2 */
    uint16_t v;
    if (!q->event_idx)
        return read_le16(q, q->avail, &v) && !(v & AVAIL_F_NO_INTERRUPT);
    if (!read_le16(q, used_event(q), &v))
        return false;
    uint16_t old = q->signalled, now = q->used_idx;
    q->signalled = now;
    /* 2.7.7.2: if used_event lies in [old, now), modulo 2^16. */
    return (uint16_t)(now - v - 1) < (uint16_t)(now - old);
}

/* ---- copying ---- */

size_t vchain_read(const struct vchain *c, uint64_t off, void *buf, size_t len)
{
    size_t done = 0;
    for (unsigned i = 0; i < c->nread && done < len; i++) {
        const struct iovec *v = &c->iov[i];
        if (off >= v->iov_len) {
            off -= v->iov_len;
            continue;
        }
        size_t n = min_u64(v->iov_len - off, len - done);
        memcpy((uint8_t *)buf + done, (const uint8_t *)v->iov_base + off, n);
        done += n;
        off = 0;
    }
    return done;
}

size_t vchain_write(struct space *mem, const struct vchain *c, uint64_t off, const void *buf,
                    size_t len)
{
    size_t done = 0;
    for (unsigned i = c->nread; i < c->nread + c->nwrite && done < len; i++) {
        const struct iovec *v = &c->iov[i];
        if (off >= v->iov_len) {
            off -= v->iov_len;
            continue;
        }
        size_t n = min_u64(v->iov_len - off, len - done);
        memcpy((uint8_t *)v->iov_base + off, (const uint8_t *)buf + done, n);
        dma_wrote(mem, (uint8_t *)v->iov_base + off, n);
        done += n;
        off = 0;
    }
    return done;
}

/* ---- state ---- */

bool vring_retake(struct vring *q, uint16_t head, struct vchain *c)
{
    c->head = head;
    c->nread = c->nwrite = 0;
    c->read_len = c->write_len = 0;
    return q->enabled && !q->broken && walk(q, c);
}

static int post_load(void *dev, struct error *e)
{
    struct vring *q = dev;
    struct vring copy = *q;
    if (q->enabled && !q->broken &&
        (!check_areas(&copy) || (uint16_t)(q->avail_idx - q->last_avail) > q->size))
        return error_set(e, ERR_FORMAT, "is no ring that can be used");
    if (q->enabled && (!q->size || (q->size & (q->size - 1)) || q->size > q->max))
        return error_set(e, ERR_FORMAT, "size: is no power of two within the limit");
    return 0;
}

static const struct field fields[] = {
    FIELD_NONE(struct vring, mem),
    FIELD_NONE(struct vring, name),
    FIELD(struct vring, max, .same = true),
    FIELD(struct vring, size),
    FIELD(struct vring, desc),
    FIELD(struct vring, avail),
    FIELD(struct vring, used),
    FIELD(struct vring, enabled),
    FIELD(struct vring, broken),
    FIELD(struct vring, indirect),
    FIELD(struct vring, event_idx),
    FIELD(struct vring, last_avail),
    FIELD(struct vring, avail_idx),
    FIELD(struct vring, used_idx),
    FIELD(struct vring, signalled),
};
const struct field_table vring_fields =
    FIELD_TABLE(struct vring, "vring", fields, .post_load = post_load);
