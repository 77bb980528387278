/* test_lapic.c - local APIC: priorities, IPIs, destinations, LVT, timer modes, MSRs, bus routing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "chip/lapic.h"

#define NCPU 3

static struct vclock vclk;
static struct timerq tq;
static struct apic_bus bus;
static struct lapic l[NCPU];
static struct {
    unsigned nmi, init, sipi, changes;
    unsigned sipi_vector;
    bool intr;
} seen[NCPU];
static unsigned eois, eoi_vector, inta;

static void on_event(void *ctx, enum lapic_event ev, unsigned arg)
{
    unsigned n = (unsigned)(uintptr_t)ctx;
    switch (ev) {
    case LAPIC_INTR:
        seen[n].changes++;
        seen[n].intr = arg;
        break;
    case LAPIC_NMI:
        seen[n].nmi++;
        break;
    case LAPIC_INIT:
        seen[n].init++;
        break;
    case LAPIC_SIPI:
        seen[n].sipi++;
        seen[n].sipi_vector = arg;
        break;
    }
}

static ns_t tsc_to_ns(void *ctx, uint64_t tsc) /* a 2 GHz TSC */
{
    return (ns_t)((tsc + 1) / 2);
}

static void on_eoi(void *ctx, uint8_t vector)
{
    eois++;
    eoi_vector = vector;
}

static int on_inta(void *ctx)
{
    inta++;
    apic_bus_set_extint(&bus, 0, false);
    return 0x28;
}

static uint32_t rd(unsigned n, unsigned off)
{
    return (uint32_t)lapic_read(&l[n], off, 4);
}

static void wr(unsigned n, unsigned off, uint32_t v)
{
    lapic_write(&l[n], off, v, 4);
}

static void advance(ns_t to)
{
    vclock_set(&vclk, to);
    timerq_run(&tq);
}

static int setup(void **state)
{
    memset(seen, 0, sizeof seen);
    eois = inta = 0;
    vclock_init_manual(&vclk);
    timerq_init(&tq, &vclk);
    apic_bus_init(&bus);
    bus.eoi = on_eoi;
    bus.pic_ack = on_inta;
    for (unsigned i = 0; i < NCPU; i++) {
        struct lapic_host h = {on_event, tsc_to_ns, (void *)(uintptr_t)i};
        if (lapic_init(&l[i], &bus, &tq, i == 0, 36, &h, NULL))
            return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < NCPU; i++)
        lapic_fini(&l[i]);
    timerq_fini(&tq);
    return 0;
}

static void enable_all(void)
{
    for (unsigned i = 0; i < NCPU; i++)
        wr(i, 0xf0, 0x1ff);
}

static void fixed(unsigned dest, unsigned vector)
{
    struct apic_msg m = {.dest = (uint8_t)dest, .vector = (uint8_t)vector};
    apic_bus_send(&bus, &m);
}

static void test_reset_values(void **state)
{
    assert_int_equal(rd(1, 0x20), 1u << 24);
    assert_int_equal(rd(0, 0x30), 0x00050014);
    assert_int_equal(rd(0, 0xe0), 0xffffffff);
    assert_int_equal(rd(0, 0xf0), 0xff);
    for (unsigned r = 0x320; r <= 0x370; r += 0x10)
        assert_int_equal(rd(0, r), 0x10000);
    assert_int_equal(l[0].base, 0xfee00900);
    assert_int_equal(l[1].base, 0xfee00800);
    assert_true(lapic_claims(&l[0], 0xfee00fff));
    assert_false(lapic_claims(&l[0], 0xfee01000));
    assert_int_equal(lapic_read(&l[0], 0x32, 1), 0x05); /* byte 2 of the version */
    assert_int_equal(lapic_read(&l[0], 0x34, 4), 0);
}

static void test_priorities(void **state)
{
    fixed(0, 0x40);
    assert_false(lapic_has_intr(&l[0])); /* software-disabled: not accepted */
    enable_all();
    fixed(0, 0x41);
    fixed(0, 0x52);
    assert_true(seen[0].intr);
    assert_int_equal(rd(0, 0x220), 0x40002);
    assert_int_equal(lapic_ack(&l[0]), 0x52);
    assert_int_equal(rd(0, 0xa0), 0x50);
    assert_false(lapic_has_intr(&l[0])); /* 0x41 is below the one in service */
    assert_false(seen[0].intr);
    fixed(0, 0x5f);
    assert_false(lapic_has_intr(&l[0])); /* same class */
    fixed(0, 0x60);
    assert_int_equal(lapic_ack(&l[0]), 0x60);
    wr(0, 0xb0, 0);
    assert_int_equal(rd(0, 0xa0), 0x50);
    wr(0, 0xb0, 0);
    assert_int_equal(lapic_ack(&l[0]), 0x5f);
    wr(0, 0xb0, 0);
    wr(0, 0x80, 0x4f);
    assert_int_equal(rd(0, 0xa0), 0x4f);
    assert_false(lapic_has_intr(&l[0]));
    assert_int_equal(lapic_get_cr8(&l[0]), 4);
    lapic_set_cr8(&l[0], 3);
    assert_int_equal(rd(0, 0x80), 0x30);
    assert_int_equal(lapic_ack(&l[0]), 0x41);
    assert_int_equal(lapic_ack(&l[0]), -1);
    assert_int_equal(eois, 0); /* all were edge-triggered */
}

