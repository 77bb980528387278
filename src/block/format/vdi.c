/* vdi.c - opening, reading, writing and making vdi images. See vdi_int.h for the invariants. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/checked.h"
#include "base/endian.h"
#include "base/log.h"
#include "block/format/formats.h"
#include "block/format/transfer.h"
#include "block/format/vdi_int.h"

static uint32_t entry_of(const struct vdi *v, uint64_t b)
{
    return __atomic_load_n(&v->a.map[b], __ATOMIC_ACQUIRE);
}

static bool is_settled(const struct vdi *v, uint64_t b)
{
    return __atomic_load_n(&v->a.settled[b], __ATOMIC_ACQUIRE);
}

/* ---- reading ---- */

struct run {
    uint32_t entry; /* of the first block */
    uint64_t where; /* in the file, if that is a place */
    uint64_t len;
};

/* From `offset` on, as much of `len` as is of one kind and lies together. */
static struct run find_run(const struct vdi *v, uint64_t offset, uint64_t len)
{
    uint64_t b = offset / v->block, in = offset % v->block, have = v->block - in;
    uint32_t entry = entry_of(v, b);
    for (uint64_t i = 1; have < len; i++, have += v->block)
        if (entry_of(v, b + i) != (vdi_is_place(entry) ? entry + i : entry))
            break;
    return (struct run){.entry = entry,
                        .where = vdi_is_place(entry) ? vdi_place_at(v, entry) + in : 0,
                        .len = min_u64(have, len)};
}

static int vdi_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset)
{
    struct vdi *v = vdi_of(n);
    struct iov_cursor c = {iov, niov, 0};
    uint64_t len = 0;
    iov_total(iov, niov, &len);
    iov_advance(&c, 0);
    while (len > 0) {
        struct run r = find_run(v, offset, len);
        int rc = transfer_read(vdi_is_place(r.entry) ? v->below : NULL, &c, r.where, r.len);
        if (rc)
            return rc;
        offset += r.len;
        len -= r.len;
    }
    return 0;
}

static int vdi_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out)
{
    struct vdi *v = vdi_of(n);
    struct run r = find_run(v, offset, len);
    bool data = vdi_is_place(r.entry);
    *out = (struct node_extent){.kind = data                     ? NODE_DATA
                                        : r.entry == UNALLOCATED ? NODE_HOLE
                                                                 : NODE_ZERO,
                                .len = r.len,
                                .placed = data,
                                .below = data ? v->below : NULL,
                                .where = r.where};
    return 0;
}

/* A write in its place may be one that is to be durable: then its entry has to be, too. */
static bool vdi_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                        struct node_place *out)
{
    struct vdi *v = vdi_of(n);
    if (write)
        len = min_u64(len, v->block - offset % v->block);
    struct run r = find_run(v, offset, len);
    if (write && (!vdi_is_place(r.entry) || !is_settled(v, offset / v->block)))
        return false;
    if (write)
        atomic_store(&v->written, true);
    *out = (struct node_place){vdi_is_place(r.entry) ? v->below : NULL, r.where, r.len};
    return true;
}

/* ---- writing ---- */

/* The first place that is free; there is one for each block. `alloc` held. */
static bool take_place(struct vdi *v, uint32_t *place)
{
    while (v->first_free < v->blocks && v->a.used[v->first_free])
        v->first_free++;
    *place = v->first_free;
    return v->first_free < v->blocks;
}

/* Writes into a block that has no place, which gets one; `len` bytes lie in it. `alloc` held. */
static int write_new(struct vdi *v, struct iov_cursor *c, uint64_t offset, uint64_t len)
{
    uint64_t b = offset / v->block;
    uint32_t place;
    if (!take_place(v, &place))
        return -ENOSPC;
    int rc = 0;
    if (len < v->block)
        rc = node_zero(v->below, vdi_place_at(v, place), v->block, NODE_MAY_UNMAP);
    if (!rc)
        rc = transfer_write(v->below, c, vdi_place_at(v, place) + offset % v->block, len, 0);
    if (rc)
        return rc;
    v->a.used[place] = 1;
    v->end = (uint32_t)max_u64(v->end, place + 1ull);
    v->a.dirty[b / PER_SECTOR] = 1;
    __atomic_store_n(&v->a.map[b], place, __ATOMIC_RELEASE);
    return 0;
}

