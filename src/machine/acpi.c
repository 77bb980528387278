/*
 * acpi.c - builds the ACPI tables and their linker script.
 */
#define _GNU_SOURCE /* memmem() */
#include "machine/acpi.h"

#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "chip/hpet.h"
#include "chip/ioapic.h"
#include "chip/lapic.h"
#include "chip/piix4pm.h"
#include "machine/acpi_buf.h"
#include "machine/dsdt.h"

#define FILE_TABLES "etc/acpi/tables"
#define FILE_RSDP   "etc/acpi/rsdp"
#define FILE_LOADER "etc/table-loader"

#define HEADER_LEN   36u
#define OFF_LENGTH   4u
#define OFF_CHECKSUM 9u

/* ---- the linker script: entries of 128 bytes, little-endian ---- */

enum { LINK_ALLOCATE = 1, LINK_POINTER = 2, LINK_CHECKSUM = 3 };
enum { ZONE_HIGH = 1, ZONE_FSEG = 2 };

#define LINK_LEN  128u
#define LINK_NAME 56u /* of a file, NUL-padded */

struct builder {
    struct acpi_buf tables, loader;
    bool bad_dsdt; /* a number to replace was not found */
};

static size_t link_entry(struct builder *b, unsigned cmd, const char *file)
{
    size_t off = acpi_buf_zero(&b->loader, LINK_LEN);
    acpi_buf_set(&b->loader, off, cmd, 4);
    if (!b->loader.failed)
        memcpy(b->loader.data + off + 4, file, strlen(file));
    return off + 4 + LINK_NAME;
}

static void link_allocate(struct builder *b, const char *file, uint32_t align, unsigned zone)
{
    size_t arg = link_entry(b, LINK_ALLOCATE, file);
    acpi_buf_set(&b->loader, arg, align, 4);
    acpi_buf_set(&b->loader, arg + 4, zone, 1);
}

/* Adds the address of the tables to the `size` bytes at `off` of `file`, which hold an offset. */
static void link_pointer(struct builder *b, const char *file, size_t off, unsigned size)
{
    size_t arg = link_entry(b, LINK_POINTER, file);
    if (!b->loader.failed)
        memcpy(b->loader.data + arg, FILE_TABLES, sizeof FILE_TABLES);
    acpi_buf_set(&b->loader, arg + LINK_NAME, off, 4);
    acpi_buf_set(&b->loader, arg + LINK_NAME + 4, size, 1);
}

static void link_checksum(struct builder *b, const char *file, size_t off, size_t start, size_t len)
{
    size_t arg = link_entry(b, LINK_CHECKSUM, file);
    acpi_buf_set(&b->loader, arg, off, 4);
    acpi_buf_set(&b->loader, arg + 4, start, 4);
    acpi_buf_set(&b->loader, arg + 8, len, 4);
}

/* A pointer within the tables, to offset `target`. */
static void table_pointer(struct builder *b, size_t off, size_t target, unsigned size)
{
    acpi_buf_set(&b->tables, off, target, size);
    link_pointer(b, FILE_TABLES, off, size);
}

/* ---- system description table headers ---- */

static size_t table_begin(struct builder *b, const char *signature, uint8_t revision)
{
    acpi_buf_align(&b->tables, 8);
    size_t off = b->tables.len;
    acpi_buf_put(&b->tables, signature, 4);
    acpi_buf_num(&b->tables, 0, 4); /* length: table_end() */
    acpi_buf_num(&b->tables, revision, 1);
    acpi_buf_num(&b->tables, 0, 1); /* checksum: the linker */
    acpi_buf_put(&b->tables, "SOSIA SOSIAPC ", 14);
    acpi_buf_num(&b->tables, 1, 4);
    acpi_buf_put(&b->tables, "SOSI", 4);
    acpi_buf_num(&b->tables, 1, 4);
    return off;
}

static void table_end(struct builder *b, size_t off)
{
    size_t len = b->tables.len - off;
    acpi_buf_set(&b->tables, off + OFF_LENGTH, len, 4);
    link_checksum(b, FILE_TABLES, off + OFF_CHECKSUM, off, len);
}

/* ---- tables ---- */

/* ACPI 2.0c, 5.2.9. It has no checksum. */
static size_t build_facs(struct builder *b)
{
    size_t off = acpi_buf_zero(&b->tables, 64);
    if (!b->tables.failed)
        memcpy(b->tables.data + off, "FACS", 4);
    acpi_buf_set(&b->tables, off + 4, 64, 4);
    acpi_buf_set(&b->tables, off + 32, 1, 1); /* version */
    return off;
}