static void test_level_eoi_reaches_ioapic(void **state)
{
    enable_all();
    apic_bus_send(&bus, &(struct apic_msg){.dest = 0, .vector = 0x91, .level = true});
    assert_int_equal(rd(0, 0x180 + 0x40), 1u << 17);
    assert_int_equal(lapic_ack(&l[0]), 0x91);
    wr(0, 0xb0, 0);
    assert_int_equal(eois, 1);
    assert_int_equal(eoi_vector, 0x91);
    fixed(0, 0x91); /* now by edge: the TMR bit goes */
    assert_int_equal(rd(0, 0x1c0), 0);
    lapic_ack(&l[0]);
    wr(0, 0xb0, 0);
    wr(0, 0xb0, 0); /* nothing in service: no effect */
    assert_int_equal(eois, 1);
}

static void test_destinations(void **state)
{
    enable_all();
    for (unsigned i = 0; i < NCPU; i++)
        wr(i, 0xd0, 1u << (24 + i));
    struct apic_msg m = {.dest = 5, .logical = true, .vector = 0x30};
    apic_bus_send(&bus, &m);
    assert_true(lapic_has_intr(&l[0]) && !lapic_has_intr(&l[1]) && lapic_has_intr(&l[2]));
    lapic_ack(&l[0]), lapic_ack(&l[2]);
    wr(0, 0xb0, 0), wr(2, 0xb0, 0);
    /* Cluster model: cluster 1, members 1 and 2; cluster 2, member 1. */
    for (unsigned i = 0; i < NCPU; i++)
        wr(i, 0xe0, 0);
    assert_int_equal(rd(0, 0xe0), 0x0fffffff);
    wr(0, 0xd0, 0x11000000), wr(1, 0xd0, 0x12000000), wr(2, 0xd0, 0x21000000);
    m.dest = 0x13;
    apic_bus_send(&bus, &m);
    assert_true(lapic_has_intr(&l[0]) && lapic_has_intr(&l[1]) && !lapic_has_intr(&l[2]));
    /* Broadcast, physical. */
    fixed(0xff, 0x31);
    assert_int_equal(lapic_ack(&l[2]), 0x31);
    assert_false(apic_bus_send(&bus, &(struct apic_msg){.dest = 77, .vector = 0x40}));
}

static void test_lowest_priority(void **state)
{
    enable_all();
    struct apic_msg m = {.dest = 0xff, .mode = APIC_LOWEST, .vector = 0x61};
    wr(0, 0x80, 0x20);
    wr(1, 0x80, 0x10);
    wr(2, 0x80, 0x20);
    apic_bus_send(&bus, &m);
    assert_true(lapic_has_intr(&l[1]));
    assert_false(lapic_has_intr(&l[0]) || lapic_has_intr(&l[2]));
    apic_bus_send(&bus, &m); /* 1 has it pending now: its priority is 0x60 */
    apic_bus_send(&bus, &m);
    assert_true(lapic_has_intr(&l[0]) && lapic_has_intr(&l[2]));
}

static void test_ipis(void **state)
{
    enable_all();
    wr(0, 0x300, 0x000c4500); /* INIT, all but self */
    assert_true(seen[1].init == 1 && seen[2].init == 1 && seen[0].init == 0);
    assert_int_equal(rd(1, 0xf0), 0xff);
    assert_int_equal(rd(1, 0x20), 1u << 24);
    wr(0, 0x300, 0x000c8500); /* level de-assert: nothing */
    assert_int_equal(seen[1].init, 1);
    wr(0, 0x300, 0x000c4610);
    assert_int_equal(seen[2].sipi_vector, 0x10);
    wr(0, 0x310, 2u << 24);
    wr(0, 0x300, 0x400); /* NMI to 2 */
    assert_int_equal(seen[2].nmi, 1);
    assert_int_equal(seen[0].nmi + seen[1].nmi, 0);
    wr(0, 0x300, 0x40033); /* self */
    assert_int_equal(lapic_ack(&l[0]), 0x33);
    wr(0, 0x300, 0x80044); /* all including self */
    assert_int_equal(lapic_ack(&l[0]), 0x44);
    wr(0, 0x300, 0x80500); /* INIT to all including self: not valid */
    assert_int_equal(seen[0].init, 0);
    wr(0, 0x300, 0x40005); /* illegal vector */
    wr(0, 0x280, 0);
    assert_int_equal(rd(0, 0x280), 0x20);
    wr(0, 0x280, 0);
    assert_int_equal(rd(0, 0x280), 0);
    assert_int_equal(rd(0, 0x300), 0x40005);
}

