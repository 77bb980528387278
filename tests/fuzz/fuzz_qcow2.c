/*
 * fuzz_qcow2.c - a qcow2 image in memory, damaged in places, is opened and used. Input: the kind
 * of image, then records: what to damage (a field of the header, or any bytes of the file), and
 * after those what to do with it. An image that was not damaged must be sound at the end.
 */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "block/format/formats.h"
#include "block/format/qcow2.h"
#include "block/iov.h"
#include "fuzz.h"

#define PAGES     2048u /* of 4 KiB that the file may have */
#define DAMAGES   12
#define OPS       24
#define BUF       (128u * 1024)
#define DISK_SIZE (256 * KIB)
#define CACHE     (64 * KIB) /* large enough for all tables */

/* A file in memory, mostly holes; ENOSPC when it has too many pages. A copy has its pages in common
 * with the file that it was made from, until it writes to them: that file stays as it is. */
struct mem {
    struct node node;
    struct {
        uint64_t number; /* of the page + 1; 0: free */
        uint8_t *data;
        bool common;
    } page[PAGES];
    unsigned used;
    bool stays; /* closing does not free it */
};

/* The page's place, or where it would be. */
static unsigned place_of(const struct mem *m, uint64_t number)
{
    unsigned i = (unsigned)(number * 0x9e3779b1u) % PAGES;
    while (m->page[i].number && m->page[i].number != number + 1)
        i = (i + 1) % PAGES;
    return i;
}

static const uint8_t *page_to_read(const struct mem *m, uint64_t number)
{
    return m->page[place_of(m, number)].data;
}

static uint8_t *page_to_write(struct mem *m, uint64_t number)
{
    unsigned i = place_of(m, number);
    const uint8_t *old = m->page[i].data;
    if (old && !m->page[i].common)
        return m->page[i].data;
    uint8_t *data = old || m->used < PAGES / 2 ? calloc(1, PAGE_SIZE) : NULL;
    if (!data)
        return NULL;
    if (old)
        memcpy(data, old, PAGE_SIZE);
    else
        m->used++;
    m->page[i].number = number + 1;
    m->page[i].data = data;
    m->page[i].common = false;
    return data;
}

static int mem_move(struct mem *m, uint8_t *buf, uint64_t len, uint64_t at, bool write)
{
    while (len > 0) {
        uint64_t in = at % PAGE_SIZE, part = min_u64(len, PAGE_SIZE - in);
        uint8_t *w = write ? page_to_write(m, at / PAGE_SIZE) : NULL;
        const uint8_t *p = write ? w : page_to_read(m, at / PAGE_SIZE);
        if (write && !w)
            return -ENOSPC;
        if (write)
            memcpy(w + in, buf, part);
        else if (p)
            memcpy(buf, p + in, part);
        else
            memset(buf, 0, part);
        buf += part;
        at += part;
        len -= part;
    }
    return 0;
}

static int mem_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    for (int i = 0; i < niov; offset += iov[i++].iov_len)
        mem_move((struct mem *)(void *)n, iov[i].iov_base, iov[i].iov_len, offset, false);
    return 0;
}

static int mem_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                     unsigned flags)
{
    for (int i = 0; i < niov; offset += iov[i++].iov_len) {
        int rc = mem_move((struct mem *)(void *)n, iov[i].iov_base, iov[i].iov_len, offset, true);
        if (rc)
            return rc;
    }
    n->size = max_u64(n->size, offset);
    return 0;
}

static int mem_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    static uint8_t zeroes[PAGE_SIZE];
    n->size = max_u64(n->size, offset + len);
    for (uint64_t at = offset; at < offset + len;) {
        uint64_t part = min_u64(offset + len - at, PAGE_SIZE - at % PAGE_SIZE);
        if (page_to_read((struct mem *)(void *)n, at / PAGE_SIZE))
            mem_move((struct mem *)(void *)n, zeroes, part, at, true);
        at += part;
    }
    return 0;
}

static int mem_flush(struct node *n)
{
    return 0;
}

static void mem_free(struct mem *m)
{
    for (unsigned i = 0; i < PAGES; i++)
        if (!m->page[i].common)
            free(m->page[i].data);
    free(m);
}

static void mem_close(struct node *n)
{
    struct mem *m = (struct mem *)(void *)n;
    if (!m->stays)
        mem_free(m);
}

static const struct node_ops mem_ops = {.name = "memory",
                                        .read = mem_read,
                                        .write = mem_write,
                                        .zero = mem_zero,
                                        .flush = mem_flush,
                                        .close = mem_close};

static struct mem *mem_open(void)
{
    struct mem *m = calloc(1, sizeof *m);
    FUZZ_REQUIRE(m);
    m->node.ops = &mem_ops;
    m->node.grows = true;
    return m;
}

static struct mem *mem_copy(const struct mem *from)
{
    struct mem *m = malloc(sizeof *m);
    FUZZ_REQUIRE(m);
    *m = *from;
    for (unsigned i = 0; i < PAGES; i++)
        m->page[i].common = true;
    return m;
}