/* Gives a number of the DSDT its value: NameOp, name, DWordPrefix, 4 bytes. False: not there. */
static bool dsdt_set(uint8_t *aml, size_t len, const char *name, uint32_t v)
{
    uint8_t pattern[6] = {0x08, 0, 0, 0, 0, 0x0c};
    memcpy(pattern + 1, name, 4);
    uint8_t *p = memmem(aml, len, pattern, sizeof pattern);
    if (!p || (size_t)(p - aml) + sizeof pattern + 4 > len)
        return false;
    store_le32(p + sizeof pattern, v);
    return true;
}

static size_t build_dsdt(struct builder *b, const struct acpi_config *cfg)
{
    const struct {
        const char *name;
        uint32_t v;
    } number[] = {
        {"PWLO", cfg->pci_first},
        {"PWHI", cfg->pci_last},
        {"PQLL", (uint32_t)cfg->pci64_first},
        {"PQLH", (uint32_t)(cfg->pci64_first >> 32)},
        {"PQHL", (uint32_t)cfg->pci64_last},
        {"PQHH", (uint32_t)(cfg->pci64_last >> 32)},
        {"OPTD", cfg->devices},
    };
    size_t len, off;
    const uint8_t *aml = dsdt_aml(&len);
    acpi_buf_align(&b->tables, 8);
    off = b->tables.len;
    acpi_buf_put(&b->tables, aml, len);
    for (unsigned i = 0; i < ARRAY_LEN(number) && !b->tables.failed; i++)
        b->bad_dsdt |= !dsdt_set(b->tables.data + off, len, number[i].name, number[i].v);
    acpi_buf_set(&b->tables, off + OFF_CHECKSUM, 0, 1);
    link_checksum(b, FILE_TABLES, off + OFF_CHECKSUM, off, len);
    return off;
}

/* Generic address structure (5.2.3.1) of a port. */
static void set_gas(struct builder *b, size_t off, uint16_t port, uint8_t bits)
{
    acpi_buf_set(&b->tables, off, 1, 1);
    acpi_buf_set(&b->tables, off + 1, bits, 1);
    acpi_buf_set(&b->tables, off + 4, port, 8);
}

/* FADT revision 3 (5.2.8): offsets of the fields that are not zero. */
enum {
    FADT_FACS = 36,
    FADT_DSDT = 40,
    FADT_PROFILE = 45,
    FADT_SCI_INT = 46,
    FADT_SMI_CMD = 48,
    FADT_ACPI_ENABLE = 52,
    FADT_ACPI_DISABLE = 53,
    FADT_PM1A_EVT = 56,
    FADT_PM1A_CNT = 64,
    FADT_PM_TMR = 76,
    FADT_GPE0 = 80,
    FADT_PM1_EVT_LEN = 88,
    FADT_PM1_CNT_LEN = 89,
    FADT_PM_TMR_LEN = 91,
    FADT_GPE0_LEN = 92,
    FADT_LVL2_LAT = 96,
    FADT_LVL3_LAT = 98,
    FADT_CENTURY = 108,
    FADT_BOOT_ARCH = 109,
    FADT_FLAGS = 112,
    FADT_RESET_REG = 116,
    FADT_RESET_VALUE = 128,
    FADT_X_DSDT = 140,
    FADT_X_PM1A_EVT = 148,
    FADT_X_PM1A_CNT = 172,
    FADT_X_PM_TMR = 208,
    FADT_X_GPE0 = 220,
    FADT_LEN = 244,
};

#define FADT_WBINVD     (1u << 0)
#define FADT_PROC_C1    (1u << 2)
#define FADT_SLP_BUTTON (1u << 5) /* set: there is no sleep button as a fixed feature */
#define FADT_FIX_RTC    (1u << 6) /* set: RTC wake-up is not a fixed feature */
#define FADT_RESET_SUP  (1u << 10)

#define BOOT_LEGACY 1u
#define BOOT_8042   2u

#define RTC_CENTURY     0x32u
#define PORT_RESET      0xcf9u
#define RESET_VALUE     0x06u   /* PIIX3 reset control: hard reset, RCPU */
#define LATENCY_NONE    0x0fffu /* above 100 / 1000 us: C2 and C3 do not exist */
#define PROFILE_DESKTOP 1u

