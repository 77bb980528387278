/*
 * vdi_resize.c - changing the size of a vdi disk, and moving its blocks.
 *
 * Sizes, the number of blocks and the places of map and data are one sector of the file, so they
 * change in one step. What the old header refers to stays as it is until then, and what the new one
 * refers to is durable before; whatever happens, the image is the old one or the new one. Only a
 * smaller disk loses its end before.
 *
 * Where there is no room for a longer map in front of the data, the first blocks make room: they
 * are copied to other places, and the rest is renumbered with the map that is written there.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "block/format/vdi_int.h"

#define COPY (1 * MIB)

static int copy_block(struct vdi *v, uint8_t *buf, uint32_t from, uint32_t to)
{
    int rc = 0;
    for (uint64_t at = 0, len; !rc && at < v->block; at += len) {
        len = min_u64(COPY, v->block - at);
        rc = node_read(v->below, buf, len, vdi_place_at(v, from) + at);
        if (!rc)
            rc = node_write(v->below, buf, len, vdi_place_at(v, to) + at, 0);
    }
    return rc;
}

int vdi_relocate(struct vdi *v, const uint32_t *to)
{
    uint8_t *buf = malloc(COPY), *old = buf ? calloc(v->blocks, 1) : NULL;
    int rc = old ? 0 : -ENOMEM;
    for (uint32_t b = 0; !rc && b < v->blocks; b++) {
        if (to[b] == UNALLOCATED)
            continue;
        uint32_t from = load_le32(v->a.file + b * 4ull);
        rc = copy_block(v, buf, from, to[b]);
        if (rc)
            break;
        old[from] = vdi_is_place(v->a.map[b]);
        v->a.used[to[b]] = 1;
        v->end = (uint32_t)max_u64(v->end, to[b] + 1ull);
        v->a.dirty[b / PER_SECTOR] = 1;
        v->a.map[b] = to[b];
    }
    if (!rc)
        rc = vdi_flush_locked(v);
    for (uint32_t p = 0; !rc && p < v->blocks; p++)
        if (old[p])
            v->a.used[p] = 0;
    v->first_free = 0;
    free(old);
    free(buf);
    return rc;
}

int vdi_trim(struct vdi *v, struct error *e)
{
    uint8_t count[4];
    for (v->end = v->blocks; v->end > 0 && !v->a.used[v->end - 1];)
        v->end--;
    v->count = v->end;
    store_le32(count, v->end);
    int rc = node_write(v->below, count, sizeof count, H_COUNT, 0);
    if (!rc)
        rc = node_flush(v->below);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot write the header");
    uint64_t size = vdi_place_at(v, v->end);
    return size < node_size(v->below) ? node_resize(v->below, size, e) : 0;
}

/* ---- the header ---- */

struct layout {
    uint64_t size, map_at, data_at;
    uint32_t blocks;
};

static int write_header(struct vdi *v, const struct layout *l, uint32_t count)
{
    uint8_t h[SECTOR];
    int rc = node_read(v->below, h, sizeof h, 0);
    if (rc)
        return rc;
    store_le64(h + H_SIZE, l->size);
    store_le32(h + H_BLOCKS, l->blocks);
    store_le32(h + H_MAP, (uint32_t)l->map_at);
    store_le32(h + H_DATA, (uint32_t)l->data_at);
    store_le32(h + H_COUNT, count);
    rc = node_flush(v->below); /* what it is going to refer to */
    if (!rc)
        rc = node_write(v->below, h, sizeof h, 0, 0);
    return rc ? rc : node_flush(v->below);
}

/* The image in memory becomes what its new header says; places are `shift` less than before. */
static int adopt(struct vdi *v, const struct layout *l, uint32_t shift)
{
    struct vdi_arrays old = v->a;
    uint32_t blocks = v->blocks;
    if (vdi_alloc_map(v, l->blocks)) {
        vdi_free_map(&v->a);
        v->a = old;
        return -ENOMEM;
    }
    v->end = 0;
    for (uint32_t b = 0; b < l->blocks && b < blocks; b++) {
        uint32_t entry = old.map[b];
        if (vdi_is_place(entry)) {
            entry -= shift;
            v->a.used[entry] = v->a.settled[b] = 1;
            v->end = (uint32_t)max_u64(v->end, entry + 1ull);
        }
        v->a.map[b] = entry;
        store_le32(v->a.file + b * 4ull, entry);
    }
    v->blocks = l->blocks;
    v->map_at = l->map_at;
    v->data_at = l->data_at;
    v->count = v->end;
    v->first_free = 0;
    vdi_free_map(&old);
    return 0;
}

static uint64_t map_bytes(uint64_t blocks)
{
    return (blocks * 4 + SECTOR - 1) / SECTOR * SECTOR;
}

/* Writes the map for the new layout and then the header. */
static int switch_to(struct vdi *v, const struct layout *l, uint32_t shift, struct error *e)
{
    uint64_t map_at = v->map_at, blocks = v->blocks;
    int rc = adopt(v, l, shift);
    if (rc)
        return error_set(e, ERR_NOMEM, "out of memory");
    /* In the same place only what lies behind the old entries is new; the sector that they share is
     * written as a whole. */
    uint64_t from = l->map_at == map_at ? min_u64(blocks, l->blocks) / PER_SECTOR * SECTOR : 0;
    uint64_t len = map_bytes(l->blocks);
    if (from < len)
        rc = node_write(v->below, v->a.file + from, len - from, l->map_at + from, 0);
    if (!rc)
        rc = write_header(v, l, v->end);
    if (rc) {
        v->failed = rc; /* nobody knows which of the two it is: nothing is written any more */
        return error_errno(e, ERR_IO, -rc, "cannot write the header");
    }
    __atomic_store_n(&v->node.size, l->size, __ATOMIC_RELAXED);
    return 0;
}

