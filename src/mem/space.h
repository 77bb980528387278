/*
 * space.h - an address map: which RAM, ROM or device answers at an address (memory or ports).
 *
 * Regions have a priority; where they overlap the higher one answers, among equals the one added
 * last. Unclaimed addresses read as all ones and ignore writes. The map changes rarely (PCI BARs,
 * shadow RAM); a change is made under the device lock, takes the map's own write lock, and then
 * calls `changed` so that every vCPU drops its translations. Lookups take the read lock.
 */
#ifndef SOSIA_MEM_SPACE_H
#define SOSIA_MEM_SPACE_H

#include <pthread.h>

#include "base/error.h"
#include "base/types.h"
#include "mem/ram.h"

/* Or-ed into io_ops.sizes: an access of an implemented size is handed over whole even if `off` is
 * not a multiple of it (the VBE data port is a word at an odd address). The map splits it
 * otherwise. */
#define IO_UNALIGNED 0x100u

/* Register access of a device. `off` is relative to the region; called with the device lock held.
 */
struct io_ops {
    const char *name;
    unsigned sizes; /* access sizes implemented: 1|2|4|8 or-ed; the map splits the others into the
                       largest implemented smaller size, and narrows by reading the whole */
    uint64_t (*read)(void *dev, uint64_t off, unsigned size);
    void (*write)(void *dev, uint64_t off, uint64_t val, unsigned size);
};

enum region_kind { REGION_RAM, REGION_ROM, REGION_IO };

struct region {
    uint64_t base, len;
    enum region_kind kind;
    int prio;
    bool enabled;
    uint64_t roff;           /* RAM, ROM: RAM offset of the first byte */
    const struct io_ops *io; /* IO; ROM: receives writes if not NULL */
    void *dev;
    unsigned id; /* position in space->region */
};

struct flat {           /* one piece of the flattened map, sorted, not overlapping */
    uint64_t base, end; /* [base, end) */
    uint64_t delta;     /* offset of `base` within its region */
    unsigned region;
};

struct space {
    uint64_t limit; /* first address beyond the space */
    struct ram *ram;
    struct region *region;
    unsigned nregion;
    struct flat *flat;
    unsigned nflat;
    struct flat *next;  /* the flattening builds here; swapped with `flat` */
    uint64_t *edge;     /* scratch of the flattening */
    bool kinds_changed; /* since the last flattening */
    unsigned batch;     /* > 0: changes are collected until space_commit() */
    pthread_rwlock_t lock;
    void (*changed)(void *arg); /* may be NULL */
    void *changed_arg;
};

int space_init(struct space *s, uint64_t limit, struct ram *ram, struct error *e);
void space_fini(struct space *s);

/* Adds a region, enabled. *id names it from then on. ERR_NOMEM, ERR_LIMIT (outside the space). */
int space_add_ram(struct space *s, uint64_t base, uint64_t len, uint64_t roff, int prio,
                  unsigned *id, struct error *e);
int space_add_rom(struct space *s, uint64_t base, uint64_t len, uint64_t roff, int prio,
                  unsigned *id, struct error *e);
int space_add_io(struct space *s, uint64_t base, uint64_t len, const struct io_ops *io, void *dev,
                 int prio, unsigned *id, struct error *e);

/* Hands the writes that a ROM region receives to `io`, of which only `write` is used. */
void space_rom_writes(struct space *s, unsigned id, const struct io_ops *io, void *dev);

/* Moves or switches a region. A range outside the space leaves it disabled. Cannot fail: all memory
 * was reserved by the add. */
void space_move(struct space *s, unsigned id, uint64_t base, bool enabled);
void space_set_kind(struct space *s, unsigned id, enum region_kind kind); /* RAM <-> ROM */

/* Several changes, one flattening. */
void space_begin(struct space *s);
void space_commit(struct space *s);

/* What a CPU's page walk needs: if the whole 4 KiB page at `addr` is RAM or ROM, the RAM offset of
 * the page and whether it may be written directly. False: device, unclaimed, or mixed. */
bool space_page(struct space *s, gpa_t addr, uint64_t *roff, bool *writable);

/* Device access of 1, 2, 4 or 8 bytes at any alignment; RAM is served too. The device lock is held.
 */
uint64_t space_read(struct space *s, uint64_t addr, unsigned size);
void space_write(struct space *s, uint64_t addr, uint64_t val, unsigned size);

/* DMA: copies between a buffer and RAM/ROM; device memory and holes read as ones and swallow
 * writes. Writes are reported to code tracking. Returns false if any byte was not RAM. No lock
 * needed. */
bool dma_read(struct space *s, gpa_t addr, void *buf, uint64_t len);
bool dma_write(struct space *s, gpa_t addr, const void *buf, uint64_t len);

/* DMA without a copy: a host pointer to [addr, addr+*len), *len being cut to what is contiguous
 * RAM; NULL if addr is not RAM. Valid for the life of the RAM. After writing through it call
 * dma_wrote() for what was written. */
void *dma_map(struct space *s, gpa_t addr, uint64_t *len);
void dma_wrote(struct space *s, const void *host, uint64_t len);

#endif
