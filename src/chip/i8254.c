/*
 * i8254.c - see i8254.h.
 *
 * Ticks are counted from the start of the VM clock, so a period never drifts: edge number n is at a
 * tick, and its time is rounded once, from that tick.
 */
#include "chip/i8254.h"

#define NEVER UINT64_MAX

/* Periodic edges closer together than this are merged: no guest can follow, and the host need not.
 */
#define MIN_EDGE_NS 20000

static uint64_t tick_at(ns_t t)
{
    return muldiv_u64((uint64_t)t, I8254_HZ, NS_PER_SEC);
}

static uint64_t tick_now(const struct i8254 *p)
{
    return tick_at(vclock_now(p->timerq->clock));
}

/* The first instant at which tick_at() is `tick`. */
static ns_t time_of(uint64_t tick)
{
    return (ns_t)(((unsigned __int128)tick * NS_PER_SEC + I8254_HZ - 1) / I8254_HZ);
}

static bool periodic(const struct i8254_channel *c)
{
    return c->mode == 2 || c->mode == 3;
}

static uint32_t modulus(const struct i8254_channel *c)
{
    return c->bcd ? 10000 : 65536;
}

/* `start` may lie before tick 0 and then wraps: only differences are used. */
static bool begun(const struct i8254_channel *c, uint64_t now)
{
    return c->held || (int64_t)(now - c->start) >= 0;
}

/* Ticks since the counting element held N. */
static uint64_t elapsed(const struct i8254_channel *c, uint64_t now)
{
    if (c->held)
        return c->held_ticks;
    return begun(c, now) ? now - c->start : 0;
}

/* Mode 3 is high for the longer half of an odd count. */
static uint32_t high_half(uint32_t n)
{
    return (n + 1) / 2;
}

static uint32_t counter(const struct i8254_channel *c, uint64_t now)
{
    if (!c->loaded)
        return 0;
    uint64_t k = elapsed(c, now);
    uint32_t n = c->count, m = modulus(c), phase = k % n;
    switch (c->mode) {
    case 2:
        return (n - phase) % m;
    case 3: /* counts down by two in each half */
        if (phase >= high_half(n))
            phase -= high_half(n);
        return ((n & ~1u) - 2 * phase) % m;
    default:
        return (n + m - k % m) % m;
    }
}

static bool out(const struct i8254_channel *c, uint64_t now)
{
    if (!c->loaded)
        return c->mode != 0;
    uint64_t k = elapsed(c, now);
    switch (c->mode) {
    case 0:
        return begun(c, now) && k >= c->count && !c->write_msb;
    case 1:
        return !begun(c, now) || k >= c->count;
    case 2:
        return !c->gate || k % c->count != c->count - 1;
    case 3:
        return !c->gate || k % c->count < high_half(c->count);
    default:
        return k != c->count;
    }
}

/* The first rising edge of OUT after tick `now`. */
static uint64_t next_rise(const struct i8254_channel *c, uint64_t now)
{
    if (!c->loaded || c->held)
        return NEVER;
    if (periodic(c)) {
        if (c->count < 2) /* not a legal count: OUT does not move */
            return NEVER;
        return c->start + (elapsed(c, now) / c->count + 1) * c->count;
    }
    uint64_t rise = c->start + c->count + (c->mode >= 4);
    return rise > now ? rise : NEVER;
}

/* Moves a new count of a periodic mode into the counting element once its time has come. */
static void settle(struct i8254_channel *c, uint64_t now)
{
    if (!c->pending || now < c->pending_at)
        return;
    bool at_fall = c->mode == 3 && (c->pending_at - c->start) % c->count != 0;
    c->start = c->pending_at - (at_fall ? high_half(c->reload) : 0);
    c->count = c->reload;
    c->pending = false;
}

static void load(struct i8254_channel *c, uint64_t now)
{
    c->count = c->reload;
    c->start = now + 1; /* the clock pulse after the write or trigger */
    c->loaded = true;
    c->pending = false;
    c->held = !c->gate && c->mode != 1 && c->mode != 5;
    c->held_ticks = 0;
}