static void test_error_interrupt(void **state)
{
    enable_all();
    wr(0, 0x370, 0xfe);
    fixed(0, 3);
    assert_int_equal(lapic_ack(&l[0]), 0xfe);
    wr(0, 0xb0, 0);
    fixed(0, 3); /* not again until the ESR is written */
    assert_false(lapic_has_intr(&l[0]));
    wr(0, 0x280, 0);
    assert_int_equal(rd(0, 0x280), 0x40);
    wr(0, 0x370, 0x5); /* an illegal vector for the error interrupt itself ends */
    rd(0, 0x3f0);
    wr(0, 0x280, 0);
    assert_int_equal(rd(0, 0x280), 0x40 | 0x80);
}

static void test_virtual_wire(void **state)
{
    apic_bus_set_extint(&bus, 0, true);
    assert_false(lapic_has_intr(&l[0])); /* LINT0 is masked after reset */
    wr(0, 0xf0, 0x1ff);
    wr(0, 0x350, 0x8700);
    assert_true(lapic_has_intr(&l[0]));
    assert_int_equal(lapic_ack(&l[0]), 0x28);
    assert_int_equal(inta, 1);
    assert_false(lapic_has_intr(&l[0]));
    apic_bus_set_extint(&bus, 0, true);
    wr(0, 0xf0, 0xff); /* software disable masks LINT0 */
    assert_int_equal(rd(0, 0x350), 0x18700);
    assert_false(lapic_has_intr(&l[0]));
    uint64_t base = 0xfee00100; /* globally disabled: LINT0 is the INTR pin */
    assert_true(lapic_msr(&l[0], LAPIC_MSR_BASE, true, &base));
    assert_true(seen[0].intr);
    assert_int_equal(lapic_ack(&l[0]), 0x28);
    assert_false(lapic_claims(&l[0], 0xfee00000));
    lapic_reset(&l[0]);
    lapic_set_virtual_wire(&l[0]);
    apic_bus_set_extint(&bus, 0, true);
    assert_true(lapic_has_intr(&l[0]));
    lapic_set_lint(&l[0], 1, true);
    assert_int_equal(seen[0].nmi, 1);
}

static void test_lint0_fixed_level(void **state)
{
    enable_all();
    wr(0, 0x350, 0x8000 | 0x55);
    lapic_set_lint(&l[0], 0, true);
    assert_int_equal(rd(0, 0x350), 0xc055);
    assert_int_equal(lapic_ack(&l[0]), 0x55);
    wr(0, 0xb0, 0); /* still asserted: comes again */
    assert_int_equal(lapic_ack(&l[0]), 0x55);
    lapic_set_lint(&l[0], 0, false);
    wr(0, 0xb0, 0);
    assert_false(lapic_has_intr(&l[0]));
    assert_int_equal(rd(0, 0x350), 0x8055);
}

static void test_base_msr(void **state)
{
    uint64_t v = 0xfee00000 | 0xc00;
    assert_false(lapic_msr(&l[0], LAPIC_MSR_BASE, true, &v)); /* x2APIC */
    v = 1ull << 36 | 0x800;
    assert_false(lapic_msr(&l[0], LAPIC_MSR_BASE, true, &v));
    v = 0xfed50800;
    assert_true(lapic_msr(&l[0], LAPIC_MSR_BASE, true, &v));
    assert_true(lapic_claims(&l[0], 0xfed50010));
    assert_true(lapic_msr(&l[0], LAPIC_MSR_BASE, false, &v));
    assert_int_equal(v, 0xfed50900); /* BSP is not writable */
    assert_false(lapic_msr(&l[0], 0x1234, false, &v));
}

static void test_timer_oneshot(void **state)
{
    enable_all();
    wr(0, 0x3e0, 0xb); /* divide by 1 */
    wr(0, 0x320, 0xec);
    advance(1000);
    wr(0, 0x380, 500000);
    advance(101000);
    assert_int_equal(rd(0, 0x390), 400000);
    wr(0, 0x3e0, 3); /* divide by 16 from here on */
    advance(101000 + 16 * 100000);
    assert_int_equal(rd(0, 0x390), 300000);
    assert_false(lapic_has_intr(&l[0]));
    advance(101000 + 16 * 400000);
    assert_int_equal(lapic_ack(&l[0]), 0xec);
    assert_int_equal(rd(0, 0x390), 0);
    wr(0, 0xb0, 0);
    advance(NS_PER_SEC);
    assert_false(lapic_has_intr(&l[0]));
    /* An expiry that is due but not yet run is not lost when the LVT is rewritten. */
    wr(0, 0x3e0, 0xb);
    wr(0, 0x380, 1000);
    vclock_set(&vclk, NS_PER_SEC + 2000);
    wr(0, 0x320, 0x100ec);
    assert_int_equal(lapic_ack(&l[0]), 0xec);
}

