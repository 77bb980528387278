/*
 * fuzz_vdi.c - a vdi image in memory, damaged in places, is opened, written and read. Input: flags,
 * what to damage, then writes. What was written reads back, and an image that opened once opens
 * again.
 */
#include <jansson.h>

#include "base/endian.h"
#include "block/format/formats.h"
#include "memfile.h"

#define BLOCK  4096u
#define BLOCKS 24u
#define DATA   1024u

static void make_image(struct memfile *m)
{
    uint8_t *h = m->data;
    store_le32(h + 0x40, 0xbeda107f);
    store_le32(h + 0x44, 0x10001);
    store_le32(h + 0x4c, 1);
    store_le32(h + 0x154, 512);
    store_le32(h + 0x158, DATA);
    store_le32(h + 0x168, 512);
    store_le64(h + 0x170, BLOCKS * BLOCK - 512);
    store_le32(h + 0x178, BLOCK);
    store_le32(h + 0x180, BLOCKS);
    store_le32(h + 0x184, 4);
    memset(h + 512, 0xff, 512);
    for (uint32_t b = 0; b < 4; b++) {
        store_le32(h + 512 + b * 12, 3 - b);
        memset(h + DATA + b * BLOCK, (int)b + 1, BLOCK);
    }
    store_le32(h + 512 + 4, 0xfffffffe);
    m->node.size = DATA + 4 * BLOCK;
}

static struct node *open_image(struct memfile *m, bool readonly, bool check)
{
    const struct format_open o = {.path = "image", .readonly = readonly, .check = check};
    struct error e = {0};
    struct node *n = NULL;
    int rc = format_vdi.open(&m->node, &o, &n, &e);
    FUZZ_REQUIRE(rc == 0 ? n != NULL : (e.code == rc && e.msg[0]));
    return n;
}

static void write_some(struct node *n, struct fuzz_in *in)
{
    static uint8_t a[65536], b[65536];
    uint8_t what = fuzz_u8(in);
    uint64_t size = node_size(n), at = fuzz_uint(in, 3) % size;
    uint64_t len = min_u64(fuzz_u16(in) + 1u, size - at);
    struct node_place p;
    memset(a, what, len);
    int rc = 0;
    switch (what % 5) {
    case 0:
        node_flush(n);
        return;
    case 1:
        memset(a, 0, len);
        rc = node_zero(n, at, len, what & 16 ? NODE_MAY_UNMAP : NODE_FUA);
        break;
    case 2:
        memset(a, 0, len);
        rc = node_discard(n, at, len);
        break;
    case 3:
        if (node_resolve(n, at, len, true, &p))
            FUZZ_REQUIRE(p.node && p.len > 0 && p.len <= len);
        return;
    default:
        rc = node_write(n, a, len, at, what & 16 ? NODE_FUA : 0);
    }
    if (!rc && !node_read(n, b, len, at))
        FUZZ_REQUIRE(memcmp(a, b, len) == 0);
}

/* What can be repaired is sound afterwards. */
static void repair(struct memfile *m)
{
    struct format_check found = {0}, again = {0};
    struct node *n = open_image(m, false, true);
    if (!n)
        return;
    bool done = !format_vdi.check(n, FORMAT_FIX_LEAKS | FORMAT_FIX_ERRORS, &found, NULL);
    if (done)
        done = !format_vdi.check(n, 0, &again, NULL);
    FUZZ_REQUIRE(!done || again.errors + again.leaks == 0);
    node_close(n);
    n = open_image(m, true, false);
    FUZZ_REQUIRE(n || !done);
    node_close(n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    struct memfile *m = memfile_open();
    uint8_t flags = fuzz_u8(&in), damages = fuzz_u8(&in) % 8;
    m->stays = true;
    make_image(m);
    while (damages-- && in.left)
        memfile_damage(m, &in, DATA);
    if (flags & 128)
        m->node.size = fuzz_uint(&in, 3);
    struct node *n = open_image(m, flags & 1, false);
    if (n) {
        memfile_use(n);
        for (unsigned i = 0; in.left && i < 32; i++)
            write_some(n, &in);
        if (flags & 2)
            node_resize(n, (fuzz_u16(&in) + 1ull) * 512, NULL);
        json_t *info = format_vdi.info(n);
        FUZZ_REQUIRE(info);
        json_decref(info);
        node_close(n);
        n = open_image(m, true, false);
        FUZZ_REQUIRE(n || !(flags & 1));
        node_close(n);
    }
    if (flags & 4)
        repair(m);
    free(m);
    return 0;
}