static void fadt_registers(struct builder *b, size_t off)
{
    static const struct {
        uint16_t reg, field, xfield, len_field;
        uint8_t len;
    } map[] = {
        {PIIX4PM_STS, FADT_PM1A_EVT, FADT_X_PM1A_EVT, FADT_PM1_EVT_LEN, 4},
        {PIIX4PM_CNT, FADT_PM1A_CNT, FADT_X_PM1A_CNT, FADT_PM1_CNT_LEN, 2},
        {PIIX4PM_TMR, FADT_PM_TMR, FADT_X_PM_TMR, FADT_PM_TMR_LEN, 4},
        {PIIX4PM_GPSTS, FADT_GPE0, FADT_X_GPE0, FADT_GPE0_LEN, 4},
    };
    for (unsigned i = 0; i < ARRAY_LEN(map); i++) {
        uint16_t port = (uint16_t)(ACPI_PM_BASE + map[i].reg);
        acpi_buf_set(&b->tables, off + map[i].field, port, 4);
        acpi_buf_set(&b->tables, off + map[i].len_field, map[i].len, 1);
        set_gas(b, off + map[i].xfield, port, (uint8_t)(8 * map[i].len));
    }
}

static size_t build_fadt(struct builder *b, const struct acpi_config *cfg, size_t facs, size_t dsdt)
{
    struct acpi_buf *t = &b->tables;
    size_t off = table_begin(b, "FACP", 3);
    acpi_buf_zero(t, FADT_LEN - HEADER_LEN);
    table_pointer(b, off + FADT_FACS, facs, 4);
    table_pointer(b, off + FADT_DSDT, dsdt, 4);
    table_pointer(b, off + FADT_X_DSDT, dsdt, 8);
    acpi_buf_set(t, off + FADT_PROFILE, PROFILE_DESKTOP, 1);
    acpi_buf_set(t, off + FADT_SCI_INT, ACPI_SCI_IRQ, 2);
    acpi_buf_set(t, off + FADT_SMI_CMD, PIIX4PM_APMC, 4);
    acpi_buf_set(t, off + FADT_ACPI_ENABLE, PIIX4PM_ACPI_ENABLE, 1);
    acpi_buf_set(t, off + FADT_ACPI_DISABLE, PIIX4PM_ACPI_DISABLE, 1);
    fadt_registers(b, off);
    acpi_buf_set(t, off + FADT_LVL2_LAT, LATENCY_NONE, 2);
    acpi_buf_set(t, off + FADT_LVL3_LAT, LATENCY_NONE, 2);
    acpi_buf_set(t, off + FADT_CENTURY, RTC_CENTURY, 1);
    acpi_buf_set(t, off + FADT_BOOT_ARCH, BOOT_LEGACY | (cfg->devices & ACPI_PS2 ? BOOT_8042 : 0),
                 2);
    acpi_buf_set(t, off + FADT_FLAGS,
                 FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC | FADT_RESET_SUP, 4);
    set_gas(b, off + FADT_RESET_REG, PORT_RESET, 8);
    acpi_buf_set(t, off + FADT_RESET_VALUE, RESET_VALUE, 1);
    table_end(b, off);
    return off;
}

/* MADT structures, 5.2.10. */
enum { MADT_LAPIC = 0, MADT_IOAPIC = 1, MADT_OVERRIDE = 2, MADT_LOCAL_NMI = 4 };

static void madt_override(struct acpi_buf *t, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    acpi_buf_num(t, MADT_OVERRIDE, 1);
    acpi_buf_num(t, 10, 1);
    acpi_buf_num(t, 0, 1); /* bus: ISA */
    acpi_buf_num(t, irq, 1);
    acpi_buf_num(t, gsi, 4);
    acpi_buf_num(t, flags, 2);
}

/* The i8254 is wired to I/O APIC pin 2. The PIRQ lines and the SCI come in on the pins of their ISA
 * interrupts; they are level-triggered and active high. */
static void madt_overrides(struct acpi_buf *t)
{
    static const uint8_t level[] = {5, ACPI_SCI_IRQ, 10, 11};
    madt_override(t, 0, 2, 0);
    for (unsigned i = 0; i < ARRAY_LEN(level); i++)
        madt_override(t, level[i], level[i], 0x000d);
}

