/* test_linux_boot.c - loading kernels: a good one, and every way to damage it. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/endian.h"
#include "machine/linux_boot.h"

#define RAM_SIZE  (64 * MIB)
#define CODE_LEN  0x4000u
#define SETUP_LEN (4 * 512u)
#define PREF      (16 * MIB)
#define INIT_SIZE (8 * MIB)

static char dir[64], kernel[96], initrd[96];
static struct ram ram;
static uint8_t img[SETUP_LEN + CODE_LEN];
static struct linux_boot in;
static struct linux_entry out;
static struct error err;
static const struct e820_entry map[] = {
    {0, 0x9fc00, E820_RAM}, {0xe0000, 0x20000, E820_RESERVED}, {MIB, RAM_SIZE - MIB, E820_RAM}};

static void write_file(const char *path, const void *p, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, len), (ssize_t)len);
    close(fd);
}

static void put16(unsigned off, uint16_t v)
{
    store_le16(img + off, v);
}

static void put32(unsigned off, uint32_t v)
{
    store_le32(img + off, v);
}

static void put64(unsigned off, uint64_t v)
{
    store_le64(img + off, v);
}

static int setup(void **state)
{
    memset(img, 0, sizeof img);
    img[0] = 'M';
    img[1] = 'Z';
    img[0x1f1] = SETUP_LEN / 512 - 1;
    put32(0x1f4, CODE_LEN / 16);
    put16(0x1fe, 0xaa55);
    img[0x200] = 0xeb;
    img[0x201] = 0x66;
    memcpy(img + 0x202, "HdrS", 4);
    put16(0x206, 0x20f);
    img[0x211] = 1;
    put32(0x214, 0x100000);
    put32(0x22c, 0x7fffffff);
    put32(0x230, 0x200000);
    img[0x234] = 1;
    put16(0x236, 1);
    put32(0x238, 2047);
    put64(0x250, 0x1122334455667788);
    put64(0x258, PREF);
    put32(0x260, INIT_SIZE);
    for (unsigned i = 0; i < CODE_LEN; i++)
        img[SETUP_LEN + i] = (uint8_t)(i * 7 + i / 256);

    strcpy(dir, "/tmp/sosia-linux-XXXXXX");
    if (!mkdtemp(dir) || ram_init(&ram, RAM_SIZE, NULL))
        return -1;
    snprintf(kernel, sizeof kernel, "%s/vmlinuz", dir);
    snprintf(initrd, sizeof initrd, "%s/initrd", dir);
    err = (struct error){0};
    in = (struct linux_boot){.kernel = kernel,
                             .cmdline = "console=ttyS0",
                             .e820 = map,
                             .ne820 = 3,
                             .rsdp = 0xe0000,
                             .low_top = RAM_SIZE};
    return 0;
}

static int teardown(void **state)
{
    ram_fini(&ram);
    unlink(kernel);
    unlink(initrd);
    return rmdir(dir);
}

static int load_len(size_t len)
{
    write_file(kernel, img, len);
    return linux_load(&ram, &in, &out, &err);
}

static int load(void)
{
    return load_len(sizeof img);
}

static void loads(void)
{
    if (load())
        fail_msg("%s", err.msg);
}

static void refused(int rc, int code, const char *says)
{
    if (rc != code || !strstr(err.msg, says))
        fail_msg("%d '%s', not %d with '%s'", rc, err.msg, code, says);
    assert_non_null(strstr(err.msg, dir)); /* the path is named */
}

static void refuses(int code, const char *says)
{
    refused(load(), code, says);
}

/* ---- good kernels ---- */

