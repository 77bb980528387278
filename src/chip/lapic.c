/*
 * lapic.c - the local APIC: registers, acceptance and priorities, ICR, MSRs.
 */
#include "chip/lapic.h"

#include <string.h>

#include "base/log.h"

/* Register offsets (SDM table "Local APIC Register Address Map"). */
enum {
    REG_ID = 0x020,
    REG_VERSION = 0x030,
    REG_TPR = 0x080,
    REG_APR = 0x090,
    REG_PPR = 0x0a0,
    REG_EOI = 0x0b0,
    REG_RRD = 0x0c0,
    REG_LDR = 0x0d0,
    REG_DFR = 0x0e0,
    REG_SVR = 0x0f0,
    REG_ISR = 0x100,
    REG_TMR = 0x180,
    REG_IRR = 0x200,
    REG_ESR = 0x280,
    REG_ICR_LOW = 0x300,
    REG_ICR_HIGH = 0x310,
    REG_LVT = 0x320, /* timer, thermal, performance, LINT0, LINT1, error */
    REG_INITIAL = 0x380,
    REG_CURRENT = 0x390,
    REG_DIVIDE = 0x3e0,
};

/* An integrated APIC with 6 LVT entries. Bit 24, suppression of the EOI broadcast, is not offered:
 * then an EOI here always completes the interrupt at the I/O APIC. */
#define VERSION (0x14u | (LVT_COUNT - 1) << 16)

#define SVR_ENABLE 0x100u
#define SVR_VALID  0x3ffu /* vector, enable, focus checking (kept, has no effect) */

#define LVT_MASKED     0x10000u
#define LVT_LEVEL      0x8000u
#define LVT_REMOTE_IRR 0x4000u
#define LVT_MODE(v)    (((v) >> 8) & 7)

#define ICR_VALID    0x000ccfffu /* delivery status (bit 12) always reads idle */
#define ICR_LOGICAL  0x800u
#define ICR_ASSERT   0x4000u
#define ICR_LEVEL    0x8000u
#define ICR_SHORT(v) (((v) >> 18) & 3)
enum { SHORT_NONE, SHORT_SELF, SHORT_ALL, SHORT_OTHERS };

#define ESR_SEND_VECTOR 0x20u
#define ESR_RECV_VECTOR 0x40u
#define ESR_REGISTER    0x80u

#define BASE_BSP    0x100u
#define BASE_ENABLE 0x800u

/* Bits of each LVT entry that software can write (SDM figure "Local Vector Table"). */
static const uint32_t lvt_valid[LVT_COUNT] = {
    [LVT_TIMER] = 0x700ff, [LVT_THERMAL] = 0x107ff, [LVT_PERF] = 0x107ff,
    [LVT_LINT0] = 0x1a7ff, [LVT_LINT1] = 0x1a7ff,   [LVT_ERROR] = 0x100ff,
};

static bool bit_get(const uint32_t *set, unsigned v)
{
    return set[v >> 5] >> (v & 31) & 1;
}

static void bit_set(uint32_t *set, unsigned v, bool on)
{
    if (on)
        set[v >> 5] |= 1u << (v & 31);
    else
        set[v >> 5] &= ~(1u << (v & 31));
}

/* The highest vector in a set, or -1. */
static int highest(const uint32_t *set)
{
    for (int i = 7; i >= 0; i--) {
        if (set[i])
            return i * 32 + 31 - __builtin_clz(set[i]);
    }
    return -1;
}

static bool hw_enabled(const struct lapic *l)
{
    return l->base & BASE_ENABLE;
}

bool lapic_sw_enabled(const struct lapic *l)
{
    return hw_enabled(l) && (l->svr & SVR_ENABLE);
}

/* ---- priorities and the way to the vCPU ---- */

/* SDM "Processor Priority Register". */
uint8_t lapic_ppr(const struct lapic *l)
{
    int isr = highest(l->isr);
    uint8_t isrv = isr < 0 ? 0 : (uint8_t)isr;
    return (l->tpr & 0xf0) >= (isrv & 0xf0) ? l->tpr : isrv & 0xf0;
}

