/*
 * smbios.c - builds the SMBIOS structures.
 */
#include "machine/smbios.h"

#include <string.h>

#include "machine/acpi_buf.h"

#define HANDLE_NONE    0xffffu
#define HANDLE_NO_INFO 0xfffeu /* no error information is provided */
#define HANDLE_ARRAY   0x1000u

/* ---- structures: a formatted area, then strings, then an empty string (6.1) ---- */

#define MAX_STRINGS 8

struct builder {
    struct acpi_buf out;
    size_t start; /* of the structure being built */
    const char *string[MAX_STRINGS];
    unsigned nstring;
    unsigned count;
    size_t largest;
};

static void begin(struct builder *b, uint8_t type, uint16_t handle)
{
    b->start = b->out.len;
    b->nstring = 0;
    acpi_buf_num(&b->out, type, 1);
    acpi_buf_num(&b->out, 0, 1); /* length: end() */
    acpi_buf_num(&b->out, handle, 2);
}

static void num(struct builder *b, uint64_t v, unsigned size)
{
    acpi_buf_num(&b->out, v, size);
}

/* A string field holds the string's number, or 0 for none. */
static void text(struct builder *b, const char *s)
{
    if (!s || !*s || b->nstring == MAX_STRINGS) {
        num(b, 0, 1);
        return;
    }
    b->string[b->nstring++] = s;
    num(b, b->nstring, 1);
}

static void end(struct builder *b)
{
    acpi_buf_set(&b->out, b->start + 1, b->out.len - b->start, 1);
    for (unsigned i = 0; i < b->nstring; i++)
        acpi_buf_put(&b->out, b->string[i], strlen(b->string[i]) + 1);
    acpi_buf_zero(&b->out, b->nstring ? 1 : 2);
    b->largest = max_u64(b->largest, b->out.len - b->start);
    b->count++;
}

/* 7.1 */
static void bios(struct builder *b, const struct smbios_config *cfg)
{
    begin(b, 0, 0);
    text(b, "Sosia");
    text(b, cfg->version);
    num(b, 0xe800, 2);            /* starting segment */
    text(b, "01/01/2024");        /* release date */
    num(b, 0, 1);                 /* ROM size: 64 KiB */
    num(b, 1u << 3, 8);           /* characteristics: not given */
    num(b, 0x01, 1);              /* ACPI */
    num(b, 1u << 2 | 1u << 4, 1); /* targeted content; the table describes a virtual machine */
    num(b, 0, 1);                 /* system BIOS release 0.0 */
    num(b, 0, 1);
    num(b, 0xff, 1); /* no embedded controller */
    num(b, 0xff, 1);
    end(b);
}

/* The first three fields of a UUID are little-endian here (7.2.1). */
static void uuid(struct builder *b, const uint8_t u[16])
{
    num(b, load_be32(u), 4);
    num(b, load_be16(u + 4), 2);
    num(b, load_be16(u + 6), 2);
    acpi_buf_put(&b->out, u + 8, 8);
}

/* 7.2 */
static void system_info(struct builder *b, const struct smbios_config *cfg)
{
    begin(b, 1, 0x100);
    text(b, "Sosia");
    text(b, "Sosia PC (i440FX + PIIX, 1996)");
    text(b, cfg->version);
    text(b, cfg->name);
    uuid(b, cfg->uuid);
    num(b, 6, 1); /* woken up by the power switch */
    text(b, NULL);
    text(b, "Virtual Machine");
    end(b);
}

/* 7.4 */
static void chassis(struct builder *b, const struct smbios_config *cfg)
{
    begin(b, 3, 0x300);
    text(b, "Sosia");
    num(b, 1, 1); /* type: other */
    text(b, cfg->version);
    text(b, NULL); /* serial number */
    text(b, NULL); /* asset tag */
    num(b, 3, 1);  /* boot-up, power supply and thermal state: safe */
    num(b, 3, 1);
    num(b, 3, 1);
    num(b, 2, 1); /* security: unknown */
    num(b, 0, 4);
    num(b, 0, 1); /* height, power cords, contained elements: not given */
    num(b, 0, 1);
    num(b, 0, 1);
    num(b, 0, 1);
    text(b, NULL); /* SKU */
    end(b);
}

/* 7.5: one package with a core for each vCPU. */
static void processor(struct builder *b, const struct smbios_config *cfg)
{
    begin(b, 4, 0x400);
    text(b, "CPU 0");
    num(b, 3, 1); /* central processor */
    num(b, 1, 1); /* family: other */
    text(b, "Sosia");
    num(b, 0, 8); /* ID: ask CPUID */
    text(b, cfg->version);
    num(b, 0, 1); /* voltage, clock, maximum and current speed: unknown */
    num(b, 0, 2);
    num(b, 0, 2);
    num(b, 0, 2);
    num(b, 0x41, 1);        /* populated, enabled */
    num(b, 1, 1);           /* upgrade: other */
    num(b, HANDLE_NONE, 2); /* L1, L2, L3 */
    num(b, HANDLE_NONE, 2);
    num(b, HANDLE_NONE, 2);
    text(b, NULL); /* serial number, asset tag, part number */
    text(b, NULL);
    text(b, NULL);
    num(b, cfg->ncpus, 1); /* cores, enabled cores, threads */
    num(b, cfg->ncpus, 1);
    num(b, cfg->ncpus, 1);
    num(b, 1u << 2, 2); /* 64-bit capable */
    num(b, 1, 2);       /* family 2: other */
    end(b);
}

