/* life.c - random operations on the topmost image, and what the model says of them. */
#include <stdlib.h>
#include <string.h>

#include "crash.h"
#include "storage.h"

int life_write(uint64_t first, uint64_t n, unsigned flags)
{
    uint32_t stamp = ++rig.m->stamp, *buf = model_fill(n, stamp);
    model_write(rig.m, first, n, stamp);
    int rc = node_write(rig.node, buf, n * SECTOR, first * SECTOR, flags);
    if (!rc && (flags & NODE_FUA))
        model_durable(rig.m, first, n, stamp);
    free(buf);
    return rc;
}

/* A cluster in compressed form. */
static int write_packed(uint64_t first)
{
    const struct format *f = format_find(rig.node->ops->name);
    uint64_t c = rig.node->granularity, at = first * SECTOR;
    if (!f || !f->write_compressed || rig.kind->data_file || c < SECTOR)
        return 0;
    at = at / c * c;
    uint64_t n = min_u64(c, rig.m->size - at) / SECTOR;
    uint32_t stamp = ++rig.m->stamp, *buf = model_fill(n, stamp);
    model_write(rig.m, at / SECTOR, n, stamp);
    int rc = f->write_compressed(rig.node, buf, n * SECTOR, at);
    free(buf);
    return rc;
}

static int zero(uint64_t first, uint64_t n, unsigned flags)
{
    model_write(rig.m, first, n, 0);
    return node_zero(rig.node, first * SECTOR, n * SECTOR, flags);
}

/* Discarded sectors are read back: each is what it was, or zero. */
int life_discard(uint64_t first, uint64_t n)
{
    uint8_t *buf = malloc(n * SECTOR);
    model_write(rig.m, first, n, 0);
    int rc = node_discard(rig.node, first * SECTOR, n * SECTOR);
    if (!rc)
        rc = node_read(rig.node, buf, n * SECTOR, first * SECTOR);
    for (uint64_t i = 0; !rc && i < n; i++) {
        struct sector_model *s = &rig.m->sector[first + i];
        uint32_t v;
        if (!model_stamp(buf + i * SECTOR, &v))
            crash_fail("a discarded sector is torn");
        if (v)
            s->n--; /* it stayed */
        if (v != model_current(rig.m, first + i))
            crash_fail("a discarded sector holds %u", v);
    }
    free(buf);
    return rc;
}

int life_flush(void)
{
    int rc = node_flush(rig.node);
    if (!rc)
        model_flushed(rig.m);
    return rc;
}

/* The size is one or the other until the flush. */
int life_resize_to(uint64_t size)
{
    struct error e = {0};
    int rc = life_flush();
    if (rc)
        return rc;
    model_resize(rig.m, size);
    rc = node_resize(rig.node, size, &e);
    if (rc && !storage_is_cut())
        crash_fail("resize to %llu: %s", (unsigned long long)size, e.msg);
    if (!rc)
        rc = node_flush(rig.node);
    if (rc)
        return rc;
    rig.m->size = size;
    for (uint64_t i = size / SECTOR; i < MAX_SECTORS; i++)
        rig.m->sector[i] = (struct sector_model){0};
    model_flushed(rig.m);
    return 0;
}

int life_resize(void)
{
    uint64_t size = (MIB / 2 + rig_rnd(MAX_DISK - MIB / 2)) & ~(uint64_t)(SECTOR - 1);
    if (rig.kind->fixed) /* what is above it must fit into it, too */
        return 0;
    return life_resize_to(size);
}

static int one(void)
{
    uint64_t n = rig.m->size / SECTOR, first = rig_rnd(n);
    uint64_t len = min_u64(1 + rig_rnd(rig_rnd(3) ? 40 : 500), n - first);
    unsigned what = (unsigned)rig_rnd(100);
    if (rig.m->full || what < 12)
        return life_flush();
    if (what < 55)
        return life_write(first, len, 0);
    if (what < 60)
        return life_write(first, len, NODE_FUA);
    if (what < 78)
        return zero(first, len, what & 1 ? NODE_MAY_UNMAP : 0);
    if (what < 88)
        return life_discard(first, len);
    if (what < 98)
        return write_packed(first);
    return life_resize();
}

int life_run(unsigned ops)
{
    int rc = 0;
    for (unsigned i = 0; i < ops && !rc; i++)
        rc = one();
    return rc;
}
