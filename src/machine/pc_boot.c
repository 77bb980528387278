/*
 * pc_boot.c - starting a kernel without firmware: what firmware would have programmed into the
 * board, the tables it would have left in memory, the kernel itself and the state of the boot
 * processor.
 *
 * The chips are programmed as firmware does it, through their registers.
 */
#include <string.h>

#include "base/log.h"
#include "machine/linux_boot.h"
#include "machine/multiboot.h"
#include "machine/pc_board.h"

/* Tables in the memory that a BIOS would fill; the memory map reserves it. */
#define RSDP_AT          PC_ROM_WINDOW
#define SMBIOS_ANCHOR_AT (PC_ROM_WINDOW + 0x100u)
#define SMBIOS_AT        (PC_ROM_WINDOW + 0x200u)
#define ACPI_AT          (PC_ROM_WINDOW + 0x2000u)
#define ROM_WINDOW_END   0x100000u

#define PCI_IO_FIRST  0xc000u
#define PCI_MEM_FIRST 0xe0000000ull

/* Configuration registers (PCI 3.0, 6.1; 82441FX 3.2.18; 82371SB 2.2.6) */
enum { CFG_COMMAND = 0x04, CFG_BAR0 = 0x10, CFG_INT_LINE = 0x3c, CFG_INT_PIN = 0x3d };
enum { I440FX_PAM0 = 0x59, I440FX_PAM_COUNT = 7, PIIX3_PIRQRC = 0x60 };

static void cfg_write(struct pc *p, unsigned devfn, unsigned off, uint32_t val, unsigned size)
{
    space_write(&p->port, 0xcf8, 0x80000000u | devfn << 8 | (off & 0xfc), 4);
    space_write(&p->port, 0xcfc + (off & 3), val, size);
}

static const uint8_t pirq_irq[PIIX3_PIRQS] = {10, 10, 11, 11};

struct pci_cursor {
    uint64_t io, mem;
};

static uint64_t take(uint64_t *cursor, uint64_t size)
{
    uint64_t at = (*cursor + size - 1) & ~(size - 1);
    *cursor = at + size;
    return at;
}

/* Gives every BAR an address and tells the function its interrupt line. */
static void program_function(struct pc *p, struct pci_dev *d, struct pci_cursor *at)
{
    unsigned command = 0;
    for (unsigned n = 0; n < PCI_NUM_BARS; n++) {
        const struct pci_bar *b = &d->bar[n];
        if (!b->size)
            continue;
        uint64_t addr = take(b->port ? &at->io : &at->mem, b->size);
        cfg_write(p, d->devfn, CFG_BAR0 + 4 * n, (uint32_t)addr, 4);
        if (b->wide)
            cfg_write(p, d->devfn, CFG_BAR0 + 4 * n + 4, (uint32_t)(addr >> 32), 4);
        command |= b->port ? 1 : 2;
    }
    unsigned pin = d->cfg[CFG_INT_PIN];
    if (pin >= 1 && pin <= 4 && !d->cfg[CFG_INT_LINE])
        cfg_write(p, d->devfn, CFG_INT_LINE, pirq_irq[piix3_pirq(d->devfn, pin - 1)], 1);
    if (command)
        cfg_write(p, d->devfn, CFG_COMMAND, command, 2);
}

static void program_chips(struct pc *p)
{
    struct pci_cursor at = {PCI_IO_FIRST, max_u64(PCI_MEM_FIRST, p->low_top)};
    unsigned isa = PCI_DEVFN(PC_SLOT_ISA, 0);
    for (unsigned n = 0; n < I440FX_PAM_COUNT; n++)
        cfg_write(p, 0, I440FX_PAM0 + n, n ? 0x33 : 0x30, 1); /* RAM, read and write */
    for (unsigned n = 0; n < PIIX3_PIRQS; n++)
        cfg_write(p, isa, PIIX3_PIRQRC + n, pirq_irq[n], 1);
    space_write(&p->port, 0x4d1, 1u << (10 - 8) | 1u << (11 - 8), 1); /* PCI: level-triggered */
    piix4pm_pci_program(&p->pm_pci, ACPI_PM_BASE);
    cfg_write(p, PCI_DEVFN(PC_SLOT_ISA, 1), 0x40, 0x80008000u, 4); /* IDE: decode both channels */
    for (unsigned f = 0; f < 256; f++)
        if (p->pci.dev[f])
            program_function(p, p->pci.dev[f], &at);
    for (unsigned n = 0; n < p->spec->cpus; n++)
        lapic_set_virtual_wire(&p->lapic[n].lapic);
}

