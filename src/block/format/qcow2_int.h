/*
 * qcow2_int.h - what the files of the format qcow2 share. Clauses are those of the specification.
 *
 * Every number in an image is big-endian. Here L1 and the refcount table are in host order, slices
 * of L2 tables and refcount blocks (struct qcow2_cache) as in the file.
 *
 * Locks, in the order in which they are taken:
 *  flush   one flush at a time (qcow2_flush.c)
 *  meta    all metadata; held during metadata I/O, never during data I/O or fsync. It is enough to
 *          read anything.
 *  map     taken in addition to `meta` to change L1, the L2 cache or the guard; enough to look at
 *          them. Never held during I/O: resolve() takes nothing else.
 *  grace   read-held by reads from lookup to the end of I/O, write-held for a moment before
 *          clusters that were freed may be given out again.
 *
 * What makes writes safe is told in qcow2_flush.c.
 */
#ifndef SOSIA_BLOCK_FORMAT_QCOW2_INT_H
#define SOSIA_BLOCK_FORMAT_QCOW2_INT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/endian.h"
#include "block/format/qcow2.h"

#define QCOW2_MAGIC 0x514649fbu

/* Offsets in the header. */
#define QCOW2_H_BACKING_OFF  8
#define QCOW2_H_BACKING_LEN  16
#define QCOW2_H_CLUSTER_BITS 20
#define QCOW2_H_SIZE         24
#define QCOW2_H_CRYPT        32
#define QCOW2_H_L1_SIZE      36
#define QCOW2_H_L1_OFF       40
#define QCOW2_H_RT_OFF       48
#define QCOW2_H_RT_CLUSTERS  56
#define QCOW2_H_NSNAP        60
#define QCOW2_H_SNAP_OFF     64
#define QCOW2_H_INCOMPAT     72
#define QCOW2_H_COMPAT       80
#define QCOW2_H_AUTOCLEAR    88
#define QCOW2_H_ORDER        96
#define QCOW2_H_LENGTH       100
#define QCOW2_H_COMPRESSION  104
#define QCOW2_V2_LENGTH      72
#define QCOW2_V3_LENGTH      104
#define QCOW2_OUR_LENGTH     112

#define QCOW2_INCOMPAT_DIRTY       (1ull << 0)
#define QCOW2_INCOMPAT_CORRUPT     (1ull << 1)
#define QCOW2_INCOMPAT_DATA_FILE   (1ull << 2)
#define QCOW2_INCOMPAT_COMPRESSION (1ull << 3)
#define QCOW2_INCOMPAT_EXT_L2      (1ull << 4)
#define QCOW2_INCOMPAT_KNOWN       0x1full
#define QCOW2_COMPAT_LAZY          (1ull << 0)
#define QCOW2_AUTOCLEAR_BITMAPS    (1ull << 0)
#define QCOW2_AUTOCLEAR_RAW        (1ull << 1)

#define QCOW2_EXT_END            0u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURES       0x6803f857u
#define QCOW2_EXT_BITMAPS        0x23852875u
#define QCOW2_EXT_DATA_FILE      0x44415441u

#define QCOW2_OFFSET     0x00fffffffffffe00ull /* of L1 and standard L2 entries */
#define QCOW2_RT_OFFSET  0xfffffffffffffe00ull
#define QCOW2_COPIED     (1ull << 63)
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO       (1ull << 0)

#define QCOW2_MIN_CLUSTER_BITS 9
#define QCOW2_MAX_CLUSTER_BITS 21
#define QCOW2_MAX_NAME         1023         /* of a backing file; the specification's limit */
#define QCOW2_MAX_L1           (32 * MIB)   /* bytes, as QEMU's limit */
#define QCOW2_MAX_RT           (8 * MIB)    /* bytes, likewise */
#define QCOW2_MAX_SNAPSHOTS    65536        /* likewise */
#define QCOW2_MAX_SNAP_TABLE   (16 * MIB)   /* bytes */
#define QCOW2_MAX_END          (1ull << 56) /* of the file: what an L2 entry can hold */
#define QCOW2_SLICE            4096         /* bytes of a table that are cached as one */
#define QCOW2_MAX_STEP         (2 * MIB)    /* bytes that one step of a write allocates */
#define QCOW2_MIN_SLOTS        64           /* of a cache */
#define QCOW2_L2_CACHE         (4 * MIB)    /* by default: 32 GiB of a disk of 64 KiB clusters */
#define QCOW2_REFCOUNT_CACHE   (1 * MIB)