/* SDM "Arbitration Priority Register". */
uint8_t lapic_apr(const struct lapic *l)
{
    int isr = highest(l->isr), irr = highest(l->irr);
    unsigned isrv = isr < 0 ? 0 : (unsigned)isr & 0xf0, irrv = irr < 0 ? 0 : (unsigned)irr & 0xf0;
    unsigned tpr = l->tpr & 0xf0u;
    if (tpr >= irrv && tpr > isrv)
        return l->tpr;
    return (uint8_t)max_u64(max_u64(tpr, isrv), irrv);
}

/* The 8259 reaches the core through LINT0 programmed as ExtINT, or directly when the APIC is
 * globally disabled and LINT0 is the INTR pin (SDM "Enabling or Disabling the Local APIC"). */
static bool extint_pending(const struct lapic *l)
{
    if (!l->bsp || !l->lint[0])
        return false;
    if (!hw_enabled(l))
        return true;
    uint32_t v = l->lvt[LVT_LINT0];
    return !(v & LVT_MASKED) && LVT_MODE(v) == APIC_EXTINT;
}

/* The vector in the IRR that the processor priority lets through, or -1. */
static int deliverable(const struct lapic *l)
{
    int v = lapic_sw_enabled(l) ? highest(l->irr) : -1;
    return v >= 0 && (v & 0xf0) > (lapic_ppr(l) & 0xf0) ? v : -1;
}

/* Under an offer (lapic_pv.c) what is in service may be over already: then whatever the TPR lets
 * through is worth a look. */
static bool maybe_deliverable(const struct lapic *l)
{
    if (!l->pv.offered)
        return deliverable(l) >= 0;
    int v = lapic_sw_enabled(l) ? highest(l->irr) : -1;
    return v >= 0 && (v & 0xf0) > (l->tpr & 0xf0);
}

bool lapic_has_intr(const struct lapic *l)
{
    return extint_pending(l) || maybe_deliverable(l);
}

static void update(struct lapic *l)
{
    lapic_pv_sync(l);
    bool intr = lapic_has_intr(l);
    if (intr == l->intr)
        return;
    l->intr = intr;
    l->host.event(l->host.ctx, LAPIC_INTR, intr);
}

int lapic_ack(struct lapic *l)
{
    int v = -1;
    lapic_pv_withdraw(l);
    if (extint_pending(l) && l->bus->pic_ack) {
        v = l->bus->pic_ack(l->bus->pic_ctx);
    } else {
        v = deliverable(l);
        if (v >= 0) {
            bit_set(l->irr, (unsigned)v, false);
            bit_set(l->isr, (unsigned)v, true);
            if (!bit_get(l->tmr, (unsigned)v) && highest(l->irr) < 0)
                lapic_pv_offer(l);
        }
    }
    update(l);
    return v;
}

/* ---- errors, acceptance ---- */

/* The first error after a write to the ESR raises the error interrupt; the write re-arms it (SDM
 * "Error Handling"). So an illegal vector in LVT_ERROR itself cannot recurse. */
static void set_error(struct lapic *l, uint32_t bit)
{
    bool first = !l->esr_pending;
    l->esr_pending |= bit;
    if (first)
        lapic_local(l, LVT_ERROR);
}

static bool accept_fixed(struct lapic *l, uint8_t vector, bool level)
{
    if (!lapic_sw_enabled(l))
        return false;
    if (vector < 16) {
        set_error(l, ESR_RECV_VECTOR);
        return false;
    }
    bit_set(l->irr, vector, true);
    bit_set(l->tmr, vector, level);
    update(l);
    return true;
}

bool lapic_match(const struct lapic *l, const struct apic_msg *m)
{
    if (!hw_enabled(l))
        return false;
    if (m->dest == APIC_DEST_ALL)
        return true;
    if (!m->logical)
        return m->dest == l->id;
    uint8_t ldr = (uint8_t)(l->ldr >> 24);
    switch (l->dfr >> 28) {
    case 0xf: /* flat */
        return m->dest & ldr;
    case 0: /* cluster: number in the high half, members in the low half */
        return (m->dest & 0xf0) == (ldr & 0xf0) && (m->dest & ldr & 0x0f);
    default:
        return false;
    }
}

static void reset_registers(struct lapic *l);
static void reset_all(struct lapic *l);