static void place_tables(struct pc *p)
{
    uint8_t *low = p->ram->host;
    memset(low + PC_ROM_WINDOW, 0, ROM_WINDOW_END - PC_ROM_WINDOW);
    memcpy(low + ACPI_AT, p->acpi.tables, p->acpi.len);
    memcpy(low + RSDP_AT, p->acpi.rsdp, sizeof p->acpi.rsdp);
    memcpy(low + SMBIOS_AT, p->smbios.tables, p->smbios.len);
    memcpy(low + SMBIOS_ANCHOR_AT, p->smbios.anchor, sizeof p->smbios.anchor);
}

int pc_boot_prepare(struct pc *p, struct error *e)
{
    if (p->acpi.len > ROM_WINDOW_END - ACPI_AT || p->smbios.len > ACPI_AT - SMBIOS_AT)
        return error_set(e, ERR_LIMIT, "the firmware tables do not fit below 1 MiB");
    smbios_place(&p->smbios, SMBIOS_AT);
    return acpi_place(&p->acpi, ACPI_AT, e);
}

static void flat_segment(struct x86_seg *s, uint16_t sel, uint32_t attr)
{
    *s = (struct x86_seg){.base = 0, .limit = 0xffffffff, .sel = sel, .attr = attr};
}

/* The entry conditions of the 64-bit and 32-bit boot protocols (Linux,
 * Documentation/arch/x86/boot); those of multiboot (3.2) are the 32-bit ones. */
static void enter(struct x86_cpu *c, const struct linux_entry *in)
{
    const uint32_t code =
        X86_ATTR_P | X86_ATTR_S | X86_ATTR_G | X86_TYPE_X | X86_TYPE_RW | X86_TYPE_A;
    const uint32_t data =
        X86_ATTR_P | X86_ATTR_S | X86_ATTR_G | X86_ATTR_DB | X86_TYPE_RW | X86_TYPE_A;
    struct x86_state *s = &c->s;
    memset(s->gpr, 0, sizeof s->gpr);
    s->gpr[X86_RAX] = in->rax;
    s->gpr[X86_RBX] = in->rbx;
    s->gpr[X86_RSI] = in->rsi;
    s->gpr[X86_RSP] = in->rsp;
    s->rip = in->rip;
    s->rflags = X86_FL_R1;
    s->gdtr = (struct x86_dtr){in->gdt_base, (uint16_t)in->gdt_limit};
    s->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE;
    flat_segment(&s->seg[X86_CS], LINUX_CS, code | (in->long_mode ? X86_ATTR_L : X86_ATTR_DB));
    static const enum x86_segreg rest[] = {X86_ES, X86_SS, X86_DS, X86_FS, X86_GS};
    for (unsigned n = 0; n < ARRAY_LEN(rest); n++)
        flat_segment(&s->seg[rest[n]], LINUX_DS, data);
    if (in->long_mode) {
        s->cr3 = in->cr3;
        s->cr4 = X86_CR4_PAE;
        s->efer = X86_EFER_LME | X86_EFER_LMA;
        s->cr0 |= X86_CR0_PG;
    }
    x86_update_mode(c);
    x86_tlb_flush_all(c);
}

int pc_boot(struct pc *p, struct x86_cpu *bsp, struct error *e)
{
    if (!p->direct)
        return 0;
    program_chips(p);
    place_tables(p);
    if (!p->spec->kernel)
        return 0; /* an empty machine: the processor runs into what lies at the reset vector */
    struct e820_entry map[8];
    const struct linux_boot in = {
        .kernel = p->spec->kernel,
        .initrd = p->spec->initrd,
        .cmdline = p->spec->cmdline,
        .e820 = map,
        .ne820 = pc_memory_map(p, false, map),
        .rsdp = RSDP_AT,
        .low_top = p->low_top,
    };
    struct linux_entry entry;
    int rc = multiboot_probe(in.kernel) ? multiboot_load(p->ram, &in, &entry, e)
                                        : linux_load(p->ram, &in, &entry, e);
    if (rc)
        return rc;
    log_info("kernel %s entered directly in %s mode at %llx, no firmware", in.kernel,
             entry.long_mode ? "long" : "protected", (unsigned long long)entry.rip);
    enter(bsp, &entry);
    return 0;
}
