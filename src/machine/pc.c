/*
 * pc.c - the board `pc`: construction, reset, and the vCPUs' way to it. Interrupt lines are in
 * pc_irq.c, disks in pc_disks.c, what firmware is told in pc_firmware.c.
 */
#include "machine/pc.h"

#include <stdlib.h>

#include "machine/firmware.h"
#include "machine/pc_board.h"

#define PRIO_RAM  10 /* above PCI: a BAR cannot cover RAM */
#define PRIO_CHIP 20

static void map_changed(void *arg)
{
    struct pc *p = arg;
    p->host.map_changed(p->host.ctx);
}

/* Maps a chip at its fixed addresses. */
static int map_chip(struct pc *p, const struct chip_desc *d, void *dev, struct error *e)
{
    for (const struct chip_range *r = d->ranges; r && r->len; r++) {
        unsigned id;
        int rc = space_add_io(r->port ? &p->port : &p->mem, r->base, r->len, r->ops, dev, PRIO_CHIP,
                              &id, e);
        if (rc)
            return rc;
    }
    return 0;
}

unsigned pc_parts_of(struct pc *p, struct pc_part *t)
{
    const struct pc_part all[] = {
        {&i8259_desc, &p->pic},
        {&ioapic_desc, &p->ioapic},
        {&i8254_desc, &p->pit},
        {&port61_desc, &p->port61},
        {&hpet_desc, &p->hpet},
        {&mc146818_desc, &p->rtc},
        {&i8042_desc, &p->kbc},
        {&port92_desc, &p->port92},
        {&post_latch_desc, &p->post},
        {&debugport_desc, &p->debug},
        {&ns16550_com1_desc, &p->uart[0]},
        {&ns16550_com2_desc, &p->uart[1]},
        {&i8237_desc, &p->dma},
        {&i82077_desc, &p->fdc},
        {&fw_cfg_desc, &p->fw_cfg},
        {&piix4pm_desc, &p->pm},
        {&testdev_desc, &p->testdev}, /* the last, for it is optional */
    };
    _Static_assert(ARRAY_LEN(all) <= PC_MAX_PARTS, "enlarge PC_MAX_PARTS");
    for (unsigned n = 0; n < ARRAY_LEN(all); n++)
        t[n] = all[n];
    return ARRAY_LEN(all) - !p->spec->testdev;
}

static int map_parts(struct pc *p, struct error *e)
{
    struct pc_part t[PC_MAX_PARTS];
    unsigned n = pc_parts_of(p, t);
    int rc = 0;
    for (unsigned k = 0; k < n && !rc; k++)
        rc = map_chip(p, t[k].desc, t[k].dev, e);
    return rc;
}

/* ---- lines between chips and out of the board ---- */

static void a20_set(void *ctx, unsigned line, bool level)
{
    struct pc *p = ctx;
    (void)line;
    p->host.a20(p->host.ctx, level);
}

static void reset_pin(void *ctx, unsigned line, bool level)
{
    struct pc *p = ctx;
    (void)line;
    if (level)
        p->host.reset(p->host.ctx, "keyboard controller or port 92h");
}

static void reset_control(void *ctx)
{
    struct pc *p = ctx;
    p->host.reset(p->host.ctx, "reset control register");
}

static void power_off(void *ctx)
{
    struct pc *p = ctx;
    p->host.poweroff(p->host.ctx);
}

static void pci_intx(void *ctx, unsigned devfn, unsigned pin, bool level)
{
    struct pc *p = ctx;
    piix3_intx(&p->isa_bridge, devfn, pin, level);
}

static void pci_msi(void *ctx, uint64_t addr, uint32_t data)
{
    struct pc *p = ctx;
    apic_bus_msi(&p->apic_bus, addr, data);
}

/* ---- construction ---- */

static int init_memory(struct pc *p, struct error *e)
{
    unsigned id;
    p->low_top = min_u64(p->ram->ram_size, PC_RAM_BELOW_HOLE);
    p->high_top = 4 * GIB + p->ram->ram_size - p->low_top;
    p->ram->low_end = p->low_top;
    int rc = space_init(&p->mem, 1ull << X86_PHYS_BITS, p->ram, e);
    if (!rc)
        rc = space_init(&p->port, 65536, p->ram, e);
    if (rc)
        return rc;
    p->mem.changed = map_changed;
    p->mem.changed_arg = p;
    rc = space_add_ram(&p->mem, 0, PC_VGA_WINDOW, 0, PRIO_RAM, &id, e);
    if (!rc && p->low_top > MIB)
        rc = space_add_ram(&p->mem, MIB, p->low_top - MIB, MIB, PRIO_RAM, &id, e);
    if (!rc && p->high_top > 4 * GIB)
        rc = space_add_ram(&p->mem, 4 * GIB, p->high_top - 4 * GIB, p->low_top, PRIO_RAM, &id, e);
    return rc;
}