static void long_mode_entry(void **state)
{
    loads();
    assert_true(out.long_mode);
    assert_int_equal(out.rip, PREF + 0x200);
    assert_memory_equal(ram.host + PREF, img + SETUP_LEN, CODE_LEN);
    const uint8_t *z = ram.host + out.rsi;
    assert_memory_equal(z + 0x202, "HdrS", 4);
    assert_int_equal(z[0x210], 0xff);
    assert_int_equal(load_le32(z + 0x214), PREF);
    assert_int_equal(load_le64(z + 0x070), 0xe0000);
    assert_int_equal(load_le64(z + 0x250), 0);
    assert_int_equal(load_le32(z + 0x218) | load_le32(z + 0x21c), 0);
    assert_string_equal((const char *)ram.host + load_le32(z + 0x228), "console=ttyS0");
    assert_int_equal(z[0x1e8], 3);
    assert_int_equal(load_le64(z + 0x2d0 + 40), MIB);
    assert_int_equal(load_le64(z + 0x2d0 + 48), RAM_SIZE - MIB);
    assert_int_equal(load_le32(z + 0x2d0 + 36), E820_RESERVED);
    assert_int_equal(z[0x06], 3);
    assert_int_equal(z[0x07], 80);
    assert_int_equal(z[0x0e], 25);
    assert_int_equal(z[0x0f], 1);
    assert_int_equal(z[0x1ef], 0); /* sentinel */
}

/* Walks the tables as a CPU would: every address below 4 GiB maps to itself. */
static void identity_map_and_gdt(void **state)
{
    loads();
    static const uint64_t probe[] = {0, 0x10000, PREF, 0x7fffffff, 0xc0000000, 0xffffffff};
    for (unsigned i = 0; i < ARRAY_LEN(probe); i++) {
        uint64_t table = out.cr3, entry = 0;
        for (int level = 3; level >= 1; level--) {
            entry = load_le64(ram.host + table + 8 * (probe[i] >> (12 + 9 * level) & 511));
            assert_int_equal(entry & 3, 3);
            table = entry & 0xffffffffff000;
        }
        assert_true(entry & 0x80);
        assert_int_equal((entry & 0xfffffffe00000) | (probe[i] & 0x1fffff), probe[i]);
    }
    assert_true(out.gdt_limit >= LINUX_DS + 7);
    uint64_t cs = load_le64(ram.host + out.gdt_base + LINUX_CS);
    uint64_t ds = load_le64(ram.host + out.gdt_base + LINUX_DS);
    assert_int_equal(cs >> 53 & 1, 1); /* L */
    assert_int_equal(cs >> 54 & 1, 0); /* D */
    assert_int_equal(cs >> 40 & 0xfe, 0x9a);
    assert_int_equal(ds >> 40 & 0xfe, 0x92);
    assert_int_equal(load_le64(ram.host + out.gdt_base), 0);
}

static void protected_mode_entry(void **state)
{
    put16(0x236, 0);
    loads();
    assert_false(out.long_mode);
    assert_int_equal(out.rip, PREF);
    assert_int_equal(load_le64(ram.host + out.gdt_base + LINUX_CS), 0x00cf9b000000ffffull);
    put16(0x236, 1); /* the field is from 2.12 on */
    put16(0x206, 0x20b);
    loads();
    assert_false(out.long_mode);
}

static void not_relocatable(void **state)
{
    img[0x234] = 0;
    loads();
    assert_int_equal(out.rip, MIB + 0x200);
    put32(0x230, 3); /* of no interest then */
    loads();
}

static void oldest_version(void **state)
{
    put16(0x206, 0x206);
    img[0x201] = 0x3a;
    img[0x234] = 0;
    loads();
    assert_false(out.long_mode);
    assert_int_equal(out.rip, MIB);
    const uint8_t *z = ram.host + out.rsi;
    assert_int_equal(load_le64(z + 0x258), 0); /* beyond that header: not copied */
}

static void zero_setup_sects_means_four(void **state)
{
    static uint8_t big[5 * 512 + CODE_LEN];
    img[0x1f1] = 0;
    memcpy(big, img, SETUP_LEN);
    memset(big + 5 * 512, 0x5a, CODE_LEN);
    write_file(kernel, big, sizeof big);
    assert_int_equal(linux_load(&ram, &in, &out, &err), 0);
    assert_int_equal(ram.host[PREF], 0x5a);
}