/* 7.17. The capacity is in KiB, or from 2 TiB on in bytes in another field. */
static void memory_array(struct builder *b, uint64_t bytes)
{
    bool large = bytes >= 2048 * GIB;
    begin(b, 16, HANDLE_ARRAY);
    num(b, 1, 1); /* location: other */
    num(b, 3, 1); /* use: system memory */
    num(b, 6, 1); /* error correction: multi-bit ECC */
    num(b, large ? 0x80000000 : bytes / KIB, 4);
    num(b, HANDLE_NO_INFO, 2);
    num(b, 1, 2); /* devices */
    num(b, large ? bytes : 0, 8);
    end(b);
}

/* 7.18. The size is in MiB, with more than 15 bits in another field. */
static void memory_device(struct builder *b, uint64_t bytes)
{
    uint64_t mib = bytes / MIB;
    begin(b, 17, 0x1100);
    num(b, HANDLE_ARRAY, 2);
    num(b, HANDLE_NO_INFO, 2);
    num(b, 0xffff, 2); /* total and data width: unknown */
    num(b, 0xffff, 2);
    num(b, mib < 0x7fff ? mib : 0x7fff, 2);
    num(b, 9, 1); /* form factor: DIMM */
    num(b, 0, 1); /* device set: none */
    text(b, "DIMM 0");
    text(b, NULL);      /* bank */
    num(b, 7, 1);       /* type: RAM */
    num(b, 1u << 1, 2); /* type detail: other */
    num(b, 0, 2);       /* speed: unknown */
    text(b, "Sosia");
    text(b, NULL); /* serial number, asset tag, part number */
    text(b, NULL);
    text(b, NULL);
    num(b, 0, 1); /* rank: unknown */
    num(b, mib < 0x7fff ? 0 : mib, 4);
    num(b, 0, 2); /* configured speed, voltages: unknown */
    num(b, 0, 2);
    num(b, 0, 2);
    num(b, 0, 2);
    end(b);
}

/* 7.20: [first, first + bytes) of the address space. */
static void mapped_address(struct builder *b, unsigned n, uint64_t first, uint64_t bytes)
{
    uint64_t last = first + bytes - 1;
    bool large = last / KIB >= 0xffffffff;
    begin(b, 19, (uint16_t)(0x1300 + n));
    num(b, large ? 0xffffffff : first / KIB, 4);
    num(b, large ? 0xffffffff : last / KIB, 4);
    num(b, HANDLE_ARRAY, 2);
    num(b, 1, 1); /* partition width */
    num(b, large ? first : 0, 8);
    num(b, large ? last : 0, 8);
    end(b);
}

/* 7.33 */
static void boot_info(struct builder *b)
{
    begin(b, 32, 0x2000);
    num(b, 0, 4); /* reserved, 6 bytes */
    num(b, 0, 2);
    num(b, 0, 1); /* no errors */
    end(b);
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;
    while (len--)
        s += *p++;
    return s;
}

/* 5.2.1. Firmware and smbios_place() fill in the address and both checksums. */
static void make_anchor(struct smbios_tables *t, const struct builder *b)
{
    uint8_t *a = t->anchor;
    memcpy(a, "_SM_", 4);
    a[5] = SMBIOS_ANCHOR_LEN;
    a[6] = 2; /* version 2.8 */
    a[7] = 8;
    store_le16(a + 8, (uint16_t)b->largest);
    memcpy(a + 16, "_DMI_", 5);
    store_le16(a + 22, (uint16_t)t->len);
    store_le16(a + 28, (uint16_t)b->count);
    a[30] = 0x28;
    smbios_place(t, 0);
}

int smbios_build(const struct smbios_config *cfg, struct smbios_tables *t, struct error *e)
{
    struct builder b = {.count = 0};
    memset(t, 0, sizeof *t);
    if (!cfg->ncpus || cfg->ncpus > 255 || (cfg->name && strlen(cfg->name) > 1024))
        return error_set(e, ERR_LIMIT, "SMBIOS: %u processors, or too long a name", cfg->ncpus);
    bios(&b, cfg);
    system_info(&b, cfg);
    chassis(&b, cfg);
    processor(&b, cfg);
    memory_array(&b, cfg->ram_low + cfg->ram_high);
    memory_device(&b, cfg->ram_low + cfg->ram_high);
    mapped_address(&b, 0, 0, cfg->ram_low);
    if (cfg->ram_high)
        mapped_address(&b, 1, 4 * GIB, cfg->ram_high);
    boot_info(&b);
    begin(&b, 127, 0x7f00); /* end of table */
    end(&b);
    t->tables = b.out.data;
    t->len = b.out.len;
    if (b.out.failed) {
        smbios_fini(t);
        return error_set(e, ERR_NOMEM, "no memory for the SMBIOS tables");
    }
    make_anchor(t, &b);
    return 0;
}

void smbios_fini(struct smbios_tables *t)
{
    free(t->tables);
    memset(t, 0, sizeof *t);
}

int smbios_publish(const struct smbios_tables *t, struct fw_cfg *fw, struct error *e)
{
    int rc = fw_cfg_add_file(fw, "etc/smbios/smbios-tables", t->tables, t->len, e);
    if (!rc)
        rc = fw_cfg_add_file(fw, "etc/smbios/smbios-anchor", t->anchor, sizeof t->anchor, e);
    return rc;
}

void smbios_place(struct smbios_tables *t, uint32_t base)
{
    uint8_t *a = t->anchor;
    store_le32(a + 24, base);
    a[21] = a[4] = 0;
    a[21] = (uint8_t)-sum(a + 16, 15);
    a[4] = (uint8_t)-sum(a, SMBIOS_ANCHOR_LEN);
}
