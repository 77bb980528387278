/*
 * hpet.c - high precision event timer.
 *
 * The counter is not stepped: it is derived from the VM clock. A host timer is armed for each
 * comparator that is enabled to interrupt; it is computed anew after every change of what the match
 * depends on.
 */
#include "chip/hpet.h"

#include <string.h>

/* Registers (spec 2.3.1). Comparator n: 0x100 + 0x20 n. */
enum {
    REG_CAPS = 0x000,
    REG_CONFIG = 0x010,
    REG_STATUS = 0x020,
    REG_COUNTER = 0x0f0,
    REG_CMP = 0x100,
    CMP_CONFIG = 0x00,
    CMP_VALUE = 0x08,
};

#define CONFIG_ENABLE 1u
#define CONFIG_LEGACY 2u

#define CMP_LEVEL    0x0002u
#define CMP_INT      0x0004u
#define CMP_PERIODIC 0x0008u
#define CMP_SET      0x0040u /* the next write of the comparator sets it also in periodic mode */
#define CMP_32       0x0100u
#define CMP_ROUTE(c) (((c) >> 9) & 31)
#define CMP_WRITABLE 0x3f4eu
#define CMP_CAPS     0x0030u /* periodic and 64 bits wide */

/* Ticks that the host could not deliver apart are coalesced to this distance. */
#define MIN_PERIOD_TICKS (50000 / HPET_TICK_NS)

static bool running(const struct hpet *h)
{
    return h->config & CONFIG_ENABLE;
}

static bool legacy(const struct hpet *h)
{
    return h->config & CONFIG_LEGACY;
}

static unsigned index_of(const struct hpet_comparator *c)
{
    return (unsigned)(c - c->hpet->cmp);
}

static uint64_t counter(const struct hpet *h)
{
    if (!running(h))
        return h->counter;
    return h->counter + (uint64_t)(vclock_now(h->tq->clock) - h->since) / HPET_TICK_NS;
}

static uint64_t width_mask(const struct hpet_comparator *c)
{
    return c->config & CMP_32 ? 0xffffffffull : ~0ull;
}

/* ---- interrupts ---- */

static void drive(struct hpet_comparator *c, bool level)
{
    struct hpet *h = c->hpet;
    unsigned n = index_of(c);
    if (legacy(h) && n < 2) {
        pin_set(&h->legacy[n], level);
    } else if (HPET_ROUTES >> CMP_ROUTE(c->config) & 1) {
        struct pin p = h->irq;
        p.line = CMP_ROUTE(c->config);
        pin_set(&p, level);
    }
}

static void match(struct hpet_comparator *c)
{
    /* Spec 2.3.8, Tn_INT_ENB_CNF: without it the status bit is set all the same. */
    bool enabled = c->config & CMP_INT;
    if (c->config & CMP_LEVEL) {
        c->hpet->status |= 1u << index_of(c);
        if (enabled)
            drive(c, true);
    } else if (enabled) {
        drive(c, true);
        drive(c, false);
    }
}

static void clear_status(struct hpet_comparator *c)
{
    c->hpet->status &= ~(1u << index_of(c));
    drive(c, false);
}

/* ---- matching ---- */

/* Arms the host timer for the next time that the counter equals the comparator; `passed`: the match
 * at this very count was delivered. */
static void arm_after(struct hpet_comparator *c, bool passed)
{
    struct hpet *h = c->hpet;
    timer_disarm(h->tq, &c->timer);
    if (!running(h))
        return;
    uint64_t now = counter(h), ticks = (c->compare - now) & width_mask(c), total;
    if (passed && !ticks) {
        if (!(c->config & CMP_32))
            return; /* 64 bits come round in 5849 years */
        ticks = 1ull << 32;
    }
    /* Reckoned from `since`, to keep the counter's phase; beyond the clock's range is never. */
    if (__builtin_add_overflow(now - h->counter, ticks, &total) ||
        total > (uint64_t)(INT64_MAX - h->since) / HPET_TICK_NS)
        return;
    timer_arm(h->tq, &c->timer, h->since + (ns_t)(total * HPET_TICK_NS));
}

static void arm(struct hpet_comparator *c)
{
    arm_after(c, false);
}

