/*
 * kvm_pv.c - see kvm_pv.h.
 *
 * Addresses that the guest gives are looked up anew whenever they are used. Where they are not RAM,
 * KVM refuses the MSR of the end of interrupt, and ignores the others; so does this.
 *
 * Clock. All structures in guest memory lie on one line: the machine's TSC was 0 at VM time 0. Both
 * derive from the VM clock, so the line holds for good, through pauses too, and a structure changes
 * only with the TSC offset of its vCPU. As guests may read any vCPU's structure with any vCPU's TSC
 * once it is called stable, it is called so only while all offsets are the same.
 *
 * TLB flushes. While a vCPU sleeps in HLT its steal time says "preempted". Another may then add
 * "flush" to that, in one atomic step that fails if the mark is gone, instead of interrupting it.
 * Waking takes the mark away, likewise atomically, before anything is translated again.
 */
#include "machine/kvm_pv.h"

#include <string.h>

#include "chip/lapic.h"

#define ENABLED 1u

struct wall_clock {
    uint32_t version, sec, nsec;
};

struct time_info {
    uint32_t version, pad;
    uint64_t tsc_timestamp, system_time;
    uint32_t tsc_mul;
    int8_t tsc_shift;
    uint8_t flags, pad2[2];
};
_Static_assert(sizeof(struct time_info) == 32, "KVM's pvclock_vcpu_time_info");
#define TIME_STABLE  1u
#define TIME_STOPPED 2u

#define STEAL_SIZE      64u
#define STEAL_RESERVED  0x3eu
#define STEAL_VERSION   8u /* offsets; the time is at 0 */
#define STEAL_PREEMPTED 16u
#define PREEMPTED       1u
#define PREEMPTED_FLUSH 2u

#define EOI_RESERVED 2u

#define ICR_LOGICAL   0x800u
#define ICR_SHORTHAND 0xc0000u
#define ICR_ASSERT    0x4000u
#define ICR_LEVEL     0x8000u

/* ---- guest memory ---- */

/* NULL unless all of it is RAM, and the address a multiple of 4. */
static uint8_t *area(const struct kvm_pv *pv, gpa_t addr, uint64_t len)
{
    uint64_t avail = len;
    uint8_t *host = dma_map(pv->mem, addr, &avail);
    return host && avail == len && addr % 4 == 0 ? host : NULL;
}

/* A version is odd while what it guards is being written. What it was before is the guest's: it is
 * only made odd, then even. */
static uint32_t version_begin(uint8_t *version)
{
    uint32_t odd;
    memcpy(&odd, version, sizeof odd);
    odd = (odd + 1) | 1;
    memcpy(version, &odd, sizeof odd);
    atomic_thread_fence(memory_order_release);
    return odd;
}

static void version_end(uint8_t *version, uint32_t odd)
{
    atomic_thread_fence(memory_order_release);
    odd++;
    memcpy(version, &odd, sizeof odd);
}

/* `data` begins with the version, which is not copied. */
static void publish(struct kvm_pv *pv, gpa_t addr, const void *data, size_t len)
{
    uint8_t *host = area(pv, addr, len);
    if (!host)
        return;
    uint32_t odd = version_begin(host);
    memcpy(host + sizeof odd, (const uint8_t *)data + sizeof odd, len - sizeof odd);
    version_end(host, odd);
    dma_wrote(pv->mem, host, len);
}

/* ---- clock ---- */

/* The multiplier with the most bits that fits. */
static void set_rate(struct kvm_pv *pv, uint64_t tsc_hz)
{
    unsigned __int128 exact = ((unsigned __int128)NS_PER_SEC << 64) / tsc_hz; /* 32 bits too long */
    int shift = -32;
    while (exact >> (32 + shift) > UINT32_MAX)
        shift++;
    pv->tsc_mul = (uint32_t)(exact >> (32 + shift));
    pv->tsc_shift = (int8_t)shift;
}

static void write_flags(struct kvm_pv *pv, unsigned cpu, uint8_t more)
{
    const struct kvm_pv_cpu *c = &pv->cpu[cpu];
    if (!(c->system_time & ENABLED))
        return;
    const struct time_info t = {
        .tsc_timestamp = c->tsc_offset,
        .system_time = 0,
        .tsc_mul = pv->tsc_mul,
        .tsc_shift = pv->tsc_shift,
        .flags = (uint8_t)((pv->stable ? TIME_STABLE : 0) | more),
    };
    publish(pv, c->system_time & ~(uint64_t)ENABLED, &t, sizeof t);
}

static void write_time(struct kvm_pv *pv, unsigned cpu)
{
    write_flags(pv, cpu, 0);
}

void kvm_pv_stopped(struct kvm_pv *pv)
{
    for (unsigned n = 0; n < pv->apic->nlapic; n++)
        write_flags(pv, n, TIME_STOPPED);
}

