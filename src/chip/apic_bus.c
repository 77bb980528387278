/*
 * apic_bus.c - routes interrupt messages to local APICs.
 */
#include "chip/apic_bus.h"

#include <string.h>

#include "base/log.h"
#include "chip/lapic.h"

/* SDM "Message Address Register Format" and "Message Data Register Format". */
#define MSI_ADDR_BASE    0xfee00000ull
#define MSI_ADDR_MASK    0xfffffffffff00000ull
#define MSI_ADDR_LOGICAL 4u

void apic_bus_init(struct apic_bus *b)
{
    memset(b, 0, sizeof *b);
}

int apic_bus_attach(struct apic_bus *b, struct lapic *l, struct error *e)
{
    if (b->nlapic == APIC_BUS_MAX_CPUS)
        return error_set(e, ERR_LIMIT, "at most %d local APICs", APIC_BUS_MAX_CPUS);
    b->lapic[b->nlapic] = l;
    return (int)b->nlapic++;
}

/* Lowest-priority arbitration (SDM "Lowest Priority Delivery Mode"): the smallest APR among the
 * APICs that can take a fixed interrupt. Ties go round in turn, so that no vCPU gets all of them.
 */
static struct lapic *arbitrate(struct apic_bus *b, const struct lapic *skip,
                               const struct apic_msg *m)
{
    struct lapic *best = NULL;
    unsigned winner = 0;
    for (unsigned i = 0; i < b->nlapic; i++) {
        unsigned n = (b->turn + i) % b->nlapic;
        struct lapic *l = b->lapic[n];
        if (l == skip || (!skip && !lapic_match(l, m)) || !lapic_sw_enabled(l))
            continue;
        lapic_pv_sync(l);
        if (!best || lapic_apr(l) < lapic_apr(best)) {
            best = l;
            winner = n;
        }
    }
    if (best)
        b->turn = (winner + 1) % b->nlapic;
    return best;
}

static bool send(struct apic_bus *b, const struct lapic *skip, const struct apic_msg *m)
{
    bool taken = false;
    if (m->mode == APIC_LOWEST) {
        struct lapic *l = arbitrate(b, skip, m);
        return l && lapic_accept(l, m);
    }
    for (unsigned i = 0; i < b->nlapic; i++) {
        struct lapic *l = b->lapic[i];
        if (skip ? l != skip : lapic_match(l, m))
            taken |= lapic_accept(l, m);
    }
    return taken;
}

bool apic_bus_send(struct apic_bus *b, const struct apic_msg *m)
{
    return send(b, NULL, m);
}

bool apic_bus_send_others(struct apic_bus *b, const struct lapic *self, const struct apic_msg *m)
{
    return send(b, self, m);
}

/* The redirection hint (address bit 3) is not looked at: whether one of several destinations is
 * picked is said by the delivery mode, as chipsets do it. */
void apic_bus_msi(void *ctx, uint64_t addr, uint32_t data)
{
    struct apic_bus *b = ctx;
    if ((addr & MSI_ADDR_MASK) != MSI_ADDR_BASE) {
        log_guest("MSI to %#llx, not the APIC range", (unsigned long long)addr);
        return;
    }
    struct apic_msg m = {
        .dest = (uint8_t)(addr >> 12),
        .logical = addr & MSI_ADDR_LOGICAL,
        .mode = (data >> 8) & 7,
        .vector = (uint8_t)data,
        .level = data & 0x8000,
    };
    apic_bus_send(b, &m);
}

void apic_bus_set_extint(void *ctx, unsigned line, bool level)
{
    struct apic_bus *b = ctx;
    if (b->nlapic)
        lapic_set_lint(b->lapic[0], 0, level);
}

void apic_bus_broadcast_eoi(struct apic_bus *b, uint8_t vector)
{
    if (b->eoi)
        b->eoi(b->eoi_ctx, vector);
}

static int post_load(void *dev, struct error *e)
{
    const struct apic_bus *b = dev;
    return b->turn < b->nlapic ? 0 : error_set(e, ERR_FORMAT, "turn: there is no such APIC");
}

static const struct field fields[] = {
    FIELD_NONE(struct apic_bus, lapic),   FIELD_NONE(struct apic_bus, nlapic),
    FIELD(struct apic_bus, turn),         FIELD_NONE(struct apic_bus, eoi),
    FIELD_NONE(struct apic_bus, eoi_ctx), FIELD_NONE(struct apic_bus, pic_ack),
    FIELD_NONE(struct apic_bus, pic_ctx),
};
const struct field_table apic_bus_fields =
    FIELD_TABLE(struct apic_bus, "apic_bus", fields, .post_load = post_load);