static size_t build_madt(struct builder *b, const struct acpi_config *cfg)
{
    struct acpi_buf *t = &b->tables;
    size_t off = table_begin(b, "APIC", 1);
    acpi_buf_num(t, LAPIC_BASE, 4);
    acpi_buf_num(t, 1, 4); /* PCAT_COMPAT: there is an 8259 pair too */
    for (unsigned n = 0; n < cfg->ncpus; n++) {
        acpi_buf_num(t, MADT_LAPIC, 1);
        acpi_buf_num(t, 8, 1);
        acpi_buf_num(t, n, 1); /* processor ID */
        acpi_buf_num(t, n, 1); /* APIC ID */
        acpi_buf_num(t, 1, 4); /* enabled */
    }
    acpi_buf_num(t, MADT_IOAPIC, 1);
    acpi_buf_num(t, 12, 1);
    acpi_buf_num(t, 0, 2); /* ID, reserved */
    acpi_buf_num(t, IOAPIC_BASE, 4);
    acpi_buf_num(t, 0, 4); /* first GSI */
    madt_overrides(t);
    acpi_buf_num(t, MADT_LOCAL_NMI, 1);
    acpi_buf_num(t, 6, 1);
    acpi_buf_num(t, 0xff, 1); /* all processors */
    acpi_buf_num(t, 0, 2);
    acpi_buf_num(t, 1, 1); /* LINT1 */
    table_end(b, off);
    return off;
}

static size_t build_hpet(struct builder *b)
{
    struct acpi_buf *t = &b->tables;
    size_t off = table_begin(b, "HPET", 1);
    acpi_buf_num(t, HPET_CAP_ID, 4);
    acpi_buf_num(t, 0, 4); /* generic address: memory */
    acpi_buf_num(t, HPET_BASE, 8);
    acpi_buf_num(t, 0, 1); /* sequence number */
    acpi_buf_num(t, 0, 2); /* minimum tick: none */
    acpi_buf_num(t, 0, 1); /* no page protection */
    table_end(b, off);
    return off;
}

/* Windows ACPI Emulated devices Table: one read of the PM timer is reliable. */
static size_t build_waet(struct builder *b)
{
    size_t off = table_begin(b, "WAET", 1);
    acpi_buf_num(&b->tables, 2, 4);
    table_end(b, off);
    return off;
}

/* ---- the SSDT, in AML (ACPI 2.0c, chapter 18) ---- */

static void aml_processor(struct acpi_buf *t, unsigned n)
{
    char name[8];
    snprintf(name, sizeof name, "C%03X", n & 0xfffu);
    acpi_buf_num(t, 0x835b, 2); /* ProcessorOp */
    acpi_buf_num(t, 11, 1);     /* PkgLength, itself included */
    acpi_buf_put(t, name, 4);
    acpi_buf_num(t, n, 1); /* the MADT's processor ID */
    acpi_buf_num(t, 0, 4); /* no processor register block */
    acpi_buf_num(t, 0, 1);
}

static size_t build_ssdt(struct builder *b, const struct acpi_config *cfg)
{
    struct acpi_buf *t = &b->tables;
    size_t off = table_begin(b, "SSDT", 1);
    acpi_buf_num(t, 0x10, 1); /* ScopeOp */
    size_t pkg = acpi_buf_zero(t, 2);
    acpi_buf_put(t, "\\_SB_", 5);
    for (unsigned n = 0; n < cfg->ncpus; n++)
        aml_processor(t, n);
    /* Two-byte PkgLength: 4 low bits in the first byte, the rest in the second; 4095 is the limit
     * and ACPI_MAX_CPUS processors take far less. */
    size_t len = t->len - pkg;
    acpi_buf_set(t, pkg, 0x40 | (len & 15) | (len >> 4) << 8, 2);
    table_end(b, off);
    return off;
}

/* ---- root tables ---- */

#define MAX_TABLES 8

struct roots {
    size_t table[MAX_TABLES];
    unsigned count;
};

static size_t build_sdt(struct builder *b, const struct roots *r, const char *signature,
                        unsigned size)
{
    size_t off = table_begin(b, signature, 1);
    for (unsigned i = 0; i < r->count; i++)
        table_pointer(b, acpi_buf_zero(&b->tables, size), r->table[i], size);
    table_end(b, off);
    return off;
}

/* 5.2.4.3, revision 2. */
static void build_rsdp(struct builder *b, uint8_t rsdp[ACPI_RSDP_LEN], size_t rsdt, size_t xsdt)
{
    memset(rsdp, 0, ACPI_RSDP_LEN);
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "SOSIA ", 6);
    rsdp[15] = 2;
    store_le32(rsdp + 16, (uint32_t)rsdt);
    store_le32(rsdp + 20, ACPI_RSDP_LEN);
    store_le64(rsdp + 24, xsdt);
    link_pointer(b, FILE_RSDP, 16, 4);
    link_pointer(b, FILE_RSDP, 24, 8);
    link_checksum(b, FILE_RSDP, 8, 0, 20);
    link_checksum(b, FILE_RSDP, 32, 0, ACPI_RSDP_LEN);
}