void kvm_pv_tsc_moved(struct kvm_pv *pv, unsigned cpu, uint64_t offset)
{
    bool was = pv->stable;
    pv->cpu[cpu].tsc_offset = offset;
    pv->stable = true;
    for (unsigned n = 1; n < pv->apic->nlapic; n++)
        pv->stable &= pv->cpu[n].tsc_offset == pv->cpu[0].tsc_offset;
    write_time(pv, cpu);
    for (unsigned n = 0; n < pv->apic->nlapic && was != pv->stable; n++)
        write_time(pv, n);
}

/* The calendar's time at VM time 0, which is the zero of the system time, too. */
static void write_wall_clock(struct kvm_pv *pv)
{
    int64_t epoch = vclock_epoch(pv->clock);
    const struct wall_clock w = {
        .sec = (uint32_t)(epoch / NS_PER_SEC),
        .nsec = (uint32_t)(epoch % NS_PER_SEC),
    };
    if (pv->wall_clock)
        publish(pv, pv->wall_clock, &w, sizeof w);
}

/* ---- steal time ---- */

static uint8_t *steal_area(const struct kvm_pv *pv, unsigned cpu)
{
    uint64_t msr = pv->cpu[cpu].steal_time;
    return msr & ENABLED ? area(pv, msr & ~(uint64_t)(STEAL_SIZE - 1), STEAL_SIZE) : NULL;
}

static uint8_t set_preempted(struct kvm_pv *pv, uint8_t *steal, uint8_t v)
{
    uint8_t old = __atomic_exchange_n(steal + STEAL_PREEMPTED, v, __ATOMIC_SEQ_CST);
    dma_wrote(pv->mem, steal + STEAL_PREEMPTED, 1);
    return old;
}

void kvm_pv_sleep(struct kvm_pv *pv, unsigned cpu)
{
    uint8_t *steal = steal_area(pv, cpu);
    if (steal)
        set_preempted(pv, steal, PREEMPTED);
}

void kvm_pv_wake(struct kvm_pv *pv, unsigned cpu)
{
    if (!kvm_pv_wants_steal(pv, cpu))
        return;
    uint8_t *steal = steal_area(pv, cpu);
    /* Memory that has been mapped away meanwhile may have held a request. */
    if (!steal || set_preempted(pv, steal, 0) & PREEMPTED_FLUSH)
        pv->host.flush(pv->host.ctx, cpu);
}

bool kvm_pv_wants_steal(const struct kvm_pv *pv, unsigned cpu)
{
    return pv->cpu[cpu].steal_time & ENABLED;
}

void kvm_pv_steal(struct kvm_pv *pv, unsigned cpu, ns_t ns)
{
    uint8_t *steal = steal_area(pv, cpu);
    if (!steal)
        return;
    uint64_t total;
    uint32_t odd = version_begin(steal + STEAL_VERSION);
    memcpy(&total, steal, sizeof total);
    total += (uint64_t)ns;
    memcpy(steal, &total, sizeof total);
    version_end(steal + STEAL_VERSION, odd);
    dma_wrote(pv->mem, steal, STEAL_PREEMPTED);
}

/* ---- MSRs ---- */

static bool write_steal_time(struct kvm_pv *pv, unsigned cpu, uint64_t v)
{
    if (v & STEAL_RESERVED)
        return false;
    pv->cpu[cpu].steal_time = v;
    kvm_pv_wake(pv, cpu);
    return true;
}

static bool write_eoi(struct kvm_pv *pv, unsigned cpu, uint64_t v)
{
    gpa_t addr = v & ~3ull;
    bool on = v & ENABLED;
    if (v & EOI_RESERVED || (on && !area(pv, addr, 4)))
        return false;
    pv->cpu[cpu].eoi = v;
    lapic_pv_set(pv->apic->lapic[cpu], on ? pv->mem : NULL, addr);
    return true;
}

bool kvm_pv_write_msr(struct kvm_pv *pv, unsigned cpu, uint32_t msr, uint64_t val)
{
    switch (msr) {
    case KVM_PV_MSR_WALL_CLOCK:
        pv->wall_clock = val;
        write_wall_clock(pv);
        return true;
    case KVM_PV_MSR_SYSTEM_TIME:
        pv->cpu[cpu].system_time = val;
        write_time(pv, cpu);
        return true;
    case KVM_PV_MSR_STEAL_TIME:
        return write_steal_time(pv, cpu, val);
    case KVM_PV_MSR_EOI:
        return write_eoi(pv, cpu, val);
    default:
        return false;
    }
}

bool kvm_pv_read_msr(const struct kvm_pv *pv, unsigned cpu, uint32_t msr, uint64_t *val)
{
    switch (msr) {
    case KVM_PV_MSR_WALL_CLOCK:
        *val = pv->wall_clock;
        return true;
    case KVM_PV_MSR_SYSTEM_TIME:
        *val = pv->cpu[cpu].system_time;
        return true;
    case KVM_PV_MSR_STEAL_TIME:
        *val = pv->cpu[cpu].steal_time;
        return true;
    case KVM_PV_MSR_EOI:
        *val = pv->cpu[cpu].eoi;
        return true;
    default:
        return false;
    }
}