static int write_block(struct vdi *v, struct iov_cursor *c, uint64_t offset, uint64_t len)
{
    uint64_t b = offset / v->block;
    if (!vdi_is_place(entry_of(v, b))) {
        pthread_mutex_lock(&v->alloc);
        bool none = !vdi_is_place(entry_of(v, b)); /* still */
        int rc = none ? write_new(v, c, offset, len) : 0;
        pthread_mutex_unlock(&v->alloc);
        if (none)
            return rc;
    }
    return transfer_write(v->below, c, vdi_place_at(v, entry_of(v, b)) + offset % v->block, len, 0);
}

/* Takes the entries that are set but not in the file into `file`. Returns whether there are any. */
static bool collect(struct vdi *v, uint8_t *changed, uint8_t count[4])
{
    bool any = false;
    pthread_mutex_lock(&v->alloc);
    store_le32(count, v->end);
    for (uint32_t s = 0; s * PER_SECTOR < v->blocks; s++) {
        changed[s] = v->a.dirty[s];
        any |= v->a.dirty[s];
        if (!v->a.dirty[s])
            continue;
        v->a.dirty[s] = 0;
        for (uint32_t b = s * PER_SECTOR; b < (s + 1) * PER_SECTOR && b < v->blocks; b++)
            store_le32(v->a.file + b * 4ull, v->a.map[b]);
    }
    pthread_mutex_unlock(&v->alloc);
    return any;
}

static int write_map(struct vdi *v, const uint8_t *changed)
{
    for (uint32_t s = 0; s * PER_SECTOR < v->blocks; s++) {
        int rc = !changed[s] ? 0
                             : node_write(v->below, v->a.file + (uint64_t)s * SECTOR, SECTOR,
                                          v->map_at + (uint64_t)s * SECTOR, 0);
        if (rc)
            return rc;
    }
    return 0;
}

static void settle(struct vdi *v, const uint8_t *changed)
{
    for (uint32_t b = 0; b < v->blocks; b++)
        if (changed[b / PER_SECTOR] && vdi_is_place(load_le32(v->a.file + b * 4ull)))
            __atomic_store_n(&v->a.settled[b], 1, __ATOMIC_RELEASE);
}

/* `flush` held. */
int vdi_flush_locked(struct vdi *v)
{
    uint8_t count[4], *changed = calloc(v->blocks / PER_SECTOR + 1, 1);
    if (!changed)
        return -ENOMEM; /* nothing was changed: the next one may succeed */
    bool any = collect(v, changed, count);
    int rc = any ? node_write(v->below, count, sizeof count, H_COUNT, 0) : 0;
    v->count = any ? load_le32(count) : v->count;
    if (!rc)
        rc = node_flush(v->below); /* invariants 1 and 3 */
    if (!rc && any)
        rc = write_map(v, changed);
    if (!rc && any)
        rc = node_flush(v->below);
    if (rc)
        v->failed = rc;
    else
        settle(v, changed);
    free(changed);
    return rc;
}

static int vdi_flush(struct node *n)
{
    struct vdi *v = vdi_of(n);
    pthread_mutex_lock(&v->flush);
    int rc = v->failed ? v->failed : vdi_flush_locked(v);
    pthread_mutex_unlock(&v->flush);
    return rc;
}

static int vdi_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset,
                     unsigned flags)
{
    struct vdi *v = vdi_of(n);
    struct iov_cursor c = {iov, niov, 0};
    uint64_t len = 0;
    iov_total(iov, niov, &len);
    iov_advance(&c, 0);
    atomic_store(&v->written, true);
    while (len > 0) {
        uint64_t part = min_u64(len, v->block - offset % v->block);
        int rc = write_block(v, &c, offset, part);
        if (rc)
            return rc;
        offset += part;
        len -= part;
    }
    return flags & NODE_FUA ? vdi_flush(n) : 0;
}

