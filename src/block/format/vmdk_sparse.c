/*
 * vmdk_sparse.c - sparse extents of a vmdk image: header and footer, grain directory, grain tables,
 * compressed grains.
 *
 * A grain directory is held in memory; grain tables are read when they are needed, into a cache of
 * fixed size. An offset from the file is used only if what it leads to lies within the file, a
 * decompressed grain is bounded by the grain's size, its compressed form by twice that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/endian.h"
#include "base/log.h"
#include "block/format/vmdk_int.h"

/* Fields of the header, bytes. */
enum {
    H_MAGIC = 0,
    H_VERSION = 4,
    H_FLAGS = 8,
    H_CAPACITY = 12,
    H_GRAIN = 20,
    H_DESC = 28,
    H_DESC_SIZE = 36,
    H_TABLE = 44,
    H_DIRECTORY = 56,
    H_LINE_ENDS = 73,
    H_COMPRESSION = 77,
};

#define FLAG_LINE_ENDS  (1u << 0)  /* H_LINE_ENDS shows whether somebody translated them */
#define FLAG_ZEROED     (1u << 2)  /* entry 1: a grain of zeroes */
#define FLAG_COMPRESSED (1u << 16) /* grains are */
#define FLAG_MARKERS    (1u << 17) /* each grain is preceded by where it belongs and its length */

#define DIRECTORY_AT_END UINT64_MAX /* the footer says where: it is the last sector but one */
#define COMPRESS_DEFLATE 1
#define MARKER           12 /* bytes in front of a compressed grain: u64 sector, u32 length */
#define FOOTER_BACK      (2 * VMDK_SECTOR) /* from the file's end */

static bool power_of_two(uint64_t v)
{
    return v && !(v & (v - 1));
}

static int read_header(struct vmdk_extent *x, uint64_t at, uint8_t h[VMDK_SECTOR], struct error *e)
{
    if (!range_within(at, VMDK_SECTOR, node_size(x->file)))
        return error_set(e, ERR_FORMAT, "the file is too short for a header");
    int rc = node_read(x->file, h, VMDK_SECTOR, at);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot read the header");
    if (load_le32(h + H_MAGIC) != VMDK_MAGIC)
        return error_set(e, ERR_FORMAT, "there is no header of a sparse extent%s",
                         at ? " at its end, where its beginning says" : "");
    return 0;
}

static int check_features(struct vmdk_extent *x, const uint8_t *h, struct error *e)
{
    uint32_t version = load_le32(h + H_VERSION), flags = load_le32(h + H_FLAGS);
    if (version < 1 || version > 3)
        return error_set(e, ERR_FORMAT, "version %u of the format is not known; 1 to 3 are",
                         version);
    if ((flags & FLAG_LINE_ENDS) && memcmp(h + H_LINE_ENDS, "\n \r\n", 4) != 0)
        return error_set(e, ERR_FORMAT,
                         "the image was copied as a text, which changed its bytes; copy it anew");
    x->zeroed = flags & FLAG_ZEROED;
    x->compressed = flags & FLAG_COMPRESSED;
    x->markers = flags & FLAG_MARKERS;
    if (x->compressed && load_le16(h + H_COMPRESSION) != COMPRESS_DEFLATE)
        return error_set(e, ERR_FORMAT, "compression %u is not known; deflate (1) is",
                         load_le16(h + H_COMPRESSION));
    return 0;
}

/* Sizes, checked against each other. */
static int check_sizes(struct vmdk_extent *x, const uint8_t *h, struct error *e)
{
    uint64_t capacity = load_le64(h + H_CAPACITY), grain = load_le64(h + H_GRAIN);
    x->table = load_le32(h + H_TABLE);
    if (!power_of_two(grain) || grain > VMDK_MAX_GRAIN / VMDK_SECTOR)
        return error_set(e, ERR_FORMAT,
                         "grains of %llu sectors are not possible: a power of two up to %llu is",
                         (unsigned long long)grain, VMDK_MAX_GRAIN / VMDK_SECTOR);
    if (!power_of_two(x->table) || x->table > VMDK_MAX_TABLE)
        return error_set(e, ERR_FORMAT, "grain tables of %u entries are not possible", x->table);
    if (capacity == 0 || capacity > VMDK_MAX_SIZE / VMDK_SECTOR)
        return error_set(e, ERR_FORMAT, "a capacity of %llu sectors is not possible",
                         (unsigned long long)capacity);
    x->grain = grain * VMDK_SECTOR;
    x->len = capacity * VMDK_SECTOR;
    return 0;
}