/* Lines 0 to 15 are those of the ISA bus, the others the I/O APIC's alone. */
static void init_testdev(struct pc *p)
{
    struct pin line[TESTDEV_LINES];
    for (unsigned n = 0; n < TESTDEV_LINES; n++)
        line[n] = n < 16 ? pc_isa_pin(p, n)
                         : (struct pin){.set = ioapic_set, .ctx = &p->ioapic, .line = n};
    testdev_init(&p->testdev, line, p->host.exit, p->host.ctx);
}

static int init_chips(struct pc *p, struct error *e)
{
    const struct pc_config *c = &p->cfg;
    const struct i8042_pins kbc = {
        .irq_kbd = pc_isa_pin(p, 1),
        .irq_aux = pc_isa_pin(p, 12),
        .a20 = {.set = a20_set, .ctx = p},
        .reset = {.set = reset_pin, .ctx = p},
    };
    const struct hpet_wiring hpet = pc_hpet_wiring(p);
    const struct pin sci = pc_isa_pin(p, 9), no_pin = {0};
    int rc = pc_lapics_init(p, e);
    if (!rc)
        rc = i8254_init(&p->pit, p->tq, pc_isa_pin(p, 0), e);
    if (!rc)
        rc = hpet_init(&p->hpet, p->tq, &hpet, e);
    if (!rc)
        rc = mc146818_init(&p->rtc, p->tq, c->wall_clock, pc_isa_pin(p, 8), no_pin, e);
    if (!rc)
        rc = piix4pm_init(&p->pm, p->tq, &sci, power_off, p, e);
    if (!rc)
        rc = fw_cfg_init(&p->fw_cfg, &p->mem, e);
    if (rc)
        return rc;
    port61_init(&p->port61, &p->pit);
    i8042_init(&p->kbc, &kbc);
    port92_init(&p->port92, kbc.a20, kbc.reset);
    post_latch_init(&p->post);
    debugport_init(&p->debug, c->debug);
    ns16550_init(&p->uart[0], c->serial, c->serial_ready, pc_isa_pin(p, 4));
    ns16550_init(&p->uart[1], (struct char_out){0}, (struct char_ready){0}, pc_isa_pin(p, 3));
    i8237_init(&p->dma, &p->mem);
    init_testdev(p);
    rc = i82077_init(&p->fdc, &p->dma, c->floppy, pc_isa_pin(p, 6), e);
    if (rc)
        return c->floppy ? error_prefix(e, "%s", p->spec->floppy) : rc;
    return map_parts(p, e);
}

static int init_firmware_rom(struct pc *p, uint64_t *roff, uint64_t *len, struct error *e)
{
    if (!p->direct)
        return firmware_load("bios-256k.bin", p->ram, roff, len, e);
    /* No firmware: what lies where a BIOS would reads as zeroes. */
    *len = 64 * KIB;
    return ram_rom_alloc(p->ram, *len, roff, e);
}

static int init_vga(struct pc *p, struct error *e)
{
    uint64_t roff = 0, len = 0;
    int rc = vga_init(&p->vga, e);
    if (!rc)
        rc = map_chip(p, &vga_desc, &p->vga, e);
    if (!rc && !p->direct)
        rc = firmware_load("vgabios-stdvga.bin", p->ram, &roff, &len, e);
    return rc ? rc
              : vga_pci_init(&p->vga_pci, &p->pci, PCI_DEVFN(PC_SLOT_VGA, 0), &p->vga, roff, len,
                             e);
}

static int init_virtio(struct pc *p, struct error *e)
{
    virtio_console_init(&p->console, &p->mem, p->cfg.console, p->cfg.console_ready);
    virtio_rng_init(&p->rng, &p->mem);
    int rc =
        virtio_pci_init(&p->console_fn, &p->pci, PCI_DEVFN(PC_SLOT_CONSOLE, 0), &p->console.v, e);
    if (!rc)
        rc = virtio_pci_init(&p->rng_fn, &p->pci, PCI_DEVFN(PC_SLOT_RNG, 0), &p->rng.v, e);
    return rc;
}

static int init_pci(struct pc *p, struct error *e)
{
    uint64_t roff = 0, len = 0;
    unsigned id;
    int rc = init_firmware_rom(p, &roff, &len, e);
    if (!rc)
        rc = space_add_rom(&p->mem, 4 * GIB - len, len, roff, PRIO_CHIP, &id, e);
    if (!rc)
        rc = pci_bus_init(&p->pci, &p->mem, &p->port, e);
    if (rc)
        return rc;
    p->pci.intx = pci_intx;
    p->pci.msi = pci_msi;
    p->pci.ctx = p;
    rc = i440fx_init(&p->host_bridge, &p->pci, p->ram, roff, len, e);
    if (!rc)
        rc = piix3_init(&p->isa_bridge, &p->pci, PCI_DEVFN(PC_SLOT_ISA, 0), e);
    if (rc)
        return rc;
    p->isa_bridge.set_irq = pc_pci_irq;
    p->isa_bridge.reset_request = reset_control;
    p->isa_bridge.ctx = p;
    rc = piix3_ide_init(&p->ide, &p->pci, PCI_DEVFN(PC_SLOT_ISA, 1), pc_isa_pin(p, 14),
                        pc_isa_pin(p, 15), e);
    if (!rc)
        rc = piix4pm_pci_init(&p->pm_pci, &p->pci, PCI_DEVFN(PC_SLOT_ISA, 3), &p->pm, e);
    if (!rc)
        rc = init_vga(p, e);
    if (!rc)
        rc = init_virtio(p, e);
    return rc ? rc : pc_disks_init(p, e);
}