static void on_match(void *arg)
{
    struct hpet_comparator *c = arg;
    struct hpet *h = c->hpet;
    uint64_t mask = width_mask(c);
    if (c->config & CMP_PERIODIC) {
        /* Spec 2.3.9.2.2: the comparator moves on by the period, here to the first multiple that
         * lies far enough ahead. Period 0 leaves it where it is. */
        uint64_t period = c->period & mask;
        uint64_t late = ((counter(h) - c->compare) & mask) + MIN_PERIOD_TICKS;
        if (period)
            c->compare = (c->compare + (late + period - 1) / period * period) & mask;
    }
    match(c);
    arm_after(c, true);
}

/* Delivers a match that is due, before something that it depends on changes. */
static void catch_up(struct hpet *h)
{
    ns_t now = vclock_now(h->tq->clock);
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        struct hpet_comparator *c = &h->cmp[n];
        if (c->timer.pos && c->timer.deadline <= now) {
            timer_disarm(h->tq, &c->timer);
            on_match(c);
        }
    }
}

/* ---- registers ---- */

static uint64_t cmp_read(const struct hpet_comparator *c, unsigned reg)
{
    switch (reg) {
    case CMP_CONFIG:
        return (uint64_t)HPET_ROUTES << 32 | c->config | CMP_CAPS;
    case CMP_VALUE:
        return c->compare & width_mask(c);
    default: /* FSB routing is not offered */
        return 0;
    }
}

static uint64_t reg_read(const struct hpet *h, unsigned reg)
{
    switch (reg) {
    case REG_CAPS:
        return (uint64_t)HPET_PERIOD_FS << 32 | HPET_CAP_ID;
    case REG_CONFIG:
        return h->config;
    case REG_STATUS:
        return h->status;
    case REG_COUNTER:
        return counter(h);
    default:
        if (reg < REG_CMP || reg >= REG_CMP + 0x20 * HPET_TIMERS)
            return 0;
        return cmp_read(&h->cmp[(reg - REG_CMP) / 0x20], reg & 0x1f);
    }
}

static void cmp_config(struct hpet_comparator *c, uint32_t v)
{
    uint32_t old = c->config;
    bool was_high = c->hpet->status >> index_of(c) & 1;
    if (was_high && ((old ^ v) & (CMP_LEVEL | CMP_INT | 31u << 9)))
        clear_status(c); /* the old line must not stay asserted */
    c->config = v & CMP_WRITABLE;
    if (c->config & CMP_32) {
        c->compare = (uint32_t)c->compare;
        c->period = (uint32_t)c->period;
    }
    arm(c);
}

/* Spec 2.3.9.2.2: in periodic mode a write sets the period, and the comparator too if SET was set
 * just before. `half` are the bits that this access writes. */
static void cmp_value(struct hpet_comparator *c, uint64_t v, uint64_t half)
{
    half &= width_mask(c);
    bool periodic = c->config & CMP_PERIODIC;
    if (!periodic || c->config & CMP_SET)
        c->compare = (c->compare & ~half) | (v & half);
    if (periodic)
        c->period = (c->period & ~half) | (v & half);
    c->config &= ~CMP_SET;
    arm(c);
}

static void set_config(struct hpet *h, uint64_t v)
{
    uint64_t old = h->config;
    if ((old ^ v) & CONFIG_ENABLE) {
        h->counter = counter(h);
        h->since = vclock_now(h->tq->clock);
    }
    if ((old ^ v) & CONFIG_LEGACY) {
        for (unsigned n = 0; n < 2; n++)
            clear_status(&h->cmp[n]);
    }
    h->config = v & (CONFIG_ENABLE | CONFIG_LEGACY);
    pin_set(&h->legacy_on, legacy(h));
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        arm(&h->cmp[n]);
}

static void reg_write(struct hpet *h, unsigned reg, uint64_t v, uint64_t half)
{
    uint64_t merged = (reg_read(h, reg) & ~half) | (v & half);
    unsigned n = reg >= REG_CMP ? (reg - REG_CMP) / 0x20 : HPET_TIMERS;
    switch (reg) {
    case REG_CONFIG:
        set_config(h, merged);
        break;
    case REG_STATUS: /* writing 1 clears; only level-triggered comparators have a bit set */
        for (unsigned i = 0; i < HPET_TIMERS; i++) {
            if (v & half & h->status & 1u << i)
                clear_status(&h->cmp[i]);
        }
        break;
    case REG_COUNTER: /* spec 2.3.7: written only while halted */
        if (!running(h))
            h->counter = merged;
        break;
    default:
        if (n >= HPET_TIMERS)
            break;
        if ((reg & 0x1f) == CMP_CONFIG && half & 0xffffffffu)
            cmp_config(&h->cmp[n], (uint32_t)merged);
        else if ((reg & 0x1f) == CMP_VALUE)
            cmp_value(&h->cmp[n], v, half);
        break;
    }
}