bool lapic_accept(struct lapic *l, const struct apic_msg *m)
{
    if (!hw_enabled(l))
        return false;
    switch (m->mode) {
    case APIC_FIXED:
    case APIC_LOWEST:
        return accept_fixed(l, m->vector, m->level);
    case APIC_NMI:
        l->host.event(l->host.ctx, LAPIC_NMI, 0);
        return true;
    case APIC_INIT:
        reset_registers(l); /* the ID stays (SDM "Local APIC State After an INIT Reset") */
        update(l);
        l->host.event(l->host.ctx, LAPIC_INIT, 0);
        return true;
    case APIC_SIPI:
        l->host.event(l->host.ctx, LAPIC_SIPI, m->vector);
        return true;
    default: /* SMI: the machine has no SMM. ExtINT: the 8259 is wired to LINT0 only. */
        log_guest("interrupt message with delivery mode %u ignored", m->mode);
        return true;
    }
}

static void signal_lvt(struct lapic *l, enum lapic_lvt n, bool level)
{
    uint32_t v = l->lvt[n];
    if (v & LVT_MASKED || !hw_enabled(l))
        return;
    switch (LVT_MODE(v)) {
    case APIC_FIXED:
        if (level && v & LVT_REMOTE_IRR)
            return;
        if (accept_fixed(l, (uint8_t)v, level) && level)
            l->lvt[n] |= LVT_REMOTE_IRR;
        break;
    case APIC_NMI:
        l->host.event(l->host.ctx, LAPIC_NMI, 0);
        break;
    case APIC_INIT:
        lapic_accept(l, &(struct apic_msg){.mode = APIC_INIT});
        break;
    default: /* ExtINT is looked at by extint_pending(); SMI and the reserved modes do nothing */
        break;
    }
}

void lapic_local(struct lapic *l, enum lapic_lvt n)
{
    signal_lvt(l, n, false);
}

/* A pin's level means "asserted"; LVT bit 13 (polarity) is kept for the guest but not applied,
 * because wiring drives pins with meaning and not with voltage. */
void lapic_set_lint(struct lapic *l, unsigned n, bool level)
{
    enum lapic_lvt lvt = n ? LVT_LINT1 : LVT_LINT0;
    n = n != 0;
    bool rose = level && !l->lint[n];
    l->lint[n] = level;
    /* LINT1 is edge-sensitive always (SDM "Local Vector Table", trigger mode). */
    bool sense_level = !n && (l->lvt[lvt] & LVT_LEVEL);
    if (sense_level && level && LVT_MODE(l->lvt[lvt]) == APIC_FIXED)
        signal_lvt(l, lvt, true);
    else if (rose)
        signal_lvt(l, lvt, false);
    update(l);
}

void lapic_eoi(struct lapic *l)
{
    int v = highest(l->isr);
    if (v < 0)
        return;
    bit_set(l->isr, (unsigned)v, false);
    if (bit_get(l->tmr, (unsigned)v)) {
        uint32_t *lint0 = &l->lvt[LVT_LINT0];
        if (*lint0 & LVT_REMOTE_IRR && (uint8_t)*lint0 == v) {
            *lint0 &= ~LVT_REMOTE_IRR;
            if (l->lint[0] && *lint0 & LVT_LEVEL)
                signal_lvt(l, LVT_LINT0, true);
        }
        apic_bus_broadcast_eoi(l->bus, (uint8_t)v);
    }
    update(l);
}

/* ---- inter-processor interrupts ---- */

/* SDM table "Valid Combinations for the Pentium 4 ... Processors' Local xAPIC Interrupt Command
 * Register": what addresses the sender itself can only be fixed. */
static bool icr_valid(const struct lapic *l, uint32_t icr)
{
    unsigned mode = (icr >> 8) & 7;
    if (mode == 3 || mode == APIC_EXTINT)
        return false;
    return mode == APIC_FIXED || (ICR_SHORT(icr) != SHORT_SELF && ICR_SHORT(icr) != SHORT_ALL);
}

