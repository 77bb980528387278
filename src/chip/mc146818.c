/*
 * mc146818.c - see mc146818.h.
 *
 * The time registers hold the time of the last synchronisation. catch_up() adds the seconds that
 * passed since then and sets the flags that would have been set; it runs before every access and
 * when an enabled interrupt is due. Nothing wakes up while no interrupt is enabled or its flag is
 * already set.
 */
#include "chip/mc146818.h"

#include <string.h>

enum reg {
    SECONDS,
    SECONDS_ALARM,
    MINUTES,
    MINUTES_ALARM,
    HOURS,
    HOURS_ALARM,
    WEEKDAY,
    DAY,
    MONTH,
    YEAR,
    REG_A,
    REG_B,
    REG_C,
    REG_D,
    CENTURY = 0x32,
};

#define A_UIP      0x80
#define A_RATE     0x0f
#define B_SET      0x80
#define B_PIE      0x40
#define B_AIE      0x20
#define B_UIE      0x10
#define B_SQWE     0x08
#define B_BINARY   0x04
#define B_24H      0x02
#define C_IRQF     0x80
#define C_PF       0x40
#define C_AF       0x20
#define C_UF       0x10
#define D_VRT      0x80
#define HOUR_PM    0x80
#define DONT_CARE  0xc0
#define DAY_SECS   86400
#define CRYSTAL_HZ 32768

/* UIP rises this long before the registers change (data sheet, t_BUC). */
#define UIP_NS 244000

static ns_t now_of(const struct mc146818 *r)
{
    return vclock_now(r->timerq->clock);
}

/* Divider control 0-2 selects an oscillator, 6 and 7 hold the chain in reset. */
static bool divider_runs(const struct mc146818 *r)
{
    return (r->cmos[REG_A] & 0x60) != 0x60;
}

static bool updates(const struct mc146818 *r)
{
    return divider_runs(r) && !(r->cmos[REG_B] & B_SET);
}

static int64_t chain_seconds(const struct mc146818 *r, ns_t now)
{
    ns_t d = now - r->divider;
    return d / NS_PER_SEC - (d % NS_PER_SEC < 0);
}

/* log2 of the periodic interrupt's period in crystal ticks; -1: none. */
static int rate_shift(const struct mc146818 *r)
{
    unsigned rate = r->cmos[REG_A] & A_RATE;
    if (!rate || !divider_runs(r))
        return -1;
    return (int)(rate <= 2 ? rate + 6 : rate - 1);
}

static uint64_t chain_periods(const struct mc146818 *r, ns_t now)
{
    int shift = rate_shift(r);
    if (shift < 0 || now < r->divider)
        return 0;
    return muldiv_u64((uint64_t)(now - r->divider), CRYSTAL_HZ, NS_PER_SEC) >> shift;
}

static unsigned decode(const struct mc146818 *r, uint8_t v)
{
    return r->cmos[REG_B] & B_BINARY ? v : (v >> 4) * 10u + (v & 15);
}

