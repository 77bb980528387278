/* test_kvm_pv.c - KVM's paravirtual interface: clock, steal time, MSRs, hypercalls, end of
 * interrupt by memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "chip/lapic.h"
#include "machine/kvm_pv.h"

#define NCPU 3
#define HZ   1000000000ull
#define HOLE 0x40000u /* beyond the RAM */
#define AREA 0x8000u  /* in it */

static struct ram ram;
static struct space mem;
static struct vclock vclk;
static struct timerq tq;
static struct apic_bus bus;
static struct lapic l[NCPU];
static struct kvm_pv pv;
static unsigned flushed[NCPU], unhalted[NCPU], inits, nmis, eois;
static bool intr[NCPU];

static void on_event(void *ctx, enum lapic_event ev, unsigned arg)
{
    if (ev == LAPIC_INTR)
        intr[(uintptr_t)ctx] = arg;
    inits += ev == LAPIC_INIT;
    nmis += ev == LAPIC_NMI;
}

static ns_t tsc_to_ns(void *ctx, uint64_t tsc)
{
    return (ns_t)tsc;
}

static void on_flush(void *ctx, unsigned cpu)
{
    flushed[cpu]++;
}

static void on_unhalt(void *ctx, unsigned cpu)
{
    unhalted[cpu]++;
}

static void on_eoi(void *ctx, uint8_t vector)
{
    eois++;
}

static int setup_at(uint64_t tsc_hz)
{
    const struct kvm_pv_host host = {.flush = on_flush, .unhalt = on_unhalt};
    unsigned id;
    memset(flushed, 0, sizeof flushed);
    memset(unhalted, 0, sizeof unhalted);
    memset(intr, 0, sizeof intr);
    inits = nmis = eois = 0;
    vclock_init_manual(&vclk);
    timerq_init(&tq, &vclk);
    apic_bus_init(&bus);
    bus.eoi = on_eoi;
    if (ram_init(&ram, HOLE, NULL) || space_init(&mem, 1ull << 40, &ram, NULL) ||
        space_add_ram(&mem, 0, HOLE, 0, 0, &id, NULL))
        return -1;
    for (unsigned n = 0; n < NCPU; n++) {
        struct lapic_host h = {on_event, tsc_to_ns, (void *)(uintptr_t)n};
        if (lapic_init(&l[n], &bus, &tq, n == 0, 40, &h, NULL))
            return -1;
        lapic_write(&l[n], 0xf0, 0x1ff, 4);
    }
    kvm_pv_init(&pv, &mem, &bus, &vclk, tsc_hz, &host);
    kvm_pv_reset(&pv);
    return 0;
}

static int setup(void **state)
{
    return setup_at(HZ);
}

static int teardown(void **state)
{
    for (unsigned n = 0; n < NCPU; n++)
        lapic_fini(&l[n]);
    timerq_fini(&tq);
    space_fini(&mem);
    ram_fini(&ram);
    return 0;
}

static uint32_t d(gpa_t a)
{
    uint32_t v;
    memcpy(&v, ram.host + a, 4);
    return v;
}

static uint64_t q(gpa_t a)
{
    uint64_t v;
    memcpy(&v, ram.host + a, 8);
    return v;
}

static bool wrmsr(unsigned cpu, uint32_t msr, uint64_t v)
{
    return kvm_pv_write_msr(&pv, cpu, msr, v);
}

/* ---- clock ---- */

/* What a guest computes from the structure at `a` (msr.rst). */
static uint64_t system_time(gpa_t a, uint64_t tsc)
{
    uint64_t t = tsc - q(a + 8);
    int8_t shift = (int8_t)ram.host[a + 28];
    t = shift >= 0 ? t << shift : t >> -shift;
    return (uint64_t)(((unsigned __int128)t * d(a + 24)) >> 32) + q(a + 16);
}