static void send_ipi(struct lapic *l)
{
    uint32_t icr = l->icr[0];
    struct apic_msg m = {
        .dest = (uint8_t)(l->icr[1] >> 24),
        .logical = icr & ICR_LOGICAL,
        .mode = (icr >> 8) & 7,
        .vector = (uint8_t)icr,
    };
    if (!icr_valid(l, icr)) {
        log_guest("ICR %#x: invalid combination", icr);
        return;
    }
    /* INIT level de-assert only synchronizes arbitration IDs, which nothing here depends on. */
    if (m.mode == APIC_INIT && (icr & ICR_LEVEL) && !(icr & ICR_ASSERT))
        return;
    if ((m.mode == APIC_FIXED || m.mode == APIC_LOWEST) && m.vector < 16) {
        set_error(l, ESR_SEND_VECTOR);
        return;
    }
    switch (ICR_SHORT(icr)) {
    case SHORT_NONE:
        apic_bus_send(l->bus, &m);
        break;
    case SHORT_SELF:
        lapic_accept(l, &m);
        break;
    case SHORT_ALL:
        m.dest = APIC_DEST_ALL;
        apic_bus_send(l->bus, &m);
        break;
    default:
        apic_bus_send_others(l->bus, l, &m);
        break;
    }
}

/* ---- registers ---- */

static uint32_t reg_read(struct lapic *l, unsigned reg)
{
    switch (reg) {
    case REG_ID:
        return (uint32_t)l->id << 24;
    case REG_VERSION:
        return VERSION;
    case REG_TPR:
        return l->tpr;
    case REG_APR:
        return lapic_apr(l);
    case REG_PPR:
        return lapic_ppr(l);
    case REG_EOI:
    case REG_RRD:
        return 0;
    case REG_LDR:
        return l->ldr;
    case REG_DFR:
        return l->dfr;
    case REG_SVR:
        return l->svr;
    case REG_ISR ... REG_ISR + 0x70:
        return l->isr[(reg - REG_ISR) >> 4];
    case REG_TMR ... REG_TMR + 0x70:
        return l->tmr[(reg - REG_TMR) >> 4];
    case REG_IRR ... REG_IRR + 0x70:
        return l->irr[(reg - REG_IRR) >> 4];
    case REG_ESR:
        return l->esr;
    case REG_ICR_LOW:
        return l->icr[0];
    case REG_ICR_HIGH:
        return l->icr[1];
    case REG_LVT ... REG_LVT + 0x50:
        return l->lvt[(reg - REG_LVT) >> 4];
    case REG_INITIAL:
        return l->t.initial;
    case REG_CURRENT:
        return lapic_timer_count(l);
    case REG_DIVIDE:
        return l->t.divide;
    default:
        set_error(l, ESR_REGISTER);
        return 0;
    }
}

static void write_lvt(struct lapic *l, unsigned n, uint32_t v)
{
    v &= lvt_valid[n];
    if (!(l->svr & SVR_ENABLE))
        v |= LVT_MASKED; /* cannot be unmasked while software-disabled */
    if (n == LVT_TIMER) {
        lapic_timer_set_lvt(l, v);
        return;
    }
    if (n == LVT_LINT0 && v & LVT_LEVEL && LVT_MODE(v) == APIC_FIXED)
        v |= l->lvt[n] & LVT_REMOTE_IRR;
    l->lvt[n] = v;
    if (n == LVT_LINT0 && l->lint[0] && v & LVT_LEVEL && LVT_MODE(v) == APIC_FIXED)
        signal_lvt(l, LVT_LINT0, true);
}

static void write_svr(struct lapic *l, uint32_t v)
{
    l->svr = v & SVR_VALID;
    if (l->svr & SVR_ENABLE)
        return;
    /* SDM "Local APIC State After It Has Been Software Disabled": all mask bits are set. */
    for (unsigned n = 0; n < LVT_COUNT; n++)
        write_lvt(l, n, l->lvt[n]);
}