static uint64_t hpet_read(void *dev, uint64_t off, unsigned size)
{
    uint64_t v = reg_read(dev, (unsigned)off & ~7u);
    if (size == 8)
        return v;
    return off & 4 ? v >> 32 : (uint32_t)v;
}

static void hpet_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct hpet *h = dev;
    catch_up(h);
    if (size == 8)
        reg_write(h, (unsigned)off & ~7u, val, ~0ull);
    else if (off & 4)
        reg_write(h, (unsigned)off & ~7u, val << 32, 0xffffffff00000000ull);
    else
        reg_write(h, (unsigned)off & ~7u, val, 0xffffffffull);
}

static void hpet_reset(void *dev)
{
    struct hpet *h = dev;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        struct hpet_comparator *c = &h->cmp[n];
        timer_disarm(h->tq, &c->timer);
        clear_status(c);
        c->config = 0;
        c->compare = ~0ull;
        c->period = 0;
    }
    h->config = 0;
    h->counter = 0;
    pin_set(&h->legacy_on, false);
}

int hpet_init(struct hpet *h, struct timerq *tq, const struct hpet_wiring *w, struct error *e)
{
    memset(h, 0, sizeof *h);
    h->tq = tq;
    h->irq = w->irq;
    h->legacy[0] = w->legacy_irq0;
    h->legacy[1] = w->legacy_irq8;
    h->legacy_on = w->legacy_on;
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        h->cmp[n].hpet = h;
        int rc = timer_init(tq, &h->cmp[n].timer, on_match, &h->cmp[n], e);
        if (rc)
            return rc;
    }
    hpet_reset(h);
    return 0;
}

void hpet_fini(struct hpet *h)
{
    for (unsigned n = 0; n < HPET_TIMERS; n++)
        timer_disarm(h->tq, &h->cmp[n].timer);
}

static const struct io_ops hpet_ops = {"hpet", 4 | 8, hpet_read, hpet_write};

/* ---- state ---- */

/* What was due had been delivered when the state was saved. */
static int post_load(void *dev, struct error *e)
{
    struct hpet *h = dev;
    if (h->since < 0 || h->since > vclock_now(h->tq->clock))
        return error_set(e, ERR_FORMAT, "since: is not within the life of the machine");
    for (unsigned n = 0; n < HPET_TIMERS; n++) {
        if (h->cmp[n].config & ~CMP_WRITABLE)
            return error_set(e, ERR_FORMAT, "cmp[%u]: config: has unknown bits", n);
        arm_after(&h->cmp[n], true);
    }
    return 0;
}

static const struct field cmp_fields[] = {
    FIELD_NONE(struct hpet_comparator, hpet),
    FIELD_NONE(struct hpet_comparator, timer), /* armed by the comparator */
    FIELD(struct hpet_comparator, config),
    FIELD(struct hpet_comparator, compare),
    FIELD(struct hpet_comparator, period),
};
static const struct field_table cmp_table =
    FIELD_TABLE(struct hpet_comparator, "hpet_comparator", cmp_fields);

static const struct field fields[] = {
    FIELD_NONE(struct hpet, tq),
    FIELD_NONE(struct hpet, irq),
    FIELD_NONE(struct hpet, legacy),
    FIELD_NONE(struct hpet, legacy_on),
    FIELD(struct hpet, config, .max = CONFIG_ENABLE | CONFIG_LEGACY),
    FIELD(struct hpet, status, .max = (1u << HPET_TIMERS) - 1),
    FIELD(struct hpet, counter),
    FIELD(struct hpet, since),
    FIELD_STRUCTS(struct hpet, cmp, cmp_table),
};
static const struct field_table table =
    FIELD_TABLE(struct hpet, "hpet", fields, .post_load = post_load);

const struct chip_desc hpet_desc = {
    .name = "hpet",
    .reset = hpet_reset,
    .fields = &table,
    .ranges = (const struct chip_range[]){{false, HPET_BASE, HPET_SIZE, &hpet_ops}, {.len = 0}},
};