/* Blocks without a place are zeroes already. */
static int vdi_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags)
{
    struct vdi *v = vdi_of(n);
    atomic_store(&v->written, true);
    while (len > 0) {
        struct run r = find_run(v, offset, len);
        int rc = vdi_is_place(r.entry)
                     ? node_zero(v->below, r.where, r.len, flags & ~(unsigned)NODE_FUA)
                     : 0;
        if (rc)
            return rc;
        offset += r.len;
        len -= r.len;
    }
    return flags & NODE_FUA ? vdi_flush(n) : 0;
}

static int vdi_discard(struct node *n, uint64_t offset, uint64_t len)
{
    return vdi_zero(n, offset, len, NODE_MAY_UNMAP);
}

/* ---- opening, closing ---- */

/* Everything but the file below. */
static void destroy(struct vdi *v)
{
    pthread_mutex_destroy(&v->flush);
    pthread_mutex_destroy(&v->alloc);
    vdi_free_map(&v->a);
    free(v);
}

static int vdi_freeze(struct node *n)
{
    int rc = vdi_flush(n);
    return rc ? rc : node_freeze(vdi_of(n)->below);
}

static void vdi_close(struct node *n)
{
    struct vdi *v = vdi_of(n);
    struct node *below = v->below;
    if (!n->readonly && atomic_load(&v->written)) {
        int rc = vdi_flush(n);
        if (rc)
            log_error("a vdi image could not be made durable when it was closed: %s",
                      strerror(-rc));
    }
    destroy(v);
    node_close(below);
}

static const struct node_ops vdi_ops = {
    .name = "vdi",
    .read = vdi_read,
    .write = vdi_write,
    .flush = vdi_flush,
    .zero = vdi_zero,
    .discard = vdi_discard,
    .map = vdi_map,
    .resize = vdi_resize,
    .resolve = vdi_resolve,
    .freeze = vdi_freeze,
    .close = vdi_close,
};

static bool all_zero(const uint8_t *p, size_t n)
{
    while (n > 0 && p[n - 1] == 0)
        n--;
    return n == 0;
}

/* What the header says of features. */
static int check_header(struct vdi *v, const uint8_t h[SECTOR], struct error *e)
{
    if (load_le32(h + H_MAGIC) != MAGIC)
        return error_set(e, ERR_FORMAT, "this is no vdi image: its signature is missing");
    if (load_le32(h + H_VERSION) != VERSION)
        return error_set(e, ERR_FORMAT, "version %u.%u of the format is not supported; 1.1 is",
                         load_le16(h + H_VERSION + 2), load_le16(h + H_VERSION));
    v->type = load_le32(h + H_TYPE);
    if (v->type != TYPE_DYNAMIC && v->type != TYPE_FIXED)
        return error_set(e, ERR_FORMAT,
                         "images of type %u are not supported; dynamic (1) and fixed (2) ones are",
                         v->type);
    if (!all_zero(h + H_LINK, H_END - H_LINK))
        return error_set(e, ERR_FORMAT,
                         "the image has a parent, which is not supported; merge "
                         "them with the program that made it");
    if (load_le32(h + H_SECTOR) != SECTOR || load_le32(h + H_EXTRA) != 0)
        return error_set(e, ERR_FORMAT,
                         "sectors of %u bytes and %u bytes in front of each block "
                         "are not supported; 512 and 0 are",
                         load_le32(h + H_SECTOR), load_le32(h + H_EXTRA));
    return 0;
}

/* Sizes and places, against each other and the file. */
static int check_layout(struct vdi *v, const uint8_t h[SECTOR], struct error *e)
{
    uint64_t size = load_le64(h + H_SIZE);
    v->block = load_le32(h + H_BLOCK);
    v->blocks = load_le32(h + H_BLOCKS);
    v->count = load_le32(h + H_COUNT);
    v->map_at = load_le32(h + H_MAP);
    v->data_at = load_le32(h + H_DATA);
    if ((v->block & (v->block - 1)) || v->block < MIN_BLOCK || v->block > MAX_BLOCK)
        return error_set(e, ERR_FORMAT, "blocks of %" PRIu64 " bytes are not possible", v->block);
    if (v->blocks > MAX_BLOCKS)
        return error_set(e, ERR_LIMIT, "the disk has %u blocks; %u are supported", v->blocks,
                         MAX_BLOCKS);
    if (size == 0 || size > v->blocks * v->block || size <= (v->blocks - 1) * v->block)
        return error_set(e, ERR_FORMAT,
                         "a disk of %" PRIu64 " bytes does not have %u blocks of %" PRIu64 " bytes",
                         size, v->blocks, v->block);
    if (v->map_at % SECTOR || v->data_at % SECTOR || v->map_at < SECTOR ||
        v->data_at < v->map_at + (v->blocks * 4ull + SECTOR - 1) / SECTOR * SECTOR ||
        v->data_at > node_size(v->below))
        return error_set(e, ERR_FORMAT, "the block map does not lie where it can");
    v->node.size = (size + SECTOR - 1) / SECTOR * SECTOR;
    return 0;
}

