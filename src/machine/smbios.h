/*
 * smbios.h - the SMBIOS tables of the PC board. Source: DMTF DSP0134, SMBIOS Reference
 * Specification 2.8.0. A 32-bit entry point, for the same two consumers as the ACPI tables:
 * firmware through fw_cfg, or a kernel booted without firmware.
 */
#ifndef SOSIA_MACHINE_SMBIOS_H
#define SOSIA_MACHINE_SMBIOS_H

#include "base/error.h"
#include "base/types.h"
#include "chip/fw_cfg.h"

#define SMBIOS_ANCHOR_LEN 31u

struct smbios_config {
    const char *name;    /* of the VM: the serial number; NULL: none */
    const char *version; /* of Sosia */
    uint8_t uuid[16];    /* as RFC 4122 writes it (big-endian fields) */
    unsigned ncpus;
    uint64_t ram_low, ram_high; /* bytes of RAM below and above 4 GiB, multiples of 1 MiB */
};

struct smbios_tables {
    uint8_t *tables;
    size_t len;
    uint8_t anchor[SMBIOS_ANCHOR_LEN];
};

/* ERR_NOMEM. */
int smbios_build(const struct smbios_config *cfg, struct smbios_tables *t, struct error *e);
void smbios_fini(struct smbios_tables *t);

/* Adds the fw_cfg files that firmware looks for. */
int smbios_publish(const struct smbios_tables *t, struct fw_cfg *fw, struct error *e);

/* Completes the anchor for tables at guest address `base`; the anchor goes on a 16-byte boundary
 * between 0xF0000 and 0xFFFFF. */
void smbios_place(struct smbios_tables *t, uint32_t base);

#endif
