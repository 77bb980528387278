/*
 * pc_firmware.c - what firmware and kernels are told about the machine: CMOS, fw_cfg, memory map,
 * ACPI, SMBIOS.
 */
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "machine/linux_boot.h"
#include "machine/pc_board.h"

/* CMOS bytes that SeaBIOS reads (its src/hw/rtc.h names them). */
enum {
    CMOS_FLOPPY = 0x10,
    CMOS_EQUIPMENT = 0x14,
    CMOS_BASE_KIB = 0x15,
    CMOS_EXT_KIB = 0x17,
    CMOS_EXT_KIB2 = 0x30,
    CMOS_ABOVE16_64K = 0x34,
    CMOS_BOOT2 = 0x38,
    CMOS_BOOT1 = 0x3d,
    CMOS_HIGH_64K = 0x5b,
    CMOS_NCPUS = 0x5f,
};

static void cmos16(struct pc *p, unsigned at, uint64_t v)
{
    uint64_t x = min_u64(v, 0xffff);
    mc146818_set_cmos(&p->rtc, at, x & 0xff);
    mc146818_set_cmos(&p->rtc, at + 1, (uint8_t)(x >> 8));
}

/* The BIOS' old way to tell the boot order: a nibble for each step. */
static uint8_t boot_nibble(const struct pc *p, unsigned k)
{
    static const uint8_t code[] = {
        [SPEC_BOOT_DISK] = 2, [SPEC_BOOT_CDROM] = 3, [SPEC_BOOT_FLOPPY] = 1};
    return k < p->spec->nboot ? code[p->spec->boot[k]] : 0;
}

void pc_cmos_fill(struct pc *p)
{
    uint64_t above16 = p->low_top > 16 * MIB ? p->low_top - 16 * MIB : 0;
    uint64_t ext = p->low_top > MIB ? p->low_top - MIB : 0;
    uint64_t high = (p->high_top - 4 * GIB) / (64 * KIB);
    cmos16(p, CMOS_BASE_KIB, 640);
    cmos16(p, CMOS_EXT_KIB, ext / KIB);
    cmos16(p, CMOS_EXT_KIB2, ext / KIB);
    cmos16(p, CMOS_ABOVE16_64K, above16 / (64 * KIB));
    for (unsigned n = 0; n < 3; n++)
        mc146818_set_cmos(&p->rtc, CMOS_HIGH_64K + n, (uint8_t)(high >> (8 * n)));
    mc146818_set_cmos(&p->rtc, CMOS_NCPUS, (uint8_t)(p->spec->cpus - 1));
    mc146818_set_cmos(&p->rtc, CMOS_FLOPPY, (uint8_t)(i82077_cmos_type(&p->fdc) << 4));
    /* one floppy drive, FPU, PS/2 mouse */
    mc146818_set_cmos(&p->rtc, CMOS_EQUIPMENT, 0x07);
    /* bit 0 of BOOT2: do not look for the floppy signature 55AA */
    mc146818_set_cmos(&p->rtc, CMOS_BOOT2, (uint8_t)(boot_nibble(p, 2) << 4 | 1));
    mc146818_set_cmos(&p->rtc, CMOS_BOOT1, (uint8_t)(boot_nibble(p, 1) << 4 | boot_nibble(p, 0)));
}

unsigned pc_memory_map(const struct pc *p, bool firmware, struct e820_entry *m)
{
    unsigned n = 0;
    if (firmware) {
        m[n++] = (struct e820_entry){0, p->low_top, E820_RAM};
    } else {
        m[n++] = (struct e820_entry){0, PC_EBDA, E820_RAM};
        m[n++] = (struct e820_entry){PC_EBDA, PC_VGA_WINDOW - PC_EBDA, E820_RESERVED};
        m[n++] = (struct e820_entry){PC_ROM_WINDOW, MIB - PC_ROM_WINDOW, E820_RESERVED};
        if (p->low_top > MIB)
            m[n++] = (struct e820_entry){MIB, p->low_top - MIB, E820_RAM};
    }
    if (p->high_top > 4 * GIB)
        m[n++] = (struct e820_entry){4 * GIB, p->high_top - 4 * GIB, E820_RAM};
    return n;
}