static void clock_is_the_vm_clock(void **state)
{
    memset(ram.host + AREA, 0xff, 64); /* an odd version of old */
    assert_true(wrmsr(0, KVM_PV_MSR_SYSTEM_TIME, AREA | 1));
    assert_int_equal(d(AREA) & 1, 0);
    assert_int_equal(d(AREA + 4), 0);
    assert_int_equal(ram.host[AREA + 29], 1);
    assert_int_equal(q(AREA + 32), ~0ull); /* 32 bytes, no more */
    assert_int_equal(system_time(AREA, 0), 0);
    assert_int_equal(system_time(AREA, 1), 1);
    assert_int_equal(system_time(AREA, 123456789012345678ull), 123456789012345678ull);
    uint64_t v;
    assert_true(kvm_pv_read_msr(&pv, 0, KVM_PV_MSR_SYSTEM_TIME, &v));
    assert_int_equal(v, AREA | 1);
}

/* The guest clears the mark when it has seen it; clocks that are off are left alone. */
static void a_stop_is_marked(void **state)
{
    assert_true(kvm_pv_write_msr(&pv, 1, KVM_PV_MSR_SYSTEM_TIME, AREA | 1));
    assert_int_equal(ram.host[AREA + 29], 1);
    uint32_t version = d(AREA);
    kvm_pv_stopped(&pv);
    assert_int_equal(ram.host[AREA + 29], 3);
    assert_int_equal(d(AREA), version + 2);
    for (gpa_t a = 0; a < AREA; a += 4)
        assert_int_equal(d(a), 0);
}

static void clock_at_other_rates(void **state)
{
    static const uint64_t rate[] = {1000000, 33333333, 999999999, 2700000000, 100000000000};
    for (unsigned n = 0; n < ARRAY_LEN(rate); n++) {
        teardown(state);
        assert_int_equal(setup_at(rate[n]), 0);
        wrmsr(0, KVM_PV_MSR_SYSTEM_TIME, AREA | 1);
        assert_true(d(AREA + 24) >= 0x80000000);
        uint64_t day = 86400 * rate[n], ns = 86400ull * HZ;
        assert_in_range(system_time(AREA, day), ns - ns / 1000000000, ns);
    }
}

static void clocks_are_stable_while_the_tscs_agree(void **state)
{
    for (unsigned n = 0; n < NCPU; n++)
        wrmsr(n, KVM_PV_MSR_SYSTEM_TIME, (AREA + 64 * n) | 1);
    uint32_t version = d(AREA);
    kvm_pv_tsc_moved(&pv, 1, 5000);
    for (unsigned n = 0; n < NCPU; n++)
        assert_int_equal(ram.host[AREA + 64 * n + 29], 0);
    assert_int_equal(d(AREA) & 1, 0);
    assert_int_not_equal(d(AREA), version);
    assert_int_equal(system_time(AREA + 64, 5007), 7);
    assert_int_equal(system_time(AREA, 7), 7);
    version = d(AREA);
    kvm_pv_tsc_moved(&pv, 0, 5000); /* not all yet */
    assert_int_equal(d(AREA + 128 + 29) & 0xff, 0);
    kvm_pv_tsc_moved(&pv, 2, 5000);
    for (unsigned n = 0; n < NCPU; n++) {
        assert_int_equal(ram.host[AREA + 64 * n + 29], 1);
        assert_int_equal(system_time(AREA + 64 * n, 5007), 7);
    }
    wrmsr(2, KVM_PV_MSR_SYSTEM_TIME, 0);
    memset(ram.host + AREA + 128, 0x55, 32);
    kvm_pv_tsc_moved(&pv, 2, 1);
    assert_int_equal(d(AREA + 128), 0x55555555); /* switched off: not written any more */
    assert_int_equal(ram.host[AREA + 29], 0);
}

static void wall_clock(void **state)
{
    vclock_set(&vclk, 1500 * NS_PER_SEC);
    time_t before = time(NULL);
    assert_true(wrmsr(1, KVM_PV_MSR_WALL_CLOCK, AREA));
    assert_int_equal(d(AREA) & 1, 0);
    assert_int_not_equal(d(AREA), 0);
    assert_in_range(d(AREA + 4) + 1500, before - 1, time(NULL) + 1);
    assert_in_range(d(AREA + 8), 0, 999999999);
    uint64_t v;
    assert_true(kvm_pv_read_msr(&pv, 0, KVM_PV_MSR_WALL_CLOCK, &v)); /* one for all */
    assert_int_equal(v, AREA);
    memset(ram.host, 0, 16);
    wrmsr(0, KVM_PV_MSR_WALL_CLOCK, 0);
    assert_int_equal(d(4), 0);
}

