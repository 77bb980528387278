/* test_acpi.c - ACPI tables: placed and walked as an operating system does, and as firmware links
 * them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/endian.h"
#include "machine/acpi.h"

#define BASE 0xe0000u

static const struct acpi_config cfg = {
    .ncpus = 4,
    .devices = ACPI_COM1 | ACPI_HPET | ACPI_PS2,
    .pci_first = 0x80000000,
    .pci_last = 0xfebfffff,
    .pci64_first = 0x8000000000,
    .pci64_last = 0x80ffffffff,
};
static struct acpi_tables t;

static int setup(void **state)
{
    return acpi_build(&cfg, &t, NULL);
}

static int teardown(void **state)
{
    acpi_fini(&t);
    return 0;
}

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;
    while (len--)
        s += *p++;
    return s;
}

/* A table by its address, checked. */
static const uint8_t *table(uint64_t addr, const char *signature)
{
    assert_true(addr >= BASE && addr + 36 <= BASE + t.len);
    const uint8_t *p = t.tables + (addr - BASE);
    uint32_t len = load_le32(p + 4);
    assert_true(addr + len <= BASE + t.len);
    if (signature)
        assert_memory_equal(p, signature, 4);
    assert_int_equal(sum(p, len), 0);
    return p;
}

/* The table of that signature among the roots', which must agree. */
static const uint8_t *find(const char *signature)
{
    const uint8_t *rsdt = table(load_le32(t.rsdp + 16), "RSDT");
    const uint8_t *xsdt = table(load_le64(t.rsdp + 24), "XSDT");
    const uint8_t *found = NULL;
    unsigned n = (load_le32(rsdt + 4) - 36) / 4;
    assert_int_equal(n, (load_le32(xsdt + 4) - 36) / 8);
    for (unsigned i = 0; i < n; i++) {
        uint64_t addr = load_le64(xsdt + 36 + 8 * i);
        assert_int_equal(load_le32(rsdt + 36 + 4 * i), addr);
        const uint8_t *p = table(addr, NULL);
        if (!memcmp(p, signature, 4))
            found = p;
    }
    return found;
}

static void test_roots(void **state)
{
    assert_int_equal(acpi_place(&t, BASE, NULL), 0);
    assert_memory_equal(t.rsdp, "RSD PTR ", 8);
    assert_int_equal(sum(t.rsdp, 20), 0);
    assert_int_equal(sum(t.rsdp, 36), 0);
    assert_true(t.len < 0x10000); /* fits below 0xF0000 */
    const char *const names[] = {"FACP", "SSDT", "APIC", "HPET", "WAET"};
    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        assert_non_null(find(names[i]));
    assert_null(find("MCFG"));
}

static void test_fadt(void **state)
{
    acpi_place(&t, BASE, NULL);
    const uint8_t *f = find("FACP");
    assert_int_equal(load_le32(f + 4), 244);
    assert_int_equal(load_le32(f + 40), load_le64(f + 140));
    table(load_le32(f + 40), "DSDT");
    uint32_t facs = load_le32(f + 36);
    assert_int_equal(facs % 64, 0);
    assert_memory_equal(t.tables + (facs - BASE), "FACS", 4);
    assert_int_equal(load_le16(f + 46), 9);
    assert_int_equal(load_le32(f + 56), 0x600);
    assert_int_equal(load_le64(f + 148 + 4), 0x600);
    assert_int_equal(f[148 + 1], 32);
    assert_int_equal(load_le32(f + 76), 0x608);
    assert_int_equal(load_le64(f + 116 + 4), 0xcf9);
    assert_true(load_le32(f + 112) & 1u << 10);
    assert_int_equal(load_le16(f + 109), 3);
}

static void test_madt(void **state)
{
    acpi_place(&t, BASE, NULL);
    const uint8_t *m = find("APIC");
    unsigned count[5] = {0};
    assert_int_equal(load_le32(m + 36), 0xfee00000);
    for (unsigned off = 44; off < load_le32(m + 4); off += m[off + 1]) {
        assert_true(m[off] < 5 && m[off + 1]);
        if (m[off] == 0)
            assert_int_equal(m[off + 3], count[0]);
        if (m[off] == 2 && count[2] == 0)
            assert_int_equal(load_le32(m + off + 4), 2); /* IRQ0 */
        else if (m[off] == 2)
            assert_int_equal(load_le16(m + off + 8), 0xd);
        count[m[off]]++;
    }
    assert_int_equal(count[0], 4);
    assert_int_equal(count[1], 1);
    assert_int_equal(count[2], 5);
    assert_int_equal(count[4], 1);
}

