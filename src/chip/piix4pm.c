/*
 * piix4pm.c - PIIX4 power management.
 */
#include "chip/piix4pm.h"

#include <string.h>

#include "base/log.h"

#define STS_TMROF      0x0001u
#define STS_PWRBTN     0x0100u
#define STS_VALID      0x8d21u /* TMROF, GBL, PWRBTN, RTC, resume from LID, RSM */
#define EN_VALID       0x0521u /* TMROF, GBL, PWRBTN, RTC */
#define CNT_SCI_EN     0x0001u
#define CNT_VALID      0x1c03u /* SCI_EN, BRLD_EN, SLP_TYP */
#define CNT_SLP_EN     0x2000u
#define CNT_SLP_TYP(v) (((v) >> 10) & 7)
#define GP_VALID       0x0f01u

#define TIMER_MASK 0xffffffu
#define TIMER_HALF 0x800000u /* bit 23 changes every so many ticks */

static uint64_t timer_ticks(const struct piix4pm *p)
{
    return muldiv_u64((uint64_t)vclock_now(p->tq->clock), PIIX4PM_TIMER_HZ, NS_PER_SEC);
}

/* The first nanosecond at which bit 23 has another value than now. */
static ns_t next_toggle(const struct piix4pm *p)
{
    uint64_t ticks = (timer_ticks(p) | (TIMER_HALF - 1)) + 1;
    return (ns_t)muldiv_u64(ticks, NS_PER_SEC, PIIX4PM_TIMER_HZ) + 1;
}

static uint16_t status(const struct piix4pm *p)
{
    return p->sts | (vclock_now(p->tq->clock) >= p->toggle ? STS_TMROF : 0);
}

/* The SCI is level-triggered: any enabled status. Without SCI_EN the events would be SMIs, which
 * this machine does not have. */
static void update(struct piix4pm *p)
{
    uint16_t sts = status(p);
    bool active = (sts & p->en) || (p->gpsts & p->gpen);
    pin_set(&p->sci, (p->cnt & CNT_SCI_EN) && active);
    if (p->cnt & CNT_SCI_EN && p->en & STS_TMROF && !(sts & STS_TMROF))
        timer_arm(p->tq, &p->overflow, p->toggle);
    else
        timer_disarm(p->tq, &p->overflow);
}

static void on_overflow(void *arg)
{
    update(arg);
}

static void clear_status(struct piix4pm *p, uint16_t bits)
{
    p->sts &= ~bits;
    if (bits & STS_TMROF && vclock_now(p->tq->clock) >= p->toggle)
        p->toggle = next_toggle(p);
}

static void enter_sleep(struct piix4pm *p)
{
    unsigned type = CNT_SLP_TYP(p->cnt);
    if (type == PIIX4PM_SLP_TYP_S5) {
        if (p->power_off)
            p->power_off(p->ctx);
        return;
    }
    log_guest("sleep type %u refused: only S5 (soft off) is offered", type);
}

/* The value of the 32-bit word of registers at `off`. */
static uint32_t word(const struct piix4pm *p, unsigned off)
{
    switch (off) {
    case PIIX4PM_STS:
        return status(p) | (uint32_t)p->en << 16;
    case PIIX4PM_CNT:
        return p->cnt;
    case PIIX4PM_TMR:
        return (uint32_t)timer_ticks(p) & TIMER_MASK;
    case PIIX4PM_GPSTS:
        return p->gpsts | (uint32_t)p->gpen << 16;
    default: /* processor, device and general purpose I/O registers: nothing is behind them */
        return 0;
    }
}

static uint64_t pm_read(void *dev, uint64_t off, unsigned size)
{
    uint32_t v = word(dev, (unsigned)off & ~3u) >> (8 * (off & 3));
    return size < 4 ? v & ((1u << (8 * size)) - 1) : v;
}

static uint16_t merge(uint16_t old, uint16_t v, uint16_t lanes, uint16_t valid)
{
    return (uint16_t)((old & ~lanes) | (v & lanes & valid));
}