struct qcow2_slot {
    uint64_t where; /* offset of the slice in the file */
    uint8_t *data;
    uint8_t *frozen; /* a copy that a flush is about to write; NULL: none */
    int next;        /* in its hash chain; -1 ends it */
    bool used, dirty, recent;
};

struct qcow2_cache {
    struct qcow2_slot *slot;
    int *bucket; /* `nslot` of them, heads of chains */
    unsigned nslot, hand;
    unsigned busy; /* slots that are dirty or frozen */
    uint32_t slice;
    bool write_any_time; /* dirty slices may be written to make room */
};

/* Metadata that no data may overlap (qcow2_guard.c). */
struct qcow2_range {
    uint64_t first, last; /* clusters */
};
struct qcow2_guard {
    struct qcow2_range *range; /* header, L1, refcount table, snapshots; sorted */
    unsigned nrange;
    uint64_t *set; /* L2 tables and refcount blocks: hash set of cluster numbers, 0 is free */
    uint64_t mask, count;
};

struct qcow2_l1_fix {
    uint32_t index;
    uint64_t value; /* set when a flush freezes it */
};

struct qcow2_free {
    uint64_t offset; /* of the first byte */
    uint64_t len;
};

/* A run of bytes of the guest that are alike. */
enum qcow2_kind { QCOW2_HOLE, QCOW2_ZEROES, QCOW2_DATA, QCOW2_PACKED };
struct qcow2_run {
    enum qcow2_kind kind;
    bool copied;    /* has a place of its own, `host`, with refcount 1 (not PACKED) */
    uint64_t len;   /* bytes */
    uint64_t host;  /* of the first byte; 0 and not `copied`: none. PACKED: the L2 entry */
    uint64_t entry; /* of the first cluster */
};

/* Guest clusters for which a write is under way that will change their mapping. */
struct qcow2_inflight {
    uint64_t first, last; /* clusters */
    struct qcow2_inflight *next;
};

struct qcow2 {
    struct node node;
    struct node *file, *data; /* the same without an external data file */
    char *path;

    /* The header's. */
    uint32_t version, cluster_bits;
    uint64_t cluster;          /* bytes */
    _Atomic uint64_t incompat; /* DIRTY and CORRUPT change */
    uint64_t compat, autoclear;
    uint32_t header_length, order; /* of refcounts: bits are 1 << order */
    uint8_t compression;           /* 0 deflate, 1 zstd */
    uint64_t l1_offset, rt_offset;
    uint32_t l1_size, rt_clusters; /* entries; clusters */
    uint64_t snap_offset, snap_bytes;
    uint32_t nsnap;
    char *backing_name, *backing_format, *data_name;
    uint64_t bitmaps_offset, bitmaps_size; /* the directory; 0: none */
    uint32_t nbitmaps;

    /* Derived. */
    bool ext_l2, raw_data, check;
    uint32_t entry_size; /* bytes of an L2 entry */
    uint32_t sub_bits;   /* log2 of a subcluster's bytes */
    uint32_t subs;       /* subclusters of a cluster: 1 or 32 */
    uint32_t l2_bits;    /* log2 of entries of a table */
    uint32_t slice;      /* bytes */
    uint32_t slice_bits; /* log2 of L2 entries of a slice */
    uint32_t block_bits; /* log2 of entries of a refcount block */
    uint64_t refcount_max;

