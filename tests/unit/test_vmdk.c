/*
 * test_vmdk.c - vmdk: the descriptor's text, headers that are refused and why, grains of each kind.
 * tests/func/formats.py opens what QEMU's tools made.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/endian.h"
#include "block/format/formats.h"
#include "block/format/vmdk_int.h"

#define FILE_SIZE (128u * 1024)
#define SECTORS   100u /* of the disk: the last grain is not whole */
#define GRAIN     8u   /* sectors */

/* ---- the descriptor ---- */

static int parse(const char *text, struct vmdk_desc *d, struct error *e)
{
    *e = (struct error){0};
    return vmdk_desc_parse(text, strlen(text), d, e);
}

static void descriptor(void **state)
{
    struct vmdk_desc d;
    struct error e;
    assert_int_equal(parse("# Disk DescriptorFile\r\nversion=1\r\nCID=00c0FFee\r\n parentCID = 12\n"
                           "createType=\"twoGbMaxExtentFlat\"\nparentFileNameHint=\"a b.vmdk\"\n"
                           "unknown = \"x\"\n# RW 5 ZERO\n\nRW 4192256 FLAT \"x y-f001.vmdk\" 17\n"
                           "rdonly 63 zero\nRW 9 SPARSE \"s\"\n\0 RW 1 ZERO",
                           &d, &e),
                     0);
    assert_int_equal(d.cid, 0xc0ffee);
    assert_int_equal(d.parent_cid, 0x12);
    assert_string_equal(d.type, "twoGbMaxExtentFlat");
    assert_string_equal(d.parent, "a b.vmdk");
    assert_int_equal(d.nline, 3);
    assert_int_equal(d.line[0].sectors, 4192256);
    assert_int_equal(d.line[0].offset, 17);
    assert_string_equal(d.line[0].name, "x y-f001.vmdk");
    assert_true(d.line[1].kind == VMDK_ZERO && d.line[1].sectors == 63 && !d.line[1].name);
    assert_true(d.line[2].kind == VMDK_SPARSE && d.line[2].offset == 0);
    vmdk_desc_free(&d);
    assert_int_equal(parse("", &d, &e), 0);
    assert_int_equal(d.parent_cid, VMDK_NO_CID);
    vmdk_desc_free(&d);
}

static void descriptor_refused(void **state)
{
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"RW 0 ZERO", "no number of sectors"},
        {"RW -1 ZERO", "no number of sectors"},
        {"RW 99999999999999999999 ZERO", "no number of sectors"},
        {"RW 8 MAGIC \"x\"", "'MAGIC', which is not supported"},
        {"RW 8 FLAT", "no file name"},
        {"RW 8 FLAT \"x", "no file name"},
        {"RW 8 FLAT \"x\" y", "offset is no number"},
        {"NOACCESS 8 FLAT \"x\"", "must not be accessed"},
        {"CID=xyz", "no number"},
        {"parentCID=123456789", "no number"},
        {"parentFileNameHint=\"x", "'parentFileNameHint' has no end"},
    };
    struct vmdk_desc d;
    struct error e;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_int_equal(parse(bad[i].text, &d, &e), ERR_FORMAT);
        if (!strstr(e.msg, bad[i].says))
            fail_msg("%s: '%s'", bad[i].text, e.msg);
        vmdk_desc_free(&d);
    }
    char many[(VMDK_MAX_EXTENTS + 1) * 10 + 1] = "";
    for (unsigned i = 0; i <= VMDK_MAX_EXTENTS; i++)
        memcpy(many + i * 10, "RW 1 ZERO\n", 11);
    assert_int_equal(parse(many, &d, &e), ERR_LIMIT);
    vmdk_desc_free(&d);
}

/* ---- a file in memory ---- */

struct mem {
    struct node node;
    uint8_t data[FILE_SIZE];
    unsigned reads;
};

static int mem_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct mem *m = (struct mem *)(void *)n;
    m->reads++;
    for (int i = 0; i < niov; offset += iov[i++].iov_len)
        memcpy(iov[i].iov_base, m->data + offset, iov[i].iov_len);
    return 0;
}

static void mem_close(struct node *n)
{
}

static bool mem_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                        struct node_place *out)
{
    *out = (struct node_place){n, offset, len};
    return true;
}

static const struct node_ops mem_ops = {
    .name = "memory", .read = mem_read, .resolve = mem_resolve, .close = mem_close};