/* ---- steal time ---- */

static void preempted_while_asleep(void **state)
{
    uint8_t *preempted = ram.host + AREA + 16;
    kvm_pv_sleep(&pv, 1);
    kvm_pv_wake(&pv, 1); /* off: nothing happens */
    assert_true(wrmsr(1, KVM_PV_MSR_STEAL_TIME, AREA | 1));
    assert_int_equal(*preempted, 0);
    kvm_pv_sleep(&pv, 1);
    assert_int_equal(*preempted, 1);
    kvm_pv_wake(&pv, 1);
    assert_int_equal(*preempted, 0);
    assert_int_equal(flushed[1], 0);
    kvm_pv_sleep(&pv, 1);
    *preempted |= 2;
    kvm_pv_wake(&pv, 1);
    assert_int_equal(*preempted, 0);
    assert_int_equal(flushed[1], 1);
    assert_int_equal(flushed[0] + flushed[2], 0);
}

static void a_vanished_page_may_have_held_a_flush(void **state)
{
    wrmsr(1, KVM_PV_MSR_STEAL_TIME, AREA | 1);
    kvm_pv_sleep(&pv, 1);
    space_move(&mem, 0, 0, false);
    kvm_pv_wake(&pv, 1);
    assert_int_equal(flushed[1], 1);
    kvm_pv_steal(&pv, 1, 1);
}

static void stolen_time_adds_up(void **state)
{
    assert_false(kvm_pv_wants_steal(&pv, 0));
    kvm_pv_steal(&pv, 0, 5);
    wrmsr(0, KVM_PV_MSR_STEAL_TIME, AREA | 1);
    assert_true(kvm_pv_wants_steal(&pv, 0));
    kvm_pv_steal(&pv, 0, 1000);
    assert_int_equal(q(AREA), 1000);
    assert_int_equal(d(AREA + 8), 2);
    kvm_pv_steal(&pv, 0, 7);
    assert_int_equal(q(AREA), 1007);
    assert_int_equal(d(AREA + 8), 4);
}

static void writes_reach_code_tracking(void **state)
{
    bool first;
    wrmsr(0, KVM_PV_MSR_SYSTEM_TIME, AREA | 1);
    wrmsr(0, KVM_PV_MSR_STEAL_TIME, (AREA + 128) | 1);
    uint32_t gen = ram_code_mark(&ram, AREA, 64, &first);
    kvm_pv_tsc_moved(&pv, 0, 1);
    assert_int_not_equal(ram_code_gen(&ram, AREA), gen);
    gen = ram_code_mark(&ram, AREA + 128, 64, &first);
    kvm_pv_sleep(&pv, 0);
    assert_int_not_equal(ram_code_gen(&ram, AREA), gen);
    gen = ram_code_mark(&ram, AREA + 128, 64, &first);
    kvm_pv_steal(&pv, 0, 1);
    assert_int_not_equal(ram_code_gen(&ram, AREA), gen);
}

/* ---- MSRs ---- */

static void bad_addresses(void **state)
{
    static const gpa_t bad[] = {HOLE, HOLE - 4, AREA + 2, 1ull << 40, ~0ull & ~3ull, 0xfee00000};
    uint64_t v;
    memset(ram.host + AREA, 0x55, 64);
    for (unsigned n = 0; n < ARRAY_LEN(bad); n++) {
        assert_true(wrmsr(0, KVM_PV_MSR_WALL_CLOCK, bad[n]));
        assert_true(wrmsr(0, KVM_PV_MSR_SYSTEM_TIME, bad[n] | 1));
        assert_true(kvm_pv_read_msr(&pv, 0, KVM_PV_MSR_SYSTEM_TIME, &v));
        assert_int_equal(v, bad[n] | 1);
    }
    assert_int_equal(d(HOLE - 4), 0);
    assert_int_equal(d(AREA), 0x55555555);
    assert_true(wrmsr(0, KVM_PV_MSR_STEAL_TIME, HOLE | 1));
    kvm_pv_sleep(&pv, 0);
    kvm_pv_steal(&pv, 0, 1);
    for (unsigned bit = 1; bit < 6; bit++)
        assert_false(wrmsr(0, KVM_PV_MSR_STEAL_TIME, AREA | 1u << bit));
    assert_false(wrmsr(0, KVM_PV_MSR_EOI, HOLE | 1));
    assert_false(wrmsr(0, KVM_PV_MSR_EOI, AREA | 3));
    assert_true(wrmsr(0, KVM_PV_MSR_EOI, HOLE)); /* not enabled: no address */
    assert_true(kvm_pv_read_msr(&pv, 0, KVM_PV_MSR_EOI, &v));
    assert_int_equal(v, HOLE);
    for (unsigned n = 0; n < 256; n++)
        if (n > 4 || n == 2) {
            assert_false(wrmsr(0, KVM_PV_MSR + n, 0));
            assert_false(kvm_pv_read_msr(&pv, 0, KVM_PV_MSR + n, &v));
        }
}