static int add_memory_map(struct pc *p, struct error *e)
{
    struct e820_entry m[8];
    uint8_t bytes[8 * 20];
    unsigned n = pc_memory_map(p, true, m);
    for (unsigned k = 0; k < n; k++) {
        store_le64(bytes + 20 * k, m[k].addr);
        store_le64(bytes + 20 * k + 8, m[k].size);
        store_le32(bytes + 20 * k + 16, m[k].type);
    }
    return fw_cfg_add_file(&p->fw_cfg, "etc/e820", bytes, 20 * (size_t)n, e);
}

static int add_boot_order(struct pc *p, struct error *e)
{
    char *order = pc_boot_order(p);
    if (!order)
        return error_set(e, ERR_NOMEM, "out of memory");
    int rc = fw_cfg_add_file(&p->fw_cfg, "bootorder", order, strlen(order) + 1, e);
    free(order);
    return rc;
}

static int add_items(struct pc *p, struct error *e)
{
    struct fw_cfg *f = &p->fw_cfg;
    uint8_t irq0 = 1, max_cpus[2], fail_wait[4];
    store_le16(max_cpus, (uint16_t)p->spec->cpus);
    store_le32(fail_wait, ~0u); /* SeaBIOS: do not reboot when nothing boots */
    int rc = fw_cfg_add_u64(f, FW_CFG_RAM_SIZE, p->ram->ram_size, e);
    if (!rc)
        rc = fw_cfg_add_u16(f, FW_CFG_NB_CPUS, (uint16_t)p->spec->cpus, e);
    if (!rc)
        rc = fw_cfg_add_u16(f, FW_CFG_MAX_CPUS, (uint16_t)p->spec->cpus, e);
    if (!rc)
        rc = fw_cfg_add_u16(f, FW_CFG_NOGRAPHIC, p->spec->serial == SPEC_SERIAL_TERMINAL, e);
    if (!rc)
        rc = fw_cfg_add_u16(f, FW_CFG_BOOT_MENU, 0, e);
    if (!rc)
        rc = fw_cfg_add(f, FW_CFG_IRQ0_OVERRIDE, &irq0, 1, e);
    if (!rc)
        rc = fw_cfg_add_file(f, "etc/max-cpus", max_cpus, 2, e);
    if (!rc)
        rc = fw_cfg_add_file(f, "etc/boot-fail-wait", fail_wait, sizeof fail_wait, e);
    return rc;
}

/* Without a catalog a VM has no identity of its own: the same name gives the same UUID (RFC 9562,
 * version 8). */
static void uuid_of(const char *name, uint8_t uuid[16])
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    for (unsigned half = 0; half < 2; half++) {
        for (const char *c = name; c && *c; c++)
            h = (h ^ (uint8_t)*c) * 0x100000001b3u;
        h = (h ^ half) * 0x100000001b3u;
        store_be64(uuid + 8 * half, h);
    }
    uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static int build_smbios(struct pc *p, struct error *e)
{
    struct smbios_config cfg = {
        .name = p->spec->name,
        .version = "1",
        .ncpus = p->spec->cpus,
        .ram_low = p->low_top,
        .ram_high = p->high_top - 4 * GIB,
    };
    uuid_of(p->spec->name, cfg.uuid);
    return smbios_build(&cfg, &p->smbios, e);
}

int pc_firmware_init(struct pc *p, struct error *e)
{
    const struct acpi_config acpi = {
        .ncpus = p->spec->cpus,
        .devices = ACPI_COM1 | ACPI_COM2 | ACPI_FDC | ACPI_HPET | ACPI_PS2,
        .pci_first = (uint32_t)p->low_top,
        .pci_last = (uint32_t)PC_HOLE_END,
        .pci64_first = (p->high_top + GIB - 1) & ~(GIB - 1),
        .pci64_last = ((p->high_top + GIB - 1) & ~(GIB - 1)) + PC_PCI64_SIZE - 1,
    };
    int rc = acpi_build(&acpi, &p->acpi, e);
    if (!rc)
        rc = build_smbios(p, e);
    if (rc)
        return rc;
    rc = add_items(p, e); /* kernels that know the interface may ask, too */
    if (p->direct)
        return rc ? rc : pc_boot_prepare(p, e);
    if (!rc)
        rc = add_memory_map(p, e);
    if (!rc)
        rc = add_boot_order(p, e);
    if (!rc)
        rc = acpi_publish(&p->acpi, &p->fw_cfg, e);
    if (!rc)
        rc = smbios_publish(&p->smbios, &p->fw_cfg, e);
    return rc;
}