static void reg_write(struct lapic *l, unsigned reg, uint32_t v)
{
    switch (reg) {
    case REG_ID:
        l->id = (uint8_t)(v >> 24);
        break;
    case REG_TPR:
        l->tpr = (uint8_t)v;
        break;
    case REG_EOI:
        lapic_pv_withdraw(l);
        lapic_eoi(l);
        break;
    case REG_LDR:
        l->ldr = v & 0xff000000;
        break;
    case REG_DFR:
        l->dfr = v | 0x0fffffff;
        break;
    case REG_SVR:
        write_svr(l, v);
        break;
    case REG_ESR:
        l->esr = l->esr_pending;
        l->esr_pending = 0;
        break;
    case REG_ICR_LOW:
        l->icr[0] = v & ICR_VALID;
        send_ipi(l);
        break;
    case REG_ICR_HIGH:
        l->icr[1] = v & 0xff000000;
        break;
    case REG_LVT ... REG_LVT + 0x50:
        write_lvt(l, (reg - REG_LVT) >> 4, v);
        break;
    case REG_INITIAL:
        lapic_timer_set_initial(l, v);
        break;
    case REG_DIVIDE:
        lapic_timer_set_divide(l, v);
        break;
    case REG_VERSION: /* read-only: writes have no effect */
    case REG_APR:
    case REG_PPR:
    case REG_RRD:
    case REG_CURRENT:
    case REG_ISR ... REG_ISR + 0x70:
    case REG_TMR ... REG_TMR + 0x70:
    case REG_IRR ... REG_IRR + 0x70:
        break;
    default:
        set_error(l, ESR_REGISTER);
        break;
    }
    update(l);
}

/* Registers are 32 bits wide on 16-byte boundaries. A narrower read takes its bytes of the
 * register; the bytes between registers read as 0. */
uint64_t lapic_read(struct lapic *l, uint64_t off, unsigned size)
{
    unsigned byte = off & 15;
    if (off >= LAPIC_SIZE || byte > 3)
        return 0;
    lapic_pv_sync(l);
    uint64_t v = reg_read(l, (unsigned)off & ~15u) >> (8 * byte);
    return size < 4 ? v & ((1u << (8 * size)) - 1) : v;
}

/* SDM: software must write registers with aligned 32-bit accesses; others are undefined and ignored
 * here, except that an 8-byte write is taken by its low half. */
void lapic_write(struct lapic *l, uint64_t off, uint64_t val, unsigned size)
{
    if (off >= LAPIC_SIZE || off & 15 || size < 4) {
        log_guest("local APIC: write of %u bytes at offset %#llx ignored", size,
                  (unsigned long long)off);
        return;
    }
    reg_write(l, (unsigned)off, (uint32_t)val);
}

/* ---- MSRs, CR8 ---- */

static bool write_base(struct lapic *l, uint64_t v)
{
    uint64_t addr_mask = ((1ull << l->phys_bits) - 1) & ~0xfffull;
    if (v & ~(addr_mask | BASE_ENABLE | BASE_BSP)) /* bit 10, x2APIC, is reserved: not offered */
        return false;
    bool was = hw_enabled(l);
    l->base = (v & (addr_mask | BASE_ENABLE)) | (l->bsp ? BASE_BSP : 0);
    if (was != hw_enabled(l)) {
        lapic_pv_withdraw(l);
        reset_all(l); /* all state is lost when the APIC is globally disabled */
    }
    update(l);
    return true;
}

bool lapic_msr(struct lapic *l, uint32_t msr, bool write, uint64_t *val)
{
    switch (msr) {
    case LAPIC_MSR_BASE:
        if (write)
            return write_base(l, *val);
        *val = l->base;
        return true;
    case LAPIC_MSR_TSC_DEADLINE:
        if (write)
            lapic_timer_set_deadline(l, *val);
        else
            *val = l->t.tsc_deadline;
        return true;
    default:
        return false;
    }
}

uint64_t lapic_get_cr8(const struct lapic *l)
{
    return l->tpr >> 4;
}

void lapic_set_cr8(struct lapic *l, uint64_t cr8)
{
    l->tpr = (uint8_t)((cr8 & 15) << 4);
    update(l);
}

/* ---- life ---- */

/* SDM "Local APIC State After Power-Up or Reset". Does not tell the vCPU. */
static void reset_registers(struct lapic *l)
{
    l->tpr = 0;
    l->ldr = 0;
    l->dfr = 0xffffffff;
    l->svr = 0xff;
    l->icr[0] = l->icr[1] = 0;
    l->esr = l->esr_pending = 0;
    l->pv.offered = false;
    memset(l->isr, 0, sizeof l->isr);
    memset(l->irr, 0, sizeof l->irr);
    memset(l->tmr, 0, sizeof l->tmr);
    for (unsigned n = 0; n < LVT_COUNT; n++)
        l->lvt[n] = LVT_MASKED;
    lapic_timer_reset(l);
}