/* Whatever an image names is a small disk of ones. */
static int open_named(const struct format_opener *o, const char *from, const char *name,
                      const char *format, bool readonly, unsigned depth, struct node **out,
                      struct error *e)
{
    static uint8_t ones[DISK_SIZE / 2];
    static struct mem *disk;
    if (!disk) {
        disk = mem_open();
        memset(ones, 1, sizeof ones);
        FUZZ_REQUIRE(!node_write(&disk->node, ones, sizeof ones, 0, 0));
    }
    *out = &mem_copy(disk)->node;
    (*out)->readonly = readonly;
    (*out)->grows = !strcmp(format, "file");
    return 0;
}

static const struct format_opener opener = {.open = open_named};

static const struct {
    const char *value[QCOW2_OPTIONS];
    const char *backing;
} kinds[] = {
    {{NULL}, NULL},
    {{"512", "3", "64", "on"}, "b"},
    {{"4096", "2"}, "b"},
    {{"16k", "3", "1", "off", "on", "zstd"}, "b"},
    {{"4096", "3", "8", "off", "off", "zstd"}, NULL},
    {{"4096", "3", "16", "off", "off", "zlib", "data"}, "b"},
    {{"128k", "3", "2"}, NULL},
    {{"512", "3", "16", "off", "off", "zlib", "data", "on"}, NULL},
};

static struct node *open_image(struct node *file, bool readonly, bool check)
{
    struct format_open o = {
        .path = "image", .readonly = readonly, .check = check, .opener = &opener};
    struct error e = {0};
    struct node *n = NULL;
    int rc = format_qcow2.open(file, &o, &n, &e);
    FUZZ_REQUIRE(rc == 0 || (e.code && e.msg[0]));
    return rc ? NULL : n;
}

static uint8_t buf[BUF];

/* An image with some of everything in it. */
static struct mem *make_image(unsigned kind)
{
    struct mem *m = mem_open();
    m->stays = true;
    qcow2_set_cache_size(CACHE); /* whatever the input before this one had set */
    struct format_create c = {.size = DISK_SIZE,
                              .value = kinds[kind].value,
                              .backing = kinds[kind].backing,
                              .backing_format = kinds[kind].backing ? "raw" : NULL};
    FUZZ_REQUIRE(!format_qcow2.create(&m->node, &c, NULL));
    struct node *n = open_image(&m->node, false, false);
    FUZZ_REQUIRE(n);
    memset(buf, 2, sizeof buf);
    FUZZ_REQUIRE(!node_write(n, buf, 25000, 5000, 0));
    FUZZ_REQUIRE(!node_zero(n, 65536, 65536, 0));
    FUZZ_REQUIRE(!node_discard(n, 16384, 8192));
    for (uint64_t at = 128 * KIB; at < 150 * KIB && n->granularity <= BUF; at += n->granularity)
        format_qcow2.write_compressed(n, buf, n->granularity, at);
    node_close(n);
    return m;
}

/* A copy: to make an image takes longer than all that is done with it. */
static struct mem *image_of(unsigned kind)
{
    static struct mem *made[ARRAY_LEN(kinds)];
    if (!made[kind])
        made[kind] = make_image(kind);
    return mem_copy(made[kind]);
}

/* A snapshot of the disk as it is; its refcounts are not right, which nobody needs to mind. */
static void add_snapshot(struct mem *m)
{
    uint8_t h[80], l1[4096], entry[48] = {0};
    FUZZ_REQUIRE(!node_read(&m->node, h, sizeof h, 0));
    uint32_t bits = load_be32(h + 20);
    uint64_t cluster = 1ull << bits, at = (m->node.size + cluster - 1) & ~(cluster - 1);
    size_t len = min_u64(load_be32(h + 36) * 8ull, sizeof l1);
    FUZZ_REQUIRE(!node_read(&m->node, l1, sizeof l1, load_be64(h + 40)));
    store_be64(entry, at);
    store_be32(entry + 8, (uint32_t)len / 8);
    store_be16(entry + 12, 1);
    store_be16(entry + 14, 1);
    memcpy(entry + 40, "1s", 2);
    store_be32(h + 60, 1);
    store_be64(h + 64, at + ((len + cluster - 1) & ~(cluster - 1)));
    FUZZ_REQUIRE(!node_write(&m->node, l1, len, at, 0));
    FUZZ_REQUIRE(!node_write(&m->node, entry, sizeof entry, load_be64(h + 64), 0));
    FUZZ_REQUIRE(!node_write(&m->node, h, 72, 0, 0));
}