static void test_timer_periodic(void **state)
{
    enable_all();
    wr(0, 0x3e0, 0xb);
    wr(0, 0x320, 0x200ec);
    wr(0, 0x380, 1000000);
    for (unsigned i = 1; i <= 5; i++) {
        advance(i * 1000000);
        assert_int_equal(lapic_ack(&l[0]), 0xec);
        wr(0, 0xb0, 0);
    }
    advance(5250000);
    assert_int_equal(rd(0, 0x390), 750000);
    advance(99500000); /* far behind: one tick, and the phase is kept */
    assert_int_equal(lapic_ack(&l[0]), 0xec);
    wr(0, 0xb0, 0);
    assert_false(lapic_has_intr(&l[0]));
    assert_int_equal(timerq_next(&tq), 100000000);
    wr(0, 0x380, 1); /* a nanosecond period: the host is not flooded */
    advance(100000000);
    assert_true(timerq_next(&tq) >= 100050000);
    wr(0, 0x380, 0);
    assert_true(timerq_next(&tq) == INT64_MAX);
    assert_int_equal(rd(0, 0x390), 0);
}

static void test_timer_tsc_deadline(void **state)
{
    enable_all();
    uint64_t v = 5000;
    assert_true(lapic_msr(&l[0], LAPIC_MSR_TSC_DEADLINE, true, &v)); /* wrong mode: ignored */
    lapic_msr(&l[0], LAPIC_MSR_TSC_DEADLINE, false, &v);
    assert_int_equal(v, 0);
    wr(0, 0x320, 0x400ec);
    wr(0, 0x380, 100);
    assert_int_equal(rd(0, 0x380), 0);
    v = 5001;
    lapic_msr(&l[0], LAPIC_MSR_TSC_DEADLINE, true, &v);
    advance(2500);
    assert_false(lapic_has_intr(&l[0]));
    advance(2501);
    assert_int_equal(lapic_ack(&l[0]), 0xec);
    lapic_msr(&l[0], LAPIC_MSR_TSC_DEADLINE, false, &v);
    assert_int_equal(v, 0);
    wr(0, 0xb0, 0);
    v = 10; /* in the past: at once */
    lapic_msr(&l[0], LAPIC_MSR_TSC_DEADLINE, true, &v);
    assert_int_equal(lapic_ack(&l[0]), 0xec);
    wr(0, 0xb0, 0);
    v = 100000;
    lapic_msr(&l[0], LAPIC_MSR_TSC_DEADLINE, true, &v);
    wr(0, 0x320, 0xec); /* leaving the mode disarms */
    advance(NS_PER_SEC);
    assert_false(lapic_has_intr(&l[0]));
}

static void test_msi(void **state)
{
    enable_all();
    apic_bus_msi(&bus, 0xfee02000, 0x4071);
    assert_int_equal(lapic_ack(&l[2]), 0x71);
    apic_bus_msi(&bus, 0xfee02000, 0x0400); /* NMI */
    assert_int_equal(seen[2].nmi, 1);
    apic_bus_msi(&bus, 0x1000, 0x71);
    wr(1, 0xd0, 0x02000000);
    apic_bus_msi(&bus, 0xfee0200c, 0x172); /* logical, lowest priority */
    assert_int_equal(lapic_ack(&l[1]), 0x72);
}

static void test_hostile_accesses(void **state)
{
    for (unsigned off = 0; off < 0x1000; off += 4) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            lapic_read(&l[1], off, size);
            lapic_write(&l[1], off, 0xffffffffffffffffull, size);
        }
    }
    lapic_read(&l[1], 0xfffffff0, 4);
    lapic_write(&l[1], 0xfffffff0, 0, 4);
    advance(NS_PER_SEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_reset_values),
        T(test_priorities),
        T(test_level_eoi_reaches_ioapic),
        T(test_destinations),
        T(test_lowest_priority),
        T(test_ipis),
        T(test_error_interrupt),
        T(test_virtual_wire),
        T(test_lint0_fixed_level),
        T(test_base_msr),
        T(test_timer_oneshot),
        T(test_timer_periodic),
        T(test_timer_tsc_deadline),
        T(test_msi),
        T(test_hostile_accesses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