static void initrd_is_high_and_whole(void **state)
{
    uint8_t data[10000];
    memset(data, 0x3c, sizeof data);
    write_file(initrd, data, sizeof data);
    in.initrd = initrd;
    loads();
    const uint8_t *z = ram.host + out.rsi;
    uint32_t at = load_le32(z + 0x218);
    assert_int_equal(load_le32(z + 0x21c), sizeof data);
    assert_int_equal(at % 4096, 0);
    assert_true(at + sizeof data <= RAM_SIZE && at > RAM_SIZE - 4 * 4096);
    assert_memory_equal(ram.host + at, data, sizeof data);
    put32(0x22c, 0x1ffffff); /* the kernel wants it below 32 MiB */
    loads();
    assert_true(load_le32(z + 0x218) + sizeof data <= 32 * MIB);
    put32(0x22c, 0xffffffff);
    loads();
    in.low_top = 32 * MIB;
    loads();
    assert_true(load_le32(z + 0x218) + sizeof data <= 32 * MIB);
}

static void odd_preferences_are_not_followed(void **state)
{
    put64(0x258, PREF + 0x1000); /* not aligned */
    loads();
    assert_int_equal(out.rip, 2 * MIB + 0x200);
    put64(0x258, 0);
    loads();
    put64(0x258, 0x1000); /* over our own tables */
    loads();
    assert_int_equal(out.rip, 2 * MIB + 0x200);
    put32(0x260, 0); /* less than the code itself */
    loads();
}

static void last_bytes_may_lack_rounding(void **state)
{
    assert_int_equal(load_len(sizeof img - 15), 0);
    refused(load_len(sizeof img - 16), ERR_FORMAT, "truncated");
}

/* ---- bad kernels ---- */

static void truncated_anywhere(void **state)
{
    for (size_t len = 1; len < SETUP_LEN + 64; len++) {
        int rc = load_len(len);
        assert_int_equal(rc, ERR_FORMAT);
        assert_non_null(strstr(err.msg, len < 0x206 ? "not a Linux kernel" : "truncated"));
    }
    refused(load_len(SETUP_LEN), ERR_FORMAT, "truncated");
    refused(load_len(SETUP_LEN + CODE_LEN / 2), ERR_FORMAT, "truncated");
}

static void huge_setup_sects(void **state)
{
    img[0x1f1] = 255;
    refuses(ERR_FORMAT, "truncated");
}

static void bad_syssize(void **state)
{
    put32(0x1f4, 0);
    refuses(ERR_FORMAT, "size field is 0");
    put32(0x1f4, 0xffffffff);
    refuses(ERR_FORMAT, "truncated");
    put32(0x1f4, CODE_LEN / 16 + 1);
    refuses(ERR_FORMAT, "truncated");
    put32(0x1f4, 0x20); /* exactly up to the 64-bit entry */
    refuses(ERR_FORMAT, "64-bit entry");
}

static void bad_signatures(void **state)
{
    put16(0x1fe, 0xaa54);
    refuses(ERR_FORMAT, "boot signature");
    img[0x205] = 's';
    refuses(ERR_FORMAT, "not a Linux kernel: no 'HdrS' at offset 0x202");
}

static void bad_header_length(void **state)
{
    static const uint8_t too_short[] = {0, 1, 0x10, 0x39, 0x3a, 0x61};
    for (unsigned i = 0; i < ARRAY_LEN(too_short); i++) {
        img[0x201] = too_short[i];
        refuses(ERR_FORMAT, "header is shorter");
    }
    img[0x201] = 0xff; /* longer than its place in boot_params: cut */
    memset(img + 0x268, 0xdd, 0x80);
    loads();
    assert_int_equal(ram.host[out.rsi + 0x290], 0);
    img[0x200] = 0x90;
    refuses(ERR_FORMAT, "header is shorter");
}