    pthread_mutex_t flush, meta, map;
    pthread_rwlock_t grace;
    pthread_cond_t landed; /* an entry of `inflight` is gone */

    uint64_t *l1; /* l1_size entries; with pending changes */
    struct qcow2_cache l2;
    struct qcow2_guard guard;
    struct qcow2_snapshot *snap;

    /* `meta`. */
    uint64_t *rt;
    uint64_t rt_entries;
    struct qcow2_cache blocks;
    uint64_t rt_first, rt_last;  /* entries to be written: [first, last) */
    struct qcow2_l1_fix *l1_fix; /* L1 entries to be written */
    unsigned nl1_fix, max_l1_fix;
    struct qcow2_free *freed; /* to be freed once their removal is durable */
    unsigned nfreed, max_freed;
    bool settling; /* a flush has taken entries and is not done with them */
    struct qcow2_inflight *inflight;
    uint64_t file_end;  /* bytes beyond it were never written and read as zeroes */
    uint64_t free_hint; /* no cluster below it is free */
    uint64_t packed_at; /* where the next compressed cluster begins; 0: nowhere */

    /* `flush`. */
    _Atomic uint64_t flush_asked;
    uint64_t flush_done;

    atomic_bool ready;      /* the header is as it has to be during writes */
    atomic_int flush_error; /* errno of the first failed flush */
    atomic_bool written;

    pthread_mutex_t unpack;  /* the last decompressed cluster */
    uint64_t unpacked_entry; /* 0: none */
    uint8_t *unpacked;
};

static inline struct qcow2 *qcow2_of(struct node *n)
{
    return CONTAINER_OF(n, struct qcow2, node);
}

static inline uint64_t qcow2_clusters(const struct qcow2 *q, uint64_t bytes)
{
    return (bytes >> q->cluster_bits) + ((bytes & (q->cluster - 1)) != 0);
}

static inline bool qcow2_external(const struct qcow2 *q)
{
    return (q->incompat & QCOW2_INCOMPAT_DATA_FILE) != 0;
}

static inline bool qcow2_lazy(const struct qcow2 *q)
{
    return (q->compat & QCOW2_COMPAT_LAZY) != 0;
}

/* ---- qcow2_header.c ---- */
int qcow2_header_read(struct qcow2 *q, struct error *e);
/* Writes the fields that this program changes, in one go within a sector; durable when it returns
 * if `flush`. */
int qcow2_header_features(struct qcow2 *q);
int qcow2_rebase(struct node *n, const char *backing, const char *backing_format, struct error *e);
/* Bytes of header extensions and backing name; see the definition. */
struct qcow2_names {
    const char *backing, *backing_format, *data_file; /* NULL: none */
};
int qcow2_header_tail(const struct qcow2 *q, const struct qcow2_names *names, uint8_t *head,
                      size_t room);

/* ---- qcow2_cache.c ---- */
int qcow2_cache_init(struct qcow2_cache *c, uint64_t bytes, uint32_t slice, bool write_any_time);
void qcow2_cache_free(struct qcow2_cache *c);
/* NULL: not there. `map` or `meta` held. */
struct qcow2_slot *qcow2_cache_peek(struct qcow2_cache *c, uint64_t where);
/* Reads it if need be; valid until the next call. `meta` held. */
int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t where,
                    struct qcow2_slot **out);
void qcow2_cache_dirty(struct qcow2_cache *c, struct qcow2_slot *s);
int qcow2_cache_write(struct qcow2 *q, struct qcow2_cache *c); /* all dirty slices; `meta` held */
void qcow2_cache_drop(struct qcow2 *q, struct qcow2_cache *c, uint64_t where, uint64_t len);
/* All slices that are as in the file. */
void qcow2_cache_drop_all(struct qcow2 *q, struct qcow2_cache *c);

