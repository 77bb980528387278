/* board.c - see board.h. */
#include "board.h"

#include <string.h>

static void post(void *ctx, unsigned cpu, uint32_t pend)
{
    FUZZ_REQUIRE(cpu < FUZZ_CPUS);
}

static void sipi(void *ctx, unsigned cpu, uint8_t vector)
{
    FUZZ_REQUIRE(cpu < FUZZ_CPUS);
}

static void unhalt(void *ctx, unsigned cpu)
{
    FUZZ_REQUIRE(cpu < FUZZ_CPUS);
}

static void nothing(void *ctx)
{
}

static void a20(void *ctx, bool open)
{
}

static void reset_request(void *ctx, const char *why)
{
}

static struct fuzz_board *board_of(struct fuzz *f)
{
    return CONTAINER_OF(f, struct fuzz_board, f);
}

static void reset(struct fuzz *f)
{
    fuzz_complete_all(f); /* as the VM does */
    pc_reset(board_of(f)->pc);
}

/* KVM's paravirtual interface. */
static void paravirtual(struct fuzz *f, unsigned cpu, gpa_t addr)
{
    struct kvm_pv *pv = pc_kvm_pv(board_of(f)->pc);
    struct x86_hypercall h = {.nr = addr & 15, .wide = addr & 16};
    uint64_t val = fuzz_uint(&f->in, 6);
    bool calendar = addr % 8 == KVM_PV_MSR_WALL_CLOCK - KVM_PV_MSR;
    switch (fuzz_u8(&f->in) & 7) {
    case 0 ... 3:
        if (calendar && board_of(f)->repeatable)
            break;
        if (kvm_pv_write_msr(pv, cpu, KVM_PV_MSR + (uint32_t)addr % 8, val))
            FUZZ_REQUIRE(kvm_pv_read_msr(pv, cpu, KVM_PV_MSR + (uint32_t)addr % 8, &val));
        break;
    case 4:
        for (unsigned n = 0; n < ARRAY_LEN(h.arg); n++)
            h.arg[n] = fuzz_uint(&f->in, 5);
        FUZZ_REQUIRE(kvm_pv_hypercall(pv, &h) <= FUZZ_CPUS);
        break;
    case 5:
        kvm_pv_tsc_moved(pv, cpu, val);
        break;
    case 6:
        kvm_pv_sleep(pv, cpu);
        kvm_pv_wake(pv, cpu);
        break;
    case 7:
        kvm_pv_steal(pv, cpu, (ns_t)val);
        break;
    }
}

/* What happens to a vCPU and to the machine's user. */
static void extra(struct fuzz *f, uint8_t what)
{
    struct fuzz_board *b = board_of(f);
    unsigned cpu = what & 1;
    gpa_t addr = fuzz_uint(&f->in, 5);
    uint64_t val;
    switch (what >> 1 & 7) {
    case 0:
        pc_mem_write(b->pc, cpu, addr, fuzz_uint(&f->in, 8), 1u << (what >> 6));
        break;
    case 1:
        pc_mem_read(b->pc, cpu, addr, 1u << (what >> 6));
        break;
    case 2:
        pc_mem_write(b->pc, cpu, LAPIC_BASE + addr % LAPIC_SIZE, fuzz_uint(&f->in, 4), 4);
        break;
    case 3:
        FUZZ_REQUIRE(pc_intr_ack(b->pc, cpu) <= 255);
        break;
    case 4:
        val = fuzz_uint(&f->in, 8);
        pc_apic_msr(b->pc, cpu, what & 0x10 ? LAPIC_MSR_BASE : LAPIC_MSR_TSC_DEADLINE, what & 0x20,
                    &val);
        break;
    case 5:
        pc_set_cr8(b->pc, cpu, addr & 15);
        break;
    case 6:
        if (what & 0x10)
            paravirtual(f, cpu, addr);
        else
            pc_power_button(b->pc);
        break;
    case 7:
        ps2kbd_key(&b->pc->kbc.kbd, addr % 0x300, what & 0x10);
        break;
    }
}

