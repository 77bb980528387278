/* model.c - what each sector of a disk may hold after a crash. */
#include "model.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A child may be killed between any two writes to the memory that it shares. */
#define IN_ORDER() atomic_signal_fence(memory_order_seq_cst)

void model_reset(struct model *m, uint64_t size)
{
    memset(m->sector, 0, sizeof m->sector);
    m->size = m->other_size = size;
    m->full = false;
    m->foreign = 0;
}

uint32_t model_current(const struct model *m, uint64_t sector)
{
    const struct sector_model *s = &m->sector[sector];
    return s->n ? s->written[s->n - 1] : s->durable;
}

static void add(struct model *m, struct sector_model *s, uint32_t stamp)
{
    if (s->n == ALTERNATIVES) /* `full` was not heeded */
        abort();
    s->written[s->n] = stamp;
    IN_ORDER();
    s->n++;
    m->full |= s->n >= ALTERNATIVES - 1;
}

void model_write(struct model *m, uint64_t first, uint64_t n, uint32_t stamp)
{
    for (uint64_t i = first; i < first + n; i++)
        add(m, &m->sector[i], stamp);
}

static void settle(struct sector_model *s, uint32_t stamp)
{
    s->durable = stamp;
    IN_ORDER();
    s->n = 0;
}

void model_flushed(struct model *m)
{
    m->full = false;
    for (uint64_t i = 0; i < MAX_SECTORS; i++)
        if (!m->sector[i].busy)
            settle(&m->sector[i], model_current(m, i));
        else
            m->full |= m->sector[i].n >= ALTERNATIVES - 1;
}

void model_durable(struct model *m, uint64_t first, uint64_t n, uint32_t stamp)
{
    for (uint64_t i = first; i < first + n; i++)
        settle(&m->sector[i], stamp);
}

void model_busy(struct model *m, uint64_t first, uint64_t n, bool busy)
{
    for (uint64_t i = first; i < first + n; i++)
        m->sector[i].busy = busy;
}

void model_resize(struct model *m, uint64_t size)
{
    m->other_size = size;
    for (uint64_t i = min_u64(size, m->size) / SECTOR; i < MAX_SECTORS; i++)
        if (m->sector[i].n < ALTERNATIVES)
            add(m, &m->sector[i], 0);
}

uint32_t *model_fill(uint64_t n, uint32_t stamp)
{
    uint32_t *buf = malloc(n * SECTOR);
    for (uint64_t i = 0; buf && i < n * SECTOR / 4; i++)
        buf[i] = stamp;
    return buf;
}

bool model_stamp(const uint8_t *data, uint32_t *stamp)
{
    memcpy(stamp, data, 4);
    return memcmp(data, data + 4, SECTOR - 4) == 0;
}

static bool possible(const struct model *m, uint64_t sector, uint32_t v)
{
    const struct sector_model *s = &m->sector[sector];
    bool ok =
        v == s->durable || (m->foreign && v % 0x01010101u == 0 && v / 0x01010101u < m->foreign);
    for (unsigned i = 0; i < s->n; i++)
        ok |= v == s->written[i];
    return ok;
}

static bool learn_sector(struct model *m, uint64_t i, const uint8_t *data, bool exact,
                         char why[160])
{
    const struct sector_model *s = &m->sector[i];
    uint32_t v;
    bool whole = model_stamp(data, &v);
    if (whole && (exact ? v == model_current(m, i) : possible(m, i, v))) {
        m->sector[i] = (struct sector_model){.durable = v};
        return true;
    }
    snprintf(why, 160, "sector %llu %s %u; durable is %u, the newest of %u since %u",
             (unsigned long long)i, whole ? "holds" : "is torn, it begins with", v, s->durable,
             s->n, model_current(m, i));
    return false;
}

bool model_learn(struct model *m, struct node *n, bool exact, char why[160])
{
    uint64_t size = node_size(n);
    if (size != m->size && (exact || size != m->other_size)) {
        snprintf(why, 160, "the size is %llu, not %llu or %llu", (unsigned long long)size,
                 (unsigned long long)m->size, (unsigned long long)m->other_size);
        return false;
    }
    m->size = m->other_size = size;
    uint8_t *buf = malloc(size);
    int rc = buf ? node_read(n, buf, size, 0) : -1;
    bool ok = rc == 0;
    if (rc)
        snprintf(why, 160, "it cannot be read: %d", rc);
    for (uint64_t i = 0; ok && i < size / SECTOR; i++)
        ok = learn_sector(m, i, buf + i * SECTOR, exact, why);
    free(buf);
    for (uint64_t i = size / SECTOR; ok && i < MAX_SECTORS; i++)
        m->sector[i] = (struct sector_model){0};
    m->full = false;
    return ok;
}