static struct mem mem;

static const char text[] = "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\n";

/* Sector 1: the descriptor, 2: the directory, 3, 4: tables of 8 entries, from 16 on grains. */
static void make(void)
{
    uint8_t *h = mem.data;
    mem = (struct mem){.node = {.ops = &mem_ops, .size = FILE_SIZE, .fd = -1}};
    memcpy(h, "KDMV", 4);
    store_le32(h + 4, 1);
    store_le32(h + 8, 1 | 4);
    store_le64(h + 12, SECTORS);
    store_le64(h + 20, GRAIN);
    store_le64(h + 28, 1);
    store_le64(h + 36, 1);
    store_le32(h + 44, 8);
    store_le64(h + 56, 2);
    memcpy(h + 73, "\n \r\n", 4);
    memcpy(h + 512, text, sizeof text);
    store_le32(h + 1024, 3);
    store_le32(h + 1028, 4);
    for (uint32_t g = 0; g < 13; g++) {
        store_le32(h + 3 * 512 + g / 8 * 512 + g % 8 * 4, g == 5 ? 0 : g == 6 ? 1 : 16 + g * GRAIN);
        memset(h + (16 + g * GRAIN) * 512, (int)(g + 1), GRAIN * 512);
    }
}

static int open_it(struct node **n, struct error *e)
{
    const struct format_open o = {.path = "x.vmdk", .readonly = true};
    *e = (struct error){0};
    *n = NULL;
    return format_vmdk.open(&mem.node, &o, n, e);
}

static struct node *opened(void)
{
    struct node *n;
    struct error e;
    if (open_it(&n, &e))
        fail_msg("%s", e.msg);
    return n;
}

static void grains(void **state)
{
    static uint8_t b[SECTORS * 512];
    struct node_extent x;
    struct node_place p;
    make();
    struct node *n = opened();
    assert_int_equal(n->size, SECTORS * 512);
    assert_true(n->readonly);
    assert_false(node_resolve(n, 0, 512, false, &p)); /* its table is not in memory yet */
    memset(b, 0xee, sizeof b);
    assert_int_equal(node_read(n, b, sizeof b, 0), 0);
    for (uint32_t s = 0; s < SECTORS; s++) {
        uint8_t want = s / GRAIN == 5 || s / GRAIN == 6 ? 0 : (uint8_t)(s / GRAIN + 1);
        assert_int_equal(b[s * 512], want);
        assert_int_equal(b[s * 512 + 511], want);
    }
    unsigned reads = mem.reads;
    assert_true(node_resolve(n, 100, 50000, false, &p));
    assert_int_equal(mem.reads, reads);
    assert_ptr_equal(p.node, &mem.node);
    assert_int_equal(p.offset, 16 * 512 + 100);
    assert_int_equal(p.len, 5 * GRAIN * 512 - 100); /* grains that follow each other */
    assert_true(node_resolve(n, 5 * GRAIN * 512, 50, false, &p));
    assert_null(p.node);
    assert_int_equal(node_map(n, 5 * GRAIN * 512, 20000, &x), 0);
    assert_true(x.kind == NODE_HOLE && x.len == GRAIN * 512);
    assert_int_equal(node_map(n, 6 * GRAIN * 512, 20000, &x), 0);
    assert_true(x.kind == NODE_ZERO && x.len == GRAIN * 512);
    assert_int_equal(node_write(n, b, 1, 0, 0), -EROFS);
    node_close(n);
}

/* Entries that lead out of the file fail the read, not more. */
static void wild_entries(void **state)
{
    uint8_t b[512];
    make();
    store_le32(mem.data + 3 * 512, FILE_SIZE / 512);
    store_le32(mem.data + 3 * 512 + 4, UINT32_MAX);
    store_le32(mem.data + 1028, FILE_SIZE / 512);
    struct node *n = opened();
    assert_int_equal(node_read(n, b, 1, 0), -EIO);
    assert_int_equal(node_read(n, b, 1, GRAIN * 512), -EIO);
    assert_int_equal(node_read(n, b, 1, 2 * GRAIN * 512), 0);
    assert_int_equal(node_read(n, b, 1, 8 * GRAIN * 512), -EIO);
    node_close(n);
}