int pc_create(struct pc **out, const struct pc_config *cfg, struct error *e)
{
    struct pc *p = calloc(1, sizeof *p);
    if (!p)
        return error_set(e, ERR_NOMEM, "out of memory");
    p->cfg = *cfg;
    p->spec = cfg->spec;
    p->ram = cfg->ram;
    p->tq = cfg->timers;
    p->host = cfg->host;
    p->direct = p->spec->firmware == SPEC_FIRMWARE_NONE ||
                (p->spec->firmware == SPEC_FIRMWARE_AUTO && p->spec->kernel);
    pc_irq_init(p);
    int rc = init_memory(p, e);
    if (!rc)
        rc = init_chips(p, e);
    if (!rc)
        rc = init_pci(p, e);
    if (!rc)
        rc = pc_firmware_init(p, e);
    if (rc) {
        pc_destroy(p);
        return rc;
    }
    pc_reset(p);
    *out = p;
    return 0;
}

void pc_destroy(struct pc *p)
{
    if (!p)
        return;
    pc_disks_fini(p);
    virtio_pci_fini(&p->rng_fn);
    virtio_pci_fini(&p->console_fn);
    vga_fini(&p->vga);
    piix3_ide_fini(&p->ide);
    smbios_fini(&p->smbios);
    acpi_fini(&p->acpi);
    fw_cfg_fini(&p->fw_cfg);
    space_fini(&p->port);
    space_fini(&p->mem);
    free(p);
}

void pc_reset(struct pc *p)
{
    struct pc_part t[PC_MAX_PARTS];
    unsigned n = pc_parts_of(p, t);
    space_begin(&p->mem);
    space_begin(&p->port);
    for (unsigned k = 0; k < n; k++)
        if (t[k].desc->reset)
            t[k].desc->reset(t[k].dev);
    for (unsigned k = 0; k < p->spec->cpus; k++)
        lapic_reset(&p->lapic[k].lapic);
    kvm_pv_reset(&p->kvm_pv);
    pci_bus_reset(&p->pci);
    space_commit(&p->port);
    space_commit(&p->mem);
    pc_cmos_fill(p);
}

/* ---- access ---- */

struct space *pc_mem(struct pc *p)
{
    return &p->mem;
}

struct space *pc_port(struct pc *p)
{
    return &p->port;
}

struct char_in pc_serial_in(struct pc *p)
{
    return ns16550_char_in(&p->uart[0]);
}

struct char_in pc_console_in(struct pc *p)
{
    return virtio_console_input(&p->console);
}

uint64_t pc_mem_read(struct pc *p, unsigned cpu, gpa_t addr, unsigned size)
{
    struct lapic *l = &p->lapic[cpu].lapic;
    if (lapic_claims(l, addr))
        return lapic_read(l, addr % LAPIC_SIZE, size);
    return space_read(&p->mem, addr, size);
}

void pc_mem_write(struct pc *p, unsigned cpu, gpa_t addr, uint64_t val, unsigned size)
{
    struct lapic *l = &p->lapic[cpu].lapic;
    if (lapic_claims(l, addr))
        lapic_write(l, addr % LAPIC_SIZE, val, size);
    else
        space_write(&p->mem, addr, val, size);
}

int pc_intr_ack(struct pc *p, unsigned cpu)
{
    return lapic_ack(&p->lapic[cpu].lapic);
}

bool pc_intr_pending(struct pc *p, unsigned cpu)
{
    return lapic_has_intr(&p->lapic[cpu].lapic);
}

uint64_t pc_get_cr8(struct pc *p, unsigned cpu)
{
    return lapic_get_cr8(&p->lapic[cpu].lapic);
}

void pc_set_cr8(struct pc *p, unsigned cpu, uint64_t cr8)
{
    lapic_set_cr8(&p->lapic[cpu].lapic, cr8);
}

bool pc_apic_msr(struct pc *p, unsigned cpu, uint32_t msr, bool write, uint64_t *val)
{
    return lapic_msr(&p->lapic[cpu].lapic, msr, write, val);
}

struct kvm_pv *pc_kvm_pv(struct pc *p)
{
    return &p->kvm_pv;
}

void pc_set_ferr(struct pc *p, bool level)
{
    struct pin irq13 = pc_isa_pin(p, 13);
    pin_set(&irq13, level);
}

void pc_screen_text(struct pc *p, char *buf, size_t size)
{
    vga_text(&p->vga, buf, size);
}

void pc_key(struct pc *p, unsigned key, bool pressed)
{
    ps2kbd_key(&p->kbc.kbd, key, pressed);
}

/* The longest report of a key is eight bytes (set 2, Pause). */
bool pc_key_room(const struct pc *p)
{
    return ps2_report_room(&p->kbc.kbd.port) >= 8;
}

void pc_power_button(struct pc *p)
{
    piix4pm_power_button(&p->pm);
}