static int read_directory(struct vmdk *v, struct vmdk_extent *x, uint64_t sector, struct error *e)
{
    uint64_t span = x->grain * x->table, entries = x->len / span + (x->len % span != 0), at;
    if (entries * 4 > VMDK_MAX_DIRECTORY - v->directories)
        return error_set(e, ERR_LIMIT,
                         "the grain directories would take more than %llu MiB of memory",
                         VMDK_MAX_DIRECTORY / MIB);
    if (!checked_mul_u64(sector, VMDK_SECTOR, &at) || at == 0 ||
        !range_within(at, entries * 4, node_size(x->file)))
        return error_set(e, ERR_FORMAT, "the grain directory does not lie within the file");
    x->directory = malloc(entries * 4);
    if (!x->directory)
        return error_set(e, ERR_NOMEM, "out of memory");
    int rc = node_read(x->file, x->directory, entries * 4, at);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot read the grain directory");
    for (uint64_t i = 0; i < entries; i++)
        x->directory[i] = load_le32(&x->directory[i]);
    x->ndirectory = (uint32_t)entries;
    v->directories += entries * 4;
    return 0;
}

int vmdk_sparse_open(struct vmdk *v, struct vmdk_extent *x, uint64_t *desc, uint64_t *desc_len,
                     struct error *e)
{
    uint8_t h[VMDK_SECTOR];
    int rc = read_header(x, 0, h, e);
    if (rc)
        return rc;
    if (!checked_mul_u64(load_le64(h + H_DESC), VMDK_SECTOR, desc) ||
        !checked_mul_u64(load_le64(h + H_DESC_SIZE), VMDK_SECTOR, desc_len))
        return error_set(e, ERR_FORMAT, "the descriptor does not lie within the file");
    if (load_le64(h + H_DIRECTORY) == DIRECTORY_AT_END) {
        uint64_t size = node_size(x->file);
        rc = read_header(x, size < FOOTER_BACK ? size : size - FOOTER_BACK, h, e);
    }
    if (!rc)
        rc = check_features(x, h, e);
    if (!rc)
        rc = check_sizes(x, h, e);
    return rc ? rc : read_directory(v, x, load_le64(h + H_DIRECTORY), e);
}

/* ---- finding grains ---- */

static struct vmdk_slot *slot_of(struct vmdk *v, const struct vmdk_extent *x, uint32_t number)
{
    return &v->slot[(number + (unsigned)(x - v->extent) * 61u) % VMDK_CACHED_TABLES];
}

static bool slot_holds(struct vmdk *v, const struct vmdk_slot *s, const struct vmdk_extent *x,
                       uint32_t number)
{
    return s->valid && s->extent == (unsigned)(x - v->extent) && s->number == number;
}

/* Reads grain table `number` into the cache; its directory entry is not 0. */
static int load_table(struct vmdk *v, const struct vmdk_extent *x, uint32_t number)
{
    uint32_t entry[VMDK_MAX_TABLE];
    uint64_t at = (uint64_t)x->directory[number] * VMDK_SECTOR;
    if (!range_within(at, x->table * 4ull, node_size(x->file))) {
        log_guest("a grain table of a vmdk image does not lie within its file");
        return -EIO;
    }
    int rc = node_read(x->file, entry, x->table * 4ull, at);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < x->table; i++)
        entry[i] = load_le32(&entry[i]);
    pthread_mutex_lock(&v->cache);
    struct vmdk_slot *s = slot_of(v, x, number);
    memcpy(s->entry, entry, x->table * 4ull);
    s->extent = (unsigned)(x - v->extent);
    s->number = number;
    s->valid = true;
    pthread_mutex_unlock(&v->cache);
    return 0;
}

/* The grain of one entry; false: it does not lie within the file. */
static bool take_entry(const struct vmdk_extent *x, uint32_t entry, struct vmdk_run *out)
{
    out->packed = false;
    out->where = (uint64_t)entry * VMDK_SECTOR;
    out->kind = entry == 0 ? NODE_HOLE : entry == 1 && x->zeroed ? NODE_ZERO : NODE_DATA;
    if (out->kind != NODE_DATA)
        return true;
    out->packed = x->compressed;
    return range_within(out->where, x->compressed ? MARKER : VMDK_SECTOR, node_size(x->file));
}

/* From the first entry on as many grains as are of one kind and, if they are data, follow each
 * other in the file. */
