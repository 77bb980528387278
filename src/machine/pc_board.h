/*
 * pc_board.h - the board's parts, shared by the pc*.c files.
 */
#ifndef SOSIA_MACHINE_PC_BOARD_H
#define SOSIA_MACHINE_PC_BOARD_H

#include "chip/apic_bus.h"
#include "chip/debugport.h"
#include "chip/fw_cfg.h"
#include "chip/hpet.h"
#include "chip/i8042.h"
#include "chip/i82077.h"
#include "chip/i8237.h"
#include "chip/i8254.h"
#include "chip/i8259.h"
#include "chip/ioapic.h"
#include "chip/lapic.h"
#include "chip/mc146818.h"
#include "chip/ns16550.h"
#include "chip/port61.h"
#include "chip/port92.h"
#include "chip/testdev.h"
#include "machine/acpi.h"
#include "machine/pc.h"
#include "machine/smbios.h"
#include "pci/ahci_pci.h"
#include "pci/i440fx.h"
#include "pci/nvme_pci.h"
#include "pci/piix3.h"
#include "pci/piix3_ide.h"
#include "pci/piix4pm_pci.h"
#include "pci/vga_pci.h"
#include "virtio/virtio_blk.h"
#include "virtio/virtio_console.h"
#include "virtio/virtio_pci.h"
#include "virtio/virtio_rng.h"
#include "virtio/virtio_scsi.h"

/* Address map */
#define PC_RAM_BELOW_HOLE 0xc0000000ull /* RAM below 4 GiB ends here at the latest */
#define PC_HOLE_END       0xfebfffffull /* PCI memory window: from the end of RAM to here */
#define PC_PCI64_SIZE     (64 * GIB)
#define PC_VGA_WINDOW     0xa0000u
#define PC_EBDA           0x9fc00u
#define PC_ROM_WINDOW     0xe0000u

/* Slots */
#define PC_SLOT_ISA     1 /* functions: 0 bridge, 1 IDE, 3 power management */
#define PC_SLOT_VGA     2
#define PC_SLOT_CONSOLE 3
#define PC_SLOT_RNG     4
#define PC_SLOT_DISK    5 /* the first disk or controller that the spec asks for; others follow */

#define PC_IDE_PLACES 4

/* One interrupt line of the ISA bus: what drives it. */
struct pc_line {
    struct pc *pc;
    bool isa, pci, hpet;
};

struct pc_lapic {
    struct pc *pc;
    unsigned index;
    struct lapic lapic;
};

struct pc_virtio_disk {
    struct virtio_blk dev;
    struct virtio_pci fn;
    bool present;
};

struct pc_disk_place { /* where a disk of the spec ended up */
    enum spec_bus bus;
    unsigned slot; /* PCI: the disk's own, or its controller's */
    unsigned unit; /* ide: 2 * channel + drive; ahci: port; scsi: target */
};

struct pc {
    struct pc_config cfg;
    const struct spec *spec;
    struct ram *ram;
    struct timerq *tq;
    struct pc_host host;
    uint64_t low_top, high_top; /* end of RAM below 4 GiB, and above (4 GiB if there is none) */
    bool direct;                /* a kernel is loaded without firmware */

    struct space mem, port;
    struct apic_bus apic_bus;
    struct pc_lapic lapic[APIC_BUS_MAX_CPUS];
    struct kvm_pv kvm_pv;
    struct ioapic ioapic;
    struct i8259 pic;
    struct i8254 pit;
    struct port61 port61;
    struct hpet hpet;
    struct mc146818 rtc;
    struct i8042 kbc;
    struct port92 port92;
    struct post_latch post;
    struct debugport debug;
    struct ns16550 uart[PC_NSERIAL];
    struct i8237 dma;
    struct i82077 fdc;
    struct fw_cfg fw_cfg;
    struct testdev testdev; /* with `testdev: true` only */
    struct pc_line line[16];
    bool hpet_legacy; /* the HPET has taken IRQ0 and IRQ8 from the i8254 and the RTC */

    struct pci_bus pci;
    struct i440fx host_bridge;
    struct piix3 isa_bridge;
    struct piix3_ide ide;
    struct piix4pm pm;
    struct piix4pm_pci pm_pci;
    struct vga vga;
    struct vga_pci vga_pci;
    struct virtio_rng rng;
    struct virtio_console console;
    struct virtio_pci rng_fn, console_fn;
    struct pc_virtio_disk vdisk[SPEC_MAX_DISKS];
    struct virtio_scsi scsi; /* with disks on it only */
    struct virtio_pci scsi_fn;
    struct nvme_pci nvme[SPEC_MAX_DISKS]; /* by disk; those on other buses are unused */
    struct ahci_pci ahci;                 /* with disks on it only */
    struct pc_disk_place place[SPEC_MAX_DISKS];
    struct pc_disk_place cd_place;

    struct acpi_tables acpi;
    struct smbios_tables smbios;
};

/* pc.c: every chip with fixed addresses, in the order in which they are reset. */
struct pc_part {
    const struct chip_desc *desc;
    void *dev;
};
#define PC_MAX_PARTS 24
unsigned pc_parts_of(struct pc *p, struct pc_part *t); /* how many */

/* pc_irq.c: interrupt lines */
void pc_irq_init(struct pc *p);
struct pin pc_isa_pin(struct pc *p, unsigned irq);
void pc_pci_irq(void *ctx, unsigned irq, bool level); /* piix3.set_irq */
struct hpet_wiring pc_hpet_wiring(struct pc *p);
int pc_lapics_init(struct pc *p, struct error *e);

/* pc_disks.c: who sits where */
int pc_disks_init(struct pc *p, struct error *e);
void pc_disks_fini(struct pc *p);
/* The boot order as OpenFirmware paths, one a line; the caller frees. NULL: out of memory. */
char *pc_boot_order(const struct pc *p);

/* pc_firmware.c: what firmware and kernels are told about the machine */
int pc_firmware_init(struct pc *p, struct error *e);
void pc_cmos_fill(struct pc *p); /* after every reset */
/* RAM only (firmware adds what it reserves), or as a kernel without firmware needs it. `m` has room
 * for 8; returns how many. */
struct e820_entry;
unsigned pc_memory_map(const struct pc *p, bool firmware, struct e820_entry *m);

/* pc_boot.c: without firmware. Once, after the tables are built. */
int pc_boot_prepare(struct pc *p, struct error *e);

#endif