int acpi_build(const struct acpi_config *cfg, struct acpi_tables *t, struct error *e)
{
    struct builder b = {0};
    struct roots r = {.count = 0};
    memset(t, 0, sizeof *t);
    if (!cfg->ncpus || cfg->ncpus > ACPI_MAX_CPUS)
        return error_set(e, ERR_LIMIT, "ACPI: %u processors", cfg->ncpus);
    link_allocate(&b, FILE_RSDP, 16, ZONE_FSEG);
    link_allocate(&b, FILE_TABLES, ACPI_ALIGN, ZONE_HIGH);
    size_t facs = build_facs(&b), dsdt = build_dsdt(&b, cfg);
    r.table[r.count++] = build_fadt(&b, cfg, facs, dsdt);
    r.table[r.count++] = build_ssdt(&b, cfg);
    r.table[r.count++] = build_madt(&b, cfg);
    if (cfg->devices & ACPI_HPET)
        r.table[r.count++] = build_hpet(&b);
    r.table[r.count++] = build_waet(&b);
    size_t rsdt = build_sdt(&b, &r, "RSDT", 4), xsdt = build_sdt(&b, &r, "XSDT", 8);
    build_rsdp(&b, t->rsdp, rsdt, xsdt);
    t->tables = b.tables.data;
    t->len = b.tables.len;
    t->loader = b.loader.data;
    t->loader_len = b.loader.len;
    if (b.tables.failed || b.loader.failed) {
        acpi_fini(t);
        return error_set(e, ERR_NOMEM, "no memory for the ACPI tables");
    }
    if (b.bad_dsdt) {
        acpi_fini(t);
        return error_set(e, ERR_FORMAT, "the DSDT does not have the names that acpi.c fills in");
    }
    return 0;
}

void acpi_fini(struct acpi_tables *t)
{
    free(t->tables);
    free(t->loader);
    memset(t, 0, sizeof *t);
}

/* ---- consumers ---- */

int acpi_publish(const struct acpi_tables *t, struct fw_cfg *fw, struct error *e)
{
    int rc = fw_cfg_add_file(fw, FILE_TABLES, t->tables, t->len, e);
    if (!rc)
        rc = fw_cfg_add_file(fw, FILE_RSDP, t->rsdp, sizeof t->rsdp, e);
    if (!rc)
        rc = fw_cfg_add_file(fw, FILE_LOADER, t->loader, t->loader_len, e);
    return rc;
}

/* Executes one entry on the bytes of the file that it names. */
static bool link_run(struct acpi_tables *t, const uint8_t *entry, uint32_t base)
{
    bool rsdp = !strcmp((const char *)entry + 4, FILE_RSDP);
    uint8_t *file = rsdp ? t->rsdp : t->tables;
    size_t len = rsdp ? sizeof t->rsdp : t->len;
    const uint8_t *arg = entry + 4 + LINK_NAME;
    uint8_t num[8] = {0}, sum = 0;
    switch (load_le32(entry)) {
    case LINK_POINTER: {
        uint32_t off = load_le32(arg + LINK_NAME);
        uint8_t size = arg[LINK_NAME + 4];
        if (size > 8 || !range_within(off, size, len))
            return false;
        memcpy(num, file + off, size);
        store_le64(num, load_le64(num) + base);
        memcpy(file + off, num, size);
        return true;
    }
    case LINK_CHECKSUM: {
        uint32_t off = load_le32(arg), start = load_le32(arg + 4), n = load_le32(arg + 8);
        if (off >= len || !range_within(start, n, len))
            return false;
        for (uint32_t i = 0; i < n; i++)
            sum += file[start + i];
        file[off] -= sum;
        return true;
    }
    default: /* ALLOCATE: the caller chose the place */
        return true;
    }
}

int acpi_place(struct acpi_tables *t, uint32_t base, struct error *e)
{
    if (base % ACPI_ALIGN)
        return error_set(e, ERR_LIMIT, "ACPI tables at %#x: not aligned", base);
    for (size_t off = 0; off + LINK_LEN <= t->loader_len; off += LINK_LEN) {
        if (!link_run(t, t->loader + off, base))
            return error_set(e, ERR_FORMAT, "ACPI linker script: bad entry at %zu", off);
    }
    return 0;
}