/* ---- qcow2_guard.c ---- */
int qcow2_guard_init(struct qcow2 *q);
void qcow2_guard_free(struct qcow2 *q);
int qcow2_guard_add(struct qcow2 *q, uint64_t cluster); /* a table of one cluster; -ENOMEM */
int qcow2_guard_ranges(struct qcow2 *q);                /* L1 or the refcount table has moved */
/* True if [offset, offset + len) meets metadata; `map` or `meta` held. */
bool qcow2_guarded(const struct qcow2 *q, uint64_t offset, uint64_t len);
/* Marks the image corrupt, says so in the log, returns -EIO. `meta` held. */
int qcow2_corrupt(struct qcow2 *q, const char *what, uint64_t offset);

/* ---- qcow2_refcount.c ---- all with `meta` held */
int qcow2_refcount_init(struct qcow2 *q, struct error *e);
int qcow2_refcount_get(struct qcow2 *q, uint64_t cluster, uint64_t *value);
/* How many clusters from this one on have the refcount 0, as far as that is told at once: at the
 * beginning of a slice of refcounts up to all of it, of 64 bits in it those; else 0. */
int qcow2_refcount_none(struct qcow2 *q, uint64_t cluster, uint64_t *n);
int qcow2_refcount_set(struct qcow2 *q, uint64_t cluster, uint64_t value);
uint64_t qcow2_refcount_load(const struct qcow2 *q, const uint8_t *block, uint64_t index);
void qcow2_refcount_store(const struct qcow2 *q, uint8_t *block, uint64_t index, uint64_t value);
/* Takes `n` clusters in a row, whose refcounts become 1. *fresh: they read as zeroes. */
int qcow2_alloc(struct qcow2 *q, uint64_t n, uint64_t *offset, bool *fresh);
/* As many as lie together, at most *n. */
int qcow2_alloc_some(struct qcow2 *q, uint64_t *n, uint64_t *offset, bool *fresh);
/* Takes this very cluster if it is free. */
int qcow2_alloc_at(struct qcow2 *q, uint64_t cluster, bool *taken);
int qcow2_free_now(struct qcow2 *q, uint64_t offset, uint64_t len);
/* Frees once the removal of what refers to it is durable. */
void qcow2_free_later(struct qcow2 *q, uint64_t offset, uint64_t len);
int qcow2_write_table(struct qcow2 *q, const uint64_t *table, uint64_t n, uint64_t offset);

/* ---- qcow2_map.c ---- */
/* What is at `offset`, for at most `len` bytes; takes the locks itself, or with `meta` held. */
int qcow2_lookup(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_run *out);
int qcow2_lookup_locked(struct qcow2 *q, uint64_t offset, uint64_t len, struct qcow2_run *out);
bool qcow2_resolve(struct node *n, uint64_t offset, uint64_t len, bool write,
                   struct node_place *out);
int qcow2_map(struct node *n, uint64_t offset, uint64_t len, struct node_extent *out);
/* Where the bytes of a compressed cluster are. */
void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *len);

/* ---- qcow2_table.c ---- changes of L2 tables, `meta` held */
struct qcow2_entry {
    uint64_t e, bits; /* bits: of subclusters; 0 without them */
};
int qcow2_entry_get(struct qcow2 *q, uint64_t offset, struct qcow2_entry *out);
/* Gives the L2 table of `offset` a place of its own, if need be. */
int qcow2_table_own(struct qcow2 *q, uint64_t offset);
/* Sets the entry of the cluster at `offset` and hands what it referred to, if that is not its new
 * place, to qcow2_free_later(). */
int qcow2_entry_set(struct qcow2 *q, uint64_t offset, struct qcow2_entry v);

/* ---- qcow2_read.c ---- */
int qcow2_read(struct node *n, const struct iovec *iov, int niov, uint64_t offset);
int qcow2_read_buf(struct qcow2 *q, void *buf, uint64_t len, uint64_t offset);

