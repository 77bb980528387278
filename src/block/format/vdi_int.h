/*
 * vdi_int.h - VirtualBox's image format: dynamic and fixed images, version 1.1, without parents.
 *
 * A header, the block map (one little-endian u32 for each block of the disk: the number of its
 * place in the file), then the blocks, 1 MiB each as a rule.
 *
 * Invariants:
 *  1. What the map in the file refers to is durable there. A write puts a new block's bytes into a
 *     free place, then sets the entry in memory; a flush waits for the disk, writes the entries
 *     that were set before, and waits again. After a crash some places are unused at worst.
 *  2. No two blocks share a place (checked when the image is opened), none moves or is freed
 *     but by a change of the size or a repair, during which nothing else is done.
 *     A place is taken whole: what a write leaves out is made zero, whatever a crash left there.
 *  3. The header's count of places is at least one more than the highest in the map, and written
 *     before the map is: other programs append there.
 *  4. `file` is the map as it is in the file, and the only thing that is written there.
 *
 * Locks: `flush`, then `alloc`. Entries in memory change once, from unallocated to a place; they
 * are read with no lock.
 */
#ifndef SOSIA_BLOCK_FORMAT_VDI_INT_H
#define SOSIA_BLOCK_FORMAT_VDI_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "block/format.h"

enum {
    H_MAGIC = 0x40,
    H_VERSION = 0x44,
    H_LENGTH = 0x48,
    H_TYPE = 0x4c,
    H_MAP = 0x154,
    H_DATA = 0x158,
    H_SECTOR = 0x168,
    H_SIZE = 0x170,
    H_BLOCK = 0x178,
    H_EXTRA = 0x17c,
    H_BLOCKS = 0x180,
    H_COUNT = 0x184,
    H_UUID = 0x188,
    H_SNAPSHOT = 0x198,
    H_LINK = 0x1a8,
    H_PARENT = 0x1b8,
    H_END = 0x1c8,
};

#define MAGIC         0xbeda107fu
#define VERSION       0x00010001u
#define TYPE_DYNAMIC  1u
#define TYPE_FIXED    2u
#define SECTOR        512u
#define UNALLOCATED   0xffffffffu
#define DISCARDED     0xfffffffeu /* reads as zeroes */
#define MIN_BLOCK     (4 * KIB)
#define MAX_BLOCK     (64 * MIB)
#define DEFAULT_BLOCK (1 * MIB)
#define MAX_BLOCKS    (4u << 20) /* 4 TiB in blocks of 1 MiB; 33 MiB of memory */
#define PER_SECTOR    (SECTOR / 4)

struct vdi_arrays {
    uint32_t *map;    /* in memory: atomic; impossible entries are UNALLOCATED */
    uint8_t *file;    /* invariant 4; whole sectors. Under `flush` */
    uint8_t *used;    /* a byte for each place. Under `alloc`, as is: */
    uint8_t *dirty;   /* a byte for each sector of the map: set, not yet in the file */
    uint8_t *settled; /* a byte for each block: its entry in the file is durable; atomic */
};

struct vdi {
    struct node node;
    struct node *below;
    uint64_t map_at, data_at;
    uint64_t block;
    uint32_t blocks, type;
    uint32_t count; /* of places, as the header says */
    bool check;     /* damage is no reason to refuse it */
    struct vdi_arrays a;
    pthread_mutex_t flush;    /* also of `failed` */
    int failed;               /* -errno of the first flush that failed: node.h, rule 4 */
    pthread_mutex_t alloc;    /* of what follows */
    uint32_t first_free, end; /* places below are in use; end: one more than the highest in use */
    atomic_bool written;
};

static inline struct vdi *vdi_of(struct node *n)
{
    return CONTAINER_OF(n, struct vdi, node);
}

static inline bool vdi_is_place(uint32_t entry)
{
    return entry < DISCARDED;
}

static inline uint64_t vdi_place_at(const struct vdi *v, uint32_t place)
{
    return v->data_at + place * v->block;
}

/* vdi.c */
/* `flush` held: the map in the file becomes that in memory. */
int vdi_flush_locked(struct vdi *v);
/* Allocates what has a size that depends on the number of blocks, all of it empty. */
int vdi_alloc_map(struct vdi *v, uint32_t blocks);
void vdi_free_map(struct vdi_arrays *a);

/* vdi_resize.c */
int vdi_resize(struct node *n, uint64_t size, struct error *e);
/* Nothing else is done meanwhile, `flush` is held: copies blocks to places that are free, then has
 * the map refer to these; `to` is by block, UNALLOCATED where nothing changes. Their old places are
 * free afterwards. */
int vdi_relocate(struct vdi *v, const uint32_t *to);
/* Cuts off the file behind the last place in use, and has the header say how many there are. */
int vdi_trim(struct vdi *v, struct error *e);

/* vdi_check.c */
int vdi_check(struct node *n, unsigned fix, struct format_check *out, struct error *e);

#endif
