/*
 * acpi.h - the ACPI tables of the PC board. Source: ACPI specification 2.0c (FADT, MADT, RSDP),
 * HPET specification 1.0a 3.2.4, Microsoft's WAET document.
 *
 * One builder, two consumers. The tables are built with zeroes where addresses go, next to a linker
 * script (QEMU's "etc/table-loader" protocol) that says which pointers and checksums to fill in.
 * Firmware gets both through fw_cfg and places the tables itself; for a kernel booted without
 * firmware acpi_place() executes the same script.
 */
#ifndef SOSIA_MACHINE_ACPI_H
#define SOSIA_MACHINE_ACPI_H

#include "base/error.h"
#include "base/types.h"
#include "chip/fw_cfg.h"

/* Where the PM block lies once firmware (or the board in its stead) has programmed the PIIX4.
 * SeaBIOS uses this address when it is given a table loader; the tables and the DSDT repeat it. */
#define ACPI_PM_BASE  0x600u
#define ACPI_SCI_IRQ  9u
#define ACPI_MAX_CPUS 32u

/* Optional devices of the board. */
enum acpi_devices {
    ACPI_COM1 = 1u << 0,
    ACPI_COM2 = 1u << 1,
    ACPI_FDC = 1u << 2,
    ACPI_HPET = 1u << 3,
    ACPI_PS2 = 1u << 4,
};

struct acpi_config {
    unsigned ncpus;                   /* 1..ACPI_MAX_CPUS; APIC ID = number */
    uint32_t devices;                 /* ACPI_* */
    uint32_t pci_first, pci_last;     /* 32-bit PCI memory window, inclusive */
    uint64_t pci64_first, pci64_last; /* 64-bit window; last < first: none */
};

#define ACPI_RSDP_LEN 36u
#define ACPI_ALIGN    64u /* of the tables' address: the FACS is first */

struct acpi_tables {
    uint8_t *tables;
    size_t len;
    uint8_t rsdp[ACPI_RSDP_LEN];
    uint8_t *loader; /* entries of 128 bytes */
    size_t loader_len;
};

/* ERR_LIMIT for a bad configuration, ERR_NOMEM. */
int acpi_build(const struct acpi_config *cfg, struct acpi_tables *t, struct error *e);
void acpi_fini(struct acpi_tables *t);

/* Adds the fw_cfg files that SeaBIOS, OVMF look for. */
int acpi_publish(const struct acpi_tables *t, struct fw_cfg *fw, struct error *e);

/* Fills in pointers and checksums for tables at guest address `base` (a multiple of ACPI_ALIGN,
 * below 4 GiB). Afterwards t->tables and t->rsdp are what the guest must find; the RSDP goes on a
 * 16-byte boundary between 0xE0000 and 0xFFFFF. To be called once. */
int acpi_place(struct acpi_tables *t, uint32_t base, struct error *e);

#endif
