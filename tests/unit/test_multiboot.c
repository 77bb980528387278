/* test_multiboot.c - loading multiboot kernels: good ones, and every way to damage them. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/endian.h"
#include "machine/multiboot.h"

#define RAM_SIZE (16 * MIB)
#define HDR      0x200u /* the multiboot header's place in the image */
#define CODE     0x1000u
#define CODE_LEN 0x800u
#define IMG_LEN  (CODE + CODE_LEN)
#define LOAD     (4 * MIB)

static char dir[64], kernel[96], initrd[96];
static struct ram ram;
static uint8_t img[IMG_LEN];
static struct linux_boot in;
static struct linux_entry out;
static struct error err;
static const struct e820_entry map[] = {{0, 0x9fc00, E820_RAM}, {MIB, RAM_SIZE - MIB, E820_RAM}};

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

static void put_header(uint32_t flags)
{
    put32(HDR, 0x1badb002);
    put32(HDR + 4, flags);
    put32(HDR + 8, 0u - 0x1badb002u - flags);
}

/* One segment of CODE_LEN bytes, 0x1000 bytes in memory, linked 0x80000000 above where it loads. */
static void make_elf32(void)
{
    memcpy(img,
           "\x7f"
           "ELF\1\1\1",
           7);
    put16(16, 2);
    put16(18, 3);
    put32(24, 0x80000000u + LOAD + 0x10);
    put32(28, 0x40);
    put16(42, 32);
    put16(44, 1);
    put32(0x40, 1);
    put32(0x44, CODE);
    put32(0x48, 0x80000000u + LOAD);
    put32(0x4c, LOAD);
    put32(0x50, CODE_LEN);
    put32(0x54, 0x1000);
    put_header(3);
}

static void make_elf64(void)
{
    memcpy(img,
           "\x7f"
           "ELF\2\1\1",
           7);
    put16(16, 2);
    put16(18, 62);
    put64(24, LOAD + 0x20);
    put64(32, 0x40);
    put16(54, 56);
    put16(56, 1);
    put32(0x40, 1);
    put64(0x48, CODE);
    put64(0x50, LOAD);
    put64(0x58, LOAD);
    put64(0x60, CODE_LEN);
    put64(0x68, 0x1000);
    put_header(0);
}

/* The header's addresses: the file from HDR on, header first, with 0x1000 bytes of BSS. */
static void make_flat(void)
{
    put_header(0x10003);
    put32(HDR + 12, LOAD);
    put32(HDR + 16, LOAD);
    put32(HDR + 20, LOAD + IMG_LEN - HDR);
    put32(HDR + 24, LOAD + IMG_LEN - HDR + 0x1000);
    put32(HDR + 28, LOAD + 0x40);
}

static int setup(void **state)
{
    memset(img, 0, sizeof img);
    for (unsigned i = 0; i < CODE_LEN; i++)
        img[CODE + i] = (uint8_t)(i * 7 + 1);
    strcpy(dir, "/tmp/sosia-multiboot-XXXXXX");
    if (!mkdtemp(dir) || ram_init(&ram, RAM_SIZE, NULL))
        return -1;
    snprintf(kernel, sizeof kernel, "%s/kernel", dir);
    snprintf(initrd, sizeof initrd, "%s/module", dir);
    err = (struct error){0};
    in = (struct linux_boot){
        .kernel = kernel, .cmdline = "a b", .e820 = map, .ne820 = 2, .low_top = RAM_SIZE};
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
    return multiboot_load(&ram, &in, &out, &err);
}

static void loads(void)
{
    if (load_len(sizeof img))
        fail_msg("%s", err.msg);
}

static void refuses(int code, const char *what)
{
    err = (struct error){0};
    assert_int_equal(load_len(sizeof img), code);
    if (!strstr(err.msg, what))
        fail_msg("\"%s\" lacks \"%s\"", err.msg, what);
}

static uint32_t info(unsigned off)
{
    return load_le32(ram.host + out.rbx + off);
}

static void elf32(void **state)
{
    make_elf32();
    memset(ram.host + LOAD, 0xee, 0x2000);
    loads();
    assert_false(out.long_mode);
    assert_int_equal(out.rax, 0x2badb002);
    assert_int_equal(out.rip, LOAD + 0x10); /* by the segment, not as it is linked */
    assert_memory_equal(ram.host + LOAD, img + CODE, CODE_LEN);
    assert_int_equal(ram.host[LOAD + CODE_LEN], 0);
    assert_int_equal(ram.host[LOAD + 0xfff], 0);
    assert_int_equal(ram.host[LOAD + 0x1000], 0xee);
}

