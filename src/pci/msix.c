/*
 * msix.c - MSI-X: the vector table, the pending bits and the two levels of masks.
 * Source: PCI Local Bus Specification 3.0, 6.8.2.
 *
 * A message that may not be sent now (function mask, vector mask, or no bus mastering) stays in the
 * pending bits and goes out as soon as the last obstacle is gone.
 */
#include "pci/msix.h"

#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "pci/config.h"

#define MAX_VECTORS 2048u
#define ENTRY_SIZE  16u

enum { ENTRY_ADDR, ENTRY_ADDR_HIGH, ENTRY_DATA, ENTRY_CONTROL, ENTRY_DWORDS };
#define CONTROL_MASKED 1u

#define MC_ENABLE  0x8000u
#define MC_MASKALL 0x4000u

static uint16_t message_control(const struct msix *m)
{
    return load_le16(&m->dev->cfg[m->cap + 2]);
}

static bool may_send(const struct msix *m, unsigned vector)
{
    uint16_t mc = message_control(m);
    uint32_t control = m->table[vector * ENTRY_DWORDS + ENTRY_CONTROL];
    return (mc & MC_ENABLE) && !(mc & MC_MASKALL) && !(control & CONTROL_MASKED) &&
           pci_bus_master(m->dev);
}

static void send(const struct msix *m, unsigned vector)
{
    const uint32_t *entry = &m->table[vector * ENTRY_DWORDS];
    const struct pci_bus *b = m->dev->bus;
    uint64_t addr = (uint64_t)entry[ENTRY_ADDR_HIGH] << 32 | entry[ENTRY_ADDR];
    if (b->msi)
        b->msi(b->ctx, addr, entry[ENTRY_DATA]);
}

static void send_pending(struct msix *m, unsigned vector)
{
    uint32_t bit = 1u << (vector % 32);
    if ((m->pending[vector / 32] & bit) && may_send(m, vector)) {
        m->pending[vector / 32] &= ~bit;
        send(m, vector);
    }
}

void msix_update(struct msix *m)
{
    for (unsigned i = 0; i < m->n; i++)
        send_pending(m, i);
}

void msix_reset(struct msix *m)
{
    memset(m->table, 0, (size_t)m->n * ENTRY_SIZE);
    memset(m->pending, 0, (m->n + 31) / 32 * sizeof *m->pending);
    for (unsigned i = 0; i < m->n; i++)
        m->table[i * ENTRY_DWORDS + ENTRY_CONTROL] = CONTROL_MASKED;
    m->dev->cfg[m->cap + 3] &= 0x3f;
}

void msix_free(struct msix *m)
{
    if (!m)
        return;
    free(m->table);
    free(m->pending);
    free(m);
}

/* The table lies in front, the pending bits in the second half; the rest reads as zero. */
static uint64_t bar_read(void *dev, uint64_t off, unsigned size)
{
    const struct msix *m = dev;
    uint64_t dword = off / 4;
    if (dword < (uint64_t)m->n * ENTRY_DWORDS)
        return m->table[dword];
    if (off >= m->pba && (off - m->pba) / 4 < (m->n + 31) / 32)
        return m->pending[(off - m->pba) / 4];
    return 0;
}

static void bar_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct msix *m = dev;
    uint64_t dword = off / 4;
    if (dword >= (uint64_t)m->n * ENTRY_DWORDS)
        return; /* the pending bits are read-only */
    switch (dword % ENTRY_DWORDS) {
    case ENTRY_ADDR:
        m->table[dword] = (uint32_t)val & ~3u;
        break;
    case ENTRY_CONTROL:
        m->table[dword] = (uint32_t)val & CONTROL_MASKED;
        send_pending(m, (unsigned)(dword / ENTRY_DWORDS));
        break;
    default:
        m->table[dword] = (uint32_t)val;
        break;
    }
}

static const struct io_ops msix_ops = {"msix", 4, bar_read, bar_write};

static uint64_t bar_size(unsigned nvectors)
{
    uint64_t size = 4 * KIB;
    while (size / 2 < (uint64_t)nvectors * ENTRY_SIZE)
        size *= 2;
    return size;
}

static struct msix *msix_alloc(struct pci_dev *d, unsigned nvectors)
{
    struct msix *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->dev = d;
    m->n = nvectors;
    m->pba = bar_size(nvectors) / 2;
    m->table_len = nvectors * ENTRY_SIZE;
    m->pending_len = (nvectors + 31) / 32 * (uint32_t)sizeof *m->pending;
    m->table = calloc(1, m->table_len);
    m->pending = calloc(1, m->pending_len);
    if (!m->table || !m->pending) {
        msix_free(m);
        return NULL;
    }
    return m;
}

int pci_msix_add(struct pci_dev *d, unsigned bar, unsigned nvectors, struct error *e)
{
    if (!nvectors || nvectors > MAX_VECTORS)
        return error_set(e, ERR_LIMIT, "%s: %u MSI-X vectors are not 1 to %u", d->name, nvectors,
                         MAX_VECTORS);
    struct msix *m = msix_alloc(d, nvectors);
    if (!m)
        return error_set(e, ERR_NOMEM, "out of memory");
    int rc = pci_bar_add(d, bar, false, false, false, bar_size(nvectors), &msix_ops, m, e);
    if (rc == 0)
        rc = pci_cap_add(d, PCI_CAP_ID_MSIX, 12, e);
    if (rc < 0) {
        msix_free(m);
        return rc;
    }
    m->cap = (uint8_t)rc;
    store_le16(&d->cfg[m->cap + 2], (uint16_t)(nvectors - 1));
    d->wmask[m->cap + 3] = (MC_ENABLE | MC_MASKALL) >> 8;
    store_le32(&d->cfg[m->cap + 4], bar);
    store_le32(&d->cfg[m->cap + 8], (uint32_t)m->pba | bar);
    d->msix = m;
    msix_reset(m);
    return 0;
}

bool pci_msix_enabled(const struct pci_dev *d)
{
    return d->msix && (message_control(d->msix) & MC_ENABLE);
}

void pci_msix_notify(struct pci_dev *d, unsigned vector)
{
    struct msix *m = d->msix;
    if (!pci_msix_enabled(d) || vector >= m->n)
        return;
    if (may_send(m, vector))
        send(m, vector);
    else
        m->pending[vector / 32] |= 1u << (vector % 32);
}

static const struct field fields[] = {
    FIELD_NONE(struct msix, dev),
    FIELD_NONE(struct msix, cap),
    FIELD(struct msix, n, .same = true),
    FIELD_NONE(struct msix, pba),
    FIELD_BUFFER(struct msix, table, table_len, MAX_VECTORS *ENTRY_SIZE, .same = true),
    FIELD_BUFFER(struct msix, pending, pending_len, MAX_VECTORS / 8, .same = true),
    FIELD_NONE(struct msix, table_len),
    FIELD_NONE(struct msix, pending_len),
};
const struct field_table msix_fields = FIELD_TABLE(struct msix, "msix", fields);