static void old_versions(void **state)
{
    static const uint16_t old[] = {0, 0x100, 0x200, 0x205};
    for (unsigned i = 0; i < ARRAY_LEN(old); i++) {
        put16(0x206, old[i]);
        refuses(ERR_FORMAT, "too old");
    }
    put16(0x206, 0xffff); /* newer ones stay compatible */
    loads();
}

static void zimage(void **state)
{
    img[0x211] = 0;
    refuses(ERR_FORMAT, "zImage");
}

static void bad_alignment(void **state)
{
    put32(0x230, 0);
    refuses(ERR_FORMAT, "power of two");
    put32(0x230, 0x300000);
    refuses(ERR_FORMAT, "power of two");
    put32(0x230, 0xffffffff);
    refuses(ERR_FORMAT, "power of two");
    put32(0x230, 0x80000000);
    refuses(ERR_NOMEM, "memory");
}

static void too_large_for_memory(void **state)
{
    put32(0x260, 0xffffffff);
    refuses(ERR_NOMEM, "4112 MiB");
    assert_non_null(strstr(err.msg, "64 MiB"));
    put32(0x260, RAM_SIZE - PREF + 1);
    refuses(ERR_NOMEM, "65 MiB");
    put32(0x260, RAM_SIZE - PREF);
    loads();
    in.low_top = 16 * MIB;
    refuses(ERR_NOMEM, "kernel does not fit");
    in.low_top = MIB;
    refuses(ERR_NOMEM, "kernel does not fit");
}

static void preferred_address_overflows(void **state)
{
    put64(0x258, 0xffffffffffe00000);
    refuses(ERR_FORMAT, "preferred address");
    put64(0x258, 1ull << 32);
    refuses(ERR_FORMAT, "preferred address");
    put64(0x258, 0xffe00000);
    refuses(ERR_NOMEM, "kernel does not fit");
    img[0x234] = 0;
    put64(0x258, 0xfffffffffffff000);
    refuses(ERR_FORMAT, "preferred address");
    put64(0x258, 0x10000);
    refuses(ERR_FORMAT, "preferred address");
}

static void random_headers(void **state)
{
    uint8_t good[sizeof img];
    memcpy(good, img, sizeof img);
    srand(3);
    for (unsigned i = 0; i < 300; i++) {
        memcpy(img, good, sizeof img);
        for (unsigned n = 0; n < 4; n++)
            img[0x1f1 + (unsigned)rand() % 0x80] = (uint8_t)rand();
        int rc = load();
        assert_true(rc == 0 || rc == ERR_FORMAT || rc == ERR_NOMEM);
        if (rc == 0)
            assert_true(out.rip >= MIB && out.rip < RAM_SIZE);
    }
}