static void elf64(void **state)
{
    make_elf64();
    loads();
    assert_int_equal(out.rip, LOAD + 0x20);
    assert_memory_equal(ram.host + LOAD, img + CODE, CODE_LEN);
    put64(0x58, 5 * GIB);
    refuses(ERR_FORMAT, "below 4 GiB");
    put64(0x58, LOAD);
    put64(0x48, ~0ull);
    refuses(ERR_FORMAT, "more than the file has");
}

static void flat(void **state)
{
    make_flat();
    loads();
    assert_int_equal(out.rip, LOAD + 0x40);
    assert_memory_equal(ram.host + LOAD, img + HDR, IMG_LEN - HDR);
    put32(HDR + 20, 0); /* load_end_addr 0: all of the file; bss_end_addr 0: no BSS */
    put32(HDR + 24, 0);
    loads();
    assert_memory_equal(ram.host + LOAD, img + HDR, IMG_LEN - HDR);
    put32(HDR + 12, LOAD + HDR); /* the same, from the file's first byte */
    loads();
    assert_memory_equal(ram.host + LOAD, img, IMG_LEN);
}

static void information(void **state)
{
    make_elf32();
    write_file(initrd, "module", 6);
    in.initrd = initrd;
    loads();
    assert_int_equal(info(0), 1 | 4 | 8 | 64 | 512);
    assert_int_equal(info(4), 639);
    assert_int_equal(info(8), (RAM_SIZE - MIB) / KIB);
    char expect[128];
    snprintf(expect, sizeof expect, "%s a b", kernel);
    assert_string_equal((char *)ram.host + info(16), expect);
    assert_int_equal(info(20), 1);
    const uint8_t *mod = ram.host + info(24);
    assert_int_equal(load_le32(mod), LOAD + 0x1000);
    assert_int_equal(load_le32(mod + 4), LOAD + 0x1006);
    assert_memory_equal(ram.host + LOAD + 0x1000, "module", 6);
    assert_string_equal((char *)ram.host + load_le32(mod + 8), initrd);
    assert_int_equal(info(44), 48);
    const uint8_t *second = ram.host + info(48) + 24;
    assert_int_equal(load_le32(second), 20);
    assert_true(load_le64(second + 4) == MIB);
    assert_true(load_le64(second + 12) == RAM_SIZE - MIB);
    assert_int_equal(load_le32(second + 20), E820_RAM);
}

static void no_module(void **state)
{
    make_elf32();
    in.cmdline = NULL;
    loads();
    assert_int_equal(info(20), 0);
    assert_string_equal((char *)ram.host + info(16), kernel);
    in.initrd = initrd;
    refuses(ERR_IO, "cannot open the initrd");
}

static void probe(void **state)
{
    assert_false(multiboot_probe(kernel));
    make_elf32();
    put32(HDR + 8, 0);
    write_file(kernel, img, sizeof img);
    assert_false(multiboot_probe(kernel)); /* the checksum is wrong */
    make_elf32();
    write_file(kernel, img, sizeof img);
    assert_true(multiboot_probe(kernel));
    write_file(kernel, img, HDR + 11); /* cut off within the header */
    assert_false(multiboot_probe(kernel));
    memset(img + HDR, 0, 12);
    put32(0x300, 0x1badb002);
    put32(0x308, 0u - 0x1badb002u);
    memcpy(img + 0x202, "HdrS", 4);
    write_file(kernel, img, sizeof img);
    assert_false(multiboot_probe(kernel)); /* Linux, too */
}

static void bad_headers(void **state)
{
    make_elf32();
    put_header(4);
    refuses(ERR_FORMAT, "video mode");
    put_header(8);
    refuses(ERR_FORMAT, "unknown features (0x8)");
    put_header(0x20000); /* optional: ignored */
    loads();
    memset(img, 0, 64);
    refuses(ERR_FORMAT, "no ELF file");
    memset(img + HDR, 0, 12);
    refuses(ERR_FORMAT, "not a multiboot kernel");
}

static void bad_addresses(void **state)
{
    static const struct {
        unsigned field;
        uint32_t val;
        int code;
        const char *what;
    } bad[] = {
        {12, LOAD - 1, ERR_FORMAT, "not in the file"},
        {12, LOAD + HDR + 1, ERR_FORMAT, "not in the file"},
        {12, 0xffffffff, ERR_FORMAT, "not in the file"},
        {16, 0xffffffff, ERR_FORMAT, "not in the file"},
        {16, 0, ERR_FORMAT, "not in the file"},
        {20, LOAD, ERR_FORMAT, "contradict"},
        {20, LOAD - 1, ERR_FORMAT, "contradict"},
        {20, LOAD + IMG_LEN - HDR + 1, ERR_FORMAT, "more than the file has"},
        {20, 0xffffffff, ERR_FORMAT, "contradict"},
        {24, LOAD, ERR_FORMAT, "contradict"},
        {24, LOAD - 1, ERR_FORMAT, "contradict"},
        {24, 0xffffffff, ERR_NOMEM, "raise 'memory'"},
        {28, LOAD - 1, ERR_FORMAT, "entry point"},
        {28, 0xffffffff, ERR_FORMAT, "entry point"},
    };
    for (size_t n = 0; n < ARRAY_LEN(bad); n++) {
        make_flat();
        put32(HDR + bad[n].field, bad[n].val);
        refuses(bad[n].code, bad[n].what);
    }
    make_flat();
    assert_int_equal(load_len(HDR + 31), ERR_FORMAT); /* cut off within the address fields */
}