static void reset_switches_everything_off(void **state)
{
    wrmsr(0, KVM_PV_MSR_SYSTEM_TIME, AREA | 1);
    wrmsr(0, KVM_PV_MSR_STEAL_TIME, (AREA + 64) | 1);
    wrmsr(0, KVM_PV_MSR_EOI, (AREA + 128) | 1);
    kvm_pv_tsc_moved(&pv, 0, 9);
    kvm_pv_reset(&pv);
    memset(ram.host + AREA, 0x55, 256);
    kvm_pv_tsc_moved(&pv, 0, 9);
    kvm_pv_sleep(&pv, 0);
    kvm_pv_steal(&pv, 0, 9);
    apic_bus_send(&bus, &(struct apic_msg){.vector = 0x50});
    assert_int_equal(lapic_ack(&l[0]), 0x50);
    for (unsigned n = 0; n < 256; n++)
        assert_int_equal(ram.host[AREA + n], 0x55);
}

/* ---- hypercalls ---- */

static int64_t call(uint64_t nr, uint64_t a0, uint64_t a1, uint64_t a2, uint64_t a3)
{
    return kvm_pv_hypercall(
        &pv, &(struct x86_hypercall){.nr = nr, .arg = {a0, a1, a2, a3}, .wide = true});
}

static void hypercalls(void **state)
{
    assert_int_equal(call(KVM_PV_HC_VAPIC_POLL_IRQ, 0, 0, 0, 0), 0);
    assert_int_equal(call(0, 0, 0, 0, 0), -1000);
    assert_int_equal(call(9, AREA, 0, 0, 0), -1000);
    assert_int_equal(call(~0ull, 0, 0, 0, 0), -1000);
    assert_int_equal(call(KVM_PV_HC_KICK_CPU, 0, 1, 0, 0), 0);
    assert_true(!unhalted[0] && unhalted[1] == 1 && !unhalted[2]);
    assert_int_equal(call(KVM_PV_HC_KICK_CPU, 0, 0x101, 0, 0), 0); /* ids have 8 bits */
    assert_int_equal(call(KVM_PV_HC_KICK_CPU, 0, 77, 0, 0), 0);
    assert_int_equal(unhalted[1], 1);
    lapic_write(&l[2], 0x20, 9u << 24, 4); /* by APIC id, not by number */
    call(KVM_PV_HC_KICK_CPU, 0, 9, 0, 0);
    assert_int_equal(unhalted[2], 1);
}

static void ipis(void **state)
{
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, 7, 0, 0, 0x40), 3);
    for (unsigned n = 0; n < NCPU; n++)
        assert_int_equal(lapic_ack(&l[n]), 0x40);
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, 2, 0, 1, 0x51), 1); /* id 2 */
    assert_int_equal(lapic_ack(&l[2]), 0x51);
    assert_false(intr[0] || intr[1]);
    lapic_write(&l[0], 0x20, 100u << 24, 4);
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, 0, 1ull << 36, 0, 0x61), 1);
    assert_int_equal(lapic_ack(&l[0]), 0x61);
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, ~0ull, ~0ull, 101, 0x62), 0);
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, ~0ull, ~0ull, 0xffffffff, 0x62), 0);
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, 6, 0, 0, 0x400), 2);
    assert_int_equal(nmis, 2);
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, 6, 0, 0, 0x8500), 0); /* de-assert */
    assert_int_equal(inits, 0);
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, 2, 0, 0, 0x4500), 1);
    assert_int_equal(inits, 1); /* which also disables the APIC */
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, 2, 0, 0, 0x63), 0);
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, 4, 0, 0, 0x860), -22);
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, 4, 0, 0, 0x40060), -22);
    assert_int_equal(call(KVM_PV_HC_SEND_IPI, 4, 0, 0, 0x05), 0); /* not a vector */
    static const unsigned modes[] = {2, 3, 7};
    for (unsigned n = 0; n < ARRAY_LEN(modes); n++)
        assert_int_equal(call(KVM_PV_HC_SEND_IPI, 4, 0, 0, modes[n] << 8 | 0x70), 0);
    assert_false(intr[2]);
}