static void other_files_are_recognised(void **state)
{
    static const struct {
        unsigned off, len;
        const char *magic, *says;
    } other[] = {
        {0, 4,
         "\x7f"
         "ELF",
         "vmlinux"},
        {0, 2, "\x1f\x8b", "gzip"},
        {0, 6,
         "\xfd"
         "7zXZ\0",
         "xz"},
        {0, 4, "\x28\xb5\x2f\xfd", "zstd"},
        {0, 3, "BZh", "bzip2"},
        {0, 4, "\x02\x21\x4c\x18", "lz4"},
        {0x38, 4, "ARM\x64", "ARM"},
        {0, 2, "MZ", "PE/EFI"},
        {0, 6, "070701", "cpio"},
        {0, 2, "#!", "script"},
        {0, 1, "x", "a bzImage is needed"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(other); i++) {
        memset(img, 0, sizeof img);
        memcpy(img + other[i].off, other[i].magic, other[i].len);
        refuses(ERR_FORMAT, other[i].says);
    }
}

static void files_that_are_none(void **state)
{
    refused(linux_load(&ram, &in, &out, &err), ERR_IO, "No such file");
    in.kernel = dir;
    refused(linux_load(&ram, &in, &out, &err), ERR_FORMAT, "not a regular file");
    in.kernel = kernel;
    refused(load_len(0), ERR_FORMAT, "empty");
    mkfifo(initrd, 0600);
    in.kernel = initrd;
    refused(linux_load(&ram, &in, &out, &err), ERR_FORMAT, "not a regular file");
}

static void bad_initrds(void **state)
{
    in.initrd = initrd;
    refuses(ERR_IO, "cannot open the initrd");
    write_file(initrd, "", 0);
    refuses(ERR_FORMAT, "empty");
    in.initrd = dir;
    refuses(ERR_FORMAT, "not a regular file");
    in.initrd = initrd;
    assert_int_equal(truncate(initrd, RAM_SIZE), 0);
    refuses(ERR_NOMEM, "initrd does not fit");
    assert_int_equal(truncate(initrd, 1ll << 40), 0);
    refuses(ERR_NOMEM, "initrd does not fit");
    assert_int_equal(truncate(initrd, RAM_SIZE - PREF - INIT_SIZE + 1), 0);
    refuses(ERR_NOMEM, "initrd does not fit");
    assert_int_equal(truncate(initrd, 8192), 0);
    static const uint32_t limit[] = {0, 1, 4095, PREF, PREF + INIT_SIZE};
    for (unsigned i = 0; i < ARRAY_LEN(limit); i++) {
        put32(0x22c, limit[i]);
        refuses(ERR_LIMIT, "highest address");
    }
}

static void command_lines(void **state)
{
    static char line[70000];
    in.cmdline = NULL;
    loads();
    assert_int_equal(ram.host[load_le32(ram.host + out.rsi + 0x228)], 0);
    memset(line, 'a', 2047);
    in.cmdline = line;
    loads();
    line[2047] = 'b';
    refuses(ERR_LIMIT, "at most 2047");
    put32(0x238, 0xffffffff);
    loads();
    memset(line, 'a', 65535);
    loads();
    line[65535] = 'b';
    refuses(ERR_LIMIT, "at most 65535");
    put32(0x238, 0);
    refuses(ERR_LIMIT, "at most 0");
}

static void bad_layouts(void **state)
{
    static struct e820_entry many[129];
    write_file(kernel, img, sizeof img);
    in.e820 = many;
    in.ne820 = 128;
    assert_int_equal(linux_load(&ram, &in, &out, &err), 0);
    assert_int_equal(ram.host[out.rsi + 0x1e8], 128);
    in.ne820 = 129;
    assert_int_equal(linux_load(&ram, &in, &out, &err), ERR_LIMIT);
    in.ne820 = 0;
    in.low_top = RAM_SIZE + 4096;
    assert_int_equal(linux_load(&ram, &in, &out, &err), ERR_LIMIT);
    in.low_top = 0x10000;
    assert_int_equal(linux_load(&ram, &in, &out, &err), ERR_LIMIT);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(long_mode_entry),
        T(identity_map_and_gdt),
        T(protected_mode_entry),
        T(not_relocatable),
        T(oldest_version),
        T(zero_setup_sects_means_four),
        T(initrd_is_high_and_whole),
        T(odd_preferences_are_not_followed),
        T(last_bytes_may_lack_rounding),
        T(truncated_anywhere),
        T(huge_setup_sects),
        T(bad_syssize),
        T(bad_signatures),
        T(bad_header_length),
        T(old_versions),
        T(zimage),
        T(bad_alignment),
        T(too_large_for_memory),
        T(preferred_address_overflows),
        T(random_headers),
        T(other_files_are_recognised),
        T(files_that_are_none),
        T(bad_initrds),
        T(command_lines),
        T(bad_layouts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