/* Gives every function its BARs, as firmware would, and names them. */
static void program_bars(struct fuzz_board *b)
{
    uint64_t io = 0xc000, mem = 0xe0000000u;
    space_begin(&b->pc->port);
    space_begin(&b->pc->mem);
    for (unsigned n = 0; n < 256; n++) {
        struct pci_dev *d = b->pc->pci.dev[n];
        for (unsigned k = 0; d && k < PCI_NUM_BARS; k++) {
            struct pci_bar *bar = &d->bar[k];
            if (!bar->size)
                continue;
            uint64_t *at = bar->port ? &io : &mem;
            *at = (*at + bar->size - 1) & ~(bar->size - 1);
            space_write(&b->pc->port, 0xcf8, 0x80000000u | n << 8 | (0x10 + 4 * k), 4);
            space_write(&b->pc->port, 0xcfc, *at, 4);
            fuzz_window(&b->f, bar->port ? &b->pc->port : &b->pc->mem, *at, (uint32_t)bar->size);
            *at += bar->size;
        }
        if (!d)
            continue;
        space_write(&b->pc->port, 0xcf8, 0x80000000u | n << 8 | 4, 4);
        space_write(&b->pc->port, 0xcfc, 7, 2);
    }
    space_commit(&b->pc->mem);
    space_commit(&b->pc->port);
}

static void windows(struct fuzz_board *b)
{
    static const uint16_t ports[][2] = {
        {0x00, 0x10}, {0x20, 2},   {0x40, 4},  {0x60, 5},  {0x70, 4},   {0x80, 0x13}, {0xa0, 2},
        {0xb2, 2},    {0xc0, 32},  {0x170, 8}, {0x1ce, 3}, {0x1f0, 8},  {0x2f8, 8},   {0x376, 1},
        {0x3b0, 48},  {0x3f0, 16}, {0x402, 1}, {0x4d0, 2}, {0x510, 12}, {0x600, 64},  {0xcf8, 8},
    };
    for (unsigned n = 0; n < ARRAY_LEN(ports); n++)
        fuzz_window(&b->f, &b->pc->port, ports[n][0], ports[n][1]);
    fuzz_window(&b->f, &b->pc->port, 0, 65536);
    fuzz_window(&b->f, &b->pc->mem, 0x9f000, 0x61000);
    fuzz_window(&b->f, &b->pc->mem, IOAPIC_BASE, 0x20);
    fuzz_window(&b->f, &b->pc->mem, HPET_BASE, HPET_SIZE);
}

static void config(struct fuzz_board *b, struct pc_config *c, bool all)
{
    static const struct spec_disk disks[] = {
        {.bus = SPEC_BUS_IDE},
        {.bus = SPEC_BUS_VIRTIO},
        {.bus = SPEC_BUS_AHCI},
        {.bus = SPEC_BUS_AHCI, .media = SPEC_MEDIA_CDROM},
        {.bus = SPEC_BUS_NVME},
        {.bus = SPEC_BUS_SCSI},
        {.bus = SPEC_BUS_SCSI, .media = SPEC_MEDIA_CDROM},
    };
    *c = (struct pc_config){
        .spec = &b->spec,
        .ram = &b->f.ram,
        .timers = &b->f.timers,
        .host = {.post = post,
                 .sipi = sipi,
                 .unhalt = unhalt,
                 .map_changed = nothing,
                 .a20 = a20,
                 .reset = reset_request,
                 .poweroff = nothing},
        .serial = fuzz_char_out(&b->f),
        .console = fuzz_char_out(&b->f),
        .wall_clock = 1700000000,
    };
    b->spec = (struct spec){.cpus = FUZZ_CPUS,
                            .memory = 2 * MIB,
                            .firmware = SPEC_FIRMWARE_NONE,
                            .boot = {SPEC_BOOT_DISK},
                            .nboot = 1,
                            .ndisk = all ? ARRAY_LEN(disks) : 2};
    memcpy(b->spec.disk, disks, sizeof disks);
    for (unsigned n = 0; n < b->spec.ndisk; n++)
        c->disk[n] = fuzz_disk(&b->f, disks[n].media == SPEC_MEDIA_CDROM);
    c->cdrom = fuzz_disk(&b->f, true);
    c->floppy = fuzz_disk(&b->f, false);
}

void fuzz_board_begin(struct fuzz_board *b, const uint8_t *data, size_t size, bool all)
{
    struct pc_config c;
    memset(b, 0, sizeof *b);
    fuzz_begin_ram(&b->f, data, size, 2 * MIB);
    b->f.extra = extra;
    b->f.reset = reset;
    config(b, &c, all);
    FUZZ_REQUIRE(!pc_create(&b->pc, &c, NULL));
    b->f.chars[0] = pc_serial_in(b->pc);
    b->f.chars[1] = pc_console_in(b->pc);
    b->f.nchars = 2;
    windows(b);
    program_bars(b);
    b->repeatable = all;
    if (all)
        b->pc->rng.v.nqueue = 0;
}

void fuzz_board_end(struct fuzz_board *b)
{
    pc_destroy(b->pc);
    fuzz_end(&b->f);
}