/* The end of the current period, or of the current half of a square wave. */
static uint64_t boundary(const struct i8254_channel *c, uint64_t now)
{
    uint64_t k = elapsed(c, now), base = c->start + k / c->count * c->count;
    if (c->mode == 3 && k % c->count < high_half(c->count))
        return base + high_half(c->count);
    return base + c->count;
}

static void hold(struct i8254_channel *c, uint64_t now)
{
    if (c->held)
        return;
    c->held_ticks = elapsed(c, now);
    c->held = true;
}

static void resume(struct i8254_channel *c, uint64_t now)
{
    if (!c->held)
        return;
    c->start = now - c->held_ticks;
    c->held = false;
}

/* Arms the timer for OUT 0's next rising edge. */
static void arm(struct i8254 *p, uint64_t now)
{
    struct i8254_channel *c = &p->channel[0];
    p->next_edge = next_rise(c, now);
    uint64_t wake = p->next_edge;
    if (c->pending && c->pending_at < wake)
        wake = c->pending_at;
    if (wake == NEVER) {
        timer_disarm(p->timerq, &p->timer);
        return;
    }
    ns_t soonest = periodic(c) ? vclock_now(p->timerq->clock) + MIN_EDGE_NS : 0;
    ns_t deadline = time_of(wake);
    timer_arm(p->timerq, &p->timer, deadline > soonest ? deadline : soonest);
}

/* After the guest changed channel 0: IRQ 0 takes OUT's level. Later falling edges are shown
 * together with the rising edge that follows: nobody can see them on IRQ 0, and they would double
 * the timers. */
static void update_irq(struct i8254 *p, uint64_t now)
{
    pin_set(&p->irq, out(&p->channel[0], now));
    arm(p, now);
}

static void on_timer(void *arg)
{
    struct i8254 *p = arg;
    uint64_t now = tick_now(p);
    settle(&p->channel[0], now);
    if (now >= p->next_edge) { /* one edge, however many periods went by */
        pin_set(&p->irq, false);
        pin_set(&p->irq, true);
    }
    arm(p, now);
}

void i8254_set_gate(struct i8254 *p, unsigned channel, bool level)
{
    struct i8254_channel *c = &p->channel[channel];
    uint64_t now = tick_now(p);
    settle(c, now);
    if (c->gate == level)
        return;
    c->gate = level;
    switch (c->mode) {
    case 0:
    case 4:
        if (c->loaded && !level)
            hold(c, now);
        else if (c->loaded && (c->mode == 4 || !c->write_msb))
            resume(c, now);
        break;
    case 2:
    case 3:
        if (c->loaded && !level)
            hold(c, now);
        else if (c->loaded)
            load(c, now);
        break;
    default:
        if (level && (c->loaded || c->pending))
            load(c, now);
    }
    if (channel == 0)
        update_irq(p, now);
}

bool i8254_gate(const struct i8254 *p, unsigned channel)
{
    return p->channel[channel].gate;
}

bool i8254_out(struct i8254 *p, unsigned channel)
{
    uint64_t now = tick_now(p);
    settle(&p->channel[channel], now);
    return out(&p->channel[channel], now);
}

static uint16_t to_bcd(uint32_t v)
{
    return v % 10 | v / 10 % 10 << 4 | v / 100 % 10 << 8 | v / 1000 % 10 << 12;
}

/* A digit above 9 counts as 9: the data sheet leaves it open. */
static uint32_t from_bcd(uint16_t v)
{
    uint32_t r = 0;
    for (int shift = 12; shift >= 0; shift -= 4)
        r = r * 10 + (uint32_t)min_u64(v >> shift & 15, 9);
    return r;
}

static uint16_t visible_count(const struct i8254_channel *c, uint64_t now)
{
    uint32_t v = counter(c, now);
    return c->bcd ? to_bcd(v) : (uint16_t)v;
}