static void headers_refused(void **state)
{
    static const struct {
        unsigned at, bytes;
        uint64_t value;
        int code;
        const char *says;
    } bad[] = {
        {4, 4, 4, ERR_FORMAT, "version 4"},
        {12, 8, 0, ERR_FORMAT, "capacity of 0"},
        {12, 8, UINT64_MAX, ERR_FORMAT, "capacity"},
        {12, 8, 1ull << 40, ERR_LIMIT, "MiB of memory"},
        {12, 8, 1ull << 24, ERR_FORMAT, "directory does not lie"},
        {20, 8, 0, ERR_FORMAT, "grains of 0"},
        {20, 8, 24, ERR_FORMAT, "grains of 24"},
        {20, 8, 8192, ERR_FORMAT, "grains of 8192"},
        {28, 8, 1ull << 60, ERR_FORMAT, "descriptor does not lie"},
        {28, 8, 1000, ERR_FORMAT, "descriptor does not lie"},
        {28, 8, 0, ERR_FORMAT, "one part of an image"},
        {36, 8, 129, ERR_LIMIT, "66048 bytes"},
        {44, 4, 0, ERR_FORMAT, "tables of 0"},
        {44, 4, 1024, ERR_FORMAT, "tables of 1024"},
        {56, 8, 0, ERR_FORMAT, "directory does not lie"},
        {56, 8, 1ull << 60, ERR_FORMAT, "directory does not lie"},
        {56, 8, UINT64_MAX, ERR_FORMAT, "at its end"},
        {74, 1, '\n', ERR_FORMAT, "copied as a text"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        uint8_t v[8];
        struct error e;
        struct node *n;
        make();
        store_le64(v, bad[i].value);
        memcpy(mem.data + bad[i].at, v, bad[i].bytes);
        assert_int_equal(open_it(&n, &e), bad[i].code);
        if (!strstr(e.msg, bad[i].says) || strncmp(e.msg, "x.vmdk: ", 8) != 0)
            fail_msg("%u: '%s'", bad[i].at, e.msg);
    }
    struct error e;
    struct node *n;
    make();
    mem.node.size = 511;
    assert_int_equal(open_it(&n, &e), ERR_FORMAT);
    make();
    const struct format_open o = {.path = "x.vmdk"};
    assert_int_equal(format_vmdk.open(&mem.node, &o, &n, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "can only be read"));
}

/* Packed grains: one that is whole, one that is short, one with a foreign marker, one too long. */
static void packed_grains(void **state)
{
    uint8_t plain[GRAIN * 512], b[600];
    make();
    store_le32(mem.data + 8, 0x30001);
    store_le16(mem.data + 77, 1);
    memset(mem.data + 8192, 0, 8 * 4096);
    for (uint32_t g = 0; g < 4; g++) {
        uint8_t *to = mem.data + (16 + g * GRAIN) * 512;
        uLongf len = 1000;
        memset(plain, 'a' + (int)g, sizeof plain);
        assert_int_equal(compress(to + 12, &len, plain, g == 1 ? 100 : sizeof plain), Z_OK);
        store_le64(to, g == 2 ? 7 : g * GRAIN);
        store_le32(to + 8, g == 3 ? 2 * GRAIN * 512 + 1 : (uint32_t)len);
    }
    struct node *n = opened();
    struct node_extent x;
    struct node_place p;
    assert_int_equal(node_read(n, b, sizeof b, 700), 0);
    assert_true(b[0] == 'a' && b[599] == 'a');
    unsigned reads = mem.reads;
    assert_int_equal(node_read(n, b, 512, 2048), 0); /* it is still there */
    assert_int_equal(mem.reads, reads);
    assert_int_equal(node_map(n, 0, 9000, &x), 0);
    assert_true(x.kind == NODE_DATA && x.compressed && !x.placed && x.len == GRAIN * 512);
    assert_false(node_resolve(n, 0, 512, false, &p));
    for (uint32_t g = 1; g < 4; g++)
        assert_int_equal(node_read(n, b, 1, g * GRAIN * 512), -EIO);
    store_le16(mem.data + 77, 2);
    struct error e;
    struct node *other;
    assert_int_equal(open_it(&other, &e), ERR_FORMAT);
    assert_non_null(strstr(e.msg, "compression 2"));
    node_close(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptor),      cmocka_unit_test(descriptor_refused),
        cmocka_unit_test(grains),          cmocka_unit_test(wild_entries),
        cmocka_unit_test(headers_refused), cmocka_unit_test(packed_grains),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
