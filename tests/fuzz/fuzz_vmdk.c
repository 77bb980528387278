/*
 * fuzz_vmdk.c - a vmdk image in memory, damaged in places, is opened and read. Input: the kind of
 * image, then what to damage. Whatever it names is another such file, or bytes.
 */
#include <jansson.h>
#include <zlib.h>

#include "base/endian.h"
#include "block/format/formats.h"
#include "memfile.h"

#define SECTOR   512u
#define CAPACITY 256u /* sectors */
#define GRAIN    8u   /* sectors */
#define TABLE    16u  /* entries */
#define DESC_AT  1u
#define DIR_AT   3u
#define TABLE_AT 4u
#define DATA_AT  16u

static const char described[] = "# Disk DescriptorFile\nversion=1\nCID=00000001\n"
                                "parentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"\n"
                                "RW 256 SPARSE \"s\"\nRW 100 ZERO\nRW 64 FLAT \"f\" 8\n";
static const char embedded[] = "# Disk DescriptorFile\nCID=1\nparentCID=2\n"
                               "parentFileNameHint=\"p\"\nRW 256 SPARSE \"x\"\n";

static void put(struct memfile *m, uint32_t at, const void *bytes, size_t len)
{
    memcpy(m->data + at, bytes, len);
    m->node.size = max_u64(m->node.size, at + len);
}

/* Packs a grain of one byte; returns the sectors that it takes. */
static uint32_t put_packed(struct memfile *m, uint32_t sector, uint32_t grain, uint8_t byte)
{
    uint8_t plain[GRAIN * SECTOR], packed[SECTOR];
    uLongf len = sizeof packed - 12;
    memset(plain, byte, sizeof plain);
    FUZZ_REQUIRE(compress(packed + 12, &len, plain, sizeof plain) == Z_OK);
    store_le64(packed, grain * GRAIN);
    store_le32(packed + 8, (uint32_t)len);
    put(m, sector * SECTOR, packed, 12 + len);
    return 1;
}

static void make_sparse(struct memfile *m, bool packed)
{
    uint8_t h[SECTOR] = "KDMV", entry[4];
    uint32_t data = DATA_AT;
    store_le32(h + 4, packed ? 3 : 1);
    store_le32(h + 8, packed ? 0x30001 : 5);
    store_le64(h + 12, CAPACITY);
    store_le64(h + 20, GRAIN);
    store_le64(h + 28, DESC_AT);
    store_le64(h + 36, 2);
    store_le32(h + 44, TABLE);
    store_le64(h + 56, packed ? UINT64_MAX : DIR_AT);
    memcpy(h + 73, "\n \r\n", 4);
    h[77] = packed;
    put(m, 0, h, sizeof h);
    put(m, DESC_AT * SECTOR, embedded, sizeof embedded);
    for (uint32_t t = 0; t < CAPACITY / GRAIN / TABLE; t++) {
        store_le32(entry, TABLE_AT + t);
        put(m, DIR_AT * SECTOR + 4 * t, entry, 4);
    }
    for (uint32_t g = 0; g < CAPACITY / GRAIN; g++) {
        uint32_t at = g % 5 == 4 ? 0 : g % 5 == 3 ? 1 : data;
        store_le32(entry, packed && at == 1 ? 0 : at);
        put(m, (TABLE_AT + g / TABLE) * SECTOR + g % TABLE * 4, entry, 4);
        if (at < DATA_AT)
            continue;
        data += packed ? put_packed(m, data, g, (uint8_t)g) : GRAIN;
    }
    put(m, data * SECTOR, "end", 3);
    if (packed) {
        store_le64(h + 56, DIR_AT);
        put(m, (data + 1) * SECTOR, h, sizeof h);
        memset(h, 0, sizeof h);
        put(m, (data + 2) * SECTOR, h, sizeof h);
    }
}

static int open_named(const struct format_opener *o, const char *from, const char *name,
                      const char *format, bool readonly, unsigned depth, struct node **out,
                      struct error *e)
{
    FUZZ_REQUIRE(readonly && format);
    struct memfile *m = memfile_open();
    if (name[0] != 'f')
        make_sparse(m, name[0] == 'z');
    else
        memset(m->data, 1, m->node.size = 72 * SECTOR);
    *out = &m->node;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct format_opener opener = {.open = open_named};
    struct fuzz_in in = {data, size};
    struct memfile *m = memfile_open();
    struct error e = {0};
    struct node *n = NULL;
    uint8_t kind = fuzz_u8(&in), damages = fuzz_u8(&in) % 16;
    m->stays = true;
    if (kind % 3 == 2)
        put(m, 0, described, sizeof described - 1);
    else
        make_sparse(m, kind % 3);
    while (damages-- && in.left)
        memfile_damage(m, &in, (uint32_t)m->node.size);
    if (kind & 128)
        m->node.size = fuzz_uint(&in, 3);
    struct format_open o = {
        .path = "image", .readonly = true, .no_backing = !(kind & 64), .opener = &opener};
    int rc = format_vmdk.open(&m->node, &o, &n, &e);
    FUZZ_REQUIRE(rc == 0 || (e.code == rc && e.msg[0]));
    if (n) {
        memfile_use(n);
        json_t *info = format_vmdk.info(n);
        FUZZ_REQUIRE(info);
        json_decref(info);
    }
    node_close(n);
    free(m);
    return 0;
}