/* ---- larger ---- */

/* Moves the blocks in the first `k` places out of the way. */
static int clear_first(struct vdi *v, uint32_t k, struct error *e)
{
    uint32_t *to = malloc(v->blocks * sizeof *to), place = k;
    if (!to)
        return error_set(e, ERR_NOMEM, "out of memory");
    memset(to, 0xff, v->blocks * sizeof *to);
    for (uint32_t b = 0; b < v->blocks; b++) {
        if (!vdi_is_place(v->a.map[b]) || v->a.map[b] >= k)
            continue;
        while (place < v->blocks && v->a.used[place])
            place++;
        if (place >= v->blocks) {
            free(to);
            return error_set(e, ERR_STATE,
                             "there is no room for a longer block map, since nearly all blocks are "
                             "in use; convert it to a new image, and resize that");
        }
        to[b] = place++;
    }
    int rc = vdi_relocate(v, to);
    free(to);
    return rc ? error_errno(e, ERR_IO, -rc, "cannot move blocks") : 0;
}

/* What lies in the last block behind the present end is the disk's now. */
static int zero_tail(struct vdi *v, struct error *e)
{
    uint64_t size = v->node.size, in = size % v->block;
    uint32_t entry = in ? v->a.map[size / v->block] : UNALLOCATED;
    int rc = vdi_is_place(entry)
                 ? node_zero(v->below, vdi_place_at(v, entry) + in, v->block - in, NODE_MAY_UNMAP)
                 : 0;
    return rc ? error_errno(e, ERR_IO, -rc, "cannot write zeroes") : 0;
}

static int grow(struct vdi *v, struct layout *l, struct error *e)
{
    uint64_t room = v->data_at - v->map_at, need = map_bytes(l->blocks);
    uint64_t old_end = v->map_at + map_bytes(v->blocks);
    uint32_t k = 0;
    int rc = zero_tail(v, e);
    if (!rc && need > room) {
        uint64_t more = (old_end + need - v->data_at + v->block - 1) / v->block;
        if (more > v->blocks || v->data_at + more * v->block > UINT32_MAX)
            return error_set(e, ERR_LIMIT, "the block map would become too long for this image");
        k = (uint32_t)more;
        l->map_at = old_end;
        l->data_at = v->data_at + k * v->block;
        rc = clear_first(v, k, e);
    }
    if (!rc && node_size(v->below) < l->data_at)
        rc = node_resize(v->below, l->data_at, e);
    return rc ? rc : switch_to(v, l, k, e);
}

/* ---- smaller ---- */

static int shrink(struct vdi *v, const struct layout *l, struct error *e)
{
    uint32_t *to = malloc(v->blocks * sizeof *to), place = 0;
    if (!to)
        return error_set(e, ERR_NOMEM, "out of memory");
    memset(to, 0xff, v->blocks * sizeof *to);
    for (uint32_t b = l->blocks; b < v->blocks; b++)
        if (vdi_is_place(v->a.map[b])) {
            v->a.used[v->a.map[b]] = 0;
            v->a.map[b] = UNALLOCATED;
            v->a.dirty[b / PER_SECTOR] = 1;
        }
    int rc = vdi_flush_locked(v);
    for (uint32_t b = 0; b < l->blocks; b++) {
        if (!vdi_is_place(v->a.map[b]) || v->a.map[b] < l->blocks)
            continue;
        while (v->a.used[place])
            place++; /* fewer blocks than places: there is one */
        to[b] = place++;
    }
    if (!rc)
        rc = vdi_relocate(v, to);
    free(to);
    if (rc)
        return error_errno(e, ERR_IO, -rc, "cannot move blocks");
    rc = switch_to(v, l, 0, e);
    return rc ? rc : vdi_trim(v, e);
}

int vdi_resize(struct node *n, uint64_t size, struct error *e)
{
    struct vdi *v = vdi_of(n);
    uint64_t blocks = size / v->block + (size % v->block != 0);
    if (size == 0 || size % SECTOR || blocks > MAX_BLOCKS)
        return error_set(e, ERR_LIMIT,
                         "the size of a vdi disk is a multiple of %u bytes, up to %u blocks of "
                         "%" PRIu64 " bytes",
                         SECTOR, MAX_BLOCKS, v->block);
    if (v->type == TYPE_FIXED)
        return error_set(e, ERR_STATE,
                         "the size of a fixed vdi image cannot be changed; convert it first");
    struct layout l = {size, v->map_at, v->data_at, (uint32_t)blocks};
    pthread_mutex_lock(&v->flush);
    int rc = v->failed ? v->failed : vdi_flush_locked(v);
    if (rc)
        rc = error_errno(e, ERR_IO, -rc, "cannot write the image");
    else
        rc = size < n->size ? shrink(v, &l, e) : grow(v, &l, e);
    pthread_mutex_unlock(&v->flush);
    return rc;
}