/* Writes those bytes of the 16-bit register at `off` that `lanes` selects. */
static void write16(struct piix4pm *p, unsigned off, uint16_t v, uint16_t lanes)
{
    switch (off) {
    case PIIX4PM_STS:
        clear_status(p, v & lanes);
        break;
    case PIIX4PM_EN:
        p->en = merge(p->en, v, lanes, EN_VALID);
        break;
    case PIIX4PM_CNT:
        p->cnt = merge(p->cnt, v, lanes, CNT_VALID);
        if (v & lanes & CNT_SLP_EN)
            enter_sleep(p);
        break;
    case PIIX4PM_GPSTS:
        p->gpsts &= ~(v & lanes);
        break;
    case PIIX4PM_GPEN:
        p->gpen = merge(p->gpen, v, lanes, GP_VALID);
        break;
    default:
        break;
    }
}

static void pm_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    unsigned reg = (unsigned)off & ~1u;
    if (size == 1)
        write16(dev, reg, (uint16_t)(off & 1 ? val << 8 : val), off & 1 ? 0xff00 : 0x00ff);
    else
        write16(dev, reg, (uint16_t)val, 0xffff);
    if (size == 4)
        write16(dev, reg + 2, (uint16_t)(val >> 16), 0xffff);
    update(dev);
}

/* ---- APM control ---- */

void piix4pm_acpi_enable(struct piix4pm *p, bool on)
{
    p->cnt = on ? p->cnt | CNT_SCI_EN : p->cnt & ~CNT_SCI_EN;
    update(p);
}

static uint64_t apm_read(void *dev, uint64_t off, unsigned size)
{
    const struct piix4pm *p = dev;
    return off ? p->apms : p->apmc;
}

static void apm_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    struct piix4pm *p = dev;
    if (off) {
        p->apms = (uint8_t)val;
        return;
    }
    p->apmc = (uint8_t)val;
    if (p->apmc == PIIX4PM_ACPI_ENABLE || p->apmc == PIIX4PM_ACPI_DISABLE)
        piix4pm_acpi_enable(p, p->apmc == PIIX4PM_ACPI_ENABLE);
}

/* ---- life ---- */

void piix4pm_power_button(struct piix4pm *p)
{
    p->sts |= STS_PWRBTN;
    update(p);
}

void piix4pm_reset(struct piix4pm *p)
{
    p->sts = p->en = p->cnt = p->gpsts = p->gpen = 0;
    p->apmc = p->apms = 0;
    p->toggle = next_toggle(p);
    update(p);
}

static void reset(void *dev)
{
    piix4pm_reset(dev);
}

int piix4pm_init(struct piix4pm *p, struct timerq *tq, const struct pin *sci,
                 void (*power_off)(void *ctx), void *ctx, struct error *e)
{
    memset(p, 0, sizeof *p);
    p->tq = tq;
    p->sci = *sci;
    p->power_off = power_off;
    p->ctx = ctx;
    int rc = timer_init(tq, &p->overflow, on_overflow, p, e);
    if (rc)
        return rc;
    piix4pm_reset(p);
    return 0;
}

void piix4pm_fini(struct piix4pm *p)
{
    timer_disarm(p->tq, &p->overflow);
}

const struct io_ops piix4pm_ops = {"piix4 acpi", 1 | 2 | 4, pm_read, pm_write};
static const struct io_ops apm_ops = {"piix4 apm", 1, apm_read, apm_write};

static int post_load(void *dev, struct error *e)
{
    struct piix4pm *p = dev;
    if (p->toggle < 0 || p->toggle > vclock_now(p->tq->clock) + 10 * NS_PER_SEC)
        return error_set(e, ERR_FORMAT, "toggle: is not within the life of the machine");
    update(p);
    return 0;
}

static const struct field fields[] = {
    FIELD_NONE(struct piix4pm, tq),
    FIELD_NONE(struct piix4pm, overflow), /* armed by what is enabled */
    FIELD_NONE(struct piix4pm, sci),
    FIELD_NONE(struct piix4pm, power_off),
    FIELD_NONE(struct piix4pm, ctx),
    FIELD(struct piix4pm, sts),
    FIELD(struct piix4pm, en),
    FIELD(struct piix4pm, cnt),
    FIELD(struct piix4pm, gpsts),
    FIELD(struct piix4pm, gpen),
    FIELD(struct piix4pm, toggle),
    FIELD(struct piix4pm, apmc),
    FIELD(struct piix4pm, apms),
};
static const struct field_table table =
    FIELD_TABLE(struct piix4pm, "piix4pm", fields, .post_load = post_load);

const struct chip_desc piix4pm_desc = {
    .name = "piix4pm",
    .fields = &table,
    .reset = reset,
    .ranges = (const struct chip_range[]){{true, PIIX4PM_APMC, 2, &apm_ops}, {.len = 0}},
};