static void test_optional(void **state)
{
    struct acpi_config c = cfg;
    struct error e;
    acpi_fini(&t);
    c.devices = 0;
    c.ncpus = 32;
    assert_int_equal(acpi_build(&c, &t, &e), 0);
    assert_int_equal(acpi_place(&t, BASE, &e), 0);
    assert_null(find("HPET"));
    assert_int_equal(load_le16(find("FACP") + 109), 1);
    const uint8_t *ssdt = find("SSDT");
    unsigned pkg = (ssdt[37] & 15u) | (unsigned)ssdt[38] << 4;
    assert_int_equal(36 + 1 + pkg, load_le32(ssdt + 4)); /* the scope fills the table */
    acpi_fini(&t);
    c.ncpus = 33;
    assert_int_equal(acpi_build(&c, &t, &e), ERR_LIMIT);
    c.ncpus = 0;
    assert_int_equal(acpi_build(&c, &t, &e), ERR_LIMIT);
}

/* The numbers that depend on the VM, as AML: NameOp, name, DWordPrefix, value. */
static uint32_t dsdt_number(const uint8_t *dsdt, const char *name)
{
    for (uint32_t i = 36; i + 10 <= load_le32(dsdt + 4); i++) {
        if (dsdt[i] == 0x08 && !memcmp(dsdt + i + 1, name, 4) && dsdt[i + 5] == 0x0c)
            return load_le32(dsdt + i + 6);
    }
    fail_msg("no %s", name);
    return 0;
}

static void test_dsdt_numbers(void **state)
{
    acpi_place(&t, BASE, NULL);
    const uint8_t *dsdt = table(load_le32(find("FACP") + 40), "DSDT");
    assert_int_equal(dsdt_number(dsdt, "PWLO"), 0x80000000);
    assert_int_equal(dsdt_number(dsdt, "PWHI"), 0xfebfffff);
    assert_int_equal(dsdt_number(dsdt, "PQLL"), 0);
    assert_int_equal(dsdt_number(dsdt, "PQLH"), 0x80);
    assert_int_equal(dsdt_number(dsdt, "PQHL"), 0xffffffff);
    assert_int_equal(dsdt_number(dsdt, "PQHH"), 0x80);
    assert_int_equal(dsdt_number(dsdt, "OPTD"), cfg.devices);
    assert_int_not_equal(dsdt[36], 0x15); /* ExternalOp: not before ACPI 6 */
}

/* What firmware relies on: both files allocated first, every name known, offsets inside. */
static void test_loader(void **state)
{
    assert_int_equal(t.loader_len % 128, 0);
    for (size_t off = 0; off < t.loader_len; off += 128) {
        const uint8_t *p = t.loader + off;
        uint32_t cmd = load_le32(p);
        const char *file = (const char *)p + 4;
        size_t len = strcmp(file, "etc/acpi/rsdp") ? t.len : ACPI_RSDP_LEN;
        assert_true(!strcmp(file, "etc/acpi/rsdp") || !strcmp(file, "etc/acpi/tables"));
        assert_int_equal(cmd == 1, off < 256);
        if (cmd == 2) {
            assert_string_equal((const char *)p + 60, "etc/acpi/tables");
            assert_true(load_le32(p + 116) + p[120] <= len);
        } else if (cmd == 3) {
            assert_true(load_le32(p + 60) < len);
            assert_true(load_le32(p + 64) + load_le32(p + 68) <= len);
        }
    }
    struct fw_cfg fw;
    assert_int_equal(fw_cfg_init(&fw, NULL, NULL), 0);
    assert_int_equal(acpi_publish(&t, &fw, NULL), 0);
    assert_int_equal(fw.nfile, 3);
    fw_cfg_fini(&fw);
    assert_int_equal(acpi_place(&t, BASE + 8, NULL), ERR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(test_roots),    T(test_fadt),   T(test_madt),
        T(test_optional), T(test_loader), T(test_dsdt_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