/* ---- hypercalls ---- */

/* arg: two halves of a bitmap of APIC ids, the id of its first bit, and what would be written to
 * the ICR. Returns how many APICs took the interrupt. The trigger mode means something to INIT
 * alone, as in the ICR. */
static int64_t send_ipi(struct kvm_pv *pv, const uint64_t arg[4], unsigned half)
{
    uint64_t icr = arg[3];
    const struct apic_msg m = {.mode = icr >> 8 & 7, .vector = (uint8_t)icr};
    int64_t count = 0;
    if (icr & (ICR_LOGICAL | ICR_SHORTHAND))
        return -KVM_PV_EINVAL;
    if (m.mode == APIC_SMI || m.mode == APIC_EXTINT || m.mode == 3)
        return 0;
    if (m.mode == APIC_INIT && (icr & (ICR_LEVEL | ICR_ASSERT)) == ICR_LEVEL)
        return 0;
    for (unsigned n = 0; n < pv->apic->nlapic; n++) {
        struct lapic *l = pv->apic->lapic[n];
        uint64_t bit = l->id - (uint64_t)(uint32_t)arg[2]; /* wraps if the id is below the first */
        if (bit < 2 * half && arg[bit / half] >> bit % half & 1)
            count += lapic_accept(l, &m);
    }
    return count;
}

static void kick(struct kvm_pv *pv, uint64_t apic_id)
{
    const struct apic_msg to = {.dest = (uint8_t)apic_id};
    for (unsigned n = 0; n < pv->apic->nlapic && apic_id <= UINT8_MAX; n++)
        if (lapic_match(pv->apic->lapic[n], &to))
            pv->host.unhalt(pv->host.ctx, n);
}

int64_t kvm_pv_hypercall(struct kvm_pv *pv, const struct x86_hypercall *h)
{
    switch (h->nr) {
    case KVM_PV_HC_VAPIC_POLL_IRQ: /* a chance to see interrupts: so is any instruction */
        return 0;
    case KVM_PV_HC_KICK_CPU:
        kick(pv, h->arg[1]);
        return 0;
    case KVM_PV_HC_SEND_IPI:
        return send_ipi(pv, h->arg, h->wide ? 64 : 32);
    default:
        return -KVM_PV_ENOSYS;
    }
}

/* ---- life ---- */

void kvm_pv_reset(struct kvm_pv *pv)
{
    memset(pv->cpu, 0, sizeof pv->cpu);
    pv->wall_clock = 0;
    pv->stable = true;
    for (unsigned n = 0; n < pv->apic->nlapic; n++)
        lapic_pv_set(pv->apic->lapic[n], NULL, 0);
}

void kvm_pv_init(struct kvm_pv *pv, struct space *mem, struct apic_bus *apic, struct vclock *clock,
                 uint64_t tsc_hz, const struct kvm_pv_host *host)
{
    *pv = (struct kvm_pv){.mem = mem, .apic = apic, .clock = clock, .host = *host, .stable = true};
    set_rate(pv, tsc_hz);
}

/* ---- state ---- */

/* What the MSRs say is checked as if they were written; the guest's memory is as it was. */
static int post_load(void *dev, struct error *e)
{
    struct kvm_pv *pv = dev;
    for (unsigned n = 0; n < pv->apic->nlapic; n++) {
        const struct kvm_pv_cpu *c = &pv->cpu[n];
        struct lapic_pv *l = &pv->apic->lapic[n]->pv;
        if (c->steal_time & STEAL_RESERVED || c->eoi & EOI_RESERVED)
            return error_set(e, ERR_FORMAT, "cpu[%u]: an MSR has reserved bits", n);
        l->mem = c->eoi & ENABLED ? pv->mem : NULL;
        l->addr = c->eoi & ~3ull;
    }
    return 0;
}

static const struct field cpu_fields[] = {
    FIELD(struct kvm_pv_cpu, system_time),
    FIELD(struct kvm_pv_cpu, eoi),
    FIELD(struct kvm_pv_cpu, steal_time),
    FIELD(struct kvm_pv_cpu, tsc_offset),
};
static const struct field_table cpu_table =
    FIELD_TABLE(struct kvm_pv_cpu, "kvm_pv_cpu", cpu_fields);

static const struct field fields[] = {
    FIELD_NONE(struct kvm_pv, mem),
    FIELD_NONE(struct kvm_pv, apic),
    FIELD_NONE(struct kvm_pv, clock),
    FIELD_NONE(struct kvm_pv, host),
    FIELD(struct kvm_pv, tsc_mul, .same = true),
    FIELD(struct kvm_pv, tsc_shift, .same = true),
    FIELD(struct kvm_pv, wall_clock),
    FIELD(struct kvm_pv, stable),
    FIELD_STRUCTS(struct kvm_pv, cpu, cpu_table),
};
const struct field_table kvm_pv_fields =
    FIELD_TABLE(struct kvm_pv, "kvm_pv", fields, .post_load = post_load);