static int find_in_table(const struct vmdk_extent *x, const uint32_t *entry, uint32_t first,
                         uint64_t in, uint64_t len, struct vmdk_run *out)
{
    struct vmdk_run next;
    if (!take_entry(x, entry[first], out)) {
        log_guest("a grain of a vmdk image does not lie within its file");
        return -EIO;
    }
    uint64_t have = x->grain - in;
    for (uint32_t i = first + 1; i < x->table && have < len && !out->packed; i++) {
        bool ok = take_entry(x, entry[i], &next) && next.kind == out->kind;
        if (!ok || (next.kind == NODE_DATA && next.where != out->where + in + have))
            break;
        have += x->grain;
    }
    out->len = min_u64(have, len);
    if (out->kind == NODE_DATA && !out->packed)
        out->where += in;
    return 0;
}

int vmdk_sparse_find(struct vmdk *v, const struct vmdk_extent *x, uint64_t offset, uint64_t len,
                     bool cached, struct vmdk_run *out)
{
    uint64_t index = offset / x->grain, in = offset % x->grain, span = x->grain * x->table;
    uint32_t number = (uint32_t)(index / x->table), first = (uint32_t)(index % x->table);
    if (x->directory[number] == 0) {
        *out = (struct vmdk_run){.kind = NODE_HOLE, .len = min_u64(len, span - offset % span)};
        return 0;
    }
    for (;;) { /* another thread may take the slot between our reading and our looking */
        pthread_mutex_lock(&v->cache);
        const struct vmdk_slot *s = slot_of(v, x, number);
        bool there = slot_holds(v, s, x, number);
        int rc = there ? find_in_table(x, s->entry, first, in, len, out) : -EAGAIN;
        pthread_mutex_unlock(&v->cache);
        if (there || cached)
            return rc;
        rc = load_table(v, x, number);
        if (rc)
            return rc;
    }
}

/* ---- compressed grains ---- */

/* At least `need` bytes must come out; what a grain has beyond them becomes zeroes. */
static int inflate_grain(uint8_t *to, size_t grain, size_t need, const uint8_t *from, size_t len)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)from,
                  .avail_in = (uInt)len,
                  .next_out = to,
                  .avail_out = (uInt)grain};
    if (inflateInit(&z) != Z_OK)
        return -ENOMEM;
    int rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    size_t got = grain - z.avail_out;
    if ((rc != Z_STREAM_END && rc != Z_BUF_ERROR && rc != Z_OK) || got < need) {
        log_guest("a compressed grain of a vmdk image is damaged");
        return -EIO;
    }
    memset(to + got, 0, z.avail_out);
    return 0;
}

/* The bytes of the grain in the file: allocated. */
static int read_packed(const struct vmdk_extent *x, uint64_t offset, uint64_t where, uint8_t **out,
                       size_t *len)
{
    uint8_t m[MARKER];
    uint64_t at = where, room = 2 * x->grain, size = node_size(x->file);
    if (x->markers) {
        int rc = range_within(at, MARKER, size) ? node_read(x->file, m, MARKER, at) : -EIO;
        if (rc)
            return rc;
        at += MARKER;
        if (load_le64(m) != offset / VMDK_SECTOR || load_le32(m + 8) > room ||
            !range_within(at, load_le32(m + 8), size)) {
            log_guest("a compressed grain of a vmdk image has a wrong marker");
            return -EIO;
        }
        room = load_le32(m + 8);
    } else {
        room = at < size ? min_u64(room, size - at) : 0;
    }
    *len = (size_t)room;
    *out = malloc(room ? room : 1);
    return *out ? node_read(x->file, *out, room, at) : -ENOMEM;
}

int vmdk_unpack(struct vmdk *v, const struct vmdk_extent *x, uint64_t offset, uint64_t where,
                void *to, uint64_t len)
{
    uint64_t in = offset % x->grain, begin = offset - in;
    pthread_mutex_lock(&v->cache);
    bool known = v->unpacked && v->unpacked_from == x && v->unpacked_at == begin;
    if (known)
        memcpy(to, v->unpacked + in, len);
    pthread_mutex_unlock(&v->cache);
    if (known)
        return 0;
    CLEANUP_FREE uint8_t *packed = NULL;
    size_t packed_len = 0;
    uint8_t *grain = malloc(x->grain);
    int rc = grain ? read_packed(x, begin, where, &packed, &packed_len) : -ENOMEM;
    if (!rc)
        rc = inflate_grain(grain, x->grain, min_u64(x->grain, x->len - begin), packed, packed_len);
    if (!rc) {
        memcpy(to, grain + in, len);
        pthread_mutex_lock(&v->cache);
        uint8_t *old = v->unpacked;
        v->unpacked = grain;
        v->unpacked_from = x;
        v->unpacked_at = begin;
        grain = old;
        pthread_mutex_unlock(&v->cache);
    }
    free(grain);
    return rc;
}
