/* fuzz_apic.c - local APICs of four vCPUs, I/O APIC, HPET and the bus between them. */
#include "chip/apic_bus.h"
#include "chip/hpet.h"
#include "chip/i8259.h"
#include "chip/ioapic.h"
#include "chip/lapic.h"
#include "fuzz.h"

#define CPUS      4
#define PHYS_BITS 40

static struct {
    struct fuzz f;
    struct apic_bus bus;
    struct lapic lapic[CPUS];
    struct ioapic ioapic;
    struct hpet hpet;
    struct i8259 pic;
} m;

/* The register pages of all vCPUs side by side, for the script. */
static uint64_t page_read(void *dev, uint64_t off, unsigned size)
{
    return lapic_read(&m.lapic[off / LAPIC_SIZE], off % LAPIC_SIZE, size);
}

static void page_write(void *dev, uint64_t off, uint64_t val, unsigned size)
{
    lapic_write(&m.lapic[off / LAPIC_SIZE], off % LAPIC_SIZE, val, size);
}

static const struct io_ops pages = {"lapics", 1 | 2 | 4 | 8 | IO_UNALIGNED, page_read, page_write};

static void event(void *ctx, enum lapic_event ev, unsigned arg)
{
    FUZZ_REQUIRE(ev <= LAPIC_SIPI && arg <= 255);
}

static ns_t tsc_to_ns(void *ctx, uint64_t tsc)
{
    return tsc > INT64_MAX / 4 ? INT64_MAX / 4 : (ns_t)tsc;
}

static int pic_ack(void *ctx)
{
    return i8259_ack(&m.pic);
}

static void msr(struct lapic *l, uint8_t what)
{
    uint64_t val = fuzz_uint(&m.f.in, 8);
    bool write = what & 1;
    lapic_msr(l, what & 2 ? LAPIC_MSR_BASE : LAPIC_MSR_TSC_DEADLINE, write, &val);
}

static void extra(struct fuzz *f, uint8_t what)
{
    struct lapic *l = &m.lapic[what >> 6];
    switch (what >> 2 & 15) {
    case 0:
        if (lapic_has_intr(l))
            FUZZ_REQUIRE(lapic_ack(l) <= 255);
        break;
    case 1:
        FUZZ_REQUIRE(lapic_ack(l) <= 255);
        break;
    case 2:
        FUZZ_REQUIRE(lapic_get_cr8(l) < 16);
        lapic_set_cr8(l, fuzz_u8(&f->in) & 15);
        break;
    case 3:
        msr(l, what);
        break;
    case 4:
        lapic_set_lint(l, what & 1, what & 2);
        break;
    case 5:
        ioapic_set(&m.ioapic, fuzz_u8(&f->in) % IOAPIC_PINS, what & 1);
        break;
    case 6:
        apic_bus_msi(&m.bus, 0xfee00000u | fuzz_uint(&f->in, 3), (uint32_t)fuzz_uint(&f->in, 4));
        break;
    case 7:
        i8259_set_irq(&m.pic, fuzz_u8(&f->in) & 15, what & 1);
        break;
    case 8:
        lapic_set_virtual_wire(l);
        break;
    case 9:
        lapic_reset(l);
        break;
    default:
        ioapic_set(&m.ioapic, what & 15, what & 0x40);
        break;
    }
}

static void init_lapics(void)
{
    for (unsigned n = 0; n < CPUS; n++) {
        const struct lapic_host host = {.event = event, .tsc_to_ns = tsc_to_ns};
        FUZZ_REQUIRE(!lapic_init(&m.lapic[n], &m.bus, &m.f.timers, n == 0, PHYS_BITS, &host, NULL));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct hpet_wiring w = {.irq = {.set = ioapic_set, .ctx = &m.ioapic},
                                  .legacy_irq0 = fuzz_pin(),
                                  .legacy_irq8 = fuzz_pin(),
                                  .legacy_on = fuzz_pin()};
    unsigned id;
    fuzz_begin(&m.f, data, size);
    m.f.extra = extra;
    apic_bus_init(&m.bus);
    m.bus.pic_ack = pic_ack;
    ioapic_init(&m.ioapic, &m.bus);
    i8259_init(&m.pic, (struct pin){.set = apic_bus_set_extint, .ctx = &m.bus});
    init_lapics();
    FUZZ_REQUIRE(!hpet_init(&m.hpet, &m.f.timers, &w, NULL));
    FUZZ_REQUIRE(
        !space_add_io(&m.f.mem, LAPIC_BASE, CPUS * LAPIC_SIZE, &pages, NULL, 0, &id, NULL));
    fuzz_window(&m.f, &m.f.mem, LAPIC_BASE, CPUS * LAPIC_SIZE);
    for (unsigned n = 0; n < CPUS; n++) /* the registers proper, without high bytes of the offset */
        fuzz_window(&m.f, &m.f.mem, LAPIC_BASE + n * LAPIC_SIZE + 0x300, 0x100);
    fuzz_map(&m.f, &ioapic_desc, &m.ioapic);
    fuzz_map(&m.f, &hpet_desc, &m.hpet);
    fuzz_map(&m.f, &i8259_desc, &m.pic);
    fuzz_run(&m.f);
    hpet_fini(&m.hpet);
    for (unsigned n = 0; n < CPUS; n++)
        lapic_fini(&m.lapic[n]);
    fuzz_end(&m.f);
    return 0;
}