static int check_entry(struct vdi *v, uint32_t b, uint64_t there, struct error *e)
{
    uint32_t entry = v->a.map[b];
    if (entry >= v->blocks || entry >= there)
        return error_set(e, ERR_FORMAT,
                         "block %u is said to be at place %u, but the file has only %" PRIu64
                         "; was it copied completely?",
                         b, entry, min_u64(there, v->blocks));
    if (v->a.used[entry])
        return error_set(e, ERR_FORMAT, "block %u shares its place with another", b);
    return 0;
}

static int check_map(struct vdi *v, struct error *e)
{
    uint64_t there = (node_size(v->below) - v->data_at) / v->block;
    for (uint32_t b = 0; b < v->blocks; b++) {
        uint32_t entry = v->a.map[b] = load_le32(v->a.file + b * 4ull);
        if (!vdi_is_place(entry))
            continue;
        int rc = check_entry(v, b, there, v->check ? NULL : e);
        if (rc && !v->check)
            return rc;
        if (rc) {
            v->a.map[b] = UNALLOCATED;
            continue;
        }
        v->a.used[entry] = 1;
        v->a.settled[b] = 1;
        v->end = (uint32_t)max_u64(v->end, entry + 1ull);
    }
    return 0;
}

int vdi_alloc_map(struct vdi *v, uint32_t blocks)
{
    uint64_t sectors = blocks / PER_SECTOR + 1;
    v->a.map = malloc(blocks * sizeof *v->a.map);
    v->a.file = malloc(sectors * SECTOR);
    v->a.used = calloc(blocks, 1);
    v->a.dirty = calloc(sectors, 1);
    v->a.settled = calloc(blocks, sizeof *v->a.settled);
    if (!v->a.map || !v->a.file || !v->a.used || !v->a.dirty || !v->a.settled)
        return -ENOMEM;
    memset(v->a.map, 0xff, blocks * sizeof *v->a.map);
    memset(v->a.file, 0xff, sectors * SECTOR);
    return 0;
}

void vdi_free_map(struct vdi_arrays *a)
{
    free(a->map);
    free(a->file);
    free(a->used);
    free(a->dirty);
    free(a->settled);
}

static int read_map(struct vdi *v, struct error *e)
{
    if (vdi_alloc_map(v, v->blocks))
        return error_set(e, ERR_NOMEM, "out of memory");
    uint64_t len = (v->blocks * 4ull + SECTOR - 1) / SECTOR * SECTOR;
    int rc = node_read(v->below, v->a.file, len, v->map_at);
    return rc ? error_errno(e, ERR_IO, -rc, "cannot read the block map") : check_map(v, e);
}

static int vdi_open(struct node *file, const struct format_open *o, struct node **out,
                    struct error *e)
{
    const char *path = o->path ? o->path : "image";
    uint8_t h[SECTOR];
    struct error why = {0};
    struct vdi *v = calloc(1, sizeof *v);
    if (!v)
        return error_set(e, ERR_NOMEM, "%s: out of memory", path);
    v->node = (struct node){.ops = &vdi_ops,
                            .readonly = o->readonly || file->readonly,
                            .alignment = file->alignment,
                            .fd = -1};
    v->below = file;
    v->check = o->check;
    pthread_mutex_init(&v->flush, NULL);
    pthread_mutex_init(&v->alloc, NULL);
    int rc = node_size(file) < SECTOR
                 ? error_set(&why, ERR_FORMAT, "the file is too short for a header")
                 : 0;
    int failed = rc ? 0 : node_read(file, h, sizeof h, 0);
    if (failed)
        rc = error_errno(&why, ERR_IO, -failed, "cannot read the header");
    if (!rc)
        rc = check_header(v, h, &why);
    if (!rc)
        rc = check_layout(v, h, &why);
    if (!rc)
        rc = read_map(v, &why);
    if (rc) {
        destroy(v);
        return error_set(e, rc, "%s: %s", path, why.msg);
    }
    v->node.granularity = (uint32_t)v->block;
    *out = &v->node;
    return 0;
}