/* ---- qcow2_write.c ---- */
int qcow2_write(struct node *n, const struct iovec *iov, int niov, uint64_t offset, unsigned flags);
int qcow2_write_zero_bytes(struct qcow2 *q, uint64_t offset, uint64_t len);
/* Before the first change: what the header has to say meanwhile. No lock held. */
int qcow2_begin(struct qcow2 *q);
/* Takes `meta` when the caches have room for what one step changes. */
int qcow2_lock_update(struct qcow2 *q);
/* Waits until no write in flight touches the first cluster of [offset, offset + *len), and
 * shortens *len to what is free. `meta` held, may be given up meanwhile: true if it was. */
bool qcow2_wait_inflight(struct qcow2 *q, uint64_t offset, uint64_t *len);
void qcow2_takeoff(struct qcow2 *q, struct qcow2_inflight *f, uint64_t offset, uint64_t len);
void qcow2_land(struct qcow2 *q, struct qcow2_inflight *f);

/* ---- qcow2_zero.c ---- */
int qcow2_zero(struct node *n, uint64_t offset, uint64_t len, unsigned flags);
int qcow2_discard(struct node *n, uint64_t offset, uint64_t len);
/* Forgets what is mapped at [offset, offset + len), whole clusters, beyond the disk's end. */
int qcow2_unmap(struct qcow2 *q, uint64_t offset, uint64_t len);

/* ---- qcow2_flush.c ---- */
int qcow2_flush(struct node *n);
/* Writes all metadata in safe order, durably; no lock held. */
int qcow2_sync(struct qcow2 *q);
/* At close: also refcounts that were postponed; clears the dirty bit. */
int qcow2_settle(struct qcow2 *q);

/* ---- qcow2_compress.c ---- */
int qcow2_write_compressed(struct node *n, const void *buf, size_t len, uint64_t offset);
/* Reads part of a compressed cluster. */
int qcow2_unpack(struct qcow2 *q, uint64_t entry, void *buf, uint64_t skip, uint64_t len);

/* ---- qcow2_snapshot.c ---- */
int qcow2_snapshots_read(struct qcow2 *q, struct error *e);
void qcow2_snapshots_free(struct qcow2 *q);

/* ---- qcow2_check.c ---- */
int qcow2_check(struct node *n, unsigned fix, struct format_check *out, struct error *e);

/* ---- qcow2_count.c ---- what refers to each cluster, for a check */
struct qcow2_count {
    struct qcow2 *q;
    struct format_check *out;
    unsigned fix;
    uint64_t clusters; /* of the file */
    uint32_t **page;   /* of 4096 counts; NULL: all 0 */
    uint64_t *l2;      /* offsets of L2 tables, once for each L1 entry; sorted */
    uint64_t nl2, max_l2;
    bool rebuild; /* refcounts cannot be put right in their places; before counting: do not count
                   * what holds them */
};
int qcow2_count_all(struct qcow2_count *c);
uint32_t qcow2_count_of(const struct qcow2_count *c, uint64_t cluster);
/* Whether anything in [first, last] may be referred to. */
bool qcow2_count_any(const struct qcow2_count *c, uint64_t first, uint64_t last);
int qcow2_count_add(struct qcow2_count *c, uint64_t cluster, uint32_t n);
void qcow2_count_free(struct qcow2_count *c);
/* One finding: an error, which `fixed` tells to be put right. */
void qcow2_count_error(struct qcow2_count *c, bool fixed, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* ---- qcow2_rebuild.c ---- writes new refcounts and makes the header refer to them */
int qcow2_rebuild(struct qcow2_count *c);

/* ---- qcow2_create.c, qcow2_resize.c, qcow2_info.c ---- */
extern const struct format_option qcow2_options[];
int qcow2_create(struct node *file, const struct format_create *c, struct error *e);
int qcow2_resize(struct node *n, uint64_t size, struct error *e);
struct json_t *qcow2_info(struct node *n);

/* ---- qcow2.c ---- */
/* Frees it and closes what is below, but for the image's own file. */
void qcow2_destroy(struct qcow2 *q);
int qcow2_l1_bounds(struct qcow2 *q, uint64_t size, uint64_t *entries, struct error *e);

#endif