static void latch_count(struct i8254_channel *c, uint64_t now)
{
    if (c->count_latched) /* the first latch stands until it is read */
        return;
    c->latch = visible_count(c, now);
    c->count_latched = true;
}

static void latch_status(struct i8254_channel *c, uint64_t now)
{
    if (c->status_latched)
        return;
    bool null_count = !c->loaded || c->pending || !begun(c, now);
    c->status =
        (uint8_t)(out(c, now) << 7 | null_count << 6 | c->access << 4 | c->mode << 1 | c->bcd);
    c->status_latched = true;
}

static void write_control(struct i8254 *p, uint8_t val, uint64_t now)
{
    if (val >> 6 == 3) { /* read-back: bits 3-1 select channels, bits 5 and 4 are active low */
        for (unsigned i = 0; i < 3; i++) {
            if (!(val & 2u << i))
                continue;
            settle(&p->channel[i], now);
            if (!(val & 0x20))
                latch_count(&p->channel[i], now);
            if (!(val & 0x10))
                latch_status(&p->channel[i], now);
        }
        return;
    }
    struct i8254_channel *c = &p->channel[val >> 6];
    settle(c, now);
    if (!(val & 0x30)) {
        latch_count(c, now);
        return;
    }
    unsigned mode = val >> 1 & 7;
    *c = (struct i8254_channel){
        .mode = mode > 5 ? mode - 4 : mode, /* 6 and 7 are 2 and 3 */
        .access = val >> 4 & 3,
        .bcd = val & 1,
        .gate = c->gate,
        .reload = 65536,
    };
    if (c == &p->channel[0])
        update_irq(p, now);
}

static void set_reload(struct i8254_channel *c, uint16_t val, uint64_t now)
{
    uint32_t n = c->bcd ? from_bcd(val) : val;
    c->reload = n ? n : modulus(c);
    if (c->mode == 1 || c->mode == 5) {
        c->pending = true;
        c->pending_at = NEVER;
    } else if (periodic(c) && c->loaded) {
        c->pending_at = c->held ? NEVER : boundary(c, now);
        c->pending = true;
    } else {
        load(c, now);
    }
}

static void write_count(struct i8254 *p, unsigned i, uint8_t val, uint64_t now)
{
    struct i8254_channel *c = &p->channel[i];
    settle(c, now);
    if (c->access == 1) {
        set_reload(c, val, now);
    } else if (c->access == 2) {
        set_reload(c, (uint16_t)(val << 8), now);
    } else if (!c->write_msb) {
        c->write_lsb = val;
        c->write_msb = true;
        if (c->mode == 0 && c->loaded) /* the first byte stops the count and lowers OUT */
            hold(c, now);
    } else {
        c->write_msb = false;
        set_reload(c, (uint16_t)(val << 8 | c->write_lsb), now);
    }
    if (i == 0)
        update_irq(p, now);
}

static uint8_t read_count(struct i8254_channel *c, uint64_t now)
{
    settle(c, now);
    if (c->status_latched) {
        c->status_latched = false;
        return c->status;
    }
    uint16_t v = c->count_latched ? c->latch : visible_count(c, now);
    bool msb = c->access == 2 || (c->access == 3 && c->read_msb);
    if (c->access == 3)
        c->read_msb = !c->read_msb;
    if (c->access != 3 || msb)
        c->count_latched = false;
    return msb ? v >> 8 : v & 0xff;
}

static uint64_t i8254_read(void *dev, uint64_t off, unsigned size)
{
    struct i8254 *p = dev;
    if (off > 2) /* the control word cannot be read */
        return 0xff;
    return read_count(&p->channel[off], tick_now(p));
}

static void i8254_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct i8254 *p = dev;
    if (off > 2)
        write_control(p, val, tick_now(p));
    else
        write_count(p, off, val, tick_now(p));
}