static void narrow_ipis(void **state)
{
    struct x86_hypercall h = {.nr = KVM_PV_HC_SEND_IPI, .arg = {0, 1, 0, 0x40}};
    lapic_write(&l[1], 0x20, 32u << 24, 4);
    assert_int_equal(kvm_pv_hypercall(&pv, &h), 1); /* 32 bits in each half */
    assert_int_equal(lapic_ack(&l[1]), 0x40);
}

/* ---- end of interrupt by memory ---- */

static void fixed(unsigned vector, bool level)
{
    apic_bus_send(&bus, &(struct apic_msg){.vector = (uint8_t)vector, .level = level});
}

static bool in_service(unsigned vector)
{
    return lapic_read(&l[0], 0x100 + (vector >> 5) * 16, 4) >> (vector & 31) & 1;
}

/* As the guest: whether it was told that clearing is enough. */
static bool clear_bit(void)
{
    bool was = ram.host[AREA] & 1;
    ram.host[AREA] &= ~1;
    return was;
}

static void eoi_write(void)
{
    lapic_write(&l[0], 0xb0, 0, 4);
}

static void eoi_on(void **state)
{
    ram.host[AREA] = 0x54;
    assert_true(wrmsr(0, KVM_PV_MSR_EOI, AREA | 1));
    assert_int_equal(ram.host[AREA], 0x54);
}

static void eoi_by_memory(void **state)
{
    eoi_on(state);
    fixed(0x50, false);
    assert_int_equal(lapic_ack(&l[0]), 0x50);
    assert_int_equal(ram.host[AREA], 0x55);
    assert_true(in_service(0x50));
    assert_true(clear_bit());
    assert_false(in_service(0x50));
    assert_int_equal(lapic_read(&l[0], 0xa0, 4), 0); /* PPR */
    assert_int_equal(eois, 0);
    /* One of the same class comes afterwards. */
    fixed(0x51, false);
    assert_true(intr[0]);
    assert_int_equal(lapic_ack(&l[0]), 0x51);
    assert_true(clear_bit());
    fixed(0x50, false); /* this is the first look since */
    assert_true(intr[0]);
    assert_int_equal(lapic_ack(&l[0]), 0x50);
    /* Without the optimization: the bit goes, and nothing ends twice. */
    eoi_write();
    assert_int_equal(ram.host[AREA], 0x54);
    assert_false(in_service(0x50));
}

static void request_under_an_offer(void **state)
{
    eoi_on(state);
    fixed(0x50, false);
    lapic_ack(&l[0]);
    fixed(0x41, false); /* below, but the guest may be done: the vCPU shall look */
    assert_true(intr[0]);
    assert_int_equal(lapic_ack(&l[0]), -1); /* it is not: the offer is withdrawn ... */
    assert_false(intr[0]);
    assert_false(clear_bit());
    eoi_write(); /* ... so that this tells at once */
    assert_true(intr[0]);
    assert_int_equal(lapic_ack(&l[0]), 0x41);
    fixed(0x42, false);
    assert_true(intr[0]);
    assert_true(clear_bit());
    assert_int_equal(lapic_ack(&l[0]), 0x42); /* now it was */
    assert_false(in_service(0x41));
    /* What the TPR holds back is no reason to look. */
    lapic_write(&l[0], 0x80, 0x60, 4);
    fixed(0x43, false);
    assert_false(intr[0]);
}