static bool vdi_probe(const uint8_t head[FORMAT_PROBE], uint64_t file_size)
{
    return load_le32(head + H_MAGIC) == MAGIC && load_le32(head + H_VERSION) == VERSION;
}

/* ---- creating ---- */

/* A random UUID (RFC 4122, 4.4); VirtualBox tells images apart by them. */
static int put_uuid(uint8_t *to)
{
    if (getrandom(to, 16, 0) != 16)
        return -EIO;
    to[7] = (to[7] & 0x0f) | 0x40; /* the first three fields are little-endian in the file */
    to[8] = (to[8] & 0x3f) | 0x80;
    return 0;
}

static int vdi_create(struct node *file, const struct format_create *c, struct error *e)
{
    static const char about[] = "<<< Oracle VM VirtualBox Disk Image >>>\n";
    uint64_t blocks = c->size / DEFAULT_BLOCK + (c->size % DEFAULT_BLOCK != 0);
    uint64_t map = (blocks * 4 + SECTOR - 1) / SECTOR * SECTOR;
    uint8_t h[SECTOR] = {0}, none[SECTOR];
    if (c->backing)
        return error_set(e, ERR_USAGE, "a vdi image has no backing file here; use qcow2");
    if (c->size == 0 || c->size % SECTOR || blocks > MAX_BLOCKS)
        return error_set(e, ERR_LIMIT,
                         "the size of a vdi disk is a multiple of %u bytes, up to "
                         "4 TiB",
                         SECTOR);
    memcpy(h, about, sizeof about - 1);
    store_le32(h + H_MAGIC, MAGIC);
    store_le32(h + H_VERSION, VERSION);
    store_le32(h + H_LENGTH, 0x180);
    store_le32(h + H_TYPE, TYPE_DYNAMIC);
    store_le32(h + H_MAP, SECTOR);
    store_le32(h + H_DATA, (uint32_t)((SECTOR + map + DEFAULT_BLOCK - 1) & -DEFAULT_BLOCK));
    store_le32(h + H_SECTOR, SECTOR);
    store_le64(h + H_SIZE, c->size);
    store_le32(h + H_BLOCK, (uint32_t)DEFAULT_BLOCK);
    store_le32(h + H_BLOCKS, (uint32_t)blocks);
    int rc = put_uuid(h + H_UUID);
    if (!rc)
        rc = put_uuid(h + H_SNAPSHOT);
    memset(none, 0xff, sizeof none);
    for (uint64_t at = 0; !rc && at < map; at += SECTOR)
        rc = node_write(file, none, SECTOR, SECTOR + at, 0);
    if (!rc)
        rc = node_resize(file, load_le32(h + H_DATA), e) ? -EIO : 0;
    if (!rc) /* last: without a header it is no image */
        rc = node_write(file, h, sizeof h, 0, 0);
    return rc ? error_errno(e, ERR_IO, -rc, "cannot write the image") : 0;
}

static struct json_t *vdi_info(struct node *n)
{
    struct vdi *v = vdi_of(n);
    pthread_mutex_lock(&v->alloc);
    uint32_t end = v->end;
    pthread_mutex_unlock(&v->alloc);
    return json_pack("{s:s, s:I, s:I}", "type", v->type == TYPE_FIXED ? "fixed" : "dynamic",
                     "block-size", (json_int_t)v->block, "blocks-allocated", (json_int_t)end);
}

const struct format format_vdi = {
    .name = "vdi",
    .help = "VirtualBox's format",
    .suffixes = "vdi",
    .probe = vdi_probe,
    .open = vdi_open,
    .create = vdi_create,
    .check = vdi_check,
    .info = vdi_info,
};