static void i8254_reset(void *dev)
{
    struct i8254 *p = dev;
    /* Undefined until programmed; a mode that waits for a count keeps every channel still. */
    for (unsigned i = 0; i < 3; i++)
        p->channel[i] = (struct i8254_channel){.access = 3, .gate = i != 2, .reload = 65536};
    update_irq(p, tick_now(p));
}

int i8254_init(struct i8254 *p, struct timerq *q, struct pin irq, struct error *e)
{
    *p = (struct i8254){.timerq = q, .irq = irq};
    int r = timer_init(q, &p->timer, on_timer, p, e);
    if (r < 0)
        return r;
    i8254_reset(p);
    return 0;
}

static const struct io_ops ops = {"i8254", 1, i8254_read, i8254_write};

static const struct chip_range ranges[] = {{true, 0x40, 4, &ops}, {0}};

/* ---- state ---- */

/* A count begins a tick after the access that loads it, and was loaded after power-on; both may be
 * behind by a period, or before tick 0. */
#define SLACK (1u << 20)

static void pre_save(void *dev)
{
    struct i8254 *p = dev;
    for (unsigned n = 0; n < ARRAY_LEN(p->channel); n++)
        settle(&p->channel[n], tick_now(p));
}

static int channel_check(const struct i8254_channel *c, uint64_t now, struct error *e)
{
    bool settles = c->pending && c->pending_at != NEVER;
    int64_t since = (int64_t)(now - c->start);
    if (!c->reload || (!c->count && (c->loaded || settles)))
        return error_set(e, ERR_FORMAT, "count: 0 cannot be counted");
    if (since < -(int64_t)SLACK || since > (int64_t)(now + SLACK) || c->held_ticks > now + SLACK ||
        (settles && c->pending_at - now + SLACK > 2 * SLACK))
        return error_set(e, ERR_FORMAT, "start: is not within the life of the machine");
    return 0;
}

static int post_load(void *dev, struct error *e)
{
    struct i8254 *p = dev;
    uint64_t now = tick_now(p);
    for (unsigned n = 0; n < ARRAY_LEN(p->channel); n++) {
        int rc = channel_check(&p->channel[n], now, e);
        if (rc)
            return error_prefix(e, "channel[%u]", n);
    }
    arm(p, now);
    return 0;
}

static const struct field channel_fields[] = {
    FIELD(struct i8254_channel, mode, .max = 5),
    FIELD(struct i8254_channel, access, .max = 3),
    FIELD(struct i8254_channel, bcd),
    FIELD(struct i8254_channel, gate),
    FIELD(struct i8254_channel, write_msb),
    FIELD(struct i8254_channel, read_msb),
    FIELD(struct i8254_channel, write_lsb),
    FIELD(struct i8254_channel, reload, .max = 65536),
    FIELD(struct i8254_channel, loaded),
    FIELD(struct i8254_channel, pending),
    FIELD(struct i8254_channel, pending_at),
    FIELD(struct i8254_channel, count, .max = 65536),
    FIELD(struct i8254_channel, start),
    FIELD(struct i8254_channel, held),
    FIELD(struct i8254_channel, held_ticks),
    FIELD(struct i8254_channel, count_latched),
    FIELD(struct i8254_channel, status_latched),
    FIELD(struct i8254_channel, latch),
    FIELD(struct i8254_channel, status),
};
static const struct field_table channel_table =
    FIELD_TABLE(struct i8254_channel, "i8254_channel", channel_fields);

static const struct field fields[] = {
    FIELD_STRUCTS(struct i8254, channel, channel_table),
    FIELD_NONE(struct i8254, timerq),
    FIELD_NONE(struct i8254, timer), /* armed by channel 0 */
    FIELD_NONE(struct i8254, next_edge),
    FIELD_NONE(struct i8254, irq),
};
static const struct field_table table =
    FIELD_TABLE(struct i8254, "i8254", fields, .pre_save = pre_save, .post_load = post_load);

const struct chip_desc i8254_desc = {"i8254", i8254_reset, ranges, &table};