static void nested_interrupts(void **state)
{
    eoi_on(state);
    fixed(0x50, false);
    lapic_ack(&l[0]);
    fixed(0x60, false);
    assert_int_equal(lapic_ack(&l[0]), 0x60);
    assert_true(clear_bit()); /* the offer is the inner one's */
    assert_false(in_service(0x60));
    assert_true(in_service(0x50));
    assert_false(clear_bit()); /* the outer one's was withdrawn */
    eoi_write();
    assert_false(in_service(0x50));
    /* Both ends without a look of the APIC between them. */
    fixed(0x50, false);
    lapic_ack(&l[0]);
    fixed(0x60, false);
    lapic_ack(&l[0]);
    assert_true(clear_bit());
    assert_false(clear_bit());
    eoi_write();
    assert_false(in_service(0x60) || in_service(0x50));
}

static void ends_that_others_wait_for(void **state)
{
    eoi_on(state);
    fixed(0x50, true);
    lapic_ack(&l[0]);
    assert_false(clear_bit()); /* the I/O APIC must hear of it */
    eoi_write();
    assert_int_equal(eois, 1);
    fixed(0x60, false);
    fixed(0x61, false);
    assert_int_equal(lapic_ack(&l[0]), 0x61);
    assert_false(clear_bit()); /* 60H waits for it */
    eoi_write();
    assert_int_equal(lapic_ack(&l[0]), 0x60);
    assert_true(clear_bit());
    /* By level while it is in service by edge: its end is told the I/O APIC, which is harmless. */
    fixed(0x60, false);
    lapic_ack(&l[0]);
    fixed(0x60, true);
    assert_true(clear_bit());
    assert_int_equal(lapic_ack(&l[0]), 0x60);
    assert_int_equal(eois, 2);
    assert_false(clear_bit());
}

static void eoi_is_switched_off(void **state)
{
    eoi_on(state);
    fixed(0x50, false);
    lapic_ack(&l[0]);
    assert_true(wrmsr(0, KVM_PV_MSR_EOI, 0));
    assert_false(clear_bit());
    assert_true(in_service(0x50));
    eoi_write();
    eoi_on(state);
    fixed(0x50, false);
    lapic_ack(&l[0]);
    ram.host[AREA] = 0x54; /* the end was told before the switch */
    assert_true(wrmsr(0, KVM_PV_MSR_EOI, 0));
    assert_false(in_service(0x50));
}

static void lowest_priority_sees_the_end(void **state)
{
    eoi_on(state);
    lapic_write(&l[0], 0x80, 0x10, 4);
    lapic_write(&l[1], 0x80, 0x20, 4);
    lapic_write(&l[2], 0x80, 0x20, 4);
    fixed(0x50, false);
    lapic_ack(&l[0]);
    clear_bit();
    apic_bus_send(&bus,
                  &(struct apic_msg){.dest = APIC_DEST_ALL, .mode = APIC_LOWEST, .vector = 0x70});
    assert_true(intr[0]);
    assert_false(intr[1] || intr[2]);
}

static void the_word_is_mapped_away(void **state)
{
    eoi_on(state);
    fixed(0x50, false);
    lapic_ack(&l[0]);
    space_move(&mem, 0, 0, false);
    assert_true(in_service(0x50));
    eoi_write();
    assert_false(in_service(0x50));
    fixed(0x50, false);
    assert_int_equal(lapic_ack(&l[0]), 0x50);
    eoi_write();
    assert_false(in_service(0x50));
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(clock_is_the_vm_clock),
        T(a_stop_is_marked),
        T(clock_at_other_rates),
        T(clocks_are_stable_while_the_tscs_agree),
        T(wall_clock),
        T(preempted_while_asleep),
        T(a_vanished_page_may_have_held_a_flush),
        T(stolen_time_adds_up),
        T(writes_reach_code_tracking),
        T(bad_addresses),
        T(reset_switches_everything_off),
        T(hypercalls),
        T(ipis),
        T(narrow_ipis),
        T(eoi_by_memory),
        T(request_under_an_offer),
        T(nested_interrupts),
        T(ends_that_others_wait_for),
        T(eoi_is_switched_off),
        T(lowest_priority_sees_the_end),
        T(the_word_is_mapped_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