/* Unlike INIT, which leaves the ID. */
static void reset_all(struct lapic *l)
{
    unsigned place = 0;
    while (place < l->bus->nlapic && l->bus->lapic[place] != l)
        place++;
    l->id = (uint8_t)place;
    reset_registers(l);
}

void lapic_reset(struct lapic *l)
{
    l->base = LAPIC_BASE | BASE_ENABLE | (l->bsp ? BASE_BSP : 0);
    reset_all(l);
    update(l);
}

int lapic_init(struct lapic *l, struct apic_bus *bus, struct timerq *tq, bool bsp,
               unsigned phys_bits, const struct lapic_host *host, struct error *e)
{
    memset(l, 0, sizeof *l);
    l->bus = bus;
    l->tq = tq;
    l->bsp = bsp;
    l->phys_bits = (uint8_t)(phys_bits < 32 ? 32 : min_u64(phys_bits, 52));
    l->host = *host;
    int rc = lapic_timer_init(l, e);
    if (rc)
        return rc;
    rc = apic_bus_attach(bus, l, e);
    if (rc < 0)
        return rc;
    lapic_reset(l);
    return 0;
}

void lapic_fini(struct lapic *l)
{
    lapic_timer_reset(l);
}

void lapic_set_virtual_wire(struct lapic *l)
{
    l->svr = SVR_ENABLE | 0xff;
    if (l->bsp) {
        l->lvt[LVT_LINT0] = APIC_EXTINT << 8 | LVT_LEVEL;
        l->lvt[LVT_LINT1] = APIC_NMI << 8;
    }
    update(l);
}

/* ---- state ---- */

static int post_load(void *dev, struct error *e)
{
    struct lapic *l = dev;
    uint64_t addr = ((1ull << l->phys_bits) - 1) & ~0xfffull;
    if (l->base & ~(addr | BASE_ENABLE | BASE_BSP))
        return error_set(e, ERR_FORMAT, "base: has reserved bits");
    for (unsigned n = 0; n < LVT_COUNT; n++)
        if (l->lvt[n] & ~(lvt_valid[n] | LVT_REMOTE_IRR))
            return error_set(e, ERR_FORMAT, "lvt[%u]: has reserved bits", n);
    return lapic_timer_loaded(l, e);
}

static const struct field pv_fields[] = {
    FIELD_NONE(struct lapic_pv, mem), /* both are the MSR's: kvm_pv.c */
    FIELD_NONE(struct lapic_pv, addr),
    FIELD(struct lapic_pv, offered),
};
static const struct field_table pv_table = FIELD_TABLE(struct lapic_pv, "lapic_pv", pv_fields);

static const struct field fields[] = {
    FIELD_NONE(struct lapic, bus),
    FIELD_NONE(struct lapic, tq),
    FIELD_NONE(struct lapic, host),
    FIELD_NONE(struct lapic, bsp),
    FIELD_NONE(struct lapic, phys_bits),
    FIELD(struct lapic, base),
    FIELD(struct lapic, id),
    FIELD(struct lapic, tpr),
    FIELD(struct lapic, ldr),
    FIELD(struct lapic, dfr),
    FIELD(struct lapic, svr),
    FIELD_ARRAY(struct lapic, icr),
    FIELD(struct lapic, esr),
    FIELD(struct lapic, esr_pending),
    FIELD_ARRAY(struct lapic, lvt),
    FIELD_ARRAY(struct lapic, isr),
    FIELD_ARRAY(struct lapic, irr),
    FIELD_ARRAY(struct lapic, tmr),
    FIELD_ARRAY(struct lapic, lint),
    FIELD(struct lapic, intr),
    FIELD_STRUCT(struct lapic, t, lapic_timer_fields),
    FIELD_STRUCT(struct lapic, pv, pv_table),
};
const struct field_table lapic_fields =
    FIELD_TABLE(struct lapic, "lapic", fields, .post_load = post_load);