static void bad_elf(void **state)
{
    static const struct {
        unsigned off, width;
        uint32_t val;
        int code;
        const char *what;
    } bad[] = {
        {4, 1, 0, ERR_FORMAT, "not for x86"},
        {4, 1, 3, ERR_FORMAT, "not for x86"},
        {5, 1, 2, ERR_FORMAT, "not for x86"},
        {16, 2, 3, ERR_FORMAT, "not linked"},
        {18, 2, 40, ERR_FORMAT, "not for x86"},
        {24, 4, 0, ERR_FORMAT, "entry point"},
        {28, 4, IMG_LEN - 31, ERR_FORMAT, "program headers"},
        {28, 4, 0xffffffff, ERR_FORMAT, "program headers"},
        {42, 2, 31, ERR_FORMAT, "unknown size"},
        {42, 2, 0xffff, ERR_FORMAT, "unknown size"},
        {44, 2, 0xffff, ERR_FORMAT, "program headers"},
        {44, 2, 0, ERR_FORMAT, "entry point"},
        {0x44, 4, CODE + 1, ERR_FORMAT, "more than the file has"},
        {0x44, 4, 0xffffffff, ERR_FORMAT, "more than the file has"},
        {0x4c, 4, 0x90000, ERR_LIMIT, "below 1 MiB"},
        {0x4c, 4, 0x7f001, ERR_LIMIT, "below 1 MiB"},
        {0x4c, 4, RAM_SIZE - 0xfff, ERR_NOMEM, "raise 'memory'"},
        {0x4c, 4, 0xfffff000, ERR_NOMEM, "raise 'memory'"},
        {0x50, 4, 0xffffffff, ERR_FORMAT, "longer in the file"},
        {0x54, 4, CODE_LEN - 1, ERR_FORMAT, "longer in the file"},
        {0x54, 4, 0xffffffff, ERR_NOMEM, "raise 'memory'"},
        {0x54, 4, 0, ERR_FORMAT, "entry point"},
    };
    for (size_t n = 0; n < ARRAY_LEN(bad); n++) {
        memset(img, 0, 0x100);
        make_elf32();
        if (bad[n].width == 4)
            put32(bad[n].off, bad[n].val);
        else if (bad[n].width == 2)
            put16(bad[n].off, (uint16_t)bad[n].val);
        else
            img[bad[n].off] = (uint8_t)bad[n].val;
        refuses(bad[n].code, bad[n].what);
    }
}

static void bad_segments(void **state)
{
    make_elf32();
    put16(44, 2);
    memcpy(img + 0x60, img + 0x40, 32);
    refuses(ERR_FORMAT, "overlap");
    put32(0x6c, LOAD + 0x1000); /* one after the other */
    loads();
    put16(44, 33);
    for (unsigned n = 0; n < 33; n++) {
        memcpy(img + 0x300 + 32 * n, img + 0x40, 32);
        put32(0x300 + 32 * n + 12, LOAD + 0x1000 * n);
    }
    put32(28, 0x300);
    refuses(ERR_LIMIT, "more than 32 segments");
    put16(44, 32);
    loads();
}

static void every_length(void **state)
{
    make_elf32();
    for (size_t len = 1; len < sizeof img; len += len < 0x400 ? 1 : 37)
        assert_int_equal(load_len(len), ERR_FORMAT);
}

static void limits(void **state)
{
    static char line[0x8000];
    make_elf32();
    memset(line, 'x', sizeof line - 1);
    in.cmdline = line;
    refuses(ERR_LIMIT, "too long");
    in.cmdline = NULL;
    in.initrd = initrd;
    uint8_t *big = calloc(1, RAM_SIZE);
    write_file(initrd, big, RAM_SIZE);
    free(big);
    refuses(ERR_NOMEM, "raise 'memory'");
    in.initrd = NULL;
    in.ne820 = LINUX_MAX_E820 + 1;
    refuses(ERR_LIMIT, "memory map");
    in.ne820 = 0;
    in.low_top = MIB;
    refuses(ERR_NOMEM, "raise 'memory'");
    in.low_top = MIB - 4096;
    refuses(ERR_LIMIT, "no memory");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(elf32),       T(elf64),         T(flat),    T(information),  T(no_module),    T(probe),
        T(bad_headers), T(bad_addresses), T(bad_elf), T(bad_segments), T(every_length), T(limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