/* Damages a field of the header, or eight bytes that may be an entry of a table. */
static void damage(struct mem *m, struct fuzz_in *in)
{
    static const uint8_t field[] = {4,  8,  12, 16, 20, 24, 28, 32, 36, 40, 44,  48,  52,  56,
                                    60, 64, 68, 72, 76, 80, 84, 88, 92, 96, 100, 104, 112, 120};
    uint8_t what = fuzz_u8(in), b[8];
    uint64_t at = what & 1 ? field[(what >> 1) % sizeof field] : fuzz_uint(in, 3) * 8;
    if (at >= m->node.size)
        at %= m->node.size;
    FUZZ_REQUIRE(!node_read(&m->node, b, sizeof b, at));
    uint64_t v = load_be64(b);
    switch (fuzz_u8(in) % 5) {
    case 0:
        v = fuzz_uint(in, 8);
        break;
    case 1: /* looks like an entry */
        v = (uint64_t)fuzz_u8(in) << 56 | (uint64_t)fuzz_u16(in) << 9 | fuzz_u8(in);
        break;
    case 2:
        v ^= 1ull << (fuzz_u8(in) % 64);
        break;
    case 3:
        v += fuzz_u16(in);
        break;
    default:
        v = v >> 32 << 32 | (uint32_t)fuzz_uint(in, 4);
    }
    store_be64(b, v);
    node_write(&m->node, b, sizeof b, at, 0);
    if (what == 255) /* a file with a huge hole at its end */
        m->node.size = max_u64(m->node.size, fuzz_uint(in, 6));
}

static void use(struct node *n, struct fuzz_in *in)
{
    uint8_t what = fuzz_u8(in);
    uint64_t size = node_size(n), at = fuzz_uint(in, 5), len = fuzz_uint(in, 3) % BUF + 1;
    struct node_place place;
    struct node_extent x;
    struct format_check found = {0};
    at = size ? at % size : 0;
    len = min_u64(len, size - at);
    switch (what % 12) {
    case 0:
    case 1:
        node_read(n, buf, len, at);
        break;
    case 2:
    case 3:
        node_write(n, buf, len, at, what & 16 ? NODE_FUA : 0);
        break;
    case 4:
        node_zero(n, at, len << (what >> 6), what & 16 ? NODE_MAY_UNMAP : 0);
        break;
    case 5:
        node_discard(n, at, len << (what >> 6));
        break;
    case 6:
        if (len && !node_map(n, at, size - at, &x))
            FUZZ_REQUIRE(x.len > 0 && x.len <= size - at);
        break;
    case 7:
        if (len && node_resolve(n, at, len, what & 16, &place))
            FUZZ_REQUIRE(place.len > 0 && place.len <= len);
        break;
    case 8:
        node_flush(n);
        break;
    case 9:
        node_resize(n, what & 16 ? at : size + len, NULL);
        break;
    case 10:
        if (n->granularity <= BUF)
            format_qcow2.write_compressed(n, buf, n->granularity, at & -(uint64_t)n->granularity);
        break;
    default:
        if (what & 16)
            format_qcow2.rebase(n, what & 32 ? "other" : NULL, "raw", NULL);
        else
            format_qcow2.check(n, 0, &found, NULL);
    }
}

/* Opens the image at a snapshot and reads. */
static void use_snapshot(struct mem *m)
{
    struct format_open o = {.path = "image", .readonly = true, .opener = &opener, .snapshot = "s"};
    struct node *n = NULL;
    if (format_find("qcow2")->open(&m->node, &o, &n, NULL))
        return;
    for (uint64_t at = 0; at < node_size(n) && at < DISK_SIZE; at += BUF)
        node_read(n, buf, min_u64(BUF, node_size(n) - at), at);
    node_close(n);
}

/* Repairs it; then it is sound, or what cannot be repaired has been told. */
static void repair(struct mem *m, bool sound)
{
    struct format_check found = {0};
    struct node *n = open_image(&m->node, sound, true);
    if (!n)
        return;
    int rc = format_qcow2.check(n, sound ? 0 : FORMAT_FIX_LEAKS | FORMAT_FIX_ERRORS, &found, NULL);
    FUZZ_REQUIRE(!sound || (!rc && !found.errors && !found.leaks));
    json_t *info = format_qcow2.info(n);
    FUZZ_REQUIRE(info);
    json_decref(info);
    node_close(n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_in in = {data, size};
    uint8_t first = fuzz_u8(&in), damages = fuzz_u8(&in) % DAMAGES, flags = fuzz_u8(&in);
    struct mem *m = image_of(first % ARRAY_LEN(kinds));
    qcow2_set_cache_size(flags & 1 ? 0 : CACHE);
    if (flags & 2)
        add_snapshot(m);
    for (unsigned i = 0; i < damages; i++)
        damage(m, &in);
    bool sound = !damages && !(flags & 2) && m->used < PAGES / 4;
    if (flags & 4)
        repair(m, sound);
    struct node *n = open_image(&m->node, flags & 8, flags & 16);
    for (unsigned i = 0; n && in.left && i < OPS; i++)
        use(n, &in);
    node_close(n);
    if (flags & 2)
        use_snapshot(m);
    repair(m, sound && !(flags & 16) && m->used < PAGES / 4);
    mem_free(m);
    return 0;
}