static uint8_t encode(const struct mc146818 *r, unsigned v)
{
    return (uint8_t)(r->cmos[REG_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static unsigned decode_hour(const struct mc146818 *r, uint8_t v)
{
    if (r->cmos[REG_B] & B_24H)
        return decode(r, v);
    return decode(r, v & 0x7f) % 12 + (v & HOUR_PM ? 12 : 0);
}

static uint8_t encode_hour(const struct mc146818 *r, unsigned h)
{
    if (r->cmos[REG_B] & B_24H)
        return encode(r, h);
    return encode(r, h % 12 ? h % 12 : 12) | (h >= 12 ? HOUR_PM : 0);
}

/* Days since 1970-01-01 of a date in the Gregorian calendar; month 1..12, and any day. */
static int64_t days_of(int64_t year, unsigned month, unsigned day)
{
    int64_t y = month <= 2 ? year - 1 : year; /* years start in March: leap days come last */
    unsigned m = month <= 2 ? month + 9 : month - 3;
    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719468;
}

static void date_of(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
    int64_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097;
    int64_t doe = z - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = (unsigned)(doe - (365 * yoe + yoe / 4 - yoe / 100));
    unsigned m = (5 * doy + 2) / 153;
    *day = doy - (153 * m + 2) / 5 + 1;
    *month = m < 10 ? m + 3 : m - 9;
    *year = yoe + era * 400 + (*month <= 2);
}

/* The registers as seconds since 1970; whatever the guest wrote yields some date after year 0. */
static int64_t read_time(const struct mc146818 *r)
{
    const uint8_t *m = r->cmos;
    int64_t year = decode(r, m[CENTURY]) * 100 + decode(r, m[YEAR]);
    unsigned month = decode(r, m[MONTH]);
    month = month < 1 ? 1 : month > 12 ? 12 : month;
    int64_t days = days_of(year, month, decode(r, m[DAY]));
    return days * DAY_SECS + decode_hour(r, m[HOURS]) * 3600 + decode(r, m[MINUTES]) * 60 +
           decode(r, m[SECONDS]);
}

static int64_t day_number(int64_t t)
{
    return t / DAY_SECS - (t % DAY_SECS < 0);
}

static void write_time(struct mc146818 *r, int64_t t)
{
    uint8_t *m = r->cmos;
    int64_t days = day_number(t), year;
    unsigned sod = (unsigned)(t - days * DAY_SECS), month, day;
    date_of(days, &year, &month, &day);
    m[SECONDS] = encode(r, sod % 60);
    m[MINUTES] = encode(r, sod / 60 % 60);
    m[HOURS] = encode_hour(r, sod / 3600);
    m[DAY] = encode(r, day);
    m[MONTH] = encode(r, month);
    m[YEAR] = encode(r, (unsigned)(year % 100));
    m[CENTURY] = encode(r, (unsigned)(year / 100 % 100));
}

/* Seconds until the alarm matches, 1..86400; 0: it never does. Each field steps at most once
 * around. */
static unsigned alarm_delay(const struct mc146818 *r)
{
    const uint8_t *m = r->cmos;
    bool any_h = (m[HOURS_ALARM] & DONT_CARE) == DONT_CARE;
    bool any_m = (m[MINUTES_ALARM] & DONT_CARE) == DONT_CARE;
    bool any_s = (m[SECONDS_ALARM] & DONT_CARE) == DONT_CARE;
    unsigned h = decode_hour(r, m[HOURS_ALARM]), min = decode(r, m[MINUTES_ALARM]);
    unsigned s = decode(r, m[SECONDS_ALARM]);
    if ((!any_h && h > 23) || (!any_m && min > 59) || (!any_s && s > 59))
        return 0;
    int64_t time = read_time(r);
    unsigned base = (unsigned)(time - day_number(time) * DAY_SECS), t = base + 1;
    while (t - base <= DAY_SECS) {
        if (!any_h && t / 3600 % 24 != h)
            t = (t / 3600 + 1) * 3600;
        else if (!any_m && t / 60 % 60 != min)
            t = (t / 60 + 1) * 60;
        else if (!any_s && t % 60 != s)
            t++;
        else
            return t - base;
    }
    return 0;
}

static void advance(struct mc146818 *r, int64_t seconds)
{
    unsigned delay = alarm_delay(r);
    if (delay && delay <= seconds)
        r->cmos[REG_C] |= C_AF;
    r->cmos[REG_C] |= C_UF;
    int64_t from = read_time(r), to = from + seconds;
    int64_t days = day_number(to) - day_number(from);
    unsigned weekday = r->cmos[WEEKDAY] & 7; /* a plain counter, 1..7; no format applies */
    write_time(r, to);
    r->cmos[WEEKDAY] = (uint8_t)(((weekday ? weekday : 1) - 1 + days) % 7 + 1);
}

static void catch_up(struct mc146818 *r)
{
    ns_t now = now_of(r);
    int64_t second = chain_seconds(r, now);
    if (updates(r) && second > r->second)
        advance(r, second - r->second);
    r->second = second;
    uint64_t period = chain_periods(r, now);
    if (period > r->period)
        r->cmos[REG_C] |= C_PF;
    r->period = period;
}

static ns_t earlier(ns_t a, ns_t b)
{
    return a < b ? a : b;
}

/* Drives IRQ 8, and arms the timer for the next flag that would raise it. */
static void update(struct mc146818 *r)
{
    uint8_t *m = r->cmos, enabled = m[REG_B] & (B_PIE | B_AIE | B_UIE);
    bool irq = m[REG_C] & enabled;
    m[REG_C] = (m[REG_C] & ~C_IRQF) | (irq ? C_IRQF : 0);
    pin_set(&r->irq, irq);
    ns_t due = INT64_MAX;
    uint8_t awaited = irq ? 0 : enabled; /* the pin is high: no flag can raise it again */
    int shift = rate_shift(r);
    if ((awaited & B_PIE) && shift >= 0) {
        uint64_t ticks = (r->period + 1) << shift;
        due = r->divider +
              (ns_t)(((unsigned __int128)ticks * NS_PER_SEC + CRYSTAL_HZ - 1) / CRYSTAL_HZ);
    }
    if (updates(r) && (awaited & B_UIE))
        due = earlier(due, r->divider + (r->second + 1) * NS_PER_SEC);
    if (updates(r) && (awaited & B_AIE)) {
        unsigned delay = alarm_delay(r);
        if (delay)
            due = earlier(due, r->divider + (r->second + delay) * NS_PER_SEC);
    }
    if (due == INT64_MAX)
        timer_disarm(r->timerq, &r->timer);
    else
        timer_arm(r->timerq, &r->timer, due);
}

static void on_timer(void *arg)
{
    struct mc146818 *r = arg;
    catch_up(r);
    update(r);
}

static bool update_in_progress(const struct mc146818 *r)
{
    ns_t next = r->divider + (chain_seconds(r, now_of(r)) + 1) * NS_PER_SEC;
    return updates(r) && next - now_of(r) <= UIP_NS;
}

static uint8_t read_byte(struct mc146818 *r, unsigned i)
{
    uint8_t val;
    catch_up(r);
    switch (i) {
    case REG_A:
        val = r->cmos[i] | (update_in_progress(r) ? A_UIP : 0);
        break;
    case REG_C: /* reading clears every flag */
        update(r);
        val = r->cmos[i];
        r->cmos[i] = 0;
        break;
    case REG_D:
        val = D_VRT;
        break;
    default:
        val = r->cmos[i];
    }
    update(r);
    return val;
}

static void write_a(struct mc146818 *r, uint8_t val)
{
    bool ran = divider_runs(r);
    r->cmos[REG_A] = val & ~A_UIP;
    ns_t now = now_of(r);
    if (!ran && divider_runs(r)) /* the first update comes half a second after the reset ends */
        r->divider = now - NS_PER_SEC / 2;
    r->second = chain_seconds(r, now);
    r->period = chain_periods(r, now);
}

static void write_byte(struct mc146818 *r, unsigned i, uint8_t val)
{
    catch_up(r);
    switch (i) {
    case REG_A:
        write_a(r, val);
        break;
    case REG_B:
        r->cmos[i] = val & B_SET ? val & ~B_UIE : val;
        break;
    case REG_C:
    case REG_D: /* read-only */
        break;
    default:
        r->cmos[i] = val;
    }
    update(r);
}

/* Offsets: 0 index, 1 data, 2 extended index, 3 extended data. */
static uint64_t mc146818_read(void *dev, uint64_t off, unsigned size)
{
    struct mc146818 *r = dev;
    if (!(off & 1)) /* the index registers are write-only */
        return 0xff;
    return off & 2 ? r->cmos[128 | r->index[1]] : read_byte(r, r->index[0]);
}

static void mc146818_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct mc146818 *r = dev;
    switch (off & 3) {
    case 0:
        r->index[0] = val & 0x7f;
        pin_set(&r->nmi_mask, val & 0x80);
        break;
    case 1:
        write_byte(r, r->index[0], (uint8_t)val);
        break;
    case 2:
        r->index[1] = val & 0x7f;
        break;
    default:
        r->cmos[128 | r->index[1]] = (uint8_t)val;
    }
}

/* RESET# stops the interrupts; the battery keeps the time and the RAM. */
static void mc146818_reset(void *dev)
{
    struct mc146818 *r = dev;
    catch_up(r);
    r->cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE);
    r->cmos[REG_C] = 0;
    r->index[0] = r->index[1] = 0;
    pin_set(&r->nmi_mask, false);
    update(r);
}

int mc146818_init(struct mc146818 *r, struct timerq *q, int64_t seconds, struct pin irq,
                  struct pin nmi_mask, struct error *e)
{
    *r = (struct mc146818){.timerq = q, .irq = irq, .nmi_mask = nmi_mask};
    int err = timer_init(q, &r->timer, on_timer, r, e);
    if (err < 0)
        return err;
    r->cmos[REG_A] = 0x26; /* 32768 Hz crystal, periodic rate 1024 Hz */
    r->cmos[REG_B] = B_24H;
    r->divider = now_of(r);
    write_time(r, seconds);
    /* 1970-01-01 was a Thursday, day 5. */
    r->cmos[WEEKDAY] = (uint8_t)(((day_number(seconds) + 4) % 7 + 7) % 7 + 1);
    mc146818_reset(r);
    return 0;
}

void mc146818_set_cmos(struct mc146818 *r, unsigned index, uint8_t value)
{
    if (index < sizeof r->cmos)
        r->cmos[index] = value;
}

uint8_t mc146818_get_cmos(const struct mc146818 *r, unsigned index)
{
    return index < sizeof r->cmos ? r->cmos[index] : 0xff;
}

static const struct io_ops ops = {"mc146818", 1, mc146818_read, mc146818_write};

static const struct chip_range ranges[] = {{true, 0x70, 4, &ops}, {0}};

/* ---- state ---- */

static void pre_save(void *dev)
{
    catch_up(dev);
}

static int post_load(void *dev, struct error *e)
{
    struct mc146818 *r = dev;
    ns_t now = now_of(r);
    if (r->divider < -NS_PER_SEC || r->divider > now)
        return error_set(e, ERR_FORMAT, "divider: is not within the life of the machine");
    if (r->second < -1 || r->second > chain_seconds(r, now) || r->period > chain_periods(r, now))
        return error_set(e, ERR_FORMAT, "second, period: are not those of the divider chain");
    update(r);
    return 0;
}

static const struct field fields[] = {
    FIELD_ARRAY(struct mc146818, cmos),
    FIELD_ARRAY(struct mc146818, index, .max = 127),
    FIELD_NONE(struct mc146818, timerq),
    FIELD_NONE(struct mc146818, timer), /* armed by what is enabled */
    FIELD(struct mc146818, divider),
    FIELD(struct mc146818, second),
    FIELD(struct mc146818, period),
    FIELD_NONE(struct mc146818, irq),
    FIELD_NONE(struct mc146818, nmi_mask), /* follows the index port, and leads nowhere */
};
static const struct field_table table =
    FIELD_TABLE(struct mc146818, "mc146818", fields, .pre_save = pre_save, .post_load = post_load);

const struct chip_desc mc146818_desc = {"mc146818", mc146818_reset, ranges, &table};
